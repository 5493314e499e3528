#!/usr/bin/env bash
# One picture out of a page of `eval_seal report`, on stdout as an SVG file.
# usage: dev/report_picture.sh PAGE.html CAPTION SMALL      the figure whose caption is CAPTION and whose small print
# begins with SMALL
set -eu
[ $# -eq 3 ] && [ -s "$1" ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
awk -v caption="$2" -v small="$3" '
    BEGIN { RS = "<figure>" }
    index($0, "<figcaption>" caption " <span>" small) == 1 {
        sub(/.*<\/figcaption>/, ""); sub(/<\/figure>.*/, ""); printf "%s", $0; found = 1; exit }
    END { exit !found }' "$1" || { echo "$0: $1 has no figure \"$2\" ($3)" >&2; exit 2; }
