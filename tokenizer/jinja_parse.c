/*
Templates to trees: Jinja's lexer with trim_blocks and lstrip_blocks, its grammar, and its rule which variable a name
means. The last is decided before anything runs: a name that a scope assigns belongs to that scope, and is what it was
outside when the scope is entered; a name that nobody assigns is looked up among the variables of the rendering.
*/
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include "tokenizer_internal.h"
#include "jinja_internal.h"

#define MAX_NESTING 200

typedef enum { T_TEXT, T_VARIABLE, T_VARIABLE_END, T_BLOCK, T_BLOCK_END, T_NAME, T_CONST, T_OP, T_END } TokenType;
typedef struct {
    TokenType type;
    int line;
    bool string;
    const char* name;  // NAME, OP: interned
    Value value;       // CONST, TEXT
} Token;

typedef struct {
    Interp* in;
    JinjaTemplate* t;
    const char* s;
    size_t n, at, counted;
    int line;
    bool line_starting;
    Token* token;
    size_t n_tokens, room, next;
    char brackets[256];
    int n_brackets;
    int nesting;
} Parser;

// Room for one more in an array of the template's memory.
static void* grow(Interp* in, void* old, size_t n, size_t* room, size_t size) {
    if (n < *room) return old;
    size_t more = *room ? 2 * *room : 8;
    void* now = jinja_new(in, more * size);
    if (n) memcpy(now, old, n * size);
    *room = more;
    return now;
}

static const char* intern(Parser* p, const char* text, size_t n) {
    JinjaTemplate* t = p->t;
    for (size_t i = 0; i < t->n_words; i++)
        if (strlen(t->words[i]) == n && !memcmp(t->words[i], text, n)) return t->words[i];
    char* word = jinja_new(p->in, n + 1);
    memcpy(word, text, n);
    t->words = grow(p->in, t->words, t->n_words, &t->room_words, sizeof *t->words);
    return t->words[t->n_words++] = word;
}

// ---- tokens ----------------------------------------------------------------------------------------

static int line_at(Parser* p, size_t at) {
    for (; p->counted < at && p->counted < p->n; p->counted++) p->line += p->s[p->counted] == '\n';
    return p->line;
}

static Token* token_put(Parser* p, TokenType type, size_t at) {
    p->token = grow(p->in, p->token, p->n_tokens, &p->room, sizeof *p->token);
    Token* t = &p->token[p->n_tokens++];
    *t = (Token){.type = type, .line = line_at(p, at)};
    return t;
}

static void lex_fail(Parser* p, size_t at, const char* what) {
    p->in->line = line_at(p, at);
    jinja_fail(p->in, "%s", what);
}

static size_t skip_space(const Parser* p, size_t at) {
    int32_t c;
    for (int n; at < p->n; at += (size_t)n) {
        n = char_at(p->s + at, p->s + p->n, &c);
        if (!is_space_(c)) break;
    }
    return at;
}

static bool is_at(const Parser* p, size_t at, const char* what) {
    size_t n = strlen(what);
    return p->n - at >= n && at <= p->n && !memcmp(p->s + at, what, n);
}

// Text before a tag, less what the tag's sign and lstrip_blocks take off its end.
static void put_data(Parser* p, size_t from, size_t to, char sign, bool variable) {
    size_t end = to;
    if (sign == '-') {
        Str s = {.p = p->s + from, .n = to - from, .length = -1};
        end = from + str_strip(p->in, &s, v_missing(), false, true).s->n;
    } else if (sign != '+' && !variable) {
        size_t line = to;
        while (line > from && p->s[line - 1] != '\n') line--;
        if ((line > from || p->line_starting) && skip_space(p, line) >= to) end = line;
    }
    if (end > from) token_put(p, T_TEXT, from)->value = v_string(p->in, p->s + from, end - from, NULL);
}

static char sign_at(const Parser* p, size_t at) {
    return at < p->n && (p->s[at] == '-' || p->s[at] == '+') ? p->s[at] : 0;
}

// The end of a tag at `at`: %} with its sign, and what it takes along. 0: none here.
static size_t tag_end(const Parser* p, size_t at, const char* end, bool trims, bool plus) {
    if (is_at(p, at, end)) return at + 2 + (trims && at + 2 < p->n && p->s[at + 2] == '\n');
    char sign = sign_at(p, at);
    if (sign == '-' && is_at(p, at + 1, end)) return skip_space(p, at + 3);
    if (sign == '+' && plus && is_at(p, at + 1, end)) return at + 3;
    return 0;
}

// {% raw %} at `at`: where what it keeps begins; 0: it is not one.
static size_t raw_begin(const Parser* p, size_t at) {
    at = skip_space(p, at + 2 + (sign_at(p, at + 2) != 0));
    if (!is_at(p, at, "raw")) return 0;
    at = skip_space(p, at + 3);
    return tag_end(p, at, "%}", false, false);
}

static size_t lex_raw(Parser* p, size_t from) {
    for (size_t at = from; at + 1 < p->n; at++) {
        if (!is_at(p, at, "{%")) continue;
        char sign = sign_at(p, at + 2);
        size_t end = skip_space(p, at + 2 + (sign != 0));
        if (!is_at(p, end, "endraw")) continue;
        end = tag_end(p, skip_space(p, end + 6), "%}", true, true);
        if (!end) continue;
        p->line_starting = from && p->s[from - 1] == '\n';
        put_data(p, from, at, sign, false);
        return end;
    }
    lex_fail(p, from, "Missing end of raw directive");
    return 0;
}

static size_t lex_comment(Parser* p, size_t from) {
    for (size_t at = from; at + 1 < p->n; at++) {
        size_t end = tag_end(p, at, "#}", true, true);
        if (end) return end;
    }
    lex_fail(p, from, "Missing end of comment tag");
    return 0;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

// Between the quotes, with Python's escapes.
static Value unescape(Parser* p, size_t from, size_t to) {
    static const char letters[] = "abfnrtv\\'\"", values[] = "\a\b\f\n\r\t\v\\'\"";
    Builder b = {0};
    const char* s = p->s;
    for (size_t i = from; i < to;) {
        size_t stop = i;
        while (stop < to && s[stop] != '\\') stop++;
        put(p->in, &b, s + i, stop - i, NULL);
        if ((i = stop) >= to) break;
        char c = i + 1 < to ? s[i + 1] : 0;
        const char* known = c ? strchr(letters, c) : NULL;
        int digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
        i += 2;
        if (known) put(p->in, &b, &values[known - letters], 1, NULL);
        else if (c == '\n') continue;
        else if (c >= '0' && c <= '7') {
            int32_t code = 0;
            i--;
            for (int d = 0; d < 3 && i < to && s[i] >= '0' && s[i] <= '7'; d++) code = code * 8 + s[i++] - '0';
            put_char(p->in, &b, code, NULL);
        } else if (digits) {
            uint32_t code = 0;
            for (int d = 0; d < digits; d++, i++) {
                int h = i < to ? hex_digit(s[i]) : -1;
                if (h < 0) lex_fail(p, from, "truncated escape in a text between quotes");
                code = code * 16 + (uint32_t)h;
            }
            if (code > 0x10FFFF) lex_fail(p, from, "illegal Unicode character in a text between quotes");
            put_char(p->in, &b, (int32_t)code, NULL);
        } else if (c == 'N') lex_fail(p, from, "the escape \\N{name} is not supported");
        else if ((unsigned char)c >= 0x80) {  // Python escapes the character first, and finds an unknown escape then
            int32_t code;
            char text[16];
            i = i - 1 + (size_t)char_at(s + i - 1, s + to, &code);
            snprintf(text, sizeof text,
                     code < 0x100     ? "\\x%02x"
                     : code < 0x10000 ? "\\u%04x"
                                      : "\\U%08x",
                     (unsigned)code);
            put_text_(p->in, &b, text);
        } else put(p->in, &b, s + i - 2, 2, NULL);
    }
    return built(p->in, &b);
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Digits with single underscores between them; returns their end, `at` where there are none.
static size_t digits_end(const Parser* p, size_t at) {
    size_t end = at;
    while (end < p->n &&
           (is_digit(p->s[end]) || (p->s[end] == '_' && end > at && end + 1 < p->n && is_digit(p->s[end + 1]))))
        end++;
    return end;
}

static size_t lex_number(Parser* p, size_t at) {
    const char* s = p->s;
    size_t whole = digits_end(p, at), end = whole, exponent;
    bool real = false, after_dot = at && s[at - 1] == '.';
    if (!after_dot && end < p->n && s[end] == '.' && digits_end(p, end + 1) > end + 1) {
        end = digits_end(p, end + 1);
        real = true;
    }
    if (!after_dot && end < p->n && (s[end] | 32) == 'e') {
        exponent = end + 1 + (sign_at(p, end + 1) != 0);
        if (digits_end(p, exponent) > exponent) {
            end = digits_end(p, exponent);
            real = true;
        }
    }
    int base = s[at] != '0' || at + 1 >= p->n ? 10
               : (s[at + 1] | 32) == 'x'      ? 16
               : (s[at + 1] | 32) == 'o'      ? 8
               : (s[at + 1] | 32) == 'b'      ? 2
                                              : 10;
    if (!real && base != 10) {
        size_t i = at + 2;
        while (i < p->n) {
            size_t d = i + (s[i] == '_');
            if (d >= p->n || hex_digit(s[d]) < 0 || hex_digit(s[d]) >= base) break;
            i = d + 1;
        }
        if (i > at + 2) end = i;
        else base = 10;
    }
    if (!real && base == 10) {
        end = at;
        if (s[at] == '0') {
            end = at + 1;
            while (end < p->n && (s[end] == '0' || (s[end] == '_' && end + 1 < p->n && s[end + 1] == '0'))) end++;
        } else end = whole;
    }
    char* text = jinja_new(p->in, end - at + 1);
    size_t n = 0;
    for (size_t i = at; i < end; i++)
        if (s[i] != '_') text[n++] = s[i];
    Token* t = token_put(p, T_CONST, at);
    if (real) t->value = v_float(strtod(text, NULL));
    else if (base == 10) t->value = integer_from(p->in, text, n, NULL);
    else {
        errno = 0;
        unsigned long long u = strtoull(text + 2, NULL, base);
        if (errno || u > INT64_MAX) lex_fail(p, at, "a number beyond 64 bits");
        t->value = v_int((int64_t)u);
    }
    return end;
}

static size_t lex_operator(Parser* p, size_t at) {
    static const char* const operators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                            "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!is_at(p, at, operators[i])) continue;
        char c = *operators[i], wanted = c == '(' ? ')' : c == '[' ? ']' : c == '{' ? '}' : 0;
        char message[64];
        if (wanted) {
            if (p->n_brackets == (int)sizeof p->brackets) lex_fail(p, at, "brackets are nested too deeply");
            p->brackets[p->n_brackets++] = wanted;
        } else if (c == ')' || c == ']' || c == '}') {
            snprintf(message, sizeof message, "unexpected '%c'", c);
            if (!p->n_brackets) lex_fail(p, at, message);
            snprintf(message, sizeof message, "unexpected '%c', expected '%c'", c, p->brackets[p->n_brackets - 1]);
            if (p->brackets[--p->n_brackets] != c) lex_fail(p, at, message);
        }
        token_put(p, T_OP, at)->name = intern(p, operators[i], strlen(operators[i]));
        return at + strlen(operators[i]);
    }
    char message[64];
    int32_t c;
    int n = char_at(p->s + at, p->s + p->n, &c);
    snprintf(message, sizeof message, "unexpected char '%.*s'", n, p->s + at);
    lex_fail(p, at, message);
    return 0;
}

// From after {{ or {% to after its end.
static size_t lex_tag(Parser* p, size_t at, bool variable) {
    const char* s = p->s;
    p->n_brackets = 0;
    while (at < p->n) {
        size_t end = p->n_brackets ? 0 : tag_end(p, at, variable ? "}}" : "%}", !variable, !variable);
        int32_t c;
        if (end) {
            token_put(p, variable ? T_VARIABLE_END : T_BLOCK_END, at);
            return end;
        }
        char_at(s + at, s + p->n, &c);
        if (is_space_(c)) at = skip_space(p, at);
        else if (is_digit(s[at])) at = lex_number(p, at);
        else if (is_word(c) || c == '_') {
            size_t from = at;
            for (int n; at < p->n; at += (size_t)n) {
                n = char_at(s + at, s + p->n, &c);
                if (!is_word(c) && c != '_') break;
            }
            token_put(p, T_NAME, from)->name = intern(p, s + from, at - from);
        } else if (c == '"' || c == '\'') {
            size_t to = at + 1;
            while (to < p->n && s[to] != c) to += s[to] == '\\' ? 2 : 1;
            if (to >= p->n) {
                at = lex_operator(p, at);
                continue;
            }
            Value text = unescape(p, at + 1, to);
            Token* t = token_put(p, T_CONST, at);
            t->value = text;
            t->string = true;
            intern(p, text.s->p ? text.s->p : "", text.s->n);
            at = to + 1;
        } else at = lex_operator(p, at);
    }
    return at;
}

static void lex(Parser* p) {
    size_t at = 0;
    p->line_starting = true;
    while (at < p->n) {
        size_t tag = at;
        while (tag + 1 < p->n && !(p->s[tag] == '{' && strchr("%{#", p->s[tag + 1]) && p->s[tag + 1])) tag++;
        if (tag + 1 >= p->n) {
            token_put(p, T_TEXT, at)->value = v_string(p->in, p->s + at, p->n - at, NULL);
            break;
        }
        char kind = p->s[tag + 1], sign = sign_at(p, tag + 2);
        size_t raw = kind == '%' ? raw_begin(p, tag) : 0;
        put_data(p, at, tag, sign, kind == '{');
        at = tag + 2 + (sign != 0);
        if (raw) at = lex_raw(p, raw);
        else if (kind == '#') at = lex_comment(p, at);
        else {
            token_put(p, kind == '{' ? T_VARIABLE : T_BLOCK, tag);
            at = lex_tag(p, at, kind == '{');
        }
        p->line_starting = at && p->s[at - 1] == '\n';
    }
    token_put(p, T_END, p->n);
}

// ---- grammar ---------------------------------------------------------------------------------------

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

static void nodes_put(Parser* p, NodeList* l, Node* n) {
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
            call->keyword = grow(p->in, call->keyword, (size_t)call->n_keywords, &room, sizeof *call->keyword);
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
        name = intern(p, both, strlen(both));
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
        n->ops = grow(p->in, n->ops, (size_t)n->items.n, &room, 1);
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

// ---- names -----------------------------------------------------------------------------------------

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
    f->slot = grow(p->in, f->slot, f->n, &f->room, sizeof *f->slot);
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
    s->ref = grow(p->in, s->ref, s->n_refs, &s->room_refs, sizeof *s->ref);
    s->ref[s->n_refs++] = (Ref){name, id};
}

static void set_load(Parser* p, Symbols* s, LoadOf load) {
    for (size_t i = 0; i < s->n_loads; i++)
        if (s->load[i].id.f == load.id.f && s->load[i].id.slot == load.id.slot) {
            s->load[i] = load;
            return;
        }
    s->load = grow(p->in, s->load, s->n_loads, &s->room_loads, sizeof *s->load);
    s->load[s->n_loads++] = load;
}

static bool has_store(const Symbols* s, const char* name) {
    for (size_t i = 0; i < s->n_stores; i++)
        if (s->store[i] == name) return true;
    return false;
}

static void set_store(Parser* p, Symbols* s, const char* name) {
    if (has_store(s, name)) return;
    s->store = grow(p->in, s->store, s->n_stores, &s->room_stores, sizeof *s->store);
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
    Search search = {.name = intern(p, name, strlen(name))};
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
    if (n->flag && !caller) n->caller_slot = declare_parameter(p, f.s, intern(p, "caller", 6)).slot;
    n->kwargs = uses(p, &n->items, "kwargs") && !kwargs;
    if (n->kwargs) n->kwargs_slot = declare_parameter(p, f.s, intern(p, "kwargs", 6)).slot;
    n->varargs = uses(p, &n->items, "varargs") && !kwargs;
    if (n->varargs) n->varargs_slot = declare_parameter(p, f.s, intern(p, "varargs", 7)).slot;
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
    if (n->flag2) n->loop_slot = declare_parameter(p, body.s, intern(p, "loop", 4)).slot;
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
    lex(&p);
    t->root = node_new(&p, N_MACRO, 1);
    subparse(&p, &t->root->items, NULL);
    Frame f = {inner(&p, NULL, true), false, false};
    each_of(&p, &t->root->items, symbols_visit, f.s);
    annotate_all(&p, &t->root->items, &f);
    t->root->scope = scope_of(&p, f.s);
    t->root->n_slots = (int)f.s->f->n;
    return true;
}
