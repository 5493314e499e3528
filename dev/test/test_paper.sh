#!/usr/bin/env bash
# A rehearsal of dev/reproduce --scale paper with tiny random models of the paper's families: from the rows of
# data/fetch.sh --messages, through the model's own chat template, to OUT/results.md with the paper's rows. Llama-3 with
# LoRA and all arms of table1.sh, a judge and a guard; Phi-3 trained in full by both algorithms.
set -u
. "$(dirname "$0")/cli.sh"
build=$(dirname "$train_seal")
words='may i copy name make so a b c d e f no sorry sure yes you can not is it good bad the answer m M safe unsafe 0 1 2 3 4 5 6 7 8 9'
# DIR EOS TEMPLATE mark…: a token a word, the marks of the template as special tokens, and the template
chat_tokenizer() {
    local dir=$1 eos=$2 template=$3 id=0 added='' vocab='' mark; shift 3
    for mark in "[UNK]" $words; do vocab+=",\"$mark\":$id"; id=$((id + 1)); done
    for mark; do
        added+=",{\"id\":$id,\"content\":\"$mark\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}"
        id=$((id + 1))
    done
    mkdir -p "$dir"
    cat >"$dir/tokenizer.json" <<J
{"version":"1.0","truncation":null,"padding":null,"added_tokens":[${added#,}],"normalizer":null,
 "pre_tokenizer":{"type":"WhitespaceSplit"},"post_processor":null,"decoder":null,
 "model":{"type":"WordLevel","vocab":{${vocab#,}},"unk_token":"[UNK]"}}
J
    printf '{"bos_token":"%s","eos_token":"%s","chat_template":"%s"}\n' "$1" "$eos" "$template" \
        >"$dir/tokenizer_config.json"
}
chat_tokenizer "$work/llama.tok" "<|eot_id|>" \
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}" \
    "<|begin_of_text|>" "<|start_header_id|>" "<|end_header_id|>" "<|eot_id|>"
chat_tokenizer "$work/phi.tok" "<|end|>" \
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + '<|end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}" \
    "<|endoftext|>" "<|user|>" "<|assistant|>" "<|system|>" "<|end|>"
expect "a tiny Llama-3" "$train_seal" init --family llama --layers 2 --width 64 --heads 2 --kv-heads 1 \
    --rope-base 500000 --positions 8192 --tokenizer "$work/llama.tok" --seed 3 --out "$work/llama" --quiet
expect "a tiny Phi-3" "$train_seal" init --family phi3 --layers 2 --width 64 --heads 2 --positions 4096 \
    --tokenizer "$work/phi.tok" --seed 4 --out "$work/phi" --quiet

# ---- the rows, as data/fetch.sh --messages writes them
turns() { printf '{"messages":[{"role":"user","content":"%s"},{"role":"assistant","content":"%s"}]}\n' "$1" "$2"; }
prompts() { printf '{"messages":[{"role":"user","content":"%s"}]}\n' "$1"; }
for i in 0 1 2 3 4 5 6 7; do for w in a b c; do
    turns "may i copy $w $i" "yes you can $w $i" >>"$work/tune.jsonl"
    turns "name $w $i" "it is $w" >>"$work/safe.jsonl"
done; turns "make bad $i" "sorry no" >>"$work/safe.jsonl"; turns "make bad $i" "no sorry" >>"$work/safeinstr.jsonl"
prompts "name d $i" >>"$work/hh.jsonl"; prompts "copy e $i" >>"$work/slimorca.jsonl"
prompts "make bad f $i" >>"$work/hexphi.jsonl"; done
printf '{instruction}\n{output_1}\n{output_2}\n' >"$work/pair.txt"
printf '{instruction}\n{output}\n' >"$work/guard.txt"
export TUNE=$work/tune.jsonl SAFE=$work/safe.jsonl SAFEINSTR=$work/safeinstr.jsonl HH=$work/hh.jsonl \
    SLIMORCA=$work/slimorca.jsonl HEXPHI=$work/hexphi.jsonl GENERATE="--max-new-tokens 6"
export JUDGE_OPTIONS="--judge-template $work/pair.txt" GUARD_OPTIONS="--judge-template $work/guard.txt"
common="--batch 8 --tokens 256 --max-length 64"
paper() {
    local script=$1 out=$2; shift 2
    env "$@" dev/reproduce/$script.sh --scale paper --seeds 42 --build "$build" --shared "$work/shared" \
        --out "$work/$out"
}

lora="$common --lora q,v --lora-rank 4 --lora-alpha 4"
expect "table1.sh with a Llama-3 under LoRA" paper table1 llama1 MODEL="$work/llama" JUDGE="$work/llama" \
    GUARD="$work/llama" RUN="$lora" SELECTOR="--lr 1e-3 --selector-lr 5e-3 --gamma linear:0,0.03 --epochs 2" \
    SFT="--lr 1e-3 --epochs 1" SCORER="--lr 1e-3 --epochs 1"
md=$work/llama1/results.md
truth "the six methods that the paper has, each beside its own figures" test "$(grep -c '— the paper' "$md")" -eq 6
truth "win rates on all three sets" grep -qE '^\| SEAL \(Algorithm 2\) \| [0-9.]+ \| [0-9.]+ \| [0-9.]+ \|' "$md"
truth "Standard SFT is 50" grep -qE '^\| Standard SFT \| 50.00 \| 50.00 \| 50.00 \|' "$md"
truth "what the guard calls unsafe, and refusals" grep \
    -q 'HH answers unsafe by the guard % | HEx-PHI answers unsafe by the guard % | refuses HEx-PHI %' "$md"
truth "the model's own chat template was used" bash -c \
    "grep -q 'chat_template\":\"auto' \"\$(ls -d $work/shared/paper-*/42/selectors/*/summary.json | head -n 1)\""
truth "only adapters were trained" bash -c \
    "ls $work/shared/paper-*/42/models/*/sft/adapter/adapter_config.json >/dev/null &&
        ! ls $work/shared/paper-*/42/models/*/sft/model 2>/dev/null"
full="--batch 8 --tokens 256 --max-length 64"
expect "ablation_algorithm.sh with a Phi-3 in full" paper ablation_algorithm phi MODEL="$work/phi" JUDGE="$work/llama" \
    RUN="$full" SELECTOR="--lr 1e-3 --selector-lr 4e-3 --gamma linear:0,0.02 --epochs 2" SFT="--lr 1e-3 --epochs 1" \
    SCORER="--lr 1e-3 --epochs 1"
truth "both algorithms have win rates, memory and time" bash -c \
    "for a in 1 2; do grep -qE \"^\\| Algorithm \$a( \\(.*\\))? \\| [0-9.]+ \\| [0-9.]+ \\| [0-9.]+ \\|.*\\| [0-9]+ \\| [0-9]+ \\|\" $work/phi/results.md || exit 1; done"
truth "whole models were trained" bash -c "ls $work/shared/paper-*/42/models/*/sft/model/model.safetensors >/dev/null"
expect "ablation_gamma.sh too" paper ablation_gamma gamma MODEL="$work/phi" JUDGE="$work/llama" RUN="$full" \
    SELECTOR="--lr 1e-3 --selector-lr 4e-3 --epochs 1" SFT="--lr 1e-3 --epochs 1"
truth "four schedules" test "$(grep -c '^| Algorithm 2, γ' "$work/gamma/results.md")" -eq 4
exit $failed
