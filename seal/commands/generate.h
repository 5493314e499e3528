/*
`eval_seal generate`: answers prompts and writes them as AlpacaEval reads them. Every answer goes to a journal beside
the result as soon as it is there; a run that was stopped resumes from it with --resume, and the result appears under
its name when it is whole.
*/
#ifndef SEAL_GENERATE_H
#define SEAL_GENERATE_H

#include "commands/eval_options.h"

int generate_command(const EvalOptions* o);

#endif
