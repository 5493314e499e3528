#!/usr/bin/env bash
# Compiles every .cu file for sm_80 and sm_90 with warnings as errors, fails on register spills in seal_kernels, and looks for tensor-core
# instructions (HMMA) in the bf16 attention. Runs nothing, so it needs no GPU.
set -u
nvcc=${NVCC:-$(command -v nvcc || true)}
if [ -z "$nvcc" ]; then echo "ok nvcc # SKIP nvcc not found"; exit 0; fi
out=$(mktemp -d); trap 'rm -rf "$out"' EXIT
status=0
compile() {  # file, precision, architectures in one call
    local file=$1 precision=$2 name=$out/${1//\//_}.$2 flag=''
    local log=$name.log  # seal_kernels and dev/kernels hold files of the same name
    [ "$precision" = bf16 ] && flag=-DPRECISION_BF16
    if ! "$nvcc" -std=c++17 -O3 -Xptxas -v -Werror all-warnings -Xcompiler -Wall,-Wextra,-Wno-unused-parameter $flag \
            -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90 \
            -Iseal_kernels -Iseal -Itokenizer -Idev/test -Idev/kernels -c "$file" -o "$name.o" >"$log" 2>&1; then
        echo "not ok nvcc $precision $file: does not compile"; head -20 "$log"; return 1
    fi
    if [[ $file == seal_kernels/* ]] && grep -E '[1-9][0-9]* bytes spill' "$log" >/dev/null; then
        echo "not ok nvcc $precision $file: register spills"; grep -B2 -E '[1-9][0-9]* bytes spill' "$log" | head -30; return 1
    fi
    echo "ok nvcc $precision $file"
}
export -f compile 2>/dev/null
for precision in fp32 bf16; do
    for file in seal_kernels/*.cu seal/*.cu dev/kernels/*.cu *.cu; do
        [ -f "$file" ] || continue
        compile "$file" "$precision" &
        while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n || status=1; done
    done
done
while [ "$(jobs -rp | wc -l)" -gt 0 ]; do wait -n || status=1; done
cuobjdump=$(dirname "$nvcc")/cuobjdump
[ -x "$cuobjdump" ] || cuobjdump=$(command -v cuobjdump)
object=$out/seal_kernels_attention_bf16.cu.bf16.o
if [ ! -f "$object" ]; then echo "not ok bf16 attention: no object to look into"; status=1
elif [ -z "$cuobjdump" ] || ! "$cuobjdump" -sass "$object" >"$out/sass" 2>/dev/null; then echo "ok bf16 attention's SASS # SKIP cuobjdump or nvdisasm not found"
elif grep -q HMMA "$out/sass"; then echo "ok bf16 attention uses tensor cores (HMMA)"
else echo "not ok bf16 attention: no HMMA in its SASS"; status=1; fi
exit $status
