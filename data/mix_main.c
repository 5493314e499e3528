/*
mix: builds safe, fine-tuning and held-out files from data files of any layout, as a recipe says, and keeps the true
labels aside where a trainer cannot see them. Every source lends each of its rows to one role at most: roles take rows
by their number (rows=0,1/4), so one record never plays two parts.
*/
#include <cjson/cJSON.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include "rows/dataset.h"
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "base/options.h"
#include "base/random.h"

typedef struct {
    const char *recipe, *from, *out;
    int64_t seed;
    bool quiet;
} MixOptions;
#define AT(field) offsetof(MixOptions, field)
static const CommandRow commands[] = {
    {"build", "writes ROLE.jsonl and ROLE.labels.jsonl for every role of a recipe", NULL}};
static const OptionRow options[] = {
    {"recipe", OPTION_STRING, AT(recipe), NULL, "FILE", 0, 0, 1, 1,
     "one source per line: ROLE KIND NAME FILE [rows=A,B/N] [most=N|exactly=N] [prompts] [prompt=T] [response=T] "
     "[where=T=PATTERN]"},
    {"from", OPTION_STRING, AT(from), ".", "DIR", 0, 0, 1, 0, "folder that the recipe's files are named from"},
    {"out", OPTION_STRING, AT(out), NULL, "DIR", 0, 0, 1, 1, "folder for the files that are written"},
    {"seed", OPTION_INT, AT(seed), "42", NULL, 0, 9e15, 1, 0,
     "seed of the order of the rows and, with most=N, of which rows are taken"},
    {"quiet", OPTION_FLAG, AT(quiet), NULL, NULL, 0, 0, 1, 0, "print nothing"},
};
static const OptionTable table = {"mix",    "mixes data files into safe, fine-tuning and held-out sets",
                                  commands, 1,
                                  options,  sizeof options / sizeof *options,
                                  NULL,     0};

#define MOST_ROLES 16
#define MOST_SOURCES 256
#define MOST_WORDS 12
#define ROLE_LENGTH 63
#define MOST_REMAINDERS 16

// One line of a recipe.
typedef struct {
    char *role, *kind, *name, *file, *prompt, *response, *where, *pattern;
    int remainders[MOST_REMAINDERS], n_remainders,
        modulus;            // rows whose number mod modulus is among the remainders; modulus 0: all
    int64_t most, line;     // most 0: all
    bool exactly, prompts;  // fewer rows than `most` are an error; no answers, and the prompt without the template
} Source;

typedef struct {
    char *prompt, *response;
    const char *kind, *name;
} Row;  // response NULL: a prompt alone
typedef struct {
    char name[ROLE_LENGTH + 1];
    Row* rows;
    int64_t n, capacity;
} Role;

// ---------------------------------------------------------------------------------------------------
// the recipe

static char* value_of(char* word, const char* key) {
    size_t n = strlen(key);
    return !strncmp(word, key, n) && word[n] == '=' ? word + n + 1 : NULL;
}

static int64_t whole(const char* text, int64_t low, const char* what, const char* path, int64_t line) {
    char* end;
    long long n = strtoll(text, &end, 10);
    if (end == text || *end || n < low || n > INT32_MAX)
        fatal("%s:%lld: %s is \"%.40s\"; expected a whole number from %lld to %d", path, (long long)line, what, text,
              (long long)low, INT32_MAX);
    return n;
}

// A role is the name of two files, ROLE.jsonl and ROLE.labels.jsonl.
static void check_role(const char* name, const char* path, int64_t line) {
    static const char labels[] = ".labels";
    size_t n = strlen(name), m = sizeof labels - 1;
    if (n > ROLE_LENGTH || strchr(name, '/') || *name == '.' || (n >= m && !strcmp(name + n - m, labels)))
        fatal(
            "%s:%lld: role \"%.80s\": expected a file's name of at most %d characters, without / and without %s at its "
            "end",
            path, (long long)line, name, ROLE_LENGTH, labels);
}

static void read_rows(Source* s, char* text, const char* path) {
    char* slash = strchr(text, '/');
    if (!slash)
        fatal("%s:%lld: rows=%.40s; expected rows=A,B/N: the rows whose number mod N is A or B", path,
              (long long)s->line, text);
    *slash = 0;
    s->modulus = (int)whole(slash + 1, 1, "N of rows=A,B/N", path, s->line);
    for (char* part = strtok(text, ","); part; part = strtok(NULL, ",")) {
        if (s->n_remainders == MOST_REMAINDERS)
            fatal("%s:%lld: more than %d remainders", path, (long long)s->line, MOST_REMAINDERS);
        int64_t r = whole(part, 0, "a remainder", path, s->line);
        if (r >= s->modulus)
            fatal("%s:%lld: remainder %lld is not below %d", path, (long long)s->line, (long long)r, s->modulus);
        s->remainders[s->n_remainders++] = (int)r;
    }
}

// False for an empty line or a comment.
static bool read_source(Source* s, char* text, const char* path, int64_t line) {
    char* words[MOST_WORDS];
    int n = 0;
    memset(s, 0, sizeof *s);
    s->line = line;
    for (char* word = strtok(text, " \t\r\n"); word && *word != '#'; word = strtok(NULL, " \t\r\n")) {
        if (n == MOST_WORDS) fatal("%s:%lld: more than %d words", path, (long long)line, MOST_WORDS);
        words[n++] = word;
    }
    if (!n) return false;
    if (n < 4) fatal("%s:%lld: expected ROLE KIND NAME FILE", path, (long long)line);
    check_role(words[0], path, line);
    s->role = words[0];
    s->kind = words[1];
    s->name = words[2];
    s->file = words[3];
    for (int i = 4; i < n; i++) {
        char* value;
        if ((value = value_of(words[i], "rows"))) read_rows(s, value, path);
        else if ((value = value_of(words[i], "most"))) s->most = whole(value, 1, "most", path, line);
        else if ((value = value_of(words[i], "exactly"))) {
            s->most = whole(value, 1, "exactly", path, line);
            s->exactly = true;
        } else if (!strcmp(words[i], "prompts")) s->prompts = true;
        else if ((value = value_of(words[i], "prompt"))) s->prompt = value;
        else if ((value = value_of(words[i], "response"))) s->response = value;
        else if ((value = value_of(words[i], "where"))) {
            s->where = value;
            s->pattern = strchr(value, '=');
            if (!s->pattern) fatal("%s:%lld: expected where={field}=PATTERN", path, (long long)line);
            *s->pattern++ = 0;
        } else fatal("%s:%lld: unknown word \"%.40s\"", path, (long long)line, words[i]);
    }
    return true;
}

// ---------------------------------------------------------------------------------------------------
// rows

static char* copy_of(const char* text) { return host_copy(text, strlen(text)); }

static Role* role_of(Role* roles, int* n, const char* name) {
    for (int i = 0; i < *n; i++)
        if (!strcmp(roles[i].name, name)) return &roles[i];
    if (*n == MOST_ROLES) fatal("more than %d roles", MOST_ROLES);
    snprintf(roles[*n].name, sizeof roles->name, "%s", name);
    return &roles[(*n)++];
}

static void role_add(Role* role, Row row) {
    if (role->n == role->capacity) {
        role->capacity = role->capacity ? 2 * role->capacity : 1024;
        role->rows = host_resize(role->rows, (size_t)role->capacity * sizeof *role->rows, "rows");
    }
    role->rows[role->n++] = row;
}

static bool lends(const Source* s, int64_t row) {
    if (!s->modulus) return true;
    for (int i = 0; i < s->n_remainders; i++)
        if (row % s->modulus == s->remainders[i]) return true;
    return false;
}

static Path source_path(const Source* s, const MixOptions* o) { return path_of(o->from, "%s", s->file); }

static int64_t read_file(const Source* s, const MixOptions* o, Role* role) {
    Path from = source_path(s, o);
    const char *path = from.s, *paths[] = {path};
    StringList files = {paths, 1};
    RowOptions plain = {.prompt_template = s->prompts ? "{prompt}" : NULL,
                        .prompt_field = s->prompt,
                        .response_field = s->response,
                        .prompts_only = s->prompts};
    RowOptions test = {.prompt_template = "{prompt}", .prompt_field = s->where, .prompts_only = true};
    RowReader *reader = rows_open(&files, &plain),
              *tester = s->where ? rows_open(&files, &test) : NULL;  // the same records, seen through two templates
    Role all = {"", NULL, 0, 0};
    DataRow row, seen;
    RowReport report = {0};
    while (rows_next(reader, &row)) {
        if (tester && !rows_next(tester, &seen))
            program_error("%s: the two readers disagree at row %lld", path, (long long)row.row);
        if (!lends(s, row.row)) continue;
        row_report_add(&report, &row, path, NULL);
        if (row.state != ROW_OK) continue;
        if (tester && (seen.state != ROW_OK || fnmatch(s->pattern, seen.prompt, 0))) continue;
        role_add(&all, (Row){copy_of(row.prompt), s->prompts ? NULL : copy_of(row.response), s->kind, s->name});
    }
    row_report_print(&report, o->quiet, stderr);
    rows_close(reader);
    if (tester) rows_close(tester);
    if (!all.n) fatal("%s:%lld: %s gives no row", o->recipe, (long long)s->line, s->file);
    if (s->exactly && all.n < s->most)
        fatal("%s:%lld: %s gives %lld rows; expected exactly %lld", o->recipe, (long long)s->line, s->file,
              (long long)all.n, (long long)s->most);
    int64_t taken = s->most && s->most < all.n ? s->most : all.n;
    int* order = host_alloc((size_t)all.n * sizeof *order, "rows");
    random_permutation((uint64_t)o->seed, (uint64_t)s->line, order, (int)all.n);
    for (int64_t i = 0; i < all.n; i++) {
        if (i < taken) {
            role_add(role, all.rows[order[i]]);
            continue;
        }
        free(all.rows[order[i]].prompt);
        free(all.rows[order[i]].response);
    }
    free(order);
    free(all.rows);
    return taken;
}

static const char* const endings[2] = {".jsonl", ".labels.jsonl"};
static Path role_path(const Role* role, const char* ending, const MixOptions* o) {
    return path_of(o->out, "%s%s", role->name, ending);
}

// No source is written over.
static void check_outputs(const Role* roles, int n_roles, const Source* sources, int n_sources, const MixOptions* o) {
    for (int r = 0; r < 2 * n_roles; r++)
        for (int s = 0; s < n_sources; s++)
            output_is_not(role_path(&roles[r / 2], endings[r % 2], o).s, source_path(&sources[s], o).s);
}

// Rows in a seeded order. prompt/chosen rows take no template: the prompt already has it; a prompt alone has not, and
// gets it where it is read.
static void write_role(const Role* role, const MixOptions* o) {
    AtomicFile data, labels;
    int* order = host_alloc((size_t)role->n * sizeof *order, "rows");
    random_permutation((uint64_t)o->seed, 1u << 20, order, (int)role->n);
    atomic_open(&data, role_path(role, endings[0], o).s);
    atomic_open(&labels, role_path(role, endings[1], o).s);
    for (int64_t i = 0; i < role->n; i++) {
        const Row* row = &role->rows[order[i]];
        cJSON *line = cJSON_CreateObject(), *label = cJSON_CreateObject();
        cJSON_AddStringToObject(line, "prompt", row->prompt);
        if (row->response) cJSON_AddStringToObject(line, "chosen", row->response);
        cJSON_AddNumberToObject(label, "row", (double)i);
        cJSON_AddStringToObject(label, "kind", row->kind);
        cJSON_AddStringToObject(label, "family", row->name);
        char *text = json_text(line), *label_text = json_text(label);
        atomic_printf(&data, "%s\n", text);
        atomic_printf(&labels, "%s\n", label_text);
        free(text);
        free(label_text);
        cJSON_Delete(line);
        cJSON_Delete(label);
    }
    atomic_commit(&data);
    atomic_commit(&labels);
    free(order);
}

int main(int argc, char** argv) {
    program_name = "mix";
    MixOptions o;
    StringList positional;
    options_parse(&table, argc, argv, &o, &positional);
    Role roles[MOST_ROLES] = {0};
    Source sources[MOST_SOURCES];
    int n_roles = 0, n_sources = 0;
    size_t length;
    char* text = file_read(o.recipe, 1 << 20, &length);
    int64_t number = 0;
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        Source source, *s = &sources[n_sources];
        if (!read_source(&source, line, o.recipe, ++number)) continue;
        if (n_sources++ == MOST_SOURCES) fatal("%s: more than %d sources", o.recipe, MOST_SOURCES);
        *s = source;
        int64_t taken = read_file(s, &o, role_of(roles, &n_roles, s->role));
        if (!o.quiet)
            printf("%-10s %-8s %-20s %7lld rows of %s\n", s->role, s->kind, s->name, (long long)taken, s->file);
    }
    if (!n_roles) fatal("%s: contains no source", o.recipe);
    directory_probe(o.out);
    check_outputs(roles, n_roles, sources, n_sources, &o);
    for (int i = 0; i < n_roles; i++) {
        write_role(&roles[i], &o);
        if (!o.quiet) printf("wrote %s/%s.jsonl, %lld rows\n", o.out, roles[i].name, (long long)roles[i].n);
        for (int64_t r = 0; r < roles[i].n; r++) {
            free(roles[i].rows[r].prompt);
            free(roles[i].rows[r].response);
        }
        free(roles[i].rows);
    }
    free(text);
    stdout_check();
    options_free(&table, &o, &positional);
    return 0;
}
