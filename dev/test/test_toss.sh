#!/usr/bin/env bash
# TOSS end to end: which tokens are dropped and what is trained of the rest, against PyTorch
# (dev/reference/record_scores.py); references that are trained here;
# masks that do not fit.
set -u
. "$(dirname "$0")/cli.sh"
golden=$PWD/dev/reference/golden; families=$golden/families rows=$golden/scores/select
cd "$work" || exit 1
mkdir llama; cp $families/llama/config.json $families/llama/*.safetensors llama/; cp $rows/tokenizer.json llama/
cp -r $families/llama/lora_qv $families/llama/lora_all .
cp $rows/*.jsonl .
recorded() { grep "^$1|" $rows/toss.txt | cut -d'|' -f3; }
near() {
    paste "$1" "$2" |
        awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > worst) worst = d; m = $2 < 0 ? -$2 : $2; if (m > most) most = m }
            END { exit !(NR && worst <= 1e-5 * (most > 0.5 ? most : 0.5)) }'
}
tokens=$(recorded mask | tr -d '\n' | wc -c)
kept_bits() { tail -c "$tokens" "$1" | od -An -v -tu1 -w1 | tr -d ' \n'; }  # keep is the mask's last tensor
toss=(
    "$train_seal" select --method toss --model llama --tune tune.jsonl --useful-adapter lora_qv --harmful-adapter
    lora_all --batch 4
)
expect "tokens are selected by two references" "${toss[@]}" --scores s.safetensors --out kept.jsonl
truth "a fifth of them is dropped" grep -qE "^$((tokens / 5)) of $tokens tokens that carry loss are dropped" out
truth "those of PyTorch" test "$(kept_bits kept.jsonl.mask.safetensors)" = "$(recorded mask | tr -d '\n')"
truth "all rows stay" cmp kept.jsonl tune.jsonl
truth "their scores are PyTorch's" near <(tail -c 28 s.safetensors | od -An -v -tf4 -w4) <(recorded score)
expect "sft trains the others" "$train_seal" sft --model llama --tune kept.jsonl \
    --token-mask kept.jsonl.mask.safetensors --batch 7 --max-steps 1 --quiet --out masked
truth "by PyTorch's loss" near \
    <(sed -n 2p masked/log.jsonl | grep -oE '"loss":[0-9.e-]+' | cut -d: -f2) <(recorded loss)
expect "the dropped tokens are shown" "${toss[@]}" --explain --out x.jsonl
truth "in brackets where there is no terminal" test "$(grep -oE '⟦[^⟧]*⟧' out | grep -oE 'w[0-9]+|<eos>' | wc -l)" \
    -eq $((tokens / 5))
rm -f x.jsonl*
expect "nothing is dropped" "${toss[@]}" --drop-tokens 0 --quiet --out all.jsonl
expect "and then nothing changes" "$train_seal" sft --model llama --tune all.jsonl \
    --token-mask all.jsonl.mask.safetensors --batch 7 --max-steps 2 --quiet --out all
expect "against no mask" "$train_seal" sft --model llama --tune tune.jsonl --batch 7 --max-steps 2 --quiet --out none
truth "bit for bit" cmp all/model/model.safetensors none/model/model.safetensors
expect "two references are trained" "$train_seal" select --method toss --model llama --tune tune.jsonl \
    --useful safe.jsonl --harmful harmful.jsonl --batch 4 --quiet --out own.jsonl
truth "and stay" test -s own.jsonl.useful/adapter/adapter_model.safetensors -a \
    -s own.jsonl.harmful/adapter/adapter_model.safetensors
truth "for two epochs of LoRA on q and v" bash -c \
    "grep -q '\"epochs\":2' own.jsonl.useful/log.jsonl && grep -q '\"lora\":\"q,v\"' own.jsonl.useful/log.jsonl"
expect "the same with them given" "$train_seal" select --method toss --model llama --tune tune.jsonl \
    --useful-adapter own.jsonl.useful/adapter --harmful-adapter own.jsonl.harmful/adapter --batch 4 --quiet \
    --out given.jsonl
truth "gives the same mask" cmp own.jsonl.mask.safetensors given.jsonl.mask.safetensors
expect "a share of the rows beside" "${toss[@]}" --top 0.5 --quiet --out half.jsonl
truth "keeps three of seven" test "$(wc -l <half.jsonl)" -eq 3
expect "whose mask fits them" "$train_seal" sft --model llama --tune half.jsonl \
    --token-mask half.jsonl.mask.safetensors --batch 3 --max-steps 1 --quiet --out part

# a reference that is there, with --resume
mv own.jsonl.mask.safetensors first.mask; rm own.jsonl
again=(
    "$train_seal" select --method toss --model llama --tune tune.jsonl --harmful harmful.jsonl --batch 4 --quiet --out
    own.jsonl
)
refuse "a reference that is there, without --resume" "give --resume" "${again[@]}" --useful safe.jsonl
refuse "one that was trained on other rows" "was trained on other rows" "${again[@]}" --useful harmful.jsonl --resume
refuse "one that was trained otherwise" "or with other settings" "${again[@]/#4/3}" --useful safe.jsonl --resume
cp safe.jsonl elsewhere.jsonl
expect "it is taken for the same rows, wherever they are" "${again[@]}" --useful elsewhere.jsonl --resume
truth "and gives the same mask" cmp own.jsonl.mask.safetensors first.mask
expect "all of it is there" "$train_seal" select --method toss --model llama --tune tune.jsonl --harmful harmful.jsonl \
    --batch 4 --out own.jsonl --useful safe.jsonl --resume
truth "and nothing is to be done" grep -q "nothing to do" out
refuse "another share of tokens over it" "own.jsonl was made with other options, data or weights" "${again[@]}" \
    --useful safe.jsonl --drop-tokens 0.3 --resume
rm own.jsonl.mask.safetensors
expect "the mask is gone" "${again[@]}" --useful safe.jsonl --resume
truth "and made again" cmp own.jsonl.mask.safetensors first.mask

# TOSS-Pro: by hand and by --refine
pro=(
    "$train_seal" select --method toss --model llama --tune tune.jsonl --useful-adapter lora_qv --harmful-adapter
    lora_all --batch 4 --lr 1e-2 --quiet
)
expect "the harmful reference is refined" "${pro[@]}" --refine 1 --scores pro.safetensors --out pro.jsonl
found=pro.jsonl.found-1.jsonl
truth "on the rows that have a dropped token" diff \
    <(paste <(recorded mask) tune.jsonl | awk -F'\t' '$1 ~ /0/ { print $2 }') $found
dropped() { tail -c "$2" "$1" | od -An -v -tu1 -w1 | tr -d ' \n'; }
expected=$(recorded mask | grep 0 | tr -d '\n' | tr 01 10)
truth "and on those tokens alone" test "$(dropped pro.jsonl.found-1.mask.safetensors ${#expected})" = "$expected"
expect "the same training by hand" "$train_seal" sft --model llama --adapter lora_all --tune $found \
    --token-mask pro.jsonl.found-1.mask.safetensors --lr 1e-2 --epochs 2 --batch 4 --quiet --out by_hand
truth "comes to the same reference" cmp by_hand/adapter/adapter_model.safetensors \
    pro.jsonl.harmful-1/adapter/adapter_model.safetensors
expect "and the same scoring with it" "${pro[@]/lora_all/by_hand/adapter}" --scores hand.safetensors --out hand.jsonl
truth "to the same mask and scores" bash -c \
    'cmp hand.jsonl.mask.safetensors pro.jsonl.mask.safetensors &&
        cmp <(tail -c 28 hand.safetensors) <(tail -c 28 pro.safetensors) &&
        ! cmp -s <(tail -c 28 s.safetensors) <(tail -c 28 pro.safetensors)'
expect "two rounds" "${pro[@]}" --refine 2 --scores two_rounds.safetensors --out two_rounds.jsonl
truth "begin as one" cmp two_rounds.jsonl.harmful-1/adapter/adapter_model.safetensors \
    pro.jsonl.harmful-1/adapter/adapter_model.safetensors
truth "and find again" test -s two_rounds.jsonl.found-2.jsonl -a \
    -s two_rounds.jsonl.harmful-2/adapter/adapter_model.safetensors
# stopped after the first round's training, and before it
rm two_rounds.jsonl two_rounds.jsonl.key; rm -r two_rounds.jsonl.harmful-2
mv two_rounds.jsonl.mask.safetensors whole.mask
cp two_rounds.jsonl.found-1.jsonl first_found
touch -d '1 hour ago' two_rounds.jsonl.found-1.jsonl
expect "it resumes where a round's tokens are found" "${pro[@]}" --refine 2 --scores two_rounds.safetensors \
    --out two_rounds.jsonl --resume
truth "to the same mask" cmp two_rounds.jsonl.mask.safetensors whole.mask
truth "finding nothing twice" test "$(find . -name two_rounds.jsonl.found-1.jsonl -mmin +30 | wc -l)" -eq 1
rm two_rounds.jsonl two_rounds.jsonl.key
refuse "tokens that were found with other settings" \
    "two_rounds.jsonl.found-1.jsonl was made with other options, data or weights" "${pro[@]/1e-2/1e-3}" --refine 2 \
    --scores two_rounds.safetensors --out two_rounds.jsonl --resume
refuse "a refinement of nothing" "--refine needs --drop-tokens above 0" "${pro[@]}" --refine 1 --drop-tokens 0 \
    --out x.jsonl
refuse "a learning rate of another method" "--lr has no effect with --method safe-loss" "$train_seal" select \
    --method safe-loss --model llama --tune tune.jsonl --lr 1e-3 --out x.jsonl

# a killed run; two ranks
for _ in $(seq 40); do cat tune.jsonl; done >long.jsonl
long=("${toss[@]/tune.jsonl/long.jsonl}")
expect "tokens of more rows" "${long[@]}" --quiet --scores whole.safetensors --out whole.jsonl
kill_in_midrun stopped.jsonl 85 "${long[@]}" --quiet --scores stopped.safetensors --out stopped.jsonl
refuse "to continue under another reference" "belongs to a run with other options, data or weights" \
    "${long[@]/#lora_qv/own.jsonl.useful/adapter}" --quiet --out stopped.jsonl --resume
expect "the run continues" "${long[@]}" --quiet --scores stopped.safetensors --out stopped.jsonl --resume
truth "to the same rows, scores and mask" bash -c \
    'cmp whole.jsonl stopped.jsonl && cmp whole.safetensors stopped.safetensors && test ! -e stopped.jsonl.partial &&
        cmp <(tail -c 4000 whole.jsonl.mask.safetensors) <(tail -c 4000 stopped.jsonl.mask.safetensors)'
if command -v mpirun >/dev/null &&
    "$train_seal" sft --model llama --tune tune.jsonl --ranks 2 --dry-run --out x >/dev/null 2>&1; then
    on_two() { mpirun --allow-run-as-root --oversubscribe -n 2 "$@"; }
    expect "two ranks" on_two "${toss[@]}" --quiet --scores two.safetensors --out two.jsonl
    truth "drop the same tokens" test "$(kept_bits two.jsonl.mask.safetensors)" = "$(recorded mask | tr -d '\n')"
    truth "and give the same scores" near <(tail -c 28 two.safetensors | od -An -v -tf4 -w4) <(recorded score)
    expect "two ranks refine" on_two "${pro[@]}" --refine 1 --scores pro_two.safetensors --out pro_two.jsonl
    truth "to the same scores" near \
        <(tail -c 28 pro_two.safetensors | od -An -v -tf4 -w4) <(tail -c 28 pro.safetensors | od -An -v -tf4 -w4)
    expect "two ranks train the references too" on_two "$train_seal" select --method toss --model llama \
        --tune tune.jsonl --useful safe.jsonl --harmful harmful.jsonl --batch 4 --quiet --out trained.jsonl
    truth "which stay" test -s trained.jsonl.useful/adapter/adapter_model.safetensors -a \
        -s trained.jsonl.harmful/adapter/adapter_model.safetensors -a -s trained.jsonl.mask.safetensors
else
    echo "ok two ranks # SKIP mpirun is not installed, or the build has no ranks"
fi

{ head -c -1 kept.jsonl.mask.safetensors; printf '\7'; } >damaged.mask
refuse "a mask with another number than 0 or 1" "expected 0 or 1" "$train_seal" sft --model llama --tune kept.jsonl \
    --token-mask damaged.mask --quiet --out x
refuse "a mask for other rows" "was made for other rows" "$train_seal" sft --model llama --tune half.jsonl \
    --token-mask kept.jsonl.mask.safetensors --quiet --out x
cp -r llama other; sed 's/"w88": 92/"w88": 91/; s/"w87": 91/"w87": 92/' llama/tokenizer.json >other/tokenizer.json
refuse "a mask of another tokenizer" "another tokenizer" "$train_seal" sft --model other --tune kept.jsonl \
    --token-mask kept.jsonl.mask.safetensors --quiet --out x
cp -r llama templated
echo '{"chat_template":"{% for m in messages %}{{ m.content }} {% endfor %}"}' >templated/tokenizer_config.json
refuse "a mask of another template" "chat template" "$train_seal" sft --model templated --chat auto --tune kept.jsonl \
    --token-mask kept.jsonl.mask.safetensors --quiet --out x
refuse "samples cut elsewhere" "tokens that carry loss but" "$train_seal" sft --model llama --tune kept.jsonl \
    --token-mask kept.jsonl.mask.safetensors --max-length 16 --quiet --out x
refuse "a file that is not a mask" "is not a mask of tokens" "$train_seal" sft --model llama --tune kept.jsonl \
    --token-mask s.safetensors --quiet --out x
refuse "rows beside a reference that is there" "--harmful has no effect with --harmful-adapter" "${toss[@]}" \
    --harmful harmful.jsonl --quiet --out x.jsonl
refuse "no useful rows" "needs --useful" "$train_seal" select --method toss --model llama --tune tune.jsonl \
    --harmful harmful.jsonl --quiet --out x.jsonl
refuse "a mask in the scores' place" "both --scores and --token-mask" "${toss[@]}" --token-mask x.safetensors \
    --scores x.safetensors --quiet --out x.jsonl
refuse "a mask in the place of a reference's weights" "would be overwritten" "${toss[@]}" \
    --token-mask lora_qv/adapter_model.safetensors --quiet --out x.jsonl
refuse "a mask in the rows' place" "both --out and --token-mask" "${toss[@]}" --token-mask x.jsonl --quiet --out x.jsonl
exit $failed
