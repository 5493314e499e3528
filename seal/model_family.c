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
#define OPTIONAL(key, field, low, high, fallback) {key, KEY_OPTIONAL, offsetof(ModelConfig, field), low, high, fallback}
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
    {"activation_function", "gelu_new", false}, {"scale_attn_weights", NULL, true},
    {"scale_attn_by_inverse_layer_idx", NULL, false}, {"add_cross_attention", NULL, false}, END
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
    INT("vocab_size", V, 1, 1 << 24, REQUIRED),
    INT("max_position_embeddings", max_positions, 1, 1 << 24, REQUIRED),
    FLOAT("rms_norm_eps", norm_eps, 0, 1, 1e-6),      FLOAT("rope_theta", rope.base, 1, 1e12, 10000),
    BOOL("tie_word_embeddings", tied_head, false),    BOOL("attention_bias", attention_bias, false),
    BOOL("mlp_bias", mlp_bias, false), END
};
static const FixedKey llama_fixed[] = {{"hidden_act", "silu", false}, END};
// Pieces of the tables of everything that keeps Llama's names
#define LLAMA_QKV                                                          \
    {QKVW, "model.layers.%d.self_attn.q_proj.weight", PART_Q, .lora = "q"}, \
    {QKVW, "model.layers.%d.self_attn.k_proj.weight", PART_K, .lora = "k"}, \
    {QKVW, "model.layers.%d.self_attn.v_proj.weight", PART_V, .lora = "v"}
#define LLAMA_QKV_BIAS(condition)                                                   \
    {QKVB, "model.layers.%d.self_attn.q_proj.bias", PART_Q, .when = condition},     \
    {QKVB, "model.layers.%d.self_attn.k_proj.bias", PART_K, .when = condition},     \
    {QKVB, "model.layers.%d.self_attn.v_proj.bias", PART_V, .when = condition}
#define LLAMA_QK_NORM                                       \
    {QNORMW, "model.layers.%d.self_attn.q_norm.weight"},    \
    {KNORMW, "model.layers.%d.self_attn.k_norm.weight"}
#define LLAMA_O {ATTPROJW, "model.layers.%d.self_attn.o_proj.weight", .lora = "o"}
#define LLAMA_O_BIAS {ATTPROJB, "model.layers.%d.self_attn.o_proj.bias", .when = IF_ATTENTION_BIAS}
#define LLAMA_GATE_UP                                                        \
    {UPW, "model.layers.%d.mlp.gate_proj.weight", PART_GATE, .lora = "gate"}, \
    {UPW, "model.layers.%d.mlp.up_proj.weight", PART_UP, .lora = "up"}
#define LLAMA_GATE_UP_BIAS                                                          \
    {UPB, "model.layers.%d.mlp.gate_proj.bias", PART_GATE, .when = IF_MLP_BIAS},    \
    {UPB, "model.layers.%d.mlp.up_proj.bias", PART_UP, .when = IF_MLP_BIAS}
#define LLAMA_DOWN {DOWNW, "model.layers.%d.mlp.down_proj.weight", .lora = "down"}
#define LLAMA_DOWN_BIAS {DOWNB, "model.layers.%d.mlp.down_proj.bias", .when = IF_MLP_BIAS}
#define LLAMA_HEAD {LNFW, "model.norm.weight"}, {HEADW, "lm_head.weight", .when = IF_UNTIED}
static const FamilyTensor llama_tensors[] = {
    {WTE, "model.embed_tokens.weight"},
    {LN1W, "model.layers.%d.input_layernorm.weight"},
    LLAMA_QKV, LLAMA_QKV_BIAS(IF_ATTENTION_BIAS), LLAMA_O, LLAMA_O_BIAS,
    {LN2W, "model.layers.%d.post_attention_layernorm.weight"},
    LLAMA_GATE_UP, LLAMA_GATE_UP_BIAS, LLAMA_DOWN, LLAMA_DOWN_BIAS, LLAMA_HEAD, END
};

// ---- Mistral: Llama with a sliding window ----
static const ConfigKey mistral_keys[] = {INT("sliding_window", window, 1, 1 << 24, 4096), END};

// ---- GPT-NeoX (Pythia): RoPE on a part of the head, layernorm, biases, erf GELU, attention and MLP side by side ----
static const ConfigKey gpt_neox_keys[] = {
    INT("num_hidden_layers", L, 1, 1024, REQUIRED),   INT("hidden_size", C, 8, 1 << 17, REQUIRED),
    INT("num_attention_heads", NH, 1, 1024, REQUIRED), INT("intermediate_size", FF, 8, 1 << 20, REQUIRED),
    INT("vocab_size", V, 1, 1 << 24, REQUIRED),
    INT("max_position_embeddings", max_positions, 1, 1 << 24, REQUIRED),
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

// ---- Qwen2, 2.5: Llama with a bias on q, k and v; a window on the upper layers, where it is switched on ----
static const ConfigKey qwen2_keys[] = {
    INT("num_key_value_heads", NKV, 1, 1024, 32),  BOOL("use_sliding_window", use_window, false),
    INT("sliding_window", window, 1, 1 << 24, 4096), INT("max_window_layers", window_from, 0, 1024, 28), END
};
static const FamilyTensor qwen2_tensors[] = {
    {WTE, "model.embed_tokens.weight"},
    {LN1W, "model.layers.%d.input_layernorm.weight"},
    LLAMA_QKV, LLAMA_QKV_BIAS(ALWAYS), LLAMA_O,
    {LN2W, "model.layers.%d.post_attention_layernorm.weight"},
    LLAMA_GATE_UP, LLAMA_DOWN, LLAMA_HEAD, END
};

// ---- Qwen3: a norm of each query and key head before it turns; heads wider than width / heads ----
static const ConfigKey qwen3_keys[] = {INT("head_dim", HS, 8, 1024, 128), END};
static const FamilyTensor qwen3_tensors[] = {
    {WTE, "model.embed_tokens.weight"},
    {LN1W, "model.layers.%d.input_layernorm.weight"},
    LLAMA_QKV, LLAMA_QKV_BIAS(IF_ATTENTION_BIAS), LLAMA_QK_NORM, LLAMA_O, LLAMA_O_BIAS,
    {LN2W, "model.layers.%d.post_attention_layernorm.weight"},
    LLAMA_GATE_UP, LLAMA_DOWN, LLAMA_HEAD, END
};

// ---- SmolLM3: Llama without rotary positions in every fourth layer ----
static const ConfigKey smollm3_keys[] = {
    INT("num_key_value_heads", NKV, 1, 1024, 4),   FLOAT("rope_theta", rope.base, 1, 1e12, 2000000),
    BOOL("tie_word_embeddings", tied_head, true),  INT("no_rope_layer_interval", no_rope_every, 1, 1024, 4), END
};
static const FixedKey smollm3_fixed[] = {{"hidden_act", "silu", false}, {"use_sliding_window", NULL, false}, END};

// ---- Granite: Llama with four scalars ----
static const ConfigKey granite_keys[] = {
    FLOAT("embedding_multiplier", embedding_scale, 1e-6, 1e6, 1),
    FLOAT("residual_multiplier", residual_scale, 1e-6, 1e6, 1),
    FLOAT("attention_multiplier", attention_multiplier, 1e-6, 1e6, 1),
    FLOAT("logits_scaling", logit_divisor, 1e-6, 1e6, 1), END
};

// ---- OLMo 2: norms after attention and MLP, none before; one norm over all query heads, one over all key heads ----
static const ConfigKey olmo2_keys[] = {FLOAT("rms_norm_eps", norm_eps, 0, 1, 1e-5), END};
static const FamilyTensor olmo2_tensors[] = {
    {WTE, "model.embed_tokens.weight"},
    LLAMA_QKV, LLAMA_QKV_BIAS(IF_ATTENTION_BIAS), LLAMA_QK_NORM, LLAMA_O, LLAMA_O_BIAS,
    {POST1W, "model.layers.%d.post_attention_layernorm.weight"},
    LLAMA_GATE_UP, LLAMA_DOWN,
    {POST2W, "model.layers.%d.post_feedforward_layernorm.weight"},
    LLAMA_HEAD, END
};

// ---- OLMo 3: OLMo 2 with a window in three layers of four, which keep the plain positions where others stretch ----
static const ConfigKey olmo3_keys[] = {INT("sliding_window", window, 1, 1 << 24, 4096), END};

// ---- Gemma 2: norms before and after, of 1 + w; GeGLU; embeddings · √C; caps of scores and logits; a window in every
// other layer ----
static const ConfigKey gemma2_keys[] = {
    INT("head_dim", HS, 8, 1024, 256),              INT("num_key_value_heads", NKV, 1, 1024, 4),
    BOOL("tie_word_embeddings", tied_head, true),   FLOAT("query_pre_attn_scalar", query_scalar, 1e-6, 1e6, 256),
    INT("sliding_window", window, 1, 1 << 24, 4096), OPTIONAL("final_logit_softcapping", logit_cap, 1e-3, 1e6, 30),
    OPTIONAL("attn_logit_softcapping", attention_cap, 1e-3, 1e6, 50), END
};
static const FixedKey gemma2_fixed[] = {{"hidden_activation", "gelu_pytorch_tanh", false}, END};
#define GEMMA_NORMS_AFTER_ATTENTION                                      \
    {POST1W, "model.layers.%d.post_attention_layernorm.weight"},        \
    {LN2W, "model.layers.%d.pre_feedforward_layernorm.weight"}
#define GEMMA_NORM_AFTER_MLP {POST2W, "model.layers.%d.post_feedforward_layernorm.weight"}
static const FamilyTensor gemma2_tensors[] = {
    {WTE, "model.embed_tokens.weight"},
    {LN1W, "model.layers.%d.input_layernorm.weight"},
    LLAMA_QKV, LLAMA_QKV_BIAS(IF_ATTENTION_BIAS), LLAMA_O, LLAMA_O_BIAS, GEMMA_NORMS_AFTER_ATTENTION,
    LLAMA_GATE_UP, LLAMA_DOWN, GEMMA_NORM_AFTER_MLP, LLAMA_HEAD, END
};

// ---- Gemma 3: Gemma 2 with a norm of each query and key head in place of the caps; five layers with a window, which
// turn by a base of their own, to one without ----
static const ConfigKey gemma3_keys[] = {
    FLOAT("rope_theta", rope.base, 1, 1e12, 1000000), FLOAT("rope_local_base_freq", rope_local.base, 1, 1e12, 10000),
    INT("sliding_window_pattern", full_every, 1, 1024, 6), OPTIONAL("final_logit_softcapping", logit_cap, 1e-3, 1e6, 0),
    OPTIONAL("attn_logit_softcapping", attention_cap, 1e-3, 1e6, 0), END
};
static const FixedKey gemma3_fixed[] = {
    {"hidden_activation", "gelu_pytorch_tanh", false}, {"use_bidirectional_attention", NULL, false}, END
};
static const FamilyTensor gemma3_tensors[] = {
    {WTE, "model.embed_tokens.weight"},
    {LN1W, "model.layers.%d.input_layernorm.weight"},
    LLAMA_QKV, LLAMA_QKV_BIAS(IF_ATTENTION_BIAS), LLAMA_QK_NORM, LLAMA_O, LLAMA_O_BIAS, GEMMA_NORMS_AFTER_ATTENTION,
    LLAMA_GATE_UP, LLAMA_DOWN, GEMMA_NORM_AFTER_MLP, LLAMA_HEAD, END
};

// ---------------------------------------------------------------------------------------------------

#define LLAMA_LIKE .norm = NORM_RMSNORM, .positions = POSITIONS_ROPE, .mlp = MLP_SWIGLU, .untrained_padding = true, \
    .buffers = {".rotary_emb.inv_freq"}
#define GEMMA_LIKE .norm = NORM_RMSNORM, .positions = POSITIONS_ROPE, .mlp = MLP_GEGLU, .norm_offset = 1, \
    .embedding_root = true, .untrained_padding = true, .padding = 1 + 0, .ff_times = 4, .ff_over = 1, \
    .buffers = {".rotary_emb.inv_freq"}
static const Family families[] = {
    {"gpt2", "GPT2LMHeadModel", NORM_LAYERNORM, POSITIONS_LEARNED, MLP_GELU_TANH, .ff_times = 4, .ff_over = 1,
     .keys = {gpt2_keys}, .fixed = gpt2_fixed, .tensors = gpt2_tensors, .buffers = {".attn.bias", ".attn.masked_bias"}},
    {"llama", "LlamaForCausalLM", LLAMA_LIKE, .ff_times = 8, .ff_over = 3, .keys = {llama_keys}, .fixed = llama_fixed,
     .tensors = llama_tensors},
    {"mistral", "MistralForCausalLM", LLAMA_LIKE, .ff_times = 7, .ff_over = 2, .keys = {llama_keys, mistral_keys},
     .fixed = llama_fixed, .tensors = llama_tensors},
    {"gpt_neox", "GPTNeoXForCausalLM", NORM_LAYERNORM, POSITIONS_ROPE, MLP_GELU_ERF, .ff_times = 4, .ff_over = 1,
     .keys = {gpt_neox_keys}, .fixed = gpt_neox_fixed, .tensors = gpt_neox_tensors,
     .buffers = {".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"}},
    {"phi3", "Phi3ForCausalLM", LLAMA_LIKE, .padding = 1 + 32000, .ff_times = 8, .ff_over = 3, .keys = {phi3_keys},
     .fixed = llama_fixed, .tensors = phi3_tensors},
    {"qwen2", "Qwen2ForCausalLM", LLAMA_LIKE, .ff_times = 11, .ff_over = 2, .keys = {llama_keys, qwen2_keys},
     .fixed = llama_fixed, .tensors = qwen2_tensors},
    {"qwen3", "Qwen3ForCausalLM", LLAMA_LIKE, .qk_norm = QK_NORM_HEAD, .ff_times = 3, .ff_over = 1,
     .keys = {llama_keys, qwen2_keys, qwen3_keys}, .fixed = llama_fixed, .tensors = qwen3_tensors},
    {"smollm3", "SmolLM3ForCausalLM", LLAMA_LIKE, .padding = 1 + 128004, .ff_times = 11, .ff_over = 2,
     .keys = {llama_keys, smollm3_keys}, .fixed = smollm3_fixed, .tensors = llama_tensors},
    {"olmo2", "Olmo2ForCausalLM", LLAMA_LIKE, .qk_norm = QK_NORM_ALL, .padding = 1 + 1, .ff_times = 8, .ff_over = 3,
     .keys = {llama_keys, olmo2_keys}, .fixed = llama_fixed, .tensors = olmo2_tensors},
    {"olmo3", "Olmo3ForCausalLM", LLAMA_LIKE, .qk_norm = QK_NORM_ALL, .local_rope = true, .full_every = 4,
     .padding = 1 + 1, .ff_times = 8, .ff_over = 3, .keys = {llama_keys, olmo2_keys, olmo3_keys}, .fixed = llama_fixed,
     .tensors = olmo2_tensors},
    {"gemma2", "Gemma2ForCausalLM", GEMMA_LIKE, .full_every = 2, .keys = {llama_keys, gemma2_keys},
     .fixed = gemma2_fixed, .tensors = gemma2_tensors},
    {"gemma3_text", "Gemma3ForCausalLM", GEMMA_LIKE, .qk_norm = QK_NORM_HEAD, .local_rope = true, .full_every = 6,
     .keys = {llama_keys, gemma2_keys, gemma3_keys}, .fixed = gemma3_fixed, .tensors = gemma3_tensors},
    {"granite", "GraniteForCausalLM", LLAMA_LIKE, .ff_times = 4, .ff_over = 1, .keys = {llama_keys, granite_keys},
     .fixed = llama_fixed, .tensors = llama_tensors},
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
