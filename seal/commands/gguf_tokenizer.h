/*
The tokenizer of a GGUF file as Hugging Face's files: tokenizer.json rebuilt from tokenizer.ggml.* (byte-level BPE with
the pre-tokenizer that tokenizer.ggml.pre names, or sentencepiece's BPE from pieces and scores), tokenizer_config.json
with the chat template, generation_config.json.
*/
#ifndef SEAL_GGUF_TOKENIZER_H
#define SEAL_GGUF_TOKENIZER_H

#include "base/gguf.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    char *tokenizer, *config, *generation;        // the text of each file
    size_t length;                                // of the first
    const char* kind;                             // "byte-level BPE", "sentencepiece BPE"
    const char* pre;                              // the pre-tokenizer's name; NULL for sentencepiece
    int n_tokens, n_unused, n_special, n_merges;  // unused: padding of the vocabulary, left out
    bool adds_bos, adds_eos, has_template;
} GgufTokenizer;

// pre: the pre-tokenizer where the file names none; NULL: then it must. vocab: rows of the model's embedding; more
// tokens are refused. max_length: what the model can read.
void gguf_tokenizer(GgufTokenizer* t, const GgufReader* r, const char* pre, int vocab, int max_length);
void gguf_tokenizer_free(GgufTokenizer* t);

#ifdef __cplusplus
}
#endif
#endif
