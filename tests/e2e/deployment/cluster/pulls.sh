# A release on a node whose pods run: the node pulls through it, past it while it is away, and is as it was when it is gone.
# Sourced by inside.

readonly upstream=registry.test
# The name of the release and of its objects, its namespace, and that of the agent.
readonly cache=cachalot space=images agents=cachalot-nodes

pulls() {
    start_upstream
    check 'the node has the images of Cachalot and of its pods' import_images
    check 'somebody else has configured containerd for one registry' configure_foreign
    snapshot_certs before
    check 'a pod is pulled from the registry before there is a cache' pulls_past 1
    check 'helm install: the cache and the agent of the node are ready' install_release
    check 'helm test passes' helm4 test "$cache" --namespace "$space" --timeout 2m
    check 'the agent has told containerd of the cache, and left alone what somebody else wrote' has_configured
    check 'a pod is pulled through the cache, and each blob left the registry once' pulls_through 2
    check 'pulled again, nothing is fetched from the registry' pulls_again 2
    check 'the cache is away, and a pod is pulled all the same' pulls_without_cache 3
    check 'the agent withdraws what it wrote when the cache stays away' within 60 is_withdrawn
    check 'the cache is back, and the agent tells containerd again' returns
    check 'a pod is pulled through it again' pulls_through 4
    check 'helm upgrade: a value that a running cache takes does not restart it' upgrade_alive
    check 'helm upgrade: another value does, and the cache is ready again' upgrade_restarts
    check 'what it had cached is there after that' pulls_again 2
    check 'no pod of the release panicked or was started again' runs_in_peace
    check 'helm uninstall: nothing of it is left but its claim' uninstall_release
    check "containerd's files are byte for byte as they were" is_as_before
    check 'a pod is pulled from the registry' pulls_past 5
    check 'containerd has run all the time' kill -0 "${pids[containerd]}"
}

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
    for number in 1 2 3 4 5; do
        SSL_CERT_FILE=$work/ca.crt skopeo --insecure-policy copy --quiet "docker-archive:$work/images/pause-$number.tar" \
            "docker://$upstream/app:$number"
    done
}

import_images() {
    ctr --namespace k8s.io images import "$work/images/cachalot.tar" || return
    ctr --namespace k8s.io images import "$work/images/pause-0.tar"
}

configure_foreign() {
    mkdir -p "$certs/foreign.test"
    printf 'server = "https://foreign.test"\n# ours since 2019\n' >"$certs/foreign.test/hosts.toml"
}

# Names, kinds, rights, owners and bytes.
snapshot_certs() {
    (cd "$certs" && find . -printf '%p %y %m %u:%g\n' | sort && find . -type f -exec sha256sum {} + | sort) >"$work/certs.$1"
}

is_as_before() {
    snapshot_certs after
    diff "$work/certs.before" "$work/certs.after"
}

install_release() {
    kubectl apply --filename "$inside/storage.yaml" || return
    kubectl create configmap authorities --namespace "$space" --from-file "ca.crt=$work/ca.crt" || return
    install -d /var/lib/volume
    quietly helm4 install "$cache" "$chart" --namespace "$space" --values "$inside/release.yaml" --wait --timeout 3m && return
    tell_pods
    return 1
}

tell_pods() {
    kubectl get pods --all-namespaces --output wide
    local namespace
    for namespace in default "$space" "$agents"; do
        kubectl get events --namespace "$namespace" --sort-by .lastTimestamp |
            grep "pod/\($cache-0\|$cache-\(node\|test\)\|app\)" | tail -n 3
    done
}

has_configured() {
    within 60 test -e "$certs/$upstream/hosts.toml" || return
    cat "$certs/$upstream/hosts.toml"
    kubectl exec --namespace "$agents" "daemonset/$cache-node-config" -- /usr/bin/cachalot node-config status \
        --endpoint "http://$node_address:30500" --host-root /host || return
    [[ -e $certs/docker.io/hosts.toml ]] || return
    diff <(grep foreign.test "$work/certs.before") <(snapshot_certs present; grep foreign.test "$work/certs.present")
}

is_withdrawn() {
    [[ ! -e $certs/$upstream/hosts.toml && ! -e $certs/docker.io/hosts.toml ]]
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
    tail -n "+$((marked + 1))" "$work/upstream.log" | grep '"GET \|"HEAD '
}

blobs_since_mark() {
    since_mark | grep --only-matching '"GET /v2/app/blobs/sha256:[0-9a-f]*' | sort
}

pulls_past() {
    run_pod "$1" || return
    since_mark | grep --quiet '"GET .*/blobs/.*containerd/' || return
    ! since_mark | grep --quiet 'cachalot/'
}

pulls_through() {
    run_pod "$1" || return
    ! since_mark | grep --quiet 'containerd/' || return
    # A configuration and a layer.
    [[ $(blobs_since_mark | wc -l) == 2 && $(blobs_since_mark | uniq | wc -l) == 2 ]]
}

pulls_again() {
    kubectl delete pod "app-$1" --wait || return
    ctr --namespace k8s.io images rm --sync "$upstream/app:$1" || return
    run_pod "$1" || return
    ! since_mark | grep --quiet 'containerd/' || return
    [[ $(blobs_since_mark | wc -l) == 0 ]]
}

pulls_without_cache() {
    kubectl scale statefulset "$cache" --namespace "$space" --replicas 0 || return
    kubectl wait --for delete "pod/$cache-0" --namespace "$space" --timeout 60s || return
    pulls_past "$1" || return
    # It was the runtime that found another way.
    ! is_withdrawn
}

returns() {
    kubectl scale statefulset "$cache" --namespace "$space" --replicas 1 || return
    kubectl rollout status "statefulset/$cache" --namespace "$space" --timeout 60s || return
    within 30 test -e "$certs/$upstream/hosts.toml"
}

# upgrade SETTING…
upgrade() {
    local settings=("${@/#/--set=}")
    quietly helm4 upgrade "$cache" "$chart" --namespace "$space" --reuse-values "${settings[@]}" --wait --timeout 2m
}

pod_field() {
    kubectl get pod "$cache-0" --namespace "$space" --output "jsonpath={$1}"
}

upgrade_alive() {
    local pod
    pod=$(pod_field .metadata.uid)
    reloaded >"$work/reloaded" || return
    upgrade config.freshness.tag_ttl=2min || return
    within 100 reloaded_since || return
    [[ $(pod_field .metadata.uid) == "$pod" && $(pod_field '.status.containerStatuses[0].restartCount') == 0 ]]
}

reloaded() {
    curl --silent --fail --max-time 5 "http://$(pod_field .status.podIP):5001/metrics" |
        grep '^cachalot_config_last_reload_success_timestamp_seconds '
}

reloaded_since() {
    reloaded >"$work/reloaded.after" && ! cmp --silent "$work/reloaded" "$work/reloaded.after"
}

upgrade_restarts() {
    local pod
    pod=$(pod_field .metadata.uid)
    upgrade podAnnotations.round=second || return
    kubectl rollout status "statefulset/$cache" --namespace "$space" --timeout 60s || return
    [[ $(pod_field .metadata.uid) != "$pod" ]]
}

runs_in_peace() {
    local namespace
    for namespace in "$space" "$agents"; do
        ! kubectl logs --namespace "$namespace" --selector "app.kubernetes.io/instance=$cache" --tail -1 | grep panicked || return
    done
    kubectl get pods --all-namespaces --selector "app.kubernetes.io/instance=$cache" --output json |
        jq --exit-status '.items | length == 2 and all(.status.containerStatuses[].restartCount == 0)'
}

uninstall_release() {
    quietly helm4 uninstall "$cache" --namespace "$space" --timeout 3m || { tell_pods; return 1; }
    within 60 only_claim_is_left
}

only_claim_is_left() {
    kubectl get "$(kinds),persistentvolumeclaims" --all-namespaces --selector "app.kubernetes.io/instance=$cache" --output name >"$work/left"
    [[ $(<"$work/left") == "persistentvolumeclaim/store-$cache-0" ]]
}
