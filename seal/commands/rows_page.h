/*
A page about rows: what a score says of each, which rows are at its ends and around the cut, and where two scores
disagree. One file that needs nothing else; data/rows_page.html is its template. All rows are in it as numbers, those
that are shown also as text, which is folded until it is asked for and never part of the markup.
*/
#ifndef SEAL_ROWS_PAGE_H
#define SEAL_ROWS_PAGE_H

#include "commands/eval_options.h"

#ifdef __cplusplus
extern "C" {
#endif

// `report --rows`. Fatal where files do not belong together, with file and row.
void rows_page(const EvalOptions* o);

#ifdef __cplusplus
}
#endif
#endif
