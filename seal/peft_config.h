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

#define LORA_RANK_MOST 1024
#define LORA_TARGETS_MOST 12

typedef struct {
    char modules[64];  // "q,v", "all"; empty: no adapters, the whole model is trained
    int rank;
    float scale;    // α/r
    float dropout;  // what an adapter that was read had in training; nothing is dropped out here
} LoraSettings;

// True where the settings adapt the weight of this row of the family's table.
bool lora_adapts(const LoraSettings* settings, const FamilyTensor* t);
// Every name must be one of the family's; a wrong one ends the program with what there is.
void lora_check_names(const LoraSettings* settings, const Family* family);
// The name of a module's matrix in PEFT's files, for the module whose weight is the row:
// "base_model.model.….lora_A.weight".
void lora_tensor_name(const FamilyTensor* t, int layer, bool b, char* name, size_t size);

// Modules, rank and scale of the adapter in a directory; what PEFT can do and this trainer cannot (DoRA, other ranks
// for some layers, trained biases …) is refused by name.
void peft_settings(const char* directory, const ModelConfig* config, LoraSettings* settings);
// The text of adapter_config.json, to be freed. base: what the adapter belongs to.
char* peft_config_json(const LoraSettings* settings, const ModelConfig* config, const char* base);

#ifdef __cplusplus
}
#endif
#endif
