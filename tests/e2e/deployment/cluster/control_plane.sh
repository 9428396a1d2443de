# The control plane: etcd, the API server and the controllers, and the scheduler once there is a node, with certificates of an
# authority made here. Sourced by inside.

readonly node_address=10.77.0.1 service_ranges=10.96.0.0/16,fd00:96::/112 first_service=10.96.0.1
readonly api=https://$node_address:6443
export KUBECONFIG=$work/admin.kubeconfig

start_control_plane() {
    make_certificates
    start etcd etcd --data-dir "$work/etcd" --listen-client-urls http://127.0.0.1:2379 --unsafe-no-fsync \
        --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 --log-level warn
    start apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 --advertise-address "$node_address" \
        --service-cluster-ip-range "$service_ranges" --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
        --allow-privileged --client-ca-file "$work/ca.crt" --cert-dir "$work" \
        --tls-cert-file "$work/apiserver.crt" --tls-private-key-file "$work/apiserver.key" \
        --kubelet-client-certificate "$work/admin.crt" --kubelet-client-key "$work/admin.key" \
        --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$work/tokens.key" \
        --service-account-signing-key-file "$work/tokens.key"
    await apiserver 60 kubectl get --raw /readyz
    # The one node may be silent for as long as it likes: before the kubelet starts it is a record only.
    start controllers kube-controller-manager --kubeconfig "$work/controllers.kubeconfig" --leader-elect=false \
        --authentication-kubeconfig "$work/controllers.kubeconfig" --authorization-kubeconfig "$work/controllers.kubeconfig" \
        --root-ca-file "$work/ca.crt" --service-account-private-key-file "$work/tokens.key" --use-service-account-credentials \
        --cert-dir "$work" --bind-address 127.0.0.1 --node-monitor-grace-period 1h --concurrent-gc-syncs 5
    # The controllers work when they have given the first namespace its account.
    await controllers 60 kubectl get serviceaccount default
}

start_scheduler() {
    start scheduler kube-scheduler --kubeconfig "$work/scheduler.kubeconfig" --leader-elect=false \
        --authentication-kubeconfig "$work/scheduler.kubeconfig" --authorization-kubeconfig "$work/scheduler.kubeconfig" \
        --cert-dir "$work" --bind-address 127.0.0.1
}

# Who the programs are is what their certificates say.
make_certificates() {
    authority
    openssl genrsa -out "$work/tokens.key" 2048 2>/dev/null
    certificate apiserver kube-apiserver '' "IP:127.0.0.1,IP:$node_address,IP:$first_service,DNS:kubernetes.default.svc"
    certificate kubelet system:node:node system:nodes "IP:$node_address,DNS:node"
    certificate admin admin system:masters
    certificate controllers system:kube-controller-manager
    certificate scheduler system:kube-scheduler
    certificate proxy system:kube-proxy
    local name
    for name in kubelet admin controllers scheduler proxy; do
        kubeconfig "$name" >"$work/$name.kubeconfig"
    done
}

authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj '/CN=authority of the cluster' \
        -keyout "$work/ca.key" -out "$work/ca.crt" 2>/dev/null
}

# certificate FILE USER [GROUP [NAMES]]
certificate() {
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "${3:+/O=$3}/CN=$2" \
        -keyout "$work/$1.key" 2>/dev/null |
        openssl x509 -req -days 2 -CA "$work/ca.crt" -CAkey "$work/ca.key" -CAcreateserial -out "$work/$1.crt" \
            -extfile <(printf 'keyUsage=digitalSignature\nextendedKeyUsage=clientAuth,serverAuth\n%s' "${4:+subjectAltName=$4}") \
            2>/dev/null
}

kubeconfig() {
    cat <<YAML
apiVersion: v1
kind: Config
current-context: cluster
contexts: [{name: cluster, context: {cluster: cluster, user: $1}}]
clusters: [{name: cluster, cluster: {server: "$api", certificate-authority: "$work/ca.crt"}}]
users: [{name: $1, user: {client-certificate: "$work/$1.crt", client-key: "$work/$1.key"}}]
YAML
}
