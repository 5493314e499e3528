/* Jinja's filters, and the sorting that some of them need. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "tokenizer_internal.h"
#include "jinja_internal.h"

static Value generator(Interp* in, IteratorKind kind, Value v, Args* args);
static Value v_iterator(Iterator* it) { return (Value){.type = V_ITERATOR, .iterator = it}; }

// ---- sorting ---------------------------------------------------------------------------------------

typedef struct {
    Value key, item;
} Sortable;

static void merge_sort(Interp* in, Sortable* v, Sortable* spare, size_t n) {
    if (n < 2) return;
    size_t half = n / 2, i = 0, k = half, at = 0;
    merge_sort(in, v, spare, half);
    merge_sort(in, v + half, spare, n - half);
    while (i < half && k < n) spare[at++] = less(in, v[k].key, v[i].key, "<") ? v[k++] : v[i++];
    while (i < half) spare[at++] = v[i++];
    memcpy(v, spare, at * sizeof *v);
}

static void sort_items(Interp* in, Sortable* v, size_t n, bool reverse) {
    Sortable* spare = jinja_new(in, (n + 1) * sizeof *spare);
    for (int pass = 0; pass < 2; pass++) {  // as Python: reversed before and after, so equal keys keep their order
        for (size_t i = 0; reverse && i < n / 2; i++) {
            Sortable swap = v[i];
            v[i] = v[n - 1 - i];
            v[n - 1 - i] = swap;
        }
        if (!pass) merge_sort(in, v, spare, n);
    }
}

// Items with their keys; several attributes between commas make a list of keys.
static Sortable* sortable(Interp* in, Value v, Value attribute, Value fallback, bool many, bool insensitive,
                          size_t* n) {
    Value list = list_of(in, v);
    Sortable* out = jinja_new(in, (list.list->n + 1) * sizeof *out);
    *n = list.list->n;
    for (size_t i = 0; i < *n; i++) {
        Value item = list.list->v[i];
        out[i].item = item;
        if (!many || !given(attribute) || attribute.type != V_STRING) {
            Value key = follow_attribute(in, item, attribute, fallback);
            out[i].key = insensitive ? ignore_case(in, key) : key;
            continue;
        }
        out[i].key = v_list(in, 1);
        for (size_t from = 0; from <= attribute.s->n;) {
            const char* comma = attribute.s->n > from ? memchr(attribute.s->p + from, ',', attribute.s->n - from)
                                                      : NULL;
            size_t to = comma ? (size_t)(comma - attribute.s->p) : attribute.s->n;
            Value key = follow_attribute(in, item, v_part(in, attribute.s, from, to), v_missing());
            list_put(in, out[i].key.list, insensitive ? ignore_case(in, key) : key);
            from = to + 1;
        }
    }
    return out;
}

static bool flag(Value v, bool otherwise) { return given(v) ? truth(v) : otherwise; }

// ---- filters ---------------------------------------------------------------------------------------

typedef Value (*Filter)(Interp* in, Value v, Value* a);

static Value f_abs(Interp* in, Value v, Value* a) {
    (void)a;
    if (v.type == V_UNDEFINED || !is_number(v)) jinja_fail(in, "bad operand type for abs(): '%s'", type_name(v));
    if (v.type == V_FLOAT) return v_float(fabs(v.f));
    int64_t i = v.type == V_BOOL ? v.b : v.i;
    return i < 0 ? negative(in, v_int(i), false) : v_int(i);
}

static Value f_attr(Interp* in, Value v, Value* a) {
    Value out;
    if (a[0].type != V_STRING) jinja_fail(in, "attr: expected a name, got %s", type_name(a[0]));
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(a[0].s->n < 60 ? a[0].s->n : 60), a[0].s->n ? a[0].s->p : "");
    if (v.type == V_UNDEFINED) fail_undefined(in, v);
    return own_attribute(in, v, name, a[0], &out) ? out : no_such_item(in, v, a[0], false);
}

static Value f_batch(Interp* in, Value v, Value* a) {
    Value out = generator(in, IT_BATCH, v, &(Args){0});
    out.iterator->attribute = a[0];
    out.iterator->fallback = a[1];
    return out;
}

static Value f_slice(Interp* in, Value v, Value* a) {
    Value out = generator(in, IT_SLICES, v, &(Args){0});
    out.iterator->attribute = a[0];
    out.iterator->fallback = a[1];
    return out;
}

static Str* soft_text(Interp* in, Value v) { return v.type == V_STRING ? v.s : text_of(in, v); }
static Value of_str(Str* s) { return (Value){.type = V_STRING, .s = s}; }

static Value f_capitalize(Interp* in, Value v, Value* a) { return (void)a, str_capitalize(in, soft_text(in, v)); }
static Value f_lower(Interp* in, Value v, Value* a) { return (void)a, str_lower(in, soft_text(in, v)); }
static Value f_upper(Interp* in, Value v, Value* a) { return (void)a, str_upper(in, soft_text(in, v)); }
static Value f_string(Interp* in, Value v, Value* a) { return (void)a, of_str(soft_text(in, v)); }
static Value f_trim(Interp* in, Value v, Value* a) { return str_strip(in, soft_text(in, v), a[0], true, true); }
static Value f_length(Interp* in, Value v, Value* a) { return (void)a, v_int(value_length(in, v)); }
static Value f_list(Interp* in, Value v, Value* a) { return (void)a, list_of(in, v); }
static Value f_escape(Interp* in, Value v, Value* a) { return (void)a, escape_text(in, v); }
static Value f_forceescape(Interp* in, Value v, Value* a) { return (void)a, escape_text(in, of_str(text_of(in, v))); }

static Value f_safe(Interp* in, Value v, Value* a) {
    (void)a;
    Str* s = text_of(in, v);
    Value out = v_part(in, s, 0, s->n);
    out.s->markup = true;
    return out;
}

static Value f_center(Interp* in, Value v, Value* a) {
    return str_center(in, soft_text(in, v), given(a[0]) ? index_of(in, a[0], "width") : 80, NULL);
}

static Value f_default(Interp* in, Value v, Value* a) {
    if (v.type == V_UNDEFINED || (flag(a[1], false) && !truth(v))) return given(a[0]) ? a[0] : v_text(in, "");
    return v;
}

static Value f_dictsort(Interp* in, Value v, Value* a) {
    bool by_value = false;
    if (v.type == V_UNDEFINED) fail_undefined(in, v);
    if (v.type != V_DICT) jinja_fail(in, "dictsort: '%s' object has no attribute 'items'", type_name(v));
    if (given(a[1])) {
        Str* by = text_of(in, a[1]);
        by_value = by->n == 5 && !memcmp(by->p, "value", 5);
        if (!by_value && !(by->n == 3 && !memcmp(by->p, "key", 3)))
            jinja_fail(in, "You can only sort by either \"key\" or \"value\"");
    }
    size_t n = v.dict->n;
    Sortable* all = jinja_new(in, (n + 1) * sizeof *all);
    for (size_t i = 0; i < n; i++) {
        Value key = by_value ? v.dict->pair[i].value : v.dict->pair[i].key;
        all[i] = (Sortable){flag(a[0], false) ? key : ignore_case(in, key), item_pair(in, &v.dict->pair[i])};
    }
    sort_items(in, all, n, flag(a[2], false));
    Value out = v_list(in, n);
    for (size_t i = 0; i < n; i++) list_put(in, out.list, all[i].item);
    return out;
}

static Value f_sort(Interp* in, Value v, Value* a) {
    size_t n;
    Sortable* all = sortable(in, v, a[2], v_missing(), true, !flag(a[1], false), &n);
    sort_items(in, all, n, flag(a[0], false));
    Value out = v_list(in, n);
    for (size_t i = 0; i < n; i++) list_put(in, out.list, all[i].item);
    return out;
}

static Value f_groupby(Interp* in, Value v, Value* a) {
    size_t n;
    bool insensitive = !flag(a[2], false);
    Sortable* all = sortable(in, v, a[0], a[1], false, insensitive, &n);
    sort_items(in, all, n, false);
    Value out = v_list(in, 4);
    for (size_t i = 0, end; i < n; i = end) {
        Value group = v_tuple(in, 2), items = v_list(in, 4);
        for (end = i; end < n && equal(in, all[end].key, all[i].key); end++) list_put(in, items.list, all[end].item);
        if (end == i) end = i + 1;  // not equal to itself
        group.list->group = true;
        list_put(in, group.list, insensitive ? follow_attribute(in, all[i].item, a[0], a[1]) : all[i].key);
        list_put(in, group.list, items);
        list_put(in, out.list, group);
    }
    return out;
}

static Value f_unique(Interp* in, Value v, Value* a) {
    Value out = generator(in, IT_UNIQUE, v, &(Args){0});
    out.iterator->insensitive = !flag(a[0], false);
    out.iterator->attribute = a[1];
    out.iterator->seen = v_dict(in).dict;
    return out;
}

static Value extreme(Interp* in, Value v, Value* a, bool most) {
    size_t n, best = 0;
    Sortable* all = sortable(in, v, a[1], v_missing(), false, !flag(a[0], false), &n);
    if (!n) return v_undefined(in, "No aggregated item, sequence was empty.");
    for (size_t i = 1; i < n; i++)
        if (most ? less(in, all[best].key, all[i].key, ">") : less(in, all[i].key, all[best].key, "<")) best = i;
    return all[best].item;
}
static Value f_min(Interp* in, Value v, Value* a) { return extreme(in, v, a, false); }
static Value f_max(Interp* in, Value v, Value* a) { return extreme(in, v, a, true); }

static Value f_sum(Interp* in, Value v, Value* a) {
    Value total = given(a[1]) ? a[1] : v_int(0), x;
    if (total.type == V_STRING) jinja_fail(in, "sum() can't sum strings [use ''.join(seq) instead]");
    for (Iterator* it = iterate(in, v); next_item(in, it, &x);)
        total = binary(in, OP_ADD, total, follow_attribute(in, x, a[0], v_missing()));
    return total;
}

static Value f_join(Interp* in, Value v, Value* a) {
    Builder b = {0};
    Str* by = given(a[0]) ? text_of(in, a[0]) : v_text(in, "").s;
    Iterator* it = iterate(in, v);
    Value x;
    for (size_t n = 0; next_item(in, it, &x); n++) {
        if (n) put_str(in, &b, by);
        put_value(in, &b, given(a[1]) && a[1].type != V_NONE ? follow_attribute(in, x, a[1], v_missing()) : x);
    }
    return built(in, &b);
}

static Value f_first(Interp* in, Value v, Value* a) {
    (void)a;
    Value x;
    return next_item(in, iterate(in, v), &x) ? x : v_undefined(in, "No first item, sequence was empty.");
}

static Iterator* reversed(Interp* in, Value v) {
    if (v.type == V_UNDEFINED) {
        Iterator* none = iterator_new(in, IT_EMPTY, v);
        none->type_name = "reversed";
        return none;
    }
    if (v.type != V_LIST && v.type != V_TUPLE && v.type != V_RANGE && v.type != V_DICT && v.type != V_KEYS &&
        v.type != V_VALUES && v.type != V_ITEMS)
        return NULL;
    Iterator* it = iterator_new(in, IT_REVERSED, v);
    it->at = value_length(in, v) - 1;
    it->type_name = v.type == V_LIST ? "list_reverseiterator" : "reversed";
    return it;
}

static Value f_last(Interp* in, Value v, Value* a) {
    (void)a;
    Value x;
    if (v.type == V_STRING) {
        if (!v.s->n) return v_undefined(in, "No last item, sequence was empty.");
        return get_item(in, v, v_int(-1));
    }
    Iterator* it = reversed(in, v);
    if (!it) jinja_fail(in, "'%s' object is not reversible", type_name(v));
    return next_item(in, it, &x) ? x : v_undefined(in, "No last item, sequence was empty.");
}

static Value f_reverse(Interp* in, Value v, Value* a) {
    (void)a;
    if (v.type == V_STRING) {
        Builder b = {0};
        for (const char* p = v.s->p + v.s->n; p > v.s->p;) {
            const char* end = p;
            do p--;
            while (p > v.s->p && ((unsigned char)*p & 0xC0) == 0x80);
            put(in, &b, p, (size_t)(end - p), v.s);
        }
        Value out = built(in, &b);
        out.s->markup = v.s->markup;
        return out;
    }
    Iterator* it = reversed(in, v);
    if (it) return v_iterator(it);
    if (!try_iterate(in, v)) jinja_fail(in, "argument must be iterable");
    Value list = list_of(in, v);
    for (size_t i = 0; i < list.list->n / 2; i++) {
        Value swap = list.list->v[i];
        list.list->v[i] = list.list->v[list.list->n - 1 - i];
        list.list->v[list.list->n - 1 - i] = swap;
    }
    return list;
}

static Value f_items(Interp* in, Value v, Value* a) { return (void)a, generator(in, IT_DICT, v, &(Args){0}); }

static Value f_replace(Interp* in, Value v, Value* a) {
    int64_t count = given(a[2]) && a[2].type != V_NONE ? index_of(in, a[2], "replace's count") : -1;
    return str_replace(in, text_of(in, v), text_of(in, a[0]), text_of(in, a[1]), count);
}

static Value f_indent(Interp* in, Value v, Value* a) {
    if (v.type != V_STRING) {
        if (v.type == V_UNDEFINED) fail_undefined(in, v);
        jinja_fail(in, "indent: expected a text, got %s", type_name(v));
    }
    Str* by =
        given(a[0]) && a[0].type == V_STRING
            ? a[0].s
            : binary(in, OP_MUL, v_text(in, " "), v_int(given(a[0]) ? index_of(in, a[0], "indent's width") : 4)).s;
    bool first = flag(a[1], false), blank = flag(a[2], false);
    Builder whole = {0}, b = {0};
    put_str(in, &whole, v.s);
    put_text_(in, &whole, "\n");
    Value lines = str_splitlines(in, built(in, &whole).s, false);
    for (size_t i = 0; i < lines.list->n; i++) {
        Str* line = lines.list->v[i].s;
        if (i) put_text_(in, &b, "\n");
        if (i ? blank || line->n : first) put_str(in, &b, by);
        put_str(in, &b, line);
    }
    Value out = built(in, &b);
    out.s->markup = v.s->markup;
    return out;
}

static Value f_title(Interp* in, Value v, Value* a) {
    (void)a;
    Str* s = soft_text(in, v);
    Builder b = {0};
    for (size_t at = 0; at < s->n;) {  // words begin after white space, - ( { [ <
        size_t end = at;
        int32_t c;
        bool separators = false, first = true;
        while (end < s->n) {
            int n = char_at(s->p + end, s->p + s->n, &c);
            bool separator = is_space_(c) || (c < 0x80 && c && strchr("-({[<", c));
            if (first) separators = separator;
            else if (separator != separators) break;
            first = false;
            end += (size_t)n;
        }
        if (separators) put(in, &b, s->p + at, end - at, s);
        else {
            size_t head = at + (size_t)char_at(s->p + at, s->p + s->n, &c);
            put_str(in, &b, str_upper(in, v_part(in, s, at, head).s).s);
            put_str(in, &b, str_lower(in, v_part(in, s, head, end).s).s);
        }
        at = end;
    }
    return built(in, &b);
}

static Value f_truncate(Interp* in, Value v, Value* a) {
    Str* end = given(a[2]) ? text_of(in, a[2]) : v_text(in, "...").s;
    int64_t length = given(a[0]) ? index_of(in, a[0], "length") : 255,
            leeway = given(a[3]) && a[3].type != V_NONE ? index_of(in, a[3], "leeway") : 5;
    if (length < str_length(end))
        jinja_fail(in, "expected length >= %lld, got %lld", (long long)str_length(end), (long long)length);
    if (leeway < 0) jinja_fail(in, "expected leeway >= 0, got %lld", (long long)leeway);
    if (value_length(in, v) <= length + leeway) return v;
    if (v.type != V_STRING) jinja_fail(in, "truncate: expected a text, got %s", type_name(v));
    Str* s = v.s;
    size_t to = str_offset(s, length - str_length(end));
    if (!flag(a[1], false)) {
        size_t space = to;
        while (space > 0 && s->p[space - 1] != ' ') space--;
        if (space > 0) to = space - 1;
    }
    Value cut = v_part(in, s, 0, to);
    return binary(in, OP_ADD, cut, of_str(end));
}

static Value f_wordcount(Interp* in, Value v, Value* a) {
    (void)a;
    Str* s = soft_text(in, v);
    int64_t n = 0;
    bool word = false;
    for (const char *p = s->p, *end = p + s->n; p < end;) {
        int32_t c;
        p += char_at(p, end, &c);
        bool now = c == '_' || is_alnum_(c);
        n += now && !word;
        word = now;
    }
    return v_int(n);
}

static Value text_to_int(Interp* in, Str* s, int64_t base, bool* good) {
    Value stripped = str_strip(in, s, v_missing(), true, true);
    const char* p = stripped.s->n ? stripped.s->p : "";
    size_t n = stripped.s->n, at = 0, from = 0;
    char* digits = jinja_new(in, n + 3);
    *good = false;
    if (n && (p[0] == '-' || p[0] == '+')) digits[at++] = p[from++];
    if (base != 10 && n - from > 2 && p[from] == '0') {
        int prefix = (p[from + 1] | 32) == 'x' ? 16 : (p[from + 1] | 32) == 'o' ? 8 : (p[from + 1] | 32) == 'b' ? 2 : 0;
        if (prefix && (prefix == base || base == 0)) {
            base = prefix;
            from += 2 + (p[from + 2] == '_');
        }
    }
    if (base == 0) {
        base = 10;
        if (n - from > 1 && p[from] == '0' && strspn(p + from, "0_") < n - from) return v_none();
    }
    if (base < 2 || base > 36) jinja_fail(in, "int() base must be >= 2 and <= 36, or 0");
    if (from == n) return v_none();
    for (size_t i = from; i < n; i++) {
        char c = p[i];
        int d = isdigit((unsigned char)c) ? c - '0' : isalpha((unsigned char)c) ? (c | 32) - 'a' + 10 : 99;
        if (c == '_' && i > from && i + 1 < n && p[i - 1] != '_') continue;
        if (d >= base) return v_none();
        digits[at++] = c;
    }
    *good = true;
    if (base == 10) return integer_from(in, digits, at, stripped.s);
    errno = 0;
    long long i = strtoll(digits, NULL, (int)base);
    if (errno) jinja_fail(in, "an integer beyond 64 bits");
    return v_int(i);
}

static Value float_to_int(Interp* in, double f) {
    if (fabs(f) >= 9.2e18) {
        char text[400];
        snprintf(text, sizeof text, "%.0f", trunc(f));
        return integer_from(in, text, strlen(text), NULL);
    }
    return v_int((int64_t)f);
}

static Value f_int(Interp* in, Value v, Value* a) {
    Value otherwise = given(a[0]) ? a[0] : v_int(0);
    double f;
    if (v.type == V_UNDEFINED) fail_undefined(in, v);
    if (v.type == V_STRING) {
        bool good;
        Value i = text_to_int(in, v.s, given(a[1]) ? index_of(in, a[1], "base") : 10, &good);
        if (good) return i;
        if (!number_from_text(v.s->n ? v.s->p : "", v.s->n, &f) || !isfinite(f)) return otherwise;
        return float_to_int(in, f);
    }
    if (v.type == V_BIG) return v;
    if (!is_number(v)) return otherwise;
    if (v.type != V_FLOAT) return v_int(v.type == V_BOOL ? v.b : v.i);
    if (isnan(v.f)) return otherwise;
    if (isinf(v.f)) jinja_fail(in, "cannot convert float infinity to integer");
    return float_to_int(in, v.f);
}

static Value f_float(Interp* in, Value v, Value* a) {
    Value otherwise = given(a[0]) ? a[0] : v_float(0.0);
    double f;
    if (v.type == V_UNDEFINED) fail_undefined(in, v);
    if (v.type == V_STRING) return number_from_text(v.s->n ? v.s->p : "", v.s->n, &f) ? v_float(f) : otherwise;
    if (v.type == V_BIG) return v_float(strtod(v.s->p, NULL));
    return is_number(v) ? v_float(number_of(v)) : otherwise;
}

static Value f_round(Interp* in, Value v, Value* a) {
    int64_t precision = given(a[0]) ? index_of(in, a[0], "round's precision") : 0;
    Str* method = given(a[1]) ? text_of(in, a[1]) : v_text(in, "common").s;
    char name[16];
    snprintf(name, sizeof name, "%.*s", (int)(method->n < 15 ? method->n : 15), method->p);
    if (strcmp(name, "common") && strcmp(name, "ceil") && strcmp(name, "floor"))
        jinja_fail(in, "method must be common, ceil or floor");
    if (v.type == V_UNDEFINED) fail_undefined(in, v);
    if (!is_number(v)) jinja_fail(in, "type %s doesn't define __round__ method", type_name(v));
    if (precision > 300 || precision < -300) jinja_fail(in, "round's precision is out of range");
    double f = number_of(v), scale = pow(10.0, (double)llabs(precision));
    if (strcmp(name, "common")) {
        double scaled = precision < 0 ? f * (1.0 / scale) : f * scale;
        scaled = *name == 'c' ? ceil(scaled) : floor(scaled);
        return v_float(precision < 0 ? scaled / (1.0 / scale) : scaled / scale);
    }
    if (v.type != V_FLOAT) {
        int64_t i = v.type == V_BOOL ? v.b : v.i;
        if (precision >= 0) return v_int(i);
        if (precision < -18) return v_int(0);
        int64_t unit = (int64_t)scale, down = i / unit * unit, rest = i - down;
        if (rest < 0) {
            rest += unit;
            down -= unit;
        }
        bool up = rest > unit - rest || (rest == unit - rest && (down / unit) % 2 != 0);
        return v_int(up ? down + unit : down);
    }
    if (!isfinite(f)) return v;
    if (precision < 0) {
        double q = f / scale, r = nearbyint(q);
        return v_float(r * scale);
    }
    char text[700];
    snprintf(text, sizeof text, "%.*f", (int)precision, f);
    return v_float(strtod(text, NULL));
}

static Value f_filesizeformat(Interp* in, Value v, Value* a) {
    static const char letters[] = "kMGTPEZY";
    bool binary_ = flag(a[0], false);
    double bytes = f_float(in, v, (Value[]){v_missing()}).f, base = binary_ ? 1024 : 1000, unit = base;
    char text[64];
    if (bytes == 1) return v_text(in, "1 Byte");
    if (bytes < base) snprintf(text, sizeof text, "%lld Bytes", (long long)bytes);
    else
        for (int i = 0; i < 8; i++) {
            unit *= base;
            snprintf(text, sizeof text, "%.1f %c%s", base * bytes / unit, binary_ && !i ? 'K' : letters[i],
                     binary_ ? "iB" : "B");
            if (bytes < unit) break;
        }
    char* copy = jinja_new(in, sizeof text);
    memcpy(copy, text, sizeof text);
    return v_text(in, copy);
}

static void put_quoted(Interp* in, Builder* b, Str* s, bool query) {
    for (size_t i = 0; i < s->n; i++) {
        unsigned char c = (unsigned char)s->p[i];
        char text[8];
        if (isalnum(c) || strchr("_.-~", c) || (c == '/' && !query)) put(in, b, s->p + i, 1, s);
        else {
            snprintf(text, sizeof text, c == ' ' && query ? "+" : "%%%02X", c);
            put(in, b, text, strlen(text), s);
        }
    }
}

static Value f_urlencode(Interp* in, Value v, Value* a) {
    (void)a;
    Builder b = {0};
    Iterator* it = v.type == V_STRING
                       ? NULL
                       : try_iterate(in, v.type == V_DICT ? (Value){.type = V_ITEMS, .dict = v.dict} : v);
    if (!it) {
        put_quoted(in, &b, text_of(in, v), false);
        return built(in, &b);
    }
    Value pair;
    for (size_t n = 0; next_item(in, it, &pair); n++) {
        if ((pair.type != V_LIST && pair.type != V_TUPLE) || pair.list->n != 2)
            jinja_fail(in, "urlencode: expected pairs");
        if (n) put_text_(in, &b, "&");
        put_quoted(in, &b, text_of(in, pair.list->v[0]), true);
        put_text_(in, &b, "=");
        put_quoted(in, &b, text_of(in, pair.list->v[1]), true);
    }
    return built(in, &b);
}

static Value f_striptags(Interp* in, Value v, Value* a) {
    (void)a;
    Str* s = text_of(in, v);
    Builder b = {0}, out = {0};
    size_t at = 0;
    for (const char* p; at < s->n && (p = memchr(s->p + at, '<', s->n - at));) {
        size_t start = (size_t)(p - s->p), end;
        bool comment = s->n - start >= 4 && !memcmp(p, "<!--", 4);
        const char* close = comment ? memmem(p + 4, s->n - start - 4, "-->", 3) : memchr(p, '>', s->n - start);
        if (!close) break;
        end = (size_t)(close - s->p) + (comment ? 3 : 1);
        put(in, &b, s->p + at, start - at, s);
        at = end;
    }
    put(in, &b, s->p + at, s->n - at, s);
    Method split = {built(in, &b), 0};
    split.id = find_method(split.self, "split");
    Value words = call_method(in, &split, &(Args){0});
    for (size_t i = 0; i < words.list->n; i++) {
        if (i) put_text_(in, &out, " ");
        put_str(in, &out, words.list->v[i].s);
    }
    Value text = built(in, &out);
    static const char* const entity[][2] = {
        {"&lt;", "<"}, {"&gt;", ">"}, {"&#39;", "'"}, {"&#34;", "\""}, {"&quot;", "\""}};
    for (size_t i = 0; i < sizeof entity / sizeof *entity; i++)
        text = str_replace(in, text.s, v_text(in, entity[i][0]).s, v_text(in, entity[i][1]).s, -1);
    Value rest = str_replace(in, text.s, v_text(in, "&amp;").s, v_text(in, "").s, -1);
    if (contains(in, v_text(in, "&"), rest)) jinja_fail(in, "striptags with that entity is not supported");
    return str_replace(in, text.s, v_text(in, "&amp;").s, v_text(in, "&").s, -1);
}

static Value f_tojson(Interp* in, Value v, Value* a) {
    Builder b = {0};
    const Str *item = NULL, *key = NULL;
    if (given(a[2]) && a[2].type != V_NONE) {
        Value l = list_of(in, a[2]);
        if (l.list->n != 2 || l.list->v[0].type != V_STRING || l.list->v[1].type != V_STRING)
            jinja_fail(in, "tojson's separators: expected two texts");
        item = l.list->v[0].s;
        key = l.list->v[1].s;
    }
    put_json(in, &b, v, given(a[1]) ? a[1] : v_none(), item, key, flag(a[0], false), flag(a[3], false));
    return built(in, &b);
}

// map, select and their kin are generators: nothing is looked at, and nothing fails, before the first item is
// asked for.
static Value generator(Interp* in, IteratorKind kind, Value v, Args* args) {
    Iterator* it = iterator_new(in, kind, v);
    it->args = *args;
    it->waiting = true;
    it->attribute = it->fallback = v_missing();
    return v_iterator(it);
}

static int by_name(Interp* in, Args* args, int (*find)(const char*), const char* what) {
    char name[64];
    Str* s = text_of(in, *args->v++);
    args->n--;
    snprintf(name, sizeof name, "%.*s", (int)(s->n < 60 ? s->n : 60), s->n ? s->p : "");
    int found = find(name);
    if (found < 0) jinja_fail(in, "No %s named '%s'.", what, name);
    return found;
}

static void begin_map(Interp* in, Iterator* it) {
    Args* args = &it->args;
    if (!args->n && args->n_named) {
        for (size_t i = 0; i < args->n_named; i++) {
            if (!strcmp(args->named[i].name, "attribute")) it->attribute = args->named[i].value;
            else if (!strcmp(args->named[i].name, "default")) it->fallback = args->named[i].value;
        }
        for (size_t i = 0; given(it->attribute) && i < args->n_named; i++)
            if (strcmp(args->named[i].name, "attribute") && strcmp(args->named[i].name, "default"))
                jinja_fail(in, "Unexpected keyword argument '%s'", args->named[i].name);
        if (given(it->attribute)) {
            it->kind = IT_MAP_ATTRIBUTE;
            return;
        }
    }
    if (!args->n) jinja_fail(in, "map requires a filter argument");
    it->builtin = by_name(in, args, find_filter, "filter");
}

static void begin_select(Interp* in, Iterator* it) {
    if (it->has_attribute) {
        if (!it->args.n) jinja_fail(in, "Missing parameter for attribute name");
        it->attribute = *it->args.v++;
        it->args.n--;
    }
    it->plain = !it->args.n;
    if (!it->plain) it->builtin = by_name(in, &it->args, find_test, "test");
}

// What a generator does when its first item is asked for.
void begin_generator(Interp* in, Iterator* it) {
    it->waiting = false;
    if ((it->kind == IT_MAP || it->kind == IT_SELECT) && !truth(it->source)) it->kind = IT_EMPTY;
    else if (it->kind == IT_MAP) begin_map(in, it);
    else if (it->kind == IT_SELECT) begin_select(in, it);
    else if (it->kind == IT_SLICES) {
        it->source = list_of(in, it->source);
        it->n = index_of(in, it->attribute, "slice's number");
        if (it->n < 1) jinja_fail(in, "slice's number is %lld, expected at least 1", (long long)it->n);
        return;
    } else if (it->kind == IT_BATCH) {
        it->n = index_of(in, it->attribute, "batch's size");
        if (it->n < 1) jinja_fail(in, "batch's size is %lld, expected at least 1", (long long)it->n);
    } else if (it->kind == IT_DICT) {
        if (it->source.type == V_UNDEFINED) it->kind = IT_EMPTY;
        else if (it->source.type != V_DICT) jinja_fail(in, "Can only get item pairs from a mapping.");
        else it->source.type = V_ITEMS;
        return;
    }
    if (it->kind != IT_EMPTY) it->inner = iterate(in, it->source);
}

static Value f_map(Interp* in, Value v, Args* args) { return generator(in, IT_MAP, v, args); }

static Value select_(Interp* in, Value v, Args* args, bool attribute, bool reject) {
    Value out = generator(in, IT_SELECT, v, args);
    out.iterator->reject = reject;
    out.iterator->has_attribute = attribute;
    return out;
}

static Value f_format(Interp* in, Value v, Args* args) {
    if (args->n && args->n_named) jinja_fail(in, "can't handle positional and keyword arguments at the same time");
    Value values = args->n_named ? v_dict(in) : v_tuple(in, args->n);
    for (size_t i = 0; i < args->n; i++) list_put(in, values.list, args->v[i]);
    for (size_t i = 0; i < args->n_named; i++)
        dict_put(in, values.dict, v_text(in, args->named[i].name), args->named[i].value);
    return format_percent(in, soft_text(in, v), values);
}

#define MOST_PARAMETERS 5
static const struct {
    const char* name;
    Filter run;  // NULL: by name in call_filter
    const char* parameters[MOST_PARAMETERS];
    int required;
} filters[] = {
    {"abs", f_abs, {0}, 0},
    {"attr", f_attr, {"name"}, 1},
    {"batch", f_batch, {"linecount", "fill_with"}, 1},
    {"capitalize", f_capitalize, {0}, 0},
    {"center", f_center, {"width"}, 0},
    {"count", f_length, {0}, 0},
    {"d", f_default, {"default_value", "boolean"}, 0},
    {"default", f_default, {"default_value", "boolean"}, 0},
    {"dictsort", f_dictsort, {"case_sensitive", "by", "reverse"}, 0},
    {"e", f_escape, {0}, 0},
    {"escape", f_escape, {0}, 0},
    {"filesizeformat", f_filesizeformat, {"binary"}, 0},
    {"first", f_first, {0}, 0},
    {"float", f_float, {"default"}, 0},
    {"forceescape", f_forceescape, {0}, 0},
    {"format", NULL, {0}, 0},
    {"groupby", f_groupby, {"attribute", "default", "case_sensitive"}, 1},
    {"indent", f_indent, {"width", "first", "blank"}, 0},
    {"int", f_int, {"default", "base"}, 0},
    {"items", f_items, {0}, 0},
    {"join", f_join, {"d", "attribute"}, 0},
    {"last", f_last, {0}, 0},
    {"length", f_length, {0}, 0},
    {"list", f_list, {0}, 0},
    {"lower", f_lower, {0}, 0},
    {"map", NULL, {0}, 0},
    {"max", f_max, {"case_sensitive", "attribute"}, 0},
    {"min", f_min, {"case_sensitive", "attribute"}, 0},
    {"reject", NULL, {0}, 0},
    {"rejectattr", NULL, {0}, 0},
    {"replace", f_replace, {"old", "new", "count"}, 2},
    {"reverse", f_reverse, {0}, 0},
    {"round", f_round, {"precision", "method"}, 0},
    {"safe", f_safe, {0}, 0},
    {"select", NULL, {0}, 0},
    {"selectattr", NULL, {0}, 0},
    {"slice", f_slice, {"slices", "fill_with"}, 1},
    {"sort", f_sort, {"reverse", "case_sensitive", "attribute"}, 0},
    {"string", f_string, {0}, 0},
    {"striptags", f_striptags, {0}, 0},
    {"sum", f_sum, {"attribute", "start"}, 0},
    {"title", f_title, {0}, 0},
    {"tojson", f_tojson, {"ensure_ascii", "indent", "separators", "sort_keys"}, 0},
    {"trim", f_trim, {"chars"}, 0},
    {"truncate", f_truncate, {"length", "killwords", "end", "leeway"}, 0},
    {"unique", f_unique, {"case_sensitive", "attribute"}, 0},
    {"upper", f_upper, {0}, 0},
    {"urlencode", f_urlencode, {0}, 0},
    {"wordcount", f_wordcount, {0}, 0},
    // Jinja has these, but they are chance, or make HTML or wrapped text
    {"pprint", NULL, {0}, -1},
    {"random", NULL, {0}, -1},
    {"urlize", NULL, {0}, -1},
    {"wordwrap", NULL, {0}, -1},
    {"xmlattr", NULL, {0}, -1},
};

int find_filter(const char* name) {
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (!strcmp(filters[i].name, name)) return (int)i;
    return -1;
}

Value call_filter(Interp* in, int filter, Value v, Args* args) {
    const char* name = filters[filter].name;
    Value a[MOST_PARAMETERS];
    int n = 0;
    jinja_work(in, 0);
    if (filters[filter].required < 0) jinja_fail(in, "the filter %s is not supported", name);
    if (!filters[filter].run) {
        if (!strcmp(name, "map")) return f_map(in, v, args);
        if (!strcmp(name, "format")) return f_format(in, v, args);
        return select_(in, v, args, strstr(name, "attr") != NULL, *name == 'r');
    }
    while (n < MOST_PARAMETERS && filters[filter].parameters[n]) n++;
    bind_arguments(in, name, args, filters[filter].parameters, n, filters[filter].required, a);
    return filters[filter].run(in, v, a);
}
