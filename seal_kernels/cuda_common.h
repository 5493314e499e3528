/*
What every .cu file of this project uses: the compile-time type floatX, error checks, the launch macro, shared
memory, warp and block reductions, and 8-element vectors. The same sources are compiled by nvcc for a GPU and by g++
against dev/cpu, which brings its own LAUNCH, SHARED and EXTERN_SHARED; the block under __CUDACC__ is the GPU's half of
that contract.
*/
#ifndef SEAL_CUDA_COMMON_H
#define SEAL_CUDA_COMMON_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cuda_runtime.h>
#include <cuda_bf16.h>

// What a GPU runs and a CPU would do in another way, or on fewer threads, is written twice. DEVICE_HALVES selects the
// GPU's half: under nvcc, and under g++ with -DCPU_DEVICE_HALVES, which tests it. `#ifdef __CUDACC__` is left for the
// language itself, for asm, and for what only CUDA has (dev/test/test_halves.sh).
#if defined(__CUDACC__) || defined(CPU_DEVICE_HALVES)
#define DEVICE_HALVES 1
#else
#define DEVICE_HALVES 0
#endif

// ---------------------------------------------------------------------------------------------------
// floatX: the type of parameters, activations and their gradients. Parameter gradients, optimizer states, statistics
// and losses are fp32.
#ifdef PRECISION_BF16
typedef __nv_bfloat16 floatX;
#define FLOATX_NAME "bf16"
#else
typedef float floatX;
#define FLOATX_NAME "fp32"
#endif

static inline __host__ __device__ float to_float(float x) { return x; }
static inline __host__ __device__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <typename T> static inline __host__ __device__ T from_float(float x);
template <> inline __host__ __device__ float from_float<float>(float x) { return x; }
template <> inline __host__ __device__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
    return __float2bfloat16_rn(x);
}

// ---------------------------------------------------------------------------------------------------
// errors of the program: print call, file, line and stop (errors of the user are found before a kernel runs)
// A program may define device_failed: it is called before exit, which a broken device may never come out of.
extern "C" __attribute__((weak)) void device_failed(void);
[[noreturn]] static inline void device_exit(void) {
    if (device_failed) device_failed();
    exit(1);
}
static inline void cuda_check(cudaError_t error, const char* call, const char* file, int line) {
    if (error != cudaSuccess) {
        fprintf(stderr, "CUDA error: %s\n  in %s\n  at %s:%d\n", cudaGetErrorString(error), call, file, line);
        device_exit();
    }
}
#define cudaCheck(call) cuda_check(call, #call, __FILE__, __LINE__)

// ---------------------------------------------------------------------------------------------------
// LAUNCH(kernel, grid, block, shared_bytes, stream, args...): a launch and its error check. A template with a comma
// goes in parentheses: LAUNCH((kernel<float, 64>), grid, block, 0, stream, x, y). Dynamic shared memory above 48 KB
// needs allow_shared(kernel, bytes) before. SHARED(float, tile, [32][33]) declares a static shared array;
// EXTERN_SHARED(float, buffer) names the dynamic one.
#ifdef __CUDACC__
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                          \
    do {                                                                                \
        SEAL_STRIP(kernel)<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__); \
        cuda_check(cudaGetLastError(), "launch of " #kernel, __FILE__, __LINE__);       \
    } while (0)
#define SEAL_STRIP(x) x
#define SHARED(type, name, dims) \
    __shared__ __align__(16) type name dims  // nvcc aligns an array of bf16 to 2 bytes; load8 and store8 need 16
#define EXTERN_SHARED(type, name)                                          \
    extern __shared__ __align__(128) unsigned char dynamic_shared_bytes[]; \
    type* name = reinterpret_cast<type*>(dynamic_shared_bytes)
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")
#include <nvtx3/nvToolsExt.h>
// NVTX_RANGE("name"): names a span of host time in Nsight until the end of the scope; on the CPU it is nothing.
struct nvtx_range {
    explicit nvtx_range(const char* name) { nvtxRangePushA(name); }
    ~nvtx_range() { nvtxRangePop(); }
};
#define NVTX_RANGE(name) nvtx_range nvtx_range_here(name)
#else
#define NVTX_RANGE(name) ((void)0)
#endif

// Bytes of shared memory that a block may have on this device: 227 KiB on H100, 163 on A100, 99 on most others. Where
// there is no device a run is only planned, for an A100.
static inline int most_shared(void) {
    int device, bytes;
    if (cudaGetDevice(&device) != cudaSuccess) {
        cudaGetLastError();
        return 163 << 10;
    }
    cudaCheck(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    return bytes;
}
// Blocks that a multiprocessor's shared memory holds, each with so many bytes, and at most `most`; 0: no block may have
// so many.
static inline int resident_blocks(int most, size_t bytes) {
    int device, all;
    if (bytes > (size_t)most_shared()) return 0;
    cudaCheck(cudaGetDevice(&device));
    cudaCheck(cudaDeviceGetAttribute(&all, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device));
    int blocks = (int)((size_t)all / (bytes + 1024));  // a block has 1 KiB more of which the driver takes care
    return blocks < most ? blocks : most;
}
template <typename Kernel> static inline void allow_shared(Kernel kernel, size_t bytes) {
    if (bytes > (size_t)most_shared()) {
        fprintf(stderr, "a kernel needs %zu KiB of shared memory per block but this device has %d KiB\n",
                (bytes + 1023) / 1024, most_shared() / 1024);
        device_exit();
    }
    cudaCheck(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   (int)bytes));
}

#define WARP_SIZE 32
#define LOG2E 1.4426950408889634f
#define CEIL_DIV(a, b) (((a) + (b)-1) / (b))

// ---------------------------------------------------------------------------------------------------
// Reductions. Every lane (thread) receives the result. The order of the sum is fixed by the shape of the block, never
// by timing. dev/cpu defines warp_sum, warp_max and warp_sums as one operation of the whole warp: five emulated
// shuffles would cost five times as much.
#if DEVICE_HALVES
static inline __device__ float warp_sum(float x) {
    UNROLL for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}
static inline __device__ float warp_max(float x) {
    UNROLL for (int offset = 16; offset > 0; offset >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}
// N sums at once, in place: their shuffles do not wait for each other
template <int N> static inline __device__ void warp_sums(float (&x)[N]) {
    UNROLL for (int offset = 16; offset > 0; offset >>= 1) UNROLL for (int i = 0; i < N; i++)
        x[i] += __shfl_xor_sync(0xffffffffu, x[i], offset);
}
#endif

// Block-wide sum (max) for one-dimensional blocks whose size is a multiple of 32, at most 1024. Safe to call again at
// once: the leading barrier keeps a fast warp from overwriting partials that a slow one still reads.
static inline __device__ float block_sum(float x) {
    SHARED(float, partial, [WARP_SIZE]);
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % WARP_SIZE == 0) partial[threadIdx.x / WARP_SIZE] = x;
    __syncthreads();
    float total = 0.0f;
    for (int w = 0; w < (int)blockDim.x / WARP_SIZE; w++) total += partial[w];
    return total;
}
static inline __device__ float block_max(float x) {
    SHARED(float, partial, [WARP_SIZE]);
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % WARP_SIZE == 0) partial[threadIdx.x / WARP_SIZE] = x;
    __syncthreads();
    float highest = partial[0];
    for (int w = 1; w < (int)blockDim.x / WARP_SIZE; w++) highest = fmaxf(highest, partial[w]);
    return highest;
}

// ---------------------------------------------------------------------------------------------------
// Eight consecutive elements as fp32 in registers. Widths (C, FF, HS) are multiples of 8 in every model here, so rows
// split into whole vectors. On a GPU a bf16 vector is one 128-bit access and an fp32 one is two; under g++ the inner
// loops of 8 become AVX code, which the loop over a block's threads does not. Pointers must be 16-byte aligned (the row
// stride a multiple of 8).
#define VEC 8
struct float8 {
    float v[VEC];
};

#if !DEVICE_HALVES
// g++ turns eight conversions into two halves of four and then stops vectorising the loop around them (GELU in bf16: a
// third of the speed), so they are written with its vector types. The same bits as __bfloat162float and
// __float2bfloat16_rn.
typedef uint32_t cpu_uint8 __attribute__((vector_size(32)));
typedef uint16_t cpu_ushort8 __attribute__((vector_size(16)));
static inline void cpu_widen8(float* to, const __nv_bfloat16* from) {
    cpu_ushort8 h;
    __builtin_memcpy(&h, from, sizeof(h));
    cpu_uint8 bits = __builtin_convertvector(h, cpu_uint8) << 16;
    __builtin_memcpy(to, &bits, sizeof(bits));
}
static inline void cpu_narrow8(__nv_bfloat16* to, const float* from) {
    cpu_uint8 bits;
    __builtin_memcpy(&bits, from, sizeof(bits));
    cpu_uint8 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    cpu_uint8 is_nan = (cpu_uint8)((bits & 0x7fffffffu) > 0x7f800000u);  // all ones where it is
    cpu_ushort8 h = __builtin_convertvector((rounded & ~is_nan) | (is_nan & 0x7fffu), cpu_ushort8);
    __builtin_memcpy(to, &h, sizeof(h));
}
#endif

static inline __device__ float8 load8(const float* p) {
    float8 x;
#if DEVICE_HALVES
    float4 lo = *reinterpret_cast<const float4*>(p), hi = *reinterpret_cast<const float4*>(p + 4);
    x.v[0] = lo.x;
    x.v[1] = lo.y;
    x.v[2] = lo.z;
    x.v[3] = lo.w;
    x.v[4] = hi.x;
    x.v[5] = hi.y;
    x.v[6] = hi.z;
    x.v[7] = hi.w;
#else
    cpu_check_aligned(p, 16);  // what the device would refuse is refused here too
    for (int k = 0; k < VEC; k++) x.v[k] = p[k];
#endif
    return x;
}
static inline __device__ float8 load8(const __nv_bfloat16* p) {
    float8 x;
#if DEVICE_HALVES
    int4 bits = *reinterpret_cast<const int4*>(p);
    const __nv_bfloat16* h = reinterpret_cast<const __nv_bfloat16*>(&bits);
    UNROLL for (int k = 0; k < VEC; k++) x.v[k] = __bfloat162float(h[k]);
#else
    cpu_check_aligned(p, 16);
    cpu_widen8(x.v, p);
#endif
    return x;
}
static inline __device__ void store8(float* p, float8 x) {
#if DEVICE_HALVES
    *reinterpret_cast<float4*>(p) = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
    *reinterpret_cast<float4*>(p + 4) = make_float4(x.v[4], x.v[5], x.v[6], x.v[7]);
#else
    cpu_check_aligned(p, 16);
    for (int k = 0; k < VEC; k++) p[k] = x.v[k];
#endif
}
static inline __device__ void store8(__nv_bfloat16* p, float8 x) {
#if DEVICE_HALVES
    int4 bits;
    __nv_bfloat16* h = reinterpret_cast<__nv_bfloat16*>(&bits);
    UNROLL for (int k = 0; k < VEC; k++) h[k] = __float2bfloat16_rn(x.v[k]);
    *reinterpret_cast<int4*>(p) = bits;
#else
    cpu_check_aligned(p, 16);
    cpu_narrow8(p, x.v);
#endif
}

// The sum of the eight as a tree of neighbours.
static inline __device__ float sum8(const float8& x) {
    return ((x.v[0] + x.v[1]) + (x.v[2] + x.v[3])) + ((x.v[4] + x.v[5]) + (x.v[6] + x.v[7]));
}

// Eight elements as they are in memory, for kernels with many loads in flight: in bf16 half the registers of float8,
// and the load is waited for where it is unpacked.
struct __align__(16) packed8 {
    floatX v[VEC];
};
static inline __device__ packed8 load_packed8(const floatX* p) {
    packed8 x;
#if DEVICE_HALVES
    UNROLL for (int i = 0; i < (int)sizeof(packed8) / 16;
                i++) reinterpret_cast<int4*>(&x)[i] = reinterpret_cast<const int4*>(p)[i];
#else
    cpu_check_aligned(p, 16);
    __builtin_memcpy(&x, p, sizeof x);
#endif
    return x;
}
static inline __device__ float8 unpack8(const packed8& x) { return load8(x.v); }

#endif
