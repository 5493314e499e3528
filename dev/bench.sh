#!/usr/bin/env bash
# The ladders of dev/kernels: naive kernel and winner of each operation, with GB/s or TFLOP/s and, on a GPU, the share
# of the ceiling measured in the same run. usage: bench.sh BUILD "dev/kernels/gelu dev/kernels/loss …"
set -u
build=$1
for t in $2; do
    echo "== ${t##*/} (${build##*/})"
    "$build/$t" || echo "   failed: exit status $?"
done
