/*
Rotary positions, forward and backward: the naive kernel (one thread per pair), the winner of seal_kernels, and a
double-precision reference fed the same rounded inputs.

  rope --check [--small]    against the reference, backward also by finite differences (--small: for sanitizers)
  rope [--tokens N] [--heads N] [--kv-heads N] [--head-size N] [--rotary N]
                            speed, with the share of a plain copy's bandwidth
*/
#include "harness.h"
#include "kernels.h"

// ---------------------------------------------------------------------------------------------------
// naive kernel

static __global__ void naive_kernel(floatX* qkv, const int* positions, const float* cos_sin, int T, int n_heads, int HS,
                                    int half, int ld, float sign) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    int pair = (int)(i % half), head = (int)(i / half % n_heads), t = (int)(i / half / n_heads);
    if (t >= T) return;
    floatX* p = qkv + (size_t)t * ld + head * HS + pair;
    const float* turn = cos_sin + ((size_t)positions[t] * half + pair) * 2;
    float a = to_float(p[0]), b = to_float(p[half]), s = sign * turn[1];
    p[0] = from_float<floatX>(a * turn[0] - b * s);
    p[half] = from_float<floatX>(b * turn[0] + a * s);
}

// ---------------------------------------------------------------------------------------------------
// one problem

typedef struct {
    int NH, NKV, HS, rotary;
} Heads;
typedef struct {
    Heads h;
    int T, P, width, ld;
    int* positions;
    float *qkv, *dout, *cos_sin;  // (T, width), the gradient of the turned rows, (P, rotary/2, 2)
    floatX* d_qkv;
    int* d_positions;
    float* d_cos_sin;
} Problem;

// Positions restart every few tokens, as in a pack, and the last of the table's is among them; the table has a
// factor, as LongRoPE's has.
static Problem problem_create(int T, Heads h, int pad) {
    Problem p;
    p.h = h, p.T = T, p.P = 29, p.width = (h.NH + 2 * h.NKV) * h.HS, p.ld = p.width + pad;
    int half = h.rotary / 2;
    p.positions = harness_host<int>(T);
    for (int t = 0; t < T; t++) p.positions[t] = t == T - 1 ? p.P - 1 : t % 11;
    p.cos_sin = harness_host<float>((size_t)p.P * h.rotary);
    for (int i = 0; i < p.P * half; i++) {
        double angle = (i / half) * pow(10000.0, -(double)(i % half) / half);
        p.cos_sin[2 * i] = (float)(1.2 * cos(angle));
        p.cos_sin[2 * i + 1] = (float)(1.2 * sin(angle));
    }
    p.qkv = harness_randoms<floatX>((size_t)T * p.width, 1.0f, 0.0f);
    p.dout = harness_randoms<floatX>((size_t)T * p.width, 1.0f, 0.0f);
    p.d_positions = harness_copy(p.positions, T);
    p.d_cos_sin = harness_copy(p.cos_sin, (size_t)p.P * h.rotary);
    p.d_qkv = harness_upload<floatX>(p.qkv, T, p.width, p.ld);
    return p;
}

typedef void (*Pass)(Problem* p, cudaStream_t stream);
static void winner_forward(Problem* p, cudaStream_t stream) {
    rope_forward(p->d_qkv, p->d_positions, p->d_cos_sin, p->T, p->h.NH, p->h.NKV, p->h.HS, p->h.rotary, p->ld, stream);
}
static void winner_backward(Problem* p, cudaStream_t stream) {
    rope_backward(p->d_qkv, p->d_positions, p->d_cos_sin, p->T, p->h.NH, p->h.NKV, p->h.HS, p->h.rotary, p->ld, stream);
}
static void naive(Problem* p, float sign, cudaStream_t stream) {
    size_t n = (size_t)p->T * (p->h.NH + p->h.NKV) * (p->h.rotary / 2);
    LAUNCH(naive_kernel, (unsigned)CEIL_DIV(n, 256), 256, 0, stream, p->d_qkv, p->d_positions, p->d_cos_sin, p->T,
           p->h.NH + p->h.NKV, p->h.HS, p->h.rotary / 2, p->ld, sign);
}
static void naive_forward(Problem* p, cudaStream_t stream) { naive(p, 1.0f, stream); }
static void naive_backward(Problem* p, cudaStream_t stream) { naive(p, -1.0f, stream); }

// ---------------------------------------------------------------------------------------------------
// checks

// out = what the rows of x become; sign −1: backward
static double* reference(const Problem* p, const float* x, int sign) {
    double* out = harness_host<double>((size_t)p->T * p->width);
    int half = p->h.rotary / 2;
    for (size_t i = 0; i < (size_t)p->T * p->width; i++) {
        int t = (int)(i / p->width), head = (int)(i % p->width) / p->h.HS, e = (int)(i % p->width) % p->h.HS;
        if (head >= p->h.NH + p->h.NKV || e >= p->h.rotary) {
            out[i] = x[i];
            continue;
        }
        const float* turn = p->cos_sin + ((size_t)p->positions[t] * half + e % half) * 2;
        double c = turn[0], s = sign * turn[1];
        out[i] = e < half ? x[i] * c - x[i + half] * s : x[i] * c + x[i - half] * s;
    }
    return out;
}

static float* run(Problem* p, Pass pass, const float* x, bool* tails_kept) {
    p->d_qkv = harness_upload<floatX>(x, p->T, p->width, p->ld);
    pass(p, 0);
    return harness_download(p->d_qkv, p->T, p->width, p->ld, tails_kept);
}

// Values, and what follows `rotary` in queries and keys, keep their bits.
static bool rest_kept(const Problem* p, const float* before, const float* after) {
    bool kept = true;
    for (size_t i = 0; i < (size_t)p->T * p->width; i++) {
        int head = (int)(i % p->width) / p->h.HS, e = (int)(i % p->width) % p->h.HS;
        if (head >= p->h.NH + p->h.NKV || e >= p->h.rotary)
            kept = kept && !memcmp(&before[i], &after[i], sizeof(float));
    }
    return kept;
}

static double slope_value(void* data, const float* x) {
    Problem* p = (Problem*)data;
    bool tails = true;
    double sum = 0.0;
    float* out = run(p, winner_forward, x, &tails);
    for (size_t i = 0; i < (size_t)p->T * p->width; i++) sum += (double)out[i] * p->dout[i];
    return sum;
}

static void check_case(const char* name, int T, Heads h, int pad, Pass forward, Pass backward) {
    Problem p = problem_create(T, h, pad);
    size_t n = (size_t)T * p.width;
    bool tails_kept = true;
    float *out = run(&p, forward, p.qkv, &tails_kept), *again = run(&p, forward, p.qkv, &tails_kept),
          *dinp = run(&p, backward, p.dout, &tails_kept);
    harness_compare_x(harness_name(name, "forward"), out, reference(&p, p.qkv, 1), n);
    harness_compare_x(harness_name(name, "backward"), dinp, reference(&p, p.dout, -1), n);
    check(rest_kept(&p, p.qkv, out) && rest_kept(&p, p.dout, dinp),
          "%s: values and the heads' other elements keep their bits", name);
    check(tails_kept, "%s: the tails of the rows are untouched", name);
    check(!memcmp(out, again, n * sizeof(float)), "%s: two equal runs give equal bits", name);
    if (sizeof(floatX) == sizeof(float) && forward == winner_forward)
        harness_check_slope(harness_name(name, "dqkv"), slope_value, &p, p.qkv, dinp, n, 1e-2f);
    harness_release();
}

static const struct {
    const char* name;
    int T;
    Heads h;
    int pad;
    bool small;
} cases[] = {
    {"T1-NH1-HS32", 1, {1, 1, 32, 32}, 8, true},
    {"T37-NH6-NKV2-HS32", 37, {6, 2, 32, 32}, 64, true},     // GQA
    {"T23-NH3-HS80-rotary20", 23, {3, 3, 80, 20}, 0, true},  // Pythia-2.8B's heads: halves of 10
    {"T5-NH2-HS64-rotary16", 5, {2, 2, 64, 16}, 8, true},    // the smaller Pythias': one vector a half
    {"T13-NH3-NKV1-HS96", 13, {3, 1, 96, 96}, 8, false},     // Phi-3's
    {"T131-NH9-NKV3-HS128", 131, {9, 3, 128, 128}, 8, false},
    {"T7-NH2-NKV1-HS32-rotary0", 7, {2, 1, 32, 0}, 8, false},
};

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int T = 16384;
#else
    int T = 512;
#endif
    Heads h = {32, 8, 128, 128};
    const HarnessOption options[] = {{"--tokens", &T, 1, "rows"},
                                     {"--heads", &h.NH, 1, "query heads"},
                                     {"--kv-heads", &h.NKV, 1, "key-value heads"},
                                     {"--head-size", &h.HS, 8, "elements of a head, a multiple of 8"},
                                     {"--rotary", &h.rotary, 2, "elements of a head that turn, even"}};
    harness_options(argc, argv, options, 5);
    if (!harness_check) {
        if (h.HS % VEC || h.rotary % 2 || h.rotary > h.HS) {
            fprintf(stderr, "rope: a head size that is a multiple of %d and an even --rotary up to it are needed\n",
                    VEC);
            return 2;
        }
        Problem p = problem_create(T, h, 0);
        double bytes = 2.0 * T * (h.NH + h.NKV) * h.rotary * sizeof(floatX);
        printf("rope " FLOATX_NAME ", %d tokens, %d + %d heads of %d elements, %d turned\n", T, h.NH, h.NKV, h.HS,
               h.rotary);
        struct {
            const char* name;
            Pass pass;
        } rows[] = {{"naive forward", naive_forward}, {"forward", winner_forward}, {"backward", winner_backward}};
        for (auto& row : rows) {
            harness_report(row.name, row.pass, &p, bytes);
        }
        harness_release();
        return 0;
    }
    for (auto& c : cases) {
        if (harness_small && !c.small) continue;
        check_case(c.name, c.T, c.h, c.pad, winner_forward, winner_backward);
        if (c.small)
            check_case(c.T == 1    ? "naive T1"
                       : c.T == 37 ? "naive T37"
                       : c.T == 23 ? "naive T23"
                                   : "naive T5",
                       c.T, c.h, c.pad, naive_forward, naive_backward);
    }
    return check_report();
}
