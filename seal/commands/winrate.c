/* Win rates from annotations. See winrate.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <cjson/cJSON.h>
#include "rows/dataset.h"
#include "base/error.h"
#include "base/text.h"
#include "commands/winrate.h"

// ---------------------------------------------------------------------------------------------------
// a record that may hold NaN, which Python writes and JSON does not know

// The record with every NaN outside strings as null. Returns whether the field `preference` was one of them.
static bool replace_nan(const DataRecord* record, Text* out) {
    bool string = false, preference = false;
    size_t from = 0, key = 0, key_end = 0;  // the last string, as a place in the record
    out->n = 0;
    text_add(out, "", 0);
    for (size_t i = 0; i < record->length; i++) {
        char c = record->bytes[i];
        if (string && c == '\\') i++;
        else if (c == '"') {
            string = !string;
            *(string ? &key : &key_end) = i;
        } else if (!string && c == 'N' && i + 3 <= record->length && !memcmp(record->bytes + i, "NaN", 3)) {
            preference |= key_end > key && key_end - key == 11 && !memcmp(record->bytes + key + 1, "preference", 10);
            text_add(out, record->bytes + from, i - from);
            text_add(out, "null", 4);
            from = i + 3;
            i += 2;
        }
    }
    text_add(out, record->bytes + from, record->length - from);
    return preference;
}

static int64_t characters(const char* s) {
    int64_t n = 0;
    for (; *s; s++) n += (*s & 0xC0) != 0x80;
    return n;
}

// ---------------------------------------------------------------------------------------------------
// the same at outputs of one length

#define NEWTON_STEPS 60
#define FARTHEST 25.0  // a probability of 1e-11 or less from certainty is not a probability of a finite sample
#define JACKKNIFE_GROUPS 1000

typedef struct {
    const double *preference, *difference;
    int64_t n, groups, without;  // without: the group (index mod groups) that is left out; −1: none
} Sample;
static bool is_in(const Sample* s, int64_t i) { return s->without < 0 || i % s->groups != s->without; }

static double deviation(const Sample* s) {
    double mean = 0.0, squares = 0.0;
    int64_t m = 0;
    for (int64_t i = 0; i < s->n; i++)
        if (is_in(s, i)) mean += s->difference[i], m++;
    mean /= (double)m;
    for (int64_t i = 0; i < s->n; i++)
        if (is_in(s, i)) squares += (s->difference[i] - mean) * (s->difference[i] - mean);
    return m > 1 ? sqrt(squares / (double)(m - 1)) : 0.0;
}

// log likelihood of a and b, its gradient and minus its second derivatives. x (n): tanh of the differences.
static double likelihood(const Sample* s, const double* x, double a, double b, double g[2], double h[3]) {
    double sum = 0.0;
    g[0] = g[1] = h[0] = h[1] = h[2] = 0.0;
    for (int64_t i = 0; i < s->n; i++) {
        if (!is_in(s, i)) continue;
        double eta = a + b * x[i], p = 1.0 / (1.0 + exp(-eta)), y = s->preference[i], w = p * (1.0 - p);
        sum += y * eta - (eta > 0 ? eta + log1p(exp(-eta)) : log1p(exp(eta)));
        g[0] += y - p;
        g[1] += (y - p) * x[i];
        h[0] += w;
        h[1] += w * x[i];
        h[2] += w * x[i] * x[i];
    }
    return sum;
}

// Newton's method from *a and *b. False: there is no finite solution.
static bool fit(const Sample* s, double* x, double* a, double* b) {
    double sd = deviation(s), g[2], h[3];
    bool slope = false;  // lengths that all differ alike say nothing about their effect
    for (int64_t i = 0; i < s->n; i++) x[i] = sd > 0 ? tanh(s->difference[i] / sd) : 0.0;
    double first = NAN;
    for (int64_t i = 0; i < s->n; i++)
        if (is_in(s, i)) {
            if (isnan(first)) first = x[i];
            slope |= x[i] != first;
        }
    if (!slope) *b = 0.0;
    double now = likelihood(s, x, *a, *b, g, h);
    for (int step = 0; step < NEWTON_STEPS; step++) {
        double determinant = h[0] * h[2] - h[1] * h[1];
        double da = slope ? (h[2] * g[0] - h[1] * g[1]) / determinant : g[0] / h[0],
               db = slope ? (h[0] * g[1] - h[1] * g[0]) / determinant : 0.0;
        if (!isfinite(da) || !isfinite(db)) return false;
        // half the step until it is one upwards
        double next = likelihood(s, x, *a + da, *b + db, g, h);
        for (int half = 0; !(next >= now - 1e-12 * fabs(now)) && half < 40; half++) {
            da *= 0.5;
            db *= 0.5;
            next = likelihood(s, x, *a + da, *b + db, g, h);
        }
        *a += da;
        *b += db;
        now = next;
        if (fabs(*a) > FARTHEST || fabs(*b) > 4 * FARTHEST) return false;
        if (fabs(da) < 1e-11 && fabs(db) < 1e-11) return true;
    }
    return false;
}

double length_controlled(const double* preference, const double* difference, int64_t n, double* error, double* effect) {
    Sample s = {preference, difference, n, n < JACKKNIFE_GROUPS ? n : JACKKNIFE_GROUPS, -1};
    double *x = host_alloc((size_t)(n ? n : 1) * sizeof *x, "win rates"), a = 0.0, b = 0.0, mean = 0.0, squares = 0.0;
    bool found = n > 0 && fit(&s, x, &a, &b), all = found && n > 1;
    double rate = 1.0 / (1.0 + exp(-a)), *without = host_alloc((size_t)(n ? n : 1) * sizeof *without, "win rates");
    for (s.without = 0; all && s.without < s.groups; s.without++) {
        double at = a, bt = b;
        all = fit(&s, x, &at, &bt);
        without[s.without] = 1.0 / (1.0 + exp(-at));
        mean += without[s.without] / (double)s.groups;
    }
    for (int64_t k = 0; all && k < s.groups; k++) squares += (without[k] - mean) * (without[k] - mean);
    *error = all ? 100.0 * sqrt(squares * (double)(s.groups - 1) / (double)s.groups) : NAN;
    *effect = found ? b : NAN;
    free(x);
    free(without);
    return found ? 100.0 * rate : NAN;
}

// ---------------------------------------------------------------------------------------------------

#define ANNOTATORS_MOST 64

// What one annotator said.
typedef struct {
    WinRate w;
    double *preferences, *differences;  // of the lengths; NaN: an output is missing
    int64_t capacity, lengths;
} Annotator;

typedef struct {
    const char* path;
    const DataRecord* record;
    Annotator* annotators;
    int n, now;       // now: whose the record is
    bool controlled;  // lengths have to be there
} Reading;

static void find_annotator(Reading* r, const cJSON* object) {
    const char* name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "annotator"));
    size_t most = sizeof r->annotators->w.annotator - 1;
    if (!name) name = "";
    for (r->now = 0; r->now < r->n; r->now++)
        if (!strncmp(r->annotators[r->now].w.annotator, name, most)) return;
    if (r->n == ANNOTATORS_MOST)
        fatal("%s:%lld: row %lld: more than %d annotators", r->path, (long long)r->record->line,
              (long long)r->record->row, ANNOTATORS_MOST);
    r->annotators = host_resize(r->annotators, (size_t)++r->n * sizeof *r->annotators, "annotators");
    r->annotators[r->now] = (Annotator){0};
    snprintf(r->annotators[r->now].w.annotator, most + 1, "%s", name);
}

static void take_generator(const Reading* r, const cJSON* object, const char* field, char* first, size_t size) {
    const cJSON* item = cJSON_GetObjectItemCaseSensitive(object, field);
    if (!cJSON_IsString(item) || !*item->valuestring) return;
    if (!*first) snprintf(first, size, "%s", item->valuestring);
    else if (strncmp(first, item->valuestring, size - 1))
        fatal("%s:%lld: row %lld: %s is \"%.60s\" but was \"%.60s\" before; a win rate compares two models", r->path,
              (long long)r->record->line, (long long)r->record->row, field, item->valuestring, first);
}

static double side(double preference) { return (preference > 1.5) - (preference < 1.5); }

static void add_preference(const Reading* r, Annotator* a, double preference) {
    WinRate* w = &a->w;
    if (preference == 0) preference = 1.5;
    if (!(preference >= 1 && preference <= 2))
        fatal("%s:%lld: row %lld: the preference is %g; expected 1 to 2, 0 for a draw, or null", r->path,
              (long long)r->record->line, (long long)r->record->row, preference);
    if (w->n == a->capacity) {
        a->capacity = a->capacity ? 2 * a->capacity : 1024;
        a->preferences = host_resize(a->preferences, (size_t)a->capacity * sizeof *a->preferences, "preferences");
        a->differences = host_resize(a->differences, (size_t)a->capacity * sizeof *a->differences, "preferences");
    }
    a->differences[w->n] = NAN;
    a->preferences[w->n++] = preference;
    w->wins += preference > 1.5;
    w->losses += preference < 1.5;
    w->draws += preference == 1.5;
}

static void take_record(Reading* r, Text* text) {
    char why[160];
    bool nan = replace_nan(r->record, text);
    cJSON* object = r->record->broken ? NULL : json_parse(text->s, text->n, why, sizeof why);
    const cJSON* preference = cJSON_GetObjectItemCaseSensitive(object, "preference");
    if (!cJSON_IsNumber(preference) && !cJSON_IsNull(preference))
        fatal("%s:%lld: row %lld is not an annotation; expected an object with a number or null as \"preference\"",
              r->path, (long long)r->record->line, (long long)r->record->row);
    find_annotator(r, object);
    Annotator* a = &r->annotators[r->now];
    WinRate* w = &a->w;
    take_generator(r, object, "generator_1", w->generator_1, sizeof w->generator_1);
    take_generator(r, object, "generator_2", w->generator_2, sizeof w->generator_2);
    if (cJSON_IsNull(preference)) {
        w->nan += nan;
        w->null += !nan;
    } else {
        add_preference(r, a, preference->valuedouble);
        const cJSON *as_given = cJSON_GetObjectItemCaseSensitive(object, "preference_given"),
                    *swapped = cJSON_GetObjectItemCaseSensitive(object, "preference_swapped");
        if (cJSON_IsNumber(as_given) && cJSON_IsNumber(swapped)) {
            w->both++;
            w->flips += side(as_given->valuedouble) * side(swapped->valuedouble) < 0;
        }
        const char *one = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "output_1")),
                   *two = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "output_2"));
        if (one && two) {
            a->lengths++;
            w->length_1 += (double)characters(one);
            w->length_2 += (double)characters(two);
            a->differences[w->n - 1] = (double)(characters(two) - characters(one));
        } else if (r->controlled)
            fatal("%s:%lld: row %lld has a preference but not both outputs; --length-controlled needs their lengths",
                  r->path, (long long)r->record->line, (long long)r->record->row);
    }
    cJSON_Delete(object);
}

static void finish(Annotator* a, bool controlled) {
    WinRate* w = &a->w;
    double mean = 0.0, squares = 0.0;
    for (int64_t i = 0; i < w->n; i++) mean += (a->preferences[i] - 1.0) / (double)w->n;
    for (int64_t i = 0; i < w->n; i++) squares += (a->preferences[i] - 1.0 - mean) * (a->preferences[i] - 1.0 - mean);
    w->win_rate = w->n ? 100.0 * mean : NAN;
    w->standard_error = w->n > 1 ? 100.0 * sqrt(squares / (double)(w->n - 1)) / sqrt((double)w->n) : NAN;
    w->length_1 = a->lengths ? w->length_1 / (double)a->lengths : NAN;
    w->length_2 = a->lengths ? w->length_2 / (double)a->lengths : NAN;
    w->controlled = w->controlled_error = w->length_effect = NAN;
    for (int64_t i = 0; i < w->n; i++) a->preferences[i] -= 1.0;
    if (controlled && w->n)
        w->controlled = length_controlled(a->preferences, a->differences, w->n, &w->controlled_error,
                                          &w->length_effect);
    free(a->preferences);
    free(a->differences);
}

static WinRate* read_annotations(const char* path, bool controlled, int* n) {
    DataRecord record;
    Text text = {0};
    Reading r = {.path = path, .record = &record, .controlled = controlled};
    RecordReader* reader = records_open(path);
    if (records_format(reader) == FORMAT_CSV) fatal("%s: annotations are .json or .jsonl, also .gz", path);
    while (records_next(reader, &record)) take_record(&r, &text);
    records_close(reader);
    text_free(&text);
    WinRate* rates = host_alloc((size_t)r.n * sizeof *rates, "win rates");
    for (int i = 0; i < r.n; i++) {
        finish(&r.annotators[i], controlled);
        rates[i] = r.annotators[i].w;
    }
    free(r.annotators);
    *n = r.n;
    return rates;
}

WinRate* winrate_read(const char* path, int* n) { return read_annotations(path, false, n); }
WinRate* winrate_read_controlled(const char* path, int* n) { return read_annotations(path, true, n); }

// ---------------------------------------------------------------------------------------------------

static void add_number(cJSON* object, const char* name, double value) {
    if (isfinite(value)) cJSON_AddNumberToObject(object, name, value);
    else cJSON_AddNullToObject(object, name);
}

// apart: of several annotators, this one.
static void print_json(const WinRate* w, const char* path, bool apart, bool controlled) {
    cJSON* object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "file", path);
    if (apart) cJSON_AddStringToObject(object, "annotator", w->annotator);
    cJSON_AddStringToObject(object, "generator", w->generator_2);
    cJSON_AddStringToObject(object, "baseline", w->generator_1);
    add_number(object, "win_rate", w->win_rate);
    add_number(object, "standard_error", w->standard_error);
    const struct {
        const char* name;
        int64_t value;
    } counts[] = {{"n", w->n},         {"wins", w->wins}, {"losses", w->losses},
                  {"draws", w->draws}, {"null", w->null}, {"nan", w->nan}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        cJSON_AddNumberToObject(object, counts[i].name, (double)counts[i].value);
    add_number(object, "flip_rate", w->both ? 100.0 * (double)w->flips / (double)w->both : NAN);
    add_number(object, "characters", w->length_2);
    add_number(object, "characters_baseline", w->length_1);
    if (controlled) {
        add_number(object, "length_controlled", w->controlled);
        add_number(object, "length_controlled_se", w->controlled_error);
        add_number(object, "length_effect", w->length_effect);
    }
    char* text = json_text(object);
    puts(text);
    free(text);
    cJSON_Delete(object);
}

static void print_controlled(const WinRate* w) {
    if (isnan(w->controlled)) printf("; length-controlled: none, for the lengths, or nothing, decide every preference");
    else {
        printf("; length-controlled %.4f", w->controlled);
        if (isnan(w->controlled_error)) printf(" (no standard error: it hangs on single pairs)");
        else printf(", standard error %.4f", w->controlled_error);
        printf(", effect of length %.4f", w->length_effect);
    }
}

static void print_line(const WinRate* w, const char* path, bool apart, bool controlled) {
    if (path) printf("%s: ", path);
    if (apart) printf("annotator %s: ", *w->annotator ? w->annotator : "without a name");
    if (!w->n) printf("no annotation has a preference (%lld null, %lld NaN)", (long long)w->null, (long long)w->nan);
    else
        printf(
            "win rate %.4f, standard error %.4f, n %lld, wins %lld, losses %lld, draws %lld, dropped %lld (%lld null, "
            "%lld NaN)",
            w->win_rate, w->standard_error, (long long)w->n, (long long)w->wins, (long long)w->losses,
            (long long)w->draws, (long long)(w->null + w->nan), (long long)w->null, (long long)w->nan);
    if (w->both) printf(", flip rate %.2f%% of %lld", 100.0 * (double)w->flips / (double)w->both, (long long)w->both);
    if (controlled && w->n) print_controlled(w);
    if (*w->generator_2)
        printf("; %s against %s", w->generator_2, *w->generator_1 ? w->generator_1 : "an unnamed baseline");
    putchar('\n');
}

int winrate_command(const EvalOptions* o, const StringList* files) {
    if (!files->n) fatal("winrate: name a file of annotations");
    for (int f = 0; f < files->n; f++) {
        const char* path = files->items[f];
        int n;
        int64_t preferences = 0, null = 0, nan = 0;
        WinRate* rates = o->length_controlled ? winrate_read_controlled(path, &n) : winrate_read(path, &n);
        for (int i = 0; i < n; i++) {
            preferences += rates[i].n;
            null += rates[i].null;
            nan += rates[i].nan;
        }
        if (!preferences)
            fatal("%s: no annotation has a preference (%lld null, %lld NaN)", path, (long long)null, (long long)nan);
        for (int i = 0; i < n; i++) {
            if (o->json) print_json(&rates[i], path, n > 1, o->length_controlled);
            else print_line(&rates[i], files->n > 1 ? path : NULL, n > 1, o->length_controlled);
        }
        free(rates);
    }
    return 0;
}
