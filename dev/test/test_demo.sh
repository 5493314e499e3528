#!/usr/bin/env bash
# The demo's whole chain at a size of seconds: every file and row it promises, the same bytes for the same seed. What
# the methods achieve at full size is measured by dev/reproduce/world_seeds.sh.
set -u
. "$(dirname "$0")/cli.sh"
demo() { SMALL=1 SEED=7 OUT=$work/$1 METHODS=${2:-} BUILD=${BUILD:-build/cpu-fp32} data/demo.sh; }
expect "the demo runs" demo one "standard random safe-loss seal-2 seal-1"
cp "$work/out" "$work/said"
for f in base/config.json base/model.safetensors base/tokenizer.json safe.jsonl tune.jsonl test.jsonl table.json \
    report.html; do
    truth "leaves $f" test -s "$work/one/$f"
done
for m in standard random safe-loss seal-1 seal-2; do
    truth "leaves a RUN of $m" test -s "$work/one/$m/log.jsonl" -a -s "$work/one/$m/summary.json" -a \
        -s "$work/one/$m/model/model.safetensors"
done
for m in base standard random safe-loss seal-1 seal-2; do
    truth "its table has a row of $m" test "$(grep -c "\"method\":.\"$m\"" "$work/one/table.json")" -eq 1
    truth "and prints it" grep -q "^| $m " "$work/said"
done
truth "every row has refusal, accuracy and over-refusal" test \
    "$(grep -cE '"(refusal|task_accuracy|over_refusal)":.[0-9.]+' "$work/one/table.json")" -eq 18
truth "rows of a selection have its AUC" test "$(grep -cE '"auc":.0\.[0-9]+' "$work/one/table.json")" -eq 4
truth "stages are numbered" grep -q '^\[6/6\] seal-1: ' "$work/said"
truth "280 of 400 rows are kept" test "$(wc -l <"$work/one/seal-1/kept.jsonl")" -eq 280
truth "the report is self-contained" bash -c \
    "grep -q '<svg' $work/one/report.html && ! grep -qE 'src=|<script|<link' $work/one/report.html"
for f in selector/selector.safetensors kept.jsonl model/model.safetensors outputs.json; do
    cp "$work/one/seal-2/$f" "$work/$(basename "$f")"
done
expect "the same seed again" demo one "seal-2"
for f in selector/selector.safetensors kept.jsonl model/model.safetensors outputs.json; do
    truth "gives the same ${f##*/}" cmp "$work/one/seal-2/$f" "$work/${f##*/}"
done
exit $failed
