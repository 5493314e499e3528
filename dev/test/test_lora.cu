/*
LoRA inside the base GEMM. Each site against the textbook form in double precision, y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ and its
gradients, with NaN planted wherever nobody may read; garbage put into a tail on purpose must show. Then the whole
model: two adapters in one pass against one at a time, a base that never changes and has no gradient, recomputation bit
for bit, and the memory plans of the models that people train.
*/
#include <string.h>
#include "check.h"
#include "base/error.h"
#include "kernels.h"
#include "peft.h"
#include "base/random.h"
#define TESTING
#include "../../train_seal.cu"

#ifdef PRECISION_BF16
static bool bf16 = true;
#else
static bool bf16 = false;
#endif

static void compare(const char* name, const float* a, const double* b, int64_t n) {
    if (bf16) check_cosine(name, a, b, n);
    else check_close(name, a, b, n, 1e-5);
}

static float* randoms(int64_t n, float scale, uint64_t stream) {
    float* x = (float*)malloc(n * sizeof(float));
    for (int64_t i = 0; i < n; i++)
        x[i] = to_float(from_float<floatX>(scale * (float)random_normal(7, stream, (uint64_t)i)));
    return x;
}

static ModelConfig tiny(const char* family) {
    ModelConfig c;
    model_config_defaults(&c, family);
    c.L = 2;
    c.C = 96;
    c.NH = 3;
    c.NKV = strcmp(family, "llama") ? 3 : 1;
    c.V = 61;
    c.max_positions = 64;
    model_config_complete(&c, "tiny");
    return c;
}

static LoraSettings lora_settings(const char* modules, int rank, float alpha) {
    LoraSettings s = {};
    snprintf(s.modules, sizeof s.modules, "%s", modules);
    s.rank = rank;
    s.scale = alpha / (float)rank;
    return s;
}

// A trainer with random weights and adapters: B is not zero here.
static void open_trainer(Trainer* t, const ModelConfig* c, const LoraSettings* lora, bool with_hat, bool recompute) {
    TrainerSettings settings = {};
    settings.T = 128;
    settings.head_rows = 48;
    settings.batch_max = 8;
    settings.with_hat = with_hat;
    settings.recompute = recompute;
    settings.lora = *lora;
    AdamwSettings adamw = {0.9f, 0.95f, 1e-8f, 0.0f, 1.0f};
    settings.adamw = adamw;
    trainer_plan(t, c, &settings);
    trainer_allocate(t);
    parameters_init(t->with_lora ? &t->base : &t->theta, 3, true);
    for (int a = 0; a < (t->with_lora ? 1 + with_hat : 0); a++) {
        ParameterSet* set = a ? &t->theta_hat : &t->theta;
        for (int i = 0; i < set->layout->n_tensors; i++) {
            const ModelTensor* x = &set->layout->tensors[i];
            float *values = (float*)calloc(x->rows * x->cols, sizeof(float)),
                  *r = randoms(x->rows * x->cols, 0.1f, 1000 + 100 * a + i);
            for (int64_t e = 0; e < x->rows * x->cols; e++)
                if (e / x->cols < x->file_rows && e % x->cols < x->file_cols) values[e] = r[e];
            parameters_set(set, i, values);
            free(values);
            free(r);
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// one site against the textbook

typedef struct {
    Trainer* t;
    Site site;
    int layer, T, split, C, OC, ld;
    float *x, *dy, *w;
    float *A[2][LORA_MODULES], *B[2][LORA_MODULES];
    floatX *d_x, *d_y, *d_dx, *d_dy;
} Problem;

static float* tensor_values(const ParameterSet* set, int kind, int layer) {
    const ModelTensor* x = &set->layout->tensors[tensor_index(set->layout, kind, layer)];
    float* values = (float*)malloc(x->rows * x->cols * sizeof(float));
    parameters_get(set, tensor_index(set->layout, kind, layer), values);
    for (int64_t e = 0; e < x->rows * x->cols; e++)
        values[e] = to_float(from_float<floatX>(values[e]));  // what the products read
    return values;
}

static floatX* upload(const float* host, int rows, int width, int ld) {  // tails are NaN
    floatX *device = NULL, *padded = (floatX*)malloc((size_t)rows * ld * sizeof(floatX));
    for (size_t i = 0; i < (size_t)rows * ld; i++)
        padded[i] = from_float<floatX>(host && (int)(i % ld) < width ? host[i / ld * width + i % ld] : NAN);
    cudaCheck(cudaMalloc((void**)&device, (size_t)rows * ld * sizeof(floatX)));
    cudaCheck(cudaMemcpy(device, padded, (size_t)rows * ld * sizeof(floatX), cudaMemcpyHostToDevice));
    cudaCheck(cudaDeviceSynchronize());  // the trainer's stream does not wait for the default one
    free(padded);
    return device;
}
static float* download(const floatX* device, int rows, int width, int ld) {
    floatX* padded = (floatX*)malloc((size_t)rows * ld * sizeof(floatX));
    float* host = (float*)malloc((size_t)rows * width * sizeof(float));
    cudaCheck(cudaDeviceSynchronize());
    cudaCheck(cudaMemcpy(padded, device, (size_t)rows * ld * sizeof(floatX), cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < (size_t)rows * width; i++) host[i] = to_float(padded[i / width * ld + i % width]);
    free(padded);
    return host;
}

static void forward(Problem* p) {
    lora_forward(&p->t->lora, {p->site, p->layer, p->C, p->T, p->split}, p->d_x, p->t->stream);
    matmul_forward(p->d_y, NULL, p->d_x, weight(&p->t->base, site_weight(p->site), p->layer), NULL,
                   {.T = p->T, .C = p->ld, .OC = p->OC, .ldo = p->OC, .ldi = p->ld, .ldw = p->ld}, p->t->stream);
}
static void backward(Problem* p) {
    matmul_backward_input(p->d_dx, p->d_dy, weight(&p->t->base, site_weight(p->site), p->layer), NULL,
                          {.T = p->T, .C = p->ld, .OC = p->OC, .ldo = p->OC, .ldi = p->ld, .ldw = p->ld}, false,
                          p->t->stream);
    const LoraRows rows = {p->site, p->layer, p->C, p->T, p->split};
    lora_backward_tail(&p->t->lora, rows, p->d_dx, p->t->stream);
    lora_backward_weight(&p->t->lora, rows, p->d_dx, p->d_dy, p->OC, p->d_x, p->t->stream);
    lora_backward_input(&p->t->lora, rows, p->d_dx, p->t->stream);
}

typedef struct {
    double *y, *dx, *dA[2][LORA_MODULES], *dB[2][LORA_MODULES];
} Textbook;

static Textbook textbook(const Problem* p) {
    Textbook b = {};
    const LoraSite* site = &p->t->lora.sites[p->site];
    const int r = p->t->lora.rank;
    const double s = p->t->lora.settings.scale;
    b.y = (double*)calloc((size_t)p->T * p->OC, sizeof(double));
    b.dx = (double*)calloc((size_t)p->T * p->C, sizeof(double));
    for (int t = 0; t < p->T; t++)
        for (int o = 0; o < p->OC; o++)
            for (int c = 0; c < p->C; c++) {
                b.y[t * p->OC + o] += (double)p->x[t * p->C + c] * p->w[o * p->C + c];
                b.dx[t * p->C + c] += (double)p->dy[t * p->OC + o] * p->w[o * p->C + c];
            }
    for (int a = 0; a < p->t->lora.n_sets; a++)
        for (int m = 0; m < site->n; m++) {
            const float *A = p->A[a][m], *B = p->B[a][m];
            double *dA = b.dA[a][m] = (double*)calloc((size_t)r * p->C, sizeof(double)),
                   *dB = b.dB[a][m] = (double*)calloc((size_t)site->rows[m] * r, sizeof(double));
            for (int t = a ? p->split : 0; t < (a ? p->T : p->split); t++)
                for (int k = 0; k < r; k++) {
                    double xa = 0, dyb = 0;
                    const float *x = p->x + (size_t)t * p->C, *dy = p->dy + (size_t)t * p->OC + site->first[m];
                    for (int c = 0; c < p->C; c++) xa += (double)x[c] * A[k * p->C + c];
                    for (int o = 0; o < site->rows[m]; o++) dyb += (double)dy[o] * B[o * r + k];
                    for (int o = 0; o < site->rows[m]; o++) {
                        b.y[t * p->OC + site->first[m] + o] += s * xa * B[o * r + k];
                        dB[o * r + k] += s * dy[o] * xa;
                    }
                    for (int c = 0; c < p->C; c++) {
                        b.dx[t * p->C + c] += s * dyb * A[k * p->C + c];
                        dA[k * p->C + c] += s * dyb * x[c];
                    }
                }
        }
    return b;
}

static double distance(const float* a, const double* b, int64_t n) {
    double worst = 0, most = 0;
    for (int64_t i = 0; i < n; i++) {
        worst = larger(worst, isnan(a[i]) ? 1e30 : fabs(a[i] - b[i]));
        most = larger(most, fabs(b[i]));
    }
    return worst / most;
}

static void check_gradients(const Problem* p, const Textbook* b, const char* what) {
    const LoraSite* site = &p->t->lora.sites[p->site];
    const int r = p->t->lora.rank;
    char name[160];
    for (int a = 0; a < p->t->lora.n_sets; a++)
        for (int m = 0; m < site->n; m++)
            for (int of_b = 0; of_b < 2; of_b++) {
                const ModelLayout* layout = &p->t->lora.layout;
                int i = tensor_index(layout, lora_kind(p->site, m, of_b), p->layer);
                int64_t n = of_b ? (int64_t)site->rows[m] * r : (int64_t)r * p->C;
                float* got = (float*)malloc(n * sizeof(float));
                parameters_get_gradient(p->t->lora.sets[a], i, got);
                snprintf(name, sizeof name, "%s: gradient of %s of %s", what, layout->tensors[i].name,
                         a ? "theta_hat" : "theta");
                compare(name, got, of_b ? b->dB[a][m] : b->dA[a][m], n);
                bool padding = true;
                for (int64_t e = 0; e < n; e++)
                    if (e / layout->tensors[i].cols >= layout->tensors[i].file_rows ||
                        e % layout->tensors[i].cols >= layout->tensors[i].file_cols)
                        padding &= got[e] == 0.0f;
                if (layout->tensors[i].file_rows * layout->tensors[i].file_cols < n)
                    check(padding, "%s: none where the rank is padding", name);
                free(got);
            }
}

static void check_site(const char* family, const char* modules, int rank, float alpha, bool with_hat, Site which, int T,
                       int split) {
    ModelConfig c = tiny(family);
    LoraSettings settings = lora_settings(modules, rank, alpha);
    Trainer t;
    char what[128], name[192];
    snprintf(what, sizeof what, "%s %s r%d, %s, site %d", family, modules, rank,
             with_hat ? "two adapters" : "one adapter", which);
    open_trainer(&t, &c, &settings, with_hat, false);
    const ModelTensor* w = &t.layout.tensors[tensor_index(&t.layout, site_weight(which), 1)];
    Problem p = {&t,   which, 1,  T,  split, (int)w->cols, (int)w->rows, (int)w->ld, NULL,
                 NULL, NULL,  {}, {}, NULL,  NULL,         NULL,         NULL};
    p.x = randoms((int64_t)T * p.C, 1.0f, 1);
    p.dy = randoms((int64_t)T * p.OC, 1.0f, 2);
    p.w = tensor_values(&t.base, site_weight(which), 1);
    for (int a = 0; a < t.lora.n_sets; a++)
        for (int m = 0; m < t.lora.sites[which].n; m++) {
            p.A[a][m] = tensor_values(t.lora.sets[a], lora_kind(which, m, false), 1);
            p.B[a][m] = tensor_values(t.lora.sets[a], lora_kind(which, m, true), 1);
        }
    Textbook b = textbook(&p);
    p.d_x = upload(p.x, T, p.C, p.ld);
    p.d_dy = upload(p.dy, T, p.OC, p.OC);
    p.d_y = upload(NULL, T, 0, p.OC);
    p.d_dx = upload(NULL, T, 0, p.ld);
    lora_publish(&t.lora, &t.base, t.stream);
    forward(&p);
    backward(&p);
    float *y = download(p.d_y, T, p.OC, p.OC), *dx = download(p.d_dx, T, p.C, p.ld);
    snprintf(name, sizeof name, "%s: y", what);
    compare(name, y, b.y, (int64_t)T * p.OC);
    snprintf(name, sizeof name, "%s: dx", what);
    compare(name, dx, b.dx, (int64_t)T * p.C);
    check_gradients(&p, &b, what);
    // accumulation: a second pack of the batch adds to the gradients
    backward(&p);
    for (int a = 0; a < t.lora.n_sets; a++)
        for (int m = 0; m < t.lora.sites[which].n; m++) {
            for (int64_t i = 0; i < (int64_t)t.lora.rank * p.C; i++) b.dA[a][m][i] *= 2;
            for (int64_t i = 0; i < (int64_t)t.lora.sites[which].rows[m] * t.lora.rank; i++) b.dB[a][m][i] *= 2;
        }
    check_gradients(&p, &b, what);

    // What this test is worth: garbage in one unused column of one row's tail, which no kernel wrote, moves y beyond
    // any rounding.
    if (with_hat) {
        float* tail = download(p.d_x, T, p.ld, p.ld);
        tail[(size_t)0 * p.ld + p.C + t.lora.sites[which].width] = 3.0f;  // row 0 is θ's, the column θ̂'s
        floatX* planted = upload(tail, T, p.ld, p.ld);
        matmul_forward(p.d_y, NULL, planted, weight(&t.base, site_weight(which), 1), NULL,
                       {.T = T, .C = p.ld, .OC = p.OC, .ldo = p.OC, .ldi = p.ld, .ldw = p.ld}, t.stream);
        float* wrong = download(p.d_y, T, p.OC, p.OC);
        check(split == 0 || distance(wrong, b.y, (int64_t)T * p.OC) > 1e-3,
              "%s: garbage in the other adapter's column is seen", what);
        free(tail);
        free(wrong);
        cudaCheck(cudaFree(planted));
    }
    cudaCheck(cudaFree(p.d_x));
    cudaCheck(cudaFree(p.d_y));
    cudaCheck(cudaFree(p.d_dx));
    cudaCheck(cudaFree(p.d_dy));
    free(p.x);
    free(p.dy);
    free(p.w);
    free(y);
    free(dx);
    free(b.y);
    free(b.dx);
    for (int a = 0; a < 2; a++)
        for (int m = 0; m < LORA_MODULES; m++) {
            free(p.A[a][m]);
            free(p.B[a][m]);
            free(b.dA[a][m]);
            free(b.dB[a][m]);
        }
    trainer_free(&t);
}

// ---------------------------------------------------------------------------------------------------
// the whole model

#define SAMPLES 4
static int sample_tokens[SAMPLES][32];
static void make_items(BatchItem* items, int V) {
    const int lengths[SAMPLES] = {31, 9, 20, 17};
    for (int s = 0; s < SAMPLES; s++) {
        for (int i = 0; i < lengths[s]; i++)
            sample_tokens[s][i] = (int)random_below(5, (uint64_t)s, (uint64_t)i, (uint64_t)V);
        PackSample sample = {sample_tokens[s], NULL, lengths[s], lengths[s] - 1, s};
        items[s].sample = sample;
        items[s].coefficient = 0.1f * (float)(s + 1);
    }
}

static float* gradients_of(const ParameterSet* set) {
    float* g = (float*)malloc(set->layout->n_elements * sizeof(float));
    cudaCheck(cudaDeviceSynchronize());
    cudaCheck(cudaMemcpy(g, set->grads, set->layout->n_elements * sizeof(float), cudaMemcpyDeviceToHost));
    return g;
}
static double* wide(const float* x, int64_t n) {
    double* y = (double*)malloc(n * sizeof(double));
    for (int64_t i = 0; i < n; i++) y[i] = x[i];
    return y;
}
static void losses_of(Trainer* t, float* loss, float* loss_hat) {
    trainer_bring_back(t, 0);
    StepResult r = trainer_result(t, 0);
    memcpy(loss, r.loss, SAMPLES * sizeof(float));
    if (loss_hat) memcpy(loss_hat, r.loss_hat, SAMPLES * sizeof(float));
}

static void check_one_pass(const char* family) {
    ModelConfig c = tiny(family);
    LoraSettings settings = lora_settings("all", 5, 12.0f);
    Trainer t, again;
    BatchItem items[SAMPLES];
    PassCounts counts = {}, counts_hat = {};
    float loss[SAMPLES], loss_hat[SAMPLES], one[SAMPLES], unused[SAMPLES], recomputed[SAMPLES];
    char name[128];
    make_items(items, c.V);
    open_trainer(&t, &c, &settings, true, false);
    open_trainer(&again, &c, &settings, true, true);
    int64_t n = t.lora.layout.n_elements;
    trainer_pass_both(&t, items, SAMPLES, items, SAMPLES, NULL, &counts, &counts_hat);
    losses_of(&t, loss, loss_hat);
    float *g = gradients_of(&t.theta), *g_hat = gradients_of(&t.theta_hat);
    check(counts.trained_tokens == 77 && counts_hat.trained_tokens == 77, "%s: tokens of both are counted apart",
          family);
    for (int a = 0; a < 2; a++) {
        ParameterSet* set = a ? &t.theta_hat : &t.theta;
        gradients_zero(&t.theta, t.stream);
        gradients_zero(&t.theta_hat, t.stream);
        PassCounts alone = {};
        trainer_pass(&t, set, items, SAMPLES, 0, NULL, t.loss, true, &alone);
        losses_of(&t, one, unused);
        float *g_one = gradients_of(set), *other = gradients_of(a ? &t.theta : &t.theta_hat);
        double *expected = wide(g_one, n), *expected_loss = wide(one, SAMPLES);
        snprintf(name, sizeof name, "%s: gradients of %s in a shared pass are those of its own", family, set->symbol);
        compare(name, a ? g_hat : g, expected, n);
        snprintf(name, sizeof name, "%s: losses under %s", family, set->symbol);
        compare(name, a ? loss_hat : loss, expected_loss, SAMPLES);
        bool zero = true;
        for (int64_t i = 0; i < n; i++) zero &= other[i] == 0.0f;
        check(zero, "%s: the other adapter has no gradient then", family);
        free(g_one);
        free(other);
        free(expected);
        free(expected_loss);
    }
    check(fabs(loss[0] - loss_hat[0]) > 1e-4, "%s: the two adapters give different losses", family);
    trainer_pass_both(&again, items, SAMPLES, items, SAMPLES, NULL, &counts, &counts_hat);
    losses_of(&again, recomputed, unused);
    float *h = gradients_of(&again.theta), *h_hat = gradients_of(&again.theta_hat);
    check(!memcmp(h, g, n * sizeof(float)) && !memcmp(h_hat, g_hat, n * sizeof(float)) &&
              !memcmp(loss, recomputed, sizeof loss),
          "%s: recomputed activations give equal bits", family);
    free(g);
    free(g_hat);
    free(h);
    free(h_hat);
    trainer_free(&t);
    trainer_free(&again);
}

static floatX* weights_without_tails(const ParameterSet* set, size_t* n) {
    const ModelLayout* layout = set->layout;
    floatX* all = (floatX*)malloc(layout->n_elements * sizeof(floatX));
    size_t at = 0;
    cudaCheck(cudaDeviceSynchronize());
    cudaCheck(cudaMemcpy(all, set->weights, layout->n_elements * sizeof(floatX), cudaMemcpyDeviceToHost));
    for (int i = 0; i < layout->n_tensors; i++)
        for (int64_t r = 0; r < layout->tensors[i].rows; r++, at += layout->tensors[i].cols)
            memmove(all + at, all + layout->tensors[i].offset + r * layout->tensors[i].ld,
                    layout->tensors[i].cols * sizeof(floatX));
    *n = at * sizeof(floatX);
    return all;
}

// Five steps: the adapter learns, the base keeps its bits, and no buffer for its gradient was ever planned.
static void check_frozen(const char* family) {
    ModelConfig c = tiny(family);
    LoraSettings settings = lora_settings("all", 8, 8.0f);
    Trainer t;
    BatchItem items[SAMPLES];
    float first[SAMPLES], last[SAMPLES];
    size_t n;
    make_items(items, c.V);
    open_trainer(&t, &c, &settings, false, false);
    parameters_init(&t.theta, 9, true);  // B zero: the model begins as the base
    floatX* before = weights_without_tails(&t.base, &n);
    for (int step = 0; step < 5; step++) {
        PassCounts counts = {};
        gradients_zero(&t.theta, t.stream);
        trainer_pass(&t, &t.theta, items, SAMPLES, 0, NULL, t.loss, true, &counts);
        optimizer_step(&t.theta, &t.settings.adamw, 1e-2f, t.norms + NORM, t.norms + CLIP, t.stream);
        losses_of(&t, step ? last : first, NULL);
    }
    floatX* after = weights_without_tails(&t.base, &n);
    check(!memcmp(before, after, n), "%s: the base keeps its bits", family);
    check(last[0] < first[0] && last[2] < first[2], "%s: the adapter learns (%.4f to %.4f)", family, first[0], last[0]);
    check(!t.base.grads && !t.base.m &&
              t.plan.bytes[MEMORY_GRADIENTS] <= (size_t)t.lora.layout.n_elements * sizeof(float) + MEMORY_ALIGNMENT,
          "%s: only adapters have gradients", family);
    free(before);
    free(after);
    trainer_free(&t);

    LoraSettings none = {};
    float base[SAMPLES];
    Trainer plain;
    PassCounts counts = {};
    open_trainer(&plain, &c, &none, false, false);
    trainer_pass(&plain, &plain.theta, items, SAMPLES, 0, NULL, plain.loss, false, &counts);
    losses_of(&plain, base, NULL);
    double* expected = wide(base, SAMPLES);
    char name[128];
    snprintf(name, sizeof name, "%s: a new adapter changes nothing", family);
    compare(name, first, expected, SAMPLES);
    free(expected);
    trainer_free(&plain);
}

// ---------------------------------------------------------------------------------------------------
// a step of SEAL

// Algorithm 1 in one pass, as seal_step runs it with adapters, against the equations one after the other: θ̂'s pass and
// update, θ's, then ω's. γ 0 in the first step, where the fine-tuning samples run forward only under θ while θ̂ learns
// from them.
static void check_seal_step(const char* family) {
    enum { N = 12, B = 2, M = 2, STEPS = 3 };
    ModelConfig c = tiny(family);
    LoraSettings settings = lora_settings("all", 4, 6.0f);
    SelectorSettings adam = {SELECTOR_SOFTMAX, SELECTOR_ADAM, 0.9f, 0.95f, 1e-4f, 10.0f, 0.1f, 0.0f};
    BatchItem samples[SAMPLES], items[2 * B + M];
    make_items(samples, c.V);
    PackSample tune[B] = {samples[0].sample, samples[1].sample}, safe[M] = {samples[2].sample, samples[3].sample};
    Trainer t[2];
    Selector s[2];
    float omega[2][N], loss[2][STEPS][B + M], loss_hat[2][STEPS][B], norm[2][STEPS];
    for (int way = 0; way < 2; way++) {
        open_trainer(&t[way], &c, &settings, true, false);
        MemoryPlan plan = {};
        selector_plan(&s[way], &adam, N, B, &plan);
        memory_allocate(&plan);
        selector_bind(&s[way], t[way].stream);
        parameters_copy(&t[way].theta_hat, &t[way].theta, t[way].stream);
        for (int step = 0; step < STEPS; step++) {
            Trainer* x = &t[way];
            int rows[B] = {(2 * step) % N, (2 * step + 5) % N};
            float gamma = 0.3f * (float)step;
            if (way == 0) {
                SealBatch batch = {{tune, safe, B, M, NULL}, rows, gamma, 1e-3f, 2e-3f, 5e-3f, 1.0f};
                PassCounts passes[2] = {};
                seal_step(x, &s[way], 1, &batch, passes);
            } else {
                PassCounts counts = {};
                selector_weigh(&s[way], rows, B, x->stream);
                for (int i = 0; i < B; i++) {
                    items[i].sample = tune[i];
                    items[i].coefficient = 1.0f / B;
                }
                gradients_zero(&x->theta_hat, x->stream);
                trainer_pass(x, &x->theta_hat, items, B, B, s[way].sigma, x->loss_hat, true, &counts);
                optimizer_step(&x->theta_hat, &x->settings.adamw, 2e-3f, x->norms + NORM_HAT, x->norms + CLIP_HAT,
                               x->stream);
                for (int i = 0; i < B; i++) items[i].coefficient = gamma / B;
                for (int j = 0; j < M; j++) {
                    items[B + j].sample = safe[j];
                    items[B + j].coefficient = (1.0f - gamma) / M;
                }
                gradients_zero(&x->theta, x->stream);
                trainer_pass(x, &x->theta, items, B + M, B, s[way].sigma, x->loss, true, &counts);
                optimizer_step(&x->theta, &x->settings.adamw, 1e-3f, x->norms + NORM, x->norms + CLIP, x->stream);
                SelectorDelta delta = {x->loss, x->loss_hat, 1.0f, step == 0};
                selector_update(&s[way], &delta, B, 5e-3f, x->stream);
            }
            trainer_bring_back(x, 0);
            StepResult r = trainer_result(x, 0);
            memcpy(loss[way][step], r.loss, sizeof loss[way][step]);
            memcpy(loss_hat[way][step], r.loss_hat, sizeof loss_hat[way][step]);
            norm[way][step] = r.norm + r.norm_hat;
        }
        cudaCheck(cudaMemcpy(omega[way], s[way].omega, sizeof omega[way], cudaMemcpyDeviceToHost));
        selector_free(&s[way]);
        memory_free(&plan);
        trainer_free(&t[way]);
    }
    double worst_loss = 0, worst_omega = 0, worst_norm = 0, sum = 0;
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < B + M; i++) sum += loss[0][step][i] + loss_hat[0][step][i % B] + norm[0][step];
        for (int i = 0; i < B + M; i++) worst_loss = larger(worst_loss, fabs(loss[0][step][i] / loss[1][step][i] - 1));
        for (int i = 0; i < B; i++)
            worst_loss = larger(worst_loss, fabs(loss_hat[0][step][i] / loss_hat[1][step][i] - 1));
        worst_norm = larger(worst_norm, fabs(norm[0][step] / norm[1][step] - 1));
    }
    for (int i = 0; i < N; i++) worst_omega = larger(worst_omega, fabs(omega[0][i] - omega[1][i]));
    check(isfinite(sum) && worst_loss <= (bf16 ? 1e-2 : 1e-5),
          "%s: Algorithm 1 in one pass: losses within %.1e of separate passes", family, worst_loss);
    check(worst_norm <= (bf16 ? 2e-2 : 1e-5), "%s: gradient norms within %.1e", family, worst_norm);
    check(worst_omega <= (bf16 ? 5e-3 : 1e-5) && fabs(omega[1][0] - 0.1) > 1e-3,
          "%s: omega within %.1e (it moved by %.1e)", family, worst_omega, fabs(omega[1][0] - 0.1));
}

// ---------------------------------------------------------------------------------------------------
// memory

static size_t planned(const ModelConfig* c, const char* modules, int algorithm, int T, bool recompute) {
    Trainer t;
    TrainerSettings settings = {};
    settings.T = T;
    settings.head_rows = 1024;
    settings.batch_max = 128;
    settings.with_hat = algorithm == 1;
    settings.recompute = recompute;
    if (modules) settings.lora = lora_settings(modules, 16, 16.0f);
    trainer_plan(&t, c, &settings);
    size_t bytes = memory_total(&t.plan);
    trainer_plan_free(&t);
    return bytes;
}

static void check_memory(void) {
    ModelConfig c;
    model_config_defaults(&c, "llama");
    c.L = 32;
    c.C = 4096;
    c.NH = 32;
    c.NKV = 8;
    c.FF = 14336;
    c.V = 128256;
    c.max_positions = 8192;
    model_config_complete(&c, "llama-3-8b");
    const char* modules[] = {"q,v", "all"};
    for (int m = 0; m < 2; m++)
        for (int recompute = 0; recompute < 2; recompute++) {
            double one = (double)planned(&c, modules[m], 1, 4096, recompute),
                   two = (double)planned(&c, modules[m], 2, 4096, recompute);
            check(one <= 1.05 * two, "Llama-3-8B, LoRA on %s%s: Algorithm 1 plans %.2f GB, Algorithm 2 %.2f GB",
                  modules[m], recompute ? ", recomputed" : "", one / 1e9, two / 1e9);
        }
    if (!bf16) return;
    double small = (double)planned(&c, "q,v", 2, 4096, true), large = (double)planned(&c, "q,v", 2, 12288, false);
    check(small <= 24e9, "Llama-3-8B, LoRA on q,v, 4096 tokens, recomputed: %.2f GB fit 24 GB", small / 1e9);
    check(large <= 80e9, "Llama-3-8B, LoRA on q,v, 12288 tokens: %.2f GB fit 80 GB", large / 1e9);
}

static void check_allocated(void) {
    size_t before, after, total;
    ModelConfig c = tiny("llama");
    LoraSettings settings = lora_settings("q,v", 16, 16.0f);
    Trainer t;
    cudaCheck(cudaMemGetInfo(&before, &total));
    open_trainer(&t, &c, &settings, true, false);
    cudaCheck(cudaMemGetInfo(&after, &total));
    double plan = (double)memory_total(&t.plan), used = (double)(before - after);
#ifdef __CUDACC__
    double pages = (N_MEMORY_CLASSES + 1) * 2097152.0;  // a GPU gives whole pages
#else
    double pages = 0.0;
#endif
    check(fabs(used - plan) <= 0.01 * plan + pages, "%.2f MiB planned, %.2f MiB taken", plan / 1048576, used / 1048576);
    trainer_free(&t);
}

int main(void) {
    program_name = "test_lora";
    matmul_create();
    check_site("llama", "q,v", 16, 16.0f, true, SITE_QKV, 40, 16);
    check_site("llama", "q,k,v", 5, 12.0f, true, SITE_QKV, 40, 24);
    check_site("llama", "v", 8, 4.0f, false, SITE_QKV, 24, 24);
    check_site("llama", "all", 16, 16.0f, true, SITE_UP, 24, 8);
    check_site("gpt_neox", "all", 4, 8.0f, true, SITE_QKV, 24, 0);
    check_site("phi3", "gate", 12, 16.0f, false, SITE_UP, 16, 16);
    check_site("gpt2", "all", 8, 8.0f, true, SITE_DOWN, 32, 8);
    const char* families[] = {"gpt2", "llama", "mistral", "gpt_neox", "phi3"};
    for (int f = 0; f < 5; f++) {
        check_one_pass(families[f]);
        check_frozen(families[f]);
        check_seal_step(families[f]);
    }
    check_memory();
    check_allocated();
    return check_report();
}
