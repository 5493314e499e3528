/*
A frozen model in fp8, for speed: weights of its linear layers in e4m3, quantised once, and products of fp8 operands.
Each tensor of the file (q, k, v, gate, up, …: a block of rows of what is one product elsewhere) has one scale and is
multiplied on its own, because before CUDA 12.9 cuBLASLt takes one scale for an operand. Scales are powers of two
(seal_kernels/e4m3.h): within a block the rows do without scales of their own, since e4m3 keeps its three bits of
mantissa down to 2^-14 of the largest weight. The transposed weight has the same values, so that a gradient is that of
the forward pass; it is kept because fp8 products need both operands with k along their rows. Adapters' tails, biases,
embeddings, norms and the head stay as they are.
*/
#ifndef SEAL_FP8_H
#define SEAL_FP8_H

#include "model.h"

#define FP8_MULTIPLE 16  // of both sides of a weight

// A weight (rows, cols) is one piece: {scale (float), padding to 16 bytes; W (rows, cols), and where a backward pass
// reads it Wᵀ (cols, rows)}.
static inline size_t fp8_values_at(void) { return 16; }
static inline size_t fp8_bytes(int64_t rows, int64_t cols, bool backward) {
    return fp8_values_at() + (size_t)(rows * cols) * (backward ? 2 : 1);
}
// On the host, w (rows, cols) finite. On all cores; the bits do not depend on how many those are.
void fp8_pack(const float* w, int64_t rows, int64_t cols, bool backward, uint8_t* piece);
void fp8_unpack(const uint8_t* piece, int64_t n, float* w);

// A linear layer of a set in fp8, and scratch for the activations that it quantises.
typedef struct {
    const ParameterSet* set;
    TensorKind kind;
    int layer, T;
    uint8_t* values;  // (T, the wider side)
    float* scales;    // (T)
} Fp8Linear;
// out (T, OC; ldo) = inp (T, C; ld of the weight, with its tail) · weightᵀ + bias, or with add: out +=.
void fp8_forward(const Fp8Linear& x, floatX* out, int ldo, const floatX* inp, const floatX* bias, bool add,
                 cudaStream_t stream);
// dinp (T, ld) = dout (T, OC; ldd) · weight, tail included; tail_only: nobody asks for the rest.
void fp8_backward(const Fp8Linear& x, floatX* dinp, const floatX* dout, int ldd, bool tail_only, cudaStream_t stream);

#endif
