/* Jinja's tests ("x is defined") and the functions that every template can call. */
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include "tokenizer_internal.h"
#include "jinja_internal.h"

#define MAX_RANGE 100000  // of the sandbox

// ---- tests -----------------------------------------------------------------------------------------

enum {
    T_odd,
    T_even,
    T_divisibleby,
    T_defined,
    T_undefined,
    T_filter,
    T_test,
    T_none,
    T_boolean,
    T_false,
    T_true,
    T_integer,
    T_float,
    T_lower,
    T_upper,
    T_string,
    T_mapping,
    T_number,
    T_sequence,
    T_iterable,
    T_callable,
    T_sameas,
    T_escaped,
    T_in,
    T_eq,
    T_ne,
    T_gt,
    T_ge,
    T_lt,
    T_le
};
static const struct {
    const char* name;
    int id, arguments;
} tests[] = {
    {"odd", T_odd, 0},
    {"even", T_even, 0},
    {"divisibleby", T_divisibleby, 1},
    {"defined", T_defined, 0},
    {"undefined", T_undefined, 0},
    {"filter", T_filter, 0},
    {"test", T_test, 0},
    {"none", T_none, 0},
    {"boolean", T_boolean, 0},
    {"false", T_false, 0},
    {"true", T_true, 0},
    {"integer", T_integer, 0},
    {"float", T_float, 0},
    {"lower", T_lower, 0},
    {"upper", T_upper, 0},
    {"string", T_string, 0},
    {"mapping", T_mapping, 0},
    {"number", T_number, 0},
    {"sequence", T_sequence, 0},
    {"iterable", T_iterable, 0},
    {"callable", T_callable, 0},
    {"sameas", T_sameas, 1},
    {"escaped", T_escaped, 0},
    {"in", T_in, 1},
    {"==", T_eq, 1},
    {"eq", T_eq, 1},
    {"equalto", T_eq, 1},
    {"!=", T_ne, 1},
    {"ne", T_ne, 1},
    {">", T_gt, 1},
    {"gt", T_gt, 1},
    {"greaterthan", T_gt, 1},
    {"ge", T_ge, 1},
    {">=", T_ge, 1},
    {"<", T_lt, 1},
    {"lt", T_lt, 1},
    {"lessthan", T_lt, 1},
    {"<=", T_le, 1},
    {"le", T_le, 1},
};

int find_test(const char* name) {
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (!strcmp(tests[i].name, name)) return (int)i;
    return -1;
}

static bool same_object(Value a, Value b) {
    if (a.type != b.type) return false;
    switch (a.type) {
        case V_NONE: return true;
        case V_BOOL: return a.b == b.b;
        case V_INT: return a.i == b.i && a.i >= -5 && a.i <= 256;
        case V_STRING: return a.s == b.s || (a.s->n == b.s->n && a.s->n <= 1 && (!a.s->n || *a.s->p == *b.s->p));
        case V_FLOAT: return false;
        default: return a.dict == b.dict;
    }
}

static bool found_by_name(Interp* in, Value v, int (*find)(const char*)) {
    char name[64];
    must_hash(in, v);
    if (v.type != V_STRING || v.s->n >= sizeof name) return false;
    memcpy(name, v.s->p, v.s->n);
    name[v.s->n] = 0;
    return find(name) >= 0;
}

bool call_test(Interp* in, int test, Value v, Args* args) {
    static const char* const names[] = {"other"};
    Value a[1];
    bind_arguments(in, tests[test].name, args,
                   tests[test].id == T_divisibleby ? (const char* const[]){"num"}
                   : tests[test].id == T_in        ? (const char* const[]){"seq"}
                                                   : names,
                   tests[test].arguments, tests[test].arguments, a);
    jinja_work(in, 0);
    static int islower_, isupper_;
    if (!islower_) {
        Str s = {0};
        islower_ = find_method((Value){.type = V_STRING, .s = &s}, "islower");
        isupper_ = find_method((Value){.type = V_STRING, .s = &s}, "isupper");
    }
    switch (tests[test].id) {
        case T_odd: return equal(in, binary(in, OP_MOD, v, v_int(2)), v_int(1));
        case T_even: return equal(in, binary(in, OP_MOD, v, v_int(2)), v_int(0));
        case T_divisibleby: return equal(in, binary(in, OP_MOD, v, a[0]), v_int(0));
        case T_defined: return v.type != V_UNDEFINED;
        case T_undefined: return v.type == V_UNDEFINED;
        case T_filter: return found_by_name(in, v, find_filter);
        case T_test: return found_by_name(in, v, find_test);
        case T_none: return v.type == V_NONE;
        case T_boolean: return v.type == V_BOOL;
        case T_false: return v.type == V_BOOL && !v.b;
        case T_true: return v.type == V_BOOL && v.b;
        case T_integer: return v.type == V_INT || v.type == V_BIG;
        case T_float: return v.type == V_FLOAT;
        case T_lower: return str_is(text_of(in, v), islower_);
        case T_upper: return str_is(text_of(in, v), isupper_);
        case T_string: return v.type == V_STRING;
        case T_mapping: return v.type == V_DICT;
        case T_number: return is_number(v) || v.type == V_BIG;
        case T_sequence:
            return v.type == V_STRING || v.type == V_LIST || v.type == V_TUPLE || v.type == V_DICT ||
                   v.type == V_RANGE || v.type == V_UNDEFINED;
        case T_iterable: return v.type == V_LOOP || try_iterate(in, v) != NULL;
        case T_callable:
            return v.type == V_FUNCTION || v.type == V_METHOD || v.type == V_MACRO || v.type == V_JOINER ||
                   v.type == V_LOOP || v.type == V_UNDEFINED;
        case T_sameas: return same_object(v, a[0]);
        case T_escaped: return v.type == V_STRING && v.s->markup;
        case T_in: return contains(in, v, a[0]);
        case T_eq: return equal(in, v, a[0]);
        case T_ne: return !equal(in, v, a[0]);
        case T_gt: return less(in, a[0], v, ">");
        case T_lt: return less(in, v, a[0], "<");
        case T_ge: return less(in, a[0], v, ">=") || equal(in, v, a[0]);
        default: return less(in, v, a[0], "<=") || equal(in, v, a[0]);
    }
}

// ---- functions -------------------------------------------------------------------------------------

enum { G_range, G_dict, G_namespace, G_cycler, G_joiner, G_raise_exception, G_strftime_now, G_lipsum };
static const char* const globals[] = {"range",           "dict",         "namespace", "cycler", "joiner",
                                      "raise_exception", "strftime_now", "lipsum"};

int find_global(const char* name) {
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (!strcmp(globals[i], name)) return (int)i;
    return -1;
}

static Value make_range(Interp* in, Args* args) {
    if (args->n_named) jinja_fail(in, "range() takes no keyword arguments");
    if (!args->n || args->n > 3) jinja_fail(in, "range expected 1 to 3 arguments, got %zu", args->n);
    int64_t i[3];
    for (size_t k = 0; k < args->n; k++) i[k] = index_of(in, args->v[k], "range");
    RangeValue* r = jinja_new(in, sizeof *r);
    *r = (RangeValue){args->n > 1 ? i[0] : 0, args->n > 1 ? i[1] : i[0], args->n > 2 ? i[2] : 1, 0};
    if (!r->step) jinja_fail(in, "range() arg 3 must not be zero");
    __int128 n = r->step > 0 ? ((__int128)r->stop - r->start + r->step - 1) / r->step
                             : ((__int128)r->start - r->stop - r->step - 1) / -(__int128)r->step;
    if (n > MAX_RANGE)
        jinja_fail(in, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", MAX_RANGE);
    r->n = n > 0 ? (int64_t)n : 0;
    return (Value){.type = V_RANGE, .range = r};
}

static Value make_dict(Interp* in, Args* args, const char* what) {
    Value d = v_dict(in);
    if (args->n > 1) jinja_fail(in, "%s expected at most 1 argument, got %zu", what, args->n);
    if (args->n && (args->v[0].type == V_DICT || args->v[0].type == V_NAMESPACE)) {
        if (args->v[0].type == V_NAMESPACE) jinja_fail(in, "'Namespace' object is not iterable");
        for (size_t i = 0; i < args->v[0].dict->n; i++)
            dict_put(in, d.dict, args->v[0].dict->pair[i].key, args->v[0].dict->pair[i].value);
    } else if (args->n) {
        Value pair;
        for (Iterator* it = iterate(in, args->v[0]); next_item(in, it, &pair);) {
            Value l = list_of(in, pair);
            if (l.list->n != 2) jinja_fail(in, "%s: expected pairs, got an element of length %zu", what, l.list->n);
            dict_put(in, d.dict, l.list->v[0], l.list->v[1]);
        }
    }
    for (size_t i = 0; i < args->n_named; i++)
        dict_put(in, d.dict, v_text(in, args->named[i].name), args->named[i].value);
    return d;
}

static Value strftime_now(Interp* in, Args* args) {
    static const char* const names[] = {"format"};
    Value a[1];
    bind_arguments(in, "strftime_now", args, names, 1, 1, a);
    if (a[0].type != V_STRING) jinja_fail(in, "strftime_now: expected a text, got %s", type_name(a[0]));
    struct timeval now;
    gettimeofday(&now, NULL);
    const char* fixed = getenv("SOURCE_DATE_EPOCH");  // as reproducible builds have it: the same text at any time
    if (fixed && *fixed) now = (struct timeval){.tv_sec = atoll(fixed)};
    struct tm parts;
    if (!localtime_r(&now.tv_sec, &parts)) jinja_fail(in, "strftime_now: the time cannot be told");
    Builder b = {0};
    Str* format = a[0].s;
    for (size_t i = 0; i < format->n;) {
        char one[8] = {'%'}, text[256] = "";
        if (format->p[i] != '%' || i + 1 == format->n) {
            put(in, &b, format->p + i++, 1, format);
            continue;
        }
        size_t n = 2 + (format->p[i + 1] == '-' || format->p[i + 1] == '_' || format->p[i + 1] == '0' ||
                        format->p[i + 1] == '^' || format->p[i + 1] == '#');
        if (i + n > format->n) n = format->n - i;
        memcpy(one, format->p + i, n);
        if (one[n - 1] == 'f') snprintf(text, sizeof text, "%06ld", (long)now.tv_usec);
        else if (one[n - 1] == 'z' || one[n - 1] == 'Z') *text = 0;  // a time without zone has none
        else if (!strftime(text, sizeof text, one, &parts)) *text = 0;
        put_text_(in, &b, text);
        i += n;
    }
    return built(in, &b);
}

Value call_global(Interp* in, int function, Args* args) {
    static const char* const messages[] = {"message"};
    static const char* const separators[] = {"sep"};
    Value a[1];
    switch (function) {
        case G_range: return make_range(in, args);
        case G_dict: return make_dict(in, args, "dict");
        case G_namespace: {
            Value d = make_dict(in, args, "namespace");
            d.type = V_NAMESPACE;
            return d;
        }
        case G_cycler: {
            if (args->n_named) jinja_fail(in, "cycler takes no keyword arguments");
            if (!args->n) jinja_fail(in, "at least one item has to be provided");
            Cycler* c = jinja_new(in, sizeof *c);
            c->v = jinja_new(in, args->n * sizeof *c->v);
            memcpy(c->v, args->v, args->n * sizeof *c->v);
            c->n = args->n;
            return (Value){.type = V_CYCLER, .cycler = c};
        }
        case G_joiner: {
            bind_arguments(in, "joiner", args, separators, 1, 0, a);
            Joiner* j = jinja_new(in, sizeof *j);
            j->separator = given(a[0]) ? a[0] : v_text(in, ", ");
            return (Value){.type = V_JOINER, .joiner = j};
        }
        case G_raise_exception: {
            bind_arguments(in, "raise_exception", args, messages, 1, 1, a);
            Str* s = text_of(in, a[0]);
            jinja_fail(in, "%.*s", (int)(s->n < 400 ? s->n : 400), s->n ? s->p : "");
        }
        case G_strftime_now: return strftime_now(in, args);
        default: jinja_fail(in, "the function %s is not supported", globals[function]);
    }
}
