/*
The GPU of this rank (the CPU build has one emulated device). Planning works where there is none: on the login node of
a cluster, with or without a driver, --dry-run and `check` print what a GPU would be asked for.
*/
#ifndef SEAL_DEVICE_H
#define SEAL_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

// As the driver names it; "a GPU that is not here" where none can be used.
const char* device_name(void);
// Whether this is the CPU build.
bool device_is_emulated(void);
// Bytes of its memory that are free; false where there is no GPU.
bool device_free_bytes(size_t* bytes);
// Fatal where there is a GPU and it is below compute capability 8.0. Called before a message names such a GPU's limits.
void device_refuse_old(void);
// Fatal where there is no GPU whose tensor cores multiply fp8: compute capability 8.9.
void device_require_fp8(void);
// Fatal where there is no GPU. Called before anything is written or allocated.
void device_require(void);

#endif
