/*
Generation: prompts to answers, token by token, with a cache of keys and values. Each sequence occupies a slot. Prompts
are packed and run as training samples are; after that, every pass adds one token to every slot, and a slot whose
sequence has ended is given to the next prompt. An answer depends on the sequence's tokens and its number alone, not on
the batch, the order or the other sequences (up to rounding: a GEMM with more or fewer rows may sum in another order).
*/
#ifndef SEAL_DECODER_H
#define SEAL_DECODER_H

#include "kernels.h"
#include "trainer.h"

// A prompt and what the model has said so far.
typedef struct {
    int32_t* tokens;  // (capacity) the prompt's, then the answer's
    int n, n_prompt, capacity;
    uint64_t number;  // seeds the sequence's random numbers
    bool ended;       // an end-of-sequence token came (it is not among tokens)
} Sequence;

#define DECODER_ENDS 8
typedef struct {
    const char *model, *adapter;  // directories; adapter may be NULL
    BasePrecision base;
    int slots;                  // sequences that run at the same time
    int longest_prompt, reach;  // over all sequences to come: tokens of the longest prompt, largest capacity
    int T;                      // tokens of a pack of prompts, at least longest_prompt
    int prefix;                 // tokens that all sequences to come begin with, fewer than any prompt has; 0: none.
                                // A chat template writes dozens of them: they run once, not once per prompt
    SampleSettings sampling;
    uint64_t seed;
    int ends[DECODER_ENDS], n_ends;  // tokens that end a sequence
    bool quiet, dry_run;             // dry_run: decoder_open prints the memory plan and ends the program
} DecoderSettings;

typedef struct {
    DecoderSettings settings;
    Trainer trainer;
    KvCache cache;
    float* probabilities;    // (head_rows, Vp)
    uint32_t* seen;          // (slots, SAMPLE_SEEN_WORDS(V)); NULL without a repetition penalty
    int* arrays;             // what a pass needs, one after the other, in one copy: see upload_arrays
    int* next;               // (slots) the tokens drawn
    int *staging, *drawn;    // pinned
    uint32_t* seen_staging;  // pinned, of one slot
    int rows_most;           // tokens of a pass
    int* owner;              // (slots) the sequence in a slot; −1: free
    bool prefix_kept;        // the cache has the prefix, at the beginning of every slot
    int64_t tokens;          // drawn so far
} Decoder;

// Loads the model. Ends the program where the plan does not fit the device.
void decoder_open(Decoder* d, const ModelConfig* config, const DecoderSettings* settings);
void decoder_close(Decoder* d);
// Extends all n sequences to their end, taking them in the given order; `done` is called once for each, with its index.
void decoder_run(Decoder* d, Sequence* sequences, int n, void (*done)(void* context, int i), void* context);

#endif
