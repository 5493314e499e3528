/* config.json to ModelConfig and back. One row per family says how its keys are called and what it cannot vary. See model_config.h. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "error.h"
#include "file.h"
#include "model_config.h"

// A key that must have this value where it is present: anything else would be another model.
typedef struct { const char* key; const char* text; int is_true; } Fixed;  // text: a string; else a boolean
typedef struct {
    const char* model_type;
    const char* architecture;
    const char *layers, *width, *heads, *kv_heads, *ff, *vocab, *positions, *eps;  // kv_heads NULL: as many as heads
    int ff_times;              // FF where the key is absent or null: this × C
    bool tied;                 // where tie_word_embeddings is absent
    Fixed fixed[6];
} Family;

static const Family families[] = {
    {"gpt2", "GPT2LMHeadModel", "n_layer", "n_embd", "n_head", NULL, "n_inner", "vocab_size", "n_positions", "layer_norm_epsilon", 4, true,
     {{"activation_function", "gelu_new", 0}, {"scale_attn_weights", NULL, 1}, {"scale_attn_by_inverse_layer_idx", NULL, 0}, {"add_cross_attention", NULL, 0}}},
};
#define N_FAMILIES (sizeof families / sizeof *families)

const char* model_families(void) {
    static char list[256];
    if (!*list)
        for (size_t i = 0; i < N_FAMILIES; i++) snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", families[i].model_type);
    return list;
}

static const Family* find_family(const char* model_type) {
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (!strcmp(families[i].model_type, model_type)) return &families[i];
    return NULL;
}

static int read_int(const cJSON* json, const char* key, const char* path, int low, int high) {
    const cJSON* item = cJSON_GetObjectItemCaseSensitive(json, key);
    if (!cJSON_IsNumber(item)) fatal("%s: \"%s\" is missing or not a number", path, key);
    if (item->valuedouble != floor(item->valuedouble) || item->valuedouble < low || item->valuedouble > high)
        fatal("%s: \"%s\" is %g, want an integer from %d to %d", path, key, item->valuedouble, low, high);
    return (int)item->valuedouble;
}

static void check_fixed(const cJSON* json, const Family* family, const char* path) {
    for (const Fixed* f = family->fixed; f->key; f++) {
        const cJSON* item = cJSON_GetObjectItemCaseSensitive(json, f->key);
        if (!item || cJSON_IsNull(item)) continue;
        if (f->text) {
            if (!cJSON_IsString(item) || strcmp(item->valuestring, f->text))
                fatal("%s: \"%s\" is %s; only \"%s\" is served for %s", path, f->key, cJSON_IsString(item) ? item->valuestring : "not a string", f->text, family->model_type);
        } else if (!cJSON_IsBool(item) || cJSON_IsTrue(item) != f->is_true) {
            fatal("%s: \"%s\" must be %s; no kernel serves the other", path, f->key, f->is_true ? "true" : "false");
        }
    }
}

void model_config_complete(ModelConfig* c, const char* where) {
    if (c->C % c->NH) fatal("%s: width %d does not divide into %d heads", where, c->C, c->NH);
    if (!c->HS) c->HS = c->C / c->NH;
    if (!c->NKV) c->NKV = c->NH;
    if (c->NH % c->NKV) fatal("%s: %d query heads do not share %d key-value heads evenly", where, c->NH, c->NKV);
    if (c->C % 8 || c->FF % 8) fatal("%s: widths %d and %d must be multiples of 8", where, c->C, c->FF);
    if (c->norm_eps <= 0.0f) fatal("%s: the norm's epsilon is %g", where, c->norm_eps);
    c->Vp = (c->V + VOCABULARY_ROUND - 1) / VOCABULARY_ROUND * VOCABULARY_ROUND;
    c->attention_scale = 1.0f / sqrtf((float)c->HS);
}

void model_config_read(ModelConfig* c, const char* directory) {
    char path[4096];
    snprintf(path, sizeof path, "%s/config.json", directory);
    size_t length;
    char* text = file_read(path, 1 << 20, &length);
    cJSON* json = cJSON_ParseWithLength(text, length);
    if (!cJSON_IsObject(json)) fatal("%s: not a JSON object", path);
    const cJSON* type = cJSON_GetObjectItemCaseSensitive(json, "model_type");
    if (!cJSON_IsString(type)) fatal("%s: \"model_type\" is missing", path);
    const Family* f = find_family(type->valuestring);
    if (!f) fatal("%s: model family \"%.40s\" is not served; served are: %s", path, type->valuestring, model_families());
    check_fixed(json, f, path);
    memset(c, 0, sizeof *c);
    snprintf(c->family, sizeof c->family, "%s", f->model_type);
    c->L = read_int(json, f->layers, path, 1, 1024);
    c->C = read_int(json, f->width, path, 8, 1 << 17);
    c->NH = read_int(json, f->heads, path, 1, 1024);
    c->NKV = f->kv_heads && cJSON_GetObjectItemCaseSensitive(json, f->kv_heads) ? read_int(json, f->kv_heads, path, 1, 1024) : c->NH;
    const cJSON* ff = cJSON_GetObjectItemCaseSensitive(json, f->ff);
    c->FF = ff && !cJSON_IsNull(ff) ? read_int(json, f->ff, path, 8, 1 << 20) : f->ff_times * c->C;
    c->V = read_int(json, f->vocab, path, 1, 1 << 24);
    c->max_positions = read_int(json, f->positions, path, 1, 1 << 24);
    const cJSON* eps = cJSON_GetObjectItemCaseSensitive(json, f->eps);
    c->norm_eps = cJSON_IsNumber(eps) ? (float)eps->valuedouble : 1e-5f;
    const cJSON* tied = cJSON_GetObjectItemCaseSensitive(json, "tie_word_embeddings");
    c->tied_head = cJSON_IsBool(tied) ? cJSON_IsTrue(tied) : f->tied;
    c->bos_id = cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(json, "bos_token_id")) ? read_int(json, "bos_token_id", path, 0, c->V - 1) : -1;
    c->eos_id = cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(json, "eos_token_id")) ? read_int(json, "eos_token_id", path, 0, c->V - 1) : -1;
    cJSON_Delete(json);
    free(text);
    model_config_complete(c, path);
}

char* model_config_json(const ModelConfig* c) {
    const Family* f = find_family(c->family);
    cJSON* json = cJSON_CreateObject();
    cJSON* architectures = cJSON_AddArrayToObject(json, "architectures");
    cJSON_AddItemToArray(architectures, cJSON_CreateString(f->architecture));
    cJSON_AddStringToObject(json, "model_type", f->model_type);
    cJSON_AddNumberToObject(json, f->layers, c->L);
    cJSON_AddNumberToObject(json, f->width, c->C);
    cJSON_AddNumberToObject(json, f->heads, c->NH);
    if (f->kv_heads) cJSON_AddNumberToObject(json, f->kv_heads, c->NKV);
    cJSON_AddNumberToObject(json, f->ff, c->FF);
    cJSON_AddNumberToObject(json, f->vocab, c->V);
    cJSON_AddNumberToObject(json, f->positions, c->max_positions);
    char eps[32];
    for (int digits = 6; digits <= 9; digits++) {  // as short as it reads back: 1e-05, not 9.99999975e-06
        snprintf(eps, sizeof eps, "%.*g", digits, c->norm_eps);
        if (strtof(eps, NULL) == c->norm_eps) break;
    }
    cJSON_AddRawToObject(json, f->eps, eps);
    cJSON_AddBoolToObject(json, "tie_word_embeddings", c->tied_head);
    for (const Fixed* x = f->fixed; x->key; x++)
        if (x->text) cJSON_AddStringToObject(json, x->key, x->text);
    if (c->bos_id >= 0) cJSON_AddNumberToObject(json, "bos_token_id", c->bos_id);
    if (c->eos_id >= 0) cJSON_AddNumberToObject(json, "eos_token_id", c->eos_id);
    cJSON_AddStringToObject(json, "torch_dtype", "float32");
    char* text = cJSON_Print(json);
    cJSON_Delete(json);
    if (!text) fatal("out of memory writing config.json");
    return text;
}
