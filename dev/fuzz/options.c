/* seal/base/options.c with the tables of train_seal and eval_seal, and the small languages of their values: schedules
   of gamma (seal/schedule.c), fields and templates (seal/rows/layouts.c). Input: the arguments, one per line; the
   first, the command, says which program. */
#include <string.h>
#include "rows/dataset.h"
#include "commands/eval_options.h"
#include "fuzz.h"
#include "schedule.h"
#include "run/train_options.h"

#define MOST 64
static char* argv[MOST + 2];
static int argc;
static union {
    TrainOptions train;
    EvalOptions eval;
} values;
static StringList positional;

static FILE* null;  // opened before survive(), which would close it with all else that a refused input opened

static void read_values(const OptionTable* table) {
    int command = options_parse(table, argc, argv, &values, &positional);
    MUST(command >= 0 && command < table->n_commands);
    options_print(table, command, &values, null);
    free(options_json(table, command, &values));
}

static void train_body(void* unused) {
    (void)unused;
    GammaSchedule gamma;
    read_values(&train_options);
    RowOptions rows = {.prompt_template = values.train.prompt_template,
                       .prompt_field = values.train.prompt_field,
                       .response_field = values.train.response_field};
    row_options_check(&rows);
    gamma_parse(&gamma, values.train.gamma);
    for (int step = 0; step < 8; step++) {
        double g = gamma_at(&gamma, step / 4, step, 8);
        MUST(g >= 0.0 && g <= 1.0);
    }
    options_free(&train_options, &values, &positional);
}

static void eval_body(void* unused) {
    (void)unused;
    read_values(&eval_options);
    RowOptions rows = {.prompt_template = values.eval.prompt_template,
                       .prompt_field = values.eval.prompt_field,
                       .response_field = values.eval.response_field};
    row_options_check(&rows);
    options_free(&eval_options, &values, &positional);
}

static bool is_eval(const char* name) {
    for (int i = 0; i < eval_options.n_commands; i++)
        if (!strcmp(eval_options.commands[i].name, name)) return true;
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    char* text = strndup((const char*)data, n);
    argc = 0;
    argv[argc++] = (char*)"program";
    for (char* line = strtok(text, "\n"); line && argc < MOST; line = strtok(NULL, "\n")) argv[argc++] = line;
    argv[argc] = NULL;
    memset(&values, 0, sizeof values);
    if (!null) null = fopen("/dev/null", "w");
    bool help = argc < 2;  // --help ends the process
    for (int i = 1; i < argc; i++) help |= !strcmp(argv[i], "--help");
    if (!help) survive(is_eval(argv[1]) ? eval_body : train_body, NULL);
    free(text);
    return 0;
}
