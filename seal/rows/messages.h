/*
A row as a conversation: what a record says, before it is written in any format. layouts.c makes one of every
record, whatever its fields are called; the reference's text ("Human: … Assistant: …", in layouts.c) or a chat template
writes it down.
*/
#ifndef SEAL_MESSAGES_H
#define SEAL_MESSAGES_H

#include <stdbool.h>
#include <stddef.h>
#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cJSON;

// ROLE_OTHER: a name that only a template may know; it gets the name as it is written.
typedef enum { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL, ROLE_OTHER } MessageRole;

// One turn. Turns of one speaker that follow each other are separate messages: a template decides what becomes of them,
// the reference's text joins them with a line end.
typedef struct {
    MessageRole role;
    const char* role_name;  // for a template: "system", "user", "assistant", "tool"; as written where that says more
                            // ("developer", "ipython", any ROLE_OTHER)
    const char* content;    // UTF-8 and a zero; "" where the record has null. Parts of text are joined
    const struct cJSON* parts;  // content as the record has it where that is a list of parts of text; NULL: it is not
    size_t length;              // bytes of content; it holds no zero
    double weight;        // 1, or what the turn's `weight`, `loss` or `train` says, false being 0: a turn of weight 0
                          // carries no loss
    const char* spelled;  // its role as the record spells it; NULL of a message that comes from a field
    bool call;            // a turn "function_call": where its text is a call it is in fields' tool_calls, content is ""
    int turn;             // 1-based place in the record's list of turns, 0 of a message that comes from a field
    const struct cJSON* fields;  // further fields of the turn, an object or NULL: a template sees those of them that
                                 // message_passes() (tool_calls, reasoning_content, name …), besides role and content
} Message;

typedef struct {
    Message* messages;
    int n, capacity;
    bool answered;  // the last message is an answer of the assistant. False only where prompts alone are read
    int asked;      // the first messages that are a prompt of its own, as turns, and carry no loss; 0: there is none
    bool as_it_is;  // two texts that are taken as they are (prompt/chosen, input/output): messages are the user's and
                    // the assistant's, and no template is applied
    bool system_prompt;  // the first message comes from a field "system_prompt", which the reference's text leaves out
    bool joined;         // a template gets content in parts as one text: it does not take the list
    const struct cJSON* tools;      // an array for a template's `tools`, or NULL. A text that holds JSON was parsed
    const struct cJSON* variables;  // the record's `chat_template_kwargs`, an object, or NULL: further variables
    double weight;                  // of the row, ≥ 0; 1 where the record does not say
    const char* read[12];           // names of the record's fields that went into the above
    int n_read;
    struct cJSON *record, *made;  // owners of what the pointers above lead to: the record, and what had to be made
} Conversation;

// Whether a template sees a further field of a turn under its name: all but those that Message has already.
bool message_passes(const char* field);
// Appends a message; the members that are not given are the caller's to change. content is not copied: it belongs to
// the record or to `made` (conversation_keep).
Message* conversation_add(Conversation* c, MessageRole role, const char* content, size_t length);
const char* conversation_keep(Conversation* c, const char* text, size_t length);  // a copy that the conversation owns
// What a reader of results is told was asked: the texts before the answer, each on a line of its own; without a
// system_prompt.
void conversation_question(const Conversation* c, Text* out);
// Frees all it owns and leaves an empty one. A Conversation may be moved by copying the struct and emptying the source:
// the pointers stay good.
void conversation_free(Conversation* c);

#ifdef __cplusplus
}
#endif
#endif
