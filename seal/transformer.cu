/*
Forward and backward of the transformer, one launcher after the other, in the order of the mathematics. The residual
stream and each norm that follows it are one kernel; a layer therefore begins with its ln1 already there, written by the
layer before. What families differ in is fields of ModelConfig and which tensors they have: which norms there are and
where, queries and keys with a norm of their own, a layer's rotary positions and window, the MLP's activation, the
parallel residual, scalars and caps, biases. No family is named here.
*/
#include <string.h>
#include "kernels.h"
#include "base/error.h"
#include "base/text.h"
#include "activations.h"
#include "fp8.h"
#include "packed.h"

// ---------------------------------------------------------------------------------------------------
// norms and linear layers

// A norm of the model: its output, statistics and parameters. Without a weight there is none, and its output is a copy.
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

// A branch of a layer, the attention's or the MLP's: its output, and the norm that it may pass before the residual.
typedef struct {
    floatX* out;      // (T, C)
    TensorKind post;  // weight of that norm
    float* rstd;
    int layer;
} Branch;

static Branch attention_branch(const Transformer* t, int l) {
    LayerActivations* a = slot_of(t, l);
    return {a->attproj ? a->attproj : t->width_a, POST1W, a->attproj_rstd, l};
}
static Branch mlp_branch(const Transformer* t, int l) {
    LayerActivations* a = slot_of(t, l);
    return {a->fcproj ? a->fcproj : t->width_a, POST2W, a->fcproj_rstd, l};
}

static void norm_forward(const Transformer* t, const ParameterSet* p, Norm n, const floatX* inp, int T,
                         cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    const floatX* w = weight(p, n.weight, n.layer);
    if (c->norm == NORM_RMSNORM)
        rmsnorm_forward({.out = n.out,
                         .rstd = n.rstd,
                         .inp1 = inp,
                         .weight = w,
                         .T = T,
                         .C = c->C,
                         .ldo = n.ld,
                         .eps = c->norm_eps,
                         .offset = c->norm_offset},
                        stream);
    else
        layernorm_forward({.out = n.out,
                           .mean = n.mean,
                           .rstd = n.rstd,
                           .inp1 = inp,
                           .weight = w,
                           .bias = weight(p, n.bias, n.layer),
                           .T = T,
                           .C = c->C,
                           .ldo = n.ld,
                           .eps = c->norm_eps},
                          stream);
}

// residual = inp + the branch, and its norm.
static void residual_norm_forward(const Transformer* t, const ParameterSet* p, Norm n, floatX* residual,
                                  const floatX* inp, Branch branch, int T, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    const floatX* w = weight(p, n.weight, n.layer);
    float scale = branch.layer + 1 == t->scaled_layer ? t->layer_scale : 1.0f;
    if (c->norm != NORM_RMSNORM && scale != 1.0f)
        scale_rows(branch.out, branch.out, scale, false, T, c->C, c->C, stream);
    if (c->norm == NORM_RMSNORM)
        fused_residual_rmsnorm_forward({.out = n.out,
                                        .rstd = n.rstd,
                                        .inp1 = inp,
                                        .weight = w,
                                        .T = T,
                                        .C = c->C,
                                        .ldo = n.ld,
                                        .eps = c->norm_eps,
                                        .residual = residual,
                                        .inp2 = branch.out,
                                        .post = weight(p, branch.post, branch.layer),
                                        .post_rstd = branch.rstd,
                                        .scale = scale * c->residual_scale,
                                        .offset = c->norm_offset},
                                       stream);
    else
        fused_residual_layernorm_forward({.out = n.out,
                                          .mean = n.mean,
                                          .rstd = n.rstd,
                                          .inp1 = inp,
                                          .weight = w,
                                          .bias = weight(p, n.bias, n.layer),
                                          .T = T,
                                          .C = c->C,
                                          .ldo = n.ld,
                                          .eps = c->norm_eps,
                                          .residual = residual,
                                          .inp2 = branch.out},
                                         stream);
}

// dinp += gradient through the norm of inp; dout has the row stride of the norm's output.
static void norm_backward(const Transformer* t, const ParameterSet* p, Norm n, floatX* dinp, const floatX* dout,
                          const floatX* inp, int T, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    float *dw = gradient(p, n.weight, n.layer), *db = gradient(p, n.bias, n.layer);
    const floatX* w = weight(p, n.weight, n.layer);
    if (!w) scale_rows(dinp, dout, 1.0f, true, T, c->C, n.ld, stream);
    else if (c->norm == NORM_RMSNORM)
        rmsnorm_backward({.dinp = dinp,
                          .dweight = dw,
                          .scratch = t->partial,
                          .dout = dout,
                          .inp = inp,
                          .weight = w,
                          .rstd = n.rstd,
                          .T = T,
                          .C = c->C,
                          .ldd = n.ld,
                          .offset = c->norm_offset},
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
                            .C = c->C,
                            .ldd = n.ld},
                           stream);
}

// The gradient of a branch's output, from that of the residual it joined: the same, or scaled and through its norm.
static const floatX* branch_backward(const Transformer* t, const ParameterSet* p, Branch branch, int T,
                                     cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    const floatX *w = weight(p, branch.post, branch.layer), *dout = t->dresidual;
    if (c->residual_scale != 1.0f) {
        scale_rows(t->dbranch, dout, c->residual_scale, false, T, c->C, c->C, stream);
        dout = t->dbranch;
    }
    if (!w) return dout;
    rmsnorm_backward({.dinp = t->dbranch,
                      .dweight = gradient(p, branch.post, branch.layer),
                      .scratch = t->partial,
                      .dout = dout,
                      .inp = branch.out,
                      .weight = w,
                      .rstd = branch.rstd,
                      .T = T,
                      .C = c->C,
                      .ldd = c->C,
                      .offset = c->norm_offset,
                      .overwrite = true},
                     stream);
    return t->dbranch;
}

static LoraRows lora_rows(const Transformer* t, const DevicePack* s, Site site, int l) {
    return {.site = site, .layer = l, .C = site_cols(t, site), .T = s->T, .split = s->split};
}

// The adapters' part of a site's input.
static void fill_tail(const Transformer* t, const DevicePack* s, Site site, int l, floatX* inp, cudaStream_t stream) {
    if (adapted(t, site)) lora_forward(t->lora, lora_rows(t, s, site, l), inp, stream);
}

// A linear layer and its input.
typedef struct {
    Site site;
    int l;
    floatX* inp;  // (T, C; ld of the site) with the tail that adapters write into
} Linear;

static Fp8Linear fp8_linear(const Transformer* t, const ParameterSet* p, const DevicePack* s, Site site, int l) {
    return {p, site_weight(site), l, s->T, t->fp8_values, t->fp8_scales};
}

// out (T, OC; ldo) = inp · weightᵀ + bias, adapters included. pre_gelu as matmul_forward's; add: out +=.
static void linear_forward(const Transformer* t, const ParameterSet* p, const DevicePack* s, Linear x, floatX* out,
                           int ldo, floatX* pre_gelu, bool add, cudaStream_t stream) {
    const Site site = x.site;
    const int l = x.l;
    floatX* inp = x.inp;
    int ld = site_ld(t, site), OC = (int)site_tensor(t, site)->rows;
    const floatX* b = weight(p, site_bias(site), l);
    fill_tail(t, s, site, l, inp, stream);
    if (p->layout->base == BASE_FP8) {
        fp8_forward(fp8_linear(t, p, s, site, l), pre_gelu ? pre_gelu : out, pre_gelu ? OC : ldo, inp, b, add, stream);
        if (pre_gelu) gelu_forward(out, pre_gelu, s->T, OC, ldo, stream);
        return;
    }
    const floatX* w = weight_matrix(p, site_weight(site), l, stream);
    if (add)
        matmul_forward_add(out, inp, w, b, {.T = s->T, .C = ld, .OC = OC, .ldo = ldo, .ldi = ld, .ldw = ld}, stream);
    else
        matmul_forward(out, pre_gelu, inp, w, b, {.T = s->T, .C = ld, .OC = OC, .ldo = ldo, .ldi = ld, .ldw = ld},
                       stream);
}

// Under the first layer of a frozen model nothing is trained: nobody asks for the gradient of its input.
static bool lowest(const Transformer* t, int l) { return t->lora && l == 0; }

// dinp (T, ld of the site) = gradient of its input, tail included, and the gradients of what is trained there. Of the
// lowest projection's it is the tail alone, which the adapters' gradients are made of. dout (T,
// OC; ldd). pre_gelu: as matmul_backward_input's, for a site without an adapter.
static void linear_backward(const Transformer* t, const ParameterSet* p, const DevicePack* s, Linear x, floatX* dinp,
                            const floatX* dout, int ldd, const floatX* pre_gelu, cudaStream_t stream) {
    const Site site = x.site;
    const int l = x.l;
    const floatX* inp = x.inp;
    int ld = site_ld(t, site), OC = (int)site_tensor(t, site)->rows;
    float *dw = gradient(p, site_weight(site), l), *db = gradient(p, site_bias(site), l);
    if (dw) matmul_backward_weight(dw, dout, inp, s->T, ld, OC, ld, ldd, stream);
    if (db) matmul_backward_bias(db, t->partial, dout, s->T, OC, ldd, stream);
    if (t->samples && !t->lora) sample_gradients_linear(t->samples, s, site, l, dout, ldd, inp, ld, stream);
    const bool tail = lowest(t, l) && site == SITE_QKV;
    const int first = tail ? site_cols(t, site) : 0;
    if (p->layout->base == BASE_FP8) {
        fp8_backward(fp8_linear(t, p, s, site, l), dinp, dout, ldd, tail, stream);
        if (pre_gelu) gelu_backward_inplace(dinp, pre_gelu, s->T, ld, ld, stream);
    } else
        matmul_backward_input(dinp + first, dout, weight_matrix(p, site_weight(site), l, stream) + first, pre_gelu,
                              {.T = s->T, .C = ld - first, .OC = OC, .ldo = ldd, .ldi = ld, .ldw = ld}, false, stream);
    if (!adapted(t, site)) return;
    const LoraRows rows = lora_rows(t, s, site, l);
    lora_backward_tail(t->lora, rows, dinp, stream);
    if (t->samples) sample_gradients_adapter(t->samples, s, site, l, dout, ldd, inp, dinp, ld, stream);
    else lora_backward_weight(t->lora, rows, dinp, dout, ldd, inp, stream);
    if (!tail) lora_backward_input(t->lora, rows, dinp, stream);
}

// ---------------------------------------------------------------------------------------------------
// forward

// The table of a layer's rotary positions; NULL: it has none.
static const float* cos_sin_of(const Transformer* t, int l) {
    const ModelConfig* c = &t->layout->config;
    const RopeConfig* rope = layer_rope(c, l);
    return !rope ? NULL : rope == &c->rope ? t->cos_sin : t->cos_sin_local;
}

static QkNormArgs qk_norm_args(const Transformer* t, const ParameterSet* p, const DevicePack* s, int l) {
    const ModelConfig* c = &t->layout->config;
    const LayerActivations* a = slot_of(t, l);
    return {.inp = a->qkv,
            .q_weight = weight(p, QNORMW, l),
            .k_weight = weight(p, KNORMW, l),
            .rstd = a->qk_rstd,
            .positions = s->positions,
            .cos_sin = cos_sin_of(t, l),
            .T = s->T,
            .NH = c->NH,
            .NKV = c->NKV,
            .HS = c->HS,
            .ld = qkv_width(c),
            .all = c->qk_norm == QK_NORM_ALL,
            .eps = c->norm_eps,
            .offset = c->norm_offset};
}

// What the attention reads: a layer's qkv, or where queries and keys have a norm the buffer that all layers share.
static floatX* attention_input(const Transformer* t, int l) {
    return t->layout->config.qk_norm == QK_NORM_NONE ? slot_of(t, l)->qkv : t->qkv_normed;
}

// The norm of queries and keys, and their rotary positions.
static void turn_forward(Transformer* t, const ParameterSet* p, const DevicePack* s, int l, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    const float* cos_sin = cos_sin_of(t, l);
    if (c->qk_norm != QK_NORM_NONE) qk_norm_rope_forward(t->qkv_normed, qk_norm_args(t, p, s, l), stream);
    else if (cos_sin)
        rope_forward(slot_of(t, l)->qkv, s->positions, cos_sin, s->T, c->NH, c->NKV, c->HS, c->rope.rotary,
                     qkv_width(c), stream);
}

static AttentionArgs attention_args(const Transformer* t, const DevicePack* s, int l) {
    const ModelConfig* c = &t->layout->config;
    return {.qkv = attention_input(t, l),
            .cu_seqlens = s->cu_seqlens,
            .tiles = s->tiles,
            .n_tiles = s->n_tiles,
            .T = s->T,
            .NH = c->NH,
            .NKV = c->NKV,
            .HS = c->HS,
            .ldq = qkv_width(c),
            .ldo = site_ld(t, SITE_ATTPROJ),
            .scale = c->attention_scale,
            .window = layer_window(c, l),
            .cap = c->attention_cap,
            .n_even = s->n_even_tiles};
}

// The attention of a pass over texts that are being generated: keys and values go to the cache; a pass of one token a
// sequence reads them from there.
static void cached_attention(Transformer* t, const DevicePack* s, int l, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    const KvCache* cache = t->cache;
    LayerActivations* a = slot_of(t, l);
    int qkv = qkv_width(c);
    const floatX* inp = attention_input(t, l);
    floatX *keys = cache->keys + (size_t)l * cache->rows * c->NKV * c->HS,
           *values = cache->values + (size_t)l * cache->rows * c->NKV * c->HS;
    cache_store(keys, values, inp, cache->row, s->T, c->NH, c->NKV, c->HS, qkv, stream);
    if (cache->n)
        decode_attention(a->atty,
                         {.qkv = inp,
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
                          .ldo = site_ld(t, SITE_ATTPROJ),
                          .scale = c->attention_scale,
                          .window = layer_window(c, l),
                          .cap = c->attention_cap},
                         stream);
    else attention_forward(a->atty, a->lse, attention_args(t, s, l), stream);
}

// From ln1 to the attention's output. Where the residual is parallel the MLP's norm reads the same input.
static void attention_block(Transformer* t, const ParameterSet* p, const DevicePack* s, int l, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    linear_forward(t, p, s, {SITE_QKV, l, a->ln1}, a->qkv, qkv_width(c), NULL, false, stream);
    turn_forward(t, p, s, l, stream);
    if (t->cache) cached_attention(t, s, l, stream);
    else attention_forward(a->atty, a->lse, attention_args(t, s, l), stream);
    if (c->parallel_residual) norm_forward(t, p, ln2_of(t, l), residual_of(t, l), s->T, stream);
}

// The attention's projection; then the residual and ln2, or, where the residual is parallel, nothing until the MLP's
// output joins it.
static void attention_out(Transformer* t, const ParameterSet* p, const DevicePack* s, int l, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    Branch branch = attention_branch(t, l);
    linear_forward(t, p, s, {SITE_ATTPROJ, l, a->atty}, branch.out, c->C, NULL, false, stream);
    if (!c->parallel_residual)
        residual_norm_forward(t, p, ln2_of(t, l), a->residual2, residual_of(t, l), branch, s->T, stream);
}

// From ln2 to the activation of the MLP.
static void mlp_block(Transformer* t, const ParameterSet* p, const DevicePack* s, int l, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    int T = s->T, FF = c->FF, ldo = site_ld(t, SITE_DOWN);
    if (c->mlp == MLP_GELU_TANH) {
        linear_forward(t, p, s, {SITE_UP, l, a->ln2}, a->fch_act, ldo, a->fch, false, stream);
        return;
    }
    linear_forward(t, p, s, {SITE_UP, l, a->ln2}, a->fch, up_width(c), NULL, false, stream);
    if (c->mlp == MLP_SWIGLU) swiglu_forward(a->fch_act, a->fch, T, FF, ldo, stream);
    else if (c->mlp == MLP_GEGLU) geglu_forward(a->fch_act, a->fch, T, FF, ldo, stream);
    else gelu_erf_forward(a->fch_act, a->fch, T, FF, ldo, stream);
}

// The MLP's output, the residual, and the norm that comes next: the following layer's ln1, or lnf.
static void mlp_out(Transformer* t, const ParameterSet* p, const DevicePack* s, int l, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    Branch branch = mlp_branch(t, l);
    linear_forward(t, p, s, {SITE_DOWN, l, a->fch_act}, branch.out, c->C, NULL, c->parallel_residual, stream);
    Norm next = l + 1 == c->L ? lnf_of(t) : ln1_of(t, l + 1);
    residual_norm_forward(t, p, next, residual_of(t, l + 1), c->parallel_residual ? residual_of(t, l) : a->residual2,
                          branch, s->T, stream);
}

// What embeddings are multiplied by, as the model's type holds it.
static float embedding_scale(const ModelConfig* c) {
    if (family_find(c->family)->embedding_root) return to_float(from_float<floatX>(sqrtf((float)c->C)));
    return c->embedding_scale;
}

void transformer_forward(Transformer* t, const ParameterSet* p, const DevicePack* s, cudaStream_t stream) {
    NVTX_RANGE("forward");
    const ModelConfig* c = &t->layout->config;
    if (s->T > t->T) program_error("a pack of %d tokens exceeds the plan for %d", s->T, t->T);
    embedding_forward(residual_of(t, 0), s->tokens, s->positions, weight(p, WTE, 0), weight(p, WPE, 0),
                      embedding_scale(c), s->T, c->C, stream);
    norm_forward(t, p, ln1_of(t, 0), residual_of(t, 0), s->T, stream);
    for (int l = 0; l < c->L; l++) {
        NVTX_RANGE("layer");
        attention_block(t, p, s, l, stream);
        attention_out(t, p, s, l, stream);
        mlp_block(t, p, s, l, stream);
        mlp_out(t, p, s, l, stream);
        if (l + 1 != t->tap_layer) continue;
        sample_last_rows(t->tap, residual_of(t, l + 1), c->C, s->loss_rows, s->loss_start, s->place, s->n_samples,
                         stream);
        return;
    }
}

// ---------------------------------------------------------------------------------------------------
// the weighted loss

static TensorKind head_of(const ModelConfig* c) { return c->tied_head ? WTE : HEADW; }
static MatmulShape head_shape(const ModelConfig* c, int n) {
    return {.T = n, .C = c->C, .OC = c->Vp, .ldo = c->Vp, .ldi = c->C, .ldw = c->C};
}

void transformer_loss(Transformer* t, const ParameterSet* p, const DevicePack* s, float* sample_loss,
                      float* sample_loss_hat, bool backward, cudaStream_t stream) {
    NVTX_RANGE("loss");
    const ModelConfig* c = &t->layout->config;
    TensorKind head = head_of(c);
    floatX* hidden = t->width_a;   // (n, C)
    floatX* dhidden = t->width_b;  // (n, C)
    gather_rows(hidden, t->lnf, s->loss_rows, 1.0f / c->logit_divisor, s->n_loss_padded, c->C, c->C, stream);
    for (int i = 0; i < s->n_loss_padded; i += t->head_rows) {
        int n = s->n_loss_padded - i < t->head_rows ? s->n_loss_padded - i : t->head_rows;
        floatX* x = hidden + (size_t)i * c->C;
        matmul_forward(t->logits, NULL, x, weight(p, head, 0), NULL, head_shape(c, n), stream);
        cross_entropy(t->logits, t->token_loss + i, s->targets + i, backward ? s->weight + i : NULL, c->logit_cap, n,
                      c->V, c->Vp, stream);
        if (!backward) continue;
        matmul_backward_input(dhidden + (size_t)i * c->C, t->logits, weight(p, head, 0), NULL, head_shape(c, n), false,
                              stream);
        if (gradient(p, head, 0))
            matmul_backward_weight(gradient(p, head, 0), t->logits, x, n, c->C, c->Vp, c->C, c->Vp, stream);
    }
    sample_losses(sample_loss, t->bad_target, t->token_loss, s->targets, c->V, s->loss_start, s->place, s->n_first,
                  stream);
    if (s->n_first == s->n_samples) return;
    sample_losses(sample_loss_hat, t->bad_target, t->token_loss, s->targets, c->V, s->loss_start + s->n_first,
                  s->place + s->n_first, s->n_samples - s->n_first, stream);
}

void transformer_head(Transformer* t, const ParameterSet* p, const int* rows, int n, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    if (n > t->head_rows) program_error("%d rows of logits exceed the plan for %d", n, t->head_rows);
    gather_rows(t->width_a, t->lnf, rows, 1.0f / c->logit_divisor, n, c->C, c->C, stream);
    matmul_forward(t->logits, NULL, t->width_a, weight(p, head_of(c), 0), NULL, head_shape(c, n), stream);
    if (c->logit_cap) cap_logits(t->logits, c->logit_cap, n, c->Vp, stream);
}

void transformer_logits(Transformer* t, const ParameterSet* p, const int* rows, int n, float* logits,
                        cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    floatX* out = (floatX*)host_alloc((size_t)t->head_rows * c->Vp * sizeof(floatX), "logits");
    int* device_rows = NULL;
    cudaCheck(cudaMalloc((void**)&device_rows, (size_t)n * sizeof(int)));
    cudaCheck(cudaMemcpyAsync(device_rows, rows, (size_t)n * sizeof(int), cudaMemcpyHostToDevice, stream));
    for (int i = 0; i < n; i += t->head_rows) {
        int m = n - i < t->head_rows ? n - i : t->head_rows;
        transformer_head(t, p, device_rows + i, m, stream);
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

// From the gradient of the residual that the MLP's output joined, dresidual, to that of ln2, in width_a.
static void mlp_backward(Transformer* t, const ParameterSet* p, const DevicePack* s, int l, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    int T = s->T, FF = c->FF, ld = site_ld(t, SITE_DOWN);
    bool gated = mlp_gated(c), fused = c->mlp == MLP_GELU_TANH && !adapted(t, SITE_DOWN);
    // the gradient of fch_act has no place of its own: without a gate it becomes that of fch in place; with one it
    // takes fch_act's, which is not read any more
    floatX* dact = !gated ? t->dfch : t->dact ? t->dact : a->fch_act;
    const floatX* dout = branch_backward(t, p, mlp_branch(t, l), T, stream);
    linear_backward(t, p, s, {SITE_DOWN, l, a->fch_act}, dact, dout, c->C, fused ? a->fch : NULL, stream);
    if (c->mlp == MLP_SWIGLU) swiglu_backward(t->dfch, dact, a->fch, T, FF, ld, stream);
    else if (c->mlp == MLP_GEGLU) geglu_backward(t->dfch, dact, a->fch, T, FF, ld, stream);
    else if (c->mlp == MLP_GELU_ERF) gelu_erf_backward_inplace(t->dfch, a->fch, T, FF, ld, stream);
    else if (!fused) gelu_backward_inplace(t->dfch, a->fch, T, FF, ld, stream);
    linear_backward(t, p, s, {SITE_UP, l, a->ln2}, t->width_a, t->dfch, gated ? 2 * FF : ld, NULL, stream);
}

// From the gradient of the residual that the attention's output joined, dresidual, to that of ln1, in dln1.
static void attention_block_backward(Transformer* t, const ParameterSet* p, const DevicePack* s, int l, floatX* dln1,
                                     cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    int qkv = qkv_width(c);
    floatX* datty = t->width_b;
    const floatX* dout = branch_backward(t, p, attention_branch(t, l), s->T, stream);
    linear_backward(t, p, s, {SITE_ATTPROJ, l, a->atty}, datty, dout, c->C, NULL, stream);
    if (lowest(t, l) && !adapted(t, SITE_QKV)) return;
    // the buffer of normed queries and keys holds the last layer's, unless this one has just been computed again
    if (c->qk_norm != QK_NORM_NONE && t->keep == KEEP_ALL) turn_forward(t, p, s, l, stream);
    AttentionArgs args = attention_args(t, s, l);
    args.atty = a->atty;
    args.datty = datty;
    args.lse = a->lse;
    args.delta = t->delta;
    args.lddq = qkv;
    if (c->qk_norm == QK_NORM_NONE) {  // a norm comes before the turn, and takes it back itself
        args.positions = s->positions;
        args.cos_sin = cos_sin_of(t, l);
        args.rotary = c->rope.rotary;
    }
    attention_backward(t->dqkv, args, stream);
    if (c->qk_norm != QK_NORM_NONE)
        qk_norm_rope_backward(t->dqkv, gradient(p, QNORMW, l), gradient(p, KNORMW, l), t->partial,
                              qk_norm_args(t, p, s, l), stream);
    linear_backward(t, p, s, {SITE_QKV, l, a->ln1}, dln1, t->dqkv, qkv, NULL, stream);
}

// --recompute: the layer's activations once more, from its input.
static void layer_again(Transformer* t, const ParameterSet* p, const DevicePack* s, int l, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    norm_forward(t, p, ln1_of(t, l), residual_of(t, l), s->T, stream);
    attention_block(t, p, s, l, stream);
    if (c->parallel_residual)
        fill_tail(t, s, SITE_ATTPROJ, l, a->atty, stream);  // the projection itself is not needed again
    else attention_out(t, p, s, l, stream);
    mlp_block(t, p, s, l, stream);
    if (!normed_after(t)) {
        fill_tail(t, s, SITE_DOWN, l, a->fch_act, stream);
        return;
    }
    Branch branch = mlp_branch(t, l);
    linear_forward(t, p, s, {SITE_DOWN, l, a->fch_act}, branch.out, c->C, NULL, false, stream);
    norm_forward(t, p, {t->width_a, c->C, NULL, branch.rstd, branch.post, N_TENSOR_KINDS, l}, branch.out, s->T, stream);
}

// dresidual arrives as the gradient of the layer's output and leaves as that of its input, unless that is for nobody:
// each norm adds its part to the part that goes past it.
static void layer_backward(Transformer* t, const ParameterSet* p, const DevicePack* s, int l, cudaStream_t stream) {
    NVTX_RANGE("layer");
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    if (t->keep == KEEP_RESIDUALS) layer_again(t, p, s, l, stream);
    mlp_backward(t, p, s, l, stream);
    // both branches of a parallel residual read the gradient of the output, so neither norm may add to it before they
    // have
    floatX* dln1 = c->parallel_residual ? t->width_b : t->width_a;
    if (!c->parallel_residual) norm_backward(t, p, ln2_of(t, l), t->dresidual, t->width_a, a->residual2, s->T, stream);
    attention_block_backward(t, p, s, l, dln1, stream);
    if (lowest(t, l)) return;
    if (c->parallel_residual)
        norm_backward(t, p, ln2_of(t, l), t->dresidual, t->width_a, residual_of(t, l), s->T, stream);
    norm_backward(t, p, ln1_of(t, l), t->dresidual, dln1, residual_of(t, l), s->T, stream);
}

void transformer_backward(Transformer* t, const ParameterSet* p, const DevicePack* s, cudaStream_t stream) {
    NVTX_RANGE("backward");
    const ModelConfig* c = &t->layout->config;
    if (t->keep == KEEP_NOTHING) program_error("backward on a plan that keeps no activations");
    floatX* dlnf = t->width_a;
    scatter_rows(dlnf, t->width_b, s->loss_index, 1.0f / c->logit_divisor, s->T, c->C, stream);
    cudaCheck(cudaMemsetAsync(t->dresidual, 0, (size_t)s->T * c->C * sizeof(floatX), stream));
    norm_backward(t, p, lnf_of(t), t->dresidual, dlnf, residual_of(t, c->L), s->T, stream);
    for (int l = c->L - 1; l >= 0; l--) {
        layer_backward(t, p, s, l, stream);
        if (t->gradients_ready) t->gradients_ready(t->ready_context, l);
    }
    if (gradient(p, WTE, 0))
        embedding_backward(gradient(p, WTE, 0), t->dresidual, s->token_order, s->token_segment_start,
                           s->token_segment_row, s->n_token_segments, embedding_scale(c), c->C, stream);
    if (gradient(p, WPE, 0))
        embedding_backward(gradient(p, WPE, 0), t->dresidual, s->position_order, s->position_segment_start,
                           s->position_segment_row, s->n_position_segments, 1.0f, c->C, stream);
    if (t->gradients_ready) t->gradients_ready(t->ready_context, -1);
}
