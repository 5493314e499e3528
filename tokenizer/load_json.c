/*
tokenizer.json of Hugging Face `tokenizers`: model (BPE, Unigram, WordLevel), added tokens, normaliser, pre-tokeniser,
post-processor, decoder. Each part is a table from the file's type name to a function that appends steps; a type without
a row is an error that names it, never a guess.
*/
#include <math.h>
#include <stdlib.h>
#include <cjson/cJSON.h>
#include "tokenizer_internal.h"
#include "unicode_table.h"

typedef struct {
    Tokenizer* t;
    const char* file;
    ErrorBuffer error;
    bool fused;
    const Profile* profile;
    int depth;  // of the Sequences around a part
} Loader;
typedef bool (*PartLoader)(Loader* l, const cJSON* part);
typedef struct {
    const char* type;
    PartLoader load;
} PartRow;

static const cJSON* item(const cJSON* object, const char* name) {
    return cJSON_GetObjectItemCaseSensitive(object, name);
}
static const char* string_or(const cJSON* object, const char* name, const char* otherwise) {
    const cJSON* v = item(object, name);
    return cJSON_IsString(v) ? v->valuestring : otherwise;
}
static bool bool_or(const cJSON* object, const char* name, bool otherwise) {
    const cJSON* v = item(object, name);
    return cJSON_IsBool(v) ? cJSON_IsTrue(v) : otherwise;
}
static bool whole(const cJSON* v, int64_t* out) {
    if (!cJSON_IsNumber(v) || v->valuedouble < 0 || v->valuedouble >= MAX_VOCAB ||
        v->valuedouble != (double)(int64_t)v->valuedouble)
        return false;
    *out = (int64_t)v->valuedouble;
    return true;
}

// Runs the row of part's type; `what` names the part in messages. null is nothing.
static bool load_part(Loader* l, const cJSON* part, const char* what, const PartRow* rows, int n_rows) {
    if (!part || cJSON_IsNull(part)) return true;
    const char* type = string_or(part, "type", NULL);
    if (!type) return tok_error(l->error, "%s: the %s has no type", l->file, what);
    for (int i = 0; i < n_rows; i++)
        if (!strcmp(rows[i].type, type)) return rows[i].load(l, part);
    return tok_error(l->error, "%s: %s of type %.60s is not supported", l->file, what, type);
}

// ---- normalisers -----------------------------------------------------------------------------------

static bool load_normalizer(Loader* l, const cJSON* part);

static bool normalize_simple(Loader* l, const cJSON* part) {
    static const struct {
        const char* type;
        NormalizeType step;
    } names[] = {{"NFC", NORMALIZE_NFC},
                 {"NFD", NORMALIZE_NFD},
                 {"NFKC", NORMALIZE_NFKC},
                 {"NFKD", NORMALIZE_NFKD},
                 {"Lowercase", NORMALIZE_LOWERCASE}};
    Normalize step = {0};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i].type, string_or(part, "type", ""))) step.type = names[i].step;
    arrput(l->t->normalize, step);
    return true;
}

static bool normalize_prepend(Loader* l, const cJSON* part) {
    const char* content = string_or(part, "prepend", NULL);
    if (!content) return tok_error(l->error, "%s: the normalizer Prepend has no text `prepend`", l->file);
    Normalize step = {.type = NORMALIZE_PREPEND, .content = strdup(content)};
    arrput(l->t->normalize, step);
    return true;
}

static bool normalize_strip(Loader* l, const cJSON* part) {
    Normalize step = {.type = NORMALIZE_STRIP,
                      .left = bool_or(part, "strip_left", false),
                      .right = bool_or(part, "strip_right", false)};
    arrput(l->t->normalize, step);
    return true;
}

// {"String": …} or {"Regex": …}
static bool load_pattern(Loader* l, const cJSON* part, const char* what, Pattern* out) {
    const cJSON* pattern = item(part, "pattern");
    const char *string = cJSON_IsString(pattern) ? pattern->valuestring : string_or(pattern, "String", NULL),
               *expression = string_or(pattern, "Regex", NULL);
    char why[400] = "";
    if (string) {
        out->literal = strdup(string);
        return true;
    }
    if (!expression) return tok_error(l->error, "%s: %s has no pattern (String or Regex)", l->file, what);
    return pattern_compile(out, expression, REGEX_RUBY, (ErrorBuffer){why, sizeof why}) ||
           tok_error(l->error, "%s: %s", l->file, why);
}

// base64 of: the trie's length in bytes, the trie, the texts.
static bool normalize_charsmap(Loader* l, const cJSON* part) {
    const char *map = string_or(part, "precompiled_charsmap", NULL), *end = map;
    const size_t room = map ? strlen(map) : 0;
    char* bytes = tok_memory(malloc(room + 1));
    uint32_t n_trie = 0;
    const int n = map ? base64_decode(&end, bytes, (int)(room < INT32_MAX ? room : 0)) : -1;
    if (n >= 4) memcpy(&n_trie, bytes, 4);
    if (n < 4 || *end || n_trie % 4 || n_trie < 4 || n_trie > (uint32_t)n - 4) {
        free(bytes);
        return tok_error(l->error, "%s: the normalizer Precompiled has no precompiled_charsmap, or a damaged one",
                         l->file);
    }
    Normalize step = {.type = NORMALIZE_CHARSMAP};
    memcpy(arraddnptr(step.trie, n_trie / 4), bytes + 4, n_trie);
    memcpy(arraddnptr(step.texts, n - 3 - (int)n_trie), bytes + 4 + n_trie, (size_t)n - 4 - n_trie);
    arrlast(step.texts) = 0;
    arrput(l->t->normalize, step);
    free(bytes);
    return true;
}

static bool normalize_replace(Loader* l, const cJSON* part) {
    const char* content = string_or(part, "content", NULL);
    if (!content) return tok_error(l->error, "%s: the normalizer Replace has no text `content`", l->file);
    Normalize step = {.type = NORMALIZE_REPLACE, .content = strdup(content)};
    bool good = load_pattern(l, part, "the normalizer Replace", &step.pattern);
    arrput(l->t->normalize, step);
    return good;
}

static bool normalize_sequence(Loader* l, const cJSON* part) {
    const cJSON* each;
    cJSON_ArrayForEach(each, item(part, "normalizers")) if (!load_normalizer(l, each)) return false;
    return true;
}

static const PartRow normalizers[] = {
    {"NFC", normalize_simple},           {"NFD", normalize_simple},       {"NFKC", normalize_simple},
    {"NFKD", normalize_simple},          {"Lowercase", normalize_simple}, {"Prepend", normalize_prepend},
    {"Replace", normalize_replace},      {"Strip", normalize_strip},      {"Sequence", normalize_sequence},
    {"Precompiled", normalize_charsmap},
};
static bool load_normalizer(Loader* l, const cJSON* part) {
    return load_part(l, part, "a normalizer", normalizers, sizeof normalizers / sizeof *normalizers);
}

// ---- pre-tokenisers --------------------------------------------------------------------------------

static bool load_pretokenizer(Loader* l, const cJSON* part);

static bool put_split(Loader* l, const char* pattern, SplitBehaviour behaviour, bool invert) {
    Pretokenize step = {.type = PRETOKENIZE_SPLIT, .behaviour = behaviour, .invert = invert};
    char why[400] = "";
    bool good = pattern_compile(&step.pattern, pattern, REGEX_RUBY, (ErrorBuffer){why, sizeof why}) ||
                tok_error(l->error, "%s: %s", l->file, why);
    arrput(l->t->pretokenize, step);
    return good;
}

static bool load_behaviour(Loader* l, const cJSON* part, SplitBehaviour* behaviour) {
    static const char* const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char* name = string_or(part, "behavior", "Isolated");
    for (int i = 0; i < 5; i++)
        if (!strcmp(name, names[i])) {
            *behaviour = (SplitBehaviour)i;
            return true;
        }
    return tok_error(l->error, "%s: the behavior %.40s of a pre_tokenizer is not supported", l->file, name);
}

static bool pretokenize_byte_level(Loader* l, const cJSON* part) {
    if (profile_prefix_space(l->profile, bool_or(part, "add_prefix_space", true), !l->depth)) {
        Pretokenize step = {.type = PRETOKENIZE_PREFIX_SPACE};
        arrput(l->t->pretokenize, step);
    }
    l->t->byte_level = true;
    return !bool_or(part, "use_regex", true) || put_split(l, GPT2_PATTERN, SPLIT_ISOLATED, false);
}

static bool pretokenize_split(Loader* l, const cJSON* part) {
    Pretokenize step = {.type = PRETOKENIZE_SPLIT, .invert = bool_or(part, "invert", false)};
    if (!load_behaviour(l, part, &step.behaviour)) return false;
    bool good = load_pattern(l, part, "the pre_tokenizer Split", &step.pattern);
    arrput(l->t->pretokenize, step);
    return good;
}

static bool pretokenize_digits(Loader* l, const cJSON* part) {
    return put_split(l, bool_or(part, "individual_digits", false) ? "\\p{RustDigit}" : "\\p{RustDigit}+",
                     SPLIT_ISOLATED, false);
}

static bool pretokenize_punctuation(Loader* l, const cJSON* part) {
    SplitBehaviour behaviour = SPLIT_ISOLATED;
    char* pattern = NULL;
    put_text(&pattern, "[");
    put_characters(&pattern, punctuation, sizeof punctuation / sizeof *punctuation);
    put_text(&pattern, "]");
    arrput(pattern, 0);
    bool good = load_behaviour(l, part, &behaviour) && put_split(l, pattern, behaviour, false);
    arrfree(pattern);
    return good;
}

static bool pretokenize_whitespace(Loader* l, const cJSON* part) {
    (void)part;
    return put_split(l, "\\p{RustWord}+|[^\\p{RustWord}\\s]+", SPLIT_REMOVED, true);
}

static bool pretokenize_delimiter(Loader* l, const cJSON* part) {
    const char* delimiter = string_or(part, "delimiter", "");
    if (!*delimiter)
        return tok_error(l->error, "%s: the pre_tokenizer CharDelimiterSplit has no character `delimiter`", l->file);
    Pretokenize step = {.type = PRETOKENIZE_SPLIT, .behaviour = SPLIT_REMOVED};
    step.pattern.literal = strdup(delimiter);
    arrput(l->t->pretokenize, step);
    return true;
}

static bool pretokenize_whitespace_split(Loader* l, const cJSON* part) {
    (void)part;
    return put_split(l, "\\s+", SPLIT_REMOVED, false);
}

static bool load_scheme(Loader* l, const cJSON* part, PrependScheme* scheme) {
    static const char* const names[] = {"always", "first", "never"};
    const char* name = string_or(part, "prepend_scheme", bool_or(part, "add_prefix_space", true) ? "always" : "never");
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, names[i])) {
            *scheme = (PrependScheme)i;
            return true;
        }
    return tok_error(l->error, "%s: the prepend_scheme %.40s of Metaspace is not supported", l->file, name);
}

static bool pretokenize_metaspace(Loader* l, const cJSON* part) {
    Pretokenize step = {.type = PRETOKENIZE_METASPACE, .split = bool_or(part, "split", true)};
    const char* replacement = string_or(part, "replacement", "\xE2\x96\x81");
    if (!*replacement) return tok_error(l->error, "%s: the pre_tokenizer Metaspace has an empty replacement", l->file);
    if (!load_scheme(l, part, &step.scheme)) return false;
    step.pattern.literal = strdup(replacement);
    arrput(l->t->pretokenize, step);
    return true;
}

static bool pretokenize_sequence(Loader* l, const cJSON* part) {
    const cJSON* each;
    l->depth++;
    cJSON_ArrayForEach(each, item(part, "pretokenizers")) {
        const bool after_bytes = l->t->byte_level;
        const ptrdiff_t before = arrlen(l->t->pretokenize);
        if (after_bytes && !strcmp(string_or(each, "type", ""), "ByteLevel"))
            return tok_error(l->error, "%s: a second pre_tokenizer ByteLevel is not supported", l->file);
        if (!load_pretokenizer(l, each)) return false;
        for (ptrdiff_t i = before; after_bytes && i < arrlen(l->t->pretokenize); i++) {
            if (l->t->pretokenize[i].type != PRETOKENIZE_SPLIT)
                return tok_error(l->error, "%s: the pre_tokenizer %.40s after ByteLevel is not supported", l->file,
                                 string_or(each, "type", ""));
            l->t->pretokenize[i].mapped = true;
        }
    }
    return true;
}

static const PartRow pretokenizers[] = {
    {"ByteLevel", pretokenize_byte_level},
    {"Split", pretokenize_split},
    {"Digits", pretokenize_digits},
    {"Whitespace", pretokenize_whitespace},
    {"Punctuation", pretokenize_punctuation},
    {"WhitespaceSplit", pretokenize_whitespace_split},
    {"Metaspace", pretokenize_metaspace},
    {"Sequence", pretokenize_sequence},
    {"CharDelimiterSplit", pretokenize_delimiter},
};
static bool load_pretokenizer(Loader* l, const cJSON* part) {
    return load_part(l, part, "a pre_tokenizer", pretokenizers, sizeof pretokenizers / sizeof *pretokenizers);
}

// ---- post-processors -------------------------------------------------------------------------------

static bool load_processor(Loader* l, const cJSON* part);

static bool post_nothing(Loader* l, const cJSON* part) {
    (void)l;
    (void)part;
    return true;
}

// An id that the vocabulary gives a text: it may have holes.
static bool is_token(const Tokenizer* t, int64_t id) {
    return id >= 0 && id < t->n_vocab && tokenizer_piece(t, (int32_t)id, NULL);
}

// The ids around Sequence A. A processor further down a Sequence wraps what is already there.
static bool post_template(Loader* l, const cJSON* part) {
    Tokenizer* t = l->t;
    const cJSON *each, *v;
    int32_t* before = NULL;
    bool after_text = false, good = true;
    cJSON_ArrayForEach(each, item(part, "single")) {
        const cJSON* special = item(each, "SpecialToken");
        if (item(each, "Sequence")) {
            after_text = true;
            continue;
        }
        const char* name = string_or(special, "id", "");
        const cJSON* ids = item(item(item(part, "special_tokens"), name), "ids");
        if (!cJSON_IsArray(ids))
            good = tok_error(l->error, "%s: the post_processor's token %.60s is not among its special_tokens", l->file,
                             name);
        cJSON_ArrayForEach(v, ids) {
            int64_t id;
            if (!good) break;
            if (!whole(v, &id) || !is_token(t, id))
                good = tok_error(l->error, "%s: the post_processor's token %.60s has an id outside the vocabulary",
                                 l->file, name);
            else if (after_text) arrput(t->suffix, (int32_t)id);
            else arrput(before, (int32_t)id);
        }
        if (!good) break;
    }
    for (ptrdiff_t i = arrlen(before) - 1; i >= 0; i--) arrins(t->prefix, 0, before[i]);
    arrfree(before);
    return good;
}

// RobertaProcessing and BertProcessing: ["</s>", 2] after, ["<s>", 0] in front.
static bool post_cls_sep(Loader* l, const cJSON* part) {
    int64_t cls, sep;
    if (!whole(cJSON_GetArrayItem(item(part, "cls"), 1), &cls) ||
        !whole(cJSON_GetArrayItem(item(part, "sep"), 1), &sep) || !is_token(l->t, cls) || !is_token(l->t, sep))
        return tok_error(l->error, "%s: the post_processor's cls or sep is not a pair of a token and its id", l->file);
    arrins(l->t->prefix, 0, (int32_t)cls);
    arrput(l->t->suffix, (int32_t)sep);
    return true;
}

static bool post_sequence(Loader* l, const cJSON* part) {
    const cJSON* each;
    cJSON_ArrayForEach(each, item(part, "processors")) if (!load_processor(l, each)) return false;
    return true;
}

static const PartRow processors[] = {
    {"TemplateProcessing", post_template}, {"ByteLevel", post_nothing}, {"RobertaProcessing", post_cls_sep},
    {"BertProcessing", post_cls_sep},      {"Sequence", post_sequence},
};
static bool load_processor(Loader* l, const cJSON* part) {
    return load_part(l, part, "a post_processor", processors, sizeof processors / sizeof *processors);
}

// ---- decoders --------------------------------------------------------------------------------------

static bool load_decoder(Loader* l, const cJSON* part);

// The tables that decoding reads: what a token becomes, and what it becomes as the first of a text, if that differs.
static int decode_tables(Tokenizer* t, Span* tables[2]) {
    tables[0] = t->out;
    tables[1] = t->out_first;
    return 1 + (t->out_first != NULL);
}

static bool put_stage(Loader* l, DecodeStage stage, const char* pattern, const char* content) {
    stage.pattern = tok_memory(strdup(pattern));
    stage.n_pattern = strlen(pattern);
    stage.content = tok_memory(strdup(content));
    arrput(l->t->stages, stage);
    if (stage.n_pattern > TOKENIZER_HELD)
        return tok_error(l->error, "%s: a decoder after Fuse is supported for texts of up to %d bytes", l->file,
                         TOKENIZER_HELD);
    return arrlen(l->t->stages) <= TOKENIZER_STAGES ||
           tok_error(l->error, "%s: more than %d decoders after Fuse are not supported", l->file, TOKENIZER_STAGES);
}

// Makes one text of the tokens, as Fuse does.
static bool decode_byte_level(Loader* l, const cJSON* part) {
    Tokenizer* t = l->t;
    (void)part;
    if (l->fused)
        return tok_error(l->error, "%s: the decoder ByteLevel is not supported after Fuse or another ByteLevel",
                         l->file);
    Span* tables[2];
    for (int k = 0, n = decode_tables(t, tables); k < n; k++)
        for (int32_t id = 0; id < t->n_vocab; id++) {
            bool good;
            if (tables[k][id].at == NO_SPAN) continue;
            char* copy = strndup(t->arena + tables[k][id].at,
                                 tables[k][id].n);  // the arena may move while it is written
            Span bytes = unmap_byte_level(t, copy, tables[k][id].n, &good);
            free(copy);
            if (good) tables[k][id] = bytes;
        }
    l->fused = true;
    return true;
}

static bool replace_pieces(Loader* l, const Pattern* pattern, const char* content) {
    Span* tables[2];
    for (int k = 0, n = decode_tables(l->t, tables); k < n; k++) replace_in_pieces(l->t, tables[k], pattern, content);
    return true;
}

static bool decode_replace(Loader* l, const cJSON* part) {
    const char* content = string_or(part, "content", NULL);
    Pattern pattern = {0};
    if (!content) return tok_error(l->error, "%s: the decoder Replace has no text `content`", l->file);
    bool good = load_pattern(l, part, "the decoder Replace", &pattern);
    if (good && l->fused && !pattern.literal)
        good = tok_error(l->error, "%s: the decoder Replace with a Regex is not supported after Fuse or ByteLevel",
                         l->file);
    if (good && (!pattern.literal || *pattern.literal))
        good = l->fused ? put_stage(l, (DecodeStage){.type = STAGE_REPLACE}, pattern.literal, content)
                        : replace_pieces(l, &pattern, content);
    pattern_free(&pattern);
    return good;
}

static bool decode_byte_fallback(Loader* l, const cJSON* part) {
    Tokenizer* t = l->t;
    (void)part;
    if (l->fused) return put_stage(l, (DecodeStage){.type = STAGE_BYTE}, "", "");
    Span* tables[2];
    for (int k = 0, n = decode_tables(t, tables); k < n; k++)
        for (int32_t id = 0; id < t->n_vocab; id++) {
            char byte;
            if (tables[k][id].at != NO_SPAN && byte_of_name(t->arena + tables[k][id].at, tables[k][id].n, &byte))
                tables[k][id] = arena_put(t, &byte, 1);
        }
    return true;
}

static bool decode_fuse(Loader* l, const cJSON* part) {
    (void)part;
    l->fused = true;
    return true;
}

// Up to `start` of the sign from the front of a piece and `stop` from its end.
static Span stripped(const Tokenizer* t, Span s, const char* sign, int64_t start, int64_t stop) {
    const uint32_t n = (uint32_t)strlen(sign);
    for (; start > 0 && s.n >= n && !memcmp(t->arena + s.at, sign, n); start--) s = (Span){s.at + n, s.n - n};
    for (; stop > 0 && s.n >= n && !memcmp(t->arena + s.at + s.n - n, sign, n); stop--) s.n -= n;
    return s;
}

static bool decode_strip(Loader* l, const cJSON* part) {
    int64_t start = 0, stop = 0;
    const char* sign = string_or(part, "content", "");
    int32_t c;
    if (!whole(item(part, "start"), &start) || !whole(item(part, "stop"), &stop) || !*sign ||
        utf8_decode(sign, (int64_t)strlen(sign), &c) != (int)strlen(sign) || c < 0)
        return tok_error(l->error, "%s: the decoder Strip needs a character `content` and numbers `start` and `stop`",
                         l->file);
    if (l->fused && stop > 64)
        return tok_error(l->error, "%s: the decoder Strip is supported for up to 64 characters at the end", l->file);
    if (l->fused)
        return put_stage(l, (DecodeStage){.type = STAGE_STRIP, .start = (int32_t)start, .stop = (int32_t)stop}, sign,
                         "");
    Span* tables[2];
    for (int k = 0, n = decode_tables(l->t, tables); k < n; k++)
        for (int32_t id = 0; id < l->t->n_vocab; id++)
            if (tables[k][id].at != NO_SPAN) tables[k][id] = stripped(l->t, tables[k][id], sign, start, stop);
    return true;
}

// In the first token of a text the sign goes, in all others it becomes a space.
static bool decode_metaspace(Loader* l, const cJSON* part) {
    Tokenizer* t = l->t;
    PrependScheme scheme;
    const Pattern sign = {.literal = (char*)string_or(part, "replacement", "\xE2\x96\x81")};
    if (!load_scheme(l, part, &scheme)) return false;
    if (!*sign.literal) return tok_error(l->error, "%s: the decoder Metaspace has an empty replacement", l->file);
    const char* first = scheme == PREPEND_NEVER ? " " : "";
    if (l->fused) return put_stage(l, (DecodeStage){.type = STAGE_REPLACE}, sign.literal, first);
    if (!*first && !t->out_first)
        memcpy(arraddnptr(t->out_first, t->n_vocab), t->out, (size_t)t->n_vocab * sizeof(Span));
    replace_in_pieces(t, t->out, &sign, " ");
    if (t->out_first) replace_in_pieces(t, t->out_first, &sign, first);
    return true;
}

static bool decode_sequence(Loader* l, const cJSON* part) {
    const cJSON* each;
    cJSON_ArrayForEach(each, item(part, "decoders")) if (!load_decoder(l, each)) return false;
    return true;
}

static const PartRow decoders[] = {
    {"ByteLevel", decode_byte_level},
    {"Replace", decode_replace},
    {"ByteFallback", decode_byte_fallback},
    {"Fuse", decode_fuse},
    {"Strip", decode_strip},
    {"Metaspace", decode_metaspace},
    {"Sequence", decode_sequence},
};
static bool load_decoder(Loader* l, const cJSON* part) {
    return load_part(l, part, "a decoder", decoders, sizeof decoders / sizeof *decoders);
}

// ---- models ----------------------------------------------------------------------------------------

static bool load_vocabulary(Loader* l, const cJSON* model) {
    const cJSON *vocab = item(model, "vocab"), *each;
    if (!cJSON_IsObject(vocab)) return tok_error(l->error, "%s: the model has no object `vocab`", l->file);
    cJSON_ArrayForEach(each, vocab) {
        int64_t id;
        if (!whole(each, &id))
            return tok_error(l->error, "%s: token %.60s of the vocabulary has an id that is not a whole number",
                             l->file, each->string);
        if (!tokenizer_set_piece(l->t, id, each->string, strlen(each->string), l->file, l->error)) return false;
    }
    const char* unk = string_or(model, "unk_token", NULL);
    if (unk && (l->t->unk = tokenizer_id(l->t, unk)) < 0)
        return tok_error(l->error, "%s: the unknown token %.60s is not in the vocabulary", l->file, unk);
    return true;
}

static int32_t id_of(const Tokenizer* t, const char* text, size_t n) {
    return piece_find(&t->by_text, t->text, t->arena, text, (uint32_t)n);
}

// One merge, if its halves and the whole are in the vocabulary. The right half's prefix of subwords does not go along.
static bool put_merge(Tokenizer* t, const char* left, size_t n_left, const char* right, size_t n_right, uint32_t rank) {
    const int32_t b = id_of(t, right, n_right);
    const size_t prefix = t->subword ? strlen(t->subword) : 0;
    if (prefix > n_right) return false;
    right += prefix;
    n_right -= prefix;
    char stack[512], *both = n_left + n_right <= sizeof stack ? stack : tok_memory(malloc(n_left + n_right));
    memcpy(both, left, n_left);
    memcpy(both + n_left, right, n_right);
    const int32_t a = id_of(t, left, n_left), id = id_of(t, both, n_left + n_right);
    if (both != stack) free(both);
    if (a < 0 || b < 0 || id < 0) return false;
    merge_add(&t->merges, a, b, rank, id);
    return true;
}

// ["left", "right"], or both in one string with a space between. A few old files have pieces with spaces inside such a
// string: the space that leaves two known pieces, which together are a third, is the one meant.
static bool load_merge(Loader* l, const cJSON* merge, uint32_t rank) {
    if (cJSON_IsArray(merge) && merge->child && merge->child->next && !merge->child->next->next) {
        const char *left = cJSON_GetStringValue(merge->child), *right = cJSON_GetStringValue(merge->child->next);
        if (left && right && put_merge(l->t, left, strlen(left), right, strlen(right), rank)) return true;
    } else if (cJSON_IsString(merge)) {
        const char* text = merge->valuestring;
        for (const char* space = strchr(text, ' '); space; space = strchr(space + 1, ' '))
            if (put_merge(l->t, text, (size_t)(space - text), space + 1, strlen(space + 1), rank)) return true;
    }
    return tok_error(l->error, "%s: merge %u is not a pair of tokens of the vocabulary that make a third", l->file,
                     rank + 1);
}

static bool model_bpe(Loader* l, const cJSON* model) {
    Tokenizer* t = l->t;
    const cJSON *dropout = item(model, "dropout"), *merges = item(model, "merges"), *each;
    if (cJSON_IsNumber(dropout) && dropout->valuedouble != 0)
        return tok_error(l->error, "%s: dropout %g is for training; set it to null", l->file, dropout->valuedouble);
    if (*string_or(model, "end_of_word_suffix", ""))
        return tok_error(l->error, "%s: BPE with end_of_word_suffix is not supported", l->file);
    if (*string_or(model, "continuing_subword_prefix", ""))
        t->subword = strdup(string_or(model, "continuing_subword_prefix", ""));
    if (!load_vocabulary(l, model)) return false;
    if (!cJSON_IsArray(merges)) return tok_error(l->error, "%s: the model has no array `merges`", l->file);
    merge_table_init(&t->merges, (uint32_t)cJSON_GetArraySize(merges));
    uint32_t rank = 0;
    cJSON_ArrayForEach(each, merges) if (!load_merge(l, each, rank++)) return false;
    t->model = MODEL_BPE;
    t->byte_fallback = bool_or(model, "byte_fallback", false);
    t->fuse_unk = bool_or(model, "fuse_unk", false);
    t->ignore_merges = bool_or(model, "ignore_merges", false);
    return true;
}

static bool model_word_level(Loader* l, const cJSON* model) {
    l->t->model = MODEL_WORD_LEVEL;
    return load_vocabulary(l, model);
}

// [["<unk>", 0.0], …]: ids are places.
static bool model_unigram(Loader* l, const cJSON* model) {
    Tokenizer* t = l->t;
    const cJSON *vocab = item(model, "vocab"), *each, *unk = item(model, "unk_id");
    int64_t id = 0;
    cJSON_ArrayForEach(each, vocab) {
        const char* piece = cJSON_GetStringValue(each->child);
        const cJSON* score = piece ? each->child->next : NULL;
        if (!cJSON_IsNumber(score) || !isfinite(score->valuedouble))
            return tok_error(l->error, "%s: entry %lld of the Unigram vocabulary is not a piece and its score", l->file,
                             (long long)id);
        if (!tokenizer_set_piece(t, id, piece, strlen(piece), l->file, l->error)) return false;
        trie_add(&t->unigram_trie, piece, (uint32_t)strlen(piece), (int32_t)id);
        arrput(t->score, score->valuedouble);
        if (!id || score->valuedouble < t->worst_score) t->worst_score = score->valuedouble;
        id++;
    }
    if (!id) return tok_error(l->error, "%s: the Unigram vocabulary is empty", l->file);
    t->model = MODEL_UNIGRAM;
    t->byte_fallback = bool_or(model, "byte_fallback", false);
    if (!unk || cJSON_IsNull(unk)) return true;
    if (!whole(unk, &id) || id >= t->n_vocab)
        return tok_error(l->error, "%s: unk_id of the Unigram vocabulary is not one of its ids", l->file);
    t->unk = (int32_t)id;
    return true;
}

static const PartRow models[] = {{"BPE", model_bpe}, {"WordLevel", model_word_level}, {"Unigram", model_unigram}};

// Old files leave the model's type out; `tokenizers` then goes by the fields.
static bool load_model(Loader* l, const cJSON* model) {
    if (!cJSON_IsObject(model)) return tok_error(l->error, "%s has no object `model`", l->file);
    if (!item(model, "type") && item(model, "merges")) return model_bpe(l, model);
    return load_part(l, model, "a model", models, sizeof models / sizeof *models);
}

// ---- added tokens ----------------------------------------------------------------------------------

static bool load_added(Loader* l, const cJSON* entry, Encoding* e) {
    const char* content = string_or(entry, "content", NULL);
    int64_t id;
    if (!content || !whole(item(entry, "id"), &id))
        return tok_error(l->error, "%s: an entry of added_tokens has no content or no id", l->file);
    ConfigToken token = {.special = bool_or(entry, "special", false),
                         .lstrip = bool_or(entry, "lstrip", false),
                         .rstrip = bool_or(entry, "rstrip", false),
                         .single_word = bool_or(entry, "single_word", false)};
    token.normalized = bool_or(entry, "normalized", !token.special);
    token.content = tok_memory(strdup(content));
    arrput(l->t->added_ids, id);
    bool good = tokenizer_put_added(l->t, &token, id, l->file, e, l->error);
    free(token.content);
    return good;
}

static bool load_all_added(Loader* l, const cJSON* entries) {
    Encoding e = {0};
    const cJSON* each;
    bool good = true;
    for (int32_t id = 0; id < l->t->n_vocab; id++) l->t->n_model += l->t->text[id].at != NO_SPAN;
    cJSON_ArrayForEach(each, entries) if (good) good = load_added(l, each, &e);
    encoding_free(&e);
    return good;
}

static void guess_ends(Tokenizer* t) {
    static const char* const bos[] = {"<|begin_of_text|>", "<s>", "<bos>", "<|endoftext|>"};
    static const char* const eos[] = {"<|end_of_text|>", "<|endoftext|>", "</s>", "<eos>"};
    for (int i = 0; i < 4; i++) {
        if (t->bos < 0) t->bos = tokenizer_id(t, bos[i]);
        if (t->eos < 0) t->eos = tokenizer_id(t, eos[i]);
    }
}

bool load_tokenizer_json(Tokenizer* t, const char* name, const char* data, size_t n, Profile* profile,
                         ErrorBuffer error) {
    Loader l = {t, name, error, false, profile, 0};
    const char* end = NULL;
    cJSON* root = cJSON_ParseWithLengthOpts(data, n + 1, &end, true);
    if (!root)
        return tok_error(error, "%s is not JSON: it is invalid at byte %lld of %zu", name,
                         end ? (long long)(end - data) : 0ll, n);
    t->format = "tokenizer.json";
    t->default_flags = TOKENIZER_PARSE_SPECIAL;
    t->decode = cJSON_IsObject(item(root, "decoder")) ? DECODE_CONCATENATE : DECODE_JOIN_SPACES;
    bool good = load_model(&l, item(root, "model")) && load_normalizer(&l, item(root, "normalizer")) &&
                load_pretokenizer(&l, item(root, "pre_tokenizer")) && load_all_added(&l, item(root, "added_tokens")) &&
                profile_add_tokens(profile, t, error) && load_processor(&l, item(root, "post_processor")) &&
                load_decoder(&l, item(root, "decoder"));
    if (good && t->model == MODEL_UNIGRAM && t->byte_level)
        good = tok_error(error, "%s: a Unigram model with ByteLevel is not supported", name);
    if (good && t->subword && t->byte_level)
        good = tok_error(error, "%s: continuing_subword_prefix with ByteLevel is not supported", name);
    if (good && t->byte_level) unmap_pieces(t);
    good = good && tokenizer_finish(t, name, error);
    cJSON_Delete(root);
    if (good) guess_ends(t);
    return good && profile_finish(profile, t, error);
}
