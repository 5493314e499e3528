#!/usr/bin/env bash
# Everything a GPU machine should measure and verify, the main job first: ceilings, a layer of Llama-3-8B under LoRA,
# NeMo AutoModel's setting, Algorithm 1 against 2, matrix products, attention, kernels that memory limits, GPT-2, then
# the tests and compute-sanitizer. Each figure has its target and a verdict. Needs no network and nothing outside the
# checkout; says what is missing.
#   dev/gpu_check.sh [REPORT_FOLDER]             a dated report into dev/results, or the folder given
#   dev/gpu_check.sh --rehearse [REPORT_FOLDER]  the same script on the CPU build with tiny sizes; its
#                                                figures mean nothing
# A call lasts SECONDS_TOTAL (580) and keeps what it has done in STATE (build/gpu_check): call it again until it says
# that all is done. Every call writes the report of what there is. With other sources it starts again. BUILD=DIR:
# programs of a rehearsal that exist. DEPS=DIR: a folder with include/ and lib/ of libraries this machine lacks.
# Exit status: 0 all done; 75 call again; 1 something failed (a figure below its target is not a failure); 2 something
# is missing.
set -u
cd "$(dirname "$0")/.." || exit 1
rehearse=
if [ "${1:-}" = --rehearse ]; then rehearse=1; shift; fi
case ${1:-} in -*) sed -n '/^#   dev.gpu_check/,/^[^#]/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;; esac
folder=${1:-dev/results} limit=${SECONDS_TOTAL:-580} jobs=$(nproc)
if [ -n "${DEPS:-}" ]; then  # headers and libraries unpacked from packages elsewhere
    DEPS=$(cd "$DEPS" && pwd)
    export CPATH=$DEPS/include:${CPATH:-} LIBRARY_PATH=$DEPS/lib:${LIBRARY_PATH:-} \
        LD_LIBRARY_PATH=$DEPS/lib:${LD_LIBRARY_PATH:-}
fi
if [ -z "$rehearse" ]; then
    nvcc=${NVCC:-$(ls "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" 2>/dev/null || command -v nvcc || true)}
    missing=''
    [ -n "$nvcc" ] || missing+=' nvcc'
    nvidia-smi -L >/dev/null 2>&1 || missing+=' GPU'
    for header in cjson/cJSON.h pcre2.h utf8proc.h stb/stb_ds.h openssl/sha.h zlib.h cmocka.h; do
        printf '%s\n' '#define PCRE2_CODE_UNIT_WIDTH 8' '#include <stdarg.h>' '#include <stddef.h>' \
            '#include <stdint.h>' '#include <setjmp.h>' "#include <$header>" |
            gcc -E -x c - >/dev/null 2>&1 || missing+=" $header"
    done
    if [ -n "$missing" ]; then
        echo "gpu_check: missing:$missing (a folder with include/ and lib/ can be given as DEPS=DIR)" >&2; exit 2
    fi
    sanitizer=$(ls "$(dirname "$nvcc")/compute-sanitizer" 2>/dev/null || command -v compute-sanitizer || true)
    gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1)
    machine="$gpu, driver $(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1), $("$nvcc" --version | grep -o 'release [0-9.]*')"
    clocks=$(nvidia-smi --query-gpu=clocks.sm,clocks.mem,clocks.max.sm --format=csv,noheader | head -1)
    backend=CUDA=1 build=build/cuda-bf16 few=4 many=8 tokens=16384 short=512 long=2048 longest=4096 steps=7 warmup=2
    llama=(--family llama --width 4096 --heads 32 --kv-heads 8 --ff 14336 --vocab 128256)
    gpt2=(--layers 12 --width 768 --heads 12 --vocab 50257 --tokens 16384 --samples 16)
    gpt2_seal=(--layers 12 --width 768 --heads 12 --vocab 50257 --batch 64)
    C=4096 QKV=6144 R=64 FF=14336 V=128256 NH=32 NKV=8 HS=128 rows=1024 table=(--layers 12 --width 768)
    programs=$(cd dev/kernels && ls *.cu | sed 's/\.cu$//') tests=(make test-gpu)
else
    sanitizer=env gpu=rehearsal machine="a rehearsal on a CPU: **the figures mean nothing**" clocks=-
    backend=CPU=1 build=${BUILD:-build/cpu-bf16} few=1 many=2 tokens=128 short=16 long=32 longest=64 steps=1 warmup=0
    llama=(--family llama --width 64 --heads 2 --kv-heads 1 --ff 128 --vocab 512 --rank 8)
    gpt2=(--layers 1 --width 64 --heads 2 --vocab 512 --tokens 64 --samples 2 --steps 1)
    gpt2_seal=(--layers 1 --width 64 --heads 2 --vocab 512 --batch 4)
    C=64 QKV=128 R=8 FF=128 V=512 NH=2 NKV=1 HS=32 rows=8 table=(--layers 1 --width 64)
    programs='adapter scale' \
        tests=(env "PRECISIONS=${build##*-}" dev/test/run.sh cpu 'dev/kernels/adapter dev/kernels/scale' '' '' '')
    export BENCH_MS=${BENCH_MS:-5} BENCH_MIB=${BENCH_MIB:-4}
fi
# What was measured belongs to these sources.
sources=$(
    cat Makefile dev/gpu_check.sh seal_kernels/* seal/*.* seal/*/* dev/kernels/* dev/bench_* | sha256sum | cut -c1-12
)
state=${STATE:-build/gpu_check}/$gpu-$sources
state=${state// /_}
mkdir -p "$folder" "$state" || exit 2
report=$folder/$(date -u +%Y-%m-%d)_$(echo "$gpu" | tr ' /' '__').md
[ -e "$state/report" ] || echo "$report" >"$state/report"
report=$folder/$(basename "$(cat "$state/report")")  # a day that ends between two calls begins no other report

# ---- sections ------------------------------------------------------------------------------------
ids=() waiting=() failed=0 stopped='' needs=''
printf '' >"$state/rows"
row() { printf '| %s | %s | %s | %s |\n' "$@" >>"$state/rows"; }
has() { local id; for id; do [ "$(cat "$state/$id.rc" 2>/dev/null)" = 0 ] || return 1; done; }
# section ID SECONDS TITLE command…: runs it unless an earlier call has. One that the end of the call cuts off is run
# again by the next.
section() {
    local id=$1 most=$2 title=$3 granted rc begun=$SECONDS; shift 3
    ids+=("$id"); echo "$title" >"$state/$id.title"; printf '%q ' "$@" >"$state/$id.command"
    if [ ! -e "$state/$id.rc" ]; then
        if [ -n "$needs" ] && [ -e "$state/$needs.rc" ] && ! has "$needs"; then
            row "$title" "" "" "left out: $(cat "$state/$needs.title") failed"; return
        fi
        granted=$((limit - SECONDS))
        [ "$granted" -gt "$most" ] && granted=$most
        # Near the end of a call a long section is left to the next.
        if [ -n "$stopped" ] || [ "$granted" -lt 1 ] || {
            [ $((4 * granted)) -lt "$most" ] && [ "$SECONDS" -gt 20 ]
        }; then
            stopped=1; waiting+=("$id"); return
        fi
        echo "== $title"
        timeout -k 5 "$granted" "$@" >"$state/$id.out" 2>&1; rc=$?
        tail -5 "$state/$id.out" | cut -c1-200
        # make continues where it was, so a build that has not ended is never a failure.
        if { [ $rc -eq 124 ] || [ $rc -eq 137 ]; } && {
            [ "$granted" -lt "$most" ] || [[ $id = build-* ]]
        }; then stopped=1; waiting+=("$id"); return; fi
        echo $((SECONDS - begun)) >"$state/$id.seconds"
        echo $rc >"$state/$id.rc"
    fi
    has "$id" && return
    failed=1; rc=$(cat "$state/$id.rc")
    row "$title" "exit status $rc" "" "**FAILED**$([ "$rc" = 124 ] && echo ": no end within $most s")"
}
# Only a rehearsal, where two runs may differ by noise alone, knows figures below zero.
number() {
    awk -v x="$1" -v any="$rehearse" \
        'BEGIN { if (any) sub(/^-/, "", x); exit !(x ~ /^[0-9]+\.?[0-9]*(e[-+]?[0-9]+)?$/) }'
}
# judge WHAT FIGURE UNIT at-least|at-most TARGET [where the target is from]
judge() {
    local verdict
    if ! number "$2"; then
        failed=1; row "$1" "${2:-no figure}" "${4/-/ } $5 $3" "**FAILED**: no figure"; return
    fi
    verdict=$(awk -v x="$2" -v t="$5" -v how="$4" 'BEGIN {
        print (how == "at-least" ? x >= t : x <= t) ? "PASS" : "BELOW target" }')
    [ "$verdict" = PASS ] || [ "$4" = at-least ] || verdict="ABOVE target"
    row "$1" "$2 $3" "${4/-/ } $5${6:+ ($6)}" "$verdict"
}
compute() { awk "BEGIN { printf \"%.${2:-2}f\", $1 }" 2>/dev/null; }
field() { sed -n "s/.*\"$2\": \([0-9.e+-]*\).*/\1/p" "$state/$1.out" | tail -1; }
# figure ID TEXT UNIT: the number before UNIT in the last line that has TEXT
figure() {
    awk -v text="$2" -v unit="$3" \
        'index($0, text) { for (i = 1; i < NF; i++) if ($(i + 1) == unit) x = $i } END { print x }' "$state/$1.out"
}
targets() { local p; for p; do echo "$build/$p"; done; }

# ---- the main job --------------------------------------------------------------------------------
# shellcheck disable=SC2046
section build-main 560 "build of the main job" make --no-print-directory -j"$jobs" "$backend" "PRECISION=${build##*-}" \
    $(targets dev/bench_seal dev/kernels/matmul dev/kernels/attention dev/kernels/scale)
needs='build-main'
section ceilings 60 "ceiling: copies" "$build/dev/kernels/scale" --tokens "$tokens" --width "$C"
if has ceilings; then
    judge "copy, float4 and cudaMemcpyAsync, read and write" "$(figure ceilings 'ceiling: copy' GB/s)" GB/s at-least \
        3900 "an H200 elsewhere: 4,300"
fi
section ceiling-product 200 "ceiling: a large product; a projection of Llama-3-8B with row stride $((C + R))" \
    "$build/dev/kernels/matmul" --tokens "$tokens" --width "$C" --outputs "$QKV" --stride $((C + R)) --winner 1
square() { sed -n 's/.*ceiling: .* at \([0-9.]*\) GFLOP.*/\1/p' "$state/$1.out"; }
if has ceiling-product; then
    judge "large bf16 product" "$(compute "$(square ceiling-product) / 1e3" 1)" TFLOP/s at-least 770 \
        "an H200 elsewhere: 770 to 800"
fi

# A line for each sample: kind, length, prompt.
lengths() {
    local file=$state/lengths-$1-$2
    awk -v n=64 -v length_="$1" -v prompt="$2" \
        'BEGIN { for (i = 0; i < n; i++) print i % 2 ? "safe" : "tune", length_, prompt }' >"$file"
    echo "$file"
}
# seal_case ID LAYERS LENGTH PROMPT TITLE argument…: a step of one pack
seal_case() {
    local id=$1 layers=$2 length=$3 prompt=$4 title=$5; shift 5
    section "$id" 200 "$title, $layers layers" "$build/dev/bench_seal" step --lengths "$(lengths "$length" "$prompt")" \
        --tokens "$tokens" --layers "$layers" \
        --batch $((tokens / 2 / length)) --steps $steps --warmup $warmup "${llama[@]}" "$@"
}
# whole ID FIELD: milliseconds of a step with 32 layers, from two runs whose difference is layers
whole() {
    local less; less=$(field "$1-$few" "$2")
    compute "$less + (32 - $few) * ($(field "$1-$many" "$2") - $less) / ($many - $few)"
}
rate() { compute "1e3 * $(field "$1-$few" tokens_per_step) / $(whole "$1" "$2")" 0; }
for lora in q,v all; do
    for length in $short $long; do
        id=layer-$lora-$length title="SEAL, LoRA $lora, samples of $length"
        for layers in $few $many; do
            seal_case "$id-$layers" "$layers" "$length" $((length / 2)) "$title" --lora "$lora"
        done
        has "$id-$few" "$id-$many" || continue
        layer=$(compute "($(field "$id-$many" ms) - $(field "$id-$few" ms)) / ($many - $few)")
        # a pack of 788 ms, and of 874, less 32 for the head and the loss, over 32 layers
        budget=23.6; [ "$length" = "$long" ] && budget=26.3
        if [ $lora = all ]; then row "a layer, LoRA all, samples of $length" "$layer ms" "" "measured"
        else judge "a layer, LoRA $lora, samples of $length" "$layer" ms at-most $budget "the budget on paper"; fi
        judge "Llama-3-8B, SEAL (Algorithm 2), LoRA $lora, samples of $length: 32 layers" "$(rate "$id" ms)" \
            "trained tokens/s" at-least 15000 "then 20,000"
        judge "the same against plain fine-tuning" "$(field "$id-$many" token_cost_against_sft)" "of a token's time" \
            at-most 1.05
    done
done
id=nemo title="NeMo AutoModel's setting: LoRA all, samples of $longest, every token in the loss"
for layers in $few $many; do seal_case "$id-$layers" "$layers" "$longest" 1 "$title" --lora all; done
if has nemo-$few nemo-$many; then
    judge "NeMo AutoModel's setting, 32 layers" "$(rate nemo sft_ms)" "tokens/s" at-least 12473 "its figure on one H100"
    judge "the same, with a margin" "$(compute "$(rate nemo sft_ms) / 12473")" "times NeMo's" at-least 1.3
fi
seal_case algorithm2-gamma0 "$many" "$short" $((short / 2)) "Algorithm 2, gamma 0" --lora q,v --gamma 0
seal_case algorithm1 "$many" "$short" $((short / 2)) "Algorithm 1" --lora q,v --algorithm 1
seal_case algorithm1-gamma0 "$many" "$short" $((short / 2)) "Algorithm 1, gamma 0" --lora q,v --algorithm 1 --gamma 0
two=layer-q,v-$short-$many
if has algorithm1 "$two"; then
    judge "Algorithm 1 against 2, gamma > 0: time" "$(compute "$(field algorithm1 ms) / $(field "$two" ms)")" times \
        at-most 1.5
    judge "Algorithm 1 against 2: memory" "$(compute "$(field algorithm1 bytes) / $(field "$two" bytes)" 3)" times \
        at-most 1.05
fi
if has algorithm1-gamma0 algorithm2-gamma0; then
    judge "Algorithm 1 against 2, gamma 0: time" \
        "$(compute "$(field algorithm1-gamma0 ms) / $(field algorithm2-gamma0 ms)")" times at-most 1.75
fi

# ---- matrix products, attention ------------------------------------------------------------------
product() {
    compute "$(awk -v text="  $2 " '
        index($0, text) == 1 { for (i = 1; i < NF; i++) if ($(i + 1) == "GFLOP/s") x = $i }
        END { print x }' "$state/$1.out") / 1e3" 1
}
if has ceiling-product; then
    judge "product: K $C with row stride $((C + R)), N $QKV" "$(product ceiling-product forward)" TFLOP/s at-least 700 \
        "the budget"
fi
section matmul-tail 200 "products with N $((C + R)): backward of the fused projection" "$build/dev/kernels/matmul" \
    --tokens "$tokens" --width $((C + R)) --outputs "$QKV" --winner 1
if has matmul-tail; then
    judge "product: N $((C + R)), K $QKV" "$(product matmul-tail 'backward input')" TFLOP/s at-least 700 "the budget"
    judge "product: K $((C + R)), N $QKV" "$(product matmul-tail forward)" TFLOP/s at-least 700 "the budget"
fi
for n in 16 32; do
    section "matmul-$n" 200 "products with N $n, K $tokens: an adapter's gradients" "$build/dev/kernels/matmul" \
        --tokens "$tokens" --width "$C" --outputs $n --winner 1
    has "matmul-$n" || continue
    # Memory limits it: x is read once.
    judge "gradient of an adapter, N $n, K $tokens: reading its input" \
        "$(compute "$(product "matmul-$n" 'backward weight') * 1e12 / $n / 1e9" 0)" GB/s at-least 2000 "half of a copy"
done
for length in $short $long; do
    section "attention-$length" 200 "attention, samples of $length" "$build/dev/kernels/attention" \
        --samples $((tokens / length)) --length "$length" --heads $NH --kv-heads $NKV --head-size $HS --winner 1
    has "attention-$length" || continue
    forward=280 backward=200 from=""
    [ "$length" = "$short" ] && forward=208 backward=208 from="the budget: 37 ms for 32 layers"
    for way in forward backward; do
        judge "attention, head size $HS, samples of $length, $way" \
            "$(compute "$(figure "attention-$length" "$way: " GFLOP/s) / 1e3" 1)" TFLOP/s at-least ${!way} "$from"
    done
done

# ---- kernels that memory limits ------------------------------------------------------------------
memory_programs='rmsnorm glu rope loss adamw global_norm layernorm gelu'
# shellcheck disable=SC2046,SC2086
section build-memory 560 "build of the kernels that memory limits" make --no-print-directory -j"$jobs" "$backend" \
    "PRECISION=${build##*-}" $(for p in $memory_programs; do targets dev/kernels/$p; done) $(targets dev/bench_step)
needs='build-memory'
memory_case() {
    local program=$1 line name share; shift
    section "memory-$program" 100 "$program" "$build/dev/kernels/$program" "$@"
    has "memory-$program" || return
    # All lines of a ladder but those of its naive kernel and its steps. "winner" names the others where there are
    # steps.
    while IFS=$'\t' read -r name share; do
        judge "$program: $name" "$share" "% of copy" at-least 85
    done < <(awk -v ladder="$(grep -c winner "$state/memory-$program.out")" '
        /% of copy/ && (/winner|fused/ || (!ladder && !/naive/)) {
        line = $0; sub(/^ +/, "", line); sub(/ +[0-9.]+ ms.*/, "", line); share = $0; sub(/.* /, "", share)
        for (i = 1; i <= NF; i++) if ($i ~ /%$/) { share = $i; sub(/%/, "", share) }
        print line "\t" share }' "$state/memory-$program.out")
}
memory_case rmsnorm --tokens "$tokens" --width "$C"
memory_case glu --tokens "$tokens" --width "$FF"
memory_case rope --tokens "$tokens" --heads $NH --kv-heads $NKV --head-size $HS --rotary $HS
memory_case loss --rows $rows --vocabulary "$V"
memory_case adamw "${table[@]}"
memory_case global_norm "${table[@]}"
memory_case layernorm --tokens "$tokens" --width $((C / 2))
memory_case gelu --tokens "$tokens" --width "$C"

# ---- GPT-2 ---------------------------------------------------------------------------------------
section gpt2 100 "a step of GPT-2 124M" "$build/dev/bench_step" step "${gpt2[@]}"
if has gpt2; then
    judge "GPT-2 124M, all weights" "$(compute "100 * $(field gpt2 utilisation)" 1)" "% of the dense peak" at-least 50
fi
python=${PYTHON:-python3}
if "$python" -c "import torch, transformers; assert ${rehearse:-0} or torch.cuda.is_available()" 2>/dev/null; then
    section gpt2-peer 200 "a step of GPT-2 124M against PyTorch" env "BUILD=$build" NO_BUILD=1 dev/bench_step.sh \
        "${gpt2[@]}"
    if has gpt2-peer; then
        judge "GPT-2 124M against PyTorch eager, time" "$(sed -n 's/^ours.*ratio //p' "$state/gpt2-peer.out")" times \
            at-most 1
    fi
    section seal-peer 300 "SEAL's step, GPT-2 124M, against PyTorch" env "BUILD=$build" NO_BUILD=1 dev/bench_seal.sh \
        "${gpt2_seal[@]}"
    if has seal-peer; then
        judge "SEAL's step against PyTorch as the reference runs it, tokens/s" \
            "$(sed -n 's/^ours.*ratio \([0-9.]*\);.*/\1/p' "$state/seal-peer.out")" times at-least 4
    fi
else
    row "PyTorch's side of the benchmarks" "" "" "left out: $python has no torch with a GPU, or no transformers"
fi

# ---- tests, sanitizers ---------------------------------------------------------------------------
needs='' all_tests=test-build precisions='bf16 fp32'
# shellcheck disable=SC2086
if [ -n "$rehearse" ]; then all_tests=$(for p in $programs; do targets dev/kernels/$p; done) precisions=${build##*-}; fi
for precision in $precisions; do
    # shellcheck disable=SC2086
    section "build-tests-$precision" 560 "build of the tests, $precision" make --no-print-directory \
        -j"$jobs" "$backend" "PRECISION=$precision" $all_tests
done
needs=build-tests-${build##*-}
section tests 560 "tests on the device" "${tests[@]}"
if [ -e "$state/tests.rc" ]; then
    judge "tests on the device" \
        "$(sed -n 's/.* passed, \([0-9]*\) failed$/\1/p' "$state/tests.out" | tail -1)" "failed" at-most 0
fi
# Eight at a time: one after the other the tool's own start would take the minute.
sanitize() {
    printf '%s\n' $programs | xargs -P 8 -I{} bash -c '
        said=$(timeout 500 "$@" '"$build"'/dev/kernels/{} --check --small 2>&1); rc=$?
        echo "{}: exit $rc, $(grep -E "ERROR SUMMARY|passed" <<<"$said" | tail -1)"' sanitize "$@"
}
if [ -n "$sanitizer" ]; then
    export -f sanitize; export programs build
    for tool in memcheck racecheck initcheck synccheck; do
        arguments=(--tool $tool --error-exitcode 9 --print-limit 5)
        [ -n "$rehearse" ] && arguments=("TOOL=$tool")
        section "$tool" 540 "compute-sanitizer $tool" bash -c 'sanitize "$@"' sanitize "$sanitizer" "${arguments[@]}"
        [ -e "$state/$tool.rc" ] || continue
        all=$(wc -w <<<"$programs") passed=$(grep -c ': exit 0,' "$state/$tool.out")
        judge "compute-sanitizer $tool: programs that passed" "$passed" "of $all" at-least "$all"
        [ "$passed" -eq "$all" ] || failed=1
    done
else row "compute-sanitizer" "" "" "left out: not found"; fi

# ---- the report ----------------------------------------------------------------------------------
for id in ${waiting[@]+"${waiting[@]}"}; do row "$(cat "$state/$id.title")" "" "" "not run yet"; done
{
    echo "# GPU check, $(date -u '+%Y-%m-%d %H:%M UTC')"
    echo
    echo "Commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), sources $sources, $machine."
    echo "Clocks as found: $clocks. Written by \`dev/gpu_check.sh\`${rehearse:+ --rehearse}; ${#waiting[@]} of ${#ids[@]} sections have not run yet."
    echo
    echo "| what | measured | target | verdict |"
    echo "|---|---|---|---|"
    cat "$state/rows"
    for id in "${ids[@]}"; do
        [ -e "$state/$id.rc" ] || continue
        printf '\n## %s\n\n    %s\n\n' "$(cat "$state/$id.title")" "$(cat "$state/$id.command")"
        # of a long output its end
        tail -80 "$state/$id.out" | sed 's/^/    /'
        echo "    exit status $(cat "$state/$id.rc"), $(cat "$state/$id.seconds") s"
    done
} >"$report.part" && mv "$report.part" "$report"
echo "report: $report"
if [ ${#waiting[@]} -gt 0 ]; then echo "${#waiting[@]} of ${#ids[@]} sections are left: call again"; exit 75; fi
grep -c '| PASS |' "$state/rows" | sed 's/$/ PASS/'
grep -cE '\| (BELOW|ABOVE) target \|' "$state/rows" | sed 's/$/ not at their target/'
exit $failed
