#!/usr/bin/env bash
# The README's pictures out of the page that `make demo` wrote: docs/pictures/*.svg.
# usage: dev/readme_pictures.sh [out/demo/report.html]
set -eu
cd "$(dirname "$0")/.."
page=${1:-out/demo/report.html}
[ -s "$page" ] || { echo "$0: $page is missing; make demo first" >&2; exit 2; }
mkdir -p docs/pictures
picture() {  # NAME, caption, what the caption's small print begins with
    awk -v caption="$2" -v small="$3" 'BEGIN { RS = "<figure>" } index($0, "<figcaption>" caption " <span>" small) == 1 { sub(/.*<\/figcaption>/, ""); sub(/<\/figure>.*/, ""); printf "%s", $0; exit }' "$page" >"docs/pictures/$1.svg"
    [ -s "docs/pictures/$1.svg" ] || { echo "$0: $page has no figure \"$2\" ($3)" >&2; exit 2; }
}
picture refusal_accuracy "Refusal against accuracy" ""
picture omega_seal_2 "Distribution of ω" seal-2
picture kept_seal_2 "What a selection keeps" seal-2
picture selector_safe_loss "Selector: loss on D_safe" ""
