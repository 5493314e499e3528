/*
GeGLU, forward and backward: out = gelu(gate) · up with GELU in its tanh form (Gemma's MLP in transformers,
gelu_pytorch_tanh). A row of gate_up is what one GEMM over both weights writes: FF elements of gate, then FF of up.
*/
#include <assert.h>
#include "kernels.h"
#include "gelu.h"

// ---------------------------------------------------------------------------------------------------
// kernels: one thread for VEC elements of a row; 32-bit vector numbers, because a 64-bit division costs more than all
// the rest

static __global__ void geglu_forward_kernel(floatX* out, const floatX* gate_up, int T, int FF, int ldo) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, row = i / (FF / VEC), c = i % (FF / VEC) * VEC;
    if (row >= (unsigned)T) return;
    const floatX* p = gate_up + (size_t)row * 2 * FF + c;
    float8 gate = load8(p), up = load8(p + FF);
    for (int k = 0; k < VEC; k++) up.v[k] *= gelu<GELU_TANH>(gate.v[k]);
    store8(out + (size_t)row * ldo + c, up);
}

// dgate_up and gate_up may be the same: an element is read and written by one thread.
static __global__ void geglu_backward_kernel(floatX* dgate_up, const floatX* dout, const floatX* gate_up, int T, int FF,
                                             int ldd) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, row = i / (FF / VEC), c = i % (FF / VEC) * VEC;
    if (row >= (unsigned)T) return;
    size_t at = (size_t)row * 2 * FF + c;
    float8 gate = load8(gate_up + at), up = load8(gate_up + at + FF), d = load8(dout + (size_t)row * ldd + c);
    for (int k = 0; k < VEC; k++) {
        float activated = gelu<GELU_TANH>(gate.v[k]);
        gate.v[k] = d.v[k] * up.v[k] * gelu_slope<GELU_TANH>(gate.v[k]);
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

void geglu_forward(floatX* out, const floatX* gate_up, int T, int FF, int ldo, cudaStream_t stream) {
    NVTX_RANGE("geglu_forward");
    if (T == 0) return;
    LAUNCH(geglu_forward_kernel, grid(T, FF, ldo), BLOCK, 0, stream, out, gate_up, T, FF, ldo);
}

void geglu_backward(floatX* dgate_up, const floatX* dout, const floatX* gate_up, int T, int FF, int ldd,
                    cudaStream_t stream) {
    NVTX_RANGE("geglu_backward");
    if (T == 0) return;
    LAUNCH(geglu_backward_kernel, grid(T, FF, ldd), BLOCK, 0, stream, dgate_up, dout, gate_up, T, FF, ldd);
}
