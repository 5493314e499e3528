/*
NCCL over MPI. A call is queued on its stream after the communicator's previous call, and moves its data in pieces
when it runs. What ranks must agree on (which call, how much, of what type, from which root) is compared before every
call: on GPUs a disagreement hangs or mixes up memory, here it is an abort that says who called what. MPI is called from
the thread that synchronises.
*/
#include <mpi.h>
#include <nccl.h>
#include <unistd.h>
#include <algorithm>
#include <atomic>
#include <string>
#include <vector>
#include "cpu_internal.h"

enum Kind { ALL_REDUCE, REDUCE, BROADCAST };
static const char* const kind_names[] = {"ncclAllReduce", "ncclReduce", "ncclBroadcast"};

struct cpu_communicator {
    MPI_Comm mpi;
    int rank, n;
    cudaEvent_t last;  // of the call before
    long calls_left;   // until it breaks; below 0: it never does
    std::atomic<bool> broken;
};

struct Call {
    Kind kind;
    const char* from;
    char* to;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t op;
    int root;
    ncclComm_t comm;
    cudaStream_t stream;
};

static size_t size_of(ncclDataType_t type) {
    static const size_t sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
    return sizes[type];
}

// ---------------------------------------------------------------------------------------------------
// running

#define PIECE ((size_t)1 << 20)

template <typename T> static void combine(T* sum, const T* x, size_t n, ncclRedOp_t op) {
    if (op == ncclSum)
        for (size_t i = 0; i < n; i++) sum[i] += x[i];
    else
        for (size_t i = 0; i < n; i++) sum[i] = std::min(sum[i], x[i]);
}

static void agree(const Call* c) {
    struct Signature {
        int64_t kind, count, type, op, root;
    } mine = {c->kind, (int64_t)c->count, c->type, c->op, c->root};
    std::vector<Signature> all(c->comm->n);
    MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE, c->comm->mpi);
    for (int r = 0; r < c->comm->n; r++)
        if (memcmp(&all[r], &mine, sizeof mine))
            cpu_fail(
                "ranks disagree: rank %d calls %s of %lld elements (type %d, operation %d, root %d), rank %d %s of "
                "%lld (type %d, operation %d, root %d)",
                c->comm->rank, kind_names[mine.kind], (long long)mine.count, (int)mine.type, (int)mine.op,
                (int)mine.root, r, kind_names[all[r].kind], (long long)all[r].count, (int)all[r].type, (int)all[r].op,
                (int)all[r].root);
}

static void run_call(void* context) {
    Call* c = (Call*)context;
    if (c->comm->calls_left >= 0 && c->comm->calls_left-- == 0) {
        c->comm->broken = true;
        for (;;) pause();
    }
    agree(c);
    size_t bytes = c->count * size_of(c->type);
    if (c->kind == BROADCAST) {
        if (c->comm->rank == c->root && c->to != c->from) memcpy(c->to, c->from, bytes);
        for (size_t at = 0; at < bytes; at += PIECE)
            MPI_Bcast(c->to + at, (int)std::min(PIECE, bytes - at), MPI_BYTE, c->root, c->comm->mpi);
        return;
    }
    int n = c->comm->n;
    std::vector<double> storage(n * PIECE / sizeof(double));  // aligned for every type
    char* all = (char*)storage.data();
    for (size_t at = 0; at < bytes; at += PIECE) {
        size_t part = std::min(PIECE, bytes - at);
        if (c->kind == ALL_REDUCE)
            MPI_Allgather(c->from + at, (int)part, MPI_BYTE, all, (int)part, MPI_BYTE, c->comm->mpi);
        else MPI_Gather(c->from + at, (int)part, MPI_BYTE, all, (int)part, MPI_BYTE, c->root, c->comm->mpi);
        if (c->kind == REDUCE && c->comm->rank != c->root) continue;
        for (int r = 1; r < n; r++) {
            if (c->type == ncclFloat32) combine((float*)all, (float*)(all + r * part), part / 4, c->op);
            else if (c->type == ncclFloat64) combine((double*)all, (double*)(all + r * part), part / 8, c->op);
            else combine((int32_t*)all, (int32_t*)(all + r * part), part / 4, c->op);
        }
        memcpy(c->to + at, all, part);
    }
}
static void free_call(void* context) { delete (Call*)context; }

// ---------------------------------------------------------------------------------------------------
// calls

static std::vector<Call> group;
static int group_depth;

static void submit(const Call& c) {
    if (c.comm->last) cudaStreamWaitEvent(c.stream, c.comm->last, 0);
    else cudaEventCreateWithFlags(&c.comm->last, cudaEventDisableTiming);
    cpu_enqueue(c.stream, run_call, free_call, new Call(c), kind_names[c.kind]);
    cudaEventRecord(c.comm->last, c.stream);
}

static ncclResult_t call(const Call& c) {
    if (!c.comm || c.root < 0 || c.root >= c.comm->n || c.type < ncclInt8 || c.type > ncclBfloat16)
        return ncclInvalidArgument;
    if (c.kind != BROADCAST && c.type != ncclFloat32 && c.type != ncclFloat64 && c.type != ncclInt32)
        return ncclInvalidArgument;
    if (c.kind != BROADCAST && c.op != ncclSum && c.op != ncclMin) return ncclInvalidArgument;
    if (!c.count) return ncclSuccess;
    size_t bytes = c.count * size_of(c.type);
    bool reads = c.kind != BROADCAST || c.comm->rank == c.root, writes = c.kind != REDUCE || c.comm->rank == c.root;
    if (reads && !cpu_is_device(c.from, bytes))
        cpu_fail("%s: the source, %zu bytes at %p, is not in device memory", kind_names[c.kind], bytes,
                 (const void*)c.from);
    if (writes && !cpu_is_device(c.to, bytes))
        cpu_fail("%s: the target, %zu bytes at %p, is not in device memory", kind_names[c.kind], bytes, (void*)c.to);
    if (group_depth) group.push_back(c);
    else submit(c);
    return ncclSuccess;
}
ncclResult_t ncclAllReduce(const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
    return call({ALL_REDUCE, (const char*)from, (char*)to, count, type, op, 0, comm, stream});
}
ncclResult_t ncclReduce(const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t op, int root,
                        ncclComm_t comm, cudaStream_t stream) {
    return call({REDUCE, (const char*)from, (char*)to, count, type, op, root, comm, stream});
}
ncclResult_t ncclBroadcast(const void* from, void* to, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
    return call({BROADCAST, (const char*)from, (char*)to, count, type, ncclSum, root, comm, stream});
}
ncclResult_t ncclGroupStart(void) {
    group_depth++;
    return ncclSuccess;
}
ncclResult_t ncclGroupEnd(void) {
    if (!group_depth) return ncclInvalidUsage;
    if (--group_depth) return ncclSuccess;
    for (const Call& c : group) submit(c);
    group.clear();
    return ncclSuccess;
}

// ---------------------------------------------------------------------------------------------------
// communicators

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "CPU");
    return ncclSuccess;
}
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int n_ranks, ncclUniqueId id, int rank) {
    int ready = 0, n, mine;
    MPI_Initialized(&ready);
    if (!ready || strcmp(id.internal, "CPU")) return ncclInvalidUsage;
    MPI_Comm_size(MPI_COMM_WORLD, &n);
    MPI_Comm_rank(MPI_COMM_WORLD, &mine);
    if (n != n_ranks || mine != rank) return ncclInvalidArgument;
    const char* breaks = getenv("CPU_NCCL_BREAK");
    *comm = new cpu_communicator{MPI_COMM_NULL, rank, n, NULL, breaks ? atol(breaks) : -1, {false}};
    return MPI_Comm_dup(MPI_COMM_WORLD, &(*comm)->mpi) == MPI_SUCCESS ? ncclSuccess : ncclSystemError;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    cudaDeviceSynchronize();
    if (comm->last) cudaEventDestroy(comm->last);
    MPI_Comm_free(&comm->mpi);
    delete comm;
    return ncclSuccess;
}
const char* ncclGetLastError(ncclComm_t) { return "no more is known"; }
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
    *error = comm->broken ? ncclRemoteError : ncclSuccess;
    return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t result) {
    static const char* const texts[] = {
        "no error",         "unhandled cuda error", "unhandled system error", "internal error",
        "invalid argument", "invalid usage",        "remote process exited",  "in progress"};
    return result >= ncclSuccess && result <= ncclInProgress ? texts[result] : "unknown result code";
}
