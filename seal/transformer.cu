/*
Forward and backward of the transformer, one launcher after the other, in the order of the mathematics. The residual
stream and each norm that follows it are one kernel; a layer therefore begins with its ln1 already there, written by the
layer before. What families differ in is decided in five places: the norm, the rotary positions, the MLP's activation,
the parallel residual, and which weights have a bias.
*/
#include <string.h>
#include "kernels.h"
#include "base/error.h"
#include "base/text.h"
#include "transformer.h"

// ---------------------------------------------------------------------------------------------------
// memory

static LayerActivations* slot_of(const Transformer* t, int l) { return &t->layers[l % t->n_layer_slots]; }
static floatX* residual_of(const Transformer* t, int l) { return t->residual[l % t->n_residual_slots]; }
static int qkv_width(const ModelConfig* c) { return (c->NH + 2 * c->NKV) * c->HS; }
static int up_width(const ModelConfig* c) { return c->mlp == MLP_SWIGLU ? 2 * c->FF : c->FF; }
// A site's input width, and its row stride, which is its weight's.
static const ModelTensor* site_tensor(const Transformer* t, Site site) {
    return &t->layout->tensors[tensor_index(t->layout, site_weight(site), 0)];
}
static int site_cols(const Transformer* t, Site site) { return (int)site_tensor(t, site)->cols; }
static int site_ld(const Transformer* t, Site site) { return (int)site_tensor(t, site)->ld; }
static bool adapted(const Transformer* t, Site site) { return t->lora && t->lora->sites[site].n; }

// One row per activation of a layer: what it is called, where it goes, how wide, which type. `for_weight`: backward
// needs it only for the gradients of that site's weight or adapter, so that where there are none all layers share one.
typedef struct {
    const char* name;
    size_t offset;                                                               // in LayerActivations
    enum { WIDTH_C, WIDTH_QKV, WIDTH_UP, WIDTH_SITE, WIDTH_1, WIDTH_NH } width;  // WIDTH_SITE: the row stride of `site`
    size_t element;
    Site site;
    bool for_weight;
    enum { EVERYWHERE, LAYERNORM, SEQUENTIAL } where;
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
    INPUT(atty, SITE_ATTPROJ, false),
    ROW(lse, WIDTH_NH, float, EVERYWHERE),
    ROW(residual2, WIDTH_C, floatX, SEQUENTIAL),
    INPUT(ln2, SITE_UP, true),
    ROW(ln2_mean, WIDTH_1, float, LAYERNORM),
    ROW(ln2_rstd, WIDTH_1, float, EVERYWHERE),
    ROW(fch, WIDTH_UP, floatX, EVERYWHERE),
    INPUT(fch_act, SITE_DOWN, true),
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
        default: return 1;
    }
}
static bool exists(const ModelConfig* c, const LayerRow* row) {
    return row->where == LayerRow::EVERYWHERE || (row->where == LayerRow::LAYERNORM && c->norm == NORM_LAYERNORM) ||
           (row->where == LayerRow::SEQUENTIAL && !c->parallel_residual);
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
        memory_add(plan, MEMORY_ACTIVATIONS, (void**)&t->residual[l], rows * c->C * sizeof(floatX), "residual %d", l);
    for (int l = 0; l < t->n_layer_slots; l++)
        for (size_t i = 0; i < N_LAYER_ROWS; i++) {
            const LayerRow* row = &layer_rows[i];
            if (!exists(c, row) || (l > 0 && shared_by_layers(t, row))) continue;
            memory_add(plan, MEMORY_ACTIVATIONS, field_of(&t->layers[l], row), rows * width_of(t, row) * row->element,
                       "%s %d", row->name, l);
        }
}

static void plan_scratch(Transformer* t, MemoryPlan* plan) {
    const ModelConfig* c = &t->layout->config;
    bool train = t->keep != KEEP_NOTHING, gated = c->mlp == MLP_SWIGLU;
    size_t rows = t->T, X = sizeof(floatX), up = up_width(c), qkv = qkv_width(c), down_ld = site_ld(t, SITE_DOWN);
    size_t width_a = most(c->C, most(site_ld(t, SITE_QKV), site_ld(t, SITE_UP)));
    size_t width_b = most(most(c->C, site_ld(t, SITE_ATTPROJ)), c->parallel_residual ? site_ld(t, SITE_QKV) : 0);
    size_t norm = c->norm == NORM_LAYERNORM ? layernorm_scratch(c->C) : rmsnorm_scratch(c->C),
           partial = most(matmul_bias_scratch((int)most(up, qkv)), norm);
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->logits, (size_t)t->head_rows * c->Vp * X, "logits");
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->width_a, rows * (train ? width_a : c->C) * X, "width_a");
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->width_b, train ? rows * width_b * X : 0, "width_b");
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->dresidual, train ? rows * c->C * X : 0, "dresidual");
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->dqkv, train ? rows * qkv * X : 0, "dqkv");
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->dfch, train ? rows * (gated ? up : down_ld) * X : 0, "dfch");
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->dact, train && gated && adapted(t, SITE_DOWN) ? rows * down_ld * X : 0,
               "dact");
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->delta, train ? rows * c->NH * sizeof(float) : 0, "delta");
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->partial, train && !t->lora ? partial * sizeof(float) : 0,
               "partial sums");
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
    memory_add(plan, MEMORY_ACTIVATIONS, (void**)&t->lnf, rows * c->C * sizeof(floatX), "lnf");
    memory_add(plan, MEMORY_ACTIVATIONS, (void**)&t->lnf_mean, c->norm == NORM_LAYERNORM ? rows * sizeof(float) : 0,
               "lnf_mean");
    memory_add(plan, MEMORY_ACTIVATIONS, (void**)&t->lnf_rstd, rows * sizeof(float), "lnf_rstd");
    memory_add(plan, MEMORY_ACTIVATIONS, (void**)&t->token_loss, rows * sizeof(float), "token_loss");
    plan_scratch(t, plan);
    t->rope_positions = c->positions != POSITIONS_ROPE ? 0
                        : c->longest < T               ? c->longest
                                                       : T;  // a sample is no longer than either
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->cos_sin, (size_t)t->rope_positions * c->rope.rotary * sizeof(float),
               "rotary positions");
}

void transformer_bind(Transformer* t) {
    const ModelConfig* c = &t->layout->config;
    for (int l = 1; l < t->n_layer_slots; l++)
        for (size_t i = 0; i < N_LAYER_ROWS; i++)
            if (exists(c, &layer_rows[i]) && shared_by_layers(t, &layer_rows[i]))
                *field_of(&t->layers[l], &layer_rows[i]) = *field_of(&t->layers[0], &layer_rows[i]);
    if (!t->rope_positions) return;
    size_t bytes = (size_t)t->rope_positions * c->rope.rotary * sizeof(float);
    float* table = (float*)host_alloc(bytes, "rotary positions");
    model_rope_table(c, t->rope_positions, table);
    cudaCheck(cudaMemcpy(t->cos_sin, table, bytes, cudaMemcpyHostToDevice));
    cudaCheck(cudaDeviceSynchronize());  // the trainer's stream does not wait for the default one
    free(table);
}

void transformer_free(Transformer* t) {
    free(t->layers);
    free(t->residual);
    memset(t, 0, sizeof *t);
}

// ---------------------------------------------------------------------------------------------------
// norms and linear layers

// A norm of the model: its output, statistics and parameters.
typedef struct {
    floatX* out;  // (T, C; ld)
    int ld;
    float *mean, *rstd;
    TensorKind weight, bias;
    int layer;
} Norm;

static Norm ln1_of(const Transformer* t, int l) {
    LayerActivations* a = slot_of(t, l);
    return {a->ln1, site_ld(t, SITE_QKV), a->ln1_mean, a->ln1_rstd, LN1W, LN1B, l};
}
static Norm ln2_of(const Transformer* t, int l) {
    LayerActivations* a = slot_of(t, l);
    return {a->ln2, site_ld(t, SITE_UP), a->ln2_mean, a->ln2_rstd, LN2W, LN2B, l};
}
static Norm lnf_of(const Transformer* t) {
    return {t->lnf, t->layout->config.C, t->lnf_mean, t->lnf_rstd, LNFW, LNFB, 0};
}

static void norm_forward(const Transformer* t, const ParameterSet* p, Norm n, const floatX* inp, int T,
                         cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    if (c->norm == NORM_RMSNORM)
        rmsnorm_forward({.out = n.out,
                         .rstd = n.rstd,
                         .inp1 = inp,
                         .weight = weight(p, n.weight, n.layer),
                         .T = T,
                         .C = c->C,
                         .ldo = n.ld,
                         .eps = c->norm_eps},
                        stream);
    else
        layernorm_forward({.out = n.out,
                           .mean = n.mean,
                           .rstd = n.rstd,
                           .inp1 = inp,
                           .weight = weight(p, n.weight, n.layer),
                           .bias = weight(p, n.bias, n.layer),
                           .T = T,
                           .C = c->C,
                           .ldo = n.ld,
                           .eps = c->norm_eps},
                          stream);
}

// residual = inp1 + inp2, and its norm.
static void residual_norm_forward(const Transformer* t, const ParameterSet* p, Norm n, floatX* residual,
                                  const floatX* inp1, const floatX* inp2, int T, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    if (c->norm == NORM_RMSNORM)
        fused_residual_rmsnorm_forward({.out = n.out,
                                        .rstd = n.rstd,
                                        .inp1 = inp1,
                                        .weight = weight(p, n.weight, n.layer),
                                        .T = T,
                                        .C = c->C,
                                        .ldo = n.ld,
                                        .eps = c->norm_eps,
                                        .residual = residual,
                                        .inp2 = inp2},
                                       stream);
    else
        fused_residual_layernorm_forward({.out = n.out,
                                          .mean = n.mean,
                                          .rstd = n.rstd,
                                          .inp1 = inp1,
                                          .weight = weight(p, n.weight, n.layer),
                                          .bias = weight(p, n.bias, n.layer),
                                          .T = T,
                                          .C = c->C,
                                          .ldo = n.ld,
                                          .eps = c->norm_eps,
                                          .residual = residual,
                                          .inp2 = inp2},
                                         stream);
}

// dinp += gradient through the norm of inp; dout has the row stride of the norm's output.
static void norm_backward(const Transformer* t, const ParameterSet* p, Norm n, floatX* dinp, const floatX* dout,
                          const floatX* inp, int T, cudaStream_t stream) {
    float *dw = gradient(p, n.weight, n.layer), *db = gradient(p, n.bias, n.layer);
    const floatX* w = weight(p, n.weight, n.layer);
    int C = t->layout->config.C;
    if (t->layout->config.norm == NORM_RMSNORM)
        rmsnorm_backward({.dinp = dinp,
                          .dweight = dw,
                          .scratch = t->partial,
                          .dout = dout,
                          .inp = inp,
                          .weight = w,
                          .rstd = n.rstd,
                          .T = T,
                          .C = C,
                          .ldd = n.ld},
                         stream);
    else
        layernorm_backward({.dinp = dinp,
                            .dweight = dw,
                            .dbias = db,
                            .scratch = t->partial,
                            .dout = dout,
                            .inp = inp,
                            .weight = w,
                            .mean = n.mean,
                            .rstd = n.rstd,
                            .T = T,
                            .C = C,
                            .ldd = n.ld},
                           stream);
}

// The adapters' part of a site's input.
static void fill_tail(const Transformer* t, const DevicePack* s, Site site, int l, floatX* inp, cudaStream_t stream) {
    if (adapted(t, site)) lora_forward(t->lora, site, l, inp, site_cols(t, site), s->T, s->split, stream);
}

// out (T, OC; ldo) = inp · weightᵀ + bias of a site, adapters included: they write into the tail of inp. pre_gelu as
// matmul_forward's; add: out +=.
static void linear_forward(const Transformer* t, const ParameterSet* p, const DevicePack* s, Site site, int l,
                           floatX* out, int ldo, floatX* pre_gelu, floatX* inp, bool add, cudaStream_t stream) {
    int ld = site_ld(t, site), OC = (int)site_tensor(t, site)->rows;
    fill_tail(t, s, site, l, inp, stream);
    const floatX *w = weight(p, site_weight(site), l), *b = weight(p, site_bias(site), l);
    if (add)
        matmul_forward_add(out, inp, w, b, {.T = s->T, .C = ld, .OC = OC, .ldo = ldo, .ldi = ld, .ldw = ld}, stream);
    else
        matmul_forward(out, pre_gelu, inp, w, b, {.T = s->T, .C = ld, .OC = OC, .ldo = ldo, .ldi = ld, .ldw = ld},
                       stream);
}

// dinp (T, ld of the site) = gradient of its input, tail included, and the gradients of what is trained there. dout (T,
// OC; ldd). pre_gelu: as matmul_backward_input's, for a site without an adapter.
static void linear_backward(const Transformer* t, const ParameterSet* p, const DevicePack* s, Site site, int l,
                            floatX* dinp, const floatX* dout, int ldd, const floatX* pre_gelu, const floatX* inp,
                            cudaStream_t stream) {
    int ld = site_ld(t, site), OC = (int)site_tensor(t, site)->rows;
    float *dw = gradient(p, site_weight(site), l), *db = gradient(p, site_bias(site), l);
    if (dw) matmul_backward_weight(dw, dout, inp, s->T, ld, OC, ld, ldd, stream);
    if (db) matmul_backward_bias(db, t->partial, dout, s->T, OC, ldd, stream);
    matmul_backward_input(dinp, dout, weight(p, site_weight(site), l), pre_gelu,
                          {.T = s->T, .C = ld, .OC = OC, .ldo = ldd, .ldi = ld, .ldw = ld}, false, stream);
    if (adapted(t, site))
        lora_backward(t->lora, site, l, dinp, dout, ldd, inp, site_cols(t, site), s->T, s->split, stream);
}

// ---------------------------------------------------------------------------------------------------
// forward

// The attention of a pass over texts that are being generated: keys and values go to the cache; a pass of one token a
// sequence reads them from there.
static void cached_attention(Transformer* t, const DevicePack* s, int l, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    const KvCache* cache = t->cache;
    LayerActivations* a = slot_of(t, l);
    int qkv = qkv_width(c), ldo = site_ld(t, SITE_ATTPROJ);
    floatX *keys = cache->keys + (size_t)l * cache->rows * c->NKV * c->HS,
           *values = cache->values + (size_t)l * cache->rows * c->NKV * c->HS;
    cache_store(keys, values, a->qkv, cache->row, s->T, c->NH, c->NKV, c->HS, qkv, stream);
    if (cache->n)
        decode_attention(a->atty,
                         {.qkv = a->qkv,
                          .keys = keys,
                          .values = values,
                          .first = cache->first,
                          .length = cache->length,
                          .scratch = cache->scratch,
                          .longest = cache->longest,
                          .n = cache->n,
                          .NH = c->NH,
                          .NKV = c->NKV,
                          .HS = c->HS,
                          .ldq = qkv,
                          .ldo = ldo,
                          .scale = c->attention_scale},
                         stream);
    else
        attention_forward(a->atty, a->lse,
                          {.qkv = a->qkv,
                           .cu_seqlens = s->cu_seqlens,
                           .tiles = s->tiles,
                           .n_tiles = s->n_tiles,
                           .T = s->T,
                           .NH = c->NH,
                           .NKV = c->NKV,
                           .HS = c->HS,
                           .ldq = qkv,
                           .ldo = ldo,
                           .scale = c->attention_scale},
                          stream);
}

// From ln1 to the attention's output. Where the residual is parallel the MLP's norm reads the same input.
static void attention_block(Transformer* t, const ParameterSet* p, const DevicePack* s, int l, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    int T = s->T, qkv = qkv_width(c);
    linear_forward(t, p, s, SITE_QKV, l, a->qkv, qkv, NULL, a->ln1, false, stream);
    if (c->positions == POSITIONS_ROPE)
        rope_forward(a->qkv, s->positions, t->cos_sin, T, c->NH, c->NKV, c->HS, c->rope.rotary, qkv, stream);
    if (t->cache) cached_attention(t, s, l, stream);
    else
        attention_forward(a->atty, a->lse,
                          {.qkv = a->qkv,
                           .cu_seqlens = s->cu_seqlens,
                           .tiles = s->tiles,
                           .n_tiles = s->n_tiles,
                           .T = T,
                           .NH = c->NH,
                           .NKV = c->NKV,
                           .HS = c->HS,
                           .ldq = qkv,
                           .ldo = site_ld(t, SITE_ATTPROJ),
                           .scale = c->attention_scale},
                          stream);
    if (c->parallel_residual) norm_forward(t, p, ln2_of(t, l), residual_of(t, l), T, stream);
}

// The attention's projection; then the residual and ln2, or, where the residual is parallel, nothing until the MLP's
// output joins it.
static void attention_out(Transformer* t, const ParameterSet* p, const DevicePack* s, int l, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    linear_forward(t, p, s, SITE_ATTPROJ, l, t->width_a, c->C, NULL, a->atty, false, stream);
    if (!c->parallel_residual)
        residual_norm_forward(t, p, ln2_of(t, l), a->residual2, residual_of(t, l), t->width_a, s->T, stream);
}

// From ln2 to the activation of the MLP.
static void mlp_block(Transformer* t, const ParameterSet* p, const DevicePack* s, int l, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    int T = s->T, FF = c->FF, ldo = site_ld(t, SITE_DOWN);
    if (c->mlp == MLP_GELU_TANH) {
        linear_forward(t, p, s, SITE_UP, l, a->fch_act, ldo, a->fch, a->ln2, false, stream);
        return;
    }
    linear_forward(t, p, s, SITE_UP, l, a->fch, up_width(c), NULL, a->ln2, false, stream);
    if (c->mlp == MLP_SWIGLU) swiglu_forward(a->fch_act, a->fch, T, FF, ldo, stream);
    else gelu_erf_forward(a->fch_act, a->fch, T, FF, ldo, stream);
}

// The MLP's output, the residual, and the norm that comes next: the following layer's ln1, or lnf.
static void mlp_out(Transformer* t, const ParameterSet* p, const DevicePack* s, int l, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    linear_forward(t, p, s, SITE_DOWN, l, t->width_a, c->C, NULL, a->fch_act, c->parallel_residual, stream);
    Norm next = l + 1 == c->L ? lnf_of(t) : ln1_of(t, l + 1);
    residual_norm_forward(t, p, next, residual_of(t, l + 1), c->parallel_residual ? residual_of(t, l) : a->residual2,
                          t->width_a, s->T, stream);
}

void transformer_forward(Transformer* t, const ParameterSet* p, const DevicePack* s, cudaStream_t stream) {
    NVTX_RANGE("forward");
    const ModelConfig* c = &t->layout->config;
    if (s->T > t->T) program_error("a pack of %d tokens exceeds the plan for %d", s->T, t->T);
    embedding_forward(residual_of(t, 0), s->tokens, s->positions, weight(p, WTE, 0), weight(p, WPE, 0), s->T, c->C,
                      stream);
    norm_forward(t, p, ln1_of(t, 0), residual_of(t, 0), s->T, stream);
    for (int l = 0; l < c->L; l++) {
        NVTX_RANGE("layer");
        attention_block(t, p, s, l, stream);
        attention_out(t, p, s, l, stream);
        mlp_block(t, p, s, l, stream);
        mlp_out(t, p, s, l, stream);
    }
}

// ---------------------------------------------------------------------------------------------------
// the weighted loss

void transformer_loss(Transformer* t, const ParameterSet* p, const DevicePack* s, float* sample_loss,
                      float* sample_loss_hat, bool backward, cudaStream_t stream) {
    NVTX_RANGE("loss");
    const ModelConfig* c = &t->layout->config;
    TensorKind head = c->tied_head ? WTE : HEADW;
    floatX* hidden = t->width_a;   // (n, C)
    floatX* dhidden = t->width_b;  // (n, C)
    gather_rows(hidden, t->lnf, s->loss_rows, s->n_loss_padded, c->C, c->C, stream);
    for (int i = 0; i < s->n_loss_padded; i += t->head_rows) {
        int n = s->n_loss_padded - i < t->head_rows ? s->n_loss_padded - i : t->head_rows;
        floatX* x = hidden + (size_t)i * c->C;
        matmul_forward(t->logits, NULL, x, weight(p, head, 0), NULL,
                       {.T = n, .C = c->C, .OC = c->Vp, .ldo = c->Vp, .ldi = c->C, .ldw = c->C}, stream);
        cross_entropy(t->logits, t->token_loss + i, s->targets + i, backward ? s->weight + i : NULL, n, c->V, c->Vp,
                      stream);
        if (!backward) continue;
        matmul_backward_input(dhidden + (size_t)i * c->C, t->logits, weight(p, head, 0), NULL,
                              {.T = n, .C = c->C, .OC = c->Vp, .ldo = c->Vp, .ldi = c->C, .ldw = c->C}, false, stream);
        if (gradient(p, head, 0))
            matmul_backward_weight(gradient(p, head, 0), t->logits, x, n, c->C, c->Vp, c->C, c->Vp, stream);
    }
    sample_losses(sample_loss, t->token_loss, s->loss_start, s->place, s->n_first, stream);
    if (s->n_first == s->n_samples) return;
    sample_losses(sample_loss_hat, t->token_loss, s->loss_start + s->n_first, s->place + s->n_first,
                  s->n_samples - s->n_first, stream);
}

void transformer_logits(Transformer* t, const ParameterSet* p, const int* rows, int n, float* logits,
                        cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    floatX* out = (floatX*)host_alloc((size_t)t->head_rows * c->Vp * sizeof(floatX), "logits");
    int* device_rows = NULL;
    cudaCheck(cudaMalloc((void**)&device_rows, (size_t)n * sizeof(int)));
    cudaCheck(cudaMemcpyAsync(device_rows, rows, (size_t)n * sizeof(int), cudaMemcpyHostToDevice, stream));
    gather_rows(t->width_a, t->lnf, device_rows, n, c->C, c->C, stream);
    for (int i = 0; i < n; i += t->head_rows) {
        int m = n - i < t->head_rows ? n - i : t->head_rows;
        matmul_forward(t->logits, NULL, t->width_a + (size_t)i * c->C, weight(p, c->tied_head ? WTE : HEADW, 0), NULL,
                       {.T = m, .C = c->C, .OC = c->Vp, .ldo = c->Vp, .ldi = c->C, .ldw = c->C}, stream);
        cudaCheck(cudaMemcpyAsync(out, t->logits, (size_t)m * c->Vp * sizeof(floatX), cudaMemcpyDeviceToHost, stream));
        cudaCheck(cudaStreamSynchronize(stream));
        for (int r = 0; r < m; r++)
            for (int v = 0; v < c->V; v++) logits[(size_t)(i + r) * c->V + v] = to_float(out[(size_t)r * c->Vp + v]);
    }
    cudaCheck(cudaFree(device_rows));
    free(out);
}

// ---------------------------------------------------------------------------------------------------
// backward

// From the gradient of the MLP's output, dresidual, to that of ln2, in width_a.
static void mlp_backward(Transformer* t, const ParameterSet* p, const DevicePack* s, int l, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    int T = s->T, FF = c->FF, ld = site_ld(t, SITE_DOWN);
    bool gated = c->mlp == MLP_SWIGLU, fused = c->mlp == MLP_GELU_TANH && !adapted(t, SITE_DOWN);
    // the gradient of fch_act has no place of its own: without a gate it becomes that of fch in place; with one it
    // takes fch_act's, which nobody reads any more
    floatX* dact = !gated ? t->dfch : t->dact ? t->dact : a->fch_act;
    linear_backward(t, p, s, SITE_DOWN, l, dact, t->dresidual, c->C, fused ? a->fch : NULL, a->fch_act, stream);
    if (gated) swiglu_backward(t->dfch, dact, a->fch, T, FF, ld, stream);
    else if (c->mlp == MLP_GELU_ERF) gelu_erf_backward_inplace(t->dfch, a->fch, T, FF, ld, stream);
    else if (!fused) gelu_backward_inplace(t->dfch, a->fch, T, FF, ld, stream);
    linear_backward(t, p, s, SITE_UP, l, t->width_a, t->dfch, gated ? 2 * FF : ld, NULL, a->ln2, stream);
}

// From the gradient of the attention's projection, dresidual, to that of ln1, in dln1.
static void attention_block_backward(Transformer* t, const ParameterSet* p, const DevicePack* s, int l, floatX* dln1,
                                     cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    int T = s->T, qkv = qkv_width(c);
    floatX* datty = t->width_b;
    linear_backward(t, p, s, SITE_ATTPROJ, l, datty, t->dresidual, c->C, NULL, a->atty, stream);
    attention_backward(t->dqkv,
                       {.qkv = a->qkv,
                        .cu_seqlens = s->cu_seqlens,
                        .tiles = s->tiles,
                        .n_tiles = s->n_tiles,
                        .T = T,
                        .NH = c->NH,
                        .NKV = c->NKV,
                        .HS = c->HS,
                        .ldq = qkv,
                        .ldo = site_ld(t, SITE_ATTPROJ),
                        .scale = c->attention_scale,
                        .atty = a->atty,
                        .datty = datty,
                        .lse = a->lse,
                        .delta = t->delta,
                        .lddq = qkv},
                       stream);
    if (c->positions == POSITIONS_ROPE)
        rope_backward(t->dqkv, s->positions, t->cos_sin, T, c->NH, c->NKV, c->HS, c->rope.rotary, qkv, stream);
    linear_backward(t, p, s, SITE_QKV, l, dln1, t->dqkv, qkv, NULL, a->ln1, stream);
}

// dresidual arrives as the gradient of the layer's output and leaves as that of its input: each norm adds its part to
// the part that goes past it.
static void layer_backward(Transformer* t, const ParameterSet* p, const DevicePack* s, int l, cudaStream_t stream) {
    NVTX_RANGE("layer");
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    if (t->keep == KEEP_RESIDUALS) {
        norm_forward(t, p, ln1_of(t, l), residual_of(t, l), s->T, stream);
        attention_block(t, p, s, l, stream);
        if (c->parallel_residual)
            fill_tail(t, s, SITE_ATTPROJ, l, a->atty, stream);  // nobody needs the projection itself again
        else attention_out(t, p, s, l, stream);
        mlp_block(t, p, s, l, stream);
        fill_tail(t, s, SITE_DOWN, l, a->fch_act, stream);
    }
    mlp_backward(t, p, s, l, stream);
    // both branches of a parallel residual read the gradient of the output, so neither norm may add to it before they
    // have
    floatX* dln1 = c->parallel_residual ? t->width_b : t->width_a;
    if (!c->parallel_residual) norm_backward(t, p, ln2_of(t, l), t->dresidual, t->width_a, a->residual2, s->T, stream);
    attention_block_backward(t, p, s, l, dln1, stream);
    if (c->parallel_residual)
        norm_backward(t, p, ln2_of(t, l), t->dresidual, t->width_a, residual_of(t, l), s->T, stream);
    norm_backward(t, p, ln1_of(t, l), t->dresidual, dln1, residual_of(t, l), s->T, stream);
}

void transformer_backward(Transformer* t, const ParameterSet* p, const DevicePack* s, cudaStream_t stream) {
    NVTX_RANGE("backward");
    const ModelConfig* c = &t->layout->config;
    if (t->keep == KEEP_NOTHING) program_error("backward on a plan that keeps no activations");
    floatX* dlnf = t->width_a;
    scatter_rows(dlnf, t->width_b, s->loss_index, s->T, c->C, stream);
    cudaCheck(cudaMemsetAsync(t->dresidual, 0, (size_t)s->T * c->C * sizeof(floatX), stream));
    norm_backward(t, p, lnf_of(t), t->dresidual, dlnf, residual_of(t, c->L), s->T, stream);
    for (int l = c->L - 1; l >= 0; l--) {
        layer_backward(t, p, s, l, stream);
        if (t->gradients_ready) t->gradients_ready(t->ready_context, l);
    }
    if (gradient(p, WTE, 0))
        embedding_backward(gradient(p, WTE, 0), t->dresidual, s->token_order, s->token_segment_start,
                           s->token_segment_row, s->n_token_segments, c->C, stream);
    if (gradient(p, WPE, 0))
        embedding_backward(gradient(p, WPE, 0), t->dresidual, s->position_order, s->position_segment_start,
                           s->position_segment_row, s->n_position_segments, c->C, stream);
    if (t->gradients_ready) t->gradients_ready(t->ready_context, -1);
}
