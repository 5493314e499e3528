/* `eval_seal generate`: answers prompts and writes them as AlpacaEval reads them. */
#ifndef SEAL_GENERATE_H
#define SEAL_GENERATE_H

#include "eval_options.h"
// defines: Trainer
#include "trainer.h"

// A prompt and what the model has said so far.
typedef struct {
    int32_t* tokens;   // (capacity) the prompt's, then the answer's
    int n, n_prompt, capacity;
    bool done;         // the end-of-sequence token came (it is not among tokens), or capacity is reached
} Sequence;

// A planned and loaded model that only runs forward; `batch` sequences at once, streams of T tokens.
typedef struct {
    Trainer trainer;
    int eos;
    int* rows;      // (batch) each sequence's last row in the stream
    int* members;   // (batch) unfinished sequences
    float* logits;  // (batch, V)
} Generator;
void generator_open(Generator* g, const char* model, int batch, int T);
void generator_close(Generator* g);
// One more token for every unfinished sequence, the likeliest one (the lowest id of equals). The whole text is run again for it: no cache.
// Returns the number of unfinished sequences.
int generator_step(Generator* g, Sequence* sequences, int n);

int generate_command(const EvalOptions* o);

#endif
