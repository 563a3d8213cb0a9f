#!/bin/bash
# The QEMU that emulates the hosts of tier 3, with all the libraries that it needs, so that it runs on Debian 12 and 13
# alike: `qemu-system-x86_64` in the artifact. It is newer than what both have in their releases: before 10.2, the
# emulated SVM lost interrupts and made some up (docs/lab.md).
. "$(dirname "$0")/lib.sh"
oldest=10.2
artifact emulator "$HOST_RELEASE" "$oldest"

main=$(archive main)
[ -n "$main" ] || die "apt has no source of Debian's main archive; add one to /etc/apt/sources.list.d"
for suite in "$HOST_RELEASE" "$HOST_RELEASE-backports"; do
    echo "deb [signed-by=$KEYRING] $main $suite main"
done >"$work/sources.list"
progress "downloading and unpacking QEMU from $HOST_RELEASE-backports (about a minute)"
# Unpacked and not installed: nothing of it runs but QEMU.
run_logged "$work/build.log" mmdebstrap --mode=root --variant=extract --format=directory \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --aptopt='Acquire::Languages "none"' --aptopt='Apt::Install-Recommends "false"' \
    --aptopt="Apt::Default-Release \"$HOST_RELEASE-backports\"" \
    --include=qemu-system-x86 "$HOST_RELEASE" "$work/root" "$work/sources.list"
rm -f "$work/sources.list"

# An interrupt that KVM has injected is delivered once only: helper_vmrun() leaves its vector in cs->exception_index, where
# a request to stop may find it and deliver it again (docs/lab.md). The store is not needed, and becomes a NOP of its
# length. What follows it in this case of the switch, and in none else, tells it: exception_is_int = 0, exception_next_eip =
# -1, a look at the log's level, and do_interrupt_x86_hardirq(env, vector, 1).
qemu=$work/root/usr/bin/qemu-system-x86_64
found=$(perl -0777 -e '
    open my $in, "<:raw", $ARGV[0] or die "$ARGV[0]: $!"; my $code = <$in>; close $in;
    my $after = qr/\xc7\x83..\0{6}\x48\xc7\x83..\0\0\xff{4}\xf6\x05.{4}\x02\x0f\x85.{4}\xba\x01\0\0\0\x48\x89\xdf\xe8/s;
    my $found = () = $code =~ /\x89\xb3..\xff\xff(?=$after)/sg;
    if ($found == 1) {
        $code =~ s/\x89\xb3..\xff\xff(?=$after)/\x66\x0f\x1f\x44\0\0/s;
        open my $to, ">:raw", $ARGV[0] or die "$ARGV[0]: $!"; print $to $code; close $to or die "$ARGV[0]: $!";
    }
    print $found;' "$qemu")
[ "$found" = 1 ] ||
    progress "this QEMU is compiled in another way ($found places instead of one): guests may stand still in its hosts (docs/lab.md)"

# Its own dynamic linker: that of Debian 12 is too old for its libc.
cat >"$work/qemu-system-x86_64" <<'Q'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
exec "$root/usr/lib64/ld-linux-x86-64.so.2" --argv0 qemu-system-x86_64 --library-path "$root/usr/lib/x86_64-linux-gnu" \
    "$root/usr/bin/qemu-system-x86_64" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios" "$@"
Q
chmod +x "$work/qemu-system-x86_64"
version=$("$work/qemu-system-x86_64" --version | sed -n 's/^QEMU emulator version \([0-9.]*\).*/\1/p')
dpkg --compare-versions "${version:-0}" ge "$oldest" || die "$HOST_RELEASE-backports has QEMU \"$version\"; $oldest or later is needed"
echo "$version" >"$work/version"
finish
