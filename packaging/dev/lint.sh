#!/usr/bin/env bash
# What a change must satisfy before anyone reads it. Every check runs, whatever the others found.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$top"

passed=0 failed=0
check() {
    local name=$1
    shift
    if "$@"; then
        echo "lint: $name: ok"
        passed=$((passed + 1))
    else
        echo "lint: $name: FAILED: $*"
        failed=$((failed + 1))
    fi
}

scripts() {
    # By their first line, so that a script without a suffix is not forgotten.
    git ls-files -z --cached --others --exclude-standard |
        xargs -0 awk 'FNR == 1 && /^#!.*(\/|env )(sh|bash|dash)( |$)/ {print FILENAME} FNR > 1 {nextfile}'
}

shell() {
    local found
    mapfile -t found < <(scripts)
    [ ${#found[@]} -gt 0 ] || die "found no shell script: the search is broken"
    # Sourced files are followed, not guessed at.
    shellcheck --external-sources --source-path=SCRIPTDIR "${found[@]}"
}

check rustfmt cargo fmt --all -- --check
check clippy cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
check deny packaging/dev/deny.sh
check shellcheck shell
# Its results are those of some full run; its rows are those of the list.
check coverage cargo run --quiet --locked -p hybond-coverage -- check docs/coverage.md

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
