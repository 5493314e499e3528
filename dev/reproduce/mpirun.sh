#!/usr/bin/env bash
# One process per GPU on one machine or several, with Open MPI's mpirun. Continues by itself after a rank or a machine
# was lost, as long as the run gets further each time.
# usage: dev/reproduce/mpirun.sh GPUS[:HOSTFILE] COMMAND --option value … --out RUN        GPUS of each machine; RUN on
# a file system that all machines see
#   dev/reproduce/mpirun.sh 8 selector --model base --tune tune.jsonl --safe safe.jsonl --save-every 500 --out run
#   dev/reproduce/mpirun.sh 8:hosts sft …        hosts: a machine's name a line
# To stop it: kill -USR1 the mpirun; all ranks leave after the same step with a checkpoint, status 75.
set -u
gpus=${1%%:*} hosts=${1#*:}
shift
arguments=() out=
while [ $# -gt 0 ]; do  # mpirun takes "--tune FILE" for its own option, wherever it is; "--tune=FILE" is ours
    case $1 in
        --tune) arguments+=("--tune=$2"); shift ;;
        --out=*) out=${1#--out=}; arguments+=("$1") ;;
        --out) out=$2; arguments+=(--out "$2"); shift ;;
        *) arguments+=("$1") ;;
    esac
    shift
done
[ -n "$out" ] || { echo "usage: see the head of $0; --out is needed" >&2; exit 2; }
launch=(mpirun -n "$gpus")
if [ "$hosts" != "$gpus" ]; then
    launch=(mpirun --hostfile "$hosts" --map-by "ppr:$gpus:node" -n $((gpus * $(grep -c . "$hosts"))))
fi
while IFS= read -r name; do  # other machines know nothing of this shell
    launch+=(-x "$name")
done < <(compgen -e | grep -E '^(NCCL_|SEAL_|CUDA_VISIBLE_DEVICES$|LD_LIBRARY_PATH$)')
# mpirun gives a machine up after 40 s of silence (its own default is five minutes), but not while it has something to
# send there: docs/ranks.md
for prefix in OMPI_MCA_oob_tcp PRTE_MCA_oob_tcp; do
    export ${prefix}_keepalive_time=25 ${prefix}_keepalive_intvl=5 ${prefix}_keepalive_probes=3
done
newest() { ls "$out/checkpoint" 2>/dev/null | sed -n 's/^step-//p' | sort -n | tail -1; }
while :; do
    before=$(newest)
    "${launch[@]}" --bind-to none ./train_seal "${arguments[@]}" --resume
    status=$?
    # 0: done; 75: told to stop; 2: for the user to fix
    case $status in 0 | 2 | 75) exit $status ;; esac
    [ "$(newest)" != "$before" ] || {
        echo "$0: no checkpoint since the last start; giving up (status $status)" >&2; exit $status
    }
    echo "$0: status $status; continuing from step $(newest)" >&2
done
