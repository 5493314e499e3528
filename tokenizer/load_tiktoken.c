/*
Byte-level BPE by ranks, two formats. tiktoken's: a line per token, `base64 rank`; neither the pattern nor the special
tokens are in the file, so each published vocabulary has a row in a table. Mistral's tekken.json: the same with the
pattern and the special tokens, whose ids come first.
*/
#include <stdlib.h>
#include <cjson/cJSON.h>
#include "tokenizer_internal.h"

#define LLAMA3_SPECIAL 256
#define LLAMA3_PATTERN                                                         \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| " \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CL100K_PATTERN                                                                                    \
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}++|\\p{N}{1,3}+| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*+" \
    "|\\s++$|\\s*[\\r\\n]|\\s+(?!\\S)|\\s"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define ENDING "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
#define O200K_PATTERN                                                                                        \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" ENDING "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" ENDING \
    "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

// After these names come reserved tokens.
static const char* const llama3_special[] = {"<|begin_of_text|>",
                                             "<|end_of_text|>",
                                             "<|reserved_special_token_0|>",
                                             "<|reserved_special_token_1|>",
                                             "<|finetune_right_pad_id|>",
                                             "<|step_id|>",
                                             "<|start_header_id|>",
                                             "<|end_header_id|>",
                                             "<|eom_id|>",
                                             "<|eot_id|>",
                                             "<|python_tag|>",
                                             "<|image|>"};

// Special tokens of one vocabulary: a name and the place after the last rank. With a count there are so many,
// numbered from 0.
typedef struct {
    const char* name;
    int at, count;
} TikTokenSpecial;
static const TikTokenSpecial qwen_special[] = {
    {"<|endoftext|>", 0, 0}, {"<|im_start|>", 1, 0}, {"<|im_end|>", 2, 0}, {"<|extra_", 3, 205}, {NULL, 0, 0}};
static const TikTokenSpecial cl100k_special[] = {{"<|endoftext|>", 1, 0},    {"<|fim_prefix|>", 2, 0},
                                                 {"<|fim_middle|>", 3, 0},   {"<|fim_suffix|>", 4, 0},
                                                 {"<|endofprompt|>", 20, 0}, {NULL, 0, 0}};
static const TikTokenSpecial o200k_special[] = {{"<|endoftext|>", 1, 0}, {"<|endofprompt|>", 20, 0}, {NULL, 0, 0}};
static const TikTokenSpecial r50k_special[] = {{"<|endoftext|>", 0, 0}, {NULL, 0, 0}};

// By a word of the file's name, else by the number of ranks; what no row fits is Llama-3's.
static const struct {
    const char* word;
    int32_t ranks;
    const char* pattern;
    const TikTokenSpecial* special;
    bool nfc;  // the code that comes with it normalises
} vocabularies[] = {
    {"qwen", 151643, QWEN2_PATTERN, qwen_special, true},
    {"cl100k", 100256, CL100K_PATTERN, cl100k_special, false},
    {"o200k", 199998, O200K_PATTERN, o200k_special, false},
    {"r50k", 50256, GPT2_PATTERN, r50k_special, false},
};
enum { N_VOCABULARIES = sizeof vocabularies / sizeof *vocabularies, LLAMA4_RANKS = 200000 };

static int base64_value(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// Decodes the base64 at *p, as far as it goes; returns the bytes, −1 if it is none or too long.
int base64_decode(const char** p, char* out, int room) {
    uint32_t bits = 0;
    int held = 0, n = 0;
    for (; base64_value(**p) >= 0; (*p)++) {
        bits = bits << 6 | (uint32_t)base64_value(**p);
        held += 6;
        if (held >= 8) {
            held -= 8;
            if (n == room) return -1;
            out[n++] = (char)(bits >> held);
        }
    }
    while (**p == '=') (*p)++;
    return held < 6 ? n : -1;
}

static bool put_llama3(Tokenizer* t, const char* name, ErrorBuffer error) {
    const int32_t base = t->n_vocab, named = sizeof llama3_special / sizeof *llama3_special;
    for (int32_t i = 0; i < LLAMA3_SPECIAL; i++) {
        char reserved[48];
        snprintf(reserved, sizeof reserved, "<|reserved_special_token_%d|>", i - named + 2);
        if (!tokenizer_put_special(t, base + i, i < named ? llama3_special[i] : reserved, name, error)) return false;
    }
    t->bos = base;
    t->eos = base + 1;
    arrput(t->prefix, t->bos);
    return tokenizer_put_pattern(t, LLAMA3_PATTERN, error);
}

static bool put_vocabulary(Tokenizer* t, int row, const char* name, ErrorBuffer error) {
    const int32_t base = t->n_vocab;
    for (const TikTokenSpecial* s = vocabularies[row].special; s->name; s++)
        for (int i = 0; i < (s->count ? s->count : 1); i++) {
            char text[48];
            if (s->count) snprintf(text, sizeof text, "%s%d|>", s->name, i);
            else snprintf(text, sizeof text, "%s", s->name);
            if (!tokenizer_put_special(t, base + s->at + i, text, name, error)) return false;
        }
    t->eos = tokenizer_id(t, "<|endoftext|>");
    if (vocabularies[row].nfc) {
        Normalize nfc = {.type = NORMALIZE_NFC};
        arrput(t->normalize, nfc);
    }
    return tokenizer_put_pattern(t, vocabularies[row].pattern, error);
}

static int find_vocabulary(const char* name, int32_t ranks) {
    const char* slash = strrchr(name, '/');
    for (int i = 0; i < N_VOCABULARIES; i++)
        if (strstr(slash ? slash + 1 : name, vocabularies[i].word)) return i;
    for (int i = 0; i < N_VOCABULARIES; i++)
        if (vocabularies[i].ranks == ranks) return i;
    return -1;
}

static bool check_bytes(const Tokenizer* t, const char* name, ErrorBuffer error) {
    for (int i = 0; i < 256; i++) {
        char c = (char)i;
        if (piece_find(&t->by_raw, t->raw, t->arena, &c, 1) < 0)
            return tok_error(error, "%s: byte 0x%02X has no rank", name, i);
    }
    return true;
}

bool load_tiktoken(Tokenizer* t, const char* name, const char* data, size_t n, Profile* profile, ErrorBuffer error) {
    const char *p = data, *end = data + n;
    char piece[MAX_PIECE];
    for (int64_t line = 1; p < end; line++) {
        int length = base64_decode(&p, piece, sizeof piece);
        if (length <= 0 || *p != ' ')
            return tok_error(error, "%s:%lld: not a line of base64 (up to %d bytes), a space and a rank", name,
                             (long long)line, MAX_PIECE);
        char* end_of_number;
        long long rank = strtoll(p, &end_of_number, 10);
        if (end_of_number == p || (*end_of_number != '\n' && *end_of_number != '\r' && end_of_number != end))
            return tok_error(error, "%s:%lld: the rank is not a number", name, (long long)line);
        char where[300];
        snprintf(where, sizeof where, "%.250s:%lld", name, (long long)line);
        if (!tokenizer_set_piece(t, rank, piece, (size_t)length, where, error)) return false;
        p = end_of_number + strspn(end_of_number, "\r\n");
    }
    t->format = "tiktoken ranks";
    t->decode = DECODE_CONCATENATE;
    t->byte_level = t->ignore_merges = true;  // tiktoken, too, looks the whole word up first
    merges_from_vocabulary(t, NULL);
    if (!check_bytes(t, name, error)) return false;
    t->n_model = t->n_vocab;
    const int row = find_vocabulary(name, t->n_vocab);
    if (row < 0 && t->n_vocab == LLAMA4_RANKS)
        return tok_error(error,
                         "%s: the pattern and special tokens of Llama-4's ranks are not in the file; use its "
                         "tokenizer.json",
                         name);
    return (row < 0 ? put_llama3(t, name, error) : put_vocabulary(t, row, name, error)) &&
           profile_add_tokens(profile, t, error) && tokenizer_finish(t, name, error) &&
           profile_finish(profile, t, error);
}

// ---- tekken.json -----------------------------------------------------------------------------------

static const cJSON* item(const cJSON* object, const char* name) {
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static int32_t whole_number(const cJSON* v) {
    return cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble < MAX_VOCAB &&
                   v->valuedouble == (double)(int32_t)v->valuedouble
               ? (int32_t)v->valuedouble
               : -1;
}

// The names of the first special tokens, for files (up to version v7) that do not hold them.
static const char* const tekken_names[] = {"<unk>",
                                           "<s>",
                                           "</s>",
                                           "[INST]",
                                           "[/INST]",
                                           "[AVAILABLE_TOOLS]",
                                           "[/AVAILABLE_TOOLS]",
                                           "[TOOL_RESULTS]",
                                           "[/TOOL_RESULTS]",
                                           "[TOOL_CALLS]",
                                           "[IMG]",
                                           "<pad>",
                                           "[IMG_BREAK]",
                                           "[IMG_END]",
                                           "[PREFIX]",
                                           "[MIDDLE]",
                                           "[SUFFIX]",
                                           "[SYSTEM_PROMPT]",
                                           "[/SYSTEM_PROMPT]",
                                           "[TOOL_CONTENT]"};

static bool tekken_special(Tokenizer* t, const cJSON* root, int32_t n, const char* name, ErrorBuffer error) {
    const cJSON *listed = item(root, "special_tokens"), *each;
    const int32_t known = sizeof tekken_names / sizeof *tekken_names;
    if (cJSON_IsArray(listed)) {
        cJSON_ArrayForEach(each, listed) {
            const char* text = cJSON_GetStringValue(item(each, "token_str"));
            const int32_t id = whole_number(item(each, "rank"));
            if (!text || !*text || id < 0 || id >= n)
                return tok_error(error, "%s: an entry of special_tokens has no token_str or no rank below %d", name, n);
            if (!tokenizer_put_special(t, id, text, name, error)) return false;
        }
    } else {
        const char* version = cJSON_GetStringValue(item(item(root, "config"), "version"));
        if (version && strcmp(version, "v1") && strcmp(version, "v2") && strcmp(version, "v3") && strcmp(version, "v7"))
            return tok_error(error, "%s: version %.20s has no special_tokens; expected a list of them", name, version);
        for (int32_t i = 0; i < known && i < n; i++)
            if (!tokenizer_put_special(t, i, tekken_names[i], name, error)) return false;
    }
    for (int32_t i = 0; i < n; i++) {
        char filler[40];
        snprintf(filler, sizeof filler, "<SPECIAL_%d>", i);
        if (t->text[i].at == NO_SPAN && !tokenizer_put_special(t, i, filler, name, error)) return false;
    }
    return true;
}

static bool tekken_vocabulary(Tokenizer* t, const cJSON* vocab, int32_t n_special, int32_t n, const char* name,
                              ErrorBuffer error) {
    const cJSON* each;
    int32_t taken = 0;
    cJSON_ArrayForEach(each, vocab) {
        char piece[MAX_PIECE];
        const char* bytes = cJSON_GetStringValue(item(each, "token_bytes"));
        const int32_t rank = whole_number(item(each, "rank"));
        if (!bytes || rank < 0) return tok_error(error, "%s: an entry of vocab has no token_bytes or no rank", name);
        if (rank >= n - n_special) continue;  // what is beyond the vocabulary is not used
        const int length = base64_decode(&bytes, piece, sizeof piece);
        if (length <= 0 || *bytes)
            return tok_error(error, "%s: token_bytes of rank %d is not base64 (up to %d bytes)", name, rank, MAX_PIECE);
        if (!tokenizer_set_piece(t, n_special + rank, piece, (size_t)length, name, error)) return false;
        taken++;
    }
    return taken == n - n_special ||
           tok_error(error, "%s: %d ranks below %d; expected all of them", name, taken, n - n_special);
}

static bool read_tekken(Tokenizer* t, const cJSON* root, const char* name, Profile* profile, ErrorBuffer error) {
    const cJSON* config = item(root, "config");
    const char* pattern = cJSON_GetStringValue(item(config, "pattern"));
    const int32_t n = whole_number(item(config, "default_vocab_size")),
                  n_special = whole_number(item(config, "default_num_special_tokens"));
    char why[400] = "";
    if (!pattern || n < 1 || n_special < 0 || n_special >= n)
        return tok_error(error, "%s: config has no pattern, default_vocab_size and default_num_special_tokens", name);
    if (!tekken_vocabulary(t, item(root, "vocab"), n_special, n, name, error)) return false;
    merges_from_vocabulary(t, NULL);
    if (!check_bytes(t, name, error) || !tekken_special(t, root, n_special, name, error)) return false;
    if (!tokenizer_put_pattern(t, pattern, (ErrorBuffer){why, sizeof why}))
        return tok_error(error, "%s: %s", name, why);
    t->n_model = t->n_vocab;
    t->bos = tokenizer_id(t, "<s>");
    t->eos = tokenizer_id(t, "</s>");
    if (t->bos >= 0) arrput(t->prefix, t->bos);
    return profile_add_tokens(profile, t, error) && tokenizer_finish(t, name, error) &&
           profile_finish(profile, t, error);
}

bool load_tekken(Tokenizer* t, const char* name, const char* data, size_t n, Profile* profile, ErrorBuffer error) {
    const char* end = NULL;
    cJSON* root = cJSON_ParseWithLengthOpts(data, n + 1, &end, true);
    if (!root)
        return tok_error(error, "%s is not JSON: it is invalid at byte %lld of %zu", name,
                         end ? (long long)(end - data) : 0ll, n);
    t->format = "tekken";
    t->decode = DECODE_CONCATENATE;
    t->byte_level = t->ignore_merges = true;
    bool good = read_tekken(t, root, name, profile, error);
    cJSON_Delete(root);
    return good;
}
