/*
A frozen model in 4 bits. nf4_quantise and the kernel that unpacks against bitsandbytes, bit for bit; losses and
gradients of adapters over such a model against PyTorch's on the same weights (both recorded by
dev/reference/record_nf4.py); every family against itself with the unpacked weights kept plainly, bit for bit; the
memory that QLoRA of Llama-3-8B plans.
*/
#include "golden.h"
#include "base/file.h"
#include "nf4.h"
#include "packed.h"
#include "peft.h"
#include "refuses.h"
#include "scratch.h"

// ---------------------------------------------------------------------------------------------------
// the format

// Weight i of record_nf4.py's drawn().
static float* drawn(int blocks, int spread, int zero) {
    const int64_t n = (int64_t)blocks * NF4_BLOCK;
    float* w = (float*)malloc((size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        uint64_t z = (uint64_t)(i + 1 + blocks) * 0x9e3779b97f4a7c15ull;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        z ^= z >> 31;
        const float x = (float)(z >> 40) * 0x1p-23f - 1.0f, cube = x * x * x;
        const int block = (int)(i / NF4_BLOCK);
        w[i] = spread < 0 ? i % NF4_BLOCK ? cube * 0.25f : 0.5f : ldexpf(cube, -(block % (spread + 1)));
        if (zero && block % zero == 0) w[i] = 0.0f;
    }
    return w;
}

static bool has_digest(const StReader* file, const char* name, const char* what, const void* data, size_t bytes) {
    char tensor[64], hex[65], recorded[65];
    int32_t digest[32];
    snprintf(tensor, sizeof tensor, "%s.%s", name, what);
    st_copy(file, tensor, ST_I32, 32, digest);
    for (int i = 0; i < 32; i++) snprintf(recorded + 2 * i, 3, "%02x", (unsigned)digest[i]);
    sha256_hex(data, bytes, hex);
    return !strcmp(hex, recorded);
}

// The values on the device, rows of a few blocks with a gap after each.
static floatX* unpacked(const uint8_t* piece, int64_t n) {
    const int width = n / NF4_BLOCK % 2 ? NF4_BLOCK : 2 * NF4_BLOCK, rows = (int)(n / width), ld = width + 24;
    float tables[NF4_MAP + NF4_CODES], *d_tables;
    uint8_t* d_piece;
    floatX *d_out, *out = (floatX*)malloc((size_t)n * sizeof(floatX));
    nf4_tables(tables);
    cudaCheck(cudaMalloc((void**)&d_tables, sizeof tables));
    cudaCheck(cudaMalloc((void**)&d_piece, nf4_bytes(n)));
    cudaCheck(cudaMalloc((void**)&d_out, (size_t)rows * ld * sizeof(floatX)));
    cudaCheck(cudaMemcpy(d_tables, tables, sizeof tables, cudaMemcpyHostToDevice));
    cudaCheck(cudaMemcpy(d_piece, piece, nf4_bytes(n), cudaMemcpyHostToDevice));
    nf4_unpack({.out = d_out,
                .codes = (const uint32_t*)(d_piece + nf4_codes_at()),
                .scales = d_piece + nf4_scales_at(n),
                .tops = (const float*)(d_piece + nf4_tops_at(n)),
                .mean = (const float*)d_piece,
                .map = d_tables,
                .code = d_tables + NF4_MAP,
                .rows = rows,
                .cols = width,
                .ldo = ld},
               0);
    cudaCheck(cudaMemcpy2D(out, width * sizeof(floatX), d_out, ld * sizeof(floatX), width * sizeof(floatX),
                           (size_t)rows, cudaMemcpyDeviceToHost));
    cudaCheck(cudaFree(d_tables));
    cudaCheck(cudaFree(d_piece));
    cudaCheck(cudaFree(d_out));
    return out;
}

static void check_drawn(const StReader* file, const char* name) {
    char tensor[64];
    int32_t how[3];
    snprintf(tensor, sizeof tensor, "%s.drawn", name);
    st_copy(file, tensor, ST_I32, 3, how);
    const int64_t n = (int64_t)how[0] * NF4_BLOCK;
    const int n_tops = CEIL_DIV(how[0], NF4_GROUP);
    float *w = drawn(how[0], how[1], how[2]), mean, *tops = (float*)malloc(n_tops * sizeof(float));
    uint8_t* piece = (uint8_t*)malloc(nf4_bytes(n));
    check(has_digest(file, name, "weights", w, n * sizeof(float)), "%s: both sides draw the same weights", name);
    nf4_quantise(w, n, piece);
    floatX* values = unpacked(piece, n);
    snprintf(tensor, sizeof tensor, "%s.mean", name);
    st_copy(file, tensor, ST_F32, 1, &mean);
    snprintf(tensor, sizeof tensor, "%s.tops", name);
    st_copy(file, tensor, ST_F32, n_tops, tops);
    check(has_digest(file, name, "codes", piece + nf4_codes_at(), n / 2), "%s: codes of %d blocks are bitsandbytes'",
          name, how[0]);
    check(!memcmp(&mean, piece, sizeof mean), "%s: and so is the mean of their scales, %.9g", name, mean);
    check(!memcmp(tops, piece + nf4_tops_at(n), n_tops * sizeof(float)), "%s: and the tops of %d groups", name, n_tops);
    check(has_digest(file, name, "scales", piece + nf4_scales_at(n), how[0]), "%s: and the scales", name);
    check(has_digest(file, name, FLOATX_NAME, values, n * sizeof(floatX)), "%s: and the values, in " FLOATX_NAME, name);
    void* all[] = {w, tops, piece, values};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

// ---------------------------------------------------------------------------------------------------
// models

typedef struct {
    const char* name;
    GoldenBatch batch;
    Trainer trainer;
} Model;

static void open_model(Model* m, const char* name, BasePrecision base, bool recompute) {
    char model[256], adapter[272];
    ModelConfig config;
    Golden golden;
    m->name = name;
    snprintf(model, sizeof model, "dev/reference/golden/families/%s", name);
    snprintf(adapter, sizeof adapter, "%s/lora_all", model);
    golden_open(&golden, model);
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
static void close_model(Model* m) {
    trainer_free(&m->trainer);
    golden_batch_free(&m->batch);
}

// Losses of the samples (k), and the gradients of the adapter, to be freed.
static float* run_batch(Model* m, float* loss) {
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

static void check_against_torch(const char* name) {
    Model m;
    Golden golden;
    char states[256], key[256];
    float loss[64];
    snprintf(states, sizeof states, "dev/reference/golden/nf4/%s", name);
    golden_open(&golden, states);
    open_model(&m, name, BASE_NF4, false);
    const ModelLayout* layout = m.trainer.theta.layout;
    float* gradients = run_batch(&m, loss);
    golden_compare(&golden, "sample_loss", loss, m.batch.k, "%s over NF4: loss of every sample", name);
    for (int i = 0; i < layout->n_files; i++) {
        const FileTensor* f = &layout->files[i];
        const ModelTensor* t = &layout->tensors[f->tensor];
        float *rows = (float*)malloc(2 * f->rows * f->cols * sizeof(float)), *ordered = rows + f->rows * f->cols;
        for (int64_t r = 0; r < f->rows; r++)
            memcpy(rows + r * f->cols, gradients + t->offset + (f->first + r) * t->cols, f->cols * sizeof(float));
        file_tensor_order(layout, f, rows, ordered);
        snprintf(key, sizeof key, "grad.%s", f->hf_name);
        golden_compare(&golden, key, ordered, f->rows * f->cols, "%s over NF4: gradient of %s", name, f->hf_name);
        free(rows);
    }
    free(gradients);
    close_model(&m);
    golden_close(&golden);
}

// The same weights kept plainly give the same bits, and so does recomputing.
static void check_against_plain(const char* name) {
    Model packed, plain, again;
    float loss[3][64];
    open_model(&packed, name, BASE_NF4, false);
    open_model(&plain, name, BASE_PLAIN, false);
    open_model(&again, name, BASE_NF4, true);
    const ModelLayout *layout = &packed.trainer.layout, *adapters = packed.trainer.theta.layout;
    int n_packed = 0, changed = 0;
    for (int i = 0; i < layout->n_tensors; i++) {
        const ModelTensor* t = &layout->tensors[i];
        const int64_t n = t->rows * t->cols;
        float *a = (float*)malloc(2 * n * sizeof(float)), *b = a + n;
        parameters_get(&packed.trainer.base, i, a);
        parameters_get(&plain.trainer.base, i, b);
        n_packed += t->packed;
        changed += memcmp(a, b, n * sizeof(float)) != 0;
        parameters_set(&plain.trainer.base, i, a);
        free(a);
    }
    check(n_packed == N_SITES * layout->config.L && changed == n_packed,
          "%s: of %d tensors the %d linear layers of the blocks are packed, and %d changed", name, layout->n_tensors,
          n_packed, changed);
    const size_t bytes = (size_t)adapters->n_elements * sizeof(float);
    float* gradients[3] = {run_batch(&packed, loss[0]), run_batch(&plain, loss[1]), run_batch(&again, loss[2])};
    const size_t losses = packed.batch.k * sizeof(float);
    check(!memcmp(loss[0], loss[1], losses) && !memcmp(gradients[0], gradients[1], bytes),
          "%s: the unpacked weights kept plainly give the same bits", name);
    check(!memcmp(loss[0], loss[2], losses) && !memcmp(gradients[0], gradients[2], bytes),
          "%s: recomputing gives the same bits", name);
    check(packed.trainer.plan.bytes[MEMORY_WEIGHTS] < plain.trainer.plan.bytes[MEMORY_WEIGHTS],
          "%s: weights take %zu bytes instead of %zu", name, packed.trainer.plan.bytes[MEMORY_WEIGHTS],
          plain.trainer.plan.bytes[MEMORY_WEIGHTS]);
    for (int i = 0; i < 3; i++) free(gradients[i]);
    close_model(&packed);
    close_model(&plain);
    close_model(&again);
}

// ---------------------------------------------------------------------------------------------------
// what does not go with it

static void train_whole(const void* context) {
    ModelConfig c;
    Trainer t;
    TrainerSettings settings = {};
    model_config_read(&c, (const char*)context);
    settings.T = settings.batch_max = settings.head_rows = 8;
    settings.base = BASE_NF4;
    trainer_plan(&t, &c, &settings);
}

// An adapter that brings a linear layer of its own.
#define OWN "base_model.model.model.layers.0.mlp.down_proj.weight"
static void load_own_layer(const void* context) {
    const Model* m = (const Model*)context;
    peft_load_saved((ParameterSet*)&m->trainer.base, directory, false);
}

static void check_refusals(void) {
    Model m;
    StWriter file;
    check(refuses(train_whole, "dev/reference/golden/families/llama", "--base nf4 freezes the model"),
          "training the whole model is refused");
    open_model(&m, "llama", BASE_NF4, false);
    const ModelTensor* t = &m.trainer.layout.tensors[tensor_index(&m.trainer.layout, DOWNW, 0)];
    const int64_t shape[2] = {t->rows, t->cols};
    float* zeros = (float*)calloc((size_t)(t->rows * t->cols), sizeof(float));
    snprintf(directory, sizeof directory, "/tmp/test_nf4.XXXXXX");
    if (!mkdtemp(directory)) fatal("a folder in /tmp cannot be made");
    st_create(&file, in_directory("adapter_model.safetensors"));
    st_declare(&file, OWN, ST_F32, 2, shape);
    st_write(&file, zeros, (size_t)(t->rows * t->cols) * sizeof(float));
    st_commit(&file);
    check(refuses(load_own_layer, &m, "a base in nf4 does not hold"),
          "an adapter that brings a linear layer of its own is refused");
    free(zeros);
    close_model(&m);
    unlink(in_directory("adapter_model.safetensors"));
    rmdir(directory);
}

// ---------------------------------------------------------------------------------------------------
// memory

static void llama_3_8b(ModelConfig* c) {
    model_config_defaults(c, "llama");
    c->L = 32;
    c->C = 4096;
    c->NH = 32;
    c->NKV = 8;
    c->FF = 14336;
    c->V = 128256;
    c->max_positions = 8192;
    model_config_complete(c, "llama-3-8b");
}

static void check_memory(const char* modules, BasePrecision base, double most_GB) {
    ModelConfig c;
    Trainer t;
    TrainerSettings settings = {};
    llama_3_8b(&c);
    settings.T = 4096;
    settings.head_rows = 1024;
    settings.batch_max = 128;
    settings.with_hat = settings.recompute = true;
    settings.base = base;
    snprintf(settings.lora.modules, sizeof settings.lora.modules, "%s", modules);
    settings.lora.rank = 16;
    settings.lora.scale = 1.0f;
    trainer_plan(&t, &c, &settings);
    const double GB = (double)memory_total(&t.plan) / 1e9;
    check(GB <= most_GB, "Llama-3-8B, Algorithm 1, LoRA on %s, base in %s, recomputed, 4096 tokens: %.2f GB of %.0f",
          modules, base_name(base), GB, most_GB);
    // 4 bits a weight, 8 a block of 64, 32 a group of 256 blocks
    double packed = 0.0;
    for (int i = 0; i < t.layout.n_tensors; i++)
        if (t.layout.tensors[i].packed) packed += (double)(t.layout.tensors[i].rows * t.layout.tensors[i].cols);
    const double bits = 8.0 * (double)t.layout.n_packed / packed, ideal = 4.0 + 8.0 / 64 + 32.0 / 64 / 256;
    check(fabs(packed - 6979321856.0) < 0.5 && fabs(bits - ideal) < 1e-4, "%.0f weights take %.5f bits each, %.5f",
          packed, bits, ideal);
    trainer_plan_free(&t);
}

static void check_allocated(void) {
    size_t before, after, total;
    Model m;
    cudaCheck(cudaMemGetInfo(&before, &total));
    open_model(&m, "llama", BASE_NF4, false);
    cudaCheck(cudaMemGetInfo(&after, &total));
    const double planned = (double)memory_total(&m.trainer.plan), used = (double)(before - after);
#ifdef __CUDACC__
    double pages = (N_MEMORY_CLASSES + 1) * 2097152.0;  // a GPU gives whole pages
#else
    double pages = 0.0;
#endif
    check(fabs(used - planned) <= 0.01 * planned + pages, "%.2f MiB planned, %.2f MiB taken", planned / 1048576,
          used / 1048576);
    close_model(&m);
}

int main(void) {
    static const char* const names[] = {"one",   "three",  "nine",     "hundred", "group", "groups",
                                        "level", "levels", "parallel", "alike",   "zeros"};
    static const char* const recorded[] = {"llama", "gpt_neox", "gpt2", "phi3"};
    static const char* const families[] = {"llama", "llama_tied", "mistral", "gpt_neox", "gpt_neox_sequential",
                                           "phi3",  "qwen2",      "smollm3", "granite",  "qwen3",
                                           "olmo2", "olmo3",      "gemma2",  "gemma3",   "gpt2"};
    StReader file;
    program_name = "test_nf4";
    st_open(&file, "dev/reference/golden/nf4/drawn.safetensors");
    for (auto name : names) check_drawn(&file, name);
    st_close(&file);
    for (auto name : recorded) check_against_torch(name);
    for (auto name : families) check_against_plain(name);
    check_allocated();
    check_refusals();
    if (bf16) {
        check_memory("q,v", BASE_NF4, 12.0);
        check_memory("all", BASE_NF4, 12.0);
    }
    return check_report();
}
