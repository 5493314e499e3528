/*
GELU of one number in both of its forms, with its slope. Private to gelu.cu and glu.cu.

tanh (torch.nn.functional.gelu(approximate="tanh"): GPT-2, Gemma): x / (1 + exp(−2u)) with u = √(2/π) (x + 0.044715 x³),
which is x ½ (1 + tanh u) with one exponential and one division, and no cancellation for negative x.

erf (torch.nn.functional.gelu: GPT-NeoX): x Φ(x), the normal distribution by 1 − Φ(x) = exp(−x²/2) t P(t) for x ≥ 0,
t = 1 / (1 + 0.35 x): again one exponential and one division, and backward needs that exponential as the density. P is
from dev/reference/fit_normal_tail.py, relative error 3.2e-8.
*/
#ifndef SEAL_GELU_H
#define SEAL_GELU_H

#include "cuda_common.h"

#define TWO_ROOT_2_OVER_PI 1.5957691216057308f
#define CUBIC 0.044715f
#define TAIL_SCALE 0.35f
#define ONE_OVER_ROOT_2PI 0.3989422804014327f
// Beyond it the factor of x is exactly 0 or 1 in fp32 in both forms, and x³ cannot overflow into ∞·0.
#define SATURATED 15.0f

typedef enum { GELU_TANH, GELU_ERF } GeluForm;

static inline __device__ float clamped(float x) {  // comparisons, so that a NaN stays one
    x = x < -SATURATED ? -SATURATED : x;
    return x > SATURATED ? SATURATED : x;
}
static inline __device__ float sigmoid_2u(float x) {
    return __fdividef(1.0f, 1.0f + expf(-TWO_ROOT_2_OVER_PI * (x + CUBIC * x * x * x)));
}
// Φ(x), and exp(−x²/2) for the density
static inline __device__ float normal(float x, float* exponential) {
    float t = __fdividef(1.0f, 1.0f + TAIL_SCALE * fabsf(x)), e = expf(-0.5f * x * x);
    float P = -0.029163826f;
    P = P * t + 0.144060331f;
    P = P * t - 0.255900923f;
    P = P * t + 0.159391883f;
    P = P * t - 0.0232631631f;
    P = P * t + 0.105574535f;
    P = P * t + 0.119815561f;
    P = P * t + 0.139864328f;
    P = P * t + 0.139621259f;
    float tail = e * t * P;
    *exponential = e;
    return x < 0.0f ? tail : 1.0f - tail;
}
// gelu(x) / x
template <GeluForm FORM> static inline __device__ float gelu_factor(float x) {
    float unused;
    return FORM == GELU_TANH ? sigmoid_2u(clamped(x)) : normal(clamped(x), &unused);
}
template <GeluForm FORM> static inline __device__ float gelu_slope(float x) {
    float y = clamped(x);
    if (FORM == GELU_TANH) {
        float s = sigmoid_2u(y);
        return s + y * s * (1.0f - s) * TWO_ROOT_2_OVER_PI * (1.0f + 3.0f * CUBIC * y * y);
    }
    float e, phi = normal(y, &e);
    return phi + y * e * ONE_OVER_ROOT_2PI;
}

// gelu(x). The factor saturates, and so must x below.
template <GeluForm FORM> static inline __device__ float gelu(float x) {
    return (x < -SATURATED ? -SATURATED : x) * gelu_factor<FORM>(x);
}

#endif
