# Checks, and processes that are started, awaited and stopped by their pid. Sourced by run; `work` is the one directory.

passed=0
failed=0
declare -A pids=()

# check SENTENCE COMMAND…: runs the command in this shell and prints one line; its output is shown when it fails.
check() {
    local sentence=$1
    shift
    if "$@" >"$work/check.log" 2>&1; then
        passed=$((passed + 1))
        printf 'ok    %s\n' "$sentence"
    else
        failed=$((failed + 1))
        printf 'FAIL  %s\n' "$sentence"
        tail -n 15 "$work/check.log" | sed 's/^/      | /'
    fi
}

# start NAME COMMAND…: runs a server in the background, its output in NAME.log.
start() {
    local name=$1
    shift
    "$@" >>"$work/$name.log" 2>&1 &
    pids[$name]=$!
}

# await NAME SECONDS COMMAND…: waits until the command succeeds; fails when the server NAME ends or the time is over.
await() {
    local name=$1 deadline=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ! kill -0 "${pids[$name]}" 2>/dev/null || ((SECONDS >= deadline)); then
            printf '%s is not there:\n' "$name" >&2
            tail -n 20 "$work/$name.log" >&2
            return 1
        fi
        sleep 0.1
    done
}

# stop NAME [SECONDS]: asks a server to end and returns its exit code; after SECONDS it is killed, and that is a failure.
stop() {
    local name=$1 deadline=$((SECONDS + ${2:-20})) pid=${pids[$1]:-}
    [[ -n $pid ]] || return 0
    unset "pids[$name]"
    kill -TERM "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        if ((SECONDS >= deadline)); then
            kill -KILL "$pid" 2>/dev/null || true
            printf '%s did not end when asked to\n' "$name" >&2
        fi
        sleep 0.1
    done
    local code=0
    wait "$pid" || code=$?
    # At the end, that a server dies of the signal is no news.
    if ((code != 0)) && [[ -z ${is_cleaning:-} ]]; then
        printf '%s ended with %d:\n' "$name" "$code" >&2
        tail -n 10 "$work/$name.log" >&2
    fi
    return "$code"
}

# Stops every server, unmounts what they left mounted, and removes the directory.
clean_up() {
    local name mount is_cleaning=yes
    for name in "${!pids[@]}"; do
        stop "$name" || true
    done
    while read -r mount; do
        umount -l "$mount" || true
    done < <(awk -v work="$work/" 'index($2, work) == 1 { print $2 }' /proc/mounts | sort -r)
    rm -rf "$work"
}

# Prints a TCP port of the loopback interface that nobody listens on.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

answers() {
    curl --silent --fail --max-time 2 --output /dev/null "$1"
}

# install_missing COMMAND:PACKAGE…: installs the packages whose command is absent, without starting their services.
install_missing() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    ((${#missing[@]})) || return 0
    printf 'installing %s\n' "${missing[*]}"
    local policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        trap 'rm -f /usr/sbin/policy-rc.d; trap - RETURN' RETURN
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes "${missing[@]}" >/dev/null
}

# within SECONDS COMMAND…: waits until the command succeeds, at most for so long.
within() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}
