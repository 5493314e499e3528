#!/usr/bin/env bash
# Every program of dev/kernels with its small shapes under AddressSanitizer + UBSan and under ThreadSanitizer, in fp32
# and bf16, each in four orders of threads and blocks: forward, reverse and two seeds (bf16 under TSan: forward and one
# seed). The bf16 programs are built with the GPU's halves of the kernels (CPU_DEVICE_HALVES: 128-bit loads, shuffles,
# single mma), the fp32 ones with the CPU's. Results must not depend on the order, so the checks print the same lines in
# all.
# usage: sanitize.sh [PROGRAM…]    names of dev/kernels (default: all). JOBS=n programs at a time (default: cores).
#                                  Builds in build/sanitize.
set -u
cd "$(dirname "$0")/../.." || exit 1
. dev/cpu/build.sh
programs=${*:-$(cd dev/kernels && ls *.cu | sed 's/\.cu$//')}
JOBS=${JOBS:-$(nproc)}
ORDERS=${ORDERS:-forward reverse 7 1234567}
dir=build/sanitize
export ASAN_OPTIONS=detect_stack_use_after_return=0:${ASAN_OPTIONS:-}
export UBSAN_OPTIONS=print_stacktrace=1:${UBSAN_OPTIONS:-}
export TSAN_OPTIONS=halt_on_error=1:${TSAN_OPTIONS:-}

set_build() {  # precision, kind: DEFINES and the folder
    DEFINES=
    if [ "$1" = bf16 ]; then DEFINES="-DPRECISION_BF16 -DCPU_DEVICE_HALVES -fno-strict-aliasing"; fi
    build=$dir/$1
}
# What xargs calls, one process per file or program.
one_object() { set_build "$1" "$2" && build_object "$2" "$build" "$3"; }
one_link() {
    set_build "$1" "$2"
    $CXX $(flags_of "$2") "$build/$2/dev/kernels/$3.cu.o" $(kernel_objects "$2") $(shim_objects "$2" "$build") \
        -o "$build/$2/$3" -lopenblas -lpthread
}
one_run() {  # precision, kind, program: the four orders, TAP lines with what was run
    set_build "$1" "$2"
    local order log first=$build/$2/$3.forward.log start=$SECONDS orders=$ORDERS
    # ThreadSanitizer finds a race by what is ordered, not by what comes first, and the GPU's halves have up to 1024
    # threads for a row of logits: two orders are enough there.
    [ "$1 $2" = "bf16 tsan" ] && orders=${ORDERS_BF16_TSAN:-forward 7}
    [ -x "$build/$2/$3" ] || { echo "not ok $2 $1 $3: it was not built"; return; }
    for order in $orders; do
        log=$build/$2/$3.$order.log
        if ! CPU_ORDER=$order CPU_THREADS=${CPU_THREADS:-1} $run_without_aslr "$build/$2/$3" --check --small >"$log" \
            2>&1; then
            echo "not ok $2 $1 $3, order $order: $log"
            grep -vE '^ok ' "$log" | head -60 | sed 's/^/    /'
            return
        fi
        if ! grep -q '^ok ' "$log"; then echo "not ok $2 $1 $3, order $order: ran no check"; return; fi
        if [ -e "$first" ] && ! cmp -s "$first" "$log"; then
            echo "not ok $2 $1 $3: the order changes what comes out"
            diff "$first" "$log" | head -10 | sed 's/^/    /'
            return
        fi
    done
    echo "ok $2 $1 $3, $(grep -c '^ok ' "$log") checks in $(wc -w <<<"$orders") orders ($((SECONDS - start)) s)"
}
kernel_objects() { local f; for f in seal_kernels/*.cu; do echo "$build/$1/$f.o"; done; }
case ${ONE:-} in
    object) ONE= one_object "$@"; exit ;;
    link) ONE= one_link "$@"; exit ;;
    run) ONE= one_run "$@"; exit ;;
esac

each() { ONE=$1 xargs -P "$JOBS" -L 1 "$0"; }
start=$SECONDS
mkdir -p $dir
rm -f $dir/*/*/*.log
for precision in bf16 fp32; do
    for kind in tsan asan; do
        for f in seal_kernels/attention_*.cu $(for p in $programs; do echo dev/kernels/$p.cu; done) seal_kernels/*.cu \
            $(shim_sources); do
            echo "$precision $kind $f"
        done | awk '!seen[$0]++'
    done
done | each object
built=$?
for precision in bf16 fp32; do
    for kind in tsan asan; do for p in $programs; do echo "$precision $kind $p"; done; done
done >$dir/programs
each link <$dir/programs || built=1
echo "# built in $((SECONDS - start)) s"
[ $built -eq 0 ] || echo "not ok sanitize: a build failed"
each run <$dir/programs | tee $dir/log
failed=$(grep -c '^not ok' $dir/log)
echo "$(grep -c '^ok' $dir/log) passed, $failed failed ($((SECONDS - start)) s)"
[ $built -eq 0 ] && [ "$failed" -eq 0 ]
