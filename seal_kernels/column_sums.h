/*
Column sums of a tall matrix in two stages, without atomics: kernels of one operation leave a few hundred partial rows
in scratch, and add_column_sums adds those, in a fixed order, to a gradient. Private to the norms (norm_rows.h) and
matmul.cu.
*/
#ifndef SEAL_COLUMN_SUMS_H
#define SEAL_COLUMN_SUMS_H

#include "cuda_common.h"

#define COLUMN_VECS 8     // float8 columns of a block: 256 bytes of a row
#define COLUMN_SLICES 32  // threads that share a column; slice s sums rows s, s + 32, …

static inline __device__ float8 zero8(void) {
    float8 x;
    for (int k = 0; k < VEC; k++) x.v[k] = 0.0f;
    return x;
}
static inline __device__ void add8(float8& sum, const float8& x) {
    for (int k = 0; k < VEC; k++) sum.v[k] += x.v[k];
}
// The sum of the eight as a vector unit adds them: halves, quarters, eighths.
static inline __device__ float sum8_halves(const float8& x) {
    return ((x.v[0] + x.v[4]) + (x.v[2] + x.v[6])) + ((x.v[1] + x.v[5]) + (x.v[3] + x.v[7]));
}

// out0 (W) += column sums of partial's first W columns, out1 (W; gridDim.y 2) those of the next W. partial (n, W ·
// gridDim.y). One block owns COLUMN_VECS vectors of columns.
static __global__ void add_column_sums_kernel(float* out0, float* out1, const float* partial, int n, int W) {
    SHARED(float, sums, [COLUMN_SLICES][COLUMN_VECS * VEC]);
    int vec = threadIdx.x % COLUMN_VECS, slice = threadIdx.x / COLUMN_VECS, first = blockIdx.x * COLUMN_VECS * VEC,
        column = first + vec * VEC;
    float8 sum = zero8();
    if (column < W) {
        const float* p = partial + (size_t)blockIdx.y * W + column;
        for (int row = slice; row < n; row += COLUMN_SLICES) add8(sum, load8(p + (size_t)row * W * gridDim.y));
    }
    store8(&sums[slice][vec * VEC], sum);
    __syncthreads();
    int i = threadIdx.x;
    if (i >= COLUMN_VECS * VEC || first + i >= W) return;
    float total = 0.0f;
    for (int s = 0; s < COLUMN_SLICES; s++) total += sums[s][i];
    float* out = blockIdx.y == 0 ? out0 : out1;
    out[first + i] += total;
}

// out1 may be NULL: partial is then (n, W)
static inline void add_column_sums(float* out0, float* out1, const float* partial, int n, int W, cudaStream_t stream) {
    LAUNCH(add_column_sums_kernel, dim3(CEIL_DIV(W, COLUMN_VECS * VEC), out1 ? 2 : 1), COLUMN_VECS * COLUMN_SLICES, 0,
           stream, out0, out1, partial, n, W);
}

#endif
