#!/usr/bin/env bash
# Words and habits that a native reader stumbles over, in messages (the string literals of the programs) and in pages.
#   dev/test/language.sh [FOLDER]        a line for each hit; status 1 where there is one
# A habit is a row: an extended regular expression, what to write instead, and what is meant by it elsewhere (allowed).
set -u
cd "${1:-$(dirname "$0")/../..}" || exit 2
export LC_ALL=C.UTF-8
habits='
\bbehind\b                                          ~ after                         ~ (left|leave|leaves|leaving) behind
\bstands?\b                                         ~ is                            ~ stands? (for|in for|out)\b
\b(served|serves)\b                                 ~ supported, used               ~
\b(go|goes|going) on\b                               ~ resumes, continues            ~
\b(mend|mends|mended|mending)\b                     ~ fix                           ~
\bblanks?\b                                         ~ space                         ~ \bblank lines?\b
\b(is|are) no (a|[b-z])                             ~ is not a                      ~ (there (is|are) no|(is|are) no longer|(is|are) no (more|more|gpu|reference|such|difference|error|need|way|recorded|result|room)\b)
\bwant(s|ed)?\b                                     ~ expected X, got Y             ~ (you|to|users?|i) want
\bpassed over\b                                     ~ skipped with a warning        ~
\b(there|stands) twice\b                            ~ duplicate                     ~
\b(bear|bears|bearing) (a )?loss\b                  ~ carry loss                    ~
\bcannot be had\b                                   ~ cannot get                    ~
\b(line|object|point|thread|block|launch|warp|loss|step|token|logit|file|bytes?|tokens|seconds?|nats|GPU|process|rank|times?|row|method|pair|MB|GB|MiB|KiB) an? (row|line|method|seed|rank|GPU|prompt|pair|kernel|token|sample|second|step|stage|layer|file|epoch|batch|thread|block|head|stream|pack|operation)\b ~ per ~ (file|row|token|line|step|sample) a (file|row|token|line|step|sample)? ?(that|which|whose|is|was|has)\b
\b[0-9]+(\.[0-9]+)?( (tokens?|bytes?|samples?|steps?|TFLOP|GFLOP|FLOP|MiB|GiB|GB|MB|nats))? an? (step|second|epoch|row|token|batch|sample|rank|GPU)\b ~ per ~
\bstreams? of (N|%[a-z]+|[0-9]+) tokens\b           ~ packs of N tokens             ~
\b(begin|begins|begun|start) anew\b                 ~ start again                   ~
\blies? (in|on|at|within|outside|beyond|where)\b    ~ is                            ~
'
# ---- the text that is held to them: FILE:LINE:TEXT
texts() {
    local file
    for file in $(find seal seal_kernels tokenizer data dev/cpu -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cpp' | grep -v world_language.c | sort) train_seal.cu eval_seal.cu; do
        # literals, without comments and includes; adjacent ones of one line count as one text
        sed -E 's/^[ \t]*#.*//; s:^([^"]*)//.*:\1:' "$file" |
            awk -v file="$file" '/\/\*/ && !/\*\// { inside = 1 } inside { if (/\*\//) inside = 0; next }
                { text = ""; rest = $0
                  while (match(rest, /"([^"\\]|\\.)*"/)) { text = text substr(rest, RSTART + 1, RLENGTH - 2); rest = substr(rest, RSTART + RLENGTH) }
                  if (text ~ / /) print file ":" FNR ":" text }'
    done
    # what scripts say
    grep -nHE '(^|[[:space:];&|({])(echo|say|fail|die|printf) ' \
        $(find data dev -name '*.sh' -not -path 'dev/test/*' | sort)
    # pages, without code blocks and the code in a line; dated results keep the words they were written in
    for file in $(find . -name '*.md' -not -path './dev/results/*' -not -path './build/*' | sed 's|^\./||' | sort); do
        awk -v file="$file" '/^    / { next } { gsub(/`[^`]*`/, "CODE"); gsub(/\]\([^)]*\)/, "]"); print file ":" FNR ":" $0 }' "$file"
    done
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
done <<<"$habits" >"$work/hits"
cat "$work/hits"
[ ! -s "$work/hits" ]
