#!/usr/bin/env bash
# Sees to a Rust toolchain. One that is there and new enough is used as it is; otherwise rustup brings one.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

wanted=$(awk -F '"' '/^rust-version/{print $2}' "$top/Cargo.toml")
have=$(rustc_version)

if ! command -v cargo >/dev/null || ! version_at_least "${have:-0}" "$wanted"; then
    say "no Rust $wanted or newer here (found: ${have:-none}); installing one with rustup"
    if ! command -v rustup >/dev/null && apt-cache show rustup >/dev/null 2>&1; then
        # Debian 13 has it; its cargo and rustc are wrappers that obey rustup.
        DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends install rustup </dev/null
    fi
    if command -v rustup >/dev/null; then
        rustup toolchain install stable --profile minimal --component rustfmt --component clippy
        rustup default stable
    else
        curl --proto '=https' --tlsv1.2 --retry 3 -sSf https://sh.rustup.rs |
            sh -s -- -y --no-modify-path --default-toolchain stable --profile minimal -c rustfmt -c clippy
    fi
    have=$(rustc_version)
    version_at_least "${have:-0}" "$wanted" || die "rustc is ${have:-still missing}; hybond needs $wanted or newer"
fi

# The static agent is smallest with musl. Where the target cannot be had, packaging/deb/agent.sh links glibc statically.
if command -v rustup >/dev/null && ! rustup target list --installed | grep -qx x86_64-unknown-linux-musl; then
    rustup target add x86_64-unknown-linux-musl ||
        echo "hybond: no musl target for this toolchain; the agent will be linked with a static glibc, which is larger" >&2
fi
