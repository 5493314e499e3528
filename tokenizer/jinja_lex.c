/* Templates to tokens: Jinja's lexer with trim_blocks and lstrip_blocks. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "tokenizer_internal.h"
#include "jinja_parse.h"

void* array_room(Interp* in, void* old, size_t n, size_t* room, size_t size) {
    if (n < *room) return old;
    size_t more = *room ? 2 * *room : 8;
    void* now = jinja_new(in, more * size);
    if (n) memcpy(now, old, n * size);
    *room = more;
    return now;
}

const char* intern_word(Parser* p, const char* text, size_t n) {
    JinjaTemplate* t = p->t;
    for (size_t i = 0; i < t->n_words; i++)
        if (strlen(t->words[i]) == n && !memcmp(t->words[i], text, n)) return t->words[i];
    char* word = jinja_new(p->in, n + 1);
    memcpy(word, text, n);
    t->words = array_room(p->in, t->words, t->n_words, &t->room_words, sizeof *t->words);
    return t->words[t->n_words++] = word;
}

static int line_at(Parser* p, size_t at) {
    for (; p->counted < at && p->counted < p->n; p->counted++) p->line += p->s[p->counted] == '\n';
    return p->line;
}

static Token* token_put(Parser* p, TokenType type, size_t at) {
    p->token = array_room(p->in, p->token, p->n_tokens, &p->room, sizeof *p->token);
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
        token_put(p, T_OP, at)->name = intern_word(p, operators[i], strlen(operators[i]));
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
            token_put(p, T_NAME, from)->name = intern_word(p, s + from, at - from);
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
            intern_word(p, text.s->p ? text.s->p : "", text.s->n);
            at = to + 1;
        } else at = lex_operator(p, at);
    }
    return at;
}

void lex_template(Parser* p) {
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
