/* Ranks over MPI and NCCL. See ranks.h. */
#include <mpi.h>
#include <nccl.h>
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "base/lifeline.h"
#include "base/ranks.h"

static struct {
    int rank, n;
    int machine_rank, machine_n;  // among the ranks of this machine
    bool started;                 // by a launcher, MPI is up
    ncclComm_t comm;
} world = {0, 1, 0, 1, false, NULL};

static void nccl_check(ncclResult_t result, const char* call, const char* file, int line) {
    if (result == ncclSuccess) return;
    fprintf(stderr, "NCCL error: %s (%s)\n  in %s\n  at %s:%d\n", ncclGetErrorString(result), ncclGetLastError(NULL),
            call, file, line);
    device_exit();
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

// Two ranks on one GPU: a launcher that shows each the same one, or more ranks than GPUs. On the CPU all have the same
// "device".
static void look_for_shared_gpus(MPI_Comm machine) {
#ifdef __CUDACC__
    char mine[32] = "", *all = (char*)host_alloc((size_t)world.machine_n * sizeof mine, "the devices of the ranks");
    int device;
    cudaCheck(cudaGetDevice(&device));
    cudaCheck(cudaDeviceGetPCIBusId(mine, sizeof mine, device));
    MPI_Allgather(mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, machine);
    for (int r = 0; r < world.machine_rank; r++)
        if (!strcmp(all + r * sizeof mine, mine))
            fatal("%d ranks run on one machine and two of them use GPU %s; start one rank per GPU", world.machine_n,
                  mine);
    free(all);
#else
    (void)machine;
#endif
}

static void take_gpu(MPI_Comm machine) {
    int gpus = 0;
    cudaError_t error = cudaGetDeviceCount(&gpus);
    if (error != cudaSuccess) fatal("no GPU can be used: %s", cudaGetErrorString(error));
    cudaCheck(cudaSetDevice(world.machine_rank % gpus));  // srun may show each rank its own GPU and no other
    look_for_shared_gpus(machine);
}

// Asked by the watching thread, what has broken between GPUs: the kernels of a collective would wait forever.
static bool communicator_broken(char* why, size_t size) {
    ncclComm_t comm = __atomic_load_n(&world.comm, __ATOMIC_ACQUIRE);
    ncclResult_t state = ncclSuccess, asked = comm ? ncclCommGetAsyncError(comm, &state) : ncclSuccess;
    if (asked != ncclSuccess) state = asked;
    if (state == ncclSuccess || state == ncclInProgress) return false;
    snprintf(why, size, "NCCL error: %s (%s)", ncclGetErrorString(state), ncclGetLastError(comm));
    return true;
}

static void watch_each_other(void) {
    LifelineAddress address;
    if (world.rank == 0) lifeline_listen(&address, world.machine_n == world.n);
    ranks_share(&address, sizeof address);
    lifeline_start(&address, world.rank, world.n, communicator_broken);
}

void ranks_start(int expected) {
    if (launched_count() > 1) {
        MPI_Init(NULL, NULL);
        world.started = true;
        MPI_Comm_rank(MPI_COMM_WORLD, &world.rank);
        MPI_Comm_size(MPI_COMM_WORLD, &world.n);
        if (world.n == 1)
            fatal(
                "the launcher started %d processes but MPI sees one; start them with the MPI that this program was "
                "built with",
                launched_count());
    }
    if (expected && expected != world.n)
        fatal("--ranks is %d but %d %s started; use mpirun -n %d, or --dry-run to plan", expected, world.n,
              world.n == 1 ? "process was" : "were", expected);
    if (world.n == 1) return;
    error_rank = world.rank;
    MPI_Comm machine;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world.rank, MPI_INFO_NULL, &machine);
    MPI_Comm_rank(machine, &world.machine_rank);
    MPI_Comm_size(machine, &world.machine_n);
    watch_each_other();  // before anything that may fail on one machine alone
    take_gpu(machine);
    MPI_Comm_free(&machine);
    // NVLink's sums in the switch differ from call to call (nccl issue 1497); all else adds in an order that the
    // machines decide.
    if (!getenv("NCCL_ALGO")) setenv("NCCL_NVLS_ENABLE", "0", 0);
    ncclUniqueId id;
    ncclComm_t comm;
    if (world.rank == 0) ncclCheck(ncclGetUniqueId(&id));
    ranks_share(&id, sizeof id);
    ncclCheck(ncclCommInitRank(&comm, world.n, id, world.rank));
    __atomic_store_n(&world.comm, comm, __ATOMIC_RELEASE);
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
int ranks_on_machine(void) { return world.machine_n; }

void ranks_barrier(void) {
    if (!world.started) return;
    cudaCheck(cudaDeviceSynchronize());  // what is queued needs the others too
    MPI_Barrier(MPI_COMM_WORLD);
}
// MPI counts in int: more than that goes in parts.
#define SHARE_MOST ((size_t)1 << 30)
void ranks_share(void* data, size_t bytes) {
    for (size_t at = 0; at < bytes && world.started; at += SHARE_MOST)
        MPI_Bcast((char*)data + at, (int)(bytes - at < SHARE_MOST ? bytes - at : SHARE_MOST), MPI_BYTE, 0,
                  MPI_COMM_WORLD);
}

size_t ranks_least_size(size_t x) {
    unsigned long long least = x;
    if (world.started) MPI_Allreduce(MPI_IN_PLACE, &least, 1, MPI_UNSIGNED_LONG_LONG, MPI_MIN, MPI_COMM_WORLD);
    return (size_t)least;
}

// ---------------------------------------------------------------------------------------------------
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
