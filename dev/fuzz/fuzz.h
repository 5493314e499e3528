/* What the fuzz targets share: a place for files in memory, and a way to outlive fatal(). A target is one file with
   LLVMFuzzerTestOneInput; what it finds wrong in an answer it reports with MUST, which stops the fuzzer as a crash
   does. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define MUST(condition) \
    ((condition) ? (void)0 : (fprintf(stderr, "%s:%d: MUST %s\n", __FILE__, __LINE__, #condition), abort()))

// Calls body. False where it ended in fatal() or program_error(): then what it had allocated or opened since the call
// is freed and closed again. A program_error() is a crash.
bool survive(void (*body)(void* argument), void* argument);

// Unmaps the files of this process's folder that a refused input left mapped; looks once in so many calls, for it reads
// all maps.
void fuzz_unmap(void);

// DIRECTORY/name in a folder of this process in memory. Returns the path, which stays valid.
const char* fuzz_file(const char* name, const uint8_t* data, size_t n);
const char* fuzz_directory(void);

#endif
