/*
Unpacks a matrix of 4-bit NormalFloat, whose scales are quantised to 8 bits (QLoRA; seal/nf4.h has the format), to the
type that products read:

    out = code[c] · (map[q] · top + mean)

A block of 64 weights has a scale q, 256 scales have a top. Products and the sum are rounded one by one, as
bitsandbytes does it. The kernel reads half a byte and writes two for each weight in bf16, so memory limits it.
*/
#include <assert.h>
#include "kernels.h"

#define BLOCK 256
#define VECTORS 4  // of a thread: loads that are on their way at the same time
#define CODES 16
#define VECTORS_OF_BLOCK 8  // 64 weights
#define SCALES_OF_GROUP 256

// The scale of a vector's block. The sum must not join the product, whose rounding would then be missing.
static inline __device__ float scale_of(const Nf4Unpack& args, unsigned vector, float mean) {
    unsigned block = vector / VECTORS_OF_BLOCK;
    return fmaf(args.map[args.scales[block]], args.tops[block / SCALES_OF_GROUP], 0.0f) + mean;
}

// Where a row of the file belongs: grouped by head there (q, k, v of head 0, then of head 1 …), by part here.
static inline __device__ unsigned row_of(const Nf4Unpack& args, unsigned row) {
    if (!args.heads) return row;
    unsigned block = row / args.head_size;
    return (block % 3 * args.heads + block / 3) * args.head_size + row % args.head_size;
}

// one thread for VECTORS times eight weights, which are 32 bits of codes
static __global__ void __launch_bounds__(BLOCK) nf4_unpack_kernel(const Nf4Unpack args) {
    SHARED(float, code, [CODES]);  // sixteen banks: lanes never wait for each other
    const unsigned width = args.cols / VEC, n = args.rows * width, first = blockIdx.x * BLOCK * VECTORS + threadIdx.x;
    const float mean = *args.mean;
    uint32_t codes[VECTORS];
    float scale[VECTORS];
    UNROLL for (int k = 0; k < VECTORS; k++) {
        unsigned vector = first + k * BLOCK;
        codes[k] = vector < n ? args.codes[vector] : 0;
        scale[k] = vector < n ? scale_of(args, vector, mean) : 0.0f;
    }
    if (threadIdx.x < CODES) code[threadIdx.x] = args.code[threadIdx.x];
    __syncthreads();
    UNROLL for (int k = 0; k < VECTORS; k++) {
        unsigned vector = first + k * BLOCK;
        float8 x;
        // byte b is bits [8b, 8b + 8); the first of its two weights is in the high half
        UNROLL for (int e = 0; e < VEC; e++) x.v[e] = code[codes[k] >> (8 * (e / 2) + 4 * (1 - e % 2)) & 15] * scale[k];
        if (vector < n) store8(args.out + (size_t)row_of(args, vector / width) * args.ldo + vector % width * VEC, x);
    }
}

void nf4_unpack(const Nf4Unpack& args, cudaStream_t stream) {
    NVTX_RANGE("nf4_unpack");
    const size_t vectors = (size_t)args.rows * (args.cols / VEC);
    assert(args.cols % VEC == 0 && args.ldo % VEC == 0 && vectors % VECTORS_OF_BLOCK == 0 &&
           vectors < (size_t)INT32_MAX - BLOCK * VECTORS);
    if (!vectors) return;
    LAUNCH(nf4_unpack_kernel, (unsigned)CEIL_DIV(vectors, BLOCK * VECTORS), BLOCK, 0, stream, args);
}
