#!/usr/bin/env bash
# What other programs and slips of the hand do to a user's files: pipes where files are expected, a file made shorter
# while it is read, results named like what they are made from, a full stdout. One line and status 2 each, nothing
# waited for, nothing lost. (Bytes that are wrong are the fuzzers', dev/fuzz.)
set -u
. "$(dirname "$0")/cli.sh"
bin=$(dirname "$train_seal")
eval_seal=$bin/eval_seal world=$bin/world mix=$bin/mix
cd "$work" || exit 1
word_tokenizer tok say a b c d e f
for i in $(seq 24); do
    echo "{\"prompt\":\"say a $(printf '%*s' $((i % 4 + 1)) '' | sed 's/ / b/g')\",\"response\":\"c d\"}"
done >tune.jsonl
"$train_seal" init --layers 1 --width 64 --heads 2 --tokenizer tok/tokenizer.json --positions 32 --out base --quiet
sft=("$train_seal" sft --tune tune.jsonl --batch 8 --tokens 64 --max-steps 2 --quiet)
select=("$train_seal" select --method random --tune tune.jsonl --top 0.5 --quiet)
kept() { sha256sum "$@" >was; }
unharmed() { truth "$1 is as it was" sha256sum --quiet -c was; }

# pipes, which nobody writes to
mkfifo pipe pipe.jsonl
cp -r base piped && rm piped/config.json && mkfifo piped/config.json
refuse "a pipe for a config" "piped/config.json: not a regular file" timeout 20 "${sft[@]}" --model piped --out x
rm piped/config.json && cp base/config.json piped/ && rm piped/model.safetensors && mkfifo piped/model.safetensors
refuse "a pipe for a model" "not a regular file" timeout 20 "${sft[@]}" --model piped --out x
refuse "a pipe for rows" "pipe.jsonl: not a regular file" timeout 20 "${sft[@]}" --model base --tune pipe.jsonl --out x
refuse "a pipe for a recipe" "pipe: not a regular file" timeout 20 "$mix" build --recipe pipe --out x
refuse "a pipe for a selector" "not a regular file" timeout 20 "$train_seal" select --tune tune.jsonl --selector pipe \
    --out x.jsonl
mkfifo answers.json.partial
refuse "a pipe for a journal" "answers.json.partial: not a regular file" timeout 20 "$eval_seal" generate --model base \
    --prompts tune.jsonl --greedy --out answers.json --resume --quiet
expect "a run with checkpoints" "${sft[@]}" --model base --save-every 1 --out run
rm run/summary.json run/checkpoint/step-2/rank-0.sha256 && mkfifo run/checkpoint/step-2/rank-0.sha256
expect "a pipe in a checkpoint" timeout 20 "${sft[@]}" --model base --save-every 1 --out run --resume
rm -rf run

# results that would take the place of what they are made from
kept tune.jsonl tok/tokenizer.json
refuse "a selection over its data" "it would be overwritten" "${select[@]}" --out tune.jsonl
refuse "scores over the data" "it would be overwritten" "${select[@]}" --scores tune.jsonl --out x.jsonl
cp tune.jsonl target.jsonl; kept tune.jsonl target.jsonl
refuse "scores over a target" "target.jsonl is target.jsonl, which this command reads" "$train_seal" select \
    --method dsir --tune tune.jsonl --target target.jsonl --scores target.jsonl --out x.jsonl
refuse "scores and rows in one file" "x.jsonl is both --out and --scores" "${select[@]}" --scores x.jsonl --out x.jsonl
refuse "by another name too" "is both --out and --scores" "${select[@]}" --scores ./x.jsonl --out x.jsonl
refuse "answers over the prompts" "it would be overwritten" "$eval_seal" generate --model base --prompts target.jsonl \
    --greedy --out target.jsonl --quiet
refuse "answers in a folder, before they are made" "base is a directory" "$eval_seal" generate --model base \
    --prompts target.jsonl --greedy --out base --quiet
refuse "answers where there is no folder, likewise" "nowhere/x.json" "$eval_seal" generate --model base \
    --prompts target.jsonl --greedy --out nowhere/x.json --quiet
echo '{question} {output_1} {output_2}' >judge.txt
echo '[{"instruction":"say a b","output":"b"}]' >o.json; kept judge.txt o.json
refuse "a judgement over its template" "judge.txt is judge.txt" "$eval_seal" judge --judge base --outputs o.json \
    --baseline o.json --judge-template judge.txt --out judge.txt --quiet
unharmed "the template"
expect "a run" "${sft[@]}" --model base --out run
mkdir run2 && cp -r base run2/model
kept run/model/model.safetensors run/log.jsonl run/summary.json
refuse "a model trained in its own place" "run/model is run/model, which this command reads" "${sft[@]}" \
    --model run/model --out run
refuse "by another name too" "which this command reads" "${sft[@]}" --model ./run/../run/model --out run
refuse "with --resume too, where there is no checkpoint" "which this command reads" "${sft[@]}" --model run2/model \
    --out run2 --resume
refuse "a run of a model that is not there, in an old run's place" "typo" "${sft[@]}" --model typo --out run
cp -r base short && truncate -s 50000 short/model.safetensors
refuse "one of a model that is damaged" "truncated" "${sft[@]}" --model short --out run
refuse "a report over the log" "run/log.jsonl" "$eval_seal" report run --out run/log.jsonl --quiet
refuse "a new model over a trained one" "run/model/model.safetensors: a model exists there already" "$train_seal" init \
    --layers 1 --width 64 --heads 2 --tokenizer tok/tokenizer.json --out run/model --quiet
unharmed "the run"
"${sft[@]}" --model base --out run 2>err; status=$?
truth "a run in an old one's place says so (status $status)" grep -q "held a run that had ended; this run replaces it" \
    err
expect "an adapter" "${sft[@]}" --model base --lora q,v --lora-rank 4 --out lora
refuse "an adapter trained in its own place" "lora/adapter is lora/adapter, which this command reads" "${sft[@]}" \
    --model base --adapter lora/adapter --out lora
mkdir method && echo '{"refusal":1}' >method/scores.json && kept method/scores.json
refuse "a table over its scores" "it would be overwritten" "$world" table method --out method/scores.json
unharmed "the scores"

# mixes
echo "tune new all tune.jsonl" >recipe; kept tune.jsonl
refuse "a mix over its source" "tune.jsonl, which this command reads" "$mix" build --recipe recipe --out . --quiet
unharmed "the source"
long=$(printf 'r%.0s' $(seq 64))
printf '%s1 new all tune.jsonl\n%s2 new all tune.jsonl\n' "$long" "$long" >recipe
refuse "roles that would share a name" "at most 63 characters" "$mix" build --recipe recipe --out mixed --quiet
echo "../escaped new all tune.jsonl" >recipe
refuse "a role outside the folder" "without /" "$mix" build --recipe recipe --out mixed --quiet
echo "tune.labels new all tune.jsonl" >recipe
refuse "a role that would be another's labels" "without .labels" "$mix" build --recipe recipe --out mixed --quiet
echo "tune new all tune.jsonl rows=0/4294967298" >recipe
refuse "a remainder beyond the integers" "expected a whole number from 1 to 2147483647" "$mix" build --recipe recipe \
    --out mixed --quiet

# temporary files of processes that are gone are removed, others are not
sleep 100 & other=$!
mkdir clean && touch clean/notes.tmp.2024 clean/a.seal.tmp.$other clean/b.seal.tmp.4194304 clean/c.seal.tmp.x
expect "a run among temporary files" "${sft[@]}" --model base --out clean
truth "removes those of processes that are gone, and no other" bash -c \
    "cd clean && test -e notes.tmp.2024 -a -e a.seal.tmp.$other -a ! -e b.seal.tmp.4194304 -a -e c.seal.tmp.x"
kill $other

# a stdout that takes nothing
printf '[%s]' '{"preference":1},{"preference":2}' >annotations.json
expect "a win rate" "$eval_seal" winrate annotations.json
for command in "$eval_seal winrate annotations.json" "$train_seal check --model base --tune tune.jsonl" \
    "$train_seal options" "$world table method" "$train_seal --help" "$train_seal sft --help" \
    "$train_seal sft --dry-run --model base --tune tune.jsonl --out x"; do
    $command >/dev/full 2>err; status=$?
    truth "${command#"$bin/"} on a full disk (status $status)" test $status -eq 2 \
        -a "$(grep -c 'standard output cannot be written' err)" -eq 1
done
truth "a reader that has seen enough is no error" bash -c "set -o pipefail; '$train_seal' options | head -1"
exit $failed
