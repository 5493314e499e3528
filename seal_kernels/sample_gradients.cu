/*
What the gradient of one sample of a pack is, without ever being formed. The gradient of a linear layer's weight (OC, C)
for sample s is Σ δ_t u_tᵀ over its tokens, u (T, C) the layer's input and δ (T, OC) the gradient of its output. Its
product with a fixed direction G is Σ δ_t · (G u_t): a GEMM and a row-wise dot. Its squared norm is
Σ over t, t' of (u_t · u_t') (δ_t · δ_t'): two Gram matrices of the sample's tokens, tile by tile, that are multiplied
element by element and never leave the registers. And the rows that a sample's representation is read from.

Every sum has one order: a block owns a tile of ATTENTION_TILE rows of one sample, a warp adds the tiles of a sample.
*/
#include <assert.h>
#include "kernels.h"

#define BLOCK 256
#define SLICE 32  // columns of both operands that a block holds in shared memory at once
// Rows and columns of a 64 × 64 tile of a Gram matrix that a thread holds. On the CPU a thread costs time at each of
// the block's barriers, and 8 columns are a vector.
#if DEVICE_HALVES
#define PER 4
#else
#define PER 8
#endif
#define SIDE (ATTENTION_TILE / PER)
#define GRAM_BLOCK (SIDE * SIDE)

// ---------------------------------------------------------------------------------------------------
// kernels

// One block per tile: partial = Σ over its rows of a_t · b_t.
static __global__ void dots_kernel(float* partial, const floatX* a, int lda, const floatX* b, int ldb, int width,
                                   const int* cu_seqlens, const int* tiles, int n_samples) {
    int sample = tiles[2 * blockIdx.x], from = 0, rows = 0, vectors = width / VEC;
    if (sample < n_samples) {
        from = cu_seqlens[sample] + tiles[2 * blockIdx.x + 1] * ATTENTION_TILE;
        rows = min(ATTENTION_TILE, cu_seqlens[sample + 1] - from);
    }
    float8 sum = {{0.0f}};
    for (int i = threadIdx.x; i < rows * vectors; i += BLOCK) {
        size_t t = from + i / vectors;
        int c = i % vectors * VEC;
        float8 x = load8(a + t * lda + c), y = load8(b + t * ldb + c);
        for (int k = 0; k < VEC; k++) sum.v[k] = fmaf(x.v[k], y.v[k], sum.v[k]);
    }
    float total = 0.0f;
    for (int k = 0; k < VEC; k++) total += sum.v[k];
    total = block_sum(total);
    if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

// gram += x_i · x_jᵀ, ATTENTION_TILE rows of x from i and from j on, of which n_i and n_j are the sample's; the others
// count as zero. left and right: (SLICE, ATTENTION_TILE) in shared memory.
static inline __device__ void add_gram(float (&gram)[PER][PER], float* left, float* right, const floatX* x, int ldx,
                                       int width, int i, int n_i, int j, int n_j) {
    const int row = threadIdx.x / SIDE * PER, column = threadIdx.x % SIDE * PER;
    for (int slice = 0; slice < width; slice += SLICE) {
        __syncthreads();
        for (int e = threadIdx.x; e < ATTENTION_TILE * SLICE / VEC; e += GRAM_BLOCK) {
            int r = e % ATTENTION_TILE, c = e / ATTENTION_TILE * VEC;
            float8 a = {{0.0f}}, b = {{0.0f}};
            if (slice + c < width && r < n_i) a = load8(x + (size_t)(i + r) * ldx + slice + c);
            if (slice + c < width && r < n_j) b = load8(x + (size_t)(j + r) * ldx + slice + c);
            for (int k = 0; k < VEC; k++) {
                left[(c + k) * ATTENTION_TILE + r] = a.v[k];
                right[(c + k) * ATTENTION_TILE + r] = b.v[k];
            }
        }
        __syncthreads();
        for (int c = 0; c < SLICE; c++) {
            float a[PER], b[PER];
            UNROLL for (int k = 0; k < PER; k++) a[k] = left[c * ATTENTION_TILE + row + k];
            UNROLL for (int k = 0; k < PER; k++) b[k] = right[c * ATTENTION_TILE + column + k];
            UNROLL for (int k = 0; k < PER; k++) UNROLL for (int m = 0; m < PER; m++)
                gram[k][m] = fmaf(a[k], b[m], gram[k][m]);
        }
    }
}

// One block per tile i: partial = Σ over the sample's tiles j ≤ i of (u_i u_jᵀ) ⊙ (d_i d_jᵀ), those of j < i twice.
static __global__ void __launch_bounds__(GRAM_BLOCK, 2)
    gram_kernel(float* partial, const floatX* u, int ldu, int C, const floatX* d, int ldd, int OC,
                const int* cu_seqlens, const int* tiles, int n_samples) {
    SHARED(float, left, [SLICE * ATTENTION_TILE]);
    SHARED(float, right, [SLICE * ATTENTION_TILE]);
    int sample = tiles[2 * blockIdx.x], tile = tiles[2 * blockIdx.x + 1];
    if (sample >= n_samples) {
        if (threadIdx.x == 0) partial[blockIdx.x] = 0.0f;
        return;
    }
    int begin = cu_seqlens[sample], end = cu_seqlens[sample + 1], i = begin + tile * ATTENTION_TILE;
    float total = 0.0f;
    for (int j = begin; j <= i; j += ATTENTION_TILE) {
        float of_u[PER][PER] = {{0.0f}}, of_d[PER][PER] = {{0.0f}}, sum = 0.0f;
        int n_i = min(ATTENTION_TILE, end - i), n_j = min(ATTENTION_TILE, end - j);
        add_gram(of_u, left, right, u, ldu, C, i, n_i, j, n_j);
        add_gram(of_d, left, right, d, ldd, OC, i, n_i, j, n_j);
        UNROLL for (int k = 0; k < PER; k++) UNROLL for (int m = 0; m < PER; m++)
            sum = fmaf(of_u[k][m], of_d[k][m], sum);
        total += j < i ? 2.0f * sum : sum;
    }
    total = block_sum(total);
    if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

// One warp per sample: its tiles, which may be anywhere in the list.
static __global__ void sum_tiles_kernel(float* out, const float* partial, const int* tiles, const int* place,
                                        int n_tiles, int n_samples) {
    int s = (blockIdx.x * BLOCK + threadIdx.x) / WARP_SIZE, lane = threadIdx.x % WARP_SIZE;
    float sum = 0.0f;
    for (int i = lane; i < n_tiles && s < n_samples; i += WARP_SIZE)
        if (tiles[2 * i] == s) sum += partial[i];
    sum = warp_sum(sum);
    if (lane == 0 && s < n_samples) out[place[s]] += sum;
}

// One block per sample: the row of its last token that carries loss, which is the one after the last that predicts
// such.
static __global__ void last_rows_kernel(float* out, const floatX* x, int C, const int* loss_rows, const int* loss_start,
                                        const int* place) {
    int s = blockIdx.x, last = loss_start[s + 1] - 1;
    bool any = last >= loss_start[s];
    const floatX* from = x + (size_t)(any ? loss_rows[last] + 1 : 0) * C;
    for (int c = threadIdx.x * VEC; c < C; c += BLOCK * VEC) {
        float8 row = {{0.0f}};
        if (any) row = load8(from + c);
        store8(out + (size_t)place[s] * C + c, row);
    }
}

static __global__ void narrow_kernel(floatX* out, const float* inp, size_t n) {
    size_t i = ((size_t)blockIdx.x * BLOCK + threadIdx.x) * VEC;
    if (i < n) store8(out + i, load8(inp + i));
}

// ---------------------------------------------------------------------------------------------------
// launchers

static void sum_tiles(float* out, const SampleTiles& s, cudaStream_t stream) {
    LAUNCH(sum_tiles_kernel, CEIL_DIV(s.n_samples * WARP_SIZE, BLOCK), BLOCK, 0, stream, out, s.partial, s.tiles,
           s.place, s.n_tiles, s.n_samples);
}

void sample_dots(float* out, const floatX* a, int lda, const floatX* b, int ldb, int width, const SampleTiles& s,
                 cudaStream_t stream) {
    NVTX_RANGE("sample_dots");
    assert(width % VEC == 0 && lda % VEC == 0 && ldb % VEC == 0);
    if (s.n_samples == 0) return;
    LAUNCH(dots_kernel, s.n_tiles, BLOCK, 0, stream, s.partial, a, lda, b, ldb, width, s.cu_seqlens, s.tiles,
           s.n_samples);
    sum_tiles(out, s, stream);
}

void sample_squares(float* out, const floatX* u, int ldu, int C, const floatX* d, int ldd, int OC, const SampleTiles& s,
                    cudaStream_t stream) {
    NVTX_RANGE("sample_squares");
    assert(C % VEC == 0 && OC % VEC == 0 && ldu % VEC == 0 && ldd % VEC == 0);
    if (s.n_samples == 0) return;
    LAUNCH(gram_kernel, s.n_tiles, GRAM_BLOCK, 0, stream, s.partial, u, ldu, C, d, ldd, OC, s.cu_seqlens, s.tiles,
           s.n_samples);
    sum_tiles(out, s, stream);
}

void sample_last_rows(float* out, const floatX* x, int C, const int* loss_rows, const int* loss_start, const int* place,
                      int n_samples, cudaStream_t stream) {
    NVTX_RANGE("sample_last_rows");
    assert(C % VEC == 0);
    if (n_samples == 0) return;
    LAUNCH(last_rows_kernel, n_samples, BLOCK, 0, stream, out, x, C, loss_rows, loss_start, place);
}

void narrow_matrix(floatX* out, const float* inp, size_t n, cudaStream_t stream) {
    NVTX_RANGE("narrow_matrix");
    assert(n % VEC == 0);
    if (n) LAUNCH(narrow_kernel, (unsigned)CEIL_DIV(n / VEC, BLOCK), BLOCK, 0, stream, out, inp, n);
}
