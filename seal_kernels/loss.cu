/*
The weighted loss: hidden states of the tokens that carry loss are gathered, the caller multiplies them with the head in
chunks, and cross-entropy runs forward and backward in place on the chunk's logits
(torch.nn.functional.cross_entropy(reduction="none"), its gradient times a weight per token). A row of logits is read
twice and written once; with the maximum and the sum taken in one pass, the second read comes from the L2 cache.
*/
#include <assert.h>
#include <float.h>
#include "kernels.h"
#include "ptx.h"

// Threads of a row. An SM holds 1024 of these threads, so their number decides how many rows a GPU has in flight; those
// should stay in its L2 cache (50 MB on H100) between their two reads. 264 rows of Llama-3's 128256 logits would not,
// 132 do; shorter rows gain from two blocks that take turns at their barriers. On the CPU a thread costs time at each
// of the block's barriers. A row that a few warps load at one go gets no more of them.
#if DEVICE_HALVES
#define ROW_THREADS(V) ((V) * sizeof(floatX) > 160000 ? 1024 : 512)
#else
#define ROW_THREADS(V) 128
#endif
#define ROW_VECS 4  // vectors a thread loads at once: the running maximum is corrected once for all of them
static int row_threads(int Vp) {
    int threads = CEIL_DIV(CEIL_DIV(Vp, ROW_VECS * VEC), WARP_SIZE) * WARP_SIZE, most = ROW_THREADS(Vp);
    return threads < most ? threads : most;
}

// ---------------------------------------------------------------------------------------------------
// kernels

// one thread for VEC elements of a row; 32-bit numbers of vectors, because a 64-bit division costs more than all the
// rest
static __global__ void gather_rows_kernel(floatX* out, const floatX* inp, const int* rows, float scale, int n, int C,
                                          int ldi) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, row = i / (C / VEC), c = i % (C / VEC) * VEC;
    if (row >= (unsigned)n) return;
    float8 x = load8(inp + (size_t)rows[row] * ldi + c);
    for (int k = 0; k < VEC; k++) x.v[k] *= scale;
    store8(out + (size_t)row * C + c, x);
}

static __global__ void scatter_rows_kernel(floatX* dinp, const floatX* dout, const int* index, float scale, int T,
                                           int C) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, t = i / (C / VEC), c = i % (C / VEC) * VEC;
    if (t >= (unsigned)T) return;
    int row = index[t];
    float8 x = {{0.0f}};
    if (row >= 0) x = load8(dout + (size_t)row * C + c);
    for (int k = 0; k < VEC; k++) x.v[k] *= scale;
    store8(dinp + (size_t)t * C + c, x);
}

// e^(x − top) with top as exponent_of made it. On a GPU an expf is a multiplication by log2 e, a range reduction and
// ex2; here the multiplication joins the subtraction, and whatever top·log2 e is rounded to is the same in a row's sum
// and in its gradients. larger: without the NaN that a comparison keeps, which reaches the sum all the same.
#if DEVICE_HALVES
static inline __device__ float exponent_of(float top) { return top * LOG2E; }
static inline __device__ float exp_below(float x, float top) { return exp2_approx(x * LOG2E - top); }
static inline __device__ float larger(float a, float b) { return fmaxf(a, b); }
#else
static inline __device__ float exponent_of(float top) { return top; }
static inline __device__ float exp_below(float x, float top) { return expf(x - top); }
static inline __device__ float larger(float a, float b) { return a > b ? a : b; }
#endif

template <bool CAPPED> static inline __device__ float capped(float x, float cap) {
    return CAPPED ? cap * tanhf(x / cap) : x;
}

// logits i … i + 7 of a row of V, capped; −∞, which adds nothing to a sum of exponentials, past its end. INSIDE: none
// of them is past it.
template <bool CAPPED, bool INSIDE>
static inline __device__ float8 load_logits(const floatX* row, int i, int V, float cap) {
    float8 x;
    if constexpr (!INSIDE) {
        if (i + VEC > V) {
            for (int k = 0; k < VEC; k++) x.v[k] = i + k < V ? capped<CAPPED>(to_float(row[i + k]), cap) : -INFINITY;
            return x;
        }
    }
    x = load8(row + i);
    if (CAPPED)
        for (int k = 0; k < VEC; k++) x.v[k] = capped<CAPPED>(x.v[k], cap);
    return x;
}

// A thread's part of a row's softmax: its maximum so far, and Σ exp(x − that), corrected when it grows. The maximum
// starts at a finite number, so that a logit of −∞ never meets ∞ − ∞; times log2 e it is finite still.
typedef struct {
    float most;
    float8 sum;
} PartialSoftmax;

// Takes ROW_VECS vectors of the row, the first at i.
template <bool CAPPED, bool INSIDE>
static inline __device__ void add_logits(PartialSoftmax* p, const floatX* row, int i, int V, float cap) {
    float8 x[ROW_VECS], top;
    UNROLL for (int u = 0; u < ROW_VECS; u++) x[u] = load_logits<CAPPED, INSIDE>(row, i + u * blockDim.x * VEC, V, cap);
    top = x[0];
    UNROLL for (int u = 1; u < ROW_VECS; u++) for (int k = 0; k < VEC; k++) top.v[k] = larger(x[u].v[k], top.v[k]);
    float before = exponent_of(p->most);
    for (int k = 0; k < VEC; k++) p->most = fmaxf(p->most, top.v[k]);
    float now = exponent_of(p->most), shrink = exp_below(0.0f, now - before);
    for (int k = 0; k < VEC; k++) p->sum.v[k] *= shrink;
    UNROLL for (int u = 0; u < ROW_VECS; u++) for (int k = 0; k < VEC; k++) p->sum.v[k] += exp_below(x[u].v[k], now);
}

// The vectors of a row that a thread takes at once are all before this one's end where the first is before it.
static inline __device__ int whole_steps_end(int end) { return end / VEC * VEC - (ROW_VECS - 1) * blockDim.x * VEC; }

// *highest = max of the row, returns Σ exp(x − max). A NaN or +∞ makes the sum NaN.
template <bool CAPPED> static __device__ float row_softmax(float* highest, const floatX* row, int V, float cap) {
    PartialSoftmax p = {-FLT_MAX / 4, {{0.0f}}};
    const int step = ROW_VECS * blockDim.x * VEC, whole = whole_steps_end(V);
    int i = threadIdx.x * VEC;
    NO_UNROLL for (; i < whole; i += step) add_logits<CAPPED, true>(&p, row, i, V, cap);
    if (i < V) add_logits<CAPPED, false>(&p, row, i, V, cap);
    float total = 0.0f;
    for (int k = 0; k < VEC; k++) total += p.sum.v[k];
    *highest = block_max(p.most);
    return block_sum(total * exp_below(0.0f, exponent_of(*highest) - exponent_of(p.most)));
}

// scale · exp(x − max), through the cap; top as exponent_of made it of the maximum
template <bool CAPPED>
static inline __device__ float gradient_of(float x, float scale, float top, float onehot, float cap) {
    float gradient = scale * exp_below(x, top) - onehot;
    if (CAPPED) gradient *= 1.0f - __fdividef(x, cap) * __fdividef(x, cap);
    return gradient;
}

// One block per row of logits (n, Vp). See kernels.h.
template <bool CAPPED>
static __global__ void __launch_bounds__(1024) cross_entropy_kernel(floatX* logits, float* loss, const int* targets,
                                                                    const float* weight, float cap, int V, int Vp) {
    floatX* row = logits + (size_t)blockIdx.x * Vp;
    int target = targets[blockIdx.x];
    bool good = (unsigned)target < (unsigned)V;  // sample_losses reports a target that is not
    float at_target = good ? capped<CAPPED>(to_float(row[target]), cap) : NAN,
          highest;  // read before anyone writes: the barriers of row_softmax are between
    float sum = row_softmax<CAPPED>(&highest, row, V, cap);
    if (threadIdx.x == 0) loss[blockIdx.x] = logf(sum) + (highest - at_target);
    if (weight == NULL) return;
    float w = good ? weight[blockIdx.x] : 0.0f, scale = w / sum, top = exponent_of(highest);
    const int step = ROW_VECS * blockDim.x * VEC, whole = whole_steps_end(V);
    int i = threadIdx.x * VEC;
    if (w == 0.0f) {  // zero even where its logits are not finite
        const float8 zero = {{0.0f}};
        for (; i < Vp; i += blockDim.x * VEC) store8(row + i, zero);
        return;
    }
    NO_UNROLL for (; i < whole; i += step) {
        float8 x[ROW_VECS];
        UNROLL for (int u = 0; u < ROW_VECS; u++)
            x[u] = load_logits<CAPPED, true>(row, i + u * blockDim.x * VEC, V, cap);
        UNROLL for (int u = 0; u < ROW_VECS; u++) {
            for (int k = 0; k < VEC; k++) x[u].v[k] = gradient_of<CAPPED>(x[u].v[k], scale, top, 0.0f, cap);
            store8(row + i + u * blockDim.x * VEC, x[u]);
        }
    }
    for (; i < Vp; i += blockDim.x * VEC) {
        float8 x = load_logits<CAPPED, false>(row, i, V, cap);
        for (int k = 0; k < VEC; k++) x.v[k] = i + k < V ? gradient_of<CAPPED>(x.v[k], scale, top, 0.0f, cap) : 0.0f;
        store8(row + i, x);
    }
    // the target's own element once more, by the thread that has just written it
    if (target / VEC % blockDim.x == threadIdx.x)
        row[target] = from_float<floatX>(gradient_of<CAPPED>(at_target, scale, top, w, cap));
}

// One warp per sample. Of several bad targets the word keeps the least, whatever the order of the blocks.
static __global__ void sample_losses_kernel(float* sample_loss, BadTarget* bad, const float* loss, const int* targets,
                                            int V, const int* loss_start, const int* place, int k) {
    int s = (blockIdx.x * blockDim.x + threadIdx.x) / WARP_SIZE, lane = threadIdx.x % WARP_SIZE;
    if (s >= k) return;
    int begin = loss_start[s], end = loss_start[s + 1];
    int sample = place ? place[s] : s;
    float sum = 0.0f;
    for (int i = begin + lane; i < end; i += WARP_SIZE) {
        sum += loss[i];
        int target = targets[i];
        if ((unsigned)target >= (unsigned)V) atomicMin(bad, (BadTarget)sample << 32 | (unsigned)target);
    }
    sum = warp_sum(sum);
    if (lane == 0) sample_loss[sample] = end > begin ? sum / (end - begin) : 0.0f;
}

// ---------------------------------------------------------------------------------------------------
// launchers

#define BLOCK 256

static unsigned grid(int rows, int C) {
    assert(C % VEC == 0 && (size_t)rows * C / VEC < INT32_MAX);
    return CEIL_DIV((unsigned)((size_t)rows * C / VEC), BLOCK);
}

void gather_rows(floatX* out, const floatX* inp, const int* rows, float scale, int n, int C, int ldi,
                 cudaStream_t stream) {
    NVTX_RANGE("gather_rows");
    assert(ldi % VEC == 0);
    if (n == 0) return;
    LAUNCH(gather_rows_kernel, grid(n, C), BLOCK, 0, stream, out, inp, rows, scale, n, C, ldi);
}

void scatter_rows(floatX* dinp, const floatX* dout, const int* index, float scale, int T, int C, cudaStream_t stream) {
    NVTX_RANGE("scatter_rows");
    if (T == 0) return;
    LAUNCH(scatter_rows_kernel, grid(T, C), BLOCK, 0, stream, dinp, dout, index, scale, T, C);
}

void cross_entropy(floatX* logits, float* loss, const int* targets, const float* weight, float cap, int n, int V,
                   int Vp, cudaStream_t stream) {
    NVTX_RANGE("cross_entropy");
    assert(Vp % VEC == 0 && Vp >= V && V > 0);
    if (n == 0) return;
    if (cap > 0.0f)
        LAUNCH(cross_entropy_kernel<true>, n, row_threads(Vp), 0, stream, logits, loss, targets, weight, cap, V, Vp);
    else LAUNCH(cross_entropy_kernel<false>, n, row_threads(Vp), 0, stream, logits, loss, targets, weight, cap, V, Vp);
}

void sample_losses(float* sample_loss, BadTarget* bad, const float* loss, const int* targets, int V,
                   const int* loss_start, const int* place, int k, cudaStream_t stream) {
    NVTX_RANGE("sample_losses");
    if (k == 0) return;
    LAUNCH(sample_losses_kernel, CEIL_DIV(k, BLOCK / WARP_SIZE), BLOCK, 0, stream, sample_loss, bad, loss, targets, V,
           loss_start, place, k);
}
