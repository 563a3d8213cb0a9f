# Shared by the scripts of packaging/; sourced, never run.
# shellcheck shell=bash

# The repository, wherever the script was called from.
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${HYBOND_CACHE:-/var/cache/hybond-lab}
# Where rustup puts cargo, and `setup.sh` the tools that it built.
PATH=$PATH:${HOME:-/root}/.cargo/bin:$cache/tools/bin
export top cache PATH

say() { printf '\n== %s\n' "$*"; }
die() {
    printf 'hybond: %s\n' "$*" >&2
    exit 1
}

# version_at_least HAVE WANT
version_at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# The rustc in use, as 1.85.0; empty where there is none.
rustc_version() { if command -v rustc >/dev/null; then rustc --version | awk '{print $2}'; fi; }
