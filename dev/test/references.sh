#!/usr/bin/env bash
# What pages and comments point to exists: links of Markdown with their anchors, paths and files named in Markdown, in
# comments and in scripts, the `// defines:` lists of the three programs. And the form of Markdown: README has at most
# 150 lines, a line at most 100 columns. On other pages tables and the targets of links do not count, and tables that a
# program printed (lines of code) may have 120.
#   dev/test/references.sh [FOLDER]      a line for each fault; status 1 where there is one
set -u
cd "${1:-$(dirname "$0")/../..}" || exit 2
export LC_ALL=C.UTF-8
programs='train_seal.cu eval_seal.cu test_gpt2.cu'
# Names of files that are not in the repository: other projects', made by the programs, or placeholders.
foreign='llama\.cpp|modeling_[a-z_]*\.py|train_gpt2\.(c|cu)|llm\.c|nccl\.h|cublasLt\.h|cuda[a-z_]*\.h|pybind11\.h|cmocka\.h|stb_ds\.h|zstd\.h|openblas_config\.h|mpi\.h'
files=$(git ls-files 2>/dev/null) && [ -n "$files" ] ||
    files=$(find . -type f -not -path './.git/*' -not -path './build/*' | sed 's|^\./||')
files=$(while read -r f; do [ -f "$f" ] && echo "$f"; done <<<"$files")
pages=$(grep '\.md$' <<<"$files")
sources=$(grep -E '\.(c|h|cu|cpp)$' <<<"$files")
scripts=$(grep -E '\.(sh|awk|py|recipe|table|yml)$|(^|/)(Makefile|run)$' <<<"$files" |
    grep -vE '^dev/test/(references|test_references|test_rooms)\.sh$')
bad=$(mktemp); trap 'rm -f "$bad"' EXIT

# ---- links: [text](target#anchor), relative to the page's folder. An anchor is a heading as GitHub spells it.
anchors() {
    sed -nE 's/^#+ +//p' "$1" | tr '[:upper:]' '[:lower:]' |
        sed -E 's/[`*]//g; s/\[([^]]*)\]\([^)]*\)/\1/g; s/[^[:alnum:] _-]//g; s/ /-/g'
}
for page in $pages; do
    folder=$(dirname "$page")
    grep -noE '\]\([^) ]+\)' "$page" | sed -E 's/\]\(//; s/\)$//' | while IFS=: read -r line target; do
        case $target in http*://* | mailto:*) continue ;; esac
        path=${target%%#*} anchor=
        [[ $target == *"#"* ]] && anchor=${target#*#}
        file=$page; [ -n "$path" ] && file=$folder/$path
        if [ ! -e "$file" ]; then echo "$page:$line: link to $target, which does not exist"
        elif [ -n "$anchor" ] && ! anchors "$file" | grep -qxF -- "$anchor"; then
            echo "$page:$line: link to $target: no such heading"
        fi
    done
done >>"$bad"

# ---- paths and files that are named: in Markdown, in comments, in scripts
comments() {  # FILE: its comments, with line numbers
    case $1 in
        *.c | *.h | *.cu | *.cpp)
            awk '{ text = $0; out = ""
                   while (length(text)) {
                       if (inside) {
                           i = index(text, "*/")
                           if (!i) { out = out text; text = "" }
                           else { out = out substr(text, 1, i - 1) " "; text = substr(text, i + 2); inside = 0 } }
                       else if (match(text, /"([^"\\]|\\.)*"|\047([^\047\\]|\\.)*\047|\/\/|\/\*/)) {
                           token = substr(text, RSTART, RLENGTH); text = substr(text, RSTART + RLENGTH)
                           if (token == "//") { out = out text; text = "" } else if (token == "/*") inside = 1
                       } else text = "" }
                   if (out != "") print FNR ":" out }' "$1" ;;
        *.md) grep -n '' "$1" ;;
        *) grep -nE '^[[:space:]]*#|[[:space:]]#[[:space:]]' "$1" | sed -E 's/^([0-9]+:)[^#]*#/\1#/' ;;
    esac
}
for file in $pages $sources $scripts; do
    comments "$file" | grep -oE '^[0-9]+:|[A-Za-z0-9_.][A-Za-z0-9_./-]*' |
        awk '/^[0-9]+:$/ { line = $0; next } { print line $0 }' |
        grep -E '^[0-9]+:((seal|seal_kernels|tokenizer|data|dev|docs|base|rows|run|commands)/[A-Za-z0-9_.]|[A-Za-z0-9_./-]+\.(md|c|h|cu|cpp|sh|py|awk|recipe)$)' |
        sed "s|^|$file:|"
done | awk -F: -v files="$files" -v foreign="^($foreign)\$" '
    BEGIN { n = split(files, all, "\n")
            for (i = 1; i <= n; i++) {
                path = all[i]; there[path] = 1; base = path; sub(/.*\//, "", base); named[base] = 1
                while (sub(/\/[^\/]*$/, "", path)) there[path] = 1 } }
    { name = $3; sub(/\.+$/, "", name); sub(/\/$/, "", name)
      while (name ~ /^\.\.?\//) sub(/^\.\.?\//, "", name)
      if (name == "" || name in there) next
      base = name; sub(/.*\//, "", base)
      if (base ~ foreign) next
      own = $1; sub(/[^\/]*$/, "", own)
      # from the folder of the file, or as an include writes it
      if ((own name) in there || ("seal/" name) in there || ("dev/" name) in there ||
          ("dev/cpu/include/" name) in there || ("docs/" name) in there) next
      if (name !~ /\// && name in named) next              # a file named alone
      if (name ~ /^(data|run|base)\// && name !~ /\.(md|c|h|cu|sh|py)$/) next  # folders of users: data, runs and models
      if (name ~ /^(out|models|build)\//) next             # what the programs make, and folders of other projects
      if (name ~ /(^|[\/_])[A-Z]+([\/_.]|$)/ && base !~ /^(README|CONTRIBUTING|CHANGELOG|THIRD_PARTY|CITATION|LICENSE)/)
          next  # a placeholder: dev/kernels/OP.cu
      if ((name ".sh") in there || (name ".c") in there || (name ".cu") in there)
          next  # a program or script without its ending
      print $1 ":" $2 ": names " $3 ", which does not exist" }' >>"$bad"

# ---- `// defines:` lists
for file in $sources; do
    awk -v programs=" $programs " -v file="$file" '
        /\/\/ defines:/ {
            if (!index(programs, " " file " ")) {
                print file ":" FNR ": a `// defines:` list; only the three programs have them"; next }
            list = $0; sub(/.*defines:/, "", list); at = FNR; open = 1; next }
        open && /^\/\// { line = $0; sub(/^\/\//, "", line); list = list line; next }
        open && /^#include "/ { header = $0; sub(/^[^"]*"/, "", header); sub(/".*/, "", header)
                                n = split(list, name, /[ ,…]+/)
                                for (i = 1; i <= n; i++) if (name[i] != "") print "DEFINES " header " " name[i] " " at }
        { open = 0 }' "$file" | while read -r word header name line; do
            if [ "$word" != DEFINES ]; then echo "$word $header $name $line"; continue; fi
            for folder in seal seal_kernels tokenizer dev/test .; do [ -e "$folder/$header" ] && break; done
            # a definition or declaration, not a mention: the name outside the comments
            sed -E 's://.*::' "$folder/$header" | awk '/\/\*/ { inside = 1 } !inside { print } /\*\// { inside = 0 }' |
                grep -qw -- "$name" ||
                echo "$file:$line: says that $header defines $name"
            sed -E 's://.*::' "$file" | grep -qw -- "$name" ||
                echo "$file:$line: lists $name of $header and does not use it"
        done
done >>"$bad"

# ---- the form of Markdown
awk 'END { if (NR > 150) print "README.md: " NR " lines, at most 150" }' README.md >>"$bad"
# tables and links too
grep -nE '^.{101}' README.md | sed -E 's|^([0-9]+):.*|README.md:\1: longer than 100 columns|' >>"$bad"
# dev/results is left out: it records what programs printed.
for page in $(grep -v '^dev/results/' <<<"$pages"); do
    sed -E 's/\]\([^)]*\)/]/g; s/^\|.*//; s/https?:[^ ]*//g; s/^<!--.*//' "$page" | grep -nE '^.{101}' |
        grep -vE '^[0-9]+:    .{,116}$' | sed -E "s|^([0-9]+):.*|$page:\1: longer than 100 columns|"
done >>"$bad"
cat "$bad"
[ ! -s "$bad" ]
