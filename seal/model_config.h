/* What a model is, read from a Hugging Face config.json: families are rows of a table (model_family.h), their
 * differences are fields, not code paths. */
#ifndef SEAL_MODEL_CONFIG_H
#define SEAL_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include "model_family.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3, ROPE_LONG, ROPE_YARN, ROPE_DYNAMIC } RopeScaling;
#define ROPE_MOST 128  // frequencies: half of the largest head

// Rotary positions (model_rope.c makes the table).
typedef struct {
    float base, fraction;  // fraction: of a head, from its first element on; the rest is not rotated
    int rotary;            // its elements: fraction · HS, even
    RopeScaling scaling;
    float factor;                         // of all but ROPE_PLAIN and ROPE_LONG
    float low_frequency, high_frequency;  // of ROPE_LLAMA3
    float beta_fast, beta_slow;           // of ROPE_YARN: turns within the original positions that bound its ramp
    bool ramp_truncated;                  // and whether the ramp's ends are whole frequencies
    int original_positions;               // what the model was first trained on: ROPE_LLAMA3, ROPE_LONG, ROPE_YARN
    float attention_factor;               // multiplies cos and sin; 1 but for ROPE_LONG and ROPE_YARN
    float short_factor[ROPE_MOST],
        long_factor[ROPE_MOST];  // of ROPE_LONG: (rotary / 2); the long ones are only kept, no sample reaches them
} RopeConfig;

#define LAYERS_MOST 1024
// What a layer's attention is: bits.
typedef enum { LAYER_WINDOW = 1, LAYER_NO_ROPE = 2, LAYER_LOCAL_ROPE = 4 } LayerKind;

typedef struct {
    char family[24];  // model_type: "gpt2"
    int L, C, NH, NKV, HS, FF;
    int V, Vp;  // vocabulary; padded to a multiple of 128
    int max_positions;
    int longest;  // the longest sample that is computed as the model means it: max_positions, what short RoPE factors
                  // or a stretched RoPE reach
    // Layers of different kinds: rules, and what comes of them.
    int window;         // tokens that a layer with LAYER_WINDOW attends to, its own included; 0: all attend to all
    bool use_window;    // false: config.json gives a window and switches it off
    int window_from;    // the first layer with a window
    int full_every;     // one layer in so many has no window; 0: all have one
    int no_rope_every;  // one layer in so many has no rotary positions; 0: all have them
    bool layers_known;  // config.json lists the kinds, or the rules have been applied
    unsigned char layers[LAYERS_MOST];
    float norm_eps;
    float norm_offset;
    float attention_scale;       // of q·k: attention_multiplier, or 1/sqrt(query_scalar), or 1/sqrt(HS)
    float attention_multiplier;  // 0: none
    float query_scalar;          // 0: none
    float embedding_scale, residual_scale, logit_divisor;  // 1: nothing is scaled
    float attention_cap, logit_cap;                        // cap · tanh(x / cap) of scores and logits; 0: none
    NormKind norm;
    PositionKind positions;
    MlpKind mlp;
    QkNormKind qk_norm;
    bool parallel_residual;         // attention and MLP both read the layer's input
    bool attention_bias, mlp_bias;  // where the family leaves it open
    bool tied_head;
    RopeConfig rope;
    RopeConfig rope_local;  // of the layers with LAYER_LOCAL_ROPE
    int bos_id, eos_id;     // −1: the config names none, or several
    int pad_id;             // the token whose embedding is not trained (padding_idx of torch.nn.Embedding); −1: none
} ModelConfig;

#define VOCABULARY_ROUND 128

static inline bool mlp_gated(const ModelConfig* c) { return c->mlp == MLP_SWIGLU || c->mlp == MLP_GEGLU; }
// The window of a layer; 0: it attends to all that came before.
static inline int layer_window(const ModelConfig* c, int layer) {
    return c->layers[layer] & LAYER_WINDOW ? c->window : 0;
}
// The rotary positions of a layer; NULL: it has none.
static inline const RopeConfig* layer_rope(const ModelConfig* c, int layer) {
    if (c->positions != POSITIONS_ROPE || c->layers[layer] & LAYER_NO_ROPE) return NULL;
    return c->layers[layer] & LAYER_LOCAL_ROPE ? &c->rope_local : &c->rope;
}

// Reads DIR/config.json. Whatever is not supported (a family, an activation, an option that changes the mathematics) is
// refused by name.
void model_config_read(ModelConfig* config, const char* directory);
// A family's own values where its config.json says nothing; sizes are 0. False where the family is not supported.
bool model_config_defaults(ModelConfig* config, const char* family);
// Whether the family's config.json can name the field at this offset of ModelConfig.
bool model_config_names(const char* family, size_t offset);
// Fills what follows from the rest (HS, FF where 0, Vp, scale, longest) and checks it; `where` begins the message.
void model_config_complete(ModelConfig* config, const char* where);
// The text of config.json, to be freed. from: a directory whose config.json is taken whole, but for the dtype
// ("float32"; NULL: as it is there); NULL: a new one.
char* model_config_json(const ModelConfig* config, const char* from, const char* dtype);
// Refuses a longest sample that the model would compute otherwise; `option` names where the number comes from.
void model_config_check_length(const ModelConfig* config, int64_t length, const char* option, const char* model);
// cos_sin (P, rotary/2, 2) of positions 0 … P − 1, scaling and attention factor included. transformers computes it in
// fp32, in this order.
void model_rope_table(const RopeConfig* rope, int P, float* cos_sin);

#ifdef __cplusplus
}
#endif
#endif
