# shellcheck shell=bash
# How the models of the synthetic world are made and trained: sourced by demo.sh and by dev/reproduce/common.sh, so that
# a table and the demo mean the same runs.
# Fixed on development seeds; the seeds of published tables are others. Each may be set from outside.
: "${TOP:=0.7}"
: "${WORLD:=--tune-rows 5120 --safe-rows 2560 --base-rows 20000 --test-rows 300}"
: "${MODEL_SHAPE:=--layers 2 --width 128 --heads 4 --positions 32}"
: "${BASE:=--lr 3e-3 --schedule linear --warmup 100 --batch 128 --tokens 2048 --epochs 3}"
: "${SELECTOR:=--gamma linear:0,0.03 --selector-lr 5e-3 --lr 1e-3 --lr-hat 5e-4 --batch 16 --tokens 512 --epochs 3}"
: "${SCORER:=--lr 1e-3 --batch 32 --tokens 512 --epochs 2}"
: "${SFT:=--lr 2e-3 --schedule linear --warmup 20 --batch 32 --tokens 512 --epochs 4}"
