/* What must end the program with one line and status 2: it is run in a child process. */
#ifndef SEAL_REFUSES_H
#define SEAL_REFUSES_H

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

// Runs body(context) in a child; true where it ended with status 2 and wrote one line that holds `expected`.
static int refuses(void (*body)(const void*), const void* context, const char* expected) {
    int pipes[2], status;
    char text[2048] = "";
    if (pipe(pipes)) return 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(pipes[1], 2);
        close(pipes[0]);
        body(context);
        _exit(0);
    }
    close(pipes[1]);
    size_t n = 0;
    ssize_t got;
    while (n + 1 < sizeof text && (got = read(pipes[0], text + n, sizeof text - 1 - n)) > 0) n += (size_t)got;
    text[n] = 0;
    close(pipes[0]);
    waitpid(child, &status, 0);
    char* newline = strchr(text, '\n');
    int good = WIFEXITED(status) && WEXITSTATUS(status) == 2 && strstr(text, expected) && newline && !newline[1];
    if (!good) printf("# status %x, said: %s\n", status, text);
    return good;
}

#endif
