/*
State from the device to a checkpoint and back: in one copy that travels while the next step changes the buffers, and in
pieces where the host has no room for it; both ways write the same file. A checkpoint that cannot be written is told
when the run looks.
*/
#include <sys/stat.h>
#include "check.h"
#include "base/error.h"
#include "refuses.h"
#include "scratch.h"
#include "run/snapshot.h"

#define N 5000
#define FEW 3
static float *large, *small;
static cudaStream_t stream;

static void fill(float first) {
    static float host[N];
    for (int i = 0; i < N; i++) host[i] = first + (float)i;
    cudaCheck(cudaMemcpyAsync(large, host, sizeof host, cudaMemcpyHostToDevice, stream));
    cudaCheck(cudaMemcpyAsync(small, host, FEW * sizeof(float), cudaMemcpyHostToDevice, stream));
    cudaCheck(cudaStreamSynchronize(stream));
}
static bool holds(float first) {
    static float host[N], few[FEW];
    cudaCheck(cudaMemcpyAsync(host, large, sizeof host, cudaMemcpyDeviceToHost, stream));
    cudaCheck(cudaMemcpyAsync(few, small, sizeof few, cudaMemcpyDeviceToHost, stream));
    cudaCheck(cudaStreamSynchronize(stream));
    bool good = true;
    for (int i = 0; i < N; i++) good = good && host[i] == first + (float)i;
    for (int i = 0; i < FEW; i++) good = good && few[i] == first + (float)i;
    return good;
}
static void begin(Snapshot* s, const char* run, bool pieces) {
    mkdir(run, 0700);
    snapshot_begin(s, run, 0, 2);
    if (pieces) {
        s->host_most = 100;
        s->piece = 4096;
    }
    snapshot_add(s, "large", large, N);
    snapshot_add(s, "small", small, FEW);
    snapshot_add(s, "absent", NULL, N);
}
static char* json(int step) {
    char text[64];
    snprintf(text, sizeof text, "{\"ranks\":1,\"step\":%d}", step);
    return strdup(text);
}

static void test_round(bool pieces) {
    const char *run = in_directory(pieces ? "pieces" : "whole"), *how = pieces ? "in pieces" : "in one copy";
    Snapshot s;
    Checkpoint c;
    begin(&s, run, pieces);
    for (int step = 1; step <= 3; step++) {
        fill(10.0f * (float)step);
        snapshot_take(&s, step, stream);
        cudaCheck(cudaMemsetAsync(large, 0, N * sizeof(float), stream));  // the next step is queued at once
        cudaCheck(cudaMemsetAsync(small, 0, FEW * sizeof(float), stream));
        snapshot_publish(&s, json(step));
        snapshot_poll(&s);
    }
    snapshot_end(&s);
    cudaCheck(cudaStreamSynchronize(stream));
    check(checkpoint_open(&c, run, -1) && c.step == 3, "three snapshots %s, the newest is the third", how);
    fill(0.5f);
    begin(&s, run, pieces);
    snapshot_restore(&s, &c);
    check(holds(30.0f), "and holds the state from before the step that was queued after it");
    checkpoint_close(&c);
    check(checkpoint_open(&c, run, 2), "the one before stays");
    snapshot_restore(&s, &c);
    check(holds(20.0f), "with its own state");
    checkpoint_close(&c);
    snapshot_publish(&s, NULL);  // nothing was taken
    snapshot_end(&s);
}

// A run whose folder is gone when the checkpoint is written.
static void lose_the_folder(const void*) {
    Snapshot s;
    begin(&s, in_directory("lost"), false);
    snapshot_take(&s, 1, stream);
    rmdir(in_directory("lost"));
    snapshot_publish(&s, json(1));
    snapshot_wait(&s);
}

int main(void) {
    program_name = "test_snapshot";
    strcpy(directory, "/tmp/seal.snapshot.XXXXXX");
    if (!mkdtemp(directory)) return 1;
    cudaCheck(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    cudaCheck(cudaMalloc((void**)&large, N * sizeof(float)));
    cudaCheck(cudaMalloc((void**)&small, FEW * sizeof(float)));
    test_round(false);
    test_round(true);
    Hex a, b;
    file_sha256_hex(in_directory("whole/checkpoint/step-3/rank-0.safetensors"), a);
    file_sha256_hex(in_directory("pieces/checkpoint/step-3/rank-0.safetensors"), b);
    check(!strcmp(a, b), "both ways write the same file");
#ifndef __CUDACC__  // a CUDA context does not survive fork
    check(refuses(lose_the_folder, NULL, "the checkpoints before it are whole"),
          "a checkpoint that cannot be written ends the run with one line");
#else
    check_skip("a checkpoint that cannot be written", "a CUDA context does not survive fork");
    (void)refuses;
    (void)lose_the_folder;
#endif
    cudaCheck(cudaFree(large));
    cudaCheck(cudaFree(small));
    cudaCheck(cudaStreamDestroy(stream));
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    if (system(command)) check(0, "%s", command);
    return check_report();
}
