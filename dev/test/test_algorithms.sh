#!/usr/bin/env bash
# --algorithms FILE: what was timed is kept, the next run takes it, and a file of something else is refused. The CPU's
# cuBLASLt
# proposes two algorithms that compute the same.
set -u
. "$(dirname "$0")/cli.sh"
cd "$work" || exit 1
word_tokenizer tok say a b
for i in a b "a b" "b a"; do echo "{\"prompt\":\"say $i\",\"response\":\"$i\"}"; done >tune.jsonl
"$train_seal" init --layers 1 --width 64 --heads 2 --tokenizer tok/tokenizer.json --positions 32 --out base --quiet ||
    exit 1
train() {
    local out=$1; shift
    "$train_seal" sft --model base --tune tune.jsonl --batch 2 --max-steps 2 --seed 3 --quiet --out "$out" "$@"
}
same() { cmp "$1/model/model.safetensors" "$2/model/model.safetensors"; }
expect "a run without the file" train plain
expect "a run that times" train timed --algorithms kept
truth "keeps a line per product" test "$(wc -l <kept)" -gt 8
truth "of 17 numbers" awk 'NR > 2 && NF != 17 { exit 1 }' kept
truth "for a GPU, a version and a precision" grep -qE '^CPU.*, cuBLASLt 1, (fp32|bf16)$' kept
truth "no product that adds is timed" awk 'NR > 2 && $8 != 0 { exit 1 }' kept
truth "the model is that of the run without it" same plain timed
# whichever had been faster, the file now says the second; a run that timed again would say the first somewhere
sed -i -E '3,$s/^(([0-9]+ ){9})[0-9a-f]{16}/\10000000000000001/' kept
cp kept before
expect "a run that takes them" train taken --algorithms kept
truth "times nothing again" cmp kept before
truth "and trains the same model" same timed taken
sed -i '$d' kept
expect "a run with one product more" train more --algorithms kept
truth "times that one" test "$(wc -l <kept)" -eq "$(wc -l <before)"
truth "and leaves the others" cmp <(sed '$d' kept) <(sed '$d' before)
edit() { sed "$1" before >other; }
edit '2s/^.*, cuBLASLt 1/H100, cuBLASLt 120501/'
refuse "a file of another GPU and version" "other is of H100, cuBLASLt 120501, " train x --algorithms other
edit '1s/.*/something/'
refuse "another file" "is not a file of cuBLASLt's algorithms" train x --algorithms other
edit '5s/ [^ ]*$//'
refuse "a line that is cut" "other:5: not an algorithm" train x --algorithms other
edit '4s/^[0-9]/x/'
refuse "a line that is not numbers" "other:4: not an algorithm" train x --algorithms other
edit '6s/ 0000000000000001/ 0000000000000002/'
refuse "an algorithm that there is not" "other:6: cuBLASLt refuses this algorithm" train x --algorithms other
edit '6s/^[0-9]*/99/'
refuse "an operation that there is not" "other:6: cuBLASLt refuses this algorithm" train x --algorithms other
truncate -s -5 other
refuse "a file that is cut" "other:" train x --algorithms other
refuse "a folder that is not there" "missing" train x --algorithms missing/kept
exit $failed
