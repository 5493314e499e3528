#!/usr/bin/env bash
# A selector learned with a small model, used for a larger one, against the larger model's own, and none
# Options and scales: dev/reproduce/common.sh, or --help. SMALL_SHAPE: of the small model at --scale world. --scale real
# and paper: MODEL is the larger one (Merlinite-7B in the paper), SMALL_MODEL the one that learns (Phi-3-mini there; it
# shares the rows, not the tokenizer), otherwise the environment of table1.sh; the small selector takes half of the
# larger one's time:
# two selectors, 9.5e18 FLOP: 6 h on one H200, 14 h on 4 × A6000; three fine-tunings, 6.6e18 FLOP: 4 h, 9 h; memory as
# in table1.sh: 19 GB with --recompute and 4096 tokens per pack, 73 GB without it at 16384.
# shellcheck source=dev/reproduce/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${SMALL_SHAPE:=--layers 1 --width 64 --heads 2 --positions 32}"
small_base() {  # of the seed: the same rows and settings, another shape
    if [ "$scale" != world ]; then
        [ -n "${SMALL_MODEL:-}" ] || { echo "$0: --scale $scale needs SMALL_MODEL" >&2; exit 2; }; echo "$SMALL_MODEL"
        return
    fi
    local small
    small=$work/small-$(digest <<<"$SMALL_SHAPE")
    [ -e "$small/init/config.json" ] ||
        logged "$small.log" "$train_seal" init --tokenizer "$work/tokenizer.json" $SMALL_SHAPE --seed "$seed" \
        --out "$small/init"
    train "$small/base" sft --model "$small/init" --tune "$work/base.jsonl" $BASE >&2
    echo "$small/base/model"
}
ARMS=(
    "standard | Standard SFT                 | all  |                     | "
    "own      | its own selector             | seal | --algorithm 2       | "
    "small    | the small model's selector   | seal | --algorithm 2 @small | "
)
compare
