/* ω's state and its update. The kernels are seal_kernels/selector.cu; what is here is the order in which a step calls
 * them. */
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "kernels.h"
#include "selector.h"

float selector_initial(SelectorActivation activation) { return activation == SELECTOR_SOFTMAX ? 0.1f : -1e-4f; }

void selector_plan(Selector* s, const SelectorSettings* settings, int N, int b_max, MemoryPlan* plan) {
    memset(s, 0, sizeof *s);
    s->settings = *settings;
    s->N = s->samples = N;
    s->b_max = b_max;
    bool moments = settings->optimizer == SELECTOR_ADAM || settings->optimizer == SELECTOR_MEAN;
    size_t n = (size_t)N * sizeof(float), b = (size_t)b_max * sizeof(float);
    memory_add(plan, MEMORY_SELECTOR, &s->omega, n, "omega");
    memory_add(plan, MEMORY_SELECTOR, &s->grad, n, "gradient of omega");
    memory_add(plan, MEMORY_SELECTOR, &s->m, moments ? n : 0, "m of omega");
    memory_add(plan, MEMORY_SELECTOR, &s->v, moments ? n : 0, "v of omega");
    memory_add(plan, MEMORY_SELECTOR, &s->sigma, b, "sigma");
    memory_add(plan, MEMORY_SELECTOR, &s->delta, b, "delta");
    memory_add(plan, MEMORY_SELECTOR, &s->rows, 2 * b, "rows of the batch");
    memory_add(plan, MEMORY_SELECTOR, &s->stats, 2 * sizeof(float), "softmax statistics");
    memory_add(plan, MEMORY_SELECTOR, &s->scratch, selector_scratch(N) * sizeof(float), "softmax partials");
    memory_add(plan, MEMORY_SELECTOR, &s->running, 2 * sizeof(float), "running mean of delta");
    memory_add(plan, MEMORY_SELECTOR, &s->norm, 2 * sizeof(float), "norm of omega's gradient");
    memory_add(plan, MEMORY_SELECTOR, &s->norm_partial, CEIL_DIV(N, TENSOR_CHUNK) * sizeof(float),
               "norm partials of omega");
    memory_add(plan, MEMORY_SELECTOR, &s->row, sizeof(TensorRow), "tensor row of omega");
}

void selector_bind(Selector* s, cudaStream_t stream) {
    TensorRow row = {NULL, s->omega, s->grad, s->m, s->v, s->N, 0, 0.0f};  // no floatX copy of ω: it is always fp32
    s->n_chunks = tensor_rows_chunks(&row, 1);
    cudaCheck(cudaMemcpy(s->row, &row, sizeof row, cudaMemcpyHostToDevice));
    cudaCheck(cudaDeviceSynchronize());  // `stream` does not wait for the default one
    s->drawn = s->rows + s->b_max;
    cudaCheck(cudaMallocHost((void**)&s->staging, 2 * (size_t)s->b_max * sizeof(int)));
    cudaCheck(cudaEventCreateWithFlags(&s->staged, cudaEventDisableTiming));
    selector_fill(s->omega, s->settings.initial, s->N, stream);
}

void selector_set_units(Selector* s, const int* unit, int samples) {
    float* count = (float*)host_alloc((size_t)s->N * sizeof(float), "the units of the selector");
    for (int i = 0; i < samples; i++) count[unit[i]] += 1.0f;
    cudaCheck(cudaMalloc((void**)&s->count, (size_t)s->N * sizeof(float)));
    cudaCheck(cudaMemcpy(s->count, count, (size_t)s->N * sizeof(float), cudaMemcpyHostToDevice));
    cudaCheck(cudaDeviceSynchronize());  // the trainer's stream does not wait for the default one
    s->unit = unit;
    s->samples = samples;
    free(count);
}

void selector_set_weights(Selector* s, const float* weights) {
    size_t bytes = (size_t)s->samples * sizeof(float);
    cudaCheck(cudaMalloc((void**)&s->weight, bytes));
    cudaCheck(cudaMemcpy(s->weight, weights, bytes, cudaMemcpyHostToDevice));
    cudaCheck(cudaDeviceSynchronize());  // the trainer's stream does not wait for the default one
}

void selector_free(Selector* s) {
    if (s->weight) cudaCheck(cudaFree(s->weight));
    if (s->count) cudaCheck(cudaFree(s->count));
    if (s->staging) cudaCheck(cudaFreeHost(s->staging));
    if (s->staging) cudaCheck(cudaEventDestroy(s->staged));
    memset(s, 0, sizeof *s);
}

void selector_weigh(Selector* s, const int* rows, int b, cudaStream_t stream) {
    NVTX_RANGE("selector weigh");
    if (b > s->b_max) program_error("a batch of %d fine-tuning samples exceeds the plan for %d", b, s->b_max);
    cudaCheck(cudaEventSynchronize(s->staged));  // the previous step's rows have left the staging buffer long ago
    for (int i = 0; i < b; i++) s->staging[i] = s->unit ? s->unit[rows[i]] : rows[i];
    memcpy(s->staging + s->b_max, rows, (size_t)b * sizeof(int));
    cudaCheck(cudaMemcpyAsync(s->rows, s->staging, 2 * (size_t)s->b_max * sizeof(int), cudaMemcpyHostToDevice, stream));
    cudaCheck(cudaEventRecord(s->staged, stream));
    if (s->settings.activation == SELECTOR_SOFTMAX)
        selector_normalise(s->stats, s->scratch, s->omega, s->N, stream, s->count);
    selector_sigma(s->sigma, s->omega, s->stats, s->rows, b, s->samples, s->settings.activation, stream);
}

void selector_update(Selector* s, const SelectorDelta* delta, int b, float lr, cudaStream_t stream) {
    NVTX_RANGE("selector update");
    const SelectorSettings* o = &s->settings;
    if (delta->zero) cudaCheck(cudaMemsetAsync(s->delta, 0, (size_t)b * sizeof(float), stream));
    else selector_delta(s->delta, delta->loss, delta->loss_hat, delta->scale, s->weight, s->drawn, b, stream);
    s->step++;
    if (o->optimizer == SELECTOR_MEAN) {  // no gradient: an estimate of each sample's Δ
        selector_visit({.omega = s->omega,
                        .sum = s->m,
                        .visits = s->v,
                        .running = s->running,
                        .rows = s->rows,
                        .delta = s->delta,
                        .b = b,
                        .N = s->N,
                        .lr = lr,
                        .initial = o->initial},
                       stream);
        return;
    }
    if (o->optimizer == SELECTOR_CENTRED) selector_centre(s->delta, s->running, b, o->mean_decay, stream);
    selector_gradient({.grad = s->grad,
                       .omega = s->omega,
                       .stats = s->stats,
                       .sigma = s->sigma,
                       .delta = s->delta,
                       .rows = s->rows,
                       .b = b,
                       .N = s->N,
                       .activation = o->activation,
                       .count = s->count},
                      stream);
    global_norm(s->norm, s->norm + 1, s->norm_partial, s->row, 1, s->n_chunks, o->clip, stream);
    if (o->optimizer == SELECTOR_ADAM)
        adamw_update(s->row, 1, s->n_chunks, s->norm + 1, lr, o->beta1, o->beta2, o->eps, s->step, stream);
    else selector_descend(s->omega, s->grad, s->norm + 1, lr, s->N, stream);
}
