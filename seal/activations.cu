/*
The memory of the transformer's activations: one row per tensor of a layer, what all layers share, scratch. See
transformer.h.
*/
#include <string.h>
#include "activations.h"
#include "base/text.h"

// One row per activation of a layer: what it is called, where it goes, how wide, which type. `for_weight`: backward
// needs it only for the gradients of that site's weight or adapter, so that where there are none all layers share one.
typedef struct {
    const char* name;
    size_t offset;  // in LayerActivations
    enum {
        WIDTH_C,
        WIDTH_QKV,
        WIDTH_UP,
        WIDTH_SITE,
        WIDTH_1,
        WIDTH_NH,
        WIDTH_QK_HEADS
    } width;  // WIDTH_SITE: the row stride of `site`
    size_t element;
    Site site;
    bool for_weight;
    enum { EVERYWHERE, LAYERNORM, SEQUENTIAL, NORMED_AFTER, QK_NORM } where;
} LayerRow;
#define ROW(field, width, type, where) \
    { #field, offsetof(LayerActivations, field), LayerRow::width, sizeof(type), N_SITES, false, LayerRow::where }
#define INPUT(field, site, for_weight)                                                                     \
    {                                                                                                      \
#field, offsetof(LayerActivations, field), LayerRow::WIDTH_SITE, sizeof(floatX), site, for_weight, \
            LayerRow::EVERYWHERE                                                                           \
    }
static const LayerRow layer_rows[] = {
    INPUT(ln1, SITE_QKV, true),
    ROW(ln1_mean, WIDTH_1, float, LAYERNORM),
    ROW(ln1_rstd, WIDTH_1, float, EVERYWHERE),
    ROW(qkv, WIDTH_QKV, floatX, EVERYWHERE),
    ROW(qk_rstd, WIDTH_QK_HEADS, float, QK_NORM),
    INPUT(atty, SITE_ATTPROJ, false),
    ROW(lse, WIDTH_NH, float, EVERYWHERE),
    ROW(attproj, WIDTH_C, floatX, NORMED_AFTER),
    ROW(attproj_rstd, WIDTH_1, float, NORMED_AFTER),
    ROW(residual2, WIDTH_C, floatX, SEQUENTIAL),
    INPUT(ln2, SITE_UP, true),
    ROW(ln2_mean, WIDTH_1, float, LAYERNORM),
    ROW(ln2_rstd, WIDTH_1, float, EVERYWHERE),
    ROW(fch, WIDTH_UP, floatX, EVERYWHERE),
    INPUT(fch_act, SITE_DOWN, true),
    ROW(fcproj, WIDTH_C, floatX, NORMED_AFTER),
    ROW(fcproj_rstd, WIDTH_1, float, NORMED_AFTER),
};
#define N_LAYER_ROWS (sizeof layer_rows / sizeof *layer_rows)

static size_t width_of(const Transformer* t, const LayerRow* row) {
    const ModelConfig* c = &t->layout->config;
    switch (row->width) {
        case LayerRow::WIDTH_C: return c->C;
        case LayerRow::WIDTH_QKV: return qkv_width(c);
        case LayerRow::WIDTH_UP: return up_width(c);
        case LayerRow::WIDTH_SITE: return site_ld(t, row->site);
        case LayerRow::WIDTH_NH: return c->NH;
        case LayerRow::WIDTH_QK_HEADS: return c->qk_norm == QK_NORM_ALL ? 2 : c->NH + c->NKV;
        default: return 1;
    }
}
static bool exists(const Transformer* t, const LayerRow* row) {
    const ModelConfig* c = &t->layout->config;
    switch (row->where) {
        case LayerRow::LAYERNORM: return c->norm == NORM_LAYERNORM;
        case LayerRow::SEQUENTIAL: return !c->parallel_residual;
        case LayerRow::NORMED_AFTER: return normed_after(t);
        case LayerRow::QK_NORM: return c->qk_norm != QK_NORM_NONE;
        default: return true;
    }
}
static bool shared_by_layers(const Transformer* t, const LayerRow* row) {
    return t->lora && row->for_weight && !adapted(t, row->site);
}
static void** field_of(LayerActivations* a, const LayerRow* row) { return (void**)((char*)a + row->offset); }
static size_t most(size_t a, size_t b) { return a > b ? a : b; }

static void plan_layers(Transformer* t, MemoryPlan* plan) {
    const ModelConfig* c = &t->layout->config;
    size_t rows = t->T;
    for (int l = 0; l < t->n_residual_slots; l++)
        memory_add(plan, MEMORY_ACTIVATIONS, &t->residual[l], rows * c->C * sizeof(floatX), "residual %d", l);
    for (int l = 0; l < t->n_layer_slots; l++)
        for (size_t i = 0; i < N_LAYER_ROWS; i++) {
            const LayerRow* row = &layer_rows[i];
            if (!exists(t, row) || (l > 0 && shared_by_layers(t, row))) continue;
            memory_add(plan, MEMORY_ACTIVATIONS, field_of(&t->layers[l], row), rows * width_of(t, row) * row->element,
                       "%s %d", row->name, l);
        }
}

static void plan_scratch(Transformer* t, MemoryPlan* plan) {
    const ModelConfig* c = &t->layout->config;
    bool train = t->keep != KEEP_NOTHING, gated = mlp_gated(c), qk_norm = c->qk_norm != QK_NORM_NONE;
    size_t rows = t->T, X = sizeof(floatX), up = up_width(c), qkv = qkv_width(c), down_ld = site_ld(t, SITE_DOWN);
    size_t width_a = most(c->C, most(site_ld(t, SITE_QKV), site_ld(t, SITE_UP)));
    size_t width_b = most(most(c->C, site_ld(t, SITE_ATTPROJ)), c->parallel_residual ? site_ld(t, SITE_QKV) : 0);
    size_t norm = c->norm == NORM_LAYERNORM ? layernorm_scratch(c->C) : rmsnorm_scratch(c->C),
           of_qk = qk_norm ? qk_norm_scratch(c->NH, c->NKV, c->HS, c->qk_norm == QK_NORM_ALL) : 0,
           partial = most(most(matmul_bias_scratch((int)most(up, qkv)), norm), of_qk);
    memory_add(plan, MEMORY_SCRATCH, &t->logits, (size_t)t->head_rows * c->Vp * X, "logits");
    memory_add(plan, MEMORY_SCRATCH, &t->width_a, rows * (train ? width_a : c->C) * X, "width_a");
    memory_add(plan, MEMORY_SCRATCH, &t->width_b, train ? rows * width_b * X : 0, "width_b");
    memory_add(plan, MEMORY_SCRATCH, &t->dresidual, train ? rows * c->C * X : 0, "dresidual");
    memory_add(plan, MEMORY_SCRATCH, &t->dbranch, train && branch_changed(t) ? rows * c->C * X : 0, "dbranch");
    memory_add(plan, MEMORY_SCRATCH, &t->qkv_normed, qk_norm ? rows * qkv * X : 0, "qkv_normed");
    memory_add(plan, MEMORY_SCRATCH, &t->dqkv, train ? rows * qkv * X : 0, "dqkv");
    memory_add(plan, MEMORY_SCRATCH, &t->dfch, train ? rows * (gated ? up : down_ld) * X : 0, "dfch");
    memory_add(plan, MEMORY_SCRATCH, &t->dact, train && gated && adapted(t, SITE_DOWN) ? rows * down_ld * X : 0,
               "dact");
    memory_add(plan, MEMORY_SCRATCH, &t->delta, train ? rows * c->NH * sizeof(float) : 0, "delta");
    bool fp8 = t->layout->base == BASE_FP8;
    size_t widest = most(most(c->C, c->NH * c->HS), most(c->FF, train ? most(up, qkv) : 0));
    memory_add(plan, MEMORY_SCRATCH, &t->fp8_values, fp8 ? rows * widest : 0, "activations in fp8");
    memory_add(plan, MEMORY_SCRATCH, &t->fp8_scales, fp8 ? rows * sizeof(float) : 0, "their scales");
    memory_add(plan, MEMORY_SCRATCH, &t->partial, train && !t->lora ? partial * sizeof(float) : 0, "partial sums");
}

void transformer_plan(Transformer* t, const ModelLayout* layout, const Lora* lora, KeepMode keep, int T, int head_rows,
                      MemoryPlan* plan) {
    const ModelConfig* c = &layout->config;
    memset(t, 0, sizeof *t);
    t->layout = layout;
    t->lora = lora;
    t->keep = keep;
    T = (T + PACK_ROUND - 1) / PACK_ROUND * PACK_ROUND;  // the rows a pack of T tokens may have
    t->T = T;
    t->head_rows = head_rows < T ? head_rows : T;
    t->n_layer_slots = keep == KEEP_ALL ? c->L : 1;
    t->n_residual_slots = keep == KEEP_NOTHING ? 2 : c->L + 1;  // two: a layer reads one and writes the other
    t->layers = (LayerActivations*)host_alloc((size_t)t->n_layer_slots * sizeof *t->layers, "layers");
    t->residual = (floatX**)host_alloc((size_t)t->n_residual_slots * sizeof *t->residual, "layers");
    size_t rows = T;
    plan_layers(t, plan);
    memory_add(plan, MEMORY_ACTIVATIONS, &t->lnf, rows * c->C * sizeof(floatX), "lnf");
    memory_add(plan, MEMORY_ACTIVATIONS, &t->lnf_mean, c->norm == NORM_LAYERNORM ? rows * sizeof(float) : 0,
               "lnf_mean");
    memory_add(plan, MEMORY_ACTIVATIONS, &t->lnf_rstd, rows * sizeof(float), "lnf_rstd");
    memory_add(plan, MEMORY_ACTIVATIONS, &t->token_loss, rows * sizeof(float), "token_loss");
    memory_add(plan, MEMORY_SCRATCH, &t->bad_target, sizeof(BadTarget), "target outside the vocabulary");
    plan_scratch(t, plan);
    t->rope_positions = c->positions != POSITIONS_ROPE ? 0
                        : c->longest < T               ? c->longest
                                                       : T;  // a sample is no longer than either
    size_t table = (size_t)t->rope_positions * c->rope.rotary * sizeof(float);
    memory_add(plan, MEMORY_SCRATCH, &t->cos_sin, table, "rotary positions");
    memory_add(plan, MEMORY_SCRATCH, &t->cos_sin_local, c->rope_local.rotary ? table : 0,
               "rotary positions of layers with a window");
}

static void upload_rope(const RopeConfig* rope, int positions, float* device) {
    size_t bytes = (size_t)positions * rope->rotary * sizeof(float);
    float* table = (float*)host_alloc(bytes, "rotary positions");
    model_rope_table(rope, positions, table);
    cudaCheck(cudaMemcpy(device, table, bytes, cudaMemcpyHostToDevice));
    cudaCheck(cudaDeviceSynchronize());  // the trainer's stream does not wait for the default one
    free(table);
}

void transformer_bind(Transformer* t) {
    const ModelConfig* c = &t->layout->config;
    for (int l = 1; l < t->n_layer_slots; l++)
        for (size_t i = 0; i < N_LAYER_ROWS; i++)
            if (exists(t, &layer_rows[i]) && shared_by_layers(t, &layer_rows[i]))
                *field_of(&t->layers[l], &layer_rows[i]) = *field_of(&t->layers[0], &layer_rows[i]);
    const BadTarget none = NO_BAD_TARGET;
    cudaCheck(cudaMemcpy(t->bad_target, &none, sizeof none, cudaMemcpyHostToDevice));
    cudaCheck(cudaDeviceSynchronize());  // the trainer's stream does not wait for the default one
    if (!t->rope_positions) return;
    upload_rope(&c->rope, t->rope_positions, t->cos_sin);
    if (c->rope_local.rotary) upload_rope(&c->rope_local, t->rope_positions, t->cos_sin_local);
}

void transformer_free(Transformer* t) {
    free(t->layers);
    free(t->residual);
    memset(t, 0, sizeof *t);
}
