/* One optimizer step over a parameter set. See optimizer.h; the kernels are adamw.cu, global_norm.cu and nonfinite.cu.
 */
#include "kernels.h"
#include "optimizer.h"
#include "base/ranks.h"

void gradients_zero(ParameterSet* set, cudaStream_t stream) {
    cudaCheck(cudaMemsetAsync(set->grads, 0, set->layout->n_elements * sizeof(float), stream));
}

void gradients_sum_layer(const ParameterSet* set, int layer, cudaStream_t stream) {
    const ModelLayout* layout = set->layout;
    for (int i = 0; i < layout->n_tensors; i++) {
        const ModelTensor* t = &layout->tensors[i];
        if (t->layer != layer) continue;
        for (int r = 0; r < ranks_count(); r++) {
            int64_t low = shard_begin(layout, r), high = shard_begin(layout, r + 1),
                    end = t->offset + t->rows * t->cols;
            if (low < t->offset) low = t->offset;
            if (high > end) high = end;
            if (low < high) ranks_sum_at(set->grads + low, (size_t)(high - low), r, stream);
        }
    }
}

static void spread_weights(const ParameterSet* set, cudaStream_t stream) {
    ranks_group_begin();
    for (int r = 0; r < ranks_count(); r++) {
        int64_t from = shard_begin(set->layout, r), n = shard_begin(set->layout, r + 1) - from;
        ranks_spread(set->weights + from, (size_t)n * sizeof(floatX), r, stream);
    }
    ranks_group_end();
}

void optimizer_step(ParameterSet* set, const AdamwSettings* a, float lr, float* norm, float* scale,
                    cudaStream_t stream) {
    NVTX_RANGE("optimizer");
    if (ranks_count() == 1)
        global_norm(norm, scale, set->norm_partial, set->rows, set->n_rows, set->n_chunks, a->clip, stream);
    else {
        gradient_squares(set->squares, set->norm_partial, set->rows, set->n_rows, set->n_chunks, stream);
        ranks_sum_double(set->squares, 1, stream);
        norm_of_squares(norm, scale, set->squares, a->clip, stream);
    }
    adamw_update(set->rows, set->n_rows, set->n_chunks, scale, lr, a->beta1, a->beta2, a->eps, ++set->step, stream);
    if (ranks_count() > 1) spread_weights(set, stream);
}

const char* first_nonfinite(const ParameterSet* set, bool weights, cudaStream_t stream) {
    int n = set->layout->n_tensors, first = n;
    int* device_first = NULL;
    cudaCheck(cudaMalloc((void**)&device_first, sizeof(int)));
    find_nonfinite(device_first, set->rows, set->n_rows, set->n_chunks, weights, stream);
    cudaCheck(cudaMemcpyAsync(&first, device_first, sizeof(int), cudaMemcpyDeviceToHost, stream));
    cudaCheck(cudaStreamSynchronize(stream));
    first = first < set->n_rows ? set->first_row + first : n;
    cudaCheck(cudaMemcpyAsync(device_first, &first, sizeof(int), cudaMemcpyHostToDevice, stream));
    ranks_least(device_first, 1, stream);
    cudaCheck(cudaMemcpyAsync(&first, device_first, sizeof(int), cudaMemcpyDeviceToHost, stream));
    cudaCheck(cudaStreamSynchronize(stream));
    cudaCheck(cudaFree(device_first));
    return first < n ? set->layout->tensors[first].name : NULL;
}
