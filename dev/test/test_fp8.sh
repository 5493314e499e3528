#!/usr/bin/env bash
# A base in fp8 through whole programs: adapters learn over it as over a plain one and say so, resume to the same bytes,
# merge into the unquantised model;
# losses, answers and scores over the same base; several ranks; GPUs and models that do not have it.
set -u
. "$(dirname "$0")/cli.sh"
eval_seal=${train_seal%train_seal}eval_seal
cd "$work" || exit 1
word_tokenizer tok say a b c d e f g h A B C D E F G H
for x in a b c d e f g h; do
    for y in a b c d e f g h; do echo "{\"prompt\":\"say $x $y\",\"response\":\"${y^}\"}"; done
done >rows.jsonl
rows=(--template '{prompt} ' --quiet)
sft=("$train_seal" sft --tune rows.jsonl --batch 8 "${rows[@]}")
expect "a model" "$train_seal" init --layers 2 --width 64 --heads 2 --tokenizer tok/tokenizer.json --positions 32 \
    --seed 3 --family llama --ff 128 --out drawn --quiet
expect "which has learned a little" "${sft[@]}" --model drawn --lr 2e-3 --epochs 1 --out learned
base=learned/model
learn=("${sft[@]}" --model $base --lora all --lora-rank 4 --lr 3e-3 --epochs 6)
losses() { local out=$1; shift; "$eval_seal" loss --data rows.jsonl "${rows[@]}" --out "$out" "$@"; }
mean() { sed 's/.*"loss"://; s/[^0-9.e-].*//' "$1" | awk '{ s += $1 } END { print s / NR }'; }
apart() { awk -v a="$(mean "$1")" -v b="$(mean "$2")" 'BEGIN { d = (a - b) / a; print d < 0 ? -d : d }'; }
curve() { grep -o '^{"step".*"loss":[^,}]*' "$1/log.jsonl" | sed 's/.*"loss"://'; }

expect "the model plainly" losses plain.jsonl --model $base
expect "the model in fp8" losses fp8.jsonl --model $base --base fp8
truth "has other losses, within 1% of those" awk -v d="$(apart plain.jsonl fp8.jsonl)" \
    'BEGIN { exit !(d > 1e-7 && d < 0.01) }'
expect "adapters learn over it" "${learn[@]}" --base fp8 --save-every 24 --merge --out run
expect "and over a plain one" "${learn[@]}" --merge --out other
paste <(curve run) <(curve other) >curves
truth "with losses within 1% of those at every step" awk \
    '{ d = $1 / $2 - 1; if (d > 0.01 || d < -0.01) bad = 1; if ($1 != $2) differ = 1 }
        END { exit bad || !differ || NR != 48 }' curves
expect "its losses with them" losses learned.jsonl --model $base --base fp8 --adapter run/adapter
truth "are lower by a tenth" awk -v a="$(mean fp8.jsonl)" -v b="$(mean learned.jsonl)" 'BEGIN { exit !(b < 0.9 * a) }'
truth "the adapter names its base" grep -aq '"base_precision":"fp8"' run/adapter/adapter_model.safetensors
expect "the same plainly" losses elsewhere.jsonl --model $base --adapter run/adapter
truth "with a line that says which base it had" grep -q "trained over its model in fp8.*--base fp8 has the same" err
expect "over 4 bits" losses elsewhere.jsonl --model $base --base nf4 --adapter run/adapter
truth "with the line" grep -q "trained over its model in fp8 and is read over one in nf4" err
expect "over its own base" losses again.jsonl --model $base --base fp8 --adapter run/adapter
truth "there is no such line" test ! -s err
truth "the same losses twice" cmp learned.jsonl again.jsonl

# --merge: W + s·B·A of the file's W, whatever the base was while it learned
expect "a step that changes nothing, plainly" "${sft[@]}" --model $base --adapter run/adapter --lr 1e-30 --max-steps 1 \
    --merge --out merged
truth "merges to the same bytes" cmp run/model/model.safetensors merged/model/model.safetensors
expect "the merged model" losses merged.jsonl --model run/model
truth "is near to what was learned" awk -v a="$(mean learned.jsonl)" -v b="$(mean merged.jsonl)" \
    'BEGIN { d = a - b; exit !(d < 0.05 && d > -0.05) }'

# resuming
rm -rf half; cp -r run half; rm -rf half/summary.json half/adapter half/model half/checkpoint/step-48
truth "half a run" test -d half/checkpoint/step-24
expect "resumes" "${learn[@]}" --base fp8 --save-every 24 --merge --out half --resume
truth "to the same adapter" cmp run/adapter/adapter_model.safetensors half/adapter/adapter_model.safetensors
rm -rf half/summary.json half/adapter half/model half/checkpoint/step-48
refuse "a resumed run over another base" '--base is "nf4" here but "fp8" in the checkpoint' "${learn[@]}" --base nf4 \
    --out half --resume

# what else reads a model
expect "answers over it" "$eval_seal" generate --model $base --adapter run/adapter --base fp8 --prompts rows.jsonl \
    --greedy --max-new-tokens 4 "${rows[@]}" --out answers.json
truth "have what was learned" grep -q '"output":"[A-H]"' answers.json
expect "scores over it" "$train_seal" select --method safe-loss --model $base --base fp8 --tune rows.jsonl --top 0.5 \
    "${rows[@]}" --out half.jsonl
for algorithm in 1 2; do
    seal=(
        "$train_seal" selector --algorithm $algorithm --model $base --base fp8 --lora all --lora-rank 4 --tune
        rows.jsonl --safe rows.jsonl --batch 8 --max-steps 4 "${rows[@]}"
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
    # The first step: later ones differ by what sums of another order round to another number of e4m3.
    first() { grep -m 1 -o '"tune_loss":[^,}]*' "$1/log.jsonl" | cut -d: -f2; }
    truth "with the first losses of one" awk -v a="$(first seal$algorithm)" -v b="$(first ranks$algorithm)" \
        'BEGIN { d = a - b; exit !(a > 0 && d < 1e-5 && d > -1e-5) }'
done

expect "its bytes are planned" "${learn[@]}" --base fp8 --dry-run --out x
CPU_DEVICE=rtx4090 expect "a GPU of compute capability 8.9 has it" losses ada.jsonl --model $base --base fp8
CPU_DEVICE=a100 refuse "one of 8.0" \
    "has compute capability 8.0; --base fp8 needs 8.9 or newer: leave it out, or use --base nf4" "${learn[@]}" \
    --base fp8 --out x
refuse "training the whole model" "--base fp8 freezes the model" "${sft[@]}" --model $base --base fp8 --max-steps 1 \
    --out x
refuse "its selector" "--base fp8 freezes the model" "$train_seal" selector --model $base --base fp8 --tune rows.jsonl \
    --safe rows.jsonl "${rows[@]}" --out x
expect "another model" "$train_seal" init --layers 1 --width 64 --heads 2 --ff 200 --family llama \
    --tokenizer tok/tokenizer.json --positions 32 --out odd --quiet
refuse "one whose sides are not multiples of 16" \
    "needs linear layers whose sides are multiples of 16; model.layers.0.mlp.gate_proj.weight is 200 × 64" "${sft[@]}" \
    --model odd --base fp8 --lora q,v --out x
truth "nothing was written" test ! -e x
exit $failed
