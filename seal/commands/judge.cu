/* A local model as judge. See judge.h. */
#include <string.h>
#include <cjson/cJSON.h>
#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "base/text.h"
#include "commands/judge.h"
#include "commands/judge_questions.h"
#include "rows/dataset.h"
#include "run/result_key.h"

#define STREAM_JUDGE 0x6a75646765ull

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
    if (!list->n) fatal("%s holds no outputs", path);
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
typedef struct {
    int given, swapped;
} Pair;  // items; −1: not asked

// Preference for output_2, 1 to 2. In the given order it bears the second word.
static double preference(const Judge* j, int item, bool swapped) {
    const JudgeReading* x = judge_readings(j, item);
    if (!x) return NAN;
    double difference = swapped ? (double)x->logit[0] - x->logit[1] : (double)x->logit[1] - x->logit[0];
    return 1.0 + 1.0 / (1.0 + exp(-difference));
}

static void judge_pairs(Judge* j) {
    const EvalOptions* o = j->o;
    Outputs outputs, baseline;
    outputs_read(&outputs, o->outputs);
    outputs_read(&baseline, o->baseline);
    check_aligned(&outputs, &baseline);
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
        if (!coin) pairs[i].given = judge_ask(j, given);
        if (!o->single_order || coin) pairs[i].swapped = judge_ask(j, swapped);
    }
    judge_answer(j);
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

// ---- outputs on their own

// The questions about outputs that are there. items (outputs->n): each one's, −1: none.
static int* ask_outputs(Judge* j, const Outputs* outputs, int* empty) {
    int* items = (int*)host_alloc((size_t)outputs->n * sizeof *items, "the judge's questions");
    for (int i = 0; i < outputs->n; i++) {
        const char* values[] = {outputs->items[i].instruction, outputs->items[i].output};
        *empty += values[1] && !*values[1];
        items[i] = values[1] ? judge_ask(j, values) : -1;
    }
    judge_answer(j);
    return items;
}

static void judge_safety(Judge* j) {
    const EvalOptions* o = j->o;
    Outputs outputs;
    outputs_read(&outputs, o->outputs);
    int empty = 0, n = 0, unsafe = 0, *asked = ask_outputs(j, &outputs, &empty);
    double* values = (double*)host_alloc((size_t)outputs.n * sizeof(double), "probabilities");
    AtomicFile f;
    atomic_open(&f, o->out);
    for (int i = 0; i < outputs.n; i++) {
        const JudgeReading* x = judge_readings(j, asked[i]);
        double p = x ? exp((double)x->logit[1] - x->log_sum) : NAN;
        if (x) {
            unsafe += x->logit[1] > x->logit[0];
            values[n++] = p;
        }
        cJSON* object = result_of(j, &outputs.items[i]);
        add_output(object, "output", outputs.items[i].output);
        cJSON_AddStringToObject(object, "generator", outputs.items[i].generator);
        add_number(object, "unsafe", p);  // of all words the answer may begin with
        add_number(object, "unsafe_or_safe", x ? 1.0 / (1.0 + exp((double)x->logit[0] - x->logit[1])) : NAN);
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

// ---- by a rubric of several words or answers
#define MOST_SETS 64
typedef struct {
    const char* name;  // of the data set; NULL: all
    int n, likeliest[JUDGE_ANSWERS][JUDGE_WORDS];
    double score, squares, mass;
} RubricTally;

static void add_to(RubricTally* t, const JudgeRubric* r, const JudgeVerdict* verdicts, double score) {
    t->n++;
    t->score += score;
    t->squares += score * score;
    for (int k = 0; k < r->n_answers; k++) {
        int best = 0;
        for (int w = 1; w < r->answers[k].n_words; w++)
            if (verdicts[k].p[w] > verdicts[k].p[best]) best = w;
        t->likeliest[k][best]++;
        t->mass += verdicts[k].mass / r->n_answers;
    }
}

static void print_rubric(const RubricTally* t, const JudgeRubric* r) {
    double mean = t->score / t->n, variance = t->n > 1 ? (t->squares - t->n * mean * mean) / (t->n - 1) : NAN;
    printf("%s%s%s: score %.4f%% (standard error %.4f) over %d outputs", r->name, t->name && *t->name ? ", " : "",
           t->name ? t->name : "", 100.0 * mean, 100.0 * sqrt(fmax(variance, 0.0) / t->n), t->n);
    for (int k = 0; k < r->n_answers; k++) {
        printf("; %s", r->answers[k].name);
        for (int w = 0; w < r->answers[k].n_words; w++)
            printf("%s %s %d", w ? "," : "", r->answers[k].words[w], t->likeliest[k][w]);
    }
    printf("\n");
}

static cJSON* rubric_result(const Judge* j, const Output* x, const JudgeVerdict* verdicts, double score) {
    const JudgeRubric* r = j->rubric;
    cJSON* object = result_of(j, x);
    cJSON_AddStringToObject(object, "rubric", r->name);
    add_output(object, "output", x->output);
    cJSON_AddStringToObject(object, "generator", x->generator);
    add_number(object, "score", score);
    for (int k = 0; k < r->n_answers; k++) {
        char name[128];
        if (!verdicts) {
            cJSON_AddNullToObject(object, r->answers[k].name);
            continue;
        }
        cJSON* words = cJSON_AddObjectToObject(object, r->answers[k].name);
        for (int w = 0; w < r->answers[k].n_words; w++) add_number(words, r->answers[k].words[w], verdicts[k].p[w]);
        snprintf(name, sizeof name, "%.100s_mass", r->answers[k].name);
        add_number(object, name, verdicts[k].mass);
    }
    return object;
}

static void judge_by_rubric(Judge* j) {
    const EvalOptions* o = j->o;
    const JudgeRubric* r = j->rubric;
    Outputs outputs;
    outputs_read(&outputs, o->outputs);
    int empty = 0, n_sets = 0, *asked = ask_outputs(j, &outputs, &empty);
    RubricTally all = {}, sets[MOST_SETS] = {};
    AtomicFile f;
    atomic_open(&f, o->out);
    for (int i = 0; i < outputs.n; i++) {
        const JudgeReading* x = judge_readings(j, asked[i]);
        JudgeVerdict verdicts[JUDGE_ANSWERS];
        double score = x ? judge_verdict(r, x, verdicts) : NAN;
        int s = 0;
        while (s < n_sets && strcmp(sets[s].name, outputs.items[i].dataset)) s++;
        if (s == MOST_SETS) fatal("%s: more than %d data sets", o->outputs, MOST_SETS);
        if (s == n_sets) sets[n_sets++].name = outputs.items[i].dataset;
        if (x) {
            add_to(&sets[s], r, verdicts, score);
            add_to(&all, r, verdicts, score);
        }
        write_object(&f, rubric_result(j, &outputs.items[i], x ? verdicts : NULL, score), i == 0);
    }
    atomic_printf(&f, "\n]\n");
    atomic_commit(&f);
    if (all.n && all.mass / all.n < 0.5)
        warning(
            "%s: its answer begins with one of the words of --rubric %s with probability %.3f only; is it the model "
            "that the rubric is for?",
            o->judge, r->name, all.mass / all.n);
    if (!o->quiet) {
        for (int s = 0; s < n_sets && n_sets > 1; s++)
            if (sets[s].n) print_rubric(&sets[s], r);
        if (all.n) print_rubric(&all, r);
        if (*r->help) printf("the score: %s\n", r->help);
        printf("%d outputs empty, %d not judged (longer than the %d tokens that the judge reads)", empty,
               outputs.n - all.n - outputs.unanswered, j->config.longest);
        if (outputs.unanswered) printf(", %d unanswered (the output is null)", outputs.unanswered);
        if (all.n) printf(", the words' probability %.3f", all.mass / all.n);
        printf("; wrote %s\n", o->out);
    }
    free(asked);
    outputs_free(&outputs);
}

// ---------------------------------------------------------------------------------------------------

// "m,M" to its two words, which live as long as the program.
static void split_words(const char* text, const char* words[2]) {
    char* copy = host_copy(text, strlen(text));
    char* comma = strchr(copy, ',');
    if (!comma || comma == copy || !comma[1] || strchr(comma + 1, ','))
        fatal("--words is \"%s\"; expected two words with a comma between them", text);
    *comma = 0;
    words[0] = copy;
    words[1] = comma + 1;
}

int judge_command(const EvalOptions* o) {
    static const char* const of_pairs[] = {"baseline", "words", "single-order"};
    Judge j;
    const char* words[2] = {};
    Hex key;
    result_key(&eval_options, EVAL_JUDGE, o, "", key);
    if (result_is_there(o->out, key, NULL, o->resume, o->quiet)) return 0;
    const JudgeRubric* rubric = judge_rubric(o->guard ? "guard" : o->rubric);
    for (size_t k = 0; k < sizeof of_pairs / sizeof *of_pairs && !rubric->pair; k++)
        if (options_given(&eval_options, of_pairs[k]))
            fatal("judge: --%s has no effect with --rubric %s, which judges outputs on their own", of_pairs[k],
                  rubric->name);
    if (rubric->pair && !o->baseline)
        fatal("judge: --baseline is required, or --guard or another --rubric to judge the outputs on their own");
    output_is_not(o->out, o->outputs);
    output_is_not(o->out, o->baseline);
    output_probe(o->out);
    if (rubric->pair) split_words(o->words, words);
    judge_open(&j, o, rubric, rubric->pair ? words : NULL);
    if (rubric->pair) judge_pairs(&j);
    else if (o->guard) judge_safety(&j);
    else judge_by_rubric(&j);
    result_record(o->out, key);
    judge_close(&j);
    free((char*)words[0]);
    return 0;
}
