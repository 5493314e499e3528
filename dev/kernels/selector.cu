/*
The data selector ω: normalisation, weights of a batch and of its tokens, Δ, the gradient, and the optimizers that are
not Adam; against a double-precision reference written from the formulas of the paper, the gradient also by finite
differences of the mean of σ_i(ω) Δ_i. Everything is fp32 in both builds. The naive gradient is one thread for each
logit, which sums S and looks for itself in the batch.

  selector --check [--small]            against the reference (--small: for sanitizers)
  selector [--samples N] [--batch N]    speed, with the share of a plain copy's bandwidth
*/
#include "harness.h"
#include "kernels.h"

// ---------------------------------------------------------------------------------------------------
// naive kernel

static __device__ float naive_sigma(float omega, const float* stats, int N, SelectorActivation activation) {
    return activation == SELECTOR_SOFTMAX ? N * expf(omega - stats[0]) / stats[1] : 2.0f / (1.0f + expf(-omega));
}
static __global__ void naive_gradient_kernel(float* grad, const float* omega, const float* stats, const int* rows,
                                             const float* delta, int b, int N, SelectorActivation activation) {
    int k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= N) return;
    float S = 0.0f, mine = 0.0f, sigma = naive_sigma(omega[k], stats, N, activation);
    for (int i = 0; i < b; i++) {
        S += naive_sigma(omega[rows[i]], stats, N, activation) * delta[i] / N;
        if (rows[i] == k) mine += delta[i];
    }
    grad[k] = activation == SELECTOR_SOFTMAX ? sigma / b * (mine - S) : sigma * (1.0f - 0.5f * sigma) * mine / b;
}

// ---------------------------------------------------------------------------------------------------
// one problem

typedef struct {
    int N, b;
    SelectorActivation activation;
    float *omega, *delta;
    int* rows;
    float *d_omega, *d_delta, *d_stats, *d_scratch, *d_sigma, *d_grad;
    int* d_rows;
} Problem;

static Problem problem_create(int N, int b, float spread, SelectorActivation activation) {
    Problem p;
    p.N = N, p.b = b, p.activation = activation;
    p.omega = harness_randoms<float>(N, spread, 0.1f);
    p.delta = harness_randoms<float>(b, 0.5f, 1.5f);
    p.rows = harness_host<int>(b);
    for (int i = 0; i < b; i++)
        p.rows[i] = i % 4 == 3 ? p.rows[i / 2] : (int)((harness_random() + 2.0f) * 1e6f) % N;  // some rows repeat
    p.d_omega = harness_copy(p.omega, N);
    p.d_delta = harness_copy(p.delta, b);
    p.d_rows = harness_copy(p.rows, b);
    p.d_stats = harness_device<float>(2);
    p.d_scratch = harness_device<float>(selector_scratch(N));
    p.d_sigma = harness_device<float>(b);
    p.d_grad = harness_device<float>(N);
    return p;
}

static void weights(Problem* p, cudaStream_t stream) {
    if (p->activation == SELECTOR_SOFTMAX) selector_normalise(p->d_stats, p->d_scratch, p->d_omega, p->N, stream);
    selector_sigma(p->d_sigma, p->d_omega, p->d_stats, p->d_rows, p->b, p->N, p->activation, stream);
}
static void gradient(Problem* p, cudaStream_t stream) {
    selector_gradient(
        {p->d_grad, p->d_omega, p->d_stats, p->d_sigma, p->d_delta, p->d_rows, p->b, p->N, p->activation, NULL},
        stream);
}
static void naive_gradient(Problem* p, cudaStream_t stream) {
    LAUNCH(naive_gradient_kernel, CEIL_DIV(p->N, 256), 256, 0, stream, p->d_grad, p->d_omega, p->d_stats, p->d_rows,
           p->d_delta, p->b, p->N, p->activation);
}

// σ of all N logits
static double* reference_sigma(const Problem* p, const float* omega) {
    double *sigma = harness_host<double>(p->N), highest = -INFINITY, sum = 0.0;
    for (int k = 0; k < p->N; k++) highest = fmax(highest, omega[k]);
    for (int k = 0; k < p->N; k++) sum += exp(omega[k] - highest);
    for (int k = 0; k < p->N; k++)
        sigma[k] = p->activation == SELECTOR_SOFTMAX ? p->N * exp(omega[k] - highest) / sum
                                                     : 2.0 / (1.0 + exp(-(double)omega[k]));
    return sigma;
}

// ---------------------------------------------------------------------------------------------------
// checks

static double slope_value(
    void* data,
    const float* x) {  // mean over the batch of σ_i Δ_i, in double: the kernel's formula is what is on trial
    Problem* p = (Problem*)data;
    double *sigma = reference_sigma(p, x), sum = 0.0;
    for (int i = 0; i < p->b; i++) sum += sigma[p->rows[i]] * p->delta[i] / p->b;
    return sum;
}

static void check_gradient(const char* name, Problem* p, const float* got) {
    double *sigma = reference_sigma(p, p->omega), *grad = harness_host<double>(p->N), S = 0.0;
    for (int i = 0; i < p->b; i++) {
        S += sigma[p->rows[i]] * p->delta[i] / p->N;
        double s = 1.0 / (1.0 + exp(-(double)p->omega[p->rows[i]]));
        grad[p->rows[i]] += (p->activation == SELECTOR_SOFTMAX ? sigma[p->rows[i]] : 2.0 * s * (1.0 - s)) *
                            p->delta[i] / p->b;
    }
    for (int k = 0; k < p->N && p->activation == SELECTOR_SOFTMAX; k++) grad[k] -= sigma[k] * S / p->b;
    // Adam divides by a gradient's own size, so small entries count as much as large ones: the batch's rows and the
    // others are held apart
    float* apart[2] = {harness_host<float>(p->N), harness_host<float>(p->N)};
    double* expected[2] = {harness_host<double>(p->N), harness_host<double>(p->N)};
    bool* drawn = harness_host<bool>(p->N);
    for (int i = 0; i < p->b; i++) drawn[p->rows[i]] = true;
    for (int k = 0; k < p->N; k++) {
        apart[drawn[k]][k] = got[k];
        expected[drawn[k]][k] = grad[k];
    }
    check_close(harness_name(name, "gradient of drawn rows"), apart[1], expected[1], p->N, 1e-5);
    check_close(harness_name(name, "gradient of the others"), apart[0], expected[0], p->N, 1e-5);
}

static void check_selector(const char* name, int N, int b, float spread, SelectorActivation activation, bool naive) {
    Problem p = problem_create(N, b, spread, activation);
    float* first[2][2];
    for (int run = 0; run < 2; run++) {
        harness_poison(p.d_sigma, b);
        harness_poison(p.d_grad, N);
        weights(&p, 0);
        first[run][0] = harness_fetch(p.d_sigma, b);
        gradient(&p, 0);
        first[run][1] = harness_fetch(p.d_grad, N);
    }
    double *sigma = reference_sigma(&p, p.omega), *of_batch = harness_host<double>(b);
    for (int i = 0; i < b; i++) of_batch[i] = sigma[p.rows[i]];
    check_close(harness_name(name, "sigma"), first[0][0], of_batch, b, 1e-5);
    check_gradient(name, &p, first[0][1]);
    check(!memcmp(first[0][0], first[1][0], b * sizeof(float)) && !memcmp(first[0][1], first[1][1], N * sizeof(float)),
          "%s: two equal runs give equal bits", name);
    harness_check_slope(harness_name(name, "gradient"), slope_value, &p, p.omega, first[0][1], N, 1e-2f);
    if (naive) {
        naive_gradient(&p, 0);
        check_gradient(harness_name("naive", name), &p, harness_fetch(p.d_grad, N));
    }
    harness_release();
}

// Logits far apart or all far from zero: weights stay finite, a Δ of exactly zero moves nothing.
static void check_limits(void) {
    const float omega[] = {200.0f, -200.0f, 199.0f, 0.0f, -1e30f};
    const int rows[] = {0, 1, 2, 3, 4};
    float *d_omega = harness_copy(omega, 5), *d_stats = harness_device<float>(2), *d_sigma = harness_device<float>(5),
          *d_grad = harness_device<float>(5);
    float *zero = harness_host<float>(5), *d_zero = harness_copy(zero, 5);
    int* d_rows = harness_copy(rows, 5);
    selector_normalise(d_stats, harness_device<float>(selector_scratch(5)), d_omega, 5, 0);
    selector_sigma(d_sigma, d_omega, d_stats, d_rows, 5, 5, SELECTOR_SOFTMAX, 0);
    float* soft = harness_fetch(d_sigma, 5);
    check(fabsf(soft[0] - 5.0f / (1.0f + expf(-1.0f))) < 1e-5f && soft[1] == 0.0f && soft[3] == 0.0f && soft[4] == 0.0f,
          "softmax of logits far apart: %g %g", soft[0], soft[2]);
    selector_sigma(d_sigma, d_omega, NULL, d_rows, 5, 5, SELECTOR_SIGMOID, 0);
    float* sigmoid = harness_fetch(d_sigma, 5);
    check(sigmoid[0] == 2.0f && sigmoid[1] == 0.0f && sigmoid[3] == 1.0f && sigmoid[4] == 0.0f,
          "sigmoid of logits far from zero: %g %g", sigmoid[0], sigmoid[1]);
    bool still = true;
    for (int activation = 0; activation < 2; activation++) {
        selector_gradient(
            {d_grad, d_omega, d_stats, d_sigma, d_zero, d_rows, 5, 5, (SelectorActivation)activation, NULL}, 0);
        float* g = harness_fetch(d_grad, 5);
        for (int k = 0; k < 5; k++) still = still && g[k] == 0.0f;
    }
    check(still, "a delta of zero has a gradient of zero");
    harness_release();
}

// Samples that share logits: the weights and the summed gradient of as many logits that are equal.
static void check_units(int U, int N, SelectorActivation activation) {
    const int b = 9;
    int *unit = harness_host<int>(N), *rows = harness_host<int>(b), *samples = harness_host<int>(b);
    float *omega = harness_randoms<float>(U, 1.0f, 0.1f), *count = harness_host<float>(U);
    Problem p = problem_create(N, b, 1.0f, activation);
    for (int i = 0; i < N; i++) {
        unit[i] = i * i % U;
        count[unit[i]] += 1.0f;
        p.omega[i] = omega[unit[i]];
    }
    for (int i = 0; i < b; i++) rows[i] = unit[samples[i] = p.rows[i]];
    double *sigma = reference_sigma(&p, p.omega), *of_batch = harness_host<double>(b), *grad = harness_host<double>(U);
    double S = 0.0;
    for (int i = 0; i < b; i++) {
        double s = 1.0 / (1.0 + exp(-(double)omega[rows[i]]));
        of_batch[i] = sigma[samples[i]];
        S += sigma[samples[i]] * p.delta[i] / N;
        grad[rows[i]] += (activation == SELECTOR_SOFTMAX ? sigma[samples[i]] : 2.0 * s * (1.0 - s)) * p.delta[i] / b;
    }
    for (int i = 0; i < N && activation == SELECTOR_SOFTMAX; i++) grad[unit[i]] -= sigma[i] * S / b;
    float *d_omega = harness_copy(omega, U), *d_count = harness_copy(count, U), *d_grad = harness_device<float>(U);
    int* d_rows = harness_copy(rows, b);
    if (activation == SELECTOR_SOFTMAX) selector_normalise(p.d_stats, p.d_scratch, d_omega, U, 0, d_count);
    selector_sigma(p.d_sigma, d_omega, p.d_stats, d_rows, b, N, activation, 0);
    selector_gradient({d_grad, d_omega, p.d_stats, p.d_sigma, p.d_delta, d_rows, b, U, activation, d_count}, 0);
    const char* name = activation == SELECTOR_SOFTMAX ? "shared logits, softmax" : "shared logits, sigmoid";
    check_close(harness_name(name, "sigma"), harness_fetch(p.d_sigma, b), of_batch, b, 1e-5);
    check_close(harness_name(name, "gradient"), harness_fetch(d_grad, U), grad, U, 1e-5);
    harness_release();
}

static void check_tokens_and_delta(void) {
    const int start[] = {0, 3, 3, 40, 41, 120},
              place[] = {1, 4, 2, 0, 3};  // five samples, the batch's first three are fine-tuning ones
    const float coefficient[] = {0.5f, 2.0f, 0.25f, 1.0f, 3.0f}, sigma[] = {1.5f, 0.75f, 1.25f},
                loss[] = {1.0f, 2.0f, 4.0f}, loss_hat[] = {0.5f, 2.0f, 1.0f};
    float *d_weight = harness_device<float>(121), *d_delta = harness_device<float>(3), *d_loss = harness_copy(loss, 3);
    selector_token_weights(d_weight, harness_copy(sigma, 3), harness_copy(coefficient, 5), harness_copy(place, 5),
                           harness_copy(start, 6), 5, 3, 0);
    float* weight = harness_fetch(d_weight, 121);
    bool good = isnan(weight[120]);
    for (int s = 0; s < 5; s++)
        for (int i = start[s]; i < start[s + 1]; i++)
            good = good && weight[i] == coefficient[s] * (place[s] < 3 ? sigma[place[s]] : 1.0f);
    check(good, "token weights: sigma for fine-tuning samples, 1 for safe ones, nothing past the last");
    selector_delta(d_delta, d_loss, harness_copy(loss_hat, 3), 2.0f, NULL, NULL, 3, 0);
    float* a = harness_fetch(d_delta, 3);
    selector_delta(d_delta, d_loss, NULL, 1.0f, NULL, NULL, 3, 0);
    float* b = harness_fetch(d_delta, 3);
    check(a[0] == 1.0f && a[1] == 0.0f && a[2] == 6.0f && b[0] == 1.0f && b[1] == 2.0f && b[2] == 4.0f,
          "delta with and without theta_hat's losses");
    // empty batches and packs are not an error
    selector_delta(d_delta, d_loss, NULL, 1.0f, NULL, NULL, 0, 0);
    selector_sigma(d_delta, d_loss, NULL, NULL, 0, 3, SELECTOR_SIGMOID, 0);
    selector_token_weights(d_weight, d_loss, d_loss, NULL, NULL, 0, 0, 0);
    cudaCheck(cudaDeviceSynchronize());
    harness_release();
}

// The optimizers that are not Adam, over a few steps with repeating rows.
static void check_optimizers(int N, int b) {
    const float lr = 0.3f, decay = 0.9f, initial = 0.1f, scale = 0.5f;
    double *descended = harness_host<double>(N), *visited = harness_host<double>(N), *sum = harness_host<double>(N),
           *count = harness_host<double>(N);
    double mean = 0.0, weight = 0.0, all = 0.0, n_all = 0.0;
    float *d_descend = harness_device<float>(N), *d_visit = harness_device<float>(N),
          *d_sum = harness_copy(harness_host<float>(N), N);
    float *d_count = harness_copy(harness_host<float>(N), N), *d_centre = harness_copy(harness_host<float>(2), 2),
          *d_running = harness_copy(harness_host<float>(2), 2);
    selector_fill(d_descend, initial, N, 0);
    selector_fill(d_visit, initial, N, 0);
    for (int k = 0; k < N; k++) descended[k] = initial;
    for (int step = 0; step < 3; step++) {
        Problem p = problem_create(N, b, 1.0f, SELECTOR_SOFTMAX);
        float *grad = harness_randoms<float>(N, 1.0f, 0.0f), *d_delta = harness_copy(p.delta, b);
        double batch_mean = 0.0, *centred = harness_host<double>(b);
        for (int k = 0; k < N; k++) descended[k] -= (double)lr * scale * grad[k];
        for (int i = 0; i < b; i++) {
            batch_mean += (double)p.delta[i] / b;
            sum[p.rows[i]] += p.delta[i];
            count[p.rows[i]] += 1.0;
            all += p.delta[i];
            n_all += 1.0;
        }
        mean = decay * mean + (1.0 - decay) * batch_mean;
        weight = decay * weight + (1.0 - decay);
        for (int i = 0; i < b; i++) centred[i] = p.delta[i] - mean / weight;
        for (int k = 0; k < N; k++)
            visited[k] = count[k] > 0.0 ? initial - lr * (sum[k] / count[k] - all / n_all) : initial;
        selector_descend(d_descend, harness_copy(grad, N), harness_copy(&scale, 1), lr, N, 0);
        selector_visit({d_visit, d_sum, d_count, d_running, p.d_rows, p.d_delta, b, N, lr, initial}, 0);
        selector_centre(d_delta, d_centre, b, decay, 0);
        check_close("centred delta", harness_fetch(d_delta, b), centred, b, 1e-5);
    }
    check_close("gradient descent", harness_fetch(d_descend, N), descended, N, 1e-5);
    check_close("mean of delta over visits", harness_fetch(d_visit, N), visited, N, 1e-5);
    harness_release();
}

// ---------------------------------------------------------------------------------------------------

typedef struct {
    Problem* p;
    void (*pass)(Problem*, cudaStream_t);
} Timed;
static void timed_run(void* data, cudaStream_t stream) { ((Timed*)data)->pass(((Timed*)data)->p, stream); }

int main(int argc, char** argv) {
    int N = 112000, b = 64;
    const HarnessOption options[] = {{"--samples", &N, 1, "fine-tuning samples"},
                                     {"--batch", &b, 1, "of them in the batch"}};
    harness_options(argc, argv, options, 2);
    if (harness_check) {
        const char* names[2][4] = {{"softmax N1", "softmax N37", "softmax N20011", "softmax N3001, wide"},
                                   {"sigmoid N1", "sigmoid N37", "sigmoid N20011", "sigmoid N3001, wide"}};
        for (int activation = 0; activation < 2; activation++) {
            SelectorActivation a = (SelectorActivation)activation;
            check_selector(names[a][1], 37, 9, 0.5f, a, true);
            if (harness_small) continue;
            check_selector(names[a][0], 1, 1, 0.5f, a, false);
            check_selector(names[a][2], 20011, 64, 0.5f, a, true);
            check_selector(names[a][3], 3001, 300, 4.0f, a, false);
        }
        check_limits();
        for (int activation = 0; activation < 2; activation++) {
            check_units(3, 50, (SelectorActivation)activation);
            check_units(17, 400, (SelectorActivation)activation);
        }
        check_tokens_and_delta();
        check_optimizers(41, 13);
        return check_report();
    }
    printf("selector, %d samples, a batch of %d, softmax\n", N, b);
    Problem p = problem_create(N, b, 0.5f, SELECTOR_SOFTMAX);
    Timed rows[] = {{&p, weights}, {&p, naive_gradient}, {&p, gradient}};
    harness_report("normalise and weigh", timed_run, &rows[0], sizeof(float) * (double)N);
    harness_report("naive gradient", timed_run, &rows[1], 2.0 * sizeof(float) * N);
    harness_report("gradient", timed_run, &rows[2], 2.0 * sizeof(float) * N);
    harness_release();
    return 0;
}
