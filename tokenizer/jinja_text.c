/* Texts of templates: the methods of Python's str and its case mappings. */
#include <ctype.h>
#include <stdlib.h>
#include <utf8proc.h>
#include "tokenizer_internal.h"
#include "jinja_internal.h"
#include "case_table.h"

#define IN(table, c) in_ranges(c, table, sizeof(table) / sizeof *(table))

// ---- characters ------------------------------------------------------------------------------------

bool is_space_(int32_t c) { return is_white_space(c) || (c >= 0x1C && c <= 0x1F); }

static bool is_alpha(int32_t c) {
    utf8proc_category_t k = utf8proc_category(c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}
static bool is_decimal(int32_t c) { return utf8proc_category(c) == UTF8PROC_CATEGORY_ND; }
static bool is_digit_(int32_t c) { return is_decimal(c) || IN(other_digits, c); }
static bool is_numeric(int32_t c) {
    utf8proc_category_t k = utf8proc_category(c);
    return (k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO) || IN(other_numeric, c);
}
bool is_alnum_(int32_t c) { return is_alpha(c) || is_numeric(c); }
static bool is_lower(int32_t c) { return utf8proc_category(c) == UTF8PROC_CATEGORY_LL || IN(other_lower, c); }
static bool is_upper(int32_t c) { return utf8proc_category(c) == UTF8PROC_CATEGORY_LU || IN(other_upper, c); }
static bool is_title(int32_t c) { return utf8proc_category(c) == UTF8PROC_CATEGORY_LT; }
static bool is_cased(int32_t c) { return is_lower(c) || is_upper(c) || is_title(c); }

bool is_printable_(int32_t c) {
    if (c == ' ') return true;
    utf8proc_category_t k = utf8proc_category(c);
    return k != UTF8PROC_CATEGORY_CN && k != UTF8PROC_CATEGORY_ZS && k != UTF8PROC_CATEGORY_ZL &&
           k != UTF8PROC_CATEGORY_ZP && k != UTF8PROC_CATEGORY_CC && k != UTF8PROC_CATEGORY_CF &&
           k != UTF8PROC_CATEGORY_CS && k != UTF8PROC_CATEGORY_CO;
}

static const SpecialCase* special_case(int32_t c) {
    size_t low = 0, high = sizeof special_cases / sizeof *special_cases;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (special_cases[middle].c < c) low = middle + 1;
        else high = middle;
    }
    return low < sizeof special_cases / sizeof *special_cases && special_cases[low].c == c ? &special_cases[low] : NULL;
}

typedef enum { UPPER, LOWER, TITLE, FOLD } Case;

// Final sigma: after a letter and before none, marks and apostrophes not counted.
static bool case_ignorable(int32_t c) {
    utf8proc_category_t k = utf8proc_category(c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF ||
           k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK || c == '\'' || c == '.' || c == ':' || c == 0xB7 ||
           c == 0x387 || c == 0x55F || c == 0x5F4 || c == 0x2018 || c == 0x2019 || c == 0x2024 || c == 0x2027 ||
           c == 0xFE13 || c == 0xFE52 || c == 0xFE55 || c == 0xFF07 || c == 0xFF0E || c == 0xFF1A;
}

static bool final_sigma(const Str* s, const char* at, int n) {
    int32_t c;
    const char *p = at, *end = s->p + s->n;
    bool before = false;
    while (p > s->p && !before) {
        do p--;
        while (p > s->p && ((unsigned char)*p & 0xC0) == 0x80);
        char_at(p, end, &c);
        if (case_ignorable(c)) continue;
        if (!is_cased(c)) return false;
        before = true;
    }
    for (p = at + n; before && p < end;) {
        p += char_at(p, end, &c);
        if (!case_ignorable(c)) return !is_cased(c);
    }
    return before;
}

static void put_case(Interp* in, Builder* b, const Str* s, const char* p, int n, int32_t c, Case to) {
    const SpecialCase* special = c < 0x80 ? NULL : special_case(c);
    if (to == FOLD) {
        int32_t folded[8];
        int boundary = 0;
        utf8proc_ssize_t k = utf8proc_decompose_char(c, folded, 8, UTF8PROC_CASEFOLD, &boundary);
        for (utf8proc_ssize_t i = 0; i < k && i < 8; i++) put_char(in, b, folded[i], s);
    } else if (special) {
        const char* text = to == UPPER ? special->upper : to == LOWER ? special->lower : special->title;
        put(in, b, text, strlen(text), s);
    } else if (to == LOWER && c == 0x3A3) put_char(in, b, final_sigma(s, p, n) ? 0x3C2 : 0x3C3, s);
    else {
        int32_t mapped = to == UPPER ? utf8proc_toupper(c) : to == LOWER ? utf8proc_tolower(c) : utf8proc_totitle(c);
        if (mapped == c) put(in, b, p, (size_t)n, s);
        else put_char(in, b, mapped, s);
    }
}

static Value of_kind(Value v, const Str* s) {  // Markup's methods return Markup
    v.s->markup = s->markup;
    return v;
}

// first: of the first character; after: of one that follows a letter; else: of the others.
static Value change_case(Interp* in, Str* s, Case first, Case after, Case otherwise) {
    Builder b = {0};
    bool cased = false;
    for (const char *p = s->p, *end = p + s->n; p < end;) {
        int32_t c;
        int n = char_at(p, end, &c);
        put_case(in, &b, s, p, n, c, p == s->p ? first : cased ? after : otherwise);
        cased = is_cased(c);
        p += n;
    }
    return of_kind(built(in, &b), s);
}

Value str_lower(Interp* in, Str* s) { return change_case(in, s, LOWER, LOWER, LOWER); }
Value str_upper(Interp* in, Str* s) { return change_case(in, s, UPPER, UPPER, UPPER); }
Value str_capitalize(Interp* in, Str* s) { return change_case(in, s, TITLE, LOWER, LOWER); }

static Value swap_case(Interp* in, Str* s) {
    Builder b = {0};
    for (const char *p = s->p, *end = p + s->n; p < end;) {
        int32_t c;
        int n = char_at(p, end, &c);
        if (is_upper(c)) put_case(in, &b, s, p, n, c, LOWER);
        else if (is_lower(c)) put_case(in, &b, s, p, n, c, UPPER);
        else put(in, &b, p, (size_t)n, s);
        p += n;
    }
    return of_kind(built(in, &b), s);
}

// ---- the table of methods --------------------------------------------------------------------------

// clang-format off
#define STR_METHODS(X)                                                                                                \
    X(capitalize)                                                                                                     \
    X(casefold)                                                                                                       \
    X(center)                                                                                                         \
    X(count)                                                                                                          \
    X(encode)                                                                                                         \
    X(endswith)                                                                                                       \
    X(expandtabs)                                                                                                     \
    X(find) X(format) X(format_map) X(index) X(isalnum) X(isalpha) X(isascii) X(isdecimal) X(isdigit) X(isidentifier) \
        X(islower) X(isnumeric) X(isprintable) X(isspace) X(istitle) X(isupper) X(join) X(ljust) X(lower) X(lstrip)   \
            X(maketrans) X(partition) X(removeprefix) X(removesuffix) X(replace) X(rfind) X(rindex) X(rjust)          \
                X(rpartition) X(rsplit) X(rstrip) X(split) X(splitlines) X(startswith) X(strip) X(swapcase) X(title)  \
                    X(translate) X(upper) X(zfill)
// clang-format on
enum {
#define X(name) S_##name,
    STR_METHODS(X)
#undef X
        N_STR_METHODS
};
static const char* const str_methods[] = {
#define X(name) #name,
    STR_METHODS(X)
#undef X
};
// of other types; the sandbox does not let a template change lists and dictionaries
static const struct {
    ValueType type;
    const char* name;
    bool refused;
} other_methods[] = {
    {V_LIST, "copy", false},
    {V_LIST, "count", false},
    {V_LIST, "index", false},
    {V_LIST, "append", true},
    {V_LIST, "clear", true},
    {V_LIST, "extend", true},
    {V_LIST, "insert", true},
    {V_LIST, "pop", true},
    {V_LIST, "remove", true},
    {V_LIST, "reverse", true},
    {V_LIST, "sort", true},
    {V_TUPLE, "count", false},
    {V_TUPLE, "index", false},
    {V_DICT, "copy", false},
    {V_DICT, "fromkeys", false},
    {V_DICT, "get", false},
    {V_DICT, "items", false},
    {V_DICT, "keys", false},
    {V_DICT, "values", false},
    {V_DICT, "clear", true},
    {V_DICT, "pop", true},
    {V_DICT, "popitem", true},
    {V_DICT, "setdefault", true},
    {V_DICT, "update", true},
    {V_INT, "as_integer_ratio", false},
    {V_INT, "bit_count", false},
    {V_INT, "bit_length", false},
    {V_INT, "conjugate", false},
    {V_INT, "from_bytes", false},
    {V_INT, "to_bytes", false},
    {V_FLOAT, "as_integer_ratio", false},
    {V_FLOAT, "conjugate", false},
    {V_FLOAT, "fromhex", false},
    {V_FLOAT, "hex", false},
    {V_FLOAT, "is_integer", false},
    {V_RANGE, "count", false},
    {V_RANGE, "index", false},
    {V_KEYS, "isdisjoint", false},
    {V_ITEMS, "isdisjoint", false},
    {V_LOOP, "cycle", false},
    {V_LOOP, "changed", false},
    {V_CYCLER, "next", false},
    {V_CYCLER, "reset", false},
    {V_ITERATOR, "close", false},
    {V_ITERATOR, "send", false},
    {V_ITERATOR, "throw", false},
};
#define N_OTHER ((int)(sizeof other_methods / sizeof *other_methods))

int find_method(Value v, const char* name) {
    if (v.type == V_STRING) {
        for (int i = 0; i < N_STR_METHODS; i++)
            if (!strcmp(str_methods[i], name)) return i;
        if (v.s->markup && (!strcmp(name, "striptags") || !strcmp(name, "unescape") || !strcmp(name, "escape")))
            return N_STR_METHODS;
        return -1;
    }
    ValueType type = v.type == V_BOOL || v.type == V_BIG ? V_INT : v.type;
    for (int i = 0; i < N_OTHER; i++)
        if (other_methods[i].type == type && !strcmp(other_methods[i].name, name))
            return other_methods[i].refused ? METHOD_REFUSED : N_STR_METHODS + 1 + i;
    return -1;
}

const char* method_name(int id) {
    if (id < N_STR_METHODS) return str_methods[id];
    return id == N_STR_METHODS ? "a method of Markup" : other_methods[id - N_STR_METHODS - 1].name;
}

// ---- methods ---------------------------------------------------------------------------------------

static Str* must_text(Interp* in, Value v, const char* what) {
    if (v.type == V_UNDEFINED) fail_undefined(in, v);
    if (v.type != V_STRING) jinja_fail(in, "%s: expected str, got %s", what, type_name(v));
    return v.s;
}

static bool in_set(int32_t c, const Str* set) {
    for (const char *p = set->p, *end = p + set->n; p < end;) {
        int32_t d;
        p += char_at(p, end, &d);
        if (d == c) return true;
    }
    return false;
}

Value str_strip(Interp* in, Str* s, Value chars, bool left, bool right) {
    const Str* set = given(chars) && chars.type != V_NONE ? must_text(in, chars, "strip's argument") : NULL;
    size_t from = 0, to = s->n;
    int32_t c;
    while (left && from < to) {
        int n = char_at(s->p + from, s->p + to, &c);
        if (!(set ? in_set(c, set) : is_space_(c))) break;
        from += (size_t)n;
    }
    while (right && to > from) {
        size_t at = to - 1;
        while (at > from && ((unsigned char)s->p[at] & 0xC0) == 0x80) at--;
        char_at(s->p + at, s->p + to, &c);
        if (!(set ? in_set(c, set) : is_space_(c))) break;
        to = at;
    }
    jinja_work(in, (from + s->n - to) * 4);
    return from || to < s->n ? v_part(in, s, from, to) : (Value){.type = V_STRING, .s = s};
}

static const char* find_bytes(Interp* in, const char* p, size_t n, const Str* what) {
    const char* found = what->n > n ? NULL : what->n ? memmem(p, n, what->p, what->n) : p;
    jinja_work(in, found ? (size_t)(found - p) : n);
    return found;
}

static const char* find_last(Interp* in, const char* p, size_t n, const Str* what) {
    if (what->n > n) return NULL;
    for (const char* at = p + n - what->n; at >= p; at--)
        if (!what->n || !memcmp(at, what->p, what->n)) {
            jinja_work(in, n - (size_t)(at - p));
            return at;
        }
    jinja_work(in, n);
    return NULL;
}

static Value split(Interp* in, Str* s, Value sep, Value most, bool from_right) {
    Value out = v_list(in, 4);
    int64_t left = given(most) ? index_of(in, most, "maxsplit") : -1;
    const Str* by = given(sep) && sep.type != V_NONE ? must_text(in, sep, "split's separator") : NULL;
    size_t from = 0, to = s->n;
    int32_t c;
    if (by && !by->n) jinja_fail(in, "empty separator");
    while (by && left != 0) {
        const char* found = from_right ? find_last(in, s->p, to, by) : find_bytes(in, s->p + from, s->n - from, by);
        if (!found) break;
        size_t at = (size_t)(found - s->p);
        if (from_right) {
            list_put(in, out.list, v_part(in, s, at + by->n, to));
            to = at;
        } else {
            list_put(in, out.list, v_part(in, s, from, at));
            from = at + by->n;
        }
        left--;
    }
    if (by) list_put(in, out.list, v_part(in, s, from, to));
    while (!by) {
        Str rest = *s;
        rest.p += from;
        rest.n = to - from;
        if (from_right) to = from + str_strip(in, &rest, v_missing(), false, true).s->n;
        else from = to - str_strip(in, &rest, v_missing(), true, false).s->n;
        if (from == to) break;
        if (left-- == 0) {
            list_put(in, out.list, v_part(in, s, from, to));
            break;
        }
        size_t at = from_right ? to : from;
        while (from_right ? at > from : at < to) {
            size_t before = at;
            if (from_right) {
                do at--;
                while (at > from && ((unsigned char)s->p[at] & 0xC0) == 0x80);
                char_at(s->p + at, s->p + to, &c);
                if (is_space_(c)) {
                    at = before;
                    break;
                }
            } else {
                int n = char_at(s->p + at, s->p + to, &c);
                if (is_space_(c)) break;
                at += (size_t)n;
            }
        }
        jinja_work(in, s->n >> 8);
        if (from_right) {
            list_put(in, out.list, v_part(in, s, at, to));
            to = at;
        } else {
            list_put(in, out.list, v_part(in, s, from, at));
            from = at;
        }
    }
    for (size_t i = 0; from_right && i < out.list->n / 2; i++) {
        Value swap = out.list->v[i];
        out.list->v[i] = out.list->v[out.list->n - 1 - i];
        out.list->v[out.list->n - 1 - i] = swap;
    }
    return out;
}

static bool ends_line(int32_t c) {
    return (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

Value str_splitlines(Interp* in, Str* s, bool keep) {
    Value out = v_list(in, 4);
    size_t from = 0, at = 0;
    int32_t c;
    while (at < s->n) {
        size_t start = at;
        at += (size_t)char_at(s->p + at, s->p + s->n, &c);
        if (!ends_line(c)) continue;
        if (c == '\r' && at < s->n && s->p[at] == '\n') at++;
        list_put(in, out.list, v_part(in, s, from, keep ? at : start));
        from = at;
    }
    if (from < s->n) list_put(in, out.list, v_part(in, s, from, s->n));
    jinja_work(in, s->n);
    return out;
}

Value str_replace(Interp* in, Str* s, Str* old, Str* new_, int64_t count) {
    Builder b = {0};
    size_t from = 0;
    if (!old->n) {  // between all characters
        for (int32_t c; count != 0 && from <= s->n; count--) {
            put_str(in, &b, new_);
            if (from == s->n) {
                from++;
                break;
            }
            size_t n = (size_t)char_at(s->p + from, s->p + s->n, &c);
            put(in, &b, s->p + from, n, s);
            from += n;
        }
        if (from < s->n) put(in, &b, s->p + from, s->n - from, s);
        return of_kind(built(in, &b), s);
    }
    while (count != 0) {
        const char* found = find_bytes(in, s->p + from, s->n - from, old);
        if (!found) break;
        put(in, &b, s->p + from, (size_t)(found - s->p) - from, s);
        put_str(in, &b, new_);
        from = (size_t)(found - s->p) + old->n;
        count--;
    }
    if (!from) return (Value){.type = V_STRING, .s = s};
    put(in, &b, s->p + from, s->n - from, s);
    return of_kind(built(in, &b), s);
}

void put_padding(Interp* in, Builder* b, int64_t n, const Str* fill) {
    if (n > 0 && (uint64_t)n > in->arena.limit) jinja_no_memory(in);
    for (; n > 0; n--) put_str(in, b, fill);
}

static Value justify(Interp* in, Str* s, Value width, Value fill, int where) {
    Str* f = given(fill) ? must_text(in, fill, "fill character") : v_text(in, " ").s;
    if (str_length(f) != 1) jinja_fail(in, "The fill character must be exactly one character long");
    int64_t w = index_of(in, width, "width"), space = w - str_length(s), left;
    if (space <= 0) return (Value){.type = V_STRING, .s = s};
    left = where < 0 ? 0 : where > 0 ? space : space / 2 + (space & w & 1);
    Builder b = {0};
    put_padding(in, &b, left, f);
    put_str(in, &b, s);
    put_padding(in, &b, space - left, f);
    return of_kind(built(in, &b), s);
}

Value str_center(Interp* in, Str* s, int64_t width, Str* fill) {
    return justify(in, s, v_int(width), fill ? (Value){.type = V_STRING, .s = fill} : v_missing(), 0);
}

// Bytes [from, to) that start and end mean in code points, as Python's slices; false: past the end.
static bool window(Interp* in, Str* s, Value start, Value end, size_t* from, size_t* to) {
    int64_t n = str_length(s), a = given(start) && start.type != V_NONE ? index_of(in, start, "start") : 0,
            b = given(end) && end.type != V_NONE ? index_of(in, end, "end") : n;
    if (b > n) b = n;
    if (b < 0) b = b + n < 0 ? 0 : b + n;
    if (a < 0) a = a + n < 0 ? 0 : a + n;
    if (a > b) return false;
    *from = str_offset(s, a);
    *to = str_offset(s, b);
    return true;
}

static bool begins(Interp* in, Str* s, size_t from, size_t to, Value with, bool at_end) {
    if (with.type == V_TUPLE) {
        for (size_t i = 0; i < with.list->n; i++)
            if (begins(in, s, from, to, with.list->v[i], at_end)) return true;
        return false;
    }
    Str* w = must_text(in, with, at_end ? "endswith's argument" : "startswith's argument");
    return w->n <= to - from && (!w->n || !memcmp(at_end ? s->p + to - w->n : s->p + from, w->p, w->n));
}

static int64_t code_points(const char* p, size_t n) {
    Str s = {.p = p, .n = n, .length = -1};
    return str_length(&s);
}

static Value find(Interp* in, Str* s, Value* a, bool last, bool must) {
    Str* what = must_text(in, a[0], "find's argument");
    size_t from, to;
    const char* found = NULL;
    if (window(in, s, a[1], a[2], &from, &to))
        found = last ? find_last(in, s->p + from, to - from, what) : find_bytes(in, s->p + from, to - from, what);
    if (!found && must) jinja_fail(in, "substring not found");
    return v_int(found ? code_points(s->p, (size_t)(found - s->p)) : -1);
}

static Value count(Interp* in, Str* s, Value* a) {
    Str* what = must_text(in, a[0], "count's argument");
    size_t from, to;
    int64_t n = 0;
    if (!window(in, s, a[1], a[2], &from, &to)) return v_int(0);
    if (!what->n) return v_int(code_points(s->p + from, to - from) + 1);
    for (const char* p; (p = find_bytes(in, s->p + from, to - from, what)); n++) from = (size_t)(p - s->p) + what->n;
    return v_int(n);
}

static Value partition(Interp* in, Str* s, Value sep, bool last) {
    Str* by = must_text(in, sep, "partition's separator");
    if (!by->n) jinja_fail(in, "empty separator");
    const char* found = last ? find_last(in, s->p, s->n, by) : find_bytes(in, s->p, s->n, by);
    Value out = v_tuple(in, 3);
    size_t at = found ? (size_t)(found - s->p) : last ? 0 : s->n, after = found ? at + by->n : at;
    list_put(in, out.list, v_part(in, s, 0, at));
    list_put(in, out.list, v_part(in, s, at, after));
    list_put(in, out.list, v_part(in, s, after, s->n));
    return out;
}

static Value zfill(Interp* in, Str* s, int64_t width) {
    int64_t n = width - str_length(s);
    if (n <= 0) return (Value){.type = V_STRING, .s = s};
    Builder b = {0};
    size_t sign = s->n && (*s->p == '-' || *s->p == '+');
    put(in, &b, s->p, sign, s);
    put_padding(in, &b, n, v_text(in, "0").s);
    put(in, &b, s->p + sign, s->n - sign, s);
    return of_kind(built(in, &b), s);
}

static Value expand_tabs(Interp* in, Str* s, int64_t size) {
    Builder b = {0};
    int64_t column = 0;
    for (const char *p = s->p, *end = p + s->n; p < end;) {
        int32_t c;
        int n = char_at(p, end, &c);
        if (c == '\t') {
            int64_t spaces = size > 0 ? size - column % size : 0;
            put_padding(in, &b, spaces, v_text(in, " ").s);
            column += spaces;
        } else {
            put(in, &b, p, (size_t)n, s);
            column = c == '\n' || c == '\r' ? 0 : column + 1;
        }
        p += n;
    }
    return of_kind(built(in, &b), s);
}

static Value join(Interp* in, Str* s, Value items) {
    Builder b = {0};
    Iterator* it = iterate(in, items);
    int64_t n = 0;
    for (Value v; next_item(in, it, &v); n++) {
        if (v.type != V_STRING && !s->markup)
            jinja_fail(in, "sequence item %lld: expected str instance, %s found", (long long)n, type_name(v));
        if (n) put_str(in, &b, s);
        put_str(in, &b, s->markup ? escape_text(in, v).s : v.s);
    }
    return of_kind(built(in, &b), s);
}

bool str_is(Str* s, int id) {
    bool any = false, cased = false;
    for (const char *p = s->p, *end = p + s->n; p < end;) {
        int32_t c;
        p += char_at(p, end, &c);
        bool good = true, is = is_cased(c);
        switch (id) {
            case S_isalnum: good = is_alnum_(c); break;
            case S_isalpha: good = is_alpha(c); break;
            case S_isascii: good = c < 0x80; break;
            case S_isdecimal: good = is_decimal(c); break;
            case S_isdigit: good = is_digit_(c); break;
            case S_isidentifier: good = c == '_' || is_alpha(c) || (any && is_word(c)); break;
            case S_islower: good = !is_upper(c) && !is_title(c); break;
            case S_isupper: good = !is_lower(c) && !is_title(c); break;
            case S_isnumeric: good = is_numeric(c); break;
            case S_isprintable: good = is_printable_(c); break;
            case S_isspace: good = is_space_(c); break;
            case S_istitle:
                good = !is || (is_lower(c) ? cased : !cased);
                any |= is;
                cased = is;
                break;
            default: break;
        }
        if (!good) return false;
        any |= id == S_istitle ? false : id == S_islower ? is_lower(c) : id == S_isupper ? is_upper(c) : true;
    }
    return any || id == S_isascii || id == S_isprintable;
}

static Value swap_markup(Interp* in, Str* s, Value v) { return s->markup ? escape_text(in, v) : v; }

Value str_method(Interp* in, Str* s, int id, Args* args) {
    static const char* const one[] = {"x"};
    static const char* const three[] = {"x", "start", "end"};
    static const char* const splits[] = {"sep", "maxsplit"};
    static const char* const fills[] = {"width", "fillchar"};
    static const char* const replaces[] = {"old", "new", "count"};
    static const char* const keeps[] = {"keepends"};
    static const char* const tabs[] = {"tabsize"};
    const char* name = method_name(id);
    Value a[3];
    size_t from, to;
    switch (id) {
        case S_capitalize:
        case S_casefold:
        case S_lower:
        case S_upper:
        case S_title:
        case S_swapcase:
            bind_arguments(in, name, args, NULL, 0, 0, a);
            return id == S_lower        ? str_lower(in, s)
                   : id == S_upper      ? str_upper(in, s)
                   : id == S_capitalize ? str_capitalize(in, s)
                   : id == S_title      ? change_case(in, s, TITLE, LOWER, TITLE)
                   : id == S_casefold   ? change_case(in, s, FOLD, FOLD, FOLD)
                                        : swap_case(in, s);
        case S_strip:
        case S_lstrip:
        case S_rstrip:
            bind_arguments(in, name, args, one, 1, 0, a);
            return str_strip(in, s, a[0], id != S_rstrip, id != S_lstrip);
        case S_split:
        case S_rsplit: bind_arguments(in, name, args, splits, 2, 0, a); return split(in, s, a[0], a[1], id == S_rsplit);
        case S_splitlines:
            bind_arguments(in, name, args, keeps, 1, 0, a);
            return str_splitlines(in, s, given(a[0]) && truth(a[0]));
        case S_startswith:
        case S_endswith:
            bind_arguments(in, name, args, three, 3, 1, a);
            if (a[0].type != V_STRING && a[0].type != V_TUPLE && a[0].type != V_UNDEFINED)
                jinja_fail(in, "%s first arg must be str or a tuple of str, not %s", name, type_name(a[0]));
            return v_bool(window(in, s, a[1], a[2], &from, &to) && begins(in, s, from, to, a[0], id == S_endswith));
        case S_find:
        case S_index:
        case S_rfind:
        case S_rindex:
            bind_arguments(in, name, args, three, 3, 1, a);
            return find(in, s, a, id == S_rfind || id == S_rindex, id == S_index || id == S_rindex);
        case S_count: bind_arguments(in, name, args, three, 3, 1, a); return count(in, s, a);
        case S_replace:
            bind_arguments(in, name, args, replaces, 3, 2, a);
            return str_replace(in, s, must_text(in, a[0], "replace's old text"),
                               must_text(in, swap_markup(in, s, a[1]), "replace's new text"),
                               given(a[2]) ? index_of(in, a[2], "count") : -1);
        case S_join: bind_arguments(in, name, args, one, 1, 1, a); return join(in, s, a[0]);
        case S_center:
        case S_ljust:
        case S_rjust:
            bind_arguments(in, name, args, fills, 2, 1, a);
            return justify(in, s, a[0], a[1], id == S_center ? 0 : id == S_ljust ? -1 : 1);
        case S_zfill: bind_arguments(in, name, args, one, 1, 1, a); return zfill(in, s, index_of(in, a[0], "width"));
        case S_expandtabs:
            bind_arguments(in, name, args, tabs, 1, 0, a);
            return expand_tabs(in, s, given(a[0]) ? index_of(in, a[0], "tabsize") : 8);
        case S_partition:
        case S_rpartition:
            bind_arguments(in, name, args, one, 1, 1, a);
            return partition(in, s, a[0], id == S_rpartition);
        case S_removeprefix:
        case S_removesuffix: {
            bind_arguments(in, name, args, one, 1, 1, a);
            Str* what = must_text(in, a[0], name);
            if (!what->n || !begins(in, s, 0, s->n, a[0], id == S_removesuffix))
                return (Value){.type = V_STRING, .s = s};
            return id == S_removesuffix ? v_part(in, s, 0, s->n - what->n) : v_part(in, s, what->n, s->n);
        }
        case S_format:
            if (s->markup) break;
            return format_braces(in, s, args);
        case S_format_map: {
            if (s->markup) break;
            bind_arguments(in, name, args, one, 1, 1, a);
            if (a[0].type != V_DICT) jinja_fail(in, "format_map: expected a mapping, got %s", type_name(a[0]));
            Args named = {0};
            named.named = jinja_new(in, (a[0].dict->n + 1) * sizeof *named.named);
            for (size_t i = 0; i < a[0].dict->n; i++) {
                if (a[0].dict->pair[i].key.type != V_STRING) continue;
                Str* key = a[0].dict->pair[i].key.s;
                char* text = jinja_new(in, key->n + 1);
                memcpy(text, key->p, key->n);
                named.named[named.n_named].name = text;
                named.named[named.n_named++].value = a[0].dict->pair[i].value;
            }
            return format_braces(in, s, &named);
        }
        case S_encode:
        case S_maketrans:
        case S_translate:
        case N_STR_METHODS: break;
        default: bind_arguments(in, name, args, NULL, 0, 0, a); return v_bool(str_is(s, id));
    }
    jinja_fail(in, "the method %s of %s is not supported", name, s->markup ? "Markup" : "str");
}

Value escape_text(Interp* in, Value v) {
    if (v.type == V_STRING && v.s->markup) return v;
    Str* s = text_of(in, v);
    Builder b = {0};
    size_t from = 0;
    for (size_t i = 0; i < s->n; i++) {
        char c = s->p[i];
        const char* to = c == '&'    ? "&amp;"
                         : c == '<'  ? "&lt;"
                         : c == '>'  ? "&gt;"
                         : c == '\'' ? "&#39;"
                         : c == '"'  ? "&#34;"
                                     : NULL;
        if (!to) continue;
        put(in, &b, s->p + from, i - from, s);
        put(in, &b, to, strlen(to), s);
        from = i + 1;
    }
    put(in, &b, s->p + from, s->n - from, s);
    Value out = built(in, &b);
    out.s->markup = true;
    return out;
}
