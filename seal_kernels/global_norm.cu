/*
Norm of all gradients together and the factor that clips it (torch.nn.utils.clip_grad_norm_): a partial sum of squares
per chunk, then one block adds the partials in a fixed order, in double: a table of billions of elements has a hundred
thousand of them.
*/
#include "kernels.h"
#include "tensor_rows.h"

#define BLOCK WARP_SIZE  // a chunk is a warp's: no barrier, and 32 such blocks on an SM have enough loads in flight
#define NORM_BLOCK 1024  // of the one block that adds the partials: its loads are all that hides their latency

// ---------------------------------------------------------------------------------------------------
// kernels

static __global__ void squares_kernel(float* partial, const TensorRow* rows, int n_rows) {
    const TensorRow* row = &rows[row_of_chunk(rows, n_rows, blockIdx.x)];
    int64_t from, to;
    chunk_range(row, blockIdx.x, &from, &to);
    int64_t whole = from + (to - from) / VEC * VEC;
    float8 sums = {{0.0f}};
    UNROLL for (int64_t i = from + threadIdx.x * VEC; i < whole; i += BLOCK * VEC) {
        float8 g = load8(row->grad + i);
        for (int k = 0; k < VEC; k++) sums.v[k] += g.v[k] * g.v[k];
    }
    for (int64_t i = whole + threadIdx.x; i < to; i += BLOCK) sums.v[0] += row->grad[i] * row->grad[i];
    float sum = 0.0f;
    for (int k = 0; k < VEC; k++) sum += sums.v[k];
    sum = warp_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

static inline __device__ void write_norm(float* norm, float* scale, double sum, float max_norm) {
    float length = (float)sqrt(sum);
    *norm = length;
    // a norm that is NaN or infinite scales by NaN or 0; the trainer stops on it before anything is saved
    *scale = max_norm > 0.0f && !(max_norm / (length + 1e-6f) >= 1.0f) ? max_norm / (length + 1e-6f) : 1.0f;
}

// One block. squares NULL: the norm; else only the sum, which other ranks add to.
static __global__ void norm_kernel(float* norm, float* scale, double* squares, const float* partial, int64_t n,
                                   float max_norm) {
    SHARED(double, sums, [NORM_BLOCK]);
    double sum = 0.0;
    UNROLL for (int64_t i = threadIdx.x; i < n; i += NORM_BLOCK) sum += partial[i];
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    sum = 0.0;
    for (int i = 0; i < NORM_BLOCK; i++) sum += sums[i];
    if (squares) *squares = sum;
    else write_norm(norm, scale, sum, max_norm);
}
static __global__ void norm_of_squares_kernel(float* norm, float* scale, const double* squares, float max_norm) {
    write_norm(norm, scale, *squares, max_norm);
}

// ---------------------------------------------------------------------------------------------------
// launchers

void global_norm(float* norm, float* scale, float* partial, const TensorRow* rows, int n_rows, int64_t n_chunks,
                 float max_norm, cudaStream_t stream) {
    NVTX_RANGE("global_norm");
    if (n_chunks > 0) LAUNCH(squares_kernel, (unsigned)n_chunks, BLOCK, 0, stream, partial, rows, n_rows);
    LAUNCH(norm_kernel, 1, NORM_BLOCK, 0, stream, norm, scale, NULL, partial, n_chunks, max_norm);
}

void gradient_squares(double* squares, float* partial, const TensorRow* rows, int n_rows, int64_t n_chunks,
                      cudaStream_t stream) {
    NVTX_RANGE("gradient_squares");
    if (n_chunks > 0) LAUNCH(squares_kernel, (unsigned)n_chunks, BLOCK, 0, stream, partial, rows, n_rows);
    LAUNCH(norm_kernel, 1, NORM_BLOCK, 0, stream, NULL, NULL, squares, partial, n_chunks, 0.0f);
}
void norm_of_squares(float* norm, float* scale, const double* squares, float max_norm, cudaStream_t stream) {
    NVTX_RANGE("norm_of_squares");
    LAUNCH(norm_of_squares_kernel, 1, 1, 0, stream, norm, scale, squares, max_norm);
}
