/* One optimizer step over a parameter set. See optimizer.h; the kernels are adamw.cu, global_norm.cu and nonfinite.cu. */
#include "kernels.h"
#include "optimizer.h"
// defines: ranks_sum
#include "ranks.h"

void gradients_zero(ParameterSet* set, cudaStream_t stream) {
    cudaCheck(cudaMemsetAsync(set->grads, 0, set->layout->n_elements * sizeof(float), stream));
}

void optimizer_step(ParameterSet* set, const AdamwSettings* a, float lr, float* norm, float* scale, cudaStream_t stream) {
    NVTX_RANGE("optimizer");
    ranks_sum(set->grads, set->layout->n_elements, stream);
    global_norm(norm, scale, set->norm_partial, set->rows, set->layout->n_tensors, set->n_chunks, a->clip, stream);
    adamw_update(set->rows, set->layout->n_tensors, set->n_chunks, scale, lr, a->beta1, a->beta2, a->eps, ++set->step, stream);
}

const char* first_nonfinite(const ParameterSet* set, bool weights, cudaStream_t stream) {
    int n = set->layout->n_tensors, first = n;
    int* device_first = NULL;
    cudaCheck(cudaMalloc((void**)&device_first, sizeof(int)));
    find_nonfinite(device_first, set->rows, n, set->n_chunks, weights, stream);
    cudaCheck(cudaMemcpyAsync(&first, device_first, sizeof(int), cudaMemcpyDeviceToHost, stream));
    cudaCheck(cudaStreamSynchronize(stream));
    cudaCheck(cudaFree(device_first));
    return first < n ? set->layout->tensors[first].name : NULL;
}
