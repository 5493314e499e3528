#!/usr/bin/env bash
# Every seed of dev/fuzz, and everything that fuzzing ever found, through its target once, under ASan and UBSan.
failed=0 log=$(mktemp); trap 'rm -f "$log"' EXIT
dev/fuzz/build.sh --replay >"$log" 2>&1 || { echo "not ok the fuzz targets build: $(tail -1 "$log")"; exit 1; }
for seeds in dev/fuzz/seeds/*; do
    target=${seeds##*/} leaks=1
    case $target in rows | own_files) leaks=0 ;; esac  # see dev/fuzz/run.sh
    count=$(ls "$seeds" | wc -l)
    if ASAN_OPTIONS=detect_leaks=$leaks "build/fuzz-replay/$target" "$seeds"/* >"$log" 2>&1 &&
        [ "$(grep -c '^ok ' "$log")" -eq "$count" ]; then
        echo "ok $target: $count inputs"
    else
        echo "not ok $target: stops at input $(($(grep -c '^ok ' "$log") + 1)) of $count"
        grep -E 'MUST|ERROR|runtime error|    #[0-6] ' "$log" | head -12
        failed=1
    fi
done
exit $failed
