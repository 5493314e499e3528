/*
All PTX of the project: tensor-core products, ldmatrix, cp.async. Hot loops use the coarse operations at the end (a
whole tile by one warp); the CPU build emulates those in one step each, and the single instructions too
(dev/cpu/include/ptx_cpu.h).

Fragments of mma.m16n8k16, lane l of a warp, row = l / 4, col = (l % 4) · 2; every 32-bit register of A and B holds two
neighbouring bf16:

  A (16 × 16)   a[0] (row, col), a[1] (row + 8, col), a[2] (row, col + 8), a[3] (row + 8, col + 8); pairs along a row

  B (16 × 8)    b[0] (k = col, n = row), b[1] (k = col + 8, n = row); pairs along k

  C (16 × 8)    c[0], c[1] (row, col), (row, col + 1); c[2], c[3] (row + 8, col), (row + 8, col + 1)
*/
#ifndef SEAL_PTX_H
#define SEAL_PTX_H

#include "cuda_common.h"

#ifndef __CUDACC__
#include <ptx_cpu.h>
#else

// d += a · b, bf16 in, fp32 accumulators.
static __device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// Four (two) 8 × 8 matrices; lane l brings the address of row l % 8 of matrix l / 8. Register i is matrix i: (row,
// col), or transposed.
static __device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
}
static __device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
}
static __device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
}
static __device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"((unsigned)__cvta_generic_to_shared(row))
                 : "memory");
}
// 16 bytes from global to shared memory, in the background; zeros where !valid. Visible to the thread after the wait
// that covers its group.
static __device__ __forceinline__ void cp_async_16(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((unsigned)__cvta_generic_to_shared(shared)),
                 "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}
static __device__ __forceinline__ void cp_async_16(void* shared, const void* global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((unsigned)__cvta_generic_to_shared(shared)),
                 "l"(global)
                 : "memory");
}
// The same for 4 bytes, at any address that holds a float.
static __device__ __forceinline__ void cp_async_4(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"((unsigned)__cvta_generic_to_shared(shared)),
                 "l"(global), "r"(valid ? 4 : 0)
                 : "memory");
}
static __device__ __forceinline__ void cp_async_commit(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> static __device__ __forceinline__ void cp_async_wait(void) {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
// 2^x in one instruction, within 2 ulp; denormals become zero, 2^−∞ is 0.
static __device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif

#if DEVICE_HALVES
// The maximum (sum) over the four lanes l / 4 · 4 … + 3, which share a row of accumulators, for N rows at once. Every
// lane receives the result.
template <int N> static __device__ __forceinline__ void quad_max(float (&x)[N]) {
    UNROLL for (int i = 0; i < N; i++) {
        x[i] = fmaxf(x[i], __shfl_xor_sync(0xffffffffu, x[i], 1));
        x[i] = fmaxf(x[i], __shfl_xor_sync(0xffffffffu, x[i], 2));
    }
}
template <int N> static __device__ __forceinline__ void quad_sum(float (&x)[N]) {
    UNROLL for (int i = 0; i < N; i++) {
        x[i] += __shfl_xor_sync(0xffffffffu, x[i], 1);
        x[i] += __shfl_xor_sync(0xffffffffu, x[i], 2);
    }
}
#endif

// ---------------------------------------------------------------------------------------------------
// coarse operations of one warp. Addresses and lengths are the same in all lanes; rows in shared memory begin on 16
// bytes (ld a multiple of 8).
#if DEVICE_HALVES || defined(CPU_FINE_MMA)

// A (16 × 16·KT, rows of lda elements in shared memory) to fragments.
template <int KT>
static __device__ __forceinline__ void load_a_fragments(uint32_t (&a)[KT][4], const __nv_bfloat16* shared, int lda) {
    int lane = threadIdx.x % 32;
    const __nv_bfloat16* row = shared + (lane % 16) * lda + lane / 16 * 8;
    UNROLL for (int k = 0; k < KT; k++) ldmatrix_x4(a[k], row + 16 * k);
}

// c (16 × 8·NT) += A (16 × 16·KT) · Bᵀ; b holds B as 8·NT rows (n) of 16·KT neighbouring k. S = Q · Kᵀ.
template <int NT, int KT>
static __device__ __forceinline__ void mma_tile_nk(float (&c)[NT][4], const uint32_t (&a)[KT][4],
                                                   const __nv_bfloat16* b, int ldb) {
    int lane = threadIdx.x % 32;
    const __nv_bfloat16* pair = b + (lane % 8 + lane / 16 * 8) * ldb + lane / 8 % 2 * 8;  // two n-tiles at once
    const __nv_bfloat16* single = b + (lane % 8) * ldb + lane / 8 % 2 * 8;
    UNROLL for (int k = 0; k < KT; k++) {
        UNROLL for (int n = 0; n + 1 < NT; n += 2) {
            uint32_t r[4];
            ldmatrix_x4(r, pair + 8 * n * ldb + 16 * k);
            const uint32_t b0[2] = {r[0], r[1]}, b1[2] = {r[2], r[3]};
            mma_m16n8k16(c[n], a[k], b0);
            mma_m16n8k16(c[n + 1], a[k], b1);
        }
        if (NT % 2) {
            uint32_t r[2];
            ldmatrix_x2(r, single + 8 * (NT - 1) * ldb + 16 * k);
            mma_m16n8k16(c[NT - 1], a[k], r);
        }
    }
}

// c (16 × 8·NT) += A (16 × 16·KT) · B; b holds B as 16·KT rows (k) of 8·NT neighbouring n. O = P · V.
template <int NT, int KT>
static __device__ __forceinline__ void mma_tile_kn(float (&c)[NT][4], const uint32_t (&a)[KT][4],
                                                   const __nv_bfloat16* b, int ldb) {
    int lane = threadIdx.x % 32;
    const __nv_bfloat16* pair = b + (lane % 16) * ldb + lane / 16 * 8;
    const __nv_bfloat16* single = b + (lane % 16) * ldb;
    UNROLL for (int k = 0; k < KT; k++) {
        UNROLL for (int n = 0; n + 1 < NT; n += 2) {
            uint32_t r[4];
            ldmatrix_x4_trans(r, pair + 16 * k * ldb + 8 * n);
            const uint32_t b0[2] = {r[0], r[1]}, b1[2] = {r[2], r[3]};
            mma_m16n8k16(c[n], a[k], b0);
            mma_m16n8k16(c[n + 1], a[k], b1);
        }
        if (NT % 2) {
            uint32_t r[2];
            ldmatrix_x2_trans(r, single + 16 * k * ldb + 8 * (NT - 1));
            mma_m16n8k16(c[NT - 1], a[k], r);
        }
    }
}

// The same for MT blocks of 16 rows at once: each fragment of B is loaded once for all of them, which halves the
// traffic of shared memory.
template <int MT, int NT, int KT>
static __device__ __forceinline__ void mma_tile_nk(float (&c)[MT][NT][4], const uint32_t (&a)[MT][KT][4],
                                                   const __nv_bfloat16* b, int ldb) {
    static_assert(NT % 2 == 0, "n-tiles come in pairs here");
    int lane = threadIdx.x % 32;
    const __nv_bfloat16* pair = b + (lane % 8 + lane / 16 * 8) * ldb + lane / 8 % 2 * 8;
    UNROLL for (int k = 0; k < KT; k++) UNROLL for (int n = 0; n < NT; n += 2) {
        uint32_t r[4];
        ldmatrix_x4(r, pair + 8 * n * ldb + 16 * k);
        const uint32_t b0[2] = {r[0], r[1]}, b1[2] = {r[2], r[3]};
        UNROLL for (int m = 0; m < MT; m++) {
            mma_m16n8k16(c[m][n], a[m][k], b0);
            mma_m16n8k16(c[m][n + 1], a[m][k], b1);
        }
    }
}
template <int MT, int NT, int KT>
static __device__ __forceinline__ void mma_tile_kn(float (&c)[MT][NT][4], const uint32_t (&a)[MT][KT][4],
                                                   const __nv_bfloat16* b, int ldb) {
    static_assert(NT % 2 == 0, "n-tiles come in pairs here");
    int lane = threadIdx.x % 32;
    const __nv_bfloat16* pair = b + (lane % 16) * ldb + lane / 16 * 8;
    UNROLL for (int k = 0; k < KT; k++) UNROLL for (int n = 0; n < NT; n += 2) {
        uint32_t r[4];
        ldmatrix_x4_trans(r, pair + 16 * k * ldb + 8 * n);
        const uint32_t b0[2] = {r[0], r[1]}, b1[2] = {r[2], r[3]};
        UNROLL for (int m = 0; m < MT; m++) {
            mma_m16n8k16(c[m][n], a[m][k], b0);
            mma_m16n8k16(c[m][n + 1], a[m][k], b1);
        }
    }
}
#endif

// Accumulators of 16 × 16·KT become the A fragments of the next product, rounded to bf16: the two layouts agree,
// nothing moves between lanes.
static __host__ __device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    __nv_bfloat16 pair[2] = {__float2bfloat16_rn(low), __float2bfloat16_rn(high)};
    uint32_t bits;
    memcpy(&bits, pair, sizeof bits);
    return bits;
}
template <int KT>
static __device__ __forceinline__ void accumulators_to_a(uint32_t (&a)[KT][4], const float (&c)[2 * KT][4]) {
    UNROLL for (int k = 0; k < KT; k++) {
        a[k][0] = pack_bf16(c[2 * k][0], c[2 * k][1]);
        a[k][1] = pack_bf16(c[2 * k][2], c[2 * k][3]);
        a[k][2] = pack_bf16(c[2 * k + 1][0], c[2 * k + 1][1]);
        a[k][3] = pack_bf16(c[2 * k + 1][2], c[2 * k + 1][3]);
    }
}

#endif
