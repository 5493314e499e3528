/*
How layernorm.cu and rmsnorm.cu cut their work: a block has NORM_WARPS warps, a row belongs to WR of them (1, 2, 4 or 8,
by its width), and lane l of a row's warps holds the row's vectors l, l + 32 WR, l + 64 WR …: at most LV of them, so
that a row is read once and kept in registers.
*/
#ifndef SEAL_NORM_ROWS_H
#define SEAL_NORM_ROWS_H

#include "column_sums.h"

#define NORM_WARPS 8
#define NORM_MAX_BLOCKS 1024  // of a backward kernel: it leaves one partial row per block

// N sums, each over the WR warps of a row; all threads of the block call it.
template <int WR, int N> static inline __device__ void row_sums(float (&x)[N]) {
    warp_sums(x);
    if constexpr (WR > 1) {
        SHARED(float, partial, [NORM_WARPS][N]);
        int warp = threadIdx.x / WARP_SIZE;
        __syncthreads();  // the last call's partials have been read
        if (threadIdx.x % WARP_SIZE == 0)
            for (int i = 0; i < N; i++) partial[warp][i] = x[i];
        __syncthreads();
        for (int i = 0; i < N; i++) {
            x[i] = 0.0f;
            for (int w = 0; w < WR; w++) x[i] += partial[warp / WR * WR + w][i];
        }
    }
}
template <int WR> static inline __device__ float row_sum(float x) {
    float sum[1] = {x};
    row_sums<WR>(sum);
    return sum[0];
}

// The block's N sums of each column → partial (N, n_vecs · VEC). The NORM_WARPS / WR groups of the block hold sums of
// the same columns: the first group adds them up, one vector of each lane at a time.
template <int WR, int N, int LV>
static inline __device__ void store_column_sums(float* partial, const float8 (&sums)[N][LV], int n_vecs) {
    SHARED(float, tile, [N][NORM_WARPS][WARP_SIZE * VEC]);
    int warp = threadIdx.x / WARP_SIZE, lane = threadIdx.x % WARP_SIZE, place = lane * VEC;
    UNROLL for (int j = 0; j < LV; j++) {
        __syncthreads();
        for (int which = 0; which < N; which++) store8(&tile[which][warp][place], sums[which][j]);
        __syncthreads();
        int v = warp % WR * WARP_SIZE + lane + j * WR * WARP_SIZE;
        if (warp >= WR || v >= n_vecs) continue;
        for (int which = 0; which < N; which++) {
            float8 sum = load8(&tile[which][warp][place]);
            for (int w = warp + WR; w < NORM_WARPS; w += WR) add8(sum, load8(&tile[which][w][place]));
            store8(partial + ((size_t)which * n_vecs + v) * VEC, sum);
        }
    }
}

static inline int most_width(int LV) { return NORM_WARPS * WARP_SIZE * LV * VEC; }

// warps per row: the fewest whose lanes hold it with LV vectors each
static inline int row_warps(const char* norm, int C, int LV) {
    int warps = 1;
    while (warps * WARP_SIZE * LV * VEC < C) warps *= 2;
    if (C % VEC != 0 || warps > NORM_WARPS) {
        fprintf(stderr, "%s: width %d is not supported (a multiple of %d, at most %d)\n", norm, C, VEC, most_width(LV));
        device_exit();
    }
    return warps;
}

#endif
