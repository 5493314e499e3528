/* world: generates the synthetic world and measures models and selectors in it exactly. Commands and options are the
 * two tables below. */
#include <stddef.h>
#include "base/error.h"
#include "base/options.h"
#include "world.h"

typedef enum { COMMAND_GENERATE, COMMAND_SCORE, COMMAND_AUC, COMMAND_TABLE, COMMAND_SUMMARY, N_COMMANDS } Command;
static const CommandRow commands[N_COMMANDS] = {
    {"generate",
     "writes a world: tokenizer.json, base.jsonl, safe.jsonl, tune.jsonl, tune.labels.jsonl, test.jsonl, world.json",
     NULL},
    {"score", "exact accuracy and refusal of outputs.json, as JSON", NULL},
    {"auc", "how well a selector tells unsafe rows from useful ones, as JSON", NULL},
    {"table",
     "one row per method: joins DIR/scores.json and DIR/auc.json (what score and auc printed) and the seconds of DIR's "
     "runs",
     "DIR…"},
    {"summary",
     "figures over the tables of several seeds, and whether they are what the demo promises (status 1: they are not), "
     "as "
     "Markdown",
     "table.json…"},
};

#define GENERATE (1u << COMMAND_GENERATE)
#define SCORE (1u << COMMAND_SCORE)
#define AUC (1u << COMMAND_AUC)
#define TABLE (1u << COMMAND_TABLE)
#define AT(field) offsetof(WorldOptions, field)

static const OptionRow options[] = {
    {"seed", OPTION_INT, AT(seed), "1", NULL, 0, 9e15, GENERATE, 0, "seed of meanings, held-out words and rows"},
    {"out", OPTION_STRING, AT(out), NULL, "PATH", 0, 0, GENERATE | TABLE, GENERATE,
     "folder of the files; table: table.json"},
    {"tune-rows", OPTION_INT, AT(tune_rows), "5120", NULL, 1, 10000000, GENERATE, 0, "rows of tune.jsonl"},
    {"safe-rows", OPTION_INT, AT(safe_rows), "2560", NULL, 1, 10000000, GENERATE, 0, "rows of safe.jsonl"},
    {"base-rows", OPTION_INT, AT(base_rows), "20000", NULL, 1, 10000000, GENERATE, 0, "rows of base.jsonl"},
    {"test-rows", OPTION_INT, AT(test_rows), "300", NULL, 1, 2000, GENERATE, 0,
     "rows of each kind of test.jsonl: forbidden, lookalike, old, new; fewer where no more prompts exist"},
    {"unsafe-share", OPTION_FLOAT, AT(unsafe_share), "0.25", NULL, 0, 1, GENERATE, 0, "unsafe rows of tune.jsonl"},
    {"refusal-share", OPTION_FLOAT, AT(refusal_share), "0.05", NULL, 0, 1, GENERATE, 0,
     "correct refusals of tune.jsonl"},
    {"old-share", OPTION_FLOAT, AT(old_share), "0.4", NULL, 0, 1, GENERATE, 0,
     "old families among the useful rows of tune.jsonl and safe.jsonl"},
    {"safe-refusal-share", OPTION_FLOAT, AT(safe_refusal_share), "0.25", NULL, 0, 1, GENERATE, 0,
     "refusals of safe.jsonl"},
    {"base-refusal-share", OPTION_FLOAT, AT(base_refusal_share), "0.25", NULL, 0, 1, GENERATE, 0,
     "refusals of base.jsonl"},
    {"absent-family", OPTION_SWITCH, AT(absent_family), "off", NULL, 0, 0, GENERATE, 0,
     "a useful family (age) that is neither in safe.jsonl nor known to the base"},
    {"entropy-family", OPTION_SWITCH, AT(entropy_family), "off", NULL, 0, 0, GENERATE, 0,
     "a useful family (any) with irreducible entropy, also in safe.jsonl"},
    {"test", OPTION_STRING, AT(test), NULL, "FILE", 0, 0, SCORE, SCORE, "test.jsonl of the world"},
    {"outputs", OPTION_STRING, AT(outputs), NULL, "FILE", 0, 0, SCORE, SCORE,
     "JSON array (or lines) of {instruction, output}, one for every row of the test"},
    {"selector", OPTION_STRING, AT(selector), NULL, "FILE", 0, 0, AUC, AUC,
     "selector.safetensors: logits F32 [N], row I64 [N]"},
    {"labels", OPTION_STRING, AT(labels), NULL, "FILE", 0, 0, AUC, AUC, "tune.labels.jsonl of the world"},
    {"top", OPTION_FLOAT, AT(top), "0.7", NULL, 0, 1, AUC, 0, "share of rows that a selection would keep"},
    {"quiet", OPTION_FLAG, AT(quiet), NULL, NULL, 0, 0, GENERATE, 0, "print nothing"},
};

static const OptionTable world_options = {"world",  "a synthetic world in which safety and usefulness are counted",
                                          commands, N_COMMANDS,
                                          options,  sizeof options / sizeof *options,
                                          NULL,     0};

static int run_command(int command, const WorldOptions* o, const StringList* positional) {
    switch ((Command)command) {
        case COMMAND_GENERATE: return world_generate(o);
        case COMMAND_SCORE: return world_score(o);
        case COMMAND_AUC: return world_auc(o);
        case COMMAND_TABLE: return world_table(o, positional);
        case COMMAND_SUMMARY: return world_summary(positional);
        default: program_error("unknown command");
    }
}

int main(int argc, char** argv) {
    program_name = "world";
    WorldOptions o;
    StringList positional;
    int command = options_parse(&world_options, argc, argv, &o, &positional),
        status = run_command(command, &o, &positional);
    stdout_check();
    options_free(&world_options, &o, &positional);
    return status;
}
