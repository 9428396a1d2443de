{{/* Where the store lives. */}}

{{/* The spec of a claim, of a StatefulSet's or of a pod's own. */}}
{{- define "cachalot.claimSpec" -}}
accessModes:
  {{- toYaml .Values.persistence.accessModes | nindent 2 }}
{{- with .Values.persistence.storageClass }}
storageClassName: {{ ternary "" . (eq . "-") | quote }}
{{- end }}
resources:
  requests:
    storage: {{ .Values.persistence.size }}
{{- end -}}

{{/* The pod's volume; none where a StatefulSet's claim template brings it. */}}
{{- define "cachalot.storeVolume" -}}
{{- $persistence := .Values.persistence -}}
{{- if eq $persistence.type "existingClaim" -}}
- name: store
  persistentVolumeClaim:
    claimName: {{ $persistence.existingClaim }}
{{- else if eq $persistence.type "ephemeral" -}}
- name: store
  ephemeral:
    volumeClaimTemplate:
      metadata:
        labels:
          {{- include "cachalot.selectorLabels" (dict "root" . "component" "cache") | nindent 10 }}
        {{- with $persistence.annotations }}
        annotations:
          {{- toYaml . | nindent 10 }}
        {{- end }}
      spec:
        {{- include "cachalot.claimSpec" . | nindent 8 }}
{{- else if eq $persistence.type "hostPath" -}}
- name: store
  hostPath:
    path: {{ $persistence.hostPath }}
    # It must be there, writable for the pod's user: a directory that the kubelet makes is root's.
    type: Directory
{{- else if eq $persistence.type "emptyDir" -}}
- name: store
  emptyDir:
    sizeLimit: {{ $persistence.size }}
{{- end -}}
{{- end -}}
