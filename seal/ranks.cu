/* Ranks over MPI and NCCL. See ranks.h. */
#include <mpi.h>
#include <nccl.h>
#include <string.h>
#include "error.h"
// defines: lifeline_start …
#include "lifeline.h"
#include "ranks.h"

static struct {
    int rank, n;
    bool started;      // by a launcher, MPI is up
    ncclComm_t comm;
} world = {0, 1, false, NULL};

static void nccl_check(ncclResult_t result, const char* call, const char* file, int line) {
    if (result == ncclSuccess) return;
    fprintf(stderr, "NCCL error: %s\n  in %s\n  at %s:%d\n", ncclGetErrorString(result), call, file, line);
    exit(1);
}
#define ncclCheck(call) nccl_check(call, #call, __FILE__, __LINE__)

// What mpirun (Open MPI, MPICH, Intel MPI) and srun set before a process begins.
static int launcher_says(const char* const* names) {
    for (; *names; names++)
        if (getenv(*names)) return atoi(getenv(*names));
    return -1;
}
static int launched_count(void) {
    static const char* const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS", NULL};
    return launcher_says(names);
}

void ranks_hello(void) {
    static const char* const names[] = {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID", NULL};
    int rank = launched_count() > 1 ? launcher_says(names) : 0;
    error_rank = rank > 0 ? rank : 0;
}

static void take_gpu(void) {
    MPI_Comm machine;
    int local_rank, local_count, gpus = 0;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world.rank, MPI_INFO_NULL, &machine);
    MPI_Comm_rank(machine, &local_rank);
    MPI_Comm_size(machine, &local_count);
    MPI_Comm_free(&machine);
    cudaError_t error = cudaGetDeviceCount(&gpus);
    if (error != cudaSuccess) fatal("no GPU can be used: %s", cudaGetErrorString(error));
    // srun may show each rank its own GPU and no other
    if (gpus > 1 && local_count > gpus) fatal("%d ranks on a machine with %d GPUs; one rank a GPU", local_count, gpus);
    cudaCheck(cudaSetDevice(local_rank % gpus));
}

static void watch_each_other(void) {
    LifelineAddress address;
    MPI_Comm machine;
    int local_count;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world.rank, MPI_INFO_NULL, &machine);
    MPI_Comm_size(machine, &local_count);
    MPI_Comm_free(&machine);
    if (world.rank == 0) lifeline_listen(&address, local_count == world.n);
    ranks_share(&address, sizeof address);
    lifeline_start(&address, world.rank, world.n);
}

void ranks_start(int expected) {
    if (launched_count() > 1) {
        MPI_Init(NULL, NULL);
        world.started = true;
        MPI_Comm_rank(MPI_COMM_WORLD, &world.rank);
        MPI_Comm_size(MPI_COMM_WORLD, &world.n);
        if (world.n == 1) fatal("the launcher started %d processes, MPI knows of one: they were started by another MPI than this program's", launched_count());
    }
    if (expected && expected != world.n) fatal("--ranks is %d and %d %s started; use mpirun -n %d, or --dry-run to plan", expected, world.n, world.n == 1 ? "process was" : "were", expected);
    if (world.n == 1) return;
    error_rank = world.rank;
    take_gpu();
    watch_each_other();
    ncclUniqueId id;
    if (world.rank == 0) ncclCheck(ncclGetUniqueId(&id));
    ranks_share(&id, sizeof id);
    ncclCheck(ncclCommInitRank(&world.comm, world.n, id, world.rank));
}

void ranks_plan(int n) {
    if (n) world.n = n;
}

void ranks_end(void) {
    if (!world.started) return;
    ranks_barrier();
    lifeline_unwatch();
    ranks_barrier();
    lifeline_close();
    ncclCheck(ncclCommDestroy(world.comm));
    MPI_Finalize();
    world.started = false;
}

int ranks_rank(void) { return world.rank; }
int ranks_count(void) { return world.n; }

void ranks_barrier(void) {
    if (!world.started) return;
    cudaCheck(cudaDeviceSynchronize());  // what is queued needs the others too
    MPI_Barrier(MPI_COMM_WORLD);
}
void ranks_share(void* data, size_t bytes) {
    if (world.started) MPI_Bcast(data, (int)bytes, MPI_BYTE, 0, MPI_COMM_WORLD);
}

size_t ranks_least_size(size_t x) {
    unsigned long long least = x;
    if (world.started) MPI_Allreduce(MPI_IN_PLACE, &least, 1, MPI_UNSIGNED_LONG_LONG, MPI_MIN, MPI_COMM_WORLD);
    return (size_t)least;
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// device

void ranks_sum(float* x, size_t n, cudaStream_t stream) {
    if (world.n > 1) ncclCheck(ncclAllReduce(x, x, n, ncclFloat32, ncclSum, world.comm, stream));
}
void ranks_sum_double(double* x, size_t n, cudaStream_t stream) {
    if (world.n > 1) ncclCheck(ncclAllReduce(x, x, n, ncclFloat64, ncclSum, world.comm, stream));
}
void ranks_least(int* x, size_t n, cudaStream_t stream) {
    if (world.n > 1) ncclCheck(ncclAllReduce(x, x, n, ncclInt32, ncclMin, world.comm, stream));
}
void ranks_sum_at(float* x, size_t n, int root, cudaStream_t stream) {
    if (world.n > 1) ncclCheck(ncclReduce(x, x, n, ncclFloat32, ncclSum, root, world.comm, stream));
}
void ranks_spread(void* x, size_t bytes, int root, cudaStream_t stream) {
    if (world.n > 1) ncclCheck(ncclBroadcast(x, x, bytes, ncclUint8, root, world.comm, stream));
}
void ranks_group_begin(void) {
    if (world.n > 1) ncclCheck(ncclGroupStart());
}
void ranks_group_end(void) {
    if (world.n > 1) ncclCheck(ncclGroupEnd());
}
