/*
Data files to rows. A file (.jsonl, .json, .csv, .tsv, each also .gz or .zst, in UTF-8 or UTF-16) is read as a stream,
one record in memory at a time; a record becomes a conversation (messages.h) by the table of field layouts in layouts.c,
and a conversation becomes a prompt and a response. A row keeps its number in the file whatever happens to it: bad rows
are counted and named, never dropped from the numbering, because a selector's score belongs to a row.
*/
#ifndef SEAL_DATASET_H
#define SEAL_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "base/options.h"
#include "base/text.h"
#include "base/file.h"
#include "rows/messages.h"

#ifdef __cplusplus
extern "C" {
#endif

// ---------------------------------------------------------------------------------------------------
// text

// The bytes as UTF-8 that a C string holds: U+FFFD for a zero, and for what is not a character, as Python's
// decode(errors="replace") has it.
void text_add_utf8(Text* t, const char* bytes, size_t n);

// ---------------------------------------------------------------------------------------------------
// records: the bytes of a file cut at its records, unparsed

// FORMAT_JSON: records may span lines. FORMAT_CSV: fields separated by a comma, a semicolon, a tab or a bar.
typedef enum { FORMAT_JSONL, FORMAT_JSON, FORMAT_CSV } DataFormat;

typedef struct {
    int64_t row;        // 0-based number of the record in its file; neither empty lines nor csv's header are records
    int64_t line;       // 1-based line where it begins
    uint64_t offset;    // of its first byte in the file, uncompressed and as UTF-8
    const char* bytes;  // length bytes and a zero, without the line end; valid until the next record
    size_t length;
    bool crlf;           // the line ended in \r\n
    const char* broken;  // csv: why the quoting is wrong; otherwise NULL
} DataRecord;

// A record as JSON, with what Python's parser takes besides: NaN is null, Infinity a number that is not a text, half of
// a surrogate pair U+FFFD. Numbers keep their digits as valuestring. NULL with `why`. To be deleted with cJSON_Delete.
struct cJSON* json_parse(const char* bytes, size_t n, char* why, size_t size);

typedef struct RecordReader RecordReader;
RecordReader* records_open(const char* path);
// False at the end. A file whose records cannot be told apart is fatal.
bool records_next(RecordReader* r, DataRecord* record);
DataFormat records_format(const RecordReader* r);
// csv: the header's bytes with its line end; otherwise empty.
const char* records_header(const RecordReader* r, size_t* length);
// Where the file is not what its name says, what it was taken for ("an array under the name .jsonl"); otherwise empty.
const char* records_note(const RecordReader* r);
// Bytes read from disk so far and in all, for a progress line (compressed bytes of a .gz).
void records_progress(const RecordReader* r, int64_t* done, int64_t* total);
// SHA-256 of the uncompressed bytes, UTF-16 as UTF-8, once the last record was read: a .gz and its content have the
// same digest.
void records_digest(const RecordReader* r, Hex hex);
void records_close(RecordReader* r);

// Digest of several files: one file's own, of several the SHA-256 of their digests in order.
void dataset_digest(const StringList* files, Hex hex);
// Records of a file, by reading it again: for messages that name a row of several files.
int64_t dataset_rows(const char* path);

// ---------------------------------------------------------------------------------------------------
// rows: prompt and response

typedef enum { ROW_OK, ROW_MALFORMED, ROW_EMPTY_PROMPT, ROW_EMPTY_RESPONSE, ROW_TOO_LONG, ROW_STATES } RowState;
const char* row_state_name(RowState state);

typedef struct {
    const char* prompt_template;  // of a prompt, holds {prompt}; NULL: TEMPLATE_DEFAULT
    const char* prompt_field;     // "{instruction}\n{input}", or a field's bare name; NULL: by layout
    const char* response_field;
    bool prompts_only;   // a response need not be there (test prompts)
    const char* answer;  // this text in place of every row's response; NULL: its own. A row must have one all the same
    bool turns;  // the prompt as its turns, for a chat template: of each "user", "assistant" or "system", a zero, the
                 // text, a zero
    bool conversations;  // no texts are made of conversations: prompt and response are empty but for rows that are
                         // taken as they are (row->conversation->as_it_is)
    // with conversations: whether what writes them down uses a field of a turn, or `tools`; NULL: it uses all
    bool (*uses)(const void* format, const char* field);
    const void* format;
} RowOptions;
#define TEMPLATE_DEFAULT "Human: {prompt}\nAssistant: "

typedef struct {
    int file;     // index in the list of files
    int64_t row;  // in its file
    int64_t id;   // over all files in order: rows of the files before it + row. What selectors store
    int64_t line;
    uint64_t offset, length;  // original bytes in the uncompressed file
    RowState state;
    char why[160];       // of a bad row
    const char* layout;  // name of the layout that fitted
    const char* prompt;  // with the template; zero-terminated, valid until the next row
    size_t prompt_length;
    const char* response;
    size_t response_length;
    Conversation* conversation;  // the reader's, valid until the next row; may be moved out (messages.h). Empty where
                                 // the record was no object
} DataRow;

void row_options_check(const RowOptions* options);  // fatal where a template is wrong

// ---------------------------------------------------------------------------------------------------
// what became of the rows

#define ROW_REPORT_NAMED 10
#define ROW_REPORT_TALLIES 16
typedef struct {
    char name[72];
    int64_t rows;
} RowTally;
typedef struct {
    int64_t count[ROW_STATES];
    int n_named;
    char named[ROW_REPORT_NAMED][512];  // the first bad rows: file:line, row, why
    int n_notes;
    char notes[ROW_REPORT_NAMED][512];  // files that are not what their names say: file: what it was taken for
    int64_t n_special, n_ended;  // usable rows that begin with a special token or a template's mark, and whose answer
                                 // ends with the end-of-sequence text: they hold a rendered template already
    int n_unread, n_layouts;
    RowTally unread[ROW_REPORT_TALLIES];   // fields with text that nothing reads, and in how many usable rows
    RowTally layouts[ROW_REPORT_TALLIES];  // layouts of the usable rows
} RowReport;
// Adds to a name's count. Names beyond the table's room share the last place, named "others".
void row_report_tally(RowTally* tallies, int* n, const char* name, int64_t rows);
// all: gets a line per bad row; NULL: only the first ones are named, in the report.
void row_report_add(RowReport* report, const DataRow* row, const char* path, AtomicFile* all);
int64_t row_report_bad(const RowReport* report);
// Notes of files; "3 of 100 rows are left out: 2 malformed, 1 empty response", then the first ten by name; fields that
// nothing reads. Nothing where there is nothing to say. `quiet`: one line where rows are left out, and no more.
void row_report_print(const RowReport* report, bool quiet, FILE* out);

// ---------------------------------------------------------------------------------------------------
// rows of several files

typedef struct RowReader RowReader;
RowReader* rows_open(const StringList* files, const RowOptions* options);
bool rows_next(RowReader* r, DataRow* row);
void rows_progress(const RowReader* r, int64_t* done, int64_t* total);
void rows_digest(const RowReader* r, Hex hex);  // after the last row; equals dataset_digest
// What the reader saw besides the rows: notes, fields that nothing reads, layouts. Adds them to the report.
void rows_report(const RowReader* r, RowReport* report);
void rows_close(RowReader* r);

#ifdef __cplusplus
}
#endif
#endif
