/*
The tensor table of a model: ONE row per parameter {kind, layer, name, shape, leading dimension, place, decay, first
value}, and beside it one row per tensor of the files it comes from. It drives allocation, initialisation, loading,
saving, the optimizer, gradient checks and printing. A ParameterSet is one copy of all parameters of a table with its
optimizer states: θ, and θ̂ of Algorithm 1; a frozen base; or adapters, whose table is lora.h's. Every buffer of a set
has the same layout, so a tensor's offset is the same for weights, gradients, master weights and moments alike.
*/
#ifndef SEAL_MODEL_H
#define SEAL_MODEL_H

#include <stdint.h>
#include "base/safetensors.h"
#include "kernels.h"
#include "memory.h"
#include "model_config.h"

typedef enum { INIT_NORMAL, INIT_RESIDUAL, INIT_UNIFORM, INIT_ZERO, INIT_ONE } Init;

// How the linear layers of a frozen model are kept: as the build computes, or packed into fewer bytes (packed.h).
typedef enum { BASE_PLAIN, BASE_FP8, BASE_NF4, N_BASES } BasePrecision;

typedef struct {
    int kind;            // TensorKind, or lora.h's
    int layer;           // −1: of the model
    char name[40];       // "qkvw 3"
    int64_t rows, cols;  // (OC, C); vectors are (OC, 1)
    int64_t ld;  // from row to row; above cols in a frozen weight that carries adapters: the tail belongs to them
    int64_t file_rows, file_cols;  // what the files hold; what is beyond is padding and stays zero
    int64_t offset;                // in elements, from the start of a set
    bool packed;  // the set holds its values packed, and at `offset` the tail alone, (rows, ld − cols)
    bool decay;   // weight decay applies: matrices and embeddings, not biases and norms
    Init init;
} ModelTensor;

// A tensor of the file and the rows of ours that it holds.
typedef struct {
    char hf_name[160];  // "transformer.h.3.attn.c_attn.weight"
    int tensor;         // row of the table
    int64_t first;      // its first row there
    int64_t rows, cols;
    FileForm form;
    int64_t piece;               // of a packed tensor: the byte at which this part's values begin
    const FamilyTensor* source;  // the family's row
} FileTensor;

typedef struct {
    ModelConfig config;
    ModelTensor* tensors;
    int n_tensors;
    FileTensor* files;
    int n_files;
    int* index;            // [kind · L + layer] → row, −1 where the family has no such tensor
    int64_t n_elements;    // of one buffer of a set, alignment and padding included
    int64_t n_parameters;  // what the files hold
    BasePrecision base;
    bool backward;       // packed values are such that backward passes can read them too
    int64_t n_packed;    // bytes of a set's packed values
    int64_t n_unpacked;  // elements of the largest packed tensor, where a product reads it unpacked
} ModelLayout;

typedef struct {
    const ModelLayout* layout;
    const char* symbol;  // "theta", "theta_hat": for messages
    floatX* weights;
    uint8_t* packed;   // (n_packed) tables that pieces share, then the pieces; NULL: nothing is packed
    floatX* unpacked;  // (n_unpacked) scratch
    float* grads;      // NULL for a set that is only read
    // Masters and moments are shared out: this rank has those of elements [from, from + n), all with one rank (ZeRO
    // stage 1, Rajbhandari et al. 2020).
    int64_t from, n;
    float* master;       // (n); in the fp32 build a part of the weights themselves
    float* m;            // (n)
    float* v;            // (n)
    const float* whole;  // (n_elements) all masters, from parameters_gather on; NULL before
    TensorRow* rows;     // device; of the n_rows tensors that reach into the part, beginning with first_row
    int first_row, n_rows;
    int64_t n_chunks;
    double* squares;      // several ranks: Σ grad²
    float* norm_partial;  // n_chunks
    int step;             // optimizer steps taken
} ParameterSet;

// The linear layers of a block. Adapters sit in these.
typedef enum { SITE_QKV, SITE_ATTPROJ, SITE_UP, SITE_DOWN, N_SITES } Site;
static inline TensorKind site_weight(Site site) {
    return site == SITE_QKV ? QKVW : site == SITE_ATTPROJ ? ATTPROJW : site == SITE_UP ? UPW : DOWNW;
}
static inline TensorKind site_bias(Site site) {
    return site == SITE_QKV ? QKVB : site == SITE_ATTPROJ ? ATTPROJB : site == SITE_UP ? UPB : DOWNB;
}

// Fills the table from the family's rows. n_tensors and offsets are final after it. form: how the sites' weights are
// kept; NULL: plainly.
typedef struct {
    int tails[N_SITES];  // columns after each row
    BasePrecision base;
    bool backward;  // a backward pass reads the model too
} LinearForm;
void model_layout(ModelLayout* layout, const ModelConfig* config, const LinearForm* form);
// The rows of a kind's tensor that a part is.
void model_part_rows(const ModelLayout* layout, TensorKind kind, Part part, int64_t* first, int64_t* rows);
void model_layout_free(ModelLayout* layout);
void model_print(const ModelLayout* layout, FILE* out);

// Adds a set's buffers to the plan: weights, and with `train` gradients, masters and moments. shared: a set whose
// gradient buffer this one uses too (the passes over θ̂ and θ follow each other), or NULL.
void parameters_plan(ParameterSet* set, const ModelLayout* layout, const char* symbol, bool train,
                     const ParameterSet* shared, MemoryPlan* plan);
// After memory_allocate: the device's copy of the tensor table.
void parameters_bind(ParameterSet* set, const ParameterSet* shared, float weight_decay);
// Weights, masters, moments, step.
void parameters_copy(ParameterSet* to, const ParameterSet* from, cudaStream_t stream);
// Several ranks: brings all masters to every rank, into the gradients' buffer, so that they can be read and saved.
// Every rank calls it, after the last step.
void parameters_gather(ParameterSet* set, cudaStream_t stream);
// Where the part of a rank begins; the last one ends at n_elements.
int64_t shard_begin(const ModelLayout* layout, int rank);

// Normal(0, 0.02), residual projections Normal(0, 0.02/sqrt(2L)), biases 0, norms 1 (GPT-2's own rule), by a
// counter-based generator.
void parameters_init(ParameterSet* set, uint64_t seed, bool quiet);
// One tensor between host and device as fp32, (rows, cols) as stored here without tails. Reading waits for everything
// queued on the device.
void parameters_get(const ParameterSet* set, int tensor, float* host);
void parameters_set(ParameterSet* set, int tensor, const float* host);
void parameters_get_gradient(const ParameterSet* set, int tensor, float* host);
// The same for n rows from `row` on, (n, file_cols): what is padding stays as it is. A model larger than the host's
// memory to spare moves in blocks of these.
void parameters_get_rows(const ParameterSet* set, int tensor, int64_t row, int64_t n, float* host);
void parameters_set_rows(ParameterSet* set, int tensor, int64_t row, int64_t n, const float* host);

// ---- model_io.cu: Hugging Face directories ---------------------------------------------------------
// Every tensor is checked for presence, shape, dtype and finite values; what is missing or left over is named. One file
// or shards with an index; a tensor at a time, so that the host never holds a second copy of the model.
void parameters_load(ParameterSet* set, const char* directory, bool quiet);
// What is added to a file's tensor on the way: rows [row, row + n) of it in our order, (n, f->cols).
typedef struct {
    void (*change)(const void* context, const ModelLayout* layout, const FileTensor* f, int64_t row, int64_t n,
                   float* rows);
    const void* context;
} RowChange;
// The same from STEM.safetensors (an adapter's files), with a change (NULL: none).
void parameters_load_files(ParameterSet* set, const char* directory, const char* stem, const RowChange* change,
                           bool quiet);
// Every tensor at its offset into `values` on the host, which is zero elsewhere.
void model_read(const ModelLayout* layout, const char* directory, const char* stem, float* values);
// SHA-256 of names and of a few values of every tensor, rounded to bf16: the same model in another dtype or other
// shards has the same.
void model_fingerprint(const ModelLayout* layout, const char* directory, Hex hex);
// fp32 from the masters, in files of at most shard_bytes (0: SHARD_BYTES) with an index where that makes more than one.
// config.json is that of the directory `from` (NULL: a new one) and comes last: a directory without it is not a model.
void parameters_save(const ParameterSet* set, const char* directory, const char* from, int64_t shard_bytes, bool quiet);
#define SHARD_BYTES 5000000000  // as transformers
// The model of the directory `from` with a change, added in fp32 and rounded once, to the dtype that each tensor has
// there.
void model_save_changed(const ModelLayout* layout, const char* from, const RowChange* change, const char* directory,
                        int64_t shard_bytes, bool quiet);
// A model whose rows come from elsewhere: rows [row, row + n) of a file's tensor in our order, (n, f->cols). All
// tensors get the dtype; config.json is a new one.
typedef struct {
    void (*read)(const void* context, const ModelLayout* layout, const FileTensor* f, int64_t row, int64_t n,
                 float* rows);
    const void* context;
    StDtype dtype;
} RowSource;
void model_save_rows(const ModelLayout* layout, const RowSource* reader, const char* directory, int64_t shard_bytes,
                     bool quiet);
// A model that is there already ends the program: another one does not take its place.
void model_refuse_existing(const char* directory);
// Rows of ours to the file's order and back: `rows` holds the file tensor's rows (rows, cols) of our tensor, `file` the
// same as the file has them.
void file_tensor_order(const ModelLayout* layout, const FileTensor* f, const float* rows, float* file);
void file_tensor_unorder(const ModelLayout* layout, const FileTensor* f, const float* file, float* rows);

static inline int tensor_index(const ModelLayout* layout, int kind, int layer) {
    return layout->index[kind * layout->config.L + layer];
}
// The tensor's weights (gradient); NULL where the family has none, or the set none of it. A packed tensor's are
// packed.h's weight_matrix, or fp8.h's.
static inline floatX* weight(const ParameterSet* set, TensorKind kind, int layer) {
    int i = tensor_index(set->layout, kind, layer);
    return i < 0 ? NULL : set->weights + set->layout->tensors[i].offset;
}
static inline float* gradient(const ParameterSet* set, TensorKind kind, int layer) {
    int i = tensor_index(set->layout, kind, layer);
    return i < 0 || !set->grads ? NULL : set->grads + set->layout->tensors[i].offset;
}
// Where a set keeps the tail of a weight, and its row stride there.
static inline floatX* weight_tail(const ParameterSet* set, const ModelTensor* t) {
    return set->weights + t->offset + (t->packed ? 0 : t->cols);
}
static inline int64_t weight_tail_ld(const ModelTensor* t) { return t->packed ? t->ld - t->cols : t->ld; }

#endif
