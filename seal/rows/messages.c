/* Conversations: their memory, and the turns of a record's lists. See messages.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <cjson/cJSON.h>
#include "base/error.h"
#include "base/text.h"
#include "rows/layouts.h"
#include "rows/records.h"

// ---------------------------------------------------------------------------------------------------
// memory

const char* conversation_keep(Conversation* c, const char* text, size_t length) {
    char* copy = host_alloc(length + 1, "a turn");
    cJSON* item = host_made(cJSON_CreateNull(), "a turn");
    if (!c->made) c->made = host_made(cJSON_CreateArray(), "turns");
    if (length) memcpy(copy, text, length);
    item->type = cJSON_String;
    item->valuestring = copy;
    cJSON_AddItemToArray(c->made, item);
    return copy;
}

Message* conversation_add(Conversation* c, MessageRole role, const char* content, size_t length) {
    static const char* const names[] = {[ROLE_SYSTEM] = "system",
                                        [ROLE_USER] = "user",
                                        [ROLE_ASSISTANT] = "assistant",
                                        [ROLE_TOOL] = "tool",
                                        [ROLE_OTHER] = ""};
    if (c->n == c->capacity) {
        c->capacity = c->capacity ? 2 * c->capacity : 8;
        c->messages = host_resize(c->messages, (size_t)c->capacity * sizeof *c->messages, "turns");
    }
    Message* m = &c->messages[c->n++];
    *m = (Message){.role = role, .role_name = names[role], .content = content, .length = length, .weight = 1.0};
    return m;
}

void conversation_question(const Conversation* c, Text* out) {
    int first = c->system_prompt;
    text_add(out, "", 0);
    for (int i = first; i < c->n - c->answered; i++) {
        if (i > first) text_add(out, "\n", 1);
        text_add(out, c->messages[i].content, c->messages[i].length);
    }
}

void conversation_free(Conversation* c) {
    free(c->messages);
    cJSON_Delete(c->record);
    cJSON_Delete(c->made);
    *c = (Conversation){0};
}

// ---------------------------------------------------------------------------------------------------
// turns

// Who speaks, under the names the formats use. `name`: what a template knows it by; NULL: as it is written.
static const struct {
    const char* spelled;
    MessageRole role;
    const char* name;
} speakers[] = {
    {"user", ROLE_USER, "user"},
    {"human", ROLE_USER, "user"},
    {"prompter", ROLE_USER, "user"},
    {"assistant", ROLE_ASSISTANT, "assistant"},
    {"gpt", ROLE_ASSISTANT, "assistant"},
    {"chatgpt", ROLE_ASSISTANT, "assistant"},
    {"ai", ROLE_ASSISTANT, "assistant"},
    {"bot", ROLE_ASSISTANT, "assistant"},
    {"bing", ROLE_ASSISTANT, "assistant"},
    {"bard", ROLE_ASSISTANT, "assistant"},
    {"model", ROLE_ASSISTANT, "assistant"},
    {"function_call", ROLE_ASSISTANT, "assistant"},  // its text is the call
    {"tool_call", ROLE_ASSISTANT, "assistant"},
    {"system", ROLE_SYSTEM, "system"},
    {"developer", ROLE_SYSTEM, NULL},
    {"tool", ROLE_TOOL, "tool"},
    {"observation", ROLE_TOOL, "tool"},
    {"tool_response", ROLE_TOOL, "tool"},
    {"function_response", ROLE_TOOL, "tool"},
    {"function", ROLE_TOOL, NULL},
    {"ipython", ROLE_TOOL, NULL},
};
#define N_SPEAKERS ((int)(sizeof speakers / sizeof *speakers))

static const char* const role_keys[] = {"from", "role"};
static const char* const text_keys[] = {"value", "content", "text"};
static const char* const weight_keys[] = {"weight", "loss", "train"};

static bool among(const char* name, const char* const* names, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!strcmp(name, names[i])) return true;
    return false;
}
#define AMONG(name, names) among(name, names, sizeof names / sizeof *names)

bool message_passes(const char* field) {
    return !AMONG(field, role_keys) && !AMONG(field, text_keys) && !AMONG(field, weight_keys);
}

// The first of several fields that is there. One that says something counts before one that is null: files of several
// sources name the fields of all of them in every turn.
static const cJSON* first_of(const cJSON* object, const char* const* names, size_t n, const char** name) {
    const cJSON* found = NULL;
    *name = names[0];
    for (size_t i = 0; i < n && (!found || cJSON_IsNull(found)); i++) {
        const cJSON* item = record_field(object, names[i]);
        if (!item || (found && cJSON_IsNull(item))) continue;
        *name = names[i];
        found = item;
    }
    return found;
}
#define FIRST_OF(object, names, name) first_of(object, names, sizeof names / sizeof *names, name)

bool holds_turns(const cJSON* value) {
    const char* name;
    return cJSON_IsArray(value) && cJSON_IsObject(value->child) &&
           cJSON_IsString(FIRST_OF(value->child, role_keys, &name));
}

const char* json_kind(const cJSON* value) {
    return cJSON_IsArray(value)    ? "a list"
           : cJSON_IsObject(value) ? "an object"
           : cJSON_IsBool(value)   ? "a truth value"
           : cJSON_IsNumber(value) ? "a number"
           : cJSON_IsNull(value)   ? "null"
                                   : "a text";
}

bool weight_of(const cJSON* value, double* weight) {
    if (cJSON_IsBool(value)) *weight = cJSON_IsTrue(value);
    else if (cJSON_IsNumber(value)) *weight = value->valuedouble;
    return *weight >= 0.0 && isfinite(*weight);
}

// Joins a content's parts of text. False with row->why: a part that is something else, which is named.
static bool join_parts(const cJSON* parts, int turn, DataRow* row, Text* out) {
    const cJSON* part;
    int number = 0;
    text_add(out, "", 0);
    cJSON_ArrayForEach(part, parts) {
        const char* type = cJSON_GetStringValue(record_field(part, "type"));
        const cJSON* text = cJSON_IsObject(part) ? record_field(part, "text") : part;
        size_t n = type ? strlen(type) : 0;
        number++;
        if (type && (n < 4 || strcmp(type + n - 4, "text")))  // text, input_text, output_text
            return row_bad(row, "turn %d: part %d of its content is of type \"%.40s\"; only text can be trained on",
                           turn, number, type);
        if (!cJSON_IsString(text))
            return row_bad(row, "turn %d: part %d of its content has no text but %s", turn, number, json_kind(part));
        text_add(out, text->valuestring, strlen(text->valuestring));
    }
    return true;
}

// {"name": …, "arguments": …} as a template's tool_calls; a text that is not such a call stays a text.
static void make_call(Conversation* c, Message* m) {
    cJSON *call = cJSON_Parse(m->content), *fields = cJSON_CreateObject();
    const cJSON* item;
    bool all = cJSON_IsArray(call) && call->child;
    if (cJSON_IsObject(call)) {
        cJSON* list = cJSON_CreateArray();
        cJSON_AddItemToArray(list, call);
        call = list;
        all = true;
    }
    cJSON* calls = cJSON_AddArrayToObject(fields, "tool_calls");
    cJSON_ArrayForEach(item, call) all &= cJSON_IsString(record_field(item, "name"));
    while (all && (item = call->child)) {
        cJSON* entry = cJSON_CreateObject();
        cJSON_AddStringToObject(entry, "type", "function");
        cJSON_AddItemToObject(entry, "function", cJSON_DetachItemViaPointer(call, call->child));
        cJSON_AddItemToArray(calls, entry);
    }
    cJSON_Delete(call);
    if (all) {
        m->fields = fields;
        m->content = "";
        m->length = 0;
        if (!c->made) c->made = cJSON_CreateArray();
        cJSON_AddItemToArray(c->made, fields);
    } else cJSON_Delete(fields);
}

// ---------------------------------------------------------------------------------------------------
// what other files have in place of a list of turns

static const char* const pair_keys[][2] = {{"human", "assistant"}, {"user", "assistant"}, {"input", "output"}};

static bool is_turn(const cJSON* value) {
    const char* name;
    return cJSON_IsObject(value) && cJSON_IsString(FIRST_OF(value, role_keys, &name)) &&
           FIRST_OF(value, text_keys, &name);
}

// Which of pair_keys' rows an object has, and nothing else but a system text; −1: none.
static int pair_of(const cJSON* value) {
    for (int i = 0; i < (int)(sizeof pair_keys / sizeof *pair_keys); i++) {
        const cJSON* item;
        int named = 0;
        bool other = !cJSON_IsObject(value);
        cJSON_ArrayForEach(item, value) {
            bool pair = !strcmp(item->string, pair_keys[i][0]) || !strcmp(item->string, pair_keys[i][1]);
            named += pair;
            other |= (!pair && strcmp(item->string, "system") != 0) || !(cJSON_IsString(item) || cJSON_IsNull(item));
        }
        if (named == 2 && !other) return i;
    }
    return -1;
}

static void add_turn(cJSON* list, const char* role, const cJSON* text) {
    cJSON* turn = cJSON_CreateObject();
    cJSON_AddStringToObject(turn, "role", role);
    cJSON_AddStringToObject(turn, "content", cJSON_IsString(text) ? text->valuestring : "");
    cJSON_AddItemToArray(list, turn);
}

// The list's items become the value's, whatever that was.
static void become(cJSON* value, cJSON* list) {
    cJSON_Delete(value->child);
    cJSON_free(value->valuestring);
    value->valuestring = NULL;
    value->type = cJSON_Array;
    value->child = list->child;
    list->child = NULL;
    cJSON_Delete(list);
}

static void unfold_text(cJSON* value) {
    const char* s = value->valuestring;
    char why[200];
    while (is_space((unsigned char)*s)) s++;
    if (*s != '[' || strstr(s, "\\u0000")) return;
    cJSON* list = json_parse(s, strlen(s), why, sizeof why);
    if (cJSON_IsArray(list)) turns_unfold(list, true);
    if (holds_turns(list)) become(value, list);
    else cJSON_Delete(list);
}

void turns_unfold(cJSON* value, bool listed) {
    cJSON *item, *list;
    if (is_turn(value)) {
        cJSON* turn = cJSON_CreateObject();
        list = cJSON_CreateArray();
        turn->child = value->child;
        value->child = NULL;
        cJSON_AddItemToArray(list, turn);
        become(value, list);
        return;
    }
    if (listed && cJSON_IsString(value)) unfold_text(value);
    if (!listed || !cJSON_IsArray(value) || holds_turns(value)) return;
    bool pairs = value->child != NULL, texts = value->child && value->child->next;
    cJSON_ArrayForEach(item, value) {
        pairs &= pair_of(item) >= 0;
        texts &= cJSON_IsString(item);
    }
    if (!pairs && !texts) return;
    list = cJSON_CreateArray();
    bool answer = false;
    cJSON_ArrayForEach(item, value) {
        if (texts) add_turn(list, answer ? "assistant" : "user", item);
        answer = !answer;
        if (texts) continue;
        const char* const* keys = pair_keys[pair_of(item)];
        const cJSON* system = record_field(item, "system");
        if (cJSON_IsString(system) && *system->valuestring) add_turn(list, "system", system);
        add_turn(list, "user", record_field(item, keys[0]));
        add_turn(list, "assistant", record_field(item, keys[1]));
    }
    become(value, list);
}

const char* content_text(Conversation* c, const cJSON* value) {
    const char* s = value_text(value);
    DataRow none = {0};
    Text joined = {0};
    if (!cJSON_IsArray(value) || !cJSON_IsObject(value->child)) return s;
    if (join_parts(value, 0, &none, &joined)) s = conversation_keep(c, joined.s, joined.n);
    text_free(&joined);
    return s;
}

// ---------------------------------------------------------------------------------------------------
// a list of turns

bool turns_read(Conversation* c, const cJSON* list, const char* name, DataRow* row) {
    const cJSON* turn;
    int number = 0;
    cJSON_ArrayForEach(turn, list) {
        const char *role_key, *text_key, *weight_key;
        const cJSON *role = FIRST_OF(turn, role_keys, &role_key), *text = FIRST_OF(turn, text_keys, &text_key),
                    *weight = FIRST_OF(turn, weight_keys, &weight_key);
        number++;
        if (!text) text_key = strcmp(role_key, "from") ? "content" : "value";
        if (!cJSON_IsString(role)) return row_bad(row, "turn %d has no \"role\" (or \"from\")", number);
        Message* m;
        if (cJSON_IsArray(text)) {
            Text joined = {0};
            bool good = join_parts(text, number, row, &joined);
            if (good) m = conversation_add(c, ROLE_OTHER, conversation_keep(c, joined.s, joined.n), joined.n);
            text_free(&joined);
            if (!good) return false;
            m->parts = text;
        } else {
            const char* s = value_text(text);
            bool calls = !text && record_field(turn, "tool_calls");
            if (!s && !cJSON_IsNull(text) && !calls)
                return row_bad(row, text ? "turn %d: \"%s\" is %s, not a text" : "turn %d has no text in \"%s\"",
                               number, text_key, json_kind(text));
            m = conversation_add(c, ROLE_OTHER, s ? s : "", s ? strlen(s) : 0);
        }
        int speaker = 0;
        while (speaker < N_SPEAKERS && strcasecmp(role->valuestring, speakers[speaker].spelled)) speaker++;
        m->turn = number;
        m->fields = turn;
        m->role_name = role->valuestring;
        if (speaker < N_SPEAKERS) {
            m->role = speakers[speaker].role;
            if (speakers[speaker].name) m->role_name = speakers[speaker].name;
            else if (m->role == ROLE_TOOL && !strcmp(role_key, "from")) m->role_name = "tool";
        }
        if (!weight_of(weight, &m->weight))
            return row_bad(row, "turn %d: \"%s\" is not a number from 0 on", number, weight_key);
        m->spelled = role->valuestring;
        m->call = m->role == ROLE_ASSISTANT && strstr(role->valuestring, "_call");
        if (m->call) make_call(c, m);
    }
    if (!number) return row_bad(row, "\"%s\" holds no turns", name);
    return true;
}
