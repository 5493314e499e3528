/* One optimizer step over a parameter set: norm, clip, AdamW, in three launches; and the search for the tensor that broke. */
#ifndef SEAL_OPTIMIZER_H
#define SEAL_OPTIMIZER_H

// defines: ParameterSet
#include "model.h"

typedef struct {
    float beta1, beta2, eps, weight_decay;
    float clip;  // of the gradient's global norm; ≤ 0: none
} AdamwSettings;

void gradients_zero(ParameterSet* set, cudaStream_t stream);
// norm (device): the norm before clipping; scale (device): scratch, one float.
void optimizer_step(ParameterSet* set, const AdamwSettings* settings, float lr, float* norm, float* scale, cudaStream_t stream);
// Name of the first tensor whose gradient (or weights) holds a NaN or infinity; NULL where all are finite. Synchronises.
const char* first_nonfinite(const ParameterSet* set, bool weights, cudaStream_t stream);

#endif
