/* What every training command does around its loop. See run.h. */
#include <string.h>
#include "error.h"
// defines: directory_probe, file_copy, file_exists, AtomicFile
#include "file.h"
#include "run.h"
// defines: check_head_size
#include "select.h"

#define AUTO_TOKENS_MOST (1 << 18)  // of --tokens auto: GEMMs gain nothing beyond

static AdamwSettings adamw_settings(const TrainOptions* o) {
    AdamwSettings a = {(float)o->beta1, (float)o->beta2, (float)o->adam_eps, (float)o->weight_decay, (float)o->clip};
    return a;
}

const char* device_name(void) {
    static cudaDeviceProp device;
    cudaCheck(cudaGetDeviceProperties(&device, 0));
    return device.name;
}

// A tokenizer travels with its model.
static const char* const tokenizer_files[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", "generation_config.json"};
static void copy_tokenizer(const char* from, const char* to) {
    char path[8400];
    for (size_t i = 0; i < sizeof tokenizer_files / sizeof *tokenizer_files; i++) {
        snprintf(path, sizeof path, "%s/%s", from, tokenizer_files[i]);
        if (file_exists(path)) file_copy(path, to, tokenizer_files[i]);
    }
}

// The most tokens a stream may have such that the plan leaves a twentieth of the free device memory alone, and no more than the largest batch can fill.
// Memory grows with T, so a search by halves finds it.
static int tokens_that_fit(const ModelConfig* config, TrainerSettings settings, int longest) {
    size_t free_bytes = 0, total_bytes = 0;
    cudaCheck(cudaMemGetInfo(&free_bytes, &total_bytes));
    int64_t most = (int64_t)settings.batch_max * longest, low = longest, high = most < AUTO_TOKENS_MOST ? most : AUTO_TOKENS_MOST;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        Trainer t;
        settings.T = (int)middle;
        trainer_plan(&t, config, &settings);
        bool fits = memory_total(&t.plan) <= free_bytes / 20 * 19;
        trainer_plan_free(&t);
        if (fits) low = middle;
        else high = middle - 1;
    }
    return (int)(low > longest ? low / STREAM_ROUND * STREAM_ROUND : longest);
}

void run_settings(const TrainOptions* o, const ModelConfig* config, TrainerSettings* settings) {
    if (o->max_length > config->max_positions) fatal("--max-length is %lld, %s reads at most %d tokens", (long long)o->max_length, o->model, config->max_positions);
    int longest = o->max_length ? (int)o->max_length : config->max_positions;
    if (longest < 2) fatal("--max-length is %d; a sample needs two tokens", longest);
    settings->T = o->tokens > 0 ? (int)o->tokens : longest;
    if (settings->T < longest) fatal("--tokens is %d, a sample may have %d; raise --tokens or lower --max-length", settings->T, longest);
    settings->head_rows = (int)o->head_rows;
    settings->recompute = o->recompute;
    settings->adamw = adamw_settings(o);
    if (o->tokens == OPTION_AUTO) settings->T = tokens_that_fit(config, *settings, longest);
}

void run_plan(Run* run, const TrainOptions* o, int command, ModelConfig* config, TrainerSettings* settings) {
    memset(run, 0, sizeof *run);
    run->o = o;
    run->command = command;
    model_config_read(config, o->model);
    check_head_size(config);
    run_settings(o, config, settings);
    trainer_plan(&run->trainer, config, settings);
}

bool run_show(Run* run) {
    const TrainOptions* o = run->o;
    if (!o->quiet || o->dry_run) {
        options_print(&train_options, run->command, o, stdout);
        model_print(&run->trainer.layout, stdout);
        printf("streams of %d tokens\n", run->trainer.settings.T);
        memory_print(&run->trainer.plan, stdout);
    }
    return !o->dry_run;
}

void run_begin(Run* run, int64_t samples) {
    const TrainOptions* o = run->o;
    run->steps_per_epoch = o->compat ? samples / o->batch : (samples + o->batch - 1) / o->batch;
    if (!run->steps_per_epoch) fatal("%lld samples do not fill one batch of %lld", (long long)samples, (long long)o->batch);
    run->steps = (int64_t)ceil(o->epochs * (double)run->steps_per_epoch - 1e-9);
    if (o->max_steps && o->max_steps < run->steps) run->steps = o->max_steps;
    if (!run->steps) fatal("--epochs %g makes no step", o->epochs);
    directory_probe(o->out);
    trainer_allocate(&run->trainer);
    parameters_load(&run->trainer.theta, o->model);
    run->peak_tflops = gpu_peak_tflops(device_name(), sizeof(floatX) == 2);
    log_open(&run->log, o->out, false);
    char* header = options_json(&train_options, run->command, o);
    log_line(&run->log, header);
    free(header);
    progress_begin(&run->progress, train_options.commands[run->command].name, run->steps, o->quiet);
    run->began = wall_seconds();
}

void run_step_end(Run* run, const StepNote* note, double loss, float norm) {
    double seconds = wall_seconds() - note->started;
    int64_t trained = note->theta.trained_tokens + note->theta_hat.trained_tokens;
    run->tokens += trained;
    run->forward_tokens += note->theta.forward_tokens;
    run->last_loss = loss;
    double speed = (double)trained / seconds;
    double flops = trainer_flops(&run->trainer, &note->theta) + trainer_flops(&run->trainer, &note->theta_hat);
    double utilisation = run->peak_tflops > 0 ? flops / seconds / 1e12 / run->peak_tflops : NAN;
    log_number(&run->log, "lr", note->lr);
    log_number(&run->log, "grad_norm", norm);
    log_integer(&run->log, "tokens", trained);
    log_integer(&run->log, "forward_tokens", note->theta.forward_tokens);
    log_number(&run->log, "tokens_per_s", speed);
    log_number(&run->log, "utilisation", utilisation);
    log_integer(&run->log, "bytes", (int64_t)memory_total(&run->trainer.plan));
    log_number(&run->log, "wall_s", wall_seconds() - run->began);
    log_end(&run->log);
    if (run->peak_tflops > 0) progress_update(&run->progress, note->step + 1, "loss %.4f, %.0f tokens/s, %.1f%% of peak", loss, speed, 100.0 * utilisation);
    else progress_update(&run->progress, note->step + 1, "loss %.4f, %.0f tokens/s", loss, speed);
}

void stop_on_nonfinite(Run* run, const StepNote* note, double loss, float norm) {
    if (isfinite(loss) && isfinite(norm)) return;
    Trainer* t = &run->trainer;
    const char* tensor = first_nonfinite(&t->theta, false, t->stream);
    if (!tensor) tensor = first_nonfinite(&t->theta, true, t->stream);
    fatal("step %lld: loss %g, gradient norm %g; the first tensor that is not finite: %s; lower --lr or look at the data of this step", (long long)note->step + 1, loss, norm,
          tensor ? tensor : "none, only the loss");
}

void run_end(Run* run, double valid_loss) {
    const TrainOptions* o = run->o;
    char path[4200];
    progress_end(&run->progress);
    log_close(&run->log);
    snprintf(path, sizeof path, "%s/model", o->out);
    parameters_save(&run->trainer.theta, path);
    copy_tokenizer(o->model, path);
    snprintf(path, sizeof path, "%s/summary.json", o->out);
    AtomicFile f;
    atomic_open(&f, path);
    atomic_printf(&f, "{\"command\":\"%s\",\"steps\":%lld,\"tokens\":%lld,\"forward_tokens\":%lld,\"wall_s\":%.3f,\"peak_bytes\":%zu,\"loss\":%.9g,\"valid_loss\":",
                  train_options.commands[run->command].name, (long long)run->steps, (long long)run->tokens, (long long)run->forward_tokens, wall_seconds() - run->began,
                  memory_total(&run->trainer.plan), run->last_loss);
    if (isfinite(valid_loss)) atomic_printf(&f, "%.9g}\n", valid_loss);
    else atomic_printf(&f, "null}\n");
    atomic_commit(&f);
    if (!o->quiet) printf("%lld steps, %lld tokens in %.1f s on %s; wrote %s\n", (long long)run->steps, (long long)run->tokens, wall_seconds() - run->began, device_name(), o->out);
}
