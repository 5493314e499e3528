/*
NCCL over MPI, tested on three ranks by test_nccl.sh: sums in the order of ranks to the last bit, pieces larger than one
message, roots, groups, calls that are late like all that is queued and that keep their order over two streams; and the
bugs that a GPU would answer with a hang.
*/
#include <mpi.h>
#include <nccl.h>
#include <vector>
#include "cuda_common.h"
#include "check.h"

static int rank, n;
static ncclComm_t comm;
static cudaStream_t stream, other;

#define must(call)                                 \
    do {                                           \
        if ((call) != ncclSuccess) {               \
            fprintf(stderr, "%s failed\n", #call); \
            exit(1);                               \
        }                                          \
    } while (0)

// What rank r brings: numbers whose sum depends on the order in which it is taken.
static float value(int r, size_t i) {
    return (float)((i * 2654435761u + (unsigned)r * 40503u) % 100003) * (r == 1 ? 1e-3f : 1.0f) + 0.1f;
}
static float sum_in_order(size_t i) {
    float sum = value(0, i);
    for (int r = 1; r < n; r++) sum += value(r, i);
    return sum;
}

template <typename T> static T* upload(const std::vector<T>& x) {
    T* device;
    cudaCheck(cudaMalloc((void**)&device, x.size() * sizeof(T)));
    cudaCheck(cudaMemcpyAsync(device, x.data(), x.size() * sizeof(T), cudaMemcpyHostToDevice, stream));
    return device;
}
template <typename T> static std::vector<T> download(const T* device, size_t count) {
    std::vector<T> x(count);
    cudaCheck(cudaMemcpyAsync(x.data(), device, count * sizeof(T), cudaMemcpyDeviceToHost, stream));
    cudaCheck(cudaStreamSynchronize(stream));
    return x;
}
// Good on every rank?
static void agreed(bool good, const char* what) {
    int mine = good, all;
    MPI_Allreduce(&mine, &all, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    if (rank == 0) check(all, "%s", what);
}

static std::vector<float> values(size_t count) {
    std::vector<float> x(count);
    for (size_t i = 0; i < count; i++) x[i] = value(rank, i);
    return x;
}

static void test_sums(void) {
    for (size_t count : {(size_t)1, (size_t)1000, (size_t)700001}) {
        float* x = upload(values(count));
        must(ncclAllReduce(x, x, count, ncclFloat32, ncclSum, comm, stream));
        std::vector<float> got = download(x, count);
        bool good = true;
        for (size_t i = 0; i < count; i++) good = good && got[i] == sum_in_order(i);
        char what[96];
        snprintf(what, sizeof what, "ncclAllReduce sums %zu floats in the order of ranks", count);
        agreed(good, what);
        cudaCheck(cudaFree(x));
    }
    std::vector<double> d = {1e-17 + rank, rank == 1 ? 1.0 : 1e-16};
    double* x = upload(d);
    must(ncclAllReduce(x, x, 2, ncclFloat64, ncclSum, comm, stream));
    std::vector<double> got = download(x, 2);
    agreed(got[0] == n * (n - 1) / 2 && got[1] == 1e-16 + 1.0 + 1e-16, "and doubles");
    std::vector<int> least = {rank + 5, -rank};
    int* y = upload(least);
    must(ncclAllReduce(y, y, 2, ncclInt32, ncclMin, comm, stream));
    least = download(y, 2);
    agreed(least[0] == 5 && least[1] == 1 - n, "and finds the least of integers");
    cudaCheck(cudaFree(x));
    cudaCheck(cudaFree(y));
}

static void test_roots(void) {
    const size_t count = 300000;
    for (int root = 0; root < n; root++) {
        float *x = upload(values(count)), *y = upload(values(count));
        must(ncclGroupStart());
        must(ncclReduce(x, x, count, ncclFloat32, ncclSum, root, comm, stream));
        must(ncclBroadcast(y, y, count * sizeof(float), ncclUint8, root, comm, stream));
        must(ncclGroupEnd());
        std::vector<float> sum = download(x, count), copy = download(y, count);
        bool good = true;
        for (size_t i = 0; i < count; i++)
            good = good && (rank != root || sum[i] == sum_in_order(i)) && copy[i] == value(root, i);
        char what[96];
        snprintf(what, sizeof what, "root %d has the sum, all have its copy", root);
        agreed(good, what);
        cudaCheck(cudaFree(x));
        cudaCheck(cudaFree(y));
    }
}

static void test_late(void) {
    float *x = upload(values(1)), early, before, after;
    cudaCheck(cudaStreamSynchronize(stream));
    must(ncclAllReduce(x, x, 1, ncclFloat32, ncclSum, comm, stream));
    cudaCheck(cudaMemcpyAsync(&early, x, sizeof early, cudaMemcpyDeviceToHost, other));  // a stream that does not wait
    cudaCheck(cudaStreamSynchronize(other));
    before = early;
    cudaCheck(cudaStreamSynchronize(stream));
    cudaCheck(cudaMemcpyAsync(&after, x, sizeof after, cudaMemcpyDeviceToHost, other));
    cudaCheck(cudaStreamSynchronize(other));
    agreed(before == value(rank, 0) && after == sum_in_order(0),
           "a call is late: who does not wait for its stream sees the value from before");

    // the second call is made on another stream, and that stream is asked first: the calls still run in the order in
    // which they were made
    std::vector<float> one = {1.0f};
    float *a = upload(one), *b = upload(one);
    cudaCheck(cudaStreamSynchronize(stream));
    must(ncclAllReduce(a, a, 1, ncclFloat32, ncclSum, comm, stream));
    must(ncclAllReduce(b, b, 1, ncclFloat32, ncclSum, comm, other));
    cudaCheck(cudaStreamSynchronize(rank == 0 ? other : stream));  // ranks may ask in different orders
    cudaCheck(cudaStreamSynchronize(rank == 0 ? stream : other));
    agreed(download(a, 1)[0] == n && download(b, 1)[0] == n,
           "calls on two streams run in the order in which they were made, whoever asks first");
    for (float* p : {x, a, b}) cudaCheck(cudaFree(p));
}

static void test_refusals(void) {
    float* x = upload(values(4));
    agreed(ncclAllReduce(x, x, 4, ncclBfloat16, ncclSum, comm, stream) == ncclInvalidArgument,
           "a sum of a type that is not supported is refused");
    agreed(ncclBroadcast(x, x, 4, ncclFloat32, n, comm, stream) == ncclInvalidArgument,
           "and a root that does not exist");
    agreed(ncclGroupEnd() == ncclInvalidUsage, "and the end of a group that did not begin");
    cudaCheck(cudaFree(x));
}

// Planted bugs: each ends in an abort with one message, never in a hang.
static int plant(const char* bug) {
    float* x = upload(values(8));
    if (!strcmp(bug, "count")) must(ncclAllReduce(x, x, rank == 1 ? 7 : 8, ncclFloat32, ncclSum, comm, stream));
    else if (!strcmp(bug, "call")) {
        if (rank == 1) must(ncclBroadcast(x, x, 8, ncclFloat32, 0, comm, stream));
        else must(ncclAllReduce(x, x, 8, ncclFloat32, ncclSum, comm, stream));
    } else if (!strcmp(bug, "root")) must(ncclReduce(x, x, 8, ncclFloat32, ncclSum, rank == 1 ? 1 : 0, comm, stream));
    else if (!strcmp(bug, "host")) {
        float host[8];
        must(ncclAllReduce(host, host, 8, ncclFloat32, ncclSum, comm, stream));
    } else if (!strcmp(bug, "bounds")) must(ncclAllReduce(x, x, 9, ncclFloat32, ncclSum, comm, stream));
    cudaCheck(cudaStreamSynchronize(stream));
    return 0;
}

int main(int argc, char** argv) {
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &n);
    ncclUniqueId id;
    must(ncclGetUniqueId(&id));
    must(ncclCommInitRank(&comm, n, id, rank));
    cudaCheck(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    cudaCheck(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    if (argc == 2) return plant(argv[1]);
    test_sums();
    test_roots();
    test_late();
    test_refusals();
    must(ncclCommDestroy(comm));
    int status = rank == 0 ? check_report() : 0;
    MPI_Finalize();
    return status;
}
