/*
Scores from representations (LARF, Li et al., EMNLP 2025): the residual stream after one layer at the row's last token
that carries loss, against the same of pairs of unsafe and safe anchors. The layer is given, or it is the one whose
scaling changes the losses of refusals most.
*/
#include <string.h>
#include "base/error.h"
#include "base/parallel.h"
#include "base/ranks.h"
#include "commands/measure.h"

typedef struct {
    int n, width;
    double* unit;  // (n, width) of length 1
} Anchors;

typedef struct {
    Measurement* m;
    Trainer* trainer;
    const PackSample* samples;  // of what is measured at the moment
    float* tap;                 // (batch_max, C) device
    float* rows;                // (batch_max, C) pinned
    Anchors unsafe, safe;
    int k;  // how many of the differences count
    // a batch's similarities, by several threads
    int n;
    int next;  // read and counted up atomically
    float* similarity;
} Representation;

static void plan_tap(void* context, Trainer* t) {
    Representation* x = (Representation*)context;
    memory_add(&t->plan, MEMORY_SCRATCH, &x->tap, (size_t)t->settings.batch_max * t->layout.config.C * sizeof(float),
               "representations");
}

// x->rows (n, C) of the samples from `from` on.
static void read_rows(Representation* x, int from, int n) {
    Trainer* t = x->trainer;
    size_t all = (size_t)t->settings.batch_max * t->layout.config.C;
    for (int i = 0; i < n; i++) x->m->items[i] = {x->samples[from + i], 0.0f};
    cudaCheck(cudaMemsetAsync(x->tap, 0, all * sizeof(float), t->stream));
    t->transformer.tap = x->tap;
    trainer_pass(t, &t->theta, x->m->items, n, 0, NULL, t->loss, false, &x->m->counts);
    ranks_sum(x->tap, all, t->stream);  // zeros where another rank ran the sample
    cudaCheck(cudaMemcpyAsync(x->rows, x->tap, (size_t)n * t->layout.config.C * sizeof(float), cudaMemcpyDeviceToHost,
                              t->stream));
    cudaCheck(cudaStreamSynchronize(t->stream));
}

static double length_of(const float* row, int width) {
    double sum = 0.0;
    for (int c = 0; c < width; c++) sum += (double)row[c] * row[c];
    return sqrt(sum);
}

static void read_anchors(Representation* x, Anchors* a, const TokenSet* set, int n, const char* option) {
    int C = x->trainer->layout.config.C, most = x->m->settings.batch_max;
    a->n = n;
    a->width = C;
    a->unit = (double*)host_alloc((size_t)n * C * sizeof(double), "the anchors");
    x->samples = set->samples;
    for (int from = 0; from < n; from += most) {
        int count = n - from < most ? n - from : most;
        read_rows(x, from, count);
        for (int i = 0; i < count; i++) {
            const float* row = x->rows + (size_t)i * C;
            double length = length_of(row, C);
            if (!(length > 0.0) || !isfinite(length))
                fatal("%s, row %lld: its representation has no direction; is the model damaged?", option,
                      (long long)set->rows[from + i]);
            for (int c = 0; c < C; c++) a->unit[((size_t)from + i) * C + c] = row[c] / length;
        }
    }
}

static double cosine(const float* row, double length, const Anchors* a, int j) {
    const double* unit = a->unit + (size_t)j * a->width;
    double sum = 0.0;
    for (int c = 0; c < a->width; c++) sum += unit[c] * row[c];
    return sum / length;
}

static int falling(const void* a, const void* b) {
    double x = *(const double*)a, y = *(const double*)b;
    return (x < y) - (x > y);
}

// Mean of the k largest cos(h, u_j) − cos(h, s_j) for rows of the batch, until none is left.
static void compare_rows(void* context) {
    Representation* x = (Representation*)context;
    int n = x->unsafe.n, C = x->unsafe.width;
    double* difference = (double*)host_alloc((size_t)n * sizeof(double), "the anchors");
    for (int i; (i = __atomic_fetch_add(&x->next, 1, __ATOMIC_RELAXED)) < x->n;) {
        const float* row = x->rows + (size_t)i * C;
        double length = length_of(row, C), sum = 0.0;
        if (!(length > 0.0) || !isfinite(length)) {  // no direction: not a number, which is refused with the row
            x->similarity[i] = NAN;
            continue;
        }
        for (int j = 0; j < n; j++)
            difference[j] = cosine(row, length, &x->unsafe, j) - cosine(row, length, &x->safe, j);
        qsort(difference, (size_t)n, sizeof *difference, falling);
        for (int j = 0; j < x->k; j++) sum += difference[j];
        x->similarity[i] = (float)(sum / x->k);
    }
    free(difference);
}

static void measure_similarity(void* context, int from, int n, float* const* out) {
    Representation* x = (Representation*)context;
    x->samples = x->m->samples;
    read_rows(x, from, n);
    x->n = n;
    x->next = 0;
    x->similarity = out[0];
    int threads = parallel_cores(), most = 1 + n / 8;
    parallel_run(threads < most ? threads : most, compare_rows, x);
}

// ---------------------------------------------------------------------------------------------------
// the layer

// --layer N, 0 for `probe`.
static int given_layer(const Measurement* m) {
    char* end;
    const char* text = m->o->layer;
    if (!strcmp(text, "probe")) return 0;
    long layer = strtol(text, &end, 10);
    if (end == text || *end) fatal("--layer is \"%s\"; expected a layer's number or probe", text);
    if (layer < 1 || layer > m->config.L)
        fatal("--layer is %ld but the model has the layers 1 to %d", layer, m->config.L);
    return (int)layer;
}

static double mean_loss(Representation* x, const TokenSet* set) {
    Measurement* m = x->m;
    LossContext losses = {x->trainer, &x->trainer->theta, set->samples, m->items, &m->counts};
    double sum = 0.0;
    float* loss = (float*)host_alloc((size_t)m->settings.batch_max * sizeof(float), "losses");
    for (int from = 0; from < set->n; from += m->settings.batch_max) {
        int n = set->n - from < m->settings.batch_max ? set->n - from : m->settings.batch_max;
        measure_losses(&losses, from, n, &loss);
        for (int i = 0; i < n; i++) sum += loss[i];
    }
    free(loss);
    return sum / set->n;
}

// The layer whose contribution, made a fifth smaller and a fifth larger, changes the mean loss of the refusals most.
static int probe_layer(Representation* x, const TokenSet* refusals) {
    Transformer* t = &x->trainer->transformer;
    bool tells = !x->m->o->quiet;
    double most = -1.0, plain = mean_loss(x, refusals);
    int best = 1;
    for (int l = 1; l <= x->m->config.L; l++) {
        double change = 0.0;
        t->scaled_layer = l;
        for (int side = 0; side < 2; side++) {
            t->layer_scale = side ? 1.2f : 0.8f;
            change += fabs(mean_loss(x, refusals) - plain);
        }
        if (tells) printf("probe: layer %d changes the loss of refusals (%.4f) by %.4f\n", l, plain, change / 2.0);
        if (change > most) {
            most = change;
            best = l;
        }
    }
    t->scaled_layer = 0;
    if (!isfinite(plain)) fatal("%s: the loss of the refusals is not finite; is the model damaged?", x->m->o->model);
    return best;
}

// ---------------------------------------------------------------------------------------------------

// Anchors are pairs: one that is left out would shift all after it.
static void check_anchors(const TokenSet* set, const StringList* files, const char* option) {
    int64_t bad = row_report_bad(&set->report);
    if (bad)
        fatal("%s %s: %lld of %lld anchors cannot be used, and anchors are pairs by their order; the first: %s", option,
              files->items[0], (long long)bad, (long long)set->n_rows, set->report.named[0]);
}

void measure_representation(Measurement* m) {
    const TrainOptions* o = m->o;
    TokenSet unsafe = {}, safe = {}, probe = {};
    Trainer t;
    Representation x = {};
    int layer = given_layer(m);
    if (layer && o->probe.n) fatal("--probe has no effect with --layer %d; give --layer probe", layer);
    measure_read(m, &unsafe, &o->harmful, "harmful", NULL, true);
    measure_read(m, &safe, &o->safe, "safe", NULL, true);
    if (o->probe.n) measure_read(m, &probe, &o->probe, "probe", NULL, false);
    check_anchors(&unsafe, &o->harmful, "--harmful");
    check_anchors(&safe, &o->safe, "--safe");
    if (!strcmp(unsafe.digest, safe.digest))
        fatal("--safe and --harmful are the same rows: every row would be as close to the one as to the other");
    int pairs = unsafe.n < safe.n ? unsafe.n : safe.n;
    if (unsafe.n != safe.n && !ranks_rank())
        warning("%d unsafe and %d safe anchors: the first %d of each are used, as pairs", unsafe.n, safe.n, pairs);
    text_printf(&m->decides, "\n%s %lld", o->layer, (long long)o->anchors);
    MeasuredPass* p = measure_plan(m, "similarity", NULL, NULL);
    measure_begin(m);

    x.m = m;
    x.trainer = &t;
    x.k = (int)(o->anchors < pairs ? o->anchors : pairs);
    measure_trainer(m, &t, &m->settings, o->model, o->adapter, plan_tap, &x);
    cudaCheck(cudaMallocHost((void**)&x.rows, (size_t)m->settings.batch_max * m->config.C * sizeof(float)));
    if (!layer) layer = probe_layer(&x, o->probe.n ? &probe : &safe);
    if (!o->quiet) printf("layer %d, %d pairs of anchors, the %d nearest count\n", layer, pairs, x.k);
    t.transformer.tap_layer = layer;
    read_anchors(&x, &x.unsafe, &unsafe, pairs, "--harmful");
    read_anchors(&x, &x.safe, &safe, pairs, "--safe");
    measure_pass_run(m, p, "representations", measure_similarity, &x);
    trainer_free(&t);
    cudaCheck(cudaFreeHost(x.rows));
    free(x.unsafe.unit);
    free(x.safe.unit);
    tokens_free(&unsafe);
    tokens_free(&safe);
    if (o->probe.n) tokens_free(&probe);
    double* score = measure_scores(m);
    for (int i = 0; i < m->n; i++) score[i] = -(double)p->columns[0][i];
}
