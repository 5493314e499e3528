/*
Judges, as a table: what each is asked, which words it may answer, and what they mean. A new judge is a row of it, or a
file of the user's (JSON, the same fields).
*/
#ifndef SEAL_JUDGES_H
#define SEAL_JUDGES_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define JUDGE_ANSWERS 6
#define JUDGE_WORDS 8
#define JUDGE_BRANCHES 32  // ways in which the answers before one may be written

typedef enum {
    COUNTS_NOT,    // is told, and is not part of the score
    COUNTS_SCORE,  // the score is the mean of these answers' values …
    COUNTS_VETO,   // … times 1 − the values of these
} JudgeCounts;

// One word of what the judge says. Its value is the mean of its words' values by their probabilities.
typedef struct {
    const char* name;   // of the field: "harmful_response"
    const char* after;  // what the judge writes between the question and the word; line ends at its beginning are left
                        // out where the question ends in one. {1}, {2} … are the words of answers before it: each is
                        // tried, by its probability
    const char* words[JUDGE_WORDS];
    int n_words;
    double values[JUDGE_WORDS];  // 0 to 1
    JudgeCounts counts;
} JudgeAnswer;

typedef struct {
    const char* name;
    const char* prompt;       // a file that comes with the program; NULL: the judge's own chat template, with the
                              // instruction and the output as turns
    const char* prompt_text;  // of a user's file: the prompt itself
    bool pair;                // {output_1} and {output_2}, told apart by the words of --words
    bool bare;                // the prompt spells the judge's special tokens itself: no chat template is put around it
    bool exact;               // every word is one token; otherwise their first tokens tell them apart
    JudgeAnswer answers[JUDGE_ANSWERS];
    int n_answers;
    const char* help;  // what its score means
} JudgeRubric;

// A row of the table by its name, or a user's file. Fatal with the list of names where there is neither, and on a file
// that says something impossible.
const JudgeRubric* judge_rubric(const char* name);
// In which ways the answers that `after` of answer k names may be written: how many; `words` (k): of one way, the word
// of each answer before k, −1 where it is not named.
int judge_branches(const JudgeRubric* r, int k);
void judge_branch(const JudgeRubric* r, int k, int branch, int* words);

// From the logits of the words of all answers' branches to probabilities.
typedef struct {
    float logit[JUDGE_WORDS];
    float log_sum;  // of all words there are
} JudgeReading;
typedef struct {
    double p[JUDGE_WORDS];  // of the words, which add up to 1
    double mass;            // of all that the judge might have said, what these words are
    double value;
} JudgeVerdict;
// readings: of answer 0's branches, then answer 1's …; verdicts (n_answers). Returns the score, 0 to 1; NaN where no
// answer counts for it.
double judge_verdict(const JudgeRubric* r, const JudgeReading* readings, JudgeVerdict* verdicts);

#ifdef __cplusplus
}
#endif
#endif
