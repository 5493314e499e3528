/* The first tensor of the table with a NaN or an infinity: an integer minimum over rows, so its result does not depend
 * on timing. */
#include "kernels.h"
#include "tensor_rows.h"

#define BLOCK 256

// ---------------------------------------------------------------------------------------------------
// kernels

static __global__ void begin_kernel(int* first, int n_rows) { *first = n_rows; }

// 0 · x is 0 for a finite x and NaN for any other, and a NaN stays in the sum: no branch for each element.
static __global__ void nonfinite_kernel(int* first, const TensorRow* rows, int n_rows, bool params) {
    int at = row_of_chunk(rows, n_rows, blockIdx.x);
    const TensorRow* row = &rows[at];
    int64_t from, to;
    chunk_range(row, blockIdx.x, &from, &to);
    const floatX* param = params ? row->param : NULL;  // a row without one (ω) is looked at in its master
    const float* values = params ? row->master : row->grad;
    int64_t whole = from + (to - from) / VEC * VEC;
    float8 zero = {{0.0f}};
    for (int64_t i = from + threadIdx.x * VEC; i < whole; i += BLOCK * VEC) {
        float8 x = param ? load8(param + i) : load8(values + i);
        for (int k = 0; k < VEC; k++) zero.v[k] += 0.0f * x.v[k];
    }
    for (int64_t i = whole + threadIdx.x; i < to; i += BLOCK)
        zero.v[0] += 0.0f * (param ? to_float(param[i]) : values[i]);
    bool finite = true;
    for (int k = 0; k < VEC; k++) finite = finite && zero.v[k] == 0.0f;
    if (!finite) atomicMin(first, at);
}

// ---------------------------------------------------------------------------------------------------
// launchers

void find_nonfinite(int* first, const TensorRow* rows, int n_rows, int64_t n_chunks, bool params, cudaStream_t stream) {
    NVTX_RANGE("find_nonfinite");
    LAUNCH(begin_kernel, 1, 1, 0, stream, first, n_rows);
    if (n_chunks > 0) LAUNCH(nonfinite_kernel, (unsigned)n_chunks, BLOCK, 0, stream, first, rows, n_rows, params);
}
