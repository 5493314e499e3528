/*
`eval_seal judge`: a local model as judge. Pairwise, as AlpacaEval's weighted annotators: the template shows an
instruction and two outputs, labelled m and M, and asks for one label; the preference is p = sigmoid(logit of one −
logit of the other). Both orders are asked and averaged, because judges favour a place. With --guard each output is
judged on its own, and the figure is the probability that the answer begins with the word unsafe. With --rubric it is
judged by another row of the table of judges (judges.h).
*/
#ifndef SEAL_JUDGE_H
#define SEAL_JUDGE_H

#include "commands/eval_options.h"

int judge_command(const EvalOptions* o);

#endif
