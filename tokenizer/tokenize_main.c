/* tokenize: text on stdin to ids on stdout, or back. All of stdin is one text, byte for byte. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// defines: tokenizer_open, tokenizer_encode, tokenizer_decode
#include "tokenizer.h"

__attribute__((format(printf, 1, 2), noreturn)) static void stop(const char* format, ...);

#include <stdarg.h>
static void stop(const char* format, ...) {
    va_list args;
    va_start(args, format);
    fputs("tokenize: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}

static void help(void) {
    puts("tokenize --tokenizer DIR_OR_FILE [--decode] [--special]     text on stdin to token ids on stdout; all of stdin is one text, byte for byte\n"
         "  --tokenizer PATH  a model's directory, or tokenizer.json, tokenizer.model, encoder.json, vocab.json (each also .gz)\n"
         "  --decode          ids on stdin (separated by blanks) to text on stdout\n"
         "  --special         encoding: add BOS and EOS as the tokenizer does, and read text spelled like a special token as that token\n"
         "                    decoding: print special tokens, too\n"
         "  --help            this text\n"
         "Without --special no BOS or EOS is added. Text spelled like a special token is then that token for a tokenizer.json, as in Hugging Face\n"
         "`tokenizers`, and ordinary text for the other formats, as in tiktoken and sentencepiece.");
}

static char* read_stdin(size_t* length) {
    size_t room = 1 << 16, n = 0, got;
    char* text = malloc(room);
    while (text && (got = fread(text + n, 1, room - n - 1, stdin)) > 0) {
        n += got;
        if (room - n < 2) text = realloc(text, room *= 2);
    }
    if (!text) stop("stdin: not enough memory for a text of more than %zu bytes", n);
    if (ferror(stdin)) stop("stdin cannot be read: %s", strerror(errno));
    text[n] = 0;
    *length = n;
    return text;
}

static void decode(const Tokenizer* t, const char* text, size_t length, int special) {
    char error[512];
    size_t n = 0, room = 1024, out_length;
    int32_t* ids = malloc(room * sizeof *ids);
    const char *p = text, *end = text + length;
    while (ids) {
        p += strspn(p, " \t\r\n");
        if (p == end) break;
        char* behind;
        errno = 0;
        long id = strtol(p, &behind, 10);
        if (behind == p || (*behind && !strchr(" \t\r\n", *behind)) || (behind < end && !*behind)) stop("stdin: %.20s (number %zu) is not an id", p, n + 1);
        if (errno || id < 0 || id > INT_MAX) stop("stdin: id %.20s (number %zu) is out of range", p, n + 1);
        if (n == room) ids = realloc(ids, (room *= 2) * sizeof *ids);
        if (ids) ids[n++] = (int32_t)id;
        p = behind;
    }
    if (!ids) stop("stdin: not enough memory for more than %zu ids", n);
    char* out = tokenizer_decode(t, ids, (int64_t)n, special, &out_length, error, sizeof error);
    if (!out) stop("stdin: %s", error);
    fwrite(out, 1, out_length, stdout);
    free(out);
    free(ids);
}

static void encode(const Tokenizer* t, const char* text, size_t length, int special) {
    Encoding e = {0};
    int flags = tokenizer_default_flags(t) | (special ? TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL : 0);
    if (tokenizer_encode(t, text, length, flags, &e) < 0) stop("stdin: %s", e.error);
    for (int64_t i = 0; i < e.n; i++) printf("%s%d", i ? " " : "", e.ids[i]);
    putchar('\n');
    encoding_free(&e);
}

int main(int argc, char** argv) {
    const char* path = NULL;
    int decoding = 0, special = 0;
    char error[512];
    size_t length;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help")) { help(); return 0; }
        else if (!strcmp(argv[i], "--decode")) decoding = 1;
        else if (!strcmp(argv[i], "--special")) special = 1;
        else if (!strncmp(argv[i], "--tokenizer=", 12) && argv[i][12]) path = argv[i] + 12;
        else if (!strcmp(argv[i], "--tokenizer")) { if (++i == argc) stop("--tokenizer needs a directory or file"); path = argv[i]; }
        else stop("unknown option %.60s; see tokenize --help", argv[i]);
    }
    if (!path) stop("--tokenizer is missing; see tokenize --help");
    Tokenizer* t = tokenizer_open(path, error, sizeof error);
    if (!t) stop("%s", error);
    char* text = read_stdin(&length);
    if (decoding) decode(t, text, length, special);
    else encode(t, text, length, special);
    free(text);
    tokenizer_close(t);
    if (fflush(stdout) || ferror(stdout)) stop("stdout cannot be written: %s", strerror(errno));
    return 0;
}
