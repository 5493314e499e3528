/*
Rows times a number, and capped logits, against double precision.

  scale --check [--small]           against the reference (--small: for sanitizers)
  scale [--tokens N] [--width N]    speed, with the share of a plain copy's bandwidth
*/
#include "harness.h"
#include "kernels.h"

static void check_scale(int T, int C, int pad, float scale, bool add) {
    float *x = harness_randoms<floatX>((size_t)T * C, 1.0f, 0.2f),
          *y = harness_randoms<floatX>((size_t)T * C, 1.0f, 0.0f);
    double* expected = harness_host<double>((size_t)T * C);
    for (size_t i = 0; i < (size_t)T * C; i++) expected[i] = (double)scale * x[i] + (add ? y[i] : 0.0);
    floatX *d_x = harness_upload<floatX>(x, T, C, C + pad), *d_y = harness_upload<floatX>(y, T, C, C);
    if (!add) harness_poison(d_y, (size_t)T * C);
    scale_rows(d_y, d_x, scale, add, T, C, C + pad, 0);
    bool tails = true;
    harness_compare_x(harness_name(add ? "added" : "scaled", "rows"), harness_download(d_y, T, C, C, &tails), expected,
                      (long)T * C);
    if (add) return harness_release();
    scale_rows(d_x, d_x, 2.0f, false, 0, C, C + pad, 0);  // no rows: nothing
    float* kept = harness_download(d_x, T, C, C + pad, &tails);
    check(tails && !memcmp(kept, x, (size_t)T * C * sizeof(float)), "the input and its tails are untouched");
    harness_release();
}

static void check_cap(int n, int Vp, float cap) {
    float* x = harness_randoms<floatX>((size_t)n * Vp, 1.5f * cap, 0.0f);
    double* expected = harness_host<double>((size_t)n * Vp);
    x[0] = 0.0f, x[1] = 1e30f, x[2] = -1e30f;
    for (size_t i = 0; i < (size_t)n * Vp; i++) {
        x[i] = to_float(from_float<floatX>(x[i]));
        expected[i] = cap * tanh((double)x[i] / cap);
    }
    floatX* d_x = harness_upload<floatX>(x, n, Vp, Vp);
    cap_logits(d_x, cap, n, Vp, 0);
    bool tails;
    harness_compare_x("capped logits", harness_download(d_x, n, Vp, Vp, &tails), expected, (long)n * Vp);
    harness_release();
}

typedef struct {
    floatX *out, *inp;
    int T, C;
} Timed;
static void timed_scale(void* data, cudaStream_t stream) {
    Timed* t = (Timed*)data;
    scale_rows(t->out, t->inp, 0.22f, false, t->T, t->C, t->C, stream);
}
static void timed_cap(void* data, cudaStream_t stream) {
    Timed* t = (Timed*)data;
    cap_logits(t->inp, 30.0f, t->T, t->C, stream);
}

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int T = 16384, C = 4096;
#else
    int T = 1024, C = 4096;
#endif
    const HarnessOption options[] = {{"--tokens", &T, 1, "rows"}, {"--width", &C, 8, "width, a multiple of 8"}};
    harness_options(argc, argv, options, 2);
    if (harness_check) {
        check_scale(1, 8, 0, 0.22f, false);
        check_scale(37, 264, 16, 0.22f, false);
        check_scale(37, 264, 16, 1.0f, true);
        if (!harness_small) check_scale(301, 2048, 64, -3.0f, true);
        check_cap(3, 128, 30.0f);
        check_cap(2, 384, 0.5f);
        return check_report();
    }
    C = C / VEC * VEC;
    Timed t = {harness_device<floatX>((size_t)T * C),
               harness_upload<floatX>(harness_randoms<floatX>((size_t)T * C, 1.0f, 0.0f), T, C, C), T, C};
    printf("scale " FLOATX_NAME ", %d rows of %d\n", T, C);
    harness_report("rows times a number", timed_scale, &t, 2.0 * T * C * sizeof(floatX));
    harness_report("capped logits", timed_cap, &t, 2.0 * T * C * sizeof(floatX));
    harness_release();
    return 0;
}
