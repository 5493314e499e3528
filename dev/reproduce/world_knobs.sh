#!/usr/bin/env bash
# Worlds in which rivals differ: a useful family that nobody can foretell (`any`: any three letters are right; in D_safe too), and one that is absent from
# D_safe and unknown to the base (`age`). What share of each does a selection of the best 70% keep, and how does the AUC move, by Algorithms 1 and 2 and by
# safe-loss? No fine-tuning, so a seed takes about half of the demo's time. Seeds that are done are not run again.
#   dev/reproduce/world_knobs.sh                writes dev/results/DATE_world_knobs.md
#   SEEDS="101 102 103" OUT=out/knobs RESULT=FILE BUILD=build/cpu-fp32
set -eu
cd "$(dirname "$0")/../.."
SEEDS=${SEEDS:-101 102 103} OUT=${OUT:-out/knobs} RESULT=${RESULT:-dev/results/$(date +%F)_world_knobs.md} BUILD=${BUILD:-build/cpu-fp32}
if [ ! -x "$BUILD/world" ]; then make deps && make --no-print-directory -j"$(nproc)" CPU=1 PRECISION=fp32 BUILD="$BUILD" all; fi
for seed in $SEEDS; do
    mkdir -p "$OUT"
    if [ ! -s "$OUT/$seed/seal-1/auc.json" ]; then
        SEED=$seed OUT=$OUT/$seed BUILD=$BUILD KNOBS="--entropy-family on --absent-family on" METHODS="safe-loss seal-2 seal-1" SELECT_ONLY=1 data/demo.sh
    fi
done

# figure NAME METHOD: the figure of every seed from auc.json
figure() { for seed in $SEEDS; do sed -n "/\"$1\"/,/}/p" "$OUT/$seed/$2/auc.json" | sed -n "s/.*\"$3\":[^0-9]*\([0-9.]*\).*/\1/p" | head -1; done; }
stats() { awk '{ s += $1; q += $1 * $1; n++ } END { m = s / n; v = n > 1 ? (q - n * m * m) / (n - 1) : 0; printf f " ± " f, m, sqrt(v > 0 ? v : 0) }' f="$1"; }
share() { paste <(figure "$1" "$2" kept) <(figure "$1" "$2" rows) | awk '{ print 100 * $1 / $2 }' | stats %.0f; }
{
    echo "# Worlds in which rivals differ, seeds $SEEDS"
    echo
    echo "\`dev/reproduce/world_knobs.sh\`, $(date +%F), $(git describe --always --dirty 2>/dev/null || echo unversioned). The best 70% of D_tune are kept; mean ± standard deviation over the seeds."
    echo
    echo "| method | AUC | unsafe rows kept | of \`any\` (entropy, in D_safe) kept, % | of \`age\` (absent from D_safe) kept, % |"
    echo "|---|---:|---:|---:|---:|"
    for m in safe-loss seal-2 seal-1; do
        echo "| $m | $(figure auc $m auc | stats %.3f) | $(figure unsafe_kept $m unsafe_kept | stats %.0f) | $(share any $m) | $(share age $m) |"
    done
} >"$RESULT.new"
mv "$RESULT.new" "$RESULT"
cat "$RESULT"
