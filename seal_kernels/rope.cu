/*
Rotary positions, forward and backward, in place on the query and key heads of the fused QKV rows (apply_rotary_pos_emb
of transformers). Element i of a head's first half and element i of its second are the two coordinates of a point that
turns by an angle of its own ("rotate_half", not neighbouring pairs). Angles, scalings and attention factors are all in
the table: a row of cos_sin is one position's.
*/
#include <assert.h>
#include "kernels.h"

#define HEADS 4  // of one thread: it reads its part of cos_sin, twice the bytes of a head's in bf16, once for so many

// ---------------------------------------------------------------------------------------------------
// kernels. sign is 1 forward, −1 backward: the transpose of a turn is the turn back, and a factor on the table scales
// both alike.

// One thread for VEC elements of each half, of HEADS heads. All its loads come before its first store, which might be
// to the same place for all that the compiler knows.
static __global__ void rope_kernel(floatX* qkv, const int* positions, const float* cos_sin, int T, int n_heads, int HS,
                                   int half, int ld, float sign) {
    unsigned vecs = half / VEC, groups = CEIL_DIV(n_heads, HEADS), i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned vec = i % vecs, group = i / vecs % groups, t = i / vecs / groups;
    if (t >= (unsigned)T) return;
    int first = group * HEADS, n = min(HEADS, n_heads - first);
    floatX* p = qkv + (size_t)t * ld + first * HS + vec * VEC;
    const float* turn = cos_sin + ((size_t)positions[t] * half + vec * VEC) * 2;
    float8 low = load8(turn), high = load8(turn + VEC);  // cos, sin, cos, sin …
    packed8 x[HEADS], y[HEADS];
    UNROLL for (int h = 0; h < HEADS; h++) {
        const floatX* head = p + min(h, n - 1) * HS;  // past the end the last one again, which costs less than a branch
        x[h] = load_packed8(head);
        y[h] = load_packed8(head + half);
    }
    UNROLL for (int h = 0; h < HEADS; h++) {
        if (h >= n) continue;
        float8 a = unpack8(x[h]), b = unpack8(y[h]);
        for (int k = 0; k < VEC; k++) {
            float c = k < VEC / 2 ? low.v[2 * k] : high.v[2 * k - VEC],
                  s = sign * (k < VEC / 2 ? low.v[2 * k + 1] : high.v[2 * k + 1 - VEC]);
            float turned = a.v[k] * c - b.v[k] * s;
            b.v[k] = b.v[k] * c + a.v[k] * s;
            a.v[k] = turned;
        }
        store8(p + h * HS, a);
        store8(p + h * HS + half, b);
    }
}

// The same, an element of each half at a time: halves that are not a multiple of VEC (Pythia-2.8B turns 20 of a head's
// 80 elements).
static __global__ void rope_narrow_kernel(floatX* qkv, const int* positions, const float* cos_sin, int T, int n_heads,
                                          int HS, int half, int ld, float sign) {
    unsigned groups = CEIL_DIV(n_heads, HEADS), i = blockIdx.x * blockDim.x + threadIdx.x, pair = i % half,
             group = i / half % groups, t = i / half / groups;
    if (t >= (unsigned)T) return;
    int first = group * HEADS, n = min(HEADS, n_heads - first);
    floatX* p = qkv + (size_t)t * ld + first * HS + pair;
    const float* turn = cos_sin + ((size_t)positions[t] * half + pair) * 2;
    float c = turn[0], s = sign * turn[1];
    floatX x[HEADS] = {}, y[HEADS] = {};
    UNROLL for (int h = 0; h < HEADS; h++) {
        if (h >= n) continue;
        x[h] = p[h * HS];
        y[h] = p[h * HS + half];
    }
    UNROLL for (int h = 0; h < HEADS; h++) {
        if (h >= n) continue;
        float a = to_float(x[h]), b = to_float(y[h]);
        p[h * HS] = from_float<floatX>(a * c - b * s);
        p[h * HS + half] = from_float<floatX>(b * c + a * s);
    }
}

// ---------------------------------------------------------------------------------------------------
// launchers

#define BLOCK 256

// n_heads: queries, then keys. sign: 1 turns, −1 turns back.
static void rope(floatX* qkv, const int* positions, const float* cos_sin, int T, int n_heads, int HS, int rotary,
                 int ld, float sign, cudaStream_t stream) {
    assert(rotary % 2 == 0 && rotary <= HS && HS % VEC == 0 && ld % VEC == 0);
    if (T == 0 || rotary == 0) return;
    int half = rotary / 2;
    bool narrow = half % VEC != 0;
    size_t threads = (size_t)T * CEIL_DIV(n_heads, HEADS) * (narrow ? half : half / VEC);
    assert(threads < INT32_MAX);
    unsigned grid = (unsigned)CEIL_DIV(threads, BLOCK);
    if (narrow)
        LAUNCH(rope_narrow_kernel, grid, BLOCK, 0, stream, qkv, positions, cos_sin, T, n_heads, HS, half, ld, sign);
    else LAUNCH(rope_kernel, grid, BLOCK, 0, stream, qkv, positions, cos_sin, T, n_heads, HS, half, ld, sign);
}

void rope_forward(floatX* qkv, const int* positions, const float* cos_sin, int T, int NH, int NKV, int HS, int rotary,
                  int ld, cudaStream_t stream) {
    NVTX_RANGE("rope_forward");
    rope(qkv, positions, cos_sin, T, NH + NKV, HS, rotary, ld, 1.0f, stream);
}

void rope_backward(floatX* dqkv, const int* positions, const float* cos_sin, int T, int NH, int NKV, int HS, int rotary,
                   int ld, cudaStream_t stream) {
    NVTX_RANGE("rope_backward");
    rope(dqkv, positions, cos_sin, T, NH + NKV, HS, rotary, ld, -1.0f, stream);
}
