#!/usr/bin/env bash
# The paper's table with every method beside its seven: what each does to safety and to usefulness on three test sets
# Win rates are against Standard SFT (= 50). Options and scales: dev/reproduce/common.sh, or --help.
#
# --scale paper needs in the environment: MODEL (Llama-3-8B-Instruct, a Hugging Face directory), SAFE and TUNE
# (BlueOrca's and RedOrca's kind, 112,000 rows each), SAFEINSTR (2,483 safety instructions), HH, SLIMORCA, HEXPHI
# (prompts; HEx-PHI is gated: CatQA, HarmBench or StrongREJECT stand in), JUDGE (a model that judges), JUDGE_OPTIONS
# (--chat llama3 …). `data/fetch.sh all` makes the files, `. out/paper/env.sh` names them. What it costs, derived from
# 30 GFLOP per trained token of an 8B model under LoRA (10 forward only) and 350 tokens per row; on one H200 at 15,000
# tokens/s, and on 4 × A6000:
#   selector, 3 epochs over 112,000 + 112,000 rows, the fine-tuning
#   half of the first epoch forward only                                235 M tokens, 6.3e18 FLOP    4 h,  9 h
#   seven fine-tunings of 2 epochs (--arms: the paper's seven)          500 M tokens, 1.5e19 FLOP    9 h, 21 h
#   answers, 7 × 3 sets, and the judge                                  some 20 M tokens             3 h,  8 h
#   memory: 19 GB with --recompute and 4096 tokens per pack, 73 GB without it at 16384 (docs/adapters.md)
# shellcheck source=dev/reproduce/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
note=$given_harmful
ARMS=(
    "standard       | Standard SFT              | all       |                       | "
    "${METHODS_ARMS[@]}"
    "safeinstr      | SafeInstr                 | all       |                       | @safeinstr"
    "seal-safeinstr | SEAL + SafeInstr          | seal      | --algorithm 2         | @safeinstr"
)
published() {  # Llama-3-8B-Instruct: HH test, SlimOrca test, HEx-PHI
    case $1 in
        standard)
            echo "50 50 50" ;; random)
                echo "50.78 50.8 56.31" ;; dsir) echo "57.57 55.84 53.95" ;; safeinstr) echo "57.97 54.22 64.49" ;;
        seal) echo "60.22 53.88 69.29" ;; seal-safeinstr) echo "67.19 53.91 77.28" ;;
    esac
}
compare
