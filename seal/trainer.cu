/* Batches to packs to gradients. See trainer.h. */
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "device.h"
#include "kernels.h"
#include "packed.h"
#include "peft.h"
#include "base/ranks.h"
#include "trainer.h"

// Losses under one set: of a batch's samples, and after them the ranks' vote.
static size_t n_losses(const Trainer* t) { return (size_t)t->settings.batch_max + 1; }
// What a step brings back: losses under θ and under θ̂, norms, and the bytes of the word of bad targets.
static size_t n_results(const Trainer* t) { return 2 * n_losses(t) + N_NORMS + sizeof(BadTarget) / sizeof(float); }

void trainer_plan(Trainer* t, const ModelConfig* config, const TrainerSettings* settings) {
    memset(t, 0, sizeof *t);
    t->settings = *settings;
    t->with_lora = settings->lora.modules[0] != 0;
    t->items_max = settings->batch_max * (t->with_lora && settings->with_hat ? 2 : 1);
    bool train = !settings->forward_only, backward = train || settings->backward;
    LinearForm form = {};
    if (settings->base != BASE_PLAIN && !t->with_lora && (train || settings->gradients))
        fatal("--base %s freezes the model; train adapters over it with --lora or --adapter",
              base_name(settings->base));
    if (t->with_lora) lora_open(&t->lora, config, &settings->lora, settings->with_hat ? 2 : 1);
    t->lora.base = form.base = settings->base;
    form.backward = backward;
    for (int s = 0; s < N_SITES; s++) form.tails[s] = t->lora.sites[s].tail;
    model_layout(&t->layout, config, &form);
    packed_check(&t->layout);
    if (t->with_lora) parameters_plan(&t->base, &t->layout, "base", false, NULL, &t->plan);
    const ModelLayout* trained = t->with_lora ? &t->lora.layout : &t->layout;
    parameters_plan(&t->theta, trained, "theta", train, NULL, &t->plan);
    if (!train && settings->gradients)
        memory_add(&t->plan, MEMORY_GRADIENTS, &t->theta.grads, (size_t)trained->n_elements * sizeof(float),
                   "gradients of theta");
    if (settings->with_hat)
        parameters_plan(&t->theta_hat, trained, "theta_hat", train, t->with_lora ? NULL : &t->theta, &t->plan);
    KeepMode keep = !backward ? KEEP_NOTHING : settings->recompute ? KEEP_RESIDUALS : KEEP_ALL;
    transformer_plan(&t->transformer, &t->layout, t->with_lora ? &t->lora : NULL, keep, settings->T,
                     settings->head_rows, &t->plan);
    pack_plan(&t->uploader, settings->T, t->items_max, &t->plan);
    size_t losses = n_losses(t) * sizeof(float);
    memory_add(&t->plan, MEMORY_SCRATCH, &t->loss, losses, "losses under theta");
    memory_add(&t->plan, MEMORY_SCRATCH, &t->loss_hat, settings->with_hat ? losses : 0, "losses under theta_hat");
    memory_add(&t->plan, MEMORY_SCRATCH, &t->norms, N_NORMS * sizeof(float), "norms");
    memory_add(&t->plan, MEMORY_SCRATCH, NULL, MATMUL_WORKSPACE_BYTES, "GEMM workspace");  // the kernels' own
}

void trainer_plan_free(Trainer* t) {
    transformer_free(&t->transformer);
    memory_free(&t->plan);
    model_layout_free(&t->layout);
    lora_close(&t->lora);
    memset(t, 0, sizeof *t);
}

void trainer_dry_run(const Trainer* t) {
    printf("packs of %d tokens\n", t->settings.T);
    memory_print(&t->plan, stdout);
    exit(fflush(stdout) ? 1 : 0);
}

void trainer_allocate(Trainer* t) {
    int n = t->items_max;
    if (t->settings.base == BASE_FP8) device_require_fp8();
    memory_allocate(&t->plan);
    if (t->with_lora) parameters_bind(&t->base, NULL, 0.0f);
    parameters_bind(&t->theta, NULL, t->settings.adamw.weight_decay);
    if (t->settings.with_hat)
        parameters_bind(&t->theta_hat, t->with_lora ? NULL : &t->theta, t->settings.adamw.weight_decay);
    t->lora.sets[0] = &t->theta;
    t->lora.sets[1] = &t->theta_hat;
    transformer_bind(&t->transformer);
    pack_bind(&t->uploader);
    cudaCheck(cudaStreamCreateWithFlags(&t->stream, cudaStreamNonBlocking));
    cudaCheck(cudaStreamCreateWithFlags(&t->exchange, cudaStreamNonBlocking));
    cudaCheck(cudaEventCreateWithFlags(&t->layer_ready, cudaEventDisableTiming));
    cudaCheck(cudaEventCreateWithFlags(&t->exchanged, cudaEventDisableTiming));
    host_pack_allocate(&t->packed, t->settings.T, n, PACK_ROUND);
    t->packed.untrained = t->layout.config.pad_id;
    for (int** list : {&t->cost, &t->owner, &t->members, &t->lengths, &t->pack_of, &t->chosen, &t->place})
        *list = (int*)host_alloc((size_t)n * sizeof(int), "a batch of samples");
    t->samples = (PackSample*)host_alloc((size_t)n * sizeof *t->samples, "a batch of samples");
    t->coefficient = (float*)host_alloc((size_t)n * sizeof(float), "a batch of samples");
    t->items = (BatchItem*)host_alloc((size_t)n * sizeof *t->items, "a batch of samples");
    for (int slot = 0; slot < 2; slot++) {
        cudaCheck(cudaMallocHost((void**)&t->results[slot], n_results(t) * sizeof(float)));
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
    cudaCheck(cudaStreamDestroy(t->exchange));
    cudaCheck(cudaEventDestroy(t->layer_ready));
    cudaCheck(cudaEventDestroy(t->exchanged));
    pack_free(&t->uploader);
    host_pack_free(&t->packed);
    void* lists[] = {t->cost,   t->owner, t->members, t->lengths,     t->pack_of,
                     t->chosen, t->place, t->samples, t->coefficient, t->items};
    for (void* list : lists) free(list);
    trainer_plan_free(t);
}

void trainer_load(Trainer* t, const char* model, const char* adapter, uint64_t seed, bool quiet) {
    parameters_load(t->with_lora ? &t->base : &t->theta, model, quiet);
    if (!t->with_lora) return;
    if (adapter) peft_load_saved(&t->base, adapter, !t->settings.forward_only);
    if (adapter) peft_load(&t->theta, &t->lora, adapter, model);
    else parameters_init(&t->theta, seed, quiet);
}

// ---------------------------------------------------------------------------------------------------
// a pass

// What runs in one pass: items [0, n) in a pack's first range of rows, which is set 0's, items [n, n + n_hat) in the
// second, set 1's. A model without adapters has one range.
typedef struct {
    const ParameterSet* model;
    const BatchItem *items, *hat;
    int n, n_hat, b;
    const float* sigma;
    float *loss, *loss_hat;
    bool backward;
} Pass;

static const BatchItem* item_of(const Pass* x, int i) { return i < x->n ? &x->items[i] : &x->hat[i - x->n]; }

// Packs the k chosen items, the first n_first of them in the first range, and uploads and runs the pack.
static void run_pack(Trainer* t, const Pass* x, int k, int n_first, bool backward) {
    for (int i = 0; i < k; i++) {
        const BatchItem* item = item_of(x, t->chosen[i]);
        t->samples[i] = item->sample;
        t->place[i] = t->chosen[i] < x->n ? t->chosen[i] : t->chosen[i] - x->n;
        t->coefficient[i] = item->sample.n_loss ? item->coefficient / item->sample.n_loss : 0.0f;
    }
    host_pack_build_split(&t->packed, t->samples, k, n_first, t->layout.config.V, t->layout.config.longest);
    DevicePack s;
    pack_upload(&t->uploader, &s, &t->packed, t->coefficient, t->place, t->stream);
    if (x->sigma)
        selector_token_weights(s.weight, x->sigma, s.coefficient, s.place, s.loss_start, s.n_samples, x->b, t->stream);
    transformer_forward(&t->transformer, x->model, &s, t->stream);
    if (t->transformer.tap_layer) return;
    transformer_loss(&t->transformer, x->model, &s, x->loss, x->loss_hat, backward, t->stream);
    for (int i = 0; i < k && t->token_losses; i++)
        cudaCheck(cudaMemcpyAsync(t->token_losses + t->token_offset[t->place[i]],
                                  t->transformer.token_loss + t->packed.loss_start[i],
                                  (size_t)t->samples[i].n_loss * sizeof(float), cudaMemcpyDeviceToDevice, t->stream));
    if (backward) transformer_backward(&t->transformer, x->model, &s, t->stream);
}

// Which rank runs which sample of the batch. A trained sample counts three times: backward costs twice what forward
// does.
static void deal(Trainer* t, const Pass* x, int n) {
    for (int i = 0; i < n; i++)
        t->cost[i] = item_of(x, i)->sample.length * (x->backward && item_of(x, i)->coefficient != 0.0f ? 3 : 1);
    deal_samples(t->cost, n, ranks_count(), t->owner);
}

// Losses are summed over the ranks: a sample's is that of the rank that runs it plus zeros. The element after them
// counts the ranks that ask to leave.
static void begin_losses(Trainer* t, float* loss) {
    if (ranks_count() == 1) return;
    selector_fill(loss, 0.0f, t->settings.batch_max, t->stream);
    selector_fill(loss + t->settings.batch_max, t->vote ? 1.0f : 0.0f, 1, t->stream);
}

// A layer's gradients (−1: those of no layer) are complete on this rank. The exchange stream sums them once what is
// queued so far is done, while the trainer's stream continues with the next layer.
static void sum_layer(void* context, int layer) {
    Trainer* t = (Trainer*)context;
    cudaCheck(cudaEventRecord(t->layer_ready, t->stream));
    cudaCheck(cudaStreamWaitEvent(t->exchange, t->layer_ready, 0));
    ranks_group_begin();
    for (int i = 0; i < 2; i++)
        if (t->summed[i]) gradients_sum_layer(t->summed[i], layer, t->exchange);
    ranks_group_end();
}

// This rank's last backward pass sums each layer's gradients as soon as it has left the layer; a rank without a trained
// sample contributes zeros (end_sums), since every rank must take part in a sum.
static void begin_sums(Trainer* t, const Pass* x, bool last) {
    bool sums = ranks_count() > 1 && x->backward && last && !t->hold_sums;
    t->summed[0] = !t->with_lora ? x->model : x->n ? &t->theta : NULL;
    t->summed[1] = t->with_lora && x->n_hat ? &t->theta_hat : NULL;
    t->transformer.gradients_ready = sums ? sum_layer : NULL;
    t->transformer.ready_context = t;
}
static void end_sums(Trainer* t, const Pass* x, int trained_packs) {
    if (ranks_count() == 1 || !x->backward || t->hold_sums) return;
    begin_sums(t, x, false);
    for (int l = t->layout.config.L - 1; l >= -1 && !trained_packs; l--) sum_layer(t, l);
    cudaCheck(cudaEventRecord(t->exchanged, t->exchange));
    cudaCheck(cudaStreamWaitEvent(t->stream, t->exchanged, 0));
}

static void run_pass(Trainer* t, const Pass* x, PassCounts* counts, PassCounts* counts_hat) {
    int n = x->n + x->n_hat, rank = ranks_rank();
    if (n > t->items_max) program_error("a batch of %d samples exceeds the plan for %d", n, t->items_max);
    deal(t, x, n);
    if (x->n) begin_losses(t, x->loss);
    if (x->n_hat) begin_losses(t, x->loss_hat);
    if (t->with_lora) lora_publish(&t->lora, &t->base, t->stream);
    // Two kinds of packs: with and without a backward pass.
    for (int kind = 0; kind < 2; kind++) {
        bool trained = kind == 0;
        int m = 0, m_first = 0;
        for (int i = 0; i < n; i++) {
            const PackSample* sample = &item_of(x, i)->sample;
            PassCounts* of = i < x->n ? counts : counts_hat;
            if ((x->backward && item_of(x, i)->coefficient != 0.0f) != trained) continue;
            *(trained ? &of->trained_tokens : &of->forward_tokens) += sample->length;
            of->loss_tokens += sample->n_loss;
            if (trained) {
                of->squares += attention_squares(sample->length, 0);
                of->squares_window += attention_squares(sample->length, t->layout.config.window);
            }
            if (t->owner[i] != rank) continue;
            m_first += i < x->n;
            t->members[m] = i;
            t->lengths[m++] = sample->length;
        }
        int packs = pack_first_fit_split(t->lengths, m, m_first, t->settings.T, PACK_ROUND, t->pack_of);
        if (packs < 0)
            fatal("a sample is longer than a pack of %d tokens; raise --tokens or lower --max-length", t->settings.T);
        for (int s = 0; s < packs; s++) {
            int k = 0, n_first = 0;
            for (int i = 0; i < m; i++)
                if (t->pack_of[i] == s) {
                    n_first += i < m_first;
                    t->chosen[k++] = t->members[i];
                }
            begin_sums(t, x, trained && s + 1 == packs);
            run_pack(t, x, k, n_first, trained);
        }
        counts->packs += packs;
        if (trained) end_sums(t, x, packs);
    }
    if (x->n) ranks_sum(x->loss, n_losses(t), t->stream);
    if (x->n_hat) ranks_sum(x->loss_hat, n_losses(t), t->stream);
}

void trainer_pass(Trainer* t, const ParameterSet* set, const BatchItem* items, int n, int b, const float* sigma,
                  float* loss, bool backward, PassCounts* counts) {
    bool second = t->with_lora && set == &t->theta_hat;  // adapters: the set says which range of rows
    Pass x = {
        t->with_lora ? &t->base : set, items, items, second ? 0 : n, second ? n : 0, b, sigma, loss, loss, backward};
    run_pass(t, &x, counts, counts);
}

void trainer_pass_both(Trainer* t, const BatchItem* items, int n, const BatchItem* hat, int b, const float* sigma,
                       PassCounts* counts, PassCounts* counts_hat) {
    Pass x = {&t->base, items, hat, n, b, b, sigma, t->loss, t->loss_hat, true};
    run_pass(t, &x, counts, counts_hat);
}

void trainer_losses_both(Trainer* t, const BatchItem* items, int n, PassCounts* counts) {
    Pass x = {&t->base, items, items, n, n, n, NULL, t->loss, t->loss_hat, false};
    run_pass(t, &x, counts, counts);
}

void trainer_whole_gradients(Trainer* t) {
    const ParameterSet* set = &t->theta;
    if (ranks_count() == 1) return;
    t->summed[0] = set;
    t->summed[1] = NULL;
    for (int l = t->layout.config.L - 1; l >= -1; l--) sum_layer(t, l);
    cudaCheck(cudaEventRecord(t->exchanged, t->exchange));
    cudaCheck(cudaStreamWaitEvent(t->stream, t->exchanged, 0));
    ranks_group_begin();
    for (int r = 0; r < ranks_count(); r++) {
        int64_t from = shard_begin(set->layout, r), n = shard_begin(set->layout, r + 1) - from;
        ranks_spread(set->grads + from, (size_t)n * sizeof(float), r, t->stream);
    }
    ranks_group_end();
}

// ---------------------------------------------------------------------------------------------------
// a step

// The leg's part of the batch with its coefficients, fine-tuning samples first; returns how many.
static int fill_items(BatchItem* items, const Leg* leg, const Batch* batch) {
    for (int i = 0; i < batch->b; i++) {
        items[i].sample = batch->tune[i];
        items[i].coefficient = batch->share ? leg->tune_weight * batch->share[i] : leg->tune_weight;
    }
    int m = leg->with_safe ? batch->m : 0;
    for (int j = 0; j < m; j++) {
        items[batch->b + j].sample = batch->safe[j];
        items[batch->b + j].coefficient = leg->safe_weight;
    }
    return batch->b + m;
}

static void update(Trainer* t, const Leg* leg) {
    const int norm = leg->set == &t->theta ? NORM : NORM_HAT, clip = leg->set == &t->theta ? CLIP : CLIP_HAT;
    optimizer_step(leg->set, &t->settings.adamw, leg->lr, t->norms + norm, t->norms + clip, t->stream);
}

void trainer_step(Trainer* t, const Leg* legs, int n_legs, const Batch* batch, const float* sigma, PassCounts* counts) {
    if (n_legs == 2 && t->with_lora) {  // two adapters over one frozen model: one pass
        int n = fill_items(t->items, &legs[1], batch), b = fill_items(t->items + n, &legs[0], batch);
        for (int i = 0; i < 2; i++) gradients_zero(legs[i].set, t->stream);
        trainer_pass_both(t, t->items, n, t->items + n, b, sigma, &counts[1], &counts[0]);
        for (int i = 0; i < 2; i++) update(t, &legs[i]);
        return;
    }
    for (int i = 0; i < n_legs; i++) {  // whole models: θ̂'s gradient buffer is θ's, used before it
        int n = fill_items(t->items, &legs[i], batch);
        gradients_zero(legs[i].set, t->stream);
        trainer_pass(t, legs[i].set, t->items, n, batch->b, sigma, legs[i].set == &t->theta ? t->loss : t->loss_hat,
                     true, &counts[i]);
        update(t, &legs[i]);
    }
}

void trainer_evaluate(Trainer* t, const Batch* batch, PassCounts* counts) {
    Leg theta = {.set = &t->theta, .lr = 0.0f, .tune_weight = 0.0f};
    int n = fill_items(t->items, &theta, batch);
    trainer_pass(t, &t->theta, t->items, n, n, NULL, t->loss, false, counts);
}

void trainer_bring_back(Trainer* t, int slot) {
    size_t n = n_losses(t);
    float* to = t->results[slot];
    cudaCheck(cudaMemcpyAsync(to, t->loss, n * sizeof(float), cudaMemcpyDeviceToHost, t->stream));
    if (t->loss_hat)
        cudaCheck(cudaMemcpyAsync(to + n, t->loss_hat, n * sizeof(float), cudaMemcpyDeviceToHost, t->stream));
    cudaCheck(cudaMemcpyAsync(to + 2 * n, t->norms, N_NORMS * sizeof(float), cudaMemcpyDeviceToHost, t->stream));
    cudaCheck(cudaMemcpyAsync(to + 2 * n + N_NORMS, t->transformer.bad_target, sizeof(BadTarget),
                              cudaMemcpyDeviceToHost, t->stream));
    cudaCheck(cudaEventRecord(t->ready[slot], t->stream));
}

StepResult trainer_result(Trainer* t, int slot) {
    size_t n = n_losses(t);
    cudaCheck(cudaEventSynchronize(t->ready[slot]));
    const float* r = t->results[slot];
    BadTarget bad;
    memcpy(&bad, r + 2 * n + N_NORMS, sizeof bad);
    if (bad != NO_BAD_TARGET)
        fatal(
            "sample %d of a batch reached the device with the target %d, outside the model's vocabulary of %d tokens; "
            "the host had found its tokens inside it: is the memory of this machine or its GPU damaged?",
            (int)(bad >> 32), (int)(uint32_t)bad, t->layout.config.V);
    StepResult result = {r, r + n, r[2 * n + NORM], r[2 * n + NORM_HAT]};
    if (ranks_count() > 1 && r[n - 1] != 0.0f) t->voted = true;
    return result;
}

int64_t attention_squares(int length, int window) {
    int64_t n = length, outside = window && window < length ? length - window : 0;
    return n * n - outside * outside;
}

double trainer_flops(const Trainer* t, const PassCounts* counts) {
    const ModelConfig* c = &t->layout.config;
    double head = (double)c->V * c->C, body = 0.0, adapters = t->with_lora ? (double)t->lora.layout.n_parameters : 0.0,
           frozen = t->with_lora ? 4.0 : 6.0;
    for (int i = 0; i < t->layout.n_tensors; i++) {
        const ModelTensor* x = &t->layout.tensors[i];
        if (x->layer >= 0 && x->cols > 1) body += (double)x->rows * x->cols;
    }
    double attention = 0.0;
    for (int l = 0; l < c->L; l++)
        attention += 6.0 * c->NH * c->HS * (double)(layer_window(c, l) ? counts->squares_window : counts->squares);
    return (frozen * body + 6.0 * adapters) * (double)counts->trained_tokens +
           2.0 * (body + adapters) * (double)counts->forward_tokens + frozen * head * (double)counts->loss_tokens +
           attention;
}
