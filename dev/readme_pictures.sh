#!/usr/bin/env bash
# The pages' pictures out of the page that `make demo` wrote, and of the one of `make demo-real` in dev/results:
# docs/pictures/*.svg.
# usage: dev/readme_pictures.sh [out/demo/report.html [REAL.html]]
set -eu
cd "$(dirname "$0")/.." || exit 1
page=${1:-out/demo/report.html}
mkdir -p docs/pictures
picture() { dev/report_picture.sh "$page" "$2" "$3" >"docs/pictures/$1.svg"; }
picture refusal_accuracy "Refusal against accuracy" ""
picture omega_seal_2 "Distribution of ω" seal-2
picture kept_seal_2 "What a selection keeps" seal-2
picture selector_safe_loss "Selector: loss on D_safe" ""
page=${2:-dev/results/2026-11-30_demo_real/report.html}
picture real_refusal_loss "Refusal against loss on useful rows" ""
picture real_omega "Distribution of ω" seal-2
