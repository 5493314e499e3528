/*
The weighted loss: gathering and scattering rows, cross-entropy forward and backward in place, the mean loss of each
sample. Cross-entropy is a ladder: one thread per row, one block per row, one pass for maximum and sum, and the winner
of seal_kernels; a double-precision reference is fed the same rounded inputs.

  loss --check [--small]               against the reference, the gradient also by finite differences (--small: for
                                       sanitizers)
  loss [--rows N] [--vocabulary N]     speed, with the share of a plain copy's bandwidth
*/
#include <float.h>
#include <sys/wait.h>
#include "harness.h"
#include "kernels.h"

// ---------------------------------------------------------------------------------------------------
// Step 0, naive: one thread per row, three passes (maximum; sum of exponentials; gradient). Neighbouring threads read
// addresses a row of the vocabulary apart, and a batch of n rows is n threads: a GPU is nearly empty. bf16, sm_90: a
// warp issues 56 instructions per logit of its 32 rows.

static __global__ void naive_cross_entropy_kernel(floatX* logits, float* loss, const int* targets, const float* weight,
                                                  int n, int V, int Vp) {
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= n) return;
    floatX* x = logits + (size_t)row * Vp;
    float highest = -INFINITY, sum = 0.0f;
    for (int v = 0; v < V; v++) highest = fmaxf(highest, to_float(x[v]));
    for (int v = 0; v < V; v++) sum += expf(to_float(x[v]) - highest);
    loss[row] = logf(sum) + highest - to_float(x[targets[row]]);
    for (int v = 0; v < Vp; v++)
        x[v] = from_float<floatX>(v < V ? weight[row] * (expf(to_float(x[v]) - highest) / sum - (v == targets[row]))
                                        : 0.0f);
}

// ---------------------------------------------------------------------------------------------------
// Step 1: one block per row. Neighbouring threads read neighbouring logits; maximum and sum are reductions of the
// block. A row is read three times and written once, in whole sectors; 44 instructions for 32 logits, a division per
// logit less.

#define STEP_BLOCK 256

static __global__ void block_cross_entropy_kernel(floatX* logits, float* loss, const int* targets, const float* weight,
                                                  int n, int V, int Vp) {
    int row = blockIdx.x, target = targets[row];
    floatX* x = logits + (size_t)row * Vp;
    float at_target = to_float(x[target]), highest = -INFINITY, sum = 0.0f;  // read before anybody writes
    (void)n;
    for (int v = threadIdx.x; v < V; v += STEP_BLOCK) highest = fmaxf(highest, to_float(x[v]));
    highest = block_max(highest);
    for (int v = threadIdx.x; v < V; v += STEP_BLOCK) sum += expf(to_float(x[v]) - highest);
    sum = block_sum(sum);
    if (threadIdx.x == 0) loss[row] = logf(sum) + highest - at_target;
    float scale = weight[row] / sum;  // a division per logit would be a call
    for (int v = threadIdx.x; v < Vp; v += STEP_BLOCK)
        x[v] = from_float<floatX>(v < V ? scale * expf(to_float(x[v]) - highest) - (v == target ? weight[row] : 0.0f)
                                        : 0.0f);
}

// ---------------------------------------------------------------------------------------------------
// Step 2: maximum and sum in one pass (Milakov and Gimelshein 2018). Each thread keeps the maximum of what it has seen
// and corrects its sum when that grows; partial sums meet at the row's maximum. A row is read twice, the second time
// from the L2 cache; the second exponential makes it 52 instructions for 32 logits. What the winner adds: eight logits
// per load, four loads in flight, one correction for all 32, and as many threads per row as leave the rows of all
// blocks in the L2 cache between the two reads; log2 e in the subtraction before ex2, and no question of an edge or a
// target in its loops: 12 instructions.

static __global__ void online_cross_entropy_kernel(floatX* logits, float* loss, const int* targets, const float* weight,
                                                   int n, int V, int Vp) {
    int row = blockIdx.x, target = targets[row];
    floatX* x = logits + (size_t)row * Vp;
    float at_target = to_float(x[target]), mine = -FLT_MAX, sum = 0.0f;  // finite: −∞ − −∞ is NaN
    (void)n;
    for (int v = threadIdx.x; v < V; v += STEP_BLOCK) {
        float logit = to_float(x[v]), before = mine;
        mine = fmaxf(mine, logit);
        sum = sum * expf(before - mine) + expf(logit - mine);
    }
    float highest = block_max(mine);
    sum = block_sum(sum * expf(mine - highest));
    if (threadIdx.x == 0) loss[row] = logf(sum) + highest - at_target;
    float scale = weight[row] / sum;
    for (int v = threadIdx.x; v < Vp; v += STEP_BLOCK)
        x[v] = from_float<floatX>(v < V ? scale * expf(to_float(x[v]) - highest) - (v == target ? weight[row] : 0.0f)
                                        : 0.0f);
}

// ---------------------------------------------------------------------------------------------------
// one problem

typedef struct {
    int n, V, Vp;
    float cap;               // of the logits; 0: none
    float *logits, *weight;  // (n, V), (n)
    int* targets;
    floatX* d_logits;  // (n, Vp)
    float *d_loss, *d_weight;
    int* d_targets;
} Problem;

static Problem problem_create(int n, int V, float spread, float cap) {
    Problem p = {n, V, CEIL_DIV(V + 1, 64) * 64, cap, NULL, NULL, NULL, NULL, NULL, NULL, NULL};
    p.logits = harness_randoms<floatX>((size_t)n * V, spread, 0.0f);
    p.weight = harness_randoms<float>(n, 0.5f, 1.0f);
    p.targets = harness_host<int>(n);
    for (int i = 0; i < n; i++) {
        p.targets[i] = i == 0 ? V - 1 : i == 1 ? 0 : (int)((harness_random() + 2.0f) * 1e6f) % V;
        if (i % 5 == 2) p.weight[i] = 0.0f;
    }
    p.d_logits = harness_upload<floatX>(p.logits, n, V, p.Vp);
    p.d_loss = harness_device<float>(n);
    p.d_weight = harness_copy(p.weight, n);
    p.d_targets = harness_copy(p.targets, n);
    return p;
}

typedef void (*Pass)(Problem* p, cudaStream_t stream);
static void winner(Problem* p, cudaStream_t stream) {
    cross_entropy(p->d_logits, p->d_loss, p->d_targets, p->d_weight, p->cap, p->n, p->V, p->Vp, stream);
}
static void winner_forward(Problem* p, cudaStream_t stream) {
    cross_entropy(p->d_logits, p->d_loss, p->d_targets, NULL, p->cap, p->n, p->V, p->Vp, stream);
}
static void naive(Problem* p, cudaStream_t stream) {
    LAUNCH(naive_cross_entropy_kernel, CEIL_DIV(p->n, 64), 64, 0, stream, p->d_logits, p->d_loss, p->d_targets,
           p->d_weight, p->n, p->V, p->Vp);
}
static void block_per_row(Problem* p, cudaStream_t stream) {
    LAUNCH(block_cross_entropy_kernel, p->n, STEP_BLOCK, 0, stream, p->d_logits, p->d_loss, p->d_targets, p->d_weight,
           p->n, p->V, p->Vp);
}
static void one_pass(Problem* p, cudaStream_t stream) {
    LAUNCH(online_cross_entropy_kernel, p->n, STEP_BLOCK, 0, stream, p->d_logits, p->d_loss, p->d_targets, p->d_weight,
           p->n, p->V, p->Vp);
}
static const struct {
    const char* name;
    Pass pass;
} steps[] = {{"naive", naive}, {"block per row", block_per_row}, {"one pass", one_pass}};

// ---------------------------------------------------------------------------------------------------
// checks

typedef struct {
    float *loss, *dlogits;
} Result;  // (n), (n, Vp)
static Result run(Problem* p, Pass pass) {
    Result r;
    bool tails;
    p->d_logits = harness_upload<floatX>(p->logits, p->n, p->V, p->Vp);  // the padded columns hold NaN before
    harness_poison(p->d_loss, p->n);
    pass(p, 0);
    r.loss = harness_fetch(p->d_loss, p->n);
    r.dlogits = harness_download(p->d_logits, p->n, p->Vp, p->Vp, &tails);
    return r;
}

static double slope_value(void* data, const float* x) {
    Problem* p = (Problem*)data;
    double sum = 0.0;
    p->d_logits = harness_upload<floatX>(x, p->n, p->V, p->Vp);
    winner_forward(p, 0);
    float* loss = harness_fetch(p->d_loss, p->n);
    for (int i = 0; i < p->n; i++) sum += (double)p->weight[i] * loss[i];
    return sum;
}

static void check_cross_entropy(const char* name, int n, int V, float spread, float cap, Pass pass) {
    Problem p = problem_create(n, V, spread, cap);
    double *loss = harness_host<double>(n), *dlogits = harness_host<double>((size_t)n * p.Vp),
           *x = harness_host<double>(V);
    for (int i = 0; i < n; i++) {
        const float* raw = p.logits + (size_t)i * V;
        double highest = -INFINITY, sum = 0.0;
        for (int v = 0; v < V; v++) x[v] = cap ? cap * tanh(raw[v] / cap) : raw[v];
        for (int v = 0; v < V; v++) highest = fmax(highest, x[v]);
        for (int v = 0; v < V; v++) sum += exp(x[v] - highest);
        loss[i] = log(sum) + highest - x[p.targets[i]];
        for (int v = 0; v < V; v++) {
            double slope = cap ? 1.0 - x[v] / cap * (x[v] / cap) : 1.0;
            dlogits[(size_t)i * p.Vp + v] = slope * p.weight[i] * (exp(x[v] - highest) / sum - (v == p.targets[i]));
        }
    }
    Result first = run(&p, pass), second = run(&p, pass);
    check_close(harness_name(name, "loss"), first.loss, loss, n, 1e-5);  // fp32 sums in both builds
    harness_compare_x(harness_name(name, "dlogits"), first.dlogits, dlogits, (long)n * p.Vp);
    bool zero = true;
    for (size_t i = 0; i < (size_t)n * p.Vp; i++)
        if ((i % p.Vp >= (size_t)V || p.weight[i / p.Vp] == 0.0f) && first.dlogits[i] != 0.0f) zero = false;
    check(zero, "%s: padded columns and rows of weight 0 are zero", name);
    check(!memcmp(first.loss, second.loss, n * sizeof(float)) &&
              !memcmp(first.dlogits, second.dlogits, (size_t)n * p.Vp * sizeof(float)),
          "%s: two equal runs give equal bits", name);
    if (pass == winner) {
        Result forward = run(&p, winner_forward);
        bool kept = true;
        for (size_t i = 0; i < (size_t)n * p.Vp; i++)
            kept = kept && (i % p.Vp < (size_t)V ? forward.dlogits[i] == p.logits[i / p.Vp * V + i % p.Vp]
                                                 : isnan(forward.dlogits[i]));
        check(kept && !memcmp(forward.loss, first.loss, n * sizeof(float)),
              "%s: forward only gives the same loss and leaves the logits", name);
        if (sizeof(floatX) == sizeof(float)) {
            float* gradient = harness_host<float>((size_t)n * V);
            for (size_t i = 0; i < (size_t)n * V; i++) gradient[i] = first.dlogits[i / V * p.Vp + i % V];
            harness_check_slope(harness_name(name, "dlogits"), slope_value, &p, p.logits, gradient, (long)n * V, 1e-2f);
        }
    }
    harness_release();
}

// Logits of −∞ have probability 0, huge ones do not overflow, a NaN shows in the loss of its row alone.
static void check_limits(void) {
    const int V = 11;
    Problem p = problem_create(4, V, 1.0f, 0.0f);
    for (int v = 0; v < V; v++) {
        p.logits[v] = v == 3 ? 2.0f : -INFINITY;    // target: the last, of probability 0
        p.logits[V + v] = v == 0 ? 3e37f : -3e37f;  // target: the first, of probability 1
        p.logits[2 * V + v] = v == 5 ? NAN : 1.0f;  // its weight is 0
        p.logits[3 * V + v] = v < 2 ? 1.0f : -INFINITY;
    }
    p.targets[3] = 1;
    p.weight[3] = 1.0f;
    p.d_targets = harness_copy(p.targets, 4);
    p.d_weight = harness_copy(p.weight, 4);
    Result r = run(&p, winner);
    check(r.loss[0] == INFINITY, "a target of logit −inf has an infinite loss: %g", r.loss[0]);
    check(r.loss[1] == 0.0f, "a logit that dominates has loss 0: %g", r.loss[1]);
    check(isnan(r.loss[2]) && r.dlogits[2 * p.Vp] == 0.0f,
          "a NaN shows in the loss, a weight of 0 keeps it out of the gradient");
    check(fabsf(r.loss[3] - 0.6931472f) < 1e-6f && r.dlogits[3 * p.Vp + 5] == 0.0f && r.dlogits[3 * p.Vp] == 0.5f,
          "two finite logits share the probability");
    harness_release();
}

static void check_rows(int T, int C, int pad, float scale) {  // a power of two: exact
    int n = 0, ldi = C + pad, *index = harness_host<int>(T), *rows = harness_host<int>(T);
    float* inp = harness_randoms<floatX>((size_t)T * C, 1.0f, 0.0f);
    for (int t = 0; t < T; t++) {
        index[t] = harness_random() < 0.0f ? n : -1;
        if (index[t] >= 0) rows[n++] = t;
    }
    floatX *d_inp = harness_upload<floatX>(inp, T, C, ldi), *d_out = harness_device<floatX>((size_t)T * C),
           *d_back = harness_device<floatX>((size_t)T * C);
    bool tails, good = true, inverse = true;
    gather_rows(d_out, d_inp, harness_copy(rows, T), scale, n, C, ldi, 0);
    scatter_rows(d_back, d_out, harness_copy(index, T), scale, T, C, 0);
    float *out = harness_download(d_out, T, C, C, &tails), *back = harness_download(d_back, T, C, C, &tails);
    for (size_t i = 0; i < (size_t)n * C; i++) good = good && out[i] == scale * inp[(size_t)rows[i / C] * C + i % C];
    for (size_t i = (size_t)n * C; i < (size_t)T * C; i++) good = good && isnan(out[i]);
    for (size_t i = 0; i < (size_t)T * C; i++)
        inverse = inverse && back[i] == (index[i / C] >= 0 ? scale * scale * inp[i] : 0.0f);
    check(good, "gather %d of %d rows: bit for bit, nothing past the last", n, T);
    check(inverse, "scatter %d of %d rows: the inverse, zeros elsewhere", n, T);
    harness_release();
}

static void check_samples(void) {
    enum { K = 37 };
    int start[K + 1] = {0}, place[K];
    for (int s = 0; s < K; s++) {
        start[s + 1] = start[s] + (s == 4 ? 0 : s == 5 ? 1 : s == 6 ? 1000 : 7 * s);
        place[s] = (s * 5 + 3) % K;
    }
    int n = start[K];
    float *loss = harness_randoms<float>(n, 1.0f, 3.0f), *d_loss = harness_copy(loss, n),
          *d_sample = harness_device<float>(K);
    int* d_targets = harness_copy(harness_host<int>(n), n);  // all of them 0
    const BadTarget none = NO_BAD_TARGET;
    BadTarget* d_word = harness_copy(&none, 1);
    int *d_start = harness_copy(start, K + 1), *d_place = harness_copy(place, K);
    for (int placed = 0; placed < 2; placed++) {
        double expected[K] = {0.0};
        for (int s = 0; s < K; s++)
            for (int i = start[s]; i < start[s + 1]; i++)
                expected[placed ? place[s] : s] += (double)loss[i] / (start[s + 1] - start[s]);
        harness_poison(d_sample, K);
        sample_losses(d_sample, d_word, d_loss, d_targets, 1, d_start, placed ? d_place : NULL, K, 0);
        check_close(placed ? "sample losses at their places" : "sample losses in pack order",
                    harness_fetch(d_sample, K), expected, K, 1e-6);
    }
    harness_release();
}

// Targets outside the vocabulary: their rows have a loss that is NaN and no gradient, the others what they have without
// them. The word has the lowest place whose sample has one, and that target.
static void check_bad_targets(void) {
    enum { N = 9, V = 9, K = 4 };
    const int bad[] = {V, -1, INT_MAX, INT_MIN}, start[K + 1] = {0, 2, 2, 5, N};
    const int at[] = {1, 2, 4, 8}, sample_of[] = {0, 2, 2, 3}, place[K] = {3, 0, 2, 1};
    Problem p = problem_create(N, V, 1.0f, 0.0f);
    for (int i = 0; i < N; i++) p.weight[i] = 0.5f;
    p.d_weight = harness_copy(p.weight, N);
    Result good = run(&p, winner);
    float* d_sample = harness_device<float>(K);
    int *d_start = harness_copy(start, K + 1), *d_place = harness_copy(place, K);
    const BadTarget none = NO_BAD_TARGET;
    BadTarget* d_word = harness_copy(&none, 1);
    for (int planted = 0; planted <= 4; planted++) {  // one more each time
        int* targets = harness_host<int>(N);
        memcpy(targets, p.targets, N * sizeof(int));
        for (int i = 0; i < planted; i++) targets[at[i]] = bad[i];
        p.d_targets = harness_copy(targets, N);
        Result r = run(&p, winner);
        bool others = true, marked = true;
        for (int row = 0; row < N; row++) {
            bool is_bad = targets[row] < 0 || targets[row] >= V;
            for (int v = 0; v < p.Vp; v++)
                if (is_bad) marked = marked && r.dlogits[row * p.Vp + v] == 0.0f;
            if (is_bad) marked = marked && isnan(r.loss[row]);
            else
                others = others && r.loss[row] == good.loss[row] &&
                         !memcmp(r.dlogits + row * p.Vp, good.dlogits + row * p.Vp, p.Vp * sizeof(float));
        }
        check(others && marked, "%d targets outside the vocabulary: loss NaN, no gradient, other rows as before",
              planted);
        for (int placed = 0; placed < 2; placed++) {
            cudaCheck(cudaMemcpy(d_word, &none, sizeof none, cudaMemcpyHostToDevice));
            sample_losses(d_sample, d_word, p.d_loss, p.d_targets, V, d_start, placed ? d_place : NULL, K, 0);
            BadTarget expected = NO_BAD_TARGET;
            for (int i = 0; i < planted; i++) {
                BadTarget word = (BadTarget)(placed ? place[sample_of[i]] : sample_of[i]) << 32 | (unsigned)bad[i];
                if (word < expected) expected = word;
            }
            BadTarget word = *harness_fetch(d_word, 1);
            check(word == expected, "%d of them, %s: the word is %llx", planted, placed ? "placed" : "in pack order",
                  word);
        }
    }
    harness_release();
}

// ---------------------------------------------------------------------------------------------------

static const struct {
    const char* name;
    int n, V;
    float spread;
    bool small;
} cases[] = {
    {"n1-V1", 1, 1, 1.0f, true},          {"n5-V9", 5, 9, 3.0f, true},          {"n7-V1031", 7, 1031, 3.0f, true},
    {"n64-V8192", 64, 8192, 2.0f, false}, {"n9-V50257", 9, 50257, 4.0f, false}, {"n3-V128256", 3, 128256, 8.0f, false},
};

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int n = 8192, V = 50257;
#else
    int n = 64, V = 50257;
#endif
    const HarnessOption options[] = {{"--rows", &n, 1, "rows"}, {"--vocabulary", &V, 1, "vocabulary"}};
    harness_options(argc, argv, options, 2);
    if (!harness_check) {
        Problem p = problem_create(n, V, 2.0f, 0.0f);
        // logits become their gradient on the first run and are small and finite ever after; the work does not depend
        // on their values
        for (int i = 0; i < n; i++) p.weight[i] = 1.0f;
        p.d_weight = harness_copy(p.weight, n);
        double tensor = (double)n * p.Vp * sizeof(floatX);
        struct {
            const char* name;
            Pass pass;
            double tensors;
        } rows[] = {{"naive", naive, 2},
                    {"block per row", block_per_row, 2},
                    {"one pass", one_pass, 2},
                    {"winner", winner, 2},
                    {"winner, forward only", winner_forward, 1}};
        printf("cross-entropy " FLOATX_NAME ", %d rows, vocabulary %d\n", n, V);
        for (auto& row : rows) {
            harness_report(row.name, row.pass, &p, row.tensors * tensor);
        }
        harness_release();
        return 0;
    }
    for (auto& c : cases) {
        if (harness_small && !c.small) continue;
        check_cross_entropy(c.name, c.n, c.V, c.spread, 0.0f, winner);
        for (auto& step : steps)
            if (c.V <= 1031) check_cross_entropy(harness_name(step.name, c.name), c.n, c.V, c.spread, 0.0f, step.pass);
    }
    check_cross_entropy("capped n7-V1031", 7, 1031, 20.0f, 30.0f, winner);  // logits up to the bend of the cap
    check_cross_entropy("capped n3-V9", 3, 9, 1.0f, 2.0f, winner);
    check_limits();
    check_rows(1, 8, 8, 1.0f);
    check_rows(133, 264, 8, 1.0f);
    check_rows(33, 16, 0, 0.25f);
    check_samples();
    check_bad_targets();
    return check_report();
}
