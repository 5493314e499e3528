/* train_seal import: models of other programs as Hugging Face directories. */
#ifndef SEAL_IMPORT_H
#define SEAL_IMPORT_H

#include "run/train_options.h"

// --gguf into --out: config.json, weights, tokenizer, generation_config.json. Everything is checked before the first
// byte is written.
int import_command(const TrainOptions* o);

#endif
