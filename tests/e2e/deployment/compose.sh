# The compose project, as far as it can be seen without the images of Prometheus and Grafana: read by a compose implementation, its
# configurations by the programs that they are for, and everything that it mounts looked for.

compose() {
    install_missing promtool:prometheus
    install_python podman-compose==1.6.0 yamllint==1.38.0 PyYAML==6.0.3
    project=$root/deploy/compose
    check 'its files are well-formed YAML' yamllint --strict --config-data \
        '{extends: default, rules: {line-length: {max: 140}, document-start: disable}}' "$project"
    check 'a compose implementation reads it' reads_project
    check 'what it mounts is there, nothing is writable but volumes, and ports are on the loopback interface' \
        "$python" "$here/deployment/compose_check.py" "$work/project.yaml" "$project"
    check 'its .env.example names only variables that it uses, and sets none' env_example_is_true
    check 'the configuration of the cache is good' env -i "$CACHALOT" check-config "$project/config/cachalot.toml"
    check 'Prometheus takes its configuration, with the rules' prometheus_takes_it
}

reads_project() {
    # It tells its own version first.
    (cd "$project" && podman-compose --file compose.yaml config 2>/dev/null) >"$work/project.yaml" || return
    [[ -s $work/project.yaml ]]
}

env_example_is_true() {
    local name
    ! grep --invert-match '^\(#\|$\)' "$project/.env.example" || return
    while read -r name; do
        printf '%s\n' "$name"
        grep --quiet "\${$name:-" "$project/compose.yaml" || return
    done < <(sed -nE 's/^#([A-Z_]+)=.*/\1/p' "$project/.env.example")
}

# The rules lie beside the configuration in the container.
prometheus_takes_it() {
    mkdir -p "$work/prometheus"
    cp "$project/prometheus.yml" "$work/prometheus/"
    cp -r "$root/grafana/rules" "$work/prometheus/rules"
    promtool check config "$work/prometheus/prometheus.yml"
}
