/*
A mask of tokens beside rows: which of the tokens that carry loss are trained. Tensors row i64 (n), text_hash i64 (n),
start i64 (n + 1), keep u8 (start[n]); metadata digest, tokenizer, chat_template. It belongs to the rows of one file,
read by one tokenizer and template: anything else is refused, never shifted.
*/
#ifndef SEAL_TOKEN_MASK_H
#define SEAL_TOKEN_MASK_H

#include "rows/tokens.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int64_t n;
    int64_t* rows;     // (n) DataRow.id, ascending
    int64_t* start;    // (n + 1)
    uint64_t* hashes;  // (n)
    uint8_t* keep;     // (start[n]) 1: trained; of each row's tokens that carry loss, in their order
    Hex digest, tokenizer, chat;
} TokenMask;

// Fatal where the file is not a mask, or its tensors do not fit each other.
void token_mask_read(TokenMask* m, const char* path);
void token_mask_free(TokenMask* m);
void token_mask_write(const TokenMask* m, const char* path);
// Takes the loss off the tokens that the file drops. Fatal where it belongs to other rows, another tokenizer or
// template, or samples cut elsewhere. Returns the memory that the samples' flags are in from now on.
uint8_t* token_mask_apply(const char* path, TokenSet* set, const char* tokenizer);

#ifdef __cplusplus
}
#endif
#endif
