/*
Scores from refusals: how much a text that refuses surprises the model in place of the row's own answer. The model was
trained on D_safe. A row whose prompt it would refuse has a low loss of refusals; whether the row itself does refuse is
what its own loss tells. `refusal` takes a share of that off. `refusal-test` asks of each row whether its score is one
that rows of D_safe have, and of those that pass keeps a uniform share.
*/
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/random.h"
#include "base/ranks.h"
#include "commands/measure.h"
#include "commands/refusal_texts.h"
#include "commands/selection.h"

#define STREAM_ALIKE 0x616c696b65ull
#define YARDSTICK 2000  // rows of D_safe whose scores are measured: enough for a hundredth of them

// Rows with their own answers and with each refusal in place of it.
typedef struct {
    const char* what;
    int n;
    int64_t* rows;        // (n) ids, ascending
    uint64_t* hashes;     // (n)
    PackSample* samples;  // (n)
    PackSample* refused[REFUSALS_MOST];
    TokenSet sets[REFUSALS_MOST];
    MeasuredPass *own, *of[REFUSALS_MOST];  // own NULL: not needed
} Group;

// Only the rows that every set has: a prompt that leaves no room for an answer is in none.
static void keep_common(Group* g, int n_sets) {
    int kept = 0;
    int at[REFUSALS_MOST] = {};
    for (int k = 0; k < n_sets; k++) g->refused[k] = (PackSample*)host_alloc((size_t)g->n * sizeof(PackSample), "rows");
    for (int i = 0; i < g->n; i++) {
        bool all = true;
        for (int k = 0; k < n_sets; k++) {
            const TokenSet* set = &g->sets[k];
            while (at[k] < set->n && set->rows[at[k]] < g->rows[i]) at[k]++;
            all &= at[k] < set->n && set->rows[at[k]] == g->rows[i];
        }
        if (!all) continue;
        for (int k = 0; k < n_sets; k++) g->refused[k][kept] = g->sets[k].samples[at[k]];
        g->rows[kept] = g->rows[i];
        g->hashes[kept] = g->hashes[i];
        g->samples[kept++] = g->samples[i];
    }
    if (kept < g->n && !ranks_rank())
        warning("%s: %d rows are left out: with a refusal for an answer they cannot be used", g->what, g->n - kept);
    if (!kept) fatal("%s: no row can be used with a refusal for an answer", g->what);
    g->n = kept;
}

// Evenly spaced rows where there are more than `most`.
static void thin(Group* g, int n_sets, int most) {
    if (g->n <= most) return;
    for (int i = 0; i < most; i++) {
        int64_t from = (int64_t)i * g->n / most;
        g->rows[i] = g->rows[from];
        g->hashes[i] = g->hashes[from];
        g->samples[i] = g->samples[from];
        for (int k = 0; k < n_sets; k++) g->refused[k][i] = g->refused[k][from];
    }
    g->n = most;
}

static MeasuredPass* plan(Measurement* m, const Group* g, const char* name) {
    const char* names[] = {name};
    if (m->n_passes == MEASURE_PASSES) program_error("more passes over the rows than planned");
    MeasuredPass* p = &m->passes[m->n_passes++];
    measured_pass(p, g->n, m->settings.batch_max, names, 1);
    return p;
}

static void read_refusals(Measurement* m, Refusals* refusals) {
    const TrainOptions* o = m->o;
    RowOptions options = {};
    options.prompt_template = o->prompt_template;
    options.prompt_field = o->prompt_field;
    options.response_field = o->response_field;
    if (!o->refusals.n && !o->safe.n)
        fatal("--method %s needs --refusals, or --safe with rows that refuse", m->method->name);
    const StringList* files = o->refusals.n ? &o->refusals : &o->safe;
    refusals_read(refusals, files, &options, !o->refusals.n, (int)o->refusal_texts);
    for (int k = 0; k < refusals->n; k++) {
        if (!o->quiet) {
            printf("refusal %d: ", k + 1);
            print_excerpt(refusals->texts[k], strlen(refusals->texts[k]), 80, stdout);
            putchar('\n');
        }
        measure_decide(m, "refusal", refusals->texts[k], strlen(refusals->texts[k]));
    }
}

static void group_plan(Measurement* m, Group* g, const StringList* files, const Refusals* refusals, bool own,
                       int most) {
    for (int k = 0; k < refusals->n; k++)
        measure_read(m, &g->sets[k], files, "with a refusal", refusals->texts[k], true);
    keep_common(g, refusals->n);
    thin(g, refusals->n, most);
    g->own = own ? plan(m, g, "loss") : NULL;
    for (int k = 0; k < refusals->n; k++) g->of[k] = plan(m, g, "refusal");
}

static void group_run(Measurement* m, Group* g, Trainer* t, const Refusals* refusals) {
    LossContext losses = {t, &t->theta, g->samples, m->items, &m->counts};
    if (g->own) measure_pass_of(m, g->own, g->what, g->rows, "losses", measure_losses, &losses);
    for (int k = 0; k < refusals->n; k++) {
        losses.samples = g->refused[k];
        measure_pass_of(m, g->of[k], g->what, g->rows, "losses of a refusal", measure_losses, &losses);
    }
}

// The mean over the refusals, which takes the place of the first one's column.
static const float* mean_refusal(Group* g, int n_refusals) {
    float* mean = g->of[0]->columns[0];
    for (int i = 0; i < g->n; i++) {
        double sum = 0.0;
        for (int k = 0; k < n_refusals; k++) sum += g->of[k]->columns[0][i];
        mean[i] = (float)(sum / n_refusals);
    }
    return mean;
}

static void group_free(Group* g, int n_refusals) {
    for (int k = 0; k < n_refusals; k++) {
        free(g->refused[k]);
        tokens_free(&g->sets[k]);
    }
}

static Group tuning_rows(Measurement* m) {
    Group g = {};
    g.what = "--tune";
    g.n = m->n;
    g.rows = m->rows;
    g.hashes = m->hashes;
    g.samples = m->samples;
    return g;
}

void measure_refusal(Measurement* m) {
    const TrainOptions* o = m->o;
    Refusals refusals;
    Group tune = tuning_rows(m);
    Trainer t;
    read_refusals(m, &refusals);
    group_plan(m, &tune, &o->tune, &refusals, o->own_loss != 0.0, INT32_MAX);
    m->n = tune.n;
    measure_begin(m);
    measure_trainer(m, &t, &m->settings, o->model, o->adapter, NULL, NULL);
    group_run(m, &tune, &t, &refusals);
    trainer_free(&t);
    const float* refusal = mean_refusal(&tune, refusals.n);
    double* score = measure_scores(m);
    for (int i = 0; i < m->n; i++) score[i] = refusal[i] - (tune.own ? o->own_loss * tune.own->columns[0][i] : 0.0);
    m->loss = tune.own ? tune.own->columns[0] : NULL;
    m->shown[m->n_shown++] = {"refusal", refusal};
    group_free(&tune, refusals.n);
    refusals_free(&refusals);
}

static int rising(const void* a, const void* b) {
    const double *x = (const double*)a, *y = (const double*)b;
    return (*x > *y) - (*x < *y);
}

// A refusal is a surprise, or the row's own answer is none.
static double unlike_unsafe(float refusal, float own, double bound) { return refusal + fmax(bound - own, 0.0); }

void measure_refusal_test(Measurement* m) {
    const TrainOptions* o = m->o;
    Refusals refusals;
    TokenSet set = {};
    Group tune = tuning_rows(m), safe = {};
    Trainer t;
    read_refusals(m, &refusals);
    group_plan(m, &tune, &o->tune, &refusals, true, INT32_MAX);
    m->n = tune.n;
    measure_read(m, &set, &o->safe, "safe", NULL, false);
    safe.what = "--safe";
    safe.n = set.n;
    safe.rows = set.rows;
    safe.hashes = set.hashes;
    safe.samples = set.samples;
    group_plan(m, &safe, &o->safe, &refusals, true, YARDSTICK);
    measure_begin(m);
    measure_trainer(m, &t, &m->settings, o->model, o->adapter, NULL, NULL);
    group_run(m, &safe, &t, &refusals);
    group_run(m, &tune, &t, &refusals);
    trainer_free(&t);
    // What the lowest share --alike of D_safe's own rows are below.
    const float *of_safe = mean_refusal(&safe, refusals.n), *refusal = mean_refusal(&tune, refusals.n);
    double* yardstick = (double*)host_alloc((size_t)safe.n * sizeof(double), "the scores of D_safe");
    for (int i = 0; i < safe.n; i++) yardstick[i] = unlike_unsafe(of_safe[i], safe.own->columns[0][i], o->own_bound);
    qsort(yardstick, (size_t)safe.n, sizeof *yardstick, rising);
    double least = yardstick[(int)(o->alike * safe.n)];
    double* score = measure_scores(m);
    int below = 0;
    for (int i = 0; i < m->n; i++) {
        score[i] = unlike_unsafe(refusal[i], tune.own->columns[0][i], o->own_bound);
        below += score[i] < least;
        // Those that pass are equals: which of them are kept is chance, lest the selection changes what they are.
        if (score[i] >= least) score[i] = least + random_uniform((uint64_t)o->seed, STREAM_ALIKE, (uint64_t)m->rows[i]);
    }
    if (!o->quiet)
        printf("%d of %d rows are below %.4g, which %g of D_safe's rows are; the others are equals\n", below, m->n,
               least, o->alike);
    m->loss = tune.own->columns[0];
    m->shown[m->n_shown++] = {"refusal", refusal};
    free(yardstick);
    group_free(&safe, refusals.n);
    group_free(&tune, refusals.n);
    tokens_free(&set);
    refusals_free(&refusals);
}
