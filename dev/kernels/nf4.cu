/*
4-bit weights unpacked: the naive kernel (one thread per weight, tables in global memory), a step (eight weights per
thread, which are one load of codes and one 128-bit store) and the winner of seal_kernels (four such vectors in flight,
the codes' values in shared memory), against plain C on the host, bit for bit. That the format is bitsandbytes' is
dev/test/test_nf4.cu.

  nf4 --check [--small]                    against the reference (--small: for sanitizers)
  nf4 [--rows N] [--columns N]             speed, with the share of a plain copy's bandwidth
*/
#include "harness.h"
#include "kernels.h"

#define BLOCK_WEIGHTS 64
#define GROUP_WEIGHTS (64 * 256)

// ---------------------------------------------------------------------------------------------------
// the kernels before the winner

static inline __device__ unsigned destination(const Nf4Unpack& args, unsigned row) {
    if (!args.heads) return row;
    unsigned head = row / args.head_size / 3, part = row / args.head_size % 3;
    return (part * args.heads + head) * args.head_size + row % args.head_size;
}

static __global__ void naive_kernel(const Nf4Unpack args) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)args.rows * args.cols) return;
    unsigned row = (unsigned)(i / args.cols), column = (unsigned)(i % args.cols);
    int byte = ((const uint8_t*)args.codes)[i / 2], code = i % 2 ? byte & 15 : byte >> 4;
    float scale = fmaf(args.map[args.scales[i / BLOCK_WEIGHTS]], args.tops[i / GROUP_WEIGHTS], 0.0f) + *args.mean;
    args.out[(size_t)destination(args, row) * args.ldo + column] = from_float<floatX>(args.code[code] * scale);
}
static void naive(const Nf4Unpack& args, cudaStream_t stream) {
    LAUNCH(naive_kernel, (unsigned)CEIL_DIV((size_t)args.rows * args.cols, 256), 256, 0, stream, args);
}

static __global__ void vector_kernel(const Nf4Unpack args) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, width = args.cols / VEC;
    if (i >= (unsigned)args.rows * width) return;
    uint32_t codes = args.codes[i];
    float scale = fmaf(args.map[args.scales[i / (BLOCK_WEIGHTS / VEC)]], args.tops[i / (GROUP_WEIGHTS / VEC)], 0.0f) +
                  *args.mean;
    float8 x;
    UNROLL for (int e = 0; e < VEC; e++) x.v[e] = args.code[codes >> (8 * (e / 2) + 4 * (1 - e % 2)) & 15] * scale;
    store8(args.out + (size_t)destination(args, i / width) * args.ldo + i % width * VEC, x);
}
static void vectors(const Nf4Unpack& args, cudaStream_t stream) {
    LAUNCH(vector_kernel, (unsigned)CEIL_DIV((size_t)args.rows * args.cols / VEC, 256), 256, 0, stream, args);
}

// ---------------------------------------------------------------------------------------------------
// one problem

typedef void (*Unpack)(const Nf4Unpack& args, cudaStream_t stream);
typedef struct {
    int rows, cols, ld, heads, head_size;
    size_t n;
    uint8_t *codes, *scales;  // host, (n / 2), (n / 64)
    float *tops, *tables;     // host, (n / 64 / 256, rounded up); map (256), code (16), mean (1)
    Nf4Unpack args;
} Problem;

static Problem problem_create(int rows, int cols, int pad, int heads, int head_size) {
    const size_t n = (size_t)rows * cols, groups = CEIL_DIV(n, (size_t)GROUP_WEIGHTS);
    Problem p = {};
    p.rows = rows;
    p.cols = cols;
    p.ld = cols + pad;
    p.heads = heads;
    p.head_size = head_size;
    p.n = n;
    p.codes = harness_host<uint8_t>(n / 2);
    p.scales = harness_host<uint8_t>(n / BLOCK_WEIGHTS);
    p.tops = harness_randoms<float>(groups, 1.0f, 0.0f);
    p.tables = harness_randoms<float>(256 + 16 + 1, 1.0f, 0.0f);
    for (size_t i = 0; i < n / 2; i++) p.codes[i] = (uint8_t)(128.0f + 73.0f * harness_random());
    for (size_t i = 0; i < n / BLOCK_WEIGHTS; i++) p.scales[i] = (uint8_t)(128.0f + 73.0f * harness_random());
    const float* tables = harness_copy(p.tables, 256 + 16 + 1);
    p.args = {.out = harness_device<floatX>((size_t)rows * p.ld),
              .codes = (const uint32_t*)harness_copy(p.codes, n / 2),
              .scales = harness_copy(p.scales, n / BLOCK_WEIGHTS),
              .tops = harness_copy(p.tops, groups),
              .mean = tables + 256 + 16,
              .map = tables,
              .code = tables + 256,
              .rows = rows,
              .cols = cols,
              .ldo = p.ld,
              .heads = heads,
              .head_size = head_size};
    return p;
}

static void check_case(const char* name, const Problem* p, Unpack unpack) {
    float* expected = harness_host<float>(p->n);
    for (size_t i = 0; i < p->n; i++) {
        size_t row = i / p->cols, head = p->heads ? row / p->head_size / 3 : 0,
               part = p->heads ? row / p->head_size % 3 : 0;
        if (p->heads) row = (part * p->heads + head) * p->head_size + row % p->head_size;
        // volatile: g++ would join the product and the sum, whose roundings are two
        volatile float product = p->tables[p->scales[i / BLOCK_WEIGHTS]] * p->tops[i / GROUP_WEIGHTS];
        volatile float scale = product + p->tables[256 + 16];
        int code = i % 2 ? p->codes[i / 2] & 15 : p->codes[i / 2] >> 4;
        expected[row * p->cols + i % p->cols] = to_float(from_float<floatX>(p->tables[256 + code] * scale));
    }
    bool tails = true;
    harness_poison(p->args.out, (size_t)p->rows * p->ld);
    unpack(p->args, 0);
    float* got = harness_download(p->args.out, p->rows, p->cols, p->ld, &tails);
    check(!memcmp(got, expected, p->n * sizeof(float)), "%s: every bit of %d × %d weights", name, p->rows, p->cols);
    check(tails, "%s: the tails of the rows are untouched", name);
}

typedef struct {
    const Problem* p;
    Unpack unpack;
} Timed;
static void timed_run(void* data, cudaStream_t stream) { ((Timed*)data)->unpack(((Timed*)data)->p->args, stream); }

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int rows = 14336, columns = 4096;
#else
    int rows = 1024, columns = 4096;
#endif
    static const struct {
        const char* name;
        Unpack unpack;
    } steps[] = {{"naive", naive}, {"eight weights per thread", vectors}, {"winner", nf4_unpack}};
    static const struct {
        const char* name;
        int rows, cols, pad, heads, head_size;
        bool small;
    } cases[] = {
        {"one block", 1, 64, 0, 0, 0, true},
        {"rows of an eighth of a block", 8, 8, 8, 0, 0, true},
        {"rows that end within a block", 64, 40, 24, 0, 0, true},
        {"a group and a bit", 72, 232, 64, 0, 0, true},
        {"heads", 96, 64, 16, 4, 8, true},
        {"heads of 80", 720, 72, 8, 3, 80, false},
        {"several groups", 301, 1088, 64, 0, 0, false},
    };
    const HarnessOption options[] = {{"--rows", &rows, 8, "rows, a multiple of 8"},
                                     {"--columns", &columns, 8, "elements of a row, a multiple of 8"}};
    harness_options(argc, argv, options, 2);
    if (harness_check) {
        for (auto& c : cases)
            for (auto& step : steps) {
                if (harness_small && !c.small) continue;
                Problem p = problem_create(c.rows, c.cols, c.pad, c.heads, c.head_size);
                char name[96];
                snprintf(name, sizeof name, "%s, %s", step.name, c.name);
                check_case(name, &p, step.unpack);
                harness_release();
            }
        return check_report();
    }
    Problem p = problem_create(rows / 8 * 8, columns / 8 * 8, 64, 0, 0);
    printf("nf4 to " FLOATX_NAME ", %d × %d weights\n", p.rows, p.cols);
    for (auto& step : steps) {
        Timed timed = {&p, step.unpack};
        harness_report(step.name, timed_run, &timed, p.n * (0.5 + 1.0 / BLOCK_WEIGHTS + sizeof(floatX)));
    }
    harness_release();
    return 0;
}
