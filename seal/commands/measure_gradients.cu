/*
Scores from single samples' gradients: their product with the direction of a small safe step (influence), and their
norm. Both are exact (sample_gradients.h). Adapters of --adapter or --lora where there are any, else the model's own
matrices; --matrices chooses among them.
*/
#include <string.h>
#include "base/error.h"
#include "base/ranks.h"
#include "commands/measure.h"

typedef struct {
    Measurement* m;
    Trainer* trainer;
    SampleGradients gradients;
    bool products, norms;
    ParameterSet frozen;    // θ without gradients: a pass under it adds to none
    float *product, *norm;  // (batch_max) pinned
} Gradients;

static void plan_gradients(void* context, Trainer* t) {
    Gradients* x = (Gradients*)context;
    sample_gradients_plan(&x->gradients, &t->layout, t->with_lora ? &t->lora : NULL, x->m->o->matrices, x->products,
                          x->norms, t->transformer.T, t->settings.batch_max, &t->plan);
}

static void open_gradients(Gradients* x, Measurement* m, Trainer* t, bool products, bool norms) {
    size_t bytes = (size_t)m->settings.batch_max * sizeof(float);
    TrainerSettings settings = m->settings;
    memset(x, 0, sizeof *x);
    x->m = m;
    x->trainer = t;
    x->products = products;
    x->norms = norms;
    settings.backward = true;
    settings.gradients = products;
    measure_trainer(m, t, &settings, m->o->model, m->o->adapter, plan_gradients, x);
    cudaCheck(cudaMallocHost((void**)&x->product, bytes));
    cudaCheck(cudaMallocHost((void**)&x->norm, bytes));
}

static void close_gradients(Gradients* x) {
    trainer_free(x->trainer);
    cudaCheck(cudaFreeHost(x->product));
    cudaCheck(cudaFreeHost(x->norm));
}

// A MeasureBatch: the columns product and norm, as far as they are asked for, and loss.
static void measure_gradients(void* context, int from, int n, float* const* out) {
    Gradients* x = (Gradients*)context;
    Trainer* t = x->trainer;
    const SampleGradients* g = &x->gradients;
    size_t all = (size_t)g->batch_max, bytes = (size_t)n * sizeof(float);
    for (int i = 0; i < n; i++) x->m->items[i] = {x->m->samples[from + i], 1.0f};
    x->frozen = t->theta;
    x->frozen.grads = NULL;
    t->hold_sums = true;
    t->transformer.samples = g;
    sample_gradients_zero(g, t->stream);
    trainer_pass(t, &x->frozen, x->m->items, n, 0, NULL, t->loss, true, &x->m->counts);
    t->transformer.samples = NULL;
    if (g->product) ranks_sum(g->product, all, t->stream);  // zeros where another rank ran the sample
    if (g->square) ranks_sum(g->square, all, t->stream);
    if (g->product) cudaCheck(cudaMemcpyAsync(x->product, g->product, bytes, cudaMemcpyDeviceToHost, t->stream));
    if (g->square) cudaCheck(cudaMemcpyAsync(x->norm, g->square, bytes, cudaMemcpyDeviceToHost, t->stream));
    trainer_bring_back(t, 0);
    StepResult r = trainer_result(t, 0);
    if (x->products) memcpy(*out++, x->product, bytes);
    if (x->norms) {
        float* norm = *out++;
        for (int i = 0; i < n; i++)  // a sum of squares, rounded; what is not a number stays so
            norm[i] = x->norm[i] < 0.0f ? 0.0f : sqrtf(x->norm[i]);
    }
    memcpy(*out, r.loss, bytes);
}

// G += share · mean gradient over the set.
static void add_direction(Gradients* x, const TokenSet* set, float share) {
    Trainer* t = x->trainer;
    int most = x->m->settings.batch_max;
    for (int from = 0; from < set->n; from += most) {
        int n = set->n - from < most ? set->n - from : most;
        for (int i = 0; i < n; i++) x->m->items[i] = {set->samples[from + i], share / (float)set->n};
        trainer_pass(t, &t->theta, x->m->items, n, 0, NULL, t->loss, true, &x->m->counts);
    }
}

// Leaves the direction in θ's gradients; returns its norm over the matrices that count. A direction that cancels is
// rounding noise: the norm of what is left is held against what went in.
static double find_direction(Gradients* x, const TokenSet* safe, const TokenSet* harmful) {
    Trainer* t = x->trainer;
    const TrainOptions* o = x->m->o;
    x->gradients.direction = &t->theta;
    t->hold_sums = true;
    gradients_zero(&t->theta, t->stream);
    add_direction(x, safe, 1.0f);
    double went_in = sample_gradients_norm(&x->gradients);  // this rank's part of it
    if (harmful->n) add_direction(x, harmful, -1.0f);
    trainer_whole_gradients(t);
    double norm = sample_gradients_norm(&x->gradients);
    if (!isfinite(norm)) fatal("%s: the mean gradient over --safe is not finite; is the model damaged?", o->model);
    if (norm == 0.0 || norm <= 1e-6 * went_in)
        fatal("the direction of influence has norm zero over --matrices %s: %s", o->matrices,
              harmful->n ? "the mean gradients over --safe and --harmful are the same"
                         : "the mean gradient over --safe is zero there");
    return norm;
}

void measure_influence(Measurement* m) {
    const TrainOptions* o = m->o;
    bool cosine = !strcmp(o->form, "cosine");
    TokenSet safe = {}, harmful = {};
    Trainer t;
    Gradients x;
    if (!strcmp(o->form, "self-inf")) fatal("--form self-inf is gradient-norm's; influence has plain and cosine");
    measure_read(m, &safe, &o->safe, "safe", NULL, false);
    if (o->harmful.n) measure_read(m, &harmful, &o->harmful, "harmful", NULL, false);
    if (o->harmful.n && !strcmp(safe.digest, harmful.digest))
        fatal("--safe and --harmful are the same rows: the direction of influence would be zero");
    text_printf(&m->decides, "\n%s %s %s %lld %g %lld", o->matrices, o->form, o->lora, (long long)o->lora_rank,
                o->lora_alpha, (long long)o->seed);
    MeasuredPass* p = cosine ? measure_plan(m, "product", "norm", "loss") : measure_plan(m, "product", "loss", NULL);
    measure_begin(m);
    open_gradients(&x, m, &t, true, cosine);
    double norm = find_direction(&x, &safe, &harmful);
    measure_pass_run(m, p, "gradients", measure_gradients, &x);
    close_gradients(&x);
    tokens_free(&safe);
    if (o->harmful.n) tokens_free(&harmful);

    // how much one small step down the safe loss (and up the harmful one) lowers the row's own
    double* score = measure_scores(m);
    const float *product = p->columns[0], *of_row = p->columns[1];
    for (int i = 0; i < m->n; i++)
        score[i] = !cosine ? (double)product[i] : of_row[i] > 0.0f ? product[i] / (of_row[i] * norm) : 0.0;
    m->loss = p->columns[p->n_columns - 1];
    m->shown[m->n_shown++] = {"product", product};
    if (cosine) m->shown[m->n_shown++] = {"norm", of_row};
}

void measure_gradient_norm(Measurement* m) {
    const TrainOptions* o = m->o;
    bool self_influence = !strcmp(o->form, "self-inf");
    Trainer t;
    Gradients x;
    if (!strcmp(o->form, "cosine")) fatal("--form cosine is influence's; gradient-norm has plain and self-inf");
    text_printf(&m->decides, "\n%s %s %lld %g %lld", o->matrices, o->lora, (long long)o->lora_rank, o->lora_alpha,
                (long long)o->seed);
    MeasuredPass* p = measure_plan(m, "norm", "loss", NULL);
    measure_begin(m);
    open_gradients(&x, m, &t, false, true);
    measure_pass_run(m, p, "gradients", measure_gradients, &x);
    close_gradients(&x);
    double* score = measure_scores(m);
    for (int i = 0; i < m->n; i++) {
        double norm = p->columns[0][i], length = m->samples[i].n_loss;
        score[i] = self_influence ? -(log(norm * norm + 1.0) + log(length + 1.0)) : -norm;
    }
    m->loss = p->columns[1];
    m->shown[m->n_shown++] = {"norm", p->columns[0]};
}
