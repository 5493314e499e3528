#!/usr/bin/env bash
# The PTX that nvcc makes of every kernel, translated to C++ and run by dev/cpu's emulator (docs/ptx.md): the opcodes'
# own tests, every program of dev/kernels with --check, and the tests of whole models. Says how many kernels ran as PTX;
# one that was launched and has no PTX stops its program.
# usage: test.sh              all of it: PRECISIONS='bf16 fp32', ARCHS='90 80', ORDERS='forward reverse 7' (narrower if
#                             given)
#        test.sh --sample     sm_90, bf16, small shapes, one order, no whole models: three minutes on two cores
#        test.sh --small      small shapes everywhere
#        test.sh --opcodes    the translator's own tests only, which need no nvcc
# JOBS=n processes at a time (cores). Everything is kept in build/ptx and build/cpu-*-ptx. AGAIN=no: a program that has
# passed since it was built is not run again, so that a run that was stopped continues.
set -u
cd "$(dirname "$0")/../.." || exit 1
precisions=${PRECISIONS:-bf16 fp32} archs=${ARCHS:-90 80} orders=${ORDERS:-forward reverse 7}
jobs=${JOBS:-$(nproc)} small= \
    models=${MODELS:-test_gpt2 $(printf 'dev/test/test_%s ' lora families decoder seal_parity)}
kernels=${KERNELS:-$(cd dev/kernels && ls *.cu | sed 's/\.cu$//')}
status=0 start=$SECONDS
case ${1:-} in
    # -O0: the translated attention alone takes four minutes otherwise
    --sample) precisions=bf16 archs=90 orders=7 small=--small models=; export PTX_OPT=-O0 ;;
    --small) small=--small ;;
    --opcodes | '') ;;
    *) echo "usage: test.sh [--sample | --small | --opcodes]" >&2; exit 2 ;;
esac
command -v python3 >/dev/null || { echo "ok ptx # SKIP python3 not found"; exit 0; }
python3 dev/ptx/test_translate.py build/ptx/opcodes || status=1
[ "${1:-}" = --opcodes ] && exit $status
nvcc=${NVCC:-$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)}
[ -n "$nvcc" ] || { echo "ok ptx # SKIP nvcc not found"; exit $status; }

mkdir -p build/ptx/log
for precision in $precisions; do
    build=build/cpu-$precision-ptx
    programs=$(for k in $kernels; do echo "dev/kernels/$k"; done; echo "$models")
    # shellcheck disable=SC2046
    if ! make --no-print-directory -j"$jobs" CPU=1 PRECISION="$precision" PTX=1 PTX_ARCHS="$archs" \
        NVCC="$nvcc" $(for p in $programs; do echo "$build/$p"; done) >build/ptx/log/build 2>&1; then
        echo "not ok ptx $precision: the build failed"
        grep -vE '^  ' build/ptx/log/build | tail -20 | sed 's/^/    /'
        exit 1
    fi
    echo "# $precision built ($((SECONDS - start)) s)"
    for arch in $archs; do
        report=build/ptx/log/sm_$arch-$precision.report
        rm -f "$report" "$report.models" && touch "$report" "$report.models"
        # The emulated GPU of that architecture: its shared memory and multiprocessors.
        device=h100; [ "$arch" = 80 ] && device=a100
        for order in $orders; do
            for p in $programs; do
                log=build/ptx/log/sm_$arch-$precision-$order-${p##*/}$small
                arguments= to=$report.models
                if [[ $p == dev/kernels/* ]]; then
                    arguments="--check $small" to=$report
                    # Its check of distributions draws 200,000 tokens, with 512 emulated threads each.
                    [ "$p" = dev/kernels/sampling ] && arguments="--check --small"
                fi
                begun=$SECONDS
                if [ "${AGAIN:-}" = no ] && [ "$log.passed" -nt "$build/$p" ]; then
                    cat "$log.passed"; cat "$log.report" >>"$to"
                    continue
                fi
                rm -f "$log.report" "$log.passed"
                # shellcheck disable=SC2086
                CPU_DEVICE=$device CPU_ORDER=$order CPU_PTX_REPORT=$log.report timeout "${LIMIT:-3600}" "$build/$p" \
                    $arguments >"$log" 2>&1
                result=$?
                [ ! -e "$log.report" ] || cat "$log.report" >>"$to"
                if [ $result -eq 0 ] && grep -q '^ok' "$log"; then
                    echo "ok sm_$arch $precision $order $p: $(grep -c '^ok' "$log") checks ($((SECONDS - begun)) s)" |
                        tee "$log.passed"
                else
                    status=1
                    echo "not ok sm_$arch $precision $order $p: exit status $result, $log"
                    grep -v '^ok' "$log" | head -20 | sed 's/^/    /'
                fi
            done
        done
        # Kernels by file and name: compiled to PTX, and run.
        for f in build/ptx/sm_"$arch"-"$precision"/seal_kernels/*.ptx; do
            grep -oE '\.entry [$_0-9A-Za-z]+' "$f" | cut -d' ' -f2 | c++filt |
                sed "s|^|seal_kernels/$(basename "$f" .ptx).cu	|"
        done | sort -u >build/ptx/log/compiled
        grep '^ptx' "$report" | cut -f3,4 | sort -u >build/ptx/log/ran
        others=$(cat "$report" "$report.models" | grep '^g++' | cut -f3,4 | sort -u)
        echo "# sm_$arch $precision: $(comm -12 build/ptx/log/compiled build/ptx/log/ran | wc -l) of" \
            "$(wc -l <build/ptx/log/compiled) kernels ran as PTX," \
            "in $(awk -F'\t' '$1 == "ptx" { n += $5 } END { print n + 0 }' "$report" "$report.models") launches;" \
            "by g++ ran $(grep -c seal_kernels <<<"$others") of seal_kernels and" \
            "$(grep -c dev/ <<<"$others") naive ones of the checks ($((SECONDS - start)) s)"
        if grep -q seal_kernels <<<"$others"; then
            status=1; echo "not ok sm_$arch $precision: a kernel was left to g++"
        fi
        # nvcc has compiled every instance that a launcher names, so with all of them launched a check has covered
        # whatever a model may launch: each width of a norm, each head size, grouped and single key-value heads,
        # windows, caps.
        [ -z "$small${KERNELS:-}" ] || continue
        if comm -23 build/ptx/log/compiled build/ptx/log/ran | sed 's/^/    no check launches /' | grep .; then
            status=1; echo "not ok sm_$arch $precision: every instance of every kernel is launched by a check"
        else echo "ok sm_$arch $precision: every instance of every kernel is launched by a check"; fi
    done
done
exit $status
