/*
The tokenizers against what their own libraries said (dev/reference/record_tokenizers.py): ids and byte offsets of 2300
strings for small tokenizers of every style, and for the published ones where ../shared is there. Decoding at once and
one by one, threads, chat templates, bad files, bad ids.
*/
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include "check.h"
#include "base/text.h"
#include "chat.h"
#include "rows/chat_rows.h"
#include "tokenizer.h"

#define GOLDEN "dev/reference/golden/tokenizers/"

typedef struct {
    unsigned char* s;
    size_t n, at;
} Bytes;
typedef struct {
    const char* s;
    size_t n;
} String;

// A gzip or plain file, whole; s is NULL where it cannot be read.
static Bytes read_bytes(const char* path) {
    Bytes b = {0};
    gzFile f = gzopen(path, "rb");
    if (!f) return b;
    size_t room = 1 << 16;
    b.s = malloc(room + 1);
    for (int got; (got = gzread(f, b.s + b.n, (unsigned)(room - b.n))) > 0;)
        if ((b.n += (size_t)got) == room) b.s = realloc(b.s, (room *= 2) + 1);
    gzclose(f);
    b.s[b.n] = 0;
    return b;
}

static bool next_netstring(Bytes* b, String* out) {
    size_t n = 0;
    if (b->at >= b->n) return false;
    while (b->s[b->at] != ':') n = 10 * n + (size_t)(b->s[b->at++] - '0');
    *out = (String){(const char*)b->s + b->at + 1, n};
    b->at += n + 2;
    return true;
}

static uint64_t next_number(Bytes* b) {
    uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
        unsigned char c = b->s[b->at++];
        v |= (uint64_t)(c & 127) << shift;
        if (c < 128) return v;
    }
}

static String texts[4096];
static int n_texts;
static void read_texts(void) {
    static Bytes all;
    all = read_bytes(GOLDEN "texts.gz");
    while (all.s && next_netstring(&all, &texts[n_texts])) n_texts++;
}

// ---- recorded ids and offsets ----------------------------------------------------------------------

enum { SPECIAL = 1, WHOLE = 2, LOSSLESS = 4, BYTES = 8 };
// SPECIAL: BOS and EOS are added, special text is read. WHOLE: offsets were recorded in characters. LOSSLESS: what the
// tokenizer has bytes for comes back as it was; BYTES: so does what is not UTF-8.
static const struct {
    const char *path, *tokens;
    int flags;
} goldens[] = {
    {GOLDEN "gpt2_style.json.gz", "gpt2_style", SPECIAL | WHOLE | LOSSLESS | BYTES},
    {GOLDEN "pair", "gpt2_style", SPECIAL | WHOLE | LOSSLESS | BYTES},
    {GOLDEN "neox_style.json.gz", "neox_style", SPECIAL | WHOLE},
    {GOLDEN "llama3_style.json.gz", "llama3_style", SPECIAL | WHOLE | BYTES},
    {GOLDEN "prefix_style.json.gz", "prefix_style", SPECIAL | WHOLE},
    {GOLDEN "ranks.model.gz", "ranks", LOSSLESS | BYTES},
    {GOLDEN "llama2_style.json.gz", "llama2_style", SPECIAL | WHOLE},
    {GOLDEN "mistral_style.json.gz", "mistral_style", SPECIAL | WHOLE},
    {GOLDEN "normal_forms_style.json.gz", "normal_forms_style", SPECIAL | WHOLE},
    {GOLDEN "word_level_style.json.gz", "word_level_style", SPECIAL | WHOLE},
    {GOLDEN "sentence_fallback.model.gz", "sentence_fallback", WHOLE | LOSSLESS},
    {GOLDEN "sentence_unknown.model.gz", "sentence_unknown", WHOLE},
    {GOLDEN "sentence_plain.model.gz", "sentence_plain", WHOLE | LOSSLESS},
    {"gpt2", "gpt2_pair", SPECIAL | WHOLE | LOSSLESS | BYTES},
    {"neox20b/20B_tokenizer.json.gz", "neox20b_json", SPECIAL | WHOLE},
    {"llama2/tokenizer.json.gz", "llama2_json", SPECIAL | WHOLE},
    {"llama2/tokenizer.model", "llama2_model", WHOLE | LOSSLESS},
    {"llama3/tokenizer.model.gz", "llama3_ranks", LOSSLESS | BYTES},
    {"mistral_v0.3/tokenizer.json.gz", "mistral_json", SPECIAL | WHOLE},
    {"mistral_v0.3/tokenizer.model.v3", "mistral_model", WHOLE | LOSSLESS},
    {"phi3/tokenizer.json.gz", "phi3_json", SPECIAL | WHOLE},
};

static int begins_character(const String* t, int64_t i) {
    return i <= 0 || (size_t)i >= t->n || ((unsigned char)t->s[i] & 0xC0) != 0x80;
}
static int is_utf8(const String* t) {
    for (size_t i = 0; i < t->n;) {
        unsigned char c = (unsigned char)t->s[i];
        size_t n = c < 0x80 ? 1 : c >= 0xC2 && c < 0xE0 ? 2 : c >= 0xE0 && c < 0xF0 ? 3 : c >= 0xF0 && c < 0xF5 ? 4 : 0;
        if (!n || i + n > t->n) return 0;
        for (size_t k = 1; k < n; k++)
            if (((unsigned char)t->s[i + k] & 0xC0) != 0x80) return 0;
        unsigned char d = n > 1 ? (unsigned char)t->s[i + 1] : 0;
        if ((c == 0xE0 && d < 0xA0) || (c == 0xED && d > 0x9F) || (c == 0xF0 && d < 0x90) || (c == 0xF4 && d > 0x8F))
            return 0;
        i += n;
    }
    return 1;
}

// Compares one text with its record. *decoded: the CRC-32 of what the ids decode to; 0: not recorded.
static int as_recorded(const Encoding* e, const String* text, Bytes* record, int whole, int* asked, uint32_t* decoded) {
    uint64_t n = next_number(record);
    int same = 1;
    *asked = n > 0;
    *decoded = 0;
    if (!n) return 1;
    same = (int64_t)n - 1 == e->n;
    int64_t before = 0;
    const int characters = is_utf8(text);  // where there are none, offsets in characters mean nothing
    for (uint64_t i = 0; i + 1 < n; i++) {
        uint64_t id = next_number(record), gap = next_number(record), length = next_number(record);
        int64_t start = before + (int64_t)(gap >> 1 ^ -(gap & 1)), end = start + (int64_t)length;
        before = end;
        if (!same) continue;
        int64_t ours_start = e->start[i], ours_end = e->end[i];
        while (whole && ours_start < ours_end && !begins_character(text, ours_start)) ours_start--;
        while (whole && ours_start < ours_end && !begins_character(text, ours_end)) ours_end++;
        same = (uint64_t)e->ids[i] == id && ((whole && !characters) || (ours_start == start && ours_end == end));
    }
    *decoded = (uint32_t)next_number(record);
    return same;
}

// All pieces of the stream, then compared with what was decoded at once (an end inside a character becomes U+FFFD in
// the stream).
static int packs_alike(const Tokenizer* t, const Encoding* e, const char* whole, size_t length) {
    TokenStream s = {0};
    char* out = malloc((size_t)tokenizer_longest_piece(t) + 8);
    size_t at = 0;
    int same = 1;
    for (int64_t i = 0; i < e->n && same; i++) {
        int n = tokenizer_stream_push(t, &s, e->ids[i], true, out);
        same = n >= 0 && at + (size_t)n <= length && !memcmp(whole + at, out, (size_t)n);
        at += (size_t)n;
    }
    int held = s.n_pending, last = tokenizer_stream_end(t, &s, out);
    same = same && at + (size_t)held == length && (held ? last == 3 && !memcmp(out, "\xEF\xBF\xBD", 3) : last == 0);
    free(out);
    return same;
}

static void test_golden(int g) {
    char path[512], error[512], name[64];
    const char* shared = getenv("SHARED_DIR");
    const int own = !strncmp(goldens[g].path, GOLDEN, strlen(GOLDEN)), flags = goldens[g].flags;
    snprintf(name, sizeof name, "%s", own ? goldens[g].path + strlen(GOLDEN) : goldens[g].path);
    if (own) snprintf(path, sizeof path, "%s", goldens[g].path);
    else snprintf(path, sizeof path, "%s/data/tokenizers/%s", shared ? shared : "../shared", goldens[g].path);
    if (!own && access(path, R_OK)) {
        check_skip(name, "not in ../shared/data/tokenizers (SHARED_DIR)");
        return;
    }
    Tokenizer* t = tokenizer_open(path, error, sizeof error);
    if (!check(t != NULL, "%s opens%s%s", name, t ? "" : ": ", t ? "" : error)) return;
    snprintf(path, sizeof path, GOLDEN "%s.tokens.gz", goldens[g].tokens);
    Bytes record = read_bytes(path);
    Encoding e = {0};
    const int how = flags & SPECIAL ? TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL : 0;
    int n_asked = 0, differ = 0, first = -1, lost = 0, streams = 0, others = 0;
    for (int i = 0; i < n_texts && record.s; i++) {
        int asked = 0;
        uint32_t decoded = 0;
        if (tokenizer_encode(t, texts[i].s, texts[i].n, how, &e) < 0 ||
            !as_recorded(&e, &texts[i], &record, flags & WHOLE, &asked, &decoded)) {
            differ++;
            if (first < 0) first = i;
        }
        n_asked += asked;
        size_t length;
        char* back = tokenizer_decode(t, e.ids, e.n, true, &length, error, sizeof error);
        int same = back && length == texts[i].n && !memcmp(back, texts[i].s, length);
        others += !back || (decoded && crc32(0, (const unsigned char*)back, (uInt)length) != decoded);
        // sentencepiece reads U+2581 as a space
        int comparable = flags & LOSSLESS &&
                         (flags & BYTES || (is_utf8(&texts[i]) && !memmem(texts[i].s, texts[i].n, "\xE2\x96\x81", 3)));
        lost += comparable && !same;
        streams += !back || !packs_alike(t, &e, back, length);
        free(back);
    }
    check(record.at == record.n && n_asked > 2000 && !differ,
          "%s: ids and offsets of %d strings as recorded (%d differ, the first is text %d)", name, n_asked, differ,
          first);
    check(!others, "%s: decoding gives what the library gives (%d do not)", name, others);
    if (flags & LOSSLESS) check(!lost, "%s: decoding gives every text back (%d do not)", name, lost);
    check(!streams, "%s: one by one decodes as all at once (%d do not)", name, streams);
    encoding_free(&e);
    free(record.s);
    tokenizer_close(t);
}

// ---- one tokenizer, many threads -------------------------------------------------------------------

typedef struct {
    const Tokenizer* t;
    uint64_t hash;
} Reader;
static void* read_all(void* argument) {
    Reader* r = argument;
    Encoding e = {0};
    for (int round = 0; round < 2; round++)  // the second time from the cache
        for (int i = 0; i < n_texts; i++) {
            tokenizer_encode(r->t, texts[i].s, texts[i].n, TOKENIZER_PARSE_SPECIAL, &e);
            for (int64_t k = 0; k < e.n; k++)
                r->hash = (r->hash ^ (uint64_t)e.ids[k] ^ (uint64_t)e.end[k] << 32) * 0x9E3779B97F4A7C15u;
        }
    encoding_free(&e);
    return NULL;
}

static void test_threads(void) {
    char error[512];
    Tokenizer* t = tokenizer_open(GOLDEN "llama3_style.json.gz", error, sizeof error);
    Reader r[5] = {{t, 1}, {t, 1}, {t, 1}, {t, 1}, {t, 1}};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, read_all, &r[i]);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    read_all(&r[4]);
    check(r[0].hash == r[4].hash && r[1].hash == r[4].hash && r[2].hash == r[4].hash && r[3].hash == r[4].hash,
          "four threads share a tokenizer");
    tokenizer_close(t);
}

// One Encoding may serve several tokenizers: its cache must not mix them up.
static void test_two_tokenizers(void) {
    char error[512];
    Tokenizer *a = tokenizer_open(GOLDEN "gpt2_style.json.gz", error, sizeof error),
              *b = tokenizer_open(GOLDEN "sentence_plain.model.gz", error, sizeof error);
    Encoding both = {0}, alone = {0};
    int same = 1;
    for (int i = 0; i < 600; i++) {
        const Tokenizer* t = i % 3 ? a : b;
        tokenizer_encode(t, texts[i].s, texts[i].n, 0, &both);
        encoding_free(&alone);
        tokenizer_encode(t, texts[i].s, texts[i].n, 0, &alone);
        same = same && both.n == alone.n && !memcmp(both.ids, alone.ids, (size_t)both.n * sizeof *both.ids);
    }
    check(same, "an Encoding moves from one tokenizer to another");
    encoding_free(&both);
    encoding_free(&alone);
    tokenizer_close(a);
    tokenizer_close(b);
}

// ---- special tokens, flags -------------------------------------------------------------------------

static void test_flags(void) {
    char error[512];
    Tokenizer* t = tokenizer_open(GOLDEN "llama3_style.json.gz", error, sizeof error);
    Encoding e = {0};
    const int32_t bos = tokenizer_id(t, "<|begin_of_text|>"), eot = tokenizer_id(t, "<|eot_id|>");
    const char* text = "a<|eot_id|>";
    size_t length;
    tokenizer_encode(t, text, strlen(text), 0, &e);
    int plain = e.n > 2;
    for (int64_t i = 0; i < e.n; i++) plain &= e.ids[i] != eot && e.ids[i] != bos;
    check(plain, "without flags special text is text, and nothing is added");
    tokenizer_encode(t, text, strlen(text), TOKENIZER_PARSE_SPECIAL, &e);
    check(e.n == 2 && e.ids[1] == eot && e.start[1] == 1 && e.end[1] == (int32_t)strlen(text),
          "PARSE_SPECIAL reads it");
    tokenizer_encode(t, text, strlen(text), TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL, &e);
    check(e.n == 3 && e.ids[0] == bos && e.start[0] == 0 && e.end[0] == 0,
          "ADD_SPECIAL adds BOS, which covers nothing");
    char* out = tokenizer_decode(t, e.ids, e.n, false, &length, error, sizeof error);
    check(out && !strcmp(out, "a"), "decoding leaves special tokens out");
    free(out);
    out = tokenizer_decode(t, e.ids, e.n, true, &length, error, sizeof error);
    check(out && !strcmp(out, "<|begin_of_text|>a<|eot_id|>"), "or prints them");
    free(out);
    check(tokenizer_bos(t) == bos && tokenizer_is_special(t, eot) && !tokenizer_is_special(t, e.ids[1]) &&
              tokenizer_eos(t) == tokenizer_id(t, "<|endoftext|>"),
          "BOS, EOS and special tokens are known");
    char* run = malloc(1 << 20);
    memset(run, 'a', 1 << 20);
    int64_t n = tokenizer_encode(t, run, 1 << 20, 0, &e);
    out = n > 0 ? tokenizer_decode(t, e.ids, n, true, &length, error, sizeof error) : NULL;
    check(out && length == 1 << 20 && !memcmp(out, run, length), "a megabyte of one letter is %lld tokens",
          (long long)n);
    free(out);
    free(run);
    tokenizer_close(t);
    // NFC sorts the marks that follow one letter: not by the square of their number
    char* marks = malloc(1 << 20);
    *marks = 'a';
    for (int i = 1; i + 4 <= 1 << 20; i += 4) memcpy(marks + i, "\xCC\x81\xCC\xA3", 4);
    t = tokenizer_open(GOLDEN "neox_style.json.gz", error, sizeof error);
    n = tokenizer_encode(t, marks, (1 << 20) - 3, 0, &e);
    out = n > 0 ? tokenizer_decode(t, e.ids, n, true, &length, error, sizeof error) : NULL;
    check(out && length == (1 << 20) - 3 && !memcmp(out, "\xE1\xBA\xA1\xCC\xA3\xCC\xA3", 7) &&
              !memcmp(out + length - 4, "\xCC\x81\xCC\x81", 4),
          "half a million marks on one letter are sorted");
    free(out);
    free(marks);
    encoding_free(&e);
    tokenizer_close(t);
}

// A template's special tokens are read, the same texts in somebody's words are not.
static void test_mixed(void) {
    char error[512];
    Tokenizer* t = tokenizer_open(GOLDEN "llama3_style.json.gz", error, sizeof error);
    Encoding mixed = {0}, alone = {0};
    const int32_t bos = tokenizer_id(t, "<|begin_of_text|>"), eot = tokenizer_id(t, "<|eot_id|>");
    const char* text = "<|begin_of_text|>the<|eot_id|> and<|eot_id|>";  // the first end of turn is the user's
    const size_t n = strlen(text);
    TextRange users = {17, n - 10};
    PlainText plain = {&users, 1, NULL, 0};
    tokenizer_encode_mixed(t, text, n, &plain, 0, &mixed);
    tokenizer_encode(t, text + 17, n - 27, 0, &alone);
    check(mixed.n == alone.n + 2 && mixed.ids[0] == bos && mixed.ids[mixed.n - 1] == eot &&
              !memcmp(mixed.ids + 1, alone.ids, (size_t)alone.n * sizeof *alone.ids) && mixed.start[1] == 17,
          "mixed text: the template's special tokens are read, the user's are text");
    users = (TextRange){17, n - 1};
    tokenizer_encode_mixed(t, text, n, &plain, 0, &mixed);
    check(mixed.ids[mixed.n - 1] != eot, "one that is the user's but for its last byte is text");
    users = (TextRange){17, 17};
    tokenizer_encode_mixed(t, text, n, &plain, 0, &mixed);
    tokenizer_encode(t, text, n, TOKENIZER_PARSE_SPECIAL, &alone);
    check(mixed.n == alone.n && !memcmp(mixed.ids, alone.ids, (size_t)alone.n * sizeof *alone.ids),
          "without any plain text all are read");
    tokenizer_close(t);
    t = tokenizer_open(GOLDEN "prefix_style.json.gz", error, sizeof error);
    const int32_t left = tokenizer_id(t, "<l>");  // added, but not special
    users = (TextRange){0, 3};
    tokenizer_encode_mixed(t, "<l>", 3, &plain, 0, &mixed);
    check(mixed.n == 1 && *mixed.ids == left, "an added token that is not special is read in plain text too");
    plain.guarded = &left;
    plain.n_guarded = 1;
    tokenizer_encode_mixed(t, "<l>", 3, &plain, 0, &mixed);
    int read = 0;
    for (int64_t i = 0; i < mixed.n; i++) read += mixed.ids[i] == left;
    check(mixed.n > 1 && !read, "unless it is guarded");
    encoding_free(&mixed);
    encoding_free(&alone);
    tokenizer_close(t);
}

// ---- chat templates --------------------------------------------------------------------------------

static void test_chat(void) {
    Bytes b = read_bytes(GOLDEN "chat.gz");
    String name = {0}, ask = {0}, outcome = {0}, expected = {0}, part = {0};
    int n = 0, differ = 0, refused = 0, known = 0;
    char error[512], names[4][32] = {{0}};
    Chat* chat[4] = {0};
    JinjaScratch* scratch = jinja_begin(NULL);
    JinjaResult r;
    while (b.s && next_netstring(&b, &name)) {
        Text row = {0};
        int k = 0, c = 0;
        next_netstring(&b, &ask);
        next_netstring(&b, &outcome);
        next_netstring(&b, &expected);
        text_printf(&row, "{\"add_generation_prompt\":%s,\"messages\":[", *ask.s == '1' ? "true" : "false");
        while (next_netstring(&b, &part) && part.n) {
            String content = {0};
            next_netstring(&b, &content);
            text_printf(&row, k++ ? ",{\"role\":" : "{\"role\":");
            json_put_text(&row, part.s, part.n);
            text_printf(&row, ",\"content\":");
            json_put_text(&row, content.s, content.n);
            text_printf(&row, "}");
        }
        text_printf(&row, "]}");
        while (c < 3 && *names[c] && (strlen(names[c]) != name.n || memcmp(names[c], name.s, name.n))) c++;
        if (!*names[c]) {
            snprintf(names[c], sizeof names[c], "%.*s", (int)name.n, name.s);
            chat[c] = chat_open(names[c], NULL, NULL, error, sizeof error);
            if (!chat[c]) check(false, "%s", error);
        }
        *error = 0;
        bool rendered = chat[c] && chat_render(chat[c], scratch, row.s, row.n, &r, error, sizeof error);
        if (*outcome.s == 'r' && outcome.n == 7) {  // refused
            refused++;
            differ += rendered || !*error;
        } else differ += !rendered || r.n != expected.n || memcmp(r.text, expected.s, expected.n);
        text_free(&row);
        n++;
    }
    check(n > 100 && refused > 10 && !differ,
          "chat templates: %d conversations as apply_chat_template renders or refuses (%d) them, %d differ", n, refused,
          differ);
    for (int i = 0; chat_alias(i); i++)
        for (int k = 0; k < 4; k++) known += !strcmp(names[k], chat_alias(i));
    check(known == 4 && !chat_alias(4), "chat templates: all four have been compared");
    check(!chat_open("vicuna", NULL, NULL, error, sizeof error) && strstr(error, "vicuna") && strstr(error, "phi3"),
          "an unknown chat template is named, and those that exist: %s", error);
    Chat* phi3 = chat_open("phi3", NULL, NULL, error, sizeof error);
    const char tool[] = "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}";
    check(!chat_render(phi3, scratch, tool, sizeof tool - 1, &r, error, sizeof error) && strstr(error, "tool"),
          "an unknown role is named: %s", error);
    chat_close(phi3);
    for (int i = 0; i < 4; i++) chat_close(chat[i]);
    jinja_end(scratch);
    free(b.s);
}

// ---- bad files, bad ids ----------------------------------------------------------------------------

#define JSON(model, parts) "{\"added_tokens\":[]," parts "\"model\":" model "}"
#define BPE "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}"
#define RANKS "YQ== 0\n"

static const struct {
    const char *what, *text, *expected;
} bad_files[] = {
    {"an empty file", "", "is empty"},
    {"JSON that breaks off", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0", "invalid at byte"},
    {"JSON without a model", JSON("7", "\"a\":{\"model\":{}},"), "no object `model`"},
    {"a model without a type", JSON("{\"vocab\":{}}", ""), "has no type"},
    {"an unknown model", JSON("{\"type\":\"Unigram\",\"vocab\":[]}", ""), "Unigram"},
    {"an unknown normalizer", JSON(BPE, "\"normalizer\":{\"type\":\"Precompiled\"},"), "Precompiled"},
    {"an unknown normalizer inside a Sequence",
     JSON(BPE, "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Nmt\"}]},"),
     "Nmt"},
    {"an unknown pre_tokenizer", JSON(BPE, "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"), "BertPreTokenizer"},
    {"an unknown post_processor", JSON(BPE, "\"post_processor\":{\"type\":\"Other\"},"), "Other"},
    {"an unknown decoder", JSON(BPE, "\"decoder\":{\"type\":\"CTC\"},"), "CTC"},
    {"an unknown behavior",
     JSON(BPE, "\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Sideways\",\"pattern\":{\"String\":\" \"}},"),
     "Sideways"},
    {"a regular expression that does not compile",
     JSON(BPE, "\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"(\"}},"),
     "regular expression ("},
    {"dropout", JSON("{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{},\"merges\":[]}", ""), "dropout"},
    {"a suffix of words", JSON("{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\",\"vocab\":{},\"merges\":[]}", ""),
     "end_of_word_suffix"},
    {"no vocabulary", JSON("{\"type\":\"BPE\",\"merges\":[]}", ""), "vocab"},
    {"an empty vocabulary", JSON("{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}", ""), "empty"},
    {"no merges", JSON("{\"type\":\"BPE\",\"vocab\":{\"a\":0}}", ""), "merges"},
    {"an id twice", JSON("{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}", ""), "two tokens"},
    {"a piece twice", JSON("{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}", ""), "duplicate"},
    {"a negative id", JSON("{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}", ""), "id"},
    {"an enormous id", JSON("{\"type\":\"BPE\",\"vocab\":{\"a\":1e30},\"merges\":[]}", ""), "id"},
    {"a fraction as id", JSON("{\"type\":\"BPE\",\"vocab\":{\"a\":0.5},\"merges\":[]}", ""), "id"},
    {"a merge of what is not there", JSON("{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}", ""),
     "merge 1"},
    {"an unknown token that is none",
     JSON("{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"vocab\":{\"a\":0},\"merges\":[]}", ""), "<unk>"},
    {"an added token without an id", "{\"added_tokens\":[{\"content\":\"x\"}],\"model\":" BPE "}", "added_tokens"},
    {"a post_processor's token outside",
     JSON(BPE,
          "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}}],"
          "\"special_tokens\":{\"<s>\":{\"ids\":[99]}}},"),
     "<s>"},
    {"ranks with a line that is not base64", RANKS "??? 1\n", ":2"},
    {"ranks without a number", RANKS "Yg== x\n", ":2"},
    {"ranks with a rank twice", RANKS "Yg== 0\n", ":2"},
    {"ranks without all bytes", RANKS, "byte 0x00"},
    {"a file of no kind", "once upon a time", "not a known kind of tokenizer"},
    {"a vocabulary without its merges", "{\"a\":0}", "neither"},
};

static void test_bad_files(void) {
    char error[512];
    for (size_t i = 0; i < sizeof bad_files / sizeof *bad_files; i++) {
        *error = 0;
        Tokenizer* t = tokenizer_open_memory("FILE", bad_files[i].text, strlen(bad_files[i].text), error, sizeof error);
        check(!t && strstr(error, "FILE") == error && strstr(error, bad_files[i].expected) && !strchr(error, '\n'),
              "%s is refused: %s", bad_files[i].what, error);
        tokenizer_close(t);
    }
    char* deep = malloc(200001);
    memset(deep, '[', 200000);
    memcpy(deep, "{\"model\":{", 10);
    deep[200000] = 0;
    check(!tokenizer_open_memory("FILE", deep, 200000, error, sizeof error),
          "two hundred thousand brackets are refused: %s", error);
    free(deep);
    // every format cut short and with bytes changed: opens or says why, and never more than that
    static const char* const whole[] = {"llama2_style.json.gz", "ranks.model.gz", "sentence_unknown.model.gz"};
    for (int f = 0; f < 3; f++) {
        char path[256];
        snprintf(path, sizeof path, GOLDEN "%s", whole[f]);
        Bytes b = read_bytes(path);
        int tried = 0, refused = 0, silent = 0;
        for (size_t cut = 1; cut < b.n; cut += 1 + b.n / 60) {
            *error = 0;
            Tokenizer* t = tokenizer_open_memory("FILE", b.s, cut, error, sizeof error);
            tried++;
            refused += !t;
            silent += !t && !*error;
            tokenizer_close(t);
        }
        check(tried > 40 && refused > tried * 3 / 4 && !silent, "%s cut short: %d of %d refused, each with a reason",
              whole[f], refused, tried);
        free(b.s);
    }
}

static void test_paths(void) {
    char directory[] = "/tmp/test_tokenizer.XXXXXX", path[256], error[512];
    if (!mkdtemp(directory)) return;
    check(!tokenizer_open("/nowhere/at/all", error, sizeof error) && strstr(error, "/nowhere/at/all"),
          "a missing path is named: %s", error);
    check(!tokenizer_open(directory, error, sizeof error) && strstr(error, "holds no tokenizer"),
          "an empty directory: %s", error);
    snprintf(path, sizeof path, "%s/tokenizer.json.gz", directory);
    FILE* f = fopen(path, "wb");
    Bytes b = {0};
    b.s = malloc(1 << 16);
    FILE* g = fopen(GOLDEN "gpt2_style.json.gz", "rb");
    b.n = fread(b.s, 1, 1 << 16, g);
    fclose(g);
    fwrite(b.s, 1, b.n / 2, f);
    fclose(f);
    check(!tokenizer_open(directory, error, sizeof error) && strstr(error, "truncated"), "a .gz that breaks off: %s",
          error);
    f = fopen(path, "wb");
    fwrite(b.s, 1, b.n, f);
    fclose(f);
    free(b.s);
    char config[256];
    snprintf(config, sizeof config, "%s/tokenizer_config.json", directory);
    f = fopen(config, "w");
    fputs("{\"eos_token\":{\"content\":\"ing\"}}", f);  // a piece like any other
    fclose(f);
    Tokenizer* t = tokenizer_open(directory, error, sizeof error);
    check(t && tokenizer_eos(t) == tokenizer_id(t, "ing") && tokenizer_eos(t) >= 0,
          "tokenizer_config.json says what ends a text");
    tokenizer_close(t);
    f = fopen(config, "w");
    fputs("{\"eos_token\":", f);
    fclose(f);
    check(!tokenizer_open(directory, error, sizeof error) && strstr(error, "tokenizer_config.json"),
          "a broken tokenizer_config.json: %s", error);
    unlink(path);
    unlink(config);
    snprintf(path, sizeof path, "%s/encoder.json", directory);
    f = fopen(path, "w");
    fputs("{\"a\":0}", f);
    fclose(f);
    check(!tokenizer_open(directory, error, sizeof error) && strstr(error, "vocab.bpe"), "encoder.json alone: %s",
          error);
    unlink(path);
    rmdir(directory);
}

static void test_bad_ids(void) {
    char error[512], out[64];
    size_t length;
    Tokenizer* t = tokenizer_open(GOLDEN "sentence_plain.model.gz", error, sizeof error);
    const int32_t outside[3] = {5, tokenizer_vocab_size(t), -1};
    TokenStream s = {0};
    check(!tokenizer_decode(t, outside, 2, true, &length, error, sizeof error) && strstr(error, "number 2"),
          "an id after the vocabulary: %s", error);
    check(!tokenizer_decode(t, outside + 2, 1, true, &length, error, sizeof error) && strstr(error, "id -1"),
          "a negative id: %s", error);
    check(tokenizer_stream_push(t, &s, outside[1], true, out) < 0, "the stream refuses it too");
    check(!tokenizer_piece(t, outside[1], NULL) && !tokenizer_is_special(t, outside[1]), "and so do the questions");
    tokenizer_close(t);
}

int main(void) {
    read_texts();
    if (!check(n_texts > 2200, "%d texts in " GOLDEN "texts.gz", n_texts)) return check_report();
    for (size_t g = 0; g < sizeof goldens / sizeof *goldens; g++) test_golden((int)g);
    test_threads();
    test_two_tokenizers();
    test_flags();
    test_mixed();
    test_chat();
    test_bad_files();
    test_paths();
    test_bad_ids();
    return check_report();
}
