# The guide for an air gap: what was pulled on one side is copied as a directory and served on the other, where no registry is.

airgap() {
    install_missing docker-registry:docker-registry skopeo:skopeo
    start_docker_registry airgap_upstream
    python3 "$here/images.py" "$work/airgap-layout" many 2
    skopeo copy --quiet --insecure-policy --all --dest-tls-verify=false "oci:$work/airgap-layout:1" "docker://$registry/app:1"
    start_cachalot airgap-store
    check 'what the other side needs is pulled through Cachalot' airgap_pulls
    check 'Cachalot stops when asked to' stop cachalot 60
    stop airgap_upstream || true
    cp -r "$work/airgap-store" "$work/carried"
    start_cachalot carried 'offline = true'
    check 'the other side pulls it from the copy of the store, byte for byte' airgap_pulls
    check 'what was not brought along is refused at once, with the reason' \
        refuses_with 504 'is configured as offline, and this is not cached' "http://$cache/v2/registry.test/other/manifests/1"
    check 'no registry was asked' asked_nobody
    check 'Cachalot stops when asked to' stop cachalot 60
}

airgap_pulls() {
    rm -rf "$work/airgap-pulled"
    skopeo copy --quiet --insecure-policy --all --preserve-digests --src-tls-verify=false \
        "docker://$cache/registry.test/app:1" "oci:$work/airgap-pulled:1" || return
    diff --recursive "$work/airgap-layout/blobs" "$work/airgap-pulled/blobs"
}

# refuses_with STATUS TEXT URL
refuses_with() {
    local status
    status=$(curl --silent --max-time 10 --output "$work/refusal" --write-out '%{http_code}' "$3")
    cat "$work/refusal"
    [[ $status == "$1" ]] && grep --quiet --fixed-strings "$2" "$work/refusal"
}

asked_nobody() {
    curl --silent "http://127.0.0.1:$admin_port/metrics" >"$work/airgap-metrics"
    grep '^cachalot_upstream_\(requests\|errors\)_total{.*registry.test' "$work/airgap-metrics" | tee "$work/asked"
    [[ -s $work/asked ]] && ! grep --quiet --invert-match ' 0$' "$work/asked"
}
