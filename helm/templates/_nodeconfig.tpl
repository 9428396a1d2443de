{{/* The node agent: it points each node's container runtime at the cache, with files on the node. */}}

{{- define "cachalot.nodeNamespace" -}}
{{- .Values.nodeConfig.namespace | default (include "cachalot.namespace" .) -}}
{{- end -}}

{{/* What a node calls the cache. The kubelet fills in NODE_IP. */}}
{{- define "cachalot.nodeEndpoint" -}}
{{- $mode := .Values.nodeConfig.endpoint -}}
{{- if eq $mode "nodeIP" -}}
http://$(NODE_IP):{{ .Values.service.nodePort }}
{{- else if eq $mode "hostPort" -}}
http://{{ .Values.hostPort.hostIP | default "$(NODE_IP)" }}:
{{- ternary .Values.ports.registry .Values.hostPort.port .Values.hostNetwork -}}
{{- else if eq $mode "clusterIP" -}}
http://{{ .Values.service.clusterIP }}:{{ .Values.service.port }}
{{- else -}}
{{- .Values.nodeConfig.endpointURL -}}
{{- end -}}
{{- end -}}

{{/* The registries to mirror, separated by commas: those that the cache knows. With a configuration file of one's own these are
     the built-in ones: then nodeConfig.registries says more. */}}
{{- define "cachalot.nodeRegistries" -}}
{{- $names := .Values.nodeConfig.registries -}}
{{- if not $names -}}
{{- if dig "builtin_upstreams" true .Values.config.server -}}
{{- $names = list "docker.io" "ghcr.io" "quay.io" "registry.k8s.io" "gcr.io" "mcr.microsoft.com" "public.ecr.aws" "nvcr.io"
    "registry.gitlab.com" -}}
{{- end -}}
{{- range .Values.config.upstreams -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}
{{- uniq $names | join "," -}}
{{- end -}}

{{- define "cachalot.certsDirectory" -}}
{{- $default := ternary "/var/snap/microk8s/current/args/certs.d" "/etc/containerd/certs.d" (eq .Values.nodeConfig.flavour "microk8s") -}}
{{- .Values.nodeConfig.paths.certsD | default $default -}}
{{- end -}}

{{/* Where the files are. The same for the agent and for the clean-up. */}}
{{- define "cachalot.nodeDirectories" -}}
- --host-root=/host
- --state-dir={{ .Values.nodeConfig.paths.state }}
{{- if has "containerd" .Values.nodeConfig.runtimes }}
- --certs-dir={{ include "cachalot.certsDirectory" . }}
{{- end }}
{{- if has "crio" .Values.nodeConfig.runtimes }}
- --registries-dir={{ .Values.nodeConfig.paths.registriesConfD }}
{{- end }}
{{- end -}}

{{/* The directories of the node that are written to, and no others. */}}
{{- define "cachalot.nodePaths" -}}
{{- $paths := dict "state" .Values.nodeConfig.paths.state -}}
{{- if has "containerd" .Values.nodeConfig.runtimes -}}
{{- $_ := set $paths "certs" (include "cachalot.certsDirectory" .) -}}
{{- end -}}
{{- if has "crio" .Values.nodeConfig.runtimes -}}
{{- $_ := set $paths "registries" .Values.nodeConfig.paths.registriesConfD -}}
{{- end -}}
{{- toYaml $paths -}}
{{- end -}}

{{- define "cachalot.nodeMounts" -}}
{{- range $name, $path := include "cachalot.nodePaths" . | fromYaml }}
- name: {{ $name }}
  mountPath: /host{{ $path }}
{{- end }}
{{- end -}}

{{- define "cachalot.nodeVolumes" -}}
{{- range $name, $path := include "cachalot.nodePaths" . | fromYaml }}
- name: {{ $name }}
  hostPath:
    path: {{ $path }}
    type: DirectoryOrCreate
{{- end }}
{{- end -}}

{{/* The agent is root, as the directories are root's; it has no capability and nothing else to write to. */}}
{{- define "cachalot.nodeContainerSecurity" -}}
{{- mergeOverwrite (deepCopy .Values.containerSecurityContext) (dict "runAsUser" 0 "runAsGroup" 0 "runAsNonRoot" false)
    (deepCopy .Values.nodeConfig.containerSecurityContext) | toYaml -}}
{{- end -}}

{{/* The pod's settings that the agent and the clean-up share. */}}
{{- define "cachalot.nodePod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.nodeConfig.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeConfig.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeConfig.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
