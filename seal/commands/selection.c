/* From scores to a smaller file. See selection.h. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "base/log.h"
#include "commands/pt_reader.h"
#include "base/random.h"
#include "base/safetensors.h"
#include "commands/selection.h"

static bool ends_with(const char* text, const char* end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

// ---------------------------------------------------------------------------------------------------
// selector files

void selector_file_write(const SelectorFile* s, const char* path) {
    char seed[32], rows[32];
    StWriter w;
    snprintf(seed, sizeof seed, "%lld", (long long)s->seed);
    snprintf(rows, sizeof rows, "%lld", (long long)s->n_rows);
    const char* const metadata[][2] = {
        {"format", "seal selector"},   {"file", s->files ? s->files : ""}, {"rows", rows},
        {"digest", s->digest},         {"tokenizer", s->tokenizer},        {"algorithm", s->algorithm},
        {"activation", s->activation}, {"schedule", s->schedule},          {"seed", seed}};
    for (int64_t i = 0; i < s->n; i++)
        if (!isfinite(s->logits[i]))
            fatal("%s: the logit of row %lld is not finite; nothing is written", path, (long long)s->rows[i]);
    st_create(&w, path);
    for (size_t i = 0; i < sizeof metadata / sizeof *metadata; i++) st_set_metadata(&w, metadata[i][0], metadata[i][1]);
    st_declare(&w, "row", ST_I64, 1, &s->n);
    st_declare(&w, "text_hash", ST_I64, 1, &s->n);
    if (s->last_visit) st_declare(&w, "last_visit", ST_I64, 1, &s->n);
    st_declare(&w, "logits", ST_F32, 1, &s->n);
    st_write(&w, s->rows, (size_t)s->n * sizeof *s->rows);
    st_write(&w, s->hashes, (size_t)s->n * sizeof *s->hashes);
    if (s->last_visit) st_write(&w, s->last_visit, (size_t)s->n * sizeof *s->last_visit);
    st_write(&w, s->logits, (size_t)s->n * sizeof *s->logits);
    st_commit(&w);
}

static int64_t whole_number(const StReader* r, const char* path, const char* key) {
    const char* text = st_metadata(r, key);
    char* end;
    errno = 0;
    long long value = text ? strtoll(text, &end, 10) : 0;
    if (!text || end == text || *end || errno) fatal("%s: metadata \"%s\" is not a whole number", path, key);
    return value;
}

static void copy_metadata(const StReader* r, const char* path, const char* key, char* out, size_t size) {
    const char* text = st_metadata(r, key);
    if (!text) fatal("%s: has no metadata \"%s\"; is it a selector?", path, key);
    if (strlen(text) >= size) fatal("%s: metadata \"%s\" is longer than %zu characters", path, key, size - 1);
    snprintf(out, size, "%s", text);
}

static void read_pt(SelectorFile* s, const char* path) {
    s->logits = pt_read(path, &s->n);
    s->rows = host_alloc((size_t)s->n * sizeof *s->rows, "the selection");
    s->hashes = host_alloc((size_t)s->n * sizeof *s->hashes, "the selection");
    for (int64_t i = 0; i < s->n; i++) s->rows[i] = i;
    s->n_rows = s->n;
    snprintf(s->activation, sizeof s->activation, "softmax");  // the reference's default; the file does not say
}

static void read_safetensors(SelectorFile* s, const char* path) {
    StReader r;
    st_open(&r, path);
    const char *format = st_metadata(&r, "format"), *files = st_metadata(&r, "file");
    if (!format || strcmp(format, "seal selector")) fatal("%s: is not a selector of this program", path);
    s->n = st_need(&r, "logits")->count;
    s->n_rows = whole_number(&r, path, "rows");
    s->seed = whole_number(&r, path, "seed");
    if (s->n < 1 || s->n > s->n_rows)
        fatal("%s: has %lld logits for a file of %lld rows", path, (long long)s->n, (long long)s->n_rows);
    s->logits = host_alloc((size_t)s->n * sizeof *s->logits, "the selection");
    s->rows = host_alloc((size_t)s->n * sizeof *s->rows, "the selection");
    s->hashes = host_alloc((size_t)s->n * sizeof *s->hashes, "the selection");
    st_copy(&r, "logits", ST_F32, s->n, s->logits);
    st_copy(&r, "row", ST_I64, s->n, s->rows);
    st_copy(&r, "text_hash", ST_I64, s->n, s->hashes);
    s->files = host_copy(files ? files : "", strlen(files ? files : ""));
    copy_metadata(&r, path, "digest", s->digest, sizeof s->digest);
    copy_metadata(&r, path, "tokenizer", s->tokenizer, sizeof s->tokenizer);
    copy_metadata(&r, path, "algorithm", s->algorithm, sizeof s->algorithm);
    copy_metadata(&r, path, "activation", s->activation, sizeof s->activation);
    copy_metadata(&r, path, "schedule", s->schedule, sizeof s->schedule);
    if (strlen(s->digest) != 64) fatal("%s: metadata \"digest\" is not a SHA-256", path);
    for (int64_t i = 0; i < s->n; i++)
        if (s->rows[i] < (i ? s->rows[i - 1] + 1 : 0) || s->rows[i] >= s->n_rows)
            fatal("%s: tensor row, element %lld: row %lld is out of order or outside the file's %lld rows", path,
                  (long long)i, (long long)s->rows[i], (long long)s->n_rows);
    st_close(&r);
}

void selector_file_read(SelectorFile* s, const char* path) {
    memset(s, 0, sizeof *s);
    if (snprintf(s->path, sizeof s->path, "%s", path) >= (int)sizeof s->path)
        fatal("%.80s…: the path is too long", path);
    if (ends_with(path, ".pt")) read_pt(s, path);
    else read_safetensors(s, path);
    for (int64_t i = 0; i < s->n; i++)
        if (!isfinite(s->logits[i])) fatal("%s: the logit of row %lld is not finite", path, (long long)s->rows[i]);
}

void selector_file_free(SelectorFile* s) {
    free(s->logits);
    free(s->rows);
    free(s->hashes);
    free(s->files);
    memset(s, 0, sizeof *s);
}

void selector_file_check(SelectorFile* s, const StringList* files, const char* digest, int64_t n_rows,
                         const int64_t* usable, int64_t n_usable) {
    const char *name = files->items[0], *more = files->n > 1 ? " and others" : "";
    if (*s->digest) {
        if (s->n_rows != n_rows)
            fatal("%s: was learned on %s with %lld rows, %s%s has %lld; give the file it was learned on", s->path,
                  s->files, (long long)s->n_rows, name, more, (long long)n_rows);
        if (strcmp(s->digest, digest))
            fatal(
                "%s: was learned on %s (SHA-256 %.12s…), %s%s is another file (%.12s…); give the file it was learned "
                "on",
                s->path, s->files, s->digest, name, more, digest);
        return;
    }
    if (s->n == n_rows) return;
    if (!usable || s->n != n_usable)
        fatal(
            "%s: has %lld logits, %s%s has %lld rows (%lld usable); a .pt selector fits only the file it was learned "
            "on",
            s->path, (long long)s->n, name, more, (long long)n_rows, (long long)(usable ? n_usable : n_rows));
    // the program that wrote it numbered only the rows it kept: its i-th logit is the i-th usable row's
    memcpy(s->rows, usable, (size_t)s->n * sizeof *s->rows);
    s->n_rows = n_rows;
}

void selector_weights(const float* logits, int64_t n, bool sigmoid, double* sigma) {
    double most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) most = fmax(most, (double)logits[i]);
    for (int64_t i = 0; i < n; i++) {
        sigma[i] = sigmoid ? 2 / (1 + exp(-(double)logits[i])) : exp((double)logits[i] - most);
        sum += sigma[i];
    }
    if (!sigmoid)
        for (int64_t i = 0; i < n; i++) sigma[i] *= (double)n / sum;
}

// ---------------------------------------------------------------------------------------------------
// methods

// streams of random numbers nobody else draws from
#define STREAM_SELECT 0x73656c656374ull
#define STREAM_DSIR 0x64736972ull

// Both lists of rows ascend, so one walk pairs them.
static void score_seal(const SelectionInput* in, const int64_t* rows, int64_t n, double* score) {
    const SelectorFile* s = in->selector;
    int64_t k = 0;
    for (int64_t i = 0; i < n; i++) {
        while (k < s->n && s->rows[k] < rows[i]) k++;
        score[i] = k < s->n && s->rows[k] == rows[i] ? (double)s->logits[k] : -INFINITY;
    }
}
// The largest ⌊p·n⌋ of independent uniform numbers are a uniform subset.
static void score_random(const SelectionInput* in, const int64_t* rows, int64_t n, double* score) {
    for (int64_t i = 0; i < n; i++) score[i] = random_uniform(in->seed, STREAM_SELECT, (uint64_t)rows[i]);
}
static void score_given(const SelectionInput* in, const int64_t* rows, int64_t n, double* score) {
    (void)rows;
    for (int64_t i = 0; i < n; i++) score[i] = in->scores[i];
}
// The largest k of log weights with Gumbel noise are k draws by weight without replacement.
static void score_dsir(const SelectionInput* in, const int64_t* rows, int64_t n, double* score) {
    for (int64_t i = 0; i < n; i++)
        score[i] = in->scores[i] + (in->noise ? random_gumbel(in->seed, STREAM_DSIR, (uint64_t)rows[i]) : 0.0);
}

static const SelectionMethod methods[] = {
    {"seal", SCORE_FROM_SELECTOR, score_seal, "by the selector's logit"},
    {"random", SCORE_FROM_SEED, score_random, "a uniform share of the rows, by --seed"},
    {"safe-loss", SCORE_FROM_MODEL, score_given, "by the loss under a model, lowest first"},
    {"dsir", SCORE_FROM_TARGET, score_dsir, "by the log importance weight against --target"},
};
enum { N_METHODS = sizeof methods / sizeof *methods };

const SelectionMethod* selection_method(const char* name) {
    char names[128] = "";
    for (int i = 0; i < N_METHODS; i++) {
        if (!strcmp(methods[i].name, name)) return &methods[i];
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "", methods[i].name);
    }
    fatal("--method %s is not known; there are %s", name, names);
}

int64_t selection_score(const SelectionMethod* m, const SelectionInput* in, const int64_t* rows, int64_t n,
                        double* score) {
    if (m->source == SCORE_FROM_SELECTOR && !in->selector) fatal("--method %s needs --selector", m->name);
    if ((m->source == SCORE_FROM_MODEL || m->source == SCORE_FROM_TARGET) && !in->scores)
        program_error("--method %s was given no scores", m->name);
    m->score(in, rows, n, score);
    int64_t without = 0;
    for (int64_t i = 0; i < n; i++) without += score[i] == -INFINITY;
    return without;
}

// ---------------------------------------------------------------------------------------------------
// the top share

typedef struct {
    double score;
    int64_t row, index;
} Ranked;
static int by_score(const void* a, const void* b) {
    const Ranked *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

int64_t selection_order(const double* score, const int64_t* rows, int64_t n, double top, int64_t* order) {
    if (!(top > 0 && top <= 1)) fatal("--top is %g; expected a share of the rows, above 0 and at most 1", top);
    Ranked* ranked = host_alloc((size_t)(n ? n : 1) * sizeof *ranked, "the selection");
    for (int64_t i = 0; i < n; i++) {
        if (isnan(score[i])) fatal("row %lld: its score is not a number", (long long)rows[i]);
        ranked[i] = (Ranked){score[i], rows[i], i};
    }
    qsort(ranked, (size_t)n, sizeof *ranked, by_score);
    for (int64_t i = 0; i < n; i++) order[i] = ranked[i].index;
    free(ranked);
    // 0.29 · 100 is 28.999…96 in binary and 29 to whoever typed it
    int64_t keep = (int64_t)floor(top * (double)n * (1 + 1e-12));
    return keep > n ? n : keep;
}

// ---------------------------------------------------------------------------------------------------
// the kept rows

typedef struct {
    AtomicFile file;
    DataFormat format;
    int64_t written;
    Text header;  // csv: of the first file
} Output;

static DataFormat output_format(const char* out) {
    if (ends_with(out, ".jsonl")) return FORMAT_JSONL;
    if (ends_with(out, ".json")) return FORMAT_JSON;
    if (ends_with(out, ".csv") || ends_with(out, ".tsv")) return FORMAT_CSV;
    fatal("--out %s: a data file ends in .jsonl, .json or .csv (or .tsv)", out);
}

// Whether the file's rows fit the output's format; the first header of a .csv is all files' header.
static void check_input(Output* o, const RecordReader* r, const char* path) {
    size_t n;
    const char* header = records_header(r, &n);
    if ((records_format(r) == FORMAT_CSV) != (o->format == FORMAT_CSV))
        fatal("%s: rows are written unchanged, so a .csv becomes a .csv and the others .jsonl or .json; --out is %s",
              path, o->file.path);
    if (o->format != FORMAT_CSV) return;
    if (!o->header.s) text_add(&o->header, header, n);
    else if (o->header.n != n || memcmp(o->header.s, header, n))
        fatal("%s: its header differs from the first file's; they cannot become one .csv", path);
}

void selection_check_output(const StringList* files, const char* out) {
    Output o = {.format = output_format(out)};
    snprintf(o.file.path, sizeof o.file.path, "%s", out);
    for (int f = 0; f < files->n; f++) {
        RecordReader* r = records_open(files->items[f]);
        check_input(&o, r, files->items[f]);
        records_close(r);
        output_is_not(out, files->items[f]);
    }
    text_free(&o.header);
    output_probe(out);
}

// A record of an array may be laid out over lines; as a line of its own it loses the line ends between its tokens. One
// inside a string (which JSON forbids and parsers take) is part of the text and becomes its escape.
static void write_on_one_line(Output* o, const DataRecord* record) {
    const char *s = record->bytes, *end = s + record->length;
    bool string = false;
    while (s < end) {
        const char* stop = s;
        while (stop < end && *stop != '\n' && *stop != '\r') {
            if (*stop == '"') string = !string;
            else if (string && *stop == '\\' && stop + 1 < end) stop++;
            stop++;
        }
        atomic_write(&o->file, s, (size_t)(stop - s));
        if (stop < end && string) atomic_write(&o->file, *stop == '\n' ? "\\n" : "\\r", 2);
        s = stop < end ? stop + 1 : end;
    }
}

static void write_record(Output* o, const DataRecord* record, DataFormat input) {
    if (o->format == FORMAT_JSON) atomic_printf(&o->file, "%s", o->written ? ",\n" : "\n");
    if (o->format == FORMAT_JSONL && input == FORMAT_JSON) write_on_one_line(o, record);
    else atomic_write(&o->file, record->bytes, record->length);
    if (o->format != FORMAT_JSON) atomic_write(&o->file, record->crlf ? "\r\n" : "\n", 1 + (size_t)record->crlf);
    o->written++;
}

int64_t selection_write(const StringList* files, const uint8_t* keep, int64_t n_rows, const char* out, bool quiet) {
    Output o = {.format = output_format(out)};
    Progress progress;
    int64_t id = 0;
    progress_begin(&progress, "writing", n_rows, quiet);
    atomic_open(&o.file, out);
    if (o.format == FORMAT_JSON) atomic_printf(&o.file, "[");
    for (int f = 0; f < files->n; f++) {
        RecordReader* r = records_open(files->items[f]);
        DataRecord record;
        check_input(&o, r, files->items[f]);
        if (f == 0) atomic_write(&o.file, o.header.s, o.header.n);
        for (; records_next(r, &record); id++) {
            if (id >= n_rows) fatal("%s: has more rows than when they were scored", files->items[f]);
            if (keep[id]) write_record(&o, &record, records_format(r));
            if (id % 1024 == 0) progress_update(&progress, id, "%lld kept", (long long)o.written);
        }
        records_close(r);
    }
    progress_end(&progress);
    if (id != n_rows)
        fatal("%s: has %lld rows but had %lld when they were scored", files->items[0], (long long)id,
              (long long)n_rows);
    if (o.format == FORMAT_JSON) atomic_printf(&o.file, "\n]\n");
    atomic_commit(&o.file);
    text_free(&o.header);
    return o.written;
}

// ---------------------------------------------------------------------------------------------------
// the explanation

// One character of UTF-8 at s: its code point and width; bytes that form none come back as themselves, negative.
static int32_t code_point(const unsigned char* s, size_t n, int* width) {
    int more = s[0] < 0x80                   ? 0
               : s[0] >= 0xC2 && s[0] < 0xE0 ? 1
               : (s[0] & 0xF0) == 0xE0       ? 2
               : s[0] >= 0xF0 && s[0] < 0xF5 ? 3
                                             : -1;
    int32_t c = more > 0 ? s[0] & (0x3F >> more) : s[0];
    *width = 1;
    if (more < 0 || (size_t)more >= n) return more == 0 ? c : -(int32_t)s[0];
    for (int i = 1; i <= more; i++) {
        if ((s[i] & 0xC0) != 0x80) return -(int32_t)s[0];
        c = c << 6 | (s[i] & 0x3F);
    }
    *width = 1 + more;
    return c;
}

int print_excerpt(const char* text, size_t n, int most, FILE* out) {
    const unsigned char* s = (const unsigned char*)text;
    int printed = 0;
    while (n) {
        int width;
        int32_t c = code_point(s, n, &width);
        char escape[16] = "";
        if (c == '\n' || c == '\t' || c == '\r')
            snprintf(escape, sizeof escape, "\\%c", c == '\n' ? 'n' : c == '\t' ? 't' : 'r');
        else if (c < 0) snprintf(escape, sizeof escape, "\\x%02x", (unsigned)-c);
        else if (c < 32 || (c >= 0x7F && c < 0xA0)) snprintf(escape, sizeof escape, "\\x%02x", (unsigned)c);
        // what turns the direction of a line, breaks it, or hides in it
        else if ((c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) ||
                 c == 0xFEFF)
            snprintf(escape, sizeof escape, "\\u%04x", (unsigned)c);
        int columns = *escape ? (int)strlen(escape) : 1;
        bool last = n == (size_t)width;
        if (printed + columns > most - !last) {
            if (printed < most) {
                fputs("…", out);
                printed++;
            }
            break;
        }
        if (*escape) fputs(escape, out);
        else fwrite(s, 1, (size_t)width, out);
        printed += columns;
        s += width;
        n -= (size_t)width;
    }
    return printed;
}

typedef struct {
    int64_t row, place;
    char* text;
    size_t prompt, length;
    char where[320];
} Shown;
static int by_row(const void* a, const void* b) {
    return (((const Shown*)a)->row > ((const Shown*)b)->row) - (((const Shown*)a)->row < ((const Shown*)b)->row);
}
static int by_place(const void* a, const void* b) {
    return (((const Shown*)a)->place > ((const Shown*)b)->place) -
           (((const Shown*)a)->place < ((const Shown*)b)->place);
}

// The texts of the rows shown, in one pass over the files.
static void read_shown(Shown* shown, int n, const StringList* files, const RowOptions* options) {
    RowReader* r = rows_open(files, options);
    DataRow row;
    int k = 0;
    while (k < n && rows_next(r, &row)) {
        if (row.id != shown[k].row) continue;
        Shown* s = &shown[k++];
        s->prompt = row.prompt_length;
        s->length = row.prompt_length + row.response_length;
        s->text = host_alloc(s->length + 1, "the selection");
        memcpy(s->text, row.prompt, row.prompt_length);
        memcpy(s->text + row.prompt_length, row.response, row.response_length);
        if (files->n > 1)
            snprintf(s->where, sizeof s->where, "%.250s:%lld", files->items[row.file], (long long)row.row);
        else snprintf(s->where, sizeof s->where, "%lld", (long long)row.row);
    }
    rows_close(r);
    if (k < n) fatal("%s: has no row %lld; it changed since it was scored", files->items[0], (long long)shown[k].row);
}

void selection_explain(const Explanation* e, const StringList* files, const RowOptions* options, FILE* out) {
    int ends = e->show < 0 ? 0 : e->show > 1000 ? 1000 : e->show, n = 0;
    Shown* shown = host_alloc((2 * (size_t)ends + 1) * sizeof *shown, "the selection");
    for (int64_t place = 0; place < e->n; place++)
        if (place < ends || place >= e->n - ends) shown[n++] = (Shown){.row = e->rows[e->order[place]], .place = place};
    qsort(shown, (size_t)n, sizeof *shown, by_row);
    read_shown(shown, n, files, options);
    qsort(shown, (size_t)n, sizeof *shown, by_place);
    fprintf(out, "%lld of %lld rows are kept\n", (long long)e->kept, (long long)e->n);
    fprintf(out, "%8s %8s  %12s%s%s  prompt → response\n", "rank", "row", "score", e->sigma ? "      weight" : "",
            e->loss ? "        loss" : "");
    for (int i = 0; i < n; i++) {
        const Shown* s = &shown[i];
        int64_t index = e->order[s->place];
        if (i && s->place != shown[i - 1].place + 1) fputs("       …\n", out);
        if (s->place >= e->kept && (i == 0 || shown[i - 1].place < e->kept))
            fprintf(out, "-------- rows from here on are left out\n");
        fprintf(out, "%8lld %8s  %12.6g", (long long)s->place + 1, s->where, e->score[index]);
        if (e->sigma) fprintf(out, " %11.6g", e->sigma[index]);
        if (e->loss && isnan(e->loss[index])) fprintf(out, " %11s", "–");
        else if (e->loss) fprintf(out, " %11.6g", (double)e->loss[index]);
        fputs("  ", out);
        int used = print_excerpt(s->text, s->prompt, 39, out);  // 80 characters of a row at most
        fputs(" → ", out);
        print_excerpt(s->text + s->prompt, s->length - s->prompt, 77 - used, out);
        fputc('\n', out);
        free(s->text);
    }
    free(shown);
}
