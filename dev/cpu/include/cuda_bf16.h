/* bf16 on the CPU: a struct with float conversions, round to nearest even, NaN kept a NaN. Follows CUDA's cuda_bf16.h
 * as far as the project uses it. */
#ifndef CPU_CUDA_BF16_H
#define CPU_CUDA_BF16_H

#include <stdint.h>
#include <string.h>

struct __nv_bfloat16 {
    uint16_t x;
};

static inline float __bfloat162float(__nv_bfloat16 h) {
    uint32_t bits = (uint32_t)h.x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

// Branch-free, so that loops over it vectorise.
static inline __nv_bfloat16 __float2bfloat16_rn(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t nan = 0x7fffu;
    __nv_bfloat16 h;
    h.x = (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
    return h;
}
static inline __nv_bfloat16 __float2bfloat16(float f) { return __float2bfloat16_rn(f); }

struct __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
static inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) {
    return {__float2bfloat16_rn(a), __float2bfloat16_rn(b)};
}

#endif
