/* The readers of data files: byte streams, records, rows, conversations. Input: a byte for the file's kind, a byte for
 * the options, then the file. */
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
    Hex hex, again;
    while (rows_next(r, &row)) {
        MUST(row.id == rows++ && (row.row == 0 || row.offset >= end));
        end = row.offset + row.length;
        MUST(row.prompt && (options.turns || strlen(row.prompt) == row.prompt_length) && row.response &&
             strlen(row.response) == row.response_length);
        const Conversation* c = row.conversation;
        MUST(row.state != ROW_OK || options.prompts_only || options.conversations || row.response_length);
        MUST(row.state != ROW_OK || (c->n > 0 && c->weight >= 0 && (c->answered || options.prompts_only)));
        for (int i = 0; i < c->n && row.state == ROW_OK; i++) {
            const Message* m = &c->messages[i];
            MUST(strlen(m->content) == m->length && m->weight >= 0 && m->role_name &&
                 (options.conversations || m->role <= ROLE_ASSISTANT));
        }
        if (row.row % 3 == 2) {  // a conversation may be moved out
            Conversation moved = *row.conversation;
            *row.conversation = (Conversation){0};
            conversation_free(&moved);
        }
        row_report_add(&report, &row, path, NULL);
        rows_progress(r, &done, &total);
    }
    MUST(rows % 2 == 0);  // the same file twice
    rows_report(r, &report);
    MUST(report.n_unread <= ROW_REPORT_TALLIES && report.n_layouts <= ROW_REPORT_TALLIES);
    rows_digest(r, hex);
    rows_close(r);
    dataset_digest(&files, again);
    MUST(!strcmp(hex, again));
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    static const char* const names[] = {"a.jsonl",  "a.json", "a.csv",      "b.jsonl.gz", "b.json.gz",
                                        "b.csv.gz", "a.tsv",  "c.json.zst", "c.jsonl.zst"};
    enum { N_NAMES = sizeof names / sizeof *names };
    static const RowOptions choices[] = {
        {0},
        {.prompts_only = true},
        {.prompt_template = "Q: {prompt}\\nA:"},
        {.prompt_field = "{instruction}\\n{input}", .response_field = "output"},
        {.prompt_field = "messages.0.content", .response_field = "messages.1.content"},
        {.response_field = "rejected"},
        {.prompts_only = true, .turns = true},
        {.conversations = true},
    };
    if (n < 2) return -1;
    options = choices[data[1] % (sizeof choices / sizeof *choices)];
    survive(body, (void*)fuzz_file(names[data[0] % N_NAMES], data + 2, n - 2));
    return 0;
}
