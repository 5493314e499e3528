/*
What the programs of dev/kernels share: options, random numbers, timing, buffers with poisoned tails, ceilings. Every
program knows --check (tests, TAP lines), --small (with --check: the tiny shapes only, for sanitizers) and --help;
without --check it is a benchmark, whose sizes are options of its own table.
*/
#ifndef SEAL_HARNESS_H
#define SEAL_HARNESS_H

#include <limits.h>
#include <string.h>
#include "cuda_common.h"
#include "check.h"

#define HARNESS_UNUSED __attribute__((unused))

// ---- options ---------------------------------------------------------------------------------------
typedef struct {
    const char* name;  // with its dashes
    int* value;        // holds the default before
    int least;         // smallest value allowed
    const char* help;
} HarnessOption;

static bool harness_check, harness_small;  // --check, --small

// Fills the table's values from the command line; a wrong option or value is one line and exit status 2.
HARNESS_UNUSED static void harness_options(int argc, char** argv, const HarnessOption* table, int n) {
    for (int i = 1; i < argc; i++) {
        int at = 0;
        if (!strcmp(argv[i], "--check")) {
            harness_check = true;
            continue;
        }
        if (!strcmp(argv[i], "--small")) {
            harness_small = true;
            continue;
        }
        if (!strcmp(argv[i], "--help")) {
            printf("usage: %s [--check [--small]] or a benchmark with\n", argv[0]);
            for (int k = 0; k < n; k++) printf("  %-16s %s (%d)\n", table[k].name, table[k].help, *table[k].value);
            exit(0);
        }
        while (at < n && strcmp(argv[i], table[at].name)) at++;
        char* end = NULL;
        long value = at < n && i + 1 < argc ? strtol(argv[i + 1], &end, 10) : 0;
        if (at == n) fprintf(stderr, "%s: unknown option %s; --help lists them\n", argv[0], argv[i]);
        else if (i + 1 == argc || end == argv[i + 1] || *end || value < table[at].least || value > INT_MAX)
            fprintf(stderr, "%s: %s needs a whole number of at least %d\n", argv[0], argv[i], table[at].least);
        else {
            *table[at].value = (int)value;
            i++;
            continue;
        }
        exit(2);
    }
}

// ---- random numbers --------------------------------------------------------------------------------
static uint64_t harness_state = 0x9e3779b97f4a7c15ull;

// uniform with mean 0 and variance 1 (splitmix64), the same sequence in every run
HARNESS_UNUSED static float harness_random(void) {
    uint64_t z = harness_state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return ((float)(z >> 40) * (1.0f / 8388608.0f) - 1.0f) * 1.7320508f;
}

// ---- timing ----------------------------------------------------------------------------------------
static int harness_compare(const void* a, const void* b) {
    return *(const float*)a < *(const float*)b ? -1 : *(const float*)a > *(const float*)b;
}

HARNESS_UNUSED static double harness_environment(const char* name, double otherwise) {
    const char* text = getenv(name);
    return text ? atof(text) : otherwise;
}

// Median seconds of one run(data, stream): a warm-up, then runs until half a second (BENCH_MS) or 50 are over, each
// between two events.
HARNESS_UNUSED static double harness_time(void (*run)(void* data, cudaStream_t stream), void* data) {
    float ms[50], total = 0.0f, most = (float)harness_environment("BENCH_MS", 500.0);
    int n = 0;
    cudaEvent_t begin, end;
    cudaCheck(cudaEventCreate(&begin));
    cudaCheck(cudaEventCreate(&end));
    run(data, 0);
    cudaCheck(cudaDeviceSynchronize());
    while (n < 3 || (n < 50 && total < most)) {
        cudaCheck(cudaEventRecord(begin, 0));
        run(data, 0);
        cudaCheck(cudaEventRecord(end, 0));
        cudaCheck(cudaEventSynchronize(end));
        cudaCheck(cudaEventElapsedTime(&ms[n], begin, end));
        total += ms[n++];
    }
    cudaCheck(cudaEventDestroy(begin));
    cudaCheck(cudaEventDestroy(end));
    qsort(ms, n, sizeof(float), harness_compare);
    return 1e-3 * ms[n / 2];
}

// ---- tensors: host (float, rounded to what the device holds) and device ----------------------------
// A check makes dozens of buffers; all of them live until harness_release(), host and device alike.
typedef struct {
    void* pointer;
    bool device;
} HarnessBuffer;
static HarnessBuffer harness_buffers[2048];
static int harness_n_buffers;

HARNESS_UNUSED static void* harness_keep(void* pointer, bool device) {
    if (!pointer || harness_n_buffers == (int)(sizeof(harness_buffers) / sizeof(harness_buffers[0]))) {
        fprintf(stderr, "harness: out of memory or of buffers\n");
        exit(1);
    }
    harness_buffers[harness_n_buffers++] = {pointer, device};
    return pointer;
}
HARNESS_UNUSED static void harness_release(void) {
    cudaCheck(cudaDeviceSynchronize());
    for (int i = 0; i < harness_n_buffers; i++) {
        if (harness_buffers[i].device) cudaCheck(cudaFree(harness_buffers[i].pointer));
        else free(harness_buffers[i].pointer);
    }
    harness_n_buffers = 0;
}
// n host elements, zero; n device elements, every bit set, which is a NaN in fp32 and in bf16 alike
template <typename T> static T* harness_host(size_t n) { return (T*)harness_keep(calloc(n ? n : 1, sizeof(T)), false); }
template <typename T> static T* harness_device(size_t n) {
    void* pointer = NULL;
    cudaCheck(cudaMalloc(&pointer, n ? n * sizeof(T) : 1));
    harness_keep(pointer, true);
    cudaCheck(cudaMemset(pointer, 0xff, n * sizeof(T)));
    return (T*)pointer;
}
template <typename T> static void harness_poison(T* device, size_t n) {
    cudaCheck(cudaMemset(device, 0xff, n * sizeof(T)));
}
template <typename T> static T* harness_copy(const T* host, size_t n) {
    T* device = harness_device<T>(n);
    if (n) cudaCheck(cudaMemcpy(device, host, n * sizeof(T), cudaMemcpyHostToDevice));
    return device;
}
template <typename T> static T* harness_fetch(const T* device, size_t n) {
    T* host = harness_host<T>(n);
    if (n) cudaCheck(cudaMemcpy(host, device, n * sizeof(T), cudaMemcpyDeviceToHost));
    return host;
}
// n random numbers scaled and shifted, rounded to T
template <typename T> static float* harness_randoms(size_t n, float scale, float shift) {
    float* x = harness_host<float>(n);
    for (size_t i = 0; i < n; i++) x[i] = to_float(from_float<T>(shift + scale * harness_random()));
    return x;
}
// (rows, width; ld) on the device from (rows, width) on the host. The tails hold NaN: reading one shows in a result,
// writing one in the tail.
template <typename T> static T* harness_upload(const float* host, int rows, int width, int ld) {
    T* padded = harness_host<T>((size_t)rows * ld);
    for (size_t i = 0; i < (size_t)rows * ld; i++)
        padded[i] = from_float<T>(i % ld < (size_t)width ? host[i / ld * width + i % ld] : NAN);
    return harness_copy(padded, (size_t)rows * ld);
}
// (rows, width) from (rows, width; ld) on the device; *tails_kept becomes false where a tail holds a number
template <typename T> static float* harness_download(const T* device, int rows, int width, int ld, bool* tails_kept) {
    T* padded = harness_fetch(device, (size_t)rows * ld);
    float* host = harness_host<float>((size_t)rows * width);
    for (size_t i = 0; i < (size_t)rows * ld; i++) {
        float x = to_float(padded[i]);
        if (i % ld < (size_t)width) host[i / ld * width + i % ld] = x;
        else if (!isnan(x)) *tails_kept = false;
    }
    return host;
}

// ---- comparisons -----------------------------------------------------------------------------------
// A floatX tensor against its double-precision reference: the tolerance of its type. fp32 quantities (statistics,
// losses, parameter gradients) take check_close in both builds.
HARNESS_UNUSED static int harness_compare_x(const char* name, const float* a, const double* b, long n) {
#ifdef PRECISION_BF16
    return check_cosine(name, a, b, n);
#else
    return check_close(name, a, b, n, 1e-5);
#endif
}
// "what name", for the names of checks; lives until harness_release
HARNESS_UNUSED static const char* harness_name(const char* what, const char* name) {
    size_t n = strlen(what) + strlen(name) + 2;
    char* text = harness_host<char>(n);
    snprintf(text, n, "%s %s", what, name);
    return text;
}

// Finite differences: value(data, x) is a scalar function of n numbers, gradient (n) what a backward kernel says of it
// at x. Central differences along a random direction of signs; the slope along it is a sum of random signs, of the size
// sqrt(Σ gradient²).
HARNESS_UNUSED static void harness_check_slope(const char* name, double (*value)(void* data, const float* x),
                                               void* data, const float* x, const float* gradient, long n, float step) {
    float* moved = (float*)calloc(n, sizeof(float));
    signed char* sign = (signed char*)malloc(n);
    double slope = 0.0, size = 0.0, at[2];
    for (long i = 0; i < n; i++) {
        sign[i] = harness_random() < 0.0f ? -1 : 1;
        slope += (double)gradient[i] * sign[i];
        size += (double)gradient[i] * gradient[i];
    }
    for (int side = 0; side < 2; side++) {
        for (long i = 0; i < n; i++) moved[i] = x[i] + (side ? step : -step) * sign[i];
        at[side] = value(data, moved);
    }
    double measured = (at[1] - at[0]) / (2.0 * step);
    check(fabs(measured - slope) <= 1e-3 * sqrt(size), "%s by finite differences: %.6g against %.6g", name, measured,
          slope);
    free(moved);
    free(sign);
}

// ---- ceilings --------------------------------------------------------------------------------------
// Bytes per second of a plain copy, read + write, measured once in this run: what a kernel that only moves memory can
// reach here. The better of a kernel that copies one float4 per thread and of the driver's own copy.
static __global__ void harness_copy_kernel(float4* to, const float4* from, size_t n) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) to[i] = from[i];
}
typedef struct {
    float4 *to, *from;
    size_t n;
} HarnessCopy;
HARNESS_UNUSED static void harness_copy_run(void* data, cudaStream_t stream) {
    HarnessCopy* c = (HarnessCopy*)data;
    LAUNCH(harness_copy_kernel, (unsigned)CEIL_DIV(c->n, 256), 256, 0, stream, c->to, c->from, c->n);
}
HARNESS_UNUSED static void harness_copy_driver(void* data, cudaStream_t stream) {
    HarnessCopy* c = (HarnessCopy*)data;
    cudaCheck(cudaMemcpyAsync(c->to, c->from, c->n * sizeof(float4), cudaMemcpyDeviceToDevice, stream));
}
HARNESS_UNUSED static double harness_bandwidth(void) {
    static double bandwidth;
    if (bandwidth > 0.0) return bandwidth;
#ifdef __CUDACC__
    const double mib = 1024;  // each way: far more than any cache
#else
    const double mib = 64;
#endif
    HarnessCopy c = {NULL, NULL, (size_t)(harness_environment("BENCH_MIB", mib) * 1048576.0 / sizeof(float4))};
    size_t bytes = c.n * sizeof(float4);
    cudaCheck(cudaMalloc((void**)&c.to, bytes));
    cudaCheck(cudaMalloc((void**)&c.from, bytes));
    cudaCheck(cudaMemset(c.from, 0x3c, bytes));
    double kernel = 2.0 * bytes / harness_time(harness_copy_run, &c),
           driver = 2.0 * bytes / harness_time(harness_copy_driver, &c);
    bandwidth = kernel > driver ? kernel : driver;
    cudaCheck(cudaFree(c.to));
    cudaCheck(cudaFree(c.from));
    printf("ceiling: copy %.1f GB/s (float4 %.1f, cudaMemcpyAsync %.1f)\n", bandwidth * 1e-9, kernel * 1e-9,
           driver * 1e-9);
    return bandwidth;
}
// One line of a ladder: the bytes that must move at the least, over the time, against the copy.
HARNESS_UNUSED static void harness_report(const char* name, void (*run)(void* data, cudaStream_t stream), void* data,
                                          double bytes) {
    double ceiling = harness_bandwidth(), seconds = harness_time(run, data);
    printf("  %-32s %10.3f ms %9.1f GB/s  %5.1f%% of copy\n", name, seconds * 1e3, bytes / seconds * 1e-9,
           100.0 * bytes / seconds / ceiling);
    fflush(stdout);
}
// The same of a pass over a program's own problem.
template <typename P> struct HarnessPass {
    void (*pass)(P* p, cudaStream_t stream);
    P* p;
    static void run(void* data, cudaStream_t stream) {
        HarnessPass* x = (HarnessPass*)data;
        x->pass(x->p, stream);
    }
};
template <typename P> static double harness_time(void (*pass)(P* p, cudaStream_t stream), P* p) {
    HarnessPass<P> x = {pass, p};
    return harness_time(HarnessPass<P>::run, &x);
}
template <typename P>
static void harness_report(const char* name, void (*pass)(P* p, cudaStream_t stream), P* p, double bytes) {
    HarnessPass<P> x = {pass, p};
    harness_report(name, HarnessPass<P>::run, &x, bytes);
}

#endif
