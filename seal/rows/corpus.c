/* Pretraining data. See corpus.h. */
#include <stdlib.h>
#include <string.h>
#include "rows/corpus.h"
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "base/safetensors.h"
#include "rows/byte_stream.h"
#include "tokenizer.h"

static void append(Corpus* c, const int32_t* tokens, int64_t n) {
    c->tokens = host_resize(c->tokens, (size_t)(c->n + n + 1) * sizeof *c->tokens, "tokens");
    memcpy(c->tokens + c->n, tokens, (size_t)n * sizeof *tokens);
    c->n += n;
}

static void read_token_file(Corpus* c, const char* path) {
    StReader file;
    st_open(&file, path);
    const StTensor* t = st_need(&file, "tokens");
    if (t->dtype != ST_I32) fatal("%s: tensor tokens is %s; expected I32", path, st_dtype_name(t->dtype));
    int32_t* tokens = host_alloc(t->bytes + 1, "tokens");
    memcpy(tokens, t->data, t->bytes);
    append(c, tokens, t->count);
    free(tokens);
    st_close(&file);
}

#define TEXT_MOST ((size_t)1 << 30)  // byte offsets of tokens are 32 bits wide
#define READ_BYTES ((size_t)1 << 18)

static void read_text(Corpus* c, const char* path, const Tokenizer* tokenizer) {
    Text text = {0};
    Encoding e = {0};
    ByteStream* stream = bytes_open(path);
    unsigned char* buffer = host_alloc(READ_BYTES, "a text");
    for (size_t n; (n = bytes_read(stream, buffer, READ_BYTES));) {
        if (text.n + n > TEXT_MOST)
            fatal("%s: more than the %zu bytes that a text may have; cut it into several files", path, TEXT_MOST);
        text_add(&text, buffer, n);
    }
    size_t mark = bytes_utf16(stream) && text.n >= 3 && !memcmp(text.s, "\xEF\xBB\xBF", 3) ? 3 : 0;
    bytes_close(stream);
    free(buffer);
    const char* s = text.s ? text.s + mark : "";
    if (tokenizer_encode(tokenizer, s, text.n - mark, tokenizer_default_flags(tokenizer), &e) < 0)
        fatal("%s: %s", path, e.error);
    append(c, e.ids, e.n);
    encoding_free(&e);
    text_free(&text);
}

static bool ends_with(const char* text, const char* end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

void corpus_open(Corpus* c, const StringList* files, const char* tokenizer_directory, int vocab, int window) {
    memset(c, 0, sizeof *c);
    Tokenizer* tokenizer = NULL;
    for (int f = 0; f < files->n; f++) {
        int64_t from = c->n;
        if (ends_with(files->items[f], ".safetensors")) read_token_file(c, files->items[f]);
        else {
            char error[512];
            if (!tokenizer && !(tokenizer = tokenizer_open(tokenizer_directory, error, sizeof error)))
                fatal("%s; a text file needs the model's tokenizer (a token file ends in .safetensors)", error);
            read_text(c, files->items[f], tokenizer);
        }
        for (int64_t i = from; i < c->n; i++)
            if (c->tokens[i] < 0 || c->tokens[i] >= vocab)
                fatal("%s: token %lld is %d but the model's vocabulary has %d tokens", files->items[f],
                      (long long)(i - from), c->tokens[i], vocab);
    }
    tokenizer_close(tokenizer);
    if (c->n < 2) fatal("%s: %lld tokens are too few to train on", files->items[0], (long long)c->n);
    sha256_hex(c->tokens, (size_t)c->n * sizeof *c->tokens, c->digest);
    c->window = window;
    c->n_windows = (c->n - 1 + window - 2) / (window - 1);
}

void corpus_close(Corpus* c) {
    free(c->tokens);
    memset(c, 0, sizeof *c);
}

PackSample corpus_window(const Corpus* c, int64_t i) {
    int64_t from = i * (c->window - 1), left = c->n - from;
    int length = (int)(left < c->window ? left : c->window);
    return (PackSample){c->tokens + from, NULL, length, length - 1, i};
}
