/*
DSIR's log weights. Rows are read in chunks and their words hashed on all cores; a row keeps its buckets (2 bytes per
word and pair) until the shares of both files are known. A word's SHA-256 is taken once per thread, a pair's as often as
it falls out of a small cache. See dsir.h.
*/
#define PCRE2_CODE_UNIT_WIDTH 8
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/evp.h>
#include <pcre2.h>
#include <utf8proc.h>
#include "commands/dsir.h"
#include "base/error.h"
#include "base/text.h"
#include "base/log.h"
#include "base/parallel.h"

#define CHUNK_ROWS 4096
#define CHUNK_BYTES ((size_t)8 << 20)
#define PAIR_BITS 20
#define PAIRS ((size_t)1 << PAIR_BITS)  // slots of a thread's cache
#define SMOOTHING 1e-8                  // of upstream, added to both shares

// ---------------------------------------------------------------------------------------------------
// lower case, as Python's str.lower()

#define CAPITAL_SIGMA 0x3A3

// Unicode's Cased and Case_Ignorable: categories and what the standard lists beside them. PCRE2 has names for them
// since 10.40, Debian 11 and Ubuntu 22.04 have older ones.
#define CASED                                                                                                          \
    "[\\p{Lu}\\p{Ll}\\p{Lt}\\x{AA}\\x{BA}\\x{2B0}-\\x{2B8}\\x{2C0}-\\x{2C1}\\x{2E0}-\\x{2E4}\\x{345}\\x{37A}\\x{10FC}" \
    "\\x{1D2C}-\\x{1D6A}\\x{1D78}\\x{1D9B}-\\x{1DBF}\\x{2071}\\x{207F}\\x{2090}-\\x{209C}\\x{2160}-\\x{217F}"          \
    "\\x{24B6}-\\x{24E9}\\x{2C7C}-\\x{2C7D}\\x{A69C}-\\x{A69D}\\x{A770}\\x{A7F2}-\\x{A7F4}\\x{A7F8}-\\x{A7F9}"         \
    "\\x{AB5C}-\\x{AB5F}\\x{AB69}\\x{10780}\\x{10783}-\\x{10785}\\x{10787}-\\x{107B0}\\x{107B2}-\\x{107BA}"            \
    "\\x{1E030}-\\x{1E06D}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}]"
#define CASE_IGNORABLE                                                                                            \
    "[\\p{Mn}\\p{Me}\\p{Cf}\\p{Lm}\\p{Sk}'.:\\x{B7}\\x{387}\\x{55F}\\x{5F4}\\x{2018}-\\x{2019}\\x{2024}\\x{2027}" \
    "\\x{FE13}\\x{FE52}\\x{FE55}\\x{FF07}\\x{FF0E}\\x{FF1A}]"
static pcre2_code* final_sigma;
static pthread_once_t sigma_once = PTHREAD_ONCE_INIT;
// Unicode's Final_Sigma: after a cased letter and before none, ignoring what has no case.
static void compile_sigma(void) {
    int error;
    PCRE2_SIZE at;
    final_sigma = pcre2_compile((PCRE2_SPTR) "(?!" CASE_IGNORABLE ")" CASED CASE_IGNORABLE
                                             "*+\\K\\x{3A3}(?!" CASE_IGNORABLE "*+" CASED ")",
                                PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_MATCH_INVALID_UTF, &error, &at, NULL);
    if (!final_sigma) program_error("the expression of the final sigma does not compile (PCRE2 error %d)", error);
}
// Where the next final sigma at or after `from` begins; n where there is none.
static size_t next_final_sigma(const char* text, size_t n, size_t from, pcre2_match_data* match) {
    int found = pcre2_match(final_sigma, (PCRE2_SPTR)text, n, from, 0, match, NULL);
    if (found < 0 && found != PCRE2_ERROR_NOMATCH) program_error("PCRE2 error %d", found);
    return found < 0 ? n : pcre2_get_ovector_pointer(match)[0];
}

static void lower(const char* text, size_t n, Text* out) {
    pcre2_match_data* match = NULL;
    size_t sigma = n;
    if (memmem(text, n, "\xCE\xA3", 2)) {
        pthread_once(&sigma_once, compile_sigma);
        match = host_made(pcre2_match_data_create_from_pattern(final_sigma, NULL), "the words");
        sigma = next_final_sigma(text, n, 0, match);
    }
    out->n = 0;
    text_add(out, "", 0);
    for (size_t i = 0; i < n;) {
        size_t from = i;
        while (i < n && (unsigned char)text[i] < 0x80) i++;
        text_add(out, text + from, i - from);
        if (i == n) break;
        utf8proc_int32_t c;
        utf8proc_uint8_t bytes[4];
        utf8proc_ssize_t width = utf8proc_iterate((const utf8proc_uint8_t*)text + i, (utf8proc_ssize_t)(n - i), &c);
        if (width < 0) text_add(out, text + i, 1);           // a byte that is not UTF-8 stays what it is
        else if (c == 0x130) text_add(out, "i\xCC\x87", 3);  // İ: the one letter whose lower case is two
        else if (c == CAPITAL_SIGMA && i == sigma) {
            text_add(out, "\xCF\x82", 2);
            sigma = next_final_sigma(text, n, i + 2, match);
        } else text_add(out, bytes, (size_t)utf8proc_encode_char(utf8proc_tolower(c), bytes));
        i += width < 0 ? 1 : (size_t)width;
    }
    for (size_t i = 0; i < out->n; i++)
        if (out->s[i] >= 'A' && out->s[i] <= 'Z') out->s[i] += 'a' - 'A';
    if (match) pcre2_match_data_free(match);
}

// ---------------------------------------------------------------------------------------------------
// words: runs of \w, runs of what is neither \w nor \s

typedef enum { SPACE, WORD, OTHER } Class;

static Class class_of(utf8proc_int32_t c) {
    if (c < 0x80) {
        if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || c == '_') return WORD;
        return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F) ? SPACE : OTHER;
    }
    switch (utf8proc_category(c)) {
        case UTF8PROC_CATEGORY_LU:
        case UTF8PROC_CATEGORY_LL:
        case UTF8PROC_CATEGORY_LT:
        case UTF8PROC_CATEGORY_LM:
        case UTF8PROC_CATEGORY_LO:
        case UTF8PROC_CATEGORY_ND:
        case UTF8PROC_CATEGORY_NL:
        case UTF8PROC_CATEGORY_NO: return WORD;
        case UTF8PROC_CATEGORY_ZS:
        case UTF8PROC_CATEGORY_ZL:
        case UTF8PROC_CATEGORY_ZP: return SPACE;
        default: return c == 0x85 ? SPACE : OTHER;
    }
}

static Class class_at(const char* s, size_t n, size_t* width) {
    utf8proc_int32_t c = (unsigned char)*s;
    *width = 1;
    if (c < 0x80) return class_of(c);
    utf8proc_ssize_t got = utf8proc_iterate((const utf8proc_uint8_t*)s, (utf8proc_ssize_t)n, &c);
    if (got < 0) return OTHER;
    *width = (size_t)got;
    return class_of(c);
}

// The words of a text that is in lower case already.
static void split(const char* s, size_t n, void (*use)(void* context, const char* word, size_t n), void* context) {
    for (size_t i = 0, width; i < n;) {
        Class class = class_at(s + i, n - i, &width);
        size_t from = i;
        i += width;
        if (class == SPACE) continue;
        while (i < n && class_at(s + i, n - i, &width) == class) i += width;
        use(context, s + from, i - from);
    }
}

void dsir_words(const char* text, size_t n, void (*use)(void* context, const char* word, size_t n), void* context) {
    Text lowered = {0};
    lower(text, n, &lowered);
    split(lowered.s, lowered.n, use, context);
    text_free(&lowered);
}

// ---------------------------------------------------------------------------------------------------
// buckets

// sha: a context that is initialised already. Initialising it again with NULL keeps the algorithm, which naming it
// looks up each time (three times slower).
static int bucket_of(EVP_MD_CTX* sha, const char* bytes, size_t n) {
    unsigned char digest[32];
    int r = 0;
    if (!EVP_DigestInit_ex(sha, NULL, NULL) || !EVP_DigestUpdate(sha, bytes, n) ||
        !EVP_DigestFinal_ex(sha, digest, NULL))
        program_error("SHA-256 failed");
    for (int i = 0; i < 32; i += 4) {  // four bytes per step: r < 10000 leaves room in 64 bits
        uint64_t four = (uint64_t)digest[i] << 24 | (uint64_t)digest[i + 1] << 16 | (uint64_t)digest[i + 2] << 8 |
                        digest[i + 3];
        r = (int)((((uint64_t)r << 32) + four) % DSIR_BUCKETS);
    }
    return r;
}

static EVP_MD_CTX* sha_begin(void) {
    EVP_MD_CTX* sha = host_made(EVP_MD_CTX_new(), "a digest");
    if (!EVP_DigestInit_ex(sha, EVP_sha256(), NULL)) program_error("SHA-256 failed");
    return sha;
}

int dsir_bucket(const char* bytes, size_t n) {
    EVP_MD_CTX* sha = sha_begin();
    int bucket = bucket_of(sha, bytes, n);
    EVP_MD_CTX_free(sha);
    return bucket;
}

// A word in a thread's open hash table, half a cache line; number from 1, 0: an empty slot. The bytes of a long one are
// in the arena.
#define HEAD 14
typedef struct {
    uint64_t hash;
    uint32_t number, length;
    uint16_t bucket;
    char head[HEAD];
} Word;
// A pair in a table whose slots overwrite one another. number 0: empty
typedef struct {
    uint32_t a, b;
    uint16_t bucket;
} Pair;
// A word and its place in the row.
typedef struct {
    size_t at;
    uint64_t hash;
    uint32_t length, number;
} Token;

typedef struct {
    Text lowered, arena, pair;
    Word* words;  // (n_slots)
    Pair* pairs;  // (PAIRS)
    size_t n_slots;
    uint32_t n_words;
    EVP_MD_CTX* sha;
    int64_t counts[DSIR_BUCKETS];
    Token* tokens;    // (n_tokens) of the row at hand
    uint16_t* found;  // (n_features) its buckets: words, then pairs
    size_t n_tokens, most_tokens;
} Counter;

static size_t n_features(size_t words) { return words ? 2 * words - 1 : 0; }

static void counter_begin(Counter* c) {
    memset(c, 0, sizeof *c);
    c->n_slots = (size_t)1 << 16;
    c->words = host_alloc(c->n_slots * sizeof *c->words, "DSIR's words");
    c->pairs = host_alloc(PAIRS * sizeof *c->pairs, "DSIR's words");
    c->sha = sha_begin();
}

static void counter_end(Counter* c) {
    text_free(&c->lowered);
    text_free(&c->arena);
    text_free(&c->pair);
    free(c->words);
    free(c->pairs);
    free(c->tokens);
    free(c->found);
    EVP_MD_CTX_free(c->sha);
}

static void grow(Counter* c) {
    Word* old = c->words;
    size_t n = c->n_slots;
    c->n_slots *= 2;
    c->words = host_alloc(c->n_slots * sizeof *c->words, "DSIR's words");
    for (size_t k = 0; k < n; k++) {
        if (!old[k].number) continue;
        size_t i = old[k].hash & (c->n_slots - 1);
        while (c->words[i].number) i = (i + 1) & (c->n_slots - 1);
        c->words[i] = old[k];
    }
    free(old);
}

static const char* bytes_of(const Counter* c, const Word* w) {
    size_t at;
    if (w->length <= HEAD) return w->head;
    memcpy(&at, w->head, sizeof at);
    return c->arena.s + at;
}

static const Word* find_word(Counter* c, const Token* t) {
    const char* s = c->lowered.s + t->at;
    size_t i = t->hash & (c->n_slots - 1);
    for (; c->words[i].number; i = (i + 1) & (c->n_slots - 1)) {
        const Word* w = &c->words[i];
        if (w->hash == t->hash && w->length == t->length && !memcmp(bytes_of(c, w), s, t->length)) return w;
    }
    if (c->n_words == UINT32_MAX) fatal("DSIR: more than %u different words", UINT32_MAX);
    if (2 * (size_t)++c->n_words > c->n_slots) {
        grow(c);
        for (i = t->hash & (c->n_slots - 1); c->words[i].number;) i = (i + 1) & (c->n_slots - 1);
    }
    Word* w = &c->words[i];
    *w = (Word){.hash = t->hash,
                .number = c->n_words,
                .length = t->length,
                .bucket = (uint16_t)bucket_of(c->sha, s, t->length)};
    if (t->length <= HEAD) memcpy(w->head, s, t->length);
    else {
        memcpy(w->head, &c->arena.n, sizeof c->arena.n);
        text_add(&c->arena, s, t->length);
    }
    return w;
}

static Pair* slot_of(Counter* c, uint32_t a, uint32_t b) {
    return &c->pairs[((uint64_t)a * 0x9E3779B97F4A7C15u + (uint64_t)b * 0xC2B2AE3D27D4EB4Fu) >> (64 - PAIR_BITS)];
}

static uint16_t pair_bucket(Counter* c, const Token* a, const Token* b) {
    Pair* p = slot_of(c, a->number, b->number);
    if (p->a == a->number && p->b == b->number) return p->bucket;
    c->pair.n = 0;
    text_add(&c->pair, c->lowered.s + a->at, a->length);
    text_add(&c->pair, " ", 1);
    text_add(&c->pair, c->lowered.s + b->at, b->length);
    *p = (Pair){a->number, b->number, (uint16_t)bucket_of(c->sha, c->pair.s, c->pair.n)};
    return p->bucket;
}

static void take_token(void* context, const char* word, size_t n) {
    Counter* c = context;
    uint64_t hash = 0xCBF29CE484222325u;  // FNV-1a
    for (size_t i = 0; i < n; i++) hash = (hash ^ (unsigned char)word[i]) * 0x100000001B3u;
    hash ^= hash >> 32;
    __builtin_prefetch(&c->words[hash & (c->n_slots - 1)]);
    if (c->n_tokens == c->most_tokens) {
        c->most_tokens = c->most_tokens ? 2 * c->most_tokens : 2048;
        c->tokens = host_resize(c->tokens, c->most_tokens * sizeof *c->tokens, "DSIR's words");
        c->found = host_resize(c->found, n_features(c->most_tokens) * sizeof *c->found, "DSIR's words");
    }
    c->tokens[c->n_tokens++] = (Token){(size_t)(word - c->lowered.s), hash, (uint32_t)n, 0};
}

// A row's buckets into c->found, in passes of their own: the tables are larger than the caches, and a pass asks for
// what the next one reads.
static void count_text(Counter* c, const char* text, size_t n) {
    c->n_tokens = 0;
    lower(text, n, &c->lowered);
    split(c->lowered.s, c->lowered.n, take_token, c);
    Token* t = c->tokens;
    for (size_t i = 0; i < c->n_tokens; i++) {
        const Word* w = find_word(c, &t[i]);
        t[i].number = w->number;
        c->found[i] = w->bucket;
        if (i) __builtin_prefetch(slot_of(c, t[i - 1].number, t[i].number));
    }
    for (size_t i = 1; i < c->n_tokens; i++) c->found[c->n_tokens + i - 1] = pair_bucket(c, &t[i - 1], &t[i]);
    for (size_t f = 0; f < n_features(c->n_tokens); f++) c->counts[c->found[f]]++;
}

// ---------------------------------------------------------------------------------------------------
// files

typedef struct {
    int64_t id;
    size_t at, n;
    uint16_t* buckets;
    int32_t words;
} Job;

typedef struct {
    Job* jobs;  // (n) of CHUNK_ROWS; texts in `text`
    int n;
    Text text;
    atomic_int next;
} Chunk;

// One reading of the files: while a chunk is counted, one thread first reads the chunk after it.
typedef struct {
    const StringList* files;
    RowReader* reader;
    RowReport report;
    int64_t n_rows;
    bool keep;  // the rows' buckets
    Chunk chunks[2], *now, *coming;
    Counter* counters;  // one per thread
    int threads;
    atomic_int seat;
} Pass;

static void read_chunk(Pass* p, Chunk* chunk) {
    DataRow row;
    chunk->n = 0;
    chunk->text.n = 0;
    atomic_store(&chunk->next, 0);
    while (chunk->n < CHUNK_ROWS && chunk->text.n < CHUNK_BYTES && rows_next(p->reader, &row)) {
        p->n_rows++;
        row_report_add(&p->report, &row, p->files->items[row.file], NULL);
        if (row.state != ROW_OK) continue;
        Job* job = &chunk->jobs[chunk->n++];
        *job = (Job){.id = row.id, .at = chunk->text.n};
        text_add(&chunk->text, row.prompt, row.prompt_length);
        text_add(&chunk->text, "\n", 1);
        text_add(&chunk->text, row.response, row.response_length);
        job->n = chunk->text.n - job->at;
    }
}

static void count_chunk(void* context) {
    Pass* p = context;
    int seat = atomic_fetch_add(&p->seat, 1);
    Counter* c = &p->counters[seat];
    if (seat == 0) read_chunk(p, p->coming);
    for (int i; (i = atomic_fetch_add(&p->now->next, 1)) < p->now->n;) {
        Job* job = &p->now->jobs[i];
        count_text(c, p->now->text.s + job->at, job->n);
        size_t bytes = n_features(c->n_tokens) * sizeof *job->buckets;
        job->words = (int32_t)c->n_tokens;
        if (!p->keep || !bytes) continue;
        job->buckets = host_alloc(bytes, "DSIR's words");
        memcpy(job->buckets, c->found, bytes);
    }
}

typedef struct {
    DsirScores* scores;  // gets rows and words; NULL: only the counts are needed
    uint16_t** buckets;  // (n)
    int64_t capacity;
} Kept;

static void keep_row(Kept* k, const Job* job) {
    DsirScores* s = k->scores;
    if (s->n == k->capacity) {
        k->capacity = k->capacity ? 2 * k->capacity : 4096;
        size_t n = (size_t)k->capacity;
        s->rows = host_resize(s->rows, n * sizeof *s->rows, "DSIR's words");
        s->words = host_resize(s->words, n * sizeof *s->words, "DSIR's words");
        k->buckets = host_resize(k->buckets, n * sizeof *k->buckets, "DSIR's words");
    }
    s->rows[s->n] = job->id;
    s->words[s->n] = job->words;
    k->buckets[s->n++] = job->buckets;
}

// The share of every bucket among the words and pairs of all rows of the pass.
static void shares(const Pass* p, double share[DSIR_BUCKETS]) {
    int64_t counts[DSIR_BUCKETS] = {0}, all = 0;
    for (int t = 0; t < p->threads; t++)
        for (int b = 0; b < DSIR_BUCKETS; b++) counts[b] += p->counters[t].counts[b];
    for (int b = 0; b < DSIR_BUCKETS; b++) all += counts[b];
    if (!all) fatal("%s: no usable row contains a word; DSIR has nothing to count", p->files->items[0]);
    for (int b = 0; b < DSIR_BUCKETS; b++) share[b] = (double)counts[b] / (double)all;
}

// Counts the files' usable rows. Returns the records read.
static int64_t count_files(Pass* p, const StringList* files, const DsirOptions* o, const char* what,
                           double share[DSIR_BUCKETS], Kept* kept, Hex digest) {
    RowOptions rows = o->rows;
    Progress progress;
    int64_t done, total;
    if (!rows.prompt_template) rows.prompt_template = DSIR_TEMPLATE;
    p->files = files;
    p->reader = rows_open(files, &rows);
    p->report = (RowReport){0};
    p->n_rows = 0;
    p->keep = kept->scores != NULL;
    for (int t = 0; t < p->threads; t++) memset(p->counters[t].counts, 0, sizeof p->counters[t].counts);
    rows_progress(p->reader, &done, &total);
    progress_begin(&progress, what, total, o->quiet);
    p->now = &p->chunks[0];
    p->coming = &p->chunks[1];
    for (read_chunk(p, p->now); p->now->n;) {  // a chunk ends without a usable row only where the files do
        atomic_store(&p->seat, 0);
        parallel_run(p->threads, count_chunk, p);
        for (int i = 0; i < p->now->n && p->keep; i++) keep_row(kept, &p->now->jobs[i]);
        Chunk* counted = p->now;
        p->now = p->coming;
        p->coming = counted;
        rows_progress(p->reader, &done, &total);
        progress_update(&progress, done, "%lld rows", (long long)p->n_rows);
    }
    progress_end(&progress);
    rows_digest(p->reader, digest);
    rows_report(p->reader, &p->report);
    rows_close(p->reader);
    row_report_print(&p->report, o->quiet, stderr);
    shares(p, share);
    return p->n_rows;
}

void dsir_score(DsirScores* s, const StringList* data, const StringList* target, const DsirOptions* options) {
    double* share[2] = {host_alloc(DSIR_BUCKETS * sizeof(double), "DSIR's words"),
                        host_alloc(DSIR_BUCKETS * sizeof(double), "DSIR's words")};
    Pass pass = {.threads = options->threads ? options->threads : parallel_cores()};
    Kept kept = {.scores = s}, none = {0};
    Hex digest;
    memset(s, 0, sizeof *s);
    if (pass.threads > PARALLEL_MOST) pass.threads = PARALLEL_MOST;
    for (int i = 0; i < 2; i++) pass.chunks[i].jobs = host_alloc(CHUNK_ROWS * sizeof(Job), "DSIR's words");
    pass.counters = host_alloc((size_t)pass.threads * sizeof *pass.counters, "DSIR's words");
    for (int t = 0; t < pass.threads; t++) counter_begin(&pass.counters[t]);
    s->n_rows = count_files(&pass, data, options, "words of the data", share[0], &kept, s->digest);
    count_files(&pass, target, options, "words of the target", share[1], &none, digest);
    double* difference = share[1];
    for (int b = 0; b < DSIR_BUCKETS; b++) difference[b] = log(share[1][b] + SMOOTHING) - log(share[0][b] + SMOOTHING);
    s->log_weight = host_alloc((size_t)s->n * sizeof *s->log_weight, "DSIR's words");
    for (int64_t i = 0; i < s->n; i++) {
        double sum = 0.0;
        for (size_t f = 0; f < n_features((size_t)s->words[i]); f++) sum += difference[kept.buckets[i][f]];
        s->log_weight[i] = sum;
        free(kept.buckets[i]);
    }
    for (int t = 0; t < pass.threads; t++) counter_end(&pass.counters[t]);
    for (int i = 0; i < 2; i++) {
        free(pass.chunks[i].jobs);
        text_free(&pass.chunks[i].text);
    }
    free(pass.counters);
    free(kept.buckets);
    free(share[0]);
    free(share[1]);
}

void dsir_free(DsirScores* s) {
    free(s->rows);
    free(s->log_weight);
    free(s->words);
    memset(s, 0, sizeof *s);
}
