#!/usr/bin/env bash
# GPUs that are smaller, too old, or not there. The attention on a GPU whose blocks may have 99 KiB of shared memory (24
# GB cards: RTX 4090, L4, A10), where in bf16 its backward has one stage less and in fp32 head sizes from 80 do not fit;
# a GPU below compute capability 8.0, which is refused; and a login node without a GPU, where runs are planned.
#   test_small_gpu.sh none    the login node alone: dev/test/login_node.sh runs a GPU build through it
set -u
. "$(dirname "$0")/cli.sh"
if [ "${1:-}" != none ]; then
    for precision in bf16 fp32; do
        program=build/cpu-$precision/dev/kernels/attention
        [ -x $program ] || { echo "ok small_gpu $precision # SKIP $program is not built"; continue; }
        small=; [ $precision = fp32 ] && small=--small
        CPU_DEVICE=rtx4090 $program --check $small >"$work/log" 2>&1 || failed=1
        sed -E "s/^(ok|not ok) /\\1 $precision, 99 KiB: /" "$work/log"
    done
fi
cd "$work" || exit 1
word_tokenizer tok say a b
for i in a b "a b" "b a"; do echo "{\"prompt\":\"say $i\",\"response\":\"$i\"}"; done >tune.jsonl
"$train_seal" init --layers 1 --width 64 --heads 2 --tokenizer tok/tokenizer.json --positions 32 --out base --quiet ||
    exit 1
sft=("$train_seal" sft --model base --tune tune.jsonl --batch 2 --out run)
export CPU_DEVICE=none CUDA_VISIBLE_DEVICES=-1
expect "without a GPU a run is planned" "${sft[@]}" --dry-run
truth "with its memory" grep -q '^| total ' out
truth "and nothing is written" test ! -e run
expect "several ranks too" "${sft[@]}" --dry-run --ranks 8
expect "and so is an answer" "${train_seal/train_seal/eval_seal}" generate --model base --prompts tune.jsonl \
    --out answers.json --dry-run
expect "check counts rows and memory" "$train_seal" check --model base --tune tune.jsonl --batch 2 --tokens 64
truth "and says that it cannot tell whether they fit" grep -q 'no GPU here' out
refuse "training without a GPU" "no GPU can be used (${NO_GPU:-no CUDA-capable device is detected})" "${sft[@]}"
truth "which writes nothing" test ! -e run
refuse "--tokens auto without a GPU" "none can be used here; give --tokens N" "${sft[@]}" --tokens auto --dry-run
[ "${1:-}" = none ] && exit $failed
CPU_DEVICE=rtx2080 refuse "a GPU that is too old" "has compute capability 7.5; 8.0 or newer is needed" "${sft[@]}"
truth "with what to do" grep -qF '(choose a GPU with CUDA_VISIBLE_DEVICES)' err
unset CPU_DEVICE CUDA_VISIBLE_DEVICES
expect "with a GPU the same command trains" "${sft[@]}" --quiet
exit $failed
