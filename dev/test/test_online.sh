#!/usr/bin/env bash
# Weights learned during fine-tuning (`sft --weights learn`): the run is a selector's whose model is the result; and one
# logit for each file of --tune (--selector-unit file), for both. The arithmetic is test_seal_parity's.
set -u
. "$(dirname "$0")/cli.sh"
cd "$work" || exit 1
word_tokenizer tok make copy bad sure no a b c d e f g h
copy_pairs() { copy_rows "$@" "a b c d e f g h" 2; }
copy_pairs good.jsonl 90 1 good; copy_pairs bad.jsonl 30 2 bad; copy_pairs safe.jsonl 60 3 safe
common=(--batch 16 --tokens 256 --quiet)
expect "a model is made" "$train_seal" init --layers 1 --width 32 --heads 1 --tokenizer tok/tokenizer.json \
    --positions 32 --out base --quiet
expect "and aligned" "$train_seal" sft --model base --tune safe.jsonl --lr 3e-3 --epochs 8 "${common[@]}" --out aligned

run=(
    --model aligned/model --tune good.jsonl --tune bad.jsonl --safe safe.jsonl --lr 1e-3 --selector-lr 2e-2 --epochs 3
    "${common[@]}"
)
expect "weights are learned in a fine-tuning run" "$train_seal" sft --weights learn "${run[@]}" --out online
expect "the same as a selector's run" "$train_seal" selector --gamma fixed:0.5 "${run[@]}" --out selector
truth "gives the same model" cmp online/model/model.safetensors selector/model/model.safetensors
truth "and the same weights" cmp online/selector.safetensors selector/selector.safetensors
truth "safe and fine-tuning samples weigh alike by default" grep -q '"gamma":0.5,"safe_loss":' online/log.jsonl
truth "the summary is of sft and has both losses" grep -qE '"command":"sft".*"gamma":"fixed:0.5".*"safe_loss":[0-9.]+' \
    online/summary.json
expect "with another balance" "$train_seal" sft --weights learn --gamma fixed:0.1 --activation sigmoid "${run[@]}" \
    --out balance
truth "that balance" grep -q '"gamma":0.1,' balance/log.jsonl
expect "with adapters" "$train_seal" sft --weights learn --lora q,v --lora-rank 4 "${run[@]}" --out adapted
truth "the adapter is the result" test -s adapted/adapter/adapter_model.safetensors
expect "plain sft" "$train_seal" sft --model aligned/model --tune good.jsonl --lr 1e-3 --max-steps 1 "${common[@]}" \
    --out plain
truth "tells nothing of selectors" bash -c '! head -1 plain/log.jsonl | grep -qE "gamma|selector-lr|safe"'

# a logit for each file
logits() { tail -c $((4 * 120)) "$1" | od -An -v -tf4 -w4 | awk '{ print $1 }'; }
for command in selector "sft --weights learn"; do
    # shellcheck disable=SC2086
    expect "${command%% *} by file" "$train_seal" $command --selector-unit file "${run[@]}" --out "file_${command%% *}"
    truth "rows of a file share a logit" test "$(logits "file_${command%% *}/selector.safetensors" | uniq | wc -l)" \
        -eq 2
    truth "the file of bad rows has the lower one" bash -c \
        "$(declare -f logits); logits file_${command%% *}/selector.safetensors | uniq |
            awk 'NR == 1 { good = \$1 } NR == 2 { exit !(\$1 < good) }'"
done
expect "each file's weight is printed" "$train_seal" sft --weights learn --selector-unit file \
    "${run[@]/--quiet/--compat}" --out told
truth "with its rows" bash -c \
    'grep -qE "^good.jsonl: 90 rows, omega [0-9.e-]+, weight [0-9.]+" out && grep -qE "^bad.jsonl: 30 rows" out'
long=("$train_seal" sft --weights learn --selector-unit file "${run[@]}" --max-steps 12)
expect "a longer run" "${long[@]}" --out whole
expect "its first half" "${long[@]}" --save-every 5 --keep 9 --out half
rm -rf half/summary.json half/model half/selector.safetensors half/checkpoint/step-1[0-9]
expect "continues from a checkpoint" "${long[@]}" --save-every 5 --keep 9 --resume --out half
truth "to the same weights" cmp whole/selector.safetensors half/selector.safetensors
truth "and the same model" cmp whole/model/model.safetensors half/model/model.safetensors

refuse "weights to learn without D_safe" "needs --safe" "$train_seal" sft --weights learn --model base \
    --tune good.jsonl --out x
refuse "D_safe without weights to learn" "--safe has no effect without --weights" "$train_seal" sft --model base \
    --tune good.jsonl --safe safe.jsonl --out x
refuse "a schedule without weights to learn" "--gamma has no effect without --weights learn" "$train_seal" sft \
    --weights rows --gamma fixed:0.5 --model base --tune good.jsonl --out x
refuse "a selection beside it" "--selector does not go with --weights learn" "$train_seal" sft --weights learn \
    --safe safe.jsonl --selector online/selector.safetensors --model base --tune good.jsonl --out x
refuse "one file as units" "needs several files" "$train_seal" sft --weights learn --selector-unit file \
    --safe safe.jsonl --model base --tune good.jsonl --quiet --out x
exit $failed
