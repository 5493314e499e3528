/* Chat templates: where they come from, what they are given, and whether they are this model's. See chat.h. */
#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <cjson/cJSON.h>
#include "tokenizer_internal.h"
#include "chat.h"

#define MOST_TEMPLATES 32

// ---- ours ------------------------------------------------------------------------------------------
// The same text as the published templates give for system, user and assistant.

#define ROLE_CHECK                                                                                           \
    "{%- if message.role not in ['system', 'user', 'assistant'] %}"                                          \
    "{{ raise_exception('message ' ~ loop.index ~ ': the role ' ~ message.role|string|truncate(60, true) ~ " \
    "' is neither system, user nor assistant') }}{% endif %}"
// user and assistant take turns, the user first; a system message may come before them
#define ALTERNATE(name)                                                                                            \
    "{%- if message.role != 'system' %}"                                                                           \
    "{%- if message.role != ('assistant' if turns.n % 2 else 'user') %}"                                           \
    "{{ raise_exception('message ' ~ loop.index ~ ': user and assistant must alternate in the chat template " name \
    ", the user first') }}{% endif %}{% set turns.n = turns.n + 1 %}{% endif %}"

static const struct {
    const char *name, *source;
    const char* special[6];  // what it spells that must be one token
} aliases[] = {
    {"llama3",
     "{{- '<|begin_of_text|>' }}{% for message in messages %}" ROLE_CHECK
     "{{- '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\n\n' }}"
     "{%- if message.role == 'assistant' %}"
     "{% generation %}{{ message.content|trim ~ '<|eot_id|>' }}{% endgeneration %}"
     "{% else %}{{ message.content|trim ~ '<|eot_id|>' }}{% endif %}{% endfor %}"
     "{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
     {"<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"}},
    {"mistral",
     "{{- '<s>' }}{% set turns = namespace(n=0) %}{% for message in messages %}" ROLE_CHECK
     "{%- if message.role == 'system' and not loop.first %}"
     "{{ raise_exception('message ' ~ loop.index ~ ': the chat template mistral takes a system message only as the "
     "first') }}{% endif %}" ALTERNATE(
         "mistral") "{%- if message.role == 'user' %}{{ '[INST] ' }}"
                    "{%- if loop.last and messages[0].role == 'system' %}{{ messages[0].content ~ '\n\n' }}{% endif %}"
                    "{{- message.content ~ '[/INST]' }}"
                    "{%- elif message.role == 'assistant' %}{{ ' ' }}"
                    "{% generation %}{{ message.content|trim ~ '</s>' }}{% endgeneration %}{% endif %}{% endfor %}",
     {"</s>", "<s>", "[INST]", "[/INST]"}},
    {"mistral-v0.2",
     "{{- '<s>' }}{% set turns = namespace(n=0) %}{% for message in messages %}" ROLE_CHECK
     "{%- if message.role == 'system' %}"
     "{{ raise_exception('message ' ~ loop.index ~ ': the chat template mistral-v0.2 does not support a system "
     "message') }}{% endif %}" ALTERNATE(
         "mistral-v0.2") "{%- if message.role == 'user' %}{{ '[INST] ' ~ message.content ~ ' [/INST]' }}"
                         "{%- else %}{% generation %}{{ message.content ~ '</s>' }}{% endgeneration %}{% endif %}{% "
                         "endfor %}",
     {"</s>", "<s>"}},
    {"phi3",
     "{%- for message in messages %}" ROLE_CHECK "{{- '<|' ~ message.role ~ '|>\n' }}"
     "{%- if message.role == 'assistant' %}"
     "{% generation %}{{ message.content ~ '<|end|>\n' }}{% endgeneration %}"
     "{% else %}{{ message.content ~ '<|end|>\n' }}{% endif %}{% endfor %}"
     "{{- '<|assistant|>\n' if add_generation_prompt else '<|endoftext|>' }}",
     {"<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|endoftext|>"}},
};
#define N_ALIASES ((int)(sizeof aliases / sizeof *aliases))

const char* chat_alias(int i) { return i >= 0 && i < N_ALIASES ? aliases[i].name : NULL; }

// ---- opening ---------------------------------------------------------------------------------------

typedef struct {
    char *name, *source;
    size_t n;
    JinjaTemplate* template;  // NULL: not compiled yet
} Named;

struct Chat {
    Named named[MOST_TEMPLATES];
    int n, chosen, tool_use;  // indices; tool_use −1: none
    int alias;                // of `aliases`; −1: not one of ours
    char* variables;          // JSON
    size_t n_variables;
    char* end_text;
    int32_t* guarded;
};

static bool file_there(const char* path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

static bool add_named(Chat* c, const char* name, const char* source, size_t n, ErrorBuffer error) {
    int i = 0;
    while (i < c->n && strcmp(c->named[i].name, name)) i++;
    if (i == MOST_TEMPLATES) return tok_error(error, "more than %d chat templates in one directory", MOST_TEMPLATES);
    Named* to = &c->named[i];
    free(to->name);
    free(to->source);
    to->name = strdup(name);
    to->source = malloc(n + 1);
    if (!to->name || !to->source) return tok_error(error, NO_MEMORY "a chat template");
    memcpy(to->source, source, n);
    to->source[n] = 0;
    to->n = n;
    if (i == c->n) c->n++;
    return true;
}

static cJSON* read_json(const char* directory, const char* name, bool* good, ErrorBuffer error) {
    char path[TOK_PATH], *text;
    size_t n;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    if (!file_there(path)) return NULL;
    if (!read_file(path, &text, &n, error)) {
        *good = false;
        return NULL;
    }
    cJSON* json = cJSON_ParseWithLength(text, n);
    free(text);
    if (!json) *good = tok_error(error, "%s is not JSON", path);
    return json;
}

// `chat_template` of a JSON file: a text, or a list of {"name", "template"}.
static bool add_from_json(Chat* c, const cJSON* json, const char* file, ErrorBuffer error) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(json, "chat_template"), *item;
    if (!value || cJSON_IsNull(value)) return true;
    if (cJSON_IsString(value)) return add_named(c, "default", value->valuestring, strlen(value->valuestring), error);
    if (!cJSON_IsArray(value)) return tok_error(error, "%s: chat_template is neither a text nor a list", file);
    cJSON_ArrayForEach(item, value) {
        const cJSON *name = cJSON_GetObjectItemCaseSensitive(item, "name"),
                    *source = cJSON_GetObjectItemCaseSensitive(item, "template");
        if (!cJSON_IsString(name) || !cJSON_IsString(source))
            return tok_error(error, "%s: chat_template has an entry without name or template", file);
        if (!add_named(c, name->valuestring, source->valuestring, strlen(source->valuestring), error)) return false;
    }
    return true;
}

static bool add_file(Chat* c, const char* name, const char* path, ErrorBuffer error) {
    char* text;
    size_t n;
    if (!read_file(path, &text, &n, error)) return false;
    bool good = add_named(c, name, text, n, error);
    free(text);
    return good;
}

static int is_jinja(const struct dirent* entry) {
    size_t n = strlen(entry->d_name);
    return n > 6 && !strcmp(entry->d_name + n - 6, ".jinja");
}

// A later source is preferred, as transformers does.
static bool add_directory(Chat* c, const char* directory, ErrorBuffer error) {
    static const char* const files[] = {"tokenizer_config.json", "chat_template.json"};
    char path[TOK_PATH];
    bool good = true;
    for (int i = 0; good && i < 2; i++) {
        cJSON* json = read_json(directory, files[i], &good, error);
        if (json) good = add_from_json(c, json, files[i], error);
        cJSON_Delete(json);
    }
    // files of their own count instead of what tokenizer_config.json has, all of it
    snprintf(path, sizeof path, "%s/chat_template.jinja", directory);
    bool own = file_there(path);
    struct dirent** list = NULL;
    char folder[TOK_PATH];
    snprintf(folder, sizeof folder, "%s/additional_chat_templates", directory);
    int n = good ? scandir(folder, &list, is_jinja, alphasort) : 0;
    if (own || n > 0) {
        for (int i = 0; i < c->n; i++) {
            free(c->named[i].name);
            free(c->named[i].source);
            c->named[i] = (Named){0};
        }
        c->n = 0;
    }
    if (good && own) good = add_file(c, "default", path, error);
    for (int i = 0; i < n; i++) {
        char* name = list[i]->d_name;
        if (good && snprintf(path, sizeof path, "%.3900s/%.255s", folder, name) < (int)sizeof path) {
            name[strlen(name) - strlen(".jinja")] = 0;
            good = add_file(c, name, path, error);
        }
        free(list[i]);
    }
    free(list);
    return good;
}

// A special token in a file of the tokenizer: a text, or an object with content.
static const cJSON* token_text(const cJSON* value) {
    return cJSON_IsObject(value) ? cJSON_GetObjectItemCaseSensitive(value, "content") : value;
}

static void set_text(cJSON* object, const char* name, const char* text) {
    cJSON_DeleteItemFromObjectCaseSensitive(object, name);
    cJSON_AddStringToObject(object, name, text);
}

static bool set_variables(Chat* c, const char* directory, const Tokenizer* t, ErrorBuffer error) {
    static const char* const names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    static const char* const files[] = {"tokenizer_config.json", "special_tokens_map.json"};
    cJSON* out = cJSON_CreateObject();
    bool good = out != NULL;
    cJSON_AddNullToObject(out, "tools");
    cJSON_AddNullToObject(out, "documents");
    cJSON_AddFalseToObject(out, "add_generation_prompt");
    // The map counts where the config has no added_tokens_decoder, and then before the config, as transformers reads
    // it.
    bool said[2] = {false, false}, map = true;
    for (int f = 0; good && directory && f < 1 + map; f++) {
        cJSON *json = read_json(directory, files[f], &good, error), *each;
        for (size_t i = 0; json && i < sizeof names / sizeof *names; i++) {
            const cJSON* value = cJSON_GetObjectItemCaseSensitive(json, names[i]);
            if (value && i < 2) said[i] = true;
            if (cJSON_IsString(token_text(value))) set_text(out, names[i], token_text(value)->valuestring);
        }
        cJSON* more = cJSON_CreateArray();
        cJSON_ArrayForEach(each, cJSON_GetObjectItemCaseSensitive(
                                     json, "additional_special_tokens")) if (cJSON_IsString(token_text(each)))
            cJSON_AddItemToArray(more, cJSON_CreateString(token_text(each)->valuestring));
        cJSON_DeleteItemFromObjectCaseSensitive(out, more->child ? "additional_special_tokens" : "");
        if (more->child) cJSON_AddItemToObject(out, "additional_special_tokens", more);
        else cJSON_Delete(more);
        const cJSON* extra = cJSON_GetObjectItemCaseSensitive(json, "extra_special_tokens");
        if (cJSON_IsObject(extra))
            cJSON_ArrayForEach(each, extra) if (cJSON_IsString(token_text(each)))
                set_text(out, each->string, token_text(each)->valuestring);
        if (f == 0) {
            const char* class = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "tokenizer_class"));
            map = !cJSON_HasObjectItem(json, "added_tokens_decoder");
            // this class names no token of itself
            if (class && (!strncmp(class, "PreTrainedTokenizer", 19) || !strcmp(class, "TokenizersBackend")))
                said[0] = said[1] = true;
        }
        cJSON_Delete(json);
    }
    const char* last = "";
    for (int i = 0; t && i < 2; i++) {
        int32_t id = i ? tokenizer_eos(t) : tokenizer_bos(t);
        const char* text = id < 0 ? NULL : tokenizer_piece(t, id, NULL);
        if (text && i) last = text;
        if (text && !said[i]) set_text(out, names[i], text);
    }
    const cJSON* end = cJSON_GetObjectItemCaseSensitive(out, "eos_token");
    c->end_text = strdup(end ? end->valuestring : last);
    c->variables = good ? cJSON_PrintUnformatted(out) : NULL;
    cJSON_Delete(out);
    if (!good) return false;
    if (!c->variables || !c->end_text) return tok_error(error, NO_MEMORY "a chat template");
    c->n_variables = strlen(c->variables);
    return true;
}

static bool unknown(const char* which, ErrorBuffer error) {
    char names[256] = "";
    for (int i = 0; i < N_ALIASES; i++) {
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", aliases[i].name);
    }
    return tok_error(error,
                     "the chat template %.60s is not known; expected one of %s, auto (the model's own), or a file",
                     which, names);
}

static int find_named(const Chat* c, const char* name) {
    for (int i = 0; i < c->n; i++)
        if (!strcmp(c->named[i].name, name)) return i;
    return -1;
}

static bool choose(Chat* c, const char* which, const char* directory, ErrorBuffer error) {
    bool own = !strcmp(which, "auto");
    for (int i = 0; i < N_ALIASES; i++)
        if (!strcmp(aliases[i].name, which)) {
            c->alias = i;
            return add_named(c, which, aliases[i].source, strlen(aliases[i].source), error);
        }
    if (directory && !add_directory(c, directory, error)) return false;
    if (own) {
        if (!directory)
            return tok_error(error, "the chat template auto is the one of a model's directory, and there is none");
        if (!c->n)
            return tok_error(error,
                             "%s has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json)",
                             directory);
        c->tool_use = find_named(c, "tool_use");
        if ((c->chosen = find_named(c, "default")) < 0 && c->n == 1) c->chosen = 0;
        if (c->chosen < 0)
            return tok_error(error, "%s has chat templates, but none is called default; name one of them", directory);
        return true;
    }
    if ((c->chosen = find_named(c, which)) >= 0 && !file_there(which)) return true;
    if (!file_there(which)) return unknown(which, error);
    c->n = 0;
    const char* slash = strrchr(which, '/');
    return (c->chosen = 0, add_file(c, slash ? slash + 1 : which, which, error));
}

Chat* chat_open(const char* which, const char* directory, const Tokenizer* tokenizer, char* error, size_t error_size) {
    ErrorBuffer buffer = {error, error_size};
    Chat* c = calloc(1, sizeof *c);
    if (!c) {
        tok_error(buffer, NO_MEMORY "a chat template");
        return NULL;
    }
    struct stat info;
    if (directory && (stat(directory, &info) || !S_ISDIR(info.st_mode))) directory = NULL;
    c->alias = c->tool_use = -1;
    bool good = choose(c, which, directory, buffer) && set_variables(c, directory, tokenizer, buffer);
    for (int i = 0; good && i < c->n; i++) {
        Named* n = &c->named[i];
        if (i != c->chosen && i != c->tool_use) continue;
        n->template = jinja_compile(n->name, n->source, n->n, error, error_size);
        good = n->template != NULL;
    }
    if (good) return c;
    chat_close(c);
    return NULL;
}

void chat_close(Chat* c) {
    if (!c) return;
    for (int i = 0; i < MOST_TEMPLATES; i++) {
        free(c->named[i].name);
        free(c->named[i].source);
        jinja_free(c->named[i].template);
    }
    free(c->variables);
    free(c->end_text);
    free(c->guarded);
    free(c);
}

bool chat_has_template(const char* directory) {
    char error[256];
    Chat* c = calloc(1, sizeof *c);
    bool there = c && add_directory(c, directory, (ErrorBuffer){error, sizeof error}) && c->n > 0;
    chat_close(c);
    return there;
}

bool chat_variables_in(const char* directory) {
    char path[TOK_PATH];
    snprintf(path, sizeof path, "%s/tokenizer_config.json", directory);
    if (file_there(path)) return true;
    snprintf(path, sizeof path, "%s/special_tokens_map.json", directory);
    return file_there(path);
}

const char* chat_name(const Chat* c) { return c->named[c->chosen].name; }
const char* chat_source(const Chat* c, size_t* n) {
    *n = c->named[c->chosen].n;
    return c->named[c->chosen].source;
}
const char* chat_end_text(const Chat* c) { return c->end_text; }

bool chat_mentions(const Chat* c, const char* word) {
    return jinja_mentions(c->named[c->chosen].template, word) ||
           (c->tool_use >= 0 && jinja_mentions(c->named[c->tool_use].template, word));
}

// Whether a row has tools, looked at only where a template of its own is there for them.
static bool has_tools(const char* row, size_t n) {
    cJSON* json = cJSON_ParseWithLength(row, n);
    const cJSON* tools = cJSON_GetObjectItemCaseSensitive(json, "tools");
    bool has = tools && !cJSON_IsNull(tools);
    cJSON_Delete(json);
    return has;
}

bool chat_render(const Chat* c, JinjaScratch* s, const char* row, size_t n, JinjaResult* result, char* error,
                 size_t error_size) {
    int i = c->tool_use >= 0 && c->tool_use != c->chosen && has_tools(row, n) ? c->tool_use : c->chosen;
    return jinja_render(c->named[i].template, s, row, n, c->variables, c->n_variables, result, error, error_size);
}

// ---- tokens ----------------------------------------------------------------------------------------

// The id that a text becomes where it is one token; −1: it falls into pieces, or is a piece among others only by
// chance.
static int32_t one_token(const Tokenizer* t, const char* text, Encoding* e) {
    int64_t n = tokenizer_encode(t, text, strlen(text), TOKENIZER_PARSE_SPECIAL, e);
    return n == 1 && e->ids[0] == tokenizer_id(t, text) ? e->ids[0] : -1;
}

static bool other_model(const char* token, const char* name, ErrorBuffer error) {
    return tok_error(error,
                     "the tokenizer has no token %s, which the chat template %s is written with; it is the template of "
                     "another model",
                     token, name);
}

// A mark of a turn by its looks: <|…|>, [INST], <start_of_turn>, but not <think>, which answers hold.
static bool looks_like_mark(const char* p, size_t n) {
    if (n > 4 && p[0] == '<' && p[1] == '|' && p[n - 1] == '>' && p[n - 2] == '|') return true;
    if (n > 5 && !memcmp(p, "<\xEF\xBD\x9C", 4)) return true;  // DeepSeek's <｜…｜>
    return n > 12 && (!memcmp(p, "<start_of_", 10) || !memcmp(p, "<end_of_", 8));
}

// The next <…> of a text without space in it; 0: none.
static size_t next_mark(const char* text, size_t n, size_t* at) {
    for (; *at < n; ++*at) {
        if (text[*at] != '<') continue;
        size_t end = *at + 1;
        while (end < n && end - *at < 60 && text[end] != '>' && text[end] != '<' && (unsigned char)text[end] > ' ')
            end++;
        if (end < n && text[end] == '>' && looks_like_mark(text + *at, end + 1 - *at)) return end + 1 - *at;
    }
    return 0;
}

bool chat_fits(Chat* c, const Tokenizer* t, ChatTokens* tokens, char* error, size_t error_size) {
    static const char row[] =
        "{\"messages\":[{\"role\":\"user\",\"content\":\"question\"},"
        "{\"role\":\"assistant\",\"content\":\"the-answer\"}]}";
    const ErrorBuffer buffer = {error, error_size};
    const char* name = chat_name(c);
    Encoding e = {0};
    JinjaScratch* s = jinja_begin(NULL);
    JinjaResult r;
    bool good = s != NULL || tok_error(buffer, NO_MEMORY "a chat template");
    *tokens = (ChatTokens){.turn_end = -1};
    for (int i = 0; good && c->alias >= 0 && i < 6 && aliases[c->alias].special[i]; i++) {
        int32_t id = one_token(t, aliases[c->alias].special[i], &e);
        if (!i) tokens->turn_end = id;
        if (id < 0) good = other_model(aliases[c->alias].special[i], name, buffer);
    }
    char why[256];
    if (good && chat_render(c, s, row, sizeof row - 1, &r, why, sizeof why)) {
        const char* answer = memmem(r.text, r.n, "the-answer", 10);
        size_t tail = answer ? (size_t)(answer - r.text) + 10 : r.n, at = 0;
        for (size_t n; (n = next_mark(r.text, r.n, &at)); at += n) {
            char mark[64];
            snprintf(mark, sizeof mark, "%.*s", (int)n, r.text + at);
            int32_t id = one_token(t, mark, &e);
            if (id >= 0) {
                c->guarded = tok_memory(realloc(c->guarded, (size_t)(tokens->n_guarded + 1) * sizeof *c->guarded));
                c->guarded[tokens->n_guarded++] = id;
            } else if (!*tokens->missing) memcpy(tokens->missing, mark, sizeof mark);
            if (id < 0 && at >= tail && tokens->turn_end < 0) {
                good = other_model(mark, name, buffer);
                break;
            }
        }
        tokens->guarded = c->guarded;
        // the first added token after the answer ends the turn
        int64_t n = tokens->turn_end >= 0 || !good
                        ? 0
                        : tokenizer_encode(t, r.text + tail, r.n - tail, TOKENIZER_PARSE_SPECIAL, &e);
        for (int64_t i = 0; i < n && tokens->turn_end < 0; i++) {
            int length;
            const char* piece = tokenizer_piece(t, e.ids[i], &length);
            bool mark = tokenizer_is_special(t, e.ids[i]) || (piece && looks_like_mark(piece, (size_t)length));
            if (mark) tokens->turn_end = e.ids[i];
        }
    }
    encoding_free(&e);
    jinja_end(s);
    return good;
}
