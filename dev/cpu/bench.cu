/*
What the emulation costs, in nanoseconds per thread and operation: the table of dev/cpu/README.md. Each kernel runs one
operation many times; the time of the same kernel without it is taken off. One OS thread (CPU_THREADS=1): these are
costs of a core. dev/cpu/bench.sh builds and runs this.
*/
#include <time.h>
#include "cuda_common.h"

#define BLOCK 256
#define TIMES 200

static __global__ void nothing(float* x) { x[blockIdx.x * BLOCK + threadIdx.x] = 1.0f; }

enum { LOOP, SYNCTHREADS, SYNCWARP, SHUFFLE, WARP_SUM };
template <int OPERATION> static __global__ void repeated(float* x, int times) {
    float value = threadIdx.x;
    for (int i = 0; i < times; i++) {
        if (OPERATION == SYNCTHREADS) __syncthreads();
        if (OPERATION == SYNCWARP) __syncwarp();
        if (OPERATION == SHUFFLE) value = __shfl_xor_sync(0xffffffffu, value, 1);
        if (OPERATION == WARP_SUM) value = warp_sum(value) * 0.03125f;
        value = value * 0.999f + 1.0f;
    }
    x[blockIdx.x * BLOCK + threadIdx.x] = value;
}

typedef void (*Run)(float* x, int blocks);
static void run_nothing(float* x, int blocks) { LAUNCH(nothing, blocks, BLOCK, 0, 0, x); }
template <int OPERATION> static void run_repeated(float* x, int blocks) {
    LAUNCH(repeated<OPERATION>, blocks, BLOCK, 0, 0, x, TIMES);
}

// Nanoseconds of CPU time, the least of nine runs: other programs on the machine do not count.
static double measure(Run run, float* x, int blocks) {
    double best = INFINITY;
    for (int i = 0; i < 9; i++) {
        struct timespec begin, end;
        run(x, blocks);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begin);
        cudaCheck(cudaDeviceSynchronize());  // a stream runs here, on this thread
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
        best = fmin(best, 1e9 * (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec));
    }
    return best;
}

int main(void) {
    const int many = 20000, few = 100;
    float* x;
    cudaCheck(cudaMalloc((void**)&x, (size_t)many * BLOCK * sizeof(float)));
    printf("| per thread | ns |\n|---|---:|\n");
    printf("| a kernel that never waits, one store | %.2f |\n", measure(run_nothing, x, many) / many / BLOCK);
    double loop = measure(run_repeated<LOOP>, x, few), threads = (double)few * BLOCK * TIMES;
    struct {
        const char* name;
        Run run;
    } rows[] = {{"`__syncthreads`", run_repeated<SYNCTHREADS>},
                {"`__syncwarp`", run_repeated<SYNCWARP>},
                {"`__shfl_xor_sync`", run_repeated<SHUFFLE>},
                {"`warp_sum`", run_repeated<WARP_SUM>}};
    for (auto& row : rows) printf("| %s | %.1f |\n", row.name, (measure(row.run, x, few) - loop) / threads);
    cudaCheck(cudaFree(x));
    return 0;
}
