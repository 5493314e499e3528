/*
How well a selector's logits tell rows apart, held against the true labels. Prints one JSON object:
  auc: P(ω of a useful row > ω of an unsafe row), ties half; useful is kind old or new, rows of the kinds refusal and
weak (whose label is doubtful) are left out. auc_safe: the same with refusals counted among the rows to keep. auc_weak:
with weak rows counted as unsafe. unsafe_kept, weak_kept: those rows among the top ⌊p·N⌋ of N rows by ω, as
select keeps them (ties: the lower row first), beside how many rows of every kind and family are kept.
spearman_last_visit: rank correlation of ω with the step of a row's last visit, where the file tells it (tensor
last_visit)
*/
#include <cjson/cJSON.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rows/dataset.h"
#include "base/error.h"
#include "base/text.h"
#include "base/safetensors.h"
#include "world.h"

// ---------------------------------------------------------------------------------------------------
// ranks

typedef struct {
    double x;
    int i;
} Ranked;

static int by_value(const void* a, const void* b) {
    const Ranked *p = a, *q = b;
    return p->x < q->x ? -1 : p->x > q->x ? 1 : p->i < q->i ? -1 : p->i > q->i;
}

static void* allocate(size_t n, size_t size) {
    void* p = host_alloc((n ? n : 1) * size, "rows");
    return p;
}

void average_ranks(const double* x, int n, double* rank) {
    Ranked* r = allocate((size_t)n, sizeof *r);
    for (int i = 0; i < n; i++) r[i] = (Ranked){x[i], i};
    qsort(r, (size_t)n, sizeof *r, by_value);
    for (int i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && r[j].x == r[i].x;) j++;
        for (int k = i; k < j; k++) rank[r[k].i] = 0.5 * (double)(i + 1 + j);  // places i + 1 … j share their mean
    }
    free(r);
}

// Mann–Whitney: the rank sum of the good rows, less its smallest possible value, over all pairs.
double area_under_curve(const double* x, const bool* good, int n) {
    double* rank = allocate((size_t)n, sizeof *rank);
    double sum = 0.0, n_good = 0.0;
    average_ranks(x, n, rank);
    for (int i = 0; i < n; i++)
        if (good[i]) {
            sum += rank[i];
            n_good += 1.0;
        }
    free(rank);
    double n_bad = (double)n - n_good;
    return n_good == 0.0 || n_bad == 0.0 ? NAN : (sum - 0.5 * n_good * (n_good + 1.0)) / (n_good * n_bad);
}

double spearman(const double* x, const double* y, int n) {
    double *a = allocate((size_t)n, sizeof *a), *b = allocate((size_t)n, sizeof *b), mean = 0.5 * (double)(n + 1),
           ab = 0.0, aa = 0.0, bb = 0.0;
    average_ranks(x, n, a);
    average_ranks(y, n, b);
    for (int i = 0; i < n; i++) {
        ab += (a[i] - mean) * (b[i] - mean);
        aa += (a[i] - mean) * (a[i] - mean);
        bb += (b[i] - mean) * (b[i] - mean);
    }
    free(a);
    free(b);
    return aa > 0.0 && bb > 0.0 ? ab / sqrt(aa * bb) : NAN;
}

// ---------------------------------------------------------------------------------------------------
// labels and logits, joined by row

typedef struct {
    RowKind kind;
    char family[24];
} Label;

typedef struct {
    int n;  // rows of the selector
    double *omega, *last_visit;
    int64_t* row;
    Label* label;  // of every row of the selector
    int64_t n_labels;
} Joined;

static Label* read_labels(const char* path, int64_t* n) {
    DataRecord record;
    RecordReader* reader = records_open(path);
    Label* labels = NULL;
    int64_t capacity = 0;
    *n = 0;
    while (records_next(reader, &record)) {
        cJSON* object = record.broken ? NULL : cJSON_ParseWithLength(record.bytes, record.length);
        const cJSON *row = cJSON_GetObjectItemCaseSensitive(object, "row"),
                    *kind = cJSON_GetObjectItemCaseSensitive(object, "kind");
        const cJSON* family = cJSON_GetObjectItemCaseSensitive(object, "family");
        if (!cJSON_IsNumber(row) || !cJSON_IsString(kind) || row->valuedouble != (double)*n)
            fatal("%s:%lld: expected {\"row\":%lld,\"kind\":…,\"family\":…}, rows in order", path,
                  (long long)record.line, (long long)*n);
        int k = 0;
        while (k < N_KINDS && strcmp(kind_names[k], kind->valuestring)) k++;
        if (k > KIND_NEW && k != KIND_WEAK)
            fatal("%s:%lld: kind \"%.40s\"; expected unsafe, weak, refusal, old or new", path, (long long)record.line,
                  kind->valuestring);
        if (*n == capacity) {
            capacity = capacity ? 2 * capacity : 1024;
            labels = host_resize(labels, (size_t)capacity * sizeof *labels, "the labels");
        }
        labels[*n].kind = (RowKind)k;
        snprintf(labels[*n].family, sizeof labels->family, "%s", cJSON_IsString(family) ? family->valuestring : "");
        (*n)++;
        cJSON_Delete(object);
    }
    records_close(reader);
    if (!*n) fatal("%s holds no labels", path);
    return labels;
}

static void read_last_visit(const StReader* r, Joined* j) {
    if (!st_find(r, "last_visit")) return;
    int64_t* steps = allocate((size_t)j->n, sizeof *steps);
    st_copy(r, "last_visit", ST_I64, j->n, steps);
    j->last_visit = allocate((size_t)j->n, sizeof *j->last_visit);
    for (int i = 0; i < j->n; i++) j->last_visit[i] = (double)steps[i];
    free(steps);
}

static Joined join(const WorldOptions* o) {
    Joined j = {.n = 0};
    StReader r;
    int64_t n_labels;
    Label* labels = read_labels(o->labels, &n_labels);
    st_open(&r, o->selector);
    const StTensor* t = st_need(&r, "logits");
    if (t->count < 1 || t->count > 1 << 30)
        fatal("%s: tensor logits has %lld elements", o->selector, (long long)t->count);
    j.n = (int)t->count;
    j.n_labels = n_labels;
    float* logits = allocate((size_t)j.n, sizeof *logits);
    j.omega = allocate((size_t)j.n, sizeof *j.omega);
    j.row = allocate((size_t)j.n, sizeof *j.row);
    j.label = allocate((size_t)j.n, sizeof *j.label);
    bool* scored = allocate((size_t)n_labels, sizeof *scored);
    st_to_float(&r, t, 0, j.n, logits);
    st_copy(&r, "row", ST_I64, j.n, j.row);
    read_last_visit(&r, &j);
    for (int i = 0; i < j.n; i++) {
        int64_t row = j.row[i];
        if (row < 0 || row >= n_labels)
            fatal("%s: logit %d belongs to row %lld, %s has rows 0 to %lld", o->selector, i, (long long)row, o->labels,
                  (long long)n_labels - 1);
        if (scored[row]) fatal("%s: row %lld has two logits", o->selector, (long long)row);
        if (!isfinite(logits[i])) fatal("%s: the logit of row %lld is not a number", o->selector, (long long)row);
        scored[row] = true;
        j.omega[i] = logits[i];
        j.label[i] = labels[row];
    }
    free(scored);
    free(logits);
    free(labels);
    st_close(&r);
    return j;
}

// ---------------------------------------------------------------------------------------------------
// figures

// AUC of the useful rows (and refusals, if asked) against the unsafe ones (and the weakly labelled ones, if asked).
static double auc_of(const Joined* j, bool with_refusals, bool with_weak) {
    double* x = allocate((size_t)j->n, sizeof *x);
    bool* good = allocate((size_t)j->n, sizeof *good);
    int n = 0;
    for (int i = 0; i < j->n; i++) {
        RowKind kind = j->label[i].kind;
        if ((kind == KIND_REFUSAL && !with_refusals) || (kind == KIND_WEAK && !with_weak)) continue;
        x[n] = j->omega[i];
        good[n++] = kind != KIND_UNSAFE && kind != KIND_WEAK;
    }
    double auc = area_under_curve(x, good, n);
    free(x);
    free(good);
    return auc;
}

static const Joined* sorted;  // qsort takes no context
static int by_omega(const void* a, const void* b) {
    int p = *(const int*)a, q = *(const int*)b;
    if (sorted->omega[p] != sorted->omega[q]) return sorted->omega[p] > sorted->omega[q] ? -1 : 1;
    return sorted->row[p] < sorted->row[q] ? -1 : sorted->row[p] > sorted->row[q];
}

// Marks the top ⌊p·N⌋ as `select` and `sft` keep them: N the rows that have a logit, those at the end of the scale,
// which are never kept, included.
static int keep_top(const Joined* j, double top, bool* kept) {
    int* order = allocate((size_t)j->n, sizeof *order);
    // p·N is meant in exact arithmetic: 0.29 · 100 is 29, not 28.999…
    int most = (int)floor(top * (double)j->n * (1 + 1e-12)), eligible = 0;
    for (int i = 0; i < j->n; i++) eligible += j->omega[i] > -FLT_MAX;
    if (most > eligible) most = eligible;
    for (int i = 0; i < j->n; i++) order[i] = i;
    sorted = j;
    qsort(order, (size_t)j->n, sizeof *order, by_omega);
    for (int i = 0; i < most; i++) kept[order[i]] = true;
    free(order);
    return most;
}

static void add_number(cJSON* object, const char* name, double x) {
    if (isfinite(x)) cJSON_AddNumberToObject(object, name, round(1e6 * x) / 1e6);
    else cJSON_AddNullToObject(object, name);
}

static void count_in(cJSON* groups, const char* name, bool kept) {
    cJSON* group = cJSON_GetObjectItemCaseSensitive(groups, name);
    if (!group) {
        group = cJSON_AddObjectToObject(groups, name);
        cJSON_AddNumberToObject(group, "rows", 0);
        cJSON_AddNumberToObject(group, "kept", 0);
    }
    cJSON *rows = group->child, *n = rows->next;
    cJSON_SetNumberValue(rows, rows->valuedouble + 1);
    cJSON_SetNumberValue(n, n->valuedouble + kept);
}

int world_auc(const WorldOptions* o) {
    Joined j = join(o);
    bool* kept = allocate((size_t)j.n, sizeof *kept);
    int selected = keep_top(&j, o->top, kept), unsafe = 0, unsafe_kept = 0, weak = 0, weak_kept = 0;
    cJSON *out = cJSON_CreateObject(), *kinds = cJSON_CreateObject(), *by_family = cJSON_CreateObject();
    for (int i = 0; i < j.n; i++) {
        RowKind kind = j.label[i].kind;
        count_in(kinds, kind_names[kind], kept[i]);
        if ((kind == KIND_OLD || kind == KIND_NEW) && *j.label[i].family)
            count_in(by_family, j.label[i].family, kept[i]);
        unsafe += kind == KIND_UNSAFE;
        unsafe_kept += kind == KIND_UNSAFE && kept[i];
        weak += kind == KIND_WEAK;
        weak_kept += kind == KIND_WEAK && kept[i];
    }
    add_number(out, "auc", auc_of(&j, false, false));
    add_number(out, "auc_safe", auc_of(&j, true, false));
    if (weak) add_number(out, "auc_weak", auc_of(&j, false, true));
    cJSON_AddNumberToObject(out, "top", o->top);
    cJSON_AddNumberToObject(out, "rows", (double)j.n_labels);
    cJSON_AddNumberToObject(out, "rows_without_logit", (double)(j.n_labels - j.n));
    cJSON_AddNumberToObject(out, "kept", selected);
    cJSON_AddNumberToObject(out, "unsafe", unsafe);
    cJSON_AddNumberToObject(out, "unsafe_kept", unsafe_kept);
    if (weak) {
        cJSON_AddNumberToObject(out, "weak", weak);
        cJSON_AddNumberToObject(out, "weak_kept", weak_kept);
    }
    if (j.last_visit) add_number(out, "spearman_last_visit", spearman(j.omega, j.last_visit, j.n));
    cJSON_AddItemToObject(out, "kinds", kinds);
    cJSON_AddItemToObject(out, "families", by_family);
    char* text = json_pretty_text(out);
    puts(text);
    free(text);
    cJSON_Delete(out);
    free(kept);
    free(j.omega);
    free(j.row);
    free(j.label);
    free(j.last_visit);
    return 0;
}
