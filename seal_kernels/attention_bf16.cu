/*
Causal variable-length attention in bf16 on tensor cores (mma.sync m16n8k16, fp32 accumulators), forward and backward. A
warp owns whole rows: the score tile it computes stays in its registers and becomes the left operand of the next product
without a round trip through shared memory. Forward: 4 warps of 32 queries. Backward: 4 warps of 16 queries (dq) or 16
keys (dk and dv, on transposed scores, so that no atomics are needed).
*/
#include "attention.h"

#ifdef PRECISION_BF16
#include "ptx.h"

#define TILE ATTENTION_TILE  // keys (in dk, dv: queries) of one step
#define WARPS 4
#define THREADS (WARPS * WARP_SIZE)
#define BLOCKS(HS) ((HS) == 32 ? 3 : 2)  // an SM's registers hold this many blocks; asking for more would spill

// Heads of more than 128 elements (Pythia-1B's have 256) fill the registers with their accumulators, so there:
// a forward block owns one tile of queries instead of two (two give a warp 32 rows, which halves the traffic of shared
// memory);
#define FORWARD_ROWS(HS) ((HS) > 128 ? TILE : 2 * TILE)
// dq keeps queries and dO in shared memory instead of registers, and keys and values have one stage;
#define RESIDENT(HS) ((HS) > 128)
// and a block owns 128 columns of dk and dv, half as many where a window and a cap take registers too.
#define WIDTH(HS) ((HS) > 128 ? 128 : (HS))
#define DKDV_WIDTH(HS, LOCAL) ((LOCAL) && (HS) == 256 ? WIDTH(HS) / 2 : WIDTH(HS))

// Elements that pad a row in shared memory: 16 bytes shift each row against the banks, so that the 8 rows of an
// ldmatrix do not collide.
#define PAD 8

// Forward subtracts a maximum from the scores that may be below the true one by this many powers of two: sums of 2^8
// are as exact as sums of 1, and the accumulators need to be scaled down again at a sample's first keys and hardly ever
// later (FlashAttention-4).
#define LAZY 8.0f

// Accumulators of 16 rows × 8 columns (NT of them side by side): a lane holds four elements, of two rows and two
// columns. Element e is at row_of(lane, e), column_of(lane, e); statistics of a row, of which a lane has half_of(e) = 0
// and 1, are of rows row_of_half(lane, 0) and row_of_half(lane, 1), and the four lanes of a quad share those rows.
#define NT_SCORES (TILE / 8)
static inline __device__ int half_of(int e) { return e / 2; }
static inline __device__ int row_of_half(int lane, int half) { return lane / 4 + half * 8; }
static inline __device__ int row_of(int lane, int e) { return row_of_half(lane, half_of(e)); }
static inline __device__ int column_of(int lane, int e) { return lane % 4 * 2 + e % 2; }
// Fragment k of a left operand is two accumulators side by side: its register e holds a pair of neighbouring columns,
// the first of them pair_column(lane, k, e), of row pair_row(lane, e).
static inline __device__ int pair_row(int lane, int e) { return lane / 4 + e % 2 * 8; }
static inline __device__ int pair_column(int lane, int k, int e) { return k * 16 + e / 2 * 8 + lane % 4 * 2; }

// On a GPU the left operand is read from shared memory a slice of k at a time, because all of it at once would not fit
// into the registers next to the accumulators. The emulated warp has no registers to save, and pays for each operation
// instead.
#if DEVICE_HALVES
#define SLICE(KT) 1
#else
#define SLICE(KT) (KT)
#endif

// ---------------------------------------------------------------------------------------------------
// pieces of the kernels

// tanh x = 1 − 2 / (1 + exp(2x)), which is exact enough for scores of bf16 products.
static inline __device__ float bent_of(float x) {
    return 1.0f - __fdividef(2.0f, 1.0f + exp2_approx(2.0f * LOG2E * x));
}

// dst (N_ROWS, HS; HS + PAD) = rows of src (ld), asynchronously; rows from n on are zeros, so that they add nothing to
// any product. A thread keeps its column and goes down by a fixed number of rows, so that a whole tile costs it an
// address and a copy per row.
template <int HS, int N_ROWS> static inline __device__ void load_tile(floatX* dst, const floatX* src, int ld, int n) {
    constexpr int VECS = HS / VEC, STEP = THREADS / VECS;  // the threads past STEP · VECS have nothing to do
    int row = threadIdx.x / VECS, d = threadIdx.x % VECS * VEC;
    if (THREADS % VECS != 0 && row >= STEP) return;
    dst += row * (HS + PAD) + d;
    src += row * (int64_t)ld + d;
    if (n >= N_ROWS) {
        UNROLL for (int r = 0; r < N_ROWS; r += STEP) if (r + STEP <= N_ROWS || row < N_ROWS - r)
            cp_async_16(dst + r * (HS + PAD), src + r * (int64_t)ld);
    } else {
        NO_UNROLL for (int r = 0; r + row < N_ROWS; r += STEP) {
            bool valid = r + row < n;
            cp_async_16(dst + r * (HS + PAD), valid ? src + r * (int64_t)ld : src - row * (int64_t)ld, valid);
        }
    }
}

template <int MT, int NT> static inline __device__ void zero(float (&c)[MT][NT][4]) {
    UNROLL for (int m = 0; m < MT; m++) UNROLL for (int n = 0; n < NT; n++) UNROLL for (int e = 0; e < 4; e++)
        c[m][n][e] = 0.0f;
}

// c (MT · 16, NT · 8) = a · bᵀ, both in shared memory, rows of HS
template <int HS, int MT, int NT>
static inline __device__ void scores(float (&c)[MT][NT][4], const floatX* a, const floatX* b) {
    constexpr int KT = SLICE(HS / 16), LD = HS + PAD;
    zero(c);
    UNROLL for (int k = 0; k < HS; k += KT * 16) {
        uint32_t fragments[MT][KT][4];
        UNROLL for (int m = 0; m < MT; m++) load_a_fragments(fragments[m], a + m * 16 * LD + k, LD);
        mma_tile_nk(c, fragments, b + k, LD);
    }
}

// A tile at the edge of the causal triangle or of a window is worked on in chunks of 16 keys (in dk, dv: queries) for
// 16 rows at a time, and chunks that nobody sees are left out: a window of 512 tokens then costs 528 keys per row of
// 16, not 9 tiles of 64. `distance`: of the chunk's first key from the first of the query rows; a multiple of 16.
#define CHUNK 16
static inline __device__ bool chunk_seen(const AttentionArgs& args, int distance) {
    return (unsigned)distance < (args.window ? (unsigned)args.window + CHUNK - 1 : 1u << 31);  // below 0 is above 2^31
}
// Accumulators of a chunk's columns, and its fragment as a left operand.
#define COLUMNS(c, chunk) reinterpret_cast<float(&)[2][4]>((c)[2 * (chunk)])
#define FRAGMENT(a, chunk) reinterpret_cast<uint32_t(&)[1][4]>((a)[chunk])

// The chunks of c (16, TILE) = a · bᵀ that are seen; the others are 0. a: 16 rows in shared memory. `distance` is that
// of chunk 0, `step` by how much it grows per chunk.
template <int HS>
static inline __device__ void seen_scores(float (&c)[NT_SCORES][4], const floatX* a, const floatX* b,
                                          const AttentionArgs& args, int distance, int step) {
    constexpr int KT = SLICE(HS / 16), LD = HS + PAD;
    zero(reinterpret_cast<float(&)[1][NT_SCORES][4]>(c));
    NO_UNROLL for (int k = 0; k < HS; k += KT * 16) {
        uint32_t fragments[KT][4];
        load_a_fragments(fragments, a + k, LD);
        UNROLL for (int j = 0; j < TILE / CHUNK; j++) if (chunk_seen(args, distance + j * step))
            mma_tile_nk(COLUMNS(c, j), fragments, b + j * CHUNK * LD + k, LD);
    }
}
// The same with a in registers.
template <int HS>
static inline __device__ void seen_scores(float (&c)[NT_SCORES][4], const uint32_t (&a)[HS / 16][4], const floatX* b,
                                          const AttentionArgs& args, int distance, int step) {
    zero(reinterpret_cast<float(&)[1][NT_SCORES][4]>(c));
    UNROLL for (int j = 0; j < TILE / CHUNK; j++) if (chunk_seen(args, distance + j * step))
        mma_tile_nk(COLUMNS(c, j), a, b + j * CHUNK * (HS + PAD), HS + PAD);
}
// acc (16, 8 · NT) += a · b over the chunks that are seen
template <int NT>
static inline __device__ void seen_product(float (&acc)[NT][4], uint32_t (&a)[TILE / 16][4], const floatX* b, int ld,
                                           const AttentionArgs& args, int distance, int step) {
    UNROLL for (int j = 0; j < TILE / CHUNK; j++) if (chunk_seen(args, distance + j * step))
        mma_tile_kn(acc, FRAGMENT(a, j), b + j * CHUNK * ld, ld);
}

// 16 rows (n of them real) and N columns of dst (ld) = c, through the warp's own 16 rows of shared memory, so that
// global memory sees 16-byte stores
template <int HS, int N>
static inline __device__ void store_rows(floatX* dst, int ld, const float (&c)[N / 8][4], floatX* shared, int n) {
    constexpr int LD = HS + PAD;
    int lane = threadIdx.x % WARP_SIZE;
    uint32_t packed[N / 16][4];
    accumulators_to_a(packed, c);
    __syncwarp();  // the last reads of these rows as operands are over
    UNROLL for (int k = 0; k < N / 16; k++) UNROLL for (int e = 0; e < 4; e++) *
        reinterpret_cast<uint32_t*>(shared + pair_row(lane, e) * LD + pair_column(lane, k, e)) = packed[k][e];
    __syncwarp();
    for (int x = lane; x < n * (N / VEC); x += WARP_SIZE) {
        int row = x / (N / VEC), d = x % (N / VEC) * VEC;
        store8(dst + (size_t)row * ld + d, load8(shared + row * LD + d));
    }
}

// ---------------------------------------------------------------------------------------------------
// kernels

template <int HS> static constexpr size_t forward_shared() {
    return sizeof(floatX) * (FORWARD_ROWS(HS) + 2 * TILE) * (HS + PAD);
}

// p (MT · 16, TILE) = the probabilities of a warp's rows and a tile's keys, but for their common factors: m, l and acc
// follow the maximum. distance: of the tile's first key from the warp's first row. EDGE: by chunks, where some of them
// may be unseen. masked: not all keys are seen by all rows.
template <int HS, bool LOCAL, bool CAP, bool EDGE, int MT>
static inline __device__ void forward_step(uint32_t (&p)[MT][TILE / 16][4], float (&acc)[MT][HS / 8][4],
                                           float (&m)[2 * MT], float (&l)[2 * MT], const floatX* q, const floatX* k,
                                           const AttentionArgs& args, int distance, bool masked) {
    int lane = threadIdx.x % WARP_SIZE;
    float scale_log2 = args.scale * LOG2E;  // softmax in powers of two: its scale and exp's in one multiplication
    // scores of this tile: capped, masked
    float s[MT][NT_SCORES][4];
    if (EDGE) {
        UNROLL for (int i = 0; i < MT; i++)
            seen_scores<HS>(s[i], q + i * 16 * (HS + PAD), k, args, distance + i * 16, -CHUNK);
    } else scores<HS>(s, q, k);
    if (CAP && args.cap) {
        UNROLL for (int i = 0; i < MT; i++) UNROLL for (int n = 0; n < NT_SCORES; n++) {
            if (EDGE && !chunk_seen(args, distance + i * 16 - n / 2 * CHUNK)) continue;
            UNROLL for (int e = 0; e < 4; e++)
                s[i][n][e] = args.cap / args.scale * bent_of(s[i][n][e] * args.scale / args.cap);
        }
    }
    if (EDGE || masked) {
        // only the diagonal needs the mask; it hides the zero rows past the end as well, as no row of the
        // sample comes after them
        UNROLL for (int i = 0; i < MT; i++) UNROLL for (int n = 0; n < NT_SCORES; n++)
            UNROLL for (int e = 0; e < 4; e++) {
            int key = n * 8 + column_of(lane, e), query = distance + i * 16 + row_of(lane, e);
            if (is_hidden<LOCAL>(args, query - key)) s[i][n][e] = -INFINITY;
        }
    }
    // the online softmax: where a maximum has grown by more than LAZY, what was summed so far shrinks to it
    float highest[2 * MT];
    bool grown = false;
    UNROLL for (int i = 0; i < 2 * MT; i++) {
        highest[i] = m[i];
        UNROLL for (int n = 0; n < NT_SCORES; n++)
            highest[i] = fmaxf(highest[i], fmaxf(s[i / 2][n][i % 2 * 2], s[i / 2][n][i % 2 * 2 + 1]));
    }
    quad_max(highest);
    UNROLL for (int i = 0; i < 2 * MT; i++) grown |= (highest[i] - m[i]) * scale_log2 > LAZY;
    if (__any_sync(0xffffffffu, grown)) {
        UNROLL for (int i = 0; i < 2 * MT; i++) {
            float shrink = exp2_approx((m[i] - highest[i]) * scale_log2);
            m[i] = highest[i];
            l[i] *= shrink;
            UNROLL for (int n = 0; n < HS / 8; n++) {
                acc[i / 2][n][i % 2 * 2] *= shrink;
                acc[i / 2][n][i % 2 * 2 + 1] *= shrink;
            }
        }
    }
    // probabilities, and their sums; they are the left operand of the product with the values
    UNROLL for (int i = 0; i < MT; i++) UNROLL for (int n = 0; n < NT_SCORES; n++) {
        if (EDGE && !chunk_seen(args, distance + i * 16 - n / 2 * CHUNK)) continue;
        UNROLL for (int e = 0; e < 4; e++) {
            s[i][n][e] = exp2_approx(s[i][n][e] * scale_log2 - m[2 * i + half_of(e)] * scale_log2);
            l[2 * i + half_of(e)] += s[i][n][e];
        }
    }
    UNROLL for (int i = 0; i < MT; i++) accumulators_to_a(p[i], s[i]);
}

template <int HS, bool LOCAL, bool CAP>
static __global__ void __launch_bounds__(THREADS, BLOCKS(HS))
    attention_forward_kernel(floatX* atty, float* lse, AttentionArgs args) {
    constexpr int LD = HS + PAD, ROWS = FORWARD_ROWS(HS), MT = ROWS / WARPS / 16;
    constexpr bool CHUNKS = LOCAL && !CAP;  // tiles at an edge are worked on by chunks
    EXTERN_SHARED(floatX, q);               // (ROWS, HS; LD)
    floatX* k = q + ROWS * LD;              // (TILE, HS; LD)
    floatX* v = k + TILE * LD;              // (TILE, HS; LD)
    SHARED(AttentionBlock, owned, [1]);     // CHUNKS: read again after every step, which leaves no register for it

    AttentionBlock block = attention_block(args, args.NH);
    int lane = threadIdx.x % WARP_SIZE;
    int row0 = block.tile * TILE, warp_row = threadIdx.x / WARP_SIZE * (MT * 16), n_q = min(ROWS, block.length - row0);
    int n_tiles = CEIL_DIV(row0 + n_q, TILE), first_tile = first_key<LOCAL>(args, row0) / TILE;
    const floatX* keys = args.qkv + (size_t)block.start * args.ldq + (args.NH + block.head / (args.NH / args.NKV)) * HS;
    const floatX* values = keys + args.NKV * HS;
    if (CHUNKS && threadIdx.x == 0) owned[0] = block;

    load_tile<HS, ROWS>(q, args.qkv + (size_t)(block.start + row0) * args.ldq + block.head * HS, args.ldq, n_q);
    load_tile<HS, TILE>(k, keys + (size_t)first_tile * TILE * args.ldq, args.ldq, block.length - first_tile * TILE);
    cp_async_commit();

    // Of rows row_of_half(lane, i) of the warp: the maximum (up to LAZY below the true one), and this lane's share of
    // the sum.
    float m[2 * MT], l[2 * MT];
    float acc[MT][HS / 8][4];
    zero(acc);
    UNROLL for (int i = 0; i < 2 * MT; i++) {
        m[i] = LOWEST_SCORE;
        l[i] = 0.0f;
    }
    for (int t = first_tile; t < n_tiles; t++) {
        // A warp none of whose rows attends to this tile (all of them come before it, or are past the sample's end, or
        // have windows that begin after it) only helps to load it.
        bool busy = warp_row < n_q && t * TILE <= row0 + warp_row &&
                    (!LOCAL || first_key(args, row0 + warp_row) < (t + 1) * TILE);
        int distance = row0 + warp_row - t * TILE;
        bool masked = distance < TILE - 1 || (LOCAL && args.window && distance + MT * 16 > args.window);
        uint32_t p[MT][TILE / 16][4];
        cp_async_wait<0>();
        __syncthreads();  // keys of this tile are there, values of the last one are read
        load_tile<HS, TILE>(v, (CHUNKS ? keys + args.NKV * HS : values) + (size_t)t * TILE * args.ldq, args.ldq,
                            block.length - t * TILE);
        cp_async_commit();
        if (busy) {
            if (LOCAL && !CAP && masked)
                forward_step<HS, LOCAL, CAP, LOCAL && !CAP>(p, acc, m, l, q + warp_row * LD, k, args, distance, true);
            else forward_step<HS, LOCAL, CAP, false>(p, acc, m, l, q + warp_row * LD, k, args, distance, masked);
        }
        cp_async_wait<0>();
        __syncthreads();  // values are there, keys are read
        if (CHUNKS) {
            block = owned[0];
            row0 = block.tile * TILE;
            warp_row = threadIdx.x / WARP_SIZE * (MT * 16);
            n_q = min(ROWS, block.length - row0);
            n_tiles = CEIL_DIV(row0 + n_q, TILE);
            distance = row0 + warp_row - t * TILE;
            masked = distance < TILE - 1 || distance + MT * 16 > args.window;
        }
        if (t + 1 < n_tiles)
            load_tile<HS, TILE>(k, keys + (size_t)(t + 1) * TILE * args.ldq, args.ldq, block.length - (t + 1) * TILE);
        cp_async_commit();
        if (busy && LOCAL && !CAP && masked) {
            UNROLL for (int i = 0; i < MT; i++) seen_product(acc[i], p[i], v, LD, args, distance + i * 16, -CHUNK);
        } else if (busy) mma_tile_kn(acc, p, v, LD);
    }

    // output = accumulators / sums; lse for backward
    if (warp_row >= n_q) return;
    quad_sum(l);
    size_t first_row = (size_t)block.start + row0 + warp_row;
    UNROLL for (int i = 0; i < 2 * MT; i++) {
        float inverse = 1.0f / l[i];
        UNROLL for (int n = 0; n < HS / 8; n++) {
            acc[i / 2][n][i % 2 * 2] *= inverse;
            acc[i / 2][n][i % 2 * 2 + 1] *= inverse;
        }
        int row = row_of_half(lane, i);
        if (lane % 4 == 0 && warp_row + row < n_q)
            lse[(size_t)block.head * args.T + first_row + row] = m[i] * args.scale + logf(l[i]);
    }
    UNROLL for (int i = 0; i < MT; i++)
        store_rows<HS, HS>(atty + (first_row + i * 16) * args.ldo + block.head * HS, args.ldo, acc[i],
                           q + (warp_row + i * 16) * LD, min(16, n_q - warp_row - i * 16));
}

// Whether dq and dk turn back by their rotary positions while they are in registers: where a whole head turns, elements
// i and i + HS/2 of a row are in the same lane. A part of a head, or one that two blocks share, is for rope_backward.
static inline __host__ __device__ bool turns_here(const AttentionArgs& args) {
    return args.cos_sin && args.rotary == args.HS && WIDTH(args.HS) == args.HS;
}
// x (16, HS), n rows of it real: the gradient of rows first_row … after their turn becomes that before it.
template <int HS>
static inline __device__ void turn_back(float (&x)[HS / 8][4], const AttentionArgs& args, size_t first_row, int n) {
    int lane = threadIdx.x % WARP_SIZE;
    UNROLL for (int i = 0; i < 2; i++) {
        int row = row_of_half(lane, i);
        if (row >= n) continue;
        const float* turn = args.cos_sin + (size_t)args.positions[first_row + row] * HS + lane % 4 * 4;
        UNROLL for (int k = 0; k < HS / 16; k++) {
            float4 t = *reinterpret_cast<const float4*>(turn + k * 16);  // cos, sin of two neighbouring columns
            UNROLL for (int e = 0; e < 2; e++) {
                float c = e ? t.z : t.x, s = e ? t.w : t.y;
                float &a = x[k][2 * i + e], &b = x[k + HS / 16][2 * i + e], turned = a * c + b * s;
                b = b * c - a * s;
                a = turned;
            }
        }
    }
}

template <int HS> static constexpr size_t dq_shared() { return sizeof(floatX) * 4 * TILE * (HS + PAD); }

// Keys and values of tile t, of the head that a query head reads, to stage (2 · TILE, HS; LD)
template <int HS>
static inline __device__ void load_keys(floatX* stage, const AttentionArgs& args, const AttentionBlock& block, int t) {
    const floatX* keys = args.qkv + ((size_t)block.start + t * TILE) * args.ldq +
                         (args.NH + block.head / (args.NH / args.NKV)) * HS;
    load_tile<HS, TILE>(stage, keys, args.ldq, block.length - t * TILE);
    load_tile<HS, TILE>(stage + TILE * (HS + PAD), keys + args.NKV * HS, args.ldq, block.length - t * TILE);
}

// acc (16, HS) += dS K of a warp's queries and a tile's keys k, values following them. q and dout: the queries and dO
// in registers, or where they are RESIDENT in rows of shared memory. distance, EDGE, masked: as in forward_step.
template <int HS, bool LOCAL, bool CAP, bool EDGE>
static inline __device__ void dq_step(float (&acc)[1][HS / 8][4], const uint32_t (&q)[1][HS / 16][4],
                                      const uint32_t (&dout)[1][HS / 16][4], const floatX* rows, const floatX* k,
                                      const float (&lse)[2], const float (&delta)[2], const AttentionArgs& args,
                                      int distance, bool masked) {
    constexpr int LD = HS + PAD;
    const floatX* v = k + TILE * LD;
    int lane = threadIdx.x % WARP_SIZE;
    float scale_log2 = args.scale * LOG2E, s[1][NT_SCORES][4], dp[1][NT_SCORES][4];
    if constexpr (RESIDENT(HS) && EDGE) {
        seen_scores<HS>(s[0], rows, k, args, distance, -CHUNK);
        seen_scores<HS>(dp[0], rows + TILE * LD, v, args, distance, -CHUNK);
    } else if constexpr (RESIDENT(HS)) {
        scores<HS>(s, rows, k);
        scores<HS>(dp, rows + TILE * LD, v);
    } else if constexpr (EDGE) {
        seen_scores<HS>(s[0], q[0], k, args, distance, -CHUNK);
        seen_scores<HS>(dp[0], dout[0], v, args, distance, -CHUNK);
    } else {
        zero(s);
        zero(dp);
        mma_tile_nk(s, q, k, LD);
        mma_tile_nk(dp, dout, v, LD);
    }
    UNROLL for (int n = 0; n < NT_SCORES; n++) {
        if (EDGE && !chunk_seen(args, distance - n / 2 * CHUNK)) continue;
        if (CAP && args.cap) {
            // the capped score, and its slope 1 − tanh² on what comes back
            UNROLL for (int e = 0; e < 4; e++) {
                float bent = bent_of(s[0][n][e] * args.scale / args.cap);
                s[0][n][e] = args.cap / args.scale * bent;
                dp[0][n][e] = (dp[0][n][e] - delta[half_of(e)]) * (1.0f - bent * bent) + delta[half_of(e)];
            }
        }
        UNROLL for (int e = 0; e < 4; e++) {
            float p = exp2_approx(s[0][n][e] * scale_log2 - lse[half_of(e)]);
            int key = n * 8 + column_of(lane, e), query = distance + row_of(lane, e);
            bool hidden = (EDGE || masked) && is_hidden<LOCAL>(args, query - key);
            dp[0][n][e] = hidden ? 0.0f : p * (dp[0][n][e] - delta[half_of(e)]);
        }
    }
    uint32_t ds[1][TILE / 16][4];
    accumulators_to_a(ds[0], dp[0]);
    if (EDGE) seen_product(acc[0], ds[0], k, LD, args, distance, -CHUNK);
    else mma_tile_kn(acc, ds, k, LD);
}

// dq (TILE rows of one query head) = scale · Σ over keys of dS K, dS = P ∘ (dP − delta), dP = dO Vᵀ
template <int HS, bool LOCAL, bool CAP>
static __global__ void __launch_bounds__(THREADS, BLOCKS(HS)) attention_dq_kernel(floatX* dqkv, AttentionArgs args) {
    constexpr int LD = HS + PAD, STAGE = 2 * TILE * LD;
    EXTERN_SHARED(floatX, shared);  // two stages of keys and values (TILE, HS; LD each)

    AttentionBlock block = attention_block(args, args.NH);
    int lane = threadIdx.x % WARP_SIZE;
    int row0 = block.tile * TILE, warp_row = threadIdx.x / WARP_SIZE * 16, n_q = min(TILE, block.length - row0);
    size_t first_row = (size_t)block.start + row0;

    // Queries and dO pass through the second stage into registers, where they stay; or they stay in that stage.
    load_tile<HS, TILE>(shared + STAGE, args.qkv + first_row * args.ldq + block.head * HS, args.ldq, n_q);
    load_tile<HS, TILE>(shared + STAGE + TILE * LD, args.datty + first_row * args.ldo + block.head * HS, args.ldo, n_q);
    int first_tile = first_key<LOCAL>(args, row0) / TILE;
    load_keys<HS>(shared, args, block, first_tile);
    cp_async_commit();
    float lse[2], delta[2];
    UNROLL for (int i = 0; i < 2; i++) {
        int row = warp_row + row_of_half(lane, i);
        size_t at = (first_row + row) * args.ldo + block.head * HS;
        lse[i] = row < n_q ? args.lse[(size_t)block.head * args.T + first_row + row] * LOG2E : 0.0f;
        delta[i] = row < n_q ? delta_part(args.datty + at, args.atty + at, HS, lane % 4) : 0.0f;
    }
    quad_sum(delta);
    UNROLL for (int i = 0; i < 2; i++) {  // for dk and dv, whose kernel comes after this one
        int row = warp_row + row_of_half(lane, i);
        if (row < n_q && lane % 4 == 0) args.delta[(size_t)block.head * args.T + first_row + row] = delta[i];
    }
    cp_async_wait<0>();
    __syncthreads();
    uint32_t q[1][HS / 16][4], dout[1][HS / 16][4];
    if constexpr (!RESIDENT(HS)) {
        load_a_fragments(q[0], shared + STAGE + warp_row * LD, LD);
        load_a_fragments(dout[0], shared + STAGE + (TILE + warp_row) * LD, LD);
    }

    float acc[1][HS / 8][4];
    zero(acc);
    for (int t = first_tile; t <= block.tile; t++) {
        const floatX* k = shared + (RESIDENT(HS) ? 0 : (t - first_tile) % 2 * STAGE);
        cp_async_wait<0>();
        __syncthreads();  // this stage is there, and everybody has left the other one
        if (!RESIDENT(HS) && t < block.tile)
            load_keys<HS>(shared + (t + 1 - first_tile) % 2 * STAGE, args, block, t + 1);
        cp_async_commit();
        if (warp_row < n_q && (!LOCAL || first_key(args, row0 + warp_row) < (t + 1) * TILE)) {
            int distance = row0 + warp_row - t * TILE;
            bool masked = t == block.tile || (LOCAL && args.window && distance + 16 > args.window);
            const floatX* rows = shared + STAGE + warp_row * LD;
            if (LOCAL && !CAP && masked)
                dq_step<HS, LOCAL, CAP, LOCAL && !CAP>(acc, q, dout, rows, k, lse, delta, args, distance, true);
            else dq_step<HS, LOCAL, CAP, false>(acc, q, dout, rows, k, lse, delta, args, distance, masked);
        }
        if (RESIDENT(HS) && t < block.tile) {
            __syncthreads();  // everybody has left the stage
            load_keys<HS>(shared, args, block, t + 1);
            cp_async_commit();
        }
    }

    __syncthreads();  // the stages become the way out
    if (warp_row >= n_q) return;
    UNROLL for (int n = 0; n < HS / 8; n++) UNROLL for (int e = 0; e < 4; e++) acc[0][n][e] *= args.scale;
    if (turns_here(args)) turn_back<HS>(acc[0], args, first_row + warp_row, n_q - warp_row);
    store_rows<HS, HS>(dqkv + (first_row + warp_row) * args.lddq + block.head * HS, args.lddq, acc[0],
                       shared + warp_row * LD, min(16, n_q - warp_row));
}

template <int HS> static constexpr size_t dkdv_shared(int stages) {
    return sizeof(floatX) * (2 + 2 * stages) * TILE * (HS + PAD) + sizeof(float) * 2 * stages * TILE;
}

// Queries and dO of tile t and one head to stage (2 · TILE, HS; LD), their lse and delta to statistics (2, TILE). Zeros
// past the sample's end: P is 1 there, but it meets rows of zeros in dO, and dS is 0.
template <int HS>
static inline __device__ void load_queries(floatX* stage, float* statistics, const AttentionArgs& args,
                                           const AttentionBlock& block, int head, int t) {
    int n = block.length - t * TILE, i = threadIdx.x % TILE;
    size_t row = (size_t)block.start + t * TILE;
    load_tile<HS, TILE>(stage, args.qkv + row * args.ldq + head * HS, args.ldq, n);
    load_tile<HS, TILE>(stage + TILE * (HS + PAD), args.datty + row * args.ldo + head * HS, args.ldo, n);
    const float* source = (threadIdx.x < TILE ? args.lse : args.delta) + (size_t)head * args.T + row;
    cp_async_4(statistics + threadIdx.x, i < n ? source + i : source, i < n);
}

// dk and dv (16, WIDTH) += what a tile's queries q, with dO following them, give a warp's keys, with values TILE rows
// after them: P and dS transposed. lse, with delta TILE numbers after it: of the queries. distance: of the first query
// from the first key.
template <int HS, bool LOCAL, bool CAP, bool EDGE>
static inline __device__ void dkdv_step(float (&dk)[1][DKDV_WIDTH(HS, LOCAL) / 8][4],
                                        float (&dv)[1][DKDV_WIDTH(HS, LOCAL) / 8][4], const floatX* keys,
                                        const floatX* q, const float* lse, const AttentionArgs& args, int distance,
                                        bool masked) {
    constexpr int LD = HS + PAD, WIDTH = DKDV_WIDTH(HS, LOCAL);
    const floatX *values = keys + TILE * LD, *dout = q + TILE * LD;
    const float* delta = lse + TILE;
    int lane = threadIdx.x % WARP_SIZE;
    float scale_log2 = args.scale * LOG2E, s[1][NT_SCORES][4], dp[1][NT_SCORES][4];
    uint32_t fragments[1][TILE / 16][4];
    // P of this tile, then dv += Pᵀ dO
    if (EDGE) seen_scores<HS>(s[0], keys, q, args, distance, CHUNK);
    else scores<HS>(s, keys, q);
    UNROLL for (int n = 0; n < NT_SCORES; n++) {
        if (EDGE && !chunk_seen(args, distance + n / 2 * CHUNK)) continue;
        UNROLL for (int e = 0; e < 4; e++) {
            int query = n * 8 + column_of(lane, e), key = row_of(lane, e);
            float p = CAP && args.cap ? exp2_approx(args.cap * LOG2E * bent_of(s[0][n][e] * args.scale / args.cap) -
                                                    lse[query] * LOG2E)
                                      : exp2_approx(s[0][n][e] * scale_log2 - lse[query] * LOG2E);
            s[0][n][e] = (EDGE || masked) && is_hidden<LOCAL>(args, distance + query - key) ? 0.0f : p;
        }
    }
    accumulators_to_a(fragments[0], s[0]);
    if (EDGE) seen_product(dv[0], fragments[0], dout + blockIdx.y * WIDTH, LD, args, distance, CHUNK);
    else mma_tile_kn(dv, fragments, dout + blockIdx.y * WIDTH, LD);
    // dS = P ∘ (dP − delta), then dk += dSᵀ Q
    if (EDGE) seen_scores<HS>(dp[0], values, dout, args, distance, CHUNK);
    else scores<HS>(dp, values, dout);
    UNROLL for (int n = 0; n < NT_SCORES; n++) {
        if (EDGE && !chunk_seen(args, distance + n / 2 * CHUNK)) continue;
        if (CAP && args.cap) {
            // the cap's slope 1 − tanh², from the probability: no register is left to keep either
            UNROLL for (int e = 0; e < 4; e++) {
                float p = s[0][n][e];
                float bent = (log2f(p) + lse[n * 8 + column_of(lane, e)] * LOG2E) / (args.cap * LOG2E);
                s[0][n][e] = p > 0.0f ? p * (1.0f - bent * bent) : 0.0f;
            }
        }
        UNROLL for (int e = 0; e < 4; e++) s[0][n][e] *= dp[0][n][e] - delta[n * 8 + column_of(lane, e)];
    }
    accumulators_to_a(fragments[0], s[0]);
    if (EDGE) seen_product(dk[0], fragments[0], q + blockIdx.y * WIDTH, LD, args, distance, CHUNK);
    else mma_tile_kn(dk, fragments, q + blockIdx.y * WIDTH, LD);
}

// dv = Pᵀ dO and dk = scale · dSᵀ Q for TILE rows of one key-value head, summed over the query heads that read it and
// over all later queries. Scores are computed transposed, keys down and queries across: Pᵀ and dSᵀ are then left
// operands in the registers of the warp that owns the keys. blockIdx.y says which WIDTH columns of the head. n_stages 2
// loads a step's queries while the one before is computed; 1 is for GPUs on whose multiprocessors two stages would
// leave room for fewer blocks (A100 at head size 128), or for none.
template <int HS, bool LOCAL, bool CAP>
static __global__ void __launch_bounds__(THREADS, BLOCKS(HS))
    attention_dkdv_kernel(floatX* dqkv, AttentionArgs args, int n_stages) {
    constexpr int LD = HS + PAD, STAGE = 2 * TILE * LD, WIDTH = DKDV_WIDTH(HS, LOCAL);
    EXTERN_SHARED(floatX, k);        // (TILE, HS; LD)
    floatX* v = k + TILE * LD;       // (TILE, HS; LD)
    floatX* stages = v + TILE * LD;  // n_stages of queries and dO (TILE, HS; LD each)
    float* statistics = reinterpret_cast<float*>(stages + n_stages * STAGE);  // n_stages of lse and delta (TILE each)
    SHARED(AttentionBlock,
           owned, [1]);  // read again in every step: the accumulators leave no register for it to stay in

    AttentionBlock block = attention_block(args, args.NKV);
    // keys of the first tile are seen by all queries: mirrored, so that the longest blocks start first
    block.tile = CEIL_DIV(block.length, TILE) - 1 - block.tile;
    if (threadIdx.x == 0) owned[0] = block;
    int warp_row = threadIdx.x / WARP_SIZE * 16;
    const floatX* keys = args.qkv + ((size_t)block.start + block.tile * TILE) * args.ldq;

    load_tile<HS, TILE>(k, keys + (args.NH + block.head) * HS, args.ldq, block.length - block.tile * TILE);
    load_tile<HS, TILE>(v, keys + (args.NH + args.NKV + block.head) * HS, args.ldq, block.length - block.tile * TILE);
    int head = block.head * (args.NH / args.NKV), left = args.NH / args.NKV, t = block.tile, stage = 0;  // of this step
    load_queries<HS>(stages, statistics, args, block, head, t);
    cp_async_commit();
    float dk[1][WIDTH / 8][4], dv[1][WIDTH / 8][4];
    zero(dk);
    zero(dv);
    while (left > 0) {
        const floatX* q = stages + stage * STAGE;
        const float* lse = statistics + stage * 2 * TILE;
        cp_async_wait<0>();
        __syncthreads();  // this stage is there, and everybody has left the other one
        block = owned[0];
        bool busy = warp_row < block.length - block.tile * TILE;
        int row0 = (t - block.tile) * TILE;  // of the queries, counted from the first key
        bool masked = t == block.tile || (LOCAL && args.window && row0 + TILE > warp_row + args.window);
        if (++t * TILE >= end_of_queries<LOCAL>(args, block.tile * TILE + TILE - 1, block.length)) {  // the next step's
            t = block.tile;
            head++;
            left--;
        }
        stage ^= n_stages - 1;
        if (n_stages == 2 && left > 0)
            load_queries<HS>(stages + stage * STAGE, statistics + stage * 2 * TILE, args, block, head, t);
        cp_async_commit();
        if (busy && LOCAL && !CAP && masked)
            dkdv_step<HS, LOCAL, CAP, LOCAL && !CAP>(dk, dv, k + warp_row * LD, q, lse, args, row0 - warp_row, true);
        else if (busy)
            dkdv_step<HS, LOCAL, CAP, false>(dk, dv, k + warp_row * LD, q, lse, args, row0 - warp_row, masked);
        if (n_stages == 1 && left > 0) {
            __syncthreads();  // everybody has left the stage
            load_queries<HS>(stages, statistics, args, block, head, t);
            cp_async_commit();
        }
    }

    block = owned[0];
    int n = min(16, block.length - block.tile * TILE - warp_row);
    if (n <= 0) return;
    UNROLL for (int i = 0; i < WIDTH / 8; i++) UNROLL for (int e = 0; e < 4; e++) dk[0][i][e] *= args.scale;
    if constexpr (WIDTH == HS)
        if (turns_here(args)) turn_back<HS>(dk[0], args, (size_t)block.start + block.tile * TILE + warp_row, n);
    floatX* out = dqkv + ((size_t)block.start + block.tile * TILE + warp_row) * args.lddq + blockIdx.y * WIDTH;
    // its own rows of k and v, which no other warp reads
    store_rows<HS, WIDTH>(out + (args.NH + block.head) * HS, args.lddq, dk[0], k + warp_row * LD, n);
    store_rows<HS, WIDTH>(out + (args.NH + args.NKV + block.head) * HS, args.lddq, dv[0], v + warp_row * LD, n);
}

// ---------------------------------------------------------------------------------------------------
// launchers

// Three instances: LOCAL, some tokens do not attend to all before them; CAP, their scores are capped as well, or alone.
// Either costs registers that the plain one does not have, and a cap those that working by chunks takes.
template <int HS, bool LOCAL, bool CAP>
static void forward_as(floatX* atty, float* lse, const AttentionArgs& args, cudaStream_t stream) {
    static bool ready = false;  // once an instance: the attribute belongs to the kernel, not to the launch
    if (!ready) allow_shared(attention_forward_kernel<HS, LOCAL, CAP>, forward_shared<HS>());
    ready = true;
    LAUNCH((attention_forward_kernel<HS, LOCAL, CAP>), (FORWARD_ROWS(HS) > TILE ? args.n_even : args.n_tiles) * args.NH,
           THREADS, forward_shared<HS>(), stream, atty, lse, args);
}
template <int HS> static void forward(floatX* atty, float* lse, const AttentionArgs& args, cudaStream_t stream) {
    if (args.cap != 0.0f) forward_as<HS, true, true>(atty, lse, args, stream);
    else if (args.window) forward_as<HS, true, false>(atty, lse, args, stream);
    else forward_as<HS, false, false>(atty, lse, args, stream);
}

template <int HS, bool LOCAL, bool CAP>
static void backward_as(floatX* dqkv, const AttentionArgs& args, cudaStream_t stream) {
    static int n_stages = 0;  // 0: not ready yet
    if (n_stages == 0) {
        n_stages = resident_blocks(BLOCKS(HS), dkdv_shared<HS>(2)) < resident_blocks(BLOCKS(HS), dkdv_shared<HS>(1))
                       ? 1
                       : 2;
        allow_shared(attention_dq_kernel<HS, LOCAL, CAP>, dq_shared<HS>());
        allow_shared(attention_dkdv_kernel<HS, LOCAL, CAP>, dkdv_shared<HS>(n_stages));
    }
    LAUNCH((attention_dq_kernel<HS, LOCAL, CAP>), args.n_tiles * args.NH, THREADS, dq_shared<HS>(), stream, dqkv, args);
    LAUNCH((attention_dkdv_kernel<HS, LOCAL, CAP>), dim3(args.n_tiles * args.NKV, HS / DKDV_WIDTH(HS, LOCAL)), THREADS,
           dkdv_shared<HS>(n_stages), stream, dqkv, args, n_stages);
    if (args.cos_sin && !turns_here(args))
        rope_backward(dqkv, args.positions, args.cos_sin, args.T, args.NH, args.NKV, HS, args.rotary, args.lddq,
                      stream);
}
template <int HS> static void backward(floatX* dqkv, const AttentionArgs& args, cudaStream_t stream) {
    if (args.cap != 0.0f) backward_as<HS, true, true>(dqkv, args, stream);
    else if (args.window) backward_as<HS, true, false>(dqkv, args, stream);
    else backward_as<HS, false, false>(dqkv, args, stream);
}

template <int HS> static void shared_bytes(size_t* bytes) {
    size_t dq = dq_shared<HS>(), dkdv = dkdv_shared<HS>(1), backward = dq > dkdv ? dq : dkdv;
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
extern const AttentionKernels attention_tensor = {shared_bytes_of, forward_of, backward_of};
#endif
