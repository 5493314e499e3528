/*
What the two precisions of attention share: the part of the work a block owns, and the choice of an instance.
Private to attention*.cu and decode_attention.cu; the public functions are in kernels.h.
*/
#ifndef SEAL_ATTENTION_H
#define SEAL_ATTENTION_H

#include "kernels.h"

#define LN2 0.6931471805599453f

// The part of lane `lane` of a quad (four lanes that share a row) of delta of one (token, head), FlashAttention-2's D =
// sum of datty ∘ atty, what the softmax backward subtracts from every dP of a row. Together the four read 32
// neighbouring elements, whole sectors of memory; quad_sum adds their parts.
static inline __device__ float delta_part(const floatX* datty, const floatX* atty, int HS, int lane) {
    float8 sum = {{0.0f}};
    UNROLL for (int d = lane * VEC; d < HS; d += 4 * VEC) {
        float8 a = load8(datty + d), b = load8(atty + d);
        for (int k = 0; k < VEC; k++) sum.v[k] += a.v[k] * b.v[k];
    }
    return ((sum.v[0] + sum.v[4]) + (sum.v[2] + sum.v[6])) + ((sum.v[1] + sum.v[5]) + (sum.v[3] + sum.v[7]));
}

// What one block owns: ATTENTION_TILE rows of one sample and one head. Heads run fastest, so that blocks which start
// together read the same keys and values, and the order of the tile table (longest first) is the order in which blocks
// start.
typedef struct {
    int start;   // the sample's first token in the pack
    int length;  // and its number of tokens
    int tile;    // which ATTENTION_TILE rows of it
    int head;
} AttentionBlock;

static inline __device__ AttentionBlock attention_block(const AttentionArgs& args, int heads) {
    const int* tile = args.tiles + 2 * (size_t)(blockIdx.x / heads);
    AttentionBlock block;
    block.start = args.cu_seqlens[tile[0]];
    block.length = args.cu_seqlens[tile[0] + 1] - block.start;
    block.tile = tile[1];
    block.head = blockIdx.x % heads;
    return block;
}

// The first key that the query at `row` of its sample sees.
template <bool LOCAL = true> static inline __device__ int first_key(const AttentionArgs& args, int row) {
    return LOCAL && args.window ? max(0, row - args.window + 1) : 0;
}
// One past the last query that sees the key at `row` of its sample.
template <bool LOCAL = true>
static inline __device__ int end_of_queries(const AttentionArgs& args, int row, int length) {
    return LOCAL && args.window && row + args.window < length ? row + args.window : length;
}

// Whether a key is hidden from a query that is `distance` after it: it comes later (below 0), or before the window.
template <bool LOCAL = true> static inline __device__ bool is_hidden(const AttentionArgs& args, int distance) {
    return (unsigned)distance >= (LOCAL && args.window ? (unsigned)args.window : 1u << 31);  // below 0 is above 2^31
}

// What a row's maximum begins with: finite, because all of a row's keys in a tile may be outside its window, and
// −∞ − −∞ would be a NaN.
#define LOWEST_SCORE (-1e30f)

// The kernels of attention_fp32.cu (plain) or of attention_bf16.cu (tensor cores). Backward fills args.delta, and turns
// dq and dk back where args.cos_sin is given.
typedef struct {
    size_t (*shared_bytes)(int HS);  // that a block needs at the least; 0: no kernel supports the head size
    void (*forward)(floatX* atty, float* lse, const AttentionArgs& args, cudaStream_t stream);
    void (*backward)(floatX* dqkv, const AttentionArgs& args, cudaStream_t stream);
} AttentionKernels;
extern const AttentionKernels attention_plain, attention_tensor;

// FUNCTION<HS>(…) for the sizes of a head that there are kernels for. A new size is a case here and a decision about
// WIDTH; another HS calls nothing.
#define AT_HEAD_SIZE(HS, FUNCTION, ...)              \
    switch (HS) {                                    \
        case 32: FUNCTION<32>(__VA_ARGS__); break;   \
        case 64: FUNCTION<64>(__VA_ARGS__); break;   \
        case 80: FUNCTION<80>(__VA_ARGS__); break;   \
        case 96: FUNCTION<96>(__VA_ARGS__); break;   \
        case 128: FUNCTION<128>(__VA_ARGS__); break; \
        case 256: FUNCTION<256>(__VA_ARGS__); break; \
    }

#endif
