/* Products and norms of single samples' gradients, site by site. See sample_gradients.h. */
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "kernels.h"
#include "sample_gradients.h"

static void add_range(SampleSite* site, int first, int rows) {
    for (int i = 0; i < site->n_ranges; i++)
        if (site->ranges[i].first + site->ranges[i].rows == first) {
            site->ranges[i].rows += rows;
            return;
        }
    site->ranges[site->n_ranges].first = first;
    site->ranges[site->n_ranges++].rows = rows;
}

// The named matrices, by site. The family's table has a fused weight's parts in the order of their rows.
static void choose(SampleGradients* g, const char* names) {
    const Family* family = family_find(g->layout->config.family);
    LoraSettings named = {};
    if (strlen(names) >= sizeof named.modules)
        fatal("--matrices is %.80s; expected some of q,k,v,o,gate,up,down, or all", names);
    snprintf(named.modules, sizeof named.modules, "%s", names);
    lora_check_names(&named, family, "--matrices");
    int counted = 0;
    for (const FamilyTensor* t = family->tensors; t->hf_name; t++) {
        if (!lora_adapts(&named, t)) continue;
        int s = 0;
        while (site_weight((Site)s) != t->kind) s++;
        if (g->lora) {
            for (int m = 0; m < g->lora->sites[s].n; m++)
                if (g->lora->sites[s].index[m] == lora_index(family, t)) {
                    g->sites[s].modules[m] = true;
                    counted++;
                }
            continue;
        }
        int64_t first, rows;
        model_part_rows(g->layout, t->kind, t->part, &first, &rows);
        add_range(&g->sites[s], (int)first, (int)rows);
        counted++;
    }
    if (!counted)
        fatal("--matrices %s: the adapter has none of these modules; it has %s", names, g->lora->settings.modules);
}

static size_t most(size_t a, size_t b) { return a > b ? a : b; }
static size_t least(size_t a, size_t b) { return a < b ? a : b; }

static const ModelTensor* adapter_matrix(const SampleGradients* g, Site site, int m, bool b, int layer) {
    return &g->lora->layout.tensors[tensor_index(&g->lora->layout, lora_kind(site, m, b), layer)];
}

void sample_gradients_plan(SampleGradients* g, const ModelLayout* layout, const Lora* lora, const char* names,
                           bool products, bool norms, int T, int batch_max, MemoryPlan* plan) {
    memset(g, 0, sizeof *g);
    g->layout = layout;
    g->lora = lora;
    g->norms = norms;
    g->batch_max = batch_max;
    choose(g, names);
    T = (T + PACK_ROUND - 1) / PACK_ROUND * PACK_ROUND;
    size_t widest = lora ? lora->rank : 0, largest = 0;
    for (int s = 0; s < N_SITES; s++) {
        const ModelTensor* w = &layout->tensors[tensor_index(layout, site_weight((Site)s), 0)];
        const size_t cols = (size_t)w->cols;
        for (int i = 0; i < g->sites[s].n_ranges; i++) {
            const size_t rows = (size_t)g->sites[s].ranges[i].rows;
            widest = most(widest, least(rows, cols));  // a product takes the thinner side of its matrix
            largest = most(largest, rows * cols);
        }
        for (int m = 0; lora && m < lora->sites[s].n; m++)
            if (g->sites[s].modules[m])
                largest = most(largest, (size_t)lora->rank * most(cols, (size_t)lora->sites[s].rows[m]));
    }
    size_t batch = (size_t)batch_max * sizeof(float);
    bool narrow = products && sizeof(floatX) != sizeof(float);
    memory_add(plan, MEMORY_SCRATCH, &g->product, products ? batch : 0, "products of gradients");
    memory_add(plan, MEMORY_SCRATCH, &g->square, norms ? batch : 0, "squared norms of gradients");
    memory_add(plan, MEMORY_SCRATCH, &g->wide, products ? T * widest * sizeof(floatX) : 0, "rows times G");
    memory_add(plan, MEMORY_SCRATCH, &g->matrix, narrow ? largest * sizeof(floatX) : 0, "a matrix of G");
    // tiles: the samples' tokens in tiles, each sample's last one and each piece of padding broken off
    memory_add(plan, MEMORY_SCRATCH, &g->partial, ((size_t)T / ATTENTION_TILE + T + batch_max + 1) * sizeof(float),
               "sums of tiles");
}

void sample_gradients_zero(const SampleGradients* g, cudaStream_t stream) {
    size_t bytes = (size_t)g->batch_max * sizeof(float);
    if (g->product) cudaCheck(cudaMemsetAsync(g->product, 0, bytes, stream));
    if (g->square) cudaCheck(cudaMemsetAsync(g->square, 0, bytes, stream));
}

// ---------------------------------------------------------------------------------------------------
// the direction

static double squares_of(const ParameterSet* set, const ModelTensor* t, int64_t first, int64_t rows) {
    size_t n = (size_t)(rows * t->cols);
    float* values = (float*)host_alloc(n * sizeof(float), "the direction");
    cudaCheck(cudaMemcpy(values, set->grads + t->offset + first * t->cols, n * sizeof(float), cudaMemcpyDeviceToHost));
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) sum += (double)values[i] * values[i];
    free(values);
    return sum;
}

double sample_gradients_norm(const SampleGradients* g) {
    double sum = 0.0;
    cudaCheck(cudaDeviceSynchronize());
    for (int l = 0; l < g->layout->config.L; l++)
        for (int s = 0; s < N_SITES; s++) {
            const SampleSite* site = &g->sites[s];
            for (int i = 0; i < site->n_ranges; i++)
                sum += squares_of(g->direction, &g->layout->tensors[tensor_index(g->layout, site_weight((Site)s), l)],
                                  site->ranges[i].first, site->ranges[i].rows);
            for (int m = 0; m < LORA_MODULES; m++)
                for (int b = 0; b < 2 && site->modules[m]; b++) {
                    const ModelTensor* t = adapter_matrix(g, (Site)s, m, b, l);
                    sum += squares_of(g->direction, t, 0, t->rows);
                }
        }
    return sqrt(sum);
}

// Rows [first, first + rows) of a matrix of G as the GEMMs read it.
static const floatX* direction_rows(const SampleGradients* g, const ModelTensor* t, int64_t first, int64_t rows,
                                    cudaStream_t stream) {
    const float* from = g->direction->grads + t->offset + first * t->cols;
    if (!g->matrix) return (const floatX*)from;  // fp32: the gradient itself
    narrow_matrix(g->matrix, from, (size_t)(rows * t->cols), stream);
    return g->matrix;
}

// ---------------------------------------------------------------------------------------------------
// a matrix

// The gradient of one matrix W (OC, C), y = u Wᵀ: u (T, C; ldu), d = dy (T, OC; ldd). G (OC, C) or NULL.
static void add_matrix(const SampleGradients* g, const DevicePack* s, const floatX* u, int ldu, int C, const floatX* d,
                       int ldd, int OC, const floatX* G, cudaStream_t stream) {
    SampleTiles tiles = {s->cu_seqlens, s->tiles, s->place, s->n_tiles, s->n_samples, g->partial};
    if (G && OC <= C) {  // Σ d_t · (G u_t)
        matmul_forward(g->wide, NULL, u, G, NULL, {.T = s->T, .C = C, .OC = OC, .ldo = OC, .ldi = ldu, .ldw = C},
                       stream);
        sample_dots(g->product, g->wide, OC, d, ldd, OC, tiles, stream);
    } else if (G) {  // Σ (Gᵀ d_t) · u_t
        matmul_backward_input(g->wide, d, G, NULL, {.T = s->T, .C = C, .OC = OC, .ldo = ldd, .ldi = C, .ldw = C}, false,
                              stream);
        sample_dots(g->product, g->wide, C, u, ldu, C, tiles, stream);
    }
    if (g->norms) sample_squares(g->square, u, ldu, C, d, ldd, OC, tiles, stream);
}

static void check_pack(const DevicePack* s) {
    if (s->n_first != s->n_samples || !s->place) program_error("gradients of samples in a pack of two ranges");
}

void sample_gradients_linear(const SampleGradients* g, const DevicePack* s, Site site, int layer, const floatX* dout,
                             int ldd, const floatX* inp, int ldi, cudaStream_t stream) {
    const SampleSite* x = &g->sites[site];
    const ModelTensor* w = &g->layout->tensors[tensor_index(g->layout, site_weight(site), layer)];
    check_pack(s);
    for (int i = 0; i < x->n_ranges; i++) {
        int first = x->ranges[i].first, rows = x->ranges[i].rows;
        add_matrix(g, s, inp, ldi, (int)w->cols, dout + first, ldd, rows,
                   g->direction ? direction_rows(g, w, first, rows, stream) : NULL, stream);
    }
}

void sample_gradients_adapter(const SampleGradients* g, const DevicePack* s, Site site, int layer, const floatX* dout,
                              int ldd, const floatX* inp, const floatX* dinp, int ldi, cudaStream_t stream) {
    const LoraSite* x = &g->lora->sites[site];
    const int rank = g->lora->rank, C = ldi - x->tail;
    check_pack(s);
    for (int m = 0; m < x->n; m++) {
        if (!g->sites[site].modules[m]) continue;
        const ModelTensor *a = adapter_matrix(g, site, m, false, layer), *b = adapter_matrix(g, site, m, true, layer);
        const floatX *tail = inp + C + m * rank, *dtail = dinp + C + m * rank;  // set 0's columns come first
        add_matrix(g, s, tail, ldi, rank, dout + x->first[m], ldd, x->rows[m],
                   g->direction ? direction_rows(g, b, 0, b->rows, stream) : NULL, stream);
        add_matrix(g, s, inp, ldi, C, dtail, ldi, rank, g->direction ? direction_rows(g, a, 0, a->rows, stream) : NULL,
                   stream);
    }
}
