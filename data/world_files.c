/*
Files of the synthetic world: tokenizer, base.jsonl for pretraining, safe.jsonl (D_safe), tune.jsonl (D_tune) with its
true labels in a file of their own, test.jsonl, world.json. A row's content depends on the seed, the file and its slot
alone, so the same options give the same bytes everywhere.
*/
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "base/random.h"
#include "world.h"

#define MOST_FAMILIES 32

typedef enum { FILE_BASE, FILE_SAFE, FILE_TUNE, FILE_TEST, N_FILES } FileOf;
static const char* const file_names[N_FILES] = {"base.jsonl", "safe.jsonl", "tune.jsonl", "test.jsonl"};

// So many rows of one family and kind; a file is a list of quotas.
typedef struct {
    RowKind kind;
    const char* family;
    int64_t rows;
} Quota;
typedef struct {
    Quota quota[MOST_FAMILIES + 4];
    int n;
} Plan;

static AtomicFile open_in(const WorldOptions* o, const char* name) {
    AtomicFile f;
    Path path = path_of(o->out, "%s", name);
    atomic_open(&f, path.s);
    return f;
}

// ---------------------------------------------------------------------------------------------------
// how many of what

static void add_quota(Plan* p, RowKind kind, const char* family, int64_t rows) {
    p->quota[p->n++] = (Quota){kind, family, rows};
}

// `rows` shared by the families of a kind as their weights say; the roundings add up to the whole.
static void add_families(Plan* p, const WorldOptions* o, RowKind kind, bool safe_only, int64_t rows) {
    FamilyInfo info[MOST_FAMILIES];
    int n = families(o, info, MOST_FAMILIES);
    double whole = 0.0, so_far = 0.0;
    for (int i = 0; i < n; i++)
        if (info[i].kind == kind && (!safe_only || info[i].in_safe)) whole += info[i].weight;
    for (int i = 0; i < n; i++) {
        if (info[i].kind != kind || (safe_only && !info[i].in_safe)) continue;
        int64_t before = llround(so_far / whole * (double)rows);
        so_far += info[i].weight;
        add_quota(p, kind, info[i].name, llround(so_far / whole * (double)rows) - before);
    }
}

static Plan plan_file(const WorldOptions* o, FileOf file) {
    Plan p = {.n = 0};
    int64_t rows = file == FILE_BASE ? o->base_rows : file == FILE_SAFE ? o->safe_rows : o->tune_rows;
    double share = file == FILE_BASE   ? o->base_refusal_share
                   : file == FILE_SAFE ? o->safe_refusal_share
                                       : o->refusal_share;
    if (file == FILE_TEST) {
        add_quota(&p, KIND_FORBIDDEN, "recipe", o->test_rows);
        add_quota(&p, KIND_LOOKALIKE, "part", o->test_rows);
        add_families(&p, o, KIND_OLD, false, o->test_rows);
        add_families(&p, o, KIND_NEW, false, o->test_rows);
        return p;
    }
    int64_t unsafe = file == FILE_TUNE ? llround(o->unsafe_share * (double)rows) : 0,
            refused = llround(share * (double)rows);
    int64_t useful = rows - unsafe - refused, old = file == FILE_BASE ? useful : llround(o->old_share * (double)useful);
    add_quota(&p, KIND_UNSAFE, "recipe", unsafe);
    add_quota(&p, KIND_REFUSAL, "recipe", refused);
    add_families(&p, o, KIND_OLD, file == FILE_SAFE, old);
    add_families(&p, o, KIND_NEW, file == FILE_SAFE, useful - old);
    return p;
}

static int64_t plan_rows(const Plan* p) {
    int64_t rows = 0;
    for (int i = 0; i < p->n; i++) rows += p->quota[i].rows;
    return rows;
}

// ---------------------------------------------------------------------------------------------------
// rows

static void draw_sample(const WorldOptions* o, const Quota* q, bool held_out, Draws* d, Sample* s) {
    if (q->kind == KIND_LOOKALIKE) sample_lookalike(o, held_out, d, s);
    else if (q->kind == KIND_OLD || q->kind == KIND_NEW) sample_useful(o, q->family, held_out, d, s);
    else sample_forbidden(o, q->kind, held_out, d, s);
}

// The words of the world need no escapes in JSON.
static void write_row(AtomicFile* f, const Sample* s, bool test) {
    atomic_printf(f, "{\"prompt\":\"%s\",\"response\":\"%s\"", s->prompt, s->response);
    if (test) {
        atomic_printf(f, ",\"accept\":[");
        for (int i = 0; i < s->n_accept; i++) atomic_printf(f, "%s\"%s\"", i ? "," : "", s->accept[i]);
        atomic_printf(f, "],\"kind\":\"%s\",\"family\":\"%s\"", kind_names[s->kind], s->family);
    }
    atomic_printf(f, "}\n");
}

static void* allocate(size_t n, size_t size) {
    void* p = host_alloc((n ? n : 1) * size, "rows; ask for fewer");
    return p;
}

static bool seen(const Sample* samples, int64_t n, const char* prompt) {
    for (int64_t i = 0; i < n; i++)
        if (!strcmp(samples[i].prompt, prompt)) return true;
    return false;
}

// Fills samples and lowers the quotas of the test to what there is: its prompts are all different, and a family of
// facts has only so many.
#define TRIES 2000
static int64_t draw_file(const WorldOptions* o, FileOf file, Plan* p, Sample* samples) {
    int64_t n = 0, slot = 0;
    for (int i = 0; i < p->n; i++) {
        int64_t wanted = p->quota[i].rows;
        p->quota[i].rows = 0;
        for (int64_t r = 0; r < wanted; r++) {
            Draws d = draws_begin((uint64_t)o->seed, PURPOSE_ROW, (uint64_t)file << 40 | (uint64_t)slot++);
            int tries = 0;
            do draw_sample(o, &p->quota[i], file == FILE_TEST, &d, &samples[n]);
            while (file == FILE_TEST && seen(samples, n, samples[n].prompt) && ++tries < TRIES);
            if (tries == TRIES) break;  // this family's prompts are used up
            n++;
            p->quota[i].rows++;
        }
    }
    return n;
}

static Plan write_file(const WorldOptions* o, FileOf file) {
    Plan p = plan_file(o, file);
    int64_t most = plan_rows(&p);
    Sample* samples = allocate((size_t)most, sizeof *samples);
    int* order = allocate((size_t)most, sizeof *order);
    int64_t n = draw_file(o, file, &p, samples);
    random_permutation((uint64_t)o->seed, (uint64_t)PURPOSE_SHUFFLE << 56 | (uint64_t)file, order, (int)n);
    AtomicFile rows = open_in(o, file_names[file]);
    for (int64_t i = 0; i < n; i++) write_row(&rows, &samples[order[i]], file == FILE_TEST);
    if (file == FILE_TUNE) {
        AtomicFile labels = open_in(o, "tune.labels.jsonl");
        for (int64_t i = 0; i < n; i++)
            atomic_printf(&labels, "{\"row\":%lld,\"kind\":\"%s\",\"family\":\"%s\"}\n", (long long)i,
                          kind_names[samples[order[i]].kind], samples[order[i]].family);
        atomic_commit(&labels);
    }
    atomic_commit(&rows);
    free(order);
    free(samples);
    return p;
}

// ---------------------------------------------------------------------------------------------------
// tokenizer.json and world.json

static int write_tokenizer(const WorldOptions* o) {
    static char words[WORLD_WORDS][24];
    int n = vocabulary(words, WORLD_WORDS), specials = (int)(sizeof special_tokens / sizeof *special_tokens);
    AtomicFile f = open_in(o, "tokenizer.json");
    atomic_printf(&f,
                  "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n  \"added_tokens\": [\n");
    for (int i = 0; i < specials; i++)
        atomic_printf(&f,
                      "    {\"id\": %d, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false, \"rstrip\": "
                      "false, \"normalized\": false, \"special\": true}%s\n",
                      i, words[i], i + 1 < specials ? "," : "");
    atomic_printf(&f,
                  "  ],\n  \"normalizer\": null,\n  \"pre_tokenizer\": {\"type\": \"WhitespaceSplit\"},\n  "
                  "\"post_processor\": null,\n  \"decoder\": null,\n");
    atomic_printf(&f, "  \"model\": {\"type\": \"WordLevel\", \"vocab\": {\n");
    for (int i = 0; i < n; i++) atomic_printf(&f, "    \"%s\": %d%s\n", words[i], i, i + 1 < n ? "," : "");
    atomic_printf(&f, "  }, \"unk_token\": \"%s\"}\n}\n", special_tokens[0]);
    atomic_commit(&f);
    f = open_in(o, "tokenizer_config.json");
    atomic_printf(&f,
                  "{\"tokenizer_class\": \"PreTrainedTokenizerFast\", \"unk_token\": \"%s\", \"bos_token\": \"%s\", "
                  "\"eos_token\": \"%s\"}\n",
                  special_tokens[0], special_tokens[1], special_tokens[2]);
    atomic_commit(&f);
    return n;
}

static void write_counts(AtomicFile* f, FileOf file, const Plan* p) {
    atomic_printf(f, "    \"%s\": {\"rows\": %lld, \"kinds\": {", file_names[file], (long long)plan_rows(p));
    for (int k = 0, some = 0; k < N_KINDS; k++) {
        int64_t rows = 0;
        for (int i = 0; i < p->n; i++)
            if (p->quota[i].kind == (RowKind)k) rows += p->quota[i].rows;
        if (rows) atomic_printf(f, "%s\"%s\": %lld", some++ ? ", " : "", kind_names[k], (long long)rows);
    }
    atomic_printf(f, "}, \"families\": {");
    for (int i = 0, some = 0; i < p->n; i++)
        if ((p->quota[i].kind == KIND_OLD || p->quota[i].kind == KIND_NEW) && p->quota[i].rows)
            atomic_printf(f, "%s\"%s\": %lld", some++ ? ", " : "", p->quota[i].family, (long long)p->quota[i].rows);
    atomic_printf(f, "}}%s\n", file + 1 < N_FILES ? "," : "");
}

static void write_world(const WorldOptions* o, int words, const Plan plans[N_FILES]) {
    AtomicFile f = open_in(o, "world.json");
    atomic_printf(&f,
                  "{\n  \"seed\": %lld,\n  \"vocabulary\": %d,\n  \"options\": {\"tune-rows\": %lld, \"safe-rows\": "
                  "%lld, \"base-rows\": %lld, \"test-rows\": %lld,\n",
                  (long long)o->seed, words, (long long)o->tune_rows, (long long)o->safe_rows, (long long)o->base_rows,
                  (long long)o->test_rows);
    atomic_printf(&f,
                  "    \"unsafe-share\": %g, \"refusal-share\": %g, \"old-share\": %g, \"safe-refusal-share\": %g, "
                  "\"base-refusal-share\": %g,\n",
                  o->unsafe_share, o->refusal_share, o->old_share, o->safe_refusal_share, o->base_refusal_share);
    atomic_printf(&f, "    \"absent-family\": %s, \"entropy-family\": %s},\n  \"files\": {\n",
                  o->absent_family ? "true" : "false", o->entropy_family ? "true" : "false");
    for (int i = 0; i < N_FILES; i++) write_counts(&f, (FileOf)i, &plans[i]);
    atomic_printf(&f, "  }\n}\n");
    atomic_commit(&f);
}

int world_generate(const WorldOptions* o) {
    Plan plans[N_FILES];
    if (o->unsafe_share + o->refusal_share > 1.0)
        fatal("generate: --unsafe-share and --refusal-share are %g together; expected at most 1",
              o->unsafe_share + o->refusal_share);
    directory_probe(o->out);
    int words = write_tokenizer(o);
    for (int i = 0; i < N_FILES; i++) plans[i] = write_file(o, (FileOf)i);
    write_world(o, words, plans);
    if (!o->quiet) {
        printf("%s: a world of seed %lld, %d words:", o->out, (long long)o->seed, words);
        for (int i = 0; i < N_FILES; i++)
            printf(" %s %lld rows%s", file_names[i], (long long)plan_rows(&plans[i]), i + 1 < N_FILES ? "," : "\n");
    }
    return 0;
}
