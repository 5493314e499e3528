/* What every tokenizer that opens must do, whatever file it came from: encode any text into ids of its own that cover
   the text from left to right, decode them, and decode them one by one to the same text. */
#ifndef TOKENIZER_CHECK_H
#define TOKENIZER_CHECK_H

#include <string.h>
#include "fuzz.h"
#include "tokenizer.h"

static void check_one_line(const char* error) { MUST(*error && !strchr(error, '\n')); }

static void check_text(const Tokenizer* t, const char* text, size_t n, int flags, Encoding* e) {
    char error[256] = "";
    size_t length = 0, at = 0;
    int64_t got = tokenizer_encode(t, text, n, flags, e);
    if (got < 0) {
        check_one_line(e->error);
        return;
    }
    MUST(got == e->n);
    for (int64_t i = 0; i < got; i++) {
        MUST(tokenizer_piece(t, e->ids[i], NULL));
        MUST(0 <= e->start[i] && e->start[i] <= e->end[i] && e->end[i] <= (int64_t)n);
        MUST(!i || e->end[i] == 0 || (e->start[i] >= e->start[i - 1] && e->end[i] >= e->end[i - 1]));
    }
    for (int special = 0; special < 2; special++) {
        char* whole = tokenizer_decode(t, e->ids, got, special, &length, error, sizeof error);
        MUST(whole);
        char* parts = malloc(length + 3 * (size_t)got + 16);
        char* out = malloc((size_t)tokenizer_longest_piece(t) + 8);
        TokenStream s = {0};
        at = 0;
        for (int64_t i = 0; i < got; i++) {
            int k = tokenizer_stream_push(t, &s, e->ids[i], special, out);
            MUST(k >= 0 && at + (size_t)k <= length);
            memcpy(parts + at, out, (size_t)k);
            at += (size_t)k;
        }
        // What the end brings is the rest; bytes that are not UTF-8 there come out as U+FFFD.
        int k = tokenizer_stream_end(t, &s, out);
        MUST(k >= 0 && !memcmp(parts, whole, at));
        MUST((at + (size_t)k == length && !memcmp(out, whole + at, (size_t)k)) ||
             (k >= 3 && !memcmp(out + k - 3, "\xEF\xBF\xBD", 3) && length - at < (size_t)k + 3));
        free(parts);
        free(out);
        free(whole);
    }
}

static void check_tokenizer(const Tokenizer* t, const uint8_t* data, size_t n) {
    static const char* const texts[] = {
        "Hello  world",
        " caf\xC3\xA9 123\n\n\t\xE4\xBD\xA0\xE5\xA5\xBD ",
        "e\xCC\x81\xEF\xAC\x81\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x92\xBB",
        "\xFF\xC3(\xE2\x82 a\xED\xA0\x80",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa <s></s> <|endoftext|>",
        "\xE2\x96\x81\xE2\x96\x81 a\xE2\x96\x81"};
    const int all = TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL;
    char error[256];
    size_t length;
    Encoding e = {0};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        check_text(t, texts[i], strlen(texts[i]), all, &e);
        check_text(t, texts[i], strlen(texts[i]), 0, &e);
    }
    check_text(t, "", 0, all, &e);
    check_text(t, (const char*)data, n < 512 ? n : 512, all, &e);  // the file's own words
    check_text(t, (const char*)data + n - (n < 64 ? n : 64), n < 64 ? n : 64, 0, &e);
    int32_t outside[2] = {tokenizer_vocab_size(t), -1};
    for (int i = 0; i < 2; i++) {
        MUST(!tokenizer_decode(t, outside + i, 1, true, &length, error, sizeof error));
        check_one_line(error);
    }
    encoding_free(&e);
}

static int check_file(const char* name, const uint8_t* data, size_t n) {
    char error[300] = "";
    Tokenizer* t = tokenizer_open_memory(name, data, n, error, sizeof error);
    if (t) check_tokenizer(t, data, n);
    else check_one_line(error);
    tokenizer_close(t);
    return 0;
}

#endif
