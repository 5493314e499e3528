/*
Exact tokenizers: text to token ids and back, id by id as Hugging Face `tokenizers` (tokenizer.json), tiktoken (ranks)
and sentencepiece (tokenizer.model) do it, with the bytes of the text that every token covers. A Tokenizer never changes
once open: any number of threads may use one, each with an Encoding of its own. The library knows no tensors and prints
nothing; errors are one line in the caller's buffer. Only where no memory is left does it end the program, with a line
on stderr and status 2.
*/
#ifndef TOKENIZER_H
#define TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Tokenizer Tokenizer;

enum {
    TOKENIZER_ADD_SPECIAL = 1,  // add what the post-processor adds around one text (BOS, EOS)
    // Text spelled like a special token becomes that token; without this flag such text is ordinary text.
    TOKENIZER_PARSE_SPECIAL = 2,
};

// What one text became. Start with {0}, use it for as many texts as you like (it keeps its buffers and a cache of
// words), one thread at a time.
typedef struct {
    int32_t* ids;  // (n)
    // (n) token i covers bytes [start, end) of the original text; what ADD_SPECIAL adds covers [0, 0)
    int32_t *start, *end;
    int64_t n;
    char error[256];                   // why tokenizer_encode returned −1
    struct TokenizerScratch* scratch;  // the library's own
} Encoding;

// Decoding one token at a time: text comes out as soon as its UTF-8 is complete and no step of the decoder can change
// it. Start with {0}.
enum { TOKENIZER_STAGES = 8, TOKENIZER_HELD = 32 };
typedef struct {
    bool started;
    unsigned char pending[4];
    int n_pending;
    struct TokenStage {
        int32_t count, waiting;
        uint32_t n;
        char held[TOKENIZER_HELD];
    } stage[TOKENIZER_STAGES];
} TokenStream;

// Opens a directory (tokenizer.json, tokenizer.model, encoder.json + vocab.bpe, vocab.json + merges.txt, each also .gz)
// as transformers' AutoTokenizer does, with the files beside (tokenizer_config.json, special_tokens_map.json,
// added_tokens.json); or one such file on its own, as the format's own library does. NULL: `error` holds one line:
// what, where, what to do.
Tokenizer* tokenizer_open(const char* path, char* error, size_t error_size);
// The same from memory. `name` is used in messages; only self-contained formats (tokenizer.json, tokenizer.model,
// tiktoken ranks).
Tokenizer* tokenizer_open_memory(const char* name, const void* data, size_t n, char* error, size_t error_size);
void tokenizer_close(Tokenizer* t);

// Text of `length` bytes (any bytes; those that are not UTF-8 become byte tokens where the tokenizer has them) to
// e->ids. Returns n, or −1 with e->error.
int64_t tokenizer_encode(const Tokenizer* t, const char* text, size_t length, int flags, Encoding* e);
void encoding_free(Encoding* e);

// Where in a text somebody's own words are, between what a template writes.
typedef struct {
    size_t start, end;
} TextRange;
typedef struct {
    const TextRange* ranges;  // (n) bytes [start, end), ascending, none inside another
    int n;
    const int32_t* guarded;  // (n_guarded) added tokens that count as special here though their file does not say so:
    int n_guarded;           // <|im_start|> is one in some published models
} PlainText;

// tokenizer_encode with TOKENIZER_PARSE_SPECIAL for the template's part of a text and without it for the plain part: a
// special or guarded token is read only where none of its bytes is plain. All else is as if the text were one, so words
// and offsets run across the borders.
int64_t tokenizer_encode_mixed(const Tokenizer* t, const char* text, size_t length, const PlainText* plain, int flags,
                               Encoding* e);

// Ids back to bytes. Returns a malloc'ed, zero-terminated buffer and its length, or NULL with `error` (an id out of
// range). Special tokens are left out unless with_special. Byte tokens that do not form UTF-8 come out as the bytes
// they are.
char* tokenizer_decode(const Tokenizer* t, const int32_t* ids, int64_t n, bool with_special, size_t* length,
                       char* error, size_t error_size);
// Appends the text that `id` completes to `out` (room for tokenizer_longest_piece() + 8 bytes). Returns the number of
// bytes, −1 for an id out of range.
int tokenizer_stream_push(const Tokenizer* t, TokenStream* s, int32_t id, bool with_special, char* out);
// What is left: an incomplete sequence comes out as U+FFFD. The same room; returns the number of bytes.
int tokenizer_stream_end(const Tokenizer* t, TokenStream* s, char* out);

int tokenizer_vocab_size(const Tokenizer* t);     // largest id + 1
int tokenizer_longest_piece(const Tokenizer* t);  // bytes of the longest token, decoded
int32_t tokenizer_bos(const Tokenizer* t);        // −1: none
int32_t tokenizer_eos(const Tokenizer* t);        // −1: none
// Whether the files of the tokenizer name its end of sequence (tokenizer_config.json, special_tokens_map.json); where
// they do not, tokenizer_eos is what its class or its file suggests, and a model's config.json knows better.
bool tokenizer_names_eos(const Tokenizer* t);
// What the files beside changed, one text for the same changes, malloc'ed; empty where the tokenizer is as its own file
// has it.
char* tokenizer_changes(const Tokenizer* t);
// Lines for the caller that opened the tokenizer: where its files disagree, and what was done. NULL after the last.
const char* tokenizer_note(const Tokenizer* t, int i);
int32_t tokenizer_id(const Tokenizer* t, const char* piece);  // as written in the tokenizer's file; −1: none
// As written in the file, zero-terminated; NULL: no such id.
const char* tokenizer_piece(const Tokenizer* t, int32_t id, int* length);
bool tokenizer_is_special(const Tokenizer* t, int32_t id);
// Path of the file it was read from (i 0), and of the second (1: merges) where there are two; else NULL.
const char* tokenizer_file(const Tokenizer* t, int i);
// "tokenizer.json", "tiktoken ranks", "encoder.json + vocab.bpe", "sentencepiece".
const char* tokenizer_format(const Tokenizer* t);
// The flags that make tokenizer_encode do what the format's own library does by default with special-token text
// (Hugging Face reads it, tiktoken and sentencepiece do not).
int tokenizer_default_flags(const Tokenizer* t);

#ifdef __cplusplus
}
#endif
#endif
