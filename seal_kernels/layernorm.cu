/*
Layernorm, forward and backward, and its fusion with the residual before it (torch.nn.functional.layer_norm).
A row belongs to WR warps (1, 2, 4 or 8, by its width), whose lanes hold it in registers, LV vectors each; a warp works
on R rows at once. A row is read once, its mean and variance are taken in two passes over registers, as accurate as fp32
allows, and a lane has all its loads in flight at once.
*/
#include "kernels.h"
#include "norm_rows.h"

#define WARPS NORM_WARPS
#define LANE_VECS 3  // float8 that a lane holds: 768 elements of a row for each warp, GPT-2's width
// A row no wider than one vector per lane leaves room for more rows: a warp takes NARROW_ROWS of them at once, and one
// round of shuffles sums them all.
#define NARROW_WIDTH (WARP_SIZE * VEC)
#define NARROW_ROWS 4
// Backward leaves one partial row of dweight and dbias per block. More blocks balance a GPU better, more rows per block
// make the partials cheaper.
#define MIN_BLOCK_ROWS 32

// ---------------------------------------------------------------------------------------------------
// kernels

template <int WR, int LV, int R, bool FUSED>
static __global__ void __launch_bounds__(WARPS* WARP_SIZE) layernorm_forward_kernel(LayernormForward args) {
    int warp = threadIdx.x / WARP_SIZE, row = (blockIdx.x * (WARPS / WR) + warp / WR) * R;
    int first = warp % WR * WARP_SIZE +
                threadIdx.x % WARP_SIZE;  // vectors first, first + 32 WR, … of each row are this lane's
    float8 x[R][LV];
    float sums[R];
    // rows past the end have no vectors and take part in the barriers only
    UNROLL for (int r = 0; r < R; r++) {
        int n_vecs = row + r < args.T ? args.C / VEC : 0;
        size_t at = (size_t)(row + r) * args.C;
        float8 sum = zero8();
        UNROLL for (int j = 0; j < LV; j++) {
            int v = first + j * WR * WARP_SIZE;
            x[r][j] = zero8();
            if (v >= n_vecs) continue;
            x[r][j] = load8(args.inp1 + at + v * VEC);
            if (FUSED) {
                add8(x[r][j], load8(args.inp2 + at + v * VEC));
                // the statistics are those of the residual that backward will read, rounding included
                for (int k = 0; k < VEC; k++) x[r][j].v[k] = to_float(from_float<floatX>(x[r][j].v[k]));
                store8(args.residual + at + v * VEC, x[r][j]);
            }
            add8(sum, x[r][j]);
        }
        sums[r] = sum8_halves(sum);
    }
    row_sums<WR>(sums);
    float mean[R];
    UNROLL for (int r = 0; r < R; r++) {
        mean[r] = sums[r] / args.C;
        float8 squares = zero8();
        UNROLL for (int j = 0; j < LV; j++) {
            if (first + j * WR * WARP_SIZE >= args.C / VEC) continue;
            for (int k = 0; k < VEC; k++) {
                x[r][j].v[k] -= mean[r];
                squares.v[k] += x[r][j].v[k] * x[r][j].v[k];
            }
        }
        sums[r] = sum8_halves(squares);
    }
    row_sums<WR>(sums);
    UNROLL for (int r = 0; r < R; r++) {
        if (row + r >= args.T) break;
        float rstd = rsqrtf(sums[r] / args.C + args.eps);
        UNROLL for (int j = 0; j < LV; j++) {
            int v = first + j * WR * WARP_SIZE;
            if (v >= args.C / VEC) continue;
            float8 w = load8(args.weight + v * VEC), b = load8(args.bias + v * VEC);
            // fmaf, written out: where a compiler chooses, the fused and the plain kernel differ by a bit, and so would
            // --recompute
            for (int k = 0; k < VEC; k++) x[r][j].v[k] = fmaf(x[r][j].v[k] * rstd, w.v[k], b.v[k]);
            store8(args.out + (size_t)(row + r) * args.ldo + v * VEC, x[r][j]);
        }
        if (first == 0) {
            args.mean[row + r] = mean[r];
            args.rstd[row + r] = rstd;
        }
    }
}

// norm = (inp − mean) rstd, dnorm = weight dout:  dinp += rstd (dnorm − mean(dnorm) − norm mean(dnorm norm));  dweight
// = Σ dout norm, dbias = Σ dout. A lane keeps the sums of its columns over all rows of its warp, so nothing but the two
// row sums crosses lanes until the block's end.
template <int WR, int LV, int R>
static __global__ void __launch_bounds__(WARPS* WARP_SIZE, 2)
    layernorm_backward_kernel(LayernormBackward args, int block_rows) {
    int warp = threadIdx.x / WARP_SIZE, first = warp % WR * WARP_SIZE + threadIdx.x % WARP_SIZE, n_vecs = args.C / VEC;
    int begin = blockIdx.x * block_rows, end = min(begin + block_rows, args.T);
    float8 sums[2][LV];  // of dweight and dbias
    UNROLL for (int j = 0; j < LV; j++) sums[0][j] = sums[1][j] = zero8();
    for (int rows = begin; rows < end; rows += WARPS / WR * R) {
        int row = rows + warp / WR * R;
        float mean[R], rstd[R], means[2 * R];  // the last: of dnorm and of dnorm norm
        UNROLL for (int r = 0; r < R; r++) {
            bool there = row + r < end;
            mean[r] = there ? args.mean[row + r] : 0.0f;
            rstd[r] = there ? args.rstd[row + r] : 0.0f;
            float8 sum = zero8(), sum_norm = zero8();
            UNROLL for (int j = 0; j < LV; j++) {
                int v = first + j * WR * WARP_SIZE;
                if (v >= n_vecs || !there) continue;
                float8 x = load8(args.inp + (size_t)(row + r) * args.C + v * VEC),
                       d = load8(args.dout + (size_t)(row + r) * args.ldd + v * VEC), w = load8(args.weight + v * VEC);
                for (int k = 0; k < VEC; k++) {
                    float norm = (x.v[k] - mean[r]) * rstd[r], dnorm = d.v[k] * w.v[k];
                    sums[1][j].v[k] += d.v[k];
                    sums[0][j].v[k] += d.v[k] * norm;
                    sum.v[k] += dnorm;
                    sum_norm.v[k] += dnorm * norm;
                }
            }
            means[2 * r] = sum8_halves(sum);
            means[2 * r + 1] = sum8_halves(sum_norm);
        }
        row_sums<WR>(means);
        UNROLL for (int i = 0; i < 2 * R; i++) means[i] /= args.C;
        // The row is read again, from the L1 cache: in registers it would halve the warps that an SM holds.
        UNROLL for (int r = 0; r < R; r++) {
            if (row + r >= end) break;
            UNROLL for (int j = 0; j < LV; j++) {
                int v = first + j * WR * WARP_SIZE;
                if (v >= n_vecs) continue;
                floatX* p = args.dinp + (size_t)(row + r) * args.C + v * VEC;
                float8 x = load8(args.inp + (size_t)(row + r) * args.C + v * VEC),
                       d = load8(args.dout + (size_t)(row + r) * args.ldd + v * VEC), w = load8(args.weight + v * VEC);
                float8 dinp = load8(p);
                for (int k = 0; k < VEC; k++)
                    dinp.v[k] += rstd[r] *
                                 (d.v[k] * w.v[k] - means[2 * r] - (x.v[k] - mean[r]) * rstd[r] * means[2 * r + 1]);
                store8(p, dinp);
            }
        }
    }
    // scratch: (blocks, 2, C)
    if (args.dweight) store_column_sums<WR>(args.scratch + (size_t)blockIdx.x * 2 * args.C, sums, n_vecs);
}

// ---------------------------------------------------------------------------------------------------
// launchers

int layernorm_most_width(void) { return most_width(LANE_VECS); }

template <bool FUSED> static void forward(const LayernormForward& args, cudaStream_t stream) {
    if (args.T == 0) return;
    int warps = row_warps("layernorm", args.C, LANE_VECS), grid = CEIL_DIV(args.T, WARPS / warps),
        block = WARPS * WARP_SIZE;
    if (args.C <= NARROW_WIDTH) {
        LAUNCH((layernorm_forward_kernel<1, 1, NARROW_ROWS, FUSED>), CEIL_DIV(args.T, WARPS * NARROW_ROWS), block, 0,
               stream, args);
        return;
    }
    switch (warps) {
        case 1: LAUNCH((layernorm_forward_kernel<1, LANE_VECS, 1, FUSED>), grid, block, 0, stream, args); break;
        case 2: LAUNCH((layernorm_forward_kernel<2, LANE_VECS, 1, FUSED>), grid, block, 0, stream, args); break;
        case 4: LAUNCH((layernorm_forward_kernel<4, LANE_VECS, 1, FUSED>), grid, block, 0, stream, args); break;
        default: LAUNCH((layernorm_forward_kernel<8, LANE_VECS, 1, FUSED>), grid, block, 0, stream, args); break;
    }
}

void layernorm_forward(const LayernormForward& args, cudaStream_t stream) {
    NVTX_RANGE("layernorm_forward");
    forward<false>(args, stream);
}

void fused_residual_layernorm_forward(const LayernormForward& args, cudaStream_t stream) {
    NVTX_RANGE("fused_residual_layernorm_forward");
    forward<true>(args, stream);
}

size_t layernorm_scratch(int C) { return (size_t)NORM_MAX_BLOCKS * 2 * C; }

void layernorm_backward(const LayernormBackward& args, cudaStream_t stream) {
    NVTX_RANGE("layernorm_backward");
    int T = args.T, C = args.C;
    if (T == 0) return;
    int warps = row_warps("layernorm", C, LANE_VECS), block = WARPS * WARP_SIZE,
        block_rows = max(MIN_BLOCK_ROWS, CEIL_DIV(T, NORM_MAX_BLOCKS)), grid = CEIL_DIV(T, block_rows);
    if (C <= NARROW_WIDTH)
        LAUNCH((layernorm_backward_kernel<1, 1, NARROW_ROWS>), grid, block, 0, stream, args, block_rows);
    else switch (warps) {
            case 1:
                LAUNCH((layernorm_backward_kernel<1, LANE_VECS, 1>), grid, block, 0, stream, args, block_rows);
                break;
            case 2:
                LAUNCH((layernorm_backward_kernel<2, LANE_VECS, 1>), grid, block, 0, stream, args, block_rows);
                break;
            case 4:
                LAUNCH((layernorm_backward_kernel<4, LANE_VECS, 1>), grid, block, 0, stream, args, block_rows);
                break;
            default:
                LAUNCH((layernorm_backward_kernel<8, LANE_VECS, 1>), grid, block, 0, stream, args, block_rows);
                break;
        }
    if (args.dweight) add_column_sums(args.dweight, args.dbias, args.scratch, grid, C, stream);
}
