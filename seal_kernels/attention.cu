/*
Causal attention within each sample of a pack: the part that does not depend on the precision, which is the tile table
on the host and what the launchers check. The kernels are in attention_fp32.cu and attention_bf16.cu; both follow
FlashAttention-2 (Dao 2023, algorithms 1 and 2): no T×T buffer, an online softmax forward, probabilities recomputed from
the log-sum-exp backward.
*/
#include <assert.h>
#include "attention.h"

static bool supports(const AttentionKernels& kernels, int HS) {
    size_t bytes = kernels.shared_bytes(HS);
    return bytes > 0 && bytes <= (size_t)most_shared();
}

#ifdef PRECISION_BF16
static const AttentionKernels& of_gpu = attention_tensor;
#else
static const AttentionKernels& of_gpu = attention_plain;
#endif
static const AttentionKernels& kernels_of(int HS) {
#if defined(PRECISION_BF16) && !DEVICE_HALVES
    if (cpu_plain_attention() && supports(attention_plain, HS)) return attention_plain;
#endif
    (void)HS;
    return of_gpu;
}

bool attention_head_size_supported(int HS) { return supports(of_gpu, HS); }

// Tile t of a sample sees t + 1 tiles of keys, so "longest first" is "highest t first": the last blocks to start are
// the shortest, and the GPU does not end on one straggler. The even tiles come first because a block that owns two
// tiles is launched for those only: half of its blocks would return at once.
int attention_tiles(int* tiles, int* n_even, const int* cu_seqlens, int n_seq) {
    int most = 0, n_tiles = 0;
    *n_even = 0;
    for (int s = 0; s < n_seq; s++) {
        int count = CEIL_DIV(cu_seqlens[s + 1] - cu_seqlens[s], ATTENTION_TILE);
        if (count > most) most = count;
        n_tiles += count;
        *n_even += CEIL_DIV(count, 2);
    }
    if (tiles == NULL) return n_tiles;
    int at = 0;
    for (int odd = 0; odd < 2; odd++)
        for (int t = most - 1; t >= 0; t--)
            for (int s = 0; t % 2 == odd && s < n_seq; s++) {
                if (t * ATTENTION_TILE >= cu_seqlens[s + 1] - cu_seqlens[s]) continue;
                tiles[2 * at] = s;
                tiles[2 * at + 1] = t;
                at++;
            }
    assert(at == n_tiles);
    return n_tiles;
}

// ---------------------------------------------------------------------------------------------------
// launchers

static void check_arguments(const AttentionArgs& args) {  // bugs of the caller; the user's head size is refused before
    assert(of_gpu.shared_bytes(args.HS) > 0 && args.NH % args.NKV == 0);
    assert((int64_t)args.T * args.NH < INT32_MAX / 4 && args.ldq % VEC == 0 && args.ldo % VEC == 0 &&
           args.lddq % VEC == 0);
    (void)args;
}

void attention_forward(floatX* atty, float* lse, const AttentionArgs& args, cudaStream_t stream) {
    NVTX_RANGE("attention_forward");
    if (args.n_tiles == 0) return;
    check_arguments(args);
    assert(args.n_even > 0);
    kernels_of(args.HS).forward(atty, lse, args, stream);
}

void attention_backward(floatX* dqkv, const AttentionArgs& args, cudaStream_t stream) {
    NVTX_RANGE("attention_backward");
    if (args.n_tiles == 0) return;
    check_arguments(args);
    kernels_of(args.HS).backward(dqkv, args, stream);
}
