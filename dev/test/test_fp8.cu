/*
A frozen model in fp8. Numbers of e4m3 against PyTorch's float8_e4m3fn, byte for byte, by the host's code and by the
kernel; losses and gradients of adapters over such a model against PyTorch's on the same weights and activations (all
recorded by dev/reference/record_fp8.py); recomputing, bit for bit; what cuBLASLt is asked for; the memory that is
planned; what does not go with it.
*/
#include <cublasLt.h>
#include "golden.h"
#include "base/file.h"
#include "fp8.h"
#include "packed.h"
#include "peft.h"
#include "refuses.h"
#include "scratch.h"

// ---------------------------------------------------------------------------------------------------
// numbers

static bool has_digest(const StReader* file, const char* name, const void* data, size_t bytes) {
    char hex[65], recorded[65];
    int32_t digest[32];
    st_copy(file, name, ST_I32, 32, digest);
    for (int i = 0; i < 32; i++) snprintf(recorded + 2 * i, 3, "%02x", (unsigned)digest[i]);
    sha256_hex(data, bytes, hex);
    return !strcmp(hex, recorded);
}

#define WIDTH 16
// n numbers in rows of 15, each with 448 after them, so that every scale is 1.
static float* in_rows(const float* numbers, int n, int* rows) {
    *rows = CEIL_DIV(n, WIDTH - 1);
    float* x = (float*)calloc((size_t)*rows * WIDTH, sizeof(float));
    for (int i = 0; i < n; i++) x[i / (WIDTH - 1) * WIDTH + i % (WIDTH - 1)] = numbers[i];
    for (int r = 0; r < *rows; r++) x[r * WIDTH + WIDTH - 1] = 448.0f;
    return x;
}
static uint8_t* out_of_rows(const uint8_t* bytes, int n) {
    uint8_t* x = (uint8_t*)malloc((size_t)n);
    for (int i = 0; i < n; i++) x[i] = bytes[i / (WIDTH - 1) * WIDTH + i % (WIDTH - 1)];
    return x;
}

static uint8_t* by_host(const float* numbers, int n) {
    int rows;
    float* x = in_rows(numbers, n, &rows);
    uint8_t* piece = (uint8_t*)malloc(fp8_bytes(rows, WIDTH, false));
    fp8_pack(x, rows, WIDTH, false, piece);
    uint8_t* bytes = out_of_rows(piece + fp8_values_at(), n);
    free(piece);
    free(x);
    return bytes;
}

static uint8_t* by_kernel(const float* numbers, int n) {
    int rows;
    float *x = in_rows(numbers, n, &rows), *d_scale;
    const size_t count = (size_t)rows * WIDTH;
    floatX *narrow = (floatX*)malloc(count * sizeof(floatX)), *d_x;
    uint8_t *out = (uint8_t*)malloc(count), *d_out;
    for (size_t i = 0; i < count; i++) narrow[i] = from_float<floatX>(x[i]);
    cudaCheck(cudaMalloc((void**)&d_x, count * sizeof(floatX)));
    cudaCheck(cudaMalloc((void**)&d_out, count));
    cudaCheck(cudaMalloc((void**)&d_scale, rows * sizeof(float)));
    cudaCheck(cudaMemcpy(d_x, narrow, count * sizeof(floatX), cudaMemcpyHostToDevice));
    fp8_quantise(d_out, d_scale, d_x, rows, WIDTH, WIDTH, 0);
    cudaCheck(cudaMemcpy(out, d_out, count, cudaMemcpyDeviceToHost));
    uint8_t* bytes = out_of_rows(out, n);
    cudaCheck(cudaFree(d_x));
    cudaCheck(cudaFree(d_out));
    cudaCheck(cudaFree(d_scale));
    free(narrow);
    free(out);
    free(x);
    return bytes;
}

static void check_numbers_of(const StReader* file, const char* name, const char* what, const float* numbers, int n,
                             bool kernel) {
    uint8_t* bytes = by_host(numbers, n);
    check(has_digest(file, name, bytes, (size_t)n), "%d %s are float8_e4m3fn's bytes on the host", n, what);
    free(bytes);
    if (!kernel) return;
    bytes = by_kernel(numbers, n);
    check(has_digest(file, name, bytes, (size_t)n), "and so are those of the kernel");
    free(bytes);
}

// Row r of record_nf4.py's drawn(blocks, 3, 0), rows of 64.
static float* drawn(int blocks) {
    const int n = blocks * 64;
    float* w = (float*)malloc((size_t)n * sizeof(float));
    for (int i = 0; i < n; i++) {
        uint64_t z = (uint64_t)(i + 1 + blocks) * 0x9e3779b97f4a7c15ull;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        z ^= z >> 31;
        const float x = (float)(z >> 40) * 0x1p-23f - 1.0f, cube = x * x * x;
        w[i] = ldexpf(cube, -(i / 64 % 4));
    }
    return w;
}

static void check_matrix(const StReader* file, const char* name, int rows) {
    char key[64];
    float *w = drawn(rows), *back = (float*)malloc((size_t)rows * 64 * sizeof(float)), scale, recorded, worst = 0.0f;
    const int n = rows * 64;
    uint8_t* piece = (uint8_t*)malloc(fp8_bytes(rows, 64, true));
    fp8_pack(w, rows, 64, true, piece);
    memcpy(&scale, piece, sizeof scale);
    snprintf(key, sizeof key, "%s.scale", name);
    st_copy(file, key, ST_F32, 1, &recorded);
    check(scale == recorded, "%s: the scale of %d × 64 weights, 2^%d", name, rows, ilogbf(scale));
    snprintf(key, sizeof key, "%s.values", name);
    check(has_digest(file, key, piece + fp8_values_at(), (size_t)n), "%s: and their values", name);
    snprintf(key, sizeof key, "%s.transposed", name);
    check(has_digest(file, key, piece + fp8_values_at() + n, (size_t)n), "%s: and the transposed ones", name);
    fp8_unpack(piece, n, back);
    for (int i = 0; i < n; i++) worst = fmaxf(worst, fabsf(back[i] - w[i]) / fmaxf(fabsf(w[i]), scale * 0x1p-6f));
    check(worst <= 0x1p-4f && worst > 0x1p-5f, "%s: unpacked they are within 2^-4 of what they were: %.4f", name,
          worst);
    free(piece);
    free(back);
    free(w);
}

static void check_numbers(void) {
    StReader file;
    float* numbers = (float*)malloc(65536 * sizeof(float));
    int n = 0;
    st_open(&file, "dev/reference/golden/fp8/numbers.safetensors");
    for (int i = 0; i < 65536; i++) {  // negative ones first
        __nv_bfloat16 h;
        const uint16_t bits = (uint16_t)(i + 32768);
        memcpy((void*)&h, &bits, sizeof h);
        const float x = to_float(h);
        if (fabsf(x) <= 448.0f) numbers[n++] = x;
    }
    check_numbers_of(&file, "bf16", "numbers of bf16", numbers, n, true);
    n = 0;
    for (int i = 0; i < 126; i++) {
        float pair[2];
        for (int k = 0; k < 2; k++) {
            const int exponent = (i + k) >> 3, mantissa = (i + k) & 7;
            pair[k] = exponent ? ldexpf(8.0f + mantissa, exponent - 10) : ldexpf(mantissa, -9);
        }
        const float half = (pair[0] + pair[1]) / 2;
        numbers[n++] = nextafterf(half, 0.0f);
        numbers[n++] = half;
        numbers[n++] = nextafterf(half, INFINITY);
    }
    check_numbers_of(&file, "half_ways", "numbers at and beside half-way", numbers, n, !bf16);
    check_matrix(&file, "small", 4);
    check_matrix(&file, "matrix", 300);
    st_close(&file);
    free(numbers);
}

// ---------------------------------------------------------------------------------------------------
// models

typedef struct {
    const char* name;
    GoldenBatch batch;
    Trainer trainer;
} Model;

static void open_model(Model* m, const char* name, const char* adapter, BasePrecision base, bool recompute) {
    char model[256], folder[272];
    ModelConfig config;
    Golden golden;
    m->name = name;
    snprintf(model, sizeof model, "dev/reference/golden/fp8/%s", name);
    snprintf(folder, sizeof folder, "%s/%s", model, adapter);
    golden_open(&golden, folder);
    golden_batch(&m->batch, &golden);
    golden_close(&golden);
    model_config_read(&config, model);
    TrainerSettings settings = golden_settings(&m->batch, 256, recompute);
    settings.base = base;
    peft_settings(folder, &config, &settings.lora);
    trainer_plan(&m->trainer, &config, &settings);
    trainer_allocate(&m->trainer);
    trainer_load(&m->trainer, model, folder, 0, true);
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

// In bf16 some numbers round to the next one of e4m3, 6 to 12% away, so PyTorch's own bf16 over the same model is the
// measure: how far it was from fp64 at most, over other batches. Sums over the whole adapter.
typedef struct {
    double difference, size;
} Distance;
static void add_distance(Distance* d, const Golden* golden, const char* key, const float* a, int64_t n) {
    int64_t count;
    double* b = golden_get(golden, key, &count);
    if (count != n) fatal("%s has %lld numbers, not %lld", key, (long long)count, (long long)n);
    for (int64_t i = 0; i < n; i++) {
        d->difference += (a[i] - b[i]) * (a[i] - b[i]);
        d->size += b[i] * b[i];
    }
    free(b);
}
static void check_spread(const Golden* golden, const char* name, const float* loss, int k, const Distance* d) {
    double *own = golden_get(golden, "spread", NULL), *expected = golden_get(golden, "sample_loss", NULL), worst = 0.0;
    const double far = sqrt(d->difference / d->size);
    for (int s = 0; s < k; s++) worst = fmax(worst, fabs(loss[s] / expected[s] - 1.0));
    check(worst <= own[0], "%s over fp8: losses within %.4f of the exact ones, PyTorch's bf16 %.4f", name, worst,
          own[0]);
    check(far <= own[1], "%s over fp8: the gradient within %.4f of the exact one, PyTorch's bf16 %.4f", name, far,
          own[1]);
    free(own);
    free(expected);
}

static void check_against_torch(const char* name, const char* adapter) {
    Model m;
    Golden golden;
    char states[256], key[256];
    float loss[64];
    snprintf(states, sizeof states, "dev/reference/golden/fp8/%s/%s", name, adapter);
    golden_open(&golden, states);
    open_model(&m, name, adapter, BASE_FP8, false);
    const ModelLayout* layout = m.trainer.theta.layout;
    float* gradients = run_batch(&m, loss);
    Distance distance = {};
    if (!bf16)
        golden_compare(&golden, "sample_loss", loss, m.batch.k, "%s, %s over fp8: loss of every sample", name, adapter);
    for (int i = 0; i < layout->n_files; i++) {
        const FileTensor* f = &layout->files[i];
        const ModelTensor* t = &layout->tensors[f->tensor];
        float *rows = (float*)malloc(2 * f->rows * f->cols * sizeof(float)), *ordered = rows + f->rows * f->cols;
        for (int64_t r = 0; r < f->rows; r++)
            memcpy(rows + r * f->cols, gradients + t->offset + (f->first + r) * t->cols, f->cols * sizeof(float));
        file_tensor_order(layout, f, rows, ordered);
        snprintf(key, sizeof key, "grad.%s", f->hf_name);
        if (bf16) add_distance(&distance, &golden, key, ordered, f->rows * f->cols);
        else golden_compare(&golden, key, ordered, f->rows * f->cols, "%s over fp8: gradient of %s", name, f->hf_name);
        free(rows);
    }
    if (bf16) check_spread(&golden, name, loss, m.batch.k, &distance);
    free(gradients);
    close_model(&m);
    golden_close(&golden);
}

static void check_against_plain(const char* name, const char* adapter) {
    Model packed, plain, again;
    float loss[3][64];
    open_model(&packed, name, adapter, BASE_FP8, false);
    open_model(&plain, name, adapter, BASE_PLAIN, false);
    open_model(&again, name, adapter, BASE_FP8, true);
    const ModelLayout *layout = &packed.trainer.layout, *adapters = packed.trainer.theta.layout;
    int n_packed = 0, changed = 0, far = 0;
    for (int i = 0; i < layout->n_tensors; i++) {
        const ModelTensor* t = &layout->tensors[i];
        const int64_t n = t->rows * t->cols;
        float *a = (float*)malloc(2 * n * sizeof(float)), *b = a + n;
        double difference = 0.0, size = 0.0;
        parameters_get(&packed.trainer.base, i, a);
        parameters_get(&plain.trainer.base, i, b);
        for (int64_t e = 0; e < n; e++) {
            difference += ((double)a[e] - b[e]) * ((double)a[e] - b[e]);
            size += (double)b[e] * b[e];
        }
        n_packed += t->packed;
        changed += difference > 0.0;
        far += sqrt(difference) > 0.04 * sqrt(size);  // half a step of e4m3 is 2^-4 at most, 2^-5.3 on the average
        free(a);
    }
    check(n_packed == N_SITES * layout->config.L && changed == n_packed && !far,
          "%s: of %d tensors the %d linear layers of the blocks are packed, and changed by less than 4%%", name,
          layout->n_tensors, n_packed);
    const size_t bytes = (size_t)adapters->n_elements * sizeof(float), losses = packed.batch.k * sizeof(float);
    float* gradients[3] = {run_batch(&packed, loss[0]), run_batch(&plain, loss[1]), run_batch(&again, loss[2])};
    double worst = 0.0;
    for (int s = 0; s < packed.batch.k; s++) worst = fmax(worst, fabs(loss[0][s] / loss[1][s] - 1.0));
    check(worst > 0.0 && worst < 0.05, "%s: losses differ from those of the plain model by up to %.2f%%", name,
          100.0 * worst);
    check(!memcmp(loss[0], loss[2], losses) && !memcmp(gradients[0], gradients[2], bytes),
          "%s: recomputing gives the same bits", name);
    for (int i = 0; i < 3; i++) free(gradients[i]);
    close_model(&packed);
    close_model(&plain);
    close_model(&again);
}

// ---------------------------------------------------------------------------------------------------
// what cuBLASLt is asked for

#ifndef __CUDACC__  // what sm_89 and sm_90 have; newer GPUs may take more
typedef struct {
    int T, C, OC, ldi;
    size_t shift;  // bytes
} Asked;
static void multiply(const Asked* x) {
    uint8_t* bytes;
    float* scale;
    floatX* out;
    matmul_create();
    cudaCheck(cudaMalloc((void**)&bytes, 65536));
    cudaCheck(cudaMalloc((void**)&scale, sizeof(float)));
    cudaCheck(cudaMalloc((void**)&out, 65536));
    matmul_fp8(out, bytes + x->shift, bytes, scale,
               {.T = x->T, .C = x->C, .OC = x->OC, .ldo = x->OC, .ldi = x->ldi, .ldw = x->C}, false, 0);
    cudaCheck(cudaDeviceSynchronize());
}
// Whether the product ends the program with one line that holds `expected`; NULL: whether it runs.
static bool stops(Asked x, const char* expected) {
    int pipes[2], status;
    char text[1024] = "";
    size_t n = 0;
    if (pipe(pipes)) return false;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(pipes[1], 2);
        multiply(&x);
        _exit(0);
    }
    close(pipes[1]);
    for (ssize_t got; n + 1 < sizeof text && (got = read(pipes[0], text + n, sizeof text - 1 - n)) > 0;) n += got;
    close(pipes[0]);
    waitpid(child, &status, 0);
    if (!expected) return WIFEXITED(status) && !WEXITSTATUS(status);
    return WIFEXITED(status) && WEXITSTATUS(status) == 1 && strstr(text, expected);
}

// Whether cuBLASLt has a product of e4m3 operands (k, m or transposed; k, n or transposed) → bf16.
static bool supported(cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k) {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    const bool A = ta == CUBLAS_OP_T, B = tb == CUBLAS_OP_T;
    cublasLtCreate(&handle);
    cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta);
    cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb);
    cublasLtMatrixLayoutCreate(&a, CUDA_R_8F_E4M3, A ? k : m, A ? m : k, A ? k : m);
    cublasLtMatrixLayoutCreate(&b, CUDA_R_8F_E4M3, B ? n : k, B ? k : n, B ? n : k);
    cublasLtMatrixLayoutCreate(&d, CUDA_R_16BF, m, n, m);
    cublasLtMatmulPreferenceCreate(&preference);
    bool good = cublasLtMatmulAlgoGetHeuristic(handle, product, a, b, d, d, preference, 1, &result, &found) ==
                CUBLAS_STATUS_SUCCESS;
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtMatmulDescDestroy(product);
    for (auto layout : {a, b, d}) cublasLtMatrixLayoutDestroy(layout);
    cublasLtDestroy(handle);
    return good && found;
}

static void check_plans(void) {
    check(stops({.T = 5, .C = 32, .OC = 48, .ldi = 48, .shift = 16}, NULL), "a product of 16-byte rows runs");
    check(stops({.T = 5, .C = 40, .OC = 48, .ldi = 48, .shift = 0}, "multiples of 16"), "40 terms are refused");
    check(stops({.T = 5, .C = 32, .OC = 40, .ldi = 32, .shift = 0}, "multiples of 16"),
          "40 rows of weights are refused");
    check(stops({.T = 5, .C = 32, .OC = 48, .ldi = 40, .shift = 0}, "multiples of 16"), "a stride of 40 is refused");
    check(stops({.T = 5, .C = 32, .OC = 48, .ldi = 32, .shift = 8}, "16-byte aligned"), "an operand at 8 is refused");
    const cublasOperation_t N = CUBLAS_OP_N, T = CUBLAS_OP_T;
    check(supported(T, N, 48, 5, 32), "TN is what cuBLASLt has for fp8 on sm_89 and sm_90, for any number of tokens");
    check(!supported(N, N, 48, 16, 32) && !supported(T, T, 48, 16, 32) && !supported(N, T, 48, 16, 32),
          "and nothing else");
    check(!supported(T, N, 48, 16, 40) && !supported(T, N, 40, 16, 32), "nor sides that break the alignment of rows");
}
#endif

// ---------------------------------------------------------------------------------------------------
// what does not go with it

static void plan(const char* model, const char* modules) {
    ModelConfig c;
    Trainer t;
    TrainerSettings settings = {};
    model_config_read(&c, model);
    settings.T = settings.batch_max = settings.head_rows = 8;
    settings.base = BASE_FP8;
    snprintf(settings.lora.modules, sizeof settings.lora.modules, "%s", modules);
    settings.lora.rank = 8;
    settings.lora.scale = 1.0f;
    trainer_plan(&t, &c, &settings);
}
static void train_whole(const void* context) { plan((const char*)context, ""); }
static void train_adapter(const void* context) { plan((const char*)context, "all"); }

// An adapter that brings a linear layer of its own.
#define OWN "base_model.model.model.layers.0.mlp.down_proj.weight"
static void load_own_layer(const void* context) {
    const Model* m = (const Model*)context;
    peft_load_saved((ParameterSet*)&m->trainer.base, directory, false);
}

static void check_refusals(void) {
    Model m;
    StWriter file;
    check(refuses(train_whole, "dev/reference/golden/fp8/llama", "--base fp8 freezes the model"),
          "training the whole model is refused");
    check(refuses(train_adapter, "dev/reference/golden/families/llama", "sides are multiples of 16; model.layers.0."),
          "a model whose sides are no multiples of 16 is refused");
    open_model(&m, "llama", "lora_all", BASE_FP8, false);
    const ModelTensor* t = &m.trainer.layout.tensors[tensor_index(&m.trainer.layout, DOWNW, 0)];
    const int64_t shape[2] = {t->rows, t->cols};
    float* zeros = (float*)calloc((size_t)(t->rows * t->cols), sizeof(float));
    snprintf(directory, sizeof directory, "/tmp/test_fp8.XXXXXX");
    if (!mkdtemp(directory)) fatal("a folder in /tmp cannot be made");
    st_create(&file, in_directory("adapter_model.safetensors"));
    st_declare(&file, OWN, ST_F32, 2, shape);
    st_write(&file, zeros, (size_t)(t->rows * t->cols) * sizeof(float));
    st_commit(&file);
    check(refuses(load_own_layer, &m, "a base in fp8 does not hold"),
          "an adapter that brings a linear layer of its own is refused");
    free(zeros);
    close_model(&m);
    unlink(in_directory("adapter_model.safetensors"));
    rmdir(directory);
}

// ---------------------------------------------------------------------------------------------------
// memory

static void check_memory(bool forward_only) {
    ModelConfig c;
    Trainer t;
    TrainerSettings settings = {};
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
    settings.forward_only = forward_only;
    settings.base = BASE_FP8;
    snprintf(settings.lora.modules, sizeof settings.lora.modules, "q,v");
    settings.lora.rank = 16;
    settings.lora.scale = 1.0f;
    trainer_plan(&t, &c, &settings);
    double packed = 0.0;
    for (int i = 0; i < t.layout.n_tensors; i++)
        if (t.layout.tensors[i].packed) packed += (double)(t.layout.tensors[i].rows * t.layout.tensors[i].cols);
    const double bytes = (double)t.layout.n_packed / packed, expected = forward_only ? 1.0 : 2.0;
    check(fabs(packed - 6979321856.0) < 0.5 && fabs(bytes - expected) < 1e-4,
          "Llama-3-8B, %s: %.0f weights take %.5f bytes each; %.2f GB are planned",
          forward_only ? "forward" : "trained", packed, bytes, (double)memory_total(&t.plan) / 1e9);
    trainer_plan_free(&t);
}

static void check_allocated(void) {
    size_t before, after, total;
    Model m;
    cudaCheck(cudaMemGetInfo(&before, &total));
    open_model(&m, "llama", "lora_all", BASE_FP8, false);
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
    static const char* const recorded[][2] = {{"llama", "lora_all"},
                                              {"llama", "lora_qv"},
                                              {"gpt_neox", "lora_all"},
                                              {"gpt2", "lora_qv"},
                                              {"phi3", "lora_all"}};
    int device, major, minor;
    program_name = "test_fp8";
#ifndef __CUDACC__
    check_plans();  // in children of a process that has not used the device
#endif
    check_numbers();
    cudaCheck(cudaGetDevice(&device));
    cudaCheck(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    cudaCheck(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    if (10 * major + minor < 89) {
        check_skip("products", "this GPU's compute capability is below 8.9");
        return check_report();
    }
    for (auto& r : recorded) check_against_torch(r[0], r[1]);
    for (auto& r : recorded) check_against_plain(r[0], r[1]);
    check_allocated();
    check_refusals();
    if (bf16) {
        check_memory(false);
        check_memory(true);
    }
    return check_report();
}
