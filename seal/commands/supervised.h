/*
One loss over one set of samples: `train_seal pretrain` (all tokens of a text) and `train_seal sft` (prompts and
responses). Each opens what it trains on; the steps are the same.
*/
#ifndef SEAL_SUPERVISED_H
#define SEAL_SUPERVISED_H

#include "rows/corpus.h"
#include "rows/tokens.h"
#include "run/run.h"

typedef struct {
    Run run;
    PackSample *train, *valid;
    int n_train, n_valid;
    bool token_mean;      // the batch's loss is the mean over tokens: a sample's share is n_x / Σ n; else 1 / |B|
    int* order;           // (n_train) the epoch's permutation
    Batch batch[2];       // two steps in flight
    PackSample* samples;  // (2, --batch) theirs
    float* share;         // (2, --batch)
    float* train_weight;  // (n_train) of the rows; NULL: all are 1
    // what train and valid point into
    Corpus train_corpus, valid_corpus;
    TokenSet tune_rows, append_rows, valid_rows;
    uint8_t* trained_tokens;  // with --token-mask: the flags of tune_rows
} Supervised;

// Reads options and data, plans, loads the model, resumes; false after --dry-run, which has printed the plan.
bool pretrain_open(Supervised* x, const TrainOptions* o, int command);
bool sft_open(Supervised* x, const TrainOptions* o, int command);

// The steps of both, for run_loop.
void supervised_queue(void* task, StepNote* note, int slot);
void supervised_finish(void* task, const StepNote* note, int slot);
double supervised_validate(void* task);  // mean held-out loss

void supervised_close(Supervised* x);

#endif
