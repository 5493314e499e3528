/* Selectors from PyTorch `.pt` files: zip central directory, a minimal pickle walker, the tensor's bytes. See
 * pt_reader.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include "base/error.h"
#include "base/file.h"
#include "commands/pt_reader.h"

typedef struct {
    const uint8_t* data;
    size_t length;
    char* why;
    size_t why_size;
} Archive;

__attribute__((format(printf, 2, 3))) static void say(Archive* a, const char* format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(a->why, a->why_size, format, args);
    va_end(args);
    for (char* c = a->why; *c; c++)
        if ((unsigned char)*c < ' ') *c = ' ';  // one line, whatever names the file holds
}
#define refuse(a, ...) (say(a, __VA_ARGS__), false)

static uint64_t little(const uint8_t* p, int bytes) {
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--) value = value << 8 | p[i];
    return value;
}

// ---------------------------------------------------------------------------------------------------
// zip (APPNOTE 6.3): sizes and places come from the central directory; the local headers of torch.save leave them to a
// trailing descriptor

typedef struct {
    const char* name;
    size_t name_length;
    int method;  // 0 stored, 8 deflated
    uint32_t crc;
    uint64_t packed, size, local;
} Entry;

enum {
    END_BYTES = 22,
    CENTRAL_BYTES = 46,
    LOCAL_BYTES = 30,
    LOCATOR_BYTES = 20,
    END64_BYTES = 56,
    ENTRIES_MOST = 4096
};

typedef struct {
    uint64_t at, bytes, entries;
} Directory;

static bool find_directory(Archive* a, Directory* d) {
    if (a->length < END_BYTES)
        return refuse(a, "is too short for a zip archive (torch.save's format since PyTorch 1.6)");
    size_t at = a->length - END_BYTES,
           lowest = at > 65535 ? at - 65535 : 0;  // a comment of at most 65535 bytes may follow
    while (little(a->data + at, 4) != 0x06054b50) {
        if (at == lowest) return refuse(a, "is not a zip archive (torch.save's format since PyTorch 1.6)");
        at--;
    }
    const uint8_t* end = a->data + at;
    *d = (Directory){little(end + 16, 4), little(end + 12, 4), little(end + 10, 2)};
    if (at >= LOCATOR_BYTES &&
        little(end - LOCATOR_BYTES, 4) == 0x07064b50) {  // zip64, which torch.save writes beside the short one
        uint64_t far = little(end - LOCATOR_BYTES + 8, 8);
        if (far > a->length || a->length - far < END64_BYTES || little(a->data + far, 4) != 0x06064b50)
            return refuse(a, "zip64 directory is outside the file");
        *d = (Directory){little(a->data + far + 48, 8), little(a->data + far + 40, 8), little(a->data + far + 32, 8)};
    }
    if (d->at > a->length || d->bytes > a->length - d->at) return refuse(a, "zip directory is outside the file");
    if (d->entries > ENTRIES_MOST)
        return refuse(a, "holds %llu entries; a selector has a handful", (unsigned long long)d->entries);
    return true;
}

// The zip64 extra field holds, in this order, those of the three that are all ones in the short form.
static bool widen(Archive* a, const uint8_t* extra, size_t length, Entry* e) {
    uint64_t* wide[3] = {&e->size, &e->packed, &e->local};
    for (size_t i = 0; length - i >= 4;) {
        size_t id = little(extra + i, 2), n = little(extra + i + 2, 2), used = 0;
        if (n > length - i - 4) return refuse(a, "an extra field of the zip directory is cut off");
        for (int w = 0; id == 1 && w < 3; w++)
            if (*wide[w] == 0xffffffff && n - used >= 8) {
                *wide[w] = little(extra + i + 4 + used, 8);
                used += 8;
            }
        i += 4 + n;
    }
    return true;
}

static bool next_entry(Archive* a, const Directory* d, uint64_t* at, Entry* e) {
    uint64_t end = d->at + d->bytes;
    const uint8_t* p = a->data + *at;
    if (end - *at < CENTRAL_BYTES || little(p, 4) != 0x02014b50) return refuse(a, "zip directory is damaged");
    size_t name = little(p + 28, 2), extra = little(p + 30, 2), comment = little(p + 32, 2);
    if (name + extra + comment > end - *at - CENTRAL_BYTES) return refuse(a, "zip directory is cut off");
    if (little(p + 8, 2) & 1) return refuse(a, "is encrypted");
    *e = (Entry){(const char*)p + CENTRAL_BYTES,
                 name,
                 (int)little(p + 10, 2),
                 (uint32_t)little(p + 16, 4),
                 little(p + 20, 4),
                 little(p + 24, 4),
                 little(p + 42, 4)};
    *at += CENTRAL_BYTES + name + extra + comment;
    return widen(a, p + CENTRAL_BYTES + name, extra, e);
}

// The entry whose name ends in `ending` after the archive's one top folder.
static bool find_entry(Archive* a, const char* ending, Entry* found) {
    Directory d;
    if (!find_directory(a, &d)) return false;
    uint64_t at = d.at;
    size_t m = strlen(ending);
    for (uint64_t i = 0; i < d.entries; i++) {
        Entry e;
        if (!next_entry(a, &d, &at, &e)) return false;
        const char* slash = memchr(e.name, '/', e.name_length);
        size_t top = slash ? (size_t)(slash - e.name) : 0;
        if (slash && e.name_length - top == m && !memcmp(slash, ending, m)) {
            *found = e;
            return true;
        }
    }
    return refuse(a, "holds no entry %s; is it a file of torch.save?", ending + 1);
}

// The entry's bytes, to be freed; at most `most` of them.
static uint8_t* unpack(Archive* a, const Entry* e, uint64_t most) {
    if (e->size > most) {
        say(a, "entry %.*s claims %llu bytes", (int)(e->name_length < 60 ? e->name_length : 60), e->name,
            (unsigned long long)e->size);
        return NULL;
    }
    if (e->local > a->length || a->length - e->local < LOCAL_BYTES || little(a->data + e->local, 4) != 0x04034b50) {
        say(a, "an entry is outside the file");
        return NULL;
    }
    uint64_t from = e->local + LOCAL_BYTES + little(a->data + e->local + 26, 2) + little(a->data + e->local + 28, 2);
    if (from > a->length || e->packed > a->length - from) {
        say(a, "an entry is cut off");
        return NULL;
    }
    if (e->size > 1032 * e->packed) {
        say(a, "an entry claims %llu bytes, more than %llu compressed bytes can hold", (unsigned long long)e->size,
            (unsigned long long)e->packed);
        return NULL;
    }
    uint8_t* out = malloc(e->size + 1);
    if (!out) {
        say(a, "out of host memory for an entry (%llu bytes)", (unsigned long long)e->size);
        return NULL;
    }
    bool good = false;
    if (e->method == 0) {
        if ((good = e->packed == e->size)) memcpy(out, a->data + from, e->size);
    } else if (e->method == 8 && e->packed < UINT32_MAX && e->size < UINT32_MAX) {
        z_stream z = {.next_in = (Bytef*)(a->data + from),
                      .avail_in = (uInt)e->packed,
                      .next_out = out,
                      .avail_out = (uInt)(e->size + 1)};
        if (inflateInit2(&z, -MAX_WBITS) == Z_OK) {
            good = inflate(&z, Z_FINISH) == Z_STREAM_END && z.total_out == e->size;
            inflateEnd(&z);
        }
    } else {
        free(out);
        say(a, "an entry is compressed by method %d; stored and deflated are supported", e->method);
        return NULL;
    }
#ifndef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION  // a fuzzer never hits the right checksum
    if (good && crc32_z(0, out, e->size) != e->crc) good = false;
#endif
    if (!good) {
        free(out);
        say(a, "an entry's bytes do not match their checksum; the file is damaged");
        return NULL;
    }
    return out;
}

// ---------------------------------------------------------------------------------------------------
// the pickle (protocol 2): a stack of small values. Calls are not made; the four callables that may appear build one of
// these values.

typedef enum { NONE, MARK, FALSE_, TRUE_, INTEGER, STRING, TUPLE, STORAGE, TENSOR, PARAMETER, DICT, CALLABLE } Kind;
typedef enum { REBUILD_PARAMETER, REBUILD_TENSOR, FLOAT_STORAGE, ORDERED_DICT } Callable;
static const char* const callables[] = {
    [REBUILD_PARAMETER] = "torch._utils\n_rebuild_parameter\n",
    [REBUILD_TENSOR] = "torch._utils\n_rebuild_tensor_v2\n",
    [FLOAT_STORAGE] = "torch\nFloatStorage\n",
    [ORDERED_DICT] = "collections\nOrderedDict\n",
};

typedef struct {
    Kind kind;
    int64_t number;       // INTEGER; CALLABLE: which; STORAGE, TENSOR, PARAMETER: elements; TUPLE: first of its items
    int64_t offset;       // TENSOR, PARAMETER: first element in the storage; TUPLE: how many items
    const uint8_t* text;  // STRING; STORAGE, TENSOR, PARAMETER: the storage's key
    size_t text_length;
} Value;

enum { STACK_MOST = 64, MEMO_MOST = 256, ITEMS_MOST = 256 };
typedef struct {
    Archive* archive;
    const uint8_t* p;
    size_t at, length;
    Value stack[STACK_MOST], memo[MEMO_MOST], items[ITEMS_MOST];
    int depth, n_items;
} Walker;

static bool push(Walker* w, Value v) {
    if (w->depth == STACK_MOST) return refuse(w->archive, "data.pkl is nested too deep");
    w->stack[w->depth++] = v;
    return true;
}
static bool pop(Walker* w, Value* v) {
    if (w->depth == 0 || w->stack[w->depth - 1].kind == MARK)
        return refuse(w->archive, "data.pkl is damaged at byte %zu", w->at);
    *v = w->stack[--w->depth];
    return true;
}
static bool operand(Walker* w, int bytes, uint64_t* value) {
    if (w->length - w->at < (size_t)bytes) return refuse(w->archive, "data.pkl is cut off");
    *value = little(w->p + w->at, bytes);
    w->at += (size_t)bytes;
    return true;
}

static bool push_tuple(Walker* w, int n) {
    if (n > w->depth || w->n_items + n > ITEMS_MOST)
        return refuse(w->archive, "data.pkl is damaged at byte %zu", w->at);
    Value tuple = {.kind = TUPLE, .number = w->n_items, .offset = n};
    for (int i = 0; i < n; i++) {
        if (w->stack[w->depth - n + i].kind == MARK)
            return refuse(w->archive, "data.pkl is damaged at byte %zu", w->at);
        w->items[w->n_items++] = w->stack[w->depth - n + i];
    }
    w->depth -= n;
    return push(w, tuple);
}

static bool push_marked(Walker* w) {
    int n = 0;
    while (n < w->depth && w->stack[w->depth - 1 - n].kind != MARK) n++;
    if (n == w->depth || !push_tuple(w, n)) return refuse(w->archive, "data.pkl is damaged at byte %zu", w->at);
    Value tuple = w->stack[--w->depth];
    w->depth--;  // the mark
    return push(w, tuple);
}

static bool push_callable(Walker* w) {
    for (size_t i = 0; i < sizeof callables / sizeof *callables; i++) {
        size_t n = strlen(callables[i]);
        if (w->length - w->at >= n && !memcmp(w->p + w->at, callables[i], n)) {
            w->at += n;
            return push(w, (Value){.kind = CALLABLE, .number = (int64_t)i});
        }
    }
    char name[60];
    size_t n = 0;
    for (; n < sizeof name - 1 && w->at + n < w->length && w->p[w->at + n] > ' ' && w->p[w->at + n] < 127; n++)
        name[n] = (char)w->p[w->at + n];
    name[n] = 0;
    return refuse(w->archive, "is not one float32 tensor: data.pkl names something else of module \"%s\"", name);
}

// Items of a tuple against kinds; the items themselves in *items.
static bool tuple_is(Walker* w, Value tuple, int n, const Kind* kinds, const Value** items) {
    if (tuple.kind != TUPLE || tuple.offset != n) return false;
    *items = w->items + tuple.number;
    for (int i = 0; i < n; i++)
        if ((*items)[i].kind != kinds[i] && !(kinds[i] == TRUE_ && (*items)[i].kind == FALSE_)) return false;
    return true;
}

// ('storage', FloatStorage, key, device, elements)
static bool load_storage(Walker* w, Value id) {
    const Value* t;
    if (!tuple_is(w, id, 5, (Kind[]){STRING, CALLABLE, STRING, STRING, INTEGER}, &t) || t[1].number != FLOAT_STORAGE ||
        t[0].text_length != 7 || memcmp(t[0].text, "storage", 7) || t[4].number < 0)
        return refuse(w->archive, "is not one float32 tensor: data.pkl holds another kind of storage");
    return push(w, (Value){.kind = STORAGE, .number = t[4].number, .text = t[2].text, .text_length = t[2].text_length});
}

static bool reduce(Walker* w, Value callable, Value arguments) {
    const Value *t, *one;
    if (callable.kind == CALLABLE && callable.number == ORDERED_DICT && arguments.kind == TUPLE &&
        arguments.offset == 0)
        return push(w, (Value){.kind = DICT});
    // _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)
    if (callable.kind == CALLABLE && callable.number == REBUILD_TENSOR &&
        tuple_is(w, arguments, 6, (Kind[]){STORAGE, INTEGER, TUPLE, TUPLE, TRUE_, DICT}, &t)) {
        if (!tuple_is(w, t[2], 1, (Kind[]){INTEGER}, &one))
            return refuse(w->archive, "holds a tensor of %lld dimensions; expected a vector of logits",
                          (long long)t[2].offset);
        int64_t n = one->number, offset = t[1].number;
        if (!tuple_is(w, t[3], 1, (Kind[]){INTEGER}, &one) || one->number != 1)
            return refuse(w->archive, "holds a strided tensor; expected a contiguous one");
        if (n < 0 || offset < 0 || offset > t[0].number || n > t[0].number - offset)
            return refuse(w->archive, "holds a tensor that reaches outside its storage");
        return push(
            w,
            (Value){.kind = TENSOR, .number = n, .offset = offset, .text = t[0].text, .text_length = t[0].text_length});
    }
    // _rebuild_parameter(tensor, requires_grad, hooks)
    if (callable.kind == CALLABLE && callable.number == REBUILD_PARAMETER &&
        tuple_is(w, arguments, 3, (Kind[]){TENSOR, TRUE_, DICT}, &t)) {
        Value parameter = t[0];
        parameter.kind = PARAMETER;
        return push(w, parameter);
    }
    return refuse(
        w->archive,
        "is not one float32 tensor: data.pkl makes a call at byte %zu that torch.save never makes for a tensor", w->at);
}

// The opcodes of pickle that torch.save writes for one tensor, by their names in Python's pickletools.
enum {
    PICKLE_PROTO = 0x80,
    PICKLE_GLOBAL = 'c',
    PICKLE_MARK = '(',
    PICKLE_EMPTY_TUPLE = ')',
    PICKLE_TUPLE = 't',
    PICKLE_TUPLE1 = 0x85,
    PICKLE_TUPLE2,
    PICKLE_TUPLE3,
    PICKLE_NEWTRUE,
    PICKLE_NEWFALSE,
    PICKLE_BININT1 = 'K',
    PICKLE_BININT2 = 'M',
    PICKLE_BININT = 'J',
    PICKLE_BINUNICODE = 'X',
    PICKLE_BINPUT = 'q',
    PICKLE_LONG_BINPUT = 'r',
    PICKLE_BINGET = 'h',
    PICKLE_LONG_BINGET = 'j',
    PICKLE_BINPERSID = 'Q',
    PICKLE_REDUCE = 'R',
    PICKLE_STOP = '.'
};

static bool walk(Walker* w, Value* result) {
    uint64_t n;
    Value v, callable;
    while (w->at < w->length) {
        uint8_t opcode = w->p[w->at++];
        bool good;
        switch (opcode) {
            case PICKLE_PROTO:
                good = operand(w, 1, &n) &&
                       (n == 2 || refuse(w->archive, "data.pkl is of protocol %d; expected 2", (int)n));
                break;
            case PICKLE_GLOBAL: good = push_callable(w); break;
            case PICKLE_MARK: good = push(w, (Value){.kind = MARK}); break;
            case PICKLE_EMPTY_TUPLE: good = push_tuple(w, 0); break;
            case PICKLE_TUPLE: good = push_marked(w); break;
            case PICKLE_TUPLE1:
            case PICKLE_TUPLE2:
            case PICKLE_TUPLE3: good = push_tuple(w, opcode - PICKLE_TUPLE1 + 1); break;
            case PICKLE_NEWTRUE: good = push(w, (Value){.kind = TRUE_}); break;
            case PICKLE_NEWFALSE: good = push(w, (Value){.kind = FALSE_}); break;
            case PICKLE_BININT1:
                good = operand(w, 1, &n) && push(w, (Value){.kind = INTEGER, .number = (int64_t)n});
                break;
            case PICKLE_BININT2:
                good = operand(w, 2, &n) && push(w, (Value){.kind = INTEGER, .number = (int64_t)n});
                break;
            case PICKLE_BININT:
                good = operand(w, 4, &n) && push(w, (Value){.kind = INTEGER, .number = (int32_t)n});
                break;
            case PICKLE_BINUNICODE:
                good = operand(w, 4, &n) && (n <= w->length - w->at || refuse(w->archive, "data.pkl is cut off"));
                if (good) {
                    v = (Value){.kind = STRING, .text = w->p + w->at, .text_length = n};
                    w->at += n;
                    good = push(w, v);
                }
                break;
            case PICKLE_BINPUT:
            case PICKLE_LONG_BINPUT:
                good = operand(w, opcode == PICKLE_BINPUT ? 1 : 4, &n);
                if (good && (n >= MEMO_MOST || !w->depth))
                    good = refuse(w->archive, "data.pkl is damaged at byte %zu", w->at);
                if (good) w->memo[n] = w->stack[w->depth - 1];
                break;
            case PICKLE_BINGET:
            case PICKLE_LONG_BINGET:
                good = operand(w, opcode == PICKLE_BINGET ? 1 : 4, &n) &&
                       (n < MEMO_MOST || refuse(w->archive, "data.pkl is damaged at byte %zu", w->at)) &&
                       push(w, w->memo[n]);
                break;
            case PICKLE_BINPERSID: good = pop(w, &v) && load_storage(w, v); break;
            case PICKLE_REDUCE: good = pop(w, &v) && pop(w, &callable) && reduce(w, callable, v); break;
            case PICKLE_STOP:
                if (!pop(w, result)) return false;
                if (result->kind != TENSOR && result->kind != PARAMETER)
                    return refuse(w->archive, "is not one float32 tensor");
                return true;
            default:
                good = refuse(w->archive, "is not one float32 tensor: data.pkl holds opcode 0x%02x at byte %zu", opcode,
                              w->at - 1);
        }
        if (!good) return false;
    }
    return refuse(w->archive, "data.pkl is cut off");
}

// ---------------------------------------------------------------------------------------------------

static bool read_tensor(Archive* a, float** out, int64_t* n) {
    enum { PICKLE_MOST = 1 << 16 };
    Entry entry;
    uint8_t *pickle, *bytes;
    if (!find_entry(a, "/data.pkl", &entry) || !(pickle = unpack(a, &entry, PICKLE_MOST))) return false;
    Walker* w = calloc(1, sizeof *w);
    Value tensor;
    char name[80] = "";
    bool good = w != NULL;
    if (good) {
        *w = (Walker){.archive = a, .p = pickle, .length = entry.size};
        good = walk(w, &tensor);
    } else say(a, "out of host memory for the pickle's values");
    if (good && (tensor.text_length > 20 || memchr(tensor.text, 0, tensor.text_length)))
        good = refuse(a, "data.pkl names an impossible storage");
    if (good) snprintf(name, sizeof name, "/data/%.*s", (int)tensor.text_length, (const char*)tensor.text);
    free(w);
    free(pickle);
    if (!good) return false;
    Entry order;
    if (find_entry(a, "/byteorder", &order)) {  // written since PyTorch 2.1
        if (!(bytes = unpack(a, &order, 64))) return false;
        good = order.size == 6 && !memcmp(bytes, "little", 6);
        free(bytes);
        if (!good) return refuse(a, "was written by a big-endian machine");
    }
    *a->why = 0;
    if (!find_entry(a, name, &entry)) return false;
    if (entry.size / sizeof(float) < (uint64_t)(tensor.offset + tensor.number))
        return refuse(a, "storage %s is smaller than its tensor", name + 1);
    if (!(bytes = unpack(a, &entry, (uint64_t)4 << 30))) return false;
    *n = tensor.number;
    memmove(bytes, bytes + (size_t)tensor.offset * sizeof(float), (size_t)*n * sizeof(float));
    *out = (float*)bytes;
    return true;
}

float* pt_parse(const uint8_t* data, size_t length, int64_t* n, char* why, size_t why_size) {
    Archive a = {data, length, why, why_size};
    float* out = NULL;
    *why = 0;
    return read_tensor(&a, &out, n) ? out : NULL;
}

float* pt_read(const char* path, int64_t* n) {
    MappedFile map;
    char why[256];
    file_map(&map, path);
    float* out = pt_parse(map.data, map.length, n, why, sizeof why);
    if (!out) fatal("%s: %s", path, why);
    if (*n == 0) fatal("%s holds no logits", path);
    file_unmap(&map);
    return out;
}
