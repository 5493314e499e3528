/* seal/rows/dataset.c and layouts.c. Input: a byte for the file's kind, a byte for the options, then the file. */
#include <string.h>
#include "rows/dataset.h"
#include "fuzz.h"

static RowOptions options;

static void body(void* path) {
    const char* items[2] = {path, path};
    StringList files = {items, 2};
    RowReader* r = rows_open(&files, &options);
    DataRow row;
    RowReport report = {0};
    int64_t rows = 0, done, total;
    uint64_t end = 0;
    char hex[65], again[65];
    while (rows_next(r, &row)) {
        MUST(row.id == rows++ && (row.row == 0 || row.offset >= end));
        end = row.offset + row.length;
        MUST(row.prompt && (options.turns || strlen(row.prompt) == row.prompt_length) && row.response &&
             strlen(row.response) == row.response_length);
        MUST(row.state != ROW_OK || options.prompts_only || row.response_length);
        row_report_add(&report, &row, path, NULL);
        rows_progress(r, &done, &total);
    }
    MUST(rows % 2 == 0);  // the same file twice
    rows_digest(r, hex);
    rows_close(r);
    dataset_digest(&files, again);
    MUST(!strcmp(hex, again));
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    static const char* const names[] = {"a.jsonl", "a.json", "a.csv", "b.jsonl.gz", "b.json.gz", "b.csv.gz"};
    static const RowOptions choices[] = {
        {0},
        {.prompts_only = true},
        {.prompt_template = "Q: {prompt}\\nA:"},
        {.prompt_field = "{instruction}\\n{input}", .response_field = "output"},
        {.prompt_field = "messages.0.content", .response_field = "messages.1.content"},
        {.response_field = "rejected"},
        {.prompts_only = true, .turns = true},
    };
    if (n < 2) return -1;
    options = choices[data[1] % 7];
    survive(body, (void*)fuzz_file(names[data[0] % 6], data + 2, n - 2));
    return 0;
}
