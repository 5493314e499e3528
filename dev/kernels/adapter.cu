/*
The tail of adapters after a GEMM's input: the naive kernel (one thread per element), the winner of seal_kernels, and
a reference on the host. Other adapters' columns hold NaN before: a kernel that multiplies by zero instead of writing
it shows. The whole of LoRA, GEMMs included, is dev/test/test_lora.cu.

  adapter --check [--small]           against the reference (--small: for sanitizers)
  adapter [--tokens N] [--width N]    speed, with the share of a plain copy's bandwidth
*/
#include "harness.h"
#include "kernels.h"

static __global__ void naive_kernel(floatX* tail, int T, int split, int width, int R, int ld, float scale) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    int row = (int)(i / R), c = (int)(i % R), first = row < split ? 0 : width;
    if (row >= T) return;
    floatX* p = tail + (size_t)row * ld + c;
    *p = from_float<floatX>(c >= first && c < first + width ? to_float(*p) * scale : 0.0f);
}
static void naive_tail(floatX* tail, int T, int split, int width, int R, int ld, float scale, cudaStream_t stream) {
    LAUNCH(naive_kernel, (unsigned)CEIL_DIV((size_t)T * R, 256), 256, 0, stream, tail, T, split, width, R, ld, scale);
}

// The winner, with one scale.
static void one_scale(floatX* tail, int T, int split, int width, int R, int ld, float scale, cudaStream_t stream) {
    adapter_tail(tail, T, split, width, R, ld, {{scale, scale, scale}, width}, stream);
}

// ---------------------------------------------------------------------------------------------------
// checks

typedef void (*Tail)(floatX* tail, int T, int split, int width, int R, int ld, float scale, cudaStream_t stream);
static const struct {
    const char* name;
    int T, split, width, R, C;
    float scale;
} cases[] = {
    {"one adapter", 37, 37, 16, 64, 40, 2.4f},    {"two adapters", 37, 16, 32, 64, 8, 1.0f},
    {"only the second", 13, 0, 8, 64, 24, 0.5f},  {"one row", 1, 1, 8, 8, 8, 3.0f},
    {"a wide tail", 131, 64, 48, 128, 264, 1.0f},
};

static void check_case(const char* name, Tail tail, int T, int split, int width, int R, int C, float scale) {
    int ld = C + R;
    float *own = harness_randoms<floatX>((size_t)T * R, 1.0f, 0.0f), *row = harness_host<float>((size_t)T * ld);
    double* expected = harness_host<double>((size_t)T * R);
    for (int t = 0; t < T; t++)
        for (int c = 0; c < ld; c++) {
            int first = C + (t < split ? 0 : width);
            bool mine = c >= first && c < first + width;
            row[(size_t)t * ld + c] = c < C ? 0.25f : mine ? own[(size_t)t * R + c - C] : NAN;
            if (c >= C) expected[(size_t)t * R + c - C] = mine ? own[(size_t)t * R + c - C] * (double)scale : 0.0;
        }
    float* got[2];
    bool kept = true, unused;
    for (int run = 0; run < 2; run++) {
        floatX* d = harness_upload<floatX>(row, T, ld, ld);
        tail(d + C, T, split, width, R, ld, scale, 0);
        float* all = harness_download(d, T, ld, ld, &unused);
        got[run] = harness_host<float>((size_t)T * R);
        for (int t = 0; t < T; t++) {
            memcpy(got[run] + (size_t)t * R, all + (size_t)t * ld + C, R * sizeof(float));
            for (int c = 0; c < C; c++) kept &= all[(size_t)t * ld + c] == 0.25f;
        }
    }
    harness_compare_x(name, got[0], expected, (long)T * R);
    bool zero = true;
    for (long i = 0; i < (long)T * R; i++) zero &= expected[i] != 0.0 || got[0][i] == 0.0f;
    check(zero, "%s: columns of nobody and of the other adapter are zero, whatever was there", name);
    check(kept, "%s: the input itself is untouched", name);
    check(!memcmp(got[0], got[1], (size_t)T * R * sizeof(float)), "%s: two equal runs give equal bits", name);
    harness_release();
}

// Modules with scales of their own.
static void check_scales(void) {
    const int T = 5, split = 3, columns = 8, width = 3 * columns, R = 64, C = 8, ld = C + R;
    const float scales[3] = {0.5f, 3.0f, -2.0f};
    float* row = harness_host<float>((size_t)T * ld);
    for (int i = 0; i < T * ld; i++) row[i] = 1.0f;
    floatX* d = harness_upload<floatX>(row, T, ld, ld);
    adapter_tail(d + C, T, split, width, R, ld, {{scales[0], scales[1], scales[2]}, columns}, 0);
    bool unused, good = true;
    float* all = harness_download(d, T, ld, ld, &unused);
    for (int t = 0; t < T; t++)
        for (int c = 0; c < R; c++) {
            int at = c - (t < split ? 0 : width);
            good &= all[t * ld + C + c] == (at < 0 || at >= width ? 0.0f : scales[at / columns]);
        }
    check(good, "each module's columns have its own scale");
    harness_release();
}

// ---------------------------------------------------------------------------------------------------
// benchmark

typedef struct {
    floatX* x;
    int T, C;
    Tail tail;
} Timed;
static void timed_run(void* data, cudaStream_t stream) {
    Timed* t = (Timed*)data;
    t->tail(t->x + t->C, t->T, t->T / 2, 32, 64, t->C + 64, 1.0f, stream);
}

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int T = 32768, C = 4096;
#else
    int T = 1024, C = 4096;
#endif
    const HarnessOption options[] = {{"--tokens", &T, 1, "rows"},
                                     {"--width", &C, 8, "elements of a row, a multiple of 8"}};
    harness_options(argc, argv, options, 2);
    if (harness_check) {
        for (auto& c : cases) {
            check_case(c.name, one_scale, c.T, c.split, c.width, c.R, c.C, c.scale);
            check_case(harness_name("naive,", c.name), naive_tail, c.T, c.split, c.width, c.R, c.C, c.scale);
        }
        check_scales();
        return check_report();
    }
    C = C / VEC * VEC;
    Timed timed[] = {{harness_device<floatX>((size_t)T * (C + 64)), T, C, naive_tail}, {NULL, T, C, one_scale}};
    timed[1].x = timed[0].x;
    printf("adapter tail " FLOATX_NAME ", %d tokens of width %d + 64\n", T, C);
    harness_report("naive", timed_run, &timed[0],
                   1.5 * T * 64 * sizeof(floatX));  // half of the columns are read, all are written
    harness_report("winner", timed_run, &timed[1], 1.5 * T * 64 * sizeof(floatX));
    harness_release();
    return 0;
}
