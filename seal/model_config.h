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

typedef enum { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3, ROPE_LONG } RopeScaling;
#define ROPE_MOST 128  // frequencies: half of the largest head

// Rotary positions (model_rope.c makes the table).
typedef struct {
    float base, fraction;  // fraction of a head that turns
    int rotary;            // its elements: fraction · HS, even
    RopeScaling scaling;
    float factor, low_frequency, high_frequency;  // of ROPE_LINEAR and ROPE_LLAMA3
    int original_positions;                       // what the model was first trained on: ROPE_LLAMA3, ROPE_LONG
    float attention_factor;                       // multiplies cos and sin; 1 but for ROPE_LONG
    float short_factor[ROPE_MOST],
        long_factor[ROPE_MOST];  // of ROPE_LONG: (rotary / 2); the long ones are only kept, no sample reaches them
} RopeConfig;

typedef struct {
    char family[24];  // model_type: "gpt2"
    int L, C, NH, NKV, HS, FF;
    int V, Vp;  // vocabulary; padded to a multiple of 128
    int max_positions;
    int window;   // of sliding attention; 0: none
    int longest;  // the longest sample that is computed as the model means it: max_positions, a window, what short RoPE
                  // factors serve
    float norm_eps;
    float attention_scale;  // 1/sqrt(HS)
    NormKind norm;
    PositionKind positions;
    MlpKind mlp;
    bool parallel_residual;         // attention and MLP both read the layer's input
    bool attention_bias, mlp_bias;  // where the family leaves it open
    bool tied_head;
    RopeConfig rope;
    int bos_id, eos_id;  // −1: the config names none, or several
    int pad_id;          // the token whose embedding is not trained (padding_idx of torch.nn.Embedding); −1: none
} ModelConfig;

#define VOCABULARY_ROUND 128

// Reads DIR/config.json. Whatever this trainer does not serve (a family, an activation, an option that changes the
// mathematics) is refused by name.
void model_config_read(ModelConfig* config, const char* directory);
// A family's own values where its config.json says nothing; sizes are 0. False where the family is not served.
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
void model_rope_table(const ModelConfig* config, int P, float* cos_sin);

#ifdef __cplusplus
}
#endif
#endif
