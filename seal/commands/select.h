/* `train_seal select`: the rows worth keeping, byte for byte, for any trainer. */
#ifndef SEAL_SELECT_H
#define SEAL_SELECT_H

#include "run/train_options.h"

// train: runs a training command to its end; toss trains its references with it.
int select_command(const TrainOptions* o, int (*train)(const TrainOptions* o, int command));

#endif
