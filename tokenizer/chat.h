/*
The chat template in use: a model's own, a file, or one of ours by its name, with the variables that transformers hands
to it (bos_token, eos_token …). See jinja.h for how it is run.
*/
#ifndef CHAT_H
#define CHAT_H

#include "jinja.h"
#include "tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Chat Chat;

// which: "auto", the template of `directory` (chat_template.jinja, chat_template.json, or chat_template in
// tokenizer_config.json); a name of ours (chat_alias); a name of the directory's own (tool_use, rag …); or a file.
// directory NULL: none. The tokenizer (NULL: none) says bos_token and eos_token where no file of the directory does.
// NULL with `error`.
Chat* chat_open(const char* which, const char* directory, const Tokenizer* tokenizer, char* error, size_t error_size);
void chat_close(Chat* c);
bool chat_has_template(const char* directory);
bool chat_variables_in(const char* directory);  // whether files of it name bos_token and eos_token
const char* chat_alias(int i);                  // llama3, mistral (v0.3), mistral-v0.2, phi3; NULL after the last

const char* chat_name(const Chat* c);                 // as messages call it
const char* chat_source(const Chat* c, size_t* n);    // the template's text
const char* chat_end_text(const Chat* c);             // the text of eos_token; "": none
bool chat_mentions(const Chat* c, const char* word);  // see jinja_mentions; of any of its templates

// Renders a row, a JSON object with `messages` and whatever else the template reads. The text spells BOS and the other
// special tokens itself: encode it with tokenizer_encode_mixed, its `given` spans plain, and without
// TOKENIZER_ADD_SPECIAL. A directory's template "tool_use" is taken for a row with tools, as transformers does.
bool chat_render(const Chat* c, JinjaScratch* s, const char* row, size_t n, JinjaResult* result, char* error,
                 size_t error_size);

// What a tokenizer makes of the template.
typedef struct {
    int32_t turn_end;        // the token that ends the assistant's turn; −1: the template writes none
    char missing[64];        // a marker that the template writes and the tokenizer does not have as one token; "": none
    const int32_t* guarded;  // (n_guarded) added tokens that the template writes as marks of turns, whatever their flag
    int n_guarded;
} ChatTokens;
// False with `error`: the template is another model's, because this tokenizer lacks the token that ends the assistant's
// turn in it (for a template of ours, any token that it is written with).
bool chat_fits(Chat* c, const Tokenizer* t, ChatTokens* tokens, char* error, size_t error_size);

#ifdef __cplusplus
}
#endif
#endif
