#!/usr/bin/env bash
# SEAL on real text at a size that two CPU cores can carry: a small base model made from instruction data and safe answers, D_tune with a fifth of unsafe rows
# whose labels nobody tells the trainer, D_safe and held-out sets from other rows (real_small.recipe). For each method: AUC of its scores against the labels, the
# unsafe rows among the best TOP, held-out losses after fine-tuning on what it kept, time and memory.
#   dev/reproduce/real_small.sh            DATA=../shared/data OUT=out/real SEED=1 TOP=0.8 METHODS="…" BUILD=build/cpu-fp32
# Its tokenizer is trained on the base model's texts (PYTHON=venv/bin/python, dev/reference/README.md): at this size GPT-2's vocabulary would be nine tenths of the
# model. TOKENIZER=DIR takes one that is there instead.
# It resumes: every step that is whole is skipped, a run that was cut resumes from its checkpoint. Under 1 GB of memory; an hour or so on two cores.
# On a GPU, at full width: TOKENIZER=DIR_OF_GPT2 BUILD=build/cuda-bf16 ROWS=all MODEL="--layers 12 --width 768 --heads 12 --positions 1024" RUN="--batch 64 --tokens auto".
set -eu
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build/cpu-fp32} DATA=${DATA:-../shared/data} OUT=${OUT:-out/real} SEED=${SEED:-1} TOP=${TOP:-0.8} ROWS=${ROWS:-}
: "${METHODS:=standard random safe-loss seal-2 seal-1 seal-2-sgd seal-2-centred seal-2-mean}"
: "${MODEL:=--layers 4 --width 128 --heads 4 --positions 256}"
: "${RUN:=--batch 32 --tokens 2048}"
: "${BASE:=--lr 2e-3 --schedule linear --warmup 50 --epochs 4}"
: "${SELECTOR:=--lr 5e-4 --gamma linear:0,0.03 --epochs 3}"
: "${SCORER:=--lr 5e-4 --epochs 2}"
: "${SFT:=--lr 1e-3 --schedule linear --warmup 20 --epochs 2}"
# learning rates of ω: Adam moves every logit by about lr a step; the others are proportional to Δ
declare -A omega=([adam]=5e-3 [sgd]=10 [centred]=10 [mean]=1)
for p in train_seal eval_seal mix world; do [ -x "$BUILD/$p" ] || { echo "real_small: $BUILD/$p is missing; make first" >&2; exit 2; }; done
[ -d "$DATA/hh" ] || { echo "real_small: $DATA holds no hh/; set DATA to the folder of data files" >&2; exit 2; }

began=$SECONDS
step() { printf '[%d:%02d] %s\n' $(((SECONDS - began) / 60)) $(((SECONDS - began) % 60)) "$*"; }
train() {  # RUN, command and its options: skipped where the run is whole
    local out=$1; shift
    [ -e "$out/summary.json" ] && return
    step "$out"
    mkdir -p "$out"
    "$BUILD/train_seal" "$@" $RUN --seed "$SEED" --save-every 50 --resume --out "$out" >>"$out/stdout.txt" 2>>"$out/stderr.txt" || { tail -1 "$out/stderr.txt" >&2; exit 1; }
}
heldout() {  # RUN: losses on the three held-out sets
    local set
    for set in safe benign unsafe; do
        [ -e "$1/loss_$set.json" ] && continue
        "$BUILD/eval_seal" loss --model "$1/model" --data "$OUT/data/valid_$set.jsonl" --json --quiet >"$1/loss.tmp" && mv "$1/loss.tmp" "$1/loss_$set.json"
    done
}
keep() {  # METHOD options of select…: scores, the best rows, figures against the labels, fine-tuning, held-out losses
    local run=$OUT/$1; shift
    mkdir -p "$run"
    if [ ! -e "$run/auc.json" ]; then
        "$BUILD/train_seal" select --tune "$OUT/data/tune.jsonl" --top "$TOP" --seed "$SEED" --out "$run/kept.jsonl" --scores "$run/selector.safetensors" "$@" >>"$run/stdout.txt"
        "$BUILD/world" auc --selector "$run/selector.safetensors" --labels "$OUT/data/tune.labels.jsonl" --top "$TOP" >"$run/auc.tmp" && mv "$run/auc.tmp" "$run/auc.json"
    fi
    train "$run/sft" sft --model "$OUT/base/model" --tune "$run/kept.jsonl" $SFT
    heldout "$run/sft"
}

if [ ! -e "$OUT/data/tune.jsonl" ]; then
    mkdir -p "$OUT"
    if [ -n "$ROWS" ]; then sed 's/ most=[0-9]*//' dev/reproduce/real_small.recipe >"$OUT/recipe"; else cp dev/reproduce/real_small.recipe "$OUT/recipe"; fi
    "$BUILD/mix" build --recipe "$OUT/recipe" --from "$DATA" --out "$OUT/data" --seed "$SEED"
fi
if [ ! -e "$OUT/init/config.json" ]; then
    if [ -z "${TOKENIZER:-}" ]; then
        "${PYTHON:-python3}" dev/reference/train_tokenizer.py --vocab 4096 --out "$OUT/tokenizer" "$OUT/data/base.jsonl"
        TOKENIZER=$OUT/tokenizer
    fi
    "$BUILD/train_seal" init --family gpt2 $MODEL --tokenizer "$TOKENIZER" --seed "$SEED" --out "$OUT/init" --quiet
fi
train "$OUT/base" sft --model "$OUT/init" --tune "$OUT/data/base.jsonl" --valid "$OUT/data/valid_benign.jsonl" $BASE
heldout "$OUT/base"
for method in $METHODS; do
    run=$OUT/$method
    case $method in
        standard) train "$run/sft" sft --model "$OUT/base/model" --tune "$OUT/data/tune.jsonl" $SFT; heldout "$run/sft" ;;
        random) keep random --method random ;;
        safe-loss)
            train "$run/scorer" sft --model "$OUT/base/model" --tune "$OUT/data/safe.jsonl" $SCORER
            keep safe-loss --method safe-loss --model "$run/scorer/model" ;;
        seal-[12]*)
            IFS=- read -r _ algorithm optimizer <<<"$method"
            train "$run/selector" selector --model "$OUT/base/model" --safe "$OUT/data/safe.jsonl" --tune "$OUT/data/tune.jsonl" --algorithm "$algorithm" \
                --selector-optimizer "${optimizer:=adam}" --selector-lr "${omega[$optimizer]}" $SELECTOR
            keep "$method" --method seal --selector "$run/selector/selector.safetensors" ;;
        *) echo "real_small: unknown method $method" >&2; exit 2 ;;
    esac
done

# ---- the table
field() { sed -n "s/.*\"$1\":[[:space:]]*\([-0-9.e+]*\).*/\1/p" "$2" 2>/dev/null | head -1; }
number() { [ -n "${2:-}" ] && printf "$1" "$2" || printf '–'; }
row() {  # METHOD RUN SFT SELECTOR
    local name=$1 run=$2 sft=$3 selector=$4
    printf '| %s | %s | %s | %s | %s | %s | %s | %s |\n' "$name" "$(number %.3f "$(field auc "$run/auc.json")")" "$(number %.0f "$(field unsafe_kept "$run/auc.json")")" \
        "$(number %.3f "$(field loss "$sft/loss_safe.json")")" "$(number %.3f "$(field loss "$sft/loss_benign.json")")" "$(number %.3f "$(field loss "$sft/loss_unsafe.json")")" \
        "$(number %.0f "$(field wall_s "$selector/summary.json")")" "$(number %.0f "$(($(field peak_bytes "$selector/summary.json") / 1048576))")"
}
{
    echo "| method | AUC | unsafe kept of $(field unsafe "$OUT"/random/auc.json) | loss on held-out safe | benign | unsafe | scoring, s | MiB |"
    echo "|---|---|---|---|---|---|---|---|"
    row "base model" "$OUT/none" "$OUT/base" "$OUT/base"
    for method in $METHODS; do
        case $method in standard | random) selector=$OUT/$method/sft ;; safe-loss) selector=$OUT/$method/scorer ;; *) selector=$OUT/$method/selector ;; esac
        row "$method" "$OUT/$method" "$OUT/$method/sft" "$selector"
    done
} | tee "$OUT/results.md"
