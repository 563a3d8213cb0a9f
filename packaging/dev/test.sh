#!/usr/bin/env bash
# Runs test suites one after the other and adds their results up. A suite that fails does not keep the next from running.
# Usage: test.sh SUITE…         each one of those below
#        test.sh SUITE,SUITE+SUITE,SUITE …  what is before the plus and what is behind it at the same time: where no suite keeps
#                               two cores busy
#
# A suite's output is shown as it comes and kept in target/test/SUITE.log. Counted are cargo's `test result:` lines and
# plain `N passed, N failed` lines. The last line printed is the sum, in that plain form.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$top"

suites="lint, unit, pair, netns, qemu, packages, fuzz, guest, lab, crash, faults, hosts, tier3, cards, ground, soak, soak-tier3, coverage"

# Tests of these crates need root, QEMU or minutes, so each is a suite of its own.
own_suite=(hybond-test-pair hybond-test-netns hybond-test-qemu hybond-lab)

suite() {
    case $1 in
    lint) limit 15m packaging/dev/lint.sh ;;
    unit) limit 25m cargo test --locked --no-fail-fast --workspace "${own_suite[@]/#/--exclude=}" ;;
    pair) limit 15m cargo test --locked --no-fail-fast -p hybond-test-pair ;;
    # Namespaces, emulated NICs and whole hosts are shared by the tests of one crate: one at a time.
    netns) limit 10m cargo test --locked --no-fail-fast -p hybond-test-netns -- --test-threads=1 ;;
    qemu) limit 15m cargo test --locked --no-fail-fast -p hybond-test-qemu -- --test-threads=1 ;;
    packages) limit 20m packaging/deb/test.sh ;;
    # As long as it is told to, and the build.
    fuzz) limit $((6 * ${HYBOND_FUZZ_SECONDS:-20} + 1500))s packaging/dev/fuzz.sh ;;
    # Ignored by a plain `cargo test`, as they boot guests and hosts. Both take the programs out of the built packages.
    guest)
        limit 15m tests/lab/images/guest.sh &&
            HYBOND_AGENT=$top/target/packages/hybond-agent/usr/sbin/hybond-agent \
                limit 20m cargo test --locked --no-fail-fast -p hybond-agent --test qemu -- --ignored --test-threads=1 --nocapture
        ;;
    lab)
        limit 40m cargo test --locked --no-fail-fast -p hybond-lab --lib --bins --test tier2 --test lives --test soak --test faults \
            -- --include-ignored --test-threads=1 --nocapture
        ;;
    # Hosts of its own, so that it can run beside other suites.
    crash)
        HYBOND_LAB=crash limit 40m cargo test --locked -p hybond-lab --test crash -- --include-ignored --test-threads=1 --nocapture
        ;;
    # All that can go wrong: every crash point, every fault, every invariant; a line for each.
    faults) everything_that_goes_wrong 2>&1 | tally ;;
    # The first time, libvirt's modular daemons are compiled for it.
    hosts)
        limit 60m cargo test --locked --no-fail-fast -p hybond-lab --test hosts --test pools --test modular \
            -- --include-ignored --test-threads=1 --nocapture
        ;;
    tier3)
        limit 60m cargo test --locked --no-fail-fast -p hybond-lab --test tier3 \
            -- --include-ignored --test-threads=1 --nocapture --skip cards:: --skip long:: --skip befallen::
        ;;
    # The rest of tier 3: flavors, and what a card's functions are set to.
    cards)
        limit 40m cargo test --locked --no-fail-fast -p hybond-lab --test tier3 -- --ignored --test-threads=1 --nocapture cards::
        ;;
    # The lab itself, without hybond: who doubts it looks here first.
    ground)
        limit 30m cargo test --locked -p hybond-lab --test ground -- --include-ignored --test-threads=1 --nocapture
        ;;
    # Large, where the environment does not say how large: 14 guests fill all VFs of a host of tier 2.
    soak)
        HYBOND_SOAK_GUESTS=${HYBOND_SOAK_GUESTS:-14} HYBOND_SOAK_MIGRATIONS=${HYBOND_SOAK_MIGRATIONS:-60} \
            limit 90m cargo test --locked -p hybond-lab --test soak -- --ignored --test-threads=1 --nocapture
        ;;
    # One guest on emulated hosts, under traffic: 20 migrations.
    soak-tier3)
        limit 90m cargo test --locked -p hybond-lab --test tier3 -- --ignored --test-threads=1 --nocapture long::
        ;;
    # Last: by the logs of the others. What it writes becomes docs/coverage.md after a run of all.
    coverage) coverage ;;
    *) die "no suite named $1; there are $suites" ;;
    esac
}

# Each crash point, each fault, each invariant says a line, "FALLS SHORT" in it where it does.
everything_that_goes_wrong() {
    local status=0
    HYBOND_CRASH_POINTS=all HYBOND_FAULTS=all limit 70m cargo test --locked --no-fail-fast -p hybond-lab --test crash \
        --test faults -- --include-ignored --test-threads=1 --nocapture || status=$?
    # What befalls whole hosts.
    limit 30m cargo test --locked --no-fail-fast -p hybond-lab --test tier3 -- --ignored --test-threads=1 --nocapture \
        befallen:: || status=$?
    # Other schedules than those of every `make test`, and more.
    HYBOND_PAIR_SEED=random PROPTEST_CASES=${PROPTEST_CASES:-200000} \
        limit 15m cargo test --locked --no-fail-fast -p hybond-test-pair -- --nocapture || status=$?
    invariant 6 "the hook cannot hurt domains that are not hybond's" -p hybond-hook || status=$?
    invariant 7 "a guest can affect its own pair and nothing else" -p hybond-guest || status=$?
    invariant 8 "a peer can ask for little, over mutual TLS" -p hybond-peer || status=$?
    return "$status"
}

# invariant NUMBER WORDS OPTION…: one that a crate's own tests show.
invariant() {
    local status=0 own passed failed
    own=$logs/invariant-$1.log
    limit 15m cargo test --locked --no-fail-fast "${@:3}" -- --nocapture 2>&1 | tee "$own" || status=$?
    read -r passed failed _ < <(count "$own")
    [ "$status" = 0 ] && [ "$passed" -gt 0 ] || failed="$failed, FALLS SHORT: status $status"
    echo "invariant $1, $2: $passed tests passed, $failed failed"
    return "$status"
}

# Passes on what is said, and counts the lines of crash points, faults and invariants at its end.
tally() {
    awk '
        { print; fflush(); line = $0; sub(/^test [^ ]+ \.\.\. /, "", line) }
        line ~ /^(crash point|fault|invariant) .*: / {
            kind = substr(line, 1, index(line, " ") - 1)
            all[kind]++
            if (line !~ /FALLS SHORT/) well[kind]++
        }
        END {
            passed = well["crash"] + well["fault"] + well["invariant"]
            printf "\n%d of %d crash points, %d of %d faults, %d of %d invariants\n", well["crash"], all["crash"], \
                well["fault"], all["fault"], well["invariant"], all["invariant"]
            printf "%d passed, %d failed\n", passed, all["crash"] + all["fault"] + all["invariant"] - passed
        }'
}

# limit TIME COMMAND…: ended with everything it started when it takes longer; nothing reads a terminal.
limit() { timeout --kill-after=30s "$@" </dev/null; }

# coverage: what each row of tests/coverage/coverage.toml came to, in target/test/coverage.md.
coverage() {
    local status=0
    cargo run --quiet --locked -p hybond-coverage -- report "$logs" "$(date -u +%F), $(git describe --always --dirty)" \
        >"$logs/coverage.part" || status=$?
    # Of a run that has failed, too: it says what has.
    mv "$logs/coverage.part" "$logs/coverage.md" && return "$status"
}

# count FILE: "PASSED FAILED SKIPPED", summed over its lines. What one suite ignores is run by another: guest, lab, crash,
# hosts, tier3 and ground run every test that is ignored.
count() {
    awk '
        /^test result: / {
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^passed;?$/) passed += $(i - 1)
                if ($i ~ /^failed;?$/) failed += $(i - 1)
            }
        }
        /^[0-9]+ passed, [0-9]+ failed/ {
            passed += $1; failed += $3
            if ($0 ~ /, [0-9]+ skipped$/) skipped += $5
        }
        END { print passed + 0, failed + 0, skipped + 0 }' "$1"
}

# why FILE: the tests that failed and what they said, out of a log that is long. Who sees the end of a run only, as of CI, sees
# this. With --nocapture a test's "FAILED" stands on a line of its own, and cargo's list of failures has the name.
why() {
    awk '
        /^failures:$/ { listed = 1; next }
        /^test result: / { listed = 0 }
        listed && /^    [A-Za-z0-9_:]+$/ { print "failed:" $0 }
        # The message, and not the backtrace behind it.
        /^note: run with|^stack backtrace:/ { left = 0 }
        /^(test .* )?thread .* panicked at |^(test .* )?Error: |FALLS SHORT/ { left = 12 }
        left > 0 { print substr($0, 1, 600); left-- }' "$1" | tail -n 80
}

# run SUITE: shows what the suite says, keeps it, and leaves its status and how long it took beside it.
run() {
    local status=0 begun=$SECONDS
    suite "$1" 2>&1 | tee "$logs/$1.log" || status=$?
    echo "$status $((SECONDS - begun))" >"$logs/$1.status"
}

# Where several talk at a time, each line says whose it is.
run_lane() {
    local name
    for name in ${1//,/ }; do run "$name" | sed -u "s/^/$name: /"; done
}

[ $# -gt 0 ] || die "which suite? $suites"
logs=target/test
mkdir -p "$logs"
total_passed=0 total_failed=0 total_skipped=0
table=() failing=()
for group in "$@"; do
    say "$group"
    IFS=+ read -ra lanes <<<"$group"
    IFS=,+ read -ra names <<<"$group"
    if [ ${#names[@]} = 1 ]; then
        run "$group"
    else
        for lane in "${lanes[@]}"; do run_lane "$lane" & done
        wait
    fi
    for name in "${names[@]}"; do
        read -r status seconds <"$logs/$name.status"
        rm "$logs/$name.status"
        read -r passed failed skipped < <(count "$logs/$name.log")
        # Did not compile, ran out of time, crashed: no line says so, so the status does.
        note=
        if [ "$status" != 0 ] && [ "$failed" = 0 ]; then
            failed=1
            note="ended with status $status"
            [ "$status" != 124 ] || note="ran out of time"
        elif [ "$status" = 0 ] && [ "$passed" = 0 ]; then
            failed=$((failed + 1))
            note="ran no test"
        fi
        table+=("$(printf '%-10s %6d passed %4d failed %4d skipped %6d s  %s' \
            "$name" "$passed" "$failed" "$skipped" "$seconds" "$note")")
        [ "$failed" = 0 ] || failing+=("$name")
        total_passed=$((total_passed + passed))
        total_failed=$((total_failed + failed))
        total_skipped=$((total_skipped + skipped))
    done
done

for name in "${failing[@]}"; do
    say "what failed in $name"
    why "$logs/$name.log"
done
say "result"
printf '%s\n' "${table[@]}"
printf '\n%d passed, %d failed' "$total_passed" "$total_failed"
[ "$total_skipped" = 0 ] || printf ', %d skipped' "$total_skipped"
echo
[ "$total_failed" = 0 ]
