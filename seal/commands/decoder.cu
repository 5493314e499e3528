/* Generation with a cache. See decoder.h. */
#include <string.h>
#include "commands/decoder.h"
#include "base/error.h"
#include "base/text.h"
#include "peft.h"
#include "base/random.h"

// With a sequence's number in the low half, each sequence has its own stream of random numbers.
#define STREAM_GENERATE (0x67656e65ull << 32)
#define HEAD_ROWS_MOST 256
// A prompt's tokens after the prefix run as tokens that are being generated do, each reading the cache. That pays for
// as many as these, and where the prefix is not much shorter.
#define SUFFIX_MOST 256
#define SUFFIX_PER_PREFIX 2
#define SUFFIX_ROWS 512  // of one pass

static int rounded(int n) { return (n + PACK_ROUND - 1) / PACK_ROUND * PACK_ROUND; }

// ---------------------------------------------------------------------------------------------------
// memory

// The arrays of a pass, (rows_most) each: tokens and positions (one token per sequence only), cache rows, first and
// length of the cache's rows, rows of logits, slots, random numbers.
enum { TOKENS, POSITIONS, ROW, FIRST, LENGTH, LOGIT_ROW, SLOT, UNIFORM, N_ARRAYS };
static int* host_array(const Decoder* d, int array) { return d->staging + (size_t)array * d->rows_most; }
static int* device_array(const Decoder* d, int array) { return d->arrays + (size_t)array * d->rows_most; }

void decoder_open(Decoder* d, const ModelConfig* config, const DecoderSettings* settings) {
    memset(d, 0, sizeof *d);
    d->settings = *settings;
    Trainer* t = &d->trainer;
    TrainerSettings plan = {};
    int slots = settings->slots;
    bool penalty = settings->sampling.repetition_penalty != 1.0f;
    plan.T = settings->T > settings->reach ? settings->T : settings->reach;  // positions reach as far as a pack is long
    if (plan.T < slots) plan.T = slots;                                      // and a pass has a row for every slot
    if (settings->prefix && plan.T < SUFFIX_ROWS) plan.T = SUFFIX_ROWS;
    plan.head_rows = slots < HEAD_ROWS_MOST ? rounded(slots) : HEAD_ROWS_MOST;
    plan.batch_max = slots;
    plan.forward_only = true;
    plan.base = settings->base;
    if (settings->adapter) peft_settings(settings->adapter, config, &plan.lora);
    trainer_plan(t, config, &plan);
    d->rows_most = rounded(plan.T);
    d->cache.rows = (int64_t)slots * settings->reach;
    size_t cache = (size_t)config->L * d->cache.rows * config->NKV * config->HS * sizeof(floatX),
           words = SAMPLE_SEEN_WORDS(config->V);
    memory_add(&t->plan, MEMORY_CACHE, &d->cache.keys, cache, "keys");
    memory_add(&t->plan, MEMORY_CACHE, &d->cache.values, cache, "values");
    size_t pieces = decode_attention_scratch(rounded(slots), settings->reach, config->NH, config->HS), suffix = 0;
    if (settings->prefix)
        suffix = decode_attention_scratch(SUFFIX_ROWS, settings->prefix + SUFFIX_MOST, config->NH, config->HS);
    memory_add(&t->plan, MEMORY_SCRATCH, &d->cache.scratch, (suffix > pieces ? suffix : pieces) * sizeof(float),
               "attention pieces");
    memory_add(&t->plan, MEMORY_SCRATCH, &d->probabilities,
               settings->sampling.greedy ? 0 : (size_t)plan.head_rows * config->Vp * sizeof(float), "probabilities");
    memory_add(&t->plan, MEMORY_SCRATCH, &d->seen, penalty ? slots * words * sizeof(uint32_t) : 0, "tokens seen");
    memory_add(&t->plan, MEMORY_PACK, &d->arrays, (size_t)N_ARRAYS * d->rows_most * sizeof(int), "arrays of a pass");
    memory_add(&t->plan, MEMORY_PACK, &d->next, (size_t)slots * sizeof(int), "tokens drawn");
    if (settings->dry_run) trainer_dry_run(t);
    if (!settings->quiet) memory_print(&t->plan, stdout);
    trainer_allocate(t);
    trainer_load(t, settings->model, settings->adapter, 0, settings->quiet);
    if (t->with_lora) lora_publish(&t->lora, &t->base, t->stream);
    t->transformer.cache = &d->cache;
    cudaCheck(cudaMallocHost((void**)&d->staging, (size_t)N_ARRAYS * d->rows_most * sizeof(int)));
    cudaCheck(cudaMallocHost((void**)&d->drawn, (size_t)slots * sizeof(int)));
    cudaCheck(cudaMallocHost((void**)&d->seen_staging, words * sizeof(uint32_t)));
    d->owner = (int*)host_alloc((size_t)slots * sizeof(int), "slots");
    for (int s = 0; s < slots; s++) d->owner[s] = -1;
}

void decoder_close(Decoder* d) {
    trainer_free(&d->trainer);
    cudaCheck(cudaFreeHost(d->staging));
    cudaCheck(cudaFreeHost(d->drawn));
    cudaCheck(cudaFreeHost(d->seen_staging));
    free(d->owner);
    memset(d, 0, sizeof *d);
}

// ---------------------------------------------------------------------------------------------------
// a pass

// The arrays of a pass over `rows` tokens to the device, in one copy. The pass before has been waited for, so the
// staging buffer is free.
static void upload_arrays(Decoder* d, int rows) {
    cudaStream_t stream = d->trainer.stream;
    d->cache.row = device_array(d, ROW);
    d->cache.first = device_array(d, FIRST);
    d->cache.length = device_array(d, LENGTH);
    if (rows > d->rows_most) program_error("a pass of %d tokens exceeds the plan for %d", rows, d->rows_most);
    cudaCheck(cudaMemcpyAsync(d->arrays, d->staging, (size_t)N_ARRAYS * d->rows_most * sizeof(int),
                              cudaMemcpyHostToDevice, stream));
}

// Row i of logits, of pack row `row`, belongs to the sequence in slot `slot`.
static void want_token(Decoder* d, int i, int row, int slot, const Sequence* s) {
    double u = random_uniform(d->settings.seed, STREAM_GENERATE | s->number, (uint64_t)(s->n - s->n_prompt));
    float uniform = u < 0x1.fffffep-1 ? (float)u : 0x1.fffffep-1f;  // below 1 as a float too
    host_array(d, LOGIT_ROW)[i] = row;
    host_array(d, SLOT)[i] = slot;
    memcpy(&host_array(d, UNIFORM)[i], &uniform, sizeof uniform);
}

// Runs the pass and draws n tokens, which are in d->drawn afterwards.
static void run_pass(Decoder* d, const DevicePack* s, int n) {
    Trainer* t = &d->trainer;
    const ModelConfig* c = &t->layout.config;
    Transformer* x = &t->transformer;
    const ParameterSet* model = t->with_lora ? &t->base : &t->theta;
    const int *rows = device_array(d, LOGIT_ROW), *slots = device_array(d, SLOT);
    const float* uniform = (const float*)device_array(d, UNIFORM);
    transformer_forward(x, model, s, t->stream);
    for (int i = 0; i < n; i += x->head_rows) {
        int m = n - i < x->head_rows ? n - i : x->head_rows, padded = rounded(m);  // the rows after n name row 0
        transformer_head(x, model, rows + i, padded, t->stream);
        draw_tokens({.tokens = d->next + i,
                     .probabilities = d->probabilities,
                     .logits = x->logits,
                     .seen = d->seen,
                     .slots = slots + i,
                     .uniform = uniform + i,
                     .settings = d->settings.sampling,
                     .n = m,
                     .V = c->V,
                     .Vp = c->Vp},
                    t->stream);
    }
    cudaCheck(cudaMemcpyAsync(d->drawn, d->next, (size_t)n * sizeof(int), cudaMemcpyDeviceToHost, t->stream));
    cudaCheck(cudaStreamSynchronize(t->stream));
    d->tokens += n;
}

// ---------------------------------------------------------------------------------------------------
// sequences

typedef struct {
    Sequence* sequences;
    int n, next, active;  // next: the first that has no slot yet
    void (*done)(void* context, int i);
    void* context;
} Work;

// Takes the token drawn for a slot; frees the slot where that was the last.
static void take_token(Decoder* d, Work* w, int slot, int token) {
    int i = d->owner[slot];
    Sequence* s = &w->sequences[i];
    if (token < 0)
        fatal("%s: the logits after %d tokens of prompt %llu are not finite; is the model damaged?", d->settings.model,
              s->n, (unsigned long long)s->number);
    for (int e = 0; e < d->settings.n_ends; e++) s->ended |= token == d->settings.ends[e];
    if (!s->ended) s->tokens[s->n++] = token;
    if (!s->ended && s->n < s->capacity) return;
    d->owner[slot] = -1;
    w->active--;
    w->done(w->context, i);
}

static void mark_seen(Decoder* d, int slot, const Sequence* s) {
    int words = SAMPLE_SEEN_WORDS(d->trainer.layout.config.V);
    memset(d->seen_staging, 0, (size_t)words * sizeof(uint32_t));
    for (int i = 0; i < s->n; i++) d->seen_staging[s->tokens[i] / 32] |= 1u << s->tokens[i] % 32;
    cudaCheck(cudaMemcpyAsync(d->seen + (size_t)slot * words, d->seen_staging, (size_t)words * sizeof(uint32_t),
                              cudaMemcpyHostToDevice, d->trainer.stream));
    cudaCheck(cudaStreamSynchronize(d->trainer.stream));  // the staging buffer is used for the next slot
}

// A pack of samples whose keys and values go to the rows of the cache that host_array(d, ROW) names, and n tokens
// drawn.
static void run_packed(Decoder* d, int samples, int tokens, int n) {
    Trainer* t = &d->trainer;
    int* row = host_array(d, ROW);
    host_pack_build(&t->packed, t->samples, samples, t->layout.config.V, t->layout.config.longest);
    for (int i = tokens; i < t->packed.T; i++) row[i] = -1;
    DevicePack s;
    pack_upload(&t->uploader, &s, &t->packed, NULL, NULL, t->stream);
    d->cache.n = 0;
    upload_arrays(d, s.T);
    run_pass(d, &s, n);
}

// A free slot from `slot` on, or the number of slots.
static int free_slot(const Decoder* d, int slot) {
    while (slot < d->settings.slots && d->owner[slot] >= 0) slot++;
    return slot;
}
// What a prompt has after the prefix, or 0 where it runs whole.
static int suffix_of(const Decoder* d, const Sequence* s) {
    int prefix = d->settings.prefix, own = s->n - prefix;
    return prefix && own <= SUFFIX_MOST && own <= SUFFIX_PER_PREFIX * prefix ? own : 0;
}
static void take_tokens(Decoder* d, Work* w, int n) {
    for (int i = 0; i < n; i++) take_token(d, w, host_array(d, SLOT)[i], d->drawn[i]);
}

// As many of the next prompts as there are free slots and room in a pack: one pass, and their first tokens.
static void begin_sequences(Decoder* d, Work* w) {
    Trainer* t = &d->trainer;
    int k = 0, at = 0, *row = host_array(d, ROW), first = w->next;
    memset(host_array(d, LOGIT_ROW), 0, (size_t)d->rows_most * sizeof(int));
    for (int slot = free_slot(d, 0); slot < d->settings.slots && w->next < w->n; slot = free_slot(d, slot + 1)) {
        const Sequence* s = &w->sequences[w->next];
        if (at + s->n > t->settings.T || suffix_of(d, s)) break;
        PackSample sample = {s->tokens, NULL, s->n, s->n - 1, 0};
        t->samples[k] = sample;
        for (int i = 0; i < s->n; i++) row[at + i] = i < d->settings.prefix ? -1 : slot * d->settings.reach + i;
        at += s->n;
        d->owner[slot] = w->next++;
        want_token(d, k, at - 1, slot, s);
        if (d->seen) mark_seen(d, slot, s);
        k++;
    }
    if (k == 0)
        program_error("prompt %d has %d tokens and does not fit in a pack of %d", first, w->sequences[first].n,
                      t->settings.T);
    run_packed(d, k, at, k);
    w->active += k;
    take_tokens(d, w, k);
}

// Row r of a pass that reads the cache: the token of a sequence at a position, after which it has length keys.
static void set_row(Decoder* d, int r, int token, int position, int row, int first, int length) {
    host_array(d, TOKENS)[r] = token;
    host_array(d, POSITIONS)[r] = position;
    host_array(d, ROW)[r] = row;
    host_array(d, FIRST)[r] = first;
    host_array(d, LENGTH)[r] = length;
}
static void set_token(Decoder* d, int r, const Sequence* s, int i, int slot) {
    int first = slot * d->settings.reach;
    set_row(d, r, s->tokens[i], i, first + i, first, i + 1);
}
// A pass over `rows` such rows, and n tokens drawn.
static void run_cached(Decoder* d, int rows, int longest, int n) {
    DevicePack s = {};
    s.T = s.split = rounded(rows);
    for (int i = rows; i < s.T; i++)  // padding: token 0 at position 0, which attends to nothing and is kept nowhere
        set_row(d, i, 0, 0, -1, 0, 0);
    for (int i = n; i < s.T; i++) host_array(d, LOGIT_ROW)[i] = 0;
    s.tokens = device_array(d, TOKENS);
    s.positions = device_array(d, POSITIONS);
    d->cache.n = s.T;
    d->cache.longest = longest;
    upload_arrays(d, s.T);
    run_pass(d, &s, n);
}

// The same for prompts of which the cache has the prefix: a token reads it, and its own prompt's tokens before it,
// which the same pass has just stored.
static void begin_after_prefix(Decoder* d, Work* w) {
    int k = 0, rows = 0, longest = 0;
    for (int slot = free_slot(d, 0); slot < d->settings.slots && w->next < w->n; slot = free_slot(d, slot + 1)) {
        const Sequence* s = &w->sequences[w->next];
        int own = suffix_of(d, s);
        if (!own || rows + own > SUFFIX_ROWS) break;
        for (int i = d->settings.prefix; i < s->n; i++) set_token(d, rows++, s, i, slot);
        longest = s->n > longest ? s->n : longest;
        d->owner[slot] = w->next++;
        want_token(d, k++, rows - 1, slot, s);
        if (d->seen) mark_seen(d, slot, s);
    }
    run_cached(d, rows, longest, k);
    w->active += k;
    take_tokens(d, w, k);
}

// One token for every sequence in a slot.
static void extend_sequences(Decoder* d, Work* w) {
    int k = 0, longest = 0;
    for (int slot = 0; slot < d->settings.slots; slot++) {
        if (d->owner[slot] < 0) continue;
        const Sequence* s = &w->sequences[d->owner[slot]];
        set_token(d, k, s, s->n - 1, slot);
        longest = s->n > longest ? s->n : longest;
        want_token(d, k, k, slot, s);
        k++;
    }
    run_cached(d, k, longest, k);
    take_tokens(d, w, k);
}

// The prefix's keys and values to the beginning of every slot. No sequence writes there afterwards.
static void keep_prefix(Decoder* d, const Sequence* s) {
    Trainer* t = &d->trainer;
    const ModelConfig* c = &t->layout.config;
    const int prefix = d->settings.prefix;
    const size_t width = (size_t)c->NKV * c->HS, bytes = prefix * width * sizeof(floatX);
    t->samples[0] = {s->tokens, NULL, prefix, prefix - 1, 0};
    for (int i = 0; i < prefix; i++) host_array(d, ROW)[i] = i;
    memset(host_array(d, LOGIT_ROW), 0, (size_t)d->rows_most * sizeof(int));
    run_packed(d, 1, prefix, 0);
    for (int l = 0; l < c->L; l++)
        for (int slot = 1; slot < d->settings.slots; slot++)
            for (floatX* cache : {d->cache.keys, d->cache.values}) {
                floatX* from = cache + (size_t)l * d->cache.rows * width;
                cudaCheck(cudaMemcpyAsync(from + (size_t)slot * d->settings.reach * width, from, bytes,
                                          cudaMemcpyDeviceToDevice, t->stream));
            }
    d->prefix_kept = true;
}

void decoder_run(Decoder* d, Sequence* sequences, int n, void (*done)(void* context, int i), void* context) {
    Work w = {sequences, n, 0, 0, done, context};
    int slots = d->settings.slots;
    if (d->settings.prefix && !d->prefix_kept && n) keep_prefix(d, &sequences[0]);
    while (w.active || w.next < n) {
        // prompts wait until an eighth of the slots is free: a pass over one prompt costs nearly as much as one over
        // several
        bool begin = w.next < n && (w.active == 0 || 8 * (slots - w.active) >= slots);
        if (!begin) extend_sequences(d, &w);
        else if (suffix_of(d, &sequences[w.next])) begin_after_prefix(d, &w);
        else begin_sequences(d, &w);
    }
}
