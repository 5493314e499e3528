/*
One training step, whatever the command: a batch of samples with their coefficients is packed end to end, run through
the transformer, and its gradients are summed; losses come back one step later, so that the device never waits for the
host.
*/
#ifndef SEAL_TRAINER_H
#define SEAL_TRAINER_H

#include "rows/packing.h"
#include "optimizer.h"
#include "pack.h"
#include "transformer.h"

// A sample of a batch. coefficient is c_x of docs/method.md, "Rules", without σ: the factor of the sample's mean
// response loss. A sample whose coefficient is 0 goes into a forward-only pack: its loss is returned, nothing is kept.
typedef struct {
    PackSample sample;
    float coefficient;
} BatchItem;

// The samples of a step: fine-tuning ones, which σ weighs, and safe ones.
typedef struct {
    const PackSample *tune, *safe;  // (b), (m)
    int b, m;
    const float* share;  // (b) a further factor of each fine-tuning sample (its row's weight); NULL: 1
} Batch;

typedef struct {
    int T;          // tokens of a pack
    int head_rows;  // rows of logits that are computed at once
    int batch_max;  // samples of a batch, safe and fine-tuning ones together
    bool recompute;
    bool with_hat;       // Algorithm 1: a second set θ̂
    bool forward_only;   // no gradients, no optimizer
    bool backward;       // with forward_only: a backward pass all the same, for what measures single samples' gradients
    bool gradients;      // and with it theta's gradients
    LoraSettings lora;   // without modules the whole model is trained
    BasePrecision base;  // of a model that is not trained
    AdamwSettings adamw;
} TrainerSettings;

typedef struct {
    int64_t trained_tokens, forward_tokens;  // of samples with a backward pass; of the others
    int64_t squares;         // Σ length² over the trained samples, to which attention's cost is proportional
    int64_t squares_window;  // the same in a layer with a window
    int64_t loss_tokens;
    int packs;
} PassCounts;

// What one parameter set does in a step:
//     set ← AdamW(set, ∇ [ safe_weight · Σ_j ℓ(set; s_j) + tune_weight · Σ_i σ_i share_i ℓ(set; z_i) ])
struct Leg {
    ParameterSet* set;  // &trainer->theta or &trainer->theta_hat
    float lr;
    float tune_weight;
    float safe_weight = 0.0f;
    bool with_safe = false;  // the set sees the batch's safe samples; θ̂ does not
};

// What the optimizer leaves on the device: the gradient's norm before clipping and the factor that clips it.
enum { NORM, CLIP, NORM_HAT, CLIP_HAT, N_NORMS };

typedef struct {
    TrainerSettings settings;
    ModelLayout layout;  // of the model
    bool with_lora;      // θ and θ̂ are adapters over `base`, which is frozen
    Lora lora;
    ParameterSet base;
    MemoryPlan plan;
    Transformer transformer;
    PackUploader uploader;
    ParameterSet theta, theta_hat;  // what is trained: the model, or adapters
    cudaStream_t stream;
    // several ranks: gradients are summed on a stream of their own while backward continues
    cudaStream_t exchange;
    cudaEvent_t layer_ready, exchanged;
    const ParameterSet* summed[2];  // the sets of the pass under way
    // Device. One element follows the losses: how many ranks ask to stop (see vote).
    float* loss;      // (batch_max + 1) ℓ(θ; x) in batch order
    float* loss_hat;  // (batch_max + 1) ℓ(θ̂; z)
    float* norms;     // (N_NORMS)
    // What a step brings back, for two steps in flight; pinned: loss (batch_max + 1), loss_hat (batch_max + 1), norms,
    // the word of bad targets, one after the other.
    float* results[2];
    cudaEvent_t ready[2];
    // host
    HostPack packed;
    int items_max;        // of a pass: batch_max, twice that where θ and θ̂ share one; the length of what follows
    int* cost;            // of an item, and
    int* owner;           // the rank that runs it
    int* members;         // of a pass: the items of one kind that this rank runs,
    int* lengths;         // their tokens
    int* pack_of;         // and packs
    int* chosen;          // of a pack: its items
    int* place;           // and where in the batch each is
    float* token_losses;  // device: losses of the single tokens of a pass go there; NULL: nowhere
    const int64_t* token_offset;  // and where each item's begin
    bool hold_sums;  // gradients of several passes add up on each rank, until trainer_whole_gradients sums them
    bool vote;       // this rank asks to stop; the others learn it with the losses of the next step
    bool voted;      // some rank asked; all ranks see it at the same step
    PackSample* samples;
    float* coefficient;
    BatchItem* items;  // (items_max) of trainer_step
} Trainer;

// Plans everything but what the caller adds to trainer->plan itself (the selector); trainer_allocate then allocates.
void trainer_plan(Trainer* t, const ModelConfig* config, const TrainerSettings* settings);
void trainer_plan_free(Trainer* t);  // of a trainer that was only planned
// --dry-run: prints the planned memory and ends the program.
__attribute__((noreturn)) void trainer_dry_run(const Trainer* t);
void trainer_allocate(Trainer* t);
void trainer_free(Trainer* t);

// Fills θ: with adapters `base` from the model's directory and θ from a PEFT directory (NULL: A random by the seed, B
// zero); else θ itself.
void trainer_load(Trainer* t, const char* model, const char* adapter, uint64_t seed, bool quiet);

// Runs a batch under `set`: items [0, b) are fine-tuning samples whose coefficients are multiplied by sigma (device
// (b); NULL = 1), the rest safe ones. Their mean response losses go to `loss` (device, batch order); with backward,
// gradients are added to the set's. Several ranks divide the samples by their cost; afterwards every rank has the
// losses of all, and gradients are summed, so that there is one pass per step. Counts are of the whole batch but for
// packs, which are this rank's.
void trainer_pass(Trainer* t, const ParameterSet* set, const BatchItem* items, int n, int b, const float* sigma,
                  float* loss, bool backward, PassCounts* counts);

// With adapters: a batch under θ and b fine-tuning samples (hat) under θ̂ in one pass over the frozen model. Losses and
// gradients of each go to its own.
void trainer_pass_both(Trainer* t, const BatchItem* items, int n, const BatchItem* hat, int b, const float* sigma,
                       PassCounts* counts, PassCounts* counts_hat);

// The same items under θ and θ̂, forward only: their losses to trainer->loss and trainer->loss_hat. Adapters only.
void trainer_losses_both(Trainer* t, const BatchItem* items, int n, PassCounts* counts);
// After passes with hold_sums: the gradients of θ summed over the ranks, whole on every rank.
void trainer_whole_gradients(Trainer* t);

// One step: every leg's gradient at the parameters from before the step, its own clipping, its AdamW. legs: θ alone, or
// θ̂ and then θ. Adapters of both share one pass over the frozen model; whole models take one pass each. sigma (device,
// (b)): the fine-tuning samples' weights, NULL = 1. Losses go to trainer->loss (fine-tuning samples first) and
// trainer->loss_hat, norms to trainer->norm; counts (n_legs) are added to. Nothing here synchronises.
void trainer_step(Trainer* t, const Leg* legs, int n_legs, const Batch* batch, const float* sigma, PassCounts* counts);

// ℓ(θ; x) of the batch's fine-tuning samples, to trainer->loss; nothing is trained.
void trainer_evaluate(Trainer* t, const Batch* batch, PassCounts* counts);

// Queues the copy of the step's losses and norms into slot 0 or 1; trainer_result waits for it. Reading a slot one step
// later keeps the device busy. A target outside the vocabulary, which the device reports with the losses, is fatal.
void trainer_bring_back(Trainer* t, int slot);
typedef struct {
    const float *loss, *loss_hat;
    float norm, norm_hat;
} StepResult;
StepResult trainer_result(Trainer* t, int slot);

// Twice the number of pairs (query, key) of a sample; window 0: a query has all tokens before it as keys.
int64_t attention_squares(int length, int window);
// FLOP of a pass as the model needs them, without what recomputation adds: per token, 6 for a trained weight, 4 for a
// frozen one, 2 where it runs forward only; the head on the rows with loss alone; attention by Σ length², in a layer
// with a window by the pairs within it.
double trainer_flops(const Trainer* t, const PassCounts* counts);

#endif
