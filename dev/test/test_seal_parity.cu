/*
SEAL against its PyTorch implementation (dev/reference/record_seal.py): both algorithms, both activations, 63 steps over
three epochs of γ, from the same model with the same batches. fp32: ω within 1e-4 absolute after every step, losses
within 1e-5 relative. bf16 changes the arithmetic of every step, so there only the courses are compared: ω within a
fifth of its own range.
*/
#include <string.h>
#include "check.h"
#include "base/error.h"
#include "base/safetensors.h"
#include "schedule.h"
#define TESTING
#include "../../train_seal.cu"

#ifdef PRECISION_BF16
static bool bf16 = true;
#else
static bool bf16 = false;
#endif
#define GOLDEN "dev/reference/golden/seal"
#define MOST 8  // samples of one kind in a batch

typedef struct {
    int n;
    int *tokens, *cu_seqlens, *prompt_len;
    uint8_t* bears_loss;
    PackSample* samples;
} Set;

static void read_set(Set* s, const StReader* file, const char* kind) {
    char name[64];
    snprintf(name, sizeof name, "%s_prompt_len", kind);
    s->n = (int)st_need(file, name)->count;
    s->prompt_len = (int*)malloc(s->n * sizeof(int));
    st_copy(file, name, ST_I32, s->n, s->prompt_len);
    snprintf(name, sizeof name, "%s_cu_seqlens", kind);
    s->cu_seqlens = (int*)malloc((s->n + 1) * sizeof(int));
    st_copy(file, name, ST_I32, s->n + 1, s->cu_seqlens);
    snprintf(name, sizeof name, "%s_tokens", kind);
    int T = s->cu_seqlens[s->n];
    s->tokens = (int*)malloc(T * sizeof(int));
    s->bears_loss = (uint8_t*)calloc(T, 1);
    st_copy(file, name, ST_I32, T, s->tokens);
    s->samples = (PackSample*)calloc(s->n, sizeof *s->samples);
    for (int i = 0; i < s->n; i++) {
        int from = s->cu_seqlens[i], length = s->cu_seqlens[i + 1] - from, n_loss = 0;
        for (int j = 1; j < length; j++) n_loss += s->bears_loss[from + j] = j >= s->prompt_len[i];
        PackSample sample = {s->tokens + from, s->bears_loss + from, length, n_loss, 0};
        s->samples[i] = sample;
    }
}
static void free_set(Set* s) {
    free(s->prompt_len);
    free(s->cu_seqlens);
    free(s->tokens);
    free(s->bears_loss);
    free(s->samples);
}

static float* read_floats(const StReader* file, const char* name) {
    const StTensor* t = st_need(file, name);
    float* x = (float*)malloc(t->count * sizeof(float));
    st_to_float(file, t, 0, t->count, x);
    return x;
}

static double relative(double a, double b) { return fabs(a - b) / (fabs(b) > 1e-30 ? fabs(b) : 1e-30); }

// variant: a recorded one of Algorithm 2 ("online_", "file_", "online_file_"), or "".
static void run(const StReader* inputs, const Set* safe, const Set* tune, int algorithm, SelectorActivation activation,
                const char* variant) {
    // what was recorded: settings, the rows of every step, and the losses, norms and ω that came of them
    const char* names[] = {"softmax", "sigmoid"};
    char path[256], what[64];
    StReader recorded;
    bool online = !strncmp(variant, "online", 6);
    snprintf(what, sizeof what, "%s%s", variant, names[activation]);
    if (*variant) snprintf(path, sizeof path, GOLDEN "/run_%s.safetensors", what);
    else snprintf(path, sizeof path, GOLDEN "/run_%d_%s.safetensors", algorithm, names[activation]);
    st_open(&recorded, path);
    int steps = (int)st_need(inputs, "epoch")->count, width = (int)st_need(inputs, "tune_rows")->shape[1], N = tune->n;
    float theta_adamw[6], omega_adam[5], gamma_linear[2];
    st_copy(inputs, "theta_adamw", ST_F32, 6, theta_adamw);
    st_copy(inputs, "omega_adam", ST_F32, 5, omega_adam);
    st_copy(inputs, "gamma_linear", ST_F32, 2, gamma_linear);
    int *epoch = (int*)malloc(steps * sizeof(int)), *safe_rows = (int*)malloc(steps * width * sizeof(int)),
        *tune_rows = (int*)malloc(steps * width * sizeof(int));
    st_copy(inputs, "epoch", ST_I32, steps, epoch);
    st_copy(inputs, "safe_rows", ST_I32, (int64_t)steps * width, safe_rows);
    st_copy(inputs, "tune_rows", ST_I32, (int64_t)steps * width, tune_rows);
    float *omega_rec = read_floats(&recorded, "omega"), *safe_rec = read_floats(&recorded, "safe_loss"),
          *tune_rec = read_floats(&recorded, "tune_loss"), *norm_rec = read_floats(&recorded, "theta_grad_norm"),
          *gamma_rec = read_floats(&recorded, "gamma");

    int *unit = NULL, units = N;  // one logit for each file, where the variant has such
    if (st_find(&recorded, "unit")) {
        unit = (int*)malloc(N * sizeof(int));
        st_copy(&recorded, "unit", ST_I32, N, unit);
        units = unit[N - 1] + 1;
    }

    // the trainer and the selector by those settings, on the recorded weights
    ModelConfig config;
    model_config_read(&config, GOLDEN);
    TrainerSettings settings = {};
    settings.T = 64;  // several packs per step
    settings.head_rows = 32;
    settings.batch_max = 2 * width;
    settings.with_hat = algorithm == 1;
    AdamwSettings adamw = {theta_adamw[1], theta_adamw[2], theta_adamw[3], theta_adamw[4], theta_adamw[5]};
    settings.adamw = adamw;
    Trainer t;
    Selector s;
    SelectorSettings selector = {activation,
                                 SELECTOR_ADAM,
                                 omega_adam[1],
                                 omega_adam[2],
                                 omega_adam[3],
                                 omega_adam[4],
                                 selector_initial(activation),
                                 0.0f};
    trainer_plan(&t, &config, &settings);
    selector_plan(&s, &selector, units, width, &t.plan);
    trainer_allocate(&t);
    selector_bind(&s, t.stream);
    if (unit) selector_set_units(&s, unit, N);
    parameters_load(&t.theta, GOLDEN, true);
    if (settings.with_hat) parameters_copy(&t.theta_hat, &t.theta, t.stream);

    // the same steps, on the same rows
    GammaSchedule schedule;
    char text[64];
    if (online) snprintf(text, sizeof text, "fixed:0.5");
    else snprintf(text, sizeof text, "linear:%.9g,%.9g", gamma_linear[0], gamma_linear[1]);
    gamma_parse(&schedule, text);
    double worst_omega = 0, worst_loss = 0, worst_norm = 0, worst_gamma = 0, low = 1e9, high = -1e9;
    float* omega = (float*)malloc(units * sizeof(float));
    for (int step = 0; step < steps; step++) {
        PackSample tune_batch[MOST], safe_batch[MOST];
        int b = 0, m = 0, rows[MOST];
        for (int i = 0; i < width; i++) {
            int row = tune_rows[step * width + i];
            if (row >= 0) {
                rows[b] = row;
                tune_batch[b++] = tune->samples[row];
            }
            if (safe_rows[step * width + i] >= 0) safe_batch[m++] = safe->samples[safe_rows[step * width + i]];
        }
        float gamma = (float)gamma_at(&schedule, epoch[step], step, steps);
        worst_gamma = larger(worst_gamma, fabs(gamma - gamma_rec[step]));
        SealBatch batch = {
            {tune_batch, safe_batch, b, m, NULL}, rows, gamma, theta_adamw[0], theta_adamw[0], omega_adam[0], 1.0f};
        PassCounts passes[2] = {};
        seal_step(&t, &s, algorithm, &batch, passes);
        trainer_bring_back(&t, 0);
        StepResult r = trainer_result(&t, 0);
        for (int i = 0; i < b; i++) worst_loss = larger(worst_loss, relative(r.loss[i], tune_rec[step * width + i]));
        for (int j = 0; j < m; j++)
            worst_loss = larger(worst_loss, relative(r.loss[b + j], safe_rec[step * width + j]));
        worst_norm = larger(worst_norm, relative(r.norm, norm_rec[step]));
        cudaCheck(cudaMemcpy(omega, s.omega, units * sizeof(float), cudaMemcpyDeviceToHost));
        for (int k = 0; k < units; k++) {
            double expected = omega_rec[(step + 1) * units + k];
            worst_omega = larger(worst_omega, fabs(omega[k] - expected));
            low = fmin(low, expected);
            high = larger(high, expected);
        }
    }

    // the largest differences over all steps
    check(worst_gamma <= 1e-7, "Algorithm %d %s: gamma is the recorded one", algorithm, what);
    check(worst_omega <= (bf16 ? 0.2 * (high - low) : 1e-4),
          "Algorithm %d %s: omega after %d steps within %.1e (range %.3f)", algorithm, what, steps, worst_omega,
          high - low);
    check(worst_loss <= (bf16 ? 0.05 : 1e-5), "Algorithm %d %s: losses within %.1e relative", algorithm, what,
          worst_loss);
    check(worst_norm <= (bf16 ? 0.1 : 1e-4), "Algorithm %d %s: gradient norms within %.1e relative", algorithm, what,
          worst_norm);
    // Adam on a dense softmax gradient moves undrawn logits by a full +lr every step (Algorithm 2): max ω ≈ ω₀ +
    // lr·steps
    if (algorithm == 2 && activation == SELECTOR_SOFTMAX && !*variant) {
        double most = -1e9, bound = 0.1 + omega_adam[0] * steps;
        for (int k = 0; k < N; k++) most = larger(most, omega[k]);
        check(fabs(most - bound) <= 0.05 * bound, "the drift: max omega %.4f, omega_0 + lr*steps %.4f", most, bound);
    }
    free(omega);
    free(unit);
    selector_free(&s);
    trainer_free(&t);
    st_close(&recorded);
    free(epoch);
    free(safe_rows);
    free(tune_rows);
    free(omega_rec);
    free(safe_rec);
    free(tune_rec);
    free(norm_rec);
    free(gamma_rec);
}

int main(void) {
    program_name = "test_seal_parity";
    StReader inputs;
    Set safe, tune;
    st_open(&inputs, GOLDEN "/inputs.safetensors");
    read_set(&safe, &inputs, "safe");
    read_set(&tune, &inputs, "tune");
    for (int algorithm = 1; algorithm <= 2; algorithm++)
        for (int activation = 0; activation < 2; activation++)
            run(&inputs, &safe, &tune, algorithm, (SelectorActivation)activation, "");
    for (int activation = 0; activation < 2; activation++) {
        run(&inputs, &safe, &tune, 2, (SelectorActivation)activation, "online_");
        run(&inputs, &safe, &tune, 2, (SelectorActivation)activation, "file_");
    }
    run(&inputs, &safe, &tune, 2, SELECTOR_SOFTMAX, "online_file_");
    st_close(&inputs);
    free_set(&safe);
    free_set(&tune);
    return check_report();
}
