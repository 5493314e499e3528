/*
Causal variable-length attention as a ladder: one thread per row, one warp per row, tiles of keys in shared memory, and
the winner of seal_kernels; and a double-precision reference fed the same rounded inputs (attention_problem.h).

  attention --check [--small]     every step against the reference, backward also by finite differences (--small: for
                                  sanitizers)
  attention [--samples N] [--length L] [--heads N] [--kv-heads N] [--head-size N]
                                  speed; on a GPU with the share of the measured ceiling
*/
#include <string.h>
#include <time.h>
#include "harness.h"
#include "check.h"
#include "kernels.h"
#include "attention_problem.h"
#if defined(__CUDACC__) && defined(PRECISION_BF16)
#include "ptx.h"
#endif

#define MAX_HS 256

// ---------------------------------------------------------------------------------------------------
// Step 0, naive: a thread owns a row, keeps its accumulators in local memory (an array whose size is known at run time
// only) and reads every key of its sample from global memory, a row apart from what its neighbour reads: of each
// 32-byte sector it uses two. bf16, head size 64, sm_90: in forward a warp issues 33 instructions per query and key,
// and asks for 192 sectors.

typedef struct {
    const floatX* qkv;
    const int* row_sample;  // (T): which sample a row belongs to
    const int* cu_seqlens;
    int T, NH, NKV, HS, ldq, ldo, lddq;
    float scale;
    const int* tiles;  // of step 2: {sample, tile within the sample}
} StepArgs;

static __device__ float naive_dot(const floatX* a, const floatX* b, int n) {
    float sum = 0.0f;
    for (int d = 0; d < n; d++) sum += to_float(a[d]) * to_float(b[d]);
    return sum;
}

static __global__ void naive_forward_kernel(floatX* atty, float* lse, StepArgs args) {
    int t = blockIdx.x * blockDim.x + threadIdx.x, head = blockIdx.y, HS = args.HS;
    if (t >= args.T) return;
    const floatX* q = args.qkv + (size_t)t * args.ldq + head * HS;
    const floatX* keys = args.qkv + (args.NH + head / (args.NH / args.NKV)) * HS;
    float acc[MAX_HS] = {0.0f}, m = -INFINITY, l = 0.0f;
    for (int j = args.cu_seqlens[args.row_sample[t]]; j <= t; j++) {
        const floatX* k = keys + (size_t)j * args.ldq;
        float s = args.scale * naive_dot(q, k, HS), before = m;
        m = fmaxf(m, s);
        float shrink = expf(before - m), p = expf(s - m);
        l = l * shrink + p;
        for (int d = 0; d < HS; d++) acc[d] = acc[d] * shrink + p * to_float(k[args.NKV * HS + d]);
    }
    for (int d = 0; d < HS; d++) atty[(size_t)t * args.ldo + head * HS + d] = from_float<floatX>(acc[d] / l);
    lse[(size_t)head * args.T + t] = m + logf(l);
}

static __global__ void naive_dq_kernel(floatX* dqkv, float* delta, const floatX* datty, const floatX* atty,
                                       const float* lse, StepArgs args) {
    int t = blockIdx.x * blockDim.x + threadIdx.x, head = blockIdx.y, HS = args.HS;
    if (t >= args.T) return;
    const floatX* q = args.qkv + (size_t)t * args.ldq + head * HS;
    const floatX* dout = datty + (size_t)t * args.ldo + head * HS;
    const floatX* keys = args.qkv + (args.NH + head / (args.NH / args.NKV)) * HS;
    float acc[MAX_HS] = {0.0f}, row_delta = naive_dot(dout, atty + (size_t)t * args.ldo + head * HS, HS);
    for (int j = args.cu_seqlens[args.row_sample[t]]; j <= t; j++) {
        const floatX* k = keys + (size_t)j * args.ldq;
        float p = expf(args.scale * naive_dot(q, k, HS) - lse[(size_t)head * args.T + t]);
        float ds = args.scale * p * (naive_dot(dout, k + args.NKV * HS, HS) - row_delta);
        for (int d = 0; d < HS; d++) acc[d] += ds * to_float(k[d]);
    }
    for (int d = 0; d < HS; d++) dqkv[(size_t)t * args.lddq + head * HS + d] = from_float<floatX>(acc[d]);
    delta[(size_t)head * args.T + t] = row_delta;
}

static __global__ void naive_dkdv_kernel(floatX* dqkv, const float* delta, const floatX* datty, const float* lse,
                                         StepArgs args) {
    int j = blockIdx.x * blockDim.x + threadIdx.x, kv_head = blockIdx.y, HS = args.HS, heads = args.NH / args.NKV;
    if (j >= args.T) return;
    const floatX* k = args.qkv + (size_t)j * args.ldq + (args.NH + kv_head) * HS;
    const floatX* v = k + args.NKV * HS;
    float dk[MAX_HS] = {0.0f}, dv[MAX_HS] = {0.0f};
    for (int head = kv_head * heads; head < (kv_head + 1) * heads; head++) {
        for (int t = j; t < args.cu_seqlens[args.row_sample[j] + 1]; t++) {
            const floatX* q = args.qkv + (size_t)t * args.ldq + head * HS;
            const floatX* dout = datty + (size_t)t * args.ldo + head * HS;
            float p = expf(args.scale * naive_dot(q, k, HS) - lse[(size_t)head * args.T + t]);
            float ds = args.scale * p * (naive_dot(dout, v, HS) - delta[(size_t)head * args.T + t]);
            for (int d = 0; d < HS; d++) {
                dv[d] += p * to_float(dout[d]);
                dk[d] += ds * to_float(q[d]);
            }
        }
    }
    floatX* out = dqkv + (size_t)j * args.lddq + (args.NH + kv_head) * HS;
    for (int d = 0; d < HS; d++) {
        out[d] = from_float<floatX>(dk[d]);
        out[args.NKV * HS + d] = from_float<floatX>(dv[d]);
    }
}

// ---------------------------------------------------------------------------------------------------
// Step 1: one warp per row. The lanes share the elements of a head, so a key is one piece of memory for the warp and
// the accumulators of 256 elements are 8 registers of a lane: 8 sectors per query and key, no local memory. The price
// is a sum over the warp, five shuffles, for every key: 135 instructions. And every row still reads all of its keys
// from memory.

#define LANE_ELEMENTS (MAX_HS / WARP_SIZE)

// x (HS) of a row, spread over the lanes: lane l has elements l, l + 32, … and zeros past the end
static __device__ void lane_load(float (&to)[LANE_ELEMENTS], const floatX* x, int HS) {
    UNROLL for (int i = 0; i < LANE_ELEMENTS; i++) {
        int d = threadIdx.x % WARP_SIZE + i * WARP_SIZE;
        to[i] = d < HS ? to_float(x[d]) : 0.0f;
    }
}
static __device__ void lane_store(floatX* to, const float (&x)[LANE_ELEMENTS], float factor, int HS) {
    UNROLL for (int i = 0; i < LANE_ELEMENTS; i++) {
        int d = threadIdx.x % WARP_SIZE + i * WARP_SIZE;
        if (d < HS) to[d] = from_float<floatX>(x[i] * factor);
    }
}
static __device__ float lane_dot(const float (&a)[LANE_ELEMENTS], const float (&b)[LANE_ELEMENTS]) {
    float sum = 0.0f;
    UNROLL for (int i = 0; i < LANE_ELEMENTS; i++) sum += a[i] * b[i];
    return sum;
}
static __device__ void lane_add(float (&sum)[LANE_ELEMENTS], float factor, const float (&x)[LANE_ELEMENTS]) {
    UNROLL for (int i = 0; i < LANE_ELEMENTS; i++) sum[i] += factor * x[i];
}

static __global__ void warp_forward_kernel(floatX* atty, float* lse, StepArgs args) {
    int t = (blockIdx.x * blockDim.x + threadIdx.x) / WARP_SIZE, head = blockIdx.y, HS = args.HS;
    if (t >= args.T) return;
    const floatX* keys = args.qkv + (args.NH + head / (args.NH / args.NKV)) * HS;
    float q[LANE_ELEMENTS], k[LANE_ELEMENTS], v[LANE_ELEMENTS], acc[LANE_ELEMENTS] = {0.0f}, m = -INFINITY, l = 0.0f;
    lane_load(q, args.qkv + (size_t)t * args.ldq + head * HS, HS);
    for (int j = args.cu_seqlens[args.row_sample[t]]; j <= t; j++) {
        lane_load(k, keys + (size_t)j * args.ldq, HS);
        lane_load(v, keys + (size_t)j * args.ldq + args.NKV * HS, HS);
        float s = args.scale * warp_sum(lane_dot(q, k)), before = m;
        m = fmaxf(m, s);
        float shrink = expf(before - m), p = expf(s - m);
        l = l * shrink + p;
        UNROLL for (int i = 0; i < LANE_ELEMENTS; i++) acc[i] = acc[i] * shrink + p * v[i];
    }
    lane_store(atty + (size_t)t * args.ldo + head * HS, acc, 1.0f / l, HS);
    if (threadIdx.x % WARP_SIZE == 0) lse[(size_t)head * args.T + t] = m + logf(l);
}

static __global__ void warp_dq_kernel(floatX* dqkv, float* delta, const floatX* datty, const floatX* atty,
                                      const float* lse, StepArgs args) {
    int t = (blockIdx.x * blockDim.x + threadIdx.x) / WARP_SIZE, head = blockIdx.y, HS = args.HS;
    if (t >= args.T) return;
    const floatX* keys = args.qkv + (args.NH + head / (args.NH / args.NKV)) * HS;
    float q[LANE_ELEMENTS], k[LANE_ELEMENTS], v[LANE_ELEMENTS], dout[LANE_ELEMENTS], dq[LANE_ELEMENTS] = {0.0f};
    lane_load(q, args.qkv + (size_t)t * args.ldq + head * HS, HS);
    lane_load(dout, datty + (size_t)t * args.ldo + head * HS, HS);
    lane_load(v, atty + (size_t)t * args.ldo + head * HS, HS);
    float row_delta = warp_sum(lane_dot(dout, v)), row_lse = lse[(size_t)head * args.T + t];
    for (int j = args.cu_seqlens[args.row_sample[t]]; j <= t; j++) {
        lane_load(k, keys + (size_t)j * args.ldq, HS);
        lane_load(v, keys + (size_t)j * args.ldq + args.NKV * HS, HS);
        float sums[2] = {lane_dot(q, k), lane_dot(dout, v)};
        warp_sums(sums);
        float p = expf(args.scale * sums[0] - row_lse);
        lane_add(dq, args.scale * p * (sums[1] - row_delta), k);
    }
    lane_store(dqkv + (size_t)t * args.lddq + head * HS, dq, 1.0f, HS);
    if (threadIdx.x % WARP_SIZE == 0) delta[(size_t)head * args.T + t] = row_delta;
}

static __global__ void warp_dkdv_kernel(floatX* dqkv, const float* delta, const floatX* datty, const float* lse,
                                        StepArgs args) {
    int j = (blockIdx.x * blockDim.x + threadIdx.x) / WARP_SIZE, kv_head = blockIdx.y, HS = args.HS;
    int heads = args.NH / args.NKV;
    if (j >= args.T) return;
    const floatX* key = args.qkv + (size_t)j * args.ldq + (args.NH + kv_head) * HS;
    float q[LANE_ELEMENTS], dout[LANE_ELEMENTS], k[LANE_ELEMENTS], v[LANE_ELEMENTS];
    float dk[LANE_ELEMENTS] = {0.0f}, dv[LANE_ELEMENTS] = {0.0f};
    lane_load(k, key, HS);
    lane_load(v, key + args.NKV * HS, HS);
    for (int head = kv_head * heads; head < (kv_head + 1) * heads; head++)
        for (int t = j; t < args.cu_seqlens[args.row_sample[j] + 1]; t++) {
            lane_load(q, args.qkv + (size_t)t * args.ldq + head * HS, HS);
            lane_load(dout, datty + (size_t)t * args.ldo + head * HS, HS);
            float sums[2] = {lane_dot(q, k), lane_dot(dout, v)};
            warp_sums(sums);
            float p = expf(args.scale * sums[0] - lse[(size_t)head * args.T + t]);
            lane_add(dv, p, dout);
            lane_add(dk, args.scale * p * (sums[1] - delta[(size_t)head * args.T + t]), q);
        }
    floatX* out = dqkv + (size_t)j * args.lddq + (args.NH + kv_head) * HS;
    lane_store(out, dk, 1.0f, HS);
    lane_store(out + args.NKV * HS, dv, 1.0f, HS);
}

// ---------------------------------------------------------------------------------------------------
// Step 2: tiles in shared memory (FlashAttention, Dao et al. 2022, without tensor cores). A block owns the
// ATTENTION_TILE rows of one tile; keys and values come to shared memory a piece at a time and are used by all 64 rows
// from there, so memory is read a 64th as often: an eighth of a sector per query and key. A thread owns a row again,
// with the head size known at compile time: its query and its sum are registers, no sum crosses a lane, and all threads
// of a warp read the same key at once, which shared memory broadcasts: 14 instructions. What stops it: a row in
// registers is 2·HS of them in forward and 4·HS in dk and dv, and a GPU has 255: at head size 64 dk and dv spill 368
// bytes. The winners cut a row among threads: register tiles in fp32; tensor cores in bf16, 0.44 instructions per query
// and key.

#define PIECE_ROWS(HS) (4096 / (HS))  // two pieces of 4096 elements: 32 KiB in fp32

// to (n, HS) = n rows of HS elements, `from` on, by all threads of the block
template <int HS> static __device__ void load_piece(floatX* to, const floatX* from, int ld, int n) {
    for (int i = threadIdx.x * VEC; i < n * HS; i += ATTENTION_TILE * VEC)
        store8(to + i, load8(from + (size_t)(i / HS) * ld + i % HS));
}
template <int HS> static __device__ void load_row(float (&to)[HS], const floatX* from) {
    UNROLL for (int d = 0; d < HS; d++) to[d] = to_float(from[d]);
}
template <int HS> static __device__ void store_row(floatX* to, const float (&x)[HS], float factor) {
    UNROLL for (int d = 0; d < HS; d++) to[d] = from_float<floatX>(x[d] * factor);
}
// b, x: in shared memory, eight elements per load
template <int HS> static __device__ float row_dot(const float (&a)[HS], const floatX* b) {
    float sum = 0.0f;
    UNROLL for (int d = 0; d < HS; d += VEC) {
        float8 x = load8(b + d);
        UNROLL for (int k = 0; k < VEC; k++) sum += a[d + k] * x.v[k];
    }
    return sum;
}
// sum = shrink · sum + factor · x
template <int HS> static __device__ void row_add(float (&sum)[HS], float shrink, float factor, const floatX* from) {
    UNROLL for (int d = 0; d < HS; d += VEC) {
        float8 x = load8(from + d);
        UNROLL for (int k = 0; k < VEC; k++) sum[d + k] = shrink * sum[d + k] + factor * x.v[k];
    }
}

template <int HS>
static __global__ void __launch_bounds__(ATTENTION_TILE) tile_forward_kernel(floatX* atty, float* lse, StepArgs args) {
    constexpr int ROWS = PIECE_ROWS(HS);
    SHARED(floatX, k, [ROWS * HS]);
    SHARED(floatX, v, [ROWS * HS]);
    int sample = args.tiles[2 * blockIdx.x], head = blockIdx.y, start = args.cu_seqlens[sample];
    int row0 = args.tiles[2 * blockIdx.x + 1] * ATTENTION_TILE, length = args.cu_seqlens[sample + 1] - start;
    int row = row0 + threadIdx.x, end = min(row0 + ATTENTION_TILE, length);  // of the sample
    bool there = row < length;
    const floatX* keys = args.qkv + (size_t)start * args.ldq + (args.NH + head / (args.NH / args.NKV)) * HS;
    float q[HS], acc[HS] = {0.0f}, m = -INFINITY, l = 0.0f;
    if (there) load_row(q, args.qkv + (size_t)(start + row) * args.ldq + head * HS);
    for (int first = 0; first < end; first += ROWS) {
        int n = min(ROWS, end - first);
        __syncthreads();  // everybody has done with the piece before
        load_piece<HS>(k, keys + (size_t)first * args.ldq, args.ldq, n);
        load_piece<HS>(v, keys + (size_t)first * args.ldq + args.NKV * HS, args.ldq, n);
        __syncthreads();
        for (int j = 0; j < n && there && first + j <= row; j++) {
            float s = args.scale * row_dot(q, k + j * HS), before = m;
            m = fmaxf(m, s);
            float shrink = expf(before - m), p = expf(s - m);
            l = l * shrink + p;
            row_add(acc, shrink, p, v + j * HS);
        }
    }
    if (!there) return;
    store_row(atty + (size_t)(start + row) * args.ldo + head * HS, acc, 1.0f / l);
    lse[(size_t)head * args.T + start + row] = m + logf(l);
}

template <int HS>
static __global__ void __launch_bounds__(ATTENTION_TILE)
    tile_dq_kernel(floatX* dqkv, float* delta, const floatX* datty, const floatX* atty, const float* lse,
                   StepArgs args) {
    constexpr int ROWS = PIECE_ROWS(HS);
    SHARED(floatX, k, [ROWS * HS]);
    SHARED(floatX, v, [ROWS * HS]);
    int sample = args.tiles[2 * blockIdx.x], head = blockIdx.y, start = args.cu_seqlens[sample];
    int row0 = args.tiles[2 * blockIdx.x + 1] * ATTENTION_TILE, length = args.cu_seqlens[sample + 1] - start;
    int row = row0 + threadIdx.x, end = min(row0 + ATTENTION_TILE, length);
    bool there = row < length;
    size_t at = (size_t)start + row;
    const floatX* keys = args.qkv + (size_t)start * args.ldq + (args.NH + head / (args.NH / args.NKV)) * HS;
    float q[HS], dout[HS], dq[HS] = {0.0f}, row_delta = 0.0f, row_lse = 0.0f;
    if (there) {
        load_row(q, args.qkv + at * args.ldq + head * HS);
        load_row(dout, datty + at * args.ldo + head * HS);
        row_delta = row_dot(dout, atty + at * args.ldo + head * HS);
        row_lse = lse[(size_t)head * args.T + at];
    }
    for (int first = 0; first < end; first += ROWS) {
        int n = min(ROWS, end - first);
        __syncthreads();
        load_piece<HS>(k, keys + (size_t)first * args.ldq, args.ldq, n);
        load_piece<HS>(v, keys + (size_t)first * args.ldq + args.NKV * HS, args.ldq, n);
        __syncthreads();
        for (int j = 0; j < n && there && first + j <= row; j++) {
            float p = expf(args.scale * row_dot(q, k + j * HS) - row_lse);
            row_add(dq, 1.0f, args.scale * p * (row_dot(dout, v + j * HS) - row_delta), k + j * HS);
        }
    }
    if (!there) return;
    store_row(dqkv + at * args.lddq + head * HS, dq, 1.0f);
    delta[(size_t)head * args.T + at] = row_delta;
}

// A tile of keys; the queries from there to the sample's end come by, with their output gradients.
template <int HS>
static __global__ void __launch_bounds__(ATTENTION_TILE)
    tile_dkdv_kernel(floatX* dqkv, const float* delta, const floatX* datty, const float* lse, StepArgs args) {
    constexpr int ROWS = PIECE_ROWS(HS);
    SHARED(floatX, q, [ROWS * HS]);
    SHARED(floatX, dout, [ROWS * HS]);
    int sample = args.tiles[2 * blockIdx.x], kv_head = blockIdx.y, start = args.cu_seqlens[sample];
    int row0 = args.tiles[2 * blockIdx.x + 1] * ATTENTION_TILE, length = args.cu_seqlens[sample + 1] - start;
    int row = row0 + threadIdx.x, heads = args.NH / args.NKV;
    bool there = row < length;
    const floatX* key = args.qkv + (size_t)(start + row) * args.ldq + (args.NH + kv_head) * HS;
    float k[HS], v[HS], dk[HS] = {0.0f}, dv[HS] = {0.0f};
    if (there) load_row(k, key);
    if (there) load_row(v, key + args.NKV * HS);
    for (int head = kv_head * heads; head < (kv_head + 1) * heads; head++)
        for (int first = row0; first < length; first += ROWS) {
            int n = min(ROWS, length - first);
            __syncthreads();
            load_piece<HS>(q, args.qkv + (size_t)(start + first) * args.ldq + head * HS, args.ldq, n);
            load_piece<HS>(dout, datty + (size_t)(start + first) * args.ldo + head * HS, args.ldo, n);
            __syncthreads();
            for (int i = max(0, row - first); i < n && there; i++) {
                size_t at = (size_t)head * args.T + start + first + i;
                float p = expf(args.scale * row_dot(k, q + i * HS) - lse[at]);
                row_add(dv, 1.0f, p, dout + i * HS);
                row_add(dk, 1.0f, args.scale * p * (row_dot(v, dout + i * HS) - delta[at]), q + i * HS);
            }
        }
    if (!there) return;
    floatX* out = dqkv + (size_t)(start + row) * args.lddq + (args.NH + kv_head) * HS;
    store_row(out, dk, 1.0f);
    store_row(out + args.NKV * HS, dv, 1.0f);
}

// ---------------------------------------------------------------------------------------------------
// the steps of the ladder, one signature

typedef void (*AttentionPass)(Problem* p, cudaStream_t stream);

static void winner_forward(Problem* p, cudaStream_t stream) {
    attention_forward(p->d_atty, p->d_lse,
                      {.qkv = p->d_qkv,
                       .cu_seqlens = p->d_cu_seqlens,
                       .tiles = p->d_tiles,
                       .n_tiles = p->n_tiles,
                       .T = p->T,
                       .NH = p->NH,
                       .NKV = p->NKV,
                       .HS = p->HS,
                       .ldq = p->ldq,
                       .ldo = p->ldo,
                       .scale = p->scale,
                       .window = p->window,
                       .cap = p->cap,
                       .n_even = p->n_even},
                      stream);
}
static void winner_backward(Problem* p, cudaStream_t stream) {
    attention_backward(p->d_dqkv,
                       {.qkv = p->d_qkv,
                        .cu_seqlens = p->d_cu_seqlens,
                        .tiles = p->d_tiles,
                        .n_tiles = p->n_tiles,
                        .T = p->T,
                        .NH = p->NH,
                        .NKV = p->NKV,
                        .HS = p->HS,
                        .ldq = p->ldq,
                        .ldo = p->ldo,
                        .scale = p->scale,
                        .window = p->window,
                        .cap = p->cap,
                        .atty = p->d_atty,
                        .datty = p->d_datty,
                        .lse = p->d_lse,
                        .delta = p->d_delta,
                        .lddq = p->lddq,
                        .positions = p->d_positions,
                        .cos_sin = p->d_cos_sin,
                        .rotary = p->rotary},
                       stream);
}

static StepArgs step_args(const Problem* p) {
    StepArgs args = {p->d_qkv, p->d_row_sample, p->d_cu_seqlens, p->T,    p->NH,    p->NKV,
                     p->HS,    p->ldq,          p->ldo,          p->lddq, p->scale, p->d_tiles};
    return args;
}
static void naive_forward(Problem* p, cudaStream_t stream) {
    LAUNCH(naive_forward_kernel, dim3(CEIL_DIV(p->T, 64), p->NH), 64, 0, stream, p->d_atty, p->d_lse, step_args(p));
}
static void naive_backward(Problem* p, cudaStream_t stream) {
    LAUNCH(naive_dq_kernel, dim3(CEIL_DIV(p->T, 64), p->NH), 64, 0, stream, p->d_dqkv, p->d_delta, p->d_datty,
           p->d_atty, p->d_lse, step_args(p));
    LAUNCH(naive_dkdv_kernel, dim3(CEIL_DIV(p->T, 64), p->NKV), 64, 0, stream, p->d_dqkv, p->d_delta, p->d_datty,
           p->d_lse, step_args(p));
}

static void warp_forward(Problem* p, cudaStream_t stream) {
    LAUNCH(warp_forward_kernel, dim3(CEIL_DIV(p->T, 4), p->NH), 4 * WARP_SIZE, 0, stream, p->d_atty, p->d_lse,
           step_args(p));
}
static void warp_backward(Problem* p, cudaStream_t stream) {
    LAUNCH(warp_dq_kernel, dim3(CEIL_DIV(p->T, 4), p->NH), 4 * WARP_SIZE, 0, stream, p->d_dqkv, p->d_delta, p->d_datty,
           p->d_atty, p->d_lse, step_args(p));
    LAUNCH(warp_dkdv_kernel, dim3(CEIL_DIV(p->T, 4), p->NKV), 4 * WARP_SIZE, 0, stream, p->d_dqkv, p->d_delta,
           p->d_datty, p->d_lse, step_args(p));
}
template <int HS> static void tile_forward_of(Problem* p, cudaStream_t stream) {
    LAUNCH(tile_forward_kernel<HS>, dim3(p->n_tiles, p->NH), ATTENTION_TILE, 0, stream, p->d_atty, p->d_lse,
           step_args(p));
}
template <int HS> static void tile_backward_of(Problem* p, cudaStream_t stream) {
    LAUNCH(tile_dq_kernel<HS>, dim3(p->n_tiles, p->NH), ATTENTION_TILE, 0, stream, p->d_dqkv, p->d_delta, p->d_datty,
           p->d_atty, p->d_lse, step_args(p));
    LAUNCH(tile_dkdv_kernel<HS>, dim3(p->n_tiles, p->NKV), ATTENTION_TILE, 0, stream, p->d_dqkv, p->d_delta, p->d_datty,
           p->d_lse, step_args(p));
}
// The step is for reading and comparing: three head sizes are enough, and a row of 256 takes more registers than there
// are.
static void tile_forward(Problem* p, cudaStream_t stream) {
    if (p->HS == 32) tile_forward_of<32>(p, stream);
    if (p->HS == 64) tile_forward_of<64>(p, stream);
    if (p->HS == 128) tile_forward_of<128>(p, stream);
}
static void tile_backward(Problem* p, cudaStream_t stream) {
    if (p->HS == 32) tile_backward_of<32>(p, stream);
    if (p->HS == 64) tile_backward_of<64>(p, stream);
    if (p->HS == 128) tile_backward_of<128>(p, stream);
}

static const struct {
    const char* name;
    AttentionPass forward, backward;
} steps[] = {{"naive", naive_forward, naive_backward},
             {"warp per row", warp_forward, warp_backward},
             {"tiles", tile_forward, tile_backward},
             {"winner", winner_forward, winner_backward}};
#define N_STEPS (sizeof steps / sizeof *steps)
static bool has_step(size_t step, int HS) {
    return steps[step].forward != tile_forward || HS == 32 || HS == 64 || HS == 128;
}

// ---------------------------------------------------------------------------------------------------
// checks

static void check_tensor(const char* name, const float* a, const double* b, long n) {
#ifdef PRECISION_BF16
    check_cosine(name, a, b, n);
#else
    check_close(name, a, b, n, 1e-5);
#endif
}

// columns [from, to) of a (rows, width) tensor against the reference
static void check_columns(const char* name, const float* a, const double* b, int rows, int width, int from, int to) {
    int n = to - from;
    float* x = (float*)malloc(sizeof(float) * rows * n);
    double* y = (double*)malloc(sizeof(double) * rows * n);
    for (int i = 0; i < rows * n; i++) {
        x[i] = a[(size_t)(i / n) * width + from + i % n];
        y[i] = b[(size_t)(i / n) * width + from + i % n];
    }
    check_tensor(name, x, y, (long)rows * n);
    free(x);
    free(y);
}

typedef struct {
    float *atty, *lse, *dqkv;
    bool tails_kept;
} Result;

static Result run(Problem* p, AttentionPass forward, AttentionPass backward) {
    Result r = {NULL, NULL, NULL, true};
    poison_outputs(p);
    forward(p, 0);
    backward(p, 0);
    r.lse = (float*)malloc(sizeof(float) * p->NH * p->T);
    r.atty = download_rows(p->d_atty, p->T, out_width(p), p->ldo, &r.tails_kept);
    r.dqkv = download_rows(p->d_dqkv, p->T, qkv_width(p), p->lddq, &r.tails_kept);
    cudaCheck(cudaMemcpy(r.lse, p->d_lse, sizeof(float) * p->NH * p->T, cudaMemcpyDeviceToHost));
    return r;
}

static void result_free(Result* r) {
    free(r->atty);
    free(r->lse);
    free(r->dqkv);
}

static bool same_bits(const Problem* p, const Result* a, const Result* b, int from, int to) {
    bool same = true;
    size_t OW = out_width(p), W = qkv_width(p), n = to - from;
    same = same && !memcmp(a->atty + from * OW, b->atty + from * OW, sizeof(float) * n * OW);
    same = same && !memcmp(a->dqkv + from * W, b->dqkv + from * W, sizeof(float) * n * W);
    for (int h = 0; h < p->NH; h++)
        same = same && !memcmp(a->lse + (size_t)h * p->T + from, b->lse + (size_t)h * p->T + from, sizeof(float) * n);
    return same;
}

static void check_result(const char* name, const Problem* p, const Result* a, const Reference* b) {
    char full[160];
    int W = qkv_width(p), q_end = p->NH * p->HS, k_end = q_end + p->NKV * p->HS;
    snprintf(full, sizeof(full), "%s atty", name);
    check_tensor(full, a->atty, b->atty, (long)p->T * out_width(p));
    snprintf(full, sizeof(full), "%s lse", name);  // fp32 from exact products in both precisions
    check_close(full, a->lse, b->lse, (long)p->T * p->NH, 1e-5);
    if (p->T > p->n_seq) {
        snprintf(full, sizeof(full), "%s dq", name);
        check_columns(full, a->dqkv, b->dqkv, p->T, W, 0, q_end);
        snprintf(full, sizeof(full), "%s dk", name);
        check_columns(full, a->dqkv, b->dqkv, p->T, W, q_end, k_end);
    } else {
        // Every sample is one token: dP equals delta, so dq and dk are zero in exact arithmetic and what rounding
        // leaves has no scale of its own. They are held against their fused tensor.
        snprintf(full, sizeof(full), "%s dqkv", name);
        check_tensor(full, a->dqkv, b->dqkv, (long)p->T * W);
    }
    snprintf(full, sizeof(full), "%s dv", name);
    check_columns(full, a->dqkv, b->dqkv, p->T, W, k_end, W);
    check(a->tails_kept, "%s: the tails of the rows are untouched", name);
}

#ifndef PRECISION_BF16
// d/dε of Σ atty ∘ dout along a random direction, for queries, keys and values apart: central differences of the fp32
// forward pass.
static void check_finite_differences(const char* name, Problem* p, const Result* a) {
    int W = qkv_width(p), OW = out_width(p), edges[] = {0, p->NH * p->HS, (p->NH + p->NKV) * p->HS, W};
    const char* part[] = {"dq", "dk", "dv"};
    const float step =
        1e-2f;  // the error falls with step² and rises with fp32 rounding / step; both are near 1e-5 here
    float* moved = (float*)malloc(sizeof(float) * p->T * W);
    float* direction = (float*)malloc(sizeof(float) * p->T * W);
    for (int which = 0; which < 3; which++) {
        double slope = 0.0, size = 0.0, value[2];
        for (int i = 0; i < p->T * W; i++) {
            direction[i] = i % W >= edges[which] && i % W < edges[which + 1] ? (harness_random() < 0 ? -1.0f : 1.0f)
                                                                             : 0.0f;
            slope += (double)a->dqkv[i] * direction[i];
            size += direction[i] != 0.0f ? (double)a->dqkv[i] * a->dqkv[i] : 0.0;
        }
        for (int side = 0; side < 2; side++) {
            for (int i = 0; i < p->T * W; i++) moved[i] = p->qkv[i] + (side ? step : -step) * direction[i];
            cudaCheck(cudaFree(p->d_qkv));
            p->d_qkv = upload_rows(moved, p->T, W, p->ldq);
            winner_forward(p, 0);
            bool tails;
            float* atty = download_rows(p->d_atty, p->T, OW, p->ldo, &tails);
            value[side] = dot(atty, p->dout, p->T * OW);
            free(atty);
        }
        double measured = (value[1] - value[0]) / (2.0 * step);
        // slope is a sum of random signs, of the size sqrt(Σ d²)
        check(fabs(measured - slope) <= 1e-3 * sqrt(size), "%s %s by finite differences: %.6g against %.6g", name,
              part[which], measured, slope);
    }
    cudaCheck(cudaFree(p->d_qkv));
    p->d_qkv = upload_rows(p->qkv, p->T, W, p->ldq);
    free(moved);
    free(direction);
}

#endif

// Another content of the middle sample must not move a bit of its neighbours.
static void check_neighbours(const char* name, Problem* p, const Result* before) {
    int middle = p->n_seq / 2, from = p->cu_seqlens[middle], to = p->cu_seqlens[middle + 1], W = qkv_width(p);
    float* moved = (float*)malloc(sizeof(float) * p->T * W);
    memcpy(moved, p->qkv, sizeof(float) * p->T * W);
    for (int i = from * W; i < to * W; i++) moved[i] = 3.0f * to_float(from_float<floatX>(harness_random()));
    cudaCheck(cudaFree(p->d_qkv));
    p->d_qkv = upload_rows(moved, p->T, W, p->ldq);
    Result after = run(p, winner_forward, winner_backward);
    check(same_bits(p, before, &after, 0, from) && same_bits(p, before, &after, to, p->T) &&
              !same_bits(p, before, &after, from, to),
          "%s: a sample's bits do not depend on its neighbours", name);
    result_free(&after);
    cudaCheck(cudaFree(p->d_qkv));
    p->d_qkv = upload_rows(p->qkv, p->T, W, p->ldq);
    free(moved);
}

struct Case {
    const char* name;
    int HS, NH, NKV, n_seq, lengths[12], repeat;  // repeat > 1: that many samples, of the given lengths in turn
    bool small, ladder, differences;
    bool steep;  // scores grow by STEEPNESS per token: forward has to scale its sums down again and again, or they
                 // overflow
    int window = 0;
    float cap = 0.0f;
    int rotary = 0;
};

static const Case cases[] = {
    {"grouped-32", 32, 3, 1, 3, {9, 1, 70}, 1, true, true, true, false},
    {"grouped-80", 80, 2, 1, 2, {3, 66}, 1, true, true, false, false},
    {"wide-256", 256, 1, 1, 2, {3, 66}, 1, true, false, false, false},
    {"two-steps-128", 128, 2, 1, 1, {40}, 1, true, false, false, false},  // one stage on GPUs with 99 KiB per block
    {"edges-64", 64, 2, 2, 8, {63, 64, 65, 1, 127, 128, 129, 2}, 1, false, true, true, false},
    {"edges-256", 256, 2, 1, 3, {65, 130, 31}, 1, false, true, true, false},
    {"edges-128", 128, 3, 1, 4, {65, 191, 1, 64}, 1, false, true, true, false},
    {"edges-96", 96, 3, 1, 3, {129, 17, 63}, 1, false, true, true, false},
    {"edges-80", 80, 4, 2, 3, {65, 128, 33}, 1, false, false, true, false},
    {"edges-32", 32, 6, 2, 4, {127, 1, 192, 31}, 1, false, false, true, false},
    {"long-64", 64, 1, 1, 1, {517}, 1, false, false, false, false},
    {"steep-128", 128, 2, 1, 2, {300, 70}, 1, false, false, false, true},
    {"steep-32", 32, 2, 1, 1, {200}, 1, true, false, false, true},
    {"many-64", 64, 4, 2, 3, {1, 13, 7}, 60, false, false, false, false},
    {"singles-64", 64, 3, 1, 1, {1}, 5, false, false, false, false},
    // windows: within a tile, a tile's width and its neighbours, over tiles, the whole sample and more
    {"window7-32", 32, 3, 1, 3, {9, 1, 140}, 1, true, false, true, false, 7},
    {"window2-64", 64, 2, 1, 2, {5, 66}, 1, false, false, false, false, 2},
    {"window63-64", 64, 2, 2, 3, {200, 64, 129}, 1, false, false, true, false, 63},
    {"window64-80", 80, 2, 1, 2, {300, 65}, 1, true, false, true, false, 64},
    {"window65-128", 128, 4, 2, 2, {257, 191}, 1, false, false, true, false, 65},
    {"window100-96", 96, 3, 1, 2, {129, 400}, 1, false, false, true, false, 100},
    {"window33-256", 256, 2, 1, 2, {150, 31}, 1, true, false, true, false, 33},
    {"window200-256", 256, 1, 1, 1, {517}, 1, false, false, false, false, 200},
    {"window500-64", 64, 2, 1, 2, {300, 100}, 1, false, false, false, false, 500},
    {"window40-steep-128", 128, 2, 1, 2, {300, 70}, 1, false, false, false, true, 40},
    // caps, far below the scores and far above them
    {"cap2-32", 32, 3, 1, 3, {9, 1, 70}, 1, true, false, true, false, 0, 2.0f},
    {"cap50-256", 256, 2, 1, 2, {130, 31}, 1, false, false, true, false, 0, 50.0f},
    {"cap1-window50-256", 256, 2, 1, 2, {3, 150}, 1, true, false, true, false, 50, 1.0f},
    {"cap5-window70-128", 128, 3, 1, 2, {200, 65}, 1, false, false, true, false, 70, 5.0f},
    {"cap3-80", 80, 2, 1, 1, {100}, 1, false, false, true, false, 0, 3.0f},
    // rotary positions that backward turns back: whole heads, parts of them, with a window, with a cap
    {"turned-32", 32, 3, 1, 3, {9, 1, 70}, 1, true, false, false, false, 0, 0.0f, 32},
    {"turned-64", 64, 2, 2, 2, {65, 30}, 1, false, false, false, false, 0, 0.0f, 64},
    {"turned-80", 80, 2, 1, 2, {17, 66}, 1, true, false, false, false, 0, 0.0f, 80},
    {"turned-20-of-80", 80, 2, 1, 2, {17, 66}, 1, true, false, false, false, 0, 0.0f, 20},
    {"turned-96", 96, 2, 1, 1, {70}, 1, false, false, false, false, 0, 0.0f, 96},
    {"turned-128", 128, 4, 2, 2, {130, 31}, 1, false, false, false, false, 0, 0.0f, 128},
    {"turned-256", 256, 2, 1, 1, {70}, 1, false, false, false, false, 0, 0.0f, 256},
    {"turned-window40-128", 128, 2, 1, 1, {100}, 1, false, false, false, false, 40, 0.0f, 128},
    {"turned-cap5-64", 64, 2, 1, 1, {100}, 1, false, false, false, false, 0, 5.0f, 64},
};

static void check_case(const Case* c) {
    if (!attention_head_size_supported(c->HS))
        return check_skip(c->name, "this device gives a block too little shared memory");
    int n_seq = c->repeat > 1 ? c->repeat : c->n_seq;
    int* lengths = (int*)malloc(sizeof(int) * n_seq);
    for (int s = 0; s < n_seq; s++) lengths[s] = c->lengths[s % c->n_seq];
    Problem p = problem_create(lengths, n_seq, c->NH, c->NKV, c->HS, c->steep);
    p.window = c->window, p.cap = c->cap;
    if (c->rotary) problem_turn(&p, c->rotary);
    Reference reference = reference_create(&p);
    Result first = run(&p, winner_forward, winner_backward), second = run(&p, winner_forward, winner_backward);
    check_result(c->name, &p, &first, &reference);
    check(same_bits(&p, &first, &second, 0, p.T), "%s: two equal runs give equal bits", c->name);
    if (n_seq > 2) check_neighbours(c->name, &p, &first);
#ifndef PRECISION_BF16
    if (c->differences) check_finite_differences(c->name, &p, &first);
#endif
    for (size_t i = 0; i + 1 < N_STEPS && c->ladder; i++) {
        if (!has_step(i, c->HS)) continue;
        char name[80];
        snprintf(name, sizeof(name), "%s %s", steps[i].name, c->name);
        Result result = run(&p, steps[i].forward, steps[i].backward);
        check_result(name, &p, &result, &reference);
        result_free(&result);
    }
    result_free(&first);
    result_free(&second);
    reference_free(&reference);
    problem_free(&p);
    free(lengths);
}

// The tile table: every tile of every sample once, even ones first, both longest first, nothing for an empty sample.
static void check_tiles(void) {
    const int cu_seqlens[] = {0, 1, 65, 65, 258, 322};  // lengths 1, 64, 0, 193, 64
    int tiles[2 * 16], seen[5][4] = {{0}}, n_even = 0, n = attention_tiles(NULL, &n_even, cu_seqlens, 5);
    check(n == 7 && n_even == 5 && attention_tiles(tiles, &n_even, cu_seqlens, 5) == n && n_even == 5,
          "tile table: 7 tiles, 5 of them even");
    bool ordered = true, whole = true;
    for (int i = 0; i < n; i++) {
        seen[tiles[2 * i]][tiles[2 * i + 1]]++;
        if (tiles[2 * i + 1] % 2 != (i >= n_even)) ordered = false;
        if (i && i != n_even && tiles[2 * i + 1] > tiles[2 * i - 1]) ordered = false;
    }
    for (int s = 0; s < 5; s++)
        for (int t = 0; t < 4; t++)
            whole = whole && seen[s][t] == (t * ATTENTION_TILE < cu_seqlens[s + 1] - cu_seqlens[s]);
    check(ordered && whole, "tile table: every tile once, even ones and then odd ones, longest first");
    check(!attention_head_size_supported(48) && attention_head_size_supported(64),
          "head sizes: 64 is supported on every GPU, 48 is not");
}

// ---------------------------------------------------------------------------------------------------
// benchmark

// FLOP/s of multiply-adds whose operands never leave the registers: mma.sync in bf16, FMA in fp32. 0 on the CPU, whose
// emulated figure says nothing about a kernel.
#ifdef __CUDACC__
#define CEILING_BLOCKS 1056  // some blocks for each SM of any GPU
#define CEILING_THREADS 256
#define CEILING_STEPS 4096
#define CEILING_TILES 8  // independent accumulators, to hide the latency
static __global__ void ceiling_kernel(float* out) {
    float c[CEILING_TILES][4] = {{0.0f}};
#ifdef PRECISION_BF16
    uint32_t a[4] = {threadIdx.x, 1, 2, 3}, b[2] = {4, threadIdx.x};
#endif
    for (int step = 0; step < CEILING_STEPS; step++) {
#ifdef PRECISION_BF16
        UNROLL for (int i = 0; i < CEILING_TILES; i++) mma_m16n8k16(c[i], a, b);
#else
        UNROLL for (int i = 0; i < CEILING_TILES; i++) UNROLL for (int e = 0; e < 4; e++)
            c[i][e] = fmaf(c[i][e], 0.999f, 1e-3f * i);
#endif
    }
    float sum = 0.0f;
    for (int i = 0; i < CEILING_TILES; i++)
        for (int e = 0; e < 4; e++) sum += c[i][e];
    if (sum == 1.2345f) out[threadIdx.x] = sum;  // never, but the compiler cannot know
}
static void ceiling_run(void* data, cudaStream_t stream) {
    LAUNCH(ceiling_kernel, CEILING_BLOCKS, CEILING_THREADS, 0, stream, (float*)data);
}
#endif

static double measure_ceiling(void) {
#ifdef __CUDACC__
#ifdef PRECISION_BF16
    double flop = 2.0 * 16 * 8 * 16 / WARP_SIZE;  // of a thread in a step and tile
#else
    double flop = 2.0 * 4;
#endif
    float* out;
    cudaCheck(cudaMalloc((void**)&out, sizeof(float) * CEILING_THREADS));
    double seconds = harness_time(ceiling_run, out);
    cudaCheck(cudaFree(out));
    return flop * CEILING_TILES * CEILING_STEPS * CEILING_BLOCKS * CEILING_THREADS / seconds;
#else
    return 0.0;
#endif
}

// Seconds of a pass: on the CPU those of the processor, which other programs do not add to.
static double report(const char* name, Problem* p, AttentionPass pass, double flop, double ceiling) {
    double seconds = harness_time(pass, p);
    printf("%-24s %10.3f ms %10.1f GFLOP/s", name, seconds * 1e3, flop / seconds * 1e-9);
    if (ceiling > 0.0) printf("  %5.1f%% of the ceiling", 100.0 * flop / seconds / ceiling);
    printf("\n");
    fflush(stdout);
#ifdef __CUDACC__
    return seconds;
#else
    double least = INFINITY;
    for (int i = 0; i < 3; i++) {
        clock_t before = clock();
        pass(p, 0);
        cudaCheck(cudaDeviceSynchronize());
        double used = (double)(clock() - before) / CLOCKS_PER_SEC;
        if (used < least) least = used;
    }
    return least;
#endif
}

// seconds: of the winner's forward and backward.
static void benchmark(int samples, int length, int NH, int NKV, int HS, int window, bool winner_only,
                      double seconds[2]) {
    int* lengths = (int*)malloc(sizeof(int) * samples);
    for (int s = 0; s < samples; s++) lengths[s] = length;
    Problem p = problem_create(lengths, samples, NH, NKV, HS, false);
    p.window = window;
    // two products, the lower triangle only, and of that the band of the window
    double left = window && window < length ? length - window : 0.0,
           pairs = 0.5 * length * (length + 1.0) - 0.5 * left * (left + 1.0), forward = 4.0 * HS * NH * samples * pairs;
    double ceiling = measure_ceiling();
    printf("attention " FLOATX_NAME
           ", %d samples of %d tokens, %d heads, %d key-value heads, head size %d, causal; backward counted as 2.5 "
           "forward\n",
           samples, length, NH, NKV, HS);
    if (ceiling > 0.0) printf("ceiling: %.0f GFLOP/s, multiply-adds in registers\n", ceiling * 1e-9);
    if (window)
        printf("a window of %d: %.0f%% of the lower triangle\n", window,
               100.0 * pairs / (0.5 * length * (length + 1.0)));
    for (int backward = 0; backward < 2; backward++)
        for (size_t i = 0; i < N_STEPS; i++) {
            if (!has_step(i, HS) || (winner_only && steps[i].forward != winner_forward)) continue;
            char name[80];
            snprintf(name, sizeof(name), "%s: %s", backward ? "backward" : "forward", steps[i].name);
            double used = report(name, &p, backward ? steps[i].backward : steps[i].forward,
                                 (backward ? 2.5 : 1.0) * forward, ceiling);
            if (steps[i].forward == winner_forward) seconds[backward] = used;
        }
    problem_free(&p);
    free(lengths);
}

int main(int argc, char** argv) {
#ifdef __CUDACC__
    int samples = 8, length = 2048, NH = 32, NKV = 8, HS = 128, window = 0, winner = 0;  // Llama-3-8B
#else
    int samples = 1, length = 512, NH = 12, NKV = 12, HS = 64, window = 0, winner = 0;  // GPT-2
#endif
    const HarnessOption options[] = {
        {"--samples", &samples, 1, "samples in the pack"},
        {"--length", &length, 1, "tokens of each"},
        {"--heads", &NH, 1, "query heads"},
        {"--kv-heads", &NKV, 1, "key-value heads"},
        {"--head-size", &HS, 1, "32, 64, 80, 96, 128, 256"},
        {"--window", &window, 0, "tokens that a token attends to, measured after all of them; 0: all"},
        {"--winner", &winner, 0, "1: without the steps before it"},
    };
    harness_options(argc, argv, options, sizeof(options) / sizeof(options[0]));
    if (harness_check) {
        check_tiles();
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
            if (cases[i].small || !harness_small) check_case(&cases[i]);
        return check_report();
    }
    if (!attention_head_size_supported(HS) || NH % NKV) {
        fprintf(stderr,
                "attention: --head-size is 32, 64, 80, 96, 128 or 256 (where a block may have so much shared memory), "
                "and --heads a multiple of --kv-heads\n");
        return 2;
    }
    double full[2] = {0.0, 0.0}, local[2] = {0.0, 0.0};
    benchmark(samples, length, NH, NKV, HS, 0, window > 0 || winner, full);
    if (!window) return 0;
    benchmark(samples, length, NH, NKV, HS, window, true, local);
    printf("the window is %.2f times as fast forward, %.2f backward, %.2f together\n", full[0] / local[0],
           full[1] / local[1], (full[0] + full[1]) / (local[0] + local[1]));
    return 0;
}
