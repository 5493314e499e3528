/*
GGUF files against what the gguf package, tokenizers and sentencepiece recorded (dev/reference/record_gguf.py): the
values of every type of tensor bit for bit, the ids of every tokenizer, whole models of every family; and files that are
cut, damaged or of another kind, each of which ends in one line.
*/
#include <cjson/cJSON.h>
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "check.h"
#include "base/error.h"
#include "base/gguf.h"
#include "base/safetensors.h"
#include "commands/gguf_model.h"
#include "commands/gguf_tokenizer.h"
#include "refuses.h"
#include "scratch.h"
#include "tokenizer.h"

#define GOLDEN "dev/reference/golden/gguf/"

static cJSON* read_json(const char* path) {
    size_t n;
    char* text = file_read(path, 1 << 24, &n);
    cJSON* json = cJSON_ParseWithLength(text, n);
    if (!json) fatal("%s: not JSON", path);
    free(text);
    return json;
}
// The name without its ending, where it has this one.
static bool stem_of(const char* name, const char* ending, char stem[128]) {
    size_t n = strlen(name), m = strlen(ending);
    if (n <= m || strcmp(name + n - m, ending)) return false;
    snprintf(stem, 128, "%.*s", (int)(n - m), name);
    return true;
}

// ---------------------------------------------------------------------------------------------------

static void test_types(void) {
    const char* path = GOLDEN "types.gguf";
    GgufReader r;
    StReader expected;
    gguf_open(&r, &path, 1);
    st_open(&expected, GOLDEN "types.safetensors");
    check(r.n_tensors == 11 && expected.n_tensors == 11, "eleven types of tensors");
    for (int i = 0; i < r.n_tensors; i++) {
        const GgufTensor* t = &r.tensors[i];
        const StTensor* e = st_need(&expected, t->name);
        float* values = malloc((size_t)t->count * sizeof(float));
        gguf_to_float(t, 0, t->count, values);
        check(!strcmp(gguf_type_name(t), t->name) && t->count == e->count &&
                  !memcmp(values, e->data, (size_t)t->count * sizeof(float)),
              "%s: %lld values are those of the gguf package, bit for bit", t->name, (long long)t->count);
        // the second row alone is the same
        float* row = malloc((size_t)t->shape[0] * sizeof(float));
        gguf_to_float(t, t->shape[0], t->shape[0], row);
        check(!memcmp(row, values + t->shape[0], (size_t)t->shape[0] * sizeof(float)), "%s: a row alone", t->name);
        free(row);
        free(values);
    }
    st_close(&expected);
    gguf_close(&r);
}

// ---------------------------------------------------------------------------------------------------

static int encodes_as(const Tokenizer* t, const char* text, const cJSON* ids) {
    Encoding e = {0};
    int64_t n = tokenizer_encode(t, text, strlen(text), TOKENIZER_PARSE_SPECIAL, &e), i = 0;
    int same = n == cJSON_GetArraySize(ids);
    for (const cJSON* id = ids->child; id && same; id = id->next) same = e.ids[i++] == id->valueint;
    encoding_free(&e);
    return same;
}

static void test_tokenizer(const char* name) {
    char path[256], error[512];
    const char* file = path;
    snprintf(path, sizeof path, GOLDEN "tokenizer_%s.json", name);
    cJSON* json = read_json(path);
    snprintf(path, sizeof path, GOLDEN "tokenizer_%s.gguf", name);
    GgufReader r;
    GgufTokenizer files;
    gguf_open(&r, &file, 1);
    gguf_tokenizer(&files, &r, NULL, 1000, 100);
    Tokenizer* t = tokenizer_open_memory(name, files.tokenizer, files.length, error, sizeof error);
    int wrong = 0, n = 0;
    const cJSON *text, *ids = cJSON_GetObjectItem(json, "ids")->child;
    cJSON_ArrayForEach(text, cJSON_GetObjectItem(json, "texts")) {
        if (!encodes_as(t, text->valuestring, ids) && !wrong++) printf("# %s: \"%s\"\n", name, text->valuestring);
        ids = ids->next;
        n++;
    }
    check(n > 20 && !wrong, "tokenizer %s: %d texts have the ids of the library", name, n);
    check(files.n_unused == (files.pre != NULL), "tokenizer %s: padding of the vocabulary is left out", name);
    tokenizer_close(t);
    gguf_tokenizer_free(&files);
    gguf_close(&r);
    cJSON_Delete(json);
}

// ---------------------------------------------------------------------------------------------------

static const char* program;

// `train_seal import FILE` to a folder; its exit status.
static int import_file(const char* file, const char* out, const char* dtype) {
    char command[1024];
    snprintf(command, sizeof command, "%s import --gguf %s --out %s --dtype %s >%s/out 2>%s/err", program, file, out,
             dtype, directory, directory);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
static const char* said(void) {
    static char text[1024];
    size_t n;
    char* all = file_read(in_directory("err"), 1 << 20, &n);
    snprintf(text, sizeof text, "%s", all);
    free(all);
    return text;
}

// Whether `ours` says what `theirs` does; keys of ours that theirs lacks are fine.
static int says(const cJSON* ours, const cJSON* theirs, const char* key) {
    if (cJSON_IsNull(theirs)) return !ours || cJSON_IsNull(ours);
    if (!ours) {
        printf("# \"%s\" is missing\n", key);
        return 0;
    }
    if (cJSON_IsObject(theirs) || cJSON_IsArray(theirs)) {
        int same = ours->type == theirs->type, i = 0;
        for (const cJSON* x = theirs->child; x && same; x = x->next, i++)
            same = says(cJSON_IsObject(theirs) ? cJSON_GetObjectItem(ours, x->string) : cJSON_GetArrayItem(ours, i), x,
                        x->string ? x->string : key);
        return same;
    }
    int same = cJSON_IsNumber(theirs) ? cJSON_IsNumber(ours) && fabs(ours->valuedouble - theirs->valuedouble) <=
                                                                    1e-6 * fabs(theirs->valuedouble)
                                      : cJSON_Compare(ours, theirs, true);
    if (!same) printf("# \"%s\" differs: %s\n", key, cJSON_PrintUnformatted(ours));
    return same;
}

// Lists that follow from other keys.
static int follows(const char* key) { return !strcmp(key, "layer_types") || !strcmp(key, "no_rope_layers"); }

static void test_family(const char* name) {
    char path[256], out[300], file[400];
    snprintf(path, sizeof path, GOLDEN "%.100s.json", name);
    cJSON* expected = read_json(path);
    snprintf(path, sizeof path, GOLDEN "%.100s.gguf", name);
    snprintf(out, sizeof out, "%s/%.100s", directory, name);
    const cJSON *config = cJSON_GetObjectItem(expected, "config"), *tensor;
    if (!family_find(cJSON_GetObjectItem(config, "model_type")->valuestring)) {
        check(import_file(path, out, "fp32") == 2 && strstr(said(), "is not supported"),
              "%s: a family that is not supported is refused", name);
        cJSON_Delete(expected);
        return;
    }
    int status = import_file(path, out, "fp32");
    if (!check(status == 0, "%s: is imported (status %d) %s", name, status, status ? said() : "")) return;
    snprintf(file, sizeof file, "%s/config.json", out);
    cJSON* ours = read_json(file);
    int same = 1;
    for (const cJSON* key = config->child; key; key = key->next) {
        const cJSON* of_ours = cJSON_GetObjectItem(ours, key->string);
        if (of_ours || !follows(key->string)) same &= says(of_ours, key, key->string);
    }
    check(same, "%s: config.json says what transformers' does", name);
    cJSON_Delete(ours);
    StReader model;
    snprintf(file, sizeof file, "%s/model.safetensors", out);
    st_open(&model, file);
    int n = 0, wrong = 0;
    cJSON_ArrayForEach(tensor, cJSON_GetObjectItem(expected, "tensors")) {
        Hex hex = "";
        const StTensor* t = st_find(&model, tensor->string);
        const cJSON* shape = cJSON_GetObjectItem(tensor, "shape");
        int good = t && t->dtype == ST_F32 && t->n_dims == cJSON_GetArraySize(shape);
        for (int d = 0; good && d < t->n_dims; d++) good = t->shape[d] == cJSON_GetArrayItem(shape, d)->valueint;
        if (good) sha256_hex(t->data, t->bytes, hex);
        if (strcmp(hex, cJSON_GetObjectItem(tensor, "sha256")->valuestring) && !wrong++)
            printf("# %s: %s\n", name, tensor->string);
        n++;
    }
    check(!wrong && n == model.n_tensors, "%s: %d tensors, bit for bit", name, n);
    st_close(&model);
    cJSON_Delete(expected);
}

// bf16 is the fp32 import, rounded; a second import does not take the first one's place.
static void test_dtypes(void) {
    StReader wide, narrow;
    char out[300];
    snprintf(out, sizeof out, "%s/bf16", directory);
    if (!check(import_file(GOLDEN "llama.gguf", out, "bf16") == 0, "an import in bf16")) return;
    st_open(&wide, in_directory("llama/model.safetensors"));
    st_open(&narrow, in_directory("bf16/model.safetensors"));
    int same = wide.n_tensors == narrow.n_tensors;
    for (int i = 0; i < wide.n_tensors && same; i++) {
        const StTensor *a = &wide.tensors[i], *b = st_find(&narrow, a->name);
        uint16_t* rounded = malloc((size_t)a->count * 2);
        st_from_float(ST_BF16, (const float*)a->data, a->count, rounded);
        same = b && b->dtype == ST_BF16 && b->count == a->count && !memcmp(rounded, b->data, b->bytes);
        free(rounded);
    }
    check(same, "is the one in fp32, rounded");
    st_close(&wide);
    st_close(&narrow);
    check(import_file(GOLDEN "llama.gguf", out, "bf16") == 2 && strstr(said(), "a model exists there already"),
          "a second import is refused");
}

// ---------------------------------------------------------------------------------------------------
// damage

static uint8_t* whole;  // llama.gguf
static size_t whole_length;

static void open_file(const void* path) {
    const char* file = path;
    GgufReader r;
    ModelConfig c;
    GgufTokenizer t;
    gguf_open(&r, &file, 1);
    const GgufFamily* family = gguf_family(&r);
    gguf_config(&r, family, &c);
    gguf_tokenizer(&t, &r, family->pre, c.V, c.max_positions);
}

static const char* damaged(size_t length) {
    const char* path = in_directory("damaged.gguf");
    file_write(path, whole, length);
    return path;
}

// Where the key's name begins.
static size_t find_bytes(const void* bytes, size_t n) {
    const uint8_t* p = memmem(whole, whole_length, bytes, n);
    if (!p) fatal("%s: not in the file", (const char*)bytes);
    return (size_t)(p - whole);
}
static size_t find(const char* key) { return find_bytes(key, strlen(key)); }

static void test_cuts(void) {
    size_t header = find("token_embd.weight") + 1200;  // within the tensors' infos
    int cuts = 0, good = 0;
    for (size_t n = 0; n < whole_length; n += n < 64 ? 1 : n < header ? 211 : 4099) {
        cuts++;
        good += refuses(open_file, damaged(n), n < 4 ? "" : "damaged.gguf");
    }
    check(good == cuts && cuts > 100, "a file cut at any of %d places ends in one line", cuts);
}

// A change of some bytes, and what is said about it.
static void change(const char* name, size_t at, const void* bytes, size_t n, const char* expected) {
    uint8_t kept[64];
    memcpy(kept, whole + at, n);
    memcpy(whole + at, bytes, n);
    check(refuses(open_file, damaged(whole_length), expected), "%s is refused", name);
    memcpy(whole + at, kept, n);
}

static void test_damage(void) {
    const uint64_t huge = UINT64_MAX, many = (uint64_t)1 << 40;
    const uint32_t u32[] = {1, 3u << 24, 99, 10, 0};
    size_t tensor = find("token_embd.weight") + strlen("token_embd.weight"),
           rms = find("llama.attention.layer_norm_rms"),
           blocks = find("llama.block_count") + strlen("llama.block_count"),
           tokens = find("tokenizer.ggml.tokens") + 21;
    change("another magic", 0, "GGML", 4, "not a GGUF file");
    change("version 1", 4, &u32[0], 4, "GGUF version 1");
    change("a big-endian file", 4, &u32[1], 4, "big-endian");
    change("a huge number of tensors", 8, &huge, 8, "more than the file has room for");
    change("a huge number of keys", 16, &many, 8, "more than the file has room for");
    change("a huge key", 24, &huge, 8, "a key of");
    change("a key that is not text", 32, "\x01", 1, "not printable ASCII");
    change("a key of an unknown type", blocks, &u32[2], 4, "unknown type 99");
    change("a number where a string is expected", blocks, (const uint32_t[]){8, 0, 0}, 12, "damaged.gguf");
    change("no layers", blocks + 4, &u32[4], 4, "\"llama.block_count\" is 0");
    change("a missing key", rms, "x", 1, "epsilon is missing");
    change("an array of arrays", tokens + 4, (const uint32_t[]){9}, 4, "an array of arrays");
    change("a huge array", tokens + 8, &many, 8, "more than the file has room for");
    change("a huge string", tokens + 16, &huge, 8, "inside a string");
    change("five dimensions", tensor, (const uint32_t[]){5}, 4, "has 5 dimensions");
    change("an empty tensor", tensor + 4, (const uint64_t[]){0}, 8, "is empty");
    change("a huge tensor", tensor + 4, &huge, 8, "larger than the file");
    change("dimensions whose product is huge", tensor + 12, &many, 8, "larger than the file");
    change("rows that are not whole blocks", tensor + 4, (const uint64_t[]){33}, 8, "not a multiple of");
    change("a type that is not supported", tensor + 20, &u32[3], 4, "is Q2_K, which is not supported");
    change("an unknown type", tensor + 20, &u32[2], 4, "unknown type 99");
    change("an offset that is not aligned", tensor + 24, (const uint64_t[]){1}, 8, "not a multiple of 32");
    change("an offset after the file", tensor + 24, (const uint64_t[]){(uint64_t)1 << 62}, 8, "truncated or damaged");
    change("tensors that overlap", tensor + 24, (const uint64_t[]){32}, 8, "overlap");
    change("another architecture", find("general.architecture") + 20 + 12, "mamba", 5, "architecture \"mamba\"");
    change("a pre-tokenizer that is not known", find("llama-bpe"), "llama-xyz", 9, "\"llama-xyz\" is not supported");
    change("a duplicate token", find_bytes("\1\0\0\0\0\0\0\0!", 9) + 8, "\"", 1, "are the same");
    change("a token that is not UTF-8", find("<|im_end|>"), "\xff", 1, "is not UTF-8");
}

// Splits and pieces: the same as the whole file.
static void test_parts(void) {
    char name[64], out[300];
    for (int i = 0; i < 3; i++) {  // of a third each
        snprintf(name, sizeof name, "joined.gguf.part%02d", i);
        size_t from = whole_length / 3 * (size_t)i, to = i == 2 ? whole_length : from + whole_length / 3;
        file_write(in_directory(name), whole + from, to - from);
    }
    snprintf(out, sizeof out, "%s/joined", directory);
    Hex a, b;
    const char* const splits[] = {"1", "3"};  // whichever is named
    for (int i = 0; i < 2; i++) {
        char file[128], model[300];
        snprintf(file, sizeof file, GOLDEN "llama_split-0000%s-of-00003.gguf", splits[i]);
        snprintf(model, sizeof model, "%s/split%d", directory, i);
        check(import_file(file, model, "fp32") == 0, "a model in three files, named by file %s %s", splits[i], said());
        strcat(model, "/model.safetensors");
        file_sha256_hex(in_directory("llama/model.safetensors"), a);
        file_sha256_hex(model, b);
        check(!strcmp(a, b), "is the one in one file");
    }
    check(import_file(GOLDEN "llama_split-00001-of-00003.gguf --gguf " GOLDEN "llama_split-00002-of-00003.gguf", out,
                      "fp32") == 2 &&
              strstr(said(), "the first of 3 files"),
          "two of them are refused");
    check(import_file(in_directory("joined.gguf.part00"), out, "fp32") == 0, "pieces are found by their names");
    file_sha256_hex(in_directory("llama/model.safetensors"), a);
    file_sha256_hex(in_directory("joined/model.safetensors"), b);
    check(!strcmp(a, b), "and give the same model");
    unlink(in_directory("joined.gguf.part02"));
    snprintf(out, sizeof out, "%s/short", directory);
    check(import_file(in_directory("joined.gguf.part00"), out, "fp32") == 2 && strstr(said(), "truncated"),
          "a missing piece is refused");
}

int main(void) {
    char names[128][128];
    int n = 0;
    char stem[128];
    const char* build = getenv("BUILD");
    static char path[512];
    snprintf(path, sizeof path, "%s/train_seal", build ? build : "build/cpu-fp32");
    program = path;
    snprintf(directory, sizeof directory, "/tmp/seal_gguf.XXXXXX");
    if (!mkdtemp(directory)) return 1;
    DIR* d = opendir(GOLDEN);
    for (struct dirent* entry; d && (entry = readdir(d));)
        if (stem_of(entry->d_name, ".json", stem) && n < 128) snprintf(names[n++], 128, "%s", stem);
    if (d) closedir(d);
    qsort(names, (size_t)n, 128, (int (*)(const void*, const void*))strcmp);
    check(n > 15, "%d recorded files", n);
    test_types();
    for (int i = 0; i < n; i++)
        if (!strncmp(names[i], "tokenizer_", 10)) test_tokenizer(names[i] + 10);
    for (int i = 0; i < n; i++)
        if (strncmp(names[i], "tokenizer_", 10)) test_family(names[i]);
    test_dtypes();
    char* text = file_read(GOLDEN "llama.gguf", 1 << 24, &whole_length);
    whole = (uint8_t*)text;
    test_cuts();
    test_damage();
    test_parts();
    free(text);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    if (system(command)) return 1;
    return check_report();
}
