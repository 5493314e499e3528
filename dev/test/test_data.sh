#!/usr/bin/env bash
# Data files as people have them, through the programs: what is taken for what, what is told of it, what is refused.
# Readers and layouts one by one are test_rows.c's.
set -u
root=$PWD
. "$(dirname "$0")/cli.sh"
mix=${train_seal%train_seal}mix
eval_seal=${train_seal%train_seal}eval_seal
cd "$work" || exit 1
word_tokenizer tok make copy bad sure no be brief. a b c d
"$train_seal" init --layers 1 --width 64 --heads 2 --tokenizer tok/tokenizer.json --positions 64 --out base --quiet
check=("$train_seal" check --model base --batch 2)
row() { printf '{"prompt":"copy %s","response":"%s"}' "$1" "$1"; }

# ---- shown as it is trained
{
    row 'a b'; echo
    echo '{"system":"be brief.","messages":[{"role":"user","content":"copy c"},{"role":"assistant","content":"c"},{"role":"user","content":[{"type":"text","text":"make"}]},{"role":"user","content":"d"},{"role":"assistant","content":"d d"}]}'
  echo '{"prompt":"<eos> a","response":"b <eos>","category":"x"}'; echo broken; row d; echo; } >rows.jsonl
expect "check --show 3" "${check[@]}" --tune rows.jsonl --show 3
truth "the first row's answer is marked" grep -qxF "Human: copy a b Assistant:⟦a b <eos>⟧" out
truth "a conversation is shown whole" grep \
    -qxF "be brief. Human: copy c Assistant: c Human: make d Assistant:⟦d d <eos>⟧" out
truth "three rows, each with its tokens counted" bash -c \
    'test "$(grep -c "^D_tune, row [0-9]*: [0-9]* tokens, [0-9]* carry loss" out)" -eq 3 &&
        grep -q "^D_tune, row 0: 8 tokens, 3 carry loss" out'
truth "not without being asked" bash -c '"$@" --tune rows.jsonl | grep -q "⟦" && exit 1; exit 0' _ "${check[@]}"
truth "rendered rows are counted" bash -c \
    'grep -Eq "begin with special tokens \| +1 \|" out &&
        grep -q "^1 row begins with special tokens, and answers end with one" err'
truth "so are layouts and fields that are not used" bash -c \
    'grep -Eq "prompt/response \| +3 \|" out && grep -Eq " messages \| +1 \|" out &&
        grep -qx "text in fields that are not used: category (1 row)" err'
expect "D_safe is shown too" "${check[@]}" --tune rows.jsonl --safe rows.jsonl --show 1
truth "once each" test "$(grep -c '^D_.*, row 0:' out)" -eq 2
if script -qc true /dev/null >/dev/null 2>&1; then
    script -qc "${check[*]} --tune rows.jsonl --show 1" /dev/null >colour 2>/dev/null
    truth "on a terminal in colour" grep -q $'\x1b\\[1;32m' colour
else ok "on a terminal in colour # SKIP no script(1) here"; fi
printf '{"prompt":"copy a","response":"\\u001b[2Jb"}\n' >escape.jsonl
expect "control characters" "${check[@]}" --tune escape.jsonl --show 1
truth "do not reach the terminal" bash -c '! grep -q $'"'"'\x1b'"'"' out'

# ---- what is told
expect "sft, quiet" "$train_seal" sft --model base --tune rows.jsonl --valid rows.jsonl --append rows.jsonl --epochs 1 \
    --batch 2 --quiet --out run
truth "one line for each list of files with rows left out" bash -c \
    'test "$(wc -l <err)" -eq 3 && test "$(grep -cx "1 of 5 rows are left out: 1 malformed" err)" -eq 3'
counts='"rows":15,"left_out":3,"cut":0,"data":{"tune":{"rows":5,"left_out":1,"cut":0},"append":{"rows":5,"left_out":1,"cut":0},"valid":{"rows":5,"left_out":1,"cut":0}}'
truth "summary.json has the counts" grep -qF "$counts" run/summary.json
truth "log.jsonl's header as well" bash -c 'head -1 run/log.jsonl | grep -qF "$1"' _ "$counts"
truth "its header is still an object with the options" bash -c 'head -1 run/log.jsonl | grep -q "^{.*\"batch\":2,.*}$"'
{ row 'a b c d'; echo; row a; echo; echo broken; } >long.jsonl
expect "rows that are cut" "$train_seal" sft --model base --tune long.jsonl --epochs 1 --batch 2 --max-length 11 \
    --quiet --out short
truth "are counted" grep -q '"rows":3,"left_out":1,"cut":1,' short/summary.json
expect "a selector, quiet" "$train_seal" selector --model base --tune rows.jsonl --safe rows.jsonl --epochs 1 \
    --batch 2 --quiet --out sel
truth "has them too" grep -q '"data":{"tune":{"rows":5,"left_out":1,"cut":0},"safe":{"rows":5,"left_out":1,"cut":0}}' \
    sel/summary.json
row a >good.jsonl
expect "nothing is left out, quiet" "$train_seal" sft --model base --tune good.jsonl --epochs 1 --batch 2 --quiet \
    --out good
truth "and nothing is said" test ! -s err
expect "select, quiet" "$train_seal" select --method random --tune rows.jsonl --top 0.5 --out kept.jsonl --quiet
truth "one line" grep -qx "1 of 5 rows are left out: 1 malformed" err
expect "eval_seal loss --json" "$eval_seal" loss --model base --data rows.jsonl --json
truth "rows, left out and cut" bash -c \
    'grep -q "\"left_out\":1," out && grep -q "\"rows\":5,\"cut\":0}" out && test "$(wc -l <err)" -eq 1'

# ---- files under other names
printf '[%s,\n%s]\n' "$(row a)" "$(row b)" >array.jsonl
printf '{"version": 1, "data": [%s,\n %s], "note": "]"}\n' "$(row a)" "$(row b)" >wrapped.json
printf 'prompt;response\ncopy a;a\ncopy b;b\n' >semicolons.csv
printf 'Prompt\tResponse\ncopy a\ta\ncopy b\tb\n' >table.tsv
printf 'prompt, response\ncopy a, "a"\ncopy b, b\n' >spaces.csv
{ row a; echo; row b; echo; } >plain.jsonl
gzip -k plain.jsonl
for file in array.jsonl wrapped.json semicolons.csv table.tsv spaces.csv plain.jsonl.gz; do
    expect "$file is read" "${check[@]}" --tune $file
    truth "its two rows" grep -Eq "usable \| +2 \|" out
done
expect "an array under .jsonl" "${check[@]}" --tune array.jsonl
truth "is told" grep -qx "array.jsonl: one array of rows under the name .jsonl" err
for name in array.jsonl wrapped.json plain.jsonl.gz; do
    expect "select from $name" "$train_seal" select --method random --tune $name --top 1 --out all.jsonl --quiet
    truth "writes a row per line" cmp all.jsonl plain.jsonl
done
expect "select from a table of tabs" "$train_seal" select --method random --tune table.tsv --top 1 --out all.tsv --quiet
truth "writes its bytes" cmp all.tsv table.tsv
expect "a selection of a table with semicolons is read again" bash -c \
    '"$1" select --method random --tune semicolons.csv --top 1 --out all.csv --quiet &&
        "$1" check --model base --batch 2 --tune all.csv' _ "$train_seal"

# ---- Git LFS pointers in any file's place
pointer() {
    printf 'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 173864231\n' >"$1"
}
lfs="a Git LFS pointer, not the file itself: run git lfs pull"
pointer pointer.jsonl
refuse "a pointer as data" "pointer.jsonl: $lfs" "${check[@]}" --tune pointer.jsonl
refuse "a pointer as outputs" "pointer.jsonl: $lfs" "$eval_seal" winrate pointer.jsonl
for file in config.json model.safetensors tokenizer.json; do
    rm -rf broken && cp -r base broken && pointer broken/$file
    refuse "a pointer in place of $file" "broken/$file: $lfs" "$train_seal" sft --model broken --tune good.jsonl \
        --epochs 1 --out x --quiet
done
pointer pointer.pt
refuse "a pointer in place of a selector" "pointer.pt: $lfs" "$train_seal" select --tune good.jsonl \
    --selector pointer.pt --top 0.5 --out x.jsonl --quiet
pointer pointer.safetensors
refuse "a pointer in place of another selector" "pointer.safetensors: $lfs" "$train_seal" select --tune good.jsonl \
    --selector pointer.safetensors --top 0.5 --out x.jsonl --quiet
pointer pointer.txt
refuse "a pointer as text" "pointer.txt: $lfs" "$train_seal" pretrain --model base --tune pointer.txt --out x --quiet

# ---- texts for pretraining
for i in $(seq 40); do echo "copy a b c d"; done >text.txt
gzip -k text.txt
expect "pretraining on a text" "$train_seal" pretrain --model base --tune text.txt --epochs 1 --batch 2 \
    --max-length 16 --out pre --quiet
expect "and on it compressed" "$train_seal" pretrain --model base --tune text.txt.gz --epochs 1 --batch 2 \
    --max-length 16 --out pre_gz --quiet
truth "gives the same model" cmp pre/model/model.safetensors pre_gz/model/model.safetensors

# ---- mix
printf '%s\n' 'safe refusal rows rows.jsonl' >mix.recipe
expect "mix" "$mix" build --recipe mix.recipe --out mixed --quiet
truth "tells which rows are left out" grep -qx "1 of 5 rows are left out: 1 malformed" err
turns() { printf '{"messages":[{"role":"user","content":"%s"},{"role":"assistant","content":"%s"}]}\n' "$1" "$2"; }
{
    turns "Copy a!" a; turns "copy  A" b; turns "copy c" "a long answer"
    echo '{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"},{"role":"user","content":"z"},{"role":"assistant","content":"w"}]}'
} >turns.jsonl
{ turns "COPY: a?" d; turns "copy d" d; } >more.jsonl
printf '%s\n' 'test unsafe test more.jsonl prompts most=1' 'tune new turns turns.jsonl single longest=19' \
    >distinct.recipe
expect "mix --messages --distinct" "$mix" build --recipe distinct.recipe --out distinct --messages --distinct
truth "a test set owns all its prompts, in any letters, and is one row" test "$(wc -l <distinct/test.jsonl)" -eq 1
truth "prompts have no answer" bash -c '! grep -q assistant distinct/test.jsonl'
printf '%s\n' 'test unsafe test more.jsonl prompts' 'tune new turns turns.jsonl single longest=9' >taken.recipe
refuse "nothing but prompts that are taken" "every prompt of turns.jsonl is in an earlier line" "$mix" build \
    --recipe taken.recipe --out none --distinct --quiet
printf '%s\n' 'tune new turns turns.jsonl single longest=12' >distinct.recipe
expect "a file with a prompt twice" "$mix" build --recipe distinct.recipe --out distinct --messages --distinct
truth "lends it once, without the long row and the dialogue" bash -c \
    'test "$(wc -l <distinct/tune.jsonl)" -eq 1 && grep -q "1 left out whose prompt is taken" out'
truth "which are counted" grep \
    -q ", 2 left out that are too long or have more turns, 1 left out whose prompt is taken" out
truth "as messages" grep \
    -qE '^\{"messages":\[\{"role":"user","content":"[Cc]opy +[aA]!?"\},\{"role":"assistant","content":"[ab]"\}\]\}$' \
    distinct/tune.jsonl
expect "mix overlap" bash -c '"$1" overlap turns.jsonl more.jsonl; test $? -eq 1' _ "$mix"
truth "counts a prompt once" grep -qx "1 prompts of more.jsonl are in turns.jsonl" out
turns "another" x >other.jsonl
expect "files that share none" "$mix" overlap other.jsonl more.jsonl
refuse "one file" "name at least two files" "$mix" overlap rows.jsonl

# ---- Parquet
python=python3
for candidate in "${VENV:-$root/dev/reference/venv}/bin/python" python3; do
    "$candidate" -c 'import pyarrow' 2>/dev/null && { python=$candidate; break; }
done
refuse "a Parquet file" "python3 data/parquet.py rows.parquet makes a .jsonl of it" "${check[@]}" --tune rows.parquet
if "$python" -c 'import pyarrow' 2>/dev/null; then
    "$python" - <<'PY'
import pyarrow, pyarrow.parquet
def turns(x): return [{"role": "user", "content": "copy " + x}, {"role": "assistant", "content": x}]
table = pyarrow.table({"messages": [turns("a"), turns("b")], "score": [float("nan"), 1.0]})
pyarrow.parquet.write_table(table, "rows.parquet")
with pyarrow.ipc.new_stream("stream.arrow", table.schema) as f: f.write_table(table)
PY
    expect "data/parquet.py" "$python" "$root/data/parquet.py" rows.parquet
    expect "its rows are read" "${check[@]}" --tune rows.jsonl
    truth "all of them" grep -Eq "messages \| +2 \|" out
    expect "Arrow's stream" "$python" "$root/data/parquet.py" stream.arrow --out stream.jsonl
    truth "gives the same rows" cmp rows.jsonl stream.jsonl
    refuse "data/parquet.py on a pointer" "$lfs" "$python" "$root/data/parquet.py" pointer.jsonl --out x.jsonl
    refuse "data/parquet.py over its input" "would be overwritten" "$python" "$root/data/parquet.py" rows.parquet \
        --out rows.parquet
    truth "nothing half-written stays" bash -c '! ls | grep -q tmp'
else ok "data/parquet.py # SKIP no pyarrow here"; fi
exit $failed
