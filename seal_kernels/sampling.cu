/*
The next token of every sequence from its logits: greedy, or drawn after repetition penalty, temperature, top-k and
top-p. The random numbers come from outside, so a row's token is a function of its logits and one number. No row is
sorted: the smallest probability that is kept is found by bisection over the bits of a float, whose order is that of the
numbers; every step is one pass over a row that is in the L2 cache. Sums are in a fixed order.
*/
#include <assert.h>
#include "kernels.h"

// Threads of a row. Under g++ one thread does the work in plain loops over vectors, because others would only wait at
// the barriers; the sanitizers get several.
#if DEVICE_HALVES
#define THREADS 512
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define THREADS 64
#else
#define THREADS 1
#endif
#if THREADS > 1
static __device__ __forceinline__ float row_sum(float x) { return block_sum(x); }
static __device__ __forceinline__ float row_max(float x) { return block_max(x); }
#else
static inline float row_sum(float x) { return x; }
static inline float row_max(float x) { return x; }
#endif

// ---------------------------------------------------------------------------------------------------
// kernels

// Logits v … v + 7 after the penalty; −∞ past the end. seen: the row's bits, or NULL.
static __device__ __forceinline__ float8 load_logits(const floatX* row, const uint32_t* seen, float penalty, int v,
                                                     int V) {
    float8 x = load8(row + v);
    float inverse = 1.0f / penalty;
    if (seen) {
        uint32_t bits = seen[v / 32] >> v % 32;
        UNROLL for (int e = 0; e < VEC; e++) if (bits >> e & 1) x.v[e] *= x.v[e] < 0.0f ? penalty : inverse;
    }
    UNROLL for (int e = 0; e < VEC; e++) x.v[e] = v + e < V ? x.v[e] : -INFINITY;
    return x;
}

// *best = the lowest id among the row's largest logits; returns that logit, NaN where a NaN is among them.
static __device__ __forceinline__ float row_argmax(int* best, const floatX* row, const uint32_t* seen, float penalty,
                                                   int V) {
    float highest = -INFINITY, bad = 0.0f;
    int mine = V;
    for (int v = threadIdx.x * VEC; v < V; v += THREADS * VEC) {
        float8 x = load_logits(row, seen, penalty, v, V);
        for (int e = 0; e < VEC; e++) {
            bad = x.v[e] != x.v[e] ? 1.0f : bad;
            if (x.v[e] > highest) {
                highest = x.v[e];
                mine = v + e;
            }
        }
    }
    float top = row_max(highest);
    *best = (int)-row_max(highest == top ? -(float)mine : -(float)V);  // ids are exact in fp32 up to 2^24
    return row_max(bad) > 0.0f ? NAN : top;
}

// Number and sum of the probabilities of at least the one whose bits are `least`.
static __device__ __forceinline__ float count_from(const float* probabilities, uint32_t least, int Vp) {
    float8 n = {{0.0f}};
    float limit = __uint_as_float(least);
    for (int v = threadIdx.x * VEC; v < Vp; v += THREADS * VEC) {
        float8 p = load8(probabilities + v);
        UNROLL for (int e = 0; e < VEC; e++) n.v[e] += p.v[e] >= limit ? 1.0f : 0.0f;
    }
    return row_sum(sum8(n));
}
static __device__ __forceinline__ float mass_from(const float* probabilities, uint32_t least, int Vp) {
    float8 sum = {{0.0f}};
    float limit = __uint_as_float(least);
    for (int v = threadIdx.x * VEC; v < Vp; v += THREADS * VEC) {
        float8 p = load8(probabilities + v);
        UNROLL for (int e = 0; e < VEC; e++) sum.v[e] += p.v[e] >= limit ? p.v[e] : 0.0f;
    }
    return row_sum(sum8(sum));
}

#define ONE_BITS 0x3f800000u  // of 1.0f, the largest probability there is

// The bits of the k-th largest probability.
static __device__ __forceinline__ uint32_t least_of_top_k(const float* probabilities, int k, int V, int Vp) {
    uint32_t low = 1, high = ONE_BITS;  // an underflowed 0 is never drawn
    if (k <= 0 || k >= V || count_from(probabilities, low, Vp) < k) return low;
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        float n = count_from(probabilities, middle, Vp);
        if (n == k) return middle;
        if (n > k) low = middle;
        else high = middle - 1;
    }
    return low;
}

// The bits of the smallest probability to keep, and how many of those that equal it.
static __device__ __forceinline__ uint32_t least_of_top_p(int* ties, const float* probabilities, float top_p,
                                                          uint32_t low, int Vp) {
    uint32_t high = ONE_BITS;
    *ties = INT32_MAX;
    if (top_p >= 1.0f) return low;
    float target = top_p * mass_from(probabilities, low, Vp);
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        if (mass_from(probabilities, middle, Vp) >= target) low = middle;
        else high = middle - 1;
    }
    float above = mass_from(probabilities, low + 1, Vp);
    *ties = max(1, (int)fminf(ceilf((target - above) / __uint_as_float(low)), 2e9f));
    return low;
}

// The token at `uniform` of the way through the kept probabilities, in the order of their ids. Every thread has a run
// of neighbouring ids; all threads walk over the runs' sums alike, and the one in whose run the place is walks over
// its ids.
static __device__ __forceinline__ void draw(int* token, const float* probabilities, uint32_t least, int ties,
                                            float uniform, int Vp) {
    SHARED(float, mass, [THREADS]);
    SHARED(int, equal, [THREADS]);
    float limit = __uint_as_float(least), sum = 0.0f, total = 0.0f, before = 0.0f, at = 0.0f;
    int run = CEIL_DIV(Vp, THREADS), begin = min((int)threadIdx.x * run, Vp), end = min(begin + run, Vp), mine = 0,
        earlier = 0, chosen = -1, last = -1;
    for (int v = begin; v < end; v++) {
        sum += probabilities[v] > limit ? probabilities[v] : 0.0f;
        mine += probabilities[v] == limit;
    }
    equal[threadIdx.x] = mine;
    __syncthreads();
    for (int t = 0; t < (int)threadIdx.x; t++) earlier += equal[t];
    mine = max(0, min(mine, ties - earlier));
    mass[threadIdx.x] = sum + mine * limit;
    __syncthreads();
    for (int t = 0; t < THREADS; t++) total += mass[t];
    float place = uniform * total;
    for (int t = 0; t < THREADS; t++) {
        if (mass[t] > 0.0f && at <= place) {
            chosen = t;
            before = at;
        }
        at += mass[t];
    }
    if ((int)threadIdx.x != chosen) return;
    for (int v = begin; v < end; v++) {
        if (!(probabilities[v] > limit || (probabilities[v] == limit && mine-- > 0))) continue;
        last = v;
        before += probabilities[v];
        if (before > place) break;  // rounding may leave the place after the last one
    }
    *token = last;
}

// One block per row. See kernels.h.
static __global__ void __launch_bounds__(THREADS, 2) sample_kernel(DrawArgs args) {
    const floatX* row = args.logits + (size_t)blockIdx.x * args.Vp;
    const SampleSettings* s = &args.settings;
    int slot = args.seen ? args.slots[blockIdx.x] : 0, best;
    uint32_t* bits = args.seen ? args.seen + (size_t)slot * SAMPLE_SEEN_WORDS(args.V) : NULL;
    const uint32_t* seen = s->repetition_penalty == 1.0f ? NULL : bits;
    float top = row_argmax(&best, row, seen, s->repetition_penalty, args.V);
    int* token = args.tokens + blockIdx.x;
    if (!(fabsf(top) < INFINITY)) {
        if (threadIdx.x == 0) *token = -1;
        return;
    }
    if (s->greedy) {
        if (threadIdx.x == 0) *token = best;
    } else {
        float *probabilities = args.probabilities + (size_t)blockIdx.x * args.Vp, inverse = 1.0f / s->temperature;
        for (int v = threadIdx.x * VEC; v < args.Vp; v += THREADS * VEC) {
            float8 x = {{0.0f}};
            if (v < args.V) {
                x = load_logits(row, seen, s->repetition_penalty, v, args.V);
                UNROLL for (int e = 0; e < VEC; e++) x.v[e] = expf((x.v[e] - top) * inverse);
            }
            store8(probabilities + v, x);
        }
        __syncthreads();
        int ties;
        uint32_t least = least_of_top_k(probabilities, s->top_k, args.V, args.Vp);
        least = least_of_top_p(&ties, probabilities, s->top_p, least, args.Vp);
        draw(token, probabilities, least, ties, args.uniform[blockIdx.x], args.Vp);
    }
    __syncthreads();
    if (bits && threadIdx.x == 0) bits[*token / 32] |= 1u << *token % 32;
}

// ---------------------------------------------------------------------------------------------------
// launchers

void draw_tokens(const DrawArgs& args, cudaStream_t stream) {
    NVTX_RANGE("draw_tokens");
    const SampleSettings& s = args.settings;
    assert(args.V > 0 && args.V <= 1 << 24 && args.Vp >= args.V && args.Vp % VEC == 0);
    assert(s.repetition_penalty > 0.0f && (args.seen || s.repetition_penalty == 1.0f));
    assert(s.greedy || (s.temperature > 0.0f && s.top_p > 0.0f && args.probabilities && args.uniform));
    (void)s;
    if (args.n == 0) return;
    LAUNCH(sample_kernel, args.n, THREADS, 0, stream, args);
}
