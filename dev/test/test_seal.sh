#!/usr/bin/env bash
# The main job end to end on a toy language: align a model, learn a selector with both algorithms, select, fine-tune on
# the selection. Rows of the fine-tuning set that answer a bad request are the ones a selector must put last.
set -u
. "$(dirname "$0")/cli.sh"
cd "$work" || exit 1
word_tokenizer tok make copy bad sure no a b c d e f g h
copy_rows tune.jsonl 400 1 tune "a b c d e f g h" 2
copy_rows safe.jsonl 200 2 safe "a b c d e f g h" 2
bad=$(grep -c sure tune.jsonl)
common=(--batch 16 --tokens 256 --quiet)

expect "a model is made" "$train_seal" init --layers 2 --width 64 --heads 2 --tokenizer tok/tokenizer.json \
    --positions 32 --out base --quiet
expect "and aligned by sft" "$train_seal" sft --model base --tune safe.jsonl --valid safe.jsonl --lr 3e-3 --epochs 10 \
    "${common[@]}" --out aligned
for algorithm in 1 2; do
    run=(
        "$train_seal" selector --model aligned/model --tune tune.jsonl --safe safe.jsonl --algorithm $algorithm --lr
        1e-3 --selector-lr 5e-3 --epochs 3 "${common[@]}"
    )
    expect "a selector is learned, Algorithm $algorithm" "${run[@]}" --out sel$algorithm
    truth "its log has gamma and both losses" bash -c \
        'sed -n 2p sel'$algorithm'/log.jsonl | grep -q "\"gamma\":0,\"safe_loss\":" &&
            tail -1 sel'$algorithm'/log.jsonl | grep -q "\"gamma\":0.06,"'
    truth "only Algorithm 1 logs the penalty gap" test "$(grep -c '"gap"' sel$algorithm/log.jsonl)" \
        -eq $((algorithm == 1 ? 75 : 0))
    truth "its summary names the algorithm and the last losses" grep \
        -qE "\"algorithm\":$algorithm,\"gamma\":\"linear:0,0.03\".*\"wall_s\":[0-9.]+,\"peak_bytes\":[0-9]+,\"loss\":[0-9.]+,.*\"safe_loss\":[0-9.]+" sel$algorithm/summary.json
    expect "the best 70% are selected" "$train_seal" select --tune tune.jsonl \
        --selector sel$algorithm/selector.safetensors --top 0.7 --out kept$algorithm.jsonl --quiet
    truth "280 rows of the file" test "$(wc -l <kept$algorithm.jsonl)" -eq 280
    truth "byte for byte and in order" awk \
        'NR == FNR { kept[++n] = $0; next } $0 == kept[i + 1] { i++ } END { exit i != n }' kept$algorithm.jsonl \
        tune.jsonl
    truth "Algorithm $algorithm leaves out the bad rows ($(grep -c sure kept$algorithm.jsonl) of $bad stay)" test \
        "$(grep -c sure kept$algorithm.jsonl)" -le $((bad / 10))
    # 400 rows in 25 batches: every row was drawn by one of the last epoch's steps 51 … 75
    truth "the file tells each row's last visit" bash -c 'cd sel'$algorithm'
        header=$(od -An -td8 -N8 selector.safetensors)
        od -An -v -td8 -w8 -j $((8 + header + 2 * 3200)) -N 3200 selector.safetensors | sort -n | uniq -c |
        awk "\$1 != 16 || \$2 != 50 + NR { bad = 1 } END { exit bad || NR != 25 }"'
    expect "the same run again" "${run[@]}" --out again$algorithm
    truth "gives the same bytes" cmp sel$algorithm/selector.safetensors again$algorithm/selector.safetensors
done
# Steps are queued ahead, but the seconds of their rates do not overlap: together they are at most the run's.
truth "rates are of a step's own time" awk -F'[:,]' '
        {
            for (i = 1; i < NF; i++) {
                if ($i == "\"tokens\"") n = $(i + 1); if ($i == "\"tokens_per_s\"") r = $(i + 1)
                if ($i == "\"wall_s\"") wall = $(i + 1) + 0 } }
        NR > 1 { s += n / r }
        END { exit !(NR > 70 && s > 0 && s <= 1.001 * wall) }' sel1/log.jsonl
truth "at gamma 0 fine-tuning samples run forward only" grep -q '"forward_tokens":[1-9]' sel2/log.jsonl
expect "with --compat" "$train_seal" selector --model aligned/model --tune tune.jsonl --safe safe.jsonl --compat \
    --epochs 2 --batch 64 --tokens 256 --quiet --out compat
truth "an epoch ends with the shorter set, whole batches only" bash -c \
    'test "$(wc -l <compat/log.jsonl)" -eq 7 && grep -q "\"step\":6,\"epoch\":2,\"gamma\":0.03," compat/log.jsonl'
for optimizer in sgd centred mean; do
    expect "the selector's optimizer $optimizer runs" "$train_seal" selector --model aligned/model --tune tune.jsonl \
        --safe safe.jsonl --selector-optimizer $optimizer --selector-lr 10 --lr 1e-3 --epochs 3 \
        "${common[@]}" --out sel_$optimizer
    expect "its rows are selected" "$train_seal" select --tune tune.jsonl \
        --selector sel_$optimizer/selector.safetensors --top 0.7 --out kept.jsonl --quiet
    truth "and leave out the bad ones" test "$(grep -c sure kept.jsonl)" -le $((bad / 10))
done
expect "sigmoid weights run" "$train_seal" selector --model aligned/model --tune tune.jsonl --safe safe.jsonl \
    --activation sigmoid --gamma fixed:0.5 --gamma-scales-omega on --epochs 1 "${common[@]}" --out sigmoid
expect "sft on a selection" "$train_seal" sft --model aligned/model --tune tune.jsonl \
    --selector sel2/selector.safetensors --top 0.7 --append safe.jsonl --loss-mean token --lr 1e-3 --epochs 1 \
    --batch 16 --tokens 256 --out tuned
truth "keeps 280 and appends 200" grep -q "280 of 400 samples kept, 200 appended" out
expect "random selection" "$train_seal" select --method random --tune tune.jsonl --top 0.5 --out random.jsonl --quiet
truth "keeps the share, bad rows too" bash -c \
    'test $(wc -l <random.jsonl) -eq 200 && test $(grep -c sure random.jsonl) -gt 20'
expect "selection by the loss under the aligned model" "$train_seal" select --method safe-loss --model aligned/model \
    --tune tune.jsonl --top 0.7 --explain --scores loss.safetensors --out loss.jsonl "${common[@]}"
truth "puts bad rows last as well" test "$(grep -c sure loss.jsonl)" -le $((bad / 10))
by_loss=(
    "$train_seal" select --method safe-loss --model aligned/model --tune tune.jsonl --top 0.7 --tokens 256 --quiet
    --batch 4
)
expect "four at a time" "${by_loss[@]}" --scores whole.safetensors --out whole.jsonl
kill_in_midrun stopped.jsonl 10 "${by_loss[@]}" --out stopped.jsonl
refuse "the same without --resume" "give --resume" "${by_loss[@]}" --out stopped.jsonl
expect "a stopped selection continues" "${by_loss[@]}" --scores stopped.safetensors --out stopped.jsonl --resume
truth "to the same rows and scores" bash -c \
    'cmp whole.jsonl stopped.jsonl && cmp whole.safetensors stopped.safetensors && test ! -e stopped.jsonl.partial'
inode=$(stat -c %i stopped.jsonl)
expect "once more" "${by_loss[@]}" --scores stopped.safetensors --out stopped.jsonl --resume
truth "there is nothing to do" test "$(stat -c %i stopped.jsonl)" = "$inode"
refuse "another share over a selection that is whole" "stopped.jsonl was made with other options, data or weights" \
    "${by_loss[@]/0.7/0.5}" --scores stopped.safetensors --out stopped.jsonl --resume
expect "its scores serve as a selector" "$train_seal" select --tune tune.jsonl --selector loss.safetensors --top 0.7 \
    --scores again.safetensors --out again.jsonl --quiet
tokenizer_of() { grep -oaE '"tokenizer":"[0-9a-f]{64}"' "$1"; }
truth "which knows its tokenizer when it is written again" test -n "$(tokenizer_of loss.safetensors)" \
    -a "$(tokenizer_of loss.safetensors)" = "$(tokenizer_of again.safetensors)"
truth "and select the same rows" cmp loss.jsonl again.jsonl

echo '{"prompt":"copy a","response":""}' >>with_bad.jsonl && cat tune.jsonl >>with_bad.jsonl
expect "check counts rows and plans memory" "$train_seal" check --model base --tune with_bad.jsonl --safe safe.jsonl \
    --batch 16 --epochs 2
truth "rows, the bad one too" bash -c \
    'grep -qE "D_tune +\| +401 " out && grep -qE "empty response +\| +1 " out && grep -qE "usable +\| +400 " out'
truth "steps" grep -q "^50 steps of 16 rows (25 per epoch)" out
truth "a run of each kind" test "$(grep -cE "^\| (sft|selector).* fits " out)" -eq 3
auto=("$train_seal" sft --model base --tune tune.jsonl --batch 64 --tokens auto --dry-run --out x)
expect "a pack as long as memory allows" "${auto[@]}"
truth "holds a whole batch" grep -q "^packs of 2048 tokens" out
CPU_MEMORY_MIB=40 expect "less memory" "${auto[@]}"
truth "means shorter packs that fit" awk \
    '/^packs of/ { t = $3 } /^\| total/ { mib = $4 } END { exit !(t >= 256 && t < 2048 && mib <= 38 && mib > 34) }' out

expect "--explain shows losses under a model" "$train_seal" select --tune tune.jsonl \
    --selector sel2/selector.safetensors --model aligned/model --explain --top 0.7 --out x.jsonl --quiet
truth "beside rank, score and weight" bash -c \
    'grep -q "rank.*row.*score.*weight.*loss" out &&
        test "$(grep -cE "^ +[0-9]+ +[0-9]+ +[-0-9.e]+ +[0-9.]+ +[0-9.]+  Human" out)" -eq 20'
shown=$(awk '$1 == 1 { print $2, $5 }' out)
expect "losses of every row" "$(dirname "$train_seal")/eval_seal" loss --model aligned/model --data tune.jsonl \
    --out loss.rows --quiet
truth "the loss shown is the row's" awk -F'[:,}]' -v shown="$shown" \
    '{ split(shown, s, " "); if ($2 == s[1]) { d = $4 - s[2]; found = d < 1e-4 && d > -1e-4 } } END { exit !found }' \
    loss.rows
# 30 rows without a response: ten are named, --left-out names all, one line each
{
    for i in $(seq 30); do echo '{"prompt":"copy a","response":""}'; done; echo '{"prompt":"copy a","response":5}'
    cat tune.jsonl
} >many_bad.jsonl
expect "check writes all rows that are left out" "$train_seal" check --model base --tune many_bad.jsonl --batch 16 \
    --left-out left_out
truth "with their places and why" bash -c \
    'test "$(wc -l <left_out)" -eq 31 && grep -qx "many_bad.jsonl:30, row 29: with an empty response" left_out &&
        grep -q ":31, row 30: .*response (not a text)" left_out'
expect "select names them too" "$train_seal" select --method random --tune many_bad.jsonl --top 0.5 --out x.jsonl
truth "ten of them, and counts the rest" bash -c \
    'grep -q "^31 of 431 rows are left out: 1 malformed, 30 with an empty response" err && grep -q "and 21 more" err &&
        test "$(wc -l <err)" -eq 12 && grep -q "^200 of 431 rows (400 scored)" out'
expect "check --compat" "$train_seal" check --model base --tune tune.jsonl --safe safe.jsonl --compat --batch 64 \
    --epochs 2
truth "tells the steps of the reference's epochs" bash -c \
    'grep -q "^12 steps of 64 rows (6 per epoch)" out && grep -q "^6 steps of a selector (3 per epoch)" out'

cp tune.jsonl source.jsonl && ln -s source.jsonl link.jsonl
refuse "a selection in its source's place" "would be overwritten" "$train_seal" select --method random \
    --tune source.jsonl --top 0.5 --out link.jsonl
truth "the source is whole" cmp source.jsonl tune.jsonl
refuse "scores in the selector's place" "would be overwritten" "$train_seal" select --tune tune.jsonl \
    --selector sel2/selector.safetensors --scores sel2/selector.safetensors --out x.jsonl
refuse "a share that keeps no row" "keeps none" "$train_seal" select --method random --tune tune.jsonl --top 0.001 \
    --out x2.jsonl
refuse "a share without a selector" "sft: --top has no effect without --selector" "$train_seal" sft --model base \
    --tune tune.jsonl --top 0.8 --out x
refuse "such a share in sft" "keeps none" "$train_seal" sft --model base --tune tune.jsonl \
    --selector sel2/selector.safetensors --top 0.001 --out x --quiet
# one line only: nothing was tokenised or measured before
refuse "a place that cannot be written, before the scoring" "nowhere/x.jsonl" "$train_seal" select --method safe-loss \
    --model base --tune tune.jsonl --out nowhere/x.jsonl
truth "nothing was measured" test ! -s out
refuse "a format that does not fit, before the scoring" "a .csv becomes a .csv" "$train_seal" select \
    --method safe-loss --model base --tune tune.jsonl --out x.csv
truth "nothing was measured" test ! -s out
truth "nothing half-written" bash -c 'test ! -e x2.jsonl && test -z "$(ls ./*.tmp.* 2>/dev/null)"'
refuse "a selector on another file" "selector" "$train_seal" select --tune safe.jsonl \
    --selector sel2/selector.safetensors --out x.jsonl
cp tune.jsonl other.jsonl && sed -i '7s/prompt":"/prompt":"a /' other.jsonl
refuse "a selector on a changed file" "other.jsonl" "$train_seal" select --tune other.jsonl \
    --selector sel2/selector.safetensors --out x.jsonl
refuse "a selector on a changed file in sft" "other.jsonl" "$train_seal" sft --model base --tune other.jsonl \
    --selector sel2/selector.safetensors --out x --quiet
expect "the memory plan of a selection" "$train_seal" select --method safe-loss --model base --tune tune.jsonl \
    --dry-run --out dry.jsonl
truth "names classes and writes nothing" bash -c 'grep -q "weights" out && test ! -e dry.jsonl'
expect "the plan of a selection without a model" "$train_seal" select --method random --tune tune.jsonl --dry-run \
    --out dry.jsonl
truth "is empty" bash -c 'grep -q "nothing is allocated on the device" out && test ! -e dry.jsonl'
refuse "seal without a selector" "needs --selector" "$train_seal" select --tune tune.jsonl --out x.jsonl
echo '{"prompt":"copy a","response":""}' >empty.jsonl
refuse "a run that diverges" "of --tune" "$train_seal" sft --model base --tune tune.jsonl --lr 1e6 --clip 0 --epochs 3 \
    --batch 16 --tokens 256 --out x --quiet
truth "the step, rows and the tensor are named" grep \
    -qE "step [0-9]+: loss .*: rows [0-9]+.* of --tune; the first tensor that is not finite: [a-z]" err
refuse "a run over several files that diverges" "step" "$train_seal" sft --model base --tune tune.jsonl \
    --append safe.jsonl --lr 1e6 --clip 0 --epochs 3 --batch 600 --tokens 256 --out x --quiet
truth "the rows are told by file" grep \
    -qE "rows [0-9]+ of (tune|safe).jsonl, [0-9]+ of (tune|safe).jsonl, .* and [0-9]+ more; the first tensor" err
refuse "a rank without adapters" "sft: --lora-rank has no effect without --lora" "$train_seal" sft --model base \
    --tune tune.jsonl --lora-rank 4 --out x
refuse "a rank beside the adapter's own" "sft: --lora-rank has no effect together with --adapter" "$train_seal" sft \
    --model base --tune tune.jsonl --adapter a --lora-rank 4 --out x
refuse "a selector that diverges" "of --safe" "$train_seal" selector --model base --tune tune.jsonl --safe safe.jsonl \
    --gamma fixed:0.5 --lr 1e6 --clip 0 --batch 16 --tokens 256 --out x --quiet
refuse "a theta_hat that diverges" "of theta_hat" "$train_seal" selector --model base --tune tune.jsonl \
    --safe safe.jsonl --algorithm 1 --lr-hat 1e6 --clip 0 --batch 16 --tokens 256 --out x --quiet
refuse "a file without a usable row" "empty.jsonl" "$train_seal" sft --model base --tune empty.jsonl --out x --quiet
refuse "a gamma schedule that is none" "expected linear:START,STEP" "$train_seal" selector --model base \
    --tune tune.jsonl --safe safe.jsonl --gamma up --out x
refuse "an algorithm that is none" "expected 1 to 2" "$train_seal" selector --model base --tune tune.jsonl \
    --safe safe.jsonl --algorithm 3 --out x
exit $failed
