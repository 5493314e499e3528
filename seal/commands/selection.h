/*
From scores to a smaller file: selector files, the table of selection methods, the top share of the rows, the kept rows
written byte for byte, and the explanation of a selection. A score belongs to a row of one file, told by its digest;
another file is refused, never shifted.
*/
#ifndef SEAL_SELECTION_H
#define SEAL_SELECTION_H

#include "rows/dataset.h"

#ifdef __cplusplus
extern "C" {
#endif

// ---------------------------------------------------------------------------------------------------
// selector files: logits f32 (N), row i64 (N), text_hash i64 (N), last_visit i64 (N) where training wrote it; metadata
// as the struct's texts

typedef struct {
    int64_t n, n_rows;    // scored rows; records of the files they belong to
    float* logits;        // (n)
    int64_t* rows;        // (n) DataRow.id, ascending
    uint64_t* hashes;     // (n) TokenSet.hashes
    int64_t* last_visit;  // (n) the step, from 1, that drew a row last, 0: none did. Only written: whoever measures
                          // drift reads the tensor. May be NULL
    char* files;          // names, separated by spaces
    char digest[65];      // dataset_digest of the files; empty: a .pt file, which names no data
    char tokenizer[65];   // digest of the tokenizer the rows were measured with
    char algorithm[16], activation[16], schedule[256];
    int64_t seed;
    char path[4096];  // where it was read from
} SelectorFile;

void selector_file_write(const SelectorFile* s, const char* path);
// A selector.safetensors, or a PyTorch .pt (then rows are 0 … N − 1 and nothing else is known).
void selector_file_read(SelectorFile* s, const char* path);
void selector_file_free(SelectorFile* s);
// Fatal where the selector was not learned on these files: another digest or another number of rows.
// A .pt file numbers the rows its program kept: it fits files with as many rows in all, or as many usable ones
// (`usable`: their ids, may be NULL).
void selector_file_check(SelectorFile* s, const StringList* files, const char* digest, int64_t n_rows,
                         const int64_t* usable, int64_t n_usable);
// σ of every logit: softmax N·exp(ω)/Σ exp(ω), mean 1; or sigmoid 2/(1+exp(−ω)).
void selector_weights(const float* logits, int64_t n, bool sigmoid, double* sigma);

// ---------------------------------------------------------------------------------------------------
// methods

typedef struct {
    const SelectorFile* selector;  // method seal
    const double* scores;  // (n) methods whose score comes from a model or a target: higher is kept first (safe-loss:
                           // −loss, dsir: log weight)
    uint64_t seed;         // methods random and dsir
    bool noise;            // method dsir: Gumbel noise on the log weights, so that the kept rows are a sample by weight
} SelectionInput;

typedef enum { SCORE_FROM_SELECTOR, SCORE_FROM_SEED, SCORE_FROM_MODEL, SCORE_FROM_TARGET } ScoreSource;

typedef struct {
    const char* name;
    ScoreSource source;
    void (*score)(const SelectionInput* in, const int64_t* rows, int64_t n, double* score);
    const char* help;
} SelectionMethod;
const SelectionMethod* selection_method(const char* name);  // fatal with the list of names where there is none
// A score for each of the candidate rows; −∞ for a row the selector has no logit for. Returns how many those are.
int64_t selection_score(const SelectionMethod* m, const SelectionInput* in, const int64_t* rows, int64_t n,
                        double* score);

// order (n): indices by falling score, ties by row; returns ⌊top·n⌋, the number of `order` to keep. 0 < top ≤ 1. A
// score that is not a number is fatal.
int64_t selection_order(const double* score, const int64_t* rows, int64_t n, double top, int64_t* order);

// ---------------------------------------------------------------------------------------------------
// results

// Proves before hours of scoring that selection_write can write the files' rows to `out`: its format, the headers of
// .csv, the disk; none of them is `out`.
void selection_check_output(const StringList* files, const char* out);
// The rows with keep[id], byte for byte, in the files' order. Output .jsonl or .json takes either kind of input, .csv
// takes csv files of one header. Returns the number of rows written. keep has n_rows entries. quiet: no progress.
int64_t selection_write(const StringList* files, const uint8_t* keep, int64_t n_rows, const char* out, bool quiet);

typedef struct {
    const int64_t* rows;   // (n) ids of the candidates, ascending
    const double* score;   // (n)
    const int64_t* order;  // (n) of selection_order
    const double* sigma;   // (n) weight; NULL: no column
    const float* loss;     // (n) NaN: not known; NULL: no column
    int64_t n, kept;
    int show;  // rows from either end
} Explanation;
void selection_explain(const Explanation* e, const StringList* files, const RowOptions* options, FILE* out);
// At most `most` characters of UTF-8 text on one line: control and direction characters escaped, "…" where it was cut.
// Returns the characters written.
int print_excerpt(const char* text, size_t n, int most, FILE* out);

#ifdef __cplusplus
}
#endif
#endif
