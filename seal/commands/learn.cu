/* What `train_seal selector` has around the algorithm. See learn.h. */
#include <string.h>
#include "base/error.h"
#include "base/random.h"
#include "base/ranks.h"
#include "commands/learn.h"
#include "commands/selector_file.h"
#include "run/samples.h"

#define MEAN_DECAY 0.95f                // of the running mean of Δ
#define SAFE_PERMUTATIONS (1ull << 40)  // their streams of random numbers begin here, those of D_tune at 0

// ---------------------------------------------------------------------------------------------------
// batches

// The permutation of a pass over n samples, drawn where `held` is another's: a step's batch depends on the step alone,
// whatever was drawn before.
static void permute(int64_t seed, uint64_t stream, int64_t pass, int64_t* held, int* order, int n) {
    if (*held != pass) random_permutation((uint64_t)seed, stream + (uint64_t)pass, order, n);
    *held = pass;
}

void learn_draw(Learn* x, int64_t step, SealBatch* batch, int slot) {
    const TrainOptions* o = x->run.o;
    int b_max = x->batch;
    int64_t from = step % x->run.steps_per_epoch * b_max;
    permute(o->seed, 0, step / x->run.steps_per_epoch, &x->tune_pass, x->tune_order, x->tune.n);
    int* rows = x->rows + slot * b_max;
    PackSample *tune = x->samples + 2 * slot * b_max, *safe = tune + b_max;
    int b = (int)(x->tune.n - from < b_max ? x->tune.n - from : b_max), m = x->safe.n < b_max ? x->safe.n : b_max;
    memcpy(rows, x->tune_order + from, (size_t)b * sizeof(int));
    // Δ and S are summed in row order, whatever order the permutation drew
    for (int i = 1; i < b; i++)
        for (int j = i, row = rows[i]; j > 0 && rows[j - 1] > row; j--) {
            rows[j] = rows[j - 1];
            rows[j - 1] = row;
        }
    for (int i = 0; i < b; i++) tune[i] = x->tune.samples[rows[i]];
    for (int j = 0; j < m; j++) {
        int64_t at = step * m + j;
        permute(o->seed, SAFE_PERMUTATIONS, at / x->safe.n, &x->safe_pass, x->safe_order, x->safe.n);
        safe[j] = x->safe.samples[x->safe_order[at % x->safe.n]];
    }
    memset(batch, 0, sizeof *batch);
    float* share = x->share + slot * b_max;
    for (int i = 0; i < b && x->tune.weights; i++) share[i] = x->tune.weights[rows[i]];
    batch->samples = {tune, safe, b, m, x->tune.weights ? share : NULL};
    batch->rows = rows;
}

void learn_bring_back(Learn* x, int slot) {
    cudaCheck(cudaMemcpyAsync(x->sigma[slot], x->selector.sigma, (size_t)x->step[slot].samples.b * sizeof(float),
                              cudaMemcpyDeviceToHost, x->run.trainer.stream));
}

void learn_finish(void* task, const StepNote* note, int slot) {
    Learn* x = (Learn*)task;
    const Batch* batch = &x->step[slot].samples;
    StepResult r = trainer_result(&x->run.trainer, slot);
    double tune = 0.0, safe = 0.0, weighted = 0.0, gap = 0.0;
    int b = batch->b, m = batch->m;
    for (int i = 0; i < b; i++) {
        tune += r.loss[i];
        double sigma = (double)x->sigma[slot][i] * (batch->share ? batch->share[i] : 1.0);
        weighted += sigma * r.loss[i];
        if (x->algorithm == 1) gap += sigma * ((double)r.loss[i] - r.loss_hat[i]);
    }
    for (int j = 0; j < m; j++) safe += r.loss[b + j];
    run_stop_on_nonfinite(&x->run, note, batch, r.loss, tune + safe, x->algorithm == 1 ? r.norm + r.norm_hat : r.norm);
    run_log_step(&x->run, note);
    log_number(&x->run.log, "gamma", note->gamma);
    run_log_loss(&x->run, RUN_SAFE_LOSS, safe / m);
    run_log_loss(&x->run, RUN_TUNE_LOSS, tune / b);
    run_log_loss(&x->run, RUN_WEIGHTED_LOSS, weighted / b);
    if (x->algorithm == 1) run_log_loss(&x->run, RUN_GAP, gap / b);
    run_step_end(&x->run, note, safe / m, r.norm);
}

// ---------------------------------------------------------------------------------------------------
// opening and closing

// ω's settings by the names of the options.
static SelectorSettings selector_settings(const TrainOptions* o) {
    static const char* const optimizers[] = {"adam", "sgd", "centred", "mean"};
    SelectorSettings s = {};
    s.activation = strcmp(o->activation, "sigmoid") ? SELECTOR_SOFTMAX : SELECTOR_SIGMOID;
    while (strcmp(optimizers[s.optimizer], o->selector_optimizer)) s.optimizer = (SelectorOptimizer)(s.optimizer + 1);
    s.beta1 = (float)o->beta1;
    s.beta2 = (float)o->beta2;
    s.eps = (float)o->adam_eps;
    s.clip = (float)o->selector_clip;
    s.initial = selector_initial(s.activation);
    s.mean_decay = MEAN_DECAY;
    return s;
}

// With --selector-unit file: the file of each sample. Returns the number of logits.
static int find_units(Learn* x, const TrainOptions* o) {
    if (strcmp(o->selector_unit, "file")) return x->tune.n;
    if (o->tune.n < 2) fatal("--selector-unit file needs several files: give --tune for each");
    x->unit = (int*)host_alloc((size_t)x->tune.n * sizeof(int), "the files of the rows");
    int64_t end = 0;
    int i = 0;
    for (int file = 0; file < o->tune.n; file++)
        for (end += dataset_rows(o->tune.items[file]); i < x->tune.n && x->tune.rows[i] < end; i++) x->unit[i] = file;
    if (i < x->tune.n) fatal("%s: changed while it was read", o->tune.items[0]);
    return o->tune.n;
}

bool learn_open(Learn* x, const TrainOptions* o, int command) {
    ModelConfig config;
    TrainerSettings settings = {};
    memset(x, 0, sizeof *x);
    x->algorithm = (int)o->algorithm;
    x->batch = (int)o->batch;
    gamma_parse(&x->gamma, o->gamma);
    x->lr = {o->schedule, o->lr, o->warmup};
    x->lr_hat = {o->schedule, o->lr_hat > 0 ? o->lr_hat : o->lr, o->warmup};
    x->lr_omega = {o->selector_schedule, o->selector_lr, 0.0};

    // The plan. N decides the size of ω, so D_tune is read before it.
    settings.batch_max = 2 * x->batch;
    settings.with_hat = x->algorithm == 1;
    run_plan(&x->run, o, command, &config, &settings);
    SelectorSettings selector = selector_settings(o);
    load_samples(&x->tune, &o->tune, "tune", o->out, o, &config, x->tokenizer, NULL);
    selector_plan(&x->selector, &selector, find_units(x, o), x->batch, &x->run.trainer.plan);
    if (!run_show(&x->run)) {
        tokens_free(&x->tune);
        return false;
    }

    // The state: θ as loaded, θ̂ = θ, ω = ω₀.
    load_samples(&x->safe, &o->safe, "safe", o->out, o, &config, NULL, NULL);
    run_count_rows(&x->run, "tune", &x->tune);
    run_count_rows(&x->run, "safe", &x->safe);
    run_begin(&x->run, o->compat && x->safe.n < x->tune.n ? x->safe.n : x->tune.n);
    Trainer* t = &x->run.trainer;
    selector_bind(&x->selector, t->stream);
    if (x->unit) selector_set_units(&x->selector, x->unit, x->tune.n);
    if (x->tune.weights) selector_set_weights(&x->selector, x->tune.weights);
    if (settings.with_hat) parameters_copy(&t->theta_hat, &t->theta, t->stream);

    size_t batch = (size_t)x->batch;
    x->samples = (PackSample*)host_alloc(4 * batch * sizeof *x->samples, "the batches");
    x->share = (float*)host_alloc(2 * batch * sizeof(float), "the batches");
    x->rows = (int*)host_alloc(2 * batch * sizeof(int), "the batches");
    x->tune_order = (int*)host_alloc((size_t)x->tune.n * sizeof(int), "the order of the samples");
    x->safe_order = (int*)host_alloc((size_t)x->safe.n * sizeof(int), "the order of the samples");
    for (int slot = 0; slot < 2; slot++) cudaCheck(cudaMallocHost((void**)&x->sigma[slot], batch * sizeof(float)));
    x->tune_pass = x->safe_pass = -1;

    record_fact(&x->run.record, "tokenizer", x->tokenizer);
    record_fact(&x->run.record, "tune data", x->tune.digest);
    record_fact(&x->run.record, "safe data", x->safe.digest);
    run_start(&x->run, &x->selector);
    return true;
}

// The step, from 1, that drew each row last; 0: none did. Told from the permutations, so a resumed run knows it as
// well.
static void find_last_visits(Learn* x, int64_t* last_visit) {
    int64_t unseen = x->tune.n;
    for (int64_t step = x->run.steps - 1; step >= 0 && unseen; step--) {
        int64_t from = step % x->run.steps_per_epoch * x->batch,
                to = from + x->batch < x->tune.n ? from + x->batch : x->tune.n;
        permute(x->run.o->seed, 0, step / x->run.steps_per_epoch, &x->tune_pass, x->tune_order, x->tune.n);
        for (int64_t i = from; i < to; i++) {
            int64_t* visit = &last_visit[x->tune_order[i]];
            if (!*visit) {
                *visit = step + 1;
                unseen--;
            }
        }
    }
}

// The samples' logits: those of their units where these have some. A line for each file then.
static void read_logits(const Learn* x, float* logits) {
    const Selector* s = &x->selector;
    float* omega = x->unit ? (float*)host_alloc((size_t)s->N * sizeof(float), "the logits") : logits;
    double* sigma = NULL;
    cudaCheck(cudaMemcpy(omega, s->omega, (size_t)s->N * sizeof(float), cudaMemcpyDeviceToHost));
    if (!x->unit) return;
    for (int i = 0; i < x->tune.n; i++) logits[i] = omega[x->unit[i]];
    sigma = (double*)host_alloc((size_t)x->tune.n * sizeof(double), "the weights");
    selector_weights(logits, x->tune.n, s->settings.activation == SELECTOR_SIGMOID, sigma);
    for (int file = 0, i = 0; file < s->N && !x->run.o->quiet; file++) {
        int first = i;
        while (i < x->tune.n && x->unit[i] == file) i++;
        printf("%s: %d rows, omega %.6g, weight %.4g\n", x->run.o->tune.items[file], i - first, omega[file],
               i > first ? sigma[first] : 0.0);
    }
    free(omega);
    free(sigma);
}

static void write_selector(Learn* x) {
    const TrainOptions* o = x->run.o;
    SelectorFile file = {};
    Text files = {};
    file.n = x->tune.n;
    file.n_rows = x->tune.n_rows;
    file.rows = x->tune.rows;
    file.hashes = x->tune.hashes;
    file.logits = (float*)host_alloc((size_t)file.n * sizeof(float), "the logits");
    file.last_visit = (int64_t*)host_alloc((size_t)file.n * sizeof(int64_t), "the last visits");
    find_last_visits(x, file.last_visit);
    read_logits(x, file.logits);
    for (int i = 0; i < o->tune.n; i++) {
        if (i) text_add(&files, " ", 1);
        text_add(&files, o->tune.items[i], strlen(o->tune.items[i]));
    }
    file.files = files.s;
    snprintf(file.digest, sizeof file.digest, "%s", x->tune.digest);
    snprintf(file.tokenizer, sizeof file.tokenizer, "%s", x->tokenizer);
    snprintf(file.chat, sizeof file.chat, "%s", x->tune.chat_digest);
    snprintf(file.algorithm, sizeof file.algorithm, "%d", x->algorithm);
    snprintf(file.activation, sizeof file.activation, "%s", o->activation);
    snprintf(file.schedule, sizeof file.schedule, "%s", o->gamma);
    file.seed = o->seed;
    selector_file_write(&file, path_of(o->out, "selector.safetensors").s);
    free(file.logits);
    free(file.last_visit);
    text_free(&files);
}

void learn_close(Learn* x) {
    if (!ranks_rank()) write_selector(x);
    run_end(&x->run);
    for (int slot = 0; slot < 2; slot++) cudaCheck(cudaFreeHost(x->sigma[slot]));
    selector_free(&x->selector);
    trainer_free(&x->run.trainer);
    tokens_free(&x->tune);
    tokens_free(&x->safe);
    free(x->samples);
    free(x->rows);
    free(x->unit);
    free(x->share);
    free(x->tune_order);
    free(x->safe_order);
}
