/* Response losses without training. See losses.h. */
#include <string.h>
#include <cjson/cJSON.h>
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "commands/loss.h"
#include "commands/measure.h"
#include "packed.h"
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
    base_decides(&t, settings->base);
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
    BatchItem* items = (BatchItem*)host_alloc((size_t)settings->batch_max * sizeof *items, "a batch of samples");
    forward.forward_only = true;
    if (o->adapter) peft_settings(o->adapter, config, &forward.lora);
    trainer_plan(&t, config, &forward);
    TokenLossContext tokens = {};
    tokens.of = {&t, &t.theta, set->samples, items, &counts};
    measured_pass(&pass, set->n, settings->batch_max, names, 1);
    pass.start = o->start;
    pass.token = o->token;
    if (o->start) {
        token_losses_begin(&tokens, &pass);
        token_losses_plan(&tokens, &t);
    }
    if (o->dry_run) trainer_dry_run(&t);
    if (o->journal) open_journal(o, settings, set, &so_far);
    trainer_allocate(&t);
    trainer_load(&t, o->model, o->adapter, 0, o->quiet);
    if (o->start) measured_run(&pass, o->journal, 0, "losses", o->quiet, measure_token_losses, &tokens);
    else measured_run(&pass, o->journal, 0, "losses", o->quiet, measure_losses, &tokens.of);
    token_losses_end(&tokens);
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
    char* text = json_text(object);
    puts(text);
    free(text);
    cJSON_Delete(object);
}

static int64_t* token_starts(const TokenSet* set) {
    int64_t* start = (int64_t*)host_alloc(((size_t)set->n + 1) * sizeof(int64_t), "the tokens");
    for (int i = 0; i < set->n; i++) start[i + 1] = start[i] + set->samples[i].n_loss;
    return start;
}

// Of a row's tokens that carry loss, the text that each completes, and its loss.
static void add_tokens(cJSON* object, const Tokenizer* tokenizer, char* piece, const PackSample* s, const float* loss) {
    cJSON *texts = cJSON_AddArrayToObject(object, "tokens"), *losses = cJSON_AddArrayToObject(object, "token_losses");
    TokenStream stream = {};
    Text text = {};
    int left = s->n_loss;
    for (int t = 0; t < s->length; t++) {
        int n = tokenizer_stream_push(tokenizer, &stream, s->tokens[t], true, piece);
        bool bears = t > 0 && (!s->bears_loss || s->bears_loss[t]);
        if (!bears) continue;
        text.n = 0;
        text_add(&text, "", 0);
        text_add_utf8(&text, piece, n < 0 ? 0 : (size_t)n);
        if (!--left) text_add_utf8(&text, piece, (size_t)tokenizer_stream_end(tokenizer, &stream, piece));
        cJSON_AddItemToArray(texts, cJSON_CreateString(text.s));
        char number[32];
        snprintf(number, sizeof number, "%.6g", (double)*loss++);
        cJSON_AddItemToArray(losses, cJSON_CreateRaw(number));
    }
    text_free(&text);
}

// A line per row: {"row":12,"loss":1.25}; with --each-token also "tokens" and "token_losses".
static void write_rows(const EvalOptions* o, const TokenSet* set, const float* loss, const int64_t* start,
                       const float* of_token) {
    char error[512], *piece = NULL;
    Tokenizer* tokenizer = start ? tokenizer_open(o->model, error, sizeof error) : NULL;
    if (start && !tokenizer) fatal("%s", error);
    if (start) piece = (char*)host_alloc((size_t)tokenizer_longest_piece(tokenizer) + 16, "a token's text");
    AtomicFile f;
    atomic_open(&f, o->out);
    for (int i = 0; i < set->n; i++) {
        if (!start) {
            atomic_printf(&f, "{\"row\":%lld,\"loss\":%.9g}\n", (long long)set->rows[i], (double)loss[i]);
            continue;
        }
        cJSON* object = cJSON_CreateObject();
        char number[32];
        snprintf(number, sizeof number, "%.9g", (double)loss[i]);
        cJSON_AddNumberToObject(object, "row", (double)set->rows[i]);
        cJSON_AddItemToObject(object, "loss", cJSON_CreateRaw(number));
        add_tokens(object, tokenizer, piece, &set->samples[i], of_token + start[i]);
        char* text = json_text(object);
        atomic_printf(&f, "%s\n", text);
        cJSON_free(text);
        cJSON_Delete(object);
    }
    atomic_commit(&f);
    free(piece);
    if (tokenizer) tokenizer_close(tokenizer);
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
    settings.base = base_find(o->base);
    Journal journal = {};
    LossOptions how = {o->model,  o->adapter,    o->out,     o->out && !o->each_token ? &journal : NULL,
                       o->resume, options.quiet, o->dry_run, NULL,
                       NULL};
    int64_t* start = NULL;
    if (o->each_token) {
        how.start = start = token_starts(&set);
        how.token = (float*)host_alloc((size_t)start[set.n] * sizeof(float), "the tokens' losses");
    }
    float* loss = response_losses(&how, &config, &settings, &set);
    LossSummary s = summarise(&set, loss);
    if (!isfinite(s.mean))
        fatal("%s: the loss on %s is not a finite number; is the model damaged?", o->model, o->data.items[0]);
    if (o->out) write_rows(o, &set, loss, start, how.token);
    journal_close(&journal);
    if (o->json) print_json(o, &set, &s);
    else
        printf("loss %.6f (standard error %.6f) over %d samples; by token %.6f over %lld tokens, perplexity %.4f\n",
               s.mean, s.standard_error, set.n, s.token_mean, (long long)s.tokens, exp(s.token_mean));
    free(loss);
    free(start);
    free(how.token);
    tokens_free(&set);
    return 0;
}
