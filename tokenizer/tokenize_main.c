/* tokenize: text on stdin to ids on stdout, or back. All of stdin is one text, byte for byte; with --batch it is many,
 * which threads share. */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "tokenizer.h"
#include "chat.h"

#define MOST_THREADS 256

typedef struct {
    const char *path, *chat;
    bool decode, special, batch, offsets, time, render;
    int threads;
} Options;

static bool stopping;
#ifdef __SANITIZE_ADDRESS__
int __lsan_is_turned_off(void) {
    return stopping;
}  // LeakSanitizer asks: a program that stops with a message frees nothing
#endif

__attribute__((format(printf, 1, 2), noreturn)) static void stop(const char* format, ...) {
    va_list args;
    stopping = true;
    va_start(args, format);
    fputs("tokenize: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}

static void* need(void* memory) {
    if (!memory) stop("out of host memory");
    return memory;
}

// ---- options ---------------------------------------------------------------------------------------

static void help(void) {
    puts(
        "tokenize --tokenizer DIR_OR_FILE [--decode] [--special]     text on stdin to token ids on stdout; all of "
        "stdin is one text, byte for byte\n"
        "  --tokenizer PATH  a model's directory, or tokenizer.json, tokenizer.model, encoder.json, vocab.json (each "
        "also .gz)\n"
        "  --decode          ids on stdin (separated by spaces) to text on stdout\n"
        "  --special         encoding: add BOS and EOS as the tokenizer does, and read text spelled like a special "
        "token as that token\n"
        "                    decoding: print special tokens, too\n"
        "  --offsets         id:start:end instead of id: the bytes of the text that the token covers\n"
        "  --batch           many texts, each as a netstring (LENGTH:BYTES, with the comma); a line of ids for each\n"
        "                    with --decode: a line of ids for each text on stdin, netstrings on stdout\n"
        "  --threads N       of --batch [1]\n"
        "  --time            of --batch: instead of the ids, texts, tokens and seconds of encoding (reading not "
        "counted) on stderr\n"
        "  --chat WHICH      conversations, one JSON object per line (messages, tools, add_generation_prompt …), as a "
        "chat "
        "template writes them:\n"
        "                    auto (the template of --tokenizer's directory), a file, or one of ours: llama3, mistral, "
        "mistral-v0.2, phi3;\n"
        "                    a line of ids for each, special tokens in the row's own words being text unless "
        "--special\n"
        "  --render          with --chat: a JSON string for each instead, or {\"error\": …} (then the exit status is "
        "2); --tokenizer may be left out\n"
        "  --help            this text\n"
        "Without --special no BOS or EOS is added. Text spelled like a special token is then that token for a "
        "tokenizer.json, as in Hugging Face\n"
        "`tokenizers`, and ordinary text for the other formats, as in tiktoken and sentencepiece.");
}

static int whole_number(const char* name, const char* text, int low, int high) {
    char* end;
    errno = 0;
    long n = strtol(text, &end, 10);
    if (end == text || *end || errno || n < low || n > high)
        stop("%s is \"%.40s\"; expected a whole number from %d to %d", name, text, low, high);
    return (int)n;
}

static Options read_options(int argc, char** argv) {
    Options o = {.threads = 1};
    const struct {
        const char* name;
        bool* flag;
        const char** text;
    } rows[] = {
        {"--tokenizer", NULL, &o.path}, {"--decode", &o.decode, NULL},   {"--special", &o.special, NULL},
        {"--batch", &o.batch, NULL},    {"--offsets", &o.offsets, NULL}, {"--threads", NULL, NULL},
        {"--time", &o.time, NULL},      {"--chat", NULL, &o.chat},       {"--render", &o.render, NULL},
    };
    enum { N_ROWS = sizeof rows / sizeof *rows };
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help")) {
            help();
            exit(0);
        }
        const char* equals = strchr(argv[i], '=');
        size_t n = equals ? (size_t)(equals - argv[i]) : strlen(argv[i]);
        int r = 0;
        while (r < N_ROWS && (strncmp(rows[r].name, argv[i], n) || rows[r].name[n])) r++;
        if (r == N_ROWS) stop("unknown option %.60s; see tokenize --help", argv[i]);
        if (rows[r].flag) {
            if (equals) stop("%s takes no value", rows[r].name);
            *rows[r].flag = true;
            continue;
        }
        const char* value = equals ? equals + 1 : i + 1 < argc ? argv[++i] : "";
        if (!*value) stop("%s needs a value; see tokenize --help", rows[r].name);
        if (rows[r].text) *rows[r].text = value;
        else o.threads = whole_number(rows[r].name, value, 1, MOST_THREADS);
    }
    if (o.render && !o.chat) stop("--render has no effect without --chat");
    if (!o.path && !o.render) stop("--tokenizer is missing; see tokenize --help");
    if (o.chat && (o.decode || o.batch || o.offsets))
        stop("--decode, --batch and --offsets cannot be used with --chat");
    if (o.decode && o.offsets) stop("--offsets has no effect with --decode");
    if (!o.batch && !o.chat && (o.threads > 1 || o.time)) stop("--threads and --time belong to --batch and --chat");
    return o;
}

static char* read_stdin(size_t* length) {
    size_t room = 1 << 16, n = 0, got;
    char* text = need(malloc(room));
    while ((got = fread(text + n, 1, room - n - 1, stdin)) > 0) {
        n += got;
        if (room - n < 2) text = need(realloc(text, room *= 2));
    }
    if (ferror(stdin)) stop("stdin cannot be read: %s", strerror(errno));
    text[n] = 0;
    *length = n;
    return text;
}

// ---- decoding --------------------------------------------------------------------------------------

// The ids of text[0, n); `line` names them in messages, 0: not at all.
static int32_t* read_ids(const char* text, size_t n, size_t line, int64_t* n_ids) {
    size_t room = 256, at = 0;
    int32_t* ids = need(malloc(room * sizeof *ids));
    char where[32] = "stdin";
    if (line) snprintf(where, sizeof where, "stdin:%zu", line);
    for (const char *p = text, *end = text + n;;) {
        while (p < end && strchr(" \t\r\n", *p) && *p) p++;
        if (p == end) break;
        int width = 0;
        while (p + width < end && width < 20 && p[width] > ' ') width++;
        char* end_of_number;
        errno = 0;
        long id = strtol(p, &end_of_number, 10);
        if (end_of_number == p || end_of_number > end ||
            (end_of_number < end && (!*end_of_number || !strchr(" \t\r\n", *end_of_number))))
            stop("%s: %.*s (number %zu) is not an id", where, width, p, at + 1);
        if (errno || id < 0 || id > INT_MAX) stop("%s: id %.*s (number %zu) is out of range", where, width, p, at + 1);
        if (at == room) ids = need(realloc(ids, (room *= 2) * sizeof *ids));
        ids[at++] = (int32_t)id;
        p = end_of_number;
    }
    *n_ids = (int64_t)at;
    return ids;
}

static void decode(const Tokenizer* t, const char* text, size_t n, size_t line, const Options* o) {
    char error[512];
    size_t length;
    int64_t n_ids;
    int32_t* ids = read_ids(text, n, line, &n_ids);
    char* out = tokenizer_decode(t, ids, n_ids, o->special, &length, error, sizeof error);
    if (!out && line) stop("stdin:%zu: %s", line, error);
    if (!out) stop("stdin: %s", error);
    if (line) printf("%zu:", length);
    fwrite(out, 1, length, stdout);
    if (line) putchar(',');
    free(out);
    free(ids);
}

static void decode_lines(const Tokenizer* t, const char* text, size_t n, const Options* o) {
    size_t line = 1;
    for (const char *p = text, *end = text + n; p < end; line++) {
        const char* newline = memchr(p, '\n', (size_t)(end - p));
        size_t length = newline ? (size_t)(newline - p) : (size_t)(end - p);
        decode(t, p, length, line, o);
        p += length + (newline != NULL);
    }
}

// ---- encoding --------------------------------------------------------------------------------------

static int encode_flags(const Tokenizer* t, const Options* o) {
    return tokenizer_default_flags(t) | (o->special ? TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL : 0);
}

static void print_tokens(const int32_t* ids, const int32_t* start, const int32_t* end, int64_t n, const Options* o) {
    for (int64_t i = 0; i < n; i++) {
        if (o->offsets) printf("%s%d:%d:%d", i ? " " : "", ids[i], start[i], end[i]);
        else printf("%s%d", i ? " " : "", ids[i]);
    }
    putchar('\n');
}

static void encode(const Tokenizer* t, const char* text, size_t length, const Options* o) {
    Encoding e = {0};
    if (tokenizer_encode(t, text, length, encode_flags(t, o), &e) < 0) stop("stdin: %s", e.error);
    print_tokens(e.ids, e.start, e.end, e.n, o);
    encoding_free(&e);
}

// One text of a batch and what became of it: three arrays of n after one another in `ids`.
typedef struct {
    const char* text;
    size_t length;
    int32_t* ids;
    int64_t n;
} Job;
typedef struct {
    const Tokenizer* t;
    const Options* o;
    Job* jobs;
    size_t n_jobs;
    _Atomic size_t next;
} Batch;

static Job* read_netstrings(const char* text, size_t length, size_t* n_jobs) {
    size_t room = 1024, n = 0, at = 0;
    Job* jobs = need(malloc(room * sizeof *jobs));
    while (at < length) {
        size_t size = 0, digits = 0;
        while (at < length && text[at] >= '0' && text[at] <= '9' && digits++ < 12)
            size = 10 * size + (size_t)(text[at++] - '0');
        if (!digits || at == length || text[at] != ':' || size > length - at - 1 || at + 1 + size == length ||
            text[at + 1 + size] != ',')
            stop("stdin: text %zu, at byte %zu, is not a netstring (LENGTH:BYTES,)", n + 1, at);
        if (n == room) jobs = need(realloc(jobs, (room *= 2) * sizeof *jobs));
        jobs[n++] = (Job){text + at + 1, size, NULL, 0};
        at += size + 2;
    }
    *n_jobs = n;
    return jobs;
}

static void* work(void* argument) {
    enum { BLOCK = 64 };  // texts that a thread takes at a time
    Batch* b = argument;
    Encoding e = {0};
    const int flags = encode_flags(b->t, b->o);
    for (size_t from; (from = atomic_fetch_add(&b->next, BLOCK)) < b->n_jobs;)
        for (size_t i = from; i < from + BLOCK && i < b->n_jobs; i++) {
            Job* j = &b->jobs[i];
            j->n = tokenizer_encode(b->t, j->text, j->length, flags, &e);
            if (j->n < 0) stop("stdin: text %zu: %s", i + 1, e.error);
            size_t bytes = (size_t)j->n * sizeof *j->ids;
            j->ids = need(malloc(3 * bytes + 1));
            memcpy(j->ids, e.ids, bytes);
            memcpy(j->ids + j->n, e.start, bytes);
            memcpy(j->ids + 2 * j->n, e.end, bytes);
        }
    encoding_free(&e);
    return NULL;
}

static void encode_batch(const Tokenizer* t, const char* text, size_t length, const Options* o) {
    Batch b = {.t = t, .o = o};
    b.jobs = read_netstrings(text, length, &b.n_jobs);
    pthread_t threads[MOST_THREADS];
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 1; i < o->threads; i++)
        if (pthread_create(&threads[i], NULL, work, &b)) stop("thread %d cannot be started: %s", i, strerror(errno));
    work(&b);
    for (int i = 1; i < o->threads; i++) pthread_join(threads[i], NULL);
    clock_gettime(CLOCK_MONOTONIC, &end);
    int64_t tokens = 0;
    for (size_t i = 0; i < b.n_jobs; i++) {
        const Job* j = &b.jobs[i];
        if (!o->time) print_tokens(j->ids, j->ids + j->n, j->ids + 2 * j->n, j->n, o);
        tokens += j->n;
        free(j->ids);
    }
    double seconds = (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
    if (o->time) fprintf(stderr, "%zu texts, %lld tokens, %.6f s\n", b.n_jobs, (long long)tokens, seconds);
    free(b.jobs);
}

// ---- chat ------------------------------------------------------------------------------------------

// A line and what became of it: a text of JSON, or ids.
typedef struct {
    const char* line;
    size_t length;
    char* out;
    size_t n;
    int64_t tokens;
    bool bad;
} ChatJob;
typedef struct {
    const Tokenizer* t;
    const Chat* chat;
    ChatTokens tokens;
    const Options* o;
    ChatJob* jobs;
    size_t n_jobs;
    _Atomic size_t next;
} ChatBatch;

typedef struct {
    char* s;
    size_t n, room;
} Line;

static char* line_room(Line* l, size_t n) {
    if (l->room - l->n < n) l->s = need(realloc(l->s, l->room = 2 * (l->room + n)));
    return l->s + l->n;
}

static void put_json_string(Line* l, const char* text, size_t n) {
    char* at = line_room(l, 6 * n + 3);
    *at++ = '"';
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\') *at++ = '\\', *at++ = (char)c;
        else if (c == '\n') *at++ = '\\', *at++ = 'n';
        else if (c < 0x20) at += sprintf(at, "\\u%04x", c);
        else if (c == 0xED && i + 2 < n && (unsigned char)text[i + 1] >= 0xA0) {  // half of a surrogate pair
            at += sprintf(at, "\\ud%03x", ((unsigned)text[i + 1] & 0x3F) << 6 | ((unsigned)text[i + 2] & 0x3F));
            i += 2;
        } else *at++ = (char)c;
    }
    *at++ = '"';
    l->n = (size_t)(at - l->s);
}

static void chat_line(const ChatBatch* b, ChatJob* j, JinjaScratch* scratch, Encoding* e) {
    char error[600];
    JinjaResult r;
    Line l = {0};
    bool good = chat_render(b->chat, scratch, j->line, j->length, &r, error, sizeof error);
    if (good && b->o->render) put_json_string(&l, r.text, r.n);
    else if (good) {
        PlainText plain = {r.given, b->o->special ? 0 : (int)r.n_given, b->tokens.guarded, b->tokens.n_guarded};
        j->tokens = tokenizer_encode_mixed(b->t, r.text, r.n, &plain, 0, e);
        good = j->tokens >= 0;
        if (!good) snprintf(error, sizeof error, "%s", e->error);
        for (int64_t i = 0; i < j->tokens && !b->o->time; i++)
            l.n += (size_t)sprintf(line_room(&l, 16), "%s%d", i ? " " : "", e->ids[i]);
    }
    if (!good) {
        memcpy(line_room(&l, 10), "{\"error\": ", 10);
        l.n += 10;
        put_json_string(&l, error, strlen(error));
        *line_room(&l, 1) = '}';
        l.n++;
    }
    j->bad = !good;
    j->out = l.s;
    j->n = l.n;
}

static void* chat_work(void* argument) {
    enum { BLOCK = 16 };
    ChatBatch* b = argument;
    Encoding e = {0};
    JinjaScratch* scratch = need(jinja_begin(NULL));
    for (size_t from; (from = atomic_fetch_add(&b->next, BLOCK)) < b->n_jobs;)
        for (size_t i = from; i < from + BLOCK && i < b->n_jobs; i++) chat_line(b, &b->jobs[i], scratch, &e);
    jinja_end(scratch);
    encoding_free(&e);
    return NULL;
}

// Returns the exit status: 2 where a line had an error.
static int chat_lines(const Tokenizer* t, const char* text, size_t length, const Options* o) {
    char error[512];
    Chat* chat = chat_open(o->chat, o->path, t, error, sizeof error);
    if (!chat) stop("--chat %s: %s", o->chat, error);
    ChatBatch b = {.t = t, .chat = chat, .o = o};
    if (!o->render && !chat_fits(chat, t, &b.tokens, error, sizeof error)) stop("--chat %s: %s", o->chat, error);
    size_t room = 1024;
    b.jobs = need(malloc(room * sizeof *b.jobs));
    for (const char *p = text, *end = text + length; p < end;) {
        const char* newline = memchr(p, '\n', (size_t)(end - p));
        size_t n = newline ? (size_t)(newline - p) : (size_t)(end - p);
        if (b.n_jobs == room) b.jobs = need(realloc(b.jobs, (room *= 2) * sizeof *b.jobs));
        b.jobs[b.n_jobs++] = (ChatJob){.line = p, .length = n};
        p += n + 1;
    }
    pthread_t threads[MOST_THREADS];
    struct timespec begin, done;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 1; i < o->threads; i++)
        if (pthread_create(&threads[i], NULL, chat_work, &b))
            stop("thread %d cannot be started: %s", i, strerror(errno));
    chat_work(&b);
    for (int i = 1; i < o->threads; i++) pthread_join(threads[i], NULL);
    clock_gettime(CLOCK_MONOTONIC, &done);
    int status = 0;
    int64_t tokens = 0;
    for (size_t i = 0; i < b.n_jobs; i++) {
        const ChatJob* j = &b.jobs[i];
        if (j->bad) status = 2;
        if (!o->time || j->bad) {
            fwrite(j->out, 1, j->n, stdout);
            putchar('\n');
        }
        tokens += j->tokens;
        free(j->out);
    }
    double seconds = (double)(done.tv_sec - begin.tv_sec) + 1e-9 * (double)(done.tv_nsec - begin.tv_nsec);
    if (o->time) fprintf(stderr, "%zu conversations, %lld tokens, %.6f s\n", b.n_jobs, (long long)tokens, seconds);
    free(b.jobs);
    chat_close(chat);
    return status;
}

int main(int argc, char** argv) {
    char error[512];
    size_t length;
    int status = 0;
    const Options o = read_options(argc, argv);
    Tokenizer* t = o.path ? tokenizer_open(o.path, error, sizeof error) : NULL;
    // a rendering does without a tokenizer where files of its directory name bos_token and eos_token
    if (o.path && !t && !(o.render && chat_variables_in(o.path))) stop("%s", error);
    for (int i = 0; t && tokenizer_note(t, i); i++) fprintf(stderr, "tokenize: %s\n", tokenizer_note(t, i));
    char* text = read_stdin(&length);
    if (o.chat) status = chat_lines(t, text, length, &o);
    else if (o.decode && o.batch) decode_lines(t, text, length, &o);
    else if (o.decode) decode(t, text, length, 0, &o);
    else if (o.batch) encode_batch(t, text, length, &o);
    else encode(t, text, length, &o);
    free(text);
    tokenizer_close(t);
    if (fflush(stdout) || ferror(stdout)) stop("stdout cannot be written: %s", strerror(errno));
    return status;
}
