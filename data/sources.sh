# shellcheck shell=bash
# What the scripts that mix real data share. Sourced by fetch.sh, demo_real.sh and dev/reproduce/common.sh.

# CatQA is one object of categories, subcategories and questions, one question per line: lines that are a text alone
# become rows.
catqa_rows() {  # catqa_english.json catqa.jsonl
    sed -n 's/^ \{8,\}\("\([^"\\]\|\\.\)*"\),\{0,1\}\r\{0,1\}$/{"prompt":\1}/p' "$1" >"$2.part" && mv "$2.part" "$2"
}
# A recipe for SIZE times the rows, with UNSAFE percent of unsafe rows in tune (20 as it is written): the useful rows of
# tune make room.
scaled_recipe() {  # RECIPE SIZE UNSAFE
    awk -v size="$2" -v unsafe="$3" '
        /^[a-z]/ && match($0, / most=[0-9]+/) {
            n = substr($0, RSTART + 6, RLENGTH - 6) * size
            if ($1 == "tune" && $2 == "unsafe") n *= unsafe / 20
            if ($1 == "tune" && $2 == "new") n *= (90 - unsafe) / 70
            n = int(n + 0.5); if (n < 1) n = 1
            $0 = substr($0, 1, RSTART) "most=" n substr($0, RSTART + RLENGTH)
        }
        { print }' "$1"
}
size_is_good() { awk -v n="$1" 'BEGIN { exit !(n ~ /^[0-9]*\.?[0-9]+$/ && n > 0 && n <= 1000) }'; }

# Names of a recipe's sources, and where they are: a file may be packed, and in any folder of those it is looked for in.
source_names() { awk '/^[a-z]/ { print $4 == "catqa.jsonl" ? "catqa_english.json" : $4 }' "$1" | sort -u; }
found_in() { find -L "$1" -type f \( -name "$2" -o -name "$2.gz" \) 2>/dev/null | sort | head -n 1; }  # FOLDER NAME
missing_in() {  # FOLDER RECIPE: " NAME NAME" of what is not there
    local name
    for name in $(source_names "$2"); do [ -n "$(found_in "$1" "$name")" ] || printf ' %s' "$name"; done
}
# The files of a recipe out of FOLDER under its names, then its rows: OUT/ROLE.jsonl. Says on stdout what is not the
# file of data/real.table, and what was mixed.
# No prompt may be in two roles: counted again in what was made. Status 2 and a line where something is wrong.
mix_real() {  # PROGRAM RECIPE FOLDER OUT SEED SIZE UNSAFE
    local program recipe=$2 from=$3 to=$4 seed=$5 size=$6 unsafe=$7 name path digest roles
    program=$(realpath "$1") || return 2
    rm -rf "$to" && mkdir -p "$to/sources" || return 2
    for name in $(source_names "$recipe"); do
        path=$(found_in "$from" "$name")
        if [[ $path == *.gz && $name != *.gz ]]; then
            gzip -dc "$path" >"$to/sources/$name"
        else
            cp "$path" "$to/sources/$name"
        fi || return 2
        digest=$(sed -n "s/^[^|]*| *$name *|[^|]*| *sha256:\([0-9a-f]*\).*/\1/p" data/real.table)
        [ "$(sha256sum <"$to/sources/$name" | cut -d' ' -f1)" = "$digest" ] ||
            echo "note: $name is not the file of data/real.table; figures are this file's own"
    done
    catqa_rows "$to/sources/catqa_english.json" "$to/sources/catqa.jsonl" || return 2
    scaled_recipe "$recipe" "$size" "$unsafe" >"$to/recipe" || return 2
    "$program" build --messages --distinct --recipe "$to/recipe" --from "$to/sources" --out "$to" --seed "$seed" \
        2>"$to/left_out.txt" || {
        tail -n 1 "$to/left_out.txt" >&2; return 2
    }
    roles=$(awk '/^[a-z]/ { print $1 }' "$recipe" | uniq)
    # shellcheck disable=SC2086
    (cd "$to" && for name in $roles; do echo "$name.jsonl"; done | xargs "$program" overlap) || {
        echo "a prompt is in two roles" >&2; return 2
    }
    rm -rf "$to/sources"
    touch "$to/done"
}
# What the real model is measured with: tab-separated NAME=VALUE of what eval_seal refusals --json counted, by data set
# and in all.
refusal_figures() {  # FILE.jsonl NAME
    awk -v name="$2" '
        function number(field) {
            match($0, "\"" field "\":[0-9.]+")
            return substr($0, RSTART + length(field) + 3, RLENGTH - length(field) - 3) }
        {
            match($0, /"dataset":"[^"]*"/); set = substr($0, RSTART + 11, RLENGTH - 12); sub(/.*\//, "", set)
            sub(/\.jsonl$/, "", set)
            lines[NR] = (set == "" ? "" : "_" set); share[NR] = number("refusal"); error[NR] = number("refusal_se") }
        END {
            for (i = 1; i <= NR; i++) {
                of = i == NR ? "" : lines[i]
                printf "%s%s%s=%s\t%s%s_se=%s", (i > 1 ? "\t" : ""), name, of, share[i], name, of, error[i] } }' "$1"
}
# Of the same files together: incoherent=PERCENT, answers that are empty or repeat themselves.
incoherent_figures() {  # FILE.jsonl…
    tail -qn 1 "$@" | awk '
        function number(field) {
            return !match($0, "\"" field "\":[0-9.]+") ? 0 :
                substr($0, RSTART + length(field) + 3, RLENGTH - length(field) - 3) }
        { n += number("n"); bad += number("empty") + number("repeating") }
        END { printf "incoherent=%.4f", n ? 100 * bad / n : 0 }'
}
