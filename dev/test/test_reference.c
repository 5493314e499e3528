/*
The oracle of dev/reference/seal_reference.c against what PyTorch recorded (dev/reference/golden, written by
record_gpt2.py and record_seal.py) and against finite differences: the other programs' results are held to it where
nothing is recorded (test_reference_parity.cu).

The recorded states are fp32: max|a−b| ≤ 1e-5·max|b| per tensor. record_seal.py recorded its runs in fp64 as well, and
the oracle computes in double: there 63 steps agree to 1e-9, which no error in a formula survives.
*/
#include "check.h"
#include "base/error.h"
#include "base/safetensors.h"
#define SEAL_REFERENCE_TEST
#include "../reference/seal_reference.c"
#include "reference_io.h"

#define GPT2 "dev/reference/golden/gpt2_tiny"
#define SEAL "dev/reference/golden/seal"

// ---------------------------------------------------------------------------------------------------
// files

static float* floats(const StReader* file, const char* name, int64_t count) {
    const StTensor* t = st_need(file, name);
    float* x = (float*)malloc((size_t)t->count * sizeof(float));
    if (count && t->count != count)
        fatal("%s: %lld numbers, expected %lld", name, (long long)t->count, (long long)count);
    st_to_float(file, t, 0, t->count, x);
    return x;
}
static double* doubles(const StReader* file, const char* name, int64_t count) {
    double* x = (double*)malloc((size_t)count * sizeof(double));
    st_copy(file, name, ST_F64, count, x);
    return x;
}
static int* integers(const StReader* file, const char* name) {
    const StTensor* t = st_need(file, name);
    int* x = (int*)malloc((size_t)t->count * sizeof(int));
    st_copy(file, name, ST_I32, t->count, x);
    return x;
}

// max|a−b| ≤ 1e-5·max|b| for the oracle's doubles and recorded floats
static void check_real(const char* name, const real* a, const float* b, int64_t n) {
    double worst = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) {
        worst = larger(worst, isnan(a[i]) ? INFINITY : fabs(a[i] - b[i]));
        scale = larger(scale, fabs(b[i]));
    }
    check(worst <= 1e-5 * scale, "%s: max|a-b| %.1e of max|b| %.3g", name, worst, scale);
}

typedef struct {
    int n, *tokens, *cu_seqlens, *prompt_len;
    Sample* samples;
} Set;

static Set read_set(const StReader* file, const char* prefix) {
    char name[64];
    Set s;
    snprintf(name, sizeof name, "%sprompt_len", prefix);
    s.n = (int)st_need(file, name)->count;
    s.prompt_len = integers(file, name);
    snprintf(name, sizeof name, "%scu_seqlens", prefix);
    s.cu_seqlens = integers(file, name);
    snprintf(name, sizeof name, "%stokens", prefix);
    s.tokens = integers(file, name);
    s.samples = (Sample*)calloc((size_t)s.n, sizeof *s.samples);
    for (int i = 0; i < s.n; i++) {
        Sample sample = {s.tokens + s.cu_seqlens[i], s.cu_seqlens[i + 1] - s.cu_seqlens[i], s.prompt_len[i]};
        s.samples[i] = sample;
    }
    return s;
}
static void free_set(Set* s) {
    free(s->tokens);
    free(s->cu_seqlens);
    free(s->prompt_len);
    free(s->samples);
}

static Model load(const char* directory, Config config) {
    Model model = model_create(config);
    reference_load(&model, directory);
    return model;
}

// A fp32 constant of a file as the decimal number it was written as: 0.001, not 0.001000000047.
static double decimal(float x) {
    char text[32];
    snprintf(text, sizeof text, "%.7g", x);
    return strtod(text, NULL);
}
static Adam read_adam(const StReader* file, const char* name, bool with_decay) {
    float* x = floats(file, name, with_decay ? 6 : 5);
    Adam o = {decimal(x[0]),
              decimal(x[1]),
              decimal(x[2]),
              decimal(x[3]),
              with_decay ? decimal(x[4]) : 0,
              decimal(x[with_decay ? 5 : 4])};
    free(x);
    return o;
}

// ---------------------------------------------------------------------------------------------------
// GPT-2

// The whole batch, a sample at a time. logits (T, V) and nll (T) of all samples; sample_loss (k); gradients are added.
static real run_batch(Model* model, Activations* a, const Set* set, const float* weight, real* logits, real* nll,
                      real* sample_loss) {
    int V = model->config.V;
    real loss = 0;
    model_zero_grad(model);
    for (int i = 0; i < set->n; i++) {
        const Sample* s = &set->samples[i];
        int from = set->cu_seqlens[i];
        sample_loss[i] = model_forward(model, a, s);
        loss += weight[i] * sample_loss[i];
        memcpy(logits + (size_t)from * V, a->logits, (size_t)s->T * V * sizeof(real));
        for (int t = first_target(s); t < s->T; t++)
            nll[from + t - 1] = cross_entropy(a->logits + (t - 1) * V, s->tokens[t], V);
        model_backward(model, a, s, weight[i]);
    }
    return loss;
}

// The key third of a QKV bias has no effect on the softmax: its gradient is zero but for rounding.
static void drop_key_bias(int kind, int C, real* a, float* b) {
    for (int i = C; i < 2 * C && kind == QKVB; i++) a[i] = 0, b[i] = 0;
}

static void compare_tensors(const StReader* states, const Model* model, const real* values, const char* what) {
    for (int kind = 0; kind < KINDS; kind++)
        for (int l = 0; l < (per_layer(kind) ? model->config.L : 1); l++) {
            char name[160], key[192], title[224];
            size_t n = model->size[kind];
            reference_name(name, sizeof name, kind, l);
            snprintf(key, sizeof key, "%s.%s", what, name);
            float* expected = floats(states, key, (int64_t)n);
            real* ours = zeros(n);
            memcpy(ours, values + model->offset[kind] + l * n, n * sizeof(real));
            drop_key_bias(kind, model->config.C, ours, expected);
            snprintf(title, sizeof title, "gpt2_tiny: %s", key);
            check_real(title, ours, expected, (int64_t)n);
            free(ours);
            free(expected);
        }
}

static void check_gpt2(void) {
    StReader states;
    Config config = {2, 64, 2, 331, 96, 1e-5};
    st_open(&states, GPT2 "/states.safetensors");
    Set set = read_set(&states, "");
    Model model = load(GPT2, config);
    int T = set.cu_seqlens[set.n], V = config.V;
    Activations a = activations_create(&config, config.positions);
    float *weight = floats(&states, "sample_weight", set.n), *recorded;
    Adam o = read_adam(&states, "adamw", true);
    real *logits = zeros((size_t)T * V), *nll = zeros(T), *sample_loss = zeros(set.n), norm[10], loss[10];

    loss[0] = run_batch(&model, &a, &set, weight, logits, nll, sample_loss);
    check_real("gpt2_tiny: logits", logits, recorded = floats(&states, "logits", (int64_t)T * V), (int64_t)T * V);
    free(recorded);
    check_real("gpt2_tiny: loss of every token", nll, recorded = floats(&states, "nll", T), T);
    free(recorded);
    check_real("gpt2_tiny: loss of every sample", sample_loss, recorded = floats(&states, "sample_loss", set.n), set.n);
    free(recorded);
    check_real("gpt2_tiny: loss", loss, recorded = floats(&states, "loss", 1), 1);
    free(recorded);
    compare_tensors(&states, &model, model.grads, "grad");

    for (int step = 0; step < 10; step++) {
        loss[step] = run_batch(&model, &a, &set, weight, logits, nll, sample_loss);
        norm[step] = model_update(&model, &o);
    }
    check_real("gpt2_tiny: losses of ten steps", loss, recorded = floats(&states, "step_loss", 10), 10);
    free(recorded);
    check_real("gpt2_tiny: gradient norms of ten steps", norm, recorded = floats(&states, "step_grad_norm", 10), 10);
    free(recorded);
    compare_tensors(&states, &model, model.weights, "after");

    free(weight);
    free(logits);
    free(nll);
    free(sample_loss);
    free_set(&set);
    model_free(&model);
    activations_free(&a);
    st_close(&states);
}

// Every kind of tensor: the gradient of the weighted loss along a direction of random signs in that tensor alone,
// against central differences. In double, differences of 1e-5 are good to nine digits.
static void check_slopes(void) {
    StReader states;
    Config config = {2, 64, 2, 331, 96, 1e-5};
    st_open(&states, GPT2 "/states.safetensors");
    Set set = read_set(&states, "");
    Model model = load(GPT2, config);
    Activations a = activations_create(&config, config.positions);
    unsigned state = 1;
    model_zero_grad(&model);
    for (int i = 2; i < set.n; i += 2) {
        model_forward(&model, &a, &set.samples[i]);
        model_backward(&model, &a, &set.samples[i], 0.3 + i);
    }
    for (int kind = 0; kind < KINDS; kind++)
        for (int l = 0; l < (per_layer(kind) ? config.L : 1); l++) {
            size_t n = model.size[kind];
            real *w = weight_of(&model, kind, l), *g = grad_of(&model, kind, l), slope = 0, size = 0, at[2] = {0, 0};
            signed char* sign = (signed char*)malloc(n);
            for (size_t i = 0; i < n; i++) {
                sign[i] = (state = state * 1664525u + 1013904223u) >> 31 ? 1 : -1;
                slope += g[i] * sign[i];
                size += g[i] * g[i];
            }
            for (int side = 0; side < 2; side++) {
                for (size_t i = 0; i < n; i++) w[i] += (side ? 2 : -1) * 1e-5 * sign[i];
                for (int i = 2; i < set.n; i += 2) at[side] += (0.3 + i) * model_forward(&model, &a, &set.samples[i]);
            }
            for (size_t i = 0; i < n; i++) w[i] -= 1e-5 * sign[i];
            double measured = (at[1] - at[0]) / 2e-5;
            char name[160];
            reference_name(name, sizeof name, kind, l);
            check(fabs(measured - slope) <= 1e-6 * sqrt(size) && size > 0,
                  "gpt2_tiny: slope along %s by finite differences: %.9g against %.9g", name, measured, slope);
            free(sign);
        }
    free_set(&set);
    model_free(&model);
    activations_free(&a);
    st_close(&states);
}

// ---------------------------------------------------------------------------------------------------
// SEAL

static void check_seal(const StReader* inputs, const Set* safe, const Set* tune, int algorithm, Activation activation) {
    static const char* const names[] = {"softmax", "sigmoid"};
    const char* what = names[activation];
    Config config = {2, 64, 2, 257, 32, 1e-5};
    char path[256];
    snprintf(path, sizeof path, SEAL "/run_%d_%s.safetensors", algorithm, what);
    StReader recorded;
    st_open(&recorded, path);
    int steps = (int)st_need(inputs, "epoch")->count, width = (int)st_need(inputs, "tune_rows")->shape[1], N = tune->n;
    int *epoch = integers(inputs, "epoch"), *safe_rows = integers(inputs, "safe_rows"),
        *tune_rows = integers(inputs, "tune_rows");
    float *linear = floats(inputs, "gamma_linear", 2), *omega_narrow = floats(&recorded, "omega", (steps + 1) * N),
          *norm_narrow = floats(&recorded, "theta_grad_norm", steps),
          *omega_norm_narrow = floats(&recorded, "omega_grad_norm", steps),
          *safe_narrow = floats(&recorded, "safe_loss", steps * width),
          *tune_narrow = floats(&recorded, "tune_loss", steps * width),
          *hat_norm_narrow = algorithm == 1 ? floats(&recorded, "theta_hat_grad_norm", steps) : NULL;
    double *omega_exact = doubles(&recorded, "exact.omega", (int64_t)(steps + 1) * N),
           *safe_exact = doubles(&recorded, "exact.safe_loss", (int64_t)steps * width),
           *tune_exact = doubles(&recorded, "exact.tune_loss", (int64_t)steps * width),
           *hat_exact = algorithm == 1 ? doubles(&recorded, "exact.tune_loss_hat", (int64_t)steps * width) : NULL;

    Model theta = load(SEAL, config), theta_hat = load(SEAL, config);
    Activations a = activations_create(&config, config.positions);
    DataSelector omega = data_selector_create(activation, N, activation == SOFTMAX ? 0.1 : -1e-4);
    Adam adam = read_adam(inputs, "theta_adamw", true), adam_omega = read_adam(inputs, "omega_adam", false);
    double worst_omega = 0, worst_loss = 0, worst_norm = 0, worst_omega_norm = 0;
    double exact_omega = 0, exact_loss = 0, drawn = 0;
    for (int step = 0; step < steps; step++) {
        SealBatch x = {tune->samples,
                       safe->samples,
                       tune_rows + step * width,
                       safe_rows + step * width,
                       0,
                       0,
                       decimal(linear[0]) + decimal(linear[1]) * epoch[step],
                       false,
                       adam,
                       adam_omega,
                       adam.lr};
        SealStep r;
        while (x.b < width && x.tune_rows[x.b] >= 0) x.b++;
        while (x.m < width && x.safe_rows[x.m] >= 0) x.m++;
        seal_reference_step(&theta, algorithm == 1 ? &theta_hat : NULL, &omega, &a, &x, &r);
        for (int i = 0; i < x.b; i++) {
            int at = step * width + i;
            worst_loss = larger(worst_loss, fabs(r.loss[i] - tune_narrow[at]) / tune_narrow[at]);
            exact_loss = larger(exact_loss, fabs(r.loss[i] - tune_exact[at]) / tune_exact[at]);
            if (hat_exact) exact_loss = larger(exact_loss, fabs(r.loss_hat[i] - hat_exact[at]) / hat_exact[at]);
            drawn++;
        }
        for (int j = 0; j < x.m; j++) {
            int at = step * width + j;
            worst_loss = larger(worst_loss, fabs(r.loss_safe[j] - safe_narrow[at]) / safe_narrow[at]);
            exact_loss = larger(exact_loss, fabs(r.loss_safe[j] - safe_exact[at]) / safe_exact[at]);
        }
        worst_norm = larger(worst_norm, fabs(r.norm - norm_narrow[step]) / norm_narrow[step]);
        if (hat_norm_narrow)
            worst_norm = larger(worst_norm, fabs(r.norm_hat - hat_norm_narrow[step]) / hat_norm_narrow[step]);
        // Algorithm 1: Δ is a small difference of losses, so fp32 rounds it to about 1e-3 of itself
        worst_omega_norm = larger(worst_omega_norm, fabs(r.norm_omega - omega_norm_narrow[step]));
        for (int k = 0; k < N; k++) {
            worst_omega = larger(worst_omega, fabs(omega.omega[k] - omega_narrow[(step + 1) * N + k]));
            exact_omega = larger(exact_omega, fabs(omega.omega[k] - omega_exact[(step + 1) * N + k]));
        }
    }
    check(drawn == 3 * (N - 2), "Algorithm %d %s: %d steps saw %.0f samples", algorithm, what, steps, drawn);
    check(worst_omega <= 1e-4, "Algorithm %d %s: omega within %.1e of PyTorch's in fp32", algorithm, what, worst_omega);
    check(worst_loss <= 1e-5, "Algorithm %d %s: losses within %.1e of PyTorch's in fp32, relative", algorithm, what,
          worst_loss);
    check(worst_norm <= 1e-5, "Algorithm %d %s: gradient norms within %.1e of PyTorch's in fp32, relative", algorithm,
          what, worst_norm);
    check(worst_omega_norm <= 1e-5, "Algorithm %d %s: norm of the gradient of omega within %.1e of PyTorch's in fp32",
          algorithm, what, worst_omega_norm);
    check(exact_omega <= 1e-9, "Algorithm %d %s: omega within %.1e of PyTorch's in fp64", algorithm, what, exact_omega);
    check(exact_loss <= 1e-9, "Algorithm %d %s: losses within %.1e of PyTorch's in fp64, relative", algorithm, what,
          exact_loss);
    void* all[] = {epoch,       safe_rows,   tune_rows,       linear,      omega_narrow, norm_narrow, omega_norm_narrow,
                   safe_narrow, tune_narrow, hat_norm_narrow, omega_exact, safe_exact,   tune_exact,  hat_exact};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    model_free(&theta);
    model_free(&theta_hat);
    activations_free(&a);
    data_selector_free(&omega);
    st_close(&recorded);
}

int main(void) {
    program_name = "test_reference";
    check_gpt2();
    check_slopes();
    StReader inputs;
    st_open(&inputs, SEAL "/inputs.safetensors");
    Set safe = read_set(&inputs, "safe_"), tune = read_set(&inputs, "tune_");
    for (int algorithm = 1; algorithm <= 2; algorithm++)
        for (int activation = 0; activation < 2; activation++)
            check_seal(&inputs, &safe, &tune, algorithm, (Activation)activation);
    free_set(&safe);
    free_set(&tune);
    st_close(&inputs);
    return check_report();
}
