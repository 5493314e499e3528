/* Models as Hugging Face directories: config.json and model.safetensors. Every tensor of the table must be there with its shape; nothing may be left over. */
#include <string.h>
#include "error.h"
#include "file.h"
#include "model.h"
#include "safetensors.h"

// Buffers that checkpoints carry along and that hold no weights: causal masks of old GPT-2 files.
static bool known_buffer(const char* name) {
    size_t n = strlen(name);
    return (n > 10 && !strcmp(name + n - 10, ".attn.bias")) || (n > 17 && !strcmp(name + n - 17, ".attn.masked_bias"));
}

// The tensor under its full name, or without the family's first word: files saved from the bare model lack "transformer.".
static const StTensor* find_tensor(const StReader* file, const ModelTensor* t) {
    const StTensor* found = st_find(file, t->hf_name);
    const char* dot = strchr(t->hf_name, '.');
    if (!found && dot) found = st_find(file, dot + 1);
    return found;
}

static void check_shape(const StReader* file, const ModelTensor* t, const StTensor* s) {
    int64_t rows = t->file_transposed ? t->cols : t->file_rows, cols = t->file_transposed ? t->file_rows : t->cols;
    bool vector = t->rows == 1 && s->n_dims == 1 && s->shape[0] == cols;
    bool matrix = s->n_dims == 2 && s->shape[0] == rows && s->shape[1] == cols;
    if (vector || matrix) return;
    char shape[128] = "";
    for (int d = 0; d < s->n_dims; d++) snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%s%lld", d ? ", " : "", (long long)s->shape[d]);
    fatal("%s: tensor %s has shape (%s), the model wants (%lld, %lld)", file->file.path, s->name, shape, (long long)rows, (long long)cols);
}

static float* load_tensor(const StReader* file, const ModelTensor* t, const StTensor* s) {
    int64_t rows = t->file_rows, cols = t->cols;
    float* values = (float*)calloc((size_t)(t->rows * t->cols), sizeof(float));  // padded vocabulary rows stay zero
    if (!values) fatal("%s: out of host memory for %s", file->file.path, s->name);
    if (!t->file_transposed) {
        st_to_float(file, s, 0, s->count, values);
    } else {
        float* row = (float*)malloc((size_t)rows * sizeof(float));
        if (!row) fatal("%s: out of host memory for %s", file->file.path, s->name);
        for (int64_t c = 0; c < cols; c++) {
            st_to_float(file, s, c * rows, rows, row);
            for (int64_t r = 0; r < rows; r++) values[r * cols + c] = row[r];
        }
        free(row);
    }
    for (int64_t i = 0; i < t->rows * t->cols; i++)
        if (!isfinite(values[i])) fatal("%s: tensor %s holds a NaN or an infinity at element %lld", file->file.path, s->name, (long long)i);
    return values;
}

void parameters_load(ParameterSet* set, const char* directory) {
    const ModelLayout* layout = set->layout;
    char path[4200];
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    StReader file;
    st_open(&file, path);
    char* used = (char*)calloc(file.n_tensors + 1, 1);
    if (!used) fatal("%s: out of host memory", path);
    for (int i = 0; i < layout->n_tensors; i++) {
        const ModelTensor* t = &layout->tensors[i];
        const StTensor* s = find_tensor(&file, t);
        if (!s) fatal("%s: tensor %s is missing", path, t->hf_name);
        check_shape(&file, t, s);
        used[s - file.tensors] = 1;
        float* values = load_tensor(&file, t, s);
        parameters_set(set, i, values);
        free(values);
    }
    for (int i = 0; i < file.n_tensors; i++) {
        const char* name = file.tensors[i].name;
        bool tied = layout->config.tied_head && !strcmp(name, "lm_head.weight");
        if (!used[i] && !tied && !known_buffer(name)) fatal("%s: tensor %s belongs to no part of a %s model", path, name, layout->config.family);
    }
    free(used);
    st_close(&file);
}

void parameters_save(const ParameterSet* set, const char* directory) {
    const ModelLayout* layout = set->layout;
    char path[4200];
    directory_make(directory);
    snprintf(path, sizeof path, "%s/config.json", directory);
    char* config = model_config_json(&layout->config);
    file_write(path, config, strlen(config));
    free(config);
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    StWriter file;
    st_create(&file, path);
    st_set_metadata(&file, "format", "pt");
    for (int i = 0; i < layout->n_tensors; i++) {
        const ModelTensor* t = &layout->tensors[i];
        int64_t shape[2] = {t->file_transposed ? t->cols : t->file_rows, t->file_transposed ? t->file_rows : t->cols};
        bool vector = t->rows == 1;
        st_declare(&file, t->hf_name, ST_F32, vector ? 1 : 2, vector ? shape + 1 : shape);
    }
    for (int i = 0; i < layout->n_tensors; i++) {
        const ModelTensor* t = &layout->tensors[i];
        float* values = (float*)malloc((size_t)(t->rows * t->cols) * sizeof(float));
        float* column = (float*)malloc((size_t)t->file_rows * sizeof(float));
        if (!values || !column) fatal("%s: out of host memory for %s", path, t->hf_name);
        parameters_get(set, i, values);
        if (!t->file_transposed) st_write(&file, values, (size_t)(t->file_rows * t->cols) * sizeof(float));
        else
            for (int64_t c = 0; c < t->cols; c++) {
                for (int64_t r = 0; r < t->file_rows; r++) column[r] = values[r * t->cols + c];
                st_write(&file, column, (size_t)t->file_rows * sizeof(float));
            }
        free(values);
        free(column);
    }
    st_commit(&file);
}
