/*
What scores are made of, against PyTorch's per-sample autograd (dev/reference/record_scores.py) for a tiny model of
every family: products of single samples' gradients with a direction, their norms, over all linear layers, over some of
them and over adapters; the residual stream after each layer; losses with a layer scaled. And without a reference: one
sample alone has the gradient's own norm, packing and recomputation change nothing that they may not. test_scores
[NAME…]    names of dev/reference/golden/families
*/
#include "golden.h"
#include "peft.h"
#include "sample_gradients.h"

#define ROWS 4
static const int rows_of_batch[ROWS] = {0, 2, 3, 4}, safe[] = {0, 3}, harmful[] = {4};

typedef struct {
    const char* name;
    char directory[256];
    StReader recorded;
    GoldenBatch batch;
    Trainer trainer;
    SampleGradients gradients;
    float* tap;
} Model;

// The recorded tensor for this precision.
static const StTensor* recorded(const Model* m, const char* variant, const char* what) {
    char name[128];
    snprintf(name, sizeof name, "bf16.%s%s", variant, what);
    const StTensor* t = bf16 ? st_find(&m->recorded, name) : NULL;
    return t ? t : st_need(&m->recorded, name + 5);
}
static void compare(const Model* m, const char* variant, const char* what, const float* a, int64_t n) {
    char name[256];
    const StTensor* t = recorded(m, variant, what);
    float* narrow = (float*)malloc(t->count * sizeof(float));
    double* wide = (double*)malloc(t->count * sizeof(double));
    st_to_float(&m->recorded, t, 0, t->count, narrow);
    for (int64_t i = 0; i < t->count; i++) wide[i] = narrow[i];
    snprintf(name, sizeof name, "%s %s%s", m->name, variant, what);
    if (t->count != n) check(0, "%s: %lld numbers, %lld recorded", name, (long long)n, (long long)t->count);
    else if (bf16) check_cosine(name, a, wide, n);
    else check_close(name, a, wide, n, 1e-5);
    free(narrow);
    free(wide);
}

typedef struct {
    const char* matrices;
    const char* adapter;  // folder of the family's; NULL: none
    bool products, norms, recompute;
    int T;
} How;

static void open_model(Model* m, const char* name, const How* how) {
    char path[512];
    ModelConfig config;
    memset(m, 0, sizeof *m);
    m->name = name;
    snprintf(m->directory, sizeof m->directory, "dev/reference/golden/families/%s", name);
    snprintf(path, sizeof path, "dev/reference/golden/scores/%s.safetensors", name);
    st_open(&m->recorded, path);
    Golden golden;
    golden_open(&golden, m->directory);
    golden_batch(&m->batch, &golden);
    golden_close(&golden);
    model_config_read(&config, m->directory);
    TrainerSettings settings = golden_settings(&m->batch, how->T, how->recompute);
    settings.forward_only = settings.backward = true;
    settings.gradients = how->products;
    snprintf(path, sizeof path, "%s/%s", m->directory, how->adapter ? how->adapter : "");
    if (how->adapter) peft_settings(path, &config, &settings.lora);
    Trainer* t = &m->trainer;
    trainer_plan(t, &config, &settings);
    sample_gradients_plan(&m->gradients, &t->layout, t->with_lora ? &t->lora : NULL, how->matrices, how->products,
                          how->norms, t->transformer.T, settings.batch_max, &t->plan);
    memory_add(&t->plan, MEMORY_SCRATCH, &m->tap, (size_t)settings.batch_max * config.C * sizeof(float), "tap");
    trainer_allocate(t);
    trainer_load(t, m->directory, how->adapter ? path : NULL, 0, true);
}
static void close_model(Model* m) {
    trainer_free(&m->trainer);
    golden_batch_free(&m->batch);
    st_close(&m->recorded);
}

static void fill(const Model* m, BatchItem* items, const int* rows, int n, float coefficient) {
    for (int i = 0; i < n; i++) items[i] = {m->batch.items[rows[i]].sample, coefficient};
}

// The direction in θ's gradients: mean over `safe`, minus mean over `harmful`.
static double find_direction(Model* m) {
    Trainer* t = &m->trainer;
    BatchItem items[ROWS];
    PassCounts counts = {};
    gradients_zero(&t->theta, t->stream);
    fill(m, items, safe, 2, 0.5f);
    trainer_pass(t, &t->theta, items, 2, 0, NULL, t->loss, true, &counts);
    fill(m, items, harmful, 1, -1.0f);
    trainer_pass(t, &t->theta, items, 1, 0, NULL, t->loss, true, &counts);
    m->gradients.direction = &t->theta;
    return sample_gradients_norm(&m->gradients);
}

// product, norm, loss (n) of these rows of the batch.
static void measure(Model* m, const int* rows, int n, float* product, float* norm, float* loss) {
    Trainer* t = &m->trainer;
    BatchItem items[ROWS];
    PassCounts counts = {};
    ParameterSet frozen = t->theta;
    frozen.grads = NULL;
    fill(m, items, rows, n, 1.0f);
    t->transformer.samples = &m->gradients;
    sample_gradients_zero(&m->gradients, t->stream);
    trainer_pass(t, &frozen, items, n, 0, NULL, t->loss, true, &counts);
    t->transformer.samples = NULL;
    cudaCheck(cudaStreamSynchronize(t->stream));
    if (product) cudaCheck(cudaMemcpy(product, m->gradients.product, n * sizeof(float), cudaMemcpyDeviceToHost));
    if (norm) cudaCheck(cudaMemcpy(norm, m->gradients.square, n * sizeof(float), cudaMemcpyDeviceToHost));
    if (loss) cudaCheck(cudaMemcpy(loss, t->loss, n * sizeof(float), cudaMemcpyDeviceToHost));
    for (int i = 0; i < n && norm; i++) norm[i] = sqrtf(norm[i]);
}

static void check_gradients(const char* name, const char* variant, const How* how) {
    Model m;
    float product[ROWS], norm[ROWS], loss[ROWS], again[2 * ROWS];
    open_model(&m, name, how);
    float of_direction = (float)find_direction(&m);
    measure(&m, rows_of_batch, ROWS, product, norm, loss);
    compare(&m, variant, "direction_norm", &of_direction, 1);
    // bf16: two gradients, each within its percent, multiplied, and terms that cancel
    double limit = check_norm_limit;
    check_norm_limit = 0.03;
    compare(&m, variant, "product", product, ROWS);
    check_norm_limit = limit;
    compare(&m, variant, "norm", norm, ROWS);
    if (!how->adapter) compare(&m, "", "loss", loss, ROWS);
    float cosine[ROWS], expected[ROWS], g;
    st_to_float(&m.recorded, recorded(&m, variant, "product"), 0, ROWS, expected);
    st_to_float(&m.recorded, recorded(&m, variant, "direction_norm"), 0, 1, &g);
    st_to_float(&m.recorded, recorded(&m, variant, "norm"), 0, ROWS, cosine);
    double worst = 0.0;
    for (int i = 0; i < ROWS; i++)
        worst = larger(worst, fabs(product[i] / (norm[i] * of_direction) - expected[i] / ((double)cosine[i] * g)));
    check(worst <= (bf16 ? 0.03 : 1e-5), "%s %scosines within %.1e", name, variant, worst);
    measure(&m, rows_of_batch, ROWS, again, again + ROWS, NULL);
    check(!memcmp(again, product, sizeof product) && !memcmp(again + ROWS, norm, sizeof norm),
          "%s %sthe same bits again: the direction is untouched", name, variant);
    close_model(&m);
}

// What needs no reference: a sample alone, as the only direction, gives its own squared norm.
static void check_alone(const char* name) {
    Model m;
    const How how = {"all", NULL, true, true, false, 128};
    float product, norm, packed[ROWS];
    open_model(&m, name, &how);
    Trainer* t = &m.trainer;
    BatchItem item;
    PassCounts counts = {};
    gradients_zero(&t->theta, t->stream);
    fill(&m, &item, safe + 1, 1, 1.0f);
    trainer_pass(t, &t->theta, &item, 1, 0, NULL, t->loss, true, &counts);
    m.gradients.direction = &t->theta;
    double whole = sample_gradients_norm(&m.gradients);
    measure(&m, safe + 1, 1, &product, &norm, NULL);
    double allowed = bf16 ? 0.01 : 1e-5;
    check(fabs(norm - whole) <= allowed * whole && fabs(product - whole * whole) <= 2 * allowed * whole * whole,
          "%s: a sample against itself: norm %.7g and product %.7g, its gradient's norm is %.7g", name, norm, product,
          whole);
    measure(&m, rows_of_batch, ROWS, NULL, packed, NULL);
    check(fabs(packed[2] - norm) <= allowed * norm, "%s: the same among others in a pack", name);
    close_model(&m);
}

static void check_layers(const char* name) {
    Model m;
    const How how = {"all", NULL, false, false, false, 128};
    open_model(&m, name, &how);
    Trainer* t = &m.trainer;
    int C = t->layout.config.C, L = t->layout.config.L;
    BatchItem items[ROWS];
    PassCounts counts = {};
    float *hidden = (float*)malloc((size_t)ROWS * C * sizeof(float)), loss[ROWS], plain[ROWS];
    char what[32];
    fill(&m, items, rows_of_batch, ROWS, 0.0f);
    trainer_pass(t, &t->theta, items, ROWS, 0, NULL, t->loss, false, &counts);
    trainer_bring_back(t, 0);
    memcpy(plain, trainer_result(t, 0).loss, sizeof plain);
    for (int l = 1; l <= L; l++) {
        t->transformer.tap = m.tap;
        t->transformer.tap_layer = l;
        trainer_pass(t, &t->theta, items, ROWS, 0, NULL, t->loss, false, &counts);
        t->transformer.tap_layer = 0;
        cudaCheck(cudaStreamSynchronize(t->stream));
        cudaCheck(cudaMemcpy(hidden, m.tap, (size_t)ROWS * C * sizeof(float), cudaMemcpyDeviceToHost));
        snprintf(what, sizeof what, "hidden.%d", l);
        compare(&m, "", what, hidden, (int64_t)ROWS * C);
        t->transformer.scaled_layer = l;
        t->transformer.layer_scale = 0.8f;
        trainer_pass(t, &t->theta, items, ROWS, 0, NULL, t->loss, false, &counts);
        t->transformer.scaled_layer = 0;
        trainer_bring_back(t, 0);
        memcpy(loss, trainer_result(t, 0).loss, sizeof loss);
        snprintf(what, sizeof what, "scaled.%d", l);
        compare(&m, "", what, loss, ROWS);
    }
    trainer_pass(t, &t->theta, items, ROWS, 0, NULL, t->loss, false, &counts);
    trainer_bring_back(t, 0);
    check(!memcmp(plain, trainer_result(t, 0).loss, sizeof plain), "%s: afterwards the losses are what they were",
          name);
    free(hidden);
    close_model(&m);
}

int main(int argc, char** argv) {
    static const char* const names[] = {"gpt2",      "gpt_neox",       "gpt_neox_sequential",
                                        "llama",     "llama_tied",     "llama_yarn",
                                        "mistral",   "mistral_window", "phi3",
                                        "phi4_mini", "qwen2",          "qwen3",
                                        "smollm3",   "granite",        "olmo2",
                                        "olmo3",     "gemma2",         "gemma3"};
    program_name = "test_scores";
    int n = argc > 1 ? argc - 1 : (int)(sizeof names / sizeof *names);
    for (int i = 0; i < n; i++) {
        const char* name = argc > 1 ? argv[i + 1] : names[i];
        const How all = {"all", NULL, true, true, false, 128}, some = {"q,v", NULL, true, true, true, 80},
                  some_adapters = {"all", "lora_qv", true, true, false, 128},
                  adapters = {"all", "lora_all", true, true, true, 80};
        check_gradients(name, "all.", &all);
        check_gradients(name, "q,v.", &some);
        check_gradients(name, "lora_qv.", &some_adapters);
        check_gradients(name, "lora_all.", &adapters);
        check_layers(name);
    }
    check_alone("llama");
    return check_report();
}
