/* GGUF. See gguf.h. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <stb/stb_ds.h>
#include "base/error.h"
#include "base/gguf.h"
#include "base/safetensors.h"
#include "base/text.h"

#define KEY_MOST 65535          // bytes of a key; the format's own limit
#define NAME_MOST 255           // bytes of a tensor's name; the format's own limit is 64, files of some tools exceed it
#define TENSORS_MOST (1 << 20)  // and keys
#define PARTS_MOST 10000
#define ALIGNMENT_DEFAULT 32

typedef struct {
    char* key;
    int value;
} NameMap;

// ---------------------------------------------------------------------------------------------------
// types of tensors. A block's values are computed in the order and with the roundings of the `gguf` package.

static float half_at(const uint8_t* p) {
    uint16_t h;
    memcpy(&h, p, 2);
    return st_half_to_float(h);
}
static uint32_t word_at(const uint8_t* p) {
    uint32_t w;
    memcpy(&w, p, 4);
    return w;
}

static void block_f32(const uint8_t* p, float* out) { memcpy(out, p, 4); }
static void block_f16(const uint8_t* p, float* out) { *out = half_at(p); }
static void block_bf16(const uint8_t* p, float* out) {
    uint16_t h;
    memcpy(&h, p, 2);
    uint32_t bits = (uint32_t)h << 16;
    memcpy(out, &bits, 4);
}

// 32 weights: a scale d in fp16, in some types a minimum m as well, and 4, 5 or 8 bits a weight.
static void block_q4_0(const uint8_t* p, float* out) {
    const float d = half_at(p);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((p[2 + i] & 15) - 8);
        out[i + 16] = d * (float)((p[2 + i] >> 4) - 8);
    }
}
static void block_q4_1(const uint8_t* p, float* out) {
    const float d = half_at(p), m = half_at(p + 2);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)(p[4 + i] & 15) + m;
        out[i + 16] = d * (float)(p[4 + i] >> 4) + m;
    }
}
static void block_q5_0(const uint8_t* p, float* out) {
    const float d = half_at(p);
    const uint32_t fifth = word_at(p + 2);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((int)((p[6 + i] & 15) | (fifth >> i & 1) << 4) - 16);
        out[i + 16] = d * (float)((int)((p[6 + i] >> 4) | (fifth >> (i + 16) & 1) << 4) - 16);
    }
}
static void block_q5_1(const uint8_t* p, float* out) {
    const float d = half_at(p), m = half_at(p + 2);
    const uint32_t fifth = word_at(p + 4);
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((p[8 + i] & 15) | (fifth >> i & 1) << 4) + m;
        out[i + 16] = d * (float)((p[8 + i] >> 4) | (fifth >> (i + 16) & 1) << 4) + m;
    }
}
static void block_q8_0(const uint8_t* p, float* out) {
    const float d = half_at(p);
    for (int i = 0; i < 32; i++) out[i] = (float)(int8_t)p[2 + i] * d;
}

// 256 weights in 8 groups of 32, each with a scale and a minimum of 6 bits; 12 bytes hold the sixteen of them.
static void group_scales(const uint8_t* p, int group, int* scale, int* minimum) {
    if (group < 4) {
        *scale = p[group] & 63;
        *minimum = p[group + 4] & 63;
    } else {
        *scale = (p[group + 4] & 15) | (p[group - 4] >> 2 & 0x30);
        *minimum = p[group + 4] >> 4 | (p[group] >> 2 & 0x30);
    }
}
// fifth (32): bit `group` of byte i is the highest of weight i of the group; NULL: 4 bits a weight.
static void block_k(const uint8_t* p, const uint8_t* fifth, const uint8_t* nibbles, float* out) {
    const float d = half_at(p), m = half_at(p + 2);
    for (int group = 0; group < 8; group++) {
        int scale, minimum;
        group_scales(p + 4, group, &scale, &minimum);
        const float of_group = d * (float)scale, least = m * (float)minimum;
        const uint8_t* four = nibbles + group / 2 * 32;  // low halves are one group, high halves the next
        for (int i = 0; i < 32; i++) {
            int q = (four[i] >> (group % 2 * 4) & 15) | (fifth ? (fifth[i] >> group & 1) << 4 : 0);
            out[group * 32 + i] = of_group * (float)q - least;
        }
    }
}
static void block_q4_k(const uint8_t* p, float* out) { block_k(p, NULL, p + 16, out); }
static void block_q5_k(const uint8_t* p, float* out) { block_k(p, p + 16, p + 48, out); }
// 256 weights of 6 bits: 128 bytes of low nibbles, 64 of the upper two bits, 16 scales, d.
static void block_q6_k(const uint8_t* p, float* out) {
    const float d = half_at(p + 208);
    for (int group = 0; group < 8; group++) {  // of 32
        const int half = group / 4, quarter = group % 4;
        const uint8_t *low = p + half * 64 + quarter % 2 * 32, *high = p + 128 + half * 32;
        for (int i = 0; i < 32; i++) {
            const float scale = d * (float)(int8_t)p[192 + group * 2 + i / 16];
            int q = (low[i] >> (quarter / 2 * 4) & 15) | (high[i] >> (quarter * 2) & 3) << 4;
            out[group * 32 + i] = scale * (float)(q - 32);
        }
    }
}

static const struct {
    uint32_t id;  // the format's
    const char* name;
    int block;  // weights
    int bytes;  // of a block
    void (*to_float)(const uint8_t* p, float* out);
} types[] = {
    {0, "F32", 1, 4, block_f32},        {1, "F16", 1, 2, block_f16},        {30, "BF16", 1, 2, block_bf16},
    {2, "Q4_0", 32, 18, block_q4_0},    {3, "Q4_1", 32, 20, block_q4_1},    {6, "Q5_0", 32, 22, block_q5_0},
    {7, "Q5_1", 32, 24, block_q5_1},    {8, "Q8_0", 32, 34, block_q8_0},    {12, "Q4_K", 256, 144, block_q4_k},
    {13, "Q5_K", 256, 176, block_q5_k}, {14, "Q6_K", 256, 210, block_q6_k},
};
#define N_TYPES ((int)(sizeof types / sizeof *types))

// Types that are refused by their name.
static const struct {
    uint32_t id;
    const char* name;
} other_types[] = {{4, "Q4_2"},     {5, "Q4_3"},    {9, "Q8_1"},     {10, "Q2_K"},  {11, "Q3_K"},   {15, "Q8_K"},
                   {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"}, {20, "IQ4_NL"}, {21, "IQ3_S"},
                   {22, "IQ2_S"},   {23, "IQ4_XS"}, {24, "I8"},      {25, "I16"},   {26, "I32"},    {27, "I64"},
                   {28, "F64"},     {29, "IQ1_M"},  {34, "TQ1_0"},   {35, "TQ2_0"}, {39, "MXFP4"},  {40, "NVFP4"}};

static const char* type_names(void) {
    static char list[128];
    if (!*list)
        for (int i = 0; i < N_TYPES; i++)
            snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", types[i].name);
    return list;
}

const char* gguf_type_name(const GgufTensor* t) { return types[t->type].name; }

void gguf_to_float(const GgufTensor* t, int64_t from, int64_t n, float* out) {
    const int block = types[t->type].block, bytes = types[t->type].bytes;
    const uint8_t* p = t->data + (size_t)(from / block) * (size_t)bytes;
    if (from % block || n % block)
        program_error("%s: elements %lld + %lld cut a block", t->name, (long long)from, (long long)n);
    if (types[t->type].to_float == block_f32) {
        memcpy(out, p, (size_t)n * 4);
        return;
    }
    for (int64_t i = 0; i < n; i += block, p += bytes) types[t->type].to_float(p, out + i);
}

// ---------------------------------------------------------------------------------------------------
// the header

typedef struct {
    const GgufPart* part;
    size_t at;
} Cursor;

// The next n bytes; `what` they are a part of, for the message.
static const uint8_t* take(Cursor* c, uint64_t n, const char* what) {
    if (n > c->part->length - c->at)
        fatal("%s ends at byte %zu inside %s: the file is truncated or damaged", c->part->path, c->part->length, what);
    const uint8_t* p = c->part->data + c->at;
    c->at += n;
    return p;
}
static uint32_t take_u32(Cursor* c, const char* what) { return word_at(take(c, 4, what)); }
static uint64_t take_u64(Cursor* c, const char* what) {
    uint64_t x;
    memcpy(&x, take(c, 8, what), 8);
    return x;
}

static bool is_plain(const char* s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isprint((unsigned char)s[i])) return false;
    return n > 0;
}

// A key or a name: printable ASCII, as every one that is known is.
static char* take_name(Cursor* c, size_t most, const char* what) {
    uint64_t n = take_u64(c, what);
    if (!n || n > most)
        fatal("%s: %s of %llu bytes at byte %zu; expected 1 to %zu", c->part->path, what, (unsigned long long)n,
              c->at - 8, most);
    const char* p = (const char*)take(c, n, what);
    if (!is_plain(p, n)) fatal("%s: %s at byte %zu is not printable ASCII", c->part->path, what, c->at - (size_t)n);
    return host_copy(p, n);
}

static const size_t value_sizes[GGUF_VALUE_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};  // strings, arrays: 0

static GgufValueType take_type(Cursor* c, const char* key) {
    uint32_t type = take_u32(c, "the type of a value");
    if (type >= GGUF_VALUE_TYPES) fatal("%s: \"%.80s\" has the unknown type %u", c->part->path, key, type);
    return (GgufValueType)type;
}

static void take_value(Cursor* c, GgufValue* v) {
    v->type = take_type(c, v->key);
    v->count = 1;
    v->array = v->type == GGUF_ARRAY;
    if (v->array) {
        v->type = take_type(c, v->key);
        v->count = take_u64(c, "the length of an array");
        if (v->type == GGUF_ARRAY)
            fatal("%s: \"%.80s\" is an array of arrays, which is not supported", c->part->path, v->key);
    }
    const size_t size = v->type == GGUF_STRING ? 8 : value_sizes[v->type], left = c->part->length - c->at;
    if (v->count > left / size)
        fatal("%s: \"%.80s\" has %llu elements, more than the file has room for: it is truncated or damaged",
              c->part->path, v->key, (unsigned long long)v->count);
    v->data = c->part->data + c->at;
    if (v->type != GGUF_STRING) {
        take(c, v->count * size, v->key);
        for (uint64_t i = 0; v->type == GGUF_BOOL && i < v->count; i++)
            if (v->data[i] > 1) fatal("%s: \"%.80s\" is neither true nor false", c->part->path, v->key);
        return;
    }
    v->strings = host_alloc((size_t)v->count * sizeof *v->strings, v->key);
    for (uint64_t i = 0; i < v->count; i++) {
        v->strings[i].n = take_u64(c, "a string");
        v->strings[i].bytes = (const char*)take(c, v->strings[i].n, "a string");
    }
}

static void take_tensor(Cursor* c, GgufTensor* t) {
    const char* path = c->part->path;
    t->name = take_name(c, NAME_MOST, "a tensor's name");
    uint32_t n_dims = take_u32(c, "a tensor's dimensions");
    if (n_dims < 1 || n_dims > GGUF_MAX_DIMS)
        fatal("%s: tensor %s has %u dimensions; expected 1 to %d", path, t->name, n_dims, GGUF_MAX_DIMS);
    t->n_dims = (int)n_dims;
    t->count = 1;
    for (int d = 0; d < t->n_dims; d++) {
        uint64_t n = take_u64(c, "a tensor's dimensions");
        // no type is smaller than 4 bits a weight
        if (!n || n > 2 * (uint64_t)c->part->length / (uint64_t)t->count)
            fatal("%s: tensor %s is %s", path, t->name, n ? "larger than the file" : "empty");
        t->count *= t->shape[d] = (int64_t)n;
    }
    uint32_t id = take_u32(c, "a tensor's type");
    t->type = -1;
    for (int i = 0; i < N_TYPES; i++)
        if (types[i].id == id) t->type = i;
    for (size_t i = 0; i < sizeof other_types / sizeof *other_types && t->type < 0; i++)
        if (other_types[i].id == id)
            fatal("%s: tensor %s is %s, which is not supported; supported are %s", path, t->name, other_types[i].name,
                  type_names());
    if (t->type < 0) fatal("%s: tensor %s has the unknown type %u", path, t->name, id);
    if (t->shape[0] % types[t->type].block)
        fatal("%s: tensor %s has rows of %lld elements, not a multiple of %s's %d", path, t->name,
              (long long)t->shape[0], types[t->type].name, types[t->type].block);
    t->bytes = (size_t)(t->count / types[t->type].block) * (size_t)types[t->type].bytes;
    t->offset = take_u64(c, "a tensor's offset");
}

// From offsets to places in the data, which begin at the next multiple of the alignment.
static void place_tensors(const GgufPart* part, size_t header, uint64_t alignment, GgufTensor* tensors, int n) {
    size_t begin = (header + alignment - 1) / alignment * alignment;
    for (int i = 0; i < n; i++) {
        GgufTensor* t = &tensors[i];
        uint64_t offset = t->offset;
        if (offset % alignment)
            fatal("%s: tensor %s begins at %llu, not a multiple of %llu", part->path, t->name,
                  (unsigned long long)offset, (unsigned long long)alignment);
        if (begin > part->length || offset > part->length - begin || t->bytes > part->length - begin - offset)
            fatal("%s: tensor %s ends after the file's %zu bytes: the file is truncated or damaged", part->path,
                  t->name, part->length);
        t->data = part->data + begin + offset;
    }
}

static int by_address(const void* a, const void* b) {
    const GgufTensor *x = *(GgufTensor*const*)a, *y = *(GgufTensor*const*)b;
    return x->data < y->data ? -1 : x->data > y->data;
}

static void refuse_overlaps(const GgufPart* part, GgufTensor* tensors, int n) {
    GgufTensor** order = host_alloc((size_t)n * sizeof(GgufTensor*), "the order of tensors");
    for (int i = 0; i < n; i++) order[i] = &tensors[i];
    qsort(order, (size_t)n, sizeof *order, by_address);
    for (int i = 0; i + 1 < n; i++)
        if (order[i]->data + order[i]->bytes > order[i + 1]->data)
            fatal("%s: tensors %s and %s overlap", part->path, order[i]->name, order[i + 1]->name);
    free(order);
}

static void add_name(const GgufReader* r, NameMap** map, const char* name, int value, const char* what) {
    if (shgeti(*map, name) >= 0) fatal("%s: %s %s is a duplicate", gguf_path(r), what, name);
    shput(*map, name, value);
}

// Header and tensors of a part; keys of the first part only are kept.
static void read_part(GgufReader* r, int number, NameMap** keys, NameMap** names) {
    const GgufPart* part = &r->parts[number];
    Cursor c = {part, 0};
    if (part->length < 4 || memcmp(part->data, "GGUF", 4))
        fatal("%s: not a GGUF file (it does not begin with GGUF)", part->path);
    take(&c, 4, "the header");
    uint32_t version = take_u32(&c, "the header");
    if (version != 2 && version != 3)
        fatal(version && !(version & 0xffff)
                  ? "%s: a big-endian GGUF file, which is not supported; convert the model again on a little-endian "
                    "machine"
                  : "%s: GGUF version %u, supported are 2 and 3; convert the model again with a current llama.cpp",
              part->path, version);
    uint64_t n_tensors = take_u64(&c, "the header"), n_values = take_u64(&c, "the header");
    // a value takes 8 + 1 + 4 + 1 bytes at least, a tensor 8 + 1 + 4 + 8 + 4 + 8
    if (n_tensors > part->length / 33 || n_values > part->length / 14 || n_tensors > TENSORS_MOST ||
        n_values > TENSORS_MOST)
        fatal("%s: the header names %llu tensors and %llu keys, more than the file has room for", part->path,
              (unsigned long long)n_tensors, (unsigned long long)n_values);
    GgufValue* values = host_alloc((size_t)n_values * sizeof *values, "a GGUF header");
    r->tensors = host_resize(r->tensors, ((size_t)r->n_tensors + n_tensors) * sizeof *r->tensors, "a GGUF header");
    uint64_t alignment = ALIGNMENT_DEFAULT;
    NameMap* own = NULL;  // a later part's keys
    if (number) sh_new_strdup(own);
    for (uint64_t i = 0; i < n_values; i++) {
        values[i].key = take_name(&c, KEY_MOST, "a key");
        take_value(&c, &values[i]);
        add_name(r, number ? &own : keys, values[i].key, (int)i, "key");
        if (strcmp(values[i].key, "general.alignment")) continue;
        alignment = values[i].type == GGUF_U32 && !values[i].array ? word_at(values[i].data) : 0;
        if (!alignment || alignment & (alignment - 1))
            fatal("%s: \"general.alignment\" must be a power of two", part->path);
    }
    shfree(own);
    GgufTensor* first = r->tensors + r->n_tensors;
    memset(first, 0, (size_t)n_tensors * sizeof *first);
    for (uint64_t i = 0; i < n_tensors; i++) {
        take_tensor(&c, &first[i]);
        add_name(r, names, first[i].name, r->n_tensors++, "tensor");
    }
    place_tensors(part, c.at, alignment, first, (int)n_tensors);
    refuse_overlaps(part, first, (int)n_tensors);
    if (!number) {
        r->values = values;
        r->n_values = (int)n_values;
        return;
    }
    for (uint64_t i = 0; i < n_values; i++) {
        free(values[i].key);
        free(values[i].strings);
    }
    free(values);
}

// ---------------------------------------------------------------------------------------------------
// files

// NAME-00002-of-00004.gguf: the length of NAME, and both numbers.
static bool split_name(const char* path, int* stem, int* number, int* count) {
    size_t n = strlen(path);
    const char* tail = path + n - strlen("-00001-of-00001.gguf");
    int end = 0;
    if (n <= strlen("-00001-of-00001.gguf") || sscanf(tail, "-%5d-of-%5d.gguf%n", number, count, &end) != 2 ||
        tail[end])
        return false;
    *stem = (int)(tail - path);
    return *number >= 1 && *count >= 1 && *number <= *count;
}

// NAME.gguf.part00: the length up to the digits, how many digits, and their number.
static bool piece_name(const char* path, int* stem, int* digits, int* number) {
    const char* part = strstr(path, ".part");
    for (const char* next; part && (next = strstr(part + 1, ".part"));) part = next;
    if (!part) return false;
    *stem = (int)(part + strlen(".part") - path);
    *digits = (int)strspn(path + *stem, "0123456789");
    *number = atoi(path + *stem);
    return *digits >= 1 && *digits <= 6 && !path[*stem + *digits];
}

// The files that belong to the one named; an stb_ds array of names to be freed.
static char** find_files(const char* path) {
    char** found = NULL;
    int stem, number, count, digits;
    if (split_name(path, &stem, &number, &count)) {
        for (int i = 1; i <= count; i++)
            arrput(found, strdup(path_text("%.*s-%05d-of-%05d.gguf", stem, path, i, count).s));
    } else if (piece_name(path, &stem, &digits, &number)) {
        for (int i = 0; i < PARTS_MOST; i++) {  // some count from 1
            Path name = path_text("%.*s%0*d", stem, path, digits, i);
            if (!file_exists(name.s) && i) break;
            if (file_exists(name.s)) arrput(found, strdup(name.s));
        }
        if (!arrlen(found)) arrput(found, strdup(path));
    } else arrput(found, strdup(path));
    return found;
}

static bool begins_a_file(const char* path) {
    MappedFile file;
    file_map(&file, path);
    bool begins = file.length >= 4 && !memcmp(file.data, "GGUF", 4);
    file_unmap(&file);
    return begins;
}

static void open_part(GgufReader* r, const char* path) {
    GgufPart* p = &r->parts[r->n_parts++];
    path_copy(p->path, path);
    file_map(&p->file, path);
    p->data = p->file.data;
    p->length = p->file.length;
}

// One part of all files, one after the other.
static void join_pieces(GgufReader* r, char* const* paths, int n) {
    GgufPart* p = &r->parts[r->n_parts++];
    path_copy(p->path, paths[0]);
    for (int pass = 0; pass < 2; pass++) {
        size_t at = 0;
        for (int i = 0; i < n; i++) {
            MappedFile file;
            file_map(&file, paths[i]);
            if (pass && file.length > p->length - at) fatal("%s grew while it was read", paths[i]);
            if (pass && file.length) memcpy(p->joined + at, file.data, file.length);
            at += file.length;
            file_unmap(&file);
        }
        if (pass) break;
        p->length = at;
        p->joined = mmap(NULL, at ? at : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p->joined == MAP_FAILED) fatal("%s: out of host memory for %d joined pieces (%zu bytes)", paths[0], n, at);
    }
    p->data = p->joined;
}

// What the splits say of themselves; of the first one alone before the others are read.
static void check_split(const GgufReader* r, bool all) {
    double count = 0, tensors = 0;
    bool split = gguf_number(r, "split.count", &count) && count > 1;
    if (split && count != r->n_parts)
        fatal(
            "%s: the first of %.0f files, but %d was given; name them all, or keep names like "
            "NAME-00001-of-%05.0f.gguf",
            gguf_path(r), count, r->n_parts, count);
    if (!split && r->n_parts > 1)
        fatal("%s: not the first of %d files: it has no \"split.count\"", gguf_path(r), r->n_parts);
    if (all && split && gguf_number(r, "split.tensors.count", &tensors) && tensors != r->n_tensors)
        fatal("%s: its %d files hold %d tensors, expected %.0f", gguf_path(r), r->n_parts, r->n_tensors, tensors);
}

void gguf_open(GgufReader* r, const char* const* paths, int n_paths) {
    memset(r, 0, sizeof *r);
    char** files = NULL;
    if (n_paths == 1) files = find_files(paths[0]);
    else
        for (int i = 0; i < n_paths; i++) arrput(files, strdup(paths[i]));
    int n = (int)arrlen(files);
    r->parts = host_alloc((size_t)n * sizeof *r->parts, "a model's files");
    if (n > 1 && !begins_a_file(files[1])) join_pieces(r, files, n);
    else
        for (int i = 0; i < n; i++) open_part(r, files[i]);
    for (int i = 0; i < n; i++) free(files[i]);
    arrfree(files);
    NameMap *keys = NULL, *names = NULL;
    sh_new_strdup(keys);
    sh_new_strdup(names);
    for (int i = 0; i < r->n_parts; i++) {
        read_part(r, i, &keys, &names);
        r->by_key = keys;  // the maps may have moved
        r->by_name = names;
        check_split(r, i + 1 == r->n_parts);
    }
}

void gguf_close(GgufReader* r) {
    for (int i = 0; i < r->n_values; i++) {
        free(r->values[i].key);
        free(r->values[i].strings);
    }
    for (int i = 0; i < r->n_tensors; i++) free(r->tensors[i].name);
    for (int i = 0; i < r->n_parts; i++) {
        if (r->parts[i].joined) munmap(r->parts[i].joined, r->parts[i].length ? r->parts[i].length : 1);
        else file_unmap(&r->parts[i].file);
    }
    NameMap *keys = r->by_key, *names = r->by_name;
    shfree(keys);
    shfree(names);
    free(r->values);
    free(r->tensors);
    free(r->parts);
    memset(r, 0, sizeof *r);
}

const char* gguf_path(const GgufReader* r) { return r->parts[0].path; }

// ---------------------------------------------------------------------------------------------------
// questions

const GgufValue* gguf_find(const GgufReader* r, const char* key) {
    NameMap* map = r->by_key;
    ptrdiff_t i = shgeti(map, key);
    return i < 0 ? NULL : &r->values[map[i].value];
}
const GgufTensor* gguf_tensor(const GgufReader* r, const char* name) {
    NameMap* map = r->by_name;
    ptrdiff_t i = shgeti(map, name);
    return i < 0 ? NULL : &r->tensors[map[i].value];
}

double gguf_element(const GgufValue* v, uint64_t i) {
    const uint8_t* p = v->data + i * value_sizes[v->type];
    union {
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;
        float f32;
        double f64;
    } x;
    memcpy(&x, p, value_sizes[v->type]);
    switch (v->type) {
        case GGUF_U8:
        case GGUF_BOOL: return *p;
        case GGUF_I8: return (int8_t)*p;
        case GGUF_U16: return x.u16;
        case GGUF_I16: return (int16_t)x.u16;
        case GGUF_U32: return x.u32;
        case GGUF_I32: return (int32_t)x.u32;
        case GGUF_U64: return (double)x.u64;
        case GGUF_I64: return (double)(int64_t)x.u64;
        case GGUF_F32: return x.f32;
        case GGUF_F64: return x.f64;
        default: program_error("\"%s\" is not a number", v->key);
    }
}

bool gguf_number(const GgufReader* r, const char* key, double* number) {
    const GgufValue* v = gguf_find(r, key);
    if (!v) return false;
    if (v->array || v->type == GGUF_STRING || v->type == GGUF_BOOL)
        fatal("%s: \"%s\" is not a number", gguf_path(r), key);
    *number = gguf_element(v, 0);
    return true;
}
bool gguf_bool(const GgufReader* r, const char* key, bool otherwise) {
    const GgufValue* v = gguf_find(r, key);
    if (!v) return otherwise;
    if (v->array || v->type != GGUF_BOOL) fatal("%s: \"%s\" is neither true nor false", gguf_path(r), key);
    return *v->data;
}
char* gguf_text(const GgufReader* r, const char* key) {
    const GgufValue* v = gguf_find(r, key);
    if (!v) return NULL;
    if (v->array || v->type != GGUF_STRING) fatal("%s: \"%s\" is not a string", gguf_path(r), key);
    if (memchr(v->strings->bytes, 0, v->strings->n)) fatal("%s: \"%s\" holds a zero byte", gguf_path(r), key);
    return host_copy(v->strings->bytes, v->strings->n);
}
const GgufValue* gguf_strings(const GgufReader* r, const char* key) {
    const GgufValue* v = gguf_find(r, key);
    if (v && (!v->array || v->type != GGUF_STRING)) fatal("%s: \"%s\" is not an array of strings", gguf_path(r), key);
    return v;
}
const GgufValue* gguf_numbers(const GgufReader* r, const char* key) {
    const GgufValue* v = gguf_find(r, key);
    if (v && (!v->array || v->type == GGUF_STRING)) fatal("%s: \"%s\" is not an array of numbers", gguf_path(r), key);
    return v;
}
