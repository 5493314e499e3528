/*
Layernorm, forward and backward, and its fusion with the residual before it (torch.nn.functional.layer_norm).
A row belongs to WR warps (1, 2, 4 or 8, by its width), whose lanes hold it in registers: it is read once, its mean and variance are taken in two
passes over registers, as accurate as fp32 allows, and a lane has all its loads in flight at once.
*/
// defines: layernorm_forward, fused_residual_layernorm_forward, layernorm_backward, layernorm_scratch
#include "kernels.h"
// defines: row_sum, row_warps, store_column_sums, add_column_sums, zero8, add8, sum8
#include "norm_rows.h"

#define WARPS NORM_WARPS
#define LANE_VECS 3  // float8 that a lane holds: 768 elements of a row for each warp, GPT-2's width
// Backward leaves one partial row of dweight and dbias a block. More blocks balance a GPU better, more rows a block make the partials cheaper.
#define MIN_BLOCK_ROWS 32

// ---------------------------------------------------------------------------------------------------------------------------------------
// kernels

typedef struct {
    floatX *residual, *out;  // (T, C), NULL unless fused; (T, C; ldo)
    float *mean, *rstd;      // (T)
    const floatX *inp1, *inp2, *weight, *bias;
    int T, C, ldo;
    float eps;
} ForwardArgs;

template <int WR, bool FUSED> static __global__ void __launch_bounds__(WARPS* WARP_SIZE) layernorm_forward_kernel(ForwardArgs args) {
    int warp = threadIdx.x / WARP_SIZE, row = blockIdx.x * (WARPS / WR) + warp / WR, n_vecs = args.C / VEC;
    int first = warp % WR * WARP_SIZE + threadIdx.x % WARP_SIZE;  // vectors first, first + 32 WR, … are this lane's
    if (row >= args.T) n_vecs = 0;                                // a row past the end takes part in the barriers only
    size_t at = (size_t)row * args.C;
    float8 x[LANE_VECS], sum = zero8();
    UNROLL for (int j = 0; j < LANE_VECS; j++) {
        int v = first + j * WR * WARP_SIZE;
        x[j] = zero8();
        if (v >= n_vecs) continue;
        x[j] = load8(args.inp1 + at + v * VEC);
        if (FUSED) {
            add8(x[j], load8(args.inp2 + at + v * VEC));
            // the statistics are those of the residual that backward will read, rounding included
            for (int k = 0; k < VEC; k++) x[j].v[k] = to_float(from_float<floatX>(x[j].v[k]));
            store8(args.residual + at + v * VEC, x[j]);
        }
        add8(sum, x[j]);
    }
    float mean = row_sum<WR>(sum8(sum)) / args.C;
    float8 squares = zero8();
    UNROLL for (int j = 0; j < LANE_VECS; j++) {
        if (first + j * WR * WARP_SIZE >= n_vecs) continue;
        for (int k = 0; k < VEC; k++) {
            x[j].v[k] -= mean;
            squares.v[k] += x[j].v[k] * x[j].v[k];
        }
    }
    float rstd = rsqrtf(row_sum<WR>(sum8(squares)) / args.C + args.eps);
    UNROLL for (int j = 0; j < LANE_VECS; j++) {
        int v = first + j * WR * WARP_SIZE;
        if (v >= n_vecs) continue;
        float8 w = load8(args.weight + v * VEC), b = load8(args.bias + v * VEC);
        for (int k = 0; k < VEC; k++) x[j].v[k] = x[j].v[k] * rstd * w.v[k] + b.v[k];
        store8(args.out + (size_t)row * args.ldo + v * VEC, x[j]);
    }
    if (first == 0 && n_vecs > 0) {
        args.mean[row] = mean;
        args.rstd[row] = rstd;
    }
}

typedef struct {
    floatX* dinp;    // (T, C)
    float* partial;  // (blocks, 2, C), NULL for a frozen norm
    const floatX *dout, *inp, *weight;
    const float *mean, *rstd;
    int T, C, ldd, block_rows;
} BackwardArgs;

// norm = (inp − mean) rstd, dnorm = weight dout:  dinp += rstd (dnorm − mean(dnorm) − norm mean(dnorm norm));  dweight = Σ dout norm, dbias = Σ dout.
// A lane keeps the sums of its columns over all rows of its warp, so nothing but the two row sums crosses lanes until the block's end.
template <int WR> static __global__ void __launch_bounds__(WARPS* WARP_SIZE, 2) layernorm_backward_kernel(BackwardArgs args) {
    int warp = threadIdx.x / WARP_SIZE, first = warp % WR * WARP_SIZE + threadIdx.x % WARP_SIZE;
    int begin = blockIdx.x * args.block_rows, end = min(begin + args.block_rows, args.T);
    float8 sums[2][LANE_VECS];  // of dweight and dbias
    UNROLL for (int j = 0; j < LANE_VECS; j++) sums[0][j] = sums[1][j] = zero8();
    for (int rows = begin; rows < end; rows += WARPS / WR) {
        int row = rows + warp / WR, n_vecs = row < end ? args.C / VEC : 0;
        float mean = 0.0f, rstd = 0.0f;
        if (n_vecs) mean = args.mean[row], rstd = args.rstd[row];
        const floatX* inp = args.inp + (size_t)row * args.C;
        const floatX* dout = args.dout + (size_t)row * args.ldd;
        float8 sum = zero8(), sum_norm = zero8();
        UNROLL for (int j = 0; j < LANE_VECS; j++) {
            int v = first + j * WR * WARP_SIZE;
            if (v >= n_vecs) continue;
            float8 x = load8(inp + v * VEC), d = load8(dout + v * VEC), w = load8(args.weight + v * VEC);
            for (int k = 0; k < VEC; k++) {
                float norm = (x.v[k] - mean) * rstd, dnorm = d.v[k] * w.v[k];
                sums[1][j].v[k] += d.v[k];
                sums[0][j].v[k] += d.v[k] * norm;
                sum.v[k] += dnorm;
                sum_norm.v[k] += dnorm * norm;
            }
        }
        float mean_dnorm = row_sum<WR>(sum8(sum)) / args.C, mean_dnorm_norm = row_sum<WR>(sum8(sum_norm)) / args.C;
        // The row is read again, from the L1 cache: in registers it would halve the warps that an SM holds.
        UNROLL for (int j = 0; j < LANE_VECS; j++) {
            int v = first + j * WR * WARP_SIZE;
            if (v >= n_vecs) continue;
            floatX* p = args.dinp + (size_t)row * args.C + v * VEC;
            float8 x = load8(inp + v * VEC), d = load8(dout + v * VEC), w = load8(args.weight + v * VEC), dinp = load8(p);
            for (int k = 0; k < VEC; k++) dinp.v[k] += rstd * (d.v[k] * w.v[k] - mean_dnorm - (x.v[k] - mean) * rstd * mean_dnorm_norm);
            store8(p, dinp);
        }
    }
    if (args.partial) store_column_sums<WR>(args.partial + (size_t)blockIdx.x * 2 * args.C, sums, args.C / VEC);
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// launchers

template <bool FUSED> static void forward(const ForwardArgs& args, cudaStream_t stream) {
    if (args.T == 0) return;
    int warps = row_warps("layernorm", args.C, LANE_VECS), grid = CEIL_DIV(args.T, WARPS / warps), block = WARPS * WARP_SIZE;
    switch (warps) {
        case 1: LAUNCH((layernorm_forward_kernel<1, FUSED>), grid, block, 0, stream, args); break;
        case 2: LAUNCH((layernorm_forward_kernel<2, FUSED>), grid, block, 0, stream, args); break;
        case 4: LAUNCH((layernorm_forward_kernel<4, FUSED>), grid, block, 0, stream, args); break;
        default: LAUNCH((layernorm_forward_kernel<8, FUSED>), grid, block, 0, stream, args); break;
    }
}

void layernorm_forward(floatX* out, float* mean, float* rstd, const floatX* inp, const floatX* weight, const floatX* bias, int T, int C, int ldo,
                       float eps, cudaStream_t stream) {
    NVTX_RANGE("layernorm_forward");
    forward<false>({NULL, out, mean, rstd, inp, NULL, weight, bias, T, C, ldo, eps}, stream);
}

void fused_residual_layernorm_forward(floatX* residual, floatX* normed, float* mean, float* rstd, const floatX* inp1, const floatX* inp2,
                                      const floatX* weight, const floatX* bias, int T, int C, int ldo, float eps, cudaStream_t stream) {
    NVTX_RANGE("fused_residual_layernorm_forward");
    forward<true>({residual, normed, mean, rstd, inp1, inp2, weight, bias, T, C, ldo, eps}, stream);
}

size_t layernorm_scratch(int C) { return (size_t)NORM_MAX_BLOCKS * 2 * C; }

void layernorm_backward(floatX* dinp, float* dweight, float* dbias, float* scratch, const floatX* dout, const floatX* inp, const floatX* weight,
                        const float* mean, const float* rstd, int T, int C, int ldd, cudaStream_t stream) {
    NVTX_RANGE("layernorm_backward");
    if (T == 0) return;
    int warps = row_warps("layernorm", C, LANE_VECS), block = WARPS * WARP_SIZE, block_rows = max(MIN_BLOCK_ROWS, CEIL_DIV(T, NORM_MAX_BLOCKS)), grid = CEIL_DIV(T, block_rows);
    BackwardArgs args = {dinp, dweight ? scratch : NULL, dout, inp, weight, mean, rstd, T, C, ldd, block_rows};
    switch (warps) {
        case 1: LAUNCH(layernorm_backward_kernel<1>, grid, block, 0, stream, args); break;
        case 2: LAUNCH(layernorm_backward_kernel<2>, grid, block, 0, stream, args); break;
        case 4: LAUNCH(layernorm_backward_kernel<4>, grid, block, 0, stream, args); break;
        default: LAUNCH(layernorm_backward_kernel<8>, grid, block, 0, stream, args); break;
    }
    if (dweight) add_column_sums(dweight, dbias, scratch, grid, C, stream);
}
