/*
A synthetic world: a language of some 280 words in which it can be counted, not judged, whether a model is safe and
whether it is useful. Families of questions are rows of a table (world_language.c); files of questions are drawn from it
(world_files.c); answers are compared word by word (world_score.c) and a selector's logits with the true labels
(world_auc.c); both end in a table (world_table.c). Formats: data/README.md.
*/
#ifndef WORLD_H
#define WORLD_H

#include <stdbool.h>
#include <stdint.h>
#include "base/options.h"

// What a row is. UNSAFE and REFUSAL answer the same prompts; FORBIDDEN and LOOKALIKE occur in the test only.
typedef enum {
    KIND_UNSAFE,
    KIND_REFUSAL,
    KIND_OLD,
    KIND_NEW,
    KIND_FORBIDDEN,
    KIND_LOOKALIKE,
    KIND_WEAK,
    N_KINDS
} RowKind;
extern const char* const kind_names[N_KINDS];

typedef struct {
    int64_t seed, tune_rows, safe_rows, base_rows, test_rows;
    double unsafe_share, refusal_share, old_share, safe_refusal_share, base_refusal_share;
    bool absent_family, entropy_family;
    const char *out, *test, *outputs, *selector, *labels;
    double top;
    bool quiet;
} WorldOptions;

// ---- randomness: a number depends on the seed, the purpose, the row and the place in the row alone ----
typedef enum {
    PURPOSE_HELD_STEM = 1,
    PURPOSE_HELD_LETTERS,
    PURPOSE_HELD_WORDING,
    PURPOSE_MEANING,
    PURPOSE_ROW,
    PURPOSE_FAMILY,
    PURPOSE_SHUFFLE
} Purpose;
typedef struct {
    uint64_t seed, stream, counter;
} Draws;
Draws draws_begin(uint64_t seed, Purpose purpose, uint64_t item);
int draws_below(Draws* d, int n);  // uniform in 0 … n − 1

// ---- the language ----------------------------------------------------------------------------------
#define WORLD_TEXT 160   // bytes that hold any prompt or answer
#define WORLD_WORDS 512  // at most so many words

typedef struct {
    RowKind kind;
    const char* family;
    char prompt[WORLD_TEXT], response[WORLD_TEXT];
    char accept[8][WORLD_TEXT];  // every right answer; "[letter]" stands for any letter
    int n_accept;
} Sample;

typedef struct {
    const char* name;
    RowKind kind;   // KIND_OLD: the base model knows it; KIND_NEW: fine-tuning teaches it
    bool in_safe;   // occurs in D_safe
    double weight;  // rows, relative to the other families of its kind
} FamilyInfo;

int families(const WorldOptions* o, FamilyInfo* out, int most);  // those of this world, in the table's order
// A useful question of the named family; a request with a forbidden noun (kind UNSAFE, REFUSAL, FORBIDDEN); a harmless
// question about a forbidden noun (LOOKALIKE). held_out: of what training never sees, otherwise of what it does.
void sample_useful(const WorldOptions* o, const char* family, bool held_out, Draws* d, Sample* s);
void sample_forbidden(const WorldOptions* o, RowKind kind, bool held_out, Draws* d, Sample* s);
void sample_lookalike(const WorldOptions* o, bool held_out, Draws* d, Sample* s);
bool is_refusal(const char* answer);                          // one of the refusals, word by word
bool answer_matches(const char* answer, const char* accept);  // word by word; "[letter]" takes any letter
int vocabulary(char (*words)[24], int most);  // every word there is, special tokens first; the same for all seeds
extern const char* const special_tokens[3];   // unknown, begin, end of sequence

// ---- the commands ----------------------------------------------------------------------------------
int world_generate(const WorldOptions* o);
int world_score(const WorldOptions* o);
int world_auc(const WorldOptions* o);
int world_table(const WorldOptions* o, const StringList* directories);
int world_summary(const StringList* files);

// Ranks from 1, ties averaged; the area under the curve of `good` against the others by rank sums; Spearman's ρ. NaN
// where undefined.
void average_ranks(const double* x, int n, double* rank);
double area_under_curve(const double* x, const bool* good, int n);
double spearman(const double* x, const double* y, int n);

#endif
