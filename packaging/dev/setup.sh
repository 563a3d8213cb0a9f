#!/usr/bin/env bash
# Installs what hybond needs. Asks nothing, and is quick when everything is there.
# Usage: setup.sh build    for building, linting, packaging
#        setup.sh all      for the tests and the lab too: QEMU and what makes images
set -euo pipefail
. "$(dirname "$0")/lib.sh"

case ${1:-} in
build) ;;
# The lab knows which QEMU it needs and where Debian 12 has it.
all) "$top/tests/lab/images/packages.sh" </dev/null ;;
*) die "usage: setup.sh build|all" ;;
esac

# What is not on a fresh Debian, and who wants it.
packages=(
    ca-certificates curl git
    gcc libc6-dev            # linker, and ring's C parts
    g++                      # libFuzzer
    pkg-config libvirt-dev   # virt-sys
    musl-tools               # the static agent
    dpkg-dev                 # dpkg-shlibdeps
    shellcheck
)

missing=()
for package in "${packages[@]}"; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || die "run as root, or install first: apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update
    apt-get -y -q --no-install-recommends install "${missing[@]}" </dev/null
fi

"$top/packaging/dev/toolchain.sh"
