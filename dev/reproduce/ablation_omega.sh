#!/usr/bin/env bash
# How ω is learned: its optimizer and its activation, under both algorithms, the arms that fail included
# Options and scales: dev/reproduce/common.sh, or --help. Selectors only (SELECT_ONLY= fine-tunes on every selection
# too). ALGORITHMS="2": one of them.
# `adam` moves every logit in every step, whether its row was drawn or not (the reference's); `sgd` and `centred` only
# those drawn; `mean` divides a row's sum of Δ by its visits.
#
# --scale paper needs the environment of table1.sh: six selectors by each algorithm, 9.5e19 FLOP: 60 h on one H200, 140
# h on 4 × A6000; memory as in table1.sh: 19 GB with --recompute and 4096 tokens per pack, 73 GB without it at 16384.
SELECT_ONLY=${SELECT_ONLY-1} ALGORITHMS=${ALGORITHMS:-2 1}
# shellcheck source=dev/reproduce/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
ARMS=()
for a in $ALGORITHMS; do
    ARMS+=(
        "adam-$a         | Algorithm $a, softmax, Adam (the reference's)  | seal | --algorithm $a | "
        "sgd-$a          | Algorithm $a, softmax, SGD, lr 10              | seal | --algorithm $a --selector-optimizer sgd --selector-lr 10 | "
        "centred-$a      | Algorithm $a, softmax, centred SGD, lr 10      | seal | --algorithm $a --selector-optimizer centred --selector-lr 10 | "
        "mean-$a         | Algorithm $a, softmax, mean over visits, lr 10 | seal | --algorithm $a --selector-optimizer mean --selector-lr 10 | "
        "sigmoid-$a      | Algorithm $a, sigmoid, Adam                    | seal | --algorithm $a --activation sigmoid | "
        "sigmoid-sgd-$a  | Algorithm $a, sigmoid, SGD, lr 10              | seal | --algorithm $a --activation sigmoid --selector-optimizer sgd --selector-lr 10 | "
    )
done
compare
