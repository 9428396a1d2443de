{{/* The configuration file, from the values of `config`. */}}

{{/* The keys of one table as TOML. A JSON string, number, boolean or list of these is TOML as well. */}}
{{- define "cachalot.toml.keys" -}}
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ mustToRawJson $value }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The paths of an upstream's files, as keys of the configuration. Arguments: index, upstream. */}}
{{- define "cachalot.toml.files" -}}
{{- $directory := printf "/etc/cachalot/upstreams/%d" .index -}}
{{- $files := dict -}}
{{- with .upstream.credentials -}}
{{- if .dockerConfigKey -}}
{{- $_ := set $files "docker_config" (printf "%s/docker.json" $directory) -}}
{{- else -}}
{{- $_ := set $files "username" .username -}}
{{- $_ := set $files "password_file" (printf "%s/password" $directory) -}}
{{- end -}}
{{- end -}}
{{- with .upstream.ca -}}
{{- $_ := set $files "ca" (printf "%s/ca.crt" $directory) -}}
{{- end -}}
{{- with .upstream.client_certificate -}}
{{- $_ := set $files "client_cert" (printf "%s/tls.crt" $directory) -}}
{{- $_ := set $files "client_key" (printf "%s/tls.key" $directory) -}}
{{- end -}}
{{- toYaml $files -}}
{{- end -}}

{{/* What the store may fill, where the values do not say it: nearly all of a volume of its own; of a node's disk, what
     `persistence.size` grants, and nothing that kubelet would evict pods for. */}}
{{- define "cachalot.store" -}}
{{- $store := deepCopy .Values.config.store -}}
{{- if has .Values.persistence.type (list "hostPath" "emptyDir") -}}
{{- /* A tenth is left to what is being written, and to the file system: a pod that exceeds an emptyDir's limit is evicted. */ -}}
{{- $capacity := printf "%dMiB" (div (mul (include "cachalot.sizeMiB" .Values.persistence.size | int64) 9) 10) -}}
{{- $store = merge $store (dict "capacity" $capacity "min_free" "20%") -}}
{{- else -}}
{{- $store = merge $store (dict "capacity" "90%" "min_free" "5%") -}}
{{- end -}}
{{- toYaml $store -}}
{{- end -}}

{{/* A quantity such as 100Gi in MiB; the schema admits no other units. */}}
{{- define "cachalot.sizeMiB" -}}
{{- $factors := dict "Mi" 1 "Gi" 1024 "Ti" 1048576 -}}
{{- mul (regexFind "^[0-9]+" . | int64) (get $factors (regexFind "[A-Z]i$" .)) -}}
{{- end -}}

{{- define "cachalot.toml" -}}
# Rendered by Helm. Upstreams, identities, certificates, freshness, limits of clients and the log level change without a restart.
{{- range $section := list "server" "clients" "store" "freshness" "fills" "metrics" "log" }}
{{- $values := get $.Values.config $section }}
{{- if eq $section "store" }}
{{- $values = include "cachalot.store" $ | fromYaml }}
{{- else if and (eq $section "server") $.Values.tls.enabled }}
{{- $values = merge (dict "listen" list) $values }}
{{- end }}
{{- with $values }}

[{{ $section }}]
{{- include "cachalot.toml.keys" . }}
{{- end }}
{{- end }}
{{- range $section := list "admin" "identity" }}
{{- with include (printf "cachalot.%s" $section) $ | fromYaml }}

[{{ $section }}]
{{- include "cachalot.toml.keys" . }}
{{- end }}
{{- end }}
{{- range .Values.identity.principals }}

[[principal]]
{{- include "cachalot.toml.keys" . }}
{{- end }}
{{- if .Values.tls.enabled }}

[[listener]]
{{- include "cachalot.toml.keys" (include "cachalot.listener" . | fromYaml) }}
{{- end }}
{{- range $index, $upstream := .Values.config.upstreams }}

[[upstream]]
{{- include "cachalot.toml.keys" (omit $upstream "credentials" "ca" "client_certificate") }}
{{- include "cachalot.toml.keys" (include "cachalot.toml.files" (dict "index" $index "upstream" $upstream) | fromYaml) }}
{{- end }}
{{- end -}}

{{- define "cachalot.configMapName" -}}
{{- .Values.config.existingConfigMap | default (include "cachalot.fullname" .) -}}
{{- end -}}

{{/* A checksum over what takes a restart to change; the rest is reloaded by the running process. */}}
{{- define "cachalot.restartChecksum" -}}
{{- $config := .Values.config -}}
{{- list $config.existingConfigMap (omit $config.server "default_upstream" "builtin_upstreams" "public_url") (include "cachalot.store" .)
    $config.fills (pick $config.clients "fills" "unfinished") $config.metrics (omit $config.log "level") | toJson | sha256sum -}}
{{- end -}}

{{/* The volume of the configuration: the file, and below upstreams/ what existing Secrets and ConfigMaps hold. */}}
{{- define "cachalot.configVolume" -}}
- name: config
  projected:
    # 0440: for the group of the pod (fsGroup).
    defaultMode: 288
    sources:
      - configMap:
          name: {{ include "cachalot.configMapName" . }}
          items:
            - {key: cachalot.toml, path: cachalot.toml}
      {{- if .Values.tls.enabled }}
      - secret:
          name: {{ include "cachalot.tlsSecretName" . }}
          items:
            - {key: tls.crt, path: tls/tls.crt}
            - {key: tls.key, path: tls/tls.key}
      {{- end }}
      {{- range include "cachalot.files" . | fromYamlArray }}
      - {{ .kind }}:
          name: {{ .name }}
          items:
            - {key: {{ .key }}, path: {{ .path }}}
      {{- end }}
      {{- range $index, $upstream := .Values.config.upstreams }}
      {{- $directory := printf "upstreams/%d" $index }}
      {{- with $upstream.credentials }}
      - secret:
          name: {{ .existingSecret }}
          items:
            {{- if .dockerConfigKey }}
            - {key: {{ .dockerConfigKey }}, path: {{ $directory }}/docker.json}
            {{- else }}
            - {key: {{ .passwordKey }}, path: {{ $directory }}/password}
            {{- end }}
      {{- end }}
      {{- with $upstream.ca }}
      - {{ ternary "secret" "configMap" (hasKey . "existingSecret") }}:
          name: {{ .existingSecret | default .existingConfigMap }}
          items:
            - {key: {{ .key | default "ca.crt" }}, path: {{ $directory }}/ca.crt}
      {{- end }}
      {{- with $upstream.client_certificate }}
      - secret:
          name: {{ .existingSecret }}
          items:
            - {key: {{ .certKey | default "tls.crt" }}, path: {{ $directory }}/tls.crt}
            - {key: {{ .keyKey | default "tls.key" }}, path: {{ $directory }}/tls.key}
      {{- end }}
      {{- end }}
{{- end -}}
