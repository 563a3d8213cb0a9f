#!/usr/bin/env bash
# Hostile input: replays what has been found, then lets libFuzzer make up more, for HYBOND_FUZZ_SECONDS (20) a target.
# Usage: fuzz.sh [TARGET…]    of tests/fuzz/targets; all without
#
# What it tries is kept in target/fuzz/corpus/, and what makes a property fail in target/fuzz/found/: such a file goes into
# tests/fuzz/corpus/TARGET, where every `cargo test` replays it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$top"

seconds=${HYBOND_FUZZ_SECONDS:-20}
release=0.13.2
if [ "$(cargo-fuzz --version 2>/dev/null)" != "cargo-fuzz $release" ]; then
    say "building cargo-fuzz $release into $cache/tools (once; a minute or more)"
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=$cache/tools/build cargo install cargo-fuzz \
        --version "$release" --locked --debug --force --root "$cache/tools"
    rm -rf "$cache/tools/build"
fi

targets=("$@")
if [ $# = 0 ]; then
    for path in tests/fuzz/targets/*.rs; do targets+=("$(basename "$path" .rs)"); done
fi

out=$top/target/fuzz
machine=$(rustc -vV | awk '/^host:/{print $2}')
# Of a stable compiler, the coverage that libFuzzer needs is all that is asked for: memory is counted by the properties.
RUSTC_BOOTSTRAP=1 cargo fuzz build --fuzz-dir tests/fuzz --sanitizer none --features libfuzzer --target-dir "$out" \
    --target "$machine"

# Sockets and configurations of the runs.
TMPDIR=$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)/hybond-fuzz.XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

dictionary() {
    case $1 in
    xml) echo xml ;;
    config) echo toml ;;
    *) echo json ;;
    esac
}

# fuzz TARGET OPTION…: a run of 10 s hangs, one of 512 MiB leaks.
fuzz() {
    local target=$1
    shift
    "$out/$machine/release/$target" -timeout=10 -rss_limit_mb=512 -max_len=8192 -print_final_stats=1 \
        -dict="tests/fuzz/dict/$(dictionary "$target").dict" -artifact_prefix="$out/found/$target/" "$@"
}

passed=0 failed=0
tell() {
    local what=$1
    shift
    if "$@" >"$out/log" 2>&1; then
        echo "fuzz: $what: ok, $(awk '/^stat::number_of_executed_units/{print $2}' "$out/log") runs," \
            "$(grep -o 'cov: [0-9]*' "$out/log" | tail -n 1)"
        passed=$((passed + 1))
    else
        tail -n 60 "$out/log"
        echo "fuzz: $what: FAILED: $*"
        failed=$((failed + 1))
    fi
}

for target in "${targets[@]}"; do
    mkdir -p "$out/corpus/$target" "$out/found/$target"
    tell "$target, what is known" fuzz "$target" -runs=0 "tests/fuzz/corpus/$target"
    tell "$target, $seconds s" fuzz "$target" -max_total_time="$seconds" "$out/corpus/$target" "tests/fuzz/corpus/$target"
done

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
