#!/usr/bin/env bash
# data/fetch.sh against a mirror of made-up files in a folder: what is fetched, skipped, resumed, refused; and what the
# committed recipe mixes from such files.
set -u
. "$(dirname "$0")/cli.sh"
repo=$PWD build=$(dirname "$train_seal")
command -v curl >/dev/null || { echo "ok data/fetch.sh # SKIP curl is not installed"; exit 0; }
cd "$work" || exit 1
mkdir mirror
# A prompt names its record: hh-FILE-7. Whatever role a record plays, its name goes with it.
dialogues() {
    for i in $(seq 0 $(($2 - 1))); do
        printf '{"chosen":"\\n\\nHuman: hh-%s-%d\\n\\nAssistant: more\\n\\nHuman: why\\n\\nAssistant: good %d","rejected":"\\n\\nHuman: hh-%s-%d\\n\\nAssistant: more\\n\\nHuman: why\\n\\nAssistant: bad %d"}\n' "$1" $i $i "$1" $i $i
    done | gzip -n
}
dialogues harmless 40 >mirror/harmless-base_train.jsonl.gz
dialogues harmtest 12 >mirror/harmless-base_test.jsonl.gz
dialogues helpful 20 >mirror/helpful-base_train.jsonl.gz
dialogues helptest 12 >mirror/helpful-base_test.jsonl.gz
for i in $(seq 0 79); do
    printf '{"conversations":[{"from":"system","value":"be brief","weight":null},{"from":"human","value":"so-%d","weight":0.0},{"from":"gpt","value":"answer %d","weight":1.0}]}\n' $i $i
done >mirror/slimorca.jsonl
echo '[{"instruction":"may i","input":"","output":"no"},{"instruction":"and now","input":"here","output":"no"}]' \
    >mirror/safety_only_data_Instructions.json
printf 'category,source,forbidden_prompt\nx,y,"first, and ""last"""\nx,y,second\n' >mirror/strongreject_dataset.csv
printf 'Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\nplain,standard,a,,,p\nwith text,contextual,a,,text,w\n' >mirror/harmbench_behaviors_text_all.csv
printf '{\n    "one": {\n        "a:": [\n            "how \\"so\\"",\n            "and why"\n        ]\n    }\n}\n' \
    >mirror/catqa_english.json
# the committed table with the digests of these files: of the first file git's, as there
while IFS='|' read -r name file room digest licence urls; do
    file=${file// /}
    case $digest in
        *git:*)
            digest=$( (printf 'blob %d\0' "$(wc -c <"mirror/$file")"; cat "mirror/$file") | sha1sum | cut -d' ' -f1)
            digest=git:$digest ;;
        *) digest=sha256:$(sha256sum <"mirror/$file" | cut -d' ' -f1) ;;
    esac
    echo "$name | $file | 1 | $digest | $licence | https://nowhere.invalid/$file"
done < <(grep '^[a-z]' "$repo/data/sources.table") >table
truth "the committed table names nine files" test "$(wc -l <table)" -eq 9
truth "with a digest each" test \
    "$(grep -cE '^[a-z]+ \| [^ |]+ \| [0-9]+ \| (sha256:[0-9a-f]{64}|git:[0-9a-f]{40}) \| [^|]+ \| https://' "$repo/data/sources.table")" -eq 9
sed 's/ exactly=[0-9]*//' "$repo/data/paper.recipe" >recipe
export MIRROR=file://$work/mirror
fetch=(
    "$repo/data/fetch.sh" --to "$work/data" --table "$work/table" --recipe "$work/recipe" --build
    "$(cd "$repo" && cd "$build" && pwd)"
)
whole() { local f; for f in "$@"; do cmp -s "mirror/$f" "data/sources/$f" || return 1; done; }
parts() { ls data/sources/*.part 2>/dev/null | wc -l; }

expect "two names" "${fetch[@]}" strongreject catqa
truth "bring their files" whole strongreject_dataset.csv catqa_english.json
truth "and no others" test "$(ls data/sources | wc -l)" -eq 2
touch -d 2001-01-01 data/sources/catqa_english.json
expect "again" "${fetch[@]}" catqa
truth "they are there" grep -qx "catqa_english.json is there" out
truth "and are left alone" test "$(date -r data/sources/catqa_english.json +%Y)" -eq 2001
head -c 500 mirror/slimorca.jsonl >data/sources/slimorca.jsonl.part
expect "a download that was cut" "${fetch[@]}" slimorca
truth "continues to the whole file" whole slimorca.jsonl
head -c 500 mirror/slimorca.jsonl | tr a b >data/sources/slimorca.jsonl.part; rm data/sources/slimorca.jsonl
expect "one that was damaged" "${fetch[@]}" slimorca
truth "starts again" whole slimorca.jsonl
truncate -s 700 data/sources/slimorca.jsonl
expect "a file that lost its end" "${fetch[@]}" slimorca
truth "is fetched again" whole slimorca.jsonl
cp mirror/slimorca.jsonl data/sources/slimorca.jsonl.part; rm data/sources/slimorca.jsonl
expect "a part that is whole" "${fetch[@]}" slimorca
truth "only gets its name" whole slimorca.jsonl
cp mirror/catqa_english.json kept; echo >>mirror/catqa_english.json; rm data/sources/catqa_english.json
refuse "another digest" "catqa_english.json: $MIRROR/catqa_english.json gives a file whose digest is not sha256:" \
    "${fetch[@]}" catqa --quiet
truth "and nothing of it stays" test ! -e data/sources/catqa_english.json -a "$(parts)" -eq 0
head -c 40 kept >mirror/catqa_english.json
refuse "a file that ends early" "gives a file whose digest is not" "${fetch[@]}" catqa --quiet
truth "and nothing of it stays" test ! -e data/sources/catqa_english.json -a "$(parts)" -eq 0
mv kept mirror/catqa_english.json
refuse "a host that is not there" "catqa_english.json: http://127.0.0.1:9/catqa_english.json: " env \
    MIRROR=http://127.0.0.1:9 "${fetch[@]}" catqa --quiet
refuse "mixing before all is there" "is missing; data/fetch.sh all fetches it" "${fetch[@]}" build --quiet
refuse "a disk with too little room" "cannot be written" bash -c 'trap "" XFSZ; ulimit -f 4; "$@"' _ "${fetch[@]}" \
    slimorca hh --to "$work/small" --quiet
refuse "an unknown name" '"imagenet" is not in' "${fetch[@]}" imagenet
refuse "no name" "say what to fetch" "${fetch[@]}"
refuse "an unknown option" "--from" "${fetch[@]}" --from x catqa
expect "a list" "${fetch[@]}" list
truth "has a line per file" test "$(wc -l <out)" -eq 9

expect "all of it" "${fetch[@]}" all
truth "every file as it was published" whole $(ls mirror)
truth "the mixes are where table1.sh finds them" bash -c \
    '. data/env.sh; for v in SAFE TUNE SAFEINSTR HH SLIMORCA HEXPHI; do [ -s "${!v}" ] || exit 1; done'
rows() { wc -l <"data/$1.jsonl"; }
truth "with the rows that the recipe gives each role" test \
    "$(for r in safe tune safe_hh safeinstr hh slimorca strongreject harmbench catqa; do rows $r; done | tr '\n' ' ')" \
    = "20 50 50 2 24 10 2 1 2 "
truth "a SlimOrca row is read with its system turn" grep \
    -qF '{"prompt":"be brief\nHuman: so-1\nAssistant: ","chosen":"answer 1"}' data/safe.jsonl
truth "an HH row with its turns" grep \
    -qF '{"prompt":"Human: hh-harmless-1\nAssistant: more\nHuman: why\nAssistant: ","chosen":"bad 1"}' data/tune.jsonl
truth "red-team rows are labelled beside the data" test \
    "$(grep -c '"kind":"unsafe","family":"hh-rejected"' data/tune.labels.jsonl)" -eq 30 \
    -a "$(grep -c bad data/tune.jsonl)" -eq 30
truth "D_safe has none of them" bash -c '! grep -q bad data/safe.jsonl data/safe_hh.jsonl data/hh.jsonl'
truth "prompts of HEx-PHI's kind have no answers" grep -qxF '{"prompt":"first, and \"last\""}' data/strongreject.jsonl
truth "CatQA's too" grep -qxF '{"prompt":"how \"so\""}' data/catqa.jsonl
truth "no record has two roles" test -z "$(cat data/*[a-z].jsonl | grep -oE '(hh-[a-z]+|so)-[0-9]+' | sort | uniq -d)"
truth "every one of HH has one, and 70 of 80 of SlimOrca" test \
    "$(cat data/safe.jsonl data/tune.jsonl data/safe_hh.jsonl data/hh.jsonl data/slimorca.jsonl | grep -oE '(hh-[a-z]+|so)-[0-9]+' | sort -u | wc -l)" -eq 154
cp data/tune.jsonl tune.first
expect "once more" "${fetch[@]}" all
truth "there is nothing to do" grep -q "the mixes are there" out
expect "another seed" "${fetch[@]}" build --seed 7 --quiet
truth "puts the rows in another order" bash -c \
    '! cmp -s data/tune.jsonl tune.first && cmp -s <(sort data/tune.jsonl) <(sort tune.first)'
expect "the first seed" "${fetch[@]}" build --quiet
truth "gives the first bytes" cmp data/tune.jsonl tune.first
refuse "fewer rows than a recipe needs" "slimorca.jsonl gives 20 rows; expected exactly 112000" "${fetch[@]}" build \
    --recipe "$repo/data/paper.recipe" --quiet
truth "and no mix that is half old passes for whole" test ! -e data/built

# over HTTP, from a server that cannot continue in the middle
if command -v python3 >/dev/null; then
    python3 -u -m http.server 0 --bind 127.0.0.1 --directory mirror >server 2>&1 & server=$!
    for _ in $(seq 100); do
        port=$(sed -n 's/.* port \([0-9]*\).*/\1/p' server); [ -n "$port" ] && break; sleep 0.1
    done
    head -c 500 mirror/slimorca.jsonl >data/sources/slimorca.jsonl.part; rm data/sources/slimorca.jsonl
    expect "a cut download over HTTP" env MIRROR="http://127.0.0.1:$port" "${fetch[@]}" slimorca
    truth "starts again where the server sends whole files only" whole slimorca.jsonl
    rm data/sources/slimorca.jsonl; mv mirror/slimorca.jsonl away
    refuse "a file the server has not" "slimorca.jsonl: http://127.0.0.1:$port/slimorca.jsonl: " env \
        MIRROR="http://127.0.0.1:$port" "${fetch[@]}" slimorca --quiet
    kill $server; wait $server 2>/dev/null
else
    echo "ok over HTTP # SKIP python3 is not installed"
fi
exit $failed
