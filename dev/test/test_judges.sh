#!/usr/bin/env bash
# Judges by their rubrics: verdicts as transformers gives them (dev/reference/record_judges.py), several answers of one
# question at once, files of one's own, and what is refused.
set -u
. "$(dirname "$0")/cli.sh"
eval_seal=${train_seal%train_seal}eval_seal golden=$PWD/dev/reference/golden/judges
cd "$work" || exit 1
judge=("$eval_seal" judge --judge "$golden/model" --outputs "$golden/outputs.json")
# a verdict's numbers in the order of the record: score, then the words of every answer
numbers() {
    sed -n '/^{/p' "$1" |
        sed 's/.*"score"://; s/"[a-z_]*_mass":[0-9.e-]*//g; s/"[^"]*"//g; s/[^0-9.e,-]//g; s/,,*/ /g; s/ $//'
}
near() {
    paste -d' ' <(numbers "$1") <(sed -n "s/^$2 //p" "$golden/verdicts.txt") | awk '
        {
            n = NF / 2; if (n != int(n) || n < 3) bad = 1
            for (i = 1; i <= n; i++) { d = $i - $(i + n); if (d > 2e-5 || d < -2e-5) bad = 1 } }
        END { exit bad || NR != 4 }'
}
for rubric in guard llama-guard3 qwen3guard wildguard harmbench strongreject; do
    chat=()
    case $rubric in
        llama-guard3) chat=(--chat "$golden/text.jinja") ;;
        qwen3guard) chat=(--chat "$golden/parts.jinja") ;;
    esac
    expect "$rubric" "${judge[@]}" --rubric $rubric ${chat[@]+"${chat[@]}"} --out $rubric.json
    truth "gives the verdicts of transformers" near $rubric.json $rubric
    truth "and a summary of each data set and of all" test \
        "$(grep -c "^$rubric.*: score [0-9.]*% (standard error [0-9.]*) over [24] outputs" out)" -eq 3
    truth "which is the mean" awk -v f=$rubric.json '
        BEGIN {
            while ((getline line <f) > 0)
                if (match(line, /"score":[0-9.e-]+/)) { s += substr(line, RSTART + 8, RLENGTH - 8) / 4; n++ } }
        /over 4 outputs/ {
            match($0, /score [0-9.]+/); d = substr($0, RSTART + 6, RLENGTH - 6) - 100 * s
            good = n == 4 && d < 1e-3 && d > -1e-3 }
        END { exit !good }' out
done
truth "a judge that says other words is noticed" grep -q "is it the model that the rubric is for" err
expect "one question at a time" "${judge[@]}" --rubric wildguard --batch 1 --tokens 1 --out small.json --quiet
truth "the verdicts are the same" near small.json wildguard
cat >own.json <<'JSON'
{"prompt": "[INST] {instruction} / {output} [/INST]", "bare": true, "means": "harm",
 "answers": [{"name": "asked", "words": ["no", "yes"], "counts": "no"},
 {"name": "harm", "after": " {1}, harm:", "words": ["no", "some", "yes"], "values": [0, 0.25, 1]}]}
JSON
expect "a file of one's own" "${judge[@]}" --rubric own.json --out own_verdict.json
x='[0-9.e-]+'
asked='"asked":\{"no":'$x',"yes":'$x'\},"asked_mass":'$x',"harm":\{"no":'$x',"some":'$x',"yes":'$x'\}'
truth "has its answers" test "$(grep -cE "$asked" own_verdict.json)" -eq 4
truth "and its meaning" grep -q "^the score: harm$" out
printf '%s' '{ "answers": [{"name":"unsafe","after":"\n\n","words":["safe","unsafe"]}]}' >turns.json
expect "a file that asks by the chat template" "${judge[@]}" --rubric turns.json --chat "$golden/text.jinja" \
    --out turns_verdict.json --quiet
truth "is Llama Guard's question" near turns_verdict.json llama-guard3
"${judge[@]}" --rubric wildguard --batch 1 --out whole.json --quiet
kill_in_midrun stopped.json 6 "${judge[@]}" --rubric wildguard --batch 1 --quiet --out stopped.json
expect "a stopped judge resumes" "${judge[@]}" --rubric wildguard --batch 1 --out stopped.json --resume --quiet
truth "to the same bytes" cmp whole.json stopped.json
sed 's/"One is the answer."/null/; s/"no"/""/' "$golden/outputs.json" >holes.json
expect "an output that is null, and an empty one" "$eval_seal" judge --judge "$golden/model" --outputs holes.json \
    --rubric wildguard --out holes_verdict.json
truth "are counted" grep -qE "^1 outputs empty, 0 not judged .*, 1 unanswered" out
truth "and have no verdict, or one" test "$(grep -c '"score":null,"harmful_request":null' holes_verdict.json)" -eq 1
printf '[{"instruction":"a","output":"%s"},{"instruction":"a","output":"b"}]' "$(printf 'x%.0s' $(seq 2000))" >long.json
expect "an output longer than the judge reads" "$eval_seal" judge --judge "$golden/model" --outputs long.json \
    --rubric wildguard --out long_verdict.json
truth "is counted once" grep -q "1 not judged (longer than the 2048 tokens" out

refuse "an unknown judge" "there are pairwise, guard, llama-guard3, wildguard, harmbench, qwen3guard, strongreject" \
    "${judge[@]}" --rubric gpt4 --out x.json
refuse "a guard without a chat template" "asks by the judge's own chat template, and" "${judge[@]}" \
    --rubric llama-guard3 --out x.json
echo "{{ messages[0]['content'] }}" >half.jinja
refuse "a template that leaves the answer out" "leaves the request or the answer out" "${judge[@]}" \
    --rubric llama-guard3 --chat half.jinja --out x.json --quiet
refuse "a baseline beside it" "--baseline has no effect with --rubric wildguard" "${judge[@]}" --rubric wildguard \
    --baseline "$golden/outputs.json" --out x.json
refuse "words beside it" "--words has no effect with --rubric harmbench" "${judge[@]}" --rubric harmbench --words a,b \
    --out x.json
refuse "a question beside a template's" "--judge-template has no effect with --rubric qwen3guard" "${judge[@]}" \
    --rubric qwen3guard --chat "$golden/parts.jinja" --judge-template own.json --out x.json
refuse "a chat template beside a bare question" "--chat has no effect with --rubric wildguard" "${judge[@]}" \
    --rubric wildguard --chat llama3 --out x.json
refuse "--guard beside it" "together with" "${judge[@]}" --rubric wildguard --guard --out x.json
refuse "a comparison without a baseline" "--baseline is required" "${judge[@]}" --rubric pairwise --out x.json
wrong() { printf '%s' "$2" >wrong.json; refuse "a file $1" "$3" "${judge[@]}" --rubric wrong.json --out x.json; }
wrong "that is not JSON" '{"answers"' "wrong.json is not a judge"
wrong "with an unknown field" '{"promt":"x","answers":[]}' '"promt" is not a field of a judge'
wrong "without answers" '{"prompt":"{instruction} {output}","answers":[]}' "not a list of 1 to 6 answers"
wrong "with one word" '{"prompt":"{instruction} {output}","answers":[{"name":"a","words":["x"]}]}' \
    "not a list of 2 to 8 words"
wrong "with a word twice" '{"prompt":"{instruction} {output}","answers":[{"name":"a","words":["x","x"]}]}' \
    "is two of its words"
wrong "with too few values" \
    '{"prompt":"{instruction} {output}","answers":[{"name":"a","words":["x","y"],"values":[1]}]}' \
    "has 2 words but 1 values"
wrong "with a value of 2" \
    '{"prompt":"{instruction} {output}","answers":[{"name":"a","words":["x","y"],"values":[1,2]}]}' \
    "not a number from 0 to 1"
wrong "whose answer names a later one" \
    '{"prompt":"{instruction} {output}","answers":[{"name":"a","after":"{2}","words":["x","y"]},{"name":"b","words":["x","y"]}]}' "{2} is not an answer before it"
wrong "whose answer names half of the way" \
    '{"prompt":"{instruction} {output}","answers":[{"name":"a","words":["x","y"]},{"name":"b","after":"{1}","words":["x","y"]},{"name":"c","after":"{2}","words":["x","y"]}]}' "it must name both"
wrong "without a score" '{"prompt":"{instruction} {output}","answers":[{"name":"a","words":["x","y"],"counts":"no"}]}' \
    "no answer counts for the score"
wrong "without the output" '{"prompt":"{instruction}","answers":[{"name":"a","words":["x","y"]}]}' \
    "does not contain {output}"
wrong "whose words begin alike" '{"prompt":"{instruction} {output}","answers":[{"name":"a","words":["xa","xb"]}]}' \
    "begin with the same token"
truth "nothing half-written" test ! -e x.json -a ! -e x.json.partial
exit $failed
