# The Debian package on a machine that systemd runs: installed, started, reloaded, watched, stopped, purged. The machine is a copy of this
# one that keeps nothing, in a container with a network of its own.

package() {
    install_missing strip:binutils dpkg-deb:dpkg systemd-nspawn:systemd-container systemd-analyze:systemd man:man-db \
        openssl:openssl htpasswd:apache2-utils \
        lintian:lintian
    install_cargo_deb
    local deb=$root/target/deb/cachalot.deb
    check 'the unit has nothing that systemd does not know' verifies_the_unit
    check 'the example of a drop-in neither' verifies_the_unit drop_in
    check 'the unit leaves at most 1.5 of 10 exposed' unit_is_hardened
    check 'the package is built' env CACHALOT="$(realpath "$CACHALOT")" "$root/deploy/deb/build"
    check 'lintian finds no error in it' lintian --fail-on error --suppress-tags "$(lintian_accepts)" "$deb"
    boot_and_check "$deb"
}

# What lintian calls errors and we do on purpose: there is no upload to Debian, so neither a changelog nor an intent to package.
lintian_accepts() {
    printf 'no-changelog,extended-description-line-too-long,initial-upload-closes-no-bugs'
}

package_prepare() {
    install_cargo_deb
}

install_cargo_deb() {
    local bin=$tools/cargo-deb-3.8.0
    if [[ ! -x $bin/bin/cargo-deb ]]; then
        printf 'building cargo-deb\n'
        cargo install cargo-deb --version 3.8.0 --locked --quiet --root "$bin"
    fi
    PATH=$bin/bin:$PATH
}

# verifies_the_unit [drop_in]: the paths of the unit are those of an installed package, so it is looked at as if it were installed.
verifies_the_unit() {
    mkdir -p "$work/unit"
    if [[ ${1:-} == drop_in ]]; then
        mkdir -p "$work/unit/cachalot.service.d"
        cp "$root/deploy/systemd/credentials.conf" "$work/unit/cachalot.service.d/"
    fi
    sed "s|/usr/bin/cachalot|$(realpath "$CACHALOT")|; /^Documentation=/d" "$root/deploy/systemd/cachalot.service" \
        >"$work/unit/cachalot.service"
    systemd-analyze verify "$work/unit/cachalot.service" 2>"$work/unit/said" || { cat "$work/unit/said"; return 1; }
    # Other units of this machine may be told of as well.
    ! grep 'cachalot.service' "$work/unit/said"
}

unit_is_hardened() {
    systemd-analyze security --offline=true --no-pager "$root/deploy/systemd/cachalot.service" | tail -n 1 | tee "$work/exposure"
    systemd-analyze security --offline=true --no-pager --threshold=15 "$root/deploy/systemd/cachalot.service" >/dev/null
}

# boot_and_check DEB: boots systemd over this machine's files and adds what it found to the result.
boot_and_check() {
    local machine=$work/machine line
    mkdir -p "$machine"
    mount -t tmpfs -o size=1g tmpfs "$machine"
    mkdir -p "$machine"/{lower,upper,scratch,root}
    mount --bind --make-private / "$machine/lower"
    mount -t overlay -o "lowerdir=$machine/lower,upperdir=$machine/upper,workdir=$machine/scratch" overlay "$machine/root"
    # Services are started on that machine, whatever holds on this one.
    rm -f "$machine/root/usr/sbin/policy-rc.d"
    cp "$1" "$machine/root/cachalot.deb"
    cp "$here/deployment/package_check" "$machine/root/usr/local/bin/package-check"
    cat >"$machine/root/etc/systemd/system/package-check.service" <<END
[Unit]
After=basic.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/usr/local/bin/package-check
StandardOutput=file:/package-check.out
StandardError=file:/package-check.err
TimeoutStartSec=450
[Install]
WantedBy=basic.target
END
    mkdir -p "$machine/root/etc/systemd/system/basic.target.wants"
    ln -sf ../package-check.service "$machine/root/etc/systemd/system/basic.target.wants/"
    check 'a machine boots, has the package checked, and halts' \
        timeout --kill-after=10 480 systemd-nspawn --quiet --directory "$machine/root" --register=no --keep-unit \
        --private-network --console=pipe --boot systemd.unit=basic.target
    while read -r line; do
        check "package: ${line#* }" [ "${line%% *}" = ok ]
    done <"$machine/root/package-check.out"
    check 'package: all of it was checked' grep --quiet 'that was all' "$machine/root/package-check.out"
    if grep --quiet '^FAIL' "$machine/root/package-check.out"; then
        sed 's/^/      | /' "$machine/root/package-check.err"
    fi
}
