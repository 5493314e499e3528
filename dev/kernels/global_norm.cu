/*
Norm of all gradients and the factor that clips it: the naive kernel (one block walks the whole table), the winner of
seal_kernels, and a double-precision reference.

  global_norm --check [--small]           against the reference (--small: for sanitizers)
  global_norm [--layers N] [--width N]    speed over a table of GPT-2's shape, with the share of a plain copy's
                                          bandwidth
*/
#include "tensor_table.h"

#define BLOCK 256

// One block, tensor after tensor: one launch and no scratch, and one SM of the device at work.
static __global__ void naive_kernel(float* norm, const TensorRow* rows, int n_rows) {
    float sum = 0.0f;
    for (int r = 0; r < n_rows; r++)
        for (int64_t i = threadIdx.x; i < rows[r].count; i += BLOCK) sum += rows[r].grad[i] * rows[r].grad[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *norm = sqrtf(sum);
}

static void check_table(const char* name, const int64_t* sizes, int n, bool naive) {
    Table t = table_create(sizes, n);
    double squares = 0.0;
    for (int r = 0; r < n; r++)
        for (int64_t i = 0; i < sizes[r]; i++) squares += (double)t.grad[r][i] * t.grad[r][i];
    double norm = sqrt(squares);
    // max_norm below and above the norm, and switched off
    const float limits[] = {(float)(0.5 * norm), (float)(2.0 * norm), 0.0f};
    for (float limit : limits) {
        double scale = limit > 0.0f && limit / (norm + 1e-6) < 1.0 ? limit / (norm + 1e-6) : 1.0;
        float got[2][2];
        for (int run = 0; run < 2; run++) {
            float *d_norm = harness_device<float>(1), *d_scale = harness_device<float>(1),
                  *d_partial = harness_device<float>(t.n_chunks + 1);
            if (naive) LAUNCH(naive_kernel, 1, BLOCK, 0, 0, d_norm, t.d_rows, n);
            else global_norm(d_norm, d_scale, d_partial, t.d_rows, n, t.n_chunks, limit, 0);
            got[run][0] = *harness_fetch(d_norm, 1);
            got[run][1] = *harness_fetch(d_scale, 1);
            check(isnan(*harness_fetch(d_partial + t.n_chunks, 1)), "%s: one partial a chunk, none more", name);
        }
        check_close(harness_name(name, "norm"), &got[0][0], &norm, 1, 1e-6);
        if (naive) break;
        check_close(harness_name(name, "scale"), &got[0][1], &scale, 1, 1e-6);
        // in two steps, as ranks take it: the same bits, for nothing was added in between
        float *d_norm = harness_device<float>(1), *d_scale = harness_device<float>(1);
        double* d_squares = harness_device<double>(1);
        gradient_squares(d_squares, harness_device<float>(t.n_chunks), t.d_rows, n, t.n_chunks, 0);
        norm_of_squares(d_norm, d_scale, d_squares, limit, 0);
        check(*harness_fetch(d_norm, 1) == got[0][0] && *harness_fetch(d_scale, 1) == got[0][1],
              "%s: the sum of squares, then the norm: the same bits", name);
        check(!memcmp(got[0], got[1], sizeof(got[0])), "%s: two equal runs give equal bits", name);
    }
    harness_release();
}

// A gradient that is not a number must not be clipped into one.
static void check_nonfinite(void) {
    const int64_t sizes[] = {5, TENSOR_CHUNK + 3};
    const float values[] = {NAN, INFINITY};
    for (float value : values) {
        Table t = table_create(sizes, 2);
        cudaCheck(cudaMemcpy(t.rows[1].grad + TENSOR_CHUNK + 2, &value, sizeof(float), cudaMemcpyHostToDevice));
        float *d_norm = harness_device<float>(1), *d_scale = harness_device<float>(1);
        global_norm(d_norm, d_scale, harness_device<float>(t.n_chunks), t.d_rows, 2, t.n_chunks, 1.0f, 0);
        float norm = *harness_fetch(d_norm, 1), scale = *harness_fetch(d_scale, 1);
        check(isnan(value) ? isnan(norm) && isnan(scale) : norm == INFINITY && scale == 0.0f,
              "a gradient of %g: norm %g, scale %g, as torch", value, norm, scale);
        harness_release();
    }
}

typedef struct {
    Table* t;
    float *norm, *scale, *partial;
    bool naive;
} Timed;
static void timed_run(void* data, cudaStream_t stream) {
    Timed* d = (Timed*)data;
    if (d->naive) LAUNCH(naive_kernel, 1, BLOCK, 0, stream, d->norm, d->t->d_rows, d->t->n_rows);
    else global_norm(d->norm, d->scale, d->partial, d->t->d_rows, d->t->n_rows, d->t->n_chunks, 1.0f, stream);
}

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int layers = 12, C = 768;
#else
    int layers = 4, C = 128;
#endif
    const HarnessOption options[] = {{"--layers", &layers, 1, "layers of the benchmark's table, at most 20"},
                                     {"--width", &C, 8, "its width"}};
    harness_options(argc, argv, options, 2);
    if (harness_check) {
        check_table("small", table_small_sizes, sizeof(table_small_sizes) / sizeof(table_small_sizes[0]), false);
        if (harness_small) return check_report();
        int n = sizeof(table_odd_sizes) / sizeof(table_odd_sizes[0]);
        check_table("odd", table_odd_sizes, n, false);
        check_table("naive", table_odd_sizes, n, true);
        const int64_t many[] = {3000 * TENSOR_CHUNK / 4 +
                                1};  // more partials than the last block has threads are added in a second round
        check_table("one large tensor", many, 1, false);
        check_nonfinite();
        return check_report();
    }
    int64_t counts[256];
    Table t = table_create(counts, table_benchmark_sizes(counts, layers < 20 ? layers : 20, C));
    Timed naive = {&t, harness_device<float>(1), harness_device<float>(1), harness_device<float>(t.n_chunks), true},
          winner = naive;
    winner.naive = false;
    printf("global norm " FLOATX_NAME " build, %lld gradients in %d tensors\n", (long long)t.n_elements, t.n_rows);
    harness_report("naive, one block", timed_run, &naive, (double)t.n_elements * sizeof(float));
    harness_report("a block a chunk", timed_run, &winner, (double)t.n_elements * sizeof(float));
    harness_release();
    return 0;
}
