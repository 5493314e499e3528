/* Linear layers of a frozen model, packed. See packed.h. */
#include <string.h>
#include "base/error.h"
#include "fp8.h"
#include "nf4.h"
#include "packed.h"

static const char* const names[N_BASES] = {"bf16", "fp8", "nf4"};

const char* base_name(BasePrecision base) { return names[base]; }

BasePrecision base_find(const char* name) {
    for (int b = 0; b < N_BASES; b++)
        if (!strcmp(names[b], name)) return (BasePrecision)b;
    program_error("no base is called %s", name);
}

void base_decides(Text* decides, BasePrecision base) {
    if (base != BASE_PLAIN) text_printf(decides, "\nbase %s", base_name(base));
}

static int64_t aligned(size_t bytes) {
    return (int64_t)(bytes + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
}

static size_t piece_bytes(const ModelLayout* layout, const FileTensor* f) {
    return layout->base == BASE_FP8 ? fp8_bytes(f->rows, f->cols, layout->backward) : nf4_bytes(f->rows * f->cols);
}

int64_t packed_tables_bytes(const ModelLayout* layout) {
    return layout->base == BASE_FP8 ? 0 : aligned((NF4_MAP + NF4_CODES) * sizeof(float));
}
int64_t packed_piece_bytes(const ModelLayout* layout, const FileTensor* f) { return aligned(piece_bytes(layout, f)); }

void packed_check(const ModelLayout* layout) {
    for (int i = 0; i < layout->n_files && layout->base == BASE_FP8; i++) {
        const FileTensor* f = &layout->files[i];
        if (layout->tensors[f->tensor].packed && (f->rows % FP8_MULTIPLE || f->cols % FP8_MULTIPLE))
            fatal("--base fp8 needs linear layers whose sides are multiples of %d; %s is %lld × %lld", FP8_MULTIPLE,
                  f->hf_name, (long long)f->rows, (long long)f->cols);
    }
}

void packed_bind(ParameterSet* set) {
    float tables[NF4_MAP + NF4_CODES];
    if (set->layout->base != BASE_NF4) return;
    nf4_tables(tables);
    cudaCheck(cudaMemcpy(set->packed, tables, sizeof tables, cudaMemcpyHostToDevice));
    cudaCheck(cudaDeviceSynchronize());  // the trainer's stream does not wait for the default one
}

// rows: the file tensor's, in our order. A transposed tensor's are packed as the layer computes, (out, in).
static void set_piece(ParameterSet* set, const FileTensor* f, const float* rows) {
    const size_t bytes = piece_bytes(set->layout, f);
    uint8_t* piece = (uint8_t*)host_alloc(bytes, f->hf_name);
    float* ordered = NULL;
    if (set->layout->base == BASE_NF4 && f->form == FILE_HEADS) {
        ordered = (float*)host_alloc((size_t)(f->rows * f->cols) * sizeof(float), f->hf_name);
        file_tensor_order(set->layout, f, rows, ordered);
    }
    if (set->layout->base == BASE_FP8) fp8_pack(rows, f->rows, f->cols, set->layout->backward, piece);
    else nf4_quantise(ordered ? ordered : rows, f->rows * f->cols, piece);
    cudaCheck(cudaMemcpy(set->packed + f->piece, piece, bytes, cudaMemcpyHostToDevice));
    cudaCheck(cudaDeviceSynchronize());
    free(ordered);
    free(piece);
}

void packed_set(ParameterSet* set, int tensor, int64_t row, int64_t n, const float* host) {
    const ModelLayout* layout = set->layout;
    int64_t done = 0;
    for (int i = 0; i < layout->n_files; i++) {
        const FileTensor* f = &layout->files[i];
        if (f->tensor != tensor || f->first < row || f->first + f->rows > row + n) continue;
        set_piece(set, f, host + (f->first - row) * f->cols);
        done += f->rows;
    }
    if (done != n) program_error("%s is packed from whole tensors of the file", layout->tensors[tensor].name);
}

void packed_get(const ParameterSet* set, int tensor, int64_t row, int64_t n, float* host) {
    const ModelLayout* layout = set->layout;
    for (int i = 0; i < layout->n_files; i++) {
        const FileTensor* f = &layout->files[i];
        if (f->tensor != tensor || f->first < row || f->first + f->rows > row + n) continue;
        const size_t bytes = piece_bytes(layout, f);
        uint8_t* piece = (uint8_t*)host_alloc(bytes, f->hf_name);
        cudaCheck(cudaMemcpy(piece, set->packed + f->piece, bytes, cudaMemcpyDeviceToHost));
        fp8_unpack(piece, f->rows * f->cols, host + (f->first - row) * f->cols);
        free(piece);
    }
}

const floatX* weight_matrix(const ParameterSet* set, TensorKind kind, int layer, cudaStream_t stream) {
    const ModelLayout* layout = set->layout;
    const int index = tensor_index(layout, kind, layer);
    const ModelTensor* t = &layout->tensors[index];
    const size_t X = sizeof(floatX), tail = (size_t)(t->ld - t->cols);
    if (!t->packed) return weight(set, kind, layer);
    const float* tables = (const float*)set->packed;
    for (int i = 0; i < layout->n_files; i++) {
        const FileTensor* f = &layout->files[i];
        const int64_t n = f->rows * f->cols;
        if (f->tensor != index) continue;
        const uint8_t* piece = set->packed + f->piece;
        nf4_unpack({.out = set->unpacked + f->first * t->ld,
                    .codes = (const uint32_t*)(piece + nf4_codes_at()),
                    .scales = piece + nf4_scales_at(n),
                    .tops = (const float*)(piece + nf4_tops_at(n)),
                    .mean = (const float*)piece,
                    .map = tables,
                    .code = tables + NF4_MAP,
                    .rows = (int)f->rows,
                    .cols = (int)f->cols,
                    .ldo = (int)t->ld,
                    .heads = f->form == FILE_HEADS ? layout->config.NH : 0,
                    .head_size = layout->config.HS},
                   stream);
    }
    if (tail)
        cudaCheck(cudaMemcpy2DAsync(set->unpacked + t->cols, (size_t)t->ld * X, weight_tail(set, t), tail * X, tail * X,
                                    (size_t)t->rows, cudaMemcpyDeviceToDevice, stream));
    return set->unpacked;
}
