#!/usr/bin/env bash
# The libraries that may multiply for the CPU build, each chosen by name: the same checks of products, the same bits
# twice, one thread or two. On a CPU without AVX512_BF16 oneDNN has no bf16 product worth having, and the parts that it
# refuses are multiplied in fp32.
set -u
cd "$(dirname "$0")/../.." || exit 1
. dev/test/cli.sh
expect "a library that interrupts its program" ${CC:-gcc} -shared -fPIC -o "$work/ticks.so" dev/test/ticks.c
for precision in fp32 bf16; do
    check=build/cpu-$precision/dev/kernels/matmul
    for library in openblas onednn; do
        if [ $library = onednn ] && ! ldd $check | grep -q libdnnl; then
            refuse "$precision: a library that this build is without" "built without it" env CPU_GEMM=$library $check \
                --check --small
            continue
        fi
        for threads in 1 2; do
            CPU_GEMM=$library CPU_THREADS=$threads $check --check --small >"$work/first" 2>&1; status=$?
            truth "$precision, $library, $threads threads: every product is right" test $status -eq 0
            truth "$precision, $library, $threads threads: some were made" grep -q '^ok ' "$work/first"
            CPU_GEMM=$library CPU_THREADS=$threads $check --check --small >"$work/second" 2>&1
            truth "$precision, $library, $threads threads: the same bits again" cmp "$work/first" "$work/second"
        done
        # at full size: small products are over before a signal comes
        LD_PRELOAD=$work/ticks.so CPU_GEMM=$library CPU_THREADS=1 $check --check >"$work/interrupted" 2>&1; status=$?
        truth "$precision, $library: every product is right between signals" test $status -eq 0
    done
    refuse "$precision: a library of another name" "CPU_GEMM is onednn or openblas" env CPU_GEMM=mkl $check --check \
        --small
done
exit $failed
