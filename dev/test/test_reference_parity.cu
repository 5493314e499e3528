/*
The trainer against the oracle of dev/reference/seal_reference.c on random configurations that no file records: shapes,
weights, samples, γ, learning rates, clipping and decay drawn from a seed, batches that repeat rows, samples without a
loss. Both algorithms, both activations, several packs a step. The oracle computes in double and shares no line with the
trainer; test_reference.c holds it to PyTorch.

    test_reference_parity [SEED …]        other seeds than 1 and 7

fp32: losses, gradients and parameters max|a−b| ≤ 1e-5·max|b| per step and tensor, norms within 1e-5 relative, ω
within 1e-4 after all steps. bf16 changes the arithmetic of every step: there the first step is compared, with weights
that bf16 holds exactly.
*/
#include <stdbool.h>
#include <string.h>
#include "check.h"
#include "base/error.h"
#include "base/safetensors.h"
#define TESTING
#include "../../train_seal.cu"

// The oracle's names are plain ones (Model, attention_forward, …), so they get a room of their own.
namespace oracle {
#define SEAL_REFERENCE_TEST
#include "../reference/seal_reference.c"
#include "reference_io.h"
}  // namespace oracle
using oracle::real;

#ifdef PRECISION_BF16
static const bool bf16 = true;
#else
static const bool bf16 = false;
#endif

// ---------------------------------------------------------------------------------------------------
// a random configuration

static uint64_t random_state;
static uint64_t random_bits(void) {  // splitmix64
    uint64_t z = random_state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
static int whole(int least, int most) { return least + (int)(random_bits() % (uint64_t)(most - least + 1)); }
static double uniform(double least, double most) {
    return least + (most - least) * (double)(random_bits() >> 11) / 9007199254740992.0;
}

#define MOST 8  // samples of one kind in a batch
#define STEPS 8

typedef struct {
    int n, longest;
    int* tokens;          // (n, longest)
    uint8_t* bears_loss;  // (n, longest)
    oracle::Sample* samples;
    PackSample* pack;  // the same for the trainer
} Set;

static Set random_set(int n, int longest, int V) {
    Set s = {n,
             longest,
             (int*)calloc((size_t)n * longest, sizeof(int)),
             (uint8_t*)calloc((size_t)n * longest, 1),
             (oracle::Sample*)calloc(n, sizeof(oracle::Sample)),
             (PackSample*)calloc(n, sizeof(PackSample))};
    for (int i = 0; i < n; i++) {
        int *tokens = s.tokens + i * longest, T = i == 1 ? 1 : whole(2, longest), n_loss = 0;  // row 1 has no loss
        uint8_t* bears = s.bears_loss + i * longest;
        oracle::Sample sample = {tokens, T, whole(0, T - 1)};
        for (int t = 0; t < T; t++) tokens[t] = whole(0, V - 1);
        for (int t = 1; t < T; t++) n_loss += bears[t] = t >= sample.prompt;
        PackSample pack = {tokens, bears, T, n_loss, i};
        s.samples[i] = sample;
        s.pack[i] = pack;
    }
    return s;
}
static void free_set(Set* s) {
    free(s->tokens);
    free(s->bears_loss);
    free(s->samples);
    free(s->pack);
}

typedef struct {
    oracle::Config model;
    int N, M, tokens_per_pack;
    float lr, lr_hat, lr_omega, clip, weight_decay, gamma[STEPS];
    bool gamma_scales_omega;
    int b[STEPS], m[STEPS], tune_rows[STEPS][MOST], safe_rows[STEPS][MOST];
    Set tune, safe;
} Case;

static Case random_case(uint64_t seed) {
    static const int head_sizes[] = {32, 64, 80}, rounds[] = {64, 128};
    random_state = seed * 0x2545f4914f6cdd1dull;
    Case c = {};
    int head_size = head_sizes[whole(0, 2)], NH = whole(1, 2);
    c.model = {whole(1, 3), head_size * NH, NH, whole(50, 300), whole(24, 48), 1e-5};
    c.N = whole(12, 40), c.M = whole(6, 16);
    c.tokens_per_pack = rounds[whole(0, 1)];
    c.lr = (float)uniform(1e-4, 2e-3), c.lr_hat = (float)uniform(1e-4, 2e-3), c.lr_omega = (float)uniform(1e-3, 1e-2);
    c.clip = (float)uniform(0.2, 4), c.weight_decay = (float)uniform(0, 0.2);
    c.gamma_scales_omega = whole(0, 1);
    c.tune = random_set(c.N, c.model.positions, c.model.V);
    c.safe = random_set(c.M, c.model.positions, c.model.V);
    for (int step = 0; step < STEPS; step++) {
        c.gamma[step] = step == 2 ? 0.0f : step == 4 ? 1.0f : (float)uniform(0.05, 0.95);
        c.b[step] = whole(2, MOST), c.m[step] = whole(2, MOST);
        for (int i = 0; i < MOST; i++)
            c.tune_rows[step][i] = whole(0, c.N - 1), c.safe_rows[step][i] = whole(0, c.M - 1);
        if (step % 2) c.tune_rows[step][1] = c.tune_rows[step][0];  // a row twice
        // something carries loss: the row that has none is not alone in a batch
        while (c.safe_rows[step][0] == 1) c.safe_rows[step][0] = whole(0, c.M - 1);
        while (c.tune_rows[step][0] == 1) c.tune_rows[step][0] = c.tune_rows[step][1] = whole(0, c.N - 1);
    }
    return c;
}

// ---------------------------------------------------------------------------------------------------
// one model, two programs

// The kind and layer of the tensor that a checkpoint calls hf_name.
static void find_tensor(const oracle::Model* model, const char* hf_name, int* kind, int* layer) {
    char name[160];
    for (*kind = 0; *kind < oracle::KINDS; ++*kind)
        for (*layer = 0; *layer < (oracle::per_layer(*kind) ? model->config.L : 1); ++*layer) {
            oracle::reference_name(name, sizeof name, *kind, *layer);
            if (!strcmp(name, hf_name)) return;
        }
    fatal("the oracle has no tensor %s", hf_name);
}

// Random weights, as large as those of record_gpt2.py: every gradient matters. They are floats, or bf16 roundings.
static void random_weights(oracle::Model* model, ParameterSet* theta) {
    const ModelLayout* layout = theta->layout;
    for (int i = 0; i < layout->n_files; i++) {
        const FileTensor* f = &layout->files[i];
        const ModelTensor* tensor = &layout->tensors[f->tensor];
        int kind, layer;
        find_tensor(model, f->hf_name, &kind, &layer);
        size_t n = model->size[kind];
        float *file = (float*)malloc(n * sizeof(float)),
              *ours = (float*)calloc((size_t)(tensor->rows * tensor->cols), sizeof(float));
        bool norm = strstr(f->hf_name, ".ln_") && strstr(f->hf_name, "weight");
        double scale = kind == oracle::WTE || kind == oracle::WPE ? 0.4
                       : !model->decays[kind]                     ? 0.15
                                              : 1.7 / sqrt((double)(f->form == FILE_TRANSPOSED ? f->cols : f->rows));
        for (size_t e = 0; e < n; e++) {
            file[e] = to_float(from_float<floatX>((float)(scale * uniform(-1, 1) + norm)));
            oracle::weight_of(model, kind, layer)[e] = file[e];
        }
        file_tensor_unorder(layout, f, file, ours);
        parameters_set(theta, f->tensor, ours);
        free(file);
        free(ours);
    }
}

// A tensor of the trainer in the oracle's order, without padding. The key part of a QKV bias has no effect on the
// softmax, so what its gradient holds is rounding, and what Adam makes of that: it is left out.
static float* trainer_tensor(const ParameterSet* set, const FileTensor* f, bool gradient) {
    const ModelLayout* layout = set->layout;
    const ModelTensor* tensor = &layout->tensors[f->tensor];
    float *ours = (float*)malloc((size_t)(tensor->rows * tensor->cols) * sizeof(float)),
          *file = (float*)malloc((size_t)(f->rows * f->cols) * sizeof(float));
    if (gradient) parameters_get_gradient(set, f->tensor, ours);
    else parameters_get(set, f->tensor, ours);
    file_tensor_order(layout, f, ours, file);
    for (int64_t e = layout->config.C; e < 2 * layout->config.C && tensor->kind == QKVB; e++) file[e] = 0.0f;
    free(ours);
    return file;
}

// Gradients (what, of the first step; the oracle's are clipped, so `scale` undoes that) or weights of every tensor.
static void compare_tensors(const char* what, const ParameterSet* set, const oracle::Model* model, bool gradients,
                            double scale) {
    double worst = 0, cosine = 1, ratio = 1;
    const char *where = "", *where_cosine = "";
    for (int i = 0; i < set->layout->n_files; i++) {
        const FileTensor* f = &set->layout->files[i];
        int kind, layer;
        find_tensor(model, f->hf_name, &kind, &layer);
        const real* b = gradients ? oracle::grad_of(model, kind, layer) : oracle::weight_of(model, kind, layer);
        float* a = trainer_tensor(set, f, gradients);
        double error = 0, largest = 0, ab = 0, aa = 0, bb = 0;
        for (size_t e = 0; e < model->size[kind]; e++) {
            int C = model->config.C;
            double expected = kind == oracle::QKVB && (int)e >= C && (int)e < 2 * C ? 0 : scale * b[e];
            error = isnan(a[e]) ? INFINITY : fmax(error, fabs(a[e] - expected));
            largest = larger(largest, fabs(expected));
            ab += a[e] * expected, aa += (double)a[e] * a[e], bb += expected * expected;
        }
        if (!(error / largest <= worst)) worst = error / largest, where = f->hf_name;
        if (!(ab / sqrt(aa * bb) >= cosine)) cosine = ab / sqrt(aa * bb), where_cosine = f->hf_name;
        if (!(fabs(sqrt(aa / bb) - 1) <= fabs(ratio - 1))) ratio = sqrt(aa / bb);
        free(a);
    }
    if (bf16)
        check(cosine >= 0.999 && fabs(ratio - 1) <= 0.01, "%s: cosine at the least %.6f (%s), norm ratio %.5f", what,
              cosine, where_cosine, ratio);
    else check(worst <= 1e-5, "%s: max|a-b| at the most %.1e of max|b| (%s)", what, worst, where);
}

static double relative(double a, double b) { return b == 0 ? fabs(a) : fabs(a - b) / fabs(b); }

static void run(uint64_t seed, int algorithm, SelectorActivation activation) {
    Case c = random_case(seed);
    const oracle::Config* o = &c.model;
    const char* sigma = activation == SELECTOR_SOFTMAX ? "softmax" : "sigmoid";
    char title[128], name[192];
    snprintf(title, sizeof title, "seed %llu Algorithm %d %s", (unsigned long long)seed, algorithm, sigma);
    if (algorithm == 1 && activation == SELECTOR_SOFTMAX)
        printf("# seed %llu: L %d, C %d, NH %d, V %d, %d positions; N %d, M %d; packs of %d tokens\n",
               (unsigned long long)seed, o->L, o->C, o->NH, o->V, o->positions, c.N, c.M, c.tokens_per_pack);

    // the trainer
    ModelConfig config;
    if (!model_config_defaults(&config, "gpt2")) fatal("no family gpt2");
    config.L = o->L, config.C = o->C, config.NH = o->NH, config.V = o->V, config.max_positions = o->positions;
    config.norm_eps = (float)o->epsilon;
    model_config_complete(&config, "test_reference_parity");
    TrainerSettings settings = {};
    settings.T = c.tokens_per_pack;
    settings.head_rows = 32;
    settings.batch_max = 2 * MOST;
    settings.with_hat = algorithm == 1;
    // eps as in record_gpt2.py: at 1e-8 the first update of an element whose gradient is rounding is anything in ± lr
    AdamwSettings adamw = {0.9f, 0.95f, 1e-4f, c.weight_decay, c.clip};
    settings.adamw = adamw;
    SelectorSettings selector = {activation, SELECTOR_ADAM, 0.9f, 0.95f, 1e-6f, 10.0f, 0.05f, 0.0f};
    Trainer t;
    Selector s;
    trainer_plan(&t, &config, &settings);
    selector_plan(&s, &selector, c.N, MOST, &t.plan);
    trainer_allocate(&t);
    selector_bind(&s, t.stream);

    // the oracle
    oracle::Model theta = oracle::model_create(*o), theta_hat = oracle::model_create(*o);
    oracle::Activations a = oracle::activations_create(o, o->positions);
    oracle::DataSelector omega = oracle::data_selector_create(
        activation == SELECTOR_SOFTMAX ? oracle::SOFTMAX : oracle::SIGMOID, c.N, (float)selector.initial);
    random_weights(&theta, &t.theta);
    memcpy(theta_hat.weights, theta.weights, theta.n * sizeof(real));
    if (algorithm == 1) parameters_copy(&t.theta_hat, &t.theta, t.stream);
    oracle::Adam adam = {c.lr, 0.9f, 0.95f, 1e-4f, c.weight_decay, c.clip},
                 adam_omega = {c.lr_omega, 0.9f, 0.95f, 1e-6f, 0, 10};

    double worst_loss = 0, worst_norm = 0, moved = 0, worst_omega = 0;
    float* values = (float*)malloc(c.N * sizeof(float));
    int steps = bf16 ? 1 : STEPS;
    for (int step = 0; step < steps; step++) {
        int b = c.b[step], m = c.m[step];
        PackSample tune[MOST], safe[MOST];
        for (int i = 0; i < b; i++) tune[i] = c.tune.pack[c.tune_rows[step][i]];
        for (int j = 0; j < m; j++) safe[j] = c.safe.pack[c.safe_rows[step][j]];
        SealBatch batch = {{tune, safe, b, m, NULL},
                           c.tune_rows[step],
                           c.gamma[step],
                           c.lr,
                           c.lr_hat,
                           c.lr_omega,
                           c.gamma_scales_omega ? c.gamma[step] : 1.0f};
        PassCounts passes[2] = {};
        seal_step(&t, &s, algorithm, &batch, passes);
        trainer_bring_back(&t, 0);
        StepResult r = trainer_result(&t, 0);

        oracle::SealBatch x = {
            c.tune.samples,       c.safe.samples, c.tune_rows[step], c.safe_rows[step], b, m, c.gamma[step],
            c.gamma_scales_omega, adam,           adam_omega,        c.lr_hat};
        oracle::SealStep expected;
        oracle::seal_reference_step(&theta, algorithm == 1 ? &theta_hat : NULL, &omega, &a, &x, &expected);

        double largest = 0, error = 0;  // of the step's losses
        for (int i = 0; i < b + m; i++) {
            double exact = i < b ? expected.loss[i] : expected.loss_safe[i - b];
            largest = larger(largest, exact);
            error = isnan(r.loss[i]) ? INFINITY : fmax(error, fabs(r.loss[i] - exact));
            if (algorithm == 1 && i < b) error = larger(error, fabs(r.loss_hat[i] - expected.loss_hat[i]));
        }
        worst_loss = larger(worst_loss, error / largest);
        worst_norm = larger(worst_norm, relative(r.norm, expected.norm));
        if (algorithm == 1) worst_norm = larger(worst_norm, relative(r.norm_hat, expected.norm_hat));
        if (step == 0) {
            double scale = fmax(1.0, (expected.norm + 1e-6) / c.clip);
            snprintf(name, sizeof name, "%s: gradients of theta in the first step", title);
            compare_tensors(name, &t.theta, &theta, true, scale);
        }
    }
    check(worst_loss <= (bf16 ? 1e-2 : 1e-5), "%s: losses of %d steps within %.1e of the largest", title, steps,
          worst_loss);
    check(worst_norm <= (bf16 ? 1e-2 : 1e-5), "%s: gradient norms of %d steps within %.1e relative", title, steps,
          worst_norm);
    if (!bf16) {
        cudaCheck(cudaMemcpy(values, s.omega, c.N * sizeof(float), cudaMemcpyDeviceToHost));
        for (int k = 0; k < c.N; k++) {
            worst_omega = larger(worst_omega, isnan(values[k]) ? INFINITY : fabs(values[k] - omega.omega[k]));
            moved = larger(moved, fabs(omega.omega[k] - 0.05));
        }
        check(worst_omega <= 1e-4 && moved > c.lr_omega, "%s: omega after %d steps within %.1e (it moved by %.3f)",
              title, steps, worst_omega, moved);
        snprintf(name, sizeof name, "%s: theta after %d steps", title, steps);
        compare_tensors(name, &t.theta, &theta, false, 1);
        snprintf(name, sizeof name, "%s: theta_hat after %d steps", title, steps);
        if (algorithm == 1) compare_tensors(name, &t.theta_hat, &theta_hat, false, 1);
    }
    free(values);
    oracle::model_free(&theta);
    oracle::model_free(&theta_hat);
    oracle::activations_free(&a);
    oracle::data_selector_free(&omega);
    selector_free(&s);
    trainer_free(&t);
    free_set(&c.tune);
    free_set(&c.safe);
}

int main(int argc, char** argv) {
    program_name = "test_reference_parity";
    uint64_t seeds[64] = {1, 7};  // one layer; three
    int n = argc > 1 ? 0 : 2;
    for (int i = 1; i < argc && n < 64; i++) {
        char* end;
        seeds[n++] = strtoull(argv[i], &end, 10);
        if (!argv[i][0] || *end) fatal("%s is not a seed; expected whole numbers", argv[i]);
    }
    for (int i = 0; i < n; i++)
        for (int algorithm = 1; algorithm <= 2; algorithm++)
            for (int activation = 0; activation < 2; activation++)
                run(seeds[i], algorithm, (SelectorActivation)activation);
    return check_report();
}
