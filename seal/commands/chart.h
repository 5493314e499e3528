/*
Charts as SVG text: lines (filled on demand) over two axes, and labelled points. Every chart is self-contained: no style
sheet, no script, no font of its own. Colours are Okabe and Ito's, told apart by colour-blind readers as well.
*/
#ifndef SEAL_CHART_H
#define SEAL_CHART_H

#include <stdbool.h>
#include "rows/dataset.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CHART_COLOURS 8
extern const char* const chart_colours[CHART_COLOURS];

typedef struct {
    const char* title;                    // read aloud, not drawn
    const char *x_label, *y_label;        // with their units
    double x_low, x_high, y_low, y_high;  // NaN: by the data
    bool log_y;                           // only where all y are above 0
} ChartAxes;

typedef struct {
    const char *name, *colour;
    bool dashed, filled;  // filled: down to the lower edge
    const double *x, *y;  // (n)
    int n;
} ChartSeries;

typedef struct {
    const char *name, *colour;
    double x, y;
} ChartPoint;

// Lines with a legend above.
void chart_lines(Text* out, const ChartAxes* axes, const ChartSeries* series, int n);
// Points with their names beside them, moved apart where they would overlap.
void chart_points(Text* out, const ChartAxes* axes, const ChartPoint* points, int n);

// Adds a text to HTML or SVG: & < > " ' as entities, control characters left out.
void text_escaped(Text* t, const char* text);

#ifdef __cplusplus
}
#endif
#endif
