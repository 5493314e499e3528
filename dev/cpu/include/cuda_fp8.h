/* fp8 on the CPU: e4m3 as far as the project uses it. Follows CUDA's cuda_fp8.h: round to nearest even, saturating to
 * ±448 (which infinities become as well), a NaN is 0x7f. */
#ifndef CPU_CUDA_FP8_H
#define CPU_CUDA_FP8_H

#include <cuda_runtime.h>

typedef unsigned char __nv_fp8_storage_t;
typedef unsigned short __nv_fp8x2_storage_t;
enum __nv_saturation_t { __NV_NOSAT, __NV_SATFINITE };
enum __nv_fp8_interpretation_t { __NV_E4M3, __NV_E5M2 };

// Branch-free, so that loops over it vectorise. Above 2^-6 the bits themselves are rounded, as in a bf16's conversion;
// below, adding 2^14 leaves a multiple of 2^-9 in the low bits of the sum.
static inline __nv_fp8_storage_t __nv_cvt_float_to_fp8(float f, __nv_saturation_t, __nv_fp8_interpretation_t) {
    uint32_t bits, below;
    memcpy(&bits, &f, sizeof bits);
    const uint32_t sign = bits >> 24 & 0x80u;
    bits &= 0x7fffffffu;
    uint32_t rounded = (bits + 0x7ffffu + (bits >> 20 & 1u) - (120u << 23)) >> 20;  // the exponent's bias is 7, not 127
    float small;
    memcpy(&small, &bits, sizeof small);
    small += 0x1p14f;
    memcpy(&below, &small, sizeof below);
    rounded = bits < 121u << 23 ? below & 0xffu : rounded;
    rounded = bits >= 0x43e80000u ? 0x7eu : rounded;  // 464 is half-way from 448 to what there is no number for
    return (__nv_fp8_storage_t)(bits > 0x7f800000u ? 0x7fu : sign | rounded);
}
static inline __nv_fp8x2_storage_t __nv_cvt_float2_to_fp8x2(float2 x, __nv_saturation_t saturation,
                                                            __nv_fp8_interpretation_t kind) {
    return (__nv_fp8x2_storage_t)(__nv_cvt_float_to_fp8(x.y, saturation, kind) << 8 |
                                  __nv_cvt_float_to_fp8(x.x, saturation, kind));
}

// Not of CUDA's: the number that a byte means.
static inline float cpu_e4m3_to_float(__nv_fp8_storage_t byte) {
    const uint32_t exponent = byte >> 3 & 15u, mantissa = byte & 7u,
                   bits = (uint32_t)(byte & 0x80u) << 24 | (exponent + 120u) << 23 | mantissa << 20;
    float f;
    memcpy(&f, &bits, sizeof f);
    if (!exponent) f = (byte & 0x80u ? -0x1p-9f : 0x1p-9f) * (float)mantissa;
    return (byte & 0x7fu) == 0x7fu ? __builtin_nanf("") : f;
}

#endif
