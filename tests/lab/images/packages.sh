#!/bin/bash
# Installs what the lab and the build of hybond need, from Debian's packages, on Debian 12 or 13. Nothing in /etc/apt is
# touched: on Debian 12, QEMU comes from bookworm-backports through sources that only this script's apt calls see.
. "$(dirname "$0")/lib.sh"

needed=(
    # the build
    gcc libc6-dev libvirt-dev pkg-config make musl-tools
    # the images
    mmdebstrap debian-archive-keyring cpio zstd xz-utils e2fsprogs kmod openssl
    # the lab
    qemu-utils iproute2 iputils-ping openssh-client util-linux procps
    # the report's picture
    librsvg2-bin fonts-dejavu-core
)
# QEMU's igb came with 8.0; the emulated hosts were tried on 10.0.
qemu_is_new() {
    local version
    version=$(dpkg-query -W -f '${db:Status-Status} ${Version}' qemu-system-x86 2>/dev/null) || return 1
    [ "${version%% *}" = installed ] && dpkg --compare-versions "${version##* }" ge 1:10.0
}

missing=()
for package in "${needed[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
qemu_is_new || missing+=(qemu-system-x86)
if [ ${#missing[@]} = 0 ]; then
    exit 0
fi

release=$(. /etc/os-release && echo "$VERSION_CODENAME")
case $release in
bookworm | trixie) ;;
*) die "this is Debian \"$release\"; bookworm (12) and trixie (13) are supported" ;;
esac
exec {lock}>"$HYBOND_CACHE/packages.lock"
flock "$lock"
progress "installing ${missing[*]}"

log=$HYBOND_CACHE/packages.log
: >"$log"
export DEBIAN_FRONTEND=noninteractive
run_logged "$log" apt-get -q -o DPkg::Lock::Timeout=300 update
if [ "$release" = bookworm ]; then
    main=$(archive main)
    [ -n "$main" ] || die "apt has no source of Debian's main archive; add one to /etc/apt/sources.list.d"
    apt=$HYBOND_CACHE/apt
    mkdir -p "$apt/parts" "$apt/lists/partial"
    for suite in bookworm bookworm-backports; do
        echo "deb [signed-by=$KEYRING] $main $suite main"
    done >"$apt/sources.list"
    own=(-o "Dir::Etc::SourceList=$apt/sources.list" -o "Dir::Etc::SourceParts=$apt/parts" -o "Dir::State::Lists=$apt/lists")
    if ! qemu_is_new; then
        run_logged "$log" apt-get "${own[@]}" -q update
        run_logged "$log" apt-get "${own[@]}" -o DPkg::Lock::Timeout=300 -y -q --no-install-recommends \
            -t bookworm-backports install qemu-system-x86 qemu-utils seabios
        missing=("${missing[@]/qemu-system-x86/}")
        missing=("${missing[@]/qemu-utils/}")
    fi
fi
left=()
for package in "${missing[@]}"; do [ -z "$package" ] || left+=("$package"); done
if [ ${#left[@]} -gt 0 ]; then
    run_logged "$log" apt-get -o DPkg::Lock::Timeout=300 -y -q --no-install-recommends install "${left[@]}"
fi
progress "done"
