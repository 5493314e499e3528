/*
Python's values as text, and back: str(), repr() and json.dumps of a value, and the reader of the JSON that a row is.
*/
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include "tokenizer_internal.h"
#include "jinja_internal.h"

#define MAX_JSON_DEPTH 200

// ---- printing --------------------------------------------------------------------------------------

// The shortest decimal that reads back as f, as Python writes it.
void float_repr(double f, char out[32]) {
    if (isnan(f)) {
        strcpy(out, "nan");
        return;
    }
    if (isinf(f)) {
        strcpy(out, f < 0 ? "-inf" : "inf");
        return;
    }
    char e[40];
    for (int precision = 0; precision < 17; precision++) {
        snprintf(e, sizeof e, "%.*e", precision, f);
        if (strtod(e, NULL) == f) break;
    }
    char digits[24] = "", *o = out;
    int n = 0, exponent = atoi(strchr(e, 'e') + 1);
    for (char* p = e; *p != 'e'; p++)
        if (isdigit((unsigned char)*p)) digits[n++] = *p;
    while (n > 1 && digits[n - 1] == '0') n--;
    if (*e == '-') *o++ = '-';
    if (exponent < -4 || exponent >= 16) {
        *o++ = digits[0];
        if (n > 1) *o++ = '.';
        for (int i = 1; i < n; i++) *o++ = digits[i];
        sprintf(o, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (exponent < 0) {
        *o++ = '0';
        *o++ = '.';
        for (int i = 1; i < -exponent; i++) *o++ = '0';
        for (int i = 0; i < n; i++) *o++ = digits[i];
    } else {
        for (int i = 0; i <= exponent; i++) *o++ = i < n ? digits[i] : '0';
        *o++ = '.';
        if (n <= exponent + 1) *o++ = '0';
        for (int i = exponent + 1; i < n; i++) *o++ = digits[i];
    }
    *o = 0;
}

static void put_text_repr(Interp* in, Builder* b, const Str* s) {
    char quote = memchr(s->n ? s->p : "", '\'', s->n) && !memchr(s->p, '"', s->n) ? '"' : '\'';
    const char *p = s->p, *end = p + s->n;
    put(in, b, &quote, 1, NULL);
    while (p < end) {
        int32_t c;
        int n = char_at(p, end, &c);
        char escaped[16] = "";
        if (c == quote || c == '\\') snprintf(escaped, sizeof escaped, "\\%c", (char)c);
        else if (c == '\n') strcpy(escaped, "\\n");
        else if (c == '\r') strcpy(escaped, "\\r");
        else if (c == '\t') strcpy(escaped, "\\t");
        else if (!is_printable_(c))
            snprintf(escaped, sizeof escaped, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
        if (*escaped) put(in, b, escaped, strlen(escaped), s);
        else put(in, b, p, (size_t)n, s);
        p += n;
    }
    put(in, b, &quote, 1, NULL);
}

static void put_pair(Interp* in, Builder* b, const Pair* p, bool tuple) {
    if (tuple) put_text_(in, b, "(");
    put_repr(in, b, p->key);
    put_text_(in, b, tuple ? ", " : ": ");
    put_repr(in, b, p->value);
    if (tuple) put_text_(in, b, ")");
}

void put_repr(Interp* in, Builder* b, Value v) {
    char text[64];
    if (++in->depth > in->limits.depth) jinja_fail(in, "values are nested too deeply");
    jinja_work(in, 0);
    switch (v.type) {
        case V_UNDEFINED: put_text_(in, b, "Undefined"); break;
        case V_STRING:
            if (v.s->markup) put_text_(in, b, "Markup(");
            put_text_repr(in, b, v.s);
            if (v.s->markup) put_text_(in, b, ")");
            break;
        case V_LIST:
        case V_TUPLE:
            put_text_(in, b, v.type == V_LIST ? "[" : "(");
            for (size_t i = 0; i < v.list->n; i++) {
                if (i) put_text_(in, b, ", ");
                put_repr(in, b, v.list->v[i]);
            }
            put_text_(in, b, v.type == V_LIST ? "]" : v.list->n == 1 ? ",)" : ")");
            break;
        case V_NAMESPACE:
        case V_DICT:
            put_text_(in, b, v.type == V_DICT ? "{" : "<Namespace {");
            for (size_t i = 0; i < v.dict->n; i++) {
                if (i) put_text_(in, b, ", ");
                put_pair(in, b, &v.dict->pair[i], false);
            }
            put_text_(in, b, v.type == V_DICT ? "}" : "}>");
            break;
        case V_KEYS:
        case V_VALUES:
        case V_ITEMS:
            put_text_(in, b, type_name(v));
            put_text_(in, b, "([");
            for (size_t i = 0; i < v.dict->n; i++) {
                if (i) put_text_(in, b, ", ");
                if (v.type == V_ITEMS) put_pair(in, b, &v.dict->pair[i], true);
                else put_repr(in, b, v.type == V_KEYS ? v.dict->pair[i].key : v.dict->pair[i].value);
            }
            put_text_(in, b, "])");
            break;
        case V_RANGE:
            if (v.range->step == 1)
                snprintf(text, sizeof text, "range(%lld, %lld)", (long long)v.range->start, (long long)v.range->stop);
            else
                snprintf(text, sizeof text, "range(%lld, %lld, %lld)", (long long)v.range->start,
                         (long long)v.range->stop, (long long)v.range->step);
            put_text_(in, b, text);
            break;
        case V_MACRO:
            put_text_(in, b, "<Macro ");
            if (v.macro->name) put_repr(in, b, v_text(in, v.macro->name));
            else put_text_(in, b, "anonymous");
            put_text_(in, b, ">");
            break;
        case V_LOOP:
            snprintf(text, sizeof text, "<LoopContext %lld/%lld>", (long long)v.loop->index0 + 1,
                     (long long)loop_attribute(in, v.loop, "length").i);
            put_text_(in, b, text);
            break;
        case V_ITERATOR:
        case V_FUNCTION:
        case V_METHOD:
        case V_CYCLER:
        case V_JOINER: jinja_fail(in, "prints a %s, which shows an address of memory", type_name(v));
        default: put_value(in, b, v);
    }
    in->depth--;
}

void put_value(Interp* in, Builder* b, Value v) {
    char text[40];
    switch (v.type) {
        case V_MISSING:
        case V_UNDEFINED: break;
        case V_NONE: put_text_(in, b, "None"); break;
        case V_BOOL: put_text_(in, b, v.b ? "True" : "False"); break;
        case V_INT:
            snprintf(text, sizeof text, "%lld", (long long)v.i);
            put_text_(in, b, text);
            break;
        case V_FLOAT:
            float_repr(v.f, text);
            put_text_(in, b, text);
            break;
        case V_STRING:
        case V_BIG: put_str(in, b, v.s); break;
        default: put_repr(in, b, v);
    }
}

Str* text_of(Interp* in, Value v) {
    if (v.type == V_STRING && !v.s->markup) return v.s;
    if (v.type == V_STRING) {
        Value plain = v_part(in, v.s, 0, v.s->n);
        plain.s->markup = false;
        return plain.s;
    }
    Builder b = {0};
    put_value(in, &b, v);
    return built(in, &b).s;
}

static void put_json_text(Interp* in, Builder* b, const Str* s, bool ascii) {
    const char *p = s->p, *end = p + s->n, *plain = p;
    put(in, b, "\"", 1, s);
    while (p < end) {
        unsigned char u = (unsigned char)*p;
        if (u >= 0x20 && u != '"' && u != '\\' && (u < 0x7F || !ascii)) {
            p++;
            continue;
        }
        put(in, b, plain, (size_t)(p - plain), s);
        int32_t c;
        char text[16];
        p += char_at(p, end, &c);
        plain = p;
        const char* known = c < 0x80 && c ? strchr("\"\"\\\\\bb\ff\nn\rr\tt", c) : NULL;
        if (c == '"') strcpy(text, "\\\"");
        else if (c == '\\') strcpy(text, "\\\\");
        else if (known && c < 0x20) snprintf(text, sizeof text, "\\%c", known[1]);
        else if (c < 0x10000) snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
        else
            snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD800 + (unsigned)((c - 0x10000) >> 10),
                     0xDC00 + (unsigned)((c - 0x10000) & 0x3FF));
        put(in, b, text, strlen(text), s);
    }
    put(in, b, plain, (size_t)(p - plain), s);
    put(in, b, "\"", 1, s);
}

typedef struct {
    const Str *indent, *item, *key;
    bool ascii, sort;
} JsonStyle;

static void json_line(Interp* in, Builder* b, const JsonStyle* style, int level) {
    if (!style->indent) return;
    put_text_(in, b, "\n");
    for (int i = 0; i < level; i++) put_str(in, b, style->indent);
}

static void json_value(Interp* in, Builder* b, Value v, const JsonStyle* style, int level);

static void json_key(Interp* in, Builder* b, Value key, const JsonStyle* style) {
    if (key.type == V_STRING) {
        put_json_text(in, b, key.s, style->ascii);
        return;
    }
    if (key.type != V_NONE && key.type != V_BIG && !is_number(key))
        jinja_fail(in, "keys must be str, int, float, bool or None, not %s", type_name(key));
    put_text_(in, b, "\"");
    json_value(in, b, key, style, 0);
    put_text_(in, b, "\"");
}

static void json_dict(Interp* in, Builder* b, Dict* d, const JsonStyle* style, int level) {
    size_t* order = jinja_new(in, (d->n + 1) * sizeof *order);
    for (size_t i = 0; i < d->n; i++) order[i] = i;
    for (size_t i = 1; style->sort && i < d->n; i++)
        for (size_t k = i; k > 0 && less(in, d->pair[order[k]].key, d->pair[order[k - 1]].key, "<"); k--) {
            size_t swap = order[k];
            order[k] = order[k - 1];
            order[k - 1] = swap;
        }
    put_text_(in, b, "{");
    for (size_t i = 0; i < d->n; i++) {
        if (i) put_str(in, b, style->item);
        json_line(in, b, style, level + 1);
        json_key(in, b, d->pair[order[i]].key, style);
        put_str(in, b, style->key);
        json_value(in, b, d->pair[order[i]].value, style, level + 1);
    }
    if (d->n) json_line(in, b, style, level);
    put_text_(in, b, "}");
}

static void json_value(Interp* in, Builder* b, Value v, const JsonStyle* style, int level) {
    if (++in->depth > in->limits.depth) jinja_fail(in, "values are nested too deeply");
    switch (v.type) {
        case V_NONE: put_text_(in, b, "null"); break;
        case V_BOOL: put_text_(in, b, v.b ? "true" : "false"); break;
        case V_FLOAT:
            if (isnan(v.f)) put_text_(in, b, "NaN");
            else if (isinf(v.f)) put_text_(in, b, v.f < 0 ? "-Infinity" : "Infinity");
            else put_value(in, b, v);
            break;
        case V_INT:
        case V_BIG: put_value(in, b, v); break;
        case V_STRING: put_json_text(in, b, v.s, style->ascii); break;
        case V_DICT: json_dict(in, b, v.dict, style, level); break;
        case V_LIST:
        case V_TUPLE:
            put_text_(in, b, "[");
            for (size_t i = 0; i < v.list->n; i++) {
                if (i) put_str(in, b, style->item);
                json_line(in, b, style, level + 1);
                json_value(in, b, v.list->v[i], style, level + 1);
            }
            if (v.list->n) json_line(in, b, style, level);
            put_text_(in, b, "]");
            break;
        default: jinja_fail(in, "Object of type %s is not JSON serializable", type_name(v));
    }
    in->depth--;
}

// json.dumps: indent None, an integer or a text; item and key NULL: Python's separators.
void put_json(Interp* in, Builder* b, Value v, Value indent, const Str* item, const Str* key, bool ascii, bool sort) {
    JsonStyle style = {.ascii = ascii, .sort = sort};
    if (indent.type == V_STRING) style.indent = indent.s;
    else if (given(indent) && indent.type != V_NONE) {
        int64_t n = index_of(in, indent, "tojson's indent");
        style.indent = repeat(in, v_text(in, " "), v_int(n)).s;
    }
    style.item = item ? item : v_text(in, style.indent ? "," : ", ").s;
    style.key = key ? key : v_text(in, ": ").s;
    json_value(in, b, v, &style, 0);
}

// ---- JSON ------------------------------------------------------------------------------------------

typedef struct {
    Interp* in;
    const char *p, *end, *start;
    Str like;  // for its origin
    int depth;
} Json;

static void json_space(Json* j) {
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\t' || *j->p == '\n' || *j->p == '\r')) j->p++;
}

static bool json_bad(Json* j, const char* what) {
    snprintf(j->in->error, j->in->error_size, "JSON, character %lld: %s", (long long)(j->p - j->start) + 1, what);
    return false;
}

static bool json_hex(Json* j, int32_t* c) {
    if (j->end - j->p < 4) return false;
    *c = 0;
    for (int i = 0; i < 4; i++) {
        char h = *j->p++;
        int d = h >= '0' && h <= '9' ? h - '0' : (h | 32) >= 'a' && (h | 32) <= 'f' ? (h | 32) - 'a' + 10 : -1;
        if (d < 0) return false;
        *c = *c * 16 + d;
    }
    return true;
}

static bool json_text(Json* j, Value* out) {
    const char* from = ++j->p;
    bool escapes = false;
    const char* q = from;
    while (q < j->end && *q != '"') {
        if ((unsigned char)*q < 0x20) {
            j->p = q;
            return json_bad(j, "a control character in a text");
        }
        escapes |= *q == '\\';
        q += *q == '\\' ? 2 : 1;
    }
    if (q >= j->end) return json_bad(j, "a text without an end");
    if (!escapes) {
        *out = v_string(j->in, from, (size_t)(q - from), &j->like);
        j->p = q + 1;
        return true;
    }
    char *bytes = jinja_new(j->in, (size_t)(q - from) + 1), *o = bytes;
    while (*j->p != '"') {
        if (*j->p != '\\') {
            *o++ = *j->p++;
            continue;
        }
        char c = j->p[1];
        j->p += 2;
        static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
        const char* known = c ? strchr(names, c) : NULL;
        if (known) *o++ = values[known - names];
        else if (c == 'u') {
            int32_t code, low;
            if (!json_hex(j, &code)) return json_bad(j, "an escape \\u without four digits");
            if (code >= 0xD800 && code < 0xDC00 && j->end - j->p > 6 && j->p[0] == '\\' && j->p[1] == 'u') {
                const char* back = j->p;
                j->p += 2;
                if (json_hex(j, &low) && low >= 0xDC00 && low < 0xE000)
                    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                else j->p = back;
            }
            o += encode_char(code, o);
        } else return json_bad(j, "an unknown escape");
    }
    j->p++;
    *out = v_string(j->in, bytes, (size_t)(o - bytes), &j->like);
    return true;
}

static bool json_number(Json* j, Value* out) {
    const char *from = j->p, *q = from;
    bool real = false;
    if (q < j->end && *q == '-') q++;
    if (q >= j->end || !isdigit((unsigned char)*q)) return json_bad(j, "not a value");
    if (*q == '0') q++;
    else
        while (q < j->end && isdigit((unsigned char)*q)) q++;
    if (q + 1 < j->end && *q == '.' && isdigit((unsigned char)q[1])) {
        real = true;
        for (q++; q < j->end && isdigit((unsigned char)*q);) q++;
    }
    if (q < j->end && (*q | 32) == 'e') {
        const char* e = q + 1;
        if (e < j->end && (*e == '+' || *e == '-')) e++;
        if (e < j->end && isdigit((unsigned char)*e)) {
            real = true;
            for (q = e; q < j->end && isdigit((unsigned char)*q);) q++;
        }
    }
    size_t n = (size_t)(q - from);
    if (!real && n > 4300) return json_bad(j, "an integer of more than 4300 digits");
    if (real) {
        char* text = jinja_new(j->in, n + 1);
        memcpy(text, from, n);
        *out = v_float(strtod(text, NULL));
    } else *out = integer_from(j->in, from, n, &j->like);
    j->p = q;
    return true;
}

static bool json_word(Json* j, const char* word) {
    size_t n = strlen(word);
    if ((size_t)(j->end - j->p) < n || memcmp(j->p, word, n)) return false;
    j->p += n;
    return true;
}

// Names of roles are the template's language, not the row's: some templates make a special token of them.
static bool known_role(const Str* s) {
    static const char* const roles[] = {"system",   "user",        "assistant",   "tool",      "developer",
                                        "function", "ipython",     "model",       "human",     "gpt",
                                        "bot",      "observation", "environment", "documents", "context"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strlen(roles[i]) == s->n && !memcmp(roles[i], s->p, s->n)) return true;
    return false;
}

static bool json_any(Json* j, Value* out) {
    json_space(j);
    if (j->p >= j->end) return json_bad(j, "ends where a value is expected");
    if (j->depth > MAX_JSON_DEPTH) return json_bad(j, "nested too deeply");
    char c = *j->p;
    if (c == '"') return json_text(j, out);
    if (json_word(j, "true") || json_word(j, "false")) {
        *out = v_bool(c == 't');
        return true;
    }
    if (json_word(j, "null")) {
        *out = v_none();
        return true;
    }
    if (json_word(j, "NaN")) {
        *out = v_float(NAN);
        return true;
    }
    if (json_word(j, "Infinity") || json_word(j, "-Infinity")) {
        *out = v_float(c == '-' ? -INFINITY : INFINITY);
        return true;
    }
    if (c != '[' && c != '{') return json_number(j, out);
    *out = c == '[' ? v_list(j->in, 0) : v_dict(j->in);
    j->p++;
    j->depth++;
    json_space(j);
    char close = c == '[' ? ']' : '}';
    if (j->p < j->end && *j->p == close) j->p++;
    else
        while (true) {
            Value key = v_none(), value;
            json_space(j);
            if (c == '{') {
                if (j->p >= j->end || *j->p != '"') return json_bad(j, "expected a name between quotes");
                if (!json_text(j, &key)) return false;
                json_space(j);
                if (j->p >= j->end || *j->p != ':') return json_bad(j, "expected ':'");
                j->p++;
            }
            if (!json_any(j, &value)) return false;
            if (c == '[') list_put(j->in, out->list, value);
            else {
                if (value.type == V_STRING && key.s->n == 4 && !memcmp(key.s->p, "role", 4) && known_role(value.s))
                    value.s->from = FROM_TEMPLATE;
                dict_put(j->in, out->dict, key, value);
            }
            json_space(j);
            if (j->p < j->end && *j->p == ',') {
                j->p++;
                continue;
            }
            if (j->p >= j->end || *j->p != close)
                return json_bad(j, c == '[' ? "expected ',' or ']'" : "expected ',' or '}'");
            j->p++;
            break;
        }
    j->depth--;
    return true;
}

bool parse_json(Interp* in, const char* json, size_t n, Origin from, Value* out) {
    Json j = {.in = in, .p = json, .end = json + n, .start = json, .like = {.from = (uint8_t)from}};
    if (!json_any(&j, out)) return false;
    json_space(&j);
    return j.p == j.end || json_bad(&j, "something after the value");
}
