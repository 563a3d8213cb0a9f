#!/bin/bash
# iommufd and the VFIO modules that use it, for the hosts' stock kernel. Debian builds that kernel without IOMMUFD, so
# the way of plugging by descriptor can only be tried with modules rebuilt from Debian's own source of the same kernel.
. "$(dirname "$0")/lib.sh"
rootfs=$("$IMAGES/rootfs.sh")
artifact iommufd "$rootfs"
kernel=$(cat "$rootfs/kernel")
series=$(echo "$kernel" | cut -d. -f1,2)

mkdir -p "$work/upper" "$work/overlay" "$work/root"
root=$work/root
mount -t overlay overlay -o "lowerdir=$rootfs/root,upperdir=$work/upper,workdir=$work/overlay" "$root"
mount_for_chroot "$root"
cp --remove-destination /etc/resolv.conf "$root/etc/resolv.conf"
export DEBIAN_FRONTEND=noninteractive
progress "installing the kernel's headers and source (about 150 MB)"
run_logged "$work/build.log" chroot "$root" apt-get -q update
run_logged "$work/build.log" chroot "$root" apt-get -y -q --no-install-recommends install \
    "linux-headers-$kernel" "linux-source-$series" gcc make

progress "unpacking iommufd and VFIO"
source=linux-source-$series
tar -C "$root/usr/src" -xf "$root/usr/src/$source.tar.xz" --wildcards \
    "$source/drivers/iommu/*" "$source/drivers/vfio/*" "$source/lib/interval_tree.c"
build=$root/usr/src/iommufd
mkdir -p "$build"
mv "$root/usr/src/$source/drivers/iommu/iommufd" "$root/usr/src/$source/drivers/vfio" "$build/"
cp "$root/usr/src/$source"/drivers/iommu/*.h "$build/"
# The span iterator of interval trees is only in kernels that have IOMMUFD: it goes into the module itself.
{
    printf '#include <linux/%s.h>\n' init module interval_tree compiler
    sed -n '/^#ifdef CONFIG_INTERVAL_TREE_SPAN_ITER/,/^#endif/p' "$root/usr/src/$source/lib/interval_tree.c" |
        sed '1d;$d' | grep -v EXPORT_SYMBOL
} >"$build/iommufd/span.c"
sed -i 's/vfio_compat\.o$/vfio_compat.o span.o/' "$build/iommufd/Makefile"
cat >"$build/Kbuild" <<'K'
subdir-ccflags-y += -DCONFIG_IOMMUFD=1 -DCONFIG_VFIO_DEVICE_CDEV=1 -DCONFIG_INTERVAL_TREE_SPAN_ITER=1
obj-m += iommufd/
obj-m += vfio/
K
progress "compiling"
run_logged "$work/build.log" chroot "$root" make -s -j2 -C "/lib/modules/$kernel/build" M=/usr/src/iommufd \
    CONFIG_IOMMUFD=m CONFIG_VFIO_DEVICE_CDEV=y CONFIG_VFIO_MDEV=n modules
find "$build" -name '*.ko' -exec cp {} "$work/" \;
strip --strip-debug "$work"/*.ko
# In the order to load them.
printf '%s.ko\n' iommufd vfio vfio_iommu_type1 vfio-pci-core vfio-pci >"$work/modules"
while read -r module; do [ -s "$work/$module" ] || die "$module was not built; see $work/build.log"; done <"$work/modules"
umount -R -l "$root"
rm -rf "$work/upper" "$work/overlay" "$work/root"
finish
