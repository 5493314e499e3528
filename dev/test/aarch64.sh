#!/usr/bin/env bash
# GH200 and GB10 machines have aarch64 CPUs. The CPU build for them, made by Debian's cross compiler against Debian's
# arm64 libraries, and its tests under qemu-user: the host tests, the checks of kernels with their small shapes, whole
# models, and scripts that run the programs. TAP on stdout, with seconds; the last line is `N passed, N failed`.
# usage: aarch64.sh [TEST…]      names as dev/test/test_rows, dev/kernels/rope, test_gpt2, dev/test/test_seal.sh
#                                (default: all of those below)
#        MARCH=armv8-a (what the compiler makes code for; armv9-a has SVE2, as those machines do)    OPT=-O3
#        PRECISIONS='fp32 bf16'    JOBS=cores
# Needs make, qemu-aarch64 (Debian: qemu-user), aarch64-linux-gnu-g++ (g++-aarch64-linux-gnu), apt-get and, at first,
# the network. The libraries are unpacked into build/aarch64 and not installed, so no root is needed and nothing of the
# system changes. One process: no MPI.
# What has passed is not run again until its program is newer: a run that was stopped continues.
set -u
cd "$(dirname "$0")/../.." || exit 1
for tool in aarch64-linux-gnu-g++ qemu-aarch64 apt-get dpkg; do
    command -v $tool >/dev/null || {
        echo "ok aarch64 # SKIP $tool not found (Debian: apt-get install g++-aarch64-linux-gnu qemu-user)"; exit 0
    }
done
march=${MARCH:-armv8-a} precisions=${PRECISIONS:-fp32 bf16} jobs=${JOBS:-$(nproc)} dir=$PWD/build/aarch64
root=$dir/root
mkdir -p "$dir"

# A system's libraries without the system: an apt of its own, for which nothing is installed and the architecture is
# arm64.
packages='libc6-dev libstdc++-12-dev libpcre2-dev libutf8proc-dev libcjson-dev zlib1g-dev libzstd-dev libssl-dev
    libstb-dev libopenblas-dev libcmocka-dev'
unpack() {
    local apt=$dir/apt options mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
    rm -rf "$apt" "$root.part" && mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$root.part" &&
        : >"$apt/status" || return 1
    echo "deb [arch=arm64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror" \
        "$(. /etc/os-release && echo "$VERSION_CODENAME") main" >"$apt/sources.list"
    options="-q -o APT::Architecture=arm64 -o APT::Architectures::=arm64
        -o Dir::State=$apt -o Dir::State::status=$apt/status -o Dir::State::lists=$apt/lists
        -o Dir::Cache=$apt -o Dir::Cache::archives=$apt/archives
        -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::sourcelist=$apt/sources.list -o APT::Sandbox::User=root
        -o Acquire::Languages=none -o Debug::NoLocking=1"
    # shellcheck disable=SC2086
    apt-get $options update && apt-get $options install -y --download-only --no-install-recommends $packages || return 1
    local package
    for package in "$apt"/archives/*.deb; do dpkg -x "$package" "$root.part" || return 1; done
    # what a package's script would have chosen
    ln -s openblas-pthread/libopenblas.so openblas-pthread/libopenblas.so.0 "$root.part/usr/lib/aarch64-linux-gnu" &&
        ln -s openblas-pthread/cblas.h openblas-pthread/openblas_config.h "$root.part/usr/include/aarch64-linux-gnu" &&
        rm -rf "$apt" "$root" && mv "$root.part" "$root"
}
if [ ! -d "$root" ] && ! unpack >"$dir/unpack.log" 2>&1; then
    echo "ok aarch64 # SKIP the arm64 libraries cannot be downloaded:" \
        "$(grep -m1 -E '^(E:|W:|dpkg)' "$dir/unpack.log" || tail -1 "$dir/unpack.log")"
    exit 0
fi

# `make` as a user of such a machine calls it, but for what names the other compiler. One process: mpicc's flags are
# this machine's.
export PKG_CONFIG_LIBDIR=$root/usr/lib/aarch64-linux-gnu/pkgconfig:$root/usr/share/pkgconfig \
    PKG_CONFIG_SYSROOT_DIR=$root
unset PKG_CONFIG_PATH CPATH LIBRARY_PATH LD_LIBRARY_PATH
run="qemu-aarch64 -cpu max -L $root"
host=$(cd dev/test && ls test_*.c | sed 's/\.c$//; s|^|dev/test/|')
kernels=$(cd dev/kernels && ls *.cu | sed 's/\.cu$//; s|^|dev/kernels/|')
device_tests='dev/test/test_lora dev/test/test_seal_parity dev/test/test_seal.sh dev/test/test_resume.sh'
tests=${*:-$host $kernels test_gpt2 $device_tests}
programs='train_seal eval_seal tokenize world mix'
begun=$SECONDS
for precision in $precisions; do
    build=build/aarch64/$march-$precision wanted=
    for t in $tests; do
        case $t in
            *.sh) wanted+=" $programs" ;;
            dev/test/test_gguf) wanted+=" $t train_seal" ;;
            *) [[ $precision = fp32 || " $host " != *" $t "* && -n $host ]] && wanted+=" $t" ;;
        esac
    done
    wanted=$(tr ' ' '\n' <<<"$wanted" | sort -u | sed "/./s|^|$build/|")
    # shellcheck disable=SC2086
    if ! make --no-print-directory -j"$jobs" CPU=1 PRECISION="$precision" BUILD="$build" \
        MPI_FLAGS= WERROR="${WERROR:-}" \
        CC="aarch64-linux-gnu-gcc --sysroot=$root" CXX="aarch64-linux-gnu-g++ --sysroot=$root" \
        OPT="${OPT:--O3} -march=$march -fno-math-errno -fno-trapping-math" $wanted >"$dir/build.log" 2>&1; then
        echo "not ok aarch64 $precision: the build failed"
        grep -vE '^  ' "$dir/build.log" | tail -20 | sed 's/^/    /'
        exit 1
    fi
    echo "# $march $precision built ($((SECONDS - begun)) s); warnings: $(grep -c 'warning:' "$dir/build.log")"
    # Scripts start programs by their path: each has a twin that calls qemu.
    mkdir -p "$build/run"
    for p in $programs; do
        [ -x "$build/$p" ] && printf '#!/bin/sh\nexec %s "%s" "$@"\n' "$run" "$PWD/$build/$p" >"$build/run/$p" &&
            chmod +x "$build/run/$p"
    done
done
one() {  # PRECISION TEST
    local precision=$1 t=$2 build=build/aarch64/$march-$1 log began=$SECONDS status command
    log=$dir/log/$march-$precision-${t##*/}
    case $t in
        *.sh) command="bash $t" ;;
        dev/kernels/*) command="$run $build/$t --check --small" ;;
        *) command="$run $build/$t" ;;
    esac
    if [ -e "$log.passed" ] && [[ $t == *.sh || "$log.passed" -nt "$build/$t" ]]; then cat "$log.passed"; return; fi
    rm -f "$log.passed"
    # shellcheck disable=SC2086
    BUILD=$build/run CMOCKA_MESSAGE_OUTPUT=TAP timeout --kill-after=10 "${LIMIT:-7200}" $command >"$log" 2>&1; status=$?
    local passed failed
    passed=$(grep -E '^ok ' "$log" | grep -vc '# SKIP') failed=$(grep -c '^not ok ' "$log")
    if [ $status -eq 0 ] && [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]; then
        echo "ok $march $precision $t: $passed checks ($((SECONDS - began)) s)" | tee "$log.passed"
    else
        echo "not ok $march $precision $t: $passed checks passed, $failed failed, exit status $status, $log"
        grep -vE '^ok ' "$log" | head -20 | sed 's/^/    /'
    fi
}
mkdir -p "$dir/log"
{
    for precision in $precisions; do
        for t in $tests; do
            # the host's code has one precision
            [[ $precision = fp32 || " $host " != *" $t "* && $t != *.sh ]] || continue
            while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
            one "$precision" "$t" &
        done
    done
    wait
} | tee "$dir/tap"
failed=$(grep -c '^not ok' "$dir/tap")
echo "# aarch64-linux-gnu-g++ $(aarch64-linux-gnu-g++ -dumpfullversion), $(qemu-aarch64 --version | head -1)," \
    "$((SECONDS - begun)) s"
checks=$(sed -n 's/^ok .*: \([0-9]*\) checks.*/\1/p' "$dir/tap" | awk '{ n += $1 } END { print n + 0 }')
echo "$checks checks in $(grep -c '^ok' "$dir/tap") programs passed, $failed failed"
[ "$failed" -eq 0 ]
