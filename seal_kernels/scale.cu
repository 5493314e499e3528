/*
What a scalar or a cap changes: rows times a number on their way into another buffer (the gradient of a branch whose
output was multiplied before it joined the residual; the gradient past a norm that is not there), and capped logits.
*/
#include <assert.h>
#include "kernels.h"

#define BLOCK 256

// ---------------------------------------------------------------------------------------------------
// kernels: one thread for VEC elements

static __global__ void scale_rows_kernel(floatX* out, const floatX* inp, float scale, bool add, int T, int C, int ldi) {
    unsigned i = blockIdx.x * BLOCK + threadIdx.x, row = i / (C / VEC), c = i % (C / VEC) * VEC;
    if (row >= (unsigned)T) return;
    float8 x = load8(inp + (size_t)row * ldi + c), y = {{0.0f}};
    floatX* to = out + (size_t)row * C + c;
    if (add) y = load8(to);
    for (int k = 0; k < VEC; k++) y.v[k] = fmaf(scale, x.v[k], y.v[k]);
    store8(to, y);
}

static __global__ void cap_logits_kernel(floatX* logits, float cap, size_t n) {
    size_t i = ((size_t)blockIdx.x * BLOCK + threadIdx.x) * VEC;
    if (i >= n) return;
    float8 x = load8(logits + i);
    for (int k = 0; k < VEC; k++) x.v[k] = cap * tanhf(x.v[k] / cap);
    store8(logits + i, x);
}

// ---------------------------------------------------------------------------------------------------
// launchers

void scale_rows(floatX* out, const floatX* inp, float scale, bool add, int T, int C, int ldi, cudaStream_t stream) {
    NVTX_RANGE("scale_rows");
    assert(C % VEC == 0 && ldi % VEC == 0 && (size_t)T * C / VEC < INT32_MAX);
    if (T == 0) return;
    LAUNCH(scale_rows_kernel, (unsigned)CEIL_DIV((size_t)T * C / VEC, BLOCK), BLOCK, 0, stream, out, inp, scale, add, T,
           C, ldi);
}

void cap_logits(floatX* logits, float cap, int n, int Vp, cudaStream_t stream) {
    NVTX_RANGE("cap_logits");
    assert(Vp % VEC == 0 && cap > 0.0f);
    size_t elements = (size_t)n * Vp;
    if (n == 0) return;
    LAUNCH(cap_logits_kernel, (unsigned)CEIL_DIV(elements / VEC, BLOCK), BLOCK, 0, stream, logits, cap, elements);
}
