/* See scores.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "base/random.h"
#include "commands/scores.h"

// ---------------------------------------------------------------------------------------------------
// methods

// streams of random numbers nobody else draws from
#define STREAM_SELECT 0x73656c656374ull
#define STREAM_DSIR 0x64736972ull

// Both lists of rows ascend, so one walk pairs them.
static void score_seal(const ScoreInput* in, const int64_t* rows, int64_t n, double* score) {
    const SelectorFile* s = in->selector;
    int64_t k = 0;
    for (int64_t i = 0; i < n; i++) {
        while (k < s->n && s->rows[k] < rows[i]) k++;
        score[i] = k < s->n && s->rows[k] == rows[i] ? (double)s->logits[k] : -INFINITY;
    }
}
// The largest ⌊p·n⌋ of independent uniform numbers are a uniform subset.
static void score_random(const ScoreInput* in, const int64_t* rows, int64_t n, double* score) {
    for (int64_t i = 0; i < n; i++) score[i] = random_uniform(in->seed, STREAM_SELECT, (uint64_t)rows[i]);
}
static void score_given(const ScoreInput* in, const int64_t* rows, int64_t n, double* score) {
    (void)rows;
    for (int64_t i = 0; i < n; i++) score[i] = in->scores[i];
}
// The largest k of log weights with Gumbel noise are k draws by weight without replacement.
static void score_dsir(const ScoreInput* in, const int64_t* rows, int64_t n, double* score) {
    for (int64_t i = 0; i < n; i++)
        score[i] = in->scores[i] + (in->noise ? random_gumbel(in->seed, STREAM_DSIR, (uint64_t)rows[i]) : 0.0);
}

#define WITH_MODEL "model,adapter"
static const ScoreMethod methods[] = {
    {"seal", SCORE_FROM_SELECTOR, score_seal, NULL, "selector,model,adapter", "selector", "by the selector's logit"},
    {"random", SCORE_FROM_SEED, score_random, NULL, WITH_MODEL, "", "a uniform share of the rows, by --seed"},
    {"safe-loss", SCORE_FROM_MODEL, score_given, measure_safe_loss, WITH_MODEL, "model",
     "by the loss under a model, lowest first"},
    {"dsir", SCORE_FROM_TARGET, score_dsir, NULL, "target,noise,min-words," WITH_MODEL, "target",
     "by the log importance weight against --target"},
    {"loss-diff", SCORE_FROM_MODEL, score_given, measure_loss_diff, WITH_MODEL ",reference,reference-adapter", "model",
     "by how much lower the loss under --model is than under --reference"},
    {"influence", SCORE_FROM_MODEL, score_given, measure_influence,
     WITH_MODEL ",safe,harmful,matrices,form,lora,lora-rank,lora-alpha,recompute", "model,safe",
     "by the product of a row's gradient with the mean gradient over --safe, minus that over --harmful"},
    {"gradient-norm", SCORE_FROM_MODEL, score_given, measure_gradient_norm,
     WITH_MODEL ",matrices,form,lora,lora-rank,lora-alpha,recompute", "model",
     "by the norm of a row's gradient, lowest first"},
    {"representation", SCORE_FROM_MODEL, score_given, measure_representation,
     WITH_MODEL ",safe,harmful,layer,anchors,probe", "model,safe,harmful",
     "by how much closer a row's representation is to the anchors of --safe than to those of --harmful"},
    {"refusal", SCORE_FROM_MODEL, score_given, measure_refusal, WITH_MODEL ",safe,refusals,refusal-texts,own-loss",
     "model", "by the loss of refusals in place of the row's answer, highest first, less a share of its own loss"},
    {"refusal-test", SCORE_FROM_MODEL, score_given, measure_refusal_test,
     WITH_MODEL ",safe,refusals,refusal-texts,own-bound,alike", "model,safe",
     "rows that the model would refuse and that do not refuse are last; of those that are as D_safe's, a uniform "
     "share"},
    {"toss", SCORE_FROM_MODEL, score_given, measure_toss,
     "model,useful,harmful,useful-adapter,harmful-adapter,drop-tokens,token-mask,refine,lr,epochs", "model",
     "tokens, by their loss under a useful reference less that under a harmful one; rows by the mean of theirs"},
};
enum { N_METHODS = sizeof methods / sizeof *methods };

const ScoreMethod* score_method(const char* name) {
    char names[256] = "";
    for (int i = 0; i < N_METHODS; i++) {
        if (!strcmp(methods[i].name, name)) return &methods[i];
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "", methods[i].name);
    }
    fatal("--method is \"%s\"; expected one of %s", name, names);
}

static bool listed(const char* list, const char* name) {
    size_t n = strlen(name);
    for (const char* p = list; *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == n && !memcmp(p, name, n)) return true;
    return false;
}
bool score_takes(const ScoreMethod* m, const char* option) { return listed(m->takes, option); }
bool score_any_takes(const char* option) {
    for (int i = 0; i < N_METHODS; i++)
        if (listed(methods[i].takes, option)) return true;
    return false;
}

int64_t score_rows(const ScoreMethod* m, const ScoreInput* in, const int64_t* rows, int64_t n, double* score) {
    if (m->source == SCORE_FROM_SELECTOR && !in->selector) fatal("--method %s needs --selector", m->name);
    if ((m->source == SCORE_FROM_MODEL || m->source == SCORE_FROM_TARGET) && !in->scores)
        program_error("--method %s was given no scores", m->name);
    m->score(in, rows, n, score);
    int64_t without = 0;
    for (int64_t i = 0; i < n; i++) without += score[i] == -INFINITY;
    return without;
}

// ---------------------------------------------------------------------------------------------------
// the top share

typedef struct {
    double score;
    int64_t row, index;
} Ranked;
static int by_score(const void* a, const void* b) {
    const Ranked *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

int64_t score_share(double top, int64_t n) {
    int64_t keep = (int64_t)floor(top * (double)n * (1 + 1e-12));
    return keep > n ? n : keep;
}

int64_t score_order(const double* score, const int64_t* rows, int64_t n, double top, int64_t* order) {
    if (!(top > 0 && top <= 1)) fatal("--top is %g; expected a share of the rows, above 0 and at most 1", top);
    Ranked* ranked = host_alloc((size_t)(n ? n : 1) * sizeof *ranked, "the selection");
    for (int64_t i = 0; i < n; i++) {
        if (isnan(score[i])) fatal("row %lld: its score is not a number", (long long)rows[i]);
        ranked[i] = (Ranked){score[i], rows[i], i};
    }
    qsort(ranked, (size_t)n, sizeof *ranked, by_score);
    for (int64_t i = 0; i < n; i++) order[i] = ranked[i].index;
    free(ranked);
    return score_share(top, n);
}
