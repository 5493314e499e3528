/*
The GGUF format of llama.cpp (versions 2 and 3, little-endian): magic, version, counts, key-value metadata, tensor
infos, aligned raw data in F32, F16, BF16 or blocks of quantised weights. One file, the splits
NAME-00001-of-00004.gguf, or the pieces of one file (NAME.gguf.part00 …). The reader checks everything before it hands
out a pointer: a truncated, overlapping or contradictory file ends in one line that names the file and what is wrong.
*/
#ifndef SEAL_GGUF_H
#define SEAL_GGUF_H

#include <stdbool.h>
#include "base/file.h"

#ifdef __cplusplus
extern "C" {
#endif

// The numbers are the format's own.
typedef enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_VALUE_TYPES
} GgufValueType;

typedef struct {
    const char* bytes;  // in the file: no zero after them
    size_t n;
} GgufString;

typedef struct {
    char* key;
    GgufValueType type;   // of the value, or of an array's elements
    bool array;           // arrays of arrays are refused
    uint64_t count;       // elements; 1 where it is not an array
    const uint8_t* data;  // little-endian, unaligned
    GgufString* strings;  // (count) where the type is GGUF_STRING
} GgufValue;

#define GGUF_MAX_DIMS 4

typedef struct {
    char* name;
    int type;  // row of the table of types in gguf.c
    int n_dims;
    int64_t shape[GGUF_MAX_DIMS];  // the fastest dimension first: (columns, rows) of a matrix
    int64_t count;                 // product of the shape
    uint64_t offset;               // in the part's data, as the file has it
    const uint8_t* data;
    size_t bytes;
} GgufTensor;

typedef struct {
    MappedFile file;  // where the part is one file
    uint8_t* joined;  // where it is put together from pieces
    const uint8_t* data;
    size_t length;
    char path[PATH_ROOM];  // for messages
} GgufPart;

typedef struct {
    GgufPart* parts;
    int n_parts;
    GgufValue* values;  // of the first part
    int n_values;
    GgufTensor* tensors;  // of all parts, in the order of the files
    int n_tensors;
    void *by_key, *by_name;  // hash maps
} GgufReader;

// paths: one file (its other splits or pieces are found by its name), or all of them in their order.
void gguf_open(GgufReader* r, const char* const* paths, int n_paths);
void gguf_close(GgufReader* r);
const char* gguf_path(const GgufReader* r);  // of the first part

const GgufValue* gguf_find(const GgufReader* r, const char* key);  // NULL where there is none
// A key that is there must have the right type, or the program ends with a line that names it.
bool gguf_number(const GgufReader* r, const char* key, double* number);  // any scalar that is not a string; false: none
bool gguf_bool(const GgufReader* r, const char* key, bool otherwise);
char* gguf_text(const GgufReader* r, const char* key);                // to be freed; NULL where there is none
const GgufValue* gguf_strings(const GgufReader* r, const char* key);  // an array of strings; NULL where there is none
const GgufValue* gguf_numbers(const GgufReader* r, const char* key);  // an array of numbers; NULL where there is none
double gguf_element(const GgufValue* v, uint64_t i);                  // of a value of numbers

const GgufTensor* gguf_tensor(const GgufReader* r, const char* name);  // NULL where there is none
const char* gguf_type_name(const GgufTensor* t);
// Elements [from, from + n) as fp32, with the roundings of the `gguf` Python package: the same bits. Both are multiples
// of the type's block; a row's length always is.
void gguf_to_float(const GgufTensor* t, int64_t from, int64_t n, float* out);

#ifdef __cplusplus
}
#endif
#endif
