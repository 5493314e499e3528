/*
Gated linear units, forward and backward: out = f(gate) · up. SwiGLU: f = silu, x / (1 + exp(−x)) (LlamaMLP of
transformers, torch.nn.functional.silu); GeGLU: f = gelu in its tanh form (Gemma's MLP, gelu_pytorch_tanh). A row of
gate_up is what one GEMM over both weights writes: FF elements of gate, then FF of up.
*/
#include <assert.h>
#include "kernels.h"
#include "gelu.h"

// ---------------------------------------------------------------------------------------------------
// kernels: one thread for VEC elements of a row; 32-bit vector numbers, because a 64-bit division costs more than all
// the rest

typedef enum { GLU_SILU, GLU_GELU } Gate;

// f(x) and f′(x); what a caller does not use costs nothing
template <Gate F> static inline __device__ float activation(float x, float* slope) {
    if (F == GLU_GELU) {
        *slope = gelu_slope<GELU_TANH>(x);
        return gelu<GELU_TANH>(x);
    }
    float s = __fdividef(1.0f, 1.0f + expf(-x)), silu = x * s;
    *slope = s + silu * (1.0f - s);
    return silu;
}

template <Gate F>
static __global__ void glu_forward_kernel(floatX* out, const floatX* gate_up, int T, int FF, int ldo) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, row = i / (FF / VEC), c = i % (FF / VEC) * VEC;
    if (row >= (unsigned)T) return;
    const floatX* p = gate_up + (size_t)row * 2 * FF + c;
    float8 gate = load8(p), up = load8(p + FF);
    float unused;
    for (int k = 0; k < VEC; k++) up.v[k] *= activation<F>(gate.v[k], &unused);
    store8(out + (size_t)row * ldo + c, up);
}

// dgate_up and gate_up may be the same: an element is read and written by one thread.
template <Gate F>
static __global__ void glu_backward_kernel(floatX* dgate_up, const floatX* dout, const floatX* gate_up, int T, int FF,
                                           int ldd) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, row = i / (FF / VEC), c = i % (FF / VEC) * VEC;
    if (row >= (unsigned)T) return;
    size_t at = (size_t)row * 2 * FF + c;
    float8 gate = load8(gate_up + at), up = load8(gate_up + at + FF), d = load8(dout + (size_t)row * ldd + c);
    for (int k = 0; k < VEC; k++) {
        float slope, activated = activation<F>(gate.v[k], &slope);
        gate.v[k] = d.v[k] * up.v[k] * slope;
        up.v[k] = d.v[k] * activated;
    }
    store8(dgate_up + at, gate);
    store8(dgate_up + at + FF, up);
}

// ---------------------------------------------------------------------------------------------------
// launchers

#define BLOCK 256

static unsigned grid(int T, int FF, int ld) {
    assert(FF % VEC == 0 && ld % VEC == 0 && (size_t)T * FF / VEC < INT32_MAX);
    return CEIL_DIV((unsigned)((size_t)T * FF / VEC), BLOCK);
}

void swiglu_forward(floatX* out, const floatX* gate_up, int T, int FF, int ldo, cudaStream_t stream) {
    NVTX_RANGE("swiglu_forward");
    if (T == 0) return;
    LAUNCH(glu_forward_kernel<GLU_SILU>, grid(T, FF, ldo), BLOCK, 0, stream, out, gate_up, T, FF, ldo);
}

void geglu_forward(floatX* out, const floatX* gate_up, int T, int FF, int ldo, cudaStream_t stream) {
    NVTX_RANGE("geglu_forward");
    if (T == 0) return;
    LAUNCH(glu_forward_kernel<GLU_GELU>, grid(T, FF, ldo), BLOCK, 0, stream, out, gate_up, T, FF, ldo);
}

void swiglu_backward(floatX* dgate_up, const floatX* dout, const floatX* gate_up, int T, int FF, int ldd,
                     cudaStream_t stream) {
    NVTX_RANGE("swiglu_backward");
    if (T == 0) return;
    LAUNCH(glu_backward_kernel<GLU_SILU>, grid(T, FF, ldd), BLOCK, 0, stream, dgate_up, dout, gate_up, T, FF, ldd);
}

void geglu_backward(floatX* dgate_up, const floatX* dout, const floatX* gate_up, int T, int FF, int ldd,
                    cudaStream_t stream) {
    NVTX_RANGE("geglu_backward");
    if (T == 0) return;
    LAUNCH(glu_backward_kernel<GLU_GELU>, grid(T, FF, ldd), BLOCK, 0, stream, dgate_up, dout, gate_up, T, FF, ldd);
}
