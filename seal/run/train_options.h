/* The options of train_seal: ONE table. A new option is a row here and a field of TrainOptions. */
#ifndef SEAL_TRAIN_OPTIONS_H
#define SEAL_TRAIN_OPTIONS_H

#include "base/options.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    COMMAND_INIT,
    COMMAND_IMPORT,
    COMMAND_PRETRAIN,
    COMMAND_SELECTOR,
    COMMAND_SFT,
    COMMAND_SELECT,
    COMMAND_CHECK,
    COMMAND_OPTIONS,
    N_TRAIN_COMMANDS
} TrainCommand;

typedef struct {
    // init
    const char* family;
    int64_t layers, width, heads, kv_heads, head_size, ff, vocab, positions;
    double rope_base;
    bool config_only;
    const char* tokenizer;
    // import
    StringList gguf;
    const char* dtype;
    // models and data
    const char *model, *adapter, *out;
    const char* lora;
    int64_t lora_rank;
    const char* base;
    double lora_alpha;
    bool merge;
    double shard_gb;
    StringList tune, valid, safe, append;
    const char *selector, *method, *scores;
    StringList target;
    double top;
    int64_t min_words;
    bool explain, noise, reverse;
    const char *reference, *reference_adapter, *matrices, *form, *layer;
    StringList harmful, probe, refusals, useful;
    const char *useful_adapter, *harmful_adapter, *token_mask;
    double drop_tokens;
    int64_t anchors, refusal_texts;
    double own_loss, own_bound, alike;
    int64_t refine;
    const char* left_out;
    int64_t show;
    const char *prompt_template, *prompt_field, *response_field, *loss_mean;
    const char *chat, *loss_on;
    bool parse_special;
    // the selector
    int64_t algorithm;
    const char *gamma, *activation, *selector_optimizer, *selector_schedule, *selector_unit;
    const char* weights;  // of sft: "rows" as they have them, or "learn"
    bool gamma_scales_omega;
    double selector_lr, selector_clip, lr_hat;
    int64_t max_length;
    // training
    double lr, warmup, clip, weight_decay, beta1, beta2, adam_eps, epochs;
    const char *schedule, *algorithms;
    int64_t max_steps, batch, tokens, head_rows, seed, save_every, keep, ranks;
    bool recompute, compat;
    // common
    bool resume, dry_run, quiet;
} TrainOptions;

extern const OptionTable train_options;

// Whether the run learns weights of rows: `selector`, and `sft --weights learn`, whose model is the result.
bool learns_weights(const TrainOptions* o, int command);
// After options_parse: defaults that depend on other options, and what does not go together.
void train_options_settle(TrainOptions* o, int command);

#ifdef __cplusplus
}
#endif
#endif
