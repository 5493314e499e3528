/* One page about rows. See rows_page.h. */
#include <cjson/cJSON.h>
#include <float.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "commands/chart.h"
#include "commands/row_labels.h"
#include "commands/rows_page.h"
#include "commands/scores.h"
#include "commands/selector_file.h"
#include "commands/token_mask.h"
#include "rows/dataset.h"

#define MOST_SIDES 2  // score files, and files of losses

// What a row that is shown has besides its numbers.
typedef struct {
    int64_t index;  // of the page's rows
    char *prompt, *answer;
    char where[320];
    int n_tokens;
    char** tokens;              // (n_tokens) the text that each completes
    float* losses[MOST_SIDES];  // (n_tokens) NULL: not given
    const uint8_t* keep;        // (n_tokens) of the mask; NULL: none
} ShownRow;

typedef struct {
    const EvalOptions* o;
    SelectorFile files[MOST_SIDES];
    int64_t n;                   // rows of the first file: the page's
    double* score[MOST_SIDES];   // (n) −∞: never kept; NaN: the second file does not have the row
    int64_t* order[MOST_SIDES];  // indices by falling score, those that have one
    int64_t ordered[MOST_SIDES], kept[MOST_SIDES];
    int64_t only_second;  // rows that the first file does not have
    float* loss[MOST_SIDES];
    RowLabels labels;
    TokenMask mask;
    ShownRow* shown;
    int64_t n_shown, unmasked;  // unmasked: shown rows that the mask does not have
    uint8_t* is_shown;          // (n)
} RowsPage;

// ---------------------------------------------------------------------------------------------------
// scores

static int64_t find_row(const SelectorFile* f, int64_t row) {
    int64_t low = 0, high = f->n;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (f->rows[middle] < row) low = middle + 1;
        else high = middle;
    }
    return low < f->n && f->rows[low] == row ? low : -1;
}

// The ids of the usable rows, the number of records and the digest, for a file that knows neither.
static int64_t* usable_rows(const EvalOptions* o, const RowOptions* options, int64_t* n, int64_t* n_rows, Hex digest) {
    RowReader* reader = rows_open(&o->data, options);
    DataRow row;
    int64_t* rows = NULL;
    int64_t most = 0;
    *n = *n_rows = 0;
    while (rows_next(reader, &row)) {
        ++*n_rows;
        if (row.state != ROW_OK) continue;
        if (*n == most) {
            most = most ? 2 * most : 1024;
            rows = host_resize(rows, (size_t)most * sizeof *rows, "rows");
        }
        rows[(*n)++] = row.id;
    }
    rows_digest(reader, digest);
    rows_close(reader);
    if (!*n) fatal("%s: no row has a prompt and a response", o->data.items[0]);
    return rows;
}

static void read_scores(RowsPage* p, const RowOptions* options) {
    const EvalOptions* o = p->o;
    Hex digest;
    int64_t n_usable, n_rows, *usable = usable_rows(o, options, &n_usable, &n_rows, digest);
    for (int k = 0; k < o->rows.n; k++) {
        selector_file_read(&p->files[k], o->rows.items[k]);
        selector_file_check(&p->files[k], &o->data, digest, n_rows, usable, n_usable);
    }
    free(usable);
    p->n = p->files[0].n;
    for (int k = 0; k < o->rows.n; k++) {
        const SelectorFile* f = &p->files[k];
        int64_t found = 0;
        p->score[k] = host_alloc((size_t)p->n * sizeof(double), "rows");
        for (int64_t i = 0; i < p->n; i++) {
            int64_t at = k ? find_row(f, p->files[0].rows[i]) : i;
            found += at >= 0;
            if (at >= 0 && isnan(f->logits[at]))
                fatal("%s: row %lld: its score is not a number", o->rows.items[k], (long long)p->files[0].rows[i]);
            // select --scores writes what is never kept as the lowest number there is
            p->score[k][i] = at < 0 ? NAN : f->logits[at] == -FLT_MAX ? -INFINITY : (double)f->logits[at];
        }
        if (k) p->only_second = f->n - found;
        if (!found) fatal("%s and %s have no row in common", o->rows.items[0], o->rows.items[k]);
        // The order and the cut, as select makes them, of the rows that have a score.
        double* have = host_alloc((size_t)p->n * sizeof *have, "rows");
        int64_t* rows = host_alloc((size_t)p->n * sizeof *rows, "rows");
        int64_t* of = host_alloc((size_t)p->n * sizeof *of, "rows");
        int64_t m = 0, never = 0;
        for (int64_t i = 0; i < p->n; i++)
            if (!isnan(p->score[k][i])) {
                have[m] = p->score[k][i];
                never += have[m] == -INFINITY;
                rows[m] = p->files[0].rows[i];
                of[m++] = i;
            }
        p->order[k] = host_alloc((size_t)p->n * sizeof(int64_t), "rows");
        p->kept[k] = score_order(have, rows, m, o->top, p->order[k]);
        if (p->kept[k] > m - never) p->kept[k] = m - never;
        p->ordered[k] = m;
        for (int64_t i = 0; i < m; i++) p->order[k][i] = of[p->order[k][i]];
        free(have);
        free(rows);
        free(of);
    }
}

// ---------------------------------------------------------------------------------------------------
// which rows are shown

static void show(RowsPage* p, int64_t index) {
    if (p->is_shown[index]) return;
    p->is_shown[index] = 1;
    p->n_shown++;
}

typedef struct {
    double difference;
    int64_t index;
} Apart;
static int by_difference(const void* a, const void* b) {
    const Apart *x = a, *y = b;
    if (x->difference != y->difference) return x->difference > y->difference ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static void show_apart(RowsPage* p) {
    int64_t *place = host_alloc((size_t)p->n * sizeof *place, "rows"), m = p->ordered[1];
    Apart* apart = host_alloc((size_t)(m ? m : 1) * sizeof *apart, "rows");
    for (int64_t i = 0; i < p->n; i++) place[p->order[0][i]] = i;
    for (int64_t i = 0; i < m; i++) apart[i] = (Apart){(double)(place[p->order[1][i]] - i), p->order[1][i]};
    qsort(apart, (size_t)m, sizeof *apart, by_difference);
    for (int64_t i = 0; i < m; i++)
        if (i < p->o->show || i >= m - p->o->show) show(p, apart[i].index);
    free(place);
    free(apart);
}

static void choose_shown(RowsPage* p) {
    const int64_t N = p->o->show;
    p->is_shown = host_alloc((size_t)p->n, "rows");
    for (int k = 0; k < p->o->rows.n; k++)
        for (int64_t i = 0; i < p->ordered[k]; i++)
            if (i < N || i >= p->ordered[k] - N || (i >= p->kept[k] - N && i < p->kept[k] + N)) show(p, p->order[k][i]);
    if (p->o->rows.n > 1) show_apart(p);
    p->shown = host_alloc((size_t)(p->n_shown + 1) * sizeof *p->shown, "rows");
    int64_t at = 0;
    for (int64_t i = 0; i < p->n; i++)
        if (p->is_shown[i]) p->shown[at++].index = i;
}

// Their texts, in one pass over the files.
static void read_texts(RowsPage* p, const RowOptions* options) {
    const EvalOptions* o = p->o;
    RowReader* reader = rows_open(&o->data, options);
    DataRow row;
    int64_t k = 0;
    while (k < p->n_shown && rows_next(reader, &row)) {
        ShownRow* s = &p->shown[k];
        if (row.id != p->files[0].rows[s->index]) continue;
        s->prompt = host_copy(row.prompt, row.prompt_length);
        s->answer = host_copy(row.response, row.response_length);
        snprintf(s->where, sizeof s->where, "%.250s:%lld", o->data.items[row.file], (long long)row.line);
        k++;
    }
    rows_close(reader);
    if (k < p->n_shown)
        fatal("%s has no row %lld; it changed since it was scored", o->data.items[0],
              (long long)p->files[0].rows[p->shown[k].index]);
}

// ---------------------------------------------------------------------------------------------------
// losses, labels, the mask

static ShownRow* shown_of(RowsPage* p, int64_t index) {
    int64_t low = 0, high = p->n_shown;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (p->shown[middle].index < index) low = middle + 1;
        else high = middle;
    }
    return low < p->n_shown && p->shown[low].index == index ? &p->shown[low] : NULL;
}

static void take_tokens(RowsPage* p, ShownRow* s, int side, const cJSON* object, const DataRecord* record) {
    const char* path = p->o->losses.items[side];
    const cJSON *tokens = cJSON_GetObjectItemCaseSensitive(object, "tokens"),
                *losses = cJSON_GetObjectItemCaseSensitive(object, "token_losses"), *item;
    if (!tokens && !losses) return;
    int n = cJSON_GetArraySize(tokens), i = 0;
    if (!cJSON_IsArray(tokens) || !cJSON_IsArray(losses) || cJSON_GetArraySize(losses) != n)
        fatal("%s:%lld: \"tokens\" and \"token_losses\" are not lists of one length", path, (long long)record->line);
    bool first = !s->tokens;
    if (first) {
        s->tokens = host_alloc((size_t)(n ? n : 1) * sizeof *s->tokens, "tokens");
        s->n_tokens = n;
    } else if (s->n_tokens != n)
        fatal("%s:%lld: the row has %d tokens but %d in %s; both models must read it by one tokenizer and template",
              path, (long long)record->line, n, s->n_tokens, p->o->losses.items[0]);
    cJSON_ArrayForEach(item, tokens) {
        if (!cJSON_IsString(item)) fatal("%s:%lld: token %d is not a text", path, (long long)record->line, i);
        if (first) s->tokens[i] = host_copy(item->valuestring, strlen(item->valuestring));
        else if (strcmp(s->tokens[i], item->valuestring))
            fatal("%s:%lld: token %d differs from that of %s; both models must read rows by one tokenizer and template",
                  path, (long long)record->line, i, p->o->losses.items[0]);
        i++;
    }
    s->losses[side] = host_alloc((size_t)(n ? n : 1) * sizeof(float), "tokens");
    i = 0;
    cJSON_ArrayForEach(item, losses) {
        if (!cJSON_IsNumber(item)) fatal("%s:%lld: token_losses[%d] is not a number", path, (long long)record->line, i);
        s->losses[side][i++] = (float)item->valuedouble;
    }
}

static void read_losses(RowsPage* p, int side) {
    const char* path = p->o->losses.items[side];
    const SelectorFile* f = &p->files[0];
    char why[160];
    int64_t found = 0;
    DataRecord record;
    p->loss[side] = host_alloc((size_t)p->n * sizeof(float), "rows");
    for (int64_t i = 0; i < p->n; i++) p->loss[side][i] = NAN;
    RecordReader* reader = records_open(path);
    while (records_next(reader, &record)) {
        cJSON* object = record.broken ? NULL : json_parse(record.bytes, record.length, why, sizeof why);
        const cJSON *row = cJSON_GetObjectItemCaseSensitive(object, "row"),
                    *loss = cJSON_GetObjectItemCaseSensitive(object, "loss");
        if (!cJSON_IsNumber(row) || !cJSON_IsNumber(loss) || row->valuedouble != floor(row->valuedouble))
            fatal("%s:%lld: not a row's loss; expected {\"row\":0,\"loss\":1.5}, as loss --out writes it", path,
                  (long long)record.line);
        if (!(row->valuedouble >= 0 && row->valuedouble < (double)f->n_rows) && f->n_rows)
            fatal("%s:%lld: row %.0f is not one of --data, which has %lld", path, (long long)record.line,
                  row->valuedouble, (long long)f->n_rows);
        int64_t at = row->valuedouble < 9e15 ? find_row(f, (int64_t)row->valuedouble) : -1;
        if (at >= 0) {
            if (!isnan(p->loss[side][at]))
                fatal("%s:%lld: row %.0f is a duplicate", path, (long long)record.line, row->valuedouble);
            p->loss[side][at] = (float)loss->valuedouble;
            found++;
            ShownRow* s = shown_of(p, at);
            if (s) take_tokens(p, s, side, object, &record);
        }
        cJSON_Delete(object);
    }
    records_close(reader);
    if (!found) fatal("%s has none of the rows that %s scores", path, p->o->rows.items[0]);
}

typedef struct {
    uint64_t hash;
    int64_t at;
} Hashed;
static int by_hash(const void* a, const void* b) {
    const Hashed *x = a, *y = b;
    if (x->hash != y->hash) return x->hash < y->hash ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

// The mask is of the rows that were kept, numbered anew: its rows are found by their texts.
static void read_mask(RowsPage* p) {
    const char* path = p->o->token_mask;
    TokenMask* m = &p->mask;
    bool any = false;
    for (int64_t i = 0; i < p->n && !any; i++) any = p->files[0].hashes && p->files[0].hashes[i];
    if (!any)
        fatal("%s does not say which texts its rows have; --token-mask needs a file of select --scores",
              p->o->rows.items[0]);
    token_mask_read(m, path);
    Hashed* hashed = host_alloc((size_t)(m->n ? m->n : 1) * sizeof *hashed, "a mask of tokens");
    for (int64_t i = 0; i < m->n; i++) hashed[i] = (Hashed){m->hashes[i], i};
    qsort(hashed, (size_t)m->n, sizeof *hashed, by_hash);
    int64_t found = 0;
    for (int64_t k = 0; k < p->n_shown; k++) {
        ShownRow* s = &p->shown[k];
        uint64_t hash = p->files[0].hashes[s->index];
        int64_t low = 0, high = m->n;
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (hashed[middle].hash < hash) low = middle + 1;
            else high = middle;
        }
        if (low == m->n || hashed[low].hash != hash) {
            p->unmasked++;
            continue;
        }
        found++;
        int64_t at = hashed[low].at, count = m->start[at + 1] - m->start[at];
        if (!s->tokens)
            fatal("%s: row %lld has no tokens; --token-mask needs the losses of loss --each-token",
                  p->o->losses.items[0], (long long)p->files[0].rows[s->index]);
        if (count != s->n_tokens)
            fatal(
                "%s: row %lld has %lld tokens that carry loss but %d in %s; both must be of one tokenizer and template",
                path, (long long)p->files[0].rows[s->index], (long long)count, s->n_tokens, p->o->losses.items[0]);
        s->keep = m->keep + m->start[at];
    }
    if (p->n_shown && !found) fatal("%s has none of the rows that are shown; it was made for other rows", path);
    free(hashed);
}

// ---------------------------------------------------------------------------------------------------
// the page

// A string of JSON that is harmless inside a script element, whatever it holds: no < or >, no line end that is one to
// a script.
static void put_string(Text* out, const char* text) {
    Text clean = {0};
    text_add_utf8(&clean, text, strlen(text));
    text_add(out, "\"", 1);
    for (const unsigned char* s = (const unsigned char*)clean.s; s && *s; s++) {
        if (*s == '"' || *s == '\\') text_printf(out, "\\%c", *s);
        else if (*s < 32 || *s == 127 || *s == '<' || *s == '>' || *s == '&') text_printf(out, "\\u%04x", *s);
        else if (s[0] == 0xE2 && s[1] == 0x80 && (s[2] == 0xA8 || s[2] == 0xA9)) {
            text_printf(out, "\\u20%02x", 0x28 + s[2] - 0xA8);
            s += 2;
        } else text_add(out, s, 1);
    }
    text_add(out, "\"", 1);
    text_free(&clean);
}

static void put_value(Text* out, double x, int digits) {
    if (isfinite(x)) text_printf(out, "%.*g", digits, x);
    else text_add(out, "null", 4);
}

static void put_shown(Text* out, const RowsPage* p, const ShownRow* s) {
    text_printf(out, "\"%lld\":{\"where\":", (long long)s->index);
    put_string(out, s->where);
    text_printf(out, ",\"prompt\":");
    put_string(out, s->prompt);
    text_printf(out, ",\"answer\":");
    put_string(out, s->answer);
    if (s->tokens) {
        text_printf(out, ",\"tokens\":[");
        for (int i = 0; i < s->n_tokens; i++) {
            if (i) text_add(out, ",", 1);
            put_string(out, s->tokens[i]);
        }
        text_printf(out, "],\"losses\":[");
        for (int k = 0; k < p->o->losses.n; k++) {
            text_printf(out, k ? ",[" : "[");
            for (int i = 0; s->losses[k] && i < s->n_tokens; i++) {
                if (i) text_add(out, ",", 1);
                put_value(out, s->losses[k][i], 4);
            }
            text_add(out, "]", 1);
        }
        text_add(out, "]", 1);
    }
    if (s->keep) {
        text_printf(out, ",\"keep\":[");
        for (int i = 0; i < s->n_tokens; i++) text_printf(out, i ? ",%d" : "%d", s->keep[i] != 0);
        text_add(out, "]", 1);
    }
    text_add(out, "}", 1);
}

static void put_names(Text* out, const char* field, const StringList* names) {
    text_printf(out, ",\"%s\":[", field);
    for (int k = 0; k < names->n; k++) {
        if (k) text_add(out, ",", 1);
        put_string(out, names->items[k]);
    }
    text_add(out, "]", 1);
}

static void put_data(Text* out, const RowsPage* p) {
    const EvalOptions* o = p->o;
    text_printf(out, "{\"n\":%lld,\"top\":%.9g,\"show\":%lld,\"onlySecond\":%lld,\"mask\":%s", (long long)p->n, o->top,
                (long long)o->show, (long long)p->only_second, o->token_mask ? "true" : "false");
    put_names(out, "scoreNames", &o->rows);
    put_names(out, "lossNames", &o->losses);
    text_printf(out, ",\"methods\":[");
    for (int k = 0; k < o->rows.n; k++) {
        if (k) text_add(out, ",", 1);
        put_string(out, p->files[k].algorithm);
    }
    text_printf(out, "],\"kept\":[");
    for (int k = 0; k < o->rows.n; k++) text_printf(out, k ? ",%lld" : "%lld", (long long)p->kept[k]);
    text_printf(out, "],\"row\":[");
    for (int64_t i = 0; i < p->n; i++) text_printf(out, i ? ",%lld" : "%lld", (long long)p->files[0].rows[i]);
    // the order: ranks follow from it, whatever a browser makes of numbers
    text_printf(out, "],\"order\":[");
    for (int k = 0; k < o->rows.n; k++) {
        text_printf(out, k ? ",[" : "[");
        for (int64_t i = 0; i < p->ordered[k]; i++) text_printf(out, i ? ",%lld" : "%lld", (long long)p->order[k][i]);
        text_add(out, "]", 1);
    }
    text_printf(out, "],\"score\":[");
    for (int k = 0; k < o->rows.n; k++) {
        text_printf(out, k ? ",[" : "[");
        for (int64_t i = 0; i < p->n; i++) {
            if (i) text_add(out, ",", 1);
            put_value(out, p->score[k][i], 7);
        }
        text_add(out, "]", 1);
    }
    text_printf(out, "],\"loss\":[");
    for (int k = 0; k < o->losses.n; k++) {
        text_printf(out, k ? ",[" : "[");
        for (int64_t i = 0; i < p->n; i++) {
            if (i) text_add(out, ",", 1);
            put_value(out, (double)p->loss[k][i], 5);
        }
        text_add(out, "]", 1);
    }
    text_printf(out, "],\"labels\":[");
    for (int l = 0; l < p->labels.n; l++) {
        text_printf(out, l ? ",{\"name\":" : "{\"name\":");
        put_string(out, p->labels.names[l]);
        text_printf(out, ",\"colour\":\"%s\"}", row_label_colour(l));
    }
    text_printf(out, "],\"label\":[");
    for (int64_t i = 0; i < p->n && p->labels.n; i++) {
        int64_t row = p->files[0].rows[i];
        text_printf(out, i ? ",%d" : "%d", row < p->labels.n_rows ? p->labels.of_row[row] : -1);
    }
    text_printf(out, "],\"text\":{");
    for (int64_t k = 0; k < p->n_shown; k++) {
        text_printf(out, k ? ",\n" : "\n");
        put_shown(out, p, &p->shown[k]);
    }
    text_printf(out, "}}");
}

// The only script that the page may run, by its digest, for the page's own policy.
static void put_script_digest(Text* out, const char* page) {
    const char *begin = strstr(page, "<script>"), *end = begin ? strstr(begin, "</script>") : NULL;
    unsigned char digest[EVP_MAX_MD_SIZE], text[2 * EVP_MAX_MD_SIZE];
    unsigned int n;
    if (!end) program_error("data/rows_page.html has no script");
    begin += strlen("<script>");
    if (!EVP_Digest(begin, (size_t)(end - begin), digest, &n, EVP_sha256(), NULL)) program_error("SHA-256 failed");
    text_add(out, text, (size_t)EVP_EncodeBlock(text, digest, (int)n));
}

// The template with what it names in its place. What is put in is not looked through.
static void put_page(Text* out, const RowsPage* p) {
    size_t length;
    const char* path = beside_program("data/rows_page.html");
    char* page = file_read(path, 1 << 20, &length);
    const char *at = page, *mark;
    static const char open[] = "{{", close[] = "}}";
    while ((mark = strstr(at, open))) {
        const char* end = strstr(mark, close);
        size_t n = end ? (size_t)(end - mark) - 2 : 0;
        text_add(out, at, (size_t)(mark - at));
        if (n == 5 && !strncmp(mark + 2, "title", n)) text_escaped(out, p->o->title);
        else if (n == 6 && !strncmp(mark + 2, "script", n)) put_script_digest(out, page);
        else if (n == 4 && !strncmp(mark + 2, "data", n)) put_data(out, p);
        else fatal("%s has %.20s, which is not a placeholder of this page", path, mark);
        at = end + 2;
    }
    text_add(out, at, strlen(at));
    free(page);
}

static void check_options(const EvalOptions* o) {
    if (o->rows.n > MOST_SIDES) fatal("report: --rows is given %d times; expected one or two files", o->rows.n);
    if (o->losses.n > MOST_SIDES) fatal("report: --losses is given %d times; expected one or two files", o->losses.n);
    if (!o->data.n) fatal("report: --rows needs --data, the rows that were scored");
    const StringList* const lists[] = {&o->rows, &o->data, &o->losses};
    for (size_t k = 0; k < sizeof lists / sizeof *lists; k++)
        for (int i = 0; i < lists[k]->n; i++) output_is_not(o->out, lists[k]->items[i]);
    output_is_not(o->out, o->labels);
    output_is_not(o->out, o->token_mask);
    output_probe(o->out);
}

void rows_page(const EvalOptions* o) {
    RowsPage p = {.o = o};
    const RowOptions options = {.prompt_field = o->prompt_field, .response_field = o->response_field};
    check_options(o);
    read_scores(&p, &options);
    if (o->labels) p.labels = row_labels_read(o->labels);
    choose_shown(&p);
    read_texts(&p, &options);
    for (int k = 0; k < o->losses.n; k++) read_losses(&p, k);
    if (o->token_mask) read_mask(&p);
    Text page = {0};
    put_page(&page, &p);
    file_write(o->out, page.s, page.n);
    if (!o->quiet) {
        printf("wrote %s (%zu KiB): %lld rows, %lld of them with their texts", o->out, page.n >> 10, (long long)p.n,
               (long long)p.n_shown);
        if (p.only_second)
            printf("; %lld rows of %s are left out, which %s does not have", (long long)p.only_second, o->rows.items[1],
                   o->rows.items[0]);
        if (p.unmasked) printf("; %lld of these are not in the mask", (long long)p.unmasked);
        putchar('\n');
    }
    text_free(&page);
    for (int64_t k = 0; k < p.n_shown; k++) {
        ShownRow* s = &p.shown[k];
        for (int i = 0; s->tokens && i < s->n_tokens; i++) free(s->tokens[i]);
        free(s->tokens);
        free(s->losses[0]);
        free(s->losses[1]);
        free(s->prompt);
        free(s->answer);
    }
    for (int k = 0; k < MOST_SIDES; k++) {
        if (k < o->rows.n) selector_file_free(&p.files[k]);
        free(p.score[k]);
        free(p.order[k]);
        free(p.loss[k]);
    }
    if (o->token_mask) token_mask_free(&p.mask);
    row_labels_free(&p.labels);
    free(p.shown);
    free(p.is_shown);
}
