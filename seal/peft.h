/*
The matrices of PEFT directories: adapter_model.safetensors (peft_config.h has the other file). Read to continue
training or to evaluate, written at the end of a run, merged into the model.
*/
#ifndef SEAL_PEFT_H
#define SEAL_PEFT_H

#include "lora.h"

// The adapter's matrices into a set whose Lora has those settings. `base`: the directory of the model; an adapter that
// was trained over another one is refused.
void peft_load(ParameterSet* set, const Lora* lora, const char* directory, const char* base);
// Whole weights of the model that an adapter's files carry (modules_to_save, embeddings saved along) into the model's
// set. only_same: they must be what the set has, for a run that trains the adapter further.
void peft_load_saved(ParameterSet* model, const char* directory, bool only_same);
// Whether an adapter's files carry any.
bool peft_has_saved(const ModelConfig* config, const char* directory);
// The set as a PEFT directory, fp32. base: the directory of the model that it belongs to.
void peft_save(const ParameterSet* set, const Lora* lora, const char* directory, const char* base);

// The model of `base` with the set added: W + s·B·A in fp32, rounded once to the dtype that the model's files have.
void peft_save_merged(const ParameterSet* set, const Lora* lora, const char* directory, const char* base,
                      int64_t shard_bytes, bool quiet);
// A whole model into a set with the adapter of a directory (NULL: none) added on the way, in fp32 before it is rounded:
// for callers that only read.
void peft_load_merged(ParameterSet* set, const char* base, const char* adapter, bool quiet);

#endif
