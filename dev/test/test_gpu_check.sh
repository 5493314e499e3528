#!/usr/bin/env bash
# dev/gpu_check.sh before a GPU sees it. Its rehearsal runs every section on the CPU build with tiny sizes, cut into
# calls of a few seconds, so that no option of a program and no figure's name can be wrong on the day; then programs
# that only print show what a report says of figures at and off their target, of programs that fail, of figures that are
# missing.
set -u
. "$(dirname "$0")/cli.sh"
rows() { sed -n '/^| what/,/^$/p' "$work/report/"*.md | tail -n +3; }
row() { rows | grep -F -- "| $1 |"; }
holds() { if row "$1" | grep -qF -- "$2"; then ok "$1: $2"; else not_ok "$1: $2, said $(row "$1")"; fi; }

# ---- programs that only print
stub=$work/stub-fp32 machine=$work/bin
mkdir -p "$stub/dev/kernels" "$machine"
program() { printf '#!/bin/sh\n%s\n' "$2" >"$1" && chmod +x "$1"; }
program "$machine/make" 'exit 0'
program "$stub/dev/bench_seal" 'case "$*" in
    *"--algorithm 1"*) ms=60 bytes=104 ;;
    *"--layers 2"*) ms=40 bytes=100 ;;
    *) ms=30 bytes=90 ;;
esac
echo "{\"ms\": $ms.0, \"sft_ms\": $ms.5, \"tokens_per_step\": 128.0, \"trained_tokens_per_s\": 1.0, \"token_cost_against_sft\": 1.010, \"bytes\": $bytes, \"tflops\": 1.0}"'
program "$stub/dev/bench_step" 'echo "{\"ms\": 1.0, \"utilisation\": 0.5100}"'
program "$stub/dev/kernels/matmul" 'echo "matmul bf16, 1 tokens, 1 inputs (row stride 1), 1 outputs; ceiling: 8192³ at 780000.0 GFLOP/s"
for row in forward "forward + bias" "backward input" "backward weight"; do
    printf "  %-32s %10.3f ms %9.1f GFLOP/s %5.1f%% of the large product\n" "$row" 1 702000.0 90
done'
program "$stub/dev/kernels/attention" \
    'for way in forward backward; do
    printf "%-24s %10.3f ms %10.1f GFLOP/s  %5.1f%% of the ceiling\n" "$way: tiles" 1 210000.0 50
done'
for p in rmsnorm glu rope loss adamw global_norm layernorm gelu scale adapter; do
    program "$stub/dev/kernels/$p" 'echo "ceiling: copy 4100.0 GB/s (float4 4100.0, cudaMemcpyAsync 4000.0)"
[ "${1:-}" = --check ] && echo "9 passed, 0 failed"
printf "  %-32s %10.3f ms %9.1f GB/s  %5.1f%% of copy\n" naive 1 400 10 "winner" 1 3690 90; exit 0'
done
check() {
    PATH=$machine:$PATH BUILD=$stub STATE=$work/state PYTHON=/no/such bash dev/gpu_check.sh --rehearse "$work/report" \
        >"$work/out" 2>&1
    status=$?
}
check
truth "a first call runs it all" grep -q "report: $work/report/" "$work/out"
holds "copy, float4 and cudaMemcpyAsync, read and write" "4100.0 GB/s | at least 3900 (an H200 elsewhere: 4,300) | PASS"
holds "large bf16 product" "780.0 TFLOP/s | at least 770 (an H200 elsewhere: 770 to 800) | PASS"
holds "a layer, LoRA q,v, samples of 16" "10.00 ms | at most 23.6 (the budget on paper) | PASS"
holds "Llama-3-8B, SEAL (Algorithm 2), LoRA q,v, samples of 16: 32 layers" \
    "376 trained tokens/s | at least 15000 (then 20,000) | BELOW target"
holds "Algorithm 1 against 2, gamma > 0: time" "1.50 times | at most 1.5 | PASS"
holds "Algorithm 1 against 2: memory" "1.040 times | at most 1.05 | PASS"
holds "gradient of an adapter, N 16, K 128: reading its input" "43875 GB/s"
holds "product: N 72, K 128" "702.0 TFLOP/s | at least 700 (the budget) | PASS"
holds "attention, head size 32, samples of 32, forward" "210.0 TFLOP/s | at least 280 | BELOW target"
holds "attention, head size 32, samples of 16, backward" "210.0 TFLOP/s | at least 208"
holds "glu: winner" "90.0 % of copy | at least 85 | PASS"
truth "naive kernels are not judged" test -z "$(rows | grep naive)"
holds "GPT-2 124M, all weights" "51.0 % of the dense peak | at least 50 | PASS"
holds "compute-sanitizer racecheck: programs that passed" "2 of 2 | at least 2 | PASS"

# Calls that end before all is done: each section once, but for one that the end of a call cut off; a report after each.
rm -rf "$work/state" "$work/report"
cp "$stub/dev/bench_seal" "$work/bench_seal"
program "$stub/dev/bench_seal" "echo run >>$work/runs; sleep 0.3; exec $work/bench_seal \"\$@\""
calls=0
for SECONDS_TOTAL in 2 2 2 580 580 580 580; do
    export SECONDS_TOTAL; check; calls=$((calls + 1))
    [ "$calls" -gt 1 ] || {
        truth "a call that is not the last: status 75" test "$status" -eq 75
        truth "it says what is left" grep -q "sections are left: call again" "$work/out"
        truth "and writes a report of what there is" test "$(rows | grep -c 'not run yet')" -gt 5; }
    [ "$status" -eq 75 ] || break
done
unset SECONDS_TOTAL
truth "several calls do it all" test "$status" -ne 75 -a "$calls" -gt 1 -a -z "$(rows | grep 'not run yet')"
truth "no section twice that was not cut off" test "$(wc -l <"$work/runs")" -ge 13 -a "$(wc -l <"$work/runs")" \
    -lt $((13 + calls))
holds "the same, with a margin" "1.3 | BELOW target"
cp "$work/bench_seal" "$stub/dev/bench_seal"

# What fails is said, and what depends on it too; the rest of the report is there.
rm -rf "$work/state" "$work/report"
program "$stub/dev/kernels/attention" 'echo broken; exit 3'
program "$stub/dev/kernels/rope" 'echo "  winner 1.0 ms nothing else"'
program "$stub/dev/bench_step" 'echo "{\"ms\": 1.0}"'
program "$stub/dev/kernels/scale" 'echo "ceiling: copy 4100.0 GB/s"; case "$*" in *--check*) exit 9 ;; esac'
check
truth "a program that fails: status 1" test "$status" -eq 1
holds "attention, samples of 16" "exit status 3 |  | **FAILED**"
holds "GPT-2 124M, all weights" "**FAILED**: no figure"
holds "compute-sanitizer memcheck: programs that passed" "1 of 2 | at least 2 | BELOW target"
holds "glu: winner" "PASS"
program "$machine/make" 'echo "no rule"; exit 2'
rm -rf "$work/state" "$work/report"
check
truth "a build that fails: status 1" test "$status" -eq 1
holds "ceiling: copies" "left out: build of the main job failed"

# ---- the rehearsal
rm -rf "$work/state" "$work/report"
STATE=$work/state PYTHON=/no/such bash dev/gpu_check.sh --rehearse "$work/report" >"$work/out" 2>&1; status=$?
for _ in 1 2 3 4 5; do
    [ "$status" -eq 75 ] || break
    STATE=$work/state PYTHON=/no/such bash dev/gpu_check.sh --rehearse "$work/report" >"$work/out" 2>&1; status=$?
done
truth "the rehearsal ends with all sections run and none failed" test "$status" -eq 0
rows | grep -E 'FAILED|not run yet' | sed 's/^/    /'
truth "it judges at least 40 figures" test "$(rows | grep -cE '\| (PASS|BELOW target|ABOVE target) \|')" -ge 40
truth "and has left out PyTorch alone" test "$(rows | grep -c 'left out')" -eq 1
exit $failed
