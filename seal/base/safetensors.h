/*
The safetensors format: 8 bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, raw little-endian
data. The reader maps the file and checks everything before it hands out a pointer: a truncated, overlapping or
contradictory file ends in one line that names the file and the tensor.
*/
#ifndef SEAL_SAFETENSORS_H
#define SEAL_SAFETENSORS_H

#include "base/file.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { ST_F32, ST_F16, ST_BF16, ST_F64, ST_I32, ST_I64, ST_U8, ST_OTHER } StDtype;
#define ST_MAX_DIMS 8

typedef struct {
    char* name;
    StDtype dtype;
    const char* type;  // the dtype's name in the file; of ST_OTHER as well
    int n_dims;
    int64_t shape[ST_MAX_DIMS];
    int64_t count;        // product of the shape
    const uint8_t* data;  // in the mapped file; alignment is the file's, so read with memcpy or st_to_float
    size_t bytes;
} StTensor;

typedef struct {
    MappedFile file;
    StTensor* tensors;
    int n_tensors;
    char** metadata;  // key, value, key, value …
    int n_metadata;
    void* by_name;  // hash map
} StReader;

void st_open(StReader* r, const char* path);
void st_close(StReader* r);
const StTensor* st_find(const StReader* r, const char* name);  // NULL where there is none
const StTensor* st_need(const StReader* r, const char* name);  // ends the program where there is none
const char* st_metadata(const StReader* r, const char* key);   // NULL where there is none
const char* st_dtype_name(StDtype dtype);
size_t st_dtype_size(StDtype dtype);
// Elements [from, from + n) as fp32. F32, F16, BF16 only; any other dtype ends the program with a message.
void st_to_float(const StReader* r, const StTensor* t, int64_t from, int64_t n, float* out);
// n floats in a dtype, rounded to nearest, ties to even; F32, F16, BF16 only. out may be in itself.
void st_from_float(StDtype dtype, const float* in, int64_t n, void* out);
float st_half_to_float(uint16_t half);
// The whole tensor, checked to be of this dtype and count, copied.
void st_copy(const StReader* r, const char* name, StDtype dtype, int64_t count, void* out);

// The tensor's pages may leave memory again: what has been copied to the device need not stay on the host.
void st_forget(const StReader* r, const StTensor* t);

// A model's files: STEM.safetensors, or the shards that STEM.safetensors.index.json names. Every tensor of the index
// must be in the file it names, once.
typedef struct {
    StReader* files;
    int n_files;
} StModel;
void st_open_model(StModel* m, const char* directory, const char* stem);
void st_close_model(StModel* m);
const StTensor* st_model_find(const StModel* m, const char* name, const StReader** file);  // NULL where there is none

// Writing: declare all tensors, then write their data in the same order.
typedef struct {
    AtomicFile file;
    StTensor* tensors;
    int n_tensors, written;
    size_t written_bytes;  // of the current tensor
    char** metadata;
    int n_metadata;
    bool begun;
} StWriter;

void st_create(StWriter* w, const char* path);
void st_set_metadata(StWriter* w, const char* key, const char* value);
void st_declare(StWriter* w, const char* name, StDtype dtype, int n_dims, const int64_t* shape);
void st_write(StWriter* w, const void* data, size_t bytes);  // the next bytes of the next tensor
void st_commit(StWriter* w);
// The header alone (name, dtype, shape and bytes of each tensor, in the order of the data), to be freed; NULL: out of
// memory.
char* st_header(const StTensor* tensors, int n_tensors, char* const* metadata, int n_metadata, size_t* length);

#ifdef __cplusplus
}
#endif
#endif
