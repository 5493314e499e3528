/*
What the files of the template interpreter share.

  jinja_lex.c       text to tokens
  jinja_parse.c     tokens to a tree
  jinja_names.c     which variable a name means (Jinja decides that before it runs)
  jinja_value.c     Python's values: memory, texts, numbers, comparison
  jinja_print.c     values as text: str, repr, JSON; and JSON as values
  jinja_text.c      texts: methods of str, case
  jinja_format.c    str.format and %
  jinja_object.c    iteration, attributes, items and methods of values
  jinja_filter.c    filters
  jinja_builtin.c   tests and functions
  jinja.c           evaluation

An error leaves by longjmp (jinja_fail). All memory comes from an arena, so a longjmp leaks nothing.
*/
#ifndef JINJA_INTERNAL_H
#define JINJA_INTERNAL_H

#include <setjmp.h>
#include <string.h>
#include "jinja.h"

// ---- memory ----------------------------------------------------------------------------------------
typedef struct ArenaBlock ArenaBlock;
typedef struct {
    ArenaBlock* first;  // newest
    size_t total, limit;
} Arena;
void* arena_alloc(Arena* a, size_t n);  // zeroed, aligned to 16; NULL: over the limit
void arena_reset(Arena* a);             // keeps one block
void arena_free(Arena* a);

// ---- values ----------------------------------------------------------------------------------------
typedef enum {
    V_MISSING,  // no value at all: an argument that was not given, a variable not yet set
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_BIG,  // an integer beyond 64 bits, as decimal digits: printed and compared, not calculated with
    V_FLOAT,
    V_STRING,
    V_LIST,
    V_TUPLE,
    V_DICT,
    V_KEYS,
    V_VALUES,
    V_ITEMS,  // views of a dictionary
    V_RANGE,
    V_ITERATOR,
    V_NAMESPACE,
    V_MACRO,
    V_FUNCTION,
    V_METHOD,
    V_LOOP,
    V_CYCLER,
    V_JOINER
} ValueType;

typedef struct Str Str;
typedef struct List List;
typedef struct Dict Dict;
typedef struct Undef Undef;
typedef struct RangeValue RangeValue;
typedef struct Iterator Iterator;
typedef struct Macro Macro;
typedef struct Method Method;
typedef struct Loop Loop;
typedef struct Cycler Cycler;
typedef struct Joiner Joiner;
typedef struct Node Node;
typedef struct Interp Interp;

typedef struct {
    ValueType type;
    union {
        bool b;
        int64_t i;
        double f;
        Str* s;  // STRING, BIG
        List* list;
        Dict* dict;  // DICT, KEYS, VALUES, ITEMS, NAMESPACE
        Undef* undef;
        RangeValue* range;
        Iterator* iterator;
        Macro* macro;
        int function;
        Method* method;
        Loop* loop;
        Cycler* cycler;
        Joiner* joiner;
    };
} Value;

typedef enum { FROM_TEMPLATE, FROM_ROW, FROM_BOTH } Origin;
struct Str {
    const char* p;
    size_t n;
    int64_t length;         // code points; −1: not counted yet
    const uint8_t* origin;  // FROM_BOTH: (n) of every byte
    uint8_t from;
    bool markup;  // markupsafe.Markup
};
struct List {
    Value* v;
    size_t n, room;
    bool group;  // a tuple of groupby: has .grouper and .list
};
typedef struct {
    Value key, value;
} Pair;
struct Dict {
    Pair* pair;
    size_t n, room;
    uint32_t* slot;  // a hash table over pair, once there are many; (n_slots) index + 1
    size_t n_slots;
};
struct Undef {
    const char* hint;   // the whole message; NULL: by the two below
    const char* owner;  // "dict object"; NULL: a variable
    Value name;
    bool unsafe;
};
struct RangeValue {
    int64_t start, stop, step, n;
};
struct Method {
    Value self;
    int id;
};
struct Cycler {
    Value* v;
    size_t n, at;
};
struct Joiner {
    Value separator;
    bool used;
};

typedef struct {
    char* p;
    size_t n, room;
    uint8_t* origin;  // once both kinds are in it
    uint8_t from;
} Builder;

typedef struct {
    Value* v;
    size_t n;
    struct Named {
        const char* name;
        Value value;
    } * named;
    size_t n_named;
} Args;

// ---- the tree --------------------------------------------------------------------------------------
typedef enum {
    // expressions
    N_CONST,
    N_NAME,
    N_NSREF,
    N_TUPLE,
    N_LIST,
    N_DICT,
    N_GETATTR,
    N_GETITEM,
    N_SLICE,
    N_CALL,
    N_FILTER,
    N_TEST,
    N_NOT,
    N_NEG,
    N_POS,
    N_BINARY,
    N_AND,
    N_OR,
    N_CONCAT,
    N_COMPARE,
    N_CONDITION,
    // statements
    N_TEXT,
    N_PRINT,
    N_SET,
    N_SET_BLOCK,
    N_IF,
    N_FOR,
    N_WITH,
    N_MACRO,
    N_CALL_BLOCK,
    N_GENERATION,
    N_FILTER_BLOCK,
    N_BREAK,
    N_CONTINUE
} NodeKind;

typedef enum { NAME_LOAD, NAME_STORE, NAME_PARAMETER } NameUse;
typedef enum { LOAD_PARAMETER, LOAD_RESOLVE, LOAD_ALIAS, LOAD_UNDEFINED } LoadKind;

typedef struct {
    int hops, slot;
} Variable;  // in the activation `hops` functions out

typedef struct {
    LoadKind kind;
    int slot;
    Variable from;     // ALIAS
    const char* name;  // RESOLVE
} Load;
typedef struct {
    Load* load;
    int n;
} Scope;  // what a scope's variables are when it is entered

typedef struct {
    const char* key;
    Node* value;
} Keyword;

typedef struct {
    Node** v;
    int n;
} NodeList;

struct Node {
    uint8_t kind;
    uint8_t op;  // BINARY, COMPARE: of each operand in ops; NAME: NameUse
    bool flag;   // FOR: recursive; MACRO, CALL_BLOCK: has a caller
    bool flag2;  // FOR: needs `loop`
    bool kwargs, varargs;
    int line;
    const char* name;  // interned
    Variable variable;
    Value value;  // CONST, TEXT; the attribute of GETATTR
    Node *a, *b, *c;
    NodeList items;  // elements, arguments, body
    NodeList other;  // else branch; DICT: values; MACRO: parameters
    NodeList defaults;
    Keyword* keyword;
    int n_keywords;
    uint8_t* ops;
    Node *star, *star2;           // *args, **kwargs
    int builtin;                  // FILTER, TEST: index of the table; −1: none, an error when it runs
    Scope scope, scope2, scope3;  // FOR: body, else, test
    int n_slots, n_slots2;        // of the function that this node makes; FOR: of the loop (recursive), of the test
    int* parameter_slot;
    int caller_slot, kwargs_slot, varargs_slot, loop_slot;
};

enum { OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD, OP_POW };
enum { CMP_EQ, CMP_NE, CMP_LT, CMP_LE, CMP_GT, CMP_GE, CMP_IN, CMP_NOTIN };

struct JinjaTemplate {
    Arena arena;
    char* name;
    Node* root;  // items: body
    const char** words;
    size_t n_words, room_words;
};

// ---- a rendering -----------------------------------------------------------------------------------
typedef struct Activation Activation;
struct Activation {
    Activation* outer;
    Value slot[];
};

struct Macro {
    const Node* node;
    Activation* outer;
    const char* name;  // NULL: anonymous
};

typedef enum {
    IT_EMPTY,
    IT_LIST,
    IT_STRING,
    IT_DICT,  // by kind of view
    IT_RANGE,
    IT_REVERSED,
    IT_MAP,
    IT_MAP_ATTRIBUTE,
    IT_SELECT,
    IT_UNIQUE,
    IT_BATCH,
    IT_SLICES,
    IT_FILTERED
} IteratorKind;
struct Iterator {
    IteratorKind kind;
    Value source;
    int64_t at, n;
    Iterator* inner;
    // map and select
    int builtin;
    Args args;
    Value attribute, fallback;
    bool has_attribute, reject, plain, insensitive, waiting;
    Dict* seen;
    // FILTERED
    const Node* node;
    Activation* activation;
    const char* type_name;
};

struct Loop {
    Iterator* iterator;
    Value iterable, current, before, after;
    int64_t index0, length, depth0;
    const Node* node;  // recursive: to be entered again
    Activation* outer;
    Value changed;
};

struct Interp {
    Arena arena;
    JinjaLimits limits;
    const JinjaTemplate* t;
    jmp_buf out_of_it;
    char* error;
    size_t error_size;
    int64_t steps;
    int depth, line;
    Dict *row, *variables;
    Builder* out;  // where the present statement prints
    Builder root;  // what is rendered for good
    bool yielded;  // something, be it empty, was printed to root
    Activation* act;
    TextRange *generation, *given;
    size_t n_generation, room_generation;
};

struct JinjaScratch {
    Interp in;
};

__attribute__((format(printf, 2, 3), noreturn)) void jinja_fail(Interp* in, const char* format, ...);
// The template's limit is reached.
__attribute__((noreturn)) void jinja_no_memory(Interp* in);
void* jinja_new(Interp* in, size_t n);
void jinja_work(Interp* in, size_t bytes);  // counts as steps

// ---- jinja_value.c
static inline Value v_missing(void) { return (Value){.type = V_MISSING}; }
static inline Value v_none(void) { return (Value){.type = V_NONE}; }
static inline Value v_bool(bool b) { return (Value){.type = V_BOOL, .b = b}; }
static inline Value v_int(int64_t i) { return (Value){.type = V_INT, .i = i}; }
static inline Value v_float(double f) { return (Value){.type = V_FLOAT, .f = f}; }
static inline bool given(Value v) { return v.type != V_MISSING; }
Value v_text(Interp* in, const char* text);                            // of the template
Value v_string(Interp* in, const char* p, size_t n, const Str* like);  // bytes of `like`, or all of its origin
Value v_part(Interp* in, const Str* s, size_t from, size_t to);        // shares the bytes
Value v_list(Interp* in, size_t room);
Value v_tuple(Interp* in, size_t room);
Value v_dict(Interp* in);
Value v_undefined(Interp* in, const char* hint);
Value v_undefined_name(Interp* in, const char* name);
void list_put(Interp* in, List* l, Value v);
void dict_put(Interp* in, Dict* d, Value key, Value value);
const Value* dict_get(Interp* in, Dict* d, Value key);
const Value* dict_get_text(Interp* in, Dict* d, const char* key);
void must_hash(Interp* in, Value v);

void put(Interp* in, Builder* b, const char* p, size_t n, const Str* like);  // like = NULL: of the template
void put_str(Interp* in, Builder* b, const Str* s);
void put_text_(Interp* in, Builder* b, const char* text);
void put_char(Interp* in, Builder* b, int32_t c, const Str* like);
Value built(Interp* in, Builder* b);

int char_at(const char* p, const char* end, int32_t* c);  // bytes of the character at p
int encode_char(int32_t c, char out[4]);  // returns the bytes; a surrogate is three, as if it were a character
int64_t str_length(Str* s);
size_t str_offset(Str* s, int64_t index);  // byte where code point `index` begins
const char* type_name(Value v);
bool truth(Value v);
bool equal(Interp* in, Value a, Value b);
bool less(Interp* in, Value a, Value b, const char* op);
bool contains(Interp* in, Value item, Value container);
Value binary(Interp* in, int op, Value a, Value b);
Value negative(Interp* in, Value v, bool plus);
Value repeat(Interp* in, Value sequence, Value count);  // sequence * count
int64_t value_length(Interp* in, Value v);
_Noreturn void fail_undefined(Interp* in, Value v);
bool is_number(Value v);
int64_t index_of(Interp* in, Value v, const char* what);  // an integer, or an error
double number_of(Value v);
Value integer_from(Interp* in, const char* digits, size_t n, const Str* like);  // decimal, with sign
bool number_from_text(const char* p, size_t n, double* f);                      // Python's float(text)

// ---- jinja_print.c
Str* text_of(Interp* in, Value v);  // str(v)
void put_value(Interp* in, Builder* b, Value v);
void put_repr(Interp* in, Builder* b, Value v);
void put_json(Interp* in, Builder* b, Value v, Value indent, const Str* item, const Str* key, bool ascii, bool sort);
void float_repr(double f, char out[32]);
bool parse_json(Interp* in, const char* json, size_t n, Origin from, Value* out);  // false: in->error says why

// ---- jinja_text.c
bool is_space_(int32_t c);
void put_padding(Interp* in, Builder* b, int64_t n, const Str* fill);  // n times
Value str_method(Interp* in, Str* s, int id, Args* args);
Value escape_text(Interp* in, Value v);
Value str_strip(Interp* in, Str* s, Value chars, bool left, bool right);
Value str_lower(Interp* in, Str* s);
Value str_upper(Interp* in, Str* s);
Value str_capitalize(Interp* in, Str* s);
Value str_replace(Interp* in, Str* s, Str* old, Str* new_, int64_t count);
Value str_splitlines(Interp* in, Str* s, bool keep);
Value str_center(Interp* in, Str* s, int64_t width, Str* fill);
bool str_is(Str* s, int id);
bool is_alnum_(int32_t c);
bool is_printable_(int32_t c);
int find_method(Value v, const char* name);  // −1: the type has none
const char* method_name(int id);
enum { METHOD_REFUSED = 10000 };  // ids from here on: known, and unsafe in the sandbox

// ---- jinja_format.c
Value format_percent(Interp* in, Str* format, Value v);
Value format_braces(Interp* in, Str* format, Args* args);

// ---- jinja_object.c
void bind_arguments(Interp* in, const char* what, Args* args, const char* const* names, int n, int required,
                    Value* out);
Iterator* iterator_new(Interp* in, IteratorKind kind, Value source);
Iterator* iterate(Interp* in, Value v);
Iterator* try_iterate(Interp* in, Value v);  // NULL: not iterable
bool next_item(Interp* in, Iterator* it, Value* v);
Value list_of(Interp* in, Value v);          // list(v)
Value item_pair(Interp* in, const Pair* p);  // (key, value)
Value ignore_case(Interp* in, Value v);      // a text in lower case; anything else as it is
Value follow_attribute(Interp* in, Value v, Value attribute, Value fallback);
Value get_attribute(Interp* in, Value v, const char* name, Value name_value);
Value get_item(Interp* in, Value v, Value key);
bool own_attribute(Interp* in, Value v, const char* name, Value name_value, Value* out);
Value no_such_item(Interp* in, Value v, Value name, bool unsafe);  // undefined, and says what is missing
Value call_method(Interp* in, Method* m, Args* args);

// ---- jinja_filter.c
int find_filter(const char* name);
Value call_filter(Interp* in, int filter, Value v, Args* args);
void begin_generator(Interp* in, Iterator* it);

// ---- jinja_builtin.c
int find_test(const char* name);
int find_global(const char* name);
bool call_test(Interp* in, int test, Value v, Args* args);
Value call_global(Interp* in, int function, Args* args);

// ---- jinja.c
Value call_value(Interp* in, Value callee, Args* args);
Value loop_attribute(Interp* in, Loop* loop, const char* name);
bool filter_test(Interp* in, Iterator* it, Value item);
Value call_loop_method(Interp* in, Loop* loop, bool cycle, Args* args);

// ---- jinja_parse.c
bool jinja_parse(Interp* in, JinjaTemplate* t, const char* source, size_t n);

#endif
