/* The options of eval_seal: ONE table. A new option is a row here and a field of EvalOptions. */
#ifndef SEAL_EVAL_OPTIONS_H
#define SEAL_EVAL_OPTIONS_H

#include "base/options.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    EVAL_GENERATE,
    EVAL_JUDGE,
    EVAL_LOSS,
    EVAL_WINRATE,
    EVAL_REFUSALS,
    EVAL_REPORT,
    EVAL_OPTIONS,
    N_EVAL_COMMANDS
} EvalCommand;

typedef struct {
    // models and data
    const char *model, *adapter, *base, *out;
    StringList prompts, data;
    const char *prompt_template, *prompt_field, *response_field;
    bool greedy, resume, skip_long, parse_special;
    const char* name;
    double temperature, top_p, repetition_penalty;
    int64_t top_k, seed;
    int64_t max_new_tokens, batch, tokens, max_length, head_rows;
    // judge
    const char *judge, *outputs, *baseline, *judge_template, *words, *rubric, *chat, *loss_on;
    bool guard, single_order;
    // report
    const char *labels, *table, *title;
    StringList rows, losses;
    const char* token_mask;
    double top;
    int64_t show;
    // loss
    bool each_token;
    // winrate
    bool length_controlled;
    // refusals
    const char* phrases;
    StringList harmful, harmless;
    // common
    bool quiet, dry_run, json;
} EvalOptions;

extern const OptionTable eval_options;

#ifdef __cplusplus
}
#endif
#endif
