/* Batches to streams to gradients. See trainer.h. */
#include <string.h>
#include "error.h"
#include "kernels.h"
// defines: ranks_sum
#include "ranks.h"
#include "trainer.h"

void trainer_plan(Trainer* t, const ModelConfig* config, const TrainerSettings* settings) {
    memset(t, 0, sizeof *t);
    t->settings = *settings;
    model_layout(&t->layout, config);
    bool train = !settings->forward_only;
    parameters_plan(&t->theta, &t->layout, "theta", train, NULL, &t->plan);
    if (settings->with_hat) parameters_plan(&t->theta_hat, &t->layout, "theta_hat", train, &t->theta, &t->plan);
    KeepMode keep = !train ? KEEP_NOTHING : settings->recompute ? KEEP_RESIDUALS : KEEP_ALL;
    transformer_plan(&t->transformer, &t->layout, keep, settings->T, settings->head_rows, &t->plan);
    stream_plan(&t->uploader, settings->T, settings->batch_max, &t->plan);
    size_t losses = ((size_t)settings->batch_max + 1) * sizeof(float);
    memory_add(&t->plan, MEMORY_SCRATCH, (void**)&t->loss, losses, "losses under theta");
    memory_add(&t->plan, MEMORY_SCRATCH, (void**)&t->loss_hat, settings->with_hat ? losses : 0, "losses under theta_hat");
    memory_add(&t->plan, MEMORY_SCRATCH, (void**)&t->norm, 4 * sizeof(float), "norms");
    memory_add(&t->plan, MEMORY_SCRATCH, NULL, MATMUL_WORKSPACE_BYTES, "GEMM workspace");  // the kernels' own
}

void trainer_plan_free(Trainer* t) {
    transformer_free(&t->transformer);
    memory_free(&t->plan);
    model_layout_free(&t->layout);
    memset(t, 0, sizeof *t);
}

void trainer_allocate(Trainer* t) {
    int n = t->settings.batch_max;
    memory_allocate(&t->plan);
    parameters_bind(&t->theta, NULL, t->settings.adamw.weight_decay);
    if (t->settings.with_hat) parameters_bind(&t->theta_hat, &t->theta, t->settings.adamw.weight_decay);
    stream_bind(&t->uploader);
    cudaCheck(cudaStreamCreateWithFlags(&t->stream, cudaStreamNonBlocking));
    packed_stream_allocate(&t->packed, t->settings.T, n, STREAM_ROUND);
    t->lengths = (int*)calloc(5 * (size_t)n, sizeof(int));
    t->samples = (PackSample*)calloc(n, sizeof *t->samples);
    t->coefficient = (float*)calloc(n, sizeof(float));
    if (!t->lengths || !t->samples || !t->coefficient) fatal("out of host memory for a batch of %d samples", n);
    t->stream_of = t->lengths + n;
    t->chosen = t->lengths + 2 * n;
    t->place = t->lengths + 3 * n;
    t->owner = t->lengths + 4 * n;
    for (int slot = 0; slot < 2; slot++) {
        cudaCheck(cudaMallocHost((void**)&t->results[slot], (2 * (size_t)n + 6) * sizeof(float)));
        cudaCheck(cudaEventCreateWithFlags(&t->ready[slot], cudaEventDisableTiming));
    }
    matmul_create();
    cudaCheck(cudaDeviceSynchronize());
}

void trainer_free(Trainer* t) {
    cudaCheck(cudaStreamSynchronize(t->stream));
    matmul_destroy();
    for (int slot = 0; slot < 2; slot++) {
        cudaCheck(cudaFreeHost(t->results[slot]));
        cudaCheck(cudaEventDestroy(t->ready[slot]));
    }
    cudaCheck(cudaStreamDestroy(t->stream));
    stream_free(&t->uploader);
    transformer_free(&t->transformer);
    packed_stream_free(&t->packed);
    memory_free(&t->plan);
    model_layout_free(&t->layout);
    free(t->lengths);
    free(t->samples);
    free(t->coefficient);
    memset(t, 0, sizeof *t);
}

// Packs the n chosen items of one stream, uploads and runs it.
static void run_stream(Trainer* t, const ParameterSet* set, const BatchItem* items, int n, int b, const float* sigma, float* loss, bool backward) {
    for (int i = 0; i < n; i++) {
        const BatchItem* item = &items[t->chosen[i]];
        t->samples[i] = item->sample;
        t->place[i] = t->chosen[i];
        t->coefficient[i] = item->sample.n_loss ? item->coefficient / item->sample.n_loss : 0.0f;
    }
    packed_stream_build(&t->packed, t->samples, n, t->layout.config.V, t->layout.config.longest);
    DeviceStream s;
    stream_upload(&t->uploader, &s, &t->packed, t->coefficient, t->place, t->stream);
    if (sigma) selector_token_weights(s.weight, sigma, s.coefficient, s.place, s.loss_start, s.n_samples, b, t->stream);
    transformer_forward(&t->transformer, set, &s, t->stream);
    transformer_loss(&t->transformer, set, &s, loss, backward, t->stream);
    if (backward) transformer_backward(&t->transformer, set, &s, t->stream);
}

// Which rank runs which sample of the batch. A trained sample costs three times as much as one that runs forward only.
static void deal(Trainer* t, const BatchItem* items, int n, bool backward) {
    int* cost = t->lengths;
    for (int i = 0; i < n; i++) cost[i] = items[i].sample.length * (backward && items[i].coefficient != 0.0f ? 3 : 1);
    deal_samples(cost, n, ranks_count(), t->owner);
}

void trainer_pass(Trainer* t, const ParameterSet* set, const BatchItem* items, int n, int b, const float* sigma, float* loss, bool backward, PassCounts* counts) {
    int most = t->settings.batch_max, rank = ranks_rank();
    if (n > most) program_error("a batch of %d samples meets a plan for %d", n, most);
    deal(t, items, n, backward);
    if (ranks_count() > 1) {  // a sample's loss is that of the rank that runs it plus zeros; any byte but 0 is a vote
        cudaCheck(cudaMemsetAsync(loss, 0, (size_t)most * sizeof(float), t->stream));
        cudaCheck(cudaMemsetAsync(loss + most, t->vote, sizeof(float), t->stream));
    }
    // Two kinds of streams: with and without a backward pass.
    for (int kind = 0; kind < 2; kind++) {
        bool trained = kind == 0;
        int m = 0;
        int* members = t->chosen;
        for (int i = 0; i < n; i++) {
            const PackSample* x = &items[i].sample;
            if ((backward && items[i].coefficient != 0.0f) != trained) continue;
            *(trained ? &counts->trained_tokens : &counts->forward_tokens) += x->length;
            counts->loss_tokens += x->n_loss;
            if (trained) counts->squares += (int64_t)x->length * x->length;
            if (t->owner[i] == rank) { members[m] = i; t->lengths[m++] = x->length; }
        }
        int streams = pack_first_fit(t->lengths, m, t->settings.T, t->stream_of);
        if (streams < 0) fatal("a sample is longer than a stream of %d tokens; raise --tokens or lower --max-length", t->settings.T);
        // chosen is overwritten stream by stream, so the members and their streams are kept in lengths and stream_of
        memcpy(t->lengths, members, (size_t)m * sizeof(int));
        for (int s = 0; s < streams; s++) {
            int k = 0;
            for (int i = 0; i < m; i++)
                if (t->stream_of[i] == s) t->chosen[k++] = t->lengths[i];
            run_stream(t, set, items, k, b, sigma, loss, trained);
        }
        counts->streams += streams;
    }
    ranks_sum(loss, (size_t)most + 1, t->stream);
}

void trainer_bring_back(Trainer* t, int slot) {
    size_t n = (size_t)t->settings.batch_max + 1;
    float* to = t->results[slot];
    cudaCheck(cudaMemcpyAsync(to, t->loss, n * sizeof(float), cudaMemcpyDeviceToHost, t->stream));
    if (t->loss_hat) cudaCheck(cudaMemcpyAsync(to + n, t->loss_hat, n * sizeof(float), cudaMemcpyDeviceToHost, t->stream));
    cudaCheck(cudaMemcpyAsync(to + 2 * n, t->norm, 4 * sizeof(float), cudaMemcpyDeviceToHost, t->stream));
    cudaCheck(cudaEventRecord(t->ready[slot], t->stream));
}

StepResult trainer_result(Trainer* t, int slot) {
    size_t n = (size_t)t->settings.batch_max + 1;
    cudaCheck(cudaEventSynchronize(t->ready[slot]));
    const float* r = t->results[slot];
    StepResult result = {r, r + n, r[2 * n], r[2 * n + 2]};
    if (ranks_count() > 1 && r[n - 1] != 0.0f) t->voted = true;
    return result;
}

double trainer_flops(const Trainer* t, const PassCounts* counts) {
    const ModelConfig* c = &t->layout.config;
    double head = (double)c->V * c->C, body = 0.0;
    for (int i = 0; i < t->layout.n_tensors; i++) {
        const ModelTensor* x = &t->layout.tensors[i];
        if (x->layer >= 0 && x->cols > 1) body += (double)x->rows * x->cols;
    }
    double attention = 6.0 * c->L * c->NH * c->HS * (double)counts->squares;
    return 6.0 * body * (double)counts->trained_tokens + 2.0 * body * (double)counts->forward_tokens + 6.0 * head * (double)counts->loss_tokens + attention;
}
