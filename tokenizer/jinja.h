/*
Chat templates, executed: the Jinja that the templates in models' directories are written in, as transformers runs it
(ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loop controls, {% generation %}, tojson, raise_exception,
strftime_now). The same bytes, or an error that names template, line and construct. Rendering has limits on steps, depth
and memory, so that a hostile template ends in one line.
*/
#ifndef JINJA_H
#define JINJA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct JinjaTemplate JinjaTemplate;
typedef struct JinjaScratch JinjaScratch;

typedef struct {
    const char* text;  // (n) UTF-8, zero-terminated; a lone surrogate of the input is three bytes
    size_t n;
    const TextRange* generation;  // (n_generation) what {% generation %} marks, in order
    size_t n_generation;
    const TextRange* given;  // (n_given) what comes from the row rather than from the template, in order
    size_t n_given;
} JinjaResult;  // valid until the next call with the same scratch

typedef struct {
    int64_t steps;  // evaluated nodes, and bytes worked on in units of 256
    size_t memory;  // bytes of one rendering
    int depth;      // of calls and of nested expressions
} JinjaLimits;

// NULL with `error` ("what (NAME, line LINE)"): not this Jinja. `name` is what messages call the template.
JinjaTemplate* jinja_compile(const char* name, const char* source, size_t n, char* error, size_t error_size);
void jinja_free(JinjaTemplate* t);
// Whether the template mentions `word`: as a variable, an attribute or a text between quotes.
bool jinja_mentions(const JinjaTemplate* t, const char* word);

// A thread's memory; NULL: the machine has none left. limits = NULL: the defaults.
JinjaScratch* jinja_begin(const JinjaLimits* limits);
void jinja_end(JinjaScratch* s);

// Renders with the variables of two JSON objects. `row` is what somebody else wrote: its texts are reported as `given`,
// its names of roles that every template knows excepted. `variables` (NULL: none) are the caller's: bos_token,
// eos_token …; a name in both is the row's. False with `error`.
bool jinja_render(const JinjaTemplate* t, JinjaScratch* s, const char* row, size_t n_row, const char* variables,
                  size_t n_variables, JinjaResult* result, char* error, size_t error_size);

#ifdef __cplusplus
}
#endif
#endif
