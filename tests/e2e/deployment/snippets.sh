# What `cachalot print-config` prints is fed to the client that it is for, which then pulls through the cache; what is for clients
# that cannot run here is read by a parser of its format.
#
# Clients reach nothing but the loopback interface: whatever they ask of another host goes to a proxy that is not there.

snippets() {
    install_missing docker-registry:docker-registry containerd:containerd skopeo:skopeo podman:podman buildah:buildah \
        dockerd:docker.io docker:docker.io runc:runc unshare:util-linux
    [[ -e /usr/lib/python3/dist-packages/yaml ]] || install_missing /no/yaml:python3-yaml
    install_tool crane github.com/google/go-containerregistry@v0.22.1 cmd/crane
    install_tool oras oras.land/oras@v1.3.6 cmd/oras
    install_tool helm helm.sh/helm/v3@v3.22.0 cmd/helm
    install_tool buildkitd github.com/moby/buildkit@v0.25.1 cmd/buildkitd
    install_tool buildctl github.com/moby/buildkit@v0.25.1 cmd/buildctl
    start_docker_registry upstream
    start_cachalot snippets-store '[[upstream]]' 'name = "docker.io"' "endpoints = [\"http://$registry\"]" \
        '[[upstream]]' 'name = "other.test"' "endpoints = [\"http://$registry\"]"
    mkdir -p "$work/home/docker" "$work/snippets"
    printf '{}' >"$work/home/docker/config.json"
    printf '{"default":[{"type":"insecureAcceptAnything"}]}' >"$work/policy.json"
    push_snippet_images

    snippets_for_containerd
    snippets_for_containers_tools
    snippets_for_docker
    snippets_for_buildkit
    snippets_for_tools_by_name
    snippets_that_are_parsed
    snippets_that_are_refused
    check 'nothing panicked' nothing_panicked
    stop cachalot 60 || true
    stop upstream || true
}

# offline COMMAND…: a client that keeps its files below $work.
offline() {
    env HTTP_PROXY=http://127.0.0.1:9 HTTPS_PROXY=http://127.0.0.1:9 NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 HOME="$work/home" \
        DOCKER_CONFIG="$work/home/docker" XDG_CONFIG_HOME="$work/home/config" XDG_CACHE_HOME="$work/home/cache" \
        XDG_DATA_HOME="$work/home/data" timeout --kill-after=5 120 "$@"
}

# Each client pulls a repository of its own, so that nothing that another has pulled helps it.
push_snippet_images() {
    local repository
    for repository in containerd/image containerd-default/image kind/image podman/image buildah/image skopeo/image crio/image \
        library/docker-image docker/image buildkit/image crane/image; do
        python3 "$here/images.py" "$work/layouts/$repository" one "$repository"
        skopeo --policy "$work/policy.json" copy --quiet --preserve-digests --dest-tls-verify=false \
            "oci:$work/layouts/$repository:1" "docker://$registry/$repository:1"
    done
    printf 'an artifact\n' >"$work/artifact"
    (cd "$work" && offline oras push --plain-http "$registry/oras/artifact:1" artifact:text/plain) >/dev/null
    mkdir -p "$work/chart"
    printf 'apiVersion: v2\nname: chart\nversion: 0.1.0\n' >"$work/chart/Chart.yaml"
    offline helm package --destination "$work" "$work/chart" >/dev/null
    offline helm push --plain-http "$work/chart-0.1.0.tgz" "oci://$registry/helm" 2>/dev/null
}

# printed CLIENT [OPTION…]: the snippet for this cache.
printed() {
    "$CACHALOT" print-config "$1" --endpoint "http://$cache" "${@:2}" 2>"$work/notes"
}

# comes_through REPOSITORY COMMAND…: whether the command succeeds, and the cache has served this repository for it.
comes_through() {
    local repository=$1
    shift
    "$@" || return
    # The line of a request is written when its client has the answer.
    within 20 has_served_two "$repository"
}

has_served_two() {
    local requests
    requests=$(grep --count "cachalot::access.*[/ ]$1/.*http.status=200" "$work/cachalot.log") || true
    printf '%d requests that the cache has served\n' "$requests"
    ((requests >= 2))
}

snippets_for_containerd() {
    local hosts=$work/snippets/certs.d
    mkdir -p "$hosts/registry.test"
    printed containerd --registry registry.test >"$hosts/registry.test/hosts.toml"
    # Of several files the first line of each says where it belongs.
    printed containerd --registry docker.io --default |
        awk -v root="$hosts" '/^# .*hosts.toml$/ { n = split($2, part, "/"); file = root "/" part[n - 1] "/hosts.toml"
            system("mkdir -p " root "/" part[n - 1]) } { print > file }'
    cat >"$work/snippets/containerd.toml" <<END
version = 2
root = "$work/snippets/containerd"
state = "$work/snippets/containerd-state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$work/snippets/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$work/snippets/containerd-opt"
END
    start containerd containerd --config "$work/snippets/containerd.toml"
    await containerd 30 ctr --address "$work/snippets/containerd.sock" version
    check 'containerd pulls with its file' comes_through containerd/image ctr_pulls "$hosts" registry.test/containerd/image:1
    check 'containerd pulls from a registry without a file of its own with the default' \
        comes_through containerd-default/image ctr_pulls "$hosts" other.test/containerd-default/image:1
    check 'containerd has a file for docker.io that leads to its real server' \
        grep --quiet --fixed-strings 'server = "https://registry-1.docker.io"' "$hosts/docker.io/hosts.toml"

    printed kind --registry registry.test --default >"$work/snippets/kind.yaml"
    check 'the commands before a kind cluster can be run as they are printed' kind_commands_run
    check 'containerd pulls with the directory that kind mounts' \
        comes_through kind/image ctr_pulls "$work/snippets/kind/certs.d" registry.test/kind/image:1
    stop containerd || true
}

# ctr_pulls HOSTS IMAGE
ctr_pulls() {
    offline ctr --address "$work/snippets/containerd.sock" images pull --hosts-dir "$1" --snapshotter native "$2"
}

kind_commands_run() {
    mkdir -p "$work/snippets/kind" "$work/snippets/bin"
    ln -sf "$CACHALOT" "$work/snippets/bin/cachalot"
    sed -n 's/^#   //p' "$work/snippets/kind.yaml" >"$work/snippets/kind.sh"
    cat "$work/snippets/kind.sh"
    [[ -s $work/snippets/kind.sh ]] || return
    (cd "$work/snippets/kind" && PATH=$work/snippets/bin:$PATH sh -e ../kind.sh)
}

snippets_for_containers_tools() {
    local client
    for client in podman buildah skopeo; do
        with_drop_in "$client"
        check "$client pulls with its drop-in" comes_through "$client/image" "${client}_pulls" "registry.test/$client/image:1"
    done
    with_drop_in crio
    check "podman, which reads what CRI-O reads, pulls with CRI-O's drop-in" \
        comes_through crio/image podman_pulls registry.test/crio/image:1
    check "podman reads the mirror out of CRI-O's drop-in" podman_knows_the_mirror
}

# with_drop_in CLIENT: what is at /etc/containers from here on.
with_drop_in() {
    rm -rf "$work/snippets/containers"
    mkdir -p "$work/snippets/containers/registries.conf.d"
    cp "$work/policy.json" "$work/snippets/containers/policy.json"
    printed "$1" --registry registry.test >"$work/snippets/containers/registries.conf.d/50-cachalot.conf"
}

# with_containers COMMAND…
# shellcheck disable=SC2016
with_containers() {
    offline unshare --mount --propagation private sh -c \
        'mount --bind "$0" /etc/containers && exec "$@"' "$work/snippets/containers" "$@"
}

podman_cli() {
    with_containers podman --root "$work/snippets/podman" --runroot "$work/snippets/podman-run" \
        --tmpdir "$work/snippets/podman-tmp" --storage-driver vfs --events-backend none --cgroup-manager cgroupfs "$@"
}
podman_pulls() { podman_cli pull "$1"; }
podman_knows_the_mirror() {
    podman_cli info --format json >"$work/snippets/info.json" || return
    jq --exit-status --arg location "$cache/registry.test" \
        '.registries["registry.test"].Mirrors | length == 1 and .[0].Location == $location' "$work/snippets/info.json"
}
buildah_pulls() {
    with_containers buildah --root "$work/snippets/buildah" --runroot "$work/snippets/buildah-run" --storage-driver vfs pull "$1"
}
skopeo_pulls() { with_containers skopeo copy "docker://$1" "dir:$work/snippets/skopeo"; }

snippets_for_docker() {
    printed docker --registry docker.io --registry registry.test >"$work/snippets/daemon.json"
    start dockerd env HTTPS_PROXY=http://127.0.0.1:9 NO_PROXY=127.0.0.1 dockerd --config-file "$work/snippets/daemon.json" \
        --data-root "$work/snippets/docker" --exec-root "$work/snippets/docker-exec" --pidfile "$work/snippets/docker.pid" \
        --host "unix://$work/snippets/docker.sock" --storage-driver vfs --iptables=false --ip6tables=false --bridge=none
    await dockerd 60 docker_cli version
    check 'docker pulls from Docker Hub with its daemon.json' \
        comes_through library/docker-image docker_cli pull docker.io/library/docker-image:1
    check 'docker pulls from another registry by the path that the note says' \
        comes_through registry.test/docker/image docker_cli pull "$cache/registry.test/docker/image:1"
    check 'a note says what docker cannot do' grep --quiet 'docker.io only' "$work/notes"
    stop dockerd 60 || true
}

docker_cli() { offline docker --host "unix://$work/snippets/docker.sock" "$@"; }

snippets_for_buildkit() {
    printed buildkit --registry registry.test >"$work/snippets/buildkitd.toml"
    mkdir -p "$work/snippets/context"
    printf 'FROM registry.test/buildkit/image:1\n' >"$work/snippets/context/Dockerfile"
    start buildkitd env HTTPS_PROXY=http://127.0.0.1:9 HTTP_PROXY=http://127.0.0.1:9 NO_PROXY=127.0.0.1 \
        buildkitd --config "$work/snippets/buildkitd.toml" --root "$work/snippets/buildkit" \
        --addr "unix://$work/snippets/buildkit.sock" --oci-worker-snapshotter native --oci-worker-net host
    await buildkitd 60 buildctl --addr "unix://$work/snippets/buildkit.sock" debug workers
    check 'BuildKit builds from an image with its buildkitd.toml' comes_through buildkit/image buildkit_builds
    stop buildkitd 60 || true
}

buildkit_builds() {
    offline buildctl --addr "unix://$work/snippets/buildkit.sock" build --frontend dockerfile.v0 \
        --local "context=$work/snippets/context" --local "dockerfile=$work/snippets/context" \
        --output "type=oci,dest=$work/snippets/built.tar"
}

snippets_for_tools_by_name() {
    check 'crane pulls with the printed command' comes_through registry.test/crane/image \
        command_runs crane crane/image:1
    check 'ORAS pulls with the printed command' comes_through registry.test/oras/artifact \
        command_runs oras oras/artifact:1
    check 'what ORAS pulled is what was pushed' cmp "$work/artifact" "$work/snippets/commands/artifact"
    check 'Helm pulls with the printed command' comes_through registry.test/helm/chart \
        command_runs helm 'helm/chart --version 0.1.0'
    check 'what Helm pulled is what was pushed' cmp "$work/chart-0.1.0.tgz" "$work/snippets/commands/chart-0.1.0.tgz"
}

# command_runs CLIENT NAME: the printed command, with a name in the place of its capitals.
command_runs() {
    local command
    command=$(printed "$1" --registry registry.test | sed -e '/^#/d' -e "s|REPOSITORY:TAG|$2|" -e "s|CHART --version VERSION|$2|")
    printf '%s\n' "$command"
    mkdir -p "$work/snippets/commands"
    (cd "$work/snippets/commands" && offline sh -e -c "$command")
}

# What clients print that cannot run here, and what has to be in it.
snippets_that_are_parsed() {
    local client
    for client in k3s rke2 talos bottlerocket gke kind gitlab-runner nerdctl; do
        printed "$client" --registry docker.io >"$work/snippets/$client.txt"
        check "$client: its text is what its format and its documentation ask for" \
            /usr/bin/python3 "$here/deployment/parse_snippet.py" "$client" "$work/snippets/$client.txt" "http://$cache"
    done
}

snippets_that_are_refused() {
    check 'an unknown client: the one that was meant is named' is_refused containerd contanerd
    check 'an endpoint without a scheme: an example is given' is_refused 'http://10.0.0.7:30500' containerd --endpoint cache:5000
    check 'an endpoint with a path is refused' is_refused 'leave out the path' containerd --endpoint http://cache/v2
    check 'no endpoint at all is refused' is_refused 'endpoint is missing' containerd
    check 'a registry that is a URL is refused' \
        is_refused 'write for example quay.io' containerd --endpoint http://cache --registry https://quay.io
    check 'docker without docker.io is told that it mirrors nothing else' \
        is_refused 'docker.io only' docker --endpoint http://cache --registry quay.io
    check 'podman is told that it has no default' is_refused 'leave out --default' podman --endpoint http://cache --default
    check 'BuildKit is told that it keeps its fallback' \
        is_refused 'leave out --no-fallback' buildkit --endpoint http://cache --no-fallback
}

# is_refused TEXT CLIENT [OPTION…]: whether this is wrong usage, and the message has this text.
is_refused() {
    local text=$1 code=0
    shift
    "$CACHALOT" print-config "$@" >"$work/refusal" 2>&1 || code=$?
    cat "$work/refusal"
    ((code == 2)) && grep --quiet --fixed-strings -- "$text" "$work/refusal"
}
