/* Known kinds of rows (a file of labels), for pages that show what a score did with each kind. */
#ifndef SEAL_ROW_LABELS_H
#define SEAL_ROW_LABELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MOST_LABELS 16
typedef struct {
    char names[MOST_LABELS][48];
    int n;
    int* of_row;  // (n_rows) index of its name; -1: none
    int64_t n_rows;
} RowLabels;  // n 0: none given

// One object per line, {"row":0,"kind":"unsafe"}; "label" is read as "kind"; without "row" the line's own number
// counts. Fatal on anything else, with file and line.
RowLabels row_labels_read(const char* path);
void row_labels_free(RowLabels* labels);
const char* row_label_colour(int label);

#ifdef __cplusplus
}
#endif
#endif
