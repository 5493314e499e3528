/*
Conversations by a chat template: a row as the JSON object that transformers' apply_chat_template would get, its
rendering as tokens, and which of them carry loss. Special tokens are read where the template writes them; in a row's
own words they are text, so that a row can neither end a turn nor begin one, nor move the loss.
*/
#ifndef SEAL_CHAT_ROWS_H
#define SEAL_CHAT_ROWS_H

#include <stdint.h>
#include "base/text.h"
#include "chat.h"
#include "rows/messages.h"
#include "tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

// The options of every command that reads rows.
typedef struct {
    const char* which;            // --chat: auto, none, a file or a name; NULL: auto where the model has a template
    const char* loss_on;          // --loss-on: "all", or "last" and NULL
    bool parse_special;           // --parse-special
    bool compat;                  // --compat: none
    const char* prompt_template;  // --template: none, unless the template is asked for
} ChatOptions;

typedef struct {
    Chat* chat;  // NULL: rows are written as the reference writes them
    const Tokenizer* tokenizer;
    ChatTokens tokens;
    bool all;  // every answer carries loss, not the last alone
    bool parse_special;
    bool every_row;  // the template was asked for: it is applied to rows with as-is prompts, too
    char name[128];
    Hex digest;  // of the template's text
} ChatFormat;

// The template that the options and the model's directory give; fatal where it is unknown, wrong or another model's.
// quiet: no line about what is odd but allowed.
void chat_format_open(ChatFormat* f, const ChatOptions* options, const char* model, const Tokenizer* t, bool quiet);
void chat_format_close(ChatFormat* f);
// "qwen3.jinja (sha256 0123456789ab), loss on the last answer": for headers; "none" without a template.
void chat_format_name(const ChatFormat* f, char* out, size_t size);
bool chat_format_uses(const void* format, const char* field);  // whether the template mentions a field of a row or turn
bool chat_format_applies(const ChatFormat* f, const Conversation* c);

// A thread's memory for it.
typedef struct {
    Encoding encoding;
    JinjaScratch* rendering;
} ChatScratch;
void chat_scratch_open(ChatScratch* s);
void chat_scratch_close(ChatScratch* s);

typedef struct {
    const int32_t* ids;  // (n) the scratch's, until its next use
    uint8_t* mask;       // (n) malloc'ed: 1 where the token carries loss. NULL of a prompt
    int64_t n;
    bool last_only;  // loss on all was asked for, but the template writes earlier answers differently later on
    bool joined;     // content in parts was joined to one text, for the template does not write the list's texts
} ChatSample;

// The whole conversation with its loss. False with `why`: the template refuses it, or nothing in it carries loss.
bool chat_sample(const ChatFormat* f, ChatScratch* s, const Conversation* c, ChatSample* out, char* why, size_t size);
// The conversation up to where the answer is asked for, its last answer left out. False with `why`.
bool chat_prompt(const ChatFormat* f, ChatScratch* s, const Conversation* c, ChatSample* out, char* why, size_t size);
uint64_t conversation_hash(const Conversation* c);  // of roles and texts, whatever the template

// {"messages": […], "tools": …, "add_generation_prompt": ask} of the first n messages, appended to `out`.
void conversation_json(const Conversation* c, int n, bool ask, Text* out);
void json_put_text(Text* out, const char* text, size_t n);  // between quotes

#ifdef __cplusplus
}
#endif
#endif
