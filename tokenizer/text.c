/*
Texts that remember, byte by byte, where in the original they came from, and the normalisers that rewrite them. A
normaliser that would change nothing leaves the text alone, so most texts are never copied and have no map.
*/
#include <stdlib.h>
#include <utf8proc.h>
#include "tokenizer_internal.h"
#include "unicode_table.h"

// ---- buffers ---------------------------------------------------------------------------------------

void buffer_clear(TextBuffer* b) {
    if (b->bytes) stbds_header(b->bytes)->length = 0;
    if (b->from) stbds_header(b->from)->length = 0;
    if (b->to) stbds_header(b->to)->length = 0;
}

void buffer_free(TextBuffer* b) {
    arrfree(b->bytes);
    arrfree(b->from);
    arrfree(b->to);
}

TokText buffer_text(const TextBuffer* b) { return (TokText){b->bytes, (int32_t)arrlen(b->bytes), 0, b->from, b->to}; }

void buffer_copy(TextBuffer* b, const TokText* t, int32_t start, int32_t end) {
    if (end <= start) return;
    int32_t n = end - start;
    memcpy(arraddnptr(b->bytes, n), t->bytes + start, (size_t)n);
    int32_t *from = arraddnptr(b->from, n), *to = arraddnptr(b->to, n);
    for (int32_t i = 0; i < n; i++) {
        from[i] = origin_from(t, start + i);
        to[i] = origin_to(t, start + i);
    }
}

void buffer_put(TextBuffer* b, const char* bytes, int32_t n, int32_t from, int32_t to) {
    if (n <= 0) return;
    memcpy(arraddnptr(b->bytes, n), bytes, (size_t)n);
    int32_t *f = arraddnptr(b->from, n), *e = arraddnptr(b->to, n);
    for (int32_t i = 0; i < n; i++) {
        f[i] = from;
        e[i] = to;
    }
}

// What is put in front of the character at `start` comes from that character, in `tokenizers`; from its first byte, so
// that offsets stay in order.
void put_in_front(TextBuffer* b, const char* bytes, int32_t n, const TokText* t, int32_t start) {
    buffer_put(b, bytes, n, origin_from(t, start), origin_to(t, start));
}

// An empty buffer that `text` does not live in. Normalisers and pre-tokenisers have two each, because the parts of one
// normalised text are pre-tokenised one after the other.
TextBuffer* buffer_other(const TokText* text, Encoding* e) {
    TextBuffer* first = &e->scratch->buffer[e->scratch->stage];
    bool inside = text->from && first->bytes && text->bytes >= first->bytes &&
                  text->bytes <= first->bytes + arrlen(first->bytes);
    TextBuffer* b = first + inside;
    buffer_clear(b);
    if (!b->bytes) arrsetcap(b->bytes, 64);  // an empty text still needs an address
    return b;
}

// ---- Unicode normal forms --------------------------------------------------------------------------

// The algorithm of Unicode's annex 15, character by character, because a token's offsets depend on which character came
// from where: utf8proc knows the characters, the composing is done here. Origins follow `tokenizers`, whose library
// reports for every character of the result how many characters it added (1: belongs to the one before) or swallowed
// (−n): a composed letter comes from its base alone.

typedef struct {
    int32_t c, change;
    uint8_t class;
} FormChar;

// State of one run. `source` walks over the characters that the result is aligned with.
typedef struct {
    TextBuffer* out;
    const TokText* text;
    int32_t source;
    Range last;  // origin of the source character before `source`
    bool compose;
    FormChar* pending;     // stb_ds: decomposed, waiting for the marks that follow to be sorted
    FormChar* uncomposed;  // stb_ds: marks that did not compose with `base`
    FormChar base;         // c −1: none
} Form;

static void form_put(Form* f, FormChar x) {
    char bytes[4];
    Range from = f->last;
    for (int32_t k = 0, c; k <= -x.change && f->source < f->text->n; k++) {
        int n = utf8_decode(f->text->bytes + f->source, f->text->n - f->source, &c);
        f->last = (Range){origin_from(f->text, f->source), origin_to(f->text, f->source + n - 1)};
        if (k == 0) from = f->last;
        f->source += n;
    }
    buffer_put(f->out, bytes, utf8_encode(x.c, bytes), from.start, from.end);
}

// What `tokenizers` normalises, by Unicode 9. utf8proc, whatever its version, knows these characters alike: they never
// change. What it knows beyond them is left alone.
static bool normalizes(int32_t c) { return in_ranges(c, normalized, sizeof normalized / sizeof *normalized); }

#define HANGUL_FIRST 0xAC00
#define HANGUL_LAST 0xD7A3

// The character that a and b make together, −1: none.
static int32_t composed(int32_t a, int32_t b) {
    if (a >= 0x1100 && a < 0x1113)
        return b >= 0x1161 && b < 0x1176 ? HANGUL_FIRST + (a - 0x1100) * 588 + (b - 0x1161) * 28 : -1;
    if (a >= HANGUL_FIRST && a <= HANGUL_LAST)
        return b > 0x11A7 && b < 0x11C3 && (a - HANGUL_FIRST) % 28 == 0 ? a + (b - 0x11A7) : -1;
    if (!normalizes(b)) return -1;
    int32_t pair[2] = {a, b};
    bool one = utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) == 1;
    return one && normalizes(pair[0]) ? pair[0] : -1;
}

static void form_flush(Form* f) {
    if (f->base.c >= 0) form_put(f, f->base);
    for (ptrdiff_t i = 0; i < arrlen(f->uncomposed); i++) form_put(f, f->uncomposed[i]);
    arrsetlen(f->uncomposed, 0);
    f->base.c = -1;
}

// The next character in canonical order.
static void form_push(Form* f, FormChar x) {
    if (!f->compose || (f->base.c < 0 && x.class)) {
        form_put(f, x);
        return;
    }
    if (f->base.c < 0) {
        f->base = x;
        return;
    }
    // A mark composes unless one of its class or higher is between; a starter only directly after the base.
    int32_t between = arrlen(f->uncomposed) ? arrlast(f->uncomposed).class : -1;
    int32_t c = between < x.class ? composed(f->base.c, x.c) : -1;
    if (c >= 0) {
        f->base.change += x.change - 1;
        f->base.c = c;
    } else if (x.class) {
        arrput(f->uncomposed, x);
    } else {
        form_flush(f);
        f->base = x;
    }
}

// Few marks are put in place one by one; many, which no language has, class by class, or they would take the square of
// their number.
static void form_sort(Form* f) {
    enum { FEW = 32 };
    FormChar* p = f->pending;
    const ptrdiff_t n = arrlen(p);
    for (ptrdiff_t i = 1; i < n && n <= FEW; i++)
        for (ptrdiff_t k = i; k > 0 && p[k - 1].class > p[k].class; k--) {
            FormChar swap = p[k];
            p[k] = p[k - 1];
            p[k - 1] = swap;
        }
    for (ptrdiff_t i = 0; i < n && n <= FEW; i++) form_push(f, p[i]);
    for (int class = 0; class < 256 && n > FEW; class ++)
        for (ptrdiff_t i = 0; i < n; i++)
            if (p[i].class == class) form_push(f, p[i]);
    arrsetlen(f->pending, 0);
}

static void form_run(Form* f, int32_t start, int32_t end, utf8proc_option_t options) {
    const TokText* t = f->text;
    f->source = start;
    f->base.c = -1;
    for (int32_t at = start, c; at < end;) {
        int32_t parts[32];
        at += utf8_decode(t->bytes + at, t->n - at, &c);
        const bool alone = !normalizes(c);
        utf8proc_ssize_t n = alone ? 0 : utf8proc_decompose_char(c, parts, 32, options | UTF8PROC_DECOMPOSE, NULL);
        if (n < 1 || n > 32) {
            parts[0] = c;
            n = 1;
        }
        for (int i = 0; i < n; i++) {
            FormChar x = {parts[i], i > 0, alone ? 0 : (uint8_t)utf8proc_get_property(parts[i])->combining_class};
            if (!x.class) form_sort(f);
            arrput(f->pending, x);
        }
    }
    form_sort(f);
    form_flush(f);
}

// Whether c can change, or change with a neighbour. All others stay, whatever is beside them.
static bool form_touches(int32_t c, int32_t least, bool compose) {
    if (c < least) return false;
    if (c >= HANGUL_FIRST && c <= HANGUL_LAST) return !compose;
    if (c >= 0x1100 && c < 0x1200) return compose;
    return normalizes(c);
}

// Only runs of characters that can change are rewritten, together with the letter before, on which their first may sit.
static void normal_form(TokText* text, utf8proc_option_t options, int32_t least, Encoding* e) {
    Form f = {.text = text, .compose = options & UTF8PROC_COMPOSE};
    int32_t c, run = -1, before = 0, before_that = 0, copied = 0;
    for (int32_t i = 0, n; i <= text->n; before_that = before, before = i, i += n) {
        n = i < text->n ? utf8_decode(text->bytes + i, text->n - i, &c) : 1;
        bool touched = i < text->n && form_touches(c, least, f.compose);
        if (touched && run < 0) {
            int32_t letter;
            bool sits = i > copied && utf8_decode(text->bytes + before, i - before, &letter) > 0 && letter >= 0;
            run = sits ? before : i;
            // what is before the run, for a result that begins with an added character
            int32_t previous = sits ? before_that : before;
            f.last = run > 0 ? (Range){origin_from(text, previous), origin_to(text, run - 1)}
                             : (Range){origin_from(text, 0), origin_from(text, 0)};
        }
        if (touched || run < 0) continue;
        if (!f.out) f.out = buffer_other(text, e);
        buffer_copy(f.out, text, copied, run);
        form_run(&f, run, i, options);
        copied = i;
        run = -1;
    }
    arrfree(f.pending);
    arrfree(f.uncomposed);
    if (!f.out) return;
    buffer_copy(f.out, text, copied, text->n);
    *text = buffer_text(f.out);
}

// ---- the other normalisers -------------------------------------------------------------------------

static int32_t lower(int32_t c) {
    size_t low = 0, high = sizeof lower_case / sizeof *lower_case;  // the first row that ends at c or after it
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (lower_case[middle].last < c) low = middle + 1;
        else high = middle;
    }
    if (low == sizeof lower_case / sizeof *lower_case || lower_case[low].first > c) return c;
    return (c - lower_case[low].first) % lower_case[low].step ? c : c + lower_case[low].delta;
}

static void lowercase(TokText* text, Encoding* e) {
    TextBuffer* b = buffer_other(text, e);
    for (int32_t i = 0; i < text->n;) {
        int32_t c;
        char out[4];
        int n = utf8_decode(text->bytes + i, text->n - i, &c);
        int32_t small = c < 0 ? c : c == 0x130 ? 'i' : lower(c);
        if (small == c) buffer_copy(b, text, i, i + n);
        else buffer_put(b, out, utf8_encode(small, out), origin_from(text, i), origin_to(text, i + n - 1));
        if (c == 0x130)
            buffer_put(b, "\xCC\x87", 2, origin_from(text, i),
                       origin_to(text, i + n - 1));  // the one letter whose lower case is two
        i += n;
    }
    *text = buffer_text(b);
}

static void prepend(TokText* text, const char* content, Encoding* e) {
    if (!text->n) return;
    TextBuffer* b = buffer_other(text, e);
    put_in_front(b, content, (int32_t)strlen(content), text, 0);
    buffer_copy(b, text, 0, text->n);
    *text = buffer_text(b);
}

// A regular expression sees valid UTF-8 only, stretch by stretch. What takes a match's place comes from the match's
// last character, as in `tokenizers`.
static bool replace(const Normalize* step, TokText* text, Encoding* e) {
    const int32_t n_content = (int32_t)strlen(step->content);
    int32_t copied = 0;
    TextBuffer* b = NULL;
    for (int32_t at = 0, end; at < text->n; at = end) {
        bool valid = true;
        end = step->pattern.literal ? text->n : utf8_stretch(text->bytes, text->n, at, &valid);
        Range found = {0, 0};
        for (int result = 0; valid && (result = pattern_search(&step->pattern, text->bytes + at, end - at, found.end,
                                                               &found, e)) != 0;) {
            if (result < 0) return false;
            if (!b) b = buffer_other(text, e);
            buffer_copy(b, text, copied, at + found.start);
            int32_t last = character_before(text->bytes, at + found.end, at + found.start);
            buffer_put(b, step->content, n_content, origin_from(text, last), origin_to(text, at + found.end - 1));
            copied = at + found.end;
        }
    }
    if (!b) return true;
    buffer_copy(b, text, copied, text->n);
    *text = buffer_text(b);
    return true;
}

static void strip(TokText* text, bool left, bool right, Encoding* e) {
    int32_t start = 0, end = text->n, c;
    while (left && start < end) {
        int n = utf8_decode(text->bytes + start, end - start, &c);
        if (c < 0 || !is_white_space(c)) break;
        start += n;
    }
    while (right && end > start) {
        int32_t last = character_before(text->bytes, end, start);
        if (utf8_decode(text->bytes + last, end - last, &c) != end - last || c < 0 || !is_white_space(c)) break;
        end = last;
    }
    if (start == 0 && end == text->n) return;
    TextBuffer* b = buffer_other(text, e);
    buffer_copy(b, text, start, end);
    *text = buffer_text(b);
}

// Bytes of the user-defined piece at i, 0: none begins there.
static int32_t user_defined_at(const Tokenizer* t, const TokText* text, int32_t i) {
    int32_t length = 0;
    const Trie* trie = &t->normalized_trie;
    return trie->any && trie->first[(unsigned char)text->bytes[i]] &&
                   trie_longest(trie, text->bytes + i, text->n - i, &length) >= 0
               ? length
               : 0;
}

// Spaces become U+2581, all else is copied. A user-defined piece is one unit: its origin is whole, whatever becomes of
// it.
static void put_unit(TextBuffer* b, const Normalize* step, const TokText* text, int32_t start, int32_t end,
                     bool user_defined) {
    const int32_t from = origin_from(text, start), to = origin_to(text, end - 1);
    for (int32_t i = start; i < end; i++) {
        const bool space = text->bytes[i] == ' ' && step->escape;
        buffer_put(b, space ? "\xE2\x96\x81" : text->bytes + i, space ? 3 : 1,
                   user_defined ? from : origin_from(text, i), user_defined ? from : origin_to(text, i));
    }
    arrlast(b->to) = to;
}

// What sentencepiece does before it merges: bytes that are not UTF-8 become U+FFFD one by one, spaces become U+2581,
// and one is put in front. Where extra spaces are removed, the one that stays covers them.
static void sentencepiece(const Tokenizer* t, const Normalize* step, TokText* text, Encoding* e) {
    const char* space = step->escape ? "\xE2\x96\x81" : " ";
    const size_t n_space = strlen(space);
    int32_t i = 0;
    TextBuffer* b = buffer_other(text, e);
    while (step->right && i < text->n && text->bytes[i] == ' ' && !user_defined_at(t, text, i)) i++;
    if (step->left && i < text->n) buffer_put(b, space, (int32_t)n_space, origin_from(text, i), origin_from(text, i));
    bool after_space = step->right;
    while (i < text->n) {
        int32_t c, length = user_defined_at(t, text, i),
                   n = length ? length : utf8_decode(text->bytes + i, text->n - i, &c), skip = 0;
        if (!length && c < 0) {
            buffer_put(b, "\xEF\xBF\xBD", 3, origin_from(text, i), origin_to(text, i));
            after_space = false;
        } else {
            while (after_space && skip < n && text->bytes[i + skip] == ' ') skip++;
            if (skip < n) put_unit(b, step, text, i + skip, i + n, length > 0);
            else if (arrlen(b->to)) arrlast(b->to) = origin_to(text, i + n - 1);
            if (skip < n) after_space = step->right && text->bytes[i + n - 1] == ' ';
        }
        i += n;
    }
    while (step->right && arrlenu(b->bytes) >= n_space &&
           !memcmp(b->bytes + arrlen(b->bytes) - n_space, space, n_space)) {
        arrsetlen(b->bytes, arrlenu(b->bytes) - n_space);
        arrsetlen(b->from, arrlenu(b->bytes));
        arrsetlen(b->to, arrlenu(b->bytes));
    }
    *text = buffer_text(b);
}

// What takes the place of s[0, n), NULL: nothing does. The shortest beginning of s that is in the trie decides, as in
// `tokenizers`. A unit holds a label, an offset to its children, and whether a value is among them.
static const char* charsmap_find(const Normalize* step, const char* s, int32_t n) {
    const size_t n_units = arrlenu(step->trie);
    size_t at = 0;
    for (int32_t i = -1; i < n; i++) {
        const unsigned char c = i < 0 ? 0 : (unsigned char)s[i];
        if (i >= 0 && !c) return NULL;
        at ^= c;
        if (at >= n_units) return NULL;
        const uint32_t unit = step->trie[at];
        if (i >= 0 && (unit & (1u << 31 | 0xFF)) != c) return NULL;
        at ^= (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
        if (i >= 0 && unit >> 8 & 1) {
            const uint32_t value = at < n_units ? step->trie[at] & 0x7FFFFFFF : UINT32_MAX;
            return value < arrlenu(step->texts) ? step->texts + value : NULL;
        }
    }
    return NULL;
}

// Characters of the new text come from those of the old one in order; what is over, from the last.
static void charsmap_put(TextBuffer* b, const TokText* text, int32_t start, int32_t end, const char* fresh) {
    int32_t c, at = start, n_new = (int32_t)strlen(fresh);
    for (int32_t i = 0, n; i < n_new; i += n) {
        n = utf8_decode(fresh + i, n_new - i, &c);
        const int length = utf8_decode(text->bytes + at, end - at, &c);
        buffer_put(b, fresh + i, n, origin_from(text, at), origin_to(text, at + length - 1));
        if (at + length < end) at += length;
    }
}

// sentencepiece's compiled rules: a short grapheme as a whole, else its characters one by one.
static void charsmap(const Normalize* step, TokText* text, Encoding* e) {
    TextBuffer* b = buffer_other(text, e);
    for (int32_t start = 0, end; start < text->n; start = end) {
        int32_t before, c, state = 0;
        end = start + utf8_decode(text->bytes + start, text->n - start, &before);
        while (end < text->n && before >= 0) {
            const int n = utf8_decode(text->bytes + end, text->n - end, &c);
            if (c < 0 || utf8proc_grapheme_break_stateful(before, c, &state)) break;
            before = c;
            end += n;
        }
        const char* fresh = end - start < 6 ? charsmap_find(step, text->bytes + start, end - start) : NULL;
        if (fresh) {
            charsmap_put(b, text, start, end, fresh);
            continue;
        }
        for (int32_t at = start, n; at < end; at += n) {
            n = utf8_decode(text->bytes + at, end - at, &c);
            fresh = charsmap_find(step, text->bytes + at, n);
            if (fresh) charsmap_put(b, text, at, at + n, fresh);
            else buffer_copy(b, text, at, at + n);
        }
    }
    *text = buffer_text(b);
}

bool normalize_text(const Tokenizer* t, TokText* text, Encoding* e) {
    for (ptrdiff_t i = 0; i < arrlen(t->normalize); i++) {
        const Normalize* step = &t->normalize[i];
        bool good = true;
        switch (step->type) {
            // U+0300 is the first character that is not in NFC by itself or can change the one before; decompositions
            // begin at U+00A0.
            case NORMALIZE_NFC: normal_form(text, UTF8PROC_COMPOSE | UTF8PROC_STABLE, 0x300, e); break;
            case NORMALIZE_NFD: normal_form(text, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, 0xA0, e); break;
            case NORMALIZE_NFKC:
                normal_form(text, UTF8PROC_COMPOSE | UTF8PROC_STABLE | UTF8PROC_COMPAT, 0xA0, e);
                break;
            case NORMALIZE_NFKD:
                normal_form(text, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | UTF8PROC_COMPAT, 0xA0, e);
                break;
            case NORMALIZE_LOWERCASE: lowercase(text, e); break;
            case NORMALIZE_PREPEND: prepend(text, step->content, e); break;
            case NORMALIZE_REPLACE: good = replace(step, text, e); break;
            case NORMALIZE_STRIP: strip(text, step->left, step->right, e); break;
            case NORMALIZE_SENTENCEPIECE: sentencepiece(t, step, text, e); break;
            case NORMALIZE_CHARSMAP: charsmap(step, text, e); break;
        }
        if (!good) return false;
    }
    return true;
}
