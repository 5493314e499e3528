/*
Counter-based random numbers: Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). A
number depends only on (seed, stream, counter), never on what was drawn before, so any rank, thread or resumed run draws
the same.
*/
#ifndef SEAL_RANDOM_H
#define SEAL_RANDOM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
uint64_t random_bits(uint64_t seed, uint64_t stream, uint64_t counter);
double random_uniform(uint64_t seed, uint64_t stream, uint64_t counter);  // in (0, 1), both ends excluded
double random_normal(uint64_t seed, uint64_t stream, uint64_t counter);   // mean 0, variance 1
double random_gumbel(uint64_t seed, uint64_t stream, uint64_t counter);   // Gumbel(0, 1): −log(−log u)
// Uniform in [0, n); no number's probability is off by more than n/2^64 of itself.
uint64_t random_below(uint64_t seed, uint64_t stream, uint64_t counter, uint64_t n);
// A permutation of 0 … n − 1 that belongs to (seed, stream): Fisher–Yates.
void random_permutation(uint64_t seed, uint64_t stream, int* order, int n);

#ifdef __cplusplus
}
#endif
#endif
