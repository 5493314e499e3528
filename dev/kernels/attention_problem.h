/*
What attention's ladder is run on: one problem, with its buffers on the device, and its solution in double.
*/
#ifndef ATTENTION_PROBLEM_H
#define ATTENTION_PROBLEM_H

#include <string.h>
#include "harness.h"
#include "kernels.h"

#ifdef PRECISION_BF16
#define STEEPNESS 0.5f  // 2^200 over 300 tokens
#else
#define STEEPNESS 0.05f  // a score of 150 would have no five digits left for its exponential
#endif

// ---------------------------------------------------------------------------------------------------
// one problem: a pack with its buffers on the device. Rows are longer than their contents; the tails hold NaN,
// in inputs (reading them would show in the result) and in outputs (writing them would show in the tail).

typedef struct {
    int n_seq, n_tiles, n_even, T, NH, NKV, HS, ldq, ldo, lddq;
    float scale;
    int window;         // 0: none
    float cap;          // of scores; 0: none
    int rotary;         // elements of a head that backward turns back; 0: none
    int* cu_seqlens;    // host
    float *qkv, *dout;  // host (T, width), rounded to floatX
    floatX *d_qkv, *d_datty, *d_atty, *d_dqkv;
    float *d_lse, *d_delta;
    int *d_cu_seqlens, *d_tiles, *d_row_sample;
    float *cos_sin, *d_cos_sin;  // (T, rotary/2, 2), of rotary positions
    int* d_positions;            // (T), a row of the table each, none its own token's
} Problem;

static int qkv_width(const Problem* p) { return (p->NH + 2 * p->NKV) * p->HS; }
static int out_width(const Problem* p) { return p->NH * p->HS; }

static void* device_copy(const void* host, size_t bytes) {
    void* device;
    cudaCheck(cudaMalloc(&device, bytes));
    cudaCheck(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
    return device;
}

// (rows, width; ld) on the device from (rows, width), or all NaN where host is NULL
static floatX* upload_rows(const float* host, int rows, int width, int ld) {
    size_t n = (size_t)rows * ld;
    floatX* padded = (floatX*)malloc(n * sizeof(floatX));
    for (size_t i = 0; i < n; i++) {
        size_t column = i % ld;
        padded[i] = from_float<floatX>(host && column < (size_t)width ? host[i / ld * width + column] : NAN);
    }
    floatX* device = (floatX*)device_copy(padded, n * sizeof(floatX));
    free(padded);
    return device;
}

// (rows, width) from the device; *tails_kept becomes false where a tail holds a number
static float* download_rows(const floatX* device, int rows, int width, int ld, bool* tails_kept) {
    size_t n = (size_t)rows * ld;
    floatX* padded = (floatX*)malloc(n * sizeof(floatX));
    float* host = (float*)malloc(sizeof(float) * rows * width);
    cudaCheck(cudaMemcpy(padded, device, n * sizeof(floatX), cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < n; i++) {
        float x = to_float(padded[i]);
        if (i % ld < (size_t)width) host[i / ld * width + i % ld] = x;
        else if (!isnan(x)) *tails_kept = false;
    }
    free(padded);
    return host;
}

static void poison_outputs(Problem* p) {
    floatX* atty = upload_rows(NULL, p->T, 0, p->ldo);
    floatX* dqkv = upload_rows(NULL, p->T, 0, p->lddq);
    cudaCheck(cudaMemcpy(p->d_atty, atty, sizeof(floatX) * p->T * p->ldo, cudaMemcpyDeviceToDevice));
    cudaCheck(cudaMemcpy(p->d_dqkv, dqkv, sizeof(floatX) * p->T * p->lddq, cudaMemcpyDeviceToDevice));
    cudaCheck(cudaFree(atty));
    cudaCheck(cudaFree(dqkv));
    cudaCheck(cudaMemset(p->d_lse, 0xff, sizeof(float) * p->NH * p->T));  // all bits set is a NaN too
    cudaCheck(cudaMemset(p->d_delta, 0xff, sizeof(float) * p->NH * p->T));
}

static Problem problem_create(const int* lengths, int n_seq, int NH, int NKV, int HS, bool steep) {
    Problem p;
    p.n_seq = n_seq, p.NH = NH, p.NKV = NKV, p.HS = HS, p.scale = 1.0f / sqrtf((float)HS);
    p.window = 0, p.cap = 0.0f, p.rotary = 0;
    p.cos_sin = p.d_cos_sin = NULL, p.d_positions = NULL;
    p.cu_seqlens = (int*)calloc(n_seq + 1, sizeof(int));
    for (int s = 0; s < n_seq; s++) p.cu_seqlens[s + 1] = p.cu_seqlens[s] + lengths[s];
    p.T = p.cu_seqlens[n_seq];
    p.ldq = qkv_width(&p) + 8, p.ldo = out_width(&p) + 16, p.lddq = qkv_width(&p) + 24;
    p.qkv = (float*)malloc(sizeof(float) * p.T * qkv_width(&p));
    p.dout = (float*)malloc(sizeof(float) * p.T * out_width(&p));
    for (int i = 0; i < p.T * qkv_width(&p); i++) {
        float x = harness_random();
        int row = i / qkv_width(&p), column = i % qkv_width(&p);
        if (steep && column < (NH + NKV) * HS && column % HS == 0)
            x = column < NH * HS ? sqrtf((float)HS) : STEEPNESS * row;
        p.qkv[i] = to_float(from_float<floatX>(x));
    }
    for (int i = 0; i < p.T * out_width(&p); i++) p.dout[i] = to_float(from_float<floatX>(harness_random()));
    p.d_qkv = upload_rows(p.qkv, p.T, qkv_width(&p), p.ldq);
    p.d_datty = upload_rows(p.dout, p.T, out_width(&p), p.ldo);
    p.d_atty = upload_rows(NULL, p.T, 0, p.ldo);
    p.d_dqkv = upload_rows(NULL, p.T, 0, p.lddq);
    cudaCheck(cudaMalloc((void**)&p.d_lse, sizeof(float) * NH * p.T));
    cudaCheck(cudaMalloc((void**)&p.d_delta, sizeof(float) * NH * p.T));
    p.n_tiles = attention_tiles(NULL, &p.n_even, p.cu_seqlens, n_seq);
    int* tiles = (int*)malloc(sizeof(int) * 2 * p.n_tiles);
    int* row_sample = (int*)malloc(sizeof(int) * p.T);
    attention_tiles(tiles, &p.n_even, p.cu_seqlens, n_seq);
    for (int s = 0; s < n_seq; s++)
        for (int t = p.cu_seqlens[s]; t < p.cu_seqlens[s + 1]; t++) row_sample[t] = s;
    p.d_cu_seqlens = (int*)device_copy(p.cu_seqlens, sizeof(int) * (n_seq + 1));
    p.d_tiles = (int*)device_copy(tiles, sizeof(int) * 2 * p.n_tiles);
    p.d_row_sample = (int*)device_copy(row_sample, sizeof(int) * p.T);
    free(tiles);
    free(row_sample);
    return p;
}

static void problem_free(Problem* p) {
    void* device[] = {p->d_qkv,   p->d_datty,      p->d_atty,  p->d_dqkv,      p->d_lse,
                      p->d_delta, p->d_cu_seqlens, p->d_tiles, p->d_row_sample};
    for (size_t i = 0; i < sizeof(device) / sizeof(device[0]); i++) cudaCheck(cudaFree(device[i]));
    if (p->rotary) {
        cudaCheck(cudaFree(p->d_cos_sin));
        cudaCheck(cudaFree(p->d_positions));
        free(p->cos_sin);
    }
    free(p->cu_seqlens);
    free(p->qkv);
    free(p->dout);
}

// Rotary positions: token t has row T − 1 − t of a table of random angles.
static void problem_turn(Problem* p, int rotary) {
    int n = p->T * rotary;
    int* positions = (int*)malloc(sizeof(int) * p->T);
    p->rotary = rotary;
    p->cos_sin = (float*)malloc(sizeof(float) * n);
    for (int i = 0; i < n; i += 2) {
        float angle = 3.0f * harness_random();
        p->cos_sin[i] = cosf(angle), p->cos_sin[i + 1] = sinf(angle);
    }
    for (int t = 0; t < p->T; t++) positions[t] = p->T - 1 - t;
    p->d_cos_sin = (float*)device_copy(p->cos_sin, sizeof(float) * n);
    p->d_positions = (int*)device_copy(positions, sizeof(int) * p->T);
    free(positions);
}

// ---------------------------------------------------------------------------------------------------
// reference: the definition, in double, a sample and a head at a time

typedef struct {
    double *atty, *lse, *dqkv;
} Reference;

static double dot(const float* a, const float* b, int n) {
    double sum = 0.0;
    for (int d = 0; d < n; d++) sum += (double)a[d] * b[d];
    return sum;
}

static void reference_row(const Problem* p, Reference* r, int start, int t, int head, double* prob) {
    int HS = p->HS, W = qkv_width(p), OW = out_width(p), kv_head = head / (p->NH / p->NKV);
    const float* q = p->qkv + (size_t)t * W + head * HS;
    const float* dout = p->dout + (size_t)t * OW + head * HS;
    double* out = r->atty + (size_t)t * OW + head * HS;
    size_t k_at = (size_t)(p->NH + kv_head) * HS, v_at = k_at + p->NKV * HS;
    double highest = -INFINITY, sum = 0.0, delta = 0.0, *slope = prob + p->T;  // slope: of the cap
    if (p->window && t - p->window + 1 > start) start = t - p->window + 1;
    for (int j = start; j <= t; j++) {
        prob[j - start] = p->scale * dot(q, p->qkv + (size_t)j * W + k_at, HS);
        slope[j - start] = 1.0;
        if (p->cap) {
            double bent = tanh(prob[j - start] / p->cap);
            prob[j - start] = p->cap * bent;
            slope[j - start] = 1.0 - bent * bent;
        }
        highest = fmax(highest, prob[j - start]);
    }
    for (int j = start; j <= t; j++) sum += prob[j - start] = exp(prob[j - start] - highest);
    r->lse[(size_t)head * p->T + t] = highest + log(sum);
    for (int j = start; j <= t; j++) {
        prob[j - start] /= sum;
        for (int d = 0; d < HS; d++) out[d] += prob[j - start] * p->qkv[(size_t)j * W + v_at + d];
    }
    for (int d = 0; d < HS; d++) delta += out[d] * dout[d];
    for (int j = start; j <= t; j++) {
        const float* row = p->qkv + (size_t)j * W;
        double* drow = r->dqkv + (size_t)j * W;
        double ds = p->scale * slope[j - start] * prob[j - start] * (dot(dout, row + v_at, HS) - delta);
        for (int d = 0; d < HS; d++) {
            r->dqkv[(size_t)t * W + head * HS + d] += ds * row[k_at + d];
            drow[k_at + d] += ds * q[d];
            drow[v_at + d] += prob[j - start] * dout[d];
        }
    }
}

static Reference reference_create(const Problem* p) {
    Reference r;
    r.atty = (double*)calloc((size_t)p->T * out_width(p), sizeof(double));
    r.lse = (double*)calloc((size_t)p->T * p->NH, sizeof(double));
    r.dqkv = (double*)calloc((size_t)p->T * qkv_width(p), sizeof(double));
    double* prob = (double*)malloc(sizeof(double) * (2 * p->T + 1));
    for (int s = 0; s < p->n_seq; s++)
        for (int t = p->cu_seqlens[s]; t < p->cu_seqlens[s + 1]; t++)
            for (int head = 0; head < p->NH; head++) reference_row(p, &r, p->cu_seqlens[s], t, head, prob);
    free(prob);
    for (int t = 0; t < p->T; t++)  // the gradient before the turn
        for (int i = 0; i < (p->NH + p->NKV) * p->rotary / 2; i++) {
            int head = i / (p->rotary / 2), k = i % (p->rotary / 2);
            const float* turn = p->cos_sin + ((size_t)(p->T - 1 - t) * (p->rotary / 2) + k) * 2;
            double *x = r.dqkv + (size_t)t * qkv_width(p) + head * p->HS + k, *y = x + p->rotary / 2, a = *x, b = *y;
            *x = a * turn[0] + b * turn[1];
            *y = b * turn[0] - a * turn[1];
        }
    return r;
}

static void reference_free(Reference* r) {
    free(r->atty);
    free(r->lse);
    free(r->dqkv);
}

#endif
