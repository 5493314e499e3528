#!/usr/bin/env bash
# The tables of docs/options.md are what `train_seal options` and `eval_seal options` print. Without an argument the
# tables are put into the page; with --check they are only compared with it.
set -eu
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build/cpu-fp32}
page=docs/options.md
with_tables() {
    awk -v build="$build" '
        /^<!-- end of options/ { while ((command | getline line) > 0) print line; close(command); skip = 0 }
        !skip { print }
        /^<!-- options:/ {
            split($0, part, "`"); split(part[2], word, " "); command = build "/" word[1] " options"; skip = 1 }' "$page"
}
if [ "${1:-}" = --check ]; then
    if with_tables | cmp -s - "$page"; then echo "ok $page lists the options of train_seal and eval_seal"
    else echo "not ok $page lists the options of train_seal and eval_seal: run dev/options.sh"; exit 1; fi
else
    with_tables >"$page.new" && mv "$page.new" "$page"
fi
