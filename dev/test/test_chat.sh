#!/usr/bin/env bash
# Chat templates end to end: a tiny model answers conversations under each template as transformers does from
# apply_chat_template's ids (dev/reference/record_chat.py;
# its answers hang on every id of the prompt), and what does not fit is refused.
set -u
. "$(dirname "$0")/cli.sh"
eval_seal=$(dirname "$train_seal")/eval_seal golden=$PWD/dev/reference/golden/chat
cd "$work" || exit 1
# rows that a template has no place for are left out, as transformers refuses them
rows() {
    if [ "$1" = mistral-v0.2 ]; then
        grep -v '"system"' "$golden/conversations.jsonl"
    else
        cat "$golden/conversations.jsonl"
    fi
}
answers() { grep -o "\"$1\":[[:space:]]*\"[^\"]*\"" "$2" | sed 's/.*: *"//; s/"$//'; }
for pair in bytes/llama3 sentence/mistral sentence/mistral-v0.2 sentence/phi3; do
    model=$golden/${pair%/*} chat=${pair#*/}
    rows "$chat" >"$chat.jsonl"
    expect "conversations by the template of $chat" "$eval_seal" generate --model "$model" --prompts "$chat.jsonl" \
        --chat "$chat" --parse-special --greedy --max-new-tokens 16 --out "$chat.out.json" --quiet
    truth "are answered as transformers answers them" cmp <(answers output "$chat.out.json") \
        <(answers answer "$golden/$chat.json")
    truth "all of them" test "$(answers output "$chat.out.json" | grep -cE '^[A-Za-z]{16}$')" \
        -eq "$(wc -l <"$chat.jsonl")"
done
expect "one at a time" "$eval_seal" generate --model "$golden/sentence" --prompts phi3.jsonl --chat phi3 \
    --parse-special --greedy --max-new-tokens 16 --batch 1 --out one.json --quiet
truth "they are the same" cmp phi3.out.json one.json
# the same conversation in the layouts of other files
echo '{"conversations":[{"from":"system","value":"s"},{"from":"human","value":"a"},{"from":"gpt","value":"b"},{"from":"human","value":"c d"},{"from":"gpt","value":"x"}]}' >sharegpt.jsonl
printf '{"chosen":"\\n\\nHuman: a\\n\\nAssistant: b\\n\\nHuman: c d\\n\\nAssistant: x"}\n' >hh.jsonl
echo '{"prompt":"Hello"}' >bare.jsonl
last=$(answers answer "$golden/llama3.json" | tail -1) first=$(answers answer "$golden/llama3.json" | head -1)
chat() {
    "$eval_seal" generate --model "$golden/bytes" --prompts "$1" --chat llama3 --greedy --max-new-tokens 16 \
        --out "$1.out.json" --quiet
}
expect "a ShareGPT row" chat sharegpt.jsonl
truth "keeps its turns and its system text" test "$(answers output sharegpt.jsonl.out.json)" = "$last"
expect "a bare prompt" chat bare.jsonl
truth "is a user's turn" test "$(answers output bare.jsonl.out.json)" = "$first"
sed 's/"role": "system", "content": "s"}, {//' "$golden/conversations.jsonl" | tail -1 >turns.jsonl
chat turns.jsonl
expect "an HH dialogue" chat hh.jsonl
truth "keeps its turns" test -n "$(answers output hh.jsonl.out.json)" -a "$(answers output hh.jsonl.out.json)" = \
    "$(answers output turns.jsonl.out.json)"

generate=("$eval_seal" generate --model "$golden/bytes" --prompts bare.jsonl --greedy --out x.json --quiet)
refuse "an unknown template" \
    "the chat template vicuna is not known; expected one of llama3, mistral, mistral-v0.2, phi3" "${generate[@]}" \
    --chat vicuna
refuse "a template of another model" \
    "the tokenizer has no token <|end|>, which the chat template phi3 is written with" "${generate[@]}" --chat phi3
refuse "Mistral's on Llama-3" "the tokenizer has no token </s>" "${generate[@]}" --chat mistral-v0.2
refuse "a template beside --chat" "--template has no effect together with --chat" "${generate[@]}" --chat llama3 \
    --template '{prompt}'
# no warning beside the refusal
cp -r "$golden/sentence" agreeing && sed -i 's/"eos_token_id": *0/"eos_token_id": 2/' agreeing/config.json
refuse "a system text that the template has no place for" \
    "conversations.jsonl:5: row 4: message 1: the chat template mistral-v0.2 does not support a system message" \
    "$eval_seal" generate --model agreeing --prompts "$golden/conversations.jsonl" --chat mistral-v0.2 --greedy \
    --out x.json --quiet

# a model that learned to end its turn with <|eot_id|>, which its config.json does not call an end
for x in a b c d; do printf '{"prompt":"%s","response":"%s%s<|eot_id|> more"}\n' $x $x $x; done >ends.jsonl
"$train_seal" init --family llama --layers 1 --width 64 --heads 2 --tokenizer "$golden/bytes/tokenizer.json" \
    --positions 64 --out init --quiet
"$train_seal" sft --model init --tune ends.jsonl \
    --template '<|start_header_id|>user<|end_header_id|>\n\n{prompt}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n' \
    --lr 1e-2 --batch 4 --epochs 80 --out ends --quiet
expect "a model that ends its turn" "$eval_seal" generate --model ends/model --prompts ends.jsonl --chat llama3 \
    --greedy --max-new-tokens 12 --out ends.json --quiet
truth "is heard to its end and no further" test "$(answers output ends.json | tr '\n' ' ')" = "aa bb cc dd "

echo '[{"instruction":"a","output":"b","generator":"one"},{"instruction":"c","output":"d","generator":"one"}]' \
    >ours.json
echo '[{"instruction":"a","output":"e","generator":"two"},{"instruction":"c","output":"f","generator":"two"}]' \
    >theirs.json
echo 'which for {instruction}: {output_1} or {output_2}?' >pair.txt
judge=(
    "$eval_seal" judge --judge "$golden/bytes" --judge-template pair.txt --outputs ours.json --baseline theirs.json
    --quiet
)
expect "a judge with a chat template" "${judge[@]}" --chat llama3 --out verdict.json
truth "gives verdicts" test "$(grep -o '"preference":[12][.0-9]*' verdict.json | wc -l)" -eq 2
refuse "a judge with another model's template" \
    "the tokenizer has no token </s>, which the chat template mistral is written with" "${judge[@]}" --chat mistral \
    --out x.json
refuse "a judge with an unknown one" "expected one of llama3, mistral, mistral-v0.2, phi3" "${judge[@]}" --chat chatml \
    --out x.json
truth "nothing half-written" test ! -e x.json -a ! -e x.json.partial

# training and measuring by a template: losses as transformers gives them over the assistant's tokens
loss=$golden/../chat_loss
close() {
    paste <(grep -o '"loss":[^,}]*' "$1" | cut -d: -f2) "$loss/losses.txt" |
        awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > 1e-5 * $2) bad = 1; n++ } END { exit bad || n != 5 }'
}
for template in marked plain; do
    expect "losses under $template.jinja" "$eval_seal" loss --model "$golden/bytes" --data "$loss/rows.jsonl" \
        --chat "$loss/$template.jinja" --loss-on all --out $template.jsonl --quiet
    truth "are transformers' over the assistant's tokens" close $template.jsonl
done
trl=$golden/../trl
for name in marked parts variables; do
    expect "losses of $name.jsonl" "$eval_seal" loss --model "$golden/bytes" --data "$trl/$name.jsonl" \
        --chat "$trl/$name.jinja" --loss-on all --out trl.jsonl --quiet
    awk -v name=$name '$1 == name { print $3 }' "$trl/expected.txt" >expected.txt
    truth "are those of TRL's trainer" awk '
        NR == FNR { e[FNR] = $1; n = FNR; next }
        match($0, /"loss":[0-9.]+/) {
            d = substr($0, RSTART + 7, RLENGTH - 7) - e[FNR]; if (d < 0) d = -d; if (d > 1e-5 * e[FNR]) bad = 1; m++ }
        END { exit bad || n < 4 || m != n }' expected.txt trl.jsonl
done
cp -r "$golden/bytes" own && cp "$loss/plain.jinja" own/chat_template.jinja
expect "a model with a template of its own" "$eval_seal" loss --model own --data "$loss/rows.jsonl" --loss-on all \
    --out own.jsonl --quiet
truth "needs no --chat" cmp own.jsonl plain.jsonl
"$eval_seal" loss --model own --data "$loss/rows.jsonl" --chat none --out none.jsonl --quiet >/dev/null
"$eval_seal" loss --model "$golden/bytes" --data "$loss/rows.jsonl" --out bare.jsonl --quiet >/dev/null
truth "--chat none is the reference's text" cmp none.jsonl bare.jsonl
truth "which is another" test "$(cat none.jsonl)" != "$(cat own.jsonl)"
printf '{"prompt":"Q: a\\nA:","chosen":" b"}\n' >asis.jsonl
"$eval_seal" loss --model own --data asis.jsonl --out asis.own.jsonl --quiet >/dev/null
"$eval_seal" loss --model "$golden/bytes" --data asis.jsonl --out asis.jsonl.out --quiet >/dev/null
truth "a row that is given as it is stays so" cmp asis.own.jsonl asis.jsonl.out
"$train_seal" check --model own --tune "$loss/rows.jsonl" --batch 2 --show 1 >check.txt 2>&1
truth "check names the template" grep \
    -q 'end of turn <|eot_id|>.*chat template auto (sha256 [0-9a-f]\{12\}), loss on the last answer' check.txt
truth "and shows what carries loss" grep -q '⟦Hi!<|eot_id|>⟧' check.txt
expect "sft by the template" "$train_seal" sft --model own --tune "$loss/rows.jsonl" --loss-on all --batch 5 \
    --epochs 1 --out sft --quiet
truth "whose log names it" grep -q '"chat_template":"auto (sha256 [0-9a-f]*), loss on all answers"' sft/log.jsonl
mean=$(awk '{ s += $1 } END { printf "%.5f", s / NR }' "$loss/losses.txt")
truth "trains on the same losses" awk -v mean="$mean" \
    'match($0, /"loss":[0-9.]+/) { x = substr($0, RSTART + 7, RLENGTH - 7) - mean; exit x > 1e-3 || x < -1e-3 }' \
    sft/log.jsonl

# weights of rows
sed 's/}$/,"weight":2}/' "$loss/rows.jsonl" >twice.jsonl
"$train_seal" sft --model own --tune "$loss/rows.jsonl" --batch 5 --lr 1e-3 --clip 0 --max-steps 2 --epochs 2 \
    --out once --quiet
"$train_seal" sft --model own --tune twice.jsonl --batch 5 --lr 1e-3 --clip 0 --max-steps 2 --epochs 2 --out twice \
    --quiet
truth "a weight of 2 doubles the loss and its gradient" awk '
    match($0, /"loss":[0-9.]+/) {
        loss[FILENAME] = substr($0, RSTART + 7, RLENGTH - 7); n[FILENAME]++
        if (n[FILENAME] == 1) first[FILENAME] = loss[FILENAME] }
    END {
        r = first["twice/log.jsonl"] / first["once/log.jsonl"]
        exit !(r > 1.9999 && r < 2.0001) }' once/log.jsonl twice/log.jsonl
truth "and is logged" grep -q '"weight":2' twice/log.jsonl
once() { "$train_seal" sft --model own --batch 5 --max-steps 1 --epochs 1 "$@" >once.txt 2>&1; }
expect "weights of held-out rows" once --tune "$loss/rows.jsonl" --valid twice.jsonl --out held
truth "have no effect, and a line has their count" grep \
    -q 'twice.jsonl: the weights of 5 rows have no effect in held-out data' once.txt
"$train_seal" check --model own --tune "$loss/rows.jsonl" --safe twice.jsonl --batch 2 >once.txt 2>&1
truth "those of D_safe likewise" grep -q 'twice.jsonl: the weights of 5 rows have no effect in D_safe' once.txt
"$eval_seal" loss --model own --data twice.jsonl >once.txt 2>&1
truth "and those of rows whose loss is measured" grep \
    -q 'twice.jsonl: the weights of 5 rows have no effect in a measured loss' once.txt
sed 's/}$/,"weight":1,"documents":[{"text":"d"}],"chat_template_kwargs":{"mood":"calm","level":1,"unknown":2}}/' \
    "$loss/rows.jsonl" >fields.jsonl
"$train_seal" check --model "$golden/bytes" --tune fields.jsonl --chat "$trl/variables.jinja" --batch 2 >once.txt 2>&1
truth "fields and variables that a template does not read are counted" grep \
    -q "text in fields that are not used: documents (5 rows), chat_template_kwargs' unknown (5 rows)" once.txt
truth "a weight of 1 is none" bash -c '! grep -q "have weights" once.txt'
echo '{"messages":[{"role":"user","content":[{"type":"text","text":"q"}]},{"role":"assistant","content":[{"type":"text","text":"a"}]}]}' >parts.jsonl
"$train_seal" check --model own --tune parts.jsonl --batch 1 --show 1 >once.txt 2>&1
truth "parts that a template does not write are joined" grep \
    -q '1 rows: the chat template does not write content in parts; their texts are joined' once.txt
truth "and trained" grep -q '⟦a<|eot_id|>⟧' once.txt
sed 's/}$/,"weight":-1}/' "$loss/rows.jsonl" >negative.jsonl
refuse "a negative weight" "weight" "$train_seal" sft --model own --tune negative.jsonl --batch 5 --out negative --quiet
selector=(
    "$train_seal" selector --model own --safe "$loss/rows.jsonl" --batch 5 --epochs 1 --gamma fixed:0.5
    --selector-optimizer sgd --selector-lr 1 --selector-clip 0 --clip 0 --quiet
)
"${selector[@]}" --tune "$loss/rows.jsonl" --out omega1 && "${selector[@]}" --tune twice.jsonl --out omega2
number() { grep -o "\"$1\":[0-9.]*" "$2" | head -1 | cut -d: -f2; }
truth "weights count in the selector's loss" awk -v a="$(number weighted_loss omega1/log.jsonl)" \
    -v b="$(number weighted_loss omega2/log.jsonl)" 'BEGIN { exit !(b > 1.9999 * a && b < 2.0001 * a) }'
expect "a selector learned under one template is used with another" "$train_seal" sft --model own \
    --tune "$loss/rows.jsonl" --selector omega1/selector.safetensors --chat "$loss/lines.jinja" --batch 2 --out other
truth "and a line says so" grep -q "was learned with the chat template of sha256" "$work/err"

# bad input
printf '{%% if x' >broken.jinja
refuse "a template that ends too early" "unexpected end of template" "$eval_seal" loss --model own \
    --data "$loss/rows.jsonl" --chat broken.jinja --quiet
printf '{%% for m in messages %%}{{ raise_exception("no " ~ m.role) }}{%% endfor %%}' >raises.jinja
refuse "a template that raises for every row" "none of 5 rows is usable; the first:" "$train_seal" sft --model own \
    --tune "$loss/rows.jsonl" --chat raises.jinja --batch 2 --out raised --quiet
printf '{%% macro m() %%}{{ m() }}{%% endmacro %%}{{ m() }}' >recurses.jinja
refuse "a template that recurses" "recursion deeper than" "$train_seal" sft --model own --tune "$loss/rows.jsonl" \
    --chat recurses.jinja --batch 2 --out raised --quiet
printf '{%% for m in messages %%}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{%% endfor %%}' >chatml.jinja
refuse "a template of another model" \
    "the tokenizer has no token <|im_end|>, which the chat template chatml.jinja is written with" "$eval_seal" loss \
    --model own --data "$loss/rows.jsonl" --chat chatml.jinja --quiet
refuse "auto for a model without a template" "has no chat template" "$eval_seal" loss --model "$golden/bytes" \
    --data "$loss/rows.jsonl" --chat auto --quiet
refuse "a template beside --compat" "does not go with --compat" "$train_seal" sft --model own \
    --tune "$loss/rows.jsonl" --chat auto --compat --batch 2 --out raised --quiet
printf '{%% for m in messages %%}{%% if m.role not in ["user", "assistant"] %%}{{ raise_exception("only user and assistant") }}{%% endif %%}{{ m.content }}<|eot_id|>{%% endfor %%}' >two.jinja
expect "roles that a template refuses" "$train_seal" check --model own --tune "$loss/rows.jsonl" --chat two.jinja \
    --batch 2
truth "leave their row out, named" grep -q 'row 2.*only user and assistant (two.jinja, line 1)' "$work/err"
exit $failed
