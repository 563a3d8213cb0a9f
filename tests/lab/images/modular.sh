#!/bin/bash
# virtqemud and virtproxyd for the hosts' libvirt. Debian builds libvirt with its daemons and packages libvirtd alone, so
# hosts of the modular kind can only be tried with daemons built from Debian's own source of the same libvirt. They are the
# daemons and nothing else: drivers and libraries are those of the packages.
. "$(dirname "$0")/lib.sh"
rootfs=$("$IMAGES/rootfs.sh")
# shellcheck disable=SC2016 # dpkg-query's own placeholder
version=$(dpkg-query --admindir="$rootfs/root/var/lib/dpkg" -W -f '${source:Version}' libvirt-daemon)
# A root file system that is made anew may have a newer libvirt, and is called the same.
artifact modular "$rootfs" "$version"

mkdir -p "$work/upper" "$work/overlay" "$work/root"
root=$work/root
mount -t overlay overlay -o "lowerdir=$rootfs/root,upperdir=$work/upper,workdir=$work/overlay" "$root"
mount_for_chroot "$root"
cp --remove-destination /etc/resolv.conf "$root/etc/resolv.conf"
# mmdebstrap puts what rootfs.sh has written there.
sources=$root/etc/apt/sources.list.d
find "$sources" -name '*.list' -exec sed -n 's/^deb /deb-src /p' {} + >"$work/sources"
[ -s "$work/sources" ] || die "$rootfs has no one-line sources of packages"
mv "$work/sources" "$sources/sources.list"
export DEBIAN_FRONTEND=noninteractive
progress "installing a compiler, and the source of libvirt $version (about 130 MB)"
run_logged "$work/build.log" chroot "$root" apt-get -q update
run_logged "$work/build.log" chroot "$root" apt-get -y -q --no-install-recommends install \
    gcc libc6-dev meson ninja-build pkgconf patch perl python3 xsltproc libxml2-utils rpcsvc-proto gettext \
    libglib2.0-dev libgnutls28-dev libxml2-dev libtirpc-dev libjson-c-dev libnl-3-dev libnl-route-3-dev
# apt holds each file against the signed index before it puts it there. Some mirrors have the archives only, and not the small
# file that describes them; that one is not needed.
chroot "$root" sh -c "cd /usr/src && apt-get -q source --download-only 'libvirt=$version'" >>"$work/build.log" 2>&1 || true
mkdir "$root/usr/src/libvirt"
unpack() {
    [ -s "$root/usr/src/$1" ] || die "$1 is not to be had; see $work/build.log"
    tar -C "$root/usr/src/libvirt" --strip-components="$2" -xf "$root/usr/src/$1"
}
unpack "libvirt_${version%-*}.orig.tar.xz" 1
unpack "libvirt_$version.debian.tar.xz" 0
# shellcheck disable=SC2016 # the shell's in there
run_logged "$work/build.log" chroot "$root" sh -euc 'cd /usr/src/libvirt; grep -v "^#" debian/patches/series |
    while read -r patch _; do [ -z "$patch" ] || patch -p1 -i "debian/patches/$patch"; done'

progress "compiling (some minutes)"
run_logged "$work/build.log" chroot "$root" meson setup /usr/src/build /usr/src/libvirt \
    --prefix=/usr --sysconfdir=/etc --localstatedir=/var --libdir=lib/x86_64-linux-gnu --buildtype=plain \
    -Drunstatedir=/run -Dauto_features=disabled -Ddriver_qemu=enabled -Ddriver_remote=enabled -Ddriver_libvirtd=enabled \
    -Djson_c=enabled -Dlibnl=enabled -Dremote_default_mode=legacy -Dinit_script=none
run_logged "$work/build.log" chroot "$root" ninja -C /usr/src/build src/virtqemud src/virtproxyd
cp "$root"/usr/src/build/src/virtqemud "$root"/usr/src/build/src/virtproxyd "$work/"
strip "$work/virtqemud" "$work/virtproxyd"
umount -R -l "$root"
rm -rf "$work/upper" "$work/overlay" "$work/root"
finish
