/*
Python's values as templates see them: memory, texts that know whether they come from the row or from the template,
numbers, comparison.
*/
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include "tokenizer_internal.h"
#include "jinja_internal.h"

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
    if (!p) jinja_no_memory(in);
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
    if (n > ((size_t)1 << 40)) jinja_no_memory(in);
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

int encode_char(int32_t c, char out[4]) {
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

bool number_from_text(const char* p, size_t n, double* f) {
    Str s = {.p = p, .n = n, .length = -1};
    size_t from = 0, to = n, at = 0;
    char text[400];
    int32_t c;
    while (from < to) {
        int k = char_at(s.p + from, s.p + to, &c);
        if (!is_space_(c)) break;
        from += (size_t)k;
    }
    while (to > from && is_space_((unsigned char)s.p[to - 1])) to--;
    if (from == to || to - from >= sizeof text) return false;
    for (size_t i = from; i < to; i++) {
        bool between = i > from && i + 1 < to && isdigit((unsigned char)p[i - 1]) && isdigit((unsigned char)p[i + 1]);
        if (p[i] == '_' && between) continue;
        if (!isdigit((unsigned char)p[i]) && !strchr("+-.eEinfatyINFATY", p[i])) return false;
        text[at++] = p[i];
    }
    text[at] = 0;
    char* end;
    *f = strtod(text, &end);
    return !*end && end != text;
}

static void no_result(Interp* in, const char* op, Value a, Value b) {
    if (a.type == V_UNDEFINED) fail_undefined(in, a);
    if (b.type == V_UNDEFINED) fail_undefined(in, b);
    if (a.type == V_BIG || b.type == V_BIG)
        jinja_fail(in, "calculation with an integer beyond 64 bits is not supported");
    jinja_fail(in, "unsupported operand type(s) for %s: '%s' and '%s'", op, type_name(a), type_name(b));
}

Value repeat(Interp* in, Value sequence, Value count) {
    int64_t n = int_of(count);
    if (n < 0) n = 0;
    if (sequence.type == V_STRING) {
        Str* s = sequence.s;
        Builder b = {0};
        if (s->n && (uint64_t)n > in->arena.limit / s->n) jinja_no_memory(in);
        for (int64_t i = 0; s->n && i < n; i++) put_str(in, &b, s);
        Value v = built(in, &b);
        v.s->markup = s->markup;
        return v;
    }
    size_t m = sequence.list->n;
    if (m && (uint64_t)n > in->arena.limit / m / sizeof(Value)) jinja_no_memory(in);
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
