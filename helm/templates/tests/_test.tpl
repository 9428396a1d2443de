{{/* The pods of `helm test`: the product's own image, for a cluster that cannot pull is what a cache is for. */}}

{{- define "cachalot.testPod" -}}
restartPolicy: Never
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "cachalot.testContainer" -}}
image: {{ include "cachalot.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
resources:
  requests: {cpu: 10m, memory: 32Mi}
  limits: {memory: 128Mi}
securityContext:
  {{- toYaml .Values.containerSecurityContext | nindent 2 }}
{{- end -}}

{{/* Where the test of the Service runs: beside the credentials that it shows. */}}
{{- define "cachalot.testNamespace" -}}
{{- ternary (include "cachalot.nodeNamespace" .) (include "cachalot.namespace" .) (eq (include "cachalot.hasCredentials" .) "true") -}}
{{- end -}}

{{/* The authority that it believes, as the values have it; `tls.ca` is in the cache's namespace. */}}
{{- define "cachalot.testCA" -}}
{{- $isBeside := eq (include "cachalot.testNamespace" .) (include "cachalot.namespace" .) -}}
{{- $ca := .Values.nodeConfig.ca | default (ternary .Values.tls.ca dict $isBeside) -}}
{{- toYaml (ternary $ca dict .Values.tls.enabled) -}}
{{- end -}}

{{/* Why the Service is not asked; nothing where it is. */}}
{{- define "cachalot.testIsVain" -}}
{{- $ca := include "cachalot.testCA" . | fromYaml -}}
{{- if include "cachalot.nodesAreSentAway" . -}}
Who shows nothing is sent away
{{- else if and .Values.tls.enabled .Values.tls.ca (not $ca) -}}
The authority of the certificate is in another namespace than the credentials, unless nodeConfig.ca is set
{{- end -}}
{{- end -}}

{{/* The pods of `helm test` as a peer of a NetworkPolicy. Arguments: root, namespace. */}}
{{- define "cachalot.testPeer" -}}
{{- if .root.Values.tests.enabled -}}
# `helm test`
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ .namespace }}
  podSelector:
    matchLabels:
      {{- include "cachalot.selectorLabels" (dict "root" .root "component" "test") | nindent 6 }}
{{- end -}}
{{- end -}}
