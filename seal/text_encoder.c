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

// Files of a tokenizer in a model's directory. Those that decide the ids make its digest; the others only travel along.
static const struct { const char* name; bool decides; } files[] = {
    {"tokenizer.json", true}, {"tokenizer.model", true}, {"encoder.json", true}, {"vocab.bpe", true}, {"vocab.json", true}, {"merges.txt", true},
    {"tokenizer_config.json", false}, {"special_tokens_map.json", false}, {"generation_config.json", false},
};
#define N_FILES (sizeof files / sizeof *files)
static const char* const endings[2] = {"", ".gz"};

static bool is_directory(const char* path) {
    struct stat info;
    return !stat(path, &info) && S_ISDIR(info.st_mode);
}

void tokenizer_copy(const char* from, const char* to_directory) {
    char path[4200], name[64], error[512];
    if (is_directory(from)) {
        for (size_t i = 0; i < 2 * N_FILES; i++) {
            snprintf(name, sizeof name, "%s%s", files[i / 2].name, endings[i % 2]);
            snprintf(path, sizeof path, "%s/%s", from, name);
            if (file_exists(path)) file_copy(path, to_directory, name);
        }
        return;
    }
    Tokenizer* t = tokenizer_open(from, error, sizeof error);
    if (!t) fatal("%s", error);
    const char *format = tokenizer_format(t), *slash = strrchr(from, '/'), *ending = strlen(from) > 3 && !strcmp(from + strlen(from) - 3, ".gz") ? ".gz" : "";
    if (strstr(format, " + ")) {  // a pair of files: the other one lies beside it
        snprintf(path, sizeof path, "%.*s", slash ? (int)(slash - from) : 1, slash ? from : ".");
        tokenizer_copy(path, to_directory);
    } else {
        snprintf(name, sizeof name, "%s%s", strcmp(format, "tokenizer.json") ? "tokenizer.model" : "tokenizer.json", ending);
        file_copy(from, to_directory, name);
    }
    tokenizer_close(t);
}

// Of the tokenizer's file, or of those files of a directory that make a tokenizer.
static void digest(const char* path, char hex[65]) {
    Text all = {0};
    if (!is_directory(path)) {
        file_sha256_hex(path, hex);
        return;
    }
    for (size_t i = 0; i < N_FILES && files[i].decides; i++)
        for (int gz = 0; gz < 2; gz++) {
            char file[4200], one[65];
            snprintf(file, sizeof file, "%s/%s%s", path, files[i].name, endings[gz]);
            if (!file_exists(file)) continue;
            file_sha256_hex(file, one);
            text_add(&all, files[i].name, strlen(files[i].name));
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
