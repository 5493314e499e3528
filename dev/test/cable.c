/*
A cable between two network namespaces that can be damaged: a tap interface `cable0` in each, and this process, which
carries every frame from one to the other. The kernel's netem does the same where it is built in; this needs the tun
device and root alone.

    cable NAMESPACE NAMESPACE

says "ready", then reads commands, one per line, from stdin until its end: `loss N` drops N% of the frames, `delay N`
carries a frame N milliseconds later, `cut` carries nothing, `join` carries everything at once, as in the beginning.
*/
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define FRAME_MOST 2048
#define QUEUE 4096  // frames on their way

typedef struct {
    double due;
    int to;  // the end it comes out of
    ssize_t n;
    char bytes[FRAME_MOST];
} Frame;
static Frame queue[QUEUE];  // in the order of arrival, which is that of their times: the delay is the same for all
static unsigned first, next;

static void fail(const char* what) {
    fprintf(stderr, "cable: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// A tap stays in the namespace in which it was made, wherever its descriptor is used.
static int tap_in(const char* name) {
    char path[256];
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    snprintf(path, sizeof path, "/var/run/netns/%s", name);
    int space = open(path, O_RDONLY | O_CLOEXEC);
    if (space < 0 || setns(space, CLONE_NEWNET)) fail(path);
    close(space);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) fail("/dev/net/tun");
    strcpy(request.ifr_name, "cable0");
    if (ioctl(fd, TUNSETIFF, &request)) fail("a tap");
    return fd;
}

int main(int argc, char** argv) {
    if (argc != 3) return fprintf(stderr, "cable: expected two namespaces\n"), 2;
    const int ends[2] = {tap_in(argv[1]), tap_in(argv[2])};
    double loss = 0.0, delay = 0.0;
    int cut = 0;
    unsigned seed = 1;
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd p[3] = {{ends[0], POLLIN, 0}, {ends[1], POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
        double wait = first == next ? 1.0 : queue[first % QUEUE].due - now();
        poll(p, 3, wait <= 0.0 ? 0 : (int)(1e3 * wait) + 1);
        if (p[2].revents) {
            char text[256], word[16] = "";
            ssize_t n = read(STDIN_FILENO, text, sizeof text - 1);
            if (n <= 0) return 0;
            text[n] = 0;
            for (char* line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
                double number = 0.0;
                sscanf(line, "%15s %lf", word, &number);
                if (!strcmp(word, "loss")) loss = number / 100.0;
                else if (!strcmp(word, "delay")) delay = number / 1000.0;
                else if (!strcmp(word, "cut")) cut = 1;
                else if (!strcmp(word, "join")) cut = 0, loss = delay = 0.0;
                else return fprintf(stderr, "cable: unknown command %s\n", word), 2;
            }
        }
        for (int end = 0; end < 2; end++) {
            if (!(p[end].revents & POLLIN)) continue;
            for (Frame* f; next - first < QUEUE; next++) {
                f = &queue[next % QUEUE];
                f->n = read(ends[end], f->bytes, sizeof f->bytes);
                if (f->n <= 0) break;
                f->due = now() + delay;
                f->to = !end;
                if (cut || (double)rand_r(&seed) / RAND_MAX < loss) next--;
            }
        }
        for (; first != next && queue[first % QUEUE].due <= now(); first++) {
            const Frame* f = &queue[first % QUEUE];
            if (!cut && write(ends[f->to], f->bytes, (size_t)f->n) < 0) continue;  // an end that is down loses it
        }
    }
}
