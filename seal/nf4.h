/*
The 4-bit NormalFloat of QLoRA (Dettmers et al. 2023) as bitsandbytes has it, on the host. A matrix is a row of numbers,
one row of the file after the other. Each block of 64 has a scale, its largest absolute value; each number becomes the
nearest of 16 shares of it, quantiles of a normal distribution. The scales are quantised once more: less their mean, in
blocks of 256, each has one of 256 shares of its block's largest absolute value. That is 4.127 bits a weight.

    weight = code[c] · (map[q] · top + mean)        c of the weight, q of its block, top of 256 blocks, mean of all

The bits are those of bitsandbytes 0.50.2 on a CPU of x86-64 (quantize_4bit with compress_statistics) with PyTorch on
one thread: above 32,768 blocks PyTorch's own mean depends on how many threads it has (dev/test/test_nf4.cu).
*/
#ifndef SEAL_NF4_H
#define SEAL_NF4_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NF4_BLOCK 64      // weights with a scale
#define NF4_GROUP 256     // scales with a top
#define NF4_MAP 256       // values of a quantised scale
#define NF4_CODES 16      // values of a weight
#define NF4_ALIGNMENT 16  // bytes: where each part of a matrix begins

// A matrix of n weights, n a multiple of 64, is one piece of nf4_bytes(n): {mean (float), padding; codes (n / 2), the
// first weight of a byte in its high half; scales (n / 64); tops (n / 64 / 256, rounded up; float)}.
static inline size_t nf4_padded(size_t bytes) { return (bytes + NF4_ALIGNMENT - 1) / NF4_ALIGNMENT * NF4_ALIGNMENT; }
static inline size_t nf4_codes_at(void) { return NF4_ALIGNMENT; }
static inline size_t nf4_scales_at(int64_t n) { return nf4_codes_at() + nf4_padded((size_t)n / 2); }
static inline size_t nf4_tops_at(int64_t n) { return nf4_scales_at(n) + nf4_padded((size_t)n / NF4_BLOCK); }
static inline size_t nf4_bytes(int64_t n) {
    const size_t blocks = (size_t)n / NF4_BLOCK;
    return nf4_tops_at(n) + nf4_padded((blocks + NF4_GROUP - 1) / NF4_GROUP * sizeof(float));
}

// What the numbers mean: the map of scales, then the codes of weights. (NF4_MAP + NF4_CODES) floats.
void nf4_tables(float* tables);
// w (n), finite, into `piece` (nf4_bytes(n)). On all cores; the bits do not depend on how many those are.
void nf4_quantise(const float* w, int64_t n, uint8_t* piece);

#ifdef __cplusplus
}
#endif
#endif
