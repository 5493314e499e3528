/* `train_seal select`: the rows worth keeping, byte for byte, for any trainer. */
#ifndef SEAL_SELECT_H
#define SEAL_SELECT_H

#include "run/train_options.h"

int select_command(const TrainOptions* o);

#endif
