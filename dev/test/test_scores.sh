#!/usr/bin/env bash
# The methods of `select` that ask a model, end to end: every row's score against PyTorch's
# (dev/reference/record_scores.py), two ranks against one, a killed run that resumes, what --explain shows, and input
# that is wrong.
set -u
. "$(dirname "$0")/cli.sh"
golden=$PWD/dev/reference/golden; families=$golden/families rows=$golden/scores/select
cd "$work" || exit 1
for name in llama qwen2; do  # a model and the tokenizer of one token a word
    mkdir $name; cp $families/$name/config.json $families/$name/*.safetensors $name/; cp $rows/tokenizer.json $name/
done
cp -r $families/llama/lora_qv $families/llama/lora_all .
cp $rows/*.jsonl $rows/refusals.txt .
# scores FILE N: the logits of a score file, which are its last tensor
scores() { tail -c $((4 * $2)) "$1" | od -An -v -tf4 -w4 | awk '{ print $1 }'; }
# near A B [LEAST]: two columns of numbers within 1e-5 of the second's largest, or of LEAST where that is more: scores
# that are differences have the rounding of what they are differences of
near() {
    paste "$1" "$2" |
        awk -v most="${3:-0}" \
        '{ d = $1 - $2; if (d < 0) d = -d; if (d > worst) worst = d; m = $2 < 0 ? -$2 : $2; if (m > most) most = m }
        END { exit !(NR && worst <= 1e-5 * most) }'
}
expected() { grep "^$1|" $rows/expected.txt | cut -d'|' -f3; }
select=("$train_seal" select --tune tune.jsonl --top 0.5 --batch 4 --quiet)
# method CASE options…: the scores are those of the record
method() {
    local case=$1; shift
    expect "$case" "${select[@]}" --model llama "$@" --scores s.safetensors --out o.jsonl
    scores s.safetensors 7 >got; expected "$case" >want
    truth "$case: the scores are PyTorch's" near got want "$([[ $case == loss-diff ]] && echo 0.5)"
    truth "$case: the rows with the highest scores are kept" diff \
        <(paste got tune.jsonl | sort -grs -k1,1 | head -3 | cut -f2- | sort) <(sort o.jsonl)
}
method "safe-loss" --method safe-loss
method "loss-diff" --method loss-diff --adapter lora_qv
mv s.safetensors one_pass.safetensors
method "loss-diff" --method loss-diff --adapter lora_qv --reference llama
method "influence" --method influence --safe safe.jsonl --harmful harmful.jsonl
method "influence safe" --method influence --safe safe.jsonl
method "influence cosine" --method influence --safe safe.jsonl --harmful harmful.jsonl --form cosine
method "influence adapter" --method influence --safe safe.jsonl --harmful harmful.jsonl --adapter lora_qv
method "influence cosine adapter" --method influence --safe safe.jsonl --harmful harmful.jsonl --form cosine \
    --adapter lora_qv --recompute
method "gradient-norm" --method gradient-norm
method "gradient-norm self-inf" --method gradient-norm --form self-inf
method "gradient-norm adapter" --method gradient-norm --adapter lora_qv
method "representation" --method representation --safe safe.jsonl --harmful harmful.jsonl --layer 1 --anchors 2
method "refusal" --method refusal --refusals refusals.txt
method "refusal alone" --method refusal --refusals refusals.txt --own-loss 0
# those that pass are equals: a number of --seed below 1 is added to where they begin
expect "refusal-test" "${select[@]}" --model llama --method refusal-test --safe safe.jsonl --refusals refusals.txt \
    --own-bound 5.6 --alike 0.5 --scores s.safetensors --out o.jsonl
scores s.safetensors 7 >got; expected refusal-test >want
least=$(sort -g want | tail -n 1)
truth "refusal-test: the scores are PyTorch's, up to where rows pass" near \
    <(awk -v s="$least" '{ print ($1 > s ? s : $1) }' got) want
truth "some pass, and some do not" awk -v s="$least" '{ n[$1 >= s]++ } END { exit !(n[0] && n[1]) }' want
truth "those that pass are less than 1 above" awk -v s="$least" \
    '$1 > s + 1 { bad = 1 } $1 > s + 1e-4 { above++ } END { exit !(above && !bad) }' got
expect "another seed" "${select[@]}" --seed 1 --model llama --method refusal-test --safe safe.jsonl \
    --refusals refusals.txt --own-bound 5.6 --alike 0.5 --scores x.safetensors --out o.jsonl
truth "orders these alone otherwise" awk -v s="$least" \
    'NR == FNR { a[FNR] = $1; next }
        { if ((a[FNR] < s) != ($1 < s) || (a[FNR] < s && a[FNR] != $1)) bad = 1; other += a[FNR] != $1 }
        END { exit bad || !other }' got <(scores x.safetensors 7)
refuse "refusal-test without D_safe" "needs --safe" "${select[@]}" --model llama --method refusal-test \
    --refusals refusals.txt --out x.jsonl
refuse "a share of a score below of another method" "--own-loss has no effect with --method refusal-test" \
    "${select[@]}" --model llama --method refusal-test --safe safe.jsonl --refusals refusals.txt --own-loss 0 \
    --out x.jsonl

# a model of its own as the reference, an adapter on either side, fresh adapters
expect "two adapters over one model" "${select[@]}" --model llama --method loss-diff --adapter lora_qv \
    --reference-adapter lora_all --scores x.safetensors --out o.jsonl
expect "the other way round" "${select[@]}" --model llama --method loss-diff --adapter lora_all \
    --reference-adapter lora_qv --scores y.safetensors --out o.jsonl
truth "has the other sign" near <(scores x.safetensors 7) <(scores y.safetensors 7 | awk '{ print -$1 }') 0.5
expect "an adapter against itself" "${select[@]}" --model llama --method loss-diff --adapter lora_qv \
    --reference-adapter lora_qv --scores x.safetensors --out o.jsonl
truth "is zero but for rounding" bash -c \
    "$(declare -f scores); scores x.safetensors 7 | awk '\$1 > 5e-6 || \$1 < -5e-6 { bad = 1 } END { exit bad }'"
expect "gradients of fresh adapters" "${select[@]}" --model llama --method gradient-norm --lora q,v --lora-rank 4 \
    --scores x.safetensors --out o.jsonl
expect "again by the same seed" "${select[@]}" --model llama --method gradient-norm --lora q,v --lora-rank 4 \
    --scores y.safetensors --out o.jsonl
truth "gives the same bytes" cmp x.safetensors y.safetensors
expect "--reverse" "${select[@]}" --model llama --method gradient-norm --reverse --scores x.safetensors --out o.jsonl
truth "keeps the others" near <(scores x.safetensors 7) <(expected gradient-norm | awk '{ print -$1 }')

# the layer by the probe; what is printed
expect "the layer is found by a probe" "$train_seal" select --model llama --method representation --safe safe.jsonl \
    --harmful harmful.jsonl --tune tune.jsonl --out o.jsonl --explain
truth "which tells of every layer" test "$(grep -c '^probe: layer [12] changes' out)" -eq 2
truth "time, tokens and bytes are printed" grep \
    -qE '^representation: [0-9.]+ s, [0-9]+ tokens forward, 0 forward and backward, [0-9.]+ MiB on the device' out
expect "rows are explained by what the score is made of" "$train_seal" select --model llama --method influence \
    --form cosine --safe safe.jsonl --tune tune.jsonl --out o.jsonl --explain
truth "in columns" grep -qE '^ +rank +row +score +loss +product +norm +prompt' out
expect "a refusal is found among D_safe's own answers" bash -c \
    "sed '1s/.*/{\"prompt\":\"w1\",\"response\":\"I am sorry w2\"}/' safe.jsonl >refusing.jsonl &&
        '$train_seal' select --model llama --method refusal --safe refusing.jsonl --tune tune.jsonl --out o.jsonl"
truth "and shown" grep -q '^refusal 1: I am sorry w2$' out
expect "--help names the methods" "$train_seal" select --help
truth "all eleven" grep \
    -q 'seal|random|safe-loss|dsir|loss-diff|influence|gradient-norm|representation|refusal|refusal-test|toss' out
expect "the memory plan" "$train_seal" select --model llama --method influence --safe safe.jsonl --tune tune.jsonl \
    --dry-run --out dry.jsonl
truth "has the gradients and nothing of an optimizer" bash -c \
    'grep -q gradients out && ! grep -qE "adam m|moments" out && test ! -e dry.jsonl'
expect "a score file is a selector to sft" "$train_seal" sft --model llama --tune tune.jsonl \
    --selector one_pass.safetensors --top 0.5 --batch 2 --max-steps 1 --out run --quiet

# ranks
if command -v mpirun >/dev/null &&
    "$train_seal" sft --model llama --tune tune.jsonl --ranks 2 --dry-run --out x >/dev/null 2>&1; then
    on_two() { mpirun --allow-run-as-root --oversubscribe -n 2 "$@"; }
    for how in "influence --safe safe.jsonl --harmful harmful.jsonl --form cosine" \
        "influence --safe safe.jsonl --adapter lora_qv" "representation --safe safe.jsonl --harmful harmful.jsonl" \
        "refusal --refusals refusals.txt" "refusal-test --safe safe.jsonl --refusals refusals.txt" \
               "loss-diff --adapter lora_qv"; do
        # shellcheck disable=SC2086
        expect "${how%% *} on one rank" "${select[@]}" --model llama --method $how --scores one.safetensors \
            --out one.jsonl
        # shellcheck disable=SC2086
        expect "and on two" on_two "${select[@]}" --model llama --method $how --scores two.safetensors --out two.jsonl
        truth "the same scores and rows" bash -c \
            "$(declare -f scores near); near <(scores two.safetensors 7) <(scores one.safetensors 7) 0.5 &&
                cmp one.jsonl two.jsonl"
    done
else
    echo "ok two ranks # SKIP mpirun is not installed, or the build has no ranks"
fi

# a killed run
for _ in $(seq 60); do cat tune.jsonl; done >long.jsonl
for how in "influence --safe safe.jsonl --form cosine" "refusal --refusals refusals.txt" \
    "refusal-test --safe safe.jsonl --refusals refusals.txt"; do
    # shellcheck disable=SC2206
    run=("$train_seal" select --tune long.jsonl --top 0.5 --batch 4 --quiet --model llama --method $how)
    expect "${how%% *} over more rows" "${run[@]}" --scores whole.safetensors --out whole.jsonl
    kill_in_midrun stopped.jsonl 6 "${run[@]}" --scores stopped.safetensors --out stopped.jsonl
    refuse "the same without --resume" "give --resume" "${run[@]}" --out stopped.jsonl
    refuse "to resume with other rows of D_safe" "belongs to a run with other options, data or weights" \
        "${run[@]/safe.jsonl/harmful.jsonl}" --adapter lora_qv --out stopped.jsonl --resume
    expect "the run continues" "${run[@]}" --scores stopped.safetensors --out stopped.jsonl --resume
    truth "to the same bytes" bash -c \
        'cmp whole.jsonl stopped.jsonl && cmp whole.safetensors stopped.safetensors && test ! -e stopped.jsonl.partial'
done

# wrong input
sed 's/"response": "[^"]*"/"response": ""/' safe.jsonl >unanswered.jsonl
{ sed 1d safe.jsonl; sed -n '1s/"response": "[^"]*"/"response": ""/p' safe.jsonl; } >one_unanswered.jsonl
refuse "anchors without answers" "none of 3 rows is usable" "$train_seal" select --model llama --method representation \
    --safe unanswered.jsonl --harmful harmful.jsonl --tune tune.jsonl --out x.jsonl
refuse "an anchor without an answer" "1 of 3 anchors cannot be used" "$train_seal" select --model llama \
    --method representation --safe safe.jsonl --harmful one_unanswered.jsonl --tune tune.jsonl --quiet --out x.jsonl
refuse "a layer that does not exist" "the model has the layers 1 to 2" "${select[@]}" --model llama \
    --method representation --safe safe.jsonl --harmful harmful.jsonl --layer 3 --out x.jsonl
refuse "a layer that is not a number" "expected a layer's number or probe" "${select[@]}" --model llama \
    --method representation --safe safe.jsonl --harmful harmful.jsonl --layer last --out x.jsonl
refuse "anchors that are the same rows" "the same rows" "${select[@]}" --model llama --method representation \
    --safe safe.jsonl --harmful safe.jsonl --layer 1 --out x.jsonl
refuse "a direction of zero norm" "the same rows" "${select[@]}" --model llama --method influence --safe safe.jsonl \
    --harmful safe.jsonl --out x.jsonl
tac safe.jsonl >turned.jsonl
refuse "a direction that cancels" "norm zero" "${select[@]}" --model llama --method influence --safe safe.jsonl \
    --harmful turned.jsonl --out x.jsonl
cp -r qwen2 other; sed 's/"w88": 92/"w88": 91/; s/"w87": 91/"w87": 92/' llama/tokenizer.json >other/tokenizer.json
refuse "a reference with another tokenizer" "has another tokenizer" "${select[@]}" --model llama --method loss-diff \
    --reference other --out x.jsonl
cp -r llama templated
echo '{"chat_template":"{% for m in messages %}{{ m.content }} {% endfor %}"}' >templated/tokenizer_config.json
refuse "a reference with another template" "chat template" "${select[@]}" --model llama --method loss-diff \
    --reference templated --out x.jsonl
refuse "a reference whose vocabulary is smaller" "the vocabulary of --reference qwen2 has 59 tokens" "${select[@]}" \
    --model llama --method loss-diff --reference qwen2 --out x.jsonl
refuse "a reference that is the model" "every difference is zero" "${select[@]}" --model llama --method loss-diff \
    --reference ./llama --out x.jsonl
refuse "loss-diff of one model" "give --reference, or --adapter" "${select[@]}" --model llama --method loss-diff \
    --out x.jsonl
refuse "a file of D_safe that is missing" "nowhere.jsonl" "${select[@]}" --model llama --method influence \
    --safe nowhere.jsonl --out x.jsonl
refuse "a file of refusals that is missing" "nowhere.txt" "${select[@]}" --model llama --method refusal \
    --refusals nowhere.txt --out x.jsonl
printf '\n\n' >empty.txt
refuse "a file without refusals" "no line with a text that refuses" "${select[@]}" --model llama --method refusal \
    --refusals empty.txt --out x.jsonl
seq 17 >many.txt
refuse "too many refusals" "more than 16 lines" "${select[@]}" --model llama --method refusal --refusals many.txt \
    --out x.jsonl
refuse "a D_safe that never refuses" "no answer begins as a refusal does" "${select[@]}" --model llama \
    --method refusal --safe safe.jsonl --out x.jsonl
refuse "a module that is none" "--matrices q,x: \"x\" is not a module" "${select[@]}" --model llama \
    --method gradient-norm --matrices q,x --out x.jsonl
refuse "a module that the adapter lacks" "the adapter has none of these modules" "${select[@]}" --model llama \
    --method gradient-norm --adapter lora_qv --matrices down --out x.jsonl
refuse "an option of another method" "--harmful has no effect with --method safe-loss" "${select[@]}" --model llama \
    --method safe-loss --harmful harmful.jsonl --out x.jsonl
refuse "influence without D_safe" "needs --safe" "${select[@]}" --model llama --method influence --out x.jsonl
refuse "a form of another method" "gradient-norm's" "${select[@]}" --model llama --method influence --safe safe.jsonl \
    --form self-inf --out x.jsonl
refuse "scores in the place of the model's weights" "would be overwritten" "${select[@]}" --model llama \
    --method safe-loss --scores llama/model.safetensors --out x.jsonl
# rows that tie
for _ in 1 2 3 4; do sed -n 1p tune.jsonl; done >equal.jsonl
expect "rows of one score" "$train_seal" select --model llama --method safe-loss --tune equal.jsonl --top 0.5 \
    --batch 1 --quiet --out tied.jsonl
truth "are not an order, which is said" grep -q "all 4 rows have the same score" err
{ cat equal.jsonl; sed -n 2,3p tune.jsonl; } >some.jsonl
expect "rows of the score at the cut" "$train_seal" select --model llama --method safe-loss --tune some.jsonl \
    --top 0.5 --batch 1 --out tied.jsonl
truth "are told" grep -qE "4 rows have the score of the cut, .*; of those the first [123] are kept" err
head -n 1 tune.jsonl >alone.jsonl
expect "one row" "$train_seal" select --model llama --method representation --safe safe.jsonl --harmful harmful.jsonl \
    --layer 1 --tune alone.jsonl --top 1 --quiet --out tied.jsonl
truth "is kept" cmp alone.jsonl tied.jsonl
refuse "none of one row" "keeps none; raise --top" "$train_seal" select --model llama --method safe-loss \
    --tune alone.jsonl --top 0.5 --quiet --out x.jsonl
truth "before it is measured" test ! -e x.jsonl.partial
refuse "a selection in D_safe's place" "would be overwritten" "${select[@]}" --model llama --method influence \
    --safe safe.jsonl --out safe.jsonl
truth "nothing is left half-written" bash -c '! ls x.jsonl* 2>/dev/null'
exit $failed
