/*
cuBLASLt over OpenBLAS or oneDNN (onednn.cpp says where which). D = epilogue(alpha · op(A) · op(B) + beta · C), column
major. Rows or columns of D are dealt to the pool, one product each: the libraries run single-threaded, so that their
threads do not spin beside ours. bf16 operands are multiplied as they are where oneDNN does so, elsewhere they are
widened, and so are e4m3 operands, with their scales; sums are fp32, and rounded once after the epilogue. Sanitizer
builds multiply with a plain loop: an uninstrumented library would hide a wrong leading dimension.
*/
#include <cblas.h>
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp8.h>
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
    int bias_type;                   // −1: as D
    const float *scale_a, *scale_b;  // device, of e4m3 operands; NULL: 1
    int8_t fast_accumulation;        // sums here are fp32 in any case
};

static size_t size_of(int type) { return type == CUDA_R_8F_E4M3 ? 1 : type == CUDA_R_16BF ? 2 : 4; }
static bool has_bias(cublasLtEpilogue_t e) {
    return e == CUBLASLT_EPILOGUE_BIAS || e == CUBLASLT_EPILOGUE_GELU_BIAS || e == CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
}
static bool has_aux(cublasLtEpilogue_t e) {
    return e == CUBLASLT_EPILOGUE_GELU_AUX || e == CUBLASLT_EPILOGUE_GELU_AUX_BIAS || e == CUBLASLT_EPILOGUE_DGELU;
}
static bool has_gelu(cublasLtEpilogue_t e) {
    return has_aux(e) || e == CUBLASLT_EPILOGUE_GELU || e == CUBLASLT_EPILOGUE_GELU_BIAS;
}

size_t cublasLtGetVersion(void) { return 1; }
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
    openblas_set_num_threads(1);
    if (!PLAIN_GEMM) cpu_onednn_bf16();  // a CPU_GEMM that names no library is refused before there is any work
    *handle = new cpu_lt{1};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute, cudaDataType_t scale) {
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    *desc = new cpu_lt_desc{CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, NULL, NULL, 0, -1, NULL, NULL, 0};
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
        {CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &d->scale_a, sizeof d->scale_a},
        {CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &d->scale_b, sizeof d->scale_b},
        {CUBLASLT_MATMUL_DESC_FAST_ACCUM, &d->fast_accumulation, sizeof d->fast_accumulation},
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
    if (a->type == CUDA_R_8F_E4M3) {  // as sm_89 and sm_90 have it: TN, sides that keep rows at 16 bytes
        if (m->ta != CUBLAS_OP_T || m->tb != CUBLAS_OP_N || has_gelu(m->epilogue) || K % 16 || M % 16 || a->ld % 16 ||
            b->ld % 16)
            return CUBLAS_STATUS_NOT_SUPPORTED;
    } else if (d->type == CUDA_R_8F_E4M3 || m->scale_a || m->scale_b) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (has_aux(m->epilogue) && (m->aux_ld < M || m->aux_ld % 8)) return CUBLAS_STATUS_INVALID_VALUE;
    if (m->epilogue != CUBLASLT_EPILOGUE_DEFAULT && !has_bias(m->epilogue) && !has_gelu(m->epilogue))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}
#define ALGORITHMS 2
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t, int wanted,
                                              cublasLtMatmulHeuristicResult_t* results, int* found) {
    *found = 0;
    if (!handle || wanted < 1) return CUBLAS_STATUS_INVALID_VALUE;
    cublasStatus_t status = check(desc, a, b, c, d);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    // Two that compute the same, so that there is something to choose from.
    for (*found = 0; *found < wanted && *found < ALGORITHMS; ++*found) {
        memset(&results[*found], 0, sizeof *results);
        results[*found].algo.data[0] = (uint64_t)*found;
    }
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algo, cublasLtMatmulHeuristicResult_t* result) {
    if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
    for (int i = 1; i < 8; i++)
        if (algo->data[i]) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (algo->data[0] >= ALGORITHMS) return CUBLAS_STATUS_NOT_SUPPORTED;
    memset(result, 0, sizeof *result);
    result->algo = *algo;
    return check(desc, a, b, c, d);
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
    bool by_rows;                  // parts are rows of D, else columns: its longer side, so that less is packed twice
    const float *wide_a, *wide_b;  // fp32 copies of narrow operands without gaps; NULL: not widened
    std::vector<char> refused;     // by part: bf16 that oneDNN has nothing for
};
// Rows [i, i + m) and columns [j, j + n) of D.
struct Part {
    int64_t i, m, j, n;
};

static inline float gelu(float x) { return x / (1.0f + cpu_expf(-1.5957691216057308f * (x + 0.044715f * x * x * x))); }
static inline float dgelu(float x) {
    float s = 1.0f / (1.0f + cpu_expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
    return s + x * s * (1.0f - s) * 1.5957691216057308f * (1.0f + 0.134145f * x * x);
}
static float read(const void* p, int type, int64_t i) {
    return type == CUDA_R_16BF ? __bfloat162float(((const __nv_bfloat16*)p)[i]) : ((const float*)p)[i];
}
static const void* element(const void* p, int type, int64_t i) { return (const char*)p + i * (int64_t)size_of(type); }

// Column j of D, rows [i0, i0 + n), from the product in x (n).
static void epilogue(const Product* p, float* x, int64_t i0, int64_t n, int64_t j) {
    const cpu_lt_desc* m = &p->m;
    if (has_bias(m->epilogue)) {
        int type = m->bias_type < 0 ? p->D.type : m->bias_type;
        for (int64_t i = 0; i < n; i++) x[i] += read(m->bias, type, i0 + i);
    }
    if (!has_gelu(m->epilogue)) return;
    bool narrow = p->D.type == CUDA_R_16BF;
    __nv_bfloat16* aux16 = (__nv_bfloat16*)m->aux + j * m->aux_ld + i0;
    float* aux32 = (float*)m->aux + j * m->aux_ld + i0;
    if (m->epilogue == CUBLASLT_EPILOGUE_DGELU) {
        if (narrow)
            for (int64_t i = 0; i < n; i++) x[i] *= dgelu(__bfloat162float(aux16[i]));
        else
            for (int64_t i = 0; i < n; i++) x[i] *= dgelu(aux32[i]);
        return;
    }
    if (has_aux(m->epilogue)) {
        if (narrow)
            for (int64_t i = 0; i < n; i++) aux16[i] = __float2bfloat16_rn(x[i]);
        else
            for (int64_t i = 0; i < n; i++) aux32[i] = x[i];
    }
    for (int64_t i = 0; i < n; i++) x[i] = gelu(x[i]);
}

static void sgemm(const GemmPart& g) {
#if PLAIN_GEMM
    const float *a = (const float*)g.a, *b = (const float*)g.b;
    float* d = (float*)g.d;
    for (int64_t j = 0; j < g.N; j++)
        for (int64_t i = 0; i < g.M; i++) {
            float sum = 0.0f;
            for (int64_t k = 0; k < g.K; k++)
                sum += a[g.ta ? k + i * g.lda : i + k * g.lda] * b[g.tb ? j + k * g.ldb : k + j * g.ldb];
            d[i + j * g.ldd] = g.alpha * sum + (g.beta == 0.0f ? 0.0f : g.beta * d[i + j * g.ldd]);
        }
#else
    if (cpu_onednn_sgemm(g)) return;
    cblas_sgemm(CblasColMajor, g.ta ? CblasTrans : CblasNoTrans, g.tb ? CblasTrans : CblasNoTrans, g.M, g.N, g.K,
                g.alpha, (const float*)g.a, g.lda, (const float*)g.b, g.ldb, g.beta, (float*)g.d, g.ldd);
#endif
}

// A buffer that stays: a fresh one of megabytes is page faults at every product.
static float* buffer(std::vector<float>& kept, size_t n) {
    if (kept.size() < n) kept.resize(n);
    return kept.data();
}

static Part part_of(const Product* p, int part) {
    const int64_t M = p->D.rows, N = p->D.cols, all = p->by_rows ? M : N, unit = 32;  // of whole vectors
    int64_t from = all * part / p->parts / unit * unit,
            to = part + 1 == p->parts ? all : all * (part + 1) / p->parts / unit * unit;
    return p->by_rows ? Part{from, to - from, 0, N} : Part{0, M, from, to - from};
}

// The operands of a part, as oneDNN's bf16 product or an fp32 product takes them.
static GemmPart operands(const Product* p, const Part& t) {
    const bool ta = p->m.ta == CUBLAS_OP_T, tb = p->m.tb == CUBLAS_OP_T;
    const bool wide = p->wide_a != NULL;
    const void *a = wide ? p->wide_a : p->a, *b = wide ? p->wide_b : p->b;
    const int64_t lda = wide ? p->A.rows : p->A.ld, ldb = wide ? p->B.rows : p->B.ld;
    const int type = wide ? CUDA_R_32F : p->A.type;
    GemmPart g = {};
    g.ta = ta;
    g.tb = tb;
    g.M = t.m;
    g.N = t.n;
    g.K = ta ? p->A.rows : p->A.cols;
    g.alpha = p->alpha;
    g.a = element(a, type, ta ? t.i * lda : t.i);
    g.lda = lda;
    g.b = element(b, type, tb ? t.j : t.j * ldb);
    g.ldb = ldb;
    g.beta = p->beta;
    return g;
}

static void run_part(int part, void* context) {
    static thread_local std::vector<float> kept;
    Product* p = (Product*)context;
    const Part t = part_of(p, part);
    if (t.m <= 0 || t.n <= 0) return;
    const bool in16 = p->A.type == CUDA_R_16BF && !p->wide_a, out16 = p->D.type == CUDA_R_16BF;
    GemmPart g = operands(p, t);
    g.d = (void*)element(p->d, p->D.type, t.i + t.j * p->D.ld);
    g.ldd = p->D.ld;
    if (in16 && (p->beta == 0.0f || p->c == p->d) && !has_gelu(p->m.epilogue)) {  // all of it in one product
        const int type = p->m.bias_type < 0 ? p->D.type : p->m.bias_type;
        g.bias = has_bias(p->m.epilogue) ? element(p->m.bias, type, t.i) : NULL;
        g.bias16 = type == CUDA_R_16BF;
        g.out16 = out16;
        p->refused[part] = !cpu_onednn_gemm16(g);
        return;
    }
    if (out16) {
        g.d = buffer(kept, (size_t)t.m * t.n);
        g.ldd = t.m;
    }
    float* d = (float*)g.d;
    if (p->beta != 0.0f && (out16 || p->c != p->d))
        for (int64_t j = 0; j < t.n; j++)
            for (int64_t i = 0; i < t.m; i++) d[i + j * g.ldd] = read(p->c, p->C.type, t.i + i + (t.j + j) * p->C.ld);
    if (!in16) sgemm(g);
    else if ((p->refused[part] = !cpu_onednn_gemm16(g))) return;
    for (int64_t j = 0; j < t.n; j++) {
        if (p->m.epilogue != CUBLASLT_EPILOGUE_DEFAULT) epilogue(p, d + j * g.ldd, t.i, t.m, t.j + j);
        if (out16) {
            __nv_bfloat16* to16 = (__nv_bfloat16*)p->d + t.i + (t.j + j) * p->D.ld;
            for (int64_t i = 0; i < t.m; i++) to16[i] = __float2bfloat16_rn(d[i + j * g.ldd]);
        }
    }
}

struct Widening {
    float* to;
    const void* from;
    const cpu_lt_layout* l;
    float scale;
    int parts;
};
static void widen_part(int part, void* context) {
    const Widening* w = (const Widening*)context;
    const int64_t rows = w->l->rows, end = w->l->cols * (part + 1) / w->parts;
    for (int64_t j = w->l->cols * part / w->parts; j < end; j++)
        if (w->l->type == CUDA_R_16BF) {
            const __nv_bfloat16* from = (const __nv_bfloat16*)w->from + j * w->l->ld;
            for (int64_t i = 0; i < rows; i++) w->to[j * rows + i] = __bfloat162float(from[i]);
        } else {
            const __nv_fp8_storage_t* from = (const __nv_fp8_storage_t*)w->from + j * w->l->ld;
            for (int64_t i = 0; i < rows; i++) w->to[j * rows + i] = cpu_e4m3_to_float(from[i]) * w->scale;
        }
}
static const float* widen(std::vector<float>& kept, const void* from, const cpu_lt_layout* l, const float* scale,
                          int parts) {
    Widening w = {buffer(kept, (size_t)l->rows * l->cols), from, l, scale ? *scale : 1.0f, parts};
    cpu_parallel(parts, widen_part, &w);
    return w.to;
}
// The parts that oneDNN has no bf16 product for: in fp32.
static void run_refused(int part, void* context) {
    if (((Product*)context)->refused[part]) run_part(part, context);
}
static void run_product(void* context) {
    static thread_local std::vector<float> kept_a, kept_b;
    Product* p = (Product*)context;
    const bool in16 = p->A.type == CUDA_R_16BF;
    const double work = 2.0 * p->D.rows * p->D.cols * (p->m.ta == CUBLAS_OP_N ? p->A.cols : p->A.rows);
    p->parts = work < 1e6 ? 1 : cpu_threads();
    p->by_rows = p->D.rows > p->D.cols;
    p->refused.assign(p->parts, in16);
    if (in16 && !PLAIN_GEMM && cpu_onednn_bf16()) cpu_parallel(p->parts, run_part, p);
    if (in16) {
        if (!memchr(p->refused.data(), 1, p->refused.size())) return;
        p->wide_a = widen(kept_a, p->a, &p->A, NULL, p->parts);
        p->wide_b = widen(kept_b, p->b, &p->B, NULL, p->parts);
        cpu_parallel(p->parts, run_refused, p);
        return;
    }
    if (p->A.type == CUDA_R_8F_E4M3) {
        p->wide_a = widen(kept_a, p->a, &p->A, p->m.scale_a, p->parts);
        p->wide_b = widen(kept_b, p->b, &p->B, p->m.scale_b, p->parts);
    }
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
    for (const float* scale : {m->scale_a, m->scale_b})
        need(!scale || cpu_is_device(scale, sizeof *scale), "a scale is not in device memory", scale);
    need(!workspace_bytes || cpu_is_device(workspace, workspace_bytes), "the workspace is not in device memory",
         workspace);
    Product* p = new Product{*m, *A,    *B,   *C,   *D, *(const float*)alpha, *(const float*)beta, a, b, c, d,
                             1,  false, NULL, NULL, {}};
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
