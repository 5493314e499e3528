#!/usr/bin/env bash
# Baselines and evaluation end to end on a toy language.
set -u
. "$(dirname "$0")/cli.sh"
cd "$work" || exit 1
for i in 1 2 3 4 5 6 7 8; do
    echo "{\"prompt\":\"copy a$i\",\"response\":\"alpha alpha $i\"}"; echo "{\"prompt\":\"copy b$i\",\"response\":\"beta beta $i\"}"
done >tune.jsonl
for i in 1 2 3; do echo "{\"prompt\":\"copy c$i\",\"response\":\"alpha gamma alpha\"}"; done >target.jsonl

expect "DSIR without noise" "$train_seal" select --method dsir --tune tune.jsonl --target target.jsonl --noise off --top 0.5 --scores dsir.safetensors --out kept.jsonl --quiet
truth "keeps the rows with the target's words" test "$(grep -c alpha kept.jsonl)" -eq 8
expect "its scores select as a selector's do" "$train_seal" select --tune tune.jsonl --selector dsir.safetensors --top 0.5 --out again.jsonl --quiet
truth "the same rows" cmp kept.jsonl again.jsonl
for seed in 1 1 2; do "$train_seal" select --method dsir --tune tune.jsonl --target target.jsonl --seed $seed --top 0.5 --explain --out noisy$seed.jsonl >noisy$seed.txt; mv noisy$seed.jsonl n$seed.$((k = ${k:-0} + 1)).jsonl; done
truth "the noise is the seed's" cmp n1.1.jsonl n1.2.jsonl
truth "and is named" grep -q "Gumbel noise of seed 2" noisy2.txt
expect "rows with few words are left out" "$train_seal" select --method dsir --tune tune.jsonl --target target.jsonl --noise off --min-words 5 --top 1 --out long.jsonl
refuse "DSIR without a target" "needs --target" "$train_seal" select --method dsir --tune tune.jsonl --out x.jsonl
refuse "more rows than are long enough" "lower --top or --min-words" "$train_seal" select --method dsir --tune tune.jsonl --target target.jsonl --min-words 6 --top 0.5 --out x.jsonl --quiet
refuse "a target that is not there" "nowhere.jsonl" "$train_seal" select --method dsir --tune tune.jsonl --target nowhere.jsonl --out x.jsonl

eval_seal=$(dirname "$train_seal")/eval_seal
echo '[{"preference":1},{"preference":2},{"preference":0},{"preference":null}]' >annotations.json
expect "a win rate" "$eval_seal" winrate annotations.json
truth "with draws and what is dropped" grep -q "^win rate 50.0000, standard error 28.8675, n 3, wins 1, losses 1, draws 1, dropped 1 (1 null, 0 NaN)" out
echo '[{"preference":null}]' >none.json
refuse "a file without a preference" "no annotation has a preference" "$eval_seal" winrate none.json

mkdir tok
cat >tok/tokenizer.json <<'JSON'
{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":1,"content":"<eos>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
 "normalizer":null,"pre_tokenizer":{"type":"WhitespaceSplit"},"post_processor":null,"decoder":null,
 "model":{"type":"WordLevel","vocab":{"[UNK]":0,"<eos>":1,"Human:":2,"Assistant:":3,"copy":4,"a":5,"b":6,"c":7,"d":8},"unk_token":"[UNK]"}}
JSON
for x in a b c d; do for y in a b c d; do echo "{\"prompt\":\"copy $x $y\",\"response\":\"$x $y $y\"}"; done; done >rows.jsonl
"$train_seal" init --layers 2 --width 64 --heads 2 --tokenizer tok/tokenizer.json --positions 24 --out base --quiet
"$train_seal" sft --model base --tune rows.jsonl --valid rows.jsonl --lr 3e-3 --batch 16 --tokens 256 --epochs 8 --out run --quiet
expect "a held-out loss" "$eval_seal" loss --model run/model --data rows.jsonl --json
truth "is the one training ended with" awk -v want="$(grep -o '"valid_loss":[0-9.]*' run/summary.json | cut -d: -f2)" -F'[:,]' '/loss/ { for (i = 1; i < NF; i++) if ($i == "\"loss\"") exit !($(i + 1) > want - 1e-5 && $(i + 1) < want + 1e-5) }' out
truth "over the 64 tokens of 16 answers" grep -q '"samples":16,"left_out":0,"tokens":64' out
cp out whole.json
expect "in batches of 3 and streams of 24 tokens" "$eval_seal" loss --model run/model --data rows.jsonl --json --batch 3 --tokens 24
truth "it is the same" awk -F'[:,]' '{ for (i = 1; i < NF; i++) if ($i == "\"loss\"") x[NR] = $(i + 1) } END { exit !(x[1] - x[2] < 1e-5 && x[2] - x[1] < 1e-5) }' whole.json out
refuse "a length the model cannot read" "--max-length" "$eval_seal" loss --model run/model --data rows.jsonl --max-length 25
exit $failed
