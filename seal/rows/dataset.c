/* Data files to records and rows: streams of bytes, three scanners, and the report of what became of the rows. See
 * dataset.h. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cjson/cJSON.h>
// defines: EVP_DigestUpdate …
#include <openssl/evp.h>
// defines: gzFile; reads plain files as they are
#include <zlib.h>
#include "rows/dataset.h"
#include "base/error.h"
#include "base/file.h"

#ifndef BUFFER_BYTES  // the fuzz targets read with a tiny one
#define BUFFER_BYTES (1 << 18)
#endif
#define RECORD_MOST ((size_t)256 << 20)  // a longer record is a file that is not what it says

void text_add(Text* t, const void* bytes, size_t n) {
    if (t->n + n + 1 > t->capacity) {
        size_t capacity = t->capacity ? t->capacity : 256;
        while (capacity < t->n + n + 1) capacity *= 2;
        char* s = realloc(t->s, capacity);
        if (!s) fatal("out of memory for a text of %zu bytes", capacity);
        t->s = s;
        t->capacity = capacity;
    }
    if (n) memcpy(t->s + t->n, bytes, n);
    t->n += n;
    t->s[t->n] = 0;
}

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

void text_free(Text* t) {
    free(t->s);
    *t = (Text){0};
}

// ---------------------------------------------------------------------------------------------------
// the stream of bytes

struct RecordReader {
    char path[4096];
    DataFormat format;
    gzFile file;
    unsigned char* buffer;
    size_t at, filled;
    uint64_t base;       // offset in the uncompressed file of buffer[0]
    int64_t size, line;  // size: bytes on disk
    int64_t next_row;
    bool begun, ended;  // json: inside the array, behind it
    Text record, header;
    EVP_MD_CTX* sha;
    char digest[65];
};

static bool fill(RecordReader* r) {
    r->base += r->filled;
    r->at = r->filled = 0;
    int got = gzread(r->file, r->buffer, BUFFER_BYTES);
    if (got < 0 || (got == 0 && !gzeof(r->file))) {
        int code;
        const char* why = gzerror(r->file, &code);
        fatal("%s: cannot be read after byte %llu: %s", r->path, (unsigned long long)r->base,
              code == Z_ERRNO ? strerror(errno) : why);
    }
    if (got == 0) {
        // gzeof is also true where a .gz ends too early; only the error code tells them apart
        int code;
        gzerror(r->file, &code);
        if (code == Z_BUF_ERROR) fatal("%s: the compressed file is cut off; get it again", r->path);
        return false;
    }
    if (!EVP_DigestUpdate(r->sha, r->buffer, (size_t)got)) program_error("SHA-256 failed");
    r->filled = (size_t)got;
    return true;
}
static inline int peek(RecordReader* r) { return r->at < r->filled || fill(r) ? r->buffer[r->at] : -1; }
static inline void step(RecordReader* r) { r->line += r->buffer[r->at++] == '\n'; }
static inline uint64_t position(const RecordReader* r) { return r->base + r->at; }

// Takes the buffer up to `end` (not included) into the record.
static void take(RecordReader* r, size_t end) {
    if (r->record.n + (end - r->at) > RECORD_MOST)
        fatal("%s:%lld: row %lld is longer than %zu MiB; is this a file of records?", r->path, (long long)r->line,
              (long long)r->next_row, RECORD_MOST >> 20);
    text_add(&r->record, r->buffer + r->at, end - r->at);
    r->at = end;
}

static bool is_space(int c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }
static bool blank(const Text* t) {
    for (size_t i = 0; i < t->n; i++)
        if (!is_space((unsigned char)t->s[i])) return false;
    return true;
}
static void drop_return(RecordReader* r, DataRecord* out) {
    out->crlf = r->record.n && r->record.s[r->record.n - 1] == '\r';
    if (out->crlf) r->record.s[--r->record.n] = 0;
}
static void skip_space(RecordReader* r) {
    while (is_space(peek(r))) step(r);
}

// ---------------------------------------------------------------------------------------------------
// .jsonl: a record a line, cut at \n only (U+2028 and its kin are text), a \r before it belongs to the line end

static bool next_line(RecordReader* r, DataRecord* out) {
    for (;;) {
        if (peek(r) < 0) return false;
        out->line = r->line;
        out->offset = position(r);
        r->record.n = 0;
        text_add(&r->record, "", 0);
        while (peek(r) >= 0) {
            unsigned char* newline = memchr(r->buffer + r->at, '\n', r->filled - r->at);
            take(r, newline ? (size_t)(newline - r->buffer) : r->filled);
            if (newline) {
                step(r);
                break;
            }
        }
        if (!blank(&r->record)) break;
    }
    drop_return(r, out);
    return true;
}

// ---------------------------------------------------------------------------------------------------
// .json: an array of records, cut by counting brackets outside strings; what is inside a record is cJSON's business

static void next_value(RecordReader* r, int64_t first_line) {
    int depth = 0;
    bool string = false, escaped = false;
    for (;;) {
        if (peek(r) < 0)
            fatal("%s:%lld: the file ends inside row %lld", r->path, (long long)first_line, (long long)r->next_row);
        size_t i = r->at;
        for (; i < r->filled; i++) {
            unsigned char c = r->buffer[i];
            if (string) {
                if (escaped) escaped = false;
                else if (c == '\\') escaped = true;
                else if (c == '"') string = false;
            } else if (c == '"') string = true;
            else if (c == '{' || c == '[') depth++;
            else if (depth == 0 && (c == ',' || c == ']')) {
                take(r, i);
                return;
            } else if (c == '}' || c == ']') {
                if (--depth < 0)
                    fatal("%s:%lld: row %lld has an unmatched closing brace", r->path, (long long)r->line,
                          (long long)r->next_row);
            }
            r->line += c == '\n';
        }
        take(r, i);
    }
}

static bool next_element(RecordReader* r, DataRecord* out) {
    if (r->ended) return false;
    skip_space(r);
    if (!r->begun) {
        if (peek(r) < 0) return false;
        if (peek(r) != '[')
            fatal("%s:%lld: a .json file is an array of records; this one begins with '%c'", r->path,
                  (long long)r->line, isprint(peek(r)) ? peek(r) : '?');
        step(r);
        r->begun = true;
        skip_space(r);
        if (peek(r) == ']') {
            step(r);
            r->ended = true;
        }
    }
    if (!r->ended) {
        out->line = r->line;
        out->offset = position(r);
        r->record.n = 0;
        text_add(&r->record, "", 0);
        next_value(r, out->line);
        while (r->record.n && is_space((unsigned char)r->record.s[r->record.n - 1])) r->record.s[--r->record.n] = 0;
        r->ended = peek(r) == ']';
        step(r);  // the comma or the bracket
        if (!r->ended) return true;
    }
    bool found = r->record.n > 0;
    skip_space(r);
    if (peek(r) >= 0) fatal("%s:%lld: there is text after the end of the array", r->path, (long long)r->line);
    return found;
}

// ---------------------------------------------------------------------------------------------------
// .csv: RFC 4180; a quoted field may hold line ends, a quote inside it is doubled

static bool next_csv(RecordReader* r, DataRecord* out) {
    for (;;) {
        if (peek(r) < 0) return false;
        out->line = r->line;
        out->offset = position(r);
        out->broken = NULL;
        r->record.n = 0;
        text_add(&r->record, "", 0);
        enum { START, PLAIN, QUOTED, CLOSED } state = START;
        bool done = false;
        while (!done && peek(r) >= 0) {
            size_t i = r->at;
            for (; i < r->filled; i++) {
                unsigned char c = r->buffer[i];
                if (state == QUOTED) {
                    if (c == '"') state = CLOSED;
                } else if (c == '\n') {
                    done = true;
                    break;
                } else if (c == ',') state = START;
                else if (c == '"' && state == START) state = QUOTED;
                else if (c == '"' && state == CLOSED) state = QUOTED;
                else if (c == '\r') continue;
                else {
                    if (state == CLOSED) out->broken = "has text after a closing quote";
                    state = state == CLOSED ? CLOSED : PLAIN;
                }
                r->line += c == '\n';
            }
            take(r, i);
            if (done) step(r);
        }
        if (state == QUOTED)
            fatal("%s:%lld: the file ends inside a quoted field of row %lld", r->path, (long long)out->line,
                  (long long)r->next_row);
        if (!blank(&r->record)) break;
    }
    drop_return(r, out);
    return true;
}

// The next field of a csv record from *at; false behind the last.
static bool csv_field(const char* bytes, size_t length, size_t* at, Text* out) {
    if (*at > length) return false;
    out->n = 0;
    text_add(out, "", 0);
    size_t i = *at;
    if (i < length && bytes[i] == '"') {
        for (i++; i < length; i++) {
            if (bytes[i] == '"' && !(i + 1 < length && bytes[i + 1] == '"')) break;
            if (bytes[i] == '"') i++;
            text_add(out, bytes + i, 1);
        }
        while (i < length && bytes[i] != ',') i++;
    } else {
        size_t from = i;
        while (i < length && bytes[i] != ',') i++;
        text_add(out, bytes + from, i - from);
    }
    *at = i + 1;
    return true;
}

// ---------------------------------------------------------------------------------------------------
// a file

typedef bool (*NextRecord)(RecordReader* r, DataRecord* out);
static const struct {
    const char* ending;
    NextRecord next;
} formats[] = {
    [FORMAT_JSONL] = {".jsonl", next_line},
    [FORMAT_JSON] = {".json", next_element},
    [FORMAT_CSV] = {".csv", next_csv},
};

static DataFormat format_of(const char* path) {
    size_t n = strlen(path);
    if (n > 3 && !strcmp(path + n - 3, ".gz")) n -= 3;
    for (int f = 0; f < 3; f++) {
        size_t m = strlen(formats[f].ending);
        if (n > m && !memcmp(path + n - m, formats[f].ending, m)) return (DataFormat)f;
    }
    fatal("%s: a data file ends in .jsonl, .json or .csv, each also with .gz after it", path);
}

RecordReader* records_open(const char* path) {
    RecordReader* r = calloc(1, sizeof *r);
    struct stat info;
    if (!r || !(r->buffer = malloc(BUFFER_BYTES))) fatal("%s: out of memory", path);
    if (snprintf(r->path, sizeof r->path, "%s", path) >= (int)sizeof r->path)
        fatal("%.80s…: the path is too long", path);
    r->format = format_of(path);
    if (stat(path, &info)) fatal("%s: cannot be read: %s", path, strerror(errno));
    if (S_ISDIR(info.st_mode)) fatal("%s: is a directory; expected a data file", path);
    if (!S_ISREG(info.st_mode)) fatal("%s: not a regular file; data is read more than once", path);
    r->size = info.st_size;
    r->file = gzopen(path, "rb");
    if (!r->file) fatal("%s: cannot be read: %s", path, errno ? strerror(errno) : "out of memory");
    gzbuffer(r->file, BUFFER_BYTES);
    r->sha = EVP_MD_CTX_new();
    if (!r->sha || !EVP_DigestInit_ex(r->sha, EVP_sha256(), NULL)) program_error("SHA-256 failed");
    r->line = 1;
    if (peek(r) == 0xEF && r->filled >= 3 && r->buffer[1] == 0xBB && r->buffer[2] == 0xBF)
        r->at = 3;  // a byte order mark is no text
    if (r->format == FORMAT_JSON) {
        skip_space(r);
        // records one a line under the name .json are common enough; a file that begins with an object can be nothing
        // else
        if (peek(r) == '{') r->format = FORMAT_JSONL;
    }
    if (r->format == FORMAT_CSV) {
        DataRecord header = {0};
        if (!next_csv(r, &header)) fatal("%s: is empty; expected a header line", path);
        if (header.broken) fatal("%s:%lld: header: %s", path, (long long)header.line, header.broken);
        text_add(&r->header, r->record.s, r->record.n);
        text_add(&r->header, header.crlf ? "\r\n" : "\n", 1 + (size_t)header.crlf);
    }
    return r;
}

bool records_next(RecordReader* r, DataRecord* record) {
    *record = (DataRecord){0};
    if (*r->digest) return false;  // the end was seen
    r->record.n = 0;
    if (!formats[r->format].next(r, record)) {
        unsigned char digest[32];
        unsigned length = sizeof digest;
        if (!EVP_DigestFinal_ex(r->sha, digest, &length)) program_error("SHA-256 failed");
        for (int i = 0; i < 32; i++) snprintf(r->digest + 2 * i, 3, "%02x", digest[i]);
        return false;
    }
    record->row = r->next_row++;
    record->bytes = r->record.s;
    record->length = r->record.n;
    return true;
}

DataFormat records_format(const RecordReader* r) { return r->format; }
const char* records_header(const RecordReader* r, size_t* length) {
    *length = r->header.n;
    return r->header.s ? r->header.s : "";
}
void records_progress(const RecordReader* r, int64_t* done, int64_t* total) {
    *done = (int64_t)gzoffset(r->file);
    *total = r->size;
}
void records_digest(const RecordReader* r, char hex[65]) { memcpy(hex, r->digest, 65); }
void records_close(RecordReader* r) {
    if (!r) return;
    gzclose(r->file);
    EVP_MD_CTX_free(r->sha);
    text_free(&r->record);
    text_free(&r->header);
    free(r->buffer);
    free(r);
}

// digests[n][64], without zeros between them
static void join_digests(const char* digests, int n, char hex[65]) {
    if (n == 1) {
        memcpy(hex, digests, 64);
        hex[64] = 0;
    } else sha256_hex(digests, (size_t)n * 64, hex);
}

void dataset_digest(const StringList* files, char hex[65]) {
    char* digests = malloc((size_t)files->n * 64 + 1);
    if (!digests) fatal("out of memory");
    for (int f = 0; f < files->n; f++) {
        RecordReader* r = records_open(files->items[f]);
        while (fill(r)) {}
        DataRecord none;
        r->ended = r->begun = true;
        while (records_next(r, &none)) {}
        memcpy(digests + 64 * f, r->digest, 64);
        records_close(r);
    }
    join_digests(digests, files->n, hex);
    free(digests);
}

int64_t dataset_rows(const char* path) {
    DataRecord record;
    int64_t n = 0;
    RecordReader* r = records_open(path);
    while (records_next(r, &record)) n++;
    records_close(r);
    return n;
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
    char* digests;  // [files][64]
};

RowReader* rows_open(const StringList* files, const RowOptions* options) {
    row_options_check(options);
    RowReader* r = calloc(1, sizeof *r);
    if (!r || !(r->digests = malloc((size_t)files->n * 64 + 1))) fatal("out of memory");
    r->files = files;
    r->options = *options;
    for (int f = 0; f < files->n; f++) {  // a missing file is found before an hour of reading the others
        struct stat info;
        format_of(files->items[f]);
        if (stat(files->items[f], &info)) fatal("%s: cannot be read: %s", files->items[f], strerror(errno));
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

// cJSON's strings end at a zero: a \u0000 would cut a text silently.
static bool holds_zero(const char* s, size_t n) {
    if (memchr(s, 0, n)) return true;
    for (size_t i = 0; i + 5 < n; i++)
        if (s[i] == '\\') {
            if (!memcmp(s + i + 1, "u0000", 5)) return true;
            i++;
        }
    return false;
}

static cJSON* parse_csv(RowReader* r, const DataRecord* record, char* why, size_t size) {
    size_t header_length, h = 0, f = 0;
    const char* header = records_header(r->records, &header_length);
    while (header_length && (header[header_length - 1] == '\n' || header[header_length - 1] == '\r')) header_length--;
    cJSON* object = cJSON_CreateObject();
    Text name = {0};
    int names = 0, values = 0;
    while (csv_field(header, header_length, &h, &name)) {
        names++;
        if (csv_field(record->bytes, record->length, &f, &r->field)) {
            values++;
            cJSON_AddStringToObject(object, name.s, r->field.s);
        }
    }
    while (csv_field(record->bytes, record->length, &f, &r->field)) values++;
    text_free(&name);
    if (values != names) snprintf(why, size, "has %d fields but the header names %d", values, names);
    return object;
}

static cJSON* parse_record(RowReader* r, const DataRecord* record, char* why, size_t size) {
    *why = 0;
    if (!valid_utf8((const unsigned char*)record->bytes, record->length)) snprintf(why, size, "is not UTF-8");
    else if (holds_zero(record->bytes, record->length)) snprintf(why, size, "holds a zero character");
    else if (record->broken) snprintf(why, size, "%s", record->broken);
    if (*why) return NULL;
    if (records_format(r->records) == FORMAT_CSV) return parse_csv(r, record, why, size);
    const char* end = NULL;
    cJSON* value = cJSON_ParseWithLengthOpts(record->bytes, record->length, &end, 0);
    if (!value) snprintf(why, size, "is not JSON at byte %zu of the row", end ? (size_t)(end - record->bytes) : 0);
    else {
        while (end < record->bytes + record->length && is_space((unsigned char)*end)) end++;
        if (end != record->bytes + record->length)
            snprintf(why, size, "has text after the record at byte %zu", (size_t)(end - record->bytes));
        else if (!cJSON_IsObject(value)) snprintf(why, size, "is not an object with named fields");
    }
    return value;
}

bool rows_next(RowReader* r, DataRow* row) {
    DataRecord record;
    for (;;) {
        if (!r->records) {
            if (r->file >= r->files->n) return false;
            r->records = records_open(r->files->items[r->file]);
        }
        if (records_next(r->records, &record)) break;
        records_digest(r->records, (char[65]){0});
        memcpy(r->digests + 64 * r->file, r->records->digest, 64);
        r->rows_before += r->records->next_row;
        r->disk_before += r->records->size;
        records_close(r->records);
        r->records = NULL;
        r->file++;
    }
    *row = (DataRow){.file = r->file,
                     .row = record.row,
                     .id = r->rows_before + record.row,
                     .line = record.line,
                     .offset = record.offset,
                     .length = record.length};
    r->prompt.n = r->response.n = 0;
    text_add(&r->prompt, "", 0);
    text_add(&r->response, "", 0);
    cJSON* fields = parse_record(r, &record, row->why, sizeof row->why);
    if (*row->why) row->state = ROW_MALFORMED;
    else row_extract(fields, &r->options, row, &r->prompt, &r->response);
    cJSON_Delete(fields);
    row->prompt = r->prompt.s;
    row->prompt_length = r->prompt.n;
    row->response = r->response.s;
    row->response_length = r->response.n;
    return true;
}

void rows_progress(const RowReader* r, int64_t* done, int64_t* total) {
    int64_t here = 0, size = 0;
    if (r->records) records_progress(r->records, &here, &size);
    *done = r->disk_before + here;
    *total = r->disk_total;
}
void rows_digest(const RowReader* r, char hex[65]) { join_digests(r->digests, r->files->n, hex); }
void rows_close(RowReader* r) {
    if (!r) return;
    records_close(r->records);
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

void row_report_print(const RowReport* report, FILE* out) {
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
    for (int i = 0; i < report->n_named; i++) fprintf(out, "  %s\n", report->named[i]);
    if (bad > report->n_named)
        fprintf(out, "  and %lld more (train_seal check --left-out FILE lists all)\n",
                (long long)(bad - report->n_named));
}
