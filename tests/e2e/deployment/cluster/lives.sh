# The life of a release on a node whose pods run: the node pulls through it, past it while it is away, and is as it was when it
# is gone. Sourced by inside.

# The release and its objects have one name, and the agent has a namespace of its own; space is that of the release.
readonly cache=cachalot agents=cachalot-nodes secure_address=10.96.0.50

lives() {
    start_upstream
    check 'the node has the images of Cachalot and of its pods' import_images
    check 'somebody else has configured containerd for one registry' configure_foreign
    snapshot_certs before
    check 'a pod is pulled from the registry before there is a cache' pulls_past 1
    life_of_a_statefulset
    life_of_a_daemonset
    life_of_a_secure_release
    check 'containerd has run all the time' kill -0 "${pids[containerd]}"
}

# One cache for the cluster, reached at a port of each node; a hook cleans the nodes.
life_of_a_statefulset() {
    space=images
    check 'a volume and an authority are there' provide_for_release
    check 'helm 4 install: the cache and the agent of the node are ready' install_release helm4 release
    check 'helm test passes' helm4 test "$cache" --namespace "$space" --timeout 2m
    check 'the agent has told containerd of the cache, and left alone what somebody else wrote' has_configured
    check 'a pod is pulled through the cache, and each blob left the registry once' pulls_through 2
    check 'pulled again, nothing is fetched from the registry' pulls_again 2
    check 'the cache is away, and a pod is pulled all the same' pulls_without_cache 3
    check 'the agent withdraws what it wrote when the cache stays away' within 120 is_withdrawn
    check 'the cache is back, and the agent tells containerd again' returns
    check 'a pod is pulled through it again' pulls_through 4
    check 'helm upgrade: a value that a running cache takes does not restart it' upgrade_alive
    check 'helm upgrade: another value does, and the cache is ready again' upgrade_restarts
    check 'what it had cached is there after that' pulls_again 2
    check 'no pod of the release panicked or was started again' runs_in_peace
    check 'helm uninstall: nothing of it is left but its claim' uninstall_release helm4 "persistentvolumeclaim/store-$cache-0"
    check "containerd's files are byte for byte as they were" is_as_before
    check 'a pod is pulled from the registry' pulls_past 5
    kubectl delete persistentvolumeclaim "store-$cache-0" --namespace "$space" >/dev/null
}

# A cache on each node, on the node's disk, at a port of the pod; agents clean up when they end.
life_of_a_daemonset() {
    space=images-on-nodes
    check 'a directory and an authority are there' provide_for_release
    check 'helm 3 install: a cache on the node and its agent are ready' install_release helm3 release-on-nodes
    check 'helm test passes' helm3 test "$cache" --namespace "$space" --timeout 2m
    check 'the agent has told containerd of the cache' within 60 test -e "$certs/$upstream/hosts.toml"
    check 'a pod is pulled through the cache of its node, and each blob left the registry once' pulls_through 6
    check 'no pod of the release panicked or was started again' runs_in_peace
    check 'helm uninstall: nothing of it is left' uninstall_release helm3 ''
    check "containerd's files are byte for byte as they were" is_as_before
    check 'a pod is pulled from the registry' pulls_past 7
}

# TLS on the address of the Service, whose authority the agent puts on the node; the API server vouches for service accounts, of which
# the agent's is one.
life_of_a_secure_release() {
    space=images
    check 'a certificate is there' provide_certificate create
    check 'the agent can know its authority' kubectl create configmap authorities --namespace "$agents" --from-file "ca.crt=$work/ca.crt"
    check 'helm 4 install: the cache with TLS and the agent of the node are ready' \
        install_release helm4 release-secure
    check 'helm test passes over TLS, by a token of the agent' helm4 test "$cache" --namespace "$space" --timeout 2m
    check 'the agent has told containerd of the cache, whom to believe, and what to show' is_told_of_tls
    check 'a pod is pulled through the cache over TLS, and each blob left the registry once' pulls_through 8
    check 'who shows nothing gets nothing' secure_answers 401 registry.test/app
    check 'a service account does, by a token that the API server has signed' \
        secure_answers 404 registry.test/else --header "Authorization: Bearer $(token_for cache.test)"
    check 'none that is for somebody else' \
        secure_answers 401 registry.test/app --header "Authorization: Bearer $(token_for other.test)"
    check 'a renewed certificate is shown by the same pod' is_renewed
    check 'no pod of the release panicked or was started again' runs_in_peace
    check 'helm uninstall: nothing of it is left' uninstall_release helm4 ''
    check "containerd's files are byte for byte as they were" is_as_before
    check 'a pod is pulled from the registry' pulls_past 9
}

# provide_certificate create|apply
provide_certificate() {
    certificate cache "$cache" '' "DNS:$cache.$space.svc,IP:$secure_address" || return
    kubectl create secret tls cache-tls --namespace "$space" --cert "$work/cache.crt" --key "$work/cache.key" --dry-run=client \
        --output yaml | kubectl "$1" --filename -
}

is_told_of_tls() {
    local file=$certs/$upstream/hosts.toml
    within 60 test -e "$file" || return
    cat "$file"
    grep --quiet --fixed-strings "https://$secure_address:5000" "$file" && grep --quiet 'Authorization = "Bearer ' "$file" &&
        grep --quiet --fixed-strings _cachalot/ca.pem "$file" && [[ $(stat --format %a "$file") == 600 ]]
}

# secure_answers STATUS REPOSITORY [OPTION…]: to who asks for its tags.
secure_answers() {
    local status=$1 repository=$2 said
    shift 2
    said=$(curl --silent --cacert "$work/ca.crt" --max-time 20 --write-out '%{http_code}' "$@" \
        "https://$secure_address:5000/v2/$repository/tags/list")
    printf '%s\n' "$said"
    [[ ${said: -3} == "$status" ]]
}

token_for() {
    kubectl create token default --namespace "$space" --audience "$1"
}

is_renewed() {
    local pod
    pod=$(pod_field .metadata.uid)
    provide_certificate apply || return
    within 150 shows_certificate && [[ $(pod_field .metadata.uid) == "$pod" ]]
}

shows_certificate() {
    [[ $(openssl s_client -connect "$secure_address:5000" </dev/null 2>/dev/null | openssl x509 -noout -fingerprint) == \
        $(openssl x509 -noout -fingerprint -in "$work/cache.crt") ]]
}

# What the values of both take for granted: a volume, a directory of the pod's user, and a ConfigMap.
provide_for_release() {
    kubectl apply --filename "$inside/storage.yaml" || return
    install -d /var/lib/volume || return
    install -d -o 65532 -g 65532 /var/lib/cachalot || return
    kubectl create configmap authorities --namespace "$space" --from-file "ca.crt=$work/ca.crt"
}

import_images() {
    ctr --namespace k8s.io images import "$work/images/cachalot.tar" || return
    ctr --namespace k8s.io images import "$work/images/pause-0.tar"
}

configure_foreign() {
    mkdir -p "$certs/quay.io"
    printf '# written by hand\nserver = "https://quay.io"\n' >"$certs/quay.io/hosts.toml"
}

# Names, kinds, rights, owners and bytes.
snapshot_certs() {
    (cd "$certs" && find . -printf '%p %y %m %u:%g\n' | sort && find . -type f -exec sha256sum {} + | sort) >"$work/certs.$1"
}

is_as_before() {
    snapshot_certs after
    diff "$work/certs.before" "$work/certs.after"
}

# install_release HELM VALUES [OPTION…]
install_release() {
    local helm=$1 values=$2
    shift 2
    quietly "$helm" install "$cache" "$chart" --namespace "$space" --values "$inside/$values.yaml" --wait --timeout 3m "$@" && return
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
    snapshot_certs present
    diff <(grep quay.io "$work/certs.before") <(grep quay.io "$work/certs.present")
}

is_withdrawn() {
    [[ ! -e $certs/$upstream/hosts.toml && ! -e $certs/docker.io/hosts.toml ]]
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
    within 60 test -e "$certs/$upstream/hosts.toml"
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

# uninstall_release HELM LEFT: what is left is what the values say.
uninstall_release() {
    quietly "$1" uninstall "$cache" --namespace "$space" --wait --timeout 3m || { tell_pods; return 1; }
    within 60 only_is_left "$2"
}

only_is_left() {
    kubectl get "$(kinds),persistentvolumeclaims" --all-namespaces --selector "app.kubernetes.io/instance=$cache" --output name \
        >"$work/left" || return
    cat "$work/left"
    [[ $(<"$work/left") == "$1" ]]
}
