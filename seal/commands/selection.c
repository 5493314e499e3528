/* See selection.h. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "base/log.h"
#include "commands/selection.h"
#include "rows/records.h"

static bool ends_with(const char* text, const char* end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
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

void kept_check_output(const StringList* files, const char* out) {
    Output o = {.format = output_format(out)};
    path_copy(o.file.path, out);
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

int64_t kept_write(const StringList* files, const uint8_t* keep, int64_t n_rows, const char* digest, const char* out,
                   bool quiet) {
    Output o = {.format = output_format(out)};
    char* digests = host_alloc((size_t)files->n * 64 + 1, "digests");
    Hex now;
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
            if (id >= n_rows) fatal("%s has more rows than when it was scored", files->items[f]);
            if (keep[id]) write_record(&o, &record, records_format(r));
            if (id % 1024 == 0) progress_update(&progress, id, "%lld kept", (long long)o.written);
        }
        records_digest(r, now);
        memcpy(digests + 64 * (size_t)f, now, 64);
        records_close(r);
    }
    progress_end(&progress);
    if (id != n_rows)
        fatal("%s has %lld rows but had %lld when it was scored", files->items[0], (long long)id, (long long)n_rows);
    join_digests(digests, files->n, now);
    if (digest && strcmp(now, digest))
        fatal("%s is another file than when it was scored: its bytes differ", files->items[0]);
    free(digests);
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
    if (k < n) fatal("%s has no row %lld; it changed since it was scored", files->items[0], (long long)shown[k].row);
}

void kept_explain(const Explanation* e, const StringList* files, const RowOptions* options, FILE* out) {
    int ends = e->show < 0 ? 0 : e->show > 1000 ? 1000 : e->show, n = 0;
    Shown* shown = host_alloc((2 * (size_t)ends + 1) * sizeof *shown, "the selection");
    for (int64_t place = 0; place < e->n; place++)
        if (place < ends || place >= e->n - ends) shown[n++] = (Shown){.row = e->rows[e->order[place]], .place = place};
    qsort(shown, (size_t)n, sizeof *shown, by_row);
    read_shown(shown, n, files, options);
    qsort(shown, (size_t)n, sizeof *shown, by_place);
    fprintf(out, "%lld of %lld rows are kept\n", (long long)e->kept, (long long)e->n);
    fprintf(out, "%8s %8s  %12s%s%s", "rank", "row", "score", e->sigma ? "      weight" : "",
            e->loss ? "        loss" : "");
    for (int k = 0; k < e->n_more; k++) fprintf(out, " %11s", e->more[k].name);
    fputs("  prompt → response\n", out);
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
        for (int k = 0; k < e->n_more; k++) fprintf(out, " %11.6g", (double)e->more[k].value[index]);
        fputs("  ", out);
        int used = print_excerpt(s->text, s->prompt, 39, out);  // 80 characters of a row at most
        fputs(" → ", out);
        print_excerpt(s->text + s->prompt, s->length - s->prompt, 77 - used, out);
        fputc('\n', out);
        free(s->text);
    }
    free(shown);
}
