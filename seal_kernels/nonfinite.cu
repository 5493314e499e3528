/* The first tensor of the table with a NaN or an infinity: an integer minimum over rows, so its result does not depend on timing. */
// defines: find_nonfinite
#include "kernels.h"
// defines: row_of_chunk, chunk_range
#include "tensor_rows.h"

#define BLOCK 256

// ---------------------------------------------------------------------------------------------------------------------------------------
// kernels

static __global__ void begin_kernel(int* first, int n_rows) { *first = n_rows; }

static __global__ void nonfinite_kernel(int* first, const TensorRow* rows, int n_rows, bool params) {
    int at = row_of_chunk(rows, n_rows, blockIdx.x);
    const TensorRow* row = &rows[at];
    int64_t from, to;
    chunk_range(row, blockIdx.x, &from, &to);
    bool bad = false;
    for (int64_t i = from + threadIdx.x; i < to; i += BLOCK) {
        float x = !params ? row->grad[i] : row->param ? to_float(row->param[i]) : row->master[i];
        bad |= !isfinite(x);
    }
    if (bad) atomicMin(first, at);
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// launchers

void find_nonfinite(int* first, const TensorRow* rows, int n_rows, int64_t n_chunks, bool params, cudaStream_t stream) {
    LAUNCH(begin_kernel, 1, 1, 0, stream, first, n_rows);
    LAUNCH(nonfinite_kernel, (unsigned)n_chunks, BLOCK, 0, stream, first, rows, n_rows, params);
}
