#!/usr/bin/env bash
# Chat templates end to end: a tiny model answers conversations under each template as transformers does from apply_chat_template's ids (dev/reference/record_chat.py;
# its answers hang on every id of the prompt), and what does not fit is refused.
set -u
. "$(dirname "$0")/cli.sh"
eval_seal=$(dirname "$train_seal")/eval_seal golden=$PWD/dev/reference/golden/chat
cd "$work" || exit 1
# rows that a template has no place for are left out, as transformers refuses them
rows() { if [ "$1" = mistral-v0.2 ]; then grep -v '"system"' "$golden/conversations.jsonl"; else cat "$golden/conversations.jsonl"; fi; }
answers() { grep -o "\"$1\":[[:space:]]*\"[^\"]*\"" "$2" | sed 's/.*: *"//; s/"$//'; }
for pair in bytes/llama3 sentence/mistral sentence/mistral-v0.2 sentence/phi3; do
    model=$golden/${pair%/*} chat=${pair#*/}
    rows "$chat" >"$chat.jsonl"
    expect "conversations by the template of $chat" "$eval_seal" generate --model "$model" --prompts "$chat.jsonl" --chat "$chat" --parse-special --greedy --max-new-tokens 16 --out "$chat.out.json" --quiet
    truth "are answered as transformers answers them" cmp <(answers output "$chat.out.json") <(answers answer "$golden/$chat.json")
    truth "all of them" test "$(answers output "$chat.out.json" | grep -cE '^[A-Za-z]{16}$')" -eq "$(wc -l <"$chat.jsonl")"
done
expect "one at a time" "$eval_seal" generate --model "$golden/sentence" --prompts phi3.jsonl --chat phi3 --parse-special --greedy --max-new-tokens 16 --batch 1 --out one.json --quiet
truth "they are the same" cmp phi3.out.json one.json
# the same conversation in the layouts of other files
echo '{"conversations":[{"from":"system","value":"s"},{"from":"human","value":"a"},{"from":"gpt","value":"b"},{"from":"human","value":"c d"},{"from":"gpt","value":"x"}]}' >sharegpt.jsonl
printf '{"chosen":"\\n\\nHuman: a\\n\\nAssistant: b\\n\\nHuman: c d\\n\\nAssistant: x"}\n' >hh.jsonl
echo '{"prompt":"Hello"}' >bare.jsonl
last=$(answers answer "$golden/llama3.json" | tail -1) first=$(answers answer "$golden/llama3.json" | head -1)
chat() { "$eval_seal" generate --model "$golden/bytes" --prompts "$1" --chat llama3 --greedy --max-new-tokens 16 --out "$1.out.json" --quiet; }
expect "a ShareGPT row" chat sharegpt.jsonl
truth "keeps its turns and its system text" test "$(answers output sharegpt.jsonl.out.json)" = "$last"
expect "a bare prompt" chat bare.jsonl
truth "is a user's turn" test "$(answers output bare.jsonl.out.json)" = "$first"
sed 's/"role": "system", "content": "s"}, {//' "$golden/conversations.jsonl" | tail -1 >turns.jsonl
chat turns.jsonl
expect "an HH dialogue" chat hh.jsonl
truth "keeps its turns" test -n "$(answers output hh.jsonl.out.json)" -a "$(answers output hh.jsonl.out.json)" = "$(answers output turns.jsonl.out.json)"

generate=("$eval_seal" generate --model "$golden/bytes" --prompts bare.jsonl --greedy --out x.json --quiet)
refuse "an unknown template" "the chat template vicuna is not known; there are: llama3, mistral, mistral-v0.2, phi3" "${generate[@]}" --chat vicuna
refuse "a template of another model" "the tokenizer has no token <|end|>, which the chat template phi3 is written with" "${generate[@]}" --chat phi3
refuse "Mistral's on Llama-3" "the tokenizer has no token </s>" "${generate[@]}" --chat mistral-v0.2
refuse "a template beside --chat" "--template has no effect together with --chat" "${generate[@]}" --chat llama3 --template '{prompt}'
cp -r "$golden/sentence" agreeing && sed -i 's/"eos_token_id": *0/"eos_token_id": 2/' agreeing/config.json  # no warning beside the refusal
refuse "a system text that the template has no place for" "conversations.jsonl:5: row 4: message 1: the chat template mistral-v0.2 does not support a system message" \
    "$eval_seal" generate --model agreeing --prompts "$golden/conversations.jsonl" --chat mistral-v0.2 --greedy --out x.json --quiet

# a model that learned to end its turn with <|eot_id|>, which its config.json does not call an end
for x in a b c d; do printf '{"prompt":"%s","response":"%s%s<|eot_id|> more"}\n' $x $x $x; done >ends.jsonl
"$train_seal" init --family llama --layers 1 --width 64 --heads 2 --tokenizer "$golden/bytes/tokenizer.json" --positions 64 --out init --quiet
"$train_seal" sft --model init --tune ends.jsonl --template '<|start_header_id|>user<|end_header_id|>\n\n{prompt}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n' --lr 1e-2 --batch 4 --epochs 80 --out ends --quiet
expect "a model that ends its turn" "$eval_seal" generate --model ends/model --prompts ends.jsonl --chat llama3 --greedy --max-new-tokens 12 --out ends.json --quiet
truth "is heard to its end and no further" test "$(answers output ends.json | tr '\n' ' ')" = "aa bb cc dd "

echo '[{"instruction":"a","output":"b","generator":"one"},{"instruction":"c","output":"d","generator":"one"}]' >ours.json
echo '[{"instruction":"a","output":"e","generator":"two"},{"instruction":"c","output":"f","generator":"two"}]' >theirs.json
echo 'which for {instruction}: {output_1} or {output_2}?' >pair.txt
judge=("$eval_seal" judge --judge "$golden/bytes" --judge-template pair.txt --outputs ours.json --baseline theirs.json --quiet)
expect "a judge with a chat template" "${judge[@]}" --chat llama3 --out verdict.json
truth "gives verdicts" test "$(grep -o '"preference":[12][.0-9]*' verdict.json | wc -l)" -eq 2
refuse "a judge with another model's template" "the tokenizer has no token </s>, which the chat template mistral is written with" "${judge[@]}" --chat mistral --out x.json
refuse "a judge with an unknown one" "there are: llama3, mistral, mistral-v0.2, phi3" "${judge[@]}" --chat chatml --out x.json
truth "nothing half-written" test ! -e x.json -a ! -e x.json.partial
exit $failed
