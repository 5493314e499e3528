/* What every training command does around its loop. See run.h. */
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "device.h"
#include "packed.h"
#include "peft.h"
#include "base/ranks.h"
#include "run/algorithms.h"
#include "run/run.h"
#include "run/samples.h"

#define FACT_TOKENS "length of a stream"  // tokens of a pack
#define AUTO_TOKENS_MOST (1 << 18)        // of --tokens auto: GEMMs gain nothing beyond

static AdamwSettings adamw_settings(const TrainOptions* o) {
    AdamwSettings a = {(float)o->beta1, (float)o->beta2, (float)o->adam_eps, (float)o->weight_decay, (float)o->clip};
    return a;
}

// What --lora and its companions ask for, or what an adapter brings.
static LoraSettings lora_settings(const TrainOptions* o, const ModelConfig* config) {
    LoraSettings s = {};
    bool named = strcmp(o->lora, "none") != 0;
    if (o->adapter && named) fatal("--adapter brings its own modules, rank and alpha; leave --lora out");
    if (o->adapter) peft_settings(o->adapter, config, &s);
    if (s.dropout > 0 && !ranks_rank())
        warning("%s/adapter_config.json: lora_dropout is %g; training continues without dropout", o->adapter,
                s.dropout);
    if (o->merge && !o->adapter && !named)
        fatal("--merge adds an adapter to the model; there is none without --lora or --adapter");
    if (!named) return s;
    if (strlen(o->lora) >= sizeof s.modules || !*o->lora)
        fatal("--lora is %.80s; expected some of q,k,v,o,gate,up,down, or all", o->lora);
    snprintf(s.modules, sizeof s.modules, "%s", o->lora);
    s.rank = (int)o->lora_rank;
    s.scale = (float)(o->lora_alpha / (double)o->lora_rank);
    return s;
}

// The largest number of tokens per pack with which the plan leaves a twentieth of the free device memory alone, and no
// more than the largest batch can fill. Memory grows with T, so a search by halves finds it.
static int tokens_that_fit(const ModelConfig* config, TrainerSettings settings, int longest) {
    size_t free_bytes = 0;
    if (!device_free_bytes(&free_bytes))
        fatal("--tokens auto fills the free memory of a GPU, and none can be used here; give --tokens N to plan");
    free_bytes = ranks_least_size(free_bytes);  // the same packs on all
    int64_t most = (int64_t)settings.batch_max * longest, low = longest,
            high = most < AUTO_TOKENS_MOST ? most : AUTO_TOKENS_MOST;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        Trainer t;
        settings.T = (int)middle;
        trainer_plan(&t, config, &settings);
        bool fits = memory_total(&t.plan) <= free_bytes / 20 * 19;
        trainer_plan_free(&t);
        if (fits) low = middle;
        else high = middle - 1;
    }
    return (int)(low > longest ? low / PACK_ROUND * PACK_ROUND : longest);
}

// A resumed run keeps the packs that it began with: free memory differs from day to day, and the bits with the packs.
static int tokens_of_checkpoint(const TrainOptions* o) {
    char text[16] = "0";
    if (!o->resume || !o->out) return 0;
    if (!ranks_rank()) checkpoint_fact(o->out, FACT_TOKENS, text, sizeof text);
    ranks_share(text, sizeof text);
    return (int)strtol(text, NULL, 10);
}

void run_settings(const TrainOptions* o, const ModelConfig* config, TrainerSettings* settings) {
    model_config_check_length(config, o->max_length, "--max-length", o->model);
    int longest = o->max_length ? (int)o->max_length : config->longest;
    if (longest < 2) fatal("--max-length is %d but a sample needs at least two tokens", longest);
    settings->T = o->tokens > 0 ? (int)o->tokens : longest;
    if (settings->T < longest)
        fatal("--tokens is %d but a sample may have %d; raise --tokens or lower --max-length", settings->T, longest);
    settings->head_rows = (int)o->head_rows;
    settings->recompute = o->recompute;
    settings->adamw = adamw_settings(o);
    settings->lora = lora_settings(o, config);
    settings->base = base_find(o->base);
    // Large packs make large products, which a GPU multiplies faster; a CPU gains nothing. --dry-run without a GPU
    // plans for the shortest.
    size_t bytes;
    bool automatic = o->tokens == OPTION_AUTO || (!o->tokens && !device_is_emulated() && device_free_bytes(&bytes));
    if (!automatic) return;
    int before = tokens_of_checkpoint(o);
    settings->T = before >= longest ? before : tokens_that_fit(config, *settings, longest);
}

// A run that ended has nothing left to do; one that did not is not overwritten by mistake.
static void look_for_an_earlier_run(const Run* run) {
    const TrainOptions* o = run->o;
    Path summary = path_of(o->out, "summary.json");
    int ended = file_exists(summary.s);
    ranks_share(&ended, sizeof ended);  // rank 0 decides, so that all leave or none
    if (o->resume && ended) {
        if (!ranks_rank()) record_check_ended(&run->record, o->out);
        if (!o->quiet) printf("%s: this run has ended; nothing to do\n", o->out);
        ranks_end();
        exit(0);
    }
    if (o->resume) return;
    bool any = checkpoint_any(o->out);
    if (any && ended)
        fatal("%s holds a run that has ended, with its checkpoints; remove %s/checkpoint to train there again", o->out,
              o->out);
    if (any)
        fatal("%s/checkpoint holds a run that can be resumed; give --resume, or remove that folder to start again",
              o->out);
}

// A model or an adapter that is trained on is not written over by what comes of it.
static void look_at_what_is_read(const Run* run) {
    const TrainOptions* o = run->o;
    Path path;
    if (!run->trainer.with_lora || o->merge) {
        path = path_of(o->out, "model");
        output_is_not(path.s, o->model);
    }
    path = path_of(o->out, "adapter");
    output_is_not(path.s, o->adapter);
}

void run_plan(Run* run, const TrainOptions* o, int command, ModelConfig* config, TrainerSettings* settings) {
    memset(run, 0, sizeof *run);
    run->o = o;
    run->command = command;
    for (int i = 0; i < N_RUN_LOSSES; i++) run->losses[i] = NAN;
    run->record.command = train_options.commands[command].name;
    run->record.options = options_json(&train_options, command, o);
    if (!o->dry_run) {
        device_require();
        if (base_find(o->base) == BASE_FP8) device_require_fp8();
        look_for_an_earlier_run(run);
    }
    model_config_read(config, o->model);
    check_sizes(config);
    run_settings(o, config, settings);
    trainer_plan(&run->trainer, config, settings);
    if (!o->dry_run && !o->resume) look_at_what_is_read(run);
}

bool run_show(Run* run) {
    const TrainOptions* o = run->o;
    if (!o->quiet || o->dry_run) {
        options_print(&train_options, run->command, o, stdout);
        model_print(&run->trainer.layout, stdout);
        printf("packs of %d tokens\n", run->trainer.settings.T);
        memory_print(&run->trainer.plan, stdout);
    }
    if (!o->dry_run) return true;
    trainer_plan_free(&run->trainer);
    record_free(&run->record);
    return false;
}

// RUN can be written, and what a killed process left half-written there is gone.
static void prepare_output(const char* out) {
    directory_probe(out);
    directory_clean(out);
    Path model = path_of(out, "model");
    directory_clean(model.s);
}

// Nothing prevents this run any more.
static void take_the_place_of_an_earlier_run(const char* out) {
    Path summary = path_of(out, "summary.json");
    if (!unlink(summary.s)) warning("%s held a run that had ended; this run replaces it", out);
}

// RUN is where all ranks see it: a file of rank 0's is there for the others. Each would read and write parts of its
// own otherwise, and no checkpoint would ever be whole.
#define LOOK_SECONDS 5
static void look_from_all(const char* out) {
    AtomicFile seen = {};  // never committed: a temporary file, which goes however the run ends
    if (ranks_count() == 1) return;
    Path path = path_of(out, "ranks");
    if (!ranks_rank()) atomic_open(&seen, path.s);
    ranks_share(seen.temporary, sizeof seen.temporary);
    directory_make(out);  // a network file system may remember that there was none
    for (int tries = 0; !file_exists(seen.temporary) && tries < LOOK_SECONDS; tries++) sleep(1);
    if (!file_exists(seen.temporary))
        fatal(
            "%s: rank 0's machine has another folder of this name; --out must be on a file system that all machines "
            "share",
            out);
    ranks_barrier();
    if (!ranks_rank()) atomic_abandon(&seen);
}

int64_t run_steps(const TrainOptions* o, int64_t samples, int64_t* per_epoch) {
    *per_epoch = o->compat ? samples / o->batch : (samples + o->batch - 1) / o->batch;
    if (!*per_epoch) fatal("%lld samples are too few for one batch of %lld", (long long)samples, (long long)o->batch);
    int64_t steps = (int64_t)ceil(o->epochs * (double)*per_epoch - 1e-9);
    if (o->max_steps && o->max_steps < steps) steps = o->max_steps;
    if (!steps) fatal("--epochs %g is less than one step", o->epochs);
    return steps;
}

void run_begin(Run* run, int64_t samples) {
    const TrainOptions* o = run->o;
    run->steps = run_steps(o, samples, &run->steps_per_epoch);
    if (!ranks_rank()) prepare_output(o->out);
    look_from_all(o->out);
    trainer_allocate(&run->trainer);
    if (o->algorithms) algorithms_open(o->algorithms);
    trainer_load(&run->trainer, o->model, o->adapter, (uint64_t)o->seed, o->quiet);
    run->peak_tflops = ranks_count() * gpu_peak_tflops(device_name(), sizeof(floatX) == 2);
}

// ---------------------------------------------------------------------------------------------------
// checkpoints

static volatile sig_atomic_t signalled;
static void on_signal(int number) {
    signalled = number;
    signal(SIGTERM, SIG_DFL);  // a second one does not wait for the step
    signal(SIGINT, SIG_DFL);
    signal(SIGUSR1, SIG_DFL);
}

static void add_counter(Run* run, const char* name, int* value) {
    run->counters[run->n_counters].name = name;
    run->counters[run->n_counters++].value = value;
}

// The state of a run: all that --resume needs and that cannot be computed again. Weights are the rounded masters;
// permutations are counter-based.
static void describe_state(Run* run, Selector* selector) {
    static const char* const counters[] = {"theta_step", "theta_hat_step"};
    Snapshot* s = &run->snapshot;
    ParameterSet* sets[] = {&run->trainer.theta, &run->trainer.theta_hat};
    for (int i = 0; i < 2; i++) {
        ParameterSet* set = sets[i];
        char name[32];
        if (!set->grads) continue;
        int64_t n = set->layout->n_elements;
        snprintf(name, sizeof name, "%s.master", set->symbol);
        snapshot_add_part(s, name, set->master, n, set->from, set->n);
        snprintf(name, sizeof name, "%s.m", set->symbol);
        snapshot_add_part(s, name, set->m, n, set->from, set->n);
        snprintf(name, sizeof name, "%s.v", set->symbol);
        snapshot_add_part(s, name, set->v, n, set->from, set->n);
        add_counter(run, counters[i], &set->step);
    }
    if (!selector) return;
    snapshot_add(s, "omega", selector->omega, selector->N);
    snapshot_add(s, "omega.m", selector->m, selector->N);
    snapshot_add(s, "omega.v", selector->v, selector->N);
    snapshot_add(s, "omega.running", selector->running, 2);
    add_counter(run, "omega_step", &selector->step);
}

// Every rank has all weights, which are the masters rounded.
static void restore_weights(ParameterSet* set, const Checkpoint* c) {
    char name[32];
    if (!set->grads) return;
    snprintf(name, sizeof name, "%s.master", set->symbol);
    for (int i = 0; i < set->layout->n_tensors; i++) {
        const ModelTensor* t = &set->layout->tensors[i];
        float* values = (float*)host_alloc((size_t)(t->rows * t->cols) * sizeof(float), "values");
        checkpoint_read(c, name, set->layout->n_elements, t->offset, t->rows * t->cols, values);
        parameters_set(set, i, values);
        free(values);
    }
}

// Rank 0 chooses, so that all take the same.
static bool open_newest(Checkpoint* c, const char* out) {
    int64_t step = -1;
    if (!ranks_rank() && checkpoint_open(c, out, -1)) step = c->step;
    ranks_share(&step, sizeof step);
    if (step < 0) return false;
    if (ranks_rank() && !checkpoint_open(c, out, step))
        fatal("%s/checkpoint/step-%lld differs from what rank 0 reads there", out, (long long)step);
    return true;
}

static int64_t resume(Run* run) {
    Checkpoint c;
    const TrainOptions* o = run->o;
    bool found = open_newest(&c, o->out);
    if (!ranks_rank()) checkpoint_discard(o->out, found ? c.step : -1);
    if (!found) {
        look_at_what_is_read(run);
        if (!o->quiet) printf("%s holds no checkpoint; the run starts from the beginning\n", o->out);
        return 0;
    }
    record_check(&run->record, &c);
    if (checkpoint_integer(&c, "step") != c.step || c.step > run->steps)
        fatal("%s: the checkpoint is at step %lld but this run has only %lld steps", c.path, (long long)c.step,
              (long long)run->steps);
    snapshot_restore(&run->snapshot, &c);
    restore_weights(&run->trainer.theta, &c);
    restore_weights(&run->trainer.theta_hat, &c);
    for (int i = 0; i < run->n_counters; i++)
        *run->counters[i].value = (int)checkpoint_integer(&c, run->counters[i].name);
    run->first = c.step;
    run->tokens = checkpoint_integer(&c, "tokens");
    run->forward_tokens = checkpoint_integer(&c, "forward_tokens");
    for (int i = 0; i < N_RUN_LOSSES; i++) run->losses[i] = checkpoint_number(&c, run_loss_names[i]);
    run->began -= checkpoint_number(&c, "wall_s");
    int64_t log_bytes = checkpoint_integer(&c, "log_bytes");
    if (!o->quiet) printf("resumed from %s\n", c.path);
    checkpoint_close(&c);
    return log_bytes;
}

// What the run will write, against what the disk has free: better now than after the training.
static void find_room(const Run* run, const Selector* selector) {
    const TrainOptions* o = run->o;
    const Trainer* t = &run->trainer;
    const ModelLayout* written = t->with_lora && !o->merge ? &t->lora.layout : &t->layout;
    double MiB = 1048576.0, model = (double)written->n_parameters * sizeof(float),
           state = (double)run->snapshot.whole_bytes, held = (double)checkpoint_bytes_held(o->out);
    int64_t most = o->keep + (ranks_count() > 1
                                  ? 2
                                  : 1);  // one more while it is written, and one that a slower rank has yet to finish
    double checkpoints = o->save_every ? state * (double)most : 0.0;
    double rest = 512.0 * (double)run->steps +
                  (selector ? 28.0 * (double)selector->N : 0.0);  // log.jsonl, selector.safetensors
    double need = model + rest + (checkpoints > held ? checkpoints - held : 0.0) + (1 << 20),
           have = (double)directory_free(o->out);
    if (need <= have) return;
    if (!checkpoints)
        fatal("%s: %.1f MiB are free but the run writes a model of %.1f MiB; make room, or choose another --out",
              o->out, have / MiB, model / MiB);
    fatal(
        "%s: %.1f MiB are free but the run writes a model of %.1f MiB and keeps %lld checkpoints of %.1f MiB; make "
        "room, "
        "choose another --out or lower --keep",
        o->out, have / MiB, model / MiB, (long long)most, state / MiB);
}

void run_count_rows(Run* run, const char* kind, const TokenSet* set) {
    if (run->n_data == (int)(sizeof run->data / sizeof *run->data)) program_error("more lists of files than a run has");
    run->data[run->n_data].kind = kind;
    run->data[run->n_data].rows = set->n_rows;
    run->data[run->n_data].left_out = row_report_bad(&set->report);
    run->data[run->n_data++].cut = set->n_cut;
    if (!*set->chat_digest || *run->chat) return;
    snprintf(run->chat, sizeof run->chat, "%s", set->chat);
    record_fact(&run->record, "chat template", set->chat_digest);
}

// rows, left_out and cut of all files, and of each list under "data". Nothing where a run has no rows.
static void add_row_counts(const Run* run, cJSON* json) {
    int64_t rows = 0, left_out = 0, cut = 0;
    if (!run->n_data) return;
    for (int i = 0; i < run->n_data; i++) {
        rows += run->data[i].rows;
        left_out += run->data[i].left_out;
        cut += run->data[i].cut;
    }
    cJSON_AddNumberToObject(json, "rows", (double)rows);
    cJSON_AddNumberToObject(json, "left_out", (double)left_out);
    cJSON_AddNumberToObject(json, "cut", (double)cut);
    if (*run->chat) cJSON_AddStringToObject(json, "chat_template", run->chat);
    cJSON* data = cJSON_AddObjectToObject(json, "data");
    for (int i = 0; i < run->n_data; i++) {
        cJSON* list = cJSON_AddObjectToObject(data, run->data[i].kind);
        cJSON_AddNumberToObject(list, "rows", (double)run->data[i].rows);
        cJSON_AddNumberToObject(list, "left_out", (double)run->data[i].left_out);
        cJSON_AddNumberToObject(list, "cut", (double)run->data[i].cut);
    }
}

// log.jsonl's header: the options as the record has them, the packs that they came to, and what became of the rows.
static void log_header(Run* run) {
    size_t n = strlen(run->record.options);
    cJSON* counts = cJSON_CreateObject();
    cJSON_AddNumberToObject(counts, "pack_tokens", run->trainer.settings.T);
    add_row_counts(run, counts);
    char* more = json_text(counts);
    cJSON_Delete(counts);
    Text header = {};
    text_add(&header, run->record.options, n - 1);  // without its brace
    text_add(&header, ",", 1);
    text_add(&header, more + 1, strlen(more + 1));
    log_line(&run->log, header.s);
    text_free(&header);
    cJSON_free(more);
}

void run_start(Run* run, Selector* selector) {
    const TrainOptions* o = run->o;
    Hex fingerprint;
    model_directory_digest(o->model, fingerprint);
    record_fact(&run->record, "model", fingerprint);
    if (o->adapter) {
        char scale[32];
        model_directory_digest(o->adapter, fingerprint);
        record_fact(&run->record, "adapter", fingerprint);
        snprintf(scale, sizeof scale, "%.9g", run->trainer.settings.lora.scale);
        record_fact(&run->record, "adapter's alpha over rank", scale);
    }
    record_fact(&run->record, "precision of the build", FLOATX_NAME);
    char tokens[16];
    snprintf(tokens, sizeof tokens, "%d", run->trainer.settings.T);
    record_fact(&run->record, FACT_TOKENS, tokens);
    snapshot_begin(&run->snapshot, o->out, ranks_rank(), (int)o->keep);
    describe_state(run, selector);
    if (!ranks_rank()) find_room(run, selector);
    run->began = wall_seconds();
    int64_t log_bytes = o->resume ? resume(run) : 0;
    if (!ranks_rank()) take_the_place_of_an_earlier_run(o->out);
    log_open(&run->log, ranks_rank() ? NULL : o->out, log_bytes);
    if (!log_bytes) log_header(run);
    progress_begin(&run->progress, run->record.command, run->steps, o->quiet);
    run->progress.first = run->first;
    struct sigaction action = {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;  // a read or write under way continues
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);  // what mpirun hands on, and what Slurm sends where it is asked to warn
}

bool run_snapshot(Run* run, int64_t step) {
    run->trainer.vote = signalled != 0;
    bool leave = (ranks_count() > 1 ? run->trainer.voted : run->trainer.vote) &&
                 step + 1 < run->steps;  // after the last step a run ends anyway
    if (!leave && !(run->o->save_every && (step + 1) % run->o->save_every == 0)) return false;
    snapshot_take(&run->snapshot, step + 1, run->trainer.stream);
    for (int i = 0; i < run->n_counters; i++)
        run->counters[i].copied = *run->counters[i].value;  // the next step counts on before this one is logged
    return leave;
}

static char* run_json(Run* run, int64_t step) {
    cJSON* json = record_json(&run->record);
    cJSON_AddNumberToObject(json, "ranks", ranks_count());
    cJSON_AddNumberToObject(json, "step", (double)step);
    cJSON_AddNumberToObject(json, "log_bytes", (double)log_length(&run->log));
    cJSON_AddNumberToObject(json, "tokens", (double)run->tokens);
    cJSON_AddNumberToObject(json, "forward_tokens", (double)run->forward_tokens);
    cJSON_AddNumberToObject(json, "wall_s", wall_seconds() - run->began);
    for (int i = 0; i < N_RUN_LOSSES; i++)
        cJSON_AddNumberToObject(json, run_loss_names[i], run->losses[i]);  // NaN is written as null
    for (int i = 0; i < run->n_counters; i++)
        cJSON_AddNumberToObject(json, run->counters[i].name, run->counters[i].copied);
    char* text = json_pretty_text(json);
    cJSON_Delete(json);
    return text;
}

void run_checkpoint(Run* run, int64_t step) {
    snapshot_poll(&run->snapshot);
    if (run->snapshot.step == step + 1 && !run->snapshot.writing)
        snapshot_publish(&run->snapshot, ranks_rank() ? NULL : run_json(run, step + 1));
}

static const char* signal_name(int number) {
    switch (number) {
        case SIGINT: return "SIGINT";
        case SIGTERM: return "SIGTERM";
        case SIGUSR1: return "SIGUSR1";
        default: return "a signal to another rank";
    }
}

void run_leave(Run* run, int64_t step) {
    int number = signalled;
    snapshot_wait(&run->snapshot);
    progress_end(&run->progress);
    log_close(&run->log);
    // A launcher may end the others when the first has left; all have done their work, and leave with their own status.
    signal(SIGTERM, SIG_IGN);
    signal(SIGUSR1, SIG_IGN);
    ranks_end();
    if (ranks_rank()) exit(STATUS_STOPPED);
    fprintf(stderr, "%s: %s: stopped after step %lld of %lld; --resume continues from %s/checkpoint/step-%lld\n",
            program_name, signal_name(number), (long long)step + 1, (long long)run->steps, run->o->out,
            (long long)step + 1);
    exit(STATUS_STOPPED);
}

// ---------------------------------------------------------------------------------------------------
// every step, and the end

const char* const run_loss_names[N_RUN_LOSSES] = {"loss",      "valid_loss",    "safe_loss",
                                                  "tune_loss", "weighted_loss", "gap"};

void run_log_loss(Run* run, RunLoss which, double value) {
    log_number(&run->log, run_loss_names[which], value);
    run->losses[which] = value;
}

void run_log_step(Run* run, const StepNote* note) {
    log_begin(&run->log);
    log_integer(&run->log, "step", note->step + 1);
    log_number(&run->log, "epoch", note->epoch);
}

void run_log_validation(Run* run, int64_t step, double loss) {
    log_begin(&run->log);
    log_integer(&run->log, "step", step + 1);
    run_log_loss(run, RUN_VALID_LOSS, loss);
    log_end(&run->log);
}

void run_step_end(Run* run, const StepNote* note, double loss, float norm) {
    // Two steps are queued: this one's own time begins where the one before has ended.
    double now = wall_seconds(), seconds = now - (run->ended > note->started ? run->ended : note->started);
    run->ended = now;
    int64_t trained = 0, forward = 0;
    double flops = 0.0;
    for (int leg = 0; leg < 2; leg++) {
        trained += note->passes[leg].trained_tokens;
        forward += note->passes[leg].forward_tokens;
        flops += trainer_flops(&run->trainer, &note->passes[leg]);
    }
    run->tokens += trained;
    run->forward_tokens += forward;
    run->losses[RUN_LOSS] = loss;
    double speed = (double)trained / seconds;
    double utilisation = run->peak_tflops > 0 ? flops / seconds / 1e12 / run->peak_tflops : NAN;
    log_number(&run->log, "lr", note->lr);
    log_number(&run->log, "grad_norm", norm);
    log_integer(&run->log, "tokens", trained);
    log_integer(&run->log, "forward_tokens", forward);
    log_number(&run->log, "tokens_per_s", speed);
    log_number(&run->log, "utilisation", utilisation);
    log_integer(&run->log, "bytes", (int64_t)memory_total(&run->trainer.plan));
    log_number(&run->log, "wall_s", now - run->began);
    log_end(&run->log);
    if (run->peak_tflops > 0)
        progress_update(&run->progress, note->step + 1, "loss %.4f, %.0f tokens/s, %.1f%% of peak", loss, speed,
                        100.0 * utilisation);
    else progress_update(&run->progress, note->step + 1, "loss %.4f, %.0f tokens/s", loss, speed);
}

// Some rows of the batch, and where they come from.
typedef struct {
    const char *what, *option;  // "rows" or "windows"; of --tune or --safe
    const StringList* files;
    const PackSample* samples;  // (n)
    const float* losses;        // (n)
    int n;
} BatchPart;

// Appends "rows 4, 17 and 5 more of --tune": the rows whose loss is not finite, or all where `all`. Where there are
// several files each row is counted within its own, which is named.
static void name_rows(Text* text, const BatchPart* part, bool all) {
    const int most = 8;
    const StringList* files = part->files;
    int64_t* rows = (int64_t*)host_alloc(((size_t)files->n + 1) * sizeof *rows, "the numbers of rows");  // of each file
    int n = 0, counted = 0;
    for (int i = 0; i < part->n; i++) {
        if (!all && isfinite(part->losses[i])) continue;
        if (n++ >= most) continue;
        int64_t row = part->samples[i].row;
        int f = 0;
        for (; f + 1 < files->n; f++) {
            // a file is read once, and only if a row may come after it
            if (counted == f) rows[counted++] = dataset_rows(files->items[f]);
            if (row < rows[f]) break;
            row -= rows[f];
        }
        if (n == 1) text_printf(text, "%s%s", text->n ? ", " : "", part->what);
        text_printf(text, "%s %lld", n > 1 ? "," : "", (long long)row);
        if (files->n > 1) text_printf(text, " of %.100s", files->items[f]);
    }
    if (n > most) text_printf(text, " and %d more", n - most);
    if (n && files->n == 1) text_printf(text, " of --%s", part->option);
    free(rows);
}

void run_stop_on_nonfinite(Run* run, const StepNote* note, const Batch* batch, const float* losses, double loss,
                           float norm) {
    if (isfinite(loss) && isfinite(norm)) return;
    // The first tensor that broke: gradients, then weights.
    Trainer* t = &run->trainer;
    const char *tensor = NULL, *of = "";
    const ParameterSet* sets[] = {&t->theta, &t->theta_hat};
    for (int i = 0; i < 4 && !tensor; i++) {
        if (!sets[i / 2]->grads) continue;
        tensor = first_nonfinite(sets[i / 2], i % 2 != 0, t->stream);
        of = i < 2 ? "" : " of theta_hat";
    }
    // The rows: those whose own loss is not finite, else the whole batch. The windows of a corpus are counted over all
    // its files.
    bool some = false, windows = run->command == COMMAND_PRETRAIN;
    for (int i = 0; i < batch->b + batch->m; i++) some |= !isfinite(losses[i]);
    const StringList *tune = &run->o->tune, *append = &run->o->append;
    StringList trained = {(const char**)host_alloc((size_t)(tune->n + append->n) * sizeof(char*), "the names of files"),
                          windows ? 1 : tune->n + append->n};
    for (int f = 0; f < trained.n; f++) trained.items[f] = f < tune->n ? tune->items[f] : append->items[f - tune->n];
    Text rows = {};
    const BatchPart parts[] = {
        {windows ? "windows" : "rows", "tune", &trained, batch->tune, losses, batch->b},
        {"rows", "safe", &run->o->safe, batch->safe, losses + batch->b, batch->m},
    };
    for (int i = 0; i < 2; i++) name_rows(&rows, &parts[i], !some);
    if (isnan(norm)) norm = NAN;  // without a sign
    fatal(
        "step %lld: loss %g, gradient norm %g; %s: %s; the first tensor that is not finite: %s%s; lower --lr or look "
        "at these rows",
        (long long)note->step + 1, loss, norm, some ? "not finite" : "the batch", rows.s,
        tensor ? tensor : "none, only the loss", tensor ? of : "");
}

// What a table needs of a run. A loss that the command does not have is left out; one that was never measured is null.
static char* summary_json(const Run* run) {
    const TrainOptions* o = run->o;
    bool selector = learns_weights(o, run->command);
    cJSON* json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "command", train_options.commands[run->command].name);
    if (selector) {
        cJSON_AddNumberToObject(json, "algorithm", (double)o->algorithm);
        cJSON_AddStringToObject(json, "gamma", o->gamma);
        cJSON_AddStringToObject(json, "activation", o->activation);
        cJSON_AddStringToObject(json, "selector_optimizer", o->selector_optimizer);
    }
    cJSON_AddNumberToObject(json, "steps", (double)run->steps);
    cJSON_AddNumberToObject(json, "tokens", (double)run->tokens);
    cJSON_AddNumberToObject(json, "forward_tokens", (double)run->forward_tokens);
    cJSON_AddNumberToObject(json, "wall_s", round(1e3 * (wall_seconds() - run->began)) / 1e3);
    cJSON_AddNumberToObject(json, "peak_bytes", (double)memory_total(&run->trainer.plan));
    for (int i = 0; i < N_RUN_LOSSES; i++)
        if (i <= RUN_VALID_LOSS || (selector && (i != RUN_GAP || o->algorithm == 1)))
            cJSON_AddNumberToObject(json, run_loss_names[i], run->losses[i]);
    add_row_counts(run, json);
    char* text = json_text(json);
    cJSON_Delete(json);
    return text;
}

void run_end(Run* run) {
    const TrainOptions* o = run->o;
    const Trainer* t = &run->trainer;
    Path path;
    snapshot_end(&run->snapshot);
    progress_end(&run->progress);
    log_close(&run->log);
    parameters_gather(&run->trainer.theta, run->trainer.stream);
    cudaCheck(cudaDeviceSynchronize());
    if (ranks_rank()) return record_free(&run->record);
    int64_t shard_bytes = (int64_t)(o->shard_gb * 1e9);
    if (t->with_lora) {
        path = path_of(o->out, "adapter");
        peft_save(&t->theta, &t->lora, path.s, o->model);
    }
    path = path_of(o->out, "model");
    if (!t->with_lora) parameters_save(&t->theta, path.s, o->model, shard_bytes, o->quiet);
    else if (o->merge) peft_save_merged(&t->theta, &t->lora, path.s, o->model, shard_bytes, o->quiet);
    if (!t->with_lora || o->merge) tokenizer_copy(o->model, path.s);
    path = path_of(o->out, "summary.json");
    char* text = summary_json(run);
    file_write(path.s, text, strlen(text));
    free(text);
    if (!o->quiet)
        printf("%lld steps, %lld tokens in %.1f s on %s; wrote %s\n", (long long)run->steps, (long long)run->tokens,
               wall_seconds() - run->began, device_name(), o->out);
    record_free(&run->record);
}
