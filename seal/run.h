/*
A run: what every training command does around its loop. Plans and shows, opens RUN, logs each step, stops at a number that is not finite, and writes the model,
its tokenizer and summary.json at the end.
*/
#ifndef SEAL_RUN_H
#define SEAL_RUN_H

// defines: RunLog, Progress
#include "log.h"
#include "train_options.h"
// defines: Trainer, PassCounts
#include "trainer.h"

typedef struct {
    const TrainOptions* o;
    int command;
    Trainer trainer;
    RunLog log;
    Progress progress;
    int64_t steps, steps_per_epoch, tokens, forward_tokens;
    double peak_tflops, began, last_loss;
} Run;

// What is known of a step when its losses come back.
typedef struct {
    int64_t step;
    int n, b;             // samples of the batch, fine-tuning ones among them
    double epoch, lr, gamma, started;
    PassCounts theta, theta_hat;
    int64_t n_loss;
} StepNote;

const char* device_name(void);
// The trainer's settings by the options, lengths checked against the model's; settings carry what the command knows (batch_max, with_hat).
void run_settings(const TrainOptions* o, const ModelConfig* config, TrainerSettings* settings);
// Reads the model's config, completes the settings (run_settings) and plans the trainer.
void run_plan(Run* run, const TrainOptions* o, int command, ModelConfig* config, TrainerSettings* settings);
// Prints the options and the plan; false where that was all (--dry-run).
bool run_show(Run* run);
// Counts the steps of `samples` an epoch, proves that RUN can be written, allocates, loads the model, opens log and progress.
void run_begin(Run* run, int64_t samples);
// The fields that every step logs, and the progress line.
void run_step_end(Run* run, const StepNote* note, double loss, float norm);
// A loss or norm that is not finite ends the run: the message names the step and the first tensor that broke.
void stop_on_nonfinite(Run* run, const StepNote* note, double loss, float norm);
// model/, summary.json (valid_loss NAN: null), the closing line.
void run_end(Run* run, double valid_loss);

#endif
