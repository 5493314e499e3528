/*
RMSnorm of queries and keys with their rotary positions: the naive kernels (one thread per norm), the winner of
seal_kernels, and a double-precision reference fed the same rounded inputs.

  qk_norm --check [--small]    against the reference, backward also by finite differences (--small: for sanitizers)
  qk_norm [--tokens N] [--heads N] [--kv-heads N] [--head-size N] [--all 1]
                               speed, with the share of a plain copy's bandwidth
*/
#include "harness.h"
#include "kernels.h"

#define EPS 1e-6f

// ---------------------------------------------------------------------------------------------------
// naive kernel: a thread walks what its norm spans; forward only, as one would first write it

static __global__ void naive_kernel(floatX* out, QkNormArgs args) {
    int norms = args.all ? 2 : args.NH + args.NKV, i = blockIdx.x * blockDim.x + threadIdx.x, t = i / norms,
        n = i % norms;
    if (t >= args.T) return;
    int HS = args.HS, begin = args.all ? n * args.NH * HS : n * HS, heads = args.all ? (n ? args.NKV : args.NH) : 1;
    const floatX* weight = (args.all ? n == 0 : n < args.NH) ? args.q_weight : args.k_weight;
    const floatX* x = args.inp + (size_t)t * args.ld + begin;
    floatX* y = out + (size_t)t * args.ld + begin;
    float squares = 0.0f;
    for (int e = 0; e < heads * HS; e++) squares += to_float(x[e]) * to_float(x[e]);
    float rstd = 1.0f / sqrtf(squares / (heads * HS) + args.eps);
    for (int h = 0; h < heads; h++)
        for (int e = 0; e < HS / 2; e++) {
            int low = h * HS + e, high = low + HS / 2;
            float a = to_float(x[low]) * rstd * (args.offset + to_float(weight[low])),
                  b = to_float(x[high]) * rstd * (args.offset + to_float(weight[high]));
            const float* turn = args.cos_sin + ((size_t)args.positions[t] * (HS / 2) + e) * 2;
            y[low] = from_float<floatX>(a * turn[0] - b * turn[1]);
            y[high] = from_float<floatX>(b * turn[0] + a * turn[1]);
        }
    int width = args.NKV * HS, values = (args.NH + args.NKV) * HS;
    for (int c = n; c < width; c += norms)
        out[(size_t)t * args.ld + values + c] = args.inp[(size_t)t * args.ld + values + c];
}

// ---------------------------------------------------------------------------------------------------
// one problem

typedef struct {
    const char* name;
    int T, NH, NKV, HS;
    bool all, turned;
    float offset;
    int pad;
    bool small;
} Case;
typedef struct {
    Case c;
    QkNormArgs args;
    int P, width, q_width, k_width;  // widths of the weights
    int* positions;
    float *qkv, *dout, *q_weight, *k_weight, *cos_sin;
    floatX *d_qkv, *d_out, *d_dqkv;
    float *d_dq, *d_dk, *d_scratch;
} Problem;

static Problem problem_create(const Case* c) {
    Problem p = {};
    p.c = *c;
    p.P = 29, p.width = (c->NH + 2 * c->NKV) * c->HS;
    p.q_width = (c->all ? c->NH : 1) * c->HS, p.k_width = (c->all ? c->NKV : 1) * c->HS;
    int half = c->HS / 2;
    p.positions = harness_host<int>(c->T);
    for (int t = 0; t < c->T; t++) p.positions[t] = t == c->T - 1 ? p.P - 1 : t % 11;
    p.cos_sin = harness_host<float>((size_t)p.P * c->HS);
    for (int i = 0; i < p.P * half; i++) {
        double angle = (i / half) * pow(10000.0, -(double)(i % half) / half);
        p.cos_sin[2 * i] = (float)(1.2 * cos(angle));
        p.cos_sin[2 * i + 1] = (float)(1.2 * sin(angle));
    }
    p.qkv = harness_randoms<floatX>((size_t)c->T * p.width, 1.0f, 0.2f);
    p.dout = harness_randoms<floatX>((size_t)c->T * p.width, 1.0f, 0.0f);
    p.q_weight = harness_randoms<floatX>(p.q_width, 0.4f, 1.0f - c->offset);
    p.k_weight = harness_randoms<floatX>(p.k_width, 0.4f, 1.0f - c->offset);
    int ld = p.width + c->pad;
    p.d_qkv = harness_upload<floatX>(p.qkv, c->T, p.width, ld);
    p.d_out = harness_device<floatX>((size_t)c->T * ld);
    p.d_dq = harness_device<float>(p.q_width);
    p.d_dk = harness_device<float>(p.k_width);
    p.d_scratch = harness_device<float>(qk_norm_scratch(c->NH, c->NKV, c->HS, c->all));
    p.args.inp = p.d_qkv;
    p.args.q_weight = harness_upload<floatX>(p.q_weight, 1, p.q_width, p.q_width);
    p.args.k_weight = harness_upload<floatX>(p.k_weight, 1, p.k_width, p.k_width);
    p.args.rstd = harness_device<float>((size_t)c->T * (c->NH + c->NKV));
    p.args.positions = harness_copy(p.positions, c->T);
    p.args.cos_sin = c->turned ? harness_copy(p.cos_sin, (size_t)p.P * c->HS) : NULL;
    p.args.T = c->T, p.args.NH = c->NH, p.args.NKV = c->NKV, p.args.HS = c->HS, p.args.ld = ld;
    p.args.all = c->all, p.args.eps = EPS, p.args.offset = c->offset;
    return p;
}

typedef void (*Pass)(Problem* p, cudaStream_t stream);
static void winner_forward(Problem* p, cudaStream_t stream) { qk_norm_rope_forward(p->d_out, p->args, stream); }
static void frozen_backward(Problem* p, cudaStream_t stream) {
    qk_norm_rope_backward(p->d_dqkv, NULL, NULL, NULL, p->args, stream);
}
static void winner_backward(Problem* p, cudaStream_t stream) {
    qk_norm_rope_backward(p->d_dqkv, p->d_dq, p->d_dk, p->d_scratch, p->args, stream);
}
static void naive_forward(Problem* p, cudaStream_t stream) {
    int norms = p->c.all ? 2 : p->c.NH + p->c.NKV;
    LAUNCH(naive_kernel, CEIL_DIV(p->c.T * norms, 64), 64, 0, stream, p->d_out, p->args);
}

// ---------------------------------------------------------------------------------------------------
// checks

typedef struct {
    double *out, *dqkv, *dq, *dk;
} Reference;

// A norm over elements [begin, begin + width) of token t and its turn, forward and backward
static void reference_norm(const Problem* p, Reference* r, int t, int begin, int width, const float* weight,
                           double* dw) {
    int HS = p->c.HS, half = HS / 2;
    size_t at = (size_t)t * p->width + begin;
    double squares = 0.0, mean = 0.0, *d = (double*)calloc(width, sizeof(double));
    for (int e = 0; e < width; e++) squares += (double)p->qkv[at + e] * p->qkv[at + e] / width;
    double rstd = 1.0 / sqrt(squares + (double)EPS);
    for (int e = 0; e < width; e++) {
        int i = e % HS % half, partner = e % HS < half ? e + half : e - half;
        const float* turn = p->cos_sin + ((size_t)p->positions[t] * half + i) * 2;
        double c = p->c.turned ? turn[0] : 1.0, s = p->c.turned ? turn[1] : 0.0, sign = e % HS < half ? -1.0 : 1.0;
        double mine = p->qkv[at + e] * rstd * (p->c.offset + weight[e]),
               other = p->qkv[at + partner] * rstd * (p->c.offset + weight[partner]);
        r->out[at + e] = mine * c + sign * other * s;
        d[e] = p->dout[at + e] * c - sign * p->dout[at + partner] * s;
        dw[e] += d[e] * p->qkv[at + e] * rstd;
        mean += d[e] * (p->c.offset + weight[e]) * p->qkv[at + e] * rstd / width;
    }
    for (int e = 0; e < width; e++)
        r->dqkv[at + e] = rstd * (d[e] * (p->c.offset + weight[e]) - p->qkv[at + e] * rstd * mean);
    free(d);
}

static Reference reference_create(const Problem* p) {
    const Case* c = &p->c;
    size_t n = (size_t)c->T * p->width;
    Reference r = {harness_host<double>(n), harness_host<double>(n), harness_host<double>(p->q_width),
                   harness_host<double>(p->k_width)};
    for (size_t i = 0; i < n; i++) {
        r.out[i] = p->qkv[i];
        r.dqkv[i] = p->dout[i];
    }
    for (int t = 0; t < c->T; t++) {
        int q = c->NH * c->HS;
        for (int h = 0; h < (c->all ? 1 : c->NH); h++)
            reference_norm(p, &r, t, h * c->HS, c->all ? q : c->HS, p->q_weight, r.dq);
        for (int h = 0; h < (c->all ? 1 : c->NKV); h++)
            reference_norm(p, &r, t, q + h * c->HS, c->all ? c->NKV * c->HS : c->HS, p->k_weight, r.dk);
    }
    return r;
}

typedef struct {
    float *out, *dqkv, *dq, *dk;
} Result;
static Result run(Problem* p, Pass forward, Pass backward, bool* tails) {
    const Case* c = &p->c;
    harness_poison(p->d_out, (size_t)c->T * p->args.ld);
    harness_poison(p->args.rstd, (size_t)c->T * (c->NH + c->NKV));
    harness_poison(p->d_scratch, qk_norm_scratch(c->NH, c->NKV, c->HS, c->all));
    cudaCheck(cudaMemset(p->d_dq, 0, p->q_width * sizeof(float)));
    cudaCheck(cudaMemset(p->d_dk, 0, p->k_width * sizeof(float)));
    p->d_dqkv = harness_upload<floatX>(p->dout, c->T, p->width, p->args.ld);
    forward(p, 0);
    if (backward) backward(p, 0);
    return {harness_download(p->d_out, c->T, p->width, p->args.ld, tails),
            harness_download(p->d_dqkv, c->T, p->width, p->args.ld, tails), harness_fetch(p->d_dq, p->q_width),
            harness_fetch(p->d_dk, p->k_width)};
}

// The output's sum with dout as a function of qkv, or of the weights
static double value_of(Problem* p) {
    bool tails;
    double sum = 0.0;
    winner_forward(p, 0);
    float* out = harness_download(p->d_out, p->c.T, p->width, p->args.ld, &tails);
    for (size_t i = 0; i < (size_t)p->c.T * p->width; i++) sum += (double)out[i] * p->dout[i];
    return sum;
}
static double slope_value(void* data, const float* x) {
    Problem* p = (Problem*)data;
    p->args.inp = harness_upload<floatX>(x, p->c.T, p->width, p->args.ld);
    double value = value_of(p);
    p->args.inp = p->d_qkv;
    return value;
}
static double weight_value(void* data, const float* x) {
    Problem* p = (Problem*)data;
    const floatX* before = p->args.q_weight;
    p->args.q_weight = harness_upload<floatX>(x, 1, p->q_width, p->q_width);
    double value = value_of(p);
    p->args.q_weight = before;
    return value;
}

static void check_case(const Case* c) {
    Problem p = problem_create(c);
    Reference r = reference_create(&p);
    size_t n = (size_t)c->T * p.width;
    bool tails = true;
    Result a = run(&p, winner_forward, winner_backward, &tails), b = run(&p, winner_forward, winner_backward, &tails),
           frozen = run(&p, winner_forward, frozen_backward, &tails);
    harness_compare_x(harness_name(c->name, "out"), a.out, r.out, n);
    harness_compare_x(harness_name(c->name, "dqkv"), a.dqkv, r.dqkv, n);
    check_close(harness_name(c->name, "gradient of the queries' weight"), a.dq, r.dq, p.q_width, 1e-5);
    check_close(harness_name(c->name, "gradient of the keys' weight"), a.dk, r.dk, p.k_width, 1e-5);
    check(tails, "%s: the tails of the rows are untouched", c->name);
    check(!memcmp(a.out, b.out, n * sizeof(float)) && !memcmp(a.dqkv, b.dqkv, n * sizeof(float)) &&
              !memcmp(a.dq, b.dq, p.q_width * sizeof(float)) && !memcmp(a.dk, b.dk, p.k_width * sizeof(float)),
          "%s: two equal runs give equal bits", c->name);
    check(!memcmp(a.dqkv, frozen.dqkv, n * sizeof(float)), "%s: frozen weights change nothing of dqkv", c->name);
    run(&p, winner_forward, NULL, &tails);
    winner_backward(&p, 0);
    p.d_dqkv = harness_upload<floatX>(p.dout, c->T, p.width, p.args.ld);
    winner_backward(&p, 0);
    float* twice = harness_fetch(p.d_dq, p.q_width);
    bool doubled = true;
    for (int i = 0; i < p.q_width; i++) doubled = doubled && twice[i] == 2.0f * a.dq[i];
    check(doubled, "%s: accumulating twice doubles", c->name);
    if (sizeof(floatX) == sizeof(float)) {
        harness_check_slope(harness_name(c->name, "dqkv"), slope_value, &p, p.qkv, a.dqkv, n, 1e-2f);
        harness_check_slope(harness_name(c->name, "weight"), weight_value, &p, p.q_weight, a.dq, p.q_width, 1e-2f);
    }
    if (c->turned) {
        Result naive = run(&p, naive_forward, NULL, &tails);
        harness_compare_x(harness_name(c->name, "naive out"), naive.out, r.out, n);
    }
    harness_release();
}

static const Case cases[] = {
    {"T1-NH1-HS32", 1, 1, 1, 32, false, true, 0.0f, 8, true},
    {"T37-NH6-NKV2-HS64", 37, 6, 2, 64, false, true, 0.0f, 64, true},
    {"T5-NH2-NKV1-HS256-offset", 5, 2, 1, 256, false, true, 1.0f, 8, true},  // Gemma 3
    {"T19-NH3-NKV1-HS80", 19, 3, 1, 80, false, true, 0.0f, 0, false},
    {"T23-NH4-NKV2-HS96", 23, 4, 2, 96, false, true, 0.0f, 8, false},
    {"T301-NH16-NKV8-HS128", 301, 16, 8, 128, false, true, 0.0f, 8, false},  // Qwen3
    {"T21-NH3-NKV3-HS128-all", 21, 3, 3, 128, true, true, 0.0f, 8, true},    // OLMo 2
    {"T70-NH5-NKV1-HS32-all", 70, 5, 1, 32, true, true, 0.0f, 24, false},
    {"T9-NH2-NKV1-HS64-unturned", 9, 2, 1, 64, false, false, 0.0f, 8, true},
};

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int T = 16384, all = 0;
#else
    int T = 512, all = 0;
#endif
    Case c = {"benchmark", 0, 16, 8, 128, false, true, 0.0f, 0, false};  // Qwen3-0.6B
    const HarnessOption options[] = {{"--tokens", &T, 1, "rows"},
                                     {"--heads", &c.NH, 1, "query heads"},
                                     {"--kv-heads", &c.NKV, 1, "key-value heads"},
                                     {"--head-size", &c.HS, 16, "elements of a head, a multiple of 16"},
                                     {"--all", &all, 0, "1: one norm over all heads"}};
    harness_options(argc, argv, options, 5);
    if (harness_check) {
        for (const Case& one : cases)
            if (one.small || !harness_small) check_case(&one);
        return check_report();
    }
    if (c.HS % 16) {
        fprintf(stderr, "qk_norm: --head-size is a multiple of 16\n");
        return 2;
    }
    c.T = T, c.all = all;
    Problem p = problem_create(&c);
    bool tails;
    run(&p, winner_forward, NULL, &tails);
    double row = (double)T * p.width * sizeof(floatX), turned = (double)T * (c.NH + c.NKV) * c.HS * sizeof(floatX);
    printf("norm and rotary positions " FLOATX_NAME ", %d tokens, %d + %d heads of %d elements%s\n", T, c.NH, c.NKV,
           c.HS, c.all ? ", one norm over all" : "");
    struct {
        const char* name;
        Pass pass;
        double bytes;
    } rows[] = {{"naive forward", naive_forward, 2 * row},
                {"forward", winner_forward, 2 * row},
                {"backward, frozen", frozen_backward, 3 * turned},
                {"backward", winner_backward, 5 * turned}};
    for (auto& r : rows) {
        harness_report(r.name, r.pass, &p, r.bytes);
    }
    harness_release();
    return 0;
}
