#!/usr/bin/env bash
# SEAL's step (Algorithm 2, γ > 0) against plain SFT and against the PyTorch step that runs it as the reference does,
# two passes and padded micro-batches of 4: the same lengths, the same machine, three alternating rounds, medians.
#   dev/bench_seal.sh [--layers 4 --width 256 --heads 4 --vocab 8192 --batch 16]      PYTHON=venv/bin/python
#   (dev/reference/README.md)
#   BUILD=build/cuda-bf16: on a GPU, PyTorch there too      LENGTHS=FILE   a sample a line: safe|tune LENGTH PROMPT;
#   without one the lengths are log-normal, median 60
set -eu
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
"$python" -c 'import torch' 2>/dev/null || {
    echo "bench_seal: $python has no torch; see dev/reference/README.md" >&2; exit 2
}
build=${BUILD:-build/cpu-fp32} peer=()
[[ $build == *cuda* ]] && { peer=(--device cuda --dtype "${build##*-}"); backend=CUDA=1; }
[ -x "$build/dev/bench_seal" ] && [ -n "${NO_BUILD:-}" ] ||
    make --no-print-directory -j"$(nproc)" "${backend:-CPU=1}" "PRECISION=${build##*-}" "$build/dev/bench_seal" \
    >/dev/null
lengths=${LENGTHS:-build/bench_seal_lengths.txt}
if [ -z "${LENGTHS:-}" ]; then
    "$python" dev/reference/bench_seal_step.py --steps 1 --warmup 0 --layers 1 --width 64 --vocab 64 --heads 1 \
        --write-lengths "$lengths" >/dev/null
fi
unset OPENBLAS_CORETYPE  # OpenBLAS may choose its kernels for this CPU, as PyTorch does
ours=() theirs=() cost=() share=()
field() { sed -n "s/.*\"$1\": \([0-9.e-]*\).*/\1/p" <<<"$2"; }
for round in 1 2 3; do
    line=$("$build/dev/bench_seal" step --lengths "$lengths" "$@"); echo "  $line" >&2
    ours+=("$(field trained_tokens_per_s "$line")") cost+=("$(field token_cost_against_sft "$line")") \
        share+=("$(field omega_share "$line")")
    line=$("$python" dev/reference/bench_seal_step.py "${peer[@]}" --lengths "$lengths" "$@"); echo "  $line" >&2
    theirs+=("$(field trained_tokens_per_s "$line")")
done
median() { printf '%s\n' "$@" | sort -g | sed -n 2p; }
a=$(median "${ours[@]}") b=$(median "${theirs[@]}")
echo "ours $a trained tokens/s, PyTorch $b, ratio $(awk "BEGIN { printf \"%.2f\", $a / $b }");" \
    "a token costs $(median "${cost[@]}") of one of SFT; omega's update takes $(median "${share[@]}") of a step"
