/* `train_seal check`: what a run will find in its data and take of the machine, said before hours of work. */
#ifndef SEAL_CHECK_DATA_H
#define SEAL_CHECK_DATA_H

#include "run/train_options.h"

// Reads and tokenises --tune (and --safe), prints rows, tokens, lengths, packing, steps, arithmetic and the memory of
// each kind of run. Trains nothing.
int check_command(const TrainOptions* o);

#endif
