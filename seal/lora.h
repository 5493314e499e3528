/*
LoRA (Hu et al. 2021) inside the base GEMM. An adapted projection y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ, s = α/r, is ONE product over C
+ R columns:

    y = [x | tail] · [W | B]ᵀ        tail = s·x·Aᵀ, in the columns of the row's own adapter; all other columns 0

so x and W have the row stride C + R. R = (adapted modules of the fused projection × adapters × r), rounded up to 64 in
bf16 and to 16 in fp32 with zeros. Each module's B is in that module's rows of W, its other blocks are zero. θ and θ̂ of
Algorithm 1 are two adapters over one frozen base: their tokens are two contiguous ranges of rows of the pack. Backward:
[dx | dtail] = dy·[W | B]; the columns of the other adapter are then zeroed; dA = s·dtailᵀ·x, dx += s·dtail·A, dB = its
module's rows of dyᵀ·tail.

Modules may differ in rank and scale, or be missing in some layers (LoraSettings; a missing module has rank 0). All of
them get the columns of the largest rank. The columns beyond a module's own rank are zero and stay zero, because the
gradient of a zero row of A comes from a zero column of B and vice versa.

An adapter is a ParameterSet (fp32 masters and moments) whose table is made here, so the optimizer and checkpoints treat
it like a model.
*/
#ifndef SEAL_LORA_H
#define SEAL_LORA_H

#include "model.h"
#include "peft_config.h"

#define LORA_MODULES 3  // most of a fused projection: q, k, v
#define LORA_SETS 2     // θ, θ̂

typedef struct {
    int n;                                        // adapted modules of this projection
    int first[LORA_MODULES], rows[LORA_MODULES];  // each one's rows of the fused weight
    int index[LORA_MODULES];                      // in the table of LoraSettings
    int width;  // columns of the tail that one adapter takes: n · rank, each rank rounded up to 8
    int tail;   // R; 0: nothing adapted here
} LoraSite;

typedef struct {
    LoraSettings settings;
    int rank;  // of the padded adapters: the largest of all modules, rounded up to a multiple of 8
    int n_sets;
    BasePrecision base;  // of the model they are trained over
    LoraSite sites[N_SITES];
    ModelLayout layout;             // of one adapter
    ParameterSet* sets[LORA_SETS];  // bound by the trainer
} Lora;

// Finds what the names mean for the family and lays out adapters for n_sets sets. A name that the family does not have
// is fatal; the message lists those it has.
void lora_open(Lora* lora, const ModelConfig* config, const LoraSettings* settings, int n_sets);
void lora_close(Lora* lora);
// The kinds of an adapter's table: module m of a site, A or B.
static inline int lora_kind(Site site, int m, bool b) { return (site * LORA_MODULES + m) * 2 + b; }

// Copies every B of every set into the tail of the base's weights. After any change of a set, before the next pass.
void lora_publish(const Lora* lora, ParameterSet* base, cudaStream_t stream);
// A site's projection in a pack of T tokens, C columns wide without its tail. Rows [0, split) belong to set 0, the
// others to set 1.
typedef struct {
    Site site;
    int layer, C, T, split;
} LoraRows;
// Fills the tail of the projection's input x (T, ld).
void lora_forward(const Lora* lora, LoraRows rows, floatX* x, cudaStream_t stream);
// dx (T, ld) = dy · [W | B] with dtail in its tail: the tail of each row's own adapter, scaled. Then, from
// [dx | dtail], the gradients of A and B, and their part of dx. x with its tail as in forward; dy (T, OC; lddy).
void lora_backward_tail(const Lora* lora, LoraRows rows, floatX* dx, cudaStream_t stream);
void lora_backward_weight(const Lora* lora, LoraRows rows, const floatX* dx, const floatX* dy, int lddy,
                          const floatX* x, cudaStream_t stream);
void lora_backward_input(const Lora* lora, LoraRows rows, floatX* dx, cudaStream_t stream);

#endif
