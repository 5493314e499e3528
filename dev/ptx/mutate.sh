#!/usr/bin/env bash
# A test of the test: errors planted in the asm of seal_kernels/ptx.h, which g++ never sees, one at a time, where nvcc has put it:
# between the marks of inline asm in the PTX. The attention of head size 32 is run with each of them in place of its own
# (other sizes and windows stay as they are) under dev/kernels/attention --check --small, which must fail.
# usage: mutate.sh [NAME…]     (after dev/ptx/test.sh, whose builds it takes; results in build/ptx/mutate)
# bf16 alone: in fp32 attention has no asm, and the only asm of any kernel is the exponential of decode_attention.
set -u
cd "$(dirname "$0")/../.." || exit 1
# name | precision | sed -E expression on a line of inline asm. R is a register, A an address.
mutations='
mma-b-swapped        | bf16 | s/(mma\..*, \{)(R), ?(R)(\}, \{)/\1\3,\2\4/
mma-a1-a2-swapped    | bf16 | s/(mma\.[^}]*\}, \{R), ?(R), ?(R), ?(R\})/\1,\3,\2,\4/
mma-a0-a1-swapped    | bf16 | s/(mma\.[^}]*\}, \{)(R), ?(R), ?/\1\3,\2,/
mma-rows-swapped     | bf16 | s/(mma\.[^{]*\{)(R), ?(R), ?(R), ?(R)\}/\1\4,\5,\2,\3}/
mma-sum-shuffled     | bf16 | s/(mma\..*\{)(R), ?(R), ?(R), ?(R)\};/\1\3,\2,\5,\4};/
trans-dropped        | bf16 | s/x4\.trans\.shared/x4.shared/
trans-added          | bf16 | s/x4\.shared/x4.trans.shared/
ldmatrix-order       | bf16 | s/(m8n8\.x4\.shared\.b16 \{R), ?(R), ?(R), ?(R\})/\1,\3,\2,\4/
ldmatrix-trans-order | bf16 | s/(m8n8\.x4\.trans\.shared\.b16 \{R), ?(R), ?(R), ?(R\})/\1,\3,\2,\4/
zero-fill-dropped    | bf16 | s/(cp\.async\.cg.*, 16), R;/\1;/
nothing-copied       | bf16 | s/(cp\.async\.cg.*, 16), R;/\1, 0;/
half-a-copy          | bf16 | s/(cp\.async\.cg.*, 16);/\1, 8;/
wait-too-late        | bf16 | s/wait_group 0;/wait_group 1;/
wait-dropped         | bf16 | s/cp\.async\.wait_group .*;//
commit-dropped       | bf16 | s/cp\.async\.commit_group;//
exponential-dropped  | bf16 | s/ex2\.approx\.ftz\.f32/mov.f32/
exponential-replaced | bf16 | s/ex2\.approx\.ftz\.f32/rcp.approx.ftz.f32/
'
dir=build/ptx/mutate
mkdir -p $dir
# run PRECISION NAME SED: 0 where the check passes, 4 where the expression changes nothing
run() {
    local precision=$1 name=$2 expression=$3 build=build/cpu-$1-ptx original=build/ptx/sm_90-$1/seal_kernels/attention_$1.ptx from defines= onednn
    from=$dir/$precision-$name
    [ "$precision" = bf16 ] && defines=-DPRECISION_BF16
    rm -rf "$from" && mkdir -p "$from"
    expression=${expression//R/%[a-z]+[0-9]+}
    sed -E "/begin inline asm/,/end inline asm/{${expression:-b}}" "$original" >"$from/m.ptx"
    [ -n "$expression" ] && cmp -s "$original" "$from/m.ptx" && return 4
    python3 dev/ptx/translate.py --source "seal_kernels/attention_$precision.cu" --arch mutated --only 'ILi32E(Lb0E)?E' "$from/m.ptx" "$from/m.cpp" 2>"$from/log" || return 3
    # shellcheck disable=SC2086
    g++ -std=c++17 -O1 -march=native -ffp-contract=off -fno-strict-aliasing -w -DCPU_PTX $defines -Idev/cpu/include -Idev/ptx -c "$from/m.cpp" -o "$from/m.o" 2>"$from/log" || return 3
    onednn=$(dev/deps.sh --has oneDNN && echo "-ldnnl -lgomp")
    # shellcheck disable=SC2086
    g++ "$build/dev/kernels/attention.cu.o" "$build/libseal_kernels.a" "build/ptx/sm_90-$precision"/seal_kernels/*.o "$from/m.o" -o "$from/attention" -lopenblas $onednn -lpthread -lm 2>"$from/log" || return 3
    CPU_DEVICE=h100 CPU_PTX=mutated,sm_90 timeout 600 "$from/attention" --check --small >"$from/log" 2>&1
    local status=$?
    rm -f "$from/attention" "$from/m.o" "$from/m.cpp" "$from/m.ptx"
    [ $status -eq 0 ] || return 1
}
planted=0 caught=0 status=0
for precision in ${PRECISIONS:-bf16}; do
    [ -x "build/cpu-$precision-ptx/dev/kernels/attention" ] || { echo "mutate.sh: build/cpu-$precision-ptx/dev/kernels/attention is not built; run dev/ptx/test.sh" >&2; exit 2; }
    run "$precision" none ''
    result=$?
    [ $result -eq 0 ] || { echo "not ok $precision: without an error planted the check fails ($result), $dir/$precision-none/log"; exit 1; }
    echo "ok $precision: without an error planted the check passes"
    while IFS='|' read -r name of expression; do
        name=${name// /} of=${of// /} expression=${expression# }
        [ "$of" = "$precision" ] || continue
        if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then continue; fi
        planted=$((planted + 1))
        run "$precision" "$name" "$expression"
        case $? in
            1) caught=$((caught + 1)); echo "ok $precision $name is caught: $(grep -vE '^ok' "$dir/$precision-$name/log" | head -1)" ;;
            0) status=1; echo "not ok $precision $name: the check passes" ;;
            4) status=1; echo "not ok $precision $name: nothing was planted" ;;
            *) status=1; echo "not ok $precision $name: it could not be built: $(head -1 "$dir/$precision-$name/log")" ;;
        esac
    done <<<"$mutations"
done
echo "# $caught caught of $planted planted"
exit $status
