/* One step of SEAL, both algorithms. See seal_step.h; the equations are those of the paper's Algorithms 1 and 2. */
#include <string.h>
#include "seal_step.h"

void seal_step(Trainer* t, Selector* s, int algorithm, const SealBatch* x, BatchItem* items, SealCounts* counts) {
    NVTX_RANGE("seal step");
    bool with_hat = algorithm == 1;
    memset(counts, 0, sizeof *counts);
    selector_begin(s, x->rows, x->b, t->stream);
    for (int i = 0; i < x->b; i++) items[i].sample = x->tune[i];
    for (int j = 0; j < x->m; j++) items[x->b + j].sample = x->safe[j];

    // θ̂ ← AdamW(θ̂, ∇ mean over B_f of σ_i ℓ(θ̂; z_i))
    BatchItem* hat = items + x->b + x->m;
    for (int i = 0; i < x->b && with_hat; i++) {
        hat[i].sample = x->tune[i];
        hat[i].coefficient = 1.0f / (float)x->b;
    }
    // θ ← AdamW(θ, ∇ [(1−γ) mean over B_s of ℓ(θ; s_j) + γ mean over B_f of σ_i ℓ(θ; z_i)]), in one pass
    for (int i = 0; i < x->b; i++) items[i].coefficient = x->gamma / (float)x->b;
    for (int j = 0; j < x->m; j++) items[x->b + j].coefficient = (1.0f - x->gamma) / (float)x->m;
    if (with_hat && t->with_lora) {  // two adapters over one frozen model
        gradients_zero(&t->theta_hat, t->stream);
        gradients_zero(&t->theta, t->stream);
        trainer_pass_both(t, items, x->b + x->m, hat, x->b, s->sigma, &counts->theta, &counts->theta_hat);
        optimizer_step(&t->theta_hat, &t->settings.adamw, x->lr_hat, t->norm + 2, t->norm + 3, t->stream);
    } else {
        if (with_hat) {  // θ̂'s gradient buffer is θ's, used before it
            gradients_zero(&t->theta_hat, t->stream);
            trainer_pass(t, &t->theta_hat, hat, x->b, x->b, s->sigma, t->loss_hat, true, &counts->theta_hat);
            optimizer_step(&t->theta_hat, &t->settings.adamw, x->lr_hat, t->norm + 2, t->norm + 3, t->stream);
        }
        gradients_zero(&t->theta, t->stream);
        trainer_pass(t, &t->theta, items, x->b + x->m, x->b, s->sigma, t->loss, true, &counts->theta);
    }
    optimizer_step(&t->theta, &t->settings.adamw, x->lr, t->norm, t->norm + 1, t->stream);

    // ω ← Opt(ω, ∇ mean over B_f of σ_i(ω) Δ_i); while θ̂ equals θ bit for bit, before their first steps, Δ is exactly 0
    bool equal = with_hat && t->theta.step == 1;
    selector_end(s, t->loss, with_hat ? t->loss_hat : NULL, equal, x->b, x->lr_omega, x->omega_scale, t->stream);
}
