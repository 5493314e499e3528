#!/usr/bin/env bash
# The sample that dev/sanitize_programs.sh --sample runs under each sanitizer: every command of the trainer once, a
# checkpoint and its resumption, two ranks, a refusal.
set -u
. "$(dirname "$0")/cli.sh"
cd "$work" || exit 1
word_tokenizer tok say a b c d
for i in $(seq 24); do echo "{\"prompt\":\"say a b\",\"response\":\"a b c\"}"; done >tune.jsonl
for i in $(seq 12); do echo "{\"prompt\":\"say c\",\"response\":\"d\"}"; done >safe.jsonl
echo "a b c d say a b c d" >text.txt
small=(--batch 8 --tokens 32 --quiet)
expect "init" "$train_seal" init --layers 1 --width 64 --heads 2 --tokenizer tok/tokenizer.json --positions 32 \
    --out base --quiet
expect "pretrain on a text" "$train_seal" pretrain --model base --tune text.txt --max-length 8 --out pre "${small[@]}"
selector=(
    "$train_seal" selector --model base --tune=tune.jsonl --safe safe.jsonl --gamma fixed:0.3 --lora q,v --lora-rank 4
    --algorithm 1 --epochs 2 "${small[@]}"
)
expect "selector with adapters, Algorithm 1, a checkpoint per step" "${selector[@]}" --save-every 1 --out sel
rm sel/summary.json sel/checkpoint/step-6/rank-0.sha256
expect "resumed" "${selector[@]}" --save-every 1 --out sel --resume
expect "select" "$train_seal" select --tune tune.jsonl --selector sel/selector.safetensors --top 0.5 --out kept.jsonl \
    --quiet
expect "sft of the whole model on the selection, validated" "$train_seal" sft --model base --tune tune.jsonl \
    --selector sel/selector.safetensors --top 0.5 --valid safe.jsonl --recompute --out tuned "${small[@]}"
if command -v mpirun >/dev/null; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 \
        PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe OMPI_MCA_mpi_yield_when_idle=1
    # MPI keeps what it starts with, in plugins that are gone when leaks are looked for
    export ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0
    expect "two ranks" mpirun -n 2 "${selector[@]}" --save-every 2 --out ranks
fi
refuse "a learning rate that is none" "--lr" "${selector[@]}" --lr fast --out x
rm sel/summary.json
refuse "another run" "--seed is 3 here" "${selector[@]}" --save-every 1 --seed 3 --out sel --resume
exit $failed
