/*
A frozen model in 4 bits. nf4_quantise and the kernel that unpacks against bitsandbytes, bit for bit; losses and
gradients of adapters over such a model against PyTorch's on the same weights (both recorded by
dev/reference/record_nf4.py); every family against itself with the unpacked weights kept plainly, bit for bit; the
memory that QLoRA of Llama-3-8B plans.
*/
#include "frozen_base.h"
#include "nf4.h"

// ---------------------------------------------------------------------------------------------------
// the format

// record_nf4.py's drawn().
static float* drawn(int blocks, int spread, int zero) {
    const int64_t n = (int64_t)blocks * NF4_BLOCK;
    float* w = (float*)malloc((size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        const float cube = drawn_number((uint64_t)(i + 1 + blocks));
        const int block = (int)(i / NF4_BLOCK);
        w[i] = spread < 0 ? i % NF4_BLOCK ? cube * 0.25f : 0.5f : ldexpf(cube, -(block % (spread + 1)));
        if (zero && block % zero == 0) w[i] = 0.0f;
    }
    return w;
}

static bool has_digest_of(const StReader* file, const char* name, const char* what, const void* data, size_t bytes) {
    char tensor[64];
    snprintf(tensor, sizeof tensor, "%s.%s", name, what);
    return has_digest(file, tensor, data, bytes);
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
    check(has_digest_of(file, name, "weights", w, n * sizeof(float)), "%s: both sides draw the same weights", name);
    nf4_quantise(w, n, piece);
    floatX* values = unpacked(piece, n);
    snprintf(tensor, sizeof tensor, "%s.mean", name);
    st_copy(file, tensor, ST_F32, 1, &mean);
    snprintf(tensor, sizeof tensor, "%s.tops", name);
    st_copy(file, tensor, ST_F32, n_tops, tops);
    check(has_digest_of(file, name, "codes", piece + nf4_codes_at(), n / 2), "%s: codes of %d blocks are bitsandbytes'",
          name, how[0]);
    check(!memcmp(&mean, piece, sizeof mean), "%s: and so is the mean of their scales, %.9g", name, mean);
    check(!memcmp(tops, piece + nf4_tops_at(n), n_tops * sizeof(float)), "%s: and the tops of %d groups", name, n_tops);
    check(has_digest_of(file, name, "scales", piece + nf4_scales_at(n), how[0]), "%s: and the scales", name);
    check(has_digest_of(file, name, FLOATX_NAME, values, n * sizeof(floatX)), "%s: and the values, in " FLOATX_NAME,
          name);
    void* all[] = {w, tops, piece, values};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

// ---------------------------------------------------------------------------------------------------
// models

static Recorded recorded_family(const char* name) {
    return {.folder = "families", .name = name, .adapter = "lora_all", .batch_of_model = true};
}

static void check_against_torch(const char* name) {
    const Recorded r = recorded_family(name);
    FrozenModel m;
    Golden golden;
    char states[256], key[256];
    float loss[64];
    snprintf(states, sizeof states, "dev/reference/golden/nf4/%s", name);
    golden_open(&golden, states);
    frozen_open(&m, &r, BASE_NF4, false);
    const ModelLayout* layout = m.trainer.theta.layout;
    float* gradients = frozen_pass(&m, loss);
    golden_compare(&golden, "sample_loss", loss, m.batch.k, "%s over NF4: loss of every sample", name);
    for (int i = 0; i < layout->n_files; i++) {
        const FileTensor* f = &layout->files[i];
        float* gradient = frozen_gradient(&m, f, gradients);
        snprintf(key, sizeof key, "grad.%s", f->hf_name);
        golden_compare(&golden, key, gradient, f->rows * f->cols, "%s over NF4: gradient of %s", name, f->hf_name);
        free(gradient);
    }
    free(gradients);
    frozen_close(&m);
    golden_close(&golden);
}

// The same weights kept plainly give the same bits, and so does recomputing.
static void check_against_plain(const char* name) {
    const Recorded r = recorded_family(name);
    FrozenModel packed, plain, again;
    float loss[3][64];
    frozen_open(&packed, &r, BASE_NF4, false);
    frozen_open(&plain, &r, BASE_PLAIN, false);
    frozen_open(&again, &r, BASE_NF4, true);
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
    float* gradients[3] = {frozen_pass(&packed, loss[0]), frozen_pass(&plain, loss[1]), frozen_pass(&again, loss[2])};
    const size_t losses = packed.batch.k * sizeof(float);
    check(!memcmp(loss[0], loss[1], losses) && !memcmp(gradients[0], gradients[1], bytes),
          "%s: the unpacked weights kept plainly give the same bits", name);
    check(!memcmp(loss[0], loss[2], losses) && !memcmp(gradients[0], gradients[2], bytes),
          "%s: recomputing gives the same bits", name);
    check(packed.trainer.plan.bytes[MEMORY_WEIGHTS] < plain.trainer.plan.bytes[MEMORY_WEIGHTS],
          "%s: weights take %zu bytes instead of %zu", name, packed.trainer.plan.bytes[MEMORY_WEIGHTS],
          plain.trainer.plan.bytes[MEMORY_WEIGHTS]);
    for (int i = 0; i < 3; i++) free(gradients[i]);
    frozen_close(&packed);
    frozen_close(&plain);
    frozen_close(&again);
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

static void check_refusals(void) {
    const Recorded llama = recorded_family("llama");
    check(refuses(train_whole, "dev/reference/golden/families/llama", "--base nf4 freezes the model"),
          "training the whole model is refused");
    frozen_check_own_layer(&llama, BASE_NF4);
}

// ---------------------------------------------------------------------------------------------------
// memory

static void check_memory(const char* modules, double most_GB) {
    TrainerSettings settings = {};
    settings.with_hat = settings.recompute = true;
    settings.base = BASE_NF4;
    const FrozenPlan plan = frozen_plan_8b(modules, settings);
    check(plan.GB <= most_GB, "Algorithm 1, LoRA on %s, base in nf4, recomputed, 4096 tokens: %.2f GB of %.0f", modules,
          plan.GB, most_GB);
    // 4 bits a weight, 8 a block of 64, 32 a group of 256 blocks
    const double bits = 8.0 * plan.bytes, ideal = 4.0 + 8.0 / 64 + 32.0 / 64 / 256;
    check(fabs(bits - ideal) < 1e-4, "%.5f bits for each, %.5f", bits, ideal);
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
    const Recorded llama = recorded_family("llama");
    frozen_check_allocated(&llama, BASE_NF4);
    check_refusals();
    if (bf16) {
        check_memory("q,v", 12.0);
        check_memory("all", 12.0);
    }
    return check_report();
}
