/*
The transformer on packed streams: its activations, forward, the weighted loss, backward. Parameters come as a ParameterSet (model.h), tokens as
a DeviceStream (stream.h). Gradients are added to the set's, so a batch is any number of streams; nothing here synchronises with the device.
*/
#ifndef SEAL_TRANSFORMER_H
#define SEAL_TRANSFORMER_H

// defines: MemoryPlan
#include "memory.h"
// defines: ModelLayout, ParameterSet
#include "model.h"
// defines: DeviceStream
#include "stream.h"

// One layer's activations from forward to backward. Statistics are fp32.
typedef struct {
    floatX* ln1;       // (T, C)
    float* ln1_mean;   // (T)
    float* ln1_rstd;   // (T)
    floatX* qkv;       // (T, (NH + 2 NKV)·HS)
    floatX* atty;      // (T, NH·HS)
    float* lse;        // (NH, T)
    floatX* residual2; // (T, C) after attention
    floatX* ln2;       // (T, C)
    float* ln2_mean;   // (T)
    float* ln2_rstd;   // (T)
    floatX* fch;       // (T, FF) before the activation
    floatX* fch_act;   // (T, FF)
} LayerActivations;

typedef enum {
    KEEP_ALL,        // training: every layer keeps its activations
    KEEP_RESIDUALS,  // training with --recompute: only the residual stream is kept, the rest is computed again in backward, bit for bit
    KEEP_NOTHING     // forward only
} KeepMode;

typedef struct {
    const ModelLayout* layout;
    KeepMode keep;
    int T;          // rows planned: no stream may be longer
    int head_rows;  // rows of logits that exist at once
    int n_layer_slots, n_residual_slots;
    LayerActivations* layers;  // n_layer_slots
    floatX** residual;         // n_residual_slots of (T, C): the input of each layer, and the last one's output
    floatX* lnf;               // (T, C)
    float* lnf_mean;
    float* lnf_rstd;
    float* token_loss;         // (n) unweighted, of the last stream
    // scratch
    floatX* logits;            // (head_rows, Vp), then their gradient in place
    floatX* width_a;           // (T, C) projections out of a block; hidden states of the head; dln
    floatX* width_b;           // (T, max(C, NH·HS)) dhidden; datty
    floatX* dresidual;         // (T, C)
    floatX* dqkv;              // (T, (NH + 2 NKV)·HS)
    floatX* dfch;              // (T, FF)
    float* delta;              // (NH, T)
    float* partial;            // sums of norm and bias gradients
} Transformer;

// Adds every buffer to the plan. T is the longest stream; head_rows as the caller likes, at most T.
void transformer_plan(Transformer* t, const ModelLayout* layout, KeepMode keep, int T, int head_rows, MemoryPlan* plan);
void transformer_free(Transformer* t);

// Runs the stream through all layers up to the final norm. Activations stay as `keep` says.
void transformer_forward(Transformer* t, const ParameterSet* set, const DeviceStream* s, cudaStream_t stream);
// The LM head on the stream's loss-bearing tokens, after transformer_forward. Fills t->token_loss and, at s->place of each sample, sample_loss
// (device; mean over the sample's tokens). With backward, s->weight scales each token's term: the head's weight gradient is added and the gradient of the
// final hidden states is left where transformer_backward finds it.
void transformer_loss(Transformer* t, const ParameterSet* set, const DeviceStream* s, float* sample_loss, bool backward, cudaStream_t stream);
// From the loss down to the embeddings; gradients of all parameters are added to.
void transformer_backward(Transformer* t, const ParameterSet* set, const DeviceStream* s, cudaStream_t stream);
// logits (n, V) fp32 on the host for the given rows of the stream (host indices), after transformer_forward. Synchronises; for tests and decoding.
void transformer_logits(Transformer* t, const ParameterSet* set, const int* rows, int n, float* logits, cudaStream_t stream);

#endif
