{{/* Names, labels, metadata and images: what every object of the release shares. */}}

{{- define "cachalot.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 48 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 48 characters: with the longest suffix (-node-cleanup) it is still a label. */}}
{{- define "cachalot.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- else if contains (include "cachalot.name" .) .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "cachalot.name" .) | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "cachalot.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end -}}

{{/* Labels that select pods. They can never change: no version, nothing that a user may add. */}}
{{- define "cachalot.selectorLabels" -}}
app.kubernetes.io/name: {{ include "cachalot.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Metadata of an object. Arguments: root, component; optionally name, namespace, labels, annotations. */}}
{{- define "cachalot.metadata" -}}
{{- $root := .root -}}
{{- $own := include "cachalot.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63) -}}
{{- $_ := set $own "app.kubernetes.io/version" ($root.Chart.AppVersion | replace "+" "_" | trunc 63) -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" $root.Release.Service -}}
name: {{ .name | default (include "cachalot.fullname" $root) }}
namespace: {{ .namespace | default (include "cachalot.namespace" $root) }}
labels:
  {{- merge $own (deepCopy (.labels | default dict)) $root.Values.commonLabels | toYaml | nindent 2 }}
{{- with merge (deepCopy (.annotations | default dict)) $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The metadata of pods. Arguments: root, component; optionally labels, annotations. */}}
{{- define "cachalot.podMetadata" -}}
labels:
  {{- merge (include "cachalot.selectorLabels" . | fromYaml) (deepCopy (.labels | default dict)) .root.Values.commonLabels
      | toYaml | nindent 2 }}
{{- with merge (deepCopy (.annotations | default dict)) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "cachalot.image" -}}
{{- $image := .Values.image -}}
{{- $name := printf "%s/%s" $image.registry $image.repository | trimPrefix "/" -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "cachalot.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "cachalot.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* The address of the listeners, with its port. Arguments: root, port. */}}
{{- define "cachalot.listen" -}}
{{- printf "%s:%d" .root.Values.listenAddress (int .port) -}}
{{- end -}}

{{/* An address as it stands in a URL: IPv6 in brackets. */}}
{{- define "cachalot.urlHost" -}}
{{- ternary (printf "[%s]" .) . (contains ":" .) -}}
{{- end -}}
