/*
Norm of all gradients together and the factor that clips it (torch.nn.utils.clip_grad_norm_): a partial sum of squares a chunk, then one block adds the
partials in a fixed order, in double: a table of billions of elements has a hundred thousand of them.
*/
// defines: global_norm
#include "kernels.h"
// defines: row_of_chunk, chunk_range
#include "tensor_rows.h"

#define BLOCK 256

// ---------------------------------------------------------------------------------------------------------------------------------------
// kernels

static __global__ void squares_kernel(float* partial, const TensorRow* rows, int n_rows) {
    const TensorRow* row = &rows[row_of_chunk(rows, n_rows, blockIdx.x)];
    int64_t from, to;
    chunk_range(row, blockIdx.x, &from, &to);
    int64_t whole = from + (to - from) / VEC * VEC;
    float sums[VEC] = {0.0f};
    for (int64_t i = from + threadIdx.x * VEC; i < whole; i += BLOCK * VEC) {
        float8 g = load8(row->grad + i);
        UNROLL for (int k = 0; k < VEC; k++) sums[k] += g.v[k] * g.v[k];
    }
    for (int64_t i = whole + threadIdx.x; i < to; i += BLOCK) sums[0] += row->grad[i] * row->grad[i];
    float sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

static __global__ void norm_kernel(float* norm, float* scale, const float* partial, int64_t n, float max_norm) {
    SHARED(double, sums, [BLOCK]);
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < n; i += BLOCK) sum += partial[i];
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    sum = 0.0;
    for (int i = 0; i < BLOCK; i++) sum += sums[i];
    float length = (float)sqrt(sum);
    *norm = length;
    // a norm that is NaN or infinite scales by NaN or 0; the trainer stops on it before anything is saved
    *scale = max_norm > 0.0f && !(max_norm / (length + 1e-6f) >= 1.0f) ? max_norm / (length + 1e-6f) : 1.0f;
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// launchers

void global_norm(float* norm, float* scale, float* partial, const TensorRow* rows, int n_rows, int64_t n_chunks, float max_norm, cudaStream_t stream) {
    LAUNCH(squares_kernel, (unsigned)n_chunks, BLOCK, 0, stream, partial, rows, n_rows);
    LAUNCH(norm_kernel, 1, BLOCK, 0, stream, norm, scale, partial, n_chunks, max_norm);
}
