/* What the files of dev/cpu share: running a grid, and saying what went wrong where. */
#ifndef CPU_INTERNAL_H
#define CPU_INTERNAL_H

#include <cuda_runtime.h>

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
struct cpu_stream;
void cpu_enqueue(cudaStream_t stream, void (*run)(void*), void (*release)(void*), void* context, const char* what);
// The allocation p lies in, or NULL: base, bytes, and whether it is the device's.
bool cpu_is_device(const void* p, size_t bytes);

#endif
