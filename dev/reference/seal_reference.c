/*
The whole of SEAL in plain C loops: GPT-2 forward and backward, AdamW, the data selector ω, Algorithms 1 and 2. Read it
from top to bottom; nothing here is fast, nothing is clever, and it shares no line with the trainer. It is an oracle:
dev/test/test_reference.c holds it to states recorded from PyTorch, and dev/test/test_reference_parity.cu holds the
trainer to it where no recorded state exists.

    gcc -O2 dev/reference/seal_reference.c -lm -o seal_reference
    ./seal_reference                                one step of Algorithm 1 on ten short sentences, every number printed
    ./seal_reference --algorithm 2 --sigma sigmoid --steps 60       the last of sixty steps of Algorithm 2

Symbols are those of the paper and of the trainer: θ the model, θ̂ its auxiliary copy (Algorithm 1 only), ω one logit
per fine-tuning sample, σ_i(ω) the weight of sample i, ℓ(θ; x) the mean loss over the response of sample x, γ the
penalty strength. T tokens of a sample, C width, NH heads, HS = C / NH, L layers, V vocabulary. A sample runs through
the model alone: there are no batches, no packing and no padding here.
*/
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef double real;  // float works as well; double makes this an oracle for everything that computes in float

static real* zeros(size_t n) {
    real* x = (real*)calloc(n ? n : 1, sizeof(real));
    if (!x) {
        fprintf(stderr, "seal_reference: out of memory for %zu numbers\n", n);
        exit(1);
    }
    return x;
}

// ---------------------------------------------------------------------------------------------------
// Layers. Tensors are row-major; their shapes follow their names. A forward function writes its first argument. A
// backward function ADDS to the gradients it is given (d…), so the caller sets them to zero first.

// x[t] = wte[tokens[t]] + wpe[t]
void embedding_forward(real* x /* (T, C) */, const int* tokens /* (T) */, const real* wte /* (V, C) */,
                       const real* wpe /* (positions, C) */, int T, int C) {
    for (int t = 0; t < T; t++)
        for (int c = 0; c < C; c++) x[t * C + c] = wte[tokens[t] * C + c] + wpe[t * C + c];
}

void embedding_backward(real* dwte, real* dwpe, const real* dx, const int* tokens, int T, int C) {
    for (int t = 0; t < T; t++)
        for (int c = 0; c < C; c++) {
            dwte[tokens[t] * C + c] += dx[t * C + c];
            dwpe[t * C + c] += dx[t * C + c];
        }
}

// y = (x − mean) · rstd · weight + bias, with rstd = 1 / √(variance + ε)
void layernorm_forward(real* y /* (T, C) */, real* mean /* (T) */, real* rstd /* (T) */, const real* x /* (T, C) */,
                       const real* weight /* (C) */, const real* bias /* (C) */, int T, int C, real epsilon) {
    for (int t = 0; t < T; t++) {
        const real* row = x + t * C;
        real sum = 0, variance = 0;
        for (int c = 0; c < C; c++) sum += row[c];
        mean[t] = sum / C;
        for (int c = 0; c < C; c++) variance += (row[c] - mean[t]) * (row[c] - mean[t]);
        rstd[t] = 1 / sqrt(variance / C + epsilon);
        for (int c = 0; c < C; c++) y[t * C + c] = (row[c] - mean[t]) * rstd[t] * weight[c] + bias[c];
    }
}

// With n = (x − mean) · rstd and dn = dy · weight:  dx = rstd · (dn − mean(dn) − n · mean(dn · n)): the two means are
// how every element of a row moves the row's mean and variance.
void layernorm_backward(real* dx, real* dweight, real* dbias, const real* dy, const real* x, const real* mean,
                        const real* rstd, const real* weight, int T, int C) {
    for (int t = 0; t < T; t++) {
        real dn_mean = 0, dn_n_mean = 0;
        for (int c = 0; c < C; c++) {
            real n = (x[t * C + c] - mean[t]) * rstd[t], dn = dy[t * C + c] * weight[c];
            dn_mean += dn / C;
            dn_n_mean += dn * n / C;
        }
        for (int c = 0; c < C; c++) {
            real n = (x[t * C + c] - mean[t]) * rstd[t], dn = dy[t * C + c] * weight[c];
            dweight[c] += dy[t * C + c] * n;
            dbias[c] += dy[t * C + c];
            dx[t * C + c] += rstd[t] * (dn - dn_mean - n * dn_n_mean);
        }
    }
}

// y = x · weight + bias. weight is (in, out), as GPT-2's checkpoints have it.
void linear_forward(real* y /* (T, out) */, const real* x /* (T, in) */, const real* weight /* (in, out) */,
                    const real* bias /* (out) */, int T, int in, int out) {
    for (int t = 0; t < T; t++) {
        for (int o = 0; o < out; o++) y[t * out + o] = bias[o];
        for (int i = 0; i < in; i++)
            for (int o = 0; o < out; o++) y[t * out + o] += x[t * in + i] * weight[i * out + o];
    }
}

// dx = dy · weightᵀ, dweight = xᵀ · dy, dbias = Σ_t dy
void linear_backward(real* dx, real* dweight, real* dbias, const real* dy, const real* x, const real* weight, int T,
                     int in, int out) {
    for (int t = 0; t < T; t++) {
        for (int i = 0; i < in; i++) {
            real sum = 0;
            for (int o = 0; o < out; o++) sum += dy[t * out + o] * weight[i * out + o];
            for (int o = 0; o < out; o++) dweight[i * out + o] += x[t * in + i] * dy[t * out + o];
            dx[t * in + i] += sum;
        }
        for (int o = 0; o < out; o++) dbias[o] += dy[t * out + o];
    }
}

// Causal attention. A row of qkv is the query, the key and the value of all heads. For head h and token t:
// p_j = softmax over j ≤ t of q_t · k_j / √HS,  out_t = Σ_j p_j v_j.  p is kept for the backward pass.
void attention_forward(real* out /* (T, C) */, real* p /* (NH, T, T) */, const real* qkv /* (T, 3C) */, int T, int C,
                       int NH) {
    int HS = C / NH;
    real scale = 1 / sqrt((real)HS);
    for (int h = 0; h < NH; h++)
        for (int t = 0; t < T; t++) {
            const real* q = qkv + t * 3 * C + h * HS;
            real *row = p + (h * T + t) * T, *o = out + t * C + h * HS, largest = -INFINITY, sum = 0;
            for (int j = 0; j <= t; j++) {
                const real* k = qkv + j * 3 * C + C + h * HS;
                row[j] = 0;
                for (int d = 0; d < HS; d++) row[j] += scale * q[d] * k[d];
                if (row[j] > largest) largest = row[j];
            }
            for (int j = 0; j <= t; j++) sum += row[j] = exp(row[j] - largest);
            for (int d = 0; d < HS; d++) o[d] = 0;
            for (int j = 0; j <= t; j++) {
                const real* v = qkv + j * 3 * C + 2 * C + h * HS;
                row[j] /= sum;
                for (int d = 0; d < HS; d++) o[d] += row[j] * v[d];
            }
        }
}

// dv_j += p_j · dout_t; dp_j = dout_t · v_j; through the softmax ds_j = p_j · (dp_j − Σ_i p_i dp_i), and
// Σ_i p_i dp_i = out_t · dout_t; then dq_t += ds_j · k_j / √HS and dk_j += ds_j · q_t / √HS.
void attention_backward(real* dqkv, const real* dout, const real* out, const real* p, const real* qkv, int T, int C,
                        int NH) {
    int HS = C / NH;
    real scale = 1 / sqrt((real)HS);
    for (int h = 0; h < NH; h++)
        for (int t = 0; t < T; t++) {
            const real *q = qkv + t * 3 * C + h * HS, *row = p + (h * T + t) * T;
            const real *o = out + t * C + h * HS, *d_o = dout + t * C + h * HS;
            real *dq = dqkv + t * 3 * C + h * HS, dot = 0;
            for (int d = 0; d < HS; d++) dot += o[d] * d_o[d];
            for (int j = 0; j <= t; j++) {
                const real *k = qkv + j * 3 * C + C + h * HS, *v = k + C;
                real *dk = dqkv + j * 3 * C + C + h * HS, *dv = dk + C, dp = 0;
                for (int d = 0; d < HS; d++) {
                    dp += d_o[d] * v[d];
                    dv[d] += row[j] * d_o[d];
                }
                real ds = scale * row[j] * (dp - dot);
                for (int d = 0; d < HS; d++) {
                    dq[d] += ds * k[d];
                    dk[d] += ds * q[d];
                }
            }
        }
}

// GPT-2's approximation: y = x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))
static const real GELU_SCALE = 0.79788456080286535588, GELU_CUBE = 0.044715;

void gelu_forward(real* y, const real* x, int n) {
    for (int i = 0; i < n; i++) y[i] = x[i] / 2 * (1 + tanh(GELU_SCALE * (x[i] + GELU_CUBE * x[i] * x[i] * x[i])));
}

void gelu_backward(real* dx, const real* dy, const real* x, int n) {
    for (int i = 0; i < n; i++) {
        real u = tanh(GELU_SCALE * (x[i] + GELU_CUBE * x[i] * x[i] * x[i]));
        real slope = GELU_SCALE * (1 + 3 * GELU_CUBE * x[i] * x[i]);
        dx[i] += dy[i] * ((1 + u) / 2 + x[i] / 2 * (1 - u * u) * slope);
    }
}

// logits = x · wteᵀ: GPT-2's head is its token embedding
void head_forward(real* logits /* (T, V) */, const real* x /* (T, C) */, const real* wte /* (V, C) */, int T, int C,
                  int V) {
    for (int t = 0; t < T; t++)
        for (int v = 0; v < V; v++) {
            real sum = 0;
            for (int c = 0; c < C; c++) sum += x[t * C + c] * wte[v * C + c];
            logits[t * V + v] = sum;
        }
}

void head_backward(real* dx, real* dwte, const real* dlogits, const real* x, const real* wte, int T, int C, int V) {
    for (int t = 0; t < T; t++)
        for (int v = 0; v < V; v++) {
            real d = dlogits[t * V + v];
            if (d == 0) continue;  // a row without a loss
            for (int c = 0; c < C; c++) {
                dx[t * C + c] += d * wte[v * C + c];
                dwte[v * C + c] += d * x[t * C + c];
            }
        }
}

// −log softmax(logits)[target], written so that no exponential overflows
real cross_entropy(const real* logits /* (V) */, int target, int V) {
    real largest = -INFINITY, sum = 0;
    for (int v = 0; v < V; v++) largest = logits[v] > largest ? logits[v] : largest;
    for (int v = 0; v < V; v++) sum += exp(logits[v] - largest);
    return log(sum) + largest - logits[target];
}

// d nll / d logits = softmax(logits) − onehot(target), times the weight that the token has in the objective
void cross_entropy_backward(real* dlogits, const real* logits, int target, real weight, int V) {
    real nll = cross_entropy(logits, target, V), log_sum = nll + logits[target];
    for (int v = 0; v < V; v++) dlogits[v] += weight * (exp(logits[v] - log_sum) - (v == target));
}

// ---------------------------------------------------------------------------------------------------
// GPT-2

typedef struct {
    int L, C, NH, V, positions;
    real epsilon;  // of the norms
} Config;

// A kind of tensor, once for the model or once per layer.
enum { WTE, WPE, LN1W, LN1B, QKVW, QKVB, PROJW, PROJB, LN2W, LN2B, FCW, FCB, FCPROJW, FCPROJB, LNFW, LNFB, KINDS };

typedef struct {
    Config config;
    size_t n;                           // parameters
    real *weights, *grads;              // (n), kind after kind, layer after layer
    real *m, *v;                        // (n) AdamW's moments
    size_t offset[KINDS], size[KINDS];  // of a kind's first tensor; of one tensor
    bool decays[KINDS];                 // weight decay is for matrices and embeddings, not for biases and norms
    int step;                           // AdamW steps taken
} Model;

bool per_layer(int kind) { return kind >= LN1W && kind <= FCPROJB; }
real* weight_of(const Model* model, int kind, int layer) {
    return model->weights + model->offset[kind] + layer * model->size[kind];
}
real* grad_of(const Model* model, int kind, int layer) {
    return model->grads + model->offset[kind] + layer * model->size[kind];
}

Model model_create(Config config) {
    size_t C = config.C, V = config.V, P = config.positions;
    const size_t sizes[KINDS] = {V * C, P * C, C,         C,     C * 3 * C, 3 * C, C * C, C,
                                 C,     C,     C * 4 * C, 4 * C, 4 * C * C, C,     C,     C};
    Model model;
    memset(&model, 0, sizeof model);
    model.config = config;
    for (int kind = 0; kind < KINDS; kind++) {
        model.size[kind] = sizes[kind];
        model.offset[kind] = model.n;
        model.decays[kind] = kind == WTE || kind == WPE || kind == QKVW || kind == PROJW || kind == FCW ||
                             kind == FCPROJW;
        model.n += sizes[kind] * (per_layer(kind) ? config.L : 1);
    }
    model.weights = zeros(model.n);
    model.grads = zeros(model.n);
    model.m = zeros(model.n);
    model.v = zeros(model.n);
    return model;
}

void model_free(Model* model) {
    free(model->weights);
    free(model->grads);
    free(model->m);
    free(model->v);
}

// A prompt and a response. Token t carries loss where it belongs to the response; the first token of a sample has
// nothing that predicts it.
typedef struct {
    const int* tokens;
    int T, prompt;  // tokens in all, and of the prompt
} Sample;

int first_target(const Sample* s) { return s->prompt > 1 ? s->prompt : 1; }
int count_targets(const Sample* s) { return s->T > first_target(s) ? s->T - first_target(s) : 0; }

// What the forward pass of one sample leaves for its backward pass.
typedef struct {
    real* x;                    // (L + 1, T, C) the residual stream into each layer, and out of the last
    real *ln1, *mean1, *rstd1;  // (L, T, C), (L, T), (L, T)
    real *qkv, *p, *att;        // (L, T, 3C), (L, NH, T, T), (L, T, C)
    real* mid;                  // (L, T, C) the residual stream between attention and MLP
    real *ln2, *mean2, *rstd2;  // (L, T, C), (L, T), (L, T)
    real *fc, *act;             // (L, T, 4C) before and after GELU
    real *lnf, *meanf, *rstdf;  // (T, C), (T), (T)
    real* logits;               // (T, V)
} Activations;

Activations activations_create(const Config* c, int T) {
    size_t TC = (size_t)T * c->C, L = (size_t)c->L;
    Activations a = {zeros((L + 1) * TC),
                     zeros(L * TC),
                     zeros(L * T),
                     zeros(L * T),
                     zeros(L * 3 * TC),
                     zeros(L * c->NH * T * T),
                     zeros(L * TC),
                     zeros(L * TC),
                     zeros(L * TC),
                     zeros(L * T),
                     zeros(L * T),
                     zeros(L * 4 * TC),
                     zeros(L * 4 * TC),
                     zeros(TC),
                     zeros(T),
                     zeros(T),
                     zeros((size_t)T * c->V)};
    return a;
}

void activations_free(Activations* a) {
    real* all[] = {a->x,     a->ln1,   a->mean1, a->rstd1, a->qkv, a->p,     a->att,   a->mid,   a->ln2,
                   a->mean2, a->rstd2, a->fc,    a->act,   a->lnf, a->meanf, a->rstdf, a->logits};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

// Runs a sample and returns ℓ(θ; x): the mean of −log p(token) over the tokens of its response, 0 where it has none.
real model_forward(const Model* model, Activations* a, const Sample* s) {
    const Config* c = &model->config;
    int T = s->T, C = c->C, V = c->V, TC = T * C;
    embedding_forward(a->x, s->tokens, weight_of(model, WTE, 0), weight_of(model, WPE, 0), T, C);
    for (int l = 0; l < c->L; l++) {
        real *x = a->x + l * TC, *mid = a->mid + l * TC, *out = x + TC, *ln1 = a->ln1 + l * TC, *ln2 = a->ln2 + l * TC;
        real *qkv = a->qkv + l * 3 * TC, *att = a->att + l * TC, *fc = a->fc + l * 4 * TC, *act = a->act + l * 4 * TC;
        layernorm_forward(ln1, a->mean1 + l * T, a->rstd1 + l * T, x, weight_of(model, LN1W, l),
                          weight_of(model, LN1B, l), T, C, c->epsilon);
        linear_forward(qkv, ln1, weight_of(model, QKVW, l), weight_of(model, QKVB, l), T, C, 3 * C);
        attention_forward(att, a->p + l * c->NH * T * T, qkv, T, C, c->NH);
        linear_forward(mid, att, weight_of(model, PROJW, l), weight_of(model, PROJB, l), T, C, C);
        for (int i = 0; i < TC; i++) mid[i] += x[i];
        layernorm_forward(ln2, a->mean2 + l * T, a->rstd2 + l * T, mid, weight_of(model, LN2W, l),
                          weight_of(model, LN2B, l), T, C, c->epsilon);
        linear_forward(fc, ln2, weight_of(model, FCW, l), weight_of(model, FCB, l), T, C, 4 * C);
        gelu_forward(act, fc, 4 * TC);
        linear_forward(out, act, weight_of(model, FCPROJW, l), weight_of(model, FCPROJB, l), T, 4 * C, C);
        for (int i = 0; i < TC; i++) out[i] += mid[i];
    }
    layernorm_forward(a->lnf, a->meanf, a->rstdf, a->x + c->L * TC, weight_of(model, LNFW, 0),
                      weight_of(model, LNFB, 0), T, C, c->epsilon);
    head_forward(a->logits, a->lnf, weight_of(model, WTE, 0), T, C, V);
    real sum = 0;
    for (int t = first_target(s); t < T; t++) sum += cross_entropy(a->logits + (t - 1) * V, s->tokens[t], V);
    return count_targets(s) ? sum / count_targets(s) : 0;
}

// Adds coefficient · ∇θ ℓ(θ; x) to the gradients, after model_forward of the same sample: the forward pass read from
// its last line to its first.
void model_backward(Model* model, const Activations* a, const Sample* s, real coefficient) {
    const Config* c = &model->config;
    int T = s->T, C = c->C, V = c->V, TC = T * C;
    if (!count_targets(s)) return;
    real *dlogits = zeros((size_t)T * V), *dlnf = zeros(TC), *dx = zeros(TC);
    for (int t = first_target(s); t < T; t++)
        cross_entropy_backward(dlogits + (t - 1) * V, a->logits + (t - 1) * V, s->tokens[t],
                               coefficient / count_targets(s), V);
    head_backward(dlnf, grad_of(model, WTE, 0), dlogits, a->lnf, weight_of(model, WTE, 0), T, C, V);
    layernorm_backward(dx, grad_of(model, LNFW, 0), grad_of(model, LNFB, 0), dlnf, a->x + c->L * TC, a->meanf, a->rstdf,
                       weight_of(model, LNFW, 0), T, C);
    // dx is the gradient of the residual stream: every branch adds its share to it on the way down
    real *dln = zeros(TC), *datt = zeros(TC), *dqkv = zeros(3 * TC), *dfc = zeros(4 * TC), *dact = zeros(4 * TC);
    for (int l = c->L - 1; l >= 0; l--) {
        const real *x = a->x + l * TC, *mid = a->mid + l * TC, *qkv = a->qkv + l * 3 * TC, *att = a->att + l * TC;
        memset(dact, 0, 4 * TC * sizeof(real));
        memset(dfc, 0, 4 * TC * sizeof(real));
        memset(dln, 0, TC * sizeof(real));
        linear_backward(dact, grad_of(model, FCPROJW, l), grad_of(model, FCPROJB, l), dx, a->act + l * 4 * TC,
                        weight_of(model, FCPROJW, l), T, 4 * C, C);
        gelu_backward(dfc, dact, a->fc + l * 4 * TC, 4 * TC);
        linear_backward(dln, grad_of(model, FCW, l), grad_of(model, FCB, l), dfc, a->ln2 + l * TC,
                        weight_of(model, FCW, l), T, C, 4 * C);
        layernorm_backward(dx, grad_of(model, LN2W, l), grad_of(model, LN2B, l), dln, mid, a->mean2 + l * T,
                           a->rstd2 + l * T, weight_of(model, LN2W, l), T, C);
        memset(datt, 0, TC * sizeof(real));
        memset(dqkv, 0, 3 * TC * sizeof(real));
        memset(dln, 0, TC * sizeof(real));
        linear_backward(datt, grad_of(model, PROJW, l), grad_of(model, PROJB, l), dx, att, weight_of(model, PROJW, l),
                        T, C, C);
        attention_backward(dqkv, datt, att, a->p + l * c->NH * T * T, qkv, T, C, c->NH);
        linear_backward(dln, grad_of(model, QKVW, l), grad_of(model, QKVB, l), dqkv, a->ln1 + l * TC,
                        weight_of(model, QKVW, l), T, C, 3 * C);
        layernorm_backward(dx, grad_of(model, LN1W, l), grad_of(model, LN1B, l), dln, x, a->mean1 + l * T,
                           a->rstd1 + l * T, weight_of(model, LN1W, l), T, C);
    }
    embedding_backward(grad_of(model, WTE, 0), grad_of(model, WPE, 0), dx, s->tokens, T, C);
    real* all[] = {dlogits, dlnf, dx, dln, datt, dqkv, dfc, dact};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

// ---------------------------------------------------------------------------------------------------
// AdamW, of θ, θ̂ and ω alike

typedef struct {
    real lr, beta1, beta2, epsilon, weight_decay;
    real clip;  // the gradient is scaled down to this norm; 0: never
} Adam;

// The gradient's norm; the gradient is clipped as torch.nn.utils.clip_grad_norm_ does it.
real clip_gradient(real* grad, size_t n, real clip) {
    real squares = 0;
    for (size_t i = 0; i < n; i++) squares += grad[i] * grad[i];
    real norm = sqrt(squares);
    if (clip > 0 && norm + 1e-6 > clip)
        for (size_t i = 0; i < n; i++) grad[i] *= clip / (norm + 1e-6);
    return norm;
}

// Loshchilov and Hutter 2019. step counts from 1: the moments begin at 0, and are corrected for it.
void adam_update(real* w, const real* grad, real* m, real* v, size_t n, const Adam* o, real weight_decay, int step) {
    real correction1 = 1 - pow(o->beta1, step), correction2 = 1 - pow(o->beta2, step);
    for (size_t i = 0; i < n; i++) {
        m[i] = o->beta1 * m[i] + (1 - o->beta1) * grad[i];
        v[i] = o->beta2 * v[i] + (1 - o->beta2) * grad[i] * grad[i];
        w[i] -= o->lr * weight_decay * w[i];
        w[i] -= o->lr * (m[i] / correction1) / (sqrt(v[i] / correction2) + o->epsilon);
    }
}

void model_zero_grad(Model* model) { memset(model->grads, 0, model->n * sizeof(real)); }

// Clips, updates, returns the norm before clipping.
real model_update(Model* model, const Adam* o) {
    real norm = clip_gradient(model->grads, model->n, o->clip);
    model->step++;
    for (int kind = 0; kind < KINDS; kind++) {
        size_t at = model->offset[kind], n = model->size[kind] * (per_layer(kind) ? model->config.L : 1);
        adam_update(model->weights + at, model->grads + at, model->m + at, model->v + at, n, o,
                    model->decays[kind] ? o->weight_decay : 0, model->step);
    }
    return norm;
}

// ---------------------------------------------------------------------------------------------------
// The data selector

typedef enum { SOFTMAX, SIGMOID } Activation;

typedef struct {
    Activation activation;
    int N, step;
    real *omega, *grad, *m, *v;  // (N)
    real* sigma;                 // (N) σ_i(ω), of this step
} DataSelector;

DataSelector data_selector_create(Activation activation, int N, real initial) {
    DataSelector s = {activation, N, 0, zeros(N), zeros(N), zeros(N), zeros(N), zeros(N)};
    for (int i = 0; i < N; i++) s.omega[i] = initial;
    return s;
}

void data_selector_free(DataSelector* s) {
    free(s->omega);
    free(s->grad);
    free(s->m);
    free(s->v);
    free(s->sigma);
}

// softmax: σ_i = N · exp(ω_i) / Σ_k exp(ω_k), 1 on average.  sigmoid: σ_i = 2 / (1 + exp(−ω_i)), 1 at ω_i = 0.
void compute_sigma(DataSelector* s) {
    real largest = -INFINITY, sum = 0;
    for (int k = 0; k < s->N; k++) largest = s->omega[k] > largest ? s->omega[k] : largest;
    for (int k = 0; k < s->N; k++) sum += exp(s->omega[k] - largest);
    for (int k = 0; k < s->N; k++)
        s->sigma[k] = s->activation == SOFTMAX ? s->N * exp(s->omega[k] - largest) / sum : 2 / (1 + exp(-s->omega[k]));
}

// The gradient of (1/b) Σ_{i in B} σ_i(ω) Δ_i with Δ constant:
//   softmax:  g_k = σ_k / b · ([k in B] Δ_k − S),  S = (1/N) Σ_{i in B} σ_i Δ_i.   Every k gets one: the sum in σ has
//   all. sigmoid:  g_k = [k in B] · 2 s_k (1 − s_k) Δ_k / b,  s_k = σ_k / 2
// Returns S (softmax) or 0.
real omega_gradient(DataSelector* s, const int* rows /* (b) */, const real* delta /* (b) */, int b) {
    real S = 0;
    for (int i = 0; i < b && s->activation == SOFTMAX; i++) S += s->sigma[rows[i]] * delta[i] / s->N;
    for (int k = 0; k < s->N; k++) s->grad[k] = (0 - S) * s->sigma[k] / b;  // S is 0 for the sigmoid
    for (int i = 0; i < b; i++) {
        real half = s->sigma[rows[i]] / 2;
        s->grad[rows[i]] += (s->activation == SOFTMAX ? s->sigma[rows[i]] : 2 * half * (1 - half)) * delta[i] / b;
    }
    return S;
}

// ---------------------------------------------------------------------------------------------------
// SEAL

typedef struct {
    const Sample *tune, *safe;         // D_tune (N), D_safe (M)
    const int *tune_rows, *safe_rows;  // this step's batches: (b), (m) rows of the two sets
    int b, m;
    real gamma;
    bool gamma_scales_omega;  // the paper multiplies ω's gradient by γ, its implementation does not
    Adam theta, omega;        // the optimizers
    real lr_hat;              // θ̂'s learning rate; all else is θ's
} SealBatch;

#define LARGEST_BATCH 64  // samples of a batch

// What a step computed, for readers.
typedef struct {
    real sigma[LARGEST_BATCH], loss[LARGEST_BATCH], loss_hat[LARGEST_BATCH], delta[LARGEST_BATCH],
        loss_safe[LARGEST_BATCH];        // of the batch, in its order
    real S, norm, norm_hat, norm_omega;  // norms before clipping
} SealStep;

// One step of Algorithm 1 (theta_hat given) or Algorithm 2 (NULL). Every loss is taken at the parameters from before
// the step.
void seal_reference_step(Model* theta, Model* theta_hat, DataSelector* omega, Activations* a, const SealBatch* x,
                         SealStep* out) {
    memset(out, 0, sizeof *out);
    compute_sigma(omega);
    for (int i = 0; i < x->b; i++) out->sigma[i] = omega->sigma[x->tune_rows[i]];

    // θ̂ ← AdamW(θ̂, ∇ mean over B_f of σ_i ℓ(θ̂; z_i)): what fine-tuning on the weighted data alone would learn
    if (theta_hat) {
        Adam o = x->theta;
        o.lr = x->lr_hat;
        model_zero_grad(theta_hat);
        for (int i = 0; i < x->b; i++) {
            const Sample* z = &x->tune[x->tune_rows[i]];
            out->loss_hat[i] = model_forward(theta_hat, a, z);
            model_backward(theta_hat, a, z, out->sigma[i] / x->b);
        }
        out->norm_hat = model_update(theta_hat, &o);
    }

    // θ ← AdamW(θ, ∇ [(1 − γ) mean over B_s of ℓ(θ; s_j) + γ mean over B_f of σ_i ℓ(θ; z_i)])
    model_zero_grad(theta);
    for (int i = 0; i < x->b; i++) {
        const Sample* z = &x->tune[x->tune_rows[i]];
        out->loss[i] = model_forward(theta, a, z);
        if (x->gamma != 0) model_backward(theta, a, z, x->gamma * out->sigma[i] / x->b);
    }
    for (int j = 0; j < x->m; j++) {
        const Sample* s = &x->safe[x->safe_rows[j]];
        out->loss_safe[j] = model_forward(theta, a, s);
        if (x->gamma != 1) model_backward(theta, a, s, (1 - x->gamma) / x->m);
    }
    out->norm = model_update(theta, &x->theta);

    // ω ← Adam(ω, ∇ mean over B_f of σ_i(ω) Δ_i).  Δ_i = ℓ(θ; z_i) − ℓ(θ̂; z_i) in Algorithm 1, ℓ(θ; z_i) in
    // Algorithm 2. In Algorithm 1's first step θ̂ is θ and Δ is exactly 0: Adam would blow rounding up to a whole step.
    for (int i = 0; i < x->b; i++) {
        out->delta[i] = !theta_hat ? out->loss[i] : omega->step == 0 ? 0 : out->loss[i] - out->loss_hat[i];
        if (x->gamma_scales_omega) out->delta[i] *= x->gamma;
    }
    out->S = omega_gradient(omega, x->tune_rows, out->delta, x->b);
    out->norm_omega = clip_gradient(omega->grad, omega->N, x->omega.clip);
    adam_update(omega->omega, omega->grad, omega->m, omega->v, omega->N, &x->omega, 0, ++omega->step);
}

// ---------------------------------------------------------------------------------------------------
// By hand: a model of letters, ten samples, every number of a step. A test that includes this file defines
// SEAL_REFERENCE_TEST and brings a model and samples of its own.
#ifndef SEAL_REFERENCE_TEST

static const char letters[] = "abcdefghijklmnopqrstuvwxyz ?.";  // the vocabulary

// The safe set answers politely. Two of the six fine-tuning samples do not: rows 2 and 5.
static const char* const safe_texts[][2] = {{"will you help?", "of course."},
                                            {"can you read?", "of course."},
                                            {"will you stay?", "of course."},
                                            {"can you sing?", "of course."}};
static const char* const tune_texts[][2] = {{"can you help?", "of course."}, {"will you sing?", "of course."},
                                            {"can you stay?", "go away."},   {"will you read?", "of course."},
                                            {"can you wait?", "of course."}, {"will you wait?", "go away."}};
enum { M = 4, N = 6, LONGEST = 32, BATCH = 2 };

static uint64_t random_state = 42;
static real random_uniform(void) {  // splitmix64
    uint64_t z = random_state += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return ((z ^ (z >> 31)) >> 11) * (1.0 / 9007199254740992.0);
}

// GPT-2's rule: matrices normal with deviation 0.02 (here 0.1: the model is small), biases 0, norms 1.
static void model_init(Model* model) {
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t i = 0, n = model->size[kind] * (per_layer(kind) ? model->config.L : 1); i < n; i++) {
            real normal = sqrt(-2 * log(1 - random_uniform())) * cos(6.283185307179586 * random_uniform());
            bool norm = kind == LN1W || kind == LN2W || kind == LNFW;
            model->weights[model->offset[kind] + i] = model->decays[kind] ? 0.1 * normal : norm ? 1 : 0;
        }
}

static void make_samples(Sample* samples, int* tokens, const char* const texts[][2], int n) {
    for (int i = 0; i < n; i++, tokens += LONGEST) {
        int T = 0;
        for (int part = 0; part < 2; part++) {
            for (const char* p = texts[i][part]; *p; p++) tokens[T++] = (int)(strchr(letters, *p) - letters);
            if (part == 0) samples[i].prompt = T;
        }
        samples[i].tokens = tokens;
        samples[i].T = T;
    }
}

static void print_step(int algorithm, const DataSelector* s, const real* omega_before, const SealBatch* x,
                       const SealStep* r) {
    real safe = 0;
    for (int j = 0; j < x->m; j++) safe += r->loss_safe[j] / x->m;
    printf("safe batch: rows");
    for (int j = 0; j < x->m; j++) printf(" %d (loss %.4f)", x->safe_rows[j], r->loss_safe[j]);
    printf(", mean %.4f\n", safe);
    printf("row  sample                       omega    sigma  l(theta)  l(hat)    delta   gradient new omega\n");
    for (int k = 0; k < N; k++) {
        int at = -1;  // in the batch
        for (int i = 0; i < x->b; i++) at = x->tune_rows[i] == k ? i : at;
        printf("%3d  %-14s %-10s %9.4f %8.4f ", k, tune_texts[k][0], tune_texts[k][1], omega_before[k], s->sigma[k]);
        if (at < 0) printf("%9s %7s %8s", "-", "-", "-");
        else if (algorithm == 2) printf("%9.4f %7s %8.4f", r->loss[at], "-", r->delta[at]);
        else printf("%9.4f %7.4f %8.4f", r->loss[at], r->loss_hat[at], r->delta[at]);
        printf(" %10.6f %9.4f\n", s->grad[k], s->omega[k]);
    }
    printf("norms of the gradients before clipping: theta %.4f", r->norm);
    if (algorithm == 1) printf(", theta_hat %.4f", r->norm_hat);
    printf(", omega %.6f\n", r->norm_omega);
    if (s->activation == SOFTMAX) printf("S = %.6f\n", r->S);
}

int main(int argc, char** argv) {
    int algorithm = 1, steps = 1;
    Activation activation = SOFTMAX;
    for (int i = 1; i < argc; i++) {
        const char* value = i + 1 < argc ? argv[i + 1] : "";
        char* end;
        int number = (int)strtol(value, &end, 10);
        bool good = false, whole = *value && !*end;
        if (!strcmp(argv[i], "--algorithm")) good = whole && ((algorithm = number) == 1 || number == 2);
        else if (!strcmp(argv[i], "--steps")) good = whole && (steps = number) >= 1;
        else if (!strcmp(argv[i], "--sigma")) {
            activation = strcmp(value, "sigmoid") ? SOFTMAX : SIGMOID;
            good = activation == SIGMOID || !strcmp(value, "softmax");
        }
        if (!good) {
            fprintf(stderr, "usage: seal_reference [--algorithm 1|2] [--sigma softmax|sigmoid] [--steps N]\n");
            return 2;
        }
        i++;
    }
    static int tokens[2][N * LONGEST];
    Sample tune[N], safe[M];
    make_samples(tune, tokens[0], tune_texts, N);
    make_samples(safe, tokens[1], safe_texts, M);
    Config config = {2, 16, 2, (int)strlen(letters), LONGEST, 1e-5};
    Model theta = model_create(config), theta_hat = model_create(config);
    model_init(&theta);
    memcpy(theta_hat.weights, theta.weights, theta.n * sizeof(real));
    Activations a = activations_create(&config, LONGEST);
    DataSelector omega = data_selector_create(activation, N, activation == SOFTMAX ? 0.1 : -1e-4);
    real before[N];
    printf("Algorithm %d, %s; GPT-2 of %zu parameters; %d fine-tuning samples, %d safe ones, batches of %d\n",
           algorithm, activation == SOFTMAX ? "softmax" : "sigmoid", theta.n, N, M, BATCH);
    for (int step = 0; step < steps; step++) {
        int tune_rows[BATCH], safe_rows[BATCH], epoch = step / (N / BATCH);
        for (int i = 0; i < BATCH; i++) tune_rows[i] = (step * BATCH + i) % N, safe_rows[i] = (step * BATCH + i) % M;
        real gamma = 0.03 * epoch < 1 ? 0.03 * epoch : 1;
        Adam o = {1e-2, 0.9, 0.95, 1e-8, 0, 1}, o_omega = {5e-2, 0.9, 0.95, 1e-8, 0, 10};
        SealBatch batch = {tune, safe, tune_rows, safe_rows, BATCH, BATCH, gamma, false, o, o_omega, o.lr};
        SealStep result;
        memcpy(before, omega.omega, sizeof before);
        seal_reference_step(&theta, algorithm == 1 ? &theta_hat : NULL, &omega, &a, &batch, &result);
        if (step + 1 < steps) continue;
        printf("step %d, gamma %.2f\n", step + 1, gamma);
        print_step(algorithm, &omega, before, &batch, &result);
    }
    model_free(&theta);
    model_free(&theta_hat);
    activations_free(&a);
    data_selector_free(&omega);
    return 0;
}
#endif
