/*
A recorded model of dev/reference/golden and the trainer that is held against it: what test_gpt2.cu and test_families.cu
share. A batch of the record runs through the trainer's own passes; logits, losses, gradients and optimizer steps are
compared with what PyTorch computed. fp32: max|a−b| ≤ 1e-5·max|b| per tensor. bf16: cosine ≥ 0.999 and norm within 1%
per tensor, the reference having run on bf16-rounded weights.
*/
#ifndef SEAL_GOLDEN_H
#define SEAL_GOLDEN_H

#include <string.h>
#include "check.h"
#include "base/error.h"
#include "kernels.h"
#include "base/safetensors.h"
#include "trainer.h"

#ifdef PRECISION_BF16
static const bool bf16 = true;
#else
static const bool bf16 = false;
#endif

// states.safetensors: on the file's weights; states_bf16.safetensors: on their bf16 roundings, where those differ
typedef struct {
    StReader states, narrow;
} Golden;

static void golden_open(Golden* g, const char* directory) {
    Path path = path_of(directory, "states.safetensors");
    st_open(&g->states, path.s);
    path = path_of(directory, "states_bf16.safetensors");
    st_open(&g->narrow, path.s);
}
static void golden_close(Golden* g) {
    st_close(&g->states);
    st_close(&g->narrow);
}
// The reference for this precision, as double, to be freed.
static double* golden_get(const Golden* g, const char* name, int64_t* count) {
    const StReader* file = bf16 && st_find(&g->narrow, name) ? &g->narrow : &g->states;
    const StTensor* t = st_need(file, name);
    float* narrow = (float*)host_alloc(t->count * sizeof(float), "values");
    double* wide = (double*)host_alloc(t->count * sizeof(double), "values");
    st_to_float(file, t, 0, t->count, narrow);
    for (int64_t i = 0; i < t->count; i++) wide[i] = narrow[i];
    free(narrow);
    if (count) *count = t->count;
    return wide;
}
// Compares n numbers with the recorded tensor, whose size they must have.
CHECK_UNUSED __attribute__((format(printf, 5, 6))) static void golden_compare(const Golden* g, const char* tensor,
                                                                              const float* a, int64_t n,
                                                                              const char* format, ...) {
    char name[512];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    int64_t count;
    double* b = golden_get(g, tensor, &count);
    if (count != n) check(0, "%s: %lld numbers, %lld recorded", name, (long long)n, (long long)count);
    else if (bf16) check_cosine(name, a, b, n);
    else check_close(name, a, b, n, 1e-5);
    free(b);
}

// ---- the recorded batch ----------------------------------------------------------------------------
typedef struct {
    int k, T;  // samples, tokens
    int *tokens, *cu_seqlens, *prompt_len, *targets;
    float *sample_weight, adamw[6];
    uint8_t* bears_loss;  // (T)
    BatchItem* items;     // (k)
} GoldenBatch;

static void golden_batch(GoldenBatch* b, const Golden* g) {
    const StReader* f = &g->states;
    b->k = (int)st_need(f, "prompt_len")->count;
    b->T = (int)st_need(f, "tokens")->count;
    b->tokens = (int*)host_alloc(b->T * sizeof(int), "tokens");
    b->targets = (int*)host_alloc(b->T * sizeof(int), "tokens");
    b->cu_seqlens = (int*)malloc((b->k + 1) * sizeof(int));
    b->prompt_len = (int*)malloc(b->k * sizeof(int));
    b->sample_weight = (float*)malloc(b->k * sizeof(float));
    b->bears_loss = (uint8_t*)calloc(b->T, 1);
    b->items = (BatchItem*)calloc(b->k, sizeof *b->items);
    st_copy(f, "tokens", ST_I32, b->T, b->tokens);
    st_copy(f, "targets", ST_I32, b->T, b->targets);
    st_copy(f, "cu_seqlens", ST_I32, b->k + 1, b->cu_seqlens);
    st_copy(f, "prompt_len", ST_I32, b->k, b->prompt_len);
    st_copy(f, "sample_weight", ST_F32, b->k, b->sample_weight);
    st_copy(f, "adamw", ST_F32, 6, b->adamw);
    for (int s = 0; s < b->k; s++) {
        int from = b->cu_seqlens[s], length = b->cu_seqlens[s + 1] - from, n_loss = 0;
        for (int j = 1; j < length; j++) n_loss += b->bears_loss[from + j] = j >= b->prompt_len[s];
        PackSample sample = {b->tokens + from, b->bears_loss + from, length, n_loss, 0};
        b->items[s].sample = sample;
        b->items[s].coefficient = b->sample_weight[s];
    }
}
static void golden_batch_free(GoldenBatch* b) {
    void* all[] = {b->tokens, b->targets, b->cu_seqlens, b->prompt_len, b->sample_weight, b->bears_loss, b->items};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static TrainerSettings golden_settings(const GoldenBatch* b, int tokens_per_pack, bool recompute) {
    TrainerSettings settings = {};
    settings.T = tokens_per_pack;
    settings.head_rows = 48;  // several chunks, the last one short
    settings.batch_max = b->k;
    settings.recompute = recompute;
    AdamwSettings adamw = {b->adamw[1], b->adamw[2], b->adamw[3], b->adamw[4], b->adamw[5]};
    settings.adamw = adamw;
    return settings;
}

#endif
