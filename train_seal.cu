/*
The trainer: commands and training loops. What a command may be told is seal/run/train_options.c; how a batch becomes
gradients is seal/trainer.cu; what the kernels do is seal_kernels/kernels.h.
*/
#include <signal.h>
#include <string.h>
// defines: check_command
#include "commands/check.h"
// defines: import_command
#include "commands/import.h"
// defines: Corpus
#include "rows/corpus.h"
#include "base/error.h"
// defines: directory_probe
#include "base/file.h"
#include "kernels.h"
// defines: RunLog, wall_seconds
#include "base/log.h"
// defines: random_permutation
#include "base/random.h"
// defines: ranks_start, ranks_end, ranks_rank
#include "base/ranks.h"
// defines: Run, StepNote
#include "run/run.h"
// defines: LrSchedule, GammaSchedule
#include "schedule.h"
// defines: seal_step
#include "seal_step.h"
// defines: select_command
#include "commands/select.h"
// defines: load_samples, check_sizes
#include "run/samples.h"
// defines: SelectorFile, selection_order
#include "commands/selection.h"
// defines: TokenSet
#include "rows/tokens.h"
// defines: tokenizer_open, tokenizer_vocab_size
#include "tokenizer.h"
#include "run/train_options.h"
#include "trainer.h"

// ---------------------------------------------------------------------------------------------------
// init

static int init_command(const TrainOptions* o) {
    ModelConfig config;
    if (!model_config_defaults(&config, o->family))
        fatal("init: model family \"%s\" is not supported; supported are: %s", o->family, model_families());
    config.L = (int)o->layers;
    config.C = (int)o->width;
    config.NH = (int)o->heads;
    config.NKV = (int)o->kv_heads;
    config.HS = (int)o->head_size;
    config.FF = (int)o->ff;
    config.V = (int)o->vocab;
    config.max_positions = (int)o->positions;
    if (o->rope_base > 0) config.rope.base = (float)o->rope_base;
    if (o->tokenizer) {
        char error[512];
        Tokenizer* tokenizer = tokenizer_open(o->tokenizer, error, sizeof error);
        if (!tokenizer) fatal("%s", error);
        int vocab = tokenizer_vocab_size(tokenizer);
        if (!config.V) config.V = vocab;
        if (config.V < vocab) fatal("init: --vocab is %d but %s has %d tokens", config.V, o->tokenizer, vocab);
        config.bos_id = tokenizer_bos(tokenizer);
        config.eos_id = tokenizer_eos(tokenizer);
        tokenizer_close(tokenizer);
    }
    if (!config.V) fatal("init: --vocab or --tokenizer is required");
    model_config_complete(&config, "init");
    check_sizes(&config);
    model_refuse_existing(o->out);
    directory_probe(o->out);
    ModelLayout layout;
    model_layout(&layout, &config, NULL);
    if (o->config_only) {
        char path[4200], *text = model_config_json(&config, NULL, "float32");
        snprintf(path, sizeof path, "%s/config.json", o->out);
        file_write(path, text, strlen(text));
        free(text);
    } else {
        MemoryPlan plan = {};
        ParameterSet theta;
        parameters_plan(&theta, &layout, "theta", false, NULL, &plan);
        memory_allocate(&plan);
        parameters_init(&theta, (uint64_t)o->seed, o->quiet);
        parameters_save(&theta, o->out, NULL, (int64_t)(o->shard_gb * 1e9), o->quiet);
        memory_free(&plan);
    }
    if (o->tokenizer) tokenizer_copy(o->tokenizer, o->out);
    if (!o->quiet) {
        model_print(&layout, stdout);
        printf("wrote %s/config.json%s\n", o->out, o->config_only ? "" : " and the weights");
    }
    model_layout_free(&layout);
    return 0;
}

// ---------------------------------------------------------------------------------------------------
// pretrain and sft: one loss over one set of samples

typedef struct {
    Run run;
    const PackSample *train, *valid;
    int n_train, n_valid;
    bool token_mean;   // c_x = n_x / Σ n; else 1 / |B|
    BatchItem* items;  // two batches
} Training;

// The samples order[from … from + n) (or from … where order is NULL) with their coefficients; returns the loss-bearing
// tokens.
static int64_t fill_batch(const PackSample* samples, BatchItem* items, const int* order, int64_t from, int n,
                          bool token_mean) {
    int64_t total = 0;
    for (int i = 0; i < n; i++) {
        items[i].sample = samples[order ? order[from + i] : from + i];
        total += items[i].sample.n_loss;
    }
    if (!total) fatal("a batch of %d samples has no token that carries loss", n);
    for (int i = 0; i < n; i++)
        items[i].coefficient = token_mean ? (float)items[i].sample.n_loss / (float)total : 1.0f / (float)n;
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
    stop_on_nonfinite(&x->run, note, items, r.loss, loss, r.norm);
    log_begin(&x->run.log);
    log_integer(&x->run.log, "step", note->step + 1);
    log_number(&x->run.log, "epoch", note->epoch);
    run_log_loss(&x->run, RUN_LOSS, loss);
    run_step_end(&x->run, note, loss, r.norm);
}

// One step is queued while the previous one is read back: the device never waits for the host.
static void train_loop(Training* x) {
    Run* run = &x->run;
    const TrainOptions* o = run->o;
    Trainer* t = &run->trainer;
    LrSchedule schedule = {o->schedule, o->lr, o->warmup};
    int* order = (int*)malloc((size_t)x->n_train * sizeof(int));
    BatchItem* items[2] = {x->items, x->items + o->batch};
    StepNote notes[2];
    if (!order) fatal("out of host memory for %d samples", x->n_train);
    int pending = -1;  // the slot of the step that is still to be read
    for (int64_t step = run->first; step < run->steps; step++) {
        int slot = (int)(step % 2), epoch = (int)(step / run->steps_per_epoch);
        int64_t from = step % run->steps_per_epoch * o->batch;
        if (from == 0 || step == run->first) random_permutation((uint64_t)o->seed, (uint64_t)epoch, order, x->n_train);
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
        if (pending >= 0) {
            finish_step(x, &notes[pending], items[pending], pending);
            run_checkpoint(run, step - 1);
        }
        pending = slot;
        bool leave = run_snapshot(run, step), last = step + 1 == run->steps,
             validates = x->n_valid && (last || (step + 1) % run->steps_per_epoch == 0);
        if (!last && !validates && !leave) continue;
        finish_step(x, note, items[slot], slot);
        pending = -1;
        if (validates) {
            double valid_loss = validate(x);
            log_begin(&run->log);
            log_integer(&run->log, "step", step + 1);
            run_log_loss(run, RUN_VALID_LOSS, valid_loss);
            log_end(&run->log);
        }
        run_checkpoint(run, step);
        if (leave) run_leave(run, step);
    }
    free(order);
}

static void train(Training* x) {
    run_begin(&x->run, x->n_train);
    x->items = (BatchItem*)calloc(2 * (size_t)x->run.o->batch, sizeof *x->items);
    if (!x->items) fatal("out of host memory for a batch of %lld samples", (long long)x->run.o->batch);
    run_start(&x->run, NULL);
    train_loop(x);
    run_end(&x->run);
    free(x->items);
    trainer_free(&x->run.trainer);
}

static PackSample* corpus_windows(const Corpus* corpus, int* n) {
    if (corpus->n_windows > INT32_MAX)
        fatal("%lld windows are more than a run can hold; split the data", (long long)corpus->n_windows);
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
    int window = o->max_length ? (int)o->max_length : config.longest;
    corpus_open(&train_corpus, &o->tune, o->model, config.V, window);
    if (o->valid.n) corpus_open(&valid_corpus, &o->valid, o->model, config.V, window);
    PackSample *train_samples = corpus_windows(&train_corpus, &x.n_train),
               *valid_samples = o->valid.n ? corpus_windows(&valid_corpus, &x.n_valid) : NULL;
    x.train = train_samples;
    x.valid = valid_samples;
    record_fact(&x.run.record, "tune data", train_corpus.digest);
    if (o->valid.n) record_fact(&x.run.record, "valid data", valid_corpus.digest);
    train(&x);
    corpus_close(&train_corpus);
    corpus_close(&valid_corpus);
    free(train_samples);
    free(valid_samples);
    return 0;
}

// ---------------------------------------------------------------------------------------------------
// sft on prompts and responses

// The samples to train on: those of D_tune that the selector keeps (all without one), then the appended ones. SafeInstr
// is the latter.
static PackSample* chosen_samples(const TrainOptions* o, const TokenSet* tune, const TokenSet* append, int* n) {
    PackSample* samples = (PackSample*)malloc(((size_t)tune->n + append->n) * sizeof *samples);
    uint8_t* keep = (uint8_t*)calloc((size_t)tune->n, 1);
    if (!samples || !keep) fatal("out of host memory for %d samples", tune->n + append->n);
    if (o->selector) {
        SelectorFile file = {};
        SelectionInput input = {};
        double* score = (double*)malloc((size_t)tune->n * sizeof(double));
        int64_t* order = (int64_t*)malloc((size_t)tune->n * sizeof(int64_t));
        if (!score || !order) fatal("out of host memory for %d scores", tune->n);
        selector_file_read(&file, o->selector);
        selector_file_check(&file, &o->tune, tune->digest, tune->n_rows, tune->rows, tune->n);
        input.selector = &file;
        int64_t unknown = selection_score(selection_method("seal"), &input, tune->rows, tune->n, score);
        if (unknown)
            fatal("%s has no logit for %lld rows of the data; it was learned with another tokenizer or length",
                  o->selector, (long long)unknown);
        int64_t kept = selection_order(score, tune->rows, tune->n, o->top, order);
        if (!kept) fatal("%s: --top %g of %d rows keeps none; raise --top", o->tune.items[0], o->top, tune->n);
        for (int64_t i = 0; i < kept; i++) keep[order[i]] = 1;
        selector_file_free(&file);
        free(score);
        free(order);
    } else memset(keep, 1, (size_t)tune->n);
    *n = 0;
    for (int i = 0; i < tune->n; i++)
        if (keep[i]) samples[(*n)++] = tune->samples[i];
    if (!o->quiet) printf("%d of %d samples kept", *n, tune->n);
    for (int i = 0; i < append->n; i++) {
        samples[*n] = append->samples[i];
        samples[(*n)++].row += tune->n_rows;  // its rows count on behind those of --tune
    }
    if (!o->quiet) printf(", %d appended\n", append->n);
    free(keep);
    return samples;
}

static int sft_command(const TrainOptions* o, int command) {
    Training x = {};
    ModelConfig config;
    TrainerSettings settings = {};
    TokenSet tune = {}, valid = {}, append = {};
    char digest[65];
    settings.batch_max = (int)o->batch;
    run_plan(&x.run, o, command, &config, &settings);
    x.token_mean = !strcmp(o->loss_mean, "token");
    if (!run_show(&x.run)) return 0;
    load_samples(&tune, &o->tune, "tune", o->out, o, &config, digest, NULL);
    record_fact(&x.run.record, "tokenizer", digest);
    record_fact(&x.run.record, "tune data", tune.digest);
    if (o->append.n) load_samples(&append, &o->append, "append", o->out, o, &config, NULL, NULL);
    if (o->valid.n) load_samples(&valid, &o->valid, "valid", o->out, o, &config, NULL, NULL);
    if (o->append.n) record_fact(&x.run.record, "appended data", append.digest);
    if (o->valid.n) record_fact(&x.run.record, "valid data", valid.digest);
    if (o->selector) {
        file_sha256_hex(o->selector, digest);
        record_fact(&x.run.record, "selector", digest);
    }
    PackSample* samples = chosen_samples(o, &tune, &append, &x.n_train);
    x.train = samples;
    x.valid = valid.samples;
    x.n_valid = valid.n;
    train(&x);
    tokens_free(&tune);
    if (o->append.n) tokens_free(&append);
    if (o->valid.n) tokens_free(&valid);
    free(samples);
    return 0;
}

// ---------------------------------------------------------------------------------------------------
// selector: Algorithms 1 and 2

typedef struct {
    Run run;
    Selector selector;
    TokenSet tune, safe;
    int algorithm, batch;
    GammaSchedule gamma;
    PackSample *tune_batch, *safe_batch;
    int* rows;         // indices into tune.samples: two batches
    BatchItem* items;  // two batches: fine-tuning samples, safe ones, and the fine-tuning ones again under θ̂
    int *tune_order, *safe_order;
    int64_t tune_pass, safe_pass;  // the passes whose permutations lie in tune_order and safe_order
    float* sigma[2];               // pinned: σ of the step's batch
    char tokenizer_digest[65];
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
    stop_on_nonfinite(&x->run, note, x->items + slot * 3 * x->batch, r.loss, tune + safe,
                      x->algorithm == 1 ? r.norm + r.norm_hat : r.norm);
    log_begin(&x->run.log);
    log_integer(&x->run.log, "step", note->step + 1);
    log_number(&x->run.log, "epoch", note->epoch);
    log_number(&x->run.log, "gamma", note->gamma);
    run_log_loss(&x->run, RUN_SAFE_LOSS, safe / m);
    run_log_loss(&x->run, RUN_TUNE_LOSS, tune / b);
    run_log_loss(&x->run, RUN_WEIGHTED_LOSS, weighted / b);
    if (x->algorithm == 1) run_log_loss(&x->run, RUN_GAP, gap / b);
    run_step_end(&x->run, note, safe / m, r.norm);
}

// The permutation of a pass over n samples, drawn where `held` is another's: a step's batch depends on the step alone,
// whatever was drawn before.
static void permute(int64_t seed, uint64_t stream, int64_t pass, int64_t* held, int* order, int n) {
    if (*held != pass) random_permutation((uint64_t)seed, stream + (uint64_t)pass, order, n);
    *held = pass;
}

// Fills the step's batches: the epoch's permutation of D_tune, and D_safe cycled with a permutation of its own for
// every pass.
static SealBatch selecting_batch(Selecting* x, int64_t step, int slot) {
    const TrainOptions* o = x->run.o;
    int64_t from = step % x->run.steps_per_epoch * x->batch;
    permute(o->seed, 0, step / x->run.steps_per_epoch, &x->tune_pass, x->tune_order, x->tune.n);
    SealBatch batch = {};
    batch.b = (int)(x->tune.n - from < x->batch ? x->tune.n - from : x->batch);
    batch.m = x->safe.n < x->batch ? x->safe.n : x->batch;
    int* rows = x->rows + slot * x->batch;
    memcpy(rows, x->tune_order + from, (size_t)batch.b * sizeof(int));
    // Δ and S are summed in row order, whatever order the permutation drew
    for (int i = 1; i < batch.b; i++)
        for (int j = i, row = rows[i]; j > 0 && rows[j - 1] > row; j--) {
            rows[j] = rows[j - 1];
            rows[j - 1] = row;
        }
    for (int i = 0; i < batch.b; i++) x->tune_batch[i] = x->tune.samples[rows[i]];
    for (int j = 0; j < batch.m; j++) {
        int64_t at = step * batch.m + j;
        permute(o->seed, 1ull << 40, at / x->safe.n, &x->safe_pass, x->safe_order, x->safe.n);
        x->safe_batch[j] = x->safe.samples[x->safe_order[at % x->safe.n]];
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
    LrSchedule theta = {o->schedule, o->lr, o->warmup},
               theta_hat = {o->schedule, o->lr_hat > 0 ? o->lr_hat : o->lr, o->warmup};
    LrSchedule omega = {o->selector_schedule, o->selector_lr, 0.0};
    StepNote notes[2];
    for (int64_t step = run->first; step < run->steps; step++) {
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
        seal_step(t, &x->selector, x->algorithm, &batch, x->items + slot * 3 * x->batch, &counts);
        note->theta = counts.theta;
        note->theta_hat = counts.theta_hat;
        cudaCheck(cudaMemcpyAsync(x->sigma[slot], x->selector.sigma, (size_t)batch.b * sizeof(float),
                                  cudaMemcpyDeviceToHost, t->stream));
        trainer_bring_back(t, slot);
        if (step > run->first) {
            selecting_finish(x, &notes[1 - slot], 1 - slot);
            run_checkpoint(run, step - 1);
        }
        bool leave = run_snapshot(run, step);
        if (step + 1 < run->steps && !leave) continue;
        selecting_finish(x, note, slot);
        run_checkpoint(run, step);
        if (leave) run_leave(run, step);
    }
}

// The step, from 1, that drew each row last; 0: none did. Told from the permutations, so a resumed run knows it as
// well.
static void find_last_visits(Selecting* x, int64_t* last_visit) {
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

static void write_selector(Selecting* x, const char* tokenizer_digest) {
    const TrainOptions* o = x->run.o;
    char path[4200];
    SelectorFile file = {};
    snprintf(path, sizeof path, "%s/selector.safetensors", o->out);
    file.n = x->tune.n;
    file.n_rows = x->tune.n_rows;
    file.rows = x->tune.rows;
    file.hashes = x->tune.hashes;
    file.logits = (float*)malloc((size_t)file.n * sizeof(float));
    file.last_visit = (int64_t*)calloc((size_t)file.n, sizeof(int64_t));
    if (!file.logits || !file.last_visit) fatal("out of host memory for %lld logits", (long long)file.n);
    find_last_visits(x, file.last_visit);
    cudaCheck(cudaMemcpy(file.logits, x->selector.omega, (size_t)file.n * sizeof(float), cudaMemcpyDeviceToHost));
    size_t names = 1;
    for (int i = 0; i < o->tune.n; i++) names += strlen(o->tune.items[i]) + 1;
    file.files = (char*)calloc(names, 1);
    if (!file.files) fatal("out of host memory");
    for (int i = 0; i < o->tune.n; i++)
        sprintf(file.files + strlen(file.files), "%s%s", i ? " " : "", o->tune.items[i]);
    snprintf(file.digest, sizeof file.digest, "%s", x->tune.digest);
    snprintf(file.tokenizer, sizeof file.tokenizer, "%s", tokenizer_digest);
    snprintf(file.algorithm, sizeof file.algorithm, "%d", x->algorithm);
    snprintf(file.activation, sizeof file.activation, "%s", o->activation);
    snprintf(file.schedule, sizeof file.schedule, "%s", o->gamma);
    file.seed = o->seed;
    selector_file_write(&file, path);
    free(file.logits);
    free(file.last_visit);
    free(file.files);
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
    load_samples(&x.tune, &o->tune, "tune", o->out, o, &config, x.tokenizer_digest, NULL);  // N decides the size of ω
    selector_plan(&x.selector, &selector, x.tune.n, x.batch, &x.run.trainer.plan);
    if (!run_show(&x.run)) {
        tokens_free(&x.tune);
        return 0;
    }
    load_samples(&x.safe, &o->safe, "safe", o->out, o, &config, NULL, NULL);
    run_begin(&x.run, o->compat && x.safe.n < x.tune.n ? x.safe.n : x.tune.n);
    Trainer* t = &x.run.trainer;
    selector_bind(&x.selector, t->stream);
    if (settings.with_hat) parameters_copy(&t->theta_hat, &t->theta, t->stream);
    x.tune_batch = (PackSample*)calloc(2 * (size_t)x.batch, sizeof *x.tune_batch);
    x.items = (BatchItem*)calloc(6 * (size_t)x.batch, sizeof *x.items);
    x.rows = (int*)calloc(2 * (size_t)x.batch, sizeof(int));
    x.tune_order = (int*)calloc((size_t)x.tune.n, sizeof(int));
    x.safe_order = (int*)calloc((size_t)x.safe.n, sizeof(int));
    if (!x.tune_batch || !x.items || !x.rows || !x.tune_order || !x.safe_order)
        fatal("out of host memory for the batches");
    x.safe_batch = x.tune_batch + x.batch;
    for (int slot = 0; slot < 2; slot++)
        cudaCheck(cudaMallocHost((void**)&x.sigma[slot], (size_t)x.batch * sizeof(float)));
    x.tune_pass = x.safe_pass = -1;
    record_fact(&x.run.record, "tokenizer", x.tokenizer_digest);
    record_fact(&x.run.record, "tune data", x.tune.digest);
    record_fact(&x.run.record, "safe data", x.safe.digest);
    run_start(&x.run, &x.selector);
    selecting_loop(&x);
    if (!ranks_rank()) write_selector(&x, x.tokenizer_digest);
    run_end(&x.run);
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

// ---------------------------------------------------------------------------------------------------

static int run_command(const TrainOptions* o, int command) {
    switch ((TrainCommand)command) {
        case COMMAND_INIT: return init_command(o);
        case COMMAND_IMPORT: return import_command(o);
        case COMMAND_PRETRAIN: return pretrain_command(o, command);
        case COMMAND_SFT: return sft_command(o, command);
        case COMMAND_SELECTOR: return selector_command(o, command);
        case COMMAND_SELECT: return select_command(o);
        case COMMAND_CHECK: return check_command(o);
        case COMMAND_OPTIONS: options_markdown(&train_options, stdout); return 0;
        default: program_error("command %d", command);
    }
}

int main(int argc, char** argv) {
    program_name = "train_seal";
    signal(SIGPIPE, SIG_IGN);  // whoever read our output may go; the run stays
    ranks_hello();
    TrainOptions o;
    StringList positional;
    int command = options_parse(&train_options, argc, argv, &o, &positional);
    bool trains = command == COMMAND_PRETRAIN || command == COMMAND_SFT || command == COMMAND_SELECTOR;
    if (trains && o.dry_run) ranks_plan((int)o.ranks);
    else if (trains) ranks_start((int)o.ranks);
    if (ranks_rank()) o.quiet = true;
    int status = run_command(&o, command);
    ranks_end();
    if (!trains || o.dry_run) stdout_check();
    options_free(&train_options, &o, &positional);
    return status;
}
