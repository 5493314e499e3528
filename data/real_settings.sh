# shellcheck shell=bash
# How the real model is aligned, selected for and fine-tuned: sourced by demo_real.sh and by dev/reproduce, so that a
# table and the demo mean the same runs.
# What was searched, on which seed, and what was not: docs/demo-real.md. Each may be set from outside.
: "${TOP:=0.8}"
: "${LORA:=--lora all --lora-rank 16 --lora-alpha 32}"
: "${RUN:=--batch 8 --tokens 1024 --max-length 384}"
: "${ALIGN:=--lr 1e-3 --schedule linear --warmup 10 --epochs 2}"
: "${SELECTOR:=--lr 1e-3 --gamma linear:0,0.03 --selector-optimizer mean --selector-lr 1 --epochs 3}"
: "${SCORER:=--lr 1e-3 --schedule linear --warmup 5 --epochs 2}"
: "${SFT:=--lr 1e-3 --schedule linear --warmup 5 --epochs 2}"
READ="--batch 16 --tokens 1024 --max-length 384"  # losses of rows
: "${ANSWER:=--greedy --max-new-tokens 24 --batch 64}"
