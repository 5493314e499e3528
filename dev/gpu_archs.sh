#!/usr/bin/env bash
# Which code a GPU build is for, and what to say where it cannot be made: read by the Makefile.
#   gpu_archs.sh --gpus           the compute capabilities that this machine's GPUs have, each once: "8.0 9.0"; nothing
#                                 where there are none, or nvidia-smi cannot ask them
#   gpu_archs.sh --archs NVCC     for nvcc: "80 90 ptx:90". Without a GPU A100 and H100. For a GPU newer than this nvcc,
#                                 PTX of the newest that nvcc knows, which the driver compiles when the program starts
#   gpu_archs.sh --refuse NVCC    one sentence where the build is impossible or would not run on any GPU here, else
#                                 nothing
set -u
least=80  # bf16 tensor cores, cp.async
gpus() {
    nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d ' \r' | grep -xE '[0-9]+\.[0-9]+' |
        sort -Vu
}
known() { "$1" --list-gpu-arch 2>/dev/null | sed -n 's/^compute_\([0-9][0-9]*\)$/\1/p' | sort -nu; }
usable() { gpus | tr -d . | awk -v least=$least '$1 >= least'; }

archs() {  # NVCC
    local all wanted capability best newest=0 code=''
    all=$(known "$1" | awk -v least=$least '$1 >= least')
    wanted=$(usable); [ -n "$wanted" ] || wanted='80 90'
    for capability in $wanted; do
        # code of a capability runs on all later ones of the same generation (8.0 on 8.9), PTX on every later one
        best=$(awk -v c="$capability" '$1 <= c { best = $1 } END { print best }' <<<"$all")
        [ -n "$best" ] || continue
        [ "$best" -gt "$newest" ] && newest=$best
        [ $((best / 10)) -eq $((capability / 10)) ] && code+=$'\n'$best
    done
    [ "$newest" -eq 0 ] && return
    # shellcheck disable=SC2046  # words of one line
    echo $(sort -nu <<<"$code") "ptx:$newest"
}

case ${1:-} in
    --gpus) mapfile -t here < <(gpus); echo "${here[@]}" ;;
    --archs) archs "${2:?}" ;;
    --refuse)
        mapfile -t here < <(gpus)
        if [ ${#here[@]} -gt 0 ] && [ -z "$(usable)" ]; then
            echo "the GPU here has compute capability ${here[*]}; 8.0 or newer is needed (A100, RTX 30, H100 …); make CPU=1 builds for the CPU"
        elif [ -z "$(known "${2:?}")" ]; then
            echo "$2 --list-gpu-arch names nothing; CUDA 12.0 or newer is needed"
        elif [ -z "$(archs "$2")" ]; then
            echo "$2 knows no GPU of compute capability 8.0 or newer; CUDA 12.0 or newer is needed"
        fi ;;
    *) echo "gpu_archs.sh: expected --gpus, --archs NVCC or --refuse NVCC" >&2; exit 2 ;;
esac
