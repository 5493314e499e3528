/*
GELU in both of its forms, forward and backward.
tanh (torch.nn.functional.gelu(approximate="tanh"): GPT-2): with u = √(2/π) (x + 0.044715 x³), ½ (1 + tanh u) = 1 / (1 +
exp(−2u)): one exponential and one division, no cancellation for negative x. erf (torch.nn.functional.gelu: GPT-NeoX): x
Φ(x), the normal distribution by 1 − Φ(x) = exp(−x²/2) t P(t), t = 1 / (1 + 0.35 x), for x ≥ 0: again one exponential
and one division, and backward needs that exponential as the density. P by dev/reference/fit_normal_tail.py, relative
error 3.2e-8.
*/
#include <assert.h>
#include "kernels.h"

#define TWO_ROOT_2_OVER_PI 1.5957691216057308f
#define CUBIC 0.044715f
#define TAIL_SCALE 0.35f
#define ONE_OVER_ROOT_2PI 0.3989422804014327f
// Beyond it the factor of x is exactly 0 or 1 in fp32 in both forms, and x³ cannot overflow into ∞·0.
#define SATURATED 15.0f

typedef enum { GELU_TANH, GELU_ERF } GeluForm;

// ---------------------------------------------------------------------------------------------------
// kernels: one thread for VEC elements of a row

static inline __device__ float clamped(float x) {  // comparisons, so that a NaN stays one
    x = x < -SATURATED ? -SATURATED : x;
    return x > SATURATED ? SATURATED : x;
}
static inline __device__ float sigmoid_2u(float x) {
    return __fdividef(1.0f, 1.0f + expf(-TWO_ROOT_2_OVER_PI * (x + CUBIC * x * x * x)));
}
// Φ(x), and exp(−x²/2) for the density
static inline __device__ float normal(float x, float* exponential) {
    float t = __fdividef(1.0f, 1.0f + TAIL_SCALE * fabsf(x)), e = expf(-0.5f * x * x);
    float P = -0.029163826f;
    P = P * t + 0.144060331f;
    P = P * t - 0.255900923f;
    P = P * t + 0.159391883f;
    P = P * t - 0.0232631631f;
    P = P * t + 0.105574535f;
    P = P * t + 0.119815561f;
    P = P * t + 0.139864328f;
    P = P * t + 0.139621259f;
    float tail = e * t * P;
    *exponential = e;
    return x < 0.0f ? tail : 1.0f - tail;
}
// gelu(x) / x
template <GeluForm FORM> static inline __device__ float gelu_factor(float x) {
    float unused;
    return FORM == GELU_TANH ? sigmoid_2u(clamped(x)) : normal(clamped(x), &unused);
}
template <GeluForm FORM> static inline __device__ float gelu_slope(float x) {
    float y = clamped(x);
    if (FORM == GELU_TANH) {
        float s = sigmoid_2u(y);
        return s + y * s * (1.0f - s) * TWO_ROOT_2_OVER_PI * (1.0f + 3.0f * CUBIC * y * y);
    }
    float e, phi = normal(y, &e);
    return phi + y * e * ONE_OVER_ROOT_2PI;
}

// 32-bit vector numbers: dividing 64-bit ones would take as long as the GELU itself.
template <GeluForm FORM>
static __global__ void gelu_forward_kernel(floatX* out, const floatX* inp, int T, int C, int ldo) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, row = i / (C / VEC), c = i % (C / VEC) * VEC;
    if (row >= (unsigned)T) return;
    float8 x = load8(inp + (size_t)row * C + c);
    for (int k = 0; k < VEC; k++) x.v[k] = (x.v[k] < -SATURATED ? -SATURATED : x.v[k]) * gelu_factor<FORM>(x.v[k]);
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
