#!/usr/bin/env bash
# A login node has the CUDA Toolkit and no GPU, often no driver: the GPU build is made there, for one architecture, and
# plans runs (`check`, `--dry-run`), refuses to train in one line, and does what needs no GPU. On a machine with a GPU
# that GPU is hidden.
# usage: login_node.sh [bf16|fp32]      ARCHS=90    needs nvcc, cuBLAS; takes minutes, since nvcc compiles every kernel
set -u
cd "$(dirname "$0")/../.." || exit 1
precision=${1:-bf16}
nvcc=${NVCC:-$(ls "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" 2>/dev/null || command -v nvcc || true)}
[ -n "$nvcc" ] || { echo "ok login node # SKIP nvcc not found"; exit 0; }
build=build/cuda-$precision log=$(mktemp); trap 'rm -f "$log"' EXIT
if ! make --no-print-directory -j"${JOBS:-$(nproc)}" CUDA=1 PRECISION="$precision" ARCHS="${ARCHS:-90}" \
    $build/train_seal $build/eval_seal >"$log" 2>&1; then
    echo "not ok a GPU build without a GPU"; grep -vE '^  ' "$log" | tail -20 | sed 's/^/    /'; exit 1
fi
echo "ok a GPU build without a GPU: $("$nvcc" --version | sed -n 's/.*release.*, V/nvcc /p'), $precision, warnings: $(grep -c 'warning' "$log")"
# CUDA's words differ where there is no driver and where there is one that finds no GPU.
driver='no CUDA-capable device is detected'
ldconfig -p | grep -q 'libcuda\.so\.1' || driver='CUDA driver version is insufficient for CUDA runtime version'
NO_GPU=$driver BUILD=$build bash dev/test/test_small_gpu.sh none
