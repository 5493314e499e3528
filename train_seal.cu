/*
SEAL: Safety-enhanced Aligned LLM Fine-tuning via Bilevel Data Selection (Shen, Chen, Das, Chen, ICLR 2025).

It learns a weight for every fine-tuning sample such that a model trained on the weighted samples stays safe:

    min over ω of L_safe(θ*(ω)),  θ*(ω) in argmin over θ of L_tune(θ, ω) = mean_i σ_i(ω) ℓ(θ; z_i)

solved in its penalty form, min over ω, θ of (1−γ) L_safe(θ) + γ [ L_tune(θ, ω) − min over θ' of L_tune(θ', ω) ].
seal_step is the algorithm, run_loop the loop around it. How a batch becomes gradients is seal/trainer.cu, ω's update
seal/selector.cu, the transformer seal/transformer.cu, what the kernels do seal_kernels/kernels.h.
*/
#include <signal.h>
#include <string.h>
// defines: program_name, program_error, stdout_check
#include "base/error.h"
// defines: wall_seconds
#include "base/log.h"
// defines: ranks_hello, ranks_plan, ranks_start, ranks_end, ranks_rank
#include "base/ranks.h"
// defines: check_command
#include "commands/check.h"
// defines: import_command
#include "commands/import.h"
// defines: init_command
#include "commands/init.h"
// defines: Learn, SealBatch, learn_open, learn_draw, learn_bring_back, learn_finish, learn_close
#include "commands/learn.h"
// defines: select_command
#include "commands/select.h"
// defines: Supervised, pretrain_open, sft_open, supervised_queue, supervised_finish, supervised_validate,
// supervised_close
#include "commands/supervised.h"
// defines: Run, StepNote, run_snapshot, run_checkpoint, run_leave, run_log_validation
#include "run/run.h"
// defines: TrainOptions, train_options, TrainCommand, learns_weights, train_options_settle
#include "run/train_options.h"
// defines: gamma_at, lr_at
#include "schedule.h"
// defines: Selector, SelectorDelta, selector_weigh, selector_update
#include "selector.h"
// defines: Trainer, Batch, Leg, PassCounts, trainer_step, trainer_bring_back
#include "trainer.h"

// ---------------------------------------------------------------------------------------------------
// the algorithm

// One step on a fine-tuning batch B_f of b samples and a safe batch B_s of m samples. Algorithm 1 has the auxiliary
// parameters θ̂; Algorithm 2 (memory-efficient, the paper's default) does without them. Every loss is taken at the
// parameters from before the step; the gradients of θ, θ̂ and ω are each clipped by their own norm. What one parameter
// set does in the step is a leg. passes: the tokens that each leg ran, for the log. All of it is queued on the
// trainer's stream; nothing waits for the device.
static void seal_step(Trainer* trainer, Selector* selector, int algorithm, const SealBatch* batch,
                      PassCounts passes[2]) {
    NVTX_RANGE("seal step");
    const Batch* samples = &batch->samples;
    float gamma = batch->gamma, b = (float)samples->b, m = (float)samples->m;
    Leg legs[2];
    int n_legs = 0;

    // σ_i(ω) for every i in B_f
    selector_weigh(selector, batch->rows, samples->b, trainer->stream);

    // θ̂ ← AdamW(θ̂, ∇θ̂  1/b Σ_i σ_i(ω) ℓ(θ̂; z_i))                                      Algorithm 1 only
    if (algorithm == 1) legs[n_legs++] = {.set = &trainer->theta_hat, .lr = batch->lr_hat, .tune_weight = 1.0f / b};

    // θ ← AdamW(θ, ∇θ [ (1−γ) 1/m Σ_j ℓ(θ; s_j) + γ 1/b Σ_i σ_i(ω) ℓ(θ; z_i) ])
    legs[n_legs++] = {.set = &trainer->theta,
                      .lr = batch->lr,
                      .tune_weight = gamma / b,
                      .safe_weight = (1.0f - gamma) / m,
                      .with_safe = true};
    const bool first_step = trainer->theta.step == 0;
    trainer_step(trainer, legs, n_legs, samples, selector->sigma, passes);

    // ω ← Opt(ω, ∇ω 1/b Σ_i σ_i(ω) Δ_i),  Δ_i = ℓ(θ; z_i) − ℓ(θ̂; z_i), or ℓ(θ; z_i) without θ̂: a constant.
    // In the first step θ̂ equals θ and Δ is 0. The two losses may come from packs that round differently, though, and
    // Adam would turn that noise into steps of ±lr.
    SelectorDelta delta = {.loss = trainer->loss,
                           .loss_hat = algorithm == 1 ? trainer->loss_hat : NULL,
                           .scale = batch->omega_scale,
                           .zero = algorithm == 1 && first_step};
    selector_update(selector, &delta, samples->b, batch->lr_omega, trainer->stream);
}

#ifndef TESTING  // tests include this file for seal_step alone

// Queues a step of `train_seal selector`: its batches, γ and the learning rates by their schedules, the algorithm.
static void seal_queue(void* task, StepNote* note, int slot) {
    Learn* x = (Learn*)task;
    Run* run = &x->run;
    SealBatch* batch = &x->step[slot];
    int64_t step = note->step;
    learn_draw(x, step, batch, slot);
    note->gamma = gamma_at(&x->gamma, (int)(step / run->steps_per_epoch), step, run->steps);
    note->lr = lr_at(&x->lr, step, run->steps);
    batch->gamma = (float)note->gamma;
    batch->lr = (float)note->lr;
    batch->lr_hat = (float)lr_at(&x->lr_hat, step, run->steps);
    batch->lr_omega = (float)lr_at(&x->lr_omega, step, run->steps);
    batch->omega_scale = run->o->gamma_scales_omega ? batch->gamma : 1.0f;
    seal_step(&run->trainer, &x->selector, x->algorithm, batch, note->passes);
    learn_bring_back(x, slot);
}

// ---------------------------------------------------------------------------------------------------
// the loop of every training command

// queue puts a step on the device, finish reads and logs its losses one step later, so that the device never waits for
// the host; validate (may be NULL) measures held-out data at the end of an epoch. The loop itself sees to checkpoints
// and signals.
static void run_loop(Run* run, void* task, void (*queue)(void* task, StepNote* note, int slot),
                     void (*finish)(void* task, const StepNote* note, int slot), double (*validate)(void* task)) {
    StepNote notes[2];
    int pending = -1;  // the slot of the step whose losses are still to be read
    for (int64_t step = run->first; step < run->steps; step++) {
        int slot = (int)(step % 2);
        StepNote* note = &notes[slot];
        memset(note, 0, sizeof *note);
        note->step = step;
        note->epoch = (double)(step + 1) / (double)run->steps_per_epoch;
        note->started = step ? wall_seconds() : run->began;
        queue(task, note, slot);
        trainer_bring_back(&run->trainer, slot);

        // the step before
        if (pending >= 0) {
            finish(task, &notes[pending], pending);
            run_checkpoint(run, step - 1);
        }
        pending = slot;

        // this step at once, where something needs its result now: the last step, a validation, a signal to leave
        bool leave = run_snapshot(run, step), last = step + 1 == run->steps;
        bool validates = validate && (last || (step + 1) % run->steps_per_epoch == 0);
        if (!last && !validates && !leave) continue;
        finish(task, note, slot);
        pending = -1;
        if (validates) run_log_validation(run, step, validate(task));
        run_checkpoint(run, step);
        if (leave) run_leave(run, step);
    }
}

// ---------------------------------------------------------------------------------------------------
// commands

// Learns weights of rows: for a selection (`selector`), or for this run's own model (`sft --weights learn`).
static int learning_command(const TrainOptions* o, int command) {
    Learn x;
    if (!learn_open(&x, o, command)) return 0;
    run_loop(&x.run, &x, seal_queue, learn_finish, NULL);
    learn_close(&x);
    return 0;
}

static int supervised_command(const TrainOptions* o, int command) {
    Supervised x;
    if (!(command == COMMAND_PRETRAIN ? pretrain_open(&x, o, command) : sft_open(&x, o, command))) return 0;
    run_loop(&x.run, &x, supervised_queue, supervised_finish, x.n_valid ? supervised_validate : NULL);
    supervised_close(&x);
    return 0;
}

static int run_command(const TrainOptions* o, int command) {
    switch ((TrainCommand)command) {
        case COMMAND_INIT: return init_command(o);
        case COMMAND_IMPORT: return import_command(o);
        case COMMAND_PRETRAIN:
        case COMMAND_SFT:
        case COMMAND_SELECTOR:
            return learns_weights(o, command) ? learning_command(o, command) : supervised_command(o, command);
        case COMMAND_SELECT: return select_command(o, supervised_command);
        case COMMAND_CHECK: return check_command(o);
        case COMMAND_OPTIONS: options_markdown(&train_options, stdout); return 0;
        default: program_error("command %d", command);
    }
}

int main(int argc, char** argv) {
    program_name = "train_seal";
    signal(SIGPIPE, SIG_IGN);  // the run continues when whoever reads its output has left
    ranks_hello();
    TrainOptions o;
    StringList positional;
    int command = options_parse(&train_options, argc, argv, &o, &positional);
    train_options_settle(&o, command);
    bool trains = command == COMMAND_PRETRAIN || command == COMMAND_SFT || command == COMMAND_SELECTOR,
         ranked = trains || command == COMMAND_SELECT;
    if (ranked && o.dry_run) ranks_plan((int)o.ranks);
    else if (ranked) ranks_start((int)o.ranks);
    if (ranks_rank()) o.quiet = true;
    int status = run_command(&o, command);
    ranks_end();
    if (!trains || o.dry_run) stdout_check();
    options_free(&train_options, &o, &positional);
    return status;
}

#endif
