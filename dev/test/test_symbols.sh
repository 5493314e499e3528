#!/usr/bin/env bash
# No global function of the programs has a name of the C library: a program's own `bind` would be called by every
# library that it loads, MPI's among them.
BUILD=${BUILD:-build/cpu-fp32}
cd "$(dirname "$0")/../.." || exit 1
libraries=$(ldd "$BUILD/train_seal" | awk '$1 ~ /^lib(c|m|pthread|dl|rt)\.so/ { print $3 }')
if [ -z "$libraries" ]; then echo "ok symbols # SKIP ldd names no C library"; exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck disable=SC2086
nm -D --defined-only $libraries | awk '{ sub(/@.*/, "", $3); print $3 }' | sort -u >"$work/theirs"
if [ "$(wc -l <"$work/theirs")" -lt 1000 ]; then
    echo "not ok symbols: nm names no functions of the C library"; exit 1
fi
failed=0
clashes() {  # PROGRAM
    nm --defined-only "$1" | awk '$2 ~ /[TDB]/ { print $3 }' | sort -u | comm -12 - "$work/theirs" |
        grep -vE '^(_init|_fini|_start|environ|__environ|data_start|_IO_stdin_used|optarg|optind|opterr|optopt|std(in|out|err)|__progname.*|program_invocation.*|_edata|_end|__bss_start|__data_start)$' | tr '\n' ' '
}
echo 'int bind(void) { return 0; } int main(void) { return bind(); }' |
    ${CC:-gcc} -x c -fno-builtin -w - -o "$work/planted"
if [ "$(clashes "$work/planted")" = "bind " ]; then
    echo "ok a planted bind is found"
else
    echo "not ok a planted bind is found"; failed=1
fi
for program in train_seal eval_seal tokenize world mix; do
    clash=$(clashes "$BUILD/$program")
    if [ -z "$clash" ]; then echo "ok $program defines no symbol of the C library"
    else echo "not ok $program defines symbols of the C library: $clash"; failed=1; fi
done
exit $failed
