#!/usr/bin/env bash
# How much to keep: the best 20% to 90% by SEAL, beside the same shares at random
# TOPS="0.2 0.5 0.8" for other shares; METHODS="seal refusal-test random …" (or all) for other methods. Options and
# scales: dev/reproduce/common.sh, or --help. --scale paper needs the environment of table1.sh: one selector, 6.3e18
# FLOP:
# 4 h on one H200, 9 h on 4 × A6000; seventeen fine-tunings, 2.3e19 FLOP: 14 h, 33 h; memory as in table1.sh: 19 GB with
# --recompute and 4096 tokens per pack, 73 GB without it at 16384.
# shellcheck source=dev/reproduce/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
lines_over="share kept"
ARMS=("standard | Standard SFT | all | | ")
METHODS=${METHODS:-seal random}
[ "$METHODS" != all ] ||
    METHODS="seal seal-1 random dsir safe-loss loss-diff influence gradient-norm representation refusal refusal-test"
for p in ${TOPS:-0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9}; do
    for m in $METHODS; do
        for row in "${METHODS_ARMS[@]}"; do
            [ "$(field_of "$row" 1)" != "$m" ] ||
                ARMS+=("$m-$p | $(field_of "$row" 2), best $p | $(field_of "$row" 3) | $(field_of "$row" 4) @top=$p | ")
        done
    done
done
compare
