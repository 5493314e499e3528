#!/usr/bin/env bash
# What only nvcc compiles is tested by nobody without a GPU. Every place of the shipped sources that asks for __CUDACC__
# is in the table with its reason; the GPU's halves of kernels ask for DEVICE_HALVES, which g++ builds too
# (docs/ptx.md).
set -u
cd "$(dirname "$0")/../.." || exit 1
# FILE COUNT reason
allowed='
seal_kernels/cuda_common.h 2 the definition of DEVICE_HALVES; the words of the language: LAUNCH, SHARED, NVTX
seal_kernels/ptx.h 1 asm, which make test-ptx runs
seal/base/ranks.cu 1 the bus number of a GPU, by which two ranks on one are found
seal/device.cu 1 which build this is, for the default of --tokens
'
status=0
found=$(grep -cE '^[[:space:]]*#[[:space:]]*(if|ifdef|ifndef|elif).*__CUDACC__' \
    seal_kernels/*.cu seal_kernels/*.h seal/*.cu seal/*.h seal/*/*.cu seal/*/*.h train_seal.cu eval_seal.cu |
    grep -v ':0$')
while IFS=: read -r file count; do
    expected=$(awk -v f="$file" '$1 == f { print $2 }' <<<"$allowed")
    if [ "${expected:-0}" = "$count" ]; then
        why=$(awk -v f="$file" '$1 == f { $1 = $2 = ""; print substr($0, 3) }' <<<"$allowed")
        echo "ok $file: $count branches for nvcc alone ($why)"
    else
        status=1
        echo "not ok $file: $count branches for nvcc alone, ${expected:-0} expected;" \
            "DEVICE_HALVES is for what g++ can build"
    fi
done <<<"$found"
# Both halves of every DEVICE_HALVES are compiled by somebody: the plain build the CPU's, dev/cpu/sanitize.sh and make
# test-ptx the GPU's.
if grep -q CPU_DEVICE_HALVES dev/cpu/sanitize.sh && grep -q CPU_DEVICE_HALVES Makefile; then
    echo "ok the GPU's halves are built by make test-sanitize and make test-ptx"
else status=1; echo "not ok nobody builds the GPU's halves"; fi
# A kernel that prints or traps ends a program without a line of its own: what a kernel finds goes into a word that the
# host reads.
if awk 'FNR == 1 { inside = 0 }
        /__(global|device)__/ && !/__host__/ && !/^ *(\/\/|#)/ { inside = 1 }
        inside && /(^|[^_a-z])(__trap|assert|printf)\(/ { print "    " FILENAME ":" FNR ": " $0 }
        /^}/ { inside = 0 }' seal_kernels/*.cu seal_kernels/*.h | grep .; then
    status=1; echo "not ok no kernel prints, asserts or traps"
else echo "ok no kernel prints, asserts or traps"; fi
exit $status
