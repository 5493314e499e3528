/* Names of modules, adapter_config.json. See peft_config.h. The keys are those of peft.LoraConfig. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <cjson/cJSON.h>
#include <math.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "peft_config.h"
#include "base/safetensors.h"

#define CONFIG_MOST ((size_t)1 << 20)

// ---------------------------------------------------------------------------------------------------
// modules by name

// True where the comma-separated list holds the word.
static bool listed(const char* list, const char* word, size_t length) {
    for (const char* p = list; *p;) {
        size_t n = strcspn(p, ",");
        if (n == length && !strncmp(p, word, n)) return true;
        p += n + (p[n] == ',');
    }
    return false;
}
// True where the two lists share a word.
static bool lists_meet(const char* a, const char* b) {
    for (const char* p = a; *p;) {
        size_t n = strcspn(p, ",");
        if (listed(b, p, n)) return true;
        p += n + (p[n] == ',');
    }
    return false;
}

bool lora_adapts(const LoraSettings* settings, const FamilyTensor* t) {
    return t->lora && (!strcmp(settings->modules, "all") || lists_meet(settings->modules, t->lora));
}

int lora_index(const Family* family, const FamilyTensor* t) {
    int index = 0;
    for (const FamilyTensor* u = family->tensors; u->hf_name && u != t; u++) index += u->lora != NULL;
    if (index >= LORA_TARGETS_MOST) program_error("%s has more adaptable modules than expected", family->model_type);
    return index;
}

void lora_check_names(const LoraSettings* settings, const Family* family, const char* option) {
    if (!strcmp(settings->modules, "all")) return;
    char known[128] = "";
    for (const FamilyTensor* t = family->tensors; t->hf_name; t++)
        if (t->lora) snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", *known ? "," : "", t->lora);
    for (const char* p = settings->modules; *p;) {
        size_t n = strcspn(p, ",");
        if (!n || !listed(known, p, n))
            fatal("%s %s: \"%.*s\" is not a module of a %s model; it has %s", option, settings->modules, (int)n, p,
                  family->model_type, known);
        p += n + (p[n] == ',');
    }
}

void lora_tensor_name(const FamilyTensor* t, int layer, bool b, char* name, size_t size) {
    const char *number = strstr(t->hf_name, "%d"), *end = strstr(t->hf_name, ".weight");
    snprintf(name, size, "base_model.model.%.*s%d%.*s.lora_%s.weight", (int)(number - t->hf_name), t->hf_name, layer,
             (int)(end - number - 2), number + 2, b ? "B" : "A");
}

// The last `parts` parts of the module's path: "q_proj", "attn.c_proj".
static void path_end(const FamilyTensor* t, int parts, char out[64]) {
    char path[160];
    snprintf(path, sizeof path, "%.*s", (int)(strstr(t->hf_name, ".weight") - t->hf_name), t->hf_name);
    char* at = path + strlen(path);
    while (parts && at > path)
        if (*--at == '.') parts--;
    snprintf(out, 64, "%s", *at == '.' ? at + 1 : at);
}

// The adapted modules as PEFT's target_modules: the shortest ends of their paths that no other module has ("q_proj";
// GPT-2: "attn.c_proj").
static int target_names(const LoraSettings* settings, const Family* family, char names[][64]) {
    int n = 0;
    for (const FamilyTensor* t = family->tensors; t->hf_name && n < LORA_TARGETS_MOST; t++) {
        if (!lora_adapts(settings, t)) continue;
        bool unique = true;
        char other[64];
        path_end(t, 1, names[n]);
        for (const FamilyTensor* u = family->tensors; u->hf_name; u++) {
            if (!u->lora || u == t) continue;
            path_end(u, 1, other);
            unique &= strcmp(names[n], other) != 0;
        }
        if (!unique) path_end(t, 2, names[n]);
        n++;
    }
    return n;
}

// ---------------------------------------------------------------------------------------------------
// adapter_config.json

// What must be absent, null, false or empty: anything else is mathematics that this trainer does not do.
static const struct {
    const char* key;
    const char* what;
} refused[] = {
    {"use_dora", "DoRA"},
    {"lora_bias", "a bias of the adapter"},
    {"megatron_config", "Megatron"},
    {"layer_replication", "replicated layers"},
    {"trainable_token_indices", "trained tokens"},
    {"target_parameters", "adapters on single parameters"},
    {"use_qalora", "QALoRA"},
    {"alora_invocation_tokens", "an adapter that waits for its tokens"},
    {"arrow_config", "routed adapters"},
    {"use_bdlora", "a block-diagonal adapter"},
};

// What may be set and changes nothing of a finished adapter: read below, seen in its tensors, or of how it began.
static const char* const harmless[] = {"r",
                                       "lora_alpha",
                                       "use_rslora",
                                       "bias",
                                       "peft_type",
                                       "init_lora_weights",
                                       "target_modules",
                                       "rank_pattern",
                                       "alpha_pattern",
                                       "layers_to_transform",
                                       "exclude_modules",
                                       "modules_to_save",
                                       "layers_pattern",
                                       "fan_in_fan_out",
                                       "inference_mode",
                                       "task_type",
                                       "auto_mapping",
                                       "base_model_name_or_path",
                                       "revision",
                                       "lora_dropout",
                                       "loftq_config",
                                       "eva_config",
                                       "corda_config",
                                       "lora_ga_config",
                                       "runtime_config",
                                       "ensure_weight_tying",
                                       "peft_version"};

static bool is_nothing(const cJSON* item) {
    return !item || cJSON_IsNull(item) || cJSON_IsFalse(item) ||
           ((cJSON_IsArray(item) || cJSON_IsObject(item)) && !item->child);
}

// A later PEFT's keys. A switch that is on or a group of settings may be other mathematics; a number or a word alone
// switches nothing on.
static void refuse_unknown(const cJSON* json, const char* path) {
    for (const cJSON* item = json->child; item; item = item->next) {
        bool known = is_nothing(item) || cJSON_IsNumber(item) || cJSON_IsString(item);
        for (size_t i = 0; i < sizeof harmless / sizeof *harmless && !known; i++)
            known = !strcmp(item->string, harmless[i]);
        if (!known)
            fatal("%s: \"%.60s\" is set, which this trainer does not know; remove it if it changes nothing", path,
                  item->string);
    }
}

// PEFT takes a part of the model's weights away where an adapter began as that part: its matrices alone say nothing.
static bool leaves_the_base(const cJSON* init) {
    static const char* const words[] = {"gaussian", "eva", "orthogonal"};
    if (!init || cJSON_IsNull(init) || cJSON_IsBool(init)) return true;
    for (size_t i = 0; cJSON_IsString(init) && i < sizeof words / sizeof *words; i++)
        if (!strcmp(init->valuestring, words[i])) return true;
    return false;
}

static float scale_of(double alpha, int rank, bool rslora) {
    return (float)(alpha / (rslora ? sqrt((double)rank) : (double)rank));
}

// The config, parsed and checked; to be freed.
static cJSON* read_config(const char* path, LoraSettings* settings) {
    size_t length;
    char* text = file_read(path, CONFIG_MOST, &length);
    cJSON* json = cJSON_ParseWithLength(text, length);
    if (!cJSON_IsObject(json)) fatal("%s: not a JSON object", path);
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(json, "peft_type"),
                *bias = cJSON_GetObjectItemCaseSensitive(json, "bias"),
                *r = cJSON_GetObjectItemCaseSensitive(json, "r"),
                *alpha = cJSON_GetObjectItemCaseSensitive(json, "lora_alpha");
    if (!cJSON_IsString(type) || strcmp(type->valuestring, "LORA"))
        fatal("%s: peft_type is %.40s; expected LORA", path, cJSON_IsString(type) ? type->valuestring : "missing");
    if (bias && (!cJSON_IsString(bias) || strcmp(bias->valuestring, "none")))
        fatal("%s: \"bias\" must be \"none\"; biases of the model are not trained beside an adapter", path);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (!is_nothing(cJSON_GetObjectItemCaseSensitive(json, refused[i].key)))
            fatal("%s: \"%s\" is set; %s is not supported", path, refused[i].key, refused[i].what);
    refuse_unknown(json, path);
    const cJSON *init = cJSON_GetObjectItemCaseSensitive(json, "init_lora_weights"),
                *rslora = cJSON_GetObjectItemCaseSensitive(json, "use_rslora"),
                *dropout = cJSON_GetObjectItemCaseSensitive(json, "lora_dropout");
    if (!leaves_the_base(init))
        fatal(
            "%s: \"init_lora_weights\" is %.40s, which changes the model's own weights; let PEFT convert the adapter "
            "(path_initial_model_for_weight_conversion)",
            path, cJSON_IsString(init) ? init->valuestring : "not a known word");
    if (!is_nothing(rslora) && !cJSON_IsTrue(rslora)) fatal("%s: \"use_rslora\" is neither true nor false", path);
    if (!cJSON_IsNumber(r) || !(r->valuedouble >= 1 && r->valuedouble <= LORA_RANK_MOST) ||
        r->valuedouble != floor(r->valuedouble))
        fatal("%s: \"r\" must be a whole number from 1 to %d", path, LORA_RANK_MOST);
    if (!cJSON_IsNumber(alpha) || !(alpha->valuedouble > 0 && alpha->valuedouble < 1e9))
        fatal("%s: \"lora_alpha\" must be a number above 0", path);
    settings->rank = (int)r->valuedouble;
    settings->dropout = cJSON_IsNumber(dropout) ? (float)dropout->valuedouble : 0.0f;
    settings->scale = scale_of(alpha->valuedouble, settings->rank, cJSON_IsTrue(rslora));
    free(text);
    return json;
}

// The value that a pattern object gives a module: its first key that, as a regular expression, matches the module's
// path or what follows a dot in it (PEFT's get_pattern_key). `otherwise` where none does.
static double by_pattern(const cJSON* patterns, const char* module, const char* path, double low, double high,
                         double otherwise) {
    for (const cJSON* item = cJSON_IsObject(patterns) ? patterns->child : NULL; item; item = item->next) {
        char expression[600];
        int error;
        PCRE2_SIZE at;
        if (snprintf(expression, sizeof expression, "^(?:.*\\.)?(?:%s)$", item->string) >= (int)sizeof expression)
            fatal("%s: the pattern \"%.60s…\" is too long", path, item->string);
        pcre2_code* code = pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &error, &at, NULL);
        if (!code) fatal("%s: \"%.60s\" in a pattern is not a regular expression", path, item->string);
        pcre2_match_data* match = pcre2_match_data_create_from_pattern(code, NULL);
        int found = match ? pcre2_match(code, (PCRE2_SPTR)module, strlen(module), 0, 0, match, NULL) : -1;
        pcre2_match_data_free(match);
        pcre2_code_free(code);
        if (found < 0) continue;
        if (!cJSON_IsNumber(item) || !(item->valuedouble >= low && item->valuedouble <= high))
            fatal("%s: the pattern \"%.60s\" gives a value that is not a number from %g to %g", path, item->string, low,
                  high);
        return item->valuedouble;
    }
    return otherwise;
}

// "model.layers.3.self_attn.q_proj"
static void module_path(const FamilyTensor* t, int layer, char* out, size_t size) {
    const char *number = strstr(t->hf_name, "%d"), *end = strstr(t->hf_name, ".weight");
    snprintf(out, size, "%.*s%d%.*s", (int)(number - t->hf_name), t->hf_name, layer, (int)(end - number - 2),
             number + 2);
}

// Every module of every layer, with what the patterns give it. Which are there is read off the tensors: target_modules
// may be a regular expression or a word, and layers_to_transform and exclude_modules narrow it down.
static LoraModule* read_modules(const StModel* model, const ModelConfig* config, const cJSON* json, const char* path,
                                const LoraSettings* settings) {
    const Family* family = family_find(config->family);
    const cJSON *ranks = cJSON_GetObjectItemCaseSensitive(json, "rank_pattern"),
                *alphas = cJSON_GetObjectItemCaseSensitive(json, "alpha_pattern");
    const bool rslora = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "use_rslora"));
    const double alpha = cJSON_GetObjectItemCaseSensitive(json, "lora_alpha")->valuedouble;
    const int layers = config->L > 0 ? config->L : 1;
    LoraModule* table = host_alloc((size_t)layers * LORA_TARGETS_MOST * sizeof *table, "the table of adapted modules");
    for (int l = 0; l < layers; l++)
        for (const FamilyTensor* t = family->tensors; t->hf_name; t++) {
            char name[256];
            const StReader* file;
            if (!t->lora) continue;
            LoraModule* m = &table[l * LORA_TARGETS_MOST + lora_index(family, t)];
            lora_tensor_name(t, l, false, name, sizeof name);
            if (!st_model_find(model, name, &file)) continue;
            module_path(t, l, name, sizeof name);
            m->rank = (int)by_pattern(ranks, name, path, 1, LORA_RANK_MOST, settings->rank);
            m->scale = scale_of(by_pattern(alphas, name, path, 1e-9, 1e9, alpha), m->rank, rslora);
        }
    return table;
}

// Tensors that only mathematics other than ours has, by what they are.
static void refuse_tensors(const StModel* model, const ModelConfig* config) {
    for (int i = 0; i < model->n_files; i++)
        for (int k = 0; k < model->files[i].n_tensors; k++) {
            const char *name = model->files[i].tensors[k].name, *lora = strstr(name, ".lora_"),
                       *path = model->files[i].file.path;
            if (!lora) continue;
            if (strstr(name, ".lora_embedding_"))
                fatal("%s: %.120s is an adapter of an embedding, which is not supported", path, name);
            if (strstr(name, "lora_magnitude_vector"))
                fatal("%s: %.120s belongs to DoRA, which is not supported", path, name);
            bool known = false;
            for (const FamilyTensor* t = family_find(config->family)->tensors; t->hf_name && !known; t++) {
                char own[256];
                for (int l = 0; l < (config->L > 0 ? config->L : 1) && t->lora && !known; l++)
                    for (int b = 0; b < 2 && !known; b++) {
                        lora_tensor_name(t, l, b, own, sizeof own);
                        known = !strcmp(own, name);
                    }
            }
            if (!known)
                fatal(
                    "%s: %.120s adapts a module that is not a linear layer of a %s model's blocks; the head and "
                    "other models' modules are not supported",
                    path, name, config->family);
        }
}

void peft_settings(const char* directory, const ModelConfig* config, LoraSettings* settings) {
    StModel model;
    memset(settings, 0, sizeof *settings);
    const Path path = path_of(directory, "adapter_config.json");
    cJSON* json = read_config(path.s, settings);
    st_open_model(&model, directory, "adapter_model");
    LoraModule* table = read_modules(&model, config, json, path.s, settings);
    const Family* family = family_find(config->family);
    const int layers = config->L > 0 ? config->L : 1;
    bool alike = true;
    for (const FamilyTensor* t = family->tensors; t->hf_name; t++) {
        if (!t->lora) continue;
        int index = lora_index(family, t), there = 0;
        for (int l = 0; l < layers; l++) there += table[l * LORA_TARGETS_MOST + index].rank > 0;
        if (!there) continue;
        snprintf(settings->modules + strlen(settings->modules), sizeof settings->modules - strlen(settings->modules),
                 "%s%s", settings->modules[0] ? "," : "", t->lora);
        for (int l = 0; l < layers; l++)
            alike &= table[l * LORA_TARGETS_MOST + index].rank == settings->rank &&
                     table[l * LORA_TARGETS_MOST + index].scale == settings->scale;
    }
    if (!settings->modules[0])
        fatal("%s: not an adapter of a %s model (its first tensor is %.120s)", directory, config->family,
              model.files[0].n_tensors ? model.files[0].tensors[0].name : "missing");
    refuse_tensors(&model, config);
    if (alike) free(table);
    else settings->table = table;
    st_close_model(&model);
    cJSON_Delete(json);
}

// α, as short as it gives the same scale back: 16, not 16.000000476837158, which is the nearest float to 16/12 twelve
// times.
static cJSON* alpha_item(float scale, int rank) {
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)scale * rank);
        if ((float)(strtod(text, NULL) / rank) == scale) break;
    }
    return cJSON_CreateRaw(text);
}

// Modules that differ or are missing in some layers: each by its whole path, and patterns where it is not like most.
static void add_table(cJSON* json, cJSON* modules, const LoraSettings* settings, const ModelConfig* config) {
    const Family* family = family_find(config->family);
    cJSON *ranks = cJSON_AddObjectToObject(json, "rank_pattern"),
          *alphas = cJSON_AddObjectToObject(json, "alpha_pattern");
    for (int l = 0; l < config->L; l++)
        for (const FamilyTensor* t = family->tensors; t->hf_name; t++) {
            char name[256], pattern[512];
            if (!t->lora) continue;
            LoraModule m = lora_module(settings, l, lora_index(family, t));
            if (!m.rank) continue;
            module_path(t, l, name, sizeof name);
            cJSON_AddItemToArray(modules, cJSON_CreateString(name));
            size_t n = 0;
            for (const char* p = name; *p; p++) {  // a dot of a regular expression is any character
                if (*p == '.') pattern[n++] = '\\';
                pattern[n++] = *p;
            }
            pattern[n] = 0;
            if (m.rank != settings->rank) cJSON_AddNumberToObject(ranks, pattern, m.rank);
            if (m.rank != settings->rank || m.scale != settings->scale)
                cJSON_AddItemToObject(alphas, pattern, alpha_item(m.scale, m.rank));
        }
}

char* peft_config_json(const LoraSettings* settings, const ModelConfig* config, const char* base) {
    char targets[LORA_TARGETS_MOST][64];
    const Family* family = family_find(config->family);
    int n = target_names(settings, family, targets);
    bool transposed = false;
    for (const FamilyTensor* t = family->tensors; t->hf_name; t++) transposed |= t->lora && t->form == FILE_TRANSPOSED;
    cJSON* json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "peft_type", "LORA");
    cJSON_AddStringToObject(json, "task_type", "CAUSAL_LM");
    cJSON_AddStringToObject(json, "base_model_name_or_path", base);
    cJSON_AddNumberToObject(json, "r", settings->rank);
    cJSON_AddItemToObject(json, "lora_alpha", alpha_item(settings->scale, settings->rank));
    cJSON_AddNumberToObject(json, "lora_dropout", 0.0);
    cJSON* modules = cJSON_AddArrayToObject(json, "target_modules");
    for (int i = 0; i < n && !settings->table; i++) cJSON_AddItemToArray(modules, cJSON_CreateString(targets[i]));
    if (settings->table) add_table(json, modules, settings, config);
    cJSON_AddStringToObject(json, "bias", "none");
    cJSON_AddBoolToObject(json, "fan_in_fan_out", transposed);
    cJSON_AddBoolToObject(json, "inference_mode", true);
    cJSON_AddBoolToObject(json, "init_lora_weights", true);
    cJSON_AddBoolToObject(json, "use_rslora", false);
    cJSON_AddBoolToObject(json, "use_dora", false);
    cJSON_AddNullToObject(json, "modules_to_save");
    char* text = json_pretty_text(json);
    cJSON_Delete(json);
    return text;
}
