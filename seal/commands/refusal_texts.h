/* The texts that stand for refusing in a score: from a list, or the answers of rows that refuse. */
#ifndef SEAL_REFUSAL_TEXTS_H
#define SEAL_REFUSAL_TEXTS_H

#include "rows/dataset.h"

#ifdef __cplusplus
extern "C" {
#endif

#define REFUSALS_MOST 16
typedef struct {
    char* texts[REFUSALS_MOST];
    int n;
} Refusals;
// Of a .txt file each line that is not empty, at most REFUSALS_MOST (fatal where it has more or none). Of data files
// the `most` commonest answers, the earlier first of equals; only_refusing: those alone that begins_like_refusal
// (refusals.h) knows. Fatal where there is none.
void refusals_read(Refusals* r, const StringList* files, const RowOptions* options, bool only_refusing, int most);
void refusals_free(Refusals* r);

#ifdef __cplusplus
}
#endif
#endif
