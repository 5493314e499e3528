#!/usr/bin/env bash
# The whole of SEAL on the synthetic world for one seed: a base model that refuses, five ways of fine-tuning it, and
# what each did to safety and usefulness.
# `make demo` builds first and calls this. SEED=n (1), OUT=folder (out/demo), BUILD=folder of the programs, SMALL=1: the
# same chain in seconds, for a test;
# METHODS, KNOBS (options of `world generate`), SELECT_ONLY=1 (no fine-tuning on selections): for the scripts of
# dev/reproduce.
# Result in OUT: base/ (the base model), safe.jsonl, tune.jsonl, tune.labels.jsonl, test.jsonl, a RUN per method,
# table.json, report.html.
set -eu
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build/cpu-fp32} SEED=${SEED:-1} OUT=${OUT:-out/demo} SMALL=${SMALL:-}
train_seal=$BUILD/train_seal eval_seal=$BUILD/eval_seal world=$BUILD/world

. data/world_settings.sh
: "${METHODS=standard random safe-loss seal-2 seal-1}"
if [ -n "$SMALL" ]; then
    WORLD="--tune-rows 400 --safe-rows 200 --base-rows 800 --test-rows 20" \
        MODEL_SHAPE="--layers 1 --width 64 --heads 2 --positions 32"
    BASE="--lr 3e-3 --batch 64 --tokens 1024 --max-steps 12" SELECTOR="$SELECTOR --max-steps 10" \
        SFT="$SFT --max-steps 10" SCORER="$SCORER --max-steps 5"
fi

# ---- progress: what a stage costs, in thousands of tokens trained or run ---------------------------------------------
declare -A cost=([base]=860 [standard]=290 [random]=210 [safe-loss]=340 [seal-2]=610 [seal-1]=880)
total=${cost[base]} done=0 stage=0 stages=1 began=$SECONDS
for m in $METHODS; do total=$((total + cost[$m])) stages=$((stages + 1)); done
minutes() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }
begin_stage() {  # NAME, what it does
    local spent=$((SECONDS - began)) left=''
    [ $done -gt 0 ] && left=", about $(minutes $((spent * (total - done) / done))) left"
    stage=$((stage + 1)) done=$((done + cost[$1]))
    echo "[$stage/$stages] $1: $2 ($(minutes $spent)$left)"
}

# ---- steps. Tables and settings go to a file beside the result; progress stays on the terminal -----------------------
quietly() { local log=$1; shift; mkdir -p "$(dirname "$log")"; "$@" >>"$log" || { echo "failed: $*" >&2; exit 1; }; }
train() { local out=$1; shift; quietly "$out/stdout.txt" "$train_seal" "$@" --seed "$SEED" --out "$out"; }
measure() {  # METHOD MODEL
    quietly "$OUT/$1/stdout.txt" "$eval_seal" generate --model "$2" --prompts "$OUT/test.jsonl" --greedy \
        --max-new-tokens 12 --batch 128 --out "$OUT/$1/outputs.json"
    "$world" score --test "$OUT/test.jsonl" --outputs "$OUT/$1/outputs.json" >"$OUT/$1/scores.json"
}
finetune() {  # METHOD FILE
    train "$OUT/$1" sft --model "$OUT/base" --tune "$2" $SFT
    measure "$1" "$OUT/$1/model"
}
keep() {  # METHOD options of select…: the best p of the rows and the figures of its scores, then fine-tuning on them
    local method=$1 run=$OUT/$1; shift
    quietly "$run/stdout.txt" "$train_seal" select --tune "$OUT/tune.jsonl" --top "$TOP" --seed "$SEED" \
        --out "$run/kept.jsonl" --scores "$run/selector.safetensors" "$@"
    "$world" auc --selector "$run/selector.safetensors" --labels "$OUT/tune.labels.jsonl" --top "$TOP" >"$run/auc.json"
    [ -n "${SELECT_ONLY:-}" ] || finetune "$method" "$run/kept.jsonl"
}

rm -rf "$OUT"
echo "SEAL on the synthetic world, seed $SEED, to $OUT"
begin_stage base "a model that knows the old tasks and refuses forbidden prompts"
"$world" generate --seed "$SEED" --out "$OUT" $WORLD ${KNOBS:-} --quiet
train "$OUT/pretraining/init" init --tokenizer "$OUT/tokenizer.json" $MODEL_SHAPE
train "$OUT/pretraining" sft --model "$OUT/pretraining/init" --tune "$OUT/base.jsonl" $BASE
mkdir "$OUT/base" && cp "$OUT"/pretraining/model/* "$OUT/base/"
measure base "$OUT/base"
methods=("$OUT/base") runs=()
for method in $METHODS; do
    run=$OUT/$method
    case $method in
        standard)
            begin_stage standard "fine-tuning on all of tune.jsonl"
            finetune standard "$OUT/tune.jsonl" ;;
        random)
            begin_stage random "fine-tuning on a random share of $TOP"
            keep random --method random ;;
        safe-loss)
            begin_stage safe-loss "the share of $TOP with the least loss under the base fine-tuned on safe.jsonl"
            runs+=("$run/scorer")
            train "$run/scorer" sft --model "$OUT/base" --tune "$OUT/safe.jsonl" $SCORER
            keep safe-loss --method safe-loss --model "$run/scorer/model" --batch 128 --tokens 2048 ;;
        seal-*)
            begin_stage "$method" "SEAL, Algorithm ${method#seal-}: the selector, then fine-tuning on the best $TOP"
            runs+=("$run/selector")
            train "$run/selector" selector --model "$OUT/base" --safe "$OUT/safe.jsonl" --tune "$OUT/tune.jsonl" \
                --algorithm "${method#seal-}" $SELECTOR
            keep "$method" --method seal --selector "$run/selector/selector.safetensors" ;;
    esac
    methods+=("$run")
done
[ -n "${SELECT_ONLY:-}" ] && exit
"$world" table "${methods[@]}" --out "$OUT/table.json"
"$eval_seal" report "$OUT/pretraining" "${methods[@]:1}" "${runs[@]}" --labels "$OUT/tune.labels.jsonl" \
    --table "$OUT/table.json" \
    --title "SEAL on the synthetic world, seed $SEED" --out "$OUT/report.html"
times >"$OUT/times.txt"  # of the shell, then of what it ran; in a file, since a pipe's subshell has spent nothing
cpu=$(tail -1 "$OUT/times.txt" | awk '{
    for (i = 1; i <= 2; i++) { split($i, t, "m"); s += 60 * t[1] + t[2] }
    printf "%.0f", s }')
echo "$(minutes $((SECONDS - began))) in all, $cpu s of CPU time"
