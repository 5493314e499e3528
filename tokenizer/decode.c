/*
Ids back to text, all at once or one by one. What a token becomes is a table made when the tokenizer was opened. What a
decoder does after the tokens have become one text (Fuse) runs over the text as it comes, a stage after the other, and
holds back no more than a few bytes that may still change.
*/
#include <stdlib.h>
#include "tokenizer_internal.h"

static bool known(const Tokenizer* t, int32_t id) { return id >= 0 && id < t->n_vocab && t->out[id].at != NO_SPAN; }

// ---- stages ----------------------------------------------------------------------------------------

// Where text goes: a buffer of the caller's with room enough, or (NULL) an stb_ds array.
typedef struct {
    const Tokenizer* t;
    StageState* state;
    char* fixed;
    char* grown;
    int n;
} Sink;

static void stage_push(Sink* s, ptrdiff_t stage, const char* bytes, size_t n);

static void replace_push(Sink* s, ptrdiff_t stage, char byte) {
    const DecodeStage* d = &s->t->stages[stage];
    StageState* x = &s->state[stage];
    x->held[x->n++] = byte;
    while (x->n && memcmp(x->held, d->pattern, x->n)) {  // no longer the pattern's beginning
        stage_push(s, stage + 1, x->held, 1);
        memmove(x->held, x->held + 1, --x->n);
    }
    if (x->n < d->n_pattern) return;
    stage_push(s, stage + 1, d->content, strlen(d->content));
    x->n = 0;
}

// The sign that is stripped is `pattern`. `count` signs went from the beginning (−1: text has begun), `waiting` may
// still turn out to be the end.
static void strip_push(Sink* s, ptrdiff_t stage, char byte) {
    const DecodeStage* d = &s->t->stages[stage];
    StageState* x = &s->state[stage];
    if (d->pattern[x->n] == byte) {
        if (++x->n < d->n_pattern) return;
        x->n = 0;
        if (x->count >= 0 && x->count < d->start) {
            x->count++;
            return;
        }
        x->count = -1;
        if (++x->waiting > d->stop) {
            x->waiting--;
            stage_push(s, stage + 1, d->pattern, d->n_pattern);
        }
        return;
    }
    const size_t n = x->n;
    x->count = -1;
    x->n = 0;
    for (; x->waiting; x->waiting--) stage_push(s, stage + 1, d->pattern, d->n_pattern);
    stage_push(s, stage + 1, d->pattern, n);
    if (n && byte == *d->pattern) strip_push(s, stage, byte);
    else stage_push(s, stage + 1, &byte, 1);
}

// A text that is <0xHH> and nothing else.
static void byte_push(Sink* s, ptrdiff_t stage, char byte) {
    StageState* x = &s->state[stage];
    if (!x->count && x->n < 6) {
        x->held[x->n++] = byte;
        return;
    }
    if (!x->count) stage_push(s, stage + 1, x->held, x->n);
    x->count = 1;
    stage_push(s, stage + 1, &byte, 1);
}

static void stage_push(Sink* s, ptrdiff_t stage, const char* bytes, size_t n) {
    if (!n) return;
    if (stage == arrlen(s->t->stages)) {
        memcpy(s->fixed ? s->fixed + s->n : arraddnptr(s->grown, n), bytes, n);
        s->n += (int)n;
        return;
    }
    for (size_t i = 0; i < n; i++) switch (s->t->stages[stage].type) {
            case STAGE_REPLACE: replace_push(s, stage, bytes[i]); break;
            case STAGE_STRIP: strip_push(s, stage, bytes[i]); break;
            case STAGE_BYTE: byte_push(s, stage, bytes[i]); break;
        }
}

// The end of the text: what is held back is final.
static void stages_end(Sink* s) {
    for (ptrdiff_t k = 0; k < arrlen(s->t->stages); k++) {
        StageState* x = &s->state[k];
        char byte;
        if (s->t->stages[k].type == STAGE_BYTE && !x->count && byte_of_name(x->held, x->n, &byte))
            stage_push(s, k + 1, &byte, 1);
        else if (s->t->stages[k].type != STAGE_BYTE || !x->count)
            stage_push(s, k + 1, s->t->stages[k].type == STAGE_STRIP ? s->t->stages[k].pattern : x->held, x->n);
        x->n = 0;
    }
}

// ---- tokens ----------------------------------------------------------------------------------------

// Writes one token. `started`: whether the spaces at the beginning are through (sentencepiece), or whether this is not
// the first token.
static void put_piece(Sink* s, int32_t id, bool* started) {
    const Tokenizer* t = s->t;
    Span piece = t->out_first && !*started ? t->out_first[id] : t->out[id];
    const char* bytes = t->arena + piece.at;
    if (t->decode == DECODE_JOIN_SPACES && *started) stage_push(s, 0, " ", 1);
    if (t->decode != DECODE_SENTENCEPIECE) {
        stage_push(s, 0, bytes, piece.n);
        *started = true;
        return;
    }
    const bool marked = t->text[id].n >= 3 && !memcmp(t->arena + t->text[id].at, "\xE2\x96\x81", 3);
    if (t->strip_first && !*started && marked && piece.n && *bytes == ' ') {
        bytes++;
        piece.n--;
    }
    stage_push(s, 0, bytes, piece.n);
    // An empty piece leaves the space of the next one to be stripped.
    if (piece.n > 0 || (t->out[id].n > 0 && !t->strip_until_text)) *started = true;
}

char* tokenizer_decode(const Tokenizer* t, const int32_t* ids, int64_t n, bool with_special, size_t* length,
                       char* error, size_t error_size) {
    size_t room = 1;
    for (int64_t i = 0; i < n; i++) {
        if (!known(t, ids[i])) {
            snprintf(error, error_size, "id %d (number %lld) is not in the tokenizer, whose ids end at %d", ids[i],
                     (long long)i + 1, t->n_vocab - 1);
            return NULL;
        }
        room += t->out[ids[i]].n + 1;
    }
    const bool plain = !arrlen(t->stages);
    StageState state[TOKENIZER_STAGES] = {{0}};
    Sink s = {t, state, plain ? malloc(room) : NULL, NULL, 0};
    bool started = false;
    for (int64_t i = 0; i < n && (s.fixed || !plain); i++)
        if (with_special || !t->special[ids[i]]) put_piece(&s, ids[i], &started);
    stages_end(&s);
    char* out = plain ? s.fixed : malloc((size_t)s.n + 1);
    if (!out) {
        snprintf(error, error_size, NO_MEMORY "the text of %lld tokens", (long long)n);
    } else {
        if (!plain && s.n) memcpy(out, s.grown, (size_t)s.n);
        out[s.n] = 0;
        *length = (size_t)s.n;
    }
    arrfree(s.grown);
    return out;
}

// ---- streaming -------------------------------------------------------------------------------------

// Whether u[0, n) may still become a character: a proper beginning that is too short.
static bool incomplete(const unsigned char* u, int n) {
    static const struct {
        unsigned char first, last, low, high;
        int length;
    } heads[] = {// Unicode's table 3-7
                 {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3}, {0xE1, 0xEC, 0x80, 0xBF, 3},
                 {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3}, {0xF0, 0xF0, 0x90, 0xBF, 4},
                 {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4}};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        if (u[0] < heads[i].first || u[0] > heads[i].last) continue;
        if (n >= heads[i].length || (n > 1 && (u[1] < heads[i].low || u[1] > heads[i].high))) return false;
        return n < 3 || (u[2] & 0xC0) == 0x80;
    }
    return false;
}

// What is written, but for the last one to three bytes if they begin a character.
static int hold_back(TokenStream* s, char* out, int n) {
    s->n_pending = 0;
    for (int k = 1; k <= 3 && k <= n; k++)
        if (incomplete((unsigned char*)out + n - k, k)) s->n_pending = k;
    memcpy(s->pending, out + n - s->n_pending, (size_t)s->n_pending);
    return n - s->n_pending;
}

int tokenizer_stream_push(const Tokenizer* t, TokenStream* s, int32_t id, bool with_special, char* out) {
    if (!known(t, id)) return -1;
    if (!with_special && t->special[id]) return 0;
    Sink sink = {t, s->stage, out, NULL, s->n_pending};
    memcpy(out, s->pending, (size_t)s->n_pending);
    put_piece(&sink, id, &s->started);
    return hold_back(s, out, sink.n);
}

int tokenizer_stream_end(const Tokenizer* t, TokenStream* s, char* out) {
    Sink sink = {t, s->stage, out, NULL, s->n_pending};
    memcpy(out, s->pending, (size_t)s->n_pending);
    stages_end(&sink);
    int n = hold_back(s, out, sink.n);
    if (s->n_pending) {
        memcpy(out + n, "\xEF\xBF\xBD", 3);
        n += 3;
    }
    *s = (TokenStream){0};
    return n;
}
