#!/bin/bash
# The guest: the hosts' Debian kernel, and an initramfs of busybox, the drivers of its NICs, and guest/init. Agent and
# probe are not in it: `hybond-lab guest-image` appends them.
. "$(dirname "$0")/lib.sh"
rootfs=$("$IMAGES/rootfs.sh")
artifact guest "$rootfs" "$IMAGES/guest"
root=$rootfs/root
kernel=$(cat "$rootfs/kernel")

tree=$work/tree
mkdir -p "$tree"/{bin,sbin,proc,sys,dev,etc,tmp,run,lib/modules}
cp "$root/usr/bin/busybox" "$tree/bin/busybox"
ln -s busybox "$tree/bin/sh"
install -m 755 "$IMAGES/guest/init" "$tree/init"
install -m 755 "$IMAGES/guest/lab-shell" "$tree/sbin/lab-shell"

# Modules with what they depend on, in the order to load them. igb and e1000e are the drivers of emulated primaries.
for module in virtio_net igbvf igb e1000e bonding 8021q macvlan; do
    chroot "$root" modprobe -S "$kernel" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
done | awk '!seen[$0]++' | while read -r file; do
    name=$(basename "$file" .ko.xz)
    xz -dc "$root$file" >"$tree/lib/modules/$name.ko"
    strip --strip-debug "$tree/lib/modules/$name.ko"
    echo "$name" >>"$tree/etc/modules.list"
done

(cd "$tree" && find . | sort | cpio -o -H newc --quiet -R 0:0) >"$work/initramfs"
cp "$root/boot/vmlinuz-$kernel" "$work/vmlinuz"
rm -rf "$tree"
finish
