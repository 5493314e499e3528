#!/usr/bin/env bash
# README's table of options is what `train_seal options` prints. Without an argument the table is put into README.md; with --check it is only compared.
set -eu
cd "$(dirname "$0")/.."
program=${BUILD:-build/cpu-fp32}/train_seal
fresh=$(mktemp); trap 'rm -f "$fresh"' EXIT
"$program" options >"$fresh"
with_table() { awk -v table="$fresh" '/^<!-- end of options/ { while ((getline line < table) > 0) print line; skip = 0 } !skip { print } /^<!-- options:/ { skip = 1 }' README.md; }
if [ "${1:-}" = --check ]; then
    if with_table | cmp -s - README.md; then echo "ok README lists the options of train_seal"
    else echo "not ok README lists the options of train_seal: run dev/options.sh"; exit 1; fi
else
    with_table >README.md.new && mv README.md.new README.md
fi
