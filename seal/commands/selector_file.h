/*
selector.safetensors: a logit for each row of a file. logits f32 (N), row i64 (N), text_hash i64 (N), last_visit i64 (N)
where training wrote it; metadata as the struct's texts. A logit belongs to a row of one file, named by its digest;
another file is refused, never shifted.
*/
#ifndef SEAL_SELECTOR_FILE_H
#define SEAL_SELECTOR_FILE_H

#include "base/options.h"
#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int64_t n, n_rows;    // scored rows; records of the files they belong to
    float* logits;        // (n)
    int64_t* rows;        // (n) DataRow.id, ascending
    uint64_t* hashes;     // (n) TokenSet.hashes
    int64_t* last_visit;  // (n) the step (from 1) that drew the row last; 0: no step did. May be NULL. It is written
                          // for those who measure drift; selector_file_read leaves it out
    char* files;          // names, separated by spaces
    Hex digest;           // dataset_digest of the files; empty: a .pt file, which names no data
    Hex tokenizer;        // digest of the tokenizer the rows were measured with
    Hex chat;             // digest of the chat template they were written by; empty: none
    char algorithm[16], activation[16], schedule[256];
    int64_t seed;
    char path[PATH_ROOM];  // where it was read from
} SelectorFile;

void selector_file_write(const SelectorFile* s, const char* path);
// A selector.safetensors, or a PyTorch .pt (then rows are 0 … N − 1 and nothing else is known).
void selector_file_read(SelectorFile* s, const char* path);
void selector_file_free(SelectorFile* s);
// Ends the program where the selector was not learned on these files: another digest or another number of rows. A .pt
// file does not say which rows its logits belong to: it fits files with as many rows as it has logits, or with as many
// usable rows (`usable`: their ids; may be NULL).
void selector_file_check(SelectorFile* s, const StringList* files, const char* digest, int64_t n_rows,
                         const int64_t* usable, int64_t n_usable);
// σ of every logit: softmax N·exp(ω)/Σ exp(ω), mean 1; or sigmoid 2/(1+exp(−ω)).
void selector_weights(const float* logits, int64_t n, bool sigmoid, double* sigma);

#ifdef __cplusplus
}
#endif
#endif
