/*
The next token from logits: the naive kernel (one thread per row, which looks for the largest probability again and
again until enough are kept), the winner of seal_kernels, and a double-precision reference that sorts. The
distribution of many draws is held against exact probabilities by a chi-square test.

  sampling --check [--small]              against the reference (--small: for sanitizers)
  sampling [--rows N] [--vocabulary N]    speed, with the share of a plain copy's bandwidth
*/
#include <algorithm>
#include "harness.h"
#include "kernels.h"

// ---------------------------------------------------------------------------------------------------
// naive kernel: no penalty, no top-k; kept tokens are marked by a negative probability

static __global__ void naive_kernel(int* tokens, float* probabilities, const floatX* logits, const float* uniform,
                                    float temperature, float top_p, int n, int V, int Vp) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= n) return;
    const floatX* x = logits + (size_t)row * Vp;
    float *p = probabilities + (size_t)row * Vp, highest = -INFINITY, total = 0.0f, kept = 0.0f, walked = 0.0f;
    for (int v = 0; v < V; v++) highest = fmaxf(highest, to_float(x[v]));
    for (int v = 0; v < V; v++) total += p[v] = expf((to_float(x[v]) - highest) / temperature);
    while (kept < top_p * total) {
        int best = -1;
        for (int v = 0; v < V; v++)
            if (p[v] > 0.0f && (best < 0 || p[v] > p[best])) best = v;
        if (best < 0) break;
        kept += p[best];
        p[best] = -p[best];
    }
    for (int v = 0; v < V; v++) {
        if (p[v] >= 0.0f) continue;
        tokens[row] = v;
        walked -= p[v];
        if (walked > uniform[row] * kept) break;
    }
}

// ---------------------------------------------------------------------------------------------------
// one problem

typedef struct {
    int n, V, Vp;
    float *logits, *uniform;  // (n, V), (n)
    floatX* d_logits;         // (n, Vp), NaN after V
    float *d_probabilities, *d_uniform;
    int *d_tokens, *d_slots;
    uint32_t *seen, *d_seen;
} Problem;

static Problem problem_create(int n, int V, float spread) {
    Problem p = {};
    p.n = n, p.V = V, p.Vp = CEIL_DIV(V + 1, 64) * 64;
    p.logits = harness_randoms<floatX>((size_t)n * V, spread, 0.0f);
    p.uniform = harness_host<float>(n);
    int *slots = harness_host<int>(n), words = SAMPLE_SEEN_WORDS(V);
    p.seen = harness_host<uint32_t>((size_t)n * words);
    for (int i = 0; i < n; i++) {
        p.uniform[i] = fminf(fmaxf(harness_random() / 3.4641016f + 0.5f, 0.0f), 0.99999994f);
        slots[i] = n - 1 - i;
        for (int v = 0; v < V; v++)
            if (harness_random() > 1.2f) p.seen[(size_t)(n - 1 - i) * words + v / 32] |= 1u << v % 32;
    }
    p.d_logits = harness_upload<floatX>(p.logits, n, V, p.Vp);
    p.d_probabilities = harness_device<float>((size_t)n * p.Vp);
    p.d_uniform = harness_copy(p.uniform, n);
    p.d_slots = harness_copy(slots, n);
    p.d_seen = harness_copy(p.seen, (size_t)n * words);
    p.d_tokens = harness_device<int>(n);
    return p;
}

static int* run(Problem* p, SampleSettings s) {
    p->d_seen = harness_copy(p->seen, (size_t)p->n * SAMPLE_SEEN_WORDS(p->V));
    harness_poison(p->d_tokens, p->n);
    harness_poison(p->d_probabilities, (size_t)p->n * p->Vp);
    draw_tokens({.tokens = p->d_tokens,
                 .probabilities = p->d_probabilities,
                 .logits = p->d_logits,
                 .seen = p->d_seen,
                 .slots = p->d_slots,
                 .uniform = p->d_uniform,
                 .settings = s,
                 .n = p->n,
                 .V = p->V,
                 .Vp = p->Vp},
                0);
    return harness_fetch(p->d_tokens, p->n);
}

// ---------------------------------------------------------------------------------------------------
// reference

static double penalised(const Problem* p, int row, int v, float penalty) {
    double x = p->logits[(size_t)row * p->V + v];
    bool seen = p->seen[(size_t)(p->n - 1 - row) * SAMPLE_SEEN_WORDS(p->V) + v / 32] >> v % 32 & 1;
    return !seen ? x : x < 0 ? x * penalty : x / penalty;
}

// probability (V) of every token in a row, 0 where it is not kept. Returns the probability of the token at top_p's cut
// where rounding may keep one more or less of them, else 0.
static double exact(const Problem* p, int row, SampleSettings s, double* probability) {
    int V = p->V, kept = 0, *order = (int*)malloc(sizeof(int) * V);
    double highest = -INFINITY, total = 0.0, above = 0.0, mass = 0.0, margin = 1.0,
           *x = (double*)malloc(sizeof(double) * V);
    for (int v = 0; v < V; v++) {
        x[v] = penalised(p, row, v, s.repetition_penalty);
        highest = fmax(highest, x[v]);
        order[v] = v;
    }
    std::sort(order, order + V, [&](int a, int b) { return x[a] != x[b] ? x[a] > x[b] : a < b; });
    int k = V;
    if (s.top_k > 0 && s.top_k < V)
        for (k = s.top_k; k < V && x[order[k]] == x[order[s.top_k - 1]];) k++;
    for (int i = 0; i < k; i++) total += exp((x[order[i]] - highest) / s.temperature);
    for (int i = 0; i < k && (s.top_p >= 1.0f || i == 0 || above < s.top_p * total); i++) {
        above += exp((x[order[i]] - highest) / s.temperature);
        if (s.top_p < 1.0f) margin = fmin(margin, fabs(above / total - s.top_p));
        kept = i + 1;
    }
    memset(probability, 0, sizeof(double) * V);
    for (int i = 0; i < kept; i++) mass += probability[order[i]] = exp((x[order[i]] - highest) / s.temperature);
    for (int v = 0; v < V; v++) probability[v] /= mass;
    double cut = probability[order[kept - 1]];
    free(order);
    free(x);
    return margin < 1e-5 ? cut : 0.0;
}

// ---------------------------------------------------------------------------------------------------
// checks

static const struct {
    const char* name;
    SampleSettings s;
} settings[] = {
    {"plain", {false, 1.0f, 1.0f, 0, 1.0f}},       {"top-p 0.9", {false, 1.0f, 0.9f, 0, 1.0f}},
    {"top-k 7", {false, 1.0f, 1.0f, 7, 1.0f}},     {"temperature 0.3", {false, 0.3f, 1.0f, 0, 1.0f}},
    {"penalty 1.2", {false, 1.0f, 1.0f, 0, 1.2f}}, {"all of them", {false, 0.7f, 0.8f, 20, 1.3f}},
};

// The random number must fall into the token's share of the reference's distribution, up to the rounding of fp32 sums
// and to a token more or less at the cut.
static void check_tokens(const char* name, int n, int V, float spread) {
    Problem p = problem_create(n, V, spread);
    double* probability = harness_host<double>(V);
    for (auto& c : settings) {
        int *tokens = run(&p, c.s), *again = run(&p, c.s), wrong = 0, unmarked = 0;
        double widest = 0.0;
        uint32_t* seen = harness_fetch(p.d_seen, (size_t)n * SAMPLE_SEEN_WORDS(V));
        for (int i = 0; i < n; i++) {
            double cut = exact(&p, i, c.s, probability), slack = 2e-5 + cut, before = 0.0;
            int t = tokens[i];
            for (int v = 0; v < t; v++) before += probability[v];
            wrong += t < 0 || t >= V || (probability[t] == 0.0 && cut == 0.0) || p.uniform[i] < before - slack ||
                     p.uniform[i] > before + probability[t] + slack;
            widest = fmax(widest, slack);
            unmarked += t < 0 || t >= V || !(seen[(size_t)(n - 1 - i) * SAMPLE_SEEN_WORDS(V) + t / 32] >> t % 32 & 1);
        }
        check(wrong == 0 && widest < 0.1, "%s, %s: every token is the reference's, up to %.0e of the mass", name,
              c.name, widest);
        check(unmarked == 0, "%s, %s: every token drawn is marked as seen", name, c.name);
        check(!memcmp(tokens, again, n * sizeof(int)), "%s, %s: two equal runs give equal tokens", name, c.name);
    }
    harness_release();
}

// Many draws from one row: Σ (observed − expected)² / expected against its own mean and spread (df ± √(2 df)); rare
// tokens are taken together.
static void check_distribution(int V, int draws) {
    for (auto& c : settings) {
        Problem p = problem_create(draws, V, 1.5f);
        double *probability = harness_host<double>(V), chi = 0.0, rare = 0.0;
        int *observed = harness_host<int>(V), outside = 0, rare_seen = 0, cells = 0;
        for (int i = 1; i < draws; i++) memcpy(p.logits + (size_t)i * V, p.logits, V * sizeof(float));
        memset(p.seen, 0x5a, (size_t)draws * SAMPLE_SEEN_WORDS(V) * sizeof(uint32_t));
        p.d_logits = harness_upload<floatX>(p.logits, draws, V, p.Vp);
        exact(&p, 0, c.s, probability);
        int* tokens = run(&p, c.s);
        for (int i = 0; i < draws; i++) observed[tokens[i]]++;
        for (int v = 0; v < V; v++) {
            double expected = probability[v] * draws;
            if (expected == 0.0) outside += observed[v];
            else if (expected < 5.0) rare += expected, rare_seen += observed[v];
            else chi += (observed[v] - expected) * (observed[v] - expected) / expected, cells++;
        }
        if (rare >= 1.0) chi += (rare_seen - rare) * (rare_seen - rare) / rare, cells++;
        double freedom = cells - 1;
        check(outside == 0 && freedom >= 2 && fabs(chi - freedom) < 4.5 * sqrt(2.0 * freedom),
              "%d draws, %s: chi-square %.1f at %g degrees of freedom, %d tokens outside", draws, c.name, chi, freedom,
              outside);
        harness_release();
    }
}

typedef struct {
    float logits[10];
    float uniform;
    SampleSettings s;
    int expected;
    const char* what;
} Edge;
static void check_edges(void) {
    const float no = -INFINITY;
    const SampleSettings greedy = {true, 1.0f, 1.0f, 0, 1.0f}, plain = {false, 1.0f, 1.0f, 0, 1.0f},
                         tiny = {false, 1.0f, 1e-6f, 0, 1.0f}, half = {false, 1.0f, 0.5f, 0, 1.0f};
    const SampleSettings one = {false, 1.0f, 1.0f, 1, 1.0f}, many = {false, 1.0f, 1.0f, 99, 1.0f},
                         cold = {false, 1e-3f, 1.0f, 0, 1.0f}, whole = {false, 1.0f, 1.5f, 0, 1.0f};
    const float end = 0.99999994f;
    const Edge edges[] = {
        {{0, 3, 1, 3, 2, 0, 0, 0, 0, 0}, 0, greedy, 1, "greedy takes the lowest of equals"},
        {{no, no, no, no, no, no, no, no, -5, no}, 0.5f, plain, 8, "what has probability 0 is never drawn"},
        {{no, 0, no, no, no, no, no, no, no, 0}, 0, plain, 1, "a uniform number of 0 is the first that can be drawn"},
        {{no, 0, no, no, no, no, no, no, 0, no}, end, plain, 8, "one just below 1 the last"},
        {{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, end, half, 4, "half of ten equals are the first five"},
        {{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, end, tiny, 0, "a tiny top_p of equals leaves the first"},
        {{0, 2, 5, 1, 0, 0, 0, 0, 0, 0}, end, tiny, 2, "a tiny top_p leaves the likeliest"},
        {{0, 2, 5, 1, 5, 0, 0, 0, 0, 0}, end, one, 4, "top_k keeps what equals its last"},
        {{0, 2, 5, 1, 3, 0, 0, 0, 0, 0}, end, one, 2, "top_k 1 is the likeliest"},
        {{0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, end, many, 9, "a top_k above the vocabulary keeps all"},
        {{0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, end, whole, 9, "a top_p above 1 keeps all"},
        {{0, 1, 1.5f, 0, 0, 0, 0, 0, 0, 0}, 0, cold, 2, "a low temperature is greedy"},
        {{3e37f, -3e37f, 0, 0, 0, 0, 0, 0, 0, 0}, end, plain, 0, "huge logits do not overflow"},
        {{0, NAN, 1, 0, 0, 0, 0, 0, 0, 0}, 0, plain, -1, "a NaN is an error"},
        {{0, INFINITY, 1, 0, 0, 0, 0, 0, 0, 0}, 0, greedy, -1, "an infinite logit is an error"},
        {{no, no, no, no, no, no, no, no, no, no}, 0, greedy, -1, "so is a row without a possible token"},
    };
    for (const Edge& e : edges) {
        Problem p = problem_create(1, 10, 1.0f);
        memcpy(p.logits, e.logits, sizeof e.logits);
        p.d_logits = harness_upload<floatX>(p.logits, 1, 10, p.Vp);
        p.d_uniform = harness_copy(&e.uniform, 1);
        int token = run(&p, e.s)[0];
        check(token == e.expected, "%s (token %d)", e.what, token);
        // without `seen` there is nothing to mark
        draw_tokens({.tokens = p.d_tokens,
                     .probabilities = p.d_probabilities,
                     .logits = p.d_logits,
                     .seen = NULL,
                     .slots = NULL,
                     .uniform = p.d_uniform,
                     .settings = e.s,
                     .n = 1,
                     .V = 10,
                     .Vp = p.Vp},
                    0);
        check(harness_fetch(p.d_tokens, 1)[0] == e.expected, "%s, no tokens seen", e.what);
        harness_release();
    }
    // A penalty makes what was seen less likely whatever its sign, greedy too.
    Problem p = problem_create(2, 10, 1.0f);
    const float rows[20] = {2, 1.9f, 0, 0, 0, 0, 0, 0, 0, 0, -1, -1.1f, -9, -9, -9, -9, -9, -9, -9, -9};
    memcpy(p.logits, rows, sizeof rows);
    p.seen[0] = p.seen[1] = 1;
    p.d_logits = harness_upload<floatX>(p.logits, 2, 10, p.Vp);
    int* tokens = run(&p, {true, 1.0f, 1.0f, 0, 1.2f});
    check(tokens[0] == 1 && tokens[1] == 1, "a penalty divides what is positive and multiplies what is negative");
    harness_release();
}

static void check_naive(int n, int V) {
    Problem p = problem_create(n, V, 2.0f);
    SampleSettings s = settings[1].s;
    int *winner = run(&p, s), same = 0;
    LAUNCH(naive_kernel, CEIL_DIV(n, 32), 32, 0, 0, p.d_tokens, p.d_probabilities, p.d_logits, p.d_uniform,
           s.temperature, s.top_p, n, V, p.Vp);
    int* naive = harness_fetch(p.d_tokens, n);
    for (int i = 0; i < n; i++) same += winner[i] == naive[i];
    check(same >= n - 1 - n / 50, "the naive kernel draws the same tokens (%d of %d)", same, n);
    harness_release();
}

// ---------------------------------------------------------------------------------------------------

typedef struct {
    Problem* p;
    SampleSettings s;
    bool naive;
} Timed;
static void timed_run(void* data, cudaStream_t stream) {
    Timed* t = (Timed*)data;
    Problem* p = t->p;
    if (t->naive)
        LAUNCH(naive_kernel, CEIL_DIV(p->n, 32), 32, 0, stream, p->d_tokens, p->d_probabilities, p->d_logits,
               p->d_uniform, t->s.temperature, t->s.top_p, p->n, p->V, p->Vp);
    else
        draw_tokens({.tokens = p->d_tokens,
                     .probabilities = p->d_probabilities,
                     .logits = p->d_logits,
                     .seen = p->d_seen,
                     .slots = p->d_slots,
                     .uniform = p->d_uniform,
                     .settings = t->s,
                     .n = p->n,
                     .V = p->V,
                     .Vp = p->Vp},
                    stream);
}

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int n = 256, V = 128256;
    const float spread = 200.0f;  // some hundred tokens hold 0.9 of the mass, as in a model's text; the naive kernel's
                                  // thread of a row would take a minute over thousands
#else
    int n = 16, V = 50257;
    const float spread = 2.5f;
#endif
    const HarnessOption options[] = {{"--rows", &n, 1, "rows"}, {"--vocabulary", &V, 1, "vocabulary"}};
    harness_options(argc, argv, options, 2);
    if (harness_check) {
        check_edges();
        check_tokens("n37-V1", 37, 1, 1.0f);
        check_tokens("n23-V331", 23, 331, 2.0f);
        check_naive(19, 331);
        if (harness_small) return check_report();
        check_tokens("n200-V1031", 200, 1031, 3.0f);
        check_tokens("n9-V50257", 9, 50257, 4.0f);
        check_distribution(97, 20000);
        return check_report();
    }
    Problem p = problem_create(n, V, spread);
    double tensor = (double)n * p.Vp * sizeof(floatX);
    Timed rows[] = {{&p, {true, 1.0f, 1.0f, 0, 1.0f}, false},
                    {&p, settings[0].s, false},
                    {&p, settings[1].s, true},
                    {&p, settings[1].s, false},
                    {&p, settings[5].s, false}};
    const char* names[] = {"greedy", "plain", "naive, top-p 0.9", "top-p 0.9", "all of them"};
    printf("sampling " FLOATX_NAME ", %d rows, vocabulary %d\n", n, V);
    for (int i = 0; i < 5; i++) harness_report(names[i], timed_run, &rows[i], tensor);
    harness_release();
    return 0;
}
