/*
Rows to samples. The reader cuts rows off the files, chunk by chunk; all cores tokenise a chunk; its tokens go in row
order to a spool on disk, so that memory holds a few dozen bytes per row and no text. The spool becomes the cache
(token_cache.c). See tokens.h.
*/
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cjson/cJSON.h>
#include <openssl/evp.h>
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "base/log.h"
#include "base/parallel.h"
#include "rows/token_cache.h"
#include "rows/tokens.h"

#define CHUNK_ROWS 4096
#define CHUNK_BYTES ((size_t)8 << 20)

uint64_t row_hash(const char* prompt, size_t prompt_length, const char* response, size_t response_length) {
    unsigned char digest[32];
    EVP_MD_CTX* sha = EVP_MD_CTX_new();
    uint64_t hash = 0;
    if (!sha || !EVP_DigestInit_ex(sha, EVP_sha256(), NULL) || !EVP_DigestUpdate(sha, prompt, prompt_length) ||
        !EVP_DigestUpdate(sha, "", 1) || !EVP_DigestUpdate(sha, response, response_length) ||
        !EVP_DigestFinal_ex(sha, digest, NULL))
        program_error("SHA-256 failed");
    EVP_MD_CTX_free(sha);
    for (int i = 0; i < 8; i++) hash = hash << 8 | digest[i];
    return hash;
}

// ---------------------------------------------------------------------------------------------------
// one row

typedef struct {
    DataRow row;
    size_t text;                // prompt, response, space, eos in the chunk's text
    Conversation conversation;  // of a row that the chat template writes
    bool by_template, last_only, joined;
    int32_t* tokens;    // (length) of a usable row
    uint8_t* mask;      // (length) by_template: the tokens that carry loss
    int length, first;  // first: the first token that carries loss
    bool cut;
    float weight;
    uint64_t hash;
} Job;

typedef struct {
    const TextEncoder* encoder;
    const TokenOptions* options;
    Job* jobs;
    int n_jobs;
    Text text;
    atomic_int next;
} Chunk;

static int64_t encode(const Chunk* c, void* scratch, Job* job, size_t n, const int32_t** ids, const int32_t** end) {
    const int32_t* start;
    const char* error = "";
    int64_t got = c->encoder->encode(c->encoder->self, scratch, c->text.s + job->text, n, ids, &start, end, &error);
    if (got >= 0) return got;
    job->row.state = ROW_MALFORMED;
    snprintf(job->row.why, sizeof job->row.why, "cannot be tokenised: %.120s", error);
    return -1;
}

static void tokenise_row(const Chunk* c, void* scratch, Job* job) {
    const TokenOptions* o = c->options;
    const int32_t *ids, *end;
    size_t prompt = job->row.prompt_length,
           whole = prompt + job->row.response_length + 1 + strlen(c->encoder->eos_text);
    int64_t alone = 0, n, first = 0;
    if (o->compat && (alone = encode(c, scratch, job, prompt, &ids, &end)) < 0) return;
    if ((n = encode(c, scratch, job, whole, &ids, &end)) < 0) return;
    while (first < n && end[first] <= (int64_t)prompt)
        first++;  // a token that reaches beyond the prompt covers response
    if (o->compat) first = alone;
    if (first < 1) first = 1;  // nothing predicts the first token
    job->cut = n > o->max_length;
    if (job->cut) n = o->max_length;
    if (first >= o->max_length - 2 || first >= n) {
        job->row.state = ROW_TOO_LONG;
        snprintf(job->row.why, sizeof job->row.why, "its prompt has %lld tokens but the maximum length is %d",
                 (long long)first, o->max_length);
        return;
    }
    job->tokens = host_alloc((size_t)n * sizeof *job->tokens, "the tokens' index");
    memcpy(job->tokens, ids, (size_t)n * sizeof *ids);
    job->tokens[n - 1] = c->encoder->eos;
    job->length = (int)n;
    job->first = (int)first;
    job->hash = row_hash(c->text.s + job->text, prompt, c->text.s + job->text + prompt, job->row.response_length);
}

static void write_conversation(const Chunk* c, ChatScratch* scratch, Job* job) {
    char why[512];
    ChatSample sample;
    const int most = c->options->max_length;
    if (!chat_sample(c->options->chat, scratch, &job->conversation, &sample, why, sizeof why)) {
        job->row.state = ROW_MALFORMED;
        snprintf(job->row.why, sizeof job->row.why, "%.159s", why);
        return;
    }
    int64_t n = sample.n, first = 0;
    while (first < n && !sample.mask[first]) first++;
    job->cut = n > most;
    if (job->cut) n = most;
    if (first >= n) {
        job->row.state = ROW_TOO_LONG;
        snprintf(job->row.why, sizeof job->row.why, "%lld tokens come before its answer but the maximum length is %d",
                 (long long)first, most);
        free(sample.mask);
        return;
    }
    job->tokens = host_alloc((size_t)n * sizeof *job->tokens, "a row's tokens");
    memcpy(job->tokens, sample.ids, (size_t)n * sizeof *job->tokens);
    job->mask = sample.mask;
    job->length = (int)n;
    job->first = (int)first;
    job->last_only = sample.last_only;
    job->joined = sample.joined;
    job->hash = conversation_hash(&job->conversation);
}

static void work(void* context) {
    Chunk* c = context;
    ChatScratch chat;
    void* scratch = c->encoder->begin(c->encoder->self);
    if (c->options->chat) chat_scratch_open(&chat);
    for (int i; (i = atomic_fetch_add(&c->next, 1)) < c->n_jobs;) {
        if (c->jobs[i].row.state != ROW_OK) continue;
        if (c->jobs[i].by_template) write_conversation(c, &chat, &c->jobs[i]);
        else tokenise_row(c, scratch, &c->jobs[i]);
    }
    c->encoder->finish(c->encoder->self, scratch);
    if (c->options->chat) chat_scratch_close(&chat);
}

static void run_chunk(Chunk* c) {
    int n = c->options->threads ? c->options->threads : parallel_cores(),
        most = 1 + c->n_jobs / 16;  // fewer than 16 rows are not worth a thread
    atomic_store(&c->next, 0);
    parallel_run(n < most ? n : most, work, c);
}

// ---------------------------------------------------------------------------------------------------
// all rows

static FILE* spool_file(TokenSpool* b, const char* cache, int* descriptor) {
    const char* folder = getenv("TMPDIR");
    FILE* stream;
    path_copy(b->path, cache ? path_text("%s.spool.XXXXXX", cache).s
                             : path_of(folder && *folder ? folder : "/tmp", "seal.tokens.XXXXXX").s);
    *descriptor = mkstemp(b->path);
    if (*descriptor < 0 || !(stream = fdopen(*descriptor, "w+b")))
        fatal("%s cannot be written: %s", b->path, strerror(errno));
    unlink(b->path);
    return stream;
}

static void spool_begin(TokenSpool* b, const char* cache, bool masks) {
    memset(b, 0, sizeof *b);
    b->stream = spool_file(b, cache, &b->spool);
    if (masks) b->masks = spool_file(b, cache, &b->mask_spool);
}

static void spool_write(TokenSpool* b, FILE* stream, const void* bytes, size_t n) {
    if (fwrite(bytes, 1, n, stream) != n) fatal("%s cannot be written: %s", b->path, strerror(errno));
}

static void spool_add(TokenSpool* b, const Job* job) {
    if (b->n + 1 >= b->capacity) {
        b->capacity = b->capacity ? 2 * b->capacity : 1024;
        size_t n = (size_t)b->capacity;
        b->rows = host_resize(b->rows, n * sizeof *b->rows, "the tokens' index");
        b->offsets = host_resize(b->offsets, (n + 1) * sizeof *b->offsets, "the tokens' index");
        b->hashes = host_resize(b->hashes, n * sizeof *b->hashes, "the tokens' index");
        b->first = host_resize(b->first, n * sizeof *b->first, "the tokens' index");
        b->weights = host_resize(b->weights, n * sizeof *b->weights, "the tokens' index");
    }
    if (b->n == INT32_MAX - 1) fatal("more than %d usable rows", INT32_MAX - 1);
    if (b->n == 0) b->offsets[0] = 0;
    spool_write(b, b->stream, job->tokens, (size_t)job->length * sizeof *job->tokens);
    for (int i = 0; b->masks && !job->mask && i < job->length; i++)
        spool_write(b, b->masks, i < job->first ? "" : "\1", 1);
    if (job->mask) spool_write(b, b->masks, job->mask, (size_t)job->length);
    b->weights[b->n] = job->weight;
    b->weighted |= job->weight != 1.0f;
    b->n_last_only += job->last_only;
    b->n_joined += job->joined;
    b->rows[b->n] = job->row.id;
    b->hashes[b->n] = job->hash;
    b->first[b->n] = job->first;
    b->offsets[b->n + 1] = b->offsets[b->n] + job->length;
    b->n_cut += job->cut;
    b->n++;
}

static void spool_free(TokenSpool* b) {
    if (b->stream) fclose(b->stream);
    if (b->masks) fclose(b->masks);
    free(b->weights);
    free(b->rows);
    free(b->offsets);
    free(b->hashes);
    free(b->first);
}

// What the best known templates write first; a tokenizer's special tokens are asked for besides.
static const char* const template_marks[] = {"<s>",
                                             "<bos>",
                                             "[INST]",
                                             "<|im_start|>",
                                             "<|begin_of_text|>",
                                             "<|start_header_id|>",
                                             "<start_of_turn>",
                                             "<|system|>",
                                             "<|user|>",
                                             "<|start|>",
                                             "<|endoftext|>",
                                             "<|START_OF_TURN_TOKEN|>",
                                             ("<\xEF\xBD\x9C"
                                              "begin"),
                                             "### Instruction:"};

static bool begins_with_mark(const char* text, size_t n, const TextEncoder* e) {
    while (n && (*text == ' ' || *text == '\n')) text++, n--;
    for (size_t i = 0; i < sizeof template_marks / sizeof *template_marks; i++) {
        size_t length = strlen(template_marks[i]);
        if (n >= length && !memcmp(text, template_marks[i], length)) return true;
    }
    return e->begins_special && e->begins_special(e->self, text, n);
}
static bool ends_with_eos(const char* text, size_t n, const TextEncoder* e) {
    size_t length = strlen(e->eos_text);
    while (n && (text[n - 1] == ' ' || text[n - 1] == '\n')) n--;
    return length && n >= length && !memcmp(text + n - length, e->eos_text, length);
}

// Rows whose texts are rendered already: their first message says so, and their answer's end.
static void count_rendered(RowReport* report, const DataRow* row, const TextEncoder* e) {
    const Conversation* c = row->conversation;
    if (!c->n) return;
    const Message *first = &c->messages[0], *last = &c->messages[c->n - 1];
    report->n_special += begins_with_mark(first->content, first->length, e);
    report->n_ended += c->answered && ends_with_eos(last->content, last->length, e);
}

static int vocabulary(const TextEncoder* e, const TokenOptions* o) { return o->vocab ? o->vocab : e->vocab; }

static void check_ids(const Job* job, const TextEncoder* e, const TokenOptions* o, const StringList* files) {
    int most = vocabulary(e, o);
    for (int i = 0; i < job->length; i++)
        if (job->tokens[i] < 0 || job->tokens[i] >= most)
            fatal(
                "%s:%lld, row %lld: the tokenizer gives token %d but the model's vocabulary has %d tokens; this "
                "tokenizer is not the model's",
                files->items[job->row.file], (long long)job->row.line, (long long)job->row.row, job->tokens[i], most);
}

static void read_rows(TokenSpool* b, TokenSet* set, const StringList* files, const TextEncoder* e,
                      const TokenOptions* o) {
    Chunk c = {.encoder = e, .options = o, .jobs = host_alloc(CHUNK_ROWS * sizeof(Job), "the tokens' index")};
    RowOptions options = o->rows;
    if (o->chat) {
        options.conversations = true;
        options.uses = chat_format_uses;
        options.format = o->chat;
    }
    RowReader* r = rows_open(files, &options);
    Progress progress;
    int64_t done, total, n_tokens = 0;
    rows_progress(r, &done, &total);
    progress_begin(&progress, "tokenising", total, o->quiet);
    for (bool more = true; more;) {
        // a chunk of rows: their texts end to end in c.text, conversations for the chat template moved to their jobs
        c.n_jobs = 0;
        c.text.n = 0;
        size_t bytes = 0;  // of conversations that are not in c.text
        while (c.n_jobs < CHUNK_ROWS && c.text.n + bytes < CHUNK_BYTES && more) {
            Job* job = &c.jobs[c.n_jobs];
            *job = (Job){.text = c.text.n};
            if (!(more = rows_next(r, &job->row))) break;
            c.n_jobs++;
            b->n_rows++;
            if (job->row.state != ROW_OK) continue;
            count_rendered(&set->report, &job->row, e);
            job->weight = (float)job->row.conversation->weight;
            if (o->chat && chat_format_applies(o->chat, job->row.conversation)) {
                job->by_template = true;
                job->conversation = *job->row.conversation;
                *job->row.conversation = (Conversation){0};
                bytes += job->row.length;
                continue;
            }
            text_add(&c.text, job->row.prompt, job->row.prompt_length);
            text_add(&c.text, job->row.response, job->row.response_length);
            text_add(&c.text, " ", 1);
            text_add(&c.text, e->eos_text, strlen(e->eos_text));
        }
        run_chunk(&c);
        // its samples in row order, to the spool; rows that are left out, to the report
        for (int i = 0; i < c.n_jobs; i++) {
            Job* job = &c.jobs[i];
            conversation_free(&job->conversation);
            row_report_add(&set->report, &job->row, files->items[job->row.file], o->left_out);
            if (job->row.state != ROW_OK) continue;
            check_ids(job, e, o, files);
            spool_add(b, job);
            n_tokens += job->length;
            free(job->tokens);
            free(job->mask);
        }
        rows_progress(r, &done, &total);
        progress_update(&progress, done, "%lld rows, %lld tokens", (long long)b->n_rows, (long long)n_tokens);
    }
    progress_end(&progress);
    rows_digest(r, set->digest);
    rows_report(r, &set->report);
    rows_close(r);
    free(c.jobs);
    text_free(&c.text);
    if (fflush(b->stream) || (b->masks && fflush(b->masks)))
        fatal("%s cannot be written: %s", b->path, strerror(errno));
}

// ---------------------------------------------------------------------------------------------------
// a set

static void tokenise(TokenSet* set, const StringList* files, const TextEncoder* e, const TokenOptions* o,
                     const char* key) {
    TokenSpool b;
    spool_begin(&b, o->cache, o->chat != NULL);
    Hex before;
    memcpy(before, set->digest, 65);
    read_rows(&b, set, files, e, o);
    if (o->cache && strcmp(before, set->digest)) fatal("%s: changed while it was read", files->items[0]);
    if (b.n == 0) {
        if (!o->quiet) row_report_print(&set->report, false, stderr);
        fatal("%s: none of %lld rows is usable%s%s", files->items[0], (long long)b.n_rows,
              set->report.n_named ? "; the first: " : "", set->report.named[0]);
    }
    size_t count = (size_t)b.offsets[b.n], bytes = count * sizeof(int32_t);
    void* tokens = mmap(NULL, bytes, PROT_READ, MAP_SHARED, b.spool, 0);
    void* masks = b.masks ? mmap(NULL, count, PROT_READ, MAP_SHARED, b.mask_spool, 0) : NULL;
    if (tokens == MAP_FAILED || masks == MAP_FAILED) fatal("%s cannot be mapped: %s", b.path, strerror(errno));
    if (o->cache) {
        token_cache_write(set, &b, tokens, masks, o->cache, key);
        munmap(tokens, bytes);
        if (masks) munmap(masks, count);
        memset(&set->report, 0, sizeof set->report);
        if (!token_cache_open(set, o->cache, key, o->max_length, vocabulary(e, o), o->quiet))
            fatal("%s was written but cannot be read back", o->cache);
    } else {
        set->file.data = tokens;
        set->file.length = bytes;
        set->masks.data = masks;
        set->masks.length = masks ? count : 0;
        set->n_rows = b.n_rows;
        set->n_cut = b.n_cut;
        set->n_last_only = b.n_last_only;
        set->n_joined = b.n_joined;
        if (b.weighted) {
            set->kept = b.weights;
            b.weights = NULL;
        }
        const TokenSetData d = {b.n, b.rows, b.offsets, b.hashes, b.first, tokens, set->kept, masks};
        token_set_fill(set, &d, o->max_length);
    }
    spool_free(&b);
}

void tokens_load(TokenSet* set, const StringList* files, const TextEncoder* e, const TokenOptions* o) {
    Hex key = "";
    memset(set, 0, sizeof *set);
    row_options_check(&o->rows);
    if (o->max_length < 4)
        fatal("--max-length %d leaves no room for a prompt, a response and the end of sequence", o->max_length);
    if (e->eos < 0) fatal("the tokenizer has no end-of-sequence token");
    if (o->cache) {
        dataset_digest(files, set->digest);
        token_cache_key(key, set->digest, e, o);
        set->cached = token_cache_open(set, o->cache, key, o->max_length, vocabulary(e, o), o->quiet);
    }
    if (!set->cached) tokenise(set, files, e, o, key);
    if (o->silent) return;
    row_report_print(&set->report, o->quiet, stderr);
    if (set->n_last_only && !o->quiet)
        warning(
            "%lld rows: the chat template rewrites earlier answers as a conversation grows; only their last answers "
            "carry loss",
            (long long)set->n_last_only);
    if (set->n_joined && !o->quiet)
        warning("%lld rows: the chat template does not write content in parts; their texts are joined",
                (long long)set->n_joined);
}

void tokens_unweighted(const TokenSet* set, const char* path, const char* of) {
    if (set->n_weighted)
        warning("%s: the weights of %lld rows have no effect in %s", path, (long long)set->n_weighted, of);
}

void tokens_free(TokenSet* set) {
    file_unmap(&set->file);
    if (set->masks.data) file_unmap(&set->masks);
    free(set->kept);
    free(set->samples);
    free(set->rows);
    free(set->hashes);
    free(set->flags);
    memset(set, 0, sizeof *set);
}

void tokens_print(const TokenSet* set, const char* what, FILE* out) {
    fprintf(out,
            "%s: %d of %lld rows, %lld tokens (%.1f per row, longest %d), %.1f%% carry loss, %lld rows cut, %lld left "
            "out\n",
            what, set->n, (long long)set->n_rows, (long long)set->n_tokens, (double)set->n_tokens / set->n,
            set->longest, 100.0 * (double)set->n_loss / (double)set->n_tokens, (long long)set->n_cut,
            (long long)row_report_bad(&set->report));
    if (*set->chat_digest) fprintf(out, "%s: chat template %s\n", what, set->chat);
    if (set->weights) {
        double sum = 0.0;
        for (int i = 0; i < set->n; i++) sum += set->weights[i];
        fprintf(out, "%s: rows have weights, %.4g on average\n", what, sum / set->n);
    }
}
