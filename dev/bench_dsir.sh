#!/usr/bin/env bash
# Time of DSIR at the paper's size: 112,000 rows of some 250 words (SlimOrca's order) against as many. Words are drawn
# by Zipf's law from 200,000.
# usage: dev/bench_dsir.sh [ROWS]
set -eu
rows=${1:-112000} train_seal=${BUILD:-build/cpu-fp32}/train_seal
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
make_rows() {  # FILE SEED
    awk -v n="$rows" -v seed="$2" "$(<dev/draw.awk)"'
        BEGIN { draw_from(seed)
        for (i = 0; i < n; i++) { line = ""; words = 100 + int(draw() * 300)
            for (w = 0; w < words; w++) {
                x = int(exp(draw() * 12.2))
                line = line sprintf("%s%c%x%c%s", w ? " " : "", 97 + x % 26, x, 97 + x % 23, draw() < 0.1 ? "." : "") }
            at = index(substr(line, 200), " ") + 199
            print "{\"prompt\":\"" substr(line, 1, at) "\",\"response\":\"" substr(line, at + 1) "\"}" } }' >"$1"
}
make_rows "$work/tune.jsonl" 1
make_rows "$work/safe.jsonl" 2
words=$(tr ' ' '\n' <"$work/tune.jsonl" | wc -l)
echo "$rows rows, $(du -m "$work/tune.jsonl" | cut -f1) MiB, $words words; target the same; $(nproc) cores"
TIMEFORMAT='%R s, %U s of processor time in user mode, %S s in the system'
for run in 1 2 3; do
    time "$train_seal" select --method dsir --tune "$work/tune.jsonl" --target "$work/safe.jsonl" --top 0.8 \
        --out "$work/kept.jsonl" --quiet
    echo "    load $(cut -d' ' -f1 /proc/loadavg)"
done
