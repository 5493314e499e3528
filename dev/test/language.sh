#!/usr/bin/env bash
# Words and habits that a native reader stumbles over, in messages (the string literals of programs and tests, what
# scripts print), in comments and in pages.
#   dev/test/language.sh [FOLDER]        a line for each hit; status 1 where there is one
# A habit is a row: an extended regular expression, what to write instead, and what is meant by it elsewhere (allowed).
# A line that begins with spaces continues the row before it.
set -u
cd "${1:-$(dirname "$0")/../..}" || exit 2
export LC_ALL=C.UTF-8
habits='
\bbehind\b                                          ~ after                         ~ (left|leave|leaves|leaving) behind
\bstands?\b                                         ~ is                            ~
    stands? (for|in for|out|in)\b|stand-ins?\b
\b(served|serves)\b                                 ~ supported, used               ~
\b(go|goes|going) on\b                               ~ resumes, continues            ~
\b(mend|mends|mended|mending)\b                     ~ fix                           ~
\bblanks?\b                                         ~ space                         ~ \bblank lines?\b
\b(is|are) no (a|[b-z])                             ~ is not a                      ~
    (there (is|are) no|(is|are) no longer|
    (is|are) no (more|more|gpu|reference|such|difference|error|need|way|recorded|result|room)\b)
\bwant(s|ed)?\b                                     ~ expected X, got Y             ~
    (you|to|users?|i) want|-v want|got\) want|near got want|\) \}. want$
\bpassed over\b                                     ~ skipped with a warning        ~
\b(there|stands) twice\b                            ~ duplicate                     ~
\b(bear|bears|bearing) (a )?loss\b                  ~ carry loss                    ~
\bcannot be had\b                                   ~ cannot get                    ~
\b(line|object|point|thread|block|launch|warp|loss|step|token|logit|file|bytes?|tokens|seconds?|nats|GPU|process|
    rank|times?|row|method|pair|MB|GB|MiB|KiB)
    an? (row|line|method|seed|rank|GPU|prompt|pair|kernel|token|sample|second|step|stage|layer|file|epoch|batch|
    thread|block|head|stream|pack|operation)\b         ~ per                           ~
    (file|row|token|line|step|sample) a (file|row|token|line|step|sample)? ?(that|which|whose|is|was|has)\b
\b[0-9]+(\.[0-9]+)?( (tokens?|bytes?|samples?|steps?|TFLOP|GFLOP|FLOP|MiB|GiB|GB|MB|nats))?
    an? (step|second|epoch|row|token|batch|sample|rank|GPU)\b
    ~ per ~
\bstreams? of (N|%[a-z]+|[0-9]+) tokens\b           ~ packs of N tokens             ~
\b(begin|begins|begun|start) anew\b                 ~ start again                   ~
\blies? (in|on|at|within|outside|beyond|where)\b    ~ is                            ~
'
# ---- the text that is held to them: FILE:LINE:TEXT
texts() {
    local file
    while IFS= read -r file; do
        case $file in
            # the language of the world is not English
            data/world_language.c) ;;
            *.c | *.h | *.cu | *.cpp)
                # comments, and literals: adjacent ones of one line are one text
                awk -v file="$file" '
                    function say(text) { if (text ~ / /) print file ":" FNR ":" text }
                    inside {
                        end = index($0, "*/")
                        say(end ? substr($0, 1, end - 1) : $0)
                        if (!end) next
                        inside = 0; $0 = substr($0, end + 2)
                    }
                    /^[ \t]*#[ \t]*(include|pragma|error)/ { next }
                    {
                        text = ""; rest = $0
                        while (match(rest, /"([^"\\]|\\.)*"|\/\/|\/\*/)) {
                            found = substr(rest, RSTART, RLENGTH); rest = substr(rest, RSTART + RLENGTH)
                            if (found == "//") { say(rest); break }
                            if (found == "/*") {
                                end = index(rest, "*/")
                                say(end ? substr(rest, 1, end - 1) : rest)
                                if (!end) { inside = 1; break }
                                rest = substr(rest, end + 2)
                            } else text = text substr(found, 2, length(found) - 2)
                        }
                        say(text)
                    }' "$file" ;;
            *.sh | .ci/run | Makefile | *.py | *.awk)
                # comments, and what scripts say
                awk -v file="$file" '
                    NR == 1 && /^#!/ { next }
                    /^[ \t]*#/ || /[ \t]# / {
                        text = $0; sub(/^[^#]*#+ ?/, "", text); print file ":" FNR ":" text; next }
                    /(^|[ \t;&|({])(echo|say|fail|die|printf|ok|not_ok|expect|truth|refuse|print) / {
                        print file ":" FNR ":" $0 }
                ' "$file" ;;
            *.md)
                # pages, without code blocks and the code in a line; dated results keep the words they were written in
                [[ $file == dev/results/* ]] || awk -v file="$file" '
                    /^    / { next }
                    { gsub(/`[^`]*`/, "CODE"); gsub(/\]\([^)]*\)/, "]"); print file ":" FNR ":" $0 }' "$file" ;;
        esac
    done < <(find . -type f \( -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cpp' -o -name '*.sh' \
        -o -name '*.py' -o -name '*.awk' -o -name '*.md' -o -name Makefile -o -path './.ci/run' \) \
        -not -path './build/*' -not -path './out/*' -not -path './.git/*' |
        sed 's|^\./||' | grep -v '^dev/test/language.sh$' | sort)
}
rows() {  # of the table, each on one line; a space joins two lines unless a choice was broken
    awk '/^ / { sub(/^ +/, ""); row = row (row ~ /\|$/ ? "" : " ") $0; next } { print row; row = $0 } END { print row }' \
        <<<"$habits"
}
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
texts >"$work/texts"
while IFS='~' read -r habit instead allowed; do
    habit=$(sed -E 's/ +$//' <<<"$habit") instead=$(sed -E 's/^ +| +$//g' <<<"$instead") \
        allowed=$(sed -E 's/^ +| +$//g' <<<"$allowed")
    [ -n "$habit" ] || continue
    grep -iE "$habit" "$work/texts" |
        if [ -n "$allowed" ]; then sed -E "h; s/$allowed//Ig; /${habit//\//\\/}/I!d; x"; else cat; fi |
        sed "s|^|write \"$instead\": |"
done < <(rows) >"$work/hits"
cat "$work/hits"
[ ! -s "$work/hits" ]
