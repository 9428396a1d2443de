{{/* The node agent: it points each node's container runtime at the cache, with files on the node. */}}

{{- define "cachalot.nodeNamespace" -}}
{{- .Values.nodeConfig.namespace | default (include "cachalot.namespace" .) -}}
{{- end -}}

{{/* What a node calls the cache. The kubelet fills in NODE_IP. */}}
{{- define "cachalot.nodeEndpoint" -}}
{{- $mode := .Values.nodeConfig.endpoint -}}
{{- if eq $mode "nodeIP" -}}
{{ include "cachalot.scheme" . }}://$(NODE_IP):{{ .Values.service.nodePort }}
{{- else if eq $mode "hostPort" -}}
{{- $hostIP := ternary "" .Values.hostPort.hostIP (has .Values.hostPort.hostIP (list "0.0.0.0" "::")) -}}
{{ include "cachalot.scheme" . }}://{{ include "cachalot.urlHost" ($hostIP | default "$(NODE_IP)") }}:
{{- ternary .Values.ports.registry .Values.hostPort.port .Values.hostNetwork -}}
{{- else if eq $mode "clusterIP" -}}
{{ include "cachalot.scheme" . }}://{{ include "cachalot.urlHost" .Values.service.clusterIP }}:{{ .Values.service.port }}
{{- else -}}
{{- .Values.nodeConfig.endpointURL -}}
{{- end -}}
{{- end -}}

{{/* The registries to mirror, separated by commas: those that the cache knows, but the one of its own image. With a configuration
     file of one's own these are the built-in ones: then nodeConfig.registries says more. */}}
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
{{- if .Values.nodeConfig.excludeOwnImage -}}
{{- $names = without $names .Values.image.registry -}}
{{- end -}}
{{- uniq $names | join "," -}}
{{- end -}}

{{/* The kind of the nodes for the agent, which finds it out by what it sees of them, and it sees nothing of k0s by itself. */}}
{{- define "cachalot.nodeFlavour" -}}
{{- include "cachalot.flavour" . | default "auto" -}}
{{- end -}}

{{- define "cachalot.certsDirectory" -}}
{{- $defaults := dict "microk8s" "/var/snap/microk8s/current/args/certs.d" -}}
{{- .Values.nodeConfig.paths.certsD | default (get $defaults (include "cachalot.nodeFlavour" .) | default "/etc/containerd/certs.d") -}}
{{- end -}}

{{/* What the agent sees of the node, as a list in YAML: what it writes to, and, read-only, what tells it whether the runtime will
     read that. */}}
{{- define "cachalot.nodePaths" -}}
{{- $written := dict "type" "DirectoryOrCreate" -}}
{{- $read := dict "type" "DirectoryOrCreate" "readOnly" true -}}
{{- $paths := list (merge (dict "name" "state" "path" .Values.nodeConfig.paths.state) $written) -}}
{{- if has "containerd" .Values.nodeConfig.runtimes -}}
{{- $homes := dict "k0s" "/etc/k0s" "microk8s" "/var/snap/microk8s/current/args" -}}
{{- $home := get $homes (include "cachalot.nodeFlavour" .) | default "/etc/containerd" -}}
{{- $paths = append $paths (merge (dict "name" "containerd" "path" $home) $read) -}}
{{- $paths = append $paths (merge (dict "name" "certs" "path" (include "cachalot.certsDirectory" .)) $written) -}}
{{- end -}}
{{- if has "crio" .Values.nodeConfig.runtimes -}}
{{- $paths = append $paths (merge (dict "name" "containers" "path" "/etc/containers") $read) -}}
{{- $paths = append $paths (merge (dict "name" "registries" "path" .Values.nodeConfig.paths.registriesConfD) $written) -}}
{{- end -}}
{{- with .Values.nodeConfig.caFile -}}
{{- $paths = append $paths (dict "name" "authority" "path" . "type" "File" "readOnly" true) -}}
{{- end -}}
{{- if eq (include "cachalot.nodeFlavour" .) "auto" -}}
{{- $paths = append $paths (dict "name" "os-release" "path" "/etc/os-release" "type" "File" "readOnly" true) -}}
{{- end -}}
{{- toYaml $paths -}}
{{- end -}}

{{/* Mounts and volumes of these paths; who removes needs those only that are written to. Arguments: root, writableOnly. */}}
{{- define "cachalot.nodeMounts" -}}
{{- $writableOnly := .writableOnly -}}
{{- range include "cachalot.nodePaths" .root | fromYamlArray }}
{{- if not (and .readOnly $writableOnly) }}
- name: {{ .name }}
  mountPath: /host{{ .path }}
  {{- if .readOnly }}
  readOnly: true
  {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "cachalot.nodeVolumes" -}}
{{- $writableOnly := .writableOnly -}}
{{- range include "cachalot.nodePaths" .root | fromYamlArray }}
{{- if not (and .readOnly $writableOnly) }}
- name: {{ .name }}
  hostPath: {path: {{ .path }}, type: {{ .type }}}
{{- end }}
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

{{/* The ServiceAccount whose tokens the agents show. */}}
{{- define "cachalot.nodeServiceAccountName" -}}
{{- include "cachalot.fullname" . }}-node-config
{{- end -}}

{{/* Metadata of an object of the hook, named after its component. Arguments: root, component, weight. */}}
{{- define "cachalot.cleanupMetadata" -}}
{{- $annotations := dict
    "helm.sh/hook" "post-delete"
    "helm.sh/hook-weight" .weight
    "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded,hook-failed" -}}
{{- include "cachalot.metadata" (dict "root" .root "component" .component "annotations" $annotations
    "name" (printf "%s-%s" (include "cachalot.fullname" .root) .component)
    "namespace" (include "cachalot.nodeNamespace" .root)) -}}
{{- end -}}
