/*
Field layouts: the table that says which fields of a record are its prompt and its response. The first layout whose
fields are there fits. A row of the table is data, so a new format of the field is a new line here and nothing else. A
record becomes a conversation (messages.h), and a conversation the reference's text.
*/
#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <strings.h>
#include <cjson/cJSON.h>
#include "base/error.h"
#include "rows/layouts.h"
#include "rows/records.h"

typedef enum { FIELDS, TURNS, DIALOGUE } LayoutKind;
typedef struct {
    const char* name;
    LayoutKind kind;
    const char* prompt;  // FIELDS: field of the prompt; TURNS: the list of turns
    const char* extra;   // FIELDS: joined to the prompt with a line end where it is not empty; may be absent where
                         // `extra_needed` is false
    bool extra_needed;
    const char* response;  // FIELDS: field of the response
    bool templated;        // false: the prompt is taken as it is
} Layout;

// Order matters: a layout with more fields comes before one whose fields are among them. A prompt or a response may be
// a list of turns instead of a text.
static const Layout layouts[] = {
    {"[system_prompt/]question/response", FIELDS, "question", NULL, false, "response", true},
    {"prompt/chosen", FIELDS, "prompt", NULL, false, "chosen", false},
    {"prompt/response", FIELDS, "prompt", NULL, false, "response", true},
    {"prompt/completion", FIELDS, "prompt", NULL, false, "completion", true},
    {"instruction/context/response", FIELDS, "instruction", "context", true, "response", true},
    {"instruction/input/output", FIELDS, "instruction", "input", false, "output", true},
    {"instruction/input/response", FIELDS, "instruction", "input", false, "response", true},
    {"question/answer", FIELDS, "question", NULL, false, "answer", true},
    {"query/response", FIELDS, "query", NULL, false, "response", true},
    {"query/answer", FIELDS, "query", NULL, false, "answer", true},
    {"problem/solution", FIELDS, "problem", NULL, false, "solution", true},
    {"inputs/targets", FIELDS, "inputs", NULL, false, "targets", true},
    {"instruction/input/chosen", FIELDS, "instruction", "input", false, "chosen", true},
    {"question/chosen", FIELDS, "question", NULL, false, "chosen", true},
    {"conversations", TURNS, "conversations", NULL, false, NULL, true},
    {"messages", TURNS, "messages", NULL, false, NULL, true},
    {"chat", TURNS, "chat", NULL, false, NULL, true},
    {"conversation", TURNS, "conversation", NULL, false, NULL, true},
    {"dialog", TURNS, "dialog", NULL, false, NULL, true},
    {"dialogue", TURNS, "dialogue", NULL, false, NULL, true},
    {"data", TURNS, "data", NULL, false, NULL, true},
    {"dialogue chosen/rejected", DIALOGUE, NULL, NULL, false, "chosen", true},
    {"chosen", TURNS, "chosen", NULL, false, NULL, true},
    {"input/output", FIELDS, "input", NULL, false, "output", false},
};
#define N_LAYOUTS ((int)(sizeof layouts / sizeof *layouts))

bool layouts_know(const char* name) {
    for (int i = 0; i < N_LAYOUTS; i++) {
        const char* const names[] = {layouts[i].prompt, layouts[i].extra, layouts[i].response};
        if (!strcmp(layouts[i].name, "data")) continue;  // more often a file's list of rows than a row's list of turns
        for (int k = 0; k < 3; k++)
            if (names[k] && !strcasecmp(name, names[k])) return true;
    }
    return !strcasecmp(name, "rejected") || !strcasecmp(name, "system") || !strcasecmp(name, "history");
}

// ---------------------------------------------------------------------------------------------------
// fields and templates

bool row_bad(DataRow* row, const char* format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(row->why, sizeof row->why, format, args);
    va_end(args);
    row->state = ROW_MALFORMED;
    return false;
}

// A path as in "messages.0.content" goes into objects and lists.
static const cJSON* field(const cJSON* object, const char* path, size_t n) {
    const char* dot = memchr(path, '.', n);
    size_t m = dot ? (size_t)(dot - path) : n;
    const cJSON *item, *found = NULL, *similar = NULL;
    int64_t index = 0, at = 0;
    bool number = m > 0 && m < 10;
    for (size_t i = 0; i < m; i++) {
        number &= isdigit((unsigned char)path[i]) != 0;
        index = number ? 10 * index + path[i] - '0' : 0;
    }
    cJSON_ArrayForEach(item, object) {
        if (item->string ? strlen(item->string) == m && !memcmp(item->string, path, m) : number && at == index)
            found = item;
        else if (item->string && strlen(item->string) == m && !strncasecmp(item->string, path, m)) similar = item;
        at++;
    }
    if (!found) found = similar;
    return found && dot ? field(found, dot + 1, n - m - 1) : found;
}
const cJSON* record_field(const cJSON* object, const char* name) { return field(object, name, strlen(name)); }

const char* value_text(const cJSON* value) {
    // a number's text was put beside it when the record was parsed (json_parse)
    return cJSON_IsString(value) || (cJSON_IsNumber(value) && isfinite(value->valuedouble)) ? value->valuestring : NULL;
}
static bool is_text(const cJSON* value) { return cJSON_IsNull(value) || value_text(value); }
// An answer that is a number is more often a label or a score than a text, so a layout's response must be a text.
static bool is_answer(const cJSON* value) { return cJSON_IsNull(value) || cJSON_IsString(value) || holds_turns(value); }

// Adds a field's text: strings and numbers as they are, truth values as JSON writes them, null as nothing.
static bool add_value(const cJSON* value, const char* name, size_t n, DataRow* row, Text* out) {
    int length = (int)(n < 60 ? n : 60);
    const char* text = value_text(value);
    if (!value) return row_bad(row, "has no field \"%.*s\"", length, name);
    if (cJSON_IsBool(value)) text = cJSON_IsTrue(value) ? "true" : "false";
    if (text) text_add(out, text, strlen(text));
    else if (!cJSON_IsNull(value))
        return row_bad(row, "field \"%.*s\" is not a text but %s", length, name, json_kind(value));
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
    if (!strchr(template, '{')) return add_value(record_field(fields, template), template, strlen(template), row, out);
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

// The template with the prompt in place of {prompt}; everything else stays as it is.
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
// a record's conversation

static void mark_read(Conversation* c, const char* name) {
    if (c->n_read < (int)(sizeof c->read / sizeof *c->read)) c->read[c->n_read++] = name;
}

// A text, a number or null as a message; turns as many. False with row->why.
static bool add_message(Conversation* c, MessageRole role, const cJSON* value, const char* name, DataRow* row) {
    if (holds_turns(value)) return turns_read(c, value, name, row);
    const char* text = value_text(value);
    if (!text && !cJSON_IsNull(value))
        return row_bad(row, "field \"%.60s\" is not a text but %s", name, json_kind(value));
    conversation_add(c, role, text ? text : "", text ? strlen(text) : 0);
    return true;
}

// Turns before the prompt: [[question, answer], …], as Alpaca's kin have them.
static bool add_history(Conversation* c, const cJSON* history, DataRow* row) {
    const cJSON* pair;
    if (cJSON_IsString(history) && !*history->valuestring) return true;
    if (!cJSON_IsArray(history)) return row_bad(row, "\"history\" is %s, not a list of pairs", json_kind(history));
    cJSON_ArrayForEach(pair, history) {
        const cJSON *question = cJSON_GetArrayItem(pair, 0), *answer = cJSON_GetArrayItem(pair, 1);
        if (!cJSON_IsArray(pair) || cJSON_GetArraySize(pair) != 2 || !is_text(question) || !is_text(answer))
            return row_bad(row, "\"history\" holds something else than pairs of a question and an answer");
        add_message(c, ROLE_USER, question, "history", row);
        add_message(c, ROLE_ASSISTANT, answer, "history", row);
    }
    return true;
}

// What a table's column holds as JSON in a text: the value where the text begins with this bracket.
static const cJSON* parsed_text(Conversation* c, const cJSON* value, char bracket) {
    char why[200];
    if (!cJSON_IsString(value) || *value->valuestring != bracket || strstr(value->valuestring, "\\u0000")) return value;
    cJSON* parsed = json_parse(value->valuestring, strlen(value->valuestring), why, sizeof why);
    if (!parsed) return value;
    if (!c->made) c->made = cJSON_CreateArray();
    cJSON_AddItemToArray(c->made, parsed);
    return parsed;
}

// What a record says beside its turns. Where the turns begin with a system text of their own, that one counts.
static bool add_fields_beside(Conversation* c, const cJSON* fields, const cJSON* turns, DataRow* row) {
    static const char* const names[] = {"system", "system_prompt"};
    const cJSON *history = record_field(fields, "history"), *tools = record_field(fields, "tools"),
                *variables = record_field(fields, "chat_template_kwargs");
    const char* role = cJSON_GetStringValue(record_field(turns ? turns->child : NULL, "role"));
    if (!role && turns) role = cJSON_GetStringValue(record_field(turns->child, "from"));
    for (int i = 0; i < 2 && !c->n && !(role && !strcasecmp(role, "system")); i++) {
        const cJSON* text = record_field(fields, names[i]);
        if (!text) continue;
        const char* s = content_text(c, text);
        if (!s && !cJSON_IsNull(text))
            return row_bad(row, "field \"%s\" is not a text but %s", names[i], json_kind(text));
        if (!s || !*s) continue;
        mark_read(c, names[i]);
        c->system_prompt = i == 1;
        conversation_add(c, ROLE_SYSTEM, s, strlen(s));
    }
    if (history && !cJSON_IsNull(history)) {
        mark_read(c, "history");
        if (!add_history(c, history, row)) return false;
    }
    tools = parsed_text(c, tools, '[');
    variables = parsed_text(c, variables, '{');
    if (cJSON_IsArray(tools)) {
        mark_read(c, "tools");
        c->tools = tools;  // an empty list, too: to a template it is not the same as none
    }
    if (cJSON_IsObject(variables)) {
        mark_read(c, "chat_template_kwargs");
        c->variables = variables;
    }
    return true;
}

// Whether the list begins with what c holds already from message `from` on: a preference's side that repeats its
// prompt.
static bool repeats(const Conversation* c, int from, const cJSON* list) {
    Conversation whole = {0};
    DataRow none = {0};
    bool same = turns_read(&whole, list, "", &none) && whole.n > c->n - from;
    for (int i = from; i < c->n && same; i++) {
        const Message *a = &c->messages[i], *b = &whole.messages[i - from];
        same = a->role == b->role && !strcmp(a->content, b->content);
    }
    conversation_free(&whole);
    return same;
}

// The response: a text, or turns, which may repeat the prompt (messages from `prompt` on).
static bool add_response(Conversation* c, const cJSON* value, const char* name, int prompt, DataRow* row) {
    if (holds_turns(value) && repeats(c, prompt, value)) c->n = prompt;
    return add_message(c, ROLE_ASSISTANT, value, name, row);
}

// l is NULL where the options name both fields.
static bool extract_fields(const Layout* l, const cJSON* fields, const RowOptions* options, DataRow* row,
                           Conversation* c) {
    const char* name = options->response_field ? options->response_field : l ? l->response : NULL;
    const cJSON* response = name ? record_field(fields, name) : NULL;
    if (options->prompt_field) {
        Text raw = {0};
        text_add(&raw, "", 0);
        bool good = add_fields(fields, options->prompt_field, row, &raw);
        if (good) conversation_add(c, ROLE_USER, conversation_keep(c, raw.s, raw.n), raw.n);
        text_free(&raw);
        if (!good) return false;
    } else {
        const cJSON *prompt = record_field(fields, l->prompt),
                    *extra = l->extra ? record_field(fields, l->extra) : NULL;
        bool turns = holds_turns(prompt);
        c->as_it_is = !l->templated && !turns && !holds_turns(response);
        if (!c->as_it_is && !add_fields_beside(c, fields, turns ? prompt : NULL, row)) return false;
        int from = c->n;
        mark_read(c, l->prompt);
        if (!add_message(c, ROLE_USER, prompt, l->prompt, row)) return false;
        if (extra && !turns) {
            const char* s = value_text(extra);
            if (!s && !cJSON_IsNull(extra))
                return row_bad(row, "field \"%s\" is not a text but %s", l->extra, json_kind(extra));
            mark_read(c, l->extra);
            if (s && *s) {
                Message* m = &c->messages[c->n - 1];
                Text joined = {0};
                text_add(&joined, m->content, m->length);
                text_add(&joined, "\n", 1);
                text_add(&joined, s, strlen(s));
                m->length = joined.n;
                m->content = conversation_keep(c, joined.s, joined.n);
                text_free(&joined);
            }
        }
        if (response && holds_turns(response)) {
            int asked = c->n;
            mark_read(c, name);
            if (!add_response(c, response, name, from, row)) return false;
            for (int i = from; turns && i < asked; i++) c->messages[i].weight = 0.0;  // a prompt's answers are given
            if (turns) c->asked = asked;
            return true;
        }
    }
    if (!name || (options->prompts_only && !response)) return true;
    mark_read(c, name);
    if (holds_turns(response)) return add_response(c, response, name, 0, row);
    Text text = {0};
    text_add(&text, "", 0);
    bool good = add_fields(fields, name, row, &text);
    if (good) conversation_add(c, ROLE_ASSISTANT, conversation_keep(c, text.s, text.n), text.n);
    text_free(&text);
    return good;
}

static bool extract_turns(const Layout* l, const cJSON* fields, const RowOptions* options, DataRow* row,
                          Conversation* c) {
    const char* name = options->response_field;
    const cJSON *list = record_field(fields, l->prompt), *other = name ? record_field(fields, name) : NULL;
    bool side = !strcmp(l->prompt, "chosen") && holds_turns(other);  // of two conversations, the one asked for
    mark_read(c, l->prompt);
    if (!add_fields_beside(c, fields, side ? other : list, row)) return false;
    int from = c->n;
    if (!turns_read(c, side ? other : list, l->prompt, row)) return false;
    if (!name && c->messages[c->n - 1].role != ROLE_ASSISTANT && !options->prompts_only) {
        const cJSON* chosen = record_field(fields, "chosen");  // turns that end with the user, and two answers to them
        if (!chosen || !is_answer(chosen)) return true;
        mark_read(c, "chosen");
        mark_read(c, "rejected");
        return add_response(c, chosen, "chosen", from, row);
    }
    if (!name || side) return true;
    mark_read(c, name);
    if (c->messages[c->n - 1].role == ROLE_ASSISTANT) c->n--;  // another answer takes its place
    if (holds_turns(other)) return add_response(c, other, name, from, row);
    Text text = {0};
    text_add(&text, "", 0);
    bool good = add_fields(fields, name, row, &text);
    if (good) conversation_add(c, ROLE_ASSISTANT, conversation_keep(c, text.s, text.n), text.n);
    text_free(&text);
    return good;
}

// "\n\nHuman: …\n\nAssistant: …" as in Anthropic's HH; a turn's one leading space belongs to the marker.
static const struct {
    const char* mark;
    MessageRole role;
} marks[] = {{"\n\nHuman:", ROLE_USER}, {"\n\nAssistant:", ROLE_ASSISTANT}};

static const char* next_mark(const char* s, MessageRole* role, size_t* width) {
    const char* first = NULL;
    for (int m = 0; m < 2; m++) {
        const char* at = strstr(s, marks[m].mark);
        if (at && (!first || at < first)) {
            first = at;
            *role = marks[m].role;
            *width = strlen(marks[m].mark);
        }
    }
    return first;
}

// Some copies lack the two line ends at the beginning.
static bool is_dialogue(const char* s) {
    return !strncmp(s, marks[0].mark, 8) || (!strncmp(s, marks[0].mark + 2, 6) && strstr(s, marks[1].mark));
}

static bool extract_dialogue(const Layout* l, const cJSON* fields, const RowOptions* options, DataRow* row,
                             Conversation* c) {
    Text whole = {0};
    MessageRole role = ROLE_USER, next = ROLE_USER;
    size_t width = 0, next_width = 0;
    const char* name = options->response_field ? options->response_field : l->response;
    mark_read(c, name);
    const char* given = cJSON_GetStringValue(record_field(fields, name));
    if (given && *given != '\n') text_add(&whole, "\n\n", 2);
    if (!add_fields_beside(c, fields, NULL, row) || !add_fields(fields, name, row, &whole)) {
        text_free(&whole);
        return false;
    }
    const char* at = whole.s ? next_mark(whole.s, &role, &width) : NULL;
    while (at) {
        const char* text = at + width + (at[width] == ' ');
        const char* end = next_mark(at + width, &next, &next_width);
        size_t n = end && end < text ? 0 : end ? (size_t)(end - text) : strlen(text);
        conversation_add(c, role, conversation_keep(c, text, n), n)->turn = c->n;
        at = end;
        role = next;
        width = next_width;
    }
    text_free(&whole);
    return true;
}

// ---------------------------------------------------------------------------------------------------
// the layout that fits

// How much of a layout must be there. A field named by an option, or a response nobody asks for, need not be: then a
// layout that lacks only that fits.
typedef enum { COMPLETE, TEMPLATED_PROMPT, ANY_PROMPT, FITS } Fit;

static bool fits(const Layout* l, const cJSON* fields, const RowOptions* options, Fit fit) {
    const cJSON *prompt = l->prompt ? record_field(fields, l->prompt) : NULL,
                *given = l->response ? record_field(fields, l->response) : NULL;
    if (options->prompt_field) return l->kind == FIELDS && is_answer(given);  // counts for its response only
    bool response = fit != COMPLETE || !l->response || is_answer(given);
    if (fit == TEMPLATED_PROMPT && !l->templated) return false;
    if (l->kind == TURNS)
        return holds_turns(prompt) ||
               (cJSON_IsArray(prompt) &&
                (!prompt->child || record_field(prompt->child, "role") || record_field(prompt->child, "from")));
    if (l->kind == DIALOGUE) {
        const char* name = options->response_field && !strchr(options->response_field, '{') ? options->response_field
                                                                                            : l->response;
        const cJSON* text = record_field(fields, name);
        return cJSON_IsString(text) && is_dialogue(text->valuestring);
    }
    return response && (is_text(prompt) || holds_turns(prompt)) && (!l->extra_needed || record_field(fields, l->extra));
}

static bool has_null(const Layout* l, const cJSON* fields, Fit fit) {
    return (l->prompt && cJSON_IsNull(record_field(fields, l->prompt))) ||
           (fit == COMPLETE && l->response && cJSON_IsNull(record_field(fields, l->response)));
}

static bool name_fields(const cJSON* fields, DataRow* row) {
    for (int i = 0; i < N_LAYOUTS; i++) {
        const char* text = layouts[i].kind == TURNS ? cJSON_GetStringValue(record_field(fields, layouts[i].prompt))
                                                    : "";
        if (text && *text == '[')
            return row_bad(row, "field \"%s\" is a text that is not a JSON list of turns (Python's repr of one?)",
                           layouts[i].prompt);
    }
    char names[120] = "";
    size_t n = 0;
    const cJSON* item;
    cJSON_ArrayForEach(item, fields) if (n < sizeof names - 1)  // a list may be turns; an object is not text
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%.30s%s", n ? ", " : "", item->string ? item->string : "",
                              is_answer(item) || cJSON_IsArray(item) ? "" : " (not a text)");
    return row_bad(row, "fits no layout; its fields: %s", *names ? names : "none");
}

// The reference's text knows three speakers.
static bool check_speakers(const Conversation* c, DataRow* row) {
    for (int i = 0; i < c->n; i++) {
        const Message* m = &c->messages[i];
        if (m->role > ROLE_ASSISTANT || m->call)
            return row_bad(row, "turn %d: \"%.40s\" is neither user, assistant nor system", m->turn, m->spelled);
    }
    return true;
}

// Whether the end of the conversation is what the options ask for.
static bool check_end(Conversation* c, const Layout* l, const RowOptions* options, DataRow* row) {
    bool user = false;
    for (int i = 0; i < c->n; i++) user |= c->messages[i].role == ROLE_USER && c->messages[i].length;
    c->answered = c->n && c->messages[c->n - 1].role == ROLE_ASSISTANT;
    if (!c->answered && !options->prompts_only && c->n)
        return row_bad(row, l && l->kind == DIALOGUE ? "the dialogue does not end with the assistant"
                                                     : "the last turn is not the assistant's");
    if (!user) row->state = ROW_EMPTY_PROMPT;
    return true;
}

void conversation_read(Conversation* c, cJSON* fields, const RowOptions* options, DataRow* row) {
    const Layout* l = NULL;
    c->record = fields;
    c->weight = 1.0;
    row->state = ROW_OK;
    bool no_response = options->prompts_only || options->response_field, own = options->prompt_field && no_response;
    cJSON* item;
    cJSON_ArrayForEach(item, fields) {
        bool turns = false, known = false;
        if (cJSON_IsString(item) && *item->valuestring != '[' && !is_space((unsigned char)*item->valuestring)) continue;
        for (int i = 0; i < N_LAYOUTS; i++) {
            const char *prompt = layouts[i].prompt, *response = layouts[i].response;
            bool same = prompt && !strcasecmp(item->string, prompt);
            known |= same || (response && !strcasecmp(item->string, response));
            turns |= same && layouts[i].kind == TURNS && strcmp(prompt, "chosen") != 0;
        }
        known |= !strcasecmp(item->string, "rejected");
        if (known) turns_unfold(item, turns);
    }
    // Files of several sources name the fields of all of them in every row: a layout whose fields say something counts
    // before one whose fields are null.
    for (int nulls = 0; nulls < 2; nulls++)
        for (Fit fit = COMPLETE; fit < (no_response ? FITS : TEMPLATED_PROMPT) && !l && !own; fit++)
            for (int i = 0; i < N_LAYOUTS && !l; i++)
                if ((nulls || !has_null(&layouts[i], fields, fit)) && fits(&layouts[i], fields, options, fit))
                    l = &layouts[i];
    row->layout = l ? l->name : "fields given";
    if (!l && !own) {
        name_fields(fields, row);
        return;
    }
    const cJSON* weight = record_field(fields, "weight");
    if ((cJSON_IsNumber(weight) || cJSON_IsBool(weight)) && !weight_of(weight, &c->weight)) {
        row_bad(row, "its \"weight\" is %.20s; a weight is 0 or more",
                weight->valuestring ? weight->valuestring : "not finite");
        return;
    }
    if (l && (!strcmp(l->prompt ? l->prompt : "", "chosen") || (l->response && !strcmp(l->response, "chosen")))) {
        mark_read(c, "chosen");  // the other side of a preference is not forgotten but not asked for
        mark_read(c, "rejected");
    }
    bool good = !l || l->kind == FIELDS ? extract_fields(l, fields, options, row, c)
                : l->kind == TURNS      ? extract_turns(l, fields, options, row, c)
                                        : extract_dialogue(l, fields, options, row, c);
    if (good && (options->conversations || check_speakers(c, row)) && check_end(c, l, options, row) &&
        row->state == ROW_OK && !options->prompts_only) {
        const Message* answer = &c->messages[c->n - 1];
        bool empty = !c->n || (!answer->length && !record_field(answer->fields, "tool_calls"));
        if (empty) row->state = ROW_EMPTY_RESPONSE;
    }
}

// ---------------------------------------------------------------------------------------------------
// the reference's text

// Consecutive messages of one speaker, joined with line ends, from *i on.
static void join_messages(const Conversation* c, int* i, int end, Text* out) {
    MessageRole role = c->messages[*i].role;
    out->n = 0;
    text_add(out, "", 0);
    for (; *i < end && c->messages[*i].role == role; (*i)++) {
        if (out->n && c->messages[*i].length) text_add(out, "\n", 1);
        text_add(out, c->messages[*i].content, c->messages[*i].length);
    }
}

void conversation_plain(const Conversation* c, const RowOptions* options, DataRow* row, Text* prompt, Text* response) {
    int end = c->n - c->answered;  // the answer is the last turn, no matter who spoke before it
    Text joined = {0};
    for (int i = c->system_prompt && !options->turns; i < end;) {  // the reference leaves system_prompt out
        const Message* m = &c->messages[i];
        if (options->turns) {
            text_add(prompt, m->role_name, strlen(m->role_name) + 1);
            text_add(prompt, m->content, m->length);
            text_add(prompt, "", 1);
            i++;
            continue;
        }
        join_messages(c, &i, end, &joined);
        if (m->role == ROLE_USER && !c->as_it_is) add_templated(options->prompt_template, joined.s, joined.n, prompt);
        else text_add(prompt, joined.s, joined.n);
        if (m->role != ROLE_USER) text_add(prompt, "\n", 1);
    }
    if (c->answered) text_add(response, c->messages[end].content, c->messages[end].length);
    text_free(&joined);
    if (row->state == ROW_OK && !options->prompts_only && !response->n) row->state = ROW_EMPTY_RESPONSE;
}

// ---------------------------------------------------------------------------------------------------
// what nobody reads

static bool holds_text(const cJSON* value) {
    const cJSON* item;
    if (cJSON_IsString(value)) return *value->valuestring != 0;
    if (!cJSON_IsArray(value) && !cJSON_IsObject(value)) return false;
    cJSON_ArrayForEach(item, value) if (holds_text(item)) return true;
    return false;
}

// Whether what the options choose to write conversations with uses this field.
static bool is_used(const RowOptions* options, const char* field) {
    return options->conversations && (!options->uses || options->uses(options->format, field));
}

void conversation_unread(const Conversation* c, const RowOptions* options, RowReport* report) {
    const cJSON* item;
    char name[80];
    if (options->prompt_field) return;  // the user chose what is read
    cJSON_ArrayForEach(item, c->record) {
        bool read = false;
        for (int i = 0; i < c->n_read && !read; i++) read = !strcasecmp(item->string, c->read[i]);
        if (read && c->system_prompt && !options->turns && !options->conversations)
            read = strcasecmp(item->string, "system_prompt") != 0;
        if (read && c->tools && !is_used(options, "tools")) read = strcasecmp(item->string, "tools") != 0;
        // false or true for a name that the template reads is meant for it
        bool meant = (cJSON_IsBool(item) && options->uses && is_used(options, item->string)) ||
                     (item->child && !strcasecmp(item->string, "chat_template_kwargs"));
        if (!read && (holds_text(item) || meant))
            row_report_tally(report->unread, &report->n_unread, *item->string ? item->string : "(without a name)", 1);
    }
    cJSON_ArrayForEach(item, c->variables) {
        if (cJSON_IsNull(item) || is_used(options, item->string)) continue;
        snprintf(name, sizeof name, "chat_template_kwargs' %.40s", item->string);
        row_report_tally(report->unread, &report->n_unread, name, 1);
    }
    // A name counts once per row, however many of its turns have it. A template may use them all.
    const char* seen[8];
    int n_seen = 0;
    for (int i = 0; i < c->n; i++) {
        const cJSON* fields = c->messages[i].fields;
        cJSON_ArrayForEach(item, fields) {
            bool known = n_seen == 8 || !message_passes(item->string) || !holds_text(item) ||
                         is_used(options, item->string);
            for (int k = 0; k < n_seen && !known; k++) known = !strcmp(seen[k], item->string);
            if (known) continue;
            seen[n_seen++] = item->string;
            snprintf(name, sizeof name, "turns' %.60s", item->string);
            row_report_tally(report->unread, &report->n_unread, name, 1);
        }
    }
}
