/* What records.c and dataset.c share besides dataset.h. */
#ifndef SEAL_RECORDS_H
#define SEAL_RECORDS_H

#include "rows/dataset.h"

static inline bool is_space(int c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }
// fatal where a path's ending is not a data file's.
void records_check_name(const char* path);
int64_t records_count(const RecordReader* r);  // read so far
// The next field of a csv record from *at; false after the last.
bool csv_field(const RecordReader* r, const char* bytes, size_t length, size_t* at, Text* out);
// The digest of n digests [n][64], without zeros between them.
void join_digests(const char* digests, int n, Hex hex);

#endif
