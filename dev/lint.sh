#!/usr/bin/env bash
# What can be told without running anything: the format, clang-tidy's short list (.clang-tidy), unused functions and
# common errors (cppcheck), scripts (shellcheck), lines over 120 columns, what pages and comments name
# (dev/test/references.sh), their language (dev/test/language.sh). Each tool that this machine lacks is a line that says
# so; LINT=all (as in CI) makes it an error.
# usage: dev/lint.sh [format|tidy|cppcheck|shell|columns|references|language …]     (all of them without a name)
set -u
cd "$(dirname "$0")/.." || exit 1
failed=0
parts=${*:-format tidy cppcheck shell columns references language}
mapfile -t code < <(git ls-files '*.c' '*.h' '*.cu' '*.cpp')
mapfile -t c_files < <(git ls-files 'seal/*.c' 'tokenizer/*.c' 'data/*.c')
mapfile -t cu_files < <(git ls-files 'seal/*.cu' 'seal_kernels/*.cu' 'train_seal.cu' 'eval_seal.cu' 'test_gpt2.cu')
mapfile -t scripts < <(git ls-files '*.sh' .ci/run)
mpi=$(mpicc -show 2>/dev/null | tr ' ' '\n' | grep '^-I' | tr '\n' ' ')
packages=$(pkg-config --cflags libcjson libcrypto zlib libzstd libpcre2-8 libutf8proc 2>/dev/null || true)
includes="-Iseal_kernels -Iseal -Itokenizer -Idata -Idev/test -Idev/kernels $packages $mpi -DOMPI_SKIP_MPICXX"

missing() {
    if [ "${LINT:-}" = all ]; then
        echo "lint: $1 is not installed"; failed=1
    else
        echo "lint: $1 is not installed; skipped"
    fi
}
report() {  # NAME STATUS
    if [ "$2" -eq 0 ]; then echo "lint: $1: nothing found"; else echo "lint: $1: see above"; failed=1; fi
}

for part in $parts; do
    case $part in
        format)  # other versions format a few lines otherwise, so one is the measure
            tool=$(command -v clang-format-14 || command -v clang-format || true)
            if [ -z "$tool" ] || ! "$tool" --version | grep -q 'version 14'; then
                missing "clang-format 14"; continue
            fi
            "$tool" --dry-run -Werror "${code[@]}"; report "clang-format" $? ;;
        tidy)
            tool=$(command -v clang-tidy || true)
            if [ -z "$tool" ]; then missing clang-tidy; continue; fi
            # language flags, then files; "N warnings generated" on stderr is about headers that nobody asked for
            tidy() {
                local flags=$1; shift
                printf '%s\0' "$@" | xargs -0 -P "$(nproc)" -n 4 sh -c 'tool=$1 flags=$2; shift 2
                    "$tool" --quiet --warnings-as-errors="*" "$@" -- $flags 2>/dev/null' tidy "$tool" "$flags"
            }
            status=0
            tidy "-std=c11 -D_GNU_SOURCE $includes" "${c_files[@]}" || status=1
            tidy "-x c++ -std=c++17 -Idev/cpu/include $includes" "${cu_files[@]}" || status=1
            report "clang-tidy" $status ;;
        cppcheck)
            if ! command -v cppcheck >/dev/null; then missing cppcheck; continue; fi
            # Tests count as users. Kernels are templates and launches, which cppcheck does not follow. It takes .c for
            # C and must be told that .cu is C++: it reads a copy in which it is called .cpp.
            copy=$(mktemp -d)
            git ls-files '*.c' '*.h' '*.cu' ':!dev/fuzz' ':!dev/kernels' ':!seal_kernels/*.cu' ':!dev/cpu' |
                tar -cf - -T - | tar -xf - -C "$copy"
            find "$copy" -name '*.cu' -exec sh -c 'for f; do mv "$f" "${f%.cu}.cpp"; done' sh {} +
            echo '#define cJSON_ArrayForEach(e, a) for (e = a; e; e = e)' >"$copy/macros.h"
            mapfile -t files < <(cd "$copy" && find . -name '*.c' -o -name '*.cpp')
            found=$(cd "$copy" && cppcheck --enable=unusedFunction --quiet --suppress=internalAstError \
                --include=macros.h --template='{file}:{line}: {message} [{id}]' "${files[@]}" 2>&1 |
                # LeakSanitizer calls that one; compilers watch statics
                grep 'unusedFunction' | grep -vE '__lsan_is_turned_off|^dev/test/')
            rm -rf "$copy"
            # It loses its way in macros that make tables: what is named three times (defined, declared, used) is used.
            found=$(while IFS= read -r line; do
                name=$(sed -n "s/.*The function '\([a-z_A-Z0-9]*\)'.*/\1/p" <<<"$line")
                [ "$(git grep -w -h -o -e "$name" -- '*.c' '*.h' '*.cu' | wc -l)" -gt 2 ] || echo "$line"
            done <<<"$found")
            [ -n "$found" ] && echo "$found"
            report "cppcheck" "$([ -z "$found" ]; echo $?)" ;;
        shell)
            if ! command -v shellcheck >/dev/null; then missing shellcheck; continue; fi
            shellcheck --severity=warning "${scripts[@]}"; report "shellcheck" $? ;;
        columns)  # of comments and scripts too, which no formatter breaks
            # A line may be longer for one literal or URL, which cannot be broken: 60 columns are left for the rest.
            found=$(git ls-files -z '*.sh' .ci/run '*.c' '*.h' '*.cu' '*.cpp' '*.awk' Makefile |
                LC_ALL=C.UTF-8 xargs -0 grep -nHE '^.{121}' | awk '{
                    rest = $0; sub(/^[^:]*:[0-9]+:/, "", rest); columns = length(rest); longest = 0
                    if (match(rest, /https?:[^ ]+/)) longest = RLENGTH
                    while (match(rest, /"([^"\\]|\\.)*"|\047[^\047]*\047/)) {
                        if (RLENGTH > longest) longest = RLENGTH
                        rest = substr(rest, RSTART + RLENGTH)
                    }
                    if (columns - longest > 60) print }')
            [ -n "$found" ] && echo "$found"
            report "columns" "$([ -z "$found" ]; echo $?)" ;;
        references | language) bash "dev/test/$part.sh"; report "$part" $? ;;
        *)
            echo "lint: $part is not a part; expected format, tidy, cppcheck, shell, columns, references or language" >&2
            exit 2 ;;
    esac
done
exit $failed
