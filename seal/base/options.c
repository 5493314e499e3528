/* The option table's engine. See options.h. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "base/options.h"

static void* value_of(const OptionRow* row, void* values) { return (char*)values + row->offset; }
static bool belongs(const OptionRow* row, int command) { return row->commands >> command & 1; }

// ---------------------------------------------------------------------------------------------------
// parsing

// Levenshtein distance, for "did you mean".
static int distance(const char* a, const char* b) {
    int n = (int)strlen(b), row[64];
    if (n >= 63 || strlen(a) >= 63) return 99;
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

static const OptionRow* find_row(const OptionTable* table, int command, const char* name, size_t length) {
    const OptionRow *nearest = NULL, *elsewhere = NULL;
    int least = 4;
    char wanted[64];
    snprintf(wanted, sizeof wanted, "%.*s", (int)(length < 63 ? length : 63), name);
    for (int i = 0; i < table->n_options; i++) {
        const OptionRow* row = &table->options[i];
        bool same = !strcmp(row->name, wanted);
        if (same && belongs(row, command)) return row;
        if (same) elsewhere = row;
        int d = distance(wanted, row->name);
        if (belongs(row, command) && d < least) {
            least = d;
            nearest = row;
        }
    }
    const char* c = table->commands[command].name;
    if (elsewhere) fatal("%s: --%s is not an option of this command; see %s %s --help", c, wanted, table->program, c);
    if (nearest) fatal("%s: unknown option --%s; did you mean --%s?", c, wanted, nearest->name);
    fatal("%s: unknown option --%s; see %s %s --help", c, wanted, table->program, c);
}

static bool in_choices(const char* choices, const char* text) {
    size_t n = strlen(text);
    for (const char* p = choices; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
        if (!strncmp(p, text, n) && (p[n] == '|' || p[n] == 0) && n) return true;
    return false;
}

static bool takes_auto(const OptionRow* row) {
    return row->type == OPTION_INT && row->choices && in_choices(row->choices, "auto");
}

static void set_value(const OptionRow* row, const char* text, void* values) {
    void* value = value_of(row, values);
    char* end;
    errno = 0;
    switch (row->type) {
        case OPTION_FLAG: *(bool*)value = !strcmp(text, "on"); break;
        case OPTION_SWITCH:
            if (strcmp(text, "on") && strcmp(text, "off")) fatal("--%s is \"%s\"; expected on or off", row->name, text);
            *(bool*)value = !strcmp(text, "on");
            break;
        case OPTION_INT: {
            if (takes_auto(row) && !strcmp(text, "auto")) {
                *(int64_t*)value = OPTION_AUTO;
                break;
            }
            long long n = strtoll(text, &end, 10);
            if (end == text || *end || errno) fatal("--%s is \"%s\"; expected a whole number", row->name, text);
            if (n < row->low || n > row->high)
                fatal("--%s is %lld; expected %.0f to %.0f", row->name, n, row->low, row->high);
            *(int64_t*)value = n;
            break;
        }
        case OPTION_FLOAT: {
            double x = strtod(text, &end);
            if (end == text || *end || errno || x != x) fatal("--%s is \"%s\"; expected a number", row->name, text);
            if (x < row->low || x > row->high)
                fatal("--%s is %g; expected %g to %g", row->name, x, row->low, row->high);
            *(double*)value = x;
            break;
        }
        case OPTION_CHOICE:
            if (!in_choices(row->choices, text))
                fatal("--%s is \"%s\"; expected one of %s", row->name, text, row->choices);
            *(const char**)value = text;
            break;
        case OPTION_STRING:
            if (!*text) fatal("--%s is empty", row->name);
            *(const char**)value = text;
            break;
        case OPTION_LIST: {
            StringList* list = value;
            if (!*text) fatal("--%s is empty", row->name);
            list->items = host_resize(list->items, ((size_t)list->n + 1) * sizeof *list->items, "the options");
            list->items[list->n++] = text;
            break;
        }
    }
}

static void set_defaults(const OptionTable* table, void* values) {
    for (int i = 0; i < table->n_options; i++) {
        const OptionRow* row = &table->options[i];
        void* value = value_of(row, values);
        if (row->fallback) set_value(row, row->fallback, values);
        else if (row->type == OPTION_FLAG || row->type == OPTION_SWITCH) *(bool*)value = false;
        else if (row->type == OPTION_INT) *(int64_t*)value = 0;
        else if (row->type == OPTION_FLOAT) *(double*)value = 0.0;
        else if (row->type == OPTION_LIST) *(StringList*)value = (StringList){NULL, 0};
        else *(const char**)value = NULL;
    }
}

static int find_command(const OptionTable* table, const char* name) {
    int nearest = -1, least = 4;
    for (int i = 0; i < table->n_commands; i++) {
        if (!strcmp(table->commands[i].name, name)) return i;
        int d = distance(name, table->commands[i].name);
        if (d < least) {
            least = d;
            nearest = i;
        }
    }
    if (nearest >= 0) fatal("unknown command \"%s\"; did you mean %s?", name, table->commands[nearest].name);
    fatal("unknown command \"%s\"; see %s --help", name, table->program);
}

#define MOST_OPTIONS 256
static bool given[MOST_OPTIONS];  // by row of the table; of the last command line

static bool is_given(const OptionTable* table, int command, const char* name) {
    return given[find_row(table, command, name, strlen(name)) - table->options];
}

int options_parse(const OptionTable* table, int argc, char** argv, void* values, StringList* positional) {
    *positional = (StringList){NULL, 0};
    if (argc < 2 || !strcmp(argv[1], "--help")) {
        options_help(table, -1, argc < 2 ? stderr : stdout);
        stdout_check();
        exit(argc < 2 ? 2 : 0);
    }
    int command = find_command(table, argv[1]);
    set_defaults(table, values);
    if (table->n_options > MOST_OPTIONS)
        program_error("%s has %d options, more than MOST_OPTIONS", table->program, table->n_options);
    memset(given, 0, sizeof given);
    positional->items = host_alloc((size_t)argc * sizeof *positional->items, "the options");
    for (int i = 2; i < argc; i++) {
        const char* arg = argv[i];
        if (!strcmp(arg, "--help")) {
            options_help(table, command, stdout);
            stdout_check();
            exit(0);
        }
        if (strncmp(arg, "--", 2)) {
            if (!table->commands[command].positional)
                fatal("%s: unexpected \"%s\"; options begin with --", argv[1], arg);
            positional->items[positional->n++] = arg;
            continue;
        }
        const char* name = arg + 2;
        const char* equals = strchr(name, '=');
        const OptionRow* row = find_row(table, command, name, equals ? (size_t)(equals - name) : strlen(name));
        if (given[row - table->options] && row->type != OPTION_LIST) fatal("--%s is given twice", row->name);
        given[row - table->options] = true;
        if (row->type == OPTION_FLAG) {
            if (equals) fatal("--%s takes no value", row->name);
            set_value(row, "on", values);
            continue;
        }
        const char* text = equals ? equals + 1 : i + 1 < argc ? argv[++i] : NULL;
        if (!text || (!equals && !strncmp(text, "--", 2))) fatal("--%s needs a value", row->name);
        set_value(row, text, values);
    }
    for (int i = 0; i < table->n_options; i++)
        if ((table->options[i].required >> command & 1) && !given[i])
            fatal("%s: --%s is required", argv[1], table->options[i].name);
    for (int i = 0; i < table->n_rules; i++) {
        const OptionRule* rule = &table->rules[i];
        if (!(rule->commands >> command & 1) || !is_given(table, command, rule->option)) continue;
        bool other = is_given(table, command, rule->other);
        if (rule->how != BESIDE && !other)
            fatal("%s: --%s has no effect without --%s", argv[1], rule->option, rule->other);
        if (rule->how == BESIDE && other)
            fatal("%s: --%s has no effect together with --%s; give only one of them", argv[1], rule->option,
                  rule->other);
    }
    return command;
}

bool options_given(const OptionTable* table, const char* name) {
    for (int i = 0; i < table->n_options; i++)
        if (given[i] && !strcmp(table->options[i].name, name)) return true;
    return false;
}

void options_free(const OptionTable* table, void* values, StringList* positional) {
    for (int i = 0; i < table->n_options; i++)
        if (table->options[i].type == OPTION_LIST) free(((StringList*)value_of(&table->options[i], values))->items);
    free(positional->items);
}

// ---------------------------------------------------------------------------------------------------
// printing

static const char* value_name(const OptionRow* row) {
    switch (row->type) {
        case OPTION_FLAG: return "";
        case OPTION_SWITCH: return "on|off";
        case OPTION_INT: return row->choices ? row->choices : "N";
        case OPTION_FLOAT: return row->choices ? row->choices : "X";
        default: return row->choices ? row->choices : "TEXT";
    }
}

void options_help(const OptionTable* table, int command, FILE* out) {
    if (command < 0) {
        fprintf(out, "%s: %s\n\nusage: %s COMMAND [--option value] …\n\n", table->program, table->summary,
                table->program);
        for (int i = 0; i < table->n_commands; i++)
            fprintf(out, "  %-12s %s\n", table->commands[i].name, table->commands[i].help);
        fprintf(out, "\n%s COMMAND --help lists a command's options.\n", table->program);
        return;
    }
    const CommandRow* c = &table->commands[command];
    fprintf(out, "%s %s: %s\n\nusage: %s %s [--option value] …%s%s\n\n", table->program, c->name, c->help,
            table->program, c->name, c->positional ? " " : "", c->positional ? c->positional : "");
    for (int i = 0; i < table->n_options; i++) {
        const OptionRow* row = &table->options[i];
        if (!belongs(row, command)) continue;
        char left[128];
        snprintf(left, sizeof left, "--%s %s", row->name, value_name(row));
        fprintf(out, "  %-38s %s", left, row->help);
        if (row->required >> command & 1) fprintf(out, " (required)");
        else if (row->fallback && row->type != OPTION_FLAG) fprintf(out, " [%s]", row->fallback);
        fputc('\n', out);
    }
}

// The value as text in a static buffer; lists joined by commas. NULL where there is none.
static const char* value_text(const OptionRow* row, const void* values) {
    static char text[4096];
    const void* value = (const char*)values + row->offset;
    switch (row->type) {
        case OPTION_FLAG:
        case OPTION_SWITCH: return *(const bool*)value ? "on" : "off";
        case OPTION_INT:
            if (takes_auto(row) && *(const int64_t*)value == OPTION_AUTO) return "auto";
            snprintf(text, sizeof text, "%lld", (long long)*(const int64_t*)value);
            return text;
        case OPTION_FLOAT: snprintf(text, sizeof text, "%g", *(const double*)value); return text;
        case OPTION_LIST: {
            const StringList* list = value;
            if (!list->n) return NULL;
            *text = 0;
            for (int i = 0; i < list->n; i++)
                snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? ", " : "", list->items[i]);
            return text;
        }
        default: return *(const char* const*)value;
    }
}

// Whether the option is of a mode that the command line did not choose.
static bool is_idle(const OptionTable* table, int command, const OptionRow* row) {
    for (int i = 0; i < table->n_rules; i++) {
        const OptionRule* rule = &table->rules[i];
        if (rule->how == NEEDS && (rule->commands >> command & 1) && !strcmp(rule->option, row->name))
            return !options_given(table, rule->other);
    }
    return false;
}

void options_print(const OptionTable* table, int command, const void* values, FILE* out) {
    fprintf(out, "| %-22s | %s\n|------------------------|---------------------------\n", table->commands[command].name,
            "value");
    for (int i = 0; i < table->n_options; i++) {
        const OptionRow* row = &table->options[i];
        const char* text = belongs(row, command) && !is_idle(table, command, row) ? value_text(row, values) : NULL;
        if (text) fprintf(out, "| %-22s | %s\n", row->name, text);
    }
}

void options_markdown(const OptionTable* table, FILE* out) {
    fprintf(out, "| option | value | default | commands | |\n|---|---|---|---|---|\n");
    for (int i = 0; i < table->n_options; i++) {
        const OptionRow* row = &table->options[i];
        char commands[256] = "";
        int n = 0;
        for (int c = 0; c < table->n_commands; c++)
            if (belongs(row, c)) {
                n++;
                snprintf(commands + strlen(commands), sizeof commands - strlen(commands), "%s%s", *commands ? ", " : "",
                         table->commands[c].name);
            }
        if (n == table->n_commands) snprintf(commands, sizeof commands, "all");
        char value[256] = "";
        size_t at = 0;
        for (const char* p = value_name(row); *p && at + 3 < sizeof value; p++) {  // a bar would end the cell
            if (*p == '|') value[at++] = '\\';
            value[at++] = *p;
        }
        value[at] = 0;
        fprintf(out, "| `--%s` | %s | %s | %s | %s |\n", row->name, value,
                row->fallback && row->type != OPTION_FLAG ? row->fallback : "", commands, row->help);
    }
}

char* options_json(const OptionTable* table, int command, const void* values) {
    cJSON* json = cJSON_CreateObject();
    for (int i = 0; i < table->n_options; i++) {
        const OptionRow* row = &table->options[i];
        const void* value = (const char*)values + row->offset;
        if (!belongs(row, command) || is_idle(table, command, row)) continue;
        if (row->type == OPTION_FLAG || row->type == OPTION_SWITCH)
            cJSON_AddBoolToObject(json, row->name, *(const bool*)value);
        else if (takes_auto(row) && *(const int64_t*)value == OPTION_AUTO)
            cJSON_AddStringToObject(json, row->name, "auto");
        else if (row->type == OPTION_INT) cJSON_AddNumberToObject(json, row->name, (double)*(const int64_t*)value);
        else if (row->type == OPTION_FLOAT) cJSON_AddNumberToObject(json, row->name, *(const double*)value);
        else if (row->type == OPTION_LIST) {
            const StringList* list = value;
            cJSON* array = cJSON_AddArrayToObject(json, row->name);
            for (int k = 0; k < list->n; k++) cJSON_AddItemToArray(array, cJSON_CreateString(list->items[k]));
        } else if (*(const char* const*)value) cJSON_AddStringToObject(json, row->name, *(const char* const*)value);
    }
    char* text = json_text(json);
    cJSON_Delete(json);
    return text;
}
