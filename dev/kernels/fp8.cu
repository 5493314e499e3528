/*
Around and in an fp8 product: rows rounded to e4m3 against a search among its 253 numbers, byte for byte; the product
itself against a double-precision one of the same e4m3 numbers; scales of rows put on and taken off. That the numbers
are PyTorch's float8_e4m3fn is dev/test/test_fp8.cu.

  fp8 --check [--small]                                  against the references (--small: for sanitizers)
  fp8 [--rows N] [--columns N] [--outputs N]             speed
*/
#include "harness.h"
#include "kernels.h"

#define MOST 448.0  // of e4m3

// ---------------------------------------------------------------------------------------------------
// references

static double number_of(uint8_t byte) {
    const int exponent = byte >> 3 & 15, mantissa = byte & 7;
    if ((byte & 127) == 127) return NAN;
    const double x = exponent ? ldexp(1.0 + mantissa / 8.0, exponent - 7) : ldexp(mantissa / 8.0, -6);
    return byte & 128 ? -x : x;
}

// The nearest of all numbers, of two that are as near the one with an even mantissa; beyond the largest, that one.
static uint8_t nearest(double x) {
    const uint8_t sign = signbit(x) ? 128 : 0;
    uint8_t best = 0;
    if (isnan(x)) return 127;
    x = fabs(x);
    for (int i = 1; i < 127; i++) {
        const double before = fabs(number_of(best) - x), now = fabs(number_of((uint8_t)i) - x);
        if (now < before || (now == before && i % 2 == 0)) best = (uint8_t)i;
    }
    return sign | best;
}

// 2^k for the largest k, at most 64, that keeps `most` at 448 or below.
static double power_for(double most) {
    int k = 64;
    if (most == 0.0) return 1.0;
    while (most * ldexp(1.0, k) > MOST) k--;
    return ldexp(1.0, k);
}

// ---------------------------------------------------------------------------------------------------
// quantising

enum { ROW_RANDOM, ROW_SPREAD, ROW_TIES, ROW_ZERO, ROW_TINY, ROW_HUGE, ROW_NAN, ROW_INFINITE, N_ROWS };

// A row of each kind, again and again; the last of its numbers is unlike the others.
static void fill_row(float* x, int C, int kind) {
    for (int c = 0; c < C; c++) {
        const float random = harness_random();
        x[c] = random;
        if (kind == ROW_SPREAD) x[c] = ldexpf(random, -(c % 24));                   // down to what rounds to 0
        if (kind == ROW_TIES) x[c] = ldexpf((float)(2 * (c % 16) + 1), c % 9 - 8);  // half-way between two numbers
        if (kind == ROW_ZERO) x[c] = c % 2 ? 0.0f : -0.0f;
        if (kind == ROW_TINY) x[c] = ldexpf(random, c % 2 ? -80 : -68);
        if (kind == ROW_HUGE) x[c] = ldexpf(random, 120);
    }
    if (kind == ROW_TIES) x[C - 1] = 448.0f;  // the scale is 1
    if (kind == ROW_NAN) x[C - 1] = NAN;
    if (kind == ROW_INFINITE) x[C - 1] = -INFINITY;
    for (int c = 0; c < C; c++) x[c] = to_float(from_float<floatX>(x[c]));
}

static void check_quantise(int T, int C, int pad) {
    float* x = harness_host<float>((size_t)T * C);
    for (int t = 0; t < T; t++) fill_row(x + (size_t)t * C, C, t % N_ROWS);
    const floatX* inp = harness_upload<floatX>(x, T, C, C + pad);
    uint8_t* d_out = harness_device<uint8_t>((size_t)T * C + 16);
    float* d_scale = harness_device<float>(T);
    fp8_quantise(d_out, d_scale, inp, T, C, C + pad, 0);
    const uint8_t* out = harness_fetch(d_out, (size_t)T * C + 16);
    const float* scale = harness_fetch(d_scale, T);
    long wrong = 0, wrong_scales = 0, hidden = 0;
    for (int t = 0; t < T; t++) {
        double most = 0.0;
        bool finite = true;
        for (int c = 0; c < C; c++) {
            finite &= isfinite(x[(size_t)t * C + c]);
            most = fmax(most, fabs((double)x[(size_t)t * C + c]));
        }
        if (!finite) {
            hidden += !isnan(scale[t]);
            continue;
        }
        const double power = power_for(most);
        wrong_scales += (double)scale[t] != 1.0 / power;
        for (int c = 0; c < C; c++) wrong += out[(size_t)t * C + c] != nearest((double)x[(size_t)t * C + c] * power);
    }
    check(!wrong, "quantise %d × %d: every byte is the nearest of e4m3 (%ld are not)", T, C, wrong);
    check(!wrong_scales, "quantise %d × %d: every row's scale is its power of two", T, C);
    check(!hidden, "quantise %d × %d: a row with a NaN or an infinity has the scale NaN", T, C);
    for (int i = 0; i < 16; i++) wrong += out[(size_t)T * C + i] != 0xff;
    check(!wrong, "quantise %d × %d: nothing is written past the end", T, C);
    harness_release();
}

// ---------------------------------------------------------------------------------------------------
// scales of rows

static void check_rows(int T, int C, int pad) {
    float *x = harness_randoms<floatX>((size_t)T * C, 1.0f, 0.0f), *bias = harness_randoms<floatX>(C, 1.0f, 0.0f),
          *scale = harness_host<float>(T);
    double* expected = harness_host<double>((size_t)T * C);
    bool tails = true;
    for (int t = 0; t < T; t++) scale[t] = ldexpf(1.0f, t % 40 - 20);
    floatX* device = harness_upload<floatX>(x, T, C, C + pad);
    const float* d_scale = harness_copy(scale, T);
    fp8_divide_rows(device, d_scale, T, C, C + pad, 0);
    const float* divided = harness_download(device, T, C, C + pad, &tails);
    long wrong = 0;
    for (int i = 0; i < T * C; i++) wrong += divided[i] != x[i] / scale[i / C];
    check(!wrong && tails, "rows %d × %d: divided exactly, tails untouched", T, C);
    fp8_scale_rows(device, d_scale, NULL, T, C, C + pad, 0);
    const float* back = harness_download(device, T, C, C + pad, &tails);
    check(!memcmp(back, x, (size_t)T * C * sizeof(float)) && tails, "rows %d × %d: and multiplied they are back", T, C);
    fp8_scale_rows(device, d_scale, harness_upload<floatX>(bias, 1, C, C), T, C, C + pad, 0);
    for (int i = 0; i < T * C; i++) expected[i] = (double)x[i] * scale[i / C] + bias[i % C];
    harness_compare_x(harness_name("rows with a bias", ""), harness_download(device, T, C, C + pad, &tails), expected,
                      (long)T * C);
    harness_release();
}

// ---------------------------------------------------------------------------------------------------
// the product

typedef struct {
    int T, C, OC, ldo;
    uint8_t *x, *w, *d_x, *d_w;
    float scale, *d_scale;
    floatX* out;
} Product;

// A number between 2^-1 and 2^3, or its negative.
static uint8_t random_number(void) {
    const int bits = (int)(128.0f + 73.0f * harness_random());
    return (uint8_t)((bits & 0x87) | (0x30 + (bits & 0x18)));
}

static Product product_create(int T, int C, int OC, int pad) {
    Product p = {};
    p.T = T;
    p.C = C;
    p.OC = OC;
    p.ldo = OC + pad;
    p.x = harness_host<uint8_t>((size_t)T * C);
    p.w = harness_host<uint8_t>((size_t)OC * C);
    for (size_t i = 0; i < (size_t)T * C; i++) p.x[i] = random_number();
    for (size_t i = 0; i < (size_t)OC * C; i++) p.w[i] = random_number();
    p.scale = 0.03125f;
    p.d_x = harness_copy(p.x, (size_t)T * C);
    p.d_w = harness_copy(p.w, (size_t)OC * C);
    p.d_scale = harness_copy(&p.scale, 1);
    p.out = harness_device<floatX>((size_t)T * p.ldo);
    return p;
}

// Tensor cores multiply e4m3 from compute capability 8.9 on.
static bool has_products(void) {
    int device, major, minor;
    cudaCheck(cudaGetDevice(&device));
    cudaCheck(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    cudaCheck(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    return 10 * major + minor >= 89;
}

static void check_product(int T, int C, int OC, int pad, bool accumulate) {
    Product p = product_create(T, C, OC, pad);
    double *expected = harness_host<double>((size_t)T * OC), *x = harness_host<double>((size_t)T * C),
           *w = harness_host<double>((size_t)OC * C);
    float* before = harness_randoms<floatX>((size_t)T * OC, 10.0f, 0.0f);
    char name[96];
    bool tails = true;
    for (size_t i = 0; i < (size_t)T * C; i++) x[i] = number_of(p.x[i]);
    for (size_t i = 0; i < (size_t)OC * C; i++) w[i] = number_of(p.w[i]) * p.scale;
    for (int t = 0; t < T; t++)
        for (int o = 0; o < OC; o++) {
            double sum = accumulate ? before[(size_t)t * OC + o] : 0.0;
            for (int c = 0; c < C; c++) sum += x[(size_t)t * C + c] * w[(size_t)o * C + c];
            expected[(size_t)t * OC + o] = sum;
        }
    if (accumulate) p.out = harness_upload<floatX>(before, T, OC, p.ldo);
    matmul_fp8(p.out, p.d_x, p.d_w, p.d_scale, {.T = T, .C = C, .OC = OC, .ldo = p.ldo, .ldi = C, .ldw = C}, accumulate,
               0);
    snprintf(name, sizeof name, "product %d × %d, %d terms%s", T, OC, C, accumulate ? ", added" : "");
    harness_compare_x(name, harness_download(p.out, T, OC, p.ldo, &tails), expected, (long)T * OC);
    check(tails, "%s: the tails of the rows are untouched", name);
    harness_release();
}

// ---------------------------------------------------------------------------------------------------
// speed

typedef struct {
    int T, C;
    uint8_t* out;
    float* scale;
    floatX* x;
} Rows;
static void run_quantise(Rows* r, cudaStream_t stream) {
    fp8_quantise(r->out, r->scale, r->x, r->T, r->C, r->C, stream);
}
static void run_scale(Rows* r, cudaStream_t stream) { fp8_scale_rows(r->x, r->scale, NULL, r->T, r->C, r->C, stream); }
static void run_product(Product* p, cudaStream_t stream) {
    matmul_fp8(p->out, p->d_x, p->d_w, p->d_scale,
               {.T = p->T, .C = p->C, .OC = p->OC, .ldo = p->ldo, .ldi = p->C, .ldw = p->C}, false, stream);
}

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int rows = 16384, columns = 4096, outputs = 14336;
#else
    int rows = 256, columns = 1024, outputs = 1024;
#endif
    const HarnessOption options[] = {{"--rows", &rows, 1, "rows"},
                                     {"--columns", &columns, 16, "elements of a row, a multiple of 16"},
                                     {"--outputs", &outputs, 16, "rows of the weight, a multiple of 16"}};
    harness_options(argc, argv, options, 3);
    matmul_create();
    if (harness_check) {
        check_quantise(N_ROWS, 16, 8);
        check_quantise(2 * N_ROWS + 3, 272, 0);
        check_rows(5, 16, 0);
        check_rows(43, 72, 8);
        if (!harness_small) {
            check_quantise(N_ROWS, 4096 + 1024 + 16, 64);
            check_rows(129, 4096, 64);
        }
        static const struct {
            int T, C, OC, pad;
            bool accumulate, small;
        } products[] = {{1, 16, 16, 0, false, true},
                        {33, 48, 80, 16, false, true},
                        {33, 48, 80, 16, true, true},
                        {200, 512, 144, 0, false, false},
                        {128, 1024, 256, 0, true, false}};
        if (!has_products()) check_skip("products", "this GPU's compute capability is below 8.9");
        else
            for (auto& p : products)
                if (p.small || !harness_small) check_product(p.T, p.C, p.OC, p.pad, p.accumulate);
        matmul_destroy();
        return check_report();
    }
    Rows r = {rows, columns / 16 * 16, NULL, NULL, NULL};
    const size_t n = (size_t)r.T * r.C;
    r.out = harness_device<uint8_t>(n);
    r.scale = harness_device<float>(r.T);
    r.x = harness_upload<floatX>(harness_randoms<floatX>(n, 1.0f, 0.0f), r.T, r.C, r.C);
    printf(FLOATX_NAME " to e4m3, %d × %d\n", r.T, r.C);
    harness_report("quantise", run_quantise, &r, n * (sizeof(floatX) + 1.0));
    harness_report("scale rows", run_scale, &r, n * 2.0 * sizeof(floatX));
    if (!has_products()) return 0;
    Product p = product_create(r.T, r.C, outputs / 16 * 16, 0);
    const double seconds = harness_time(run_product, &p);
    printf("  product with %d rows of weights     %10.3f ms %9.2f TFLOP/s\n", p.OC, seconds * 1e3,
           2.0 * n * p.OC / seconds * 1e-12);
    harness_release();
    matmul_destroy();
    return 0;
}
