/*
The pool: OS threads that wait for a task and run its parts. A grid's blocks and a GEMM's columns are dealt here. The
caller takes parts too, and waits only for threads that have taken some: one that the machine has no core for, because
another program has it, holds up nobody. Not OpenMP: its runtime is not instrumented for ThreadSanitizer.
*/
#include <pthread.h>
#include <unistd.h>
#include "cpu_internal.h"

typedef struct {
    void (*task)(int, void*);
    void* context;
    int n;
} Work;
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t begin, finished;
    Work work;
    int generation, inside, n_threads, next;
    bool open, started;  // open: parts may be left; inside: threads that are at them
} pool = {PTHREAD_MUTEX_INITIALIZER,
          PTHREAD_COND_INITIALIZER,
          PTHREAD_COND_INITIALIZER,
          {NULL, NULL, 0},
          0,
          0,
          0,
          0,
          false,
          false};

int cpu_threads(void) {
    if (!pool.n_threads) {
        const char* text = CPU_TSAN ? "1" : getenv("CPU_THREADS");
        int n = text ? atoi(text) : 0;
        const char* ranks = getenv(
            "OMPI_COMM_WORLD_LOCAL_SIZE");  // processes of one mpirun on this machine share its cores
        pool.n_threads = n > 0 ? n : (int)sysconf(_SC_NPROCESSORS_ONLN) / (ranks && atoi(ranks) > 0 ? atoi(ranks) : 1);
        if (pool.n_threads < 1) pool.n_threads = 1;
    }
    return pool.n_threads;
}
static void run_parts(const Work* work) {
    for (;;) {
        int i = __atomic_fetch_add(&pool.next, 1, __ATOMIC_RELAXED);
        if (i >= work->n) return;
        work->task(i, work->context);
    }
}
static void* pool_thread(void*) {
    int seen = 0;
    for (;;) {
        pthread_mutex_lock(&pool.mutex);
        while (!pool.open || pool.generation == seen) pthread_cond_wait(&pool.begin, &pool.mutex);
        seen = pool.generation;
        pool.inside++;
        Work work = pool.work;
        pthread_mutex_unlock(&pool.mutex);
        run_parts(&work);
        pthread_mutex_lock(&pool.mutex);
        if (--pool.inside == 0) pthread_cond_signal(&pool.finished);
        pthread_mutex_unlock(&pool.mutex);
    }
    return NULL;
}
void cpu_parallel(int n, void (*task)(int, void*), void* context) {
    int threads = cpu_threads();
    if (n <= 1 || threads == 1) {
        for (int i = 0; i < n; i++) task(i, context);
        return;
    }
    if (!pool.started) {
        pool.started = true;
        for (int i = 1; i < threads; i++) {
            pthread_t thread;
            if (pthread_create(&thread, NULL, pool_thread, NULL)) cpu_fail("cannot start a thread");
            pthread_detach(thread);
        }
    }
    Work work = {task, context, n};
    pthread_mutex_lock(&pool.mutex);
    pool.work = work;
    __atomic_store_n(&pool.next, 0, __ATOMIC_RELAXED);
    pool.open = true;
    pool.generation++;
    pthread_cond_broadcast(&pool.begin);
    pthread_mutex_unlock(&pool.mutex);
    run_parts(&work);
    pthread_mutex_lock(&pool.mutex);
    pool.open = false;
    while (pool.inside) pthread_cond_wait(&pool.finished, &pool.mutex);
    pthread_mutex_unlock(&pool.mutex);
}
