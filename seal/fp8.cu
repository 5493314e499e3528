/* Linear layers in e4m3. See fp8.h. */
#include <string.h>
#include "base/error.h"
#include "base/parallel.h"
#include "e4m3.h"
#include "fp8.h"
#include "packed.h"

// ---------------------------------------------------------------------------------------------------
// weights, on the host

#define TILE 64  // rows that a thread takes at a time; Wᵀ is written in tiles, so that both sides stay in a cache

typedef struct {
    const float* w;
    int64_t rows, cols, next;
    float scale;
    uint32_t most;  // bits of the largest absolute value, which order as it does
    uint8_t *values, *transposed;
} Packing;

static bool next_rows(Packing* x, int64_t* from, int64_t* to) {
    *from = __atomic_fetch_add(&x->next, TILE, __ATOMIC_RELAXED);
    *to = *from + TILE < x->rows ? *from + TILE : x->rows;
    return *from < x->rows;
}

static void find_most(void* context) {
    Packing* x = (Packing*)context;
    float most = 0.0f;
    for (int64_t from, to; next_rows(x, &from, &to);)
        for (int64_t i = from * x->cols; i < to * x->cols; i++) most = fmaxf(most, fabsf(x->w[i]));
    uint32_t bits, before = __atomic_load_n(&x->most, __ATOMIC_RELAXED);
    memcpy(&bits, &most, sizeof bits);
    while (bits > before &&
           !__atomic_compare_exchange_n(&x->most, &before, bits, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
}

static void round_rows(void* context) {
    Packing* x = (Packing*)context;
    for (int64_t from, to; next_rows(x, &from, &to);) {
        for (int64_t i = from * x->cols; i < to * x->cols; i++)
            x->values[i] = __nv_cvt_float_to_fp8(x->w[i] * x->scale, __NV_SATFINITE, __NV_E4M3);
        for (int64_t c = 0; c < x->cols && x->transposed; c++)
            for (int64_t r = from; r < to; r++) x->transposed[c * x->rows + r] = x->values[r * x->cols + c];
    }
}

void fp8_pack(const float* w, int64_t rows, int64_t cols, bool backward, uint8_t* piece) {
    const int64_t n = rows * cols, tiles = CEIL_DIV(rows, (int64_t)TILE);
    const int threads = tiles < parallel_cores() ? (int)tiles : parallel_cores();
    Packing x = {};
    float most, inverse;
    x.w = w;
    x.rows = rows;
    x.cols = cols;
    x.scale = 1.0f;
    x.values = piece + fp8_values_at();
    x.transposed = backward ? x.values + n : NULL;
    parallel_run(threads, find_most, &x);
    memcpy(&most, &x.most, sizeof most);
    x.scale = fp8_scale(most, &inverse);
    x.next = 0;
    parallel_run(threads, round_rows, &x);
    memset(piece, 0, fp8_values_at());
    memcpy(piece, &inverse, sizeof inverse);
}

// The number that a byte stands for. cuda_fp8.h has it by way of fp16 only.
static float e4m3_to_float(uint8_t byte) {
    const int exponent = byte >> 3 & 15, mantissa = byte & 7;
    const float x = exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9);
    return byte & 0x80 ? -x : x;
}

void fp8_unpack(const uint8_t* piece, int64_t n, float* w) {
    float scale;
    memcpy(&scale, piece, sizeof scale);
    for (int64_t i = 0; i < n; i++) w[i] = e4m3_to_float(piece[fp8_values_at() + i]) * scale;
}

// ---------------------------------------------------------------------------------------------------
// products

static const ModelTensor* tensor_of(const Fp8Linear& x) {
    return &x.set->layout->tensors[tensor_index(x.set->layout, x.kind, x.layer)];
}
// Whether the file's tensor i is a block of the layer's rows.
static bool belongs(const Fp8Linear& x, const FileTensor* f) {
    return f->tensor == tensor_index(x.set->layout, x.kind, x.layer);
}

// The scales of rows are taken off what is there already, joined by the product, and put on again: exact, as they are
// powers of two.
void fp8_forward(const Fp8Linear& x, floatX* out, int ldo, const floatX* inp, const floatX* bias, bool add,
                 cudaStream_t stream) {
    const ModelLayout* layout = x.set->layout;
    const ModelTensor* t = tensor_of(x);
    const int T = x.T, C = (int)t->cols, OC = (int)t->rows, ld = (int)t->ld, R = ld - C;
    fp8_quantise(x.values, x.scales, inp, T, C, ld, stream);
    if (add) fp8_divide_rows(out, x.scales, T, OC, ldo, stream);
    for (int i = 0; i < layout->n_files; i++) {
        const FileTensor* f = &layout->files[i];
        const uint8_t* piece = x.set->packed + f->piece;
        if (belongs(x, f))
            matmul_fp8(out + f->first, x.values, piece + fp8_values_at(), (const float*)piece,
                       {.T = T, .C = C, .OC = (int)f->rows, .ldo = ldo, .ldi = C, .ldw = C}, add, stream);
    }
    fp8_scale_rows(out, x.scales, bias, T, OC, ldo, stream);
    if (R)
        matmul_forward_add(out, inp + C, weight_tail(x.set, t), NULL,
                           {.T = T, .C = R, .OC = OC, .ldo = ldo, .ldi = ld, .ldw = R}, stream);
}

void fp8_backward(const Fp8Linear& x, floatX* dinp, const floatX* dout, int ldd, bool tail_only, cudaStream_t stream) {
    const ModelLayout* layout = x.set->layout;
    const ModelTensor* t = tensor_of(x);
    const int T = x.T, C = (int)t->cols, OC = (int)t->rows, ld = (int)t->ld, R = ld - C;
    bool begun = false;
    if (!tail_only) fp8_quantise(x.values, x.scales, dout, T, OC, ldd, stream);
    for (int i = 0; i < layout->n_files && !tail_only; i++) {
        const FileTensor* f = &layout->files[i];
        const uint8_t* piece = x.set->packed + f->piece;
        if (!belongs(x, f)) continue;
        matmul_fp8(dinp, x.values + f->first, piece + fp8_values_at() + f->rows * f->cols, (const float*)piece,
                   {.T = T, .C = (int)f->rows, .OC = C, .ldo = ld, .ldi = OC, .ldw = (int)f->rows}, begun, stream);
        begun = true;
    }
    if (!tail_only) fp8_scale_rows(dinp, x.scales, NULL, T, C, ld, stream);
    if (R)
        matmul_backward_input(dinp + C, dout, weight_tail(x.set, t), NULL,
                              {.T = T, .C = R, .OC = OC, .ldo = ldd, .ldi = ld, .ldw = R}, false, stream);
}
