#!/usr/bin/env bash
# Decoding end to end: a model learns to copy two words, and says them back for prompts in every shape of file; the batch changes nothing.
set -u
. "$(dirname "$0")/cli.sh"
eval_seal=$(dirname "$train_seal")/eval_seal
cd "$work" || exit 1
mkdir tok
cat >tok/tokenizer.json <<'JSON'
{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":1,"content":"<eos>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
 "normalizer":null,"pre_tokenizer":{"type":"WhitespaceSplit"},"post_processor":null,"decoder":null,
 "model":{"type":"WordLevel","vocab":{"[UNK]":0,"<eos>":1,"Human:":2,"Assistant:":3,"copy":4,"a":5,"b":6,"c":7,"d":8},"unk_token":"[UNK]"}}
JSON
for x in a b c d; do for y in a b c d; do echo "{\"prompt\":\"copy $x $y\",\"response\":\"$x $y\"}"; done; done >rows.jsonl
"$train_seal" init --layers 2 --width 64 --heads 2 --tokenizer tok/tokenizer.json --positions 16 --out base --quiet
"$train_seal" sft --model base --tune rows.jsonl --lr 3e-3 --batch 16 --tokens 256 --epochs 120 --out run --quiet
generate=("$eval_seal" generate --model run/model --prompts rows.jsonl --greedy)
expect "prompts are answered" "${generate[@]}" --out out.json
truth "as JSON with AlpacaEval's fields" grep -qF '{"instruction":"copy b d","output":"b d","generator":"run/model","dataset":"rows.jsonl"}' out.json
truth "all 16 of them, and right" test "$(grep -cE '"instruction":"copy (. .)","output":"\1"' out.json)" -eq 16
expect "three at once, in streams of 20 tokens" "${generate[@]}" --batch 3 --tokens 20 --out three.json
truth "gives the same bytes" cmp out.json three.json
expect "an answer of one token" "${generate[@]}" --max-new-tokens 1 --out one.json
truth "is cut there" grep -qF '"instruction":"copy b d","output":"b"' one.json
printf 'question\ncopy c a\n' >rows.csv
expect "prompts without answers" "$eval_seal" generate --model run/model --prompts rows.csv --prompt-field question --greedy --out csv.json --quiet
truth "are answered as well" grep -qF '"instruction":"copy c a","output":"c a"' csv.json

echo '{"prompt":"copy a a a a a a a a a a a a a a a"}' >long.jsonl
refuse "a prompt longer than the model reads" "long.jsonl:1: row 0: the prompt has 18 tokens" "$eval_seal" generate --model run/model --prompts long.jsonl --greedy --out x.json --quiet
echo '{"prompt":""}' >empty.jsonl
refuse "an empty prompt" "empty.jsonl:1" "$eval_seal" generate --model run/model --prompts empty.jsonl --greedy --out x.json --quiet
refuse "a missing model" "nowhere" "$eval_seal" generate --model nowhere --prompts rows.jsonl --greedy --out x.json
truth "nothing half-written" test ! -e x.json
exit $failed
