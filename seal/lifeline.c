/* Rank 0 is the hub of a star of TCP connections. See lifeline.h. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>
#include "error.h"
#include "lifeline.h"

#define HELLO_SECONDS 30

static struct {
    int listener, rank, n;
    int* sockets;  // rank 0: by rank; others: [0] is the connection to rank 0
    int leave[2];  // a byte here ends the thread
    pthread_t thread;
    unsigned char token[16];
    int running;
} line = {-1, 0, 0, NULL, {-1, -1}, 0, {0}, 0};

// A peer that says nothing for 10 s is asked every 5 s, and is gone after four questions: half a minute.
static void keep_alive(int fd) {
    int on = 1, idle = 10, interval = 5, count = 4;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static int transfer(int fd, void* data, size_t bytes, int sends) {
    for (char* p = data; bytes;) {
        ssize_t n = sends ? send(fd, p, bytes, MSG_NOSIGNAL) : recv(fd, p, bytes, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return 0;
        p += n;
        bytes -= (size_t)n;
    }
    return 1;
}

void lifeline_listen(LifelineAddress* a, int local_only) {
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof at;
    memset(a, 0, sizeof *a);
    at.sin_addr.s_addr = htonl(local_only ? INADDR_LOOPBACK : INADDR_ANY);
    line.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (line.listener < 0 || bind(line.listener, (struct sockaddr*)&at, sizeof at) || listen(line.listener, 1024) || getsockname(line.listener, (struct sockaddr*)&at, &size))
        fatal("no port can be opened for the other ranks: %s", strerror(errno));
    a->port = ntohs(at.sin_port);
    if (local_only) snprintf(a->host, sizeof a->host, "127.0.0.1");
    else if (gethostname(a->host, sizeof a->host - 1)) fatal("this machine has no name: %s", strerror(errno));
    if (getrandom(a->token, sizeof a->token, 0) != (ssize_t)sizeof a->token) fatal("no random bytes: %s", strerror(errno));
}

static int connect_to(const LifelineAddress* a) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found = NULL;
    char port[16];
    snprintf(port, sizeof port, "%d", a->port);
    int fd = -1, status = getaddrinfo(a->host, port, &hints, &found);
    if (status) fatal("rank 0's machine, %s, is not found by its name: %s", a->host, gai_strerror(status));
    for (struct addrinfo* x = found; x && fd < 0; x = x->ai_next) {
        fd = socket(x->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, x->ai_addr, x->ai_addrlen)) { close(fd); fd = -1; }
    }
    freeaddrinfo(found);
    if (fd < 0) fatal("rank 0 cannot be reached at %s, port %d: %s", a->host, a->port, strerror(errno));
    return fd;
}

// Rank 0: one connection from every other rank. Strangers are sent away.
static void accept_all(void) {
    struct timeval patience = {HELLO_SECONDS, 0};
    for (int missing = line.n - 1; missing;) {
        struct pollfd p = {line.listener, POLLIN, 0};
        if (poll(&p, 1, 1000 * HELLO_SECONDS) <= 0) fatal("%d of %d ranks did not call within %d s", missing, line.n, HELLO_SECONDS);
        int fd = accept(line.listener, NULL, NULL);
        if (fd < 0) continue;
        struct { unsigned char token[16]; int32_t rank; } hello;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if (!transfer(fd, &hello, sizeof hello, 0) || memcmp(hello.token, line.token, sizeof line.token) || hello.rank < 1 || hello.rank >= line.n || line.sockets[hello.rank] >= 0) {
            close(fd);
            continue;
        }
        keep_alive(fd);
        line.sockets[hello.rank] = fd;
        missing--;
    }
    close(line.listener);
    line.listener = -1;
}

// A rank that ends by an error of its own, and has said which, says its status: the others leave with it and add nothing.
static void last_word(void) {
    int32_t word = -error_status;
    for (int r = 0; line.running && word && r < line.n; r++)
        if (line.sockets[r] >= 0) transfer(line.sockets[r], &word, sizeof word, 1);
}

// The end of a rank that hears of another's: its number where it has gone without a word, −status where it has said why. The device may be waiting for the one that is gone,
// so nothing is cleaned up.
__attribute__((noreturn)) static void stop(int32_t gone) {
    char text[256];
    if (error_status) _exit(error_status);  // it was about to say what the other has said
    if (gone < 0) _exit(-gone);
    int n = snprintf(text, sizeof text, "%s: rank %d has gone; rank %d stops with it (--resume goes on from the newest checkpoint)\n", program_name, gone, line.rank);
    if (write(STDERR_FILENO, text, (size_t)n) < 0) {}
    _exit(1);
}

static void* watch_hub(void* unused) {
    (void)unused;
    struct pollfd p[2] = {{line.sockets[0], POLLIN, 0}, {line.leave[0], POLLIN, 0}};
    int32_t gone = 0;
    while (poll(p, 2, -1) < 0) {}
    if (p[1].revents) return NULL;
    if (!transfer(line.sockets[0], &gone, sizeof gone, 0)) gone = 0;
    stop(gone);
}

static void* watch_all(void* unused) {
    (void)unused;
    struct pollfd* p = calloc((size_t)line.n, sizeof *p);
    if (!p) return NULL;
    for (int r = 0; r < line.n; r++) { p[r].fd = r ? line.sockets[r] : line.leave[0]; p[r].events = POLLIN; }
    for (;;) {
        while (poll(p, (nfds_t)line.n, -1) < 0) {}
        if (p[0].revents) { free(p); return NULL; }
        for (int r = 1; r < line.n; r++) {  // a rank sends nothing after its hello but its last word: whatever comes is its end
            if (!p[r].revents) continue;
            int32_t gone;
            if (!transfer(line.sockets[r], &gone, sizeof gone, 0) || gone >= 0) gone = r;
            if (error_status) gone = -error_status;  // it may have left at this rank's own last word, which the others have yet to hear
            for (int s = 1; s < line.n; s++)
                if (s != r) transfer(line.sockets[s], &gone, sizeof gone, 1);
            stop(gone);
        }
    }
}

void lifeline_start(const LifelineAddress* a, int rank, int n) {
    line.rank = rank;
    line.n = n;
    memcpy(line.token, a->token, sizeof line.token);
    line.sockets = malloc((size_t)n * sizeof(int));
    if (!line.sockets || pipe(line.leave)) fatal("no connections between ranks: %s", strerror(errno));
    for (int r = 0; r < n; r++) line.sockets[r] = -1;
    if (rank == 0) accept_all();
    else {
        struct { unsigned char token[16]; int32_t rank; } hello;
        line.sockets[0] = connect_to(a);
        memcpy(hello.token, a->token, sizeof hello.token);
        hello.rank = rank;
        keep_alive(line.sockets[0]);
        if (!transfer(line.sockets[0], &hello, sizeof hello, 1)) fatal("rank 0 at %s does not answer", a->host);
    }
    if (pthread_create(&line.thread, NULL, rank == 0 ? watch_all : watch_hub, NULL)) fatal("no thread can be started to watch the other ranks");
    line.running = 1;
    atexit(last_word);
}

void lifeline_unwatch(void) {
    if (!line.running) return;
    if (write(line.leave[1], "", 1) < 0) {}
    pthread_join(line.thread, NULL);
}

void lifeline_close(void) {
    if (!line.running) return;
    for (int r = 0; r < line.n; r++)
        if (line.sockets[r] >= 0) close(line.sockets[r]);
    close(line.leave[0]);
    close(line.leave[1]);
    free(line.sockets);
    line.running = 0;
}
