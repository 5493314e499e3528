/*
Two older formats of byte-level BPE. tiktoken's ranks: one line per token, `base64 rank`; the merges are implied, two
pieces merge when their bytes together are a piece, the lowest rank first. GPT-2's own pair: encoder.json (piece → id,
bytes written as printable characters) and vocab.bpe (merges in order).
*/
#include <stdlib.h>
#include <cjson/cJSON.h>
#include "tokenizer_internal.h"

// ---- merges that follow from the vocabulary --------------------------------------------------------

// Id of a part of a piece; sentencepiece's symbols may also be single characters that are not pieces, which get virtual
// ids.
static int32_t part_id(Tokenizer* t, const char* bytes, uint32_t n) {
    int32_t id = piece_find(&t->by_raw, t->raw, t->arena, bytes, n), c;
    if (id >= 0 || !t->late_fallback || utf8_decode(bytes, n, &c) != (int)n || c < 0) return id;
    id = piece_find(&t->by_virtual, t->virtual_text, t->arena, bytes, n);
    if (id < 0) {
        Span s = {(uint32_t)(bytes - t->arena), n};
        id = t->n_virtual++;
        arrput(t->virtual_text, s);
        piece_add(&t->by_virtual, t->virtual_text, t->arena, id);
    }
    return t->n_vocab + id;
}

void merges_from_vocabulary(Tokenizer* t, const uint32_t* rank) {
    for (int32_t id = 0; id < t->n_vocab; id++)
        if (t->raw[id].at != NO_SPAN) piece_add(&t->by_raw, t->raw, t->arena, id);
    merge_table_init(&t->merges, 2 * (uint32_t)t->n_vocab);
    for (int32_t id = 0; id < t->n_vocab; id++) {
        if (t->raw[id].at == NO_SPAN) continue;
        const char* bytes = t->arena + t->raw[id].at;
        uint32_t n = t->raw[id].n, step;
        for (uint32_t at = 0; at < n; at += step) {
            int32_t c;
            step = t->byte_level ? 1 : (uint32_t)utf8_decode(bytes + at, n - at, &c);
            if (!at) continue;
            int32_t left = part_id(t, bytes, at), right = left >= 0 ? part_id(t, bytes + at, n - at) : -1;
            if (right >= 0) merge_add(&t->merges, left, right, rank ? rank[id] : (uint32_t)id, id);
        }
    }
}

// ---- tiktoken --------------------------------------------------------------------------------------

#define LLAMA3_PATTERN                                                         \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| " \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define QWEN2_PATTERN                                                     \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| " \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3_SPECIAL 256

// The file holds neither pattern nor special tokens: both are in the code that comes with it, here Llama-3's. The ones
// after these names are reserved tokens.
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

static int base64_value(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// Decodes the base64 at *p up to a space; returns the bytes, −1 if it is none or too long.
static int base64_decode(const char** p, char* out, int room) {
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
    return **p == ' ' && held < 6 ? n : -1;
}

static bool put_split(Tokenizer* t, const char* pattern, ErrorBuffer error) {
    Pretokenize step = {.type = PRETOKENIZE_SPLIT, .behaviour = SPLIT_ISOLATED};
    bool good = pattern_compile(&step.pattern, pattern, REGEX_RUST, error);
    arrput(t->pretokenize, step);
    return good;
}

static bool put_special(Tokenizer* t, int32_t id, const char* content, const char* file, ErrorBuffer error) {
    if (id >= t->n_vocab || t->text[id].at == NO_SPAN) {
        if (!tokenizer_set_piece(t, id, content, strlen(content), file, error)) return false;
        t->raw[id].at = NO_SPAN;
    }
    AddedToken a = {.id = id, .content = arena_put(t, content, strlen(content)), .special = true};
    tokenizer_add_token(t, a);
    return true;
}

bool load_tiktoken(Tokenizer* t, const char* name, const char* data, size_t n, Profile* profile, ErrorBuffer error) {
    const char *p = data, *end = data + n;
    char piece[MAX_PIECE];
    for (int64_t line = 1; p < end; line++) {
        int length = base64_decode(&p, piece, sizeof piece);
        if (length <= 0)
            return tok_error(error, "%s:%lld: not a line of base64 (up to %d bytes), a space and a rank", name,
                             (long long)line, MAX_PIECE);
        char* behind;
        long long rank = strtoll(p, &behind, 10);
        if (behind == p || (*behind != '\n' && *behind != '\r' && behind != end))
            return tok_error(error, "%s:%lld: the rank is not a number", name, (long long)line);
        char where[300];
        snprintf(where, sizeof where, "%.250s:%lld", name, (long long)line);
        if (!tokenizer_set_piece(t, rank, piece, (size_t)length, where, error)) return false;
        p = behind + strspn(behind, "\r\n");
    }
    t->format = "tiktoken ranks";
    t->decode = DECODE_CONCATENATE;
    t->byte_level = t->ignore_merges = true;  // tiktoken, too, looks the whole word up first
    merges_from_vocabulary(t, NULL);
    for (int i = 0; i < 256; i++) {
        char c = (char)i;
        if (piece_find(&t->by_raw, t->raw, t->arena, &c, 1) < 0)
            return tok_error(error, "%s: byte 0x%02X has no rank", name, i);
    }
    t->n_model = t->n_vocab;
    const int32_t base = t->n_vocab, named = sizeof llama3_special / sizeof *llama3_special;
    for (int32_t i = 0; i < LLAMA3_SPECIAL; i++) {
        char reserved[48];
        snprintf(reserved, sizeof reserved, "<|reserved_special_token_%d|>", i - named + 2);
        if (!put_special(t, base + i, i < named ? llama3_special[i] : reserved, name, error)) return false;
    }
    t->bos = base;
    t->eos = base + 1;
    arrput(t->prefix, t->bos);
    return profile_add_tokens(profile, t, error) && put_split(t, LLAMA3_PATTERN, error) &&
           tokenizer_finish(t, name, error) && profile_finish(profile, t, error);
}

// ---- encoder.json + vocab.bpe ----------------------------------------------------------------------

static bool load_vocab(Tokenizer* t, const char* name, const char* data, size_t n, ErrorBuffer error) {
    cJSON *root = cJSON_ParseWithLengthOpts(data, n + 1, NULL, true), *each;
    bool good = cJSON_IsObject(root) || tok_error(error, "%s is not a JSON object of tokens and ids", name);
    cJSON_ArrayForEach(each, root) {
        if (!good) break;
        if (!cJSON_IsNumber(each) || !(each->valuedouble >= 0 && each->valuedouble < MAX_VOCAB) ||
            each->valuedouble != (double)(int32_t)each->valuedouble)
            good = tok_error(error, "%s: token %.60s has no id from 0 to %d", name, each->string, MAX_VOCAB - 1);
        else good = tokenizer_set_piece(t, (int64_t)each->valuedouble, each->string, strlen(each->string), name, error);
    }
    cJSON_Delete(root);
    return good;
}

static int32_t id_of(const Tokenizer* t, const char* bytes, size_t n) {
    return piece_find(&t->by_text, t->text, t->arena, bytes, (uint32_t)n);
}

static bool load_merges(Tokenizer* t, const char* name, const char* data, ErrorBuffer error) {
    uint32_t rank = 0;
    int64_t line = 0;
    for (const char* p = data; *p;) {
        size_t n = strcspn(p, "\n");
        const char *start = p, *end = p + n;
        p = end + (*end == '\n');
        line++;
        if (end > start && end[-1] == '\r') end--;
        if (start == end || !strncmp(start, "#version", 8)) continue;
        const char* space = memchr(start, ' ', (size_t)(end - start));
        char both[1024];
        if (!space || space == start || space + 1 == end || (size_t)(end - start) >= sizeof both)
            return tok_error(error, "%s:%lld: not a pair of tokens", name, (long long)line);
        size_t n_left = (size_t)(space - start), n_right = (size_t)(end - space - 1);
        memcpy(both, start, n_left);
        memcpy(both + n_left, space + 1, n_right);
        int32_t left = id_of(t, start, n_left), right = id_of(t, space + 1, n_right),
                id = id_of(t, both, n_left + n_right);
        if (left < 0 || right < 0 || id < 0)
            return tok_error(
                error, "%s:%lld: a token of this merge is not in the vocabulary; do the two files belong together?",
                name, (long long)line);
        merge_add(&t->merges, left, right, rank++, id);
    }
    return true;
}

// GPT-2's way of cutting, or that of the class that transformers would convert the pair for.
static bool put_pair_steps(Tokenizer* t, Profile* profile, ErrorBuffer error) {
    const bool qwen = profile && profile->class->convert == CONVERT_QWEN2;
    if (qwen) {
        Normalize nfc = {.type = NORMALIZE_NFC};
        arrput(t->normalize, nfc);
    }
    if (profile && profile->prefix == PREFIX_ON) {
        Pretokenize prefix = {.type = PRETOKENIZE_PREFIX_SPACE};
        put_text(&t->changes, "prefix space\n");
        arrput(t->pretokenize, prefix);
    }
    if (profile && profile->class->convert == CONVERT_GPT2) profile->rebuild = profile->add_bos;
    return put_split(t, qwen ? QWEN2_PATTERN : GPT2_PATTERN, error);
}

bool load_vocab_and_merges(Tokenizer* t, const char* vocab_name, const char* vocab, size_t n_vocab,
                           const char* merges_name, const char* merges, Profile* profile, ErrorBuffer error) {
    if (!load_vocab(t, vocab_name, vocab, n_vocab, error) || !load_merges(t, merges_name, merges, error)) return false;
    t->format = "encoder.json + vocab.bpe";
    t->decode = DECODE_CONCATENATE;
    t->byte_level = true;
    t->n_model = t->n_vocab;
    if (profile && profile->class->convert) {
        put_text(&t->changes, profile->class->convert == CONVERT_QWEN2 ? "converted for Qwen2\n" : "converted\n");
        t->default_flags = TOKENIZER_PARSE_SPECIAL;  // transformers makes a fast tokenizer of it
    } else {
        int32_t end = tokenizer_id(t, "<|endoftext|>");
        if (end >= 0 && !put_special(t, end, "<|endoftext|>", vocab_name, error)) return false;
        t->bos = t->eos = end;
    }
    unmap_pieces(t);
    for (int32_t id = 0; id < t->n_vocab; id++)
        if (t->raw[id].at != NO_SPAN) t->out[id] = t->raw[id];
    return profile_add_tokens(profile, t, error) && put_pair_steps(t, profile, error) &&
           tokenizer_finish(t, vocab_name, error) && profile_finish(profile, t, error);
}
