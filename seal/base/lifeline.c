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
#include <unistd.h>
#include "base/error.h"
#include "base/lifeline.h"

#define HELLO_SECONDS 60   // for all to call
#define CONNECT_SECONDS 3  // for one address to answer
#define LOOK_MILLISECONDS 1000

static struct {
    int listener, rank, n;
    int* sockets;  // rank 0: by rank; others: [0] is the connection to rank 0
    int leave[2];  // a byte here ends the thread
    pthread_t thread;
    unsigned char token[16];
    LifelineBroken broken;
    int running;
} line = {-1, 0, 0, NULL, {-1, -1}, 0, {0}, NULL, 0};

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
        keep_alive(fd);
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

// The end of a rank that hears of another's: its number where it has gone without a word, −status where it has said
// why. The device may be waiting for the one that is gone, so nothing is cleaned up.
__attribute__((noreturn)) static void stop(int32_t gone) {
    char text[256];
    if (error_status) _exit(error_status);  // it was about to say what the other has said
    if (gone < 0) _exit(-gone);
    int n = snprintf(text, sizeof text,
                     "%s: rank %d has died; rank %d stops too (--resume continues from the newest checkpoint)\n",
                     program_name, gone, line.rank);
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

// Until a socket has something to say.
static void wait_for(struct pollfd* p, int n) {
    for (int ready = 0; ready <= 0;) {
        ready = poll(p, (nfds_t)n, LOOK_MILLISECONDS);
        if (ready == 0) look();
    }
}

static void* watch_hub(void* unused) {
    (void)unused;
    struct pollfd p[2] = {{line.sockets[0], POLLIN, 0}, {line.leave[0], POLLIN, 0}};
    int32_t gone = 0;
    wait_for(p, 2);
    if (p[1].revents) return NULL;
    if (!transfer(line.sockets[0], &gone, sizeof gone, 0)) gone = 0;
    stop(gone);
}

static void* watch_all(void* unused) {
    (void)unused;
    struct pollfd* p = calloc((size_t)line.n, sizeof *p);
    if (!p) return NULL;
    for (int r = 0; r < line.n; r++) {
        p[r].fd = r ? line.sockets[r] : line.leave[0];
        p[r].events = POLLIN;
    }
    for (;;) {
        wait_for(p, line.n);
        if (p[0].revents) {
            free(p);
            return NULL;
        }
        for (int r = 1; r < line.n;
             r++) {  // a rank sends nothing after its hello but its last word: whatever comes is its end
            if (!p[r].revents) continue;
            int32_t gone;
            if (!transfer(line.sockets[r], &gone, sizeof gone, 0) || gone >= 0) gone = r;
            if (error_status)
                gone =
                    -error_status;  // it may have left at this rank's own last word, which the others have yet to hear
            for (int s = 1; s < line.n; s++)
                if (s != r) transfer(line.sockets[s], &gone, sizeof gone, 1);
            stop(gone);
        }
    }
}

void lifeline_start(const LifelineAddress* a, int rank, int n, LifelineBroken broken) {
    line.rank = rank;
    line.n = n;
    line.broken = broken;
    memcpy(line.token, a->token, sizeof line.token);
    line.sockets = malloc((size_t)n * sizeof(int));
    if (!line.sockets || pipe(line.leave)) fatal("cannot connect the ranks: %s", strerror(errno));
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
        keep_alive(line.sockets[0]);
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
    line.running = 0;
}
