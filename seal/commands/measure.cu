/* Columns of numbers of rows, and the scores that are losses. See measure.h. */
#include <string.h>
#include <cjson/cJSON.h>
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/ranks.h"
#include "commands/measure.h"
#include "packed.h"
#include "peft.h"
#include "run/run.h"
#include "run/samples.h"

// ---------------------------------------------------------------------------------------------------
// passes and their journal: a line per batch, so that a run that resumes packs what is left as the first one would have

void measured_pass(MeasuredPass* p, int n, int batch, const char* const* names, int n_names) {
    memset(p, 0, sizeof *p);
    p->n = n;
    p->batch = batch;
    p->n_columns = n_names;
    for (int k = 0; k < n_names; k++) {
        p->names[k] = names[k];
        p->columns[k] = (float*)host_alloc((size_t)n * sizeof(float), "the rows' numbers");
    }
}

void measured_pass_free(MeasuredPass* p) {
    for (int k = 0; k < p->n_columns; k++) free(p->columns[k]);
    memset(p, 0, sizeof *p);
}

// The numbers of the batch's tokens as one text, eight hexadecimal digits each: a tenth of a decimal number's time, and
// the same bits.
static char* tokens_text(const MeasuredPass* p, int from, int n) {
    static const char digits[] = "0123456789abcdef";
    int64_t first = p->start[from], count = p->start[from + n] - first;
    char *text = (char*)host_alloc((size_t)count * 8 + 1, "the tokens' numbers"), *to = text;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &p->token[first + i], sizeof bits);
        for (int shift = 28; shift >= 0; shift -= 4) *to++ = digits[bits >> shift & 15];
    }
    return text;
}

static bool take_tokens(const MeasuredPass* p, int from, int n, const char* text) {
    int64_t first = p->start[from], count = p->start[from + n] - first;
    if (!text || strlen(text) != (size_t)count * 8 || strspn(text, "0123456789abcdef") != (size_t)count * 8)
        return false;
    for (int64_t i = 0; i < count; i++, text += 8) {
        char word[9] = "";
        memcpy(word, text, 8);
        uint32_t bits = (uint32_t)strtoul(word, NULL, 16);
        memcpy(&p->token[first + i], &bits, sizeof bits);
    }
    return true;
}

bool measured_take(void* context, const cJSON* item) {
    const MeasuredPasses* all = (const MeasuredPasses*)context;
    const cJSON *from = cJSON_GetObjectItem(item, "from"), *pass = cJSON_GetObjectItem(item, "pass"), *number;
    double index = pass ? cJSON_GetNumberValue(pass) : 0.0;
    if (!cJSON_IsNumber(from) || !(index >= 0.0 && index < all->n)) return false;
    MeasuredPass* p = &all->passes[(int)index];
    int left = p->n - p->done, n = left < p->batch ? left : p->batch;
    for (int k = 0; k < p->n_columns; k++)
        if (!cJSON_IsArray(cJSON_GetObjectItem(item, p->names[k]))) return false;
    if (from->valuedouble != p->done)
        return true;  // one before it is missing (its numbers were not finite): measured again from there
    for (int k = 0; k < p->n_columns; k++) {
        const cJSON* list = cJSON_GetObjectItem(item, p->names[k]);
        int i = 0;
        if (n < 1 || cJSON_GetArraySize(list) != n) return false;
        cJSON_ArrayForEach(number, list) {
            if (!cJSON_IsNumber(number) || !isfinite(number->valuedouble)) return false;
            p->columns[k][p->done + i++] = (float)number->valuedouble;
        }
    }
    if (p->token && !take_tokens(p, p->done, n, cJSON_GetStringValue(cJSON_GetObjectItem(item, "tokens"))))
        return false;
    p->done += n;
    return true;
}

static void journal_batch(const MeasuredPass* p, Journal* journal, int index, int from, int n) {
    for (int k = 0; k < p->n_columns; k++)
        for (int i = 0; i < n; i++)
            if (!isfinite(p->columns[k][from + i]))
                return;  // JSON has none; who asked for the numbers says what is
                         // wrong
    cJSON* item = cJSON_CreateObject();
    if (index) cJSON_AddNumberToObject(item, "pass", index);
    cJSON_AddNumberToObject(item, "from", from);
    for (int k = 0; k < p->n_columns; k++)
        cJSON_AddItemToObject(item, p->names[k], cJSON_CreateFloatArray(p->columns[k] + from, n));
    if (p->token) {
        char* text = tokens_text(p, from, n);
        cJSON_AddStringToObject(item, "tokens", text);
        free(text);
    }
    journal_add(journal, item);
    journal_flush(journal);
}

void measured_run(MeasuredPass* p, Journal* journal, int index, const char* what, bool quiet, MeasureBatch measure,
                  void* context) {
    Progress progress;
    progress_begin(&progress, what, p->n, quiet);
    progress.first = p->done;
    while (p->done < p->n) {
        int n = p->n - p->done < p->batch ? p->n - p->done : p->batch;
        float* out[MEASURE_COLUMNS];
        for (int k = 0; k < p->n_columns; k++) out[k] = p->columns[k] + p->done;
        measure(context, p->done, n, out);
        if (journal) journal_batch(p, journal, index, p->done, n);
        p->done += n;
        progress_update(&progress, p->done, "samples");
    }
    progress_end(&progress);
}

void measure_losses(void* context, int from, int n, float* const* out) {
    const LossContext* x = (const LossContext*)context;
    Trainer* t = x->trainer;
    bool hat = x->set == &t->theta_hat;
    for (int i = 0; i < n; i++) x->items[i] = {x->samples[from + i], 0.0f};
    trainer_pass(t, x->set, x->items, n, 0, NULL, hat ? t->loss_hat : t->loss, false, x->counts);
    trainer_bring_back(t, 0);
    StepResult r = trainer_result(t, 0);
    memcpy(out[0], hat ? r.loss_hat : r.loss, (size_t)n * sizeof(float));
}

void token_losses_begin(TokenLossContext* x, const MeasuredPass* p) {
    x->pass = p;
    for (int from = 0; from < p->n; from += p->batch) {
        int to = from + p->batch < p->n ? from + p->batch : p->n;
        if (p->start[to] - p->start[from] > x->most) x->most = p->start[to] - p->start[from];
    }
    x->offset = (int64_t*)host_alloc((size_t)p->batch * sizeof(int64_t), "a batch of samples");
}

void token_losses_plan(void* context, Trainer* t) {
    TokenLossContext* x = (TokenLossContext*)context;
    memory_add(&t->plan, MEMORY_SCRATCH, &x->device, (size_t)x->most * sizeof(float), "losses of tokens");
}

void token_losses_end(TokenLossContext* x) {
    if (x->host) cudaCheck(cudaFreeHost(x->host));
    free(x->offset);
}

void measure_token_losses(void* context, int from, int n, float* const* out) {
    TokenLossContext* x = (TokenLossContext*)context;
    Trainer* t = x->of.trainer;
    const int64_t* start = x->pass->start;
    int64_t at = start[from], total = start[from + n] - at;
    if (!x->host) cudaCheck(cudaMallocHost((void**)&x->host, (size_t)x->most * sizeof(float)));
    for (int i = 0; i < n; i++) {
        x->of.items[i] = {x->of.samples[from + i], 0.0f};
        x->offset[i] = start[from + i] - at;
    }
    cudaCheck(cudaMemsetAsync(x->device, 0, (size_t)x->most * sizeof(float), t->stream));
    t->token_losses = x->device;
    t->token_offset = x->offset;
    trainer_pass(t, x->of.set, x->of.items, n, 0, NULL, t->loss, false, x->of.counts);
    t->token_losses = NULL;
    ranks_sum(x->device, (size_t)x->most, t->stream);  // zeros where another rank ran the sample
    cudaCheck(cudaMemcpyAsync(x->host, x->device, (size_t)total * sizeof(float), cudaMemcpyDeviceToHost, t->stream));
    trainer_bring_back(t, 0);
    memcpy(out[0], trainer_result(t, 0).loss, (size_t)n * sizeof(float));
    memcpy(x->pass->token + at, x->host, (size_t)total * sizeof(float));
}

// ---------------------------------------------------------------------------------------------------
// what methods share

void measure_open(Measurement* m, const TrainOptions* o, const ScoreMethod* method) {
    char numbers[160];
    memset(m, 0, sizeof *m);
    m->o = o;
    m->method = method;
    m->began = wall_seconds();
    model_config_read(&m->config, o->model);
    check_sizes(&m->config);
    load_samples(&m->set, &o->tune, "tune", NULL, o, &m->config, m->tokenizer, NULL);
    m->settings.batch_max = (int)o->batch;
    run_settings(o, &m->config, &m->settings);
    m->settings.forward_only = true;
    m->n = m->set.n;
    m->rows = (int64_t*)host_alloc((size_t)m->n * sizeof *m->rows, "rows");
    m->hashes = (uint64_t*)host_alloc((size_t)m->n * sizeof *m->hashes, "rows");
    m->samples = (PackSample*)host_alloc((size_t)m->n * sizeof *m->samples, "rows");
    memcpy(m->rows, m->set.rows, (size_t)m->n * sizeof *m->rows);
    memcpy(m->hashes, m->set.hashes, (size_t)m->n * sizeof *m->hashes);
    memcpy(m->samples, m->set.samples, (size_t)m->n * sizeof *m->samples);
    m->items = (BatchItem*)host_alloc((size_t)o->batch * sizeof *m->items, "a batch of samples");
    measure_decide(m, method->name, numbers,
                   (size_t)snprintf(numbers, sizeof numbers, "%d %d %d %d\n", (int)sizeof(floatX), m->settings.T,
                                    m->settings.batch_max, m->settings.head_rows));
    measure_decide(m, "chat template", m->set.chat_digest, strlen(m->set.chat_digest));
    measure_decide_model(m, o->model);
    measure_decide_model(m, o->adapter);
    base_decides(&m->decides, m->settings.base);
}

void measure_close(Measurement* m) {
    for (int i = 0; i < m->n_passes; i++) measured_pass_free(&m->passes[i]);
    if (!ranks_rank()) journal_close(&m->journal);
    tokens_free(&m->set);
    text_free(&m->decides);
    free(m->rows);
    free(m->hashes);
    free(m->samples);
    free(m->items);
    free(m->score);
    free(m->token_start);
    for (int k = 0; k < 2; k++) free(m->token_loss[k]);
    free(m->token_keep);
    memset(m, 0, sizeof *m);
}

void measure_cost(const Measurement* m, FILE* out) {
    fprintf(out, "%s: %.1f s, %lld tokens forward, %lld forward and backward, %.1f MiB on the device%s\n",
            m->method->name, wall_seconds() - m->began, (long long)m->counts.forward_tokens,
            (long long)m->counts.trained_tokens, (double)m->bytes / 1048576.0,
            ranks_count() > 1 ? " of each rank" : "");
}

MeasuredPass* measure_plan(Measurement* m, const char* a, const char* b, const char* c) {
    const char* names[] = {a, b, c};
    if (m->n_passes == MEASURE_PASSES) program_error("more passes over the rows than planned");
    MeasuredPass* p = &m->passes[m->n_passes++];
    measured_pass(p, m->n, m->settings.batch_max, names, !b ? 1 : !c ? 2 : 3);
    return p;
}

void measure_decide(Measurement* m, const char* what, const void* bytes, size_t n) {
    text_printf(&m->decides, "\n%s %zu ", what, n);
    text_add(&m->decides, bytes, n);
}

void measure_decide_model(Measurement* m, const char* directory) {
    text_printf(&m->decides, "\n");
    journal_add_model(&m->decides, directory);
}

static void decide_samples(Measurement* m, const char* what, const uint64_t* hashes, const PackSample* samples, int n) {
    measure_decide(m, what, hashes, (size_t)n * sizeof *hashes);
    for (int i = 0; i < n; i++) text_printf(&m->decides, "%d %d\n", samples[i].length, samples[i].n_loss);
}

void measure_read(Measurement* m, TokenSet* set, const StringList* files, const char* kind, const char* answer,
                  bool silent) {
    TrainOptions o = *m->o;
    if (answer) o.loss_on = "last";  // its loss alone, not that of the turns before it
    load_answers(set, files, kind, &o, &m->config, answer, silent);
    decide_samples(m, kind, set->hashes, set->samples, set->n);
}

void measure_trainer(Measurement* m, Trainer* t, const TrainerSettings* settings, const char* model,
                     const char* adapter, void (*prepare)(void* context, Trainer* t), void* context) {
    ModelConfig config;
    model_config_read(&config, model);
    trainer_plan(t, &config, settings);
    if (prepare) prepare(context, t);
    if (m->o->dry_run) trainer_dry_run(t);
    size_t bytes = memory_total(&t->plan);
    if (bytes > m->bytes) m->bytes = bytes;
    trainer_allocate(t);
    trainer_load(t, model, adapter, (uint64_t)m->o->seed, m->o->quiet);
}

void measure_begin(Measurement* m) {
    MeasuredPasses all = {m->passes, m->n_passes};
    decide_samples(m, "rows", m->hashes, m->samples, m->n);
    if (m->o->dry_run) return;
    if (!ranks_rank()) journal_open(&m->journal, m->o->out, &m->decides, m->o->resume, measured_take, &all);
    for (int i = 0; i < m->n_passes; i++) {  // rank 0 has the journal
        MeasuredPass* p = &m->passes[i];
        ranks_share(&p->done, sizeof p->done);
        for (int k = 0; k < p->n_columns; k++) ranks_share(p->columns[k], (size_t)p->done * sizeof(float));
        if (p->token) ranks_share(p->token, (size_t)p->start[p->done] * sizeof(float));
    }
}

bool measure_pass_done(const MeasuredPass* p) { return p->done == p->n; }

void measure_pass_run(Measurement* m, MeasuredPass* p, const char* what, MeasureBatch measure, void* context) {
    measure_pass_of(m, p, "--tune", m->rows, what, measure, context);
}

void measure_pass_of(Measurement* m, MeasuredPass* p, const char* option, const int64_t* rows, const char* what,
                     MeasureBatch measure, void* context) {
    measured_run(p, *m->journal.path ? &m->journal : NULL, (int)(p - m->passes), what, m->o->quiet, measure, context);
    for (int k = 0; k < p->n_columns; k++)
        for (int i = 0; i < p->n; i++)
            if (!isfinite(p->columns[k][i]))
                fatal("row %lld of %s: its %s is not a finite number; is the model damaged?", (long long)rows[i],
                      option, p->names[k]);
}

double* measure_scores(Measurement* m) { return m->score = (double*)host_alloc((size_t)m->n * sizeof(double), "rows"); }

// ---------------------------------------------------------------------------------------------------
// safe-loss and loss-diff

void measure_safe_loss(Measurement* m) {
    Trainer t;
    MeasuredPass* p = measure_plan(m, "loss", NULL, NULL);
    measure_begin(m);
    measure_trainer(m, &t, &m->settings, m->o->model, m->o->adapter, NULL, NULL);
    LossContext losses = {&t, &t.theta, m->samples, m->items, &m->counts};
    measure_pass_run(m, p, "losses", measure_losses, &losses);
    trainer_free(&t);
    double* score = measure_scores(m);
    for (int i = 0; i < m->n; i++) score[i] = -(double)p->columns[0][i];
    m->loss = p->columns[0];
}

// The other model must read rows as --model does: the same tokenizer's files, the same template. Nothing else about it
// need be the same.
static void check_reference(Measurement* m, const char* reference, ModelConfig* config) {
    const TrainOptions* o = m->o;
    TextEncoder encoder;
    ChatFormat chat;
    model_config_read(config, reference);
    check_sizes(config);
    text_encoder_open(&encoder, reference, config->eos_id);
    if (strcmp(encoder.digest, m->tokenizer))
        fatal(
            "--reference %s has another tokenizer (sha256 %.12s) than --model %s (%.12s); losses of other tokens "
            "cannot be compared",
            reference, encoder.digest, o->model, m->tokenizer);
    const ChatOptions options = {o->chat, o->loss_on, o->parse_special, o->compat, o->prompt_template};
    chat_format_open(&chat, &options, reference, (const Tokenizer*)encoder.self, true);
    if (strcmp(chat.digest, m->set.chat_digest))
        fatal("--reference %s writes rows with %s but --model %s with %s; give --chat for both", reference,
              *chat.digest ? "another chat template" : "no chat template", o->model,
              *m->set.chat_digest ? "a chat template" : "none");
    chat_format_close(&chat);
    text_encoder_close(&encoder);
    if (config->V < m->config.V)
        for (int i = 0; i < m->n; i++)
            for (int k = 0; k < m->samples[i].length; k++)
                if (m->samples[i].tokens[k] >= config->V)
                    fatal("row %lld of --tune has token %d but the vocabulary of --reference %s has %d tokens",
                          (long long)m->rows[i], m->samples[i].tokens[k], reference, config->V);
    if (config->longest < m->set.longest)
        fatal("--reference %s reads samples of at most %d tokens but a row has %d; lower --max-length", reference,
              config->longest, m->set.longest);
}

// Whether one pass over the frozen model can run both: adapters of the same modules, ranks and scales, or one adapter
// and none.
static bool same_base(const Measurement* m) {
    const TrainOptions* o = m->o;
    if (o->reference || !o->adapter || peft_has_saved(&m->config, o->adapter)) return false;
    if (!o->reference_adapter) return true;
    LoraSettings other;
    peft_settings(o->reference_adapter, &m->config, &other);
    const LoraSettings* mine = &m->settings.lora;
    return !mine->table && !other.table && !strcmp(mine->modules, other.modules) && mine->rank == other.rank &&
           mine->scale == other.scale && !peft_has_saved(&m->config, o->reference_adapter);
}

// θ is the adapter, θ̂ the other one, or one that adds nothing.
static void measure_both(void* context, int from, int n, float* const* out) {
    const LossContext* x = (const LossContext*)context;
    for (int i = 0; i < n; i++) x->items[i] = {x->samples[from + i], 0.0f};
    trainer_losses_both(x->trainer, x->items, n, x->counts);
    trainer_bring_back(x->trainer, 0);
    StepResult r = trainer_result(x->trainer, 0);
    memcpy(out[0], r.loss, (size_t)n * sizeof(float));
    memcpy(out[1], r.loss_hat, (size_t)n * sizeof(float));
}

// Two models, one after the other.
static void measure_in_turn(Measurement* m, MeasuredPass* of_model, MeasuredPass* of_reference) {
    const TrainOptions* o = m->o;
    const char* reference = o->reference ? o->reference : o->model;
    ModelConfig config;
    check_reference(m, reference, &config);
    for (int k = 0; k < 2; k++) {
        MeasuredPass* p = k ? of_reference : of_model;
        TrainerSettings settings = m->settings;
        Trainer t;
        if (measure_pass_done(p) && !o->dry_run) continue;
        if (k) settings.lora = {};
        if (k && o->reference_adapter) peft_settings(o->reference_adapter, &config, &settings.lora);
        measure_trainer(m, &t, &settings, k ? reference : o->model, k ? o->reference_adapter : o->adapter, NULL, NULL);
        LossContext losses = {&t, &t.theta, m->samples, m->items, &m->counts};
        measure_pass_run(m, p, k ? "losses under the reference" : "losses", measure_losses, &losses);
        trainer_free(&t);
    }
}

void measure_loss_diff(Measurement* m) {
    const TrainOptions* o = m->o;
    const float *loss, *reference;
    if (!o->reference && !o->adapter)
        fatal("--method loss-diff compares two models: give --reference, or --adapter over --model");
    if (o->reference && same_place(o->reference, o->model) && !o->adapter && !o->reference_adapter)
        fatal("--method loss-diff compares two models but --model and --reference are one: every difference is zero");
    measure_decide_model(m, o->reference);
    measure_decide_model(m, o->reference_adapter);
    if (same_base(m)) {
        TrainerSettings settings = m->settings;
        Trainer t;
        MeasuredPass* both = measure_plan(m, "loss", "reference", NULL);
        measure_begin(m);
        settings.with_hat = true;
        measure_trainer(m, &t, &settings, o->model, o->adapter, NULL, NULL);
        if (o->reference_adapter) peft_load(&t.theta_hat, &t.lora, o->reference_adapter, o->model);
        else parameters_init(&t.theta_hat, 0, true);  // B is zero
        LossContext losses = {&t, NULL, m->samples, m->items, &m->counts};
        measure_pass_run(m, both, "losses", measure_both, &losses);
        trainer_free(&t);
        loss = both->columns[0];
        reference = both->columns[1];
    } else {
        MeasuredPass *first = measure_plan(m, "loss", NULL, NULL), *second = measure_plan(m, "reference", NULL, NULL);
        measure_begin(m);
        measure_in_turn(m, first, second);
        loss = first->columns[0];
        reference = second->columns[0];
    }
    double* score = measure_scores(m);
    for (int i = 0; i < m->n; i++) score[i] = (double)reference[i] - loss[i];
    m->loss = loss;
    m->shown[m->n_shown++] = {"reference", reference};
}
