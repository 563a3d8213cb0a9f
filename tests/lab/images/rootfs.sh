#!/bin/bash
# The root file system of the emulated hypervisor hosts: Debian's stock packages, not yet configured for the lab.
. "$(dirname "$0")/lib.sh"
artifact rootfs "$HOST_RELEASE"

main=$(archive main)
security=$(archive security)
[ -n "$main" ] || die "apt has no source of Debian's main archive; add one to /etc/apt/sources.list.d"

packages=(
    linux-image-amd64 initramfs-tools systemd-sysv udev dbus libpam-systemd apparmor kmod zstd xz-utils
    openssh-server iproute2 iputils-ping procps pciutils ethtool tcpdump socat strace openssl busybox-static
    libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 qemu-utils
)
include=$(IFS=, && echo "${packages[*]}")

{
    echo "deb [signed-by=$KEYRING] $main $HOST_RELEASE main"
    echo "deb [signed-by=$KEYRING] $main $HOST_RELEASE-updates main"
    [ -z "$security" ] || echo "deb [signed-by=$KEYRING] $security $HOST_RELEASE-security main"
} >"$work/sources.list"

# The initramfs needs what the direct boot from virtio-blk needs, and no more: a small one unpacks fast under TCG. It
# is made once, at the end, instead of by each package that asks for it.
cat >"$work/initramfs.hook" <<'H'
#!/bin/sh
set -e
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'MODULES=list\nCOMPRESS=zstd\n' >"$1/etc/initramfs-tools/conf.d/lab"
printf 'virtio_pci\nvirtio_blk\next4\n' >>"$1/etc/initramfs-tools/modules"
H
chmod +x "$work/initramfs.hook"

progress "downloading and unpacking ${#packages[@]} packages and what they depend on (about two minutes)"
run_logged "$work/build.log" mmdebstrap --mode=root --variant=minbase --format=directory \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io \
    --aptopt='Acquire::Languages "none"' --aptopt='Apt::Install-Recommends "false"' \
    --include="$include" --extract-hook="$work/initramfs.hook" \
    "$HOST_RELEASE" "$work/root" "$work/sources.list"
kernel=$(basename "$(readlink -f "$work/root/vmlinuz" || true)")
[ -s "$work/root/boot/$kernel" ] || die "no kernel in $work/root/boot; see $work/build.log"
echo "${kernel#vmlinuz-}" >"$work/kernel"
rm -f "$work/sources.list" "$work/initramfs.hook"
finish
