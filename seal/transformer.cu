/*
Forward and backward of the transformer, one launcher after the other, in the order of the mathematics. The residual stream and each norm that
follows it are one kernel; a layer therefore begins with its ln1 already there, written by the layer before.
*/
#include <string.h>
// defines: every launcher
#include "kernels.h"
#include "error.h"
#include "transformer.h"

// ---------------------------------------------------------------------------------------------------------------------------------------
// memory

static LayerActivations* slot_of(const Transformer* t, int l) { return &t->layers[l % t->n_layer_slots]; }
static floatX* residual_of(const Transformer* t, int l) { return t->residual[l % t->n_residual_slots]; }
static int qkv_width(const ModelConfig* c) { return (c->NH + 2 * c->NKV) * c->HS; }

// One row per activation of a layer: what it is called, where it goes, how wide, which type.
typedef struct {
    const char* name;
    size_t offset;  // in LayerActivations
    enum { WIDTH_C, WIDTH_QKV, WIDTH_ATT, WIDTH_FF, WIDTH_1, WIDTH_NH } width;
    size_t element;
} LayerRow;
#define LAYER_ROW(field, width, type) { #field, offsetof(LayerActivations, field), LayerRow::width, sizeof(type) }
static const LayerRow layer_rows[] = {
    LAYER_ROW(ln1, WIDTH_C, floatX),      LAYER_ROW(ln1_mean, WIDTH_1, float), LAYER_ROW(ln1_rstd, WIDTH_1, float), LAYER_ROW(qkv, WIDTH_QKV, floatX),
    LAYER_ROW(atty, WIDTH_ATT, floatX),   LAYER_ROW(lse, WIDTH_NH, float),     LAYER_ROW(residual2, WIDTH_C, floatX), LAYER_ROW(ln2, WIDTH_C, floatX),
    LAYER_ROW(ln2_mean, WIDTH_1, float),  LAYER_ROW(ln2_rstd, WIDTH_1, float), LAYER_ROW(fch, WIDTH_FF, floatX),    LAYER_ROW(fch_act, WIDTH_FF, floatX),
};

static size_t width_of(const LayerRow* row, const ModelConfig* c) {
    switch (row->width) {
        case LayerRow::WIDTH_C: return c->C;
        case LayerRow::WIDTH_QKV: return qkv_width(c);
        case LayerRow::WIDTH_ATT: return (size_t)c->NH * c->HS;
        case LayerRow::WIDTH_FF: return c->FF;
        case LayerRow::WIDTH_NH: return c->NH;
        default: return 1;
    }
}

void transformer_plan(Transformer* t, const ModelLayout* layout, KeepMode keep, int T, int head_rows, MemoryPlan* plan) {
    const ModelConfig* c = &layout->config;
    if (c->norm != NORM_LAYERNORM || c->positions != POSITIONS_LEARNED || c->mlp != MLP_GELU_TANH) fatal("a %s model can be read and made, but not run by this version", c->family);
    memset(t, 0, sizeof *t);
    t->layout = layout;
    t->keep = keep;
    T = (T + STREAM_ROUND - 1) / STREAM_ROUND * STREAM_ROUND;  // the rows a packed stream of T tokens may have
    t->T = T;
    t->head_rows = head_rows < T ? head_rows : T;
    t->n_layer_slots = keep == KEEP_ALL ? c->L : 1;
    t->n_residual_slots = keep == KEEP_NOTHING ? 2 : c->L + 1;  // two: a layer reads one and writes the other
    t->layers = (LayerActivations*)calloc(t->n_layer_slots, sizeof *t->layers);
    t->residual = (floatX**)calloc(t->n_residual_slots, sizeof *t->residual);
    if (!t->layers || !t->residual) fatal("out of host memory for %d layers", c->L);

    size_t C = c->C, rows = T, X = sizeof(floatX), att = (size_t)c->NH * c->HS;
    bool train = keep != KEEP_NOTHING;
    for (int l = 0; l < t->n_residual_slots; l++) memory_add(plan, MEMORY_ACTIVATIONS, (void**)&t->residual[l], rows * C * X, "residual %d", l);
    for (int l = 0; l < t->n_layer_slots; l++)
        for (size_t i = 0; i < sizeof layer_rows / sizeof *layer_rows; i++) {
            const LayerRow* row = &layer_rows[i];
            memory_add(plan, MEMORY_ACTIVATIONS, (void**)((char*)&t->layers[l] + row->offset), rows * width_of(row, c) * row->element, "%s %d", row->name, l);
        }
    memory_add(plan, MEMORY_ACTIVATIONS, (void**)&t->lnf, rows * C * X, "lnf");
    memory_add(plan, MEMORY_ACTIVATIONS, (void**)&t->lnf_mean, rows * sizeof(float), "lnf_mean");
    memory_add(plan, MEMORY_ACTIVATIONS, (void**)&t->lnf_rstd, rows * sizeof(float), "lnf_rstd");
    memory_add(plan, MEMORY_ACTIVATIONS, (void**)&t->token_loss, rows * sizeof(float), "token_loss");
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->logits, (size_t)t->head_rows * c->Vp * X, "logits");
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->width_a, rows * C * X, "width_a");
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->width_b, train ? rows * (C > att ? C : att) * X : 0, "width_b");
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->dresidual, train ? rows * C * X : 0, "dresidual");
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->dqkv, train ? rows * qkv_width(c) * X : 0, "dqkv");
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->dfch, train ? rows * c->FF * X : 0, "dfch");
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->delta, train ? rows * c->NH * sizeof(float) : 0, "delta");
    int widest = c->FF > qkv_width(c) ? c->FF : qkv_width(c);
    size_t partial = matmul_bias_scratch(widest);
    if (layernorm_scratch(c->C) > partial) partial = layernorm_scratch(c->C);
    memory_add(plan, MEMORY_SCRATCH, (void**)&t->partial, train ? partial * sizeof(float) : 0, "partial sums");
}

void transformer_free(Transformer* t) {
    free(t->layers);
    free(t->residual);
    memset(t, 0, sizeof *t);
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// forward

// From ln1 to ln2: attention and the residual after it.
static void attention_block(Transformer* t, const ParameterSet* p, const DeviceStream* s, int l, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    int T = s->T, C = c->C, att = c->NH * c->HS, qkv = qkv_width(c);
    matmul_forward(a->qkv, NULL, a->ln1, weight(p, QKVW, l), weight(p, QKVB, l), T, C, qkv, qkv, C, C, stream);
    attention_forward(a->atty, a->lse, a->qkv, s->cu_seqlens, s->tiles, s->n_tiles, T, c->NH, c->NKV, c->HS, qkv, att, c->attention_scale, stream);
    matmul_forward(t->width_a, NULL, a->atty, weight(p, ATTPROJW, l), weight(p, ATTPROJB, l), T, att, C, C, att, att, stream);
    fused_residual_layernorm_forward(a->residual2, a->ln2, a->ln2_mean, a->ln2_rstd, residual_of(t, l), t->width_a, weight(p, LN2W, l), weight(p, LN2B, l), T, C,
                                     C, c->norm_eps, stream);
}

// From ln2 to the activation of the MLP.
static void mlp_block(Transformer* t, const ParameterSet* p, const DeviceStream* s, int l, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    matmul_forward(a->fch_act, a->fch, a->ln2, weight(p, UPW, l), weight(p, UPB, l), s->T, c->C, c->FF, c->FF, c->C, c->C, stream);
}

// The MLP's output, the residual, and the norm that comes next: the following layer's ln1, or lnf.
static void mlp_out(Transformer* t, const ParameterSet* p, const DeviceStream* s, int l, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    bool last = l + 1 == c->L;
    LayerActivations* next = last ? NULL : slot_of(t, l + 1);
    matmul_forward(t->width_a, NULL, a->fch_act, weight(p, DOWNW, l), weight(p, DOWNB, l), s->T, c->FF, c->C, c->C, c->FF, c->FF, stream);
    fused_residual_layernorm_forward(residual_of(t, l + 1), last ? t->lnf : next->ln1, last ? t->lnf_mean : next->ln1_mean,
                                     last ? t->lnf_rstd : next->ln1_rstd, a->residual2, t->width_a, last ? weight(p, LNFW, 0) : weight(p, LN1W, l + 1),
                                     last ? weight(p, LNFB, 0) : weight(p, LN1B, l + 1), s->T, c->C, c->C, c->norm_eps, stream);
}

void transformer_forward(Transformer* t, const ParameterSet* p, const DeviceStream* s, cudaStream_t stream) {
    NVTX_RANGE("forward");
    const ModelConfig* c = &t->layout->config;
    if (s->T > t->T) program_error("a stream of %d tokens meets a plan for %d", s->T, t->T);
    LayerActivations* first = slot_of(t, 0);
    embedding_forward(residual_of(t, 0), s->tokens, s->positions, weight(p, WTE, 0), weight(p, WPE, 0), s->T, c->C, stream);
    layernorm_forward(first->ln1, first->ln1_mean, first->ln1_rstd, residual_of(t, 0), weight(p, LN1W, 0), weight(p, LN1B, 0), s->T, c->C, c->C, c->norm_eps,
                      stream);
    for (int l = 0; l < c->L; l++) {
        NVTX_RANGE("layer");
        attention_block(t, p, s, l, stream);
        mlp_block(t, p, s, l, stream);
        mlp_out(t, p, s, l, stream);
    }
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// the weighted loss

void transformer_loss(Transformer* t, const ParameterSet* p, const DeviceStream* s, float* sample_loss, bool backward, cudaStream_t stream) {
    NVTX_RANGE("loss");
    const ModelConfig* c = &t->layout->config;
    TensorKind head = c->tied_head ? WTE : HEADW;
    floatX* hidden = t->width_a;   // (n, C)
    floatX* dhidden = t->width_b;  // (n, C)
    gather_rows(hidden, t->lnf, s->loss_rows, s->n_loss_padded, c->C, c->C, stream);
    for (int i = 0; i < s->n_loss_padded; i += t->head_rows) {
        int n = s->n_loss_padded - i < t->head_rows ? s->n_loss_padded - i : t->head_rows;
        floatX* x = hidden + (size_t)i * c->C;
        matmul_forward(t->logits, NULL, x, weight(p, head, 0), NULL, n, c->C, c->Vp, c->Vp, c->C, c->C, stream);
        cross_entropy(t->logits, t->token_loss + i, s->targets + i, backward ? s->weight + i : NULL, n, c->V, c->Vp, stream);
        if (!backward) continue;
        matmul_backward_input(dhidden + (size_t)i * c->C, t->logits, weight(p, head, 0), NULL, n, c->C, c->Vp, c->C, c->Vp, c->C, false, stream);
        matmul_backward_weight(gradient(p, head, 0), t->logits, x, n, c->C, c->Vp, c->C, c->Vp, stream);
    }
    sample_losses(sample_loss, t->token_loss, s->loss_start, s->place, s->n_samples, stream);
}

void transformer_logits(Transformer* t, const ParameterSet* p, const int* rows, int n, float* logits, cudaStream_t stream) {
    const ModelConfig* c = &t->layout->config;
    floatX* out = (floatX*)malloc((size_t)t->head_rows * c->Vp * sizeof(floatX));
    int* device_rows = NULL;
    if (!out) fatal("out of host memory for logits");
    cudaCheck(cudaMalloc((void**)&device_rows, (size_t)n * sizeof(int)));
    cudaCheck(cudaMemcpyAsync(device_rows, rows, (size_t)n * sizeof(int), cudaMemcpyHostToDevice, stream));
    gather_rows(t->width_a, t->lnf, device_rows, n, c->C, c->C, stream);
    for (int i = 0; i < n; i += t->head_rows) {
        int m = n - i < t->head_rows ? n - i : t->head_rows;
        matmul_forward(t->logits, NULL, t->width_a + (size_t)i * c->C, weight(p, c->tied_head ? WTE : HEADW, 0), NULL, m, c->C, c->Vp, c->Vp, c->C, c->C, stream);
        cudaCheck(cudaMemcpyAsync(out, t->logits, (size_t)m * c->Vp * sizeof(floatX), cudaMemcpyDeviceToHost, stream));
        cudaCheck(cudaStreamSynchronize(stream));
        for (int r = 0; r < m; r++)
            for (int v = 0; v < c->V; v++) logits[(size_t)(i + r) * c->V + v] = to_float(out[(size_t)r * c->Vp + v]);
    }
    cudaCheck(cudaFree(device_rows));
    free(out);
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// backward

// Gradients of a linear layer's weight and bias, out (T, OC) = inp (T, C) · weightᵀ + bias.
static void linear_gradients(Transformer* t, const ParameterSet* p, TensorKind w, TensorKind b, int l, const floatX* dout, const floatX* inp, int T, int C, int OC,
                             cudaStream_t stream) {
    matmul_backward_weight(gradient(p, w, l), dout, inp, T, C, OC, C, OC, stream);
    if (gradient(p, b, l)) matmul_backward_bias(gradient(p, b, l), t->partial, dout, T, OC, OC, stream);
}

// dresidual arrives as the gradient of the layer's output and leaves as that of its input: each norm adds its part to the part that goes past it.
static void layer_backward(Transformer* t, const ParameterSet* p, const DeviceStream* s, int l, cudaStream_t stream) {
    NVTX_RANGE("layer");
    const ModelConfig* c = &t->layout->config;
    LayerActivations* a = slot_of(t, l);
    int T = s->T, C = c->C, FF = c->FF, att = c->NH * c->HS, qkv = qkv_width(c);
    floatX *dln = t->width_a, *datty = t->width_b, *dresidual = t->dresidual;
    if (t->keep == KEEP_RESIDUALS) {
        layernorm_forward(a->ln1, a->ln1_mean, a->ln1_rstd, residual_of(t, l), weight(p, LN1W, l), weight(p, LN1B, l), T, C, C, c->norm_eps, stream);
        attention_block(t, p, s, l, stream);
        mlp_block(t, p, s, l, stream);
    }
    linear_gradients(t, p, DOWNW, DOWNB, l, dresidual, a->fch_act, T, FF, C, stream);
    matmul_backward_input(t->dfch, dresidual, weight(p, DOWNW, l), a->fch, T, FF, C, FF, C, FF, false, stream);
    linear_gradients(t, p, UPW, UPB, l, t->dfch, a->ln2, T, C, FF, stream);
    matmul_backward_input(dln, t->dfch, weight(p, UPW, l), NULL, T, C, FF, C, FF, C, false, stream);
    layernorm_backward(dresidual, gradient(p, LN2W, l), gradient(p, LN2B, l), t->partial, dln, a->residual2, weight(p, LN2W, l), a->ln2_mean, a->ln2_rstd, T, C, C,
                       stream);
    linear_gradients(t, p, ATTPROJW, ATTPROJB, l, dresidual, a->atty, T, att, C, stream);
    matmul_backward_input(datty, dresidual, weight(p, ATTPROJW, l), NULL, T, att, C, att, C, att, false, stream);
    attention_backward(t->dqkv, t->delta, datty, a->atty, a->lse, a->qkv, s->cu_seqlens, s->tiles, s->n_tiles, T, c->NH, c->NKV, c->HS, qkv, qkv, att,
                       c->attention_scale, stream);
    linear_gradients(t, p, QKVW, QKVB, l, t->dqkv, a->ln1, T, C, qkv, stream);
    matmul_backward_input(dln, t->dqkv, weight(p, QKVW, l), NULL, T, C, qkv, C, qkv, C, false, stream);
    layernorm_backward(dresidual, gradient(p, LN1W, l), gradient(p, LN1B, l), t->partial, dln, residual_of(t, l), weight(p, LN1W, l), a->ln1_mean, a->ln1_rstd, T, C,
                       C, stream);
}

void transformer_backward(Transformer* t, const ParameterSet* p, const DeviceStream* s, cudaStream_t stream) {
    NVTX_RANGE("backward");
    const ModelConfig* c = &t->layout->config;
    if (t->keep == KEEP_NOTHING) program_error("backward on a plan that keeps no activations");
    floatX* dlnf = t->width_a;
    scatter_rows(dlnf, t->width_b, s->loss_index, s->T, c->C, stream);
    cudaCheck(cudaMemsetAsync(t->dresidual, 0, (size_t)s->T * c->C * sizeof(floatX), stream));
    layernorm_backward(t->dresidual, gradient(p, LNFW, 0), gradient(p, LNFB, 0), t->partial, dlnf, residual_of(t, c->L), weight(p, LNFW, 0), t->lnf_mean,
                       t->lnf_rstd, s->T, c->C, c->C, stream);
    for (int l = c->L - 1; l >= 0; l--) layer_backward(t, p, s, l, stream);
    embedding_backward(gradient(p, WTE, 0), t->dresidual, s->token_order, s->token_segment_start, s->token_segment_row, s->n_token_segments, c->C, stream);
    if (gradient(p, WPE, 0))
        embedding_backward(gradient(p, WPE, 0), t->dresidual, s->position_order, s->position_segment_start, s->position_segment_row, s->n_position_segments, c->C,
                           stream);
}
