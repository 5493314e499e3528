/* Rank 0 is the hub of a star of TCP connections. See lifeline.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
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
#include <time.h>
#include <unistd.h>
#include "base/error.h"
#include "base/lifeline.h"
#include "base/text.h"

#define HELLO_SECONDS 60   // for all to call
#define CONNECT_SECONDS 3  // for one address to answer
#define LOOK_MILLISECONDS 1000
#define SILENCE_SECONDS 30  // without a beat; SEAL_SILENCE in the environment, 0: for ever
// What the connections carry after the hello: numbers. −status: an error that has been told; a rank: it has died.
#define WORD_BEAT INT32_MAX
#define WORD_SILENT (1 << 24)  // + a rank: nothing came from it
#define WORD_LOST (1 << 25)    // + a rank: the system gave the connection up, which the other end has not closed

static struct {
    int listener, rank, n;
    int* sockets;  // rank 0: by rank; others: [0] is the connection to rank 0
    int leave[2];  // a byte here ends the thread
    pthread_t thread;
    unsigned char token[16];
    LifelineBroken broken;
    int running;
    double patience;  // seconds
    double* silent;   // as sockets: for how long nothing has come
} line = {-1, 0, 0, NULL, {-1, -1}, 0, {0}, NULL, 0, 0.0, NULL};

// Beats are small and must not wait for company.
static void at_once(int fd) {
    int on = 1;
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

// This machine's addresses, as numbers: those that others may reach.
static void find_addresses(LifelineAddress* a) {
    struct ifaddrs *all, *x;
    if (getifaddrs(&all)) fatal("cannot find the addresses of this machine: %s", strerror(errno));
    for (x = all; x && a->n_hosts < LIFELINE_HOSTS; x = x->ifa_next) {
        int family = x->ifa_addr ? x->ifa_addr->sa_family : AF_UNSPEC;
        if (!(x->ifa_flags & IFF_UP) || x->ifa_flags & IFF_LOOPBACK || (family != AF_INET && family != AF_INET6))
            continue;
        if (family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&((struct sockaddr_in6*)(void*)x->ifa_addr)->sin6_addr))
            continue;
        socklen_t size = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        if (!getnameinfo(x->ifa_addr, size, a->hosts[a->n_hosts], sizeof a->hosts[0], NULL, 0, NI_NUMERICHOST))
            a->n_hosts++;
    }
    freeifaddrs(all);
    if (!a->n_hosts) fatal("this machine has no address that other machines can reach; set SEAL_ADDRESS to one");
}

// A socket that hears IPv4 and IPv6, or IPv4 alone where there is no other.
static int listen_anywhere(int* port) {
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = in6addr_any};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
    socklen_t size = sizeof six;
    int off = 0, fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && !setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) &&
        !bind(fd, (struct sockaddr*)&six, size) && !getsockname(fd, (struct sockaddr*)&six, &size)) {
        *port = ntohs(six.sin6_port);
        return fd;
    }
    if (fd >= 0) close(fd);
    size = sizeof four;
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr*)&four, size) || getsockname(fd, (struct sockaddr*)&four, &size)) return -1;
    *port = ntohs(four.sin_port);
    return fd;
}

static int listen_here(int* port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr*)&at, size) || getsockname(fd, (struct sockaddr*)&at, &size)) return -1;
    *port = ntohs(at.sin_port);
    return fd;
}

void lifeline_listen(LifelineAddress* a, int local_only) {
    const char* named = getenv("SEAL_ADDRESS");
    memset(a, 0, sizeof *a);
    line.listener = local_only && !named ? listen_here(&a->port) : listen_anywhere(&a->port);
    if (line.listener < 0 || listen(line.listener, 1024))
        fatal("cannot open a port for the other ranks: %s", strerror(errno));
    if (named || local_only) {
        if (snprintf(a->hosts[a->n_hosts++], sizeof a->hosts[0], "%s", named ? named : "127.0.0.1") >=
            (int)sizeof a->hosts[0])
            fatal("SEAL_ADDRESS is too long: %.80s", named);
    } else find_addresses(a);
    if (getrandom(a->token, sizeof a->token, 0) != (ssize_t)sizeof a->token)
        fatal("cannot get random bytes: %s", strerror(errno));
}

// A connection to one address, -1 and errno where there is none in CONNECT_SECONDS.
static int connect_within(const struct addrinfo* to) {
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error = 0;
    socklen_t size = sizeof error;
    if (fd < 0) return -1;
    if (connect(fd, to->ai_addr, to->ai_addrlen)) {
        struct pollfd p = {fd, POLLOUT, 0};
        error = errno;
        if (error == EINPROGRESS && poll(&p, 1, 1000 * CONNECT_SECONDS) <= 0) error = ETIMEDOUT;
        else if (error == EINPROGRESS && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size)) error = errno;
    }
    if (!error && fcntl(fd, F_SETFL, 0)) error = errno;  // blocking from here on
    if (!error) return fd;
    close(fd);
    errno = error;
    return -1;
}

// Rank 0's addresses in turn; where none answers, the last one's reason is told.
static int connect_to(const LifelineAddress* a) {
    char port[16], tried[LIFELINE_HOSTS * 66] = "";
    const char* why = "";
    snprintf(port, sizeof port, "%d", a->port);
    for (int i = 0; i < a->n_hosts; i++) {
        struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found = NULL;
        int fd = -1, status = getaddrinfo(a->hosts[i], port, &hints, &found);
        if (status) why = gai_strerror(status);
        for (struct addrinfo* x = found; x && fd < 0; x = x->ai_next)
            if ((fd = connect_within(x)) < 0) why = strerror(errno);
        if (found) freeaddrinfo(found);
        if (fd >= 0) return fd;
        size_t at = strlen(tried);
        snprintf(tried + at, sizeof tried - at, "%s%s", i ? ", " : "", a->hosts[i]);
    }
    fatal(
        "rank 0 cannot be reached at %s, port %d: %s; set SEAL_ADDRESS on rank 0's machine to another of its addresses",
        tried, a->port, why);
}

// Rank 0: one connection from every other rank. Strangers are sent away.
static void accept_all(void) {
    struct timeval patience = {HELLO_SECONDS, 0};
    for (int missing = line.n - 1; missing;) {
        struct pollfd p = {line.listener, POLLIN, 0};
        if (poll(&p, 1, 1000 * HELLO_SECONDS) <= 0)
            fatal("%d of %d ranks did not connect to rank 0 within %d s", missing, line.n, HELLO_SECONDS);
        int fd = accept(line.listener, NULL, NULL);
        if (fd < 0) continue;
        struct {
            unsigned char token[16];
            int32_t rank;
        } hello;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if (!transfer(fd, &hello, sizeof hello, 0) || memcmp(hello.token, line.token, sizeof line.token) ||
            hello.rank < 1 || hello.rank >= line.n || line.sockets[hello.rank] >= 0) {
            close(fd);
            continue;
        }
        at_once(fd);
        line.sockets[hello.rank] = fd;
        missing--;
    }
    close(line.listener);
    line.listener = -1;
}

// A rank that ends by an error of its own, and has said which, says its status: the others leave with it and add
// nothing.
static void last_word(void) {
    int32_t word = -error_status;
    for (int r = 0; line.running && word && r < line.n; r++)
        if (line.sockets[r] >= 0) transfer(line.sockets[r], &word, sizeof word, 1);
}
void device_failed(void) {
    error_status = 1;
    last_word();
}

// The end of a rank that hears of another's, by its word. The device may be waiting for the one that is gone, so
// nothing is cleaned up.
__attribute__((noreturn)) static void stop(int32_t word) {
    char text[256], silent[64] = "has died";
    if (error_status) _exit(error_status);  // it was about to say what the other has said
    if (word < 0) _exit(-word);
    if (word >= WORD_LOST) snprintf(silent, sizeof silent, "cannot be reached any more");
    else if (word >= WORD_SILENT) snprintf(silent, sizeof silent, "has not answered for %.0f s", line.patience);
    int n = snprintf(text, sizeof text,
                     "%s: rank %d %s; rank %d stops too (--resume continues from the newest checkpoint)\n",
                     program_name, word % WORD_SILENT, silent, line.rank);
    if (write(STDERR_FILENO, text, (size_t)n) < 0) {}
    _exit(1);
}

// Nobody has gone, and yet nothing can continue: this rank says why, and the others leave with it.
static void look(void) {
    char why[512], text[1024];
    if (!line.broken || error_status || !line.broken(why, sizeof why)) return;
    int n = snprintf(text, sizeof text,
                     "%s: rank %d: %s; all ranks stop (--resume continues from the newest checkpoint)\n", program_name,
                     line.rank, why);
    if (write(STDERR_FILENO, text, (size_t)n) < 0) {}
    device_failed();
    _exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// A word that must not wait for a peer which no longer reads: a full buffer swallows it. (A connection holds thousands
// of them, and a peer is given up after a few dozen.)
static void send_word(int r, int32_t word) {
    if (line.sockets[r] >= 0 && send(line.sockets[r], &word, sizeof word, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {}
}

// What a peer says, and by the end of its connection that it has died, or that no way leads to its machine.
static int32_t hear(int r) {
    int32_t word;
    line.silent[r] = 0.0;
    errno = 0;
    if (transfer(line.sockets[r], &word, sizeof word, 0)) return word;
    return errno == ETIMEDOUT || errno == EHOSTUNREACH || errno == ENETUNREACH ? WORD_LOST + r : r;
}

// Watches the connections until there is a byte in line.leave: 0; or until there is more to say than a beat, or too
// long nothing: 1, with the peer and its word.
static int watch(int* who, int32_t* word) {
    struct pollfd* p = host_alloc(((size_t)line.n + 1) * sizeof *p, "connections");
    double before = now(), beat = before;
    for (int r = 0; r < line.n; r++) p[r] = (struct pollfd){line.sockets[r], POLLIN, 0};  // −1 is skipped
    p[line.n] = (struct pollfd){line.leave[0], POLLIN, 0};
    for (;;) {
        int ready = poll(p, (nfds_t)line.n + 1, LOOK_MILLISECONDS);
        double t = now(), passed = t - before;
        before = t;
        // A process that was itself stopped and continued has not listened: that time is not the others' silence.
        if (passed > 2e-3 * LOOK_MILLISECONDS) passed = 2e-3 * LOOK_MILLISECONDS;
        if (ready > 0 && p[line.n].revents) break;
        for (int r = 0; r < line.n; r++) {
            if (line.sockets[r] < 0) continue;
            line.silent[r] += passed;
            *who = r;
            if (ready > 0 && p[r].revents && (*word = hear(r)) != WORD_BEAT) return 1;
            *word = WORD_SILENT + r;
            if (line.patience > 0.0 && line.silent[r] > line.patience) return 1;
        }
        if (t - beat < 1e-3 * LOOK_MILLISECONDS) continue;
        beat = t;
        for (int r = 0; r < line.n; r++) send_word(r, WORD_BEAT);
        look();
    }
    free(p);
    return 0;
}

static void* watch_hub(void* unused) {
    int who;
    int32_t word;
    (void)unused;
    if (watch(&who, &word)) stop(word);
    return NULL;
}

static void* watch_all(void* unused) {
    int who;
    int32_t word;
    (void)unused;
    if (!watch(&who, &word)) return NULL;
    // it may have left at this rank's own last word, which the others have yet to hear
    if (error_status) word = -error_status;
    for (int r = 1; r < line.n; r++)
        if (r != who) send_word(r, word);
    stop(word);
}

void lifeline_start(const LifelineAddress* a, int rank, int n, LifelineBroken broken) {
    line.rank = rank;
    line.n = n;
    line.broken = broken;
    memcpy(line.token, a->token, sizeof line.token);
    const char* patience = getenv("SEAL_SILENCE");
    line.patience = patience ? strtod(patience, NULL) : SILENCE_SECONDS;
    line.sockets = host_alloc((size_t)n * sizeof(int), "connections");
    line.silent = host_alloc((size_t)n * sizeof(double), "connections");
    if (pipe(line.leave)) fatal("cannot connect the ranks: %s", strerror(errno));
    for (int r = 0; r < n; r++) line.sockets[r] = -1;
    if (rank == 0) accept_all();
    else {
        struct {
            unsigned char token[16];
            int32_t rank;
        } hello;
        line.sockets[0] = connect_to(a);
        memcpy(hello.token, a->token, sizeof hello.token);
        hello.rank = rank;
        at_once(line.sockets[0]);
        if (!transfer(line.sockets[0], &hello, sizeof hello, 1)) fatal("rank 0 does not answer: %s", strerror(errno));
    }
    if (pthread_create(&line.thread, NULL, rank == 0 ? watch_all : watch_hub, NULL))
        fatal("cannot start the thread that watches the other ranks");
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
    free(line.silent);
    line.running = 0;
}
