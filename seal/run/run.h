/*
A run: what every training command does around its loop. It prints options and plan, opens RUN, resumes, logs each
step, takes checkpoints, stops at a signal or at a number that is not finite, and in the end writes the model, its
tokenizer and summary.json.
*/
#ifndef SEAL_RUN_H
#define SEAL_RUN_H

#include "base/log.h"
#include "run/run_record.h"
#include "selector.h"
#include "run/snapshot.h"
#include "run/train_options.h"
#include "rows/tokens.h"
#include "trainer.h"

typedef enum {
    RUN_LOSS,
    RUN_VALID_LOSS,
    RUN_SAFE_LOSS,
    RUN_TUNE_LOSS,
    RUN_WEIGHTED_LOSS,
    RUN_GAP,
    N_RUN_LOSSES
} RunLoss;
extern const char* const run_loss_names[N_RUN_LOSSES];  // as they are called in log.jsonl, summary.json and run.json

typedef struct {
    const TrainOptions* o;
    int command;
    Trainer trainer;
    RunLog log;
    Progress progress;
    RunRecord record;
    Snapshot snapshot;
    struct {
        const char* name;
        int *value, copied;
    } counters[4];  // optimizer steps of each parameter set and of ω; copied: as the snapshot has them
    int n_counters;
    int64_t steps, steps_per_epoch, tokens, forward_tokens;
    int64_t first;  // the step that the loop starts with: 0, or the one after the checkpoint
    struct {
        const char* kind;
        int64_t rows, left_out, cut;
    } data[4];  // what became of the rows of each list of files
    int n_data;
    double peak_tflops, began, ended;  // ended: when the results of the last step were there
    double losses[N_RUN_LOSSES];       // the last ones, for the summary; NAN: the command has none
    char chat[256];                    // the chat template by which rows are written; "": none
} Run;

#define STATUS_STOPPED 75  // a signal ended the run after a checkpoint (EX_TEMPFAIL: run it again with --resume)

// What must be remembered of a step until its losses come back.
typedef struct {
    int64_t step;
    double epoch, lr, gamma, started;
    PassCounts passes[2];  // of the legs, in their order
    int64_t n_loss;
    double weight;  // sft of rows with weights: their mean over the batch
} StepNote;

// The trainer's settings by the options, lengths checked against the model's; settings carry what the command knows
// (batch_max, with_hat).
void run_settings(const TrainOptions* o, const ModelConfig* config, TrainerSettings* settings);
// Reads the model's config, completes the settings (run_settings) and plans the trainer.
void run_plan(Run* run, const TrainOptions* o, int command, ModelConfig* config, TrainerSettings* settings);
// Prints the options and the plan. False under --dry-run, which ends there.
bool run_show(Run* run);
// The number of steps of a run with `samples` samples per epoch, by the options.
int64_t run_steps(const TrainOptions* o, int64_t samples, int64_t* per_epoch);
// Counts the steps (`samples` per epoch), checks that RUN can be written, allocates, and loads the model.
void run_begin(Run* run, int64_t samples);
// What became of a list's rows, for log.jsonl and summary.json. kind: "tune", "safe" …; a static text.
void run_count_rows(Run* run, const char* kind, const TokenSet* set);
// Called last before the loop, when all state has its first value and the digests of the data are facts of run->record:
// checks the space on the disk, resumes from the newest checkpoint with --resume, opens log and progress, listens to
// signals. selector: NULL in other commands.
void run_start(Run* run, Selector* selector);
// After a step is queued: queues the copy of its state if a checkpoint is due. True if the run must stop after this
// step because of a signal.
bool run_snapshot(Run* run, int64_t step);
// After the step's results are logged: writes the checkpoint that was copied, if any.
void run_checkpoint(Run* run, int64_t step);
// After run_checkpoint of a step at which run_snapshot was true.
__attribute__((noreturn)) void run_leave(Run* run, int64_t step);
// Opens a step's line of the log: step and epoch. run_step_end closes it: the fields that every step has, and the
// progress line.
void run_log_step(Run* run, const StepNote* note);
void run_step_end(Run* run, const StepNote* note, double loss, float norm);
// A loss or norm that is not finite ends the run: the message names the step, the rows and the first tensor that broke.
// losses (b + m) are the batch's, fine-tuning samples first; their rows count over the files of --tune, then of
// --append.
void run_stop_on_nonfinite(Run* run, const StepNote* note, const Batch* batch, const float* losses, double loss,
                           float norm);
// One of the step's losses into the log, kept for the summary.
void run_log_loss(Run* run, RunLoss which, double value);
// A loss over held-out data, a line of its own in the log.
void run_log_validation(Run* run, int64_t step, double loss);
// model/, summary.json, the closing line.
void run_end(Run* run);

#endif
