#!/usr/bin/env bash
# A base in 4 bits through whole programs: adapters learn over it and say so, resume to the same bytes, merge into the
# unquantised model; losses, answers and scores over the same base; several ranks; what does not go with it is one line.
set -u
. "$(dirname "$0")/cli.sh"
eval_seal=${train_seal%train_seal}eval_seal golden=$PWD/dev/reference/golden/peft
cd "$work" || exit 1
template=$'Human: {prompt}\nAssistant: '
rows=(--template "$template" --quiet)
sft=("$train_seal" sft --model "$golden/base" --tune="$golden/rows.jsonl" --batch 2 "${rows[@]}")
learn=("${sft[@]}" --lora all --lora-rank 4 --lr 1e-2 --epochs 15)
losses() {
    local out=$1; shift
    "$eval_seal" loss --model "$golden/base" --data "$golden/rows.jsonl" "${rows[@]}" --out "$out" "$@"
}
mean() { sed 's/.*"loss"://; s/[^0-9.e-].*//' "$1" | awk '{ s += $1 } END { print s / NR }'; }
distance() { awk -v a="$(mean "$1")" -v b="$(mean "$2")" 'BEGIN { d = a - b; print d < 0 ? -d : d }'; }

expect "the model plainly" losses plain.jsonl
expect "the model in 4 bits" losses packed.jsonl --base nf4
truth "has other losses, near to those" awk -v d="$(distance plain.jsonl packed.jsonl)" \
    'BEGIN { exit !(d > 1e-4 && d < 0.3) }'
expect "adapters learn over it" "${learn[@]}" --base nf4 --save-every 15 --merge --out run
expect "its losses with them" losses learned.jsonl --base nf4 --adapter run/adapter
truth "fall to less than half" awk -v a="$(mean packed.jsonl)" -v b="$(mean learned.jsonl)" \
    'BEGIN { exit !(b < 0.5 * a) }'
truth "the adapter names its base" grep -aq '"base_precision":"nf4"' run/adapter/adapter_model.safetensors
expect "the same plainly" losses elsewhere.jsonl --adapter run/adapter
truth "with a line that says which base it had" grep -q "trained over its model in nf4.*--base nf4 has the same" err
truth "and no other" test "$(wc -l <err)" -eq 1
expect "over its own base" losses again.jsonl --base nf4 --adapter run/adapter
truth "there is no such line" test ! -s err
truth "the same losses twice" cmp learned.jsonl again.jsonl
expect "an adapter over a plain base" "${learn[@]}" --out other
truth "names none" bash -c '! grep -aq base_precision other/adapter/adapter_model.safetensors'
expect "over 4 bits" losses elsewhere.jsonl --base nf4 --adapter other/adapter
truth "with the line" grep -q "trained over its model in bf16.*--base bf16 has the same" err

# --merge: W + s·B·A of the file's W, whatever the base was while it learned
expect "a step that changes nothing, plainly" "${sft[@]}" --adapter run/adapter --lr 1e-30 --max-steps 1 --merge \
    --out merged
truth "merges to the same bytes" cmp run/model/model.safetensors merged/model/model.safetensors
expect "the merged model" "$eval_seal" loss --model run/model --data "$golden/rows.jsonl" "${rows[@]}" \
    --out merged.jsonl
truth "is near to what was learned" awk -v d="$(distance learned.jsonl merged.jsonl)" 'BEGIN { exit !(d < 0.3) }'

# resuming
rm -rf half; cp -r run half; rm -rf half/summary.json half/adapter half/model half/checkpoint/step-30
truth "half a run" test -d half/checkpoint/step-15
expect "resumes" "${learn[@]}" --base nf4 --save-every 15 --merge --out half --resume
truth "to the same adapter" cmp run/adapter/adapter_model.safetensors half/adapter/adapter_model.safetensors
rm -rf half/summary.json half/adapter half/model half/checkpoint/step-30
refuse "a resumed run over another base" '--base is "bf16" here but "nf4" in the checkpoint' "${learn[@]}" --out half \
    --resume

# what else reads a model
expect "answers over it" "$eval_seal" generate --model "$golden/base" --adapter run/adapter --base nf4 \
    --prompts "$golden/rows.jsonl" --greedy --max-new-tokens 4 "${rows[@]}" --out packed.json
truth "have what was learned" grep -q '"output":"w26"' packed.json
expect "scores over it" "$train_seal" select --method safe-loss --model "$golden/base" --base nf4 \
    --tune="$golden/rows.jsonl" --top 0.5 "${rows[@]}" --out half.jsonl
for algorithm in 1 2; do
    seal=(
        "$train_seal" selector --algorithm $algorithm --model "$golden/base" --base nf4 --lora all --lora-rank 4
        --tune="$golden/rows.jsonl" --safe "$golden/rows.jsonl" --batch 4 --epochs 3 "${rows[@]}"
    )
    expect "SEAL over it, Algorithm $algorithm" "${seal[@]}" --out seal$algorithm
    expect "recomputed" "${seal[@]}" --recompute --out again$algorithm
    truth "to the same bytes" cmp seal$algorithm/selector.safetensors again$algorithm/selector.safetensors
    command -v mpirun >/dev/null || {
        echo "ok ranks # SKIP mpirun is not there (apt-get install openmpi-bin)"; continue
    }
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 \
        PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe OMPI_MCA_mpi_yield_when_idle=1
    expect "on two ranks" mpirun -n 2 "${seal[@]}" --out ranks$algorithm
    last() { tail -n 1 "$1/log.jsonl" | grep -o '"tune_loss":[^,}]*' | cut -d: -f2; }
    truth "with the losses of one" awk -v a="$(last seal$algorithm)" -v b="$(last ranks$algorithm)" \
        'BEGIN { d = a - b; exit !(a > 0 && d < 1e-5 && d > -1e-5) }'
done

refuse "training the whole model" "--base nf4 freezes the model" "${sft[@]}" --base nf4 --max-steps 1 --out x
refuse "its selector" "--base nf4 freezes the model" "$train_seal" selector --model "$golden/base" --base nf4 \
    --tune="$golden/rows.jsonl" --safe "$golden/rows.jsonl" "${rows[@]}" --out x
refuse "a precision that is none" "nf4" "${learn[@]}" --base fp4 --out x
truth "nothing was written" test ! -e x
exit $failed
