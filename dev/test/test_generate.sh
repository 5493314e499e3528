#!/usr/bin/env bash
# Decoding end to end: a model learns to copy two words, and says them back for prompts in every shape of file; the
# batch changes nothing.
set -u
. "$(dirname "$0")/cli.sh"
eval_seal=$(dirname "$train_seal")/eval_seal
byte_level=$PWD/dev/reference/golden/tokenizers/gpt2_style.json.gz
cd "$work" || exit 1
word_tokenizer tok copy a b c d
for x in a b c d; do
    for y in a b c d; do echo "{\"prompt\":\"copy $x $y\",\"response\":\"$x $y\"}"; done
done >rows.jsonl
"$train_seal" init --layers 2 --width 64 --heads 2 --tokenizer tok/tokenizer.json --positions 16 --out base --quiet
"$train_seal" sft --model base --tune rows.jsonl --lr 3e-3 --batch 16 --tokens 256 --epochs 120 --out run --quiet
generate=("$eval_seal" generate --model run/model --prompts rows.jsonl --greedy)
expect "prompts are answered" "${generate[@]}" --out out.json
truth "as JSON with AlpacaEval's fields" grep \
    -qF '{"instruction":"copy b d","output":"b d","generator":"run/model","dataset":"rows.jsonl"}' out.json
truth "all 16 of them, and right" test "$(grep -cE '"instruction":"copy (. .)","output":"\1"' out.json)" -eq 16
expect "three at once, in packs of 20 tokens" "${generate[@]}" --batch 3 --tokens 20 --out three.json
truth "gives the same bytes" cmp out.json three.json
expect "an answer of one token" "${generate[@]}" --max-new-tokens 1 --out one.json
truth "is cut there" grep -qF '"instruction":"copy b d","output":"b"' one.json
printf 'question\ncopy c a\n' >rows.csv
expect "prompts without answers" "$eval_seal" generate --model run/model --prompts rows.csv --prompt-field question \
    --greedy --out csv.json --quiet
truth "are answered as well" grep -qF '"instruction":"copy c a","output":"c a"' csv.json
printf '{"messages":[%s,%s,%s]}\n' '{"role":"user","content":"copy a b"}' '{"role":"assistant","content":"a b"}' \
    '{"role":"user","content":"copy c"}' >turns.jsonl
echo '{"prompt":[{"role":"user","content":"copy d"}]}' >>turns.jsonl
expect "prompts of several turns" "$eval_seal" generate --model run/model --prompts turns.jsonl --greedy \
    --out turns.json --quiet
truth "their instruction has every turn, a line each" bash -c \
    'grep -qF "\"instruction\":\"copy a b\\na b\\ncopy c\"" turns.json && grep -qF "\"instruction\":\"copy d\"" turns.json'
printf '[{"prompt":"copy a"},\n{"prompt":"copy b"}]\n' >array.jsonl
expect "prompts in an array under .jsonl" "$eval_seal" generate --model run/model --prompts array.jsonl --greedy \
    --out array.json
truth "what they were taken for is told" grep -qx "array.jsonl: one array of rows under the name .jsonl" err

sample=("$eval_seal" generate --model run/model --prompts rows.jsonl --temperature 3 --top-p 0.95 --quiet)
expect "answers are drawn" "${sample[@]}" --out drawn.json
"${sample[@]}" --batch 3 --tokens 20 --out drawn3.json
"${sample[@]}" --seed 43 --out seed43.json
truth "a prompt has its own random numbers, whatever the batch" cmp drawn.json drawn3.json
truth "and others with another seed" bash -c '! cmp -s drawn.json seed43.json && ! cmp -s drawn.json out.json'

# a run that is killed continues
expect "a longer run" "${generate[@]}" --batch 1 --out whole.json --quiet
kill_in_midrun stopped.json 5 "${generate[@]}" --batch 1 --out stopped.json --quiet
refuse "the same run without --resume" "give --resume" "${generate[@]}" --batch 1 --out stopped.json --quiet
refuse "other options with its journal" "other options, data or weights" "${generate[@]}" --max-new-tokens 3 \
    --out stopped.json --resume --quiet
expect "it resumes" "${generate[@]}" --out stopped.json --resume
truth "with what was there" grep -q "16 prompts ([0-9]* answered before)" out
truth "to the same bytes" cmp whole.json stopped.json
truth "and the journal is gone" test ! -e stopped.json.partial
expect "once more" "${generate[@]}" --out stopped.json --resume
truth "there is nothing to do" grep -q "nothing to do" out
refuse "other settings over a result that is whole" "made with other options, data or weights" "${generate[@]}" \
    --max-new-tokens 3 --out stopped.json --resume --quiet
tail -n 3 rows.jsonl >fewer.jsonl
refuse "other prompts" "made with other options, data or weights" "${generate[@]/rows.jsonl/fewer.jsonl}" \
    --out stopped.json --resume --quiet
mv stopped.json.key stopped.key
refuse "a result that nobody knows the settings of" "stopped.json.key, which would say how it was made, does not" \
    "${generate[@]}" --out stopped.json --resume --quiet
truth "which stays as it is" cmp whole.json stopped.json
mv stopped.key stopped.json.key
cp rows.jsonl moved.jsonl
expect "the same prompts elsewhere" "${generate[@]/rows.jsonl/moved.jsonl}" --out stopped.json --resume
truth "are the same" grep -q "nothing to do" out

for x in a b c d; do
    for y in a b c d; do echo "{\"prompt\":\"copy $x $y\",\"response\":\"$y\"}"; done
done >second.jsonl
"$train_seal" sft --model run/model --tune second.jsonl --lora q,v --lr 3e-2 --batch 16 --tokens 256 --epochs 20 \
    --seed 3 --out adapted --quiet
expect "a model with an adapter answers" "${generate[@]}" --adapter adapted/adapter --name ours --out adapter.json \
    --quiet
truth "under the name it was given" grep -q '"generator":"ours"' adapter.json
truth "in its own words" bash -c '! diff -q <(sed s/ours/x/ adapter.json) <(sed s,run/model,x, out.json)'
cp -r run/model turns
sed -i 's/"eos_token_id":[^,}]*/"eos_token_id": 0/' turns/config.json
echo '{"eos_token":"<eos>"}' >turns/tokenizer_config.json
expect "a model whose config.json names another end than its tokenizer" "$eval_seal" generate --model turns \
    --prompts rows.jsonl --greedy --max-new-tokens 6 --name run/model --out turns.json
truth "ends its answers at the tokenizer's" bash -c '! grep -q cut out && cmp out.json turns.json'
"$train_seal" init --layers 1 --width 64 --heads 2 --tokenizer "$byte_level" --out bytes --quiet
expect "a model that says any bytes" "$eval_seal" generate --model bytes --prompts rows.jsonl --top-p 1 \
    --max-new-tokens 60 --out bytes.json --quiet
truth "writes UTF-8" iconv -f utf-8 -t utf-8 bytes.json
truth "with a mark where they are not characters" grep -q $'\xEF\xBF\xBD' bytes.json
refuse "a temperature of zero" "--temperature" "${generate[@]}" --temperature 0 --out x.json
echo '{"prompt":"copy a a a a a a a a a a a a a a a"}' >long.jsonl
refuse "a prompt longer than the model reads" "long.jsonl:1: row 0: the prompt has 18 tokens" "$eval_seal" generate \
    --model run/model --prompts long.jsonl --greedy --out x.json --quiet
cat rows.jsonl long.jsonl >mixed.jsonl
expect "the same among others, skipped" "$eval_seal" generate --model run/model --prompts mixed.jsonl --greedy \
    --skip-long --out mixed.json
truth "is counted" grep -q "17 prompts (1 longer than the model reads: empty)" out
truth "and keeps its place" bash -c \
    'tail -2 mixed.json | grep -q "\"output\":\"\"" && test "$(grep -c instruction mixed.json)" -eq 17'
echo '{"prompt":""}' >empty.jsonl
refuse "an empty prompt" "empty.jsonl:1" "$eval_seal" generate --model run/model --prompts empty.jsonl --greedy \
    --out x.json --quiet
refuse "a temperature that greedy decoding has no use for" \
    "generate: --temperature has no effect together with --greedy" "$eval_seal" generate --model run/model \
    --prompts rows.jsonl --greedy --temperature 0.7 --out x.json
expect "the memory plan" "${generate[@]}" --dry-run --out dry.json
truth "names classes and writes nothing" bash -c \
    'grep -q "cache" out && test ! -e dry.json && test ! -e dry.json.partial'
refuse "a missing model" "nowhere" "$eval_seal" generate --model nowhere --prompts rows.jsonl --greedy --out x.json
truth "nothing half-written" test ! -e x.json
exit $failed
