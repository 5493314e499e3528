/*
The cache of a set's tokens, which tokens.c writes and reads: a safetensors file that is believed only if its digests
are right. Tensors rows, hashes, offsets (i64), first, tokens (i32); where rows have weights, those (f32); where a chat
template wrote the rows, which tokens carry loss (u8). Metadata: key (what was tokenised, and how), content (digest of
the data), report.
*/
#ifndef SEAL_TOKEN_CACHE_H
#define SEAL_TOKEN_CACHE_H

#include "rows/tokens.h"

// The usable rows of the files, as they are tokenised: a few dozen bytes of each in memory, tokens and flags in files.
typedef struct {
    int64_t *rows, *offsets;  // (n), (n + 1)
    uint64_t* hashes;
    int32_t* first;
    float* weights;
    bool weighted;  // one of them is not 1
    int64_t n, capacity, n_cut, n_rows, n_last_only, n_joined;
    int spool, mask_spool;  // descriptors of unlinked files of int32, and of flags
    FILE *stream, *masks;   // masks NULL: a sample's loss begins at `first` and has no end
    char path[PATH_ROOM];
} TokenSpool;

// Where a set's data are; weights and loss may be NULL.
typedef struct {
    int64_t n;
    const int64_t *rows, *offsets;
    const uint64_t* hashes;
    const int32_t *first, *tokens;
    const float* weights;
    const uint8_t* loss;
} TokenSetData;

// Fills the set's samples, rows, hashes and counts. tokens, weights and loss stay where they are.
void token_set_fill(TokenSet* set, const TokenSetData* d, int max_length);

// SHA-256 of all that decides the tokens: digest (of the files), tokenizer, template, options.
void token_cache_key(Hex key, const char* digest, const TextEncoder* e, const TokenOptions* o);
// tokens and masks: the spool's two files, mapped; masks NULL where it has none.
void token_cache_write(const TokenSet* set, const TokenSpool* b, const void* tokens, const void* masks,
                       const char* path, const char* key);
// False where there is no cache, or none that this key, max_length and vocab may use: a warning says why (not with
// quiet). True: the set is filled, and its data are in set->file.
bool token_cache_open(TokenSet* set, const char* path, const char* key, int max_length, int vocab, bool quiet);

#endif
