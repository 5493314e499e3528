#!/usr/bin/env bash
# What θ̂ buys and costs: Algorithm 1 against Algorithm 2, and the lowest loss after D_safe, without a bilevel step
# Options and scales: dev/reproduce/common.sh, or --help. --scale world adds two families to the world in which the
# algorithms differ: `any`, whose answer nobody can foretell (in D_safe too), and `age`, which D_safe lacks and the base
# does not know; the table says what share of each is kept.
#
# --scale paper needs the environment of table1.sh. Under LoRA Algorithm 1 runs θ̂'s tokens in the same streams: 1.5
# times Algorithm 2's time (1.75 at γ = 0), its memory and one adapter.
#   two selectors, 1.6e19 FLOP: 12 h on one H200, 27 h on 4 × A6000; three fine-tunings, 6.6e18 FLOP: 4 h, 9 h; memory
#   as in table1.sh: 19 GB with --recompute and 4096 tokens per pack, 73 GB without it at 16384.
#   Pythia-2.8B in full: 60 GB for Algorithm 2, 99 GB for Algorithm 1 (docs/adapters.md).
KNOBS=${KNOBS---entropy-family on --absent-family on} FAMILIES="any age" COSTS=1
# shellcheck source=dev/reproduce/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ "$scale" = world ] && extra="kept_any:of any kept %:1;kept_age:of age kept %:1"
ARMS=(
    "standard  | Standard SFT             | all       |               | "
    "seal-1    | Algorithm 1              | seal      | --algorithm 1 | "
    "seal-2    | Algorithm 2              | seal      | --algorithm 2 | "
    "safe-loss | lowest loss after D_safe | safe-loss |               | "
)
compare
