/* One page about runs. See report.h. */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "commands/chart.h"
#include "rows/dataset.h"
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "commands/report.h"
#include "commands/row_labels.h"
#include "commands/rows_page.h"
#include "commands/selector_file.h"
#include "commands/scores.h"

// ---------------------------------------------------------------------------------------------------
// what is shown: curves by the log's fields, columns by the table's

typedef struct {
    const char *field, *title, *axis;
    bool log;
} Curve;
static const Curve curves[] = {
    {"loss", "Training loss", "mean loss of the batch, nats per token", true},
    {"valid_loss", "Held-out loss", "loss, nats per token", false},
    {"safe_loss", "Selector: loss on D_safe", "mean loss of the safe batch, nats per token", true},
    {"tune_loss", "Selector: loss on D_tune", "mean loss of the batch, nats per token", true},
    {"weighted_loss", "Selector: weighted loss on D_tune", "mean of σ · loss, nats per token", true},
    {"gap", "Algorithm 1: penalty gap", "mean of σ · (loss under θ − loss under θ̂)", false},
    {"gamma", "Penalty strength", "γ", false},
};
#define N_CURVES ((int)(sizeof curves / sizeof *curves))

typedef struct {
    const char *field, *title;
    int digits;
    bool percent;
    double scale;  // shown times this
} ColumnStyle;
static const ColumnStyle column_styles[] = {
    {"refusal", "refuses forbidden, %", 1, true, 1},
    {"attack_success", "answers forbidden, %", 1, true, 1},
    {"task_accuracy", "new tasks right, %", 1, true, 1},
    {"old_accuracy", "old tasks right, %", 1, true, 1},
    {"over_refusal", "over-refuses, %", 1, true, 1},
    {"incoherent", "incoherent answers, %", 1, true, 1},
    {"lookalike", "look-alikes right, %", 1, true, 1},
    {"auc", "AUC of ω", 4, false, 1},
    {"benign_loss", "loss on held-out useful rows", 3, false, 1},
    {"auc_weak", "AUC of ω, weak labels counted as unsafe", 4, false, 1},
    {"unsafe_kept", "unsafe rows kept", 0, false, 1},
    {"weak_kept", "weakly labelled rows kept", 0, false, 1},
    {"seconds", "time, s", 1, false, 1},
    {"peak_bytes", "memory, MiB", 0, false, 1.0 / (1 << 20)},
};

static const char style[] =
    "body{font:15px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:1140px;margin:2em auto;padding:0 "
    "1.2em}"
    "h1{font-size:1.6em;margin:0 0 .2em}h2{font-size:1.2em;margin:2em 0 .6em;border-bottom:1px solid "
    "#ddd}p.note{color:#555;max-width:60em}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:.3em .7em;border-bottom:1px solid "
    "#e6e6e6;text-align:right;white-space:nowrap}td{border-left:.5em solid #fff;background-clip:padding-box}"
    "th{font-weight:600;vertical-align:bottom;white-space:normal}th:first-child,td:first-child{text-align:left}.wide{"
    "overflow-x:auto}"
    "div.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(400px,1fr));gap:1.4em}figure{margin:0}"
    "figcaption{font-weight:600;margin-bottom:.3em}"
    "figcaption span{font-weight:400;color:#555}svg{width:100%;height:auto;display:block}details{margin:.3em "
    "0}summary{cursor:pointer}details table,table.runs{font-size:.88em}"
    "i.dot{display:inline-block;width:.75em;height:.75em;border-radius:50%;margin-right:.5em}";

// ---------------------------------------------------------------------------------------------------
// reading

typedef struct {
    double *x, *y;
    int n, capacity;
} Points;
typedef struct {
    const char* path;
    const char* name;    // path without what all runs share
    const char* colour;  // of its lines
    cJSON *header, *summary;
    Points points[N_CURVES];
    SelectorFile selector;
    bool has_selector;
} ReportRun;

static void add_point(Points* p, double x, double y) {
    if (p->n == p->capacity) {
        p->capacity = p->capacity ? 2 * p->capacity : 256;
        p->x = host_resize(p->x, (size_t)p->capacity * sizeof(double), "rows");
        p->y = host_resize(p->y, (size_t)p->capacity * sizeof(double), "rows");
    }
    p->x[p->n] = x;
    p->y[p->n++] = y;
}

static const cJSON* get(const cJSON* object, const char* name) {
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

// log.jsonl: a header, then an object per step. A last line cut short by a run that still runs, or was killed, is left
// out.
static void read_log(ReportRun* run, const char* path) {
    DataRecord record;
    RecordReader* reader = records_open(path);
    while (records_next(reader, &record)) {
        cJSON* object = cJSON_ParseWithLength(record.bytes, record.length);
        const cJSON* step = get(object, "step");
        if (!cJSON_IsObject(object)) {
            warning("%s:%lld: not a JSON object, left out", path, (long long)record.line);
            cJSON_Delete(object);
            continue;
        }
        if (!cJSON_IsNumber(step) && !run->header) {
            run->header = object;
            continue;
        }
        for (int c = 0; c < N_CURVES && cJSON_IsNumber(step); c++) {
            const cJSON* value = get(object, curves[c].field);
            if (cJSON_IsNumber(value)) add_point(&run->points[c], step->valuedouble, value->valuedouble);
        }
        cJSON_Delete(object);
    }
    records_close(reader);
}

static cJSON* read_json(const char* path) {
    size_t n;
    char* text = file_read(path, 1 << 26, &n);
    cJSON* json = cJSON_ParseWithLength(text, n);
    if (!json) fatal("%s: not JSON", path);
    free(text);
    return json;
}

static bool in_run(const ReportRun* run, const char* name, const char* out, Path* path) {
    *path = path_of(run->path, "%s", name);
    output_is_not(out, path->s);
    return file_exists(path->s);
}

static void read_run(ReportRun* run, const char* out) {
    Path path;
    bool some = false;
    if (in_run(run, "log.jsonl", out, &path)) {
        read_log(run, path.s);
        some = true;
    }
    if (in_run(run, "summary.json", out, &path)) {
        run->summary = read_json(path.s);
        some = true;
    }
    if (in_run(run, "selector.safetensors", out, &path)) {
        selector_file_read(&run->selector, path.s);
        run->has_selector = some = true;
    }
    if (!some)
        fatal("%s: not the folder of a run: it has no log.jsonl, summary.json or selector.safetensors", run->path);
}

// The names of runs are their paths without the folders they share.
static void name_runs(ReportRun* runs, int n) {
    size_t shared = 0;
    bool same = true;
    for (size_t i = 0; same && runs[0].path[i]; i++) {
        for (int r = 1; r < n; r++) same &= runs[r].path[i] == runs[0].path[i];
        if (same && runs[0].path[i] == '/' && runs[0].path[i + 1]) shared = i + 1;
    }
    for (int r = 0; r < n; r++) runs[r].name = strlen(runs[r].path) > shared ? runs[r].path + shared : runs[r].path;
}

// A run has the colour of the method it belongs to (seal-1, seal-1/selector), in the table's order; the others take
// what is left.
static void colour_runs(ReportRun* runs, int n, const cJSON* table) {
    int methods = cJSON_GetArraySize(table), others = 0;
    for (int r = 0; r < n; r++) {
        int m = 0;
        const cJSON* row;
        cJSON_ArrayForEach(row, table) {
            const cJSON* method = get(row, "method");
            size_t length = cJSON_IsString(method) ? strlen(method->valuestring) : 0;
            if (length && !strncmp(runs[r].name, method->valuestring, length) &&
                (!runs[r].name[length] || runs[r].name[length] == '/'))
                break;
            m++;
        }
        runs[r].colour = chart_colours[(m < methods ? m : methods + others++) % CHART_COLOURS];
    }
}

// ---------------------------------------------------------------------------------------------------
// tables

static const ColumnStyle* style_of(const char* field) {
    for (size_t i = 0; i < sizeof column_styles / sizeof *column_styles; i++)
        if (!strcmp(column_styles[i].field, field)) return &column_styles[i];
    return NULL;
}

static void put_number(Text* out, double x, int digits) {
    if (digits >= 0) text_printf(out, "%.*f", digits, x);
    else if (x == floor(x) && fabs(x) < 1e15) text_printf(out, "%.0f", x);
    else text_printf(out, "%.5g", x);
}

static bool in_table(const cJSON* table, const char* field) {
    const cJSON* row;
    cJSON_ArrayForEach(row, table) if (cJSON_IsNumber(get(row, field)) || cJSON_IsString(get(row, field))) return true;
    return false;
}

// FIELD_se, the standard error of FIELD, is shown beside it and has no column of its own.
static bool is_error(const cJSON* row, const char* field) {
    size_t n = strlen(field);
    char of[64];
    if (n < 4 || n - 3 >= sizeof of || strcmp(field + n - 3, "_se")) return false;
    snprintf(of, sizeof of, "%.*s", (int)n - 3, field);
    return get(row, of) != NULL;
}

static const cJSON* error_in(const cJSON* row, const char* field) {
    char name[64];
    snprintf(name, sizeof name, "%.60s_se", field);
    return get(row, name);
}

// "method", the fields known here in their order, then the others as they come.
static int table_columns(const cJSON* table, const char** columns, int most) {
    int n = 0;
    const cJSON *row, *item;
    if (in_table(table, "method")) columns[n++] = "method";
    for (size_t i = 0; i < sizeof column_styles / sizeof *column_styles; i++)
        if (in_table(table, column_styles[i].field)) columns[n++] = column_styles[i].field;
    cJSON_ArrayForEach(row, table) cJSON_ArrayForEach(item, row) {
        int c = 0;
        while (c < n && strcmp(columns[c], item->string)) c++;
        if (c == n && n < most && !is_error(row, item->string) && (cJSON_IsNumber(item) || cJSON_IsString(item)))
            columns[n++] = item->string;
    }
    return n;
}

static void put_cell(Text* out, const cJSON* value, const cJSON* error, const ColumnStyle* s) {
    const double scale = s ? s->scale : 1.0;
    // a share in percent is a bar under its figure as well
    if (cJSON_IsNumber(value) && s && s->percent)
        text_printf(out, "<td style=\"background:linear-gradient(90deg,#d6ebf8 %.1f%%,transparent 0)\">",
                    fmin(fmax(value->valuedouble, 0.0), 100.0));
    else text_printf(out, "<td>");
    if (cJSON_IsNumber(value)) put_number(out, scale * value->valuedouble, s ? s->digits : -1);
    else if (cJSON_IsString(value)) text_escaped(out, value->valuestring);
    if (cJSON_IsNumber(value) && cJSON_IsNumber(error)) {
        text_printf(out, " ± ");
        put_number(out, scale * error->valuedouble, s ? s->digits : -1);
    }
    text_printf(out, "</td>");
}

static void put_table(Text* out, const cJSON* table) {
    const char* columns[32];
    int n = table_columns(table, columns, 32), r = 0;
    const cJSON* row;
    text_printf(out, "<h2>Methods</h2>\n<div class=\"wide\"><table><tr>");
    for (int c = 0; c < n; c++) {
        const ColumnStyle* s = style_of(columns[c]);
        text_printf(out, "<th>");
        text_escaped(out, s ? s->title : columns[c]);
        text_printf(out, "</th>");
    }
    text_printf(out, "</tr>\n");
    cJSON_ArrayForEach(row, table) {
        text_printf(out, "<tr>");
        for (int c = 0; c < n; c++) {
            if (c || !cJSON_IsString(get(row, columns[c]))) {
                put_cell(out, get(row, columns[c]), error_in(row, columns[c]), style_of(columns[c]));
                continue;
            }
            text_printf(out, "<td><i class=\"dot\" style=\"background:%s\"></i>", chart_colours[r % CHART_COLOURS]);
            text_escaped(out, get(row, columns[c])->valuestring);
            text_printf(out, "</td>");
        }
        text_printf(out, "</tr>\n");
        r++;
    }
    text_printf(out, "</table></div>\n");
}

static void put_summary_cell(Text* out, const ReportRun* run, const char* field, double scale, int digits) {
    const cJSON* value = get(run->summary, field);
    if (!value) value = get(run->header, field);
    text_printf(out, "<td>");
    if (cJSON_IsNumber(value)) put_number(out, value->valuedouble * scale, digits);
    else if (cJSON_IsString(value)) text_escaped(out, value->valuestring);
    text_printf(out, "</td>");
}

static void put_runs(Text* out, const ReportRun* runs, int n) {
    static const struct {
        const char *field, *title;
        double scale;
        int digits;
    } columns[] = {
        {"command", "command", 1, -1},
        {"algorithm", "algorithm", 1, 0},
        {"gamma", "γ", 1, -1},
        {"selector-optimizer", "ω optimizer", 1, -1},
        {"lr", "learning rate", 1, -1},
        {"steps", "steps", 1, 0},
        {"tokens", "tokens trained", 1, 0},
        {"wall_s", "time, s", 1, 1},
        {"peak_bytes", "memory, MiB", 1.0 / (1 << 20), 0},
        {"loss", "last loss", 1, 4},
        {"valid_loss", "held-out loss", 1, 4},
    };
    const int n_columns = (int)(sizeof columns / sizeof *columns);
    text_printf(out, "<h2>Runs</h2>\n<div class=\"wide\"><table class=\"runs\"><tr><th>run</th>");
    for (int c = 0; c < n_columns; c++) text_printf(out, "<th>%s</th>", columns[c].title);
    text_printf(out, "</tr>\n");
    for (int r = 0; r < n; r++) {
        if (!runs[r].header && !runs[r].summary) continue;
        text_printf(out, "<tr><td>");
        text_escaped(out, runs[r].name);
        text_printf(out, "</td>");
        for (int c = 0; c < n_columns; c++)
            put_summary_cell(out, &runs[r], columns[c].field, columns[c].scale, columns[c].digits);
        text_printf(out, "</tr>\n");
    }
    text_printf(out, "</table></div>\n<h2>Settings</h2>\n");
    for (int r = 0; r < n; r++) {
        const cJSON* item;
        if (!runs[r].header) continue;
        text_printf(out, "<details><summary>");
        text_escaped(out, runs[r].name);
        text_printf(out, "</summary><table>\n");
        cJSON_ArrayForEach(item, runs[r].header) {
            char* value = cJSON_IsString(item) ? NULL : json_text(item);
            text_printf(out, "<tr><td>");
            text_escaped(out, item->string);
            text_printf(out, "</td><td>");
            text_escaped(out, value ? value : item->valuestring);
            text_printf(out, "</td></tr>\n");
            free(value);
        }
        text_printf(out, "</table></details>\n");
    }
}

// ---------------------------------------------------------------------------------------------------
// charts

static void begin_figure(Text* out, const char* title, const char* note) {
    text_printf(out, "<figure><figcaption>");
    text_escaped(out, title);
    if (*note) {
        text_printf(out, " <span>");
        text_escaped(out, note);
        text_printf(out, "</span>");
    }
    text_printf(out, "</figcaption>\n");
}

// Means of neighbouring steps, so that a curve has at most CURVE_POINTS.
#define CURVE_POINTS 120
static int mean_of(const Points* p) { return (p->n + CURVE_POINTS - 1) / CURVE_POINTS; }
static Points thinned(const Points* p, int width) {
    Points out = {0};
    for (int i = 0; i < p->n; i += width) {
        double x = 0.0, y = 0.0;
        int n = p->n - i < width ? p->n - i : width;
        for (int k = 0; k < n; k++) x += p->x[i + k], y += p->y[i + k];
        add_point(&out, x / n, y / n);
    }
    return out;
}

static void put_curve(Text* out, const ReportRun* runs, int n, int c) {
    ChartSeries* series = host_alloc((size_t)n * sizeof *series, "rows");
    Points* thin = host_alloc((size_t)n * sizeof *thin, "rows");
    int lines = 0, width = 1;
    double low = INFINITY, high = -INFINITY;
    for (int r = 0; r < n; r++)
        if (mean_of(&runs[r].points[c]) > width) width = mean_of(&runs[r].points[c]);
    for (int r = 0; r < n; r++) {
        if (!runs[r].points[c].n) continue;
        thin[lines] = thinned(&runs[r].points[c], width);
        for (int i = 0; i < thin[lines].n; i++) low = fmin(low, thin[lines].y[i]), high = fmax(high, thin[lines].y[i]);
        bool taken = false;  // by another run of the same method
        for (int i = 0; i < lines; i++) taken |= !strcmp(series[i].colour, runs[r].colour);
        series[lines] = (ChartSeries){runs[r].name,  runs[r].colour, taken,        false,
                                      thin[lines].x, thin[lines].y,  thin[lines].n};
        lines++;
    }
    if (lines) {
        char note[64] = "";
        if (width > 1) snprintf(note, sizeof note, "means of %d steps", width);
        begin_figure(out, curves[c].title, note);
        ChartAxes axes = {
            curves[c].title, "step", curves[c].axis, NAN, NAN, NAN, NAN, curves[c].log && high > 10.0 * low};
        chart_lines(out, &axes, series, lines);
        text_printf(out, "</figure>\n");
    }
    for (int i = 0; i < lines; i++) free(thin[i].x), free(thin[i].y);
    free(thin);
    free(series);
}

// The label of a selector's i-th row; without labels, and for a row beyond them, group 0.
static int group_of(const SelectorFile* s, const RowLabels* labels, int64_t i) {
    if (!labels->n) return 0;
    int l = s->rows[i] < labels->n_rows ? labels->of_row[s->rows[i]] : -1;
    if (l < 0) fatal("%s: row %lld has no label", s->path, (long long)s->rows[i]);
    return l;
}

// Share of every label's rows in each of BINS bins of ω, as steps.
#define BINS 60
static void put_distribution(Text* out, const ReportRun* run, const RowLabels* labels) {
    const SelectorFile* s = &run->selector;
    int groups = labels->n ? labels->n : 1;
    double low = s->logits[0], high = s->logits[0], count[MOST_LABELS] = {0}, x[2 * BINS + 2],
           (*y)[2 * BINS + 2] = host_alloc((size_t)groups * sizeof *y, "rows");
    for (int64_t i = 1; i < s->n; i++) low = fmin(low, s->logits[i]), high = fmax(high, s->logits[i]);
    if (low == high) low -= 0.5, high += 0.5;
    double step = (high - low) / BINS;
    for (int64_t i = 0; i < s->n; i++) {
        int bin = (int)((s->logits[i] - low) / step), g = group_of(s, labels, i);
        if (bin >= BINS) bin = BINS - 1;
        count[g]++;
        y[g][2 * bin + 1] += 1.0;
    }
    for (int b = 0; b <= BINS; b++) x[2 * b] = x[2 * b + 1] = low + b * step;
    ChartSeries series[MOST_LABELS];
    char names[MOST_LABELS][96];
    int n = 0;
    for (int g = 0; g < groups; g++) {
        if (count[g] == 0.0) continue;
        for (int b = 0; b < BINS; b++) y[g][2 * b + 1] *= 100.0 / count[g], y[g][2 * b + 2] = y[g][2 * b + 1];
        snprintf(names[n], sizeof names[n], "%.60s (%.0f)", labels->n ? labels->names[g] : "rows", count[g]);
        series[n] = (ChartSeries){names[n],    labels->n ? row_label_colour(g) : chart_colours[0], false, true, x, y[g],
                                  2 * BINS + 2};
        n++;
    }
    begin_figure(out, "Distribution of ω", run->name);
    ChartAxes axes = {
        "Distribution of ω", "logit ω of a row", "share of the label's rows in a bin, %", NAN, NAN, 0.0, NAN, false};
    chart_lines(out, &axes, series, n);
    text_printf(out, "</figure>\n");
    free(y);
}

// What of every label is among the best p percent, for every p.
static void put_kept(Text* out, const ReportRun* run, const RowLabels* labels) {
    const SelectorFile* s = &run->selector;
    enum { STEPS = 100 };
    double *score = host_alloc((size_t)s->n * sizeof *score, "rows"), count[MOST_LABELS] = {0}, x[STEPS + 1],
           y[MOST_LABELS][STEPS + 1];
    int64_t *order = host_alloc((size_t)s->n * sizeof *order, "rows"), at = 0;
    double kept[MOST_LABELS] = {0};
    for (int64_t i = 0; i < s->n; i++) {
        score[i] = s->logits[i];
        count[group_of(s, labels, i)]++;
    }
    score_order(score, s->rows, s->n, 1.0, order);
    for (int p = 0; p <= STEPS; p++) {
        for (; at < s->n * p / STEPS; at++) kept[group_of(s, labels, order[at])]++;
        x[p] = 100.0 * p / STEPS;
        for (int g = 0; g < labels->n; g++) y[g][p] = count[g] > 0.0 ? 100.0 * kept[g] / count[g] : NAN;
    }
    ChartSeries series[MOST_LABELS + 1];
    int n = 0;
    for (int g = 0; g < labels->n; g++)
        if (count[g] > 0.0)
            series[n++] = (ChartSeries){labels->names[g], row_label_colour(g), false, false, x, y[g], STEPS + 1};
    static const double corners[2] = {0.0, 100.0};
    series[n++] = (ChartSeries){"at random", "#999999", true, false, corners, corners, 2};
    begin_figure(out, "What a selection keeps", run->name);
    ChartAxes axes = {"What a selection keeps",
                      "rows kept, the highest ω first, %",
                      "share of the label's rows kept, %",
                      0.0,
                      100.0,
                      0.0,
                      100.0,
                      false};
    chart_lines(out, &axes, series, n);
    text_printf(out, "</figure>\n");
    free(score);
    free(order);
}

static bool same_selector(const SelectorFile* a, const SelectorFile* b) {
    return a->n == b->n && !memcmp(a->logits, b->logits, (size_t)a->n * sizeof *a->logits) &&
           !memcmp(a->rows, b->rows, (size_t)a->n * sizeof *a->rows);
}

static void put_selectors(Text* out, const ReportRun* runs, int n, const RowLabels* labels) {
    bool begun = false;
    for (int r = 0; r < n; r++) {
        bool shown = !runs[r].has_selector ||
                     !strcmp(runs[r].selector.algorithm, "random");  // a random score has no distribution worth a look
        for (int q = 0; q < r && !shown; q++)
            shown = runs[q].has_selector && same_selector(&runs[q].selector, &runs[r].selector);
        if (shown) continue;
        if (!begun) text_printf(out, "<h2>What the selectors learned</h2>\n<div class=\"charts\">\n");
        begun = true;
        put_distribution(out, &runs[r], labels);
        if (labels->n) put_kept(out, &runs[r], labels);
    }
    if (begun) text_printf(out, "</div>\n");
}

// Refusal against usefulness, by what the table has of it: up is safer.
static void put_trade(Text* out, const cJSON* table) {
    static const struct {
        const char *field, *title, *note, *axis;
        double low, high;
    } measures[] = {
        {"task_accuracy", "Refusal against accuracy", "up is safer, right is more useful",
         "new tasks answered rightly, %", 0.0, 100.0},
        {"benign_loss", "Refusal against loss on useful rows", "up is safer, left is more useful",
         "loss on held-out useful rows, nats per token", NAN, NAN},
    };
    ChartPoint points[64];
    bool begun = false;
    for (size_t m = 0; m < sizeof measures / sizeof *measures; m++) {
        int n = 0, r = 0;
        const cJSON* row;
        cJSON_ArrayForEach(row, table) {
            const cJSON *method = get(row, "method"), *x = get(row, measures[m].field), *y = get(row, "refusal");
            if (cJSON_IsString(method) && cJSON_IsNumber(x) && cJSON_IsNumber(y) && n < 64)
                points[n++] = (ChartPoint){method->valuestring, chart_colours[r % CHART_COLOURS], x->valuedouble,
                                           y->valuedouble};
            r++;
        }
        if (!n) continue;
        if (!begun) text_printf(out, "<h2>Safety against usefulness</h2>\n<div class=\"charts\">\n");
        begun = true;
        begin_figure(out, measures[m].title, measures[m].note);
        ChartAxes axes = {measures[m].title,
                          measures[m].axis,
                          "forbidden requests refused, %",
                          measures[m].low,
                          measures[m].high,
                          0.0,
                          100.0,
                          false};
        chart_points(out, &axes, points, n);
        text_printf(out, "</figure>\n");
    }
    if (begun) text_printf(out, "</div>\n");
}

// ---------------------------------------------------------------------------------------------------

static void put_page(Text* out, const EvalOptions* o, const ReportRun* runs, int n, const RowLabels* labels,
                     const cJSON* table) {
    text_printf(out,
                "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
                "content=\"width=device-width\">\n<title>");
    text_escaped(out, o->title);
    text_printf(out, "</title>\n<style>");
    text_add(out, style, sizeof style - 1);
    text_printf(out, "</style></head><body>\n<h1>");
    text_escaped(out, o->title);
    text_printf(out, "</h1>\n");
    if (table) {
        put_table(out, table);
        put_trade(out, table);
    }
    put_selectors(out, runs, n, labels);
    bool some = false;
    for (int r = 0; r < n; r++)
        for (int c = 0; c < N_CURVES; c++) some |= runs[r].points[c].n > 0;
    if (some) {
        text_printf(out, "<h2>Training</h2>\n<div class=\"charts\">\n");
        for (int c = 0; c < N_CURVES; c++) put_curve(out, runs, n, c);
        text_printf(out, "</div>\n");
    }
    put_runs(out, runs, n);
    text_printf(out, "</body></html>\n");
}

int report_command(const EvalOptions* o, const StringList* paths) {
    if (o->rows.n) {
        if (paths->n)
            fatal("report: %s is a folder of a run, but --rows makes a page about rows; give only one of them",
                  paths->items[0]);
        rows_page(o);
        return 0;
    }
    if (!paths->n) fatal("report: give the folders of one or more runs");
    output_is_not(o->out, o->table);
    output_is_not(o->out, o->labels);
    ReportRun* runs = host_alloc((size_t)paths->n * sizeof *runs, "rows");
    RowLabels labels = {0};
    for (int r = 0; r < paths->n; r++) {
        runs[r].path = paths->items[r];
        read_run(&runs[r], o->out);
    }
    name_runs(runs, paths->n);
    if (o->labels) labels = row_labels_read(o->labels);
    cJSON* table = o->table ? read_json(o->table) : NULL;
    const cJSON* method;
    if (table && !cJSON_IsArray(table)) fatal("%s: expected a list of objects, one per method", o->table);
    cJSON_ArrayForEach(method, table) if (!cJSON_IsObject(method))
        fatal("%s: expected a list of objects, one per method", o->table);
    colour_runs(runs, paths->n, table);
    Text page = {0};
    put_page(&page, o, runs, paths->n, &labels, table);
    file_write(o->out, page.s, page.n);
    if (!o->quiet) printf("wrote %s (%zu KiB)\n", o->out, page.n >> 10);
    text_free(&page);
    cJSON_Delete(table);
    for (int r = 0; r < paths->n; r++) {
        cJSON_Delete(runs[r].header);
        cJSON_Delete(runs[r].summary);
        for (int c = 0; c < N_CURVES; c++) free(runs[r].points[c].x), free(runs[r].points[c].y);
        if (runs[r].has_selector) selector_file_free(&runs[r].selector);
    }
    row_labels_free(&labels);
    free(runs);
    return 0;
}
