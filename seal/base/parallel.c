/* One body of work on all cores. See parallel.h. */
#include <pthread.h>
#include <sched.h>
#include "base/parallel.h"

int parallel_cores(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    return n < 1 ? 1 : n > PARALLEL_MOST ? PARALLEL_MOST : n;
}

typedef struct {
    void (*body)(void* context);
    void* context;
} Work;

static void* run(void* argument) {
    const Work* w = argument;
    w->body(w->context);
    return NULL;
}

void parallel_run(int threads, void (*body)(void* context), void* context) {
    pthread_t started[PARALLEL_MOST];
    Work w = {body, context};
    int n = 0;
    if (threads > PARALLEL_MOST) threads = PARALLEL_MOST;
    while (n < threads - 1 && !pthread_create(&started[n], NULL, run, &w)) n++;
    body(context);
    for (int i = 0; i < n; i++) pthread_join(started[i], NULL);
}
