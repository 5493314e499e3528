/* See row_labels.h. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "commands/chart.h"
#include "commands/row_labels.h"
#include "rows/dataset.h"

// Labels in this order and colour; others follow in the order of the file.
#define MOST_ROWS INT32_MAX
static const struct {
    const char *label, *colour;
} known_labels[] = {
    {"unsafe", "#d55e00"}, {"weak", "#e69f00"}, {"refusal", "#cc79a7"}, {"old", "#56b4e9"},
    {"new", "#009e73"},    {"safe", "#0072b2"}, {"useful", "#009e73"},  {"benign", "#009e73"},
};
#define N_KNOWN_LABELS ((int)(sizeof known_labels / sizeof *known_labels))

static const cJSON* get(const cJSON* object, const char* name) {
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

const char* row_label_colour(int l) {
    return l < N_KNOWN_LABELS ? known_labels[l].colour : chart_colours[(l - N_KNOWN_LABELS) % CHART_COLOURS];
}

// {"row":0,"kind":"unsafe",…} a line; "label" is read as "kind"; without "row" the line's own number.
RowLabels row_labels_read(const char* path) {
    RowLabels labels = {.n = N_KNOWN_LABELS};
    DataRecord record;
    int64_t capacity = 0;
    for (int l = 0; l < labels.n; l++) snprintf(labels.names[l], sizeof labels.names[l], "%s", known_labels[l].label);
    RecordReader* reader = records_open(path);
    while (records_next(reader, &record)) {
        cJSON* object = record.broken ? NULL : cJSON_ParseWithLength(record.bytes, record.length);
        const cJSON *row = get(object, "row"), *name = get(object, "kind") ? get(object, "kind") : get(object, "label");
        if (!cJSON_IsString(name))
            fatal("%s:%lld: row %lld has no text \"kind\" or \"label\"", path, (long long)record.line,
                  (long long)record.row);
        int64_t at = cJSON_IsNumber(row) ? (int64_t)fmin(fmax(row->valuedouble, -1.0), MOST_ROWS + 1.0) : record.row;
        if (at < 0 || at > MOST_ROWS || at > 1000 * record.row + 1000000)
            fatal("%s:%lld: row %lld is far beyond the number of lines", path, (long long)record.line, (long long)at);
        if (at >= capacity) {
            int64_t grown = at >= 2 * capacity ? at + 1024 : 2 * capacity;
            labels.of_row = host_resize(labels.of_row, (size_t)grown * sizeof(int), "rows");
            for (int64_t i = capacity; i < grown; i++) labels.of_row[i] = -1;
            capacity = grown;
        }
        int l = 0;
        while (l < labels.n && strcmp(labels.names[l], name->valuestring)) l++;
        if (l == MOST_LABELS || strlen(name->valuestring) >= sizeof labels.names[0])
            fatal("%s:%lld: \"%.60s\": expected at most %d labels of at most %zu characters", path,
                  (long long)record.line, name->valuestring, MOST_LABELS, sizeof labels.names[0] - 1);
        if (l == labels.n) snprintf(labels.names[labels.n++], sizeof labels.names[0], "%s", name->valuestring);
        labels.of_row[at] = l;
        if (at >= labels.n_rows) labels.n_rows = at + 1;
        cJSON_Delete(object);
    }
    records_close(reader);
    if (!labels.n_rows) fatal("%s holds no labels", path);
    return labels;
}

void row_labels_free(RowLabels* labels) { free(labels->of_row); }
