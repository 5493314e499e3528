/* One body of work on all cores: the rows of a chunk are tokenised, counted or hashed side by side. */
#ifndef SEAL_PARALLEL_H
#define SEAL_PARALLEL_H

#ifdef __cplusplus
extern "C" {
#endif

#define PARALLEL_MOST 256
int parallel_cores(void);  // the cores that this process may use, at most PARALLEL_MOST
// Runs body(context) on `threads` threads, the caller's among them, and waits for all. Where a thread cannot be created
// the others do its work: the body takes items from an atomic counter until none is left.
void parallel_run(int threads, void (*body)(void* context), void* context);

#ifdef __cplusplus
}
#endif
#endif
