/* The filtered data, for any trainer: scores by a method of the table (scores.h), the top share, the original rows.
 * See select.h. */
#include <float.h>
#include <string.h>
#include <unistd.h>
#include "commands/check.h"
#include "commands/dsir.h"
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "kernels.h"
#include "base/log.h"
#include "base/ranks.h"
#include "commands/loss.h"
#include "commands/measure.h"
#include "run/result_key.h"
#include "run/run.h"
#include "run/samples.h"
#include "commands/select.h"
#include "commands/selector_file.h"
#include "commands/scores.h"
#include "commands/selection.h"
#include "commands/token_mask.h"
#include "trainer.h"

#define EXPLAINED 10  // rows from either end that --explain shows

// The rows that may be kept and what each is worth.
typedef struct {
    int64_t n, n_rows, most;  // candidates; records of the files
    int64_t* rows;            // (n) ids, ascending
    uint64_t* hashes;         // (n)
    Hex digest;
    SelectorFile selector;  // method seal
    Measurement measured;   // methods that ask a model
    float* loss;            // (n) under --model where only --explain asks for it
    double *given, *score;  // (n)
} Candidates;

// The rows that have a prompt and a response; `tell`: names the others.
static void find_usable(Candidates* c, const StringList* files, const RowOptions* options, bool tell, bool quiet) {
    RowReader* reader = rows_open(files, options);
    RowReport report = {};
    Progress progress;
    DataRow row;
    int64_t done, total;
    rows_progress(reader, &done, &total);
    progress_begin(&progress, "reading", total, quiet);
    while (rows_next(reader, &row)) {
        row_report_add(&report, &row, files->items[row.file], NULL);
        if (++c->n_rows % 1024 == 0) {
            rows_progress(reader, &done, &total);
            progress_update(&progress, done, "%lld rows", (long long)c->n_rows);
        }
        if (row.state != ROW_OK) continue;
        if (c->n == c->most) {
            c->most = c->most ? 2 * c->most : 1024;
            c->rows = (int64_t*)host_resize(c->rows, (size_t)c->most * sizeof *c->rows, "rows");
            c->hashes = (uint64_t*)host_resize(c->hashes, (size_t)c->most * sizeof *c->hashes, "rows");
        }
        c->hashes[c->n] = row_hash(row.prompt, row.prompt_length, row.response, row.response_length);
        c->rows[c->n++] = row.id;
    }
    progress_end(&progress);
    rows_digest(reader, c->digest);
    rows_report(reader, &report);
    rows_close(reader);
    if (tell) row_report_print(&report, quiet, stderr);
    if (!c->n) fatal("%s: no row has a prompt and a response", files->items[0]);
}

// Only these of the usable rows (ids ascend in both lists).
static void keep_rows(Candidates* c, const int64_t* rows, const uint64_t* hashes, int64_t n) {
    c->rows = (int64_t*)host_resize(c->rows, (size_t)n * sizeof *c->rows, "rows");
    c->hashes = (uint64_t*)host_resize(c->hashes, (size_t)n * sizeof *c->hashes, "rows");
    memcpy(c->rows, rows, (size_t)n * sizeof *c->rows);
    memcpy(c->hashes, hashes, (size_t)n * sizeof *c->hashes);
    c->n = n;
}

static void read_selector(Candidates* c, const TrainOptions* o) {
    selector_file_read(&c->selector, o->selector);
    selector_file_check(&c->selector, &o->tune, c->digest, c->n_rows, c->rows, c->n);
    keep_rows(c, c->selector.rows, c->selector.hashes, c->selector.n);
}

static void open_model(const TrainOptions* o, ModelConfig* config, TrainerSettings* settings, TokenSet* set) {
    memset(settings, 0, sizeof *settings);
    model_config_read(config, o->model);
    check_sizes(config);
    load_samples(set, &o->tune, "tune", NULL, o, config, NULL, NULL);
    settings->batch_max = (int)o->batch;
    run_settings(o, config, settings);
}

// What the method's options are, and that it has what it needs: before anything is read.
static void check_method_options(const ScoreMethod* method, const TrainOptions* o) {
    for (int i = 0; i < train_options.n_options; i++) {
        const OptionRow* row = &train_options.options[i];
        if (!(row->commands >> COMMAND_SELECT & 1)) continue;
        bool given = options_given(&train_options, row->name);
        char needed[64];
        snprintf(needed, sizeof needed, "%s", row->name);
        if (given && score_any_takes(needed) && !score_takes(method, needed))
            fatal("select: --%s has no effect with --method %s", row->name, method->name);
    }
    for (const char* p = method->needs; *p; p += strcspn(p, ","), p += *p == ',') {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(p, ","), p);
        if (!options_given(&train_options, name)) fatal("select: method %s needs --%s", o->method, name);
    }
}

static void refuse_none(const TrainOptions* o, int64_t n) {
    fatal("%s: --top %g of %lld rows keeps none; raise --top", o->tune.items[0], o->top, (long long)n);
}

static void ask_model(Candidates* c, const TrainOptions* o, const ScoreMethod* method) {
    Measurement* m = &c->measured;
    measure_open(m, o, method);
    if (strcmp(m->set.digest, c->digest)) fatal("%s: changed while it was read", o->tune.items[0]);
    bool all = method->measure == measure_toss && !options_given(&train_options, "top");
    if (!all && score_share(o->top, m->n) < 1) refuse_none(o, m->n);  // now, not after hours
    method->measure(m);
    keep_rows(c, m->rows, m->hashes, m->n);
    if (!o->quiet) measure_cost(m, stdout);
}

static void ask_target(Candidates* c, const TrainOptions* o, const RowOptions* rows) {
    DsirOptions options = {};
    DsirScores scores;
    int64_t short_rows = 0;
    options.rows = *rows;
    options.quiet = o->quiet;
    dsir_score(&scores, &o->tune, &o->target, &options);
    if (strcmp(scores.digest, c->digest)) fatal("%s: changed while it was read", o->tune.items[0]);
    c->given = scores.log_weight;
    scores.log_weight = NULL;
    for (int64_t i = 0; i < c->n; i++)
        if (scores.words[i] < o->min_words) {
            c->given[i] = -INFINITY;
            short_rows++;
        }
    if (!o->quiet && o->min_words)
        printf("%lld rows have fewer than %lld words\n", (long long)short_rows, (long long)o->min_words);
    if (!o->quiet && o->noise) printf("Gumbel noise of seed %lld\n", (long long)o->seed);
    dsir_free(&scores);
}

// Every row's score as a selector of its own, named after its method: `select --method seal` and sft take it, and
// whatever measures selectors.
static void write_scores(const Candidates* c, const TrainOptions* o) {
    SelectorFile file = {};
    Text names = {};
    file.n = c->n;
    file.n_rows = c->n_rows;
    file.logits = (float*)host_alloc((size_t)c->n * sizeof(float), "rows");
    for (int64_t i = 0; i < c->n; i++) file.logits[i] = c->score[i] == -INFINITY ? -FLT_MAX : (float)c->score[i];
    file.rows = c->rows;
    file.hashes = c->hashes;
    for (int i = 0; i < o->tune.n; i++) {
        if (i) text_add(&names, " ", 1);
        text_add(&names, o->tune.items[i], strlen(o->tune.items[i]));
    }
    file.files = names.s;
    memcpy(file.digest, c->digest, sizeof file.digest);
    snprintf(file.algorithm, sizeof file.algorithm, "%s", o->method);
    snprintf(file.activation, sizeof file.activation, "softmax");
    const SelectorFile* from = c->selector.n ? &c->selector : NULL;  // its scores again: read as it was learned
    snprintf(file.tokenizer, sizeof file.tokenizer, "%s", from ? from->tokenizer : c->measured.tokenizer);
    snprintf(file.chat, sizeof file.chat, "%s", from ? from->chat : c->measured.set.chat_digest);
    file.seed = o->seed;
    selector_file_write(&file, o->scores);
    text_free(&names);
    free(file.logits);
}

// The losses under --model of the rows that --explain shows, of whatever method; a row whose prompt it cannot read has
// none.
static void measure_shown(Candidates* c, const TrainOptions* o, const int64_t* order) {
    ModelConfig config;
    TokenSet set = {};
    TrainerSettings settings;
    open_model(o, &config, &settings, &set);
    PackSample samples[2 * EXPLAINED];
    int64_t index[2 * EXPLAINED];
    TokenSet shown = {};
    shown.samples = samples;
    c->loss = (float*)host_alloc((size_t)c->n * sizeof(float), "rows");
    for (int64_t i = 0; i < c->n; i++) c->loss[i] = NAN;
    for (int64_t place = 0; place < c->n; place++) {
        if (place == EXPLAINED && c->n > 2 * EXPLAINED) place = c->n - EXPLAINED;
        int64_t i = order[place], low = 0, high = set.n;  // rows ascend
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (set.rows[middle] < c->rows[i]) low = middle + 1;
            else high = middle;
        }
        if (low == set.n || set.rows[low] != c->rows[i]) continue;
        samples[shown.n] = set.samples[low];
        index[shown.n++] = i;
    }
    if (shown.n) {
        const LossOptions how = {o->model, o->adapter, NULL, NULL, false, o->quiet, o->dry_run, NULL, NULL};
        float* loss = response_losses(&how, &config, &settings, &shown);
        for (int k = 0; k < shown.n; k++) c->loss[index[k]] = loss[k];
        free(loss);
    }
    tokens_free(&set);
}

static void explain(Candidates* c, const TrainOptions* o, const RowOptions* rows, const int64_t* order, int64_t kept) {
    double* sigma = NULL;
    if (c->selector.n) {
        sigma = (double*)host_alloc((size_t)c->n * sizeof(double), "rows");
        selector_weights(c->selector.logits, c->n, !strcmp(c->selector.activation, "sigmoid"), sigma);
    }
    const Measurement* m = &c->measured;
    Explanation explanation = {};
    explanation.rows = c->rows;
    explanation.score = c->score;
    explanation.order = order;
    explanation.sigma = sigma;
    explanation.loss = m->loss ? m->loss : c->loss;
    explanation.n = c->n;
    explanation.kept = kept;
    explanation.show = EXPLAINED;
    for (; explanation.n_more < m->n_shown; explanation.n_more++) {
        explanation.more[explanation.n_more].name = m->shown[explanation.n_more].name;
        explanation.more[explanation.n_more].value = m->shown[explanation.n_more].value;
    }
    kept_explain(&explanation, &o->tune, rows, stdout);
    free(sigma);
}

// toss: the dropped tokens of the rows that --explain shows, in red, or in brackets where there is no terminal.
static void explain_tokens(const Candidates* c, const TrainOptions* o, const int64_t* order) {
    const Measurement* m = &c->measured;
    bool colour = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
    char error[512];
    Tokenizer* tokenizer = tokenizer_open(o->model, error, sizeof error);
    if (!tokenizer) fatal("%s", error);
    char* piece = (char*)host_alloc((size_t)tokenizer_longest_piece(tokenizer) + 16, "a token's text");
    uint8_t* dropped = (uint8_t*)host_alloc((size_t)m->set.longest, "the tokens");
    for (int64_t place = 0; place < c->n; place++) {
        if (place == EXPLAINED && c->n > 2 * EXPLAINED) place = c->n - EXPLAINED;
        int64_t i = order[place], token = m->token_start[i];
        PackSample s = m->samples[i];
        int n = 0;
        for (int t = 0; t < s.length; t++) {
            bool bears = t > 0 && (!s.bears_loss || s.bears_loss[t]);
            dropped[t] = bears && !m->token_keep[token++];
            n += dropped[t];
        }
        printf("\nrow %lld: %d of %d tokens are dropped%s\n", (long long)c->rows[i], n, s.n_loss,
               place    ? ""
               : colour ? " (in red)"
                        : " (in \xE2\x9F\xA6"
                          "brackets\xE2\x9F\xA7)");
        s.bears_loss = dropped;
        print_marked(tokenizer, &s, colour ? "\x1b[31m" : "\xE2\x9F\xA6", colour ? "\x1b[0m" : "\xE2\x9F\xA7", piece);
        putchar('\n');
    }
    free(piece);
    free(dropped);
    tokenizer_close(tokenizer);
}

// What decides a reference: its rows, the model, the options of its training.
static void reference_key(const TrainOptions* mine, Hex key) {
    TrainOptions o = *mine;
    Text text = {};
    Hex digest;
    o.tune.n = 0;  // paths may differ: the digests say what is in the files
    o.model = o.out = o.adapter = o.token_mask = NULL;
    o.resume = o.quiet = false;
    o.ranks = 0;
    char* options = options_json(&train_options, COMMAND_SFT, &o);
    dataset_digest(&mine->tune, digest);
    text_printf(&text, "%s\n%s\n", options, digest);
    model_directory_digest(mine->model, digest);
    text_printf(&text, "%s\n", digest);
    if (mine->adapter) {
        model_directory_digest(mine->adapter, digest);
        text_printf(&text, "%s\n", digest);
    }
    if (mine->token_mask) {
        file_sha256_hex(mine->token_mask, digest);
        text_printf(&text, "%s\n", digest);
    }
    sha256_hex(text.s, text.n, key);
    text_free(&text);
    free(options);
}

// A reference of toss: an adapter of --model, trained by sft with the paper's settings in a RUN beside --out. One that
// is there is taken with --resume, and a training that was stopped continues; neither with other rows or settings.
// from: an adapter that is trained further, on the tokens of a mask; NULL: a fresh one, on all.
static const char* train_reference(const TrainOptions* o, const StringList* rows, const char* what, const char* from,
                                   const char* token_mask, int (*train)(const TrainOptions* o, int command),
                                   Path* adapter) {
    TrainOptions mine = *o;
    Path run;
    if (!rows->n) fatal("--method toss needs --%s, or --%s-adapter", what, what);
    snprintf(run.s, sizeof run.s, "%.4000s.%s", o->out, what);
    *adapter = path_of(run.s, "adapter");
    Path summary = path_of(run.s, "summary.json"), of = path_of(run.s, "reference.txt");
    int ended = file_exists(summary.s);
    ranks_share(&ended, sizeof ended);
    if (ended && !o->resume)
        fatal("%s holds a reference already; give --resume, or it as --%s-adapter %s, or remove it", run.s, what,
              adapter->s);
    mine.tune = *rows;
    mine.out = run.s;
    mine.lora = from ? "none" : "q,v";
    mine.adapter = from;
    mine.token_mask = token_mask;
    if (!options_given(&train_options, "epochs")) mine.epochs = 2.0;
    if (!ranks_rank()) {
        Hex key;
        size_t length;
        reference_key(&mine, key);
        char* then = ended && file_exists(of.s) ? file_read(of.s, 4096, &length) : NULL;
        if (ended && (!then || strcmp(then, key)))
            fatal("%s was trained on other rows, another model or with other settings; remove it to train it again",
                  run.s);
        free(then);
        directory_make(run.s);
        if (!ended) file_write(of.s, key, strlen(key));
    }
    if (ended) return adapter->s;
    train(&mine, COMMAND_SFT);
    return adapter->s;
}

static Path mask_path(const TrainOptions* o) {
    Path path;
    snprintf(path.s, sizeof path.s, "%.4000s%s", o->token_mask ? o->token_mask : o->out,
             o->token_mask ? "" : ".mask.safetensors");
    return path;
}

// Which tokens of the rows that were just written to `rows` are trained: those that stay, or those that are dropped.
// Their place in the file is their order among the kept.
static void write_token_mask(const Candidates* c, const uint8_t* keep, bool dropped, const char* rows,
                             const char* path) {
    const Measurement* m = &c->measured;
    TokenMask mask = {};
    StringList out = {};
    const char* items[] = {rows};
    size_t n = (size_t)c->n;
    mask.rows = (int64_t*)host_alloc(n * sizeof(int64_t), "the mask of tokens");
    mask.start = (int64_t*)host_alloc((n + 1) * sizeof(int64_t), "the mask of tokens");
    mask.hashes = (uint64_t*)host_alloc(n * sizeof(uint64_t), "the mask of tokens");
    mask.keep = (uint8_t*)host_alloc((size_t)m->token_start[m->n], "the mask of tokens");
    for (int64_t i = 0; i < c->n; i++) {
        if (!keep[c->rows[i]]) continue;
        int64_t count = m->token_start[i + 1] - m->token_start[i];
        for (int64_t k = 0; k < count; k++)
            mask.keep[mask.start[mask.n] + k] = m->token_keep[m->token_start[i] + k] != dropped;
        mask.rows[mask.n] = mask.n;
        mask.hashes[mask.n] = c->hashes[i];
        mask.start[mask.n + 1] = mask.start[mask.n] + count;
        mask.n++;
    }
    out.items = items;
    out.n = 1;
    dataset_digest(&out, mask.digest);
    snprintf(mask.tokenizer, sizeof mask.tokenizer, "%s", m->tokenizer);
    snprintf(mask.chat, sizeof mask.chat, "%s", m->set.chat_digest);
    token_mask_write(&mask, path);
    free(mask.rows);
    free(mask.start);
    free(mask.hashes);
    free(mask.keep);
}

// Where the cut is among rows of the same score, their numbers decide. Where all rows have the same score there is no
// order, which is reported even with --quiet.
static void tell_ties(const Candidates* c, const TrainOptions* o, const int64_t* order, int64_t kept) {
    if (kept == c->n || c->score[order[kept - 1]] != c->score[order[kept]]) return;
    double score = c->score[order[kept]];
    int64_t first = kept - 1, last = kept;
    while (first && c->score[order[first - 1]] == score) first--;
    while (last + 1 < c->n && c->score[order[last + 1]] == score) last++;
    if (last - first + 1 == c->n)
        warning("all %lld rows have the same score, %g: the first of the file are kept", (long long)c->n, score);
    else if (!o->quiet)
        warning("%lld rows have the score of the cut, %g; of those the first %lld are kept",
                (long long)(last - first + 1), score, (long long)(kept - first));
}

// What is written is not written over what is read: data, selectors, the files of models and adapters.
static void check_output(const TrainOptions* o, const char* path) {
    static const char* const of_models[] = {"config.json", "generation_config.json", "model", "tokenizer", "adapter_"};
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const StringList* const lists[] = {&o->tune,  &o->target,   &o->safe,  &o->harmful,
                                       &o->probe, &o->refusals, &o->useful};
    const char* const directories[] = {o->model,          o->adapter,        o->reference, o->reference_adapter,
                                       o->useful_adapter, o->harmful_adapter};
    for (size_t k = 0; k < sizeof lists / sizeof *lists; k++)
        for (int i = 0; i < lists[k]->n; i++) output_is_not(path, lists[k]->items[i]);
    output_is_not(path, o->selector);
    for (size_t k = 0; k < sizeof directories / sizeof *directories; k++)
        for (size_t n = 0; directories[k] && n < sizeof of_models / sizeof *of_models; n++)
            if (!strncmp(name, of_models[n], strlen(of_models[n])))
                output_is_not(path, path_of(directories[k], "%s", name).s);
}

// TOSS-Pro: the harmful reference is trained further on the tokens that it told, with --useful's, to be harmful. Rows
// and mask of those stay beside --out, so that a run that was stopped need not find them again.
static const char* refine_reference(const TrainOptions* o, const ScoreMethod* method, const RowOptions* rows, int round,
                                    const Hex key, int (*train)(const TrainOptions* o, int command), Path* adapter) {
    Path found = path_text("%.4000s.found-%d.jsonl", o->out, round),
         mask = path_text("%.4000s.found-%d.mask.safetensors", o->out, round);
    const char *beside[] = {mask.s, NULL}, *items[] = {found.s};
    StringList list = {items, 1};
    char name[32];
    check_output(o, found.s);
    check_output(o, mask.s);
    int there = result_is_there(found.s, key, beside, o->resume, true);
    ranks_share(&there, sizeof there);
    if (!there) {
        Candidates c = {};
        find_usable(&c, &o->tune, rows, false, o->quiet);
        ask_model(&c, o, method);
        uint8_t* keep = (uint8_t*)host_alloc((size_t)c.n_rows, "rows");
        for (int64_t i = 0; i < c.n; i++)
            for (int64_t t = c.measured.token_start[i]; t < c.measured.token_start[i + 1]; t++)
                keep[c.rows[i]] |= !c.measured.token_keep[t];
        if (!ranks_rank()) {
            kept_write(&o->tune, keep, c.n_rows, c.digest, found.s, o->quiet);
            write_token_mask(&c, keep, true, found.s, mask.s);
        }
        measure_close(&c.measured);  // its journal first: the next round has another
        if (!ranks_rank()) result_record(found.s, key);
        free(keep);
        free(c.rows);
        free(c.hashes);
    }
    snprintf(name, sizeof name, "harmful-%d", round);
    return train_reference(o, &list, name, o->harmful_adapter, mask.s, train, adapter);
}

int select_command(const TrainOptions* options, int (*train)(const TrainOptions* o, int command)) {
    TrainOptions with_references = *options;
    const TrainOptions* o = &with_references;
    const ScoreMethod* method = score_method(o->method);
    bool toss = method->measure == measure_toss;
    Path useful, harmful, refined[2];  // a round reads the last one's
    RowOptions row_options = {};
    row_options.prompt_template = o->prompt_template;
    row_options.prompt_field = o->prompt_field;
    row_options.response_field = o->response_field;
    Candidates c = {};
    check_method_options(method, o);

    // Nothing is written over.
    Hex key;
    Path mask = mask_path(o);
    const char* beside[] = {o->scores ? o->scores : toss ? mask.s : NULL, o->scores && toss ? mask.s : NULL, NULL};
    result_key(&train_options, COMMAND_SELECT, o, "", key);
    if (result_is_there(o->out, key, beside, o->resume, o->quiet)) return 0;
    kept_check_output(&o->tune, o->out);
    check_output(o, o->out);
    if (o->scores) {
        check_output(o, o->scores);
        if (same_place(o->scores, o->out)) fatal("%s is both --out and --scores", o->out);
        output_probe(o->scores);
    }
    if (o->dry_run && method->source != SCORE_FROM_MODEL && !(o->explain && o->model)) {
        printf("method %s uses no model: nothing is allocated on the device\n", method->name);
        return 0;
    }

    if (toss) {
        check_output(o, mask.s);
        if (same_place(mask.s, o->out)) fatal("%s is both --out and --token-mask", o->out);
        if (o->scores && same_place(mask.s, o->scores)) fatal("%s is both --scores and --token-mask", mask.s);
        output_probe(mask.s);
    }
    if (o->useful.n && o->useful_adapter) fatal("--useful has no effect with --useful-adapter");
    if (toss && o->harmful.n && o->harmful_adapter) fatal("--harmful has no effect with --harmful-adapter");
    if (toss && !o->dry_run) {
        if (!o->useful_adapter)
            with_references.useful_adapter = train_reference(options, &options->useful, "useful", NULL, NULL, train,
                                                             &useful);
        if (!o->harmful_adapter)
            with_references.harmful_adapter = train_reference(options, &options->harmful, "harmful", NULL, NULL, train,
                                                              &harmful);
        if (o->refine && o->drop_tokens == 0.0) fatal("--refine needs --drop-tokens above 0, or nothing is found");
        for (int round = 1; round <= o->refine; round++)
            with_references.harmful_adapter = refine_reference(o, method, &row_options, round, key, train,
                                                               &refined[round % 2]);
    }

    // Who may be kept, and what each is worth.
    bool tell = method->source == SCORE_FROM_SELECTOR || method->source == SCORE_FROM_SEED;
    find_usable(&c, &o->tune, &row_options, tell && !ranks_rank(), o->quiet);  // a model or DSIR names them itself
    switch (method->source) {
        case SCORE_FROM_SELECTOR: read_selector(&c, o); break;
        case SCORE_FROM_SEED: break;
        case SCORE_FROM_MODEL: ask_model(&c, o, method); break;
        case SCORE_FROM_TARGET: ask_target(&c, o, &row_options); break;
    }
    const double* given = c.measured.n ? c.measured.score : c.given;
    ScoreInput input = {c.selector.n ? &c.selector : NULL, given, (uint64_t)o->seed, o->noise};
    c.score = (double*)host_alloc((size_t)c.n * sizeof(double), "rows");

    // The order, and the best share of it.
    int64_t* order = (int64_t*)host_alloc((size_t)c.n * sizeof(int64_t), "rows");
    uint8_t* keep = (uint8_t*)host_alloc((size_t)c.n_rows, "rows");
    int64_t without = score_rows(method, &input, c.rows, c.n, c.score);
    for (int64_t i = 0; i < c.n && o->reverse; i++)
        if (c.score[i] != -INFINITY) c.score[i] = -c.score[i];
    int64_t kept = score_order(c.score, c.rows, c.n, o->top, order);
    if (toss && !options_given(&train_options, "top")) kept = c.n - without;  // tokens are what is chosen
    if (!kept) refuse_none(o, c.n);
    if (kept > c.n - without)
        fatal("%s: --top %g asks for %lld rows but only %lld %s", o->tune.items[0], o->top, (long long)kept,
              (long long)(c.n - without),
              toss ? "have a token left to train; lower --top or --drop-tokens"
                   : "may be kept; lower --top or --min-words");
    if (!ranks_rank()) tell_ties(&c, o, order, kept);
    for (int64_t i = 0; i < kept; i++) keep[c.rows[order[i]]] = 1;

    // The results. The other ranks have done their part.
    if (o->explain && o->model && !c.measured.n) measure_shown(&c, o, order);
    if (!ranks_rank()) {
        if (o->explain) explain(&c, o, &row_options, order, kept);
        if (o->explain && toss) explain_tokens(&c, o, order);
        if (o->scores) write_scores(&c, o);
        int64_t written = kept_write(&o->tune, keep, c.n_rows, c.digest, o->out, o->quiet);
        if (toss) write_token_mask(&c, keep, false, o->out, mask.s);
        if (toss && !o->quiet) printf("the tokens to train: %s\n", mask.s);
        result_record(o->out, key);
        if (!o->quiet)
            printf("%lld of %lld rows (%lld scored) by %s to %s\n", (long long)written, (long long)c.n_rows,
                   (long long)c.n, method->name, o->out);
    }
    if (c.measured.n) measure_close(&c.measured);
    if (c.selector.n) selector_file_free(&c.selector);
    free(c.rows);
    free(c.hashes);
    free(c.loss);
    free(c.given);
    free(c.score);
    free(order);
    free(keep);
    return 0;
}
