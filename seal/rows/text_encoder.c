/* The tokenizer library as the function table of tokens.h. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cjson/cJSON.h>
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "tokenizer.h"
#include "rows/tokens.h"

static void* begin(void* self) {
    (void)self;
    Encoding* e = host_alloc((size_t)sizeof *e, "a tokenizer's scratch");
    return e;
}

static void finish(void* self, void* scratch) {
    (void)self;
    encoding_free(scratch);
    free(scratch);
}

static int64_t encode(void* self, void* scratch, const char* text, size_t n, const int32_t** ids, const int32_t** start,
                      const int32_t** end, const char** error) {
    Encoding* e = scratch;
    int64_t got = tokenizer_encode(self, text, n, TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, e);
    *ids = e->ids;
    *start = e->start;
    *end = e->end;
    *error = e->error;
    return got;
}

#define SPECIAL_MOST 64  // bytes of a special token's text
static bool begins_special(void* self, const char* text, size_t n) {
    char piece[SPECIAL_MOST + 1];
    for (size_t length = 1; length <= n && length <= SPECIAL_MOST; length++) {
        memcpy(piece, text, length);
        piece[length] = 0;
        int32_t id = tokenizer_id(self, piece);
        if (id >= 0 && tokenizer_is_special(self, id)) return true;
    }
    return false;
}

// Files of a tokenizer in a model's directory.
static const char* const files[] = {"tokenizer.json",
                                    "tokenizer.model",
                                    "tokenizer.model.v3",
                                    "tekken.json",
                                    "qwen.tiktoken",
                                    "cl100k_base.tiktoken",
                                    "o200k_base.tiktoken",
                                    "r50k_base.tiktoken",
                                    "encoder.json",
                                    "vocab.bpe",
                                    "vocab.json",
                                    "merges.txt",
                                    "tokenizer_config.json",
                                    "special_tokens_map.json",
                                    "added_tokens.json",
                                    "chat_template.jinja",
                                    "chat_template.json",
                                    "generation_config.json"};
#define N_FILES (sizeof files / sizeof *files)
static const char* const endings[2] = {"", ".gz"};

static bool is_directory(const char* path) {
    struct stat info;
    return !stat(path, &info) && S_ISDIR(info.st_mode);
}

void tokenizer_copy(const char* from, const char* to_directory) {
    char name[64], error[512];
    if (is_directory(from)) {
        for (size_t i = 0; i < 2 * N_FILES; i++) {
            snprintf(name, sizeof name, "%s%s", files[i / 2], endings[i % 2]);
            Path path = path_of(from, "%s", name);
            if (file_exists(path.s)) file_copy(path.s, to_directory, name);
        }
        return;
    }
    Tokenizer* t = tokenizer_open(from, error, sizeof error);
    if (!t) fatal("%s", error);
    const char *format = tokenizer_format(t), *slash = strrchr(from, '/'),
               *ending = strlen(from) > 3 && !strcmp(from + strlen(from) - 3, ".gz") ? ".gz" : "";
    if (strstr(format, " + ")) {  // a pair of files: the other one is beside it
        char* folder = slash ? host_copy(from, (size_t)(slash - from)) : host_copy(".", 1);
        tokenizer_copy(folder, to_directory);
        free(folder);
    } else {
        const char *own = slash ? slash + 1 : from, *plain = strcmp(format, "tokenizer.json") == 0 ? "tokenizer.json"
                                                             : strcmp(format, "tekken") == 0       ? "tekken.json"
                                                                                                   : "tokenizer.model";
        // the name of ranks says whose they are
        if (strstr(own, ".tiktoken")) snprintf(name, sizeof name, "%s", own);
        else snprintf(name, sizeof name, "%s%s", plain, ending);
        file_copy(from, to_directory, name);
    }
    tokenizer_close(t);
}

// Of the tokenizer's file, or of its two, and of what the files beside it changed.
static void digest(const Tokenizer* t, Hex hex) {
    Hex both[2];
    file_sha256_hex(tokenizer_file(t, 0), hex);
    if (tokenizer_file(t, 1)) {
        memcpy(both[0], hex, 65);
        file_sha256_hex(tokenizer_file(t, 1), both[1]);
        sha256_hex(both, sizeof both, hex);
    }
    char* changes = tokenizer_changes(t);
    if (*changes) {
        memcpy(both[0], hex, 65);
        sha256_hex(changes, strlen(changes), both[1]);
        sha256_hex(both, sizeof both, hex);
    }
    free(changes);
}

// Every id that the model's config.json gives for the end of sequence, as "2, 107"; whether `eos` is one of them.
static bool config_has(const char* directory, int32_t eos, char* all, size_t size) {
    bool found = false;
    size_t length, at = 0;
    *all = 0;
    Path path = path_of(directory, "config.json");
    if (!file_exists(path.s)) return true;
    char* text = file_read(path.s, 1 << 24, &length);
    cJSON* json = cJSON_ParseWithLength(text, length);
    const cJSON *ids = cJSON_GetObjectItemCaseSensitive(json, "eos_token_id"),
                *id = cJSON_IsArray(ids) ? ids->child : ids;
    for (; id && cJSON_IsNumber(id); id = cJSON_IsArray(ids) ? id->next : NULL) {
        found = found || id->valuedouble == (double)eos;
        if (at < size) at += (size_t)snprintf(all + at, size - at, "%s%.0f", at ? ", " : "", id->valuedouble);
    }
    cJSON_Delete(json);
    free(text);
    return found || !*all;
}

// A run opens its tokenizer several times; what its files disagree about is said once.
__attribute__((format(printf, 1, 2))) static void warn_once(const char* format, ...) {
    enum { MOST = 16 };
    static char* said[MOST];
    char text[900];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (int i = 0; i < MOST; i++) {
        if (said[i] && !strcmp(said[i], text)) return;
        if (said[i]) continue;
        said[i] = strdup(text);
        break;
    }
    warning("%s", text);
}

void text_encoder_open(TextEncoder* e, const char* path, int32_t eos) {
    char error[512], ids[200];
    Tokenizer* t = tokenizer_open(path, error, sizeof error);
    if (!t) fatal("%s", error);
    for (int i = 0; tokenizer_note(t, i); i++) warn_once("%s", tokenizer_note(t, i));
    if (eos < 0 || tokenizer_names_eos(t)) eos = tokenizer_eos(t);
    int length;
    const char* piece = eos < 0 ? NULL : tokenizer_piece(t, eos, &length);
    if (!piece) fatal("%s: the tokenizer has no end-of-sequence token", path);
    if (tokenizer_names_eos(t) && is_directory(path) && !config_has(path, eos, ids, sizeof ids))
        warn_once(
            "%s: the tokenizer ends a sequence with %s (id %d), config.json names id %s; the tokenizer's is used, "
            "config.json's only stops generation",
            path, piece, (int)eos, ids);
    *e = (TextEncoder){t,   begin, finish, encode,        tokenizer_vocab_size(t), tokenizer_bos(t),
                       eos, piece, "",     begins_special};
    digest(t, e->digest);
}

static void print_token(const Tokenizer* t, const char* what, int32_t id, FILE* out) {
    const char* piece = tokenizer_piece(t, id, NULL);
    if (piece) fprintf(out, ", %s %s (%d)", what, piece, (int)id);
    else fprintf(out, ", no %s", what);
}

void text_encoder_print(const TextEncoder* e, int32_t turn_end, const char* chat_template, FILE* out) {
    static const char* const names[] = {
        "<|im_end|>", "<|eot_id|>", "<|eot|>", "<|end|>", "<end_of_turn>", "<|END_OF_TURN_TOKEN|>", "<|return|>"};
    const Tokenizer* t = e->self;
    for (size_t i = 0; i < sizeof names / sizeof *names && turn_end < 0; i++) turn_end = tokenizer_id(t, names[i]);
    fprintf(out, "tokenizer: %s (%s), %d tokens", tokenizer_file(t, 0), tokenizer_format(t), e->vocab);
    print_token(t, "BOS", e->bos, out);
    print_token(t, "EOS", e->eos, out);
    print_token(t, "end of turn", turn_end, out);
    if (chat_template) fprintf(out, ", chat template %s\n", chat_template);
    else fprintf(out, ", no chat template\n");
}

void text_encoder_close(TextEncoder* e) {
    tokenizer_close(e->self);
    memset(e, 0, sizeof *e);
}
