/*
One step of SEAL: Algorithm 1 (with θ̂) or Algorithm 2. Every loss is taken at the parameters from before the step; θ, θ̂
and ω are clipped each by its own norm. Nothing here synchronises: losses come back through trainer_bring_back.
*/
#ifndef SEAL_STEP_H
#define SEAL_STEP_H

#include "selector.h"
#include "trainer.h"

typedef struct {
    const PackSample* tune;  // (b) the fine-tuning batch, in the order of its rows
    const int* rows;         // (b) their rows in ω
    int b;
    const PackSample* safe;  // (m)
    int m;
    float gamma;
    float lr, lr_hat, lr_omega;
    float omega_scale;  // γ with --gamma-scales-omega, else 1
} SealBatch;

typedef struct {
    PassCounts theta, theta_hat;
} SealCounts;

// items: scratch of 2b + m rows. With Algorithm 1 the trainer was planned with_hat; with adapters θ and θ̂ then share
// one pass. Losses end up in trainer->loss: fine-tuning samples first, safe ones after.
void seal_step(Trainer* t, Selector* s, int algorithm, const SealBatch* batch, BatchItem* items, SealCounts* counts);

#endif
