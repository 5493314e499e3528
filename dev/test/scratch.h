/* A folder of a test's own, files in it by name. main makes it: mkdtemp(directory) with a template of its own. */
#ifndef SEAL_SCRATCH_H
#define SEAL_SCRATCH_H

#include <stdio.h>
#include <string.h>
#include "base/file.h"

static char directory[64];

// The file's path, in one of eight buffers: an expression may name several.
static inline const char* in_directory(const char* name) {
    static char path[8][256];
    static int at;
    char* p = path[at++ % 8];
    snprintf(p, 256, "%s/%s", directory, name);
    return p;
}
static inline const char* put(const char* name, const char* text) {
    const char* path = in_directory(name);
    file_write(path, text, strlen(text));
    return path;
}

#endif
