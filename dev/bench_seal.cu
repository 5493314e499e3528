/*
One step of SEAL on packed samples of real lengths, timed, beside plain SFT on the same samples and the selector's
update alone: what a weighted token costs, what ω costs. The peer of dev/reference/bench_seal_step.py; dev/bench_seal.sh
runs both on one file of lengths. Prints one line of JSON.
*/
#include <string.h>
#include "base/error.h"
#include "base/log.h"
#include "base/options.h"
#include "base/random.h"
#define TESTING
#include "../train_seal.cu"

typedef struct {
    int64_t layers, width, heads, kv_heads, ff, vocab, rank, batch, tokens, steps, warmup, rows, algorithm, seed;
    double gamma;
    const char *lengths, *family, *lora;
    bool recompute;
} Values;
#define AT(field) offsetof(Values, field)
static const CommandRow commands[] = {{"step", "times SEAL's step, a step of SFT and the selector's update", NULL}};
static const OptionRow options[] = {
    {"lengths", OPTION_STRING, AT(lengths), NULL, "FILE", 0, 0, 1, 1,
     "a sample a line: safe|tune LENGTH PROMPT, in tokens"},
    {"family", OPTION_CHOICE, AT(family), "gpt2",
     "gpt2|llama|mistral|gpt_neox|phi3|qwen2|qwen3|smollm3|olmo2|olmo3|gemma2|gemma3_text|granite", 0, 0, 1, 0,
     "model family"},
    {"layers", OPTION_INT, AT(layers), "4", NULL, 1, 200, 1, 0, "layers"},
    {"width", OPTION_INT, AT(width), "256", NULL, 8, 65536, 1, 0, "width"},
    {"heads", OPTION_INT, AT(heads), "4", NULL, 1, 512, 1, 0, "attention heads"},
    {"kv-heads", OPTION_INT, AT(kv_heads), "0", NULL, 0, 512, 1, 0, "key-value heads; 0: as many"},
    {"ff", OPTION_INT, AT(ff), "0", NULL, 0, 1048576, 1, 0, "width of the MLP; 0: the family's own multiple"},
    {"lora", OPTION_STRING, AT(lora), "none", "MODULES", 0, 0, 1, 0, "adapters over a frozen model"},
    {"rank", OPTION_INT, AT(rank), "16", NULL, 1, 1024, 1, 0, "of the adapters; alpha is the same"},
    {"recompute", OPTION_FLAG, AT(recompute), NULL, NULL, 0, 0, 1, 0, "compute activations again in backward"},
    {"vocab", OPTION_INT, AT(vocab), "8192", NULL, 1, 1000000, 1, 0, "vocabulary"},
    {"batch", OPTION_INT, AT(batch), "16", NULL, 1, 4096, 1, 0, "safe samples a step, and as many fine-tuning samples"},
    {"tokens", OPTION_INT, AT(tokens), "4096", NULL, 2, 1000000, 1, 0, "tokens of a pack"},
    {"rows", OPTION_INT, AT(rows), "112000", NULL, 1, 100000000, 1, 0, "N: logits of the selector"},
    {"algorithm", OPTION_INT, AT(algorithm), "2", NULL, 1, 2, 1, 0, "1 or 2"},
    {"gamma", OPTION_FLOAT, AT(gamma), "0.03", NULL, 0, 1, 1, 0, "penalty strength"},
    {"steps", OPTION_INT, AT(steps), "9", NULL, 1, 100000, 1, 0, "steps timed of each kind, alternating"},
    {"warmup", OPTION_INT, AT(warmup), "2", NULL, 0, 1000, 1, 0, "steps before them"},
    {"seed", OPTION_INT, AT(seed), "42", NULL, 0, 9e15, 1, 0, "of tokens and draws"},
};
static const OptionTable table = {"bench_seal", "benchmark of SEAL's step",       commands, 1,
                                  options,      sizeof options / sizeof *options, NULL,     0};

static double median(double* x, int64_t n) {  // sorts x
    for (int64_t i = 1; i < n; i++)
        for (int64_t j = i; j > 0 && x[j - 1] > x[j]; j--) {
            double swap = x[j];
            x[j] = x[j - 1];
            x[j - 1] = swap;
        }
    return x[n / 2];
}

// The samples of a kind, with random tokens and a prompt that bears no loss.
static PackSample* read_samples(const Values* v, const char* wanted, int* n) {
    FILE* file = fopen(v->lengths, "r");
    if (!file) fatal("%s: cannot be read", v->lengths);
    PackSample* samples = NULL;
    char kind[8];
    int length, prompt;
    *n = 0;
    for (int64_t line = 1; fscanf(file, "%7s %d %d", kind, &length, &prompt) == 3; line++) {
        if (length < 2 || prompt < 1 || prompt >= length || length > v->tokens)
            fatal("%s:%lld: expected 1 <= PROMPT < LENGTH <= %lld", v->lengths, (long long)line, (long long)v->tokens);
        if (strcmp(kind, wanted)) continue;
        samples = (PackSample*)host_resize(samples, (size_t)(*n + 1) * sizeof *samples, "samples");
        int32_t* tokens = (int32_t*)host_alloc((size_t)length * sizeof *tokens, "a sample");
        uint8_t* bears = (uint8_t*)host_alloc((size_t)length, "a sample");
        for (int i = 0; i < length; i++) {
            tokens[i] = (int32_t)random_below((uint64_t)v->seed, (uint64_t)line, (uint64_t)i, (uint64_t)v->vocab);
            bears[i] = i >= prompt;
        }
        PackSample sample = {tokens, bears, length, length - prompt, line};
        samples[(*n)++] = sample;
    }
    fclose(file);
    if (*n < v->batch)
        fatal("%s: %d %s samples do not fill a batch of %lld", v->lengths, *n, wanted, (long long)v->batch);
    return samples;
}

static ModelConfig model_of(const Values* v, int longest) {
    ModelConfig c;
    model_config_defaults(&c, v->family);
    c.L = (int)v->layers;
    c.C = (int)v->width;
    c.NH = (int)v->heads;
    c.NKV = (int)v->kv_heads;
    c.FF = (int)v->ff;
    c.V = (int)v->vocab;
    c.max_positions = longest;
    model_config_complete(&c, "bench_seal");
    if (!attention_head_size_supported(c.HS)) fatal("head size %d has no attention kernel", c.HS);
    return c;
}

// Random weights without a model's worth of random numbers: one block of them over and over. Adapters begin with B not
// zero, so that nothing is.
static void fill(ParameterSet* set) {
    const int64_t block = 1 << 20;
    float* values = (float*)host_alloc(block * sizeof(float), "values");
    for (int i = 0; i < set->layout->n_tensors; i++) {
        const ModelTensor* t = &set->layout->tensors[i];
        int64_t n = block / t->file_cols;
        for (int64_t e = 0; e < block && (i == 0 || t->cols == 1 || set->layout->tensors[i - 1].cols == 1); e++)
            values[e] = t->cols > 1           ? 0.02f * (float)random_normal(3, 0, (uint64_t)e)
                        : t->init == INIT_ONE ? 1.0f
                                              : 0.0f;
        for (int64_t row = 0; row < t->file_rows; row += n)
            parameters_set_rows(set, i, row, t->file_rows - row < n ? t->file_rows - row : n, values);
    }
    free(values);
}

int main(int argc, char** argv) {
    program_name = "bench_seal";
    Values v;
    StringList rest;
    options_parse(&table, argc, argv, &v, &rest);

    // samples of the lengths given, and a model that can read the longest
    int n_tune, n_safe, b = (int)v.batch, longest = 0;
    PackSample *tune = read_samples(&v, "tune", &n_tune), *safe = read_samples(&v, "safe", &n_safe);
    for (int i = 0; i < n_tune; i++) longest = tune[i].length > longest ? tune[i].length : longest;
    for (int i = 0; i < n_safe; i++) longest = safe[i].length > longest ? safe[i].length : longest;
    ModelConfig config = model_of(&v, longest);
    TrainerSettings settings = {};
    AdamwSettings adamw = {0.9f, 0.95f, 1e-8f, 0.0f, 1.0f};
    SelectorSettings adam = {SELECTOR_SOFTMAX, SELECTOR_ADAM, 0.9f, 0.95f, 1e-8f, 10.0f, 0.1f, 0.95f};
    settings.T = (int)v.tokens;
    settings.head_rows = 1024;
    settings.batch_max = 2 * b;
    settings.with_hat = v.algorithm == 1;
    settings.adamw = adamw;
    settings.recompute = v.recompute;
    if (strcmp(v.lora, "none")) {
        snprintf(settings.lora.modules, sizeof settings.lora.modules, "%s", v.lora);
        settings.lora.rank = (int)v.rank;
        settings.lora.scale = 1.0f;
    }

    // memory, and weights that are not zero
    Trainer t;
    Selector selector;
    trainer_plan(&t, &config, &settings);
    selector_plan(&selector, &adam, (int)v.rows, b, &t.plan);
    trainer_allocate(&t);
    if (t.with_lora) fill(&t.base);
    fill(&t.theta);
    if (settings.with_hat) parameters_copy(&t.theta_hat, &t.theta, t.stream);
    selector_bind(&selector, t.stream);

    // steps of SEAL, of SFT on the same samples, and of ω alone, timed in turn
    PackSample* drawn = (PackSample*)host_alloc(2 * (size_t)b * sizeof *drawn, "samples");
    int* rows = (int*)host_alloc((size_t)b * sizeof *rows, "rows");
    double* seal_ms = (double*)host_alloc(4 * (size_t)v.steps * sizeof *seal_ms, "times");
    double *sft_ms = seal_ms + v.steps, *omega_ms = sft_ms + v.steps, *ratio = omega_ms + v.steps;
    int64_t tokens = 0;
    double flops = 0;
    for (int64_t step = -v.warmup; step < v.steps; step++) {
        uint64_t draw = (uint64_t)(step + v.warmup);
        for (int i = 0; i < b; i++) {
            drawn[i] = tune[random_below((uint64_t)v.seed + 1, draw, (uint64_t)i, (uint64_t)n_tune)];
            drawn[b + i] = safe[random_below((uint64_t)v.seed + 2, draw, (uint64_t)i, (uint64_t)n_safe)];
            rows[i] = (int)((draw * (uint64_t)b + (uint64_t)i) % (uint64_t)v.rows);
        }
        SealBatch batch = {{drawn, drawn + b, b, b, NULL}, rows, (float)v.gamma, 1e-5f, 1e-5f, 5e-3f, 1.0f};
        PassCounts passes[2] = {};
        double at = wall_seconds();
        seal_step(&t, &selector, (int)v.algorithm, &batch, passes);
        trainer_bring_back(&t, 0);
        trainer_result(&t, 0);
        double seal = wall_seconds() - at;
        // the same samples, one weight each
        PassCounts plain = {};
        Batch all = {drawn, NULL, 2 * b, 0, NULL};
        Leg sft_leg = {.set = &t.theta, .lr = 1e-5f, .tune_weight = 0.5f / (float)b};
        at = wall_seconds();
        trainer_step(&t, &sft_leg, 1, &all, NULL, &plain);
        trainer_bring_back(&t, 0);
        trainer_result(&t, 0);
        double sft = wall_seconds() - at;
        at = wall_seconds();
        SelectorDelta delta = {t.loss, NULL, 1.0f, false};
        selector_weigh(&selector, rows, b, t.stream);
        selector_update(&selector, &delta, b, 5e-3f, t.stream);
        cudaCheck(cudaStreamSynchronize(t.stream));
        double omega = wall_seconds() - at;
        if (step < 0) continue;
        seal_ms[step] = 1e3 * seal;
        sft_ms[step] = 1e3 * sft;
        omega_ms[step] = 1e3 * omega;
        // a token of SEAL's step against one of SFT's, in the same iteration
        ratio[step] = seal / (double)(passes[0].trained_tokens + passes[1].trained_tokens) /
                      (sft / (double)plain.trained_tokens);
        tokens += passes[0].trained_tokens + passes[1].trained_tokens;
        flops += trainer_flops(&t, &passes[0]) + trainer_flops(&t, &passes[1]);
    }

    // medians
    double seal = median(seal_ms, v.steps), omega = median(omega_ms, v.steps);
    printf(
        "{\"what\": \"seal_step\", \"algorithm\": %lld, \"gamma\": %g, \"N\": %lld, \"ms\": %.3f, \"sft_ms\": %.3f, "
        "\"omega_ms\": %.4f, \"tokens_per_step\": %.1f, "
        "\"trained_tokens_per_s\": %.1f, \"token_cost_against_sft\": %.3f, \"omega_share\": %.5f, \"bytes\": %zu, "
        "\"tflops\": %.3f, \"family\": \"%s\", \"lora\": \"%s\", \"precision\": \"%s\"}\n",
        (long long)v.algorithm, v.gamma, (long long)v.rows, seal, median(sft_ms, v.steps), omega,
        (double)tokens / (double)v.steps, 1e3 * (double)tokens / (double)v.steps / seal, median(ratio, v.steps),
        omega / seal, memory_total(&t.plan), flops / (double)v.steps / seal / 1e9, v.family, v.lora, FLOATX_NAME);
    selector_free(&selector);
    trainer_free(&t);
    return 0;
}
