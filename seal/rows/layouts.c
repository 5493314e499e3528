/*
Field layouts: the table that says which fields of a record are its prompt and its response. The first layout whose
fields are there fits. A row of the table is data, so a new format of the field is a new line here and nothing else.
*/
#include <ctype.h>
#include <stdarg.h>
#include <string.h>
#include <cjson/cJSON.h>
#include "rows/dataset.h"
#include "base/error.h"

typedef enum { FIELDS, TURNS, DIALOGUE } LayoutKind;
typedef struct {
    const char* name;
    LayoutKind kind;
    const char* prompt;  // FIELDS: field of the prompt; TURNS: the list of turns
    const char* extra;   // FIELDS: joined to the prompt with a line end where it is not empty; may be absent where
                         // `extra_needed` is false
    bool extra_needed;
    const char* response;     // FIELDS: field of the response
    bool templated;           // false: the prompt stands as it is
    const char *role, *text;  // TURNS: fields of a turn
} Layout;

// Order matters: a layout with more fields stands before one whose fields are among them. system_prompt rows use the
// question only, as the reference does.
static const Layout layouts[] = {
    {"[system_prompt/]question/response", FIELDS, "question", NULL, false, "response", true, NULL, NULL},
    {"prompt/chosen", FIELDS, "prompt", NULL, false, "chosen", false, NULL, NULL},
    {"prompt/response", FIELDS, "prompt", NULL, false, "response", true, NULL, NULL},
    {"prompt/completion", FIELDS, "prompt", NULL, false, "completion", true, NULL, NULL},
    {"instruction/context/response", FIELDS, "instruction", "context", true, "response", true, NULL, NULL},
    {"instruction/input/output", FIELDS, "instruction", "input", false, "output", true, NULL, NULL},
    {"instruction/input/response", FIELDS, "instruction", "input", false, "response", true, NULL, NULL},
    {"question/answer", FIELDS, "question", NULL, false, "answer", true, NULL, NULL},
    {"conversations from/value", TURNS, "conversations", NULL, false, NULL, true, "from", "value"},
    {"messages role/content", TURNS, "messages", NULL, false, NULL, true, "role", "content"},
    {"chat role/content", TURNS, "chat", NULL, false, NULL, true, "role", "content"},
    {"conversations role/content", TURNS, "conversations", NULL, false, NULL, true, "role", "content"},
    {"dialogue chosen/rejected", DIALOGUE, NULL, NULL, false, "chosen", true, NULL, NULL},
    {"input/output", FIELDS, "input", NULL, false, "output", false, NULL, NULL},
};
#define N_LAYOUTS ((int)(sizeof layouts / sizeof *layouts))

// Who speaks, under the names the formats use.
typedef enum { NOBODY, USER, ASSISTANT, SYSTEM } Speaker;
static const struct {
    const char* name;
    Speaker speaker;
} speakers[] = {
    {"user", USER},         {"human", USER},    {"prompter", USER},   {"assistant", ASSISTANT}, {"gpt", ASSISTANT},
    {"chatgpt", ASSISTANT}, {"bot", ASSISTANT}, {"model", ASSISTANT}, {"system", SYSTEM},
};
static Speaker speaker_of(const char* name) {
    for (size_t i = 0; i < sizeof speakers / sizeof *speakers; i++)
        if (!strcmp(name, speakers[i].name)) return speakers[i].speaker;
    return NOBODY;
}

void layouts_print(FILE* out) {
    for (int i = 0; i < N_LAYOUTS; i++)
        fprintf(out, "  %-34s %s\n", layouts[i].name, layouts[i].templated ? "with the template" : "prompt as it is");
}

// ---------------------------------------------------------------------------------------------------
// fields and templates

__attribute__((format(printf, 2, 3))) static bool bad(DataRow* row, const char* format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(row->why, sizeof row->why, format, args);
    va_end(args);
    row->state = ROW_MALFORMED;
    return false;
}

// The LAST field of that name counts, as in Python. A path as in "messages.0.content" goes into objects and lists.
static const cJSON* field(const cJSON* object, const char* path, size_t n) {
    const char* dot = memchr(path, '.', n);
    size_t m = dot ? (size_t)(dot - path) : n;
    const cJSON *item, *found = NULL;
    int64_t index = 0, at = 0;
    bool number = m > 0 && m < 10;
    for (size_t i = 0; i < m; i++) {
        number &= isdigit((unsigned char)path[i]) != 0;
        index = number ? 10 * index + path[i] - '0' : 0;
    }
    cJSON_ArrayForEach(item, object) {
        if (item->string ? strlen(item->string) == m && !memcmp(item->string, path, m) : number && at == index)
            found = item;
        at++;
    }
    return found && dot ? field(found, dot + 1, n - m - 1) : found;
}
static const cJSON* named(const cJSON* object, const char* name) { return field(object, name, strlen(name)); }

static bool is_text(const cJSON* value) { return cJSON_IsString(value) || cJSON_IsNull(value); }

// Adds a field's text: strings as they are, numbers and truth values as JSON writes them, null as nothing.
static bool add_value(const cJSON* value, const char* name, size_t n, DataRow* row, Text* out) {
    int length = (int)(n < 60 ? n : 60);
    if (!value) return bad(row, "has no field \"%.*s\"", length, name);
    if (cJSON_IsString(value)) text_add(out, value->valuestring, strlen(value->valuestring));
    else if (cJSON_IsBool(value)) text_add(out, cJSON_IsTrue(value) ? "true" : "false", cJSON_IsTrue(value) ? 4 : 5);
    else if (cJSON_IsNumber(value)) {
        char number[40];
        text_add(out, number, (size_t)snprintf(number, sizeof number, "%.15g", value->valuedouble));
    } else if (!cJSON_IsNull(value)) return bad(row, "field \"%.*s\" is not a text", length, name);
    return true;
}

// --template and its kin come from a shell: \n, \t and \\ mean what they mean in C.
static size_t unescape(const char* s, char* c) {
    const char* at = *s == '\\' && s[1] ? strchr("nntt\\\\", s[1]) : NULL;
    *c = !at ? *s : s[1] == 'n' ? '\n' : s[1] == 't' ? '\t' : '\\';
    return at ? 2 : 1;
}

// {name} is a field, {{ and }} are braces. A text without braces is a field's bare name.
static bool add_fields(const cJSON* fields, const char* template, DataRow* row, Text* out) {
    if (!strchr(template, '{')) return add_value(named(fields, template), template, strlen(template), row, out);
    for (const char* s = template; *s;) {
        const char* end = *s == '{' && s[1] != '{' ? strchr(s, '}') : NULL;
        char c;
        if (end) {
            size_t n = (size_t)(end - s - 1);
            if (!add_value(field(fields, s + 1, n), s + 1, n, row, out)) return false;
            s = end + 1;
            continue;
        }
        size_t width = unescape(s, &c);
        if (width == 1 && (c == '{' || c == '}') && s[1] == c) width = 2;
        text_add(out, &c, 1);
        s += width;
    }
    return true;
}

// The template with the prompt in place of {prompt}; everything else stands as it is.
static void add_templated(const char* template, const char* prompt, size_t n, Text* out) {
    if (!template) template = TEMPLATE_DEFAULT;
    for (const char* s = template; *s;) {
        char c;
        if (!strncmp(s, "{prompt}", 8)) {
            text_add(out, prompt, n);
            s += 8;
            continue;
        }
        s += unescape(s, &c);
        text_add(out, &c, 1);
    }
}

void row_options_check(const RowOptions* options) {
    if (options->prompt_template && !strstr(options->prompt_template, "{prompt}"))
        fatal("--template \"%s\" does not contain {prompt}", options->prompt_template);
    const char* const given[2][2] = {{"--prompt-field", options->prompt_field},
                                     {"--response-field", options->response_field}};
    for (int i = 0; i < 2; i++) {
        if (!given[i][1]) continue;
        if (!*given[i][1]) fatal("%s is empty; expected the name of a field or a text with {fields}", given[i][0]);
        for (const char* s = given[i][1]; (s = strchr(s, '{'));) {
            if (s[1] == '{') {
                s += 2;
                continue;
            }
            const char* end = strchr(s, '}');
            if (!end || end == s + 1)
                fatal("%s \"%s\": unmatched '{' at character %d; write {field}", given[i][0], given[i][1],
                      (int)(s - given[i][1]) + 1);
            s = end;
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// turns

// A turn of the prompt: a user's through the template, any other's as text and a line end (the reference's rendering);
// or each with its role.
static void add_turn(Speaker speaker, const char* text, size_t n, const RowOptions* options, Text* out) {
    if (options->turns) {
        const char* role = speaker == USER ? "user" : speaker == ASSISTANT ? "assistant" : "system";
        text_add(out, role, strlen(role) + 1);
        text_add(out, text, n);
        text_add(out, "", 1);
    } else if (speaker == USER) add_templated(options->prompt_template, text, n, out);
    else {
        text_add(out, text, n);
        text_add(out, "\n", 1);
    }
}

// The response is the last turn, which must be the assistant's; what stands before it is the prompt.
static bool extract_turns(const Layout* layout, const cJSON* fields, const RowOptions* options, DataRow* row,
                          Text* prompt, Text* response) {
    const cJSON *list = named(fields, layout->prompt), *turn;
    int turns = 0, users = 0;
    cJSON_ArrayForEach(turn, list) {
        const cJSON *role = named(turn, layout->role), *text = named(turn, layout->text);
        turns++;
        if (!cJSON_IsString(role)) return bad(row, "turn %d has no \"%s\"", turns, layout->role);
        if (!is_text(text)) return bad(row, "turn %d has no text in \"%s\"", turns, layout->text);
        Speaker speaker = speaker_of(role->valuestring);
        const char* s = cJSON_IsString(text) ? text->valuestring : "";
        if (speaker == NOBODY)
            return bad(row, "turn %d: \"%.40s\" is neither user, assistant nor system", turns, role->valuestring);
        if (turn->next || (options->prompts_only && speaker != ASSISTANT))
            add_turn(speaker, s, strlen(s), options, prompt);
        else if (speaker != ASSISTANT) return bad(row, "the last turn is not the assistant's");
        else text_add(response, s, strlen(s));
        if (speaker == USER) users += *s != 0;
    }
    if (!turns) return bad(row, "\"%s\" holds no turns", layout->prompt);
    if (!users) row->state = ROW_EMPTY_PROMPT;
    return true;
}

// "\n\nHuman: …\n\nAssistant: …" as in Anthropic's HH; a turn's one leading space belongs to the marker.
static const struct {
    const char* mark;
    Speaker speaker;
} marks[] = {{"\n\nHuman:", USER}, {"\n\nAssistant:", ASSISTANT}};

static const char* next_mark(const char* s, Speaker* speaker, size_t* width) {
    const char* first = NULL;
    for (int m = 0; m < 2; m++) {
        const char* at = strstr(s, marks[m].mark);
        if (at && (!first || at < first)) {
            first = at;
            *speaker = marks[m].speaker;
            *width = strlen(marks[m].mark);
        }
    }
    return first;
}

static bool is_dialogue(const char* s) { return !strncmp(s, marks[0].mark, 8); }

static bool extract_dialogue(const char* s, const RowOptions* options, DataRow* row, Text* prompt, Text* response) {
    Speaker speaker = NOBODY, next = NOBODY;
    size_t width = 0, next_width = 0;
    bool user = false;
    const char* at = next_mark(s, &speaker, &width);
    while (at) {
        const char* text = at + width + (at[width] == ' ');
        const char* end = next_mark(at + width, &next, &next_width);
        size_t n = end ? (size_t)(end - text) : strlen(text);
        if (end && end < text) n = 0;
        user |= speaker == USER && n > 0;
        if (end || (options->prompts_only && speaker != ASSISTANT)) add_turn(speaker, text, n, options, prompt);
        else if (speaker != ASSISTANT) return bad(row, "the dialogue does not end with the assistant");
        else text_add(response, text, n);
        at = end;
        speaker = next;
        width = next_width;
    }
    if (!user) row->state = ROW_EMPTY_PROMPT;
    return true;
}

// ---------------------------------------------------------------------------------------------------
// a row

// How much of a layout must be there. A field named by an option, or a response nobody asks for, need not be: then a
// layout that lacks only that serves.
typedef enum { COMPLETE, TEMPLATED_PROMPT, ANY_PROMPT, FITS } Fit;

static bool fits(const Layout* l, const cJSON* fields, const RowOptions* options, Fit fit) {
    if (options->prompt_field)
        return l->kind == FIELDS && is_text(named(fields, l->response));  // serves for its response only
    bool response = fit != COMPLETE || !l->response || is_text(named(fields, l->response));
    if (fit == TEMPLATED_PROMPT && !l->templated) return false;
    if (l->kind == TURNS) {
        const cJSON* list = named(fields, l->prompt);
        return cJSON_IsArray(list) && (!list->child || named(list->child, l->role));
    }
    if (l->kind == DIALOGUE) {
        const char* name = options->response_field && !strchr(options->response_field, '{') ? options->response_field
                                                                                            : l->response;
        const cJSON* text = named(fields, name);
        return cJSON_IsString(text) && is_dialogue(text->valuestring);
    }
    return response && is_text(named(fields, l->prompt)) && (!l->extra_needed || is_text(named(fields, l->extra)));
}

// l is NULL where the options name both fields.
static bool extract_fields(const Layout* l, const cJSON* fields, const RowOptions* options, DataRow* row, Text* prompt,
                           Text* response) {
    Text raw = {0};
    text_add(&raw, "", 0);
    bool good = true;
    if (options->prompt_field) good = add_fields(fields, options->prompt_field, row, &raw);
    else {
        add_value(named(fields, l->prompt), l->prompt, strlen(l->prompt), row, &raw);
        const cJSON* extra = l->extra ? named(fields, l->extra) : NULL;
        if (cJSON_IsString(extra) && *extra->valuestring) {
            text_add(&raw, "\n", 1);
            text_add(&raw, extra->valuestring, strlen(extra->valuestring));
        }
    }
    const char* name = options->response_field ? options->response_field : l ? l->response : NULL;
    if (good && name && (!options->prompts_only || named(fields, name))) good = add_fields(fields, name, row, response);
    if (good && !raw.n) row->state = ROW_EMPTY_PROMPT;
    if (options->turns) add_turn(USER, raw.s, raw.n, options, prompt);
    else if (!l || l->templated || options->prompt_field) add_templated(options->prompt_template, raw.s, raw.n, prompt);
    else text_add(prompt, raw.s, raw.n);
    text_free(&raw);
    return good;
}

static bool name_fields(const cJSON* fields, DataRow* row) {
    char names[120] = "";
    size_t n = 0;
    const cJSON* item;
    cJSON_ArrayForEach(item, fields) if (n < sizeof names - 1)  // a list may be turns; a number or an object is no text
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%.30s%s", n ? ", " : "", item->string ? item->string : "",
                              is_text(item) || cJSON_IsArray(item) ? "" : " (not a text)");
    return bad(row, "fits no layout; its fields: %s", *names ? names : "none");
}

void row_extract(const cJSON* fields, const RowOptions* options, DataRow* row, Text* prompt, Text* response) {
    const Layout* l = NULL;
    row->state = ROW_OK;
    bool no_response = options->prompts_only || options->response_field, own = options->prompt_field && no_response;
    for (Fit fit = COMPLETE; fit < (no_response ? FITS : TEMPLATED_PROMPT) && !l && !own; fit++)
        for (int i = 0; i < N_LAYOUTS && !l; i++)
            if (fits(&layouts[i], fields, options, fit)) l = &layouts[i];
    bool good;
    row->layout = l ? l->name : "fields given";
    if (!l && !own) good = name_fields(fields, row);
    else if (!l || l->kind == FIELDS) good = extract_fields(l, fields, options, row, prompt, response);
    else {
        Text text = {0};
        if (l->kind == TURNS) good = extract_turns(l, fields, options, row, prompt, response);
        else if ((good = add_fields(fields, options->response_field ? options->response_field : l->response, row,
                                    &text)))
            good = extract_dialogue(text.s, options, row, prompt, response);
        if (good && l->kind == TURNS && options->response_field) {
            response->n = 0;
            text_add(response, "", 0);
            good = add_fields(fields, options->response_field, row, response);
        }
        text_free(&text);
    }
    if (good && row->state == ROW_OK && !options->prompts_only && !response->n) row->state = ROW_EMPTY_RESPONSE;
}
