/* Pretraining and supervised fine-tuning. See supervised.h. */
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "base/random.h"
#include "commands/selector_file.h"
#include "commands/scores.h"
#include "commands/supervised.h"
#include "commands/token_mask.h"
#include "run/samples.h"
#include "schedule.h"

// ---------------------------------------------------------------------------------------------------
// the steps

// Sets the batch's shares: they add up to 1. Returns its tokens that carry loss.
static int64_t set_shares(const Supervised* x, Batch* batch, float* share) {
    int64_t total = 0;
    for (int i = 0; i < batch->b; i++) total += batch->tune[i].n_loss;
    if (!total)
        fatal(
            "none of the %d samples of a batch has a token that carries loss; `train_seal "
            "check --show 3` shows which tokens do",
            batch->b);
    for (int i = 0; i < batch->b; i++)
        share[i] = x->token_mean ? (float)batch->tune[i].n_loss / (float)total : 1.0f / (float)batch->b;
    batch->share = share;
    return total;
}

static double batch_loss(const Batch* batch, const float* loss) {
    double sum = 0.0;
    for (int i = 0; i < batch->b; i++) sum += (double)loss[i] * batch->share[i];
    return sum;
}

void supervised_queue(void* task, StepNote* note, int slot) {
    Supervised* x = (Supervised*)task;
    Run* run = &x->run;
    const TrainOptions* o = run->o;
    LrSchedule schedule = {o->schedule, o->lr, o->warmup};
    int64_t from = note->step % run->steps_per_epoch * o->batch;
    if (from == 0 || note->step == run->first)
        random_permutation((uint64_t)o->seed, (uint64_t)(note->step / run->steps_per_epoch), x->order, x->n_train);

    Batch* batch = &x->batch[slot];
    PackSample* samples = x->samples + slot * o->batch;
    batch->b = (int)(x->n_train - from < o->batch ? x->n_train - from : o->batch);
    float* share = x->share + slot * o->batch;
    for (int i = 0; i < batch->b; i++) samples[i] = x->train[x->order[from + i]];
    note->n_loss = set_shares(x, batch, share);
    for (int i = 0; i < batch->b && x->train_weight; i++) {
        share[i] *= x->train_weight[x->order[from + i]];
        note->weight += x->train_weight[x->order[from + i]] / batch->b;
    }
    note->lr = lr_at(&schedule, note->step, run->steps);
    Leg theta = {.set = &run->trainer.theta, .lr = (float)note->lr, .tune_weight = 1.0f};
    trainer_step(&run->trainer, &theta, 1, batch, NULL, note->passes);
}

void supervised_finish(void* task, const StepNote* note, int slot) {
    Supervised* x = (Supervised*)task;
    const Batch* batch = &x->batch[slot];
    StepResult r = trainer_result(&x->run.trainer, slot);
    double loss = batch_loss(batch, r.loss);
    run_stop_on_nonfinite(&x->run, note, batch, r.loss, loss, r.norm);
    run_log_step(&x->run, note);
    run_log_loss(&x->run, RUN_LOSS, loss);
    if (x->train_weight) log_number(&x->run.log, "weight", note->weight);
    run_step_end(&x->run, note, loss, r.norm);
}

double supervised_validate(void* task) {
    Supervised* x = (Supervised*)task;
    Trainer* t = &x->run.trainer;
    double sum = 0.0, weight = 0.0;
    int64_t most = x->run.o->batch;
    float* share = x->share;  // no step is in flight
    for (int64_t from = 0; from < x->n_valid; from += most) {
        Batch batch = {x->valid + from, NULL, (int)(x->n_valid - from < most ? x->n_valid - from : most), 0, share};
        int64_t tokens = set_shares(x, &batch, share);
        PassCounts counts = {};
        trainer_evaluate(t, &batch, &counts);
        trainer_bring_back(t, 0);
        double w = x->token_mean ? (double)tokens : (double)batch.b;
        sum += batch_loss(&batch, trainer_result(t, 0).loss) * w;
        weight += w;
    }
    return sum / weight;
}

// ---------------------------------------------------------------------------------------------------
// opening and closing

// The trainer's plan by the options; false after --dry-run.
static bool plan(Supervised* x, const TrainOptions* o, int command, ModelConfig* config) {
    TrainerSettings settings = {};
    memset(x, 0, sizeof *x);
    settings.batch_max = (int)o->batch;
    run_plan(&x->run, o, command, config, &settings);
    x->token_mean = command == COMMAND_PRETRAIN || !strcmp(o->loss_mean, "token");
    return run_show(&x->run);
}

static void start(Supervised* x) {
    int64_t most = x->run.o->batch;
    run_begin(&x->run, x->n_train);
    x->order = (int*)host_alloc((size_t)x->n_train * sizeof(int), "the batches");
    x->share = (float*)host_alloc(2 * (size_t)most * sizeof(float), "the batches");
    x->samples = (PackSample*)host_alloc(2 * (size_t)most * sizeof *x->samples, "the batches");
    for (int slot = 0; slot < 2; slot++) x->batch[slot].tune = x->samples + slot * most;
    run_start(&x->run, NULL);
}

void supervised_close(Supervised* x) {
    run_end(&x->run);
    trainer_free(&x->run.trainer);
    free(x->samples);
    free(x->share);
    free(x->train_weight);
    free(x->order);
    free(x->train);
    if (x->run.command == COMMAND_PRETRAIN) {
        free(x->valid);
        corpus_close(&x->train_corpus);
        corpus_close(&x->valid_corpus);
        return;
    }
    tokens_free(&x->tune_rows);
    free(x->trained_tokens);
    if (x->run.o->append.n) tokens_free(&x->append_rows);
    if (x->run.o->valid.n) tokens_free(&x->valid_rows);
}

// ---------------------------------------------------------------------------------------------------
// pretrain: all tokens, in windows

static PackSample* corpus_windows(const Corpus* corpus, int* n) {
    if (corpus->n_windows > INT32_MAX)
        fatal("%lld windows are more than a run can hold; split the data", (long long)corpus->n_windows);
    PackSample* samples = (PackSample*)host_alloc((size_t)corpus->n_windows * sizeof *samples, "windows");
    *n = (int)corpus->n_windows;
    for (int i = 0; i < *n; i++) samples[i] = corpus_window(corpus, i);
    return samples;
}

bool pretrain_open(Supervised* x, const TrainOptions* o, int command) {
    ModelConfig config;
    if (!plan(x, o, command, &config)) return false;
    int window = o->max_length ? (int)o->max_length : config.longest;
    corpus_open(&x->train_corpus, &o->tune, o->model, config.V, window);
    x->train = corpus_windows(&x->train_corpus, &x->n_train);
    record_fact(&x->run.record, "tune data", x->train_corpus.digest);
    if (o->valid.n) {
        corpus_open(&x->valid_corpus, &o->valid, o->model, config.V, window);
        x->valid = corpus_windows(&x->valid_corpus, &x->n_valid);
        record_fact(&x->run.record, "valid data", x->valid_corpus.digest);
    }
    start(x);
    return true;
}

// ---------------------------------------------------------------------------------------------------
// sft: prompts and responses, the rows that a selector keeps

// keep (tune->n): 1 for the samples among the best --top by the selector's logits.
static void keep_selected(const TrainOptions* o, const TokenSet* tune, uint8_t* keep) {
    SelectorFile file = {};
    ScoreInput input = {};
    double* score = (double*)host_alloc((size_t)tune->n * sizeof(double), "scores");
    int64_t* order = (int64_t*)host_alloc((size_t)tune->n * sizeof(int64_t), "scores");
    selector_file_read(&file, o->selector);
    if (strcmp(file.chat, tune->chat_digest) && !o->quiet)
        warning(
            "%s was learned with %s%.12s but this run uses %s%.12s; its weights belong to rows and are used "
            "unchanged",
            o->selector, *file.chat ? "the chat template of sha256 " : "no chat template", file.chat,
            *tune->chat_digest ? "the one of sha256 " : "none", tune->chat_digest);
    selector_file_check(&file, &o->tune, tune->digest, tune->n_rows, tune->rows, tune->n);
    input.selector = &file;
    int64_t unknown = score_rows(score_method("seal"), &input, tune->rows, tune->n, score);
    if (unknown)
        fatal("%s has no logit for %lld rows of the data; it was learned with another tokenizer or length", o->selector,
              (long long)unknown);
    int64_t kept = score_order(score, tune->rows, tune->n, o->top, order);
    if (!kept) fatal("%s: --top %g of %d rows keeps none; raise --top", o->tune.items[0], o->top, tune->n);
    for (int64_t i = 0; i < kept; i++) keep[order[i]] = 1;
    selector_file_free(&file);
    free(score);
    free(order);
}

// The samples to train on: those of D_tune that the selector keeps (all without one), then the appended ones. SafeInstr
// is the latter.
static PackSample* chosen_samples(const TrainOptions* o, const TokenSet* tune, const TokenSet* append, int* n,
                                  float** weights) {
    PackSample* samples = (PackSample*)host_alloc(((size_t)tune->n + append->n) * sizeof *samples, "samples");
    uint8_t* keep = (uint8_t*)host_alloc((size_t)tune->n, "samples");
    if (o->selector) keep_selected(o, tune, keep);
    else memset(keep, 1, (size_t)tune->n);
    *n = 0;
    *weights = NULL;
    if (tune->weights || append->weights)
        *weights = (float*)host_alloc(((size_t)tune->n + append->n) * sizeof(float), "the rows' weights");
    for (int i = 0; i < tune->n; i++) {
        if (!keep[i]) continue;
        if (*weights) (*weights)[*n] = tune->weights ? tune->weights[i] : 1.0f;
        samples[(*n)++] = tune->samples[i];
    }
    if (!o->quiet) printf("%d of %d samples kept", *n, tune->n);
    for (int i = 0; i < append->n; i++) {
        if (*weights) (*weights)[*n] = append->weights ? append->weights[i] : 1.0f;
        samples[*n] = append->samples[i];
        samples[(*n)++].row += tune->n_rows;  // its rows are counted after those of --tune
    }
    if (!o->quiet) printf(", %d appended\n", append->n);
    free(keep);
    return samples;
}

bool sft_open(Supervised* x, const TrainOptions* o, int command) {
    ModelConfig config;
    Hex digest;
    if (!plan(x, o, command, &config)) return false;
    RunRecord* record = &x->run.record;
    load_samples(&x->tune_rows, &o->tune, "tune", o->out, o, &config, digest, NULL);
    record_fact(record, "tokenizer", digest);
    if (o->token_mask) {
        x->trained_tokens = token_mask_apply(o->token_mask, &x->tune_rows, digest);
        file_sha256_hex(o->token_mask, digest);
        record_fact(record, "mask of tokens", digest);
    }
    record_fact(record, "tune data", x->tune_rows.digest);
    if (o->append.n) load_samples(&x->append_rows, &o->append, "append", o->out, o, &config, NULL, NULL);
    if (o->valid.n) load_samples(&x->valid_rows, &o->valid, "valid", o->out, o, &config, NULL, NULL);
    run_count_rows(&x->run, "tune", &x->tune_rows);
    if (o->append.n) run_count_rows(&x->run, "append", &x->append_rows);
    if (o->valid.n) run_count_rows(&x->run, "valid", &x->valid_rows);
    if (o->append.n) record_fact(record, "appended data", x->append_rows.digest);
    if (o->valid.n) record_fact(record, "valid data", x->valid_rows.digest);
    if (o->selector) {
        file_sha256_hex(o->selector, digest);
        record_fact(record, "selector", digest);
    }
    x->train = chosen_samples(o, &x->tune_rows, &x->append_rows, &x->n_train, &x->train_weight);
    x->valid = x->valid_rows.samples;
    x->n_valid = x->valid_rows.n;
    start(x);
    return true;
}
