#!/usr/bin/env bash
# The end of sequence is the tokenizer's; what config.json says of another is told in one line. `check` names all of it.
. "$(dirname "$0")/cli.sh"
cd "$work" || exit 1

word_tokenizer base a b c "<|im_start|>" "<|im_end|>"
expect "a model" "$train_seal" init --out base --tokenizer base --family llama --layers 1 --width 64 --heads 2 --ff 32 \
    --positions 64
printf '{"prompt":"a b","chosen":"c"}\n{"prompt":"b","chosen":"a c"}\n' >tune.jsonl
check() { "$train_seal" check --model base --tune tune.jsonl --batch 2; }
line() { grep -c "^tokenizer: base/tokenizer.json (tokenizer.json), $1" out; }
# eos IDS: what config.json gives
eos() { sed -i -E "s/\"eos_token_id\":[^0-9[]*(\[[^]]*\]|[0-9]+)/\"eos_token_id\": $1/" base/config.json; }

expect "check with config.json's end of sequence" check
truth "in one line" test "$(line "9 tokens, no BOS, EOS <eos> (1), end of turn <|im_end|> (8), no chat template")" -eq 1
truth "and nothing to tell" test ! -s err
eos 4
expect "a tokenizer that names none takes config.json's" check
truth "as the line says" test "$(line "9 tokens, no BOS, EOS a (4)")" -eq 1
echo '{"eos_token":"<|im_end|>"}' >base/tokenizer_config.json
expect "the tokenizer's end of sequence" check
truth "wins" test "$(line "9 tokens, no BOS, EOS <|im_end|> (8)")" -eq 1
truth "and one line says so" test "$(wc -l <err)" -eq 1 \
    -a "$(grep -c 'EOS\|ends a sequence with <|im_end|> (id 8), config.json names id 4' err)" -eq 1
eos "[4, 8]"
expect "a list that holds it" check
truth "agrees" test ! -s err
eos "[4, 5]"
expect "a list that does not" check
truth "is told" grep -qF "config.json names id 4, 5" err
echo '{"eos_token":"<eos>"}' >base/special_tokens_map.json
eos 1
expect "two files of the tokenizer that disagree" check
truth "as transformers reads them" test "$(line "9 tokens, no BOS, EOS <eos> (1)")" -eq 1
truth "and one line says so" test "$(wc -l <err)" -eq 1 \
    -a "$(grep -c 'special_tokens_map.json has eos_token <eos>' err)" -eq 1
rm base/special_tokens_map.json
echo '{"eos_token":null,"tokenizer_class":"LlamaTokenizer","bos_token":null,"add_bos_token":true}' \
    >base/tokenizer_config.json
refuse "a BOS that is to be added and is none" "add_bos_token" check
exit $failed
