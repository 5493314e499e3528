/* Architectures and tensors of llama.cpp. See gguf_model.h. To add a family: its row in `architectures`, names of
 * tensors that no other family has in `names`, keys in `keys`. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "commands/gguf_model.h"

// Rows name only what differs from zero.
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

static void finish_llama(const GgufReader* r, ModelConfig* c);
static void finish_gemma2(const GgufReader* r, ModelConfig* c);
static void finish_gemma3(const GgufReader* r, ModelConfig* c);

// clang-format off
static const GgufFamily architectures[] = {
    {"llama", "llama", .pairs = true, .finish = finish_llama},
    {"gpt2", "gpt2", .pre = "gpt-2"},
    {"gptneox", "gpt_neox", .pre = "olmo"},
    {"phi3", "phi3"},
    {"qwen2", "qwen2", .pre = "qwen2"},
    {"qwen3", "qwen3", .pre = "qwen2"},
    {"smollm3", "smollm3", .pairs = true},
    {"granite", "granite", .pairs = true},
    {"olmo2", "olmo2"},
    {"gemma2", "gemma2", .norms_plus_one = true, .finish = finish_gemma2},
    {"gemma3", "gemma3_text", .norms_plus_one = true, .finish = finish_gemma3},
};

// A key after "ARCHITECTURE." and the field it fills.
static const struct {
    const char* key;
    enum { WHOLE, REAL, TRUTH } type;
    size_t offset;
    double low, high;
    bool required;
} keys[] = {
#define FIELD(name) offsetof(ModelConfig, name)
    {"block_count", WHOLE, FIELD(L), 1, 1024, true},
    {"embedding_length", WHOLE, FIELD(C), 8, 1 << 17, true},
    {"attention.head_count", WHOLE, FIELD(NH), 1, 1024, true},
    {"attention.head_count_kv", WHOLE, FIELD(NKV), 1, 1024, false},
    {"attention.key_length", WHOLE, FIELD(HS), 8, 1024, false},
    {"feed_forward_length", WHOLE, FIELD(FF), 8, 1 << 20, true},
    {"context_length", WHOLE, FIELD(max_positions), 1, 1 << 24, true},
    {"attention.sliding_window", WHOLE, FIELD(window), 0, 1 << 24, false},
    {"attention.layer_norm_epsilon", REAL, FIELD(norm_eps), 0, 1, false},
    {"attention.layer_norm_rms_epsilon", REAL, FIELD(norm_eps), 0, 1, false},
    {"rope.freq_base", REAL, FIELD(rope.base), 1, 1e12, false},
    {"rope.freq_base_swa", REAL, FIELD(rope_local.base), 1, 1e12, false},
    {"attn_logit_softcapping", REAL, FIELD(attention_cap), 0, 1e6, false},
    {"final_logit_softcapping", REAL, FIELD(logit_cap), 0, 1e6, false},
    {"attention.scale", REAL, FIELD(attention_multiplier), 0, 1e6, false},
    {"embedding_scale", REAL, FIELD(embedding_scale), 1e-6, 1e6, false},
    {"residual_scale", REAL, FIELD(residual_scale), 1e-6, 1e6, false},
    {"logit_scale", REAL, FIELD(logit_divisor), 1e-6, 1e6, false},
    {"use_parallel_residual", TRUTH, FIELD(parallel_residual), 0, 1, false},
};

// llama.cpp names a tensor by what it does, whatever the family.
static const struct { TensorKind kind; Part part; const char* name; } names[] = {
    {WTE, PART_ALL, "token_embd.weight"},
    {WPE, PART_ALL, "position_embd.weight"},
    {LNFW, PART_ALL, "output_norm.weight"},
    {LNFB, PART_ALL, "output_norm.bias"},
    {HEADW, PART_ALL, "output.weight"},
    {LN1W, PART_ALL, "blk.%d.attn_norm.weight"},
    {LN1B, PART_ALL, "blk.%d.attn_norm.bias"},
    {QKVW, PART_ALL, "blk.%d.attn_qkv.weight"},
    {QKVW, PART_Q, "blk.%d.attn_q.weight"},
    {QKVW, PART_K, "blk.%d.attn_k.weight"},
    {QKVW, PART_V, "blk.%d.attn_v.weight"},
    {QKVB, PART_ALL, "blk.%d.attn_qkv.bias"},
    {QKVB, PART_Q, "blk.%d.attn_q.bias"},
    {QKVB, PART_K, "blk.%d.attn_k.bias"},
    {QKVB, PART_V, "blk.%d.attn_v.bias"},
    {QNORMW, PART_ALL, "blk.%d.attn_q_norm.weight"},
    {KNORMW, PART_ALL, "blk.%d.attn_k_norm.weight"},
    {ATTPROJW, PART_ALL, "blk.%d.attn_output.weight"},
    {ATTPROJB, PART_ALL, "blk.%d.attn_output.bias"},
    {POST1W, PART_ALL, "blk.%d.post_attention_norm.weight"},
    {POST2W, PART_ALL, "blk.%d.post_ffw_norm.weight"},
    {LN2W, PART_ALL, "blk.%d.ffn_norm.weight"},
    {LN2B, PART_ALL, "blk.%d.ffn_norm.bias"},
    {UPW, PART_ALL, "blk.%d.ffn_up.weight"},
    {UPW, PART_GATE, "blk.%d.ffn_gate.weight"},
    {UPW, PART_UP, "blk.%d.ffn_up.weight"},
    {UPB, PART_ALL, "blk.%d.ffn_up.bias"},
    {UPB, PART_GATE, "blk.%d.ffn_gate.bias"},
    {UPB, PART_UP, "blk.%d.ffn_up.bias"},
    {DOWNW, PART_ALL, "blk.%d.ffn_down.weight"},
    {DOWNB, PART_ALL, "blk.%d.ffn_down.bias"},
};
// clang-format on
#define COUNT(table) ((int)(sizeof(table) / sizeof *(table)))

static const char* const buffers[] = {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"};

bool gguf_is_buffer(const char* name) {
    for (int i = 0; i < COUNT(buffers); i++)
        if (!strcmp(buffers[i], name)) return true;
    size_t n = strlen(name), m = strlen(".attn_rot_embd");
    return n > m && !strcmp(name + n - m, ".attn_rot_embd");
}

void gguf_tensor_name(const FamilyTensor* t, int layer, char* name, size_t size) {
    for (int i = 0; i < COUNT(names); i++) {
        if (names[i].kind != t->kind || names[i].part != t->part) continue;
        const char* number = strstr(names[i].name, "%d");
        if (number) snprintf(name, size, "%.*s%d%s", (int)(number - names[i].name), names[i].name, layer, number + 2);
        else snprintf(name, size, "%s", names[i].name);
        return;
    }
    program_error("no name in GGUF files for %s", t->hf_name);
}

// ---------------------------------------------------------------------------------------------------

static const char* supported(void) {
    static char list[256];
    if (!*list)
        for (int i = 0; i < COUNT(architectures); i++)
            if (family_find(architectures[i].model_type))
                snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", *list ? ", " : "",
                         architectures[i].architecture);
    return list;
}

const GgufFamily* gguf_family(const GgufReader* r) {
    char *type = gguf_text(r, "general.type"), *name = gguf_text(r, "general.architecture"), key[256];
    if (type && strcmp(type, "model"))
        fatal("%s: \"general.type\" is %.40s; only whole models are imported", gguf_path(r), type);
    if (!name) fatal("%s: \"general.architecture\" is missing", gguf_path(r));
    const GgufFamily* found = NULL;
    for (int i = 0; i < COUNT(architectures); i++)
        if (!strcmp(architectures[i].architecture, name) && family_find(architectures[i].model_type))
            found = &architectures[i];
    if (!found)
        fatal("%s: architecture \"%.40s\" is not supported; supported are: %s", gguf_path(r), name, supported());
    double experts = 0;
    snprintf(key, sizeof key, "%s.expert_count", name);
    if (gguf_number(r, key, &experts) && experts > 0)
        fatal("%s: a mixture of %.0f experts; only dense models are supported", gguf_path(r), experts);
    free(type);
    free(name);
    return found;
}

// "llama.block_count"
static const char* key_of(const GgufFamily* f, const char* key) {
    static _Thread_local char text[160];
    snprintf(text, sizeof text, "%s.%s", f->architecture, key);
    return text;
}

// A number, or a list that gives every layer the same one.
static bool number_of(const GgufReader* r, const char* key, double* x) {
    const GgufValue* v = gguf_find(r, key);
    if (!v || !v->array) return gguf_number(r, key, x);
    gguf_numbers(r, key);
    if (!v->count) fatal("%s: \"%s\" is an empty list", gguf_path(r), key);
    *x = gguf_element(v, 0);
    for (uint64_t i = 1; i < v->count; i++)
        if (gguf_element(v, i) != *x)
            fatal("%s: \"%s\" differs from layer to layer, which is not supported", gguf_path(r), key);
    return true;
}

static void read_keys(const GgufReader* r, const GgufFamily* f, ModelConfig* c) {
    for (int i = 0; i < COUNT(keys); i++) {
        const char* key = key_of(f, keys[i].key);
        char* field = (char*)c + keys[i].offset;
        double x;
        if (keys[i].type == TRUTH) {
            *(bool*)field = gguf_bool(r, key, *(bool*)field);
            continue;
        }
        if (!number_of(r, key, &x)) {
            if (keys[i].required) fatal("%s: \"%s\" is missing", gguf_path(r), key);
            continue;
        }
        if (!(x >= keys[i].low && x <= keys[i].high) || (keys[i].type == WHOLE && x != floor(x)))
            fatal("%s: \"%s\" is %g; expected %s from %.15g to %.15g", gguf_path(r), key, x,
                  keys[i].type == WHOLE ? "an integer" : "a number", keys[i].low, keys[i].high);
        if (keys[i].type == WHOLE) *(int*)field = (int)x;
        else *(float*)field = (float)x;
    }
}

// The id of a special token; −1 where there is none.
static int token_id(const GgufReader* r, const char* key, int V) {
    double x;
    if (!gguf_number(r, key, &x)) return -1;
    if (!(x >= 0 && x < V)) fatal("%s: \"%s\" is %g, outside the vocabulary of %d tokens", gguf_path(r), key, x, V);
    return (int)x;
}

// ---- positions -------------------------------------------------------------------------------------

// A vector of fp32 of n elements; NULL where there is none.
static const GgufTensor* factors(const GgufReader* r, const char* name, int n) {
    const GgufTensor* t = gguf_tensor(r, name);
    if (t && (t->n_dims != 1 || t->shape[0] != n || strcmp(gguf_type_name(t), "F32")))
        fatal("%s: tensor %s must be %d numbers in F32", gguf_path(r), name, n);
    return t;
}

// llama.cpp keeps Llama 3.1's scaling as divisors of the frequencies, not as the four numbers that made them. Those are
// known but for the factor, which the longest wavelength shows, and what is found must give every divisor again.
static void find_llama3(const GgufReader* r, ModelConfig* c, const GgufTensor* t) {
    static const int originals[] = {8192, 4096, 16384, 32768, 65536, 131072, 2048};
    const int half = (int)t->shape[0];
    float* divisor = host_alloc((size_t)half * sizeof(float), "frequencies");
    gguf_to_float(t, 0, half, divisor);
    for (int i = 0; i < COUNT(originals); i++) {
        const double low = originals[i] / 1.0, high = originals[i] / 4.0, factor = divisor[half - 1];
        bool same = factor >= 1;
        for (int k = 0; k < half && same; k++) {
            double wavelength = 2 * 3.14159265358979323846 * pow((double)c->rope.base, (double)k / half);
            double smooth = (originals[i] / wavelength - 1.0) / (4.0 - 1.0);
            double expected = wavelength < high ? 1 : wavelength > low ? factor : 1 / ((1 - smooth) / factor + smooth);
            same = fabs(divisor[k] - expected) <= 1e-4 * expected;
        }
        if (!same) continue;
        c->rope.scaling = ROPE_LLAMA3;
        c->rope.factor = (float)factor;
        c->rope.low_frequency = 1;
        c->rope.high_frequency = 4;
        c->rope.original_positions = originals[i];
        free(divisor);
        return;
    }
    fatal("%s: tensor rope_freqs.weight does not hold Llama 3.1's scaling of positions; no other is supported",
          gguf_path(r));
}

static void read_long(const GgufReader* r, const GgufFamily* f, ModelConfig* c, int rotary) {
    const char* const list[] = {"rope_factors_short.weight", "rope_factors_long.weight"};
    double original = 0, factor;
    if (rotary / 2 > ROPE_MOST)
        fatal("%s: rotary positions cover %d elements of a head; at most %d are supported", gguf_path(r), rotary,
              2 * ROPE_MOST);
    for (int i = 0; i < 2; i++) {
        const GgufTensor* t = factors(r, list[i], rotary / 2);
        if (!t) fatal("%s: tensor %s is missing", gguf_path(r), list[i]);
        gguf_to_float(t, 0, rotary / 2, i ? c->rope.long_factor : c->rope.short_factor);
    }
    c->rope.scaling = ROPE_LONG;
    if (!gguf_number(r, key_of(f, "rope.scaling.original_context_length"), &original) || original < 1 || original > 1e9)
        fatal("%s: \"%s\" is missing", gguf_path(r), key_of(f, "rope.scaling.original_context_length"));
    c->rope.original_positions = (int)original;
    double stretch = (double)c->max_positions / original;
    double derived = stretch <= 1 ? 1 : sqrt(1 + log(stretch) / log(original));
    c->rope.attention_factor = (float)derived;
    if (gguf_number(r, key_of(f, "rope.scaling.attn_factor"), &factor) && fabs(factor - derived) > 1e-4 * derived)
        fatal("%s: \"%s\" is %g; expected %g, which follows from the two context lengths", gguf_path(r),
              key_of(f, "rope.scaling.attn_factor"), factor, derived);
}

// A number of a scaling, or what llama.cpp and transformers take where it is not named.
static float scaling_of(const GgufReader* r, const GgufFamily* f, const char* key, double low, double otherwise) {
    double x = otherwise;
    gguf_number(r, key_of(f, key), &x);
    if (!(x >= low && x < 1e9))
        fatal("%s: \"%s\" is %g; expected a number from %g to 1e9", gguf_path(r), key_of(f, key), x, low);
    return (float)x;
}
static void read_yarn(const GgufReader* r, const GgufFamily* f, ModelConfig* c, double factor) {
    RopeConfig* rope = &c->rope;
    rope->scaling = ROPE_YARN;
    rope->factor = (float)factor;
    rope->original_positions = (int)scaling_of(r, f, "rope.scaling.original_context_length", 1,
                                               c->max_positions / factor);
    rope->beta_fast = scaling_of(r, f, "rope.scaling.yarn_beta_fast", 0, 32);
    rope->beta_slow = scaling_of(r, f, "rope.scaling.yarn_beta_slow", 0, 1);
    rope->ramp_truncated = true;
    rope->attention_factor = scaling_of(r, f, "rope.scaling.attn_factor", 0, 1) *
                             (float)(factor <= 1 ? 1 : 0.1 * log(factor) + 1);
}

static void read_rope(const GgufReader* r, const GgufFamily* f, ModelConfig* c) {
    const int head_size = c->HS ? c->HS : c->C / c->NH;
    double turns = head_size, factor = 1;
    if (family_find(f->model_type)->positions != POSITIONS_ROPE) return;
    gguf_number(r, key_of(f, "rope.dimension_count"), &turns);
    if (!(turns >= 2 && turns <= head_size) || turns != floor(turns))
        fatal("%s: \"%s\" is %g; expected a whole number from 2 to the head size, %d", gguf_path(r),
              key_of(f, "rope.dimension_count"), turns, head_size);
    if (model_config_names(f->model_type, offsetof(ModelConfig, rope.fraction)))
        c->rope.fraction = (float)(turns / head_size);
    else if (turns != head_size)
        fatal("%s: rotary positions cover %g of a head's %d elements; in a %s model they cover all", gguf_path(r),
              turns, head_size, f->model_type);
    const GgufTensor* llama3 = factors(r, "rope_freqs.weight", (int)turns / 2);
    if (llama3) {
        find_llama3(r, c, llama3);
        return;
    }
    if (gguf_tensor(r, "rope_factors_long.weight")) {
        read_long(r, f, c, (int)turns);
        return;
    }
    char* type = gguf_text(r, key_of(f, "rope.scaling.type"));
    bool scaled = gguf_number(r, key_of(f, "rope.scaling.factor"), &factor) ||
                  gguf_number(r, key_of(f, "rope.scale_linear"), &factor);
    if (type ? strcmp(type, "none") != 0 : scaled && factor != 1) {
        if (type && strcmp(type, "linear") && strcmp(type, "yarn"))
            fatal(
                "%s: positions scaled by \"%.40s\" are not supported in a GGUF file; supported are: none, linear, "
                "yarn, "
                "longrope and Llama 3.1's",
                gguf_path(r), type);
        if (!(factor >= 1 && factor < 1e9))
            fatal("%s: the factor that scales the positions is %g; expected at least 1", gguf_path(r), factor);
        if (type && !strcmp(type, "yarn")) read_yarn(r, f, c, factor);
        else if (factor != 1) {
            c->rope.scaling = ROPE_LINEAR;
            c->rope.factor = (float)factor;
        }
    }
    free(type);
}

// ---- the whole -------------------------------------------------------------------------------------

// llama.cpp calls Mistral "llama"; a window makes it ours.
static void finish_llama(const GgufReader* r, ModelConfig* c) {
    (void)r;
    if (c->window) snprintf(c->family, sizeof c->family, "mistral");
}

// Only the largest model's scores are scaled by the width of a head as the width of the model gives it.
static void finish_gemma(const GgufReader* r, ModelConfig* c, int largest) {
    if (!c->window) fatal("%s: the length of the sliding window is missing", gguf_path(r));
    c->query_scalar = (float)(c->L == largest ? c->C / c->NH : c->HS);
}
static void finish_gemma2(const GgufReader* r, ModelConfig* c) { finish_gemma(r, c, 46); }
// Which layers have no window: every so many, as a number or layer by layer.
static void finish_gemma3(const GgufReader* r, ModelConfig* c) {
    const char* key = "gemma3.attention.sliding_window_pattern";
    const GgufValue* v = gguf_find(r, key);
    double every;
    finish_gemma(r, c, 62);
    if (v && !v->array && gguf_number(r, key, &every)) {
        if (!(every >= 1 && every <= 1024) || every != floor(every))
            fatal("%s: \"%s\" is %g; expected a whole number from 1 to 1024", gguf_path(r), key, every);
        c->full_every = (int)every;
    }
    for (uint64_t i = 0; v && v->array && i < gguf_numbers(r, key)->count; i++)
        if ((gguf_element(v, i) != 0) != ((i + 1) % (uint64_t)c->full_every != 0))
            fatal("%s: \"%s\" is not supported: expected one layer in %d without a window", gguf_path(r), key,
                  c->full_every);
}

static bool has(const GgufReader* r, const char* a, const char* b) { return gguf_tensor(r, a) || gguf_tensor(r, b); }

void gguf_config(const GgufReader* r, const GgufFamily* f, ModelConfig* c) {
    double value_length = 0;
    if (!model_config_defaults(c, f->model_type)) program_error("no family %s", f->model_type);
    c->window = 0;
    c->norm_eps = 0;
    read_keys(r, f, c);
    if (gguf_number(r, key_of(f, "attention.value_length"), &value_length) &&
        value_length != (c->HS ? c->HS : c->C / c->NH))
        fatal("%s: values have heads of size %g but keys of size %d; different sizes are not supported", gguf_path(r),
              value_length, c->HS);
    if (c->norm_eps <= 0) fatal("%s: the norm's epsilon is missing", gguf_path(r));
    const GgufTensor *embedding = gguf_tensor(r, "token_embd.weight"), *head = gguf_tensor(r, "output.weight");
    if (!embedding || embedding->n_dims != 2) fatal("%s: tensor token_embd.weight is missing", gguf_path(r));
    if (embedding->shape[1] > 1 << 24)
        fatal("%s: tensor token_embd.weight has %lld rows; at most 16777216 tokens are supported", gguf_path(r),
              (long long)embedding->shape[1]);
    c->V = (int)embedding->shape[1];
    // some converters write a tied head a second time
    c->tied_head = !head || (head->type == embedding->type && head->bytes == embedding->bytes &&
                             !memcmp(head->data, embedding->data, head->bytes));
    c->attention_bias = has(r, "blk.0.attn_q.bias", "blk.0.attn_qkv.bias");
    c->mlp_bias = has(r, "blk.0.ffn_up.bias", "blk.0.ffn_gate.bias");
    c->bos_id = token_id(r, "tokenizer.ggml.bos_token_id", c->V);
    c->eos_id = token_id(r, "tokenizer.ggml.eos_token_id", c->V);
    c->pad_id = family_find(f->model_type)->untrained_padding ? token_id(r, "tokenizer.ggml.padding_token_id", c->V)
                                                              : -1;
    read_rope(r, f, c);
    if (f->finish) f->finish(r, c);
    model_config_complete(c, gguf_path(r));
}
