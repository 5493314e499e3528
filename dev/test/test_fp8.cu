/*
A frozen model in fp8. Numbers of e4m3 against PyTorch's float8_e4m3fn, byte for byte, by the host's code and by the
kernel; losses and gradients of adapters over such a model against PyTorch's on the same weights and activations (all
recorded by dev/reference/record_fp8.py); recomputing, bit for bit; what cuBLASLt is asked for; the memory that is
planned; what does not go with it.
*/
#include <cublasLt.h>
#include "frozen_base.h"
#include "fp8.h"

// ---------------------------------------------------------------------------------------------------
// numbers

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
    for (int i = 0; i < n; i++) w[i] = ldexpf(drawn_number((uint64_t)(i + 1 + blocks)), -(i / 64 % 4));
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

static void check_against_torch(const Recorded* r) {
    FrozenModel m;
    Golden golden;
    char states[256], key[256];
    float loss[64];
    snprintf(states, sizeof states, "dev/reference/golden/fp8/%s/%s", r->name, r->adapter);
    golden_open(&golden, states);
    frozen_open(&m, r, BASE_FP8, false);
    const ModelLayout* layout = m.trainer.theta.layout;
    float* gradients = frozen_pass(&m, loss);
    Distance distance = {};
    if (!bf16)
        golden_compare(&golden, "sample_loss", loss, m.batch.k, "%s, %s over fp8: loss of every sample", r->name,
                       r->adapter);
    for (int i = 0; i < layout->n_files; i++) {
        const FileTensor* f = &layout->files[i];
        const int64_t n = f->rows * f->cols;
        float* gradient = frozen_gradient(&m, f, gradients);
        snprintf(key, sizeof key, "grad.%s", f->hf_name);
        if (bf16) add_distance(&distance, &golden, key, gradient, n);
        else golden_compare(&golden, key, gradient, n, "%s over fp8: gradient of %s", r->name, f->hf_name);
        free(gradient);
    }
    if (bf16) check_spread(&golden, r->name, loss, m.batch.k, &distance);
    free(gradients);
    frozen_close(&m);
    golden_close(&golden);
}

static void check_against_plain(const Recorded* r) {
    const char* name = r->name;
    FrozenModel packed, plain, again;
    float loss[3][64];
    frozen_open(&packed, r, BASE_FP8, false);
    frozen_open(&plain, r, BASE_PLAIN, false);
    frozen_open(&again, r, BASE_FP8, true);
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
    float* gradients[3] = {frozen_pass(&packed, loss[0]), frozen_pass(&plain, loss[1]), frozen_pass(&again, loss[2])};
    double worst = 0.0;
    for (int s = 0; s < packed.batch.k; s++) worst = fmax(worst, fabs(loss[0][s] / loss[1][s] - 1.0));
    check(worst > 0.0 && worst < 0.05, "%s: losses differ from those of the plain model by up to %.2f%%", name,
          100.0 * worst);
    check(!memcmp(loss[0], loss[2], losses) && !memcmp(gradients[0], gradients[2], bytes),
          "%s: recomputing gives the same bits", name);
    for (int i = 0; i < 3; i++) free(gradients[i]);
    frozen_close(&packed);
    frozen_close(&plain);
    frozen_close(&again);
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

static void check_refusals(const Recorded* llama) {
    check(refuses(train_whole, "dev/reference/golden/fp8/llama", "--base fp8 freezes the model"),
          "training the whole model is refused");
    check(refuses(train_adapter, "dev/reference/golden/families/llama", "sides are multiples of 16; model.layers.0."),
          "a model whose sides are not multiples of 16 is refused");
    frozen_check_own_layer(llama, BASE_FP8);
}

// ---------------------------------------------------------------------------------------------------
// memory

static void check_memory(bool forward_only) {
    TrainerSettings settings = {};
    settings.forward_only = forward_only;
    settings.base = BASE_FP8;
    const FrozenPlan plan = frozen_plan_8b("q,v", settings);
    check(fabs(plan.bytes - (forward_only ? 1.0 : 2.0)) < 1e-4, "%s: %.5f bytes for each; %.2f GB are planned",
          forward_only ? "forward" : "trained", plan.bytes, plan.GB);
}

int main(void) {
    static const Recorded recorded[] = {{"fp8", "llama", "lora_all", false},
                                        {"fp8", "llama", "lora_qv", false},
                                        {"fp8", "gpt_neox", "lora_all", false},
                                        {"fp8", "gpt2", "lora_qv", false},
                                        {"fp8", "phi3", "lora_all", false}};
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
    for (auto& r : recorded) check_against_torch(&r);
    for (auto& r : recorded) check_against_plain(&r);
    frozen_check_allocated(&recorded[0], BASE_FP8);
    check_refusals(&recorded[0]);
    if (bf16) {
        check_memory(false);
        check_memory(true);
    }
    return check_report();
}
