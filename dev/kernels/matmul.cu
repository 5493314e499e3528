/*
Linear layers: the naive GEMM (one thread per output element), cuBLASLt through the launchers of seal_kernels, the
bias gradient, and a double-precision reference fed the same rounded inputs.

  matmul --check [--small]                         against the reference (--small: for sanitizers)
  matmul [--tokens N] [--width N] [--outputs N]    speed; the ceiling is the largest product of the same run
*/
#include "harness.h"
#include "kernels.h"

// ---------------------------------------------------------------------------------------------------
// naive kernels: every operand element is read from memory once for each output it takes part in

static __global__ void naive_forward_kernel(floatX* out, const floatX* inp, const floatX* weight, const floatX* bias,
                                            int T, int C, int OC, int ldo, int ldi, int ldw) {
    int o = blockIdx.x * blockDim.x + threadIdx.x, t = blockIdx.y;
    if (o >= OC || t >= T) return;
    float sum = bias ? to_float(bias[o]) : 0.0f;
    for (int c = 0; c < C; c++) sum += to_float(inp[(size_t)t * ldi + c]) * to_float(weight[(size_t)o * ldw + c]);
    out[(size_t)t * ldo + o] = from_float<floatX>(sum);
}

static __global__ void naive_bias_kernel(float* dbias, const floatX* dout, int T, int OC, int ldo) {
    int o = blockIdx.x * blockDim.x + threadIdx.x;
    if (o >= OC) return;
    for (int t = 0; t < T; t++) dbias[o] += to_float(dout[(size_t)t * ldo + o]);
}

// ---------------------------------------------------------------------------------------------------
// one problem

typedef struct {
    int T, C, OC, ldi, ldo, ldw;
    float *inp, *weight, *bias, *dout, *before_input, *before_weight, *before_bias,
        *pre_c;  // host, rounded; pre_c (T, C): pre-activation of inp
    floatX *d_inp, *d_weight, *d_bias, *d_dout, *d_out, *d_pre, *d_pre_c, *d_dinp;
    float *d_dweight, *d_dbias, *d_scratch;
} Problem;

static Problem problem_create_strides(int T, int C, int OC, int ldi, int ldo, int ldw) {
    Problem p;
    p.T = T, p.C = C, p.OC = OC, p.ldi = ldi, p.ldo = ldo, p.ldw = ldw;
    float scale = 1.0f / sqrtf((float)C);
    p.inp = harness_randoms<floatX>((size_t)T * C, 1.0f, 0.0f);
    p.weight = harness_randoms<floatX>((size_t)OC * C, scale, 0.0f);
    p.bias = harness_randoms<floatX>(OC, 1.0f, 0.0f);
    p.dout = harness_randoms<floatX>((size_t)T * OC, 1.0f, 0.0f);
    p.before_input = harness_randoms<floatX>((size_t)T * C, 1.0f, 0.0f);
    p.before_weight = harness_randoms<float>((size_t)OC * C, 1.0f, 0.0f);
    p.before_bias = harness_randoms<float>(OC, 1.0f, 0.0f);
    p.pre_c = harness_randoms<floatX>((size_t)T * C, 1.0f, 0.0f);
    p.d_inp = harness_upload<floatX>(p.inp, T, C, p.ldi);
    p.d_weight = harness_upload<floatX>(p.weight, OC, C, p.ldw);
    p.d_bias = harness_upload<floatX>(p.bias, 1, OC, OC);
    p.d_dout = harness_upload<floatX>(p.dout, T, OC, p.ldo);
    p.d_pre_c = harness_upload<floatX>(p.pre_c, T, C, C);
    p.d_out = harness_device<floatX>((size_t)T * p.ldo);
    p.d_pre = harness_device<floatX>((size_t)T * OC);
    p.d_dinp = harness_device<floatX>((size_t)T * p.ldi);
    p.d_dweight = harness_copy(p.before_weight, (size_t)OC * C);
    p.d_dbias = harness_copy(p.before_bias, OC);
    p.d_scratch = harness_device<float>(matmul_bias_scratch(OC));
    return p;
}
static Problem problem_create(int T, int C, int OC, int pad) {
    return problem_create_strides(T, C, OC, C + pad, OC + 2 * pad, C + 3 * pad);
}

static double gelu(double x) { return 0.5 * x * (1.0 + tanh(sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x))); }
static double gelu_slope(double x) {
    double t = tanh(sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x));
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * sqrt(2.0 / M_PI) * (1.0 + 3.0 * 0.044715 * x * x);
}

// out (rows, columns) = a (rows, k) · b with b[i · b_k + column · b_column]; a[row · a_row + i · a_k]
static double* reference_product(const float* a, size_t a_row, size_t a_k, const float* b, size_t b_k, size_t b_column,
                                 int rows, int columns, int k) {
    double* out = harness_host<double>((size_t)rows * columns);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < k; i++) {
            double x = a[r * a_row + i * a_k];
            for (int c = 0; c < columns; c++) out[(size_t)r * columns + c] += x * b[i * b_k + c * b_column];
        }
    return out;
}

// ---------------------------------------------------------------------------------------------------
// checks

static void check_forward(const char* name, Problem* p, bool with_bias, bool with_gelu) {
    int T = p->T, C = p->C, OC = p->OC;
    size_t n = (size_t)T * OC;
    double *pre = reference_product(p->inp, C, 1, p->weight, 1, C, T, OC, C), *out = harness_host<double>(n);
    for (size_t i = 0; i < n; i++) {
        if (with_bias) pre[i] += p->bias[i % OC];
        out[i] = with_gelu ? gelu(pre[i]) : pre[i];
    }
    bool tails_kept = true;
    float *got[2], *got_pre[2];
    for (int run = 0; run < 2; run++) {
        harness_poison(p->d_out, (size_t)T * p->ldo);
        harness_poison(p->d_pre, n);
        matmul_forward(p->d_out, with_gelu ? p->d_pre : NULL, p->d_inp, p->d_weight, with_bias ? p->d_bias : NULL,
                       {.T = T, .C = C, .OC = OC, .ldo = p->ldo, .ldi = p->ldi, .ldw = p->ldw}, 0);
        got[run] = harness_download(p->d_out, T, OC, p->ldo, &tails_kept);
        got_pre[run] = harness_download(p->d_pre, T, OC, OC, &tails_kept);
    }
    const char* full = harness_name(name, with_gelu   ? (with_bias ? "forward, bias, GELU" : "forward, GELU")
                                          : with_bias ? "forward, bias"
                                                      : "forward");
    harness_compare_x(full, got[0], out, n);
    if (with_gelu) harness_compare_x(harness_name(full, "pre_gelu"), got_pre[0], pre, n);
    check(tails_kept, "%s: the tails of the rows are untouched", full);
    check(!memcmp(got[0], got[1], n * sizeof(float)), "%s: two equal runs give equal bits", full);
}

static void check_forward_add(const char* name, Problem* p, bool with_bias) {
    int T = p->T, C = p->C, OC = p->OC;
    size_t n = (size_t)T * OC;
    float* before = harness_randoms<floatX>(n, 1.0f, 0.0f);
    double* out = reference_product(p->inp, C, 1, p->weight, 1, C, T, OC, C);
    for (size_t i = 0; i < n; i++) out[i] += before[i] + (with_bias ? p->bias[i % OC] : 0.0);
    bool tails_kept = true;
    float* got[2];
    for (int run = 0; run < 2; run++) {
        floatX* d_out = harness_upload<floatX>(before, T, OC, p->ldo);
        matmul_forward_add(d_out, p->d_inp, p->d_weight, with_bias ? p->d_bias : NULL,
                           {.T = T, .C = C, .OC = OC, .ldo = p->ldo, .ldi = p->ldi, .ldw = p->ldw}, 0);
        got[run] = harness_download(d_out, T, OC, p->ldo, &tails_kept);
    }
    const char* full = harness_name(name, with_bias ? "forward added, bias" : "forward added");
    harness_compare_x(full, got[0], out, n);
    check(tails_kept, "%s: the tails of the rows are untouched", full);
    check(!memcmp(got[0], got[1], n * sizeof(float)), "%s: two equal runs give equal bits", full);
}

static void check_backward_input(const char* name, Problem* p, bool with_gelu, bool accumulate) {
    int T = p->T, C = p->C, OC = p->OC;
    size_t n = (size_t)T * C;
    double* dinp = reference_product(p->dout, OC, 1, p->weight, C, 1, T, C, OC);
    for (size_t i = 0; i < n; i++) {
        if (with_gelu) dinp[i] *= gelu_slope(p->pre_c[i]);
        if (accumulate) dinp[i] += p->before_input[i];
    }
    bool tails_kept = true;
    float* got[2];
    for (int run = 0; run < 2; run++) {
        if (accumulate) p->d_dinp = harness_upload<floatX>(p->before_input, T, C, p->ldi);
        else harness_poison(p->d_dinp, (size_t)T * p->ldi);
        matmul_backward_input(p->d_dinp, p->d_dout, p->d_weight, with_gelu ? p->d_pre_c : NULL,
                              {.T = T, .C = C, .OC = OC, .ldo = p->ldo, .ldi = p->ldi, .ldw = p->ldw}, accumulate, 0);
        got[run] = harness_download(p->d_dinp, T, C, p->ldi, &tails_kept);
    }
    const char* full = harness_name(name, with_gelu ? "dinp through GELU" : accumulate ? "dinp accumulated" : "dinp");
    harness_compare_x(full, got[0], dinp, n);
    check(tails_kept, "%s: the tails of the rows are untouched", full);
    check(!memcmp(got[0], got[1], n * sizeof(float)), "%s: two equal runs give equal bits", full);
}

static void check_backward_parameters(const char* name, Problem* p) {
    int T = p->T, C = p->C, OC = p->OC;
    size_t n = (size_t)OC * C;
    double *once = reference_product(p->dout, 1, OC, p->inp, C, 1, OC, C, T), *dweight = harness_host<double>(n),
           *dbias = harness_host<double>(OC);
    // added to what is there, twice: a batch split over two packs
    for (size_t i = 0; i < n; i++) dweight[i] = p->before_weight[i] + 2.0 * once[i];
    for (int o = 0; o < OC; o++) dbias[o] = p->before_bias[o];
    for (int t = 0; t < T; t++)
        for (int o = 0; o < OC; o++) dbias[o] += 2.0 * p->dout[(size_t)t * OC + o];
    float *got[2], *got_bias[2];
    for (int run = 0; run < 2; run++) {
        cudaCheck(cudaMemcpy(p->d_dweight, p->before_weight, n * sizeof(float), cudaMemcpyHostToDevice));
        cudaCheck(cudaMemcpy(p->d_dbias, p->before_bias, OC * sizeof(float), cudaMemcpyHostToDevice));
        harness_poison(p->d_scratch, matmul_bias_scratch(OC));
        for (int i = 0; i < 2; i++) {
            matmul_backward_weight(p->d_dweight, p->d_dout, p->d_inp, T, C, OC, p->ldi, p->ldo, 0);
            matmul_backward_bias(p->d_dbias, p->d_scratch, p->d_dout, T, OC, p->ldo, 0);
        }
        got[run] = harness_fetch(p->d_dweight, n);
        got_bias[run] = harness_fetch(p->d_dbias, OC);
    }
    // exact products of floatX, summed in fp32 in both builds
    check_close(harness_name(name, "dweight, accumulated twice"), got[0], dweight, n, 1e-5);
    check_close(harness_name(name, "dbias, accumulated twice"), got_bias[0], dbias, OC, 1e-5);
    check(!memcmp(got[0], got[1], n * sizeof(float)) && !memcmp(got_bias[0], got_bias[1], OC * sizeof(float)),
          "%s: two equal runs give equal parameter gradients", name);
}

static void check_naive(const char* name, Problem* p) {
    double* out = reference_product(p->inp, p->C, 1, p->weight, 1, p->C, p->T, p->OC, p->C);
    bool tails_kept = true;
    harness_poison(p->d_out, (size_t)p->T * p->ldo);
    LAUNCH(naive_forward_kernel, dim3(CEIL_DIV(p->OC, 128), p->T), 128, 0, 0, p->d_out, p->d_inp, p->d_weight,
           (floatX*)NULL, p->T, p->C, p->OC, p->ldo, p->ldi, p->ldw);
    harness_compare_x(harness_name("naive", name), harness_download(p->d_out, p->T, p->OC, p->ldo, &tails_kept), out,
                      (long)p->T * p->OC);
}

#ifndef PRECISION_BF16
// Σ out ∘ dout as a function of the input, the weight or the bias
typedef struct {
    Problem* p;
    floatX** argument;
    int rows, width, ld;
} Slope;
static double slope_value(void* data, const float* x) {
    Slope* s = (Slope*)data;
    Problem* p = s->p;
    floatX* before = *s->argument;
    bool tails;
    double sum = 0.0;
    *s->argument = harness_upload<floatX>(x, s->rows, s->width, s->ld);
    matmul_forward(p->d_out, NULL, p->d_inp, p->d_weight, p->d_bias,
                   {.T = p->T, .C = p->C, .OC = p->OC, .ldo = p->ldo, .ldi = p->ldi, .ldw = p->ldw}, 0);
    float* out = harness_download(p->d_out, p->T, p->OC, p->ldo, &tails);
    for (size_t i = 0; i < (size_t)p->T * p->OC; i++) sum += (double)out[i] * p->dout[i];
    *s->argument = before;
    return sum;
}
static void check_slopes(const char* name, Problem* p) {
    bool tails;
    int T = p->T, C = p->C, OC = p->OC;
    cudaCheck(cudaMemset(p->d_dweight, 0, sizeof(float) * OC * C));
    cudaCheck(cudaMemset(p->d_dbias, 0, sizeof(float) * OC));
    matmul_backward_input(p->d_dinp, p->d_dout, p->d_weight, NULL,
                          {.T = T, .C = C, .OC = OC, .ldo = p->ldo, .ldi = p->ldi, .ldw = p->ldw}, false, 0);
    matmul_backward_weight(p->d_dweight, p->d_dout, p->d_inp, T, C, OC, p->ldi, p->ldo, 0);
    matmul_backward_bias(p->d_dbias, p->d_scratch, p->d_dout, T, OC, p->ldo, 0);
    struct {
        const char* name;
        Slope slope;
        const float *x, *gradient;
    } arguments[] = {
        {"dinp", {p, &p->d_inp, T, C, p->ldi}, p->inp, harness_download(p->d_dinp, T, C, p->ldi, &tails)},
        {"dweight", {p, &p->d_weight, OC, C, p->ldw}, p->weight, harness_fetch(p->d_dweight, (size_t)OC * C)},
        {"dbias", {p, &p->d_bias, 1, OC, OC}, p->bias, harness_fetch(p->d_dbias, OC)},
    };
    for (auto& a : arguments)
        harness_check_slope(harness_name(name, a.name), slope_value, &a.slope, a.x, a.gradient,
                            (long)a.slope.rows * a.slope.width, 0.125f);
}
#endif

static const struct {
    const char* name;
    int T, C, OC, pad;
    bool small;
} cases[] = {
    {"T1-C8-OC16", 1, 8, 16, 8, true},
    {"T67-C40-OC24", 67, 40, 24, 8, true},
    {"T131-C264-OC776", 131, 264, 776, 0, false},
    {"T301-C192-OC128", 301, 192, 128, 64, false},
    {"T2051-C64-OC264", 2051, 64, 264, 16, false},  // many partial rows of the bias gradient
};

static void run_checks(void) {
    for (auto& c : cases) {
        if (harness_small && !c.small) continue;
        Problem p = problem_create(c.T, c.C, c.OC, c.pad);
        for (int variant = 0; variant < 4; variant++) check_forward(c.name, &p, variant & 1, variant & 2);
        check_forward_add(c.name, &p, false);
        check_forward_add(c.name, &p, true);
        check_backward_input(c.name, &p, false, false);
        check_backward_input(c.name, &p, true, false);
        check_backward_input(c.name, &p, false, true);
        check_backward_parameters(c.name, &p);
#ifndef PRECISION_BF16
        check_slopes(c.name, &p);
#endif
        if (c.small) check_naive(c.name, &p);
        harness_release();
    }
    // an empty pack is not an error, and touches nothing
    Problem p = problem_create(1, 8, 8, 0);
    matmul_forward(p.d_out, NULL, p.d_inp, p.d_weight, p.d_bias,
                   {.T = 0, .C = 8, .OC = 8, .ldo = 8, .ldi = 8, .ldw = 8}, 0);
    matmul_forward_add(p.d_out, p.d_inp, p.d_weight, p.d_bias, {.T = 0, .C = 8, .OC = 8, .ldo = 8, .ldi = 8, .ldw = 8},
                       0);
    matmul_backward_input(p.d_dinp, p.d_dout, p.d_weight, NULL, {.T = 0, .C = 8, .OC = 8, .ldo = 8, .ldi = 8, .ldw = 8},
                          false, 0);
    matmul_backward_weight(p.d_dweight, p.d_dout, p.d_inp, 0, 8, 8, 8, 8, 0);
    matmul_backward_bias(p.d_dbias, p.d_scratch, p.d_dout, 0, 8, 8, 0);
    check(!memcmp(harness_fetch(p.d_dweight, 64), p.before_weight, 64 * sizeof(float)) &&
              !memcmp(harness_fetch(p.d_dbias, 8), p.before_bias, 8 * sizeof(float)),
          "an empty pack changes no gradient");
    harness_release();
}

// ---------------------------------------------------------------------------------------------------
// benchmark

typedef void (*Pass)(Problem* p, cudaStream_t stream);
static void forward(Problem* p, cudaStream_t stream) {
    matmul_forward(p->d_out, NULL, p->d_inp, p->d_weight, NULL,
                   {.T = p->T, .C = p->C, .OC = p->OC, .ldo = p->ldo, .ldi = p->ldi, .ldw = p->ldw}, stream);
}
static void forward_bias(Problem* p, cudaStream_t stream) {
    matmul_forward(p->d_out, NULL, p->d_inp, p->d_weight, p->d_bias,
                   {.T = p->T, .C = p->C, .OC = p->OC, .ldo = p->ldo, .ldi = p->ldi, .ldw = p->ldw}, stream);
}
static void forward_gelu(Problem* p, cudaStream_t stream) {
    matmul_forward(p->d_out, p->d_pre, p->d_inp, p->d_weight, p->d_bias,
                   {.T = p->T, .C = p->C, .OC = p->OC, .ldo = p->ldo, .ldi = p->ldi, .ldw = p->ldw}, stream);
}
static void backward_input(Problem* p, cudaStream_t stream) {
    matmul_backward_input(p->d_dinp, p->d_dout, p->d_weight, NULL,
                          {.T = p->T, .C = p->C, .OC = p->OC, .ldo = p->ldo, .ldi = p->ldi, .ldw = p->ldw}, false,
                          stream);
}
static void backward_gelu(Problem* p, cudaStream_t stream) {
    matmul_backward_input(p->d_dinp, p->d_dout, p->d_weight, p->d_pre_c,
                          {.T = p->T, .C = p->C, .OC = p->OC, .ldo = p->ldo, .ldi = p->ldi, .ldw = p->ldw}, false,
                          stream);
}
static void backward_weight(Problem* p, cudaStream_t stream) {
    matmul_backward_weight(p->d_dweight, p->d_dout, p->d_inp, p->T, p->C, p->OC, p->ldi, p->ldo, stream);
}
static void naive_forward(Problem* p, cudaStream_t stream) {
    LAUNCH(naive_forward_kernel, dim3(CEIL_DIV(p->OC, 128), p->T), 128, 0, stream, p->d_out, p->d_inp, p->d_weight,
           p->d_bias, p->T, p->C, p->OC, p->ldo, p->ldi, p->ldw);
}
static void backward_bias(Problem* p, cudaStream_t stream) {
    matmul_backward_bias(p->d_dbias, p->d_scratch, p->d_dout, p->T, p->OC, p->ldo, stream);
}
static void naive_bias(Problem* p, cudaStream_t stream) {
    LAUNCH(naive_bias_kernel, CEIL_DIV(p->OC, 128), 128, 0, stream, p->d_dbias, p->d_dout, p->T, p->OC, p->ldo);
}

static double flop_rate(Problem* p, Pass pass) { return 2.0 * p->T * p->C * p->OC / harness_time(pass, p); }

// stride: of the rows of the input and of the weight, as an adapter's tail after them makes it
static void benchmark(int T, int C, int OC, int stride, bool winner_only) {
    // One large square product stands for the device's matrix peak. It is measured with operands of the same random
    // kind: zeros draw less power and run at higher clocks.
#ifdef __CUDACC__
    const int square = 8192;
#else
    const int square = winner_only ? 256 : 1024;
#endif
    Problem big = problem_create(square, square, square, 0);
    double ceiling = flop_rate(&big, forward);
    harness_release();
    printf("matmul " FLOATX_NAME ", %d tokens, %d inputs (row stride %d), %d outputs; ceiling: %d³ at %.1f GFLOP/s\n",
           T, C, stride, OC, square, ceiling * 1e-9);
    Problem p = problem_create_strides(T, C, OC, stride, OC, stride);
    static const struct {
        const char* name;
        Pass pass;
    } rows[] = {{"naive forward", naive_forward},    {"forward", forward},
                {"forward + bias", forward_bias},    {"forward + bias + GELU", forward_gelu},
                {"backward input", backward_input},  {"backward input + GELU", backward_gelu},
                {"backward weight", backward_weight}};
    for (auto& row : rows) {
        if (winner_only && row.pass == naive_forward) continue;
        double rate = flop_rate(&p, row.pass);
        printf("  %-32s %10.3f ms %9.1f GFLOP/s %5.1f%% of the large product\n", row.name, 2e3 * T * C * OC / rate,
               rate * 1e-9, 100.0 * rate / ceiling);
    }
    if (!winner_only) harness_report("naive bias gradient", naive_bias, &p, (double)T * OC * sizeof(floatX));
    harness_report("bias gradient", backward_bias, &p, (double)T * OC * sizeof(floatX));
    harness_release();
}

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int T = 16384, C = 768, OC = 3072;
#else
    int T = 256, C = 256, OC = 1024;
#endif
    int stride = 0, winner = 0;
    const HarnessOption options[] = {{"--tokens", &T, 1, "rows"},
                                     {"--width", &C, 8, "inputs, a multiple of 8"},
                                     {"--outputs", &OC, 8, "outputs, a multiple of 8"},
                                     {"--stride", &stride, 0, "of the inputs' and the weight's rows; 0: their width"},
                                     {"--winner", &winner, 0, "1: without the naive kernels"}};
    harness_options(argc, argv, options, 5);
    matmul_create();
    if (harness_check) run_checks();
    else {
        C = C / VEC * VEC;
        stride = stride / VEC * VEC;
        benchmark(T, C, OC / VEC * VEC, stride > C ? stride : C, winner > 0);
    }
    matmul_destroy();
    return harness_check ? check_report() : 0;
}
