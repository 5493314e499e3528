/*
What a result is of. A command that writes one file leaves OUT.key beside it, a digest of the options and of the files
that they name, so that --resume tells the result of this command from another's.
*/
#ifndef SEAL_RESULT_KEY_H
#define SEAL_RESULT_KEY_H

#include "base/options.h"
#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

// Files count by their contents, models by path, size and time of change. idle: options that change nothing in the
// result, "batch,tokens"; those of every command (--out, --resume, --quiet …) are known.
void result_key(const OptionTable* table, int command, const void* values, const char* idle, Hex key);
// --resume and the result is there, with no journal that says it is not whole: nothing to do. The result of other
// settings, or one that nobody knows the settings of, is an error. beside: what else the result consists of; a NULL
// ends it, NULL files in between are not allowed; without one of them it is to be made again.
bool result_is_there(const char* out, const Hex key, const char* const* beside, bool resume, bool quiet);
// The result is whole. Before its journal is closed.
void result_record(const char* out, const Hex key);

#ifdef __cplusplus
}
#endif
#endif
