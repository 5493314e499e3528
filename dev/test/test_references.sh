#!/usr/bin/env bash
# Pages, comments and scripts name only what exists (dev/test/references.sh), messages and pages are in plain English
# (dev/test/language.sh); a planted fault of each kind is found.
set -u
cd "$(dirname "$0")/../.." || exit 1
failed=0
ok() { echo "ok $1"; }
not_ok() { echo "not ok $1"; failed=1; }
clean() {  # NAME SCRIPT
    local found
    if found=$(bash "dev/test/$2"); then ok "$1"; else not_ok "$1"; sed 's/^/# /' <<<"$found"; fi
}
clean "every link, path and definition that is named exists" references.sh
clean "messages, comments and pages are in plain English" language.sh

# A small copy with one fault each.
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{seal/base,seal_kernels,tokenizer,data,dev/cpu,dev/test,docs}
fresh() {
    printf '# Title\n\nSee [the page](docs/page.md#a-part) and `seal/base/file.c`.\n' >"$work/README.md"
    printf '# Page\n\n## A part\n\nText.\n' >"$work/docs/page.md"
    printf '// seal/base/file.h has the contract.\n#include "base/file.h"\nvoid f(void) { fatal("--%%s is not a number", 0); }\n' >"$work/seal/base/file.c"
    printf '/* others are mentioned: gone */\nvoid file_open(void);\n' >"$work/seal/base/file.h"
    printf '// defines: file_open\n#include "base/file.h"\nint main(void) { file_open(); }\n' >"$work/train_seal.cu"
    : >"$work/eval_seal.cu"
    rm -f "$work/dev/test/test_page.sh" "$work/dev/page.py"
}
fresh
if bash dev/test/references.sh "$work" >"$work.out" && bash dev/test/language.sh "$work" >>"$work.out"; then
    ok "a copy without faults is clean"
else not_ok "a copy without faults is clean"; sed 's/^/# /' "$work.out"; fi
planted() {  # NAME SCRIPT FILE TEXT: the text appended to the file is found by the script
    fresh
    printf '%b\n' "$4" >>"$work/$3"
    if bash "dev/test/$2" "$work" >"$work.out" || ! grep -q "$3" "$work.out"; then
        not_ok "found: $1"
    else
        ok "found: $1"
    fi
}
planted "a link to a page that does not exist" references.sh README.md '[x](docs/gone.md)'
planted "a link to a heading that does not exist" references.sh docs/page.md '[x](../docs/page.md#another-part)'
planted "a path in a page" references.sh docs/page.md 'Read seal/base/gone.c.'
planted "a path in a comment" references.sh seal/base/file.c '/* as dev/test/gone.sh does */'
planted "a file named alone" references.sh seal/base/file.h '// see gone.md'
planted "a list of definitions in another file" references.sh seal/base/file.c \
    '// defines: file_open\n#include "base/file.h"'
planted "a definition that the header only mentions" references.sh train_seal.cu \
    '// defines: gone\n#include "base/file.h"'
planted "a line of more than 100 columns" references.sh docs/page.md "$(printf 'x%.0s' {1..101})"
planted "a README of more than 150 lines" references.sh README.md "$(printf '.\\n%.0s' {1..150})"
planted "a word in a message" language.sh seal/base/file.c 'void g(void) { fatal("--x is \\"1\\", want 2"); }'
planted "a word in a page" language.sh docs/page.md 'The run goes on from there.'
planted "a unit without per in a page" language.sh docs/page.md 'One thread a row, a line a step.'
planted "a word in a comment" language.sh seal/base/file.c '/* The thread goes on. */'
planted "a word in a comment of several lines" language.sh seal/base/file.h '/* What follows\n   stands here. */'
planted "a word in a comment after code" language.sh seal/base/file.h 'int served;  // it is served here'
planted "a word in a test's message" language.sh dev/test/test_page.sh 'truth "the run goes on" true'
planted "a word in a script's comment" language.sh dev/page.py '# The run begins anew.'
rm -f "$work.out"
exit $failed
