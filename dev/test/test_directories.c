/*
Tokenizer directories against what transformers' AutoTokenizer said of them (dev/reference/record_directories.py): ids
with and without what goes around a text, BOS, EOS, the vocabulary, decoding at once and one by one. Then what is told
in a line or refused.
*/
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cjson/cJSON.h>
#include <zlib.h>
#include "check.h"
#include "tokenizer.h"

#define GOLDEN "dev/reference/golden/tokenizers/"

static char* read_gzip(const char* path) {
    gzFile f = gzopen(path, "rb");
    if (!f) return NULL;
    size_t room = 1 << 22, n = 0;
    char* s = malloc(room + 1);
    for (int got; (got = gzread(f, s + n, (unsigned)(room - n))) > 0;)
        if ((n += (size_t)got) == room) s = realloc(s, (room *= 2) + 1);
    gzclose(f);
    s[n] = 0;
    return s;
}

static const cJSON* item(const cJSON* object, const char* name) {
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static int value_of(char c) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char* at = memchr(digits, c, 64);
    return at ? (int)(at - digits) : -1;
}

static void write_base64(const char* path, const char* text) {
    FILE* f = fopen(path, "wb");
    uint32_t bits = 0;
    int held = 0;
    for (; f && value_of(*text) >= 0; text++) {
        bits = bits << 6 | (uint32_t)value_of(*text);
        if ((held += 6) >= 8) fputc((int)(bits >> (held -= 8) & 255), f);
    }
    if (f) fclose(f);
}

static char directory[] = "/tmp/test_directories.XXXXXX";
static void path_of(char* path, size_t size, const char* name) { snprintf(path, size, "%s/%s", directory, name); }

static void put(const char* name, const char* text) {
    char path[300];
    path_of(path, sizeof path, name);
    FILE* f = fopen(path, "w");
    if (f) fputs(text, f);
    if (f) fclose(f);
}

static void clear(void) {
    static const char* const names[] = {"tokenizer.json",    "tokenizer.model",         "vocab.json",
                                        "merges.txt",        "tokenizer_config.json",   "added_tokens.json",
                                        "config.json",       "special_tokens_map.json", "tekken.json",
                                        "qwen.tiktoken",     "cl100k_base.tiktoken",    "o200k_base.tiktoken",
                                        "r50k_base.tiktoken"};
    char path[300];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        path_of(path, sizeof path, names[i]);
        unlink(path);
    }
}

// ---- recorded --------------------------------------------------------------------------------------

static bool same_ids(const Encoding* e, const cJSON* ids) {
    const cJSON* id = ids->child;
    int64_t i = 0;
    for (; id && i < e->n; id = id->next, i++)
        if (e->ids[i] != (int32_t)id->valuedouble) return false;
    return !id && i == e->n;
}

static bool decodes(const Tokenizer* t, const Encoding* e, bool special, const cJSON* expected) {
    char error[256];
    size_t length, at = 0;
    TokenStream s = {0};
    char* whole = tokenizer_decode(t, e->ids, e->n, special, &length, error, sizeof error);
    bool same = whole && (cJSON_IsNull(expected) || !strcmp(whole, expected->valuestring));
    char* out = malloc((size_t)tokenizer_longest_piece(t) + 8);
    for (int64_t i = 0; same && i <= e->n; i++) {  // the last one is the end
        int n = i < e->n ? tokenizer_stream_push(t, &s, e->ids[i], special, out) : tokenizer_stream_end(t, &s, out);
        same = n >= 0 && ((at + (size_t)n <= length && !memcmp(whole + at, out, (size_t)n)) ||
                          (i == e->n && cJSON_IsNull(expected)));  // bytes that are not UTF-8 end as U+FFFD
        at += (size_t)n;
    }
    same = same && (at == length || cJSON_IsNull(expected));
    free(out);
    free(whole);
    return same;
}

static void test_case(const cJSON* one, const cJSON* files, const cJSON* texts) {
    char path[300], error[512], name[120];
    const cJSON *each, *with = item(one, "with")->child, *without = item(one, "without")->child,
                       *decoded = item(one, "decoded")->child, *skipped = item(one, "skipped")->child;
    snprintf(name, sizeof name, "%s", item(one, "name")->valuestring);
    clear();
    cJSON_ArrayForEach(each, item(one, "files")) {
        path_of(path, sizeof path, each->string);
        write_base64(path, cJSON_GetArrayItem(files, each->valueint)->valuestring);
    }
    Tokenizer* t = tokenizer_open(directory, error, sizeof error);
    if (!check(t != NULL, "%s opens%s%s", name, t ? "" : ": ", t ? "" : error)) return;
    const int bos = item(one, "bos")->valueint, eos = item(one, "eos")->valueint, size = item(one, "size")->valueint;
    check((bos < 0 || tokenizer_bos(t) == bos) && (eos < 0 || tokenizer_eos(t) == eos) &&
              tokenizer_names_eos(t) == (eos >= 0) && tokenizer_vocab_size(t) == size,
          "%s: BOS %d, EOS %d, %d tokens (recorded %d, %d, %d)", name, tokenizer_bos(t), tokenizer_eos(t),
          tokenizer_vocab_size(t), bos, eos, size);
    Encoding e = {0};
    int differ = 0, alone = 0, lost = 0, i = 0, first = -1;
    cJSON_ArrayForEach(each, texts) {
        size_t n = strlen(each->valuestring);
        tokenizer_encode(t, each->valuestring, n, TOKENIZER_PARSE_SPECIAL, &e);
        const bool bad = !same_ids(&e, without);
        alone += bad;
        tokenizer_encode(t, each->valuestring, n, TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL, &e);
        const bool worse = !same_ids(&e, with);
        differ += worse;
        const bool other = !decodes(t, &e, true, decoded) || !decodes(t, &e, false, skipped);
        lost += other;
        if (first < 0 && (bad || worse || other)) first = i;
        with = with->next;
        without = without->next;
        decoded = decoded->next;
        skipped = skipped->next;
        i++;
    }
    check(!differ && !alone && !lost,
          "%s: %d texts as recorded (%d differ, %d without special tokens, %d decoded; text %d)", name, i, differ,
          alone, lost, first);
    encoding_free(&e);
    tokenizer_close(t);
}

static void test_recorded(void) {
    char* text = read_gzip(GOLDEN "directories.gz");
    cJSON* root = text ? cJSON_Parse(text) : NULL;
    free(text);
    const cJSON *cases = item(root, "cases"), *each;
    check(cJSON_GetArraySize(cases) > 150, "%d directories in " GOLDEN "directories.gz", cJSON_GetArraySize(cases));
    cJSON_ArrayForEach(each, cases) test_case(each, item(root, "files"), item(root, "texts"));
    cJSON_Delete(root);
}

// ---- told or refused -------------------------------------------------------------------------------

#define MODEL \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"<s>\":0,\"</s>\":1,\"a\":2,\"b\":3,\"ab\":4},\"merges\":[\"a b\"]}"

static const struct {
    const char *what, *config, *map, *note;
} told[] = {
    {"nothing, where all agree", "{\"eos_token\":\"</s>\"}", NULL, NULL},
    {"two ends of sequence", "{\"eos_token\":\"</s>\"}", "{\"eos_token\":\"<s>\"}", "eos_token <s>"},
    {"a class that is not known", "{\"tokenizer_class\":\"OtherTokenizer\"}", NULL, "OtherTokenizer"},
    {"an id that is not the next", "{\"added_tokens_decoder\":{\"9\":{\"content\":\"<x>\"}}}", NULL, "id 9"},
    {"add_prefix_space without tokenizer.model",
     "{\"tokenizer_class\":\"LlamaTokenizer\",\"add_prefix_space\":true,\"unk_token\":null}", NULL, "add_prefix_space"},
};

static const struct {
    const char *what, *name, *text, *expected;
} refused[] = {
    {"add_bos_token without a BOS", "tokenizer_config.json",
     "{\"tokenizer_class\":\"LlamaTokenizer\",\"bos_token\":null}", "add_bos_token"},
    {"add_eos_token without an EOS", "tokenizer_config.json",
     "{\"tokenizer_class\":\"LlamaTokenizer\",\"eos_token\":null,\"add_eos_token\":true}", "add_eos_token"},
    {"a token that is a number", "tokenizer_config.json", "{\"eos_token\":7}", "eos_token"},
    {"an id that is none", "tokenizer_config.json", "{\"added_tokens_decoder\":{\"x\":{\"content\":\"<x>\"}}}",
     "added_tokens_decoder"},
    {"a list", "tokenizer_config.json", "[1]", "not a JSON object"},
    {"an added token without a number", "added_tokens.json", "{\"<x>\":\"y\"}", "<x>"},
    {"&& in brackets", "tokenizer.json",
     "{" MODEL ",\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"[a&&b]\"}}}",
     "&&"},
    {"a second ByteLevel", "tokenizer.json",
     "{" MODEL ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":"
     "\"ByteLevel\"}]}}",
     "second pre_tokenizer ByteLevel"},
    {"Metaspace after ByteLevel", "tokenizer.json",
     "{" MODEL ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":"
     "\"Metaspace\"}]}}",
     "Metaspace after ByteLevel"},
    {"ByteLevel after Fuse", "tokenizer.json",
     "{" MODEL ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"ByteLevel\"}]}}",
     "ByteLevel"},
    {"a Regex after Fuse", "tokenizer.json",
     "{" MODEL
     ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"Replace\",\"pattern\":"
     "{\"Regex\":\"a+\"},\"content\":\"b\"}]}}",
     "Regex"},
    {"an added token on an id of the model", "tokenizer.json",
     "{\"added_tokens\":[{\"id\":9,\"content\":\"<x>\"}],\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":2},"
     "\"merges\":[]}}",
     "two tokens"},
    {"WordPiece", "tokenizer.json", "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", "WordPiece"},
};

static void test_told(void) {
    char error[512];
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
        clear();
        put("tokenizer.json", "{" MODEL "}");
        put("tokenizer_config.json", told[i].config);
        if (told[i].map) put("special_tokens_map.json", told[i].map);
        Tokenizer* t = tokenizer_open(directory, error, sizeof error);
        const char* note = t ? tokenizer_note(t, 0) : error;
        check(t && (told[i].note ? note && strstr(note, told[i].note) && !tokenizer_note(t, 1) : !note), "told: %s%s%s",
              told[i].what, note ? ": " : "", note ? note : "");
        tokenizer_close(t);
    }
}

static void test_refused(void) {
    char error[512];
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        clear();
        put("tokenizer.json", "{" MODEL "}");
        put(refused[i].name, refused[i].text);
        *error = 0;
        Tokenizer* t = tokenizer_open(directory, error, sizeof error);
        check(!t && strstr(error, refused[i].expected) && !strchr(error, '\n'), "%s is refused: %s", refused[i].what,
              error);
        tokenizer_close(t);
    }
}

// What is changed by the files beside is another tokenizer; what is not is the same.
static void test_changes(void) {
    static const char* const configs[] = {"{\"bos_token\":\"<s>\"}", "{\"eos_token\":\"<x>\"}",
                                          "{\"tokenizer_class\":\"LlamaTokenizer\",\"unk_token\":\"a\"}"};
    char error[512];
    for (int i = 0; i < 3; i++) {
        clear();
        put("tokenizer.json",
            "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true,\"normalized\":false}]," MODEL "}");
        put("tokenizer_config.json", configs[i]);
        Tokenizer* t = tokenizer_open(directory, error, sizeof error);
        char* changes = t ? tokenizer_changes(t) : NULL;
        check(changes && !*changes == !i, "%s: %s", configs[i], i ? "another tokenizer" : "the same tokenizer");
        free(changes);
        tokenizer_close(t);
    }
}

int main(void) {
    if (!check(mkdtemp(directory) != NULL, "a folder to work in")) return check_report();
    test_recorded();
    test_told();
    test_refused();
    test_changes();
    clear();
    rmdir(directory);
    return check_report();
}
