# Real disks that are full, fill up, run out of inodes or turn read-only under Cachalot: clients get their bytes. Sourced by run;
# needs `work`, the upstream, and root to mount.

disks() {
    push many disks/big 160
    big=$(largest_blob disks/big)
    small=$(largest_blob "$(repository_of skopeo one)")

    on_tmpfs full size=48m
    check 'a disk that is too small: ten clients get a blob of 160 MiB' herd_gets disks/big "$big"
    check 'a disk that is too small: the upstream sent it once' within 20 was_sent_once "$big"
    end_disk full

    on_tmpfs filling size=256m
    fill_when_begun "$work/filling" &
    check 'a disk that fills up in the middle: a client gets its blob' gets disks/big "$big"
    wait $!
    check 'a disk that fills up in the middle: the next client gets it, too' gets disks/big "$big"
    end_disk filling

    on_tmpfs inodes size=256m,nr_inodes=64
    use_up_inodes "$work/inodes"
    check 'a disk without inodes: a client gets its blob' gets disks/big "$big"
    end_disk inodes

    on_ext4 aborted
    check 'before the disk turns read-only: a client gets a blob' gets disks/big "$big"
    await aborted 60 is_stored aborted "$big"
    check 'before the disk turns read-only: the upstream tells of all that it was asked' \
        within 20 all_is_logged "$disk_admin_port" "$disk_lines"
    mount -o remount,abort "$work/aborted"
    sent_before=$(requests_for "$big")
    check 'a disk that turned read-only: what was stored is served' gets disks/big "$big"
    check 'a disk that turned read-only: and the upstream is not asked' test "$(requests_for "$big")" = "$sent_before"
    check 'a disk that turned read-only: what was not stored comes as well' \
        gets "$(repository_of skopeo one)" "$small"
    check 'a disk that turned read-only: the metrics tell' within 20 metrics_tell_of permission
    end_disk aborted
}

# largest_blob REPOSITORY: prints the digest of its largest layer.
largest_blob() {
    printf 'sha256:%s\n' "$(find "$work/layouts/$1" -path '*/sha256/*' -printf '%s %f\n' | sort -n | awk 'END { print $2 }')"
}

# on_tmpfs NAME OPTIONS: starts Cachalot over a memory file system.
on_tmpfs() {
    mkdir "$work/$1"
    mount -t tmpfs -o "$2" tmpfs "$work/$1"
    serve_from "$1"
}

# on_ext4 NAME: starts Cachalot over a file system in a file.
on_ext4() {
    mkdir "$work/$1"
    truncate --size=512M "$work/$1.image"
    mkfs.ext4 -q -F "$work/$1.image"
    mount -o loop "$work/$1.image" "$work/$1"
    serve_from "$1"
}

# serve_from NAME: starts the Cachalot of that name, whose store is in the directory of that name.
serve_from() {
    disk_port=$(free_port) disk_admin_port=$(free_port)
    disk_lines=$(wc -l <"$work/upstream.log")
    cat >"$work/$1.toml" <<END
[server]
listen = ["127.0.0.1:$disk_port"]
[admin]
listen = "127.0.0.1:$disk_admin_port"
[store]
path = "$work/$1/store"
capacity = "2GiB"
min_free = "0B"
[[upstream]]
name = "registry.test"
endpoints = ["http://127.0.0.1:$upstream_port"]
END
    start "$1" "$CACHALOT" serve --config "$work/$1.toml"
    await "$1" 30 answers "http://127.0.0.1:$disk_port/v2/"
}

# end_disk NAME: stops that Cachalot and unmounts its store.
end_disk() {
    check "$1: Cachalot stops when asked to" stop "$1" 60
    check "$1: nothing panicked" no_panic_in "$1"
    umount "$work/$1"
}

# is_stored NAME DIGEST: the blob is durable; clients have its bytes before that.
is_stored() {
    local hex=${2#sha256:}
    test -e "$work/$1/store/layer/sha256/${hex:0:2}/$hex"
}

no_panic_in() {
    ! grep -i 'panicked' "$work/$1.log"
}

# gets REPOSITORY DIGEST: a client gets the whole blob, and its bytes are right.
gets() {
    local got
    got=$(curl --silent --fail --max-time 120 "http://127.0.0.1:$disk_port/v2/registry.test/$1/blobs/$2" | sha256sum) || return
    [[ sha256:${got%% *} == "$2" ]] || { printf 'got %s\n' "$got"; return 1; }
}

# herd_gets REPOSITORY DIGEST: ten clients get the blob, which the upstream does not send before all have asked: what passes
# through memory can be had by who was there from its beginning.
herd_gets() {
    local client wrong=0 gathered
    local -a herd=()
    kill -STOP "${pids[upstream]}"
    for client in {1..10}; do
        gets "$1" "$2" >"$work/herd-$client.log" 2>&1 &
        herd+=($!)
    done
    await full 60 asked_for_blobs 10 && gathered=yes || gathered=no
    kill -CONT "${pids[upstream]}"
    for client in "${herd[@]}"; do
        wait "$client" || wrong=$((wrong + 1))
    done
    printf 'all had asked: %s, %d of %d failed\n' "$gathered" "$wrong" "${#herd[@]}"
    ((wrong == 0)) && [[ $gathered == yes ]]
}

# asked_for_blobs NUMBER: so many requests for blobs are being served.
asked_for_blobs() {
    curl --silent --fail --max-time 5 "http://127.0.0.1:$disk_admin_port/metrics" |
        grep -x "cachalot_http_requests_in_flight{handler=\"blobs\"} $1"
}

# Prints how many requests for a blob the upstream has answered.
requests_for() {
    grep -c "\"GET [^\"]*/blobs/$1" "$work/upstream.log" || true
}

# was_sent_once DIGEST: the upstream sent as many bytes of the blob as it has.
was_sent_once() {
    local size sent
    size=$(stat --format=%s "$(find "$work/layouts" -path "*/sha256/${1#sha256:}" -print -quit)")
    sent=$(sed -nE "s|.*\"GET [^\" ]*/blobs/$1[^\"]*\" 20[06] ([0-9]+).*|\1|p" "$work/upstream.log" |
        awk '{ sent += $1 } END { print sent + 0 }')
    printf '%d bytes, sent were %d\n' "$size" "$sent"
    ((sent == size))
}

# fill_when_begun DIRECTORY: takes all room of the file system once a partial is there.
fill_when_begun() {
    local deadline=$((SECONDS + 30))
    until compgen -G "$1/store/partial/*" >/dev/null || ((SECONDS >= deadline)); do :; done
    dd if=/dev/zero of="$1/ballast" bs=1M status=none 2>/dev/null || true
}

# use_up_inodes DIRECTORY: makes files until there is no room for another one.
use_up_inodes() {
    local number=0
    while ((number < 100)) && : 2>/dev/null >"$1/file-$number"; do
        number=$((number + 1))
    done
}

# metrics_tell_of REASON: the disk's refusals for that reason are counted.
metrics_tell_of() {
    local count
    count=$(curl --silent --fail --max-time 5 "http://127.0.0.1:$disk_admin_port/metrics" |
        awk -v reason="reason=\"$1\"" '/^cachalot_storage_errors_total/ && index($0, reason) { count += $NF } END { print count + 0 }')
    printf '%d errors\n' "$count"
    ((count > 0))
}
