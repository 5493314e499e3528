/*
Model families are rows of tables, not code paths: what a family computes (norm, positions, MLP), how its config.json
calls a size, and where its files keep each tensor. A family is read in one screen of model_family.c, and Hugging Face's
names occur nowhere else.
*/
#ifndef SEAL_MODEL_FAMILY_H
#define SEAL_MODEL_FAMILY_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { NORM_LAYERNORM, NORM_RMSNORM } NormKind;
typedef enum { POSITIONS_LEARNED, POSITIONS_ROPE } PositionKind;
typedef enum { MLP_GELU_TANH, MLP_GELU_ERF, MLP_SWIGLU, MLP_GEGLU } MlpKind;  // the last two have a gate
// The norm of queries and keys: one per head, or one over all heads.
typedef enum { QK_NORM_NONE, QK_NORM_HEAD, QK_NORM_ALL } QkNormKind;

typedef enum {
    WTE,
    WPE,
    LNFW,
    LNFB,
    HEADW,  // of the model
    LN1W,
    LN1B,
    QKVW,
    QKVB,
    QNORMW,
    KNORMW,
    ATTPROJW,
    ATTPROJB,
    POST1W,  // the norm of the attention's output, before it joins the residual
    LN2W,
    LN2B,
    UPW,
    UPB,
    DOWNW,
    DOWNB,
    POST2W,  // of the MLP's; all from LN1W on are of a layer
    N_TENSOR_KINDS
} TensorKind;

// A key of config.json and the field of ModelConfig that holds it. A JSON null is read as 0, which means "none" (no
// window, no cap, as many key-value heads as query heads); in a KEY_FLOAT it is read as the fallback.
typedef struct {
    const char* key;
    enum { KEY_INT, KEY_FLOAT, KEY_OPTIONAL, KEY_BOOL } type;  // KEY_OPTIONAL: a float whose null is 0
    size_t offset;                                             // in ModelConfig: int, float, bool
    double low, high;                                          // the values that are allowed
    double fallback;                                           // where the key is absent; REQUIRED: that is an error
} ConfigKey;
#define REQUIRED -1e300

// A key that must have this value where it is present: with another one the model would compute something else.
typedef struct {
    const char* key;
    const char* text;  // NULL: the value is the boolean is_true
    bool is_true;
} FixedKey;

// Which rows of our fused tensor a tensor of the file is.
typedef enum { PART_ALL, PART_Q, PART_K, PART_V, PART_GATE, PART_UP } Part;
typedef enum {
    FILE_PLAIN,       // (OC, C) as here
    FILE_TRANSPOSED,  // (C, OC): GPT-2's Conv1D
    FILE_HEADS        // (OC, C), its rows grouped by head: q, k, v of head 0, q, k, v of head 1 … (GPT-NeoX)
} FileForm;
typedef enum { ALWAYS, IF_UNTIED, IF_ATTENTION_BIAS, IF_MLP_BIAS } Condition;

// Where a family keeps a tensor. A kind without a row does not exist in the family; several rows of a kind fill parts
// of one tensor.
typedef struct {
    TensorKind kind;
    const char* hf_name;  // %d is the layer
    Part part;
    FileForm form;
    Condition when;
    const char* lora;  // what --lora calls an adapter of this weight: "q", or "q,k,v" where the family has one module
                       // for the three
} FamilyTensor;

typedef struct {
    const char* model_type;  // config.json's word for the family
    const char* architecture;
    NormKind norm;
    PositionKind positions;
    MlpKind mlp;
    QkNormKind qk_norm;
    float norm_offset;    // a norm multiplies by this + its weight: 1 in Gemma
    bool embedding_root;  // embeddings are multiplied by √C, rounded to the type of the model
    bool local_rope;      // layers with a window turn by a base of their own, without a scaling (RopeConfig rope_local)
    int full_every;       // one layer in so many attends to everything, the others within the window; 0: none does
    bool untrained_padding;    // the embedding of pad_token_id gets no gradient
    int padding;               // 1 + the pad_token_id of a config.json that does not say; 0: none
    int ff_times, ff_over;     // FF where config.json does not give it: C · times / over
    const ConfigKey* keys[3];  // tables that end with a NULL key; a later one's row of a key replaces an earlier one's
    const FixedKey* fixed;     // ends with a NULL key
    const FamilyTensor* tensors;  // ends with a NULL name
    const char* buffers[5];       // ends of the names that checkpoints carry along and that hold no weights
} Family;

// Which norms a family has follows from its tensors: without LN1W a layer's input goes to the attention unchanged; with
// POST1W and POST2W the outputs of attention and MLP are normalised before they join the residual.

const Family* family_find(const char* model_type);  // NULL where it is not supported
const char* model_families(void);                   // "gpt2, llama, …", for messages

#ifdef __cplusplus
}
#endif
#endif
