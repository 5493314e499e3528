/* A table of tensors for the programs that check kernels over one: adamw, global_norm, nonfinite. */
#ifndef SEAL_TENSOR_TABLE_H
#define SEAL_TENSOR_TABLE_H

#include "harness.h"
#include "kernels.h"

#define TABLE_GUARD 8  // elements past the end of every tensor that nobody may touch: NaN

typedef struct {
    int n_rows;
    int64_t n_chunks, n_elements;
    TensorRow* rows;  // host; its pointers lead to the device
    const TensorRow* d_rows;
    float **master, **grad, **m, **v;  // host copies of what the device held when the table was made
} Table;

// Tensors of the given sizes with random contents. In the fp32 build param is the master itself, as in the model; every
// third tensor has no param.
static Table table_create(const int64_t* counts, int n_rows) {
    Table t;
    t.n_rows = n_rows;
    t.n_elements = 0;
    t.rows = harness_host<TensorRow>(n_rows);
    float*** fields[] = {&t.master, &t.grad, &t.m, &t.v};
    for (auto field : fields) *field = harness_host<float*>(n_rows);
    for (int i = 0; i < n_rows; i++) {
        size_t n = counts[i] + TABLE_GUARD;
        float* device[4];
        for (int f = 0; f < 4; f++) {
            float* x = (*fields[f])[i] = harness_randoms<float>(n, f == 0 ? 0.02f : 1e-3f, 0.0f);
            if (f == 3)
                for (size_t k = 0; k < n; k++) x[k] *= x[k];  // second moments
            for (int k = 0; k < TABLE_GUARD; k++) x[counts[i] + k] = NAN;
            device[f] = harness_copy(x, n);
        }
        TensorRow* row = &t.rows[i];
        row->param = i % 3 == 2                        ? NULL
                     : sizeof(floatX) == sizeof(float) ? (floatX*)device[0]
                                                       : harness_device<floatX>(n);
        row->master = device[0], row->grad = device[1], row->m = device[2], row->v = device[3];
        row->count = counts[i];
        row->weight_decay = i % 2 ? 0.1f : 0.0f;
        t.n_elements += counts[i];
    }
    t.n_chunks = tensor_rows_chunks(t.rows, n_rows);
    t.d_rows = harness_copy(t.rows, n_rows);
    return t;
}

// Sizes around the vector, the chunk and nothing at all; and GPT-2 124M's shape of a table for benchmarks.
static const int64_t table_odd_sizes[] = {
    1, 7, 8, 0, 9, TENSOR_CHUNK - 1, TENSOR_CHUNK, TENSOR_CHUNK + 1, 3 * TENSOR_CHUNK + 13, 100};
static const int64_t table_small_sizes[] = {3, 8, 0, 21};
HARNESS_UNUSED static int table_benchmark_sizes(int64_t* counts, int layers, int C) {
    int n = 0;
    counts[n++] = (int64_t)50257 * C;
    for (int l = 0; l < layers; l++) {
        const int64_t layer[] = {C, C, (int64_t)3 * C * C, 3 * C, (int64_t)C * C,     C,
                                 C, C, (int64_t)4 * C * C, 4 * C, (int64_t)4 * C * C, C};
        for (int64_t count : layer) counts[n++] = count;
    }
    return n;
}

#endif
