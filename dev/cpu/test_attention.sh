#!/usr/bin/env bash
# In bf16 the CPU build has two attentions: the GPU's kernels on emulated tensor cores, which all other tests take, and
# plain ones, which training takes because they are faster. The plain ones pass the same checks, a model learns the same
# with either, and both are chosen by name.
set -u
cd "$(dirname "$0")/../.." || exit 1
. dev/test/cli.sh
bf16=build/cpu-bf16
[ -x $bf16/train_seal ] || { echo "ok attention in bf16 # SKIP $bf16 is not built"; exit 0; }
CPU_ATTENTION=plain CPU_KERNELS=$work/kernels.plain $bf16/dev/kernels/attention --check >"$work/checks"; status=$?
truth "plain: every check passes" test $status -eq 0
CPU_KERNELS=$work/kernels.tensor $bf16/dev/kernels/attention --check --small >"$work/checks"
# the GPU's kernels have three template arguments, the plain ones one
truth "checks of kernels run the GPU's" grep -qE 'attention_forward_kernel<[0-9]+, ' "$work/kernels.tensor"
truth "plain: they were launched" grep -q 'attention_forward_kernel<64>' "$work/kernels.plain"
truth "plain: none of the GPU's was" bash -c "! grep -qE 'attention_[a-z]*_kernel<[0-9]*, ' '$work/kernels.plain'"
CPU_ATTENTION=plain CPU_SHARED_KIB=99 CPU_KERNELS=$work/kernels.small \
    $bf16/dev/kernels/attention --check --small >"$work/checks"
truth "plain, with little shared memory: the GPU's where it does not fit" \
    grep -qE 'attention_forward_kernel<128, ' "$work/kernels.small"
refuse "an attention of another name" "CPU_ATTENTION is plain or tensor, not \"flash\"" \
    env CPU_ATTENTION=flash $bf16/dev/kernels/attention --check --small

cd "$work" || exit 1
word_tokenizer tok say a b c d e f
say_rows rows.jsonl 96 1 1 6
train="${train_seal/cpu-fp32/cpu-bf16}"
"$train" init --family llama --layers 2 --width 128 --heads 2 --tokenizer tok/tokenizer.json --positions 64 \
    --out base --quiet
sft=("$train" sft --model base --tune rows.jsonl --lr 2e-3 --epochs 4 --batch 16 --tokens 256 --quiet)
loss_of() { sed -n 's/.*"loss":\([0-9.e-]*\),.*/\1/p' "$1/summary.json"; }
expect "a model trained by default" "${sft[@]}" --out default
CPU_ATTENTION=plain expect "with the plain kernels" "${sft[@]}" --out plain
CPU_ATTENTION=tensor expect "with the GPU's" "${sft[@]}" --out tensor
truth "the plain ones are the default" cmp default/model/model.safetensors plain/model/model.safetensors
truth "the GPU's are others" bash -c '! cmp -s plain/model/model.safetensors tensor/model/model.safetensors'
truth "and a model learns the same: loss $(loss_of plain) and $(loss_of tensor)" awk \
    -v a="$(loss_of plain)" -v b="$(loss_of tensor)" 'BEGIN { exit !(a > 0 && (a - b) ^ 2 <= (0.02 * b) ^ 2) }'
exit $failed
