/* Response losses without training: the score of safe-loss, and `eval_seal loss`. */
#ifndef SEAL_LOSSES_H
#define SEAL_LOSSES_H

#include "eval_options.h"
// defines: TokenSet
#include "tokens.h"
// defines: TrainerSettings
#include "trainer.h"

// Mean loss over each sample's response under the model in a directory, with the adapter of another (NULL: none), (set->n), to be freed. settings: T, head_rows and batch_max count.
// dry_run: the memory plan is printed and the program ends.
float* response_losses(const char* model, const char* adapter, const ModelConfig* config, const TrainerSettings* settings, const TokenSet* set, bool quiet, bool dry_run);
int loss_command(const EvalOptions* o);

#endif
