/* Tokens to a tree: Jinja's grammar. */
#include <stdio.h>
#include "tokenizer_internal.h"
#include "jinja_parse.h"

#define MAX_NESTING 200

// ---- expressions -----------------------------------------------------------------------------------

static Token* now(Parser* p) { return &p->token[p->next]; }
static Token* look(Parser* p) { return &p->token[p->next + (now(p)->type != T_END)]; }
static Token* take(Parser* p) {
    Token* t = now(p);
    if (t->type != T_END) p->next++;
    return t;
}
static bool is_op(const Token* t, const char* op) { return t->type == T_OP && !strcmp(t->name, op); }
static bool is_name(const Token* t, const char* name) { return t->type == T_NAME && !strcmp(t->name, name); }

static void describe(const Token* t, char* out, size_t size) {
    switch (t->type) {
        case T_TEXT: snprintf(out, size, "template data"); break;
        case T_VARIABLE: snprintf(out, size, "begin of print statement"); break;
        case T_VARIABLE_END: snprintf(out, size, "end of print statement"); break;
        case T_BLOCK: snprintf(out, size, "begin of statement block"); break;
        case T_BLOCK_END: snprintf(out, size, "end of statement block"); break;
        case T_END: snprintf(out, size, "end of template"); break;
        case T_CONST:
            snprintf(out, size, "%s", t->string ? "string" : t->value.type == V_FLOAT ? "float" : "integer");
            break;
        default: snprintf(out, size, "%.60s", t->name);
    }
}

__attribute__((noreturn)) static void expected(Parser* p, const char* what) {
    char got[80];
    describe(now(p), got, sizeof got);
    p->in->line = now(p)->line;
    if (now(p)->type == T_END) jinja_fail(p->in, "unexpected end of template, expected '%s'", what);
    jinja_fail(p->in, "expected token '%s', got '%s'", what, got);
}

static bool skip_op(Parser* p, const char* op) {
    if (!is_op(now(p), op)) return false;
    take(p);
    return true;
}
static bool skip_name(Parser* p, const char* name) {
    if (!is_name(now(p), name)) return false;
    take(p);
    return true;
}
static void expect_op(Parser* p, const char* op) {
    if (!skip_op(p, op)) expected(p, op);
}
static Token* expect_name(Parser* p) {
    if (now(p)->type != T_NAME) expected(p, "name");
    return take(p);
}
static void expect(Parser* p, TokenType type, const char* what) {
    if (now(p)->type != type) expected(p, what);
    take(p);
}

static Node* node_new(Parser* p, NodeKind kind, int line) {
    Node* n = jinja_new(p->in, sizeof *n);
    n->kind = (uint8_t)kind;
    n->line = line;
    return n;
}

void nodes_put(Parser* p, NodeList* l, Node* n) {
    if (!(l->n & (l->n - 1))) {  // a power of two: full
        Node** v = jinja_new(p->in, (size_t)(l->n ? 2 * l->n : 1) * sizeof *v);
        if (l->n) memcpy(v, l->v, (size_t)l->n * sizeof *v);
        l->v = v;
    }
    l->v[l->n++] = n;
}

static void enter(Parser* p) {
    if (++p->nesting > MAX_NESTING) {
        p->in->line = now(p)->line;
        jinja_fail(p->in, "nested more than %d deep", MAX_NESTING);
    }
}

typedef struct {
    bool simplified, namespaces, parentheses, no_condition;
    const char* end;
} TupleRules;

static Node* parse_expression(Parser* p);
static Node* parse_or(Parser* p);
static Node* parse_tuple(Parser* p, TupleRules rules);
static Node* parse_unary(Parser* p, bool with_filter);
static Node* parse_postfix(Parser* p, Node* n);
static Node* parse_filter(Parser* p, Node* n, bool inline_);
static void parse_statements(Parser* p, NodeList* body, const char* const* ends);

static Node* parse_primary(Parser* p, bool namespaces) {
    Token* t = now(p);
    Node* n;
    enter(p);
    if (t->type == T_NAME) {
        take(p);
        const char* s = t->name;
        if (!strcmp(s, "true") || !strcmp(s, "True") || !strcmp(s, "false") || !strcmp(s, "False")) {
            n = node_new(p, N_CONST, t->line);
            n->value = v_bool((*s | 32) == 't');
        } else if (!strcmp(s, "none") || !strcmp(s, "None")) {
            n = node_new(p, N_CONST, t->line);
            n->value = v_none();
        } else if (namespaces && skip_op(p, ".")) {
            n = node_new(p, N_NSREF, t->line);
            n->name = s;
            n->value = v_text(p->in, expect_name(p)->name);
        } else {
            n = node_new(p, N_NAME, t->line);
            n->name = s;
        }
    } else if (t->type == T_CONST) {
        take(p);
        n = node_new(p, N_CONST, t->line);
        n->value = t->value;
        if (t->string && now(p)->type == T_CONST && now(p)->string) {
            Builder b = {0};
            put_str(p->in, &b, t->value.s);
            while (now(p)->type == T_CONST && now(p)->string) put_str(p->in, &b, take(p)->value.s);
            n->value = built(p->in, &b);
        }
    } else if (skip_op(p, "(")) {
        n = parse_tuple(p, (TupleRules){.parentheses = true});
        expect_op(p, ")");
    } else if (skip_op(p, "[")) {
        n = node_new(p, N_LIST, t->line);
        while (!is_op(now(p), "]")) {
            if (n->items.n) expect_op(p, ",");
            if (is_op(now(p), "]")) break;
            nodes_put(p, &n->items, parse_expression(p));
        }
        expect_op(p, "]");
    } else if (skip_op(p, "{")) {
        n = node_new(p, N_DICT, t->line);
        while (!is_op(now(p), "}")) {
            if (n->items.n) expect_op(p, ",");
            if (is_op(now(p), "}")) break;
            nodes_put(p, &n->items, parse_expression(p));
            expect_op(p, ":");
            nodes_put(p, &n->other, parse_expression(p));
        }
        expect_op(p, "}");
    } else {
        char got[80];
        describe(t, got, sizeof got);
        p->in->line = t->line;
        jinja_fail(p->in, "unexpected '%s'", got);
    }
    p->nesting--;
    return n;
}

static Node* parse_tuple(Parser* p, TupleRules rules) {
    Node* tuple = node_new(p, N_TUPLE, now(p)->line);
    bool is_tuple = false;
    while (true) {
        if (tuple->items.n) expect_op(p, ",");
        Token* t = now(p);
        if (t->type == T_VARIABLE_END || t->type == T_BLOCK_END || is_op(t, ")") ||
            (rules.end && is_name(t, rules.end)))
            break;
        nodes_put(p, &tuple->items,
                  rules.simplified     ? parse_primary(p, rules.namespaces)
                  : rules.no_condition ? parse_or(p)
                                       : parse_expression(p));
        if (!is_op(now(p), ",")) break;
        is_tuple = true;
    }
    if (is_tuple) return tuple;
    if (tuple->items.n) return tuple->items.v[0];
    if (!rules.parentheses) {
        char got[80];
        describe(now(p), got, sizeof got);
        p->in->line = now(p)->line;
        jinja_fail(p->in, "Expected an expression, got '%s'", got);
    }
    return tuple;
}

static void parse_arguments(Parser* p, Node* call) {
    size_t room = 0;
    bool comma = false;
    expect_op(p, "(");
    while (!is_op(now(p), ")")) {
        if (comma) {
            expect_op(p, ",");
            if (is_op(now(p), ")")) break;
        }
        bool good = true;
        if (skip_op(p, "*")) {
            good = !call->star && !call->star2;
            call->star = parse_expression(p);
        } else if (skip_op(p, "**")) {
            good = !call->star2;
            call->star2 = parse_expression(p);
        } else if (now(p)->type == T_NAME && is_op(look(p), "=")) {
            good = !call->star2;
            const char* key = take(p)->name;
            take(p);
            call->keyword = array_room(p->in, call->keyword, (size_t)call->n_keywords, &room, sizeof *call->keyword);
            for (int i = 0; i < call->n_keywords; i++)
                if (call->keyword[i].key == key) jinja_fail(p->in, "keyword argument repeated: %s", key);
            call->keyword[call->n_keywords++] = (Keyword){key, parse_expression(p)};
        } else {
            good = !call->star && !call->star2 && !call->n_keywords;
            nodes_put(p, &call->items, parse_expression(p));
        }
        p->in->line = call->line;
        if (!good) jinja_fail(p->in, "invalid syntax for function call expression");
        comma = true;
    }
    expect_op(p, ")");
}

static Node* parse_call(Parser* p, Node* callee) {
    Node* n = node_new(p, N_CALL, now(p)->line);
    n->a = callee;
    parse_arguments(p, n);
    return n;
}

static Node* parse_subscribed(Parser* p) {
    int line = now(p)->line;
    Node* first = NULL;
    if (!is_op(now(p), ":")) {
        first = parse_expression(p);
        if (!is_op(now(p), ":")) return first;
    }
    Node* n = node_new(p, N_SLICE, line);
    n->a = first;
    take(p);
    if (!is_op(now(p), ":") && !is_op(now(p), "]") && !is_op(now(p), ",")) n->b = parse_expression(p);
    if (skip_op(p, ":") && !is_op(now(p), "]") && !is_op(now(p), ",")) n->c = parse_expression(p);
    return n;
}

static Node* parse_subscript(Parser* p, Node* of) {
    Token* t = take(p);
    Node* n;
    if (is_op(t, ".")) {
        Token* attribute = take(p);
        if (attribute->type == T_NAME) {
            n = node_new(p, N_GETATTR, t->line);
            n->name = attribute->name;
            n->value = v_text(p->in, attribute->name);
        } else {
            p->in->line = attribute->line;
            if (attribute->type != T_CONST || attribute->value.type != V_INT)
                jinja_fail(p->in, "expected name or number");
            n = node_new(p, N_GETITEM, t->line);
            n->b = node_new(p, N_CONST, attribute->line);
            n->b->value = attribute->value;
        }
        n->a = of;
        return n;
    }
    n = node_new(p, N_GETITEM, t->line);
    n->a = of;
    Node* tuple = node_new(p, N_TUPLE, t->line);
    while (!is_op(now(p), "]")) {
        if (tuple->items.n) expect_op(p, ",");
        nodes_put(p, &tuple->items, parse_subscribed(p));
    }
    expect_op(p, "]");
    n->b = tuple->items.n == 1 ? tuple->items.v[0] : tuple;
    return n;
}

static Node* parse_postfix(Parser* p, Node* n) {
    while (true) {
        if (is_op(now(p), ".") || is_op(now(p), "[")) n = parse_subscript(p, n);
        else if (is_op(now(p), "(")) n = parse_call(p, n);
        else return n;
    }
}

static const char* dotted_name(Parser* p) {
    const char* name = expect_name(p)->name;
    while (skip_op(p, ".")) {
        char both[256];
        snprintf(both, sizeof both, "%.120s.%.120s", name, expect_name(p)->name);
        name = intern_word(p, both, strlen(both));
    }
    return name;
}

static Node* parse_filter(Parser* p, Node* n, bool inline_) {
    while (is_op(now(p), "|") || inline_) {
        if (!inline_) take(p);
        Node* f = node_new(p, N_FILTER, now(p)->line);
        f->name = dotted_name(p);
        f->builtin = find_filter(f->name);
        f->a = n;
        if (is_op(now(p), "(")) parse_arguments(p, f);
        n = f;
        inline_ = false;
    }
    return n;
}

static Node* parse_test(Parser* p, Node* of) {
    Token* t = take(p);
    bool negated = skip_name(p, "not");
    Node* n = node_new(p, N_TEST, t->line);
    n->name = dotted_name(p);
    n->builtin = find_test(n->name);
    n->a = of;
    Token* next = now(p);
    if (is_op(next, "(")) parse_arguments(p, n);
    else if ((next->type == T_NAME || next->type == T_CONST || is_op(next, "[") || is_op(next, "{")) &&
             !is_name(next, "else") && !is_name(next, "or") && !is_name(next, "and")) {
        p->in->line = next->line;
        if (is_name(next, "is")) jinja_fail(p->in, "You cannot chain multiple tests with is");
        nodes_put(p, &n->items, parse_postfix(p, parse_primary(p, false)));
    }
    if (!negated) return n;
    Node* not = node_new(p, N_NOT, t->line);
    not ->a = n;
    return not ;
}

static Node* parse_unary(Parser* p, bool with_filter) {
    Token* t = now(p);
    Node* n;
    enter(p);
    if (is_op(t, "-") || is_op(t, "+")) {
        take(p);
        n = node_new(p, is_op(t, "-") ? N_NEG : N_POS, t->line);
        n->a = parse_unary(p, false);
    } else n = parse_primary(p, false);
    n = parse_postfix(p, n);
    while (with_filter) {
        if (is_op(now(p), "|")) n = parse_filter(p, n, false);
        else if (is_name(now(p), "is")) n = parse_test(p, n);
        else if (is_op(now(p), "(")) n = parse_call(p, n);
        else break;
    }
    p->nesting--;
    return n;
}

static Node* pair(Parser* p, NodeKind kind, int op, Node* a, Node* b, int line) {
    Node* n = node_new(p, kind, line);
    n->op = (uint8_t)op;
    n->a = a;
    n->b = b;
    return n;
}

static Node* parse_pow(Parser* p) {
    int line = now(p)->line;
    Node* n = parse_unary(p, true);
    while (skip_op(p, "**")) n = pair(p, N_BINARY, OP_POW, n, parse_unary(p, true), line);
    return n;
}

static Node* parse_product(Parser* p) {
    int line = now(p)->line;
    Node* n = parse_pow(p);
    while (true) {
        Token* t = now(p);
        int op = is_op(t, "*")    ? OP_MUL
                 : is_op(t, "/")  ? OP_DIV
                 : is_op(t, "//") ? OP_FLOORDIV
                 : is_op(t, "%")  ? OP_MOD
                                  : -1;
        if (op < 0) return n;
        take(p);
        n = pair(p, N_BINARY, op, n, parse_pow(p), line);
    }
}

static Node* parse_concat(Parser* p) {
    int line = now(p)->line;
    Node* first = parse_product(p);
    if (!is_op(now(p), "~")) return first;
    Node* n = node_new(p, N_CONCAT, line);
    nodes_put(p, &n->items, first);
    while (skip_op(p, "~")) nodes_put(p, &n->items, parse_product(p));
    return n;
}

static Node* parse_sum(Parser* p) {
    int line = now(p)->line;
    Node* n = parse_concat(p);
    while (is_op(now(p), "+") || is_op(now(p), "-")) {
        int op = is_op(take(p), "+") ? OP_ADD : OP_SUB;
        n = pair(p, N_BINARY, op, n, parse_concat(p), line);
    }
    return n;
}

static Node* parse_compare(Parser* p) {
    static const char* const ops[] = {"==", "!=", "<", "<=", ">", ">="};
    int line = now(p)->line;
    Node *first = parse_sum(p), *n = NULL;
    size_t room = 0;
    while (true) {
        int op = -1;
        for (int i = 0; i < 6; i++)
            if (is_op(now(p), ops[i])) op = i;
        if (is_name(now(p), "in")) op = CMP_IN;
        if (is_name(now(p), "not") && is_name(look(p), "in")) {
            take(p);
            op = CMP_NOTIN;
        }
        if (op < 0) break;
        take(p);
        if (!n) {
            n = node_new(p, N_COMPARE, line);
            n->a = first;
        }
        n->ops = array_room(p->in, n->ops, (size_t)n->items.n, &room, 1);
        n->ops[n->items.n] = (uint8_t)op;
        nodes_put(p, &n->items, parse_sum(p));
    }
    return n ? n : first;
}

static Node* parse_not(Parser* p) {
    Token* t = now(p);
    if (!skip_name(p, "not")) return parse_compare(p);
    Node* n = node_new(p, N_NOT, t->line);
    enter(p);
    n->a = parse_not(p);
    p->nesting--;
    return n;
}

static Node* parse_and(Parser* p) {
    int line = now(p)->line;
    Node* n = parse_not(p);
    while (skip_name(p, "and")) n = pair(p, N_AND, 0, n, parse_not(p), line);
    return n;
}

static Node* parse_or(Parser* p) {
    int line = now(p)->line;
    Node* n = parse_and(p);
    while (skip_name(p, "or")) n = pair(p, N_OR, 0, n, parse_and(p), line);
    return n;
}

static Node* parse_expression(Parser* p) {
    int line = now(p)->line;
    enter(p);
    Node* n = parse_or(p);
    while (skip_name(p, "if")) {
        Node* condition = node_new(p, N_CONDITION, line);
        condition->b = n;
        condition->a = parse_or(p);
        if (skip_name(p, "else")) condition->c = parse_expression(p);
        n = condition;
        line = now(p)->line;
    }
    p->nesting--;
    return n;
}

// ---- statements ------------------------------------------------------------------------------------

static void assignable(Parser* p, Node* n, NameUse use) {
    p->in->line = n->line;
    if (n->kind == N_TUPLE)
        for (int i = 0; i < n->items.n; i++) assignable(p, n->items.v[i], use);
    else if (n->kind == N_NAME) n->op = (uint8_t)use;
    else if (n->kind != N_NSREF)
        jinja_fail(p->in, "can't assign to '%s'", n->kind == N_CONST ? "const" : n->kind == N_LIST ? "list" : "dict");
}

static Node* parse_target(Parser* p, const char* end, bool namespaces) {
    Node* n = parse_tuple(p, (TupleRules){.simplified = true, .namespaces = namespaces, .end = end});
    assignable(p, n, NAME_STORE);
    return n;
}

static Node* name_node(Parser* p, NameUse use) {
    Token* t = expect_name(p);
    p->in->line = t->line;
    Node* n = node_new(p, N_NAME, t->line);
    n->name = t->name;
    n->op = (uint8_t)use;
    return n;
}

static void parse_signature(Parser* p, Node* n) {
    expect_op(p, "(");
    while (!is_op(now(p), ")")) {
        if (n->other.n) expect_op(p, ",");
        Node* parameter = name_node(p, NAME_PARAMETER);
        for (int i = 0; i < n->other.n; i++)
            if (n->other.v[i]->name == parameter->name) jinja_fail(p->in, "duplicate argument '%s'", parameter->name);
        if (skip_op(p, "=")) nodes_put(p, &n->defaults, parse_expression(p));
        else if (n->defaults.n) jinja_fail(p->in, "non-default argument follows default argument");
        nodes_put(p, &n->other, parameter);
    }
    expect_op(p, ")");
}

#define ENDS(...) ((const char* const[]){__VA_ARGS__, NULL})

static Node* parse_for(Parser* p, int line) {
    Node* n = node_new(p, N_FOR, line);
    n->a = parse_target(p, "in", false);
    if (!skip_name(p, "in")) expected(p, "in");
    n->b = parse_tuple(p, (TupleRules){.no_condition = true, .end = "recursive"});
    if (skip_name(p, "if")) n->c = parse_expression(p);
    n->flag = skip_name(p, "recursive");
    parse_statements(p, &n->items, ENDS("endfor", "else"));
    if (is_name(take(p), "else")) {
        parse_statements(p, &n->other, ENDS("endfor"));
        take(p);
    }
    return n;
}

static Node* parse_if(Parser* p, int line) {
    Node *n = node_new(p, N_IF, line), *part = n;
    while (true) {
        part->a = parse_tuple(p, (TupleRules){.no_condition = true});
        parse_statements(p, &part->items, ENDS("elif", "else", "endif"));
        Token* t = take(p);
        if (is_name(t, "elif")) {
            part = node_new(p, N_IF, now(p)->line);
            nodes_put(p, &n->defaults, part);
            continue;
        }
        if (is_name(t, "else")) {
            parse_statements(p, &n->other, ENDS("endif"));
            take(p);
        }
        return n;
    }
}

static Node* parse_set(Parser* p, int line) {
    Node* target = parse_target(p, NULL, true);
    if (skip_op(p, "=")) {
        Node* n = node_new(p, N_SET, line);
        n->a = target;
        n->b = parse_tuple(p, (TupleRules){0});
        return n;
    }
    Node* n = node_new(p, N_SET_BLOCK, line);
    n->a = target;
    n->b = parse_filter(p, NULL, false);
    parse_statements(p, &n->items, ENDS("endset"));
    take(p);
    return n;
}

static Node* parse_with(Parser* p, int line) {
    Node* n = node_new(p, N_WITH, line);
    while (now(p)->type != T_BLOCK_END) {
        if (n->defaults.n) expect_op(p, ",");
        Node* target = parse_target(p, NULL, false);
        assignable(p, target, NAME_PARAMETER);
        nodes_put(p, &n->defaults, target);
        expect_op(p, "=");
        nodes_put(p, &n->other, parse_expression(p));
    }
    parse_statements(p, &n->items, ENDS("endwith"));
    take(p);
    return n;
}

static void parse_statement(Parser* p, NodeList* body) {
    Token* t = now(p);
    p->in->line = t->line;
    if (t->type != T_NAME) jinja_fail(p->in, "tag name expected");
    const char* tag = take(p)->name;
    Node* n;
    enter(p);
    if (!strcmp(tag, "for")) n = parse_for(p, t->line);
    else if (!strcmp(tag, "if")) n = parse_if(p, t->line);
    else if (!strcmp(tag, "set")) n = parse_set(p, t->line);
    else if (!strcmp(tag, "with")) n = parse_with(p, t->line);
    else if (!strcmp(tag, "macro")) {
        n = node_new(p, N_MACRO, t->line);
        n->name = expect_name(p)->name;
        parse_signature(p, n);
        parse_statements(p, &n->items, ENDS("endmacro"));
        take(p);
    } else if (!strcmp(tag, "call")) {
        n = node_new(p, N_CALL_BLOCK, t->line);
        if (is_op(now(p), "(")) parse_signature(p, n);
        n->a = parse_expression(p);
        p->in->line = t->line;
        if (n->a->kind != N_CALL) jinja_fail(p->in, "expected call");
        parse_statements(p, &n->items, ENDS("endcall"));
        take(p);
    } else if (!strcmp(tag, "filter")) {
        n = node_new(p, N_FILTER_BLOCK, t->line);
        n->a = parse_filter(p, NULL, true);
        parse_statements(p, &n->items, ENDS("endfilter"));
        take(p);
    } else if (!strcmp(tag, "generation")) {
        n = node_new(p, N_GENERATION, t->line);
        parse_statements(p, &n->items, ENDS("endgeneration"));
        take(p);
    } else if (!strcmp(tag, "print")) {
        n = NULL;
        for (bool first = true; now(p)->type != T_BLOCK_END; first = false) {
            if (!first) expect_op(p, ",");
            n = node_new(p, N_PRINT, t->line);
            n->a = parse_expression(p);
            nodes_put(p, body, n);
        }
        n = NULL;
    } else if (!strcmp(tag, "break") || !strcmp(tag, "continue"))
        n = node_new(p, *tag == 'b' ? N_BREAK : N_CONTINUE, t->line);
    else {
        static const char* const known[] = {"block", "extends", "include", "import", "from", "autoescape"};
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            if (!strcmp(tag, known[i])) jinja_fail(p->in, "{%% %s %%} is not supported in a chat template", tag);
        jinja_fail(p->in, "Encountered unknown tag '%s'.", tag);
    }
    p->nesting--;
    if (n) nodes_put(p, body, n);
}

// Until one of the tags `ends`, which stays to be taken; ends NULL: the end of the template.
static void subparse(Parser* p, NodeList* body, const char* const* ends) {
    while (now(p)->type != T_END) {
        Token* t = take(p);
        if (t->type == T_TEXT) {
            Node* n = node_new(p, N_TEXT, t->line);
            n->value = t->value;
            nodes_put(p, body, n);
        } else if (t->type == T_VARIABLE) {
            Node* n = node_new(p, N_PRINT, t->line);
            n->a = parse_tuple(p, (TupleRules){0});
            nodes_put(p, body, n);
            expect(p, T_VARIABLE_END, "end of print statement");
        } else {
            for (int i = 0; ends && ends[i]; i++)
                if (is_name(now(p), ends[i])) return;
            parse_statement(p, body);
            expect(p, T_BLOCK_END, "end of statement block");
        }
    }
    p->in->line = now(p)->line;
    if (ends) jinja_fail(p->in, "Unexpected end of template. Jinja was looking for the tag '%s'", ends[0]);
}

static void parse_statements(Parser* p, NodeList* body, const char* const* ends) {
    skip_op(p, ":");
    expect(p, T_BLOCK_END, "end of statement block");
    subparse(p, body, ends);
}

bool jinja_parse(Interp* in, JinjaTemplate* t, const char* source, size_t n) {
    Parser p = {.in = in, .t = t, .line = 1};
    char* text = jinja_new(in, n + 1);
    for (size_t i = 0; i < n; i++) {  // lines end in \n, and the last one's end is not the template's
        if (source[i] == '\r') {
            text[p.n++] = '\n';
            if (i + 1 < n && source[i + 1] == '\n') i++;
        } else text[p.n++] = source[i];
    }
    if (p.n && text[p.n - 1] == '\n') p.n--;
    p.s = text;
    lex_template(&p);
    t->root = node_new(&p, N_MACRO, 1);
    subparse(&p, &t->root->items, NULL);
    resolve_names(&p, t->root);
    return true;
}
