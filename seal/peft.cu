/* PEFT directories. See peft.h. The names are those of peft.LoraConfig and of its save_pretrained. */
#include <string.h>
#include <cjson/cJSON.h>
#include "error.h"
#include "file.h"
#include "peft.h"
#include "safetensors.h"

#define CONFIG_MOST ((size_t)1 << 20)
#define BASE_KEY "base_sha256"  // in the metadata of adapter_model.safetensors: model_fingerprint of what it was trained over

// ---------------------------------------------------------------------------------------------------------------------------------------
// adapter_config.json

// What must be absent, null, false or empty: anything else is mathematics that this trainer does not do.
static const struct { const char* key; const char* what; } refused[] = {
    {"use_dora", "DoRA"}, {"rank_pattern", "other ranks for some modules"}, {"alpha_pattern", "another alpha for some modules"}, {"modules_to_save", "other trained modules"},
    {"layers_to_transform", "adapters on some layers only"}, {"lora_bias", "a bias of the adapter"}, {"megatron_config", "Megatron"}, {"layer_replication", "replicated layers"},
    {"trainable_token_indices", "trained tokens"}, {"exclude_modules", "excluded modules"}, {"target_parameters", "adapters on single parameters"}, {"use_qalora", "QALoRA"},
};

static bool is_nothing(const cJSON* item) {
    return !item || cJSON_IsNull(item) || cJSON_IsFalse(item) || ((cJSON_IsArray(item) || cJSON_IsObject(item)) && !item->child);
}

static void read_config(const char* path, LoraSettings* settings) {
    size_t length;
    char* text = file_read(path, CONFIG_MOST, &length);
    cJSON* json = cJSON_ParseWithLength(text, length);
    if (!cJSON_IsObject(json)) fatal("%s: not a JSON object", path);
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(json, "peft_type"), *bias = cJSON_GetObjectItemCaseSensitive(json, "bias"),
                *r = cJSON_GetObjectItemCaseSensitive(json, "r"), *alpha = cJSON_GetObjectItemCaseSensitive(json, "lora_alpha");
    if (!cJSON_IsString(type) || strcmp(type->valuestring, "LORA")) fatal("%s: peft_type is %.40s, want LORA", path, cJSON_IsString(type) ? type->valuestring : "missing");
    if (bias && (!cJSON_IsString(bias) || strcmp(bias->valuestring, "none"))) fatal("%s: \"bias\" must be \"none\"; biases of the model are not trained beside an adapter", path);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (!is_nothing(cJSON_GetObjectItemCaseSensitive(json, refused[i].key))) fatal("%s: \"%s\" is set; %s is not served", path, refused[i].key, refused[i].what);
    if (!cJSON_IsNumber(r) || r->valuedouble < 1 || r->valuedouble > LORA_RANK_MOST || r->valuedouble != (int)r->valuedouble) fatal("%s: \"r\" must be a whole number from 1 to %d", path, LORA_RANK_MOST);
    if (!cJSON_IsNumber(alpha) || !(alpha->valuedouble > 0 && alpha->valuedouble < 1e9)) fatal("%s: \"lora_alpha\" must be a number above 0", path);
    settings->rank = (int)r->valuedouble;
    double divisor = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "use_rslora")) ? sqrt(r->valuedouble) : r->valuedouble;
    settings->scale = (float)(alpha->valuedouble / divisor);
    cJSON_Delete(json);
    free(text);
}

// Which modules are adapted is read off the tensors of layer 0: target_modules may be a regular expression.
void peft_settings(const char* directory, const ModelConfig* config, LoraSettings* settings) {
    char path[4200];
    StModel model;
    memset(settings, 0, sizeof *settings);
    snprintf(path, sizeof path, "%s/adapter_config.json", directory);
    read_config(path, settings);
    st_open_model(&model, directory, "adapter_model");
    const Family* family = family_find(config->family);
    for (const FamilyTensor* t = family->tensors; t->hf_name; t++) {
        const StReader* file;
        char name[256];
        if (!t->lora) continue;
        const char *number = strstr(t->hf_name, "%d"), *end = strstr(t->hf_name, ".weight");
        snprintf(name, sizeof name, "base_model.model.%.*s0%.*s.lora_A.weight", (int)(number - t->hf_name), t->hf_name, (int)(end - number - 2), number + 2);
        if (!st_model_find(&model, name, &file)) continue;
        snprintf(settings->modules + strlen(settings->modules), sizeof settings->modules - strlen(settings->modules), "%s%s", settings->modules[0] ? "," : "", t->lora);
    }
    if (!settings->modules[0]) fatal("%s: no adapter of a %s model (its first tensor is %.120s)", directory, config->family, model.files[0].n_tensors ? model.files[0].tensors[0].name : "missing");
    st_close_model(&model);
}

static char* config_text(const Lora* lora, const char* base) {
    char targets[N_SITES * LORA_MODULES][64];
    int n = lora_targets(lora, targets, N_SITES * LORA_MODULES);
    bool transposed = false;
    for (const FamilyTensor* t = family_find(lora->layout.config.family)->tensors; t->hf_name; t++) transposed |= t->lora && t->form == FILE_TRANSPOSED;
    cJSON* json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "peft_type", "LORA");
    cJSON_AddStringToObject(json, "task_type", "CAUSAL_LM");
    cJSON_AddStringToObject(json, "base_model_name_or_path", base);
    cJSON_AddNumberToObject(json, "r", lora->settings.rank);
    cJSON_AddNumberToObject(json, "lora_alpha", (double)lora->settings.scale * lora->settings.rank);
    cJSON_AddNumberToObject(json, "lora_dropout", 0.0);
    cJSON* modules = cJSON_AddArrayToObject(json, "target_modules");
    for (int i = 0; i < n; i++) cJSON_AddItemToArray(modules, cJSON_CreateString(targets[i]));
    cJSON_AddStringToObject(json, "bias", "none");
    cJSON_AddBoolToObject(json, "fan_in_fan_out", transposed);
    cJSON_AddBoolToObject(json, "inference_mode", true);
    cJSON_AddBoolToObject(json, "init_lora_weights", true);
    cJSON_AddBoolToObject(json, "use_rslora", false);
    cJSON_AddBoolToObject(json, "use_dora", false);
    cJSON_AddNullToObject(json, "modules_to_save");
    char* text = cJSON_Print(json);
    cJSON_Delete(json);
    if (!text) fatal("out of memory writing adapter_config.json");
    return text;
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// adapter_model.safetensors

// The model that the adapter belongs to, without tails.
static void base_layout(const Lora* lora, ModelLayout* layout) { model_layout(layout, &lora->layout.config, NULL); }

static void check_base(const Lora* lora, const char* directory, const char* base) {
    StModel adapter;
    st_open_model(&adapter, directory, "adapter_model");
    const char* known = st_metadata(&adapter.files[0], BASE_KEY);
    if (known) {
        char hex[65];
        ModelLayout layout;
        base_layout(lora, &layout);
        model_fingerprint(&layout, base, hex);
        if (strcmp(known, hex)) fatal("%s: the adapter was trained over another model than %s", directory, base);
        model_layout_free(&layout);
    }
    st_close_model(&adapter);
}

void peft_load(ParameterSet* set, const Lora* lora, const char* directory, const char* base) {
    check_base(lora, directory, base);
    parameters_load_files(set, directory, "adapter_model", NULL, true);
}

void peft_save(const ParameterSet* set, const Lora* lora, const char* directory, const char* base) {
    const ModelLayout* layout = set->layout;
    char path[4200], hex[65];
    ModelLayout model;
    StWriter file;
    base_layout(lora, &model);
    model_fingerprint(&model, base, hex);
    model_layout_free(&model);
    directory_make(directory);
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", directory);
    st_create(&file, path);
    st_set_metadata(&file, "format", "pt");
    st_set_metadata(&file, BASE_KEY, hex);
    for (int i = 0; i < layout->n_files; i++) {
        int64_t shape[2] = {layout->files[i].rows, layout->files[i].cols};
        st_declare(&file, layout->files[i].hf_name, ST_F32, 2, shape);
    }
    for (int i = 0; i < layout->n_files; i++) {
        const FileTensor* f = &layout->files[i];
        float* rows = (float*)malloc((size_t)(2 * f->rows * f->cols) * sizeof(float));
        if (!rows) fatal("%s: out of host memory for %s", path, f->hf_name);
        float* ordered = rows + f->rows * f->cols;
        parameters_get_rows(set, f->tensor, 0, f->rows, rows);
        file_tensor_order(layout, f, rows, ordered);
        st_write(&file, ordered, (size_t)(f->rows * f->cols) * sizeof(float));
        free(rows);
    }
    st_commit(&file);
    char* config = config_text(lora, base);
    snprintf(path, sizeof path, "%s/adapter_config.json", directory);
    file_write(path, config, strlen(config));
    free(config);
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// merging

// An adapter on the host: every tensor (rows, cols) at its offset.
typedef struct {
    const Lora* lora;
    float* values;
} HostAdapter;

static void to_host(HostAdapter* h, const ParameterSet* set, const Lora* lora) {
    h->lora = lora;
    h->values = (float*)malloc((size_t)lora->layout.n_elements * sizeof(float));
    if (!h->values) fatal("out of host memory for an adapter of %lld parameters", (long long)lora->layout.n_parameters);
    for (int i = 0; i < lora->layout.n_tensors; i++) parameters_get(set, i, h->values + lora->layout.tensors[i].offset);
}

static const float* host_tensor(const HostAdapter* h, Site site, int m, bool b, int layer) {
    const ModelLayout* layout = &h->lora->layout;
    return h->values + layout->tensors[tensor_index(layout, lora_kind(site, m, b), layer)].offset;
}

// rows of a weight += s · B · A
static void add_adapter(const void* context, const ModelLayout* layout, const FileTensor* f, int64_t row, int64_t n, float* rows) {
    const HostAdapter* h = (const HostAdapter*)context;
    const ModelTensor* t = &layout->tensors[f->tensor];
    const int rank = h->lora->rank;
    for (int s = 0; s < N_SITES; s++) {
        const LoraSite* site = &h->lora->sites[s];
        if (site_weight((Site)s) != t->kind) continue;
        for (int m = 0; m < site->n; m++) {
            const float *A = host_tensor(h, (Site)s, m, false, t->layer), *B = host_tensor(h, (Site)s, m, true, t->layer);
            for (int64_t i = 0; i < n; i++) {
                int64_t of_module = f->first + row + i - site->first[m];
                if (of_module < 0 || of_module >= site->rows[m]) continue;
                float* to = rows + i * f->cols;
                for (int k = 0; k < rank; k++) {
                    float scale = h->lora->settings.scale * B[of_module * rank + k];
                    const float* a = A + (int64_t)k * f->cols;
                    for (int64_t c = 0; c < f->cols; c++) to[c] += scale * a[c];
                }
            }
        }
    }
}

void peft_save_merged(const ParameterSet* set, const Lora* lora, const char* directory, const char* base, int64_t shard_bytes, bool quiet) {
    HostAdapter adapter;
    ModelLayout layout;
    RowChange change = {add_adapter, &adapter};
    base_layout(lora, &layout);
    to_host(&adapter, set, lora);
    model_save_changed(&layout, base, &change, directory, shard_bytes, quiet);
    free(adapter.values);
    model_layout_free(&layout);
}

void peft_load_merged(ParameterSet* set, const char* base, const char* directory, bool quiet) {
    if (!directory) { parameters_load(set, base, quiet); return; }
    LoraSettings settings;
    Lora lora;
    HostAdapter adapter = {&lora, NULL};
    RowChange change = {add_adapter, &adapter};
    peft_settings(directory, &set->layout->config, &settings);
    lora_open(&lora, &set->layout->config, &settings, 1);
    check_base(&lora, directory, base);
    adapter.values = (float*)calloc((size_t)lora.layout.n_elements, sizeof(float));
    if (!adapter.values) fatal("out of host memory for an adapter of %lld parameters", (long long)lora.layout.n_parameters);
    model_read(&lora.layout, directory, "adapter_model", adapter.values);
    parameters_load_files(set, base, "model", &change, quiet);
    free(adapter.values);
    lora_close(&lora);
}
