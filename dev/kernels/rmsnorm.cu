/*
RMSnorm, forward (alone and fused with the residual) and backward: the naive kernels (one thread per row, then one
thread per column), the winner of seal_kernels, and a double-precision reference fed the same rounded inputs.

  rmsnorm --check [--small]           against the reference, backward also by finite differences (--small: for
                                      sanitizers)
  rmsnorm [--tokens N] [--width N]    speed, with the share of a plain copy's bandwidth
*/
#include "harness.h"
#include "kernels.h"

#define EPS 1e-5f

// ---------------------------------------------------------------------------------------------------
// naive kernels. Neighbouring threads read addresses a whole row apart, and the columns of dweight are summed by one
// thread each.

static __global__ void naive_forward_kernel(floatX* out, float* rstd, const floatX* inp, const floatX* weight, int T,
                                            int C, int ldo) {
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= T) return;
    const floatX* x = inp + (size_t)t * C;
    float squares = 0.0f;
    for (int c = 0; c < C; c++) squares += to_float(x[c]) * to_float(x[c]);
    float s = 1.0f / sqrtf(squares / C + EPS);
    for (int c = 0; c < C; c++) out[(size_t)t * ldo + c] = from_float<floatX>(to_float(x[c]) * s * to_float(weight[c]));
    rstd[t] = s;
}

static __global__ void naive_dinp_kernel(floatX* dinp, const floatX* dout, const floatX* inp, const floatX* weight,
                                         const float* rstd, int T, int C, int ldd) {
    int t = blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= T) return;
    const floatX* x = inp + (size_t)t * C;
    const floatX* d = dout + (size_t)t * ldd;
    float sum = 0.0f;
    for (int c = 0; c < C; c++) sum += to_float(weight[c]) * to_float(d[c]) * to_float(x[c]) * rstd[t];
    for (int c = 0; c < C; c++) {
        floatX* p = dinp + (size_t)t * C + c;
        *p = from_float<floatX>(to_float(*p) +
                                (to_float(weight[c]) * to_float(d[c]) - to_float(x[c]) * rstd[t] * sum / C) * rstd[t]);
    }
}

static __global__ void naive_dweight_kernel(float* dweight, const floatX* dout, const floatX* inp, const float* rstd,
                                            int T, int C, int ldd) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= C) return;
    for (int t = 0; t < T; t++)
        dweight[c] += to_float(dout[(size_t)t * ldd + c]) * to_float(inp[(size_t)t * C + c]) * rstd[t];
}

// ---------------------------------------------------------------------------------------------------
// one problem: host copies of what the device holds, and the reference

typedef struct {
    int T, C, ldo, ldd;
    bool fused;
    float *inp1, *inp2, *weight, *dout, *dinp;  // host, rounded; dinp: what it holds before
    floatX *d_inp1, *d_inp2, *d_weight, *d_dout, *d_dinp, *d_residual, *d_out;
    float *d_rstd, *d_dweight, *d_scratch;
} Problem;

typedef struct {
    double *residual, *out, *rstd, *dinp, *dweight;
} Reference;
typedef struct {
    float *residual, *out, *rstd, *dinp, *dweight;
    bool tails_kept;
} Result;

static Problem problem_create(int T, int C, int pad, bool fused) {
    size_t n = (size_t)T * C;
    Problem p;
    p.T = T, p.C = C, p.ldo = C + pad, p.ldd = C + 2 * pad, p.fused = fused;
    p.inp1 = harness_randoms<floatX>(n, 1.0f, 0.3f);
    p.inp2 = harness_randoms<floatX>(n, 0.7f, 0.1f);
    p.weight = harness_randoms<floatX>(C, 0.5f, 1.0f);
    p.dout = harness_randoms<floatX>(n, 1.0f, 0.0f);
    p.dinp = harness_randoms<floatX>(n, 1.0f, 0.0f);
    p.d_inp1 = harness_upload<floatX>(p.inp1, T, C, C);
    p.d_inp2 = harness_upload<floatX>(p.inp2, T, C, C);
    p.d_weight = harness_upload<floatX>(p.weight, 1, C, C);
    p.d_dout = harness_upload<floatX>(p.dout, T, C, p.ldd);
    p.d_dinp = harness_device<floatX>(n);
    p.d_residual = harness_device<floatX>(n);
    p.d_out = harness_device<floatX>((size_t)T * p.ldo);
    p.d_rstd = harness_device<float>(T);
    p.d_dweight = harness_device<float>(C);
    p.d_scratch = harness_device<float>(rmsnorm_scratch(C));
    return p;
}

static Reference reference_create(const Problem* p) {
    int T = p->T, C = p->C;
    size_t n = (size_t)T * C;
    Reference r = {harness_host<double>(n), harness_host<double>(n), harness_host<double>(T), harness_host<double>(n),
                   harness_host<double>(C)};
    for (int t = 0; t < T; t++) {
        double *x = r.residual + (size_t)t * C, *dinp = r.dinp + (size_t)t * C, squares = 0.0, sum = 0.0;
        const float* dout = p->dout + (size_t)t * C;
        for (int c = 0; c < C; c++) {
            size_t i = (size_t)t * C + c;
            x[c] = p->fused ? to_float(from_float<floatX>(p->inp1[i] + p->inp2[i])) : p->inp1[i];
            squares += x[c] * x[c] / C;
        }
        double rstd = 1.0 / sqrt(squares + (double)EPS);
        for (int c = 0; c < C; c++) {
            double norm = x[c] * rstd;
            r.out[(size_t)t * C + c] = norm * p->weight[c];
            r.dweight[c] += dout[c] * norm;
            sum += (double)dout[c] * p->weight[c] * norm / C;
        }
        for (int c = 0; c < C; c++)
            dinp[c] = p->dinp[(size_t)t * C + c] + rstd * ((double)dout[c] * p->weight[c] - x[c] * rstd * sum);
        r.rstd[t] = rstd;
    }
    return r;
}

// ---------------------------------------------------------------------------------------------------
// the two contenders under one signature

typedef void (*Pass)(Problem* p, cudaStream_t stream);

static void winner_forward(Problem* p, cudaStream_t stream) {
    if (p->fused)
        fused_residual_rmsnorm_forward({.out = p->d_out,
                                        .rstd = p->d_rstd,
                                        .inp1 = p->d_inp1,
                                        .weight = p->d_weight,
                                        .T = p->T,
                                        .C = p->C,
                                        .ldo = p->ldo,
                                        .eps = EPS,
                                        .residual = p->d_residual,
                                        .inp2 = p->d_inp2},
                                       stream);
    else
        rmsnorm_forward({.out = p->d_out,
                         .rstd = p->d_rstd,
                         .inp1 = p->d_inp1,
                         .weight = p->d_weight,
                         .T = p->T,
                         .C = p->C,
                         .ldo = p->ldo,
                         .eps = EPS},
                        stream);
}
static void winner_backward(Problem* p, cudaStream_t stream) {
    rmsnorm_backward({.dinp = p->d_dinp,
                      .dweight = p->d_dweight,
                      .scratch = p->d_scratch,
                      .dout = p->d_dout,
                      .inp = p->fused ? p->d_residual : p->d_inp1,
                      .weight = p->d_weight,
                      .rstd = p->d_rstd,
                      .T = p->T,
                      .C = p->C,
                      .ldd = p->ldd},
                     stream);
}
static void frozen_backward(Problem* p, cudaStream_t stream) {
    rmsnorm_backward({.dinp = p->d_dinp,
                      .dweight = NULL,
                      .scratch = NULL,
                      .dout = p->d_dout,
                      .inp = p->fused ? p->d_residual : p->d_inp1,
                      .weight = p->d_weight,
                      .rstd = p->d_rstd,
                      .T = p->T,
                      .C = p->C,
                      .ldd = p->ldd},
                     stream);
}
static void naive_forward(Problem* p, cudaStream_t stream) {
    LAUNCH(naive_forward_kernel, CEIL_DIV(p->T, 128), 128, 0, stream, p->d_out, p->d_rstd, p->d_inp1, p->d_weight, p->T,
           p->C, p->ldo);
}
static void naive_backward(Problem* p, cudaStream_t stream) {
    LAUNCH(naive_dinp_kernel, CEIL_DIV(p->T, 128), 128, 0, stream, p->d_dinp, p->d_dout, p->d_inp1, p->d_weight,
           p->d_rstd, p->T, p->C, p->ldd);
    LAUNCH(naive_dweight_kernel, CEIL_DIV(p->C, 128), 128, 0, stream, p->d_dweight, p->d_dout, p->d_inp1, p->d_rstd,
           p->T, p->C, p->ldd);
}

// ---------------------------------------------------------------------------------------------------
// checks

// Backward runs `times` times; dinp and dweight gather every one of them.
static Result run(Problem* p, Pass forward, Pass backward, int times) {
    Result r = {NULL, NULL, NULL, NULL, NULL, true};
    size_t n = (size_t)p->T * p->C;
    harness_poison(p->d_residual, n);
    harness_poison(p->d_out, (size_t)p->T * p->ldo);
    harness_poison(p->d_rstd, p->T);
    harness_poison(p->d_scratch, rmsnorm_scratch(p->C));
    p->d_dinp = harness_upload<floatX>(p->dinp, p->T, p->C, p->C);
    cudaCheck(cudaMemset(p->d_dweight, 0, p->C * sizeof(float)));
    forward(p, 0);
    for (int i = 0; i < times; i++) backward(p, 0);
    r.residual = harness_download(p->d_residual, p->T, p->C, p->C, &r.tails_kept);
    r.out = harness_download(p->d_out, p->T, p->C, p->ldo, &r.tails_kept);
    r.dinp = harness_download(p->d_dinp, p->T, p->C, p->C, &r.tails_kept);
    r.rstd = harness_fetch(p->d_rstd, p->T);
    r.dweight = harness_fetch(p->d_dweight, p->C);
    return r;
}

static void check_result(const char* name, const Problem* p, const Result* a, const Reference* b) {
    size_t n = (size_t)p->T * p->C;
    if (p->fused) harness_compare_x(harness_name(name, "residual"), a->residual, b->residual, n);
    harness_compare_x(harness_name(name, "out"), a->out, b->out, n);
    check_close(harness_name(name, "rstd"), a->rstd, b->rstd, p->T, 1e-5);
    harness_compare_x(harness_name(name, "dinp"), a->dinp, b->dinp, n);
    check_close(harness_name(name, "dweight"), a->dweight, b->dweight, p->C, 1e-5);
    check(a->tails_kept, "%s: the tails of the rows are untouched", name);
}

static bool same_bits(const Problem* p, const Result* a, const Result* b) {
    size_t n = (size_t)p->T * p->C * sizeof(float);
    return !memcmp(a->out, b->out, n) && !memcmp(a->dinp, b->dinp, n) &&
           !memcmp(a->dweight, b->dweight, p->C * sizeof(float));
}

#ifndef PRECISION_BF16
// Σ out ∘ dout as a function of one of its two arguments
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
                     {"dweight", &p->d_weight, p->weight, r->dweight, (size_t)p->C}};
    for (auto& a : arguments) {
        Slope slope = {p, a.argument, a.n};
        harness_check_slope(harness_name(name, a.name), slope_value, &slope, a.x, a.gradient, a.n, 1e-2f);
    }
}
#endif

static const struct {
    const char* name;
    int T, C, pad;
    bool fused, naive, small;
} cases[] = {
    {"T1-C8", 1, 8, 8, false, true, true},
    {"T37-C264", 37, 264, 8, true, false, true},       // the last vectors of some lanes are empty
    {"T5-C1280", 5, 1280, 64, true, false, true},      // two warps a row
    {"T301-C1024", 301, 1024, 0, false, true, false},  // every lane full
    {"T67-C4096", 67, 4096, 64, true, false, false},   // four warps a row
    {"T33-C8192", 33, 8192, 8, false, false, false},   // eight
    {"T6-C8184", 6, 8184, 8, true, false, false},
    {"T17001-C8", 17001, 8, 8, false, false,
     false},  // more rows than the most blocks of backward have at the least a block
};

static void check_case(const char* name, int T, int C, int pad, bool fused, bool naive) {
    Problem p = problem_create(T, C, pad, fused);
    Reference reference = reference_create(&p);
    Result first = run(&p, winner_forward, winner_backward, 1), second = run(&p, winner_forward, winner_backward, 1),
           twice = run(&p, winner_forward, winner_backward, 2);
    check_result(name, &p, &first, &reference);
    check(same_bits(&p, &first, &second), "%s: two equal runs give equal bits", name);
    bool doubled = true, untouched = true;
    for (int c = 0; c < C; c++) doubled = doubled && twice.dweight[c] == 2.0f * first.dweight[c];
    check(doubled, "%s: accumulating twice doubles dweight", name);
    Result frozen = run(&p, winner_forward, frozen_backward, 1);
    for (int c = 0; c < C; c++) untouched = untouched && frozen.dweight[c] == 0.0f;
    check(untouched && !memcmp(frozen.dinp, first.dinp, sizeof(float) * T * C),
          "%s: a frozen norm has the same dinp, and no dweight", name);
    if (fused) {  // --recompute takes the plain kernel where forward took the fused one
        bool tails;
        float* out = harness_download(p.d_out, T, C, p.ldo, &tails);
        harness_poison(p.d_out, (size_t)T * p.ldo);
        rmsnorm_forward({.out = p.d_out,
                         .rstd = p.d_rstd,
                         .inp1 = p.d_residual,
                         .weight = p.d_weight,
                         .T = T,
                         .C = C,
                         .ldo = p.ldo,
                         .eps = EPS},
                        0);
        check(!memcmp(out, harness_download(p.d_out, T, C, p.ldo, &tails), sizeof(float) * T * C),
              "%s: fused and plain give equal bits", name);
    }
#ifndef PRECISION_BF16
    check_slopes(name, &p, &first);
#endif
    if (naive) {
        Result r = run(&p, naive_forward, naive_backward, 1);
        check_result(harness_name("naive", name), &p, &r, &reference);
    }
    harness_release();
}

// ---------------------------------------------------------------------------------------------------
// benchmark

static void benchmark(int T, int C) {
    printf("rmsnorm " FLOATX_NAME ", %d tokens of width %d\n", T, C);
    Problem p = problem_create(T, C, 0, false);
    double tensor = (double)T * C * sizeof(floatX);
    struct {
        const char* name;
        bool fused;
        Pass pass;
        double tensors;
    } rows[] = {
        {"naive forward", false, naive_forward, 2},
        {"forward", false, winner_forward, 2},
        {"fused residual + forward", true, winner_forward, 4},
        {"naive backward", false, naive_backward, 4},
        {"backward", false, winner_backward, 4},
        {"backward, frozen", false, frozen_backward, 4},
    };
    for (auto& row : rows) {
        p.fused = row.fused;
        harness_report(row.name, row.pass, &p, row.tensors * tensor);
    }
    harness_release();
}

// ---------------------------------------------------------------------------------------------------
// what families add: a norm of the branch before it joins, a scale of the branch, an offset of the weights, no norm of
// the sum; and backward through the branch's norm, in place

typedef struct {
    const char* name;
    int T, C, pad;
    bool post, plain;  // plain: the sum continues without a norm
    float scale, offset;
} Join;
typedef struct {
    const Join* j;
    float *inp1, *inp2, *weight, *post, *g_residual, *g_out;  // host; gradients of the two outputs
    floatX *d_inp1, *d_inp2, *d_weight, *d_post, *d_residual, *d_out;
    float *d_rstd, *d_post_rstd;
} Joined;

static void join_forward(Joined* p) {
    const Join* j = p->j;
    fused_residual_rmsnorm_forward({.out = p->d_out,
                                    .rstd = p->d_rstd,
                                    .inp1 = p->d_inp1,
                                    .weight = j->plain ? NULL : p->d_weight,
                                    .T = j->T,
                                    .C = j->C,
                                    .ldo = j->C + j->pad,
                                    .eps = EPS,
                                    .residual = p->d_residual,
                                    .inp2 = p->d_inp2,
                                    .post = j->post ? p->d_post : NULL,
                                    .post_rstd = p->d_post_rstd,
                                    .scale = j->scale,
                                    .offset = j->offset},
                                   0);
}

// Σ residual ∘ g_residual + out ∘ g_out as a function of the branch
static double join_value(void* data, const float* x) {
    Joined* p = (Joined*)data;
    int T = p->j->T, C = p->j->C;
    bool tails;
    double sum = 0.0;
    p->d_inp2 = harness_upload<floatX>(x, T, C, C);
    join_forward(p);
    float *residual = harness_download(p->d_residual, T, C, C, &tails),
          *out = harness_download(p->d_out, T, C, C + p->j->pad, &tails);
    for (size_t i = 0; i < (size_t)T * C; i++)
        sum += (double)residual[i] * p->g_residual[i] + (double)out[i] * p->g_out[i];
    return sum;
}

static double rstd_of(const double* x, int C) {
    double squares = 0.0;
    for (int c = 0; c < C; c++) squares += x[c] * x[c] / C;
    return 1.0 / sqrt(squares + (double)EPS);
}
// dx (C) = through a norm of x with the weights offset + w, dweight += its part
static void reference_norm_backward(double* dx, double* dweight, const double* d, const double* x, const float* w,
                                    float offset, int C) {
    double rstd = rstd_of(x, C), mean = 0.0;
    for (int c = 0; c < C; c++) mean += d[c] * (offset + w[c]) * x[c] * rstd / C;
    for (int c = 0; c < C; c++) {
        dweight[c] += d[c] * x[c] * rstd;
        dx[c] = rstd * (d[c] * (offset + w[c]) - x[c] * rstd * mean);
    }
}

static void check_join(const Join* j) {
    int T = j->T, C = j->C;
    size_t n = (size_t)T * C;
    Joined p = {};
    p.j = j;
    p.inp1 = harness_randoms<floatX>(n, 1.0f, 0.3f), p.inp2 = harness_randoms<floatX>(n, 0.7f, 0.1f);
    p.weight = harness_randoms<floatX>(C, 0.5f, 1.0f - j->offset),
    p.post = harness_randoms<floatX>(C, 0.5f, 1.0f - j->offset);
    p.g_residual = harness_randoms<floatX>(n, 1.0f, 0.0f), p.g_out = harness_randoms<floatX>(n, 1.0f, 0.0f);
    p.d_inp1 = harness_upload<floatX>(p.inp1, T, C, C), p.d_inp2 = harness_upload<floatX>(p.inp2, T, C, C);
    p.d_weight = harness_upload<floatX>(p.weight, 1, C, C), p.d_post = harness_upload<floatX>(p.post, 1, C, C);
    p.d_residual = harness_device<floatX>(n), p.d_out = harness_device<floatX>((size_t)T * (C + j->pad));
    p.d_rstd = harness_device<float>(T), p.d_post_rstd = harness_device<float>(T);
    double *residual = harness_host<double>(n), *out = harness_host<double>(n), *dbranch = harness_host<double>(n),
           *dpost = harness_host<double>(C), *dweight = harness_host<double>(C), *y = harness_host<double>(C),
           *d = harness_host<double>(C);
    for (int t = 0; t < T; t++) {
        const size_t at = (size_t)t * C;
        for (int c = 0; c < C; c++) y[c] = p.inp2[at + c];
        double post_rstd = rstd_of(y, C);
        for (int c = 0; c < C; c++) {
            double branch = j->post ? y[c] * post_rstd * (j->offset + p.post[c]) : y[c];
            if (j->post) branch = to_float(from_float<floatX>((float)branch));
            residual[at + c] = to_float(from_float<floatX>((float)(p.inp1[at + c] + j->scale * branch)));
        }
        double rstd = rstd_of(residual + at, C);
        for (int c = 0; c < C; c++) {
            out[at + c] = j->plain ? residual[at + c] : residual[at + c] * rstd * (j->offset + p.weight[c]);
            d[c] = p.g_out[at + c];
        }
        if (!j->plain) reference_norm_backward(dbranch + at, dweight, d, residual + at, p.weight, j->offset, C);
        for (int c = 0; c < C; c++)
            d[c] = j->scale * (p.g_residual[at + c] + (j->plain ? p.g_out[at + c] : dbranch[at + c]));
        if (j->post) reference_norm_backward(dbranch + at, dpost, d, y, p.post, j->offset, C);
        else memcpy(dbranch + at, d, C * sizeof(double));
    }
    bool tails = true;
    join_forward(&p);
    harness_compare_x(harness_name(j->name, "residual"), harness_download(p.d_residual, T, C, C, &tails), residual, n);
    harness_compare_x(harness_name(j->name, "out"), harness_download(p.d_out, T, C, C + j->pad, &tails), out, n);
    check(tails, "%s: the tails of the rows are untouched", j->name);
    // backward as transformer.cu composes it: the sum's norm (or its absence), the scale, the branch's norm in place
    floatX *d_sum = harness_upload<floatX>(p.g_residual, T, C, C),
           *d_out = harness_upload<floatX>(p.g_out, T, C, C + 8), *d_branch = harness_device<floatX>(n);
    float *d_dweight = harness_copy(harness_host<float>(C), C), *d_dpost = harness_copy(harness_host<float>(C), C),
          *scratch = harness_device<float>(rmsnorm_scratch(C));
    if (j->plain) scale_rows(d_sum, d_out, 1.0f, true, T, C, C + 8, 0);
    else
        rmsnorm_backward({.dinp = d_sum,
                          .dweight = d_dweight,
                          .scratch = scratch,
                          .dout = d_out,
                          .inp = p.d_residual,
                          .weight = p.d_weight,
                          .rstd = p.d_rstd,
                          .T = T,
                          .C = C,
                          .ldd = C + 8,
                          .offset = j->offset},
                         0);
    scale_rows(d_branch, d_sum, j->scale, false, T, C, C, 0);
    if (j->post)
        rmsnorm_backward({.dinp = d_branch,
                          .dweight = d_dpost,
                          .scratch = scratch,
                          .dout = d_branch,
                          .inp = p.d_inp2,
                          .weight = p.d_post,
                          .rstd = p.d_post_rstd,
                          .T = T,
                          .C = C,
                          .ldd = C,
                          .offset = j->offset,
                          .overwrite = true},
                         0);
    float* got = harness_download(d_branch, T, C, C, &tails);
    harness_compare_x(harness_name(j->name, "gradient of the branch"), got, dbranch, n);
    if (!j->plain) harness_compare_x(harness_name(j->name, "dweight"), harness_fetch(d_dweight, C), dweight, C);
    if (j->post)
        harness_compare_x(harness_name(j->name, "dweight of the branch's norm"), harness_fetch(d_dpost, C), dpost, C);
    if (sizeof(floatX) == sizeof(float))
        harness_check_slope(harness_name(j->name, "the branch"), join_value, &p, p.inp2, got, n, 1e-2f);
    harness_release();
}

static const Join joins[] = {
    {"offset-T5-C264", 5, 264, 8, false, false, 1.0f, 1.0f},
    {"both-T37-C72", 37, 72, 16, true, false, 1.0f, 1.0f},       // Gemma
    {"after-T9-C2048", 9, 2048, 8, true, true, 1.0f, 0.0f},      // OLMo 2
    {"both-T7-C3584", 7, 3584, 8, true, false, 1.0f, 1.0f},      // Gemma 2 9B
    {"scaled-T21-C640", 21, 640, 0, false, false, 0.22f, 0.0f},  // Granite
    {"all-T3-C8184", 3, 8184, 8, true, false, 0.5f, 1.0f},
};

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int T = 16384, C = 4096;
#else
    int T = 512, C = 4096;
#endif
    const HarnessOption options[] = {{"--tokens", &T, 1, "rows"},
                                     {"--width", &C, 8, "elements of a row, a multiple of 8"}};
    harness_options(argc, argv, options, 2);
    if (!harness_check) {
        benchmark(T, C / VEC * VEC);
        return 0;
    }
    for (auto& c : cases)
        if (c.small || !harness_small) check_case(c.name, c.T, c.C, c.pad, c.fused, c.naive);
    for (const Join& j : joins)
        if (!harness_small || j.C < 1000) check_join(&j);
    return check_report();
}
