#!/usr/bin/env bash
# Which lines of the trainer the tests reach: a build of its own with gcov, the fp32 tests on it, one figure for each
# room. Takes about three times as long as the tests. ONLY=name runs the matching tests.
# usage: dev/coverage.sh        (make coverage)
set -eu
cd "$(dirname "$0")/.." || exit 1
out=build/coverage
rm -rf "$out"
mkdir -p "$out"
git ls-files | tar -cf - -T - | tar -xf - -C "$out"   # a copy: objects and counts are beside the sources they are of
cd "$out"
make --no-print-directory -s -j"$(nproc)" CPU=1 PRECISION=fp32 LDFLAGS=--coverage \
    OPT="-O1 --coverage -march=native -fno-math-errno -fno-trapping-math" test-build >/dev/null
kernel_checks=$(ls dev/kernels/*.cu | sed 's/\.cu$//')
device_tests=$(ls test_gpt2.cu dev/test/test_*.cu | sed 's/\.cu$//')
host_tests=$(ls dev/test/test_*.c | sed 's/\.c$//') scripts=$(ls dev/test/test_*.sh)
PRECISIONS=fp32 bash dev/test/run.sh cpu "$kernel_checks" "$device_tests" "$host_tests" "$scripts" | tail -1
# gcov's own summary: "File 'x'" then "Lines executed:12.34% of 567"
find build -name '*.gcda' -print0 | while IFS= read -r -d '' f; do gcov -n -o "$(dirname "$f")" "$f" 2>/dev/null; done |
    awk '/^File / { file = $2; gsub(/\x27/, "", file) }
         /^Lines executed:/ && file ~ /^(seal|seal_kernels|tokenizer|data)\/|^(train|eval)_seal/ {
             split($0, part, /[:% ]+/); share = part[3]; lines = part[5]
             if (share >= best[file]) { best[file] = share; count[file] = lines }
         }
         END {
             for (f in best) {
                 room = f; if (room !~ /\//) room = "programs"; else sub(/\/[^\/]*$/, "", room)
                 all[room] += count[f]; hit[room] += count[f] * best[f] / 100; total += count[f]
                 reached += count[f] * best[f] / 100
             }
             for (r in all) printf "%-18s %6d lines  %5.1f%%\n", r, all[r], 100 * hit[r] / all[r] | "sort"
             close("sort"); printf "%-18s %6d lines  %5.1f%%\n", "all", total, 100 * reached / total
         }'
