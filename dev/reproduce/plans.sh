#!/usr/bin/env bash
# What the paper's models take on each of several GPUs, by the memory plan that a run prints before it allocates
# (--dry-run): Pythia-2.8B in full with Algorithm 1 on 4 GPUs of 48 GB, as the paper's A6000s, and Llama-3-8B in full
# with Algorithm 2 on 8 of 80 GB. Needs no GPU, no weights and seconds. bf16 build, samples of 2048 tokens.
# usage: dev/reproduce/plans.sh      prints a Markdown table. NCCL's own buffers and the CUDA context are not in the
#                                    plan: leave about 2 GiB to them.
set -eu
cd "$(dirname "$0")/../.." || exit 1
train_seal=$PWD/${BUILD:-build/cpu-bf16}/train_seal
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir pythia llama
cat >pythia/config.json <<'J'
{"model_type":"gpt_neox","architectures":["GPTNeoXForCausalLM"],"hidden_size":2560,"num_hidden_layers":32,
 "num_attention_heads":32,"intermediate_size":10240,"vocab_size":50304,
 "max_position_embeddings":2048,"rotary_pct":0.25,"rotary_emb_base":10000,"hidden_act":"gelu","layer_norm_eps":1e-05,
 "use_parallel_residual":true,"tie_word_embeddings":false,"bos_token_id":0,"eos_token_id":0}
J
cat >llama/config.json <<'J'
{"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":4096,"num_hidden_layers":32,
 "num_attention_heads":32,"num_key_value_heads":8,"intermediate_size":14336,"vocab_size":128256,
 "max_position_embeddings":8192,"rope_theta":500000.0,"hidden_act":"silu","rms_norm_eps":1e-05,
 "tie_word_embeddings":false,"bos_token_id":0,"eos_token_id":0}
J
cat >tokenizer.json <<'J'
{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":0,"content":"<eos>","single_word":false,
  "lstrip":false,"rstrip":false,"normalized":false,"special":true}],
 "normalizer":null,"pre_tokenizer":{"type":"WhitespaceSplit"},"post_processor":null,"decoder":null,
 "model":{"type":"WordLevel","vocab":{"<eos>":0,"[UNK]":1,"Human:":2,"Assistant:":3,"yes":4},"unk_token":"[UNK]"}}
J
cp tokenizer.json pythia && cp tokenizer.json llama
for i in 1 2 3; do echo '{"prompt":"yes yes","response":"yes"}'; done >rows.jsonl
echo "| model | run | GPUs | weights | gradients | masters | moments | activations | scratch, packs | total, GiB | on a GPU |"
echo "|---|---|---|---|---|---|---|---|---|---|---|"
plan() {  # name, directory, what, GPUs, GB of one, options…
    local name=$1 model=$2 what=$3 ranks=$4 gb=$5; shift 5
    "$train_seal" selector --model "$model" --tune rows.jsonl --safe rows.jsonl --out "run.$model" --max-length 2048 \
        --dry-run --ranks "$ranks" "$@" 2>err |
        awk -F'|' -v name="$name" -v what="$what" -v ranks="$ranks" -v gb="$gb" '
            /^\| memory/ { on = 1 } on { gsub(/^ +| +$/, "", $2); m[$2] = $3 / 1024 }
            END { total = m["total"]; room = gb * 1e9 / 2^30 - 2
                  printf "| %s | %s | %d × %d GB | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f | **%.1f** | %s |\n",
                      name, what, ranks, gb, m["weights"], m["gradients"], m["master weights"],
                      m["Adam m"] + m["Adam v"], m["activations"], m["scratch"] + m["packs"] + m["selector"], total,
                      total <= room ? "fits" : "does not fit" }'
    [ ! -s err ] || { cat err >&2; exit 1; }
}
for ranks in 1 4; do
    plan "Pythia-2.8B, full" pythia "Algorithm 1" $ranks 48 --algorithm 1
    plan "Pythia-2.8B, full" pythia "Algorithm 1, --recompute" $ranks 48 --algorithm 1 --recompute
done
plan "Llama-3-8B, full" llama "Algorithm 2, --recompute" 1 80 --algorithm 2 --recompute
plan "Llama-3-8B, full" llama "Algorithm 2" 8 80 --algorithm 2
plan "Llama-3-8B, full" llama "Algorithm 2, --recompute" 8 80 --algorithm 2 --recompute
plan "Llama-3-8B, full" llama "Algorithm 1, --recompute" 8 80 --algorithm 1 --recompute
plan "Llama-3-8B, LoRA q,v" llama "Algorithm 1" 1 80 --algorithm 1 --lora q,v
