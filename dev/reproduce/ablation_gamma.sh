#!/usr/bin/env bash
# What the schedule of γ does: the paper's linear one, fixed 0.1, fixed 0.5, a faster linear one
# Under Algorithm 2, and with ALGORITHMS="2 1" under both. Options and scales: dev/reproduce/common.sh, or --help.
#
# --scale paper needs the environment of table1.sh: four selectors, 2.7e19 FLOP (more where γ > 0 from the start: no
# forward-only half): 17 h on one H200, 40 h on 4 × A6000;
# five fine-tunings, 1.1e19 FLOP: 7 h, 15 h; memory as in table1.sh: 19 GB with --recompute and 4096 tokens per pack, 73
# GB without it at 16384.
ALGORITHMS=${ALGORITHMS:-2}
# shellcheck source=dev/reproduce/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
ARMS=("standard | Standard SFT | all | | ")
for a in $ALGORITHMS; do
    ARMS+=(
        "linear-$a  | Algorithm $a, γ 0, +0.03 an epoch (the paper's) | seal | --algorithm $a --gamma linear:0,0.03 | "
        "fixed01-$a | Algorithm $a, γ 0.1                             | seal | --algorithm $a --gamma fixed:0.1     | "
        "fixed05-$a | Algorithm $a, γ 0.5                             | seal | --algorithm $a --gamma fixed:0.5     | "
        "faster-$a  | Algorithm $a, γ 0, +0.1 an epoch                | seal | --algorithm $a --gamma linear:0,0.1  | "
    )
done
compare
