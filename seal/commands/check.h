/* `train_seal check`: what is in a run's data and what the run needs, before hours are spent on it. */
#ifndef SEAL_CHECK_H
#define SEAL_CHECK_H

#include "rows/packing.h"
#include "run/train_options.h"
#include "tokenizer.h"

// Reads and tokenises --tune (and --safe), prints rows, tokens, lengths, packing, steps, arithmetic and the memory of
// each kind of run. Trains nothing.
int check_command(const TrainOptions* o);

// A sample's text on a terminal, its control characters escaped; what its flags (bears_loss) mark is between on and
// off. piece: tokenizer_longest_piece + 16 bytes.
void print_marked(const Tokenizer* tokenizer, const PackSample* sample, const char* on, const char* off, char* piece);

#endif
