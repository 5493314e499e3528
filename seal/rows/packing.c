/* Samples to packs. See packing.h. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "rows/packing.h"

int pack_first_fit(const int* lengths, int n, int T, int* pack_of) {
    return pack_first_fit_split(lengths, n, n, T, 1, pack_of);
}

int pack_first_fit_split(const int* lengths, int n, int n_first, int T, int round, int* pack_of) {
    int packs = 0;
    int* room = host_alloc((n > 0 ? n : 1) * sizeof *room, "packing samples");
    for (int i = 0; i < n; i++) {
        if (lengths[i] > T) {
            packs = -1;
            break;
        }
        if (i == n_first)
            for (int s = 0; s < packs; s++) room[s] = T - (T - room[s] + round - 1) / round * round;
        int s = 0;
        while (s < packs && room[s] < lengths[i]) s++;
        if (s == packs) room[packs++] = T;
        room[s] -= lengths[i];
        pack_of[i] = s;
    }
    free(room);
    return packs;
}

typedef struct {
    int cost, index;
} Share;
static int costliest_first(const void* a, const void* b) {
    const Share *x = a, *y = b;
    return x->cost != y->cost ? (x->cost < y->cost) - (x->cost > y->cost)
                              : (x->index > y->index) - (x->index < y->index);
}

void deal_samples(const int* cost, int n, int ranks, int* owner) {
    Share* shares = host_alloc((n > 0 ? n : 1) * sizeof *shares, "dealing samples to ranks");
    int64_t* load = host_alloc((size_t)ranks * sizeof *load, "dealing samples to ranks");
    for (int i = 0; i < n; i++) shares[i] = (Share){cost[i], i};
    qsort(shares, n, sizeof *shares, costliest_first);
    for (int i = 0; i < n; i++) {
        int least = 0;
        for (int r = 1; r < ranks; r++)
            if (load[r] < load[least]) least = r;
        load[least] += shares[i].cost;
        owner[shares[i].index] = least;
    }
    free(shares);
    free(load);
}

void host_pack_allocate(HostPack* p, int T_max, int samples_max, int round) {
    memset(p, 0, sizeof *p);
    p->round = round;
    p->untrained = -1;
    p->T_max = (T_max + round - 1) / round * round;
    p->samples_max = samples_max;
    size_t T = p->T_max,
           seq = (size_t)samples_max + p->T_max + 1;  // in the worst case the padding is in pieces of one token
    struct {
        int32_t** array;
        size_t n;
    } arrays[] = {
        {&p->tokens, T},
        {&p->positions, T},
        {&p->cu_seqlens, seq + 1},
        {&p->loss_rows, T},
        {&p->targets, T},
        {&p->loss_index, T},
        {&p->loss_start, (size_t)samples_max + 1},
        {&p->token_order, T},
        {&p->token_segment_start, T + 1},
        {&p->token_segment_row, T},
        {&p->position_order, T},
        {&p->position_segment_start, T + 1},
        {&p->position_segment_row, T},
    };
    size_t total = 0, at = 0;
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) total += arrays[i].n;
    p->block = host_alloc(total * sizeof(int32_t), "packs of tokens");
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        *arrays[i].array = (int32_t*)p->block + at;
        at += arrays[i].n;
    }
}

void host_pack_free(HostPack* p) {
    free(p->block);
    free(p->count);
    memset(p, 0, sizeof *p);
}

// Stable counting sort of the pack's rows by key: order holds them by ascending key, equal keys in pack order; one
// segment a key that occurs. The rows of `skipped` come last and belong to no segment.
static int sort_segments(HostPack* p, const int32_t* key, int keys, int skipped, int32_t* order, int32_t* start,
                         int32_t* row) {
    int32_t* at = p->count;
    memset(at, 0, (size_t)(keys + 1) * sizeof *at);
    for (int t = 0; t < p->T; t++) {
        assert(key[t] >= 0 && key[t] < keys);
        at[key[t] + 1]++;
    }
    int n = 0, placed = 0;
    for (int k = 0; k < keys; k++) {  // at[k + 1] is the count of k, and becomes at[k], where its next row goes
        int count = at[k + 1];
        at[k] = k == skipped ? p->T - count : placed;
        if (!count || k == skipped) continue;
        start[n] = placed;
        row[n++] = k;
        placed += count;
    }
    start[n] = placed;
    for (int t = 0; t < p->T; t++) order[at[key[t]]++] = t;
    return n;
}

// Rows [t, a multiple of `round`): token 0, in pieces that a model can read and that bear no loss. Returns the row
// after them.
static int pad(HostPack* p, int t, int max_positions) {
    int end = (t + p->round - 1) / p->round * p->round;
    for (int in_piece = 0; t < end; t++) {
        if (in_piece == 0) p->cu_seqlens[p->n_seq++] = t;
        p->tokens[t] = 0;
        p->positions[t] = in_piece;
        p->loss_index[t] = -1;
        if (++in_piece == max_positions) in_piece = 0;
    }
    return t;
}

void host_pack_build(HostPack* p, const PackSample* samples, int n, int vocab, int max_positions) {
    host_pack_build_split(p, samples, n, n, vocab, max_positions);
}

void host_pack_build_split(HostPack* p, const PackSample* samples, int n, int n_first, int vocab, int max_positions) {
    assert(n <= p->samples_max && n_first <= n);
    int keys = vocab > max_positions ? vocab : max_positions;
    if (p->count_size < keys + 1) {
        free(p->count);
        p->count = host_alloc((size_t)(keys + 1) * sizeof *p->count, "token counts");
        p->count_size = keys + 1;
    }
    int t = 0, loss = 0;
    p->n_seq = 0;
    for (int s = 0; s < n; s++) {
        const PackSample* x = &samples[s];
        if (s == n_first) p->split = t = pad(p, t, max_positions);
        assert(t + x->length <= p->T_max && x->length <= max_positions && x->length > 0);
        p->cu_seqlens[p->n_seq++] = t;
        p->loss_start[s] = loss;
        for (int i = 0; i < x->length; i++, t++) {
            // Whoever read the data has checked it, but a mapped cache of tokens can change under the program.
            if (x->tokens[i] < 0 || x->tokens[i] >= vocab)
                fatal(
                    "row %lld: token %d of %d is %d, outside the model's vocabulary of %d tokens; did its data "
                    "change during the run?",
                    (long long)x->row, i + 1, x->length, x->tokens[i], vocab);
            p->tokens[t] = x->tokens[i];
            p->positions[t] = i;
            bool bears = i + 1 < x->length && (!x->bears_loss || x->bears_loss[i + 1]);
            p->loss_index[t] = bears ? loss : -1;
            if (bears) {
                p->loss_rows[loss] = t;
                p->targets[loss++] = x->tokens[i + 1];
            }
        }
    }
    p->n_samples = n;
    p->n_loss = p->loss_start[n] = loss;
    p->n_first = n_first;
    p->T = pad(p, t, max_positions);
    if (n_first == n) p->split = p->T;
    p->cu_seqlens[p->n_seq] = p->T;
    p->n_token_segments = sort_segments(p, p->tokens, vocab, p->untrained, p->token_order, p->token_segment_start,
                                        p->token_segment_row);
    p->n_position_segments = sort_segments(p, p->positions, max_positions, -1, p->position_order,
                                           p->position_segment_start, p->position_segment_row);
}
