/* The filtered data, for any trainer: scores by a method of the table (selection.h), the top share, the original rows. See select.h. */
#include <string.h>
#include "error.h"
// defines: directory_make
#include "file.h"
#include "kernels.h"
// defines: Progress
#include "log.h"
// defines: run_settings
#include "run.h"
#include "select.h"
// defines: SelectionMethod, SelectorFile, selection_write
#include "selection.h"
#include "trainer.h"

void check_head_size(const ModelConfig* c) {
    if (!attention_head_size_served(c->HS)) fatal("head size %d (width %d, %d heads) has no attention kernel; served are 32, 64, 80, 96, 128", c->HS, c->C, c->NH);
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// data with prompts and responses

static TokenOptions token_options(const TrainOptions* o, const ModelConfig* config, const char* cache) {
    TokenOptions t = {};
    t.rows.prompt_template = o->prompt_template;
    t.rows.prompt_field = o->prompt_field;
    t.rows.response_field = o->response_field;
    t.max_length = o->max_length ? (int)o->max_length : config->longest;
    t.vocab = config->V;
    t.compat = o->compat;
    t.quiet = o->quiet;
    t.cache = cache;
    return t;
}

// Tokenises a list of files; the cache lies next to the run under `kind`.
void load_samples(TokenSet* set, const StringList* files, const char* kind, const char* run, const TrainOptions* o, const ModelConfig* config,
                         char tokenizer_digest[65]) {
    char cache[4200];
    TextEncoder encoder;
    if (run) {
        snprintf(cache, sizeof cache, "%s/%s.tokens.safetensors", run, kind);
        directory_make(run);
    }
    TokenOptions options = token_options(o, config, run ? cache : NULL);
    text_encoder_open(&encoder, o->model, config->eos_id);
    tokens_load(set, files, &encoder, &options);
    if (tokenizer_digest) snprintf(tokenizer_digest, 65, "%s", encoder.digest);
    text_encoder_close(&encoder);
    if (!o->quiet) tokens_print(set, kind, stdout);
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// select: the filtered data, for any trainer

// Mean response loss of every sample under a model, forward only: −loss is the score of safe-loss.
static float* losses_under(const TrainOptions* o, const ModelConfig* config, const TokenSet* set) {
    Trainer t;
    TrainerSettings settings = {};
    settings.batch_max = (int)o->batch;
    settings.forward_only = true;
    run_settings(o, config, &settings);
    trainer_plan(&t, config, &settings);
    trainer_allocate(&t);
    parameters_load(&t.theta, o->model, o->quiet);
    BatchItem* items = (BatchItem*)calloc((size_t)o->batch, sizeof *items);
    float* loss = (float*)malloc((size_t)set->n * sizeof(float));
    if (!items || !loss) fatal("out of host memory for %d losses", set->n);
    Progress progress;
    progress_begin(&progress, "losses", set->n, o->quiet);
    for (int64_t from = 0; from < set->n; from += o->batch) {
        int n = (int)(set->n - from < o->batch ? set->n - from : o->batch);
        PassCounts counts = {};
        for (int i = 0; i < n; i++) items[i].sample = set->samples[from + i];
        trainer_pass(&t, &t.theta, items, n, 0, NULL, t.loss, false, &counts);
        trainer_bring_back(&t, 0);
        memcpy(loss + from, trainer_result(&t, 0).loss, (size_t)n * sizeof(float));
        progress_update(&progress, from + n, "samples");
    }
    progress_end(&progress);
    trainer_free(&t);
    free(items);
    return loss;
}

// Ids and hashes of the rows that have a prompt and a response, their number, and how many records there are.
static int64_t* usable_rows(const StringList* files, const RowOptions* options, int64_t* n, int64_t* n_rows, uint64_t** hashes, char digest[65]) {
    RowReader* reader = rows_open(files, options);
    DataRow row;
    int64_t *ids = NULL, capacity = 0;
    *n = *n_rows = 0;
    while (rows_next(reader, &row)) {
        ++*n_rows;
        if (row.state != ROW_OK) continue;
        if (*n == capacity) {
            capacity = capacity ? 2 * capacity : 1024;
            ids = (int64_t*)realloc(ids, (size_t)capacity * sizeof *ids);
            *hashes = (uint64_t*)realloc(*hashes, (size_t)capacity * sizeof **hashes);
            if (!ids || !*hashes) fatal("out of host memory for %lld rows", (long long)capacity);
        }
        (*hashes)[*n] = row_hash(row.prompt, row.prompt_length, row.response, row.response_length);
        ids[(*n)++] = row.id;
    }
    rows_digest(reader, digest);
    rows_close(reader);
    if (!*n) fatal("%s: no row has a prompt and a response", files->items[0]);
    return ids;
}

// Every row's score as a selector of its own, named after its method: `select --method seal` takes it, and whatever measures selectors.
static void write_scores(const TrainOptions* o, const SelectionMethod* method, const char* digest, const int64_t* rows, const uint64_t* hashes, const double* score,
                         int64_t n, int64_t n_rows) {
    SelectorFile file = {};
    size_t names = 1;
    for (int i = 0; i < o->tune.n; i++) names += strlen(o->tune.items[i]) + 1;
    file.files = (char*)calloc(names, 1);
    file.logits = (float*)malloc((size_t)n * sizeof(float));
    if (!file.files || !file.logits) fatal("out of host memory for %lld scores", (long long)n);
    for (int i = 0; i < o->tune.n; i++) sprintf(file.files + strlen(file.files), "%s%s", i ? " " : "", o->tune.items[i]);
    for (int64_t i = 0; i < n; i++) file.logits[i] = (float)score[i];
    file.n = n;
    file.n_rows = n_rows;
    file.rows = (int64_t*)rows;
    file.hashes = (uint64_t*)hashes;
    snprintf(file.digest, sizeof file.digest, "%s", digest);
    snprintf(file.algorithm, sizeof file.algorithm, "%s", method->name);
    snprintf(file.activation, sizeof file.activation, "softmax");
    file.seed = o->seed;
    selector_file_write(&file, o->scores);
    free(file.files);
    free(file.logits);
}

int select_command(const TrainOptions* o) {
    const SelectionMethod* method = selection_method(o->method);
    RowOptions row_options = {};
    row_options.prompt_template = o->prompt_template;
    row_options.prompt_field = o->prompt_field;
    row_options.response_field = o->response_field;
    SelectorFile selector = {};
    SelectionInput input = {};
    TokenSet set = {};
    float *loss = NULL, *negative = NULL;
    char digest[65];
    int64_t n, n_rows;
    uint64_t* hashes = NULL;
    int64_t* rows = usable_rows(&o->tune, &row_options, &n, &n_rows, &hashes, digest);
    input.seed = (uint64_t)o->seed;
    if (method->needs_selector) {
        if (!o->selector) fatal("select: method %s needs --selector", method->name);
        selector_file_read(&selector, o->selector);
        selector_file_check(&selector, &o->tune, digest, n_rows, rows, n);
        input.selector = &selector;
        n = selector.n;  // the rows that have a logit
        rows = (int64_t*)realloc(rows, (size_t)n * sizeof *rows);
        if (!rows) fatal("out of host memory for %lld rows", (long long)n);
        hashes = (uint64_t*)realloc(hashes, (size_t)n * sizeof *hashes);
        if (!hashes) fatal("out of host memory for %lld rows", (long long)n);
        memcpy(rows, selector.rows, (size_t)n * sizeof *rows);
        memcpy(hashes, selector.hashes, (size_t)n * sizeof *hashes);
    }
    if (method->needs_scores) {
        if (!o->model) fatal("select: method %s needs --model", method->name);
        ModelConfig config;
        model_config_read(&config, o->model);
        check_head_size(&config);
        load_samples(&set, &o->tune, "tune", NULL, o, &config, NULL);
        loss = losses_under(o, &config, &set);
        n = set.n;
        memcpy(rows, set.rows, (size_t)n * sizeof *rows);
        memcpy(hashes, set.hashes, (size_t)n * sizeof *hashes);
        negative = (float*)malloc((size_t)n * sizeof(float));
        if (!negative) fatal("out of host memory for %lld scores", (long long)n);
        for (int64_t i = 0; i < n; i++) negative[i] = -loss[i];
        input.scores = negative;
    }
    double *score = (double*)malloc((size_t)n * sizeof(double)), *sigma = NULL;
    int64_t* order = (int64_t*)malloc((size_t)n * sizeof(int64_t));
    uint8_t* keep = (uint8_t*)calloc((size_t)n_rows, 1);
    if (!score || !order || !keep) fatal("out of host memory for %lld rows", (long long)n_rows);
    selection_score(method, &input, rows, n, score);
    int64_t kept = selection_order(score, rows, n, o->top, order);
    for (int64_t i = 0; i < kept; i++) keep[rows[order[i]]] = 1;
    if (o->explain) {
        if (input.selector) {
            sigma = (double*)malloc((size_t)n * sizeof(double));
            if (!sigma) fatal("out of host memory for %lld weights", (long long)n);
            selector_weights(selector.logits, n, !strcmp(selector.activation, "sigmoid"), sigma);
        }
        Explanation explanation = {rows, score, order, sigma, loss, n, kept, 10};
        selection_explain(&explanation, &o->tune, &row_options, stdout);
    }
    if (o->scores) write_scores(o, method, digest, rows, hashes, score, n, n_rows);
    int64_t written = selection_write(&o->tune, keep, n_rows, o->out);
    if (!o->quiet) printf("%lld of %lld rows (%lld scored) by %s to %s\n", (long long)written, (long long)n_rows, (long long)n, method->name, o->out);
    if (input.selector) selector_file_free(&selector);
    if (set.n) tokens_free(&set);
    free(rows);
    free(hashes);
    free(loss);
    free(negative);
    free(score);
    free(sigma);
    free(order);
    free(keep);
    return 0;
}
