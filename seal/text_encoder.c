/* The tokenizer library behind the function table of tokens.h. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "error.h"
#include "file.h"
// defines: Tokenizer, Encoding
#include "tokenizer.h"
#include "tokens.h"

static void* begin(void* self) {
    (void)self;
    Encoding* e = calloc(1, sizeof *e);
    if (!e) fatal("out of memory for a tokenizer's scratch");
    return e;
}

static void finish(void* self, void* scratch) {
    (void)self;
    encoding_free(scratch);
    free(scratch);
}

static int64_t encode(void* self, void* scratch, const char* text, size_t n, const int32_t** ids, const int32_t** start, const int32_t** end, const char** error) {
    Encoding* e = scratch;
    int64_t got = tokenizer_encode(self, text, n, TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, e);
    *ids = e->ids;
    *start = e->start;
    *end = e->end;
    *error = e->error;
    return got;
}

// Of the tokenizer's file, or of those files of a directory that make a tokenizer.
static void digest(const char* path, char hex[65]) {
    static const char* const names[] = {"tokenizer.json", "tokenizer.model", "encoder.json", "vocab.bpe", "vocab.json", "merges.txt"};
    struct stat info;
    Text all = {0};
    if (!stat(path, &info) && !S_ISDIR(info.st_mode)) {
        file_sha256_hex(path, hex);
        return;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (int gz = 0; gz < 2; gz++) {
            char file[4200], one[65];
            snprintf(file, sizeof file, "%s/%s%s", path, names[i], gz ? ".gz" : "");
            if (!file_exists(file)) continue;
            file_sha256_hex(file, one);
            text_add(&all, names[i], strlen(names[i]));
            text_add(&all, one, 64);
        }
    sha256_hex(all.s ? all.s : "", all.n, hex);
    text_free(&all);
}

void text_encoder_open(TextEncoder* e, const char* path, int32_t eos) {
    char error[512];
    Tokenizer* t = tokenizer_open(path, error, sizeof error);
    if (!t) fatal("%s", error);
    if (eos < 0) eos = tokenizer_eos(t);
    int length;
    const char* piece = eos < 0 ? NULL : tokenizer_piece(t, eos, &length);
    if (!piece) fatal("%s: the tokenizer has no end-of-sequence token", path);
    *e = (TextEncoder){t, begin, finish, encode, tokenizer_vocab_size(t), tokenizer_bos(t), eos, piece, ""};
    digest(path, e->digest);
}

void text_encoder_close(TextEncoder* e) {
    tokenizer_close(e->self);
    memset(e, 0, sizeof *e);
}
