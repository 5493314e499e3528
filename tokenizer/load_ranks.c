/*
Byte-level BPE from ranks and merges. What follows from a vocabulary alone (tiktoken, sentencepiece): two pieces merge
when their bytes together are a piece, the lowest rank first. And GPT-2's own pair: encoder.json (piece → id,
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

bool tokenizer_put_pattern(Tokenizer* t, const char* pattern, ErrorBuffer error) {
    Pretokenize step = {.type = PRETOKENIZE_SPLIT, .behaviour = SPLIT_ISOLATED};
    bool good = pattern_compile(&step.pattern, pattern, REGEX_RUST, error);
    arrput(t->pretokenize, step);
    return good;
}

bool tokenizer_put_special(Tokenizer* t, int32_t id, const char* content, const char* file, ErrorBuffer error) {
    if (id >= t->n_vocab || t->text[id].at == NO_SPAN) {
        if (!tokenizer_set_piece(t, id, content, strlen(content), file, error)) return false;
        t->raw[id].at = NO_SPAN;
    }
    AddedToken a = {.id = id, .content = arena_put(t, content, strlen(content)), .special = true};
    tokenizer_add_token(t, a);
    return true;
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
    return tokenizer_put_pattern(t, qwen ? QWEN2_PATTERN : GPT2_PATTERN, error);
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
        if (end >= 0 && !tokenizer_put_special(t, end, "<|endoftext|>", vocab_name, error)) return false;
        t->bos = t->eos = end;
    }
    unmap_pieces(t);
    for (int32_t id = 0; id < t->n_vocab; id++)
        if (t->raw[id].at != NO_SPAN) t->out[id] = t->raw[id];
    return profile_add_tokens(profile, t, error) && put_pair_steps(t, profile, error) &&
           tokenizer_finish(t, vocab_name, error) && profile_finish(profile, t, error);
}
