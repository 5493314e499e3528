/*
One optimizer step over a parameter set: norm, clip, AdamW, in three launches; and the search for the first tensor that
is not finite. With several ranks each one updates a part of the weights and sends it to the others.
*/
#ifndef SEAL_OPTIMIZER_H
#define SEAL_OPTIMIZER_H

#include "model.h"

typedef struct {
    float beta1, beta2, eps, weight_decay;
    float clip;  // of the gradient's global norm; ≤ 0: none
} AdamwSettings;

void gradients_zero(ParameterSet* set, cudaStream_t stream);
// Several ranks: sums the gradients of a layer's tensors (−1: of those that belong to no layer), each element on the
// rank that has its master.
void gradients_sum_layer(const ParameterSet* set, int layer, cudaStream_t stream);
// norm (device): the norm before clipping; scale (device): scratch, one float.
void optimizer_step(ParameterSet* set, const AdamwSettings* settings, float lr, float* norm, float* scale,
                    cudaStream_t stream);
// Name of the first tensor whose gradient (or weights) holds a NaN or infinity; NULL where all are finite.
// Synchronises.
const char* first_nonfinite(const ParameterSet* set, bool weights, cudaStream_t stream);

#endif
