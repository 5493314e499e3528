/* The tensor table and the parameter sets built on it. Adding a tensor is adding a row here; adding a family is adding its HF names. */
#include <string.h>
#include "error.h"
#include "model.h"
#include "random.h"

// ---------------------------------------------------------------------------------------------------------------------------------------
// the table

typedef enum { DIM_1, DIM_C, DIM_FF, DIM_QKV, DIM_ATT, DIM_V, DIM_POS } Dim;
typedef enum { INIT_NORMAL, INIT_RESIDUAL, INIT_ZERO, INIT_ONE } Init;

// What every family shares: shape, layer or not, decay, first value.
static const struct { const char* name; bool per_layer; Dim rows, cols; bool decay; Init init; } kinds[N_TENSOR_KINDS] = {
    /* WTE      */ {"wte", false, DIM_V, DIM_C, true, INIT_NORMAL},
    /* WPE      */ {"wpe", false, DIM_POS, DIM_C, true, INIT_NORMAL},
    /* LNFW     */ {"lnfw", false, DIM_1, DIM_C, false, INIT_ONE},
    /* LNFB     */ {"lnfb", false, DIM_1, DIM_C, false, INIT_ZERO},
    /* HEADW    */ {"headw", false, DIM_V, DIM_C, true, INIT_NORMAL},
    /* LN1W     */ {"ln1w", true, DIM_1, DIM_C, false, INIT_ONE},
    /* LN1B     */ {"ln1b", true, DIM_1, DIM_C, false, INIT_ZERO},
    /* QKVW     */ {"qkvw", true, DIM_QKV, DIM_C, true, INIT_NORMAL},
    /* QKVB     */ {"qkvb", true, DIM_1, DIM_QKV, false, INIT_ZERO},
    /* ATTPROJW */ {"attprojw", true, DIM_C, DIM_ATT, true, INIT_RESIDUAL},
    /* ATTPROJB */ {"attprojb", true, DIM_1, DIM_C, false, INIT_ZERO},
    /* LN2W     */ {"ln2w", true, DIM_1, DIM_C, false, INIT_ONE},
    /* LN2B     */ {"ln2b", true, DIM_1, DIM_C, false, INIT_ZERO},
    /* UPW      */ {"upw", true, DIM_FF, DIM_C, true, INIT_NORMAL},
    /* UPB      */ {"upb", true, DIM_1, DIM_FF, false, INIT_ZERO},
    /* DOWNW    */ {"downw", true, DIM_C, DIM_FF, true, INIT_RESIDUAL},
    /* DOWNB    */ {"downb", true, DIM_1, DIM_C, false, INIT_ZERO},
};

// Where a family keeps a tensor in its file. %d is the layer. A kind without a row does not exist in the family.
typedef struct { TensorKind kind; const char* hf_name; bool transposed; } FamilyTensor;
static const FamilyTensor gpt2_tensors[] = {
    {WTE, "transformer.wte.weight", false},
    {WPE, "transformer.wpe.weight", false},
    {LN1W, "transformer.h.%d.ln_1.weight", false},
    {LN1B, "transformer.h.%d.ln_1.bias", false},
    {QKVW, "transformer.h.%d.attn.c_attn.weight", true},  // Conv1D: (in, out)
    {QKVB, "transformer.h.%d.attn.c_attn.bias", false},
    {ATTPROJW, "transformer.h.%d.attn.c_proj.weight", true},
    {ATTPROJB, "transformer.h.%d.attn.c_proj.bias", false},
    {LN2W, "transformer.h.%d.ln_2.weight", false},
    {LN2B, "transformer.h.%d.ln_2.bias", false},
    {UPW, "transformer.h.%d.mlp.c_fc.weight", true},
    {UPB, "transformer.h.%d.mlp.c_fc.bias", false},
    {DOWNW, "transformer.h.%d.mlp.c_proj.weight", true},
    {DOWNB, "transformer.h.%d.mlp.c_proj.bias", false},
    {LNFW, "transformer.ln_f.weight", false},
    {LNFB, "transformer.ln_f.bias", false},
    {HEADW, "lm_head.weight", false},  // only where the head is not tied
};

static const struct { const char* family; const FamilyTensor* tensors; int n; } families[] = {
    {"gpt2", gpt2_tensors, sizeof gpt2_tensors / sizeof *gpt2_tensors},
};

static int64_t dim(Dim d, const ModelConfig* c) {
    switch (d) {
        case DIM_C: return c->C;
        case DIM_FF: return c->FF;
        case DIM_QKV: return (int64_t)(c->NH + 2 * c->NKV) * c->HS;
        case DIM_ATT: return (int64_t)c->NH * c->HS;
        case DIM_V: return c->Vp;
        case DIM_POS: return c->max_positions;
        default: return 1;
    }
}

static void add_tensor(ModelLayout* layout, const FamilyTensor* source, int layer) {
    const ModelConfig* c = &layout->config;
    ModelTensor* t = &layout->tensors[layout->n_tensors];
    t->kind = source->kind;
    t->layer = layer;
    if (layer < 0) snprintf(t->name, sizeof t->name, "%s", kinds[t->kind].name);
    else snprintf(t->name, sizeof t->name, "%s %d", kinds[t->kind].name, layer);
    const char* number = strstr(source->hf_name, "%d");
    if (number) snprintf(t->hf_name, sizeof t->hf_name, "%.*s%d%s", (int)(number - source->hf_name), source->hf_name, layer, number + 2);
    else snprintf(t->hf_name, sizeof t->hf_name, "%s", source->hf_name);
    t->rows = dim(kinds[t->kind].rows, c);
    t->cols = dim(kinds[t->kind].cols, c);
    t->file_rows = kinds[t->kind].rows == DIM_V ? c->V : t->rows;
    t->file_transposed = source->transposed;
    t->offset = layout->n_elements;
    t->decay = kinds[t->kind].decay;
    layout->index[t->kind * c->L + (layer < 0 ? 0 : layer)] = layout->n_tensors++;
    layout->n_elements += (t->rows * t->cols + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
    layout->n_parameters += t->file_rows * t->cols;
}

void model_layout(ModelLayout* layout, const ModelConfig* config) {
    memset(layout, 0, sizeof *layout);
    layout->config = *config;
    int L = config->L;
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        if (strcmp(families[f].family, config->family)) continue;
        layout->tensors = (ModelTensor*)calloc((size_t)families[f].n * L, sizeof *layout->tensors);
        layout->index = (int*)malloc((size_t)N_TENSOR_KINDS * L * sizeof(int));
        if (!layout->tensors || !layout->index) fatal("out of host memory for the tensor table");
        for (int i = 0; i < N_TENSOR_KINDS * L; i++) layout->index[i] = -1;
        for (int i = 0; i < families[f].n; i++) {
            const FamilyTensor* source = &families[f].tensors[i];
            if (source->kind == HEADW && config->tied_head) continue;
            if (!kinds[source->kind].per_layer) add_tensor(layout, source, -1);
            else for (int l = 0; l < L; l++) add_tensor(layout, source, l);
        }
        return;
    }
    fatal("model family \"%s\" has no tensor table here", config->family);
}

void model_layout_free(ModelLayout* layout) {
    free(layout->tensors);
    free(layout->index);
    memset(layout, 0, sizeof *layout);
}

void model_print(const ModelLayout* layout, FILE* out) {
    const ModelConfig* c = &layout->config;
    fprintf(out, "| model          |              |\n|----------------|--------------|\n");
    fprintf(out, "| family         | %12s |\n| layers         | %12d |\n| width          | %12d |\n", c->family, c->L, c->C);
    fprintf(out, "| heads × size   | %8d × %-2d |\n| vocabulary     | %12d |\n| positions      | %12d |\n", c->NH, c->HS, c->V, c->max_positions);
    fprintf(out, "| parameters     | %12lld |\n", (long long)layout->n_parameters);
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// parameter sets

void parameters_plan(ParameterSet* set, const ModelLayout* layout, const char* symbol, bool train, const ParameterSet* shared, MemoryPlan* plan) {
    memset(set, 0, sizeof *set);
    set->layout = layout;
    set->symbol = symbol;
    size_t n = (size_t)layout->n_elements;
    bool separate_master = sizeof(floatX) != sizeof(float);
    memory_add(plan, MEMORY_WEIGHTS, (void**)&set->weights, n * sizeof(floatX), "%s", symbol);
    memory_add(plan, MEMORY_GRADIENTS, (void**)&set->grads, train && !shared ? n * sizeof(float) : 0, "gradients of %s", symbol);
    memory_add(plan, MEMORY_MASTER, (void**)&set->master, train && separate_master ? n * sizeof(float) : 0, "masters of %s", symbol);
    memory_add(plan, MEMORY_ADAM_M, (void**)&set->m, train ? n * sizeof(float) : 0, "m of %s", symbol);
    memory_add(plan, MEMORY_ADAM_V, (void**)&set->v, train ? n * sizeof(float) : 0, "v of %s", symbol);
    memory_add(plan, MEMORY_SCRATCH, (void**)&set->rows, train ? layout->n_tensors * sizeof(TensorRow) : 0, "tensor rows of %s", symbol);
    int64_t chunks = 0;
    for (int i = 0; i < layout->n_tensors; i++) chunks += CEIL_DIV(layout->tensors[i].rows * layout->tensors[i].cols, TENSOR_CHUNK);
    memory_add(plan, MEMORY_SCRATCH, (void**)&set->norm_partial, train ? chunks * sizeof(float) : 0, "norm partials of %s", symbol);
}

void parameters_bind(ParameterSet* set, const ParameterSet* shared, float weight_decay) {
    if (shared) set->grads = shared->grads;
    if (!set->grads) return;
    const ModelLayout* layout = set->layout;
    TensorRow* rows = (TensorRow*)calloc(layout->n_tensors, sizeof *rows);
    if (!rows) fatal("out of host memory for the tensor rows");
    if (!set->master) set->master = (float*)set->weights;  // the fp32 build: the model reads the masters themselves
    for (int i = 0; i < layout->n_tensors; i++) {
        const ModelTensor* t = &layout->tensors[i];
        rows[i].param = set->weights + t->offset;
        rows[i].master = set->master + t->offset;
        rows[i].grad = set->grads + t->offset;
        rows[i].m = set->m + t->offset;
        rows[i].v = set->v + t->offset;
        rows[i].count = t->rows * t->cols;
        rows[i].weight_decay = t->decay ? weight_decay : 0.0f;
    }
    set->n_chunks = tensor_rows_chunks(rows, layout->n_tensors);
    cudaCheck(cudaMemcpy(set->rows, rows, layout->n_tensors * sizeof *rows, cudaMemcpyHostToDevice));
    free(rows);
}

void parameters_copy(ParameterSet* to, const ParameterSet* from, cudaStream_t stream) {
    size_t n = (size_t)from->layout->n_elements;
    cudaCheck(cudaMemcpyAsync(to->weights, from->weights, n * sizeof(floatX), cudaMemcpyDeviceToDevice, stream));
    if (to->master && (void*)to->master != (void*)to->weights)
        cudaCheck(cudaMemcpyAsync(to->master, from->master, n * sizeof(float), cudaMemcpyDeviceToDevice, stream));
    if (to->m) cudaCheck(cudaMemcpyAsync(to->m, from->m, n * sizeof(float), cudaMemcpyDeviceToDevice, stream));
    if (to->v) cudaCheck(cudaMemcpyAsync(to->v, from->v, n * sizeof(float), cudaMemcpyDeviceToDevice, stream));
    to->step = from->step;
}

static void* host_buffer(int64_t n, size_t element, const ModelTensor* t) {
    void* buffer = malloc((size_t)n * element);
    if (!buffer) fatal("out of host memory for %s, %lld elements", t->name, (long long)n);
    return buffer;
}

void parameters_get(const ParameterSet* set, int tensor, float* host) {
    const ModelTensor* t = &set->layout->tensors[tensor];
    cudaCheck(cudaDeviceSynchronize());  // updates are queued on the trainer's own stream
    int64_t n = t->rows * t->cols;
    if (set->master) {
        cudaCheck(cudaMemcpy(host, set->master + t->offset, n * sizeof(float), cudaMemcpyDeviceToHost));
        return;
    }
    floatX* narrow = (floatX*)host_buffer(n, sizeof(floatX), t);
    cudaCheck(cudaMemcpy(narrow, set->weights + t->offset, n * sizeof(floatX), cudaMemcpyDeviceToHost));
    for (int64_t i = 0; i < n; i++) host[i] = to_float(narrow[i]);
    free(narrow);
}

void parameters_set(ParameterSet* set, int tensor, const float* host) {
    const ModelTensor* t = &set->layout->tensors[tensor];
    int64_t n = t->rows * t->cols;
    if (set->master) cudaCheck(cudaMemcpy(set->master + t->offset, host, n * sizeof(float), cudaMemcpyHostToDevice));
    if ((void*)set->master != (void*)set->weights) {
        floatX* narrow = (floatX*)host_buffer(n, sizeof(floatX), t);
        for (int64_t i = 0; i < n; i++) narrow[i] = from_float<floatX>(host[i]);
        cudaCheck(cudaMemcpy(set->weights + t->offset, narrow, n * sizeof(floatX), cudaMemcpyHostToDevice));
        free(narrow);
    }
    // cudaMemcpy from pageable memory may return before the last bytes have arrived, and the trainer's stream does not wait for the default one
    cudaCheck(cudaDeviceSynchronize());
}

void parameters_get_gradient(const ParameterSet* set, int tensor, float* host) {
    const ModelTensor* t = &set->layout->tensors[tensor];
    cudaCheck(cudaDeviceSynchronize());
    cudaCheck(cudaMemcpy(host, set->grads + t->offset, t->rows * t->cols * sizeof(float), cudaMemcpyDeviceToHost));
}

void parameters_init(ParameterSet* set, uint64_t seed) {
    const ModelLayout* layout = set->layout;
    for (int i = 0; i < layout->n_tensors; i++) {
        const ModelTensor* t = &layout->tensors[i];
        Init init = kinds[t->kind].init;
        float* values = (float*)host_buffer(t->rows * t->cols, sizeof(float), t);
        float sd = 0.02f / (init == INIT_RESIDUAL ? sqrtf(2.0f * layout->config.L) : 1.0f);
        for (int64_t e = 0; e < t->rows * t->cols; e++) {
            if (init == INIT_ONE) values[e] = 1.0f;
            else if (init == INIT_ZERO || e / t->cols >= t->file_rows) values[e] = 0.0f;  // padded vocabulary rows stay zero for ever
            else values[e] = sd * (float)random_normal(seed, (uint64_t)i, (uint64_t)e);
        }
        parameters_set(set, i, values);
        free(values);
    }
}
