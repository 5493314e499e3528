/* See selector_file.h. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "base/safetensors.h"
#include "commands/pt_reader.h"
#include "commands/selector_file.h"

static bool ends_with(const char* text, const char* end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

void selector_file_write(const SelectorFile* s, const char* path) {
    char seed[32], rows[32];
    StWriter w;
    snprintf(seed, sizeof seed, "%lld", (long long)s->seed);
    snprintf(rows, sizeof rows, "%lld", (long long)s->n_rows);
    const char* const metadata[][2] = {
        {"format", "seal selector"},   {"file", s->files ? s->files : ""}, {"rows", rows},
        {"digest", s->digest},         {"tokenizer", s->tokenizer},        {"algorithm", s->algorithm},
        {"activation", s->activation}, {"schedule", s->schedule},          {"seed", seed}};
    for (int64_t i = 0; i < s->n; i++)
        if (!isfinite(s->logits[i]))
            fatal("%s: the logit of row %lld is not finite; nothing is written", path, (long long)s->rows[i]);
    st_create(&w, path);
    for (size_t i = 0; i < sizeof metadata / sizeof *metadata; i++) st_set_metadata(&w, metadata[i][0], metadata[i][1]);
    if (*s->chat) st_set_metadata(&w, "chat_template", s->chat);
    st_declare(&w, "row", ST_I64, 1, &s->n);
    st_declare(&w, "text_hash", ST_I64, 1, &s->n);
    if (s->last_visit) st_declare(&w, "last_visit", ST_I64, 1, &s->n);
    st_declare(&w, "logits", ST_F32, 1, &s->n);
    st_write(&w, s->rows, (size_t)s->n * sizeof *s->rows);
    st_write(&w, s->hashes, (size_t)s->n * sizeof *s->hashes);
    if (s->last_visit) st_write(&w, s->last_visit, (size_t)s->n * sizeof *s->last_visit);
    st_write(&w, s->logits, (size_t)s->n * sizeof *s->logits);
    st_commit(&w);
}

static int64_t whole_number(const StReader* r, const char* path, const char* key) {
    const char* text = st_metadata(r, key);
    char* end;
    errno = 0;
    long long value = text ? strtoll(text, &end, 10) : 0;
    if (!text || end == text || *end || errno) fatal("%s: metadata \"%s\" is not a whole number", path, key);
    return value;
}

static void copy_metadata(const StReader* r, const char* path, const char* key, char* out, size_t size) {
    const char* text = st_metadata(r, key);
    if (!text) fatal("%s has no metadata \"%s\"; is it a selector?", path, key);
    if (strlen(text) >= size) fatal("%s: metadata \"%s\" is longer than %zu characters", path, key, size - 1);
    snprintf(out, size, "%s", text);
}

static void read_pt(SelectorFile* s, const char* path) {
    s->logits = pt_read(path, &s->n);
    s->rows = host_alloc((size_t)s->n * sizeof *s->rows, "the selection");
    s->hashes = host_alloc((size_t)s->n * sizeof *s->hashes, "the selection");
    for (int64_t i = 0; i < s->n; i++) s->rows[i] = i;
    s->n_rows = s->n;
    snprintf(s->activation, sizeof s->activation, "softmax");  // the reference's default; the file does not say
}

static void read_safetensors(SelectorFile* s, const char* path) {
    StReader r;
    st_open(&r, path);
    const char *format = st_metadata(&r, "format"), *files = st_metadata(&r, "file");
    if (!format || strcmp(format, "seal selector")) fatal("%s is not a selector that train_seal wrote", path);
    s->n = st_need(&r, "logits")->count;
    s->n_rows = whole_number(&r, path, "rows");
    s->seed = whole_number(&r, path, "seed");
    if (s->n < 1 || s->n > s->n_rows)
        fatal("%s has %lld logits for a file of %lld rows", path, (long long)s->n, (long long)s->n_rows);
    s->logits = host_alloc((size_t)s->n * sizeof *s->logits, "the selection");
    s->rows = host_alloc((size_t)s->n * sizeof *s->rows, "the selection");
    s->hashes = host_alloc((size_t)s->n * sizeof *s->hashes, "the selection");
    st_copy(&r, "logits", ST_F32, s->n, s->logits);
    st_copy(&r, "row", ST_I64, s->n, s->rows);
    st_copy(&r, "text_hash", ST_I64, s->n, s->hashes);
    s->files = host_copy(files ? files : "", strlen(files ? files : ""));
    copy_metadata(&r, path, "digest", s->digest, sizeof s->digest);
    copy_metadata(&r, path, "tokenizer", s->tokenizer, sizeof s->tokenizer);
    if (st_metadata(&r, "chat_template")) copy_metadata(&r, path, "chat_template", s->chat, sizeof s->chat);
    copy_metadata(&r, path, "algorithm", s->algorithm, sizeof s->algorithm);
    copy_metadata(&r, path, "activation", s->activation, sizeof s->activation);
    copy_metadata(&r, path, "schedule", s->schedule, sizeof s->schedule);
    if (strlen(s->digest) != 64) fatal("%s: metadata \"digest\" is not a SHA-256", path);
    for (int64_t i = 0; i < s->n; i++)
        if (s->rows[i] < (i ? s->rows[i - 1] + 1 : 0) || s->rows[i] >= s->n_rows)
            fatal("%s: tensor row, element %lld: row %lld is out of order or outside the file's %lld rows", path,
                  (long long)i, (long long)s->rows[i], (long long)s->n_rows);
    st_close(&r);
}

void selector_file_read(SelectorFile* s, const char* path) {
    memset(s, 0, sizeof *s);
    path_copy(s->path, path);
    if (ends_with(path, ".pt")) read_pt(s, path);
    else read_safetensors(s, path);
    for (int64_t i = 0; i < s->n; i++)
        if (!isfinite(s->logits[i])) fatal("%s: the logit of row %lld is not finite", path, (long long)s->rows[i]);
}

void selector_file_free(SelectorFile* s) {
    free(s->logits);
    free(s->rows);
    free(s->hashes);
    free(s->files);
    memset(s, 0, sizeof *s);
}

void selector_file_check(SelectorFile* s, const StringList* files, const char* digest, int64_t n_rows,
                         const int64_t* usable, int64_t n_usable) {
    const char *name = files->items[0], *more = files->n > 1 ? " and others" : "";
    if (*s->digest) {
        if (s->n_rows != n_rows)
            fatal("%s was learned on %s with %lld rows but %s%s has %lld; give the file it was learned on", s->path,
                  s->files, (long long)s->n_rows, name, more, (long long)n_rows);
        if (strcmp(s->digest, digest))
            fatal(
                "%s was learned on %s (SHA-256 %.12s…) but %s%s is another file (%.12s…); give the file it was "
                "learned "
                "on",
                s->path, s->files, s->digest, name, more, digest);
        return;
    }
    if (s->n == n_rows) return;
    if (!usable || s->n != n_usable)
        fatal(
            "%s has %lld logits but %s%s has %lld rows (%lld usable); a .pt selector fits only the file it was "
            "learned on",
            s->path, (long long)s->n, name, more, (long long)n_rows, (long long)(usable ? n_usable : n_rows));
    // the program that wrote it numbered only the rows it kept: its i-th logit is the i-th usable row's
    memcpy(s->rows, usable, (size_t)s->n * sizeof *s->rows);
    s->n_rows = n_rows;
}

void selector_weights(const float* logits, int64_t n, bool sigmoid, double* sigma) {
    double most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) most = fmax(most, (double)logits[i]);
    for (int64_t i = 0; i < n; i++) {
        sigma[i] = sigmoid ? 2 / (1 + exp(-(double)logits[i])) : exp((double)logits[i] - most);
        sum += sigma[i];
    }
    if (!sigmoid)
        for (int64_t i = 0; i < n; i++) sigma[i] *= (double)n / sum;
}
