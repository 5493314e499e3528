/* See chat_rows.h. JSON is written by hand rather than by cJSON, which would print 1.0 as 1 and round long integers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cjson/cJSON.h>
#include "base/error.h"
#include "base/file.h"
#include "rows/chat_rows.h"
#include "rows/layouts.h"
#include "rows/records.h"
#include "rows/tokens.h"

// ---------------------------------------------------------------------------------------------------
// JSON

static void put(Text* out, const char* text) { text_add(out, text, strlen(text)); }

void json_put_text(Text* out, const char* text, size_t n) {
    size_t plain = 0;
    put(out, "\"");
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        char escaped[8];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        text_add(out, text + plain, i - plain);
        plain = i + 1;
        snprintf(escaped, sizeof escaped, c < 0x20 ? "\\u%04x" : "\\%c", c);
        put(out, escaped);
    }
    text_add(out, text + plain, n - plain);
    put(out, "\"");
}

static void put_value(Text* out, const cJSON* v) {
    const cJSON* item;
    if (cJSON_IsString(v)) json_put_text(out, v->valuestring, strlen(v->valuestring));
    else if (cJSON_IsNumber(v)) {
        char number[40];
        snprintf(number, sizeof number, "%.17g", v->valuedouble);
        put(out, v->valuestring ? v->valuestring : number);
    } else if (cJSON_IsArray(v) || cJSON_IsObject(v)) {
        bool object = cJSON_IsObject(v);
        put(out, object ? "{" : "[");
        cJSON_ArrayForEach(item, v) {
            if (item != v->child) put(out, ",");
            if (object) {
                json_put_text(out, item->string, strlen(item->string));
                put(out, ":");
            }
            put_value(out, item);
        }
        put(out, object ? "}" : "]");
    } else put(out, cJSON_IsTrue(v) ? "true" : cJSON_IsFalse(v) ? "false" : "null");
}

// A turn that has calls and no text: a template may tell null from nothing.
static bool lacks_content(const Message* m) {
    static const char* const names[] = {"content", "value", "text"};
    if (m->length || m->call || !cJSON_HasObjectItem(m->fields, "tool_calls")) return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (cJSON_HasObjectItem(m->fields, names[i])) return false;
    return true;
}

void conversation_json(const Conversation* c, int n, bool ask, Text* out) {
    put(out, "{\"messages\":[");
    for (int i = 0; i < n; i++) {
        const Message* m = &c->messages[i];
        const cJSON* field;
        put(out, i ? ",{\"role\":" : "{\"role\":");
        json_put_text(out, m->role_name, strlen(m->role_name));
        if (!lacks_content(m)) {
            put(out, ",\"content\":");
            if (m->parts && !c->joined) put_value(out, m->parts);
            else if (cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(m->fields, "content")) && !m->length)
                put(out, "null");
            else json_put_text(out, m->content, m->length);
        }
        cJSON_ArrayForEach(field, m->fields) {
            // a field that is null is one that another turn of the file has
            if (!message_passes(field->string) || cJSON_IsNull(field)) continue;
            put(out, ",");
            json_put_text(out, field->string, strlen(field->string));
            put(out, ":");
            put_value(out, field);
        }
        put(out, "}");
    }
    put(out, "]");
    if (c->tools) {
        put(out, ",\"tools\":");
        put_value(out, c->tools);
    }
    const cJSON* variable;
    cJSON_ArrayForEach(variable, c->variables) {
        if (cJSON_IsNull(variable)) continue;
        put(out, ",");
        json_put_text(out, variable->string, strlen(variable->string));
        put(out, ":");
        put_value(out, variable);
    }
    put(out, ask ? ",\"add_generation_prompt\":true}" : ",\"add_generation_prompt\":false}");
}

// ---------------------------------------------------------------------------------------------------
// the template in use

void chat_format_open(ChatFormat* f, const ChatOptions* o, const char* model, const Tokenizer* t, bool quiet) {
    char error[512];
    size_t n;
    memset(f, 0, sizeof *f);
    f->tokenizer = t;
    f->all = o->loss_on && !strcmp(o->loss_on, "all");
    f->parse_special = o->parse_special;
    f->every_row = o->which != NULL;
    bool none = o->which && !strcmp(o->which, "none");
    if (o->compat && o->which && !none)
        fatal("--chat %s does not go with --compat, which writes rows as the reference does", o->which);
    if (!o->which) none = o->compat || o->prompt_template || !chat_has_template(model);
    if (none && f->all)
        fatal("--loss-on all needs a chat template; without one a row has one answer that carries loss");
    if (none) return;
    const char* which = o->which ? o->which : "auto";
    f->chat = chat_open(which, model, t, error, sizeof error);
    if (!f->chat || !chat_fits(f->chat, t, &f->tokens, error, sizeof error))
        fatal("%s: --chat %s: %s", model, which, error);
    const char* source = chat_source(f->chat, &n);
    snprintf(f->name, sizeof f->name, "%s", strcmp(which, "auto") ? chat_name(f->chat) : "auto");
    sha256_hex(source, n, f->digest);
    if (quiet) return;
    if (*f->tokens.missing)
        warning("%s: the chat template %s writes %s, which the tokenizer does not have as one token", model, f->name,
                f->tokens.missing);
    if (f->tokens.turn_end < 0)
        warning(
            "%s: the chat template %s ends the assistant's turn with no special token; a model trained with it does "
            "not learn to stop",
            model, f->name);
}

void chat_format_close(ChatFormat* f) {
    chat_close(f->chat);
    memset(f, 0, sizeof *f);
}

void chat_format_name(const ChatFormat* f, char* out, size_t size) {
    if (!f->chat) snprintf(out, size, "none");
    else
        snprintf(out, size, "%s (sha256 %.12s), loss on %s", f->name, f->digest,
                 f->all ? "all answers" : "the last answer");
}

bool chat_format_uses(const void* format, const char* field) {
    const ChatFormat* f = format;
    return f->chat && chat_mentions(f->chat, field);
}

bool chat_format_applies(const ChatFormat* f, const Conversation* c) {
    return f->chat && (f->every_row || !c->as_it_is);
}

void chat_scratch_open(ChatScratch* s) {
    memset(s, 0, sizeof *s);
    s->rendering = host_made(jinja_begin(NULL), "a chat template");
}

void chat_scratch_close(ChatScratch* s) {
    encoding_free(&s->encoding);
    jinja_end(s->rendering);
}

// ---------------------------------------------------------------------------------------------------
// renderings

// A rendering that outlives the next one.
typedef struct {
    char* text;
    size_t n;
    TextRange *given, *generation;
    size_t n_given, n_generation;
} Rendered;

static void* copy_of(const void* from, size_t bytes) {
    void* copy = host_alloc(bytes + 1, "a rendered conversation");
    if (bytes) memcpy(copy, from, bytes);
    return copy;
}

static void rendered_free(Rendered* r) {
    free(r->text);
    free(r->given);
    free(r->generation);
    memset(r, 0, sizeof *r);
}

// What apply_chat_template refuses: tools that are not objects, variables under the names of its own parameters.
static bool check_fields(const Conversation* c, char* why, size_t size) {
    static const char* const own[] = {"messages",      "conversation",   "conversations",
                                      "tools",         "tokenize",       "add_generation_prompt",
                                      "chat_template", "padding",        "continue_final_message",
                                      "truncation",    "max_length",     "return_assistant_tokens_mask",
                                      "return_dict",   "return_tensors", "tokenizer_kwargs"};
    const cJSON* item;
    cJSON_ArrayForEach(item, c->tools) if (!cJSON_IsObject(item)) {
        snprintf(why, size, "\"tools\" holds %s, not an object", json_kind(item));
        return false;
    }
    cJSON_ArrayForEach(item, c->variables) for (size_t i = 0; i < sizeof own / sizeof *own;
                                                i++) if (!strcmp(item->string, own[i])) {
        snprintf(why, size, "\"chat_template_kwargs\" sets %s, which is not a variable of its own", own[i]);
        return false;
    }
    return true;
}

static bool render(const ChatFormat* f, ChatScratch* s, const Conversation* c, int n, bool ask, Rendered* out,
                   char* why, size_t size) {
    Text json = {0};
    JinjaResult r;
    conversation_json(c, n, ask, &json);
    bool good = chat_render(f->chat, s->rendering, json.s, json.n, &r, why, size);
    text_free(&json);
    memset(out, 0, sizeof *out);
    if (!good) return false;
    *out = (Rendered){copy_of(r.text, r.n),
                      r.n,
                      copy_of(r.given, r.n_given * sizeof *r.given),
                      copy_of(r.generation, r.n_generation * sizeof *r.generation),
                      r.n_given,
                      r.n_generation};
    return true;
}

static size_t count_text(const Rendered* r, const char* text, size_t n) {
    size_t count = 0;
    for (const char* at = r->text; n && (at = memmem(at, r->n - (size_t)(at - r->text), text, n)); at += n) count++;
    return count;
}

// Whether a rendering of lists of parts lacks a text that one of joined texts has, or shows a list as Python prints it.
static bool loses_parts(const Conversation* c, const Rendered* lists, const Rendered* joined) {
    static const char* const printed[] = {"[{'", "['"};
    for (size_t i = 0; i < sizeof printed / sizeof *printed; i++)
        if (count_text(lists, printed[i], strlen(printed[i])) > count_text(joined, printed[i], strlen(printed[i])))
            return true;
    for (int i = 0; i < c->n; i++) {
        const cJSON* part;
        cJSON_ArrayForEach(part, c->messages[i].parts) {
            const char* text = cJSON_GetStringValue(cJSON_IsObject(part) ? record_field(part, "text") : part);
            size_t n = text ? strlen(text) : 0;
            while (n && is_space((unsigned char)text[n - 1])) n--;
            while (n && is_space((unsigned char)*text)) text++, n--;
            if (count_text(lists, text, n) < count_text(joined, text, n)) return true;
        }
    }
    return false;
}

// Renders with content in parts as the list that it is, as transformers does. Many templates fail on a list, print it
// as Python does, or write nothing in its place: then, and c->joined says so, with each list's texts joined.
static bool render_parts(const ChatFormat* f, ChatScratch* s, Conversation* c, int n, bool ask, Rendered* out,
                         char* why, size_t size) {
    Rendered lists = {0};
    char other[512];
    bool parts = false;
    for (int i = 0; i < n; i++) parts |= c->messages[i].parts != NULL;
    c->joined = parts;
    bool good = render(f, s, c, n, ask, out, why, size);
    if (!parts) return good;
    c->joined = false;
    if (!render(f, s, c, n, ask, &lists, other, sizeof other)) c->joined = true;
    else if (good) c->joined = loses_parts(c, &lists, out);
    if (c->joined) {
        rendered_free(&lists);
        return good;
    }
    if (good) rendered_free(out);
    *out = lists;
    return true;
}

static int64_t encode(const ChatFormat* f, ChatScratch* s, const Rendered* r, char* why, size_t size) {
    const PlainText plain = {r->given, f->parse_special ? 0 : (int)r->n_given, f->tokens.guarded, f->tokens.n_guarded};
    int64_t n = tokenizer_encode_mixed(f->tokenizer, r->text, r->n, &plain, 0, &s->encoding);
    if (n < 0) snprintf(why, size, "cannot be tokenised: %.120s", s->encoding.error);
    else if (!n) snprintf(why, size, "the chat template makes no text of it");
    return n;
}

static size_t common_prefix(const Rendered* a, const Rendered* b) {
    size_t n = a->n < b->n ? a->n : b->n, i = 0;
    while (i < n && a->text[i] == b->text[i]) i++;
    while (i && i < n && ((unsigned char)a->text[i] & 0xC0) == 0x80) i--;
    return i;
}

// Whether the row's own words end before `at`: what differs after that is the template's.
static bool given_before(const Rendered* r, size_t at) { return !r->n_given || r->given[r->n_given - 1].end <= at; }

// The bytes of `whole` that are answer i: from where it is asked for to where a conversation that ends with it ends.
// False: the template writes what is before it, or the answer itself, differently in the whole.
static bool find_answer(const ChatFormat* f, ChatScratch* s, const Conversation* c, int i, const Rendered* whole,
                        TextRange* span) {
    char why[512];
    Rendered asked, answered = {0};
    if (!render(f, s, c, i, true, &asked, why, sizeof why)) return false;
    span->start = common_prefix(&asked, whole);
    bool good = given_before(&asked, span->start);
    rendered_free(&asked);
    span->end = whole->n;
    if (!good || i == c->n - 1) return good && span->start < span->end;
    if (!render(f, s, c, i + 1, false, &answered, why, sizeof why)) return false;
    span->end = common_prefix(&answered, whole);
    good = given_before(&answered, span->end) && span->end > span->start;
    rendered_free(&answered);
    return good;
}

// Marks the tokens that cover bytes of the span. to_turn_end: no further than the span's last token that ends a turn,
// where it has one; what a template writes after that is nobody's to learn.
static void mark(const Encoding* e, uint8_t* mask, TextRange span, int32_t turn_end) {
    int64_t from = 0, to;
    while (from < e->n && ((size_t)e->end[from] <= span.start || e->end[from] == e->start[from])) from++;
    for (to = from; to < e->n && (size_t)e->start[to] < span.end; to++) {}
    int64_t end = to;
    while (end > from && e->ids[end - 1] != turn_end) end--;
    if (turn_end >= 0 && end > from) to = end;
    for (int64_t i = from; i < to; i++) mask[i] = 1;
}

// Answers of the assistant, those without weight left out.
static bool trained(const Conversation* c, int i) {
    return c->messages[i].role == ROLE_ASSISTANT && c->messages[i].weight != 0.0;
}

// The template's own {% generation %} marks. False: there are none, or not one for each answer where answers count
// differently.
static bool mark_generation(const ChatFormat* f, const Encoding* e, const Conversation* c, const Rendered* whole,
                            uint8_t* mask) {
    size_t answers = 0, k = 0;
    bool every = f->all;
    for (int i = 0; i < c->n; i++) {
        if (c->messages[i].role != ROLE_ASSISTANT) continue;
        answers++;
        every &= trained(c, i);
    }
    if (!whole->n_generation) return false;
    for (; every && k < whole->n_generation; k++) mark(e, mask, whole->generation[k], -1);
    if (every || whole->n_generation != answers) return every;
    for (int i = 0; i < c->n; i++) {
        if (c->messages[i].role != ROLE_ASSISTANT) continue;
        if (trained(c, i) && (f->all || i == c->n - 1)) mark(e, mask, whole->generation[k], -1);
        k++;
    }
    return true;
}

// A prompt of its own carries no loss, up to where it asks for the completion: a mark may begin before that.
static void unmark_prompt(const ChatFormat* f, ChatScratch* s, const Conversation* c, const Rendered* whole,
                          uint8_t* mask, int64_t n) {
    char why[512];
    Rendered asked;
    if (!render(f, s, c, c->asked, true, &asked, why, sizeof why)) return;
    size_t end = common_prefix(&asked, whole);
    for (int64_t i = 0; i < n && (size_t)s->encoding.end[i] <= end; i++) mask[i] = 0;
    rendered_free(&asked);
}

bool chat_sample(const ChatFormat* f, ChatScratch* s, const Conversation* c, ChatSample* out, char* why, size_t size) {
    Rendered whole;
    TextRange span;
    Conversation view = *c;
    memset(out, 0, sizeof *out);
    c = &view;
    if (!check_fields(c, why, size) || !render_parts(f, s, &view, c->n, false, &whole, why, size)) return false;
    int64_t n = encode(f, s, &whole, why, size), marked = 0;
    if (n < 1) {
        rendered_free(&whole);
        return false;
    }
    const Encoding* e = &s->encoding;
    uint8_t* mask = host_alloc((size_t)n, "a row's loss");
    bool good = true;
    if (!mark_generation(f, e, c, &whole, mask)) {
        for (int i = 0; f->all && i < c->n - 1 && !out->last_only; i++)
            if (trained(c, i)) {
                out->last_only = !find_answer(f, s, c, i, &whole, &span);
                if (!out->last_only) mark(e, mask, span, f->tokens.turn_end);
            }
        if (out->last_only) memset(mask, 0, (size_t)n);
        if (trained(c, c->n - 1)) {
            good = find_answer(f, s, c, c->n - 1, &whole, &span);
            if (good) mark(e, mask, span, f->tokens.turn_end);
            else
                snprintf(why, size,
                         "the chat template writes the turns before the answer differently once it is there");
        }
    }
    if (good && c->asked) unmark_prompt(f, s, c, &whole, mask, n);
    mask[0] = 0;  // nothing predicts the first token
    for (int64_t i = 0; i < n; i++) marked += mask[i];
    if (good && !marked)
        snprintf(why, size, "nothing in it carries loss: %s",
                 trained(c, c->n - 1) ? "the chat template drops its answer" : "its answers have weight 0");
    rendered_free(&whole);
    *out = (ChatSample){e->ids, mask, n, out->last_only, c->joined};
    if (good && marked) return true;
    free(mask);
    out->mask = NULL;
    return false;
}

bool chat_prompt(const ChatFormat* f, ChatScratch* s, const Conversation* c, ChatSample* out, char* why, size_t size) {
    Rendered r;
    memset(out, 0, sizeof *out);
    Conversation view = *c;
    if (!check_fields(c, why, size) || !render_parts(f, s, &view, c->n - c->answered, true, &r, why, size))
        return false;
    out->joined = view.joined;
    out->n = encode(f, s, &r, why, size);
    out->ids = s->encoding.ids;
    rendered_free(&r);
    return out->n > 0;
}

uint64_t conversation_hash(const Conversation* c) {
    Text before = {0};
    const Message* last = &c->messages[c->n - 1];
    for (int i = 0; i < c->n - 1; i++) {
        text_add(&before, c->messages[i].role_name, strlen(c->messages[i].role_name) + 1);
        text_add(&before, c->messages[i].content, c->messages[i].length + 1);
    }
    uint64_t hash = row_hash(before.n ? before.s : "", before.n, last->content, last->length);
    text_free(&before);
    return hash;
}
