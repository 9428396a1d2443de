# A registry at a public address that redirects to where nothing must be asked. Sourced by upstreams.
#
# Everything is in our own network: the addresses are ours, and whatever is dialled would be heard of.

readonly public_address=93.184.216.34 other_address=93.184.216.35
# Where each repository of the registry leads to.
readonly -A led_to=(
    [loopback]=http://127.0.0.1:5070
    [any]=http://0.0.0.0:5070
    [mapped]='http://[::ffff:127.0.0.1]:5070'
    [six]='http://[::1]:5070'
    [localhost]=http://localhost:5070
    [named]=http://rebind.example.com:5070
    [private]=http://10.0.0.1:5070
    [metadata]=http://169.254.169.254
)

egress() {
    local address place layer
    for address in "$public_address" "$other_address" 10.0.0.1 169.254.169.254; do
        ip address add "$address/32" dev lo
    done
    printf '127.0.0.1 localhost rebind.example.com\n::1 localhost\n%s registry.example.com\n' "$public_address" >"$work/names"
    mount --bind "$work/names" /etc/hosts
    layer=$(make_bait cold/5)
    start bait python3 "$here/listener.py" 5070 "$work/bait"
    start bait-80 python3 "$here/listener.py" 80 "$work/bait"
    await bait 20 has_line bait.log listening
    await bait-80 20 has_line bait-80.log listening
    leading_servers >"$work/servers"
    start_nginx public-nginx "http://$other_address:8080/settled" <"$work/servers"
    {
        upstream public.test http://registry.example.com:8080
        upstream inner.test "http://$public_address:8080" 'internal = true'
        upstream rebound.test http://rebind.example.com:5070
    } >"$work/sections"
    digest_of[elsewhere/cold/2]=${digest_of[cold/2]}
    serve egress <"$work/sections"
    check 'egress: skopeo pulls from a public address' pulls public.test cold/1
    check 'egress: skopeo pulls what a redirect to another one brings' pulls public.test elsewhere/cold/2
    check 'egress: the blobs were there' was_asked elsewhere '^20[06] "GET.*/blobs/' 4
    for place in "${!led_to[@]}"; do
        check "egress: a manifest is not fetched from ${led_to[$place]}" is_not_dialled "$(manifest public.test "$place/cold/5")"
        check "egress: a blob is not fetched from ${led_to[$place]}" \
            is_not_dialled "/v2/public.test/$place/cold/5/blobs/$layer"
        tell "$(message)"
    done
    check 'egress: a token service there is not asked' is_not_dialled "$(manifest public.test token/cold/5)"
    check 'egress: nor a registry whose name leads there' is_not_dialled "$(manifest rebound.test cold/5)"
    check 'egress: nothing arrived there' nothing_arrived bait bait-80

    check 'egress, internal: a manifest comes from this machine' answers_with 200 "$(manifest inner.test loopback/cold/5)"
    check 'egress, internal: so does a blob' answers_with 200 "/v2/inner.test/loopback/cold/5/blobs/$layer"
    check 'egress, internal: it was heard there' grep '^connection to .*127.0.0.1' "$work/bait.log"
    check 'egress, internal: the metadata service is not asked' is_not_dialled "$(manifest inner.test metadata/cold/5)"
    check 'egress, internal: nothing arrived there' nothing_arrived bait-80
    stop cachalot || true
    stop public-nginx || true
    stop bait-80 || true
    stop bait || true
}

# make_bait REPOSITORY: what would be given out if somebody asked; prints the digest of its largest layer.
make_bait() {
    mkdir -p "$work/bait"
    cp "$work/layouts/$1/blobs/sha256/"* "$work/bait"
    cp "$work/bait/${digest_of[$1]#sha256:}" "$work/bait/manifest"
    printf '%s' "$manifest_type" >"$work/bait/type"
    jq --raw-output '.layers | max_by(.size).digest' "$work/bait/manifest"
}

leading_servers() {
    local place lines=()
    for place in "${!led_to[@]}"; do
        lines+=("location /v2/$place/ { return 307 ${led_to[$place]}\$request_uri; }")
    done
    nginx_server public "$public_address:8080" "${lines[@]}" \
        "location /v2/token/ { add_header WWW-Authenticate 'Bearer realm=\"http://127.0.0.1:5070/token\"' always; return 401; }" \
        "location ~ ^/v2/elsewhere/.*/blobs/ { return 307 http://$other_address:8080\$request_uri; }" \
        "location /v2/elsewhere/ { proxy_pass http://$registry/v2/; }" \
        "location / { proxy_pass http://$registry; }"
    nginx_server elsewhere "$other_address:8080" "location /v2/elsewhere/ { proxy_pass http://$registry/v2/; }"
}

is_not_dialled() {
    answers_with 502 "$1" 'not dialled'
}

# nothing_arrived LISTENER…
nothing_arrived() {
    local name
    for name in "$@"; do
        ! grep '^connection' "$work/$name.log" || return
    done
}
