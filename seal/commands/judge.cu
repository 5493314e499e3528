/* A local model as judge. See judge.h. */
#include <string.h>
#include "rows/dataset.h"
#include "base/error.h"
#include "base/file.h"
#include "run/journal.h"
#include "commands/judge.h"
#include "base/log.h"
#include "peft.h"
#include "base/random.h"
#include "base/text.h"
#include "run/samples.h"
#include "chat.h"
#include "rows/chat_rows.h"
#include "tokenizer.h"
#include "trainer.h"

#define STREAM_JUDGE 0x6a75646765ull
#define TEMPLATE_MOST ((size_t)1 << 20)  // bytes

// ---------------------------------------------------------------------------------------------------
// outputs of a model: AlpacaEval's file

typedef struct {
    char *instruction, *output, *generator, *dataset;  // output NULL: there is none, the model did not answer
} Output;
typedef struct {
    Output* items;
    int n, capacity, unanswered;
    const char* path;
} Outputs;

static char* text_of(const cJSON* object, const char* field, const Outputs* list, const DataRecord* record,
                     bool needed) {
    const char* text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, field));
    if (!text && needed)
        fatal("%s:%lld: row %lld has no text \"%s\"; expected outputs as `generate` writes them", list->path,
              (long long)record->line, (long long)record->row, field);
    return host_copy(text ? text : "", text ? strlen(text) : 0);
}

static void outputs_read(Outputs* list, const char* path) {
    DataRecord record;
    memset(list, 0, sizeof *list);
    list->path = path;
    RecordReader* r = records_open(path);
    while (records_next(r, &record)) {
        char why[160];
        cJSON* object = record.broken ? NULL : json_parse(record.bytes, record.length, why, sizeof why);
        if (!cJSON_IsObject(object))
            fatal("%s:%lld: row %lld is not a JSON object", path, (long long)record.line, (long long)record.row);
        if (list->n == list->capacity) {
            list->capacity = list->capacity ? 2 * list->capacity : 256;
            list->items = (Output*)host_resize(list->items, (size_t)list->capacity * sizeof *list->items,
                                               "the judge's questions");
        }
        Output* x = &list->items[list->n++];
        x->instruction = text_of(object, "instruction", list, &record, true);
        bool answered = !cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(object, "output"));
        x->output = answered ? text_of(object, "output", list, &record, true) : NULL;
        list->unanswered += !answered;
        x->generator = text_of(object, "generator", list, &record, false);
        x->dataset = text_of(object, "dataset", list, &record, false);
        cJSON_Delete(object);
    }
    records_close(r);
    if (!list->n) fatal("%s: holds no outputs", path);
    if (list->unanswered == list->n) fatal("%s: every output is null; there is nothing to judge", path);
}
static void outputs_free(Outputs* list) {
    for (int i = 0; i < list->n; i++) {
        free(list->items[i].instruction);
        free(list->items[i].output);
        free(list->items[i].generator);
        free(list->items[i].dataset);
    }
    free(list->items);
}

static void check_aligned(const Outputs* a, const Outputs* b) {
    for (int i = 0; i < a->n && i < b->n; i++)
        if (strcmp(a->items[i].instruction, b->items[i].instruction))
            fatal(
                "%s and %s answer different instructions in row %d; let both models answer the same prompts in the "
                "same order",
                a->path, b->path, i);
    if (a->n != b->n)
        fatal("%s has %d outputs, %s has %d; let both models answer the same prompts", a->path, a->n, b->path, b->n);
}

// ---------------------------------------------------------------------------------------------------
// questions

// A prompt of the judge and what came of it.
typedef struct {
    int32_t* tokens;
    int n;           // 0: longer than the judge reads
    float logit[2];  // of the two words it may answer
    float log_sum;   // of all
    bool answered;
} Question;

typedef struct {
    const EvalOptions* o;
    ModelConfig config;
    Tokenizer* tokenizer;
    ChatFormat chat;
    JinjaScratch* rendering;
    PlainText plain;  // of the question at hand: the words that are not the template's
    Encoding encoding;
    const char* template_path;
    char* question;        // the template
    const char* words[2];  // that an answer may begin with
    int word_id[2];        // their tokens, −1 before the first question
    Question* questions;
    int n, capacity, too_long, longest;
    Trainer trainer;
    Journal journal;
} Judge;

// The template with texts in place of its names. Texts are not looked through: an output may spell {output_2}.
static void fill(const char* text, const char* const names[], const char* const values[], int n, Text* out) {
    out->n = 0;
    text_add(out, "", 0);
    while (*text) {
        int k = 0;
        while (k < n && strncmp(text, names[k], strlen(names[k]))) k++;
        text_add(out, k < n ? values[k] : text, k < n ? strlen(values[k]) : 1);
        text += k < n ? strlen(names[k]) : 1;
    }
}

static void read_template(Judge* j, const char* const needed[], int n) {
    const char* path = j->template_path;
    size_t length;
    j->question = file_read(path, TEMPLATE_MOST, &length);
    while (length && (j->question[length - 1] == '\n' || j->question[length - 1] == ' '))
        j->question[--length] = 0;  // an editor's line end; a space belongs to the answer
    for (int k = 0; k < n; k++)
        if (!strstr(j->question, needed[k])) fatal("%s: does not contain %s", path, needed[k]);
}

// The judge's tokens of a text; with a chat template the text spells the special tokens itself, and those in the
// outputs are text.
static int64_t encode(Judge* j, const char* text, size_t n) {
    int64_t got = j->chat.chat ? tokenizer_encode_mixed(j->tokenizer, text, n, &j->plain, 0, &j->encoding)
                               : tokenizer_encode(j->tokenizer, text, n,
                                                  TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL, &j->encoding);
    if (got < 0) fatal("%s: %s", j->o->judge, j->encoding.error);
    int eos = tokenizer_eos(j->tokenizer);
    if (!j->chat.chat && got && j->encoding.ids[got - 1] == eos) got--;  // some tokenizers end a text themselves
    return got;
}

// The token that a word begins with after the question of n tokens in `text`; *more = the tokens of the whole word. −1
// where the word changes the question's own tokens.
static int word_token(Judge* j, Text* text, const int32_t* tokens, int n, const char* before, const char* word,
                      int* more) {
    size_t length = text->n;
    text_add(text, before, strlen(before));
    text_add(text, word, strlen(word));
    int64_t got = encode(j, text->s, text->n);
    text->n = length;
    text->s[length] = 0;
    *more = (int)got - n;
    return got > n && !memcmp(j->encoding.ids, tokens, (size_t)n * sizeof(int32_t)) ? j->encoding.ids[n] : -1;
}

// Both words written the same way: whether one position after the question tells them apart.
static bool words_fit(Judge* j, Text* text, const int32_t* tokens, int n, const char* before, int id[2], int more[2]) {
    for (int w = 0; w < 2; w++) id[w] = word_token(j, text, tokens, n, before, j->words[w], &more[w]);
    return id[0] >= 0 && id[1] >= 0 && id[0] != id[1] && (j->o->guard || (more[0] == 1 && more[1] == 1));
}

// One position decides, so the words must be one token each after the question (of a guard's, the first tells them
// apart), the same tokens after every question. After a word, as after "Better answer:", a judge leaves a space,
// which most vocabularies have in a token with the word: "m" alone is what nobody would say there. After white space,
// as chat templates end, there is none. The other way of writing is taken only where both words need it.
static void find_words(Judge* j, Text* text, const int32_t* tokens, int n) {
    static const char* const blanks[] = {" ", ""};
    int id[2], more[2], apart = text->n && strchr(" \n\t", text->s[text->n - 1]) ? 1 : 0;
    if (!words_fit(j, text, tokens, n, blanks[apart], id, more) &&
        !words_fit(j, text, tokens, n, blanks[!apart], id, more)) {
        words_fit(j, text, tokens, n, blanks[apart], id, more);
        for (int w = 0; w < 2; w++)
            if (id[w] < 0 || (more[w] > 1 && !j->o->guard))
                fatal(
                    "%s: \"%s\" after the question is %d tokens; expected one. Choose other --words, or end %s "
                    "differently",
                    j->o->judge, j->words[w], more[w], j->template_path);
        fatal("%s: \"%s\" and \"%s\" begin with the same token; one position cannot tell them apart", j->o->judge,
              j->words[0], j->words[1]);
    }
    for (int w = 0; w < 2; w++) {
        if (j->word_id[w] >= 0 && j->word_id[w] != id[w])
            fatal(
                "%s: \"%s\" is not the same token after every question; end the template with text of its own, not "
                "with "
                "an output",
                j->template_path, j->words[w]);
        j->word_id[w] = id[w];
    }
}

// Adds a question; returns its number.
static int ask(Judge* j, const char* const names[], const char* const values[], int n_values) {
    Text text = {};
    fill(j->question, names, values, n_values, &text);
    if (j->chat.chat) {
        char error[512];
        Text json = {};
        JinjaResult r;
        const char before[] = "{\"messages\":[{\"role\":\"user\",\"content\":",
                   after[] = "}],\"add_generation_prompt\":true}";
        text_add(&json, before, sizeof before - 1);
        json_put_text(&json, text.s, text.n);
        text_add(&json, after, sizeof after - 1);
        if (!chat_render(j->chat.chat, j->rendering, json.s, json.n, &r, error, sizeof error)) fatal("%s", error);
        text.n = 0;
        text_add(&text, r.text, r.n);
        text_free(&json);
        j->plain = PlainText{r.given, (int)r.n_given, j->chat.tokens.guarded, j->chat.tokens.n_guarded};
    }
    if (j->n == j->capacity) {
        j->capacity = j->capacity ? 2 * j->capacity : 256;
        j->questions = (Question*)host_resize(j->questions, (size_t)j->capacity * sizeof *j->questions,
                                              "the judge's questions");
    }
    Question* q = &j->questions[j->n];
    memset(q, 0, sizeof *q);
    int64_t n = encode(j, text.s, text.n);
    if (n < 1) fatal("%s: the question has no tokens", j->template_path);
    q->tokens = (int32_t*)host_alloc((size_t)n * sizeof(int32_t), "the judge's questions");
    memcpy(q->tokens, j->encoding.ids, (size_t)n * sizeof(int32_t));
    for (int64_t i = 0; i < n; i++)
        if (q->tokens[i] >= j->config.V)
            fatal(
                "%s: the tokenizer gives token %d but the model's vocabulary has %d tokens; this tokenizer is not the "
                "model's",
                j->o->judge, q->tokens[i], j->config.V);
    find_words(j, &text, q->tokens, (int)n);
    if (n > j->config.longest) j->too_long++;
    else q->n = (int)n;
    if (q->n > j->longest) j->longest = q->n;
    text_free(&text);
    return j->n++;
}

// ---------------------------------------------------------------------------------------------------
// answers

static void take_logits(const Judge* j, Question* q, const float* logits) {
    double highest = -INFINITY, sum = 0.0;
    for (int v = 0; v < j->config.V; v++) highest = fmax(highest, (double)logits[v]);
    for (int v = 0; v < j->config.V; v++) sum += exp(logits[v] - highest);
    q->log_sum = (float)(highest + log(sum));
    for (int w = 0; w < 2; w++) q->logit[w] = logits[j->word_id[w]];
    if (!isfinite(q->log_sum)) fatal("%s: its logits are not finite; is the model damaged?", j->o->judge);
    q->answered = true;
}

// The journal: a line per question.
static bool take_answer(void* context, const cJSON* item) {
    const Judge* j = (const Judge*)context;
    const cJSON *number = cJSON_GetObjectItem(item, "i"), *numbers = cJSON_GetObjectItem(item, "logits");
    const cJSON *one = cJSON_GetArrayItem(numbers, 0), *two = cJSON_GetArrayItem(numbers, 1),
                *sum = cJSON_GetArrayItem(numbers, 2);
    if (!cJSON_IsNumber(number) || !(number->valuedouble >= 0 && number->valuedouble < j->n) || !cJSON_IsNumber(one) ||
        !cJSON_IsNumber(two) || !cJSON_IsNumber(sum))
        return false;
    Question* q = &j->questions[number->valueint];
    q->logit[0] = (float)one->valuedouble;
    q->logit[1] = (float)two->valuedouble;
    q->log_sum = (float)sum->valuedouble;
    q->answered = true;
    return true;
}

static void open_journal(Judge* j) {
    const EvalOptions* o = j->o;
    const int numbers[] = {(int)sizeof(floatX), j->trainer.settings.T, (int)o->batch, j->word_id[0], j->word_id[1]};
    Text t = {};
    text_add(&t, "judge", 6);
    text_add(&t, numbers, sizeof numbers);
    for (int i = 0; i < j->n; i++) {
        text_add(&t, &j->questions[i].n, sizeof j->questions[i].n);
        text_add(&t, j->questions[i].tokens, (size_t)j->questions[i].n * sizeof(int32_t));
    }
    journal_add_model(&t, o->judge);
    journal_add_model(&t, o->adapter);
    journal_open(&j->journal, o->out, &t, o->resume, take_answer, j);
    text_free(&t);
}

static void journal_answer(Judge* j, const Question* q) {
    const float numbers[] = {q->logit[0], q->logit[1], q->log_sum};
    cJSON* item = cJSON_CreateObject();
    cJSON_AddNumberToObject(item, "i", (double)(q - j->questions));
    cJSON_AddItemToObject(item, "logits", cJSON_CreateFloatArray(numbers, 3));
    journal_add(&j->journal, item);
}

static void open_model(Judge* j) {
    const EvalOptions* o = j->o;
    TrainerSettings settings = {};
    settings.T = o->tokens > j->longest ? (int)o->tokens : j->longest > 2048 || o->tokens ? j->longest : 2048;
    settings.batch_max = (int)o->batch;
    settings.head_rows = (int)(o->batch < 64 ? o->batch : 64);
    settings.forward_only = true;
    if (o->adapter) peft_settings(o->adapter, &j->config, &settings.lora);
    trainer_plan(&j->trainer, &j->config, &settings);
    if (o->dry_run) trainer_dry_run(&j->trainer);
    open_journal(j);
    trainer_allocate(&j->trainer);
    trainer_load(&j->trainer, o->judge, o->adapter, 0, o->quiet);
    if (j->trainer.with_lora) lora_publish(&j->trainer.lora, &j->trainer.base, j->trainer.stream);
}

// All questions, in packs of as many as fit; a pack that an earlier run answered whole is left out, so that the
// others are packed as they were.
static void answer_all(Judge* j) {
    Trainer* t = &j->trainer;
    const ParameterSet* model = t->with_lora ? &t->base : &t->theta;
    int most = t->settings.batch_max, *rows = (int*)host_alloc((size_t)most * sizeof(int), "the judge's questions");
    Question** asked = (Question**)host_alloc((size_t)most * sizeof *asked, "the judge's questions");
    float* logits = (float*)host_alloc((size_t)most * j->config.V * sizeof(float), "the judge's logits");
    Progress progress;
    progress_begin(&progress, "judge", j->n, j->o->quiet);
    for (int next = 0; next < j->n;) {
        int k = 0, at = 0, open = 0;
        for (; next < j->n && k < most && at + j->questions[next].n <= t->settings.T; next++) {
            Question* q = &j->questions[next];
            if (!q->n) continue;
            PackSample sample = {q->tokens, NULL, q->n, q->n - 1, 0};
            t->samples[k] = sample;
            at += q->n;
            rows[k] = at - 1;
            asked[k++] = q;
            open += !q->answered;
        }
        if (!open) continue;
        DevicePack s;
        host_pack_build(&t->packed, t->samples, k, j->config.V, j->config.longest);
        pack_upload(&t->uploader, &s, &t->packed, NULL, NULL, t->stream);
        transformer_forward(&t->transformer, model, &s, t->stream);
        transformer_logits(&t->transformer, model, rows, k, logits, t->stream);
        for (int i = 0; i < k; i++) {
            take_logits(j, asked[i], logits + (size_t)i * j->config.V);
            journal_answer(j, asked[i]);
        }
        journal_flush(&j->journal);
        progress_update(&progress, next, "questions");
    }
    progress_end(&progress);
    free(rows);
    free(asked);
    free(logits);
}

// ---------------------------------------------------------------------------------------------------
// results

static cJSON* result_of(const Judge* j, const Output* x) {
    cJSON* object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "instruction", x->instruction);
    cJSON_AddStringToObject(object, "dataset", x->dataset);
    cJSON_AddStringToObject(object, "annotator", j->o->adapter ? j->o->adapter : j->o->judge);
    return object;
}

static void add_number(cJSON* object, const char* name, double value) {
    if (isfinite(value)) cJSON_AddNumberToObject(object, name, value);
    else cJSON_AddNullToObject(object, name);
}

static void add_output(cJSON* object, const char* name, const char* text) {
    if (text) cJSON_AddStringToObject(object, name, text);
    else cJSON_AddNullToObject(object, name);
}

static void write_object(AtomicFile* f, cJSON* object, bool first) {
    char* text = json_text(object);
    atomic_printf(f, "%s%s", first ? "[\n" : ",\n", text);
    cJSON_free(text);
    cJSON_Delete(object);
}

static double mean_and_error(const double* x, int n, double* error) {
    double mean = 0.0, squares = 0.0;
    for (int i = 0; i < n; i++) mean += x[i] / n;
    for (int i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    *error = n > 1 ? sqrt(squares / (n - 1) / n) : NAN;
    return n ? mean : NAN;
}

// ---- two outputs
static const char* const pair_names[] = {"{instruction}", "{output_1}", "{output_2}"};

typedef struct {
    int given, swapped;
} Pair;  // questions; −1: not asked

// Preference for output_2, 1 to 2. In the given order it bears the second word.
static double preference(const Judge* j, int question, bool swapped) {
    if (question < 0 || !j->questions[question].n) return NAN;
    const float* logit = j->questions[question].logit;
    double difference = swapped ? (double)logit[0] - logit[1] : (double)logit[1] - logit[0];
    return 1.0 + 1.0 / (1.0 + exp(-difference));
}

static void judge_pairs(Judge* j) {
    const EvalOptions* o = j->o;
    Outputs outputs, baseline;
    outputs_read(&outputs, o->outputs);
    outputs_read(&baseline, o->baseline);
    check_aligned(&outputs, &baseline);
    read_template(j, pair_names, 3);
    Pair* pairs = (Pair*)host_alloc((size_t)outputs.n * sizeof *pairs, "the judge's questions");
    int empty = 0, equal = 0, flips = 0, both = 0, n = 0, unjudged = 0, unanswered = 0;
    // The questions: one or two for each pair whose outputs differ. Equal outputs are a draw, as in AlpacaEval.
    for (int i = 0; i < outputs.n; i++) {
        const char *one = baseline.items[i].output, *two = outputs.items[i].output;
        const char *given[] = {outputs.items[i].instruction, one, two},
                   *swapped[] = {outputs.items[i].instruction, two, one};
        bool coin = o->single_order && random_bits((uint64_t)o->seed, STREAM_JUDGE, (uint64_t)i) & 1;
        pairs[i].given = pairs[i].swapped = -1;
        if (!one || !two) {
            unanswered++;
            continue;
        }
        empty += !*one + !*two;
        if (!strcmp(one, two)) {
            equal++;
            continue;
        }
        if (!coin) pairs[i].given = ask(j, pair_names, given, 3);
        if (!o->single_order || coin) pairs[i].swapped = ask(j, pair_names, swapped, 3);
    }
    // The answers; without a question no model is loaded.
    if (j->n || o->dry_run) {
        open_model(j);
        answer_all(j);
    }
    // The preferences: the mean of both orders, or the one order that was asked.
    double* values = (double*)host_alloc((size_t)outputs.n * sizeof(double), "preferences");
    AtomicFile f;
    atomic_open(&f, o->out);
    for (int i = 0; i < outputs.n; i++) {
        const char *one = baseline.items[i].output, *two = outputs.items[i].output;
        bool answered = one && two, same = answered && !strcmp(one, two);
        double a = preference(j, pairs[i].given, false), b = preference(j, pairs[i].swapped, true);
        double p = same ? 1.5 : o->single_order ? (isnan(a) ? b : a) : 0.5 * (a + b);
        if (isnan(p)) unjudged += answered;
        else values[n++] = p - 1.0;
        if (!isnan(a) && !isnan(b)) {
            both++;
            flips += (a - 1.5) * (b - 1.5) < 0.0;
        }
        cJSON* object = result_of(j, &outputs.items[i]);
        add_output(object, "output_1", one);
        cJSON_AddStringToObject(object, "generator_1", baseline.items[i].generator);
        add_output(object, "output_2", two);
        cJSON_AddStringToObject(object, "generator_2", outputs.items[i].generator);
        add_number(object, "preference", p);
        add_number(object, "preference_given", a);
        add_number(object, "preference_swapped", b);
        write_object(&f, object, i == 0);
    }
    atomic_printf(&f, "\n]\n");
    atomic_commit(&f);
    // The summary.
    double error, rate = mean_and_error(values, n, &error);
    if (!o->quiet) {
        printf("win rate %.4f, standard error %.4f, n %d", 100.0 * rate, 100.0 * error, n);
        if (both) printf(", flip rate %.2f%%", 100.0 * flips / both);
        printf(
            ", %d pairs equal, %d outputs empty, %d pairs not judged (%d questions longer than the %d tokens that the "
            "judge reads)",
            equal, empty, unjudged, j->too_long, j->config.longest);
        if (unanswered) printf(", %d pairs unanswered (an output is null)", unanswered);
        printf("; wrote %s\n", o->out);
    }
    free(values);
    free(pairs);
    outputs_free(&outputs);
    outputs_free(&baseline);
}

// ---- a guard
static const char* const guard_names[] = {"{instruction}", "{output}"};

static void judge_safety(Judge* j) {
    const EvalOptions* o = j->o;
    Outputs outputs;
    outputs_read(&outputs, o->outputs);
    read_template(j, guard_names, 2);
    int empty = 0, n = 0, unsafe = 0;
    int* asked = (int*)host_alloc((size_t)outputs.n * sizeof *asked,
                                  "the judge's questions");  // each output's question; −1: none
    for (int i = 0; i < outputs.n; i++) {
        const char* values[] = {outputs.items[i].instruction, outputs.items[i].output};
        empty += values[1] && !*values[1];
        asked[i] = values[1] ? ask(j, guard_names, values, 2) : -1;
    }
    if (j->n || o->dry_run) {
        open_model(j);
        answer_all(j);
    }
    double* values = (double*)host_alloc((size_t)outputs.n * sizeof(double), "probabilities");
    AtomicFile f;
    atomic_open(&f, o->out);
    for (int i = 0; i < outputs.n; i++) {
        const Question none = {}, *q = asked[i] < 0 ? &none : &j->questions[asked[i]];
        double p = q->n ? exp((double)q->logit[1] - q->log_sum) : NAN;
        if (q->n) {
            unsafe += q->logit[1] > q->logit[0];
            values[n++] = p;
        }
        cJSON* object = result_of(j, &outputs.items[i]);
        add_output(object, "output", outputs.items[i].output);
        cJSON_AddStringToObject(object, "generator", outputs.items[i].generator);
        add_number(object, "unsafe", p);  // of all words the answer may begin with
        add_number(object, "unsafe_or_safe", q->n ? 1.0 / (1.0 + exp((double)q->logit[0] - q->logit[1])) : NAN);
        write_object(&f, object, i == 0);
    }
    atomic_printf(&f, "\n]\n");
    atomic_commit(&f);
    double error, mean = mean_and_error(values, n, &error);
    if (!o->quiet) {
        printf(
            "unsafe with probability %.4f%% (standard error %.4f), %d of %d called unsafe, %d outputs empty, %d not "
            "judged (longer than the %d tokens that the judge reads)",
            100.0 * mean, 100.0 * error, unsafe, n, empty, outputs.n - n - outputs.unanswered, j->config.longest);
        if (outputs.unanswered) printf(", %d unanswered (the output is null)", outputs.unanswered);
        printf("; wrote %s\n", o->out);
    }
    free(asked);
    free(values);
    outputs_free(&outputs);
}

// ---------------------------------------------------------------------------------------------------

// "m,M" to its two words, which live as long as the program.
static void split_words(Judge* j, const char* words) {
    char* copy = host_copy(words, strlen(words));
    char* comma = strchr(copy, ',');
    if (!comma || comma == copy || !comma[1] || strchr(comma + 1, ','))
        fatal("--words is \"%s\"; expected two words with a comma between them", words);
    *comma = 0;
    j->words[0] = copy;
    j->words[1] = comma + 1;
}

int judge_command(const EvalOptions* o) {
    char error[512];
    Judge j = {};
    j.o = o;
    j.word_id[0] = j.word_id[1] = -1;
    if (journal_has_ended(o->out, o->resume, o->quiet)) return 0;
    if (!o->guard && !o->baseline) fatal("judge: --baseline is required, or --guard to judge the outputs on their own");
    output_is_not(o->out, o->outputs);
    output_is_not(o->out, o->baseline);
    output_probe(o->out);
    split_words(&j, o->guard ? "safe,unsafe" : o->words);
    j.template_path = o->judge_template ? o->judge_template
                                        : beside_program(o->guard ? "data/guard.txt" : "data/judge.txt");
    output_is_not(o->out, j.template_path);
    model_config_read(&j.config, o->judge);
    check_sizes(&j.config);
    j.tokenizer = tokenizer_open(o->judge, error, sizeof error);
    if (!j.tokenizer) fatal("%s", error);
    const ChatOptions chat = {o->chat, NULL, false, false, NULL};
    chat_format_open(&j.chat, &chat, o->judge, j.tokenizer, o->quiet);
    j.rendering = jinja_begin(NULL);
    if (!j.rendering) fatal("out of host memory for a chat template");
    if (o->guard) judge_safety(&j);
    else judge_pairs(&j);
    journal_close(&j.journal);
    if (j.trainer.stream) trainer_free(&j.trainer);
    for (int i = 0; i < j.n; i++) free(j.questions[i].tokens);
    free(j.questions);
    free(j.question);
    free((char*)j.words[0]);
    jinja_end(j.rendering);
    chat_format_close(&j.chat);
    encoding_free(&j.encoding);
    tokenizer_close(j.tokenizer);
    return 0;
}
