/*
The first tensor of a table that holds a NaN or an infinity: the naive kernel (a launch per tensor, a thread per
element), the winner of seal_kernels.

  nonfinite --check [--small]           a planted NaN or infinity at every interesting place (--small: for sanitizers)
  nonfinite [--layers N] [--width N]    speed over a table of GPT-2's shape, with the share of a plain copy's
                                        bandwidth
*/
#include "tensor_table.h"

static __global__ void naive_kernel(int* first, TensorRow row, int at) {
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < row.count && !(fabsf(row.grad[i]) < INFINITY)) atomicMin(first, at);
}

static int find(const Table* t, bool params) {
    int* d_first = harness_device<int>(1);
    find_nonfinite(d_first, t->d_rows, t->n_rows, t->n_chunks, params, 0);
    return *harness_fetch(d_first, 1);
}

// Where params are looked at: the master where there is no param.
static void plant(const Table* t, int row, int64_t i, float value, bool params, float* before) {
    const TensorRow* r = &t->rows[row];
    if (params && r->param) {
        floatX x = from_float<floatX>(value);
        *before = to_float(*harness_fetch(r->param + i, 1));
        cudaCheck(cudaMemcpy(r->param + i, &x, sizeof(x), cudaMemcpyHostToDevice));
        return;
    }
    float* p = params ? r->master : r->grad;
    *before = *harness_fetch(p + i, 1);
    cudaCheck(cudaMemcpy(p + i, &value, sizeof(float), cudaMemcpyHostToDevice));
}

static void check_table(const char* name, const int64_t* sizes, int n) {
    Table t = table_create(sizes, n);
    for (int r = 0; r < n; r++) {  // params begin as poison in the bf16 build
        if (!t.rows[r].param || sizeof(floatX) == sizeof(float)) continue;
        cudaCheck(cudaMemset(t.rows[r].param, 0, sizes[r] * sizeof(floatX)));
    }
    const float values[] = {NAN, INFINITY, -INFINITY};
    // the guards past every tensor's end hold NaN: none of them may count
    check(find(&t, false) == n && find(&t, true) == n, "%s: a finite table has none", name);
    for (int params = 0; params < 2; params++) {
        for (int r = 0; r < n; r++) {
            bool found = true;
            const int64_t places[] = {0, sizes[r] - 1, sizes[r] / 2, sizes[r] > TENSOR_CHUNK ? TENSOR_CHUNK : 0};
            for (int i = 0; i < 4 && sizes[r] > 0; i++) {
                float before, ignored;
                plant(&t, r, places[i], values[i % 3], params, &before);
                found = found && find(&t, params) == r && find(&t, !params) == n;
                plant(&t, r, places[i], before, params, &ignored);
            }
            if (sizes[r] > 0)
                check(found, "%s: %s of tensor %d, %lld elements, and of no other", name,
                      params ? "parameters" : "gradients", r, (long long)sizes[r]);
        }
    }
    float before;
    plant(&t, n - 1, 0, NAN, false, &before);
    plant(&t, 1, 1, NAN, false, &before);
    check(find(&t, false) == 1, "%s: of two the first is named", name);
    harness_release();
}

typedef struct {
    Table* t;
    int* first;
    bool naive;
} Timed;
static void timed_run(void* data, cudaStream_t stream) {
    Timed* d = (Timed*)data;
    if (!d->naive) return find_nonfinite(d->first, d->t->d_rows, d->t->n_rows, d->t->n_chunks, false, stream);
    for (int r = 0; r < d->t->n_rows; r++)
        LAUNCH(naive_kernel, (unsigned)CEIL_DIV(d->t->rows[r].count, 256), 256, 0, stream, d->first, d->t->rows[r], r);
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
        check_table("small", table_small_sizes, sizeof(table_small_sizes) / sizeof(table_small_sizes[0]));
        if (!harness_small) check_table("odd", table_odd_sizes, sizeof(table_odd_sizes) / sizeof(table_odd_sizes[0]));
        return check_report();
    }
    int64_t counts[256];
    Table t = table_create(counts, table_benchmark_sizes(counts, layers < 20 ? layers : 20, C));
    Timed naive = {&t, harness_device<int>(1), true}, winner = {&t, naive.first, false};
    printf("non-finite numbers, " FLOATX_NAME " build, %lld gradients in %d tensors\n", (long long)t.n_elements,
           t.n_rows);
    harness_report("naive, a launch per tensor", timed_run, &naive, (double)t.n_elements * sizeof(float));
    harness_report("one launch", timed_run, &winner, (double)t.n_elements * sizeof(float));
    harness_release();
    return 0;
}
