/* What a model is, read from a Hugging Face config.json: families are rows of a table, their differences are fields, not code paths. */
#ifndef SEAL_MODEL_CONFIG_H
#define SEAL_MODEL_CONFIG_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    char family[24];      // model_type: "gpt2"
    int L, C, NH, NKV, HS, FF;
    int V, Vp;            // vocabulary; padded to a multiple of 128
    int max_positions;
    float norm_eps;
    float attention_scale;  // 1/sqrt(HS)
    bool tied_head;
    int bos_id, eos_id;     // −1: the config names none
} ModelConfig;

#define VOCABULARY_ROUND 128

// Reads DIR/config.json. Whatever this trainer does not serve (a family, an activation, an option that changes the mathematics) is refused by name.
void model_config_read(ModelConfig* config, const char* directory);
// Fills what follows from the rest (HS, FF where 0, Vp, scale) and checks it; `where` begins the message.
void model_config_complete(ModelConfig* config, const char* where);
// The text of config.json, to be freed.
char* model_config_json(const ModelConfig* config);
// A comma-separated list of the families, for messages and --help.
const char* model_families(void);

#ifdef __cplusplus
}
#endif
#endif
