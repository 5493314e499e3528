/* Stands in for seal/base/error.c in the fuzz builds: fatal() comes back to survive() instead of ending the process.
   The blocks and file descriptors that the code would have left to the end of the process are given back here, so that
   a million refused inputs cost no memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/file.h"
#include "commands/scores.h"
#include "fuzz.h"

// Of the sanitizers' run-time library; gcc comes without the header.
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void* p, size_t n),
                                              void (*on_free)(const volatile void* p));

// The methods' table names functions of .cu files, which no target calls.
#define NOT_CALLED(measure) \
    void measure(Measurement* m) { (void)m; }
FOR_EACH_MEASURE(NOT_CALLED)

const char* program_name = "fuzz";
int error_rank;
_Atomic int error_status;

// ---- blocks allocated since survive() began --------------------------------------------------------

#define SLOTS (1u << 16)
static const volatile void* live[SLOTS];  // open addressing; GONE marks the place of a freed block
#define GONE ((const volatile void*)1)
static size_t n_live, n_used;
static bool tracking, overflow;  // overflow: too many blocks to follow; they are then left alone

static size_t slot_of(const volatile void* p) { return ((uintptr_t)p >> 4) * 0x9E3779B97F4A7C15u >> 48; }

static void on_malloc(const volatile void* p, size_t n) {
    (void)n;
    if (!tracking || !p) return;
    if (n_used > SLOTS / 2) {
        overflow = true;
        return;
    }
    size_t i = slot_of(p) % SLOTS;
    while (live[i] && live[i] != GONE) i = (i + 1) % SLOTS;
    n_used += !live[i];
    live[i] = p;
    n_live++;
}

static void on_free(const volatile void* p) {
    if (!tracking || !p) return;
    for (size_t i = slot_of(p) % SLOTS; live[i]; i = (i + 1) % SLOTS)
        if (live[i] == p) {
            live[i] = GONE;
            n_live--;
            return;
        }
}

// ---- the way back ----------------------------------------------------------------------------------

static jmp_buf back;
static bool inside;

bool survive(void (*body)(void* argument), void* argument) {
    static bool hooked;
    if (!hooked) {
        Hex hex;
        sha256_hex("", 0, hex);  // libcrypto keeps what its first use allocates
        hooked = __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
    }
    if (n_used) memset(live, 0, sizeof live);
    n_live = n_used = 0;
    overflow = false;
    int first = dup(2);  // descriptors from here on are the body's
    close(first);
    inside = tracking = true;
    bool good = !setjmp(back);
    if (good) body(argument);
    inside = tracking = false;
    if (good) return true;
    for (size_t i = 0; i < SLOTS && n_live && !overflow; i++)
        if (live[i] && live[i] != GONE) {
            free((void*)live[i]);
            n_live--;
        }
    close_range((unsigned)first, ~0u, 0);
    return false;
}

void fatal(const char* format, ...) {
    char line[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);  // formats what it was given: a bad pointer shows
    va_end(args);
    MUST(inside && *line);
    longjmp(back, 1);
}

void program_error(const char* format, ...) {
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    abort();
}

void warning(const char* format, ...) { (void)format; }
void stdout_check(void) {}

// ---- files -----------------------------------------------------------------------------------------

static char directory[64];
static void remove_directory(void) {
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    if (system(command)) fprintf(stderr, "%s is left behind\n", directory);
}

const char* fuzz_directory(void) {
    if (!*directory) {
        snprintf(directory, sizeof directory, "%s/fuzz.%d", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm",
                 (int)getpid());
        MUST(mkdir(directory, 0700) == 0);
        atexit(remove_directory);
    }
    return directory;
}

const char* fuzz_file(const char* name, const uint8_t* data, size_t n) {
    static char paths[4][128];
    static int turn;
    char* path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", fuzz_directory(), name);
    FILE* f = fopen(path, "wb");
    MUST(f && fwrite(data, 1, n, f) == n && fclose(f) == 0);
    return path;
}

void fuzz_unmap(void) {
    static int calls;
    unsigned long from, to;
    char line[4096];
    if (++calls % 256) return;
    FILE* maps = fopen("/proc/self/maps", "r");
    MUST(maps);
    while (fgets(line, sizeof line, maps))
        if (strstr(line, fuzz_directory()) && sscanf(line, "%lx-%lx", &from, &to) == 2) munmap((void*)from, to - from);
    fclose(maps);
}
