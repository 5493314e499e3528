/* A GGUF file becomes a Hugging Face directory. See import.h. */
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "commands/gguf_model.h"
#include "commands/gguf_tokenizer.h"
#include "commands/import.h"
#include "run/samples.h"
#include "model.h"

typedef struct {
    GgufReader file;
    const GgufFamily* family;
    ModelConfig config;
    ModelLayout layout;
    StDtype dtype;  // of what is written
} Import;

#define HALF_MOST 65504.0f

// The tensor of the GGUF file that a tensor of the Hugging Face file is; NULL where it is missing.
static const GgufTensor* find_tensor(const Import* x, const FileTensor* f, char name[128]) {
    gguf_tensor_name(f->source, x->layout.tensors[f->tensor].layer, name, 128);
    return gguf_tensor(&x->file, name);
}

static void check_shape(const Import* x, const FileTensor* f, const GgufTensor* t) {
    const bool vector = x->layout.tensors[f->tensor].cols == 1;
    const int64_t cols = vector ? f->rows : f->cols, rows = vector ? 1 : f->rows;
    if (t->shape[0] == cols && t->count == cols * rows && (vector || t->shape[1] == rows)) return;
    char found[128] = "";
    for (int d = 0; d < t->n_dims; d++)
        snprintf(found + strlen(found), sizeof found - strlen(found), "%s%lld", d ? ", " : "", (long long)t->shape[d]);
    fatal("%s: tensor %s has shape (%s), expected (%lld%s%.0lld)", gguf_path(&x->file), t->name, found, (long long)cols,
          vector ? "" : ", ", vector ? 0 : (long long)rows);
}

// Every tensor of the family is there with its shape, and nothing is left over.
static void check_tensors(const Import* x) {
    const GgufReader* r = &x->file;
    char name[128], missing[128] = "";
    const char* extra = NULL;
    int n_missing = 0, n_extra = 0;
    char* seen = (char*)host_alloc((size_t)r->n_tensors + 1, "the names of tensors");
    for (int i = 0; i < x->layout.n_files; i++) {
        const FileTensor* f = &x->layout.files[i];
        const GgufTensor* t = find_tensor(x, f, name);
        if (!t && !n_missing++) snprintf(missing, sizeof missing, "%s", name);
        if (!t) continue;
        check_shape(x, f, t);
        seen[t - r->tensors] = 1;
    }
    for (int i = 0; i < r->n_tensors; i++) {
        const char* of_file = r->tensors[i].name;
        bool tied = x->config.tied_head && !strcmp(of_file, "output.weight");
        if (!seen[i] && !tied && !gguf_is_buffer(of_file) && !n_extra++) extra = of_file;
    }
    free(seen);
    if (n_missing > 1) fatal("%s: tensor %s and %d others are missing", gguf_path(r), missing, n_missing - 1);
    if (n_missing) fatal("%s: tensor %s is missing", gguf_path(r), missing);
    if (n_extra > 1)
        fatal("%s: tensor %s and %d others belong to no part of a %s model", gguf_path(r), extra, n_extra - 1,
              x->config.family);
    if (n_extra) fatal("%s: tensor %s belongs to no part of a %s model", gguf_path(r), extra, x->config.family);
}

// Rows [row, row + n) in our order: a RowSource.
static void read_rows(const void* context, const ModelLayout* layout, const FileTensor* f, int64_t row, int64_t n,
                      float* rows) {
    const Import* x = (const Import*)context;
    char name[128];
    const GgufTensor* t = find_tensor(x, f, name);
    const bool vector = layout->tensors[f->tensor].cols == 1;
    const bool pairs = x->family->pairs && (f->source->part == PART_Q || f->source->part == PART_K);
    size_t length = strlen(name), ending = strlen("norm.weight");
    float* whole = NULL;  // a vector is one block to its type, whatever its rows
    if (vector && (row || n != f->rows)) program_error("%s: a vector is read whole", name);
    if (vector && pairs) whole = (float*)host_alloc((size_t)n * sizeof(float), "a vector");
    if (vector) gguf_to_float(t, 0, n, pairs ? whole : rows);
    for (int64_t i = 0; i < n && whole; i++) rows[i] = whole[gguf_pair_row(i, layout->config.HS)];
    free(whole);
    for (int64_t i = 0; i < n && !vector; i++)
        gguf_to_float(t, (pairs ? gguf_pair_row(row + i, layout->config.HS) : row + i) * f->cols, f->cols,
                      rows + i * f->cols);
    float largest = 0.0f;
    bool finite = true;
    for (int64_t i = 0; i < n * f->cols; i++) {
        finite &= isfinite(rows[i]) != 0;
        largest = fmaxf(largest, fabsf(rows[i]));
    }
    if (x->dtype == ST_F16 && finite && largest > HALF_MOST)
        fatal("%s: tensor %s holds %g, which fp16 cannot; use --dtype bf16", gguf_path(&x->file), name, largest);
    if (!finite) fatal("%s: tensor %s holds a NaN or an infinity", gguf_path(&x->file), name);
    if (x->family->norms_plus_one && length >= ending && !strcmp(name + length - ending, "norm.weight"))
        for (int64_t i = 0; i < n * f->cols; i++) rows[i] -= 1.0f;
}

static void write_text(const char* directory, const char* name, const char* text, size_t length) {
    Path path = path_of(directory, "%s", name);
    file_write(path.s, text, length);
}

static void print_import(const Import* x, const GgufTokenizer* t) {
    char* name = gguf_text(&x->file, "general.name");
    printf("| %-14s | %-46.46s |\n|----------------|------------------------------------------------|\n", "model",
           name ? name : x->family->architecture);
    printf("| %-14s | %-46s |\n", "family", x->config.family);
    printf("| %-14s | %-46lld |\n", "parameters", (long long)x->layout.n_parameters);
    printf("| %-14s | %s%s%-*s |\n", "tokenizer", t->kind, t->pre ? ", " : "",
           46 - (int)strlen(t->kind) - (t->pre ? 2 : 0), t->pre ? t->pre : "");
    printf("| %-14s | %-46d |\n", "tokens", t->n_tokens);
    if (t->n_unused) printf("| %-14s | %-46d |\n", "unused, left out", t->n_unused);
    printf("| %-14s | %-46d |\n", "merges", t->n_merges);
    printf("| %-14s | %-46s |\n", "adds BOS, EOS",
           t->adds_bos   ? t->adds_eos ? "both" : "BOS"
           : t->adds_eos ? "EOS"
                         : "none");
    printf("| %-14s | %-46s |\n", "chat template", t->has_template ? "yes" : "none");
    free(name);
}

int import_command(const TrainOptions* o) {
    Import x;
    GgufTokenizer tokenizer;
    memset(&x, 0, sizeof x);
    x.dtype = !strcmp(o->dtype, "bf16") ? ST_BF16 : !strcmp(o->dtype, "fp16") ? ST_F16 : ST_F32;
    model_refuse_existing(o->out);
    gguf_open(&x.file, o->gguf.items, o->gguf.n);
    x.family = gguf_family(&x.file);
    gguf_config(&x.file, x.family, &x.config);
    check_sizes(&x.config);
    model_layout(&x.layout, &x.config, NULL);
    check_tensors(&x);
    gguf_tokenizer(&tokenizer, &x.file, x.family->pre, x.config.V, x.config.max_positions);
    directory_probe(o->out);
    write_text(o->out, "tokenizer.json", tokenizer.tokenizer, tokenizer.length);
    write_text(o->out, "tokenizer_config.json", tokenizer.config, strlen(tokenizer.config));
    write_text(o->out, "generation_config.json", tokenizer.generation, strlen(tokenizer.generation));
    RowSource reader = {read_rows, &x, x.dtype};
    model_save_rows(&x.layout, &reader, o->out, (int64_t)(o->shard_gb * 1e9), o->quiet);
    if (!o->quiet) {
        print_import(&x, &tokenizer);
        printf("wrote %s\n", o->out);
    }
    gguf_tokenizer_free(&tokenizer);
    model_layout_free(&x.layout);
    gguf_close(&x.file);
    return 0;
}
