// A library to be loaded before a program (LD_PRELOAD), which it interrupts twenty thousand times per second of the
// clock: what a handler of signals may break shows at once. Used by dev/cpu/test_gemm.sh.
#include <signal.h>
#include <sys/time.h>

static void on_tick(int number) { (void)number; }
__attribute__((constructor)) static void begin(void) {
    struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 50}, {0, 50}};  // microseconds
    sigaction(SIGALRM, &action, 0);
    setitimer(ITIMER_REAL, &often, 0);
}
