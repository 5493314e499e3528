/*
What the programs of dev/kernels share: options, random numbers, timing. Every program knows --check (tests, TAP lines), --small (with --check:
the tiny shapes only, for sanitizers) and --help; without --check it is a benchmark, whose sizes are options of its own table.
Additions are welcome here; keep what is in use.
*/
#ifndef SEAL_HARNESS_H
#define SEAL_HARNESS_H

#include <limits.h>
#include <string.h>
// defines: floatX, cudaCheck, LAUNCH, cudaEvent_t …
#include "cuda_common.h"

#define HARNESS_UNUSED __attribute__((unused))

// ---- options -----------------------------------------------------------------------------------------------------------------------------
typedef struct {
    const char* name;  // with its dashes
    int* value;        // holds the default before
    int least;         // smallest value allowed
    const char* help;
} HarnessOption;

static bool harness_check, harness_small;  // --check, --small

// Fills the table's values from the command line; a wrong option or value is one line and exit status 2.
HARNESS_UNUSED static void harness_options(int argc, char** argv, const HarnessOption* table, int n) {
    for (int i = 1; i < argc; i++) {
        int at = 0;
        if (!strcmp(argv[i], "--check")) { harness_check = true; continue; }
        if (!strcmp(argv[i], "--small")) { harness_small = true; continue; }
        if (!strcmp(argv[i], "--help")) {
            printf("usage: %s [--check [--small]] or a benchmark with\n", argv[0]);
            for (int k = 0; k < n; k++) printf("  %-16s %s (%d)\n", table[k].name, table[k].help, *table[k].value);
            exit(0);
        }
        while (at < n && strcmp(argv[i], table[at].name)) at++;
        char* end = NULL;
        long value = at < n && i + 1 < argc ? strtol(argv[i + 1], &end, 10) : 0;
        if (at == n) fprintf(stderr, "%s: unknown option %s; --help lists them\n", argv[0], argv[i]);
        else if (i + 1 == argc || end == argv[i + 1] || *end || value < table[at].least || value > INT_MAX)
            fprintf(stderr, "%s: %s needs a whole number of at least %d\n", argv[0], argv[i], table[at].least);
        else {
            *table[at].value = (int)value;
            i++;
            continue;
        }
        exit(2);
    }
}

// ---- random numbers ------------------------------------------------------------------------------------------------------------------------
static uint64_t harness_state = 0x9e3779b97f4a7c15ull;

// uniform with mean 0 and variance 1 (splitmix64), the same sequence in every run
HARNESS_UNUSED static float harness_random(void) {
    uint64_t z = harness_state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return ((float)(z >> 40) * (1.0f / 8388608.0f) - 1.0f) * 1.7320508f;
}

// ---- timing --------------------------------------------------------------------------------------------------------------------------------
static int harness_compare(const void* a, const void* b) { return *(const float*)a < *(const float*)b ? -1 : *(const float*)a > *(const float*)b; }

// Median seconds of one run(data, stream): a warm-up, then runs until half a second or 50 are over, each between two events.
HARNESS_UNUSED static double harness_time(void (*run)(void* data, cudaStream_t stream), void* data) {
    float ms[50], total = 0.0f;
    int n = 0;
    cudaEvent_t begin, end;
    cudaCheck(cudaEventCreate(&begin));
    cudaCheck(cudaEventCreate(&end));
    run(data, 0);
    cudaCheck(cudaDeviceSynchronize());
    while (n < 3 || (n < 50 && total < 500.0f)) {
        cudaCheck(cudaEventRecord(begin, 0));
        run(data, 0);
        cudaCheck(cudaEventRecord(end, 0));
        cudaCheck(cudaEventSynchronize(end));
        cudaCheck(cudaEventElapsedTime(&ms[n], begin, end));
        total += ms[n++];
    }
    cudaCheck(cudaEventDestroy(begin));
    cudaCheck(cudaEventDestroy(end));
    qsort(ms, n, sizeof(float), harness_compare);
    return 1e-3 * ms[n / 2];
}

#endif
