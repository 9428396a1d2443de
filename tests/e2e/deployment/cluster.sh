# A Kubernetes of one node, made for this part: the chart is installed in it, its pods run, and the node pulls through them.
# Sourced by deploy.
#
# Kubernetes is built here and then runs, with all that belongs to it, in namespaces of its own (network, mounts, processes): what
# happens there is in cluster/inside, which ends with all of its processes.

cluster() {
    install_missing containerd:containerd /usr/lib/cni/bridge:containernetworking-plugins iptables:iptables ip:iproute2 \
        openssl:openssl docker-registry:docker-registry skopeo:skopeo buildah:buildah strip:binutils
    install_tool helm3 helm.sh/helm/v3@v3.22.0 cmd/helm
    install_tool helm4 helm.sh/helm/v4@v4.3.1 cmd/helm
    check 'Kubernetes is built' cluster_builds_kubernetes
    check 'the definitions of custom resources are here' cluster_fetches_definitions
    check 'the images are built' cluster_builds_images
    local line
    while IFS= read -r line; do
        printf '%s\n' "$line"
        case $line in
            'ok    '*) passed=$((passed + 1)) ;;
            'FAIL  '*) failed=$((failed + 1)) ;;
        esac
    done < <(cluster_runs)
    find /sys/fs/cgroup -depth -type d -path "*/$(basename "$work")*" -exec rmdir {} +
    [[ -e $work/cluster/ended ]] || check 'the cluster was there to the end' false
}

cluster_runs() {
    mkdir -p "$work/cluster"
    env --unset HTTP_PROXY --unset HTTPS_PROXY --unset http_proxy --unset https_proxy CACHALOT="$CACHALOT" \
        PATH="$tools/kubernetes-1.34.3:$PATH" \
        unshare --net --mount --pid --fork --kill-child --mount-proc -- "$here/deployment/cluster/inside" "$work/cluster" 2>&1
}

cluster_prepare() {
    cluster_builds_kubernetes
}

cluster_builds_kubernetes() {
    local directory=$tools/kubernetes-1.34.3
    [[ -x $directory/kubernetes ]] || "$here/deployment/cluster/kubernetes/build" 1.34.3 "$directory"
}

# The operators' definitions are in their Go modules; the files are listed in definitions.
cluster_fetches_definitions() {
    local line module directory path
    mkdir -p "$work/cluster" "$work/definitions"
    (
        cd "$work/definitions" || exit
        printf 'module definitions\ngo 1.24\n' >go.mod
        while read -r module path; do
            directory=$(go mod download -json "$module" | jq --raw-output .Dir) || exit
            ls "$directory/$path" || exit
        done <<'LIST' >"$work/cluster/definitions"
github.com/prometheus-operator/prometheus-operator@v0.85.0 example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml
github.com/prometheus-operator/prometheus-operator@v0.85.0 example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml
github.com/prometheus-operator/prometheus-operator@v0.85.0 example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml
github.com/cert-manager/cert-manager@v1.19.1 deploy/crds/cert-manager.io_certificates.yaml
github.com/grafana/grafana-operator/v5@v5.19.4 config/crd/bases/grafana.integreatly.org_grafanadashboards.yaml
sigs.k8s.io/gateway-api@v1.4.0 config/crd/standard/gateway.networking.k8s.io_httproutes.yaml
sigs.k8s.io/gateway-api@v1.4.0 config/crd/standard/gateway.networking.k8s.io_backendtlspolicies.yaml
LIST
    )
}

# The image of Cachalot as deploy/image has it, and one whose program only waits, as an archive for the node and, with a layer of
# its own for each test, for the registry.
cluster_builds_images() {
    local version number context=$work/cluster/pause
    version=$(sed -n 's/^appVersion: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$root/helm/Chart.yaml")
    mkdir -p "$context" "$work/cluster/images"
    "$root/deploy/image/rootfs" "$CACHALOT" "$work/cluster/stage/rootfs" || return
    cluster_buildah build --isolation chroot --format docker --build-context "rootfs=$work/cluster/stage" \
        --file "$root/deploy/image/Dockerfile" --tag "ghcr.io/cachalot/cachalot:$version" "$root" || return
    cluster_buildah push "ghcr.io/cachalot/cachalot:$version" \
        "docker-archive:$work/cluster/images/cachalot.tar:ghcr.io/cachalot/cachalot:$version" || return
    CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$context/pause" "$here/deployment/cluster/pause/main.go" || return
    for number in 0 1 2 3 4 5 6 7 8 9; do
        head --bytes 300000 /dev/urandom >"$context/content"
        printf 'FROM scratch\nCOPY pause /pause\nCOPY content /content\nENTRYPOINT ["/pause"]\n' |
            cluster_buildah build --isolation chroot --format docker --file - --tag "cluster.test/pause:$number" "$context" ||
            return
        cluster_buildah push "cluster.test/pause:$number" \
            "docker-archive:$work/cluster/images/pause-$number.tar:cluster.test/pause:$number" || return
    done
}

cluster_buildah() {
    buildah --root "$work/cluster-images" --runroot "$work/cluster-images-run" --storage-driver vfs "$@"
}
