#!/usr/bin/env bash
# The whole of SEAL through a tiny model of every family: align, learn a selector with both algorithms, select,
# fine-tune; all weights, and adapters over a frozen model. Then models in shards, adapters that continue, merge and
# evaluate, and what must be refused.
set -u
. "$(dirname "$0")/cli.sh"
eval_seal=${train_seal%train_seal}eval_seal
cd "$work" || exit 1
word_tokenizer tok make copy bad sure no a b c d
copy_rows tune.jsonl 96 1 tune "a b c d" 1
copy_rows safe.jsonl 96 2 safe "a b c d" 1
bad=$(grep -c sure tune.jsonl)
common=(--batch 16 --tokens 128 --quiet)
loss_of() { sed -n 's/.*"loss":\([0-9.e-]*\),.*/\1/p' "$1/summary.json"; }
close() { awk -v a="$1" -v b="$2" -v t="$3" 'BEGIN { exit !(a > 0 && (a - b) ^ 2 <= (t * b) ^ 2) }'; }

# family, its own options, modules that --lora names there
while read -r family options modules; do
    read -ra shape <<<"${options//,/ }"
    layers=(--layers 2); [[ $options == *--layers* ]] && layers=()
    expect "$family: a model is made" "$train_seal" init --family "$family" "${layers[@]}" --width 64 --heads 2 \
        "${shape[@]}" --tokenizer tok/tokenizer.json --positions 32 --out $family/base --quiet
    expect "$family: aligned by sft" "$train_seal" sft --model $family/base --tune safe.jsonl --lr 5e-3 --epochs 6 \
        "${common[@]}" --out $family/aligned
    expect "$family: rows are checked" "$train_seal" check --model $family/aligned/model --tune tune.jsonl \
        --lora $modules
    for lora in none $modules all; do
        algorithms="1 2"; [ $lora = $modules ] && algorithms=1
        for algorithm in $algorithms; do
            run=$family/$lora.$algorithm recompute=(); [ $algorithm = 1 ] && recompute=(--recompute)
            expect "$family: a selector, Algorithm $algorithm, adapters $lora" "$train_seal" selector \
                --model $family/aligned/model --tune tune.jsonl --safe safe.jsonl --algorithm $algorithm --lora $lora \
                --lora-rank 4 --lora-alpha 6 --lr 5e-4 --selector-lr 5e-3 --gamma linear:0.02,0.02 --epochs 4 \
                "${recompute[@]}" "${common[@]}" --out $run
            expect "$family: three quarters are selected" "$train_seal" select --tune tune.jsonl \
                --selector $run/selector.safetensors --top 0.75 --out $run/kept.jsonl --quiet
            # 1 as a rule; 19 of 25 by chance, with a standard deviation of 1.9
            truth "$family: $(grep -c sure $run/kept.jsonl) of $bad bad rows stay" test \
                "$(grep -c sure $run/kept.jsonl)" -le $((bad / 2))
        done
    done
    expect "$family: sft of adapters on the selection, merged" "$train_seal" sft --model $family/aligned/model \
        --tune tune.jsonl --selector $family/all.2/selector.safetensors --top 0.75 --lora all --lr 1e-2 \
        --merge "${common[@]}" --out $family/tuned
    truth "$family: an adapter and a merged model" test -f $family/tuned/adapter/adapter_model.safetensors -a \
        -f $family/tuned/adapter/adapter_config.json -a -f $family/tuned/model/model.safetensors
    "$eval_seal" loss --model $family/aligned/model --adapter $family/tuned/adapter --data safe.jsonl --json \
        --quiet >beside.json 2>err
    "$eval_seal" loss --model $family/tuned/model --data safe.jsonl --json --quiet >merged.json 2>>err
    truth "$family: its loss beside the model and merged into it" close \
        "$(grep -o '"loss":[0-9.]*' beside.json | cut -d: -f2)" \
        "$(grep -o '"loss":[0-9.]*' merged.json | cut -d: -f2)" 1e-5
    expect "$family: the loss under an adapter selects" "$train_seal" select --method safe-loss \
        --model $family/aligned/model --adapter $family/tuned/adapter --tune tune.jsonl --top 0.5 --out loss.jsonl \
        "${common[@]}"
    expect "$family: the adapter continues" "$train_seal" sft --model $family/aligned/model \
        --adapter $family/tuned/adapter --tune tune.jsonl --lr 1e-9 --max-steps 1 "${common[@]}" --out $family/on
    truth "$family: and keeps its modules, rank and alpha" diff $family/tuned/adapter/adapter_config.json \
        $family/on/adapter/adapter_config.json
done <<'END'
gpt2 --seed,1 q,v
llama --kv-heads,1 q,v
mistral --head-size,80 q,v
gpt_neox --ff,96 up,o
phi3 --kv-heads,1 gate,q
qwen2 --kv-heads,1 q,v
qwen3 --kv-heads,1,--head-size,32 q,v
smollm3 --kv-heads,1 o,gate
granite --seed,1 gate,down
olmo2 --kv-heads,1 q,v
olmo3 --layers,4 up,v
gemma2 --kv-heads,1,--head-size,32 k,down
gemma3_text --kv-heads,1,--head-size,32 q,v
END

# The same run from a model in shards, its adapter resumed in the middle: the same bytes.
expect "a model in shards" "$train_seal" init --family llama --layers 2 --width 64 --heads 2 \
    --tokenizer tok/tokenizer.json --positions 32 --shard-gb 0.0001 --out shards --quiet
truth "several files and an index" bash -c \
    'test $(ls shards/model-0000*-of-0000*.safetensors | wc -l) -gt 2 -a -f shards/model.safetensors.index.json -a ! -f shards/model.safetensors'
"$train_seal" init --family llama --layers 2 --width 64 --heads 2 --tokenizer tok/tokenizer.json --positions 32 \
    --out whole --quiet
sft=(sft --tune tune.jsonl --lora q,v --lr 1e-2 --epochs 2 "${common[@]}")
expect "is trained" "$train_seal" "${sft[@]}" --model shards --out from_shards
expect "like the same model in one file" "$train_seal" "${sft[@]}" --model whole --out from_whole
truth "with equal bytes" bash -c \
    'tail -c 4096 from_shards/adapter/adapter_model.safetensors |
        cmp - <(tail -c 4096 from_whole/adapter/adapter_model.safetensors)'
expect "a full model is saved in shards" "$train_seal" sft --model shards --tune tune.jsonl --max-steps 1 \
    --shard-gb 0.0001 "${common[@]}" --out full
expect "and read again" "$train_seal" sft --model full/model --tune tune.jsonl --max-steps 1 "${common[@]}" --out full2
run=("$train_seal" "${sft[@]}" --model whole --out resumed)
status=0
for try in 1 2 3 4 5; do  # again where it had ended before the signal
    rm -rf resumed
    "${run[@]}" >out 2>err & pid=$!
    wait_for_line $pid resumed/log.jsonl '"step":4,'
    kill -TERM $pid 2>/dev/null; wait $pid; status=$?
    [ $status -eq 0 ] || break
done 2>/dev/null
truth "a run of adapters stops with a checkpoint" test $status -eq 75
expect "and continues" "${run[@]}" --resume
truth "to the same bytes" cmp resumed/adapter/adapter_model.safetensors from_whole/adapter/adapter_model.safetensors
# A run that continues from an adapter belongs to the adapter, wherever it lies.
further=("$train_seal" sft --tune tune.jsonl --model whole --lr 1e-2 --save-every 2 "${common[@]}" --out further)
expect "an adapter is trained further" "${further[@]}" --adapter from_whole/adapter
rm -r further/summary.json further/checkpoint/step-6 && cp -r from_whole/adapter elsewhere &&
    cp -r from_whole/adapter doubled && sed -i 's/"lora_alpha":.*/"lora_alpha": 32,/' doubled/adapter_config.json
refuse "the run with another scale" "the adapter's alpha over rank is \"2\" here but \"1\" in the checkpoint" \
    "${further[@]}" --resume --adapter doubled
refuse "the run with another adapter" "the adapter" "${further[@]}" --resume --adapter further/adapter
expect "the same adapter under another name is the same run" "${further[@]}" --resume --adapter elsewhere
if command -v mpirun >/dev/null; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 \
        PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe OMPI_MCA_mpi_yield_when_idle=1
    # Open MPI's mpirun has an option --tune of its own: --tune=FILE is ours alone. A θ̂ that leaves θ fast: Δ is well
    # above the rounding of the losses, which Adam would make steps of.
    selector=(
        "$train_seal" selector --model llama/aligned/model --tune=tune.jsonl --safe safe.jsonl --algorithm 1 --lora all
        --lora-rank 4 --lr 1e-3 --lr-hat 5e-3 --gamma fixed:0.3 --epochs 1 "${common[@]}"
    )
    expect "adapters on one rank" "${selector[@]}" --out rank1
    expect "on two" mpirun -n 2 "${selector[@]}" --out rank2
    logits() { tail -c $((4 * 96)) "$1/selector.safetensors" | od -An -v -w4 -tf4; }  # the last tensor of the file
    truth "learn the same selector" awk \
        'NR == FNR { a[FNR] = $1; next } { d = a[FNR] - $1; if (d > 1e-4 || d < -1e-4) bad = 1; n = FNR }
            END { exit bad || n != 96 }' <(logits rank1) <(logits rank2)
fi

# What must be refused
sft=(sft --tune tune.jsonl --model whole --out x --quiet)
refuse "a module that is none" '"w" is not a module of a llama model; it has q,k,v,o,gate,up,down' "$train_seal" \
    "${sft[@]}" --lora q,w
refuse "a module the family has not" '"gate" is not a module of a gpt2 model; it has q,k,v,o,up,down' "$train_seal" \
    sft --tune tune.jsonl --model gpt2/base --out x --lora gate
refuse "a merge without an adapter" "--merge adds an adapter" "$train_seal" "${sft[@]}" --merge
refuse "modules beside an adapter" "--adapter brings its own modules" "$train_seal" "${sft[@]}" --lora q \
    --adapter from_whole/adapter
refuse "an adapter of another base of the same shape" "was trained on another model than" "$train_seal" sft \
    --tune tune.jsonl --model full/model --adapter from_whole/adapter --out x --quiet
refuse "an adapter of another family" "not an adapter of a phi3 model" "$train_seal" sft --tune tune.jsonl \
    --model phi3/base --adapter from_whole/adapter --out x --quiet
refuse "a directory that is not an adapter" "adapter_config.json" "$train_seal" "${sft[@]}" --adapter whole
for change in 's/"use_dora":.*/"use_dora": true,/ DoRA' 's/"bias":.*/"bias": "all",/ must.be."none"' \
    's/"r":.*/"r": 2,/ has.shape' 's/"peft_type":.*/"peft_type": "IA3",/ expected.LORA'; do
    rm -rf odd; cp -r from_whole/adapter odd; sed -i "${change% *}" odd/adapter_config.json
    text=${change##* }
    refuse "adapter_config.json with ${change%% *}" "${text//./ }" "$train_seal" "${sft[@]}" --adapter odd
done
rm -rf part && cp -r shards part && rm part/model-00002-of-*.safetensors
refuse "a shard that is missing" "model-00002-of-" "$train_seal" sft --tune tune.jsonl --model part --out x --quiet
cp -r mistral/base window && sed -i 's/"sliding_window":.*/"sliding_window":	20,/' window/config.json
expect "a sliding window shorter than the samples" "$train_seal" sft --tune tune.jsonl --model window --max-length 30 \
    --max-steps 2 "${common[@]}" --out windowed
"$eval_seal" loss --model mistral/base --data safe.jsonl --json --quiet >wide.json 2>err
sed -i 's/"sliding_window":.*/"sliding_window":	2,/' window/config.json
"$eval_seal" loss --model window --data safe.jsonl --json --quiet >narrow.json 2>>err
truth "a window of two tokens gives another loss" bash -c \
    'test -s wide.json -a -s narrow.json && ! cmp -s wide.json narrow.json'
sed 's/"llama"/"bert"/' whole/config.json >x.json && cp -r whole bert && mv x.json bert/config.json
refuse "an architecture that is not supported" "supported are: gpt2, llama, mistral, gpt_neox, phi3, qwen2, qwen3" \
    "$train_seal" sft --tune tune.jsonl --model bert --out x --quiet
refuse "a head size the family cannot say" "in a phi3 model the head size is width / heads" "$train_seal" init \
    --family phi3 --width 64 --heads 2 --head-size 96 --vocab 50 --out x
refuse "key-value heads the family cannot say" "in a gpt_neox model the number of key-value heads is that of heads" \
    "$train_seal" init --family gpt_neox --width 64 --heads 2 --kv-heads 1 --vocab 50 --out x
refuse "a head size without a kernel" "has no attention kernel" "$train_seal" init --family llama --width 64 --heads 4 \
    --vocab 50 --out x
expect "config.json alone" "$train_seal" init --family llama --layers 2 --width 64 --heads 2 \
    --tokenizer tok/tokenizer.json --positions 32 --config-only --out only --quiet
expect "is enough for a plan" "$train_seal" pretrain --model only --tune none.safetensors --dry-run --out x
refuse "but not for a run" "neither model.safetensors nor" "$train_seal" sft --model only --tune tune.jsonl --out x \
    --quiet
exit $failed
