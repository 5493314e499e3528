#!/usr/bin/env bash
# The win rate of AlpacaEval's published annotations, with and without length control, beside the leaderboard's figures
# and an independent fit. Writes Markdown to stdout; the data stay where they are.
#   dev/reproduce/length_control.sh [FOLDER]      FOLDER: alpaca_eval of the data pack (default
#   ../shared/data/alpaca_eval); PYTHON with torch: also record_winrate.py
set -u
cd "$(dirname "$0")/../.." || exit 1
data=${1:-../shared/data/alpaca_eval} eval_seal=${BUILD:-build/cpu-fp32}/eval_seal
annotations=$data/alpaca-7b_alpaca_eval_gpt4_annotations.json.gz
[ -e "$annotations" ] || { echo "$0: $annotations is not there" >&2; exit 2; }
line=$("$eval_seal" winrate --length-controlled --json "$annotations") || exit 2
value() { sed -n "s/.*\"$1\":\(-\{0,1\}[0-9.e-]*\).*/\1/p" <<<"$line"; }
published() {
    awk -F, -v c="$1" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == c) k = i } $1 == "alpaca-7b" { print $k }' \
        "$data/alpaca_eval_gpt4_leaderboard.csv"
}
printf '# Length-controlled win rates\n\n'
printf '    dev/reproduce/length_control.sh\n\n'
printf 'alpaca-7b against text_davinci_003, %s preferences of AlpacaEval 1 (GPT-4); outputs have %.0f
characters on average, the baseline'"'"'s %.0f.\n\n' \
    "$(value n)" "$(value characters)" "$(value characters_baseline)"
printf '| | here | standard error | published |\n|---|---|---|---|\n'
printf '| win rate | %.4f | %.4f | %.4f (%.4f) |\n' "$(value win_rate)" "$(value standard_error)" \
    "$(published win_rate)" "$(published standard_error)"
printf '| length-controlled | %.4f | %.4f | %.4f |\n' "$(value length_controlled)" "$(value length_controlled_se)" \
    "$(published length_controlled_winrate)"
printf '| effect of length b | %.4f | | |\n\n' "$(value length_effect)"
printf 'The published length-controlled figure also has a term for the difficulty of each instruction, and a
regulariser.\n'
[ -z "${PYTHON:-}" ] ||
    printf '\nThe same regression by L-BFGS, its jackknife by 805 fits (dev/reference/record_winrate.py):\n\n    %s\n' \
    "$("$PYTHON" dev/reference/record_winrate.py --annotations "$annotations")"
