/* The pipeline over one text: added tokens cut it, what is between is normalised, cut by the added tokens that are
   matched after normalising, split into words, merged; then the post-processor's tokens go around it. The order is that
   of Hugging Face `tokenizers`. */
#include <stdlib.h>
#include "tokenizer_internal.h"

#define MOST_TEXT ((size_t)1 << 30)  // bytes; offsets are 32-bit and a normaliser may make a text longer

void encoding_put(Encoding* e, int32_t id, int32_t start, int32_t end) {
    struct TokenizerScratch* s = e->scratch;
    if (e->n == s->room) {
        s->room = s->room ? 2 * s->room : 1024;
        e->ids = tok_memory(realloc(e->ids, (size_t)s->room * sizeof *e->ids));
        e->start = tok_memory(realloc(e->start, (size_t)s->room * sizeof *e->start));
        e->end = tok_memory(realloc(e->end, (size_t)s->room * sizeof *e->end));
    }
    e->ids[e->n] = id;
    e->start[e->n] = start;
    e->end[e->n++] = end;
}

static struct TokenizerScratch* scratch_new(void) {
    struct TokenizerScratch* s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->cache = calloc(CACHE_SLOTS, sizeof *s->cache);
    s->match = pcre2_match_data_create(64, NULL);
    s->context = pcre2_match_context_create(NULL);
    s->jit_stack = pcre2_jit_stack_create(32 << 10, 64 << 20,
                                          NULL);  // patterns that backtrack over a long run need the room
    if (s->cache && s->match && s->context && s->jit_stack) pcre2_jit_stack_assign(s->context, NULL, s->jit_stack);
    return s;
}

void encoding_free(Encoding* e) {
    struct TokenizerScratch* s = e->scratch;
    if (s) {
        for (int i = 0; i < 4; i++) buffer_free(&s->buffer[i]);
        arrfree(s->ranges);
        arrfree(s->ranges_next);
        arrfree(s->lattice);
        arrfree(s->mapped);
        arrfree(s->heap);
        free(s->symbols);
        free(s->cache);
        pcre2_match_data_free(s->match);
        pcre2_match_context_free(s->context);
        pcre2_jit_stack_free(s->jit_stack);
        free(s);
    }
    free(e->ids);
    free(e->start);
    free(e->end);
    *e = (Encoding){0};
}

// The part [start, end) of a text, with the same map.
static TokText part(const TokText* text, int32_t start, int32_t end) {
    return (TokText){text->bytes + start, end - start, text->base + start, text->from ? text->from + start : NULL,
                     text->from ? text->to + start : NULL};
}

// ---- added tokens ----------------------------------------------------------------------------------

static bool word_before(const TokText* text, int32_t at) {
    int32_t c, start = character_before(text->bytes, at, 0);
    return at > 0 && utf8_decode(text->bytes + start, at - start, &c) == at - start && c >= 0 && is_word(c);
}

static bool word_after(const TokText* text, int32_t at) {
    int32_t c;
    if (at >= text->n) return false;
    utf8_decode(text->bytes + at, text->n - at, &c);
    return c >= 0 && is_word(c);
}

static int32_t spaces_before(const TokText* text, int32_t at) {
    while (at > 0) {
        int32_t c, start = character_before(text->bytes, at, 0);
        if (utf8_decode(text->bytes + start, at - start, &c) != at - start || c < 0 || !is_white_space(c)) break;
        at = start;
    }
    return at;
}

static int32_t spaces_after(const TokText* text, int32_t at) {
    while (at < text->n) {
        int32_t c;
        int n = utf8_decode(text->bytes + at, text->n - at, &c);
        if (c < 0 || !is_white_space(c)) break;
        at += n;
    }
    return at;
}

// Whether the match text[start, end) may become token a: special ones touch no plain bytes.
static bool may_be_read(const AddedToken* a, const PlainText* plain, const TokText* text, int32_t start, int32_t end) {
    bool guarded = a->special;
    for (int i = 0; i < plain->n_guarded && !guarded; i++) guarded = plain->guarded[i] == a->id;
    if (!guarded) return true;
    const size_t from = (size_t)origin_from(text, start), to = (size_t)origin_to(text, end - 1);
    int low = 0, high = plain->n;  // the first range that ends after `from`
    while (low < high) {
        int middle = (low + high) / 2;
        if (plain->ranges[middle].end <= from) low = middle + 1;
        else high = middle;
    }
    return low == plain->n || plain->ranges[low].start >= to;
}

// The longest added token at `at` that may be read, −1: none. Without plain text that is decided later, as
// `tokenizers` does, which continues after a match that it does not take.
static int32_t added_at(const Tokenizer* t, const Trie* trie, const TokText* text, int32_t at, const PlainText* plain,
                        int32_t* length) {
    if (!trie->first[(unsigned char)text->bytes[at]]) return -1;
    int32_t token = trie_longest(trie, text->bytes + at, text->n - at, length);
    while (plain && token >= 0 && !may_be_read(&t->added[token], plain, text, at, at + *length))
        token = trie_longest(trie, text->bytes + at, *length - 1, length);
    return token;
}

// The next added token at or after `from`: leftmost, longest, then its rules (single_word, lstrip, rstrip), as
// AddedVocabulary::find_matches. `scan` is where the search itself continues, which the spaces taken by rstrip do not
// move. Returns its index, −1 for none.
static int32_t next_added(const Tokenizer* t, const Trie* trie, const TokText* text, int32_t taken, int32_t* scan,
                          bool special, const PlainText* plain, Range* found) {
    if (!trie->any) return -1;
    while (*scan < text->n) {
        int32_t length = 0, token = added_at(t, trie, text, *scan, plain, &length);
        if (token < 0) {
            (*scan)++;
            continue;
        }
        const AddedToken* a = &t->added[token];
        *found = (Range){*scan, *scan + length};
        *scan += length;
        if (a->special && !special) continue;
        if (a->single_word && (word_before(text, found->start) || word_after(text, found->end))) continue;
        if (a->lstrip) {
            int32_t start = spaces_before(text, found->start);
            found->start = start > taken ? start : taken;
        }
        if (a->rstrip) found->end = spaces_after(text, found->end);
        return token;
    }
    return -1;
}

static void put_added(const Tokenizer* t, const TokText* text, int32_t token, Range r, Encoding* e) {
    if (r.end > r.start) encoding_put(e, t->added[token].id, origin_from(text, r.start), origin_to(text, r.end - 1));
}

// ---- the pipeline ----------------------------------------------------------------------------------

static bool encode_words(const Tokenizer* t, TokText text, Encoding* e) {
    if (!text.n) return true;
    e->scratch->stage = 2;
    if (!pretokenize_text(t, &text, e)) return false;
    for (ptrdiff_t i = 0; i < arrlen(e->scratch->ranges); i++)
        if (!encode_word(t, &text, e->scratch->ranges[i], e)) return false;
    return true;
}

// Between two added tokens: normalise, then cut at the added tokens that are searched in normalised text.
static bool encode_between(const Tokenizer* t, TokText text, bool special, Encoding* e) {
    if (!text.n) return true;
    e->scratch->stage = 0;
    if (!normalize_text(t, &text, e)) return false;
    int32_t taken = 0, scan = 0, token;
    Range found;
    while ((token = next_added(t, &t->normalized_trie, &text, taken, &scan, special, e->scratch->plain, &found)) >= 0) {
        if (found.start > taken && !encode_words(t, part(&text, taken, found.start), e)) return false;
        put_added(t, &text, token, found, e);
        taken = found.end;
    }
    return taken >= text.n || encode_words(t, part(&text, taken, text.n), e);
}

static int64_t encode_text(const Tokenizer* t, const char* text, size_t length, const PlainText* plain, int flags,
                           Encoding* e) {
    e->n = 0;
    e->error[0] = 0;
    if (!e->scratch) e->scratch = scratch_new();
    struct TokenizerScratch* s = e->scratch;
    if (!s || !s->cache || !s->match || !s->context || !s->jit_stack) {
        snprintf(e->error, sizeof e->error, NO_MEMORY "a text's tokens");
        return -1;
    }
    if (length > MOST_TEXT) {
        snprintf(e->error, sizeof e->error,
                 "a text of %zu bytes is longer than the %zu that can be encoded at once; cut it", length, MOST_TEXT);
        return -1;
    }
    if (s->owner != t) {
        memset(s->cache, 0, CACHE_SLOTS * sizeof *s->cache);
        s->owner = t;
    }
    s->plain = plain;
    if (flags & TOKENIZER_ADD_SPECIAL)
        for (ptrdiff_t i = 0; i < arrlen(t->prefix); i++) encoding_put(e, t->prefix[i], 0, 0);
    const TokText whole = {text, (int32_t)length, 0, NULL, NULL};
    const bool special = (flags & TOKENIZER_PARSE_SPECIAL) && !t->text_only;
    int32_t taken = 0, scan = 0, token;
    Range found;
    while ((token = next_added(t, &t->added_trie, &whole, taken, &scan, special, e->scratch->plain, &found)) >= 0) {
        if (found.start > taken && !encode_between(t, part(&whole, taken, found.start), special, e)) return -1;
        put_added(t, &whole, token, found, e);
        taken = found.end;
    }
    if (taken < whole.n && !encode_between(t, part(&whole, taken, whole.n), special, e)) return -1;
    if (flags & TOKENIZER_ADD_SPECIAL)
        for (ptrdiff_t i = 0; i < arrlen(t->suffix); i++) encoding_put(e, t->suffix[i], 0, 0);
    return e->n;
}

int64_t tokenizer_encode(const Tokenizer* t, const char* text, size_t length, int flags, Encoding* e) {
    return encode_text(t, text, length, NULL, flags, e);
}

int64_t tokenizer_encode_mixed(const Tokenizer* t, const char* text, size_t length, const PlainText* plain, int flags,
                               Encoding* e) {
    return encode_text(t, text, length, plain, flags | TOKENIZER_PARSE_SPECIAL, e);
}
