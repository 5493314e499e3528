#!/usr/bin/env bash
# Adapters as PEFT saves them (dev/reference/record_peft.py): the losses are PEFT's; ranks and alphas by pattern, some
# layers only and the like are trained further and saved so that nothing is lost; what is other mathematics is refused
# by its name.
set -u
. "$(dirname "$0")/cli.sh"
eval_seal=${train_seal%train_seal}eval_seal golden=$PWD/dev/reference/golden/peft
cd "$work" || exit 1
template=$'Human: {prompt}\nAssistant: '
# losses OUT MODEL ADAPTER: of the recorded rows
losses() {
    "$eval_seal" loss --model "$2" ${3:+--adapter "$3"} --data "$golden/rows.jsonl" --template "$template" --out "$1" \
        --quiet
}
# as_recorded FILE NAME TOLERANCE: the losses of a file are the recorded ones of that name
as_recorded() {
    awk -v tolerance="$3" -v name="\"$2\":" '
        FNR == NR {
            if (index($0, name)) on = 1
            else if (on && /-?[0-9]/) { gsub(/[^0-9.e-]/, ""); truth[n++] = $0 }
            else if (on && /\]/) on = 0
            next }
        {
            sub(/.*"loss":/, ""); sub(/[^0-9.e-].*/, ""); d = ($0 - truth[k + 0]) / truth[k + 0]
            if (d < 0) d = -d; if (d > worst) worst = d
            k++ }
        END {
            printf "# %s: %.1e\n", name, worst
            exit !(n > 0 && n == k && worst <= tolerance) }' "$golden/truth.json" "$1"
}

expect "the model alone" losses base.jsonl "$golden/base" ""
truth "has transformers' losses" as_recorded base.jsonl base 2e-6
for name in plain rslora rank_pattern alpha_pattern both_patterns rslora_patterns layers layers_list regex all_linear \
    exclude fullname save_head save_norm dropout embeddings_saved; do
    expect "adapter $name" losses $name.jsonl "$golden/base" "$golden/$name"
    truth "$name has PEFT's losses" as_recorded $name.jsonl $name 2e-6
done
# a step that changes nothing: what is saved is what was read, as an adapter and merged
for name in plain rank_pattern both_patterns rslora_patterns layers layers_list regex exclude fullname \
    embeddings_saved; do
    expect "$name is trained further" "$train_seal" sft --model "$golden/base" --adapter "$golden/$name" \
        --tune "$golden/rows.jsonl" --template "$template" --lr 1e-30 --max-steps 1 --batch 4 \
        --merge --quiet --out $name.run
    losses $name.again "$golden/base" $name.run/adapter >out
    truth "$name: saved, it has PEFT's losses" as_recorded $name.again $name 2e-6
    losses $name.merged $name.run/model "" >out
    truth "$name: merged, it nearly has (the model is in bf16)" as_recorded $name.merged $name 2e-2
done
truth "ranks by pattern are saved" grep -q '"rank_pattern":.*{' rank_pattern.run/adapter/adapter_config.json
truth "a missing layer stays missing" bash -c \
    '! grep -aq "layers.0.self_attn.q_proj.lora_A" layers.run/adapter/adapter_model.safetensors'
# mixed ranks learn: the loss falls, on every module that is there
expect "mixed ranks are trained" "$train_seal" sft --model "$golden/base" --adapter "$golden/both_patterns" \
    --tune "$golden/rows.jsonl" --template "$template" --lr 1e-2 --epochs 20 --batch 4 --quiet --out learn
losses learn.jsonl "$golden/base" learn/adapter >out
mean() { sed 's/.*"loss"://; s/[^0-9.e-].*//' "$1" | awk '{ s += $1 } END { print s / NR }'; }
truth "and their loss falls" awk -v a="$(mean both_patterns.jsonl)" -v b="$(mean learn.jsonl)" \
    'BEGIN { exit !(b < 0.6 * a) }'
expect "Algorithm 1 with mixed ranks" "$train_seal" selector --algorithm 1 --model "$golden/base" \
    --adapter "$golden/both_patterns" --tune "$golden/rows.jsonl" --safe "$golden/rows.jsonl" \
    --template "$template" --max-steps 2 --batch 2 --quiet --out seal

expect "a head that was trained as well, in the scores of rows" "$train_seal" select --method safe-loss \
    --model "$golden/base" --adapter "$golden/save_head" --tune "$golden/rows.jsonl" --top 0.5 --out half.jsonl \
    --batch 2 --quiet
refuse "a head that was trained as well, further" "trained besides the adapter" "$train_seal" sft \
    --model "$golden/base" --adapter "$golden/save_head" --tune "$golden/rows.jsonl" --max-steps 1 --quiet --out x
refuse "DoRA" "DoRA is not supported" losses y "$golden/base" "$golden/dora"
refuse "an adapter of the embedding" "adapter of an embedding" losses y "$golden/base" "$golden/embed"
refuse "an adapter of the head" "adapts a module that is not a linear layer" losses y "$golden/base" "$golden/head"
# copy NAME SED: the adapter with another adapter_config.json
copy() { rm -rf copy; cp -r "$golden/$1" copy; sed -i "$2" copy/adapter_config.json; }
copy rank_pattern 's/"q_proj": 8/"q_proj": 9/'
refuse "a pattern of another rank than its tensor" "lora_A.weight has shape (8, 32)" losses y "$golden/base" copy
copy rank_pattern 's/"q_proj": 8/"q_proj": 0/'
refuse "a rank of nothing" "is not a number from 1" losses y "$golden/base" copy
copy rank_pattern 's/"q_proj": 8/"q_(proj": 8/'
refuse "a pattern that is not an expression" "is not a regular expression" losses y "$golden/base" copy
copy plain 's/"use_dora": false/"use_dora": false, "use_later": {"a": 1}/'
refuse "an option of a later PEFT" '"use_later" is set' losses y "$golden/base" copy
rm -rf other
"$train_seal" init --family gpt2 --layers 1 --width 32 --heads 1 --vocab 44 --positions 32 --out other --quiet
cp "$golden/base/tokenizer.json" other/
refuse "an adapter of another family" "not an adapter of a gpt2 model" losses y other "$golden/plain"
exit $failed
