/*
`eval_seal report`: one self-contained page about runs. It shows what it is given: of every RUN the settings
(log.jsonl's header), the curves (its steps), summary.json and selector.safetensors; with labels the distribution of ω
for each of them; with a table its rows, and refusal against accuracy.
*/
#ifndef SEAL_REPORT_H
#define SEAL_REPORT_H

#include "commands/eval_options.h"

#ifdef __cplusplus
extern "C" {
#endif

int report_command(const EvalOptions* o, const StringList* runs);

#ifdef __cplusplus
}
#endif
#endif
