/* How the programs stop. See error.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "error.h"

const char* program_name = "seal";
int error_rank;

static void print_line(const char* kind, const char* format, va_list args) {
    fflush(stdout);
    if (error_rank) sleep(1);
    fprintf(stderr, "%s: ", program_name);
    if (error_rank) fprintf(stderr, "rank %d: ", error_rank);
    fputs(kind, stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}
void fatal(const char* format, ...) {
    va_list args;
    va_start(args, format);
    print_line("", format, args);
    va_end(args);
    exit(2);
}
void program_error(const char* format, ...) {
    va_list args;
    va_start(args, format);
    print_line("internal error: ", format, args);
    va_end(args);
    exit(1);
}
void warning(const char* format, ...) {
    va_list args;
    va_start(args, format);
    print_line("warning: ", format, args);
    va_end(args);
}
