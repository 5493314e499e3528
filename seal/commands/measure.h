/*
What a model says of rows, for the scores of `select`: columns of numbers, measured batch by batch over all ranks, kept
in a journal beside the result so that a stopped run resumes. A method (scores.h) plans its passes, opens the journal,
runs the passes, and makes a score of their columns.
*/
#ifndef SEAL_MEASURE_H
#define SEAL_MEASURE_H

#include "commands/scores.h"
#include "rows/tokens.h"
#include "run/journal.h"
#include "run/train_options.h"
#include "trainer.h"

// One pass over n rows that gives up to MEASURE_COLUMNS numbers of each.
#define MEASURE_COLUMNS 3
typedef struct {
    int n, batch, done;
    int n_columns;
    const char* names[MEASURE_COLUMNS];
    float* columns[MEASURE_COLUMNS];  // (n)
    // a number of each token that carries loss besides; NULL: of rows alone
    const int64_t* start;  // (n + 1) where each row's tokens are in `token`
    float* token;          // (start[n])
} MeasuredPass;
// names: "product,norm,loss". One of each is allocated.
void measured_pass(MeasuredPass* p, int n, int batch, const char* const* names, int n_names);
void measured_pass_free(MeasuredPass* p);  // but for start and token, which are the caller's
// An item of the journal of passes; MeasuredPasses is the context.
typedef struct {
    MeasuredPass* passes;
    int n;
} MeasuredPasses;
bool measured_take(void* passes, const cJSON* item);
// What is not done yet, a batch at a time: measure fills out[column][0 … n) for rows from `from` on. journal (NULL:
// none) gets a line per batch; index: the pass's number there.
typedef void (*MeasureBatch)(void* context, int from, int n, float* const* out);
void measured_run(MeasuredPass* p, Journal* journal, int index, const char* what, bool quiet, MeasureBatch measure,
                  void* context);

// Losses of samples under a set of the trainer (θ or θ̂): a MeasureBatch of one column.
typedef struct {
    Trainer* trainer;
    const ParameterSet* set;
    const PackSample* samples;
    BatchItem* items;  // (batch_max)
    PassCounts* counts;
} LossContext;
void measure_losses(void* loss_context, int from, int n, float* const* out);

// And those of the single tokens that carry loss, in `token` of the pass: a MeasureBatch of one column too. Begin, plan
// (before the trainer's memory is allocated), measure, end (before the trainer is freed).
typedef struct {
    LossContext of;
    const MeasuredPass* pass;  // with start and token
    float *device, *host;      // (most)
    int64_t most;              // tokens of a batch
    int64_t* offset;           // (batch) where each sample's begin in it
} TokenLossContext;
void token_losses_begin(TokenLossContext* x, const MeasuredPass* pass);
void token_losses_plan(void* token_loss_context, Trainer* t);
void measure_token_losses(void* token_loss_context, int from, int n, float* const* out);
void token_losses_end(TokenLossContext* x);

// ---------------------------------------------------------------------------------------------------
// of `select`

#define MEASURE_PASSES 34  // of D_tune and of D_safe one for the own answers and one for each refusal

struct Measurement {
    const TrainOptions* o;
    const ScoreMethod* method;
    ModelConfig config;
    TrainerSettings settings;
    TokenSet set;   // of --tune, by --model's tokenizer and template
    Hex tokenizer;  // its digest
    // the rows that are scored: those of the set, or fewer where a method cannot measure some
    int n;
    int64_t* rows;        // (n) ids, ascending
    uint64_t* hashes;     // (n)
    PackSample* samples;  // (n)
    MeasuredPass passes[MEASURE_PASSES];
    int n_passes;
    Text decides;     // what decides the numbers, for the journal
    Journal journal;  // rank 0's
    BatchItem* items;
    PassCounts counts;
    size_t bytes;  // on the device, the most at once
    double began;
    // results
    double* score;      // (n) higher is kept first
    const float* loss;  // (n) of the rows' own answers; NULL: the method does not measure it
    struct {
        const char* name;
        const float* value;
    } shown[3];  // further columns, for --explain
    int n_shown;
    // toss: of the rows' tokens that carry loss, end to end
    int64_t* token_start;  // (n + 1)
    float* token_loss[2];  // (token_start[n]) under the useful reference and under the harmful one
    uint8_t* token_keep;   // (token_start[n]) 0: dropped
};

// Reads the model's config and the rows. What the options say that the method cannot take was refused before.
void measure_open(Measurement* m, const TrainOptions* o, const ScoreMethod* method);
void measure_close(Measurement* m);
// One line: seconds, tokens, bytes.
void measure_cost(const Measurement* m, FILE* out);

// For methods.
MeasuredPass* measure_plan(Measurement* m, const char* a, const char* b, const char* c);  // b, c may be NULL
// Another list of rows by the same tokenizer and template; each of its digests goes into `decides`. answer: in place of
// each row's own; NULL: its own. silent: the caller says what became of the rows left out.
void measure_read(Measurement* m, TokenSet* set, const StringList* files, const char* kind, const char* answer,
                  bool silent);
void measure_decide(Measurement* m, const char* what, const void* bytes, size_t n);
void measure_decide_model(Measurement* m, const char* directory);
// A trainer for the passes: planned (under --dry-run that is the end), allocated, loaded. prepare (may be NULL) adds to
// its plan.
void measure_trainer(Measurement* m, Trainer* t, const TrainerSettings* settings, const char* model,
                     const char* adapter, void (*prepare)(void* context, Trainer* t), void* context);
// After every pass is planned and `decides` is whole, before the first is run: takes what an earlier run left.
void measure_begin(Measurement* m);
bool measure_pass_done(const MeasuredPass* p);
void measure_pass_run(Measurement* m, MeasuredPass* p, const char* what, MeasureBatch measure, void* context);
// The same over other rows than --tune's: the option that names them, and their ids.
void measure_pass_of(Measurement* m, MeasuredPass* p, const char* option, const int64_t* rows, const char* what,
                     MeasureBatch measure, void* context);
double* measure_scores(Measurement* m);  // allocates m->score

#endif
