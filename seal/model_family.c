/* The families. See model_family.h. To add one: its keys, its tensors, its row at the end. */
#include <stdio.h>
#include <string.h>
#include "model_config.h"

// Rows name only what differs from zero: the whole tensor, in plain form, always there.
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

// One family is one screen: the tables keep their shape.
// clang-format off
#define INT(key, field, low, high, fallback) {key, KEY_INT, offsetof(ModelConfig, field), low, high, fallback}
#define FLOAT(key, field, low, high, fallback) {key, KEY_FLOAT, offsetof(ModelConfig, field), low, high, fallback}
#define BOOL(key, field, fallback) {key, KEY_BOOL, offsetof(ModelConfig, field), 0, 1, fallback}
#define END {0}

// ---- GPT-2: learned positions, layernorm, biases everywhere, GELU in its tanh form, Conv1D weights (in, out) ----
static const ConfigKey gpt2_keys[] = {
    INT("n_layer", L, 1, 1024, REQUIRED),          INT("n_embd", C, 8, 1 << 17, REQUIRED),
    INT("n_head", NH, 1, 1024, REQUIRED),          INT("n_inner", FF, 8, 1 << 20, 0),
    INT("vocab_size", V, 1, 1 << 24, REQUIRED),    INT("n_positions", max_positions, 1, 1 << 24, REQUIRED),
    FLOAT("layer_norm_epsilon", norm_eps, 0, 1, 1e-5), BOOL("tie_word_embeddings", tied_head, true), END
};
static const FixedKey gpt2_fixed[] = {
    {"activation_function", "gelu_new", false}, {"scale_attn_weights", NULL, true}, {"scale_attn_by_inverse_layer_idx", NULL, false}, {"add_cross_attention", NULL, false}, END
};
static const FamilyTensor gpt2_tensors[] = {
    {WTE, "transformer.wte.weight"},
    {WPE, "transformer.wpe.weight"},
    {LN1W, "transformer.h.%d.ln_1.weight"},
    {LN1B, "transformer.h.%d.ln_1.bias"},
    {QKVW, "transformer.h.%d.attn.c_attn.weight", .form = FILE_TRANSPOSED, .lora = "q,k,v"},
    {QKVB, "transformer.h.%d.attn.c_attn.bias"},
    {ATTPROJW, "transformer.h.%d.attn.c_proj.weight", .form = FILE_TRANSPOSED, .lora = "o"},
    {ATTPROJB, "transformer.h.%d.attn.c_proj.bias"},
    {LN2W, "transformer.h.%d.ln_2.weight"},
    {LN2B, "transformer.h.%d.ln_2.bias"},
    {UPW, "transformer.h.%d.mlp.c_fc.weight", .form = FILE_TRANSPOSED, .lora = "up"},
    {UPB, "transformer.h.%d.mlp.c_fc.bias"},
    {DOWNW, "transformer.h.%d.mlp.c_proj.weight", .form = FILE_TRANSPOSED, .lora = "down"},
    {DOWNB, "transformer.h.%d.mlp.c_proj.bias"},
    {LNFW, "transformer.ln_f.weight"},
    {LNFB, "transformer.ln_f.bias"},
    {HEADW, "lm_head.weight", .when = IF_UNTIED}, END
};

// ---- Llama 2, 3, 3.x: RoPE, RMSNorm, SwiGLU, grouped key-value heads, no biases unless the config says so ----
static const ConfigKey llama_keys[] = {
    INT("num_hidden_layers", L, 1, 1024, REQUIRED),   INT("hidden_size", C, 8, 1 << 17, REQUIRED),
    INT("num_attention_heads", NH, 1, 1024, REQUIRED), INT("num_key_value_heads", NKV, 1, 1024, 0),
    INT("head_dim", HS, 8, 1024, 0),                  INT("intermediate_size", FF, 8, 1 << 20, REQUIRED),
    INT("vocab_size", V, 1, 1 << 24, REQUIRED),       INT("max_position_embeddings", max_positions, 1, 1 << 24, REQUIRED),
    FLOAT("rms_norm_eps", norm_eps, 0, 1, 1e-6),      FLOAT("rope_theta", rope.base, 1, 1e12, 10000),
    BOOL("tie_word_embeddings", tied_head, false),    BOOL("attention_bias", attention_bias, false),
    BOOL("mlp_bias", mlp_bias, false), END
};
static const FixedKey llama_fixed[] = {{"hidden_act", "silu", false}, END};
static const FamilyTensor llama_tensors[] = {
    {WTE, "model.embed_tokens.weight"},
    {LN1W, "model.layers.%d.input_layernorm.weight"},
    {QKVW, "model.layers.%d.self_attn.q_proj.weight", PART_Q, .lora = "q"},
    {QKVW, "model.layers.%d.self_attn.k_proj.weight", PART_K, .lora = "k"},
    {QKVW, "model.layers.%d.self_attn.v_proj.weight", PART_V, .lora = "v"},
    {QKVB, "model.layers.%d.self_attn.q_proj.bias", PART_Q, .when = IF_ATTENTION_BIAS},
    {QKVB, "model.layers.%d.self_attn.k_proj.bias", PART_K, .when = IF_ATTENTION_BIAS},
    {QKVB, "model.layers.%d.self_attn.v_proj.bias", PART_V, .when = IF_ATTENTION_BIAS},
    {ATTPROJW, "model.layers.%d.self_attn.o_proj.weight", .lora = "o"},
    {ATTPROJB, "model.layers.%d.self_attn.o_proj.bias", .when = IF_ATTENTION_BIAS},
    {LN2W, "model.layers.%d.post_attention_layernorm.weight"},
    {UPW, "model.layers.%d.mlp.gate_proj.weight", PART_GATE, .lora = "gate"},
    {UPW, "model.layers.%d.mlp.up_proj.weight", PART_UP, .lora = "up"},
    {UPB, "model.layers.%d.mlp.gate_proj.bias", PART_GATE, .when = IF_MLP_BIAS},
    {UPB, "model.layers.%d.mlp.up_proj.bias", PART_UP, .when = IF_MLP_BIAS},
    {DOWNW, "model.layers.%d.mlp.down_proj.weight", .lora = "down"},
    {DOWNB, "model.layers.%d.mlp.down_proj.bias", .when = IF_MLP_BIAS},
    {LNFW, "model.norm.weight"},
    {HEADW, "lm_head.weight", .when = IF_UNTIED}, END
};

// ---- Mistral: Llama with a sliding window, which full attention equals as long as no sample is longer ----
static const ConfigKey mistral_keys[] = {INT("sliding_window", window, 1, 1 << 24, 4096), END};

// ---- GPT-NeoX (Pythia): RoPE on a part of the head, layernorm, biases, erf GELU, attention and MLP side by side ----
static const ConfigKey gpt_neox_keys[] = {
    INT("num_hidden_layers", L, 1, 1024, REQUIRED),   INT("hidden_size", C, 8, 1 << 17, REQUIRED),
    INT("num_attention_heads", NH, 1, 1024, REQUIRED), INT("intermediate_size", FF, 8, 1 << 20, REQUIRED),
    INT("vocab_size", V, 1, 1 << 24, REQUIRED),       INT("max_position_embeddings", max_positions, 1, 1 << 24, REQUIRED),
    FLOAT("layer_norm_eps", norm_eps, 0, 1, 1e-5),    FLOAT("rotary_emb_base", rope.base, 1, 1e12, 10000),
    FLOAT("rotary_pct", rope.fraction, 0, 1, 0.25),   BOOL("use_parallel_residual", parallel_residual, true),
    BOOL("tie_word_embeddings", tied_head, false),    BOOL("attention_bias", attention_bias, true), END
};
static const FixedKey gpt_neox_fixed[] = {{"hidden_act", "gelu", false}, END};
static const FamilyTensor gpt_neox_tensors[] = {
    {WTE, "gpt_neox.embed_in.weight"},
    {LN1W, "gpt_neox.layers.%d.input_layernorm.weight"},
    {LN1B, "gpt_neox.layers.%d.input_layernorm.bias"},
    {QKVW, "gpt_neox.layers.%d.attention.query_key_value.weight", .form = FILE_HEADS, .lora = "q,k,v"},
    {QKVB, "gpt_neox.layers.%d.attention.query_key_value.bias", .form = FILE_HEADS, .when = IF_ATTENTION_BIAS},
    {ATTPROJW, "gpt_neox.layers.%d.attention.dense.weight", .lora = "o"},
    {ATTPROJB, "gpt_neox.layers.%d.attention.dense.bias", .when = IF_ATTENTION_BIAS},
    {LN2W, "gpt_neox.layers.%d.post_attention_layernorm.weight"},
    {LN2B, "gpt_neox.layers.%d.post_attention_layernorm.bias"},
    {UPW, "gpt_neox.layers.%d.mlp.dense_h_to_4h.weight", .lora = "up"},
    {UPB, "gpt_neox.layers.%d.mlp.dense_h_to_4h.bias"},
    {DOWNW, "gpt_neox.layers.%d.mlp.dense_4h_to_h.weight", .lora = "down"},
    {DOWNB, "gpt_neox.layers.%d.mlp.dense_4h_to_h.bias"},
    {LNFW, "gpt_neox.final_layer_norm.weight"},
    {LNFB, "gpt_neox.final_layer_norm.bias"},
    {HEADW, "embed_out.weight", .when = IF_UNTIED}, END
};

// ---- Phi-3: Llama's mathematics; q, k, v and gate, up are one tensor each in the file as well ------
static const ConfigKey phi3_keys[] = {
    INT("num_hidden_layers", L, 1, 1024, REQUIRED),   INT("hidden_size", C, 8, 1 << 17, REQUIRED),
    INT("num_attention_heads", NH, 1, 1024, REQUIRED), INT("num_key_value_heads", NKV, 1, 1024, 0),
    INT("intermediate_size", FF, 8, 1 << 20, REQUIRED), INT("vocab_size", V, 1, 1 << 24, REQUIRED),
    INT("max_position_embeddings", max_positions, 1, 1 << 24, REQUIRED), INT("sliding_window", window, 1, 1 << 24, 0),
    FLOAT("rms_norm_eps", norm_eps, 0, 1, 1e-5),      FLOAT("rope_theta", rope.base, 1, 1e12, 10000),
    FLOAT("partial_rotary_factor", rope.fraction, 0, 1, 1), BOOL("tie_word_embeddings", tied_head, false),
    INT("original_max_position_embeddings", rope.original_positions, 1, 1 << 24, 0), END
};
static const FamilyTensor phi3_tensors[] = {
    {WTE, "model.embed_tokens.weight"},
    {LN1W, "model.layers.%d.input_layernorm.weight"},
    {QKVW, "model.layers.%d.self_attn.qkv_proj.weight", .lora = "q,k,v"},
    {ATTPROJW, "model.layers.%d.self_attn.o_proj.weight", .lora = "o"},
    {LN2W, "model.layers.%d.post_attention_layernorm.weight"},
    {UPW, "model.layers.%d.mlp.gate_up_proj.weight", .lora = "gate,up"},
    {DOWNW, "model.layers.%d.mlp.down_proj.weight", .lora = "down"},
    {LNFW, "model.norm.weight"},
    {HEADW, "lm_head.weight", .when = IF_UNTIED}, END
};

// ---------------------------------------------------------------------------------------------------

static const Family families[] = {
    {"gpt2", "GPT2LMHeadModel", NORM_LAYERNORM, POSITIONS_LEARNED, MLP_GELU_TANH, false, 4, 1, {gpt2_keys}, gpt2_fixed, gpt2_tensors, {".attn.bias", ".attn.masked_bias"}},
    {"llama", "LlamaForCausalLM", NORM_RMSNORM, POSITIONS_ROPE, MLP_SWIGLU, true, 8, 3, {llama_keys}, llama_fixed, llama_tensors, {".rotary_emb.inv_freq"}},
    {"mistral", "MistralForCausalLM", NORM_RMSNORM, POSITIONS_ROPE, MLP_SWIGLU, true, 7, 2, {llama_keys, mistral_keys}, llama_fixed, llama_tensors, {".rotary_emb.inv_freq"}},
    {"gpt_neox", "GPTNeoXForCausalLM", NORM_LAYERNORM, POSITIONS_ROPE, MLP_GELU_ERF, false, 4, 1, {gpt_neox_keys}, gpt_neox_fixed, gpt_neox_tensors,
     {".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"}},
    {"phi3", "Phi3ForCausalLM", NORM_RMSNORM, POSITIONS_ROPE, MLP_SWIGLU, true, 8, 3, {phi3_keys}, llama_fixed, phi3_tensors, {".rotary_emb.inv_freq"}},
};
// clang-format on
#define N_FAMILIES (sizeof families / sizeof *families)

const char* model_families(void) {
    static char list[256];
    if (!*list)
        for (size_t i = 0; i < N_FAMILIES; i++)
            snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", families[i].model_type);
    return list;
}

const Family* family_find(const char* model_type) {
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (!strcmp(families[i].model_type, model_type)) return &families[i];
    return NULL;
}
