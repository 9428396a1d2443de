# Endpoints where nobody is, and upstreams from which nothing comes back. Sourced by upstreams.

endpoints() {
    nginx_server good 127.0.0.1:5051 >"$work/servers"
    start_nginx good-nginx http://127.0.0.1:5051/settled <"$work/servers"
    {
        upstream good.test http://127.0.0.1:5051
        # Nobody listens at the first one.
        upstream dead.test http://127.0.0.1:5050,http://127.0.0.1:5051
    } >"$work/sections"
    serve endpoints <"$work/sections"
    compare_endpoints good.test dead.test 'dead first endpoint'
    check 'dead first endpoint: the good one got each request once' nothing_was_asked_twice good
    stop cachalot || true
    stop good-nginx || true
}

# compare_endpoints GOOD BAD WORDS: how long cold pulls take with the good endpoint alone, and with the bad one before it.
compare_endpoints() {
    check "$3: skopeo pulls with the good one alone" timed pulls "$1" cold/1
    tell "$3: cold pull with the good one alone, $took ms"
    check "$3: skopeo pulls all the same" timed pulls "$2" cold/2
    tell "$3: first cold pull, $took ms"
    check "$3: skopeo pulls again" timed pulls "$2" cold/3
    tell "$3: second cold pull, $took ms"
    # connect_timeout is five seconds.
    check "$3: the second pull does not wait for it" test "$took" -lt 5000
}

nothing_was_asked_twice() {
    local twice
    is_reached "$settled"
    twice=$(since_mark "$1" | sort | uniq -d)
    printf '%s\n' "$twice"
    [[ -z $twice ]]
}

readonly silent_address=10.77.0.2 silent_first=10.77.0.3 good_address=10.77.0.4 mute_address=10.77.0.5
readonly never_address=10.77.0.6

silence() {
    local address
    for address in "$silent_address" "$silent_first" "$good_address" "$mute_address" "$never_address"; do
        ip address add "$address/32" dev lo
    done
    nft add table inet silence
    nft add chain inet silence arriving '{ type filter hook input priority 0; }'
    {
        nginx_server silent "$silent_address:5060"
        nginx_server second "$good_address:5060"
    } >"$work/servers"
    start_nginx silent-nginx "http://$good_address:5060/settled" <"$work/servers"
    nginx_server mute "$mute_address:5061" >"$work/servers"
    start_nginx mute-nginx "http://$mute_address:5061/settled" <"$work/servers"
    settled=http://$good_address:5060/settled
    {
        upstream silent.test "http://$silent_address:5060" 'tag_ttl = "0s"'
        upstream never.test "http://$never_address:5060"
        upstream good.test "http://$good_address:5060"
        upstream first.test "http://$silent_first:5060,http://$good_address:5060"
        upstream mute.test "http://$mute_address:5061" 'tag_ttl = "0s"' 'header_timeout = "5s"'
        upstream always-mute.test "http://$mute_address:5061" 'header_timeout = "5s"'
    } >"$work/sections"
    serve silence <"$work/sections"
    silent_upstream
    falls_silent "$silent_first"
    compare_endpoints good.test first.test 'silent first endpoint'
    mute_upstream
    nft delete table inet silence
    stop cachalot || true
    stop silent-nginx || true
}

# falls_silent ADDRESS: from now on its packets are lost, those of open connections, too; nobody is told.
falls_silent() {
    nft add rule inet silence arriving ip daddr "$1" drop
}

speaks_again() {
    nft flush chain inet silence arriving
}

silent_upstream() {
    falls_silent "$never_address"
    unknown_answers 'upstream that was never heard' "$(manifest never.test cold/2)"
    check 'silent upstream: skopeo pulls while it speaks' pulls silent.test cold/1
    mark silent
    falls_silent "$silent_address"
    known_answers 'silent upstream' "$(manifest silent.test cold/1)" 10000
    stop cachalot || true
    serve silence <"$work/sections"
    known_answers 'silent upstream, after a restart' "$(manifest silent.test cold/1)" 10000
    unknown_answers 'silent upstream, after a restart' "$(manifest silent.test cold/2)"
    check 'silent upstream: skopeo pulls what is cached' timed pulls silent.test cold/1
    tell "silent upstream: cached image pulled in $took ms"
    check 'silent upstream: nothing arrived there' was_asked silent . 0
    speaks_again
    check 'silent upstream: what is not cached comes when it speaks again' timed await cachalot 40 pulls silent.test cold/2
    tell "silent upstream: well again after $took ms"
    check 'silent upstream: then there is no warning any more' fresh silent.test cold/1
}

# known_answers WORDS PATH MILLISECONDS: what is known is answered soon at first, and at once when, within this time, the upstream
# is known to be silent.
known_answers() {
    local times=() began=${EPOCHREALTIME/./}
    check "$1: what is known comes soon, and at once before long" comes_soon "$2"
    tell "$1: stale answers after ${times[*]} ms, at once from $(((${EPOCHREALTIME/./} - began) / 1000)) ms on"
    check "$1: that was in time" test $(((${EPOCHREALTIME/./} - began) / 1000)) -lt "$3"
    check "$1: what is known comes at once from then on" answers_at_once 200 "$2" '^warning: 299 '
}

# comes_soon PATH: stale, before connect_timeout is over; asks until that takes no time. The milliseconds are then in times.
comes_soon() {
    while ((${#times[@]} < 15)); do
        answers_within 4900 200 "$1" '^warning: 299 ' || return
        times+=("$took")
        ((took >= 500)) || return 0
    done
    return 1
}

# unknown_answers WORDS PATH: an error after five seconds, long before the time that is there for retries is over, and then at once.
unknown_answers() {
    check "$1: what is not known is an error in time" answers_within 15000 50[24] "$2"
    tell "$1: not cached: $status after $took ms, $(message)"
    check "$1: what is not known is an error at once, then" answers_at_once 50[24] "$2" '^retry-after: '
    tell "$1: not cached, then: $status after $took ms, $(message)"
}

# It takes connections and never says a word.
mute_upstream() {
    check 'mute upstream: skopeo pulls while it speaks' pulls mute.test cold/4
    stop mute-nginx || true
    start mute python3 "$here/listener.py" 5061 silent
    await mute 20 has_line mute.log listening
    known_answers 'mute upstream' "$(manifest mute.test cold/4)" 10000
    unknown_answers 'mute upstream' "$(manifest always-mute.test cold/5)"
    tell "mute upstream: $(grep -c '^connection' "$work/mute.log") connections arrived there"
    stop mute || true
}

# has_line FILE PATTERN
has_line() {
    grep --quiet -e "$2" "$work/$1"
}
