/*
RMSnorm of queries and keys fused with their rotary positions, forward and backward (Qwen3Attention, Gemma3Attention:
a norm per head; Olmo2Attention: one over all heads of the projection). Both are bound by memory: together they read and
write a row once. A team of lanes owns a segment, which is what one norm spans: a head, or all query or key heads of a
token. A lane works on pairs of vectors that turn together, VEC elements of a head's first half and the same of its
second.
*/
#include <assert.h>
#include "column_sums.h"
#include "kernels.h"

#define BLOCK 256
#define MOST_SLICES 1024  // partial rows of the weights' gradients
#define SLICE_ROWS 16     // rows of a slice, at the least

// Under g++ one thread is a team of its own, in plain loops; the sanitizers get lanes and shuffles.
#if DEVICE_HALVES || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LANES(N) (N)
template <int TEAM> static inline __device__ float team_sum(float x) {
    UNROLL for (int lane = TEAM / 2; lane > 0; lane /= 2) x += __shfl_xor_sync(0xffffffffu, x, lane);
    return x;
}
#else
#define LANES(N) 1
template <int TEAM> static inline float team_sum(float x) { return x; }
#endif

// ---------------------------------------------------------------------------------------------------
// kernels

// What a norm spans, and where it is in a token's row.
typedef struct {
    int t, begin, width;   // token; elements [begin, begin + width) of its row
    int statistic;         // its number among the token's norms
    const floatX* weight;  // (width); NULL: values, which have no norm
} Segment;

// Segments of a token: query heads, key heads, value heads; or all queries, all keys, all values.
static inline __host__ __device__ int segments_of(const QkNormArgs& args) {
    return args.all ? 3 : args.NH + 2 * args.NKV;
}
static inline __host__ __device__ int norms_of(const QkNormArgs& args) { return args.all ? 2 : args.NH + args.NKV; }

static inline __device__ Segment segment_of(const QkNormArgs& args, unsigned number, unsigned segments) {
    Segment s;
    int n = (int)(number % segments), kind;  // 0: queries, 1: keys, 2: values
    s.t = (int)(number / segments);
    if (args.all) {
        kind = n;
        s.begin = (kind > 0 ? args.NH : 0) * args.HS + (kind > 1 ? args.NKV : 0) * args.HS;
        s.width = (kind > 0 ? args.NKV : args.NH) * args.HS;
    } else {
        kind = n < args.NH ? 0 : n < args.NH + args.NKV ? 1 : 2;
        s.begin = n * args.HS;
        s.width = args.HS;
    }
    s.statistic = n;
    s.weight = kind == 0 ? args.q_weight : kind == 1 ? args.k_weight : NULL;
    return s;
}

// Elements `at` and at + HS/2 of the segment, for its pair number p
static inline __device__ int pair_at(const QkNormArgs& args, int p) {
    int of_head = args.HS / (2 * VEC);
    return p / of_head * args.HS + p % of_head * VEC;
}

typedef struct {
    float8 low, high;
} Pair;
static inline __device__ Pair load_pair(const floatX* p, int half) { return {load8(p), load8(p + half)}; }
static inline __device__ void store_pair(floatX* p, int half, const Pair& x) {
    store8(p, x.low);
    store8(p + half, x.high);
}
// The pair that begins with element `at` of a segment turns by its token's angles; sign −1: back
static inline __device__ void turn(Pair* x, const QkNormArgs& args, int t, int at, float sign) {
    if (!args.cos_sin) return;
    int half = args.HS / 2;
    const float* angle = args.cos_sin + ((size_t)args.positions[t] * half + at % args.HS) * 2;
    float8 first = load8(angle), second = load8(angle + VEC);  // cos, sin, cos, sin …
    for (int k = 0; k < VEC; k++) {
        float c = k < VEC / 2 ? first.v[2 * k] : second.v[2 * k - VEC],
              s = sign * (k < VEC / 2 ? first.v[2 * k + 1] : second.v[2 * k + 1 - VEC]);
        float a = x->low.v[k], b = x->high.v[k];
        x->low.v[k] = a * c - b * s;
        x->high.v[k] = b * c + a * s;
    }
}
static inline __device__ Pair times(const Pair& x, const Pair& y) {
    Pair z;
    for (int k = 0; k < VEC; k++) {
        z.low.v[k] = x.low.v[k] * y.low.v[k];
        z.high.v[k] = x.high.v[k] * y.high.v[k];
    }
    return z;
}
static inline __device__ Pair plus(Pair x, float a) {
    for (int k = 0; k < VEC; k++) {
        x.low.v[k] += a;
        x.high.v[k] += a;
    }
    return x;
}
static inline __device__ float sum_of(const Pair& x) { return sum8_halves(x.low) + sum8_halves(x.high); }

template <int TEAM> static __global__ void qk_norm_rope_forward_kernel(floatX* out, QkNormArgs args) {
    unsigned segments = segments_of(args), number = (blockIdx.x * BLOCK + threadIdx.x) / TEAM;
    bool there = number < (unsigned)args.T * segments;  // the others take part in the shuffles only
    Segment s = segment_of(args, there ? number : 0, segments);
    int lane = threadIdx.x % TEAM, half = args.HS / 2, pairs = there ? s.width / (2 * VEC) : 0;
    size_t row = (size_t)s.t * args.ld + s.begin;
    float sum = 0.0f;
    for (int p = lane; p < pairs && s.weight; p += TEAM) {
        Pair x = load_pair(args.inp + row + pair_at(args, p), half);
        sum += sum_of(times(x, x));
    }
    float rstd = rsqrtf(team_sum<TEAM>(sum) / s.width + args.eps);
    // the segment is read again, from the L1 cache
    for (int p = lane; p < pairs; p += TEAM) {
        int at = pair_at(args, p);
        Pair x = load_pair(args.inp + row + at, half);
        if (s.weight) {
            Pair w = plus(load_pair(s.weight + at, half), args.offset);
            for (int k = 0; k < VEC; k++) {
                x.low.v[k] = x.low.v[k] * rstd * w.low.v[k];
                x.high.v[k] = x.high.v[k] * rstd * w.high.v[k];
            }
            turn(&x, args, s.t, at, 1.0f);
        }
        store_pair(out + row + at, half, x);
    }
    if (there && lane == 0 && s.weight) args.rstd[(size_t)s.t * norms_of(args) + s.statistic] = rstd;
}

// As of any RMSnorm, after the turn back: norm = inp rstd, dnorm = weight d:  dinp = rstd (dnorm − norm mean(dnorm
// norm)).
template <int TEAM> static __global__ void qk_norm_rope_backward_kernel(floatX* dqkv, QkNormArgs args) {
    unsigned norms = norms_of(args), number = (blockIdx.x * BLOCK + threadIdx.x) / TEAM;
    bool there = number < (unsigned)args.T * norms;
    Segment s = segment_of(args, there ? number : 0, norms);  // segments without a norm come last
    int lane = threadIdx.x % TEAM, half = args.HS / 2, pairs = there ? s.width / (2 * VEC) : 0;
    size_t row = (size_t)s.t * args.ld + s.begin;
    float rstd = args.rstd[(size_t)s.t * norms + s.statistic], sum = 0.0f;
    for (int pass = 0; pass < 2; pass++) {
        float mean = pass ? team_sum<TEAM>(sum) / s.width : 0.0f;
        for (int p = lane; p < pairs; p += TEAM) {
            int at = pair_at(args, p);
            Pair x = load_pair(args.inp + row + at, half), d = load_pair(dqkv + row + at, half);
            turn(&d, args, s.t, at, -1.0f);
            d = times(d, plus(load_pair(s.weight + at, half), args.offset));
            for (int k = 0; k < VEC; k++) {
                x.low.v[k] *= rstd;
                x.high.v[k] *= rstd;
            }
            if (pass == 0) {
                sum += sum_of(times(d, x));
                continue;
            }
            for (int k = 0; k < VEC; k++) {
                d.low.v[k] = rstd * (d.low.v[k] - x.low.v[k] * mean);
                d.high.v[k] = rstd * (d.high.v[k] - x.high.v[k] * mean);
            }
            store_pair(dqkv + row + at, half, d);
        }
    }
}

// partial (slices, W) of the queries' weight (keys: of the keys'): a thread owns a pair of the W columns and a slice of
// the rows, which are tokens, or heads of tokens
static __global__ void qk_norm_weight_kernel(float* partial, const floatX* dqkv, QkNormArgs args, bool keys,
                                             int slices) {
    int heads = keys ? args.NKV : args.NH, width = args.all ? heads * args.HS : args.HS, half = args.HS / 2;
    unsigned pairs = width / (2 * VEC), i = blockIdx.x * BLOCK + threadIdx.x, p = i % pairs, slice = i / pairs;
    int of_token = args.all ? 1 : heads, first = keys ? (args.all ? 1 : args.NH) : 0;  // norms of this kind
    int64_t rows = (int64_t)args.T * of_token, chunk = CEIL_DIV(rows, slices), begin = slice * chunk,
            end = begin + chunk < rows ? begin + chunk : rows;
    if (slice >= (unsigned)slices) return;
    int at = pair_at(args, (int)p);
    Pair sum = {zero8(), zero8()};
    for (int64_t r = begin; r < end; r++) {
        int t = (int)(r / of_token), n = (int)(r % of_token);
        size_t row = (size_t)t * args.ld + (keys ? args.NH * args.HS : 0) + n * args.HS + at;
        float rstd = args.rstd[(size_t)t * norms_of(args) + first + n];
        Pair x = load_pair(args.inp + row, half), d = load_pair(dqkv + row, half);
        turn(&d, args, t, at, -1.0f);
        for (int k = 0; k < VEC; k++) {
            sum.low.v[k] += d.low.v[k] * (x.low.v[k] * rstd);
            sum.high.v[k] += d.high.v[k] * (x.high.v[k] * rstd);
        }
    }
    float* to = partial + (size_t)slice * width + at;
    store8(to, sum.low);
    store8(to + half, sum.high);
}

// ---------------------------------------------------------------------------------------------------
// launchers

static void check_arguments(const QkNormArgs& args) {
    assert(args.HS % (2 * VEC) == 0 && args.ld % VEC == 0 && (int64_t)args.T * segments_of(args) < INT32_MAX / 32);
    (void)args;
}

template <int TEAM> static void forward(floatX* out, const QkNormArgs& args, cudaStream_t stream) {
    unsigned threads = (unsigned)args.T * segments_of(args) * TEAM;
    LAUNCH(qk_norm_rope_forward_kernel<TEAM>, CEIL_DIV(threads, BLOCK), BLOCK, 0, stream, out, args);
}
template <int TEAM> static void backward(floatX* dqkv, const QkNormArgs& args, cudaStream_t stream) {
    unsigned threads = (unsigned)args.T * norms_of(args) * TEAM;
    LAUNCH(qk_norm_rope_backward_kernel<TEAM>, CEIL_DIV(threads, BLOCK), BLOCK, 0, stream, dqkv, args);
}
// FUNCTION<lanes>(…): as many as a segment has pairs, a power of two, a warp at most
#define AT_TEAM(args, FUNCTION, ...)                          \
    if (args.all) FUNCTION<LANES(32)>(__VA_ARGS__);           \
    else if (args.HS <= 32) FUNCTION<LANES(2)>(__VA_ARGS__);  \
    else if (args.HS <= 64) FUNCTION<LANES(4)>(__VA_ARGS__);  \
    else if (args.HS <= 128) FUNCTION<LANES(8)>(__VA_ARGS__); \
    else FUNCTION<LANES(16)>(__VA_ARGS__);

void qk_norm_rope_forward(floatX* out, const QkNormArgs& args, cudaStream_t stream) {
    NVTX_RANGE("qk_norm_rope_forward");
    check_arguments(args);
    if (args.T == 0) return;
    AT_TEAM(args, forward, out, args, stream)
}

size_t qk_norm_scratch(int NH, int NKV, int HS, bool all) {
    return (size_t)MOST_SLICES * HS * (all ? (NH > NKV ? NH : NKV) : 1);
}

static void weight_gradient(float* dweight, float* scratch, const floatX* dqkv, const QkNormArgs& args, bool keys,
                            cudaStream_t stream) {
    int heads = keys ? args.NKV : args.NH, width = args.all ? heads * args.HS : args.HS;
    int64_t slices = CEIL_DIV((int64_t)args.T * (args.all ? 1 : heads), SLICE_ROWS);
    if (slices > MOST_SLICES) slices = MOST_SLICES;
    unsigned threads = (unsigned)(slices * (width / (2 * VEC)));
    LAUNCH(qk_norm_weight_kernel, CEIL_DIV(threads, BLOCK), BLOCK, 0, stream, scratch, dqkv, args, keys, (int)slices);
    add_column_sums(dweight, NULL, scratch, (int)slices, width, stream);
}

void qk_norm_rope_backward(floatX* dqkv, float* dq_weight, float* dk_weight, float* scratch, const QkNormArgs& args,
                           cudaStream_t stream) {
    NVTX_RANGE("qk_norm_rope_backward");
    check_arguments(args);
    if (args.T == 0) return;
    if (dq_weight) weight_gradient(dq_weight, scratch, dqkv, args, false, stream);
    if (dk_weight) weight_gradient(dk_weight, scratch, dqkv, args, true, stream);
    AT_TEAM(args, backward, dqkv, args, stream)
}
