# Registries, Cachalot in front of one of them, and tools that are built with Go. Sourced by article, conformance and
# tools; needs lib.sh, and `work`, the one directory.

# Tools stay here between runs, each under its version.
tools=${XDG_CACHE_HOME:-$HOME/.cache}/cachalot-e2e

# Sets CACHALOT, unless the caller names the binary.
build_cachalot() {
    [[ -z ${CACHALOT:-} ]] || return 0
    cargo build --release --manifest-path "$here/../../Cargo.toml"
    CACHALOT=$here/../../target/release/cachalot
}

# install_tool COMMAND MODULE@VERSION PACKAGE: has Go build a command at exactly this version, unless that was done before.
install_tool() {
    local module=${2%@*} bin=$tools/$1-${2##*@}
    if [[ ! -x $bin/$1 ]]; then
        command -v go >/dev/null || { printf 'Go is needed to build %s\n' "$2" >&2; return 1; }
        printf 'building %s\n' "$2"
        # In a module of its own, and not by `go install`, which also asks for the list of versions: not every proxy has it.
        mkdir -p "$work/build/$1" "$bin"
        (
            cd "$work/build/$1" || exit
            printf 'module build\ngo 1.24\nrequire %s %s\n' "$module" "${2##*@}" >go.mod
            GOFLAGS=-mod=mod go build -o "$bin/$1" "$module${3:+/$3}" 2>go.log || { cat go.log >&2; exit 1; }
        )
    fi
    PATH=$bin:$PATH
}

# start_docker_registry NAME: a registry without the referrers API that deletes. Its address is then in registry.
start_docker_registry() {
    local port
    port=$(free_port)
    registry=127.0.0.1:$port
    cat >"$work/$1.yml" <<END
version: 0.1
log: { level: warn }
storage: { filesystem: { rootdirectory: $work/$1 }, delete: { enabled: true } }
validation: { manifests: { urls: { allow: [".*"] } } }
http: { addr: "$registry" }
END
    start "$1" docker-registry serve "$work/$1.yml"
    await "$1" 30 answers "http://$registry/v2/"
}

# start_olareg NAME: a registry with the referrers API and with sha512. Its address is then in registry.
start_olareg() {
    local port
    port=$(free_port)
    registry=127.0.0.1:$port
    mkdir -p "$work/$1"
    start "$1" olareg serve --addr 127.0.0.1 --port "$port" --dir "$work/$1" --api-delete --api-blob-delete
    await "$1" 30 answers "http://$registry/v2/"
}

registry_is_gone() {
    ! answers "http://$registry/v2/"
}

# start_cachalot STORE [SETTING…]: Cachalot in front of $registry, with further settings for that upstream. Its address is then
# in cache.
start_cachalot() {
    local store=$1
    shift
    cache_port=${cache_port:-$(free_port)} admin_port=${admin_port:-$(free_port)}
    cache=127.0.0.1:$cache_port
    {
        cat <<END
[server]
listen = ["$cache"]
default_upstream = "registry.test"
[admin]
listen = "127.0.0.1:$admin_port"
[store]
path = "$work/$store"
capacity = "2GiB"
min_free = "64MiB"
[[upstream]]
name = "registry.test"
endpoints = ["http://$registry"]
END
        (($# == 0)) || printf '%s\n' "$@"
    } >"$work/cachalot.toml"
    start cachalot "$CACHALOT" serve --config "$work/cachalot.toml"
    await cachalot 30 answers "http://$cache/v2/"
}

nothing_panicked() {
    ! grep -i 'panicked' "$work/cachalot.log"
}

# Prints the result and sets the exit code; tells of Cachalot's log when something failed.
conclude() {
    if ((failed > 0)) && [[ -e $work/cachalot.log ]]; then
        printf 'The end of what Cachalot logged:\n'
        tail -n 60 "$work/cachalot.log"
    fi
    printf '%d passed, %d failed\n' "$passed" "$failed"
    ((failed == 0))
}

# install_python PACKAGE==VERSION…: installs Python packages, each set in an environment of its own: its interpreter is then in
# python, its commands in PATH.
install_python() {
    local environment=$tools/python-$(tr ' /!' '___' <<<"$*")
    if [[ ! -e $environment/installed ]]; then
        printf 'installing %s\n' "$*"
        python3 -c 'import ensurepip' 2>/dev/null || install_missing ensurepip:python3-venv
        rm -rf "$environment"
        python3 -m venv "$environment"
        "$environment/bin/pip" install --quiet --disable-pip-version-check "$@"
        touch "$environment/installed"
    fi
    python=$environment/bin/python
    PATH=$environment/bin:$PATH
}
