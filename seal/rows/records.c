/* Records: the bytes of a file cut at its records, by the scanner of its format. See dataset.h. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <openssl/evp.h>
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "rows/byte_stream.h"
#include "rows/layouts.h"
#include "rows/records.h"

#ifndef BUFFER_BYTES  // the fuzz targets read with a tiny one
#define BUFFER_BYTES (1 << 18)
#endif
#define RECORD_MOST ((size_t)256 << 20)  // a longer record is a file that is not what it says

// ---------------------------------------------------------------------------------------------------
// the stream of bytes

struct RecordReader {
    char path[PATH_ROOM];
    DataFormat format;
    bool values;  // json: objects one after the other, each over as many lines as it likes, in no array
    ByteStream* stream;
    unsigned char* buffer;
    size_t at, filled;
    uint64_t base;  // offset in the uncompressed file of buffer[0]
    int64_t line;
    int64_t next_row;
    bool begun, ended;  // json: inside the array, after it
    bool wrapped;       // json: the array is a field of an object, whose other fields end the file
    char delimiter;     // csv
    bool loose;         // csv: spaces after a delimiter are not part of a field
    char note[256];
    Text record, header;
    EVP_MD_CTX* sha;
    Hex digest;
};

static bool fill(RecordReader* r) {
    r->base += r->filled;
    r->at = 0;
    r->filled = bytes_read(r->stream, r->buffer, BUFFER_BYTES);
    if (!r->filled) return false;
    if (!EVP_DigestUpdate(r->sha, r->buffer, r->filled)) program_error("SHA-256 failed");
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

static bool is_empty_line(const Text* t) {
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
// .jsonl: a record per line, cut at \n only (U+2028 and its kin are text), a \r before it belongs to the line end

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
        if (!is_empty_line(&r->record)) break;
    }
    drop_return(r, out);
    return true;
}

// ---------------------------------------------------------------------------------------------------
// .json: an array of records, cut by counting brackets outside strings; what is inside a record is cJSON's business

// A value up to the comma or bracket after it; where `alone`, up to its own last bracket.
static void next_value(RecordReader* r, int64_t first_line, bool alone) {
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
            else if (depth == 0 && !alone && (c == ',' || c == ']')) {
                take(r, i);
                return;
            } else if (c == '}' || c == ']') {
                if (--depth < 0)
                    fatal("%s:%lld: row %lld has an unmatched closing brace", r->path, (long long)r->line,
                          (long long)r->next_row);
                if (depth == 0 && alone) {
                    take(r, i + 1);
                    return;
                }
            }
            r->line += c == '\n';
        }
        take(r, i);
    }
}

// One of several objects that follow each other, each laid out over lines. What is not an object is a record to its
// line's end.
static bool next_object(RecordReader* r, DataRecord* out) {
    skip_space(r);
    if (peek(r) < 0) return false;
    if (peek(r) != '{') return next_line(r, out);
    out->line = r->line;
    out->offset = position(r);
    r->record.n = 0;
    text_add(&r->record, "", 0);
    next_value(r, out->line, true);
    return true;
}

static bool next_element(RecordReader* r, DataRecord* out) {
    if (r->values) return next_object(r, out);
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
        next_value(r, out->line, false);
        while (r->record.n && is_space((unsigned char)r->record.s[r->record.n - 1])) r->record.s[--r->record.n] = 0;
        r->ended = peek(r) == ']';
        step(r);  // the comma or the bracket
        if (!r->ended) return true;
    }
    bool found = r->record.n > 0;
    skip_space(r);
    // the rest of an object was seen to be whole when the file was opened
    while (r->wrapped && peek(r) >= 0) step(r);
    if (peek(r) >= 0) fatal("%s:%lld: there is text after the end of the array", r->path, (long long)r->line);
    return found;
}

// ---------------------------------------------------------------------------------------------------
// .csv: RFC 4180 with any delimiter; a quoted field may hold line ends, a quote inside it is doubled

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
                } else if (c == (unsigned char)r->delimiter) state = START;
                else if (c == ' ' && r->loose && (state == START || state == CLOSED)) continue;
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
        if (!is_empty_line(&r->record)) break;
    }
    drop_return(r, out);
    return true;
}

bool csv_field(const RecordReader* r, const char* bytes, size_t length, size_t* at, Text* out) {
    const char delimiter = r->delimiter;
    if (*at > length) return false;
    out->n = 0;
    text_add(out, "", 0);
    size_t i = *at;
    while (r->loose && i < length && bytes[i] == ' ') i++;
    if (i < length && bytes[i] == '"') {
        for (i++; i < length; i++) {
            if (bytes[i] == '"' && !(i + 1 < length && bytes[i + 1] == '"')) break;
            if (bytes[i] == '"') i++;
            text_add(out, bytes + i, 1);
        }
        while (i < length && bytes[i] != delimiter) i++;
    } else {
        size_t from = i;
        while (i < length && bytes[i] != delimiter) i++;
        text_add(out, bytes + from, i - from);
    }
    *at = i + 1;
    return true;
}

// ---------------------------------------------------------------------------------------------------
// what a file is: its name says it, unless its first bytes know better

typedef bool (*NextRecord)(RecordReader* r, DataRecord* out);
static const NextRecord next_record[] = {
    [FORMAT_JSONL] = next_line, [FORMAT_JSON] = next_element, [FORMAT_CSV] = next_csv};

static const struct {
    const char* ending;
    DataFormat format;
} endings[] = {
    {".jsonl", FORMAT_JSONL}, {".ndjson", FORMAT_JSONL}, {".json", FORMAT_JSON},
    {".csv", FORMAT_CSV},     {".tsv", FORMAT_CSV},
};
static const char* const packings[] = {".gz", ".zst", ".zstd"};

static bool ends_with(const char* path, size_t n, const char* ending) {
    size_t m = strlen(ending);
    return n > m && !strncasecmp(path + n - m, ending, m);
}

// Which of `endings` a path has.
static int ending_of(const char* path) {
    size_t n = strlen(path);
    for (int p = 0; p < 3; p++)
        if (ends_with(path, n, packings[p])) {
            n -= strlen(packings[p]);
            break;
        }
    for (int e = 0; e < (int)(sizeof endings / sizeof *endings); e++)
        if (ends_with(path, n, endings[e].ending)) return e;
    if (ends_with(path, n, ".parquet") || ends_with(path, n, ".arrow"))
        fatal("%s: a data file ends in .jsonl, .json or .csv; python3 data/parquet.py %s makes a .jsonl of it", path,
              path);
    fatal("%s: a data file ends in .jsonl, .json or .csv (or .ndjson, .tsv), each also with .gz or .zst after it",
          path);
}
void records_check_name(const char* path) { ending_of(path); }

// What an object at a file's beginning turns out to be.
typedef enum { OBJECT_LINES, OBJECT_VALUES, OBJECT_WRAPPER, OBJECT_COLUMNS } ObjectKind;
typedef struct {
    ObjectKind kind;
    uint64_t list;    // wrapper: offset of its list of records
    char name[64];    // and the list's name
    char names[200];  // of its lists of objects; columns: of its fields
} Verdict;

typedef struct {
    ByteStream* stream;
    unsigned char buffer[4096];
    size_t at, filled;
    uint64_t base;
    int64_t lines;
} Look;
static int look(Look* l) {
    if (l->at == l->filled) {
        l->base += l->filled;
        l->at = 0;
        l->filled = bytes_read(l->stream, l->buffer, sizeof l->buffer);
        if (!l->filled) return -1;
    }
    return l->buffer[l->at];
}
static int look_on(Look* l) {
    int c = look(l);
    if (c < 0) return c;
    l->at++;
    l->lines += c == '\n';
    return c;
}
static int look_past_space(Look* l) {
    while (is_space(look(l))) look_on(l);
    return look(l);
}

// A string after its opening quote; its first bytes to `name`. False where a line ends inside it: no JSON.
static bool look_string(Look* l, char* name, size_t size) {
    size_t n = 0;
    for (int c; (c = look_on(l)) >= 0;) {
        if (c == '"') {
            name[n] = 0;
            return true;
        }
        if (c == '\n') return false;
        if (n + 1 < size) name[n++] = (char)c;
        if (c == '\\' && look_on(l) < 0) return false;
    }
    return false;
}

// The value that follows, to the comma or bracket after it. *records: whether it is a list of objects; *inner: a list
// or an object.
static bool look_value(Look* l, bool* records, bool* inner) {
    char none[2];
    int c = look_past_space(l), depth = 0;
    *inner = c == '[' || c == '{';
    *records = c == '[';
    if (c == '[') {
        look_on(l);
        depth++;
        c = look_past_space(l);
        *records = c == '{';
    }
    while ((c = look(l)) >= 0) {
        if (depth == 0 && (c == ',' || c == '}' || c == ']')) return true;
        look_on(l);
        if (c == '"' && !look_string(l, none, sizeof none)) return false;
        if (c == '{' || c == '[') depth++;
        else if (c == '}' || c == ']') depth--;
    }
    return false;
}

// The object that a file begins with: a row of many, one row laid out over lines, a wrapper {"data": [rows]}, or what
// pandas writes unasked, an object of columns (or of rows by their numbers).
static Verdict look_at_object(const char* path) {
    Verdict v = {.kind = OBJECT_LINES};
    Look l = {.stream = bytes_open(path)};
    char name[64], all[200] = "";
    bool whole = false, record = false, columns = true;
    int lists = 0, fields = 0;
    if (look(&l) == 0xEF)
        for (int i = 0; i < 3; i++) look_on(&l);
    look_past_space(&l);
    int64_t first = l.lines;
    look_on(&l);  // the brace
    int c = look_past_space(&l);
    while (c == '"') {
        bool records, inner;
        look_on(&l);
        if (!look_string(&l, name, sizeof name) || look_past_space(&l) != ':') break;
        look_on(&l);
        look_past_space(&l);
        uint64_t at = l.base + l.at;
        if (!look_value(&l, &records, &inner)) break;
        size_t n = strlen(all);
        snprintf(all + n, sizeof all - n, "%s%.40s", n ? ", " : "", name);
        columns &= inner && !records;
        fields++;
        record |= layouts_know(name);
        if (records) {
            if (!lists++) {
                v.list = at;
                memcpy(v.name, name, sizeof name);
            }
            n = strlen(v.names);
            snprintf(v.names + n, sizeof v.names - n, "%s%.40s", n ? ", " : "", name);
        }
        c = look_on(&l);
        if (c == ',') c = look_past_space(&l);
        else {
            whole = c == '}';
            break;
        }
    }
    bool one_line = l.lines == first, alone = look_past_space(&l) < 0;
    bytes_close(l.stream);
    if (!whole) return v;
    if (alone && lists && !record) {
        if (lists > 1) fatal("%s holds several lists (%s); put the one to read into a file of its own", path, v.names);
        v.kind = OBJECT_WRAPPER;
    } else if (alone && columns && fields > 1) {
        v.kind = OBJECT_COLUMNS;
        memcpy(v.names, all, sizeof all);
    } else if (!one_line) v.kind = OBJECT_VALUES;
    return v;
}

// Whether the array or object at buffer[i] ends on its line and more follows on others: then the file is one of lines.
static bool is_one_of_lines(const RecordReader* r, size_t i) {
    int depth = 0;
    bool string = false;
    for (; i < r->filled && r->buffer[i] != '\n'; i++) {
        unsigned char c = r->buffer[i];
        if (string) {
            if (c == '\\') i++;
            else string = c != '"';
        } else if (c == '"') string = true;
        else if (c == '[' || c == '{') depth++;
        else if (c == ']' || c == '}') depth--;
    }
    if (depth) return false;
    while (i < r->filled && is_space(r->buffer[i])) i++;
    return i < r->filled;
}

// Line ends of old Macintosh programs, or of Excel's "CSV (Macintosh)": everything would be one line.
static void refuse_returns(const RecordReader* r, bool table) {
    const unsigned char *s = r->buffer + r->at, *end = r->buffer + r->filled;
    if (s == end || memchr(s, '\n', (size_t)(end - s))) return;
    while (s < end && (s = memchr(s, '\r', (size_t)(end - s)))) {
        while (s < end && is_space(*s)) s++;
        if (s < end && (table || *s == '{'))
            fatal("%s: its lines end in a carriage return alone; tr '\\r' '\\n' turns them into line feeds", r->path);
    }
}

static void find_json(RecordReader* r, const char* ending) {
    DataFormat named = r->format;
    if (named == FORMAT_JSON) skip_space(r);
    int c = peek(r);
    size_t i = r->at;
    while (i + 1 < r->filled && is_space(r->buffer[i])) i++;
    if (c >= 0) c = r->buffer[i];
    if (c == '[') r->format = named == FORMAT_JSON || !is_one_of_lines(r, i) ? FORMAT_JSON : FORMAT_JSONL;
    else if (c == '{') {
        Verdict v = {.kind = OBJECT_LINES};
        if (!is_one_of_lines(r, i)) v = look_at_object(r->path);
        if (v.kind == OBJECT_COLUMNS && named == FORMAT_JSON)
            fatal(
                "%s is one object of lists or objects (%s), not rows; expected an array of rows (pandas: "
                "to_json(orient=\"records\"))",
                r->path, v.names);
        r->format = v.kind == OBJECT_WRAPPER || v.kind == OBJECT_VALUES ? FORMAT_JSON : FORMAT_JSONL;
        if (v.kind == OBJECT_VALUES) {
            r->values = true;
            snprintf(r->note, sizeof r->note, "its rows are objects laid out over several lines");
        } else if (v.kind == OBJECT_WRAPPER) {
            r->wrapped = true;
            while (position(r) < v.list && peek(r) >= 0) step(r);
            snprintf(r->note, sizeof r->note, "its rows are the list \"%s\" of one object", v.name);
        }
    } else if (named == FORMAT_JSON && c >= 0) {
        fatal("%s:%lld: a .json file is an array of records; this one begins with '%c'", r->path, (long long)r->line,
              isprint(c) ? c : '?');
    }
    if (r->format == FORMAT_JSONL) refuse_returns(r, false);
    if (!*r->note && r->format != named)
        snprintf(r->note, sizeof r->note, "%s under the name %s",
                 r->format == FORMAT_JSON ? "one array of rows" : "one row per line", ending);
}

// How many of a header's names some layout knows, and how many there are, with this delimiter.
static void count_names(const RecordReader* r, size_t end, char delimiter, int* known, int* names) {
    RecordReader trial = {.delimiter = delimiter, .loose = true};
    Text name = {0};
    size_t at = 0;
    *known = *names = 0;
    while (csv_field(&trial, (const char*)r->buffer + r->at, end - r->at, &at, &name)) {
        while (name.n && is_space((unsigned char)name.s[name.n - 1])) name.s[--name.n] = 0;
        *known += layouts_know(name.s);
        ++*names;
    }
    text_free(&name);
}

static void find_delimiter(RecordReader* r, const char* ending) {
    static const struct {
        char c;
        const char* name;
    } delimiters[] = {{',', "commas"}, {';', "semicolons"}, {'\t', "tabs"}, {'|', "bars"}};
    const char usual = !strcmp(ending, ".tsv") ? '\t' : ',';
    while (peek(r) == '\n' || peek(r) == '\r') step(r);
    refuse_returns(r, true);
    const unsigned char* newline = memchr(r->buffer + r->at, '\n', r->filled - r->at);
    size_t end = newline ? (size_t)(newline - r->buffer) : r->filled, n = end - r->at;
    r->delimiter = usual;
    if (n >= 5 && n <= 6 && !strncasecmp((const char*)r->buffer + r->at, "sep=", 4) &&
        strchr(",;\t|", r->buffer[r->at + 4])) {  // Excel's own line
        r->delimiter = (char)r->buffer[r->at + 4];
        while (peek(r) >= 0 && peek(r) != '\n') step(r);
        if (peek(r) >= 0) step(r);
    } else {
        int best_known, best_names;
        count_names(r, end, r->delimiter, &best_known, &best_names);
        for (int d = 0; d < 4; d++) {
            int known, names;
            count_names(r, end, delimiters[d].c, &known, &names);
            if (known < best_known || (known == best_known && (best_names > 1 || names <= best_names))) continue;
            r->delimiter = delimiters[d].c;
            best_known = known;
            best_names = names;
        }
    }
    for (int d = 0; d < 4; d++)
        if (r->delimiter == delimiters[d].c && r->delimiter != usual)
            snprintf(r->note, sizeof r->note, "its fields are separated by %s", delimiters[d].name);
}

// The header, and whether spaces follow its delimiters: then they do in all lines.
static void read_header(RecordReader* r) {
    DataRecord header = {0};
    Text name = {0};
    size_t at = 0, from = 0;
    r->loose = true;  // "a", "b" is good quoting in a header
    if (!next_csv(r, &header)) fatal("%s is empty; expected a header line", r->path);
    if (header.broken) fatal("%s:%lld: header: %s", r->path, (long long)header.line, header.broken);
    r->loose = false;
    while (csv_field(r, r->record.s, r->record.n, &at, &name)) {
        if (from && name.n && *name.s == ' ') r->loose = true;
        from = at;
    }
    text_free(&name);
    if (r->loose) {
        size_t n = strlen(r->note);
        snprintf(r->note + n, sizeof r->note - n, "%sspaces after them are not part of a field",
                 n ? "; " : "its fields are separated by commas; ");
    }
    text_add(&r->header, r->record.s, r->record.n);
    text_add(&r->header, header.crlf ? "\r\n" : "\n", 1 + (size_t)header.crlf);
}

RecordReader* records_open(const char* path) {
    RecordReader* r = host_alloc(sizeof *r, "a reader");
    r->buffer = host_alloc(BUFFER_BYTES, "a reader");
    int ending = ending_of(path);
    r->format = endings[ending].format;
    r->stream = bytes_open(path);
    path_copy(r->path, path);
    r->sha = EVP_MD_CTX_new();
    if (!r->sha || !EVP_DigestInit_ex(r->sha, EVP_sha256(), NULL)) program_error("SHA-256 failed");
    r->line = 1;
    if (peek(r) == 0xEF && r->filled >= 3 && r->buffer[1] == 0xBB && r->buffer[2] == 0xBF)
        r->at = 3;  // a byte order mark is not text
    if (r->format != FORMAT_CSV) find_json(r, endings[ending].ending);
    else {
        find_delimiter(r, endings[ending].ending);
        read_header(r);
    }
    if (bytes_utf16(r->stream)) {
        size_t n = strlen(r->note);
        snprintf(r->note + n, sizeof r->note - n, "%sis UTF-16 text", n ? "; " : "");
    }
    return r;
}

// At the end of the file.
static void end_digest(RecordReader* r) {
    unsigned char digest[32];
    unsigned length = sizeof digest;
    if (!EVP_DigestFinal_ex(r->sha, digest, &length)) program_error("SHA-256 failed");
    hex_of(digest, r->digest);
}

bool records_next(RecordReader* r, DataRecord* record) {
    *record = (DataRecord){0};
    if (*r->digest) return false;  // the end was seen
    r->record.n = 0;
    if (!next_record[r->format](r, record)) {
        end_digest(r);
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
const char* records_note(const RecordReader* r) { return r->note; }
int64_t records_count(const RecordReader* r) { return r->next_row; }
void records_progress(const RecordReader* r, int64_t* done, int64_t* total) { bytes_progress(r->stream, done, total); }
void records_digest(const RecordReader* r, Hex hex) { memcpy(hex, r->digest, 65); }
void records_close(RecordReader* r) {
    if (!r) return;
    bytes_close(r->stream);
    EVP_MD_CTX_free(r->sha);
    text_free(&r->record);
    text_free(&r->header);
    free(r->buffer);
    free(r);
}

void join_digests(const char* digests, int n, Hex hex) {
    if (n == 1) {
        memcpy(hex, digests, 64);
        hex[64] = 0;
    } else sha256_hex(digests, (size_t)n * 64, hex);
}

void dataset_digest(const StringList* files, Hex hex) {
    char* digests = host_alloc((size_t)files->n * 64 + 1, "digests");
    for (int f = 0; f < files->n; f++) {
        RecordReader* r = records_open(files->items[f]);
        while (fill(r)) {}
        end_digest(r);
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
