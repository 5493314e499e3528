/*
e4m3: four bits of exponent, three of mantissa, ±448 at most, no infinity. A row (of activations) or a block of rows (of
a weight) is multiplied by a power of two before it is rounded, so that its largest absolute value is in (224, 448].
Scaling by a power of two rounds nothing: what is lost is what three bits of mantissa lose.
*/
#ifndef SEAL_E4M3_H
#define SEAL_E4M3_H

#include <cuda_fp8.h>
#include "cuda_common.h"

#define FP8_MOST_EXPONENT 64  // a row that would need a larger power is noise; its reciprocal must not overflow either

// What a row with this largest absolute value is multiplied by, and in *inverse what its e4m3 values are multiplied by
// in turn. A row that is not finite has the inverse NaN: e4m3 would hide an infinity as 448.
static inline __host__ __device__ float fp8_scale(float most, float* inverse) {
    union {
        float f;
        uint32_t u;
    } bits = {most}, up, down;
    const uint32_t mantissa = bits.u & 0x7fffffu;
    // 448 = 1.75 · 2^8
    int exponent = (mantissa > 0x600000u ? 7 : 8) - ((int)(bits.u >> 23 & 0xffu) - 127);
    if (exponent > FP8_MOST_EXPONENT) exponent = FP8_MOST_EXPONENT;
    if (most == 0.0f) exponent = 0;
    up.u = (uint32_t)(127 + exponent) << 23;
    down.u = (uint32_t)(127 - exponent) << 23;
    *inverse = bits.u >= 0x7f800000u ? most - most : down.f;
    return bits.u >= 0x7f800000u ? 1.0f : up.f;
}

// x · scale in e4m3, the first number in the lowest byte
static inline __device__ void store8_e4m3(uint8_t* p, const float8& x, float scale) {
    uint32_t words[2];
    UNROLL for (int w = 0; w < 2; w++) {
        const float2 low = make_float2(x.v[4 * w] * scale, x.v[4 * w + 1] * scale),
                     high = make_float2(x.v[4 * w + 2] * scale, x.v[4 * w + 3] * scale);
        words[w] = (uint32_t)__nv_cvt_float2_to_fp8x2(high, __NV_SATFINITE, __NV_E4M3) << 16 |
                   __nv_cvt_float2_to_fp8x2(low, __NV_SATFINITE, __NV_E4M3);
    }
    *reinterpret_cast<uint2*>(p) = make_uint2(words[0], words[1]);
}

#endif
