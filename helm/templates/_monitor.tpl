{{/* The endpoint of a ServiceMonitor or PodMonitor. Arguments: root, monitor. Alerts and dashboard count on job="cachalot". */}}
{{- define "cachalot.monitorEndpoint" -}}
- port: admin
  path: /metrics
  {{- with .monitor.interval }}
  interval: {{ . }}
  {{- end }}
  {{- with .monitor.scrapeTimeout }}
  scrapeTimeout: {{ . }}
  {{- end }}
  {{- with .root.Values.admin.scrape }}
  {{- if .tokenKey }}
  authorization:
    type: Bearer
    credentials: {name: {{ .existingSecret }}, key: {{ .tokenKey }}}
  {{- else }}
  basicAuth:
    username: {name: {{ .existingSecret }}, key: {{ .usernameKey }}}
    password: {name: {{ .existingSecret }}, key: {{ .passwordKey }}}
  {{- end }}
  {{- end }}
  relabelings:
    - action: replace
      targetLabel: job
      replacement: cachalot
    {{- with .monitor.relabelings }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .monitor.metricRelabelings }}
  metricRelabelings:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
