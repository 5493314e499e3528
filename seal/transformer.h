/*
The transformer on packs: its activations, forward, the weighted loss, backward. Parameters come as a
ParameterSet (model.h), adapters over it as a Lora (lora.h), tokens as a DevicePack (pack.h). Which norm, positions,
MLP and residual a family has are fields of its ModelConfig. Gradients are added to the sets', so a batch is any number
of packs; nothing here synchronises with the device.
*/
#ifndef SEAL_TRANSFORMER_H
#define SEAL_TRANSFORMER_H

#include "kernels.h"
#include "lora.h"
#include "memory.h"
#include "model.h"
#include "pack.h"
#include "sample_gradients.h"

// One layer's activations from forward to backward. Statistics are fp32. A GEMM's input has the row stride of its
// weight, ld…: the width, and the tail of adapters.
typedef struct {
    floatX* ln1;      // (T, C; ld of qkvw)
    float* ln1_mean;  // (T) layernorm only
    float* ln1_rstd;  // (T)
    floatX* qkv;     // (T, (NH + 2 NKV)·HS) after the rotary positions; before them where queries and keys have a norm
    float* qk_rstd;  // (T, NH + NKV) of that norm, or (T, 2) where it spans all heads
    floatX* atty;    // (T, NH·HS; ld of attprojw)
    float* lse;      // (NH, T)
    floatX* attproj;      // (T, C) the attention's output, where a norm comes after it
    float* attproj_rstd;  // (T) of that norm
    floatX* residual2;    // (T, C) after attention; not where the residual is parallel
    floatX* ln2;          // (T, C; ld of upw)
    float* ln2_mean;      // (T)
    float* ln2_rstd;      // (T)
    floatX* fch;          // (T, FF, or gate and up: 2·FF) before the activation
    floatX* fch_act;      // (T, FF; ld of downw)
    floatX* fcproj;       // (T, C) the MLP's output, where a norm comes after it
    float* fcproj_rstd;   // (T) of that norm
} LayerActivations;

// Keys and values of the sequences that are being generated (decoder.h), and which of them a pass reads. All pointers
// are the device's.
typedef struct {
    floatX *keys, *values;  // (L, rows, NKV·HS)
    int64_t rows;
    float* scratch;  // of decode_attention
    const int* row;  // (T) where each token of the pass goes; −1: nowhere
    int n;  // 0: the pass is a pack, which attends within itself; else one token per sequence, which attends to
            // the sequence's rows
    const int *first, *length;  // (n) those rows
    int longest;                // of the lengths
} KvCache;

typedef enum {
    KEEP_ALL,        // training: every layer keeps its activations
    KEEP_RESIDUALS,  // training with --recompute: only the residual stream is kept, the rest is computed again in
                     // backward, bit for bit
    KEEP_NOTHING     // forward only
} KeepMode;

typedef struct {
    const ModelLayout* layout;
    const Lora* lora;      // adapters over a frozen model; NULL: the model itself is trained
    const KvCache* cache;  // forward stores every token's keys and values there; NULL: no cache
    KeepMode keep;
    int T;          // rows planned: no pack may be longer
    int head_rows;  // rows of logits that exist at once
    int n_layer_slots, n_residual_slots;
    LayerActivations* layers;  // n_layer_slots
    floatX** residual;         // n_residual_slots of (T, C): the input of each layer, and the last one's output
    floatX* lnf;               // (T, C)
    float* lnf_mean;
    float* lnf_rstd;
    float* token_loss;  // (n) unweighted, of the last pack
    // Device word: NO_BAD_TARGET, or the first target outside the vocabulary since the plan.
    BadTarget* bad_target;
    int rope_positions;    // rows of cos_sin
    float* cos_sin;        // (rope_positions, rotary/2, 2)
    float* cos_sin_local;  // the same of layers with a base of their own; NULL: none has
    // Called as soon as the last of a layer's gradients (−1: of what belongs to no layer) is queued; NULL: none.
    // Several ranks sum them while backward continues.
    void (*gradients_ready)(void* context, int layer);
    void* ready_context;
    // Products and norms of the samples' own gradients, measured by backward; NULL: none. The set that the pass is
    // given then has no gradients of its own, nor do adapters get any.
    const SampleGradients* samples;
    // Forward stops after this layer, counted from 1, and leaves each sample's row of the residual stream at its last
    // token with loss in tap (batch, C; device, by place); 0: it goes to the end.
    int tap_layer;
    float* tap;
    // The contribution of this layer, counted from 1, to the residual stream is multiplied; 0: of none.
    int scaled_layer;
    float layer_scale;
    // scratch
    floatX* logits;      // (head_rows, Vp), then their gradient in place
    floatX* width_a;     // (T, C and tail) projections out of a block; hidden states of the head; dln
    floatX* width_b;     // (T, C or NH·HS and tail) dhidden; datty; dln1 where the residual is parallel
    floatX* dresidual;   // (T, C)
    floatX* dbranch;     // (T, C) of a branch's output, where that is not dresidual
    floatX* qkv_normed;  // (T, (NH + 2 NKV)·HS) of the layer at hand, where queries and keys have a norm
    floatX* dqkv;        // (T, (NH + 2 NKV)·HS)
    floatX* dfch;        // (T, 2·FF), or (T, FF and tail) where the MLP has no gate
    floatX* dact;  // (T, FF and tail) a gated MLP whose down projection has an adapter; else fch_act's memory is used
    float* delta;  // (NH, T)
    uint8_t* fp8_values;  // (T, the widest side of a linear layer) e4m3 of what a product of a base in fp8 reads
    float* fp8_scales;    // (T)
    float* partial;       // sums of norm and bias gradients
} Transformer;

// Adds every buffer to the plan. T: tokens of the longest pack; head_rows: any number of rows up to T.
void transformer_plan(Transformer* t, const ModelLayout* layout, const Lora* lora, KeepMode keep, int T, int head_rows,
                      MemoryPlan* plan);
// After memory_allocate: what layers share, the table of rotary positions.
void transformer_bind(Transformer* t);
void transformer_free(Transformer* t);

// Runs the pack through all layers up to the final norm. Activations stay as `keep` says. set: the model; with a Lora
// it is the frozen one.
void transformer_forward(Transformer* t, const ParameterSet* set, const DevicePack* s, cudaStream_t stream);
// The LM head on the pack's tokens that carry loss, after transformer_forward. Fills t->token_loss and, at s->place of
// each sample, sample_loss (device; mean over the sample's tokens). Samples of the pack's second range go to
// sample_loss_hat in the same way. A target outside the vocabulary goes to t->bad_target. With backward, s->weight
// scales each token's term: the head's weight gradient is added and the gradient of the final hidden states is left
// where transformer_backward finds it.
void transformer_loss(Transformer* t, const ParameterSet* set, const DevicePack* s, float* sample_loss,
                      float* sample_loss_hat, bool backward, cudaStream_t stream);
// From the loss down to the embeddings; gradients of all parameters that are trained are added to.
void transformer_backward(Transformer* t, const ParameterSet* set, const DevicePack* s, cudaStream_t stream);
// The logits of the given rows of the pack (device; n ≤ head_rows) to t->logits, as sampling reads them, after
// transformer_forward.
void transformer_head(Transformer* t, const ParameterSet* set, const int* rows, int n, cudaStream_t stream);
// logits (n, V) fp32 on the host for the given rows of the pack (host indices), after transformer_forward.
// Synchronises; for tests and decoding.
void transformer_logits(Transformer* t, const ParameterSet* set, const int* rows, int n, float* logits,
                        cudaStream_t stream);

#endif
