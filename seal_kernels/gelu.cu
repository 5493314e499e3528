/*
GELU in its tanh form, forward and backward (torch.nn.functional.gelu(approximate="tanh")). With u = √(2/π) (x + 0.044715 x³),
½ (1 + tanh u) = 1 / (1 + exp(−2u)): one exponential and one division, no cancellation for negative x.
*/
#include <assert.h>
// defines: gelu_forward, gelu_backward, gelu_backward_inplace
#include "kernels.h"

#define TWO_ROOT_2_OVER_PI 1.5957691216057308f
#define CUBIC 0.044715f
// Beyond it the sigmoid is exactly 0 or 1 in fp32, and x³ cannot overflow into ∞·0.
#define SATURATED 15.0f

// ---------------------------------------------------------------------------------------------------------------------------------------
// kernels: one thread for VEC elements of a row

static inline __device__ float clamped(float x) {  // comparisons, so that a NaN stays one
    x = x < -SATURATED ? -SATURATED : x;
    return x > SATURATED ? SATURATED : x;
}
static inline __device__ float sigmoid_2u(float x) { return __fdividef(1.0f, 1.0f + expf(-TWO_ROOT_2_OVER_PI * (x + CUBIC * x * x * x))); }

// 32-bit vector numbers: dividing 64-bit ones would take as long as the GELU itself.
static __global__ void gelu_forward_kernel(floatX* out, const floatX* inp, int T, int C, int ldo) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, row = i / (C / VEC), c = i % (C / VEC) * VEC;
    if (row >= (unsigned)T) return;
    float8 x = load8(inp + (size_t)row * C + c);
    for (int k = 0; k < VEC; k++) x.v[k] = (x.v[k] < -SATURATED ? -SATURATED : x.v[k]) * sigmoid_2u(clamped(x.v[k]));
    store8(out + (size_t)row * ldo + c, x);
}

// dinp (T, C; ldi) and dout (T, C; ldo) may be the same: an element is read and written by one thread.
static __global__ void gelu_backward_kernel(floatX* dinp, const floatX* inp, const floatX* dout, int T, int C, int ldi, int ldo) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, row = i / (C / VEC), c = i % (C / VEC) * VEC;
    if (row >= (unsigned)T) return;
    float8 x = load8(inp + (size_t)row * C + c), d = load8(dout + (size_t)row * ldo + c);
    for (int k = 0; k < VEC; k++) {
        float y = clamped(x.v[k]), s = sigmoid_2u(y);
        d.v[k] *= s + y * s * (1.0f - s) * TWO_ROOT_2_OVER_PI * (1.0f + 3.0f * CUBIC * y * y);
    }
    store8(dinp + (size_t)row * ldi + c, d);
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// launchers

#define BLOCK 256

static unsigned grid(int T, int C) {
    assert(C % VEC == 0 && (size_t)T * C / VEC < INT32_MAX);
    return CEIL_DIV((unsigned)((size_t)T * C / VEC), BLOCK);
}

static void launch_backward(floatX* dinp, const floatX* inp, const floatX* dout, int T, int C, int ldi, int ldo, cudaStream_t stream) {
    assert(ldi % VEC == 0 && ldo % VEC == 0);
    if (T == 0) return;
    LAUNCH(gelu_backward_kernel, grid(T, C), BLOCK, 0, stream, dinp, inp, dout, T, C, ldi, ldo);
}

void gelu_forward(floatX* out, const floatX* inp, int T, int C, int ldo, cudaStream_t stream) {
    NVTX_RANGE("gelu_forward");
    assert(ldo % VEC == 0);
    if (T == 0) return;
    LAUNCH(gelu_forward_kernel, grid(T, C), BLOCK, 0, stream, out, inp, T, C, ldo);
}

void gelu_backward(floatX* dinp, const floatX* inp, const floatX* dout, int T, int C, int ldo, cudaStream_t stream) {
    NVTX_RANGE("gelu_backward");
    launch_backward(dinp, inp, dout, T, C, C, ldo, stream);
}

void gelu_backward_inplace(floatX* dinp, const floatX* inp, int T, int C, int ldi, cudaStream_t stream) {
    NVTX_RANGE("gelu_backward_inplace");
    launch_backward(dinp, inp, dinp, T, C, ldi, ldi, stream);
}
