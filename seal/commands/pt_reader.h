/*
Selectors published as PyTorch `.pt` files: the zip archive torch.save writes, holding one float32 tensor or Parameter.
The pickle inside is walked, not run: the walker knows the dozen opcodes and four names that torch.save uses for this
one shape of file and refuses everything else. Safe on hostile input.
*/
#ifndef SEAL_PT_READER_H
#define SEAL_PT_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// The tensor's values, to be freed; *n of them. Anything but one contiguous float32 vector is fatal: `path: what`.
float* pt_read(const char* path, int64_t* n);
// The same from memory; NULL and a line in `why` instead of ending (for fuzzing).
float* pt_parse(const uint8_t* data, size_t length, int64_t* n, char* why, size_t why_size);

#ifdef __cplusplus
}
#endif
#endif
