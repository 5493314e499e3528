/* Chat templates run: expressions and statements over the tree that jinja_parse.c makes. See jinja.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "tokenizer_internal.h"
#include "jinja_internal.h"

#define MOST_SOURCE (4 << 20)

static const JinjaLimits default_limits = {.steps = 50000000, .memory = (size_t)1 << 30, .depth = 600};

void jinja_no_memory(Interp* in) { jinja_fail(in, "needs more than %zu MB of memory", in->arena.limit >> 20); }

void jinja_fail(Interp* in, const char* format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(in->error, in->error_size, format, args);
    va_end(args);
    for (char* p = in->error; *p; p++)
        if (*p == '\n' || *p == '\r') *p = ' ';  // one line, whatever a template raises
    char where[160];
    snprintf(where, sizeof where, " (%.100s, line %d)", in->t->name, in->line);
    size_t n = strlen(in->error), room = strlen(where) + 1;
    if (in->error_size > room) {
        if (n > in->error_size - room) n = in->error_size - room;
        while (n && ((unsigned char)in->error[n] & 0xC0) == 0x80) n--;
        memcpy(in->error + n, where, room);
    }
    longjmp(in->out_of_it, 1);
}

// Whether body came to its end; jinja_fail leaves it.
static bool attempt(Interp* in, bool (*body)(Interp* in, void* argument), void* argument) {
    if (setjmp(in->out_of_it)) return false;
    return body(in, argument);
}

// ---- expressions -----------------------------------------------------------------------------------

static Value eval(Interp* in, const Node* n);
typedef enum { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE } Flow;
static Flow run(Interp* in, const NodeList* body);

static Value* slot_of(Interp* in, Variable v) {
    Activation* a = in->act;
    for (int i = 0; i < v.hops; i++) a = a->outer;
    return &a->slot[v.slot];
}

static Value resolve(Interp* in, const char* name) {
    const Value* v = in->row ? dict_get_text(in, in->row, name) : NULL;
    if (!v && in->variables) v = dict_get_text(in, in->variables, name);
    if (v) return *v;
    int global = find_global(name);
    return global < 0 ? v_missing() : (Value){.type = V_FUNCTION, .function = global};
}

static void enter_scope(Interp* in, const Scope* s) {
    for (int i = 0; i < s->n; i++) {
        const Load* l = &s->load[i];
        in->act->slot[l->slot] = l->kind == LOAD_RESOLVE ? resolve(in, l->name)
                                 : l->kind == LOAD_ALIAS ? *slot_of(in, l->from)
                                                         : v_missing();
    }
}

static Activation* activation(Interp* in, Activation* outer, int slots) {
    Activation* a = jinja_new(in, sizeof *a + (size_t)(slots + 1) * sizeof *a->slot);
    a->outer = outer;
    return a;
}

static void deeper(Interp* in) {
    if (++in->depth > in->limits.depth) jinja_fail(in, "recursion deeper than %d", in->limits.depth);
}

static void eval_args(Interp* in, const Node* n, Args* args, const Value* caller) {
    Value list = v_missing(), dict = v_missing();
    if (n->star) list = eval(in, n->star);
    size_t n_named = (size_t)n->n_keywords + 1;
    args->v = NULL;
    args->n = args->n_named = 0;
    List* positional = n->items.n || n->star ? v_list(in, (size_t)n->items.n).list : NULL;
    for (int i = 0; i < n->items.n; i++) list_put(in, positional, eval(in, n->items.v[i]));
    if (given(list)) {
        Value v;
        for (Iterator* it = iterate(in, list); next_item(in, it, &v);) list_put(in, positional, v);
    }
    if (positional) {
        args->v = positional->v;
        args->n = positional->n;
    }
    if (n->star2) {
        dict = eval(in, n->star2);
        if (dict.type != V_DICT) jinja_fail(in, "argument after ** must be a mapping, not %s", type_name(dict));
        n_named += dict.dict->n;
    }
    if (!n->n_keywords && !given(dict) && !caller) return;
    args->named = jinja_new(in, n_named * sizeof *args->named);
    for (int i = 0; i < n->n_keywords; i++) {
        args->named[args->n_named].name = n->keyword[i].key;
        args->named[args->n_named++].value = eval(in, n->keyword[i].value);
    }
    if (caller) {
        args->named[args->n_named].name = "caller";
        args->named[args->n_named++].value = *caller;
    }
    for (size_t i = 0; given(dict) && i < dict.dict->n; i++) {
        Value key = dict.dict->pair[i].key;
        if (key.type != V_STRING) jinja_fail(in, "keywords must be strings");
        char* name = jinja_new(in, key.s->n + 1);
        memcpy(name, key.s->p, key.s->n);
        for (size_t k = 0; k < args->n_named; k++)
            if (!strcmp(args->named[k].name, name))
                jinja_fail(in, "got multiple values for keyword argument '%s'", name);
        args->named[args->n_named].name = name;
        args->named[args->n_named++].value = dict.dict->pair[i].value;
    }
}

static Value take_named(Args* args, const char* name) {
    for (size_t i = 0; i < args->n_named; i++)
        if (!strcmp(args->named[i].name, name)) {
            Value v = args->named[i].value;
            args->named[i] = args->named[--args->n_named];
            return v;
        }
    return v_missing();
}

// What a body prints, as a text.
static Value captured(Interp* in, const NodeList* body, Flow* flow) {
    Builder b = {0}, *before = in->out;
    in->out = &b;
    *flow = run(in, body);
    in->out = before;
    return built(in, &b);
}

static Value call_macro(Interp* in, Macro* m, Args* given_args) {
    const Node* n = m->node;
    Args args = *given_args;
    if (args.n_named) {  // taken from below
        args.named = jinja_new(in, args.n_named * sizeof *args.named);
        memcpy(args.named, given_args->named, args.n_named * sizeof *args.named);
    }
    Activation *before = in->act, *a = activation(in, m->outer, n->n_slots);
    int line = in->line, count = n->other.n;
    bool found_caller = false;
    deeper(in);
    in->act = a;
    enter_scope(in, &n->scope);
    for (int i = 0; i < count; i++) {
        Value v = v_missing();
        if ((size_t)i < args.n) v = args.v[i];
        else {
            v = take_named(&args, n->other.v[i]->name);
            found_caller |= !strcmp(n->other.v[i]->name, "caller");
        }
        if ((size_t)i < args.n) found_caller |= args.n >= (size_t)count && !strcmp(n->other.v[i]->name, "caller");
        a->slot[n->parameter_slot[i]] = v;
    }
    if (n->flag && !found_caller) {
        Value caller = take_named(&args, "caller");
        if (!given(caller)) caller = v_undefined(in, "No caller defined");
        if (n->caller_slot >= 0) a->slot[n->caller_slot] = caller;
    }
    if (n->kwargs) {
        Value rest = v_dict(in);
        for (size_t i = 0; i < args.n_named; i++)
            dict_put(in, rest.dict, v_text(in, args.named[i].name), args.named[i].value);
        a->slot[n->kwargs_slot] = rest;
    } else if (args.n_named) {
        const char* name = m->name ? m->name : "None";
        for (size_t i = 0; i < args.n_named; i++)
            if (!strcmp(args.named[i].name, "caller"))
                jinja_fail(in,
                           "macro '%s' was invoked with two values for the special caller argument. This is most "
                           "likely a bug.",
                           name);
        jinja_fail(in, "macro '%s' takes no keyword argument '%s'", name, args.named[0].name);
    }
    if (n->varargs) {
        Value rest = v_tuple(in, 0);
        for (size_t i = (size_t)count; i < args.n; i++) list_put(in, rest.list, args.v[i]);
        a->slot[n->varargs_slot] = rest;
    } else if (args.n > (size_t)count)
        jinja_fail(in, "macro '%s' takes not more than %d argument(s)", m->name ? m->name : "None", count);
    for (int i = 0; i < count; i++) {
        Value* slot = &a->slot[n->parameter_slot[i]];
        int from_default = i - (count - n->defaults.n);
        if (given(*slot)) continue;
        if (from_default >= 0) *slot = eval(in, n->defaults.v[from_default]);
        else {
            size_t size = strlen(n->other.v[i]->name) + 40;
            char* hint = jinja_new(in, size);
            snprintf(hint, size, "parameter '%s' was not provided", n->other.v[i]->name);
            *slot = v_undefined(in, hint);
        }
    }
    Flow flow;
    Value out = captured(in, &n->items, &flow);
    in->act = before;
    in->depth--;
    in->line = line;
    return out;
}

static void run_for(Interp* in, const Node* n, Value iterable, int64_t depth0, Activation* outer, Value* out,
                    Flow* flow);

Value call_value(Interp* in, Value callee, Args* args) {
    jinja_work(in, 0);
    switch (callee.type) {
        case V_FUNCTION: return call_global(in, callee.function, args);
        case V_METHOD: return call_method(in, callee.method, args);
        case V_MACRO: return call_macro(in, callee.macro, args);
        case V_JOINER: {
            Value none[1];
            bind_arguments(in, "joiner", args, NULL, 0, 0, none);
            if (callee.joiner->used) return callee.joiner->separator;
            callee.joiner->used = true;
            return v_text(in, "");
        }
        case V_LOOP: {
            static const char* const names[] = {"iterable"};
            Value a[1], out;
            Flow flow = FLOW_ON;
            bind_arguments(in, "loop", args, names, 1, 1, a);
            if (!callee.loop->node)
                jinja_fail(in, "The loop must have the 'recursive' marker to be called recursively.");
            deeper(in);
            run_for(in, callee.loop->node, a[0], callee.loop->depth0 + 1, callee.loop->outer, &out, &flow);
            in->depth--;
            return out;
        }
        case V_UNDEFINED: fail_undefined(in, callee);
        default: jinja_fail(in, "'%s' object is not callable", type_name(callee));
    }
}

Value loop_attribute(Interp* in, Loop* l, const char* name) {
    if (!strcmp(name, "index0")) return v_int(l->index0);
    if (!strcmp(name, "index")) return v_int(l->index0 + 1);
    if (!strcmp(name, "first")) return v_bool(l->index0 == 0);
    if (!strcmp(name, "depth0")) return v_int(l->depth0);
    if (!strcmp(name, "depth")) return v_int(l->depth0 + 1);
    if (!strcmp(name, "previtem")) return l->index0 == 0 ? v_undefined(in, "there is no previous item") : l->before;
    if (!strcmp(name, "last") || !strcmp(name, "nextitem")) {
        Value v;
        if (!given(l->after) && next_item(in, l->iterator, &v)) l->after = v;
        if (*name == 'l') return v_bool(!given(l->after));
        return given(l->after) ? l->after : v_undefined(in, "there is no next item");
    }
    if (!strcmp(name, "length") || !strcmp(name, "revindex") || !strcmp(name, "revindex0")) {
        if (l->length < 0) {
            if (l->iterable.type == V_ITERATOR || l->iterable.type == V_UNDEFINED) {  // has no length: the rest is read
                Value rest = v_list(in, 0), v;
                while (next_item(in, l->iterator, &v)) list_put(in, rest.list, v);
                l->iterator = iterate(in, rest);
                l->length = (int64_t)rest.list->n + l->index0 + 1 + given(l->after);
            } else l->length = value_length(in, l->iterable);
        }
        return v_int(name[0] == 'l' ? l->length : name[8] ? l->length - l->index0 - 1 : l->length - l->index0);
    }
    return v_missing();
}

Value call_loop_method(Interp* in, Loop* l, bool cycle, Args* args) {
    if (args->n_named) jinja_fail(in, "loop.%s takes no keyword arguments", cycle ? "cycle" : "changed");
    if (cycle) {
        if (!args->n) jinja_fail(in, "no items for cycling given");
        return args->v[(size_t)l->index0 % args->n];
    }
    Value now = v_tuple(in, args->n);
    for (size_t i = 0; i < args->n; i++) list_put(in, now.list, args->v[i]);
    if (given(l->changed) && equal(in, l->changed, now)) return v_bool(false);
    l->changed = now;
    return v_bool(true);
}

static Value eval_slice(Interp* in, Value v, const Node* s) {
    Value bound[3];
    const Node* part[] = {s->a, s->b, s->c};
    for (int i = 0; i < 3; i++) bound[i] = part[i] ? eval(in, part[i]) : v_none();
    if (v.type == V_UNDEFINED) fail_undefined(in, v);
    if (v.type == V_DICT) jinja_fail(in, "unhashable type: 'slice'");
    if (v.type != V_STRING && v.type != V_LIST && v.type != V_TUPLE && v.type != V_RANGE)
        jinja_fail(in, "'%s' object is not subscriptable", type_name(v));
    int64_t n = value_length(in, v), step = bound[2].type == V_NONE ? 1 : index_of(in, bound[2], "slice");
    if (!step) jinja_fail(in, "slice step cannot be zero");
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n, at[2] = {step < 0 ? high : 0, step < 0 ? -1 : n};
    for (int i = 0; i < 2; i++) {
        if (bound[i].type == V_NONE) continue;
        int64_t k = index_of(in, bound[i], "slice");
        if (k < 0) k = k < -n ? -1 - n : k;
        if (k < 0) k += n;
        at[i] = k < low ? low : k > high ? high : k;
    }
    if (v.type == V_RANGE) {
        RangeValue* r = jinja_new(in, sizeof *r);
        int64_t count = step > 0 ? (at[1] - at[0] + step - 1) / step : (at[0] - at[1] - step - 1) / -step;
        *r = (RangeValue){v.range->start + at[0] * v.range->step, v.range->start + at[1] * v.range->step,
                          v.range->step * step, count > 0 ? count : 0};
        return (Value){.type = V_RANGE, .range = r};
    }
    if (v.type == V_STRING && step == 1) {
        size_t from = str_offset(v.s, at[0]), to = at[1] > at[0] ? str_offset(v.s, at[1]) : from;
        return v_part(in, v.s, from, to);
    }
    if (v.type == V_STRING) {
        Builder b = {0};
        for (int64_t i = at[0]; step > 0 ? i < at[1] : i > at[1];) {
            size_t from = str_offset(v.s, i);
            int32_t c;
            put(in, &b, v.s->p + from, (size_t)char_at(v.s->p + from, v.s->p + v.s->n, &c), v.s);
            jinja_work(in, v.s->length == (int64_t)v.s->n ? 0 : from);
            if (__builtin_add_overflow(i, step, &i)) break;
        }
        Value out = built(in, &b);
        out.s->markup = v.s->markup;
        return out;
    }
    Value out = v.type == V_LIST ? v_list(in, 0) : v_tuple(in, 0);
    for (int64_t i = at[0]; step > 0 ? i < at[1] : i > at[1];) {
        list_put(in, out.list, v.list->v[i]);
        if (__builtin_add_overflow(i, step, &i)) break;
    }
    jinja_work(in, out.list->n * 16);
    return out;
}

static bool compare(Interp* in, int op, Value a, Value b) {
    switch (op) {
        case CMP_EQ: return equal(in, a, b);
        case CMP_NE: return !equal(in, a, b);
        case CMP_LT: return less(in, a, b, "<");
        case CMP_LE: return less(in, a, b, "<=") || equal(in, a, b);
        case CMP_GT: return less(in, b, a, ">");
        case CMP_GE: return less(in, b, a, ">=") || equal(in, a, b);
        case CMP_IN: return contains(in, a, b);
        default: return !contains(in, a, b);
    }
}

static Value eval_filter(Interp* in, const Node* n, Value v) {
    Args args;
    if (n->builtin < 0) jinja_fail(in, "No filter named '%s' found.", n->name);
    eval_args(in, n, &args, NULL);
    in->line = n->line;
    return call_filter(in, n->builtin, v, &args);
}

// A filter of a block: its innermost value is the block's text.
static Value eval_filter_of(Interp* in, const Node* n, Value text) {
    return eval_filter(in, n, n->a ? eval_filter_of(in, n->a, text) : text);
}

static Value eval_inner(Interp* in, const Node* n) {
    Args args;
    in->line = n->line;
    switch (n->kind) {
        case N_CONST: return n->value;
        case N_NAME: {
            Value v = *slot_of(in, n->variable);
            return given(v) ? v : v_undefined_name(in, n->name);
        }
        case N_TUPLE:
        case N_LIST: {
            Value l = n->kind == N_LIST ? v_list(in, (size_t)n->items.n) : v_tuple(in, (size_t)n->items.n);
            for (int i = 0; i < n->items.n; i++) list_put(in, l.list, eval(in, n->items.v[i]));
            return l;
        }
        case N_DICT: {
            Value d = v_dict(in);
            for (int i = 0; i < n->items.n; i++) {
                Value key = eval(in, n->items.v[i]);
                dict_put(in, d.dict, key, eval(in, n->other.v[i]));
            }
            return d;
        }
        case N_GETATTR: {
            Value v = eval(in, n->a);
            in->line = n->line;
            return get_attribute(in, v, n->name, n->value);
        }
        case N_GETITEM: {
            Value v = eval(in, n->a), key;
            if (n->b->kind == N_SLICE) return eval_slice(in, v, n->b);
            key = eval(in, n->b);
            in->line = n->line;
            return get_item(in, v, key);
        }
        case N_SLICE: jinja_fail(in, "a slice among several subscripts is not supported");
        case N_CALL: {
            Value callee = eval(in, n->a);
            eval_args(in, n, &args, NULL);
            in->line = n->line;
            return call_value(in, callee, &args);
        }
        case N_FILTER: return eval_filter(in, n, eval(in, n->a));
        case N_TEST: {
            if (n->builtin < 0) jinja_fail(in, "No test named '%s' found.", n->name);
            Value v = eval(in, n->a);
            eval_args(in, n, &args, NULL);
            in->line = n->line;
            return v_bool(call_test(in, n->builtin, v, &args));
        }
        case N_NOT: return v_bool(!truth(eval(in, n->a)));
        case N_NEG:
        case N_POS: return negative(in, eval(in, n->a), n->kind == N_POS);
        case N_BINARY: {
            Value a = eval(in, n->a), b = eval(in, n->b);
            in->line = n->line;
            return binary(in, n->op, a, b);
        }
        case N_AND:
        case N_OR: {
            Value a = eval(in, n->a);
            return truth(a) == (n->kind == N_OR) ? a : eval(in, n->b);
        }
        case N_CONCAT: {
            Builder b = {0};
            for (int i = 0; i < n->items.n; i++) {
                Value v = eval(in, n->items.v[i]);
                put_value(in, &b, v);
            }
            return built(in, &b);
        }
        case N_COMPARE: {
            Value a = eval(in, n->a);
            for (int i = 0; i < n->items.n; i++) {
                Value b = eval(in, n->items.v[i]);
                in->line = n->line;
                if (!compare(in, n->ops[i], a, b)) return v_bool(false);
                a = b;
            }
            return v_bool(true);
        }
        case N_CONDITION:
            if (truth(eval(in, n->a))) return eval(in, n->b);
            return n->c ? eval(in, n->c)
                        : v_undefined(in,
                                      "the inline if-expression evaluated to false and no else section was defined.");
        default: jinja_fail(in, "not an expression");
    }
}

static Value eval(Interp* in, const Node* n) {
    deeper(in);
    jinja_work(in, 0);
    Value v = eval_inner(in, n);
    in->depth--;
    return v;
}

// ---- statements ------------------------------------------------------------------------------------

static void namespaces_only(Interp* in, const Node* target) {
    if (target->kind == N_TUPLE)
        for (int i = 0; i < target->items.n; i++) namespaces_only(in, target->items.v[i]);
    if (target->kind == N_NSREF && slot_of(in, target->variable)->type != V_NAMESPACE)
        jinja_fail(in, "cannot assign attribute on non-namespace object");
}

static void assign(Interp* in, const Node* target, Value v) {
    if (target->kind == N_NAME) *slot_of(in, target->variable) = v;
    else if (target->kind == N_NSREF) dict_put(in, slot_of(in, target->variable)->dict, target->value, v);
    else {
        Iterator* it = try_iterate(in, v);
        if (!it) jinja_fail(in, "cannot unpack non-iterable %s object", type_name(v));
        int n = target->items.n;
        Value* part = jinja_new(in, (size_t)(n + 1) * sizeof *part);
        for (int i = 0; i < n; i++)
            if (!next_item(in, it, &part[i])) jinja_fail(in, "not enough values to unpack (expected %d, got %d)", n, i);
        if (next_item(in, it, &part[n])) jinja_fail(in, "too many values to unpack (expected %d)", n);
        for (int i = 0; i < n; i++) assign(in, target->items.v[i], part[i]);
    }
}

bool filter_test(Interp* in, Iterator* it, Value item) {
    Activation* before = in->act;
    in->act = it->activation;
    assign(in, it->node->defaults.v[0], item);
    bool good = truth(eval(in, it->node->c));
    in->act = before;
    return good;
}

// One loop; a recursive one has an activation of its own, and what it prints is *out.
static void run_for(Interp* in, const Node* n, Value iterable, int64_t depth0, Activation* outer, Value* out,
                    Flow* flow) {
    Activation* before = in->act;
    Builder b = {0}, *printed = in->out;
    Iterator* it;
    if (n->flag) {
        in->act = activation(in, outer, n->n_slots);
        in->out = &b;
    }
    if (n->c) {
        it = jinja_new(in, sizeof *it);
        it->kind = IT_FILTERED;
        it->inner = iterate(in, iterable);
        it->node = n;
        it->activation = activation(in, n->flag ? outer : in->act, n->n_slots2);
        Activation* here = in->act;
        in->act = it->activation;
        enter_scope(in, &n->scope3);
        in->act = here;
        iterable = (Value){.type = V_ITERATOR, .iterator = it};
    } else it = iterate(in, iterable);
    Loop* loop = NULL;
    if (n->flag2) {
        loop = jinja_new(in, sizeof *loop);
        *loop = (Loop){.iterator = it,
                       .iterable = iterable,
                       .index0 = -1,
                       .length = -1,
                       .depth0 = depth0,
                       .node = n->flag ? n : NULL,
                       .outer = outer};
    }
    bool nothing_ran = true;
    for (Value v;;) {
        if (loop && given(loop->after)) {
            v = loop->after;
            loop->after = v_missing();
        } else if (!next_item(in, loop ? loop->iterator : it, &v)) break;
        if (loop) {
            loop->index0++;
            loop->before = loop->current;
            loop->current = v;
            in->act->slot[n->loop_slot] = (Value){.type = V_LOOP, .loop = loop};
        }
        assign(in, n->a, v);
        enter_scope(in, &n->scope);
        Flow part = run(in, &n->items);
        in->line = n->line;
        if (part == FLOW_BREAK) break;
        if (part == FLOW_ON) nothing_ran = false;  // as Jinja's own code: an iteration that was left does not count
    }
    for (int i = 0; i < n->scope.n; i++) in->act->slot[n->scope.load[i].slot] = v_missing();
    if (nothing_ran && n->other.n) {
        enter_scope(in, &n->scope2);
        *flow = run(in, &n->other);
    }
    if (n->flag) {
        *out = built(in, &b);
        in->out = printed;
        in->act = before;
    }
}

static void print(Interp* in, Value v) {
    if (v.type == V_STRING) put_str(in, in->out, v.s);
    else put_value(in, in->out, v);
    if (in->out == &in->root) in->yielded = true;
}

// Of a call or filter block: Jinja joins it as it is.
static void print_text(Interp* in, Value v) {
    if (v.type != V_STRING) jinja_fail(in, "sequence item 0: expected str instance, %s found", type_name(v));
    print(in, v);
}

static Value macro_value(Interp* in, const Node* n) {
    Macro* m = jinja_new(in, sizeof *m);
    *m = (Macro){n, in->act, n->name};
    return (Value){.type = V_MACRO, .macro = m};
}

static void run_generation(Interp* in, const Node* n) {
    size_t start = in->root.n;
    bool counts = in->yielded || in->n_generation;
    Args none = {0};
    Value text = call_macro(in, macro_value(in, n).macro, &none);
    if (counts) {
        if (in->n_generation == in->room_generation) {
            size_t room = in->room_generation ? 2 * in->room_generation : 16;
            TextRange* more = jinja_new(in, room * sizeof *more);
            if (in->n_generation) memcpy(more, in->generation, in->n_generation * sizeof *more);
            in->generation = more;
            in->room_generation = room;
        }
        in->generation[in->n_generation++] = (TextRange){start, start + text.s->n};
    }
    print(in, text);
}

static const NodeList* chosen(Interp* in, const Node* n) {
    in->line = n->line;
    if (truth(eval(in, n->a))) return &n->items;
    for (int i = 0; i < n->defaults.n; i++)
        if (truth(eval(in, n->defaults.v[i]->a))) return &n->defaults.v[i]->items;
    return &n->other;
}

static Flow run_one(Interp* in, const Node* n) {
    Flow flow = FLOW_ON;
    in->line = n->line;
    switch (n->kind) {
        case N_TEXT: print(in, n->value); break;
        case N_PRINT: print(in, eval(in, n->a)); break;
        case N_SET:
            namespaces_only(in, n->a);
            assign(in, n->a, eval(in, n->b));
            break;
        case N_SET_BLOCK: {
            enter_scope(in, &n->scope);
            Value v = captured(in, &n->items, &flow);
            if (flow != FLOW_ON) break;
            if (n->b) v = eval_filter_of(in, n->b, v);
            namespaces_only(in, n->a);
            assign(in, n->a, v);
            break;
        }
        case N_IF: return run(in, chosen(in, n));
        case N_FOR: {
            Value out = v_missing(), iterable = eval(in, n->b);
            run_for(in, n, iterable, 0, in->act, &out, &flow);
            if (n->flag) print(in, out);
            break;
        }
        case N_WITH: {
            Value* v = jinja_new(in, (size_t)(n->other.n + 1) * sizeof *v);
            for (int i = 0; i < n->other.n; i++) v[i] = eval(in, n->other.v[i]);
            enter_scope(in, &n->scope);
            for (int i = 0; i < n->other.n; i++) assign(in, n->defaults.v[i], v[i]);
            flow = run(in, &n->items);
            break;
        }
        case N_MACRO: *slot_of(in, n->variable) = macro_value(in, n); break;
        case N_CALL_BLOCK: {
            Args args;
            Value caller = macro_value(in, n), callee = eval(in, n->a->a);
            caller.macro->name = NULL;
            eval_args(in, n->a, &args, &caller);
            in->line = n->line;
            print_text(in, call_value(in, callee, &args));
            break;
        }
        case N_GENERATION: run_generation(in, n); break;
        case N_FILTER_BLOCK: {
            enter_scope(in, &n->scope);
            Value v = captured(in, &n->items, &flow);
            if (flow == FLOW_ON) print_text(in, eval_filter_of(in, n->a, v));
            break;
        }
        case N_BREAK: return FLOW_BREAK;
        case N_CONTINUE: return FLOW_CONTINUE;
        default: jinja_fail(in, "not a statement");
    }
    return flow;
}

static Flow run(Interp* in, const NodeList* body) {
    deeper(in);
    for (int i = 0; i < body->n; i++) {
        jinja_work(in, 0);
        Flow flow = run_one(in, body->v[i]);
        if (flow != FLOW_ON) {
            in->depth--;
            return flow;
        }
    }
    in->depth--;
    return FLOW_ON;
}

// ---- the library's face ----------------------------------------------------------------------------

static bool valid_utf8(const char* s, size_t n) {
    for (size_t at = 0; at < n;) {
        int k = utf8_length(s + at, (int64_t)(n - at));
        if (!k) return false;
        at += (size_t)k;
    }
    return true;
}

typedef struct {
    JinjaTemplate* t;
    const char* source;
    size_t n;
} Source;

static bool compile(Interp* in, void* argument) {
    const Source* s = argument;
    if (s->n > MOST_SOURCE) jinja_fail(in, "a template of more than %d MB", MOST_SOURCE >> 20);
    if (!valid_utf8(s->source, s->n)) jinja_fail(in, "not UTF-8");
    return jinja_parse(in, s->t, s->source, s->n);
}

JinjaTemplate* jinja_compile(const char* name, const char* source, size_t n, char* error, size_t error_size) {
    JinjaTemplate* t = calloc(1, sizeof *t);
    Interp* in = calloc(1, sizeof *in);
    if (!t || !in || !(t->name = strdup(name))) {
        snprintf(error, error_size, NO_MEMORY "a template");
        free(t);
        free(in);
        return NULL;
    }
    in->arena.limit = (size_t)256 << 20;
    in->limits = default_limits;
    in->t = t;
    in->error = error;
    in->error_size = error_size;
    in->line = 1;
    Source s = {t, source, n};
    bool good = attempt(in, compile, &s);
    t->arena = in->arena;
    free(in);
    if (good) return t;
    jinja_free(t);
    return NULL;
}

void jinja_free(JinjaTemplate* t) {
    if (!t) return;
    arena_free(&t->arena);
    free(t->name);
    free(t);
}

bool jinja_mentions(const JinjaTemplate* t, const char* word) {
    for (size_t i = 0; i < t->n_words; i++)
        if (!strcmp(t->words[i], word)) return true;
    return false;
}

JinjaScratch* jinja_begin(const JinjaLimits* limits) {
    JinjaScratch* s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->in.limits = limits ? *limits : default_limits;
    s->in.arena.limit = s->in.limits.memory;
    return s;
}

void jinja_end(JinjaScratch* s) {
    if (!s) return;
    arena_free(&s->in.arena);
    free(s);
}

static void find_given(Interp* in, JinjaResult* r) {
    const Builder* b = &in->root;
    if (!b->n || b->from == FROM_TEMPLATE) return;
    size_t runs = 1;
    for (size_t i = 1; b->from == FROM_BOTH && i < b->n; i++) runs += b->origin[i] != b->origin[i - 1];
    TextRange* span = jinja_new(in, (runs + 1) * sizeof *span);
    size_t n = 0;
    if (b->from == FROM_ROW) span[n++] = (TextRange){0, b->n};
    for (size_t i = 0, end; b->from == FROM_BOTH && i < b->n; i = end) {
        for (end = i + 1; end < b->n && b->origin[end] == b->origin[i]; end++) {}
        if (b->origin[i] == FROM_ROW) span[n++] = (TextRange){i, end};
    }
    r->given = span;
    r->n_given = n;
}

typedef struct {
    const char *row, *variables;
    size_t n_row, n_variables;
    JinjaResult* result;
} Rendering;

static bool bad_input(Interp* in, const char* what) {
    snprintf(in->error, in->error_size, "%s", what);
    return false;
}

static bool render(Interp* in, void* argument) {
    const Rendering* r = argument;
    Value row, more = v_none();
    if (!valid_utf8(r->row, r->n_row)) return bad_input(in, "not UTF-8");
    if (!parse_json(in, r->row, r->n_row, FROM_ROW, &row)) return false;
    if (r->variables && !parse_json(in, r->variables, r->n_variables, FROM_TEMPLATE, &more)) return false;
    if (row.type != V_DICT || (r->variables && more.type != V_DICT)) return bad_input(in, "expected a JSON object");
    in->row = row.dict;
    in->variables = more.type == V_DICT ? more.dict : NULL;
    in->act = activation(in, NULL, in->t->root->n_slots);
    enter_scope(in, &in->t->root->scope);
    run(in, &in->t->root->items);
    find_given(in, r->result);
    size_t n = in->root.n;
    put(in, &in->root, "", 1, NULL);  // the zero at its end
    r->result->text = in->root.p;
    r->result->n = n;
    r->result->generation = in->generation;
    r->result->n_generation = in->n_generation;
    return true;
}

bool jinja_render(const JinjaTemplate* t, JinjaScratch* s, const char* row, size_t n_row, const char* variables,
                  size_t n_variables, JinjaResult* result, char* error, size_t error_size) {
    Interp* in = &s->in;
    const JinjaLimits limits = in->limits;
    Arena arena = in->arena;
    arena_reset(&arena);
    memset(in, 0, sizeof *in);
    in->arena = arena;
    in->limits = limits;
    in->t = t;
    in->error = error;
    in->error_size = error_size;
    in->line = 1;
    in->out = &in->root;
    memset(result, 0, sizeof *result);
    Rendering r = {row, variables, n_row, n_variables, result};
    return attempt(in, render, &r);
}
