/*
What a value of a template can do: bind arguments to parameters, iterate, give its attributes and items, call methods.
*/
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include "tokenizer_internal.h"
#include "jinja_internal.h"

// Arguments to parameters: names[0, n), the first `required` of which must be given.
void bind_arguments(Interp* in, const char* what, Args* args, const char* const* names, int n, int required,
                    Value* out) {
    for (int i = 0; i < n; i++) out[i] = v_missing();
    if (args->n > (size_t)n) jinja_fail(in, "%s takes %d argument(s), %zu given", what, n, args->n);
    for (size_t i = 0; i < args->n; i++) out[i] = args->v[i];
    for (size_t k = 0; k < args->n_named; k++) {
        int i = 0;
        while (i < n && strcmp(names[i], args->named[k].name)) i++;
        if (i == n) jinja_fail(in, "%s got an unexpected keyword argument '%s'", what, args->named[k].name);
        if (given(out[i])) jinja_fail(in, "%s got multiple values for argument '%s'", what, names[i]);
        out[i] = args->named[k].value;
    }
    for (int i = 0; i < required; i++)
        if (!given(out[i])) jinja_fail(in, "%s: the argument '%s' is missing", what, names[i]);
}

// ---- iteration -------------------------------------------------------------------------------------

Iterator* iterator_new(Interp* in, IteratorKind kind, Value source) {
    Iterator* it = jinja_new(in, sizeof *it);
    it->kind = kind;
    it->source = source;
    return it;
}
Iterator* try_iterate(Interp* in, Value v) {
    switch (v.type) {
        case V_UNDEFINED: return iterator_new(in, IT_EMPTY, v);
        case V_STRING: return iterator_new(in, IT_STRING, v);
        case V_LIST:
        case V_TUPLE: return iterator_new(in, IT_LIST, v);
        case V_DICT:
        case V_KEYS:
        case V_VALUES:
        case V_ITEMS: return iterator_new(in, IT_DICT, v);
        case V_RANGE: return iterator_new(in, IT_RANGE, v);
        case V_ITERATOR: return v.iterator;
        case V_LOOP: jinja_fail(in, "iteration over loop is not supported");
        default: return NULL;
    }
}

Iterator* iterate(Interp* in, Value v) {
    Iterator* it = try_iterate(in, v);
    if (!it) jinja_fail(in, "'%s' object is not iterable", type_name(v));
    return it;
}

Value item_pair(Interp* in, const Pair* p) {
    Value t = v_tuple(in, 2);
    list_put(in, t.list, p->key);
    list_put(in, t.list, p->value);
    return t;
}

static Value of_dict(Interp* in, Value view, size_t i) {
    const Pair* p = &view.dict->pair[i];
    return view.type == V_VALUES ? p->value : view.type == V_ITEMS ? item_pair(in, p) : p->key;
}

Value ignore_case(Interp* in, Value v) { return v.type == V_STRING ? str_lower(in, v.s) : v; }

// make_attrgetter: "a.b.0" step by step; fallback where a step finds nothing.
Value follow_attribute(Interp* in, Value v, Value attribute, Value fallback) {
    if (!given(attribute) || attribute.type == V_NONE) return v;
    if (attribute.type != V_STRING) {
        v = get_item(in, v, attribute);
        return v.type == V_UNDEFINED && given(fallback) && fallback.type != V_NONE ? fallback : v;
    }
    Str* s = attribute.s;
    for (size_t from = 0; from <= s->n;) {
        const char* dot = s->n > from ? memchr(s->p + from, '.', s->n - from) : NULL;
        size_t to = dot ? (size_t)(dot - s->p) : s->n;
        bool digits = to > from && to - from < 18;
        int64_t number = 0;
        for (size_t i = from; i < to; i++) {
            digits &= isdigit((unsigned char)s->p[i]) != 0;
            if (digits) number = number * 10 + s->p[i] - '0';
        }
        v = get_item(in, v, digits ? v_int(number) : v_part(in, s, from, to));
        if (v.type == V_UNDEFINED && given(fallback) && fallback.type != V_NONE) v = fallback;
        from = to + 1;
    }
    return v;
}

static Value take_batch(Interp* in, Iterator* it, bool* any) {
    Value l = v_list(in, 0), v;
    while ((int64_t)l.list->n < it->n && next_item(in, it->inner, &v)) list_put(in, l.list, v);
    *any = l.list->n > 0;
    while (*any && given(it->fallback) && it->fallback.type != V_NONE && (int64_t)l.list->n < it->n)
        list_put(in, l.list, it->fallback);
    return l;
}

bool next_item(Interp* in, Iterator* it, Value* v) {
    Value x;
    jinja_work(in, 0);
    if (it->waiting) begin_generator(in, it);
    switch (it->kind) {
        case IT_EMPTY: return false;
        case IT_LIST:
            if (it->at >= (int64_t)it->source.list->n) return false;
            *v = it->source.list->v[it->at++];
            return true;
        case IT_STRING: {
            Str* s = it->source.s;
            int32_t c;
            if (it->at >= (int64_t)s->n) return false;
            int n = char_at(s->p + it->at, s->p + s->n, &c);
            *v = v_part(in, s, (size_t)it->at, (size_t)it->at + (size_t)n);
            v->s->markup = false;  // iteration over Markup gives str
            it->at += n;
            return true;
        }
        case IT_DICT:
            if (it->at >= (int64_t)it->source.dict->n) return false;
            *v = of_dict(in, it->source, (size_t)it->at++);
            return true;
        case IT_RANGE:
            if (it->at >= it->source.range->n) return false;
            *v = v_int(it->source.range->start + it->at++ * it->source.range->step);
            return true;
        case IT_REVERSED:
            if (it->at < 0) return false;
            *v = it->source.type == V_RANGE ? v_int(it->source.range->start + it->at * it->source.range->step)
                 : it->source.type == V_LIST || it->source.type == V_TUPLE ? it->source.list->v[it->at]
                                                                           : of_dict(in, it->source, (size_t)it->at);
            it->at--;
            return true;
        case IT_MAP: {
            if (!next_item(in, it->inner, &x)) return false;
            Args args = it->args;
            *v = call_filter(in, it->builtin, x, &args);
            return true;
        }
        case IT_MAP_ATTRIBUTE:
            if (!next_item(in, it->inner, &x)) return false;
            *v = follow_attribute(in, x, it->attribute, it->fallback);
            return true;
        case IT_SELECT:
            while (next_item(in, it->inner, &x)) {
                Value tested = it->has_attribute ? follow_attribute(in, x, it->attribute, v_missing()) : x;
                Args args = it->args;
                if ((it->plain ? truth(tested) : call_test(in, it->builtin, tested, &args)) != it->reject) {
                    *v = x;
                    return true;
                }
            }
            return false;
        case IT_UNIQUE:
            while (next_item(in, it->inner, &x)) {
                Value key = follow_attribute(in, x, it->attribute, v_missing());
                if (it->insensitive) key = ignore_case(in, key);
                if (dict_get(in, it->seen, key)) continue;
                dict_put(in, it->seen, key, v_none());
                *v = x;
                return true;
            }
            return false;
        case IT_BATCH: {
            bool any;
            *v = take_batch(in, it, &any);
            return any;
        }
        case IT_SLICES: {
            if (it->at >= it->n) return false;
            List* all = it->source.list;
            int64_t each = (int64_t)all->n / it->n, extra = (int64_t)all->n % it->n, at = it->at++;
            int64_t from = at * each + (at < extra ? at : extra), to = from + each + (at < extra);
            *v = v_list(in, (size_t)(to - from));
            for (int64_t i = from; i < to; i++) list_put(in, v->list, all->v[i]);
            if (given(it->fallback) && it->fallback.type != V_NONE && at >= extra) list_put(in, v->list, it->fallback);
            return true;
        }
        case IT_FILTERED:
            while (next_item(in, it->inner, &x))
                if (filter_test(in, it, x)) {
                    *v = x;
                    return true;
                }
            return false;
    }
    return false;
}

Value list_of(Interp* in, Value v) {
    Value l = v_list(in, v.type == V_LIST || v.type == V_TUPLE ? v.list->n : 0), x;
    for (Iterator* it = iterate(in, v); next_item(in, it, &x);) list_put(in, l.list, x);
    return l;
}

// ---- attributes and items --------------------------------------------------------------------------

static const char* object_name(Interp* in, Value v) {
    if (v.type == V_NONE) return "None";
    static const char* const runtime = "jinja2.runtime.";
    const char* name = type_name(v);
    bool jinja = v.type == V_MACRO || v.type == V_LOOP || v.type == V_UNDEFINED;
    bool utils = v.type == V_NAMESPACE || v.type == V_CYCLER || v.type == V_JOINER;
    bool markup = v.type == V_STRING && v.s->markup;
    char* text = jinja_new(in, 80);
    snprintf(text, 80, "%s%s object", jinja ? runtime : utils ? "jinja2.utils." : markup ? "markupsafe." : "", name);
    return text;
}

Value no_such_item(Interp* in, Value v, Value name, bool unsafe) {
    Value u = v_undefined(in, NULL);
    u.undef->owner = unsafe ? type_name(v) : object_name(in, v);
    u.undef->name = name;
    u.undef->unsafe = unsafe;
    return u;
}

// An attribute that the value's type has; false: it has none of that name.
bool own_attribute(Interp* in, Value v, const char* name, Value name_value, Value* out) {
    int method = find_method(v, name);
    if (method == METHOD_REFUSED) {
        *out = no_such_item(in, v, name_value, true);
        return true;
    }
    if (method >= 0) {
        Method* m = jinja_new(in, sizeof *m);
        *m = (Method){v, method};
        *out = (Value){.type = V_METHOD, .method = m};
        return true;
    }
    if (v.type == V_NAMESPACE) {
        const Value* found = dict_get_text(in, v.dict, name);
        if (!found) return false;
        *out = *name == '_' ? no_such_item(in, v, name_value, true) : *found;
        return true;
    }
    size_t length = strlen(name);
    if (length > 4 && !strncmp(name, "__", 2) && !strcmp(name + length - 2, "__")) {
        static const char* const every[] = {
            "__class__",        "__doc__",          "__dir__",     "__init__",    "__eq__",  "__hash__",
            "__str__",          "__repr__",         "__format__",  "__reduce__",  "__new__", "__sizeof__",
            "__getattribute__", "__subclasshook__", "__setattr__", "__delattr__", "__ne__",  "__lt__",
            "__le__",           "__gt__",           "__ge__"};
        for (size_t i = 0; i < sizeof every / sizeof *every; i++)
            if (!strcmp(name, every[i])) {
                *out = no_such_item(in, v, name_value, true);
                return true;
            }
        return false;
    }
    switch (v.type) {
        case V_BOOL:
        case V_INT:
        case V_BIG:
        case V_FLOAT: {
            Value plain = v.type == V_BOOL ? v_int(v.b) : v;
            if (!strcmp(name, "real") || (v.type != V_FLOAT && !strcmp(name, "numerator"))) *out = plain;
            else if (!strcmp(name, "imag")) *out = v.type == V_FLOAT ? v_float(0.0) : v_int(0);
            else if (v.type != V_FLOAT && !strcmp(name, "denominator")) *out = v_int(1);
            else return false;
            return true;
        }
        case V_TUPLE:
            if (!v.list->group || (strcmp(name, "grouper") && strcmp(name, "list"))) return false;
            *out = v.list->v[*name == 'l'];
            return true;
        case V_RANGE:
            if (!strcmp(name, "start")) *out = v_int(v.range->start);
            else if (!strcmp(name, "stop")) *out = v_int(v.range->stop);
            else if (!strcmp(name, "step")) *out = v_int(v.range->step);
            else return false;
            return true;
        case V_MACRO:
            if (!strcmp(name, "name")) *out = v.macro->name ? v_text(in, v.macro->name) : v_none();
            else if (!strcmp(name, "caller")) *out = v_bool(v.macro->node->flag);
            else if (!strcmp(name, "catch_kwargs")) *out = v_bool(v.macro->node->kwargs);
            else if (!strcmp(name, "catch_varargs")) *out = v_bool(v.macro->node->varargs);
            else if (!strcmp(name, "arguments")) {
                *out = v_tuple(in, (size_t)v.macro->node->other.n);
                for (int i = 0; i < v.macro->node->other.n; i++)
                    list_put(in, out->list, v_text(in, v.macro->node->other.v[i]->name));
            } else return false;
            return true;
        case V_LOOP: *out = loop_attribute(in, v.loop, name); return given(*out);
        case V_CYCLER:
            if (!strcmp(name, "current")) *out = v.cycler->v[v.cycler->at];
            else if (!strcmp(name, "pos")) *out = v_int((int64_t)v.cycler->at);
            else return false;
            return true;
        case V_JOINER:
            if (!strcmp(name, "sep")) *out = v.joiner->separator;
            else if (!strcmp(name, "used")) *out = v_bool(v.joiner->used);
            else return false;
            return true;
        default: return false;
    }
}

// obj[key]; false: Python would raise TypeError or LookupError.
static bool own_item(Interp* in, Value v, Value key, Value* out) {
    switch (v.type) {
        case V_UNDEFINED: fail_undefined(in, v);
        case V_DICT: {
            if (key.type == V_LIST || key.type == V_DICT) return false;
            const Value* found = dict_get(in, v.dict, key);
            if (found) *out = *found;
            return found != NULL;
        }
        case V_LIST:
        case V_TUPLE:
        case V_STRING:
        case V_RANGE: {
            if (key.type != V_INT && key.type != V_BOOL) return false;
            int64_t i = key.type == V_BOOL ? key.b : key.i, n = value_length(in, v);
            if (i < 0) i += n;
            if (i < 0 || i >= n) return false;
            if (v.type == V_RANGE) *out = v_int(v.range->start + i * v.range->step);
            else if (v.type == V_STRING) {
                size_t at = str_offset(v.s, i);
                int32_t c;
                *out = v_part(in, v.s, at, at + (size_t)char_at(v.s->p + at, v.s->p + v.s->n, &c));
            } else *out = v.list->v[i];
            return true;
        }
        default: return false;
    }
}

Value get_attribute(Interp* in, Value v, const char* name, Value name_value) {
    Value out;
    if (v.type == V_DICT) {  // most often by far: an item whose name no method has
        if (own_attribute(in, v, name, name_value, &out) || own_item(in, v, name_value, &out)) return out;
        return no_such_item(in, v, name_value, false);
    }
    if (v.type == V_UNDEFINED) fail_undefined(in, v);
    if (own_attribute(in, v, name, name_value, &out) || own_item(in, v, name_value, &out)) return out;
    return no_such_item(in, v, name_value, false);
}

Value get_item(Interp* in, Value v, Value key) {
    Value out;
    if (own_item(in, v, key, &out)) return out;
    if (key.type == V_STRING) {
        char name[64];
        if (key.s->n < sizeof name && !memchr(key.s->n ? key.s->p : "", 0, key.s->n)) {
            memcpy(name, key.s->p, key.s->n);
            name[key.s->n] = 0;
            if (own_attribute(in, v, name, key, &out)) return out;
        }
    }
    return no_such_item(in, v, key, false);
}

// ---- methods of other values than texts ------------------------------------------------------------

static Value list_index(Interp* in, Value v, Args* args, bool count) {
    static const char* const names[] = {"x", "start", "stop"};
    Value a[3] = {v_missing(), v_missing(), v_missing()};
    bind_arguments(in, count ? "count" : "index", args, names, count ? 1 : 3, 1, a);
    int64_t n = (int64_t)v.list->n, from = given(a[1]) ? index_of(in, a[1], "start") : 0,
            to = given(a[2]) ? index_of(in, a[2], "stop") : n, found = 0;
    from = from < 0 ? (from + n < 0 ? 0 : from + n) : from;
    to = to < 0 ? to + n : to > n ? n : to;
    for (int64_t i = from; i < to; i++)
        if (equal(in, v.list->v[i], a[0])) {
            if (!count) return v_int(i);
            found++;
        }
    if (!count) jinja_fail(in, v.type == V_LIST ? "the value is not in list" : "tuple.index(x): x not in tuple");
    return v_int(found);
}

Value call_method(Interp* in, Method* m, Args* args) {
    static const char* const gets[] = {"key", "default"};
    if (m->self.type == V_STRING) return str_method(in, m->self.s, m->id, args);
    const char* name = method_name(m->id);
    Value a[2], self = m->self;
    switch (self.type) {
        case V_DICT:
            if (!strcmp(name, "get")) {
                if (args->n_named) jinja_fail(in, "dict.get() takes no keyword arguments");
                bind_arguments(in, name, args, gets, 2, 1, a);
                const Value* found = dict_get(in, self.dict, a[0]);
                return found ? *found : given(a[1]) ? a[1] : v_none();
            }
            if (!strcmp(name, "fromkeys")) break;
            bind_arguments(in, name, args, NULL, 0, 0, a);
            if (!strcmp(name, "copy")) {
                Value copy = v_dict(in);
                for (size_t i = 0; i < self.dict->n; i++)
                    dict_put(in, copy.dict, self.dict->pair[i].key, self.dict->pair[i].value);
                return copy;
            }
            return (Value){.type = *name == 'k' ? V_KEYS : *name == 'v' ? V_VALUES : V_ITEMS, .dict = self.dict};
        case V_LIST:
        case V_TUPLE:
            if (strcmp(name, "copy")) return list_index(in, self, args, *name == 'c');
            bind_arguments(in, name, args, NULL, 0, 0, a);
            return list_of(in, self);
        case V_LOOP: return call_loop_method(in, self.loop, !strcmp(name, "cycle"), args);
        case V_CYCLER: {
            bind_arguments(in, name, args, NULL, 0, 0, a);
            if (*name == 'r') {
                self.cycler->at = 0;
                return v_none();
            }
            Value v = self.cycler->v[self.cycler->at];
            self.cycler->at = (self.cycler->at + 1) % self.cycler->n;
            return v;
        }
        case V_BOOL:
        case V_INT: {
            int64_t i = self.type == V_BOOL ? self.b : self.i;
            uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
            if (strcmp(name, "bit_count") && strcmp(name, "bit_length") && strcmp(name, "conjugate")) break;
            bind_arguments(in, name, args, NULL, 0, 0, a);
            if (*name == 'c') return v_int(i);
            return v_int(!strcmp(name, "bit_count") ? __builtin_popcountll(u) : u ? 64 - __builtin_clzll(u) : 0);
        }
        case V_FLOAT:
            if (strcmp(name, "is_integer")) break;
            bind_arguments(in, name, args, NULL, 0, 0, a);
            return v_bool(isfinite(self.f) && self.f == floor(self.f));
        default: break;
    }
    jinja_fail(in, "the method %s of %s is not supported", name, type_name(self));
}
