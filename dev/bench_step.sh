#!/usr/bin/env bash
# A training step against PyTorch eager on the same machine in the same run: three alternating rounds, the median of
# each side, and their ratio.
#   dev/bench_step.sh [--layers 4 --width 256 --heads 4 --vocab 8192 --tokens 1024 --samples 1]
#   PYTHON=venv/bin/python (dev/reference/README.md)   NO_BUILD=1 takes the program as it is   BUILD=build/cuda-bf16: on
#   a GPU, PyTorch there too
set -eu
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
"$python" -c 'import torch' 2>/dev/null || {
    echo "bench_step: $python has no torch; see dev/reference/README.md" >&2; exit 2
}
build=${BUILD:-build/cpu-fp32} peer=()
[[ $build == *cuda* ]] && { peer=(--device cuda --dtype "${build##*-}"); backend=CUDA=1; }
[ -x "$build/dev/bench_step" ] && [ -n "${NO_BUILD:-}" ] ||
    make --no-print-directory -j"$(nproc)" "${backend:-CPU=1}" "PRECISION=${build##*-}" "$build/dev/bench_step" \
    >/dev/null
ours=() theirs=()
unset OPENBLAS_CORETYPE  # OpenBLAS may choose its kernels for this CPU, as PyTorch does
ms() { sed -n 's/.*"ms": \([0-9.]*\).*/\1/p'; }
for round in 1 2 3; do
    ours+=("$("$build/dev/bench_step" step "$@" | tee /dev/stderr | ms)")
    theirs+=("$("$python" dev/reference/bench_gpt2_step.py "${peer[@]}" "$@" | tee /dev/stderr | ms)")
done 2> >(sed 's/^/  /' >&2)
median() { printf '%s\n' "$@" | sort -g | sed -n 2p; }
a=$(median "${ours[@]}") b=$(median "${theirs[@]}")
echo "ours $a ms, PyTorch eager $b ms, ratio $(awk "BEGIN { printf \"%.3f\", $a / $b }")"
