/*
A command that writes its result only at its end keeps finished items in OUT.partial: a line that says which run they
belong to, then a JSON object per item. With --resume a run that was stopped continues from there; without --resume such
a file is an error, so that hours of work are not overwritten by mistake.
*/
#ifndef SEAL_JOURNAL_H
#define SEAL_JOURNAL_H

#include <stdio.h>
#include <cjson/cJSON.h>
#include "rows/dataset.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    char path[PATH_ROOM];
    Hex key;
    size_t whole;  // bytes of whole lines that an earlier run left
    FILE* file;    // NULL until the first item
} Journal;

// Takes an item of an earlier run; false: it does not belong to this command.
typedef bool (*JournalTake)(void* context, const cJSON* item);

bool journal_is_there(const char* out);
// `decides`: all that decides what the result is. A journal of another run, or one without `resume`, is an error.
void journal_open(Journal* j, const char* out, const Text* decides, bool resume, JournalTake take, void* context);
void journal_add(Journal* j, cJSON* item);  // and frees it
void journal_flush(Journal* j);             // the items so far survive the process
void journal_close(Journal* j);  // the result is there: removes the file. A journal that was never opened is fine
// Adds to `decides` a model's or adapter's files by size and time of change; hashing gigabytes would take longer than
// what resuming saves. NULL is allowed.
void journal_add_model(Text* decides, const char* directory);

#ifdef __cplusplus
}
#endif
#endif
