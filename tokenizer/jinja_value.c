/*
Python's values as templates see them: memory, texts that know whether they come from the row or from the template,
numbers, comparison, str(), repr() and json.dumps, and the reader of JSON.
*/
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include "tokenizer_internal.h"
#include "jinja_internal.h"

#define MAX_JSON_DEPTH 200

// ---- memory ----------------------------------------------------------------------------------------

struct ArenaBlock {
    ArenaBlock* next;
    size_t size, used;
    char* bytes;
};

void* arena_alloc(Arena* a, size_t n) {
    n = (n + 15) & ~(size_t)15;
    if (n > a->limit || a->total > a->limit - n) return NULL;
    ArenaBlock* b = a->first;
    if (!b || b->size - b->used < n) {
        size_t size = b ? 2 * b->size : (size_t)1 << 16;
        if (size > ((size_t)1 << 24)) size = (size_t)1 << 24;
        if (size < n) size = n;
        b = malloc(sizeof *b + 16 + size);
        if (!b) return NULL;
        *b = (ArenaBlock){a->first, size, 0, NULL};
        b->bytes = (char*)(((uintptr_t)(b + 1) + 15) & ~(uintptr_t)15);
        a->first = b;
    }
    void* p = b->bytes + b->used;
    b->used += n;
    a->total += n;
    return memset(p, 0, n);
}

void arena_reset(Arena* a) {
    while (a->first && a->first->next) {
        ArenaBlock* b = a->first->next;
        a->first->next = b->next;
        free(b);
    }
    if (a->first && a->first->size > ((size_t)1 << 22)) arena_free(a);
    if (a->first) a->first->used = 0;
    a->total = 0;
}

void arena_free(Arena* a) {
    for (ArenaBlock* b = a->first; b;) {
        ArenaBlock* next = b->next;
        free(b);
        b = next;
    }
    a->first = NULL;
    a->total = 0;
}

void* jinja_new(Interp* in, size_t n) {
    void* p = arena_alloc(&in->arena, n);
    if (!p) jinja_fail(in, "needs more than %zu MB of memory", in->arena.limit >> 20);
    return p;
}

void jinja_work(Interp* in, size_t bytes) {
    in->steps += 1 + (int64_t)(bytes >> 8);
    if (in->steps > in->limits.steps)
        jinja_fail(in, "more than %lld steps; the template may not end", (long long)in->limits.steps);
}

// ---- making values ---------------------------------------------------------------------------------

Value v_string(Interp* in, const char* p, size_t n, const Str* like) {
    Str* s = jinja_new(in, sizeof *s);
    *s = (Str){.p = p, .n = n, .length = -1};
    if (like) {
        s->from = like->from;
        s->markup = like->markup;
        if (like->from == FROM_BOTH) {
            if (p >= like->p && p + n <= like->p + like->n) s->origin = like->origin + (p - like->p);
            else s->from = FROM_ROW;
        }
    }
    return (Value){.type = V_STRING, .s = s};
}

Value v_text(Interp* in, const char* text) { return v_string(in, text, strlen(text), NULL); }
Value v_part(Interp* in, const Str* s, size_t from, size_t to) { return v_string(in, s->p + from, to - from, s); }

static Value new_list(Interp* in, ValueType type, size_t room) {
    List* l = jinja_new(in, sizeof *l);
    l->v = room ? jinja_new(in, room * sizeof *l->v) : NULL;
    l->room = room;
    return (Value){.type = type, .list = l};
}
Value v_list(Interp* in, size_t room) { return new_list(in, V_LIST, room); }
Value v_tuple(Interp* in, size_t room) { return new_list(in, V_TUPLE, room); }
Value v_dict(Interp* in) { return (Value){.type = V_DICT, .dict = jinja_new(in, sizeof(Dict))}; }

Value v_undefined(Interp* in, const char* hint) {
    Undef* u = jinja_new(in, sizeof *u);
    u->hint = hint;
    return (Value){.type = V_UNDEFINED, .undef = u};
}
Value v_undefined_name(Interp* in, const char* name) {
    Value v = v_undefined(in, NULL);
    v.undef->name = v_text(in, name);
    return v;
}

void list_put(Interp* in, List* l, Value v) {
    if (l->n == l->room) {
        size_t room = l->room ? 2 * l->room : 4;
        Value* more = jinja_new(in, room * sizeof *more);
        if (l->n) memcpy(more, l->v, l->n * sizeof *more);
        l->v = more;
        l->room = room;
    }
    l->v[l->n++] = v;
}

// ---- dictionaries ----------------------------------------------------------------------------------

static uint64_t hash_value(Interp* in, Value v) {
    switch (v.type) {
        case V_BOOL: return (uint64_t)v.b * 0x9E3779B97F4A7C15u;
        case V_INT: return (uint64_t)v.i * 0x9E3779B97F4A7C15u;
        case V_FLOAT:
            if (v.f == floor(v.f) && fabs(v.f) < 9e18) return (uint64_t)(int64_t)v.f * 0x9E3779B97F4A7C15u;
            return (uint64_t)(int64_t)fmod(v.f * 1e6, 1e18);
        case V_STRING: return hash_bytes(v.s->n ? v.s->p : "", (uint32_t)v.s->n);
        case V_TUPLE: {
            uint64_t h = 7;
            for (size_t i = 0; i < v.list->n; i++) h = h * 31 + hash_value(in, v.list->v[i]);
            return h;
        }
        default: return 1;
    }
}

void must_hash(Interp* in, Value v) {
    if (v.type == V_LIST || v.type == V_DICT || v.type == V_KEYS || v.type == V_ITEMS)
        jinja_fail(in, "unhashable type: '%s'", type_name(v));
    if (v.type == V_TUPLE)
        for (size_t i = 0; i < v.list->n; i++) must_hash(in, v.list->v[i]);
}

#define FEW_PAIRS 12

static void dict_index(Interp* in, Dict* d) {
    d->n_slots = 64;
    while (d->n_slots < 4 * d->room) d->n_slots *= 2;
    d->slot = jinja_new(in, d->n_slots * sizeof *d->slot);
    for (size_t i = 0; i < d->n; i++) {
        size_t at = hash_value(in, d->pair[i].key) & (d->n_slots - 1);
        while (d->slot[at]) at = (at + 1) & (d->n_slots - 1);
        d->slot[at] = (uint32_t)i + 1;
    }
}

static Pair* dict_find(Interp* in, Dict* d, Value key) {
    if (!d->slot) {
        if (key.type == V_STRING) {
            for (size_t i = 0; i < d->n; i++) {
                const Value* k = &d->pair[i].key;
                if (k->type == V_STRING && k->s->n == key.s->n && !memcmp(k->s->p, key.s->p, key.s->n))
                    return &d->pair[i];
            }
            return NULL;
        }
        for (size_t i = 0; i < d->n; i++)
            if (equal(in, d->pair[i].key, key)) return &d->pair[i];
        return NULL;
    }
    for (size_t at = hash_value(in, key) & (d->n_slots - 1); d->slot[at]; at = (at + 1) & (d->n_slots - 1))
        if (equal(in, d->pair[d->slot[at] - 1].key, key)) return &d->pair[d->slot[at] - 1];
    return NULL;
}

const Value* dict_get(Interp* in, Dict* d, Value key) {
    must_hash(in, key);
    Pair* p = dict_find(in, d, key);
    return p ? &p->value : NULL;
}

const Value* dict_get_text(Interp* in, Dict* d, const char* key) {
    Str s = {.p = key, .n = strlen(key), .length = -1};
    Pair* p = dict_find(in, d, (Value){.type = V_STRING, .s = &s});
    return p ? &p->value : NULL;
}

void dict_put(Interp* in, Dict* d, Value key, Value value) {
    must_hash(in, key);
    Pair* p = dict_find(in, d, key);
    if (p) {
        p->value = value;
        return;
    }
    if (d->n == d->room) {
        size_t room = d->room ? 2 * d->room : 4;
        Pair* more = jinja_new(in, room * sizeof *more);
        if (d->n) memcpy(more, d->pair, d->n * sizeof *more);
        d->pair = more;
        d->room = room;
        d->slot = NULL;
    }
    d->pair[d->n++] = (Pair){key, value};
    if (d->n <= FEW_PAIRS) return;
    if (!d->slot) dict_index(in, d);
    else {
        size_t at = hash_value(in, key) & (d->n_slots - 1);
        while (d->slot[at]) at = (at + 1) & (d->n_slots - 1);
        d->slot[at] = (uint32_t)d->n;
    }
}

// ---- building texts --------------------------------------------------------------------------------

static void reserve(Interp* in, Builder* b, size_t n) {
    if (b->room - b->n >= n) return;
    size_t room = b->room ? 2 * b->room : 64;
    if (n > ((size_t)1 << 40)) jinja_fail(in, "needs more than %zu MB of memory", in->arena.limit >> 20);
    while (room < b->n + n) room *= 2;
    char* p = jinja_new(in, room);
    if (b->n) memcpy(p, b->p, b->n);
    b->p = p;
    b->room = room;
    if (b->origin) {
        uint8_t* origin = jinja_new(in, room);
        memcpy(origin, b->origin, b->n);
        b->origin = origin;
    }
}

void put(Interp* in, Builder* b, const char* p, size_t n, const Str* like) {
    if (!n) return;
    uint8_t from = like ? like->from : FROM_TEMPLATE;
    const uint8_t* origin = NULL;
    if (from == FROM_BOTH) {
        if (p >= like->p && p + n <= like->p + like->n) origin = like->origin + (p - like->p);
        else from = FROM_ROW;
    }
    jinja_work(in, n);
    reserve(in, b, n);
    if (!b->n && from != FROM_BOTH) b->from = from;
    else if (b->from != from && b->from != FROM_BOTH) {
        b->origin = jinja_new(in, b->room);
        memset(b->origin, b->from, b->n);
        b->from = FROM_BOTH;
    } else if (!b->n) {
        b->origin = jinja_new(in, b->room);
        b->from = FROM_BOTH;
    }
    memcpy(b->p + b->n, p, n);
    if (b->from == FROM_BOTH) {
        if (origin) memcpy(b->origin + b->n, origin, n);
        else memset(b->origin + b->n, from, n);
    }
    b->n += n;
}

void put_str(Interp* in, Builder* b, const Str* s) { put(in, b, s->p, s->n, s); }
void put_text_(Interp* in, Builder* b, const char* text) { put(in, b, text, strlen(text), NULL); }

static int encode_char(int32_t c, char out[4]) {  // surrogates as three bytes, as if they were characters
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)((0xF00 >> n) | c);
    return n;
}

void put_char(Interp* in, Builder* b, int32_t c, const Str* like) {
    char bytes[4];
    int n = encode_char(c, bytes);
    put(in, b, bytes, (size_t)n, like);
}

Value built(Interp* in, Builder* b) {
    Value v = v_string(in, b->p ? b->p : "", b->n, NULL);
    v.s->from = b->n ? b->from : FROM_TEMPLATE;
    v.s->origin = b->origin;
    return v;
}

int char_at(const char* p, const char* end, int32_t* c) {
    const unsigned char* u = (const unsigned char*)p;
    int n = u[0] < 0xC0 ? 1 : u[0] < 0xE0 ? 2 : u[0] < 0xF0 ? 3 : 4;
    if (n > end - p) n = 1;
    int32_t code = n == 1 ? u[0] : u[0] & (0x7F >> n);
    for (int i = 1; i < n; i++) code = code << 6 | (u[i] & 0x3F);
    *c = code;
    return n;
}

int64_t str_length(Str* s) {
    if (s->length < 0) {
        int64_t n = 0;
        for (size_t i = 0; i < s->n; i++) n += ((unsigned char)s->p[i] & 0xC0) != 0x80;
        s->length = n;
    }
    return s->length;
}

size_t str_offset(Str* s, int64_t index) {
    if (str_length(s) == (int64_t)s->n) return (size_t)index;
    if (index >= s->length) return s->n;
    size_t at = 0;
    for (; index > 0; index--) {
        int32_t c;
        at += (size_t)char_at(s->p + at, s->p + s->n, &c);
    }
    return at;
}

// ---- numbers ---------------------------------------------------------------------------------------

bool is_number(Value v) { return v.type == V_BOOL || v.type == V_INT || v.type == V_FLOAT; }
static bool is_integer(Value v) { return v.type == V_BOOL || v.type == V_INT; }
static int64_t int_of(Value v) { return v.type == V_BOOL ? v.b : v.i; }
double number_of(Value v) { return v.type == V_FLOAT ? v.f : (double)int_of(v); }

_Noreturn void fail_undefined(Interp* in, Value v) {
    Undef* u = v.undef;
    if (u->hint) jinja_fail(in, "%s", u->hint);
    Builder b = {0};
    if (!u->owner) {
        put_repr(in, &b, u->name);
        jinja_fail(in, "%.*s is undefined", (int)(b.n < 200 ? b.n : 200), b.p);
    }
    put_repr(in, &b, u->name);
    int n = (int)(b.n < 200 ? b.n : 200);
    if (u->unsafe) jinja_fail(in, "access to attribute %.*s of '%s' object is unsafe.", n, b.p, u->owner);
    if (u->name.type == V_STRING) jinja_fail(in, "'%s' has no attribute %.*s", u->owner, n, b.p);
    jinja_fail(in, "%s has no element %.*s", u->owner, n, b.p);
}

int64_t index_of(Interp* in, Value v, const char* what) {
    if (v.type == V_UNDEFINED) fail_undefined(in, v);
    if (v.type == V_BIG) jinja_fail(in, "%s: an integer beyond 64 bits", what);
    if (!is_integer(v)) jinja_fail(in, "%s: '%s' object cannot be interpreted as an integer", what, type_name(v));
    return int_of(v);
}

Value integer_from(Interp* in, const char* digits, size_t n, const Str* like) {
    bool minus = n && *digits == '-';
    if (n && (*digits == '-' || *digits == '+')) digits++, n--;
    while (n > 1 && *digits == '0') digits++, n--;
    if (n <= 18) {
        int64_t i = 0;
        for (size_t k = 0; k < n; k++) i = i * 10 + digits[k] - '0';
        return v_int(minus ? -i : i);
    }
    char* text = jinja_new(in, n + 2);
    snprintf(text, n + 2, "%s%.*s", minus ? "-" : "", (int)n, digits);
    errno = 0;
    long long i = strtoll(text, NULL, 10);
    if (!errno) return v_int(i);
    Value v = v_string(in, text, strlen(text), like);
    v.type = V_BIG;
    return v;
}

static void no_result(Interp* in, const char* op, Value a, Value b) {
    if (a.type == V_UNDEFINED) fail_undefined(in, a);
    if (b.type == V_UNDEFINED) fail_undefined(in, b);
    if (a.type == V_BIG || b.type == V_BIG)
        jinja_fail(in, "calculation with an integer beyond 64 bits is not supported");
    jinja_fail(in, "unsupported operand type(s) for %s: '%s' and '%s'", op, type_name(a), type_name(b));
}

static Value repeat(Interp* in, Value sequence, Value count) {
    int64_t n = int_of(count);
    if (n < 0) n = 0;
    if (sequence.type == V_STRING) {
        Str* s = sequence.s;
        Builder b = {0};
        if (s->n && (uint64_t)n > in->arena.limit / s->n)
            jinja_fail(in, "needs more than %zu MB of memory", in->arena.limit >> 20);
        for (int64_t i = 0; s->n && i < n; i++) put_str(in, &b, s);
        Value v = built(in, &b);
        v.s->markup = s->markup;
        return v;
    }
    size_t m = sequence.list->n;
    if (m && (uint64_t)n > in->arena.limit / m / sizeof(Value))
        jinja_fail(in, "needs more than %zu MB of memory", in->arena.limit >> 20);
    Value l = new_list(in, sequence.type, (size_t)n * m);
    for (int64_t i = 0; i < n; i++)
        for (size_t k = 0; k < m; k++) list_put(in, l.list, sequence.list->v[k]);
    jinja_work(in, (size_t)n * m);
    return l;
}

static double python_mod(double a, double b) {
    double m = fmod(a, b);
    if (m) {
        if ((b < 0) != (m < 0)) m += b;
    } else m = copysign(0.0, b);
    return m;
}

static double python_floordiv(double a, double b) {
    double m = fmod(a, b), d = (a - m) / b;
    if (m && (b < 0) != (m < 0)) d -= 1.0;
    if (!d) return copysign(0.0, a / b);
    double f = floor(d);
    return d - f > 0.5 ? f + 1.0 : f;
}

static Value int_binary(Interp* in, int op, int64_t a, int64_t b) {
    int64_t r = 0;
    bool over = false;
    switch (op) {
        case OP_ADD: over = __builtin_add_overflow(a, b, &r); break;
        case OP_SUB: over = __builtin_sub_overflow(a, b, &r); break;
        case OP_MUL: over = __builtin_mul_overflow(a, b, &r); break;
        case OP_DIV:
            if (!b) jinja_fail(in, "division by zero");
            return v_float((double)a / (double)b);
        case OP_FLOORDIV:
        case OP_MOD:
            if (!b) jinja_fail(in, "integer division or modulo by zero");
            if (b == -1) {
                if (op == OP_MOD) return v_int(0);
                over = __builtin_sub_overflow((int64_t)0, a, &r);
                break;
            }
            r = op == OP_MOD ? a % b : a / b;
            if (a % b && (a % b < 0) != (b < 0)) r = op == OP_MOD ? r + b : r - 1;
            break;
        default:
            if (b < 0) {
                if (!a) jinja_fail(in, "0.0 cannot be raised to a negative power");
                return v_float(pow((double)a, (double)b));
            }
            r = 1;
            for (int64_t base = a, e = b; e && !over;) {
                if (e & 1) over = __builtin_mul_overflow(r, base, &r);
                if (e >>= 1) over |= __builtin_mul_overflow(base, base, &base);
            }
    }
    if (over) jinja_fail(in, "an integer beyond 64 bits");
    return v_int(r);
}

static Value float_binary(Interp* in, int op, double a, double b) {
    if ((op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD) && b == 0.0)
        jinja_fail(in, op == OP_DIV   ? "float division by zero"
                       : op == OP_MOD ? "float modulo"
                                      : "float floor division by zero");
    switch (op) {
        case OP_ADD: return v_float(a + b);
        case OP_SUB: return v_float(a - b);
        case OP_MUL: return v_float(a * b);
        case OP_DIV: return v_float(a / b);
        case OP_FLOORDIV: return v_float(python_floordiv(a, b));
        case OP_MOD: return v_float(python_mod(a, b));
        default:
            if (a == 0.0 && b < 0.0) jinja_fail(in, "0.0 cannot be raised to a negative power");
            if (a < 0.0 && b != floor(b) && isfinite(b)) jinja_fail(in, "complex numbers are not supported");
            double r = pow(a, b);
            if (isinf(r) && isfinite(a) && isfinite(b)) jinja_fail(in, "(34, 'Numerical result out of range')");
            return v_float(r);
    }
}

Value binary(Interp* in, int op, Value a, Value b) {
    static const char* const names[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
    if (a.type == V_STRING && op == OP_MOD) return format_percent(in, a.s, b);
    if (a.type == V_UNDEFINED || b.type == V_UNDEFINED) no_result(in, names[op], a, b);
    if (op == OP_ADD) {
        if (a.type == V_STRING && b.type == V_STRING) {
            bool markup = a.s->markup || b.s->markup;
            if (markup) {
                a = escape_text(in, a);
                b = escape_text(in, b);
            }
            if (!b.s->n) return a;
            Builder out = {0};
            reserve(in, &out, a.s->n + b.s->n);
            put_str(in, &out, a.s);
            put_str(in, &out, b.s);
            Value v = built(in, &out);
            v.s->markup = markup;
            return v;
        }
        if ((a.type == V_LIST || a.type == V_TUPLE) && a.type == b.type) {
            Value l = new_list(in, a.type, a.list->n + b.list->n);
            for (size_t i = 0; i < a.list->n; i++) list_put(in, l.list, a.list->v[i]);
            for (size_t i = 0; i < b.list->n; i++) list_put(in, l.list, b.list->v[i]);
            jinja_work(in, a.list->n + b.list->n);
            return l;
        }
        if (a.type == V_STRING) jinja_fail(in, "can only concatenate str (not \"%s\") to str", type_name(b));
        if (a.type == V_LIST || a.type == V_TUPLE)
            jinja_fail(in, "can only concatenate %s (not \"%s\") to %s", type_name(a), type_name(b), type_name(a));
    }
    if (op == OP_MUL) {
        if ((a.type == V_STRING || a.type == V_LIST || a.type == V_TUPLE) && is_integer(b)) return repeat(in, a, b);
        if ((b.type == V_STRING || b.type == V_LIST || b.type == V_TUPLE) && is_integer(a)) return repeat(in, b, a);
    }
    if (!is_number(a) || !is_number(b)) no_result(in, names[op], a, b);
    if (is_integer(a) && is_integer(b)) return int_binary(in, op, int_of(a), int_of(b));
    return float_binary(in, op, number_of(a), number_of(b));
}

Value negative(Interp* in, Value v, bool plus) {
    if (v.type == V_UNDEFINED) fail_undefined(in, v);
    if (!is_number(v)) jinja_fail(in, "bad operand type for unary %c: '%s'", plus ? '+' : '-', type_name(v));
    if (v.type == V_FLOAT) return v_float(plus ? v.f : -v.f);
    if (!plus && int_of(v) == INT64_MIN) jinja_fail(in, "an integer beyond 64 bits");
    return v_int(plus ? int_of(v) : -int_of(v));
}

// ---- comparison ------------------------------------------------------------------------------------

const char* type_name(Value v) {
    static const char* const names[] = {"missing",     "Undefined",  "NoneType", "bool",
                                        "int",         "int",        "float",    "str",
                                        "list",        "tuple",      "dict",     "dict_keys",
                                        "dict_values", "dict_items", "range",    "generator",
                                        "Namespace",   "Macro",      "function", "builtin_function_or_method",
                                        "LoopContext", "Cycler",     "Joiner"};
    if (v.type == V_STRING && v.s->markup) return "Markup";
    if (v.type == V_ITERATOR && v.iterator->type_name) return v.iterator->type_name;
    return names[v.type];
}

bool truth(Value v) {
    switch (v.type) {
        case V_MISSING:
        case V_UNDEFINED:
        case V_NONE: return false;
        case V_BOOL: return v.b;
        case V_INT: return v.i != 0;
        case V_FLOAT: return v.f != 0.0;
        case V_STRING: return v.s->n != 0;
        case V_LIST:
        case V_TUPLE: return v.list->n != 0;
        case V_DICT:
        case V_KEYS:
        case V_VALUES:
        case V_ITEMS: return v.dict->n != 0;
        case V_RANGE: return v.range->n != 0;
        default: return true;
    }
}

static bool list_equal(Interp* in, const List* a, const List* b) {
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++)
        if (!equal(in, a->v[i], b->v[i])) return false;
    return true;
}

static bool int_equals_float(int64_t i, double f) {
    return f >= -9223372036854775808.0 && f < 9223372036854775808.0 && f == floor(f) && (int64_t)f == i;
}

bool equal(Interp* in, Value a, Value b) {
    if (is_number(a) && is_number(b)) {
        if (a.type == V_FLOAT && b.type == V_FLOAT) return a.f == b.f;
        if (a.type == V_FLOAT) return int_equals_float(int_of(b), a.f);
        if (b.type == V_FLOAT) return int_equals_float(int_of(a), b.f);
        return int_of(a) == int_of(b);
    }
    if (a.type != b.type) {
        if ((a.type == V_BIG && b.type == V_FLOAT) || (a.type == V_FLOAT && b.type == V_BIG))
            jinja_fail(in, "comparison of a float with an integer beyond 64 bits is not supported");
        return false;
    }
    switch (a.type) {
        case V_UNDEFINED:
        case V_NONE: return true;
        case V_STRING:
        case V_BIG:
            jinja_work(in, a.s->n < b.s->n ? a.s->n : b.s->n);
            return a.s->n == b.s->n && (!a.s->n || !memcmp(a.s->p, b.s->p, a.s->n));
        case V_LIST:
        case V_TUPLE: {
            if (a.list == b.list) return true;
            if (++in->depth > in->limits.depth) jinja_fail(in, "values are nested too deeply");
            jinja_work(in, a.list->n);
            bool same = list_equal(in, a.list, b.list);
            in->depth--;
            return same;
        }
        case V_DICT: {
            if (a.dict == b.dict) return true;
            if (a.dict->n != b.dict->n) return false;
            if (++in->depth > in->limits.depth) jinja_fail(in, "values are nested too deeply");
            jinja_work(in, a.dict->n * 16);
            bool same = true;
            for (size_t i = 0; same && i < a.dict->n; i++) {
                const Value* other = dict_get(in, b.dict, a.dict->pair[i].key);
                same = other && equal(in, a.dict->pair[i].value, *other);
            }
            in->depth--;
            return same;
        }
        case V_RANGE:
            return a.range->n == b.range->n && (!a.range->n || (a.range->start == b.range->start &&
                                                                (a.range->n == 1 || a.range->step == b.range->step)));
        case V_FUNCTION: return a.function == b.function;
        case V_METHOD:
            return a.method->id == b.method->id && a.method->self.type == b.method->self.type &&
                   a.method->self.s == b.method->self.s;
        default: return a.dict == b.dict;
    }
}

static int big_compare(const char* a, size_t na, const char* b, size_t nb) {
    bool minus_a = *a == '-', minus_b = *b == '-';
    if (minus_a != minus_b) return minus_a ? -1 : 1;
    int order = na != nb ? (na < nb ? -1 : 1) : memcmp(a, b, na);
    return minus_a ? -order : order;
}

// a < b; `op` is for the message.
bool less(Interp* in, Value a, Value b, const char* op) {
    if (a.type == V_UNDEFINED) fail_undefined(in, a);
    if (b.type == V_UNDEFINED) fail_undefined(in, b);
    jinja_work(in, 0);
    if (is_number(a) && is_number(b)) {
        if (a.type != V_FLOAT && b.type != V_FLOAT) return int_of(a) < int_of(b);
        return number_of(a) < number_of(b);
    }
    if ((a.type == V_BIG || is_integer(a)) && (b.type == V_BIG || is_integer(b))) {
        char x[32], y[32];
        snprintf(x, sizeof x, "%lld", a.type == V_BIG ? 0 : (long long)int_of(a));
        snprintf(y, sizeof y, "%lld", b.type == V_BIG ? 0 : (long long)int_of(b));
        const char *p = a.type == V_BIG ? a.s->p : x, *q = b.type == V_BIG ? b.s->p : y;
        return big_compare(p, a.type == V_BIG ? a.s->n : strlen(x), q, b.type == V_BIG ? b.s->n : strlen(y)) < 0;
    }
    if (a.type == V_STRING && b.type == V_STRING) {
        size_t n = a.s->n < b.s->n ? a.s->n : b.s->n;
        int order = n ? memcmp(a.s->p, b.s->p, n) : 0;
        jinja_work(in, n);
        return order ? order < 0 : a.s->n < b.s->n;
    }
    if (a.type == b.type && (a.type == V_LIST || a.type == V_TUPLE)) {
        if (++in->depth > in->limits.depth) jinja_fail(in, "values are nested too deeply");
        size_t i = 0, n = a.list->n < b.list->n ? a.list->n : b.list->n;
        while (i < n && equal(in, a.list->v[i], b.list->v[i])) i++;
        bool result = i < n ? less(in, a.list->v[i], b.list->v[i], op) : a.list->n < b.list->n;
        in->depth--;
        return result;
    }
    jinja_fail(in, "'%s' not supported between instances of '%s' and '%s'", op, type_name(a), type_name(b));
}

bool contains(Interp* in, Value item, Value container) {
    switch (container.type) {
        case V_STRING:
            if (item.type != V_STRING)
                jinja_fail(in, "'in <string>' requires string as left operand, not %s", type_name(item));
            jinja_work(in, container.s->n);
            return !item.s->n ||
                   (item.s->n <= container.s->n && memmem(container.s->p, container.s->n, item.s->p, item.s->n));
        case V_DICT:
        case V_KEYS: return dict_get(in, container.dict, item) != NULL;
        case V_LIST:
        case V_TUPLE:
            for (size_t i = 0; i < container.list->n; i++)
                if (equal(in, container.list->v[i], item)) return true;
            jinja_work(in, container.list->n * 16);
            return false;
        default: break;
    }
    Iterator* it = try_iterate(in, container);
    if (!it) jinja_fail(in, "argument of type '%s' is not iterable", type_name(container));
    for (Value v; next_item(in, it, &v);)
        if (equal(in, v, item)) return true;
    return false;
}

int64_t value_length(Interp* in, Value v) {
    switch (v.type) {
        case V_UNDEFINED: return 0;
        case V_STRING: return str_length(v.s);
        case V_LIST:
        case V_TUPLE: return (int64_t)v.list->n;
        case V_DICT:
        case V_KEYS:
        case V_VALUES:
        case V_ITEMS: return (int64_t)v.dict->n;
        case V_RANGE: return v.range->n;
        case V_LOOP: return loop_attribute(in, v.loop, "length").i;
        default: jinja_fail(in, "object of type '%s' has no len()", type_name(v));
    }
}

// ---- printing --------------------------------------------------------------------------------------

// The shortest decimal that reads back as f, as Python writes it.
void float_repr(double f, char out[32]) {
    if (isnan(f)) {
        strcpy(out, "nan");
        return;
    }
    if (isinf(f)) {
        strcpy(out, f < 0 ? "-inf" : "inf");
        return;
    }
    char e[40];
    for (int precision = 0; precision < 17; precision++) {
        snprintf(e, sizeof e, "%.*e", precision, f);
        if (strtod(e, NULL) == f) break;
    }
    char digits[24], *o = out;
    int n = 0, exponent = atoi(strchr(e, 'e') + 1);
    for (char* p = e; *p != 'e'; p++)
        if (isdigit((unsigned char)*p)) digits[n++] = *p;
    while (n > 1 && digits[n - 1] == '0') n--;
    if (*e == '-') *o++ = '-';
    if (exponent < -4 || exponent >= 16) {
        *o++ = digits[0];
        if (n > 1) *o++ = '.';
        for (int i = 1; i < n; i++) *o++ = digits[i];
        sprintf(o, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (exponent < 0) {
        *o++ = '0';
        *o++ = '.';
        for (int i = 1; i < -exponent; i++) *o++ = '0';
        for (int i = 0; i < n; i++) *o++ = digits[i];
    } else {
        for (int i = 0; i <= exponent; i++) *o++ = i < n ? digits[i] : '0';
        *o++ = '.';
        if (n <= exponent + 1) *o++ = '0';
        for (int i = exponent + 1; i < n; i++) *o++ = digits[i];
    }
    *o = 0;
}

static void put_text_repr(Interp* in, Builder* b, const Str* s) {
    char quote = memchr(s->n ? s->p : "", '\'', s->n) && !memchr(s->p, '"', s->n) ? '"' : '\'';
    const char *p = s->p, *end = p + s->n;
    put(in, b, &quote, 1, NULL);
    while (p < end) {
        int32_t c;
        int n = char_at(p, end, &c);
        char escaped[16] = "";
        if (c == quote || c == '\\') snprintf(escaped, sizeof escaped, "\\%c", (char)c);
        else if (c == '\n') strcpy(escaped, "\\n");
        else if (c == '\r') strcpy(escaped, "\\r");
        else if (c == '\t') strcpy(escaped, "\\t");
        else if (!is_printable_(c))
            snprintf(escaped, sizeof escaped, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
        if (*escaped) put(in, b, escaped, strlen(escaped), s);
        else put(in, b, p, (size_t)n, s);
        p += n;
    }
    put(in, b, &quote, 1, NULL);
}

static void put_pair(Interp* in, Builder* b, const Pair* p, bool tuple) {
    if (tuple) put_text_(in, b, "(");
    put_repr(in, b, p->key);
    put_text_(in, b, tuple ? ", " : ": ");
    put_repr(in, b, p->value);
    if (tuple) put_text_(in, b, ")");
}

void put_repr(Interp* in, Builder* b, Value v) {
    char text[64];
    if (++in->depth > in->limits.depth) jinja_fail(in, "values are nested too deeply");
    jinja_work(in, 0);
    switch (v.type) {
        case V_UNDEFINED: put_text_(in, b, "Undefined"); break;
        case V_STRING:
            if (v.s->markup) put_text_(in, b, "Markup(");
            put_text_repr(in, b, v.s);
            if (v.s->markup) put_text_(in, b, ")");
            break;
        case V_LIST:
        case V_TUPLE:
            put_text_(in, b, v.type == V_LIST ? "[" : "(");
            for (size_t i = 0; i < v.list->n; i++) {
                if (i) put_text_(in, b, ", ");
                put_repr(in, b, v.list->v[i]);
            }
            put_text_(in, b, v.type == V_LIST ? "]" : v.list->n == 1 ? ",)" : ")");
            break;
        case V_NAMESPACE:
        case V_DICT:
            put_text_(in, b, v.type == V_DICT ? "{" : "<Namespace {");
            for (size_t i = 0; i < v.dict->n; i++) {
                if (i) put_text_(in, b, ", ");
                put_pair(in, b, &v.dict->pair[i], false);
            }
            put_text_(in, b, v.type == V_DICT ? "}" : "}>");
            break;
        case V_KEYS:
        case V_VALUES:
        case V_ITEMS:
            put_text_(in, b, type_name(v));
            put_text_(in, b, "([");
            for (size_t i = 0; i < v.dict->n; i++) {
                if (i) put_text_(in, b, ", ");
                if (v.type == V_ITEMS) put_pair(in, b, &v.dict->pair[i], true);
                else put_repr(in, b, v.type == V_KEYS ? v.dict->pair[i].key : v.dict->pair[i].value);
            }
            put_text_(in, b, "])");
            break;
        case V_RANGE:
            if (v.range->step == 1)
                snprintf(text, sizeof text, "range(%lld, %lld)", (long long)v.range->start, (long long)v.range->stop);
            else
                snprintf(text, sizeof text, "range(%lld, %lld, %lld)", (long long)v.range->start,
                         (long long)v.range->stop, (long long)v.range->step);
            put_text_(in, b, text);
            break;
        case V_MACRO:
            put_text_(in, b, "<Macro ");
            if (v.macro->name) put_repr(in, b, v_text(in, v.macro->name));
            else put_text_(in, b, "anonymous");
            put_text_(in, b, ">");
            break;
        case V_LOOP:
            snprintf(text, sizeof text, "<LoopContext %lld/%lld>", (long long)v.loop->index0 + 1,
                     (long long)loop_attribute(in, v.loop, "length").i);
            put_text_(in, b, text);
            break;
        case V_ITERATOR:
        case V_FUNCTION:
        case V_METHOD:
        case V_CYCLER:
        case V_JOINER: jinja_fail(in, "prints a %s, which shows an address of memory", type_name(v));
        default: put_value(in, b, v);
    }
    in->depth--;
}

void put_value(Interp* in, Builder* b, Value v) {
    char text[40];
    switch (v.type) {
        case V_MISSING:
        case V_UNDEFINED: break;
        case V_NONE: put_text_(in, b, "None"); break;
        case V_BOOL: put_text_(in, b, v.b ? "True" : "False"); break;
        case V_INT:
            snprintf(text, sizeof text, "%lld", (long long)v.i);
            put_text_(in, b, text);
            break;
        case V_FLOAT:
            float_repr(v.f, text);
            put_text_(in, b, text);
            break;
        case V_STRING:
        case V_BIG: put_str(in, b, v.s); break;
        default: put_repr(in, b, v);
    }
}

Str* text_of(Interp* in, Value v) {
    if (v.type == V_STRING && !v.s->markup) return v.s;
    if (v.type == V_STRING) {
        Value plain = v_part(in, v.s, 0, v.s->n);
        plain.s->markup = false;
        return plain.s;
    }
    Builder b = {0};
    put_value(in, &b, v);
    return built(in, &b).s;
}

static void put_json_text(Interp* in, Builder* b, const Str* s, bool ascii) {
    const char *p = s->p, *end = p + s->n, *plain = p;
    put(in, b, "\"", 1, s);
    while (p < end) {
        unsigned char u = (unsigned char)*p;
        if (u >= 0x20 && u != '"' && u != '\\' && (u < 0x7F || !ascii)) {
            p++;
            continue;
        }
        put(in, b, plain, (size_t)(p - plain), s);
        int32_t c;
        char text[16];
        p += char_at(p, end, &c);
        plain = p;
        const char* known = c < 0x80 && c ? strchr("\"\"\\\\\bb\ff\nn\rr\tt", c) : NULL;
        if (c == '"') strcpy(text, "\\\"");
        else if (c == '\\') strcpy(text, "\\\\");
        else if (known && c < 0x20) snprintf(text, sizeof text, "\\%c", known[1]);
        else if (c < 0x10000) snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
        else
            snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD800 + (unsigned)((c - 0x10000) >> 10),
                     0xDC00 + (unsigned)((c - 0x10000) & 0x3FF));
        put(in, b, text, strlen(text), s);
    }
    put(in, b, plain, (size_t)(p - plain), s);
    put(in, b, "\"", 1, s);
}

typedef struct {
    const Str *indent, *item, *key;
    bool ascii, sort;
} JsonStyle;

static void json_line(Interp* in, Builder* b, const JsonStyle* style, int level) {
    if (!style->indent) return;
    put_text_(in, b, "\n");
    for (int i = 0; i < level; i++) put_str(in, b, style->indent);
}

static void json_value(Interp* in, Builder* b, Value v, const JsonStyle* style, int level);

static void json_key(Interp* in, Builder* b, Value key, const JsonStyle* style) {
    if (key.type == V_STRING) {
        put_json_text(in, b, key.s, style->ascii);
        return;
    }
    if (key.type != V_NONE && key.type != V_BIG && !is_number(key))
        jinja_fail(in, "keys must be str, int, float, bool or None, not %s", type_name(key));
    put_text_(in, b, "\"");
    json_value(in, b, key, style, 0);
    put_text_(in, b, "\"");
}

static void json_dict(Interp* in, Builder* b, Dict* d, const JsonStyle* style, int level) {
    size_t* order = jinja_new(in, (d->n + 1) * sizeof *order);
    for (size_t i = 0; i < d->n; i++) order[i] = i;
    for (size_t i = 1; style->sort && i < d->n; i++)
        for (size_t k = i; k > 0 && less(in, d->pair[order[k]].key, d->pair[order[k - 1]].key, "<"); k--) {
            size_t swap = order[k];
            order[k] = order[k - 1];
            order[k - 1] = swap;
        }
    put_text_(in, b, "{");
    for (size_t i = 0; i < d->n; i++) {
        if (i) put_str(in, b, style->item);
        json_line(in, b, style, level + 1);
        json_key(in, b, d->pair[order[i]].key, style);
        put_str(in, b, style->key);
        json_value(in, b, d->pair[order[i]].value, style, level + 1);
    }
    if (d->n) json_line(in, b, style, level);
    put_text_(in, b, "}");
}

static void json_value(Interp* in, Builder* b, Value v, const JsonStyle* style, int level) {
    if (++in->depth > in->limits.depth) jinja_fail(in, "values are nested too deeply");
    switch (v.type) {
        case V_NONE: put_text_(in, b, "null"); break;
        case V_BOOL: put_text_(in, b, v.b ? "true" : "false"); break;
        case V_FLOAT:
            if (isnan(v.f)) put_text_(in, b, "NaN");
            else if (isinf(v.f)) put_text_(in, b, v.f < 0 ? "-Infinity" : "Infinity");
            else put_value(in, b, v);
            break;
        case V_INT:
        case V_BIG: put_value(in, b, v); break;
        case V_STRING: put_json_text(in, b, v.s, style->ascii); break;
        case V_DICT: json_dict(in, b, v.dict, style, level); break;
        case V_LIST:
        case V_TUPLE:
            put_text_(in, b, "[");
            for (size_t i = 0; i < v.list->n; i++) {
                if (i) put_str(in, b, style->item);
                json_line(in, b, style, level + 1);
                json_value(in, b, v.list->v[i], style, level + 1);
            }
            if (v.list->n) json_line(in, b, style, level);
            put_text_(in, b, "]");
            break;
        default: jinja_fail(in, "Object of type %s is not JSON serializable", type_name(v));
    }
    in->depth--;
}

// json.dumps: indent None, an integer or a text; item and key NULL: Python's separators.
void put_json(Interp* in, Builder* b, Value v, Value indent, const Str* item, const Str* key, bool ascii, bool sort) {
    JsonStyle style = {.ascii = ascii, .sort = sort};
    if (indent.type == V_STRING) style.indent = indent.s;
    else if (given(indent) && indent.type != V_NONE) {
        int64_t n = index_of(in, indent, "tojson's indent");
        style.indent = repeat(in, v_text(in, " "), v_int(n)).s;
    }
    style.item = item ? item : v_text(in, style.indent ? "," : ", ").s;
    style.key = key ? key : v_text(in, ": ").s;
    json_value(in, b, v, &style, 0);
}

// ---- JSON ------------------------------------------------------------------------------------------

typedef struct {
    Interp* in;
    const char *p, *end, *start;
    Str like;  // for its origin
    int depth;
} Json;

static void json_space(Json* j) {
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\t' || *j->p == '\n' || *j->p == '\r')) j->p++;
}

static bool json_bad(Json* j, const char* what) {
    snprintf(j->in->error, j->in->error_size, "JSON, character %lld: %s", (long long)(j->p - j->start) + 1, what);
    return false;
}

static bool json_hex(Json* j, int32_t* c) {
    if (j->end - j->p < 4) return false;
    *c = 0;
    for (int i = 0; i < 4; i++) {
        char h = *j->p++;
        int d = h >= '0' && h <= '9' ? h - '0' : (h | 32) >= 'a' && (h | 32) <= 'f' ? (h | 32) - 'a' + 10 : -1;
        if (d < 0) return false;
        *c = *c * 16 + d;
    }
    return true;
}

static bool json_text(Json* j, Value* out) {
    const char* from = ++j->p;
    bool escapes = false;
    const char* q = from;
    while (q < j->end && *q != '"') {
        if ((unsigned char)*q < 0x20) {
            j->p = q;
            return json_bad(j, "a control character in a text");
        }
        escapes |= *q == '\\';
        q += *q == '\\' ? 2 : 1;
    }
    if (q >= j->end) return json_bad(j, "a text without an end");
    if (!escapes) {
        *out = v_string(j->in, from, (size_t)(q - from), &j->like);
        j->p = q + 1;
        return true;
    }
    char *bytes = jinja_new(j->in, (size_t)(q - from) + 1), *o = bytes;
    while (*j->p != '"') {
        if (*j->p != '\\') {
            *o++ = *j->p++;
            continue;
        }
        char c = j->p[1];
        j->p += 2;
        static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
        const char* known = c ? strchr(names, c) : NULL;
        if (known) *o++ = values[known - names];
        else if (c == 'u') {
            int32_t code, low;
            if (!json_hex(j, &code)) return json_bad(j, "an escape \\u without four digits");
            if (code >= 0xD800 && code < 0xDC00 && j->end - j->p > 6 && j->p[0] == '\\' && j->p[1] == 'u') {
                const char* back = j->p;
                j->p += 2;
                if (json_hex(j, &low) && low >= 0xDC00 && low < 0xE000)
                    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                else j->p = back;
            }
            o += encode_char(code, o);
        } else return json_bad(j, "an unknown escape");
    }
    j->p++;
    *out = v_string(j->in, bytes, (size_t)(o - bytes), &j->like);
    return true;
}

static bool json_number(Json* j, Value* out) {
    const char *from = j->p, *q = from;
    bool real = false;
    if (q < j->end && *q == '-') q++;
    if (q >= j->end || !isdigit((unsigned char)*q)) return json_bad(j, "not a value");
    if (*q == '0') q++;
    else
        while (q < j->end && isdigit((unsigned char)*q)) q++;
    if (q + 1 < j->end && *q == '.' && isdigit((unsigned char)q[1])) {
        real = true;
        for (q++; q < j->end && isdigit((unsigned char)*q);) q++;
    }
    if (q < j->end && (*q | 32) == 'e') {
        const char* e = q + 1;
        if (e < j->end && (*e == '+' || *e == '-')) e++;
        if (e < j->end && isdigit((unsigned char)*e)) {
            real = true;
            for (q = e; q < j->end && isdigit((unsigned char)*q);) q++;
        }
    }
    size_t n = (size_t)(q - from);
    if (!real && n > 4300) return json_bad(j, "an integer of more than 4300 digits");
    if (real) {
        char* text = jinja_new(j->in, n + 1);
        memcpy(text, from, n);
        *out = v_float(strtod(text, NULL));
    } else *out = integer_from(j->in, from, n, &j->like);
    j->p = q;
    return true;
}

static bool json_word(Json* j, const char* word) {
    size_t n = strlen(word);
    if ((size_t)(j->end - j->p) < n || memcmp(j->p, word, n)) return false;
    j->p += n;
    return true;
}

// Names of roles are the template's language, not the row's: some templates make a special token of them.
static bool known_role(const Str* s) {
    static const char* const roles[] = {"system",   "user",        "assistant",   "tool",      "developer",
                                        "function", "ipython",     "model",       "human",     "gpt",
                                        "bot",      "observation", "environment", "documents", "context"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strlen(roles[i]) == s->n && !memcmp(roles[i], s->p, s->n)) return true;
    return false;
}

static bool json_any(Json* j, Value* out) {
    json_space(j);
    if (j->p >= j->end) return json_bad(j, "ends where a value is expected");
    if (j->depth > MAX_JSON_DEPTH) return json_bad(j, "nested too deeply");
    char c = *j->p;
    if (c == '"') return json_text(j, out);
    if (json_word(j, "true") || json_word(j, "false")) {
        *out = v_bool(c == 't');
        return true;
    }
    if (json_word(j, "null")) {
        *out = v_none();
        return true;
    }
    if (json_word(j, "NaN")) {
        *out = v_float(NAN);
        return true;
    }
    if (json_word(j, "Infinity") || json_word(j, "-Infinity")) {
        *out = v_float(c == '-' ? -INFINITY : INFINITY);
        return true;
    }
    if (c != '[' && c != '{') return json_number(j, out);
    *out = c == '[' ? v_list(j->in, 0) : v_dict(j->in);
    j->p++;
    j->depth++;
    json_space(j);
    char close = c == '[' ? ']' : '}';
    if (j->p < j->end && *j->p == close) j->p++;
    else
        while (true) {
            Value key = v_none(), value;
            json_space(j);
            if (c == '{') {
                if (j->p >= j->end || *j->p != '"') return json_bad(j, "expected a name between quotes");
                if (!json_text(j, &key)) return false;
                json_space(j);
                if (j->p >= j->end || *j->p != ':') return json_bad(j, "expected ':'");
                j->p++;
            }
            if (!json_any(j, &value)) return false;
            if (c == '[') list_put(j->in, out->list, value);
            else {
                if (value.type == V_STRING && key.s->n == 4 && !memcmp(key.s->p, "role", 4) && known_role(value.s))
                    value.s->from = FROM_TEMPLATE;
                dict_put(j->in, out->dict, key, value);
            }
            json_space(j);
            if (j->p < j->end && *j->p == ',') {
                j->p++;
                continue;
            }
            if (j->p >= j->end || *j->p != close)
                return json_bad(j, c == '[' ? "expected ',' or ']'" : "expected ',' or '}'");
            j->p++;
            break;
        }
    j->depth--;
    return true;
}

bool parse_json(Interp* in, const char* json, size_t n, Origin from, Value* out) {
    Json j = {.in = in, .p = json, .end = json + n, .start = json, .like = {.from = (uint8_t)from}};
    if (!json_any(&j, out)) return false;
    json_space(&j);
    return j.p == j.end || json_bad(&j, "something after the value");
}
