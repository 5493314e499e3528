/*
GGUF files as models: which architecture of llama.cpp is which family, its keys as fields of ModelConfig, its names of
tensors. An architecture is a row of a table; a family's Hugging Face names stay model_family.c's.
*/
#ifndef SEAL_GGUF_MODEL_H
#define SEAL_GGUF_MODEL_H

#include "base/gguf.h"
#include "model_config.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct GgufFamily {
    const char* architecture;  // general.architecture
    const char* model_type;    // the family
    bool pairs;  // rows of q and k are ordered as llama.cpp rotates them: element i beside element i + half of a head
    bool norms_plus_one;  // the norms' weights are stored with the 1 added that the model adds
    const char* pre;      // the pre-tokenizer where the file names none
    void (*finish)(const GgufReader* r, ModelConfig* c);  // what no single key says; NULL: nothing
} GgufFamily;

// The row of the file's architecture; another one, a mixture of experts or a part of a model ends the program.
const GgufFamily* gguf_family(const GgufReader* r);
// Every field of the config from keys and tensors, complete and checked.
void gguf_config(const GgufReader* r, const GgufFamily* family, ModelConfig* config);
// llama.cpp's name of the tensor that a row of a family's table is, in a layer (ignored where the model has one).
void gguf_tensor_name(const FamilyTensor* t, int layer, char* name, size_t size);
// Whether a tensor holds no weights of the model: frequencies, which the config says in its own way.
bool gguf_is_buffer(const char* name);
// The row of the GGUF tensor that row r of a Hugging Face q or k projection is.
static inline int64_t gguf_pair_row(int64_t r, int head_size) {
    int64_t within = r % head_size, half = head_size / 2;
    return r - within + within % half * 2 + within / half;
}

#ifdef __cplusplus
}
#endif
#endif
