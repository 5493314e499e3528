/* The data and the cost of a run to come, as tables on stdout. See check_data.h. */
#include <string.h>
#include <unistd.h>
#include "commands/check.h"
#include "device.h"
#include "base/error.h"
#include "base/text.h"
#include "kernels.h"
#include "base/file.h"
#include "base/log.h"
#include "base/random.h"
#include "run/run.h"
#include "run/samples.h"
#include "selector.h"
#include "rows/tokens.h"
#include "tokenizer.h"
#include "trainer.h"

#define BARS 12  // of the histogram of lengths
#define BAR_COLUMNS 40
#define PACKED_STEPS 64  // steps whose packing is tried out: enough for a mean
// The share of a GPU's dense peak that a run of ordinary lengths reaches; for the estimate of hours only.
#define LIKELY_SHARE 0.45

static int by_length(const void* a, const void* b) { return *(const int*)a - *(const int*)b; }

static void print_rows(const TokenSet* set, const char* name) {
    printf("| %-28s | %12lld |\n", name, (long long)set->n_rows);
    for (int state = ROW_OK + 1; state < ROW_STATES; state++)
        if (set->report.count[state])
            printf("| %28s | %12lld |\n", row_state_name((RowState)state), (long long)set->report.count[state]);
    printf("| %28s | %12d |\n", "usable", set->n);
    for (int i = 0; i < set->report.n_layouts; i++)
        printf("| %28s | %12lld |\n", set->report.layouts[i].name, (long long)set->report.layouts[i].rows);
    if (set->report.n_special)
        printf("| %28s | %12lld |\n", "begin with special tokens", (long long)set->report.n_special);
    if (set->report.n_ended) printf("| %28s | %12lld |\n", "answers end with one", (long long)set->report.n_ended);
    printf("| %28s | %12lld |\n", "cut at the maximum length", (long long)set->n_cut);
    printf("| %28s | %12lld |\n", "tokens", (long long)set->n_tokens);
    printf("| %28s | %11.1f%% |\n", "carry loss", 100.0 * (double)set->n_loss / (double)set->n_tokens);
}

// ---------------------------------------------------------------------------------------------------
// --show: what will be trained, before hours of work

// Colour on a terminal, brackets that few texts hold elsewhere.
static const char* const loss_marks[2][2] = {{"\xE2\x9F\xA6", "\xE2\x9F\xA7"}, {"\x1b[1;32m", "\x1b[0m"}};

// Text of a data file on a terminal: its control characters must not steer it.
static void print_text(const char* text) {
    for (const char* s = text; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if ((c < 32 && c != '\n' && c != '\t') || c == 127) printf("\\x%02x", c);
        else putchar(c);
    }
}

void print_marked(const Tokenizer* tokenizer, const PackSample* sample, const char* on, const char* off, char* piece) {
    TokenStream stream = {};
    bool marked = false;
    for (int i = 0; i < sample->length; i++) {
        bool loss = sample->bears_loss ? sample->bears_loss[i] != 0 : i > 0;
        if (loss != marked) {
            piece[tokenizer_stream_end(tokenizer, &stream, piece)] = 0;
            print_text(piece);
            fputs(marked ? off : on, stdout);
            bool began = stream.started;
            stream = {};
            stream.started = began;  // a leading space that only a text's first token loses
            marked = loss;
        }
        int n = tokenizer_stream_push(tokenizer, &stream, sample->tokens[i], true, piece);
        piece[n < 0 ? 0 : n] = 0;
        print_text(piece);
    }
    piece[tokenizer_stream_end(tokenizer, &stream, piece)] = 0;
    print_text(piece);
    if (marked) fputs(off, stdout);
}

static void show_samples(const TrainOptions* o, const TokenSet* set, const char* name) {
    char error[512];
    bool colour = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
    Tokenizer* tokenizer = tokenizer_open(o->model, error, sizeof error);
    if (!tokenizer) fatal("%s", error);
    char* piece = (char*)host_alloc((size_t)tokenizer_longest_piece(tokenizer) + 16, "a token's text");
    for (int i = 0; i < set->n && i < o->show; i++) {
        const PackSample* s = &set->samples[i];
        printf("\n%s, row %lld: %d tokens, %d carry loss%s\n", name, (long long)s->row, s->length, s->n_loss,
               i        ? ""
               : colour ? " (in colour)"
                        : " (in \xE2\x9F\xA6"
                          "brackets\xE2\x9F\xA7)");
        print_marked(tokenizer, s, loss_marks[colour][0], loss_marks[colour][1], piece);
        putchar('\n');
    }
    free(piece);
    tokenizer_close(tokenizer);
}

// ---------------------------------------------------------------------------------------------------

#define HIGH_PERCENTILE 95
// The median, a length that few exceed, the longest; and one bar for each range of lengths.
static void print_lengths(const TokenSet* set, const char* name) {
    int* length = (int*)host_alloc((size_t)set->n * sizeof(int), "lengths");
    for (int i = 0; i < set->n; i++) length[i] = set->samples[i].length;
    qsort(length, (size_t)set->n, sizeof(int), by_length);
    printf("\nlengths of %s: median %d, %d%% below %d, longest %d tokens\n", name, length[set->n / 2], HIGH_PERCENTILE,
           length[(int)(HIGH_PERCENTILE / 100.0 * (set->n - 1))], set->longest);
    int width = (set->longest + BARS - 1) / BARS, count[BARS] = {0}, most = 1;
    for (int i = 0; i < set->n; i++) {
        int bar = (length[i] - 1) / width;
        if (++count[bar] > most) most = count[bar];
    }
    for (int bar = 0; bar < BARS && bar * width < set->longest; bar++) {
        printf("  %6d to %6d %8d ", bar * width + 1, (bar + 1) * width, count[bar]);
        for (int column = 0; column < (int)((int64_t)count[bar] * BAR_COLUMNS / most); column++) fputs("█", stdout);
        putchar('\n');
    }
    free(length);
}

// Packs the first steps of an epoch as training will, and says how full the packs are.
static void print_packing(const TrainOptions* o, const TokenSet* set, int T) {
    int batch = (int)(o->batch < set->n ? o->batch : set->n), steps = 0, packs = 0;
    int64_t tokens = 0;
    int* order = (int*)host_alloc(((size_t)set->n + 2 * (size_t)batch) * sizeof(int), "rows");
    int *lengths = order + set->n, *pack_of = lengths + batch;
    random_permutation((uint64_t)o->seed, 0, order, set->n);
    for (int from = 0; from < set->n && steps < PACKED_STEPS; from += batch, steps++) {
        int n = set->n - from < batch ? set->n - from : batch;
        for (int i = 0; i < n; i++) tokens += lengths[i] = set->samples[order[from + i]].length;
        packs += pack_first_fit(lengths, n, T, pack_of);
    }
    printf(
        "\npacks of %d tokens: %.1f per step of %d rows, %.1f%% full (padding to the longest row of a batch would take "
        "%.1f times the tokens)\n",
        T, (double)packs / steps, batch, 100.0 * (double)tokens / ((double)packs * T),
        (double)set->longest * set->n / (double)set->n_tokens);
    free(order);
}

// What `rows` rows of a set's mean length cost.
static void add_counts(PassCounts* counts, const ModelConfig* c, const TokenSet* set, double rows) {
    double squares = 0.0, squares_window = 0.0, share = rows / set->n;
    for (int i = 0; i < set->n; i++) {
        squares += (double)attention_squares(set->samples[i].length, 0);
        squares_window += (double)attention_squares(set->samples[i].length, c->window);
    }
    counts->trained_tokens += (int64_t)(share * (double)set->n_tokens);
    counts->loss_tokens += (int64_t)(share * (double)set->n_loss);
    counts->squares += (int64_t)(share * squares);
    counts->squares_window += (int64_t)(share * squares_window);
}

// One line a kind of run: bytes against what is free, arithmetic of all steps.
static void print_run(const TrainOptions* o, const ModelConfig* config, const TokenSet* tune, const TokenSet* safe,
                      const char* name, bool selector, bool with_hat, int64_t steps) {
    Trainer t;
    TrainerSettings settings = {};
    size_t free_bytes = 0;
    settings.batch_max = (int)(selector ? 2 * o->batch : o->batch);
    settings.with_hat = with_hat;
    run_settings(o, config, &settings);
    trainer_plan(&t, config, &settings);
    Selector omega;
    SelectorSettings adam = {};
    if (selector) selector_plan(&omega, &adam, tune->n, (int)o->batch, &t.plan);
    // A selector step trains the safe batch and, but at γ = 0, the fine-tuning batch; Algorithm 1 the latter once more
    // under θ̂.
    PassCounts counts = {};
    add_counts(&counts, config, tune, (double)(steps * o->batch) * (with_hat ? 2.0 : 1.0));
    if (selector) add_counts(&counts, config, safe, (double)(steps * (o->batch < safe->n ? o->batch : safe->n)));
    double flops = trainer_flops(&t, &counts), peak = gpu_peak_tflops(device_name(), sizeof(floatX) == 2);
    bool here = device_free_bytes(&free_bytes);
    printf("| %-22s | %8d | %12.1f | %-14s | %12.3g |", name, settings.T, (double)memory_total(&t.plan) / 1048576.0,
           !here                                 ? "no GPU here"
           : memory_total(&t.plan) <= free_bytes ? "fits"
                                                 : "does not fit",
           flops);
    if (peak > 0.0) printf(" %9.2f |\n", flops / (peak * 1e12 * LIKELY_SHARE) / 3600.0);
    else printf(" %9s |\n", "–");
    trainer_plan_free(&t);
}

static void print_tokenizer(const TrainOptions* o, const ModelConfig* config) {
    TextEncoder encoder;
    text_encoder_open(&encoder, o->model, config->eos_id);
    ChatFormat chat;
    char name[256];
    open_chat(&chat, o, &encoder, true);
    chat_format_name(&chat, name, sizeof name);
    text_encoder_print(&encoder, chat.chat ? chat.tokens.turn_end : -1, chat.chat ? name : NULL, stdout);
    chat_format_close(&chat);
    text_encoder_close(&encoder);
}

int check_command(const TrainOptions* o) {
    ModelConfig config;
    TokenSet tune = {}, safe = {};
    TrainerSettings settings = {};
    model_config_read(&config, o->model);
    check_sizes(&config);
    settings.batch_max = (int)o->batch;
    run_settings(o, &config, &settings);
    AtomicFile left_out = {};
    for (int i = 0; i < o->tune.n && o->left_out; i++) output_is_not(o->left_out, o->tune.items[i]);
    for (int i = 0; i < o->safe.n && o->left_out; i++) output_is_not(o->left_out, o->safe.items[i]);
    if (o->left_out) atomic_open(&left_out, o->left_out);
    load_samples(&tune, &o->tune, "tune", NULL, o, &config, NULL, o->left_out ? &left_out : NULL);
    if (o->safe.n) load_samples(&safe, &o->safe, "safe", NULL, o, &config, NULL, o->left_out ? &left_out : NULL);
    if (o->left_out) atomic_commit(&left_out);
    print_tokenizer(o, &config);
    const TokenSet* upper = safe.n ? &safe : &tune;  // without --safe its rows are taken to be like the others
    // The reference ends an epoch of selector training with the shorter of the two sets.
    int64_t per_epoch, selector_per_epoch, steps = run_steps(o, tune.n, &per_epoch);
    int64_t selector_steps = run_steps(o, o->compat && upper->n < tune.n ? upper->n : tune.n, &selector_per_epoch);

    printf("\n| %-28s | %12s |\n|------------------------------|--------------|\n", "rows", "number");
    print_rows(&tune, "D_tune");
    if (safe.n) print_rows(&safe, "D_safe");
    print_lengths(&tune, "D_tune");
    if (safe.n) print_lengths(&safe, "D_safe");
    if (o->show) show_samples(o, &tune, "D_tune");
    if (o->show && safe.n) show_samples(o, &safe, "D_safe");
    print_packing(o, &tune, settings.T);
    printf("%lld steps of %lld rows (%lld per epoch), on %s\n", (long long)steps, (long long)o->batch,
           (long long)per_epoch, device_name());
    if (selector_steps != steps)
        printf("%lld steps of a selector (%lld per epoch): the epoch ends with D_safe\n", (long long)selector_steps,
               (long long)selector_per_epoch);
    putchar('\n');
    printf("| %-22s | %8s | %12s | %-14s | %12s | %9s |\n", "run", "tokens", "MiB", "", "FLOP at most", "hours");
    printf("|------------------------|----------|--------------|----------------|--------------|-----------|\n");
    print_run(o, &config, &tune, upper, "sft on all rows", false, false, steps);
    print_run(o, &config, &tune, upper, "selector, Algorithm 2", true, false, selector_steps);
    print_run(o, &config, &tune, upper, "selector, Algorithm 1", true, true, selector_steps);
    printf("hours: at %.0f%% of the GPU's dense peak; –: its peak is not known here\n", 100.0 * LIKELY_SHARE);
    tokens_free(&tune);
    if (o->safe.n) tokens_free(&safe);
    return 0;
}
