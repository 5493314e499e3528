#!/usr/bin/env bash
# The memory plans of two models of the paper as docs/adapters.md shows them: `selector --dry-run` in bf16, GB by class.
# Nothing is allocated.
#   dev/memory_table.sh        BUILD=build/cuda-bf16: the build of a GPU (its plans are the same)
set -eu
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build/cpu-bf16}
[ -x "$build/train_seal" ] || make --no-print-directory -j"$(nproc)" CPU=1 PRECISION=bf16 "$build/train_seal" >/dev/null
train_seal=$PWD/$build/train_seal
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$work"
cat >tokenizer.json <<'JSON'
{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":1,"content":"<eos>","single_word":false,
  "lstrip":false,"rstrip":false,"normalized":false,"special":true}],
 "normalizer":null,"pre_tokenizer":{"type":"WhitespaceSplit"},"post_processor":null,"decoder":null,
 "model":{"type":"WordLevel","vocab":{"[UNK]":0,"<eos>":1,"a":2},"unk_token":"[UNK]"}}
JSON
echo '{"prompt":"a","response":"a"}' >rows.jsonl
shape() { "$train_seal" init --config-only --tokenizer tokenizer.json --quiet "$@"; }
shape --family llama --layers 32 --width 4096 --heads 32 --kv-heads 8 --ff 14336 --vocab 128256 --positions 8192 \
    --rope-base 500000 --out "Llama-3-8B"
shape --family gpt_neox --layers 32 --width 2560 --heads 32 --ff 10240 --vocab 50304 --positions 2048 \
    --out "Pythia-2.8B"
echo "| model, what is trained | Algorithm | tokens per pack | weights | gradients, masters, moments | activations | scratch | total GB |"
echo "|---|---|---|---|---|---|---|---|"
plan() {  # model, trained, algorithm, tokens, options
    local model=$1 trained=$2 algorithm=$3 tokens=$4; shift 4
    "$train_seal" selector --model "$model" --tune rows.jsonl --safe rows.jsonl --algorithm "$algorithm" \
        --tokens "$tokens" --max-length 2048 --batch 64 --out "$(mktemp -d -p .)" --dry-run "$@" |
        awk -F'|' -v head="| $model, $trained | $algorithm | $tokens" '
            { gsub(/ +$/, "", $2); gsub(/^ +/, "", $2); mb[$2] = $3 * 1048576 / 1e9 }
            END {
                printf "%s | %.2f | %.2f | %.2f | %.2f | **%.2f** |\n", head, mb["weights"],
                    mb["gradients"] + mb["master weights"] + mb["Adam m"] + mb["Adam v"], mb["activations"],
                    mb["scratch"] + mb["packs"] + mb["selector"], mb["total"] }'
}
for algorithm in 2 1; do
    plan Llama-3-8B "LoRA q,v r16, \`--base nf4 --recompute\`" $algorithm 4096 --lora q,v --base nf4 --recompute
done
for algorithm in 2 1; do
    plan Llama-3-8B "LoRA q,v r16, \`--base fp8 --recompute\`" $algorithm 4096 --lora q,v --base fp8 --recompute
done
for algorithm in 2 1; do plan Llama-3-8B "LoRA q,v r16, \`--recompute\`" $algorithm 4096 --lora q,v --recompute; done
for algorithm in 2 1; do plan Llama-3-8B "LoRA q,v r16" $algorithm 4096 --lora q,v; done
for algorithm in 2 1; do plan Llama-3-8B "LoRA q,v r16" $algorithm 16384 --lora q,v; done
for algorithm in 2 1; do plan Llama-3-8B "LoRA q,v r16, \`--base fp8\`" $algorithm 16384 --lora q,v --base fp8; done
for algorithm in 2 1; do plan Llama-3-8B "LoRA all r16" $algorithm 8192 --lora all; done
for algorithm in 2 1; do plan Pythia-2.8B "all weights" $algorithm 4096; done
for algorithm in 2 1; do plan Pythia-2.8B "all weights, \`--recompute\`" $algorithm 16384 --recompute; done
