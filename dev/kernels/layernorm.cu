/*
Layernorm, forward (alone and fused with the residual) and backward, as a ladder: the naive kernels (one thread per row,
then one thread per column), one warp per row, vectors of eight, and the winner of seal_kernels; and a double-precision
reference fed the same rounded inputs. docs/kernels.md tells the story of this ladder.

  layernorm --check [--small]          against the reference, backward also by finite differences (--small: for
                                       sanitizers)
  layernorm [--tokens N] [--width N]   speed, with the share of a plain copy's bandwidth
*/
#include "harness.h"
#include "kernels.h"

#define EPS 1e-5f

// ---------------------------------------------------------------------------------------------------
// Step 0, naive: one thread per row. Neighbouring threads read addresses a whole row apart, so each of a warp's loads
// takes 32 sectors of 32 bytes for 64 bytes of bf16. At width 768 on sm_90 forward issues 552 instructions of a warp
// per row and asks for 2304 sectors of it. The columns of dweight are summed by one thread each: C threads, which is a
// few warps of a GPU that has thousands.

static __global__ void naive_forward_kernel(floatX* out, float* mean, float* rstd, const floatX* inp,
                                            const floatX* weight, const floatX* bias, int T, int C, int ldo) {
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= T) return;
    const floatX* x = inp + (size_t)t * C;
    float m = 0.0f, variance = 0.0f;
    for (int c = 0; c < C; c++) m += to_float(x[c]);
    m /= C;
    for (int c = 0; c < C; c++) variance += (to_float(x[c]) - m) * (to_float(x[c]) - m);
    float s = 1.0f / sqrtf(variance / C + EPS);
    for (int c = 0; c < C; c++)
        out[(size_t)t * ldo + c] = from_float<floatX>((to_float(x[c]) - m) * s * to_float(weight[c]) +
                                                      to_float(bias[c]));
    mean[t] = m;
    rstd[t] = s;
}

static __global__ void naive_dinp_kernel(floatX* dinp, const floatX* dout, const floatX* inp, const floatX* weight,
                                         const float* mean, const float* rstd, int T, int C, int ldd) {
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= T) return;
    const floatX* x = inp + (size_t)t * C;
    const floatX* d = dout + (size_t)t * ldd;
    float sum = 0.0f, sum_norm = 0.0f;
    for (int c = 0; c < C; c++) {
        float dnorm = to_float(weight[c]) * to_float(d[c]);
        sum += dnorm;
        sum_norm += dnorm * (to_float(x[c]) - mean[t]) * rstd[t];
    }
    for (int c = 0; c < C; c++) {
        float dnorm = to_float(weight[c]) * to_float(d[c]), norm = (to_float(x[c]) - mean[t]) * rstd[t];
        floatX* p = dinp + (size_t)t * C + c;
        *p = from_float<floatX>(to_float(*p) + (dnorm - sum / C - norm * sum_norm / C) * rstd[t]);
    }
}

static __global__ void naive_dweight_kernel(float* dweight, float* dbias, const floatX* dout, const floatX* inp,
                                            const float* mean, const float* rstd, int T, int C, int ldd) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= C) return;
    for (int t = 0; t < T; t++) {
        float d = to_float(dout[(size_t)t * ldd + c]);
        dweight[c] += d * (to_float(inp[(size_t)t * C + c]) - mean[t]) * rstd[t];
        dbias[c] += d;
    }
}

// ---------------------------------------------------------------------------------------------------
// Step 1: one warp per row. Neighbouring lanes read neighbouring elements, so a load of a warp is one piece of memory,
// and the two statistics are sums over the warp (five shuffles each). A row comes three times, from the L1 cache after
// the first: 144 sectors. The instructions are as many as before (566); they wait for a sixteenth of the memory.

static __global__ void warp_forward_kernel(floatX* out, float* mean, float* rstd, const floatX* inp,
                                           const floatX* weight, const floatX* bias, int T, int C, int ldo) {
    int t = (blockIdx.x * blockDim.x + threadIdx.x) / WARP_SIZE, lane = threadIdx.x % WARP_SIZE;
    if (t >= T) return;
    const floatX* x = inp + (size_t)t * C;
    float sum = 0.0f, squares = 0.0f;
    for (int c = lane; c < C; c += WARP_SIZE) sum += to_float(x[c]);
    float m = warp_sum(sum) / C;
    for (int c = lane; c < C; c += WARP_SIZE) squares += (to_float(x[c]) - m) * (to_float(x[c]) - m);
    float s = rsqrtf(warp_sum(squares) / C + EPS);
    for (int c = lane; c < C; c += WARP_SIZE)
        out[(size_t)t * ldo + c] = from_float<floatX>((to_float(x[c]) - m) * s * to_float(weight[c]) +
                                                      to_float(bias[c]));
    if (lane == 0) {
        mean[t] = m;
        rstd[t] = s;
    }
}

static __global__ void warp_dinp_kernel(floatX* dinp, const floatX* dout, const floatX* inp, const floatX* weight,
                                        const float* mean, const float* rstd, int T, int C, int ldd) {
    int t = (blockIdx.x * blockDim.x + threadIdx.x) / WARP_SIZE, lane = threadIdx.x % WARP_SIZE;
    if (t >= T) return;
    const floatX* x = inp + (size_t)t * C;
    const floatX* d = dout + (size_t)t * ldd;
    float sums[2] = {0.0f, 0.0f};  // of dnorm and of dnorm · norm
    for (int c = lane; c < C; c += WARP_SIZE) {
        float dnorm = to_float(weight[c]) * to_float(d[c]);
        sums[0] += dnorm;
        sums[1] += dnorm * (to_float(x[c]) - mean[t]) * rstd[t];
    }
    warp_sums(sums);
    float dnorm_mean = sums[0] / C, dnorm_norm_mean = sums[1] / C;  // a division in the loop below would be a call
    for (int c = lane; c < C; c += WARP_SIZE) {
        float dnorm = to_float(weight[c]) * to_float(d[c]), norm = (to_float(x[c]) - mean[t]) * rstd[t];
        floatX* p = dinp + (size_t)t * C + c;
        *p = from_float<floatX>(to_float(*p) + (dnorm - dnorm_mean - norm * dnorm_norm_mean) * rstd[t]);
    }
}

// The rows of a column are dealt to SLICES threads, whose sums meet in shared memory: 32 columns and SLICES slices make
// a block, so a warp reads 32 neighbouring columns of one row.
#define SLICES 16
static __global__ void sliced_dweight_kernel(float* dweight, float* dbias, const floatX* dout, const floatX* inp,
                                             const float* mean, const float* rstd, int T, int C, int ldd) {
    SHARED(float, partial, [2][SLICES][WARP_SIZE]);
    int lane = threadIdx.x % WARP_SIZE, slice = threadIdx.x / WARP_SIZE, c = blockIdx.x * WARP_SIZE + lane;
    float sum_norm = 0.0f, sum = 0.0f;
    for (int t = slice; t < T && c < C; t += SLICES) {
        float d = to_float(dout[(size_t)t * ldd + c]);
        sum_norm += d * (to_float(inp[(size_t)t * C + c]) - mean[t]) * rstd[t];
        sum += d;
    }
    partial[0][slice][lane] = sum_norm;
    partial[1][slice][lane] = sum;
    __syncthreads();
    if (slice > 0 || c >= C) return;
    for (int i = 1; i < SLICES; i++) {
        sum_norm += partial[0][i][lane];
        sum += partial[1][i][lane];
    }
    dweight[c] += sum_norm;
    dbias[c] += sum;
}

// ---------------------------------------------------------------------------------------------------
// Step 2: eight elements per lane and load (float8: one 128-bit load in bf16, two in fp32). An eighth of the load and
// address instructions (444 instructions per row); the eight additions do not wait for each other. What the winner
// adds: a row is read once and kept in registers (48 sectors, in three loads that are in flight together), several
// warps share a wide row, the residual before the norm is added on the way, and backward takes dinp, dweight and dbias
// from one read of its inputs.

static __global__ void vector_forward_kernel(floatX* out, float* mean, float* rstd, const floatX* inp,
                                             const floatX* weight, const floatX* bias, int T, int C, int ldo) {
    int t = (blockIdx.x * blockDim.x + threadIdx.x) / WARP_SIZE, lane = threadIdx.x % WARP_SIZE;
    if (t >= T) return;
    const floatX* row = inp + (size_t)t * C;
    float8 sums = {{0.0f}}, squares = {{0.0f}};
    for (int c = lane * VEC; c < C; c += WARP_SIZE * VEC) {
        float8 x = load8(row + c);
        for (int k = 0; k < VEC; k++) sums.v[k] += x.v[k];
    }
    float m = 0.0f, s = 0.0f;
    for (int k = 0; k < VEC; k++) m += sums.v[k];
    m = warp_sum(m) / C;
    for (int c = lane * VEC; c < C; c += WARP_SIZE * VEC) {
        float8 x = load8(row + c);
        for (int k = 0; k < VEC; k++) squares.v[k] += (x.v[k] - m) * (x.v[k] - m);
    }
    for (int k = 0; k < VEC; k++) s += squares.v[k];
    s = rsqrtf(warp_sum(s) / C + EPS);
    for (int c = lane * VEC; c < C; c += WARP_SIZE * VEC) {
        float8 x = load8(row + c), w = load8(weight + c), b = load8(bias + c);
        for (int k = 0; k < VEC; k++) x.v[k] = (x.v[k] - m) * s * w.v[k] + b.v[k];
        store8(out + (size_t)t * ldo + c, x);
    }
    if (lane == 0) {
        mean[t] = m;
        rstd[t] = s;
    }
}

static __global__ void vector_dinp_kernel(floatX* dinp, const floatX* dout, const floatX* inp, const floatX* weight,
                                          const float* mean, const float* rstd, int T, int C, int ldd) {
    int t = (blockIdx.x * blockDim.x + threadIdx.x) / WARP_SIZE, lane = threadIdx.x % WARP_SIZE;
    if (t >= T) return;
    const floatX* x_row = inp + (size_t)t * C;
    const floatX* d_row = dout + (size_t)t * ldd;
    float m = mean[t], s = rstd[t], sums[2] = {0.0f, 0.0f};
    for (int c = lane * VEC; c < C; c += WARP_SIZE * VEC) {
        float8 x = load8(x_row + c), d = load8(d_row + c), w = load8(weight + c);
        for (int k = 0; k < VEC; k++) {
            float dnorm = w.v[k] * d.v[k];
            sums[0] += dnorm;
            sums[1] += dnorm * (x.v[k] - m) * s;
        }
    }
    warp_sums(sums);
    float dnorm_mean = sums[0] / C, dnorm_norm_mean = sums[1] / C;
    for (int c = lane * VEC; c < C; c += WARP_SIZE * VEC) {
        floatX* p = dinp + (size_t)t * C + c;
        float8 x = load8(x_row + c), d = load8(d_row + c), w = load8(weight + c), result = load8(p);
        for (int k = 0; k < VEC; k++)
            result.v[k] += (w.v[k] * d.v[k] - dnorm_mean - (x.v[k] - m) * s * dnorm_norm_mean) * s;
        store8(p, result);
    }
}

// ---------------------------------------------------------------------------------------------------
// one problem: host copies of what the device holds, and the reference

typedef struct {
    int T, C, ldo, ldd;
    bool fused;
    float *inp1, *inp2, *weight, *bias, *dout, *dinp;  // host, rounded; dinp: what it holds before
    floatX *d_inp1, *d_inp2, *d_weight, *d_bias, *d_dout, *d_dinp, *d_residual, *d_out;
    float *d_mean, *d_rstd, *d_dweight, *d_dbias, *d_scratch;
} Problem;

typedef struct {
    double *residual, *out, *mean, *rstd, *dinp, *dweight, *dbias;
} Reference;
typedef struct {
    float *residual, *out, *mean, *rstd, *dinp, *dweight, *dbias;
    bool tails_kept;
} Result;

static Problem problem_create(int T, int C, int pad, bool fused) {
    size_t n = (size_t)T * C;
    Problem p = {T,    C,    C + pad, C + 2 * pad, fused, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
                 NULL, NULL, NULL,    NULL,        NULL,  NULL, NULL, NULL, NULL, NULL, NULL, NULL};
    p.inp1 = harness_randoms<floatX>(n, 1.0f, 0.3f);
    p.inp2 = harness_randoms<floatX>(n, 0.7f, 0.1f);
    p.weight = harness_randoms<floatX>(C, 0.5f, 1.0f);
    p.bias = harness_randoms<floatX>(C, 0.5f, 0.0f);
    p.dout = harness_randoms<floatX>(n, 1.0f, 0.0f);
    p.dinp = harness_randoms<floatX>(n, 1.0f, 0.0f);
    p.d_inp1 = harness_upload<floatX>(p.inp1, T, C, C);
    p.d_inp2 = harness_upload<floatX>(p.inp2, T, C, C);
    p.d_weight = harness_upload<floatX>(p.weight, 1, C, C);
    p.d_bias = harness_upload<floatX>(p.bias, 1, C, C);
    p.d_dout = harness_upload<floatX>(p.dout, T, C, p.ldd);
    p.d_dinp = harness_device<floatX>(n);
    p.d_residual = harness_device<floatX>(n);
    p.d_out = harness_device<floatX>((size_t)T * p.ldo);
    p.d_mean = harness_device<float>(T);
    p.d_rstd = harness_device<float>(T);
    p.d_dweight = harness_device<float>(C);
    p.d_dbias = harness_device<float>(C);
    p.d_scratch = harness_device<float>(layernorm_scratch(C));
    return p;
}

static Reference reference_create(const Problem* p) {
    int T = p->T, C = p->C;
    size_t n = (size_t)T * C;
    Reference r = {harness_host<double>(n), harness_host<double>(n), harness_host<double>(T), harness_host<double>(T),
                   harness_host<double>(n), harness_host<double>(C), harness_host<double>(C)};
    for (int t = 0; t < T; t++) {
        double *x = r.residual + (size_t)t * C, *dinp = r.dinp + (size_t)t * C, mean = 0.0, variance = 0.0, sum = 0.0,
               sum_norm = 0.0;
        const float* dout = p->dout + (size_t)t * C;
        for (int c = 0; c < C; c++) {
            size_t i = (size_t)t * C + c;
            x[c] = p->fused ? to_float(from_float<floatX>(p->inp1[i] + p->inp2[i])) : p->inp1[i];
            mean += x[c] / C;
        }
        for (int c = 0; c < C; c++) variance += (x[c] - mean) * (x[c] - mean) / C;
        double rstd = 1.0 / sqrt(variance + (double)EPS);
        for (int c = 0; c < C; c++) {
            double norm = (x[c] - mean) * rstd;
            r.out[(size_t)t * C + c] = norm * p->weight[c] + p->bias[c];
            r.dweight[c] += dout[c] * norm;
            r.dbias[c] += dout[c];
            sum += (double)dout[c] * p->weight[c] / C;
            sum_norm += (double)dout[c] * p->weight[c] * norm / C;
        }
        for (int c = 0; c < C; c++)
            dinp[c] = p->dinp[(size_t)t * C + c] +
                      rstd * ((double)dout[c] * p->weight[c] - sum - (x[c] - mean) * rstd * sum_norm);
        r.mean[t] = mean;
        r.rstd[t] = rstd;
    }
    return r;
}

// ---------------------------------------------------------------------------------------------------
// the steps of the ladder, one signature

typedef void (*Pass)(Problem* p, cudaStream_t stream);

static void winner_forward(Problem* p, cudaStream_t stream) {
    if (p->fused)
        fused_residual_layernorm_forward({.out = p->d_out,
                                          .mean = p->d_mean,
                                          .rstd = p->d_rstd,
                                          .inp1 = p->d_inp1,
                                          .weight = p->d_weight,
                                          .bias = p->d_bias,
                                          .T = p->T,
                                          .C = p->C,
                                          .ldo = p->ldo,
                                          .eps = EPS,
                                          .residual = p->d_residual,
                                          .inp2 = p->d_inp2},
                                         stream);
    else
        layernorm_forward({.out = p->d_out,
                           .mean = p->d_mean,
                           .rstd = p->d_rstd,
                           .inp1 = p->d_inp1,
                           .weight = p->d_weight,
                           .bias = p->d_bias,
                           .T = p->T,
                           .C = p->C,
                           .ldo = p->ldo,
                           .eps = EPS},
                          stream);
}
static void winner_backward(Problem* p, cudaStream_t stream) {
    layernorm_backward({.dinp = p->d_dinp,
                        .dweight = p->d_dweight,
                        .dbias = p->d_dbias,
                        .scratch = p->d_scratch,
                        .dout = p->d_dout,
                        .inp = p->fused ? p->d_residual : p->d_inp1,
                        .weight = p->d_weight,
                        .mean = p->d_mean,
                        .rstd = p->d_rstd,
                        .T = p->T,
                        .C = p->C,
                        .ldd = p->ldd},
                       stream);
}
// The launchers of a step: its kernels take the same arguments, and differ in how many threads a row has.
#define STEP_BLOCK 128
#define FORWARD_STEP(name, kernel, row_threads)                                                                        \
    static void name(Problem* p, cudaStream_t stream) {                                                                \
        LAUNCH(kernel, CEIL_DIV(p->T* row_threads, STEP_BLOCK), STEP_BLOCK, 0, stream, p->d_out, p->d_mean, p->d_rstd, \
               p->d_inp1, p->d_weight, p->d_bias, p->T, p->C, p->ldo);                                                 \
    }
#define BACKWARD_STEP(name, dinp_kernel, row_threads, dweight_kernel, columns, dweight_block)                          \
    static void name(Problem* p, cudaStream_t stream) {                                                                \
        LAUNCH(dinp_kernel, CEIL_DIV(p->T* row_threads, STEP_BLOCK), STEP_BLOCK, 0, stream, p->d_dinp, p->d_dout,      \
               p->d_inp1, p->d_weight, p->d_mean, p->d_rstd, p->T, p->C, p->ldd);                                      \
        LAUNCH(dweight_kernel, CEIL_DIV(p->C, columns), dweight_block, 0, stream, p->d_dweight, p->d_dbias, p->d_dout, \
               p->d_inp1, p->d_mean, p->d_rstd, p->T, p->C, p->ldd);                                                   \
    }
FORWARD_STEP(naive_forward, naive_forward_kernel, 1)
FORWARD_STEP(warp_forward, warp_forward_kernel, WARP_SIZE)
FORWARD_STEP(vector_forward, vector_forward_kernel, WARP_SIZE)
BACKWARD_STEP(naive_backward, naive_dinp_kernel, 1, naive_dweight_kernel, STEP_BLOCK, STEP_BLOCK)
BACKWARD_STEP(warp_backward, warp_dinp_kernel, WARP_SIZE, sliced_dweight_kernel, WARP_SIZE, SLICES* WARP_SIZE)
BACKWARD_STEP(vector_backward, vector_dinp_kernel, WARP_SIZE, sliced_dweight_kernel, WARP_SIZE, SLICES* WARP_SIZE)

static const struct {
    const char* name;
    Pass forward, backward;
} steps[] = {{"naive", naive_forward, naive_backward},
             {"warp per row", warp_forward, warp_backward},
             {"vectors", vector_forward, vector_backward}};

// ---------------------------------------------------------------------------------------------------
// checks

// Backward runs `times` times; dinp, dweight and dbias gather every one of them.
static Result run(Problem* p, Pass forward, Pass backward, int times) {
    Result r = {NULL, NULL, NULL, NULL, NULL, NULL, NULL, true};
    size_t n = (size_t)p->T * p->C;
    harness_poison(p->d_residual, n);
    harness_poison(p->d_out, (size_t)p->T * p->ldo);
    harness_poison(p->d_mean, p->T);
    harness_poison(p->d_rstd, p->T);
    harness_poison(p->d_scratch, layernorm_scratch(p->C));
    p->d_dinp = harness_upload<floatX>(p->dinp, p->T, p->C, p->C);
    cudaCheck(cudaMemset(p->d_dweight, 0, p->C * sizeof(float)));
    cudaCheck(cudaMemset(p->d_dbias, 0, p->C * sizeof(float)));
    forward(p, 0);
    for (int i = 0; i < times; i++) backward(p, 0);
    r.residual = harness_download(p->d_residual, p->T, p->C, p->C, &r.tails_kept);
    r.out = harness_download(p->d_out, p->T, p->C, p->ldo, &r.tails_kept);
    r.dinp = harness_download(p->d_dinp, p->T, p->C, p->C, &r.tails_kept);
    r.mean = harness_fetch(p->d_mean, p->T);
    r.rstd = harness_fetch(p->d_rstd, p->T);
    r.dweight = harness_fetch(p->d_dweight, p->C);
    r.dbias = harness_fetch(p->d_dbias, p->C);
    return r;
}

static void check_result(const char* name, const Problem* p, const Result* a, const Reference* b) {
    size_t n = (size_t)p->T * p->C;
    if (p->fused) harness_compare_x(harness_name(name, "residual"), a->residual, b->residual, n);
    harness_compare_x(harness_name(name, "out"), a->out, b->out, n);
    check_close(harness_name(name, "mean"), a->mean, b->mean, p->T, 1e-5);
    check_close(harness_name(name, "rstd"), a->rstd, b->rstd, p->T, 1e-5);
    harness_compare_x(harness_name(name, "dinp"), a->dinp, b->dinp, n);
    check_close(harness_name(name, "dweight"), a->dweight, b->dweight, p->C, 1e-5);
    check_close(harness_name(name, "dbias"), a->dbias, b->dbias, p->C, 1e-5);
    check(a->tails_kept, "%s: the tails of the rows are untouched", name);
}

static bool same_bits(const Problem* p, const Result* a, const Result* b) {
    size_t n = (size_t)p->T * p->C * sizeof(float), columns = p->C * sizeof(float);
    return !memcmp(a->out, b->out, n) && !memcmp(a->dinp, b->dinp, n) && !memcmp(a->dweight, b->dweight, columns) &&
           !memcmp(a->dbias, b->dbias, columns);
}

#ifndef PRECISION_BF16
// Σ out ∘ dout as a function of one of its three arguments
typedef struct {
    Problem* p;
    floatX** argument;
    size_t n;
} Slope;
static double slope_value(void* data, const float* x) {
    Slope* s = (Slope*)data;
    bool tails;
    double sum = 0.0;
    floatX* before = *s->argument;
    *s->argument = harness_copy(x, s->n);
    winner_forward(s->p, 0);
    float* out = harness_download(s->p->d_out, s->p->T, s->p->C, s->p->ldo, &tails);
    for (size_t i = 0; i < (size_t)s->p->T * s->p->C; i++) sum += (double)out[i] * s->p->dout[i];
    *s->argument = before;
    return sum;
}
static void check_slopes(const char* name, Problem* p, const Result* r) {
    size_t n = (size_t)p->T * p->C;
    float* dinp = harness_host<float>(n);
    for (size_t i = 0; i < n; i++) dinp[i] = r->dinp[i] - p->dinp[i];
    struct {
        const char* name;
        floatX** argument;
        const float *x, *gradient;
        size_t n;
    } arguments[] = {{"dinp", &p->d_inp1, p->inp1, dinp, n},
                     {"dweight", &p->d_weight, p->weight, r->dweight, (size_t)p->C},
                     {"dbias", &p->d_bias, p->bias, r->dbias, (size_t)p->C}};
    for (auto& a : arguments) {
        Slope slope = {p, a.argument, a.n};
        harness_check_slope(harness_name(name, a.name), slope_value, &slope, a.x, a.gradient, a.n, 1e-2f);
    }
}
#endif

static const struct {
    const char* name;
    int T, C, pad;
    bool fused, ladder, small;
} cases[] = {
    {"T1-C8", 1, 8, 8, false, true, true},
    {"T37-C264", 37, 264, 8, true, false, true},  // the last vectors of some lanes are empty
    {"T69-C128", 69, 128, 8, true, false, true},  // several rows a warp, the last ones missing; half of the lanes empty
    {"T34-C256", 34, 256, 0, false, true, false},
    {"T5-C1024", 5, 1024, 64, true, false, true},  // two warps a row
    {"T301-C768", 301, 768, 0, false, true, false},
    {"T67-C1600", 67, 1600, 8, true, false, false},   // four warps a row
    {"T33-C6144", 33, 6144, 8, false, false, false},  // eight
    {"T6-C6136", 6, 6136, 8, true, false, false},
    {"T33001-C8", 33001, 8, 8, false, false,
     false},  // more rows than the most blocks of backward have at the least a block
};

static void check_case(const char* name, int T, int C, int pad, bool fused, bool ladder) {
    Problem p = problem_create(T, C, pad, fused);
    Reference reference = reference_create(&p);
    Result first = run(&p, winner_forward, winner_backward, 1), second = run(&p, winner_forward, winner_backward, 1),
           twice = run(&p, winner_forward, winner_backward, 2);
    check_result(name, &p, &first, &reference);
    check(same_bits(&p, &first, &second), "%s: two equal runs give equal bits", name);
    bool doubled = true;
    for (int c = 0; c < C; c++)
        doubled = doubled && twice.dweight[c] == 2.0f * first.dweight[c] && twice.dbias[c] == 2.0f * first.dbias[c];
    check(doubled, "%s: accumulating twice doubles dweight and dbias", name);
    if (fused) {  // --recompute takes the plain kernel where forward took the fused one
        bool tails;
        float* out = harness_download(p.d_out, T, C, p.ldo, &tails);
        harness_poison(p.d_out, (size_t)T * p.ldo);
        layernorm_forward({.out = p.d_out,
                           .mean = p.d_mean,
                           .rstd = p.d_rstd,
                           .inp1 = p.d_residual,
                           .weight = p.d_weight,
                           .bias = p.d_bias,
                           .T = T,
                           .C = C,
                           .ldo = p.ldo,
                           .eps = EPS},
                          0);
        check(!memcmp(out, harness_download(p.d_out, T, C, p.ldo, &tails), sizeof(float) * T * C),
              "%s: fused and plain give equal bits", name);
    }
    // a frozen norm: the same dinp, and nothing else written
    float *dweight = p.d_dweight, *dbias = p.d_dbias;
    p.d_dweight = p.d_dbias = NULL;
    p.d_dinp = harness_upload<floatX>(p.dinp, T, C, C);
    winner_backward(&p, 0);
    bool tails;
    check(!memcmp(harness_download(p.d_dinp, T, C, C, &tails), first.dinp, sizeof(float) * T * C),
          "%s: a frozen norm has the same dinp", name);
    p.d_dweight = dweight, p.d_dbias = dbias;
#ifndef PRECISION_BF16
    check_slopes(name, &p, &first);
#endif
    for (auto& step : steps) {
        if (!ladder) continue;
        Result r = run(&p, step.forward, step.backward, 1);
        check_result(harness_name(step.name, name), &p, &r, &reference);
    }
    harness_release();
}

// ---------------------------------------------------------------------------------------------------
// benchmark

static void benchmark(int T, int C) {
    printf("layernorm " FLOATX_NAME ", %d tokens of width %d\n", T, C);
    Problem p = problem_create(T, C, 0, false);
    double tensor = (double)T * C * sizeof(floatX);
    struct {
        const char* name;
        bool fused;
        Pass pass;
        double tensors;
    } rows[] = {
        {"forward: naive", false, naive_forward, 2},           {"forward: warp per row", false, warp_forward, 2},
        {"forward: vectors", false, vector_forward, 2},        {"forward: winner", false, winner_forward, 2},
        {"fused residual + forward", true, winner_forward, 4}, {"backward: naive", false, naive_backward, 4},
        {"backward: warp per row", false, warp_backward, 4},   {"backward: vectors", false, vector_backward, 4},
        {"backward: winner", false, winner_backward, 4},
    };
    for (auto& row : rows) {
        p.fused = row.fused;
        harness_report(row.name, row.pass, &p, row.tensors * tensor);
    }
    harness_release();
}

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int T = 65536, C = 768;
#else
    int T = 2048, C = 768;
#endif
    const HarnessOption options[] = {{"--tokens", &T, 1, "rows"},
                                     {"--width", &C, 8, "elements of a row, a multiple of 8"}};
    harness_options(argc, argv, options, 2);
    if (!harness_check) {
        benchmark(T, C / VEC * VEC);
        return 0;
    }
    for (auto& c : cases)
        if (c.small || !harness_small) check_case(c.name, c.T, c.C, c.pad, c.fused, c.ladder);
    return check_report();
}
