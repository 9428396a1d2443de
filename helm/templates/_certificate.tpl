{{/* A certificate that cert-manager is to issue. Arguments: root, secretName, dnsNames, certificate (issuerRef, duration, renewBefore);
     optionally name, ipAddresses. */}}
{{- define "cachalot.certificate" -}}
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  {{- include "cachalot.metadata" (dict "root" .root "component" "cache" "name" .name) | nindent 2 }}
spec:
  secretName: {{ .secretName }}
  dnsNames:
    {{- toYaml .dnsNames | nindent 4 }}
  {{- with .ipAddresses }}
  ipAddresses:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  issuerRef:
    {{- toYaml .certificate.issuerRef | nindent 4 }}
  {{- with .certificate.duration }}
  duration: {{ . }}
  {{- end }}
  {{- with .certificate.renewBefore }}
  renewBefore: {{ . }}
  {{- end }}
{{- end -}}
