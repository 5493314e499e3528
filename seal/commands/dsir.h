/*
DSIR (Xie et al. 2023): rows of D_tune weighted by how much likelier their words are in D_safe. Words and pairs of words
are hashed into buckets; the log weight of a row is the sum over its words of log q − log p, q and p the shares of a
bucket in the target and in the data. Not normalised by length.
*/
#ifndef SEAL_DSIR_H
#define SEAL_DSIR_H

#include "rows/dataset.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DSIR_BUCKETS 10000
#define DSIR_TEMPLATE "{prompt}\n"  // the marks of a chat template would be in every row and tell nothing

typedef struct {
    RowOptions rows;  // of both files; prompt_template NULL: DSIR_TEMPLATE
    int threads;      // 0: all cores
    bool quiet;
} DsirOptions;

typedef struct {
    int64_t n, n_rows;   // usable rows; records of the files
    int64_t* rows;       // (n) DataRow.id, ascending
    double* log_weight;  // (n) without noise
    int32_t* words;      // (n) of the row
    Hex digest;          // dataset_digest of the data
} DsirScores;

// A row's text is its prompt and its response. Data or target without a word is fatal.
void dsir_score(DsirScores* s, const StringList* data, const StringList* target, const DsirOptions* options);
void dsir_free(DsirScores* s);

// The parts, for tests. Lower case and words as Python's str.lower() and the expression \w+|[^\w\s]+ have them; `use`
// gets every word's bytes.
void dsir_words(const char* text, size_t n, void (*use)(void* context, const char* word, size_t n), void* context);
// SHA-256 of the bytes as a big-endian number, mod DSIR_BUCKETS.
int dsir_bucket(const char* bytes, size_t n);

#ifdef __cplusplus
}
#endif
#endif
