/* How the programs stop. A user's error is one clear line and status 2; an error of the program itself is status 1. */
#ifndef SEAL_ERROR_H
#define SEAL_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

extern const char* program_name;  // set by main; begins every message
extern int error_rank;  // of several ranks: one above 0 waits before it prints an error, because rank 0 usually prints
                        // the same one and ends it
#ifndef __cplusplus
extern _Atomic int error_status;  // what this process is about to end with, 0 while it has no error; the thread that
                                  // watches the other ranks reads it
#endif

// "program: what, where, what to do" on stderr; status 2. For files, options and data that are wrong.
__attribute__((format(printf, 1, 2), noreturn)) void fatal(const char* format, ...);
// A bug or a broken machine: status 1.
__attribute__((format(printf, 1, 2), noreturn)) void program_error(const char* format, ...);
// A line on stderr; the program continues.
__attribute__((format(printf, 1, 2))) void warning(const char* format, ...);
// At the end of a command whose result is on stdout: fatal where not all of it could be written. A reader that has left
// is not an error.
void stdout_check(void);

#ifdef __cplusplus
}
#endif
#endif
