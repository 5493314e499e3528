/*
mix: builds safe, fine-tuning and held-out files from data files of any layout, as a recipe says, and keeps the true
labels aside where a trainer cannot see them. Every source lends each of its rows to one role at most: roles take rows
by their number (rows=0,1/4), so one record never plays two parts. With --distinct no prompt does, whatever files it is
in; `overlap` counts the prompts that files share.
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
    bool quiet, messages, distinct;
} MixOptions;
#define AT(field) offsetof(MixOptions, field)
enum { BUILD_COMMAND, OVERLAP_COMMAND, N_COMMANDS };
#define BUILD (1u << BUILD_COMMAND)
static const CommandRow commands[N_COMMANDS] = {
    {"build", "writes ROLE.jsonl and ROLE.labels.jsonl for every role of a recipe", NULL},
    {"overlap", "counts the prompts that files share, letters and digits compared alone; exit status 1 where some do",
     "FILE…"}};
static const OptionRow options[] = {
    {"recipe", OPTION_STRING, AT(recipe), NULL, "FILE", 0, 0, BUILD, BUILD,
     "one source per line: ROLE KIND NAME FILE [rows=A,B/N] [most=N|exactly=N] [prompts] [single] [longest=N] "
     "[prompt=T] [response=T] [where=T=PATTERN]"},
    {"from", OPTION_STRING, AT(from), ".", "DIR", 0, 0, BUILD, 0, "folder that the recipe's files are named from"},
    {"out", OPTION_STRING, AT(out), NULL, "DIR", 0, 0, BUILD, BUILD, "folder for the files that are written"},
    {"messages", OPTION_FLAG, AT(messages), NULL, NULL, 0, 0, BUILD, 0,
     "write rows as messages, which a model's chat template renders; otherwise as prompt and chosen, in the "
     "reference's "
     "text"},
    {"distinct", OPTION_FLAG, AT(distinct), NULL, NULL, 0, 0, BUILD, 0,
     "a prompt is taken once over all roles, by the recipe's first line that has it; letters and digits are compared. "
     "All prompts of a line with the word prompts are its own, taken or not"},
    {"seed", OPTION_INT, AT(seed), "42", NULL, 0, 9e15, BUILD, 0,
     "seed of the order of the rows and, with most=N, of which rows are taken"},
    {"quiet", OPTION_FLAG, AT(quiet), NULL, NULL, 0, 0, BUILD, 0, "print nothing"},
};
static const OptionTable table = {"mix",    "mixes data files into safe, fine-tuning and held-out sets",
                                  commands, N_COMMANDS,
                                  options,  sizeof options / sizeof *options,
                                  NULL,     0};

#define MOST_ROLES 16
#define MOST_SOURCES 256
#define MOST_WORDS 16
#define ROLE_LENGTH 63
#define MOST_REMAINDERS 16

// One line of a recipe.
typedef struct {
    char *role, *kind, *name, *file, *prompt, *response, *where, *pattern;
    int remainders[MOST_REMAINDERS], n_remainders,
        modulus;                  // rows whose number mod modulus is among the remainders; modulus 0: all
    int64_t most, longest, line;  // most 0: all; longest: bytes of all texts of a row, 0: any
    bool exactly, prompts;  // fewer rows than `most` are an error; no answers, and the prompt without the template
    bool single;            // only rows of one question, and one answer
} Source;

typedef struct {
    char *text, *key;  // what is written; the prompt's letters and digits
    const char *kind, *name;
} Row;
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
        } else if ((value = value_of(words[i], "longest"))) s->longest = whole(value, 1, "longest", path, line);
        else if (!strcmp(words[i], "prompts")) s->prompts = true;
        else if (!strcmp(words[i], "single")) s->single = true;
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

// A set of texts, which belong to others: open addressing, at most half full. The value says who had a text first.
typedef struct {
    const char** texts;
    int* values;
    size_t slots, n;  // slots: a power of two
} TextSet;

static size_t slot_of(const TextSet* set, const char* text) {
    uint64_t h = 1469598103934665603ull;  // FNV-1a
    for (const char* c = text; *c; c++) h = (h ^ (unsigned char)*c) * 1099511628211ull;
    size_t slot = (size_t)h & (set->slots - 1);
    while (set->texts[slot] && strcmp(set->texts[slot], text)) slot = (slot + 1) & (set->slots - 1);
    return slot;
}

static void set_grow(TextSet* set) {
    TextSet grown = {.slots = set->slots ? 2 * set->slots : 1024, .n = set->n};
    grown.texts = host_alloc(grown.slots * sizeof *grown.texts, "prompts");
    grown.values = host_alloc(grown.slots * sizeof *grown.values, "prompts");
    for (size_t i = 0; i < set->slots; i++) {
        if (!set->texts[i]) continue;
        size_t slot = slot_of(&grown, set->texts[i]);
        grown.texts[slot] = set->texts[i];
        grown.values[slot] = set->values[i];
    }
    free(set->texts);
    free(set->values);
    *set = grown;
}

// The value of who had the text before; where nobody had, takes it with `value` and returns −1.
static int set_add(TextSet* set, const char* text, int value) {
    if (2 * set->n >= set->slots) set_grow(set);
    size_t slot = slot_of(set, text);
    if (set->texts[slot]) return set->values[slot];
    set->texts[slot] = text;
    set->values[slot] = value;
    set->n++;
    return -1;
}

static void set_free(TextSet* set) {
    free(set->texts);
    free(set->values);
}

// The user's texts as they are compared: ASCII letters in lower case, digits, bytes beyond ASCII; a space for what is
// between them.
static char* prompt_key(const Conversation* c) {
    Text key = {0};
    bool gap = false;
    text_add(&key, "", 0);
    for (int m = 0; m < c->n; m++, gap = true) {
        if (c->messages[m].role != ROLE_USER) continue;
        for (const char* p = c->messages[m].content; *p; p++) {
            char low = *p >= 'A' && *p <= 'Z' ? (char)(*p + 'a' - 'A') : *p;
            if ((low >= 'a' && low <= 'z') || (low >= '0' && low <= '9') || (unsigned char)low >= 0x80) {
                if (gap && key.n) text_add(&key, " ", 1);
                text_add(&key, &low, 1);
                gap = false;
            } else gap = true;
        }
    }
    return key.s;
}

// The row as it is written: its messages, or prompt and answer in the reference's text. prompt/chosen rows take no
// template: the prompt already has it; a prompt alone has not, and gets it where it is read.
static char* row_text(const DataRow* text, const Conversation* c, const Source* s, bool messages) {
    cJSON* line = cJSON_CreateObject();
    if (messages) {
        cJSON* turns = cJSON_AddArrayToObject(line, "messages");
        for (int m = 0; m < c->n; m++) {
            if (s->prompts && m == c->n - 1 && c->answered) break;
            cJSON* turn = cJSON_CreateObject();
            cJSON_AddStringToObject(turn, "role", c->messages[m].role_name);
            if (c->messages[m].parts)
                cJSON_AddItemToObject(turn, "content", cJSON_Duplicate(c->messages[m].parts, true));
            else cJSON_AddStringToObject(turn, "content", c->messages[m].content);
            const cJSON* field;
            cJSON_ArrayForEach(field, c->messages[m].fields) if (message_passes(field->string))
                cJSON_AddItemToObject(turn, field->string, cJSON_Duplicate(field, true));
            if (c->messages[m].weight != 1.0) cJSON_AddNumberToObject(turn, "weight", c->messages[m].weight);
            cJSON_AddItemToArray(turns, turn);
        }
        if (c->tools) cJSON_AddItemToObject(line, "tools", cJSON_Duplicate(c->tools, true));
        if (c->variables) cJSON_AddItemToObject(line, "chat_template_kwargs", cJSON_Duplicate(c->variables, true));
        if (c->weight != 1.0) cJSON_AddNumberToObject(line, "weight", c->weight);
    } else {
        cJSON_AddStringToObject(line, "prompt", text->prompt);
        if (!s->prompts) cJSON_AddStringToObject(line, "chosen", text->response);
    }
    char* written = json_text(line);
    cJSON_Delete(line);
    return written;
}

// What a recipe's line asks of a row besides its number and its fields.
static bool fits(const Source* s, const Conversation* c) {
    size_t bytes = 0;
    int users = 0, others = 0;
    for (int m = 0; m < c->n; m++) {
        bytes += c->messages[m].length;
        users += c->messages[m].role == ROLE_USER;
        others += c->messages[m].role != ROLE_USER;
    }
    return (!s->longest || bytes <= (size_t)s->longest) &&
           (!s->single || (users == 1 && others == (c->answered ? 1 : 0)));
}

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

static void free_row(Row* row) {
    free(row->text);
    free(row->key);
}

typedef struct {
    TextSet set;
    Row* own;  // rows that were not taken but whose keys are in the set
    int64_t n, capacity;
} Taken;

// Keeps the row's key for as long as the set is there.
static void taken_keep(Taken* t, Row row) {
    if (t->n == t->capacity) {
        t->capacity = t->capacity ? 2 * t->capacity : 1024;
        t->own = host_resize(t->own, (size_t)t->capacity * sizeof *t->own, "prompts");
    }
    t->own[t->n++] = row;
}

// Rows of one line of a recipe, in a seeded order, until there are as many as the line asks for. Returns how many;
// `twice` counts those whose prompt another line, or this one, has already.
static int64_t take_rows(const Source* s, const MixOptions* o, Role* all, Role* role, Taken* taken, int64_t* twice) {
    int64_t n = 0, most = s->most ? s->most : all->n;
    int* order = host_alloc((size_t)all->n * sizeof *order, "rows");
    random_permutation((uint64_t)o->seed, (uint64_t)s->line, order, (int)all->n);
    for (int64_t i = 0; i < all->n; i++) {
        Row* row = &all->rows[order[i]];
        bool first = !o->distinct || ((s->prompts || n < most) && set_add(&taken->set, row->key, 0) < 0);
        *twice += n < most && !first;
        if (first && n < most) {
            role_add(role, *row);
            n++;
        } else if (first && o->distinct) taken_keep(taken, *row);
        else free_row(row);
    }
    free(order);
    return n;
}

static int64_t read_file(const Source* s, const MixOptions* o, Role* role, Taken* taken) {
    Path from = source_path(s, o);
    const char *path = from.s, *paths[] = {path};
    StringList files = {paths, 1};
    RowOptions plain = {.prompt_template = s->prompts ? "{prompt}" : NULL,
                        .prompt_field = s->prompt,
                        .response_field = s->response,
                        .prompts_only = s->prompts,
                        .conversations = o->messages};
    RowOptions test = {.prompt_template = "{prompt}", .prompt_field = s->where, .prompts_only = true};
    RowReader *reader = rows_open(&files, &plain),
              *tester = s->where ? rows_open(&files, &test) : NULL;  // the same records, seen through two templates
    Role all = {"", NULL, 0, 0};
    DataRow row, seen;
    RowReport report = {0};
    int64_t unfit = 0;  // too long, or of more turns than `single` takes
    while (rows_next(reader, &row)) {
        if (tester && !rows_next(tester, &seen))
            program_error("%s: the two readers disagree at row %lld", path, (long long)row.row);
        if (!lends(s, row.row)) continue;
        row_report_add(&report, &row, path, NULL);
        if (row.state != ROW_OK) continue;
        if (tester && (seen.state != ROW_OK || fnmatch(s->pattern, seen.prompt, 0))) continue;
        if (!fits(s, row.conversation)) {
            unfit++;
            continue;
        }
        role_add(&all, (Row){row_text(&row, row.conversation, s, o->messages), prompt_key(row.conversation), s->kind,
                             s->name});
    }
    row_report_print(&report, o->quiet, stderr);
    rows_close(reader);
    if (tester) rows_close(tester);
    if (!all.n) fatal("%s:%lld: %s gives no row", o->recipe, (long long)s->line, s->file);
    int64_t twice = 0, n = take_rows(s, o, &all, role, taken, &twice);
    free(all.rows);
    if (s->exactly && n < s->most)
        fatal("%s:%lld: %s gives %lld rows; expected exactly %lld", o->recipe, (long long)s->line, s->file,
              (long long)n, (long long)s->most);
    if (!n) fatal("%s:%lld: every prompt of %s is in an earlier line", o->recipe, (long long)s->line, s->file);
    if (!o->quiet) {
        printf("%-10s %-8s %-20s %7lld rows of %s", s->role, s->kind, s->name, (long long)n, s->file);
        if (unfit) printf(", %lld left out that are too long or have more turns", (long long)unfit);
        if (twice) printf(", %lld left out whose prompt is taken", (long long)twice);
        putchar('\n');
    }
    return n;
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

// Rows in a seeded order.
static void write_role(const Role* role, const MixOptions* o) {
    AtomicFile data, labels;
    int* order = host_alloc((size_t)role->n * sizeof *order, "rows");
    random_permutation((uint64_t)o->seed, 1u << 20, order, (int)role->n);
    atomic_open(&data, role_path(role, endings[0], o).s);
    atomic_open(&labels, role_path(role, endings[1], o).s);
    for (int64_t i = 0; i < role->n; i++) {
        const Row* row = &role->rows[order[i]];
        cJSON* label = cJSON_CreateObject();
        cJSON_AddNumberToObject(label, "row", (double)i);
        cJSON_AddStringToObject(label, "kind", row->kind);
        cJSON_AddStringToObject(label, "family", row->name);
        char* label_text = json_text(label);
        atomic_printf(&data, "%s\n", row->text);
        atomic_printf(&labels, "%s\n", label_text);
        free(label_text);
        cJSON_Delete(label);
    }
    atomic_commit(&data);
    atomic_commit(&labels);
    free(order);
}

static void build_command(const MixOptions* o) {
    Role roles[MOST_ROLES] = {0};
    Source sources[MOST_SOURCES];
    Taken taken = {0};
    int n_roles = 0, n_sources = 0;
    size_t length;
    char* text = file_read(o->recipe, 1 << 20, &length);
    int64_t number = 0;
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next) *next++ = 0;
        Source source;
        if (!read_source(&source, line, o->recipe, ++number)) continue;
        if (n_sources == MOST_SOURCES) fatal("%s: more than %d sources", o->recipe, MOST_SOURCES);
        sources[n_sources++] = source;
        read_file(&source, o, role_of(roles, &n_roles, source.role), &taken);
    }
    if (!n_roles) fatal("%s contains no source", o->recipe);
    directory_probe(o->out);
    check_outputs(roles, n_roles, sources, n_sources, o);
    for (int i = 0; i < n_roles; i++) {
        write_role(&roles[i], o);
        if (!o->quiet) printf("wrote %s/%s.jsonl, %lld rows\n", o->out, roles[i].name, (long long)roles[i].n);
        for (int64_t r = 0; r < roles[i].n; r++) free_row(&roles[i].rows[r]);
        free(roles[i].rows);
    }
    for (int64_t i = 0; i < taken.n; i++) free_row(&taken.own[i]);
    free(taken.own);
    set_free(&taken.set);
    free(text);
}

// Every file against all before it. A prompt that a file has twice counts once; returns how many are in two files.
static int64_t overlap_command(const StringList* files) {
    if (files->n < 2) fatal("overlap: name at least two files");
    TextSet set = {0};
    Role keys = {"", NULL, 0, 0};
    int64_t shared = 0, *with = host_alloc((size_t)files->n * sizeof *with, "files");
    for (int f = 0; f < files->n; f++) {
        const StringList one = {&files->items[f], 1};
        const RowOptions options = {.conversations = true, .prompts_only = true};
        TextSet own = {0};
        RowReader* reader = rows_open(&one, &options);
        RowReport report = {0};
        DataRow row;
        memset(with, 0, (size_t)files->n * sizeof *with);
        while (rows_next(reader, &row)) {
            row_report_add(&report, &row, files->items[f], NULL);
            if (row.state != ROW_OK) continue;
            char* key = prompt_key(row.conversation);
            role_add(&keys, (Row){NULL, key, NULL, NULL});
            if (set_add(&own, key, f) >= 0) continue;
            int first = set_add(&set, key, f);
            if (first >= 0) with[first]++;
        }
        row_report_print(&report, true, stderr);
        rows_close(reader);
        set_free(&own);
        for (int g = 0; g < f; g++) {
            if (with[g]) printf("%lld prompts of %s are in %s\n", (long long)with[g], files->items[f], files->items[g]);
            shared += with[g];
        }
    }
    if (!shared) printf("no prompt is in two of %d files: %zu prompts\n", files->n, set.n);
    set_free(&set);
    for (int64_t i = 0; i < keys.n; i++) free_row(&keys.rows[i]);
    free(keys.rows);
    free(with);
    return shared;
}

int main(int argc, char** argv) {
    program_name = "mix";
    MixOptions o;
    StringList positional;
    int command = options_parse(&table, argc, argv, &o, &positional), status = 0;
    if (command == BUILD_COMMAND) build_command(&o);
    else status = overlap_command(&positional) > 0;
    stdout_check();
    options_free(&table, &o, &positional);
    return status;
}
