/* How the programs stop. See error.h. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"

const char* program_name = "seal";
int error_rank;
_Atomic int error_status;

#define PATIENCE_SECONDS 10  // until a launcher has ended the others, on a busy machine too

#ifdef __SANITIZE_ADDRESS__
// LeakSanitizer asks: a program that stops with a message frees nothing, and what its functions held may be out of
// sight, as nothing returns to them.
int __lsan_is_turned_off(void) { return error_status; }
#endif

static void print_line(const char* kind, const char* format, va_list args) {
    char line[4096];
    vsnprintf(line, sizeof line, format, args);
    for (char* c = line; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = ' ';  // a name or a value from the user's side may hold anything; the message stays one line
    fflush(stdout);
    if (error_rank && error_status) sleep(PATIENCE_SECONDS);
    fprintf(stderr, "%s: ", program_name);
    if (error_rank) fprintf(stderr, "rank %d: ", error_rank);
    fprintf(stderr, "%s%s\n", kind, line);
}
void fatal(const char* format, ...) {
    va_list args;
    error_status = 2;
    va_start(args, format);
    print_line("", format, args);
    va_end(args);
    exit(2);
}
void program_error(const char* format, ...) {
    va_list args;
    error_status = 1;
    va_start(args, format);
    print_line("internal error: ", format, args);
    va_end(args);
    exit(1);
}
void stdout_check(void) {
    struct pollfd out = {STDOUT_FILENO, 0, 0};
    int failed = fflush(stdout), number = errno;
    if (!failed && !ferror(stdout)) return;
    if ((failed && number == EPIPE) || (poll(&out, 1, 0) == 1 && out.revents & (POLLERR | POLLHUP)))
        return;  // who reads a pipe may have seen enough
    fatal("standard output cannot be written: %s", failed ? strerror(number) : "some of the output is lost");
}
void warning(const char* format, ...) {
    va_list args;
    va_start(args, format);
    print_line("warning: ", format, args);
    va_end(args);
}
