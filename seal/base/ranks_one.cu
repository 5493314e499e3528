/* Stands in for ranks.cu where the build lacks NCCL or MPI: one rank, and a clear word to who starts more. See ranks.h.
 */
#include "base/error.h"
#include "base/ranks.h"

void ranks_hello(void) {}
void ranks_start(int expected) {
    static const char* const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};
    int started = 1;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i]) && atoi(getenv(names[i])) > started) started = atoi(getenv(names[i]));
    if (started > 1 || expected > 1)
        fatal("this build supports one rank only: NCCL or MPI was missing when it was built (see `make info`)");
}
static int planned = 1;
void ranks_plan(int n) {
    if (n) planned = n;
}
void ranks_end(void) {}
int ranks_rank(void) { return 0; }
int ranks_count(void) { return planned; }
int ranks_on_machine(void) { return 1; }
void ranks_barrier(void) {}
void ranks_share(void*, size_t) {}
size_t ranks_least_size(size_t x) { return x; }
void ranks_sum(float*, size_t, cudaStream_t) {}
void ranks_sum_double(double*, size_t, cudaStream_t) {}
void ranks_least(int*, size_t, cudaStream_t) {}
void ranks_sum_at(float*, size_t, int, cudaStream_t) {}
void ranks_spread(void*, size_t, int, cudaStream_t) {}
void ranks_group_begin(void) {}
void ranks_group_end(void) {}
