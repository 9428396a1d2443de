{{/* What the Services, and what leads to them, share. */}}

{{/* Annotations of the Service: behind an Ingress, Traefik asks it how to speak to the pods. */}}
{{- define "cachalot.serviceAnnotations" -}}
{{- $annotations := deepCopy .Values.service.annotations -}}
{{- if and .Values.tls.enabled .Values.ingress.enabled -}}
{{- $annotations = merge $annotations (dict "traefik.ingress.kubernetes.io/service.serversscheme" "https") -}}
{{- end -}}
{{- toYaml $annotations -}}
{{- end -}}

{{/* Annotations of the Ingress: ingress-nginx asks it. */}}
{{- define "cachalot.ingressAnnotations" -}}
{{- $annotations := deepCopy .Values.ingress.annotations -}}
{{- if .Values.tls.enabled -}}
{{- $annotations = merge $annotations (dict "nginx.ingress.kubernetes.io/backend-protocol" "HTTPS") -}}
{{- end -}}
{{- toYaml $annotations -}}
{{- end -}}

{{- define "cachalot.ipFamilies" -}}
{{- with .Values.service.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.service.ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The wanted trafficDistribution where this cluster knows it, else nothing. */}}
{{- define "cachalot.trafficDistribution" -}}
{{- with .Values.service.trafficDistribution -}}
{{- $since := ternary "1.31.0" "1.34.0" (eq . "PreferClose") -}}
{{- if semverCompare (printf ">=%s-0" $since) $.Capabilities.KubeVersion.Version -}}
{{- . -}}
{{- end -}}
{{- end -}}
{{- end -}}
