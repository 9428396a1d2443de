# The chart in helm/: rendered by Helm 3 and Helm 4 with every file of chart/values, for four versions of Kubernetes, and held to
# the types of the API servers, to the house rules, and to what Cachalot itself takes. Sourced by deploy.
#
# What is checked is in the Python beside chart/values, a file for each idea; here is the order, and what needs processes.

chart() {
    local helm file files=("$here"/deployment/chart/values/*.yaml)
    local copies=$work/charts
    mkdir -p "$copies/helm3" "$copies/helm4"
    chart_tools
    check 'what the chart carries of grafana/ is what is there' chart_copies_are_equal
    check 'the README of the chart says what its values say' chart_readme_is_up_to_date
    for helm in helm3 helm4; do
        check "$helm: lints the chart strictly with each of ${#files[@]} value files" chart_lints "$helm"
        for file in "${files[@]}"; do
            check "$helm: $(basename "$file" .yaml): what it renders is valid from Kubernetes 1.27 to 1.37" \
                chart_python schemas.py "$helm" "$file"
            check "$helm: $(basename "$file" .yaml): pods are restricted, probed and bounded, and names lead somewhere" \
                chart_python policy.py "$helm" "$file"
            check "$helm: $(basename "$file" .yaml): Cachalot takes the configuration" chart_python config.py "$helm" "$file"
        done
        check "$helm: objects that no API server takes are found" chart_finds_broken_objects "$helm"
        check "$helm: values that cannot work are refused with what to set" chart_python refusals.py "$helm"
        check "$helm: no upgrade changes what cannot be changed" chart_python upgrade.py "$helm" "$copies/$helm"
        check "$helm: what changes in a running process restarts no pod, and the rest does" chart_python restarts.py "$helm"
        check "$helm: alerts are those of grafana/, but for what the values say" chart_python rules.py "$helm"
        check "$helm: the notes say what holds, in snippets that can be read" chart_python notes.py "$helm" "$copies/$helm"
        check "$helm: what it renders is what was read and found good" chart_python golden.py "$helm"
        check "$helm: the chart knows what the product knows" chart_python product.py "$helm"
        check "$helm: the package renders as the directory does" chart_package_is_whole "$helm"
        check "$helm: the chart can be a part of another chart" chart_is_a_part "$helm"
    done
    check 'every value does something' chart_python effects.py helm4
    check 'values that were made apart go together, or are refused in words' chart_python combinations.py helm4
    # Helm 3 takes the version of a distribution from a cluster only, not from its command line.
    check 'in a cluster of k0s the agent is told so, and sees the configuration of its containerd' chart_knows_k0s
    check 'where strangers are asked who they are, and served all the same, the agent writes' chart_is_content_with_401
    chart_serves
    chart_configures_a_node
    chart_serves_whom_it_knows
}

# Both Helms, the generator of the README, and the types of Kubernetes and of the operators.
chart_tools() {
    install_missing openssl:openssl node:nodejs npm:npm
    install_tool helm3 helm.sh/helm/v3@v3.22.0 cmd/helm
    install_tool helm4 helm.sh/helm/v4@v4.3.1 cmd/helm
    install_tool helm-docs github.com/norwoodj/helm-docs@v1.14.2 cmd/helm-docs
    install_python kubernetes-validate==1.37.0
    chart_types=$python
    MODELS=$tools/kubernetes-models-1
    if [[ ! -e $MODELS/complete ]]; then
        mkdir -p "$MODELS"
        npm install --silent --no-audit --no-fund --no-save --prefix "$MODELS" @kubernetes-models/prometheus-operator@6.0.0 \
            @kubernetes-models/cert-manager@6.0.0 @kubernetes-models/gateway-api@2.0.0 typescript@5.9.3
        touch "$MODELS/complete"
    fi
    CERTIFICATES=$work/certificates
    mkdir -p "$CERTIFICATES"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority \
        -keyout "$CERTIFICATES/ca.key" -out "$CERTIFICATES/ca.crt" 2>/dev/null
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=stand-in \
        -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
        -CA "$CERTIFICATES/ca.crt" -CAkey "$CERTIFICATES/ca.key" \
        -keyout "$CERTIFICATES/tls.key" -out "$CERTIFICATES/tls.crt" 2>/dev/null
    # The token that config.py puts where the user has those of jobs and operators.
    chart_token=0123456789abcdef0123456789abcdef
    export MODELS CERTIFICATES CACHALOT
}

# chart_python FILE ARGUMENT…: one of the checks beside this file.
chart_python() {
    local file=$1
    shift
    PYTHONDONTWRITEBYTECODE=1 "$chart_types" "$here/deployment/chart/$file" "$@"
}

chart_copies_are_equal() {
    local kind
    for kind in dashboards rules; do
        diff <(chart_sums "$root/grafana/$kind") <(chart_sums "$root/helm/files/$kind") || return
    done
    [[ -n $(chart_sums "$root/helm/files/rules") && -n $(chart_sums "$root/helm/files/dashboards") ]]
}

# chart_sums DIRECTORY: the files in it, not those of directories below, each with its digest.
chart_sums() {
    (cd "$1" && find . -maxdepth 1 -type f -exec sha256sum {} + | sort)
}

chart_readme_is_up_to_date() {
    local copy=$work/readme
    mkdir -p "$copy"
    cp "$root"/helm/{Chart.yaml,values.yaml,README.md.gotmpl} "$copy"
    helm-docs --chart-search-root "$copy" --sort-values-order file || return
    diff "$root/helm/README.md" "$copy/README.md" || return
    # A value without a comment has an empty last column.
    ! grep '|  |$' "$copy/README.md"
}

chart_lints() {
    local file
    for file in "$here"/deployment/chart/values/*.yaml; do
        "$1" lint --strict --kube-version 1.37.0 --values "$file" "$root/helm" || return
    done
}

chart_finds_broken_objects() {
    local name
    ! chart_python schemas.py "$1" "$here/deployment/chart/broken.yaml" >"$work/broken" || return
    cat "$work/broken"
    for name in 'Service field-that' 'Unknown unknown-kind' "\"pathh\"' does not exist" 'PodMonitor custom-wrong-type'; do
        grep --quiet --fixed-strings "$name" "$work/broken" || return
    done
}

chart_package_is_whole() {
    local rendered=("$1" template images --kube-version 1.37.0 --values "$here/deployment/chart/values/monitoring.yaml")
    rm -rf "$work/package"
    "$1" package "$root/helm" --destination "$work/package" || return
    cmp <("${rendered[@]}" "$root/helm") <("${rendered[@]}" "$work"/package/*.tgz)
}

chart_is_a_part() {
    local whole=$work/whole-$1
    mkdir -p "$whole/charts"
    cp -r "$root/helm" "$whole/charts/cachalot"
    printf 'apiVersion: v2\nname: whole\nversion: 1.0.0\n' >"$whole/Chart.yaml"
    printf 'global: {region: north}\ncachalot: {workload: {replicas: 7}}\n' >"$whole/values.yaml"
    "$1" template whole "$whole" --kube-version 1.37.0 >"$whole/rendered" || return
    grep --quiet 'replicas: 7' "$whole/rendered"
}

chart_knows_k0s() {
    helm4 template images "$root/helm" --kube-version v1.33.1+k0s.0 --set nodeConfig.enabled=true,service.type=NodePort \
        --set service.nodePort=30500 --show-only templates/nodeconfig-daemonset.yaml >"$work/k0s" || return
    grep --quiet -- --flavour=k0s "$work/k0s" && grep --quiet 'mountPath: /host/etc/k0s' "$work/k0s"
}

# With a URL at which clients get tokens, /v2/ says 401 to everybody: that is no reason only where strangers are served.
chart_is_content_with_401() {
    local options=(--kube-version 1.37.0 --set nodeConfig.enabled=true --set service.type=NodePort --set service.nodePort=30500
        --set config.server.public_url=https://a.example --set identity.tokens.existingSecret=a)
    helm4 template images "$root/helm" "${options[@]}" --set identity.anonymous=true >"$work/content" || return
    (($(grep --count -- '--allow-unauthorized$' "$work/content") == 2)) || return
    helm4 template images "$root/helm" "${options[@]}" --set nodeConfig.token.existingSecret=b >"$work/strict" || return
    ! grep -- --allow-unauthorized "$work/strict"
}

# The command line of the pod runs here, and answers where the probes and `helm test` ask.
chart_serves() {
    local registry_port admin_port arguments tests values=$here/deployment/chart/values/defaults.yaml
    registry_port=$(free_port) admin_port=$(free_port)
    mkdir -p "$work/pod"
    helm3 template images "$root/helm" --kube-version 1.37.0 --values "$values" --show-only templates/configmap.yaml |
        "$chart_types" -c 'import sys, yaml; print(yaml.safe_load(sys.stdin)["data"]["cachalot.toml"])' >"$work/pod/cachalot.toml"
    mapfile -t arguments < <(chart_python command.py helm3 "$values" cache cachalot "/etc/cachalot=>$work/pod" \
        "0.0.0.0:5000=>127.0.0.1:$registry_port" "0.0.0.0:5001=>127.0.0.1:$admin_port" "/var/cache/cachalot=>$work/pod/store")
    start pod "$CACHALOT" "${arguments[@]}"
    check 'the command line of the pod serves' await pod 30 answers "http://127.0.0.1:$registry_port/v2/"
    check 'startup and readiness are told' answers "http://127.0.0.1:$admin_port/readyz"
    check 'liveness is told' answers "http://127.0.0.1:$admin_port/livez"
    check 'metrics are there to be scraped' answers "http://127.0.0.1:$admin_port/metrics"
    mapfile -t tests < <(chart_python command.py helm3 "$values" test healthcheck \
        "images-cachalot-headless.registries.svc:5001=>127.0.0.1:$admin_port")
    check 'what helm test asks the pods is answered' "$CACHALOT" "${tests[@]}"
    mkdir -p "$work/pod/node/certs.d"
    mapfile -t tests < <(chart_python command.py helm3 "$values" test node-config "=/node=>=$work/pod/node" \
        "images-cachalot.registries.svc:5000=>127.0.0.1:$registry_port")
    check 'what helm test asks the Service is answered' "$CACHALOT" "${tests[@]}"
    mapfile -t tests < <(chart_python command.py helm3 "$values" test check-config "/etc/cachalot=>$work/pod")
    check 'what helm test checks of the configuration is right' "$CACHALOT" "${tests[@]}"
    chart_registry=127.0.0.1:$registry_port
}

# With TLS, and with identities: what the chart mounts and writes lets in whom it should.
chart_serves_whom_it_knows() {
    local port admin arguments values=$here/deployment/chart/values/tls.yaml
    chart_lays_out secure "$values"
    check 'with TLS the command line of the pod serves' await secure 30 chart_asks 200
    mapfile -t arguments < <(chart_python command.py helm3 "$values" test node-config "=/node=>=$work/secure/node" \
        "images-cachalot.registries.svc:5000=>localhost:$port" "/credentials=>$CERTIFICATES")
    mkdir -p "$work/secure/node/certs.d"
    check 'with TLS what helm test asks the Service is answered' "$CACHALOT" "${arguments[@]}"
    check 'with TLS nothing is served without' chart_asks_plainly
    check 'with TLS the metrics tell of the certificates' chart_tells_of_certificates
    check 'with TLS the pod stops when asked to' stop secure

    chart_lays_out known "$here/deployment/chart/values/identity.yaml"
    check 'with identities who shows nothing is sent away' await known 30 chart_asks 401
    check 'with identities who shows a token is let in' chart_asks 200 --header "Authorization: Bearer $chart_token"
    check 'with identities who shows a wrong one is not' chart_asks 401 --header "Authorization: Bearer x$chart_token"
    check 'with identities the metrics are for operators' \
        test "$(curl --silent --output /dev/null --write-out '%{http_code}' "http://$admin/metrics")" = 401
    check 'with identities probes are answered all the same' answers "http://$admin/readyz"
    check 'with identities operators see the metrics' \
        curl --silent --fail --output /dev/null --header "Authorization: Bearer $chart_token" "http://$admin/metrics"
    check 'with identities the pod stops when asked to' stop known
    chart_shows
}

# Nodes and `helm test` show what their Secrets hold; the names of the files are those of the stand-ins.
chart_shows() {
    local port admin arguments values=$here/deployment/chart/values/nodes-known.yaml shown=$work/shown
    chart_lays_out shown "$values"
    mkdir -p "$shown" "$work/shown-test/certs.d" "$work/shown-node/etc/containerd/certs.d" "$work/shown-node/var/lib/cachalot-node"
    cp "$CERTIFICATES/ca.crt" "$CERTIFICATES/tls.crt" "$CERTIFICATES/tls.key" "$shown"
    printf '%s\n' "$chart_token" >"$shown/token"
    check 'a cache for known nodes serves' await shown 30 answers "http://$admin/readyz"
    mapfile -t arguments < <(chart_python command.py helm3 "$values" test node-config "=/node=>=$work/shown-test" \
        "images-cachalot.registries.svc:5000=>localhost:$port" "/credentials=>$shown")
    check 'helm test shows what the nodes show, and is answered' "$CACHALOT" "${arguments[@]}"
    check 'without the certificate it is not' chart_is_refused --install-client "${arguments[@]}"
    check 'without the token it is not' chart_is_refused --token-file "${arguments[@]}"
    printf 'version = 3\n' >"$work/shown-node/etc/containerd/config.toml"
    printf 'ID=debian\n' >"$work/shown-node/etc/os-release"
    mapfile -t arguments < <(chart_python command.py helm3 "$values" node-config node-config "=/host=>=$work/shown-node" \
        "10.96.7.7:5000=>localhost:$port" "/credentials=>$shown")
    local hosts=$work/shown-node/etc/containerd/certs.d
    start shown-agent "$CACHALOT" "${arguments[@]}"
    check 'the agent configures a node that is known' await shown-agent 30 grep --quiet "$chart_token" "$hosts/docker.io/hosts.toml"
    check 'key and token are for root alone' \
        test "$(stat --format %a "$hosts/docker.io/hosts.toml" "$hosts/_cachalot/client.pem" | sort -u)" = 600
    check 'the agent ends when asked to' stop shown-agent
    mapfile -t arguments < <(chart_python command.py helm3 "$values" node-cleanup remove "=/host=>=$work/shown-node")
    check 'the clean-up leaves neither' chart_leaves_nothing "$hosts" "${arguments[@]}"
    check 'the cache for known nodes stops when asked to' stop shown
}

# chart_is_refused OPTION ARGUMENT…: the cache does not answer who leaves out the arguments that begin with OPTION.
chart_is_refused() {
    local option=$1 argument code=0 kept=()
    shift
    for argument in "$@"; do
        [[ $argument == "$option"* ]] || kept+=("$argument")
    done
    "$CACHALOT" "${kept[@]}" || code=$?
    ((code == 6))
}

# chart_leaves_nothing DIRECTORY ARGUMENT…
chart_leaves_nothing() {
    "$CACHALOT" "${@:2}" && [[ -z $(ls -A "$1") ]]
}

# chart_lays_out NAME VALUES: lays out what the pod mounts, and starts it; its ports are then in port and admin.
chart_lays_out() {
    local name=$1 arguments
    port=$(free_port) admin=127.0.0.1:$(free_port)
    mkdir -p "$work/$name"
    chart_python config.py helm3 "$2" "$work/$name" >"$work/$name/checked" || return
    sed -i "s|0.0.0.0:5000|127.0.0.1:$port|" "$work/$name/cachalot.toml"
    mapfile -t arguments < <(chart_python command.py helm3 "$2" cache cachalot "/etc/cachalot=>$work/$name" \
        "0.0.0.0:5001=>$admin" "/var/cache/cachalot=>$work/$name/store")
    start "$name" "$CACHALOT" "${arguments[@]}"
}

# chart_asks STATUS [OPTION…]: the ping is answered so.
chart_asks() {
    local status=$1
    shift
    [[ $(curl --silent --cacert "$CERTIFICATES/ca.crt" --output /dev/null --write-out '%{http_code}' --max-time 10 "$@" \
        "https://localhost:$port/v2/") == "$status" ]]
}

chart_asks_plainly() {
    [[ $(curl --silent --output /dev/null --write-out '%{http_code}' "http://localhost:$port/v2/") == 400 ]]
}

chart_tells_of_certificates() {
    curl --silent "http://$admin/metrics" >"$work/secure/metrics"
    grep 'cachalot_tls_certificate_expiry_timestamp_seconds{use="server"} [1-9]' "$work/secure/metrics" &&
        grep 'cachalot_tls_certificate_expiry_timestamp_seconds{use="client_ca"} [1-9]' "$work/secure/metrics"
}

# The command line of the agent configures a node that is a directory here; that of the clean-up takes it back.
chart_configures_a_node() {
    local arguments node=$work/node values=$here/deployment/chart/values/nodes-containerd.yaml
    local hosts=$node/etc/containerd/certs.d/docker.io/hosts.toml
    mkdir -p "$node/etc/containerd/certs.d/quay.io" "$node/var/lib/cachalot-node"
    printf 'version = 3\n' >"$node/etc/containerd/config.toml"
    printf 'ID=debian\n' >"$node/etc/os-release"
    printf 'server = "https://quay.io"\n' >"$node/etc/containerd/certs.d/quay.io/hosts.toml"
    cp -r "$node" "$work/node-before"
    mapfile -t arguments < <(chart_python command.py helm3 "$values" node-config node-config "=/host=>=$node" \
        "http://\$(NODE_IP):30500=>http://$chart_registry")
    start agent "$CACHALOT" "${arguments[@]}"
    check 'the command line of the agent configures a node' await agent 30 test -e "$hosts"
    check 'the node is led to the cache' grep --quiet --fixed-strings "$chart_registry" "$hosts"
    check 'the agent ends when asked to, and leaves the node configured' chart_agent_ends "$hosts"
    mapfile -t arguments < <(chart_python command.py helm3 "$values" node-cleanup remove "=/host=>=$node")
    check 'the command line of the clean-up runs' "$CACHALOT" "${arguments[@]}"
    check 'nothing of the agent is left on the node' diff --recursive "$work/node-before/etc" "$node/etc"
    check 'the pod stops when asked to' stop pod
}

chart_agent_ends() {
    stop agent && test -e "$1"
}
