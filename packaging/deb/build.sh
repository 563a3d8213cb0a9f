#!/usr/bin/env bash
# Builds hybond_VERSION_ARCH.deb and hybond-agent_VERSION_ARCH.deb into target/packages. The same commit on the same
# machine gives the same bytes, so packages that are there and made from the same are left, unless told: build.sh anew.
set -euo pipefail
. "$(dirname "$0")/../dev/lib.sh"
. "$(dirname "$0")/lib.sh"
cd "$top"
umask 022

arch=$(dpkg --print-architecture)
[ "$arch" = amd64 ] || die "packages are built for amd64 only; this machine is $arch"
version=$(cargo metadata --locked --no-deps --format-version 1 |
    sed -n 's/.*"name":"hybond-daemon","version":"\([^"]*\)".*/\1/p')
[ -n "$version" ] || die "cargo metadata names no version of hybond-daemon"
maintainer="hybond developers <hybond@example.org>"
# The time of the commit, or of the sources where there is no git.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.lock)}
export SOURCE_DATE_EPOCH
# CARGO_TARGET_DIR moves the programs; the packages are always here.
built=${CARGO_TARGET_DIR:-target}
out=$top/target/packages
mkdir -p target
exec {lock}>target/packages.lock
flock "$lock"

# Neither this folder's name nor that of the registry's cache ends up in the programs.
remap="--remap-path-prefix=$top=/usr/src/hybond --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/usr/src/cargo"
say "programs of a host"
RUSTFLAGS="${RUSTFLAGS:-} $remap" cargo build --locked --profile packaged -p hybond-daemon -p hybond-cli
RUSTFLAGS="${RUSTFLAGS:-} $remap" cargo build --locked --profile tiny -p hybond-hook

say "program of a guest"
target=x86_64-unknown-linux-musl
agent_limit=$((1024 * 1024))
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    target=x86_64-unknown-linux-gnu
    echo "hybond: no musl target here: hybond-agent is linked with a static glibc, and larger for it" >&2
    remap="$remap -C target-feature=+crt-static"
    agent_limit=$((2 * 1024 * 1024))
fi
RUSTFLAGS="${RUSTFLAGS:-} $remap" cargo build --locked --profile tiny -p hybond-agent --target "$target"
agent=$built/$target/tiny/hybond-agent

made_from=$({
    printf '%s\n' "$version" "$SOURCE_DATE_EPOCH"
    find packaging systemd docs "$built"/packaged/hybond{d,ctl} "$built/tiny/hybond-hook" "$agent" -type f -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum
} | sha256sum)
debs=("$out/hybond_${version}_$arch.deb" "$out/hybond-agent_${version}_$arch.deb")
if [ "${1:-}" != anew ] && [ -e "${debs[0]}" ] && [ -e "${debs[1]}" ] &&
    [ "$(cat "$out/made-from" 2>/dev/null)" = "$made_from" ]; then
    say "packages are up to date"
    ls -l "${debs[@]}"
    exit
fi

rm -rf "$out"
mkdir -p "$out"
say "package hybond"
# shellcheck source=hybond/stage.sh
. packaging/deb/hybond/stage.sh
say "package hybond-agent"
# shellcheck source=hybond-agent/stage.sh
. packaging/deb/hybond-agent/stage.sh

echo "$made_from" >"$out/made-from"
say "built"
ls -l "${debs[@]}"
