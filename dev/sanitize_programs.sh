#!/usr/bin/env bash
# Whole programs under sanitizers: train_seal, eval_seal, tokenize, world and mix are built with ASan+UBSan (leaks are
# errors) and with TSan, and run the end-to-end tests of dev/test, kernels, host threads, files, refusals and all. Under
# TSan the kernels run on one thread and unwatched (dev/cpu/sanitize.sh watches them); what it watches here is the
# host's own threads: tokenisers, the writer of checkpoints, the watch between ranks.
# usage: dev/sanitize_programs.sh [asan|tsan] [TEST…]     default: both, all tests; TEST is seal for
# dev/test/test_seal.sh. Some forty minutes of one core for all.
#        dev/sanitize_programs.sh --sample                 what `make test-sanitize` runs
set -u
cd "$(dirname "$0")/.." || exit 1
kinds="asan tsan" tests=
case ${1:-} in
    asan | tsan) kinds=$1; shift ;;
    --sample) tests="sanitize_sample"; shift ;;
esac
tests=${tests:-$*}
# not these: they run no program, or one that is built with other flags, or would take hours
tests=${tests:-$(ls dev/test/test_*.sh | sed -E 's/.*test_(.*)\.sh/\1/' | grep -vE '^(readme|fuzz_seeds|demo)$')}
export ASAN_OPTIONS=detect_stack_use_after_return=0:${ASAN_OPTIONS:-} \
    UBSAN_OPTIONS=print_stacktrace=1:${UBSAN_OPTIONS:-} TSAN_OPTIONS=halt_on_error=1:${TSAN_OPTIONS:-}
run_without_aslr=
if command -v setarch >/dev/null && setarch "$(uname -m)" -R true 2>/dev/null; then  # TSan's map of memory
    run_without_aslr="setarch $(uname -m) -R"
fi
# MPI keeps what it starts with, in plugins that are gone when leaks are looked for: not what mpirun starts.
real_mpirun=$(command -v mpirun) wrapper=$(mktemp -d)
trap 'rm -rf "$wrapper"' EXIT
if [ -n "$real_mpirun" ]; then
    printf '#!/bin/sh\nASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 exec %s "$@"\n' "$real_mpirun" >"$wrapper/mpirun"
    chmod +x "$wrapper/mpirun"
    PATH=$wrapper:$PATH
fi
failed=0 passed=0
for kind in $kinds; do
    build=build/cpu-fp32-$kind
    make --no-print-directory -j"${JOBS:-$(nproc)}" CPU=1 PRECISION=fp32 SANITIZE="$kind" \
        $(printf "$build/%s " train_seal eval_seal tokenize world mix) >/tmp/sanitize.$$ 2>&1 || {
        tail -20 /tmp/sanitize.$$; echo "not ok $kind: the build failed"; exit 1
    }
    rm -f /tmp/sanitize.$$
    for t in $tests; do
        start=$SECONDS
        script=dev/test/test_$t.sh
        [ "$t" = sanitize_sample ] && script=dev/test/sanitize_sample.sh
        log=$build/$t.log
        BUILD=$build $run_without_aslr bash "$script" >"$log" 2>&1
        ok=$(grep -c '^ok ' "$log") bad=$(grep -c '^not ok ' "$log")
        passed=$((passed + ok)) failed=$((failed + bad))
        echo "$kind $t: $ok passed, $bad failed ($((SECONDS - start)) s)"
        [ "$bad" -eq 0 ] || grep '^not ok' "$log" | head -10 | sed 's/^/    /'
    done
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
