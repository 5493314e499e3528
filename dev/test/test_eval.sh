#!/usr/bin/env bash
# Baselines and evaluation end to end on a toy language.
set -u
. "$(dirname "$0")/cli.sh"
cd "$work" || exit 1
for i in 1 2 3 4 5 6 7 8; do
    echo "{\"prompt\":\"copy a$i\",\"response\":\"alpha alpha $i\"}"
    echo "{\"prompt\":\"copy b$i\",\"response\":\"beta beta $i\"}"
done >tune.jsonl
for i in 1 2 3; do echo "{\"prompt\":\"copy c$i\",\"response\":\"alpha gamma alpha\"}"; done >target.jsonl

expect "DSIR without noise" "$train_seal" select --method dsir --tune tune.jsonl --target target.jsonl --noise off \
    --top 0.5 --scores dsir.safetensors --out kept.jsonl --quiet
truth "keeps the rows with the target's words" test "$(grep -c alpha kept.jsonl)" -eq 8
expect "its scores select as a selector's do" "$train_seal" select --tune tune.jsonl --selector dsir.safetensors \
    --top 0.5 --out again.jsonl --quiet
truth "the same rows" cmp kept.jsonl again.jsonl
for seed in 1 1 2; do
    "$train_seal" select --method dsir --tune tune.jsonl --target target.jsonl --seed $seed --top 0.5 --explain \
        --out noisy$seed.jsonl >noisy$seed.txt
    mv noisy$seed.jsonl n$seed.$((k = ${k:-0} + 1)).jsonl
done
truth "the noise is the seed's" cmp n1.1.jsonl n1.2.jsonl
truth "and is named" grep -q "Gumbel noise of seed 2" noisy2.txt
expect "rows with few words are left out" "$train_seal" select --method dsir --tune tune.jsonl --target target.jsonl \
    --noise off --min-words 5 --top 1 --out long.jsonl
refuse "DSIR without a target" "needs --target" "$train_seal" select --method dsir --tune tune.jsonl --out x.jsonl
refuse "more rows than are long enough" "lower --top or --min-words" "$train_seal" select --method dsir \
    --tune tune.jsonl --target target.jsonl --min-words 6 --top 0.5 --out x.jsonl --quiet
refuse "a target that is not there" "nowhere.jsonl" "$train_seal" select --method dsir --tune tune.jsonl \
    --target nowhere.jsonl --out x.jsonl

eval_seal=$(dirname "$train_seal")/eval_seal
echo '[{"preference":1},{"preference":2},{"preference":0},{"preference":null}]' >annotations.json
expect "a win rate" "$eval_seal" winrate annotations.json
truth "with draws and what is dropped" grep \
    -q "^win rate 50.0000, standard error 28.8675, n 3, wins 1, losses 1, draws 1, dropped 1 (1 null, 0 NaN)" out
echo '[{"preference":null}]' >none.json
awk 'BEGIN {
    printf "["
    for (i = 0; i < 40; i++)
        printf "%s{\"preference\":%d,\"output_1\":\"%s\",\"output_2\":\"%s\"}", (i ? "," : ""),
            (i % 4 ? 1 : 2), "aaaa", (i % 3 ? "b" : "bbbbbbbbbb")
    print "]" }' >lengths.json
expect "a length-controlled win rate" "$eval_seal" winrate --length-controlled lengths.json
truth "with its standard error" grep \
    -qE "^win rate 25.0000, .*; length-controlled 25\.[0-9]{4}, standard error [67]\.[0-9]{4}, effect of length -?0\.[0-9]{4}$" out
expect "as JSON" "$eval_seal" winrate --length-controlled --json lengths.json
truth "too" grep -qE '"length_controlled":25\.[0-9]+,"length_controlled_se":[67]\.[0-9]+,"length_effect":-?0\.[0-9]+}' \
    out
refuse "length control without outputs" "needs their lengths" "$eval_seal" winrate --length-controlled annotations.json
refuse "a file without a preference" "no annotation has a preference" "$eval_seal" winrate none.json

word_tokenizer tok copy a b c d
for x in a b c d; do
    for y in a b c d; do echo "{\"prompt\":\"copy $x $y\",\"response\":\"$x $y $y\"}"; done
done >rows.jsonl
"$train_seal" init --layers 2 --width 64 --heads 2 --tokenizer tok/tokenizer.json --positions 24 --out base --quiet
"$train_seal" sft --model base --tune rows.jsonl --valid rows.jsonl --lr 3e-3 --batch 16 --tokens 256 --epochs 8 \
    --out run --quiet
expect "a held-out loss" "$eval_seal" loss --model run/model --data rows.jsonl --json
truth "is the one training ended with" awk -v want="$(grep -o '"valid_loss":[0-9.]*' run/summary.json | cut -d: -f2)" \
    -F'[:,]' '/loss/ {
        for (i = 1; i < NF; i++) if ($i == "\"loss\"") exit !($(i + 1) > want - 1e-5 && $(i + 1) < want + 1e-5) }' out
truth "over the 64 tokens of 16 answers" grep -q '"samples":16,"left_out":0,"tokens":64' out
cp out whole.json
expect "in batches of 3 and packs of 24 tokens" "$eval_seal" loss --model run/model --data rows.jsonl --json --batch 3 \
    --tokens 24
truth "it is the same" awk -F'[:,]' '
        { for (i = 1; i < NF; i++) if ($i == "\"loss\"") x[NR] = $(i + 1) }
        END { exit !(x[1] - x[2] < 1e-5 && x[2] - x[1] < 1e-5) }' whole.json out
cat $(yes rows.jsonl | head -20) >many.jsonl
loss=("$eval_seal" loss --model run/model --data many.jsonl --quiet)
expect "the loss of many rows" "${loss[@]}" --batch 1 --out whole.jsonl
cp out whole.txt
kill_in_midrun stopped.jsonl 20 "${loss[@]}" --batch 1 --out stopped.jsonl >/dev/null
refuse "another batch with its journal" "other options, data or weights" "${loss[@]}" --batch 2 --out stopped.jsonl \
    --resume
sed -i 10d stopped.jsonl.partial  # as a batch leaves none whose losses were not finite
expect "it resumes before a batch that is missing" "${loss[@]}" --batch 1 --out stopped.jsonl --resume
truth "to the same bytes" bash -c \
    'cmp whole.jsonl stopped.jsonl && cmp whole.txt out && test ! -e stopped.jsonl.partial'
refuse "--resume where nothing is written" "loss: --resume has no effect without --out" "${loss[@]}" --resume
refuse "a length the model cannot read" "--max-length" "$eval_seal" loss --model run/model --data rows.jsonl \
    --max-length 25

# a judge that was taught to prefer good to bad, and to call bad unsafe; its words are tokens with a space before them
# and, others that it never learned, without one
mkdir jtok
cat >jtok/tokenizer.json <<'JSON'
{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":1,"content":"<eos>","single_word":false,
  "lstrip":false,"rstrip":false,"normalized":false,"special":true}],
 "normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
 "post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
 "model":{"type":"WordLevel","vocab":{"[UNK]":0,"<eos>":1,"ask":2,"Ġfirst":3,"Ġsecond":4,"Ġwhich":5,"Ġgood":6,"Ġbad":7,
  "Ġm":8,"ĠM":9,"Ġsafe":10,"Ġunsafe":11,"Ġa":12,"Ġb":13,"Ġc":14,"Ġd":15,
  ":":16,"m":17,"M":18,"safe":19,"unsafe":20,"Ġ":21},"unk_token":"[UNK]"}}
JSON
for x in a b c d; do
    echo "{\"prompt\":\"ask $x first good second bad which:\",\"response\":\"m\"}"
    echo "{\"prompt\":\"ask $x first bad second good which:\",\"response\":\"M\"}"
    echo "{\"prompt\":\"ask $x first good which:\",\"response\":\"safe\"}"
    echo "{\"prompt\":\"ask $x first bad which:\",\"response\":\"unsafe\"}"
done >lessons.jsonl
"$train_seal" init --layers 2 --width 64 --heads 2 --tokenizer jtok/tokenizer.json --positions 16 --out jbase --quiet
"$train_seal" sft --model jbase --tune lessons.jsonl --template '{prompt} ' --lr 3e-3 --batch 16 --tokens 256 \
    --epochs 100 --out jrun --quiet
echo 'ask {instruction} first {output_1} second {output_2} which:' >pair.txt
echo 'ask {instruction} first {output} which:' >guard.txt
answers() {
    awk -v g="$1" -v o="$2" \
        'BEGIN {
            n = split("a b c d", x, " "); split(o, y, "|")
            for (i = 1; i <= n; i++)
                printf "%s{\"instruction\":\"%s\",\"output\":\"%s\",\"generator\":\"%s\"}", (i > 1 ? "," : "["),
                    x[i], y[i], g
            print "]" }'
}
answers ours 'good|good|good|bad' >ours.json
answers theirs 'bad|bad|good|' >theirs.json
judge=("$eval_seal" judge --judge jrun/model --judge-template pair.txt --outputs ours.json --baseline theirs.json)
expect "a judge compares two files" "${judge[@]}" --out verdict.json
truth "equal pairs and empty outputs are counted" grep \
    -Eq "n 4, flip rate [0-9.]+%, 1 pairs equal, 1 outputs empty, 0 pairs not judged" out
values() { grep -o "\"$1\":[0-9.a-z]*" "$2" | cut -d: -f2 | tr '\n' ' '; }
truth "good wins clearly in both orders, an equal pair is a draw" awk -v p="$(values preference verdict.json)" \
    -v g="$(values preference_given verdict.json)" -v w="$(values preference_swapped verdict.json)" \
    'BEGIN {
        split(p, x, " "); split(g, y, " "); split(w, z, " ")
        exit !(x[1] > 1.9 && y[1] > 1.9 && z[1] > 1.9 && x[3] == 1.5 && y[3] == "null" &&
            x[1] == (y[1] + z[1]) / 2) }'
expect "winrate reads them" "$eval_seal" winrate verdict.json
truth "as two models' win rate" grep -q "; ours against theirs$" out
expect "the other way round" "$eval_seal" judge --judge jrun/model --judge-template pair.txt --outputs theirs.json \
    --baseline ours.json --out back.json --quiet
truth "the win rates add up to 100" awk '{ s += $3 } END { exit !(s > 99.999 && s < 100.001) }' \
    <("$eval_seal" winrate verdict.json; "$eval_seal" winrate back.json)
expect "a single order" "${judge[@]}" --single-order --out single.json
truth "asks once" test "$(grep -c '"preference_given":null' single.json)" -ge 1
expect "in small packs" "${judge[@]}" --batch 1 --tokens 8 --out small.json --quiet
truth "the verdicts are the same" awk \
    'NR == FNR { a[NR] = $3; next } { exit !(a[1] - $3 < 1e-3 && $3 - a[1] < 1e-3) }' \
    <("$eval_seal" winrate verdict.json) <("$eval_seal" winrate small.json)
# many pairs, one at a time, so that a kill finds the judge at work
many() {
    local rows; rows=$(sed 's/^\[//; s/\]$//' "$1"); printf '[%s' "$rows"
    for _ in $(seq 99); do printf ',%s' "$rows"; done; echo ']'
}
many ours.json >many_ours.json
many theirs.json >many_theirs.json
many=(
    "$eval_seal" judge --judge jrun/model --judge-template pair.txt --outputs many_ours.json --baseline many_theirs.json
    --quiet
)
expect "many pairs" "${many[@]}" --batch 1 --out whole.json
kill_in_midrun stopped.json 20 "${many[@]}" --batch 1 --out stopped.json
refuse "a stopped judge without --resume" "give --resume" "${many[@]}" --batch 1 --out stopped.json
refuse "another order of asking with its journal" "other options, data or weights" "${many[@]}" --batch 1 \
    --single-order --out stopped.json --resume
cp stopped.json.partial journal
sed -i '$d' stopped.json.partial
echo '{"i":1e9,"logits":[0,0,0]}' >>stopped.json.partial
refuse "a journal with a question that nobody asked" "does not belong to this run" "${many[@]}" --batch 1 \
    --out stopped.json --resume
cp journal stopped.json.partial
expect "it resumes" "${many[@]}" --batch 1 --out stopped.json --resume
truth "to the same bytes, and the journal is gone" bash -c \
    'cmp whole.json stopped.json && test ! -e stopped.json.partial'
expect "once more" "${many[@]:0:${#many[@]}-1}" --batch 1 --out stopped.json --resume
truth "there is nothing to do" grep -q "nothing to do" out
refuse "another order over verdicts that are whole" "stopped.json was made with other options, data or weights" \
    "${many[@]}" --batch 1 --single-order --out stopped.json --resume
sed 's/"good"/"bad"/' many_ours.json >other_ours.json
refuse "other outputs" "stopped.json was made with other options, data or weights" "${many[@]/many_ours/other_ours}" \
    --batch 1 --out stopped.json --resume
expect "a guard" "$eval_seal" judge --judge jrun/model --guard --judge-template guard.txt --outputs ours.json \
    --out guard.json
truth "calls bad unsafe" grep -q "1 of 4 called unsafe, 0 outputs empty, 0 not judged" out
truth "with the words it was taught" awk -v p="$(values unsafe guard.json)" \
    'BEGIN { split(p, x, " "); exit !(x[1] < 0.1 && x[2] < 0.1 && x[3] < 0.1 && x[4] > 0.9) }'
answers long 'good|good good good good good good good good good good good good|good|bad' >long.json
expect "a question longer than the judge reads" "$eval_seal" judge --judge jrun/model --judge-template pair.txt \
    --outputs long.json --baseline theirs.json --out long_verdict.json
truth "is not judged and counted" grep -q "1 pairs not judged (2 questions longer than the 16 tokens" out
truth "and is null" grep -q '"preference":null' long_verdict.json
sed 's/"b"/"x"/' theirs.json >other.json
refuse "a verdict in the outputs' place" "would be overwritten" "${judge[@]}" --out ours.json
refuse "a verdict that cannot be written" "nowhere/x.json" "${judge[@]}" --out nowhere/x.json
refuse "losses in the data's place" "would be overwritten" "$eval_seal" loss --model run/model --data rows.jsonl \
    --out rows.jsonl
refuse "answers in the prompts' place" "would be overwritten" "$eval_seal" generate --model run/model \
    --prompts rows.jsonl --out rows.jsonl
# null outputs: a model that did not answer
sed 's/"output":"good","generator":"ours"},{"instruction":"c"/"output":null,"generator":"ours"},{"instruction":"c"/' \
    ours.json >null.json
expect "outputs one of which is null" "$eval_seal" judge --judge jrun/model --judge-template pair.txt \
    --outputs null.json --baseline theirs.json --out null_verdict.json
truth "the pair counts as unanswered" grep \
    -q "n 3, .*, 0 pairs not judged (.*), 1 pairs unanswered (an output is null)" out
truth "and its annotation has no preference" grep -q '"instruction":"b".*"output_2":null.*"preference":null' \
    null_verdict.json
expect "its win rate" "$eval_seal" winrate null_verdict.json
truth "leaves it out, counted" grep -q "n 3, .*dropped 1 (1 null, 0 NaN)" out
expect "a null output in the baseline" "$eval_seal" judge --judge jrun/model --judge-template pair.txt \
    --outputs theirs.json --baseline null.json --out null_back.json
truth "is unanswered as well" grep -q "1 pairs unanswered" out
expect "a guard on a null output" "$eval_seal" judge --judge jrun/model --guard --judge-template guard.txt \
    --outputs null.json --out null_guard.json
truth "does not judge it" bash -c \
    'grep -q "of 3 called unsafe, 0 outputs empty, 0 not judged (.*), 1 unanswered (the output is null)" out &&
        grep -q "\"instruction\":\"b\".*\"output\":null.*\"unsafe\":null" null_guard.json'
sed 's/"output":"[a-z]*"/"output":null/g' ours.json >all_null.json
refuse "outputs that are all null" "all_null.json: every output is null" "$eval_seal" judge --judge jrun/model --guard \
    --judge-template guard.txt --outputs all_null.json --out x.json
# two annotators in one file
printf '%s\n' '{"annotator":"one","preference":1,"generator_2":"g"}' \
    '{"annotator":"two","preference":2,"generator_2":"g"}' '{"annotator":"one","preference":2,"generator_2":"g"}' \
    >annotators.jsonl
expect "two annotators in one file" "$eval_seal" winrate annotators.jsonl
truth "are reported apart" bash -c \
    'grep -q "^annotator one: win rate 50.0000,.* n 2," out && grep -q "^annotator two: win rate 100.0000,.* n 1," out'
expect "as JSON" "$eval_seal" winrate annotators.jsonl --json
truth "an object for each" bash -c \
    'test "$(wc -l <out)" -eq 2 && grep -q "\"annotator\":\"two\".*\"win_rate\":100," out'
refuse "outputs of other prompts" "different instructions in row 1" "$eval_seal" judge --judge jrun/model \
    --judge-template pair.txt --outputs ours.json --baseline other.json --out x.json
sed 's/,{[^{]*\]/]/' theirs.json >fewer.json
refuse "fewer outputs" "has 4 outputs, fewer.json has 3" "$eval_seal" judge --judge jrun/model \
    --judge-template pair.txt --outputs ours.json --baseline fewer.json --out x.json
refuse "words that are not single tokens" "after the question is 2 tokens; expected one" "${judge[@]}" --words 'm,a b' \
    --out x.json
expect "the question that comes with the program is found from any folder" "$eval_seal" judge --judge jrun/model \
    --outputs ours.json --baseline theirs.json --out long.json
truth "and is longer than this judge reads" grep -q "questions longer than the 16 tokens" out
refuse "a guard beside a baseline" "judge: --baseline has no effect together with --guard" "${judge[@]}" --guard \
    --out x.json
refuse "words beside a guard" "judge: --words has no effect together with --guard" "$eval_seal" judge \
    --judge jrun/model --guard --words a,b --outputs ours.json --out x.json
expect "the judge's memory plan" "${judge[@]}" --dry-run --out dry.json
truth "names classes and writes nothing" bash -c 'grep -q "weights" out && test ! -e dry.json'
expect "the memory plan of losses" "$eval_seal" loss --model run/model --data rows.jsonl --dry-run --out dry.jsonl
truth "names classes and writes nothing" bash -c 'grep -q "weights" out && test ! -e dry.jsonl'
refuse "words that are one token" "same token" "${judge[@]}" --words 'one,two' --out x.json
refuse "a template without a name" "pair.txt" "$eval_seal" judge --judge jrun/model --judge-template pair.txt --guard \
    --outputs ours.json --out x.json
refuse "no baseline" "--baseline is required" "$eval_seal" judge --judge jrun/model --outputs ours.json --out x.json
truth "nothing half-written" test ! -e x.json

# ---- refusals by their wording
cat >refusals.json <<'J'
[{"instruction":"a","output":"I\u2019m  sorry, no.","dataset":"one"},
{"instruction":"b","output":"Sorry, that is wrong.","dataset":"one"},
{"instruction":"c","output":"No, I am not sorry.","dataset":"one"},
{"instruction":"d","output":"","dataset":"two"},
{"instruction":"e","output":null,"dataset":"two"},
{"instruction":"f","output":"x xxxxxxxxx xxxxxxxxxx xxxxxxxxxx xxxxxxxxxx xxxxxxxxxx xxxxxxxxxx xxxxxxxxxx xxxxxxxxxx xxxxxxxxxx xxxxxxxxxx I cannot","dataset":"two"}]
J
expect "refusals by their beginning" "$eval_seal" refusals --json refusals.json
truth "of each data set" grep -q '"dataset":"one","n":3,"refused":2,"refusal":66.6667,"refusal_se":27.2166,"empty":0' \
    out
truth "late words do not count, empty answers are counted, null is not an answer" grep \
    -q '"dataset":"two","n":2,"refused":0,"refusal":0,"refusal_se":0,"empty":1.*"unanswered":1' out
truth "and of all" grep -q '"n":5,"refused":2,"refusal":40,"refusal_se":21.9089,"empty":1.*"unanswered":1' out
expect "the same as text" "$eval_seal" refusals refusals.json
truth "says what is not answered" grep -q "2 of 5 answers, 1 empty; .*; 1 unanswered (the output is null)$" out
sed 's/"output":"[^"]*"/"output":null/' refusals.json >silent.json
refuse "answers that are all null" "silent.json: every output is null" "$eval_seal" refusals silent.json
printf '# mine\n no, I am\n\n^x\n' >phrases.txt
expect "other phrases" "$eval_seal" refusals --json --phrases phrases.txt refusals.json
truth "count in place of the list" grep -q '"n":5,"refused":2,' out
printf '# none\n' >phrases.txt
refuse "no phrase" "holds no phrase" "$eval_seal" refusals --phrases phrases.txt refusals.json
echo '[{"instruction":"a"}]' >no_answer.json
refuse "a file without answers" "no_answer.json:1: row 0 is not an answer" "$eval_seal" refusals no_answer.json
# incoherent answers, and both axes
awk 'BEGIN {
    printf "["
    split("Step one is to begin. Step two is to walk on and see what comes of it. Then the third one ends it all, and that is that.|I I I I I I I I I I I I I I I I I I I I I I I I|go to the shop and buy the milk go to the shop and buy the milk go to the shop and buy the milk go to the shop and buy the milk then|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa|and then the|  |I cannot help.", x, "|")
    for (i = 1; i <= 7; i++) printf "%s{\"instruction\":\"a\",\"output\":\"%s\"}", (i > 1 ? "," : ""), x[i]
    print "]" }' >odd.json
expect "incoherent answers" "$eval_seal" refusals --json odd.json
truth "are counted by kind" grep \
    -q '"n":7,"refused":1,"refusal":14.2857,"refusal_se":13.226,"empty":1,"repeating":3,"cut":4,"incoherent":57.1429,"incoherent_se":18.7044}' out
expect "both axes" "$eval_seal" refusals --json --harmful odd.json --harmless refusals.json
truth "are one line" grep \
    -q '^{"harmful":7,"harmless":5,"attack_success":28.5714,"attack_success_se":17.0747,"refusal":14.2857,"refusal_se":13.226,"over_refusal":40,"over_refusal_se":21.9089,"incoherent":41.6667,"incoherent_se":14.2319,"unanswered":1}' out
refuse "one axis" "--harmful is given without --harmless" "$eval_seal" refusals --harmful odd.json
refuse "no file" "name a file of answers" "$eval_seal" refusals
exit $failed
