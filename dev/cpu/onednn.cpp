/*
GEMMs of the CPU build by oneDNN, where the build found it (-DCPU_ONEDNN) and the CPU has what it is good at: AVX-512
for fp32, AVX512_BF16 or AMX for bf16. Elsewhere its fp32 is not faster than OpenBLAS's and its bf16 far slower than
fp32 on widened operands, so cublas.cpp keeps to those. CPU_GEMM=onednn|openblas overrules the choice.

oneDNN's own threads stay out of it: the pool deals the parts of a product, and each part runs on the pool's thread
alone. So a bf16 product is kept once per thread, by shape: making one costs more than a small product does.
*/
#include <string.h>
#include "cpu_internal.h"

struct Choice {
    bool fp32, bf16;
};
static const Choice& choice(void);

#ifdef CPU_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#include <signal.h>
#include <list>
#include <vector>

#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP
extern "C" void omp_set_num_threads(int n);
#else
static void omp_set_num_threads(int) {}
#endif

// Versions 2 and 3 differ in who owns a description of a matrix, and in the number of steps to a product.
#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t MatrixDesc;
static dnnl_status_t describe(MatrixDesc* m, dnnl_dims_t dims, dnnl_data_type_t type, dnnl_dims_t strides) {
    return dnnl_memory_desc_create_with_strides(m, 2, dims, type, strides);
}
static void forget(MatrixDesc* m) { dnnl_memory_desc_destroy(*m); }
static dnnl_memory_desc_t passed(const MatrixDesc* m) { return *m; }
static dnnl_status_t append_sum(dnnl_post_ops_t ops) {
    return dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_data_type_undef);
}
static dnnl_status_t plan(dnnl_primitive_desc_t* pd, dnnl_engine_t engine, const MatrixDesc m[4],
                          dnnl_primitive_attr_t attr) {
    return dnnl_matmul_primitive_desc_create(pd, engine, m[0], m[1], m[2], m[3], attr);
}
static size_t scratch_bytes(dnnl_primitive_desc_t pd) {
    return dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0));
}
#else
typedef dnnl_memory_desc_t MatrixDesc;  // a struct
static dnnl_status_t describe(MatrixDesc* m, dnnl_dims_t dims, dnnl_data_type_t type, dnnl_dims_t strides) {
    return dnnl_memory_desc_init_by_strides(m, 2, dims, type, strides);
}
static void forget(MatrixDesc*) {}
static const dnnl_memory_desc_t* passed(const MatrixDesc* m) { return m; }
static dnnl_status_t append_sum(dnnl_post_ops_t ops) { return dnnl_post_ops_append_sum(ops, 1.0f); }
static dnnl_status_t plan(dnnl_primitive_desc_t* pd, dnnl_engine_t engine, const MatrixDesc m[4],
                          dnnl_primitive_attr_t attr) {
    dnnl_matmul_desc_t desc;
    dnnl_status_t status = dnnl_matmul_desc_init(&desc, &m[0], &m[1], m[2].ndims ? &m[2] : NULL, &m[3]);
    return status == dnnl_success ? dnnl_primitive_desc_create(pd, &desc, attr, engine, NULL) : status;
}
static size_t scratch_bytes(dnnl_primitive_desc_t pd) {
    return dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0));
}
#endif

static dnnl_engine_t engine;

static bool cpu_has(dnnl_cpu_isa_t isa) {  // an instruction set's bits contain those of what it extends
#if defined(__x86_64__)
    return ((unsigned)dnnl_get_effective_cpu_isa() & (unsigned)isa) == (unsigned)isa;
#else
    (void)isa;
    return false;
#endif
}

static Choice by_cpu(void) { return {cpu_has(dnnl_cpu_isa_avx512_core), cpu_has(dnnl_cpu_isa_avx512_core_bf16)}; }
static bool begin(void) { return dnnl_engine_create(&engine, dnnl_cpu, 0) == dnnl_success; }
// One thread of our pool is one thread of a product, and of whatever oneDNN plans on it.
static void keep_to_one_thread(void) {
    static __thread bool done;
    if (!done) omp_set_num_threads(1);
    done = true;
}

// A signal's handler that runs in the midst of oneDNN's sgemm damages the heap (2.6.3, AVX-512; the handler's stack
// does not matter), so signals wait until a product is done. Faults do not wait.
struct SignalsWait {
    sigset_t before;
    SignalsWait() {
        sigset_t all;
        sigfillset(&all);
        for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) sigdelset(&all, fault);
        pthread_sigmask(SIG_BLOCK, &all, &before);
    }
    ~SignalsWait() { pthread_sigmask(SIG_SETMASK, &before, NULL); }
};

bool cpu_onednn_sgemm(const GemmPart& g) {
    if (!choice().fp32) return false;
    keep_to_one_thread();
    SignalsWait until_done;
    // row major: the transposes of all three, the operands in the other order
    dnnl_status_t status = dnnl_sgemm(g.tb ? 'T' : 'N', g.ta ? 'T' : 'N', g.N, g.M, g.K, g.alpha, (const float*)g.b,
                                      g.ldb, (const float*)g.a, g.lda, g.beta, (float*)g.d, g.ldd);
    if (status != dnnl_success)
        cpu_fail("oneDNN's sgemm of %ld × %ld × %ld failed (%d)", (long)g.M, (long)g.N, (long)g.K, status);
    return true;
}

// A product of bf16 operands, by shape. Integers only: keys are compared byte for byte.
struct Key {
    int64_t M, N, K, lda, ldb, ldd;
    int32_t ta, tb, add, out16, bias;  // bias: 0 none, 1 bf16, 2 fp32
    int32_t zero;
};
struct Planned {
    Key key;
    dnnl_primitive_t product;  // NULL: oneDNN has none worth having
    dnnl_memory_t memory[5];   // src, weights, bias, dst, scratchpad
    std::vector<char> scratch;
};
static const size_t planned_most = 256;  // the least recently used goes

static void release(Planned* p) {
    for (dnnl_memory_t m : p->memory)
        if (m) dnnl_memory_destroy(m);
    if (p->product) dnnl_primitive_destroy(p->product);
}

static const int arguments[5] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD};

// dst (N, M) = src (N, K) · weights (K, M) + bias (1, M), + dst where `add`: one rounding, after the sum.
static void make(Planned* p) {
    const Key& k = p->key;
    dnnl_dims_t dims[4] = {{k.N, k.K}, {k.K, k.M}, {1, k.M}, {k.N, k.M}},
                strides[4] = {
                    {k.tb ? 1 : k.ldb, k.tb ? k.ldb : 1}, {k.ta ? 1 : k.lda, k.ta ? k.lda : 1}, {k.M, 1}, {k.ldd, 1}};
    const dnnl_data_type_t types[4] = {dnnl_bf16, dnnl_bf16, k.bias == 2 ? dnnl_f32 : dnnl_bf16,
                                       k.out16 ? dnnl_bf16 : dnnl_f32};
    MatrixDesc m[4] = {};
    bool good = true;
    for (int i = 0; i < 4; i++)
        if (i != 2 || k.bias) good = good && describe(&m[i], dims[i], types[i], strides[i]) == dnnl_success;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    dnnl_primitive_desc_t pd = NULL;
    good = good && dnnl_primitive_attr_create(&attr) == dnnl_success &&
           dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user) == dnnl_success;
    if (k.add)
        good = good && dnnl_post_ops_create(&ops) == dnnl_success && append_sum(ops) == dnnl_success &&
               dnnl_primitive_attr_set_post_ops(attr, ops) == dnnl_success;
    good = good && plan(&pd, engine, m, attr) == dnnl_success;
    const char* how = "";
    good = good && dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &how) == dnnl_success &&
           !strstr(how, "ref");  // its plain loops: fp32 on widened operands is faster
    if (good) {
        p->scratch.resize(scratch_bytes(pd) + 64);
        void* aligned = (void*)(((uintptr_t)p->scratch.data() + 63) / 64 * 64);
        for (int i = 0; i < 4; i++)
            if (i != 2 || k.bias)
                good = good &&
                       dnnl_memory_create(&p->memory[i], passed(&m[i]), engine, DNNL_MEMORY_NONE) == dnnl_success;
        good = good && dnnl_memory_create(&p->memory[4], dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0),
                                          engine, aligned) == dnnl_success;
        good = good && dnnl_primitive_create(&p->product, pd) == dnnl_success;
    }
    if (pd) dnnl_primitive_desc_destroy(pd);
    if (ops) dnnl_post_ops_destroy(ops);
    if (attr) dnnl_primitive_attr_destroy(attr);
    for (int i = 0; i < 4; i++)
        if (i != 2 || k.bias) forget(&m[i]);
    if (!good) {
        release(p);
        p->product = NULL;
        memset(p->memory, 0, sizeof p->memory);
    }
}

bool cpu_onednn_gemm16(const GemmPart& g) {
    if (!choice().bf16 || g.alpha != 1.0f || (g.beta != 0.0f && g.beta != 1.0f)) return false;
    static thread_local std::list<Planned> planned;
    static thread_local dnnl_stream_t stream;
    keep_to_one_thread();
    SignalsWait until_done;
    if (!stream && dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) != dnnl_success) return false;
    Key key = {g.M, g.N, g.K, g.lda, g.ldb, g.ldd, g.ta, g.tb, g.beta != 0.0f, g.out16, !g.bias ? 0 : g.bias16 ? 1 : 2,
               0};
    auto p = planned.begin();
    while (p != planned.end() && memcmp(&p->key, &key, sizeof key)) ++p;
    if (p != planned.end()) planned.splice(planned.begin(), planned, p);
    else {
        if (planned.size() == planned_most) {
            release(&planned.back());
            planned.pop_back();
        }
        planned.push_front({key, NULL, {}, {}});
        make(&planned.front());
    }
    Planned* it = &planned.front();
    if (!it->product) return false;
    void* data[4] = {(void*)g.b, (void*)g.a, (void*)g.bias, g.d};
    dnnl_exec_arg_t args[5];
    int n = 0;
    for (int i = 0; i < 5; i++) {
        if (!it->memory[i]) continue;
        if (i < 4) dnnl_memory_set_data_handle(it->memory[i], data[i]);
        args[n++] = {arguments[i], it->memory[i]};
    }
    dnnl_status_t status = dnnl_primitive_execute(it->product, stream, n, args);
    if (status == dnnl_success) status = dnnl_stream_wait(stream);
    if (status != dnnl_success)
        cpu_fail("oneDNN's bf16 product of %ld × %ld × %ld failed (%d)", (long)g.M, (long)g.N, (long)g.K, status);
    return true;
}

#else

static bool begin(void) { return false; }
static Choice by_cpu(void) { return {false, false}; }
bool cpu_onednn_sgemm(const GemmPart&) { return false; }
bool cpu_onednn_gemm16(const GemmPart&) { return false; }

#endif

static Choice choose(void) {
    const char* text = getenv("CPU_GEMM");
    if (text && !strcmp(text, "openblas")) return {false, false};
    if (text && strcmp(text, "onednn")) {
        fprintf(stderr, "CPU_GEMM is onednn or openblas, not \"%s\"\n", text);
        exit(2);
    }
    if (!begin()) {
        if (!text) return {false, false};
        fprintf(stderr, "CPU_GEMM is onednn, but this program was built without it\n");
        exit(2);
    }
    return text ? Choice{true, true} : by_cpu();
}
static const Choice& choice(void) {
    static const Choice made = choose();
    return made;
}
bool cpu_onednn_bf16(void) { return choice().bf16; }
