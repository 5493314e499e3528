#!/usr/bin/env bash
# What a selection costs by every method: seconds, tokens and bytes, and how well it tells unsafe rows
# The training of what a method asks is included. Options and scales: dev/reproduce/common.sh, or --help. Nothing is
# fine-tuned on the selections. Tokens that run forward alone cost a third of those that are trained on.
# --scale paper needs the environment of table1.sh; two selectors, 1.6e19 FLOP: 12 h on one H200, 27 h on 4 × A6000, and
# the other methods together as much again as one of them.
export SELECT_ONLY=1 COSTS=1
# shellcheck source=dev/reproduce/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
note=$given_harmful
ARMS=("${METHODS_ARMS[@]}")
for i in "${!ARMS[@]}"; do [[ ${ARMS[i]} != online* ]] || unset "ARMS[i]"; done  # there is nothing but its fine-tuning
ARMS=("${ARMS[@]}")
compare
