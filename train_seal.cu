/*
The trainer: commands and training loops. What a command may be told is seal/train_options.c; how a batch becomes gradients is seal/trainer.cu; what the
kernels do is seal_kernels/kernels.h.
*/
#include <string.h>
// defines: Corpus
#include "corpus.h"
#include "error.h"
// defines: directory_make, directory_probe, file_write
#include "file.h"
#include "kernels.h"
// defines: RunLog, Progress, gpu_peak_tflops
#include "log.h"
// defines: random_permutation
#include "random.h"
// defines: StWriter
#include "safetensors.h"
// defines: LrSchedule, GammaSchedule
#include "schedule.h"
// defines: seal_step
#include "seal_step.h"
// defines: TokenSet, TextEncoder
#include "tokens.h"
// defines: tokenizer_open, tokenizer_vocab_size
#include "tokenizer.h"
#include "train_options.h"
#include "trainer.h"

// ---------------------------------------------------------------------------------------------------------------------------------------
// what the commands share

static void check_head_size(const ModelConfig* c) {
    if (!attention_head_size_served(c->HS)) fatal("head size %d (width %d, %d heads) has no attention kernel; served are 32, 64, 80, 96, 128", c->HS, c->C, c->NH);
}

static AdamwSettings adamw_settings(const TrainOptions* o) {
    AdamwSettings a = {(float)o->beta1, (float)o->beta2, (float)o->adam_eps, (float)o->weight_decay, (float)o->clip};
    return a;
}

static const char* device_name(void) {
    static cudaDeviceProp device;
    cudaCheck(cudaGetDeviceProperties(&device, 0));
    return device.name;
}

// Copies a file byte for byte: a tokenizer travels with its model.
static void copy_file(const char* from, const char* to_directory, const char* name) {
    char path[8400];
    size_t length;
    char* text = file_read(from, 1u << 30, &length);
    snprintf(path, sizeof path, "%s/%s", to_directory, name);
    file_write(path, text, length);
    free(text);
}
static const char* const tokenizer_files[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", "generation_config.json"};
static void copy_tokenizer(const char* from, const char* to) {
    char path[8400];
    for (size_t i = 0; i < sizeof tokenizer_files / sizeof *tokenizer_files; i++) {
        snprintf(path, sizeof path, "%s/%s", from, tokenizer_files[i]);
        if (file_exists(path)) copy_file(path, to, tokenizer_files[i]);
    }
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// init

static int init_command(const TrainOptions* o) {
    ModelConfig config = {};
    snprintf(config.family, sizeof config.family, "%s", o->family);
    config.L = (int)o->layers;
    config.C = (int)o->width;
    config.NH = (int)o->heads;
    config.FF = o->ff ? (int)o->ff : 4 * config.C;
    config.V = (int)o->vocab;
    config.max_positions = (int)o->positions;
    config.norm_eps = 1e-5f;
    config.tied_head = true;
    config.bos_id = config.eos_id = -1;
    if (o->tokenizer) {
        char error[512];
        Tokenizer* tokenizer = tokenizer_open(o->tokenizer, error, sizeof error);
        if (!tokenizer) fatal("%s", error);
        int vocab = tokenizer_vocab_size(tokenizer);
        if (!config.V) config.V = vocab;
        if (config.V < vocab) fatal("init: --vocab is %d, %s has %d tokens", config.V, o->tokenizer, vocab);
        config.bos_id = tokenizer_bos(tokenizer);
        config.eos_id = tokenizer_eos(tokenizer);
        tokenizer_close(tokenizer);
    }
    if (!config.V) fatal("init: --vocab or --tokenizer is required");
    model_config_complete(&config, "init");
    check_head_size(&config);
    directory_probe(o->out);
    ModelLayout layout;
    MemoryPlan plan = {};
    ParameterSet theta;
    model_layout(&layout, &config);
    parameters_plan(&theta, &layout, "theta", false, NULL, &plan);
    memory_allocate(&plan);
    parameters_init(&theta, (uint64_t)o->seed);
    parameters_save(&theta, o->out);
    if (o->tokenizer) {  // under its own name: tokenizer.json, tokenizer.model
        const char* slash = strrchr(o->tokenizer, '/');
        copy_file(o->tokenizer, o->out, slash ? slash + 1 : o->tokenizer);
    }
    if (!o->quiet) {
        model_print(&layout, stdout);
        printf("wrote %s/config.json and model.safetensors\n", o->out);
    }
    memory_free(&plan);
    model_layout_free(&layout);
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// a run: what all training commands do around their loops

typedef struct {
    const TrainOptions* o;
    int command;
    Trainer trainer;
    RunLog log;
    Progress progress;
    int64_t steps, steps_per_epoch, tokens, forward_tokens;
    double peak_tflops, began, last_loss;
} Run;

// What is known of a step when its losses come back.
typedef struct {
    int64_t step;
    int n, b;             // samples of the batch, fine-tuning ones among them
    double epoch, lr, gamma, started;
    PassCounts theta, theta_hat;
    int64_t n_loss;
} StepNote;

static void run_plan(Run* run, const TrainOptions* o, int command, ModelConfig* config, TrainerSettings* settings) {
    memset(run, 0, sizeof *run);
    run->o = o;
    run->command = command;
    model_config_read(config, o->model);
    check_head_size(config);
    if (o->max_length > config->max_positions) fatal("--max-length is %lld, %s reads at most %d tokens", (long long)o->max_length, o->model, config->max_positions);
    int longest = o->max_length ? (int)o->max_length : config->max_positions;
    if (longest < 2) fatal("--max-length is %d; a sample needs two tokens", longest);
    settings->T = o->tokens ? (int)o->tokens : longest;
    if (settings->T < longest) fatal("--tokens is %d, a sample may have %d; raise --tokens or lower --max-length", settings->T, longest);
    settings->head_rows = (int)o->head_rows;
    settings->recompute = o->recompute;
    settings->adamw = adamw_settings(o);
    trainer_plan(&run->trainer, config, settings);
}

// Prints the options and the plan; false where that was all (--dry-run).
static bool run_show(Run* run) {
    const TrainOptions* o = run->o;
    if (!o->quiet || o->dry_run) {
        options_print(&train_options, run->command, o, stdout);
        model_print(&run->trainer.layout, stdout);
        memory_print(&run->trainer.plan, stdout);
    }
    return !o->dry_run;
}

static void run_begin(Run* run, int64_t samples) {
    const TrainOptions* o = run->o;
    run->steps_per_epoch = o->compat ? samples / o->batch : (samples + o->batch - 1) / o->batch;
    if (!run->steps_per_epoch) fatal("%lld samples do not fill one batch of %lld", (long long)samples, (long long)o->batch);
    run->steps = (int64_t)ceil(o->epochs * (double)run->steps_per_epoch - 1e-9);
    if (o->max_steps && o->max_steps < run->steps) run->steps = o->max_steps;
    if (!run->steps) fatal("--epochs %g makes no step", o->epochs);
    directory_probe(o->out);
    trainer_allocate(&run->trainer);
    parameters_load(&run->trainer.theta, o->model);
    run->peak_tflops = gpu_peak_tflops(device_name(), sizeof(floatX) == 2);
    log_open(&run->log, o->out, false);
    char* header = options_json(&train_options, run->command, o);
    log_line(&run->log, header);
    free(header);
    progress_begin(&run->progress, train_options.commands[run->command].name, run->steps, o->quiet);
    run->began = wall_seconds();
}

// The fields that every step logs, and the progress line.
static void run_step_end(Run* run, const StepNote* note, double loss, float norm) {
    double seconds = wall_seconds() - note->started;
    int64_t trained = note->theta.trained_tokens + note->theta_hat.trained_tokens;
    run->tokens += trained;
    run->forward_tokens += note->theta.forward_tokens;
    run->last_loss = loss;
    double speed = (double)trained / seconds;
    double flops = trainer_flops(&run->trainer, &note->theta) + trainer_flops(&run->trainer, &note->theta_hat);
    double utilisation = run->peak_tflops > 0 ? flops / seconds / 1e12 / run->peak_tflops : NAN;
    log_number(&run->log, "lr", note->lr);
    log_number(&run->log, "grad_norm", norm);
    log_integer(&run->log, "tokens", trained);
    log_integer(&run->log, "forward_tokens", note->theta.forward_tokens);
    log_number(&run->log, "tokens_per_s", speed);
    log_number(&run->log, "utilisation", utilisation);
    log_integer(&run->log, "bytes", (int64_t)memory_total(&run->trainer.plan));
    log_number(&run->log, "wall_s", wall_seconds() - run->began);
    log_end(&run->log);
    if (run->peak_tflops > 0) progress_update(&run->progress, note->step + 1, "loss %.4f, %.0f tokens/s, %.1f%% of peak", loss, speed, 100.0 * utilisation);
    else progress_update(&run->progress, note->step + 1, "loss %.4f, %.0f tokens/s", loss, speed);
}

// A loss or norm that is not finite ends the run: the message names the step and the first tensor that broke.
static void stop_on_nonfinite(Run* run, const StepNote* note, double loss, float norm) {
    if (isfinite(loss) && isfinite(norm)) return;
    Trainer* t = &run->trainer;
    const char* tensor = first_nonfinite(&t->theta, false, t->stream);
    if (!tensor) tensor = first_nonfinite(&t->theta, true, t->stream);
    fatal("step %lld: loss %g, gradient norm %g; the first tensor that is not finite: %s; lower --lr or look at the data of this step", (long long)note->step + 1, loss, norm,
          tensor ? tensor : "none, only the loss");
}

static void run_end(Run* run, double valid_loss) {
    const TrainOptions* o = run->o;
    char path[4200];
    progress_end(&run->progress);
    log_close(&run->log);
    snprintf(path, sizeof path, "%s/model", o->out);
    parameters_save(&run->trainer.theta, path);
    copy_tokenizer(o->model, path);
    snprintf(path, sizeof path, "%s/summary.json", o->out);
    AtomicFile f;
    atomic_open(&f, path);
    atomic_printf(&f, "{\"command\":\"%s\",\"steps\":%lld,\"tokens\":%lld,\"forward_tokens\":%lld,\"wall_s\":%.3f,\"peak_bytes\":%zu,\"loss\":%.9g,\"valid_loss\":",
                  train_options.commands[run->command].name, (long long)run->steps, (long long)run->tokens, (long long)run->forward_tokens, wall_seconds() - run->began,
                  memory_total(&run->trainer.plan), run->last_loss);
    if (isfinite(valid_loss)) atomic_printf(&f, "%.9g}\n", valid_loss);
    else atomic_printf(&f, "null}\n");
    atomic_commit(&f);
    if (!o->quiet) printf("%lld steps, %lld tokens in %.1f s on %s; wrote %s\n", (long long)run->steps, (long long)run->tokens, wall_seconds() - run->began, device_name(), o->out);
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// pretrain and sft: one loss over one set of samples

typedef struct {
    Run run;
    const PackSample *train, *valid;
    int n_train, n_valid;
    bool token_mean;   // c_x = n_x / Σ n; else 1 / |B|
    BatchItem* items;  // two batches
} Training;

// The samples order[from … from + n) (or from … where order is NULL) with their coefficients; returns the loss-bearing tokens.
static int64_t fill_batch(const PackSample* samples, BatchItem* items, const int* order, int64_t from, int n, bool token_mean) {
    int64_t total = 0;
    for (int i = 0; i < n; i++) {
        items[i].sample = samples[order ? order[from + i] : from + i];
        total += items[i].sample.n_loss;
    }
    if (!total) fatal("a batch of %d samples has no token that bears a loss", n);
    for (int i = 0; i < n; i++) items[i].coefficient = token_mean ? (float)items[i].sample.n_loss / (float)total : 1.0f / (float)n;
    return total;
}

static double batch_loss(const BatchItem* items, int n, const float* loss) {
    double sum = 0.0;
    for (int i = 0; i < n; i++) sum += (double)loss[i] * items[i].coefficient;
    return sum;
}

static double validate(Training* x) {
    Trainer* t = &x->run.trainer;
    double sum = 0.0, weight = 0.0;
    int64_t batch = x->run.o->batch;
    for (int64_t from = 0; from < x->n_valid; from += batch) {
        int n = (int)(x->n_valid - from < batch ? x->n_valid - from : batch);
        PassCounts counts = {};
        int64_t tokens = fill_batch(x->valid, x->items, NULL, from, n, x->token_mean);
        trainer_pass(t, &t->theta, x->items, n, 0, NULL, t->loss, false, &counts);
        trainer_bring_back(t, 0);
        double w = x->token_mean ? (double)tokens : (double)n;
        sum += batch_loss(x->items, n, trainer_result(t, 0).loss) * w;
        weight += w;
    }
    return sum / weight;
}

static void finish_step(Training* x, const StepNote* note, const BatchItem* items, int slot) {
    StepResult r = trainer_result(&x->run.trainer, slot);
    double loss = batch_loss(items, note->n, r.loss);
    stop_on_nonfinite(&x->run, note, loss, r.norm);
    log_begin(&x->run.log);
    log_integer(&x->run.log, "step", note->step + 1);
    log_number(&x->run.log, "epoch", note->epoch);
    log_number(&x->run.log, "loss", loss);
    run_step_end(&x->run, note, loss, r.norm);
}

// One step is queued while the previous one is read back: the device never waits for the host. Returns the last validation's loss.
static double train_loop(Training* x) {
    Run* run = &x->run;
    const TrainOptions* o = run->o;
    Trainer* t = &run->trainer;
    LrSchedule schedule = {o->schedule, o->lr, o->warmup};
    int* order = (int*)malloc((size_t)x->n_train * sizeof(int));
    BatchItem* items[2] = {x->items, x->items + o->batch};
    StepNote notes[2];
    if (!order) fatal("out of host memory for %d samples", x->n_train);
    double valid_loss = NAN;
    int pending = -1;  // the slot of the step that is still to be read
    for (int64_t step = 0; step < run->steps; step++) {
        int slot = (int)(step % 2), epoch = (int)(step / run->steps_per_epoch);
        int64_t from = step % run->steps_per_epoch * o->batch;
        if (from == 0) random_permutation((uint64_t)o->seed, (uint64_t)epoch, order, x->n_train);
        StepNote* note = &notes[slot];
        memset(note, 0, sizeof *note);
        note->step = step;
        note->n = (int)(x->n_train - from < o->batch ? x->n_train - from : o->batch);
        note->epoch = (double)(step + 1) / (double)run->steps_per_epoch;
        note->lr = lr_at(&schedule, step, run->steps);
        note->started = step ? wall_seconds() : run->began;
        note->n_loss = fill_batch(x->train, items[slot], order, from, note->n, x->token_mean);
        gradients_zero(&t->theta, t->stream);
        trainer_pass(t, &t->theta, items[slot], note->n, 0, NULL, t->loss, true, &note->theta);
        optimizer_step(&t->theta, &t->settings.adamw, (float)note->lr, t->norm, t->norm + 1, t->stream);
        trainer_bring_back(t, slot);
        if (pending >= 0) finish_step(x, &notes[pending], items[pending], pending);
        pending = slot;
        bool ends_epoch = (step + 1) % run->steps_per_epoch == 0;
        if (step + 1 < run->steps && !(ends_epoch && x->n_valid)) continue;
        finish_step(x, note, items[slot], slot);
        pending = -1;
        if (!x->n_valid) continue;
        valid_loss = validate(x);
        log_begin(&run->log);
        log_integer(&run->log, "step", step + 1);
        log_number(&run->log, "valid_loss", valid_loss);
        log_end(&run->log);
    }
    free(order);
    return valid_loss;
}

static void train(Training* x) {
    run_begin(&x->run, x->n_train);
    x->items = (BatchItem*)calloc(2 * (size_t)x->run.o->batch, sizeof *x->items);
    if (!x->items) fatal("out of host memory for a batch of %lld samples", (long long)x->run.o->batch);
    run_end(&x->run, train_loop(x));
    free(x->items);
    trainer_free(&x->run.trainer);
}

static PackSample* corpus_windows(const Corpus* corpus, int* n) {
    if (corpus->n_windows > INT32_MAX) fatal("%lld windows are more than one run holds; split the data", (long long)corpus->n_windows);
    PackSample* samples = (PackSample*)malloc((size_t)corpus->n_windows * sizeof *samples);
    if (!samples) fatal("out of host memory for %lld windows", (long long)corpus->n_windows);
    *n = (int)corpus->n_windows;
    for (int i = 0; i < *n; i++) samples[i] = corpus_window(corpus, i);
    return samples;
}

static int pretrain_command(const TrainOptions* o, int command) {
    Training x = {};
    ModelConfig config;
    TrainerSettings settings = {};
    Corpus train_corpus, valid_corpus = {};
    settings.batch_max = (int)o->batch;
    run_plan(&x.run, o, command, &config, &settings);
    x.token_mean = true;
    if (!run_show(&x.run)) return 0;
    int window = o->max_length ? (int)o->max_length : config.max_positions;
    corpus_open(&train_corpus, &o->tune, o->model, config.V, window);
    if (o->valid.n) corpus_open(&valid_corpus, &o->valid, o->model, config.V, window);
    PackSample *train_samples = corpus_windows(&train_corpus, &x.n_train), *valid_samples = o->valid.n ? corpus_windows(&valid_corpus, &x.n_valid) : NULL;
    x.train = train_samples;
    x.valid = valid_samples;
    train(&x);
    corpus_close(&train_corpus);
    corpus_close(&valid_corpus);
    free(train_samples);
    free(valid_samples);
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// data with prompts and responses

static TokenOptions token_options(const TrainOptions* o, const ModelConfig* config, const char* cache) {
    TokenOptions t = {};
    t.rows.prompt_template = o->prompt_template;
    t.rows.prompt_field = o->prompt_field;
    t.rows.response_field = o->response_field;
    t.max_length = o->max_length ? (int)o->max_length : config->max_positions;
    t.vocab = config->V;
    t.compat = o->compat;
    t.quiet = o->quiet;
    t.cache = cache;
    return t;
}

// Tokenises a list of files; the cache lies next to the run under `kind`.
static void load_samples(TokenSet* set, const StringList* files, const char* kind, const TrainOptions* o, const ModelConfig* config) {
    char cache[4200];
    TextEncoder encoder;
    snprintf(cache, sizeof cache, "%s/%s.tokens.safetensors", o->out, kind);
    directory_make(o->out);
    TokenOptions options = token_options(o, config, cache);
    text_encoder_open(&encoder, o->model, config->eos_id);
    tokens_load(set, files, &encoder, &options);
    text_encoder_close(&encoder);
    if (!o->quiet) tokens_print(set, kind, stdout);
}

static int sft_command(const TrainOptions* o, int command) {
    Training x = {};
    ModelConfig config;
    TrainerSettings settings = {};
    TokenSet tune = {}, valid = {};
    settings.batch_max = (int)o->batch;
    run_plan(&x.run, o, command, &config, &settings);
    x.token_mean = !strcmp(o->loss_mean, "token");
    if (!run_show(&x.run)) return 0;
    load_samples(&tune, &o->tune, "tune", o, &config);
    if (o->valid.n) load_samples(&valid, &o->valid, "valid", o, &config);
    x.train = tune.samples;
    x.n_train = tune.n;
    x.valid = valid.samples;
    x.n_valid = valid.n;
    train(&x);
    tokens_free(&tune);
    if (o->valid.n) tokens_free(&valid);
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// selector: Algorithms 1 and 2

typedef struct {
    Run run;
    Selector selector;
    TokenSet tune, safe;
    int algorithm, batch;
    GammaSchedule gamma;
    PackSample *tune_batch, *safe_batch;
    int* rows;              // indices into tune.samples: two batches
    BatchItem* items;
    int *tune_order, *safe_order;
    int64_t safe_at;        // safe samples drawn so far: D_safe is cycled
    float* sigma[2];        // pinned: σ of the step's batch
    double penalty_gap;
} Selecting;

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
    s.initial = s.activation == SELECTOR_SOFTMAX ? 0.1f : -1e-4f;
    s.mean_decay = 0.95f;
    return s;
}

static void selecting_finish(Selecting* x, const StepNote* note, int slot) {
    StepResult r = trainer_result(&x->run.trainer, slot);
    double tune = 0.0, safe = 0.0, weighted = 0.0, gap = 0.0;
    int b = note->b, m = note->n - note->b;
    for (int i = 0; i < b; i++) {
        tune += r.loss[i];
        weighted += (double)x->sigma[slot][i] * r.loss[i];
        if (x->algorithm == 1) gap += (double)x->sigma[slot][i] * ((double)r.loss[i] - r.loss_hat[i]);
    }
    for (int j = 0; j < m; j++) safe += r.loss[b + j];
    stop_on_nonfinite(&x->run, note, tune + safe, x->algorithm == 1 ? r.norm + r.norm_hat : r.norm);
    log_begin(&x->run.log);
    log_integer(&x->run.log, "step", note->step + 1);
    log_number(&x->run.log, "epoch", note->epoch);
    log_number(&x->run.log, "gamma", note->gamma);
    log_number(&x->run.log, "safe_loss", safe / m);
    log_number(&x->run.log, "tune_loss", tune / b);
    log_number(&x->run.log, "weighted_loss", weighted / b);
    if (x->algorithm == 1) log_number(&x->run.log, "gap", gap / b);
    run_step_end(&x->run, note, safe / m, r.norm);
}

// Fills the step's batches: the epoch's permutation of D_tune, and D_safe cycled with a permutation of its own for every pass.
static SealBatch selecting_batch(Selecting* x, int64_t step, int slot) {
    const TrainOptions* o = x->run.o;
    int64_t from = step % x->run.steps_per_epoch * x->batch;
    if (from == 0) random_permutation((uint64_t)o->seed, (uint64_t)(step / x->run.steps_per_epoch), x->tune_order, x->tune.n);
    SealBatch batch = {};
    batch.b = (int)(x->tune.n - from < x->batch ? x->tune.n - from : x->batch);
    batch.m = x->safe.n < x->batch ? x->safe.n : x->batch;
    int* rows = x->rows + slot * x->batch;
    memcpy(rows, x->tune_order + from, (size_t)batch.b * sizeof(int));
    // Δ and S are summed in row order, whatever order the permutation drew
    for (int i = 1; i < batch.b; i++)
        for (int j = i, row = rows[i]; j > 0 && rows[j - 1] > row; j--) { rows[j] = rows[j - 1]; rows[j - 1] = row; }
    for (int i = 0; i < batch.b; i++) x->tune_batch[i] = x->tune.samples[rows[i]];
    for (int j = 0; j < batch.m; j++, x->safe_at++) {
        int at = (int)(x->safe_at % x->safe.n);
        if (at == 0) random_permutation((uint64_t)o->seed, (1ull << 40) + (uint64_t)(x->safe_at / x->safe.n), x->safe_order, x->safe.n);
        x->safe_batch[j] = x->safe.samples[x->safe_order[at]];
    }
    batch.tune = x->tune_batch;
    batch.safe = x->safe_batch;
    batch.rows = rows;
    return batch;
}

static void selecting_loop(Selecting* x) {
    Run* run = &x->run;
    const TrainOptions* o = run->o;
    Trainer* t = &run->trainer;
    LrSchedule theta = {o->schedule, o->lr, o->warmup}, theta_hat = {o->schedule, o->lr_hat > 0 ? o->lr_hat : o->lr, o->warmup};
    LrSchedule omega = {o->selector_schedule, o->selector_lr, 0.0};
    StepNote notes[2];
    for (int64_t step = 0; step < run->steps; step++) {
        int slot = (int)(step % 2);
        StepNote* note = &notes[slot];
        SealBatch batch = selecting_batch(x, step, slot);
        memset(note, 0, sizeof *note);
        note->step = step;
        note->b = batch.b;
        note->n = batch.b + batch.m;
        note->epoch = (double)(step + 1) / (double)run->steps_per_epoch;
        note->gamma = gamma_at(&x->gamma, (int)(step / run->steps_per_epoch), step, run->steps);
        note->lr = lr_at(&theta, step, run->steps);
        note->started = step ? wall_seconds() : run->began;
        batch.gamma = (float)note->gamma;
        batch.lr = (float)note->lr;
        batch.lr_hat = (float)lr_at(&theta_hat, step, run->steps);
        batch.lr_omega = (float)lr_at(&omega, step, run->steps);
        batch.omega_scale = o->gamma_scales_omega ? batch.gamma : 1.0f;
        SealCounts counts;
        seal_step(t, &x->selector, x->algorithm, &batch, x->items, &counts);
        note->theta = counts.theta;
        note->theta_hat = counts.theta_hat;
        cudaCheck(cudaMemcpyAsync(x->sigma[slot], x->selector.sigma, (size_t)batch.b * sizeof(float), cudaMemcpyDeviceToHost, t->stream));
        trainer_bring_back(t, slot);
        if (step) selecting_finish(x, &notes[1 - slot], 1 - slot);
    }
    int last = (int)((run->steps - 1) % 2);
    selecting_finish(x, &notes[last], last);
}

static void write_selector(Selecting* x) {
    const TrainOptions* o = x->run.o;
    int N = x->tune.n;
    char path[4200], number[32];
    snprintf(path, sizeof path, "%s/selector.safetensors", o->out);
    float* logits = (float*)malloc((size_t)N * sizeof(float));
    if (!logits) fatal("out of host memory for %d logits", N);
    cudaCheck(cudaMemcpy(logits, x->selector.omega, (size_t)N * sizeof(float), cudaMemcpyDeviceToHost));
    StWriter file;
    st_create(&file, path);
    st_set_metadata(&file, "file", o->tune.items[0]);
    st_set_metadata(&file, "digest", x->tune.digest);
    snprintf(number, sizeof number, "%d", x->algorithm);
    st_set_metadata(&file, "algorithm", number);
    st_set_metadata(&file, "activation", o->activation);
    st_set_metadata(&file, "optimizer", o->selector_optimizer);
    st_set_metadata(&file, "gamma", o->gamma);
    snprintf(number, sizeof number, "%lld", (long long)o->seed);
    st_set_metadata(&file, "seed", number);
    snprintf(number, sizeof number, "%lld", (long long)x->tune.n_rows);
    st_set_metadata(&file, "rows", number);
    int64_t shape[1] = {N};
    st_declare(&file, "logits", ST_F32, 1, shape);
    st_declare(&file, "row", ST_I64, 1, shape);
    st_declare(&file, "hash", ST_I64, 1, shape);
    st_write(&file, logits, (size_t)N * sizeof(float));
    st_write(&file, x->tune.rows, (size_t)N * sizeof(int64_t));
    st_write(&file, x->tune.hashes, (size_t)N * sizeof(int64_t));
    st_commit(&file);
    free(logits);
}

static int selector_command(const TrainOptions* o, int command) {
    Selecting x = {};
    ModelConfig config;
    TrainerSettings settings = {};
    x.algorithm = (int)o->algorithm;
    x.batch = (int)o->batch;
    gamma_parse(&x.gamma, o->gamma);
    settings.batch_max = 2 * x.batch;
    settings.with_hat = x.algorithm == 1;
    run_plan(&x.run, o, command, &config, &settings);
    SelectorSettings selector = selector_settings(o);
    load_samples(&x.tune, &o->tune, "tune", o, &config);  // N decides the size of ω
    selector_plan(&x.selector, &selector, x.tune.n, x.batch, &x.run.trainer.plan);
    if (!run_show(&x.run)) return 0;
    load_samples(&x.safe, &o->safe, "safe", o, &config);
    run_begin(&x.run, o->compat && x.safe.n < x.tune.n ? x.safe.n : x.tune.n);
    Trainer* t = &x.run.trainer;
    selector_bind(&x.selector, t->stream);
    if (settings.with_hat) {
        parameters_copy(&t->theta_hat, &t->theta, t->stream);
    }
    x.tune_batch = (PackSample*)calloc(2 * (size_t)x.batch, sizeof *x.tune_batch);
    x.items = (BatchItem*)calloc(2 * (size_t)x.batch, sizeof *x.items);
    x.rows = (int*)calloc(2 * (size_t)x.batch, sizeof(int));
    x.tune_order = (int*)calloc((size_t)x.tune.n, sizeof(int));
    x.safe_order = (int*)calloc((size_t)x.safe.n, sizeof(int));
    if (!x.tune_batch || !x.items || !x.rows || !x.tune_order || !x.safe_order) fatal("out of host memory for the batches");
    x.safe_batch = x.tune_batch + x.batch;
    for (int slot = 0; slot < 2; slot++) cudaCheck(cudaMallocHost((void**)&x.sigma[slot], (size_t)x.batch * sizeof(float)));
    selecting_loop(&x);
    write_selector(&x);
    run_end(&x.run, NAN);
    for (int slot = 0; slot < 2; slot++) cudaCheck(cudaFreeHost(x.sigma[slot]));
    selector_free(&x.selector);
    trainer_free(t);
    tokens_free(&x.tune);
    tokens_free(&x.safe);
    free(x.tune_batch);
    free(x.items);
    free(x.rows);
    free(x.tune_order);
    free(x.safe_order);
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------------------------------

int main(int argc, char** argv) {
    program_name = "train_seal";
    TrainOptions o;
    StringList positional;
    int command = options_parse(&train_options, argc, argv, &o, &positional);
    switch ((TrainCommand)command) {
        case COMMAND_INIT: return init_command(&o);
        case COMMAND_PRETRAIN: return pretrain_command(&o, command);
        case COMMAND_SFT: return sft_command(&o, command);
        case COMMAND_SELECTOR: return selector_command(&o, command);
        case COMMAND_OPTIONS: options_markdown(&train_options, stdout); return 0;
        default: program_error("command %d", command);
    }
}
