/* What a run reports: log.jsonl (a header object, then one object per step), a progress line with ETA on the terminal,
 * and the peak speeds of known GPUs. */
#ifndef SEAL_LOG_H
#define SEAL_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

double wall_seconds(void);  // monotonic

typedef struct {
    FILE* stream;
    char path[PATH_ROOM];
    bool first;  // of the fields of the open object
} RunLog;

// RUN/log.jsonl, cut to its first `keep` bytes: 0 for a new run. run NULL: a log that goes nowhere, of ranks other than
// 0. Every object is written whole, one line, and flushed.
void log_open(RunLog* log, const char* run, int64_t keep);
int64_t log_length(RunLog* log);                      // bytes so far, on disk when this returns
void log_line(RunLog* log, const char* json_object);  // an object as text
void log_begin(RunLog* log);
void log_number(RunLog* log, const char* key, double value);  // not finite: null
void log_integer(RunLog* log, const char* key, int64_t value);
void log_end(RunLog* log);
void log_close(RunLog* log);

// A progress line on stderr: appears after two seconds, a few times per second on a terminal, every half minute
// elsewhere; nothing with quiet.
typedef struct {
    const char* what;
    int64_t total, first;  // first: done before this process began
    double begun;          // what is begun and not done, in parts of one: 2.5 for five halves; for the time left
    double started, shown;
    bool quiet, terminal, visible;
} Progress;
void progress_begin(Progress* p, const char* what, int64_t total, bool quiet);  // a resumed run sets p->first after it
__attribute__((format(printf, 3, 4))) void progress_update(Progress* p, int64_t done, const char* format, ...);
void progress_end(Progress* p);

// Dense peak of a GPU in TFLOP/s by its name, 0 where it is unknown.
double gpu_peak_tflops(const char* gpu_name, bool bf16);

#ifdef __cplusplus
}
#endif
#endif
