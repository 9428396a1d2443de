# Upstreams that limit us, or say that they are overloaded: what a storm of clients costs them, and what clients get meanwhile.
# Sourced by upstreams.
#
# Each upstream is a server of one nginx in front of the registry, and answers so while the file NAME.limited is there:
#
#   told      429 as JSON, a limit of pulls, which says when to come again
#   untold    the same without saying when
#   abuse     429 as plain text, a limit of everything, which says when to come again
#   vague     the same without saying when
#   busy      503
#   throttled 429 to what is above ten requests and two a second, without saying when; always

readonly -A limited_port=([told]=5041 [untold]=5042 [abuse]=5043 [vague]=5044 [busy]=5045 [throttled]=5046)
# Longer than all that is looked at while a limit lasts.
readonly limits_told=40 objects=200

limits() {
    local name
    limit_servers >"$work/servers"
    start_nginx limit-nginx http://127.0.0.1:5041/settled <"$work/servers"
    for name in "${!limited_port[@]}"; do
        upstream "$name.test" "http://127.0.0.1:${limited_port[$name]}" 'tag_ttl = "0s"'
    done >"$work/sections"
    serve limits <"$work/sections"
    set_up_containerd "${cache#*:}" told.test busy.test throttled.test
    for name in told untold abuse vague busy throttled; do
        check "$name: skopeo pulls before the limit" pulls "$name.test" cold/1
    done
    check 'told: containerd pulls an index before the limit' containerd_pulls told.test index
    for name in untold vague abuse throttled told; do
        storm "$name"
    done
    # The one that says when to come again is heard until then, and not asked.
    check 'told: containerd is refused what is not cached' fails containerd_pulls told.test cold/2
    check 'told: containerd pulls what is cached' containerd_pulls told.test index
    check 'told: nginx was asked for no manifest and no blob meanwhile' was_asked told '"GET' 0
    tell "told: $(asked told) requests reached nginx for four pulls by skopeo and containerd"
    lift told
    check 'told: what is not cached comes after the limit' timed await cachalot 120 pulls told.test cold/3
    check 'told: also for containerd' containerd_pulls told.test cold/4
    overload
    limits_are_over
    stop cachalot || true
    stop containerd || true
    stop limit-nginx || true
}

limit_servers() {
    local json='{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}'
    printf 'limit_req_zone $server_port zone=pulls:1m rate=2r/s;\n'
    limit_server told 429 "$json" "add_header Retry-After $limits_told always;"
    limit_server untold 429 "$json"
    limit_server abuse 429 'Too Many Requests' "add_header Retry-After $limits_told always;"
    limit_server vague 429 'Too Many Requests'
    limit_server busy 503 'overloaded'
    nginx_server throttled "127.0.0.1:${limited_port[throttled]}" \
        "location / { limit_req zone=pulls burst=10 nodelay; limit_req_status 429; proxy_pass http://$registry; }"
}

# limit_server NAME STATUS BODY [LINE]
limit_server() {
    nginx_server "$1" "127.0.0.1:${limited_port[$1]}" \
        "location / { if (-f $work/$1.limited) { ${4:-} return $2 '$3'; } proxy_pass http://$registry; }"
}

limit() {
    : >"$work/$1.limited"
}

lift() {
    rm -f "$work/$1.limited"
}

# storm NAME: two hundred clients want each an object that is not cached, five times without a pause.
storm() {
    local name=$1 most
    limit "$name"
    mark "$name"
    check "$name: a storm gets an answer to each request" storms "$name" '503'
    most=$(requests_for_one "$name")
    tell "$name: $objects objects, $(jq --raw-output '"\(.answers) answers in \(.seconds) s, \(.statuses)"' "$work/storm")," \
        "$(asked "$name") requests reached nginx, at most $most for one object"
    check "$name: nginx got one request for each object at the most" test "$most" -le 1
    check "$name: clients are told when to come again" jq --exit-status '.without_retry_after == 0' "$work/storm"
    mark "$name"
    check "$name: what is cached comes, with a warning" answers_with 200 "$(manifest "$name.test" cold/1)" '^warning: 299 '
    check "$name: skopeo pulls what is cached" pulls "$name.test" cold/1
    check "$name: nothing that is limited was asked for meanwhile" was_asked "$name" '"GET' 0
}

# storms NAME STATUS: every answer has this status, or is that of a registry which does not have it.
storms() {
    python3 "$here/storm.py" "$cache" "/v2/$1.test/storm/$1/manifests" "$objects" >"$work/storm" || return
    cat "$work/storm"
    jq --exit-status --arg status "$2" --argjson all $((5 * objects)) \
        '.answers == $all and ((.statuses | keys) - [$status, "404"] == []) and .statuses[$status] > 0' "$work/storm"
}

# requests_for_one NAME: how many requests nginx got for the object that was asked for most.
requests_for_one() {
    since_mark "$1" | sed -n 's|.*/manifests/\(sha256:[0-9a-f]*\).*|\1|p' | sort | uniq -c | sort -rn | awk 'NR == 1 { print $1 }'
}

# containerd_pulls UPSTREAM REPOSITORY: through the cache or not at all.
containerd_pulls() {
    containerd_cli images remove --sync "$1/$2:1" >/dev/null 2>&1 || true
    containerd_cli content prune references >/dev/null 2>&1 || true
    containerd_cli images pull --hosts-dir "$work/hosts" --snapshotter native "$1/$2:1"
}

fails() {
    ! "$@"
}

# A registry that is overloaded is asked less and less, and its clients get what is known.
overload() {
    limit busy
    mark busy
    check 'busy: what is cached comes, with a warning' answers_with 200 "$(manifest busy.test cold/1)" '^warning: 299 '
    check 'busy: a storm gets an answer to each request' storms busy 502
    tell "busy: $objects objects, $(jq --raw-output '"\(.answers) answers in \(.seconds) s, \(.statuses)"' "$work/storm")," \
        "$(asked busy) requests reached nginx, at most $(requests_for_one busy) for one object"
    mark busy
    check 'busy: skopeo pulls what is cached' pulls busy.test cold/1
    check 'busy: containerd is refused what is not cached' fails containerd_pulls busy.test cold/2
    tell "busy: $(asked busy) requests reached nginx for two pulls"
    lift busy
    check 'busy: what is not cached comes when it is well again' timed await cachalot 40 pulls busy.test cold/3
    tell "busy: well again $took ms after the registry was"
    check 'busy: then there is no warning any more' fresh busy.test cold/1
}

# The limits that did not say how long they last are believed to last for a minute.
limits_are_over() {
    local name
    for name in untold abuse vague; do
        lift "$name"
    done
    check 'abuse: what is not cached comes after the limit' await cachalot 120 pulls abuse.test cold/3
    for name in untold vague throttled; do
        check "$name: what is not cached comes after the cool-down" await cachalot 120 pulls "$name.test" cold/3
        check "$name: then there is no warning any more" fresh "$name.test" cold/1
    done
}
