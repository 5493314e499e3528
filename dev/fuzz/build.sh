#!/usr/bin/env bash
# Builds the fuzz targets under ASan and UBSan.
#   dev/fuzz/build.sh            with libFuzzer, into build/fuzz (clang; Debian: clang, libclang-rt-14-dev)
#   dev/fuzz/build.sh --replay   without a fuzzer, into build/fuzz-replay (gcc): programs that run the files named
#   dev/fuzz/build.sh --coverage the same, into build/fuzz-coverage (clang), counting the lines they run: see
#   coverage.sh
set -eu
cd "$(dirname "$0")/../.." || exit 1
packages="libcjson libcrypto zlib libzstd libpcre2-8 libutf8proc"
flags="-std=gnu11 -D_GNU_SOURCE -g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
flags="$flags -Iseal -Itokenizer -Idev/fuzz $(pkg-config --cflags $packages 2>/dev/null || true)"
# tiny buffers of the readers of data files: records cross their ends
flags="$flags -DBUFFER_BYTES=64 -DMAX_VOCAB=65536"
libs="$(pkg-config --libs $packages 2>/dev/null || echo -lcjson -lcrypto -lz -lzstd -lpcre2-8 -lutf8proc) -lpthread -lm"
if [ "${1:-}" = --replay ]; then
    out=build/fuzz-replay compiler=${CC:-gcc} link=
elif [ "${1:-}" = --coverage ]; then
    out=build/fuzz-coverage compiler=${CLANG:-clang} \
        flags="$flags -fprofile-instr-generate -fcoverage-mapping" link=-fprofile-instr-generate
else
    command -v clang >/dev/null || {
        echo "dev/fuzz/build.sh: clang is needed (apt-get install clang libclang-rt-14-dev); --replay does without" >&2
        exit 2
    }
    out=build/fuzz compiler=${CLANG:-clang} \
        flags="$flags -fsanitize=fuzzer-no-link -DFUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION" link=-fsanitize=fuzzer
fi
mkdir -p "$out"
sources=$(ls seal/*.c seal/*/*.c tokenizer/*.c | grep -vE 'seal/base/error.c|_main.c')
targets=$(cd dev/fuzz && ls *.c | grep -vE '^(survive|replay)\.c$')

compile() {  # SOURCE OBJECT: where the source or a header is newer
    if [ ! "$2" -nt "$1" ] || [ -n "$(find seal tokenizer dev/fuzz -name '*.h' -newer "$2" -print -quit)" ]; then
        rm -f "$2"; $compiler $flags -c "$1" -o "$2"
    fi
}
objects= jobs=0
for source in $sources dev/fuzz/survive.c dev/fuzz/replay.c $(printf 'dev/fuzz/%s ' $targets); do
    object=$out/$(echo "$source" | tr / _ | sed 's/\.c$/.o/')
    case $source in
        dev/fuzz/survive.c | seal/* | tokenizer/*) objects="$objects $object" ;;
    esac
    compile "$source" "$object" &
    jobs=$((jobs + 1))
    if [ $((jobs % 2)) -eq 0 ]; then wait; fi  # two at a time
done
wait
for object in $objects $(for t in $targets; do echo "$out/dev_fuzz_${t%.c}.o"; done); do
    [ -e "$object" ] || { echo "dev/fuzz/build.sh: $object was not made" >&2; exit 1; }
done
rm -f "$out/host.a"
ar rcs "$out/host.a" $objects
for target in $targets; do
    target=${target%.c}
    $compiler $flags $link "$out/dev_fuzz_$target.o" \
        $([ "$link" = -fsanitize=fuzzer ] || echo "$out/dev_fuzz_replay.o") "$out/host.a" -o "$out/$target" $libs
done
