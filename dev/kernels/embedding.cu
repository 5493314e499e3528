/*
Token and position embedding, forward and backward: the naive kernels (one thread per element; backward one thread per
column, which walks the whole pack), the winner of seal_kernels, and a double-precision reference fed the same rounded
inputs.

  embedding --check [--small]    against the reference (--small: for sanitizers)
  embedding [--tokens N] [--width N] [--vocabulary N]
                                 speed, with the share of a plain copy's bandwidth
*/
#include "harness.h"
#include "kernels.h"

// ---------------------------------------------------------------------------------------------------
// naive kernels

static __global__ void naive_forward_kernel(floatX* encoded, const int* tokens, const int* positions, const floatX* wte,
                                            const floatX* wpe, int T, int C) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= (size_t)T * C) return;
    int t = (int)(i / C), c = (int)(i % C);
    encoded[i] = from_float<floatX>(to_float(wte[(size_t)tokens[t] * C + c]) +
                                    (wpe ? to_float(wpe[(size_t)positions[t] * C + c]) : 0.0f));
}

// Without atomics and without a sorted order only a whole column can belong to a thread.
static __global__ void naive_backward_kernel(float* dtable, const floatX* dencoded, const int* tokens, int T, int C) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= C) return;
    for (int t = 0; t < T; t++) dtable[(size_t)tokens[t] * C + c] += to_float(dencoded[(size_t)t * C + c]);
}

// ---------------------------------------------------------------------------------------------------
// one problem

// The segments of a pack, as the host makes them once: a counting sort of its tokens by table row.
typedef struct {
    int n_segments, *order, *segment_start, *segment_row;
} Segments;

typedef struct {
    int T, C, V, P;  // P positions
    float scale;     // of the embedding
    int *tokens, *positions;
    float *wte, *wpe, *dencoded, *before;  // before (V, C): what the gradient holds already
    int *d_tokens, *d_positions;
    floatX *d_wte, *d_wpe, *d_dencoded, *d_encoded;
    float* d_dtable;
    Segments segments;  // of the tokens, on the device
} Problem;

static Segments segments_create(const int* rows, int T, int V) {
    int *start = harness_host<int>(V + 1), *order = harness_host<int>(T), *segment_start = harness_host<int>(T + 1),
        *segment_row = harness_host<int>(T), n = 0;
    for (int t = 0; t < T; t++) start[rows[t] + 1]++;
    for (int v = 0; v < V; v++) {
        if (start[v + 1] > 0) {
            segment_row[n] = v;
            segment_start[n++] = start[v];
        }
        start[v + 1] += start[v];
    }
    segment_start[n] = T;
    for (int t = 0; t < T; t++) order[start[rows[t]]++] = t;
    return {n, harness_copy(order, T), harness_copy(segment_start, n + 1), harness_copy(segment_row, n)};
}

// Half of the tokens are one of the first three, so that long segments exist; positions restart every 9 tokens.
static Problem problem_create(int T, int C, int V, float scale) {
    Problem p;
    p.T = T, p.C = C, p.V = V, p.P = 9, p.scale = scale;
    p.tokens = harness_host<int>(T);
    p.positions = harness_host<int>(T);
    for (int t = 0; t < T; t++) {
        uint32_t random = (uint32_t)((harness_random() + 2.0f) * 1e6f);
        p.tokens[t] = (int)(t % 2 ? random % (V < 3 ? V : 3) : random % V);
        p.positions[t] = t % p.P;
    }
    p.wte = harness_randoms<floatX>((size_t)V * C, 1.0f, 0.0f);
    p.wpe = harness_randoms<floatX>((size_t)p.P * C, 1.0f, 0.0f);
    p.dencoded = harness_randoms<floatX>((size_t)T * C, 1.0f, 0.0f);
    p.before = harness_randoms<float>((size_t)V * C, 1.0f, 0.0f);
    p.d_tokens = harness_copy(p.tokens, T);
    p.d_positions = harness_copy(p.positions, T);
    p.d_wte = harness_upload<floatX>(p.wte, V, C, C);
    p.d_wpe = harness_upload<floatX>(p.wpe, p.P, C, C);
    p.d_dencoded = harness_upload<floatX>(p.dencoded, T, C, C);
    p.d_encoded = harness_device<floatX>((size_t)T * C);
    p.d_dtable = harness_device<float>((size_t)V * C);
    p.segments = segments_create(p.tokens, T, V);
    return p;
}

typedef void (*Pass)(Problem* p, cudaStream_t stream);
static void winner_forward(Problem* p, cudaStream_t stream) {
    embedding_forward(p->d_encoded, p->d_tokens, p->d_positions, p->d_wte, p->d_wpe, p->scale, p->T, p->C, stream);
}
static void winner_backward(Problem* p, cudaStream_t stream) {
    const Segments* s = &p->segments;
    embedding_backward(p->d_dtable, p->d_dencoded, s->order, s->segment_start, s->segment_row, s->n_segments, p->scale,
                       p->C, stream);
}
static void naive_forward(Problem* p, cudaStream_t stream) {
    LAUNCH(naive_forward_kernel, (unsigned)CEIL_DIV((size_t)p->T * p->C, 256), 256, 0, stream, p->d_encoded,
           p->d_tokens, p->d_positions, p->d_wte, p->d_wpe, p->T, p->C);
}
static void naive_backward(Problem* p, cudaStream_t stream) {
    LAUNCH(naive_backward_kernel, CEIL_DIV(p->C, 128), 128, 0, stream, p->d_dtable, p->d_dencoded, p->d_tokens, p->T,
           p->C);
}

// ---------------------------------------------------------------------------------------------------
// checks

static float* run_forward(Problem* p, Pass forward) {
    bool tails;
    harness_poison(p->d_encoded, (size_t)p->T * p->C);
    forward(p, 0);
    return harness_download(p->d_encoded, p->T, p->C, p->C, &tails);
}
static float* run_backward(Problem* p, Pass backward, const float* before, int times) {
    cudaCheck(cudaMemcpy(p->d_dtable, before, sizeof(float) * p->V * p->C, cudaMemcpyHostToDevice));
    for (int i = 0; i < times; i++) backward(p, 0);
    return harness_fetch(p->d_dtable, (size_t)p->V * p->C);
}

static void check_forward(const char* name, Problem* p, Pass forward, bool with_positions) {
    size_t n = (size_t)p->T * p->C;
    double* expected = harness_host<double>(n);
    for (size_t i = 0; i < n; i++) {
        int t = i / p->C, c = i % p->C;
        expected[i] = p->scale * (double)p->wte[p->tokens[t] * p->C + c] +
                      (with_positions ? p->wpe[p->positions[t] * p->C + c] : 0.0);
    }
    floatX* wpe = p->d_wpe;
    if (!with_positions) p->d_wpe = NULL;
    float* first = run_forward(p, forward);
    harness_compare_x(harness_name(name, with_positions ? "encoded" : "encoded without positions"), first, expected, n);
    check(!memcmp(first, run_forward(p, forward), n * sizeof(float)), "%s: two equal runs give equal bits", name);
    p->d_wpe = wpe;
}

static void check_backward(const char* name, Problem* p, Pass backward) {
    size_t n = (size_t)p->V * p->C;
    double* expected = harness_host<double>(n);
    float* zero = harness_host<float>(n);
    bool untouched = true, doubled = true, *seen = harness_host<bool>(p->V);
    for (size_t i = 0; i < n; i++) expected[i] = p->before[i];
    for (int t = 0; t < p->T; t++) {
        seen[p->tokens[t]] = true;
        for (int c = 0; c < p->C; c++)
            expected[p->tokens[t] * p->C + c] += p->scale * (double)p->dencoded[t * p->C + c];
    }
    float *first = run_backward(p, backward, p->before, 1), *second = run_backward(p, backward, p->before, 1);
    float *once = run_backward(p, backward, zero, 1), *twice = run_backward(p, backward, zero, 2);
    for (size_t i = 0; i < n; i++) {
        if (!seen[i / p->C] && memcmp(&first[i], &p->before[i], sizeof(float))) untouched = false;
        if (twice[i] != 2.0f * once[i]) doubled = false;
    }
    check_close(harness_name(name, "dtable"), first, expected, n, 1e-5);
    check(!memcmp(first, second, n * sizeof(float)), "%s: two equal backward runs give equal bits", name);
    if (backward == winner_backward) check(doubled, "%s: accumulating twice doubles", name);
    check(untouched, "%s: rows that no token reads are untouched", name);
}

static const struct {
    const char* name;
    int T, C, V;
    bool small;
} cases[] = {
    {"T1-C8", 1, 8, 1, true},
    {"T67-C264", 67, 264, 2, true},
    {"T40-C8", 40, 8, 23, true},
    {"T1003-C768", 1003, 768, 301, false},
    {"T517-C1600", 517, 1600, 5, false},
};

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int T = 65536, C = 768, V = 50257;
#else
    int T = 4096, C = 768, V = 50257;
#endif
    const HarnessOption options[] = {{"--tokens", &T, 1, "tokens"},
                                     {"--width", &C, 8, "width, a multiple of 8"},
                                     {"--vocabulary", &V, 1, "rows of the table"}};
    harness_options(argc, argv, options, 3);
    if (!harness_check) {
        C = C / VEC * VEC;
        Problem p = problem_create(T, C, V, 1.0f);
        run_backward(&p, winner_backward, p.before, 1);
        printf("embedding " FLOATX_NAME ", %d tokens (half of them one of three), width %d, %d rows\n", T, C, V);
        struct {
            const char* name;
            Pass pass;
            double bytes;
        } rows[] = {
            {"naive forward", naive_forward, 2.0 * T * C * sizeof(floatX)},
            {"forward", winner_forward, 2.0 * T * C * sizeof(floatX)},
            // each token's row once, each touched row of the table read and written
            {"naive backward", naive_backward,
             (double)T * C * sizeof(floatX) + 2.0 * p.segments.n_segments * C * sizeof(float)},
            {"backward", winner_backward,
             (double)T * C * sizeof(floatX) + 2.0 * p.segments.n_segments * C * sizeof(float)},
        };
        for (auto& row : rows) {
            struct Timed {
                Problem* p;
                Pass pass;
            } timed = {&p, row.pass};
            harness_report(
                row.name, [](void* data, cudaStream_t stream) { ((Timed*)data)->pass(((Timed*)data)->p, stream); },
                &timed, row.bytes);
        }
        harness_release();
        return 0;
    }
    for (auto& c : cases) {
        if (harness_small && !c.small) continue;
        Problem p = problem_create(c.T, c.C, c.V, 1.0f);
        check_forward(c.name, &p, winner_forward, true);
        check_forward(c.name, &p, winner_forward, false);
        check_backward(c.name, &p, winner_backward);
        if (c.small) {
            check_forward(harness_name("naive", c.name), &p, naive_forward, true);
            check_backward(harness_name("naive", c.name), &p, naive_backward);
        }
        Problem scaled = problem_create(c.T, c.C, c.V, 8.0f);  // a power of two: adding twice still doubles exactly
        check_forward(harness_name("scaled", c.name), &scaled, winner_forward, true);
        check_backward(harness_name("scaled", c.name), &scaled, winner_backward);
        harness_release();
    }
    return check_report();
}
