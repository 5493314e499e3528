/* Conversations for a chat template: a row as the JSON object that transformers' apply_chat_template would get. */
#ifndef SEAL_CHAT_ROWS_H
#define SEAL_CHAT_ROWS_H

#include "base/text.h"
#include "rows/messages.h"

#ifdef __cplusplus
extern "C" {
#endif

// {"messages": […], "tools": …, "add_generation_prompt": ask} of the first n messages, appended to `out`.
void conversation_json(const Conversation* c, int n, bool ask, Text* out);
void json_put_text(Text* out, const char* text, size_t n);  // between quotes

#ifdef __cplusplus
}
#endif
#endif
