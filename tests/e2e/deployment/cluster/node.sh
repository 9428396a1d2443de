# The node: containerd and its CRI plugin, a network of pods, kube-proxy, the names of Services, and the kubelet. Everything that
# they keep where nodes keep it is in a directory of the test. Sourced by inside.

readonly certs=/etc/containerd/certs.d
# Groups of processes are the machine's; cluster.sh removes these.
cgroup=/$(basename "$(dirname "$work")")

start_node() {
    own_directories
    start names python3 "$inside/names.py" "$node_address" "$api" "$work"/{ca.crt,admin.crt,admin.key} "registry.test=$node_address"
    start_containerd
    configure_proxy >"$work/proxy.yaml"
    start proxy kube-proxy --config "$work/proxy.yaml"
    configure_kubelet >"$work/kubelet.yaml"
    start kubelet kubelet --config "$work/kubelet.yaml" --kubeconfig "$work/kubelet.kubeconfig" --hostname-override node \
        --node-ip "$node_address" --cert-dir "$work/kubelet-certificates"
    start_scheduler
    await kubelet 90 kubectl wait --for condition=Ready node node --timeout 1s
}

# The directories of a node are these for all processes in here, and only for them.
own_directories() {
    local directory
    for directory in /etc/containerd /var/lib /var/log /run; do
        mkdir -p "$work/node$directory"
        mount --bind "$work/node$directory" "$directory"
    done
    mkdir -p /run/containerd /var/lib/kubelet
    printf '127.0.0.1 localhost\n%s node registry.test\n' "$node_address" >"$work/hosts"
    printf 'nameserver %s\n' "$node_address" >"$work/resolv.conf"
    mount --bind "$work/hosts" /etc/hosts
    own_settings
}

# What the kubelet would set for the whole machine it sets in files.
own_settings() {
    local setting value
    while read -r setting value; do
        printf '%s\n' "$value" >"$work/${setting//\//.}"
        mount --bind "$work/${setting//\//.}" "/proc/sys/$setting"
    done <<'LIST'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
LIST
}

start_containerd() {
    cat >/etc/containerd/config.toml <<TOML
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "cluster.test/pause:0"
  # Not even root may take this from a process here.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$work/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$certs"
TOML
    # Each pod is on a cable of its own, so that all of their traffic is routed, and Services are reached from pods.
    mkdir -p "$work/cni" "$certs"
    cat >"$work/cni/pods.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
    {"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
    SSL_CERT_FILE=$work/ca.crt start containerd containerd
    await containerd 30 ctr version
}

# Limits of the machine's connection tracking are not for a network of one's own to change.
configure_proxy() {
    cat <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clientConnection: {kubeconfig: "$work/proxy.kubeconfig"}
hostnameOverride: node
bindAddress: $node_address
clusterCIDR: 10.88.0.0/16
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
YAML
}

configure_kubelet() {
    mkdir -p "$work/plugins"
    cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $node_address
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: "$work/ca.crt"}}
authorization: {mode: AlwaysAllow}
tlsCertFile: "$work/kubelet.crt"
tlsPrivateKeyFile: "$work/kubelet.key"
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupsPerQOS: false
cgroupRoot: $cgroup
enforceNodeAllocatable: []
failSwapOn: false
clusterDomain: cluster.local
clusterDNS: [$node_address]
syncFrequency: 5s
resolvConf: "$work/resolv.conf"
volumePluginDir: "$work/plugins"
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
YAML
}
