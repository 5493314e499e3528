/*
GELU in its tanh and its erf form, forward and backward: the naive kernels (one thread per element; tanhf, erff), the
winner of seal_kernels, and a double-precision reference fed the same rounded inputs.

  gelu --check [--small]           against the reference, backward also by finite differences (--small: for
                                   sanitizers)
  gelu [--tokens N] [--width N]    speed, with the share of a plain copy's bandwidth
*/
#include "harness.h"
#include "kernels.h"

// ---------------------------------------------------------------------------------------------------
// naive kernels

#define ROOT_2_OVER_PI 0.7978845608f
#define ROOT_1_OVER_2 0.7071067812f
#define ROOT_1_OVER_2PI 0.3989422804f

template <bool ERF> static __global__ void naive_forward_kernel(floatX* out, const floatX* inp, int T, int C, int ldo) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)T * C) return;
    float x = to_float(inp[i]), t = ERF ? erff(x * ROOT_1_OVER_2) : tanhf(ROOT_2_OVER_PI * (x + 0.044715f * x * x * x));
    out[i / C * ldo + i % C] = from_float<floatX>(0.5f * x * (1.0f + t));
}

template <bool ERF>
static __global__ void naive_backward_kernel(floatX* dinp, const floatX* inp, const floatX* dout, int T, int C,
                                             int ldo) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)T * C) return;
    float x = to_float(inp[i]), slope;
    if (ERF) slope = 0.5f * (1.0f + erff(x * ROOT_1_OVER_2)) + x * ROOT_1_OVER_2PI * expf(-0.5f * x * x);
    else {
        float t = tanhf(ROOT_2_OVER_PI * (x + 0.044715f * x * x * x));
        slope = 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * ROOT_2_OVER_PI * (1.0f + 3.0f * 0.044715f * x * x);
    }
    dinp[i] = from_float<floatX>(to_float(dout[i / C * ldo + i % C]) * slope);
}

// ---------------------------------------------------------------------------------------------------
// the two forms

typedef void (*Forward)(floatX* out, const floatX* inp, int T, int C, int ldo, cudaStream_t stream);
typedef void (*Backward)(floatX* dinp, const floatX* inp, const floatX* dout, int T, int C, int ldo,
                         cudaStream_t stream);
typedef struct {
    const char* name;
    Forward forward, naive_forward;
    Backward backward, naive_backward;
    void (*backward_inplace)(floatX* dinp, const floatX* inp, int T, int C, int ldi, cudaStream_t stream);
    double (*value)(double x);
    double (*slope)(double x);
} Form;

template <bool ERF>
static void naive_forward(floatX* out, const floatX* inp, int T, int C, int ldo, cudaStream_t stream) {
    LAUNCH(naive_forward_kernel<ERF>, (unsigned)CEIL_DIV((size_t)T * C, 256), 256, 0, stream, out, inp, T, C, ldo);
}
template <bool ERF>
static void naive_backward(floatX* dinp, const floatX* inp, const floatX* dout, int T, int C, int ldo,
                           cudaStream_t stream) {
    LAUNCH(naive_backward_kernel<ERF>, (unsigned)CEIL_DIV((size_t)T * C, 256), 256, 0, stream, dinp, inp, dout, T, C,
           ldo);
}

static double tanh_value(double x) { return 0.5 * x * (1.0 + tanh(sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x))); }
static double tanh_slope(double x) {
    double t = tanh(sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x));
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * sqrt(2.0 / M_PI) * (1.0 + 3.0 * 0.044715 * x * x);
}
static double erf_value(double x) { return 0.5 * x * erfc(-x * M_SQRT1_2); }
static double erf_slope(double x) { return 0.5 * erfc(-x * M_SQRT1_2) + x * exp(-0.5 * x * x) / sqrt(2.0 * M_PI); }

static const Form forms[] = {
    {"tanh", gelu_forward, naive_forward<false>, gelu_backward, naive_backward<false>, gelu_backward_inplace,
     tanh_value, tanh_slope},
    {"erf", gelu_erf_forward, naive_forward<true>, gelu_erf_backward, naive_backward<true>, gelu_erf_backward_inplace,
     erf_value, erf_slope},
};

// ---------------------------------------------------------------------------------------------------
// one problem

typedef struct {
    const Form* form;
    int T, C, ld;
    float *inp, *dout;
    floatX *d_inp, *d_dout, *d_out, *d_dinp;
} Problem;

static Problem problem_create(const Form* form, int T, int C, int pad) {
    size_t n = (size_t)T * C;
    Problem p = {
        form, T,    C,    C + pad, harness_randoms<floatX>(n, 2.0f, 0.0f), harness_randoms<floatX>(n, 1.0f, 0.0f),
        NULL, NULL, NULL, NULL};
    p.d_inp = harness_upload<floatX>(p.inp, T, C, C);
    p.d_dout = harness_upload<floatX>(p.dout, T, C, p.ld);
    p.d_out = harness_device<floatX>((size_t)T * p.ld);
    p.d_dinp = harness_device<floatX>(n);
    return p;
}

// ---------------------------------------------------------------------------------------------------
// checks

typedef struct {
    float *out, *dinp;
    bool tails_kept;
} Result;
static Result run(Problem* p, Forward forward, Backward backward) {
    Result r = {NULL, NULL, true};
    harness_poison(p->d_out, (size_t)p->T * p->ld);
    harness_poison(p->d_dinp, (size_t)p->T * p->C);
    forward(p->d_out, p->d_inp, p->T, p->C, p->ld, 0);
    backward(p->d_dinp, p->d_inp, p->d_dout, p->T, p->C, p->ld, 0);
    r.out = harness_download(p->d_out, p->T, p->C, p->ld, &r.tails_kept);
    r.dinp = harness_download(p->d_dinp, p->T, p->C, p->C, &r.tails_kept);
    return r;
}

static double slope_value(void* data, const float* x) {
    Problem* p = (Problem*)data;
    bool tails;
    double sum = 0.0;
    p->form->forward(p->d_out, harness_upload<floatX>(x, p->T, p->C, p->C), p->T, p->C, p->ld, 0);
    float* out = harness_download(p->d_out, p->T, p->C, p->ld, &tails);
    for (size_t i = 0; i < (size_t)p->T * p->C; i++) sum += (double)out[i] * p->dout[i];
    return sum;
}

static void check_case(const char* name, const Form* form, int T, int C, int pad, bool naive) {
    Problem p = problem_create(form, T, C, pad);
    size_t n = (size_t)T * C;
    double *out = harness_host<double>(n), *dinp = harness_host<double>(n);
    for (size_t i = 0; i < n; i++) {
        out[i] = form->value(p.inp[i]);
        dinp[i] = p.dout[i] * form->slope(p.inp[i]);
    }
    Forward forward = naive ? form->naive_forward : form->forward;
    Backward backward = naive ? form->naive_backward : form->backward;
    name = harness_name(harness_name(form->name, naive ? "naive" : "winner"), name);
    Result first = run(&p, forward, backward), second = run(&p, forward, backward);
    harness_compare_x(harness_name(name, "out"), first.out, out, n);
    harness_compare_x(harness_name(name, "dinp"), first.dinp, dinp, n);
    check(first.tails_kept, "%s: the tails of the rows are untouched", name);
    check(!memcmp(first.out, second.out, n * sizeof(float)) && !memcmp(first.dinp, second.dinp, n * sizeof(float)),
          "%s: two equal runs give equal bits", name);
    if (!naive) {
        floatX* d = harness_upload<floatX>(p.dout, T, C, p.ld);
        form->backward_inplace(d, p.d_inp, T, C, p.ld, 0);
        bool tails_kept = true;
        float* inplace = harness_download(d, T, C, p.ld, &tails_kept);
        check(tails_kept && !memcmp(inplace, first.dinp, n * sizeof(float)), "%s: in place gives the same bits", name);
        if (sizeof(floatX) == sizeof(float))
            harness_check_slope(harness_name(name, "dinp"), slope_value, &p, p.inp, first.dinp, n, 1e-2f);
    }
    harness_release();
}

// Far from zero the result is x or 0 and its slope 1 or 0; a NaN stays a NaN.
static void check_limits(const Form* form) {
    const float x[8] = {1e30f, -1e30f, INFINITY, -INFINITY, NAN, 0.0f, 20.0f, -20.0f};
    const float out[8] = {1e30f, 0.0f, INFINITY, 0.0f, NAN, 0.0f, 20.0f, 0.0f},
                slope[8] = {1.0f, 0.0f, 1.0f, 0.0f, NAN, 0.5f, 1.0f, 0.0f};
    const float one[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    floatX *d_x = harness_upload<floatX>(x, 1, 8, 8), *d_out = harness_device<floatX>(8),
           *d_one = harness_upload<floatX>(one, 1, 8, 8), *d_slope = harness_device<floatX>(8);
    bool tails;
    form->forward(d_out, d_x, 1, 8, 8, 0);
    form->backward(d_slope, d_x, d_one, 1, 8, 8, 0);
    float *a = harness_download(d_out, 1, 8, 8, &tails), *b = harness_download(d_slope, 1, 8, 8, &tails);
    for (int i = 0; i < 8; i++) {
        float want = to_float(from_float<floatX>(out[i]));
        // erf at 0: the tail is ½ but for the polynomial's rounding
        check((a[i] == want || (isnan(a[i]) && isnan(want))) &&
                  (fabsf(b[i] - slope[i]) <= (x[i] == 0.0f ? 1e-7f : 0.0f) || (isnan(b[i]) && isnan(slope[i]))),
              "%s gelu(%g) = %g, slope %g", form->name, x[i], a[i], b[i]);
    }
    harness_release();
}

// ---------------------------------------------------------------------------------------------------
// benchmark

typedef struct {
    Problem* p;
    Forward forward;
    Backward backward;
} Timed;  // one of the two is NULL
static void timed_run(void* data, cudaStream_t stream) {
    Timed* t = (Timed*)data;
    Problem* p = t->p;
    if (t->forward) t->forward(p->d_out, p->d_inp, p->T, p->C, p->ld, stream);
    else t->backward(p->d_dinp, p->d_inp, p->d_dout, p->T, p->C, p->ld, stream);
}

static void benchmark(int T, int C) {
    double tensor = (double)T * C * sizeof(floatX);
    for (auto& form : forms) {
        Problem p = problem_create(&form, T, C, 0);
        printf("gelu, %s form, " FLOATX_NAME ", %d tokens of width %d\n", form.name, T, C);
        struct {
            const char* name;
            Forward forward;
            Backward backward;
        } rows[] = {{"naive forward", form.naive_forward, NULL},
                    {"forward", form.forward, NULL},
                    {"naive backward", NULL, form.naive_backward},
                    {"backward", NULL, form.backward}};
        for (auto& row : rows) {
            Timed timed = {&p, row.forward, row.backward};
            harness_report(row.name, timed_run, &timed, (row.forward ? 2 : 3) * tensor);
        }
        harness_release();
    }
}

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int T = 32768, C = 3072;
#else
    int T = 1024, C = 3072;
#endif
    const HarnessOption options[] = {{"--tokens", &T, 1, "rows"},
                                     {"--width", &C, 8, "elements of a row, a multiple of 8"}};
    harness_options(argc, argv, options, 2);
    if (!harness_check) {
        benchmark(T, C / VEC * VEC);
        return 0;
    }
    static const struct {
        const char* name;
        int T, C, pad;
        bool small;
    } cases[] = {{"T1-C8", 1, 8, 8, true}, {"T37-C264", 37, 264, 16, true}, {"T301-C3072", 301, 3072, 64, false}};
    for (auto& form : forms) {
        check_limits(&form);
        for (auto& c : cases) {
            if (harness_small && !c.small) continue;
            check_case(c.name, &form, c.T, c.C, c.pad, false);
            if (c.small) check_case(c.name, &form, c.T, c.C, c.pad, true);
        }
    }
    return check_report();
}
