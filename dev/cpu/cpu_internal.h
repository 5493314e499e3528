/* What the files of dev/cpu share: running a grid, and saying what went wrong where. */
#ifndef CPU_INTERNAL_H
#define CPU_INTERNAL_H

#include <cuda_runtime.h>
#include <string>

#if defined(__SANITIZE_ADDRESS__)
#define CPU_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#define CPU_ASAN 0
#endif
#if defined(CPU_TSAN) || defined(__SANITIZE_THREAD__)
#undef CPU_TSAN
#define CPU_TSAN 1
#include <sanitizer/tsan_interface.h>
#else
#define CPU_TSAN 0
#endif

// fiber.cpp
void cpu_run_grid(const cpu_launch& launch);
int cpu_threads(void);  // OS threads of the pool (CPU_THREADS, default: cores)
void cpu_parallel(int n, void (*task)(int i, void*), void* context);  // the pool, for GEMMs
bool cpu_in_kernel(void);
void cpu_async_begin_block(void);  // ptx.cpp

// runtime.cpp
size_t cpu_dynamic_limit(const void* function);
std::string cpu_kernel_name(
    const cpu_launch& launch);  // with template arguments and parameters, as the demangler writes it
struct cpu_stream;
void cpu_enqueue(cudaStream_t stream, void (*run)(void*), void (*release)(void*), void* context, const char* what);
// The allocation that contains p, or NULL: base, bytes, and whether it is the device's.
bool cpu_is_device(const void* p, size_t bytes);
// Calls visit for every allocation that a kernel may touch (NULL: for none). The result changes when they do.
uint64_t cpu_allocations(void (*visit)(uint64_t begin, uint64_t bytes, void* context), void* context);

#ifdef CPU_PTX  // dev/ptx/run.cpp
void ptx_begin_grid(void);
void ptx_begin_block(const PtxKernel* kernel, size_t dynamic_bytes);
size_t ptx_static_shared(const PtxKernel* kernel);
#endif

// onednn.cpp: D = op(A) · op(B) + beta · D, column major, on the thread that calls. False, and nothing done: not by
// oneDNN.
struct GemmPart {
    bool ta, tb;
    int64_t M, N, K;
    float alpha;
    const void* a;
    int64_t lda;
    const void* b;
    int64_t ldb;
    float beta;
    void* d;
    int64_t ldd;
    const void* bias;    // (M), or NULL; of gemm16 alone
    bool bias16, out16;  // bf16 and not fp32; of gemm16 alone
};
bool cpu_onednn_sgemm(const GemmPart& g);
bool cpu_onednn_gemm16(const GemmPart& g);  // A and B are bf16; one rounding
bool cpu_onednn_bf16(void);                 // whether there is any use in asking for that

#endif
