/*
RMSnorm, forward and backward, and its fusion with the residual before it (torch.nn.functional.rms_norm; LlamaRMSNorm of
transformers, in fp32 throughout). Rows are cut over warps as in norm_rows.h: a row is read once, and a lane has all its
loads in flight at once.
*/
#include "kernels.h"
#include "norm_rows.h"

#define WARPS NORM_WARPS
// How many float8 a lane holds: 1024 elements of a row for each warp, so that 4096 and 2048 leave no lane idle.
#define LANE_VECS 4
// Of backward with dweight: fewer rows per block would make the partial rows a noticeable part of the traffic.
#define MIN_BLOCK_ROWS 16

// ---------------------------------------------------------------------------------------------------
// kernels

// Σ over the row of the squares that its lanes hold → 1/sqrt(mean + eps)
template <int WR> static inline __device__ float rstd_of(const float8& squares, int C, float eps) {
    return rsqrtf(row_sum<WR>(sum8_halves(squares)) / C + eps);
}

template <int WR, bool FUSED, bool POST>
static __global__ void __launch_bounds__(WARPS* WARP_SIZE, POST ? 3 : 4) rmsnorm_forward_kernel(RmsnormForward args) {
    int warp = threadIdx.x / WARP_SIZE, row = blockIdx.x * (WARPS / WR) + warp / WR, n_vecs = args.C / VEC;
    int first = warp % WR * WARP_SIZE + threadIdx.x % WARP_SIZE;  // vectors first, first + 32 WR, … are this lane's
    if (row >= args.T) n_vecs = 0;                                // a row past the end takes part in the barriers only
    size_t at = (size_t)row * args.C;
    float8 x[LANE_VECS], squares = zero8();
    float post_rstd = 0.0f;
    if (POST) {  // the row of inp2 is read again below, from the L1 cache
        UNROLL for (int j = 0; j < LANE_VECS; j++) {
            int v = first + j * WR * WARP_SIZE;
            if (v >= n_vecs) continue;
            float8 y = load8(args.inp2 + at + v * VEC);
            for (int k = 0; k < VEC; k++) squares.v[k] = fmaf(y.v[k], y.v[k], squares.v[k]);
        }
        post_rstd = rstd_of<WR>(squares, args.C, args.eps);
        if (first == 0 && n_vecs > 0) args.post_rstd[row] = post_rstd;
        squares = zero8();
    }
    UNROLL for (int j = 0; j < LANE_VECS; j++) {
        int v = first + j * WR * WARP_SIZE;
        x[j] = zero8();
        if (v >= n_vecs) continue;
        x[j] = load8(args.inp1 + at + v * VEC);
        if (FUSED) {
            float8 y = load8(args.inp2 + at + v * VEC);
            if (POST) {
                float8 w = load8(args.post + v * VEC);
                // rounded as the tensor that it is elsewhere
                for (int k = 0; k < VEC; k++)
                    y.v[k] = to_float(from_float<floatX>(y.v[k] * post_rstd * (args.offset + w.v[k])));
            }
            for (int k = 0; k < VEC; k++) x[j].v[k] = fmaf(args.scale, y.v[k], x[j].v[k]);
            // the statistics are those of the residual that backward will read, rounding included
            for (int k = 0; k < VEC; k++) x[j].v[k] = to_float(from_float<floatX>(x[j].v[k]));
            store8(args.residual + at + v * VEC, x[j]);
        }
        // fmaf: every instance rounds alike, whatever a compiler would contract, since recomputing takes another one
        for (int k = 0; k < VEC; k++) squares.v[k] = fmaf(x[j].v[k], x[j].v[k], squares.v[k]);
    }
    float rstd = rstd_of<WR>(squares, args.C, args.eps);
    UNROLL for (int j = 0; j < LANE_VECS; j++) {
        int v = first + j * WR * WARP_SIZE;
        if (v >= n_vecs) continue;
        if (args.weight) {
            float8 w = load8(args.weight + v * VEC);
            for (int k = 0; k < VEC; k++) x[j].v[k] = x[j].v[k] * rstd * (args.offset + w.v[k]);
        }
        store8(args.out + (size_t)row * args.ldo + v * VEC, x[j]);
    }
    if (first == 0 && n_vecs > 0) args.rstd[row] = rstd;
}

// norm = inp rstd, dnorm = weight dout:  dinp += rstd (dnorm − norm mean(dnorm norm));  dweight = Σ dout norm.
// A lane keeps the sums of its columns over all rows of its warp, so nothing but the row's sum crosses lanes until the
// block's end.
template <int WR>
static __global__ void __launch_bounds__(WARPS* WARP_SIZE, 2)
    rmsnorm_backward_kernel(RmsnormBackward args, int block_rows) {
    int warp = threadIdx.x / WARP_SIZE, first = warp % WR * WARP_SIZE + threadIdx.x % WARP_SIZE;
    int begin = blockIdx.x * block_rows, end = min(begin + block_rows, args.T);
    float8 dweight[1][LANE_VECS];
    UNROLL for (int j = 0; j < LANE_VECS; j++) dweight[0][j] = zero8();
    for (int rows = begin; rows < end; rows += WARPS / WR) {
        int row = rows + warp / WR, n_vecs = row < end ? args.C / VEC : 0;
        float rstd = n_vecs ? args.rstd[row] : 0.0f;
        const floatX* inp = args.inp + (size_t)row * args.C;
        const floatX* dout = args.dout + (size_t)row * args.ldd;
        floatX* dinp = args.dinp + (size_t)row * args.C;
        packed8 before[LANE_VECS] = {};  // dinp, on its way while the row is summed
        float8 sum = zero8();
        UNROLL for (int j = 0; j < LANE_VECS; j++) {
            int v = first + j * WR * WARP_SIZE;
            if (v < n_vecs && !args.overwrite) before[j] = load_packed8(dinp + v * VEC);
        }
        UNROLL for (int j = 0; j < LANE_VECS; j++) {
            int v = first + j * WR * WARP_SIZE;
            if (v >= n_vecs) continue;
            float8 x = load8(inp + v * VEC), d = load8(dout + v * VEC), w = load8(args.weight + v * VEC);
            for (int k = 0; k < VEC; k++) {
                float dn = d.v[k] * x.v[k] * rstd;
                dweight[0][j].v[k] += dn;
                sum.v[k] += dn * (args.offset + w.v[k]);
            }
        }
        float mean_dnorm_norm = row_sum<WR>(sum8_halves(sum)) / args.C;
        // The row is read again, from the L1 cache: in registers it would halve the warps that an SM holds.
        UNROLL for (int j = 0; j < LANE_VECS; j++) {
            int v = first + j * WR * WARP_SIZE;
            if (v >= n_vecs) continue;
            float8 x = load8(inp + v * VEC), d = load8(dout + v * VEC), w = load8(args.weight + v * VEC),
                   sum = unpack8(before[j]);
            // fmaf, written out: which product a compiler fuses into a sum depends on the code around it
            for (int k = 0; k < VEC; k++)
                sum.v[k] = fmaf(rstd, fmaf(-(x.v[k] * rstd), mean_dnorm_norm, d.v[k] * (args.offset + w.v[k])),
                                sum.v[k]);
            store8(dinp + v * VEC, sum);
        }
    }
    // scratch: (blocks, C)
    if (args.dweight) store_column_sums<WR>(args.scratch + (size_t)blockIdx.x * args.C, dweight, args.C / VEC);
}

// ---------------------------------------------------------------------------------------------------
// launchers

int rmsnorm_most_width(void) { return most_width(LANE_VECS); }

template <bool FUSED, bool POST> static void forward(const RmsnormForward& args, cudaStream_t stream) {
    if (args.T == 0) return;
    int warps = row_warps("rmsnorm", args.C, LANE_VECS), grid = CEIL_DIV(args.T, WARPS / warps),
        block = WARPS * WARP_SIZE;
    switch (warps) {
        case 1: LAUNCH((rmsnorm_forward_kernel<1, FUSED, POST>), grid, block, 0, stream, args); break;
        case 2: LAUNCH((rmsnorm_forward_kernel<2, FUSED, POST>), grid, block, 0, stream, args); break;
        case 4: LAUNCH((rmsnorm_forward_kernel<4, FUSED, POST>), grid, block, 0, stream, args); break;
        default: LAUNCH((rmsnorm_forward_kernel<8, FUSED, POST>), grid, block, 0, stream, args); break;
    }
}

void rmsnorm_forward(const RmsnormForward& args, cudaStream_t stream) {
    NVTX_RANGE("rmsnorm_forward");
    forward<false, false>(args, stream);
}

void fused_residual_rmsnorm_forward(const RmsnormForward& args, cudaStream_t stream) {
    NVTX_RANGE("fused_residual_rmsnorm_forward");
    if (args.post) forward<true, true>(args, stream);
    else forward<true, false>(args, stream);
}

size_t rmsnorm_scratch(int C) { return (size_t)NORM_MAX_BLOCKS * C; }

void rmsnorm_backward(const RmsnormBackward& args, cudaStream_t stream) {
    NVTX_RANGE("rmsnorm_backward");
    int T = args.T, C = args.C;
    if (T == 0) return;
    int warps = row_warps("rmsnorm", C, LANE_VECS), block = WARPS * WARP_SIZE;
    // A frozen norm leaves no partial rows, so its blocks may be as short as they like.
    int block_rows = args.dweight ? max(MIN_BLOCK_ROWS, CEIL_DIV(T, NORM_MAX_BLOCKS)) : WARPS / warps,
        grid = CEIL_DIV(T, block_rows);
    switch (warps) {
        case 1: LAUNCH(rmsnorm_backward_kernel<1>, grid, block, 0, stream, args, block_rows); break;
        case 2: LAUNCH(rmsnorm_backward_kernel<2>, grid, block, 0, stream, args, block_rows); break;
        case 4: LAUNCH(rmsnorm_backward_kernel<4>, grid, block, 0, stream, args, block_rows); break;
        default: LAUNCH(rmsnorm_backward_kernel<8>, grid, block, 0, stream, args, block_rows); break;
    }
    if (args.dweight) add_column_sums(args.dweight, NULL, args.scratch, grid, C, stream);
}
