/*
AdamW over the whole tensor table in one launch (torch.optim.AdamW): decoupled weight decay, bias correction, fp32
masters. A block takes a chunk of TENSOR_CHUNK elements, so that small and large tensors fill the device alike; whole
vectors first, then the tail of a tensor.
*/
#include "kernels.h"
#include "tensor_rows.h"

#define BLOCK 256

typedef struct {
    float lr, beta1, beta2, eps;
    float correction1, correction2;  // 1 − β₁ᵗ, √(1 − β₂ᵗ)
} AdamwArgs;

// ---------------------------------------------------------------------------------------------------
// kernels

static inline __device__ float adamw_element(float w, float g, float* m, float* v, float decay, AdamwArgs a) {
    *m = a.beta1 * *m + (1.0f - a.beta1) * g;
    *v = a.beta2 * *v + (1.0f - a.beta2) * g * g;
    w *= decay;
    return w - a.lr / a.correction1 * *m / (sqrtf(*v) / a.correction2 + a.eps);
}

static __global__ void adamw_kernel(const TensorRow* rows, int n_rows, const float* grad_scale, AdamwArgs args) {
    const TensorRow row = rows[row_of_chunk(rows, n_rows, blockIdx.x)];
    int64_t from, to;
    chunk_range(&row, blockIdx.x, &from, &to);
    float scale = grad_scale ? *grad_scale : 1.0f, decay = 1.0f - args.lr * row.weight_decay;
    int64_t whole = from + (to - from) / VEC * VEC;
    bool narrow = row.param != NULL && (const void*)row.param != (const void*)row.master;  // a bf16 copy to refresh
    for (int64_t i = from + threadIdx.x * VEC; i < whole; i += BLOCK * VEC) {
        float8 w = load8(row.master + i), g = load8(row.grad + i), m = load8(row.m + i), v = load8(row.v + i);
        UNROLL for (int k = 0; k < VEC; k++)
            w.v[k] = adamw_element(w.v[k], scale * g.v[k], &m.v[k], &v.v[k], decay, args);
        store8(row.master + i, w);
        store8(row.m + i, m);
        store8(row.v + i, v);
        if (narrow) store8(row.param + i, w);
    }
    for (int64_t i = whole + threadIdx.x; i < to; i += BLOCK) {
        float m = row.m[i], v = row.v[i], w = adamw_element(row.master[i], scale * row.grad[i], &m, &v, decay, args);
        row.master[i] = w;
        row.m[i] = m;
        row.v[i] = v;
        if (narrow) row.param[i] = from_float<floatX>(w);
    }
}

// ---------------------------------------------------------------------------------------------------
// launchers

int64_t tensor_rows_chunks(TensorRow* rows, int n_rows) {
    int64_t chunks = 0;
    for (int i = 0; i < n_rows; i++) {
        rows[i].first_chunk = chunks;
        chunks += CEIL_DIV(rows[i].count, TENSOR_CHUNK);
    }
    return chunks;
}

void adamw_update(const TensorRow* rows, int n_rows, int64_t n_chunks, const float* grad_scale, float lr, float beta1,
                  float beta2, float eps, int step, cudaStream_t stream) {
    NVTX_RANGE("adamw_update");
    if (n_chunks == 0) return;
    AdamwArgs args = {
        lr, beta1, beta2, eps, (float)(1.0 - pow((double)beta1, step)), (float)sqrt(1.0 - pow((double)beta2, step))};
    LAUNCH(adamw_kernel, (unsigned)n_chunks, BLOCK, 0, stream, rows, n_rows, grad_scale, args);
}
