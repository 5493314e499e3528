/*
Which adapters: the names of --lora and what they mean in a family, and adapter_config.json of a PEFT directory. Knows
no device; lora.h does the mathematics, peft.h moves the matrices.
*/
#ifndef SEAL_PEFT_CONFIG_H
#define SEAL_PEFT_CONFIG_H

#include "model_config.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PEFT_PREFIX "base_model.model."  // of every tensor's name in PEFT's files
#define LORA_RANK_MOST 1024
#define LORA_TARGETS_MOST 12

// A module of a layer.
typedef struct {
    int rank;  // 0: the layer has no adapter of it
    float scale;
} LoraModule;

typedef struct {
    char modules[64];  // "q,v", "all"; empty: no adapters, the whole model is trained
    int rank;          // of all modules, or of most
    float scale;       // α/r
    // (L, LORA_TARGETS_MOST) by lora_index, where modules differ or are missing in some layers; NULL: all are alike.
    // Made by peft_settings and never freed.
    const LoraModule* table;
    float dropout;  // what an adapter that was read had in training; nothing is dropped out here
} LoraSettings;

// The place among the family's adaptable rows.
int lora_index(const Family* family, const FamilyTensor* t);
static inline LoraModule lora_module(const LoraSettings* s, int layer, int index) {
    LoraModule same = {s->rank, s->scale};
    return s->table ? s->table[layer * LORA_TARGETS_MOST + index] : same;
}
// True where the settings adapt the weight of this row of the family's table.
bool lora_adapts(const LoraSettings* settings, const FamilyTensor* t);
// Every name must be one of the family's: a wrong one is fatal, and the message lists those there are. option: where
// the names come from.
void lora_check_names(const LoraSettings* settings, const Family* family, const char* option);
// The name of a module's matrix in PEFT's files, for the module whose weight is the row:
// "base_model.model.….lora_A.weight".
void lora_tensor_name(const FamilyTensor* t, int layer, bool b, char* name, size_t size);

// Modules, ranks and scales of the adapter in a directory, module by module; what PEFT can do and this trainer cannot
// (DoRA, adapters on embeddings, trained biases …) is refused by name.
void peft_settings(const char* directory, const ModelConfig* config, LoraSettings* settings);
// The text of adapter_config.json, to be freed. base: what the adapter belongs to.
char* peft_config_json(const LoraSettings* settings, const ModelConfig* config, const char* base);

#ifdef __cplusplus
}
#endif
#endif
