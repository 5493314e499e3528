/*
Attention of generation: one new token per sequence against the keys and values of the tokens before it, which a cache
keeps (FlashDecoding, Dao et al. 2023). The work is reading the cache once. A block therefore handles all query heads of
a key-value head, and a long cache is cut into pieces of DECODE_PIECE positions, so that few long sequences fill the GPU
as well; the pieces' results are joined in their order. Where a piece begins depends on the position alone, so a
sequence gives the same bits in any company.
*/
#include <assert.h>
#include "attention.h"
#include "kernels.h"
#include "ptx.h"

#define DECODE_PIECE 256
#define TILE 32  // positions looked at before the running maximum is corrected

// A team of threads shares a tile: a warp. Under g++ one thread does a warp's work in plain loops, which is 20 times
// faster than 32 threads that wait for each other; the sanitizers get the warp.
#if DEVICE_HALVES || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TEAM WARP_SIZE
static inline __device__ float team_max(float x) { return warp_max(x); }
static inline __device__ float team_sum(float x) { return warp_sum(x); }
#define team_sync() __syncwarp()
#else
#define TEAM 1
static inline float team_max(float x) { return x; }
static inline float team_sum(float x) { return x; }
#define team_sync() ((void)0)
#endif
// Teams of a block take turns at a piece's tiles, which are in the 48 KiB of shared memory that any block may have. An
// fp32 tile is twice as large, one of heads of 256 elements twice as large again.
#if !DEVICE_HALVES
#define N_TEAMS(HS) 1
#elif defined(PRECISION_BF16)
#define N_TEAMS(HS) (HS > 128 ? 2 : 4)
#else
#define N_TEAMS(HS) (HS > 128 ? 1 : 2)
#endif

// ---------------------------------------------------------------------------------------------------
// kernels

// The first position of a sequence that its new token attends to.
static inline __device__ int first_position(const DecodeArgs& args, int sequence) {
    return args.window ? max(0, args.length[sequence] - args.window) : 0;
}

// one thread for VEC elements of a token's keys, or of its values
static __global__ void cache_store_kernel(floatX* keys, floatX* values, const floatX* qkv, const int* rows, int T,
                                          int NH, int NKV, int HS, int ldq) {
    unsigned width = NKV * HS / VEC, i = blockIdx.x * blockDim.x + threadIdx.x, t = i / (2 * width),
             c = i % (2 * width);
    if (t >= (unsigned)T || rows[t] < 0) return;
    const floatX* from = qkv + (size_t)t * ldq + NH * HS + c * VEC;
    floatX* to = c < width ? keys + c * VEC : values + (c - width) * VEC;
    store8(to + (size_t)rows[t] * NKV * HS, load8(from));
}

// A tile of `rows` keys of one head into shared memory, by one team. What is past them is not read.
template <int HS, int LD> static __device__ void copy_keys(floatX* tile, const floatX* keys, int ldc, int rows) {
    for (int i = threadIdx.x % TEAM; i < rows * (HS / VEC); i += TEAM) {
        int row = i / (HS / VEC), c = i % (HS / VEC) * VEC;
        store8(tile + row * LD + c, load8(keys + (size_t)row * ldc + c));
    }
}

// Block (sequence and group of HEADS query heads, piece). A team keeps a running maximum and sum of every head. Scores:
// each thread has KEYS keys of a tile. Output: a value's row is LANES vectors, of which a thread has COLS; a warp reads
// PARTS rows at a time, and the parts are added at the end.
template <int HS, int HEADS>
static __global__ void __launch_bounds__(N_TEAMS(HS) * TEAM) decode_attention_kernel(DecodeArgs args, int pieces) {
    enum {
        TEAMS = N_TEAMS(HS),
        LD = HS + 16 / sizeof(floatX),  // the odd 16 bytes spread a column over all banks
        KEYS = TILE / TEAM,
        LANES = HS / VEC,
        PARTS = TEAM > LANES ? TEAM / LANES : 1,
        COLS = TEAM > LANES ? 1 : LANES / TEAM,
        KEY_SPACE = TEAM > 1 ? TILE * LD : 0,
        OUT_SPACE = PARTS * HEADS * HS * sizeof(float) / sizeof(floatX),
        SPACE = KEY_SPACE > OUT_SPACE ? KEY_SPACE
                                      : OUT_SPACE  // of a team: a tile of keys, then the parts of its output
    };
    SHARED(floatX, space, [TEAMS][SPACE]);
    SHARED(float, queries, [HEADS][HS]);
    SHARED(float, probabilities, [TEAMS][HEADS][TILE]);
    SHARED(float, stats, [TEAMS][HEADS][2]);
    int group = args.NH / args.NKV, groups = CEIL_DIV(group, HEADS);
    int sequence = blockIdx.x / (args.NKV * groups), kv = blockIdx.x / groups % args.NKV,
        head = kv * group + blockIdx.x % groups * HEADS;
    int heads = min(HEADS, (kv + 1) * group - head), begin = blockIdx.y * DECODE_PIECE,
        end = min(begin + DECODE_PIECE, args.length[sequence]);
    int team = threadIdx.x / TEAM, lane = threadIdx.x % TEAM, ldc = args.NKV * HS, part = lane / LANES,
        column = lane % LANES * VEC;
    int skipped = max(0, first_position(args, sequence) - begin) / TILE * TILE;  // whole tiles before the window
    if (begin >= end || end <= first_position(args, sequence)) return;
    // the group's queries, scaled, in powers of two
    for (int i = threadIdx.x; i < HEADS * HS; i += blockDim.x) {
        int h = i / HS;
        queries[h][i % HS] = h < heads ? to_float(args.qkv[(size_t)sequence * args.ldq + (head + h) * HS + i % HS]) *
                                             args.scale * LOG2E
                                       : 0.0f;
    }
    __syncthreads();

    // every team its own tiles: scores, running maximum and sum, output
    float highest[HEADS], sum[HEADS];
    float8 out[HEADS][COLS];
    UNROLL for (int h = 0; h < HEADS; h++) {
        highest[h] = -INFINITY;
        sum[h] = 0.0f;
        UNROLL for (int c = 0; c < COLS; c++) for (int e = 0; e < VEC; e++) out[h][c].v[e] = 0.0f;
    }
    for (int at = begin + skipped + team * TILE; at < end; at += TEAMS * TILE) {
        int rows = min(TILE, end - at), first = first_position(args, sequence) - at;  // keys that are there and seen
        size_t row = (size_t)(args.first[sequence] + at) * ldc + kv * HS;
        const floatX* keys = args.keys + row;
        if (TEAM > 1) {
            copy_keys<HS, LD>(space[team], keys, ldc, rows);
            keys = space[team];
            team_sync();
        }
        float score[HEADS][KEYS];
        UNROLL for (int k = 0; k < KEYS; k++) {
            int key = k * TEAM + lane;
            float8 x[HEADS] = {};
            for (int c = 0; c < HS && key < rows; c += VEC) {
                float8 y = load8(keys + key * (TEAM > 1 ? LD : ldc) + c);
                UNROLL for (int h = 0; h < HEADS; h++) for (int e = 0; e < VEC; e++) x[h].v[e] += queries[h][c + e] *
                                                                                                  y.v[e];
            }
            UNROLL for (int h = 0; h < HEADS; h++) {
                float s = sum8(x[h]);
                // tanh x = 1 − 2 / (1 + exp(2x)); s is in powers of two
                if (args.cap) s = args.cap * LOG2E * (1.0f - __fdividef(2.0f, 1.0f + exp2_approx(2.0f / args.cap * s)));
                score[h][k] = key < rows && key >= first ? s : -INFINITY;
            }
        }
        // the online softmax: what was summed so far shrinks to the new maximum
        UNROLL for (int h = 0; h < HEADS; h++) {
            float top = highest[h], added = 0.0f;
            UNROLL for (int k = 0; k < KEYS; k++) top = fmaxf(top, score[h][k]);
            top = team_max(top);
            UNROLL for (int k = 0; k < KEYS; k++)
                probabilities[team][h][k * TEAM + lane] = score[h][k] = exp2_approx(score[h][k] - top);
            UNROLL for (int k = 0; k < KEYS; k++) added += score[h][k];
            float shrink = exp2_approx(highest[h] - top);
            sum[h] = sum[h] * shrink + team_sum(added);
            highest[h] = top;
            UNROLL for (int c = 0; c < COLS; c++) for (int e = 0; e < VEC; e++) out[h][c].v[e] *= shrink;
        }
        team_sync();
        // probabilities times values
        for (int from = part; from < rows && part < PARTS; from += 4 * PARTS) {
            UNROLL for (int u = 0; u < 4; u++) {  // four loads in flight
                int j = from + u * PARTS;
                if (j >= rows) break;
                UNROLL for (int c = 0; c < COLS; c++) {
                    float8 y = load8(args.values + row + (size_t)j * ldc + column + c * VEC);
                    UNROLL for (int h = 0; h < HEADS; h++) for (int e = 0; e < VEC; e++) out[h][c].v[e] +=
                        probabilities[team][h][j] * y.v[e];
                }
            }
        }
    }
    // What the teams have is put into shared memory, and joined to the piece's result. The tile of keys that was there
    // was last read before a team_sync of the loop.
    float(*parts)[HEADS][HS] = reinterpret_cast<float(*)[HEADS][HS]>(space[team]);
    UNROLL for (int h = 0; h < HEADS; h++) {
        if (part < PARTS) {
            UNROLL for (int c = 0; c < COLS; c++) store8(&parts[part][h][column + c * VEC], out[h][c]);
        }
        if (lane == 0) {
            stats[team][h][0] = highest[h];
            stats[team][h][1] = sum[h];
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < heads * HS; i += blockDim.x) {
        int h = i / HS, d = i % HS;
        float top = stats[0][h][0], total = 0.0f, x = 0.0f;
        UNROLL for (int w = 1; w < TEAMS; w++) top = fmaxf(top, stats[w][h][0]);
        UNROLL for (int w = 0; w < TEAMS; w++) {
            float of_team = 0.0f, shrink = exp2_approx(stats[w][h][0] - top);  // 0 for a team that had no tile
            UNROLL for (int g = 0; g < PARTS; g++) of_team += reinterpret_cast<float(*)[HEADS][HS]>(space[w])[g][h][d];
            total += stats[w][h][1] * shrink;
            x += of_team * shrink;
        }
        float* piece = args.scratch + (((size_t)sequence * args.NH + head + h) * pieces + blockIdx.y) * (HS + 2);
        piece[d] = x;
        if (d == 0) {
            piece[HS] = top;
            piece[HS + 1] = total;
        }
    }
}

// One thread for VEC elements of the output: the pieces of its head, in order. A sequence of no rows (padding) gives
// zeros.
static __global__ void join_pieces_kernel(floatX* atty, DecodeArgs args, int pieces) {
    int HS = args.HS, width = args.NH * HS / VEC;
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, row = i / width, c = i % width * VEC, head = c / HS, d = c % HS;
    if (row >= (unsigned)args.n) return;
    const float* piece = args.scratch + ((size_t)row * args.NH + head) * pieces * (HS + 2);
    int from = first_position(args, row) / DECODE_PIECE, used = CEIL_DIV(args.length[row], DECODE_PIECE);
    float top = -INFINITY, total = 0.0f;
    float8 x = {};
    for (int p = from; p < used; p++) top = fmaxf(top, piece[(size_t)p * (HS + 2) + HS]);
    for (int p = from; p < used; p++) {
        const float* of_piece = piece + (size_t)p * (HS + 2);
        float shrink = exp2_approx(of_piece[HS] - top);
        total += of_piece[HS + 1] * shrink;
        for (int e = 0; e < VEC; e++) x.v[e] += of_piece[d + e] * shrink;
    }
    for (int e = 0; e < VEC; e++) x.v[e] = used ? x.v[e] / total : 0.0f;
    store8(atty + (size_t)row * args.ldo + c, x);
}

// ---------------------------------------------------------------------------------------------------
// launchers

#define BLOCK 256

void cache_store(floatX* keys, floatX* values, const floatX* qkv, const int* rows, int T, int NH, int NKV, int HS,
                 int ldq, cudaStream_t stream) {
    NVTX_RANGE("cache_store");
    assert(HS % VEC == 0 && ldq % VEC == 0 && (size_t)T * 2 * NKV * HS / VEC < INT32_MAX);
    if (T == 0) return;
    LAUNCH(cache_store_kernel, CEIL_DIV((unsigned)((size_t)T * 2 * NKV * HS / VEC), BLOCK), BLOCK, 0, stream, keys,
           values, qkv, rows, T, NH, NKV, HS, ldq);
}

static int n_pieces(int longest) { return longest > DECODE_PIECE ? CEIL_DIV(longest, DECODE_PIECE) : 1; }

size_t decode_attention_scratch(int n, int longest, int NH, int HS) {
    return (size_t)n * NH * n_pieces(longest) * (HS + 2);
}

template <int HS, int HEADS>
static void launch_heads(const DecodeArgs& args, int groups, int pieces, cudaStream_t stream) {
    dim3 grid(args.n * args.NKV * groups, pieces);
    LAUNCH((decode_attention_kernel<HS, HEADS>), grid, N_TEAMS(HS) * TEAM, 0, stream, args, pieces);
}
template <int HS> static void launch(const DecodeArgs& args, cudaStream_t stream) {
    int group = args.NH / args.NKV, pieces = n_pieces(args.longest);
    // as many heads at a time as leave none of a block's without work
    if (group == 1) {
        launch_heads<HS, 1>(args, 1, pieces, stream);
        return;
    }
    if constexpr (HS != 80 && HS != 96) {  // there three heads spill registers on sm_80
        if (group % 4 && group % 3 == 0) {
            launch_heads<HS, 3>(args, group / 3, pieces, stream);
            return;
        }
    }
    launch_heads<HS, 4>(args, CEIL_DIV(group, 4), pieces, stream);
}

void decode_attention(floatX* atty, const DecodeArgs& args, cudaStream_t stream) {
    NVTX_RANGE("decode_attention");
    assert(attention_head_size_supported(args.HS) && args.NH % args.NKV == 0 && n_pieces(args.longest) <= 65535);
    if (args.n == 0) return;
    AT_HEAD_SIZE(args.HS, launch, args, stream)
    LAUNCH(join_pieces_kernel, CEIL_DIV((unsigned)((size_t)args.n * args.NH * args.HS / VEC), BLOCK), BLOCK, 0, stream,
           atty, args, n_pieces(args.longest));
}
