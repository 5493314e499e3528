/*
Samples to packs: first-fit into packs of T tokens, and for each pack the host arrays that the kernels read
(seal_kernels/kernels.h says what each means). Knows no device.
*/
#ifndef SEAL_PACKING_H
#define SEAL_PACKING_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const int32_t* tokens;
    // (length) 1 where the token carries loss; the first token never does. NULL: all but the first do.
    const uint8_t* bears_loss;
    int length;
    int n_loss;   // tokens that carry loss
    int64_t row;  // number in its data, for messages
} PackSample;

typedef struct {
    int untrained;                  // the token whose embedding gets no gradient; −1: none
    int T_max, samples_max, round;  // capacities; T is rounded up to a multiple of `round`
    int T;                          // rows: the samples' tokens, and padding
    int n_samples;                  // samples
    int n_first, split;  // samples of the first range, and the row where the second begins; n_samples and T where there
                         // is one range
    int n_seq;           // samples, and the pieces of the padding after them
    int n_loss;
    int32_t *tokens, *positions;   // (T)
    int32_t* cu_seqlens;           // (n_seq + 1)
    int32_t *loss_rows, *targets;  // (n_loss) row whose NEXT token carries loss, and that token
    int32_t* loss_index;           // (T) the inverse of loss_rows, −1 elsewhere
    int32_t* loss_start;           // (n_samples + 1)
    int n_token_segments, n_position_segments;
    int32_t *token_order, *token_segment_start, *token_segment_row;  // (T), (n + 1), (n)
    int32_t *position_order, *position_segment_start, *position_segment_row;
    void* block;     // all of the above in one allocation
    int32_t* count;  // scratch of the counting sort
    int count_size;
} HostPack;

// First-fit in the given order: pack_of[i] is the pack of sample i. Returns the number of packs, −1 where a
// sample is longer than T.
int pack_first_fit(const int* lengths, int n, int T, int* pack_of);
// The same with two ranges per pack, samples [0, n_first) before the others: the second range begins at a multiple of
// `round`.
int pack_first_fit_split(const int* lengths, int n, int n_first, int T, int round, int* pack_of);

// Deals n samples to `ranks` such that all have about as much to do: the costliest first, each to the rank that has
// least so far (longest processing time first; no rank has more than the mean plus one sample). owner (n). The same
// costs give the same deal everywhere.
void deal_samples(const int* cost, int n, int ranks, int* owner);

void host_pack_allocate(HostPack* p, int T_max, int samples_max, int round);
void host_pack_free(HostPack* p);
// Lays the samples end to end, positions restarting at each; the padding after them (to a multiple of `round`) is
// token 0 in pieces no longer than max_positions that carry no loss. max_positions bounds the lengths, which is checked
// by the caller that made the samples; a token outside of vocab is fatal, by its row.
void host_pack_build(HostPack* p, const PackSample* samples, int n, int vocab, int max_positions);
// The same with samples [n_first, n) in a range of rows of their own, after padding of the first.
void host_pack_build_split(HostPack* p, const PackSample* samples, int n, int n_first, int vocab, int max_positions);

#ifdef __cplusplus
}
#endif
#endif
