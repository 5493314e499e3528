/*
TOSS (arXiv 2603.01185): tokens instead of rows. Two references over one model, one trained on useful rows and one on
harmful ones, give each response token t the score ℓ_t(useful) − ℓ_t(harmful); the share --drop-tokens of the highest,
over all rows, is not trained. A row's own score is minus the mean of its tokens'.
*/
#include <string.h>
#include "base/error.h"
#include "base/ranks.h"
#include "commands/measure.h"
#include "peft.h"

typedef struct {
    Measurement* m;
    Trainer* trainer;
    int64_t* offset;       // (batch_max) where each sample's tokens begin in the batch
    float *tokens, *host;  // (most) device, pinned
    int64_t most;          // tokens with loss of a batch
    float sign;
} Tokens;

static void plan_tokens(void* context, Trainer* t) {
    Tokens* x = (Tokens*)context;
    memory_add(&t->plan, MEMORY_SCRATCH, (void**)&x->tokens, (size_t)x->most * sizeof(float), "losses of tokens");
}

static void measure_tokens(void* context, int from, int n, float* const* out) {
    Tokens* x = (Tokens*)context;
    Trainer* t = x->trainer;
    int64_t total = 0, at = x->m->token_start[from];
    for (int i = 0; i < n; i++) {
        x->m->items[i] = {x->m->samples[from + i], 0.0f};
        x->offset[i] = total;
        total += x->m->samples[from + i].n_loss;
    }
    cudaCheck(cudaMemsetAsync(x->tokens, 0, (size_t)x->most * sizeof(float), t->stream));
    t->token_losses = x->tokens;
    t->token_offset = x->offset;
    trainer_pass(t, &t->theta, x->m->items, n, 0, NULL, t->loss, false, &x->m->counts);
    t->token_losses = NULL;
    ranks_sum(x->tokens, (size_t)x->most, t->stream);  // zeros where another rank ran the sample
    cudaCheck(cudaMemcpyAsync(x->host, x->tokens, (size_t)total * sizeof(float), cudaMemcpyDeviceToHost, t->stream));
    trainer_bring_back(t, 0);
    memcpy(out[0], trainer_result(t, 0).loss, (size_t)n * sizeof(float));
    for (int64_t i = 0; i < total; i++) x->m->token_score[at + i] += x->sign * x->host[i];
}

static void measure_reference(Measurement* m, MeasuredPass* p, const char* adapter, float sign) {
    TrainerSettings settings = m->settings;
    Trainer t;
    Tokens x = {};
    size_t batch = (size_t)settings.batch_max;
    x.m = m;
    x.trainer = &t;
    x.sign = sign;
    for (int from = 0; from < m->n; from += settings.batch_max) {
        int to = from + settings.batch_max < m->n ? from + settings.batch_max : m->n;
        if (m->token_start[to] - m->token_start[from] > x.most) x.most = m->token_start[to] - m->token_start[from];
    }
    if (adapter) peft_settings(adapter, &m->config, &settings.lora);
    else {  // --dry-run, before there is one
        snprintf(settings.lora.modules, sizeof settings.lora.modules, "q,v");
        settings.lora.rank = 16;
        settings.lora.scale = 1.0f;
    }
    measure_trainer(m, &t, &settings, m->o->model, adapter, plan_tokens, &x);
    x.offset = (int64_t*)host_alloc(batch * sizeof(int64_t), "a batch of samples");
    cudaCheck(cudaMallocHost((void**)&x.host, (size_t)x.most * sizeof(float)));
    measure_pass_run(m, p, sign > 0 ? "tokens under the useful reference" : "tokens under the harmful reference",
                     measure_tokens, &x);
    trainer_free(&t);
    cudaCheck(cudaFreeHost(x.host));
    free(x.offset);
}

typedef struct {
    float score;
    int64_t token;
} Scored;
static int falling(const void* a, const void* b) {
    const Scored *x = (const Scored*)a, *y = (const Scored*)b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return (x->token > y->token) - (x->token < y->token);
}

// The highest share of all tokens.
static void drop_tokens(Measurement* m) {
    int64_t n = m->token_start[m->n], dropped = (int64_t)floor(m->o->drop_tokens * (double)n * (1 + 1e-12));
    Scored* scored = (Scored*)host_alloc((size_t)n * sizeof *scored, "the tokens' scores");
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(m->token_score[i])) fatal("a token's loss is not a finite number; is a reference damaged?");
        scored[i] = {m->token_score[i], i};
    }
    qsort(scored, (size_t)n, sizeof *scored, falling);
    m->token_keep = (uint8_t*)host_alloc((size_t)n, "the tokens");
    memset(m->token_keep, 1, (size_t)n);
    for (int64_t i = 0; i < dropped; i++) m->token_keep[scored[i].token] = 0;
    free(scored);
    if (!m->o->quiet) printf("%lld of %lld tokens that carry loss are dropped\n", (long long)dropped, (long long)n);
}

void measure_toss(Measurement* m) {
    const TrainOptions* o = m->o;
    m->token_start = (int64_t*)host_alloc(((size_t)m->n + 1) * sizeof(int64_t), "the tokens");
    for (int i = 0; i < m->n; i++) m->token_start[i + 1] = m->token_start[i] + m->samples[i].n_loss;
    m->token_score = (float*)host_alloc((size_t)m->token_start[m->n] * sizeof(float), "the tokens");
    MeasuredPass *useful = measure_plan(m, "useful", NULL, NULL), *harmful = measure_plan(m, "harmful", NULL, NULL);
    measure_reference(m, useful, o->useful_adapter, 1.0f);
    measure_reference(m, harmful, o->harmful_adapter, -1.0f);
    drop_tokens(m);
    double* score = measure_scores(m);
    for (int i = 0; i < m->n; i++) {
        bool any = false;
        for (int64_t t = m->token_start[i]; t < m->token_start[i + 1]; t++) any |= m->token_keep[t];
        score[i] = any ? (double)harmful->columns[0][i] - useful->columns[0][i] : -INFINITY;  // nothing left to train
    }
    m->shown[m->n_shown++] = {"useful", useful->columns[0]};
    m->shown[m->n_shown++] = {"harmful", harmful->columns[0]};
}
