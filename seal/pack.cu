/* Packs to the device, one copy each. See pack.h. */
#include <string.h>
#include "base/error.h"
#include "kernels.h"
#include "pack.h"

// GEMM rows come in multiples of this on a GPU: few shapes, few cached plans. A CPU multiplies any shape as well, so it
// only rounds to whole vectors.
#if DEVICE_HALVES
const int PACK_ROUND = 128;
#else
const int PACK_ROUND = 8;
#endif

static int rounded(int n) { return (n + PACK_ROUND - 1) / PACK_ROUND * PACK_ROUND; }

// The arrays of a pack in the order in which they are in a slot, with their capacity in elements of four bytes. `at`
// walks a slot.
typedef struct {
    char *device, *staging;
    size_t at;
} Cursor;
static size_t capacity(int T, int max_samples) {
    size_t rows = rounded(T), sequences = (size_t)max_samples + rows + 1;
    size_t arrays = 11 * (rows + 64) + 2 * (sequences + 64) + 2 * (rows + sequences + 64) +
                    3 * ((size_t)max_samples + 64);
    return arrays * sizeof(int);
}

void pack_plan(PackUploader* u, int T, int max_samples, MemoryPlan* plan) {
    memset(u, 0, sizeof *u);
    u->T = T;
    u->max_samples = max_samples;
    u->bytes = capacity(T, max_samples);
    for (int i = 0; i < PACK_SLOTS; i++) memory_add(plan, MEMORY_PACK, &u->device[i], u->bytes, "pack slot %d", i);
}

void pack_bind(PackUploader* u) {
    for (int i = 0; i < PACK_SLOTS; i++) {
        cudaCheck(cudaMallocHost((void**)&u->staging[i], u->bytes));
        cudaCheck(cudaEventCreateWithFlags(&u->uploaded[i], cudaEventDisableTiming));
    }
}

void pack_free(PackUploader* u) {
    for (int i = 0; i < PACK_SLOTS; i++) {
        if (!u->staging[i]) continue;
        cudaCheck(cudaFreeHost(u->staging[i]));
        cudaCheck(cudaEventDestroy(u->uploaded[i]));
    }
    memset(u, 0, sizeof *u);
}

// Reserves n elements in the slot, fills the first `used` from `from` (NULL: zeros) and the rest with zeros; returns
// the device's address.
static void* put(Cursor* c, const void* from, size_t used, size_t n) {
    char* to = c->staging + c->at;
    if (from) memcpy(to, from, used * sizeof(int));
    else used = 0;
    memset(to + used * sizeof(int), 0, (n - used) * sizeof(int));
    void* device = c->device + c->at;
    c->at += (n * sizeof(int) + 255) / 256 * 256;  // every array begins on a 256-byte boundary
    return device;
}

void pack_upload(PackUploader* u, DevicePack* s, const HostPack* p, const float* coefficient, const int* place,
                 cudaStream_t stream) {
    NVTX_RANGE("upload");
    int slot = u->next;
    u->next = (u->next + 1) % PACK_SLOTS;
    cudaCheck(cudaEventSynchronize(u->uploaded[slot]));
    Cursor c = {u->device[slot], u->staging[slot], 0};
    memset(s, 0, sizeof *s);
    s->T = p->T;
    s->n_seq = p->n_seq;
    s->n_samples = p->n_samples;
    s->n_first = p->n_first;
    s->split = p->split;
    s->n_loss = p->n_loss;
    s->n_loss_padded = rounded(p->n_loss);
    s->n_token_segments = p->n_token_segments;
    s->n_position_segments = p->n_position_segments;
    s->n_tiles = attention_tiles(NULL, &s->n_even_tiles, p->cu_seqlens, p->n_seq);
    s->tokens = (int*)put(&c, p->tokens, p->T, p->T);
    s->positions = (int*)put(&c, p->positions, p->T, p->T);
    s->cu_seqlens = (int*)put(&c, p->cu_seqlens, p->n_seq + 1, p->n_seq + 1);
    size_t tiles_at = c.at;
    s->tiles = (int*)put(&c, NULL, 0, 2 * (size_t)s->n_tiles);
    attention_tiles((int*)(c.staging + tiles_at), &s->n_even_tiles, p->cu_seqlens, p->n_seq);
    s->loss_rows = (int*)put(&c, p->loss_rows, p->n_loss,
                             s->n_loss_padded);  // the rows past n_loss read row 0, with weight 0
    s->targets = (int*)put(&c, p->targets, p->n_loss, s->n_loss_padded);
    s->loss_index = (int*)put(&c, p->loss_index, p->T, p->T);
    s->loss_start = (int*)put(&c, p->loss_start, p->n_samples + 1, p->n_samples + 1);
    s->token_order = (int*)put(&c, p->token_order, p->T, p->T);
    s->token_segment_start = (int*)put(&c, p->token_segment_start, p->n_token_segments + 1, p->n_token_segments + 1);
    s->token_segment_row = (int*)put(&c, p->token_segment_row, p->n_token_segments, p->n_token_segments);
    s->position_order = (int*)put(&c, p->position_order, p->T, p->T);
    s->position_segment_start = (int*)put(&c, p->position_segment_start, p->n_position_segments + 1,
                                          p->n_position_segments + 1);
    s->position_segment_row = (int*)put(&c, p->position_segment_row, p->n_position_segments, p->n_position_segments);
    s->coefficient = (float*)put(&c, coefficient, p->n_samples, p->n_samples);
    s->place = place ? (int*)put(&c, place, p->n_samples, p->n_samples) : NULL;
    size_t weight_at = c.at;
    s->weight = (float*)put(&c, NULL, 0, s->n_loss_padded);
    float* weight = (float*)(c.staging + weight_at);
    if (coefficient)
        for (int k = 0; k < p->n_samples; k++)
            for (int i = p->loss_start[k]; i < p->loss_start[k + 1]; i++) weight[i] = coefficient[k];
    if (c.at > u->bytes)
        program_error("a pack of %d tokens and %d samples needs %zu bytes but its slot has %zu", p->T, p->n_samples,
                      c.at, u->bytes);
    cudaCheck(cudaMemcpyAsync(c.device, c.staging, c.at, cudaMemcpyHostToDevice, stream));
    cudaCheck(cudaEventRecord(u->uploaded[slot], stream));
}
