/* The run's state from the device to a checkpoint and back. See snapshot.h. */
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/text.h"
#include "base/ranks.h"
#include "run/snapshot.h"

void snapshot_begin(Snapshot* s, const char* run, int rank, int keep) {
    memset(s, 0, sizeof *s);
    s->run = run;
    s->rank = rank;
    s->keep = keep;
    s->step = -1;
    s->piece = (size_t)64 << 20;
    s->host_most = (size_t)sysconf(_SC_AVPHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE) / 2 / (size_t)ranks_on_machine();
}

static void add(Snapshot* s, const char* name, float* device, int64_t count, int64_t from, int64_t n, bool saves) {
    if (!device || !count) return;
    if (s->n_rows == SNAPSHOT_ROWS) program_error("more than %d state buffers", SNAPSHOT_ROWS);
    CheckpointPart* p = &s->parts[s->n_rows];
    snprintf(p->name, sizeof p->name, "%s", name);
    p->count = count;
    p->from = from;
    p->n = saves ? n : 0;
    s->device_from[s->n_rows] = from;
    s->device_n[s->n_rows] = n;
    s->device[s->n_rows++] = device;
    s->bytes += (size_t)p->n * sizeof(float);
    s->whole_bytes += (size_t)count * sizeof(float);
}
void snapshot_add(Snapshot* s, const char* name, float* device, int64_t count) {
    add(s, name, device, count, 0, count, s->rank == 0);
}
void snapshot_add_part(Snapshot* s, const char* name, float* device, int64_t count, int64_t from, int64_t n) {
    add(s, name, device, count, from, n, true);
}

// ---------------------------------------------------------------------------------------------------
// writing

static void allocate(Snapshot* s) {
    if (s->host) return;
    s->host_bytes = s->bytes;
    if (s->bytes > s->host_most || cudaMallocHost((void**)&s->host, s->bytes + 1) !=
                                       cudaSuccess) {  // a rank may have nothing to save: 1 byte more
        cudaGetLastError();                            // a limit on locked memory is not an error: pieces do as well
        s->host_bytes = s->piece;
        cudaCheck(cudaMallocHost((void**)&s->host, s->host_bytes));
    }
    cudaCheck(cudaEventCreateWithFlags(&s->copied, cudaEventDisableTiming));
}

// Before a checkpoint is written too: another rank may have finished the last one after rank 0 had.
static void prune(const Snapshot* s) {
    if (s->rank == 0) checkpoint_prune(s->run, s->keep);
}

// Too large for the host's memory: the device waits while pieces go through the small buffer.
static void write_pieces(Snapshot* s, cudaStream_t stream) {
    prune(s);
    bool good = checkpoint_create(&s->writer, s->run, s->step, s->rank, s->parts, s->n_rows);
    s->begun = true;
    for (int i = 0; i < s->n_rows; i++) {
        size_t bytes = (size_t)s->parts[i].n * sizeof(float);
        for (size_t at = 0; at < bytes && good; at += s->host_bytes) {
            size_t n = bytes - at < s->host_bytes ? bytes - at : s->host_bytes;
            cudaCheck(cudaMemcpyAsync(s->host, (char*)s->device[i] + at, n, cudaMemcpyDeviceToHost, stream));
            cudaCheck(cudaStreamSynchronize(stream));
            good = checkpoint_write(&s->writer, s->host, n);
        }
    }
    if (!good) fatal("%s", s->writer.error);
}

void snapshot_take(Snapshot* s, int64_t step, cudaStream_t stream) {
    NVTX_RANGE("snapshot");
    snapshot_wait(s);
    allocate(s);
    s->step = step;
    if (s->bytes > s->host_bytes) return write_pieces(s, stream);
    char* to = s->host;
    for (int i = 0; i < s->n_rows; i++) {
        size_t bytes = (size_t)s->parts[i].n * sizeof(float);
        cudaCheck(cudaMemcpyAsync(to, s->device[i], bytes, cudaMemcpyDeviceToHost, stream));
        to += bytes;
    }
    cudaCheck(cudaEventRecord(s->copied, stream));
}

static void* write_checkpoint(void* argument) {
    Snapshot* s = (Snapshot*)argument;
    CheckpointWriter* w = &s->writer;
    if (!s->begun) prune(s);
    bool good = s->begun || (checkpoint_create(w, s->run, s->step, s->rank, s->parts, s->n_rows) &&
                             checkpoint_write(w, s->host, s->bytes));
    if (good && checkpoint_commit(w, s->run_json)) prune(s);
    __atomic_store_n(&s->finished, 1, __ATOMIC_RELEASE);
    return NULL;
}

void snapshot_publish(Snapshot* s, char* run_json) {
    if (s->step < 0) return;
    if (!s->begun) cudaCheck(cudaEventSynchronize(s->copied));
    s->run_json = run_json;
    s->finished = 0;
    if (pthread_create(&s->thread, NULL, write_checkpoint, s))
        fatal("cannot start the thread that writes the checkpoint");
    s->writing = true;
}

void snapshot_wait(Snapshot* s) {
    if (!s->writing) return;
    pthread_join(s->thread, NULL);
    s->writing = s->begun = false;
    s->step = -1;
    free(s->run_json);
    s->run_json = NULL;
    if (*s->writer.error)
        fatal("%s; the checkpoints before it are whole; --resume continues from the newest", s->writer.error);
}

void snapshot_poll(Snapshot* s) {
    if (s->writing && __atomic_load_n(&s->finished, __ATOMIC_ACQUIRE)) snapshot_wait(s);
}

void snapshot_end(Snapshot* s) {
    snapshot_wait(s);
    if (!s->host) return;
    cudaCheck(cudaFreeHost(s->host));
    cudaCheck(cudaEventDestroy(s->copied));
    s->host = NULL;
}

// ---------------------------------------------------------------------------------------------------
// reading

void snapshot_restore(Snapshot* s, const Checkpoint* c) {
    float* piece = (float*)host_alloc(s->piece, "piece");
    cudaCheck(cudaDeviceSynchronize());  // first values may still be on their way, on the trainer's stream
    const int64_t most = (int64_t)(s->piece / sizeof(float));
    for (int i = 0; i < s->n_rows; i++)
        for (int64_t at = 0; at < s->device_n[i]; at += most) {
            int64_t n = s->device_n[i] - at < most ? s->device_n[i] - at : most;
            checkpoint_read(c, s->parts[i].name, s->parts[i].count, s->device_from[i] + at, n, piece);
            cudaCheck(cudaMemcpy(s->device[i] + at, piece, (size_t)n * sizeof(float), cudaMemcpyHostToDevice));
        }
    free(piece);
    cudaCheck(cudaDeviceSynchronize());
}
