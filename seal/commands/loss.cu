/* Response losses without training. See losses.h. */
#include <string.h>
#include <cjson/cJSON.h>
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "commands/loss.h"
#include "commands/measure.h"
#include "peft.h"
#include "run/samples.h"

// All that decides the losses.
static void open_journal(const LossOptions* o, const TrainerSettings* settings, const TokenSet* set,
                         MeasuredPasses* so_far) {
    Text t = {};
    text_printf(&t, "loss %d %d %d %d\n", (int)sizeof(floatX), settings->T, settings->batch_max, settings->head_rows);
    text_add(&t, set->hashes, (size_t)set->n * sizeof *set->hashes);
    text_add(&t, set->chat_digest, strlen(set->chat_digest));
    for (int i = 0; i < set->n; i++) text_printf(&t, "%d %d\n", set->samples[i].length, set->samples[i].n_loss);
    journal_add_model(&t, o->model);
    journal_add_model(&t, o->adapter);
    journal_open(o->journal, o->out, &t, o->resume, measured_take, so_far);
    text_free(&t);
}

float* response_losses(const LossOptions* o, const ModelConfig* config, const TrainerSettings* settings,
                       const TokenSet* set) {
    static const char* const names[] = {"loss"};
    Trainer t;
    TrainerSettings forward = *settings;
    MeasuredPass pass;
    MeasuredPasses so_far = {&pass, 1};
    PassCounts counts = {};
    forward.forward_only = true;
    if (o->adapter) peft_settings(o->adapter, config, &forward.lora);
    trainer_plan(&t, config, &forward);
    if (o->dry_run) trainer_dry_run(&t);
    measured_pass(&pass, set->n, settings->batch_max, names, 1);
    BatchItem* items = (BatchItem*)host_alloc((size_t)settings->batch_max * sizeof *items, "a batch of samples");
    if (o->out) open_journal(o, settings, set, &so_far);
    trainer_allocate(&t);
    trainer_load(&t, o->model, o->adapter, 0, o->quiet);
    LossContext losses = {&t, &t.theta, set->samples, items, &counts};
    measured_run(&pass, o->out ? o->journal : NULL, 0, "losses", o->quiet, measure_losses, &losses);
    trainer_free(&t);
    free(items);
    return pass.columns[0];
}

// ---------------------------------------------------------------------------------------------------
// eval_seal loss

// By sample, as training weighs them, with its standard error; and by token, whose exponential is the perplexity.
typedef struct {
    double mean, standard_error, token_mean;
    int64_t tokens;
} LossSummary;

static LossSummary summarise(const TokenSet* set, const float* loss) {
    LossSummary s = {};
    double squares = 0.0, sum = 0.0;
    for (int i = 0; i < set->n; i++) {
        s.mean += (double)loss[i] / set->n;
        sum += (double)loss[i] * set->samples[i].n_loss;
        s.tokens += set->samples[i].n_loss;
    }
    for (int i = 0; i < set->n; i++) squares += (loss[i] - s.mean) * (loss[i] - s.mean);
    s.standard_error = set->n > 1 ? sqrt(squares / (set->n - 1) / set->n) : NAN;
    s.token_mean = sum / (double)s.tokens;
    return s;
}

static void print_json(const EvalOptions* o, const TokenSet* set, const LossSummary* s) {
    cJSON* object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "model", o->model);
    cJSON_AddNumberToObject(object, "samples", set->n);
    cJSON_AddNumberToObject(object, "left_out", (double)row_report_bad(&set->report));
    cJSON_AddNumberToObject(object, "tokens", (double)s->tokens);
    cJSON_AddNumberToObject(object, "loss", s->mean);
    if (isfinite(s->standard_error)) cJSON_AddNumberToObject(object, "standard_error", s->standard_error);
    else cJSON_AddNullToObject(object, "standard_error");
    cJSON_AddNumberToObject(object, "token_loss", s->token_mean);
    cJSON_AddNumberToObject(object, "perplexity", exp(s->token_mean));
    cJSON_AddNumberToObject(object, "rows", (double)set->n_rows);
    cJSON_AddNumberToObject(object, "cut", (double)set->n_cut);
    char* text = cJSON_PrintUnformatted(object);
    if (!text) fatal("out of host memory for a result");
    puts(text);
    cJSON_free(text);
    cJSON_Delete(object);
}

// A line per row: {"row":12,"loss":1.25}.
static void write_rows(const EvalOptions* o, const TokenSet* set, const float* loss) {
    AtomicFile f;
    atomic_open(&f, o->out);
    for (int i = 0; i < set->n; i++)
        atomic_printf(&f, "{\"row\":%lld,\"loss\":%.9g}\n", (long long)set->rows[i], (double)loss[i]);
    atomic_commit(&f);
}

int loss_command(const EvalOptions* o) {
    ModelConfig config;
    TokenSet set = {};
    TextEncoder encoder;
    TokenOptions options = {};
    TrainerSettings settings = {};
    for (int i = 0; i < o->data.n && o->out; i++) output_is_not(o->out, o->data.items[i]);
    if (o->out) output_probe(o->out);
    model_config_read(&config, o->model);
    check_sizes(&config);
    model_config_check_length(&config, o->max_length, "--max-length", o->model);
    options.rows.prompt_template = o->prompt_template;
    options.rows.prompt_field = o->prompt_field;
    options.rows.response_field = o->response_field;
    options.max_length = o->max_length ? (int)o->max_length : config.longest;
    options.vocab = config.V;
    options.quiet = o->quiet || o->json;
    text_encoder_open(&encoder, o->model, config.eos_id);
    ChatFormat chat;
    const ChatOptions chat_options = {o->chat, o->loss_on, o->parse_special, false, o->prompt_template};
    chat_format_open(&chat, &chat_options, o->model, (const Tokenizer*)encoder.self, options.quiet);
    if (chat.chat) options.chat = &chat;
    tokens_load(&set, &o->data, &encoder, &options);
    chat_format_name(&chat, set.chat, sizeof set.chat);
    snprintf(set.chat_digest, sizeof set.chat_digest, "%s", chat.digest);
    chat_format_close(&chat);
    text_encoder_close(&encoder);
    if (!options.quiet) {
        tokens_print(&set, "data", stdout);
        tokens_unweighted(&set, o->data.items[0], "a measured loss");
    }
    // A pack holds the longest sample there is, and no more than is asked for: memory follows the data, not the
    // model's reach.
    settings.T = o->tokens > set.longest ? (int)o->tokens : set.longest > 2048 || o->tokens ? set.longest : 2048;
    settings.head_rows = (int)o->head_rows;
    settings.batch_max = (int)o->batch;
    Journal journal = {};
    const LossOptions how = {o->model, o->adapter, o->out, &journal, o->resume, options.quiet, o->dry_run};
    float* loss = response_losses(&how, &config, &settings, &set);
    LossSummary s = summarise(&set, loss);
    if (!isfinite(s.mean))
        fatal("%s: the loss on %s is not a finite number; is the model damaged?", o->model, o->data.items[0]);
    if (o->out) write_rows(o, &set, loss);
    journal_close(&journal);
    if (o->json) print_json(o, &set, &s);
    else
        printf("loss %.6f (standard error %.6f) over %d samples; by token %.6f over %lld tokens, perplexity %.4f\n",
               s.mean, s.standard_error, set.n, s.token_mean, (long long)s.tokens, exp(s.token_mean));
    free(loss);
    tokens_free(&set);
    return 0;
}
