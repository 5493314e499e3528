/* config.json to ModelConfig and back, by the keys of the family's row (model_family.c). See model_config.h. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "model_config.h"

// ---------------------------------------------------------------------------------------------------
// reading

static double number(const cJSON* item, const char* key, const char* path, double low, double high, bool whole) {
    double x = item->valuedouble;
    if (!cJSON_IsNumber(item)) fatal("%s: \"%s\" is not a number", path, key);
    if (!(x >= low && x <= high) || (whole && x != floor(x)))
        fatal("%s: \"%s\" is %g; expected %s from %.15g to %.15g", path, key, x, whole ? "an integer" : "a number", low,
              high);
    return x;
}

static void put_field(ModelConfig* c, const ConfigKey* k, double value) {
    char* field = (char*)c + k->offset;
    if (k->type == KEY_INT) *(int*)field = (int)value;
    else if (k->type != KEY_BOOL) *(float*)field = (float)value;
    else *(bool*)field = value != 0.0;
}
static double get_field(const ModelConfig* c, const ConfigKey* k) {
    const char* field = (const char*)c + k->offset;
    return k->type == KEY_INT ? *(const int*)field : k->type == KEY_BOOL ? *(const bool*)field : *(const float*)field;
}

static void read_key(ModelConfig* c, const cJSON* json, const ConfigKey* k, const char* path) {
    const cJSON* item = cJSON_GetObjectItemCaseSensitive(json, k->key);
    bool required = k->fallback == REQUIRED;
    if (!item || (required && cJSON_IsNull(item))) {
        if (required) fatal("%s: \"%s\" is missing", path, k->key);
        put_field(c, k, k->fallback);
    } else if (cJSON_IsNull(item)) put_field(c, k, k->type == KEY_FLOAT ? k->fallback : 0);
    else if (k->type == KEY_BOOL) {
        if (!cJSON_IsBool(item)) fatal("%s: \"%s\" is neither true nor false", path, k->key);
        put_field(c, k, cJSON_IsTrue(item));
    } else put_field(c, k, number(item, k->key, path, k->low, k->high, k->type == KEY_INT));
}

#define KEY_TABLES ((int)(sizeof((Family*)NULL)->keys / sizeof *((Family*)NULL)->keys))

// Whether the family's config.json can name the field.
static bool has_key(const Family* f, size_t offset) {
    for (int table = 0; table < KEY_TABLES && f->keys[table]; table++)
        for (const ConfigKey* k = f->keys[table]; k->key; k++)
            if (k->offset == offset) return true;
    return false;
}
static bool knows_key(const Family* f, const char* key) {
    for (int table = 0; table < KEY_TABLES && f->keys[table]; table++)
        for (const ConfigKey* k = f->keys[table]; k->key; k++)
            if (!strcmp(k->key, key)) return true;
    for (const FixedKey* k = f->fixed; k->key; k++)
        if (!strcmp(k->key, key)) return true;
    return false;
}

// Keys by which some family computes otherwise. In a family that has no such row they must be absent, null, false, or
// this number: a config.json that says more means another model than its model_type.
static const struct {
    const char* key;
    double harmless;
} foreign[] = {
    {"attn_logit_softcapping", 0},
    {"final_logit_softcapping", 0},
    {"logit_softcapping", 0},
    {"attention_multiplier", 0},
    {"embedding_multiplier", 1},
    {"residual_multiplier", 1},
    {"logits_scaling", 1},
    {"logit_scale", 1},
    {"scale_emb", 1},
    {"query_pre_attn_scalar", 0},
    {"clip_qkv", 0},
    {"qk_layernorm", 0},
    {"use_qk_norm", 0},
    {"qk_norm", 0},
    {"no_rope_layers", 0},
    {"attention_chunk_size", 0},
    {"use_bidirectional_attention", 0},
    {"use_mrope", 0},
    {"num_experts", 0},
    {"num_local_experts", 0},
    {"n_routed_experts", 0},
    {"kv_lora_rank", 0},
    {"q_lora_rank", 0},
    {"alibi", 0},
    {"rope_interleaved", 0},
    {"num_kv_shared_layers", 0},
    {"altup_num_inputs", 0},
    {"cross_attention_layers", 0},
    {"lm_head_bias", 0},
};

static void check_foreign(const cJSON* json, const Family* family, const char* path) {
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        const cJSON* item = cJSON_GetObjectItemCaseSensitive(json, foreign[i].key);
        if (!item || cJSON_IsNull(item) || cJSON_IsFalse(item) || knows_key(family, foreign[i].key)) continue;
        if (cJSON_IsNumber(item) && item->valuedouble == foreign[i].harmless) continue;
        if (!strcmp(foreign[i].key, "no_rope_layers") && has_key(family, offsetof(ModelConfig, no_rope_every)))
            continue;
        fatal("%s: \"%s\" is set, but a %s model has no such setting; the model would compute something else", path,
              foreign[i].key, family->model_type);
    }
}

// By the name of the method, as the model's page has it.
static void refuse_quantised(const cJSON* json, const char* path) {
    const cJSON *quantised = cJSON_GetObjectItemCaseSensitive(json, "quantization_config"),
                *method = cJSON_GetObjectItemCaseSensitive(quantised, "quant_method"),
                *bits = cJSON_GetObjectItemCaseSensitive(quantised, "bits");
    char of_bits[32] = "";
    if (!quantised || cJSON_IsNull(quantised)) return;
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(quantised, "load_in_4bit"))) strcpy(of_bits, ", 4 bits");
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(quantised, "load_in_8bit"))) strcpy(of_bits, ", 8 bits");
    if (cJSON_IsNumber(bits)) snprintf(of_bits, sizeof of_bits, ", %g bits", bits->valuedouble);
    fatal(
        "%s: \"quantization_config\" is set: the weights are quantised (%.40s%s), which is not supported; take the "
        "model in bf16, fp16 or fp32",
        path, cJSON_IsString(method) ? method->valuestring : "by a method it does not name", of_bits);
}

static void check_fixed(const cJSON* json, const Family* family, const char* path) {
    refuse_quantised(json, path);
    for (const FixedKey* f = family->fixed; f->key; f++) {
        const cJSON* item = cJSON_GetObjectItemCaseSensitive(json, f->key);
        if (!item || cJSON_IsNull(item)) continue;
        if (f->text) {
            if (!cJSON_IsString(item) || strcmp(item->valuestring, f->text))
                fatal("%s: \"%s\" is %.40s; only \"%s\" is supported for %s", path, f->key,
                      cJSON_IsString(item) ? item->valuestring : "not a string", f->text, family->model_type);
        } else if (!cJSON_IsBool(item) || cJSON_IsTrue(item) != f->is_true) {
            fatal("%s: \"%s\" must be %s; nothing else is supported", path, f->key, f->is_true ? "true" : "false");
        }
    }
}

// The id of a special token; −1 where there is none, or several: then the tokenizer says which.
static int token_id(const cJSON* json, const char* key, const char* path, int V) {
    const cJSON* item = cJSON_GetObjectItemCaseSensitive(json, key);
    if (cJSON_IsArray(item)) item = cJSON_GetArraySize(item) == 1 ? item->child : NULL;
    return item && !cJSON_IsNull(item) ? (int)number(item, key, path, 0, V - 1, true) : -1;
}

// As torch.nn.Embedding counts it: a negative one from the end. Where the file does not say it is the family's own, if
// the vocabulary has it.
static int padding_id(const cJSON* json, const char* path, int V, int of_family) {
    const cJSON* item = cJSON_GetObjectItemCaseSensitive(json, "pad_token_id");
    if (!item && of_family && of_family - 1 < V) return of_family - 1;
    if (!item || cJSON_IsNull(item)) return -1;
    int id = (int)number(item, "pad_token_id", path, -V, V - 1, true);
    return id < 0 ? V + id : id;
}

// A number of the object that says how positions turn a head: "rope_scaling", or "rope_parameters" (scaling->string is
// which).
static double scaling_number(const cJSON* scaling, const char* key, const char* path, double low, double high,
                             double fallback) {
    const cJSON* item = cJSON_GetObjectItemCaseSensitive(scaling, key);
    if (!item || cJSON_IsNull(item)) {
        if (fallback == REQUIRED) fatal("%s: \"%s\" has no \"%s\"", path, scaling->string, key);
        return fallback;
    }
    return number(item, key, path, low, high, false);
}

// factor (ROPE_MOST), zero after its numbers: model_config_complete compares how many there are with what a head turns
// in.
static void read_factors(float* factor, const cJSON* scaling, const char* key, const char* path) {
    const cJSON* factors = cJSON_GetObjectItemCaseSensitive(scaling, key);
    int n = 0;
    if (!cJSON_IsArray(factors)) fatal("%s: \"%s\" has no \"%s\"", path, scaling->string, key);
    for (const cJSON* x = factors->child; x; x = x->next) {
        if (n == ROPE_MOST) fatal("%s: \"%s\" has more than %d numbers", path, key, ROPE_MOST);
        factor[n++] = (float)number(x, key, path, 1e-6, 1e6, false);
    }
}

static void read_long_rope(ModelConfig* c, const cJSON* scaling, const char* path) {
    RopeConfig* r = &c->rope;
    read_factors(r->short_factor, scaling, "short_factor", path);
    read_factors(r->long_factor, scaling, "long_factor", path);
    double factor = scaling_number(scaling, "factor", path, 0, 1e9,
                                   1);  // of a model that does not say what it was first trained on
    if (!r->original_positions)
        r->original_positions = (int)scaling_number(scaling, "original_max_position_embeddings", path, 1, 1e9, 0);
    if (r->original_positions) factor = (double)c->max_positions / r->original_positions;
    else r->original_positions = c->max_positions;
    double derived = factor <= 1.0 ? 1.0 : sqrt(1.0 + log(factor) / log((double)r->original_positions));
    r->attention_factor = (float)scaling_number(scaling, "attention_factor", path, 0, 1e9, derived);
}

bool model_config_names(const char* family, size_t offset) {
    const Family* f = family_find(family);
    return f && has_key(f, offset);
}

// YaRN (Peng et al. 2023). Its attention factor follows from the factor, and from two more numbers where they are
// there.
static double yarn_scale(double factor, double times) { return factor <= 1.0 ? 1.0 : 0.1 * times * log(factor) + 1.0; }
static void read_yarn(ModelConfig* c, RopeConfig* r, const cJSON* scaling, const char* path) {
    r->factor = (float)scaling_number(scaling, "factor", path, 1e-6, 1e9, REQUIRED);
    double mscale = scaling_number(scaling, "mscale", path, 0, 1e9, 0),
           all = scaling_number(scaling, "mscale_all_dim", path, 0, 1e9, 0),
           derived = mscale && all ? yarn_scale(r->factor, mscale) / yarn_scale(r->factor, all)
                                   : yarn_scale(r->factor, 1);
    r->attention_factor = (float)scaling_number(scaling, "attention_factor", path, 0, 1e9, derived);
    r->beta_fast = (float)scaling_number(scaling, "beta_fast", path, 0, 1e9, 32);
    r->beta_slow = (float)scaling_number(scaling, "beta_slow", path, 0, 1e9, 1);
    if (r->beta_fast == 0) r->beta_fast = 32;  // as transformers reads a zero
    if (r->beta_slow == 0) r->beta_slow = 1;
    const cJSON* truncate = cJSON_GetObjectItemCaseSensitive(scaling, "truncate");
    r->ramp_truncated = !truncate || !cJSON_IsFalse(truncate);
    r->original_positions = (int)scaling_number(scaling, "original_max_position_embeddings", path, 1, 1e9,
                                                c->max_positions);
    if (r->base <= 1.0f) fatal("%s: YaRN needs a \"rope_theta\" above 1", path);
}

// What an object says of one kind of rotary positions.
static void read_scaling(ModelConfig* c, RopeConfig* r, const cJSON* scaling, const char* path) {
    const cJSON* type = cJSON_GetObjectItemCaseSensitive(scaling, "rope_type");
    if (!type) type = cJSON_GetObjectItemCaseSensitive(scaling, "type");
    const char* name = cJSON_IsString(type)                               ? type->valuestring
                       : !type && strcmp(scaling->string, "rope_scaling") ? "default"
                                                                          : "";
    if (!strcmp(name, "default")) return;
    if (!strcmp(name, "linear")) {
        r->scaling = ROPE_LINEAR;
        r->factor = (float)scaling_number(scaling, "factor", path, 1, 1e9, REQUIRED);
    } else if (!strcmp(name, "dynamic")) {  // bends only beyond the positions of the model, where no sample reaches
        r->scaling = ROPE_DYNAMIC;
        r->factor = (float)scaling_number(scaling, "factor", path, 1, 1e9, REQUIRED);
    } else if (!strcmp(name, "llama3")) {
        r->scaling = ROPE_LLAMA3;
        r->factor = (float)scaling_number(scaling, "factor", path, 1, 1e9, REQUIRED);
        r->low_frequency = (float)scaling_number(scaling, "low_freq_factor", path, 1e-6, 1e9, REQUIRED);
        r->high_frequency = (float)scaling_number(scaling, "high_freq_factor", path, 1e-6, 1e9, REQUIRED);
        r->original_positions = (int)scaling_number(scaling, "original_max_position_embeddings", path, 1, 1e9,
                                                    REQUIRED);
        if (r->high_frequency <= r->low_frequency)
            fatal("%s: \"high_freq_factor\" must be above \"low_freq_factor\"", path);
    } else if (!strcmp(name, "longrope") || !strcmp(name, "su")) {
        r->scaling = ROPE_LONG;
        read_long_rope(c, scaling, path);
    } else if (!strcmp(name, "yarn")) {
        r->scaling = ROPE_YARN;
        read_yarn(c, r, scaling, path);
    } else
        fatal("%s: %s \"%.40s\" is not supported; supported are: default, linear, dynamic, llama3, longrope, yarn",
              path, scaling->string, name);
}

// transformers 5 writes one object, "rope_parameters", where "rope_theta", "rope_scaling" and the fraction of a head
// that turns stood apart; where layers differ, one object of it for each kind of layer. As there, an older
// "rope_scaling" beside it is the one that counts.
static void read_rope(ModelConfig* c, const cJSON* json, const char* path) {
    static const char* const keys[] = {"rope_scaling", "rope_parameters"};
    const Family* family = family_find(c->family);
    RopeConfig* r = &c->rope;
    const cJSON* scaling = NULL;
    if (c->positions != POSITIONS_ROPE) return;
    for (int i = 0; i < 2 && !scaling; i++) {
        scaling = cJSON_GetObjectItemCaseSensitive(json, keys[i]);
        if (scaling && !cJSON_IsNull(scaling) && !cJSON_IsObject(scaling))
            fatal("%s: \"%s\" is not an object", path, keys[i]);
        if (scaling && !scaling->child) scaling = NULL;
    }
    const cJSON *of_full = cJSON_GetObjectItemCaseSensitive(scaling, "full_attention"),
                *of_window = cJSON_GetObjectItemCaseSensitive(scaling, "sliding_attention");
    bool apart = family->local_rope && cJSON_IsObject(of_full) && cJSON_IsObject(of_window);
    for (const cJSON* item = scaling ? scaling->child : NULL; item && !apart; item = item->next)
        if (cJSON_IsObject(item))
            fatal("%s: \"%s\" has its own positions for some layers, \"%.40s\"; that is not supported", path,
                  scaling->string, item->string);
    if (apart) scaling = of_full;
    r->base = (float)scaling_number(scaling, "rope_theta", path, 1, 1e12, r->base);
    const cJSON* fraction = cJSON_GetObjectItemCaseSensitive(json, "partial_rotary_factor");
    r->fraction = (float)scaling_number(scaling, "partial_rotary_factor", path, 0, 1, r->fraction);
    if (!has_key(family, offsetof(ModelConfig, rope.fraction)) &&
        (r->fraction != 1.0f || (cJSON_IsNumber(fraction) && fraction->valuedouble != 1.0)))
        fatal("%s: \"partial_rotary_factor\" must be 1; a %s model rotates whole heads", path, c->family);
    if (scaling) read_scaling(c, r, scaling, path);
    if (!apart) return;
    c->rope_local.base = (float)scaling_number(of_window, "rope_theta", path, 1, 1e12, c->rope_local.base);
    read_scaling(c, &c->rope_local, of_window, path);
    if (c->rope_local.scaling != ROPE_PLAIN)
        fatal("%s: \"%s\": a scaling of the positions of layers with a window is not supported", path,
              of_window->string);
}

// ---------------------------------------------------------------------------------------------------
// layers of different kinds

// "layer_types", and SmolLM3's "no_rope_layers" (1: a layer that has rotary positions). What they list replaces the
// rules. The list must agree with the family where all its layers are alike.
static void read_layers(ModelConfig* c, const cJSON* json, const char* path) {
    const Family* f = family_find(c->family);
    const cJSON *types = cJSON_GetObjectItemCaseSensitive(json, "layer_types"),
                *ropes = cJSON_GetObjectItemCaseSensitive(json, "no_rope_layers");
    bool choice = f->full_every || has_key(f, offsetof(ModelConfig, window_from));
    if (types && !cJSON_IsNull(types)) {
        int l = 0;
        if (!cJSON_IsArray(types) || cJSON_GetArraySize(types) != c->L)
            fatal("%s: \"layer_types\" must list %d layers", path, c->L);
        for (const cJSON* type = types->child; type; type = type->next, l++) {
            const char* name = cJSON_IsString(type) ? type->valuestring : "";
            bool windowed = !strcmp(name, "sliding_attention");
            if (!windowed && strcmp(name, "full_attention"))
                fatal("%s: \"layer_types\" has \"%.40s\"; supported are full_attention and sliding_attention", path,
                      name);
            if (windowed && (!c->window || !c->use_window))
                fatal("%s: \"layer_types\" has sliding_attention, but there is no \"sliding_window\"", path);
            if (!choice && windowed != (c->window > 0))
                fatal("%s: \"layer_types\" has \"%s\" for layer %d; the layers of this %s model are all %s", path, name,
                      l, c->family, c->window ? "sliding_attention" : "full_attention");
            c->layers[l] = windowed ? LAYER_WINDOW | (f->local_rope ? LAYER_LOCAL_ROPE : 0) : 0;
        }
        c->layers_known = choice;
    }
    if (!has_key(f, offsetof(ModelConfig, no_rope_every)) || !ropes || cJSON_IsNull(ropes)) return;
    int l = 0;
    if (!cJSON_IsArray(ropes) || cJSON_GetArraySize(ropes) != c->L)
        fatal("%s: \"no_rope_layers\" must list %d layers", path, c->L);
    for (const cJSON* rope = ropes->child; rope; rope = rope->next, l++)
        c->layers[l] = number(rope, "no_rope_layers", path, 0, 1, true) != 0.0 ? 0 : LAYER_NO_ROPE;
    c->layers_known = true;
}

static void complete_layers(ModelConfig* c) {
    const Family* f = family_find(c->family);
    bool windows = c->window && c->use_window;
    for (int l = 0; l < c->L && !c->layers_known; l++) {
        bool windowed = windows && (c->full_every ? (l + 1) % c->full_every != 0 : l >= c->window_from);
        bool turned = !c->no_rope_every || (l + 1) % c->no_rope_every != 0;
        c->layers[l] = (unsigned char)((windowed ? LAYER_WINDOW : 0) | (turned ? 0 : LAYER_NO_ROPE) |
                                       (windowed && f->local_rope ? LAYER_LOCAL_ROPE : 0));
    }
    c->layers_known = true;
}

// A model of text and pictures keeps what we read under "text_config". The text's part becomes the whole: its own
// family, and what only the outer object says of tokens and dtype.
static cJSON* text_config(cJSON* json) {
    static const char* const outer[] = {"bos_token_id", "eos_token_id", "pad_token_id",
                                        "torch_dtype",  "dtype",        "transformers_version"};
    cJSON* text = cJSON_GetObjectItemCaseSensitive(json, "text_config");
    const cJSON* type = cJSON_GetObjectItemCaseSensitive(text, "model_type");
    const Family* family = cJSON_IsString(type) ? family_find(type->valuestring) : NULL;
    if (!family) return json;
    text = cJSON_DetachItemViaPointer(json, text);
    for (size_t i = 0; i < sizeof outer / sizeof *outer; i++)
        if (!cJSON_HasObjectItem(text, outer[i]) && cJSON_HasObjectItem(json, outer[i]))
            cJSON_AddItemToObject(text, outer[i], cJSON_DetachItemFromObjectCaseSensitive(json, outer[i]));
    cJSON_DeleteItemFromObjectCaseSensitive(text, "architectures");
    cJSON_AddItemToArray(cJSON_AddArrayToObject(text, "architectures"), cJSON_CreateString(family->architecture));
    cJSON_Delete(json);
    return text;
}

static cJSON* parse_config(const char* path) {
    size_t length;
    char* text = file_read(path, 1 << 20, &length);
    cJSON* json = cJSON_ParseWithLength(text, length);
    if (!cJSON_IsObject(json)) fatal("%s: not a JSON object", path);
    free(text);
    return text_config(json);
}

bool model_config_defaults(ModelConfig* c, const char* family) {
    const Family* f = family_find(family);
    memset(c, 0, sizeof *c);
    if (!f) return false;
    snprintf(c->family, sizeof c->family, "%s", f->model_type);
    c->rope.attention_factor = c->rope.fraction = c->rope_local.attention_factor = c->rope_local.fraction = 1.0f;
    c->embedding_scale = c->residual_scale = c->logit_divisor = 1.0f;
    c->use_window = true;
    c->full_every = f->full_every;
    for (int table = 0; table < KEY_TABLES && f->keys[table]; table++)
        for (const ConfigKey* k = f->keys[table]; k->key; k++)
            put_field(c, k, k->fallback == REQUIRED ? 0 : k->fallback);
    c->L = c->C = c->NH = c->NKV = c->HS = c->FF = c->V = c->max_positions = 0;
    c->bos_id = c->eos_id = c->pad_id = -1;
    return true;
}

void model_config_read(ModelConfig* c, const char* directory) {
    const Path config = path_of(directory, "config.json");
    const char* path = config.s;
    cJSON* json = parse_config(path);
    const cJSON* type = cJSON_GetObjectItemCaseSensitive(json, "model_type");
    if (!cJSON_IsString(type)) fatal("%s: \"model_type\" is missing", path);
    const Family* f = family_find(type->valuestring);
    if (!f)
        fatal("%s: model family \"%.40s\" is not supported; supported are: %s", path, type->valuestring,
              model_families());
    check_fixed(json, f, path);
    model_config_defaults(c, f->model_type);
    check_foreign(json, f, path);
    for (int table = 0; table < KEY_TABLES && f->keys[table]; table++)
        for (const ConfigKey* k = f->keys[table]; k->key; k++) read_key(c, json, k, path);
    c->bos_id = token_id(json, "bos_token_id", path, c->V);
    c->eos_id = token_id(json, "eos_token_id", path, c->V);
    c->pad_id = f->untrained_padding ? padding_id(json, path, c->V, f->padding) : -1;
    c->positions = f->positions;
    read_rope(c, json, path);
    read_layers(c, json, path);
    cJSON_Delete(json);
    model_config_complete(c, path);
}

// ---------------------------------------------------------------------------------------------------
// what follows from the rest

static void complete_rope(ModelConfig* c, const char* where) {
    RopeConfig* r = &c->rope;
    if (c->positions != POSITIONS_ROPE) {
        r->rotary = 0;
        return;
    }
    if (r->scaling == ROPE_YARN && (double)r->factor * r->original_positions > c->longest)
        c->longest = (int)((double)r->factor * r->original_positions);
    r->rotary = (int)(r->fraction * (float)c->HS + 1e-4f);  // 0.7 · 80 is 56 in exact arithmetic
    if (r->rotary < 2 || r->rotary % 2 || r->rotary > 2 * ROPE_MOST || r->rotary > c->HS)
        fatal(
            "%s: rotary positions would cover %d of a head's %d elements; expected an even number from 2 to the head "
            "size",
            where, r->rotary, c->HS);
    if (r->scaling != ROPE_LONG) return;
    const struct {
        const char* key;
        const float* factor;
    } lists[] = {{"short_factor", r->short_factor}, {"long_factor", r->long_factor}};
    for (int i = 0; i < 2; i++) {
        int n = 0;
        while (n < ROPE_MOST && lists[i].factor[n] > 0.0f) n++;
        if (n != r->rotary / 2)
            fatal("%s: \"%s\" has %d numbers but a head has %d rotary frequencies", where, lists[i].key, n,
                  r->rotary / 2);
    }
    if (r->original_positions < c->longest) c->longest = r->original_positions;
}

static float attention_scale(const ModelConfig* c) {
    if (c->attention_multiplier) return c->attention_multiplier;
    return 1.0f / sqrtf(c->query_scalar ? c->query_scalar : (float)c->HS);
}

void model_config_complete(ModelConfig* c, const char* where) {
    const Family* f = family_find(c->family);
    if (!f) fatal("%s: model family \"%.20s\" is not supported; supported are: %s", where, c->family, model_families());
    c->norm = f->norm;
    c->positions = f->positions;
    c->mlp = f->mlp;
    c->qk_norm = f->qk_norm;
    c->norm_offset = f->norm_offset;
    if (!c->HS && c->C % c->NH)
        fatal("%s: the width %d is not a multiple of the number of heads, %d", where, c->C, c->NH);
    if (!c->HS) c->HS = c->C / c->NH;
    if (!c->NKV) c->NKV = c->NH;
    if (c->HS * c->NH != c->C && !has_key(f, offsetof(ModelConfig, HS)))
        fatal("%s: in a %s model the head size is width / heads = %d, not %d", where, c->family, c->C / c->NH, c->HS);
    if (c->NKV != c->NH && !has_key(f, offsetof(ModelConfig, NKV)))
        fatal("%s: in a %s model the number of key-value heads is that of heads", where, c->family);
    if (c->NH % c->NKV) fatal("%s: %d query heads do not share %d key-value heads evenly", where, c->NH, c->NKV);
    if (!c->FF) c->FF = (c->C * f->ff_times / f->ff_over + 7) / 8 * 8;
    if (c->C % 8 || c->FF % 8 || c->HS % 8)
        fatal("%s: width %d, MLP width %d and head size %d must be multiples of 8", where, c->C, c->FF, c->HS);
    if (c->norm_eps <= 0.0f) fatal("%s: the norm's epsilon is %g; expected a number above 0", where, c->norm_eps);
    c->Vp = (c->V + VOCABULARY_ROUND - 1) / VOCABULARY_ROUND * VOCABULARY_ROUND;
    c->attention_scale = attention_scale(c);
    c->longest = c->max_positions;
    complete_rope(c, where);
    complete_layers(c);
    if (f->local_rope) {
        if (!has_key(f, offsetof(ModelConfig, rope_local.base))) c->rope_local.base = c->rope.base;
        c->rope_local.rotary = c->rope.rotary;
    }
}

void model_config_check_length(const ModelConfig* c, int64_t length, const char* option, const char* model) {
    if (length <= c->longest) return;
    const char* why = c->longest >= c->max_positions ? "" : ", beyond which its long RoPE factors begin";
    fatal("%s is %lld but %s reads at most %d tokens%s", option, (long long)length, model, c->longest, why);
}

// ---------------------------------------------------------------------------------------------------
// writing

// As short as it reads back, and a float even where it is whole: 1e-05, not 9.99999975e-06; 10000.0, not 10000.
static cJSON* float_item(float value) {
    char text[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtof(text, NULL) == value) break;
    }
    if (!strpbrk(text, ".e")) strcat(text, ".0");
    return cJSON_CreateRaw(text);
}
static void add_float(cJSON* json, const char* key, float value) {
    cJSON_AddItemToObject(json, key, float_item(value));
}
static void add_floats(cJSON* json, const char* key, const float* values, int n) {
    cJSON* array = cJSON_AddArrayToObject(json, key);
    for (int i = 0; i < n; i++) cJSON_AddItemToArray(array, float_item(values[i]));
}

static void add_rope_scaling(cJSON* json, const ModelConfig* c) {
    const RopeConfig* r = &c->rope;
    if (r->scaling == ROPE_PLAIN) return;
    cJSON* scaling = cJSON_AddObjectToObject(json, "rope_scaling");
    if (r->scaling == ROPE_LONG) {  // three keys and no more, or transformers refuses it
        cJSON_AddStringToObject(scaling, "type", "longrope");
        add_floats(scaling, "short_factor", r->short_factor, r->rotary / 2);
        add_floats(scaling, "long_factor", r->long_factor, r->rotary / 2);
        return;
    }
    cJSON_AddStringToObject(scaling, "rope_type",
                            r->scaling == ROPE_LINEAR    ? "linear"
                            : r->scaling == ROPE_DYNAMIC ? "dynamic"
                            : r->scaling == ROPE_YARN    ? "yarn"
                                                         : "llama3");
    add_float(scaling, "factor", r->factor);
    if (r->scaling == ROPE_LINEAR || r->scaling == ROPE_DYNAMIC) return;
    if (r->scaling == ROPE_YARN) {
        add_float(scaling, "attention_factor", r->attention_factor);
        add_float(scaling, "beta_fast", r->beta_fast);
        add_float(scaling, "beta_slow", r->beta_slow);
        if (!r->ramp_truncated) cJSON_AddFalseToObject(scaling, "truncate");
        cJSON_AddNumberToObject(scaling, "original_max_position_embeddings", r->original_positions);
        return;
    }
    add_float(scaling, "low_freq_factor", r->low_frequency);
    add_float(scaling, "high_freq_factor", r->high_frequency);
    cJSON_AddNumberToObject(scaling, "original_max_position_embeddings", r->original_positions);
}

static void add_layers(cJSON* json, const ModelConfig* c) {
    const Family* f = family_find(c->family);
    if (f->full_every || has_key(f, offsetof(ModelConfig, window_from))) {
        cJSON* types = cJSON_AddArrayToObject(json, "layer_types");
        for (int l = 0; l < c->L; l++)
            cJSON_AddItemToArray(
                types, cJSON_CreateString(c->layers[l] & LAYER_WINDOW ? "sliding_attention" : "full_attention"));
    }
    if (has_key(f, offsetof(ModelConfig, no_rope_every))) {
        cJSON* ropes = cJSON_AddArrayToObject(json, "no_rope_layers");
        for (int l = 0; l < c->L; l++) cJSON_AddItemToArray(ropes, cJSON_CreateNumber(!(c->layers[l] & LAYER_NO_ROPE)));
    }
}

static cJSON* new_config(const ModelConfig* c) {
    const Family* f = family_find(c->family);
    cJSON* json = cJSON_CreateObject();
    cJSON_AddItemToArray(cJSON_AddArrayToObject(json, "architectures"), cJSON_CreateString(f->architecture));
    cJSON_AddStringToObject(json, "model_type", f->model_type);
    for (int table = 0; table < KEY_TABLES && f->keys[table]; table++)
        for (const ConfigKey* k = f->keys[table]; k->key; k++) {
            double value = get_field(c, k);
            cJSON_DeleteItemFromObjectCaseSensitive(json, k->key);  // an earlier table's row of the same key
            if (k->type == KEY_BOOL) cJSON_AddBoolToObject(json, k->key, value != 0.0);
            else if (k->type == KEY_FLOAT || (k->type == KEY_OPTIONAL && value)) add_float(json, k->key, (float)value);
            else if (value || (k->type == KEY_INT && k->low == 0)) cJSON_AddNumberToObject(json, k->key, value);
            else cJSON_AddNullToObject(json, k->key);
        }
    for (const FixedKey* x = f->fixed; x->key; x++)
        if (x->text) cJSON_AddStringToObject(json, x->key, x->text);
    add_rope_scaling(json, c);
    add_layers(json, c);
    if (c->bos_id >= 0) cJSON_AddNumberToObject(json, "bos_token_id", c->bos_id);
    if (c->eos_id >= 0) cJSON_AddNumberToObject(json, "eos_token_id", c->eos_id);
    if (family_find(c->family)->untrained_padding && c->pad_id < 0) cJSON_AddNullToObject(json, "pad_token_id");
    else if (c->pad_id >= 0) cJSON_AddNumberToObject(json, "pad_token_id", c->pad_id);
    return json;
}

// cJSON forgets whether a number was written 8 or 8.0, and transformers warns of a whole factor: these keys are floats.
static void restore_floats(cJSON* object) {
    static const char* const keys[] = {"rope_theta",
                                       "rotary_emb_base",
                                       "factor",
                                       "low_freq_factor",
                                       "high_freq_factor",
                                       "attention_factor",
                                       "partial_rotary_factor",
                                       "rotary_pct",
                                       "beta_fast",
                                       "beta_slow",
                                       "rope_local_base_freq",
                                       "embedding_multiplier",
                                       "residual_multiplier",
                                       "attention_multiplier",
                                       "logits_scaling",
                                       "attn_logit_softcapping",
                                       "final_logit_softcapping"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        cJSON* item = cJSON_GetObjectItemCaseSensitive(object, keys[i]);
        if (!cJSON_IsNumber(item) || item->valuedouble != floor(item->valuedouble)) continue;
        char text[40];
        snprintf(text, sizeof text, "%.1f", item->valuedouble);
        cJSON_ReplaceItemInObjectCaseSensitive(object, keys[i], cJSON_CreateRaw(text));
    }
}

char* model_config_json(const ModelConfig* c, const char* from, const char* dtype) {
    cJSON* json = from ? parse_config(path_of(from, "config.json").s) : new_config(c);
    if (dtype) {
        cJSON_DeleteItemFromObjectCaseSensitive(
            json, "dtype");  // what newer versions of transformers call it; both read the old name
        cJSON_DeleteItemFromObjectCaseSensitive(json, "torch_dtype");
        cJSON_AddStringToObject(json, "torch_dtype", dtype);
    }
    restore_floats(json);
    restore_floats(cJSON_GetObjectItemCaseSensitive(json, "rope_scaling"));
    cJSON* parameters = cJSON_GetObjectItemCaseSensitive(json, "rope_parameters");
    restore_floats(parameters);
    restore_floats(cJSON_GetObjectItemCaseSensitive(parameters, "full_attention"));
    restore_floats(cJSON_GetObjectItemCaseSensitive(parameters, "sliding_attention"));
    char* text = json_pretty_text(json);
    cJSON_Delete(json);
    return text;
}
