# Four real clients: how each is set up, how it pulls, what digest it got, and how it forgets. Sourced by run.
#
# Each client keeps everything below $work, and can reach nothing but the loopback interface: whatever it asks of another
# host goes to a proxy that is not there, so that a pull succeeds through Cachalot or not at all. `reachable` names another host
# for a script with a network of its own.

readonly clients=(containerd docker podman skopeo)

printf '{"default":[{"type":"insecureAcceptAnything"}]}' >"$work/policy.json"

offline() {
    env HTTP_PROXY=http://127.0.0.1:9 HTTPS_PROXY=http://127.0.0.1:9 NO_PROXY="${reachable:-127.0.0.1}" \
        timeout --kill-after=5 120 "$@"
}

# set_up_clients PORT: writes the clients' configuration for a cache at PORT and starts the daemons.
set_up_clients() {
    local cache=127.0.0.1:$1
    mkdir -p "$work"/{docker-config,skopeo}
    cat >"$work/registries.conf" <<END
[[registry]]
prefix = "registry.test"
location = "registry.test"
[[registry.mirror]]
location = "$cache/registry.test"
insecure = true
END
    set_up_containerd "$1" registry.test
    # Else dockerd reads the machine's own.
    printf '{}' >"$work/docker.json"
    start dockerd env HTTPS_PROXY=http://127.0.0.1:9 NO_PROXY=127.0.0.1 dockerd --config-file "$work/docker.json" \
        --data-root "$work/docker" --exec-root "$work/docker-exec" --pidfile "$work/docker.pid" \
        --host "unix://$work/docker.sock" --containerd "$work/containerd.sock" --storage-driver vfs \
        --iptables=false --ip6tables=false --bridge=none --registry-mirror "http://$cache"
    await dockerd 60 docker_cli version
}

# set_up_containerd PORT UPSTREAM…: has containerd ask the cache at PORT for these, and nobody else, and starts it.
set_up_containerd() {
    local address=127.0.0.1:$1 upstream
    shift
    for upstream in "$@"; do
        mkdir -p "$work/hosts/$upstream"
        cat >"$work/hosts/$upstream/hosts.toml" <<END
server = "http://$address"
[host."http://$address"]
  capabilities = ["pull", "resolve"]
END
    done
    cat >"$work/containerd.toml" <<END
version = 2
root = "$work/containerd"
state = "$work/containerd-state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$work/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$work/containerd-opt"
END
    start containerd containerd --config "$work/containerd.toml"
    await containerd 30 ctr --address "$work/containerd.sock" version
}

containerd_cli() { offline ctr --address "$work/containerd.sock" "$@"; }
docker_cli() { DOCKER_CONFIG=$work/docker-config offline docker --host "unix://$work/docker.sock" "$@"; }
podman_cli() {
    CONTAINERS_REGISTRIES_CONF=$work/registries.conf offline podman --root "$work/podman" --runroot "$work/podman-run" \
        --tmpdir "$work/podman-tmp" --storage-driver vfs --events-backend none --cgroup-manager cgroupfs "$@"
}
skopeo_cli() { offline skopeo --policy "$work/policy.json" "$@"; }

# repository_of CLIENT IMAGE: where the image for that client lies in the upstream; docker's mirrors serve library/ only.
repository_of() {
    if [[ $1 == docker ]]; then printf 'library/%s' "$2"; else printf '%s/%s' "$1" "$2"; fi
}

# pull CLIENT REPOSITORY: pulls tag 1 of a repository through Cachalot.
pull() {
    case $1 in
    containerd) containerd_cli images pull --hosts-dir "$work/hosts" --snapshotter native "registry.test/$2:1" ;;
    docker) docker_cli pull "docker.io/$2:1" ;;
    podman) podman_cli pull --signature-policy "$work/policy.json" "registry.test/$2:1" ;;
    skopeo)
        mkdir -p "$work/skopeo/$2"
        skopeo_cli copy --all --preserve-digests --src-tls-verify=false \
            "docker://127.0.0.1:$cache_port/registry.test/$2:1" "oci:$work/skopeo/$2:1"
        ;;
    esac
}

# digests CLIENT REPOSITORY: prints the digests by which the client knows what it pulled.
digests() {
    case $1 in
    containerd) containerd_cli images list "name==registry.test/$2:1" | awk 'NR == 2 { print $3 }' ;;
    docker) docker_cli image inspect --format '{{join .RepoDigests " "}}' "docker.io/$2:1" ;;
    podman) podman_cli image inspect --format '{{join .RepoDigests " "}}' "registry.test/$2:1" ;;
    skopeo) jq --raw-output '.manifests[0].digest' "$work/skopeo/$2/index.json" ;;
    esac
}

# forget CLIENT REPOSITORY: removes the image and its layers from the client, if they are there.
forget() {
    case $1 in
    containerd) containerd_cli images remove --sync "registry.test/$2:1" ;;
    docker) docker_cli image rm --force "docker.io/$2:1" ;;
    podman) podman_cli image rm --force "registry.test/$2:1" ;;
    skopeo) rm -rf "$work/skopeo/$2" ;;
    esac
}
