/* Records to rows: parsing, texts, and the report of what became of the rows. See dataset.h. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cjson/cJSON.h>
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "rows/layouts.h"
#include "rows/records.h"

// Length of the character that bytes begin with, or minus the length of what is none: a proper beginning goes as one
// (Unicode, table 3-7).
static int utf8_width(const unsigned char* u, size_t n) {
    if (u[0] < 0x80) return u[0] ? 1 : -1;
    int width = u[0] >= 0xF0 ? 4 : u[0] >= 0xE0 ? 3 : 2, k = 1;
    if (u[0] < 0xC2 || u[0] > 0xF4) return -1;
    unsigned char low = u[0] == 0xE0   ? 0xA0
                        : u[0] == 0xF0 ? 0x90
                                       : 0x80,
                  high = u[0] == 0xED   ? 0x9F
                         : u[0] == 0xF4 ? 0x8F
                                        : 0xBF;
    for (; k < width && (size_t)k < n && u[k] >= low && u[k] <= high; k++) low = 0x80, high = 0xBF;
    return k == width ? width : -k;
}

void text_add_utf8(Text* t, const char* bytes, size_t n) {
    text_add(t, "", 0);
    for (size_t i = 0; i < n;) {
        int width = utf8_width((const unsigned char*)bytes + i, n - i);
        text_add(t, width > 0 ? bytes + i : "\xEF\xBF\xBD", width > 0 ? (size_t)width : 3);
        i += (size_t)abs(width);
    }
}

// ---------------------------------------------------------------------------------------------------
// rows of several files

struct RowReader {
    const StringList* files;
    RowOptions options;
    RecordReader* records;
    int file;
    int64_t rows_before;  // of the files before this one
    int64_t disk_before, disk_total;
    Text prompt, response, field;
    bool zeros;  // the record has zero characters, as mark_zeros has them
    Conversation conversation;
    RowReport seen;  // notes, unread, layouts
    char* digests;   // [files][64]
};

RowReader* rows_open(const StringList* files, const RowOptions* options) {
    row_options_check(options);
    RowReader* r = host_alloc(sizeof *r, "a reader");
    r->digests = host_alloc((size_t)files->n * 64 + 1, "digests");
    r->files = files;
    r->options = *options;
    for (int f = 0; f < files->n; f++) {  // a missing file is found before an hour of reading the others
        struct stat info;
        records_check_name(files->items[f]);
        if (stat(files->items[f], &info)) fatal("%s cannot be read: %s", files->items[f], strerror(errno));
        r->disk_total += info.st_size;
    }
    return r;
}

static bool valid_utf8(const unsigned char* s, size_t n) {
    for (size_t i = 0; i < n;) {
        unsigned char c = s[i];
        int more = c < 0x80 ? 0 : c >= 0xC2 && c < 0xE0 ? 1 : (c & 0xF0) == 0xE0 ? 2 : c >= 0xF0 && c < 0xF5 ? 3 : -1;
        if (more < 0 || i + (size_t)more >= n) return false;
        for (int k = 1; k <= more; k++)
            if ((s[i + (size_t)k] & 0xC0) != 0x80) return false;
        // overlong forms, surrogates, beyond U+10FFFF
        if ((c == 0xE0 && s[i + 1] < 0xA0) || (c == 0xED && s[i + 1] > 0x9F) || (c == 0xF0 && s[i + 1] < 0x90) ||
            (c == 0xF4 && s[i + 1] > 0x8F))
            return false;
        i += 1 + (size_t)more;
    }
    return true;
}

// cJSON's strings end at a zero: a \u0000 would cut a text silently. It becomes a character that Unicode keeps free for
// such uses, so that it can be looked for in what is read of a record, and does no harm elsewhere. False: there is
// none.
#define ZERO_ESCAPE "\\ufdd0"
#define ZERO_BYTES "\xEF\xB7\x90"
static bool mark_zeros(const char* s, size_t n, Text* out) {
    bool any = false;
    for (size_t i = 0; i + 5 < n; i++) {
        if (s[i] != '\\') continue;
        if (!memcmp(s + i + 1, "u0000", 5)) {
            if (!any) {
                out->n = 0;
                text_add(out, s, n);
            }
            memcpy(out->s + i, ZERO_ESCAPE, 6);
            any = true;
        }
        i++;
    }
    return any;
}
static bool holds_mark(const cJSON* value) {
    const cJSON* item;
    if (cJSON_IsString(value)) return strstr(value->valuestring, ZERO_BYTES) != NULL;
    cJSON_ArrayForEach(item, value) if (holds_mark(item)) return true;
    return false;
}
// Whether a zero is in anything that is trained on or handed to a template.
static bool reads_zero(const Conversation* c) {
    for (int i = 0; i < c->n; i++)
        if (strstr(c->messages[i].content, ZERO_BYTES) || holds_mark(c->messages[i].fields)) return true;
    return holds_mark(c->tools) || holds_mark(c->variables);
}

static cJSON* parse_csv(RowReader* r, const DataRecord* record, char* why, size_t size) {
    size_t header_length, h = 0, f = 0;
    const char* header = records_header(r->records, &header_length);
    while (header_length && (header[header_length - 1] == '\n' || header[header_length - 1] == '\r')) header_length--;
    cJSON* object = cJSON_CreateObject();
    Text name = {0};
    int names = 0, values = 0;
    while (csv_field(r->records, header, header_length, &h, &name)) {
        names++;
        if (csv_field(r->records, record->bytes, record->length, &f, &r->field)) {
            char* s = name.s;
            while (name.n && is_space((unsigned char)s[name.n - 1])) s[--name.n] = 0;
            while (is_space((unsigned char)*s)) s++;
            values++;
            cJSON_AddStringToObject(object, s, r->field.s);
        }
    }
    while (csv_field(r->records, record->bytes, record->length, &f, &r->field)) values++;
    text_free(&name);
    if (values != names)
        snprintf(why, size, "has %d field%s but the header names %d%s", values, values == 1 ? "" : "s", names,
                 values > names ? "; a text with the delimiter in it needs quotes" : "");
    return object;
}

// ---------------------------------------------------------------------------------------------------
// JSON as people have it

// Four hexadecimal digits; −1: none.
static int hex4(const char* s, const char* end) {
    int value = 0;
    if (end - s < 4) return -1;
    for (int i = 0; i < 4; i++) {
        char c = s[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

// Outside strings NaN becomes null and Infinity a number too large for any; inside them half a surrogate pair becomes
// U+FFFD. False where there was nothing of the kind.
static bool make_strict(const char* s, size_t n, Text* out) {
    const char *end = s + n, *from = s;
    bool string = false, changed = false;
    for (; s < end; s++) {
        const char* put = NULL;
        size_t width = 0;
        if (string && *s == '\\') {
            int c = s + 1 < end && s[1] == 'u' ? hex4(s + 2, end) : -1;
            bool high = c >= 0xD800 && c < 0xDC00, low = c >= 0xDC00 && c < 0xE000;
            int next = high && s + 7 < end && s[6] == '\\' && s[7] == 'u' ? hex4(s + 8, end) : -1;
            if (high && next >= 0xDC00 && next < 0xE000) s += 11;
            else if (high || low) put = "\\ufffd", width = 6;
            else s++;
        } else if (*s == '"') string = !string;
        else if (!string && end - s >= 3 && !memcmp(s, "NaN", 3)) put = "null", width = 3;
        else if (!string && end - s >= 8 && !memcmp(s, "Infinity", 8)) put = "1e999", width = 8;
        if (!put) continue;
        text_add(out, from, (size_t)(s - from));
        text_add(out, put, strlen(put));
        changed = true;
        from = s + width;
        s = from - 1;
    }
    if (from < end) text_add(out, from, (size_t)(end - from));
    return changed;
}

// Puts the digits of every number beside it. Numbers of the text and of the tree come in the same order.
static const char* add_digits(cJSON* value, const char* s, const char* end) {
    for (; value; value = value->next) {
        if (cJSON_IsNumber(value)) {
            for (bool string = false; s < end && (string || !strchr("-0123456789", *s)); s++) {
                if (string && *s == '\\') s++;
                else if (*s == '"') string = !string;
            }
            const char* from = s;
            while (s < end && strchr("+-.0123456789eE", *s)) s++;
            if (!isfinite(value->valuedouble)) continue;
            value->valuestring = host_copy(from, (size_t)(s - from));
        } else if (value->child) s = add_digits(value->child, s, end);
    }
    return s;
}
static bool holds_number(const cJSON* value) {
    for (; value; value = value->next)
        if (cJSON_IsNumber(value) || (value->child && holds_number(value->child))) return true;
    return false;
}

cJSON* json_parse(const char* bytes, size_t n, char* why, size_t size) {
    const char *end = NULL, *s = bytes;
    Text strict = {0};
    *why = 0;
    cJSON* value = cJSON_ParseWithLengthOpts(bytes, n, &end, 0);
    size_t bad = end ? (size_t)(end - bytes) : 0;
    if (!value && make_strict(bytes, n, &strict)) {
        s = strict.s;
        n = strict.n;
        value = cJSON_ParseWithLengthOpts(s, n, &end, 0);
    }
    if (!value) snprintf(why, size, "is not JSON at byte %zu of the row", bad);
    else {
        while (end < s + n && is_space((unsigned char)*end)) end++;
        if (end != s + n) snprintf(why, size, "has text after the record at byte %zu", (size_t)(end - s));
        else if (holds_number(value)) add_digits(value, s, s + n);
    }
    text_free(&strict);
    if (*why) {
        cJSON_Delete(value);
        value = NULL;
    }
    return value;
}

// ---------------------------------------------------------------------------------------------------

static cJSON* parse_record(RowReader* r, const DataRecord* record, char* why, size_t size) {
    *why = 0;
    r->zeros = false;
    if (!valid_utf8((const unsigned char*)record->bytes, record->length)) snprintf(why, size, "is not UTF-8");
    else if (memchr(record->bytes, 0, record->length)) snprintf(why, size, "holds a zero character");
    else if (record->broken) snprintf(why, size, "%s", record->broken);
    if (*why) return NULL;
    if (records_format(r->records) == FORMAT_CSV) return parse_csv(r, record, why, size);
    r->zeros = mark_zeros(record->bytes, record->length, &r->field);
    cJSON* value = json_parse(r->zeros ? r->field.s : record->bytes, record->length, why, size);
    if (holds_turns(value)) {  // a row that is a list of turns and nothing else
        cJSON* record = cJSON_CreateObject();
        cJSON_AddItemToObject(record, "messages", value);
        value = record;
    }
    if (value && !cJSON_IsObject(value)) snprintf(why, size, "is not an object with named fields");
    return value;
}

static void begin_file(RowReader* r) {
    const char* path = r->files->items[r->file];
    RowReport* seen = &r->seen;
    r->records = records_open(path);
    const char* note = records_note(r->records);
    if (*note && seen->n_notes < ROW_REPORT_NAMED)
        snprintf(seen->notes[seen->n_notes++], sizeof seen->notes[0], "%.250s: %s", path, note);
}

// The text in place of the conversation's answer, whatever that was: calls of tools and the like go with it.
static void answer_otherwise(Conversation* c, const char* answer) {
    Message* last = &c->messages[c->n - 1];
    last->content = answer;
    last->length = strlen(answer);
    last->weight = 1.0;
    last->fields = NULL;
    last->call = false;
}

bool rows_next(RowReader* r, DataRow* row) {
    DataRecord record;
    for (;;) {
        if (!r->records) {
            if (r->file >= r->files->n) return false;
            begin_file(r);
        }
        if (records_next(r->records, &record)) break;
        Hex digest;
        int64_t size, all;
        records_digest(r->records, digest);
        memcpy(r->digests + 64 * r->file, digest, 64);
        r->rows_before += records_count(r->records);
        records_progress(r->records, &size, &all);
        r->disk_before += all;
        records_close(r->records);
        r->records = NULL;
        r->file++;
    }
    *row = (DataRow){.file = r->file,
                     .row = record.row,
                     .id = r->rows_before + record.row,
                     .line = record.line,
                     .offset = record.offset,
                     .length = record.length,
                     .conversation = &r->conversation};
    Conversation* c = &r->conversation;
    conversation_free(c);
    r->prompt.n = r->response.n = 0;
    text_add(&r->prompt, "", 0);
    text_add(&r->response, "", 0);
    cJSON* fields = parse_record(r, &record, row->why, sizeof row->why);
    if (*row->why) {
        row->state = ROW_MALFORMED;
        cJSON_Delete(fields);
    } else {
        conversation_read(c, fields, &r->options, row);
        if (r->options.answer && row->state == ROW_OK && c->answered) answer_otherwise(c, r->options.answer);
        if (r->zeros && row->state != ROW_MALFORMED && reads_zero(c)) row_bad(row, "holds a zero character");
        if (row->state != ROW_MALFORMED && (!r->options.conversations || c->as_it_is))
            conversation_plain(c, &r->options, row, &r->prompt, &r->response);
    }
    if (row->state == ROW_OK) {
        conversation_unread(c, &r->options, &r->seen);
        row_report_tally(r->seen.layouts, &r->seen.n_layouts, row->layout, 1);
    }
    row->prompt = r->prompt.s;
    row->prompt_length = r->prompt.n;
    row->response = r->response.s;
    row->response_length = r->response.n;
    return true;
}

void rows_report(const RowReader* r, RowReport* report) {
    const RowReport* seen = &r->seen;
    for (int i = 0; i < seen->n_notes && report->n_notes < ROW_REPORT_NAMED; i++)
        memcpy(report->notes[report->n_notes++], seen->notes[i], sizeof seen->notes[0]);
    for (int i = 0; i < seen->n_unread; i++)
        row_report_tally(report->unread, &report->n_unread, seen->unread[i].name, seen->unread[i].rows);
    for (int i = 0; i < seen->n_layouts; i++)
        row_report_tally(report->layouts, &report->n_layouts, seen->layouts[i].name, seen->layouts[i].rows);
}

void rows_progress(const RowReader* r, int64_t* done, int64_t* total) {
    int64_t here = 0, size = 0;
    if (r->records) records_progress(r->records, &here, &size);
    *done = r->disk_before + here;
    *total = r->disk_total;
}
void rows_digest(const RowReader* r, Hex hex) { join_digests(r->digests, r->files->n, hex); }
void rows_close(RowReader* r) {
    if (!r) return;
    records_close(r->records);
    conversation_free(&r->conversation);
    text_free(&r->prompt);
    text_free(&r->response);
    text_free(&r->field);
    free(r->digests);
    free(r);
}

// ---------------------------------------------------------------------------------------------------
// the report

static const char* const state_names[ROW_STATES] = {"usable", "malformed", "with an empty prompt",
                                                    "with an empty response", "with too long a prompt"};
const char* row_state_name(RowState state) { return state_names[state]; }

void row_report_add(RowReport* report, const DataRow* row, const char* path, AtomicFile* all) {
    char name[sizeof report->named[0]] = "";
    report->count[row->state]++;
    if (row->state == ROW_OK || (report->n_named == ROW_REPORT_NAMED && !all)) return;
    snprintf(name, sizeof name, "%s:%lld, row %lld: %s", path, (long long)row->line, (long long)row->row,
             *row->why ? row->why : state_names[row->state]);
    if (all) atomic_printf(all, "%s\n", name);
    if (report->n_named < ROW_REPORT_NAMED) memcpy(report->named[report->n_named++], name, sizeof name);
}

int64_t row_report_bad(const RowReport* report) {
    int64_t bad = 0;
    for (int s = ROW_OK + 1; s < ROW_STATES; s++) bad += report->count[s];
    return bad;
}

void row_report_tally(RowTally* tallies, int* n, const char* name, int64_t rows) {
    int i = 0;
    char clean[sizeof tallies->name];
    snprintf(clean, sizeof clean, "%.*s", (int)sizeof clean - 1, name);
    while (i < *n && strcmp(tallies[i].name, clean)) i++;
    if (i == ROW_REPORT_TALLIES - 1 && i == *n) snprintf(clean, sizeof clean, "others");
    if (i == ROW_REPORT_TALLIES) i--;
    if (i == *n) {
        memcpy(tallies[i].name, clean, sizeof clean);
        tallies[i].rows = 0;
        ++*n;
    }
    tallies[i].rows += rows;
}

static void print_bad(const RowReport* report, bool quiet, FILE* out) {
    int64_t bad = row_report_bad(report);
    if (!bad) return;
    fprintf(out, "%lld of %lld rows are left out:", (long long)bad, (long long)(bad + report->count[ROW_OK]));
    const char* comma = "";
    for (int s = ROW_OK + 1; s < ROW_STATES; s++)
        if (report->count[s]) {
            fprintf(out, "%s %lld %s", comma, (long long)report->count[s], state_names[s]);
            comma = ",";
        }
    fputc('\n', out);
    if (quiet) return;
    for (int i = 0; i < report->n_named; i++) fprintf(out, "  %s\n", report->named[i]);
    if (bad > report->n_named)
        fprintf(out, "  and %lld more (train_seal check --left-out FILE lists all)\n",
                (long long)(bad - report->n_named));
}

void row_report_print(const RowReport* report, bool quiet, FILE* out) {
    for (int i = 0; i < report->n_notes && !quiet; i++) fprintf(out, "%s\n", report->notes[i]);
    print_bad(report, quiet, out);
    if (quiet) return;
    if (report->n_special)
        fprintf(out,
                "%lld row%s with special tokens%s: they seem to be rendered already; what is added around a text would "
                "then be duplicated\n",
                (long long)report->n_special, report->n_special == 1 ? " begins" : "s begin",
                report->n_ended ? ", and answers end with one" : "");
    else if (report->n_ended)
        fprintf(out, "%lld answer%s with the end-of-sequence text, which is added once more\n",
                (long long)report->n_ended, report->n_ended == 1 ? " ends" : "s end");
    if (!report->n_unread) return;
    fprintf(out, "text in fields that are not used:");
    for (int i = 0; i < report->n_unread; i++)
        fprintf(out, "%s %s (%lld row%s)", i ? "," : "", report->unread[i].name, (long long)report->unread[i].rows,
                report->unread[i].rows == 1 ? "" : "s");
    fputc('\n', out);
}
