/* See refusal_texts.h. */
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "commands/refusal_texts.h"
#include "commands/refusals.h"

typedef struct {
    char* text;
    int64_t count, first;
} Answer;
typedef struct {
    Answer* answers;
    size_t n, capacity;
} Answers;

static int by_text(const void* a, const void* b) {
    const Answer *x = a, *y = b;
    int order = strcmp(x->text, y->text);
    return order ? order : (x->first > y->first) - (x->first < y->first);
}
static int commonest(const void* a, const void* b) {
    const Answer *x = a, *y = b;
    if (x->count != y->count) return x->count > y->count ? -1 : 1;
    return (x->first > y->first) - (x->first < y->first);
}

static void add_answer(Answers* all, const char* text, size_t n, int64_t id) {
    if (all->n == all->capacity) {
        all->capacity = all->capacity ? 2 * all->capacity : 256;
        all->answers = host_resize(all->answers, all->capacity * sizeof *all->answers, "the refusals");
    }
    all->answers[all->n++] = (Answer){host_copy(text, n), 1, id};
}

// Each text once, with its number; the others are freed.
static void count_equals(Answers* all) {
    size_t kept = 0;
    qsort(all->answers, all->n, sizeof *all->answers, by_text);
    for (size_t i = 0; i < all->n; i++)
        if (kept && !strcmp(all->answers[kept - 1].text, all->answers[i].text)) {
            all->answers[kept - 1].count++;
            free(all->answers[i].text);
        } else all->answers[kept++] = all->answers[i];
    all->n = kept;
}

static void read_data(Refusals* r, const StringList* files, const RowOptions* options, bool only_refusing, int most) {
    Answers all = {0};
    DataRow row;
    RowReader* reader = rows_open(files, options);
    while (rows_next(reader, &row))
        if (row.state == ROW_OK && (!only_refusing || begins_like_refusal(row.response, &refusal_phrases)))
            add_answer(&all, row.response, row.response_length, row.id);
    rows_close(reader);
    if (!all.n)
        fatal("%s: %s; give texts that refuse with --refusals", files->items[0],
              only_refusing ? "no answer begins as a refusal does" : "no row has an answer");
    count_equals(&all);
    qsort(all.answers, all.n, sizeof *all.answers, commonest);
    for (size_t i = 0; i < all.n; i++)
        if (r->n < most) r->texts[r->n++] = all.answers[i].text;
        else free(all.answers[i].text);
    free(all.answers);
}

static void read_lines(Refusals* r, const char* path) {
    size_t length;
    char* text = file_read(path, (size_t)1 << 24, &length);
    if (strlen(text) != length) fatal("%s holds a zero character", path);
    for (size_t at = strncmp(text, "\xEF\xBB\xBF", 3) ? 0 : 3; at < length;) {
        const char* end = memchr(text + at, '\n', length - at);
        size_t n = (end ? (size_t)(end - text) : length) - at, next = at + n + 1;
        while (n && strchr(" \t\r", text[at + n - 1])) n--;
        if (n && r->n == REFUSALS_MOST)
            fatal("%s has more than %d lines; each costs a pass over all rows", path, REFUSALS_MOST);
        if (n) r->texts[r->n++] = host_copy(text + at, n);
        at = next;
    }
    free(text);
    if (!r->n) fatal("%s has no line with a text that refuses", path);
}

void refusals_read(Refusals* r, const StringList* files, const RowOptions* options, bool only_refusing, int most) {
    const char* path = files->items[0];
    size_t n = strlen(path);
    memset(r, 0, sizeof *r);
    if (files->n == 1 && n > 4 && !strcmp(path + n - 4, ".txt")) read_lines(r, path);
    else read_data(r, files, options, only_refusing, most < REFUSALS_MOST ? most : REFUSALS_MOST);
}

void refusals_free(Refusals* r) {
    for (int i = 0; i < r->n; i++) free(r->texts[i]);
    memset(r, 0, sizeof *r);
}
