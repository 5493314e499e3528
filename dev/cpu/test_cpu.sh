#!/usr/bin/env bash
# Builds dev/cpu/test_cpu.cu three times (plain, ASan+UBSan, TSan), runs the three, and the plain one once more with
# ucontext switches, the fallback for other CPUs. TAP on stdout, the build's name before each check. About half a minute
# on 2 cores; builds in build/cpu-test.
set -u
cd "$(dirname "$0")/../.." || exit 1
. dev/cpu/build.sh
dir=build/cpu-test
status=0
build_all() {  # two at a time
    build_program plain $dir dev/cpu/test_cpu.cu & local first=$!
    build_program asan $dir dev/cpu/test_cpu.cu & local second=$!
    wait $first && wait $second || return 1
    build_program tsan $dir dev/cpu/test_cpu.cu & first=$!
    build_program ucontext $dir dev/cpu/test_cpu.cu & second=$!
    wait $first && wait $second
}
if ! build_all; then
    echo "not ok dev/cpu/test_cpu: the build failed"
    exit 1
fi
for kind in plain asan tsan ucontext; do
    $run_without_aslr $dir/$kind/test_cpu >$dir/$kind/log 2>&1 || status=1
    sed -E "s/^(ok|not ok) /\1 $kind: /" $dir/$kind/log
done
exit $status
