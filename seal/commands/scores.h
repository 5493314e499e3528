/* What scores a row, as a table: a new method is a row of it. And the order that scores give. */
#ifndef SEAL_SCORES_H
#define SEAL_SCORES_H

#include "commands/selector_file.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const SelectorFile* selector;  // method seal
    const double* scores;  // (n) methods whose score comes from a model or a target: higher is kept first (safe-loss:
                           // −loss, dsir: log weight)
    uint64_t seed;         // methods random and dsir
    bool noise;            // method dsir: Gumbel noise on the log weights, so that the kept rows are a sample by weight
} ScoreInput;

typedef enum { SCORE_FROM_SELECTOR, SCORE_FROM_SEED, SCORE_FROM_MODEL, SCORE_FROM_TARGET } ScoreSource;

typedef struct Measurement Measurement;  // measure.h: what a model says of rows
typedef struct {
    const char* name;
    ScoreSource source;
    void (*score)(const ScoreInput* in, const int64_t* rows, int64_t n, double* score);
    void (*measure)(Measurement* m);  // SCORE_FROM_MODEL: measures the rows, and leaves a score of each, higher kept
                                      // first
    const char* takes;                // options that only some methods take: "reference,reference-adapter"
    const char* needs;                // those of its options that it cannot do without
    const char* help;
} ScoreMethod;
const ScoreMethod* score_method(const char* name);  // fatal with the list of names where there is none
// Whether the method takes an option, and whether any method does.
bool score_takes(const ScoreMethod* m, const char* option);
bool score_any_takes(const char* option);
// A score for each of the candidate rows; −∞ for a row the selector has no logit for. Returns how many those are.
int64_t score_rows(const ScoreMethod* m, const ScoreInput* in, const int64_t* rows, int64_t n, double* score);

// ⌊top·n⌋ as the user means it: 0.29 · 100 is 28.999…96 in binary and 29 to who typed it.
int64_t score_share(double top, int64_t n);
// order (n): indices by falling score, ties by row; returns ⌊top·n⌋, the number of `order` to keep. 0 < top ≤ 1. A
// score that is not a number is fatal.
int64_t score_order(const double* score, const int64_t* rows, int64_t n, double top, int64_t* order);

// The methods' `measure`, each in a file of its own or with its kin. One list, since the fuzz targets stand in for all.
#define FOR_EACH_MEASURE(_)   \
    _(measure_safe_loss)      \
    _(measure_loss_diff)      \
    _(measure_influence)      \
    _(measure_gradient_norm)  \
    _(measure_representation) \
    _(measure_refusal)        \
    _(measure_refusal_test)   \
    _(measure_toss)
#define DECLARE_MEASURE(measure) void measure(Measurement* m);
FOR_EACH_MEASURE(DECLARE_MEASURE)

#ifdef __cplusplus
}
#endif
#endif
