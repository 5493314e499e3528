/*
AdamW over a table of tensors: the naive kernel (a launch per tensor, a thread per element), the winner of
seal_kernels (one launch), and a double-precision reference.

  adamw --check [--small]           against the reference (--small: for sanitizers)
  adamw [--layers N] [--width N]    speed over a table of GPT-2's shape, with the share of a plain copy's bandwidth
*/
#include "tensor_table.h"

static const float beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f;

// ---------------------------------------------------------------------------------------------------
// naive kernel

static __global__ void naive_kernel(TensorRow row, const float* grad_scale, float lr, float beta1, float beta2,
                                    float eps, float correction1, float correction2) {
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= row.count) return;
    float g = row.grad[i] * *grad_scale;
    row.m[i] = beta1 * row.m[i] + (1.0f - beta1) * g;
    row.v[i] = beta2 * row.v[i] + (1.0f - beta2) * g * g;
    float w = row.master[i] * (1.0f - lr * row.weight_decay) -
              lr * (row.m[i] / correction1) / (sqrtf(row.v[i] / correction2) + eps);
    row.master[i] = w;
    if (row.param) row.param[i] = from_float<floatX>(w);
}

static void naive_update(const Table* t, const float* grad_scale, float lr, int step, cudaStream_t stream) {
    for (int r = 0; r < t->n_rows; r++) {
        if (t->rows[r].count == 0) continue;
        LAUNCH(naive_kernel, (unsigned)CEIL_DIV(t->rows[r].count, 256), 256, 0, stream, t->rows[r], grad_scale, lr,
               beta1, beta2, eps, 1.0f - powf(beta1, step), 1.0f - powf(beta2, step));
    }
}

// ---------------------------------------------------------------------------------------------------
// checks

static void reference_step(const Table* t, double** w, double** m, double** v, double scale, double lr, int step) {
    for (int r = 0; r < t->n_rows; r++) {
        for (int64_t i = 0; i < t->rows[r].count; i++) {
            double g = t->grad[r][i] * scale;
            m[r][i] = beta1 * m[r][i] + (1.0 - beta1) * g;
            v[r][i] = beta2 * v[r][i] + (1.0 - beta2) * g * g;
            double denominator = sqrt(v[r][i]) / sqrt(1.0 - pow(beta2, step)) + eps;
            w[r][i] = w[r][i] * (1.0 - lr * t->rows[r].weight_decay) -
                      lr / (1.0 - pow(beta1, step)) * m[r][i] / denominator;
        }
    }
}

static double** doubles(const Table* t, float** from) {
    double** to = harness_host<double*>(t->n_rows);
    for (int r = 0; r < t->n_rows; r++) {
        to[r] = harness_host<double>(t->rows[r].count);
        for (int64_t i = 0; i < t->rows[r].count; i++) to[r][i] = from[r][i];
    }
    return to;
}

// Ten steps; a learning rate as large as the weights, so that the update is not lost in them.
static void check_steps(const char* name, const int64_t* sizes, int n, bool naive, bool scaled) {
    const float lr = 0.02f, scale = scaled ? 0.37f : 1.0f;
    Table t = table_create(sizes, n);
    double **w = doubles(&t, t.master), **m = doubles(&t, t.m), **v = doubles(&t, t.v);
    float* d_scale = harness_copy(&scale, 1);
    bool rounded = true, guarded = true, kept = true;
    for (int step = 1; step <= 10; step++) {
        if (naive) naive_update(&t, d_scale, lr, step, 0);
        else adamw_update(t.d_rows, n, t.n_chunks, scaled ? d_scale : NULL, lr, beta1, beta2, eps, step, 0);
        reference_step(&t, w, m, v, scale, lr, step);
    }
    for (int r = 0; r < n; r++) {
        int64_t count = t.rows[r].count;
        const TensorRow* row = &t.rows[r];
        char full[128];
        snprintf(full, sizeof(full), "%s tensor %d, %lld elements", name, r, (long long)count);
        float *got_w = harness_fetch(row->master, count + TABLE_GUARD),
              *got_m = harness_fetch(row->m, count + TABLE_GUARD);
        float *got_v = harness_fetch(row->v, count + TABLE_GUARD),
              *got_g = harness_fetch(row->grad, count + TABLE_GUARD);
        floatX* param = row->param ? harness_fetch(row->param, count) : NULL;
        for (int64_t i = 0; param && i < count; i++)
            rounded = rounded && to_float(param[i]) == to_float(from_float<floatX>(got_w[i]));
        for (int64_t i = count; i < count + TABLE_GUARD; i++)
            guarded = guarded && isnan(got_w[i]) && isnan(got_m[i]) && isnan(got_v[i]);
        kept = kept && !memcmp(got_g, t.grad[r], count * sizeof(float));
        if (count == 0) continue;
        // ten steps of 1e-6 at the most
        check_close(harness_name(full, "weights"), got_w, w[r], count, 1e-5);
        check_close(harness_name(full, "m"), got_m, m[r], count, 1e-5);
        check_close(harness_name(full, "v"), got_v, v[r], count, 1e-5);
    }
    check(rounded, "%s: param is the rounded master", name);
    check(guarded && kept, "%s: nothing past a tensor's end is written, gradients are kept", name);
    harness_release();
}

// One step from zero moments: every weight moves by lr, whatever its gradient's size, and to 1e-6 of the weight.
static void check_first_step(void) {
    const int64_t size = 1000;
    Table t = table_create(&size, 1);
    double** w = doubles(&t, t.master);
    double** zero_m = doubles(&t, t.m);
    double** zero_v = doubles(&t, t.v);
    memset(zero_m[0], 0, size * sizeof(double));
    memset(zero_v[0], 0, size * sizeof(double));
    cudaCheck(cudaMemset(t.rows[0].m, 0, size * sizeof(float)));
    cudaCheck(cudaMemset(t.rows[0].v, 0, size * sizeof(float)));
    adamw_update(t.d_rows, 1, t.n_chunks, NULL, 1e-3f, beta1, beta2, eps, 1, 0);
    reference_step(&t, w, zero_m, zero_v, 1.0, 1e-3f, 1);
    check_close("first step from zero moments", harness_fetch(t.rows[0].master, size), w[0], size, 1e-6);
    harness_release();
}

static void check_same_bits(const int64_t* sizes, int n) {
    float* result[2][16];
    for (int run = 0; run < 2; run++) {
        harness_state = 1;
        Table t = table_create(sizes, n);
        adamw_update(t.d_rows, n, t.n_chunks, NULL, 0.01f, beta1, beta2, eps, 3, 0);
        for (int r = 0; r < n; r++) result[run][r] = harness_fetch(t.rows[r].master, t.rows[r].count);
    }
    bool same = true;
    for (int r = 0; r < n; r++) same = same && !memcmp(result[0][r], result[1][r], sizes[r] * sizeof(float));
    check(same, "two equal runs give equal bits");
    harness_release();
}

// ---------------------------------------------------------------------------------------------------

typedef struct {
    Table* t;
    float* scale;
    bool naive;
} Timed;
static void timed_run(void* data, cudaStream_t stream) {
    Timed* timed = (Timed*)data;
    if (timed->naive) naive_update(timed->t, timed->scale, 1e-4f, 7, stream);
    else
        adamw_update(timed->t->d_rows, timed->t->n_rows, timed->t->n_chunks, timed->scale, 1e-4f, beta1, beta2, eps, 7,
                     stream);
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
        int n = sizeof(table_odd_sizes) / sizeof(table_odd_sizes[0]),
            small = sizeof(table_small_sizes) / sizeof(table_small_sizes[0]);
        check_steps("small", table_small_sizes, small, false, true);
        check_first_step();
        check_same_bits(table_small_sizes, small);
        if (harness_small) return check_report();
        check_steps("odd", table_odd_sizes, n, false, false);
        check_steps("odd, scaled", table_odd_sizes, n, false, true);
        check_steps("naive", table_odd_sizes, n, true, true);
        check_same_bits(table_odd_sizes, n);
        return check_report();
    }
    int64_t counts[256];
    Table t = table_create(counts, table_benchmark_sizes(counts, layers < 20 ? layers : 20, C));
    const float one = 1.0f;
    Timed naive = {&t, harness_copy(&one, 1), true}, winner = {&t, naive.scale, false};
    double bytes = 0.0;  // gradient, and weight, m, v both ways; the bf16 copy where there is one
    for (int r = 0; r < t.n_rows; r++)
        bytes += (double)t.rows[r].count *
                 (7 * sizeof(float) + (t.rows[r].param && sizeof(floatX) < sizeof(float) ? sizeof(floatX) : 0));
    printf("adamw " FLOATX_NAME ", %lld parameters in %d tensors\n", (long long)t.n_elements, t.n_rows);
    harness_report("naive, a launch per tensor", timed_run, &naive, bytes);
    harness_report("one launch", timed_run, &winner, bytes);
    harness_release();
    return 0;
}
