/*
The bytes of a data file as UTF-8, whatever they are on disk: plain, .gz or .zst, UTF-8 or UTF-16. What is not text at
all (Parquet, archives, pointers of Git LFS) is refused by its name. Ends with fatal() on a damaged file.
*/
#ifndef SEAL_BYTE_STREAM_H
#define SEAL_BYTE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ByteStream ByteStream;
ByteStream* bytes_open(const char* path);
// Up to n bytes; 0 at the end.
size_t bytes_read(ByteStream* s, unsigned char* out, size_t n);
bool bytes_utf16(const ByteStream* s);  // whether the file is UTF-16
// Bytes read from disk so far, and the file's.
void bytes_progress(const ByteStream* s, int64_t* done, int64_t* total);
void bytes_close(ByteStream* s);

#endif
