/*
A pack on the device. The host makes pack i + 1 while the device works on pack i: two slots, each with a
pinned staging buffer that travels in ONE copy, and an event that says when the slot may be filled again.
*/
#ifndef SEAL_PACK_H
#define SEAL_PACK_H

#include "cuda_common.h"
#include "memory.h"
#include "rows/packing.h"

typedef struct {
    int T, n_seq, n_samples;  // tokens; sequences of cu_seqlens (padding included); samples that carry loss or a score
    int n_loss;               // tokens that carry loss
    int n_loss_padded;  // the same rounded up: few GEMM shapes, few plans. The rows past n_loss have weight 0 and touch
                        // nothing
    int n_first, split;  // samples and rows of the first range, of θ; the others are θ̂'s. n_samples and T where there
                         // is one range
    int n_tiles, n_even_tiles, n_token_segments, n_position_segments;
    // device, all in one allocation, int32 but for weight
    int *tokens, *positions;                                              // (T)
    int* cu_seqlens;                                                      // (n_seq + 1)
    int* tiles;                                                           // (n_tiles, 2)
    int *loss_rows, *targets;                                             // (n_loss_padded)
    int* loss_index;                                                      // (T)
    int* loss_start;                                                      // (n_samples + 1)
    int *token_order, *token_segment_start, *token_segment_row;           // (T), (n + 1), (n)
    int *position_order, *position_segment_start, *position_segment_row;  // (T), (n + 1), (n)
    float* weight;  // (n_loss_padded) dloss of each token's NLL; uploaded, or overwritten by selector_token_weights
    float* coefficient;  // (n_samples) c_x / n_x without σ
    int* place;          // (n_samples) where each sample's loss belongs in the batch
} DevicePack;

#define PACK_SLOTS 2
extern const int PACK_ROUND;  // T and the rows that carry loss are rounded up to a multiple of this

typedef struct {
    int T, max_samples;
    size_t bytes;  // of one slot
    char* device[PACK_SLOTS];
    char* staging[PACK_SLOTS];         // pinned
    cudaEvent_t uploaded[PACK_SLOTS];  // the staging buffer may be written again
    int next;
} PackUploader;

void pack_plan(PackUploader* u, int T, int max_samples, MemoryPlan* plan);
void pack_bind(PackUploader* u);  // after memory_allocate: pinned buffers and events
void pack_free(PackUploader* u);
// Copies a pack to the device and describes it in `s`, which stays valid until PACK_SLOTS further uploads.
// coefficient (n_samples): the weight of each token of a sample; place (n_samples): see above; NULL place = pack
// order. Queued on `stream`; the host waits only where the slot's previous copy is still under way.
void pack_upload(PackUploader* u, DevicePack* s, const HostPack* packed, const float* coefficient, const int* place,
                 cudaStream_t stream);

#endif
