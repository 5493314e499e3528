/* How a block of the table kernels (adamw.cu, global_norm.cu, nonfinite.cu) finds its chunk: a binary search over the
 * rows' first chunks. */
#ifndef SEAL_TENSOR_ROWS_H
#define SEAL_TENSOR_ROWS_H

#include "kernels.h"

// The last row whose first_chunk ≤ chunk.
static inline __device__ int row_of_chunk(const TensorRow* rows, int n_rows, int64_t chunk) {
    int low = 0, high = n_rows - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (rows[middle].first_chunk <= chunk) low = middle;
        else high = middle - 1;
    }
    return low;
}
// Elements [*from, *to) of the row that belong to the chunk.
static inline __device__ void chunk_range(const TensorRow* row, int64_t chunk, int64_t* from, int64_t* to) {
    *from = (chunk - row->first_chunk) * TENSOR_CHUNK;
    *to = *from + TENSOR_CHUNK < row->count ? *from + TENSOR_CHUNK : row->count;
}

#endif
