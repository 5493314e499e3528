/*
SwiGLU and GeGLU, forward and backward: the naive kernels (one thread per element), the winner of seal_kernels, and a
double-precision reference fed the same rounded inputs.

  glu --check [--small]           against the reference, backward also by finite differences (--small: for sanitizers)
  glu [--tokens N] [--width N]    speed, with the share of a plain copy's bandwidth
*/
#include "harness.h"
#include "kernels.h"

// ---------------------------------------------------------------------------------------------------
// naive kernels

typedef enum { SWIGLU, GEGLU } Unit;
static const char* const unit_names[] = {"swiglu", "geglu"};

// f(x) and f′(x) by their formulas, in float for the naive kernels, in double for the reference.
template <typename Real> static inline __host__ __device__ Real formula(Unit unit, Real x, Real* slope) {
    const Real one = 1, half = (Real)0.5, root = (Real)0.79788456080286535588, cubic = (Real)0.044715;
    if (unit == SWIGLU) {
        Real s = one / (one + exp(-x));
        *slope = s + x * s * (one - s);
        return x * s;
    }
    Real t = tanh(root * (x + cubic * x * x * x));
    *slope = half * (one + t) + half * x * (one - t * t) * root * (one + 3 * cubic * x * x);
    return half * x * (one + t);
}

static __global__ void naive_forward_kernel(Unit unit, floatX* out, const floatX* gate_up, int T, int FF, int ldo) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)T * FF) return;
    const floatX* p = gate_up + i / FF * 2 * FF + i % FF;
    float slope;
    out[i / FF * ldo + i % FF] = from_float<floatX>(formula(unit, to_float(p[0]), &slope) * to_float(p[FF]));
}

static __global__ void naive_backward_kernel(Unit unit, floatX* dgate_up, const floatX* dout, const floatX* gate_up,
                                             int T, int FF, int ldd) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)T * FF) return;
    size_t at = i / FF * 2 * FF + i % FF;
    float up = to_float(gate_up[at + FF]), d = to_float(dout[i / FF * ldd + i % FF]), slope,
          activated = formula(unit, to_float(gate_up[at]), &slope);
    dgate_up[at] = from_float<floatX>(d * up * slope);
    dgate_up[at + FF] = from_float<floatX>(d * activated);
}

// ---------------------------------------------------------------------------------------------------
// one problem

typedef struct {
    Unit unit;
    int T, FF, ld;
    float *gate_up, *dout;
    floatX *d_gate_up, *d_dout, *d_out, *d_dgate_up;
} Problem;

static Problem problem_create(Unit unit, int T, int FF, int pad) {
    Problem p = {unit,
                 T,
                 FF,
                 FF + pad,
                 harness_randoms<floatX>((size_t)T * 2 * FF, 2.0f, 0.0f),
                 harness_randoms<floatX>((size_t)T * FF, 1.0f, 0.0f),
                 NULL,
                 NULL,
                 NULL,
                 NULL};
    p.d_gate_up = harness_upload<floatX>(p.gate_up, T, 2 * FF, 2 * FF);
    p.d_dout = harness_upload<floatX>(p.dout, T, FF, p.ld);
    p.d_out = harness_device<floatX>((size_t)T * p.ld);
    p.d_dgate_up = harness_device<floatX>((size_t)T * 2 * FF);
    return p;
}

typedef void (*Pass)(Problem* p, cudaStream_t stream);
static void winner_forward(Problem* p, cudaStream_t stream) {
    (p->unit == SWIGLU ? swiglu_forward : geglu_forward)(p->d_out, p->d_gate_up, p->T, p->FF, p->ld, stream);
}
static void winner_backward(Problem* p, cudaStream_t stream) {
    (p->unit == SWIGLU ? swiglu_backward : geglu_backward)(p->d_dgate_up, p->d_dout, p->d_gate_up, p->T, p->FF, p->ld,
                                                           stream);
}
static void naive_forward(Problem* p, cudaStream_t stream) {
    LAUNCH(naive_forward_kernel, (unsigned)CEIL_DIV((size_t)p->T * p->FF, 256), 256, 0, stream, p->unit, p->d_out,
           p->d_gate_up, p->T, p->FF, p->ld);
}
static void naive_backward(Problem* p, cudaStream_t stream) {
    LAUNCH(naive_backward_kernel, (unsigned)CEIL_DIV((size_t)p->T * p->FF, 256), 256, 0, stream, p->unit, p->d_dgate_up,
           p->d_dout, p->d_gate_up, p->T, p->FF, p->ld);
}

// ---------------------------------------------------------------------------------------------------
// checks

typedef struct {
    float *out, *dgate_up;
    bool tails_kept;
} Result;
static Result run(Problem* p, Pass forward, Pass backward) {
    Result r = {NULL, NULL, true};
    harness_poison(p->d_out, (size_t)p->T * p->ld);
    harness_poison(p->d_dgate_up, (size_t)p->T * 2 * p->FF);
    forward(p, 0);
    backward(p, 0);
    r.out = harness_download(p->d_out, p->T, p->FF, p->ld, &r.tails_kept);
    r.dgate_up = harness_download(p->d_dgate_up, p->T, 2 * p->FF, 2 * p->FF, &r.tails_kept);
    return r;
}

static double slope_value(void* data, const float* x) {
    Problem* p = (Problem*)data;
    floatX* before = p->d_gate_up;
    bool tails;
    double sum = 0.0;
    p->d_gate_up = harness_upload<floatX>(x, p->T, 2 * p->FF, 2 * p->FF);
    winner_forward(p, 0);
    float* out = harness_download(p->d_out, p->T, p->FF, p->ld, &tails);
    for (size_t i = 0; i < (size_t)p->T * p->FF; i++) sum += (double)out[i] * p->dout[i];
    p->d_gate_up = before;
    return sum;
}

static void check_case(const char* name, Unit unit, int T, int FF, int pad, Pass forward, Pass backward) {
    Problem p = problem_create(unit, T, FF, pad);
    size_t n = (size_t)T * FF;
    double *out = harness_host<double>(n), *dgate_up = harness_host<double>(2 * n);
    for (size_t i = 0; i < n; i++) {
        size_t at = i / FF * 2 * FF + i % FF;
        double up = p.gate_up[at + FF], slope, activated = formula(unit, (double)p.gate_up[at], &slope);
        out[i] = activated * up;
        dgate_up[at] = p.dout[i] * up * slope;
        dgate_up[at + FF] = p.dout[i] * activated;
    }
    Result first = run(&p, forward, backward), second = run(&p, forward, backward);
    harness_compare_x(harness_name(name, "out"), first.out, out, n);
    harness_compare_x(harness_name(name, "dgate_up"), first.dgate_up, dgate_up, 2 * n);
    check(first.tails_kept, "%s: the tails of the rows are untouched", name);
    check(!memcmp(first.out, second.out, n * sizeof(float)) &&
              !memcmp(first.dgate_up, second.dgate_up, 2 * n * sizeof(float)),
          "%s: two equal runs give equal bits", name);
    if (forward == winner_forward) {
        floatX* d = harness_upload<floatX>(p.gate_up, T, 2 * FF, 2 * FF);
        (unit == SWIGLU ? swiglu_backward : geglu_backward)(d, p.d_dout, d, T, FF, p.ld, 0);
        bool tails;
        check(!memcmp(harness_download(d, T, 2 * FF, 2 * FF, &tails), first.dgate_up, 2 * n * sizeof(float)),
              "%s: in place gives the same bits", name);
        if (sizeof(floatX) == sizeof(float))
            harness_check_slope(harness_name(name, "dgate_up"), slope_value, &p, p.gate_up, first.dgate_up, 2 * n,
                                1e-2f);
    }
    harness_release();
}

// Far from zero f(x) is x or 0 and its slope 1 or 0, without an infinity on the way; a NaN stays a NaN.
static void check_limits(Unit unit) {
    const float gate[8] = {1e30f, -1e30f, 200.0f, -200.0f, NAN, 0.0f, 88.5f, -88.5f},
                value[8] = {1e30f, 0.0f, 200.0f, 0.0f, NAN, 0.0f, 88.5f, 0.0f};
    const float slope[8] = {1.0f, 0.0f, 1.0f, 0.0f, NAN, 0.5f, 1.0f, 0.0f}, one[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    float row[16];
    for (int i = 0; i < 8; i++) row[i] = gate[i], row[i + 8] = 1.0f;
    floatX *d_row = harness_upload<floatX>(row, 1, 16, 16), *d_out = harness_device<floatX>(8),
           *d_one = harness_upload<floatX>(one, 1, 8, 8), *d_slope = harness_device<floatX>(16);
    bool tails;
    (unit == SWIGLU ? swiglu_forward : geglu_forward)(d_out, d_row, 1, 8, 8, 0);
    (unit == SWIGLU ? swiglu_backward : geglu_backward)(d_slope, d_one, d_row, 1, 8, 8, 0);
    float *a = harness_download(d_out, 1, 8, 8, &tails), *b = harness_download(d_slope, 1, 16, 16, &tails);
    for (int i = 0; i < 8; i++) {
        float want = to_float(from_float<floatX>(value[i]));
        check((fabsf(a[i] - want) <= 1e-30f * fabsf(want) + 1e-30f || (isnan(a[i]) && isnan(want))) &&
                  (fabsf(b[i] - slope[i]) <= 1e-30f || (isnan(b[i]) && isnan(slope[i]))),
              "%s(%g): %g, slope %g", unit_names[unit], gate[i], a[i], b[i]);
    }
    harness_release();
}

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int T = 16384, FF = 14336;
#else
    int T = 256, FF = 14336;
#endif
    const HarnessOption options[] = {{"--tokens", &T, 1, "rows"},
                                     {"--width", &FF, 8, "elements of gate, and of up, in a row, a multiple of 8"}};
    harness_options(argc, argv, options, 2);
    if (!harness_check) {
        FF = FF / VEC * VEC;
        double tensor = (double)T * FF * sizeof(floatX);
        struct {
            const char* name;
            Pass pass;
            double tensors;
        } rows[] = {{"naive forward", naive_forward, 3},
                    {"forward", winner_forward, 3},
                    {"naive backward", naive_backward, 5},
                    {"backward", winner_backward, 5}};
        for (Unit unit : {SWIGLU, GEGLU}) {
            Problem p = problem_create(unit, T, FF, 0);
            printf("%s " FLOATX_NAME ", %d tokens, gate and up of width %d\n", unit_names[unit], T, FF);
            for (auto& row : rows) {
                harness_report(row.name, row.pass, &p, row.tensors * tensor);
            }
            harness_release();
        }
        return 0;
    }
    static const struct {
        const char* name;
        int T, FF, pad;
        bool small;
    } cases[] = {{"T1-FF8", 1, 8, 8, true}, {"T37-FF264", 37, 264, 16, true}, {"T301-FF2816", 301, 2816, 64, false}};
    for (Unit unit : {SWIGLU, GEGLU}) {
        check_limits(unit);
        for (auto& c : cases) {
            if (harness_small && !c.small) continue;
            char name[48], naive[64];
            snprintf(name, sizeof name, "%s %s", unit_names[unit], c.name);
            snprintf(naive, sizeof naive, "naive %s", name);
            check_case(name, unit, c.T, c.FF, c.pad, winner_forward, winner_backward);
            if (c.small) check_case(naive, unit, c.T, c.FF, c.pad, naive_forward, naive_backward);
        }
    }
    return check_report();
}
