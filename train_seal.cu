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
// defines: LrSchedule
#include "schedule.h"
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
    char path[4200];
    size_t length;
    char* text = file_read(from, 1u << 30, &length);
    snprintf(path, sizeof path, "%s/%s", to_directory, name);
    file_write(path, text, length);
    free(text);
}
static const char* const tokenizer_files[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", "generation_config.json"};
static void copy_tokenizer(const char* from, const char* to) {
    char path[4200];
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
    if (!config.V) fatal("init: --vocab is required");
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
    if (o->tokenizer) copy_file(o->tokenizer, o->out, "tokenizer.json");
    if (!o->quiet) {
        model_print(&layout, stdout);
        printf("wrote %s/config.json and model.safetensors\n", o->out);
    }
    memory_free(&plan);
    model_layout_free(&layout);
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// pretrain: loss on all tokens

typedef struct {
    const TrainOptions* o;
    Trainer trainer;
    Corpus train, valid;
    RunLog log;
    Progress progress;
    BatchItem* items;
    int64_t steps, steps_per_epoch;
    double peak_tflops, began;
    int64_t tokens;
} Pretraining;

// What is known of a step when its losses come back.
typedef struct { int64_t step; int n; double epoch, lr, started; PassCounts counts; int64_t n_loss; } StepNote;

// The batch's windows; every token weighs the same: c_x = n_x / Σ n.
static int64_t fill_batch(const Corpus* corpus, BatchItem* items, const int* order, int64_t from, int n) {
    int64_t total = 0;
    for (int i = 0; i < n; i++) {
        items[i].sample = corpus_window(corpus, order ? order[from + i] : from + i);
        total += items[i].sample.n_loss;
    }
    for (int i = 0; i < n; i++) items[i].coefficient = (float)items[i].sample.n_loss / (float)total;
    return total;
}

static double batch_loss(const BatchItem* items, int n, const float* loss, int64_t total) {
    double sum = 0.0;
    for (int i = 0; i < n; i++) sum += (double)loss[i] * items[i].sample.n_loss;
    return sum / (double)total;
}

static double validate(Pretraining* p) {
    double sum = 0.0;
    int64_t total = 0;
    for (int64_t from = 0; from < p->valid.n_windows; from += p->o->batch) {
        int n = (int)(p->valid.n_windows - from < p->o->batch ? p->valid.n_windows - from : p->o->batch);
        PassCounts counts = {};
        int64_t tokens = fill_batch(&p->valid, p->items, NULL, from, n);
        trainer_pass(&p->trainer, &p->trainer.theta, p->items, n, 0, NULL, p->trainer.loss, false, &counts);
        trainer_bring_back(&p->trainer, 0);
        sum += batch_loss(p->items, n, trainer_result(&p->trainer, 0).loss, tokens) * (double)tokens;
        total += tokens;
    }
    return sum / (double)total;
}

// A loss or norm that is not finite ends the run: the message names the step and the first tensor that broke.
static void stop_on_nonfinite(Trainer* t, const StepNote* note, double loss, float norm) {
    if (isfinite(loss) && isfinite(norm)) return;
    const char* tensor = first_nonfinite(&t->theta, false, t->stream);
    if (!tensor) tensor = first_nonfinite(&t->theta, true, t->stream);
    fatal("step %lld: loss %g, gradient norm %g; the first tensor that is not finite: %s; lower --lr or look at the data of this step", (long long)note->step + 1, loss, norm,
          tensor ? tensor : "none, only the loss");
}

static void finish_step(Pretraining* p, const StepNote* note, const BatchItem* items, int slot) {
    StepResult r = trainer_result(&p->trainer, slot);
    double loss = batch_loss(items, note->n, r.loss, note->n_loss), seconds = wall_seconds() - note->started;
    stop_on_nonfinite(&p->trainer, note, loss, r.norm);
    p->tokens += note->counts.trained_tokens;
    double speed = (double)note->counts.trained_tokens / seconds, utilisation = trainer_flops(&p->trainer, &note->counts) / seconds / 1e12 / p->peak_tflops;
    log_begin(&p->log);
    log_integer(&p->log, "step", note->step + 1);
    log_number(&p->log, "epoch", note->epoch);
    log_number(&p->log, "loss", loss);
    log_number(&p->log, "lr", note->lr);
    log_number(&p->log, "grad_norm", r.norm);
    log_integer(&p->log, "tokens", note->counts.trained_tokens);
    log_number(&p->log, "tokens_per_s", speed);
    log_number(&p->log, "utilisation", p->peak_tflops > 0 ? utilisation : NAN);
    log_integer(&p->log, "bytes", (int64_t)memory_total(&p->trainer.plan));
    log_number(&p->log, "wall_s", wall_seconds() - p->began);
    log_end(&p->log);
    if (p->peak_tflops > 0) progress_update(&p->progress, note->step + 1, "loss %.4f, %.0f tokens/s, %.1f%% of peak", loss, speed, 100.0 * utilisation);
    else progress_update(&p->progress, note->step + 1, "loss %.4f, %.0f tokens/s", loss, speed);
}

// One step is queued while the previous one is read back: the device never waits for the host.
static double pretrain_loop(Pretraining* p) {
    const TrainOptions* o = p->o;
    Trainer* t = &p->trainer;
    LrSchedule schedule = {o->schedule, o->lr, o->warmup};
    int* order = (int*)malloc((size_t)p->train.n_windows * sizeof(int));
    BatchItem* items[2] = {p->items, p->items + o->batch};
    StepNote notes[2];
    if (!order) fatal("out of host memory for %lld windows", (long long)p->train.n_windows);
    double valid_loss = NAN;
    int pending = -1;  // the slot of the step that is still to be read
    for (int64_t step = 0; step < p->steps; step++) {
        int slot = (int)(step % 2), epoch = (int)(step / p->steps_per_epoch);
        int64_t from = step % p->steps_per_epoch * o->batch;
        if (from == 0) random_permutation((uint64_t)o->seed, (uint64_t)epoch, order, (int)p->train.n_windows);
        StepNote* note = &notes[slot];
        memset(note, 0, sizeof *note);
        note->step = step;
        note->n = (int)(p->train.n_windows - from < o->batch ? p->train.n_windows - from : o->batch);
        note->epoch = (double)(step + 1) / (double)p->steps_per_epoch;
        note->lr = lr_at(&schedule, step, p->steps);
        note->started = step ? wall_seconds() : p->began;
        note->n_loss = fill_batch(&p->train, items[slot], order, from, note->n);
        gradients_zero(&t->theta, t->stream);
        trainer_pass(t, &t->theta, items[slot], note->n, 0, NULL, t->loss, true, &note->counts);
        optimizer_step(&t->theta, &t->settings.adamw, (float)note->lr, t->norm, t->norm + 1, t->stream);
        trainer_bring_back(t, slot);
        if (pending >= 0) finish_step(p, &notes[pending], items[pending], pending);
        pending = slot;
        bool ends_epoch = (step + 1) % p->steps_per_epoch == 0;
        if (step + 1 < p->steps && !(ends_epoch && p->valid.n)) continue;
        finish_step(p, note, items[slot], slot);
        pending = -1;
        if (!p->valid.n) continue;
        valid_loss = validate(p);
        log_begin(&p->log);
        log_integer(&p->log, "step", step + 1);
        log_number(&p->log, "valid_loss", valid_loss);
        log_end(&p->log);
    }
    free(order);
    return valid_loss;
}

static void write_summary(const Pretraining* p, double valid_loss, const char* run) {
    char path[4200];
    snprintf(path, sizeof path, "%s/summary.json", run);
    AtomicFile f;
    atomic_open(&f, path);
    atomic_printf(&f, "{\"command\":\"pretrain\",\"steps\":%lld,\"tokens\":%lld,\"wall_s\":%.3f,\"peak_bytes\":%zu,\"valid_loss\":", (long long)p->steps, (long long)p->tokens,
                  wall_seconds() - p->began, memory_total(&p->trainer.plan));
    if (isfinite(valid_loss)) atomic_printf(&f, "%.9g}\n", valid_loss);
    else atomic_printf(&f, "null}\n");
    atomic_commit(&f);
}

static int pretrain_command(const TrainOptions* o, int command) {
    Pretraining p = {};
    ModelConfig config;
    p.o = o;
    model_config_read(&config, o->model);
    check_head_size(&config);
    if (o->max_length > config.max_positions) fatal("--max-length is %lld, %s reads at most %d tokens", (long long)o->max_length, o->model, config.max_positions);
    int window = o->max_length ? (int)o->max_length : config.max_positions;
    if (window < 2) fatal("--max-length is %d; a window needs two tokens", window);
    TrainerSettings settings = {};
    settings.T = o->tokens ? (int)o->tokens : window;
    if (settings.T < window) fatal("--tokens is %d, a sample may have %d; raise --tokens or lower --max-length", settings.T, window);
    settings.head_rows = (int)o->head_rows;
    settings.batch_max = (int)o->batch;
    settings.recompute = o->recompute;
    settings.adamw = adamw_settings(o);
    trainer_plan(&p.trainer, &config, &settings);
    if (!o->quiet || o->dry_run) {
        options_print(&train_options, command, o, stdout);
        model_print(&p.trainer.layout, stdout);
        memory_print(&p.trainer.plan, stdout);
    }
    if (o->dry_run) return 0;
    corpus_open(&p.train, &o->tune, o->model, config.V, window);
    if (o->valid.n) corpus_open(&p.valid, &o->valid, o->model, config.V, window);
    if (p.train.n_windows > INT32_MAX) fatal("%lld windows are more than one run holds; split the data", (long long)p.train.n_windows);
    p.steps_per_epoch = (p.train.n_windows + o->batch - 1) / o->batch;
    p.steps = (int64_t)ceil(o->epochs * (double)p.steps_per_epoch - 1e-9);
    if (o->max_steps && o->max_steps < p.steps) p.steps = o->max_steps;
    directory_probe(o->out);
    trainer_allocate(&p.trainer);
    parameters_load(&p.trainer.theta, o->model);
    p.items = (BatchItem*)calloc(2 * (size_t)o->batch, sizeof *p.items);
    if (!p.items) fatal("out of host memory for a batch of %lld samples", (long long)o->batch);
#ifdef PRECISION_BF16
    p.peak_tflops = gpu_peak_tflops(device_name(), true);
#else
    p.peak_tflops = gpu_peak_tflops(device_name(), false);
#endif
    log_open(&p.log, o->out, false);
    char* header = options_json(&train_options, command, o);
    log_line(&p.log, header);
    free(header);
    progress_begin(&p.progress, "pretrain", p.steps, o->quiet);
    p.began = wall_seconds();
    double valid_loss = pretrain_loop(&p);
    progress_end(&p.progress);
    log_close(&p.log);
    char model[4200];
    snprintf(model, sizeof model, "%s/model", o->out);
    parameters_save(&p.trainer.theta, model);
    copy_tokenizer(o->model, model);
    write_summary(&p, valid_loss, o->out);
    if (!o->quiet) printf("%lld steps, %lld tokens in %.1f s on %s; wrote %s\n", (long long)p.steps, (long long)p.tokens, wall_seconds() - p.began, device_name(), model);
    trainer_free(&p.trainer);
    corpus_close(&p.train);
    corpus_close(&p.valid);
    free(p.items);
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
        case COMMAND_OPTIONS: options_markdown(&train_options, stdout); return 0;
        default: program_error("command %d", command);
    }
}
