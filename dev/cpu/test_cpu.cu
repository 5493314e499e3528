/*
The shim's own test: what a CPU would forgive, it must not. Every case is a bug planted in a kernel or in host code, and
the same code fixed. Each runs in a child process: the bug must be reported with the words of its row (kernel, block,
thread where there are any) and with the file and line of every source line that carries its tag (bug: NAME), the fixed
twin must be silent and right. dev/cpu/test_cpu.sh builds this program three times, plain, for AddressSanitizer and for
ThreadSanitizer; a row says which of them see its bug.
*/
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cuda_common.h"
#include "ptx.h"
#include <cublasLt.h>
#include "check.h"

#if defined(__SANITIZE_ADDRESS__)
#define BUILD_LETTER 'a'
#elif defined(__SANITIZE_THREAD__)
#define BUILD_LETTER 't'
#else
#define BUILD_LETTER 'n'
#endif

#define N 256  // threads of most blocks here

// ---------------------------------------------------------------------------------------------------
// races

static __global__ void missing_barrier_read(float* out, int fixed) {
    SHARED(float, x, [N]);
    int t = threadIdx.x;
    if (fixed || blockIdx.x == 0) {
        x[t] = t;
        __syncthreads();
        out[t] = x[(t + 32) % N];
    } else {
        x[t] = t;                  // (bug: missing_barrier_read)
        out[t] = x[(t + 32) % N];  // (bug: missing_barrier_read)
    }
}
static __global__ void missing_barrier_write(float* out, int fixed) {
    SHARED(float, x, [N]);
    int t = threadIdx.x;
    x[t] = t;
    __syncthreads();
    float y = x[(t + 32) % N];  // (bug: missing_barrier_write)
    if (fixed) __syncthreads();
    x[t] = -1;  // (bug: missing_barrier_write)
    out[t] = y;
}
static __global__ void missing_syncwarp(float* out, int fixed) {
    SHARED(float, x, [N]);
    int t = threadIdx.x;
    x[t] = t;  // (bug: missing_syncwarp)
    if (fixed) __syncwarp();
    out[t] = x[t ^ 1];  // (bug: missing_syncwarp)
}
static __global__ void shuffle_as_syncwarp(float* out, int fixed) {
    SHARED(float, x, [N]);
    int t = threadIdx.x;
    x[t] = t;  // (bug: shuffle_as_syncwarp)
    float one = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
    if (fixed) __syncwarp();
    out[t] = one * x[t ^ 1];  // (bug: shuffle_as_syncwarp)
}
static __global__ void block_race(float* out, int fixed) {
    if (threadIdx.x == 0) out[fixed ? blockIdx.x : 0] = blockIdx.x + 1;
}

// ---------------------------------------------------------------------------------------------------
// memory

static __global__ void global_bounds(float* out, int fixed) {
    int i = threadIdx.x;
    if (i == 77 && !fixed) i = N;
    out[i] = 1.0f;  // (bug: global_bounds)
}
static __global__ void static_bounds(float* out, int fixed) {
    SHARED(float, x, [N]);
    int t = threadIdx.x;
    int at = fixed || blockIdx.x == 0 || t != 5 ? t : (int)blockDim.x + 1;
    x[at] = 1.0f;  // (bug: static_bounds)
    out[t] = x[t < 5 || fixed ? t : 0];
}
static __global__ void dynamic_bounds(float* out, int fixed) {
    EXTERN_SHARED(float, x);
    int t = threadIdx.x;
    int at = fixed || t != 6 ? t : N;
    x[at] = 1.0f;  // (bug: dynamic_bounds)
    out[t] = 1.0f;
}
static __global__ void unwritten_shared(float* out, int fixed) {
    SHARED(float, x, [N]);
    int t = threadIdx.x;
    if (fixed || t != 9) x[t] = 1.0f;
    __syncthreads();
    out[t] = x[N - 1 - t];
}
static __attribute__((noinline)) int recurse(volatile int* from, int depth) {
    volatile int frame[256];
    for (int i = 0; i < 256; i++) frame[i] = from[i] + depth;
    return depth == 0 ? frame[17] : recurse(frame, depth - 1) + frame[depth % 256];
}
static __global__ void stack_overflow(float* out, int fixed) {
    int zero[256] = {};
    out[threadIdx.x] = recurse(zero, fixed || threadIdx.x != 3 ? 2 : 1000) > 0;
}
static __global__ void misaligned_load(float* out, const float* in, int fixed) {
    float8 x = load8(in + (fixed ? 0 : 2));
    store8(out + 8 * threadIdx.x, x);
}
static __global__ void misaligned_store(__nv_bfloat16* out, const float* in, int fixed) {
    float8 x = load8(in);
    store8(out + (threadIdx.x == 2 && !fixed ? 1 : 8 * threadIdx.x), x);
}
static __global__ void shift_too_far(float* out, int fixed) {
    int by = fixed ? 3 : 32 + (int)threadIdx.x;
    out[threadIdx.x] = 1 << by;  // (bug: shift_too_far)
}

// ---------------------------------------------------------------------------------------------------
// barriers and warps

static __global__ void early_exit(float* out, int fixed) {
    out[threadIdx.x] = 1.0f;
    if (!fixed && blockIdx.x == 1 && threadIdx.x < 32) return;
    __syncthreads();  // (bug: early_exit)
}
static __global__ void late_exit(float* out, int fixed) {
    out[threadIdx.x] = 1.0f;
    if (!fixed && blockIdx.x == 1 && threadIdx.x >= 224) return;
    __syncthreads();  // (bug: late_exit)
}
static __global__ void two_barriers(float* out, int fixed) {
    out[threadIdx.x] = 1.0f;
    if (fixed) __syncthreads();
    else if (threadIdx.x < 64) __syncthreads();  // (bug: two_barriers)
    else __syncthreads();                        // (bug: two_barriers)
}
static __global__ void skipped_barrier(float* out, int fixed) {
    out[threadIdx.x] = 1.0f;
    for (int i = 0; i < (fixed || threadIdx.x < 32 ? 3 : 2); i++) __syncthreads();  // (bug: skipped_barrier)
}
static __global__ void shuffle_of_exited(float* out, int fixed) {
    if (!fixed && threadIdx.x == 40) return;
    out[threadIdx.x] = 1.0f + 0.0f * __shfl_xor_sync(0xffffffffu, 1.0f, 1);  // (bug: shuffle_of_exited)
}
static __global__ void shuffle_against_barrier(float* out, int fixed) {
    out[threadIdx.x] = 1.0f;
    if (fixed || threadIdx.x % 32 < 16) __shfl_down_sync(0xffffffffu, 1.0f, 4);  // (bug: shuffle_against_barrier)
    if (fixed || threadIdx.x % 32 >= 16) __syncthreads();                        // (bug: shuffle_against_barrier)
}
static __global__ void two_warp_operations(float* out, int fixed) {
    float x;
    if (fixed || threadIdx.x % 32 < 16) x = warp_sum(1.0f);  // (bug: two_warp_operations)
    else x = warp_max(1.0f);                                 // (bug: two_warp_operations)
    out[threadIdx.x] = x > 0.0f;
}
static __global__ void async_wait(float* out, const float* in, int fixed) {
    SHARED(float, x, [4 * N]);
    int t = threadIdx.x;
    cp_async_16(x + 4 * t, in, true);
    cp_async_commit();
    if (fixed) cp_async_wait<0>();
    else cp_async_wait<1>();
    out[t] = x[4 * t + 1];
}
static __global__ void fill(float* out, float value) { out[threadIdx.x] = value; }

// ---------------------------------------------------------------------------------------------------
// host code: each returns whether what came back is right. A report of the shim ends the process before.

static float* device(size_t n) {
    float* p;
    cudaCheck(cudaMalloc(&p, n * sizeof(float)));
    cudaCheck(cudaMemset(p, 0, n * sizeof(float)));
    return p;
}
// Every number of (n) on the device is `value`, or, below 0, a number at all.
static bool all(const float* p, int n, float value) {
    float* host = (float*)malloc(n * sizeof(float));
    bool good = true, nan = false;
    cudaCheck(cudaMemcpy(host, p, n * sizeof(float), cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; i++) {
        nan = nan || isnan(host[i]);
        good = good && (host[i] == value || (value < 0.0f && !isnan(host[i])));
    }
    if (nan) fprintf(stderr, "a result is NaN\n");
    free(host);
    return good;
}
// Kernels of the form (float* out, int fixed) that write a number everywhere.
#define SIMPLE(kernel)                                          \
    static bool run_##kernel(int fixed) {                       \
        float* out = device(N);                                 \
        LAUNCH(kernel, 2, N, N * sizeof(float), 0, out, fixed); \
        cudaCheck(cudaDeviceSynchronize());                     \
        bool good = all(out, N, -1.0f);                         \
        cudaCheck(cudaFree(out));                               \
        return good;                                            \
    }
SIMPLE(missing_barrier_read)
SIMPLE(missing_barrier_write)
SIMPLE(missing_syncwarp)
SIMPLE(shuffle_as_syncwarp)
SIMPLE(global_bounds)
SIMPLE(static_bounds)
SIMPLE(dynamic_bounds)
SIMPLE(unwritten_shared)
SIMPLE(stack_overflow)
SIMPLE(shift_too_far)
SIMPLE(early_exit)
SIMPLE(late_exit)
SIMPLE(two_barriers)
SIMPLE(skipped_barrier)
SIMPLE(shuffle_of_exited)
SIMPLE(shuffle_against_barrier)
SIMPLE(two_warp_operations)
// Forward, the last block's 3 stays; in another order another number does.
static bool blocks_in_order(int fixed) {
    float *out = device(3), host[3];
    LAUNCH(block_race, 3, 32, 0, 0, out, fixed);
    cudaCheck(cudaMemcpy(host, out, sizeof(host), cudaMemcpyDeviceToHost));
    cudaCheck(cudaFree(out));
    if (!fixed) fprintf(stderr, "the first number is %g\n", host[0]);
    return fixed && host[0] == 1.0f && host[1] == 2.0f && host[2] == 3.0f;
}
static bool run_async_wait(int fixed) {
    float *out = device(N), *in = device(4);
    LAUNCH(async_wait, 1, N, 0, 0, out, in, fixed);
    return all(out, N, 0.0f);
}
static bool run_misaligned_load(int fixed) {
    float *out = device(8 * 32), *in = device(16);
    LAUNCH(misaligned_load, 1, 32, 0, 0, out, in, fixed);
    return all(out, 8 * 32, 0.0f);
}
static bool run_misaligned_store(int fixed) {
    float *out = device(8 * 32), *in = device(16);
    LAUNCH(misaligned_store, 1, 32, 0, 0, (__nv_bfloat16*)out, in, fixed);
    return all(out, 8 * 32, 0.0f);
}
static bool host_reads(int fixed) {
    float *p = device(N), x = -1.0f;
    if (fixed) cudaCheck(cudaMemcpy(&x, p + 3, sizeof(x), cudaMemcpyDeviceToHost));
    else x = p[3];  // (bug: host_reads)
    return x == 0.0f;
}
static bool host_writes(int fixed) {
    float *p = device(N), one = 1.0f;
    if (fixed) cudaCheck(cudaMemcpy(p, &one, sizeof(one), cudaMemcpyHostToDevice));
    else *p = one;  // (bug: host_writes)
    return true;
}
static bool copy_kind(int fixed) {
    float *p = device(N), host[N];
    cudaCheck(cudaMemcpy(host, p, sizeof(host), fixed ? cudaMemcpyDeviceToHost : cudaMemcpyHostToDevice));
    return host[1] == 0.0f;
}
static bool copy_pointer(int fixed) {
    float *p = device(N), host[N] = {};
    cudaCheck(cudaMemcpy(fixed ? p : host, p, sizeof(host), cudaMemcpyDeviceToDevice));
    return true;
}
static bool copy_past_the_end(int fixed) {
    float *p = device(N), host[N + 1];
    cudaCheck(cudaMemcpy(host, p, (fixed ? N : N + 1) * sizeof(float), cudaMemcpyDeviceToHost));
    return host[N - 1] == 0.0f;
}
static bool missing_wait(int fixed) {
    float *p = device(N), *loss;
    cudaCheck(cudaMallocHost(&loss, sizeof(float)));
    *loss = 7.0f;
    LAUNCH(fill, 1, N, 0, 0, p, 2.5f);
    cudaCheck(cudaMemcpyAsync(loss, p, sizeof(float), cudaMemcpyDeviceToHost, 0));
    if (fixed) cudaCheck(cudaStreamSynchronize(0));
    if (isnan(*loss)) fprintf(stderr, "the loss is NaN\n");
    return *loss == 2.5f;
}
static bool missing_event(int fixed) {  // a second stream that does not wait for the first
    cudaStream_t first, second;
    cudaEvent_t ready;
    float *p, x;
    cudaCheck(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    cudaCheck(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    cudaCheck(cudaEventCreateWithFlags(&ready, cudaEventDisableTiming));
    cudaCheck(cudaMalloc(&p, N * sizeof(float)));
    LAUNCH(fill, 1, N, 0, first, p, 2.5f);
    cudaCheck(cudaEventRecord(ready, first));
    if (fixed) cudaCheck(cudaStreamWaitEvent(second, ready, 0));
    cudaCheck(cudaMemcpyAsync(&x, p, sizeof(x), cudaMemcpyDeviceToHost, second));
    cudaCheck(cudaStreamSynchronize(second));
    if (isnan(x)) fprintf(stderr, "the copy is NaN\n");
    return x == 2.5f;
}
static bool much_shared(int fixed) {
    float* out = device(N);
    if (fixed) allow_shared(dynamic_bounds, 64 * 1024);
    LAUNCH(dynamic_bounds, 1, N, 64 * 1024, 0, out, 1);  // (bug: much_shared)
    return all(out, N, 1.0f);
}
static bool many_threads(int fixed) {
    float* out = device(1056);
    LAUNCH(fill, 1, fixed ? 1024 : 1056, 0, 0, out, 1.0f);  // (bug: many_threads)
    return all(out, 1024, 1.0f);
}
static bool high_grid(int fixed) {
    float* out = device(32);
    LAUNCH(fill, dim3(1, fixed ? 2 : 65536, 1), 32, 0, 0, out, 1.0f);  // (bug: high_grid)
    return all(out, 32, 1.0f);
}
static bool deep_grid(int fixed) {
    float* out = device(32);
    LAUNCH(fill, dim3(1, 1, fixed ? 2 : 65536), 32, 0, 0, out, 1.0f);  // (bug: deep_grid)
    return all(out, 32, 1.0f);
}
static bool freed_twice(int fixed) {
    float* p = device(N);
    cudaCheck(cudaFree(p));
    if (!fixed) cudaCheck(cudaFree(p));
    return true;
}

// D (M × n) = A (M × K) · B (K × n), column major, from a buffer just large enough
static bool gemm(int offset, int lda) {
    const int M = 16, K = 8, n = 24;
    float *a = device(M * K), *b = device(K * n), *d = device(M * n + 8), one = 1.0f, zero = 0.0f;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t A, B, D;
    bool good = cublasLtCreate(&handle) == CUBLAS_STATUS_SUCCESS &&
                cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS;
    cublasStatus_t status = cublasLtMatrixLayoutCreate(&A, CUDA_R_32F, M, K, lda);
    if (status != CUBLAS_STATUS_SUCCESS) {
        fprintf(stderr, "layout of A: %s\n", cublasLtGetStatusString(status));
        return false;
    }
    good = good && cublasLtMatrixLayoutCreate(&B, CUDA_R_32F, K, n, K) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatrixLayoutCreate(&D, CUDA_R_32F, M, n, M) == CUBLAS_STATUS_SUCCESS;
    good = good && cublasLtMatmul(handle, desc, &one, a, A, b, B, &zero, d + offset, D, d + offset, D, NULL, NULL, 0,
                                  0) == CUBLAS_STATUS_SUCCESS;
    cudaCheck(cudaDeviceSynchronize());
    return good && all(d, M * n, 0.0f);
}
static bool misaligned_gemm(int fixed) { return gemm(fixed ? 4 : 1, 16); }
static bool large_leading_dimension(int fixed) { return gemm(0, fixed ? 16 : 24); }
static bool small_leading_dimension(int fixed) { return gemm(0, fixed ? 16 : 8); }

// ---------------------------------------------------------------------------------------------------
// the table: name, code, the builds that see it, and what each report must say

static const struct Case {
    const char* name;
    bool (*run)(int fixed);
    const char *builds, *says[3];
} cases[] = {
    {"missing_barrier_read",
     run_missing_barrier_read,
     "t",
     {"data race", "kernel missing_barrier_read, block (1,0,0), thread ("}},
    {"missing_barrier_write",
     run_missing_barrier_write,
     "t",
     {"data race", "kernel missing_barrier_write, block (0,0,0), thread ("}},
    {"missing_syncwarp", run_missing_syncwarp, "t", {"data race", "kernel missing_syncwarp, block (0,0,0), thread ("}},
    {"shuffle_as_syncwarp",
     run_shuffle_as_syncwarp,
     "t",
     {"data race", "kernel shuffle_as_syncwarp, block (0,0,0), thread ("}},
    {"global_bounds",
     run_global_bounds,
     "n",
     {"wrote outside device memory: 1 bytes past the end of the allocation of 1024 bytes"}},
    {"global_bounds",
     run_global_bounds,
     "a",
     {"heap-buffer-overflow", "kernel global_bounds, block (0,0,0), thread (77,0,0)"}},
    {"static_bounds",
     run_static_bounds,
     "n",
     {"write outside a shared array of 1024 bytes", "kernel static_bounds, block (1,0,0)"}},
    {"static_bounds",
     run_static_bounds,
     "a",
     {"index 257 out of bounds", "kernel static_bounds, block (1,0,0), thread (5,0,0)"}},
    {"dynamic_bounds",
     run_dynamic_bounds,
     "n",
     {"write outside dynamic shared memory of 1024 bytes", "kernel dynamic_bounds, block (0,0,0)"}},
    {"dynamic_bounds",
     run_dynamic_bounds,
     "a",
     {"use-after-poison", "kernel dynamic_bounds, block (0,0,0), thread (6,0,0)"}},
    {"unwritten_shared", run_unwritten_shared, "na", {"a result is NaN"}},
    {"stack_overflow",
     run_stack_overflow,
     "n",
     {"stack overflow", "kernel stack_overflow, block (0,0,0), thread (3,0,0)"}},
    {"stack_overflow",
     run_stack_overflow,
     "a",
     {"stack-overflow", "kernel stack_overflow, block (0,0,0), thread (3,0,0)"}},
    {"shift_too_far",
     run_shift_too_far,
     "a",
     {"shift exponent", "kernel shift_too_far, block (0,0,0), thread (0,0,0)"}},
    {"misaligned_load",
     run_misaligned_load,
     "na",
     {"misaligned access", "kernel misaligned_load, block (0,0,0), thread (0,0,0)"}},
    {"misaligned_store",
     run_misaligned_store,
     "na",
     {"misaligned access", "kernel misaligned_store, block (0,0,0), thread (2,0,0)"}},
    {"early_exit",
     run_early_exit,
     "nt",
     {"32 threads of the block have left", "kernel early_exit, block (1,0,0), thread (32,0,0)"}},
    {"late_exit",
     run_late_exit,
     "nt",
     {"threads wait for others that never come", "thread 0 waits in __syncthreads",
      "32 threads have left the kernel, thread 224 first"}},
    {"two_barriers",
     run_two_barriers,
     "nt",
     {"two different barriers meet", "kernel two_barriers, block (0,0,0), thread (64,0,0)"}},
    {"skipped_barrier",
     run_skipped_barrier,
     "n",
     {"after", "threads of the block have left the kernel", "kernel skipped_barrier, block (0,0,0), thread ("}},
    {"shuffle_of_exited",
     run_shuffle_of_exited,
     "n",
     {"thread 32 waits in shuffle", "lane 8 has left the kernel", "kernel shuffle_of_exited, block (0,0,0)"}},
    {"shuffle_against_barrier",
     run_shuffle_against_barrier,
     "n",
     {"threads wait for others that never come", "waits in shuffle", "waits in __syncthreads"}},
    {"two_warp_operations",
     run_two_warp_operations,
     "n",
     {"lanes of a warp at different operations", "kernel two_warp_operations, block (0,0,0), thread (16,0,0)"}},
    {"async_wait", run_async_wait, "na", {"a result is NaN"}},
    {"host_reads", host_reads, "a", {"the host touches device memory", "READ of size 4"}},
    {"host_writes", host_writes, "a", {"the host touches device memory", "WRITE of size 4"}},
    {"copy_kind", copy_kind, "n", {"cudaMemcpy: the target", "is not device memory"}},
    {"copy_pointer", copy_pointer, "n", {"cudaMemcpy: the target", "is not device memory"}},
    {"copy_past_the_end", copy_past_the_end, "n", {"the source, 1028 bytes at", "passes the end of its allocation"}},
    {"missing_wait", missing_wait, "n", {"the loss is NaN"}},
    {"missing_event", missing_event, "n", {"the copy is NaN"}},
    {"much_shared", much_shared, "n", {"more dynamic shared memory than allowed", "launch of dynamic_bounds"}},
    {"many_threads", many_threads, "n", {"more than 1024 threads a block", "launch of fill"}},
    {"high_grid", high_grid, "n", {"grid y or z above 65535"}},
    {"deep_grid", deep_grid, "n", {"grid y or z above 65535"}},
    {"freed_twice", freed_twice, "n", {"cudaFree of", "no such allocation"}},
    {"misaligned_gemm", misaligned_gemm, "n", {"cublasLtMatmul: ", "16-byte aligned"}},
    {"large_leading_dimension", large_leading_dimension, "na", {"cublasLtMatmul: A is not in device memory"}},
    {"small_leading_dimension", small_leading_dimension, "na", {"layout of A: invalid value"}},
};

// ---------------------------------------------------------------------------------------------------
// children

// Runs this program on one case; returns its exit status (128 + signal) and what it wrote to stderr and stdout (at most
// bytes).
static int run_child(const char* name, const char* which, const char* order, char* said, size_t bytes) {
    int ends[2], status = 0;
    size_t n = 0;
    if (pipe(ends)) {
        perror("pipe");
        exit(1);
    }
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        const struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        setenv("CPU_ORDER", order, 1);
        setenv("CPU_THREADS", strcmp(which, "bug") ? "2" : "1",
               1);  // one: so that it is always the same block that is reported
        setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
        setenv("TSAN_OPTIONS", "halt_on_error=1:atexit_sleep_ms=0", 1);
        dup2(ends[1], 1);
        dup2(ends[1], 2);
        execl("/proc/self/exe", "test_cpu", name, which, (char*)NULL);
        _exit(127);
    }
    close(ends[1]);
    for (ssize_t got; (got = read(ends[0], said + n, bytes - 1 - n)) > 0;) n += got;
    said[n] = '\0';
    close(ends[0]);
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

// Whether the report names every line of this file that is tagged with the case's name.
static bool names_lines(const char* name, const char* said, char* why, size_t bytes) {
    char tag[128], line[512], place[64];
    snprintf(tag, sizeof tag, "(bug: %s)", name);
    FILE* f = fopen(__FILE__, "r");
    if (!f) {
        snprintf(why, bytes, "cannot read %s from here", __FILE__);
        return false;
    }
    bool good = true;
    for (int i = 1; good && fgets(line, sizeof line, f); i++) {
        if (!strstr(line, tag)) continue;
        snprintf(place, sizeof place, "test_cpu.cu:%d", i);
        good = strstr(said, place) != NULL;
        if (!good) snprintf(why, bytes, "the report does not name %s", place);
    }
    fclose(f);
    return good;
}

static char said[1 << 20];
static void report(bool good, const char* name, const char* which, const char* why) {
    if (good) check(1, "%s %s", name, which);
    else {
        check(0, "%s %s: %s", name, which, why);
        printf("%.3000s\n", said);
    }
}
static void check_case(const Case* c) {
    char why[256] = "";
    int status = run_child(c->name, "bug", "forward", said, sizeof said);
    bool good = status != 0;
    if (!good) snprintf(why, sizeof why, "passed unnoticed");
    for (int i = 0; i < 3 && c->says[i] && good; i++)
        if (!strstr(said, c->says[i])) {
            good = false;
            snprintf(why, sizeof why, "the report does not say \"%s\"", c->says[i]);
        }
    // without a sanitizer a stray write is only found afterwards, by its block or its buffer
    bool late = BUILD_LETTER == 'n' && strstr(c->name, "_bounds");
    if (good && !late) good = names_lines(c->name, said, why, sizeof why);
    report(good, c->name, "is found", why);
    for (const char* order : {"forward", "reverse", "5"}) {
        status = run_child(c->name, "fixed", order, said, sizeof said);
        good = status == 0 && !said[0];
        if (!good) break;
    }
    snprintf(why, sizeof why, "exit status %d", status);
    report(good, c->name, "fixed is silent", why);
}

// Blocks that write the same place: another order, another result; fixed, the order does not matter.
static void check_order(void) {
    char forward[4096] = "", reverse[4096] = "";
    run_child("block_race", "bug", "forward", forward, sizeof forward);
    run_child("block_race", "bug", "reverse", reverse, sizeof reverse);
    check(strstr(forward, "is 3") && strstr(reverse, "is 1"),
          "block_race shows in the order of blocks: \"%.*s\" and \"%.*s\"", (int)strcspn(forward, "\n"), forward,
          (int)strcspn(reverse, "\n"), reverse);
    check(!run_child("block_race", "fixed", "forward", said, sizeof said) &&
              !run_child("block_race", "fixed", "reverse", said, sizeof said),
          "block_race fixed is silent");
}

// ---------------------------------------------------------------------------------------------------
// expf and tanhf of device code, against double precision

static void check_function(const char* name, float (*f)(float), double (*exact)(double)) {
    double worst = 0.0;
    float at = 0.0f;
    for (uint64_t bits = 0; bits < (1ull << 32); bits += 401) {  // over all signs and exponents, denormals among them
        float x = __uint_as_float((unsigned)bits);
        if (isnan(x)) continue;
        double y = exact(x);
        float got = f(x), nearest = (float)y;
        if (got == nearest) continue;
        // one ulp of the exact value, that of the smallest denormal at the least
        double ulp = isinf(nearest) ? ldexp(1.0, 104) : fmax(ldexp(1.0, -149), ldexp(1.0, ilogb(nearest) - 23));
        double error = isinf(got) && isinf(nearest)
                           ? 0.0
                           : fabs((double)got -
                                  (isinf(y) || fabs(y) > 3.4e38 ? (y > 0 ? ldexp(1.0, 128) : -ldexp(1.0, 128)) : y)) /
                                 ulp;
        if (!(error <= worst)) {
            worst = error;
            at = x;
        }
    }
    check(worst <= 2.0, "%s is within %.2f ulp (worst at %a), 2 allowed", name, worst, at);
    check(isnan(f(NAN)), "%s of NaN is NaN", name);
    check(f(INFINITY) == (float)exact(INFINITY) && f(-INFINITY) == (float)exact(-INFINITY) &&
              f(0.0f) == (float)exact(0.0),
          "%s of the infinities and of 0 is exact", name);
}
static float device_exp(float x) { return expf(x); }
static float device_tanh(float x) { return tanhf(x); }
static double exact_exp(double x) { return exp(x); }
static double exact_tanh(double x) { return tanh(x); }

// Narrowing to bf16 rounds to nearest even, as a GPU does; every bf16 comes back as itself, NaN stays NaN.
static void check_bf16(void) {
    bool back = true, even = true;
    for (unsigned h = 0; h < 65536; h++) {
        __nv_bfloat16 b = {(uint16_t)h};
        float x = __bfloat162float(b);
        if (isnan(x)) back = back && isnan(__bfloat162float(__float2bfloat16_rn(x)));
        else back = back && __float2bfloat16_rn(x).x == h;
        if ((h & 0x7f80) == 0x7f80 || (h & 0x7fff) == 0x7f7f) continue;
        float middle = __uint_as_float(h << 16 | 0x8000);  // half way to the next
        even = even && __float2bfloat16_rn(middle).x == h + (h & 1) &&
               __float2bfloat16_rn(__uint_as_float(h << 16 | 0x8001)).x == h + 1;
    }
    check(back, "every bf16 survives the way to fp32 and back");
    check(even, "bf16 rounds to nearest even");
}

int main(int argc, char** argv) {
    if (argc == 3) {
        bool fixed = !strcmp(argv[2], "fixed");
        if (!strcmp(argv[1], "block_race")) return !blocks_in_order(fixed);
        for (auto& c : cases)
            if (!strcmp(c.name, argv[1])) return !c.run(fixed);
        fprintf(stderr, "test_cpu: no case %s\n", argv[1]);
        return 2;
    }
    for (auto& c : cases)
        if (strchr(c.builds, BUILD_LETTER)) check_case(&c);
    if (BUILD_LETTER == 'n') {
        check_order();
        check_function("expf", device_exp, exact_exp);
        check_function("tanhf", device_tanh, exact_tanh);
        check_bf16();
    }
    return check_report();
}
