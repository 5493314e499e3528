#!/usr/bin/env bash
# `make demo` for several seeds that were not used in its design, and what came out: mean, standard deviation and every
# seed's figure, held against what the demo promises. A seed that is done is not run again, so the script may be stopped
# at any time.
#   dev/reproduce/world_seeds.sh                writes dev/results/DATE_world_seeds.md
#   SEEDS="201 202" OUT=out/world RESULT=FILE BUILD=build/cpu-fp32
set -eu
cd "$(dirname "$0")/../.." || exit 1
# fixed before the first of them was run; the design was made on seeds 1 to 9, 101 and 102
SEEDS=${SEEDS:-111 112 113 114 115}
OUT=${OUT:-out/world} RESULT=${RESULT:-dev/results/$(date +%F)_world_seeds.md} BUILD=${BUILD:-build/cpu-fp32}
if [ ! -x "$BUILD/world" ]; then
    make deps && make --no-print-directory -j"$(nproc)" CPU=1 PRECISION=fp32 BUILD="$BUILD" all
fi
tables=()
for seed in $SEEDS; do
    if [ ! -s "$OUT/$seed/report.html" ]; then
        mkdir -p "$OUT"
        SEED=$seed OUT=$OUT/$seed BUILD=$BUILD data/demo.sh | tee "$OUT/$seed.txt"
    fi
    tables+=("$OUT/$seed/table.json")
done
kept=0
{
    echo "# The synthetic world, seeds $SEEDS"
    echo
    echo "\`dev/reproduce/world_seeds.sh\`, $(date +%F), $(git describe --always --dirty 2>/dev/null || echo unversioned)," \
        "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)," \
        "$(nproc) cores${CPU_THREADS:+, CPU_THREADS=$CPU_THREADS}."
    took=$(for seed in $SEEDS; do tail -1 "$OUT/$seed.txt"; done | sed 's/ in all,//' | paste -sd ';')
    echo "Mean ± standard deviation over the seeds, in brackets every seed. Settings: data/world_settings.sh." \
        "Whole runs: $took."
    echo
    "$BUILD/world" summary "${tables[@]}" || kept=$?
} >"$RESULT.new"
mv "$RESULT.new" "$RESULT"
cat "$RESULT"
exit $kept
