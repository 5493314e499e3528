/* PEFT directories. See peft.h. */
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "base/ranks.h"
#include "packed.h"
#include "peft.h"
#include "base/safetensors.h"

// In the metadata of adapter_model.safetensors: model_fingerprint of the model it was trained on.
#define BASE_KEY "base_sha256"
#define PRECISION_KEY "base_precision"  // base_name of how it was kept, where it was packed

// ---------------------------------------------------------------------------------------------------
// adapter_model.safetensors

// The model that the adapter belongs to, without tails.
static void base_layout(const Lora* lora, ModelLayout* layout) { model_layout(layout, &lora->layout.config, NULL); }

static void check_base(const Lora* lora, const char* directory, const char* base) {
    StModel adapter;
    st_open_model(&adapter, directory, "adapter_model");
    const char* known = st_metadata(&adapter.files[0], BASE_KEY);
    if (known) {
        Hex hex;
        ModelLayout layout;
        base_layout(lora, &layout);
        model_fingerprint(&layout, base, hex);
        if (strcmp(known, hex)) fatal("%s: the adapter was trained on another model than %s", directory, base);
        model_layout_free(&layout);
    }
    const char *trained = st_metadata(&adapter.files[0], PRECISION_KEY), *here = base_name(lora->base);
    if (strcmp(trained ? trained : base_name(BASE_PLAIN), here) && !ranks_rank() && (known || trained))
        warning("%s: the adapter was trained over its model in %s and is read over one in %s; --base %s has the same",
                directory, trained ? trained : base_name(BASE_PLAIN), here, trained ? trained : base_name(BASE_PLAIN));
    st_close_model(&adapter);
}

void peft_load(ParameterSet* set, const Lora* lora, const char* directory, const char* base) {
    check_base(lora, directory, base);
    parameters_load_files(set, directory, "adapter_model", NULL, true);
}

bool peft_has_saved(const ModelConfig* config, const char* directory) {
    StModel adapter;
    ModelLayout layout;
    bool any = false;
    st_open_model(&adapter, directory, "adapter_model");
    model_layout(&layout, config, NULL);
    for (int i = 0; i < layout.n_files && !any; i++) {
        const StReader* file;
        char name[256];
        snprintf(name, sizeof name, PEFT_PREFIX "%s", layout.files[i].hf_name);
        any = st_model_find(&adapter, name, &file) != NULL;
    }
    model_layout_free(&layout);
    st_close_model(&adapter);
    return any;
}

void peft_load_saved(ParameterSet* set, const char* directory, bool only_same) {
    StModel adapter;
    st_open_model(&adapter, directory, "adapter_model");
    for (int i = 0; i < set->layout->n_files; i++) {
        const FileTensor* f = &set->layout->files[i];
        const StReader* file;
        char name[256];
        snprintf(name, sizeof name, PEFT_PREFIX "%s", f->hf_name);
        const StTensor* s = st_model_find(&adapter, name, &file);
        if (!s) continue;
        if (set->layout->tensors[f->tensor].packed)
            fatal(
                "%s: %s was trained besides the adapter (modules_to_save), which a base in %s does not hold; leave "
                "--base out",
                file->file.path, f->hf_name, base_name(set->layout->base));
        if (s->count != f->rows * f->cols)
            fatal("%s: tensor %s has another shape than the model's; was its vocabulary resized?", file->file.path,
                  name);
        const size_t bytes = (size_t)s->count * sizeof(float);
        float *values = (float*)host_alloc(2 * bytes, name), *rows = values + s->count;
        st_to_float(file, s, 0, s->count, values);
        file_tensor_unorder(set->layout, f, values, rows);
        if (only_same) {
            parameters_get_rows(set, f->tensor, f->first, f->rows, values);
            for (int64_t k = 0; k < s->count; k++)
                if (to_float(from_float<floatX>(rows[k])) != to_float(from_float<floatX>(values[k])))
                    fatal(
                        "%s: %s was trained besides the adapter (modules_to_save); eval_seal reads that, but it cannot "
                        "be trained further: merge the adapter into its model first (PEFT: merge_and_unload)",
                        file->file.path, f->hf_name);
        } else parameters_set_rows(set, f->tensor, f->first, f->rows, rows);
        free(values);
    }
    st_close_model(&adapter);
}

void peft_save(const ParameterSet* set, const Lora* lora, const char* directory, const char* base) {
    const ModelLayout* layout = set->layout;
    Hex hex;
    Path path;
    ModelLayout model;
    StWriter file;
    base_layout(lora, &model);
    model_fingerprint(&model, base, hex);
    model_layout_free(&model);
    directory_make(directory);
    path = path_of(directory, "adapter_model.safetensors");
    st_create(&file, path.s);
    st_set_metadata(&file, "format", "pt");
    st_set_metadata(&file, BASE_KEY, hex);
    if (lora->base != BASE_PLAIN) st_set_metadata(&file, PRECISION_KEY, base_name(lora->base));
    for (int i = 0; i < layout->n_files; i++) {
        int64_t shape[2] = {layout->files[i].rows, layout->files[i].cols};
        st_declare(&file, layout->files[i].hf_name, ST_F32, 2, shape);
    }
    for (int i = 0; i < layout->n_files; i++) {
        const FileTensor* f = &layout->files[i];
        float* rows = (float*)host_alloc((size_t)(2 * f->rows * f->cols) * sizeof(float), "rows");
        float* ordered = rows + f->rows * f->cols;
        parameters_get_rows(set, f->tensor, 0, f->rows, rows);
        file_tensor_order(layout, f, rows, ordered);
        st_write(&file, ordered, (size_t)(f->rows * f->cols) * sizeof(float));
        free(rows);
    }
    st_commit(&file);
    char* config = peft_config_json(&lora->settings, &lora->layout.config, base);
    path = path_of(directory, "adapter_config.json");
    file_write(path.s, config, strlen(config));
    free(config);
}

// ---------------------------------------------------------------------------------------------------
// merging

// An adapter on the host: every tensor (rows, cols) at its offset.
typedef struct {
    const Lora* lora;
    float* values;
} HostAdapter;

static void to_host(HostAdapter* h, const ParameterSet* set, const Lora* lora) {
    h->lora = lora;
    h->values = (float*)host_alloc((size_t)lora->layout.n_elements * sizeof(float), "an adapter");
    for (int i = 0; i < lora->layout.n_tensors; i++) parameters_get(set, i, h->values + lora->layout.tensors[i].offset);
}

static const float* host_tensor(const HostAdapter* h, Site site, int m, bool b, int layer) {
    const ModelLayout* layout = &h->lora->layout;
    return h->values + layout->tensors[tensor_index(layout, lora_kind(site, m, b), layer)].offset;
}

// rows of a weight += s · B · A
static void add_adapter(const void* context, const ModelLayout* layout, const FileTensor* f, int64_t row, int64_t n,
                        float* rows) {
    const HostAdapter* h = (const HostAdapter*)context;
    const ModelTensor* t = &layout->tensors[f->tensor];
    const int rank = h->lora->rank;
    for (int s = 0; s < N_SITES; s++) {
        const LoraSite* site = &h->lora->sites[s];
        if (site_weight((Site)s) != t->kind) continue;
        for (int m = 0; m < site->n; m++) {
            const float *A = host_tensor(h, (Site)s, m, false, t->layer),
                        *B = host_tensor(h, (Site)s, m, true, t->layer);
            const float own = lora_module(&h->lora->settings, t->layer, site->index[m]).scale;
            for (int64_t i = 0; i < n; i++) {
                int64_t of_module = f->first + row + i - site->first[m];
                if (of_module < 0 || of_module >= site->rows[m]) continue;
                float* to = rows + i * f->cols;
                for (int k = 0; k < rank; k++) {
                    float scale = own * B[of_module * rank + k];
                    const float* a = A + (int64_t)k * f->cols;
                    for (int64_t c = 0; c < f->cols; c++) to[c] += scale * a[c];
                }
            }
        }
    }
}

void peft_save_merged(const ParameterSet* set, const Lora* lora, const char* directory, const char* base,
                      int64_t shard_bytes, bool quiet) {
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
    if (!directory) {
        parameters_load(set, base, quiet);
        return;
    }
    LoraSettings settings;
    Lora lora;
    HostAdapter adapter = {&lora, NULL};
    RowChange change = {add_adapter, &adapter};
    peft_settings(directory, &set->layout->config, &settings);
    lora_open(&lora, &set->layout->config, &settings, 1);
    check_base(&lora, directory, base);
    adapter.values = (float*)host_alloc((size_t)lora.layout.n_elements * sizeof(float), "an adapter");
    model_read(&lora.layout, directory, "adapter_model", adapter.values);
    parameters_load_files(set, base, "model", &change, quiet);
    peft_load_saved(set, directory, false);
    free(adapter.values);
    lora_close(&lora);
}
