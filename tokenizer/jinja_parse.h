/*
What the three files that make a tree of a template share.

  jinja_lex.c       text to tokens, with trim_blocks and lstrip_blocks
  jinja_parse.c     tokens to a tree
  jinja_names.c     which variable a name of the tree means
*/
#ifndef JINJA_PARSE_H
#define JINJA_PARSE_H

#include "jinja_internal.h"

typedef enum { T_TEXT, T_VARIABLE, T_VARIABLE_END, T_BLOCK, T_BLOCK_END, T_NAME, T_CONST, T_OP, T_END } TokenType;
typedef struct {
    TokenType type;
    int line;
    bool string;
    const char* name;  // NAME, OP: interned
    Value value;       // CONST, TEXT
} Token;

typedef struct {
    Interp* in;
    JinjaTemplate* t;
    const char* s;
    size_t n, at, counted;
    int line;
    bool line_starting;
    Token* token;
    size_t n_tokens, room, next;
    char brackets[256];
    int n_brackets;
    int nesting;
} Parser;

// ---- jinja_lex.c
void* array_room(Interp* in, void* old, size_t n, size_t* room, size_t size);  // for one more; in the template's memory
const char* intern_word(Parser* p, const char* text, size_t n);                // equal words are the same pointer
void lex_template(Parser* p);

// ---- jinja_parse.c
void nodes_put(Parser* p, NodeList* l, Node* n);

// ---- jinja_names.c
void resolve_names(Parser* p, Node* root);  // fills in the variables and scopes of every node

#endif
