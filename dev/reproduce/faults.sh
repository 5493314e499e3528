#!/usr/bin/env bash
# What can go wrong around a run, done to it. A small run of Algorithm 1 that takes a checkpoint at every step is killed
# (SIGKILL) at random instants, start-up, training, the writing of checkpoints and of the model alike, resumes each
# time, and must end in the bytes of a run that was left alone: model, selector, log. Then a disk that is too small, one
# that fills up in mid-run, one that is read-only, and a reader of stdout that goes away. Damaged checkpoints are
# test_resume.sh's, ranks that die test_ranks.sh's.
# usage: dev/reproduce/faults.sh [KILLS]     default 200: about four minutes on two idle cores. TAP on stdout. SEED=n
#                                            chooses the instants.
set -u
cd "$(dirname "$0")/../.." || exit 1
. dev/test/cli.sh
kills=${1:-200}
RANDOM=${SEED:-1}
cd "$work" || exit 1
word_tokenizer tok say a b c d e f
say_rows tune.jsonl 121 1
say_rows safe.jsonl 40 2
"$train_seal" init --layers 1 --width 64 --heads 2 --tokenizer tok/tokenizer.json --positions 32 --out base --quiet ||
    exit 1
run=(
    "$train_seal" selector --algorithm 1 --model base --tune=tune.jsonl --safe safe.jsonl --lr 1e-3 --gamma fixed:0.3
    --epochs 5 --batch 8 --tokens 64 --quiet --save-every 1
)

timeless() { sed -E 's/"(wall_s|tokens_per_s|utilisation)":[^,}]*//g; 1s/"(resume|out|keep|quiet)":[^,}]*,?//g' "$1"; }
same() {
    cmp -s whole/model/model.safetensors "$1/model/model.safetensors" &&
        cmp -s whole/selector.safetensors "$1/selector.safetensors" &&
        diff -q <(timeless whole/log.jsonl) <(timeless "$1/log.jsonl") >/dev/null
}
now() { local t=$EPOCHREALTIME; echo $((${t/./} / 1000)); }  # ms

# ---- killed, again and again
began=$(now)
expect "a run left alone" "${run[@]}" --out whole
took=$(($(now) - began))
killed=0 inside=0 runs=0 bad=0 alone=0
most=$((20 * kills + 100))  # starts, of which few end unkilled: more of them mean that nothing can be killed
starts=0
while [ $killed -lt "$kills" ] && [ $starts -lt $most ]; do
    rm -rf killed
    runs=$((runs + 1))
    while :; do
        starts=$((starts + 1))
        "${run[@]}" --out killed --resume >out 2>err & pid=$!
        # early instants are the likelier ones: a run meets several
        sleep "$(awk -v most=$((took + took / 4)) -v r=$RANDOM \
            'BEGIN { printf "%.3f", most * (r / 32768) ^ 2 / 1000 }')"
        if kill -KILL $pid 2>/dev/null; then :; fi
        wait $pid 2>/dev/null; status=$?
        if [ $status -ne 137 ] || [ $starts -ge $most ]; then break; fi
        killed=$((killed + 1))
        for d in killed/checkpoint/step-*; do
            [ -d "$d" ] && [ ! -e "$d/rank-0.sha256" ] && { inside=$((inside + 1)); break; }
        done
    done
    if [ $status -ne 0 ]; then bad=$((bad + 1)); echo "# run $runs: status $status, $(head -1 err)"
    elif ! same killed; then bad=$((bad + 1)); echo "# run $runs: it ended in other bytes"; fi
done
truth "$kills kills came within $starts starts" test $killed -ge "$kills"
truth "$runs runs were killed $killed times, $inside of them inside the writing of a checkpoint; all ended in the same bytes" test $bad -eq 0
truth "nothing half-written is left behind" test -z "$(find killed -name '*.tmp.*' -o -name '.*' -type f)"

# ---- the same with two ranks, of which one is killed
if command -v mpirun >/dev/null; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 \
        PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe OMPI_MCA_mpi_yield_when_idle=1
    mv whole one
    expect "two ranks left alone" mpirun -n 2 "${run[@]}" --out whole
    killed=0 runs=0 bad=0 starts=0
    while [ $killed -lt $((kills / 10)) ] && [ $starts -lt $most ]; do
        rm -rf killed
        runs=$((runs + 1))
        while :; do
            starts=$((starts + 1))
            mpirun -n 2 "${run[@]}" --out killed --resume >out 2>err & pid=$!
            sleep "$(awk -v most=$((2 * took)) -v r=$RANDOM 'BEGIN { printf "%.3f", most * r / 32768 / 1000 }')"
            victims=($(ranks_of $pid))
            [ ${#victims[@]} -gt 0 ] && kill -KILL "${victims[$((RANDOM % ${#victims[@]}))]}" 2>/dev/null &&
                killed=$((killed + 1))
            wait $pid; status=$?
            [ $status -eq 0 ] || [ $starts -ge $most ] && break
            [ ${#victims[@]} -gt 0 ] || {
                bad=$((bad + 1)); echo "# run $runs: nobody was killed and the status is $status: $(head -1 err)"; break
            }
        done
        same killed || { bad=$((bad + 1)); echo "# run $runs: it ended in other bytes"; }
    done
    truth "$((kills / 10)) kills came within $starts starts" test $killed -ge $((kills / 10))
    truth "$runs runs on two ranks lost one $killed times; all ended in the same bytes" test $bad -eq 0
    rm -rf whole && mv one whole
else echo "ok two ranks # SKIP mpirun is not there"; fi

# ---- disks
mount_small() { mkdir -p "$1" && mount -t tmpfs -o size="$2" tmpfs "$1" 2>/dev/null; }
if mount_small small 300k; then
    trap 'cd /; umount "$work"/small "$work"/filling "$work"/frozen 2>/dev/null; rm -rf "$work"' EXIT
    refuse "a disk without room for the run" "MiB are free but the run writes a model of" "${run[@]}" --out small/run
    truth "before it trains" test ! -e small/run/log.jsonl
    mount_small filling 6m
    "${run[@]}" --out filling/run >out 2>err & pid=$!
    wait_for_line $pid filling/run/log.jsonl '"step":9,'
    dd if=/dev/zero of=filling/ballast bs=64k >/dev/null 2>&1
    wait $pid; status=$?
    truth "a disk that fills up ends the run with status 2 (was $status)" test $status -eq 2
    truth "and one line: $(cut -c1-120 err)" bash -c 'test $(wc -l <err) -eq 1 && grep -q "No space left" err'
    rm -f filling/ballast
    expect "with room again it resumes" "${run[@]}" --out filling/run --resume
    truth "to the same bytes" same filling/run
    mount_small frozen 6m && mount -o remount,ro frozen
    refuse "a read-only disk" "Read-only file system" "${run[@]}" --out frozen/run
else echo "ok disks # SKIP mounting a tmpfs needs root (try: unshare -rm dev/reproduce/faults.sh)"; fi
refuse "an output that is a file" "safe.jsonl" "${run[@]}" --out safe.jsonl

# ---- a reader that goes away
loud=("${run[@]}"); unset 'loud[-3]'
{ "${loud[@]}" --out piped 2>err; echo $? >status; } | head -1 >/dev/null
truth "a closed pipe on stdout does not end a run (status $(cat status))" test "$(cat status)" -eq 0
truth "and it has the same bytes" same piped
exit $failed
