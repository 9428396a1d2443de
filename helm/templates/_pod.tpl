{{/* The pod of the cache, the same whatever runs it: StatefulSet, DaemonSet or Deployment. */}}

{{/* Seconds between the decision to stop a pod and SIGTERM, in which services and nodes learn of it. The kubelet can wait by
     itself from 1.30 on; the image has no shell that could. */}}
{{- define "cachalot.preStopSeconds" -}}
{{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version -}}
{{- .Values.preStopDelaySeconds -}}
{{- else -}}
0
{{- end -}}
{{- end -}}

{{/* Seconds in which responses may end after SIGTERM. Ten are left to write down what the store holds. */}}
{{- define "cachalot.drainSeconds" -}}
{{- sub (int .Values.terminationGracePeriodSeconds) (add 10 (int (include "cachalot.preStopSeconds" .))) -}}
{{- end -}}

{{- define "cachalot.pod" -}}
metadata:
  {{- $checksum := dict "checksum/config" (include "cachalot.restartChecksum" .) }}
  {{- include "cachalot.podMetadata" (dict "root" . "component" "cache" "labels" .Values.podLabels
      "annotations" (merge $checksum .Values.podAnnotations)) | nindent 2 }}
spec:
  serviceAccountName: {{ include "cachalot.serviceAccountName" . }}
  automountServiceAccountToken: {{ or .Values.serviceAccount.automount (eq (include "cachalot.asksApiServer" .) "true") }}
  # Variables for every Service of the namespace are none of ours.
  enableServiceLinks: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- if .Values.hostNetwork }}
  hostNetwork: true
  dnsPolicy: {{ .Values.dnsPolicy | default "ClusterFirstWithHostNet" }}
  {{- else if .Values.dnsPolicy }}
  dnsPolicy: {{ .Values.dnsPolicy }}
  {{- end }}
  {{- with include "cachalot.scheduling" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .Values.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    {{- include "cachalot.container" . | nindent 4 }}
    {{- with .Values.sidecars }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "cachalot.configVolume" . | nindent 4 }}
    {{- with include "cachalot.storeVolume" . }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "cachalot.container" -}}
- name: cachalot
  image: {{ include "cachalot.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
    - serve
    - --config=/etc/cachalot/cachalot.toml
    {{- if not .Values.tls.enabled }}
    - --listen={{ include "cachalot.listen" (dict "root" . "port" .Values.ports.registry) }}
    {{- end }}
    - --admin={{ include "cachalot.listen" (dict "root" . "port" .Values.ports.admin) }}
    - --store=/var/cache/cachalot
    {{- with .Values.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  env:
    - name: CACHALOT_SERVER__DRAIN_TIMEOUT
      value: {{ include "cachalot.drainSeconds" . }}s
    {{- with include "cachalot.proxyEnv" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with .Values.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - name: registry
      containerPort: {{ .Values.ports.registry }}
      {{- if .Values.hostPort.enabled }}
      hostPort: {{ .Values.hostPort.port }}
      {{- with .Values.hostPort.hostIP }}
      hostIP: {{ . | quote }}
      {{- end }}
      {{- end }}
    - name: admin
      containerPort: {{ .Values.ports.admin }}
  startupProbe:
    httpGet: {path: /readyz, port: admin}
    {{- toYaml .Values.probes.startup | nindent 4 }}
  readinessProbe:
    httpGet: {path: /readyz, port: admin}
    {{- toYaml .Values.probes.readiness | nindent 4 }}
  livenessProbe:
    httpGet: {path: /livez, port: admin}
    {{- toYaml .Values.probes.liveness | nindent 4 }}
  {{- with include "cachalot.preStopSeconds" . | int }}
  lifecycle:
    preStop:
      sleep: {seconds: {{ . }}}
  {{- end }}
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
  securityContext:
    {{- toYaml .Values.containerSecurityContext | nindent 4 }}
  volumeMounts:
    - name: config
      mountPath: /etc/cachalot
      readOnly: true
    - name: store
      mountPath: /var/cache/cachalot
      {{- with .Values.persistence.subPath }}
      subPath: {{ . }}
      {{- end }}
    {{- with .Values.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "cachalot.proxyEnv" -}}
{{- with .Values.httpProxy.http }}
- name: HTTP_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .Values.httpProxy.https }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .Values.httpProxy.noProxy }}
- name: NO_PROXY
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "cachalot.scheduling" -}}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- $selector := include "cachalot.selectorLabels" (dict "root" . "component" "cache") | fromYaml }}
  {{- range .Values.topologySpreadConstraints }}
  - {{- merge (deepCopy .) (dict "labelSelector" (dict "matchLabels" $selector)) | toYaml | nindent 4 }}
  {{- end }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
