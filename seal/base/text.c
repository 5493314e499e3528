/* See text.h. */
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cjson/cJSON.h>
#include "base/error.h"
#include "base/text.h"

void* host_alloc(size_t bytes, const char* what) {
    void* p = calloc(bytes ? bytes : 1, 1);
    if (!p) fatal("out of host memory for %s (%zu bytes)", what, bytes);
    return p;
}

void* host_resize(void* block, size_t bytes, const char* what) {
    void* p = realloc(block, bytes ? bytes : 1);
    if (!p) fatal("out of host memory for %s (%zu bytes)", what, bytes);
    return p;
}

char* host_copy(const char* text, size_t n) {
    char* copy = (char*)host_alloc(n + 1, "a text");
    if (n) memcpy(copy, text, n);
    return copy;
}

void* host_made(void* made, const char* what) {
    if (!made) fatal("out of host memory for %s", what);
    return made;
}

char* json_text(const cJSON* json) { return host_made(cJSON_PrintUnformatted(json), "a JSON text"); }
char* json_pretty_text(const cJSON* json) { return host_made(cJSON_Print(json), "a JSON text"); }

// n: the bytes that the whole path has.
static void check_path(const char* path, int n) {
    if (n >= PATH_MAX) fatal("%.100s…: the path is longer than %d bytes", path, PATH_MAX - 1);
}

Path path_of(const char* directory, const char* name_format, ...) {
    Path path;
    va_list args;
    int n = snprintf(path.s, sizeof path.s, "%s/", directory);
    check_path(path.s, n);
    va_start(args, name_format);
    int m = vsnprintf(path.s + n, sizeof path.s - (size_t)n, name_format, args);
    va_end(args);
    check_path(path.s, n + m);
    return path;
}

Path path_text(const char* format, ...) {
    Path path;
    va_list args;
    va_start(args, format);
    int n = vsnprintf(path.s, sizeof path.s, format, args);
    va_end(args);
    check_path(path.s, n);
    return path;
}

void path_copy(char to[PATH_ROOM], const char* path) { check_path(to, snprintf(to, PATH_ROOM, "%s", path)); }

void hex_of(const unsigned char sha256[32], Hex hex) {
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", sha256[i]);
}

// Room for n more bytes and the closing zero.
static void grow(Text* t, size_t n) {
    if (t->n + n + 1 <= t->capacity) return;
    size_t capacity = t->capacity ? t->capacity : 256;
    while (capacity < t->n + n + 1) capacity *= 2;
    t->s = (char*)host_resize(t->s, capacity, "a text");
    t->capacity = capacity;
}

void text_add(Text* t, const void* bytes, size_t n) {
    grow(t, n);
    if (n) memcpy(t->s + t->n, bytes, n);
    t->n += n;
    t->s[t->n] = 0;
}

void text_printf(Text* t, const char* format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n < 0) program_error("a text cannot be formatted");
    grow(t, (size_t)n);
    vsnprintf(t->s + t->n, (size_t)n + 1, format, again);
    t->n += (size_t)n;
    va_end(again);
    va_end(args);
}

void text_free(Text* t) {
    free(t->s);
    memset(t, 0, sizeof *t);
}
