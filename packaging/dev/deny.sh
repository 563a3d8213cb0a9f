#!/usr/bin/env bash
# Licences, bans, sources and advisories of every crate we link, by deny.toml.
# The advisory database is a git repository; a machine that cannot reach it still checks everything else, and says so.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$top"

# The newest release that each rustc can build.
if version_at_least "$(rustc_version)" 1.88; then release=0.20.2; else release=0.18.3; fi
if [ "$(cargo-deny --version 2>/dev/null)" != "cargo-deny $release" ]; then
    say "building cargo-deny $release into $cache/tools (once; a minute or more)"
    # It runs for a second: not worth optimising, nor its debug information.
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=$cache/tools/build cargo install cargo-deny \
        --version "$release" --locked --debug --force --root "$cache/tools"
    rm -rf "$cache/tools/build"
fi

cargo-deny --locked check --hide-inclusion-graph licenses bans sources

# A mirror is used by git's own means: git config --global url.<mirror>.insteadOf https://github.com/rustsec/advisory-db
db=https://github.com/rustsec/advisory-db
if timeout 60 git ls-remote --quiet "$db" HEAD >/dev/null 2>&1; then
    cargo-deny --locked check --hide-inclusion-graph advisories
else
    echo "deny: SKIPPED advisories: $db cannot be reached from here." >&2
    echo "deny: known vulnerabilities were NOT looked for." >&2
fi
