/*
What an fp8 product of cuBLASLt needs around it: rows of activations rounded to e4m3 with a scale each (e4m3.h), and
that scale on the product's rows. cuBLASLt before CUDA 12.9 takes one scale for a whole operand. One for all tokens
would tie a sample's loss to what it is packed with, and gradients of tokens with little weight would round to zero; so
each token has its own, a power of two, and the product's rows, which it only shifts, are multiplied afterwards.

One quantising kernel is used for all products. The norms and the gated activation could write e4m3 themselves, and save
the reading of what they wrote; but the bf16 row is there for the adapters in any case, attention and every gradient
need the kernel too, and a gated activation does not see a row's largest value before it has written the row.
*/
#include <assert.h>
#include "kernels.h"
#include "e4m3.h"

#define WARPS 8    // of a block; each has one row
#define VECTORS 4  // of a lane: loads that are on their way at the same time
#define BLOCK 256

// ---------------------------------------------------------------------------------------------------
// kernels

// one warp for a row, which is read twice: the second time from a cache
static __global__ void __launch_bounds__(WARPS* WARP_SIZE)
    fp8_quantise_kernel(uint8_t* out, float* scale, const floatX* inp, int T, int C, int ldi) {
    const int row = blockIdx.x * WARPS + threadIdx.x / WARP_SIZE, lane = threadIdx.x % WARP_SIZE, n_vecs = C / VEC;
    if (row >= T) return;
    inp += (size_t)row * ldi;
    out += (size_t)row * C;
    float most = 0.0f;
    bool finite = true;
    for (int first = lane; first < n_vecs; first += VECTORS * WARP_SIZE) {
        packed8 x[VECTORS] = {};  // zeros past the row's end
        UNROLL for (int j = 0; j < VECTORS; j++) {
            const int v = first + j * WARP_SIZE;
            if (v < n_vecs) x[j] = load_packed8(inp + v * VEC);
        }
        UNROLL for (int j = 0; j < VECTORS; j++) {
            const float8 y = unpack8(x[j]);
            for (int k = 0; k < VEC; k++) {
                most = fmaxf(most, fabsf(y.v[k]));
                finite &= fabsf(y.v[k]) <= 3.4028235e38f;  // fmaxf loses a NaN
            }
        }
    }
    most = warp_max(finite ? most : INFINITY);
    float inverse;
    const float factor = fp8_scale(most, &inverse);
    if (lane == 0) scale[row] = inverse;
    for (int first = lane; first < n_vecs; first += VECTORS * WARP_SIZE) {
        UNROLL for (int j = 0; j < VECTORS; j++) {
            const int v = first + j * WARP_SIZE;
            if (v < n_vecs) store8_e4m3(out + v * VEC, load8(inp + v * VEC), factor);
        }
    }
}

// one thread for VEC elements of a row
template <bool DIVIDE>
static __global__ void fp8_rows_kernel(floatX* x, const float* scale, const floatX* bias, int T, int C, int ld) {
    unsigned i = blockIdx.x * BLOCK + threadIdx.x, row = i / (C / VEC), c = i % (C / VEC) * VEC;
    if (row >= (unsigned)T) return;
    floatX* p = x + (size_t)row * ld + c;
    float8 y = load8(p), b = {{0.0f}};
    const float s = DIVIDE ? 1.0f / scale[row] : scale[row];  // of a power of two: exact
    if (bias) b = load8(bias + c);
    for (int k = 0; k < VEC; k++) y.v[k] = fmaf(s, y.v[k], b.v[k]);
    store8(p, y);
}

// ---------------------------------------------------------------------------------------------------
// launchers

void fp8_quantise(uint8_t* out, float* scale, const floatX* inp, int T, int C, int ldi, cudaStream_t stream) {
    NVTX_RANGE("fp8_quantise");
    assert(C % VEC == 0 && ldi % VEC == 0);
    if (T == 0) return;
    LAUNCH(fp8_quantise_kernel, CEIL_DIV(T, WARPS), WARPS * WARP_SIZE, 0, stream, out, scale, inp, T, C, ldi);
}

template <bool DIVIDE>
static void launch_rows(floatX* x, const float* scale, const floatX* bias, int T, int C, int ld, cudaStream_t stream) {
    assert(C % VEC == 0 && ld % VEC == 0 && (size_t)T * C / VEC < INT32_MAX);
    if (T == 0) return;
    LAUNCH(fp8_rows_kernel<DIVIDE>, (unsigned)CEIL_DIV((size_t)T * C / VEC, BLOCK), BLOCK, 0, stream, x, scale, bias, T,
           C, ld);
}

void fp8_scale_rows(floatX* x, const float* scale, const floatX* bias, int T, int C, int ld, cudaStream_t stream) {
    NVTX_RANGE("fp8_scale_rows");
    launch_rows<false>(x, scale, bias, T, C, ld, stream);
}

void fp8_divide_rows(floatX* x, const float* scale, int T, int C, int ld, cudaStream_t stream) {
    NVTX_RANGE("fp8_divide_rows");
    launch_rows<true>(x, scale, NULL, T, C, ld, stream);
}
