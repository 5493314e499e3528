#!/usr/bin/env bash
# Checkpoints as people have them: weights in another form, quantised, with a head that the config denies, as pointers
# of Git LFS. Each is read, or refused by the name of what it is.
set -u
. "$(dirname "$0")/cli.sh"
eval_seal=${train_seal%train_seal}eval_seal repo=$PWD
cd "$work" || exit 1
word_tokenizer tok a b c d
printf '{"prompt":"a b","response":"c d"}\n' >rows.jsonl
"$train_seal" init --family llama --layers 1 --width 64 --heads 2 --tokenizer tok/tokenizer.json --positions 32 \
    --out base --quiet
loss() { "$eval_seal" loss --model "$1" --data rows.jsonl --json --quiet; }
# variant DIR: a copy of the model. config DIR SED…: its config.json changed
variant() { rm -rf "$1"; cp -r base "$1"; }
config() { local dir=$1; shift; sed -i "$@" "$dir/config.json"; }
# header FILE SED: changes the names and dtypes of a safetensors header in place; the replacement has the length of what
# it replaces
header() { LC_ALL=C sed -i "$2" "$1"; }

expect "the model itself" loss base
for form in pytorch_model.bin pytorch_model.bin.index.json consolidated.00.pth tf_model.h5; do
    variant other; rm other/model.safetensors; touch other/$form
    refuse "$form" "there is $form and no model.safetensors" loss other
done
refuse "an old checkpoint names its converter" "run python3 data/convert_bin.py other" bash -c \
    "rm -f other/*.h5; touch other/pytorch_model.bin; $eval_seal loss --model other --data rows.jsonl --quiet"
variant other; rm other/model.safetensors; touch other/model-q4.gguf
refuse "a GGUF file" "run train_seal import --gguf other/model-q4.gguf" loss other
variant other; rm other/model.safetensors; echo '{}' >other/adapter_config.json
refuse "an adapter as a model" "it is an adapter" loss other
variant other; printf 'version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 538090408\n' 0 >other/model.safetensors
refuse "a pointer of Git LFS" "run git lfs pull" loss other

for method in '"gptq","bits":4:gptq, 4 bits' '"awq","bits":4:awq, 4 bits' \
    '"bitsandbytes","load_in_4bit":true:bitsandbytes, 4 bits' '"fp8":fp8' '"compressed-tensors":compressed-tensors' \
    '"mxfp4":mxfp4'; do
    variant other; config other "1s/{/{\"quantization_config\":{\"quant_method\":${method%:*}},/"
    refuse "a config of ${method%%,*}" "are quantised (${method##*:})" loss other
done
variant other; header other/model.safetensors 's/self_attn.q_proj.weight/self_attn.q_proj.qweigh/; s/q_proj.qweigh/q_proj.g_idx1/'
header other/model.safetensors 's/0.self_attn.q_proj.g_idx1/0.self_attn.q_proj1.g_idx/'
refuse "tensors of GPTQ" "quantised checkpoint (GPTQ)" loss other
variant other; header other/model.safetensors 's/layers.0.mlp.up_proj.weight/layers.0.mlp.up_pro.qweight/'
refuse "tensors of AWQ" "quantised checkpoint (GPTQ or AWQ)" loss other
variant other; header other/model.safetensors 's/0.mlp.gate_proj.weight/0.mlp.ga.weight.absmax/'
refuse "tensors of bitsandbytes" "quantised checkpoint (bitsandbytes)" loss other
variant other; header other/model.safetensors 's/"model.embed_tokens.weight":{"dtype":"F32"/"model.embed_tokens.weight":{"dtype":"I32"/'
refuse "a dtype that is not a float" "is I32; expected F32, F16 or BF16" loss other

variant other; config other 's/"tie_word_embeddings":\s*false/"tie_word_embeddings": true/'
refuse "a tied config with another head" "lm_head.weight is not the embedding" loss other
variant other; header other/model.safetensors 's/lm_head.weight/lm_head.weighu/'
refuse "a file without its head" 'set "tie_word_embeddings" to true' loss other
variant other; header other/model.safetensors 's/model.embed_tokens.weight/other.embed_tokens.weight/'
refuse "tensors under another name" "has other.embed_tokens.weight, which belongs to no part of a llama model" loss \
    other
if python3 -c 'import torch, safetensors' 2>/dev/null; then
    variant other
    python3 -c 'import torch; from safetensors.torch import load_file; t = load_file("base/model.safetensors"); t["again"] = t["lm_head.weight"]; torch.save(t, "other/pytorch_model.bin")'
    rm other/model.safetensors
    expect "data/convert_bin.py" python3 "$repo/data/convert_bin.py" other
    truth "gives the model back" test "$(loss base | sed 's/.*"loss"/"loss"/')" = \
        "$(loss other | sed 's/.*"loss"/"loss"/')"
else echo "ok data/convert_bin.py # SKIP python3 has no torch and safetensors here"; fi
exit $failed
