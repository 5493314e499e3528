/*
The few lines every test program shares: named checks that are counted and printed as TAP (`ok NAME`, `not ok NAME:
why`), so that one failure does not hide the next. dev/test/run.sh adds the programs up. Usable from C and from .cu
files.
*/
#ifndef SEAL_CHECK_H
#define SEAL_CHECK_H

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static int check_passed, check_failed;

// In bf16 the CPU build has a faster attention of its own (dev/cpu/README.md). Tests run the GPU's, unless told
// otherwise.
__attribute__((constructor)) static void check_the_gpus_kernels(void) { setenv("CPU_ATTENTION", "tensor", 0); }

#define CHECK_UNUSED __attribute__((unused))

// One check with a printf-style name; returns the condition.
CHECK_UNUSED __attribute__((format(printf, 2, 3))) static int check(int good, const char* format, ...) {
    va_list args;
    va_start(args, format);
    fputs(good ? "ok " : "not ok ", stdout);
    vprintf(format, args);
    putchar('\n');
    fflush(stdout);
    va_end(args);
    if (good) check_passed++;
    else check_failed++;
    return good;
}

// The larger of two, where a NaN is larger than all: fmax drops it, and a maximum of errors would not see it. (In such
// loops fmax also ends g++ 12.2 for aarch64 in an internal error.)
CHECK_UNUSED static double larger(double most, double x) { return isnan(most) || x <= most ? most : x; }

CHECK_UNUSED static void check_skip(const char* name, const char* why) { printf("ok %s # SKIP %s\n", name, why); }

// fp32: max|a−b| ≤ tolerance · max|b|. Prints the measured ratio either way; a NaN anywhere fails.
CHECK_UNUSED static int check_close(const char* name, const float* a, const double* b, long n, double tolerance) {
    double worst = 0.0, scale = 0.0;
    long at = 0;
    for (long i = 0; i < n; i++) {
        double error = fabs((double)a[i] - b[i]);
        if (!(error <= worst) && !isnan(worst)) {
            worst = error;
            at = i;
        }  // a NaN stays the worst
        if (fabs(b[i]) > scale) scale = fabs(b[i]);
    }
    return check(worst <= tolerance * scale,
                 "%s: max|a-b| %.2e of max|b| %.3g, allowed %.0e (worst at %ld: %.6g against %.6g)", name, worst, scale,
                 tolerance, at, n ? a[at] : 0.0, n ? b[at] : 0.0);
}

// bf16: cosine ≥ 0.999 and norm within 1%, or within what a test that sets check_norm_limit gives a reason for. A
// reference that is zero everywhere demands zeros.
static double check_norm_limit = 0.01;
static double check_norm_ratio;  // of the last comparison; 1 where both are zero
CHECK_UNUSED static int check_cosine(const char* name, const float* a, const double* b, long n) {
    double ab = 0.0, aa = 0.0, bb = 0.0;
    for (long i = 0; i < n; i++) {
        ab += (double)a[i] * b[i];
        aa += (double)a[i] * a[i];
        bb += b[i] * b[i];
    }
    check_norm_ratio = 1.0;
    if (bb == 0.0) return check(aa == 0.0, "%s: all zero", name);
    double cosine = ab / sqrt(aa * bb), ratio = sqrt(aa / bb);
    check_norm_ratio = ratio;
    return check(cosine >= 0.999 && fabs(ratio - 1.0) <= check_norm_limit, "%s: cosine %.6f, norm ratio %.5f", name,
                 cosine, ratio);
}

CHECK_UNUSED static int check_report(void) {
    printf("%d passed, %d failed\n", check_passed, check_failed);
    return check_failed != 0;
}

#endif
