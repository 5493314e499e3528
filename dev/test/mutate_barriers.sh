#!/usr/bin/env bash
# A test of the tests: every __syncthreads, __syncwarp and team_sync of seal_kernels is left out, one at a time, and a
# check of dev/kernels that reaches it must fail: ThreadSanitizer names the race, or the result is another. The emulator
# skips the barrier of CPU_SKIP_BARRIER, so nothing is compiled again for a barrier; each program is built once, as
# dev/cpu/sanitize.sh does (bf16 with the GPU's halves), with no more of seal_kernels than it calls. Small shapes first,
# all of them where those do not catch it.
# usage: mutate_barriers.sh [FILE | FILE:LINE…]     (default: all of seal_kernels; SMALL_ONLY=1: small shapes alone)
# What has been caught is kept in build/mutate until a source changes: a run that was stopped continues.
set -u
cd "$(dirname "$0")/../.." || exit 1
. dev/cpu/build.sh
export TSAN_OPTIONS=halt_on_error=1
work=build/mutate
mkdir -p $work
# The programs that reach a file, each in one precision.
programs_of() {
    case $1 in
        attention_bf16.cu) echo bf16:attention ;;
        attention_fp32.cu) echo fp32:attention ;;
        column_sums.h | norm_rows.h) echo bf16:layernorm ;;
        cuda_common.h) echo bf16:loss bf16:sampling ;;
        *) echo "bf16:$(basename "$1" .cu)" ;;
    esac
}
# PRECISION NAME: the program, built where a source is newer. Its own file of seal_kernels and those that the linker
# misses.
build() {
    local dir=$work/$1 name=$2 sources="$2.cu" objects f missing
    DEFINES=
    [ "$1" = bf16 ] && DEFINES="-DPRECISION_BF16 -DCPU_DEVICE_HALVES -fno-strict-aliasing"
    build_shim tsan "$dir" && build_object tsan "$dir" "dev/kernels/$name.cu" || return 1
    while true; do
        objects="$dir/tsan/dev/kernels/$name.cu.o $(shim_objects tsan "$dir")"
        for f in $sources; do
            build_object tsan "$dir" "seal_kernels/$f" || return 1; objects+=" $dir/tsan/seal_kernels/$f.o"
        done
        # shellcheck disable=SC2086
        [ -x "$dir/$name" ] && [ -z "$(find $objects -newer "$dir/$name")" ] && return 0
        # shellcheck disable=SC2046,SC2086
        $CXX $(flags_of tsan) $objects -o "$dir/$name" -lopenblas -lpthread 2>"$work/link" && return 0
        missing=$(sed -nE 's/.*undefined reference to `([a-z0-9_]+)\(.*/\1/p' "$work/link" | head -1)
        f=$([ -n "$missing" ] && cd seal_kernels && grep -lE "^[a-z].*[ *]$missing\(" ./*.cu | sed 's|^\./||' |
            grep -vxF "$(tr ' ' '\n' <<<"$sources")" | head -1)
        [ -n "$f" ] || { cat "$work/link"; return 1; }
        sources+=" $f"
    done
}
# check PRECISION NAME SHAPES DEVICE PLACE: one run of a program's checks
check() {
    CPU_DEVICE=$4 CPU_SKIP_BARRIER=$5 CPU_THREADS=1 timeout "${LIMIT:-900}" $run_without_aslr "$work/$1/$2" --check $3 \
        >$work/log.$$ 2>&1
}
# Prints how FILE:LINE was caught; status 1: it was not, 2: it could not be tried.
try() {
    local place=$1 precision name shapes device status
    for shapes in --small ''; do
        for device in h100 rtx4090; do  # a smaller GPU takes other paths
            while IFS=: read -r precision name; do
                if ! build "$precision" "$name" >$work/log.$$ 2>&1; then
                    echo "$precision $name is not built: $(head -1 $work/log.$$)"; return 2
                fi
                # Without a barrier left out it passes, or a failure would say nothing.
                if [ ! "$work/$precision/$name$shapes-$device.whole" -nt "$work/$precision/$name" ]; then
                    check "$precision" "$name" "$shapes" "$device" '' || {
                        echo "$precision $name $shapes $device fails with every barrier in its place"; return 2
                    }
                    touch "$work/$precision/$name$shapes-$device.whole"
                fi
                check "$precision" "$name" "$shapes" "$device" "$place"; status=$?
                [ $status -eq 0 ] && continue
                [ $status -eq 124 ] && {
                    echo "$precision $name $shapes $device had no end within ${LIMIT:-900} s"; return 2
                }
                echo "$precision | $name${shapes:+, small} | $device |" \
                    "$(grep -m1 -E 'WARNING: ThreadSanitizer|^not ok|CUDA on the CPU' $work/log.$$ |
                        sed -E 's/^WARNING: ThreadSanitizer: ([a-z ]*) \(pid.*/\1/')"
                return 0
            done < <(programs_of "$(basename "${place%:*}")" | tr ' ' '\n')
        done
        [ -n "${SMALL_ONLY:-}" ] && return 1
    done
    return 1
}
places=$(grep -nE '\b(__syncthreads|__syncwarp|team_sync)\(\)' seal_kernels/*.cu seal_kernels/*.h |
    grep -v '#define' | cut -d: -f1,2)
[ $# -eq 0 ] || places=$(for p in "$@"; do case $p in *:*) echo "$p" ;; *) grep "^$p:" <<<"$places" ;; esac; done)
planted=0 caught=0 status=0
for place in $places; do
    planted=$((planted + 1))
    kept=$work/${place//\//_}
    if [ ! -e "$kept" ] ||
        [ -n "$(find seal_kernels dev/kernels dev/cpu -newer "$kept" \
            \( -name '*.h' -o -name '*.cu' -o -name '*.cpp' \) -print -quit)" ]; then
        rm -f "$kept"
        how=$(try "$place"); result=$?
        if [ $result -eq 0 ]; then echo "$how" >"$kept"
        else status=1; echo "not ok without $place: ${how:-every check passes}"; continue; fi
    fi
    caught=$((caught + 1)); echo "ok without $place: $(<"$kept")"
done
echo "# $caught caught of $planted left out"
exit $status
