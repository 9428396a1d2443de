{{/* Kinds of nodes on which somebody else writes the runtime's files: what to do there instead. */}}

{{/* The kind of the nodes: what the values say, else what the API server's version tells, else nothing. */}}
{{- define "cachalot.flavour" -}}
{{- $version := .Capabilities.KubeVersion.Version -}}
{{- if ne .Values.nodeConfig.flavour "auto" -}}
{{- .Values.nodeConfig.flavour -}}
{{- else if contains "+k3s" $version -}}
k3s
{{- else if contains "+rke2" $version -}}
rke2
{{- else if contains "+k0s" $version -}}
k0s
{{- else if contains "-gke." $version -}}
gke
{{- end -}}
{{- end -}}

{{/* An address of the cache for people to read. */}}
{{- define "cachalot.shownEndpoint" -}}
{{- $scheme := include "cachalot.scheme" . -}}
{{- if .Values.service.clusterIP -}}
{{ $scheme }}://{{ include "cachalot.urlHost" .Values.service.clusterIP }}:{{ .Values.service.port }}
{{- else if .Values.service.nodePort -}}
{{ $scheme }}://NODE-IP:{{ .Values.service.nodePort }}
{{- else -}}
{{ $scheme }}://CLUSTER-IP:{{ .Values.service.port }}
{{- end -}}
{{- end -}}

{{/* What to write where, for a kind of nodes that has a way of its own; nothing for the others. */}}
{{- define "cachalot.flavourSnippet" -}}
{{- $flavour := include "cachalot.flavour" . -}}
{{- $endpoint := include "cachalot.shownEndpoint" . -}}
{{- if has $flavour (list "k3s" "rke2") -}}
On every node, in /etc/rancher/{{ $flavour }}/registries.yaml; then restart {{ $flavour }}:

mirrors:
  docker.io:
    endpoint: ["{{ $endpoint }}"]
  registry.k8s.io:
    endpoint: ["{{ $endpoint }}"]
{{- else if eq $flavour "talos" -}}
A document of the machine configuration for each registry:

apiVersion: v1alpha1
kind: RegistryMirrorConfig
name: docker.io
endpoints:
  - url: {{ $endpoint }}
{{- else if eq $flavour "bottlerocket" -}}
In the user data of the nodes:

[[settings.container-registry.mirrors]]
registry = "docker.io"
endpoint = ["{{ $endpoint }}"]
{{- else if eq $flavour "gke" -}}
In the runtime configuration file of the node pool (containerd, registryHosts):

registryHosts:
  - server: https://registry-1.docker.io
    hosts:
      - host: {{ $endpoint }}
        capabilities: [HOST_CAPABILITY_PULL, HOST_CAPABILITY_RESOLVE]
{{- end -}}
{{- end -}}

{{/* Why the agent is of no use on these nodes, and the snippet; nothing where it is. */}}
{{- define "cachalot.flavourAdvice" -}}
{{- with include "cachalot.flavourSnippet" . -}}
nodes of the kind {{ include "cachalot.flavour" $ }} keep their registries' configuration themselves and would replace the agent's:
set nodeConfig.enabled=false, and configure the nodes. {{ . }}
{{- end -}}
{{- end -}}
