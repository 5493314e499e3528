/*
One training step of a random GPT-2 (forward, backward, clip, AdamW) on packed random tokens, timed: the peer of
dev/reference/bench_gpt2_step.py. dev/bench_step.sh runs both. Prints one line of JSON: median milliseconds over --steps
steps after a warm-up.
*/
#include <string.h>
#include "base/error.h"
#include "base/log.h"
#include "base/options.h"
#include "base/random.h"
#include "device.h"
#include "trainer.h"

typedef struct {
    int64_t layers, width, heads, vocab, tokens, samples, steps;
} Values;
#define AT(field) offsetof(Values, field)
static const CommandRow commands[] = {{"step", "times a training step", NULL}};
static const OptionRow options[] = {
    {"layers", OPTION_INT, AT(layers), "4", NULL, 1, 200, 1, 0, "layers"},
    {"width", OPTION_INT, AT(width), "256", NULL, 8, 65536, 1, 0, "width"},
    {"heads", OPTION_INT, AT(heads), "4", NULL, 1, 512, 1, 0, "attention heads"},
    {"vocab", OPTION_INT, AT(vocab), "8192", NULL, 1, 1000000, 1, 0, "vocabulary"},
    {"tokens", OPTION_INT, AT(tokens), "1024", NULL, 2, 1000000, 1, 0, "tokens of a step"},
    {"samples", OPTION_INT, AT(samples), "1", NULL, 1, 100000, 1, 0, "samples they are cut into"},
    {"steps", OPTION_INT, AT(steps), "15", NULL, 1, 100000, 1, 0, "steps timed"},
};
static const OptionTable table = {"bench_step", "benchmark of a training step",   commands, 1,
                                  options,      sizeof options / sizeof *options, NULL,     0};

static int by_value(const void* a, const void* b) {
    double x = *(const double*)a, y = *(const double*)b;
    return (x > y) - (x < y);
}

int main(int argc, char** argv) {
    program_name = "bench_step";
    Values v;
    StringList rest;
    options_parse(&table, argc, argv, &v, &rest);
    ModelConfig config;
    model_config_defaults(&config, "gpt2");
    config.L = (int)v.layers;
    config.C = (int)v.width;
    config.NH = (int)v.heads;
    config.FF = 4 * config.C;
    config.V = (int)v.vocab;
    int length = (int)(v.tokens / v.samples);
    config.max_positions = length;
    config.norm_eps = 1e-5f;
    config.tied_head = true;
    config.bos_id = config.eos_id = -1;
    model_config_complete(&config, "bench_step");
    if (!attention_head_size_supported(config.HS)) fatal("head size %d has no attention kernel", config.HS);
    TrainerSettings settings = {};
    settings.T = (int)v.tokens;
    settings.head_rows = 1024;
    settings.batch_max = (int)v.samples;
    AdamwSettings adamw = {0.9f, 0.95f, 1e-8f, 0.1f, 1.0f};
    settings.adamw = adamw;
    Trainer t;
    trainer_plan(&t, &config, &settings);
    trainer_allocate(&t);
    parameters_init(&t.theta, 1, true);
    int* tokens = (int*)host_alloc(v.tokens * sizeof(int), "tokens");
    BatchItem* items = (BatchItem*)host_alloc(v.samples * sizeof *items, "samples");
    double* ms = (double*)host_alloc(v.steps * sizeof(double), "times");
    for (int64_t i = 0; i < v.tokens; i++) tokens[i] = (int)random_below(2, 0, (uint64_t)i, (uint64_t)v.vocab);
    for (int64_t s = 0; s < v.samples; s++) {
        PackSample sample = {tokens + s * length, NULL, length, length - 1, s};
        items[s].sample = sample;
        items[s].coefficient = 1.0f / (float)v.samples;
    }
    float loss = 0.0f;
    PassCounts counts = {};
    for (int64_t step = -3; step < v.steps; step++) {
        double from = wall_seconds();
        memset(&counts, 0, sizeof counts);
        gradients_zero(&t.theta, t.stream);
        trainer_pass(&t, &t.theta, items, (int)v.samples, 0, NULL, t.loss, true, &counts);
        optimizer_step(&t.theta, &settings.adamw, 1e-4f, t.norms + NORM, t.norms + CLIP, t.stream);
        trainer_bring_back(&t, 0);
        loss = trainer_result(&t, 0).loss[0];
        if (step >= 0) ms[step] = 1e3 * (wall_seconds() - from);
    }
    if (!isfinite(loss)) program_error("the loss is not finite: what was timed is not a training step");
    qsort(ms, v.steps, sizeof *ms, by_value);
    double median = ms[v.steps / 2], flops = trainer_flops(&t, &counts) / median * 1e3,
           peak = 1e12 * gpu_peak_tflops(device_name(), sizeof(floatX) == 2);
    printf(
        "{\"ms\": %.3f, \"ms_least\": %.3f, \"tokens_per_s\": %.0f, \"gflops_per_s\": %.1f, \"utilisation\": %.4f, "
        "\"bytes\": %zu, \"loss\": "
        "%.4f, \"precision\": \"%s\"}\n",
        median, ms[0], 1e3 * (double)v.tokens / median, flops / 1e9, peak > 0.0 ? flops / peak : 0.0,
        memory_total(&t.plan), loss, FLOATX_NAME);
    trainer_free(&t);
    free(tokens);
    free(items);
    free(ms);
    return 0;
}
