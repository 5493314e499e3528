/*
Token and position embedding, forward and backward (torch.nn.Embedding). Backward needs no atomics: the host has sorted
a pack's tokens by their row of the table, so that each row's gradient is one segment of that order, summed by one
block in a fixed order.
*/
#include <assert.h>
#include "kernels.h"

#define SLICES 8  // warps that share a long segment
// A segment up to this long is summed by one warp alone and needs no barrier: most tokens of a pack are rare ones.
#define SHORT_SEGMENT 16

// ---------------------------------------------------------------------------------------------------
// kernels

// one thread for VEC elements of a token; 32-bit numbers of vectors, because a 64-bit division costs more than all the
// rest
static __global__ void embedding_forward_kernel(floatX* encoded, const int* tokens, const int* positions,
                                                const floatX* wte, const floatX* wpe, float scale, int T, int C) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, t = i / (C / VEC), c = i % (C / VEC) * VEC;
    if (t >= (unsigned)T) return;
    float8 x = load8(wte + (size_t)tokens[t] * C + c);
    for (int k = 0; k < VEC; k++) x.v[k] *= scale;
    if (wpe != NULL) {
        float8 y = load8(wpe + (size_t)positions[t] * C + c);
        for (int k = 0; k < VEC; k++) x.v[k] += y.v[k];
    }
    store8(encoded + (size_t)t * C + c, x);
}

// One block for a segment and 32 vectors of columns, a lane a vector. Warp w sums the w-th of SLICES pieces of the
// segment, each in pack order; the pieces are added in order.
static __global__ void embedding_backward_kernel(float* dtable, const floatX* dencoded, const int* order,
                                                 const int* segment_start, const int* segment_row, float scale, int C) {
    int warp = threadIdx.x / WARP_SIZE, lane = threadIdx.x % WARP_SIZE, column = (blockIdx.y * WARP_SIZE + lane) * VEC;
    int begin = segment_start[blockIdx.x], end = segment_start[blockIdx.x + 1],
        slices = end - begin <= SHORT_SEGMENT ? 1 : SLICES;
    if (warp >= slices) return;  // the whole block but one warp, or nobody
    int piece = CEIL_DIV(end - begin, slices), from = begin + warp * piece, to = min(from + piece, end);
    float8 sum = {{0.0f}};
    if (column < C) {
        UNROLL for (int i = from; i < to; i++) {
            float8 x = load8(dencoded + (size_t)order[i] * C + column);
            for (int k = 0; k < VEC; k++) sum.v[k] += x.v[k];
        }
    }
    if (slices > 1) {
        SHARED(float, partial, [SLICES][WARP_SIZE * VEC]);
        store8(&partial[warp][lane * VEC], sum);
        __syncthreads();
        if (warp > 0) return;
        for (int s = 1; s < SLICES; s++) {
            float8 x = load8(&partial[s][lane * VEC]);
            for (int k = 0; k < VEC; k++) sum.v[k] += x.v[k];
        }
    }
    if (column >= C) return;
    float* row = dtable + (size_t)segment_row[blockIdx.x] * C + column;
    float8 x = load8(row);
    for (int k = 0; k < VEC; k++) x.v[k] = fmaf(scale, sum.v[k], x.v[k]);
    store8(row, x);
}

// ---------------------------------------------------------------------------------------------------
// launchers

void embedding_forward(floatX* encoded, const int* tokens, const int* positions, const floatX* wte, const floatX* wpe,
                       float scale, int T, int C, cudaStream_t stream) {
    NVTX_RANGE("embedding_forward");
    assert(C % VEC == 0 && (size_t)T * C / VEC < INT32_MAX);
    if (T == 0) return;
    LAUNCH(embedding_forward_kernel, (unsigned)CEIL_DIV((size_t)T * C / VEC, 256), 256, 0, stream, encoded, tokens,
           positions, wte, wpe, scale, T, C);
}

void embedding_backward(float* dtable, const floatX* dencoded, const int* order, const int* segment_start,
                        const int* segment_row, int n_segments, float scale, int C, cudaStream_t stream) {
    NVTX_RANGE("embedding_backward");
    assert(C % VEC == 0);
    if (n_segments == 0) return;
    dim3 grid(n_segments, CEIL_DIV(C, WARP_SIZE * VEC));
    LAUNCH(embedding_backward_kernel, grid, SLICES * WARP_SIZE, 0, stream, dtable, dencoded, order, segment_start,
           segment_row, scale, C);
}
