#!/usr/bin/env bash
# Sees to a Rust toolchain. One that is there and new enough is used as it is. Otherwise rustup brings one, and where its
# server cannot be reached, Debian's own is taken if it is new enough (Debian 13's is).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

wanted=$(awk -F '"' '/^rust-version/{print $2}' "$top/Cargo.toml")
new_enough() { command -v cargo >/dev/null && version_at_least "$(rustc_version)" "$wanted"; }
offered() { apt-cache policy "$1" | awk '/Candidate:/ && $2 != "(none)" {print $2}'; }
install() { DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends install "$@" </dev/null; }

# Which one rustup brings: what the project is tested with. A later clippy finds more, and `make lint` denies warnings.
tested=1.95.0

by_rustup() {
    # Debian 13 has rustup itself; its cargo and rustc obey it.
    if ! command -v rustup >/dev/null && [ -n "$(offered rustup)" ]; then install rustup; fi
    if command -v rustup >/dev/null; then
        rustup toolchain install "$tested" --profile minimal --component rustfmt --component clippy &&
            rustup default "$tested"
    else
        # What the script of rustup.rs does: fetch the installer of this machine's kind, hold it against its sum, run it.
        local from=https://static.rust-lang.org/rustup/dist/x86_64-unknown-linux-gnu folder
        folder=$(mktemp -d)
        trap 'rm -rf "$folder"' RETURN
        (
            cd "$folder"
            for file in rustup-init rustup-init.sha256; do
                curl --proto '=https' --tlsv1.2 --retry 3 --connect-timeout 20 -sSfO "$from/$file" || exit 1
            done
            # The sum's line names the file by its path on the server.
            echo "$(cut -d ' ' -f 1 rustup-init.sha256)  rustup-init" | sha256sum --check --quiet || exit 1
            chmod +x rustup-init
            ./rustup-init -y --no-modify-path --default-toolchain "$tested" --profile minimal -c rustfmt -c clippy
        )
    fi
}

by_debian() {
    local version
    version=$(offered rustc)
    version_at_least "${version:-0}" "$wanted" || return 1
    install cargo rustc rustfmt rust-clippy
}

if ! new_enough; then
    have=$(rustc_version)
    say "no Rust $wanted or newer here (found: ${have:-none}); installing one"
    by_rustup || by_debian || die "no Rust $wanted or newer can be had: neither from rustup nor from Debian; install one by hand"
    hash -r
    new_enough || die "rustc is $(rustc_version) after all; $(command -v rustc) comes first in PATH"
fi

# The static agent is smallest with musl. Where the target cannot be had, packaging/deb/build.sh links glibc statically.
if command -v rustup >/dev/null && ! rustup target list --installed | grep -qx x86_64-unknown-linux-musl; then
    rustup target add x86_64-unknown-linux-musl ||
        echo "hybond: no musl target for this toolchain; the agent will be linked with a static glibc, which is larger" >&2
fi
