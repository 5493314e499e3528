/* Prompts to answers. See generate.h. */
#include <string.h>
#include <cjson/cJSON.h>
// defines: RowReader, Text
#include "dataset.h"
#include "error.h"
// defines: AtomicFile
#include "file.h"
#include "generate.h"
// defines: Progress
#include "log.h"
// defines: check_head_size
#include "select.h"
// defines: TextEncoder
#include "tokens.h"
// defines: Tokenizer, TokenStream
#include "tokenizer.h"

// ---------------------------------------------------------------------------------------------------------------------------------------
// decoding

void generator_open(Generator* g, const char* model, int batch, int T) {
    ModelConfig config;
    TrainerSettings settings = {};
    memset(g, 0, sizeof *g);
    model_config_read(&config, model);
    check_head_size(&config);
    if (T < config.max_positions) T = config.max_positions;
    settings.T = T;
    settings.head_rows = batch;
    settings.batch_max = batch;
    settings.forward_only = true;
    trainer_plan(&g->trainer, &config, &settings);
    trainer_allocate(&g->trainer);
    parameters_load(&g->trainer.theta, model, true);
    g->eos = config.eos_id;
    g->rows = (int*)calloc(2 * (size_t)batch, sizeof(int));
    g->logits = (float*)malloc((size_t)batch * config.V * sizeof(float));
    if (!g->rows || !g->logits) fatal("out of host memory for the logits of %d sequences", batch);
    g->members = g->rows + batch;
}

void generator_close(Generator* g) {
    trainer_free(&g->trainer);
    free(g->rows);
    free(g->logits);
    memset(g, 0, sizeof *g);
}

static int likeliest(const float* logits, int V) {
    int best = 0;
    for (int v = 1; v < V; v++)
        if (logits[v] > logits[best]) best = v;
    return best;
}

static void extend(Sequence* s, int token, int eos) {
    if (token != eos) s->tokens[s->n++] = token;
    s->done = token == eos || s->n == s->capacity;
}

int generator_step(Generator* g, Sequence* sequences, int n) {
    Trainer* t = &g->trainer;
    const ModelConfig* c = &t->layout.config;
    int unfinished = 0, left = 0;
    for (int i = 0; i < n; i++)
        if (!sequences[i].done) { t->lengths[unfinished] = sequences[i].n; g->members[unfinished++] = i; }
    int streams = pack_first_fit(t->lengths, unfinished, t->settings.T, t->stream_of);
    for (int s = 0; s < streams; s++) {
        int k = 0, at = 0;
        for (int i = 0; i < unfinished; i++) {
            if (t->stream_of[i] != s) continue;
            const Sequence* x = &sequences[g->members[i]];
            PackSample sample = {x->tokens, NULL, x->n, x->n - 1, 0};
            t->samples[k] = sample;
            t->chosen[k] = g->members[i];
            at += x->n;
            g->rows[k++] = at - 1;
        }
        DeviceStream stream;
        packed_stream_build(&t->packed, t->samples, k, c->V, c->max_positions);
        stream_upload(&t->uploader, &stream, &t->packed, NULL, NULL, t->stream);
        transformer_forward(&t->transformer, &t->theta, &stream, t->stream);
        transformer_logits(&t->transformer, &t->theta, g->rows, k, g->logits, t->stream);
        for (int i = 0; i < k; i++) {
            Sequence* x = &sequences[t->chosen[i]];
            extend(x, likeliest(g->logits + (size_t)i * c->V, c->V), g->eos);
            left += !x->done;
        }
    }
    return left;
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// prompts in, answers out

typedef struct {
    char* instruction;   // the prompt without a template
    Sequence sequence;
} Task;

typedef struct { Task* tasks; int n, capacity; } TaskList;

// The template's end is a blank that the answer's first word takes along ("Assistant:" + " Sure"), as in training; it is not the prompt's.
static void encode_prompt(const TextEncoder* encoder, void* scratch, const char* path, const DataRow* row, const ModelConfig* config, int longest_answer, Sequence* s) {
    const long long at = row->line, number = row->row;
    const int32_t *ids, *start, *end;
    const char* error;
    size_t length = row->prompt_length;
    while (length && row->prompt[length - 1] == ' ') length--;
    int64_t n = encoder->encode(encoder->self, scratch, row->prompt, length, &ids, &start, &end, &error);
    if (n < 0) fatal("%s:%lld: row %lld: %s", path, at, number, error);
    if (n && ids[n - 1] == encoder->eos) n--;
    if (n < 1) fatal("%s:%lld: row %lld: the prompt has no tokens", path, at, number);
    if (n >= config->max_positions)
        fatal("%s:%lld: row %lld: the prompt has %lld tokens, the model reads %d; shorten it", path, at, number, (long long)n, config->max_positions);
    for (int64_t i = 0; i < n; i++)
        if (ids[i] >= config->V) fatal("%s:%lld: row %lld: token %d, the model has %d", path, at, number, ids[i], config->V);
    s->n = s->n_prompt = (int)n;
    s->capacity = n + longest_answer < config->max_positions ? (int)n + longest_answer : config->max_positions;
    s->tokens = (int32_t*)malloc((size_t)s->capacity * sizeof(int32_t));
    if (!s->tokens) fatal("out of host memory for %d tokens", s->capacity);
    memcpy(s->tokens, ids, (size_t)n * sizeof(int32_t));
}

static Task* add_task(TaskList* list) {
    if (list->n == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 256;
        list->tasks = (Task*)realloc(list->tasks, (size_t)list->capacity * sizeof(Task));
        if (!list->tasks) fatal("out of host memory for %d prompts", list->capacity);
    }
    Task* task = &list->tasks[list->n++];
    memset(task, 0, sizeof *task);
    return task;
}

// Two readers in step: one with the template for the model, one without for the `instruction`.
static TaskList read_tasks(const EvalOptions* o, const TextEncoder* encoder, const ModelConfig* config) {
    TaskList list = {};
    RowOptions options = {}, bare = {};
    DataRow row, plain;
    options.prompt_template = o->prompt_template;
    options.prompt_field = bare.prompt_field = o->prompt_field;
    options.prompts_only = bare.prompts_only = true;
    bare.prompt_template = "{prompt}";
    RowReader *reader = rows_open(&o->prompts, &options), *bare_reader = rows_open(&o->prompts, &bare);
    void* scratch = encoder->begin(encoder->self);
    while (rows_next(reader, &row) && rows_next(bare_reader, &plain)) {
        const char* path = o->prompts.items[row.file];
        if (row.state != ROW_OK) fatal("%s:%lld: row %lld: %s", path, (long long)row.line, (long long)row.row, *row.why ? row.why : row_state_name(row.state));
        Task* task = add_task(&list);
        task->instruction = strdup(plain.prompt);
        if (!task->instruction) fatal("out of host memory for %d prompts", list.n);
        encode_prompt(encoder, scratch, path, &row, config, (int)o->max_new_tokens, &task->sequence);
    }
    encoder->finish(encoder->self, scratch);
    rows_close(reader);
    rows_close(bare_reader);
    if (!list.n) fatal("%s: holds no prompts", o->prompts.items[0]);
    return list;
}

// The answer's text, its leading blank left out.
static char* answer_text(const Tokenizer* tokenizer, const Sequence* s) {
    Text text = {};
    TokenStream stream = {};
    char* piece = (char*)malloc((size_t)tokenizer_longest_piece(tokenizer) + 8);
    if (!piece) fatal("out of host memory for an answer");
    text_add(&text, "", 0);
    for (int i = s->n_prompt; i < s->n; i++) {
        int n = tokenizer_stream_push(tokenizer, &stream, s->tokens[i], false, piece);
        if (n < 0) fatal("the model said token %d, which its tokenizer does not know", s->tokens[i]);
        text_add(&text, piece, (size_t)n);
    }
    text_add(&text, piece, (size_t)tokenizer_stream_end(&stream, piece));
    free(piece);
    if (text.s[0] == ' ') memmove(text.s, text.s + 1, text.n);
    return text.s;
}

// AlpacaEval's file: an array of {instruction, output, generator, dataset}.
static void write_outputs(const EvalOptions* o, const TaskList* list, const Tokenizer* tokenizer) {
    AtomicFile f;
    atomic_open(&f, o->out);
    for (int i = 0; i < list->n; i++) {
        cJSON* object = cJSON_CreateObject();
        char* answer = answer_text(tokenizer, &list->tasks[i].sequence);
        cJSON_AddStringToObject(object, "instruction", list->tasks[i].instruction);
        cJSON_AddStringToObject(object, "output", answer);
        cJSON_AddStringToObject(object, "generator", o->model);
        cJSON_AddStringToObject(object, "dataset", o->prompts.items[0]);
        char* text = cJSON_PrintUnformatted(object);
        if (!text) fatal("out of host memory writing %s", o->out);
        atomic_printf(&f, "%s%s", i ? ",\n" : "[\n", text);
        free(text);
        free(answer);
        cJSON_Delete(object);
    }
    atomic_printf(&f, "\n]\n");
    atomic_commit(&f);
}

int generate_command(const EvalOptions* o) {
    char error[512];
    Generator g;
    TextEncoder encoder;
    if (!o->greedy) fatal("generate: only --greedy decoding is there");
    Tokenizer* tokenizer = tokenizer_open(o->model, error, sizeof error);
    if (!tokenizer) fatal("%s", error);
    generator_open(&g, o->model, (int)o->batch, o->tokens ? (int)o->tokens : 2048);
    text_encoder_open(&encoder, o->model, g.eos);
    g.eos = encoder.eos;
    TaskList list = read_tasks(o, &encoder, &g.trainer.layout.config);
    Sequence* batch = (Sequence*)calloc((size_t)o->batch, sizeof *batch);
    if (!batch) fatal("out of host memory for %lld sequences", (long long)o->batch);
    Progress progress;
    int64_t tokens = 0;
    double began = wall_seconds();
    progress_begin(&progress, "generate", list.n, o->quiet);
    for (int from = 0; from < list.n; from += (int)o->batch) {
        int n = list.n - from < o->batch ? list.n - from : (int)o->batch;
        for (int i = 0; i < n; i++) batch[i] = list.tasks[from + i].sequence;
        while (generator_step(&g, batch, n)) {}
        for (int i = 0; i < n; i++) {
            list.tasks[from + i].sequence = batch[i];
            tokens += batch[i].n - batch[i].n_prompt;
        }
        progress_update(&progress, from + n, "prompts");
    }
    progress_end(&progress);
    write_outputs(o, &list, tokenizer);
    if (!o->quiet) printf("%d prompts, %lld tokens in %.1f s; wrote %s\n", list.n, (long long)tokens, wall_seconds() - began, o->out);
    for (int i = 0; i < list.n; i++) {
        free(list.tasks[i].instruction);
        free(list.tasks[i].sequence.tokens);
    }
    free(list.tasks);
    free(batch);
    text_encoder_close(&encoder);
    tokenizer_close(tokenizer);
    generator_close(&g);
    return 0;
}
