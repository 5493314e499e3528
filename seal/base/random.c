/* Philox 4x32-10 and what is drawn from it. See random.h. */
#include <math.h>
#include "base/random.h"

void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static void draw(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4]) {
    const uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)};
    const uint32_t k[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    philox(c, k, out);
}

uint64_t random_bits(uint64_t seed, uint64_t stream, uint64_t counter) {
    uint32_t x[4];
    draw(seed, stream, counter, x);
    return (uint64_t)x[1] << 32 | x[0];
}

static double to_open_unit(uint32_t high, uint32_t low) {
    return (((uint64_t)high << 32 | low) >> 12) * 0x1p-52 + 0x1p-53;
}

double random_uniform(uint64_t seed, uint64_t stream, uint64_t counter) {
    uint32_t x[4];
    draw(seed, stream, counter, x);
    return to_open_unit(x[1], x[0]);
}

double random_normal(uint64_t seed, uint64_t stream, uint64_t counter) {  // Box–Muller
    uint32_t x[4];
    draw(seed, stream, counter, x);
    return sqrt(-2.0 * log(to_open_unit(x[1], x[0]))) * cos(6.283185307179586 * to_open_unit(x[3], x[2]));
}

double random_gumbel(uint64_t seed, uint64_t stream, uint64_t counter) {
    return -log(-log(random_uniform(seed, stream, counter)));
}

uint64_t random_below(uint64_t seed, uint64_t stream, uint64_t counter, uint64_t n) {
    return (uint64_t)(((unsigned __int128)random_bits(seed, stream, counter) * n) >> 64);
}

void random_permutation(uint64_t seed, uint64_t stream, int* order, int n) {
    for (int i = 0; i < n; i++) order[i] = i;
    for (int i = n - 1; i > 0; i--) {
        int j = (int)random_below(seed, stream, (uint64_t)i, (uint64_t)i + 1), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
}
