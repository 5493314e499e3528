/* Tokenizers of GGUF files. See gguf_tokenizer.h. To add a pre-tokenizer: a row of `pres`. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stb/stb_ds.h>
#include <utf8proc.h>
#include "base/error.h"
#include "base/text.h"
#include "commands/gguf_tokenizer.h"
#include "tokenizer.h"

// Rows name only what differs from zero.
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#define PIECE_MOST 1024  // bytes
#define SPACE_MARK "\xE2\x96\x81"

// tokenizer.ggml.token_type
typedef enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE } TokenType;

// ---------------------------------------------------------------------------------------------------
// pre-tokenizers by llama.cpp's names, as the tokenizer.json that each name comes from has them

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define WORDS(digits)                                     \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits \
                 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CASES(digits, contractions)                                                                     \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" contractions "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER \
    "*" contractions "|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

// clang-format off
typedef struct {
    const char* names;    // separated by commas
    bool nfc;             // texts are composed first
    bool digits;          // every digit is a piece of its own
    const char* pattern;  // NULL: GPT-2's own
    bool whole_first;     // a word that is a token is not merged: "ignore_merges"
    bool bos;             // where the file does not say
} Pre;
static const Pre pres[] = {
    {"gpt-2,phi-2"},
    {"olmo", .nfc = true},  // GPT-NeoX, OLMo
    {"smollm,refact,starcoder", .digits = true},
    {"llama-bpe,llama3,llama-v3", .pattern = WORDS("\\p{N}{1,3}"), .whole_first = true, .bos = true},
    {"dbrx,smaug-bpe", .pattern = WORDS("\\p{N}{1,3}")},  // cl100k: Phi-4, OLMo 2
    {"qwen2,deepseek-r1-qwen,megrez", .nfc = true, .pattern = WORDS("\\p{N}")},
    {"stablelm2", .pattern = WORDS("\\p{N}")},
    {"gpt-4o", .pattern = CASES("\\p{N}{1,3}", CONTRACTIONS "?")},
    {"tekken", .pattern = CASES("\\p{N}", ""), .whole_first = true, .bos = true},
};
// clang-format on
#define N_PRES (sizeof pres / sizeof *pres)

static bool listed(const char* list, const char* word) {
    size_t n = strlen(word);
    for (const char* p = list; *p; p += strcspn(p, ",") + (p[strcspn(p, ",")] == ','))
        if (strcspn(p, ",") == n && !strncmp(p, word, n)) return true;
    return false;
}

static const Pre* find_pre(const GgufReader* r, const char* otherwise, const char** name) {
    char list[512] = "", *own = gguf_text(r, "tokenizer.ggml.pre");
    if (own && strcmp(own, "default")) otherwise = own;
    if (!otherwise)
        fatal(
            "%s: \"tokenizer.ggml.pre\" does not name the pre-tokenizer; convert the model again with a current "
            "llama.cpp",
            gguf_path(r));
    for (size_t i = 0; i < N_PRES; i++) {
        if (listed(pres[i].names, otherwise)) {
            *name = strdup(otherwise);
            free(own);
            return &pres[i];
        }
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? "," : "", pres[i].names);
    }
    fatal("%s: pre-tokenizer \"%.40s\" is not supported; supported are: %s", gguf_path(r), otherwise, list);
}

// ---------------------------------------------------------------------------------------------------
// JSON

static void put(char** out, const char* text) {
    size_t n = strlen(text);
    memcpy(arraddnptr(*out, n), text, n);
}
static void put_number(char** out, int64_t x) {
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)x);
    put(out, text);
}
static void put_string(char** out, const char* s, size_t n) {
    arrput(*out, '"');
    for (size_t i = 0; i < n; i++) {
        static const char letters[] = "\"\\\b\f\n\r\t", codes[] = "\"\\bfnrt";
        const char *letter = s[i] ? strchr(letters, s[i]) : NULL, c = letter ? codes[letter - letters] : s[i];
        char code[8];
        if (letter) arrput(*out, '\\');
        if (!letter && (unsigned char)c < 0x20) {
            snprintf(code, sizeof code, "\\u%04x", c);
            put(out, code);
        } else arrput(*out, c);
    }
    arrput(*out, '"');
}
static void put_bool(char** out, bool x) { put(out, x ? "true" : "false"); }

// ---------------------------------------------------------------------------------------------------
// tokens

typedef struct {
    const GgufReader* r;
    GgufString* tokens;  // (n); their bytes may be ours
    uint8_t* type;       // (n) TokenType
    int n;
    const GgufValue *scores, *merges;
    int bos, eos, unk, pad, eot;  // −1: none
    int* slot;                    // hash table of ids, by text
    uint32_t mask;
} Tokens;

static int special_id(const Tokens* t, const char* name) {
    char key[96];
    double x;
    snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", name);
    if (!gguf_number(t->r, key, &x)) return -1;
    if (!(x >= 0 && x < t->n) || x != floor(x) || t->type[(int)x] == UNUSED)
        fatal("%s: \"%s\" is %g, which is not the id of a token", gguf_path(t->r), key, x);
    return (int)x;
}

static bool is_utf8(const char* s, size_t n) {
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t width = utf8proc_iterate((const utf8proc_uint8_t*)s + i, (utf8proc_ssize_t)(n - i), &c);
        if (width <= 0 || !c) return false;
        i += (size_t)width;
    }
    return true;
}

static uint32_t hash(const char* s, size_t n) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 16777619u;
    return h ^ h >> 15;
}
// The id of a text; −1 where it is not a token.
static int find_token(const Tokens* t, const char* s, size_t n) {
    for (uint32_t i = hash(s, n) & t->mask;; i = (i + 1) & t->mask) {
        int id = t->slot[i];
        if (id < 0) return -1;
        if (t->tokens[id].n == n && !memcmp(t->tokens[id].bytes, s, n)) return id;
    }
}
static void index_tokens(Tokens* t) {
    t->mask = 16;
    while (t->mask < 2 * (uint32_t)t->n) t->mask *= 2;
    t->slot = host_alloc((size_t)t->mask * sizeof(int), "tokens");
    memset(t->slot, 0xff, (size_t)t->mask-- * sizeof(int));
    for (int id = 0; id < t->n; id++) {
        if (t->type[id] == UNUSED) continue;
        const GgufString* s = &t->tokens[id];
        int other = find_token(t, s->bytes, s->n);
        if (other >= 0)
            fatal("%s: tokens %d and %d are the same, \"%.*s\"", gguf_path(t->r), other, id,
                  (int)(s->n < 60 ? s->n : 60), s->bytes);
        uint32_t i = hash(s->bytes, s->n) & t->mask;
        while (t->slot[i] >= 0) i = (i + 1) & t->mask;
        t->slot[i] = id;
    }
}

// llama.cpp writes the spaces of user-defined pieces as spaces since July 2024, as sentencepiece's mark before.
static void plain_spaces(Tokens* t, int id) {
    const GgufString* s = &t->tokens[id];
    char plain[PIECE_MOST];
    size_t n = 0, mark = strlen(SPACE_MARK);
    for (size_t i = 0; i < s->n;) {
        bool here = s->n - i >= mark && !memcmp(s->bytes + i, SPACE_MARK, mark);
        plain[n++] = here ? ' ' : s->bytes[i];
        i += here ? mark : 1;
    }
    if (n == s->n) return;
    t->tokens[id] = (GgufString){host_copy(plain, n), n};
}

static void read_tokens(Tokens* t, int vocab) {
    const GgufReader* r = t->r;
    const GgufValue *tokens = gguf_strings(r, "tokenizer.ggml.tokens"),
                    *types = gguf_numbers(r, "tokenizer.ggml.token_type");
    if (!tokens || !tokens->count)
        fatal("%s: \"tokenizer.ggml.tokens\" is missing: the file holds no tokenizer", gguf_path(r));
    if (tokens->count > (uint64_t)vocab)
        fatal("%s: %llu tokens, but the model's embedding has %d rows", gguf_path(r), (unsigned long long)tokens->count,
              vocab);
    if (types && types->count != tokens->count)
        fatal("%s: %llu tokens but %llu token types; expected one type per token", gguf_path(r),
              (unsigned long long)tokens->count, (unsigned long long)types->count);
    t->n = (int)tokens->count;
    t->tokens = host_alloc((size_t)t->n * sizeof *t->tokens, "tokens");
    t->type = host_alloc((size_t)t->n, "tokens");
    memcpy(t->tokens, tokens->strings, (size_t)t->n * sizeof *t->tokens);
    for (int id = 0; id < t->n; id++) {
        const GgufString* s = &t->tokens[id];
        double type = types ? gguf_element(types, (uint64_t)id) : NORMAL;
        if (!(type >= NORMAL && type <= BYTE)) fatal("%s: token %d has the unknown type %g", gguf_path(r), id, type);
        t->type[id] = (uint8_t)type;
        if (t->type[id] == UNUSED) continue;
        if (!s->n || s->n > PIECE_MOST)
            fatal("%s: token %d has %zu bytes; expected 1 to %d", gguf_path(r), id, s->n, PIECE_MOST);
        if (!is_utf8(s->bytes, s->n)) fatal("%s: token %d is not UTF-8", gguf_path(r), id);
    }
    t->bos = special_id(t, "bos");
    t->eos = special_id(t, "eos");
    t->unk = special_id(t, "unknown");
    t->pad = special_id(t, "padding");
    t->eot = special_id(t, "eot");
    if (!types) {  // old files
        const int special[] = {t->bos, t->eos, t->pad, t->eot};
        for (int i = 0; i < 4; i++)
            if (special[i] >= 0) t->type[special[i]] = CONTROL;
        if (t->unk >= 0) t->type[t->unk] = UNKNOWN;
    }
}

static bool is_added(const Tokens* t, int id) {
    return t->type[id] == UNKNOWN || t->type[id] == CONTROL || t->type[id] == USER_DEFINED;
}

static void put_added(char** out, const Tokens* t, GgufTokenizer* report) {
    bool first = true;
    put(out, "\n  \"added_tokens\": [");
    for (int id = 0; id < t->n; id++) {
        if (!is_added(t, id)) continue;
        put(out, first ? "\n    {\"id\": " : ",\n    {\"id\": ");
        put_number(out, id);
        put(out, ", \"content\": ");
        put_string(out, t->tokens[id].bytes, t->tokens[id].n);
        put(out,
            ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": ");
        put_bool(out, t->type[id] != USER_DEFINED);
        put(out, "}");
        first = false;
        report->n_special++;
    }
    put(out, "\n  ],");
}

static void put_vocabulary(char** out, const Tokens* t, GgufTokenizer* report) {
    put(out, "\n    \"vocab\": {");
    for (int id = 0; id < t->n; id++) {
        if (t->type[id] == UNUSED) {
            report->n_unused++;
            continue;
        }
        put(out, report->n_tokens++ ? ",\n      " : "\n      ");
        put_string(out, t->tokens[id].bytes, t->tokens[id].n);
        put(out, ": ");
        put_number(out, id);
    }
    put(out, "\n    },");
}

static void put_merge(char** out, GgufTokenizer* report, const char* left, size_t n_left, const char* right,
                      size_t n_right) {
    put(out, report->n_merges++ ? ",\n      [" : "\n      [");
    put_string(out, left, n_left);
    put(out, ", ");
    put_string(out, right, n_right);
    put(out, "]");
}

static void put_special(char** out, const Tokens* t, int id, const char* sequence) {
    put(out, "{\"SpecialToken\": {\"id\": ");
    put_string(out, t->tokens[id].bytes, t->tokens[id].n);
    put(out, ", \"type_id\": ");
    put(out, sequence);
    put(out, "}}");
}
// One of "single" and "pair": each sequence with its BOS and EOS.
static void put_template(char** out, const Tokens* t, const GgufTokenizer* report, const char* name, int n) {
    static const char *const letters[] = {"A", "B"}, *const numbers[] = {"0", "1"};
    put(out, "\n    \"");
    put(out, name);
    put(out, "\": [");
    for (int i = 0; i < n; i++) {
        if (i) put(out, ", ");
        if (report->adds_bos) {
            put_special(out, t, t->bos, numbers[i]);
            put(out, ", ");
        }
        put(out, "{\"Sequence\": {\"id\": \"");
        put(out, letters[i]);
        put(out, "\", \"type_id\": ");
        put(out, numbers[i]);
        put(out, "}}");
        if (report->adds_eos) {
            put(out, ", ");
            put_special(out, t, t->eos, numbers[i]);
        }
    }
    put(out, "],");
}

static void put_processor(char** out, const Tokens* t, const GgufTokenizer* report) {
    if (!report->adds_bos && !report->adds_eos) {
        put(out, "\n  \"post_processor\": null,");
        return;
    }
    put(out, "\n  \"post_processor\": {\n    \"type\": \"TemplateProcessing\",");
    put_template(out, t, report, "single", 1);
    put_template(out, t, report, "pair", 2);
    put(out, "\n    \"special_tokens\": {");
    const int ids[] = {report->adds_bos ? t->bos : -1, report->adds_eos && t->eos != t->bos ? t->eos : -1};
    bool first = true;
    for (int i = 0; i < 2; i++) {
        if (ids[i] < 0) continue;
        const GgufString* s = &t->tokens[ids[i]];
        put(out, first ? "" : ", ");
        put_string(out, s->bytes, s->n);
        put(out, ": {\"id\": ");
        put_string(out, s->bytes, s->n);
        put(out, ", \"ids\": [");
        put_number(out, ids[i]);
        put(out, "], \"tokens\": [");
        put_string(out, s->bytes, s->n);
        put(out, "]}");
        first = false;
    }
    put(out, "}\n  },");
}

// ---------------------------------------------------------------------------------------------------
// byte-level BPE

static void byte_level(char** out, Tokens* t, GgufTokenizer* report, const char* otherwise) {
    const GgufReader* r = t->r;
    const Pre* pre = find_pre(r, otherwise, &report->pre);
    report->kind = "byte-level BPE";
    report->adds_bos = gguf_bool(r, "tokenizer.ggml.add_bos_token", pre->bos) && t->bos >= 0;
    report->adds_eos = gguf_bool(r, "tokenizer.ggml.add_eos_token", false) && t->eos >= 0;
    t->merges = gguf_strings(r, "tokenizer.ggml.merges");
    if (!t->merges) fatal("%s: \"tokenizer.ggml.merges\" is missing", gguf_path(r));
    put_added(out, t, report);
    put(out, pre->nfc ? "\n  \"normalizer\": {\"type\": \"NFC\"}," : "\n  \"normalizer\": null,");
    put(out, "\n  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [");
    if (pre->digits) put(out, "{\"type\": \"Digits\", \"individual_digits\": true}, ");
    if (pre->pattern) {
        put(out, "{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
        put_string(out, pre->pattern, strlen(pre->pattern));
        put(out, "}, \"behavior\": \"Isolated\", \"invert\": false}, ");
    }
    put(out, "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": ");
    put_bool(out, !pre->pattern);
    put(out, "}]},");
    put_processor(out, t, report);
    put(out,
        "\n  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, \"use_regex\": "
        "true},");
    put(out,
        "\n  \"model\": {\n    \"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
        "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": false, "
        "\"byte_fallback\": false, \"ignore_merges\": ");
    put_bool(out, pre->whole_first);
    put(out, ",");
    put_vocabulary(out, t, report);
    put(out, "\n    \"merges\": [");
    for (uint64_t i = 0; i < t->merges->count; i++) {
        const GgufString* s = &t->merges->strings[i];
        const char* space = s->n > 1 ? memchr(s->bytes + 1, ' ', s->n - 1) : NULL;
        if (!space || !is_utf8(s->bytes, s->n))
            fatal("%s: merge %llu is not a pair of tokens", gguf_path(r), (unsigned long long)i + 1);
        size_t n_left = (size_t)(space - s->bytes);
        put_merge(out, report, s->bytes, n_left, space + 1, s->n - n_left - 1);
    }
    put(out, "\n    ]\n  }\n}\n");
}

// ---------------------------------------------------------------------------------------------------
// sentencepiece's BPE: two pieces merge when together they are a piece, the highest score first

typedef struct {
    int left, right, order;
    float score;
    int n_left, n_right;  // characters
} Merge;

static int by_score(const void* a, const void* b) {
    const Merge *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    if (x->n_left != y->n_left) return y->n_left - x->n_left;
    if (x->n_right != y->n_right) return y->n_right - x->n_right;
    return x->order - y->order;
}
static int by_parts(const void* a, const void* b) {
    const Merge *x = a, *y = b;
    return x->left != y->left ? (x->left > y->left) - (x->left < y->left)
                              : (x->right > y->right) - (x->right < y->right);
}

static int characters(const char* s, size_t n) {
    int count = 0;
    for (size_t i = 0; i < n; i++) count += (s[i] & 0xC0) != 0x80;
    return count;
}

// Every way to cut a normal piece into two, in the order of transformers' converter of sentencepiece models. Control,
// user-defined and byte pieces never come from merging.
static Merge* merges_of_scores(const Tokens* t) {
    Merge* merges = NULL;
    for (int id = 0; id < t->n; id++) {
        if (t->type[id] != NORMAL) continue;
        const GgufString* s = &t->tokens[id];
        ptrdiff_t begin = arrlen(merges);
        for (size_t cut = 1; cut < s->n; cut++) {
            if ((s->bytes[cut] & 0xC0) == 0x80) continue;
            int left = find_token(t, s->bytes, cut), right = find_token(t, s->bytes + cut, s->n - cut);
            if (left < 0 || right < 0 || t->type[left] != NORMAL || t->type[right] != NORMAL) continue;
            Merge m = {left,
                       right,
                       0,
                       (float)gguf_element(t->scores, (uint64_t)id),
                       characters(s->bytes, cut),
                       characters(s->bytes + cut, s->n - cut)};
            arrput(merges, m);
        }
        if (arrlen(merges) > begin) qsort(merges + begin, (size_t)(arrlen(merges) - begin), sizeof *merges, by_parts);
    }
    for (ptrdiff_t i = 0; i < arrlen(merges); i++) merges[i].order = (int)i;
    if (merges) qsort(merges, (size_t)arrlen(merges), sizeof *merges, by_score);
    return merges;
}

static void sentencepiece(char** out, Tokens* t, GgufTokenizer* report) {
    const GgufReader* r = t->r;
    t->scores = gguf_numbers(r, "tokenizer.ggml.scores");
    if (!t->scores || t->scores->count != (uint64_t)t->n)
        fatal("%s: \"tokenizer.ggml.scores\" must give each of the %d tokens its score", gguf_path(r), t->n);
    for (int id = 0; id < t->n; id++)
        if (!isfinite(gguf_element(t->scores, (uint64_t)id)))
            fatal("%s: token %d has no finite score", gguf_path(r), id);
    report->kind = "sentencepiece BPE";
    report->adds_bos = gguf_bool(r, "tokenizer.ggml.add_bos_token", true) && t->bos >= 0;
    report->adds_eos = gguf_bool(r, "tokenizer.ggml.add_eos_token", false) && t->eos >= 0;
    const bool prefix = gguf_bool(r, "tokenizer.ggml.add_space_prefix", true);
    bool bytes = true;
    for (int i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", i);
        bytes = bytes && find_token(t, name, 6) >= 0;
    }
    if (!bytes && t->unk < 0)
        fatal("%s: the tokenizer has neither a token per byte (<0x00> to <0xFF>) nor an unknown token", gguf_path(r));
    put_added(out, t, report);
    put(out, "\n  \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [");
    if (prefix) put(out, "{\"type\": \"Prepend\", \"prepend\": \"" SPACE_MARK "\"}, ");
    put(out, "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"" SPACE_MARK "\"}]},");
    put(out, "\n  \"pre_tokenizer\": null,");
    put_processor(out, t, report);
    put(out,
        "\n  \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": "
        "\"" SPACE_MARK "\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}");
    if (prefix) put(out, ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}");
    put(out, "]},\n  \"model\": {\n    \"type\": \"BPE\", \"dropout\": null, \"unk_token\": ");
    if (t->unk >= 0) put_string(out, t->tokens[t->unk].bytes, t->tokens[t->unk].n);
    else put(out, "null");
    put(out,
        ", \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": true, \"byte_fallback\": ");
    put_bool(out, bytes);
    put(out, ", \"ignore_merges\": false,");
    put_vocabulary(out, t, report);
    put(out, "\n    \"merges\": [");
    Merge* merges = merges_of_scores(t);
    for (ptrdiff_t i = 0; i < arrlen(merges); i++) {
        const GgufString *left = &t->tokens[merges[i].left], *right = &t->tokens[merges[i].right];
        put_merge(out, report, left->bytes, left->n, right->bytes, right->n);
    }
    arrfree(merges);
    put(out, "\n    ]\n  }\n}\n");
}

// ---------------------------------------------------------------------------------------------------
// the files beside it

// A chat template, checked; NULL where there is none.
static char* template_of(const GgufReader* r, const char* key) {
    char* text = gguf_text(r, key);
    if (text && !is_utf8(text, strlen(text))) fatal("%s: \"%.80s\" is not UTF-8", gguf_path(r), key);
    return text;
}

// One template as a string; with named ones beside it, all as a list of {name, template}.
static void put_chat_template(char** out, const GgufReader* r, GgufTokenizer* report) {
    const GgufValue* names = gguf_strings(r, "tokenizer.chat_templates");
    char* own = template_of(r, "tokenizer.chat_template");
    report->has_template = own != NULL;
    if (!own) return;
    put(out, ",\n  \"chat_template\": ");
    if (!names || !names->count) put_string(out, own, strlen(own));
    else {
        put(out, "[\n    {\"name\": \"default\", \"template\": ");
        put_string(out, own, strlen(own));
        put(out, "}");
        for (uint64_t i = 0; i < names->count; i++) {
            char key[256];
            const GgufString* name = &names->strings[i];
            if (name->n == 7 && !memcmp(name->bytes, "default", 7)) continue;
            snprintf(key, sizeof key, "tokenizer.chat_template.%.*s", (int)(name->n < 160 ? name->n : 160),
                     name->bytes);
            char* text = template_of(r, key);
            if (!text || !is_utf8(name->bytes, name->n)) fatal("%s: \"%s\" is missing", gguf_path(r), key);
            put(out, ",\n    {\"name\": ");
            put_string(out, name->bytes, name->n);
            put(out, ", \"template\": ");
            put_string(out, text, strlen(text));
            put(out, "}");
            free(text);
        }
        put(out, "\n  ]");
    }
    free(own);
}

static void put_configs(GgufTokenizer* report, const Tokens* t, int max_length) {
    const struct {
        const char* key;
        int id;
    } ends[] = {{"bos_token", t->bos}, {"eos_token", t->eos}, {"unk_token", t->unk}, {"pad_token", t->pad}};
    char** out = &report->config;
    put(out, "{\n  \"add_bos_token\": ");
    put_bool(out, report->adds_bos);
    put(out, ",\n  \"add_eos_token\": ");
    put_bool(out, report->adds_eos);
    for (int i = 0; i < 4; i++) {
        if (ends[i].id < 0) continue;
        put(out, ",\n  \"");
        put(out, ends[i].key);
        put(out, "\": ");
        put_string(out, t->tokens[ends[i].id].bytes, t->tokens[ends[i].id].n);
    }
    put(out, ",\n  \"clean_up_tokenization_spaces\": false,\n  \"model_max_length\": ");
    put_number(out, max_length);
    put(out,
        ",\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  \"model_input_names\": [\"input_ids\", "
        "\"attention_mask\"]");
    put_chat_template(out, t->r, report);
    put(out, "\n}\n");
    arrput(*out, 0);

    out = &report->generation;
    put(out, "{");
    if (t->bos >= 0) {
        put(out, "\n  \"bos_token_id\": ");
        put_number(out, t->bos);
        put(out, ",");
    }
    if (t->eos >= 0) {
        bool two = t->eot >= 0 && t->eot != t->eos;  // an answer may end with its turn or with the text
        put(out, two ? "\n  \"eos_token_id\": [" : "\n  \"eos_token_id\": ");
        put_number(out, t->eos);
        if (two) {
            put(out, ", ");
            put_number(out, t->eot);
            put(out, "]");
        }
        put(out, ",");
    }
    if (t->pad >= 0) {
        put(out, "\n  \"pad_token_id\": ");
        put_number(out, t->pad);
        put(out, ",");
    }
    put(out, "\n  \"do_sample\": false\n}\n");
    arrput(*out, 0);
}

void gguf_tokenizer(GgufTokenizer* report, const GgufReader* r, const char* pre, int vocab, int max_length) {
    Tokens t = {.r = r};
    memset(report, 0, sizeof *report);
    char *model = gguf_text(r, "tokenizer.ggml.model"), error[512];
    if (!model) fatal("%s: \"tokenizer.ggml.model\" is missing: the file holds no tokenizer", gguf_path(r));
    bool pieces = !strcmp(model, "llama");
    if (!pieces && strcmp(model, "gpt2"))
        fatal(
            "%s: a tokenizer of type \"%.40s\" is not supported; supported are gpt2 (byte-level BPE) and llama "
            "(sentencepiece's BPE)",
            gguf_path(r), model);
    free(model);
    read_tokens(&t, vocab);
    for (int id = 0; id < t.n && pieces; id++)
        if (t.type[id] == USER_DEFINED) plain_spaces(&t, id);
    index_tokens(&t);
    char** out = &report->tokenizer;
    put(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,");
    if (pieces) sentencepiece(out, &t, report);
    else byte_level(out, &t, report, pre);
    report->length = (size_t)arrlen(*out);
    arrput(*out, 0);
    put_configs(report, &t, max_length);
    // what does not load is not written
    Tokenizer* tokenizer = tokenizer_open_memory("its tokenizer", report->tokenizer, report->length, error,
                                                 sizeof error);
    if (!tokenizer) fatal("%s: %s", gguf_path(r), error);
    tokenizer_close(tokenizer);
    const GgufValue* tokens = gguf_strings(r, "tokenizer.ggml.tokens");
    for (int id = 0; id < t.n; id++)
        if (t.tokens[id].bytes != tokens->strings[id].bytes) free((char*)t.tokens[id].bytes);
    free(t.tokens);
    free(t.type);
    free(t.slot);
}

void gguf_tokenizer_free(GgufTokenizer* t) {
    arrfree(t->tokenizer);
    arrfree(t->config);
    arrfree(t->generation);
    free((char*)t->pre);
    memset(t, 0, sizeof *t);
}
