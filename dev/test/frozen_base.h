/*
What test_nf4 and test_fp8 share: a recorded model under an adapter with its frozen weights packed, a pass over its
batch, what such a base refuses, and the plan of Llama-3-8B's.
*/
#ifndef SEAL_FROZEN_BASE_H
#define SEAL_FROZEN_BASE_H

#include "golden.h"
#include "base/file.h"
#include "packed.h"
#include "peft.h"
#include "refuses.h"
#include "scratch.h"

// Whether the SHA-256 of data is the one that the recording has as 32 numbers.
static bool has_digest(const StReader* file, const char* tensor, const void* data, size_t bytes) {
    Hex hex, recorded;
    int32_t digest[32];
    st_copy(file, tensor, ST_I32, 32, digest);
    for (int i = 0; i < 32; i++) snprintf(recorded + 2 * i, 3, "%02x", (unsigned)digest[i]);
    sha256_hex(data, bytes, hex);
    return !strcmp(hex, recorded);
}

// Number i, counted from 1, of a sequence in [-1, 1], cubed: drawn() of record_nf4.py.
static float drawn_number(uint64_t i) {
    uint64_t z = i * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    const float x = (float)(z >> 40) * 0x1p-23f - 1.0f;
    return x * x * x;
}

typedef struct {
    const char *folder, *name;  // the model's, under dev/reference/golden
    const char* adapter;        // its folder in the model's
    bool batch_of_model;        // the batch is recorded in the model's folder, else in the adapter's
} Recorded;

typedef struct {
    GoldenBatch batch;
    Trainer trainer;
} FrozenModel;

static void frozen_open(FrozenModel* m, const Recorded* r, BasePrecision base, bool recompute) {
    char model[256], adapter[320];
    ModelConfig config;
    Golden golden;
    snprintf(model, sizeof model, "dev/reference/golden/%s/%s", r->folder, r->name);
    snprintf(adapter, sizeof adapter, "%s/%s", model, r->adapter);
    golden_open(&golden, r->batch_of_model ? model : adapter);
    golden_batch(&m->batch, &golden);
    golden_close(&golden);
    model_config_read(&config, model);
    TrainerSettings settings = golden_settings(&m->batch, 256, recompute);
    settings.base = base;
    peft_settings(adapter, &config, &settings.lora);
    trainer_plan(&m->trainer, &config, &settings);
    trainer_allocate(&m->trainer);
    trainer_load(&m->trainer, model, adapter, 0, true);
}
static void frozen_close(FrozenModel* m) {
    trainer_free(&m->trainer);
    golden_batch_free(&m->batch);
}

// Losses of the samples (k), and the gradients of the adapter, to be freed.
static float* frozen_pass(FrozenModel* m, float* loss) {
    Trainer* t = &m->trainer;
    PassCounts counts = {};
    const size_t bytes = (size_t)t->theta.layout->n_elements * sizeof(float);
    float* gradients = (float*)malloc(bytes);
    gradients_zero(&t->theta, t->stream);
    trainer_pass(t, &t->theta, m->batch.items, m->batch.k, 0, NULL, t->loss, true, &counts);
    cudaCheck(cudaMemcpyAsync(loss, t->loss, m->batch.k * sizeof(float), cudaMemcpyDeviceToHost, t->stream));
    cudaCheck(cudaMemcpyAsync(gradients, t->theta.grads, bytes, cudaMemcpyDeviceToHost, t->stream));
    cudaCheck(cudaStreamSynchronize(t->stream));
    return gradients;
}

// The gradient of one of the adapter's tensors as its file has it, rows × cols, to be freed.
static float* frozen_gradient(const FrozenModel* m, const FileTensor* f, const float* gradients) {
    const ModelTensor* t = &m->trainer.theta.layout->tensors[f->tensor];
    float *ordered = (float*)malloc(2 * f->rows * f->cols * sizeof(float)), *rows = ordered + f->rows * f->cols;
    for (int64_t r = 0; r < f->rows; r++)
        memcpy(rows + r * f->cols, gradients + t->offset + (f->first + r) * t->cols, f->cols * sizeof(float));
    file_tensor_order(m->trainer.theta.layout, f, rows, ordered);
    return ordered;
}

// ---------------------------------------------------------------------------------------------------
// what does not go with it

// An adapter that brings a linear layer of its own.
static void frozen_load_own_layer(const void* context) {
    const FrozenModel* m = (const FrozenModel*)context;
    peft_load_saved((ParameterSet*)&m->trainer.base, directory, false);
}
static void frozen_check_own_layer(const Recorded* llama, BasePrecision base) {
    FrozenModel m;
    StWriter file;
    char expected[64];
    frozen_open(&m, llama, base, false);
    const ModelTensor* t = &m.trainer.layout.tensors[tensor_index(&m.trainer.layout, DOWNW, 0)];
    const int64_t shape[2] = {t->rows, t->cols};
    const size_t bytes = (size_t)(t->rows * t->cols) * sizeof(float);
    float* zeros = (float*)calloc(bytes, 1);
    snprintf(directory, sizeof directory, "/tmp/%s.XXXXXX", program_name);
    if (!mkdtemp(directory)) fatal("a folder in /tmp cannot be made");
    st_create(&file, in_directory("adapter_model.safetensors"));
    st_declare(&file, "base_model.model.model.layers.0.mlp.down_proj.weight", ST_F32, 2, shape);
    st_write(&file, zeros, bytes);
    st_commit(&file);
    snprintf(expected, sizeof expected, "a base in %s does not hold", base_name(base));
    check(refuses(frozen_load_own_layer, &m, expected), "an adapter that brings a linear layer of its own is refused");
    free(zeros);
    frozen_close(&m);
    unlink(in_directory("adapter_model.safetensors"));
    rmdir(directory);
}

// ---------------------------------------------------------------------------------------------------
// memory

typedef struct {
    double packed, bytes;  // weights that are packed, and bytes for each of them
    double GB;             // of the whole plan
} FrozenPlan;
// Llama-3-8B in packs of 4096 tokens with adapters of rank 16; the rest is the caller's.
static FrozenPlan frozen_plan_8b(const char* modules, TrainerSettings settings) {
    ModelConfig c;
    Trainer t;
    FrozenPlan plan = {};
    model_config_defaults(&c, "llama");
    c.L = 32;
    c.C = 4096;
    c.NH = 32;
    c.NKV = 8;
    c.FF = 14336;
    c.V = 128256;
    c.max_positions = 8192;
    model_config_complete(&c, "llama-3-8b");
    settings.T = 4096;
    settings.head_rows = 1024;
    settings.batch_max = 128;
    snprintf(settings.lora.modules, sizeof settings.lora.modules, "%s", modules);
    settings.lora.rank = 16;
    settings.lora.scale = 1.0f;
    trainer_plan(&t, &c, &settings);
    for (int i = 0; i < t.layout.n_tensors; i++)
        if (t.layout.tensors[i].packed) plan.packed += (double)(t.layout.tensors[i].rows * t.layout.tensors[i].cols);
    plan.bytes = (double)t.layout.n_packed / plan.packed;
    plan.GB = (double)memory_total(&t.plan) / 1e9;
    trainer_plan_free(&t);
    check(fabs(plan.packed - 6979321856.0) < 0.5, "Llama-3-8B: %.0f weights are packed", plan.packed);
    return plan;
}

static void frozen_check_allocated(const Recorded* r, BasePrecision base) {
    size_t before, after, total;
    FrozenModel m;
    cudaCheck(cudaMemGetInfo(&before, &total));
    frozen_open(&m, r, base, false);
    cudaCheck(cudaMemGetInfo(&after, &total));
    const double planned = (double)memory_total(&m.trainer.plan), used = (double)(before - after);
#ifdef __CUDACC__
    double pages = (N_MEMORY_CLASSES + 1) * 2097152.0;  // a GPU gives whole pages
#else
    double pages = 0.0;
#endif
    check(fabs(used - planned) <= 0.01 * planned + pages, "%.2f MiB planned, %.2f MiB taken", planned / 1048576,
          used / 1048576);
    frozen_close(&m);
}

#endif
