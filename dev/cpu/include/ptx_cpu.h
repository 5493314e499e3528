/* The CPU's half of seal_kernels/ptx.h: tensor-core fragments, ldmatrix and cp.async as operations of a warp of fibers.
 */
#ifndef CPU_PTX_H
#define CPU_PTX_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>

// cp.async lands late: the target is NaN until the wait that covers its group.
void cp_async_16(void* shared, const void* global, bool valid);
void cp_async_4(void* shared, const void* global, bool valid);
static inline void cp_async_16(void* shared, const void* global) { cp_async_16(shared, global, true); }
void cpu_cp_async(void* shared, const void* global, int bytes, int read);  // zeros from `read` on
void cp_async_commit(void);
void cpu_async_wait(int groups_left);
template <int N> static inline void cp_async_wait(void) { cpu_async_wait(N); }

static inline float cpu_low(uint32_t pair) { return __uint_as_float(pair << 16); }
static inline float cpu_high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// ---------------------------------------------------------------------------------------------------
// fine: one PTX instruction each

struct cpu_ldmatrix {
    const __nv_bfloat16* row;
    uint32_t* to;
    int n;
    bool transposed;
    const char* file;
    int line;
};
void cpu_ldmatrix_work(void** lanes, uint32_t mask, void* context);
static inline void cpu_ldmatrix_call(uint32_t* to, const void* row, int n, bool transposed, const char* file,
                                     int line) {
    cpu_check_aligned(row, 16, file, line);
    cpu_ldmatrix l = {(const __nv_bfloat16*)row, to, n, transposed, file, line};
    cpu_collect(CPU_LDMATRIX, 0xffffffffu, &l, cpu_ldmatrix_work, NULL, file, line);
}
static inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, CPU_SITE) {
    cpu_ldmatrix_call(r, row, 4, false, file, line);
}
static inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, CPU_SITE) {
    cpu_ldmatrix_call(r, row, 4, true, file, line);
}
static inline void ldmatrix_x2(uint32_t (&r)[2], const void* row, CPU_SITE) {
    cpu_ldmatrix_call(r, row, 2, false, file, line);
}
static inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row, CPU_SITE) {
    cpu_ldmatrix_call(r, row, 2, true, file, line);
}

struct cpu_mma {
    float* d;
    const uint32_t *a, *b;
};
void cpu_mma_work(void** lanes, uint32_t mask, void* context);
static inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], CPU_SITE) {
    cpu_mma m = {d, a, b};
    cpu_collect(CPU_MMA, 0xffffffffu, &m, cpu_mma_work, NULL, file, line);
}

static inline float exp2_approx(float x) { return exp2f_fast(x); }

#ifndef CPU_DEVICE_HALVES
// quad_max, quad_sum: the four lanes that share a row of accumulators, N rows in one operation
template <int N, bool SUM> static void cpu_quad_work(void** lanes, uint32_t, void*) {
    for (int l = 0; l < 32; l += 4)
        for (int i = 0; i < N; i++) {
            float x[4];
            for (int e = 0; e < 4; e++) x[e] = ((const float*)lanes[l + e])[i];
            float all = SUM ? (x[0] + x[1]) + (x[2] + x[3]) : fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]));
            for (int e = 0; e < 4; e++) ((float*)lanes[l + e])[i] = all;
        }
}
template <int N> static inline void quad_max(float (&x)[N], CPU_SITE) {
    cpu_collect(CPU_WARP_MAX, 0xffffffffu, x, cpu_quad_work<N, false>, NULL, file, line);
}
template <int N> static inline void quad_sum(float (&x)[N], CPU_SITE) {
    cpu_collect(CPU_WARP_SUM, 0xffffffffu, x, cpu_quad_work<N, true>, NULL, file, line);
}
#endif

// ---------------------------------------------------------------------------------------------------
// coarse: a whole tile in one operation of the warp (ptx.h says what each computes)

#if !defined(CPU_FINE_MMA) && !defined(CPU_DEVICE_HALVES)
struct cpu_tile {
    uint32_t (*a)[4];
    const __nv_bfloat16* shared;
    int ld;
};
template <int KT> static void cpu_load_a_work(void** lanes, uint32_t, void*) {
    const cpu_tile* first = (const cpu_tile*)lanes[0];
    const __nv_bfloat16* p = first->shared;
    int ld = first->ld;
    for (int l = 0; l < 32; l++) {
        uint32_t(*a)[4] = ((cpu_tile*)lanes[l])->a;
        int row = l / 4, col = l % 4 * 2;
        for (int k = 0; k < KT; k++) {
            memcpy(&a[k][0], p + row * ld + 16 * k + col, 4);
            memcpy(&a[k][1], p + (row + 8) * ld + 16 * k + col, 4);
            memcpy(&a[k][2], p + row * ld + 16 * k + col + 8, 4);
            memcpy(&a[k][3], p + (row + 8) * ld + 16 * k + col + 8, 4);
        }
    }
}
template <int KT>
static inline void load_a_fragments(uint32_t (&a)[KT][4], const __nv_bfloat16* shared, int lda, CPU_SITE) {
    cpu_check_aligned(shared, 16, file, line);
    cpu_tile t = {a, shared, lda};
    cpu_collect(CPU_LDMATRIX, 0xffffffffu, &t, cpu_load_a_work<KT>, NULL, file, line);
}

struct cpu_product {
    float (*c)[4];
    const uint32_t (*a)[4];
    const __nv_bfloat16* b;
    int ldb;
};
#ifdef __AVX512F__
#define CPU_LANES 16
#else
#define CPU_LANES 8
#endif
typedef float cpu_floats __attribute__((vector_size(4 * CPU_LANES), may_alias));
// The 16 rows of a column of C are one vector or two, which stay in registers while k runs, however b is stored in
// shared memory.
template <int NT, int KT, bool NK> static void cpu_product_work(void** lanes, uint32_t, void*) {
    const int N = 8 * NT, K = 16 * KT, COLUMNS = 8;
    alignas(64) float A[16 * KT][16], C[8 * NT][16];  // both transposed
    // At head size 256 as much as a fiber's whole stack, so it is the OS thread's: nothing waits in here. To
    // ThreadSanitizer fibers are threads, with larger stacks.
#ifdef __SANITIZE_THREAD__
    alignas(64) float B[8 * NT * 16 * KT];  // as b: (N, K) or (K, N)
#else
    alignas(64) static __thread float B[8 * NT * 16 * KT];
#endif
    const cpu_product* first = (const cpu_product*)lanes[0];
    const int rows = NK ? N : K, columns = NK ? K : N;
    for (int r = 0; r < rows; r++)
        for (int x = 0; x < columns; x++) B[r * columns + x] = __bfloat162float(first->b[r * first->ldb + x]);
    for (int l = 0; l < 32; l++) {
        const cpu_product* p = (const cpu_product*)lanes[l];
        int row = l / 4, col = l % 4 * 2;
        for (int k = 0; k < KT; k++)
            for (int r = 0; r < 4; r++) {
                A[16 * k + r / 2 * 8 + col][row + r % 2 * 8] = cpu_low(p->a[k][r]);
                A[16 * k + r / 2 * 8 + col + 1][row + r % 2 * 8] = cpu_high(p->a[k][r]);
            }
        for (int t = 0; t < NT; t++)
            for (int e = 0; e < 4; e++) C[8 * t + col + e % 2][row + e / 2 * 8] = p->c[t][e];
    }
    for (int n = 0; n < N; n += COLUMNS)
        for (int m = 0; m < 16; m += CPU_LANES) {
            cpu_floats c[COLUMNS];
            for (int j = 0; j < COLUMNS; j++) c[j] = *(const cpu_floats*)&C[n + j][m];
            for (int k = 0; k < K; k++) {
                cpu_floats a = *(const cpu_floats*)&A[k][m];
                for (int j = 0; j < COLUMNS; j++) c[j] += a * (NK ? B[(n + j) * K + k] : B[k * N + n + j]);
            }
            for (int j = 0; j < COLUMNS; j++) *(cpu_floats*)&C[n + j][m] = c[j];
        }
    for (int l = 0; l < 32; l++) {
        const cpu_product* p = (const cpu_product*)lanes[l];
        int row = l / 4, col = l % 4 * 2;
        for (int t = 0; t < NT; t++)
            for (int e = 0; e < 4; e++) p->c[t][e] = C[8 * t + col + e % 2][row + e / 2 * 8];
    }
}
template <int NT, int KT>
static inline void mma_tile_nk(float (&c)[NT][4], const uint32_t (&a)[KT][4], const __nv_bfloat16* b, int ldb,
                               CPU_SITE) {
    cpu_check_aligned(b, 16, file, line);
    cpu_product p = {c, a, b, ldb};
    cpu_collect(CPU_MMA, 0xffffffffu, &p, cpu_product_work<NT, KT, true>, NULL, file, line);
}
template <int NT, int KT>
static inline void mma_tile_kn(float (&c)[NT][4], const uint32_t (&a)[KT][4], const __nv_bfloat16* b, int ldb,
                               CPU_SITE) {
    cpu_check_aligned(b, 16, file, line);
    cpu_product p = {c, a, b, ldb};
    cpu_collect(CPU_MMA, 0xffffffffu, &p, cpu_product_work<NT, KT, false>, NULL, file, line);
}
template <int MT, int NT, int KT>
static inline void mma_tile_nk(float (&c)[MT][NT][4], const uint32_t (&a)[MT][KT][4], const __nv_bfloat16* b, int ldb,
                               CPU_SITE) {
    for (int m = 0; m < MT; m++) mma_tile_nk(c[m], a[m], b, ldb, file, line);
}
template <int MT, int NT, int KT>
static inline void mma_tile_kn(float (&c)[MT][NT][4], const uint32_t (&a)[MT][KT][4], const __nv_bfloat16* b, int ldb,
                               CPU_SITE) {
    for (int m = 0; m < MT; m++) mma_tile_kn(c[m], a[m], b, ldb, file, line);
}
#endif

#endif
