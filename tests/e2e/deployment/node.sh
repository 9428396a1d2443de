# The node agent, with real containerd: what it writes, what it leaves alone, what it refuses, and that pulls work at every moment.
#
# Everything runs in mount namespaces in which /etc/containerd and /etc/containers are directories of the node's own, below $work.
# The origin is a registry with TLS, registry.test of /etc/hosts: containerd reaches it by itself when the cache is gone.

node() {
    install_missing docker-registry:docker-registry containerd:containerd runc:runc skopeo:skopeo openssl:openssl \
        unshare:util-linux setpriv:util-linux chattr:e2fsprogs
    install_tool crictl sigs.k8s.io/cri-tools@v1.34.0 cmd/crictl
    install_tool containerd2 github.com/containerd/containerd/v2@v2.2.9 cmd/containerd
    local node=$work/node
    start_origin
    start_cache
    node_refusals
    node_files
    start_runtimes
    node_pulls
    node_watches
    node_is_known
    node_without_fallback
    node_dials_briefly
    check 'nothing panicked' nothing_panicked
    stop_runtimes
    stop cachalot 60 || true
    stop origin || true
}

# A registry with TLS, whose name is its address, and images in it.
start_origin() {
    local port image
    port=$(free_port)
    origin=registry.test:$port origin_here=localhost:$port
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
        -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:localhost,DNS:registry.test -keyout "$work/origin.key" -out "$work/origin.pem" 2>/dev/null
    cat >"$work/origin.yml" <<END
version: 0.1
log: { level: warn }
storage: { filesystem: { rootdirectory: $work/origin } }
http: { addr: "127.0.0.1:$port", tls: { certificate: $work/origin.pem, key: $work/origin.key } }
END
    start origin docker-registry serve "$work/origin.yml"
    await origin 30 curl --silent --fail --cacert "$work/origin.pem" "https://$origin_here/v2/"
    printf '127.0.0.1 localhost registry.test\n' >"$work/hosts"
    printf '{"default":[{"type":"insecureAcceptAnything"}]}' >"$work/policy.json"
    for image in $(seq 60); do
        python3 "$here/images.py" "$work/layouts/$image" one "node-$image"
        skopeo --policy "$work/policy.json" copy --quiet --preserve-digests --dest-tls-verify=false \
            "oci:$work/layouts/$image:1" "docker://$origin_here/image/$image:1"
    done
    next_image=0
}

start_cache() {
    cache_port=${cache_port:-$(free_port)} admin_port=${admin_port:-$(free_port)}
    cache=127.0.0.1:$cache_port
    cat >"$work/cachalot.toml" <<END
[server]
listen = ["$cache"]
[admin]
listen = "127.0.0.1:$admin_port"
[store]
path = "$work/store"
capacity = "2GiB"
min_free = "64MiB"
[[upstream]]
name = "$origin"
endpoints = ["https://$origin_here"]
ca = "$work/origin.pem"
END
    start cachalot "$CACHALOT" serve --config "$work/cachalot.toml"
    await cachalot 30 answers "http://$cache/v2/"
}

# fresh_node [CONFIG]: a node with that configuration of containerd, and nothing else.
fresh_node() {
    rm -rf "$node"
    mkdir -p "$node"/{containerd/certs.d,containers/registries.conf.d,state}
    rmdir "$node/state"
    printf '%s\n' "${1:-$config_2}" >"$node/containerd/config.toml"
}

readonly config_2='version = 2
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"'

# on_node COMMAND…: runs it where /etc/containerd, /etc/containers and /etc/hosts are the node's.
on_node() {
    unshare --mount --propagation private sh -c "$enter_node" "$node" "$@"
}

# shellcheck disable=SC2016
readonly enter_node='
mount --bind "$0/containerd" /etc/containerd && mount --bind "$0/containers" /etc/containers &&
mount --bind "$0/../hosts" /etc/hosts && exec "$@"'

# start_on_node NAME COMMAND…: the process that is started is the command itself, so that it can be stopped.
start_on_node() {
    local name=$1
    shift
    start "$name" unshare --mount --propagation private sh -c "$enter_node" "$node" "$@"
}

# agent ACTION [OPTION…]
agent() {
    local action=$1
    shift
    on_node "$CACHALOT" node-config "$action" --state-dir "$node/state" "$@"
}

applies() {
    agent apply --endpoint "http://$cache" --registry "$origin" "$@"
}

removes() {
    agent remove
}

# Everything on the node: kinds, modes, owners, links and bytes.
tree() {
    (cd "$node" && find . -printf '%y %m %U:%G %p %l\n' | sort && find . -type f -print0 | sort -z | xargs -0 -r sha256sum)
}

# unchanged COMMAND…: whether the node is after the command as it was before; the command's own result does not matter.
unchanged() {
    tree >"$work/before"
    "$@" || true
    diff "$work/before" <(tree)
}

# refuses CODE PATTERN COMMAND…: whether it ends with this code and these words, and changes nothing.
refuses() {
    local code=$1 pattern=$2 got=0
    shift 2
    tree >"$work/before"
    "$@" >"$work/refusal" 2>&1 || got=$?
    cat "$work/refusal"
    ((got == code)) || { printf 'exit code %d, not %d\n' "$got" "$code"; return 1; }
    grep --quiet -- "$pattern" "$work/refusal" || { printf 'it does not say: %s\n' "$pattern"; return 1; }
    diff "$work/before" <(tree)
}

node_refusals() {
    fresh_node
    check 'an endpoint that does not answer: nothing is written' \
        refuses 6 'nothing was changed' agent apply --endpoint http://127.0.0.1:1 --registry "$origin"
    check 'a cache that is not ready: nothing is written' \
        refuses 6 'answers 404' applies --ready-url "http://127.0.0.1:$admin_port/nothing"
    check 'a wrong endpoint is wrong usage' refuses 2 'http://10.0.0.7:30500' agent apply --endpoint cache:5000
    check 'a registry that is no host is wrong usage' \
        refuses 2 'quay.io' agent apply --endpoint "http://$cache" --registry https://quay.io/

    fresh_node 'version = 2'
    check 'containerd 1.x without config_path: what to add is said, and nothing is written' \
        refuses 1 'config_path = "/etc/containerd/certs.d"' applies
    fresh_node "$(printf '%s\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\nendpoint = ["https://a"]' 'version = 2')"
    check 'mirrors in the configuration itself: what to do is said, and nothing is written' \
        refuses 1 'exclude config_path' applies
    fresh_node "${config_2/certs.d/hosts.d}"
    check 'containerd that looks elsewhere: nothing is written' refuses 1 '--certs-dir' applies
    fresh_node
    rm -r "$node/containerd/config.toml" "$node/containerd/certs.d"
    check 'no containerd: nothing is written' refuses 1 'no containerd here' \
        "$CACHALOT" node-config apply --endpoint "http://$cache" --registry "$origin" --host-root "$node" --state-dir /state
    local flavour
    for flavour in k3s:registries.yaml rke2:registries.yaml talos:RegistryMirrorConfig bottlerocket:container-registry.mirrors \
        gke:registryHosts; do
        fresh_node
        check "${flavour%:*}: its own snippet is said, and nothing is written" \
            refuses 1 "${flavour#*:}" applies --flavour "${flavour%:*}"
    done

    fresh_node
    install -d -o 12 -m 700 "$node/containerd/certs.d/docker.io"
    check 'a directory that only another user may enter is left alone, and the others are configured' leaves_alone_what_is_closed
    fresh_node
    check 'another user: nothing is written' refuses 1 'cannot be written' applies_as_nobody
    check 'a read-only certs.d: nothing is written' refuses 1 'cannot be written' applies_read_only
    if chattr +i "$node/containerd/certs.d" 2>/dev/null; then
        check 'an immutable certs.d: nothing is written' refuses 1 'cannot be written' applies
        chattr -i "$node/containerd/certs.d"
    fi
}

# As in a pod, without the capability of reading everything.
leaves_alone_what_is_closed() {
    on_node setpriv --bounding-set -all --inh-caps -all "$CACHALOT" node-config apply --endpoint "http://$cache" \
        --registry "docker.io,$origin" --state-dir "$node/state" 2>"$work/closed" || { cat "$work/closed"; return 1; }
    cat "$work/closed"
    grep --quiet 'docker.io/hosts.toml alone: it is not readable' "$work/closed" && hosts_are_there && removes
}

applies_as_nobody() {
    chmod 755 "$work" "$node"
    on_node setpriv --reuid 65534 --regid 65534 --clear-groups "$CACHALOT" node-config apply --endpoint "http://$cache" \
        --registry "$origin" --state-dir "$node/state"
}

applies_read_only() {
    # shellcheck disable=SC2016
    on_node sh -c 'mount --bind /etc/containerd/certs.d /etc/containerd/certs.d &&
        mount -o remount,bind,ro /etc/containerd/certs.d && exec "$@"' sh \
        "$CACHALOT" node-config apply --endpoint "http://$cache" --registry "$origin" --state-dir "$node/state"
}

# Somebody else's files: one for the origin with a certificate, one for another registry, one beside, and registries of podman's.
put_foreign_files() {
    local directory
    directory=$node/containerd/certs.d/$(directory_of "$origin")
    mkdir -p "$directory" "$node/containerd/certs.d/other.example"
    cp "$work/origin.pem" "$directory/ca.pem"
    # No line break at the end, and a carriage return: what is not ours is not tidied up.
    printf 'server = "https://%s"\nca = "ca.pem"\r\n\n# mine\n[host."https://mirror.example"]\n  skip_verify = true' "$origin" \
        >"$directory/hosts.toml"
    chmod 640 "$directory/hosts.toml"
    chown 12:34 "$directory/hosts.toml"
    printf 'server = "https://other.example"\n' >"$node/containerd/certs.d/other.example/hosts.toml"
    printf 'a note\n' >"$node/containerd/certs.d/README"
    printf 'unqualified-search-registries = ["docker.io"]\n[[registry]]\nlocation = "%s"\n' "$origin" \
        >"$node/containers/registries.conf"
}

# directory_of REGISTRY: where containerd looks first.
directory_of() {
    printf '%s_\n' "${1/:/_}"
}

node_files() {
    local merge
    fresh_node 'version = 3'
    check 'containerd 2.x with its own default paths: it is written, with the warning that some releases read none of several' \
        applies_with_a_warning 'of which some releases read none'
    fresh_node
    check 'every option is a variable as well' variables_are_options
    for merge in keep prepend replace; do
        fresh_node
        put_foreign_files
        tree >"$work/original"
        check "$merge: both runtimes are configured beside somebody else's files" \
            applies --registry docker.io --runtime containerd,crio --merge "$merge"
        check "$merge: the cache comes where it was wanted, and only there" hosts_are_merged "$merge"
        check "$merge: nobody gets to read more or less of them" attributes_are_kept
        check "$merge: the second time nothing is written" unchanged \
            applies --registry docker.io --runtime containerd,crio --merge "$merge"
        check "$merge: it can be removed" removes
        check "$merge: every byte, mode and owner is as before" diff "$work/original" <(tree)
        check "$merge: it can be removed again" unchanged removes
    done
    node_pods
    kills
}

# As in a pod: what the agent writes to is mounted below a root that is read-only.
node_pods() {
    fresh_node
    mkdir "$node/state"
    tree >"$work/original"
    check 'in a pod: the agent writes' applies_in_a_pod "${pod_paths[@]}"
    check 'in a pod: it can be removed at the first attempt' in_a_pod "${pod_paths[@]}" -- remove
    check 'in a pod: nothing is left' diff "$work/original" <(tree)

    rmdir "$node/state" "$node/containerd/certs.d"
    mkdir -p "$node/run/containerd"
    touch "$node/run/containerd/containerd.sock"
    check 'an agent on the node itself makes the directories' "$CACHALOT" node-config apply --host-root "$node" \
        --endpoint "http://$cache" --registry "$origin" --certs-dir /containerd/certs.d --state-dir /state --flavour generic
    check 'in a pod: what was written on the node itself can be removed' in_a_pod "${pod_paths[@]}" -- remove
    check 'in a pod: no file is left, whoever made its directory' test -z "$(find "$node/containerd/certs.d" "$node/state" -type f)"

    fresh_node
    mkdir "$node/state"
    check 'in a pod: CRI-O is configured' applies_in_a_pod state containers/registries.conf.d -- --runtime crio
    check 'in a pod: files of an earlier agent that it does not see are not forgotten, and nothing is written' \
        refuses 1 'mounted below --host-root' applies_in_a_pod "${pod_paths[@]}"
    check 'in a pod: they can be removed by who sees them' in_a_pod state containers/registries.conf.d -- remove
}

readonly pod_paths=(containerd/certs.d state)

# applies_in_a_pod PATH… [-- OPTION…]
applies_in_a_pod() {
    local paths=()
    while (($# > 0)) && [[ $1 != -- ]]; do
        paths+=("$1")
        shift
    done
    in_a_pod "${paths[@]}" -- apply --endpoint "http://$cache" --registry "$origin" --flavour generic \
        --certs-dir /containerd/certs.d --registries-dir /containers/registries.conf.d "${@:2}"
}

# in_a_pod PATH… -- ACTION [OPTION…]: the agent sees of the node these paths only.
in_a_pod() {
    mkdir -p "$work/pod-root"
    # shellcheck disable=SC2016
    unshare --mount --propagation private sh -ec '
        root=$1 node=$2 agent=$3
        shift 3
        mount -t tmpfs -o size=1m none "$root"
        while [ "$1" != -- ]; do
            mkdir -p "$root/$1"
            mount --bind "$node/$1" "$root/$1"
            shift
        done
        shift
        mount -o remount,ro "$root"
        exec "$agent" node-config "$@" --host-root "$root" --state-dir /state' \
        sh "$work/pod-root" "$node" "$CACHALOT" "$@"
}

applies_with_a_warning() {
    applies >"$work/warned" 2>&1 || { cat "$work/warned"; return 1; }
    cat "$work/warned"
    grep --quiet "$1" "$work/warned" && hosts_are_there
}

variables_are_options() {
    CACHALOT_NODE_ENDPOINT=http://$cache CACHALOT_NODE_REGISTRY=$origin,docker.io CACHALOT_NODE_RUNTIME=containerd,crio \
        CACHALOT_NODE_CAPABILITIES=pull CACHALOT_NODE_DIAL_TIMEOUT=2s CACHALOT_NODE_NO_FALLBACK=false \
        CACHALOT_NODE_FLAVOUR=generic CACHALOT_NODE_MERGE=replace CACHALOT_NODE_EXCLUDE=docker.io \
        CACHALOT_NODE_READY_URL=http://127.0.0.1:$admin_port/readyz agent apply || return
    cat "$node/containerd/certs.d/$(directory_of "$origin")/hosts.toml"
    grep --quiet 'capabilities = \["pull"\]' "$node/containerd/certs.d/$(directory_of "$origin")/hosts.toml" || return
    grep --quiet 'dial_timeout = "2000ms"' "$node/containerd/certs.d/$(directory_of "$origin")/hosts.toml" || return
    grep --quiet 'digest-only' "$node/containers/registries.conf.d/50-cachalot.conf" || return
    [[ ! -e $node/containerd/certs.d/docker.io ]] && removes
}

hosts_are_merged() {
    local hosts
    hosts=$node/containerd/certs.d/$(directory_of "$origin")/hosts.toml
    local expected
    case $1 in
    keep) expected='https://mirror.example' ;;
    prepend) expected="http://$cache https://mirror.example" ;;
    replace) expected="http://$cache" ;;
    esac
    python3 - "$hosts" "$node/containerd/certs.d/docker.io/hosts.toml" "$expected" "http://$cache" <<'END'
import sys, tomllib
ours = [list(tomllib.load(open(path, "rb"))["host"]) for path in sys.argv[1:3]]
print(ours)
sys.exit(ours != [sys.argv[3].split(), [sys.argv[4]]])
END
}

attributes_are_kept() {
    local hosts
    hosts=$node/containerd/certs.d/$(directory_of "$origin")/hosts.toml
    [[ $(stat --format '%a %u:%g' "$hosts") == '640 12:34' ]]
}

# kill -9 at moments that are spread over the run, each followed by remove.
kills() {
    killed=0
    fresh_node
    put_foreign_files
    tree >"$work/original"
    check 'kill -9 at 40 moments of it: remove brings back every byte' kills_lose_nothing
    printf '      %d of them were in time\n' "$killed"
    check 'some of these kills were in time' test "$killed" -ge 5
}

kills_lose_nothing() {
    local attempt started took shortest=60000000
    # How long it takes when nothing holds it up.
    for attempt in 1 2 3; do
        started=${EPOCHREALTIME/./}
        killed_after 60 || return
        took=$((${EPOCHREALTIME/./} - started))
        ((took >= shortest)) || shortest=$took
        removes || return
    done
    for attempt in $(seq 40); do
        killed_after "$(printf '%d.%06d' $((shortest * attempt / 40 / 1000000)) $((shortest * attempt / 40 % 1000000)))" ||
            killed=$((killed + 1))
        removes || return
        diff "$work/original" <(tree) || return
    done
}

# killed_after SECONDS: whether the agent was done before.
killed_after() {
    timeout --signal=KILL "$1" unshare --mount --propagation private sh -c "$enter_node" "$node" \
        "$CACHALOT" node-config apply --endpoint "http://$cache" --registry "$origin" --registry docker.io \
        --state-dir "$node/state" --runtime containerd,crio --merge prepend >/dev/null 2>&1
}

# containerd of Debian with ctr and with its CRI plugin, and containerd 2.x with the plugin.
start_runtimes() {
    fresh_node
    mkdir -p "$work"/{one,two}
    cat >"$work/one/config.toml" <<END
version = 2
root = "$work/one/root"
state = "$work/one/state"
[grpc]
  address = "$work/one/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$work/one/opt"
[plugins."io.containerd.grpc.v1.cri"]
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
END
    cat >"$work/two/config.toml" <<END
version = 3
root = "$work/two/root"
state = "$work/two/state"
[grpc]
  address = "$work/two/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$work/two/opt"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "/etc/containerd/certs.d"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = "native"
END
    start_on_node containerd-one env SSL_CERT_FILE="$work/origin.pem" containerd --config "$work/one/config.toml"
    start_on_node containerd-two env SSL_CERT_FILE="$work/origin.pem" containerd2 --config "$work/two/config.toml"
    await containerd-one 60 cri one version
    await containerd-two 60 cri two version
}

stop_runtimes() {
    stop containerd-one 30 || true
    stop containerd-two 30 || true
}

# cri ONE|TWO COMMAND…
cri() {
    local which=$1
    shift
    crictl --timeout 120s --image-endpoint "unix://$work/$which/containerd.sock" \
        --runtime-endpoint "unix://$work/$which/containerd.sock" "$@"
}

readonly pullers=(ctr one two)

# pulls_anew PULLER: an image that nobody here has pulled yet, so that every object of it has to come from somewhere.
pulls_anew() {
    next_image=$((next_image + 1))
    image=$origin/image/$next_image:1
    case $1 in
    ctr)
        on_node env SSL_CERT_FILE="$work/origin.pem" ctr --address "$work/one/containerd.sock" images pull \
            --hosts-dir /etc/containerd/certs.d --snapshotter native "$image"
        ;;
    one | two) cri "$1" pull "$image" ;;
    esac
}

# accesses [MORE]: how many requests for that image the cache has got, of whose lines MORE is a part.
accesses() {
    grep --count "cachalot::access.*image/$next_image/.*${1:-}" "$work/${asked:-cachalot}.log" || true
}

pulls_through_the_cache() {
    pulls_anew "$1" || return
    # The tag, the manifest, the image's configuration and three layers. The line of the last one is written when its client has it.
    within 20 served_at_least 6 || return
    (($(accesses http.status=200) == $(accesses)))
}

# served_at_least NUMBER: of the requests for that image.
served_at_least() {
    printf '%s requests to the cache, served %s\n' "$(accesses)" "$(accesses http.status=200)"
    (($(accesses http.status=200) >= $1))
}

pulls_directly() {
    pulls_anew "$1" || return
    (($(accesses) == 0))
}

# everybody WHEN HOW: all clients pull so.
everybody() {
    local puller
    for puller in "${pullers[@]}"; do
        case $puller in
        ctr) check "$1: ctr $2" "$3" ctr ;;
        one) check "$1: Kubernetes' way with containerd 1.6 $2" "$3" one ;;
        two) check "$1: Kubernetes' way with containerd 2 $2" "$3" two ;;
        esac
    done
}

node_pulls() {
    everybody 'before' 'pulls from the registry itself' pulls_directly
    check 'the agent writes' applies
    check 'the agent tells that it is in place' agent status --endpoint "http://$cache"
    everybody 'applied' 'pulls through the cache' pulls_through_the_cache
    kill_cache
    everybody 'the cache killed' 'pulls from the registry itself' pulls_directly
    check 'the agent tells that the cache does not answer' refuses 6 'does not answer' agent status --endpoint "http://$cache"
    start_cache
    everybody 'the cache back' 'pulls through it' pulls_through_the_cache
    check 'the agent removes' removes
    everybody 'removed' 'pulls from the registry itself' pulls_directly
    check 'nothing of the agent is left' test ! -e "$node/state" -a -z "$(ls -A "$node/containerd/certs.d")"
    check 'the agent writes for all registries' applies --default --registry docker.io --exclude ghcr.io
    rm -r "$node/containerd/certs.d/$(directory_of "$origin")"
    everybody 'for all registries' 'pulls through the cache' pulls_through_the_cache
    check 'the agent removes the files for all registries' removes
}

kill_cache() {
    kill -KILL "${pids[cachalot]}"
    wait "${pids[cachalot]}" 2>/dev/null || true
    unset 'pids[cachalot]'
}

# starts_watching [OPTION…]: with a log of its own, from which it can be seen that it can be asked to end.
starts_watching() {
    rm -f "$work/agent.log"
    start_on_node agent "$CACHALOT" node-config watch --state-dir "$node/state" --endpoint "http://$cache" \
        --registry "$origin" --interval 200ms --remove-after 3s "$@"
}

# has_begun: the agent watches, and can be asked to end.
has_begun() { grep --quiet ': watching' "$work/agent.log"; }
hosts_are_there() { [[ -e $node/containerd/certs.d/$(directory_of "$origin")/hosts.toml ]]; }
hosts_are_gone() { ! hosts_are_there; }

node_watches() {
    starts_watching
    check 'the watch writes when the cache answers' await agent 30 hosts_are_there
    everybody 'watched' 'pulls through the cache' pulls_through_the_cache
    check 'a clean-up that the watch would undo is refused until it is stopped' refuses 1 'stop it first' removes
    rm -r "$node/containerd/certs.d/$(directory_of "$origin")"
    check 'the watch writes again what somebody removed' await agent 30 hosts_are_there

    local died=${EPOCHREALTIME/./}
    kill_cache
    check 'the watch withdraws its files when the cache is gone' await agent 30 hosts_are_gone
    local withdrawn=$(((${EPOCHREALTIME/./} - died) / 1000))
    printf '      withdrawn %d ms after the cache was killed, with --remove-after 3s\n' "$withdrawn"
    check 'the watch has withdrawn them no sooner than it was told to' test "$withdrawn" -ge 2700
    everybody 'withdrawn' 'pulls from the registry itself' pulls_directly
    start_cache
    check 'the watch restores its files when the cache is back' await agent 30 hosts_are_there
    everybody 'restored' 'pulls through the cache' pulls_through_the_cache

    kill -KILL "${pids[agent]}"
    wait "${pids[agent]}" 2>/dev/null || true
    check 'a killed watch leaves its files' hosts_are_there
    starts_watching
    check 'the next watch begins' await agent 30 has_begun
    check 'the watch ends with 0 when asked to, and leaves its files' stop agent
    check 'the files are there' hosts_are_there
    starts_watching --remove-on-exit
    await agent 30 has_begun
    check 'a watch that is to remove on exit ends with 0' stop agent
    check 'nothing of it is left' test ! -e "$node/state" -a -z "$(ls -A "$node/containerd/certs.d")"

    # The runtimes keep the directories of theirs.
    local kept=$node
    node=$work/other-node
    fresh_node 'version = 2'
    check 'a watch on a node that it must not write to ends with 1 and says why' \
        refuses 1 'sets no config_path' agent watch --endpoint "http://$cache" --registry "$origin"
    node=$kept
}

# A cache that serves whom it knows only, and what the agent gives the runtimes to show it, also when that is renewed.
node_is_known() {
    local known first='' second='' asked=known shown=$work/node-shows hosts
    hosts=$node/containerd/certs.d/$(directory_of "$origin")/hosts.toml
    known_certificates
    known_token first second
    printf 'nodes:%s\n' "$first" >"$work/known-tokens"
    start_known optional || return
    known_shows "$first" 1
    starts_known_watch --token-file "$shown/token"
    check 'with a token: the watch writes' await agent 30 hosts_are_there
    everybody 'with a token' 'pulls through the cache' pulls_through_the_cache
    check 'with a token: only root may read it' test "$(stat --format %a "$hosts")" = 600
    check 'who shows none is sent away' known_answers 401
    printf 'nodes:%s\nrenewed:%s\n' "$first" "$second" >"$work/known-tokens"
    check 'the cache knows the next token as well' await known 60 known_answers 200 "$second"
    known_shows "$second" 1
    check 'a token that is renewed is on the node without a restart' await agent 30 grep --quiet "$second" "$hosts"
    printf 'renewed:%s\n' "$second" >"$work/known-tokens"
    check 'the cache knows the former token no more' await known 60 known_answers 401 "$first"
    everybody 'with the next token' 'pulls through the cache' pulls_through_the_cache
    check 'with a token: the watch ends with 0' stop agent
    check 'with a token: nothing of it is left' known_is_nowhere

    check 'the cache ends' stop known 60
    start_known required || return
    known_shows "$second" 1
    starts_known_watch --install-client-cert "$shown/tls.crt" --install-client-key "$shown/tls.key"
    check 'with a certificate: the watch writes' await agent 30 hosts_are_there
    everybody 'with a certificate' 'pulls through the cache' pulls_through_the_cache
    check 'with a certificate: only root may read its key' test "$(stat --format %a "$node/containerd/certs.d/_cachalot/client.pem")" = 600
    known_shows "$second" 2
    check 'a certificate that is renewed is on the node without a restart' await agent 30 known_is_installed 2
    everybody 'with the next certificate' 'pulls through the cache' pulls_through_the_cache
    check 'with a certificate: the watch ends with 0' stop agent
    check 'with a certificate: nothing of it is left' known_is_nowhere
    check 'nothing panicked there' known_has_not_panicked
    check 'the cache ends again' stop known 60
}

# One authority for the cache and its clients, and two certificates of clients.
known_certificates() {
    local name
    mkdir -p "$work/known"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority \
        -keyout "$work/known/ca.key" -out "$work/known/ca.crt" 2>/dev/null
    for name in cache node-1 node-2; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$name" \
            -addext subjectAltName=DNS:localhost,DNS:registry.test -addext basicConstraints=critical,CA:FALSE \
            -CA "$work/known/ca.crt" -CAkey "$work/known/ca.key" \
            -keyout "$work/known/$name.key" -out "$work/known/$name.crt" 2>/dev/null
    done
}

# known_token NAME…: makes a token in each of these variables.
known_token() {
    local name
    for name in "$@"; do
        printf -v "$name" '%s' "$(openssl rand -hex 32)"
    done
}

# start_known REQUIRED|OPTIONAL: the cache, whose address is then in known.
start_known() {
    local admin
    known=registry.test:$(free_port) admin=127.0.0.1:$(free_port)
    rm -f "$work/known.log"
    cat >"$work/known.toml" <<END
[server]
listen = []
[[listener]]
address = "127.0.0.1:${known#*:}"
cert = "$work/known/cache.crt"
key = "$work/known/cache.key"
client_ca = "$work/known/ca.crt"
client_certificate = "$1"
[admin]
listen = "$admin"
[identity]
tokens = "$work/known-tokens"
certificates = "cn"
[store]
path = "$work/known-store"
capacity = "2GiB"
min_free = "64MiB"
[[upstream]]
name = "$origin"
endpoints = ["https://$origin_here"]
ca = "$work/origin.pem"
END
    chmod 600 "$work/known-tokens"
    start known "$CACHALOT" serve --config "$work/known.toml"
    check "a cache that knows its clients is there, certificates $1" await known 30 answers "http://$admin/readyz"
}

# known_shows TOKEN NUMBER: a directory with these is put in the place of the former one at once, as the kubelet does it.
known_shows() {
    local directory
    directory=$(mktemp -d "$work/node-shows.XXXXXX")
    printf '%s\n' "$1" >"$directory/token"
    cp "$work/known/node-$2.crt" "$directory/tls.crt"
    cp "$work/known/node-$2.key" "$directory/tls.key"
    cp "$work/known/ca.crt" "$directory/ca.crt"
    ln -sfn "$directory" "$work/node-shows.next"
    mv --no-target-directory "$work/node-shows.next" "$work/node-shows"
}

# starts_known_watch OPTION…
starts_known_watch() {
    rm -f "$work/agent.log"
    start_on_node agent "$CACHALOT" node-config watch --state-dir "$node/state" --endpoint "https://$known" --registry "$origin" \
        --interval 200ms --remove-after 120s --remove-on-exit --install-ca "$work/node-shows/ca.crt" "$@"
}

# known_answers STATUS [TOKEN]: the ping of who shows this token is answered so.
known_answers() {
    [[ $(curl --silent --cacert "$work/known/ca.crt" --output /dev/null --write-out '%{http_code}' --max-time 5 \
        ${2:+--header "Authorization: Bearer $2"} "https://localhost:${known#*:}/v2/") == "$1" ]]
}

# known_is_installed NUMBER: certificate and key lie on the node.
known_is_installed() {
    local installed=$node/containerd/certs.d/_cachalot/client.pem
    diff <(grep --invert-match '^#' "$installed") <(cat "$work/known/node-$1.crt" "$work/known/node-$1.key")
}

known_is_nowhere() {
    [[ ! -e $node/state && -z $(ls -A "$node/containerd/certs.d") ]]
}

known_has_not_panicked() {
    ! grep -i panicked "$work/known.log"
}

# Without a way around the cache, an image that only the registry has cannot be pulled when the cache is gone.
node_without_fallback() {
    check 'without fallback: the agent writes' applies --no-fallback
    everybody 'without fallback' 'pulls through the cache' pulls_through_the_cache
    stop cachalot 60 || true
    everybody 'without fallback and without the cache' 'pulls nothing' pulls_nothing
    start_cache
    check 'without fallback: the agent removes' removes
}

pulls_nothing() {
    ! pulls_anew "$1"
}

# An address that swallows connections: a listener whose queue is full. The kernel answers no further SYN.
node_dials_briefly() {
    local port started
    port=$(free_port)
    start hole python3 -c '
import socket, sys, time
listener = socket.socket()
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen(0)
full = [socket.socket() for _ in range(4)]
for each in full:
    each.setblocking(False)
    each.connect_ex(listener.getsockname())
print("full", flush=True)
time.sleep(300)' "$port"
    await hole 30 grep --quiet full "$work/hole.log"
    local directory
    directory=$node/containerd/certs.d/$(directory_of "$origin")
    mkdir -p "$directory"
    "$CACHALOT" print-config containerd --endpoint "http://127.0.0.1:$port" --registry "$origin" >"$directory/hosts.toml"
    started=${EPOCHREALTIME/./}
    check 'a cache that swallows connections: containerd 2 pulls from the registry itself' pulls_directly two
    printf '      that took %d ms, with dial_timeout = 300ms\n' $(((${EPOCHREALTIME/./} - started) / 1000))
    check 'a cache that swallows connections: containerd 2 does not wait 30 s' \
        test $(((${EPOCHREALTIME/./} - started) / 1000)) -lt 30000
    rm -r "$directory"
    stop hole || true
}
