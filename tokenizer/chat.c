/* Chat templates: how a family writes a conversation as one text. Each is a row of a table; what the rows leave open
   (tools, images) belongs to no training or evaluation of text. The same text as transformers' apply_chat_template
   makes of the published templates. */
#include <stdlib.h>
#include "tokenizer_internal.h"

typedef enum { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLES } Role;
static const char* const role_names[ROLES] = {"system", "user", "assistant"};

typedef enum {
    SYSTEM_TURN,
    SYSTEM_IN_LAST_USER,
    SYSTEM_REFUSED
} SystemPlace;  // a turn; in front of the last user's text, a blank line between; none

typedef struct {
    const char* name;
    const char* begin;  // of the conversation
    struct {
        const char *before, *after;
        bool trim;
    } turn[ROLES];  // around the text; trim: without the white space at its ends
    SystemPlace system;
    bool alternate;            // user and assistant must take turns, the user first
    const char *prompt, *end;  // behind the last turn: where a reply is asked for, and where not
    const char* special[6];    // what it spells that must be one token; the end of the assistant's turn first
} Template;

static const Template templates[] = {
    {"llama3",
     "<|begin_of_text|>",
     {{"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>", true},
      {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>", true},
      {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>", true}},
     SYSTEM_TURN,
     false,
     "<|start_header_id|>assistant<|end_header_id|>\n\n",
     "",
     {"<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"}},
    {"mistral",
     "<s>",
     {{"", "", false}, {"[INST] ", "[/INST]", false}, {" ", "</s>", true}},
     SYSTEM_IN_LAST_USER,
     true,
     "",
     "",  // v0.3 and later
     {"</s>", "<s>", "[INST]", "[/INST]"}},
    {"mistral-v0.2",
     "<s>",
     {{"", "", false}, {"[INST] ", " [/INST]", false}, {"", "</s>", false}},
     SYSTEM_REFUSED,
     true,
     "",
     "",
     {"</s>", "<s>"}},
    {"phi3",
     "",
     {{"<|system|>\n", "<|end|>\n", false},
      {"<|user|>\n", "<|end|>\n", false},
      {"<|assistant|>\n", "<|end|>\n", false}},
     SYSTEM_TURN,
     false,
     "<|assistant|>\n",
     "<|endoftext|>",
     {"<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>"}},
};
#define N_TEMPLATES ((int)(sizeof templates / sizeof *templates))

const char* chat_template_name(int i) { return i >= 0 && i < N_TEMPLATES ? templates[i].name : NULL; }

static const Template* find_template(const char* name, ErrorBuffer error) {
    char names[256] = "";
    for (int i = 0; i < N_TEMPLATES; i++) {
        if (!strcmp(templates[i].name, name)) return &templates[i];
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "", templates[i].name);
    }
    tok_error(error, "the chat template %.60s is not known; there are: %s", name, names);
    return NULL;
}

// The id that a text becomes where it is one token; −1: it falls into pieces, or is a piece among others only by
// chance.
static int32_t one_token(const Tokenizer* t, const char* text, Encoding* e) {
    int64_t n = tokenizer_encode(t, text, strlen(text), TOKENIZER_PARSE_SPECIAL, e);
    return n == 1 && e->ids[0] == tokenizer_id(t, text) ? e->ids[0] : -1;
}

bool chat_fits(const Tokenizer* t, const char* name, int32_t* turn_end, char* error, size_t error_size) {
    const ErrorBuffer buffer = {error, error_size};
    const Template* template = find_template(name, buffer);
    Encoding e = {0};
    bool fits = template != NULL;
    for (int i = 0; fits && i < (int)(sizeof template->special / sizeof *template->special) && template->special[i];
         i++) {
        int32_t id = one_token(t, template->special[i], &e);
        if (!i) *turn_end = id;
        if (id < 0)
            fits = tok_error(buffer,
                             "the tokenizer has no token %s, which the chat template %s is written with; it is the "
                             "template of another model",
                             template->special[i], name);
    }
    encoding_free(&e);
    return fits;
}

static bool find_role(const char* name, Role* role) {
    for (int r = 0; r < ROLES; r++)
        if (!strcmp(role_names[r], name)) {
            *role = (Role)r;
            return true;
        }
    return false;
}

// The roles of all messages, if the template takes them in this order.
static bool check_roles(const Template* t, const ChatMessage* messages, int n, Role* roles, ErrorBuffer error) {
    int turns = 0;
    for (int i = 0; i < n; i++) {
        if (!find_role(messages[i].role, &roles[i]))
            return tok_error(error, "message %d: the role %.60s is neither system, user nor assistant", i + 1,
                             messages[i].role);
        if (roles[i] == ROLE_SYSTEM && t->system == SYSTEM_TURN) continue;
        if (roles[i] == ROLE_SYSTEM && t->system == SYSTEM_REFUSED)
            return tok_error(error, "message %d: the chat template %s does not support a system message", i + 1,
                             t->name);
        if (roles[i] == ROLE_SYSTEM && i)
            return tok_error(error, "message %d: the chat template %s takes a system message only as the first", i + 1,
                             t->name);
        if (roles[i] == ROLE_SYSTEM) continue;
        if (t->alternate && roles[i] != (turns++ % 2 ? ROLE_ASSISTANT : ROLE_USER))
            return tok_error(error,
                             "message %d: user and assistant must alternate in the chat template %s, the user first",
                             i + 1, t->name);
    }
    return true;
}

// White space of Python's str.strip: Unicode's and four separators more.
static bool is_stripped(int32_t c) { return is_white_space(c) || (c >= 0x1C && c <= 0x1F); }

static void put_content(char** out, const char* text, bool trim) {
    size_t start = 0, end = strlen(text);
    int32_t c;
    while (trim && start < end) {
        int n = utf8_decode(text + start, (int64_t)(end - start), &c);
        if (!is_stripped(c)) break;
        start += (size_t)n;
    }
    while (trim && end > start) {
        size_t last = end - 1;
        while (last > start && end - last < 4 && ((unsigned char)text[last] & 0xC0) == 0x80) last--;
        if (utf8_decode(text + last, (int64_t)(end - last), &c) != (int)(end - last) || !is_stripped(c)) break;
        end = last;
    }
    if (end > start) memcpy(arraddnptr(*out, end - start), text + start, end - start);
}

char* chat_render(const char* name, const ChatMessage* messages, int n, bool ask_reply, char* error,
                  size_t error_size) {
    const ErrorBuffer buffer = {error, error_size};
    const Template* t = find_template(name, buffer);
    Role* roles = malloc((size_t)(n > 0 ? n : 1) * sizeof *roles);
    if (!t || !roles || !check_roles(t, messages, n, roles, buffer)) {
        if (!roles) tok_error(buffer, "not enough memory for %d messages", n);
        free(roles);
        return NULL;
    }
    char* text = NULL;
    put_text(&text, t->begin);
    for (int i = 0; i < n; i++) {
        if (roles[i] == ROLE_SYSTEM && t->system == SYSTEM_IN_LAST_USER) continue;
        put_text(&text, t->turn[roles[i]].before);
        if (t->system == SYSTEM_IN_LAST_USER && roles[0] == ROLE_SYSTEM && roles[i] == ROLE_USER && i == n - 1) {
            put_content(&text, messages[0].content, false);
            put_text(&text, "\n\n");
        }
        put_content(&text, messages[i].content, t->turn[roles[i]].trim);
        put_text(&text, t->turn[roles[i]].after);
    }
    put_text(&text, ask_reply ? t->prompt : t->end);
    char* out = strndup(text ? text : "", (size_t)arrlen(text));
    arrfree(text);
    free(roles);
    if (!out) tok_error(buffer, "not enough memory for a conversation of %d messages", n);
    return out;
}
