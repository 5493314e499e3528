/* `train_seal init`: a model of random weights as a Hugging Face directory. */
#ifndef SEAL_INIT_H
#define SEAL_INIT_H

#include "run/train_options.h"

int init_command(const TrainOptions* o);

#endif
