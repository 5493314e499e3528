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
# One process a GPU on any number of machines, under Slurm. Five minutes before the time is up (or when the job is pre-empted) every rank is sent a signal: the run takes a
# checkpoint after the step under way, ends with status 75, and the job queues itself again; --resume then goes on where it was, or begins.
# usage: sbatch [--nodes=N --ntasks-per-node=GPUS …] dev/reproduce/slurm.sh COMMAND --option value … --out RUN      RUN on a file system that all nodes see
# MPI must be the one train_seal was built with: `srun --mpi=list` names what this Slurm offers.
set -u
srun --mpi="${MPI:-pmix}" --kill-on-bad-exit=1 ./train_seal "$@" --resume
status=$?
if [ $status -eq 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit $status
