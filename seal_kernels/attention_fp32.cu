/*
Causal variable-length attention in fp32 arithmetic, forward and backward: plain tiled kernels without tensor cores, for
fp32 builds and for the CPU in bf16 (it has no tensor cores; emulating them is half of a training step's time there).
Every product is an outer product of COLS scalars and ROWS neighbouring rows kept in registers, so the rows run along a
vector: queries in forward and dq, keys in dk and dv. No sum ever crosses a lane, a row past the sample's end can hold
anything, and on the CPU a lane group is one AVX-512 register.
*/
#include "attention.h"

#if !defined(PRECISION_BF16) || !DEVICE_HALVES
#include "ptx.h"

#define TILE ATTENTION_TILE
#define SPAN(HS)           \
    ((HS) > 128 ? TILE / 2 \
                : TILE)  // keys (in dk, dv: queries) of one step: at head size 256 no more fit into shared memory
#define WIDTH(HS) \
    ((HS) > 128   \
         ? 128    \
         : (HS))  // columns of dk and dv a block owns: more would take more threads than there are registers for
#define COLS 8    // a thread's register tile is COLS × ROWS

// ---------------------------------------------------------------------------------------------------
// Rows: one value for each of ROWS neighbouring rows. nvcc unrolls a struct of floats into registers. Whether g++
// vectorises such loops hangs on trifles, and this file's speed hangs on it, so there Rows is g++'s vector type, which
// has the same operators: one register, so that a tile of accumulators stays in registers. 8 rows leave a GPU thread
// room for three such tiles.
#if DEVICE_HALVES
#define ROWS 8
#define PIECE(HS) VEC  // elements of a row that one thread copies: neighbouring threads, neighbouring addresses
typedef struct {
    float v[ROWS];
} Rows;
#define ROWS_RETURN(expression)                                  \
    Rows x;                                                      \
    UNROLL for (int r = 0; r < ROWS; r++) x.v[r] = (expression); \
    return x
static __device__ __forceinline__ Rows operator+(Rows a, Rows b) { ROWS_RETURN(a.v[r] + b.v[r]); }
static __device__ __forceinline__ Rows operator-(Rows a, Rows b) { ROWS_RETURN(a.v[r] - b.v[r]); }
static __device__ __forceinline__ Rows operator*(Rows a, Rows b) { ROWS_RETURN(a.v[r] * b.v[r]); }
static __device__ __forceinline__ Rows operator*(float a, Rows b) { ROWS_RETURN(a * b.v[r]); }
static __device__ __forceinline__ Rows rows_fill(float a) { ROWS_RETURN(a); }
static __device__ __forceinline__ Rows rows_max(Rows a, Rows b) { ROWS_RETURN(fmaxf(a.v[r], b.v[r])); }
static __device__ __forceinline__ Rows rows_inverse(Rows a) { ROWS_RETURN(1.0f / a.v[r]); }
static __device__ __forceinline__ Rows rows_exp2(Rows a) { ROWS_RETURN(exp2f(a.v[r])); }
// rows lo … hi keep their value, the others become `otherwise`
static __device__ __forceinline__ Rows rows_keep(Rows a, int lo, int hi, float otherwise) {
    ROWS_RETURN(r >= lo && r <= hi ? a.v[r] : otherwise);
}
static __device__ __forceinline__ Rows rows_select_small(Rows a, float bound, Rows small, Rows large) {
    ROWS_RETURN(a.v[r] <= bound ? small.v[r] : large.v[r]);
}
static __device__ __forceinline__ Rows rows_load(const float* p) {
    float8 a = load8(p);
    ROWS_RETURN(a.v[r]);
}
static __device__ __forceinline__ void rows_store(float* p, Rows x) {
    float8 a;
    UNROLL for (int r = 0; r < ROWS; r++) a.v[r] = x.v[r];
    store8(p, a);
}
#else
#define PIECE(HS) (HS)  // a whole row: less arithmetic for each element
#ifdef __AVX512F__
#define ROWS 16
#define ROW_NUMBERS \
    { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 }
#else
#define ROWS 8
#define ROW_NUMBERS \
    { 0, 1, 2, 3, 4, 5, 6, 7 }
#endif
// How wide vectors are passed to functions differs between instruction sets; here they never are, everything is
// inlined.
#pragma GCC diagnostic ignored "-Wpsabi"
typedef float Rows __attribute__((vector_size(ROWS * sizeof(float))));
typedef int RowsInt __attribute__((vector_size(ROWS * sizeof(int))));
static const RowsInt row_numbers = ROW_NUMBERS;
static __device__ __forceinline__ Rows rows_fill(float a) { return a - (Rows){0.0f}; }
static __device__ __forceinline__ Rows rows_max(Rows a, Rows b) { return a > b ? a : b; }
static __device__ __forceinline__ Rows rows_inverse(Rows a) { return 1.0f / a; }
static __device__ __forceinline__ Rows rows_keep(Rows a, int lo, int hi, float otherwise) {
    return ((row_numbers >= lo) & (row_numbers <= hi)) ? a : rows_fill(otherwise);
}
static __device__ __forceinline__ Rows rows_select_small(Rows x, float bound, Rows small, Rows large) {
    return x <= bound ? small : large;
}
static __device__ __forceinline__ Rows rows_load(const float* p) {
    Rows x;
    __builtin_memcpy(&x, p, sizeof(x));
    return x;
}
static __device__ __forceinline__ void rows_store(float* p, Rows x) { __builtin_memcpy(p, &x, sizeof(x)); }
// 2^x = 2^n · 2^f with n the nearest integer and |f| ≤ ½; a polynomial through the Chebyshev nodes for 2^f, within 7e-8
// of it. libm's exp2f takes one number at a time. Below −127 the result is 0, NaN stays NaN, +∞ (which no row holds:
// arguments are ≤ 0 up to rounding) is NaN.
static __device__ __forceinline__ Rows rows_exp2(Rows x) {
    const float shift = 12582912.0f;  // 1.5 · 2^23: adding it leaves the nearest integer in the low bits
    x = x < -127.0f ? rows_fill(-127.0f) : x;
    Rows shifted = x + shift, f = x - (shifted - shift);
    Rows y = 1.54531634e-4f * f + 1.33908633e-3f;
    y = y * f + 9.61808302e-3f;
    y = y * f + 5.55035695e-2f;
    y = y * f + 2.40226507e-1f;
    y = y * f + 6.93147182e-1f;
    y = y * f + 1.0f;
    RowsInt exponent = ((RowsInt)shifted - 0x4b400000 + 127)
                       << 23;  // multiplied, not added to y's bits, so that a NaN survives
    return y * (Rows)exponent;
}
#endif
#define GROUPS (TILE / ROWS)  // groups of rows in a tile

// tanh |x| = (1 − e) / (1 + e), e = exp(−2|x|), and by its series where that would cancel: |x| ≤ ¼, the first term left
// out is 9e-9.
static __device__ __forceinline__ Rows rows_tanh(Rows x) {
    const Rows zero = rows_fill(0.0f), one = rows_fill(1.0f);
    Rows e = rows_exp2((-2.0f * LOG2E) * rows_max(x, zero - x)), wide = (one - e) * rows_inverse(one + e), y = x * x;
    Rows series = 2.18694885e-2f * y - rows_fill(5.39682540e-2f);
    series = series * y + rows_fill(1.33333333e-1f);
    series = series * y - rows_fill(3.33333333e-1f);
    series = x + x * y * series;
    return rows_select_small(y, 0.0625f, series, rows_select_small(x, 0.0f, zero - wide, wide));
}

// ---------------------------------------------------------------------------------------------------
// pieces of the kernels

// acc (COLS, ROWS) += Σ_k a(k, c) · b(k, row) for k in [begin, end), b with the row length TILE. The only hot loop of
// this file.
template <int COL_STRIDE, int K_STRIDE>
static inline __device__ void tile_product(Rows (&acc)[COLS], const float* a, const float* b, int begin, int end) {
    for (int k = begin; k < end; k++) {
        Rows x = rows_load(b + k * TILE);
        UNROLL for (int c = 0; c < COLS; c++) acc[c] = acc[c] + a[c * COL_STRIDE + k * K_STRIDE] * x;
    }
}

// dst (n, HS; HS + 4) = n rows of src (ld). The padding spreads the rows over the banks of shared memory.
template <int HS> static inline __device__ void load_rows(float* dst, const floatX* src, int ld, int n) {
    for (int x = threadIdx.x; x < n * (HS / PIECE(HS)); x += blockDim.x) {
        int row = x / (HS / PIECE(HS)), d0 = x % (HS / PIECE(HS)) * PIECE(HS);
        float* to = dst + row * (HS + 4) + d0;
        const floatX* from = src + (size_t)row * ld + d0;
        UNROLL for (int d = 0; d < PIECE(HS); d += VEC) store8(to + d, load8(from + d));
    }
}

// dst (HS, TILE) = n rows of src (ld), transposed. Threads run along the rows: their stores fall into different banks.
template <int HS> static inline __device__ void load_transposed(float* dst, const floatX* src, int ld, int n) {
    for (int x = threadIdx.x; x < TILE * (HS / PIECE(HS)); x += blockDim.x) {
        int row = x % TILE, d0 = x / TILE * PIECE(HS);
        if (row >= n) continue;
        for (int d = d0; d < d0 + PIECE(HS); d += VEC) {
            float8 a = load8(src + (size_t)row * ld + d);
            UNROLL for (int k = 0; k < VEC; k++) dst[(d + k) * TILE + row] = a.v[k];
        }
    }
}

// the first n of ROWS rows of dst (ld), COLS elements each = factor · acc
static __device__ __forceinline__ void store_tile(floatX* dst, int ld, const Rows (&acc)[COLS], Rows factor, int n) {
    float out[COLS][ROWS];
    UNROLL for (int c = 0; c < COLS; c++) rows_store(out[c], acc[c] * factor);
    UNROLL for (int r = 0; r < ROWS; r++) {
        if (r >= n) break;
        float8 row;
        UNROLL for (int c = 0; c < COLS; c++) row.v[c] = out[c][r];
        store8(dst + (size_t)r * ld, row);
    }
}

// one number per row, of which only n exist in memory
static __device__ __forceinline__ Rows load_statistics(const float* p, int n) {
    float x[ROWS];
    UNROLL for (int r = 0; r < ROWS; r++) x[r] = r < n ? p[r] : 0.0f;
    return rows_load(x);
}

static inline __device__ void zero_tile(Rows (&acc)[COLS]) {
    UNROLL for (int c = 0; c < COLS; c++) acc[c] = rows_fill(0.0f);
}

// ---------------------------------------------------------------------------------------------------
// kernels. A thread has the rows `group` of the block's tile and up to two tasks with them, picked by `column`: COLS
// columns of the score tile and COLS elements of the result. The scores, softmaxed, pass through shared memory from the
// first task to the second.

#define SCORES(HS) (SPAN(HS) / COLS)                                 // columns of threads that compute scores
template <int HS> static constexpr int block_threads(int results) {  // of so many columns; a whole number of warps
    return CEIL_DIV(GROUPS * (results / COLS > SCORES(HS) ? results / COLS : SCORES(HS)), WARP_SIZE) * WARP_SIZE;
}

template <int HS> static constexpr size_t forward_shared() {
    return sizeof(float) * (HS * TILE + 2 * SPAN(HS) * (HS + 4) + SPAN(HS) * TILE + SCORES(HS) * TILE);
}

template <int HS>
static __global__ void __launch_bounds__(block_threads<HS>(HS))
    attention_forward_kernel(floatX* atty, float* lse, AttentionArgs args) {
    constexpr int LD = HS + 4, SPAN = SPAN(HS), SCORES = SCORES(HS);
    EXTERN_SHARED(float, qT);           // (HS, TILE)
    float* k = qT + HS * TILE;          // (SPAN, HS; LD)
    float* v = k + SPAN * LD;           // (SPAN, HS; LD)
    float* pT = v + SPAN * LD;          // (SPAN keys, TILE queries)
    float* partial = pT + SPAN * TILE;  // (SCORES, TILE): each task's row maxima, at the end its row sums

    AttentionBlock block = attention_block(args, args.NH);
    int kv_head = block.head / (args.NH / args.NKV), row0 = block.tile * TILE, n_q = min(TILE, block.length - row0);
    int group = threadIdx.x % GROUPS, column = threadIdx.x / GROUPS, i0 = group * ROWS, c0 = column * COLS;
    size_t first_row = (size_t)block.start + row0;
    const floatX* keys = args.qkv + (size_t)block.start * args.ldq + (args.NH + kv_head) * HS;
    float scale_log2 = args.scale * LOG2E;  // softmax in powers of two: one multiplication less an element

    load_transposed<HS>(qT, args.qkv + first_row * args.ldq + block.head * HS, args.ldq, n_q);
    Rows m = rows_fill(LOWEST_SCORE), l = rows_fill(0.0f), acc[COLS], s[COLS] = {};
    zero_tile(acc);
    for (int k0 = first_key(args, row0) / SPAN * SPAN; k0 < row0 + n_q; k0 += SPAN) {
        int n_k = min(SPAN, block.length - k0);
        int unseen = max(0, first_key(args, row0 + i0) - k0);  // keys of this step which no row of the group sees yet
        int seen = i0 >= n_q
                       ? 0
                       : max(0, min(n_k, row0 + i0 + ROWS - k0));  // keys of this step which some row of the group sees
        bool scores = column < SCORES && c0 < seen && c0 + COLS > unseen;
        bool edge = args.window && k0 + args.window < row0 + TILE;  // some row's window begins here
        __syncthreads();                                            // the readers of the last step are done
        load_rows<HS>(k, keys + (size_t)k0 * args.ldq, args.ldq, n_k);
        load_rows<HS>(v, keys + (size_t)k0 * args.ldq + args.NKV * HS, args.ldq, n_k);
        __syncthreads();
        if (scores) {
            zero_tile(s);
            tile_product<LD, 1>(s, k + c0 * LD, qT + i0, 0, HS);
            Rows highest = rows_fill(-INFINITY);
            UNROLL for (int c = 0; c < COLS; c++) {
                s[c] = args.cap ? (args.cap * LOG2E) * rows_tanh((args.scale / args.cap) * s[c]) : scale_log2 * s[c];
                // the mask also covers keys past the sample's end: no row of the sample comes after them
                int own = k0 - row0 + c0 + c - i0;  // the row that is this key's
                if (k0 >= row0 || edge) s[c] = rows_keep(s[c], own, edge ? own + args.window - 1 : ROWS, -INFINITY);
                highest = rows_max(highest, s[c]);
            }
            rows_store(partial + column * TILE + i0, highest);
        }
        __syncthreads();
        Rows before = m;
        for (int c = unseen / COLS; c * COLS < seen; c++) m = rows_max(m, rows_load(partial + c * TILE + i0));
        Rows shrink = rows_exp2(before - m);
        l = l * shrink;
        if (scores) {
            UNROLL for (int c = 0; c < COLS; c++) {
                Rows p = rows_exp2(s[c] - m);
                l = l + p;
                rows_store(pT + (c0 + c) * TILE + i0, p);
            }
        }
        __syncthreads();
        if (c0 < HS && seen > 0) {
            UNROLL for (int c = 0; c < COLS; c++) acc[c] = acc[c] * shrink;
            tile_product<1, LD>(acc, v + c0, pT + i0, unseen, seen);
        }
    }

    if (column < SCORES) rows_store(partial + column * TILE + i0, l);
    __syncthreads();
    Rows total = rows_fill(0.0f);
    for (int c = 0; c < SCORES; c++) total = total + rows_load(partial + c * TILE + i0);
    int n = min(ROWS, n_q - i0);
    if (c0 < HS && n > 0)
        store_tile(atty + (first_row + i0) * args.ldo + block.head * HS + c0, args.ldo, acc, rows_inverse(total), n);
    if (column == 0) {
        float highest[ROWS], sum[ROWS];
        rows_store(highest, m);
        rows_store(sum, total);
        UNROLL for (int r = 0; r < ROWS; r++) if (r < n)
            lse[(size_t)block.head * args.T + first_row + i0 + r] = (highest[r] + log2f(sum[r])) * LN2;
    }
}

// delta (NH, T), four lanes a (token, head). In bf16 dq computes it; here a block's rows lie along vectors, not lanes.
static __global__ void attention_delta_kernel(AttentionArgs args) {
    unsigned i = (blockIdx.x * blockDim.x + threadIdx.x) / 4, t = i / args.NH, head = i % args.NH;
    size_t at = (size_t)t * args.ldo + head * args.HS;
    float total[1] = {0.0f};
    if (t < (unsigned)args.T) total[0] = delta_part(args.datty + at, args.atty + at, args.HS, threadIdx.x % 4);
    quad_sum(total);
    if (t < (unsigned)args.T && threadIdx.x % 4 == 0) args.delta[(size_t)head * args.T + t] = total[0];
}

template <int HS> static constexpr size_t dq_shared() {
    return sizeof(float) * (2 * HS * TILE + 2 * SPAN(HS) * (HS + 4) + SPAN(HS) * TILE);
}

// dq (TILE rows of one query head) = scale · Σ over keys of dS K, dS = P ∘ (dP − delta), dP = dO Vᵀ
template <int HS>
static __global__ void __launch_bounds__(block_threads<HS>(HS)) attention_dq_kernel(floatX* dqkv, AttentionArgs args) {
    constexpr int LD = HS + 4, SPAN = SPAN(HS);
    EXTERN_SHARED(float, qT);       // (HS, TILE)
    float* doutT = qT + HS * TILE;  // (HS, TILE)
    float* k = doutT + HS * TILE;   // (SPAN, HS; LD)
    float* v = k + SPAN * LD;       // (SPAN, HS; LD)
    float* dsT = v + SPAN * LD;     // (SPAN keys, TILE queries)

    AttentionBlock block = attention_block(args, args.NH);
    int kv_head = block.head / (args.NH / args.NKV), row0 = block.tile * TILE, n_q = min(TILE, block.length - row0);
    int group = threadIdx.x % GROUPS, column = threadIdx.x / GROUPS, i0 = group * ROWS, c0 = column * COLS,
        n = n_q - i0;
    size_t first_row = (size_t)block.start + row0;
    const floatX* keys = args.qkv + (size_t)block.start * args.ldq + (args.NH + kv_head) * HS;
    float scale_log2 = args.scale * LOG2E;

    load_transposed<HS>(qT, args.qkv + first_row * args.ldq + block.head * HS, args.ldq, n_q);
    load_transposed<HS>(doutT, args.datty + first_row * args.ldo + block.head * HS, args.ldo, n_q);
    size_t statistics = (size_t)block.head * args.T + first_row + i0;
    Rows lse = LOG2E * load_statistics(args.lse + statistics, n), delta = load_statistics(args.delta + statistics, n);
    Rows acc[COLS], s[COLS], dp[COLS];
    zero_tile(acc);
    for (int k0 = first_key(args, row0) / SPAN * SPAN; k0 < row0 + n_q; k0 += SPAN) {
        int n_k = min(SPAN, block.length - k0);
        int seen = n <= 0 ? 0 : max(0, min(n_k, row0 + i0 + ROWS - k0));
        int unseen = max(0, first_key(args, row0 + i0) - k0);
        bool edge = args.window && k0 + args.window < row0 + TILE;
        __syncthreads();
        load_rows<HS>(k, keys + (size_t)k0 * args.ldq, args.ldq, n_k);
        load_rows<HS>(v, keys + (size_t)k0 * args.ldq + args.NKV * HS, args.ldq, n_k);
        __syncthreads();
        if (column < SCORES(HS) && c0 < seen && c0 + COLS > unseen) {
            zero_tile(s);
            zero_tile(dp);
            tile_product<LD, 1>(s, k + c0 * LD, qT + i0, 0, HS);
            tile_product<LD, 1>(dp, v + c0 * LD, doutT + i0, 0, HS);
            UNROLL for (int c = 0; c < COLS; c++) {
                Rows ds;
                if (args.cap) {
                    Rows bent = rows_tanh((args.scale / args.cap) * s[c]);
                    ds = rows_exp2((args.cap * LOG2E) * bent - lse) * (dp[c] - delta);
                    ds = ds * (rows_fill(1.0f) - bent * bent);
                } else ds = rows_exp2(scale_log2 * s[c] - lse) * (dp[c] - delta);
                int own = k0 - row0 + c0 + c - i0;
                if (k0 >= row0 || edge) ds = rows_keep(ds, own, edge ? own + args.window - 1 : ROWS, 0.0f);
                rows_store(dsT + (c0 + c) * TILE + i0, ds);
            }
        }
        __syncthreads();
        if (c0 < HS) tile_product<1, LD>(acc, k + c0, dsT + i0, unseen, seen);
    }
    if (c0 < HS && n > 0)
        store_tile(dqkv + (first_row + i0) * args.lddq + block.head * HS + c0, args.lddq, acc, rows_fill(args.scale),
                   min(ROWS, n));
}

template <int HS> static constexpr size_t dkdv_shared() {
    return sizeof(float) * (2 * HS * TILE + 2 * SPAN(HS) * (HS + 4) + 2 * SPAN(HS) * TILE + 2 * SPAN(HS));
}

// dv = Pᵀ dO and dk = scale · dSᵀ Q for TILE rows of one key-value head, summed over the query heads that read it and
// over all later queries. The rows along the vectors are keys here. Half of the columns hold dv, the other half dk:
// WIDTH of them each, the blockIdx.y-th of the head.
template <int HS>
static __global__ void __launch_bounds__(block_threads<HS>(2 * WIDTH(HS)))
    attention_dkdv_kernel(floatX* dqkv, AttentionArgs args) {
    constexpr int LD = HS + 4, SPAN = SPAN(HS), WIDTH = WIDTH(HS);
    EXTERN_SHARED(float, kT);       // (HS, TILE)
    float* vT = kT + HS * TILE;     // (HS, TILE)
    float* q = vT + HS * TILE;      // (SPAN, HS; LD)
    float* dout = q + SPAN * LD;    // (SPAN, HS; LD)
    float* p = dout + SPAN * LD;    // (SPAN queries, TILE keys)
    float* ds = p + SPAN * TILE;    // (SPAN queries, TILE keys)
    float* lse = ds + SPAN * TILE;  // (SPAN)
    float* delta = lse + SPAN;      // (SPAN)

    AttentionBlock block = attention_block(args, args.NKV);
    int heads = args.NH / args.NKV;
    // keys of the first tile are seen by all queries: mirrored, so that the longest blocks start first
    int key0 = (CEIL_DIV(block.length, TILE) - 1 - block.tile) * TILE, n_k = min(TILE, block.length - key0),
        spans = CEIL_DIV(end_of_queries(args, key0 + n_k - 1, block.length) - key0, SPAN);
    int group = threadIdx.x % GROUPS, column = threadIdx.x / GROUPS, j0 = group * ROWS, c0 = column * COLS,
        n = n_k - j0;
    int d0 = c0 % WIDTH + blockIdx.y * WIDTH;
    bool is_dk = c0 >= WIDTH;
    size_t first_row = (size_t)block.start + key0;
    const floatX* keys = args.qkv + first_row * args.ldq + (args.NH + block.head) * HS;
    float scale_log2 = args.scale * LOG2E;

    load_transposed<HS>(kT, keys, args.ldq, n_k);
    load_transposed<HS>(vT, keys + args.NKV * HS, args.ldq, n_k);
    Rows acc[COLS], s[COLS], dp[COLS];
    zero_tile(acc);
    for (int step = 0; step < heads * spans; step++) {
        int head = block.head * heads + step / spans, q0 = key0 + step % spans * SPAN;
        int n_q = min(SPAN, block.length - q0),
            first = max(0, key0 + j0 - q0),  // queries before `first` see no key of this group, nor do those from `end`
            end = min(n_q, end_of_queries(args, key0 + j0 + ROWS - 1, block.length) - q0);
        bool edge = args.window && q0 + SPAN > key0 + args.window;
        size_t row = (size_t)block.start + q0;
        __syncthreads();
        load_rows<HS>(q, args.qkv + row * args.ldq + head * HS, args.ldq, n_q);
        load_rows<HS>(dout, args.datty + row * args.ldo + head * HS, args.ldo, n_q);
        for (int i = threadIdx.x; i < n_q; i += blockDim.x) {
            lse[i] = LOG2E * args.lse[(size_t)head * args.T + row + i];
            delta[i] = args.delta[(size_t)head * args.T + row + i];
        }
        __syncthreads();
        if (column < SCORES(HS) && n > 0 && c0 < end && c0 + COLS > first) {
            zero_tile(s);
            zero_tile(dp);
            tile_product<LD, 1>(s, q + c0 * LD, kT + j0, 0, HS);
            tile_product<LD, 1>(dp, dout + c0 * LD, vT + j0, 0, HS);
            UNROLL for (int c = 0; c < COLS; c++) {
                Rows probability, slope = rows_fill(1.0f);
                if (args.cap) {
                    Rows bent = rows_tanh((args.scale / args.cap) * s[c]);
                    slope = slope - bent * bent;
                    probability = rows_exp2((args.cap * LOG2E) * bent - rows_fill(lse[c0 + c]));
                } else probability = rows_exp2(scale_log2 * s[c] - rows_fill(lse[c0 + c]));
                int own = q0 - key0 + c0 + c - j0;  // the row that is this query's
                if (q0 < key0 + TILE || edge)
                    probability = rows_keep(probability, edge ? own - args.window + 1 : 0, own, 0.0f);
                rows_store(p + (c0 + c) * TILE + j0, probability);
                Rows dscore = probability * (dp[c] - rows_fill(delta[c0 + c]));
                if (args.cap) dscore = dscore * slope;
                rows_store(ds + (c0 + c) * TILE + j0, dscore);
            }
        }
        __syncthreads();
        if (c0 < 2 * WIDTH && n > 0)
            tile_product<1, LD>(acc, (is_dk ? q : dout) + d0, (is_dk ? ds : p) + j0, first, end);
    }
    if (c0 < 2 * WIDTH && n > 0)
        store_tile(dqkv + (first_row + j0) * args.lddq + (args.NH + (is_dk ? 0 : args.NKV) + block.head) * HS + d0,
                   args.lddq, acc, rows_fill(is_dk ? args.scale : 1.0f), min(ROWS, n));
}

// ---------------------------------------------------------------------------------------------------
// launchers

#define DELTA_BLOCK 128

template <int HS> static void forward(floatX* atty, float* lse, const AttentionArgs& args, cudaStream_t stream) {
    static bool ready = false;  // once an instance: the attribute belongs to the kernel, not to the launch
    if (!ready) allow_shared(attention_forward_kernel<HS>, forward_shared<HS>());
    ready = true;
    LAUNCH((attention_forward_kernel<HS>), args.n_tiles * args.NH, block_threads<HS>(HS), forward_shared<HS>(), stream,
           atty, lse, args);
}

template <int HS> static void backward(floatX* dqkv, const AttentionArgs& args, cudaStream_t stream) {
    static bool ready = false;
    if (!ready) {
        allow_shared(attention_dq_kernel<HS>, dq_shared<HS>());
        allow_shared(attention_dkdv_kernel<HS>, dkdv_shared<HS>());
    }
    ready = true;
    LAUNCH(attention_delta_kernel, (unsigned)CEIL_DIV((int64_t)args.T * args.NH * 4, DELTA_BLOCK), DELTA_BLOCK, 0,
           stream, args);
    LAUNCH((attention_dq_kernel<HS>), args.n_tiles * args.NH, block_threads<HS>(HS), dq_shared<HS>(), stream, dqkv,
           args);
    LAUNCH((attention_dkdv_kernel<HS>), dim3(args.n_tiles * args.NKV, HS / WIDTH(HS)), block_threads<HS>(2 * WIDTH(HS)),
           dkdv_shared<HS>(), stream, dqkv, args);
    if (args.cos_sin)
        rope_backward(dqkv, args.positions, args.cos_sin, args.T, args.NH, args.NKV, HS, args.rotary, args.lddq,
                      stream);
}

template <int HS> static void shared_bytes(size_t* bytes) {
    size_t dq = dq_shared<HS>(), dkdv = dkdv_shared<HS>(), backward = dq > dkdv ? dq : dkdv;
    *bytes = forward_shared<HS>() > backward ? forward_shared<HS>() : backward;
}
static size_t shared_bytes_of(int HS) {
    size_t bytes = 0;
    AT_HEAD_SIZE(HS, shared_bytes, &bytes)
    return bytes;
}
static void forward_of(floatX* atty, float* lse, const AttentionArgs& args, cudaStream_t stream) {
    AT_HEAD_SIZE(args.HS, forward, atty, lse, args, stream)
}
static void backward_of(floatX* dqkv, const AttentionArgs& args, cudaStream_t stream) {
    AT_HEAD_SIZE(args.HS, backward, dqkv, args, stream)
}
extern const AttentionKernels attention_plain = {shared_bytes_of, forward_of, backward_of};
#endif
