/*
The data selector ω on the device: one logit per fine-tuning sample, its weights σ for a batch, its gradient and its
optimizers. The mathematics is in docs/method.md, "One step": g = ∇ω mean over the batch of σ_i(ω) Δ_i, with Δ a
constant.
*/
#ifndef SEAL_SELECTOR_H
#define SEAL_SELECTOR_H

#include "kernels.h"
#include "memory.h"

typedef enum {
    SELECTOR_ADAM,  // dense Adam over all N, the reference's
    SELECTOR_SGD,
    SELECTOR_CENTRED,  // SGD on Δ minus the running mean of Δ: what is left is how a sample differs from the others
    SELECTOR_MEAN  // ω_i = ω₀ − lr · (mean of Δ_i over its visits − running mean): no momentum, no drift of undrawn
                   // rows
} SelectorOptimizer;

typedef struct {
    SelectorActivation activation;
    SelectorOptimizer optimizer;
    float beta1, beta2, eps, clip;
    float initial;     // ω₀
    float mean_decay;  // of the running mean of Δ (centred, mean)
} SelectorSettings;

typedef struct {
    SelectorSettings settings;
    int N, b_max, step;           // N logits
    int samples;                  // fine-tuning samples: N, or more where some share a logit
    const int* unit;              // (samples) host: the logit of each; NULL: its own
    float* count;                 // (N) device: samples of each logit; NULL: one
    float *omega, *grad, *m, *v;  // (N) device; m, v: Adam's moments, or Σ Δ_i and the visits (mean)
    float *sigma, *delta;         // (b_max)
    int *rows, *drawn;            // (b_max) the batch's logits, and its samples
    float* weight;                // (samples) of their rows; NULL: all are 1
    float *stats, *scratch;       // softmax's {max, Σ exp}
    float* running;               // (2) running mean of Δ and its weight
    float* norm;                  // (2) gradient norm before clipping, scale
    float* norm_partial;
    TensorRow* row;  // (1) ω as a tensor of its own: the optimizer kernels take a table
    int64_t n_chunks;
    int* staging;  // pinned, (2, b_max): rows, drawn
    cudaEvent_t staged;
} Selector;

// ω₀ of the reference: 0.1 for softmax, −1e-4 for sigmoid.
float selector_initial(SelectorActivation activation);
void selector_plan(Selector* s, const SelectorSettings* settings, int N, int b_max, MemoryPlan* plan);
void selector_bind(Selector* s, cudaStream_t stream);  // after memory_allocate: ω = ω₀
// Samples share logits: unit (samples; host, stays the caller's) < N. σ is as if each sample had a logit of its own and
// those of a unit were equal at all times: softmax has mean 1 over the samples. After selector_bind.
void selector_set_units(Selector* s, const int* unit, int samples);
// Rows' weights (samples, host): a sample's Δ is multiplied by its weight, as its loss is in θ's step.
void selector_set_weights(Selector* s, const float* weights);
void selector_free(Selector* s);
// σ_i(ω) of a batch: uploads its rows (host, b of them), leaves the weights in s->sigma.
void selector_weigh(Selector* s, const int* rows, int b, cudaStream_t stream);

// Δ = scale · (loss − loss_hat), a constant in ω's gradient.
typedef struct {
    const float *loss, *loss_hat;  // (b) device, in batch order; loss_hat NULL: 0 (Algorithm 2)
    float scale;                   // γ with --gamma-scales-omega, else 1
    bool zero;                     // Δ is exactly 0, whatever the losses
} SelectorDelta;
// ω ← Opt(ω, ∇ω mean of σ_i(ω) Δ_i over the batch that selector_weigh was given): the gradient, its norm, the update.
void selector_update(Selector* s, const SelectorDelta* delta, int b, float lr, cudaStream_t stream);

#endif
