/* seal/options.c with train_seal's table. Input: the arguments, one a line. */
#include <string.h>
#include "fuzz.h"
#include "options.h"
#include "train_options.h"

#define MOST 64
static char* argv[MOST + 2];
static int argc;
static TrainOptions values;

static void body(void* unused) {
    (void)unused;
    StringList positional;
    int command = options_parse(&train_options, argc, argv, &values, &positional);
    MUST(command >= 0 && command < train_options.n_commands);
    static FILE* null;
    if (!null) null = fopen("/dev/null", "w");
    options_print(&train_options, command, &values, null);
    free(options_json(&train_options, command, &values));
    for (int i = 0; i < train_options.n_options; i++)
        if (train_options.options[i].type == OPTION_LIST) free(((StringList*)((char*)&values + train_options.options[i].offset))->items);
    free(positional.items);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    char* text = strndup((const char*)data, n);
    argc = 0;
    argv[argc++] = (char*)"train_seal";
    for (char* line = strtok(text, "\n"); line && argc < MOST; line = strtok(NULL, "\n")) argv[argc++] = line;
    argv[argc] = NULL;
    memset(&values, 0, sizeof values);
    bool help = argc < 2;  // --help ends the process
    for (int i = 1; i < argc; i++) help |= !strcmp(argv[i], "--help");
    if (!help) survive(body, NULL);
    free(text);
    return 0;
}
