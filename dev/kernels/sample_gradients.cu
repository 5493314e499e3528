/*
Products and norms of single samples' gradients against the gradients themselves, formed in double precision, one matrix
per sample; and the rows of the samples' last tokens.
  sample_gradients --check [--small]             (--small: for sanitizers)
  sample_gradients [--tokens N] [--width N] [--out N] [--samples N]     speed; for the ladder also the norm from the
                                                                        gradient formed by a GEMM per sample
*/
#include "harness.h"
#include "kernels.h"

// Samples end to end and padding after them, as a pack has them.
typedef struct {
    int n, T, n_seq, n_tiles;
    int *cu_seqlens, *place;  // host
    SampleTiles device;
} Samples;

static Samples make_samples(const int* lengths, int n, int padding) {
    Samples s = {};
    s.n = n;
    s.n_seq = n + (padding > 0);
    s.cu_seqlens = harness_host<int>(n + 2);
    s.place = harness_host<int>(n);
    for (int i = 0; i < n; i++) {
        s.cu_seqlens[i + 1] = s.cu_seqlens[i] + lengths[i];
        s.place[i] = n - 1 - i;  // not the pack's order
    }
    s.cu_seqlens[s.n_seq] = s.T = s.cu_seqlens[n] + padding;
    int n_even;
    s.n_tiles = attention_tiles(NULL, &n_even, s.cu_seqlens, s.n_seq);
    int* tiles = harness_host<int>(2 * s.n_tiles);
    attention_tiles(tiles, &n_even, s.cu_seqlens, s.n_seq);
    s.device = {harness_copy(s.cu_seqlens, s.n_seq + 1),
                harness_copy(tiles, 2 * s.n_tiles),
                harness_copy(s.place, n),
                s.n_tiles,
                n,
                harness_device<float>(s.n_tiles)};
    return s;
}

static void check_case(const int* lengths, int n, int padding, int C, int OC, int pad) {
    Samples s = make_samples(lengths, n, padding);
    float *u = harness_randoms<floatX>((size_t)s.T * C, 1.0f, 0.1f),
          *d = harness_randoms<floatX>((size_t)s.T * OC, 1.0f, 0.1f);
    float* w = harness_randoms<floatX>((size_t)s.T * C, 1.0f, 0.2f);
    for (size_t i = (size_t)s.cu_seqlens[n] * C; i < (size_t)s.T * C; i++) u[i] = w[i] = NAN;  // padding counts nowhere
    double *squares = harness_host<double>(n), *dots = harness_host<double>(n),
           *gradient = harness_host<double>((size_t)OC * C);
    for (int k = 0; k < n; k++) {
        memset(gradient, 0, (size_t)OC * C * sizeof(double));
        for (int t = s.cu_seqlens[k]; t < s.cu_seqlens[k + 1]; t++) {
            for (int o = 0; o < OC; o++)
                for (int c = 0; c < C; c++)
                    gradient[(size_t)o * C + c] += (double)d[(size_t)t * OC + o] * u[(size_t)t * C + c];
            for (int c = 0; c < C; c++) dots[s.place[k]] += (double)u[(size_t)t * C + c] * w[(size_t)t * C + c];
        }
        for (size_t e = 0; e < (size_t)OC * C; e++) squares[s.place[k]] += gradient[e] * gradient[e];
    }
    floatX *d_u = harness_upload<floatX>(u, s.T, C, C + pad), *d_d = harness_upload<floatX>(d, s.T, OC, OC + 2 * pad),
           *d_w = harness_upload<floatX>(w, s.T, C, C);
    float *zeros = harness_host<float>(n), *got;
    for (int k = 0; k < n; k++) zeros[k] = 2.0f;  // what is there is added to
    float *out = harness_copy(zeros, n), *more = harness_copy(zeros, n);
    sample_squares(out, d_u, C + pad, C, d_d, OC + 2 * pad, OC, s.device, 0);
    got = harness_fetch(out, n);
    for (int k = 0; k < n; k++) squares[k] += 2.0, dots[k] += 2.0;
    // inputs are floatX in both, sums are fp32 in both
    check_close("squared norms of the samples' gradients", got, squares, n, 1e-5);
    sample_dots(more, d_u, C + pad, d_w, C, C, s.device, 0);
    check_close("sums of row-wise dots by sample", harness_fetch(more, n), dots, n, 1e-5);
    float* again = harness_copy(zeros, n);
    sample_squares(again, d_u, C + pad, C, d_d, OC + 2 * pad, OC, s.device, 0);
    check(!memcmp(got, harness_fetch(again, n), n * sizeof(float)), "the same bits again");
    harness_release();
}

static void check_last_rows(int C) {
    const int lengths[] = {5, 70, 9}, n = 3, starts[] = {0, 3, 40, 40}, N = 40;
    Samples s = make_samples(lengths, n, 4);
    float* x = harness_randoms<floatX>((size_t)s.T * C, 1.0f, 0.1f);
    int* rows = harness_host<int>(N);
    for (int i = 0; i < 3; i++) rows[i] = 1 + i;   // tokens 2 … 4 of the first sample
    for (int i = 3; i < N; i++) rows[i] = 20 + i;  // up to row 59 of the second: its token at row 60 is the last
    double* expected = harness_host<double>((size_t)n * C);
    for (int c = 0; c < C; c++) {
        expected[2 * C + c] = x[4 * C + c];
        expected[1 * C + c] = x[60 * C + c];  // the third sample has none: zeros
    }
    float* out = harness_device<float>((size_t)n * C);
    sample_last_rows(out, harness_upload<floatX>(x, s.T, C, C), C, harness_copy(rows, N), harness_copy(starts, n + 1),
                     s.device.place, n, 0);
    check_close("rows of the last tokens that carry loss", harness_fetch(out, (size_t)n * C), expected, (long)n * C,
                0.0);
    harness_release();
}

static void check_narrow(void) {
    float* x = harness_randoms<float>(4096, 1.0f, 0.0f);
    double* expected = harness_host<double>(4096);
    for (int i = 0; i < 4096; i++) expected[i] = to_float(from_float<floatX>(x[i]));
    floatX* out = harness_device<floatX>(4096);
    narrow_matrix(out, harness_copy(x, 4096), 4096, 0);
    bool tails;
    check_close("a matrix as the model's type", harness_download(out, 1, 4096, 4096, &tails), expected, 4096, 0.0);
    harness_release();
}

typedef struct {
    Samples s;
    floatX *u, *d;
    float *out, *gradient;
    int C, OC;
} Timed;
static void timed_squares(void* data, cudaStream_t stream) {
    Timed* t = (Timed*)data;
    sample_squares(t->out, t->u, t->C, t->C, t->d, t->OC, t->OC, t->s.device, stream);
}
static void timed_dots(void* data, cudaStream_t stream) {
    Timed* t = (Timed*)data;
    sample_dots(t->out, t->u, t->C, t->u, t->C, t->C, t->s.device, stream);
}
// The naive way: each sample's gradient by a GEMM (its sum of squares would come on top).
static void timed_formed(void* data, cudaStream_t stream) {
    Timed* t = (Timed*)data;
    for (int k = 0; k < t->s.n; k++) {
        int from = t->s.cu_seqlens[k], n = t->s.cu_seqlens[k + 1] - from;
        matmul_backward_weight(t->gradient, t->d + (size_t)from * t->OC, t->u + (size_t)from * t->C, n, t->C, t->OC,
                               t->C, t->OC, stream);
    }
}

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int T = 16384, C = 4096, OC = 4096, n = 32;
#else
    int T = 1024, C = 576, OC = 576, n = 8;
#endif
    const HarnessOption options[] = {{"--tokens", &T, 64, "tokens of the pack"},
                                     {"--width", &C, 8, "width of the input, a multiple of 8"},
                                     {"--out", &OC, 8, "width of the output, a multiple of 8"},
                                     {"--samples", &n, 1, "samples of equal length"}};
    harness_options(argc, argv, options, 4);
    if (harness_check) {
        const int one[] = {1}, few[] = {5, 64, 1, 65}, long_ones[] = {130, 7, 200, 63, 128};
        check_case(one, 1, 0, 8, 8, 0);
        check_case(few, 4, 9, 40, 24, 8);
        if (!harness_small) check_case(long_ones, 5, 30, 136, 72, 16);
        check_last_rows(264);
        check_narrow();
        return check_report();
    }
    Timed t = {};
    t.C = C / VEC * VEC;
    t.OC = OC / VEC * VEC;
    int* lengths = (int*)calloc(n, sizeof(int));
    for (int k = 0; k < n; k++) lengths[k] = T / n;
    t.s = make_samples(lengths, n, 0);
    free(lengths);
    t.u = harness_copy(harness_host<floatX>((size_t)T * t.C), (size_t)T * t.C);
    t.d = harness_copy(harness_host<floatX>((size_t)T * t.OC), (size_t)T * t.OC);
    t.out = harness_copy(harness_host<float>(n), n);
    t.gradient = harness_copy(harness_host<float>((size_t)t.C * t.OC), (size_t)t.C * t.OC);
    matmul_create();
    printf("sample gradients " FLOATX_NAME ", %d samples of %d tokens, %d to %d\n", n, T / n, t.C, t.OC);
    double read = (double)T * (t.C + t.OC) * sizeof(floatX);
    harness_report("row-wise dots by sample", timed_dots, &t, 2.0 * T * t.C * sizeof(floatX));
    harness_report("gradients formed, one at a time", timed_formed, &t, read);
    harness_report("squared norms by Gram tiles", timed_squares, &t, read);
    matmul_destroy();
    harness_release();
    return 0;
}
