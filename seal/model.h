/*
The tensor table of a model: ONE row per parameter {kind, layer, name, HF name, shape, place, decay}. It drives allocation, initialisation, loading,
saving, the optimizer, gradient checks and printing. A ParameterSet is one copy of all parameters with its optimizer states (θ, and θ̂ of
Algorithm 1); every buffer of a set has the same layout, so a tensor's offset serves weights, gradients, master weights and moments alike.
*/
#ifndef SEAL_MODEL_H
#define SEAL_MODEL_H

#include <stdint.h>
// defines: floatX, TensorRow
#include "kernels.h"
// defines: MemoryPlan
#include "memory.h"
// defines: ModelConfig
#include "model_config.h"

typedef enum {
    WTE, WPE, LNFW, LNFB, HEADW,                                                                    // of the model
    LN1W, LN1B, QKVW, QKVB, ATTPROJW, ATTPROJB, LN2W, LN2B, UPW, UPB, DOWNW, DOWNB,  // of a layer
    N_TENSOR_KINDS
} TensorKind;

typedef struct {
    TensorKind kind;
    int layer;             // −1: of the model
    char name[40];         // "qkvw 3"
    char hf_name[96];      // "transformer.h.3.attn.c_attn.weight"
    int64_t rows, cols;    // as stored here: (OC, C), vectors (1, C)
    int64_t file_rows;     // rows in the file: V where the table is padded to Vp
    bool file_transposed;  // the file holds (C, OC): GPT-2's Conv1D
    int64_t offset;        // in elements, from the start of a set
    bool decay;            // weight decay applies: matrices and embeddings, not biases and norms
} ModelTensor;

typedef struct {
    ModelConfig config;
    ModelTensor* tensors;
    int n_tensors;
    int* index;            // [kind · L + layer] → row, −1 where the family has no such tensor
    int64_t n_elements;    // of one buffer of a set, alignment and vocabulary padding included
    int64_t n_parameters;  // what the file holds
} ModelLayout;

typedef struct {
    const ModelLayout* layout;
    const char* symbol;  // "theta", "theta_hat": for messages
    floatX* weights;
    float* grads;   // NULL for a set that is only read
    float* master;  // the same buffer as weights in the fp32 build
    float* m;
    float* v;
    TensorRow* rows;  // device
    int64_t n_chunks;
    float* norm_partial;  // n_chunks
    int step;             // optimizer steps taken
} ParameterSet;

// Fills the table from the family's rows. n_tensors and offsets are final after it.
void model_layout(ModelLayout* layout, const ModelConfig* config);
void model_layout_free(ModelLayout* layout);
void model_print(const ModelLayout* layout, FILE* out);

// Adds a set's buffers to the plan: weights, and with `train` gradients, masters and moments. shared: a set whose gradient buffer this one uses too
// (the passes over θ̂ and θ follow each other), or NULL.
void parameters_plan(ParameterSet* set, const ModelLayout* layout, const char* symbol, bool train, const ParameterSet* shared, MemoryPlan* plan);
// After memory_allocate: the device's copy of the tensor table.
void parameters_bind(ParameterSet* set, const ParameterSet* shared, float weight_decay);
void parameters_copy(ParameterSet* to, const ParameterSet* from, cudaStream_t stream);  // weights, masters, moments, step

// Normal(0, 0.02), residual projections Normal(0, 0.02/sqrt(2L)), biases 0, norms 1 (GPT-2's own rule), by a counter-based generator.
void parameters_init(ParameterSet* set, uint64_t seed);
// Hugging Face directories. Every tensor is checked for presence, shape and dtype; what is missing or left over is named.
void parameters_load(ParameterSet* set, const char* directory);
void parameters_save(const ParameterSet* set, const char* directory);  // fp32 from the masters; config.json and model.safetensors
// One tensor between host and device as fp32, rows × cols as stored here. Reading waits for everything queued on the device.
void parameters_get(const ParameterSet* set, int tensor, float* host);
void parameters_set(ParameterSet* set, int tensor, const float* host);
void parameters_get_gradient(const ParameterSet* set, int tensor, float* host);

static inline int tensor_index(const ModelLayout* layout, TensorKind kind, int layer) { return layout->index[kind * layout->config.L + layer]; }
// The tensor's weights (gradient); NULL where the family has none, or the set none of it.
static inline floatX* weight(const ParameterSet* set, TensorKind kind, int layer) {
    int i = tensor_index(set->layout, kind, layer);
    return i < 0 ? NULL : set->weights + set->layout->tensors[i].offset;
}
static inline float* gradient(const ParameterSet* set, TensorKind kind, int layer) {
    int i = tensor_index(set->layout, kind, layer);
    return i < 0 || !set->grads ? NULL : set->grads + set->layout->tensors[i].offset;
}

#endif
