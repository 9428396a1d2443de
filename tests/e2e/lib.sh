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

# await NAME SECONDS COMMAND…: waits until the command succeeds; fails when the server NAME ends or the time is over. What the command
# prints goes to a file: into /dev/null grep ends with its first match, and who writes to it then dies of a broken pipe.
await() {
    local name=$1 deadline=$((SECONDS + $2))
    shift 2
    until "$@" >"$work/await.log" 2>&1; do
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

# Prints a TCP port of the loopback interface that nobody listens on, another one each time. The kernel gives it to no connection
# before it is used, or while a server is started again.
free_port() {
    python3 - "$work/ports" <<'END'
import pathlib, random, socket, sys
given = pathlib.Path(sys.argv[1])
taken = given.read_text().split() if given.exists() else []
first_of_connections = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
while True:
    port = random.randrange(max(first_of_connections - 12000, 1024), max(first_of_connections, 13024))
    try:
        socket.socket().bind(("127.0.0.1", port))
    except OSError:
        continue
    if str(port) not in taken:
        break
with given.open("a") as file:
    print(port, file=file)
print(port)
END
}

answers() {
    curl --silent --fail --max-time 10 --output /dev/null "$1"
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
