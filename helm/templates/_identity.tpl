{{/* Who may ask: TLS, identities, and the files of both. */}}

{{/* The API server's own keys, by the name that every pod knows. */}}
{{- define "cachalot.clusterKeys" -}}
https://kubernetes.default.svc/openid/v1/jwks
{{- end -}}

{{- define "cachalot.scheme" -}}
{{- ternary "https" "http" .Values.tls.enabled -}}
{{- end -}}

{{- define "cachalot.tlsSecretName" -}}
{{- .Values.tls.existingSecret | default (printf "%s-tls" (include "cachalot.fullname" .)) -}}
{{- end -}}

{{/* The `[[listener]]`, as its keys in YAML. */}}
{{- define "cachalot.listener" -}}
{{- $tls := .Values.tls -}}
{{- $keys := dict
    "address" (include "cachalot.listen" (dict "root" . "port" .Values.ports.registry))
    "cert" "/etc/cachalot/tls/tls.crt"
    "key" "/etc/cachalot/tls/tls.key"
    "http2" $tls.http2 -}}
{{- if $tls.clientCA -}}
{{- $_ := set $keys "client_ca" "/etc/cachalot/clients/ca.crt" -}}
{{- $_ := set $keys "client_certificate" $tls.clientCertificate -}}
{{- end -}}
{{- toYaml $keys -}}
{{- end -}}

{{/* `[admin]`, as its keys in YAML. */}}
{{- define "cachalot.admin" -}}
{{- $keys := dict -}}
{{- range $key := list "htpasswd" "tokens" -}}
{{- if get $.Values.admin $key -}}
{{- $_ := set $keys $key (printf "/etc/cachalot/admin/%s" $key) -}}
{{- end -}}
{{- end -}}
{{- toYaml $keys -}}
{{- end -}}

{{/* `[identity]`, as its keys in YAML. */}}
{{- define "cachalot.identity" -}}
{{- $identity := .Values.identity -}}
{{- $keys := dict -}}
{{- range $key := list "htpasswd" "tokens" -}}
{{- if get $identity $key -}}
{{- $_ := set $keys $key (printf "/etc/cachalot/identity/%s" $key) -}}
{{- end -}}
{{- end -}}
{{- if $identity.tokenKey -}}
{{- $_ := set $keys "token_key_file" "/etc/cachalot/identity/token-key" -}}
{{- end -}}
{{- with $identity.tokenLife -}}
{{- $_ := set $keys "token_life" . -}}
{{- end -}}
{{- if ne $identity.certificates "off" -}}
{{- $_ := set $keys "certificates" $identity.certificates -}}
{{- end -}}
{{- with $identity.serviceAccounts -}}
{{- if .enabled -}}
{{- $_ := set $keys "service_accounts_issuer" .issuer -}}
{{- $_ := set $keys "service_accounts_audience" .audience -}}
{{- $_ := set $keys "service_accounts_jwks" (.jwks | default (include "cachalot.clusterKeys" $)) -}}
{{- if .ca -}}
{{- $_ := set $keys "service_accounts_ca" "/etc/cachalot/identity/ca.crt" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not (kindIs "invalid" $identity.anonymous) -}}
{{- $_ := set $keys "anonymous" $identity.anonymous -}}
{{- end -}}
{{- toYaml $keys -}}
{{- end -}}

{{/* The files of these sections but for the certificate, each with the Secret or ConfigMap that it comes from. */}}
{{- define "cachalot.files" -}}
{{- $tls := .Values.tls -}}
{{- $identity := .Values.identity -}}
{{- $files := list -}}
{{- $wanted := list
    (list (ternary $tls.clientCA dict $tls.enabled) "ca.crt" "clients/ca.crt")
    (list $identity.htpasswd "htpasswd" "identity/htpasswd")
    (list $identity.tokens "tokens" "identity/tokens")
    (list $identity.tokenKey "token-key" "identity/token-key")
    (list (ternary $identity.serviceAccounts.ca dict $identity.serviceAccounts.enabled) "ca.crt" "identity/ca.crt")
    (list .Values.admin.htpasswd "htpasswd" "admin/htpasswd")
    (list .Values.admin.tokens "tokens" "admin/tokens") -}}
{{- range $wanted -}}
{{- $path := index . 2 -}}
{{- $key := index . 1 -}}
{{- with index . 0 -}}
{{- $files = append $files (dict
    "kind" (ternary "secret" "configMap" (hasKey . "existingSecret"))
    "name" (.existingSecret | default .existingConfigMap)
    "key" (.key | default $key)
    "path" $path) -}}
{{- end -}}
{{- end -}}
{{- toYaml $files -}}
{{- end -}}

{{/* Not empty where the API server is asked for its keys, by the pod's own token. */}}
{{- define "cachalot.asksApiServer" -}}
{{- with .Values.identity.serviceAccounts -}}
{{- if and .enabled (eq (.jwks | default (include "cachalot.clusterKeys" $)) (include "cachalot.clusterKeys" $)) -}}
true
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Not empty where a client can be somebody. */}}
{{- define "cachalot.knowsSomebody" -}}
{{- with .Values.identity -}}
{{- if or .htpasswd .tokens .serviceAccounts.enabled (ne .certificates "off") -}}
true
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Not empty where callers show what is their upstream's: for pushes, or to be let in there. */}}
{{- define "cachalot.takesCallers" -}}
{{- range .Values.config.upstreams -}}
{{- if or .push (eq (.access | default "shared") "caller") .access_except -}}
true
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Not empty where clients are told to get tokens. */}}
{{- define "cachalot.givesTokens" -}}
{{- if and .Values.config.server.public_url (or (include "cachalot.knowsSomebody" .) (include "cachalot.takesCallers" .)) -}}
true
{{- end -}}
{{- end -}}

{{/* Not empty where a bearer token of `nodeConfig` can be somebody's. */}}
{{- define "cachalot.nodeShowsToken" -}}
{{- if or .Values.nodeConfig.token .Values.nodeConfig.serviceAccountToken.enabled -}}
true
{{- end -}}
{{- end -}}

{{/* Not empty where the nodes, and with them `helm test`, show the cache anything, or are told whom to believe. */}}
{{- define "cachalot.hasCredentials" -}}
{{- if or (include "cachalot.nodeShowsToken" .) .Values.nodeConfig.clientCertificate .Values.nodeConfig.ca -}}
true
{{- end -}}
{{- end -}}

{{/* Not empty where only who shows a certificate gets a connection. */}}
{{- define "cachalot.wantsCertificate" -}}
{{- if and .Values.tls.enabled .Values.tls.clientCA (eq .Values.tls.clientCertificate "required") -}}
true
{{- end -}}
{{- end -}}

{{/* Not empty where only who is somebody is served. */}}
{{- define "cachalot.wantsSomebody" -}}
{{- if and (include "cachalot.knowsSomebody" .) (not .Values.identity.anonymous) -}}
true
{{- end -}}
{{- end -}}

{{/* Why the cache does not serve who shows what `nodeConfig` says, which may be nothing, and what to set; nothing where it does. */}}
{{- define "cachalot.nodesAreSentAway" -}}
{{- $shown := .Values.nodeConfig -}}
{{- $identity := .Values.identity -}}
{{- $byToken := or (and $shown.token (or $identity.tokens $identity.serviceAccounts.enabled))
    (and $shown.serviceAccountToken.enabled $identity.serviceAccounts.enabled) -}}
{{- $byCertificate := and $shown.clientCertificate (ne $identity.certificates "off") -}}
{{- if and (include "cachalot.wantsCertificate" .) (not $shown.clientCertificate) -}}
tls.clientCertificate=required lets in who shows a certificate: set nodeConfig.clientCertificate.existingSecret, or
tls.clientCertificate=optional
{{- else if and (include "cachalot.wantsSomebody" .) (not (or $byToken $byCertificate)) -}}
identity without identity.anonymous=true lets in whom it knows: set nodeConfig.token.existingSecret to a token of identity.tokens,
nodeConfig.serviceAccountToken.enabled with identity.serviceAccounts, nodeConfig.clientCertificate with identity.certificates, or
identity.anonymous=true
{{- end -}}
{{- end -}}

{{/* Not empty where the cache asks at /v2/ who one is, and serves all the same who shows nothing. What a file of one's own says of that
     is not known. */}}
{{- define "cachalot.asksWhomItServes" -}}
{{- $mayAsk := or (include "cachalot.givesTokens" .) (and .Values.config.existingConfigMap .Values.identity.anonymous) -}}
{{- if and $mayAsk (not (include "cachalot.wantsSomebody" .)) (not (include "cachalot.nodeShowsToken" .)) -}}
true
{{- end -}}
{{- end -}}

{{/* The sources of a volume with what is shown, as a list in YAML. Arguments: root, ca. */}}
{{- define "cachalot.credentialSources" -}}
{{- $shown := .root.Values.nodeConfig -}}
{{- with .ca }}
- {{ ternary "secret" "configMap" (hasKey . "existingSecret") }}:
    name: {{ .existingSecret | default .existingConfigMap }}
    items:
      - {key: {{ .key | default "ca.crt" }}, path: ca.crt}
{{- end }}
{{- with $shown.token }}
- secret:
    name: {{ .existingSecret }}
    items:
      - {key: {{ .key | default "token" }}, path: token}
{{- end }}
{{- if $shown.serviceAccountToken.enabled }}
- serviceAccountToken:
    audience: {{ .root.Values.identity.serviceAccounts.audience | quote }}
    expirationSeconds: {{ $shown.serviceAccountToken.expirationSeconds | int64 }}
    path: token
{{- end }}
{{- with $shown.clientCertificate }}
- secret:
    name: {{ .existingSecret }}
    items:
      - {key: {{ .certKey | default "tls.crt" }}, path: tls.crt}
      - {key: {{ .keyKey | default "tls.key" }}, path: tls.key}
{{- end }}
{{- end -}}

{{/* The options that name these files. Arguments: root, ca. */}}
{{- define "cachalot.credentialArguments" -}}
{{- if .ca }}
- --install-ca=/credentials/ca.crt
{{- end }}
{{- if include "cachalot.nodeShowsToken" .root }}
- --token-file=/credentials/token
{{- end }}
{{- if .root.Values.nodeConfig.clientCertificate }}
- --install-client-cert=/credentials/tls.crt
- --install-client-key=/credentials/tls.key
{{- end }}
{{- if include "cachalot.asksWhomItServes" .root }}
- --allow-unauthorized
{{- end }}
{{- end -}}

{{/* The volume. Arguments: root, ca. */}}
{{- define "cachalot.credentialVolume" -}}
- name: credentials
  projected:
    # 0440: for the group of the pod (fsGroup).
    defaultMode: 288
    sources:
      {{- include "cachalot.credentialSources" . | trim | nindent 6 }}
{{- end -}}
