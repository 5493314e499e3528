/* Formatting as Python does it: str.format, and % with a text on its left. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include "tokenizer_internal.h"
#include "jinja_internal.h"

typedef struct {
    int32_t fill;
    char align, sign, type, group;  // 0: not given
    bool alternate, zero;
    int64_t width, precision;  // −1: not given
} Spec;

static void put_padded(Interp* in, Builder* b, Str* s, const Spec* spec, char align) {
    int64_t space = spec->width - str_length(s), left = align == '>' ? space : align == '^' ? space / 2 : 0;
    Builder fill = {0};
    put_char(in, &fill, spec->fill ? spec->fill : ' ', NULL);
    Str* f = built(in, &fill).s;
    put_padding(in, b, left, f);
    put_str(in, b, s);
    put_padding(in, b, space - left, f);
}

// A number's digits with its sign, thousands and zeros.
static void put_digits(Interp* in, Builder* b, const char* digits, bool minus, const char* prefix, const Spec* spec) {
    char sign[2] = {minus ? '-' : spec->sign == '+' || spec->sign == ' ' ? spec->sign : 0, 0};
    const char* point = digits;
    int step = spec->type == 'x' || spec->type == 'X' || spec->type == 'o' || spec->type == 'b' ? 4 : 3;
    while (isxdigit((unsigned char)*point) && !(step == 3 && (*point | 32) == 'e')) point++;
    int64_t whole = point - digits, lead = strlen(sign) + strlen(prefix), rest = (int64_t)strlen(point);
    bool zeros = spec->zero && !spec->align;
    int64_t need = zeros ? spec->width - lead - rest : 0;  // digits and separators before the point
    Builder reversed = {0}, text = {0};
    if (need > (int64_t)1 << 20) jinja_fail(in, "a width of more than %d", 1 << 20);
    for (int64_t i = 0; i < whole || (int64_t)reversed.n < need; i++) {
        if (i && spec->group && i % step == 0) {
            put(in, &reversed, &spec->group, 1, NULL);
        }
        char c = i < whole ? digits[whole - 1 - i] : '0';
        put(in, &reversed, &c, 1, NULL);
    }
    put_text_(in, &text, sign);
    put_text_(in, &text, prefix);
    for (size_t i = reversed.n; i-- > 0;) put(in, &text, &reversed.p[i], 1, NULL);
    put_text_(in, &text, point);
    Str* s = built(in, &text).s;
    if (spec->align == '=') {
        int64_t space = spec->width - str_length(s);
        Builder fill = {0};
        put_char(in, &fill, spec->fill ? spec->fill : spec->zero ? '0' : ' ', NULL);
        put(in, b, s->p, (size_t)lead, s);
        put_padding(in, b, space, built(in, &fill).s);
        put(in, b, s->p + lead, s->n - (size_t)lead, s);
    } else put_padded(in, b, s, spec, spec->align ? spec->align : '>');
}

static void format_integer(Interp* in, Builder* b, int64_t i, const Spec* spec) {
    char text[72];
    uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    const char* prefix = "";
    if (spec->type == 'x' || spec->type == 'X') {
        snprintf(text, sizeof text, spec->type == 'x' ? "%llx" : "%llX", (unsigned long long)u);
        if (spec->alternate) prefix = spec->type == 'x' ? "0x" : "0X";
    } else if (spec->type == 'o') {
        snprintf(text, sizeof text, "%llo", (unsigned long long)u);
        if (spec->alternate) prefix = "0o";
    } else if (spec->type == 'b') {
        char* p = text + sizeof text - 1;
        *p = 0;
        do *--p = (char)('0' + (u & 1));
        while (u >>= 1);
        memmove(text, p, strlen(p) + 1);
        if (spec->alternate) prefix = "0b";
    } else snprintf(text, sizeof text, "%llu", (unsigned long long)u);
    put_digits(in, b, text, i < 0, prefix, spec);
}

static void format_float(Interp* in, Builder* b, double f, const Spec* spec) {
    char text[512], short_[40];
    double positive = fabs(f);
    char type = spec->type ? spec->type : 'r';
    int precision = (int)(spec->precision < 0 ? 6 : spec->precision > 400 ? 400 : spec->precision);
    bool upper = isupper((unsigned char)type);
    if (!isfinite(f)) snprintf(text, sizeof text, "%s", isnan(f) ? (upper ? "NAN" : "nan") : upper ? "INF" : "inf");
    else if (type == 'r' && spec->precision < 0) {
        float_repr(positive, short_);
        snprintf(text, sizeof text, "%s", short_);
    } else if (type == '%') snprintf(text, sizeof text, "%.*f%%", precision, positive * 100.0);
    else if ((type | 32) == 'f') snprintf(text, sizeof text, "%.*f", precision, positive);
    else if ((type | 32) == 'e') snprintf(text, sizeof text, type == 'e' ? "%.*e" : "%.*E", precision, positive);
    else if ((type | 32) == 'g' || type == 'n')
        snprintf(text, sizeof text,
                 type == 'G' ? (spec->alternate ? "%#.*G" : "%.*G") : (spec->alternate ? "%#.*g" : "%.*g"), precision,
                 positive);
    else {  // no type, with a precision: g, but with a digit after the point
        snprintf(text, sizeof text, "%.*g", precision ? precision : 1, positive);
        if (!strpbrk(text, ".e")) strcat(text, ".0");
    }
    if (isfinite(f) && positive >= 1e300 && spec->precision > 150)
        jinja_fail(in, "a number of that many digits is not supported");
    put_digits(in, b, text, signbit(f) && !isnan(f), "", spec);
}

static int64_t spec_number(const char** p, const char* end) {
    if (*p >= end || !isdigit((unsigned char)**p)) return -1;
    int64_t n = 0;
    for (; *p < end && isdigit((unsigned char)**p); (*p)++)
        if (n < 1 << 24) n = n * 10 + **p - '0';
    return n;
}

static void format_value(Interp* in, Builder* b, Value v, const Str* text) {
    Spec spec = {.width = -1, .precision = -1};
    const char *p = text->p, *end = p + text->n;
    int32_t c, next;
    if (!text->n) {
        put_value(in, b, v);
        return;
    }
    if (v.type == V_UNDEFINED || v.type == V_NONE || v.type == V_LIST || v.type == V_TUPLE || v.type == V_DICT)
        jinja_fail(in, "unsupported format string passed to %s.__format__", type_name(v));
    int n = char_at(p, end, &c);
    if (p + n < end && (char_at(p + n, end, &next), next == '<' || next == '>' || next == '^' || next == '=')) {
        spec.fill = c;
        spec.align = (char)next;
        p += n + 1;
    } else if (c == '<' || c == '>' || c == '^' || c == '=') {
        spec.align = (char)c;
        p++;
    }
    if (p < end && (*p == '+' || *p == '-' || *p == ' ')) spec.sign = *p++;
    if (p < end && *p == '#') spec.alternate = *p++;
    if (p < end && *p == '0') spec.zero = *p++;
    spec.width = spec_number(&p, end);
    if (p < end && (*p == ',' || *p == '_')) spec.group = *p++;
    if (p < end && *p == '.') {
        p++;
        spec.precision = spec_number(&p, end);
        if (spec.precision < 0) jinja_fail(in, "Format specifier missing precision");
    }
    if (p < end) spec.type = *p++;
    if (p < end) jinja_fail(in, "Invalid format specifier");
    if (v.type == V_STRING) {
        if (spec.type && spec.type != 's')
            jinja_fail(in, "Unknown format code '%c' for object of type 'str'", spec.type);
        if (spec.sign || spec.align == '=' || spec.group) jinja_fail(in, "this format is not allowed for a text");
        if (spec.zero && !spec.align) spec.align = '<';
        if (spec.zero && !spec.fill) spec.fill = '0';
        Str* s = text_of(in, v);
        if (spec.precision >= 0 && spec.precision < str_length(s))
            s = v_part(in, s, 0, str_offset(s, spec.precision)).s;
        put_padded(in, b, s, &spec, spec.align ? spec.align : '<');
        return;
    }
    if (!is_number(v)) jinja_fail(in, "the format of a %s is not supported", type_name(v));
    bool integer = v.type != V_FLOAT;
    if (integer && (!spec.type || strchr("dxXobn", spec.type))) {
        if (spec.precision >= 0) jinja_fail(in, "Precision not allowed in integer format specifier");
        format_integer(in, b, v.type == V_BOOL ? v.b : v.i, &spec);
    } else if (integer && spec.type == 'c') jinja_fail(in, "the format code 'c' is not supported");
    else if (!spec.type || strchr("eEfFgGn%", spec.type)) format_float(in, b, number_of(v), &spec);
    else jinja_fail(in, "Unknown format code '%c' for object of type '%s'", spec.type, type_name(v));
}

static Value format_field(Interp* in, const Str* s, size_t from, size_t to, Args* args, int* automatic) {
    size_t at = from;
    while (at < to && s->p[at] != '.' && s->p[at] != '[') at++;
    char name[128];
    if (at - from >= sizeof name) jinja_fail(in, "a field's name is too long");
    memcpy(name, s->p + from, at - from);
    name[at - from] = 0;
    Value v = v_missing();
    char* rest;
    long number = strtol(name, &rest, 10);
    if (!*name || (!*rest && isdigit((unsigned char)*name))) {
        if (*name ? *automatic > 0 : *automatic < 0)
            jinja_fail(in, "cannot switch between automatic field numbering and manual field specification");
        if (!*name) number = (*automatic)++;
        else *automatic = -1;
        if ((size_t)number >= args->n)
            jinja_fail(in, "Replacement index %ld out of range for positional args tuple", number);
        v = args->v[number];
    } else {
        for (size_t i = 0; i < args->n_named; i++)
            if (!strcmp(args->named[i].name, name)) v = args->named[i].value;
        if (!given(v)) jinja_fail(in, "KeyError: '%s'", name);
    }
    while (at < to) {
        size_t start = at + 1, stop = start;
        bool item = s->p[at] == '[';
        while (stop < to && (item ? s->p[stop] != ']' : s->p[stop] != '.' && s->p[stop] != '[')) stop++;
        if (stop == start || (item && stop >= to)) jinja_fail(in, "Empty attribute in format string");
        Value key = v_string(in, s->p + start, stop - start, NULL);
        bool digits = item;
        for (size_t i = start; i < stop; i++) digits &= isdigit((unsigned char)s->p[i]) != 0;
        char* text = jinja_new(in, stop - start + 1);
        memcpy(text, s->p + start, stop - start);
        v = item ? get_item(in, v, digits ? v_int(atoll(text)) : key) : get_attribute(in, v, text, key);
        at = stop + item;
    }
    return v;
}

static Str* format_level(Interp* in, const Str* s, Args* args, int* automatic, int level) {
    Builder b = {0};
    if (level > 2) jinja_fail(in, "Max string recursion exceeded");
    for (size_t i = 0; i < s->n;) {
        char c = s->p[i];
        if (c != '{' && c != '}') {
            size_t stop = i;
            while (stop < s->n && s->p[stop] != '{' && s->p[stop] != '}') stop++;
            put(in, &b, s->p + i, stop - i, s);
            i = stop;
            continue;
        }
        if (i + 1 < s->n && s->p[i + 1] == c) {
            put(in, &b, s->p + i, 1, s);
            i += 2;
            continue;
        }
        if (c == '}') jinja_fail(in, "Single '}' encountered in format string");
        size_t from = ++i, end = from;
        int depth = 1;
        while (end < s->n && (depth += (s->p[end] == '{') - (s->p[end] == '}')) > 0) end++;
        if (end >= s->n)
            jinja_fail(in,
                       from < s->n ? "expected '}' before end of string" : "Single '{' encountered in format string");
        size_t name = from;
        bool brackets = false;
        while (name < end && (brackets || (s->p[name] != '!' && s->p[name] != ':'))) {
            brackets = s->p[name] == '[' || (brackets && s->p[name] != ']');
            name++;
        }
        Value v = format_field(in, s, from, name, args, automatic);
        size_t at = name;
        if (at < end && s->p[at] == '!') {
            char conversion = at + 1 < end ? s->p[at + 1] : 0;
            Builder text = {0};
            if (conversion == 'r') put_repr(in, &text, v);
            else if (conversion == 's') put_value(in, &text, v);
            else jinja_fail(in, "the conversion !%c is not supported", conversion ? conversion : ' ');
            v = built(in, &text);
            at += 2;
            if (at < end && s->p[at] != ':') jinja_fail(in, "expected ':' after conversion specifier");
        }
        Str* spec = v_part(in, s, at < end ? at + 1 : end, end).s;
        if (spec->n && memchr(spec->p, '{', spec->n)) spec = format_level(in, spec, args, automatic, level + 1);
        format_value(in, &b, v, spec);
        i = end + 1;
    }
    return built(in, &b).s;
}

Value format_braces(Interp* in, Str* format, Args* args) {
    int automatic = 0;
    return (Value){.type = V_STRING, .s = format_level(in, format, args, &automatic, 1)};
}

static Value next_argument(Interp* in, Value v, size_t* used) {
    if (v.type == V_TUPLE) {
        if (*used >= v.list->n) jinja_fail(in, "not enough arguments for format string");
        return v.list->v[(*used)++];
    }
    if ((*used)++) jinja_fail(in, "not enough arguments for format string");
    return v;
}

Value format_percent(Interp* in, Str* format, Value v) {
    Builder b = {0};
    size_t used = 0;
    bool mapped = false;
    for (size_t i = 0; i < format->n;) {
        size_t stop = i;
        while (stop < format->n && format->p[stop] != '%') stop++;
        put(in, &b, format->p + i, stop - i, format);
        i = stop + 1;
        if (stop == format->n) break;

        // the specification: %(key)flags width.precision type
        Spec spec = {.width = -1, .precision = -1};
        Value argument = v_missing();
        const char *p = format->p + i, *end = format->p + format->n;
        if (p < end && *p == '(') {
            const char* name = ++p;
            for (int depth = 1; p < end && (depth += (*p == '(') - (*p == ')')) > 0;) p++;
            if (p >= end) jinja_fail(in, "incomplete format key");
            if (v.type != V_DICT) jinja_fail(in, "format requires a mapping");
            const Value* found = dict_get(in, v.dict, v_string(in, name, (size_t)(p - name), NULL));
            if (!found) jinja_fail(in, "KeyError: '%.*s'", (int)(p - name < 60 ? p - name : 60), name);
            argument = *found;
            mapped = true;
            p++;
        }
        for (; p < end && strchr("#0- +", *p) && *p; p++) {
            if (*p == '-') spec.align = '<';
            else if (*p == '0') spec.zero = true;
            else if (*p == '#') spec.alternate = true;
            else if (spec.sign != '+') spec.sign = *p;
        }
        if (p < end && *p == '*') {
            spec.width = index_of(in, next_argument(in, v, &used), "* needs an int");
            p++;
        } else spec.width = spec_number(&p, end);
        if (p < end && *p == '.') {
            p++;
            if (p < end && *p == '*') {
                spec.precision = index_of(in, next_argument(in, v, &used), "* needs an int");
                p++;
            } else spec.precision = spec_number(&p, end);
            if (spec.precision < 0) spec.precision = 0;
        }
        while (p < end && (*p == 'l' || *p == 'h' || *p == 'L')) p++;
        if (p >= end) jinja_fail(in, "incomplete format");
        char type = *p++;
        i = (size_t)(p - format->p);

        // its argument, as a text
        if (type == '%') {
            put_text_(in, &b, "%");
            continue;
        }
        if (!strchr("srdiuxXoeEfFgGc", type)) jinja_fail(in, "unsupported format character '%c'", type);
        if (!given(argument)) argument = next_argument(in, v, &used);
        if (type == 's' || type == 'r' || (type == 'c' && argument.type == V_STRING)) {
            Builder text = {0};
            if (type == 'r') put_repr(in, &text, argument);
            else put_value(in, &text, format->markup ? escape_text(in, argument) : argument);
            Str* s = built(in, &text).s;
            if (type == 'c' && str_length(s) != 1) jinja_fail(in, "%%c requires int or char");
            if (spec.precision >= 0 && spec.precision < str_length(s))
                s = v_part(in, s, 0, str_offset(s, spec.precision)).s;
            spec.fill = 0;
            put_padded(in, &b, s, &spec, spec.align == '<' ? '<' : '>');
            continue;
        }

        // or as a number
        if (argument.type == V_UNDEFINED) fail_undefined(in, argument);
        if (!is_number(argument))
            jinja_fail(in, "%%%c format: a real number is required, not %s", type, type_name(argument));
        spec.type = type;
        if (strchr("eEfFgG", type)) format_float(in, &b, number_of(argument), &spec);
        else if (type == 'c') put_char(in, &b, (int32_t)index_of(in, argument, "%c"), NULL);
        else {
            if (argument.type == V_FLOAT && strchr("xXo", type))
                jinja_fail(in, "%%%c format: an integer is required, not float", type);
            if (argument.type == V_FLOAT && !(fabs(argument.f) < 9e18))
                jinja_fail(in, "%%%c format: a number beyond 64 bits", type);
            int64_t n = argument.type == V_FLOAT  ? (int64_t)argument.f
                        : argument.type == V_BOOL ? argument.b
                                                  : argument.i;
            if (strchr("diu", type)) spec.type = 'd';
            if (spec.precision > 0) {
                char digits[512];
                snprintf(digits, sizeof digits, "%0*llu", (int)(spec.precision > 400 ? 400 : spec.precision),
                         (unsigned long long)(n < 0 ? -n : n));
                put_digits(in, &b, digits, n < 0, "", &spec);
            } else format_integer(in, &b, n, &spec);
        }
    }
    if (!mapped && v.type != V_DICT && v.type != V_LIST && v.type != V_RANGE && v.type != V_UNDEFINED &&
        used < (v.type == V_TUPLE ? v.list->n : 1))
        jinja_fail(in, "not all arguments converted during string formatting");
    Value out = built(in, &b);
    out.s->markup = format->markup;
    return out;
}
