#!/usr/bin/env bash
# Two machines without a second machine: two network namespaces, each with a name, a folder for temporary files and a
# network interface of its own, joined by a cable (cable.c) that can be pulled, slowed down or made to lose frames.
# mpirun reaches the other machine through an agent that enters its namespace. What docs/reliability.md promises of
# ranks is done to them.
#   machines.sh          everything, about six minutes on two idle cores        machines.sh sample     what takes a
#                        minute
# TAP on stdout. Skipped with a line where namespaces cannot be made: that needs root, iproute2, the tun device, Open
# MPI.
set -u
. "$(dirname "$0")/cli.sh"
here=$(cd "$(dirname "$0")" && pwd)
what=${1:-all}
skip() { echo "ok two machines # SKIP $*"; exit 0; }
command -v mpirun >/dev/null || skip "mpirun is not there (apt-get install openmpi-bin)"
command -v ip >/dev/null || skip "ip is not there (apt-get install iproute2)"
[ "$(id -u)" -eq 0 ] || skip "namespaces need root"
[ -c /dev/net/tun ] || skip "there is no /dev/net/tun"
a=seal-a-$$ b=seal-b-$$
ip netns add $a 2>"$work/err" && ip netns add $b 2>>"$work/err" ||
    skip "network namespaces cannot be made: $(head -1 "$work/err")"
cable=
members() { { ip netns pids $a; ip netns pids $b; } | grep -vx "$cable"; }
take_down() {
    [ -z "$cable" ] || kill "$cable" 2>/dev/null
    for p in $(members); do kill -KILL "$p" 2>/dev/null; done
    ip netns del $a; ip netns del $b
    rm -rf "$work"
}
trap take_down EXIT
trap 'exit 1' INT TERM

cc=${CC:-gcc}
$cc -std=c11 -D_GNU_SOURCE -O1 "$here/cable.c" -o "$work/cable" || { not_ok "the cable compiles"; exit 1; }
mkfifo "$work/commands" "$work/says"
"$work/cable" $a $b <"$work/commands" >"$work/says" & cable=$!
exec 7>"$work/commands" 8<"$work/says"
read -r -t 20 ready <&8 && [ "$ready" = ready ] || skip "no tap interface can be made here"
tell() { printf '%s\n' "$@" >&7; }
# Machine A has an address that B cannot reach, before the one that it can.
ip -n $a link add other0 type dummy 2>/dev/null || ip -n $a tuntap add dev other0 mode tap
ip -n $a addr add 10.66.0.1/24 dev other0 && ip -n $a link set other0 up
ip -n $a addr add 10.77.0.1/24 dev cable0; ip -n $b addr add 10.77.0.2/24 dev cable0
ip -n $b route add blackhole 10.66.0.0/24
for n in $a $b; do ip -n $n link set lo up; ip -n $n link set cable0 up; done
# What mpirun has sent and nobody has received is given up after 25 s: Linux's own 15 repetitions take a quarter of an
# hour.
for n in $a $b; do ip netns exec $n sh -c 'echo 6 >/proc/sys/net/ipv4/tcp_retries2'; done

mkdir "$work/tmp-a" "$work/tmp-b"
# on MACHINE command…: with its name, its temporary folder and, where PRIVATE names one, a file system of its own
cat >"$work/on" <<AGENT
#!/bin/bash
case \$1 in 10.77.0.2 | b) space=$b name=machine-b tmp=$work/tmp-b ;; *) space=$a name=machine-a tmp=$work/tmp-a ;; esac
shift
exec ip netns exec \$space unshare --uts --mount bash -c '
    echo "\$0" >/proc/sys/kernel/hostname
    [ "\$0" = machine-a ] || [ -z "\${PRIVATE:-}" ] || mount -t tmpfs none "\$PRIVATE" || exit 1
    export TMPDIR=\$1; shift
    eval "\$*"' \$name \$tmp "\$@"
AGENT
chmod +x "$work/on"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_plm_rsh_agent=$work/on PRTE_MCA_plm_ssh_agent=$work/on OMPI_MCA_plm_rsh_no_tree_spawn=1
# mpirun's own connections: over the cable, and given up after 40 s of silence (Open MPI waits five minutes)
for prefix in OMPI_MCA_oob_tcp PRTE_MCA_oob_tcp; do
    export ${prefix}_if_include=10.77.0.0/24 ${prefix}_keepalive_time=25 ${prefix}_keepalive_intvl=5 \
        ${prefix}_keepalive_probes=3
done
export OMPI_MCA_btl_tcp_if_include=10.77.0.0/24 OMPI_MCA_btl=tcp,self OMPI_MCA_pml=ob1
cd "$work" || exit 1
mpirun_ab() {
    "$work/on" a "cd $work && exec mpirun -n 2 -H 10.77.0.1:1,10.77.0.2:1 --bind-to none $(printf '%q ' "$@")"
}

word_tokenizer tok say a b c d e f
say_rows tune.jsonl 121 1
say_rows safe.jsonl 40 2
"$train_seal" init --layers 1 --width 64 --heads 2 --tokenizer tok/tokenizer.json --positions 32 --out base --quiet ||
    exit 1
run=(
    "$train_seal" selector --algorithm 1 --model base --tune=tune.jsonl --safe safe.jsonl --lr 1e-3 --lr-hat 5e-3
    --gamma fixed:0.3 --batch 16 --tokens 64 --quiet --save-every 4
)
short=("${run[@]}" --epochs 2) long=("${run[@]}" --epochs 20)

# ends NAME SECONDS PID TEXT [command…]: the run ends within the time, not well, and says TEXT; after the command no
# process is left on either machine
ends() {
    local name=$1 most=$2 pid=$3 text=$4 began=$SECONDS status; shift 4
    while kill -0 "$pid" 2>/dev/null && [ $((SECONDS - began)) -le 120 ]; do sleep 0.2; done
    local took=$((SECONDS - began))
    kill -KILL "$pid" 2>/dev/null; wait "$pid"; status=$?
    truth "$name: it ends within $most s (status $status, $took s)" test $status -ne 0 -a $took -le "$most"
    truth "$name: with a line" grep -qE -- "$text" err
    began=$SECONDS
    "$@"
    while [ -n "$(members)" ] && [ $((SECONDS - began)) -lt 60 ]; do sleep 0.2; done
    truth "$name: no process is left ($((SECONDS - began)) s later)" test -z "$(members)"
    for p in $(members); do kill -KILL "$p" 2>/dev/null; done
}
begin() {
    "$work/on" a "cd $work && exec mpirun -n 2 -H 10.77.0.1:1,10.77.0.2:1 --bind-to none $(printf '%q ' "$@")" >out \
        2>err & pid=$!
}

expect "two ranks on one machine" mpirun -n 2 "${short[@]}" --out one
expect "two ranks on two machines, rank 0's second address being the one that is reached" mpirun_ab "${short[@]}" \
    --out two
logits() { tail -c $((4 * 121)) "$1/selector.safetensors" | od -An -v -w4 -tf4; }  # the last tensor of the file
close() {  # NAME A B: every logit within 1e-4; MPI adds in another order over another kind of connection
    truth "$1" awk '{ d = $1 - $2; if (d < 0) d = -d; if (!(d <= 1e-4)) bad = 1 } END { exit NR != 121 || bad }' \
        <(paste <(logits "$2") <(logits "$3"))
}
close "learn the same ω" one two
expect "and again" mpirun_ab "${short[@]}" --out again
truth "with the same bytes" cmp two/selector.safetensors again/selector.safetensors
mkdir apart
PRIVATE=$work/apart mpirun_ab "${short[@]}" --out apart/run >out 2>err; status=$?
truth "a folder that is another one on each machine is refused in one line (status $status)" \
    test $status -eq 2 -a "$(grep -c "rank 0's machine has another folder of this name" err)" -eq 1
export SEAL_SILENCE=8
begin "${long[@]}" --out stopped
wait_for_line $pid stopped/log.jsonl '"step":12,'
signal_to() {  # SIGNAL MACHINE [NAME]: to its processes of that name, or to all of them
    for p in $(ip netns pids "$2" | grep -vx $cable); do
        [ -n "${3:-}" ] && [ "$(cat "/proc/$p/comm" 2>/dev/null)" != "$3" ] || kill "$1" "$p" 2>/dev/null
    done
}
signal_to -STOP $b train_seal
ends "a rank that is stopped without an end" 60 $pid 'rank 1 has not answered for 8 s; rank 0 stops too' signal_to \
    -CONT $b
if [ "$what" = sample ]; then exit $failed; fi
unset SEAL_SILENCE

# The cable: rank, mpirun and its daemon end by themselves, since the system gives their connections up.
begin "${long[@]}" --out pulled
wait_for_line $pid pulled/log.jsonl '"step":12,'
tell cut
ends "the cable is pulled" 90 $pid 'rank 1 (cannot be reached any more|has not answered for 30 s); rank 0 stops too' \
    tell join
cp -r pulled one-rank
expect "the run resumes on one machine" "${long[@]}" --out one-rank --resume
expect "and on both" mpirun_ab "${long[@]}" --out pulled --resume
close "to the same ω" one-rank pulled

# Everything on machine B is stopped, and its system answers for it: machine A's rank leaves by itself, Open MPI's
# mpirun waits for its daemon there and is killed, as a user would.
ranks_a() { for p in $(ip netns pids $a); do cat "/proc/$p/comm" 2>/dev/null; done | grep -x train_seal; }
leaves() {  # NAME [command…]: the command lets machine B continue to its own end
    local name=$1 began=$SECONDS; shift
    while [ -n "$(ranks_a)" ] && [ $((SECONDS - began)) -lt 120 ]; do sleep 0.2; done
    truth "$name: the rank of the other ends within a minute ($((SECONDS - began)) s)" test $((SECONDS - began)) -le 60
    truth "$name: with a line" grep -q 'rank 1 has not answered for 30 s; rank 0 stops too' err
    signal_to -KILL $a mpirun
    ends "$name, mpirun is killed" 60 $pid 'has not answered' "$@"
}
begin "${long[@]}" --out frozen
wait_for_line $pid frozen/log.jsonl '"step":12,'
signal_to -STOP $b
leaves "a machine stops answering" signal_to -CONT $b

for damage in "delay 200" "loss 30"; do
    rm -rf damaged
    begin "${short[@]}" --out damaged
    wait_for_line $pid damaged/log.jsonl '"step":1,'
    tell "$damage"; began=$SECONDS
    wait $pid; status=$?
    tell join
    truth "$damage: the run ends well or in a line (status $status, $((SECONDS - began)) s)" test $status -eq 0 -o \
        -n "$(grep -E 'has not answered|has died|lost communication' err)"
    if [ $status -eq 0 ]; then
        truth "$damage: with the same bytes" cmp two/selector.safetensors damaged/selector.safetensors
    fi
done
exit $failed
