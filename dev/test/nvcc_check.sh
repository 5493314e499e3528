#!/usr/bin/env bash
# Compiles every .cu file for sm_80 and sm_90 with warnings as errors, fails on register spills in seal_kernels, and
# looks for tensor-core instructions (HMMA) in the bf16 attention. Runs nothing, so it needs no GPU.
#   nvcc_check.sh            all of it
#   nvcc_check.sh --hosts    the host's half alone, under every compiler of HOST_COMPILERS that is installed
set -u
nvcc=${NVCC:-$(command -v nvcc || true)}
if [ -z "$nvcc" ]; then echo "ok nvcc # SKIP nvcc not found"; exit 0; fi
out=$(mktemp -d); trap 'rm -rf "$out"' EXIT
status=0
fatal=; [ "${WERROR:-}" = 1 ] && fatal="-Werror all-warnings"  # as in CI; otherwise they are shown
# for seal/base/ranks.cu, which needs NCCL's header too
mpi=$(mpicc -show 2>/dev/null | tr ' ' '\n' | grep '^-I' | tr '\n' ' ')
[ -n "$mpi" ] || echo "ok nvcc seal/base/ranks.cu # SKIP mpicc not found"
compile() {  # file, precision, architectures in one call
    local file=$1 precision=$2 name=$out/${1//\//_}.$2 flag=''
    local log=$name.log  # seal_kernels and dev/kernels hold files of the same name
    [ "$precision" = bf16 ] && flag=-DPRECISION_BF16
    if [ "$file" = seal/base/ranks.cu ]; then
        [ -n "$mpi" ] || return 0
        flag="$flag $mpi -DOMPI_SKIP_MPICXX -DMPICH_SKIP_MPICXX"
    fi
    if ! "$nvcc" -std=c++17 -O3 -Xptxas -v $fatal -Xcompiler -Wall,-Wextra,-Wno-unused-parameter $flag \
            -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90 \
            -Iseal_kernels -Iseal -Itokenizer -Idev/test -Idev/kernels -c "$file" -o "$name.o" >"$log" 2>&1; then
        echo "not ok nvcc $precision $file: does not compile"; head -20 "$log"; return 1
    fi
    if [[ $file == seal_kernels/* ]] && grep -E '[1-9][0-9]* bytes spill' "$log" >/dev/null; then
        echo "not ok nvcc $precision $file: register spills"; grep -B2 -E '[1-9][0-9]* bytes spill' "$log" | head -30
        return 1
    fi
    echo "ok nvcc $precision $file"
}
hosts_only=; [ "${1:-}" = --hosts ] && hosts_only=1
if [ -z "$hosts_only" ]; then
    for precision in fp32 bf16; do
        for file in seal_kernels/*.cu seal/*.cu seal/*/*.cu dev/kernels/*.cu dev/test/*.cu dev/*.cu *.cu; do
            [ -f "$file" ] || continue
            compile "$file" "$precision" &
            while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n || status=1; done
        done
    done
    while [ "$(jobs -rp | wc -l)" -gt 0 ]; do wait -n || status=1; done
fi
# The host's half under the other compilers that CUDA 12 and 13 take, where they are installed: to PTX only, which skips
# the assembler for each GPU. The default one has had its turn above.
compile_host() {  # compiler, precision, file
    local host=$1 flags='' file=$3 log=$out/$1.${3//\//_}.$2
    [ "$2" = bf16 ] && flags=-DPRECISION_BF16
    if [ "$file" = seal/base/ranks.cu ]; then
        [ -n "$mpi" ] || return 0
        flags="$flags $mpi -DOMPI_SKIP_MPICXX -DMPICH_SKIP_MPICXX"
    fi
    "$nvcc" -std=c++17 -ccbin "$host" $fatal -Xcompiler -Wall,-Wextra,-Wno-unused-parameter $flags -arch=compute_90 \
        -code=compute_90 \
        -Iseal_kernels -Iseal -Itokenizer -Idev/test -Idev/kernels -c "$file" -o "$log.o" >"$log" 2>&1 &&
        { [ -z "$fatal" ] || ! grep -q warning "$log"; } && return 0
    echo "not ok nvcc with $host, $2 $file"; head -20 "$log"; return 1
}
version() { "$1" -dumpfullversion 2>/dev/null; }
for host in ${HOST_COMPILERS:-g++-11 g++-12 g++-13}; do
    command -v "$host" >/dev/null || { echo "ok nvcc with $host # SKIP not installed"; continue; }
    if [ -z "$hosts_only" ] && [ "$(version "$host")" = "$(version g++)" ]; then continue; fi
    bad=0
    for precision in fp32 bf16; do
        for file in seal_kernels/*.cu seal/*.cu seal/*/*.cu *.cu; do
            compile_host "$host" "$precision" "$file" &
            while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n || bad=1; done
        done
    done
    while [ "$(jobs -rp | wc -l)" -gt 0 ]; do wait -n || bad=1; done
    if [ $bad = 0 ]; then
        echo "ok nvcc with $host $(version "$host") compiles seal_kernels, seal and the programs"
    else
        status=1
    fi
done
[ -z "$hosts_only" ] || exit $status
# Tensor-core instructions without a disassembler, which the toolkit's packages may lack: a SASS instruction is 16
# aligned bytes, its low 12 bits are the opcode, and HMMA's is 0x23c. The fp32 attention, which has none, shows that the
# count means what it says.
hmma() {  # file, flags → count of HMMA in its cubin
    "$nvcc" -std=c++17 -O3 -cubin -arch=sm_90 $2 -Iseal_kernels "$1" -o "$out/x.cubin" 2>/dev/null &&
        od -An -v -tx8 -w16 "$out/x.cubin" | awk 'substr($1, 14, 3) == "23c" { n++ } END { print n + 0 }'
}
bf16=$(hmma seal_kernels/attention_bf16.cu -DPRECISION_BF16) fp32=$(hmma seal_kernels/attention_fp32.cu '')
if [ "${bf16:-0}" -ge 100 ] && [ "${fp32:-1}" -eq 0 ]; then
    echo "ok bf16 attention uses tensor cores: $bf16 HMMA in its SASS, none in the fp32 one"
else echo "not ok bf16 attention uses tensor cores: ${bf16:-no} HMMA in its SASS, ${fp32:-no} in the fp32 one"
status=1; fi
exit $status
