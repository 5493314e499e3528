/* Text that grows, memory on the host, paths, digests as text: what every room needs and none owns. */
#ifndef SEAL_TEXT_H
#define SEAL_TEXT_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// bytes of zeros. Out of memory is fatal and names `what`: "out of host memory for WHAT (n bytes)".
void* host_alloc(size_t bytes, const char* what);
// The same block with room for `bytes`; what is new is not initialised.
void* host_resize(void* block, size_t bytes, const char* what);

// What a library made: NULL is as fatal, "out of host memory for WHAT".
void* host_made(void* made, const char* what);

// n bytes of a text and a zero.
char* host_copy(const char* text, size_t n);
struct cJSON;
char* json_text(const struct cJSON* json);         // on one line; to be freed
char* json_pretty_text(const struct cJSON* json);  // indented

// Paths have buffers of one size: PATH_MAX, and room for what the name of a temporary file appends. A path that is
// longer than PATH_MAX is fatal, never cut.
enum { PATH_ROOM = 4200 };
typedef struct {
    char s[PATH_ROOM];
} Path;
// DIRECTORY/NAME. Passed by value: path_of(run, "log.jsonl").s
__attribute__((format(printf, 2, 3))) Path path_of(const char* directory, const char* name_format, ...);
// The path that a format gives: path_text("%s.partial", out).s
__attribute__((format(printf, 1, 2))) Path path_text(const char* format, ...);
void path_copy(char to[PATH_ROOM], const char* path);

// A SHA-256 as 64 hexadecimal digits and a zero.
typedef char Hex[65];
void hex_of(const unsigned char sha256[32], Hex hex);

typedef struct {
    char* s;
    size_t n, capacity;
} Text;  // s[n] is 0 once anything was added
void text_add(Text* t, const void* bytes, size_t n);
__attribute__((format(printf, 2, 3))) void text_printf(Text* t, const char* format, ...);
void text_free(Text* t);

#ifdef __cplusplus
}
#endif
#endif
