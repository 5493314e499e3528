/*
Cutting a text into words: regular expressions through PCRE2 and the pre-tokenisers, which are all "split at this
pattern, and do this with what matched" or put a space in front. The patterns are written for other libraries
(Oniguruma, Rust's regex), so the classes that those define differently are spelled out first.
*/
#include <stdlib.h>
#include "tokenizer_internal.h"
#include "unicode_table.h"

// ---- regular expressions ---------------------------------------------------------------------------

// Classes that PCRE2 (with UCP) reads otherwise: its \s takes U+180E, its \w leaves out marks, \h is horizontal space,
// and its Unicode is older or newer than that of the formats' own libraries, by its version. A class is some categories
// (unicode_table.h) and the ranges `also`. RustWord and RustDigit are names of ours, for pre-tokenisers in Rust.
#define BIT(category) (1u << CATEGORY_##category)
#define WORD_CATEGORIES \
    (BIT(LU) | BIT(LL) | BIT(LT) | BIT(LM) | BIT(LO) | BIT(MN) | BIT(MC) | BIT(ME) | BIT(ND) | BIT(NL) | BIT(PC))
#define RANGES(table) table, sizeof table / sizeof *table
static const CharacterRange white_space[] = {{0x9, 0xD},       {0x20, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},
                                             {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                                             {0x205F, 0x205F}, {0x3000, 0x3000}};
static const CharacterRange hexadecimal[] = {{'0', '9'}, {'A', 'F'}, {'a', 'f'}};
typedef struct {
    uint32_t categories;
    const CharacterRange* also;
    size_t n_also;
} Class;
static const struct {
    const char* name;
    Class class;
} classes[] = {
    {"s", {0, RANGES(white_space)}},
    {"w", {WORD_CATEGORIES, RANGES(more_words)}},
    {"d", {BIT(ND), NULL, 0}},
    {"h", {0, RANGES(hexadecimal)}},
    {"p{White_Space}", {0, RANGES(white_space)}},
    {"p{Han}", {0, RANGES(han)}},
    {"p{RustWord}", {WORD_CATEGORIES, RANGES(more_rust_words)}},
    {"p{RustDigit}", {BIT(ND) | BIT(NL) | BIT(NO), RANGES(more_digits)}},
};
enum { N_CLASSES = sizeof classes / sizeof *classes };

// The class that a text after a backslash begins with, and how long its name is; 0: none of them.
static size_t class_at(const char* text, Class* class, bool* negated) {
    *negated = *text >= 'A' && *text <= 'Z';
    for (int i = 0; i < N_CLASSES; i++) {
        const char* name = classes[i].name;
        size_t n = strlen(name);
        if ((*text | 0x20) == *name && !strncmp(text + 1, name + 1, n - 1)) {
            *class = classes[i].class;
            return n;
        }
    }
    // \p{L}, \p{Lu}, \pL and their opposites
    if ((*text | 0x20) != 'p' || !text[1]) return 0;
    const char* name = text + 1;
    size_t n = 1;
    if (*name == '{') {
        if (*++name == '^') {
            *negated = !*negated;
            name++;
        }
        n = strcspn(name, "}");
        if (name[n] != '}' || n > 2) return 0;
    }
    *class = (Class){0, NULL, 0};
    for (int i = 0; i < N_CATEGORIES; i++)
        if (!strncmp(category_names[i], name, n)) class->categories |= 1u << i;
    return class->categories ? (size_t)(name - text) + n + (text[1] == '{') : 0;
}

void put_text(char** out, const char* text) {
    size_t n = strlen(text);
    if (n > 0) memcpy(arraddnptr(*out, n), text, n);  // of nothing, stb_ds makes no array
}

void put_characters(char** out, const CharacterRange* ranges, size_t n) {
    for (size_t i = 0; i < n; i++) {
        char text[48];
        snprintf(text, sizeof text, "\\x{%X}-\\x{%X}", (unsigned)ranges[i].first, (unsigned)ranges[i].last);
        put_text(out, text);
    }
}

int pattern_unicode = 0;
static int library_unicode(void) {
    char version[64] = "";
    if (pattern_unicode) return pattern_unicode;
    pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, version);  // "14.0.0"
    return atoi(version);
}

static int by_first(const void* a, const void* b) {
    int32_t x = ((const CharacterRange*)a)->first, y = ((const CharacterRange*)b)->first;
    return (x > y) - (x < y);
}

// The characters of a class that came at the time `since` of the table or later, and those of `also`; stb_ds, in order.
static CharacterRange* class_ranges(const Class* class, uint32_t since) {
    const size_t n = sizeof characters / sizeof *characters;
    CharacterRange* out = NULL;
    for (size_t i = 0; i < n; i++) {
        if (!(class->categories >> (characters[i] & 63) & 1) || (characters[i] >> 6 & 3) < since) continue;
        CharacterRange r = {(int32_t)(characters[i] >> 8),
                            (int32_t)(i + 1 < n ? characters[i + 1] >> 8 : 0x110000) - 1};
        if (r.first < 0xD800 && r.last >= 0xD800) r.last = 0xD7FF;  // surrogates are not characters
        if (arrlen(out) && arrlast(out).last == r.first - 1) arrlast(out).last = r.last;
        else arrput(out, r);
    }
    for (size_t i = 0; i < class->n_also; i++) arrput(out, class->also[i]);
    if (out) qsort(out, (size_t)arrlen(out), sizeof *out, by_first);
    return out;
}

static void put_opposite(char** out, const CharacterRange* ranges) {
    int32_t next = 0;
    for (ptrdiff_t i = 0; i <= arrlen(ranges); i++) {
        CharacterRange gap = {next, i < arrlen(ranges) ? ranges[i].first - 1 : 0x10FFFF};
        if (gap.first < 0xD800 && gap.last > 0xDFFF) {
            put_characters(out, &(CharacterRange){gap.first, 0xD7FF}, 1);
            gap.first = 0xE000;
        }
        if (gap.first <= gap.last) put_characters(out, &gap, 1);
        if (i < arrlen(ranges)) next = ranges[i].last == 0xD7FF ? 0xE000 : ranges[i].last + 1;
    }
}

// What stands for a class between brackets. PCRE2's own property is quicker than ranges: where its Unicode is not newer
// than the table's only what came since is added. Where it is newer, and for the opposite of a class, ranges say it
// all.
static void put_class(char** out, const Class* class, bool opposite) {
    const int unicode = library_unicode();
    const bool whole = opposite || unicode > CHARACTERS_UNICODE || class->categories & BIT(CN);
    // the times that PCRE2 does not know: see `characters`
    const uint32_t since = whole ? 0 : unicode < 14 ? 1 : unicode < CHARACTERS_UNICODE ? 2 : 3;
    uint32_t left = whole ? 0 : class->categories;
    for (int i = 0; i < N_CATEGORIES; i++) {
        if (!(left >> i & 1)) continue;
        uint32_t group = 0;
        for (int k = 0; k < N_CATEGORIES; k++)
            if (category_names[k][0] == category_names[i][0]) group |= 1u << k;
        const bool all = (left & group) == group;  // \p{L} for all of its five
        char name[8];
        snprintf(name, sizeof name, "\\p{%.*s}", all ? 1 : 2, category_names[i]);
        put_text(out, name);
        left &= ~(all ? group : 1u << i);
    }
    CharacterRange* ranges = class_ranges(class, since);
    if (opposite) put_opposite(out, ranges);
    else put_characters(out, ranges, (size_t)arrlen(ranges));
    arrfree(ranges);
}

#define MAX_GROUPS 64

// An interval {n}, {n,}, {,m} or {n,m} at p: its length, 0: none.
static size_t interval_at(const char* p) {
    static const char digits[] = "0123456789";
    if (*p != '{') return 0;
    const size_t low = strspn(p + 1, digits), comma = p[1 + low] == ',', high = comma ? strspn(p + 2 + low, digits) : 0;
    return low + high && p[1 + low + comma + high] == '}' ? low + comma + high + 2 : 0;
}

// What Oniguruma's Ruby syntax, in which tokenizer.json writes, means otherwise than PCRE2: ^ and $ are ends of lines
// (the end of the text is none after a line end), (?m) lets . match line ends, {n,m}+ repeats and {n}? makes optional
// where PCRE2 would be possessive and lazy. `atom` is where in `out` that begins to which a quantifier here belongs.
// Outside brackets; returns the characters read, 0: nothing of that.
static size_t respell_ruby(const char* p, ptrdiff_t atom, char** out) {
    if (*p == '^' || *p == '$') {
        put_text(out, *p == '^' ? "(?:\\A|(?<=\\n)(?!\\z))" : "(?:(?=\\n)|(?<!\\n)\\z)");
        return 1;
    }
    size_t n = interval_at(p);
    if (n) {
        const bool once_more = p[n] == '+' || (p[n] == '?' && !memchr(p, ',', n));
        if (once_more) {
            arrinsn(*out, atom, 3);
            memcpy(*out + atom, "(?:", 3);
        }
        for (size_t i = 0; i < n; i++) {
            if (i == 1 && p[i] == ',') arrput(*out, '0');
            arrput(*out, p[i]);
        }
        if (once_more) arrput(*out, ')');
        return n;
    }
    if (strncmp(p, "(?", 2)) return 0;
    n = 2 + strspn(p + 2, "imx-");
    if (n == 2 || (p[n] != ':' && p[n] != ')')) return 0;
    for (size_t i = 0; i < n; i++) arrput(*out, p[i] == 'm' && i > 1 ? 's' : p[i]);
    return n;
}

// The pattern in PCRE2's spelling, not zero-terminated (stb_ds). False: one that cannot be spelled.
static bool respell(const char* pattern, RegexSyntax syntax, char** out, ErrorBuffer error) {
    bool inside = false;
    ptrdiff_t atom = 0, groups[MAX_GROUPS] = {0};
    int depth = 0;
    for (const char* p = pattern; *p; p++) {
        if (!inside && *p == '(' && depth == MAX_GROUPS)
            return tok_error(error, "the regular expression %.200s nests more than %d groups", pattern, MAX_GROUPS);
        if (!inside && *p == '(') groups[depth++] = arrlen(*out);
        else if (!inside && *p == ')') atom = groups[depth > 0 ? --depth : 0];
        else if (!inside && !strchr("*+?{", *p)) atom = arrlen(*out);
        const size_t read = syntax == REGEX_RUBY && !inside ? respell_ruby(p, atom, out) : 0;
        if (read) {
            p += read - 1;
            continue;
        }
        if (syntax == REGEX_RUST && !inside && *p == '$') {  // PCRE2's also matches before a last line end
            put_text(out, "\\z");
            continue;
        }
        if (inside && !strncmp(p, "&&", 2))
            return tok_error(error, "the regular expression %.200s has && inside brackets, which is not supported",
                             pattern);
        if (*p == '[' && inside && p[1] != ':')
            return tok_error(error, "the regular expression %.200s nests brackets, which is not supported", pattern);
        if (*p == '[' && inside)  // [:alpha:]
            while (p[1] && (p[0] != ':' || p[1] != ']')) arrput(*out, *p++);
        if (*p == ':' && p[1] == ']' && inside) {
            put_text(out, ":]");
            p++;
            continue;
        }
        if (*p == '[' || *p == ']') inside = *p == '[';
        if (*p != '\\' || !p[1]) {
            arrput(*out, *p);
            continue;
        }
        Class class;
        bool negated;
        size_t n = class_at(p + 1, &class, &negated);
        if (!n && p[1] == 'u' && strspn(p + 2, "0123456789abcdefABCDEF") >= 4) {
            put_text(out, "\\x{");
            for (int i = 2; i < 6; i++) arrput(*out, p[i]);
            arrput(*out, '}');
            p += 5;
            continue;
        }
        if (!n) {
            const bool braces = p[2] == '{' && strchr("pPxogk", p[1]) && strchr(p, '}');  // \x{41} holds no interval
            arrput(*out, *p++);
            arrput(*out, *p);
            while (braces && *p != '}') arrput(*out, *++p);
            continue;
        }
        if (!inside) put_text(out, negated ? "[^" : "[");
        put_class(out, &class, inside && negated);
        if (!inside) arrput(*out, ']');
        p += n;
    }
    return true;
}

bool pattern_compile(Pattern* p, const char* regex, RegexSyntax syntax, ErrorBuffer error) {
    char* spelled = NULL;
    int code;
    PCRE2_SIZE at;
    bool good = respell(regex, syntax, &spelled, error);
    if (good) {
        p->code = pcre2_compile((PCRE2_SPTR)spelled, (PCRE2_SIZE)arrlen(spelled),
                                PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
        if (p->code) {
            p->jit = pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE) == 0;
        } else {
            PCRE2_UCHAR why[128];
            pcre2_get_error_message(code, why, sizeof why);
            good = tok_error(error, "the regular expression %.200s cannot be compiled: %s", regex, (char*)why);
        }
    }
    arrfree(spelled);
    return good;
}

void pattern_free(Pattern* p) {
    free(p->literal);
    pcre2_code_free(p->code);
    *p = (Pattern){0};
}

static int literal_search(const char* literal, const char* bytes, int32_t n, int32_t from, Range* found) {
    size_t length = strlen(literal);
    const char* at = from < n && length ? memmem(bytes + from, (size_t)(n - from), literal, length) : NULL;
    if (!at) return 0;
    *found = (Range){(int32_t)(at - bytes), (int32_t)(at - bytes + (ptrdiff_t)length)};
    return 1;
}

// Bytes that are not UTF-8 must not reach PCRE2, which would have to check every text, every time: the callers cut them
// out first (utf8_stretch).
int pattern_search(const Pattern* p, const char* bytes, int32_t n, int32_t from, Range* found, Encoding* e) {
    struct TokenizerScratch* s = e->scratch;
    if (p->literal) return literal_search(p->literal, bytes, n, from, found);
    while (from < n) {
        int result = p->jit ? pcre2_jit_match(p->code, (PCRE2_SPTR)bytes, (PCRE2_SIZE)n, (PCRE2_SIZE)from, 0, s->match,
                                              s->context)
                            : pcre2_match(p->code, (PCRE2_SPTR)bytes, (PCRE2_SIZE)n, (PCRE2_SIZE)from,
                                          PCRE2_NO_UTF_CHECK, s->match, s->context);
        if (result == PCRE2_ERROR_NOMATCH) return 0;
        if (result < 0) {
            PCRE2_UCHAR why[128];
            pcre2_get_error_message(result, why, sizeof why);
            snprintf(e->error, sizeof e->error, "the tokenizer's regular expression failed at byte %d of a text: %s",
                     from, (char*)why);
            return -1;
        }
        const PCRE2_SIZE* v = pcre2_get_ovector_pointer(s->match);
        if (v[1] > v[0]) {
            *found = (Range){(int32_t)v[0], (int32_t)v[1]};
            return 1;
        }
        from = (int32_t)v[1];  // an empty match: continue after the next character
        do from++;
        while (from < n && ((unsigned char)bytes[from] & 0xC0) == 0x80);
    }
    return 0;
}

// ---- splitting -------------------------------------------------------------------------------------

static inline void put_range(Range** out, int32_t start, int32_t end) {
    if (end > start) {
        Range r = {start, end};
        arrput(*out, r);
    }
}

// One stretch that is a match or is between matches, after `tokenizers`' SplitDelimiterBehavior. `previous`: whether
// the stretch before was a match.
static void put_stretch(Range** out, ptrdiff_t first, SplitBehaviour behaviour, Range stretch, bool match,
                        bool previous) {
    bool any = arrlen(*out) > first;
    if (behaviour == SPLIT_REMOVED && match) return;
    bool join = any && ((behaviour == SPLIT_CONTIGUOUS && match == previous) ||
                        (behaviour == SPLIT_MERGED_WITH_PREVIOUS && match && !previous) ||
                        (behaviour == SPLIT_MERGED_WITH_NEXT && !match && previous));
    if (join) arrlast(*out).end = stretch.end;
    else put_range(out, stretch.start, stretch.end);
}

// Splits `range`, a stretch of valid UTF-8. The pattern sees this range alone, as in `tokenizers`.
static bool split_valid(const Pretokenize* step, const TokText* text, Range range, Range** out, Encoding* e) {
    const char* bytes = text->bytes + range.start;
    int32_t n = range.end - range.start, from = 0;
    ptrdiff_t first = arrlen(*out);
    bool previous = false;
    while (from < n) {
        Range found;
        int result = pattern_search(&step->pattern, bytes, n, from, &found, e);
        if (result < 0) return false;
        if (!result) found = (Range){n, n};
        if (step->behaviour == SPLIT_ISOLATED) {
            put_range(out, range.start + from, range.start + found.start);
            put_range(out, range.start + found.start, range.start + found.end);
        } else {
            if (found.start > from) {
                put_stretch(out, first, step->behaviour, (Range){range.start + from, range.start + found.start},
                            step->invert, previous);
                previous = step->invert;
            }
            if (result) {
                put_stretch(out, first, step->behaviour, (Range){range.start + found.start, range.start + found.end},
                            !step->invert, previous);
                previous = !step->invert;
            }
        }
        from = found.end;
    }
    return true;
}

// A stretch that is not UTF-8 is a word of its own.
static bool split_range(const Pretokenize* step, const TokText* text, Range range, Range** out, Encoding* e) {
    for (int32_t at = range.start, end; at < range.end; at = end) {
        bool valid;
        end = utf8_stretch(text->bytes, range.end, at, &valid);
        if (!valid) put_range(out, at, end);
        else if (!split_valid(step, text, (Range){at, end}, out, e)) return false;
    }
    return true;
}

// A step after ByteLevel sees every byte as the character that GPT-2 writes for it.
static bool split_mapped(const Pretokenize* step, const TokText* text, Range range, Range** out, Encoding* e) {
    struct TokenizerScratch* s = e->scratch;
    arrsetlen(s->mapped, 0);
    for (int32_t i = range.start; i < range.end; i++) {
        char character[4];
        const int n = utf8_encode(character_of_byte((unsigned char)text->bytes[i]), character);
        memcpy(arraddnptr(s->mapped, n), character, (size_t)n);
    }
    const TokText mapped = {s->mapped, (int32_t)arrlen(s->mapped), 0, NULL, NULL};
    const ptrdiff_t first = arrlen(*out);
    if (!split_valid(step, &mapped, (Range){0, mapped.n}, out, e)) return false;
    int32_t at = 0, byte = range.start;  // `byte` is where the character at `at` came from
    for (ptrdiff_t i = first; i < arrlen(*out); i++) {
        Range* r = &(*out)[i];
        int32_t* const ends[] = {&r->start, &r->end};
        for (int k = 0; k < 2; k++) {
            for (; at < *ends[k]; byte++) at += (unsigned char)s->mapped[at] < 0x80 ? 1 : 2;
            *ends[k] = byte;
        }
    }
    return true;
}

// ---- steps that put something in front -------------------------------------------------------------

static void prefix_space(TokText* text, Encoding* e) {
    struct TokenizerScratch* s = e->scratch;
    TextBuffer* b = buffer_other(text, e);
    for (ptrdiff_t i = 0; i < arrlen(s->ranges); i++) {
        Range* r = &s->ranges[i];
        int32_t start = (int32_t)arrlen(b->bytes);
        if (text->bytes[r->start] != ' ') put_in_front(b, " ", 1, text, r->start);
        buffer_copy(b, text, r->start, r->end);
        *r = (Range){start, (int32_t)arrlen(b->bytes)};
    }
    *text = buffer_text(b);
}

static void metaspace(const Pretokenize* step, TokText* text, Encoding* e) {
    struct TokenizerScratch* s = e->scratch;
    TextBuffer* b = buffer_other(text, e);
    const char* mark = step->pattern.literal;
    int32_t n_mark = (int32_t)strlen(mark);
    arrsetlen(s->ranges_next, 0);
    for (ptrdiff_t i = 0; i < arrlen(s->ranges); i++) {
        Range r = s->ranges[i];
        int32_t start = (int32_t)arrlen(b->bytes), from = origin_from(text, r.start);
        bool there = text->bytes[r.start] == ' ' ||
                     (r.end - r.start >= n_mark && !memcmp(text->bytes + r.start, mark, (size_t)n_mark));
        if (!there && (step->scheme == PREPEND_ALWAYS || (step->scheme == PREPEND_FIRST && from == 0)))
            put_in_front(b, mark, n_mark, text, r.start);
        for (int32_t at = r.start; at < r.end;) {
            const char* space = memchr(text->bytes + at, ' ', (size_t)(r.end - at));
            int32_t stop = space ? (int32_t)(space - text->bytes) : r.end;
            buffer_copy(b, text, at, stop);
            if (space) buffer_put(b, mark, n_mark, origin_from(text, stop), origin_to(text, stop));
            at = stop + (space != NULL);
        }
        int32_t end = (int32_t)arrlen(b->bytes), cut = start;
        if (step->split)
            for (int32_t at = start + 1; at + n_mark <= end; at++)
                if (!memcmp(b->bytes + at, mark, (size_t)n_mark)) {
                    put_range(&s->ranges_next, cut, at);
                    cut = at;
                }
        put_range(&s->ranges_next, cut, end);
    }
    Range* swap = s->ranges;
    s->ranges = s->ranges_next;
    s->ranges_next = swap;
    *text = buffer_text(b);
}

// ---- all of it -------------------------------------------------------------------------------------

bool pretokenize_text(const Tokenizer* t, TokText* text, Encoding* e) {
    struct TokenizerScratch* s = e->scratch;
    arrsetlen(s->ranges, 0);
    put_range(&s->ranges, 0, text->n);
    for (ptrdiff_t i = 0; i < arrlen(t->pretokenize); i++) {
        const Pretokenize* step = &t->pretokenize[i];
        if (step->type == PRETOKENIZE_PREFIX_SPACE) {
            prefix_space(text, e);
            continue;
        }
        if (step->type == PRETOKENIZE_METASPACE) {
            metaspace(step, text, e);
            continue;
        }
        arrsetlen(s->ranges_next, 0);
        for (ptrdiff_t j = 0; j < arrlen(s->ranges); j++)
            if (!(step->mapped ? split_mapped : split_range)(step, text, s->ranges[j], &s->ranges_next, e))
                return false;
        Range* swap = s->ranges;
        s->ranges = s->ranges_next;
        s->ranges_next = swap;
    }
    return true;
}
