# The compose project, as far as it can be seen without the images of Prometheus and Grafana: read by a compose implementation, its
# configurations by the programs that they are for, and everything that it mounts looked for.

compose() {
    install_missing promtool:prometheus openssl:openssl htpasswd:apache2-utils
    install_python podman-compose==1.6.0 yamllint==1.38.0 PyYAML==6.0.3
    project=$root/deploy/compose
    check 'its files are well-formed YAML' yamllint --strict --config-data \
        '{extends: default, rules: {line-length: {max: 140}, document-start: disable}}' "$project"
    check 'a compose implementation reads it' reads_project
    check 'what it mounts is there, nothing is writable but volumes, and ports are on the loopback interface' \
        "$python" "$here/deployment/compose_check.py" "$work/project.yaml" "$project"
    check 'its .env.example names only variables that it uses, and sets none' env_example_is_true
    check 'the configuration of the cache is good' env -i "$CACHALOT" check-config "$project/config/cachalot.toml"
    compose_examples
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

# The examples of the configuration, with their marks taken away, and files as its comments say they are made.
compose_examples() {
    local config=$work/compose-config plain secure admin token
    plain=$(free_port) secure=$(free_port) admin=$(free_port) token=$(openssl rand -hex 32)
    mkdir -p "$config/tls"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -keyout "$config/tls/tls.key" -out "$config/tls/tls.crt" 2>/dev/null
    htpasswd -B -b -c "$config/htpasswd" alice secret 2>/dev/null
    printf 'ci:%s\n' "$token" >"$config/tokens"
    chmod 400 "$config/htpasswd" "$config/tokens" "$config/tls/tls.key"
    sed -E "s|^#([^ ])|\1|; s|/etc/cachalot/|$config/|; s|0.0.0.0:5000|127.0.0.1:$plain|; s|0.0.0.0:5443|127.0.0.1:$secure|
        s|0.0.0.0:5001|127.0.0.1:$admin|; s|/var/cache/cachalot|$config/store|" "$project/config/cachalot.toml" >"$config/cachalot.toml"
    check 'its examples of TLS and identities are a good configuration' compose_examples_are_good
    start examples "$CACHALOT" serve --config "$config/cachalot.toml"
    check 'with them, who shows nothing is sent away, over TLS' await examples 30 compose_asks 401
    check 'and who shows a token, or a password, is let in' compose_lets_in
    check 'also where nothing is encrypted, nobody else is' \
        test "$(curl --silent --output /dev/null --write-out '%{http_code}' "http://127.0.0.1:$plain/v2/")" = 401
    stop examples
}

# Without a warning but the one that its network answers.
compose_examples_are_good() {
    [[ $(grep -c '^\[\[' "$config/cachalot.toml") == 3 ]] || return
    env -i "$CACHALOT" check-config "$config/cachalot.toml" >"$work/compose-said" 2>&1 || { cat "$work/compose-said"; return 1; }
    ! grep 'can be read by everybody' "$work/compose-said"
}

# compose_asks STATUS [OPTION…]
compose_asks() {
    local status=$1
    shift
    [[ $(curl --silent --cacert "$config/tls/tls.crt" --output /dev/null --write-out '%{http_code}' "$@" \
        "https://localhost:$secure/v2/") == "$status" ]]
}

compose_lets_in() {
    compose_asks 200 --header "Authorization: Bearer $token" && compose_asks 200 --user alice:secret &&
        compose_asks 401 --user alice:wrong
}
