#!/usr/bin/env bash
# Builds the packages and holds what is in them against what is promised. Installs nothing: tier 3 of the lab does.
set -euo pipefail
. "$(dirname "$0")/../dev/lib.sh"
cd "$top"

# The same for both builds, whatever is committed in between.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
packaging/deb/build.sh anew
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
check() {
    local name=$1
    shift
    if "$@"; then
        echo "packages: $name: ok"
        passed=$((passed + 1))
    else
        echo "packages: $name: FAILED"
        failed=$((failed + 1))
    fi
}
# check_with PROGRAM NAME COMMAND…: where the machine has the program that can tell.
check_with() {
    if command -v "$1" >/dev/null; then
        check "${@:2}"
    else
        echo "packages: $2: SKIPPED, no $1 here"
        skipped=$((skipped + 1))
    fi
}

host=$(echo target/packages/hybond_*_amd64.deb)
guest=$(echo target/packages/hybond-agent_*_amd64.deb)
for package in "$host" "$guest"; do
    dpkg-deb -x "$package" "$work/$(basename "${package%%_*}")"
    dpkg-deb -e "$package" "$work/$(basename "${package%%_*}")/DEBIAN"
done

# has PACKAGE MODE PATH…: "MODE" as find prints it, 777 for links.
has() {
    local root=$work/$1 mode=$2 path found
    for path in "${@:3}"; do
        found=$(find "$root$path" -maxdepth 0 -printf %m 2>/dev/null) || { echo "$path is missing"; return 1; }
        [ "$found" = "$mode" ] || { echo "$path has mode $found, not $mode"; return 1; }
    done
}

owned_by_root() {
    local strangers
    strangers=$(dpkg-deb -c "$1" | awk '$2 != "root/root"')
    [ -z "$strangers" ] || { echo "$strangers"; return 1; }
}

nothing_loose() {
    local loose
    loose=$(find "$1" ! -type l -perm /7022 -printf '%m %P\n')
    [ -z "$loose" ] || { echo "$loose"; return 1; }
}

# What a program is linked to, one a line.
needed() { readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'; }

static() {
    local libraries
    libraries=$(needed "$1")
    [ -z "$libraries" ] && ! readelf -l "$1" | grep -q INTERP
}

links_only() {
    local unexpected
    unexpected=$(needed "$1" | grep -vxE "$2" || true)
    [ -z "$unexpected" ] || { echo "$1 is linked to $unexpected"; return 1; }
}

no_path_of_here() {
    local found
    found=$(grep -rlaF -e "$top" -e "${CARGO_HOME:-$HOME/.cargo}/registry" "$1" || true)
    [ -z "$found" ] || { echo "$found"; return 1; }
}

hook_is_linked() {
    local link=$work/hybond/etc/libvirt/hooks/qemu.d/50-hybond target
    target=$(readlink "$link") && [ -x "$work/hybond$target" ]
}

# A domain that is not hybond's passes, with no daemon anywhere.
hook_lets_others_pass() {
    local hook=$work/hybond/usr/lib/libvirt/hybond-hook output
    output=$(echo "<domain type='kvm'><name>other</name></domain>" | "$hook" other prepare begin -) && [ -z "$output" ]
}

units_verify() {
    # The programs that the units name are looked for where they will be.
    local root=$work/unitroot
    mkdir -p "$root/usr/lib/systemd"
    cp -r "$work/hybond/usr/sbin" "$root/usr/"
    mkdir -p "$root/usr/lib/hybond"
    cp "$work/hybond/usr/lib/hybond/drain-before-save" "$root/usr/lib/hybond/"
    cp -r "$work/hybond-agent/usr/sbin/." "$root/usr/sbin/"
    cp -r /usr/lib/systemd/system "$root/usr/lib/systemd/"
    cp "$work"/hybond{,-agent}/usr/lib/systemd/system/*.service "$root/usr/lib/systemd/system/"
    local said
    said=$(systemd-analyze verify --man=no --root="$root" hybondd.service hybond-drain.service hybond-agent.service 2>&1 | grep hybond || true)
    [ -z "$said" ] || { echo "$said"; return 1; }
}

directories_are_made() {
    local root=$work/root
    mkdir -p "$root/etc" "$root/run" "$root/var/lib"
    echo 'root:x:0:0::/root:/bin/sh' >"$root/etc/passwd"
    echo 'libvirt-qemu:x:64055:104::/var/lib/libvirt:/bin/false' >>"$root/etc/passwd"
    printf 'root:x:0:\nkvm:x:104:\n' >"$root/etc/group"
    systemd-sysusers --root="$root" "$top/systemd/hybond.sysusers" 2>/dev/null &&
        grep -q '^hybond:' "$root/etc/group" &&
        systemd-tmpfiles --root="$root" --create "$top/systemd/hybond.tmpfiles" &&
        [ "$(stat -c '%a %u' "$root/run/hybond" "$root/run/hybond/qmp" "$root/var/lib/hybond" | xargs)" = \
            "755 0 700 64055 700 0" ]
}

apparmor_reads_it() {
    {
        echo 'profile libvirt-a2a2a2a2-0000-4000-8000-000000000002 flags=(attach_disconnected) {'
        cat packaging/apparmor/hybond
        echo '}'
    } >"$work/profile"
    apparmor_parser --skip-kernel-load --skip-cache "$work/profile"
}

man_pages_are_pages() {
    local page
    for page in "$work"/hybond{,-agent}/usr/share/man/man*/*.gz; do
        gzip -dc "$page" | grep -q '^\.TH ' || { echo "$page has no .TH"; return 1; }
    done
}

scripts_parse() {
    local script
    for script in "$work"/hybond{,-agent}/DEBIAN/{preinst,postinst,prerm,postrm}; do
        [ ! -e "$script" ] || sh -n "$script" || return 1
    done
    bash -n "$work/hybond/usr/share/bash-completion/completions/hybondctl"
}

depends_on() {
    local depends wanted
    depends=$(sed -n 's/^Depends: //p' "$work/hybond/DEBIAN/control")
    for wanted in libc6 libvirt0 libvirt-daemon-system systemd; do
        grep -qE "(^|, )$wanted( |,|$)" <<<"$depends" || { echo "Depends: $depends: no $wanted"; return 1; }
    done
}

# The oldest glibc that we promise is Debian 12's. A build on a newer release may need a newer one, and says so in Depends.
glibc_of_debian_12() {
    local newest
    newest=$(objdump -T "$work"/hybond/usr/{sbin/hybondd,bin/hybondctl,lib/libvirt/hybond-hook} |
        grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -n 1)
    [ "$(printf '%s\nGLIBC_2.36\n' "$newest" | sort -V | tail -n 1)" = GLIBC_2.36 ] ||
        ! grep -q bookworm /etc/os-release || { echo "needs $newest"; return 1; }
}

same_again() {
    local before after
    before=$(sha256sum "$host" "$guest")
    packaging/deb/build.sh anew >/dev/null 2>&1
    after=$(sha256sum "$host" "$guest")
    [ "$before" = "$after" ] || { printf '%s\n' "$before" "$after"; return 1; }
}

check "programs of a host" has hybond 755 /usr/sbin/hybondd /usr/bin/hybondctl /usr/lib/libvirt/hybond-hook \
    /usr/lib/hybond/drain-before-save
check "files of a host" has hybond 644 \
    /usr/lib/systemd/system/{hybondd,hybond-drain}.service /usr/lib/sysusers.d/hybond.conf /usr/lib/tmpfiles.d/hybond.conf \
    /etc/apparmor.d/abstractions/libvirt-qemu.d/hybond /etc/hybond/hybond.toml \
    /usr/lib/systemd/catalog/hybond.catalog \
    /usr/share/man/man8/{hybondd,hybond-hook}.8.gz /usr/share/man/man5/hybond.toml.5.gz \
    /usr/share/man/man1/hybondctl.1.gz /usr/share/bash-completion/completions/hybondctl
check "hook is in place" hook_is_linked
check "program of a guest" has hybond-agent 755 /usr/sbin/hybond-agent
check "files of a guest" has hybond-agent 644 \
    /usr/lib/systemd/system/hybond-agent.service /usr/lib/systemd/network/10-hybond-{primary,standby}.network \
    /usr/lib/udev/rules.d/71-hybond-agent.rules /usr/lib/NetworkManager/conf.d/90-hybond-agent.conf \
    /usr/share/man/man8/hybond-agent.8.gz
check "owners, host" owned_by_root "$host"
check "owners, guest" owned_by_root "$guest"
check "modes, host" nothing_loose "$work/hybond"
check "modes, guest" nothing_loose "$work/hybond-agent"
check "agent is static" static "$work/hybond-agent/usr/sbin/hybond-agent"
system='libc\.so\.6|libm\.so\.6|libgcc_s\.so\.1|ld-linux-x86-64\.so\.2'
check "libraries of the hook" links_only "$work/hybond/usr/lib/libvirt/hybond-hook" "$system"
check "libraries of hybondd" links_only "$work/hybond/usr/sbin/hybondd" "$system|libvirt(-qemu)?\.so\.0"
check "libraries of hybondctl" links_only "$work/hybond/usr/bin/hybondctl" "$system|libvirt(-qemu)?\.so\.0"
check "dependencies" depends_on
check "glibc" glibc_of_debian_12
check "no path of the build, host" no_path_of_here "$work/hybond/usr"
check "no path of the build, guest" no_path_of_here "$work/hybond-agent/usr"
check "hook lets other domains pass" hook_lets_others_pass
check "man pages" man_pages_are_pages
check "scripts" scripts_parse
check_with systemd-analyze "units" units_verify
check_with systemd-tmpfiles "group and directories" directories_are_made
check_with apparmor_parser "AppArmor" apparmor_reads_it
check "same bytes again" same_again

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
