/*
Win rates from annotations: our own and AlpacaEval's files. An annotation's preference is between 1 (output_1, the
baseline, wins) and 2 (output_2 wins); 0 and 1.5 are draws, null and NaN are not answers. Win rate = 100 ·
mean(preference − 1), standard error = 100 · std(ddof 1)/√n, as AlpacaEval's leaderboards.
*/
#ifndef SEAL_WINRATE_H
#define SEAL_WINRATE_H

#include "commands/eval_options.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    int64_t n;                    // annotations that count
    int64_t wins, losses, draws;  // of output_2: preference above, below, at 1.5
    int64_t null, nan;            // annotations without a preference
    int64_t flips, both;  // judged in both orders (field "preference_swapped"): how many, and where the two orders name
                          // different winners
    double win_rate, standard_error;      // percent; NaN where n is 0, or 1
    double length_1, length_2;            // mean characters of the outputs that count; NaN where the file holds none
    double controlled, controlled_error;  // percent; the win rate at outputs of one length, and its standard error;
                                          // NaN: not asked for, or there is none
    double length_effect;                 // b of logit P(win) = a + b · tanh(difference of lengths / its deviation)
    char generator_1[128], generator_2[128];  // of the first annotation; empty: not named
    char annotator[128];                      // empty: not named
} WinRate;

// The win rates of a file, one for each annotator in it, in the order of their first annotations; to be freed. Fatal on
// what is not an annotation, with file and row; on several generators in one place, which would mix two models'
// win rates.
WinRate* winrate_read(const char* path, int* n);
// The same with the length-controlled win rates. Fatal where an annotation with a preference lacks an output.
WinRate* winrate_read_controlled(const char* path, int* n);

// The length-controlled win rate of n preferences (0 to 1) between outputs whose lengths differ by difference (n): the
// logistic regression logit P(win) = a + b · tanh(difference / sd), at difference 0; AlpacaEval 2's without its
// difficulty of instructions. *error: the jackknife's standard error, over at most 1,000 groups. Both in percent, NaN
// where the fit has no finite solution: a difference of lengths, or nothing, decides every preference.
double length_controlled(const double* preference, const double* difference, int64_t n, double* error, double* effect);
int winrate_command(const EvalOptions* o, const StringList* files);

#ifdef __cplusplus
}
#endif
#endif
