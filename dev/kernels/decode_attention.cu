/*
Attention of one new token per sequence against a cache: the naive kernel (one thread per query head, the whole cache
after one another), the winner of seal_kernels, and a double-precision reference fed the same rounded inputs.

  decode_attention --check [--small]    against the reference (--small: for sanitizers)
  decode_attention [--sequences N] [--length N] [--heads N] [--kv-heads N] [--head-size N]
                                        speed, with the share of a plain copy's bandwidth
*/
#include "harness.h"
#include "kernels.h"

// ---------------------------------------------------------------------------------------------------
// naive kernel

// Without window and cap.
static __global__ void naive_kernel(floatX* atty, DecodeArgs args) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, sequence = i / args.NH, head = i % args.NH, HS = args.HS;
    int kv = head / (args.NH / args.NKV);
    if (sequence >= args.n) return;
    const floatX* q = args.qkv + (size_t)sequence * args.ldq + head * HS;
    float out[256] = {0.0f}, highest = -INFINITY, sum = 0.0f;
    for (int j = 0; j < args.length[sequence]; j++) {
        size_t row = ((size_t)(args.first[sequence] + j) * args.NKV + kv) * HS;
        float score = 0.0f;
        for (int d = 0; d < HS; d++) score += to_float(q[d]) * to_float(args.keys[row + d]);
        score *= args.scale;
        float top = fmaxf(highest, score), shrink = expf(highest - top), p = expf(score - top);
        for (int d = 0; d < HS; d++) out[d] = out[d] * shrink + p * to_float(args.values[row + d]);
        sum = sum * shrink + p;
        highest = top;
    }
    for (int d = 0; d < HS; d++)
        atty[(size_t)sequence * args.ldo + head * HS + d] = from_float<floatX>(args.length[sequence] ? out[d] / sum
                                                                                                     : 0.0f);
}

// ---------------------------------------------------------------------------------------------------
// one problem: sequences are in the cache with a gap of one row between them, which holds NaN

typedef struct {
    int n, NH, NKV, HS, ldq, ldo, longest, R, window;  // window 0: none
    float cap;                                         // 0: none
    int *first, *length;
    float *qkv, *keys, *values;  // (n, (NH + 2 NKV)·HS), (R, NKV·HS)
    floatX *d_qkv, *d_keys, *d_values, *d_atty;
    float* d_scratch;
    int *d_first, *d_length;
} Problem;

static Problem problem_create(const int* lengths, int n, int NH, int NKV, int HS) {
    Problem p = {};
    p.n = n, p.NH = NH, p.NKV = NKV, p.HS = HS, p.ldq = (NH + 2 * NKV) * HS + 8, p.ldo = NH * HS + 16;
    p.first = harness_host<int>(n);
    p.length = harness_host<int>(n);
    for (int i = 0; i < n; i++) {
        p.first[i] = p.R;
        p.length[i] = lengths[i];
        p.R += lengths[i] + 1;
        p.longest = lengths[i] > p.longest ? lengths[i] : p.longest;
    }
    p.qkv = harness_randoms<floatX>((size_t)n * (NH + 2 * NKV) * HS, 1.0f, 0.0f);
    p.keys = harness_randoms<floatX>((size_t)p.R * NKV * HS, 1.0f, 0.0f);
    p.values = harness_randoms<floatX>((size_t)p.R * NKV * HS, 1.0f, 0.5f);
    for (int i = 0; i < n; i++)
        for (int c = 0; c < NKV * HS; c++)
            p.keys[(size_t)(p.first[i] + p.length[i]) * NKV * HS + c] =
                p.values[(size_t)(p.first[i] + p.length[i]) * NKV * HS + c] = NAN;
    p.d_qkv = harness_upload<floatX>(p.qkv, n, (NH + 2 * NKV) * HS, p.ldq);
    p.d_keys = harness_upload<floatX>(p.keys, p.R, NKV * HS, NKV * HS);
    p.d_values = harness_upload<floatX>(p.values, p.R, NKV * HS, NKV * HS);
    p.d_atty = harness_device<floatX>((size_t)n * p.ldo);
    p.d_scratch = harness_device<float>(decode_attention_scratch(n, p.longest, NH, HS));
    p.d_first = harness_copy(p.first, n);
    p.d_length = harness_copy(p.length, n);
    return p;
}

typedef void (*Pass)(Problem* p, cudaStream_t stream);
static float scale_of(const Problem* p) { return 1.0f / sqrtf((float)p->HS); }
static DecodeArgs args_of(const Problem* p) {
    return {.qkv = p->d_qkv,
            .keys = p->d_keys,
            .values = p->d_values,
            .first = p->d_first,
            .length = p->d_length,
            .scratch = p->d_scratch,
            .longest = p->longest,
            .n = p->n,
            .NH = p->NH,
            .NKV = p->NKV,
            .HS = p->HS,
            .ldq = p->ldq,
            .ldo = p->ldo,
            .scale = scale_of(p),
            .window = p->window,
            .cap = p->cap};
}
static void winner(Problem* p, cudaStream_t stream) { decode_attention(p->d_atty, args_of(p), stream); }
static void naive(Problem* p, cudaStream_t stream) {
    LAUNCH(naive_kernel, CEIL_DIV(p->n * p->NH, 32), 32, 0, stream, p->d_atty, args_of(p));
}

static double* reference(const Problem* p) {
    double *atty = harness_host<double>((size_t)p->n * p->NH * p->HS), *prob = harness_host<double>(p->longest);
    for (int i = 0; i < p->n; i++)
        for (int head = 0; head < p->NH; head++) {
            int kv = head / (p->NH / p->NKV);
            const float* q = p->qkv + (size_t)i * (p->NH + 2 * p->NKV) * p->HS + head * p->HS;
            double highest = -INFINITY, sum = 0.0, *out = atty + ((size_t)i * p->NH + head) * p->HS;
            int low = p->window && p->length[i] > p->window ? p->length[i] - p->window : 0;
            for (int j = low; j < p->length[i]; j++) {
                const float* k = p->keys + ((size_t)(p->first[i] + j) * p->NKV + kv) * p->HS;
                prob[j] = 0.0;
                for (int d = 0; d < p->HS; d++) prob[j] += (double)q[d] * k[d];
                prob[j] *= scale_of(p);
                if (p->cap) prob[j] = p->cap * tanh(prob[j] / p->cap);
                highest = fmax(highest, prob[j]);
            }
            for (int j = low; j < p->length[i]; j++) sum += prob[j] = exp(prob[j] - highest);
            for (int j = low; j < p->length[i]; j++) {
                const float* v = p->values + ((size_t)(p->first[i] + j) * p->NKV + kv) * p->HS;
                for (int d = 0; d < p->HS; d++) out[d] += prob[j] / sum * v[d];
            }
        }
    return atty;
}

// ---------------------------------------------------------------------------------------------------
// checks

static float* run(Problem* p, Pass pass, bool* tails) {
    harness_poison(p->d_atty, (size_t)p->n * p->ldo);
    harness_poison(p->d_scratch, decode_attention_scratch(p->n, p->longest, p->NH, p->HS));
    pass(p, 0);
    return harness_download(p->d_atty, p->n, p->NH * p->HS, p->ldo, tails);
}

struct Case {
    const char* name;
    int HS, NH, NKV, n, lengths[8];
    bool small;
    int window = 0;
    float cap = 0.0f;
};
static const Case cases[] = {
    {"grouped-32", 32, 4, 2, 4, {1, 33, 0, 7}, true},
    {"single-64", 64, 2, 2, 3, {31, 32, 65}, true},
    {"pieces-64", 64, 3, 1, 5, {255, 256, 257, 1, 600}, false},
    {"grouped-80", 80, 6, 1, 3, {64, 1, 300}, false},
    {"single-32", 32, 3, 3, 3, {40, 1, 257}, false},
    {"single-80", 80, 2, 2, 3, {64, 1, 300}, false},
    {"single-96", 96, 3, 3, 2, {97, 511}, false},
    {"grouped-96", 96, 6, 2, 3, {97, 3, 260}, false},
    {"single-128", 128, 2, 2, 3, {129, 2, 300}, false},
    {"threes-64", 64, 9, 3, 3, {97, 3, 260}, false},
    {"threes-128", 128, 6, 2, 2, {65, 300}, false},
    {"grouped-128", 128, 8, 2, 4, {129, 32, 2, 770}, false},
    {"grouped-256", 256, 5, 1, 3, {3, 65, 300}, false},
    {"single-256", 256, 2, 2, 2, {33, 257}, false},
    {"window5-32", 32, 4, 2, 5, {1, 33, 0, 5, 6}, true, 5},
    {"window32-64", 64, 2, 2, 4, {31, 32, 65, 300}, false, 32},
    {"window300-64", 64, 3, 1, 5, {255, 556, 557, 812, 600}, false, 300},
    {"window512-256", 256, 4, 1, 3, {3, 768, 1030}, false, 512},
    {"cap-128", 128, 4, 2, 3, {129, 32, 300}, true, 0, 2.0f},
    {"cap-window40-256", 256, 5, 1, 3, {3, 65, 300}, false, 40, 1.0f},
};

static void check_case(const Case* c) {
    if (!attention_head_size_supported(c->HS))
        return check_skip(c->name, "this device gives a block too little shared memory");
    Problem p = problem_create(c->lengths, c->n, c->NH, c->NKV, c->HS);
    p.window = c->window, p.cap = c->cap;
    bool tails = true, alone = true;
    double* expected = reference(&p);
    float *first = run(&p, winner, &tails), *second = run(&p, winner, &tails);
    size_t width = (size_t)c->NH * c->HS;
    harness_compare_x(c->name, first, expected, (long)(c->n * width));
    check(tails, "%s: the tails of the rows are untouched", c->name);
    check(!memcmp(first, second, c->n * width * sizeof(float)), "%s: two equal runs give equal bits", c->name);
    // a sequence alone, in a plan for its own length
    for (int i = 0; i < c->n; i++) {
        Problem one = p;
        one.n = 1;
        one.longest = p.length[i];
        one.d_qkv = p.d_qkv + (size_t)i * p.ldq;
        one.d_first = p.d_first + i;
        one.d_length = p.d_length + i;
        alone = alone && !memcmp(run(&one, winner, &tails), first + i * width, width * sizeof(float));
    }
    check(alone, "%s: a sequence's bits do not depend on the others", c->name);
    if (!c->window && !c->cap)
        harness_compare_x(harness_name("naive", c->name), run(&p, naive, &tails), expected, (long)(c->n * width));
    harness_release();
}

static void check_store(int T, int NH, int NKV, int HS) {
    int ldq = (NH + 2 * NKV) * HS + 8, R = 2 * T, width = NKV * HS, *rows = harness_host<int>(T);
    float* qkv = harness_randoms<floatX>((size_t)T * (NH + 2 * NKV) * HS, 1.0f, 0.0f);
    for (int t = 0; t < T; t++) rows[t] = t % 5 == 3 ? -1 : 2 * t ^ 1;
    floatX *d_keys = harness_device<floatX>((size_t)R * width), *d_values = harness_device<floatX>((size_t)R * width);
    cache_store(d_keys, d_values, harness_upload<floatX>(qkv, T, (NH + 2 * NKV) * HS, ldq), harness_copy(rows, T), T,
                NH, NKV, HS, ldq, 0);
    bool tails, good = true, *written = harness_host<bool>(R);
    float *keys = harness_download(d_keys, R, width, width, &tails),
          *values = harness_download(d_values, R, width, width, &tails);
    for (int t = 0; t < T; t++) {
        if (rows[t] < 0) continue;
        const float* from = qkv + (size_t)t * (NH + 2 * NKV) * HS + NH * HS;
        written[rows[t]] = true;
        good = good && !memcmp(keys + (size_t)rows[t] * width, from, width * sizeof(float)) &&
               !memcmp(values + (size_t)rows[t] * width, from + width, width * sizeof(float));
    }
    for (int r = 0; r < R; r++)
        for (int c = 0; c < width && !written[r]; c++)
            good = good && isnan(keys[(size_t)r * width + c]) && isnan(values[(size_t)r * width + c]);
    check(good, "store of %d tokens, %d of %d heads of %d: bit for bit, nothing else touched", T, NKV, NH, HS);
    harness_release();
}

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int n = 64, length = 2048, NH = 32, NKV = 8, HS = 128;  // Llama-3-8B
#else
    int n = 8, length = 512, NH = 12, NKV = 12, HS = 64;  // GPT-2
#endif
    const HarnessOption options[] = {{"--sequences", &n, 1, "sequences"},
                                     {"--length", &length, 1, "tokens before each new one"},
                                     {"--heads", &NH, 1, "query heads"},
                                     {"--kv-heads", &NKV, 1, "key-value heads"},
                                     {"--head-size", &HS, 1, "32, 64, 80, 96, 128, 256"}};
    harness_options(argc, argv, options, 5);
    if (harness_check) {
        for (const Case& c : cases)
            if (c.small || !harness_small) check_case(&c);
        check_store(7, 4, 2, 32);
        if (!harness_small) check_store(301, 6, 3, 80);
        return check_report();
    }
    if (!attention_head_size_supported(HS) || NH % NKV) {
        fprintf(stderr,
                "decode_attention: --head-size is 32, 64, 80, 96, 128 or 256, and --heads a multiple of --kv-heads\n");
        return 2;
    }
    int* lengths = harness_host<int>(n);
    for (int i = 0; i < n; i++) lengths[i] = length;
    Problem p = problem_create(lengths, n, NH, NKV, HS);
    double bytes = 2.0 * n * length * NKV * HS * sizeof(floatX);
    printf("decode attention " FLOATX_NAME ", %d sequences of %d tokens, %d heads, %d key-value heads, head size %d\n",
           n, length, NH, NKV, HS);
    harness_report("naive", naive, &p, bytes);
    harness_report("a block per key-value head", winner, &p, bytes);
    harness_release();
    return 0;
}
