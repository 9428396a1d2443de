# Upstreams that want to know who asks: by passwords, tokens, and certificates. Sourced by upstreams.

readonly basic_endpoint=http://127.0.0.1:5011 token_endpoint=http://127.0.0.1:5021
readonly password=first-password-7 rotated=second-password-8 wrong=wrong-password-9 identity=identity-token-5

accounts() {
    printf '%s\n' "$password" >"$work/password"
    printf '%s\n' "$wrong" >"$work/wrong-password"
    htpasswd -Bbn puller "$password" >"$work/htpasswd"
    start_registry_with_accounts
    nginx_server basic 127.0.0.1:5011 'location / { proxy_pass http://127.0.0.1:5010; }' >"$work/servers"
    start_nginx basic-nginx http://127.0.0.1:5011/settled <"$work/servers"
    {
        upstream basic.test "$basic_endpoint" 'username = "puller"' "password_file = \"$work/password\""
        upstream wrong.test "$basic_endpoint" 'username = "puller"' "password_file = \"$work/wrong-password\""
        upstream anonymous.test "$basic_endpoint"
        printf '[log]\nlevel = "trace"\n'
    } >"$work/sections"
    serve accounts <"$work/sections"
    check 'password: skopeo, which has no account, pulls' pulls basic.test cold/1
    check 'password: the registry refused one request, the first' was_asked basic '^401' 1
    check 'password: all the others came with the password' was_asked basic 'auth:none' 1
    check 'password: skopeo pulls an index with its images' pulls basic.test index
    check 'wrong password: 403 DENIED, never 401' answers_with 403 "$(manifest wrong.test cold/1)" '"DENIED"'
    tell "wrong password: $(message)"
    check 'wrong password: the words name what to look at' grep --ignore-case 'password\|credentials\|account' "$work/body"
    check 'wrong password: skopeo is denied, and not asked to log in' skopeo_is_denied wrong.test
    check 'no account: 403 DENIED' answers_with 403 "$(manifest anonymous.test cold/1)" '"DENIED"'
    tell "no account: $(message)"
    check 'password: no client ever saw a challenge' no_challenge basic.test wrong.test anonymous.test

    htpasswd -Bbn puller "$rotated" >"$work/htpasswd"
    stop registry-accounts || true
    start_registry_with_accounts
    check 'rotated at the registry: 403 while the file has the old password' \
        answers_with 403 "$(manifest basic.test cold/2)" '"DENIED"'
    printf '%s\n' "$rotated" >"$work/password.new"
    mv "$work/password.new" "$work/password"
    check 'rotated in the file: what is not cached comes without a restart' \
        timed await cachalot 20 answers_with 200 "$(manifest basic.test cold/2)"
    tell "rotated password: good $took ms after the file changed"
    check 'rotated in the file: skopeo pulls' pulls basic.test cold/2
    check 'password: none is in the log, the metrics or an answer' no_secret
    stop cachalot || true
    stop basic-nginx || true
    stop registry-accounts || true
}

start_registry_with_accounts() {
    start_registry registry-accounts 127.0.0.1:5010 "auth: { htpasswd: { realm: registry, path: $work/htpasswd } }"
}

skopeo_is_denied() {
    local code=0
    pulls "$1" cold/1 >"$work/denied" 2>&1 || code=$?
    cat "$work/denied"
    ((code)) && grep --quiet 'denied' "$work/denied" &&
        ! grep --ignore-case 'unauthorized' "$work/denied"
}

# no_challenge UPSTREAM…: neither where registries ask who one is, nor in any answer until now.
no_challenge() {
    local upstream
    get /v2/ || return
    for upstream in "$@"; do
        get "/v2/$upstream/cold/1/tags/list" && get "/v2/$upstream/cold/1/manifests/nothing" || return
    done
    ! grep --ignore-case '^www-authenticate\|^HTTP/1.1 401' "$work/answers"
}

no_secret() {
    local word secret
    curl --silent --fail --max-time 5 --output "$work/metrics" "http://$admin/metrics" || return
    for word in "$password" "$rotated" "$wrong" "$identity"; do
        for secret in "$word" "$(printf 'puller:%s' "$word" | base64)" "$(printf '<token>:%s' "$word" | base64)"; do
            ! grep --fixed-strings --max-count=1 -e "$secret" "$work/cachalot.log" "$work/metrics" "$work/answers" || return
        done
    done
}

tokens() {
    local service=$work/token-service repository before
    mkdir -p "$service"
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tokens -keyout "$service/token.key" \
        -out "$service/token.pem" 2>/dev/null
    printf 'puller:%s\n<token>:%s\n' "$password" "$identity" >"$service/accounts"
    printf '300' >"$service/life"
    printf '%s\n' "$password" >"$work/password"
    printf '%s\n' "$wrong" >"$work/wrong-password"
    printf '{"auths":{"127.0.0.1:5021":{"identitytoken":"%s"}}}' "$identity" >"$work/docker.json"
    start tokens python3 "$here/token_server.py" 5022 "$service" tests registry.test
    await tokens 20 takes_connections 5022
    start_registry registry-tokens 127.0.0.1:5020 "auth: { token: { realm: 'http://127.0.0.1:5022/token', \
service: registry.test, issuer: tests, rootcertbundle: $service/token.pem } }"
    nginx_server token 127.0.0.1:5021 'location / { proxy_pass http://127.0.0.1:5020; }' >"$work/servers"
    start_nginx token-nginx http://127.0.0.1:5021/settled <"$work/servers"
    {
        upstream token.test "$token_endpoint" 'username = "puller"' "password_file = \"$work/password\"" 'tag_ttl = "0s"'
        upstream wrong.test "$token_endpoint" 'username = "puller"' "password_file = \"$work/wrong-password\""
        upstream identity.test "$token_endpoint" "docker_config = \"$work/docker.json\""
        printf '[log]\nlevel = "trace"\n'
    } >"$work/sections"
    serve tokens <"$work/sections"
    for repository in cold/1 cold/2 cold/3 index; do
        check "token: skopeo pulls $repository" pulls token.test "$repository"
    done
    check 'token: one was given for each repository, to the password' each_repository_got_one_token 4
    check 'token: the registry never saw the password' was_asked token auth:basic 0
    check 'token: the registry refused one request, the first' was_asked token '^401' 1

    printf '3' >"$service/life"
    check 'short token: skopeo pulls with one that lives for three seconds' pulls token.test cold/4
    check 'short token: then the registry does not take it any more' await tokens 20 token_is_refused
    before=$(token_requests '^GET 200')
    mark token
    check 'expired token: a client does not notice' fresh token.test cold/4
    check 'expired token: the registry refused it once' was_asked token '^401.*auth:bearer' 1
    check 'expired token: one more was given' test "$(token_requests '^GET 200')" = $((before + 1))
    check 'expired token: the registry took that one' was_asked token '^200.*auth:bearer' 1

    printf '300' >"$service/life"
    check 'identity token: skopeo pulls' pulls identity.test cold/5
    check 'identity token: a POST was answered 405' test "$(token_requests '^POST 405')" = 1
    check 'identity token: skopeo pulls from another repository' pulls identity.test cold/6
    check 'identity token: no other POST was sent' test "$(token_requests '^POST')" = 1
    check 'wrong password: no 401, and the token service is named' wrong_for_the_token_service
    tell "wrong password at a token service: $status, $(message)"
    check 'token: no client ever saw a challenge' no_challenge token.test wrong.test identity.test
    check 'token: no password is in the log, the metrics or an answer' no_secret
    check 'token: nor is a token' no_token
    tell "token service: $(token_requests '^GET 200') tokens, $(token_requests '^GET 401') refusals," \
        "$(token_requests '^POST') POST"
    stop cachalot || true
    stop token-nginx || true
    stop registry-tokens || true
    stop tokens || true
}

# takes_connections PORT: asks nothing, for every question would be in the log.
takes_connections() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1")
}

# token_requests PATTERN: counts them in the token service's log.
token_requests() {
    grep -c -e "$1" "$work/tokens.log" || true
}

each_repository_got_one_token() {
    cat "$work/tokens.log"
    [[ $(token_requests '^GET 200 auth:basic repository:[^ ]*:pull$') == "$1" ]] &&
        [[ $(wc -l <"$work/tokens.log") == "$1" && $(sort -u "$work/tokens.log" | wc -l) == "$1" ]]
}

token_is_refused() {
    [[ $(curl --silent --max-time 2 --output /dev/null --write-out '%{http_code}' --header \
        "Authorization: Bearer $(<"$work/token-service/token")" http://127.0.0.1:5020/v2/cold/4/manifests/1) == 401 ]]
}

wrong_for_the_token_service() {
    get "$(manifest wrong.test cold/1)" || return
    [[ $status == 403 || $status == 502 ]] && grep --ignore-case 'token service' "$work/body"
}

no_token() {
    ! grep --fixed-strings --max-count=1 --file="$work/token-service/token" "$work/cachalot.log" "$work/metrics" "$work/answers"
}

certificates() {
    make_certificates
    local tls=("ssl_certificate $work/server.pem;" "ssl_certificate_key $work/server.key;"
        "location / { proxy_pass http://$registry; }")
    {
        nginx_server tls '127.0.0.1:5030 ssl' "${tls[@]}"
        nginx_server mutual '127.0.0.1:5031 ssl' "${tls[@]}" "ssl_client_certificate $work/ca.pem;" 'ssl_verify_client on;'
        nginx_server plain 127.0.0.1:5032
    } >"$work/servers"
    start_nginx tls-nginx http://127.0.0.1:5032/settled <"$work/servers"
    {
        upstream unknown.test https://127.0.0.1:5030
        upstream known.test https://127.0.0.1:5030 "ca = \"$work/ca.pem\""
        upstream believed.test https://127.0.0.1:5030 'insecure = true'
        upstream stranger.test https://127.0.0.1:5031 "ca = \"$work/ca.pem\""
        upstream client.test https://127.0.0.1:5031 "ca = \"$work/ca.pem\"" "client_cert = \"$work/client.pem\"" \
            "client_key = \"$work/client.key\""
    } >"$work/sections"
    serve certificates <"$work/sections"
    check 'private authority: 502 with words about TLS' answers_with 502 "$(manifest unknown.test cold/1)" TLS
    tell "private authority: $(message)"
    check 'private authority: the log says that it is the certificate, and whose' await cachalot 20 \
        has_line cachalot.log 'http.status=502.*TLS with 127.0.0.1.*certificate'
    check 'private authority: the registry heard no request' was_asked tls . 0
    check 'private authority, ca: skopeo pulls' pulls known.test cold/1
    check 'private authority, insecure: skopeo pulls' pulls believed.test cold/2
    check 'no client certificate: 502' answers_with 502 "$(manifest stranger.test cold/3)"
    tell "no client certificate: $(message)"
    check 'no client certificate: nginx gave nothing' was_asked mutual '^200' 0
    mark mutual
    check 'client certificate: skopeo pulls' pulls client.test cold/3
    check 'client certificate: nginx refused nothing' was_asked mutual '^400' 0
    stop cachalot || true
    stop tls-nginx || true
}

# make_certificates: an authority, and what it signed for the server and for us.
make_certificates() {
    local name key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
    openssl req -x509 "${key[@]}" -days 2 -subj '/CN=Private authority' -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
    printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' >"$work/server.ext"
    printf 'subjectAltName=DNS:cachalot.test\nextendedKeyUsage=clientAuth\n' >"$work/client.ext"
    for name in server client; do
        openssl req "${key[@]}" -subj "/CN=$name" -keyout "$work/$name.key" -out "$work/$name.csr" 2>/dev/null
        openssl x509 -req -days 2 -in "$work/$name.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial \
            -extfile "$work/$name.ext" -out "$work/$name.pem" 2>/dev/null
    done
}
