/* LoRA: where the columns and rows of its modules are, and the thin products beside the base's. See lora.h. */
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "kernels.h"
#include "lora.h"

// Tensor cores take bf16 in blocks of 64 columns; fp32 does without them, and there every column costs.
#define LORA_ROUND (sizeof(floatX) == 2 ? 64 : 16)  // of R
#define RANK_ROUND 8                                // a column block of the tail must begin on 16 bytes

static Site site_of(TensorKind weight) {
    return weight == QKVW ? SITE_QKV : weight == ATTPROJW ? SITE_ATTPROJ : weight == UPW ? SITE_UP : SITE_DOWN;
}

// ---------------------------------------------------------------------------------------------------
// the table of one adapter

static ModelTensor* add_tensor(ModelLayout* layout, int kind, int layer, int64_t rows, int64_t cols, int64_t file_rows,
                               int64_t file_cols, Init init, bool aligned) {
    ModelTensor* t = &layout->tensors[layout->n_tensors];
    if (aligned) layout->n_elements = (layout->n_elements + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
    t->kind = kind;
    t->layer = layer;
    t->rows = rows;
    t->cols = t->ld = cols;
    t->file_rows = file_rows;
    t->file_cols = file_cols;
    t->offset = layout->n_elements;
    t->decay = true;
    t->init = init;
    layout->index[kind * layout->config.L + layer] = layout->n_tensors++;
    layout->n_elements += rows * cols;
    layout->n_parameters += file_rows * file_cols;
    return t;
}

// PEFT's name of a matrix of the module whose weight is hf_name.
static void add_file(ModelLayout* layout, const ModelTensor* t, const FamilyTensor* source, bool b) {
    FileTensor* f = &layout->files[layout->n_files++];
    lora_tensor_name(source, t->layer, b, f->hf_name, sizeof f->hf_name);
    f->tensor = layout->n_tensors - 1;
    f->rows = t->file_rows;
    f->cols = t->file_cols;
    f->form = b && source->form == FILE_HEADS ? FILE_HEADS
                                              : FILE_PLAIN;  // B has the rows of its weight; a transposed weight is
                                                             // PEFT's fan_in_fan_out, B is not transposed
}

// The adapted rows of the family's table that belong to a site, in the order of their rows in the fused weight.
static int site_sources(const Lora* lora, const Family* family, Site site, const FamilyTensor* sources[LORA_MODULES]) {
    int n = 0;
    for (const FamilyTensor* t = family->tensors; t->hf_name; t++)
        if (lora_adapts(&lora->settings, t) && site_of(t->kind) == site) sources[n++] = t;
    return n;
}

static void name_tensor(ModelTensor* t, const FamilyTensor* source, bool b) {
    char letters[16] = "";
    for (const char* p = source->lora; *p; p++)
        if (*p != ',') letters[strlen(letters)] = *p;
    snprintf(t->name, sizeof t->name, "%s%s %d", letters, b ? "B" : "A", t->layer);
}

static void lay_out(Lora* lora, const ModelLayout* model) {
    const ModelConfig* c = &model->config;
    const Family* family = family_find(c->family);
    ModelLayout* layout = &lora->layout;
    const int most = c->L * N_SITES * LORA_MODULES * 2;
    layout->config = *c;
    layout->tensors = (ModelTensor*)host_alloc((size_t)most * sizeof *layout->tensors, "the table of adapters");
    layout->files = (FileTensor*)host_alloc((size_t)most * sizeof *layout->files, "the table of adapters");
    layout->index = (int*)host_alloc((size_t)most * sizeof(int), "the table of adapters");
    for (int i = 0; i < most; i++) layout->index[i] = -1;
    for (int l = 0; l < c->L; l++)
        for (int s = 0; s < N_SITES; s++) {
            const FamilyTensor* sources[LORA_MODULES];
            int n = site_sources(lora, family, (Site)s, sources);
            for (int m = 0; m < n;
                 m++) {  // the A of a site's modules follow each other: one matrix to the thin products
                const int r = lora_module(&lora->settings, l, lora->sites[s].index[m]).rank;
                ModelTensor* t = add_tensor(layout, lora_kind((Site)s, m, false), l, lora->rank,
                                            model->tensors[tensor_index(model, sources[m]->kind, l)].cols, r,
                                            model->tensors[tensor_index(model, sources[m]->kind, l)].cols, INIT_UNIFORM,
                                            m == 0);
                name_tensor(t, sources[m], false);
                if (r) add_file(layout, t, sources[m], false);
            }
            for (int m = 0; m < n; m++) {
                const int64_t rows = lora->sites[s].rows[m];
                const int r = lora_module(&lora->settings, l, lora->sites[s].index[m]).rank;
                ModelTensor* t = add_tensor(layout, lora_kind((Site)s, m, true), l, rows, lora->rank, rows, r,
                                            INIT_ZERO, true);
                name_tensor(t, sources[m], true);
                if (r) add_file(layout, t, sources[m], true);
            }
        }
    layout->n_elements = (layout->n_elements + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
}

void lora_open(Lora* lora, const ModelConfig* c, const LoraSettings* settings, int n_sets) {
    const Family* family = family_find(c->family);
    ModelLayout model;
    memset(lora, 0, sizeof *lora);
    lora->settings = *settings;
    lora->n_sets = n_sets;
    int largest = settings->table ? 1 : settings->rank;
    for (int i = 0; settings->table && i < c->L * LORA_TARGETS_MOST; i++)
        if (settings->table[i].rank > largest) largest = settings->table[i].rank;
    lora->rank = (largest + RANK_ROUND - 1) / RANK_ROUND * RANK_ROUND;
    lora_check_names(settings, family, "--lora");
    model_layout(&model, c, NULL);
    for (int s = 0; s < N_SITES; s++) {
        const FamilyTensor* sources[LORA_MODULES];
        LoraSite* site = &lora->sites[s];
        site->n = site_sources(lora, family, (Site)s, sources);
        for (int m = 0; m < site->n; m++) {
            int64_t first, rows;
            model_part_rows(&model, sources[m]->kind, sources[m]->part, &first, &rows);
            site->index[m] = lora_index(family, sources[m]);
            site->first[m] = (int)first;
            site->rows[m] = (int)rows;
        }
        site->width = site->n * lora->rank;
        site->tail = (site->width * n_sets + LORA_ROUND - 1) / LORA_ROUND * LORA_ROUND;
    }
    lay_out(lora, &model);
    model_layout_free(&model);
}

void lora_close(Lora* lora) {
    model_layout_free(&lora->layout);
    memset(lora, 0, sizeof *lora);
}

// ---------------------------------------------------------------------------------------------------
// a pass

static const ModelTensor* adapter_tensor(const Lora* lora, Site site, int m, bool b, int layer) {
    return &lora->layout.tensors[tensor_index(&lora->layout, lora_kind(site, m, b), layer)];
}

void lora_publish(const Lora* lora, ParameterSet* base, cudaStream_t stream) {
    NVTX_RANGE("lora_publish");
    const size_t X = sizeof(floatX), r = lora->rank;
    for (int l = 0; l < lora->layout.config.L; l++)
        for (int s = 0; s < N_SITES; s++) {
            const LoraSite* site = &lora->sites[s];
            if (!site->n) continue;
            const ModelTensor* w = &base->layout->tensors[tensor_index(base->layout, site_weight((Site)s), l)];
            for (int a = 0; a < lora->n_sets; a++)
                for (int m = 0; m < site->n; m++) {
                    const int64_t ld = weight_tail_ld(w);
                    floatX* to = weight_tail(base, w) + site->first[m] * ld + a * site->width + m * lora->rank;
                    const floatX* from = lora->sets[a]->weights + adapter_tensor(lora, (Site)s, m, true, l)->offset;
                    cudaCheck(cudaMemcpy2DAsync(to, (size_t)ld * X, from, r * X, r * X, (size_t)site->rows[m],
                                                cudaMemcpyDeviceToDevice, stream));
                }
        }
}

static AdapterScales scales_of(const Lora* lora, const LoraSite* s, int layer) {
    AdapterScales scales = {{0.0f}, lora->rank};
    for (int m = 0; m < s->n; m++) scales.of[m] = lora_module(&lora->settings, layer, s->index[m]).scale;
    return scales;
}

// The rows of a set.
static void set_rows(int a, int T, int split, int* from, int* n) {
    *from = a == 0 ? 0 : split;
    *n = a == 0 ? split : T - split;
}

void lora_forward(const Lora* lora, LoraRows r, floatX* x, cudaStream_t stream) {
    const Site site = r.site;
    const int layer = r.layer, C = r.C, T = r.T, split = r.split;
    const LoraSite* s = &lora->sites[site];
    const int ld = C + s->tail;
    if (!s->n) return;
    for (int a = 0; a < lora->n_sets; a++) {
        int from, n;
        set_rows(a, T, split, &from, &n);
        floatX* rows = x + (size_t)from * ld;
        matmul_forward(rows + C + a * s->width, NULL, rows,
                       lora->sets[a]->weights + adapter_tensor(lora, site, 0, false, layer)->offset, NULL,
                       {.T = n, .C = C, .OC = s->width, .ldo = ld, .ldi = ld, .ldw = C}, stream);
    }
    adapter_tail(x + C, T, split, s->width, s->tail, ld, scales_of(lora, s, layer), stream);
}

void lora_backward_tail(const Lora* lora, LoraRows r, floatX* dx, cudaStream_t stream) {
    const LoraSite* s = &lora->sites[r.site];
    if (s->n)
        adapter_tail(dx + r.C, r.T, r.split, s->width, s->tail, r.C + s->tail, scales_of(lora, s, r.layer), stream);
}

void lora_backward_weight(const Lora* lora, LoraRows r, const floatX* dx, const floatX* dy, int lddy, const floatX* x,
                          cudaStream_t stream) {
    const LoraSite* s = &lora->sites[r.site];
    const int C = r.C, ld = C + s->tail;
    if (!s->n) return;
    for (int a = 0; a < lora->n_sets; a++) {
        int from, n;
        set_rows(a, r.T, r.split, &from, &n);
        float* grads = lora->sets[a]->grads;
        const size_t at = (size_t)from * ld;
        for (int m = 0; m < s->n; m++)
            matmul_backward_weight(grads + adapter_tensor(lora, r.site, m, true, r.layer)->offset,
                                   dy + (size_t)from * lddy + s->first[m], x + at + C + a * s->width + m * lora->rank,
                                   n, lora->rank, s->rows[m], ld, lddy, stream);
        matmul_backward_weight(grads + adapter_tensor(lora, r.site, 0, false, r.layer)->offset,
                               dx + at + C + a * s->width, x + at, n, C, s->width, ld, ld, stream);
    }
}

void lora_backward_input(const Lora* lora, LoraRows r, floatX* dx, cudaStream_t stream) {
    const LoraSite* s = &lora->sites[r.site];
    const int C = r.C, ld = C + s->tail;
    if (!s->n) return;
    for (int a = 0; a < lora->n_sets; a++) {
        int from, n;
        set_rows(a, r.T, r.split, &from, &n);
        const size_t at = (size_t)from * ld;
        matmul_backward_input(dx + at, dx + at + C + a * s->width,
                              lora->sets[a]->weights + adapter_tensor(lora, r.site, 0, false, r.layer)->offset, NULL,
                              {.T = n, .C = C, .OC = s->width, .ldo = ld, .ldi = ld, .ldw = C}, true, stream);
    }
}
