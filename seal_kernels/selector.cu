/*
The data selector ω: softmax and sigmoid weights of a batch, the gradient of its weighted loss, and the optimizers that
are not Adam (Adam is adamw.cu over a table of one row). All of it is fp32. N is a few hundred thousand at most, a batch
a few hundred: every kernel here takes microseconds.
*/
#include "kernels.h"

#define BLOCK 256
#define DENSE_BLOCK 128  // of the kernels over all N, VEC logits per thread
#define PARTS 128        // blocks of the first stage of a sum over N, at most

// ---------------------------------------------------------------------------------------------------
// kernels

// logits k … k + 7; `otherwise` past the end
static inline __device__ float8 load_logits(const float* omega, int k, int N, float otherwise) {
    if (k + VEC <= N) return load8(omega + k);
    float8 x;
    for (int j = 0; j < VEC; j++) x.v[j] = k + j < N ? omega[k + j] : otherwise;
    return x;
}

// Max and Σ exp(ω − max) of each block's share; the second stage combines them in block order.
static __global__ void normalise_parts_kernel(float* part_max, float* part_sum, const float* omega, const float* count,
                                              int N) {
    float highest = -INFINITY;
    int begin = (blockIdx.x * DENSE_BLOCK + threadIdx.x) * VEC, stride = gridDim.x * DENSE_BLOCK * VEC;
    for (int k = begin; k < N; k += stride) {
        float8 x = load_logits(omega, k, N, -INFINITY);
        for (int j = 0; j < VEC; j++) highest = fmaxf(highest, x.v[j]);
    }
    highest = block_max(highest);
    float8 sums = {{0.0f}};
    for (int k = begin; k < N; k += stride) {
        float8 x = load_logits(omega, k, N, -INFINITY);
        if (count) {
            float8 n = load_logits(count, k, N, 0.0f);
            for (int j = 0; j < VEC; j++) sums.v[j] = fmaf(n.v[j], expf(x.v[j] - highest), sums.v[j]);
        } else
            for (int j = 0; j < VEC; j++) sums.v[j] += expf(x.v[j] - highest);
    }
    float sum = 0.0f;
    for (int j = 0; j < VEC; j++) sum += sums.v[j];
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        part_max[blockIdx.x] = highest;
        part_sum[blockIdx.x] = sum;
    }
}
static __global__ void normalise_kernel(float* stats, const float* part_max, const float* part_sum, int parts) {
    int i = threadIdx.x;
    float highest = block_max(i < parts ? part_max[i] : -INFINITY);
    float sum = block_sum(i < parts ? part_sum[i] * expf(part_max[i] - highest) : 0.0f);
    if (i == 0) {
        stats[0] = highest;
        stats[1] = sum;
    }
}

// softmax: N·exp(ω − max)/Σ (mean 1 over all N); sigmoid: 2/(1 + exp(−ω)), written so that neither end overflows.
static inline __device__ float sigma_of(float omega, const float* stats, int N, SelectorActivation activation) {
    if (activation == SELECTOR_SOFTMAX) return (float)N * expf(omega - stats[0]) / stats[1];
    float e = expf(-fabsf(omega));
    return 2.0f * (omega >= 0.0f ? 1.0f : e) / (1.0f + e);
}
static __global__ void sigma_kernel(float* sigma, const float* omega, const float* stats, const int* rows, int b, int N,
                                    SelectorActivation activation) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < b) sigma[i] = sigma_of(omega[rows[i]], stats, N, activation);
}

// One warp per sample.
static __global__ void token_weights_kernel(float* weight, const float* sigma, const float* coefficient,
                                            const int* place, const int* loss_start, int k, int b) {
    int s = (blockIdx.x * blockDim.x + threadIdx.x) / WARP_SIZE;
    if (s >= k) return;
    float w = coefficient[s] * (place[s] < b ? sigma[place[s]] : 1.0f);
    for (int i = loss_start[s] + threadIdx.x % WARP_SIZE; i < loss_start[s + 1]; i += WARP_SIZE) weight[i] = w;
}

static __global__ void delta_kernel(float* delta, const float* loss, const float* loss_hat, float scale,
                                    const float* weight, const int* rows, int b) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= b) return;
    delta[i] = scale * (loss[i] - (loss_hat ? loss_hat[i] : 0.0f));
    if (weight) delta[i] *= weight[rows[i]];
}

// softmax: g_k = σ_k / b · ([k in B] Δ_k − S), S = (1/N) Σ over B of σ_i Δ_i: here the dense part, −σ_k S / b. sigmoid:
// zero outside the batch. Every block sums S for itself, in batch order, so that all have the same bits.
static __global__ void gradient_dense_kernel(float* grad, const float* omega, const float* stats, const float* sigma,
                                             const float* delta, const float* count, int b, int N,
                                             SelectorActivation activation) {
    SHARED(float, S, [1]);
    if (threadIdx.x == 0) {
        float sum = 0.0f;
        if (activation == SELECTOR_SOFTMAX)
            for (int i = 0; i < b; i++) sum += sigma[i] * delta[i];
        S[0] = sum / (float)N;
    }
    __syncthreads();
    int k = (blockIdx.x * DENSE_BLOCK + threadIdx.x) * VEC;
    if (k >= N) return;
    float8 g = {{0.0f}};
    if (activation == SELECTOR_SOFTMAX) {
        float highest = stats[0], factor = -(float)N / stats[1] * S[0] / (float)b;
        g = load_logits(omega, k, N, 0.0f);
        for (int j = 0; j < VEC; j++) g.v[j] = factor * expf(g.v[j] - highest);
        if (count) {
            float8 n = load_logits(count, k, N, 0.0f);
            for (int j = 0; j < VEC; j++) g.v[j] *= n.v[j];
        }
    }
    if (k + VEC <= N) store8(grad + k, g);
    else
        for (int j = 0; k + j < N; j++) grad[k + j] = g.v[j];
}
// The rows of the batch. A row that repeats is added by its first thread, in batch order.
static __global__ void gradient_batch_kernel(float* grad, const float* omega, const float* sigma, const int* rows,
                                             const float* delta, int b, SelectorActivation activation) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= b) return;
    int row = rows[i];
    for (int j = 0; j < i; j++)
        if (rows[j] == row) return;
    float e = expf(-fabsf(omega[row])), slope = 2.0f * e / ((1.0f + e) * (1.0f + e));  // 2 s (1 − s)
    float sum = 0.0f;
    for (int j = i; j < b; j++)
        if (rows[j] == row) sum += (activation == SELECTOR_SOFTMAX ? sigma[j] : slope) * delta[j];
    grad[row] += sum / (float)b;
}

static __global__ void fill_kernel(float* x, float value, int N) {
    int k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k < N) x[k] = value;
}
static __global__ void descend_kernel(float* omega, const float* grad, const float* scale, float lr, int N) {
    int k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k < N) omega[k] -= lr * *scale * grad[k];
}

// One block: the batch is small, and its sum has one order.
static __global__ void centre_kernel(float* delta, float* running, int b, float decay) {
    SHARED(float, mean, [1]);
    if (threadIdx.x == 0) {
        float sum = 0.0f;
        for (int i = 0; i < b; i++) sum += delta[i];
        running[0] = decay * running[0] + (1.0f - decay) * sum / (float)b;
        running[1] = decay * running[1] + (1.0f - decay);
        mean[0] = running[0] / running[1];  // the correction for a start at zero, as Adam's
    }
    __syncthreads();
    for (int i = threadIdx.x; i < b; i += blockDim.x) delta[i] -= mean[0];
}

// One thread walks the batch in its order: rows may repeat.
static __global__ void visit_kernel(float* sum, float* visits, float* running, const int* rows, const float* delta,
                                    int b) {
    if (threadIdx.x != 0) return;
    for (int i = 0; i < b; i++) {
        sum[rows[i]] += delta[i];
        visits[rows[i]] += 1.0f;
        running[0] += delta[i];
        running[1] += 1.0f;
    }
}
static __global__ void visited_kernel(float* omega, const float* sum, const float* visits, const float* running, int N,
                                      float lr, float initial) {
    int k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k < N && visits[k] > 0.0f) omega[k] = initial - lr * (sum[k] / visits[k] - running[0] / running[1]);
}

// ---------------------------------------------------------------------------------------------------
// launchers

size_t selector_scratch(int N) {
    (void)N;
    return 2 * PARTS;
}

void selector_normalise(float* stats, float* scratch, const float* omega, int N, cudaStream_t stream,
                        const float* count) {
    NVTX_RANGE("selector_normalise");
    int parts = min(PARTS, CEIL_DIV(N, DENSE_BLOCK * VEC));
    LAUNCH(normalise_parts_kernel, parts, DENSE_BLOCK, 0, stream, scratch, scratch + PARTS, omega, count, N);
    LAUNCH(normalise_kernel, 1, PARTS, 0, stream, stats, scratch, scratch + PARTS, parts);
}
void selector_sigma(float* sigma, const float* omega, const float* stats, const int* rows, int b, int N,
                    SelectorActivation activation, cudaStream_t stream) {
    NVTX_RANGE("selector_sigma");
    if (b > 0) LAUNCH(sigma_kernel, CEIL_DIV(b, BLOCK), BLOCK, 0, stream, sigma, omega, stats, rows, b, N, activation);
}
void selector_token_weights(float* weight, const float* sigma, const float* coefficient, const int* place,
                            const int* loss_start, int k, int b, cudaStream_t stream) {
    NVTX_RANGE("selector_token_weights");
    if (k > 0)
        LAUNCH(token_weights_kernel, CEIL_DIV(k * WARP_SIZE, BLOCK), BLOCK, 0, stream, weight, sigma, coefficient,
               place, loss_start, k, b);
}
void selector_delta(float* delta, const float* loss, const float* loss_hat, float scale, const float* weight,
                    const int* rows, int b, cudaStream_t stream) {
    NVTX_RANGE("selector_delta");
    if (b > 0)
        LAUNCH(delta_kernel, CEIL_DIV(b, BLOCK), BLOCK, 0, stream, delta, loss, loss_hat, scale, weight, rows, b);
}
void selector_gradient(const SelectorGradient& x, cudaStream_t stream) {
    NVTX_RANGE("selector_gradient");
    if (x.b == 0) return cudaCheck(cudaMemsetAsync(x.grad, 0, x.N * sizeof(float), stream));  // a mean over nothing
    LAUNCH(gradient_dense_kernel, CEIL_DIV(x.N, DENSE_BLOCK * VEC), DENSE_BLOCK, 0, stream, x.grad, x.omega, x.stats,
           x.sigma, x.delta, x.count, x.b, x.N, x.activation);
    LAUNCH(gradient_batch_kernel, CEIL_DIV(x.b, BLOCK), BLOCK, 0, stream, x.grad, x.omega, x.sigma, x.rows, x.delta,
           x.b, x.activation);
}
void selector_fill(float* omega, float value, int N, cudaStream_t stream) {
    LAUNCH(fill_kernel, CEIL_DIV(N, BLOCK), BLOCK, 0, stream, omega, value, N);
}
void selector_descend(float* omega, const float* grad, const float* scale, float lr, int N, cudaStream_t stream) {
    LAUNCH(descend_kernel, CEIL_DIV(N, BLOCK), BLOCK, 0, stream, omega, grad, scale, lr, N);
}
void selector_centre(float* delta, float* running, int b, float decay, cudaStream_t stream) {
    LAUNCH(centre_kernel, 1, BLOCK, 0, stream, delta, running, b, decay);
}
void selector_visit(const SelectorVisit& x, cudaStream_t stream) {
    LAUNCH(visit_kernel, 1, WARP_SIZE, 0, stream, x.sum, x.visits, x.running, x.rows, x.delta, x.b);
    LAUNCH(visited_kernel, CEIL_DIV(x.N, BLOCK), BLOCK, 0, stream, x.omega, x.sum, x.visits, x.running, x.N, x.lr,
           x.initial);
}
