#!/usr/bin/env bash
# Schedules of γ, optimizers of ω and activations on the synthetic world: AUC of ω, unsafe rows among the best 70%, rank correlation of ω with a row's last
# visit, under Algorithms 1 and 2. The arms that fail are there as well. Base models and data come from world_seeds.sh (made where they are missing);
# arms that are done are not run again.
#   dev/reproduce/world_variants.sh             writes dev/results/DATE_world_variants.md
#   SEEDS="101 102" WORLDS=out/world OUT=out/variants RESULT=FILE BUILD=build/cpu-fp32
set -eu
cd "$(dirname "$0")/../.."
SEEDS=${SEEDS:-101} WORLDS=${WORLDS:-out/world} OUT=${OUT:-out/variants} RESULT=${RESULT:-dev/results/$(date +%F)_world_variants.md} BUILD=${BUILD:-build/cpu-fp32}
# what the row is called | options beside the demo's; a later option is the row's own
arms='γ 0, +0.03 an epoch (the paper, the demo) | --gamma linear:0,0.03
γ 0, +0.01 | --gamma linear:0,0.01
γ 0, +0.1 ("faster") | --gamma linear:0,0.1
γ fixed 0.1 | --gamma fixed:0.1
γ fixed 0.5 | --gamma fixed:0.5
1 epoch (γ 0 throughout) | --epochs 1
2 epochs | --epochs 2
4 epochs | --epochs 4
ω by SGD, lr 10 | --selector-optimizer sgd --selector-lr 10
ω by centred SGD, lr 10 | --selector-optimizer centred --selector-lr 10
ω by the mean over visits, lr 10 | --selector-optimizer mean --selector-lr 10
sigmoid, Adam | --activation sigmoid
sigmoid, SGD, lr 10 | --activation sigmoid --selector-optimizer sgd --selector-lr 10'
if [ ! -x "$BUILD/world" ]; then make deps && make --no-print-directory -j"$(nproc)" CPU=1 PRECISION=fp32 BUILD="$BUILD" all; fi

total=$(($(wc -l <<<"$arms") * 2 * $(wc -w <<<"$SEEDS"))) n=0
run_arm() {  # seed, number of the arm, algorithm, options
    local dir=$OUT/$1/$2-$3 world=$WORLDS/$1 settings
    n=$((n + 1))
    [ -s "$dir/auc.json" ] && return
    echo "[$n/$total] seed $1, Algorithm $3: $4"
    settings="--gamma linear:0,0.03 --epochs 3 --selector-lr 5e-3"
    for option in $(grep -o -- '--[a-z-]*' <<<"$4"); do settings=$(sed "s|$option [^ ]*||" <<<"$settings"); done
    rm -rf "$dir"
    "$BUILD/train_seal" selector --model "$world/base" --safe "$world/safe.jsonl" --tune "$world/tune.jsonl" --algorithm "$3" --lr 1e-3 --batch 16 --tokens 512 --seed "$1" \
        $settings $4 --out "$dir" >/dev/null
    "$BUILD/world" auc --selector "$dir/selector.safetensors" --labels "$world/tune.labels.jsonl" --top 0.7 >"$dir/auc.json.new"
    mv "$dir/auc.json.new" "$dir/auc.json"
}
for seed in $SEEDS; do
    [ -s "$WORLDS/$seed/base/model.safetensors" ] || SEED=$seed OUT=$WORLDS/$seed BUILD=$BUILD METHODS= SELECT_ONLY=1 data/demo.sh
    arm=0
    while IFS='|' read -r _ options; do
        arm=$((arm + 1))
        for algorithm in 2 1; do run_arm "$seed" $arm $algorithm "$options" </dev/null; done
    done <<<"$arms"
done

cell() {  # arm, algorithm: three figures, the mean over the seeds
    for seed in $SEEDS; do
        tr -d '\t\n' <"$OUT/$seed/$1-$2/auc.json" | sed -E 's/.*"auc":([0-9.]+).*"unsafe_kept":([0-9]+),"spearman_last_visit":(-?[0-9.e-]+|null).*/\1 \2 \3/'
    done | awk '{ a += $1; k += $2; s += $3 } END { printf " %.3f / %.0f / %+.2f |", a / NR, k / NR, s / NR }'
}
{
    echo "# Schedules, optimizers and activations on the synthetic world, seeds $SEEDS"
    echo
    echo "\`dev/reproduce/world_variants.sh\`, $(date +%F), $(git describe --always --dirty 2>/dev/null || echo unversioned). AUC of ω / unsafe rows among the best 70% (of 1280) /"
    echo "rank correlation of ω with the step that drew the row last. Everything else as in data/world_settings.sh."
    echo
    echo "| variant | Algorithm 2 | Algorithm 1 |"
    echo "|---|---|---|"
    arm=0
    while IFS='|' read -r name _; do
        arm=$((arm + 1))
        echo "| $name|$(cell $arm 2)$(cell $arm 1)"
    done <<<"$arms"
} >"$RESULT.new"
mv "$RESULT.new" "$RESULT"
cat "$RESULT"
