/*
Checkpoints as files. RUN/checkpoint/step-N/ holds, of every rank R, rank-R.safetensors (its part of every state buffer)
and rank-R.sha256, written last; and run.json with the rest of a run: options, digests of model and data,
counters, the length of the log. A checkpoint counts when the .sha256 of every rank is there (`sha256sum -c` reads them)
and agrees with the files; anything else is what a killed process left behind. Knows no device.
*/
#ifndef SEAL_CHECKPOINT_H
#define SEAL_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>
#include <cjson/cJSON.h>
#include "base/safetensors.h"

#ifdef __cplusplus
extern "C" {
#endif

// Elements [from, from + n) of a buffer of `count` fp32 values: what one rank keeps of it in its file.
typedef struct {
    char name[32];
    int64_t count, from, n;
} CheckpointPart;

// Writing: create, the parts' data in their order, commit. It runs on a thread of its own, so nothing here ends the
// program: a failure returns false with the reason in `error`, removes what was written, and leaves the checkpoints
// before it as they were.
typedef struct {
    char directory[PATH_ROOM], path[PATH_ROOM + 40], error[PATH_ROOM + 200];
    int rank, fd;
    void* sha;
} CheckpointWriter;
bool checkpoint_create(CheckpointWriter* w, const char* run, int64_t step, int rank, const CheckpointPart* parts,
                       int n);
bool checkpoint_write(CheckpointWriter* w, const void* data, size_t bytes);
bool checkpoint_commit(CheckpointWriter* w, const char* run_json);  // run_json: rank 0's, NULL elsewhere
// Removes all but the `keep` newest finished checkpoints, and unfinished ones older than them.
void checkpoint_prune(const char* run, int keep);
// Checkpoints after the step that a run resumes from (-1: all) no longer count as finished: they are damaged, and the
// run will write those steps again.
void checkpoint_discard(const char* run, int64_t step);

// A fact of the run (run_record.h) as its newest finished checkpoint has it; `value` stays as it is where there is
// none.
void checkpoint_fact(const char* run, const char* name, char* value, size_t room);

// Reading. `json` is run.json.
typedef struct {
    char path[PATH_ROOM];
    int64_t step;
    int ranks;
    cJSON* json;
    StReader* files;  // (ranks)
} Checkpoint;
bool checkpoint_any(const char* run);  // whether there is a finished checkpoint, damaged or not
// The newest checkpoint that is complete and undamaged; a warning for each that is skipped. False if there is none.
// step ≥ 0: the checkpoint of that step, which was found to be so already.
bool checkpoint_open(Checkpoint* c, const char* run, int64_t step);
void checkpoint_close(Checkpoint* c);
// Elements [from, from + n) of a buffer, from the files of all ranks that hold some of them. Ends the program if the
// buffer has another size in the checkpoint, or if elements are missing.
void checkpoint_read(const Checkpoint* c, const char* name, int64_t count, int64_t from, int64_t n, float* out);
int64_t checkpoint_integer(const Checkpoint* c, const char* key);
double checkpoint_number(const Checkpoint* c, const char* key);  // null: NaN

// Bytes that a user may still write to the file system of `path` (quotas are not seen), and bytes that finished
// checkpoints of `run` hold.
uint64_t directory_free(const char* path);
uint64_t checkpoint_bytes_held(const char* run);
// Tells one model directory from another without reading all of it: SHA-256 over name, size, first and last MiB of
// every *.safetensors file, and config.json. Stricter than model_fingerprint, because a resumed run must give the
// same bits: the same model in another dtype counts as another directory.
void model_directory_digest(const char* directory, Hex hex);

#ifdef __cplusplus
}
#endif
#endif
