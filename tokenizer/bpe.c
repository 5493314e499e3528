/*
Byte-pair encoding of one word: symbols (bytes or characters), then always the merge of lowest rank, leftmost first, as
in Sennrich et al. (2016) and in `tokenizers`, tiktoken and sentencepiece. Short words by searching all pairs, long ones
with a heap, so that a megabyte of one letter costs n log n. Words that were seen before come from a cache; a tokenizer
without words (sentencepiece) is cut where no merge can cross.
*/
#include <stdlib.h>
#include "tokenizer_internal.h"

#define SHORT_WORD 48  // symbols; above, the heap is faster

// ---- symbols ---------------------------------------------------------------------------------------

static Symbol* symbols_for(struct TokenizerScratch* s, int64_t n) {
    if (n > s->n_symbols) {
        s->n_symbols = n + n / 2 + 256;
        free(s->symbols);
        s->symbols = tok_memory(malloc((size_t)s->n_symbols * sizeof *s->symbols));
    }
    return s->symbols;
}

// A character without a piece: byte tokens if it has them all, else the unknown token (joined to one before if the
// model fuses them), else nothing.
static int64_t put_unknown(const Tokenizer* t, const char* bytes, int32_t start, int32_t end, Symbol* y, int64_t n,
                           bool* after_unknown) {
    bool all = t->byte_fallback;
    for (int32_t i = start; all && i < end; i++) all = t->byte_id[(unsigned char)bytes[i]] >= 0;
    if (all) {
        for (int32_t i = start; i < end; i++) y[n++] = (Symbol){t->byte_id[(unsigned char)bytes[i]], i, i + 1, 0, 0};
        *after_unknown = false;
    } else if (t->unk >= 0) {
        if (t->fuse_unk && *after_unknown) y[n - 1].end = end;
        else y[n++] = (Symbol){t->unk, start, end, 0, 0};
        *after_unknown = true;
    }
    return n;
}

// Whether the byte at i belongs to a character.
static bool in_character(const char* word, int32_t length, int32_t i) {
    int32_t start = character_before(word, i + 1, 0), c;
    return utf8_decode(word + start, length - start, &c) > i - start && c >= 0;
}

// A byte that the vocabulary lacks: of a character, then nothing, as in `tokenizers`; a stray one becomes U+FFFD, so
// that it does not vanish.
static int64_t put_stray(const Tokenizer* t, const char* word, int32_t length, int32_t i, Symbol* y, int64_t n) {
    for (int k = 0; k < 3 && !in_character(word, length, i); k++) {
        int32_t id = t->byte_id[(unsigned char)"\xEF\xBF\xBD"[k]];
        if (id >= 0) y[n++] = (Symbol){id, i, i + 1, 0, 0};
    }
    return n;
}

// A character that is not a word's first, with the prefix of subwords in front.
static int32_t subword_id(const Tokenizer* t, const char* character, int bytes) {
    char piece[256];
    const int n = snprintf(piece, sizeof piece, "%s%.*s", t->subword, bytes, character);
    return n < (int)sizeof piece ? piece_find(&t->by_text, t->text, t->arena, piece, (uint32_t)n) : -1;
}

// The word's symbols, offsets within the word. late_fallback keeps unknown characters as symbols (id −1 or virtual).
static int64_t make_symbols(const Tokenizer* t, const char* word, int32_t length, Symbol* y) {
    int64_t n = 0;
    bool after_unknown = false;
    for (int32_t i = 0; i < length;) {
        int32_t c, id;
        int bytes = 1;
        if (t->byte_level) id = t->byte_id[(unsigned char)word[i]];
        else if (t->subword && i) id = subword_id(t, word + i, bytes = utf8_decode(word + i, length - i, &c));
        else if (!((unsigned char)word[i] & 0x80)) id = t->ascii_id[(unsigned char)word[i]];
        else {
            bytes = utf8_decode(word + i, length - i, &c);
            id = c < 0 ? -1 : piece_find(&t->by_raw, t->raw, t->arena, word + i, (uint32_t)bytes);
            if (id < 0 && t->late_fallback) {
                id = piece_find(&t->by_virtual, t->virtual_text, t->arena, word + i, (uint32_t)bytes);
                if (id >= 0) id += t->n_vocab;
            }
        }
        if (id >= 0 || t->late_fallback) {
            y[n++] = (Symbol){id, i, i + bytes, 0, 0};
            after_unknown = false;
        } else if (t->byte_level && t->unk < 0) {
            n = put_stray(t, word, length, i, y, n);
        } else {
            n = put_unknown(t, word, i, i + bytes, y, n, &after_unknown);
        }
        i += bytes;
    }
    return n;
}

// ---- merging ---------------------------------------------------------------------------------------

// Symbols stay in a dense array; pair i is (i, i + 1). Quadratic, but with the smallest of constants.
static int64_t merge_short(const MergeTable* m, Symbol* y, int64_t n) {
    uint32_t rank[SHORT_WORD];
    int32_t id[SHORT_WORD];
    for (int64_t i = 0; i < n; i++) {
        const Merge* found = i + 1 < n ? merge_find(m, y[i].id, y[i + 1].id) : NULL;
        rank[i] = found ? found->rank : UINT32_MAX;
        id[i] = found ? found->id : -1;
    }
    while (n > 1) {
        int64_t best = 0;
        for (int64_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == UINT32_MAX) break;
        y[best].id = id[best];
        y[best].end = y[best + 1].end;
        n--;
        for (int64_t i = best + 1; i < n; i++) {
            y[i] = y[i + 1];
            rank[i] = rank[i + 1];
            id[i] = id[i + 1];
        }
        for (int64_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++) {
            const Merge* found = merge_find(m, y[i].id, y[i + 1].id);
            rank[i] = found ? found->rank : UINT32_MAX;
            id[i] = found ? found->id : -1;
        }
    }
    return n;
}

// The heap holds rank and place in one number, so that the smallest is the lowest rank, leftmost first. Four children a
// node: they are in one cache line.
static void heap_push(uint64_t** heap, uint64_t key) {
    arrput(*heap, key);
    uint64_t* h = *heap;
    ptrdiff_t i = arrlen(h) - 1;
    for (; i > 0 && key < h[(i - 1) / 4]; i = (i - 1) / 4) h[i] = h[(i - 1) / 4];
    h[i] = key;
}

static uint64_t heap_pop(uint64_t* h) {
    uint64_t top = h[0], last = arrpop(h);
    ptrdiff_t n = arrlen(h), i = 0;
    for (ptrdiff_t first; (first = 4 * i + 1) < n;) {
        ptrdiff_t least = first, end = first + 4 < n ? first + 4 : n;
        for (ptrdiff_t k = first + 1; k < end; k++)
            if (h[k] < h[least]) least = k;
        if (h[least] >= last) break;
        h[i] = h[least];
        i = least;
    }
    if (n) h[i] = last;
    return top;
}

static void offer(const MergeTable* m, uint64_t** heap, const Symbol* y, int32_t at) {
    if (at < 0 || y[at].next < 0) return;
    const Merge* found = merge_find(m, y[at].id, y[y[at].next].id);
    if (found) heap_push(heap, (uint64_t)found->rank << 32 | (uint32_t)at);
}

// Symbols in a doubly linked list, candidates in the heap. A candidate is stale when the pair at its place no longer
// has its rank: what is there now has a candidate of its own.
static int64_t merge_long(const MergeTable* m, Symbol* y, int64_t n, uint64_t** heap) {
    arrsetlen(*heap, 0);
    for (int32_t i = 0; i < n; i++) {
        y[i].previous = i - 1;
        y[i].next = i + 1 < n ? i + 1 : -1;
    }
    for (int32_t i = 0; i + 1 < n; i++) offer(m, heap, y, i);
    while (arrlen(*heap)) {
        const uint64_t key = heap_pop(*heap);
        const int32_t at = (int32_t)(uint32_t)key;
        Symbol* left = &y[at];
        if (left->end < 0 || left->next < 0) continue;  // end −1: swallowed by the symbol to its left
        Symbol* right = &y[left->next];
        const Merge* now = merge_find(m, left->id, right->id);
        if (!now || now->rank != key >> 32) continue;
        left->id = now->id;
        left->end = right->end;
        left->next = right->next;
        right->end = -1;
        if (left->next >= 0) y[left->next].previous = at;
        offer(m, heap, y, left->previous);
        offer(m, heap, y, at);
    }
    int64_t kept = 0;
    for (int32_t i = n ? 0 : -1; i >= 0;) {
        int32_t next = y[i].next;
        y[kept++] = y[i];  // kept ≤ i: never overwrites one still to come
        i = next;
    }
    return kept;
}

// ---- words -----------------------------------------------------------------------------------------

static inline void put_token(const TokText* text, int32_t base, int32_t id, int32_t start, int32_t end, Encoding* e) {
    encoding_put(e, id, origin_from(text, base + start), origin_to(text, base + end - 1));
}

// After merging (sentencepiece): symbols outside the vocabulary become byte tokens or the unknown token, of which
// neighbours are one.
static void put_late(const Tokenizer* t, const TokText* text, int32_t base, const Symbol* y, int64_t n, Encoding* e) {
    bool after_unknown = false;
    for (int64_t i = 0; i < n; i++) {
        if (y[i].id >= 0 && y[i].id < t->n_vocab) {
            put_token(text, base, y[i].id, y[i].start, y[i].end, e);
            after_unknown = false;
        } else if (t->byte_fallback) {
            for (int32_t k = y[i].start; k < y[i].end; k++)
                put_token(text, base, t->byte_id[(unsigned char)text->bytes[base + k]], k, k + 1, e);
        } else if (after_unknown) {
            e->end[e->n - 1] = origin_to(text, base + y[i].end - 1);
        } else {
            put_token(text, base, t->unk, y[i].start, y[i].end, e);
            after_unknown = true;
        }
    }
}

static void encode_piece(const Tokenizer* t, const TokText* text, int32_t start, int32_t end, Encoding* e) {
    struct TokenizerScratch* s = e->scratch;
    const char* word = text->bytes + start;
    int32_t length = end - start;
    CachedWord* slot = NULL;
    if (length <= CACHE_KEY && !t->subword) {  // whose pieces are longer than what they cover
        slot = &s->cache[hash_bytes(word, (uint32_t)length) & (CACHE_SLOTS - 1)];
        if (slot->n_key == length && !memcmp(slot->key, word, (size_t)length)) {
            int32_t at = 0;
            for (uint32_t i = 0; i < slot->n; i++) {
                int32_t n = (int32_t)t->raw[slot->id[i]].n;
                put_token(text, start, slot->id[i], at, at + n, e);
                at += n;
            }
            return;
        }
    }
    int32_t whole = t->ignore_merges ? piece_find(&t->by_raw, t->raw, t->arena, word, (uint32_t)length) : -1;
    if (whole >= 0) {
        put_token(text, start, whole, 0, length, e);
        return;
    }
    Symbol* y = symbols_for(s, 3 * (int64_t)length);  // a stray byte may take three
    int64_t n = make_symbols(t, word, length, y);
    n = n <= SHORT_WORD ? merge_short(&t->merges, y, n) : merge_long(&t->merges, y, n, &s->heap);
    if (t->late_fallback) put_late(t, text, start, y, n, e);
    else
        for (int64_t i = 0; i < n; i++) put_token(text, start, y[i].id, y[i].start, y[i].end, e);

    // Into the cache, if the pieces tile the word: their lengths alone then give the offsets.
    if (!slot || n > CACHE_IDS || !n) return;
    int32_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        if (y[i].id < 0 || y[i].id >= t->n_vocab || y[i].start != at ||
            (uint32_t)(y[i].end - y[i].start) != t->raw[y[i].id].n)
            return;
        at = y[i].end;
    }
    if (at != length) return;
    slot->n_key = (uint8_t)length;
    slot->n = (uint32_t)n;
    memcpy(slot->key, word, (size_t)length);
    for (int64_t i = 0; i < n; i++) slot->id[i] = y[i].id;
}

static bool encode_whole_word(const Tokenizer* t, const TokText* text, Range word, Encoding* e) {
    int32_t length = word.end - word.start,
            id = piece_find(&t->by_raw, t->raw, t->arena, text->bytes + word.start, (uint32_t)length);
    if (id < 0) id = t->unk;
    if (id < 0)
        return tok_error((ErrorBuffer){e->error, sizeof e->error},
                         "the word %.*s at byte %d is not in the vocabulary and the tokenizer has no unknown token",
                         length < 60 ? length : 60, text->bytes + word.start, origin_from(text, word.start));
    put_token(text, word.start, id, 0, length, e);
    return true;
}

// One word of the pre-tokenisers; for sentencepiece-like models the whole text, which is cut before every run of U+2581
// when no merge crosses there.
bool encode_word(const Tokenizer* t, const TokText* text, Range word, Encoding* e) {
    if (t->model == MODEL_WORD_LEVEL) return encode_whole_word(t, text, word, e);
    if (t->model == MODEL_UNIGRAM) return encode_unigram(t, text, word, e);
    if (!t->split_at_space) {
        encode_piece(t, text, word.start, word.end, e);
        return true;
    }
    const char* bytes = text->bytes;
    int32_t start = word.start, at = word.start;
    while (at < word.end) {
        // here: a run of U+2581 (if any), then everything up to the next one
        while (at + 3 <= word.end && !memcmp(bytes + at, "\xE2\x96\x81", 3)) at += 3;
        while (at < word.end && !(at + 3 <= word.end && !memcmp(bytes + at, "\xE2\x96\x81", 3))) at++;
        encode_piece(t, text, start, at, e);
        start = at;
    }
    return true;
}
