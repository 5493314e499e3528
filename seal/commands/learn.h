/*
What `train_seal selector` and `sft --weights learn` have around the algorithm (train_seal.cu): the batches they draw,
what they log, the files they leave. The first is run for its selector, the second for its model; both leave both.
*/
#ifndef SEAL_LEARN_H
#define SEAL_LEARN_H

#include "rows/tokens.h"
#include "run/run.h"
#include "schedule.h"
#include "selector.h"

// What one step of SEAL is given.
typedef struct {
    Batch samples;    // B_f in the order of its rows, B_s
    const int* rows;  // (b) the rows of B_f in ω
    float gamma;
    float lr, lr_hat, lr_omega;
    float omega_scale;  // γ with --gamma-scales-omega, else 1
} SealBatch;

typedef struct {
    Run run;
    Selector selector;
    TokenSet tune, safe;
    int algorithm, batch;
    GammaSchedule gamma;
    LrSchedule lr, lr_hat, lr_omega;
    // two steps in flight
    SealBatch step[2];
    PackSample* samples;  // (2, 2, batch) fine-tuning samples and safe ones of each
    float* share;         // (2, batch) the rows' weights, where they have any
    int* rows;            // (2, batch)
    float* sigma[2];      // (batch) pinned: σ of each
    int* unit;            // (tune.n) the file of each sample, with --selector-unit file; NULL: each has its own logit
    int *tune_order, *safe_order;
    int64_t tune_pass, safe_pass;  // the passes whose permutations tune_order and safe_order hold
    Hex tokenizer;
} Learn;

// Reads options and data, plans, loads θ (and θ̂ = θ), resumes; false after --dry-run, which has printed the plan.
bool learn_open(Learn* x, const TrainOptions* o, int command);
// The step's batches: the epoch's permutation of D_tune; D_safe cycled, with a permutation for every pass over it.
void learn_draw(Learn* x, int64_t step, SealBatch* batch, int slot);
// Queues the copy of σ that learn_finish reads.
void learn_bring_back(Learn* x, int slot);
// The step's losses are back: checks and logs them.
void learn_finish(void* task, const StepNote* note, int slot);
// Writes selector.safetensors and the run's other results.
void learn_close(Learn* x);

#endif
