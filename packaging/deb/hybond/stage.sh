# What is in hybond_*.deb; sourced by build.sh.
# shellcheck shell=bash disable=SC2154
stage=$out/hybond
generated=$out/generated

put 755 "$built/packaged/hybondd" /usr/sbin/hybondd
put 755 "$built/packaged/hybondctl" /usr/bin/hybondctl
# libvirtd runs confined on Debian: of all the folders that could hold the hook, its AppArmor profile lets it execute
# what is in this one (/usr/lib/libvirt/* PUxr) and what is in /etc/libvirt/hooks. A link is followed before the check.
put 755 "$built/tiny/hybond-hook" /usr/lib/libvirt/hybond-hook
bounded "$built/tiny/hybond-hook" $((1024 * 1024))
install -d "$stage/etc/libvirt/hooks/qemu.d"
ln -s /usr/lib/libvirt/hybond-hook "$stage/etc/libvirt/hooks/qemu.d/50-hybond"

put 644 systemd/hybondd.service /usr/lib/systemd/system/hybondd.service
put 644 systemd/hybond-drain.service /usr/lib/systemd/system/hybond-drain.service
put 755 systemd/drain-before-save /usr/lib/hybond/drain-before-save
put 644 systemd/hybond.sysusers /usr/lib/sysusers.d/hybond.conf
put 644 systemd/hybond.tmpfiles /usr/lib/tmpfiles.d/hybond.conf
put 644 packaging/apparmor/hybond /etc/apparmor.d/abstractions/libvirt-qemu.d/hybond
put 644 packaging/config/hybond.toml /etc/hybond/hybond.toml
install -d "$stage/etc/hybond/hybond.d"
put 644 packaging/journal/hybond.catalog /usr/lib/systemd/catalog/hybond.catalog

rm -rf "$generated"
mkdir -p "$generated/man" "$generated/completions"
"$built/packaged/hybondctl" generate man "$generated/man"
"$built/packaged/hybondctl" generate completions "$generated/completions"
put_man "$generated"/man/*.[1-9] packaging/man/{hybondd.8,hybond-hook.8,hybond.toml.5}
put 644 "$generated/completions/hybondctl.bash" /usr/share/bash-completion/completions/hybondctl
put 644 "$generated/completions/_hybondctl" /usr/share/zsh/vendor-completions/_hybondctl
put 644 "$generated/completions/hybondctl.fish" /usr/share/fish/vendor_completions.d/hybondctl.fish
put_doc hybond
put 644 docs/operation.md /usr/share/doc/hybond/operation.md
put 644 docs/pools.md /usr/share/doc/hybond/pools.md
put 644 docs/life-of-a-domain.md /usr/share/doc/hybond/life-of-a-domain.md
put 644 docs/scheduling.md /usr/share/doc/hybond/scheduling.md

# What the programs link to and what they need of it, from the symbols they use.
mkdir -p "$generated/debian"
printf 'Source: hybond\n\nPackage: hybond\nArchitecture: any\n' >"$generated/debian/control"
libraries=$(cd "$generated" && dpkg-shlibdeps -O \
    "$stage"/usr/sbin/hybondd "$stage"/usr/bin/hybondctl "$stage"/usr/lib/libvirt/hybond-hook |
    sed -n 's/^shlibs:Depends=//p')
[ -n "$libraries" ] || die "dpkg-shlibdeps found no library that hybondd needs, which cannot be"
# systemd for sysusers and tmpfiles; libvirt-daemon-system for libvirtd, its hooks' folder and the user libvirt-qemu.
pack hybond "$libraries, libvirt-daemon-system (>= 9.0), systemd (>= 252)"
