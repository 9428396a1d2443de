# Releases, as the API server and its controllers see them: every file of chart/values is taken by the API server, and objects of
# each shape come, change and go. Nothing runs: the one node is a record, and nobody gives it pods. Sourced by inside.

readonly chart=$root/helm all_values=$here/deployment/chart/values

releases() {
    check 'the API server has a node, and namespaces that admit restricted pods only' apply_fixtures
    local helm name
    for helm in helm3 helm4; do
        check "$helm: without the operators, the defaults install, and monitors are refused with what is missing" \
            needs_no_operators "$helm"
    done
    check 'the operators define their resources' apply_definitions
    for helm in helm3 helm4; do
        check "$helm: what an API server warns of, and pods that it does not admit, are found" finds_bad_objects "$helm"
        for name in $(value_files); do
            check "$helm: $name: the API server would take it, and warns of nothing" dry_run "$helm" "$name"
        done
        for name in defaults daemonset-hostpath deployment-autoscaled nodes-containerd monitoring exposed extras identity; do
            check "$helm: $name: installs, its pods are admitted, and nothing is left after it" comes_and_goes "$helm" "$name"
        done
        check "$helm: a release changes from one set of values to another, and back" changes "$helm"
    done
    check 'Helm 4 takes over what Helm 3 has installed' changes helm3 helm4
    kubectl delete node record >/dev/null
}

value_files() {
    basename --suffix .yaml "$all_values"/*.yaml
}

apply_fixtures() {
    kubectl apply --filename "$inside/fixtures.yaml" || return
    # Its kubelet would say that it is ready.
    kubectl patch node record --subresource status --type merge --patch "$(jq --null-input '{status: {
        conditions: [{type: "Ready", status: "True", reason: "Said", message: "said by the test"}],
        capacity: {cpu: "64", memory: "256Gi", pods: "110"}, allocatable: {cpu: "64", memory: "256Gi", pods: "110"}}}')"
    within 20 no_taints
}

no_taints() {
    [[ $(kubectl get node record --output jsonpath='{.spec.taints}') == '' ]]
}

# The definitions are those that the operators publish.
apply_definitions() {
    local files=()
    mapfile -t files <"$work/definitions"
    kubectl apply --server-side "${files[@]/#/--filename=}" || return
    kubectl wait --for condition=Established --all crd --timeout 60s
}

# A namespace of the release for these values: who needs more than restricted says so.
namespace_for() {
    case $1 in
        monitoring | extras) printf images ;;
        *) if grep --quiet '^# beyond restricted' "$all_values/$1.yaml"; then printf images-on-nodes; else printf images; fi ;;
    esac
}

# helm_install HELM NAME VALUES OPTION…
helm_install() {
    local helm=$1 name=$2 values=$3
    shift 3
    quietly "$helm" install "$name" "$chart" --namespace "$(namespace_for "$values")" --values "$all_values/$values.yaml" "$@"
}

# quietly COMMAND…: fails when the command does, and when it passes on a warning of the API server.
quietly() {
    "$@" 2>"$work/warnings" || { cat "$work/warnings"; return 1; }
    cat "$work/warnings"
    ! grep --quiet --extended-regexp 'warnings\.go|level=WARN|^W[0-9]{4} |Warning:' "$work/warnings"
}

dry_run() {
    helm_install "$1" images "$2" --dry-run=server
}

needs_no_operators() {
    helm_install "$1" images defaults || return
    "$1" uninstall images --namespace images || return
    ! helm_install "$1" images monitoring >"$work/refused" || return
    cat "$work/refused"
    grep --quiet 'ServiceMonitor' "$work/refused" && grep --quiet --ignore-case 'CRDs are installed first' "$work/refused"
}

finds_bad_objects() {
    local bad
    for bad in unknown-field not-restricted; do
        ! quietly "$1" install bad "$chart" --namespace images --values "$inside/bad/$bad.yaml" || return
        "$1" uninstall bad --namespace images || return
    done
    "$1" install bad "$chart" --namespace images --values "$inside/bad/not-restricted.yaml" || return
    ! pods_are_admitted bad 3 || return
    "$1" uninstall bad --namespace images
}

comes_and_goes() {
    local helm=$1 values=$2 name=$1-$2
    all_objects >"$work/before" || return
    helm_install "$helm" "$name" "$values" || return
    pods_are_admitted "$name" 30 || return
    # The clean-up of nodes waits for pods that run: that is for a node with a kubelet.
    "$helm" uninstall "$name" --namespace "$(namespace_for "$values")" --no-hooks || return
    within 60 nothing_is_left
}

# pods_are_admitted RELEASE SECONDS: its workloads have all the pods that they want.
pods_are_admitted() {
    within "$2" has_all_pods "$1" && return
    kubectl get statefulsets,deployments,daemonsets --all-namespaces
    kubectl get events --all-namespaces --field-selector type=Warning | tail -n 5
    return 1
}

has_all_pods() {
    kubectl get statefulsets,deployments,daemonsets --all-namespaces --selector "app.kubernetes.io/instance=$1" --output json |
        jq --exit-status '.items | length > 0 and all(.metadata.generation == .status.observedGeneration
            and (.spec.replicas // .status.desiredNumberScheduled) as $wanted | $wanted > 0
            and (.status.updatedReplicas // .status.replicas // .status.currentNumberScheduled) == $wanted)'
}

# The kinds of objects that a release may leave behind. Claims stay: the store outlives a release unless its values say otherwise.
kinds() {
    kubectl api-resources --verbs list --output name --cached |
        grep --extended-regexp --invert-match \
            '^(events|leases|endpointslices|endpoints|componentstatuses|persistentvolumeclaims)(\.|$)' |
        paste --serial --delimiters ,
}

all_objects() {
    kubectl get "$(kinds)" --all-namespaces --output json |
        jq --raw-output '.items[] | [.apiVersion, .kind, .metadata.namespace, .metadata.name] | join(" ")' | sort
}

nothing_is_left() {
    all_objects >"$work/after" || return
    diff "$work/before" "$work/after"
}

# changes HELM [NEXT-HELM]: each step changes objects that are there.
changes() {
    local helm=$1 next=${2:-$1} values
    helm_install "$helm" changing defaults || return
    for values in upstreams tuned network-policy nodes-containerd monitoring defaults; do
        quietly "$next" upgrade changing "$chart" --namespace images --values "$all_values/$values.yaml" || return
        pods_are_admitted changing 30 || return
    done
    "$next" rollback changing 2 --namespace images || return
    "$next" uninstall changing --namespace images --no-hooks
}
