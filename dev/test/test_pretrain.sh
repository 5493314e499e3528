#!/usr/bin/env bash
# train_seal init and pretrain end to end: a model is made, trained on a token file until it has learned the pattern,
# saved and loaded again; what a user can get wrong ends in one line and status 2.
set -u
. "$(dirname "$0")/cli.sh"
cd "$work" || exit 1
tokens train.safetensors 6000 61
tokens valid.safetensors 500 61

expect "init makes a model" "$train_seal" init --family gpt2 --layers 2 --width 64 --heads 2 --vocab 61 --positions 64 \
    --out base
truth "it is a Hugging Face directory" test -s base/config.json -a -s base/model.safetensors
expect "the same seed" "$train_seal" init --layers 2 --width 64 --heads 2 --vocab 61 --positions 64 --out again --quiet
truth "makes the same bytes" cmp base/model.safetensors again/model.safetensors
expect "another seed" "$train_seal" init --layers 2 --width 64 --heads 2 --vocab 61 --positions 64 --out other \
    --seed 1 --quiet
truth "makes other bytes" bash -c '! cmp -s base/model.safetensors other/model.safetensors'

expect "the plan is printed without training" "$train_seal" pretrain --model base --tune train.safetensors \
    --out planned --dry-run
truth "with its classes" grep -q activations out
truth "and nothing is written" test ! -e planned
pretrain=(
    "$train_seal" pretrain --model base --tune train.safetensors --valid valid.safetensors --lr 1e-2 --warmup 5
    --schedule linear --batch 16 --max-length 64 --epochs 9 --tokens 256
)
expect "pretrain runs" "${pretrain[@]}" --out run
truth "the log has a header and a line per step" test "$(grep -c '"step"' run/log.jsonl)" -eq $((9 * 6 + 9))
truth "the summary is there" grep -q '"peak_bytes"' run/summary.json
first=$(sed -n 2p run/log.jsonl | sed 's/.*"loss":\([0-9.]*\).*/\1/')
last=$(grep '"valid_loss"' run/log.jsonl | tail -1 | sed 's/.*"valid_loss":\([0-9.]*\).*/\1/')
truth "a model without knowledge has the loss ln V" awk "BEGIN { exit !($first > 3.8 && $first < 4.4) }"
truth "the pattern is learned: $first, then $last on held-out tokens" awk "BEGIN { exit !($last < 0.5) }"
expect "the trained model is read again" "$train_seal" pretrain --model run/model --tune train.safetensors --out run2 \
    --max-steps 1 --lr 0 --batch 16
resumed=$(sed -n 2p run2/log.jsonl | sed 's/.*"loss":\([0-9.]*\).*/\1/')
truth "with what it has learned" awk "BEGIN { exit !($resumed < 0.7) }"
expect "recomputation" "${pretrain[@]}" --out run3 --recompute
truth "gives the same bytes" cmp run/model/model.safetensors run3/model/model.safetensors
expect "a run again" "${pretrain[@]}" --out run4 --quiet
truth "gives the same bytes" cmp run/model/model.safetensors run4/model/model.safetensors
CPU_ORDER=reverse expect "threads in reverse order" "${pretrain[@]}" --out run5 --quiet
truth "give the same bytes" cmp run/model/model.safetensors run5/model/model.safetensors

cat >words.json <<'JSON'
{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
 "pre_tokenizer":{"type":"WhitespaceSplit"},"post_processor":null,"decoder":null,
 "model":{"type":"WordLevel","vocab":{"[UNK]":0,"the":1,"cat":2,"sat":3,"on":4,"mat":5},"unk_token":"[UNK]"}}
JSON
mkdir words && mv words.json words/tokenizer.json
for i in $(seq 100); do echo "the cat sat on the mat"; done >text.txt
expect "init takes the vocabulary of a tokenizer" "$train_seal" init --layers 1 --width 64 --heads 2 \
    --tokenizer words/tokenizer.json --positions 32 --out worded --quiet
truth "and keeps the tokenizer with the model" cmp words/tokenizer.json worded/tokenizer.json
expect "pretrain reads a text" "$train_seal" pretrain --model worded --tune text.txt --batch 8 --lr 1e-2 --epochs 12 \
    --out texts --quiet
truth "of 600 words" grep -q '"tokens":7428' texts/summary.json
truth "and learns it" awk "BEGIN { exit !($(tail -1 texts/log.jsonl | sed 's/.*"loss":\([0-9.]*\).*/\1/') < 0.3) }"
truth "the trained model has its tokenizer" cmp words/tokenizer.json texts/model/tokenizer.json
refuse "a text without a tokenizer" "a text file needs the model's tokenizer" "$train_seal" pretrain --model base \
    --tune text.txt --out x

small=("$train_seal" pretrain --model base --tune train.safetensors --out x --batch 4)
refuse "an option with a wrong value" "expected a whole number" "${small[@]}" --max-steps ten
refuse "an unknown option" "did you mean --tokens?" "${small[@]}" --token 64
refuse "an unknown command" "did you mean pretrain?" "$train_seal" pretrian
refuse "a missing option" "--model is required" "$train_seal" pretrain --tune x --out y
refuse "a head size that no kernel supports" "head size 24" "$train_seal" init --width 48 --heads 2 --vocab 61 --out x
refuse "a family that is not supported" "expected one of gpt2" "$train_seal" init --family bert --vocab 61 --out x
refuse "a width that heads do not divide" "is not a multiple of the number of heads" "$train_seal" init --width 64 \
    --heads 3 --vocab 61 --out x
refuse "a missing model" "config.json" "$train_seal" pretrain --model nowhere --tune train.safetensors --out x
refuse "a sample longer than the model reads" "reads at most 64" "${small[@]}" --max-length 65
refuse "more tokens than the plan allows" "raise --tokens" "${small[@]}" --tokens 32
refuse "a missing data file" "absent" "$train_seal" pretrain --model base --tune absent.safetensors --out x
CPU_MEMORY_MIB=1 refuse "a device without memory" "out of device memory" "${small[@]}"
refuse "a run that cannot be written" "/proc/x" "$train_seal" pretrain --model base --tune train.safetensors \
    --out /proc/x
cp -r base broken && truncate -s 100000 broken/model.safetensors
refuse "a truncated model file" "truncated" "$train_seal" pretrain --model broken --tune train.safetensors --out x
rm -rf broken && cp -r base broken && sed -i 's/"vocab_size":[^,]*/"vocab_size":77/' broken/config.json
refuse "a config that disagrees with the file" "has shape" "$train_seal" pretrain --model broken \
    --tune train.safetensors --out x
expect "a model of fewer words" "$train_seal" init --layers 1 --width 64 --heads 2 --vocab 40 --positions 64 \
    --out narrow
refuse "a token outside the vocabulary" "the model's vocabulary has 40" "$train_seal" pretrain --model narrow \
    --tune train.safetensors --out x
refuse "a learning rate that breaks the model" "step" "${small[@]}" --lr 1e6 --clip 0 --max-steps 50
exit $failed
