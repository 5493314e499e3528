#!/usr/bin/env bash
# Runs the test programs of a build and adds up their TAP lines; continues after a failure; the last line is `N passed, N failed`.
# usage: run.sh cpu|cuda "kernel checks" "device tests" "host tests" "scripts"      (ONLY=name runs the matching ones)
# A program that has not ended after LIMIT seconds (3600) is killed and has failed.
set -u
backend=$1 kernel_checks=$2 device_tests=$3 host_tests=$4 scripts=$5
export CMOCKA_MESSAGE_OUTPUT=TAP
passed=0 failed=0 skipped=0
log=$(mktemp) trap_files=()
trap 'rm -f "$log"' EXIT

run() {  # label, command…
    local label=$1; shift
    [ -n "${ONLY:-}" ] && [[ $label != *$ONLY* ]] && return
    local start=$SECONDS status
    timeout --kill-after=10 "${LIMIT:-3600}" "$@" >"$log" 2>&1; status=$?
    [ $((SECONDS - start)) -lt "${LIMIT:-3600}" ] || echo "not ok $label: no end within ${LIMIT:-3600} s" >>"$log"
    local ok bad skip
    skip=$(grep -cE '^ok .*# SKIP' "$log"); ok=$(grep -cE '^ok ' "$log"); bad=$(grep -cE '^not ok ' "$log")
    ok=$((ok - skip))
    # A program that dies, or that leaves with an error without naming one, has failed once more than it says.
    if [ $status -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; echo "not ok $label: exit status $status" >>"$log"; fi
    if [ $status -eq 0 ] && [ "$ok" -eq 0 ] && [ "$bad" -eq 0 ] && [ "$skip" -eq 0 ]; then bad=1; echo "not ok $label: ran no check" >>"$log"; fi
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
    printf '%-52s %5d passed, %d failed, %d skipped (%d s)\n' "$label" "$ok" "$bad" "$skip" $((SECONDS - start))
    grep -E '^ok .*# SKIP' "$log" | sed 's/^/    /'
    if [ "$bad" -gt 0 ]; then grep -vE '^ok ' "$log" | tail -40 | sed 's/^/    /'; fi
}

for precision in ${PRECISIONS:-fp32 bf16}; do
    export BUILD=build/$backend-$precision
    for t in $kernel_checks; do run "$precision $t" "$BUILD/$t" --check; done
    for t in $device_tests; do run "$precision $t" "$BUILD/$t"; done
done
export BUILD=build/$backend-fp32
for t in $host_tests; do run "$t" "$BUILD/$t"; done
for t in $scripts; do run "$t" bash "$t"; done
[ $skipped -gt 0 ] && echo "$skipped skipped"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
