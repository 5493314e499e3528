#!/usr/bin/env bash
# Pictures of all.tsv (seed, arm, title, published, metric, value): bars with error bars of every win rate and of the
# first other figures, the radar of the win rates as in the paper's figure, lines over the arms where those are numbers.
# Nothing where gnuplot is missing.
#   pictures.sh ALL.tsv OUT "name:title:digits;…" [x axis of lines]
set -eu
data=$1 out=$2 columns=$3 axis=${4:-}
command -v gnuplot >/dev/null || {
    echo "pictures: gnuplot is missing (apt-get install gnuplot-nox); no pictures"; exit 0
}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
spread() {  # METRIC: title, mean, standard error, arm; a line an arm in the table's order
    awk -F'\t' -v m="$1" '
        $5 == m { if (!($2 in n)) order[++k] = $2; t[$2] = $3; n[$2]++; s[$2] += $6; x[$2, n[$2]] = $6 }
        END {
            for (i = 1; i <= k; i++) {
                a = order[i]; mean = s[a] / n[a]; v = 0
                for (j = 1; j <= n[a]; j++) v += (x[a, j] - mean) ^ 2
                printf "%s\t%.6g\t%.6g\t%s\n", t[a], mean, (n[a] > 1 ? sqrt(v / (n[a] - 1) / n[a]) : 0), a } }' "$data"
}
title_of() { tr ';' '\n' <<<"$columns" | awk -F: -v m="$1" '$1 == m { print $2 }'; }
style='set style fill solid 0.85 noborder; set border 3 lc rgb "#666666"; set tics nomirror tc rgb "#333333"'
style+='; set grid y lc rgb "#dddddd"; unset key'
colours=(0072B2 D55E00 009E73 CC79A7 E69F00 56B4E9 000000 F0E442)
wins=()
for metric in $(cut -f5 "$data" | awk '!seen[$0]++'); do
    case $metric in *_s | *_mib) [ -n "${COSTS:-}" ] || continue ;; esac
    spread "$metric" >"$work/$metric.tsv"
    [ -s "$work/$metric.tsv" ] || continue
    [[ $metric == win_* ]] && wins+=("$metric")
    label=$(title_of "$metric"); label=${label:-$metric}
    if [ -n "$axis" ]; then  # an arm is called LINE-NUMBER
        plots=
        i=0
        for line in $(cut -f4 "$work/$metric.tsv" | sed -n 's/-[0-9.]*$//p' | awk '!seen[$0]++'); do
            awk -F'\t' -v line="$line-" 'index($4, line) == 1 { print substr($4, length(line) + 1) "\t" $2 "\t" $3 }' \
                "$work/$metric.tsv" >"$work/$line.line"
            plots+="${plots:+, }'$work/$line.line' using 1:2:3 with yerrorlines lc rgb '#${colours[$((i++))]}' \
                lw 2 pt 7 ps 0.6 title '$line'"
        done
        [ -n "$plots" ] || continue
        gnuplot 2>/dev/null -e \
            "set terminal svg noenhanced size 560,360 font 'sans,12'; set output '$out/$metric.svg'; $style; \
            set key top left; set xlabel '$axis'; set ylabel '$label'; set autoscale xfix; \
            set offsets 0.03,0.03,0,0; set yrange [0:*<104]; \
            plot $plots"
    else
        bars=$(wc -l <"$work/$metric.tsv")
        gnuplot 2>/dev/null -e \
            "set terminal svg noenhanced size $((260 + 70 * bars)),400 font 'sans,12'; set output '$out/$metric.svg'; \
            set datafile separator '\t'; $style; set ylabel '$label'; set boxwidth 0.7; \
            set xrange [-0.6:$bars - 0.4]; set yrange [0:*<104]; set xtics rotate by -25; \
            plot '$work/$metric.tsv' using 0:2:3:xtic(1) with boxerrorbars lc rgb '#${colours[0]}' lw 1.5 \
                title '$label'"
    fi
done
[ -z "$axis" ] && [ ${#wins[@]} -ge 3 ] || exit 0
# the radar: an axis a win rate, a line an arm
paste "$work/${wins[0]}.tsv" "$work/${wins[1]}.tsv" "$work/${wins[2]}.tsv" |
    awk -F'\t' '{ print $1 "\t" $2 "\t" $6 "\t" $10 }' >"$work/radar.tsv"
low=$(awk -F'\t' '
    NR == 1 { l = $2 }
    { for (i = 2; i <= 4; i++) if ($i < l) l = $i }
    END { print int(l / 5) * 5 - 5 }' "$work/radar.tsv")
high=$(awk -F'\t' '{ for (i = 2; i <= 4; i++) if ($i > h) h = $i } END { print int(h / 5) * 5 + 5 }' "$work/radar.tsv")
{
    echo "set terminal svg noenhanced size 640,460 font 'sans,12'; set output '$out/radar.svg'"
    echo "set datafile separator '\t'; set spiderplot"
    echo "set style spiderplot fs transparent solid 0.05 border lw 2; set key outside"
    echo 'set for [i=1:3] paxis i range ['"$low:$high"']; set paxis 1 tics 10; set grid spider lc rgb "#dddddd"'
    for ((i = 1; i <= ${#colours[@]}; i++)); do echo "set linetype $i lc rgb '#${colours[$((i - 1))]}'"; done
    for i in 1 2 3; do
        what="plot '$work/radar.tsv' using 2:key(1)"; [ $i = 1 ] || what=", '' using $((i + 1))"
        printf '%s' "$what title \"$(title_of "${wins[$((i - 1))]}" | sed 's/ (/\\n(/')\""
    done
    echo
} >"$work/radar.gp"
gnuplot "$work/radar.gp" 2>"$work/err" || { echo "pictures: the radar: $(head -2 "$work/err" | tail -1)" >&2; exit 1; }
