/* What layouts.c and messages.c share: fields of a record, and the reasons why a row is left out. */
#ifndef SEAL_LAYOUTS_H
#define SEAL_LAYOUTS_H

#include "rows/dataset.h"
#include "rows/messages.h"

typedef struct cJSON cJSON;

// The record's conversation by the first layout that fits; takes `fields` over, whatever becomes of it. row: layout,
// state and why.
void conversation_read(Conversation* c, cJSON* fields, const RowOptions* options, DataRow* row);
// The reference's text of it: what is before the answer with the template, and the answer.
void conversation_plain(const Conversation* c, const RowOptions* options, DataRow* row, Text* prompt, Text* response);
bool layouts_know(const char* name);  // whether it is a field of some layout, upper and lower case ignored
// Counts the record's fields with text that neither the layout nor the way of writing uses.
void conversation_unread(const Conversation* c, const RowOptions* options, RowReport* report);

// Makes a row malformed for this reason. Returns false.
__attribute__((format(printf, 2, 3))) bool row_bad(DataRow* row, const char* format, ...);
// The field of that name: the LAST one where a record has several, as in Python; where none is spelled so, upper and
// lower case are ignored. NULL: none.
const cJSON* record_field(const cJSON* object, const char* name);
// A text, or a number as the record writes it; NULL: neither (null among them).
const char* value_text(const cJSON* value);
const char* json_kind(const cJSON* value);  // "a list", "an object" …: for messages
// A list whose first element has a speaker.
bool holds_turns(const cJSON* value);
// Makes a value a list of turns that other files write otherwise: one turn alone ({"from", "value"}), and where
// `listed`, pairs ([{"human", "assistant"}, …]; {"input", "output"} too), texts that take turns (["Hi", "Hello.", …])
// or a list as JSON in a text, as a table has it. Any other value stays.
void turns_unfold(cJSON* value, bool listed);
// value_text, or a list of parts of text, joined.
const char* content_text(Conversation* c, const cJSON* value);
// Appends the turns of a list to c. False with row->why.
bool turns_read(Conversation* c, const cJSON* list, const char* name, DataRow* row);
// The weight that a field gives, which may be missing (then *weight stays). False: not a number from 0 on.
bool weight_of(const cJSON* value, double* weight);

#endif
