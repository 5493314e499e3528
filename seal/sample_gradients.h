/*
Gradients of single samples in a pass over a pack: their products with a fixed direction, and their norms, matrix by
matrix during the backward pass and without ever forming one (seal_kernels/sample_gradients.cu). Which matrices count is
a choice of names: of the model's linear layers, or with adapters of their modules (each one's A and B). Embeddings, the
head, norms and biases are not counted.
*/
#ifndef SEAL_SAMPLE_GRADIENTS_H
#define SEAL_SAMPLE_GRADIENTS_H

#include "lora.h"
#include "pack.h"

// What counts at a site: without adapters some rows of its weight (neighbours are one range), with adapters some of its
// modules.
typedef struct {
    int n_ranges;
    struct {
        int first, rows;
    } ranges[LORA_MODULES];
    bool modules[LORA_MODULES];
} SampleSite;

typedef struct SampleGradients {
    const ModelLayout* layout;      // of the model
    const Lora* lora;               // NULL: the model's own matrices
    const ParameterSet* direction;  // its gradients are the direction G of the products; NULL: there are none
    bool norms;
    SampleSite sites[N_SITES];
    int batch_max;
    float *product, *square;  // (batch_max) device, added to, by the samples' places in the batch: ⟨g, G⟩ and ‖g‖²
    floatX* wide;             // (T, the widest side of a product)
    floatX* matrix;           // a matrix of G in the model's type; bf16 builds only
    float* partial;
} SampleGradients;

// Chooses the matrices by name ("q,v", "all", as LoraSettings has them; fatal where the family or the adapter has none
// of that name) and adds the buffers to the plan. T: as transformer_plan's.
void sample_gradients_plan(SampleGradients* g, const ModelLayout* layout, const Lora* lora, const char* names,
                           bool products, bool norms, int T, int batch_max, MemoryPlan* plan);
// Before a batch: products and squares are zero.
void sample_gradients_zero(const SampleGradients* g, cudaStream_t stream);
// The norm of the direction over the matrices that count, in double on the host. Synchronises.
double sample_gradients_norm(const SampleGradients* g);

// In backward, by the transformer: the site's weight between inp (T, C; ldi) and dout (T, OC; ldd); with adapters,
// once the tails of inp and dinp are there, dinp (T, C and tail; ldi).
void sample_gradients_linear(const SampleGradients* g, const DevicePack* s, Site site, int layer, const floatX* dout,
                             int ldd, const floatX* inp, int ldi, cudaStream_t stream);
void sample_gradients_adapter(const SampleGradients* g, const DevicePack* s, Site site, int layer, const floatX* dout,
                              int ldd, const floatX* inp, const floatX* dinp, int ldi, cudaStream_t stream);

#endif
