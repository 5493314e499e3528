/* The tensor table and the parameter sets built on it. Adding a tensor is adding a row here and in the families that
 * have it (model_family.c). */
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "base/log.h"
#include "model.h"
#include "packed.h"
#include "base/random.h"
#include "base/ranks.h"

// ---------------------------------------------------------------------------------------------------
// the table

typedef enum { DIM_1, DIM_C, DIM_UP, DIM_FF, DIM_QKV, DIM_QNORM, DIM_KNORM, DIM_ATT, DIM_V, DIM_POS } Dim;

// What every family shares: shape, layer or not, decay, first value.
static const struct {
    const char* name;
    bool per_layer;
    Dim rows, cols;
    bool decay;
    Init init;
} kinds[N_TENSOR_KINDS] = {
    /* WTE      */ {"wte", false, DIM_V, DIM_C, true, INIT_NORMAL},
    /* WPE      */ {"wpe", false, DIM_POS, DIM_C, true, INIT_NORMAL},
    /* LNFW     */ {"lnfw", false, DIM_C, DIM_1, false, INIT_ONE},
    /* LNFB     */ {"lnfb", false, DIM_C, DIM_1, false, INIT_ZERO},
    /* HEADW    */ {"headw", false, DIM_V, DIM_C, true, INIT_NORMAL},
    /* LN1W     */ {"ln1w", true, DIM_C, DIM_1, false, INIT_ONE},
    /* LN1B     */ {"ln1b", true, DIM_C, DIM_1, false, INIT_ZERO},
    /* QKVW     */ {"qkvw", true, DIM_QKV, DIM_C, true, INIT_NORMAL},
    /* QKVB     */ {"qkvb", true, DIM_QKV, DIM_1, false, INIT_ZERO},
    /* QNORMW   */ {"qnormw", true, DIM_QNORM, DIM_1, false, INIT_ONE},
    /* KNORMW   */ {"knormw", true, DIM_KNORM, DIM_1, false, INIT_ONE},
    /* ATTPROJW */ {"attprojw", true, DIM_C, DIM_ATT, true, INIT_RESIDUAL},
    /* ATTPROJB */ {"attprojb", true, DIM_C, DIM_1, false, INIT_ZERO},
    /* POST1W   */ {"post1w", true, DIM_C, DIM_1, false, INIT_ONE},
    /* LN2W     */ {"ln2w", true, DIM_C, DIM_1, false, INIT_ONE},
    /* LN2B     */ {"ln2b", true, DIM_C, DIM_1, false, INIT_ZERO},
    /* UPW      */ {"upw", true, DIM_UP, DIM_C, true, INIT_NORMAL},  // gate, then up, where the MLP has a gate
    /* UPB      */ {"upb", true, DIM_UP, DIM_1, false, INIT_ZERO},
    /* DOWNW    */ {"downw", true, DIM_C, DIM_FF, true, INIT_RESIDUAL},
    /* DOWNB    */ {"downb", true, DIM_C, DIM_1, false, INIT_ZERO},
    /* POST2W   */ {"post2w", true, DIM_C, DIM_1, false, INIT_ONE},
};

static int64_t dim(Dim d, const ModelConfig* c) {
    switch (d) {
        case DIM_C: return c->C;
        case DIM_FF: return c->FF;
        case DIM_UP: return mlp_gated(c) ? 2 * (int64_t)c->FF : c->FF;
        case DIM_QKV: return (int64_t)(c->NH + 2 * c->NKV) * c->HS;
        case DIM_QNORM: return (int64_t)(c->qk_norm == QK_NORM_ALL ? c->NH : 1) * c->HS;
        case DIM_KNORM: return (int64_t)(c->qk_norm == QK_NORM_ALL ? c->NKV : 1) * c->HS;
        case DIM_ATT: return (int64_t)c->NH * c->HS;
        case DIM_V: return c->Vp;
        case DIM_POS: return c->max_positions;
        default: return 1;
    }
}

void model_part_rows(const ModelLayout* layout, TensorKind kind, Part part, int64_t* first, int64_t* rows) {
    const ModelConfig* c = &layout->config;
    int64_t q = (int64_t)c->NH * c->HS, kv = (int64_t)c->NKV * c->HS;
    switch (part) {
        case PART_Q:
            *first = 0;
            *rows = q;
            break;
        case PART_K:
            *first = q;
            *rows = kv;
            break;
        case PART_V:
            *first = q + kv;
            *rows = kv;
            break;
        case PART_GATE:
            *first = 0;
            *rows = c->FF;
            break;
        case PART_UP:
            *first = c->FF;
            *rows = c->FF;
            break;
        default: *first = 0; *rows = kinds[kind].rows == DIM_V ? c->V : dim(kinds[kind].rows, c);
    }
}

static bool exists(Condition when, const ModelConfig* c) {
    return when == ALWAYS || (when == IF_UNTIED && !c->tied_head) || (when == IF_ATTENTION_BIAS && c->attention_bias) ||
           (when == IF_MLP_BIAS && c->mlp_bias);
}

static void add_tensor(ModelLayout* layout, TensorKind kind, int layer, const LinearForm* form) {
    const ModelConfig* c = &layout->config;
    ModelTensor* t = &layout->tensors[layout->n_tensors];
    t->kind = kind;
    t->layer = layer;
    if (layer < 0) snprintf(t->name, sizeof t->name, "%s", kinds[kind].name);
    else snprintf(t->name, sizeof t->name, "%s %d", kinds[kind].name, layer);
    t->rows = dim(kinds[kind].rows, c);
    t->cols = t->ld = t->file_cols = dim(kinds[kind].cols, c);
    for (int s = 0; s < N_SITES; s++)
        if (form && site_weight((Site)s) == kind) {
            t->ld += form->tails[s];
            t->packed = form->base != BASE_PLAIN;
        }
    if (t->packed && layout->base == BASE_NF4 && t->rows * t->ld > layout->n_unpacked)
        layout->n_unpacked = t->rows * t->ld;
    t->file_rows = kinds[kind].rows == DIM_V ? c->V : t->rows;
    t->offset = layout->n_elements;
    t->decay = kinds[kind].decay;
    t->init = kinds[kind].init;
    layout->index[kind * c->L + (layer < 0 ? 0 : layer)] = layout->n_tensors++;
    const int64_t kept = t->rows * (t->packed ? t->ld - t->cols : t->ld);
    layout->n_elements += (kept + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
}

// A tensor of the file, and the tensor of ours that it belongs to where this is its first part.
static void add_file(ModelLayout* layout, const FamilyTensor* source, int layer, const LinearForm* form) {
    if (tensor_index(layout, source->kind, layer < 0 ? 0 : layer) < 0) add_tensor(layout, source->kind, layer, form);
    FileTensor* f = &layout->files[layout->n_files++];
    f->tensor = tensor_index(layout, source->kind, layer < 0 ? 0 : layer);
    const ModelTensor* t = &layout->tensors[f->tensor];
    const char* number = strstr(source->hf_name, "%d");
    if (number)
        snprintf(f->hf_name, sizeof f->hf_name, "%.*s%d%s", (int)(number - source->hf_name), source->hf_name, layer,
                 number + 2);
    else snprintf(f->hf_name, sizeof f->hf_name, "%s", source->hf_name);
    model_part_rows(layout, source->kind, source->part, &f->first, &f->rows);
    f->cols = t->file_cols;
    f->form = source->form;
    f->source = source;
    if (t->packed) {
        if (!layout->n_packed) layout->n_packed = packed_tables_bytes(layout);
        f->piece = layout->n_packed;
        layout->n_packed += packed_piece_bytes(layout, f);
    }
    layout->n_parameters += f->rows * f->cols;
}

void model_layout(ModelLayout* layout, const ModelConfig* config, const LinearForm* form) {
    memset(layout, 0, sizeof *layout);
    layout->config = *config;
    layout->base = form ? form->base : BASE_PLAIN;
    layout->backward = form && form->backward;
    int L = config->L, n = 0;
    const FamilyTensor* sources = family_find(config->family)->tensors;
    while (sources[n].hf_name) n++;
    layout->tensors = (ModelTensor*)host_alloc((size_t)n * L * sizeof *layout->tensors, "the tensor table");
    layout->files = (FileTensor*)host_alloc((size_t)n * L * sizeof *layout->files, "the tensor table");
    layout->index = (int*)host_alloc((size_t)N_TENSOR_KINDS * L * sizeof(int), "the tensor table");
    for (int i = 0; i < N_TENSOR_KINDS * L; i++) layout->index[i] = -1;
    for (const FamilyTensor* source = sources; source->hf_name; source++) {
        if (!exists(source->when, config)) continue;
        if (!kinds[source->kind].per_layer) add_file(layout, source, -1, form);
        else
            for (int l = 0; l < L; l++) add_file(layout, source, l, form);
    }
}

void model_layout_free(ModelLayout* layout) {
    free(layout->tensors);
    free(layout->files);
    free(layout->index);
    memset(layout, 0, sizeof *layout);
}

void model_print(const ModelLayout* layout, FILE* out) {
    const ModelConfig* c = &layout->config;
    fprintf(out, "| model          |              |\n|----------------|--------------|\n");
    fprintf(out, "| family         | %12s |\n| layers         | %12d |\n| width          | %12d |\n", c->family, c->L,
            c->C);
    fprintf(out, "| heads × size   | %8d × %-2d |\n", c->NH, c->HS);
    if (c->NKV != c->NH) fprintf(out, "| key-value heads| %12d |\n", c->NKV);
    fprintf(out, "| vocabulary     | %12d |\n| longest sample | %12d |\n", c->V, c->longest);
    fprintf(out, "| parameters     | %12lld |\n", (long long)layout->n_parameters);
}

// ---------------------------------------------------------------------------------------------------
// parameter sets

static bool separate_masters(void) { return sizeof(floatX) != sizeof(float); }

int64_t shard_begin(const ModelLayout* layout, int rank) {
    int64_t part = CEIL_DIV(CEIL_DIV(layout->n_elements, ranks_count()), MEMORY_ALIGNMENT) * MEMORY_ALIGNMENT,
            at = part * rank;
    return at < layout->n_elements ? at : layout->n_elements;
}

// The part of a tensor that is in [from, to) of the set's elements; false where there is none.
static bool overlap(const ModelTensor* t, int64_t from, int64_t to, int64_t* low, int64_t* high) {
    *low = t->offset > from ? t->offset : from;
    *high = t->offset + t->rows * t->cols < to ? t->offset + t->rows * t->cols : to;
    return *low < *high;
}

void parameters_plan(ParameterSet* set, const ModelLayout* layout, const char* symbol, bool train,
                     const ParameterSet* shared, MemoryPlan* plan) {
    memset(set, 0, sizeof *set);
    set->layout = layout;
    set->symbol = symbol;
    set->from = shard_begin(layout, ranks_rank());
    set->n = shard_begin(layout, ranks_rank() + 1) - set->from;
    size_t all = (size_t)layout->n_elements, part = train ? (size_t)set->n * sizeof(float) : 0;
    memory_add(plan, MEMORY_WEIGHTS, &set->weights, all * sizeof(floatX), "%s", symbol);
    memory_add(plan, MEMORY_WEIGHTS, &set->packed, (size_t)layout->n_packed, "%s, packed", symbol);
    memory_add(plan, MEMORY_SCRATCH, &set->unpacked, (size_t)layout->n_unpacked * sizeof(floatX),
               "a weight of %s, unpacked", symbol);
    memory_add(plan, MEMORY_GRADIENTS, &set->grads, train && !shared ? all * sizeof(float) : 0, "gradients of %s",
               symbol);
    memory_add(plan, MEMORY_MASTER, &set->master, separate_masters() ? part : 0, "masters of %s", symbol);
    memory_add(plan, MEMORY_ADAM_M, &set->m, part, "m of %s", symbol);
    memory_add(plan, MEMORY_ADAM_V, &set->v, part, "v of %s", symbol);
    memory_add(plan, MEMORY_SCRATCH, &set->rows, train ? layout->n_tensors * sizeof(TensorRow) : 0, "tensor rows of %s",
               symbol);
    int64_t chunks = 0, low, high;
    for (int i = 0; i < layout->n_tensors; i++)
        if (overlap(&layout->tensors[i], set->from, set->from + set->n, &low, &high))
            chunks += CEIL_DIV(high - low, TENSOR_CHUNK);
    memory_add(plan, MEMORY_SCRATCH, &set->norm_partial, train ? chunks * sizeof(float) : 0, "norm partials of %s",
               symbol);
    memory_add(plan, MEMORY_SCRATCH, &set->squares, train ? sizeof(double) : 0, "squared norm of %s", symbol);
}

void parameters_bind(ParameterSet* set, const ParameterSet* shared, float weight_decay) {
    if (shared) set->grads = shared->grads;
    if (set->packed) packed_bind(set);
    if (!set->rows) return;  // nothing is trained
    const ModelLayout* layout = set->layout;
    TensorRow* rows = (TensorRow*)host_alloc((size_t)layout->n_tensors * sizeof *rows, "the tensor rows");
    if (!separate_masters()) set->master = (float*)set->weights + set->from;  // the model reads the masters themselves
    for (int i = 0; i < layout->n_tensors; i++) {
        const ModelTensor* t = &layout->tensors[i];
        int64_t low, high;
        if (!overlap(t, set->from, set->from + set->n, &low, &high)) continue;
        if (!set->n_rows) set->first_row = i;
        TensorRow* row = &rows[set->n_rows++];
        row->param = set->weights + low;
        row->grad = set->grads + low;
        row->master = set->master + (low - set->from);
        row->m = set->m + (low - set->from);
        row->v = set->v + (low - set->from);
        row->count = high - low;
        row->weight_decay = t->decay ? weight_decay : 0.0f;
    }
    set->n_chunks = tensor_rows_chunks(rows, set->n_rows);
    cudaCheck(cudaMemcpy(set->rows, rows, set->n_rows * sizeof *rows, cudaMemcpyHostToDevice));
    free(rows);
}

void parameters_copy(ParameterSet* to, const ParameterSet* from, cudaStream_t stream) {
    size_t part = (size_t)from->n * sizeof(float);
    cudaCheck(cudaMemcpyAsync(to->weights, from->weights, (size_t)from->layout->n_elements * sizeof(floatX),
                              cudaMemcpyDeviceToDevice, stream));
    if (to->master && separate_masters())
        cudaCheck(cudaMemcpyAsync(to->master, from->master, part, cudaMemcpyDeviceToDevice, stream));
    if (to->m) cudaCheck(cudaMemcpyAsync(to->m, from->m, part, cudaMemcpyDeviceToDevice, stream));
    if (to->v) cudaCheck(cudaMemcpyAsync(to->v, from->v, part, cudaMemcpyDeviceToDevice, stream));
    to->step = from->step;
}

void parameters_gather(ParameterSet* set, cudaStream_t stream) {
    if (ranks_count() == 1 || !separate_masters()) return;
    cudaCheck(cudaMemcpyAsync(set->grads + set->from, set->master, (size_t)set->n * sizeof(float),
                              cudaMemcpyDeviceToDevice, stream));
    ranks_group_begin();
    for (int r = 0; r < ranks_count(); r++) {
        int64_t from = shard_begin(set->layout, r), n = shard_begin(set->layout, r + 1) - from;
        ranks_spread(set->grads + from, (size_t)n * sizeof(float), r, stream);
    }
    ranks_group_end();
    set->whole = set->grads;
}

// n rows of `cols` elements between the host, contiguous, and the device, `ld` apart.
static void copy_rows(void* device, void* host, bool to_device, int64_t n, int64_t cols, int64_t ld, size_t element) {
    size_t width = (size_t)cols * element, pitch = (size_t)ld * element;
    if (to_device) cudaCheck(cudaMemcpy2D(device, pitch, host, width, width, (size_t)n, cudaMemcpyHostToDevice));
    else cudaCheck(cudaMemcpy2D(host, width, device, pitch, width, (size_t)n, cudaMemcpyDeviceToHost));
}

// All masters on this rank; NULL for a set that is only read, and has none.
static const float* masters_of(const ParameterSet* set) {
    if (!separate_masters()) return (const float*)set->weights;
    if (set->whole) return set->whole;
    if (set->master && set->n != set->layout->n_elements)
        program_error("the masters of %s are spread over several ranks", set->symbol);
    return set->master;
}

// Rows at element `at` of the set into the masters, as far as this rank has them.
static void set_masters(ParameterSet* set, int64_t at, int64_t n, int64_t cols, int64_t ld, const float* host) {
    if (set->n == set->layout->n_elements)
        return copy_rows(set->master + at, (void*)host, true, n, cols, ld, sizeof(float));
    if (cols == ld) {
        cols *= n;
        n = 1;
    }  // one run of elements
    for (int64_t row = 0; row < n; row++) {
        int64_t begin = at + row * ld, low = begin > set->from ? begin : set->from,
                high = begin + cols < set->from + set->n ? begin + cols : set->from + set->n;
        if (low < high)
            cudaCheck(cudaMemcpy(set->master + (low - set->from), host + row * cols + (low - begin),
                                 (size_t)(high - low) * sizeof(float), cudaMemcpyHostToDevice));
    }
}

static void get_block(const ParameterSet* set, int tensor, int64_t row, int64_t n, int64_t cols, float* host) {
    const ModelTensor* t = &set->layout->tensors[tensor];
    int64_t at = t->offset + row * t->ld;
    cudaCheck(cudaDeviceSynchronize());  // updates are queued on the trainer's own stream
    if (t->packed && set->layout->base == BASE_FP8) return packed_get(set, tensor, row, n, host);
    const floatX* from = set->weights + at;
    if (t->packed) from = weight_matrix(set, (TensorKind)t->kind, t->layer, 0) + row * t->ld;
    const float* masters = t->packed ? NULL : masters_of(set);
    if (masters) return copy_rows((void*)(masters + at), host, false, n, cols, t->ld, sizeof(float));
    floatX* narrow = (floatX*)host_alloc((size_t)(n * cols) * sizeof(floatX), t->name);
    copy_rows((void*)from, narrow, false, n, cols, t->ld, sizeof(floatX));
    for (int64_t i = 0; i < n * cols; i++) host[i] = to_float(narrow[i]);
    free(narrow);
}

static void set_block(ParameterSet* set, int tensor, int64_t row, int64_t n, int64_t cols, const float* host) {
    const ModelTensor* t = &set->layout->tensors[tensor];
    int64_t at = t->offset + row * t->ld;
    if (t->packed) return packed_set(set, tensor, row, n, host);
    floatX* narrow = (floatX*)host_alloc((size_t)(n * cols) * sizeof(floatX), t->name);
    for (int64_t i = 0; i < n * cols; i++) narrow[i] = from_float<floatX>(host[i]);
    copy_rows(set->weights + at, narrow, true, n, cols, t->ld, sizeof(floatX));
    free(narrow);
    if (set->master && separate_masters()) set_masters(set, at, n, cols, t->ld, host);
    // a copy from pageable memory may return before the last bytes have arrived, and the trainer's stream does not wait
    // for the default one
    cudaCheck(cudaDeviceSynchronize());
}

void parameters_get(const ParameterSet* set, int tensor, float* host) {
    const ModelTensor* t = &set->layout->tensors[tensor];
    get_block(set, tensor, 0, t->rows, t->cols, host);
}
void parameters_set(ParameterSet* set, int tensor, const float* host) {
    const ModelTensor* t = &set->layout->tensors[tensor];
    set_block(set, tensor, 0, t->rows, t->cols, host);
}
void parameters_get_rows(const ParameterSet* set, int tensor, int64_t row, int64_t n, float* host) {
    get_block(set, tensor, row, n, set->layout->tensors[tensor].file_cols, host);
}
void parameters_set_rows(ParameterSet* set, int tensor, int64_t row, int64_t n, const float* host) {
    set_block(set, tensor, row, n, set->layout->tensors[tensor].file_cols, host);
}

void parameters_get_gradient(const ParameterSet* set, int tensor, float* host) {
    const ModelTensor* t = &set->layout->tensors[tensor];
    cudaCheck(cudaDeviceSynchronize());
    cudaCheck(cudaMemcpy(host, set->grads + t->offset, t->rows * t->cols * sizeof(float), cudaMemcpyDeviceToHost));
}

// An element's first value. Padding stays zero.
static float first_value(const ModelLayout* layout, const ModelTensor* t, int64_t e, uint64_t seed, uint64_t stream) {
    if (e / t->cols >= t->file_rows || e % t->cols >= t->file_cols) return 0.0f;
    switch (t->init) {
        case INIT_ONE: return 1.0f - layout->config.norm_offset;  // what the norm multiplies by is 1
        case INIT_NORMAL: return 0.02f * (float)random_normal(seed, stream, (uint64_t)e);
        case INIT_RESIDUAL:
            return 0.02f / sqrtf(2.0f * layout->config.L) * (float)random_normal(seed, stream, (uint64_t)e);
        case INIT_UNIFORM:
            return (float)(2.0 * random_uniform(seed, stream, (uint64_t)e) - 1.0) /
                   sqrtf((float)t->cols);  // kaiming_uniform_(a=√5) of (r, C)
        default: return 0.0f;
    }
}

void parameters_init(ParameterSet* set, uint64_t seed, bool quiet) {
    const ModelLayout* layout = set->layout;
    Progress progress;
    int64_t done = 0;
    progress_begin(&progress, "drawing", layout->n_parameters, quiet);
    for (int i = 0; i < layout->n_tensors; i++) {
        const ModelTensor* t = &layout->tensors[i];
        float* values = (float*)host_alloc((size_t)(t->rows * t->cols) * sizeof(float), t->name);
        for (int64_t e = 0; e < t->rows * t->cols; e++) values[e] = first_value(layout, t, e, seed, (uint64_t)i);
        parameters_set(set, i, values);
        free(values);
        progress_update(&progress, done += t->file_rows * t->file_cols, "parameters");
    }
    progress_end(&progress);
}
