/* The kept rows, written byte for byte, and the explanation of what was kept. */
#ifndef SEAL_SELECTION_H
#define SEAL_SELECTION_H

#include "rows/dataset.h"

#ifdef __cplusplus
extern "C" {
#endif

// Proves before hours of scoring that kept_write can write the files' rows to `out`: its format, the headers of
// .csv, the disk; none of them is `out`.
void kept_check_output(const StringList* files, const char* out);
// The rows with keep[id], byte for byte, in the files' order. Output .jsonl or .json takes either kind of input, .csv
// takes csv files of one header. Returns the number of rows written. keep has n_rows entries. digest (NULL: any): of
// the files as they were scored (dataset_digest); others are fatal. quiet: no progress.
int64_t kept_write(const StringList* files, const uint8_t* keep, int64_t n_rows, const char* digest, const char* out,
                   bool quiet);

typedef struct {
    const int64_t* rows;   // (n) ids of the candidates, ascending
    const double* score;   // (n)
    const int64_t* order;  // (n) of score_order
    const double* sigma;   // (n) weight; NULL: no column
    const float* loss;     // (n) NaN: not known; NULL: no column
    int64_t n, kept;
    int show;  // rows from either end
    struct {
        const char* name;    // at most 11 characters
        const float* value;  // (n)
    } more[3];               // further columns
    int n_more;
} Explanation;
void kept_explain(const Explanation* e, const StringList* files, const RowOptions* options, FILE* out);
// At most `most` characters of UTF-8 text on one line: control and direction characters escaped, "…" where it was cut.
// Returns the characters written.
int print_excerpt(const char* text, size_t n, int most, FILE* out);

#ifdef __cplusplus
}
#endif
#endif
