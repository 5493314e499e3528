/* safetensors. See safetensors.h. */
#include <cjson/cJSON.h>
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <stb/stb_ds.h>
#include "base/error.h"
#include "base/text.h"
#include "base/safetensors.h"

#define HEADER_MOST (100u << 20)  // as the format's own library
#define INDEX_MOST (64u << 20)
#define SHARDS_MOST 10000

static const struct {
    const char* name;
    size_t size;
} dtypes[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8}, {"I32", 4}, {"I64", 8}, {"U8", 1}, {"other", 0}};
static const struct {
    const char* name;
    size_t size;
} others[] = {{"BOOL", 1}, {"I8", 1},      {"I16", 2},     {"U16", 2},    {"U32", 4},
              {"U64", 8},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1}};

const char* st_dtype_name(StDtype dtype) { return dtypes[dtype].name; }
size_t st_dtype_size(StDtype dtype) { return dtypes[dtype].size; }

typedef struct {
    char* key;
    int value;
} NameMap;

// ---------------------------------------------------------------------------------------------------
// reading

static double whole_number(const cJSON* item, const char* path, const char* name) {
    if (!cJSON_IsNumber(item) || item->valuedouble < 0 || item->valuedouble > 9007199254740992.0 ||
        item->valuedouble != floor(item->valuedouble))
        fatal("%s: tensor %.80s has a shape or offset that is not a whole number", path, name);
    return item->valuedouble;
}

static void read_tensor(StReader* r, const cJSON* entry, size_t data_at, StTensor* t) {
    const char *path = r->file.path, *name = entry->string;
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(entry, "dtype"),
                *shape = cJSON_GetObjectItemCaseSensitive(entry, "shape"),
                *offsets = cJSON_GetObjectItemCaseSensitive(entry, "data_offsets");
    if (!cJSON_IsString(dtype) || !cJSON_IsArray(shape) || !cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2)
        fatal("%s: tensor %.80s lacks dtype, shape or data_offsets", path, name);
    size_t size = 0;
    t->dtype = ST_OTHER;
    for (int i = 0; i < ST_OTHER; i++)
        if (!strcmp(dtypes[i].name, dtype->valuestring)) {
            t->dtype = (StDtype)i;
            t->type = dtypes[i].name;
            size = dtypes[i].size;
        }
    for (size_t i = 0; i < sizeof others / sizeof *others && !size; i++)
        if (!strcmp(others[i].name, dtype->valuestring)) {
            t->type = others[i].name;
            size = others[i].size;
        }
    if (!size) fatal("%s: tensor %.80s has the unknown dtype %.20s", path, name, dtype->valuestring);
    t->count = 1;
    for (const cJSON* d = shape->child; d; d = d->next) {
        if (t->n_dims == ST_MAX_DIMS) fatal("%s: tensor %.80s has more than %d dimensions", path, name, ST_MAX_DIMS);
        int64_t n = (int64_t)whole_number(d, path, name);
        t->shape[t->n_dims++] = n;
        if (n && t->count > (int64_t)(r->file.length / size) / n)
            fatal("%s: tensor %.80s is larger than the file", path, name);
        t->count *= n;
    }
    double begin = whole_number(offsets->child, path, name), end = whole_number(offsets->child->next, path, name);
    if (end < begin || end > (double)(r->file.length - data_at))
        fatal("%s: tensor %.80s ends at byte %.0f of %zu: the file is truncated or damaged", path, name, end + data_at,
              r->file.length);
    t->bytes = (size_t)(end - begin);
    if (t->bytes != (size_t)t->count * size)
        fatal("%s: tensor %.80s has %zu bytes but its shape needs %zu", path, name, t->bytes, (size_t)t->count * size);
    t->data = r->file.data + data_at + (size_t)begin;
    t->name = strdup(name);
}

static int by_address(const void* a, const void* b) {
    const StTensor *x = a, *y = b;
    return x->data < y->data ? -1 : x->data > y->data ? 1 : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

void st_open(StReader* r, const char* path) {
    memset(r, 0, sizeof *r);
    file_map(&r->file, path);
    uint64_t header = 0;
    if (r->file.length < 8) fatal("%s has %zu bytes, too few for a safetensors file", path, r->file.length);
    for (int i = 7; i >= 0; i--) header = header << 8 | r->file.data[i];
    if (header > HEADER_MOST || header > r->file.length - 8)
        fatal("%s: truncated, or not a safetensors file: its header claims %llu bytes of %zu", path,
              (unsigned long long)header, r->file.length);
    cJSON* json = cJSON_ParseWithLength((const char*)r->file.data + 8, header);
    if (!cJSON_IsObject(json)) fatal("%s: the header is not a JSON object", path);
    int n = cJSON_GetArraySize(json);
    r->tensors = host_alloc((n ? n : 1) * sizeof *r->tensors, "the table of tensors");
    NameMap* map = NULL;
    sh_new_strdup(map);
    for (const cJSON* entry = json->child; entry; entry = entry->next) {
        if (!strcmp(entry->string, "__metadata__")) {
            if (!cJSON_IsObject(entry) || r->metadata)
                fatal("%s: __metadata__ is not an object, or is a duplicate", path);
            r->metadata = host_alloc((2 * (size_t)cJSON_GetArraySize(entry) + 1) * sizeof *r->metadata, "the metadata");
            for (const cJSON* m = entry->child; m; m = m->next) {
                if (!cJSON_IsString(m))
                    fatal("%s: metadata \"%.80s\" is not a string", path, m->string ? m->string : "");
                r->metadata[2 * r->n_metadata] = strdup(m->string);
                r->metadata[2 * r->n_metadata++ + 1] = strdup(m->valuestring);
            }
            continue;
        }
        if (shgeti(map, entry->string) >= 0) fatal("%s: tensor %.80s is a duplicate", path, entry->string);
        read_tensor(r, entry, 8 + header, &r->tensors[r->n_tensors++]);
        shput(map, entry->string, 0);
    }
    cJSON_Delete(json);
    qsort(r->tensors, r->n_tensors, sizeof *r->tensors, by_address);
    for (int i = 0; i + 1 < r->n_tensors; i++)
        if (r->tensors[i].data + r->tensors[i].bytes > r->tensors[i + 1].data)
            fatal("%s: tensors %.80s and %.80s overlap", path, r->tensors[i].name, r->tensors[i + 1].name);
    for (int i = 0; i < r->n_tensors; i++) shput(map, r->tensors[i].name, i);
    r->by_name = map;
}

void st_close(StReader* r) {
    for (int i = 0; i < r->n_tensors; i++) free(r->tensors[i].name);
    for (int i = 0; i < 2 * r->n_metadata; i++) free(r->metadata[i]);
    NameMap* map = r->by_name;
    shfree(map);
    free(r->tensors);
    free(r->metadata);
    file_unmap(&r->file);
    memset(r, 0, sizeof *r);
}

const StTensor* st_find(const StReader* r, const char* name) {
    NameMap* map = r->by_name;
    ptrdiff_t i = shgeti(map, name);
    return i < 0 ? NULL : &r->tensors[map[i].value];
}
const StTensor* st_need(const StReader* r, const char* name) {
    const StTensor* t = st_find(r, name);
    if (!t) fatal("%s: tensor %s is missing", r->file.path, name);
    return t;
}
const char* st_metadata(const StReader* r, const char* key) {
    for (int i = 0; i < r->n_metadata; i++)
        if (!strcmp(r->metadata[2 * i], key)) return r->metadata[2 * i + 1];
    return NULL;
}

float st_half_to_float(uint16_t h) {
    // the exponent and mantissa at their place in fp32 are the value times 2⁻¹¹², subnormals included
    uint32_t bits = (uint32_t)(h & 0x7fff) << 13;
    float value;
    memcpy(&value, &bits, 4);
    value *= 0x1p112f;
    if ((h & 0x7c00) == 0x7c00) value = h & 0x3ff ? NAN : INFINITY;
    return h >> 15 ? -value : value;
}

void st_to_float(const StReader* r, const StTensor* t, int64_t from, int64_t n, float* out) {
    const uint8_t* p = t->data + (size_t)from * dtypes[t->dtype].size;
    uint16_t h;
    switch (t->dtype) {
        case ST_F32: memcpy(out, p, (size_t)n * 4); break;
        case ST_BF16:
            for (int64_t i = 0; i < n; i++) {
                memcpy(&h, p + 2 * i, 2);
                uint32_t bits = (uint32_t)h << 16;
                memcpy(&out[i], &bits, 4);
            }
            break;
        case ST_F16:
            for (int64_t i = 0; i < n; i++) {
                memcpy(&h, p + 2 * i, 2);
                out[i] = st_half_to_float(h);
            }
            break;
        default: fatal("%s: tensor %s is %s; expected F32, F16 or BF16", r->file.path, t->name, t->type);
    }
}

static uint16_t to_bfloat(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (isnan(x)) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static uint16_t to_half(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    float size = fabsf(x);
    if (isnan(x)) return sign | 0x7e00;
    if (size >= 65520.0f) return sign | 0x7c00;  // halfway to the first number that is none
    if (size < 0x1p-14f) return (uint16_t)(sign | (uint16_t)lrintf(size * 0x1p24f));  // subnormal: a multiple of 2⁻²⁴
    memcpy(&bits, &size, 4);
    bits += 0xfff + (bits >> 13 & 1);
    return (uint16_t)(sign | ((bits >> 13) - (112u << 10)));
}

void st_from_float(StDtype dtype, const float* in, int64_t n, void* out) {
    if (dtype != ST_F32 && dtype != ST_BF16 && dtype != ST_F16)
        program_error("a float cannot be stored as %s", dtypes[dtype].name);
    if (dtype == ST_F32) {
        memmove(out, in, (size_t)n * 4);
        return;
    }
    for (int64_t i = 0; i < n; i++) {  // in order: a narrow element never overtakes a wide one that is still to be read
        uint16_t h = dtype == ST_BF16 ? to_bfloat(in[i]) : to_half(in[i]);
        memcpy((char*)out + 2 * i, &h, 2);
    }
}

void st_copy(const StReader* r, const char* name, StDtype dtype, int64_t count, void* out) {
    const StTensor* t = st_need(r, name);
    if (t->dtype != dtype || t->count != count)
        fatal("%s: tensor %s has %lld elements of %s; expected %lld of %s", r->file.path, name, (long long)t->count,
              dtypes[t->dtype].name, (long long)count, dtypes[dtype].name);
    memcpy(out, t->data, t->bytes);
}

void st_forget(const StReader* r, const StTensor* t) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)t->data / page * page;
    (void)r;
    if (t->bytes)
        madvise((void*)from, (uintptr_t)t->data + t->bytes - from,
                MADV_DONTNEED);  // advice: where it fails the pages stay
}

// ---------------------------------------------------------------------------------------------------
// models in several files

// Opens the file of the directory unless it is open already; returns its number.
static int open_shard(StModel* m, NameMap** shards, const char* directory, const char* name, const char* index) {
    ptrdiff_t known = shgeti(*shards, name);
    if (known >= 0) return (*shards)[known].value;
    if (!*name || strchr(name, '/') || name[0] == '.')
        fatal("%s: \"%.80s\" is not the name of a file in this directory", index, name);
    if (m->n_files == SHARDS_MOST) fatal("%s names more than %d files", index, SHARDS_MOST);
    m->files = host_resize(m->files, ((size_t)m->n_files + 1) * sizeof *m->files, "the list of files");
    Path path = path_of(directory, "%s", name);
    st_open(&m->files[m->n_files], path.s);
    shput(*shards, name, m->n_files);
    return m->n_files++;
}

static void open_index(StModel* m, const char* directory, const char* index) {
    size_t length;
    char* text = file_read(index, INDEX_MOST, &length);
    cJSON* json = cJSON_ParseWithLength(text, length);
    const cJSON* map = cJSON_GetObjectItemCaseSensitive(json, "weight_map");
    if (!cJSON_IsObject(map) || !map->child)
        fatal("%s: not an index of safetensors files (an object with a \"weight_map\")", index);
    NameMap* shards = NULL;
    int64_t named = 0, present = 0;
    sh_new_strdup(shards);
    for (const cJSON* entry = map->child; entry; entry = entry->next, named++) {
        if (!cJSON_IsString(entry)) fatal("%s: tensor %.80s has no file", index, entry->string);
        int shard = open_shard(m, &shards, directory, entry->valuestring, index);
        const StReader* file = &m->files[shard];
        if (!st_find(file, entry->string))
            fatal("%s: tensor %.80s is not in %s", index, entry->string, file->file.path);
    }
    for (int i = 0; i < m->n_files; i++)
        for (int k = 0; k < m->files[i].n_tensors; k++, present++) {
            const StReader* first = NULL;
            const char* name = m->files[i].tensors[k].name;
            st_model_find(m, name, &first);
            if (first && first != &m->files[i])
                fatal("%s: tensor %.80s is in %s as well", m->files[i].file.path, name, first->file.path);
        }
    // every name of the index is in its file, so another number means a tensor without a name, or a duplicate
    // name
    if (present != named)
        fatal("%s names %lld tensors but its files hold %lld", index, (long long)named, (long long)present);
    shfree(shards);
    cJSON_Delete(json);
    free(text);
}

// What people keep where the safetensors should be, and what makes them of it. %s: the directory.
static const struct {
    const char* stem;
    const char* file;
    const char* way;
} other_forms[] = {
    {"model", "pytorch_model.bin", "run python3 data/convert_bin.py %s"},
    {"model", "pytorch_model.bin.index.json", "run python3 data/convert_bin.py %s"},
    {"adapter_model", "adapter_model.bin", "run python3 data/convert_bin.py %s"},
    {"model", "adapter_config.json",
     "it is an adapter: give its model with --model, and this directory with --adapter"},
    {"model", "consolidated.safetensors", "take the files of the repository that transformers reads"},
    {"model", "consolidated.00.pth", "take the files of the repository that transformers reads"},
    {"model", "tf_model.h5", "let transformers convert it (from_pretrained with from_tf, save_pretrained)"},
    {"model", "flax_model.msgpack", "let transformers convert it (from_pretrained with from_flax, save_pretrained)"},
};

static void refuse_other_form(const char* directory, const char* stem) {
    char way[PATH_ROOM + 200];  // a directory and a sentence of other_forms
    for (size_t i = 0; i < sizeof other_forms / sizeof *other_forms; i++) {
        if (strcmp(stem, other_forms[i].stem) || !file_exists(path_of(directory, "%s", other_forms[i].file).s))
            continue;
        const char* hole = strstr(other_forms[i].way, "%s");
        if (hole)
            snprintf(way, sizeof way, "%.*s%s%s", (int)(hole - other_forms[i].way), other_forms[i].way, directory,
                     hole + 2);
        else snprintf(way, sizeof way, "%s", other_forms[i].way);
        fatal("%s: there is %s and no %s.safetensors; %s", directory, other_forms[i].file, stem, way);
    }
    DIR* d = opendir(directory);
    for (struct dirent* entry; d && (entry = readdir(d));) {
        size_t n = strlen(entry->d_name);
        if (n > 5 && !strcmp(entry->d_name + n - 5, ".gguf"))
            fatal("%s: there is %s and no %s.safetensors; run train_seal import --gguf %s/%s --out DIR", directory,
                  entry->d_name, stem, directory, entry->d_name);
    }
    if (d) closedir(d);
}

void st_open_model(StModel* m, const char* directory, const char* stem) {
    memset(m, 0, sizeof *m);
    const Path path = path_of(directory, "%s.safetensors", stem),
               index = path_of(directory, "%s.safetensors.index.json", stem);
    if (!file_exists(path.s) && file_exists(index.s)) {
        open_index(m, directory, index.s);
        return;
    }
    if (!file_exists(path.s)) refuse_other_form(directory, stem);
    if (!file_exists(path.s))
        fatal(
            "%s: there is neither %s.safetensors nor %s.safetensors.index.json; a model in another form must be "
            "converted",
            directory, stem, stem);
    m->files = host_alloc((size_t)sizeof *m->files, "the list of files");
    st_open(&m->files[m->n_files++], path.s);
}

void st_close_model(StModel* m) {
    for (int i = 0; i < m->n_files; i++) st_close(&m->files[i]);
    free(m->files);
    memset(m, 0, sizeof *m);
}

const StTensor* st_model_find(const StModel* m, const char* name, const StReader** file) {
    for (int i = 0; i < m->n_files; i++) {
        const StTensor* t = st_find(&m->files[i], name);
        if (t) {
            *file = &m->files[i];
            return t;
        }
    }
    return NULL;
}

// ---------------------------------------------------------------------------------------------------
// writing

void st_create(StWriter* w, const char* path) {
    memset(w, 0, sizeof *w);
    atomic_open(&w->file, path);
}

void st_set_metadata(StWriter* w, const char* key, const char* value) {
    w->metadata = host_resize(w->metadata, 2 * ((size_t)w->n_metadata + 1) * sizeof *w->metadata, "the metadata");
    w->metadata[2 * w->n_metadata] = strdup(key);
    w->metadata[2 * w->n_metadata++ + 1] = strdup(value);
}

void st_declare(StWriter* w, const char* name, StDtype dtype, int n_dims, const int64_t* shape) {
    w->tensors = host_resize(w->tensors, ((size_t)w->n_tensors + 1) * sizeof *w->tensors, "the table of tensors");
    StTensor* t = &w->tensors[w->n_tensors++];
    memset(t, 0, sizeof *t);
    t->name = strdup(name);
    t->dtype = dtype;
    t->n_dims = n_dims;
    t->count = 1;
    for (int i = 0; i < n_dims; i++) t->count *= t->shape[i] = shape[i];
    t->bytes = (size_t)t->count * dtypes[dtype].size;
}

char* st_header(const StTensor* tensors, int n_tensors, char* const* metadata, int n_metadata, size_t* length) {
    cJSON* json = cJSON_CreateObject();
    if (n_metadata) {
        cJSON* object = cJSON_AddObjectToObject(json, "__metadata__");
        for (int i = 0; i < n_metadata; i++) cJSON_AddStringToObject(object, metadata[2 * i], metadata[2 * i + 1]);
    }
    double at = 0;
    for (int i = 0; i < n_tensors; i++) {
        const StTensor* t = &tensors[i];
        cJSON* entry = cJSON_AddObjectToObject(json, t->name);
        cJSON_AddStringToObject(entry, "dtype", dtypes[t->dtype].name);
        cJSON* shape = cJSON_AddArrayToObject(entry, "shape");
        for (int d = 0; d < t->n_dims; d++) cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->shape[d]));
        cJSON* offsets = cJSON_AddArrayToObject(entry, "data_offsets");
        cJSON_AddItemToArray(offsets, cJSON_CreateNumber(at));
        cJSON_AddItemToArray(offsets, cJSON_CreateNumber(at += (double)t->bytes));
    }
    char* text = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    size_t n = text ? strlen(text) : 0, padded = (n + 7) / 8 * 8;  // spaces, so that the data begin on 8 bytes
    char* header = text ? malloc(8 + padded) : NULL;
    if (!header) {
        cJSON_free(text);
        return NULL;
    }
    for (int i = 0; i < 8; i++) header[i] = (char)(padded >> (8 * i));
    memset(header + 8, ' ', padded);
    memcpy(header + 8, text, n);
    cJSON_free(text);
    *length = 8 + padded;
    return header;
}

static void write_header(StWriter* w) {
    size_t length;
    char* header = host_made(st_header(w->tensors, w->n_tensors, w->metadata, w->n_metadata, &length), "a header");
    atomic_write(&w->file, header, length);
    free(header);
    w->begun = true;
}

void st_write(StWriter* w, const void* data, size_t bytes) {
    if (!w->begun) write_header(w);
    if (w->written == w->n_tensors || w->written_bytes + bytes > w->tensors[w->written].bytes)
        program_error("%s: more data than declared", w->file.path);
    atomic_write(&w->file, data, bytes);
    w->written_bytes += bytes;
    while (w->written < w->n_tensors && w->written_bytes == w->tensors[w->written].bytes) {
        w->written++;
        w->written_bytes = 0;
    }
}

void st_commit(StWriter* w) {
    if (!w->begun) write_header(w);
    while (w->written < w->n_tensors && w->tensors[w->written].bytes == 0) w->written++;
    if (w->written != w->n_tensors)
        program_error("%s: tensor %s was declared and not written", w->file.path, w->tensors[w->written].name);
    atomic_commit(&w->file);
    for (int i = 0; i < w->n_tensors; i++) free(w->tensors[i].name);
    for (int i = 0; i < 2 * w->n_metadata; i++) free(w->metadata[i]);
    free(w->tensors);
    free(w->metadata);
    memset(w, 0, sizeof *w);
}
