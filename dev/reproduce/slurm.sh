#!/usr/bin/env bash
#SBATCH --job-name=seal
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
# One process per GPU on any number of machines, under Slurm. Five minutes before the time is up (or when the job is
# pre-empted) every rank is sent a signal: the run takes a checkpoint after the step under way, ends with status 75, and
# the job queues itself again; --resume then continues where it was, or starts. So it does when a rank or a machine was
# lost, as long as the run gets further each time.
# usage: sbatch [--nodes=N --ntasks-per-node=GPUS …] dev/reproduce/slurm.sh COMMAND --option value … --out RUN      RUN
# on a file system that all nodes see MPI must be the one train_seal was built with: `srun --mpi=list` names what this
# Slurm offers.
set -u
out= before=
for word; do
    case $word in --out=*) out=${word#--out=} ;; esac
    [ "$before" = --out ] && out=$word
    before=$word
done
[ -n "$out" ] || { echo "usage: see the head of $0; --out is needed" >&2; exit 2; }
newest() { ls "$out/checkpoint" 2>/dev/null | sed -n 's/^step-//p' | sort -n | tail -1; }
at=$(newest)
srun --mpi="${MPI:-pmix}" ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
    --kill-on-bad-exit=1 ./train_seal "$@" --resume
status=$?
# 0: done; 2: for the user to fix; 75: told to stop. Anything else: something was lost.
case $status in
    0 | 2) ;;
    75) scontrol requeue "$SLURM_JOB_ID" ;;
    *)
        if [ "$(newest)" != "$at" ]; then scontrol requeue "$SLURM_JOB_ID"
        else echo "$0: no checkpoint since the last start; giving up (status $status)" >&2; fi ;;
esac
exit $status
