/*
SwiGLU, forward and backward: out = silu(gate) · up, silu(x) = x / (1 + exp(−x)) (LlamaMLP of transformers,
torch.nn.functional.silu). A row of gate_up is what one GEMM over both weights writes: FF elements of gate, then FF of
up.
*/
#include <assert.h>
#include "kernels.h"

// ---------------------------------------------------------------------------------------------------
// kernels: one thread for VEC elements of a row; 32-bit vector numbers, because a 64-bit division costs more than all
// the rest

static inline __device__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + expf(-x)); }

static __global__ void swiglu_forward_kernel(floatX* out, const floatX* gate_up, int T, int FF, int ldo) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, row = i / (FF / VEC), c = i % (FF / VEC) * VEC;
    if (row >= (unsigned)T) return;
    const floatX* p = gate_up + (size_t)row * 2 * FF + c;
    float8 gate = load8(p), up = load8(p + FF);
    for (int k = 0; k < VEC; k++) up.v[k] *= gate.v[k] * sigmoid(gate.v[k]);
    store8(out + (size_t)row * ldo + c, up);
}

// dgate_up and gate_up may be the same: an element is read and written by one thread.
static __global__ void swiglu_backward_kernel(floatX* dgate_up, const floatX* dout, const floatX* gate_up, int T,
                                              int FF, int ldd) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, row = i / (FF / VEC), c = i % (FF / VEC) * VEC;
    if (row >= (unsigned)T) return;
    size_t at = (size_t)row * 2 * FF + c;
    float8 gate = load8(gate_up + at), up = load8(gate_up + at + FF), d = load8(dout + (size_t)row * ldd + c);
    for (int k = 0; k < VEC; k++) {
        float s = sigmoid(gate.v[k]), silu = gate.v[k] * s;
        gate.v[k] = d.v[k] * up.v[k] * (s + silu * (1.0f - s));
        up.v[k] = d.v[k] * silu;
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
    LAUNCH(swiglu_forward_kernel, grid(T, FF, ldo), BLOCK, 0, stream, out, gate_up, T, FF, ldo);
}

void swiglu_backward(floatX* dgate_up, const floatX* dout, const floatX* gate_up, int T, int FF, int ldd,
                     cudaStream_t stream) {
    NVTX_RANGE("swiglu_backward");
    if (T == 0) return;
    LAUNCH(swiglu_backward_kernel, grid(T, FF, ldd), BLOCK, 0, stream, dgate_up, dout, gate_up, T, FF, ldd);
}
