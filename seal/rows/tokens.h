/*
Rows to samples: prompt, response, a space and the end-of-sequence text are tokenised at once, on all cores, and cached
next to the run. A token carries loss if it covers any character of the response (what follows it included); --compat
counts as the reference does, the tokens of the prompt tokenised alone. With a chat template chat_rows.h says what is
tokenised, and what carries loss.
*/
#ifndef SEAL_TOKENS_H
#define SEAL_TOKENS_H

#include "rows/dataset.h"
#include "base/file.h"
#include "rows/chat_rows.h"
#include "rows/packing.h"

#ifdef __cplusplus
extern "C" {
#endif

// What this room needs of a tokenizer. Several threads use one encoder, each with a scratch of its own.
typedef struct {
    void* self;
    void* (*begin)(void* self);  // a thread's scratch
    void (*finish)(void* self, void* scratch);
    // Text to ids, and the bytes [start, end) of the text each covers (none: start = end). Special tokens are read
    // where the text spells them, and those that frame a text are added. Pointers are valid until the next call with
    // this scratch. Returns the number of ids, −1 with *error.
    int64_t (*encode)(void* self, void* scratch, const char* text, size_t n, const int32_t** ids, const int32_t** start,
                      const int32_t** end, const char** error);
    int vocab;         // largest id + 1
    int32_t bos, eos;  // −1: none
    const char* eos_text;
    Hex digest;                                                      // of the tokenizer's files
    bool (*begins_special)(void* self, const char* text, size_t n);  // whether a text begins with a special token's
} TextEncoder;

// The encoder of a tokenizer file or directory (tokenizer/tokenizer.h). eos ≥ 0: the model's end of sequence, for a
// tokenizer whose files name none; where they name another, one line on stderr says so.
void text_encoder_open(TextEncoder* e, const char* path, int32_t eos);
void text_encoder_close(TextEncoder* e);
// One line: the tokenizer's file, its vocabulary, BOS, EOS, the token that ends a turn, and the chat template. turn_end
// −1: the one of the usual names that the tokenizer has, if any.
void text_encoder_print(const TextEncoder* e, int32_t turn_end, const char* chat_template, FILE* out);
// A tokenizer travels with its model: copies a directory's tokenizer files, or one file under the name by which a
// model's directory is read.
void tokenizer_copy(const char* from, const char* to_directory);

typedef struct {
    RowOptions rows;
    const ChatFormat* chat;  // the template by which conversations are written; NULL: as the reference writes them
    int max_length;          // tokens of a sample, eos included
    int vocab;               // of the model: a larger id is an error; 0: not checked
    bool compat, quiet;
    bool silent;           // not even the line that tells, with quiet, how many rows are left out: for ranks above 0
    int threads;           // 0: all cores
    const char* cache;     // file; NULL: none
    AtomicFile* left_out;  // gets one line per bad row, all of them; NULL: none. Not with a cache, which knows the
                           // first ten only
} TokenOptions;

typedef struct {
    PackSample* samples;  // (n) tokens and flags live in a mapped file
    int64_t* rows;        // (n) row over all files in order, ascending (DataRow.id)
    uint64_t* hashes;     // (n) first 8 bytes of SHA-256 of prompt, zero, response
    int n;
    int64_t n_rows;                   // records of the files, usable or not
    int64_t n_tokens, n_loss, n_cut;  // n_cut: samples truncated to max_length
    int64_t n_joined;                 // rows whose content in parts the template does not take as a list
    int64_t n_weighted;               // samples whose row has a weight other than 1
    int64_t n_last_only;              // of samples with loss on all answers: those whose template rewrites earlier ones
    char chat[256];                   // the chat template's name, as headers have it; "none"
    Hex chat_digest;                  // of its text; "": none
    const float* weights;             // (n) of the rows, in `file`; NULL: all are 1
    int longest;
    bool cached;  // came from the cache
    Hex digest;   // dataset_digest of the files
    RowReport report;
    const int32_t* tokens;  // (n_tokens) in `file`
    MappedFile file;
    uint8_t* flags;    // (2 max_length) zeros, then ones: every sample's bears_loss points into it, or into `file`
    MappedFile masks;  // of a set without a cache that a chat template wrote
    float* kept;       // its weights
} TokenSet;

// All rows unusable is fatal; bad rows are listed on stderr unless quiet.
void tokens_load(TokenSet* set, const StringList* files, const TextEncoder* encoder, const TokenOptions* options);
void tokens_free(TokenSet* set);
// One line where rows of a set have weights that its user does not read. `of`: "D_safe".
void tokens_unweighted(const TokenSet* set, const char* path, const char* of);
// One line: rows, tokens, loss share, rows cut and left out. The rows left out were named by tokens_load.
void tokens_print(const TokenSet* set, const char* what, FILE* out);
uint64_t row_hash(const char* prompt, size_t prompt_length, const char* response, size_t response_length);

#ifdef __cplusplus
}
#endif
#endif
