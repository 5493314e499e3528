# shellcheck shell=bash
# What the scripts that mix real data share. Sourced by fetch.sh and demo_real.sh.

# CatQA is one object of categories, subcategories and questions, a question a line: lines that are a text alone become rows.
catqa_rows() {  # catqa_english.json catqa.jsonl
    sed -n 's/^ \{8,\}\("\([^"\\]\|\\.\)*"\),\{0,1\}\r\{0,1\}$/{"prompt":\1}/p' "$1" >"$2.part" && mv "$2.part" "$2"
}
# A recipe for SIZE times the rows, with UNSAFE percent of unsafe rows in tune (20 as it is written): the useful rows of tune make room.
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
