#!/usr/bin/env bash
# Everything a GPU machine should verify, in one run of at most 10 minutes: build, all tests on the device, compute-sanitizer on the small ones, the
# benchmarks. Needs no network and nothing outside the checkout; says what is missing. Writes a dated report into dev/results (or the folder given).
#   dev/gpu_check.sh [REPORT_FOLDER]      SECONDS_TOTAL=580 bounds the run      DEPS=DIR: a folder with include/ and lib/ of libraries this machine lacks
set -u
cd "$(dirname "$0")/.." || exit 1
folder=${1:-dev/results}; limit=${SECONDS_TOTAL:-580}
mkdir -p "$folder"
if [ -n "${DEPS:-}" ]; then  # headers and libraries unpacked from packages elsewhere
    DEPS=$(cd "$DEPS" && pwd)
    export CPATH=$DEPS/include:${CPATH:-} LIBRARY_PATH=$DEPS/lib:${LIBRARY_PATH:-} LD_LIBRARY_PATH=$DEPS/lib:${LD_LIBRARY_PATH:-}
fi
nvcc=${NVCC:-$(ls "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" 2>/dev/null || command -v nvcc || true)}
missing=''
[ -n "$nvcc" ] || missing+=' nvcc'
nvidia-smi -L >/dev/null 2>&1 || missing+=' GPU'
for header in cjson/cJSON.h pcre2.h utf8proc.h stb/stb_ds.h openssl/sha.h zlib.h cmocka.h; do
    printf '#define PCRE2_CODE_UNIT_WIDTH 8\n#include <stdarg.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <setjmp.h>\n#include <%s>\n' $header | gcc -E -x c - >/dev/null 2>&1 || missing+=" $header"
done
if [ -n "$missing" ]; then echo "gpu_check: missing:$missing (a folder with include/ and lib/ can be given as DEPS=DIR)" >&2; exit 2; fi

gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1)
report=$folder/$(date -u +%Y-%m-%d)_$(echo "$gpu" | tr ' /' '__').md
left() { echo $((limit - SECONDS)); }
section() {  # title, seconds at most, command
    local title=$1 most=$2; shift 2
    [ "$(left)" -lt "$most" ] && most=$(left)
    printf '\n## %s\n\n    %s\n\n' "$title" "$*" >>"$report"
    if [ "$most" -le 5 ]; then echo "left out: no time" | tee -a "$report"; return 1; fi
    echo "== $title"
    local start=$SECONDS
    { timeout "$most" "$@" 2>&1; echo "exit status $?, $((SECONDS - start)) s"; } | sed 's/^/    /' | tee -a "$report" | tail -25
}
{
    echo "# GPU check, $(date -u '+%Y-%m-%d %H:%M UTC')"
    echo
    echo "Commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), $gpu, driver $(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1), $("$nvcc" --version | grep -o 'release [0-9.]*')."
    echo "Clocks as found: $(nvidia-smi --query-gpu=clocks.sm,clocks.mem,clocks.max.sm --format=csv,noheader | head -1)."
} >"$report"

jobs=$(nproc)
section "build" 300 bash -c "make -j$jobs CUDA=1 PRECISION=bf16 test-build build/cuda-bf16/dev/bench_step build/cuda-bf16/dev/bench_seal && make -j$jobs CUDA=1 PRECISION=fp32 test-build"
section "tests on the device" 200 make test-gpu
sanitizer=$(ls "$(dirname "$nvcc")/compute-sanitizer" 2>/dev/null || command -v compute-sanitizer || true)
if [ -n "$sanitizer" ]; then
    for tool in memcheck racecheck; do
        # eight at a time: one after the other the tool's own start would take the minute
        section "compute-sanitizer $tool" 60 bash -c "printf '%s\n' dev/kernels/*.cu | xargs -P 8 -I{} bash -c 'n=\$(basename {} .cu); said=\$(timeout 50 $sanitizer --tool $tool --error-exitcode 9 --print-limit 5 build/cuda-bf16/dev/kernels/\$n --check --small 2>&1); echo \$n: exit \$?, \$(tail -1 <<<\"\$said\")'"
    done
else
    echo "compute-sanitizer: not found" | tee -a "$report"
fi
section "benchmarks, bf16" 150 make CUDA=1 PRECISION=bf16 bench
if python3 -c 'import torch, transformers; assert torch.cuda.is_available()' 2>/dev/null; then
    export BUILD=build/cuda-bf16 NO_BUILD=1
    section "a step of GPT-2 124M against PyTorch" 60 dev/bench_step.sh --layers 12 --width 768 --heads 12 --vocab 50257 --tokens 16384 --samples 16
    section "SEAL's step, GPT-2 124M, against PyTorch" 90 dev/bench_seal.sh --layers 12 --width 768 --heads 12 --vocab 50257 --batch 64
else
    echo "PyTorch with a GPU and transformers: not found; its side of the benchmarks is left out" | tee -a "$report"
fi
echo "report: $report"
