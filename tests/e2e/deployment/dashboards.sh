# The dashboard, the recording rules and the alerts: how they are written, and what they show and say when a real Prometheus
# watches a Cachalot in trouble. Sourced by deploy.
#
# Cachalot has ten upstreams, which nginx makes of one registry:
#
#   good     the registry
#   hub      asks for a token and tells of a limit; 429 once the file hub.flag is there
#   slow     1 MiB/s
#   down     503 once the file down.flag is there
#   dead     nobody listens there
#   rotten   has a blob with a wrong byte
#   cert     would be shown a client certificate, but is not asked
#   private  for callers
#   idle-*   two that are not asked
#
# It speaks TLS as well, and knows who has a token.

readonly dashboard_files=$here/deployment/dashboards grafana=$root/grafana
readonly dashboard=$grafana/dashboards/overview.json
# What can fire at any time: it is about the machine that the tests run on.
readonly of_this_machine='CachalotDiskAlmostFull CachalotDiskFullIn4h CachalotSlowHits'
# What fires when the traffic is over.
readonly trouble_alerts=(CachalotDigestMismatch CachalotHighErrorRate CachalotUpstreamErrors CachalotUpstreamUnavailable
    CachalotRateLimitLow CachalotRateLimited CachalotServingStale CachalotEvictionChurn CachalotConfigReloadFailed
    CachalotClientAuthFailures)

dashboards() {
    local cache secure admin prometheus began good hub slow down dead
    local watched=$work/watched
    mkdir "$watched"
    install_missing promtool:prometheus docker-registry:docker-registry nginx:nginx-light skopeo:skopeo openssl:openssl
    install_python 'grafana-foundation-sdk==1769699998!10.1.0'
    local grafana_types=$python
    written_rules
    written_dashboard
    watched_upstreams
    watched_cachalot
    start_prometheus
    watched_at_rest
    watched_in_trouble
    watched_dashboard
    watched_gone
}

written_rules() {
    check 'the rules are rules to Prometheus' promtool check rules "$grafana"/rules/*.yaml
    check 'each alert fires when it should, and else does not' promtool test rules "$grafana"/rules/tests/*.yaml
    check 'each alert has tests by its name' each_alert_is_tested
}

# Both ways: saying something, and silent.
each_alert_is_tested() {
    local name tests missing=0
    while read -r name; do
        tests=$(grep --no-filename -A 2 "alertname: $name\$" "$grafana"/rules/tests/*.yaml)
        [[ $tests == *'exp_alerts: []'* && $tests == *$'exp_alerts:\n'* ]] || { printf '%s\n' "$name"; missing=1; }
    done < <(rules_named alert alerts)
    return "$missing"
}

# rules_named KIND FILE: the names of the alerts, or of the records, in a file of rules.
rules_named() {
    sed -n "s/^ *- $1: //p" "$grafana/rules/$2.yaml" | sort --unique
}

written_dashboard() {
    "$CACHALOT" metrics --list >"$watched/metrics"
    check 'the dashboard and the rules are well made, and leave no metric out' lint_dashboard "$dashboard"
    check 'the dashboard is written as jq writes it' diff <(jq . "$dashboard") "$dashboard"
    check 'Grafana knows all that is in the dashboard' grafana_knows "$dashboard"
    jq '.panels[1].fieldConfig.defaults.unt = "s"' "$dashboard" >"$watched/changed.json"
    check 'a misspelt word in the dashboard is found' complains unt grafana_knows "$watched/changed.json"
    check 'the table of the metrics is up to date' \
        diff <("$CACHALOT" metrics --list --markdown) <(grep '^|' "$grafana/METRICS.md")
    # Each with what the linter says of it.
    linter_finds 'no description' '(.panels[] | select(.type == "stat")) |= del(.description)'
    linter_finds 'not the chosen data source' '.panels[1].targets[0].datasource.uid = "mine"'
    linter_finds 'not selected by' '.panels[1].targets[0].expr = "cachalot_fills_in_flight"'
    linter_finds 'not .__rate_interval' '(.panels[10].targets[].expr) |= sub("__rate_interval"; "5m")'
    linter_finds 'is there twice' '.panels[2].id = .panels[1].id'
    linter_finds 'overlap' '.panels[2].gridPos = .panels[1].gridPos'
    linter_finds 'does not exist' '.panels[1].targets[0].expr |= sub("cachalot_"; "cachalot_no_")'
    linter_finds 'shown nowhere' 'del(.panels[] | select(.title == "Objects"))'
}

# grafana_knows DASHBOARD: by the types that Grafana publishes for Python.
grafana_knows() {
    "$grafana_types" "$dashboard_files/known.py" "$1"
}

# lint_dashboard DASHBOARD
lint_dashboard() {
    python3 "$dashboard_files/lint.py" "$1" "$grafana/rules" "$watched/metrics"
}

# linter_finds WORDS FILTER: the linter says so of the dashboard after jq has changed it.
linter_finds() {
    jq "$2" "$dashboard" >"$watched/changed.json"
    check "the linter says \"$1\"" complains "$1" lint_dashboard "$watched/changed.json"
}

# complains PATTERN COMMAND…
complains() {
    local pattern=$1
    shift
    if "$@" >"$watched/complaint"; then
        return 1
    fi
    grep -e "$pattern" "$watched/complaint"
}

watched_upstreams() {
    local repository
    start_docker_registry watched-registry
    for repository in image/{1..10} rotten; do
        push_image "$repository" 2
    done
    for repository in slow/{1..6}; do
        push_image "$repository" 4
    done
    damage_file "$work/watched-registry"/docker/registry/v2/blobs/sha256/*/"$(layer_of rotten)"/data
    openssl genrsa -out "$watched/client.key" 2048 2>/dev/null
    certify 7 client server authority
    good=$(free_port) hub=$(free_port) slow=$(free_port) down=$(free_port) dead=$(free_port)
    mkdir "$watched/nginx"
    nginx_configuration >"$watched/nginx/nginx.conf"
    start nginx nginx -c "$watched/nginx/nginx.conf" -e "$watched/nginx/error.log"
    await nginx 20 answers "http://127.0.0.1:$good/v2/"
}

# certify DAYS [NAME…]: makes certificates anew, for this long: what we show upstreams, what we show clients, the authority of clients.
certify() {
    local days=$1 name
    shift
    for name in "$@"; do
        openssl req -x509 -key "$watched/client.key" -days "$days" -subj "/CN=$name" -addext subjectAltName=IP:127.0.0.1 \
            -out "$watched/$name.pem.new"
        mv "$watched/$name.pem.new" "$watched/$name.pem"
    done
}

# push_image REPOSITORY BIG_LAYER_MIB: past Cachalot.
push_image() {
    python3 "$here/images.py" "$watched/layouts/$1" one "$1" "$2"
    skopeo copy --quiet --dest-tls-verify=false "oci:$watched/layouts/$1:1" "docker://$registry/$1:1"
}

# layer_of REPOSITORY: the hexadecimal digits of the digest of an image's largest layer.
layer_of() {
    (cd "$watched/layouts/$1/blobs/sha256" && find . -type f -printf '%s %f\n' | sort -rn | awk 'NR == 1 { print $2 }')
}

# damage_file FILE: turns one byte in the middle into another one.
damage_file() {
    local at=$(($(stat --format=%s "$1") / 2)) byte
    byte=$(dd if="$1" bs=1 skip="$at" count=1 status=none | od -An -tu1)
    # shellcheck disable=SC2059
    printf "\\$(printf %o $(((byte + 1) % 256)))" | dd of="$1" bs=1 seek="$at" conv=notrunc status=none
}

nginx_configuration() {
    local kind
    cat <<END
user root;
worker_processes 1;
daemon off;
pid $watched/nginx/pid;
events {}
http {
    access_log off;
    default_type application/json;
    proxy_http_version 1.1;
    proxy_set_header Host \$http_host;
END
    for kind in client_body proxy fastcgi uwsgi scgi; do
        printf '    %s_temp_path %s/nginx/%s;\n' "$kind" "$watched" "$kind"
    done
    cat <<END
    server { listen 127.0.0.1:$good; location / { proxy_pass http://$registry; } }
    server { listen 127.0.0.1:$slow; location / { limit_rate 1m; proxy_pass http://$registry; } }
    server {
        listen 127.0.0.1:$down;
        location / { if (-f $watched/down.flag) { return 503; } proxy_pass http://$registry; }
    }
    server {
        listen 127.0.0.1:$hub;
        location = /token { return 200 '{"token":"pass","expires_in":300}'; }
        location / {
            add_header WWW-Authenticate 'Bearer realm="http://127.0.0.1:$hub/token",service="hub"' always;
            add_header RateLimit-Limit "100;w=21600" always;
            add_header RateLimit-Remaining "5;w=21600" always;
            if (\$http_authorization = "") { return 401; }
            if (-f $watched/hub.flag) { return 429; }
            proxy_pass http://$registry;
        }
    }
}
END
}

watched_cachalot() {
    cache=127.0.0.1:$(free_port) secure=127.0.0.1:$(free_port) admin=127.0.0.1:$(free_port)
    printf 'job:%s\n' 'right-and-long-enough' >"$watched/tokens"
    chmod 600 "$watched/tokens"
    {
        cat <<END
[server]
listen = ["$cache"]
builtin_upstreams = false
default_upstream = ""
[[listener]]
address = "$secure"
cert = "$watched/server.pem"
key = "$watched/client.key"
client_ca = "$watched/authority.pem"
client_certificate = "optional"
[identity]
tokens = "$watched/tokens"
anonymous = true
[admin]
listen = "$admin"
[store]
path = "$watched/store"
capacity = "32MiB"
manifests = "4MiB"
memory = "8MiB"
min_free = "0"
[log]
access = false
[metrics]
repositories = 200
END
        upstream_section good "$good" 'prefetch = "layers"'
        upstream_section hub "$hub"
        upstream_section slow "$slow" 'tag_ttl = "10m"'
        upstream_section down "$down"
        upstream_section dead "$dead"
        upstream_section rotten "$good" 'prefetch = "off"'
        upstream_section cert "$good" "client_cert = \"$watched/client.pem\"" "client_key = \"$watched/client.key\""
        upstream_section idle-1 "$good"
        upstream_section idle-2 "$good"
        upstream_section private "$good" 'access = "caller"'
    } >"$watched/cachalot.toml"
    serve_watched
}

# upstream_section NAME PORT [LINE…]: a tag is asked about each time, unless a line says otherwise.
upstream_section() {
    printf '[[upstream]]\nname = "%s.test"\nendpoints = ["http://127.0.0.1:%s"]\n' "$1" "$2"
    shift 2
    [[ $* == *tag_ttl* ]] || printf 'tag_ttl = "0s"\n'
    (($# == 0)) || printf '%s\n' "$@"
}

serve_watched() {
    start cachalot "$CACHALOT" serve --config "$watched/cachalot.toml"
    await cachalot 30 answers "http://$cache/v2/"
}

# Prometheus looks every second. The alerts are those of the file, and wait for nothing.
start_prometheus() {
    prometheus=127.0.0.1:$(free_port)
    mkdir "$watched/prometheus"
    cp "$grafana/rules/recording.yaml" "$watched/prometheus"
    sed 's/^\( *for\): .*/\1: 0s/' "$grafana/rules/alerts.yaml" >"$watched/prometheus/alerts.yaml"
    cat >"$watched/prometheus/prometheus.yml" <<END
global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: ["*.yaml"]
scrape_configs: [{ job_name: cachalot, static_configs: [{ targets: ["$admin"] }] }]
END
    start prometheus prometheus --config.file "$watched/prometheus/prometheus.yml" --web.listen-address "$prometheus" \
        --storage.tsdb.path "$watched/prometheus/data" --log.level warn
    await prometheus 30 answers "http://$prometheus/-/ready"
    began=$(date +%s)
}

# is_true QUERY: Prometheus finds a series.
is_true() {
    curl --silent --get --data-urlencode "query=$1" "http://$prometheus/api/v1/query" |
        jq --exit-status '.data.result != []'
}

# firing: the names of the alerts that fire.
firing() {
    curl --silent "http://$prometheus/api/v1/alerts" |
        jq --raw-output '.data.alerts[] | select(.state == "firing").labels.alertname' | sort --unique
}

# fires NAME…: each of these does.
fires() {
    local missing
    missing=$(comm -13 <(firing) <(printf '%s\n' "$@" | sort))
    printf 'silent: %s\n' "${missing//$'\n'/ }"
    [[ -z $missing ]]
}

# is_silent NAME
is_silent() {
    ! fires "$1"
}

# only_fires NAME…: nothing but these does, and what is about this machine.
only_fires() {
    local more
    # shellcheck disable=SC2086
    more=$(comm -23 <(firing) <(printf '%s\n' "$@" $of_this_machine | sort))
    printf 'fires: %s\n' "${more//$'\n'/ }"
    [[ -z $more ]]
}

watched_at_rest() {
    check 'Prometheus gets the metrics' await prometheus 30 is_true 'count_over_time(up{job="cachalot"}[1m]) > 5'
    check 'certificates are about to expire, and that is told' await prometheus 20 fires CachalotCertificateExpiring
    check 'of each use' await prometheus 20 expiring_of_each_use
    check 'while nothing happens, nothing else is told' only_fires CachalotCertificateExpiring
    curl --silent "http://$admin/metrics" >"$watched/scrape"
    check 'the metrics are well made, to Prometheus' promtool check metrics <"$watched/scrape"
    few_series 'while nothing happens'
}

# few_series WHEN
few_series() {
    local count
    count=$(grep -c '^[^#]' "$watched/scrape")
    check "$1: $count series with ten upstreams, at most 6000" test "$count" -le 6000
}

# only_expiring USE…: these certificates, and no others, are told to expire.
only_expiring() {
    diff <(printf '%s\n' "$@" | sort) <(curl --silent "http://$prometheus/api/v1/alerts" | jq --raw-output \
        '.data.alerts[] | select(.state == "firing" and .labels.alertname == "CachalotCertificateExpiring").labels.use' | sort)
}

expiring_of_each_use() {
    only_expiring upstream_client server client_ca
}

# Everything happens that the dashboard has a panel for, with a restart in between.
watched_in_trouble() {
    check 'clients pull' clients_pull before
    check 'Cachalot stops when asked to' stop cachalot 30
    damage_file "$(find "$watched/store" -type f -size +1M | head -n 1)"
    serve_watched
    check 'clients pull, while one registry after the other fails' clients_pull after
    cp "$watched/cachalot.toml" "$watched/good.toml"
    printf '[nothing]\n' >>"$watched/cachalot.toml"
    kill -HUP "${pids[cachalot]}"
    check 'handshakes, wrong credentials and callers are counted' counts_who_asks
    check 'each trouble is told of' await prometheus 30 fires "${trouble_alerts[@]}"
    check 'of other troubles nothing is told' only_fires "${trouble_alerts[@]}" CachalotCertificateExpiring
    printf '      firing: %s\n' "$(firing | tr '\n' ' ')"
    check 'what is told can be read' alerts_are_readable
    cp "$watched/good.toml" "$watched/cachalot.toml"
    kill -HUP "${pids[cachalot]}"
    check 'that the configuration is good again is seen' await prometheus 30 is_true 'cachalot_config_last_reload_successful == 1'
    certify 90 client server
    check 'renewed certificates end their alerts without a restart, and no other' await prometheus 30 only_expiring client_ca
    certify 90 authority
    check 'so does a renewed authority of clients' await prometheus 30 is_silent CachalotCertificateExpiring
}

counts_who_asks() {
    local series
    for series in 'cachalot_tls_handshakes_total{result="ok"}' 'cachalot_tls_handshakes_total{result!="ok"}' \
        'cachalot_client_auth_failures_total{reason="token"}' 'cachalot_access_decisions_total{upstream="private.test"}'; do
        await prometheus 30 is_true "$series > 0" || { printf '%s\n' "$series"; return 1; }
    done
}

# clients_pull PHASE
clients_pull() {
    timeout 240 python3 "$dashboard_files/traffic.py" "$1" "$cache" "$secure" "$watched"
}

alerts_are_readable() {
    curl --silent "http://$prometheus/api/v1/alerts" |
        jq --raw-output '.data.alerts[].annotations | .summary, .description' >"$watched/told"
    cat "$watched/told"
    [[ -s $watched/told ]] && ! grep -e '<no value>' -e '<error' -e '{{' -e '  ' "$watched/told"
}

watched_dashboard() {
    curl --silent "http://$admin/metrics" >"$watched/scrape"
    check 'the metrics of a busy Cachalot are well made, too' promtool check metrics <"$watched/scrape"
    few_series 'busy'
    check 'every panel has something to show' panels_show
    tail -n 2 "$watched/panels" | sed 's/^/      /'
    check 'each recording rule has a value' each_rule_has_a_value
}

panels_show() {
    python3 "$dashboard_files/panels.py" "$dashboard" "http://$prometheus" "$began" | tee "$watched/panels"
}

each_rule_has_a_value() {
    local rule
    while read -r rule; do
        is_true "{__name__=\"$rule\"} >= 0 or {__name__=\"$rule\"} < 0" || { printf '%s\n' "$rule"; return 1; }
    done < <(rules_named record recording)
}

watched_gone() {
    check 'Cachalot stops when asked to, again' stop cachalot 30
    check 'that no Cachalot is up is told of' await prometheus 30 fires CachalotDown
    check 'nothing panicked' nothing_panicked
    stop prometheus || true
    stop nginx || true
    stop watched-registry || true
}
