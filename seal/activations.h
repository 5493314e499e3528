/*
Where the transformer's activations are, and how wide: what activations.cu, which plans their memory, and
transformer.cu, which fills them, both need to know. Private to these two.
*/
#ifndef SEAL_ACTIVATIONS_H
#define SEAL_ACTIVATIONS_H

#include "transformer.h"

static inline LayerActivations* slot_of(const Transformer* t, int l) { return &t->layers[l % t->n_layer_slots]; }
static inline floatX* residual_of(const Transformer* t, int l) { return t->residual[l % t->n_residual_slots]; }
static inline int qkv_width(const ModelConfig* c) { return (c->NH + 2 * c->NKV) * c->HS; }
static inline int up_width(const ModelConfig* c) { return mlp_gated(c) ? 2 * c->FF : c->FF; }
// A site's input width, and its row stride, which is its weight's.
static inline const ModelTensor* site_tensor(const Transformer* t, Site site) {
    return &t->layout->tensors[tensor_index(t->layout, site_weight(site), 0)];
}
static inline int site_cols(const Transformer* t, Site site) { return (int)site_tensor(t, site)->cols; }
static inline int site_ld(const Transformer* t, Site site) { return (int)site_tensor(t, site)->ld; }
static inline bool adapted(const Transformer* t, Site site) { return t->lora && t->lora->sites[site].n; }
// Whether the output of a layer's branches is normed before it joins the residual.
static inline bool normed_after(const Transformer* t) { return tensor_index(t->layout, POST1W, 0) >= 0; }
// Whether a branch's gradient differs from that of the residual it joined: a norm or a factor is between them.
static inline bool branch_changed(const Transformer* t) {
    return normed_after(t) || t->layout->config.residual_scale != 1.0f;
}

#endif
