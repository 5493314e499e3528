#!/usr/bin/env bash
# Every fuzz target for SECONDS (default 10), two at a time: what the fuzzers find in a moment, each starts from its
# seeds. TAP lines. `make test-fuzz` calls it; hours are dev/fuzz/run.sh's.
# Needs clang with libFuzzer; as root it is installed (Debian).
set -u
cd "$(dirname "$0")/../.." || exit 1
seconds=${1:-10}
# The same inputs whenever the same tree is checked, as far as the seconds reach; new ones are for the hours.
export FUZZ_SEED=${FUZZ_SEED:-1}
fuzzer_links() {
    echo 'int LLVMFuzzerTestOneInput(const unsigned char* data, unsigned long n) { return data[n - 1] == 0; }' |
        "${CLANG:-clang}" -fsanitize=fuzzer,address -x c - -o /dev/null
} >/dev/null 2>&1
if ! fuzzer_links; then
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null &&
        apt-get install -y -qq clang libclang-rt-14-dev >/dev/null 2>&1
    fuzzer_links || {
        echo "ok fuzzing # SKIP no clang with libFuzzer here (apt-get install clang libclang-rt-14-dev)"; exit 0
    }
fi
log=$(mktemp); trap 'rm -f "$log"' EXIT
dev/fuzz/build.sh >"$log" 2>&1 || { echo "not ok the fuzz targets build: $(tail -1 "$log")"; exit 1; }
one() {  # run.sh's line: date, target, CPU s, executions, edges, features, inputs kept, findings
    local executions edges findings
    IFS=$'\t' read -r _ _ _ executions edges _ _ findings < <(dev/fuzz/run.sh "$1" "$2" | tail -1)
    if [ "${findings:-1}" -eq 0 ] && [ "${executions:-0}" -gt 0 ]; then
        echo "ok fuzzing $1: $executions executions, $edges edges"
    else
        echo "not ok fuzzing $1: an input stops it, in build/fuzz/found/$1"
        grep -E 'MUST|ERROR|runtime error|    #[0-6] |Base64' "build/fuzz/$1.log" | head -12
        return 1
    fi
}
export -f one
ls dev/fuzz/seeds | xargs -P 2 -I{} bash -c "one {} $seconds"
