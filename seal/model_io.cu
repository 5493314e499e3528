/*
Models as Hugging Face directories: config.json and model.safetensors, or shards with an index. Every tensor of the
table must be there with its shape; nothing may be left over. Large tensors move in blocks of rows, so that the host
never holds a second copy of the model. Adapters travel the same way, under another name.
*/
#include <string.h>
#include <unistd.h>
#include <cjson/cJSON.h>
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "base/log.h"
#include "model.h"
#include "base/safetensors.h"
#include "peft_config.h"

#define BLOCK_ELEMENTS ((int64_t)4 << 20)  // rows move this many elements at a time

// Rows that move at a time: another order than ours is undone on the whole tensor, and a tensor is packed whole.
static int64_t block_rows(const ModelLayout* layout, const FileTensor* f) {
    const bool plain = f->form == FILE_PLAIN && !layout->tensors[f->tensor].packed;
    int64_t n = plain ? BLOCK_ELEMENTS / f->cols : f->rows;
    return n < 1 ? 1 : n < f->rows ? n : f->rows;
}

// ---------------------------------------------------------------------------------------------------
// the file's order

// The row of the file that holds row `first + r` of ours: grouped by head there (q, k, v of head 0, q, k, v of head 1
// …), by part here.
static int64_t file_row(const ModelConfig* c, const FileTensor* f, int64_t r) {
    if (f->form != FILE_HEADS) return r;
    int64_t part = r / ((int64_t)c->NH * c->HS), within = r % ((int64_t)c->NH * c->HS);
    return (within / c->HS * 3 + part) * c->HS + within % c->HS;
}

static void reorder(const ModelLayout* layout, const FileTensor* f, const float* from, float* to, bool to_file) {
    for (int64_t r = 0; r < f->rows; r++) {
        int64_t there = file_row(&layout->config, f, r);
        if (f->form != FILE_TRANSPOSED) {
            memcpy(to + (to_file ? there : r) * f->cols, from + (to_file ? r : there) * f->cols,
                   (size_t)f->cols * sizeof(float));
            continue;
        }
        for (int64_t c = 0; c < f->cols; c++) {
            int64_t here = r * f->cols + c, turned = c * f->rows + r;
            to[to_file ? turned : here] = from[to_file ? here : turned];
        }
    }
}
void file_tensor_order(const ModelLayout* layout, const FileTensor* f, const float* rows, float* file) {
    reorder(layout, f, rows, file, true);
}
void file_tensor_unorder(const ModelLayout* layout, const FileTensor* f, const float* file, float* rows) {
    reorder(layout, f, file, rows, false);
}

// The shape in the file; returns the number of dimensions.
static int file_shape(const ModelLayout* layout, const FileTensor* f, int64_t shape[2]) {
    bool vector = layout->tensors[f->tensor].cols == 1;
    shape[0] = f->form == FILE_TRANSPOSED ? f->cols : f->rows;
    shape[1] = f->form == FILE_TRANSPOSED ? f->rows : f->cols;
    return vector ? 1 : 2;
}

// ---------------------------------------------------------------------------------------------------
// loading

// Buffers that checkpoints carry along and that hold no weights: causal masks, frequencies.
static bool known_buffer(const Family* family, const char* name) {
    for (const char* const* end = family->buffers; *end; end++) {
        size_t n = strlen(name), m = strlen(*end);
        if (n > m && !strcmp(name + n - m, *end)) return true;
    }
    return false;
}

// The tensor under its full name, or without the family's first word: files saved from the bare model lack
// "transformer."; or in a model of text and pictures, whose text is "language_model.model.", later
// "model.language_model.".
static const StTensor* find_tensor(const StModel* model, const FileTensor* f, const StReader** file) {
    const StTensor* found = st_model_find(model, f->hf_name, file);
    const char* dot = strchr(f->hf_name, '.');
    if (found || !dot) return found;
    char nested[sizeof f->hf_name + 32];
    found = st_model_find(model, dot + 1, file);
    snprintf(nested, sizeof nested, "language_model.%s", f->hf_name);
    if (!found) found = st_model_find(model, nested, file);
    snprintf(nested, sizeof nested, "model.language_model.%s", dot + 1);
    return found ? found : st_model_find(model, nested, file);
}

// The pictures' part of such a model, which is neither trained nor saved.
static bool of_pictures(const char* name) {
    static const char* const parts[] = {"vision_tower.", "multi_modal_projector.", "model.vision_tower.",
                                        "model.multi_modal_projector."};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strncmp(name, parts[i], strlen(parts[i]))) return true;
    return false;
}

static void check_tensor(const ModelLayout* layout, const FileTensor* f, const StReader* file, const StTensor* s) {
    int64_t shape[2];
    int n = file_shape(layout, f, shape);
    if (s->dtype != ST_F32 && s->dtype != ST_F16 && s->dtype != ST_BF16)
        fatal("%s: tensor %s is %s%s; expected F32, F16 or BF16", file->file.path, s->name, s->type,
              s->type[0] == 'F' && s->type[1] == '8' ? ", a checkpoint in fp8" : "");
    if (s->n_dims == n && s->shape[0] == shape[0] && (n == 1 || s->shape[1] == shape[1])) return;
    char found[128] = "", wanted[64];
    for (int d = 0; d < s->n_dims; d++)
        snprintf(found + strlen(found), sizeof found - strlen(found), "%s%lld", d ? ", " : "", (long long)s->shape[d]);
    snprintf(wanted, sizeof wanted, n == 1 ? "%lld" : "%lld, %lld", (long long)shape[0], (long long)shape[1]);
    fatal("%s: tensor %s has shape (%s); expected (%s)", file->file.path, s->name, found, wanted);
}

// Rows [row, row + n) of a file's tensor in our order, all of them unless its form is plain, and what is added to them
// on the way.
static void read_rows(const ModelLayout* layout, const FileTensor* f, const StReader* file, const StTensor* s,
                      const RowChange* change, int64_t row, int64_t n, float* rows) {
    float* values = f->form == FILE_PLAIN ? rows
                                          : (float*)host_alloc((size_t)(n * f->cols) * sizeof(float), f->hf_name);
    st_to_float(file, s, row * f->cols, n * f->cols, values);
    if (values != rows) file_tensor_unorder(layout, f, values, rows);
    if (values != rows) free(values);
    for (int64_t i = 0; i < n * f->cols; i++)
        if (!isfinite(rows[i])) fatal("%s: tensor %s holds a NaN or an infinity", file->file.path, s->name);
    if (change) change->change(change->context, layout, f, row, n, rows);
}

static void load_tensor(ParameterSet* set, const FileTensor* f, const StReader* file, const StTensor* s,
                        const RowChange* change) {
    int64_t n = block_rows(set->layout, f);
    float* rows = (float*)host_alloc((size_t)(n * f->cols) * sizeof(float), f->hf_name);
    for (int64_t row = 0; row < f->rows; row += n) {
        int64_t m = f->rows - row < n ? f->rows - row : n;
        read_rows(set->layout, f, file, s, change, row, m, rows);
        parameters_set_rows(set, f->tensor, f->first + row, m, rows);
    }
    st_forget(file, s);
    free(rows);
}

// Names that only quantised checkpoints have.
static const struct {
    const char *ending, *format;
} quantised[] = {
    {".g_idx", "GPTQ"},
    {".qweight", "GPTQ or AWQ"},
    {".weight.absmax", "bitsandbytes"},
    {".weight.quant_map", "bitsandbytes"},
    {".SCB", "bitsandbytes, 8 bits"},
    {".weight_packed", "compressed-tensors"},
    {".weight_scale_inv", "fp8"},
    {".weight_scale", "fp8 or compressed-tensors"},
    {"_blocks", "MXFP4"},
};

// An adapter's table has no names of these.
static void refuse_quantised(const StModel* model) {
    const char *found = NULL, *format = NULL, *path = NULL;
    for (size_t q = 0; q < sizeof quantised / sizeof *quantised && !found; q++)
        for (int i = 0; i < model->n_files && !found; i++)
            for (int k = 0; k < model->files[i].n_tensors && !found; k++) {
                const char* name = model->files[i].tensors[k].name;
                size_t n = strlen(name), m = strlen(quantised[q].ending);
                if (n <= m || strcmp(name + n - m, quantised[q].ending)) continue;
                found = name;
                format = quantised[q].format;
                path = model->files[i].file.path;
            }
    if (found)
        fatal(
            "%s: tensor %s belongs to a quantised checkpoint (%s), which is not supported; take the model in bf16, "
            "fp16 or fp32",
            path, found, format);
}

static bool is_head(const char* name) { return !strcmp(name, "lm_head.weight") || !strcmp(name, "embed_out.weight"); }

// A head in the file of a model whose config ties it to the embedding: the same values, or nobody knows which of the
// two is meant. transformers takes the embedding without a word, vLLM and llama.cpp the head.
static void check_tied_head(const StModel* model, const ModelLayout* layout, const StReader* file,
                            const StTensor* head) {
    const FileTensor* f = &layout->files[0];
    const StReader* of_embedding;
    for (int i = 0; i < layout->n_files; i++)
        if (layout->tensors[layout->files[i].tensor].kind == WTE) f = &layout->files[i];
    const StTensor* embedding = find_tensor(model, f, &of_embedding);
    bool same = embedding && embedding->count == head->count && head->dtype < ST_OTHER;
    float* rows = (float*)host_alloc(2 * (size_t)f->cols * sizeof(float), "a row of the embedding");
    for (int64_t r = 0; same && r < f->rows; r++) {
        st_to_float(of_embedding, embedding, r * f->cols, f->cols, rows);
        st_to_float(file, head, r * f->cols, f->cols, rows + f->cols);
        same = !memcmp(rows, rows + f->cols, (size_t)f->cols * sizeof(float));
    }
    free(rows);
    if (!same)
        fatal(
            "%s: tensor %s is not the embedding, but config.json ties the two (\"tie_word_embeddings\"); set that to "
            "false to use this head, or remove the tensor to use the embedding",
            file->file.path, head->name);
}

// A whole weight of the model among an adapter's (peft_load_saved); the head of a model that ties it only as a second
// copy of the embedding.
static bool saved_beside(const ModelLayout* layout, const StModel* model, const char* name) {
    const size_t n = strlen(PEFT_PREFIX);
    if (strncmp(name, PEFT_PREFIX, n)) return false;
    ModelLayout of_model;
    const StReader* file;
    const StTensor *own = st_model_find(model, name, &file), *embedding = NULL;
    bool found = false;
    model_layout(&of_model, &layout->config, NULL);
    for (int i = 0; i < of_model.n_files; i++) {
        char full[256];
        snprintf(full, sizeof full, PEFT_PREFIX "%s", of_model.files[i].hf_name);
        found |= !strcmp(full, name);
        if (of_model.tensors[of_model.files[i].tensor].kind == WTE) embedding = st_model_find(model, full, &file);
    }
    model_layout_free(&of_model);
    bool copy = layout->config.tied_head && is_head(name + n) && embedding && own->bytes == embedding->bytes &&
                !memcmp(own->data, embedding->data, own->bytes);
    return found || copy;
}

// Everything that must be there is, with its shape and a dtype that is read; everything that is there belongs
// somewhere.
static void check_files(const StModel* model, const ModelLayout* layout, const char* directory) {
    const Family* family = family_find(layout->config.family);
    const char *missing = NULL, *extra = NULL, *extra_file = NULL;
    int n_missing = 0, n_extra = 0, n_pictures = 0, n_all = 0, at = 0;
    for (int i = 0; i < model->n_files; i++) n_all += model->files[i].n_tensors;
    char* seen = (char*)host_alloc((size_t)n_all + 1, "the names of tensors");
    for (int i = 0; i < layout->n_files; i++) {
        const StReader* file;
        const StTensor* s = find_tensor(model, &layout->files[i], &file);
        if (!s) {
            if (!n_missing++) missing = layout->files[i].hf_name;
            continue;
        }
        check_tensor(layout, &layout->files[i], file, s);
        int first = 0;
        for (const StReader* r = model->files; r != file; r++) first += r->n_tensors;
        seen[first + (s - file->tensors)] = 1;
    }
    for (int i = 0; i < model->n_files; i++)
        for (int k = 0; k < model->files[i].n_tensors; k++, at++) {
            const char* name = model->files[i].tensors[k].name;
            bool tied = layout->config.tied_head && is_head(name);
            if (tied && !missing) check_tied_head(model, layout, &model->files[i], &model->files[i].tensors[k]);
            if (seen[at] || tied || known_buffer(family, name) || saved_beside(layout, model, name)) continue;
            if (of_pictures(name)) {
                n_pictures++;
                continue;
            }
            if (!n_extra++) {
                extra = name;
                extra_file = model->files[i].file.path;
            }
        }
    if (n_missing || n_extra) refuse_quantised(model);
    if (n_missing == 1 && is_head(missing))
        fatal(
            "%s: tensor %s is missing; if the model uses its embedding as head, set \"tie_word_embeddings\" to true in "
            "config.json",
            directory, missing);
    if (n_missing && extra)
        fatal("%s: tensor %s%s missing; %s has %s, which belongs to no part of a %s model", directory, missing,
              n_missing > 1 ? " and others are" : " is", extra_file, extra, layout->config.family);
    if (n_missing > 1) fatal("%s: tensor %s and %d others are missing", directory, missing, n_missing - 1);
    if (n_missing) fatal("%s: tensor %s is missing", directory, missing);
    if (n_extra > 1)
        fatal("%s: tensor %s and %d others are not part of a %s model", extra_file, extra, n_extra - 1,
              layout->config.family);
    if (n_extra) fatal("%s: tensor %s is not part of a %s model", extra_file, extra, layout->config.family);
    if (n_pictures)
        warning("%s: %d tensors of the vision part are left out; what is saved is the text model", directory,
                n_pictures);
    free(seen);
}

void parameters_load_files(ParameterSet* set, const char* directory, const char* stem, const RowChange* change,
                           bool quiet) {
    const ModelLayout* layout = set->layout;
    StModel model;
    Progress progress;
    st_open_model(&model, directory, stem);
    check_files(&model, layout, directory);
    progress_begin(&progress, "loading", layout->n_parameters, quiet);
    int64_t done = 0;
    for (int i = 0; i < layout->n_files; i++) {
        const FileTensor* f = &layout->files[i];
        const StReader* file;
        const StTensor* s = find_tensor(&model, f, &file);
        load_tensor(set, f, file, s, change);
        progress_update(&progress, done += f->rows * f->cols, "parameters");
    }
    progress_end(&progress);
    st_close_model(&model);
}

void parameters_load(ParameterSet* set, const char* directory, bool quiet) {
    parameters_load_files(set, directory, "model", NULL, quiet);
}

void model_read(const ModelLayout* layout, const char* directory, const char* stem, float* values) {
    StModel model;
    st_open_model(&model, directory, stem);
    check_files(&model, layout, directory);
    for (int i = 0; i < layout->n_files; i++) {
        const StReader* file;
        const FileTensor* f = &layout->files[i];
        const ModelTensor* t = &layout->tensors[f->tensor];
        const StTensor* s = find_tensor(&model, f, &file);
        float* rows = (float*)host_alloc((size_t)(f->rows * f->cols) * sizeof(float), f->hf_name);
        read_rows(layout, f, file, s, NULL, 0, f->rows, rows);
        for (int64_t r = 0; r < f->rows; r++)
            memcpy(values + t->offset + (f->first + r) * t->ld, rows + r * f->cols, (size_t)f->cols * sizeof(float));
        free(rows);
    }
    st_close_model(&model);
}

#define FINGERPRINT_ELEMENTS 32

void model_fingerprint(const ModelLayout* layout, const char* directory, Hex hex) {
    StModel model;
    st_open_model(&model, directory, "model");
    check_files(&model, layout, directory);
    size_t at = 0, size = (size_t)layout->n_files *
                          (sizeof layout->files->hf_name + 2 * FINGERPRINT_ELEMENTS * sizeof(uint16_t));
    char* text = (char*)host_alloc(size, "a text");
    for (int i = 0; i < layout->n_files; i++) {
        const StReader* file;
        const FileTensor* f = &layout->files[i];
        const StTensor* s = find_tensor(&model, f, &file);
        float values[FINGERPRINT_ELEMENTS];
        uint16_t narrow[FINGERPRINT_ELEMENTS];
        int n = s->count < FINGERPRINT_ELEMENTS ? (int)s->count : FINGERPRINT_ELEMENTS;
        memcpy(text + at, f->hf_name, strlen(f->hf_name));
        at += strlen(f->hf_name);
        for (int part = 0; part < 2; part++) {  // the first elements, and those in the middle
            st_to_float(file, s, part * ((s->count - n) / 2), n, values);
            st_from_float(ST_BF16, values, n, narrow);
            memcpy(text + at, narrow, n * sizeof *narrow);
            at += n * sizeof *narrow;
        }
    }
    sha256_hex(text, at, hex);
    free(text);
    st_close_model(&model);
}

// ---------------------------------------------------------------------------------------------------
// saving

// Where the rows of a model that is saved come from: a set on the device, another directory's files and what is added
// to them, or a reader.
typedef struct {
    const ParameterSet* set;
    const StModel* files;
    const RowChange* change;
    const RowSource* reader;
} SaveSource;

static StDtype source_dtype(const SaveSource* source, const FileTensor* f) {
    const StReader* file;
    return source->set ? ST_F32 : source->reader ? source->reader->dtype : find_tensor(source->files, f, &file)->dtype;
}
static int64_t source_bytes(const SaveSource* source, const FileTensor* f) {
    return f->rows * f->cols * (int64_t)st_dtype_size(source_dtype(source, f));
}

static void save_tensor(const ModelLayout* layout, const SaveSource* source, const FileTensor* f, StWriter* out) {
    int64_t n = block_rows(layout, f);
    StDtype dtype = source_dtype(source, f);
    float *rows = (float*)host_alloc((size_t)(n * f->cols) * sizeof(float), f->hf_name),
          *ordered = f->form == FILE_PLAIN ? NULL
                                           : (float*)host_alloc((size_t)(n * f->cols) * sizeof(float), f->hf_name);
    const StReader* file = NULL;
    const StTensor* s = source->files ? find_tensor(source->files, f, &file) : NULL;
    for (int64_t row = 0; row < f->rows; row += n) {
        int64_t m = f->rows - row < n ? f->rows - row : n;
        if (source->set) parameters_get_rows(source->set, f->tensor, f->first + row, m, rows);
        else if (source->reader) source->reader->read(source->reader->context, layout, f, row, m, rows);
        else read_rows(layout, f, file, s, source->change, row, m, rows);
        float* values = ordered ? ordered : rows;
        if (ordered) file_tensor_order(layout, f, rows, ordered);
        st_from_float(dtype, values, m * f->cols, values);  // in place: no type is wider
        st_write(out, values, (size_t)(m * f->cols) * st_dtype_size(dtype));
    }
    if (s) st_forget(file, s);
    free(rows);
    free(ordered);
}

// shard_of[i]: the file of tensor i, filled in their order up to the limit; returns how many.
static int split_shards(const ModelLayout* layout, const SaveSource* source, int64_t limit, int* shard_of) {
    int shards = 0;
    int64_t room = 0;
    for (int i = 0; i < layout->n_files; i++) {
        int64_t bytes = source_bytes(source, &layout->files[i]);
        if (i == 0 || bytes > room) {
            shards++;
            room = limit;
        }
        room -= bytes;
        shard_of[i] = shards - 1;
    }
    return shards;
}

static void shard_name(char* name, size_t size, int shard, int shards) {
    if (shards == 1) snprintf(name, size, "model.safetensors");
    else snprintf(name, size, "model-%05d-of-%05d.safetensors", shard + 1, shards);
}

static void write_index(const ModelLayout* layout, const SaveSource* source, const char* directory, const int* shard_of,
                        int shards) {
    char name[64];
    int64_t total = 0;
    cJSON *json = cJSON_CreateObject(), *metadata = cJSON_AddObjectToObject(json, "metadata"),
          *map = cJSON_AddObjectToObject(json, "weight_map");
    for (int i = 0; i < layout->n_files; i++) {
        shard_name(name, sizeof name, shard_of[i], shards);
        cJSON_AddStringToObject(map, layout->files[i].hf_name, name);
        total += source_bytes(source, &layout->files[i]);
    }
    cJSON_AddNumberToObject(metadata, "total_size", (double)total);
    char* text = json_pretty_text(json);
    Path path = path_of(directory, "model.safetensors.index.json");
    file_write(path.s, text, strlen(text));
    cJSON_free(text);
    cJSON_Delete(json);
}

// The tensors [first, end) into one file; `done` counts parameters.
static void save_shard(const ModelLayout* layout, const SaveSource* source, const char* path, int first, int end,
                       Progress* progress, int64_t* done) {
    StWriter file;
    st_create(&file, path);
    st_set_metadata(&file, "format", "pt");
    for (int i = first; i < end; i++) {
        int64_t shape[2];
        int n = file_shape(layout, &layout->files[i], shape);
        st_declare(&file, layout->files[i].hf_name, source_dtype(source, &layout->files[i]), n, shape);
    }
    for (int i = first; i < end; i++) {
        save_tensor(layout, source, &layout->files[i], &file);
        progress_update(progress, *done += layout->files[i].rows * layout->files[i].cols, "parameters");
    }
    st_commit(&file);
}

static void save_model(const ModelLayout* layout, const SaveSource* source, const char* directory, const char* from,
                       const char* dtype, int64_t shard_bytes, bool quiet) {
    char name[64];
    int* shard_of = (int*)host_alloc((size_t)layout->n_files * sizeof(int), "the table of shards");
    int shards = split_shards(layout, source, shard_bytes ? shard_bytes : SHARD_BYTES, shard_of);
    directory_make(directory);
    char* config = model_config_json(&layout->config, from, dtype);
    const Path config_path = path_of(directory, "config.json");
    unlink(config_path.s);  // of an earlier model: until the new one is whole, the directory is none
    Progress progress;
    progress_begin(&progress, "saving", layout->n_parameters, quiet);
    int64_t done = 0;
    for (int shard = 0, first = 0; shard < shards; shard++) {
        int end = first;
        while (end < layout->n_files && shard_of[end] == shard) end++;
        shard_name(name, sizeof name, shard, shards);
        save_shard(layout, source, path_of(directory, "%s", name).s, first, end, &progress, &done);
        first = end;
    }
    if (shards > 1) write_index(layout, source, directory, shard_of, shards);
    // what an earlier model of another size left behind would be read in place of this one
    unlink(path_of(directory, shards > 1 ? "model.safetensors" : "model.safetensors.index.json").s);
    file_write(config_path.s, config, strlen(config));
    free(config);
    free(shard_of);
    progress_end(&progress);
}

void parameters_save(const ParameterSet* set, const char* directory, const char* from, int64_t shard_bytes,
                     bool quiet) {
    SaveSource source = {set, NULL, NULL, NULL};
    save_model(set->layout, &source, directory, from, "float32", shard_bytes, quiet);
}

void model_refuse_existing(const char* directory) {
    static const char* const names[] = {"model.safetensors", "model.safetensors.index.json"};
    for (int i = 0; i < 2; i++) {
        Path path = path_of(directory, "%s", names[i]);
        if (file_exists(path.s)) fatal("%s: a model exists there already; remove it, or choose another --out", path.s);
    }
}

void model_save_rows(const ModelLayout* layout, const RowSource* reader, const char* directory, int64_t shard_bytes,
                     bool quiet) {
    static const char* const names[] = {"float32", "float16", "bfloat16"};
    SaveSource source = {NULL, NULL, NULL, reader};
    save_model(layout, &source, directory, NULL, names[reader->dtype], shard_bytes, quiet);
}

void model_save_changed(const ModelLayout* layout, const char* from, const RowChange* change, const char* directory,
                        int64_t shard_bytes, bool quiet) {
    StModel files;
    st_open_model(&files, from, "model");
    check_files(&files, layout, from);
    SaveSource source = {NULL, &files, change, NULL};
    save_model(layout, &source, directory, from, NULL, shard_bytes, quiet);
    st_close_model(&files);
}
