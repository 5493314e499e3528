#!/usr/bin/env bash
# The PTX of every kernel, assembled by the ptxas of other CUDA releases: does it take the code, and does it spill
# registers where the newest does not? PyPI's nvidia-cuda-nvcc-cu12 wheels hold ptxas and libnvvm, and no nvcc, cudafe++
# or cicc, so the PTX is that of the nvcc at hand, its `.version` lowered to what the release knows; an instruction that
# the release lacks is then an error by its name. What this cannot show is how another nvcc would compile the sources.
# usage: ptxas_versions.sh          needs nvcc, python3 with pip and, at first, the network; wheels stay in build/ptxas
# What has been assembled is kept in build/ptxas until a source changes: a run that was stopped continues.
#        VERSIONS='12.1.105 12.4.131 12.9.86' PRECISIONS='bf16 fp32' ARCHS='90 80' FILES='rope loss' (default: every
#        kernel file)
set -u
cd "$(dirname "$0")/../.." || exit 1
versions=${VERSIONS:-12.1.105 12.4.131 12.9.86} precisions=${PRECISIONS:-bf16 fp32} archs=${ARCHS:-90 80}
files=${FILES:-$(cd seal_kernels && ls *.cu | sed 's/\.cu$//')}
python=${PYTHON:-python3} \
    nvcc=${NVCC:-$(ls "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" 2>/dev/null || command -v nvcc || true)}
[ -n "$nvcc" ] || { echo "ok ptxas # SKIP nvcc not found"; exit 0; }
own=$(dirname "$nvcc")/ptxas
work=build/ptxas status=0
mkdir -p $work
# The newest PTX that a release of ptxas knows, from NVIDIA's table of PTX ISA versions.
isa_of() {
    case $1 in
        12.0.*) echo 8.0 ;;
        12.1.*) echo 8.1 ;;
        12.2.*) echo 8.2 ;;
        12.3.*) echo 8.3 ;;
        12.4.*) echo 8.4 ;;
        12.5.* | 12.6.*) echo 8.5 ;;
        12.8.*) echo 8.7 ;;
        12.9.*) echo 8.8 ;;
    esac
}
fetch() {  # VERSION: prints the path of its ptxas
    local wheel=$work/$1
    if [ ! -x "$wheel/nvidia/cuda_nvcc/bin/ptxas" ]; then
        rm -rf "$wheel.part" && mkdir -p "$wheel.part" || return 1
        "$python" -m pip download -q --no-deps --only-binary :all: -d "$wheel.part" "nvidia-cuda-nvcc-cu12==$1" \
            >"$work/log" 2>&1 || return 1
        "$python" -m zipfile -e "$wheel.part"/*.whl "$wheel.part" &&
            chmod +x "$wheel.part/nvidia/cuda_nvcc/bin/ptxas" && rm -f "$wheel.part"/*.whl || return 1
        rm -rf "$wheel" && mv "$wheel.part" "$wheel" || return 1
    fi
    echo "$wheel/nvidia/cuda_nvcc/bin/ptxas"
}
ptx_of() {  # FILE PRECISION ARCH: prints the path of its PTX
    local to=$work/sm_$3-$2/$1.ptx flag=
    [ "$2" = bf16 ] && flag=-DPRECISION_BF16
    if [ ! "$to" -nt "seal_kernels/$1.cu" ] || [ -n "$(find seal_kernels -name '*.h' -newer "$to" -print -quit)" ]; then
        mkdir -p "$(dirname "$to")"
        # shellcheck disable=SC2086
        "$nvcc" -std=c++17 -O3 -ptx -arch="compute_$3" $flag -Iseal_kernels "seal_kernels/$1.cu" -o "$to.part" \
            2>"$work/log" && mv "$to.part" "$to" || return 1
    fi
    echo "$to"
}
# FILE PRECISION ARCH PTXAS ISA: "functions registers spilled-functions seconds", or the first error
assemble() {
    local ptx lowered=$work/lowered.ptx begun=$SECONDS kept
    ptx=$(ptx_of "$1" "$2" "$3") || { echo "nvcc: $(head -1 "$work/log")"; return 1; }
    kept=$ptx.$("$4" --version | sed -n 's/.*, V//p')
    if [ "$kept" -nt "$ptx" ]; then cat "$kept"; return; fi
    sed -E "s/^\.version [0-9.]+/.version $5/" "$ptx" >"$lowered"
    "$4" -arch="sm_$3" -v "$lowered" -o "$work/out.cubin" >"$work/log" 2>&1 || {
        grep -m1 -E 'error|fatal' "$work/log" | sed "s|$lowered|$1.ptx|"; return 1
    }
    awk -v seconds=$((SECONDS - begun)) '
        /Compiling entry function/ { n++ }
        /Used [0-9]+ registers/ { for (i = 1; i < NF; i++) if ($i == "Used" && $(i + 1) > most) most = $(i + 1) }
        /bytes spill stores/ { if ($0 !~ / 0 bytes spill stores, 0 bytes spill loads/) spilled++ }
        END { print n + 0, most + 0, spilled + 0, seconds }' "$work/log" | tee "$kept.part"
    mv "$kept.part" "$kept"
    grep -E -B1 '[1-9][0-9]* bytes spill' "$work/log" |
        grep -oE "Function properties for .*|[0-9]+ bytes spill stores, [0-9]+ bytes spill loads" |
        c++filt >"$kept.spills"
}
printf '' >$work/table
for version in $versions own; do
    if [ "$version" = own ]; then
        first() { echo "$1"; }
        ptxas=$own
        isa=$(sed -n 's/^\.version //p' "$(ptx_of "$(first $files)" "$(first $precisions)" "$(first $archs)")")
    else
        isa=$(isa_of "$version")
        [ -n "$isa" ] || { echo "not ok ptxas $version: its PTX ISA is not in the table"; status=1; continue; }
        ptxas=$(fetch "$version") || {
            echo "ok ptxas $version # SKIP its wheel cannot be downloaded: $(tail -1 $work/log)"; continue
        }
    fi
    name=$("$ptxas" --version | sed -n 's/.*release \([0-9.]*\), V\([0-9.]*\).*/\2/p')
    for arch in $archs; do
        for precision in $precisions; do
            functions=0 most=0 spilled=0 refused='' spills='' took=$SECONDS
            for f in $files; do
                if result=$(assemble "$f" "$precision" "$arch" "$ptxas" "$isa"); then
                    read -r n registers s _ <<<"$result"
                    functions=$((functions + n)) spilled=$((spilled + s))
                    [ "$registers" -gt "$most" ] && most=$registers
                    [ "$s" -gt 0 ] && spills+=" $f ($s)"
                else refused+=" $f: $result;"; fi
            done
            if [ -z "$refused$spills" ]; then
                echo "ok ptxas $name sm_$arch $precision: $functions kernels, at most $most registers, no spill" \
                    "($((SECONDS - took)) s)"
            else
                status=1
                echo "not ok ptxas $name sm_$arch $precision:${refused:+ refused:$refused}${spills:+ spills in$spills}"
            fi
            echo "| $name | $isa | sm_$arch | $precision | $(wc -w <<<"$files") | $functions | $most |" \
                "$spilled${spills:+:$spills} | ${refused:-none} |" >>$work/table
        done
    done
done
echo "# | ptxas | PTX ISA | code | precision | files | kernels | most registers | kernels that spill | refused |"
sed 's/^/# /' $work/table
exit $status
