/*
ONE option table gives parsing, --help, the printed run header, the log's header object and docs/options.md. A row:
long name, type, range or choices, default, help, the commands it belongs to, and where its value goes in the caller's
struct. Strict: numbers without trailing characters, ranges checked, unknown options answered with the nearest name;
every error is one line and status 2.
*/
#ifndef SEAL_OPTIONS_H
#define SEAL_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    OPTION_FLAG,    // bool; --name sets it
    OPTION_SWITCH,  // bool; --name on|off
    OPTION_INT,     // int64_t; where `choices` ends in |auto the word auto is taken as well
    OPTION_FLOAT,   // double
    OPTION_STRING,  // const char*
    OPTION_CHOICE,  // const char*, one of `choices` separated by |
    OPTION_LIST     // StringList; may be given several times
} OptionType;
#define OPTION_AUTO (-1)  // the value of an OPTION_INT given as auto

typedef struct {
    const char** items;
    int n;
} StringList;

typedef struct {
    const char* name;  // without the dashes
    OptionType type;
    size_t offset;         // of the value in the caller's struct
    const char* fallback;  // default as text; NULL: none
    const char* choices;   // CHOICE: "a|b"; others: what the value is called in --help, e.g. "FILE"
    double low, high;      // INT and FLOAT: allowed range, both ends included
    uint32_t commands;     // bit c: command c takes it
    uint32_t required;     // bit c: command c needs it
    const char* help;
} OptionRow;

typedef struct {
    const char* name;
    const char* help;
    const char* positional;  // what has no dash before it, e.g. "FILE"; NULL: nothing may
} CommandRow;

// What is refused: an option that does nothing without another, or nothing beside another. NEEDS is WITHOUT for an
// option of a mode that the other one chooses: without that it is not printed either.
typedef struct {
    const char* option;
    enum { WITHOUT, NEEDS, BESIDE } how;
    const char* other;
    uint32_t commands;  // bit c: so in command c
} OptionRule;

typedef struct {
    const char* program;
    const char* summary;
    const CommandRow* commands;
    int n_commands;
    const OptionRow* options;
    int n_options;
    const OptionRule* rules;
    int n_rules;
} OptionTable;

// Fills `values` with defaults, then with argv[2…]; argv[1] is the command. Returns the command's index. --help prints
// and ends the program with 0. positional receives what has no dash before it.
int options_parse(const OptionTable* table, int argc, char** argv, void* values, StringList* positional);
// Whether the command line that was parsed last gave the option, which may equal its default.
bool options_given(const OptionTable* table, const char* name);
void options_free(const OptionTable* table, void* values, StringList* positional);         // the lists
void options_help(const OptionTable* table, int command, FILE* out);                       // command −1: the program
void options_print(const OptionTable* table, int command, const void* values, FILE* out);  // |parameter|value|
void options_markdown(const OptionTable* table, FILE* out);                                // for docs/options.md
char* options_json(const OptionTable* table, int command, const void* values);  // an object as text, to be freed

#ifdef __cplusplus
}
#endif
#endif
