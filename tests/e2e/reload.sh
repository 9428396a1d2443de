# A configuration that changes while Cachalot runs, and while it fills. Sourced by upstreams.

reload() {
    local plain=http://127.0.0.1:5081 layer fill applied
    nginx_server plain 127.0.0.1:5081 >"$work/servers"
    start_nginx reload-nginx http://127.0.0.1:5081/settled <"$work/servers"
    nginx_server slow 127.0.0.1:5080 "location / { limit_rate 1m; proxy_pass http://$registry; }" >"$work/servers"
    start_nginx slow-nginx http://127.0.0.1:5080/settled <"$work/servers"
    upstream slow.test http://127.0.0.1:5080 'idle_timeout = "10m"' 'connections_per_blob = 1' >"$work/sections"
    serve reload <"$work/sections"
    layer=$(jq --raw-output '.layers | max_by(.size).digest' "$work/layouts/big/blobs/${digest_of[big]/://}")
    curl --silent --fail --max-time 600 --output "$work/filled" "http://$cache/v2/slow.test/big/blobs/$layer" &
    fill=$!
    await cachalot 20 test -s "$work/filled"
    # In the middle of the fill its registry stops until the configuration has changed for the last time.
    slow_worker STOP

    { cat "$work/sections"; upstream second.test "$plain"; } >"$work/more"
    write_configuration reload <"$work/more"
    check 'reload: an upstream that is added to the file is there soon' \
        timed await cachalot 15 answers_with 200 "$(manifest second.test cold/1)"
    tell "reload: new upstream $took ms after the file changed"
    check 'reload: skopeo pulls from it' pulls second.test cold/1
    { cat "$work/more"; upstream third.test "$plain"; } >"$work/most"
    write_configuration reload <"$work/most"
    kill -HUP "${pids[cachalot]}"
    check 'SIGHUP: an upstream that is added is there at once' \
        timed await cachalot 15 answers_with 200 "$(manifest third.test cold/2)"
    tell "SIGHUP: new upstream $took ms after the signal"
    applied=$(times_applied)
    kill -HUP "${pids[cachalot]}"
    check 'SIGHUP: a file that has not changed is applied again, which looking does not do' \
        await cachalot 15 is_applied_again "$applied"
    check 'reload: the fill that ran before goes on' kill -0 "$fill"

    broken_file
    mended_file
    check 'reload: the fill runs all the time' kill -0 "$fill"
    slow_worker CONT
    check 'reload: the fill that ran all the time is done' wait "$fill"
    check 'reload: it brought the right bytes' cmp "$work/filled" "$work/layouts/big/blobs/${layer/://}"
    check 'reload: the registry sent each of them once' sent_once slow "$layer"
    write_configuration reload <"$work/more"
    kill -HUP "${pids[cachalot]}"
    check 'reload: an upstream that is taken away is gone' await cachalot 15 answers_with 404 "$(manifest third.test cold/2)"
    check 'reload: the others are there' pulls second.test cold/1
    stop cachalot || true
    stop slow-nginx || true
    stop reload-nginx || true
}

# times_applied: how often a configuration was applied.
times_applied() {
    grep -c 'the configuration is applied' "$work/cachalot.log" || true
}

# is_applied_again TIMES: more often than that.
is_applied_again() {
    (($(times_applied) > $1))
}

# slow_worker STOP|CONT: the process of the slow registry that serves.
slow_worker() {
    kill "-$1" "$(pgrep --parent "${pids[slow-nginx]}")"
}

broken_file() {
    local lines
    lines=$(wc -l <"$work/cachalot.toml")
    { cat "$work/most"; printf 'tag_ttl = \n'; } >"$work/broken"
    write_configuration reload <"$work/broken"
    check 'broken file: the metric says so' await cachalot 15 has_metric cachalot_config_last_reload_successful 0
    check 'broken file: the log names the file and the line' await cachalot 15 has_line cachalot.log "refused.*cachalot.toml:$((lines + 1)):"
    tell "$(grep -o 'refused.*' "$work/cachalot.log" | tail -n 1 | sed "s|$work/||")"
    check 'broken file: /readyz is 200 and shows the same problem' await cachalot 15 shows_in_readyz \
        --arg place "cachalot.toml:$((lines + 1)):" \
        '.state == "ready" and (.config.ok | not) and (.config.problems[0] | contains($place))'
    check 'broken file: the old upstreams go on' pulls third.test cold/3
    { cat "$work/most"; printf 'tag_tll = "5s"\n'; } >"$work/broken"
    write_configuration reload <"$work/broken"
    check 'misspelt key: /readyz suggests the right one' await cachalot 15 shows_in_readyz \
        '(.config.ok | not) and (.config.problems[0] | contains("tag_ttl"))'
    check 'misspelt key: the metric still says so' has_metric cachalot_config_last_reload_successful 0
}

mended_file() {
    local before
    before=$(grep -c 'DEBUG' "$work/cachalot.log" || true)
    { cat "$work/most"; printf '[log]\nlevel = "debug"\n'; } >"$work/mended"
    write_configuration reload <"$work/mended"
    check 'mended file: the metric says so' await cachalot 15 has_metric cachalot_config_last_reload_successful 1
    check 'mended file: /readyz says so' await cachalot 15 shows_in_readyz '.config.ok and .config.problems == [] and .config.needs_restart == []'
    check 'log level: skopeo pulls' pulls third.test cold/4
    check 'log level: debug lines are there without a restart' await cachalot 15 has_more_debug_lines "$before"
    write_configuration reload 127.0.0.1:5099 <"$work/most"
    check 'another listen: /readyz says that it needs a restart' await cachalot 15 shows_in_readyz \
        '.config.ok and .config.needs_restart == ["server.listen"]'
    check 'another listen: so does the log' await cachalot 15 has_line cachalot.log 'next start.*server.listen'
    check 'another listen: clients are served where they were' pulls third.test cold/4
}

# has_more_debug_lines NUMBER: the log, than that.
has_more_debug_lines() {
    (($(grep -c 'DEBUG' "$work/cachalot.log") > $1))
}

# sent_once NAME DIGEST: in however many pieces.
sent_once() {
    local sent size
    is_reached "$settled"
    sent=$(since_mark "$1" | sed -n "s|.*\"GET .*$2.* bytes:||p" | awk '{ sent += $1 } END { print sent }')
    size=$(stat --format=%s "$work/filled")
    printf 'sent %s of %s bytes\n' "$sent" "$size"
    ((sent == size))
}

# shows_in_readyz OPTION… FILTER: /readyz answers with 200 and this.
shows_in_readyz() {
    curl --silent --fail --max-time 5 "http://$admin/readyz" >"$work/readyz" || return
    cat "$work/readyz"
    jq --exit-status "$@" "$work/readyz"
}
