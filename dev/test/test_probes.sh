#!/usr/bin/env bash
# What the Makefile and dev/deps.sh find out about a machine, each with a thing that is there and one that is not: every
# probe must be able to fail. Then the block that `make` stops with: all that is missing, one command, and nothing
# compiled.
set -u
. "$(dirname "$0")/cli.sh"
yes() { truth "$1 is found" "${@:2}"; }
no() {
    local name=$1; shift
    if "$@" >/dev/null 2>&1; then not_ok "$name is not found: yet it was"; else ok "$name is not found"; fi
}

probe() { dev/deps.sh --probe "$@"; }
yes "a program" probe program sh
no "a program that does not exist" probe program no-such-program
yes "a header" probe header stdio.h
no "a header that does not exist" probe header no/such/header.h
no "a header with a # in its name" probe header '#.h'
yes "a library" probe library libcrypto:1.1.1 openssl/evp.h -lcrypto
no "a library of a version that does not exist" probe library libcrypto:99 openssl/evp.h -lcrypto
yes "a library whose header has the version" probe library no-such-package:1 zlib.h -lz 'ZLIB_VERNUM>=0x1000'
no "a library whose header has an older version" probe library no-such-package:1 zlib.h -lz 'ZLIB_VERNUM>=0x99999'
no "a library without its header" probe library no-such-package:1 no/such/header.h -lm
no "a library that does not link" probe library no-such-package:1 stdio.h -lno-such-library
no "a library that the compiler of the programs does not link" env CXX=false dev/deps.sh --probe library zlib:1.2 \
    zlib.h -lz
yes "a library that pkg-config does not know" probe library no-such-package:1 stdio.h -lm
yes "flags" probe flags "$(printf '#!/bin/sh\necho -I/x' >"$work/says" && chmod +x "$work/says" && echo "$work/says")"
no "flags of a program that says nothing" probe flags true
no "flags of a program that does not exist" probe flags no-such-program

# ---- the Makefile's list, on machines put together from links: PATH is one folder
machine=$work/bin
mkdir "$machine"
for program in bash sh env make cat grep head tr awk sed rm ln ls find mkdir dirname basename mktemp id uname nproc \
    test true echo printf \
    touch readlink sort wc gcc g++ cc as ld ar; do
    for path in $(type -aP $program); do
        case $(readlink -f "$path") in *ccache | *distcc) continue ;; esac  # these look for the compiler in PATH
        ln -s "$path" "$machine/$program"
        break
    done
done
stub() { printf '#!/bin/sh\n%s\n' "$2" >"$machine/$1" && chmod +x "$machine/$1"; }
info() {
    PATH=$machine MAKEFLAGS='' make -s info CPU=1 CC="${cc:-gcc}" CXX=g++ CUDA_HOME="${cuda:-/no/such}" \
        NCCL_HOME="${nccl:-/no/such}" 2>&1
}
ticks() {
    local name=$1 sign=$2 list=$3 word; shift 3
    for word; do truth "$name: $sign $word" grep -qE "^  $sign $word( |:|$)" <<<"$list"; done
}
stub refusing 'for a; do case " $REFUSED " in *" $a "*) exit 1 ;; esac; done; exec gcc "$@"'  # a compiler that does not know some words
bare=$(info)
ticks "a machine with a compiler alone" ✗ "$bare" nvcc GPU cuBLASLt MPI mpirun gnuplot pkg-config
ticks "a machine with a compiler alone" ✓ "$bare" C 'C\+\+'
stub nvidia-smi 'echo "NVIDIA-SMI has failed because it could not talk to the driver"; exit 9'
stub mpicc 'exit 1'
mkdir -p "$work/nccl/include" && : >"$work/nccl/include/nccl.h"
broken=$(export REFUSED=-lnccl; cc=refusing nccl=$work/nccl info)
ticks "a driver that does not answer, an mpicc that fails, a NCCL without its library" ✗ "$broken" GPU MPI NCCL
stub nvidia-smi 'echo 9.0'
stub mpicc 'echo gcc -I/usr/include -lmpi'
stub mpirun ''; stub gnuplot ''
mkdir -p "$work/cuda/bin" "$work/cuda/include" "$work/nccl/lib" && : >"$work/cuda/include/cublasLt.h"
printf '#!/bin/sh\necho compute_90\n' >"$work/cuda/bin/nvcc" && chmod +x "$work/cuda/bin/nvcc"
echo 'int nccl;' | gcc -shared -fPIC -x c - -o "$work/nccl/lib/libnccl.so"
full=$(cuda=$work/cuda nccl=$work/nccl info)
ticks "a machine that has all" ✓ "$full" nvcc GPU cuBLASLt MPI NCCL mpirun gnuplot

# ---- the stop before compiling
rm "$machine/mpicc"
stop() {
    PATH=$machine MAKEFLAGS='' make -j2 "$@" BUILD="$work/build" CPU=1 CC=refusing CXX=g++ >"$work/out" 2>"$work/err"
}
while read -r name package header goal; do
    REFUSED=$header stop $goal; status=$?
    export REFUSED
    truth "without $name \`make $goal\` stops" test $status -eq 2
    truth "and names it" grep -qE "^    $name" "$work/err"
    truth "and its package alone" grep -qE "^On Debian and Ubuntu: (sudo )?apt-get install $package\$" "$work/err"
    truth "before anything is compiled" test -z "$(find "$work/build" -type f 2>/dev/null)"
done <<'ROWS'
PCRE2 libpcre2-dev pcre2.h
utf8proc libutf8proc-dev utf8proc.h
cJSON libcjson-dev cjson/cJSON.h
zlib zlib1g-dev zlib.h
zstd libzstd-dev zstd.h
libcrypto libssl-dev openssl/evp.h
stb_ds libstb-dev stb/stb_ds.h
OpenBLAS libopenblas-dev cblas.h
cmocka libcmocka-dev cmocka.h test-build
ROWS
REFUSED="cjson/cJSON.h pcre2.h stb/stb_ds.h" stop
truth "three that are missing are one block" grep \
    -qE "^On Debian and Ubuntu: (sudo )?apt-get install libpcre2-dev libcjson-dev libstb-dev\$" "$work/err"
truth "with one line each" test "$(grep -c '^    ' "$work/err")" -eq 3
stub pkg-config 'case "$*" in *libpcre2-8*) case $1 in --exists) exit 0 ;; --atleast-version=*) exit 1 ;; --modversion) echo 10.30 ;; esac ;; *) exit 1 ;; esac'
REFUSED='' stop
truth "a library that is too old is named with both versions" grep -q '^    PCRE2 10.36 or newer, found 10.30$' \
    "$work/err"
rm "$machine/pkg-config"
PATH=$machine MAKEFLAGS='' make CC=no-such-cc CXX=no-such-cxx CPU=1 BUILD="$work/build" \
    >"$work/out" 2>"$work/err"; status=$?
truth "compilers that do not exist stop it too" test $status -eq 2 \
    -a "$(grep -cE '^    C(\+\+)? \(no-such-' "$work/err")" -eq 2
truth "and what is there is not called missing" test "$(grep -c '^    ' "$work/err")" -eq 2
truth "INSTALL=no names what is missing and installs nothing" bash -c \
    "PATH=$machine INSTALL=no dev/deps.sh 2>&1 | grep -q '^missing: .*libopenmpi-dev'"

# ---- GPUs: which code is made, by what nvidia-smi and nvcc say
stub nvidia-smi 'printf "$CAPABILITIES"'
stub nvcc 'case $1 in --list-gpu-arch) for a in $KNOWN; do echo compute_$a; done ;; esac'
archs() { PATH=$machine CAPABILITIES=$1 KNOWN=$2 dev/gpu_archs.sh --archs nvcc; }
cuda12='70 75 80 86 87 89 90 90a' cuda13='75 80 86 87 88 89 90 100 103 110 120 121'
while IFS='|' read -r name capabilities known expected; do
    truth "code for $name: $expected" test "$(archs "$capabilities" "${!known}")" = "$expected"
done <<'ROWS'
no GPU|No devices were found\n|cuda12|80 90 ptx:90
a GPU that cannot be asked|[N/A]\n|cuda12|80 90 ptx:90
an H100|9.0\n|cuda12|90 ptx:90
four GPUs of two kinds|8.0\n9.0\n9.0\n8.0\n|cuda13|80 90 ptx:90
a GPU newer than nvcc|10.0\n|cuda12|ptx:90
one that is newer and one that is known|12.0\n8.9\n|cuda12|89 ptx:90
the same with a newer nvcc|12.0\n8.9\n|cuda13|89 120 ptx:120
a GPU that is too old beside one that is not|7.5\n8.6\n|cuda13|86 ptx:86
an nvcc that lacks a GPU's number but knows its generation|8.8\n|cuda12|87 ptx:87
ROWS
build_for() {
    PATH=$machine CAPABILITIES=$1 KNOWN=$2 MAKEFLAGS='' make -s info CUDA=1 CUDA_HOME=/no/such RANKS= >"$work/out" 2>&1
}
build_for '7.5\n' "$cuda13"; status=$?
truth "CUDA=1 for an old GPU alone stops with one sentence" test $status -eq 2 \
    -a "$(grep -c 'compute capability 7.5; 8.0 or newer is needed' "$work/out")" -eq 1
build_for '9.0\n' ''; status=$?
truth "and with an nvcc that knows no architectures" test $status -eq 2 \
    -a "$(grep -c 'names nothing; CUDA 12.0 or newer' "$work/out")" -eq 1
build_for '9.0\n' '50 60 70'; status=$?
truth "and with one that is too old" test $status -eq 2 \
    -a "$(grep -c 'knows no GPU of compute capability 8.0' "$work/out")" -eq 1
build_for '9.0\n' "$cuda12"; status=$?
truth "and builds for the others" test $status -eq 0
default_for() {
    PATH=$machine CAPABILITIES=$1 KNOWN=$cuda12 MAKEFLAGS='' make -s info CUDA_HOME=/no/such >"$work/out" 2>&1
}
default_for '9.0\n'
truth "a GPU build is the default where one can be made" grep -q 'cuda build, bf16' "$work/out"
default_for '7.5\n'
truth "and a CPU build where the GPU is too old" grep -q 'cpu build, fp32' "$work/out"
exit $failed
