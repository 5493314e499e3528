/*
Unigram (Kudo 2018) as `tokenizers` runs it: of all ways to cut a word into pieces the one with the highest sum of
scores, found from left to right. A character that no piece covers costs 10 more than the worst piece; neighbours of
that kind are one, and become byte tokens where the vocabulary has them all, else the unknown token.
*/
#include "tokenizer_internal.h"

#define UNKNOWN_PENALTY 10.0

// A better way to the end of a piece. Of equal ones the first stays.
static void offer(UnigramNode* node, double score, int32_t start, int32_t id) {
    if (node->start < 0 || score > node->score) *node = (UnigramNode){score, start, id};
}

// Every piece that begins at `start` extends the best way to there.
static bool extend(const Tokenizer* t, const char* word, int32_t length, int32_t start, UnigramNode* nodes,
                   int32_t character) {
    const TrieNode* trie = t->unigram_trie.node;
    const double score = nodes[start].score;
    bool single = false;
    if (!t->unigram_trie.any) return false;
    for (int32_t i = start, at = 0; i < length; i++) {
        at = trie[at].child;
        while (at >= 0 && trie[at].byte != (unsigned char)word[i]) at = trie[at].sibling;
        if (at < 0) break;
        const int32_t id = trie[at].token;
        if (id < 0) continue;
        offer(&nodes[i + 1], score + t->score[id], start, id);
        single = single || i + 1 - start == character;
    }
    return single;
}

static void put(const TokText* text, int32_t base, int32_t id, int32_t start, int32_t end, Encoding* e) {
    encoding_put(e, id, origin_from(text, base + start), origin_to(text, base + end - 1));
}

// What the pieces do not cover.
static bool put_unknown(const Tokenizer* t, const TokText* text, int32_t base, int32_t start, int32_t end,
                        Encoding* e) {
    const unsigned char* bytes = (const unsigned char*)text->bytes + base;
    const int32_t whole = piece_find(&t->by_raw, t->raw, t->arena, text->bytes + base + start, (uint32_t)(end - start));
    bool all = t->byte_fallback;
    for (int32_t i = start; all && i < end; i++) all = t->byte_id[bytes[i]] >= 0;
    if (whole >= 0 || !all) {
        if (whole < 0 && t->unk < 0)
            return tok_error((ErrorBuffer){e->error, sizeof e->error},
                             "the text at byte %d has no piece and the tokenizer has no unknown token",
                             origin_from(text, base + start));
        put(text, base, whole >= 0 ? whole : t->unk, start, end, e);
        return true;
    }
    for (int32_t i = start; i < end; i++) put(text, base, t->byte_id[bytes[i]], start, end, e);
    return true;
}

bool encode_unigram(const Tokenizer* t, const TokText* text, Range range, Encoding* e) {
    struct TokenizerScratch* s = e->scratch;
    const char* word = text->bytes + range.start;
    const int32_t length = range.end - range.start;
    arrsetlen(s->lattice, (size_t)length + 1);
    UnigramNode* nodes = s->lattice;
    for (int32_t i = 0; i <= length; i++) nodes[i] = (UnigramNode){0, -1, -1};
    for (int32_t start = 0, c, n; start < length; start += n) {
        n = utf8_decode(word + start, length - start, &c);
        if (!extend(t, word, length, start, nodes, n))
            offer(&nodes[start + n], nodes[start].score + t->worst_score - UNKNOWN_PENALTY, start, t->unk);
    }
    // From the end back, turning the chain round: nodes[k].start then says where the piece that begins at k ends.
    for (int32_t at = length, end = -1, id = -1; at >= 0;) {
        const UnigramNode here = nodes[at];
        nodes[at] = (UnigramNode){0, end, id};
        end = at;
        id = here.id;
        at = at ? here.start : -1;
    }
    for (int32_t at = 0; at < length;) {
        int32_t end = nodes[at].start;
        const int32_t id = nodes[at].id;
        if (id != t->unk) {
            put(text, range.start, id, at, end, e);
        } else {
            while (end < length && nodes[end].id == t->unk) end = nodes[end].start;
            if (!put_unknown(t, text, range.start, at, end, e)) return false;
        }
        at = end;
    }
    return true;
}
