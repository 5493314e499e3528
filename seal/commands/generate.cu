/* Prompts to answers. See generate.h. */
#include <string.h>
#include "rows/dataset.h"
#include "commands/decoder.h"
#include "base/error.h"
#include "base/file.h"
#include "commands/generate.h"
#include "packed.h"
#include "run/journal.h"
#include "run/result_key.h"
#include "base/log.h"
#include "base/text.h"
#include "run/samples.h"
#include "rows/tokens.h"
#include "chat.h"
#include "rows/chat_rows.h"
#include "tokenizer.h"

#define PREFIX_LEAST 8    // tokens that all prompts begin with, below which it is not worth a pass of its own
#define PACK_TOKENS 2048  // of prompts that run together, where nobody says otherwise

typedef struct {
    char *instruction, *output;  // the prompt without a template; NULL until it is answered
    int file;                    // that the prompt came from
    Sequence sequence;
    bool cut;  // the answer ended at the longest length
} Task;

typedef struct {
    const EvalOptions* o;
    ModelConfig config;
    Tokenizer* tokenizer;
    TextEncoder encoder;
    Encoding encoding;
    ChatFormat chat;
    ChatScratch conversation;
    char why[512];   // the chat template refuses a conversation
    int64_t joined;  // conversations whose content in parts the template does not write as a list
    DecoderSettings settings;
    Task* tasks;               // in the files' order
    int n, capacity, skipped;  // skipped: prompts longer than the model reads
    Task** order;              // those still to be answered, longest prompt first
    Sequence* sequences;       // (n_open) theirs
    int n_open;
    Journal journal;
    Decoder decoder;
    Progress progress;
    double began;
    int answered;             // in this run
    int64_t answered_tokens;  // drawn for them
} Generation;

// ---------------------------------------------------------------------------------------------------
// settings

static void add_end(DecoderSettings* s, int id) {
    for (int i = 0; i < s->n_ends; i++)
        if (s->ends[i] == id) return;
    if (id >= 0 && s->n_ends < DECODER_ENDS) s->ends[s->n_ends++] = id;
}

// eos_token_id of a JSON file of the model: a number or a list.
static void add_ends_of(DecoderSettings* s, const char* model, const char* name) {
    const Path path = path_of(model, "%s", name);
    if (!file_exists(path.s)) return;
    size_t length;
    char* text = file_read(path.s, 1 << 24, &length);
    cJSON* json = cJSON_ParseWithLength(text, length);
    if (!json) fatal("%s is not JSON", path.s);
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(json, "eos_token_id"), *item;
    if (cJSON_IsNumber(id)) add_end(s, id->valueint);
    else cJSON_ArrayForEach(item, id) if (cJSON_IsNumber(item)) add_end(s, item->valueint);
    cJSON_Delete(json);
    free(text);
}

// Whatever the model's files and its tokenizer call the end of a sequence ends an answer (config.json may name the end
// of a text, the tokenizer that of a turn), and with a chat template the end of a turn, which neither may name.
static void find_ends(Generation* g) {
    const ChatOptions options = {g->o->chat, NULL, g->o->parse_special, false, g->o->prompt_template};
    chat_format_open(&g->chat, &options, g->o->model, g->tokenizer, g->o->quiet);
    if (g->chat.chat) chat_scratch_open(&g->conversation);
    if (g->chat.chat) add_end(&g->settings, g->chat.tokens.turn_end);
    add_ends_of(&g->settings, g->o->model, "generation_config.json");
    add_ends_of(&g->settings, g->o->model, "config.json");
    add_end(&g->settings, g->encoder.eos);
    add_end(&g->settings, tokenizer_eos(g->tokenizer));
}

static SampleSettings sampling(const EvalOptions* o) {
    SampleSettings s = {};
    s.greedy = o->greedy;
    s.temperature = (float)o->temperature;
    s.top_p = (float)o->top_p;
    s.top_k = (int)o->top_k;
    s.repetition_penalty = o->repetition_penalty > 0 ? (float)o->repetition_penalty : o->greedy ? 1.0f : 1.2f;
    return s;
}

// ---------------------------------------------------------------------------------------------------
// prompts

// A conversation's tokens by the chat template, whose text spells the special tokens itself.
static int64_t encode_chat(Generation* g, const DataRow* row, const int32_t** ids, const char** error) {
    ChatSample sample;
    *error = g->why;
    if (!chat_prompt(&g->chat, &g->conversation, row->conversation, &sample, g->why, sizeof g->why)) return -1;
    *ids = sample.ids;
    g->joined += sample.joined;
    return sample.n;
}

// The prompt's tokens: ids stay valid until the next call. The plain template's end is a space that the answer's first
// word takes along ("Assistant:" + " Sure"), as in training; it is not the prompt's.
static int64_t encode_plain(Generation* g, void* scratch, const DataRow* row, const int32_t** ids, const char** error) {
    const int32_t *start, *end;
    size_t length = row->prompt_length;
    while (length && row->prompt[length - 1] == ' ') length--;
    int64_t n = g->encoder.encode(g->encoder.self, scratch, row->prompt, length, ids, &start, &end, error);
    return n > 0 && (*ids)[n - 1] == g->encoder.eos ? n - 1 : n;
}

// False: too long, and to be skipped.
static bool encode_prompt(Generation* g, void* scratch, const DataRow* row, Sequence* s) {
    const char *path = g->o->prompts.items[row->file], *error;
    const long long at = row->line, number = row->row;
    const int32_t* ids;
    int longest = g->config.longest, answer = (int)g->o->max_new_tokens;
    int64_t n = chat_format_applies(&g->chat, row->conversation) ? encode_chat(g, row, &ids, &error)
                                                                 : encode_plain(g, scratch, row, &ids, &error);
    if (n < 0) fatal("%s:%lld: row %lld: %s", path, at, number, error);
    if (n < 1) fatal("%s:%lld: row %lld: the prompt has no tokens", path, at, number);
    if (n >= longest && g->o->skip_long) return false;
    if (n >= longest)
        fatal(
            "%s:%lld: row %lld: the prompt has %lld tokens but the model reads at most %d; shorten it, or give "
            "--skip-long",
            path, at, number, (long long)n, longest);
    for (int64_t i = 0; i < n; i++)
        if (ids[i] >= g->config.V)
            fatal("%s:%lld: row %lld: token %d is outside the model's vocabulary of %d", path, at, number, ids[i],
                  g->config.V);
    s->n = s->n_prompt = (int)n;
    s->capacity = n + answer < longest ? (int)n + answer : longest;
    s->tokens = (int32_t*)host_alloc((size_t)s->capacity * sizeof(int32_t), "prompts");
    memcpy(s->tokens, ids, (size_t)n * sizeof(int32_t));
    return true;
}

static Task* add_task(Generation* g) {
    if (g->n == g->capacity) {
        g->capacity = g->capacity ? 2 * g->capacity : 256;
        g->tasks = (Task*)host_resize(g->tasks, (size_t)g->capacity * sizeof(Task), "prompts");
    }
    Task* task = &g->tasks[g->n];
    memset(task, 0, sizeof *task);
    task->sequence.number = (uint64_t)g->n++;
    return task;
}

static void read_tasks(Generation* g) {
    const EvalOptions* o = g->o;
    RowOptions options = {};
    RowReport report = {};
    DataRow row;
    options.prompt_template = o->prompt_template;
    options.conversations = g->chat.chat != NULL;
    options.uses = chat_format_uses;
    options.format = &g->chat;
    options.prompt_field = o->prompt_field;
    options.prompts_only = true;
    RowReader* reader = rows_open(&o->prompts, &options);
    void* scratch = g->encoder.begin(g->encoder.self);
    while (rows_next(reader, &row)) {
        if (row.state != ROW_OK)
            fatal("%s:%lld: row %lld: %s", o->prompts.items[row.file], (long long)row.line, (long long)row.row,
                  *row.why ? row.why : row_state_name(row.state));
        Task* task = add_task(g);
        Text question = {}, instruction = {};
        conversation_question(row.conversation, &question);
        text_add_utf8(&instruction, question.s, question.n);
        text_free(&question);
        task->instruction = instruction.s;
        task->file = row.file;
        if (encode_prompt(g, scratch, &row, &task->sequence)) continue;
        task->output = host_copy("", 0);  // it keeps its place, so that two models' outputs stay aligned
        g->skipped++;
    }
    g->encoder.finish(g->encoder.self, scratch);
    rows_report(reader, &report);
    report.n_unread = 0;  // prompts are often part of rows that say more
    row_report_print(&report, o->quiet, stderr);
    rows_close(reader);
    if (!g->n) fatal("%s holds no prompts", o->prompts.items[0]);
    if (g->joined && !o->quiet)
        warning("%lld prompts: the chat template does not write content in parts; their texts are joined",
                (long long)g->joined);
}

static int by_length(const void* a, const void* b) {
    const Sequence *x = &(*(Task*const*)a)->sequence, *y = &(*(Task*const*)b)->sequence;
    if (x->n != y->n) return y->n - x->n;
    return (x->number > y->number) - (x->number < y->number);
}

// The longest prompts go first: what follows is never larger, and the run ends with short ones.
static void order_tasks(Generation* g) {
    g->order = (Task**)host_alloc((size_t)g->n * sizeof *g->order, "prompts");
    for (int i = 0; i < g->n; i++)
        if (!g->tasks[i].output) g->order[g->n_open++] = &g->tasks[i];
    qsort(g->order, (size_t)g->n_open, sizeof *g->order, by_length);
    g->sequences = (Sequence*)host_alloc(((size_t)g->n_open + 1) * sizeof *g->sequences, "prompts");
    for (int i = 0; i < g->n_open; i++) {
        const Sequence* s = &g->order[i]->sequence;
        g->sequences[i] = *s;
        if (s->n_prompt > g->settings.longest_prompt) g->settings.longest_prompt = s->n_prompt;
        if (s->capacity > g->settings.reach) g->settings.reach = s->capacity;
    }
}

// The tokens that all prompts begin with: of answered ones too, so that a run that resumes says what it would have
// said.
static int common_prefix(const Generation* g) {
    const Sequence* one = NULL;
    int n = 0, prompts = 0;
    for (int i = 0; i < g->n; i++) {
        const Sequence* s = &g->tasks[i].sequence;
        if (!s->n_prompt) continue;  // too long: skipped
        if (!prompts++) {
            one = s;
            n = s->n_prompt - 1;  // a prompt keeps a token of its own, from which its answer follows
        }
        n = s->n_prompt - 1 < n ? s->n_prompt - 1 : n;
        int same = 0;
        while (same < n && s->tokens[same] == one->tokens[same]) same++;
        n = same;
    }
    return prompts > 1 && n >= PREFIX_LEAST ? n : 0;
}

// ---------------------------------------------------------------------------------------------------
// the journal: a line an answer

static bool take_journalled(void* context, const cJSON* item) {
    Generation* g = (Generation*)context;
    const char* output = cJSON_GetStringValue(cJSON_GetObjectItem(item, "output"));
    const cJSON* i = cJSON_GetObjectItem(item, "i");
    if (!output || !cJSON_IsNumber(i) || !(i->valuedouble >= 0 && i->valuedouble < g->n)) return false;
    Task* task = &g->tasks[i->valueint];
    free(task->output);
    task->output = host_copy(output, strlen(output));
    task->cut = cJSON_IsTrue(cJSON_GetObjectItem(item, "cut"));
    return true;
}

// Everything that decides what the answers are; not how many prompts run together.
static void open_journal(Generation* g) {
    const EvalOptions* o = g->o;
    char numbers[256];
    Hex digest;
    Text t = {};
    dataset_digest(&o->prompts, digest);
    SampleSettings s = g->settings.sampling;
    int n = snprintf(numbers, sizeof numbers, "generate %d %g %g %d %g %lld %lld\n", s.greedy, s.temperature, s.top_p,
                     s.top_k, s.repetition_penalty, (long long)o->max_new_tokens, (long long)o->seed);
    text_add(&t, numbers, (size_t)n);
    const char* const texts[] = {digest, o->prompt_template, o->prompt_field, o->chat};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        text_add(&t, texts[i] ? texts[i] : "", (texts[i] ? strlen(texts[i]) : 0) + 1);
    journal_add_model(&t, o->model);
    journal_add_model(&t, o->adapter);
    base_decides(&t, base_find(o->base));
    journal_open(&g->journal, o->out, &t, o->resume, take_journalled, g);
    text_free(&t);
}

static void journal_answer(Generation* g, const Task* task) {
    cJSON* item = cJSON_CreateObject();
    cJSON_AddNumberToObject(item, "i", (double)(task - g->tasks));
    cJSON_AddBoolToObject(item, "cut", task->cut);
    cJSON_AddStringToObject(item, "output", task->output);
    journal_add(&g->journal, item);
    journal_flush(&g->journal);
}

// ---------------------------------------------------------------------------------------------------
// answers

// The answer's text, its leading space left out. Tokens may be pieces of characters, and a model may say pieces that
// make none; a padded vocabulary has tokens that no text has. Each comes out as U+FFFD, so that the result is JSON
// whatever was said.
static char* answer_text(const Tokenizer* tokenizer, const Sequence* s) {
    Text text = {}, clean = {};
    TokenStream stream = {};
    char* piece = (char*)host_alloc((size_t)tokenizer_longest_piece(tokenizer) + 8, "prompts");
    text_add(&text, "", 0);
    for (int i = s->n_prompt; i < s->n; i++) {
        int n = tokenizer_stream_push(tokenizer, &stream, s->tokens[i], false, piece);
        text_add(&text, n < 0 ? "\xFF" : piece, n < 0 ? 1 : (size_t)n);
    }
    text_add(&text, piece, (size_t)tokenizer_stream_end(tokenizer, &stream, piece));
    free(piece);
    bool leading_space = text.s[0] == ' ';
    text_add_utf8(&clean, text.s + leading_space, text.n - leading_space);
    text_free(&text);
    return clean.s;
}

static void take_answer(void* context, int i) {
    Generation* g = (Generation*)context;
    Task* task = g->order[i];
    const Sequence* s = &g->sequences[i];
    task->output = answer_text(g->tokenizer, s);
    task->cut = !s->ended;
    journal_answer(g, task);
    // Others are under way: how far, if all of them get as long as they may.
    g->answered_tokens += s->n - s->n_prompt + s->ended;
    g->progress.begun = (double)(g->decoder.tokens - g->answered_tokens) / (double)g->o->max_new_tokens;
    progress_update(&g->progress, ++g->answered, "%lld tokens, %.0f per second", (long long)g->decoder.tokens,
                    (double)g->decoder.tokens / (wall_seconds() - g->began));
}

// AlpacaEval's file: an array of {instruction, output, generator, dataset}.
static void write_outputs(const Generation* g) {
    const EvalOptions* o = g->o;
    AtomicFile f;
    atomic_open(&f, o->out);
    for (int i = 0; i < g->n; i++) {
        const Task* task = &g->tasks[i];
        cJSON* object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "instruction", task->instruction);
        cJSON_AddStringToObject(object, "output", task->output);
        cJSON_AddStringToObject(object, "generator", o->name ? o->name : o->adapter ? o->adapter : o->model);
        cJSON_AddStringToObject(object, "dataset", o->prompts.items[task->file]);
        char* text = json_text(object);
        atomic_printf(&f, "%s%s", i ? ",\n" : "[\n", text);
        cJSON_free(text);
        cJSON_Delete(object);
    }
    atomic_printf(&f, "\n]\n");
    atomic_commit(&f);
}

static void answer_all(Generation* g) {
    const EvalOptions* o = g->o;
    DecoderSettings* s = &g->settings;
    s->model = o->model;
    s->adapter = o->adapter;
    s->base = base_find(o->base);
    s->slots = o->batch < g->n_open ? (int)o->batch : g->n_open;
    s->T = o->tokens > s->longest_prompt                  ? (int)o->tokens
           : s->longest_prompt > PACK_TOKENS || o->tokens ? s->longest_prompt
                                                          : PACK_TOKENS;
    s->prefix = common_prefix(g);
    s->seed = (uint64_t)o->seed;
    s->quiet = o->quiet;
    s->dry_run = o->dry_run;
    decoder_open(&g->decoder, &g->config, s);
    g->began = wall_seconds();
    progress_begin(&g->progress, "generate", g->n_open, o->quiet);
    decoder_run(&g->decoder, g->sequences, g->n_open, take_answer, g);
    progress_end(&g->progress);
}

static void print_summary(const Generation* g) {
    int empty = 0, cut = 0;
    for (int i = 0; i < g->n; i++) {
        empty += !*g->tasks[i].output;
        cut += g->tasks[i].cut;
    }
    double seconds = wall_seconds() - g->began;
    printf("%d prompts", g->n);
    if (g->n_open < g->n - g->skipped) printf(" (%d answered before)", g->n - g->skipped - g->n_open);
    if (g->skipped) printf(" (%d longer than the model reads: empty)", g->skipped);
    if (g->n_open)
        printf(", %lld tokens in %.1f s (%.0f per second)", (long long)g->decoder.tokens, seconds,
               (double)g->decoder.tokens / seconds);
    if (empty) printf(", %d answers empty", empty);
    if (cut) printf(", %d cut at the maximum length", cut);
    printf("; wrote %s\n", g->o->out);
}

int generate_command(const EvalOptions* o) {
    char error[512];
    Generation g = {};
    Hex key;
    g.o = o;
    result_key(&eval_options, EVAL_GENERATE, o, "batch,tokens", key);
    if (result_is_there(o->out, key, NULL, o->resume, o->quiet)) return 0;
    for (int i = 0; i < o->prompts.n; i++) output_is_not(o->out, o->prompts.items[i]);
    if (!o->dry_run) output_probe(o->out);
    model_config_read(&g.config, o->model);
    check_sizes(&g.config);
    g.tokenizer = tokenizer_open(o->model, error, sizeof error);
    if (!g.tokenizer) fatal("%s", error);
    text_encoder_open(&g.encoder, o->model, g.config.eos_id);
    find_ends(&g);
    g.settings.sampling = sampling(o);
    read_tasks(&g);
    if (!o->dry_run) open_journal(&g);
    order_tasks(&g);
    if (g.n_open) answer_all(&g);
    else if (o->dry_run) fatal("every prompt is longer than the model reads; there is nothing to plan");
    write_outputs(&g);
    result_record(o->out, key);
    journal_close(&g.journal);
    if (!o->quiet) print_summary(&g);
    if (g.n_open) decoder_close(&g.decoder);
    for (int i = 0; i < g.n; i++) {
        free(g.tasks[i].instruction);
        free(g.tasks[i].output);
        free(g.tasks[i].sequence.tokens);
    }
    free(g.tasks);
    free(g.order);
    free(g.sequences);
    if (g.chat.chat) chat_scratch_close(&g.conversation);
    chat_format_close(&g.chat);
    encoding_free(&g.encoding);
    text_encoder_close(&g.encoder);
    tokenizer_close(g.tokenizer);
    return 0;
}
