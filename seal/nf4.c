/* NormalFloat by blocks, its scales quantised again. See nf4.h. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/parallel.h"
#include "base/text.h"
#include "nf4.h"

// ---------------------------------------------------------------------------------------------------
// tables

// Quantiles of a normal distribution, scaled to [−1, 1], with a 0 (QLoRA, appendix E).
static const float codes[NF4_CODES] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

static int ascending(const void* a, const void* b) {
    const float x = *(const float*)a, y = *(const float*)b;
    return x < y ? -1 : x > y;
}

// Point j of n + 1 between 0.1 and 1, counted from the nearer end, as torch.linspace does.
static float point(int j, int n) {
    const float step = (1.0f - 0.1f) / (float)n;
    return j < (n + 1) / 2 ? fmaf(step, (float)j, 0.1f) : fmaf(-step, (float)(n - j), 1.0f);
}

// The dynamic 8-bit type (Dettmers 2015): seven powers of ten, the highest with 64 fractions and each lower one with
// half as many, of either sign; 0 and 1.
static void dynamic_map(float* map) {
    static const float powers[] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
    int at = 0;
    for (int e = 0; e < 7; e++)
        for (int j = 0, n = 1 << e; j < n; j++) {
            const float value = powers[e] * ((point(j, n) + point(j + 1, n)) / 2.0f);
            map[at++] = value;
            map[at++] = -value;
        }
    map[at++] = 0.0f;
    map[at++] = 1.0f;
    qsort(map, NF4_MAP, sizeof *map, ascending);
}

void nf4_tables(float* tables) {
    dynamic_map(tables);
    memcpy(tables + NF4_MAP, codes, sizeof codes);
}

// ---------------------------------------------------------------------------------------------------
// weights

typedef struct {
    const float* w;
    int64_t n_blocks;
    float bounds[NF4_CODES - 1];  // halfway between neighbouring codes
    uint8_t* codes;
    float* scales;  // (n_blocks) =
    atomic_llong next;
} Blocks;

#define CHUNK 4096  // blocks that a thread takes at a time

static void quantise_block(const Blocks* x, int64_t block) {
    const float* w = x->w + block * NF4_BLOCK;
    int32_t code[NF4_BLOCK];
    float scale = 0.0f;
    for (int i = 0; i < NF4_BLOCK; i++) scale = fabsf(w[i]) > scale ? fabsf(w[i]) : scale;
    const float share = 1.0f / fmaxf(scale, 1e-38f);  // of a block of zeros: they are code 7
    for (int i = 0; i < NF4_BLOCK; i++) {
        const float shared = w[i] * share, value = shared < -1.0f ? -1.0f : shared > 1.0f ? 1.0f : shared;
        int32_t above = 0;  // on a bound is below it
        for (int b = 0; b < NF4_CODES - 1; b++) above += x->bounds[b] < value;
        code[i] = above;
    }
    for (int i = 0; i < NF4_BLOCK / 2; i++)
        x->codes[block * (NF4_BLOCK / 2) + i] = (uint8_t)(code[2 * i] << 4 | code[2 * i + 1]);
    x->scales[block] = scale;
}

static void quantise_chunks(void* context) {
    Blocks* x = (Blocks*)context;
    for (int64_t from; (from = atomic_fetch_add(&x->next, CHUNK)) < x->n_blocks;)
        for (int64_t block = from; block < from + CHUNK && block < x->n_blocks; block++) quantise_block(x, block);
}

// ---------------------------------------------------------------------------------------------------
// scales

// PyTorch adds up in columns, LANES numbers of a vector times four vectors that do not wait for each other, and these
// in four levels: after every 2^power rows a level is added to the one above and starts again.
#define LANES 8
#define LEVELS 4
#define MOST_COLUMNS (4 * LANES)

static int log2_up(int64_t n) {
    int power = 0;
    while (((int64_t)1 << power) < n) power++;
    return power;
}

// sums (columns) = those of x (rows, columns).
static void column_sums(const float* x, int64_t rows, int columns, float* sums) {
    float level[LEVELS][MOST_COLUMNS] = {{0.0f}};
    const int power = log2_up(rows) / LEVELS > 4 ? log2_up(rows) / LEVELS : 4;
    const int64_t step = (int64_t)1 << power, mask = step - 1;
    int64_t row = 0;
    while (row + step <= rows) {
        for (const int64_t end = row + step; row < end; row++)
            for (int c = 0; c < columns; c++) level[0][c] += x[row * columns + c];
        for (int l = 1; l < LEVELS; l++) {
            for (int c = 0; c < columns; c++) {
                level[l][c] += level[l - 1][c];
                level[l - 1][c] = 0.0f;
            }
            if (row & mask << (l * power)) break;
        }
    }
    for (; row < rows; row++)
        for (int c = 0; c < columns; c++) level[0][c] += x[row * columns + c];
    for (int l = 1; l < LEVELS; l++)
        for (int c = 0; c < columns; c++) level[0][c] += level[l][c];
    memcpy(sums, level[0], (size_t)columns * sizeof *sums);
}

// torch.mean of n numbers on one thread. Fewer than a vector are added up one by one, in four columns as well.
static float mean_of(const float* x, int64_t n) {
    float sums[MOST_COLUMNS], total = 0.0f;
    const int lanes = n < LANES ? 1 : LANES, columns = 4 * lanes;
    const int64_t vectors = n / lanes, rows = vectors / 4;
    column_sums(x, rows, columns, sums);
    for (int64_t v = 4 * rows; v < vectors; v++)
        for (int c = 0; c < lanes; c++) sums[c] += x[v * lanes + c];
    for (int k = 1; k < 4; k++)
        for (int c = 0; c < lanes; c++) sums[c] += sums[k * lanes + c];
    for (int64_t i = vectors * lanes; i < n; i++) total += x[i];
    for (int c = 0; c < lanes; c++) total += sums[c];
    return total / (float)n;
}

// bitsandbytes finds the nearest value of the map on a grid of 65,536 points, so that next to 0, where the map is finer
// than the grid, it is not the nearest.
#define GRID 65536
static void nearest_on_grid(const float* map, uint8_t* nearest) {
    int q = 0;
    for (int i = 0; i < GRID; i++) {
        const float value = -1.0f + 2.0f * (float)i / (float)(GRID - 1);
        while (q < NF4_MAP - 1 && 0.5f * (map[q] + map[q + 1]) < value) q++;
        nearest[i] = (uint8_t)q;
    }
}

// The scales of a group, less their mean.
static void quantise_group(const float* scales, int n, float mean, const uint8_t* nearest, uint8_t* out, float* top) {
    float rest[NF4_GROUP];
    *top = 0.0f;
    for (int i = 0; i < n; i++) {
        rest[i] = scales[i] - mean;
        *top = fmaxf(*top, fabsf(rest[i]));
    }
    const float share = *top > 0.0f ? 1.0f / *top : 0.0f;
    for (int i = 0; i < n; i++) {
        const float value = fminf(fmaxf(rest[i] * share, -1.0f), 1.0f);
        out[i] = *top > 0.0f ? nearest[(int)fmaf((value + 1.0f) * 0.5f, (float)(GRID - 1), 0.5f)] : 0;
    }
}

void nf4_quantise(const float* w, int64_t n, uint8_t* piece) {
    const int64_t n_blocks = n / NF4_BLOCK;
    if (n % NF4_BLOCK) program_error("a matrix of %lld weights is not whole blocks of %d", (long long)n, NF4_BLOCK);
    float map[NF4_MAP], *tops = (float*)(piece + nf4_tops_at(n));
    Blocks x = {.w = w,
                .n_blocks = n_blocks,
                .codes = piece + nf4_codes_at(),
                .scales = host_alloc((size_t)n_blocks * sizeof(float), "the scales of a matrix")};
    memset(piece, 0, nf4_bytes(n));
    for (int b = 0; b < NF4_CODES - 1; b++) x.bounds[b] = (codes[b] + codes[b + 1]) / 2.0f;
    const int64_t chunks = (n_blocks + CHUNK - 1) / CHUNK;
    parallel_run(chunks < parallel_cores() ? (int)chunks : parallel_cores(), quantise_chunks, &x);
    const float mean = mean_of(x.scales, n_blocks);
    memcpy(piece, &mean, sizeof mean);
    uint8_t* nearest = host_alloc(GRID, "the grid of scales");
    dynamic_map(map);
    nearest_on_grid(map, nearest);
    for (int64_t g = 0; g * NF4_GROUP < n_blocks; g++) {
        const int64_t at = g * NF4_GROUP, left = n_blocks - at;
        quantise_group(x.scales + at, left < NF4_GROUP ? (int)left : NF4_GROUP, mean, nearest,
                       piece + nf4_scales_at(n) + at, &tops[g]);
    }
    free(nearest);
    free(x.scales);
}
