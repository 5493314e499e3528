/* The tables that encoding looks up: pieces by their bytes, merges by their pair of ids, added tokens in a trie. Open
   addressing at half load, written once while loading and only read afterwards. */
#include <stdlib.h>
#include "tokenizer_internal.h"

static uint64_t slots_for(uint32_t expected) {
    uint64_t n = 16;
    while (n < 2 * (uint64_t)expected) n *= 2;
    return n;
}

uint64_t hash_bytes(const char* bytes, uint32_t n) {
    uint64_t h = 0x9E3779B97F4A7C15u ^ n, word;
    for (; n >= 8; bytes += 8, n -= 8) {
        memcpy(&word, bytes, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    word = 0;
    memcpy(&word, bytes, n);
    h = (h ^ word) * 0xff51afd7ed558ccdu;
    h ^= h >> 29;
    return h * 0xc4ceb9fe1a85ec53u >> 20;
}

void piece_table_init(PieceTable* p, uint32_t expected) {
    uint64_t n = slots_for(expected);
    p->slot = tok_memory(malloc(n * sizeof *p->slot));
    memset(p->slot, 0xff, n * sizeof *p->slot);
    p->mask = (uint32_t)(n - 1);
    p->n = 0;
}

int32_t piece_find(const PieceTable* p, const Span* spans, const char* arena, const char* bytes, uint32_t n) {
    if (!p->slot) return -1;
    for (uint32_t i = (uint32_t)hash_bytes(bytes, n) & p->mask;; i = (i + 1) & p->mask) {
        int32_t id = p->slot[i];
        if (id < 0) return -1;
        if (spans[id].n == n && !memcmp(arena + spans[id].at, bytes, n)) return id;
    }
}

// Twice the slots, everything in again.
static void piece_grow(PieceTable* p, const Span* spans, const char* arena) {
    PieceTable old = *p;
    piece_table_init(p, old.mask + 1);
    for (uint32_t i = 0; i <= old.mask; i++)
        if (old.slot[i] >= 0) piece_add(p, spans, arena, old.slot[i]);
    free(old.slot);
}

bool piece_add(PieceTable* p, const Span* spans, const char* arena, int32_t id) {
    if (!p->slot) piece_table_init(p, 64);
    if (2 * p->n > p->mask) piece_grow(p, spans, arena);
    const char* bytes = arena + spans[id].at;
    uint32_t n = spans[id].n, i = (uint32_t)hash_bytes(bytes, n) & p->mask;
    for (; p->slot[i] >= 0; i = (i + 1) & p->mask) {
        const Span* other = &spans[p->slot[i]];
        if (other->n == n && !memcmp(arena + other->at, bytes, n)) return false;
    }
    p->slot[i] = id;
    p->n++;
    return true;
}

// ---- merges ----------------------------------------------------------------------------------------

#define NO_PAIR UINT64_MAX
static inline uint64_t pair_of(int32_t left, int32_t right) { return (uint64_t)(uint32_t)left << 32 | (uint32_t)right; }
static inline uint64_t pair_slot(uint64_t pair) {
    return (pair * 0x9E3779B97F4A7C15u ^ pair >> 29) * 0xff51afd7ed558ccdu >> 24;
}

void merge_table_init(MergeTable* m, uint32_t expected) {
    uint64_t n = slots_for(expected);
    m->slot = tok_memory(malloc(n * sizeof *m->slot));
    for (uint64_t i = 0; i < n; i++) m->slot[i] = (Merge){NO_PAIR, 0, -1};
    m->mask = n - 1;
    m->n = 0;
}

const Merge* merge_find(const MergeTable* m, int32_t left, int32_t right) {
    if ((left | right) < 0 || !m->slot) return NULL;  // a symbol without id never merges
    uint64_t pair = pair_of(left, right);
    for (uint64_t i = pair_slot(pair) & m->mask;; i = (i + 1) & m->mask) {
        if (m->slot[i].pair == pair) return &m->slot[i];
        if (m->slot[i].pair == NO_PAIR) return NULL;
    }
}

bool merge_add(MergeTable* m, int32_t left, int32_t right, uint32_t rank, int32_t id) {
    if (!m->slot) merge_table_init(m, 64);
    if (2 * (uint64_t)m->n > m->mask) {
        MergeTable old = *m;
        merge_table_init(m, (uint32_t)(old.mask + 1));
        for (uint64_t i = 0; i <= old.mask; i++)
            if (old.slot[i].pair != NO_PAIR)
                merge_add(m, (int32_t)(old.slot[i].pair >> 32), (int32_t)old.slot[i].pair, old.slot[i].rank,
                          old.slot[i].id);
        free(old.slot);
    }
    uint64_t pair = pair_of(left, right), i = pair_slot(pair) & m->mask;
    for (; m->slot[i].pair != NO_PAIR; i = (i + 1) & m->mask)
        if (m->slot[i].pair == pair) {
            m->slot[i].rank = rank;
            m->slot[i].id = id;
            return false;
        }
    m->slot[i] = (Merge){pair, rank, id};
    m->n++;
    return true;
}

// ---- added tokens ----------------------------------------------------------------------------------

void trie_add(Trie* t, const char* bytes, uint32_t n, int32_t token) {
    if (!n) return;
    if (!t->node) arrput(t->node, ((TrieNode){-1, -1, -1, 0}));
    t->any = t->first[(unsigned char)bytes[0]] = true;
    int32_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        int32_t child = t->node[at].child;
        while (child >= 0 && t->node[child].byte != (unsigned char)bytes[i]) child = t->node[child].sibling;
        if (child < 0) {
            child = (int32_t)arrlen(t->node);
            TrieNode fresh = {-1, t->node[at].child, -1, (unsigned char)bytes[i]};
            arrput(t->node, fresh);
            t->node[at].child = child;
        }
        at = child;
    }
    if (t->node[at].token < 0) t->node[at].token = token;
}

int32_t trie_longest(const Trie* t, const char* bytes, int64_t n, int32_t* length) {
    int32_t at = 0, best = -1;
    for (int64_t i = 0; i < n; i++) {
        at = t->node[at].child;
        while (at >= 0 && t->node[at].byte != (unsigned char)bytes[i]) at = t->node[at].sibling;
        if (at < 0) break;
        if (t->node[at].token >= 0) {
            best = t->node[at].token;
            *length = (int32_t)i + 1;
        }
    }
    return best;
}
