/* Ids back to text, all at once or one by one. What a token becomes is a table made when the tokenizer was opened; here
   only the order matters: blanks between words, the blank that encoding put in front, UTF-8 that is spread over several
   tokens. */
#include <stdlib.h>
#include "tokenizer_internal.h"

static bool known(const Tokenizer* t, int32_t id) { return id >= 0 && id < t->n_vocab && t->out[id].at != NO_SPAN; }

// Writes the bytes of one token; returns their number. `started`: whether the blanks at the beginning are through.
static int put_piece(const Tokenizer* t, int32_t id, bool* started, char* out) {
    Span piece = t->out[id];
    const char* bytes = t->arena + piece.at;
    const bool marked = !t->strip_marks ||
                        (t->text[id].n >= 3 && !memcmp(t->arena + t->text[id].at, "\xE2\x96\x81", 3));
    int n = 0;
    if (t->decode == DECODE_JOIN_SPACES && *started) out[n++] = ' ';
    for (int32_t i = 0; i < t->strip_first && !*started && marked && piece.n && *bytes == ' '; i++) {
        bytes++;
        piece.n--;
    }
    memcpy(out + n, bytes, piece.n);
    n += (int)piece.n;
    // An empty piece leaves the blank of the next one to be stripped, but is a word of its own where blanks stand
    // between words.
    if (t->decode == DECODE_JOIN_SPACES || n > 0 || (t->out[id].n > 0 && !t->strip_until_text)) *started = true;
    return n;
}

char* tokenizer_decode(const Tokenizer* t, const int32_t* ids, int64_t n, bool with_special, size_t* length,
                       char* error, size_t error_size) {
    size_t room = 1, at = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!known(t, ids[i])) {
            snprintf(error, error_size, "id %d (number %lld) is not in the tokenizer, whose ids end at %d", ids[i],
                     (long long)i + 1, t->n_vocab - 1);
            return NULL;
        }
        room += t->out[ids[i]].n + 1;
    }
    char* out = malloc(room);
    if (!out) {
        snprintf(error, error_size, "not enough memory to decode %lld tokens", (long long)n);
        return NULL;
    }
    bool started = false;
    for (int64_t i = 0; i < n; i++) {
        if (!with_special && t->special[ids[i]]) continue;
        at += (size_t)put_piece(t, ids[i], &started, out + at);
    }
    out[at] = 0;
    *length = at;
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

int tokenizer_stream_push(const Tokenizer* t, TokenStream* s, int32_t id, bool with_special, char* out) {
    if (!known(t, id)) return -1;
    if (!with_special && t->special[id]) return 0;
    int n = s->n_pending;
    memcpy(out, s->pending, (size_t)n);
    n += put_piece(t, id, &s->started, out + n);
    // Hold back the last one to three bytes if they begin a character.
    s->n_pending = 0;
    for (int k = 1; k <= 3 && k <= n; k++)
        if (incomplete((unsigned char*)out + n - k, k)) s->n_pending = k;
    memcpy(s->pending, out + n - s->n_pending, (size_t)s->n_pending);
    return n - s->n_pending;
}

int tokenizer_stream_end(TokenStream* s, char* out) {
    int n = s->n_pending ? 3 : 0;
    memcpy(out, "\xEF\xBF\xBD", (size_t)n);
    *s = (TokenStream){0};
    return n;
}
