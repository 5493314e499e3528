/* Files: read whole or mapped, written atomically (temporary file beside the target, fsync, rename). Every failure
 * names the path and ends with status 2. */
#ifndef SEAL_FILE_H
#define SEAL_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

// A descriptor to read a regular file from, and its length; below 0 if it cannot be opened (errno says why) or is a
// directory, a pipe, or another special file.
enum { FILE_MISSING = -1, FILE_IRREGULAR = -2 };
int file_open(const char* path, size_t* length);
// The whole file, a zero byte after it; to be freed. Larger than `most` bytes is an error.
char* file_read(const char* path, size_t most, size_t* length);
// Fatal if the file is a pointer that Git LFS left in place of the file itself. Every reader calls it.
void refuse_lfs_pointer(const char* path);
bool is_lfs_pointer(const void* data, size_t length);
bool file_exists(const char* path);
// A file that comes with the program: in the program's folder or one above; `path` itself where there is none. A static
// text.
const char* beside_program(const char* path);
void directory_make(const char* path);  // with its parents; existing is fine
// Checks before hours of work that results can be written there: makes the directory, writes a file, syncs it and
// removes it.
void directory_probe(const char* path);
// The same for a single result: writes a file beside `path`, syncs and removes it.
void output_probe(const char* path);
// A result that would take the place of a file it is made from is an error, whatever names or links lead there. NULL
// and a missing file are fine.
void output_is_not(const char* path, const char* input);
// Whether both are the same name in the same directory; the file need not exist.
bool same_place(const char* a, const char* b);

typedef struct {
    const uint8_t* data;
    size_t length;
    char path[PATH_ROOM];
} MappedFile;
// Read only; an empty file maps to NULL, 0. A file that is truncated while it is mapped ends the program with one
// line and status 2.
void file_map(MappedFile* map, const char* path);
void file_unmap(MappedFile* map);

// A file that appears under its name only when it is whole.
typedef struct {
    FILE* stream;
    char path[PATH_ROOM], temporary[PATH_ROOM];
} AtomicFile;
void atomic_open(AtomicFile* f, const char* path);
void atomic_write(AtomicFile* f, const void* data, size_t bytes);
__attribute__((format(printf, 2, 3))) void atomic_printf(AtomicFile* f, const char* format, ...);
void atomic_commit(AtomicFile* f);  // flush, fsync, rename, fsync of the directory
// Removes the temporary files that killed processes left in a directory.
void directory_clean(const char* path);
void atomic_abandon(AtomicFile* f);                                            // removes the temporary file
void file_write(const char* path, const void* data, size_t bytes);             // the three in one
void file_copy(const char* from, const char* to_directory, const char* name);  // byte for byte

// SHA-256 as 64 hexadecimal digits and a zero.
void sha256_hex(const void* data, size_t bytes, Hex hex);
void file_sha256_hex(const char* path, Hex hex);

#ifdef __cplusplus
}
#endif
#endif
