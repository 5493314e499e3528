#!/usr/bin/env bash
# docs/reading.md: the lines of the files it names, and the output of seal_reference that it quotes.
# usage: reading.sh --write    puts both into the page
#        reading.sh --check    TAP: lines within a tenth of the truth (they need no commit of their own), quotations
#                              exactly
set -eu
cd "$(dirname "$0")/.." || exit 1
page=docs/reading.md mode=${1:-}
[ "$mode" = --write ] || [ "$mode" = --check ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
gcc -O2 dev/reference/seal_reference.c -lm -o "$work/seal_reference"

# The page as it should be: a file's lines in its row, their sum in the last, and after each line that runs
# seal_reference what that prints.
awk -v work="$work" '
    function lines(file,   n, line) { n = 0; while ((getline line < file) > 0) n++; close(file); return n }
    quoting && /^    / { next }
    { quoting = 0 }
    /^\| [0-9]+ \| \[/ {
        file = $0; sub(/^[^[]*\[/, "", file); sub(/\].*/, "", file)
        n = lines(file); sum += n
        if (n == 0) { print "reading.sh: no file " file > "/dev/stderr"; exit 1 }
        split($0, cell, " \\| "); sub(/^\| */, "", cell[1])
        print "| " cell[1] " | " cell[2] " | " n " | " cell[4]; next
    }
    /^\| \| together/ { print "| | together | " sum " | |"; next }
    { print }
    /^    \.\/seal_reference/ {
        command = $0; sub(/^ *\.\//, work "/", command)
        while ((command | getline line) > 0) print "    " line
        close(command); quoting = 1
    }' "$page" >"$work/page"

if [ "$mode" = --write ]; then cp "$work/page" "$page"; exit 0; fi

status=0
# TAP for each number of the page against the truth, then for the rest of the text
numbers() { sed -nE 's/^\| [0-9]* ?\| (\[([^]]*)\]\([^)]*\)|together) \| ([0-9]+) \|.*/\2 \3/p' "$1"; }
while read -r file said; do
    truth=$(numbers "$work/page" | awk -v f="$file" '$1 == f { print $2 }')
    [ -n "$said" ] || { said=$file file='' truth=$(numbers "$work/page" | awk 'NF == 1 { print $1 }'); }
    if [ $(((said - truth) * (said - truth) * 100)) -le $((truth * truth)) ] || [ $((said - truth)) -le 10 ] &&
        [ $((truth - said)) -le 10 ]
    then echo "ok reading.md: ${file:-together} has about $said lines"
    else echo "not ok reading.md: ${file:-together} has $truth lines, the page says $said; run dev/reading.sh --write"
    status=1; fi
done < <(numbers "$page")
without_numbers() { sed -E 's/^(\| [0-9]* ?\| (\[[^]]*\]\([^)]*\)|together) \|) [0-9]+ /\1 /' "$1"; }
if diff <(without_numbers "$page") <(without_numbers "$work/page") >"$work/diff"; then
    echo "ok reading.md quotes what seal_reference prints"
else echo "not ok reading.md quotes something else than seal_reference prints; run dev/reading.sh --write"
head -10 "$work/diff"; status=1; fi
exit $status
