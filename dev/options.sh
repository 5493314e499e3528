#!/usr/bin/env bash
# README's tables of options are what `train_seal options` and `eval_seal options` print. Without an argument the tables are put into README.md; with --check
# they are only compared.
set -eu
cd "$(dirname "$0")/.."
build=${BUILD:-build/cpu-fp32}
with_tables() {
    awk -v build="$build" '/^<!-- end of options/ { while ((command | getline line) > 0) print line; close(command); skip = 0 }
                           !skip { print }
                           /^<!-- options:/ { split($0, part, "`"); split(part[2], word, " "); command = build "/" word[1] " options"; skip = 1 }' README.md
}
if [ "${1:-}" = --check ]; then
    if with_tables | cmp -s - README.md; then echo "ok README lists the options of train_seal and eval_seal"
    else echo "not ok README lists the options of train_seal and eval_seal: run dev/options.sh"; exit 1; fi
else
    with_tables >README.md.new && mv README.md.new README.md
fi
