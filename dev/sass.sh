#!/usr/bin/env bash
# What a GPU would issue, without a GPU: compiles a kernel file for one architecture and prints, for every loop of the
# kernels whose mangled name holds TEXT, its length and the commonest instructions. Needs nvcc and nvdisasm
# (NVDISASM=path; it is in the CUDA Toolkit, and in Python's triton package).
# usage: sass.sh FILE.cu TEXT      (PRECISION=bf16|fp32, ARCH=90)      sass.sh seal_kernels/attention_bf16.cu
#                                  attention_forward_kernelILi128
set -eu
cd "$(dirname "$0")/.." || exit 1
[ $# -eq 2 ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 2; }
nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)} nvdisasm=${NVDISASM:-nvdisasm}
command -v "$nvcc" >/dev/null || { echo "nvcc is not found: set NVCC" >&2; exit 2; }
command -v "$nvdisasm" >/dev/null || { echo "nvdisasm is not found: set NVDISASM" >&2; exit 2; }
flag=; [ "${PRECISION:-bf16}" = bf16 ] && flag=-DPRECISION_BF16
out=$(mktemp -d); trap 'rm -rf "$out"' EXIT
"$nvcc" -std=c++17 -O3 -cubin -arch=sm_"${ARCH:-90}" $flag -Xptxas -v -Iseal_kernels -Idev/kernels -Idev/test "$1" \
    -o "$out/x.cubin" 2>"$out/log" || {
    cat "$out/log" >&2; exit 1
}
grep -A3 "Compiling entry function '[^']*$2" "$out/log" | grep -E "spill|Used" | sed -E 's/ptxas info *: //; s/^ */  /'
"$nvdisasm" -c "$out/x.cubin" 2>/dev/null | awk -v text="$2" '
    /^\.text\./ { inside = index($0, text) > 0; if (inside) { print $1; n = 0; delete label } next }
    !inside { next }
    /^\.L_x_[0-9]+:/ { sub(/:.*/, ""); label[$0] = n; next }
    /^ +\/\*[0-9a-f]+\*\/ / {
        sub(/^ +\/\*[0-9a-f]+\*\/ +/, ""); sub(/^@!?U?P[0-9T]+ +/, "")
        split($0, word, /[ .;]/); op[n++] = word[1]
        if (word[1] != "BRA" || !match($0, /\.L_x_[0-9]+/)) next
        target = substr($0, RSTART, RLENGTH)
        if (!(target in label)) next  # a loop branches back
        delete count
        for (i = label[target]; i < n; i++) count[op[i]]++
        line = sprintf("  loop of %4d:", n - label[target])
        for (k = 0; k < 12; k++) {
            best = ""
            for (o in count) if (best == "" || count[o] > count[best] || (count[o] == count[best] && o < best)) best = o
            if (best == "") break
            line = line sprintf(" %s %d", best, count[best]); delete count[best]
        }
        print line
    }'
