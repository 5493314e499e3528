/*
Threads, warps and blocks on the CPU. A CUDA thread is a fiber: a stack and a saved stack pointer. Fibers are LAZY: one
stack runs the block's threads as a plain loop, and a second stack appears only when a thread must wait for others; a
kernel that never synchronises pays nothing. A block lives on one OS thread; blocks are dealt to a pool. Waiting threads
are resumed warp by warp, lowest lane first (or as CPU_ORDER says). For ThreadSanitizer every CUDA thread is a fiber of
its own, known to the sanitizer; this file is then compiled with -DCPU_TSAN and WITHOUT -fsanitize=thread, so that the
scheduler's own bookkeeping is not taken for the kernel's.
*/
#include <assert.h>
#include <ptx_cpu.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>
#include "cpu_internal.h"
#include "switch.h"
#if defined(__SANITIZE_THREAD__)
#error "fiber.cpp: compile with -DCPU_TSAN instead of -fsanitize=thread"
#endif

__thread uint3 threadIdx, blockIdx, blockDim, gridDim;

#if CPU_ASAN || CPU_TSAN || !defined(__OPTIMIZE__)
#define STACK_BYTES (256 * 1024)
#else
#define STACK_BYTES (64 * 1024)
#endif
#define GUARD_BYTES (64 * 1024)  // below a stack: wide enough that a large frame does not step over it
#define MAX_THREADS 1024
#define MAX_WARPS (MAX_THREADS / 32)
#define MAX_SHARED_SITES 64
#define STATIC_SHARED_LIMIT (48 * 1024)
#define MARGIN 64                   // bytes of poison on each side of a shared array
#define SHARED_BYTES (512 * 1024)   // static arrays of a block with their margins
#define DYNAMIC_BYTES (256 * 1024)  // dynamic shared memory, from DYNAMIC_OFFSET
#define DYNAMIC_OFFSET 4096

// ---------------------------------------------------------------------------------------------------
// the state of an OS thread that runs blocks

struct Warp {
    uint32_t arrived, mask;  // lanes waiting at the pending operation, lanes it names
    uint32_t runnable;       // lanes that waited and may continue
    cpu_operation operation;
    const char* file;
    int line;
    void* lanes[32];
    unsigned generation;  // operations done
    char sync[2];         // ThreadSanitizer's sync objects, see tsan_arrive
};
struct Site {
    const char* file;
    int line;
};
static bool same_file(const char* a, const char* b) { return a == b || !strcmp(a, b); }
struct SharedArray {
    const void* site;
    char* data;
    size_t bytes;
};

struct Worker {
    const cpu_launch* launch;
    int n_warps;
    Warp warps[MAX_WARPS];
    uint64_t runnable_warps;
    int barrier_arrived;
    Site barrier;
    bool at_barrier[MAX_THREADS];
    Site waits[MAX_THREADS];    // where each waiting thread waits
    void* saved[MAX_THREADS];   // its stack pointer
    int stack_of[MAX_THREADS];  // the stack it occupies
    void* scheduler;
    void* nowhere;  // takes the pointer of a stack that is left for good. Not a local variable: with gcc 13 and later
                    // ASan keeps those in a frame of its own, which goes with the stack before the pointer is written
    char* stacks[MAX_THREADS + 1];
    int free_stacks[MAX_THREADS + 1], n_free, n_stacks, current_stack;
    char *shared, *dynamic;
    size_t shared_used, dynamic_bytes;
    SharedArray arrays[MAX_SHARED_SITES];
    int n_arrays;
    uint16_t order[MAX_THREADS];
    int ordered_for;  // block size the order was made for
    // sanitizers
    const char* scheduler_stack;
    size_t scheduler_stack_bytes;
    void *fibers[MAX_THREADS], *scheduler_fiber;
    unsigned barrier_generation;
    char barrier_sync[2], begin_sync, end_sync;
};
static __thread Worker* me;
__thread cpu_block cpu_now;

static const char* operation_names[CPU_N_OPERATIONS] = {"__syncthreads", "__syncwarp", "shuffle",  "ballot",
                                                        "warp_sum",      "warp_max",   "ldmatrix", "mma"};

bool cpu_in_kernel(void) { return me && me->launch && me->current_stack >= 0; }
static int linear_thread(void) { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
unsigned cpu_lane(void) { return linear_thread() % 32; }

// Kernel and block, and the thread where one runs (margins are checked when a block has ended).
static void print_place(void) {
    if (!me || !me->launch) return;
    fprintf(stderr, "  kernel %s, block (%u,%u,%u), ", me->launch->kernel, blockIdx.x, blockIdx.y, blockIdx.z);
    if (me->current_stack >= 0) fprintf(stderr, "thread (%u,%u,%u), ", threadIdx.x, threadIdx.y, threadIdx.z);
    fprintf(stderr, "launched at %s:%d\n", me->launch->file, me->launch->line);
}
// Two OS threads may find an error at once: the first one speaks, the other waits for the end.
static void one_report(void) {
    static pthread_mutex_t reporting = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&reporting);
    fflush(stdout);
}
void cpu_fail(const char* format, ...) {
    va_list args;
    char message[1024];
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    one_report();
    fprintf(stderr, "CUDA on the CPU: %s\n", message);
    print_place();
    abort();
}
void cpu_misaligned(const void* p, size_t n, const char* file, int line) {
    cpu_fail("misaligned access: %p is not a multiple of %zu, at %s:%d", p, n, file, line);
}

// ---------------------------------------------------------------------------------------------------
// sanitizers: what they must know about fibers, and what they should say besides file and line

#if CPU_ASAN
// Called by AddressSanitizer before its report.
extern "C" void __asan_on_error(void) {
    void* p = __asan_get_report_address();
    if (cpu_in_kernel()) fprintf(stderr, "CUDA on the CPU: a memory error in a kernel\n");
    else if (cpu_is_device(p, 1)) fprintf(stderr, "CUDA on the CPU: the host touches device memory at %p\n", p);
    print_place();
}
#endif
#if CPU_ASAN
extern "C" void __ubsan_on_report(void) { print_place(); }  // called by UBSan after its line
#endif
#if CPU_TSAN
extern "C" void __tsan_read16(void* at);
extern "C" void AnnotateIgnoreWritesBegin(const char* file, int line);
extern "C" void AnnotateIgnoreWritesEnd(const char* file, int line);
// Called by ThreadSanitizer before its report; the second access of the race is the running thread's.
extern "C" void __tsan_on_report(void*) { print_place(); }
#endif

// A thread that arrives at a barrier releases the barrier's sync object, and acquires it when it continues. Two objects
// in turn: a thread late to continue would otherwise acquire what the others did after the barrier, and their writes
// over data it reads would look ordered.
static inline void tsan_arrive(char* sync) {
    (void)sync;
#if CPU_TSAN
    __tsan_release(sync);
#endif
}
static inline void tsan_leave(char* sync) {
    (void)sync;
#if CPU_TSAN
    __tsan_acquire(sync);
#endif
}

// Leaves this stack for number `to` (−1: the scheduler's). `last`: nobody comes back to this one.
static inline __attribute__((always_inline)) void switch_stack(Worker* w, void** save, void* load, int to, bool last) {
    (void)last;
    w->current_stack = to;
#if CPU_ASAN
    void* fake = NULL;
    if (to < 0) __sanitizer_start_switch_fiber(last ? NULL : &fake, w->scheduler_stack, w->scheduler_stack_bytes);
    else __sanitizer_start_switch_fiber(last ? NULL : &fake, w->stacks[to] + GUARD_BYTES, STACK_BYTES);
#endif
#if CPU_TSAN
    __tsan_switch_to_fiber(to < 0 ? w->scheduler_fiber : w->fibers[to], __tsan_switch_to_fiber_no_sync);
#endif
    cpu_switch(save, load);
#if CPU_ASAN
    __sanitizer_finish_switch_fiber(fake, NULL, NULL);
#endif
}

#if !CPU_ASAN && !CPU_TSAN
// A fault in a guard page is a stack overflow of the thread that runs; any other fault in a kernel is told with its
// place too.
static void on_fault(int signal_number, siginfo_t* info, void*) {
    const char* p = (const char*)info->si_addr;
    if (cpu_in_kernel()) {
        bool overflow = false;
        for (int s = 0; s < me->n_stacks; s++)
            overflow = overflow || (p >= me->stacks[s] && p < me->stacks[s] + GUARD_BYTES);
        if (overflow)
            fprintf(stderr, "CUDA on the CPU: stack overflow (a thread has %d KiB here)\n", STACK_BYTES / 1024);
        else fprintf(stderr, "CUDA on the CPU: invalid memory access at %p\n", p);
        print_place();
    }
    signal(signal_number, SIG_DFL);  // the access is repeated on return, and ends the program as usual
}
static void catch_faults(void) {  // for this OS thread, on a stack of its own: the thread's is the one that may be full
    stack_t stack = {};
    stack.ss_size = 64 * 1024;
    stack.ss_sp = malloc(stack.ss_size);
    sigaltstack(&stack, NULL);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
}
#else
static void catch_faults(void) {}  // the sanitizers do
#endif

// ---------------------------------------------------------------------------------------------------
// CPU_ORDER

typedef struct {
    int kind;
    uint64_t seed;
} Order;  // 0 forward, 1 reverse, 2 seeded
static Order read_order(void) {
    const char* text = getenv("CPU_ORDER");
    if (!text || !*text || !strcmp(text, "forward")) return {0, 0};
    if (!strcmp(text, "reverse")) return {1, 0};
    return {2, strtoull(text, NULL, 10)};
}
static const Order the_order = read_order();
static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}
// Threads in a seeded order, whole warps together.
static void make_order(Worker* w, int n) {
    const Order o = the_order;
    cpu_now.order = NULL;
    if (o.kind == 0) return;
    cpu_now.order = w->order;
    if (w->ordered_for == n) return;
    w->ordered_for = n;
    int warps = (n + 31) / 32, at = 0;
    int warp_order[MAX_WARPS];
    for (int i = 0; i < warps; i++) warp_order[i] = o.kind == 1 ? warps - 1 - i : i;
    if (o.kind == 2)
        for (int i = warps - 1; i > 0; i--) {
            int j = mix(o.seed + i) % (i + 1), t = warp_order[i];
            warp_order[i] = warp_order[j];
            warp_order[j] = t;
        }
    for (int i = 0; i < warps; i++) {
        int first = warp_order[i] * 32, lanes = n - first < 32 ? n - first : 32, from = at;
        for (int l = 0; l < lanes; l++) w->order[at++] = first + (o.kind == 1 ? lanes - 1 - l : l);
        if (o.kind == 2)
            for (int k = lanes - 1; k > 0; k--) {
                int j = mix(o.seed * 31 + i * 32 + k) % (k + 1);
                uint16_t t = w->order[from + k];
                w->order[from + k] = w->order[from + j];
                w->order[from + j] = t;
            }
    }
}
static int64_t block_at(int64_t i, int64_t n) {
    const Order o = the_order;
    if (o.kind == 0) return i;
    if (o.kind == 1) return n - 1 - i;
    // an odd multiplier modulo the next power of two would need rejection; a stride coprime to n does
    int64_t stride = (int64_t)(mix(o.seed) % (uint64_t)n) | 1;
    for (;; stride += 2) {
        int64_t a = stride, b = n;
        while (b) {
            int64_t t = a % b;
            a = b;
            b = t;
        }
        if (a == 1) break;
    }
    return (int64_t)(((__int128)i * stride + (int64_t)(mix(o.seed + 1) % (uint64_t)n)) % n);
}
// Which of several waiting lanes goes first.
static int pick_bit(uint64_t mask) {
    const Order o = the_order;
    if (o.kind == 0) return __builtin_ctzll(mask);
    if (o.kind == 1) return 63 - __builtin_clzll(mask);
    int n = mix(o.seed ^ mask) % __builtin_popcountll(mask);
    while (n--) mask &= mask - 1;
    return __builtin_ctzll(mask);
}

// ---------------------------------------------------------------------------------------------------
// the scheduler of a block

static void fiber_main(void);

static void make_stack(Worker* w) {
    int s = w->n_stacks++;
    char* p = (char*)mmap(NULL, STACK_BYTES + GUARD_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) cpu_fail("out of memory for thread stacks");
    mprotect(p, GUARD_BYTES, PROT_NONE);  // a kernel that overflows its stack faults here
    w->stacks[s] = p;
#if CPU_TSAN
    w->fibers[s] = __tsan_create_fiber(0);
#endif
}
// The stack for the thread that begins next: any free one, or, for ThreadSanitizer, the thread's own.
static int new_stack(Worker* w) {
#if CPU_TSAN
    return cpu_now.order ? cpu_now.order[cpu_now.next] : cpu_now.next;
#endif
    if (!w->n_free) {
        make_stack(w);
        return w->n_stacks - 1;
    }
    return w->free_stacks[--w->n_free];
}
static void leave_stack(Worker* w) {
    (void)w;
#if !CPU_TSAN
    w->free_stacks[w->n_free++] = w->current_stack;
#endif
}
// Stack tops are staggered by 448 bytes: with equal page offsets all of them would compete for the same lines of the L1
// cache.
static void* begin_stack(Worker* w, int s) {
#if CPU_ASAN
    __asan_unpoison_memory_region(w->stacks[s] + GUARD_BYTES,
                                  STACK_BYTES);  // frames that were left for good have their redzones there
#endif
    return fresh_stack(w->stacks[s] + GUARD_BYTES + STACK_BYTES - (448 * s) % 4096, fiber_main);
}
static void switch_to_new_thread(Worker* w, void** save, bool last) {
    int s = new_stack(w);
    switch_stack(w, save, begin_stack(w, s), s, last);
}

static void set_thread(int tid) {
    if (blockDim.y * blockDim.z == 1) {  // the usual case, without divisions
        threadIdx.x = tid;
        return;
    }
    threadIdx.x = tid % blockDim.x;
    threadIdx.y = tid / blockDim.x % blockDim.y;
    threadIdx.z = tid / (blockDim.x * blockDim.y);
}

static void report_deadlock(Worker* w) __attribute__((noreturn));
static void report_deadlock(Worker* w) {
    one_report();
    fprintf(
        stderr,
        "CUDA on the CPU: threads wait for others that never come\n  kernel %s, block (%u,%u,%u), launched at %s:%d\n",
        w->launch->kernel, blockIdx.x, blockIdx.y, blockIdx.z, w->launch->file, w->launch->line);
    int shown = 0, exited = 0, first_exited = -1;
    for (int t = 0; t < cpu_now.n_threads; t++)
        if (cpu_now.exited[t]) {
            exited++;
            if (first_exited < 0) first_exited = t;
        }
    for (int t = 0; t < cpu_now.n_threads; t++) {
        if (cpu_now.exited[t]) continue;
        bool first = true;  // one line for each place where somebody waits
        for (int u = 0; u < t && first; u++)
            if (!cpu_now.exited[u] && w->waits[u].line == w->waits[t].line && w->waits[u].file == w->waits[t].file &&
                w->at_barrier[u] == w->at_barrier[t])
                first = false;
        if (!first || shown++ > 8) continue;
        const Warp* warp = &w->warps[t / 32];
        fprintf(stderr, "  thread %d waits in %s at %s:%d", t,
                w->at_barrier[t] ? "__syncthreads" : operation_names[warp->operation], w->waits[t].file,
                w->waits[t].line);
        if (!w->at_barrier[t]) fprintf(stderr, ", lanes %08x of %08x came", warp->arrived, warp->mask);
        for (int l = 0; !w->at_barrier[t] && l < 32; l++)
            if ((warp->mask & ~warp->arrived) >> l & 1 && cpu_now.exited[t / 32 * 32 + l]) {
                fprintf(stderr, "; lane %d has left the kernel", l);
                break;
            }
        fputc('\n', stderr);
    }
    if (exited) fprintf(stderr, "  %d threads have left the kernel, thread %d first\n", exited, first_exited);
    abort();
}

// Leaves the current stack for a waiting thread's.
static void switch_to_thread(Worker* w, void** save, int tid, bool last) {
    set_thread(tid);
    switch_stack(w, save, w->saved[tid], w->stack_of[tid], last);
}

// A runnable lane, preferring one warp; −1 where none is.
static int take_runnable(Worker* w, int prefer) {
    int warp = prefer;
    if (warp < 0 || !w->warps[warp].runnable) {
        if (!w->runnable_warps) return -1;
        warp = pick_bit(w->runnable_warps);
    }
    Warp* k = &w->warps[warp];
    int lane = pick_bit(k->runnable);
    k->runnable &= ~(1u << lane);
    if (!k->runnable) w->runnable_warps &= ~(1ull << warp);
    return warp * 32 + lane;
}

// The current thread cannot continue: runs others until somebody makes it runnable and it is picked.
static void wait_here(int tid, const char* file, int line) {
    Worker* w = me;
    w->waits[tid] = {file, line};
    w->stack_of[tid] = w->current_stack;
    cpu_now.waiting++;
    int next = take_runnable(w, tid / 32);
    // Threads of the warp that have not begun come before other warps' waiting ones: a warp gets through its operation
    // together.
    bool unstarted = cpu_now.next < cpu_now.n_threads;
    if (next >= 0 && next / 32 != tid / 32 && unstarted) {
        int first = cpu_now.order ? cpu_now.order[cpu_now.next] : cpu_now.next;
        if (first / 32 == tid / 32) {
            w->warps[next / 32].runnable |= 1u << (next % 32);
            w->runnable_warps |= 1ull << (next / 32);
            next = -1;
        }
    }
    if (next >= 0) switch_to_thread(w, &w->saved[tid], next, false);
    else if (unstarted) switch_to_new_thread(w, &w->saved[tid], false);
    else report_deadlock(w);
    cpu_now.waiting--;
}

// A thread has finished while others wait: let those of its warp continue first. Called between threads, on the loop's
// own stack.
void cpu_resume_waiting(void) {
    Worker* w = me;
    if (cpu_now.next < cpu_now.n_threads) return;  // begin the rest first: they may be what the others wait for
    int next = take_runnable(w, linear_thread() / 32);
    if (next < 0) {
        if (cpu_now.done == cpu_now.n_threads) return;
        report_deadlock(w);
    }
    leave_stack(w);  // this stack's loop has nothing left to begin: it is never returned to
    switch_to_thread(w, &w->nowhere, next, true);
}

static void fiber_main(void) {
    Worker* w = me;
#if CPU_ASAN
    __sanitizer_finish_switch_fiber(NULL, NULL, NULL);
#endif
    tsan_leave(&w->begin_sync);
    w->launch->run_threads(w->launch->arguments);
    tsan_arrive(&w->end_sync);
#if CPU_TSAN
    if (cpu_now.next < cpu_now.n_threads) switch_to_new_thread(w, &w->nowhere, true);
    if (cpu_now.waiting) cpu_resume_waiting();
#endif
    // Every thread has begun, and the last one of this stack has finished with nobody waiting: the block is done.
    leave_stack(w);
    switch_stack(w, &w->nowhere, w->scheduler, -1, true);
    __builtin_unreachable();
}

// ---------------------------------------------------------------------------------------------------
// barriers and warp operations

// CPU_SKIP_BARRIER=file:line: nobody waits there, as if the line were not. For tests of the checks
//.
static const Site the_skipped = [] {
    const char *text = getenv("CPU_SKIP_BARRIER"), *colon = text ? strrchr(text, ':') : NULL;
    return colon ? Site{strndup(text, colon - text), atoi(colon + 1)} : Site{"", -1};
}();
static bool skipped_here(const char* file, int line) {
    return line == the_skipped.line && same_file(file, the_skipped.file);
}

void cpu_barrier(const char* file, int line) {
    if (skipped_here(file, line)) return;
    Worker* w = me;
    int tid = linear_thread();
    if (w->barrier_arrived && (w->barrier.line != line || !same_file(w->barrier.file, file)))
        cpu_fail("two different barriers meet: __syncthreads at %s:%d and at %s:%d", w->barrier.file, w->barrier.line,
                 file, line);
    if (cpu_now.done)
        cpu_fail("__syncthreads at %s:%d after %d threads of the block have left the kernel", file, line, cpu_now.done);
    w->barrier = {file, line};
    w->at_barrier[tid] = true;
    char* sync = &w->barrier_sync[w->barrier_generation & 1];
    tsan_arrive(sync);
    if (++w->barrier_arrived < cpu_now.n_threads) {
        wait_here(tid, file, line);
        tsan_leave(sync);
        return;
    }
    tsan_leave(sync);
    w->barrier_generation++;
    w->barrier_arrived = 0;
    for (int t = 0; t < cpu_now.n_threads; t++) w->at_barrier[t] = false;
    for (int i = 0; i < w->n_warps; i++) {
        int lanes = cpu_now.n_threads - 32 * i;
        w->warps[i].runnable = lanes >= 32 ? 0xffffffffu : (1u << lanes) - 1;
        if (i == tid / 32) w->warps[i].runnable &= ~(1u << (tid % 32));
        if (w->warps[i].runnable) w->runnable_warps |= 1ull << i;
    }
}

void cpu_collect(cpu_operation operation, uint32_t mask, void* mine, cpu_warp_function work, void* context,
                 const char* file, int line) {
    if (operation == CPU_SYNCWARP && skipped_here(file, line)) return;
    Worker* w = me;
    int tid = linear_thread(), lane = tid % 32, lanes = cpu_now.n_threads - (tid - lane);
    Warp* warp = &w->warps[tid / 32];
    if (!(mask >> lane & 1))
        cpu_fail("%s at %s:%d: mask %08x does not name the calling lane %d", operation_names[operation], file, line,
                 mask, lane);
    uint32_t expected = lanes >= 32 ? mask : mask & ((1u << lanes) - 1);
    // Shuffles, ldmatrix and mma hand values on and do not order memory, as __syncwarp does: for ThreadSanitizer they
    // are not barriers. It does not see what their work does; the row that a lane brings to ldmatrix is read by that
    // lane.
    bool ordered = work != cpu_shuffle_work && work != cpu_ballot_work && work != cpu_warp_sum_work &&
                   work != cpu_warp_max_work && work != cpu_ldmatrix_work && work != cpu_mma_work;
#if CPU_TSAN
    if (work == cpu_ldmatrix_work && lane < 8 * ((cpu_ldmatrix*)mine)->n)
        __tsan_read16((void*)((cpu_ldmatrix*)mine)->row);
#endif
    if (warp->arrived) {
        if (warp->operation != operation || warp->line != line || warp->mask != expected ||
            !same_file(warp->file, file))
            cpu_fail("lanes of a warp at different operations: %s at %s:%d (mask %08x) and %s at %s:%d (mask %08x)",
                     operation_names[warp->operation], warp->file, warp->line, warp->mask, operation_names[operation],
                     file, line, expected);
    } else {
        for (int l = 0; l < 32; l++)
            if ((expected >> l & 1) && cpu_now.exited[tid - lane + l])
                cpu_fail("%s at %s:%d names lane %d, which has left the kernel", operation_names[operation], file, line,
                         l);
        warp->operation = operation;
        warp->file = file;
        warp->line = line;
        warp->mask = expected;
    }
    warp->lanes[lane] = mine;
    warp->arrived |= 1u << lane;
    char* sync = &warp->sync[warp->generation & 1];
    if (ordered) tsan_arrive(sync);
    if (warp->arrived != expected) {
        wait_here(tid, file, line);
        if (ordered) tsan_leave(sync);
        return;
    }
    if (ordered) tsan_leave(sync);
    if (work) work(warp->lanes, expected, context);
    if (ordered) tsan_arrive(sync);  // work has written what the other lanes receive
    warp->generation++;
    warp->arrived = 0;
    warp->runnable |= expected & ~(1u << lane);
    if (warp->runnable) w->runnable_warps |= 1ull << (tid / 32);
}

void cpu_shuffle_work(void** lanes, uint32_t mask, void*) {
    for (int l = 0; l < 32; l++) {
        if (!(mask >> l & 1)) continue;
        cpu_shuffle* s = (cpu_shuffle*)lanes[l];
        int from = s->source;
        if (from < 0 || from > 31 || !(mask >> from & 1))
            cpu_fail("shuffle: lane %d reads lane %d, which does not take part", l, from);
        memcpy(s->out, ((cpu_shuffle*)lanes[from])->in, sizeof s->out);
    }
}
void cpu_ballot_work(void** lanes, uint32_t mask, void*) {
    uint32_t result = 0;
    for (int l = 0; l < 32; l++)
        if ((mask >> l & 1) && ((cpu_ballot*)lanes[l])->predicate) result |= 1u << l;
    for (int l = 0; l < 32; l++)
        if (mask >> l & 1) ((cpu_ballot*)lanes[l])->result = result;
}
static void whole_warp(uint32_t mask, const char* what) {
    if (mask != 0xffffffffu) cpu_fail("%s in a warp of fewer than 32 threads", what);
}
void cpu_warp_sum_work(void** lanes, uint32_t mask, void* context) {
    whole_warp(mask, "warp_sum");
    for (intptr_t i = 0; i < (intptr_t)context; i++) {
        float x[32];
        for (int l = 0; l < 32; l++) x[l] = ((float*)lanes[l])[i];
        for (int offset = 16; offset > 0; offset >>= 1)
            for (int l = 0; l < offset; l++)
                x[l] += x[l + offset];  // the butterfly's tree: commutative, so every lane has these bits
        for (int l = 0; l < 32; l++) ((float*)lanes[l])[i] = x[0];
    }
}
void cpu_warp_max_work(void** lanes, uint32_t mask, void*) {
    whole_warp(mask, "warp_max");
    float x = *(float*)lanes[0];
    for (int l = 1; l < 32; l++) x = fmaxf(x, *(float*)lanes[l]);
    for (int l = 0; l < 32; l++) *(float*)lanes[l] = x;
}

// ---------------------------------------------------------------------------------------------------
// shared memory

// Margins hold a pattern that is checked when the block ends; under AddressSanitizer they are poisoned, and the access
// itself is reported.
#if CPU_ASAN
static void fill_margin(char* p) { __asan_poison_memory_region(p, MARGIN); }
static void check_margin(const char*, const char*, size_t) {}
static void open_memory(char* p, size_t bytes) { __asan_unpoison_memory_region(p, bytes); }
#else
static void fill_margin(char* p) { memset(p, 0xa5, MARGIN); }
static void check_margin(const char* p, const char* what, size_t bytes) {
    for (int i = 0; i < MARGIN; i++)
        if ((unsigned char)p[i] != 0xa5) cpu_fail("write outside %s of %zu bytes", what, bytes);
}
static void open_memory(char*, size_t) {}
#endif
// NaN: what a thread reads before anybody has written it shows. ThreadSanitizer must not take it for the running
// thread's write.
static void fill_nan(char* p, size_t bytes) {
#if CPU_TSAN
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    memset(p, 0xff, bytes);
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
#else
    memset(p, 0xff, bytes);
#endif
}

void* cpu_shared(const void* site, size_t bytes, size_t alignment) {
    Worker* w = me;
    for (int i = 0; i < w->n_arrays; i++)
        if (w->arrays[i].site == site) return w->arrays[i].data;
    if (w->n_arrays == MAX_SHARED_SITES) cpu_fail("more than %d static shared arrays", MAX_SHARED_SITES);
    if (alignment > 128) cpu_fail("shared array aligned to %zu bytes", alignment);
    size_t from = (w->shared_used + MARGIN + 127) / 128 * 128, total = 0;
    for (int i = 0; i < w->n_arrays; i++) total += w->arrays[i].bytes;
    if (total + bytes > STATIC_SHARED_LIMIT)
        cpu_fail("%zu bytes of static shared memory, a GPU has %d", total + bytes, STATIC_SHARED_LIMIT);
    char* data = w->shared + from;
    open_memory(data, bytes);
    fill_nan(data, bytes);
    fill_margin(data - MARGIN);
    fill_margin(data + bytes);
    w->arrays[w->n_arrays++] = {site, data, bytes};
    w->shared_used = from + bytes + MARGIN;
    return data;
}
void* cpu_dynamic_shared(void) {
    if (!me->dynamic_bytes) cpu_fail("EXTERN_SHARED in a launch without dynamic shared memory");
    return me->dynamic;
}
static void begin_shared(Worker* w, size_t dynamic_bytes) {
#if CPU_ASAN
    __asan_poison_memory_region(w->shared, SHARED_BYTES);  // all that no array of this block covers
    __asan_poison_memory_region(w->dynamic - DYNAMIC_OFFSET, DYNAMIC_BYTES);
#endif
    w->n_arrays = 0;
    w->shared_used = 0;
    w->dynamic_bytes = dynamic_bytes;
    if (!dynamic_bytes) return;
    open_memory(w->dynamic, dynamic_bytes);
    fill_nan(w->dynamic, dynamic_bytes);
    fill_margin(w->dynamic - MARGIN);
    fill_margin(w->dynamic + dynamic_bytes);
}
static void end_shared(Worker* w) {
    for (int i = 0; i < w->n_arrays; i++) {
        check_margin(w->arrays[i].data - MARGIN, "a shared array", w->arrays[i].bytes);
        check_margin(w->arrays[i].data + w->arrays[i].bytes, "a shared array", w->arrays[i].bytes);
    }
    if (w->dynamic_bytes) {
        check_margin(w->dynamic - MARGIN, "dynamic shared memory", w->dynamic_bytes);
        check_margin(w->dynamic + w->dynamic_bytes, "dynamic shared memory", w->dynamic_bytes);
    }
}

// ---------------------------------------------------------------------------------------------------
// grids

static Worker* this_worker(void) {
    if (me) return me;
    me = (Worker*)calloc(1, sizeof *me);
    me->current_stack = -1;
    me->shared = (char*)aligned_alloc(4096, SHARED_BYTES);
    me->dynamic = (char*)aligned_alloc(4096, DYNAMIC_BYTES) + DYNAMIC_OFFSET;
    if (!me->shared) cpu_fail("out of memory");
    catch_faults();
#if CPU_ASAN
    pthread_attr_t attributes;
    void* stack;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &stack, &me->scheduler_stack_bytes);
    pthread_attr_destroy(&attributes);
    me->scheduler_stack = (const char*)stack;
#endif
#if CPU_TSAN
    me->scheduler_fiber = __tsan_get_current_fiber();
#endif
    return me;
}

static void run_block(Worker* w, const cpu_launch* launch, int64_t index) {
    int n = launch->block.x * launch->block.y * launch->block.z;
    blockIdx = {(unsigned)(index % launch->grid.x), (unsigned)(index / launch->grid.x % launch->grid.y),
                (unsigned)(index / ((int64_t)launch->grid.x * launch->grid.y))};
    cpu_now.next = cpu_now.done = cpu_now.waiting = 0;
    cpu_now.n_threads = n;
    memset(cpu_now.exited, 0, n);
    w->n_warps = (n + 31) / 32;
#ifdef CPU_PTX
    if (launch->ptx) ptx_begin_block(launch->ptx, launch->shared_bytes);
#endif
    begin_shared(w, launch->shared_bytes);
    cpu_async_begin_block();
#if CPU_TSAN
    while (w->n_stacks < n) make_stack(w);
#endif
    tsan_arrive(&w->begin_sync);
    switch_to_new_thread(w, &w->scheduler, false);
    w->current_stack = -1;
    tsan_leave(&w->end_sync);
    if (cpu_now.done != n) report_deadlock(w);
    end_shared(w);
}

typedef struct {
    const cpu_launch* launch;
    int64_t n_blocks, chunk;
    int64_t next;
} Grid;

static void run_blocks(Grid* g) {
    Worker* w = this_worker();
    const cpu_launch* launch = g->launch;
    w->launch = launch;
    blockDim = {launch->block.x, launch->block.y, launch->block.z};
    gridDim = {launch->grid.x, launch->grid.y, launch->grid.z};
    make_order(w, launch->block.x * launch->block.y * launch->block.z);
    for (;;) {
        int64_t first = __atomic_fetch_add(&g->next, g->chunk, __ATOMIC_RELAXED);
        if (first >= g->n_blocks) break;
        int64_t end = first + g->chunk < g->n_blocks ? first + g->chunk : g->n_blocks;
        for (int64_t i = first; i < end; i++) run_block(w, launch, block_at(i, g->n_blocks));
    }
    w->launch = NULL;
}

static void grid_part(int, void* context) { run_blocks((Grid*)context); }

void cpu_run_grid(const cpu_launch& launch) {
#ifdef CPU_PTX
    ptx_begin_grid();
#endif
    Grid g = {&launch, (int64_t)launch.grid.x * launch.grid.y * launch.grid.z, 1, 0};
    int threads = cpu_threads();
    int64_t work = g.n_blocks * launch.block.x * launch.block.y * launch.block.z;
    // Waking another OS thread costs about 10 µs: a grid of few threads is done before.
    if (g.n_blocks == 1 || work < 256) threads = 1;
    g.chunk = g.n_blocks / (threads * 8);
    if (g.chunk < 1) g.chunk = 1;
    if (threads == 1) run_blocks(&g);
    else cpu_parallel(threads, grid_part, &g);
}
