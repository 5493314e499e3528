#!/usr/bin/env bash
# The program tokenize: one text and many, both ways, and what it refuses.
. "$(dirname "$0")/cli.sh"
tokenize=$PWD/${BUILD:-build/cpu-fp32}/tokenize
golden=$PWD/dev/reference/golden/tokenizers
gpt2="--tokenizer $golden/gpt2_style.json.gz"
plain="--tokenizer $golden/sentence_plain.model.gz"
cd "$work" || exit 1

printf 'The cat, \0 12\n\n  \xff caf\xc3\xa9' >text
expect "a text becomes ids" "$tokenize" $gpt2 <text; cp out ids
truth "one line of numbers" grep -qxE '[0-9]+( [0-9]+)*' ids
"$tokenize" $gpt2 --decode <ids >back
truth "and comes back byte for byte" cmp text back
expect "nothing becomes nothing" "$tokenize" $gpt2 </dev/null
truth "as an empty line" test "$(cat out)" = ""
"$tokenize" $gpt2 --offsets <text >offsets
truth "the offsets belong to the same ids" test "$(sed -E 's/:[0-9]+:[0-9]+//g' offsets)" = "$(cat ids)"
truth "and tile the text" test \
    "$(tr ' ' '\n' <offsets | awk -F: '$2 != end { bad = 1 } { end = $3 } END { print bad + 0, end }')" = \
    "0 $(wc -c <text)"

printf '5:Hello,0:,3:a,b,%d:' "$(wc -c <text)" | cat - text <(printf ,) >batch
expect "many texts at once" "$tokenize" $gpt2 --batch <batch; cp out lines
truth "a line for each" test "$(wc -l <lines)" -eq 4
truth "the same ids as alone" test "$(sed -n 4p lines)" = "$(cat ids)"
"$tokenize" $gpt2 --batch --decode <lines >back
truth "and back" cmp batch back
for i in $(seq 500); do cat batch; done >large
"$tokenize" $gpt2 --batch <large >one; "$tokenize" $gpt2 --batch --threads 3 <large >three
truth "three threads print the same" cmp one three
"$tokenize" $gpt2 --batch --time <batch >out 2>err
truth "--time prints no ids" test ! -s out -a "$(cut -d' ' -f1,2 err)" = "4 texts,"

printf '<s>a</s>' >special
"$tokenize" $plain <special >out
"$tokenize" $plain --special <special >with
truth "--special reads special tokens and adds BOS" test "$(cat with)" = "1 1 $(printf a | "$tokenize" $plain) 2"
truth "without it they are text" test "$(cat out)" != "$(cat with)" -a "$("$tokenize" $plain --decode <out)" = \
    "<s>a</s>"
truth "decoding leaves them out" test "$("$tokenize" $plain --decode <with)" = a
truth "or prints them with --special" test "$("$tokenize" $plain --decode --special <with)" = "<s><s>a</s>"
truth "--help names every option" test \
    "$("$tokenize" --help | grep -cE '^  --(tokenizer|decode|special|offsets|batch|threads|time|help) ')" -eq 8

# What a directory's files hand to its template, and which template counts; each expectation is transformers' (4.57).
asked='{"messages":[{"role":"user","content":"hi"}]}' \
    tools='{"messages":[{"role":"user","content":"hi"}],"tools":[{"type":"function"}]}'
shown='{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ image_token }}|{{ additional_special_tokens }}|{{ cls_token is defined }}'
rendered() { # directory, row, rendering
    truth "$1: $3" test "$("$tokenize" --tokenizer "$1" --chat auto --render <<<"$2")" = "\"$3\""
}
config() {
    mkdir -p "$1" &&
        printf '{"tokenizer_class":"PreTrainedTokenizerFast",%s"chat_template":"%s"}\n' "$2" "${3:-$shown}" \
        >"$1/tokenizer_config.json"
}
config named '"bos_token":{"__type":"AddedToken","content":"<s>"},"eos_token":null,"pad_token":"<pad>",'
rendered named "$asked" "<s>||<pad>|||False"
config more '"extra_special_tokens":{"image_token":"<img>"},"additional_special_tokens":["<a>",{"content":"<b>"}],'
rendered more "$asked" "|||<img>|['<a>', '<b>']|False"
config map '"bos_token":"<x>",'
echo '{"bos_token":"<s>","eos_token":{"content":"</s>"},"additional_special_tokens":["<q>"]}' \
    >map/special_tokens_map.json
rendered map "$asked" "<s>|</s>|||['<q>']|False"
config decoder '"bos_token":"<s>","added_tokens_decoder":{},'
cp map/special_tokens_map.json decoder
rendered decoder "$asked" "<s>|||||False"
config files '' config
mkdir files/additional_chat_templates
printf 'TOOLS' >files/additional_chat_templates/tool_use.jinja
rendered files "$tools" TOOLS
printf 'FILE' >files/chat_template.jinja
rendered files "$asked" FILE
rendered files "$tools" TOOLS

refuse "no tokenizer" "--tokenizer is missing" "$tokenize"
refuse "a tokenizer that is not there" "/nowhere" "$tokenize" --tokenizer /nowhere
refuse "an unknown option" "--tokeniser" "$tokenize" --tokeniser x
refuse "an option without its value" "--tokenizer" "$tokenize" --tokenizer
refuse "a flag with a value" "--decode" "$tokenize" $gpt2 --decode=1
refuse "no number of threads" "--threads" "$tokenize" $gpt2 --batch --threads two
refuse "threads without a batch" "--batch" "$tokenize" $gpt2 --threads 2
refuse "offsets of ids" "--offsets" "$tokenize" $gpt2 --decode --offsets
refuse "an id out of range" "id 999999 (number 2)" "$tokenize" $gpt2 --decode <<<"5 999999"
refuse "a negative id" "id -1 (number 1)" "$tokenize" $gpt2 --decode <<<"-1"
refuse "an id that is none" "12x (number 2)" "$tokenize" $gpt2 --decode <<<"5 12x"
refuse "an id that is none, in a batch" "stdin:2: " "$tokenize" $gpt2 --decode --batch <<<"5"$'\n'"y"
refuse "a netstring without a colon" "netstring" "$tokenize" $gpt2 --batch <<<"5 Hello,"
refuse "a netstring that is too short" "netstring" "$tokenize" $gpt2 --batch <<<"50:Hello,"
zcat "$golden/gpt2_style.json.gz" | head -c 30000 >cut.json
refuse "a truncated tokenizer.json" "is not JSON" "$tokenize" --tokenizer cut.json
zcat "$golden/sentence_plain.model.gz" | head -c 5000 >cut.model
refuse "a truncated model" "cut.model" "$tokenize" --tokenizer cut.model
exit $failed
