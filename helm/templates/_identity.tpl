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

{{/* Why who shows nothing is not answered as a registry answers, by value; nothing where it is. Neither the node agent nor `helm test`
     shows anything. */}}
{{- define "cachalot.strangersAreSentAway" -}}
{{- if and .Values.tls.enabled .Values.tls.clientCA (eq .Values.tls.clientCertificate "required") -}}
tls.clientCertificate=required
{{- else if and (include "cachalot.knowsSomebody" .) (not .Values.identity.anonymous) -}}
identity without identity.anonymous=true
{{- else if include "cachalot.givesTokens" . -}}
config.server.public_url, by which everybody is told to get a token
{{- end -}}
{{- end -}}
