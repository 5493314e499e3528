/*
What the files beside a tokenizer say about it, as transformers' AutoTokenizer reads them (4.57): tokenizer_config.json,
special_tokens_map.json, added_tokens.json, and config.json for the class where the first is silent. The class decides
what is read: some rebuild the post-processor from add_bos_token and add_eos_token, others never look at them; some
have special tokens of their own where the files name none.
*/
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>
#include <cjson/cJSON.h>
#include "tokenizer_internal.h"

enum { SPECIAL_BOS, SPECIAL_EOS, SPECIAL_UNK, SPECIAL_SEP, SPECIAL_PAD, SPECIAL_CLS, SPECIAL_MASK };
static const char* const special_keys[N_SPECIAL] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                    "pad_token", "cls_token", "mask_token"};

// Names without "Fast": both load the fast one.
static const TokenizerClass classes[] = {
    {.name = "PreTrainedTokenizer"},
    {.name = "TokenizersBackend"},  // what transformers 5 writes for it
    {.name = "LlamaTokenizer",
     .rebuilds = true,
     .add_bos = true,
     .prefix = PREFIX_CONVERTS,
     .convert = CONVERT_LLAMA,
     .special = {"<s>", "</s>", "<unk>"}},
    {.name = "CodeLlamaTokenizer",
     .rebuilds = true,
     .add_bos = true,
     .convert = CONVERT_LLAMA,
     .special = {"<s>", "</s>", "<unk>"},
     .more = {"\xE2\x96\x81<PRE>", "\xE2\x96\x81<MID>", "\xE2\x96\x81<SUF>", "\xE2\x96\x81<EOT>"}},
    {.name = "GemmaTokenizer",
     .rebuilds = true,
     .add_bos = true,
     .convert = CONVERT_GEMMA,
     .special = {"<bos>", "<eos>", "<unk>", NULL, "<pad>"}},
    {.name = "CohereTokenizer",
     .rebuilds = true,
     .add_bos = true,
     .prefix = PREFIX_EVERYWHERE,
     .special = {"<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>", "<UNK>"}},
    {.name = "GPTNeoXTokenizer", .rebuilds = true, .special = {"<|endoftext|>", "<|endoftext|>", "<|endoftext|>"}},
    {.name = "GPT2Tokenizer", .convert = CONVERT_GPT2, .special = {"<|endoftext|>", "<|endoftext|>", "<|endoftext|>"}},
    {.name = "CodeGenTokenizer",
     .convert = CONVERT_GPT2,
     .special = {"<|endoftext|>", "<|endoftext|>", "<|endoftext|>"}},
    {.name = "Qwen2Tokenizer",
     .convert = CONVERT_QWEN2,
     .special = {NULL, "<|endoftext|>", "<|endoftext|>", NULL, "<|endoftext|>"}},
    {.name = "BloomTokenizer", .prefix = PREFIX_EVERYWHERE, .special = {"<s>", "</s>", "<unk>", NULL, "<pad>"}},
    {.name = "T5Tokenizer",
     .prefix = PREFIX_CONVERTS,
     .extra_ids = 100,
     .special = {NULL, "</s>", "<unk>", NULL, "<pad>"}},
    {.name = "XLMRobertaTokenizer", .special = {"<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"}},
};

// config.json's model_type → class, where tokenizer_config.json names none.
static const struct {
    const char *types, *name;
} types[] = {
    {" llama llama4 llama4_text mistral mixtral phi3 phimoe persimmon deepseek_v2 deepseek_v3 diffllama jamba jetmoe "
     "zamba zamba2 ernie4_5 ernie4_5_moe chameleon idefics ",
     "LlamaTokenizer"},
    {" code_llama ", "CodeLlamaTokenizer"},
    {" gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text recurrent_gemma t5gemma shieldgemma2 ", "GemmaTokenizer"},
    {" cohere cohere2 ", "CohereTokenizer"},
    {" gpt_neox olmo olmo2 olmoe mamba mamba2 mpt stablelm rwkv xlstm falcon_mamba ", "GPTNeoXTokenizer"},
    {" gpt2 gpt_bigcode gpt_neo gptj opt starcoder2 olmo3 flex_olmo granite granitemoe granitemoehybrid "
     "granitemoeshared minimax exaone4 ",
     "GPT2Tokenizer"},
    {" phi codegen ", "CodeGenTokenizer"},
    {" qwen2 qwen2_moe qwen2_vl qwen2_5_vl qwen2_audio qwen3 qwen3_moe qwen3_next qwen3_vl ", "Qwen2Tokenizer"},
    {" bloom ", "BloomTokenizer"},
    {" t5 umt5 ", "T5Tokenizer"},
    {" xlm-roberta xlm-roberta-xl ", "XLMRobertaTokenizer"},
};

void tokenizer_put_note(Tokenizer* t, const char* format, ...) {
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char* c = text; *c; c++)
        if ((unsigned char)*c < ' ') *c = ' ';
    char* copy = tok_memory(strdup(text));
    arrput(t->notes, copy);
}

static const TokenizerClass* find_class(const char* name) {
    size_t n = strlen(name);
    if (n > 4 && !strcmp(name + n - 4, "Fast")) n -= 4;
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (strlen(classes[i].name) == n && !memcmp(classes[i].name, name, n)) return &classes[i];
    return NULL;
}

static const TokenizerClass* class_of_type(const char* type) {
    char spaced[80];
    snprintf(spaced, sizeof spaced, " %.70s ", type);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strstr(types[i].types, spaced)) return find_class(types[i].name);
    return NULL;
}

// ---- reading ---------------------------------------------------------------------------------------

static const cJSON* item(const cJSON* object, const char* name) {
    return cJSON_GetObjectItemCaseSensitive(object, name);
}
static bool is_true(const cJSON* v) { return cJSON_IsTrue(v) || (cJSON_IsNumber(v) && v->valuedouble != 0); }
static bool is_given(const cJSON* v) { return v && !cJSON_IsNull(v); }

// A token as these files write it: a text, or an object with its rules. False: it is neither.
static bool read_token(const cJSON* v, ConfigToken* out) {
    const char* content = cJSON_IsString(v) ? v->valuestring : cJSON_GetStringValue(item(v, "content"));
    if (!content) return false;
    *out = (ConfigToken){.content = strdup(content),
                         .special = is_true(item(v, "special")),
                         .lstrip = is_true(item(v, "lstrip")),
                         .rstrip = is_true(item(v, "rstrip")),
                         .single_word = is_true(item(v, "single_word")),
                         .with_rules = !cJSON_IsString(v)};
    tok_memory(out->content);
    if (cJSON_IsString(v)) out->special = true;
    out->normalized = is_given(item(v, "normalized")) ? is_true(item(v, "normalized")) : !out->special;
    return true;
}

static void free_token(ConfigToken* token) {
    free(token->content);
    *token = (ConfigToken){0};
}

// An object, NULL where there is no such file. False: it is not a JSON object.
static bool read_object(const char* directory, const char* name, cJSON** root, ErrorBuffer error) {
    char path[TOK_PATH], *data;
    size_t n;
    *root = NULL;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    if (access(path, R_OK)) return true;
    if (!read_file(path, &data, &n, error)) return false;
    *root = cJSON_ParseWithLengthOpts(data, n + 1, NULL, true);
    free(data);
    if (!*root) return tok_error(error, "%s is not JSON; fix or remove it", path);
    return cJSON_IsObject(*root) || tok_error(error, "%s is not a JSON object; fix or remove it", path);
}

// Further special tokens: a list, or by name as in extra_special_tokens {"image_token": "<image>"}.
static bool read_additional(Profile* p, const cJSON* root, const char* key, const char* file, bool special,
                            ErrorBuffer error) {
    const cJSON* each;
    cJSON_ArrayForEach(each, item(root, key)) {
        ConfigToken token;
        if (!read_token(each, &token))
            return tok_error(error, "%s: an entry of %s is neither a text nor a token", file, key);
        token.special |= special;
        bool known = false;
        for (ptrdiff_t i = 0; i < arrlen(p->additional); i++)
            known = known || !strcmp(p->additional[i].content, token.content);
        if (known) free_token(&token);
        else arrput(p->additional, token);
    }
    return true;
}

// The tokens that one of the two files names. The map's come after the config's and replace them.
static bool read_special(Profile* p, const cJSON* root, const char* file, bool is_map, ErrorBuffer error) {
    for (int i = 0; i < N_SPECIAL; i++) {
        const cJSON* v = item(root, special_keys[i]);
        ConfigToken token;
        if (!v) continue;
        if (is_given(v) && !read_token(v, &token))
            return tok_error(error, "%s: %s is neither a text nor a token with content", file, special_keys[i]);
        if (!is_given(v)) token = (ConfigToken){0};
        if (is_map && is_given(v)) token.special = true;
        if (is_map && i <= SPECIAL_EOS && p->special[i].content && token.content &&
            strcmp(p->special[i].content, token.content))
            tokenizer_put_note(
                p->notes_of,
                "%s: special_tokens_map.json has %s %.60s, tokenizer_config.json has %.60s; the first is "
                "used, as in transformers",
                p->directory, special_keys[i], token.content, p->special[i].content);
        free_token(&p->special[i]);
        p->special[i] = token;
        p->named[i] = true;
    }
    return read_additional(p, root, "additional_special_tokens", file, is_map, error);
}

// Among the first n of the named special tokens.
static bool is_named(const Profile* p, int n, const char* content) {
    for (int i = 0; i < n; i++)
        if (p->special[i].content && !strcmp(p->special[i].content, content)) return true;
    return false;
}
static bool is_special_name(const Profile* p, const char* content) {
    if (is_named(p, N_SPECIAL, content)) return true;
    for (ptrdiff_t i = 0; i < arrlen(p->additional); i++)
        if (!strcmp(p->additional[i].content, content)) return true;
    return false;
}

static int by_index(const void* a, const void* b) {
    const ConfigAdded *x = a, *y = b;
    return (x->index > y->index) - (x->index < y->index);
}

// tokenizer_config.json's added_tokens_decoder: {"32000": {"content": …}, …}.
static bool read_decoder(Profile* p, const cJSON* decoder, ErrorBuffer error) {
    const cJSON* each;
    cJSON_ArrayForEach(each, decoder) {
        char* end = each->string;
        ConfigAdded added = {.index = strtoll(each->string, &end, 10)};
        if (end == each->string || *end || !cJSON_IsObject(each) || !read_token(each, &added.token))
            return tok_error(error,
                             "%s/tokenizer_config.json: the entry %.40s of added_tokens_decoder is not an id "
                             "with a token",
                             p->directory, each->string);
        arrput(p->added, added);
    }
    return true;
}

// added_tokens.json: {"<|im_end|>": 32000, …}. A token is special where the other files call it so.
static bool read_added(Profile* p, const cJSON* root, ErrorBuffer error) {
    const cJSON* each;
    cJSON_ArrayForEach(each, root) {
        if (!cJSON_IsNumber(each))
            return tok_error(error, "%s/added_tokens.json: %.60s has no number as its id", p->directory, each->string);
        ConfigAdded added = {.index = (int64_t)each->valuedouble,
                             .token = {.content = tok_memory(strdup(each->string))}};
        added.token.special = is_special_name(p, each->string);
        added.token.normalized = !added.token.special;
        arrput(p->added, added);
    }
    return true;
}

// Of several ends the first is the document's.
static int64_t first_id(const cJSON* config, const cJSON* model, const char* key) {
    const cJSON* v = item(config, key);
    if (!is_given(v)) v = item(model, key);
    if (cJSON_IsArray(v)) v = v->child;
    return cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble < MAX_VOCAB ? (int64_t)v->valuedouble : -1;
}

static bool read_files(Profile* p, const cJSON* config, const cJSON* map, const cJSON* added, const cJSON* model,
                       ErrorBuffer error) {
    const char* name = cJSON_GetStringValue(item(config, "tokenizer_class"));
    if (!name) name = cJSON_GetStringValue(item(model, "tokenizer_class"));
    const char* type = cJSON_GetStringValue(item(model, "model_type"));
    p->class = name ? find_class(name) : type ? class_of_type(type) : NULL;
    if (name && !p->class && !strstr(name, "MistralCommon"))
        tokenizer_put_note(p->notes_of,
                           "%s: the tokenizer class %.60s is not known here; its file is read as it is, as "
                           "PreTrainedTokenizerFast does",
                           p->directory, name);
    p->by_type = !name;
    if (!p->class) p->class = &classes[0];
    const cJSON *bos = item(config, "add_bos_token"), *eos = item(config, "add_eos_token"),
                *prefix = item(config, "add_prefix_space"), *legacy = item(config, "legacy");
    p->add_bos = bos ? is_true(bos) : p->class->add_bos;
    p->add_eos = is_true(eos);
    p->prefix = !prefix ? PREFIX_MISSING : !is_given(prefix) ? PREFIX_NULL : is_true(prefix) ? PREFIX_ON : PREFIX_OFF;
    p->legacy = is_given(legacy) ? is_true(legacy) : true;
    if (p->class->convert == CONVERT_LLAMA && p->class->prefix != PREFIX_CONVERTS) {  // CodeLlama's reads neither
        p->prefix = PREFIX_MISSING;
        p->legacy = true;
    }
    p->text_only = is_true(item(config, "split_special_tokens"));
    p->extra_ids = cJSON_IsNumber(item(config, "extra_ids")) ? (int)item(config, "extra_ids")->valuedouble
                                                             : p->class->extra_ids;
    if (p->extra_ids < 0 || p->extra_ids > 10000)
        return tok_error(error, "%s/tokenizer_config.json: extra_ids is not from 0 to 10000", p->directory);
    p->config = config != NULL;
    p->model_bos = first_id(config, model, "bos_token_id");
    p->model_eos = first_id(config, model, "eos_token_id");
    if (!read_special(p, config, "tokenizer_config.json", false, error)) return false;
    const cJSON* decoder = item(config, "added_tokens_decoder");
    p->old_style = !decoder;
    bool good = decoder ? read_decoder(p, decoder, error)
                        : read_special(p, map, "special_tokens_map.json", true, error) && read_added(p, added, error);
    ptrdiff_t before = arrlen(p->additional);
    good = good && read_additional(p, config, "extra_special_tokens", "tokenizer_config.json", false, error);
    p->n_extra = (int)(arrlen(p->additional) - before);
    return good;
}

bool profile_read(Profile* p, Tokenizer* t, const char* directory, ErrorBuffer error) {
    static const char* const names[] = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                                        "config.json"};
    enum { N = sizeof names / sizeof *names };
    cJSON* root[N] = {NULL};
    *p = (Profile){.directory = directory, .notes_of = t};
    bool good = true;
    for (int i = 0; good && i < N; i++) good = read_object(directory, names[i], &root[i], error);
    if (good && (root[0] || root[1] || root[2] || root[3]))
        good = read_files(p, root[0], root[1], root[2], root[3], error);
    for (int i = 0; i < N; i++) cJSON_Delete(root[i]);
    if (p->class && p->class->convert == CONVERT_GPT2 && p->add_bos && !strcmp(p->class->name, "CodeGenTokenizer"))
        good = good && tok_error(error, "%s: CodeGenTokenizer does not support add_bos_token", directory);
    return good;
}

void profile_free(Profile* p) {
    for (int i = 0; i < N_SPECIAL; i++) free_token(&p->special[i]);
    for (ptrdiff_t i = 0; i < arrlen(p->additional); i++) free_token(&p->additional[i]);
    for (ptrdiff_t i = 0; i < arrlen(p->added); i++) free_token(&p->added[i].token);
    arrfree(p->additional);
    arrfree(p->added);
}

// ---- what follows for the tokenizer ----------------------------------------------------------------

static bool prefix_space(const Profile* p, bool in_file, bool top) {
    if (!p || !p->class) return in_file;
    if (p->class->prefix == PREFIX_EVERYWHERE && p->prefix == PREFIX_ON) return true;
    // A class that passes None on leaves the file's value; the others pass false where nothing is said.
    if (!top || p->prefix == PREFIX_NULL || (p->prefix == PREFIX_MISSING && p->class->prefix == PREFIX_CONVERTS))
        return in_file;
    return p->prefix == PREFIX_ON;
}

bool profile_prefix_space(const Profile* p, bool in_file, bool top) {
    const bool on = prefix_space(p, in_file, top);
    if (on != in_file) put_text(&p->notes_of->changes, on ? "prefix space\n" : "no prefix space\n");
    return on;
}

bool profile_converts(const Profile* p) {
    return p->class && p->class->convert == CONVERT_LLAMA && p->class->prefix == PREFIX_CONVERTS &&
           (p->prefix == PREFIX_ON || p->prefix == PREFIX_OFF);
}

static const AddedToken* find_added(const Tokenizer* t, const char* content) {
    for (ptrdiff_t i = 0; i < arrlen(t->added); i++)
        if (!strcmp(t->arena + t->text[t->added[i].id].at, content)) return &t->added[i];
    return NULL;
}

// transformers leaves out an entry that tokenizer.json overrides at the same id (old style).
static bool overridden(const Profile* p, const Tokenizer* t, const ConfigAdded* a) {
    if (!p->old_style) return false;
    for (ptrdiff_t i = 0; i < arrlen(t->added_ids); i++)
        if (t->added_ids[i] == a->index) return true;
    return false;
}

static void add_before_extra(Profile* p, ConfigToken token) {
    const ptrdiff_t at = arrlen(p->additional) - p->n_extra;  // arrins evaluates its index after it has grown the list
    arrins(p->additional, at, token);
}

// The class's own special tokens, where the files say nothing (null says: none).
static void fill_special(Profile* p) {
    for (int i = 0; i < N_SPECIAL; i++)
        if (!p->named[i] && p->class->special[i])
            p->special[i] = (ConfigToken){.content = strdup(p->class->special[i]), .special = true};
    for (int i = 0; i < N_MORE && p->class->more[i]; i++) {
        ConfigToken token = {.content = strdup(p->class->more[i]), .special = true};
        add_before_extra(p, token);
    }
    bool any = false;
    for (ptrdiff_t i = 0; i < arrlen(p->additional); i++) any = any || strstr(p->additional[i].content, "<extra_id_");
    for (int i = 0; !any && i < p->extra_ids; i++) {
        char name[32];
        snprintf(name, sizeof name, "<extra_id_%d>", i);
        ConfigToken token = {.content = strdup(name), .special = true};
        add_before_extra(p, token);
    }
}

// Whether every token that the class counts on is there.
static bool class_fits(const Profile* p, const Tokenizer* t) {
    for (int i = 0; i < N_SPECIAL; i++)
        if (!p->named[i] && p->class->special[i] && tokenizer_id(t, p->class->special[i]) < 0) return false;
    return true;
}

static int32_t special_id(const Profile* p, const Tokenizer* t, int i) {
    return p->special[i].content ? tokenizer_id(t, p->special[i].content) : -1;
}

__attribute__((format(printf, 2, 3))) static void put_change(Tokenizer* t, const char* format, ...) {
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    put_text(&t->changes, text);
}

static bool add_one(Profile* p, Tokenizer* t, const ConfigToken* token, int64_t index, Encoding* e, ErrorBuffer error) {
    put_change(t, "+%.300s %d%d%d%d%d\n", token->content, token->special, token->lstrip, token->rstrip,
               token->normalized, token->single_word);
    return tokenizer_put_added(t, token, index, p->directory, e, error);
}

static bool equal_rules(const AddedToken* a, const ConfigToken* b) {
    return a->special == b->special && a->lstrip == b->lstrip && a->rstrip == b->rstrip &&
           a->normalized == b->normalized && a->single_word == b->single_word;
}

static bool listed(const Profile* p, const char* content) {
    for (ptrdiff_t i = 0; i < arrlen(p->added); i++)
        if (!strcmp(p->added[i].token.content, content)) return true;
    return false;
}

// A special token that is not there yet, or, where it was written with rules that count (`rules`), has others.
static bool add_special(Profile* p, Tokenizer* t, ConfigToken token, bool rules, Encoding* e, ErrorBuffer error) {
    token.special = true;
    const AddedToken* known = find_added(t, token.content);
    if (known && (!rules || !token.with_rules || equal_rules(known, &token))) return true;
    return add_one(p, t, &token, -1, e, error);
}

bool profile_add_tokens(Profile* p, Tokenizer* t, ErrorBuffer error) {
    if (!p || !p->class) return true;
    // Where nothing but config.json's model_type names a class, its defaults may belong to another tokenizer.
    if (p->by_type && !class_fits(p, t)) p->class = &classes[0];
    fill_special(p);
    if (arrlen(p->added)) qsort(p->added, (size_t)arrlen(p->added), sizeof *p->added, by_index);
    Encoding e = {0};
    bool good = true;
    for (ptrdiff_t i = 0; good && i < arrlen(p->added); i++) {
        ConfigToken token = p->added[i].token;
        const AddedToken* known = find_added(t, token.content);
        if (overridden(p, t, &p->added[i]) || (known && equal_rules(known, &token))) continue;
        token.special |= is_special_name(p, token.content);
        good = add_one(p, t, &token, p->added[i].index, &e, error);
    }
    // The rules of a named token are those of added_tokens_decoder, or without that, of tokenizer.json.
    for (int i = 0; good && i < N_SPECIAL; i++) {
        const char* content = p->special[i].content;
        if (content && !is_named(p, i, content))
            good = add_special(p, t, p->special[i], !p->old_style && !listed(p, content), &e, error);
    }
    for (ptrdiff_t i = 0; good && i < arrlen(p->additional); i++)
        good = is_named(p, N_SPECIAL, p->additional[i].content) || add_special(p, t, p->additional[i], true, &e, error);
    encoding_free(&e);
    return good;
}

bool profile_finish(const Profile* p, Tokenizer* t, ErrorBuffer error) {
    if (!p || !p->class) return true;
    const int32_t bos = special_id(p, t, SPECIAL_BOS), eos = special_id(p, t, SPECIAL_EOS),
                  unk = special_id(p, t, SPECIAL_UNK);
    if (tokenizer_piece(t, (int32_t)p->model_bos, NULL)) t->bos = (int32_t)p->model_bos;
    if (tokenizer_piece(t, (int32_t)p->model_eos, NULL)) t->eos = (int32_t)p->model_eos;
    if (bos >= 0) t->bos = bos;
    if (eos >= 0) t->eos = eos;
    if (p->named[SPECIAL_BOS] && bos < 0) t->bos = -1;  // null: none
    if (unk >= 0 && t->unk < 0) t->named_unk = unk;
    t->names_eos = eos >= 0;
    t->text_only = p->text_only;
    if (t->text_only) put_change(t, "split_special_tokens\n");
    if (!p->class->rebuilds && !p->rebuild) return true;
    if (p->add_bos && bos < 0)
        return tok_error(error, "%s: add_bos_token is true but there is no bos_token; name one or set it to false",
                         p->directory);
    if (p->add_eos && eos < 0)
        return tok_error(error, "%s: add_eos_token is true but there is no eos_token; name one or set it to false",
                         p->directory);
    if (arrlen(t->prefix) != p->add_bos || (p->add_bos && *t->prefix != bos) || arrlen(t->suffix) != p->add_eos ||
        (p->add_eos && *t->suffix != eos))
        put_change(t, "around %d %d\n", p->add_bos ? bos : -1, p->add_eos ? eos : -1);
    arrsetlen(t->prefix, 0);
    arrsetlen(t->suffix, 0);
    if (p->add_bos) arrput(t->prefix, bos);
    if (p->add_eos) arrput(t->suffix, eos);
    return true;
}
