#!/usr/bin/env bash
# A selector learned with a small model, used for a larger one: against the larger model's own selector, and against none
# Options and scales: dev/reproduce/common.sh, or --help. SMALL_SHAPE: of the small model at --scale world and real. --scale paper: MODEL is the larger one (Merlinite-7B in the paper), SMALL_MODEL
# the one that learns (Phi-3-mini there), otherwise the environment of table1.sh; the small selector takes half of the larger one's time:
# two selectors, 9.5e18 FLOP: 6 h on one H200, 14 h on 4 × A6000; three fine-tunings, 6.6e18 FLOP: 4 h, 9 h; memory as in table1.sh: 19 GB with --recompute and 4096 tokens per pack, 73 GB without it at 16384.
# shellcheck source=dev/reproduce/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
case $scale in world) : "${SMALL_SHAPE:=--layers 1 --width 64 --heads 2 --positions 32}" ;; real) : "${SMALL_SHAPE:=--layers 2 --width 64 --heads 2 --positions 256}" ;; esac
small_base() {  # of the seed: the same rows and settings, another shape
    if [ "$scale" = paper ]; then [ -n "${SMALL_MODEL:-}" ] || { echo "$0: --scale paper needs SMALL_MODEL" >&2; exit 2; }; echo "$SMALL_MODEL"; return; fi
    local small rows
    small=$work/small-$(digest <<<"$SMALL_SHAPE")
    rows=$work/base.jsonl; [ "$scale" = real ] && rows=$work/data/base.jsonl
    [ -e "$small/init/config.json" ] || {
        local tokenizer=$work/tokenizer.json; [ "$scale" = real ] && tokenizer=${TOKENIZER:-$work/tokenizer}
        logged "$small.log" "$train_seal" init --tokenizer "$tokenizer" $SMALL_SHAPE --seed "$seed" --out "$small/init"
    }
    train "$small/base" sft --model "$small/init" --tune "$rows" $BASE >&2
    echo "$small/base/model"
}
ARMS=(
    "standard | Standard SFT                 | all  |                     | "
    "own      | its own selector             | seal | --algorithm 2       | "
    "small    | the small model's selector   | seal | --algorithm 2 @small | "
)
compare
