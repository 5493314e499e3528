/*
The table of contents of seal_kernels/: every launcher, in the order in which a training step meets them. One operation,
one file: embedding_* is in embedding.cu and so on. All pointers are device pointers unless a comment says host; all
work is queued on `stream`, nothing here synchronises. Sizes: T tokens of the pack, C width, V vocabulary, Vp
padded vocabulary (row stride of logits), NH heads, NKV key-value heads, HS head size, FF width of the MLP, n
tokens that carry loss, k samples, N fine-tuning samples.

A launcher with more than ten parameters takes a struct with named fields; a field with a value here may be left out.

Packs: samples are end to end in T tokens without padding; cu_seqlens (n_seq + 1) holds where each begins, and T.
Strides: `ld…` is the distance between two rows in elements, ≥ the row's length; every kernel that writes a GEMM's
input takes one, because the tail of such a row belongs to the adapters. Widths and strides are multiples of 8, pointers
16-byte aligned.
`=` after a parameter means overwritten, `+=` added to. Gradients of parameters are fp32 and always added to, so that a
batch may be split over any number of packs; gradients of activations are floatX.
*/
#ifndef SEAL_KERNELS_H
#define SEAL_KERNELS_H

#include "cuda_common.h"

// ---- embedding.cu ----------------------------------------------------------------------------------
// encoded (T, C) = scale · wte[tokens[t]] + wpe[positions[t]]; wpe may be NULL (models with rotary positions).
// torch.nn.Embedding.
void embedding_forward(floatX* encoded, const int* tokens, const int* positions, const floatX* wte, const floatX* wpe,
                       float scale, int T, int C, cudaStream_t stream);
// dtable[row] += scale · sum of dencoded over the tokens of that row, in pack order. The host sorts a pack's tokens
// (or positions) once: segment s covers order[segment_start[s] … segment_start[s+1]) (token indices, ascending) and
// adds to row segment_row[s].
void embedding_backward(float* dtable, const floatX* dencoded, const int* order, const int* segment_start,
                        const int* segment_row, int n_segments, float scale, int C, cudaStream_t stream);

// ---- layernorm.cu ----------------------------------------------------------------------------------
struct LayernormForward {
    floatX* out;         // (T, C; ldo) =
    float *mean, *rstd;  // (T) =, kept for backward
    const floatX* inp1;  // (T, C)
    const floatX *weight, *bias;
    int T, C, ldo;
    float eps;
    // of the fused one
    floatX* residual = NULL;    // (T, C) =
    const floatX* inp2 = NULL;  // (T, C)
};
// out = (inp1 − mean) · rstd · weight + bias. torch.nn.functional.layer_norm.
void layernorm_forward(const LayernormForward& args, cudaStream_t stream);
// residual = inp1 + inp2, rounded to floatX; out = layernorm(residual).
void fused_residual_layernorm_forward(const LayernormForward& args, cudaStream_t stream);
struct LayernormBackward {
    floatX* dinp;            // (T, C) +=
    float *dweight, *dbias;  // (C) +=; NULL: a frozen norm
    float* scratch;          // layernorm_scratch(C) floats
    const floatX* dout;      // (T, C; ldd)
    const floatX* inp;       // (T, C)
    const floatX* weight;
    const float *mean, *rstd;  // (T)
    int T, C, ldd;
};
void layernorm_backward(const LayernormBackward& args, cudaStream_t stream);
size_t layernorm_scratch(int C);  // floats
int layernorm_most_width(void);   // C of the widest row that is supported

// ---- rmsnorm.cu ------------------------------------------------------------------------------------
struct RmsnormForward {
    floatX* out;           // (T, C; ldo) =
    float* rstd;           // (T) = 1/sqrt(mean(inp²) + eps), kept for backward
    const floatX* inp1;    // (T, C)
    const floatX* weight;  // (C); NULL: no norm, out is a copy
    int T, C, ldo;
    float eps;
    // of the fused one
    floatX* residual = NULL;    // (T, C) =
    const floatX* inp2 = NULL;  // (T, C)
    const floatX* post = NULL;  // (C) weight of a norm of inp2 before it joins; NULL: none
    float* post_rstd = NULL;    // (T) =
    float scale = 1.0f;         // of inp2, after its norm
    // of both
    float offset = 0.0f;  // added to the weights
};
// out = inp1 · rstd · (offset + weight). torch.nn.functional.rms_norm, in fp32 throughout.
void rmsnorm_forward(const RmsnormForward& args, cudaStream_t stream);
int rmsnorm_most_width(void);  // C of the widest row that is supported
// residual = inp1 + scale · inp2, or, with post, scale · rmsnorm(inp2), rounded to floatX; out = rmsnorm(residual).
void fused_residual_rmsnorm_forward(const RmsnormForward& args, cudaStream_t stream);
struct RmsnormBackward {
    floatX* dinp;        // (T, C) +=; may be dout where overwrite and ldd = C
    float* dweight;      // (C) +=; NULL: a frozen norm
    float* scratch;      // rmsnorm_scratch(C) floats, unused for a frozen norm
    const floatX* dout;  // (T, C; ldd)
    const floatX* inp;   // (T, C)
    const floatX* weight;
    const float* rstd;  // (T)
    int T, C, ldd;
    float offset = 0.0f;     // of the weight
    bool overwrite = false;  // dinp = instead of +=
};
void rmsnorm_backward(const RmsnormBackward& args, cudaStream_t stream);
size_t rmsnorm_scratch(int C);  // floats

// ---- scale.cu: what a scalar or a cap changes ------------------------------------------------------
// out (T, C) = scale · inp (T, C; ldi), or with add: out +=.
void scale_rows(floatX* out, const floatX* inp, float scale, bool add, int T, int C, int ldi, cudaStream_t stream);
// logits (n, Vp) = cap · tanh(logits / cap), in place: what a model with such a cap says of the next token.
void cap_logits(floatX* logits, float cap, int n, int Vp, cudaStream_t stream);

// ---- matmul.cu -------------------------------------------------------------------------------------
// cuBLASLt handle, its workspace (device memory, 32 MiB) and the cache of plans. Once a process, before any matmul.
#define MATMUL_WORKSPACE_BYTES ((size_t)32 << 20)  // NVIDIA's advice for Hopper
void matmul_create(void);
void matmul_destroy(void);
// Which algorithm of cuBLASLt a product takes: the first that it proposes, unless they are to be timed. Another one may
// add in another order, so whoever times them keeps what was chosen: on another day another one may win.
struct MatmulAlgorithm {
    int key[8];          // operation, m, n, k, lda, ldb, ldd, accumulate
    uint64_t workspace;  // bytes
    uint64_t data[8];    // cuBLASLt's own, of one version and one GPU
};
size_t matmul_library_version(void);
// After matmul_create and before any product: products take the n algorithms that are known; others are timed on their
// own operands, and chosen() is told. False: cuBLASLt refuses the one at *refused.
bool matmul_algorithms(const MatmulAlgorithm* known, int n, void (*chosen)(const MatmulAlgorithm*), int* refused);
// out or dout (T, OC; ldo), inp or dinp (T, C; ldi), weight (OC, C; ldw).
struct MatmulShape {
    int T, C, OC, ldo, ldi, ldw;
};
// out = inp · weightᵀ + bias (OC, or NULL). With pre_gelu (T, OC, or NULL): pre_gelu = that, and out =
// gelu_tanh(pre_gelu). torch.nn.functional.linear.
void matmul_forward(floatX* out, floatX* pre_gelu, const floatX* inp, const floatX* weight, const floatX* bias,
                    MatmulShape shape, cudaStream_t stream);
// out += that, without GELU: a second branch joins the first.
void matmul_forward_add(floatX* out, const floatX* inp, const floatX* weight, const floatX* bias, MatmulShape shape,
                        cudaStream_t stream);
// dinp = dout · weight; with pre_gelu (T, C, or NULL) multiplied by gelu'(pre_gelu): dinp is then the gradient before
// the activation. accumulate: dinp += instead of =, not together with pre_gelu.
void matmul_backward_input(floatX* dinp, const floatX* dout, const floatX* weight, const floatX* pre_gelu,
                           MatmulShape shape, bool accumulate, cudaStream_t stream);
// dweight (OC, C; contiguous fp32) += dout (T, OC; ldo)ᵀ · inp (T, C; ldi)
void matmul_backward_weight(float* dweight, const floatX* dout, const floatX* inp, int T, int C, int OC, int ldi,
                            int ldo, cudaStream_t stream);
// dbias (OC, fp32) += column sums of dout (T, OC; ldo). scratch: matmul_bias_scratch(OC) floats. cuBLASLt's
// bias-gradient epilogue would overwrite dbias, which a batch of several packs must not.
void matmul_backward_bias(float* dbias, float* scratch, const floatX* dout, int T, int OC, int ldo,
                          cudaStream_t stream);
size_t matmul_bias_scratch(int OC);  // floats

// out (T, OC; ldo) = inp (T, C; ldi, e4m3) · weightᵀ (OC, C; ldw, e4m3) · *weight_scale (device), or out += that. C,
// OC, ldi and ldw are multiples of 16. The only form that cuBLASLt has for fp8 on sm_89 and sm_90; the gradient of an
// input is therefore the same product with the transposed weight.
void matmul_fp8(floatX* out, const uint8_t* inp, const uint8_t* weight, const float* weight_scale, MatmulShape shape,
                bool accumulate, cudaStream_t stream);

// ---- fp8.cu: around an fp8 product -----------------------------------------------------------------
// out (T, C; contiguous) = each row of inp (T, C; ldi) times a power of two of its own, in e4m3, the row's largest
// absolute value in (224, 448]; scale (T) = the reciprocal, NaN where the row holds a NaN or an infinity.
void fp8_quantise(uint8_t* out, float* scale, const floatX* inp, int T, int C, int ldi, cudaStream_t stream);
// Row t of x (T, C; ld) = scale[t] · x + bias (C, or NULL); and the inverse, x / scale[t].
void fp8_scale_rows(floatX* x, const float* scale, const floatX* bias, int T, int C, int ld, cudaStream_t stream);
void fp8_divide_rows(floatX* x, const float* scale, int T, int C, int ld, cudaStream_t stream);

// ---- nf4.cu: a frozen weight in 4 bits -------------------------------------------------------------
struct Nf4Unpack {
    floatX* out;            // (rows, cols; ldo) =
    const uint32_t* codes;  // (rows · cols / 8) the file's rows one after the other, 4 bits a weight, the first of a
                            // byte in its high half
    const uint8_t* scales;  // (rows · cols / 64)
    const float* tops;      // (rows · cols / 64 / 256, rounded up)
    const float* mean;      // (1)
    const float* map;       // (256) what a scale means
    const float* code;      // (16) what a code means
    int rows, cols, ldo;    // rows · cols is a multiple of 64
    // q, k and v are interleaved by head in the file, (heads, 3, head_size), and go to (3, heads, head_size); 0: rows
    // keep their order
    int heads = 0, head_size = 0;
};
// out = code[c] · (map[q] · top + mean), each product and the sum rounded to fp32, the result to floatX.
// bitsandbytes.functional.dequantize_4bit.
void nf4_unpack(const Nf4Unpack& args, cudaStream_t stream);

// ---- adapter.cu: LoRA inside the base GEMM ---------------------------------------------------------
// The tail after a GEMM's input, or after its gradient: row t of tail (T, R; ld) keeps the `width` columns of its own
// adapter, each module's `columns` of them times that module's scale, and loses all others to zero. Rows [0, split)
// belong to adapter 0 (columns [0, width)), rows [split, T) to adapter 1 (columns [width, 2·width)). R, width and ld
// are multiples of 8. Every column of the tail is written: a product with B's zero blocks must not meet a NaN.
#define ADAPTER_MODULES 3
typedef struct {
    float of[ADAPTER_MODULES];
    int columns;  // of a module, a multiple of 8
} AdapterScales;
void adapter_tail(floatX* tail, int T, int split, int width, int R, int ld, AdapterScales scales, cudaStream_t stream);

// ---- rope.cu ---------------------------------------------------------------------------------------
// Rotary positions in place on the NH query and NKV key heads of qkv (T, (NH + 2 NKV)·HS; ld); the values and a head's
// elements past `rotary` (even, ≤ HS) stay. Elements i and i + rotary/2 of a head turn by the angle of cos_sin (P,
// rotary/2, 2; fp32: cos, sin), row positions[t]; scalings and attention factors are in the table. apply_rotary_pos_emb
// of transformers (rotate_half).
void rope_forward(floatX* qkv, const int* positions, const float* cos_sin, int T, int NH, int NKV, int HS, int rotary,
                  int ld, cudaStream_t stream);
// The same on dqkv: turns back.
void rope_backward(floatX* dqkv, const int* positions, const float* cos_sin, int T, int NH, int NKV, int HS, int rotary,
                   int ld, cudaStream_t stream);

// ---- qk_norm.cu ------------------------------------------------------------------------------------
// RMSnorm of queries and keys, then their rotary positions, in one pass from the fused rows into others of the same
// stride; values are copied. With `all` one norm spans all query heads and one all key heads (weights of NH·HS and
// NKV·HS), else each head has its own (weights of HS). Elements i and i + HS/2 of a head turn.
struct QkNormArgs {
    const floatX* inp;                  // (T, (NH + 2 NKV)·HS; ld) before the norm
    const floatX *q_weight, *k_weight;  // (HS), or (NH·HS) and (NKV·HS)
    float* rstd;                        // (T, NH + NKV), or (T, 2): forward writes it, backward reads it
    const int* positions;               // (T)
    const float* cos_sin;               // (P, HS/2, 2) as of rope.cu; NULL: nothing turns
    int T, NH, NKV, HS, ld;
    bool all;
    float eps, offset;  // offset: added to the weights
};
void qk_norm_rope_forward(floatX* out, const QkNormArgs& args, cudaStream_t stream);
// dqkv (T, (NH + 2 NKV)·HS; ld), in place: the gradient of the output becomes that of inp. dq_weight, dk_weight +=
// (both NULL: frozen). scratch: qk_norm_scratch floats, unused where they are frozen.
void qk_norm_rope_backward(floatX* dqkv, float* dq_weight, float* dk_weight, float* scratch, const QkNormArgs& args,
                           cudaStream_t stream);
size_t qk_norm_scratch(int NH, int NKV, int HS, bool all);  // floats

// ---- attention.cu ----------------------------------------------------------------------------------
// Causal attention within each sample of the pack, and within a window of it. qkv (T, (NH + 2 NKV)·HS; ldq): a row
// holds all query heads, then keys, then values. Query head h reads key-value head h / (NH / NKV). HS one of 32, 64,
// 80, 96, 128, 256 (attention_head_size_supported: in bf16 256 needs blocks of 132 KiB of shared memory, A100's and
// H100's; in fp32 what a GPU gives may end at 64). The work is cut into tiles of ATTENTION_TILE rows of one sample:
// tiles (n_tiles, 2) = {sample, tile within the sample}.
#define ATTENTION_TILE 64
bool attention_head_size_supported(int HS);
// Host. Fills the table, the even tiles of all samples, n_even of them, and then the odd ones, both longest sample
// first, and returns n_tiles; tiles NULL: only counts.
int attention_tiles(int* tiles, int* n_even, const int* cu_seqlens, int n_seq);
struct AttentionArgs {
    const floatX* qkv;      // (T, (NH + 2 NKV)·HS; ldq)
    const int* cu_seqlens;  // (n_seq + 1)
    const int* tiles;       // (n_tiles, 2)
    int n_tiles, T, NH, NKV, HS, ldq, ldo;
    float scale;
    int window = 0;    // a token attends to so many, its own included; 0: to all before it. Whole tiles outside are
                       // skipped
    float cap = 0.0f;  // scores are cap · tanh(score / cap); 0: as they are
    // of backward
    const floatX* atty = NULL;   // (T, NH·HS; ldo)
    const floatX* datty = NULL;  // (T, NH·HS; ldo)
    const float* lse = NULL;     // (NH, T)
    float* delta = NULL;         // (NH, T) scratch
    int lddq = 0;
    // of a model with rotary positions, whose turn is undone on dq and dk; as rope_backward's
    const int* positions = NULL;  // (T)
    const float* cos_sin = NULL;  // NULL: nothing turns
    int rotary = 0;
    // of forward. Here and not beside n_tiles, because nvcc reads neighbours at once, and forward then spills
    // registers.
    int n_even = 0;
};
// atty (T, NH·HS; ldo) = softmax(scale · q kᵀ, causal) v; lse (NH, T) = log-sum-exp of each row, kept for backward.
void attention_forward(floatX* atty, float* lse, const AttentionArgs& args, cudaStream_t stream);
// dqkv (T, (NH + 2 NKV)·HS; lddq) =. No atomics: one kernel owns rows of dq, another rows of dk and dv.
void attention_backward(floatX* dqkv, const AttentionArgs& args, cudaStream_t stream);

// ---- decode_attention.cu: generation ---------------------------------------------------------------
// The cache of a layer has rows for keys (R, NKV·HS) and for values (R, NKV·HS); a sequence owns consecutive rows, one
// per position. keys, values [rows[t]] = those of token t of qkv (T, (NH + 2 NKV)·HS; ldq); nothing where rows[t] is
// negative.
void cache_store(floatX* keys, floatX* values, const floatX* qkv, const int* rows, int T, int NH, int NKV, int HS,
                 int ldq, cudaStream_t stream);
struct DecodeArgs {
    const floatX* qkv;            // (n, (NH + 2 NKV)·HS; ldq)
    const floatX *keys, *values;  // (R, NKV·HS)
    const int *first, *length;    // (n) a sequence's first row of the cache, and its number of rows
    float* scratch;               // decode_attention_scratch floats
    int longest, n, NH, NKV, HS, ldq, ldo;
    float scale;
    int window = 0;  // as AttentionArgs'
    float cap = 0.0f;
};
// One token per sequence: atty (n, NH·HS; ldo) = softmax(scale · q kᵀ) v over the cache rows first[i] … first[i] +
// length[i] − 1, the token's own included. longest ≥ every length. A length of 0 gives zeros.
void decode_attention(floatX* atty, const DecodeArgs& args, cudaStream_t stream);
size_t decode_attention_scratch(int n, int longest, int NH, int HS);  // floats

// ---- sampling.cu: generation -----------------------------------------------------------------------
// How the next token is drawn; in this order, as transformers' logits processors: tokens that were there before are
// made less likely (x/penalty where x > 0, x·penalty where not), logits are divided by the temperature, the top_k
// likeliest are kept (and whatever equals the last of them), of those the smallest set of likeliest tokens whose
// probability reaches top_p (equals by lower id), and one is drawn by weight.
typedef struct {
    bool greedy;               // the likeliest token, the lowest id of equals
    float temperature, top_p;  // > 0; above 0, 1 and more: all
    int top_k;                 // 0: all
    float repetition_penalty;  // > 0; 1: none
} SampleSettings;
struct DrawArgs {
    int* tokens;           // (n) =
    float* probabilities;  // (n, Vp) scratch; greedy: may be NULL
    const floatX* logits;  // (n, Vp), V of them count
    uint32_t* seen;        // (slots, SAMPLE_SEEN_WORDS(V)) the tokens each sequence holds as bits; row i reads row
                           // slots[i] and adds its token there; may be NULL where repetition_penalty is 1
    const int* slots;      // (n)
    const float* uniform;  // (n), in [0, 1): the row's random number; greedy: may be NULL
    SampleSettings settings;
    int n, V, Vp;
};
// tokens = the next token of each row of logits, −1 where the row holds a NaN, a +∞ or nothing above −∞.
void draw_tokens(const DrawArgs& args, cudaStream_t stream);
#define SAMPLE_SEEN_WORDS(V) (((V) + 31) / 32)

// ---- gelu.cu ---------------------------------------------------------------------------------------
// out (T, C; ldo) = gelu_tanh(inp (T, C)); dinp (T, C) = dout (T, C; ldo) · gelu'(inp).
// torch.nn.functional.gelu(approximate="tanh").
void gelu_forward(floatX* out, const floatX* inp, int T, int C, int ldo, cudaStream_t stream);
void gelu_backward(floatX* dinp, const floatX* inp, const floatX* dout, int T, int C, int ldo, cudaStream_t stream);
// dinp (T, C; ldi) *= gelu'(inp (T, C)): what a GEMM without the fused epilogue leaves to do.
void gelu_backward_inplace(floatX* dinp, const floatX* inp, int T, int C, int ldi, cudaStream_t stream);

// The same for the erf form, torch.nn.functional.gelu(approximate="none").
void gelu_erf_forward(floatX* out, const floatX* inp, int T, int C, int ldo, cudaStream_t stream);
void gelu_erf_backward(floatX* dinp, const floatX* inp, const floatX* dout, int T, int C, int ldo, cudaStream_t stream);
void gelu_erf_backward_inplace(floatX* dinp, const floatX* inp, int T, int C, int ldi, cudaStream_t stream);

// ---- glu.cu ----------------------------------------------------------------------------------------
// out (T, FF; ldo) = silu(gate) · up, a row of gate_up (T, 2·FF) holding gate, then up. torch.nn.functional.silu.
void swiglu_forward(floatX* out, const floatX* gate_up, int T, int FF, int ldo, cudaStream_t stream);
// dgate_up (T, 2·FF) = from dout (T, FF; ldd); dgate_up and gate_up may be the same.
void swiglu_backward(floatX* dgate_up, const floatX* dout, const floatX* gate_up, int T, int FF, int ldd,
                     cudaStream_t stream);
// The same with gelu_tanh(gate) · up. torch.nn.functional.gelu(approximate="tanh").
void geglu_forward(floatX* out, const floatX* gate_up, int T, int FF, int ldo, cudaStream_t stream);
void geglu_backward(floatX* dgate_up, const floatX* dout, const floatX* gate_up, int T, int FF, int ldd,
                    cudaStream_t stream);

// ---- loss.cu: the weighted loss --------------------------------------------------------------------
// out (n, C) = scale · inp[rows[i]] (T, C; ldi): the hidden states that carry loss.
void gather_rows(floatX* out, const floatX* inp, const int* rows, float scale, int n, int C, int ldi,
                 cudaStream_t stream);
// dinp (T, C) = scale · dout[index[t]] where index[t] ≥ 0, else 0: gather_rows backward; writes every row.
void scatter_rows(floatX* dinp, const floatX* dout, const int* index, float scale, int T, int C, cudaStream_t stream);
// loss (n) = −log softmax(logits)[target], unweighted. Then, unless weight is NULL (forward only), logits (n, Vp) =
// weight · (softmax − onehot), columns V … Vp zero. logits is read up to V only. cap: the softmax is of
// cap · tanh(logits / cap), and the gradient goes through that; 0: none. A row whose target is outside [0, V) has the
// loss NaN and the gradient 0.
// torch.nn.functional.cross_entropy(reduction="none").
void cross_entropy(floatX* logits, float* loss, const int* targets, const float* weight, float cap, int n, int V,
                   int Vp, cudaStream_t stream);
// sample_loss[place[s]] = mean of loss over [loss_start[s], loss_start[s+1]), summed in pack order; 0 for a sample
// without a token that carries loss. place (k) puts the samples of a pack where they belong in the batch; NULL leaves
// them in pack order. A target outside [0, V) goes to *bad with its sample's place (of several the least word stays);
// the host reads it together with the losses.
typedef unsigned long long BadTarget;  // place << 32 | target
#define NO_BAD_TARGET (~0ull)          // what the word holds before
void sample_losses(float* sample_loss, BadTarget* bad, const float* loss, const int* targets, int V,
                   const int* loss_start, const int* place, int k, cudaStream_t stream);

// ---- selector.cu: the data selector ω (docs/method.md) ----------------------
typedef enum { SELECTOR_SOFTMAX, SELECTOR_SIGMOID } SelectorActivation;
// stats (2) = {max, Σ exp(ω − max)} over all N: what softmax needs. scratch: selector_scratch(N) floats.
// count (N) = samples that share a logit, whose exponential then counts so often; NULL: each logit has one.
void selector_normalise(float* stats, float* scratch, const float* omega, int N, cudaStream_t stream,
                        const float* count = NULL);
size_t selector_scratch(int N);  // floats
// sigma (b) = σ of the logits rows[i]. softmax: N exp(ω − max)/Σ; sigmoid: 2/(1 + exp(−ω)), stats unused.
void selector_sigma(float* sigma, const float* omega, const float* stats, const int* rows, int b, int N,
                    SelectorActivation activation, cudaStream_t stream);
// weight (n) of tokens that carry loss: coefficient[s] · (place[s] < b ? sigma[place[s]] : 1) for the tokens of sample
// s, [loss_start[s], loss_start[s+1]). coefficient holds c_x / n_x without σ; a batch lists its b fine-tuning samples
// first, its safe samples after them.
void selector_token_weights(float* weight, const float* sigma, const float* coefficient, const int* place,
                            const int* loss_start, int k, int b, cudaStream_t stream);
// delta (b) = scale · weight[rows] · (loss − loss_hat); loss_hat NULL (Algorithm 2): 0; weight (N) NULL: 1.
void selector_delta(float* delta, const float* loss, const float* loss_hat, float scale, const float* weight,
                    const int* rows, int b, cudaStream_t stream);
// grad (N) = gradient of the mean over the batch of σ_i Δ_i; every element is written.
struct SelectorGradient {
    float* grad;
    const float *omega, *stats;  // (N), and of all of them for softmax
    const float *sigma, *delta;  // (b)
    const int* rows;             // (b), may repeat
    int b, N;
    SelectorActivation activation;
    const float* count;  // as selector_normalise's, NULL for 1 each: rows are those of the logits then, and a logit's
                         // gradient is the sum over its samples
};
void selector_gradient(const SelectorGradient& x, cudaStream_t stream);
// omega (N) = value.
void selector_fill(float* omega, float value, int N, cudaStream_t stream);
// Gradient descent: omega −= lr · *scale · grad (scale: device, of clipping).
void selector_descend(float* omega, const float* grad, const float* scale, float lr, int N, cudaStream_t stream);
// running (2) = {mean, weight}: an exponential mean of Δ, bias-corrected (mean ← decay·mean + (1−decay)·batch mean;
// weight the same with 1). Then delta −= mean/weight.
void selector_centre(float* delta, float* running, int b, float decay, cudaStream_t stream);
struct SelectorVisit {
    float *omega, *sum, *visits;  // (N)
    float* running;               // (2)
    const int* rows;              // (b)
    const float* delta;           // (b)
    int b, N;
    float lr, initial;
};
// The estimator `mean`: visits[row] += 1 and sum[row] += Δ for every row of the batch (in batch order; rows may
// repeat), running += {Σ Δ, b}; then for every row visited so far omega = initial − lr · (sum/visits −
// running[0]/running[1]). Rows never visited keep `initial`.
void selector_visit(const SelectorVisit& args, cudaStream_t stream);

// ---- sample_gradients.cu: scores of rows -----------------------------------------------------------
// The samples of a pack in tiles of ATTENTION_TILE rows, as the attention cuts them (AttentionArgs); sequences from
// n_samples on are padding.
struct SampleTiles {
    const int *cu_seqlens, *tiles;
    const int* place;  // (n_samples) where each sample's number belongs in the batch
    int n_tiles, n_samples;
    float* partial;  // (n_tiles) scratch
};
// out[place[s]] += Σ over the tokens t of sample s of a_t · b_t; a (T, width; lda), b (T, width; ldb). With a = δ and
// b = u Gᵀ: the product of the sample's gradient Σ δ_t u_tᵀ with the direction G.
void sample_dots(float* out, const floatX* a, int lda, const floatX* b, int ldb, int width, const SampleTiles& s,
                 cudaStream_t stream);
// out[place[s]] += ‖Σ d_t u_tᵀ‖² over the tokens of sample s (Frobenius); u (T, C; ldu), d (T, OC; ldd).
void sample_squares(float* out, const floatX* u, int ldu, int C, const floatX* d, int ldd, int OC, const SampleTiles& s,
                    cudaStream_t stream);
// out[place[s]] (C, fp32) = the row of x (T, C) at sample s's last token that carries loss; zeros where it has none.
void sample_last_rows(float* out, const floatX* x, int C, const int* loss_rows, const int* loss_start, const int* place,
                      int n_samples, cudaStream_t stream);
// out (n) = inp, rounded to floatX; n a multiple of 8.
void narrow_matrix(floatX* out, const float* inp, size_t n, cudaStream_t stream);

// ---- adamw.cu, global_norm.cu, nonfinite.cu: over the whole tensor table, one launch each ----------
// A row of the device's copy of the tensor table. Rows are cut into chunks of TENSOR_CHUNK elements, one block each;
// first_chunk is the running count, n_chunks the total (tensor_rows_chunks fills both on the host).
#define TENSOR_CHUNK 8192
typedef struct {
    floatX* param;  // what the model reads; NULL: only the master (ω)
    float* master;  // fp32 master weights; equals param in the fp32 build
    float* grad;    // fp32
    float* m;       // Adam's moments, fp32
    float* v;
    int64_t count;  // elements; all five are contiguous
    int64_t first_chunk;
    float weight_decay;  // this tensor's own: 0 for biases and norms
} TensorRow;
int64_t tensor_rows_chunks(TensorRow* rows, int n_rows);  // host
// AdamW, decoupled decay, bias-corrected at `step` (1, 2, …). grad is multiplied by *grad_scale (device; NULL = 1)
// first. torch.optim.AdamW.
void adamw_update(const TensorRow* rows, int n_rows, int64_t n_chunks, const float* grad_scale, float lr, float beta1,
                  float beta2, float eps, int step, cudaStream_t stream);
// *norm = sqrt(Σ grad²) over all rows; *scale = min(1, max_norm / (norm + 1e-6)), 1 where max_norm ≤ 0. partial:
// n_chunks floats of scratch. torch.nn.utils.clip_grad_norm_.
void global_norm(float* norm, float* scale, float* partial, const TensorRow* rows, int n_rows, int64_t n_chunks,
                 float max_norm, cudaStream_t stream);
// The same in two steps, for gradients that are on several ranks: *squares = Σ grad² over these rows; and, from the sum
// over all, norm and scale.
void gradient_squares(double* squares, float* partial, const TensorRow* rows, int n_rows, int64_t n_chunks,
                      cudaStream_t stream);
void norm_of_squares(float* norm, float* scale, const double* squares, float max_norm, cudaStream_t stream);
// *first = index of the first row whose grad (or, with params, param) holds a NaN or an infinity, n_rows where there is
// none.
void find_nonfinite(int* first, const TensorRow* rows, int n_rows, int64_t n_chunks, bool params, cudaStream_t stream);

#endif
