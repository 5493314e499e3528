/*
The state of a run on the device, as a table {name, buffer, elements}, copied to the host and written as a checkpoint.
The copy is queued after the step it belongs to and travels while the next step is queued; a thread writes it. The
device waits for nothing but the copy itself.
*/
#ifndef SEAL_SNAPSHOT_H
#define SEAL_SNAPSHOT_H

#include <pthread.h>
#include "run/checkpoint.h"
#include "cuda_common.h"

#define SNAPSHOT_ROWS 16

typedef struct {
    CheckpointPart parts[SNAPSHOT_ROWS];  // what this rank saves
    float* device[SNAPSHOT_ROWS];         // what it has of the buffer: elements [from, from + n)
    int64_t device_from[SNAPSHOT_ROWS], device_n[SNAPSHOT_ROWS];
    int n_rows;
    size_t bytes;        // of this rank's parts
    size_t whole_bytes;  // of all ranks'
    const char* run;
    int rank, keep;
    size_t host_most;  // host memory a copy may take
    size_t piece;      // bytes at a time where it does not fit
    char* host;        // pinned; the whole copy, or a piece of it where host_most is smaller
    size_t host_bytes;
    cudaEvent_t copied;
    int64_t step;  // steps done in the copy that is not published yet; −1: none
    bool begun;    // its file is open already
    CheckpointWriter writer;
    char* run_json;
    pthread_t thread;
    bool writing;
    int finished;  // set by the thread; read atomically
} Snapshot;

// run: where checkpoints go; keep: how many stay.
void snapshot_begin(Snapshot* s, const char* run, int rank, int keep);
// A buffer of `count` fp32 values that every rank has; rank 0 saves it.
void snapshot_add(Snapshot* s, const char* name, float* device, int64_t count);
// A buffer of which this rank has, and saves, [from, from + n).
void snapshot_add_part(Snapshot* s, const char* name, float* device, int64_t count, int64_t from, int64_t n);
// Queues the copy of the state after `step` steps. Waits for the checkpoint before it where that is still being
// written. A state larger than host_most is written at once, piece by piece.
void snapshot_take(Snapshot* s, int64_t step, cudaStream_t stream);
// Writes the copy with what the step's results added (run_json is taken over); returns at once. Nothing where no copy
// is pending.
void snapshot_publish(Snapshot* s, char* run_json);
// End the program with one line and status 2 where a checkpoint could not be written. poll returns at once if the
// thread is still writing; wait waits for it.
void snapshot_poll(Snapshot* s);
void snapshot_wait(Snapshot* s);
void snapshot_end(Snapshot* s);
// Reads every buffer of the table from a checkpoint.
void snapshot_restore(Snapshot* s, const Checkpoint* c);

#endif
