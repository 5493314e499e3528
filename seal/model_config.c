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
    else if (k->type == KEY_FLOAT) *(float*)field = (float)value;
    else *(bool*)field = value != 0.0;
}
static double get_field(const ModelConfig* c, const ConfigKey* k) {
    const char* field = (const char*)c + k->offset;
    return k->type == KEY_INT ? *(const int*)field : k->type == KEY_FLOAT ? *(const float*)field : *(const bool*)field;
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

static void check_fixed(const cJSON* json, const Family* family, const char* path) {
    const cJSON* quantised = cJSON_GetObjectItemCaseSensitive(json, "quantization_config");
    if (quantised && !cJSON_IsNull(quantised))
        fatal(
            "%s: \"quantization_config\" is set; quantised weights are not supported; take the model in bf16, fp16 or "
            "fp32",
            path);
    for (const FixedKey* f = family->fixed; f->key; f++) {
        const cJSON* item = cJSON_GetObjectItemCaseSensitive(json, f->key);
        if (!item || cJSON_IsNull(item)) continue;
        if (f->text) {
            if (!cJSON_IsString(item) || strcmp(item->valuestring, f->text))
                fatal("%s: \"%s\" is %.40s; only \"%s\" is supported for %s", path, f->key,
                      cJSON_IsString(item) ? item->valuestring : "not a string", f->text, family->model_type);
        } else if (!cJSON_IsBool(item) || cJSON_IsTrue(item) != f->is_true) {
            fatal("%s: \"%s\" must be %s; the other is not supported", path, f->key, f->is_true ? "true" : "false");
        }
    }
}

// The id of a special token; −1 where there is none, or several: then the tokenizer says which.
static int token_id(const cJSON* json, const char* key, const char* path, int V) {
    const cJSON* item = cJSON_GetObjectItemCaseSensitive(json, key);
    if (cJSON_IsArray(item)) item = cJSON_GetArraySize(item) == 1 ? item->child : NULL;
    return item && !cJSON_IsNull(item) ? (int)number(item, key, path, 0, V - 1, true) : -1;
}

// As torch.nn.Embedding counts it: a negative one from the end.
static int padding_id(const cJSON* json, const char* path, int V) {
    const cJSON* item = cJSON_GetObjectItemCaseSensitive(json, "pad_token_id");
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

// factor (ROPE_MOST), zero behind its numbers: model_config_complete compares how many there are with what a head turns
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

static bool has_key(const Family* f, size_t offset) {
    for (int table = 0; table < 2 && f->keys[table]; table++)
        for (const ConfigKey* k = f->keys[table]; k->key; k++)
            if (k->offset == offset) return true;
    return false;
}

bool model_config_names(const char* family, size_t offset) {
    const Family* f = family_find(family);
    return f && has_key(f, offset);
}

// transformers 5 writes one object, "rope_parameters", where "rope_theta", "rope_scaling" and the fraction of a head
// that turns stood apart. As there, an older "rope_scaling" beside it is the one that counts.
static void read_rope(ModelConfig* c, const cJSON* json, const char* path) {
    static const char* const keys[] = {"rope_scaling", "rope_parameters"};
    RopeConfig* r = &c->rope;
    const cJSON* scaling = NULL;
    if (c->positions != POSITIONS_ROPE) return;
    for (int i = 0; i < 2 && !scaling; i++) {
        scaling = cJSON_GetObjectItemCaseSensitive(json, keys[i]);
        if (scaling && !cJSON_IsNull(scaling) && !cJSON_IsObject(scaling))
            fatal("%s: \"%s\" is not an object", path, keys[i]);
        if (scaling && !scaling->child) scaling = NULL;
    }
    const cJSON* fraction = cJSON_GetObjectItemCaseSensitive(json, "partial_rotary_factor");
    r->base = (float)scaling_number(scaling, "rope_theta", path, 1, 1e12, r->base);
    r->fraction = (float)scaling_number(scaling, "partial_rotary_factor", path, 0, 1, r->fraction);
    if (!has_key(family_find(c->family), offsetof(ModelConfig, rope.fraction)) &&
        (r->fraction != 1.0f || (cJSON_IsNumber(fraction) && fraction->valuedouble != 1.0)))
        fatal("%s: \"partial_rotary_factor\" must be 1; a %s model rotates whole heads", path, c->family);
    if (!scaling) return;
    for (const cJSON* item = scaling->child; item; item = item->next)
        if (cJSON_IsObject(item))
            fatal("%s: \"%s\" has its own positions for some layers, \"%.40s\"; that is not supported", path,
                  scaling->string, item->string);
    const cJSON* type = cJSON_GetObjectItemCaseSensitive(scaling, "rope_type");
    if (!type) type = cJSON_GetObjectItemCaseSensitive(scaling, "type");
    const char* name = cJSON_IsString(type)                                   ? type->valuestring
                       : !type && !strcmp(scaling->string, "rope_parameters") ? "default"
                                                                              : "";
    if (!strcmp(name, "default")) return;
    if (!strcmp(name, "linear")) {
        r->scaling = ROPE_LINEAR;
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
    } else
        fatal("%s: %s \"%.40s\" is not supported; supported are: default, linear, llama3, longrope", path,
              scaling->string, name);
}

static cJSON* parse_config(const char* directory, char path[4096]) {
    size_t length;
    snprintf(path, 4096, "%s/config.json", directory);
    char* text = file_read(path, 1 << 20, &length);
    cJSON* json = cJSON_ParseWithLength(text, length);
    if (!cJSON_IsObject(json)) fatal("%s: not a JSON object", path);
    free(text);
    return json;
}

bool model_config_defaults(ModelConfig* c, const char* family) {
    const Family* f = family_find(family);
    memset(c, 0, sizeof *c);
    if (!f) return false;
    snprintf(c->family, sizeof c->family, "%s", f->model_type);
    c->rope.attention_factor = c->rope.fraction = 1.0f;
    for (int table = 0; table < 2 && f->keys[table]; table++)
        for (const ConfigKey* k = f->keys[table]; k->key; k++)
            put_field(c, k, k->fallback == REQUIRED ? 0 : k->fallback);
    c->bos_id = c->eos_id = c->pad_id = -1;
    return true;
}

void model_config_read(ModelConfig* c, const char* directory) {
    char path[4096];
    cJSON* json = parse_config(directory, path);
    const cJSON* type = cJSON_GetObjectItemCaseSensitive(json, "model_type");
    if (!cJSON_IsString(type)) fatal("%s: \"model_type\" is missing", path);
    const Family* f = family_find(type->valuestring);
    if (!f)
        fatal("%s: model family \"%.40s\" is not supported; supported are: %s", path, type->valuestring,
              model_families());
    check_fixed(json, f, path);
    model_config_defaults(c, f->model_type);
    for (int table = 0; table < 2 && f->keys[table]; table++)
        for (const ConfigKey* k = f->keys[table]; k->key; k++) read_key(c, json, k, path);
    c->bos_id = token_id(json, "bos_token_id", path, c->V);
    c->eos_id = token_id(json, "eos_token_id", path, c->V);
    c->pad_id = f->untrained_padding ? padding_id(json, path, c->V) : -1;
    c->positions = f->positions;
    read_rope(c, json, path);
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
    r->rotary = (int)(r->fraction * (float)c->HS + 1e-4f);  // 0.7 · 80 is 56 in exact arithmetic
    if (r->rotary < 2 || r->rotary % 2 || r->rotary > 2 * ROPE_MOST || r->rotary > c->HS)
        fatal("%s: %d of a head's %d elements would rotate; expected an even number from 2 to the head size", where,
              r->rotary, c->HS);
    if (r->scaling != ROPE_LONG) return;
    const struct {
        const char* key;
        const float* factor;
    } lists[] = {{"short_factor", r->short_factor}, {"long_factor", r->long_factor}};
    for (int i = 0; i < 2; i++) {
        int n = 0;
        while (n < ROPE_MOST && lists[i].factor[n] > 0.0f) n++;
        if (n != r->rotary / 2)
            fatal("%s: \"%s\" has %d numbers but a head has %d rotations", where, lists[i].key, n, r->rotary / 2);
    }
    if (r->original_positions < c->longest) c->longest = r->original_positions;
}

void model_config_complete(ModelConfig* c, const char* where) {
    const Family* f = family_find(c->family);
    if (!f) fatal("%s: model family \"%.20s\" is not supported; supported are: %s", where, c->family, model_families());
    c->norm = f->norm;
    c->positions = f->positions;
    c->mlp = f->mlp;
    if (!c->HS && c->C % c->NH) fatal("%s: width %d does not divide into %d heads", where, c->C, c->NH);
    if (!c->HS) c->HS = c->C / c->NH;
    if (!c->NKV) c->NKV = c->NH;
    if (c->HS * c->NH != c->C && !has_key(f, offsetof(ModelConfig, HS)))
        fatal("%s: a %s model has heads of width / heads = %d, not %d", where, c->family, c->C / c->NH, c->HS);
    if (c->NKV != c->NH && !has_key(f, offsetof(ModelConfig, NKV)))
        fatal("%s: a %s model has as many key-value heads as heads", where, c->family);
    if (c->NH % c->NKV) fatal("%s: %d query heads do not share %d key-value heads evenly", where, c->NH, c->NKV);
    if (!c->FF) c->FF = (c->C * f->ff_times / f->ff_over + 7) / 8 * 8;
    if (c->C % 8 || c->FF % 8 || c->HS % 8)
        fatal("%s: widths %d and %d and head size %d must be multiples of 8", where, c->C, c->FF, c->HS);
    if (c->norm_eps <= 0.0f) fatal("%s: the norm's epsilon is %g", where, c->norm_eps);
    c->Vp = (c->V + VOCABULARY_ROUND - 1) / VOCABULARY_ROUND * VOCABULARY_ROUND;
    c->attention_scale = 1.0f / sqrtf((float)c->HS);
    c->longest = c->window && c->window < c->max_positions ? c->window : c->max_positions;
    complete_rope(c, where);
}

void model_config_check_length(const ModelConfig* c, int64_t length, const char* option, const char* model) {
    if (length <= c->longest) return;
    const char* why = c->longest == c->max_positions ? ""
                      : c->longest == c->window      ? ", its sliding window, which is treated as full attention"
                                                     : ", beyond which its long RoPE factors begin";
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
    cJSON_AddStringToObject(scaling, "rope_type", r->scaling == ROPE_LINEAR ? "linear" : "llama3");
    add_float(scaling, "factor", r->factor);
    if (r->scaling == ROPE_LINEAR) return;
    add_float(scaling, "low_freq_factor", r->low_frequency);
    add_float(scaling, "high_freq_factor", r->high_frequency);
    cJSON_AddNumberToObject(scaling, "original_max_position_embeddings", r->original_positions);
}

static cJSON* new_config(const ModelConfig* c) {
    const Family* f = family_find(c->family);
    cJSON* json = cJSON_CreateObject();
    cJSON_AddItemToArray(cJSON_AddArrayToObject(json, "architectures"), cJSON_CreateString(f->architecture));
    cJSON_AddStringToObject(json, "model_type", f->model_type);
    for (int table = 0; table < 2 && f->keys[table]; table++)
        for (const ConfigKey* k = f->keys[table]; k->key; k++) {
            double value = get_field(c, k);
            if (k->type == KEY_BOOL) cJSON_AddBoolToObject(json, k->key, value != 0.0);
            else if (k->type == KEY_FLOAT) add_float(json, k->key, (float)value);
            else if (value) cJSON_AddNumberToObject(json, k->key, value);
            else cJSON_AddNullToObject(json, k->key);
        }
    for (const FixedKey* x = f->fixed; x->key; x++)
        if (x->text) cJSON_AddStringToObject(json, x->key, x->text);
    add_rope_scaling(json, c);
    if (c->bos_id >= 0) cJSON_AddNumberToObject(json, "bos_token_id", c->bos_id);
    if (c->eos_id >= 0) cJSON_AddNumberToObject(json, "eos_token_id", c->eos_id);
    if (family_find(c->family)->untrained_padding && c->pad_id < 0) cJSON_AddNullToObject(json, "pad_token_id");
    else if (c->pad_id >= 0) cJSON_AddNumberToObject(json, "pad_token_id", c->pad_id);
    return json;
}

// cJSON forgets whether a number was written 8 or 8.0, and transformers warns of a whole factor: these keys are floats.
static void restore_floats(cJSON* object) {
    static const char* const keys[] = {
        "rope_theta",       "rotary_emb_base",       "factor",    "low_freq_factor", "high_freq_factor",
        "attention_factor", "partial_rotary_factor", "rotary_pct"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        cJSON* item = cJSON_GetObjectItemCaseSensitive(object, keys[i]);
        if (!cJSON_IsNumber(item) || item->valuedouble != floor(item->valuedouble)) continue;
        char text[40];
        snprintf(text, sizeof text, "%.1f", item->valuedouble);
        cJSON_ReplaceItemInObjectCaseSensitive(object, keys[i], cJSON_CreateRaw(text));
    }
}

char* model_config_json(const ModelConfig* c, const char* from, const char* dtype) {
    char path[4096];
    cJSON* json = from ? parse_config(from, path) : new_config(c);
    if (dtype) {
        cJSON_DeleteItemFromObjectCaseSensitive(
            json, "dtype");  // what newer versions of transformers call it; both read the old name
        cJSON_DeleteItemFromObjectCaseSensitive(json, "torch_dtype");
        cJSON_AddStringToObject(json, "torch_dtype", dtype);
    }
    restore_floats(json);
    restore_floats(cJSON_GetObjectItemCaseSensitive(json, "rope_scaling"));
    restore_floats(cJSON_GetObjectItemCaseSensitive(json, "rope_parameters"));
    char* text = json_pretty_text(json);
    cJSON_Delete(json);
    return text;
}
