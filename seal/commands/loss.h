/* Response losses without training: the score of safe-loss, and `eval_seal loss`. */
#ifndef SEAL_LOSS_H
#define SEAL_LOSS_H

#include "commands/eval_options.h"
#include "run/journal.h"
#include "rows/tokens.h"
#include "trainer.h"

typedef struct {
    const char *model, *adapter;  // directories; adapter NULL: none
    const char* out;              // the losses so far are kept in a journal beside it; NULL: nowhere
    Journal* journal;             // to be closed once the result is written; not NULL with `out`
    bool resume, quiet;
    bool dry_run;          // the memory plan is printed and the program ends
    const int64_t* start;  // (set->n + 1) where the losses of each sample's tokens go in `token`; NULL: nowhere
    float* token;          // (start[n]) zeros
} LossOptions;

// Mean loss over each sample's response, (set->n), to be freed. settings: T, head_rows and batch_max count.
float* response_losses(const LossOptions* o, const ModelConfig* config, const TrainerSettings* settings,
                       const TokenSet* set);
int loss_command(const EvalOptions* o);

#endif
