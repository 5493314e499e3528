/*
The tail that a LoRA adapter takes after a GEMM's input. x and W have the row stride C + R; after x is s·xAᵀ,
after W is B, so that one product gives x·Wᵀ + s·xAᵀ·Bᵀ. Here is what neither GEMM can do: each row keeps its own
adapter's columns, scaled, and everything else there is zero.
*/
#include <assert.h>
#include "kernels.h"

#define BLOCK 256

// one thread for VEC elements of a row's tail
static __global__ void adapter_tail_kernel(floatX* tail, int T, int split, int width, int R, int ld,
                                           AdapterScales scales) {
    unsigned i = blockIdx.x * BLOCK + threadIdx.x, row = i / (R / VEC), c = i % (R / VEC) * VEC;
    if (row >= (unsigned)T) return;
    floatX* p = tail + (size_t)row * ld + c;
    unsigned first = row < (unsigned)split ? 0 : width;
    float8 x = {{0.0f}};
    if (c - first < (unsigned)width) {  // below `first` the difference wraps around
        const int module = (int)((c - first) / (unsigned)scales.columns);
        const float scale = module == 0 ? scales.of[0] : module == 1 ? scales.of[1] : scales.of[2];  // in registers
        x = load8(p);
        for (int k = 0; k < VEC; k++) x.v[k] *= scale;
    }
    store8(p, x);
}

void adapter_tail(floatX* tail, int T, int split, int width, int R, int ld, AdapterScales scales, cudaStream_t stream) {
    NVTX_RANGE("adapter_tail");
    assert(R % VEC == 0 && width % VEC == 0 && ld % VEC == 0 && (split == T || 2 * width <= R) && width <= R &&
           scales.columns > 0 && scales.columns % VEC == 0 && width <= ADAPTER_MODULES * scales.columns);
    if (T == 0) return;
    LAUNCH(adapter_tail_kernel, (unsigned)CEIL_DIV((size_t)T * R / VEC, BLOCK), BLOCK, 0, stream, tail, T, split, width,
           R, ld, scales);
}
