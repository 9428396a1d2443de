{{/* What both Services share. */}}

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
