/*
cuBLASLt over OpenBLAS. D = epilogue(alpha · op(A) · op(B) + beta · C), column major. The columns of D are dealt to the
pool, one sgemm each: OpenBLAS itself runs single-threaded, so that its threads do not spin beside ours. bf16 operands
are widened, the product is rounded once after the epilogue. Sanitizer builds multiply with a plain loop: an
uninstrumented library would hide a wrong leading dimension.
*/
#include <cblas.h>
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <vector>
#include "cpu_internal.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PLAIN_GEMM 1
#else
#define PLAIN_GEMM 0
#endif

struct cpu_lt {
    int alive;
};
struct cpu_lt_layout {
    cudaDataType_t type;
    int64_t rows, cols, ld;
};
struct cpu_lt_preference {
    size_t workspace;
};
struct cpu_lt_desc {
    cublasOperation_t ta, tb;
    cublasLtEpilogue_t epilogue;
    const void* bias;
    void* aux;
    int64_t aux_ld;
    int bias_type;  // −1: as D
};

static size_t size_of(int type) { return type == CUDA_R_16BF ? 2 : 4; }
static bool has_bias(cublasLtEpilogue_t e) {
    return e == CUBLASLT_EPILOGUE_BIAS || e == CUBLASLT_EPILOGUE_GELU_BIAS || e == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
}
static bool has_aux(cublasLtEpilogue_t e) {
    return e == CUBLASLT_EPILOGUE_GELU_AUX || e == CUBLASLT_EPILOGUE_GELU_AUX_BIAS || e == CUBLASLT_EPILOGUE_DGELU;
}
static bool has_gelu(cublasLtEpilogue_t e) {
    return has_aux(e) || e == CUBLASLT_EPILOGUE_GELU || e == CUBLASLT_EPILOGUE_GELU_BIAS;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
    openblas_set_num_threads(1);
    *handle = new cpu_lt{1};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute, cudaDataType_t scale) {
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    *desc = new cpu_lt_desc{CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, NULL, NULL, 0, -1};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
    struct {
        cublasLtMatmulDescAttributes_t attribute;
        void* field;
        size_t bytes;
    } table[] = {
        {CUBLASLT_MATMUL_DESC_TRANSA, &d->ta, sizeof d->ta},
        {CUBLASLT_MATMUL_DESC_TRANSB, &d->tb, sizeof d->tb},
        {CUBLASLT_MATMUL_DESC_EPILOGUE, &d->epilogue, sizeof d->epilogue},
        {CUBLASLT_MATMUL_DESC_BIAS_POINTER, &d->bias, sizeof d->bias},
        {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &d->aux, sizeof d->aux},
        {CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &d->aux_ld, sizeof d->aux_ld},
        {CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &d->bias_type, sizeof d->bias_type},
    };
    for (auto& row : table)
        if (row.attribute == attribute) {
            if (bytes != row.bytes) return CUBLAS_STATUS_INVALID_VALUE;
            memcpy(row.field, value, bytes);
            return CUBLAS_STATUS_SUCCESS;
        }
    return CUBLAS_STATUS_NOT_SUPPORTED;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType_t type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
    if (!rows || !cols || ld < (int64_t)rows) return CUBLAS_STATUS_INVALID_VALUE;
    *layout = new cpu_lt_layout{type, (int64_t)rows, (int64_t)cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* p) {
    *p = new cpu_lt_preference{0};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES && bytes == sizeof p->workspace)
        memcpy(&p->workspace, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

// What both the heuristic and the product check: shapes that fit, types that exist together, an auxiliary matrix where
// the epilogue has one.
static cublasStatus_t check(const cpu_lt_desc* m, const cpu_lt_layout* a, const cpu_lt_layout* b,
                            const cpu_lt_layout* c, const cpu_lt_layout* d) {
    int64_t M = m->ta == CUBLAS_OP_N ? a->rows : a->cols, K = m->ta == CUBLAS_OP_N ? a->cols : a->rows;
    int64_t Kb = m->tb == CUBLAS_OP_N ? b->rows : b->cols, N = m->tb == CUBLAS_OP_N ? b->cols : b->rows;
    if (K != Kb || d->rows != M || d->cols != N || c->rows != M || c->cols != N) return CUBLAS_STATUS_INVALID_VALUE;
    if (a->type != b->type || c->type != d->type || (a->type == CUDA_R_32F && d->type != CUDA_R_32F))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (has_aux(m->epilogue) && (m->aux_ld < M || m->aux_ld % 8)) return CUBLAS_STATUS_INVALID_VALUE;
    if (m->epilogue != CUBLASLT_EPILOGUE_DEFAULT && !has_bias(m->epilogue) && !has_gelu(m->epilogue))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t, int wanted,
                                              cublasLtMatmulHeuristicResult_t* results, int* found) {
    *found = 0;
    if (!handle || wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
    cublasStatus_t status = check(desc, a, b, c, d);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    memset(results, 0, sizeof *results);
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

// ---------------------------------------------------------------------------------------------------
// the product

struct Product {
    cpu_lt_desc m;
    cpu_lt_layout A, B, C, D;
    float alpha, beta;
    const void *a, *b, *c;
    void* d;
    int parts;
    std::vector<float> wide_a;  // op(A) is shared by all parts: widened once
};

static void widen(float* to, const __nv_bfloat16* from, int64_t n) {
    for (int64_t i = 0; i < n; i++) to[i] = __bfloat162float(from[i]);
}

static void gemm(const Product* p, int64_t M, int64_t N, int64_t K, const float* a, int64_t lda, const float* b,
                 int64_t ldb, float beta, float* d, int64_t ldd) {
#if PLAIN_GEMM
    bool ta = p->m.ta == CUBLAS_OP_T, tb = p->m.tb == CUBLAS_OP_T;
    for (int64_t j = 0; j < N; j++)
        for (int64_t i = 0; i < M; i++) {
            float sum = 0.0f;
            for (int64_t k = 0; k < K; k++)
                sum += a[ta ? k + i * lda : i + k * lda] * b[tb ? j + k * ldb : k + j * ldb];
            d[i + j * ldd] = p->alpha * sum + (beta == 0.0f ? 0.0f : beta * d[i + j * ldd]);
        }
#else
    cblas_sgemm(CblasColMajor, p->m.ta == CUBLAS_OP_T ? CblasTrans : CblasNoTrans,
                p->m.tb == CUBLAS_OP_T ? CblasTrans : CblasNoTrans, M, N, K, p->alpha, a, lda, b, ldb, beta, d, ldd);
#endif
}

static inline float gelu(float x) { return x / (1.0f + cpu_expf(-1.5957691216057308f * (x + 0.044715f * x * x * x))); }
static inline float dgelu(float x) {
    float s = 1.0f / (1.0f + cpu_expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
    return s + x * s * (1.0f - s) * 1.5957691216057308f * (1.0f + 0.134145f * x * x);
}
static float read(const void* p, int type, int64_t i) {
    return type == CUDA_R_16BF ? __bfloat162float(((const __nv_bfloat16*)p)[i]) : ((const float*)p)[i];
}

// One column of D from the product in x (M).
static void epilogue(const Product* p, float* x, int64_t j) {
    int64_t M = p->D.rows;
    const cpu_lt_desc* m = &p->m;
    if (has_bias(m->epilogue)) {
        int type = m->bias_type < 0 ? p->D.type : m->bias_type;
        for (int64_t i = 0; i < M; i++) x[i] += read(m->bias, type, i);
    }
    if (!has_gelu(m->epilogue)) return;
    bool narrow = p->D.type == CUDA_R_16BF;
    __nv_bfloat16* aux16 = (__nv_bfloat16*)m->aux + j * m->aux_ld;
    float* aux32 = (float*)m->aux + j * m->aux_ld;
    if (m->epilogue == CUBLASLT_EPILOGUE_DGELU) {
        if (narrow)
            for (int64_t i = 0; i < M; i++) x[i] *= dgelu(__bfloat162float(aux16[i]));
        else
            for (int64_t i = 0; i < M; i++) x[i] *= dgelu(aux32[i]);
        return;
    }
    if (has_aux(m->epilogue)) {
        if (narrow)
            for (int64_t i = 0; i < M; i++) aux16[i] = __float2bfloat16_rn(x[i]);
        else
            for (int64_t i = 0; i < M; i++) aux32[i] = x[i];
    }
    for (int64_t i = 0; i < M; i++) x[i] = gelu(x[i]);
}

static void run_part(int part, void* context) {
    Product* p = (Product*)context;
    int64_t M = p->D.rows, N = p->D.cols, K = p->m.ta == CUBLAS_OP_N ? p->A.cols : p->A.rows;
    int64_t from = N * part / p->parts, to = N * (part + 1) / p->parts, n = to - from;
    if (n <= 0) return;
    bool tb = p->m.tb == CUBLAS_OP_T, in16 = p->A.type == CUDA_R_16BF, out16 = p->D.type == CUDA_R_16BF;
    const float *a = (const float*)p->a, *b;
    int64_t lda = p->A.ld, ldb = p->B.ld;
    std::vector<float> wide_b, wide_d;
    if (in16) {
        a = p->wide_a.data();
        lda = p->A.rows;
        const __nv_bfloat16* b16 = (const __nv_bfloat16*)p->b;
        ldb = tb ? n : K;
        wide_b.resize((size_t)n * K);
        if (tb)
            for (int64_t k = 0; k < K; k++) widen(&wide_b[k * n], b16 + from + k * p->B.ld, n);
        else
            for (int64_t j = 0; j < n; j++) widen(&wide_b[j * K], b16 + (from + j) * p->B.ld, K);
        b = wide_b.data();
    } else b = (const float*)p->b + (tb ? from : from * p->B.ld);
    float* d = (float*)p->d + from * p->D.ld;
    int64_t ldd = p->D.ld;
    if (out16) {
        wide_d.assign((size_t)M * n, 0.0f);
        d = wide_d.data();
        ldd = M;
    }
    if (p->beta != 0.0f && (out16 || p->c != p->d))
        for (int64_t j = 0; j < n; j++)
            for (int64_t i = 0; i < M; i++) d[i + j * ldd] = read(p->c, p->C.type, i + (from + j) * p->C.ld);
    gemm(p, M, n, K, a, lda, b, ldb, p->beta, d, ldd);
    for (int64_t j = 0; j < n; j++) {
        if (p->m.epilogue != CUBLASLT_EPILOGUE_DEFAULT) epilogue(p, d + j * ldd, from + j);
        if (out16) {
            __nv_bfloat16* to16 = (__nv_bfloat16*)p->d + (from + j) * p->D.ld;
            for (int64_t i = 0; i < M; i++) to16[i] = __float2bfloat16_rn(d[i + j * ldd]);
        }
    }
}
static void run_product(void* context) {
    Product* p = (Product*)context;
    if (p->A.type == CUDA_R_16BF) {
        p->wide_a.resize((size_t)p->A.rows * p->A.cols);
        for (int64_t j = 0; j < p->A.cols; j++)
            widen(&p->wide_a[j * p->A.rows], (const __nv_bfloat16*)p->a + j * p->A.ld, p->A.rows);
    }
    double work = 2.0 * p->D.rows * p->D.cols * (p->m.ta == CUBLAS_OP_N ? p->A.cols : p->A.rows);
    p->parts = work < 1e6 ? 1 : cpu_threads();
    cpu_parallel(p->parts, run_part, p);
}
static void free_product(void* context) { delete (Product*)context; }

static void need(bool good, const char* what, const void* p) {
    if (!good) cpu_fail("cublasLtMatmul: %s (%p)", what, p);
}
static size_t extent(const cpu_lt_layout* l) { return (size_t)((l->cols - 1) * l->ld + l->rows) * size_of(l->type); }

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t m, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t A, const void* b, cublasLtMatrixLayout_t B, const void* beta,
                              const void* c, cublasLtMatrixLayout_t C, void* d, cublasLtMatrixLayout_t D,
                              const cublasLtMatmulAlgo_t*, void* workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    cublasStatus_t status = check(m, A, B, C, D);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    need(cpu_is_device(a, extent(A)), "A is not in device memory", a);
    need(cpu_is_device(b, extent(B)), "B is not in device memory", b);
    need(cpu_is_device(d, extent(D)), "D is not in device memory", d);
    need(*(const float*)beta == 0.0f || cpu_is_device(c, extent(C)), "C is not in device memory", c);
    need((uintptr_t)a % 16 == 0 && (uintptr_t)b % 16 == 0 && (uintptr_t)d % 16 == 0, "operands are not 16-byte aligned",
         a);
    if (has_bias(m->epilogue))
        need(cpu_is_device(m->bias, D->rows * size_of(m->bias_type < 0 ? D->type : m->bias_type)),
             "the bias is not in device memory", m->bias);
    if (has_aux(m->epilogue)) {
        need(cpu_is_device(m->aux, ((D->cols - 1) * m->aux_ld + D->rows) * size_of(D->type)),
             "the auxiliary matrix is not in device memory", m->aux);
        need((uintptr_t)m->aux % 16 == 0, "the auxiliary matrix is not 16-byte aligned", m->aux);
    }
    need(!workspace_bytes || cpu_is_device(workspace, workspace_bytes), "the workspace is not in device memory",
         workspace);
    Product* p = new Product{*m, *A, *B, *C, *D, *(const float*)alpha, *(const float*)beta, a, b, c, d, 1, {}};
    cpu_enqueue(stream, run_product, free_product, p, "cublasLtMatmul");
    return CUBLAS_STATUS_SUCCESS;
}

static const struct {
    cublasStatus_t status;
    const char* text;
} statuses[] = {
    {CUBLAS_STATUS_SUCCESS, "success"},
    {CUBLAS_STATUS_NOT_INITIALIZED, "not initialized"},
    {CUBLAS_STATUS_ALLOC_FAILED, "allocation failed"},
    {CUBLAS_STATUS_INVALID_VALUE, "invalid value"},
    {CUBLAS_STATUS_EXECUTION_FAILED, "execution failed"},
    {CUBLAS_STATUS_INTERNAL_ERROR, "internal error"},
    {CUBLAS_STATUS_NOT_SUPPORTED, "not supported"},
};
const char* cublasLtGetStatusString(cublasStatus_t status) {
    for (auto& row : statuses)
        if (row.status == status) return row.text;
    return "unknown status";
}
const char* cublasGetStatusString(cublasStatus_t status) { return cublasLtGetStatusString(status); }
