/*
Texts that remember, byte by byte, where in the original they came from, and the normalisers that rewrite them. A normaliser that would change nothing
leaves the text alone, so most texts are never copied and have no map.
*/
#include <stdlib.h>
// defines: utf8proc_map, grapheme breaks, utf8proc_tolower
#include <utf8proc.h>
#include "tokenizer_internal.h"

// ---- buffers ------------------------------------------------------------------------------------------------------------------------------------

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

Text buffer_text(const TextBuffer* b) { return (Text){b->bytes, (int32_t)arrlen(b->bytes), 0, b->from, b->to}; }

void buffer_copy(TextBuffer* b, const Text* t, int32_t start, int32_t end) {
    if (end <= start) return;
    int32_t n = end - start;
    memcpy(arraddnptr(b->bytes, n), t->bytes + start, (size_t)n);
    int32_t *from = arraddnptr(b->from, n), *to = arraddnptr(b->to, n);
    for (int32_t i = 0; i < n; i++) { from[i] = origin_from(t, start + i); to[i] = origin_to(t, start + i); }
}

void buffer_put(TextBuffer* b, const char* bytes, int32_t n, int32_t from, int32_t to) {
    if (n <= 0) return;
    memcpy(arraddnptr(b->bytes, n), bytes, (size_t)n);
    int32_t *f = arraddnptr(b->from, n), *e = arraddnptr(b->to, n);
    for (int32_t i = 0; i < n; i++) { f[i] = from; e[i] = to; }
}

// An empty buffer that `text` does not live in. Normalisers and pre-tokenisers have two each, because the parts of one normalised text are pre-tokenised
// one after the other.
TextBuffer* buffer_other(const Text* text, Encoding* e) {
    TextBuffer* first = &e->scratch->buffer[e->scratch->stage];
    bool inside = text->from && first->bytes && text->bytes >= first->bytes && text->bytes <= first->bytes + arrlen(first->bytes);
    TextBuffer* b = first + inside;
    buffer_clear(b);
    if (!b->bytes) arrsetcap(b->bytes, 64);  // an empty text still needs an address
    return b;
}

// ---- Unicode normal forms -----------------------------------------------------------------------------------------------------------------------

// Normalises [start, end), one grapheme cluster at a time: clusters are the smallest pieces that normalise independently, so they bound what a changed
// byte is mapped to. A cluster that stays the same keeps its byte-exact map.
static bool normal_form_run(TextBuffer* b, const Text* t, int32_t start, int32_t end, utf8proc_option_t options, Encoding* e) {
    int32_t at = start;
    while (at < end) {
        int32_t stop = at, state = 0, previous = -1;
        while (stop < end) {
            int32_t c;
            int n = utf8_decode(t->bytes + stop, end - stop, &c);
            if (c < 0) { if (stop == at) stop += n; break; }  // a byte that is not UTF-8 is a cluster of its own
            if (previous >= 0 && utf8proc_grapheme_break_stateful(previous, c, &state)) break;
            previous = c;
            stop += n;
        }
        utf8proc_uint8_t* normal = NULL;
        utf8proc_ssize_t n = previous < 0 ? -1 : utf8proc_map((const utf8proc_uint8_t*)t->bytes + at, stop - at, &normal, options);
        if (n < 0 && previous >= 0) {
            snprintf(e->error, sizeof e->error, "the text cannot be normalised (%s)", utf8proc_errmsg(n));
            return false;
        }
        if (n < 0 || (n == stop - at && !memcmp(normal, t->bytes + at, (size_t)n))) buffer_copy(b, t, at, stop);
        else buffer_put(b, (const char*)normal, (int32_t)n, origin_from(t, at), origin_to(t, stop - 1));
        free(normal);
        at = stop;
    }
    return true;
}

// Everything below the first character that the form can change (`least`) is copied as it is, together with the letter a combining mark may sit on.
static bool normal_form(Text* text, utf8proc_option_t options, int32_t least, Encoding* e) {
    int32_t i = 0, c, run = -1, before = 0, copied = 0;
    TextBuffer* b = NULL;
    while (i <= text->n) {
        int n = i < text->n ? utf8_decode(text->bytes + i, text->n - i, &c) : 1;
        bool touched = i < text->n && c >= least;
        if (touched && run < 0) run = before;
        if (!touched && run >= 0) {
            if (!b) b = buffer_other(text, e);
            buffer_copy(b, text, copied, run);
            if (!normal_form_run(b, text, run, i, options, e)) return false;
            copied = i;
            run = -1;
        }
        before = i;
        i += n;
    }
    if (!b) return true;
    buffer_copy(b, text, copied, text->n);
    *text = buffer_text(b);
    return true;
}

// ---- the other normalisers ----------------------------------------------------------------------------------------------------------------------

static void lowercase(Text* text, Encoding* e) {
    TextBuffer* b = buffer_other(text, e);
    for (int32_t i = 0; i < text->n;) {
        int32_t c;
        char out[4];
        int n = utf8_decode(text->bytes + i, text->n - i, &c);
        int32_t lower = c < 0 ? c : c == 0x130 ? 'i' : utf8proc_tolower(c);
        if (lower == c) buffer_copy(b, text, i, i + n);
        else buffer_put(b, out, utf8_encode(lower, out), origin_from(text, i), origin_to(text, i + n - 1));
        if (c == 0x130) buffer_put(b, "\xCC\x87", 2, origin_from(text, i), origin_to(text, i + n - 1));  // the one letter whose lower case is two
        i += n;
    }
    *text = buffer_text(b);
}

static void prepend(Text* text, const char* content, Encoding* e) {
    if (!text->n) return;
    TextBuffer* b = buffer_other(text, e);
    buffer_put(b, content, (int32_t)strlen(content), origin_from(text, 0), origin_from(text, 0));
    buffer_copy(b, text, 0, text->n);
    *text = buffer_text(b);
}

static bool replace(const Normalize* step, Text* text, Encoding* e) {
    int32_t n_pattern = step->pattern ? (int32_t)strlen(step->pattern) : 0, n_content = (int32_t)strlen(step->content);
    if (step->pattern && (!n_pattern || !memmem(text->bytes, (size_t)text->n, step->pattern, (size_t)n_pattern))) return true;
    TextBuffer* b = buffer_other(text, e);
    for (int32_t i = 0;;) {
        Range found = {text->n, text->n};
        if (step->pattern) {
            const char* at = i < text->n ? memmem(text->bytes + i, (size_t)(text->n - i), step->pattern, (size_t)n_pattern) : NULL;
            if (at) found = (Range){(int32_t)(at - text->bytes), (int32_t)(at - text->bytes) + n_pattern};
        } else if (regex_search(&step->regex, text->bytes, text->n, i, &found, e) < 0) {
            return false;
        }
        buffer_copy(b, text, i, found.start);
        if (found.start >= text->n) break;
        buffer_put(b, step->content, n_content, origin_from(text, found.start), origin_to(text, found.end - 1));
        i = found.end;
    }
    *text = buffer_text(b);
    return true;
}

static void strip(Text* text, bool left, bool right, Encoding* e) {
    int32_t start = 0, end = text->n, c;
    while (left && start < end) {
        int n = utf8_decode(text->bytes + start, end - start, &c);
        if (c < 0 || !is_white_space(c)) break;
        start += n;
    }
    while (right && end > start) {
        int32_t last = end - 1;
        while (last > start && end - last < 4 && ((unsigned char)text->bytes[last] & 0xC0) == 0x80) last--;
        if (utf8_decode(text->bytes + last, end - last, &c) != end - last || c < 0 || !is_white_space(c)) break;
        end = last;
    }
    if (start == 0 && end == text->n) return;
    TextBuffer* b = buffer_other(text, e);
    buffer_copy(b, text, start, end);
    *text = buffer_text(b);
}

// What sentencepiece does before it merges: bytes that are not UTF-8 become U+FFFD one by one, spaces become U+2581, and one is put in front.
static void sentencepiece(const Normalize* step, Text* text, Encoding* e) {
    if (!text->n) return;
    const char* space = step->escape ? "\xE2\x96\x81" : " ";
    const int32_t n_space = step->escape ? 3 : 1;
    int32_t i = 0, end = text->n;
    TextBuffer* b = buffer_other(text, e);
    if (step->right) {
        while (i < end && text->bytes[i] == ' ') i++;
        while (end > i && text->bytes[end - 1] == ' ') end--;
    }
    if (step->left && i < end) buffer_put(b, space, n_space, origin_from(text, i), origin_from(text, i));
    bool was_space = step->right;
    while (i < end) {
        int32_t c;
        int n = utf8_decode(text->bytes + i, end - i, &c);
        if (c < 0) buffer_put(b, "\xEF\xBF\xBD", 3, origin_from(text, i), origin_to(text, i));
        else if (c != ' ') buffer_copy(b, text, i, i + n);
        else if (!step->right || !was_space) buffer_put(b, space, n_space, origin_from(text, i), origin_to(text, i));
        was_space = c == ' ' && step->right;
        i += n;
    }
    *text = buffer_text(b);
}

bool normalize_text(const Tokenizer* t, Text* text, Encoding* e) {
    for (ptrdiff_t i = 0; i < arrlen(t->normalize); i++) {
        const Normalize* step = &t->normalize[i];
        bool good = true;
        switch (step->type) {
        // U+0300 is the first character that is not in NFC by itself or can change the one before; decompositions begin at U+00A0.
        case NORMALIZE_NFC: good = normal_form(text, UTF8PROC_COMPOSE | UTF8PROC_STABLE, 0x300, e); break;
        case NORMALIZE_NFD: good = normal_form(text, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, 0xA0, e); break;
        case NORMALIZE_NFKC: good = normal_form(text, UTF8PROC_COMPOSE | UTF8PROC_STABLE | UTF8PROC_COMPAT, 0xA0, e); break;
        case NORMALIZE_NFKD: good = normal_form(text, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | UTF8PROC_COMPAT, 0xA0, e); break;
        case NORMALIZE_LOWERCASE: lowercase(text, e); break;
        case NORMALIZE_PREPEND: prepend(text, step->content, e); break;
        case NORMALIZE_REPLACE: good = replace(step, text, e); break;
        case NORMALIZE_STRIP: strip(text, step->left, step->right, e); break;
        case NORMALIZE_SENTENCEPIECE: sentencepiece(step, text, e); break;
        }
        if (!good) return false;
    }
    return true;
}
