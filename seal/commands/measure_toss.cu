/*
TOSS (arXiv 2603.01185): tokens instead of rows. Two references over one model, one trained on useful rows and one on
harmful ones, give each response token t the score ℓ_t(useful) − ℓ_t(harmful); the share --drop-tokens of the highest,
over all rows, is not trained. A row's own score is minus the mean of its tokens'.
*/
#include <string.h>
#include "base/error.h"
#include "commands/measure.h"
#include "peft.h"

static void measure_reference(Measurement* m, MeasuredPass* p, const char* adapter, const char* what) {
    TrainerSettings settings = m->settings;
    Trainer t;
    TokenLossContext x = {};
    if (measure_pass_done(p) && !m->o->dry_run) return;
    x.of = {&t, &t.theta, m->samples, m->items, &m->counts};
    token_losses_begin(&x, p);
    if (adapter) peft_settings(adapter, &m->config, &settings.lora);
    else {  // --dry-run, before there is one
        snprintf(settings.lora.modules, sizeof settings.lora.modules, "q,v");
        settings.lora.rank = 16;
        settings.lora.scale = 1.0f;
    }
    measure_trainer(m, &t, &settings, m->o->model, adapter, token_losses_plan, &x);
    measure_pass_run(m, p, what, measure_token_losses, &x);
    token_losses_end(&x);
    trainer_free(&t);
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
        float score = m->token_loss[0][i] - m->token_loss[1][i];
        if (!isfinite(score)) fatal("a token's loss is not a finite number; is a reference damaged?");
        scored[i] = {score, i};
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
    MeasuredPass *useful = measure_plan(m, "useful", NULL, NULL), *harmful = measure_plan(m, "harmful", NULL, NULL);
    for (int k = 0; k < 2; k++) {
        MeasuredPass* p = k ? harmful : useful;
        m->token_loss[k] = (float*)host_alloc((size_t)m->token_start[m->n] * sizeof(float), "the tokens");
        p->start = m->token_start;
        p->token = m->token_loss[k];
    }
    measure_decide_model(m, o->useful_adapter);
    measure_decide_model(m, o->harmful_adapter);
    measure_begin(m);
    measure_reference(m, useful, o->useful_adapter, "tokens under the useful reference");
    measure_reference(m, harmful, o->harmful_adapter, "tokens under the harmful reference");
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
