/*
Which variable a name means. Jinja decides that before anything runs: a name that a scope assigns belongs to that scope,
and is what it was outside when the scope is entered; a name that no scope assigns is looked up among the variables of
the rendering.
*/
#include "tokenizer_internal.h"
#include "jinja_parse.h"

typedef struct {
    int level;
    const char* name;
} Slot;
typedef struct {
    int depth;
    Slot* slot;
    size_t n, room;
} Function;  // what has activations of its own: the template, a macro, a call block, a recursive loop, a loop's test
typedef struct {
    Function* f;
    int slot;
} Ident;
typedef struct {
    const char* name;
    Ident id;
} Ref;
typedef struct {
    Ident id;
    LoadKind kind;
    Ident from;
    const char* name;
} LoadOf;
typedef struct Symbols Symbols;
struct Symbols {
    int level;
    Symbols* parent;
    Function* f;
    Ref* ref;
    LoadOf* load;
    const char** store;
    size_t n_refs, room_refs, n_loads, room_loads, n_stores, room_stores;
};

static Ident ident(Parser* p, Function* f, int level, const char* name) {
    for (size_t i = 0; i < f->n; i++)
        if (f->slot[i].level == level && f->slot[i].name == name) return (Ident){f, (int)i};
    f->slot = array_room(p->in, f->slot, f->n, &f->room, sizeof *f->slot);
    f->slot[f->n] = (Slot){level, name};
    return (Ident){f, (int)f->n++};
}

static const Ident* find_ref(const Symbols* s, const char* name) {
    for (; s; s = s->parent)
        for (size_t i = 0; i < s->n_refs; i++)
            if (s->ref[i].name == name) return &s->ref[i].id;
    return NULL;
}

static void set_ref(Parser* p, Symbols* s, const char* name, Ident id) {
    for (size_t i = 0; i < s->n_refs; i++)
        if (s->ref[i].name == name) {
            s->ref[i].id = id;
            return;
        }
    s->ref = array_room(p->in, s->ref, s->n_refs, &s->room_refs, sizeof *s->ref);
    s->ref[s->n_refs++] = (Ref){name, id};
}

static void set_load(Parser* p, Symbols* s, LoadOf load) {
    for (size_t i = 0; i < s->n_loads; i++)
        if (s->load[i].id.f == load.id.f && s->load[i].id.slot == load.id.slot) {
            s->load[i] = load;
            return;
        }
    s->load = array_room(p->in, s->load, s->n_loads, &s->room_loads, sizeof *s->load);
    s->load[s->n_loads++] = load;
}

static bool has_store(const Symbols* s, const char* name) {
    for (size_t i = 0; i < s->n_stores; i++)
        if (s->store[i] == name) return true;
    return false;
}

static void set_store(Parser* p, Symbols* s, const char* name) {
    if (has_store(s, name)) return;
    s->store = array_room(p->in, s->store, s->n_stores, &s->room_stores, sizeof *s->store);
    s->store[s->n_stores++] = name;
}

static Ident define(Parser* p, Symbols* s, const char* name, LoadKind kind, Ident from) {
    Ident id = ident(p, s->f, s->level, name);
    set_ref(p, s, name, id);
    set_load(p, s, (LoadOf){id, kind, from, name});
    return id;
}

static Ident declare_parameter(Parser* p, Symbols* s, const char* name) {
    set_store(p, s, name);
    return define(p, s, name, LOAD_PARAMETER, (Ident){0});
}

static void symbol_store(Parser* p, Symbols* s, const char* name) {
    set_store(p, s, name);
    for (size_t i = 0; i < s->n_refs; i++)
        if (s->ref[i].name == name) return;
    const Ident* outer = s->parent ? find_ref(s->parent, name) : NULL;
    define(p, s, name, outer ? LOAD_ALIAS : LOAD_UNDEFINED, outer ? *outer : (Ident){0});
}

static void symbol_load(Parser* p, Symbols* s, const char* name) {
    if (!find_ref(s, name)) define(p, s, name, LOAD_RESOLVE, (Ident){0});
}

static Symbols* symbols_copy(Parser* p, const Symbols* s) {
    Symbols* c = jinja_new(p->in, sizeof *c);
    *c = *s;
    c->ref = jinja_new(p->in, (s->room_refs + 1) * sizeof *c->ref);
    c->load = jinja_new(p->in, (s->room_loads + 1) * sizeof *c->load);
    c->store = jinja_new(p->in, (s->room_stores + 1) * sizeof *c->store);
    if (s->n_refs) memcpy(c->ref, s->ref, s->n_refs * sizeof *c->ref);
    if (s->n_loads) memcpy(c->load, s->load, s->n_loads * sizeof *c->load);
    if (s->n_stores) memcpy(c->store, s->store, s->n_stores * sizeof *c->store);
    return c;
}

static Symbols* inner(Parser* p, Symbols* parent, bool function) {
    Symbols* s = jinja_new(p->in, sizeof *s);
    s->parent = parent;
    s->level = parent ? parent->level + 1 : 0;
    s->f = parent ? parent->f : NULL;
    if (function) {
        Function* f = jinja_new(p->in, sizeof *f);
        f->depth = parent ? parent->f->depth + 1 : 0;
        s->f = f;
    }
    return s;
}

typedef void (*Visit)(Parser* p, Node* n, void* context);

static void each_of(Parser* p, const NodeList* l, Visit visit, void* context) {
    for (int i = 0; i < l->n; i++) visit(p, l->v[i], context);
}

// Of an expression, or of any node where all = true, every node below it.
static void each_child(Parser* p, Node* n, Visit visit, void* context) {
    if (n->a) visit(p, n->a, context);
    if (n->b) visit(p, n->b, context);
    each_of(p, &n->other, visit, context);
    each_of(p, &n->defaults, visit, context);
    each_of(p, &n->items, visit, context);
    for (int i = 0; i < n->n_keywords; i++) visit(p, n->keyword[i].value, context);
    if (n->star) visit(p, n->star, context);
    if (n->star2) visit(p, n->star2, context);
    if (n->c) visit(p, n->c, context);
}

static void symbols_visit(Parser* p, Node* n, void* context);

static void symbols_target(Parser* p, Node* n, Symbols* s) {
    if (n->kind == N_TUPLE)
        for (int i = 0; i < n->items.n; i++) symbols_target(p, n->items.v[i], s);
    else if (n->kind == N_NAME) declare_parameter(p, s, n->name);
}

static Symbols* branch(Parser* p, const NodeList* l, Symbols* s) {
    Symbols* copy = symbols_copy(p, s);
    each_of(p, l, symbols_visit, copy);
    return copy;
}

// What a scope's own statements do to its symbols; scopes within it are for themselves.
static void symbols_visit(Parser* p, Node* n, void* context) {
    Symbols* s = context;
    switch (n->kind) {
        case N_NAME:
            if (n->op == NAME_PARAMETER) declare_parameter(p, s, n->name);
            else if (n->op == NAME_STORE) symbol_store(p, s, n->name);
            else symbol_load(p, s, n->name);
            break;
        case N_NSREF: symbol_load(p, s, n->name); break;
        case N_MACRO: symbol_store(p, s, n->name); break;
        case N_SET:
            symbols_visit(p, n->b, s);
            symbols_visit(p, n->a, s);
            break;
        case N_SET_BLOCK: symbols_visit(p, n->a, s); break;
        case N_FOR: symbols_visit(p, n->b, s); break;
        case N_CALL_BLOCK:
        case N_FILTER_BLOCK: symbols_visit(p, n->a, s); break;
        case N_WITH: each_of(p, &n->other, symbols_visit, s); break;
        case N_GENERATION: break;
        case N_IF: {
            symbols_visit(p, n->a, s);
            Symbols* part[] = {branch(p, &n->items, s), branch(p, &n->defaults, s), branch(p, &n->other, s)};
            const size_t n_before = s->n_stores;
            for (int b = 0; b < 3; b++) {
                for (size_t i = 0; i < part[b]->n_refs; i++) set_ref(p, s, part[b]->ref[i].name, part[b]->ref[i].id);
                for (size_t i = 0; i < part[b]->n_loads; i++) set_load(p, s, part[b]->load[i]);
                for (size_t i = 0; i < part[b]->n_stores; i++) set_store(p, s, part[b]->store[i]);
            }
            for (size_t i = n_before; i < s->n_stores; i++) {  // set in a branch only: else what it was before
                const char* name = s->store[i];
                const Ident *target = find_ref(s, name), *outer = s->parent ? find_ref(s->parent, name) : NULL;
                set_load(p, s, (LoadOf){*target, outer ? LOAD_ALIAS : LOAD_RESOLVE, outer ? *outer : (Ident){0}, name});
            }
            break;
        }
        default: each_child(p, n, symbols_visit, s);
    }
}

typedef struct {
    const char* name;
    bool found, gone;
} Search;

// Whether a name is used before anything of that name is assigned.
static void search_visit(Parser* p, Node* n, void* context) {
    Search* search = context;
    if (search->found || search->gone) return;
    if (n->kind == N_NAME && n->name == search->name) {
        if (n->op == NAME_LOAD) search->found = true;
        else search->gone = true;
        return;
    }
    each_child(p, n, search_visit, search);
}

static bool uses(Parser* p, const NodeList* body, const char* name) {
    Search search = {.name = intern_word(p, name, strlen(name))};
    each_of(p, body, search_visit, &search);
    return search.found;
}

static void no_loop_target(Parser* p, Node* n, void* context) {
    if (n->kind == N_NAME && n->op == NAME_STORE && !strcmp(n->name, "loop")) {
        p->in->line = n->line;
        jinja_fail(p->in, "Can't assign to special loop variable in for-loop target");
    }
    each_child(p, n, no_loop_target, context);
}

static Variable variable_of(const Symbols* s, Ident id) { return (Variable){s->f->depth - id.f->depth, id.slot}; }

static Scope scope_of(Parser* p, const Symbols* s) {
    Scope scope = {jinja_new(p->in, (s->n_loads + 1) * sizeof *scope.load), 0};
    for (size_t i = 0; i < s->n_loads; i++) {
        const LoadOf* l = &s->load[i];
        if (l->kind == LOAD_PARAMETER) continue;
        Load* to = &scope.load[scope.n++];
        *to = (Load){.kind = l->kind, .slot = l->id.slot, .name = l->name};
        if (l->kind == LOAD_ALIAS) to->from = variable_of(s, l->from);
    }
    return scope;
}

typedef struct {
    Symbols* s;
    bool soft;  // within an if: an unknown filter is an error only when it runs
    bool loop;  // break and continue have a loop to leave
} Frame;

static void annotate(Parser* p, Node* n, void* frame);

static void annotate_all(Parser* p, const NodeList* l, Frame* f) { each_of(p, l, annotate, f); }

// A macro's or call block's body: a function with its parameters, caller, kwargs and varargs.
static void annotate_macro(Parser* p, Node* n, Frame* outer) {
    Frame f = {inner(p, outer->s, true), false, false};
    each_of(p, &n->other, symbols_visit, f.s);
    each_of(p, &n->defaults, symbols_visit, f.s);
    each_of(p, &n->items, symbols_visit, f.s);
    n->parameter_slot = jinja_new(p->in, (size_t)(n->other.n + 1) * sizeof *n->parameter_slot);
    bool caller = false, kwargs = false;
    for (int i = 0; i < n->other.n; i++) {
        const char* name = n->other.v[i]->name;
        n->parameter_slot[i] = find_ref(f.s, name)->slot;
        caller |= !strcmp(name, "caller");
        kwargs |= !strcmp(name, "kwargs") || !strcmp(name, "varargs");
        if (!strcmp(name, "caller") && i < n->other.n - n->defaults.n && uses(p, &n->items, "caller")) {
            p->in->line = n->line;
            jinja_fail(p->in, "the special \"caller\" argument must be omitted or be given a default");
        }
    }
    n->flag = uses(p, &n->items, "caller");
    n->caller_slot = n->kwargs_slot = n->varargs_slot = -1;
    if (n->flag && !caller) n->caller_slot = declare_parameter(p, f.s, intern_word(p, "caller", 6)).slot;
    n->kwargs = uses(p, &n->items, "kwargs") && !kwargs;
    if (n->kwargs) n->kwargs_slot = declare_parameter(p, f.s, intern_word(p, "kwargs", 6)).slot;
    n->varargs = uses(p, &n->items, "varargs") && !kwargs;
    if (n->varargs) n->varargs_slot = declare_parameter(p, f.s, intern_word(p, "varargs", 7)).slot;
    each_of(p, &n->items, symbols_visit, f.s);
    annotate_all(p, &n->defaults, &f);
    annotate_all(p, &n->items, &f);
    n->scope = scope_of(p, f.s);
    n->n_slots = (int)f.s->f->n;
}

static Node* target_copy(Parser* p, const Node* n) {
    Node* copy = jinja_new(p->in, sizeof *copy);
    *copy = *n;
    copy->items = (NodeList){0};
    for (int i = 0; i < n->items.n; i++) nodes_put(p, &copy->items, target_copy(p, n->items.v[i]));
    return copy;
}

static void annotate_for(Parser* p, Node* n, Frame* outer) {
    Frame body = {inner(p, outer->s, n->flag), false, true};
    Frame other = {inner(p, n->flag ? body.s : outer->s, false), false, !n->flag && outer->loop};
    Frame test = {inner(p, outer->s, true), false, false};
    if (n->flag) {  // the else branch is of the recursive loop's function, but not within its scope
        other.s->parent = outer->s;
        other.s->level = body.s->level;
        other.s->f = body.s->f;
    }
    n->flag2 = n->flag || uses(p, &n->items, "loop");
    if (n->flag2) n->loop_slot = declare_parameter(p, body.s, intern_word(p, "loop", 4)).slot;
    symbols_target(p, n->a, body.s);
    each_of(p, &n->items, symbols_visit, body.s);
    each_of(p, &n->other, symbols_visit, other.s);
    no_loop_target(p, n->a, NULL);
    each_of(p, &n->items, no_loop_target, NULL);
    annotate(p, n->b, outer);
    if (n->c) {
        symbols_target(p, n->a, test.s);
        symbols_visit(p, n->c, test.s);
        Frame target = {test.s, false, false};
        annotate(p, n->c, &target);
        n->scope3 = scope_of(p, test.s);
        // the target's variables of the test are those of the loop by name; they have slots of their own
        Node* twin = target_copy(p, n->a);
        annotate(p, twin, &target);
        nodes_put(p, &n->defaults, twin);
        n->n_slots2 = (int)test.s->f->n;
    }
    annotate(p, n->a, &body);
    annotate_all(p, &n->items, &body);
    annotate_all(p, &n->other, &other);
    n->scope = scope_of(p, body.s);
    n->scope2 = scope_of(p, other.s);
    n->n_slots = n->flag ? (int)body.s->f->n : 0;
}

static void annotate(Parser* p, Node* n, void* frame) {
    Frame* f = frame;
    const Ident* id;
    p->in->line = n->line;
    switch (n->kind) {
        case N_NAME:
        case N_NSREF:
            if (!(id = find_ref(f->s, n->name))) {
                symbol_load(p, f->s, n->name);
                id = find_ref(f->s, n->name);
            }
            n->variable = variable_of(f->s, *id);
            break;
        case N_FILTER:
        case N_TEST:
            if (n->builtin < 0 && !f->soft)
                jinja_fail(p->in, "No %s named '%s'.", n->kind == N_FILTER ? "filter" : "test", n->name);
            each_child(p, n, annotate, f);
            break;
        case N_CONDITION: {
            Frame soft = {f->s, true, f->loop};
            each_child(p, n, annotate, &soft);
            break;
        }
        case N_IF: {
            Frame soft = {f->s, true, f->loop};
            annotate(p, n->a, &soft);
            annotate_all(p, &n->items, &soft);
            annotate_all(p, &n->defaults, &soft);
            annotate_all(p, &n->other, &soft);
            break;
        }
        case N_SET_BLOCK: {
            Frame block = {inner(p, f->s, false), false, f->loop};
            each_of(p, &n->items, symbols_visit, block.s);
            if (n->b) symbols_visit(p, n->b, block.s);
            annotate_all(p, &n->items, &block);
            if (n->b) annotate(p, n->b, &block);
            annotate(p, n->a, f);
            n->scope = scope_of(p, block.s);
            break;
        }
        case N_FILTER_BLOCK: {
            Frame block = {inner(p, f->s, false), false, f->loop};
            each_of(p, &n->items, symbols_visit, block.s);
            symbols_visit(p, n->a, block.s);
            annotate_all(p, &n->items, &block);
            annotate(p, n->a, &block);
            n->scope = scope_of(p, block.s);
            break;
        }
        case N_WITH: {
            Frame with = {inner(p, f->s, false), false, f->loop};
            each_of(p, &n->defaults, symbols_visit, with.s);
            each_of(p, &n->items, symbols_visit, with.s);
            annotate_all(p, &n->other, f);
            annotate_all(p, &n->defaults, &with);
            annotate_all(p, &n->items, &with);
            n->scope = scope_of(p, with.s);
            break;
        }
        case N_FOR: annotate_for(p, n, f); break;
        case N_MACRO:
            annotate_macro(p, n, f);
            n->variable = variable_of(f->s, *find_ref(f->s, n->name));
            break;
        case N_CALL_BLOCK:
            annotate_macro(p, n, f);
            annotate(p, n->a, f);
            break;
        case N_GENERATION: annotate_macro(p, n, f); break;
        case N_BREAK:
        case N_CONTINUE:
            if (!f->loop) jinja_fail(p->in, "'%s' outside loop", n->kind == N_BREAK ? "break" : "continue");
            break;
        default: each_child(p, n, annotate, f);
    }
}

void resolve_names(Parser* p, Node* root) {
    Frame f = {inner(p, NULL, true), false, false};
    each_of(p, &root->items, symbols_visit, f.s);
    annotate_all(p, &root->items, &f);
    root->scope = scope_of(p, f.s);
    root->n_slots = (int)f.s->f->n;
}
