#!/usr/bin/env bash
# A test of the tests: every __syncthreads, __syncwarp and team_sync of seal_kernels is left out, one at a time, and a check of
# dev/kernels that reaches it must fail: ThreadSanitizer names the race, or the result is another. The programs are those that
# dev/cpu/sanitize.sh builds (bf16 with the GPU's halves); the emulator skips the barrier of CPU_SKIP_BARRIER, so nothing is
# compiled again. Small shapes first, all of them where those do not catch it.
# usage: mutate_barriers.sh [FILE:LINE…]     (default: all; after dev/cpu/sanitize.sh, or BUILD_ONLY programs of it)
set -u
cd "$(dirname "$0")/../.." || exit 1
. dev/cpu/build.sh
export TSAN_OPTIONS=halt_on_error=1
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
# The programs that reach a file, each in one precision.
programs_of() {
    case $1 in
        attention_bf16.cu) echo bf16:attention ;;
        attention_fp32.cu) echo fp32:attention ;;
        column_sums.h) echo bf16:layernorm ;;
        norm_rows.h) echo bf16:layernorm ;;
        cuda_common.h) echo bf16:loss bf16:sampling ;;
        *) echo "bf16:$(basename "$1" .cu)" ;;
    esac
}
# Prints how FILE:LINE was caught.
try() {
    local place=$1 file=${1%:*} pair program shapes device line
    for device in h100 rtx4090; do  # a smaller GPU takes other paths
        for shapes in --small ''; do
            for pair in $(programs_of "$(basename "$file")"); do
                program=build/sanitize/${pair%:*}/tsan/${pair#*:}
                [ -x "$program" ] || { echo "$program is not built: dev/cpu/sanitize.sh ${pair#*:}"; return 2; }
                # shellcheck disable=SC2086
                if ! CPU_DEVICE=$device CPU_SKIP_BARRIER=$place CPU_THREADS=1 timeout 900 $run_without_aslr "$program" --check $shapes >"$work/log" 2>&1; then
                    line=$(grep -m1 -E 'WARNING: ThreadSanitizer|^not ok|CUDA on the CPU' "$work/log")
                    echo "${pair#*:} ${pair%:*}${shapes:+ small} $device: ${line:-no end within 900 s}"
                    return 0
                fi
            done
            [ -n "${SMALL_ONLY:-}" ] && break
        done
    done
    return 1
}
places=$*
[ -n "$places" ] || places=$(grep -nE '\b(__syncthreads|__syncwarp|team_sync)\(\)' seal_kernels/*.cu seal_kernels/*.h | grep -v '#define' | cut -d: -f1,2)
planted=0 caught=0 status=0
for place in $places; do
    planted=$((planted + 1))
    how=$(try "$place"); result=$?
    if [ $result -eq 0 ]; then caught=$((caught + 1)); echo "ok without $place: $how"
    else status=1; echo "not ok without $place: ${how:-every check passes}"; fi
done
echo "# $caught caught of $planted left out"
exit $status
