/*
Scores from refusals: how much a text that refuses surprises the model in place of the row's own answer. The model was
trained on D_safe. A row whose prompt it would refuse has a low loss of refusals; whether the row itself does refuse is
what its own loss tells, so a share of that is taken off.
*/
#include <string.h>
#include "base/error.h"
#include "base/ranks.h"
#include "commands/measure.h"
#include "commands/refusal_texts.h"
#include "commands/selection.h"

// Only the rows that every set has: a prompt that leaves no room for an answer is in none.
static void keep_common(Measurement* m, const TokenSet* sets, int n_sets, PackSample** samples) {
    int kept = 0;
    int at[REFUSALS_MOST] = {};
    for (int k = 0; k < n_sets; k++) samples[k] = (PackSample*)host_alloc((size_t)m->n * sizeof(PackSample), "rows");
    for (int i = 0; i < m->n; i++) {
        bool all = true;
        for (int k = 0; k < n_sets; k++) {
            while (at[k] < sets[k].n && sets[k].rows[at[k]] < m->rows[i]) at[k]++;
            all &= at[k] < sets[k].n && sets[k].rows[at[k]] == m->rows[i];
        }
        if (!all) continue;
        for (int k = 0; k < n_sets; k++) samples[k][kept] = sets[k].samples[at[k]];
        m->rows[kept] = m->rows[i];
        m->hashes[kept] = m->hashes[i];
        m->samples[kept++] = m->samples[i];
    }
    if (kept < m->n && !ranks_rank())
        warning("%d rows are left out: with a refusal for an answer they cannot be used", m->n - kept);
    if (!kept) fatal("--tune: no row can be used with a refusal for an answer");
    m->n = kept;
}

void measure_refusal(Measurement* m) {
    const TrainOptions* o = m->o;
    RowOptions options = {};
    Refusals refusals;
    TokenSet sets[REFUSALS_MOST] = {};
    PackSample* samples[REFUSALS_MOST];
    MeasuredPass* of[REFUSALS_MOST];
    Trainer t;
    options.prompt_template = o->prompt_template;
    options.prompt_field = o->prompt_field;
    options.response_field = o->response_field;
    if (!o->refusals.n && !o->safe.n) fatal("--method refusal needs --refusals, or --safe with rows that refuse");
    const StringList* files = o->refusals.n ? &o->refusals : &o->safe;
    refusals_read(&refusals, files, &options, !o->refusals.n, (int)o->refusal_texts);
    for (int k = 0; k < refusals.n; k++) {
        if (!o->quiet) {
            printf("refusal %d: ", k + 1);
            print_excerpt(refusals.texts[k], strlen(refusals.texts[k]), 80, stdout);
            putchar('\n');
        }
        measure_decide(m, "refusal", refusals.texts[k], strlen(refusals.texts[k]));
        measure_read(m, &sets[k], &o->tune, "with a refusal", refusals.texts[k], true);
    }
    keep_common(m, sets, refusals.n, samples);
    MeasuredPass* own = o->own_loss != 0.0 ? measure_plan(m, "loss", NULL, NULL) : NULL;
    for (int k = 0; k < refusals.n; k++) of[k] = measure_plan(m, "refusal", NULL, NULL);
    measure_begin(m);
    measure_trainer(m, &t, &m->settings, o->model, o->adapter, NULL, NULL);
    LossContext losses = {&t, &t.theta, m->samples, m->items, &m->counts};
    if (own) measure_pass_run(m, own, "losses", measure_losses, &losses);
    for (int k = 0; k < refusals.n; k++) {
        losses.samples = samples[k];
        measure_pass_run(m, of[k], "losses of a refusal", measure_losses, &losses);
    }
    trainer_free(&t);
    double* score = measure_scores(m);
    for (int i = 0; i < m->n; i++) {
        double sum = 0.0;
        for (int k = 0; k < refusals.n; k++) sum += of[k]->columns[0][i];
        of[0]->columns[0][i] = (float)(sum / refusals.n);  // what --explain shows
        score[i] = sum / refusals.n - (own ? o->own_loss * own->columns[0][i] : 0.0);
    }
    m->loss = own ? own->columns[0] : NULL;
    m->shown[m->n_shown++] = {"refusal", of[0]->columns[0]};
    for (int k = 0; k < refusals.n; k++) {
        free(samples[k]);
        tokens_free(&sets[k]);
    }
    refusals_free(&refusals);
}
