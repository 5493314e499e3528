#!/usr/bin/env bash
# Runs the test programs of a build and adds up their TAP lines; continues after a failure; the last line is `N passed,
# N failed`.
# usage: run.sh cpu|cuda "kernel checks" "device tests" "host tests" "scripts"      (ONLY=name runs the matching ones)
# JOBS programs at a time (CPU build: as many as there are cores, at most 4, each on its share of the cores; a GPU has
# one at a time); what a program said is printed when it has ended.
# A program that has not ended after LIMIT seconds (3600) is killed and has failed.
set -u
backend=$1 kernel_checks=$2 device_tests=$3 host_tests=$4 scripts=$5
export CMOCKA_MESSAGE_OUTPUT=TAP
cores=$(nproc)
if [ -z "${JOBS:-}" ]; then
    JOBS=1
    [ "$backend" = cpu ] && JOBS=$((cores < 4 ? cores : 4))
fi
if [ "$backend" = cpu ] && [ "$JOBS" -gt 1 ]; then
    share=$((cores / JOBS > 1 ? cores / JOBS : 1))
    export CPU_THREADS=${CPU_THREADS:-$share} OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-$share}
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Ctrl-C reaches this script only: `timeout` runs its program in a group of its own.
trap 'kill $(jobs -rp) 2>/dev/null; wait; exit 130' INT TERM

run_one() {  # number, label, command…: what is printed goes to $work/NUMBER.out, the counts to $work/NUMBER.counts
    local number=$1 label=$2; shift 2
    local start=$SECONDS status log=$work/$number.log
    timeout --kill-after=10 "${LIMIT:-3600}" "$@" >"$log" 2>&1 &
    local program=$!
    trap 'kill $program 2>/dev/null; wait $program; exit 130' INT TERM
    wait $program; status=$?
    [ $((SECONDS - start)) -lt "${LIMIT:-3600}" ] || echo "not ok $label: no end within ${LIMIT:-3600} s" >>"$log"
    local ok bad skip
    skip=$(grep -cE '^ok .*# SKIP' "$log"); ok=$(grep -cE '^ok ' "$log"); bad=$(grep -cE '^not ok ' "$log")
    ok=$((ok - skip))
    # A program that dies, or that leaves with an error without naming one, has failed once more than it says.
    if [ $status -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1; echo "not ok $label: exit status $status" >>"$log"; fi
    if [ $status -eq 0 ] && [ "$ok" -eq 0 ] && [ "$bad" -eq 0 ] && [ "$skip" -eq 0 ]; then
        bad=1; echo "not ok $label: ran no check" >>"$log"
    fi
    {
        printf '%-52s %5d passed, %d failed, %d skipped (%d s)\n' "$label" "$ok" "$bad" "$skip" $((SECONDS - start))
        grep -E '^ok .*# SKIP' "$log" | sed 's/^/    /'
        if [ "$bad" -gt 0 ]; then grep -vE '^ok ' "$log" | tail -40 | sed 's/^/    /'; fi
    } >"$work/$number.out"
    cat "$work/$number.out"
    echo "$ok $bad $skip" >"$work/$number.counts"
    rm -f "$log"
}

n=0
start() {  # folder of the programs, label, command…: when one of the JOBS places is free
    local build=$1 label=$2; shift 2
    [ -n "${ONLY:-}" ] && [[ $label != *$ONLY* ]] && return
    while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n; done
    n=$((n + 1))
    BUILD=$build run_one $n "$label" "$@" &
}

# The scripts come first: the longest of all are among them, and should not be what is waited for at the end.
for t in $scripts; do start build/$backend-fp32 "$t" bash "$t"; done
for precision in ${PRECISIONS:-fp32 bf16}; do
    for t in $device_tests $kernel_checks; do
        build=build/$backend-$precision
        case $t in
            dev/kernels/*) start $build "$precision $t" "$build/$t" --check ;;
            *) start $build "$precision $t" "$build/$t" ;;
        esac
    done
done
for t in $host_tests; do start build/$backend-fp32 "$t" "build/$backend-fp32/$t"; done
wait
read -r passed failed skipped ended \
    <<<"$(cat "$work"/*.counts 2>/dev/null | awk '{p += $1; f += $2; s += $3} END {print p + 0, f + 0, s + 0, NR}')"
[ "$ended" -eq $n ] || { echo "not ok $((n - ended)) programs left no count"; failed=$((failed + n - ended)); }
[ "$skipped" -gt 0 ] && echo "$skipped skipped"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
