/* Rows of files to samples: what every command that reads prompts and responses shares. */
#ifndef SEAL_SAMPLES_H
#define SEAL_SAMPLES_H

#include "model_config.h"
#include "rows/tokens.h"
#include "run/train_options.h"

void check_sizes(const ModelConfig* c);  // fatal where no kernel supports the heads or the width
// The chat template by the options and the model's directory (chat_rows.h).
void open_chat(ChatFormat* chat, const TrainOptions* o, const TextEncoder* encoder, bool quiet);
// Tokenises a list of files as the options say, with the tokenizer of --model. The cache is in `run` under `kind`
// (run NULL: none). tokenizer_digest may be NULL, and so may left_out, which without a cache gets a line for every row
// that is left out.
void load_samples(TokenSet* set, const StringList* files, const char* kind, const char* run, const TrainOptions* o,
                  const ModelConfig* config, Hex tokenizer_digest, AtomicFile* left_out);

// The same with another text in place of every row's answer (NULL: its own), without a cache. silent: the caller says
// what became of the rows left out.
void load_answers(TokenSet* set, const StringList* files, const char* kind, const TrainOptions* o,
                  const ModelConfig* config, const char* answer, bool silent);

#endif
