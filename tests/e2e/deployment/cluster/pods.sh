# Pods of the node whose images are on a registry, and how they got there, as the registry's own log has it. Sourced by inside.

readonly upstream=registry.test

# The registry is where its name says, with a certificate: it has no need of a configuration.
start_upstream() {
    certificate upstream "$upstream" '' "DNS:$upstream"
    cat >"$work/upstream.yml" <<YAML
version: 0.1
log: {level: warn, accesslog: {disabled: false}}
storage: {filesystem: {rootdirectory: "$work/upstream"}}
http: {addr: "$node_address:443", tls: {certificate: "$work/upstream.crt", key: "$work/upstream.key"}}
YAML
    start upstream docker-registry serve "$work/upstream.yml"
    await upstream 30 curl --silent --fail --cacert "$work/ca.crt" "https://$upstream/v2/"
    local number
    for number in 1 2 3 4 5 6 7 8 9; do
        SSL_CERT_FILE=$work/ca.crt skopeo --insecure-policy copy --quiet "docker-archive:$work/images/pause-$number.tar" \
            "docker://$upstream/app:$number"
    done
}

# run_pod NUMBER: a pod whose image is on the registry under this number.
run_pod() {
    mark_upstream
    kubectl run "app-$1" --image "$upstream/app:$1" --restart Never || return
    kubectl wait --for condition=Ready "pod/app-$1" --timeout 60s || { tell_pods; return 1; }
    since_mark
}

mark_upstream() {
    marked=$(wc -l <"$work/upstream.log")
}

# The requests that the registry has answered since it was marked.
since_mark() {
    awk -v marked="$marked" 'NR > marked && /"(GET|HEAD) /' "$work/upstream.log"
}

# asked_by CLIENT: this client has asked the registry for something.
asked_by() {
    since_mark | grep --fixed-strings "$1/"
}

blobs_since_mark() {
    since_mark | awk '$6 == "\"GET" && $7 ~ "/blobs/" { print $7 }' | sort
}

pulls_past() {
    run_pod "$1" || return
    asked_by containerd | grep /blobs/ || return
    ! asked_by cachalot
}

pulls_through() {
    run_pod "$1" || return
    ! asked_by containerd || return
    # A configuration and a layer.
    [[ $(blobs_since_mark | wc -l) == 2 && $(blobs_since_mark | uniq | wc -l) == 2 ]] && return
    kubectl logs --namespace "$space" --selector app.kubernetes.io/component=cache --tail -1 | grep /blobs/ | tail -n 12
    return 1
}

pulls_again() {
    kubectl delete pod "app-$1" --wait || return
    ctr --namespace k8s.io images rm --sync "$upstream/app:$1" || return
    run_pod "$1" || return
    ! asked_by containerd || return
    [[ $(blobs_since_mark | wc -l) == 0 ]]
}

