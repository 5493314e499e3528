#!/usr/bin/env bash
# A test of the test: errors planted in the asm of seal_kernels/ptx.h, which g++ never sees, one at a time, where nvcc
# has put it:
# between the marks of inline asm in the PTX. The kernels of head size 32 are run with each of them in place of their
# own (other sizes and windows keep their own) under dev/kernels/attention or decode_attention --check --small, which
# must fail.
# usage: mutate.sh [NAME…]     (after dev/ptx/test.sh, whose builds it takes: PRECISIONS='bf16 fp32', ARCHS='90 80')
# In fp32 only decode_attention has asm, its exponential. What has been caught is kept in build/ptx/mutate until the
# kernels' PTX is newer: a run that was stopped continues.
set -u
cd "$(dirname "$0")/../.." || exit 1
# name | file of seal_kernels | precisions | sed -E expression on a line of inline asm. R is a register.
mutations='
mma-b-swapped        | attention_bf16   | bf16      | s/(mma\..*, \{)(R), ?(R)(\}, \{)/\1\3,\2\4/
mma-a1-a2-swapped    | attention_bf16   | bf16      | s/(mma\.[^}]*\}, \{R), ?(R), ?(R), ?(R\})/\1,\3,\2,\4/
mma-a0-a1-swapped    | attention_bf16   | bf16      | s/(mma\.[^}]*\}, \{)(R), ?(R), ?/\1\3,\2,/
mma-rows-swapped     | attention_bf16   | bf16      | s/(mma\.[^{]*\{)(R), ?(R), ?(R), ?(R)\}/\1\4,\5,\2,\3}/
mma-sum-shuffled     | attention_bf16   | bf16      | s/(mma\..*\{)(R), ?(R), ?(R), ?(R)\};/\1\3,\2,\5,\4};/
trans-dropped        | attention_bf16   | bf16      | s/x4\.trans\.shared/x4.shared/
trans-added          | attention_bf16   | bf16      | s/x4\.shared/x4.trans.shared/
ldmatrix-order       | attention_bf16   | bf16      | s/(m8n8\.x4\.shared\.b16 \{R), ?(R), ?(R), ?(R\})/\1,\3,\2,\4/
ldmatrix-trans-order | attention_bf16   | bf16      | s/(x4\.trans\.shared\.b16 \{R), ?(R), ?(R), ?(R\})/\1,\3,\2,\4/
zero-fill-dropped    | attention_bf16   | bf16      | s/(cp\.async\.cg.*, 16), R;/\1;/
nothing-copied       | attention_bf16   | bf16      | s/(cp\.async\.cg.*, 16), R;/\1, 0;/
half-a-copy          | attention_bf16   | bf16      | s/(cp\.async\.cg.*, 16);/\1, 8;/
wait-too-late        | attention_bf16   | bf16      | s/wait_group 0;/wait_group 1;/
wait-dropped         | attention_bf16   | bf16      | s/cp\.async\.wait_group .*;//
commit-dropped       | attention_bf16   | bf16      | s/cp\.async\.commit_group;//
exponential-dropped  | attention_bf16   | bf16      | s/ex2\.approx\.ftz\.f32/mov.f32/
exponential-replaced | attention_bf16   | bf16      | s/ex2\.approx\.ftz\.f32/rcp.approx.ftz.f32/
exponential-dropped  | decode_attention | bf16 fp32 | s/ex2\.approx\.ftz\.f32/mov.f32/
exponential-replaced | decode_attention | bf16 fp32 | s/ex2\.approx\.ftz\.f32/rcp.approx.ftz.f32/
'
dir=build/ptx/mutate
mkdir -p $dir
onednn=$(dev/deps.sh --has oneDNN && echo "-ldnnl -lgomp")
program_of() { case $1 in attention_*) echo attention ;; *) echo "$1" ;; esac; }
# run ARCH PRECISION FILE NAME SED: 0 where the check passes, 4 where the expression changes nothing
run() {
    local arch=$1 precision=$2 file=$3 expression=$5 from=$dir/$1-$2-$3-$4 defines= program build=build/cpu-$2-ptx \
        ptx=build/ptx/$1-$2/seal_kernels status
    program=$(program_of "$file")
    [ "$precision" = bf16 ] && defines=-DPRECISION_BF16
    mkdir -p "$from"
    expression=${expression//R/%[a-z]+[0-9]+}
    sed -E "/begin inline asm/,/end inline asm/{${expression:-b}}" "$ptx/$file.ptx" >"$from/m.ptx"
    [ -n "$expression" ] && cmp -s "$ptx/$file.ptx" "$from/m.ptx" && return 4
    python3 dev/ptx/translate.py --source "seal_kernels/$file.cu" --arch mutated --only 'ILi32E(Lb0E|Li[0-9]+E)*E' \
        "$from/m.ptx" "$from/m.cpp" 2>"$from/log" || return 3
    # shellcheck disable=SC2086
    g++ -std=c++17 -O0 -march=native -ffp-contract=off -fno-strict-aliasing -w -DCPU_PTX $defines -Idev/cpu/include \
        -Idev/ptx -c "$from/m.cpp" -o "$from/m.o" 2>"$from/log" || return 3
    # shellcheck disable=SC2086
    g++ "$build/dev/kernels/$program.cu.o" "$build/libseal_kernels.a" "$ptx"/*.o "$from/m.o" -o "$from/$program" \
        -lopenblas $onednn -lpthread -lm 2>"$from/log" || return 3
    CPU_DEVICE=$([ "$arch" = sm_80 ] && echo a100 || echo h100) CPU_PTX=mutated,$arch timeout 600 "$from/$program" \
        --check --small >"$from/log" 2>&1
    status=$?
    rm -f "$from/$program" "$from"/m.*
    [ $status -eq 0 ] || return 1
}
planted=0 caught=0 status=0
for arch in ${ARCHS:-90 80}; do
    arch=sm_$arch
    for precision in ${PRECISIONS:-bf16 fp32}; do
        while IFS='|' read -r name file of expression; do
            name=${name// /} file=${file// /} expression=${expression# }
            [[ " $of " == *" $precision "* ]] || continue
            if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then continue; fi
            program=build/cpu-$precision-ptx/dev/kernels/$(program_of "$file") \
                ptx=build/ptx/$arch-$precision/seal_kernels/$file.ptx
            [ -x "$program" ] && [ -e "$ptx" ] || {
                echo "mutate.sh: $program is not built for $arch; run dev/ptx/test.sh" >&2; exit 2
            }
            kept=$dir/$arch-$precision-$file
            if [ ! "$kept.whole" -nt "$ptx" ]; then
                run "$arch" "$precision" "$file" none ''
                result=$?
                [ $result -eq 0 ] || {
                    echo "not ok $arch $precision $file: without an error planted the check fails ($result), $kept-none/log"
                    exit 1
                }
                touch "$kept.whole"
                echo "ok $arch $precision $file: without an error planted the check passes"
            fi
            planted=$((planted + 1)) label="$arch $precision $file $name"
            if [ "$kept-$name.caught" -nt "$ptx" ]; then
                result=1
            else
                run "$arch" "$precision" "$file" "$name" "$expression"; result=$?
            fi
            case $result in
                1)
                    caught=$((caught + 1))
                    [ "$kept-$name.caught" -nt "$ptx" ] ||
                        grep -vE '^ok' "$kept-$name/log" | head -1 >"$kept-$name.caught"
                    echo "ok $label is caught: $(<"$kept-$name.caught")" ;;
                0) status=1; echo "not ok $label: the check passes" ;;
                4) status=1; echo "not ok $label: nothing was planted" ;;
                *) status=1; echo "not ok $label: it could not be built: $(head -1 "$kept-$name/log")" ;;
            esac
        done <<<"$mutations"
    done
done
echo "# $caught caught of $planted planted"
exit $status
