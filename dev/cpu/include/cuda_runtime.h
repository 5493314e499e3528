/*
CUDA on the CPU: the part of the runtime API and of the device language that this project uses. A CUDA thread is a
fiber, a block runs on one OS thread, blocks spread over a pool. One primitive is under every warp operation: the
last lane to arrive does the work of the whole warp (cpu_collect). What a GPU forbids is an error here. See
dev/cpu/README.md.
*/
#ifndef CPU_CUDA_RUNTIME_H
#define CPU_CUDA_RUNTIME_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <algorithm>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>

// ---------------------------------------------------------------------------------------------------
// language

// No word here that a C++ library uses between the parentheses of an __attribute__, as libstdc++ does __noinline__;
// __restrict__ is the compilers' own (test_headers.sh).
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define UNROLL  // gcc vectorises a loop that it has not unrolled first, in a third of the time to compile
#define NO_UNROLL _Pragma("GCC unroll 1")

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct __align__(8) float2 {
    float x, y;
};
struct __align__(16) float4 {
    float x, y, z, w;
};
struct __align__(8) int2 {
    int x, y;
};
struct __align__(16) int4 {
    int x, y, z, w;
};
struct __align__(8) uint2 {
    unsigned x, y;
};
struct __align__(16) uint4 {
    unsigned x, y, z, w;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ---------------------------------------------------------------------------------------------------
// the running thread. These are plain thread-local variables: a block never leaves its OS thread.
extern __thread uint3 threadIdx, blockIdx;
extern __thread uint3 blockDim, gridDim;
#define warpSize 32

// ---------------------------------------------------------------------------------------------------
// barriers and warp operations

enum cpu_operation {
    CPU_SYNCTHREADS,
    CPU_SYNCWARP,
    CPU_SHUFFLE,
    CPU_BALLOT,
    CPU_WARP_SUM,
    CPU_WARP_MAX,
    CPU_LDMATRIX,
    CPU_MMA,
    CPU_N_OPERATIONS
};
typedef void (*cpu_warp_function)(void** lanes, uint32_t mask, void* context);

// Whether attention in bf16 runs its plain kernels, which are faster here, and not those of the GPU: CPU_ATTENTION.
bool cpu_plain_attention(void);
void cpu_barrier(const char* file, int line);
// Every lane of `mask` brings a pointer; the last one to arrive calls work(lanes, mask, context) for all.
void cpu_collect(cpu_operation operation, uint32_t mask, void* mine, cpu_warp_function work, void* context,
                 const char* file, int line);
unsigned cpu_lane(void);

#define CPU_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline void __syncthreads(CPU_SITE) { cpu_barrier(file, line); }
static inline void __syncwarp(uint32_t mask = 0xffffffffu, CPU_SITE) {
    cpu_collect(CPU_SYNCWARP, mask, NULL, NULL, NULL, file, line);
}
static inline void __threadfence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block(void) {}

// How a shuffle finds its source lane.
struct cpu_shuffle {
    uint32_t in[2], out[2];
    int source;
};
void cpu_shuffle_work(void** lanes, uint32_t mask, void* context);
template <typename T> static inline T cpu_shuffle_from(uint32_t mask, T value, int source, const char* file, int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    cpu_shuffle s;
    memcpy(s.in, &value, sizeof value);
    s.source = source;
    cpu_collect(CPU_SHUFFLE, mask, &s, cpu_shuffle_work, NULL, file, line);
    memcpy(&value, s.out, sizeof value);
    return value;
}
template <typename T> static inline T __shfl_sync(uint32_t mask, T value, int lane, int width = 32, CPU_SITE) {
    int me = (int)cpu_lane();
    return cpu_shuffle_from(mask, value, (me & ~(width - 1)) | (lane & (width - 1)), file, line);
}
template <typename T> static inline T __shfl_xor_sync(uint32_t mask, T value, int bits, int width = 32, CPU_SITE) {
    int me = (int)cpu_lane(), from = me ^ bits;
    return cpu_shuffle_from(mask, value, (from / width) > (me / width) ? me : from, file, line);
}
template <typename T> static inline T __shfl_down_sync(uint32_t mask, T value, int delta, int width = 32, CPU_SITE) {
    int me = (int)cpu_lane(), from = me + delta;
    return cpu_shuffle_from(mask, value, from / width != me / width ? me : from, file, line);
}
template <typename T> static inline T __shfl_up_sync(uint32_t mask, T value, int delta, int width = 32, CPU_SITE) {
    int me = (int)cpu_lane(), from = me - delta;
    return cpu_shuffle_from(mask, value, from < 0 || from / width != me / width ? me : from, file, line);
}
struct cpu_ballot {
    int predicate;
    uint32_t result;
};
void cpu_ballot_work(void** lanes, uint32_t mask, void* context);
static inline uint32_t __ballot_sync(uint32_t mask, int predicate, CPU_SITE) {
    cpu_ballot b = {predicate, 0};
    cpu_collect(CPU_BALLOT, mask, &b, cpu_ballot_work, NULL, file, line);
    return b.result;
}
static inline int __any_sync(uint32_t mask, int predicate, CPU_SITE) {
    return __ballot_sync(mask, predicate, file, line) != 0;
}
static inline int __all_sync(uint32_t mask, int predicate, CPU_SITE) {
    return __ballot_sync(mask, !predicate, file, line) == 0;
}

// The butterfly's order of additions, whatever order the lanes arrived in: the same bits as five xor shuffles.
void cpu_warp_sum_work(void** lanes, uint32_t mask, void* context);  // context: how many sums, as a number
void cpu_warp_max_work(void** lanes, uint32_t mask, void* context);
#ifndef CPU_DEVICE_HALVES  // a GPU's shuffles otherwise (seal_kernels/cuda_common.h)
static inline float warp_sum(float x, CPU_SITE) {
    cpu_collect(CPU_WARP_SUM, 0xffffffffu, &x, cpu_warp_sum_work, (void*)1, file, line);
    return x;
}
template <int N> static inline void warp_sums(float (&x)[N], CPU_SITE) {
    cpu_collect(CPU_WARP_SUM, 0xffffffffu, x, cpu_warp_sum_work, (void*)(intptr_t)N, file, line);
}
static inline float warp_max(float x, CPU_SITE) {
    cpu_collect(CPU_WARP_MAX, 0xffffffffu, &x, cpu_warp_max_work, NULL, file, line);
    return x;
}
#endif

// ---------------------------------------------------------------------------------------------------
// shared memory: an array of the block, between poisoned margins, NaN at the start of every block
void* cpu_shared(const void* site, size_t bytes, size_t alignment);
void* cpu_dynamic_shared(void);
#define SHARED(type, name, dims)                                 \
    typedef type cpu_type_of_##name dims;                        \
    static const char cpu_site_of_##name = 0;                    \
    cpu_type_of_##name& name = *(cpu_type_of_##name*)cpu_shared( \
        &cpu_site_of_##name, sizeof(cpu_type_of_##name),         \
        alignof(cpu_type_of_##name) < 16 ? 16 : alignof(cpu_type_of_##name))
#define EXTERN_SHARED(type, name) type* name = (type*)cpu_dynamic_shared()

void cpu_fail(const char* format, ...)
    __attribute__((format(printf, 1, 2), noreturn));  // one message with kernel, block, thread; then abort
void cpu_misaligned(const void* p, size_t n, const char* file, int line) __attribute__((noreturn));
static inline void cpu_check_aligned(const void* p, size_t n, CPU_SITE) {
    if (((uintptr_t)p & (n - 1)) != 0) cpu_misaligned(p, n, file, line);
}

// ---------------------------------------------------------------------------------------------------
// atomics (integers only: float atomics would make sums depend on timing), loads with hints, bit casts
template <typename T> static inline T atomicAdd(T* p, T x) {
    static_assert(std::is_integral<T>::value, "no float atomics here");
    return __atomic_fetch_add(p, x, __ATOMIC_RELAXED);
}
template <typename T> static inline T atomicMin(T* p, T x) {
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (x < old && !__atomic_compare_exchange_n(p, &old, x, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return old;
}
template <typename T> static inline T atomicMax(T* p, T x) {
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (x > old && !__atomic_compare_exchange_n(p, &old, x, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return old;
}
template <typename T> static inline T atomicCAS(T* p, T expected, T x) {
    __atomic_compare_exchange_n(p, &expected, x, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}
template <typename T> static inline T __ldg(const T* p) { return *p; }
template <typename T> static inline T __ldcs(const T* p) { return *p; }
template <typename T> static inline void __stcs(T* p, T x) { *p = x; }
static inline unsigned __float_as_uint(float x) {
    unsigned u;
    memcpy(&u, &x, 4);
    return u;
}
static inline float __uint_as_float(unsigned u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}
static inline int __float_as_int(float x) {
    int u;
    memcpy(&u, &x, 4);
    return u;
}
static inline float __int_as_float(int u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}
// C23 has a rsqrtf, and so does glibc since 2.42.
static inline float cpu_rsqrtf(float x) { return 1.0f / sqrtf(x); }
#define rsqrtf cpu_rsqrtf
static inline float __fdividef(float a, float b) { return a / b; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline void __trap(void) { cpu_fail("__trap"); }
using std::max;
using std::min;

// expf and tanhf of device code: inline and free of branches, so that g++ vectorises loops over them; libm's are calls.
// exp(x) = 2^n · exp(r), |r| ≤ ln2/2, a polynomial of degree 7 (error < 2 ulp, dev/cpu/test_cpu.cu); exact limits at
// ±inf, NaN stays.
static inline float cpu_expf(float x) {
    float clamped = x < -104.0f ? -104.0f
                                : x;  // below: 0 (also in the denormal range's end); NaN passes both comparisons
    clamped = clamped > 89.0f ? 89.0f : clamped;
    float n = (clamped * 1.44269504088896341f + 12582912.0f) - 12582912.0f;
    float r = clamped - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    int i = (int)(n == n ? n : 0.0f);
    int half = i >> 1;  // 2^n in two factors: n reaches from −150 to 129
    float a, b;
    int abits = (half + 127) << 23, bbits = (i - half + 127) << 23;
    memcpy(&a, &abits, 4);
    memcpy(&b, &bbits, 4);
    return p * a * b;
}
static inline float cpu_tanhf(float x) {
    // 1 − 2e / (1 + e) with e = exp(−2|x|) loses digits near 0, where an odd polynomial takes over
    float a = fabsf(x), e = cpu_expf(-2.0f * a), big = 1.0f - 2.0f * e / (1.0f + e), x2 = x * x;
    float small = a + a * x2 *
                          (-3.33332819422e-1f +
                           x2 * (1.33314422036e-1f +
                                 x2 * (-5.37397155531e-2f + x2 * (2.06390887954e-2f - x2 * 5.70498872745e-3f))));
    float t = a < 0.625f ? small : big;
    return x < 0.0f ? -t : x != x ? x : t;
}
#define expf cpu_expf
#define __expf cpu_expf
#define tanhf cpu_tanhf
static inline float exp2f_fast(float x) { return cpu_expf(x * 0.693147180559945309f); }

// ---------------------------------------------------------------------------------------------------
// runtime API

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidPitchValue = 12,
    cudaErrorInvalidMemcpyDirection = 21,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorNotSupported = 801
};
typedef cudaError_t cudaError;
typedef struct cpu_stream* cudaStream_t;
typedef struct cpu_event* cudaEvent_t;
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum { cudaStreamDefault = 0, cudaStreamNonBlocking = 1 };
enum { cudaEventDefault = 0, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2 };
enum { cudaHostAllocDefault = 0, cudaHostAllocPortable = 1 };
enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaFuncAttributePreferredSharedMemoryCarveout = 9
};
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76
};
struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin;
    int major, minor, multiProcessorCount, maxThreadsPerBlock, warpSize_;
};

const char* cudaGetErrorString(cudaError_t error);
const char* cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);
cudaError_t cudaMalloc(void** p, size_t bytes);
template <typename T> static inline cudaError_t cudaMalloc(T** p, size_t bytes) { return cudaMalloc((void**)p, bytes); }
cudaError_t cudaFree(void* p);
cudaError_t cudaMallocHost(void** p, size_t bytes);
template <typename T> static inline cudaError_t cudaMallocHost(T** p, size_t bytes) {
    return cudaMallocHost((void**)p, bytes);
}
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* p);
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream = NULL);
cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                         cudaMemcpyKind kind);
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream = NULL);
cudaError_t cudaMemset(void* p, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t stream = NULL);
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes);
cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = NULL);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to);
cudaError_t cudaGetDeviceCount(int* n);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value);
cudaError_t cudaRuntimeGetVersion(int* version);

// ---------------------------------------------------------------------------------------------------
// launches. The arguments are evaluated once, stored with the kernel, and run when the stream's work is asked for.

struct cpu_launch {
    const char* kernel;
    const char* file;
    int line;
    const char *base_file, *instance;  // the .cu file; the kernel with its template arguments, as typeid spells it
    const void* function;
    dim3 grid, block;
    size_t shared_bytes;
    void (*run_threads)(const void* arguments);  // runs the threads of the current block that have not begun
    void (*release)(void* arguments);
    void* arguments;
    const struct PtxKernel* ptx;  // translated PTX (dev/ptx), or NULL: what g++ compiled
};
void cpu_launch_kernel(const cpu_launch& launch, cudaStream_t stream);

// What the thread loop needs of the block that this OS thread runs.
struct cpu_block {
    int next, n_threads, done;  // threads begun, all, finished
    const uint16_t* order;      // the order in which they begin; NULL: ascending
    int waiting;                // threads that wait or could continue: the scheduler decides what runs
    uint8_t exited[1024];
};
extern __thread cpu_block cpu_now;
void cpu_resume_waiting(void);

#if defined(__SANITIZE_THREAD__)
#define CPU_SCHEDULER __attribute__((no_sanitize_thread))  // bookkeeping of the shim, not the kernel's memory
#define CPU_STACK_PER_THREAD true
#else
#define CPU_SCHEDULER
#define CPU_STACK_PER_THREAD false
#endif

template <auto K, typename... P> struct cpu_kernel {
    typedef std::tuple<std::remove_cv_t<std::remove_reference_t<P>>...> Arguments;
    // The kernel is inlined into this loop. A thread that waits leaves it to another stack, which continues with the
    // next thread; so the loop's state is in cpu_now, not in registers.
    CPU_SCHEDULER static void run_threads(const void* arguments) {
        const Arguments& a = *(const Arguments*)arguments;
        while (cpu_now.next < cpu_now.n_threads) {
            int i = cpu_now.next++;
            int tid = cpu_now.order ? cpu_now.order[i] : i;
            threadIdx.x = tid;
            threadIdx.y = 0;
            threadIdx.z = 0;
            if (blockDim.y * blockDim.z != 1) {
                threadIdx.x = tid % blockDim.x;
                threadIdx.y = tid / blockDim.x % blockDim.y;
                threadIdx.z = tid / (blockDim.x * blockDim.y);
            }
            std::apply(K, a);
            // threadIdx again: this stack may have waited and gone on as another thread's
            tid = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
            cpu_now.exited[tid & 1023] = 1;
            cpu_now.done++;
            if (CPU_STACK_PER_THREAD) return;
            if (cpu_now.waiting) cpu_resume_waiting();
        }
    }
    static void release(void* arguments) { delete (Arguments*)arguments; }
};
template <typename T> struct cpu_same { typedef T type; };
#ifdef CPU_PTX
// dev/ptx/run.cpp: makes the launch one of the kernel's PTX; false where a program's own kernel has none.
struct ptx_argument {
    const void* value;
    size_t bytes, align;
};
bool ptx_launch(cpu_launch* launch, const ptx_argument* arguments, int n);
template <typename Tuple> static inline bool ptx_launch_tuple(cpu_launch* launch, const Tuple* arguments) {
    return std::apply(
        [&](const auto&... x) {
            const ptx_argument list[] = {{&x, sizeof x, alignof(decltype(x))}..., {NULL, 0, 0}};
            return ptx_launch(launch, list, sizeof...(x));
        },
        *arguments);
}
#endif
// The arguments convert to the kernel's parameters exactly as in a call of it.
template <auto K, typename... P>
static inline void cpu_launch_template(const char* kernel, const char* file, int line, const char* base_file,
                                       void (*function)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                                       cudaStream_t stream, typename cpu_same<P>::type... arguments) {
    typedef cpu_kernel<K, P...> Kernel;
    cpu_launch launch = {kernel,
                         file,
                         line,
                         base_file,
                         typeid(Kernel).name(),
                         (const void*)function,
                         grid,
                         block,
                         shared_bytes,
                         Kernel::run_threads,
                         Kernel::release,
                         new typename Kernel::Arguments(arguments...),
                         NULL};
#ifdef CPU_PTX
    typename Kernel::Arguments* given = (typename Kernel::Arguments*)launch.arguments;
    if (ptx_launch_tuple(&launch, given)) delete given;
#endif
    cpu_launch_kernel(launch, stream);
}
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                           \
    cpu_launch_template<(kernel)>(#kernel, __FILE__, __LINE__, __BASE_FILE__, (kernel), (grid), (block), \
                                  (shared_bytes), (stream), ##__VA_ARGS__)

#endif
