/*
Causal attention within each sample of a pack: the part that does not depend on the precision. The tile table
on the host, and the row sums of datty ∘ atty which backward needs. The kernels themselves are in attention_fp32.cu and
attention_bf16.cu; both follow FlashAttention-2 (Dao 2023, algorithms 1 and 2): no T×T buffer, an online softmax
forward, probabilities recomputed from the log-sum-exp backward.
*/
#include <assert.h>
#include "attention.h"
#include "ptx.h"

bool attention_head_size_supported(int HS) {
    size_t bytes = attention_shared_bytes(HS);
    return bytes > 0 && bytes <= (size_t)most_shared();
}

// Tile t of a sample sees t + 1 tiles of keys, so "longest first" is "highest t first": the last blocks to start are
// the shortest, and the GPU does not end on one straggler.
int attention_tiles(int* tiles, const int* cu_seqlens, int n_seq) {
    int most = 0, n_tiles = 0;
    for (int s = 0; s < n_seq; s++) {
        int count = CEIL_DIV(cu_seqlens[s + 1] - cu_seqlens[s], ATTENTION_TILE);
        if (count > most) most = count;
        n_tiles += count;
    }
    if (tiles == NULL) return n_tiles;
    int at = 0;
    for (int t = most - 1; t >= 0; t--) {
        for (int s = 0; s < n_seq; s++) {
            if (t * ATTENTION_TILE >= cu_seqlens[s + 1] - cu_seqlens[s]) continue;
            tiles[2 * at] = s;
            tiles[2 * at + 1] = t;
            at++;
        }
    }
    assert(at == n_tiles);
    return n_tiles;
}

// ---------------------------------------------------------------------------------------------------
// kernels

// delta (NH, T) = rowsum(datty ∘ atty), FlashAttention-2's D: what the softmax backward subtracts from every dP of a
// row. Four lanes a (token, head): together they read 32 neighbouring elements, whole sectors of memory, and their sums
// meet at the end.
static __global__ void attention_delta_kernel(AttentionArgs args) {
    unsigned i = (blockIdx.x * blockDim.x + threadIdx.x) / 4, t = i / args.NH, head = i % args.NH;
    float8 sum = {{0.0f}};
    if (t < (unsigned)args.T) {
        size_t at = (size_t)t * args.ldo + head * args.HS;
        UNROLL for (int d = threadIdx.x % 4 * VEC; d < args.HS; d += 4 * VEC) {
            float8 a = load8(args.datty + at + d), b = load8(args.atty + at + d);
            for (int k = 0; k < VEC; k++) sum.v[k] += a.v[k] * b.v[k];
        }
    }
    float total[1] = {((sum.v[0] + sum.v[4]) + (sum.v[2] + sum.v[6])) +
                      ((sum.v[1] + sum.v[5]) + (sum.v[3] + sum.v[7]))};
    quad_sum(total);
    if (t < (unsigned)args.T && threadIdx.x % 4 == 0) args.delta[(size_t)head * args.T + t] = total[0];
}

// ---------------------------------------------------------------------------------------------------
// launchers

static void check_arguments(const AttentionArgs& args) {  // bugs of the caller; the user's head size is refused before
    assert(attention_shared_bytes(args.HS) > 0 && args.NH % args.NKV == 0);
    assert((int64_t)args.T * args.NH < INT32_MAX / 4 && args.ldq % VEC == 0 && args.ldo % VEC == 0 &&
           args.lddq % VEC == 0);
    (void)args;
}

void attention_forward(floatX* atty, float* lse, const AttentionArgs& args, cudaStream_t stream) {
    NVTX_RANGE("attention_forward");
    if (args.n_tiles == 0) return;
    check_arguments(args);
    attention_forward_floatX(atty, lse, args, stream);
}

void attention_backward(floatX* dqkv, const AttentionArgs& args, cudaStream_t stream) {
    NVTX_RANGE("attention_backward");
    if (args.n_tiles == 0) return;
    check_arguments(args);
    const int block = 128;
    LAUNCH(attention_delta_kernel, (unsigned)CEIL_DIV((int64_t)args.T * args.NH * 4, block), block, 0, stream, args);
    attention_backward_floatX(dqkv, args, stream);
}
