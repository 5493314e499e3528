/*
`eval_seal report`: one self-contained page about runs. For every RUN it shows the settings and curves (log.jsonl),
summary.json and selector.safetensors; with --labels, the distribution of ω for each label; with --table, the table's
rows, and refusal against accuracy.
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
