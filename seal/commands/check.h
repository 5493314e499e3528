/* `train_seal check`: what is in a run's data and what the run needs, before hours are spent on it. */
#ifndef SEAL_CHECK_DATA_H
#define SEAL_CHECK_DATA_H

#include "run/train_options.h"

// Reads and tokenises --tune (and --safe), prints rows, tokens, lengths, packing, steps, arithmetic and the memory of
// each kind of run. Trains nothing.
int check_command(const TrainOptions* o);

#endif
