# Common to the image scripts; sourced, never run.
#
# Each script makes one artifact, prints its path as the only line on standard output, and its progress on standard
# error. An artifact is a folder $HYBOND_CACHE/<name>-<key>, where <key> is a hash of everything that it is made from,
# so that a changed script or input makes a new one and an unchanged one costs nothing. It is built in a folder beside
# it and renamed when it is whole: an interrupted build leaves nothing that could be taken for the real thing.

set -euo pipefail
export LC_ALL=C
umask 022

IMAGES=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
HYBOND_CACHE=${HYBOND_CACHE:-/var/cache/hybond-lab}
mkdir -p "$HYBOND_CACHE"

# The release that the emulated hosts run: libvirt 11.3, QEMU 10.0, kernel 6.12.
HOST_RELEASE=trixie
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

started=$(date +%s)
progress() { printf 'lab: [%3d s] %s: %s\n' "$(($(date +%s) - started))" "$(basename "$0" .sh)" "$*" >&2; }
die() {
    printf 'lab: %s: %s\n' "$(basename "$0" .sh)" "$*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || die "must run as root: it makes file systems with their owners, and mounts"

# Mounts are made in a mount namespace of the script's own: they end with it, however it ends.
if [ -z "${LAB_UNSHARED:-}" ]; then
    export LAB_UNSHARED=1
    exec unshare --mount "$0" "$@"
fi

# Base address of an archive for suite $1 (a release, or <release>-security), as this machine's apt is configured.
# `indextargets` answers from one-line and deb822 sources alike.
archive() {
    local codename kind=$1 suite
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    suite=$codename
    [ "$kind" = security ] && suite=$codename-security
    # shellcheck disable=SC2016 # apt's own placeholders
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v s="$suite" '$2 == s && $3 == "main" && !found { print $1; found = 1 }'
}

# key ITEM…: hash of other artifacts' names, which hold their keys, of the contents of files and folders, and of texts.
key() {
    for item in "$@"; do
        if [ "${item#"$HYBOND_CACHE"/}" != "$item" ]; then
            basename "$item"
        elif [ -d "$item" ]; then
            (cd "$item" && find . -type f -print0 | sort -z | xargs -0 sha256sum)
        elif [ -f "$item" ]; then
            sha256sum <"$item"
        else
            printf '%s\n' "$item"
        fi
    done | sha256sum | cut -c1-12
}

# artifact NAME INPUT…: prints the path and ends the script if the artifact is there. Otherwise waits for whoever is
# building it, and sets $out (the path) and $work (the folder to build in).
artifact() {
    local name=$1
    shift
    out=$HYBOND_CACHE/$name-$(key "$IMAGES/lib.sh" "$0" "$@")
    # A shared lock on an artifact says that someone runs on it; prune() respects it.
    if [ -e "$out" ]; then
        echo "$out"
        exit 0
    fi
    exec {build_lock}>"$HYBOND_CACHE/$name.lock"
    if ! flock -n "$build_lock"; then
        progress "waiting for another build of it"
        flock "$build_lock"
    fi
    if [ -e "$out" ]; then
        echo "$out"
        exit 0
    fi
    rm -rf --one-file-system "$HYBOND_CACHE/.work-$name"
    work=$HYBOND_CACHE/.work-$name
    mkdir -p "$work"
    progress "building $(basename "$out")"
}

# The kernel's file systems, for programs run in a root file system.
mount_for_chroot() {
    local m
    for m in proc sys dev; do mount --rbind "/$m" "$1/$m"; done
}

# Puts the finished artifact in place, and removes its predecessors.
finish() {
    mv -T "$work" "$out"
    prune
    progress "done"
    echo "$out"
}

# Removes older artifacts of the same name that nothing runs on.
prune() {
    local name old
    name=$(basename "$out")
    name=${name%-*}
    for old in "$HYBOND_CACHE/$name"-*; do
        [ "$old" = "$out" ] && continue
        [ -d "$old" ] || continue
        # Its users hold a shared lock on the folder itself, which ends with their last process.
        if flock -xn "$old" true; then rm -rf --one-file-system "$old"; fi
    done
}

# run_logged LOG COMMAND…: output to a log; its end is shown when the command fails.
run_logged() {
    local log=$1
    shift
    if ! "$@" >>"$log" 2>&1 </dev/null; then
        tail -n 25 "$log" >&2
        die "\"${*:0:100}\" failed; the whole output is in $log"
    fi
}
