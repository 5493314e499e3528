# all.tsv (seed, arm, title, published, metric, value) to a table or to JSON: mean and standard error over the seeds.
# -v form=md|json; md: -v wins, others, costs: columns as "name:title:digits;name:title:digits". A column nobody has a
# figure for is left out, but for the win rates. -v papers: which of the paper's three figures are in each of those:
# "1,3;2;".
BEGIN { FS = "\t" }
{
    if (!($2 in place)) { place[$2] = ++n_arms; arm[n_arms] = $2; title[n_arms] = $3; paper[n_arms] = $4 }
    a = place[$2]
    key = a SUBSEP $5
    if (!($5 in known)) { known[$5] = 1; metrics[++n_metrics] = $5 }
    count[key]++
    values[key, count[key]] = $6
    seeds[key] = seeds[key] (count[key] > 1 ? "," : "") $1
    sum[key] += $6
}
function mean(key) { return sum[key] / count[key] }
function error_of(key, n, m, v, i) {
    n = count[key]; m = mean(key); v = 0
    for (i = 1; i <= n; i++) v += (values[key, i] - m) ^ 2
    return n > 1 ? sqrt(v / (n - 1) / n) : 0
}
function columns(text, always, i, n, word) {
    n = split(text, word, ";")
    for (i = 1; i <= n; i++) { spec[++n_columns] = word[i]; wanted[n_columns] = always }
}
function cell(a, c, key) {
    key = a SUBSEP name[c]
    if (!(key in count)) return "–"
    if (count[key] < 2) return sprintf("%." digits[c] "f", mean(key))
    return sprintf("%." digits[c] "f ± %." (digits[c] < 1 ? 1 : digits[c]) "f", mean(key), error_of(key))
}
function of_paper(c, n, i, which, text) {  # c-th column of wins: the paper's figures for it
    n = split(c <= n_wins ? paper_column[c] : "", which, ",")
    for (i = 1; i <= n; i++) if (published[which[i]] != "") text = text (text == "" ? "" : " / ") published[which[i]]
    return text == "" ? "–" : text
}
function print_table(c, a, line, rule, p, i, n) {
    columns(wins, 1); n_wins = n_columns
    split(papers, paper_column, ";")
    columns(others, 0); columns(costs, 0)
    for (c = 1; c <= n_columns; c++) {
        n = split(spec[c], part, ":")
        name[c] = part[1]; digits[c] = part[n]
        heading[c] = part[2]
        show[c] = wanted[c]
        for (a = 1; a <= n_arms; a++) if ((a SUBSEP name[c]) in count) show[c] = 1
    }
    for (a = 1; a <= n_arms; a++) if (paper[a] != "") any_published = 1
    line = "| method |"; rule = "|---|"
    for (c = 1; c <= n_columns; c++) if (show[c]) {
        line = line " " (c <= n_wins ? "win rate, " : "") heading[c] " |"
        rule = rule "---:|"
    }
    print line; print rule
    for (a = 1; a <= n_arms; a++) {
        line = "| " title[a] " |"
        for (c = 1; c <= n_columns; c++) if (show[c]) line = line " " cell(a, c) " |"
        print line
        if (paper[a] == "") continue
        split(paper[a], published, " ")
        line = "| — the paper's |"
        for (c = 1; c <= n_columns; c++) if (show[c]) line = line " " of_paper(c) " |"
        print line
        delete published
    }
    if (!any_published) print "\nThe paper has no such table: none of its figures can be compared with these."
}
function print_json(a, m, key, first, i, published) {
    printf "["
    for (a = 1; a <= n_arms; a++) {
        printf "%s\n{\"method\":\"%s\",\"title\":\"%s\",\"metrics\":{", (a > 1 ? "," : ""), arm[a], title[a]
        first = 1
        for (m = 1; m <= n_metrics; m++) {
            key = a SUBSEP metrics[m]
            if (!(key in count)) continue
            printf "%s\"%s\":{\"mean\":%.10g,", (first ? "" : ","), metrics[m], mean(key)
            printf "\"standard_error\":%s,", (count[key] > 1 ? sprintf("%.6g", error_of(key)) : "null")
            printf "\"seeds\":[%s],\"values\":[", seeds[key]
            for (i = 1; i <= count[key]; i++) printf "%s%s", (i > 1 ? "," : ""), values[key, i]
            printf "]}"
            first = 0
        }
        printf "},\"published\":"
        if (split(paper[a], published, " ") == 3)
            printf "{\"hh\":%s,\"slimorca\":%s,\"hexphi\":%s}", published[1], published[2], published[3]
        else printf "null"
        printf "}"
        delete published
    }
    print "\n]"
}
END { if (form == "json") print_json(); else print_table() }
