/*
Ranks: one process per GPU, started by mpirun or srun. MPI starts them, tells each its number and shares the NCCL id;
all data between GPUs goes through NCCL (on the CPU build dev/cpu/nccl.cpp). A process that was started without mpirun
or srun is rank 0 of 1, and nothing here has an effect. Where the build lacks NCCL or MPI, ranks_one.cu replaces
ranks.cu.
*/
#ifndef SEAL_RANKS_H
#define SEAL_RANKS_H

#include <stddef.h>
#include "cuda_common.h"

// First in main, before any message: ranks other than 0 then wait before an error, so that rank 0's is printed first.
void ranks_hello(void);
// Takes this rank's GPU and joins the others. `expected`: --ranks, 0 = whatever was started. Ends the program where the
// launcher, the build or the GPUs do not suffice.
void ranks_start(int expected);
// Instead of ranks_start, to plan: ranks_count() is n, and nothing is started.
void ranks_plan(int n);
// After the last collective, on every rank: all leave together, because a launcher may take the first one that exits
// for a crash and kill the others.
void ranks_end(void);
int ranks_rank(void);
int ranks_count(void);
int ranks_on_machine(void);  // those that share its memory with this one, itself included

// On the host, at the beginning and the end of a run only: wait for all; send rank 0's bytes to all.
void ranks_barrier(void);
void ranks_share(void* data, size_t bytes);
size_t ranks_least_size(size_t x);  // the smallest of all ranks' numbers

// Device, queued on `stream`; every rank makes the same calls in the same order. With one rank they do nothing.
void ranks_sum(float* x, size_t n, cudaStream_t stream);  // on all ranks, the same bits everywhere
void ranks_sum_double(double* x, size_t n, cudaStream_t stream);
void ranks_least(int* x, size_t n, cudaStream_t stream);               // the minimum, on all ranks
void ranks_sum_at(float* x, size_t n, int root, cudaStream_t stream);  // on root; x of the others is then undefined
void ranks_spread(void* x, size_t bytes, int root, cudaStream_t stream);
void ranks_group_begin(void);  // the calls up to the end become one
void ranks_group_end(void);

#endif
