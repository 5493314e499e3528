#!/usr/bin/env bash
# Settings of the real model on one development seed, one at a time around data/real_settings.sh
# θ's and ω's learning rates, ω's optimizer, epochs, γ, LoRA modules. Options: dev/reproduce/common.sh, or --help;
# --scale real and --seeds 101 unless they are given. Tables are made with other seeds. SIZE=0.5 halves rows and
# prompts.
# Selectors are compared by their AUC on tune's labels alone (no fine-tuning on their selections), fine-tuning by what
# Standard SFT does to refusals and to the loss on useful rows.
# On two idle cores 15 minutes a selector and 5 a fine-tuning at SIZE=1: three hours in all. It resumes; --arms "lr-3e-4
# lr-3e-3" runs some, and OUT/results.md has what is there.
set -- --scale real --seeds 101 "$@"
# shellcheck source=dev/reproduce/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
ARMS=(
    # what selects: Algorithm 2
    "as-set       | SEAL as set                          | seal      | --algorithm 2 @scores | "
    "lr-3e-4      | θ at 3e-4                            | seal      | --algorithm 2 --lr 3e-4 @scores | "
    "lr-3e-3      | θ at 3e-3                            | seal      | --algorithm 2 --lr 3e-3 @scores | "
    "adam-5e-3    | ω by Adam at 5e-3 (the reference's)  | seal      | --algorithm 2 --selector-optimizer adam --selector-lr 5e-3 @scores | "
    "adam-5e-2    | ω by Adam at 5e-2                    | seal      | --algorithm 2 --selector-optimizer adam --selector-lr 5e-2 @scores | "
    "mean-10      | ω the mean over visits, times 10     | seal      | --algorithm 2 --selector-optimizer mean --selector-lr 10 @scores | "
    "sgd-10       | ω by SGD at 10                       | seal      | --algorithm 2 --selector-optimizer sgd --selector-lr 10 @scores | "
    "epochs-5     | 5 epochs                             | seal      | --algorithm 2 --epochs 5 @scores | "
    "gamma-faster | γ 0, +0.1 an epoch                   | seal      | --algorithm 2 --gamma linear:0,0.1 @scores | "
    "gamma-0.1    | γ 0.1                                | seal      | --algorithm 2 --gamma fixed:0.1 @scores | "
    "lora-qv      | LoRA on q and v                      | seal      | --algorithm 2 --lora q,v @scores | "
    "algorithm-1  | Algorithm 1 as set                   | seal      | --algorithm 1 @scores | "
    "adam-1       | Algorithm 1, ω by Adam at 5e-3       | seal      | --algorithm 1 --selector-optimizer adam --selector-lr 5e-3 @scores | "
    "safe-loss    | lowest loss after D_safe             | safe-loss | @scores | "
    # what fine-tuning does
    "sft-3e-4     | Standard SFT at 3e-4                 | all       | | --lr 3e-4"
    "standard     | Standard SFT as set                  | all       | | "
    "sft-3e-3     | Standard SFT at 3e-3                 | all       | | --lr 3e-3"
    "sft-1-epoch  | Standard SFT, 1 epoch                | all       | | --epochs 1"
    "sft-qv       | Standard SFT, LoRA on q and v        | all       | | --lora q,v"
)
compare
