#!/usr/bin/env bash
# The scripts that compare methods, on a world too small to mean anything: every arm runs, tables and JSON have its row
# beside the paper's, a second start runs nothing again.
set -u
. "$(dirname "$0")/cli.sh"
build=$(dirname "$train_seal")
export WORLD="--tune-rows 400 --safe-rows 200 --base-rows 600 --test-rows 10" \
    MODEL_SHAPE="--layers 1 --width 32 --heads 1 --positions 32" BASE="--lr 3e-3 --batch 64 --tokens 1024 --max-steps 6"
export SFT="--lr 2e-3 --batch 32 --tokens 512 --max-steps 4" SCORER="--lr 1e-3 --batch 32 --tokens 512 --max-steps 3" \
    SELECTOR="--gamma linear:0,0.03 --selector-lr 5e-3 --lr 1e-3 --batch 32 --tokens 512 --epochs 1"
export SMALL_SHAPE="--layers 1 --width 32 --heads 1 --positions 32" TOPS="0.3 0.6"
reproduce() {
    local script=$1; shift
    dev/reproduce/$script.sh --scale world --seeds "1 2" --build "$build" --shared "$work/shared" \
        --out "$work/$script" "$@"
}
expect "table1.sh runs" reproduce table1
truth "it has all methods and the paper's rows" bash -c \
    "grep -c 'the paper' '$work/table1/results.md' | grep -qx 6 &&
        grep -q '67.19 / 77.28 | 53.91 | –' '$work/table1/results.md'"
truth "with mean and standard error" grep -Eq '^\| SEAL \(Algorithm 2\) \| [0-9.]+ ± [0-9.]+ \|' \
    "$work/table1/results.md"
truth "and as JSON" grep \
    -q '"method":"seal-safeinstr","title":"SEAL + SafeInstr","metrics":{.*"published":{"hh":67.19,"slimorca":53.91,"hexphi":77.28}' "$work/table1/results.json"
if command -v gnuplot >/dev/null; then
    truth "and as pictures" grep -q '</svg>' "$work/table1/radar.svg" "$work/table1/win_new.svg"
fi
truth "and ω by label" grep -q "</svg>" "$work/table1/omega_seal.svg"
truth "SEAL and SEAL + SafeInstr share a selector, Algorithm 1 has its own" bash -c \
    "ls -d '$work'/shared/world-*/1/selectors/* | wc -l | grep -qx 2"
truth "what selection took is there, its training included" grep \
    -Eq '^\| refusal test .* [0-9]+ ± [0-9.]+ \| [0-9]+ ± [0-9.]+ \| [0-9]+ ± [0-9.]+ \|' "$work/table1/results.md"
cp "$work/table1/results.md" "$work/first.md"
rm -r "$work/table1/2/seal/metrics.tsv" "$work/table1/2/seal/trained/sft/summary.json" \
    "$work/table1/2/seal/trained/answers.json"
expect "a second start" reproduce table1
truth "runs only what is missing" test "$(grep -c '^\[' "$work/out")" -eq 1
truth "and comes to the same table" bash -c \
    "diff <(grep -v fine-tuning '$work/first.md' | sed 's/ [0-9]* ± [0-9.]* |\$//') \
        <(grep -v fine-tuning '$work/table1/results.md' | sed 's/ [0-9]* ± [0-9.]* |\$//')"
expect "ablation_algorithm.sh runs" reproduce ablation_algorithm
truth "with memory, and what is kept of the families in which the algorithms differ" grep \
    -q 'of any kept % | of age kept %.*MiB' "$work/ablation_algorithm/results.md"
expect "ablation_gamma.sh runs" reproduce ablation_gamma --arms "standard fixed05-2 faster-2" --seeds 1
expect "ablation_omega.sh runs" env ALGORITHMS=2 bash -c \
    "dev/reproduce/ablation_omega.sh --seeds 1 --build '$build' --shared '$work/shared' --out '$work/omega'"
truth "without fine-tuning" bash -c \
    "grep -q 'sigmoid, SGD, lr 10' '$work/omega/results.md' && test ! -e '$work/omega/1/sgd-2/trained'"
expect "sweep_top.sh runs" reproduce sweep_top --seeds 1
scored() { find "$work/shared" -path "*/1/scores/*" -name took | wc -l; }
before=$(scored)
expect "sweep_top.sh runs for another method" env METHODS="refusal-test" bash -c \
    "dev/reproduce/sweep_top.sh --seeds 1 --build '$build' --shared '$work/shared' --out '$work/other_sweep'"
truth "by the scores that are there" test "$before" -ge 9 -a "$(scored)" -eq "$before"
expect "costs.sh runs" reproduce costs --seeds 1
truth "without fine-tuning, what is known to be harmful marked" bash -c \
    "grep -q '^| TOSS † ' '$work/costs/results.md' && test ! -e '$work/costs/1/seal/trained'"
for world in hard noise; do
    expect "which_one.sh runs, $world" env SCENARIO=$world METHODS="refusal-test" bash -c \
        "dev/reproduce/which_one.sh --seeds 1 --build '$build' --shared '$work/shared' --out '$work/which-$world'"
done
truth "a fifth of the useful rows has wrong answers" bash -c \
    "cat '$work'/shared/world-*/1/noisy >/dev/null && test \$(cat \$(dirname '$work'/shared/world-*/1/noisy)/tune.labels.jsonl | grep -c '\"weak\"') -gt 30"
expect "transfer.sh runs" reproduce transfer --seeds 1
# what keeps a journal and was cut would be refused at the second start
sed -e ':a' -e '/\\$/{N;s/\\\n *//;ba' -e '}' data/demo_real.sh dev/reproduce/common.sh |
    grep -E '"\$(train|eval)_seal" (select|generate|judge) ' >"$work/commands"
truth "scores, answers and verdicts resume" bash -c "! grep -v -- --resume '$work/commands'"
truth "all of them were found" test "$(wc -l <"$work/commands")" -ge 8
refuse "results of other settings" "holds results of other settings" env TOP=0.5 bash -c \
    "dev/reproduce/transfer.sh --seeds 1 --build '$build' --shared '$work/shared' --out '$work/transfer'"
refuse "an unknown scale" "expected world, real or paper" dev/reproduce/table1.sh --scale moon
refuse "paper without a model" "needs MODEL" dev/reproduce/table1.sh --scale paper --build "$build" --out "$work/paper"
exit $failed
