#!/bin/bash
# The disk of the emulated hosts: rootfs.sh's packages with the lab's configuration, as an ext4 image, and the kernel and
# initramfs that it boots with. Both hosts boot it, each on a copy-on-write layer of its own.
. "$(dirname "$0")/lib.sh"
rootfs=$("$IMAGES/rootfs.sh")
guest=$("$IMAGES/guest.sh")
identity=$("$IMAGES/identity.sh")
artifact disk "$rootfs" "$guest" "$identity" "$IMAGES/host"
kernel=$(cat "$rootfs/kernel")

mkdir -p "$work/upper" "$work/overlay" "$work/root"
root=$work/root
mount -t overlay overlay -o "lowerdir=$rootfs/root,upperdir=$work/upper,workdir=$work/overlay" "$root"

cp -r --no-preserve=ownership "$IMAGES/host/." "$root/"
chmod 755 "$root/usr/local/sbin/lab-init"
chmod 700 "$root/root" "$root/root/.ssh"
install -m 600 "$identity/id" "$root/root/.ssh/id_ed25519"
install -m 600 "$identity/id.pub" "$root/root/.ssh/authorized_keys"
rm -f "$root"/etc/ssh/ssh_host_*
install -m 600 "$identity/host_key" "$root/etc/ssh/ssh_host_ed25519_key"
install -m 644 "$identity/host_key.pub" "$root/etc/ssh/ssh_host_ed25519_key.pub"
mkdir -p "$root/var/lib/lab/guest"
cp -r "$identity/pki" "$identity/wrong-pki" "$root/var/lib/lab/"
rm "$root"/var/lib/lab/*pki/cakey.pem
cp "$guest/vmlinuz" "$guest/initramfs" "$root/var/lib/lab/guest/"

printf '127.0.0.1 localhost\n10.77.0.1 src\n10.77.0.2 dst\n' >"$root/etc/hosts"
echo '/dev/vda / ext4 defaults,noatime 0 1' >"$root/etc/fstab"
: >"$root/etc/machine-id"
# A journal that survives a crash of the host.
mkdir -p "$root/var/log/journal"

# Parsing a hundred profiles of programs that are not installed takes 20 s under TCG; libvirt's are what counts here.
for profile in "$root"/etc/apparmor.d/*; do
    [ -f "$profile" ] || continue
    case $(basename "$profile") in *libvirt* | *virt-aa-helper*) ;; *) rm "$profile" ;; esac
done

printf 'auth_tcp = "none"\n' >>"$root/etc/libvirt/libvirtd.conf"
rm -f "$root/etc/libvirt/qemu/networks/autostart/default.xml"

mount -t proc proc "$root/proc" # systemctl insists
chroot "$root" systemctl -q enable lab-init lab-ready ssh libvirtd libvirtd-tcp.socket libvirtd-tls.socket virtlogd.socket
# What has nothing to do on a host that lives for minutes, and would do it while something is measured.
chroot "$root" systemctl -q mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer systemd-tmpfiles-clean.timer systemd-timesyncd.service systemd-networkd.service \
    systemd-resolved.service systemd-hwdb-update.service systemd-journal-catalog-update.service \
    systemd-update-done.service systemd-update-utmp.service systemd-binfmt.service systemd-pcrphase.service \
    systemd-udev-settle.service getty@tty1.service serial-getty@ttyS0.service console-getty.service \
    libvirt-guests.service 2>/dev/null || true
umount "$root/proc"

progress "writing the image"
truncate -s 4G "$work/disk.raw"
run_logged "$work/build.log" mkfs.ext4 -q -F -m 0 -J size=16 -E lazy_itable_init=1 -d "$root" "$work/disk.raw"
umount "$root"
cp "$rootfs/root/boot/vmlinuz-$kernel" "$work/vmlinuz"
cp "$rootfs/root/boot/initrd.img-$kernel" "$work/initrd"
rm -rf "$work/upper" "$work/overlay" "$work/root"
finish
