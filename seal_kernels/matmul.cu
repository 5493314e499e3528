/*
Linear layers through cuBLASLt: forward with bias and GELU in the epilogue, gradients of input and weight; the bias
gradient is a kernel of its own. cuBLASLt is column major. A row-major matrix (rows, cols; ld) is, byte for byte, the
column-major matrix (cols, rows; ld): its transpose. So out = inp · weightᵀ is asked for as outᵀ = weight · inpᵀ: the
operands change places, and what we call weightᵀ needs no transposing to be "weight". Descriptors, layouts and the
chosen algorithm are kept in a table of plans by operation and shape; asking for them takes longer than a small GEMM.
fp8 products exist in one form only: A transposed, B not ("TN"), both with k along their rows.
*/
#include <string.h>
#include <cublasLt.h>
#include "kernels.h"
#include "column_sums.h"

#define ALIGNMENT 16     // bytes, of every operand
#define FP8_MULTIPLE 16  // of every side of an fp8 operand: rows begin at 16 bytes
#ifdef PRECISION_BF16
#define TYPE_X CUDA_R_16BF
#define FUSE_GELU true
#else
#define TYPE_X CUDA_R_32F
// The epilogue's own exponential is made for half precision, and true fp32 kernels need not have one.
#define FUSE_GELU false
#endif

// ---------------------------------------------------------------------------------------------------
// bias gradient, first stage

#define BIAS_ROW_LANES 8  // warps of a block; lane l of each owns vector l of the block's columns
#define BIAS_MIN_BLOCK_ROWS 64
#define BIAS_MAX_SLICES 256  // partial rows

// partial (slices, OC): slice blockIdx.y holds the column sums of block_rows rows of dout (T, OC; ldo)
static __global__ void bias_partial_kernel(float* partial, const floatX* dout, int T, int OC, int ldo, int block_rows) {
    SHARED(float, sums, [BIAS_ROW_LANES][WARP_SIZE * VEC]);
    int warp = threadIdx.x / WARP_SIZE, lane = threadIdx.x % WARP_SIZE, column = (blockIdx.x * WARP_SIZE + lane) * VEC;
    int begin = blockIdx.y * block_rows, end = min(begin + block_rows, T);
    float8 sum = zero8();
    if (column < OC) {
        UNROLL for (int row = begin + warp; row < end; row += BIAS_ROW_LANES)
            add8(sum, load8(dout + (size_t)row * ldo + column));
    }
    store8(&sums[warp][lane * VEC], sum);
    __syncthreads();
    if (warp > 0 || column >= OC) return;
    for (int w = 1; w < BIAS_ROW_LANES; w++) add8(sum, load8(&sums[w][lane * VEC]));
    store8(partial + (size_t)blockIdx.y * OC + column, sum);
}

// ---------------------------------------------------------------------------------------------------
// plans

typedef enum {
    FORWARD,
    FORWARD_BIAS,
    FORWARD_GELU,
    FORWARD_GELU_BIAS,
    BACKWARD_INPUT,
    BACKWARD_INPUT_DGELU,
    BACKWARD_WEIGHT,
    FP8
} Operation;
static const struct {
    const char* name;
    cublasOperation_t transpose_a, transpose_b;
    cublasLtEpilogue_t epilogue;
    cudaDataType_t type_ab, type_d;
} operations[] = {
    {"matmul_forward", CUBLAS_OP_T, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, TYPE_X, TYPE_X},
    {"matmul_forward with bias", CUBLAS_OP_T, CUBLAS_OP_N, CUBLASLT_EPILOGUE_BIAS, TYPE_X, TYPE_X},
    {"matmul_forward with GELU", CUBLAS_OP_T, CUBLAS_OP_N, CUBLASLT_EPILOGUE_GELU_AUX, TYPE_X, TYPE_X},
    {"matmul_forward with bias and GELU", CUBLAS_OP_T, CUBLAS_OP_N, CUBLASLT_EPILOGUE_GELU_AUX_BIAS, TYPE_X, TYPE_X},
    {"matmul_backward_input", CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, TYPE_X, TYPE_X},
    {"matmul_backward_input with GELU", CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DGELU, TYPE_X, TYPE_X},
    {"matmul_backward_weight", CUBLAS_OP_N, CUBLAS_OP_T, CUBLASLT_EPILOGUE_DEFAULT, TYPE_X, CUDA_R_32F},
    {"matmul_fp8", CUBLAS_OP_T, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, CUDA_R_8F_E4M3, TYPE_X},
};

// D (m, n; ldd) = op(A) · op(B) with k terms, column major. Integers only: keys are compared byte for byte.
typedef struct {
    int operation, m, n, k, lda, ldb, ldd, accumulate;
} PlanKey;
typedef struct Plan {
    PlanKey key;
    bool supported;  // cuBLASLt has an algorithm
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace;
    int n_proposed;  // algorithms to be timed at the plan's first product; 0: one is chosen
    cublasLtMatmulHeuristicResult_t* proposed;
    struct Plan* next;
} Plan;

#define BUCKETS 1024
static struct {
    cublasLtHandle_t handle;
    void* workspace;  // shared by all calls, so all matmuls of a process belong on one stream
    Plan* plans[BUCKETS];
    void (*chosen)(const MatmulAlgorithm*);  // NULL: nothing is timed
} lt;

static void cublas_check(cublasStatus_t status, const char* call, const char* file, int line) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    fprintf(stderr, "cuBLASLt error: %s\n  in %s\n  at %s:%d\n", cublasLtGetStatusString(status), call, file, line);
    device_exit();
}
#define cublasCheck(call) cublas_check(call, #call, __FILE__, __LINE__)

static void matmul_error(const PlanKey* key, const char* why) {
    fprintf(stderr, "%s " FLOATX_NAME ": %s (m %d, n %d, k %d, row strides %d, %d, %d)\n",
            operations[key->operation].name, why, key->m, key->n, key->k, key->lda, key->ldb, key->ldd);
    device_exit();
}

template <typename T> static void set(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute, T value) {
    cublasCheck(cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof(value)));
}

static bool has_bias(int operation) { return operation == FORWARD_BIAS || operation == FORWARD_GELU_BIAS; }
static bool has_aux(int operation) {
    return operation == FORWARD_GELU || operation == FORWARD_GELU_BIAS || operation == BACKWARD_INPUT_DGELU;
}

static void describe(Plan* plan) {
    const PlanKey* key = &plan->key;
    cublasOperation_t transpose_a = operations[key->operation].transpose_a,
                      transpose_b = operations[key->operation].transpose_b;
    cublasLtEpilogue_t epilogue = operations[key->operation].epilogue;
    // COMPUTE_32F: bf16 products are summed in fp32, and fp32 ones are never rounded to TF32
    cublasCheck(cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    set(plan->product, CUBLASLT_MATMUL_DESC_TRANSA, transpose_a);
    set(plan->product, CUBLASLT_MATMUL_DESC_TRANSB, transpose_b);
    set(plan->product, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    // The choice of algorithm looks at these pointers' alignment only; the plan must serve any that keep the contract.
    const void* aligned = (const void*)(uintptr_t)ALIGNMENT;
    if (has_bias(key->operation)) {
        set(plan->product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, TYPE_X);
        set(plan->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, aligned);
    }
    if (has_aux(key->operation)) {  // of D's type, as long as nobody names one: a named one is for fp8, and
                                    // cublasLtMatmul may refuse it
        set(plan->product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, (int64_t)key->m);
        set(plan->product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aligned);
    }
    if (key->operation == FP8) {  // sums of e4m3 products kept in fp32, not in the 14 bits of Hopper's tensor cores
        set(plan->product, CUBLASLT_MATMUL_DESC_FAST_ACCUM, (int8_t)0);
        set(plan->product, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, aligned);
    }
    const cudaDataType_t type = operations[key->operation].type_ab;
    bool ta = transpose_a == CUBLAS_OP_T, tb = transpose_b == CUBLAS_OP_T;
    cublasCheck(cublasLtMatrixLayoutCreate(&plan->a, type, ta ? key->k : key->m, ta ? key->m : key->k, key->lda));
    cublasCheck(cublasLtMatrixLayoutCreate(&plan->b, type, tb ? key->n : key->k, tb ? key->k : key->n, key->ldb));
    cublasCheck(cublasLtMatrixLayoutCreate(&plan->d, operations[key->operation].type_d, key->m, key->n, key->ldd));
}

// The first `most` algorithms that cuBLASLt proposes for a plan; returns how many there are.
static int propose(const Plan* plan, cublasLtMatmulHeuristicResult_t* results, int most) {
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    cublasLtMatmulPreference_t preference;
    size_t workspace = MATMUL_WORKSPACE_BYTES;
    uint32_t alignment = ALIGNMENT;
    // A product whose k is split may round the parts to D's type before it adds them up: in bf16 they are to be added
    // in fp32.
    uint32_t sums = operations[plan->key.operation].type_d == CUDA_R_32F ? CUBLASLT_REDUCTION_SCHEME_MASK
                                                                         : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    int found = 0;
    cublasCheck(cublasLtMatmulPreferenceCreate(&preference));
    cublasCheck(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                     sizeof(workspace)));
    cublasCheck(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums,
                                                     sizeof(sums)));
    for (size_t i = 0; i < sizeof(alignments) / sizeof(alignments[0]); i++)
        cublasCheck(cublasLtMatmulPreferenceSetAttribute(preference, alignments[i], &alignment, sizeof(alignment)));
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(lt.handle, plan->product, plan->a, plan->b, plan->d, plan->d,
                                                           preference, most, results, &found);
    cublasCheck(cublasLtMatmulPreferenceDestroy(preference));
    int usable = 0;
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < found; i++)
        if (results[i].state == CUBLAS_STATUS_SUCCESS) results[usable++] = results[i];
    return usable;
}

#define PROPOSED_MOST 16

static void choose_algorithm(Plan* plan) {
    cublasLtMatmulHeuristicResult_t results[PROPOSED_MOST];
    int n = propose(plan, results, lt.chosen ? PROPOSED_MOST : 1);
    plan->supported = n > 0;
    if (n == 0) return;
    plan->algorithm = results[0].algo;
    plan->workspace = results[0].workspaceSize;
    // A product that adds to D cannot be repeated, so it is not timed.
    if (!lt.chosen || plan->key.accumulate) return;
    plan->proposed = (cublasLtMatmulHeuristicResult_t*)malloc(n * sizeof(results[0]));
    if (plan->proposed == NULL) matmul_error(&plan->key, "out of host memory for its algorithms");
    memcpy(plan->proposed, results, n * sizeof(results[0]));
    plan->n_proposed = n;
}

static Plan** bucket_of(const PlanKey* key) {
    uint32_t hash = 2166136261u;  // FNV-1a
    for (size_t i = 0; i < sizeof(*key); i++) hash = (hash ^ ((const unsigned char*)key)[i]) * 16777619u;
    return &lt.plans[hash % BUCKETS];
}
static Plan* new_plan(const PlanKey* key) {
    Plan* plan = (Plan*)calloc(1, sizeof(*plan));
    if (plan == NULL) matmul_error(key, "out of host memory for its plan");
    plan->key = *key;
    describe(plan);
    Plan** bucket = bucket_of(key);
    plan->next = *bucket;
    return *bucket = plan;
}

static Plan* plan_for(const PlanKey* key) {
    for (Plan* plan = *bucket_of(key); plan; plan = plan->next)
        if (!memcmp(&plan->key, key, sizeof(*key))) return plan;
    if (lt.handle == NULL) matmul_error(key, "matmul_create has not been called");
    Plan* plan = new_plan(key);
    choose_algorithm(plan);
    return plan;
}

// The operands of one product.
typedef struct {
    const void *a, *b;
    void* d;
} Operands;

static cublasStatus_t run(const Plan* plan, Operands x, cudaStream_t stream) {
    float alpha = 1.0f, beta = plan->key.accumulate ? 1.0f : 0.0f;
    return cublasLtMatmul(lt.handle, plan->product, &alpha, x.a, plan->a, x.b, plan->b, &beta, x.d, plan->d, x.d,
                          plan->d, &plan->algorithm, lt.workspace, plan->workspace, stream);
}

#define TIMED 3  // products of each algorithm, of which the fastest counts; one more comes first and is not timed

// Chooses the fastest algorithm. D is overwritten with the same product every time.
static void time_algorithms(Plan* plan, Operands x, cudaStream_t stream) {
    cudaEvent_t from, to;
    cudaCheck(cudaEventCreate(&from));
    cudaCheck(cudaEventCreate(&to));
    float best = 0.0f;
    int fastest = -1;
    for (int i = 0; i < plan->n_proposed; i++) {
        plan->algorithm = plan->proposed[i].algo;
        plan->workspace = plan->proposed[i].workspaceSize;
        if (run(plan, x, stream) != CUBLAS_STATUS_SUCCESS) continue;  // proposed, and refused all the same
        for (int k = 0; k < TIMED; k++) {
            float ms;
            cudaCheck(cudaEventRecord(from, stream));
            cublasCheck(run(plan, x, stream));
            cudaCheck(cudaEventRecord(to, stream));
            cudaCheck(cudaEventSynchronize(to));
            cudaCheck(cudaEventElapsedTime(&ms, from, to));
            if (fastest >= 0 && ms >= best) continue;
            best = ms;
            fastest = i;
        }
    }
    cudaCheck(cudaEventDestroy(from));
    cudaCheck(cudaEventDestroy(to));
    if (fastest < 0) matmul_error(&plan->key, "cuBLASLt refuses every algorithm that it proposes");
    plan->algorithm = plan->proposed[fastest].algo;
    plan->workspace = plan->proposed[fastest].workspaceSize;
    free(plan->proposed);
    plan->proposed = NULL;
    plan->n_proposed = 0;
    MatmulAlgorithm chosen;
    static_assert(sizeof(chosen.key) == sizeof(plan->key) && sizeof(chosen.data) == sizeof(plan->algorithm), "");
    memcpy(chosen.key, &plan->key, sizeof(chosen.key));
    memcpy(chosen.data, &plan->algorithm, sizeof(chosen.data));
    chosen.workspace = plan->workspace;
    lt.chosen(&chosen);
}

static void product(Plan* plan, Operands x, cudaStream_t stream) {
    if (plan->n_proposed) time_algorithms(plan, x, stream);
    cublasCheck(run(plan, x, stream));
}

// D = op(A) · op(B) and the epilogue, or D += where beta is 1. False, and nothing done, where cuBLASLt has no algorithm
// for it.
static bool multiply(PlanKey key, const void* a, const void* b, void* d, const floatX* bias, const floatX* aux,
                     cudaStream_t stream) {
    if (((uintptr_t)a | (uintptr_t)b | (uintptr_t)d | (uintptr_t)bias | (uintptr_t)aux) % ALIGNMENT != 0)
        matmul_error(&key, "an operand is not 16-byte aligned");
    Plan* plan = plan_for(&key);
    if (!plan->supported) return false;
    if (has_bias(key.operation)) set(plan->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, (const void*)bias);
    if (has_aux(key.operation)) set(plan->product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, (const void*)aux);
    product(plan, {a, b, d}, stream);
    return true;
}
static void multiply_or_stop(PlanKey key, const void* a, const void* b, void* d, const floatX* bias,
                             cudaStream_t stream) {
    if (!multiply(key, a, b, d, bias, NULL, stream))
        matmul_error(&key, "cuBLASLt has no algorithm for this shape and alignment");
}

// ---------------------------------------------------------------------------------------------------
// launchers

void matmul_create(void) {
    if (lt.handle) return;
    cublasCheck(cublasLtCreate(&lt.handle));
    cudaCheck(cudaMalloc(&lt.workspace, MATMUL_WORKSPACE_BYTES));
}

void matmul_destroy(void) {
    if (!lt.handle) return;
    for (int i = 0; i < BUCKETS; i++) {
        while (lt.plans[i]) {
            Plan* plan = lt.plans[i];
            lt.plans[i] = plan->next;
            cublasCheck(cublasLtMatmulDescDestroy(plan->product));
            cublasCheck(cublasLtMatrixLayoutDestroy(plan->a));
            cublasCheck(cublasLtMatrixLayoutDestroy(plan->b));
            cublasCheck(cublasLtMatrixLayoutDestroy(plan->d));
            free(plan->proposed);
            free(plan);
        }
    }
    cudaCheck(cudaFree(lt.workspace));
    cublasCheck(cublasLtDestroy(lt.handle));
    lt.handle = NULL;
    lt.chosen = NULL;
}

size_t matmul_library_version(void) { return cublasLtGetVersion(); }

bool matmul_algorithms(const MatmulAlgorithm* known, int n, void (*chosen)(const MatmulAlgorithm*), int* refused) {
    lt.chosen = chosen;
    for (int i = 0; i < n; i++) {
        PlanKey key;
        cublasLtMatmulHeuristicResult_t result;
        memcpy(&key, known[i].key, sizeof(key));
        *refused = i;
        if (key.operation < 0 || key.operation > FP8 || key.accumulate || key.m < 1 || key.n < 1 || key.k < 1 ||
            known[i].workspace > MATMUL_WORKSPACE_BYTES)
            return false;
        Plan* plan = new_plan(&key);
        memcpy(&plan->algorithm, known[i].data, sizeof(plan->algorithm));
        plan->workspace = known[i].workspace;
        if (cublasLtMatmulAlgoCheck(lt.handle, plan->product, plan->a, plan->b, plan->d, plan->d, &plan->algorithm,
                                    &result) != CUBLAS_STATUS_SUCCESS ||
            result.workspaceSize > plan->workspace)
            return false;
        plan->supported = true;
    }
    return true;
}

void matmul_forward(floatX* out, floatX* pre_gelu, const floatX* inp, const floatX* weight, const floatX* bias,
                    MatmulShape shape, cudaStream_t stream) {
    NVTX_RANGE("matmul_forward");
    auto [T, C, OC, ldo, ldi, ldw] = shape;
    if (T == 0) return;
    Operation plain = bias ? FORWARD_BIAS : FORWARD;
    if (pre_gelu == NULL) return multiply_or_stop({plain, OC, T, C, ldw, ldi, ldo, 0}, weight, inp, out, bias, stream);
    if (FUSE_GELU && multiply({bias ? FORWARD_GELU_BIAS : FORWARD_GELU, OC, T, C, ldw, ldi, ldo, 0}, weight, inp, out,
                              bias, pre_gelu, stream))
        return;
    multiply_or_stop({plain, OC, T, C, ldw, ldi, OC, 0}, weight, inp, pre_gelu, bias, stream);
    gelu_forward(out, pre_gelu, T, OC, ldo, stream);
}

void matmul_forward_add(floatX* out, const floatX* inp, const floatX* weight, const floatX* bias, MatmulShape shape,
                        cudaStream_t stream) {
    NVTX_RANGE("matmul_forward_add");
    auto [T, C, OC, ldo, ldi, ldw] = shape;
    if (T == 0) return;
    multiply_or_stop({bias ? FORWARD_BIAS : FORWARD, OC, T, C, ldw, ldi, ldo, 1}, weight, inp, out, bias, stream);
}

void matmul_backward_input(floatX* dinp, const floatX* dout, const floatX* weight, const floatX* pre_gelu,
                           MatmulShape shape, bool accumulate, cudaStream_t stream) {
    NVTX_RANGE("matmul_backward_input");
    auto [T, C, OC, ldo, ldi, ldw] = shape;
    if (T == 0) return;
    PlanKey plain = {BACKWARD_INPUT, C, T, OC, ldw, ldo, ldi, accumulate};
    if (pre_gelu && accumulate) matmul_error(&plain, "a gradient through the GELU cannot accumulate");
    if (pre_gelu && FUSE_GELU &&
        multiply({BACKWARD_INPUT_DGELU, C, T, OC, ldw, ldo, ldi, 0}, weight, dout, dinp, NULL, pre_gelu, stream))
        return;
    multiply_or_stop(plain, weight, dout, dinp, NULL, stream);
    if (pre_gelu) gelu_backward_inplace(dinp, pre_gelu, T, C, ldi, stream);
}

void matmul_backward_weight(float* dweight, const floatX* dout, const floatX* inp, int T, int C, int OC, int ldi,
                            int ldo, cudaStream_t stream) {
    NVTX_RANGE("matmul_backward_weight");
    if (T == 0) return;
    multiply_or_stop({BACKWARD_WEIGHT, C, OC, T, ldi, ldo, C, 1}, inp, dout, dweight, NULL, stream);
}

void matmul_fp8(floatX* out, const uint8_t* inp, const uint8_t* weight, const float* weight_scale, MatmulShape shape,
                bool accumulate, cudaStream_t stream) {
    NVTX_RANGE("matmul_fp8");
    auto [T, C, OC, ldo, ldi, ldw] = shape;
    if (T == 0) return;
    PlanKey key = {FP8, OC, T, C, ldw, ldi, ldo, accumulate};
    if (C % FP8_MULTIPLE || OC % FP8_MULTIPLE || ldi % FP8_MULTIPLE || ldw % FP8_MULTIPLE)
        matmul_error(&key, "m, k and the strides of fp8 operands are multiples of 16");
    if (((uintptr_t)out | (uintptr_t)inp | (uintptr_t)weight) % ALIGNMENT)
        matmul_error(&key, "an operand is not 16-byte aligned");
    Plan* plan = plan_for(&key);
    if (!plan->supported) matmul_error(&key, "cuBLASLt has no algorithm for this shape; fp8 needs sm_89 or newer");
    set(plan->product, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, (const void*)weight_scale);
    product(plan, {weight, inp, out}, stream);
}

size_t matmul_bias_scratch(int OC) { return (size_t)BIAS_MAX_SLICES * OC; }

void matmul_backward_bias(float* dbias, float* scratch, const floatX* dout, int T, int OC, int ldo,
                          cudaStream_t stream) {
    NVTX_RANGE("matmul_backward_bias");
    if (T == 0) return;
    int block_rows = max(BIAS_MIN_BLOCK_ROWS, CEIL_DIV(T, BIAS_MAX_SLICES)), slices = CEIL_DIV(T, block_rows);
    dim3 grid(CEIL_DIV(OC, WARP_SIZE * VEC), slices);
    LAUNCH(bias_partial_kernel, grid, BIAS_ROW_LANES * WARP_SIZE, 0, stream, scratch, dout, T, OC, ldo, block_rows);
    add_column_sums(dbias, NULL, scratch, slices, OC, stream);
}
