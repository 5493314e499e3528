/* Logs and progress. See log.h. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"

double wall_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// ---------------------------------------------------------------------------------------------------
// log.jsonl

void log_open(RunLog* log, const char* run, int64_t keep) {
    struct stat info;
    path_copy(log->path, run ? path_of(run, "log.jsonl").s : "/dev/null");
    int fd = open(log->path, O_CREAT | O_WRONLY, 0666);
    if (fd < 0 || fstat(fd, &info)) fatal("%s cannot be written: %s", log->path, strerror(errno));
    if (run && info.st_size < keep)
        fatal("%s has %lld bytes but had %lld when the checkpoint was taken; it is not the log of this run", log->path,
              (long long)info.st_size, (long long)keep);
    if ((run && (ftruncate(fd, keep) || lseek(fd, 0, SEEK_END) < 0)) || !(log->stream = fdopen(fd, "wb")))
        fatal("%s cannot be written: %s", log->path, strerror(errno));
}
static void written(RunLog* log, int result) {
    if (result < 0) fatal("%s cannot be written: %s", log->path, strerror(errno));
}
void log_line(RunLog* log, const char* json) {
    written(log, fprintf(log->stream, "%s\n", json));
    written(log, fflush(log->stream));
}
void log_begin(RunLog* log) {
    log->first = true;
    written(log, fputc('{', log->stream));
}
static void key_of(RunLog* log, const char* key) {
    written(log, fprintf(log->stream, "%s\"%s\":", log->first ? "" : ",", key));
    log->first = false;
}
void log_number(RunLog* log, const char* key, double value) {
    key_of(log, key);
    written(log, isfinite(value) ? fprintf(log->stream, "%.9g", value) : fputs("null", log->stream));
}
void log_integer(RunLog* log, const char* key, int64_t value) {
    key_of(log, key);
    written(log, fprintf(log->stream, "%lld", (long long)value));
}
void log_end(RunLog* log) {
    written(log, fputs("}\n", log->stream));
    written(log, fflush(log->stream));
}
int64_t log_length(RunLog* log) {
    long at = -1;
    if (fflush(log->stream) || fsync(fileno(log->stream)) || (at = ftell(log->stream)) < 0)
        fatal("%s cannot be written: %s", log->path, strerror(errno));
    return at;
}
void log_close(RunLog* log) {
    // a device has nothing to synchronise and says EINVAL
    if (log->stream && (fflush(log->stream) || (fsync(fileno(log->stream)) && errno != EINVAL) || fclose(log->stream)))
        fatal("%s cannot be written: %s", log->path, strerror(errno));
    log->stream = NULL;
}

// ---------------------------------------------------------------------------------------------------
// progress

void progress_begin(Progress* p, const char* what, int64_t total, bool quiet) {
    memset(p, 0, sizeof *p);
    p->what = what;
    p->total = total;
    p->quiet = quiet;
    p->started = wall_seconds();
    p->terminal = isatty(STDERR_FILENO);
}

static void duration(double seconds, char* out, size_t size) {
    long s = (long)(seconds + 0.5);
    if (s >= 3600) snprintf(out, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else snprintf(out, size, "%ld:%02ld", s / 60, s % 60);
}

void progress_update(Progress* p, int64_t done, const char* format, ...) {
    if (p->quiet || p->total <= 0) return;
    double now = wall_seconds(), spent = now - p->started;
    bool last = done >= p->total;
    if (spent < 2.0 || (!last && now - p->shown < (p->terminal ? 0.2 : 30.0)) || (last && !p->visible && !p->terminal))
        return;
    p->shown = now;
    p->visible = true;
    char left[32], note[256];
    double worked = (double)(done - p->first) + p->begun, open = (double)(p->total - done) - p->begun;
    duration(worked > 0.0 ? spent / worked * open : 0.0, left, sizeof left);
    va_list args;
    va_start(args, format);
    vsnprintf(note, sizeof note, format, args);
    va_end(args);
    double share = (double)done / (double)p->total;
    if (p->terminal) {
        char bar[25];
        for (int i = 0; i < 24; i++) bar[i] = i < (int)(share * 24) ? '#' : '.';
        bar[24] = 0;
        fprintf(stderr, "\r\033[K%s [%s] %lld/%lld %s, %s left", p->what, bar, (long long)done, (long long)p->total,
                note, left);
    } else
        fprintf(stderr, "%s %lld/%lld (%.0f%%) %s, %s left\n", p->what, (long long)done, (long long)p->total,
                100.0 * share, note, left);
    fflush(stderr);
}
void progress_end(Progress* p) {
    if (p->visible && p->terminal) fprintf(stderr, "\r\033[K");
    p->visible = false;
}

// ---------------------------------------------------------------------------------------------------
// GPUs: dense peaks in TFLOP/s from NVIDIA's data sheets (half of the "with sparsity" figures). The first row whose
// name occurs in the GPU's is taken.

static const struct {
    const char* name;
    double bf16, fp32;
} gpus[] = {
    {"B200", 2250.0, 75.0},     {"H200", 989.4, 66.9},     {"H100 PCIe", 756.0, 51.2}, {"H100", 989.4, 66.9},
    {"GH200", 989.4, 66.9},     {"A100", 312.0, 19.5},     {"A6000 Ada", 364.2, 91.1}, {"6000 Ada", 364.2, 91.1},
    {"A6000", 154.8, 38.7},     {"L40S", 362.1, 91.6},     {"L4", 121.0, 30.3},        {"A10", 125.0, 31.2},
    {"RTX 5090", 209.5, 104.8}, {"RTX 4090", 165.2, 82.6}, {"RTX 3090", 71.0, 35.6},
};
double gpu_peak_tflops(const char* gpu_name, bool bf16) {
    for (size_t i = 0; i < sizeof gpus / sizeof *gpus; i++)
        if (strstr(gpu_name, gpus[i].name)) return bf16 ? gpus[i].bf16 : gpus[i].fp32;
    return 0.0;
}
