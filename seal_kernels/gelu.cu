/*
GELU in both of its forms (gelu.h), forward and backward.
*/
#include <assert.h>
#include "kernels.h"
#include "gelu.h"

// ---------------------------------------------------------------------------------------------------
// kernels: one thread for VEC elements of a row

// 32-bit vector numbers: dividing 64-bit ones would take as long as the GELU itself.
template <GeluForm FORM>
static __global__ void gelu_forward_kernel(floatX* out, const floatX* inp, int T, int C, int ldo) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, row = i / (C / VEC), c = i % (C / VEC) * VEC;
    if (row >= (unsigned)T) return;
    float8 x = load8(inp + (size_t)row * C + c);
    for (int k = 0; k < VEC; k++) x.v[k] = gelu<FORM>(x.v[k]);
    store8(out + (size_t)row * ldo + c, x);
}

// dinp (T, C; ldi) and dout (T, C; ldo) may be the same: an element is read and written by one thread.
template <GeluForm FORM>
static __global__ void gelu_backward_kernel(floatX* dinp, const floatX* inp, const floatX* dout, int T, int C, int ldi,
                                            int ldo) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, row = i / (C / VEC), c = i % (C / VEC) * VEC;
    if (row >= (unsigned)T) return;
    float8 x = load8(inp + (size_t)row * C + c), d = load8(dout + (size_t)row * ldo + c);
    for (int k = 0; k < VEC; k++) d.v[k] *= gelu_slope<FORM>(x.v[k]);
    store8(dinp + (size_t)row * ldi + c, d);
}

// ---------------------------------------------------------------------------------------------------
// launchers

#define BLOCK 256

static unsigned grid(int T, int C) {
    assert(C % VEC == 0 && (size_t)T * C / VEC < INT32_MAX);
    return CEIL_DIV((unsigned)((size_t)T * C / VEC), BLOCK);
}

template <GeluForm FORM>
static void launch_forward(floatX* out, const floatX* inp, int T, int C, int ldo, cudaStream_t stream) {
    assert(ldo % VEC == 0);
    if (T == 0) return;
    LAUNCH(gelu_forward_kernel<FORM>, grid(T, C), BLOCK, 0, stream, out, inp, T, C, ldo);
}

template <GeluForm FORM>
static void launch_backward(floatX* dinp, const floatX* inp, const floatX* dout, int T, int C, int ldi, int ldo,
                            cudaStream_t stream) {
    assert(ldi % VEC == 0 && ldo % VEC == 0);
    if (T == 0) return;
    LAUNCH(gelu_backward_kernel<FORM>, grid(T, C), BLOCK, 0, stream, dinp, inp, dout, T, C, ldi, ldo);
}

void gelu_forward(floatX* out, const floatX* inp, int T, int C, int ldo, cudaStream_t stream) {
    NVTX_RANGE("gelu_forward");
    launch_forward<GELU_TANH>(out, inp, T, C, ldo, stream);
}

void gelu_backward(floatX* dinp, const floatX* inp, const floatX* dout, int T, int C, int ldo, cudaStream_t stream) {
    NVTX_RANGE("gelu_backward");
    launch_backward<GELU_TANH>(dinp, inp, dout, T, C, C, ldo, stream);
}

void gelu_backward_inplace(floatX* dinp, const floatX* inp, int T, int C, int ldi, cudaStream_t stream) {
    NVTX_RANGE("gelu_backward_inplace");
    launch_backward<GELU_TANH>(dinp, inp, dinp, T, C, ldi, ldi, stream);
}

void gelu_erf_forward(floatX* out, const floatX* inp, int T, int C, int ldo, cudaStream_t stream) {
    NVTX_RANGE("gelu_erf_forward");
    launch_forward<GELU_ERF>(out, inp, T, C, ldo, stream);
}

void gelu_erf_backward(floatX* dinp, const floatX* inp, const floatX* dout, int T, int C, int ldo,
                       cudaStream_t stream) {
    NVTX_RANGE("gelu_erf_backward");
    launch_backward<GELU_ERF>(dinp, inp, dout, T, C, C, ldo, stream);
}

void gelu_erf_backward_inplace(floatX* dinp, const floatX* inp, int T, int C, int ldi, cudaStream_t stream) {
    NVTX_RANGE("gelu_erf_backward_inplace");
    launch_backward<GELU_ERF>(dinp, inp, dinp, T, C, ldi, ldi, stream);
}
