/*
Pretraining data: one long run of tokens, cut into windows. A token file is a safetensors file with one I32 tensor
`tokens`; anything else is text (also .gz, .zst and UTF-16) and goes through the model's tokenizer.
*/
#ifndef SEAL_CORPUS_H
#define SEAL_CORPUS_H

#include "base/options.h"
#include "base/text.h"
#include "rows/packing.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int32_t* tokens;
    int64_t n;
    int window;  // tokens of a sample; the last token of one is the first of the next, so every token but the first is
                 // predicted once
    int64_t n_windows;
    Hex digest;  // SHA-256 of the tokens
} Corpus;

// Reads and joins the files. Every id is checked against the vocabulary. tokenizer_directory: where a text's tokenizer
// is.
void corpus_open(Corpus* c, const StringList* files, const char* tokenizer_directory, int vocab, int window);
void corpus_close(Corpus* c);
PackSample corpus_window(const Corpus* c, int64_t i);

#ifdef __cplusplus
}
#endif
#endif
