/* What the programs wrote and read again: the cache of tokens (seal/rows/token_cache.c), and what `report` and
   `winrate` are given (seal/commands/report.c, chart.c, winrate.c; log, summary, selector, table, labels, annotations).
   Input: a byte for the file, then the file. Of a cache with right digests: two bytes n, the report (n bytes), a byte
   for the number of rows, and what the tensors hold. */
#include <cjson/cJSON.h>
#include <string.h>
#include <sys/stat.h>
#include "base/file.h"
#include "fuzz.h"
#include "commands/report.h"
#include "rows/tokens.h"
#include "commands/winrate.h"

enum { CACHE_RAW, CACHE, LOG, SUMMARY, SELECTOR, TABLE, LABELS, ANNOTATIONS, N_KINDS };

// ---- the cache -------------------------------------------------------------------------------------

#define MAX_LENGTH 16
static int32_t ids[256], start[256], end[256];
static void* begin(void* self) { return self; }
static void finish(void* self, void* scratch) { (void)self, (void)scratch; }
static int64_t encode(void* self, void* scratch, const char* text, size_t n, const int32_t** i, const int32_t** s,
                      const int32_t** e, const char** error) {
    (void)self, (void)scratch;
    *error = "too long";
    if (n > 256) return -1;
    for (size_t k = 0; k < n; k++) ids[k] = (uint8_t)text[k] % 64, start[k] = (int32_t)k, end[k] = (int32_t)k + 1;
    *i = ids, *s = start, *e = end;
    return (int64_t)n;
}
static const TextEncoder encoder = {NULL, begin, finish, encode, 64, -1, 0, "", "00"};
static char cache[128];
static Hex key;
static const char* rows_path;

static void load(void* context) {
    TokenSet set;
    int64_t sum = 0;
    tokens_load(&set, &(StringList){&rows_path, 1}, &encoder,
                &(TokenOptions){.rows = {.prompt_template = "{prompt}:"},
                                .max_length = MAX_LENGTH,
                                .quiet = true,
                                .threads = 1,
                                .cache = cache});
    MUST(set.n >= 1 && set.n <= set.n_rows);
    for (int i = 0; i < set.n; i++) {
        const PackSample* s = &set.samples[i];
        MUST(s->length >= 1 && s->length <= MAX_LENGTH && set.rows[i] >= 0 && set.rows[i] < set.n_rows);
        for (int t = 0; t < s->length; t++) {
            MUST(s->tokens[t] >= 0 && s->tokens[t] < encoder.vocab && s->bears_loss[t] <= 1);
            sum += s->bears_loss[t];
        }
    }
    MUST(sum == set.n_loss && set.longest <= MAX_LENGTH);
    if (context) memcpy(context, &set.cached, 1);
    tokens_free(&set);
}

// The key of these rows and options, from a cache that was made of them.
static void learn_key(void) {
    static const char lines[] =
        "{\"prompt\":\"ab\",\"response\":\"c\"}\n{\"prompt\":\"d\",\"response\":\"\"}\n{\"prompt\":\"e\",\"response\":"
        "\"fgh\"}\n";
    snprintf(cache, sizeof cache, "%s/cache.safetensors", fuzz_directory());
    rows_path = strdup(fuzz_file("rows.jsonl", (const uint8_t*)lines, sizeof lines - 1));
    MUST(rows_path && survive(load, NULL));
    size_t n;
    char* text = file_read(cache, 1 << 20, &n);
    cJSON* header = cJSON_ParseWithLength(text + 8, n - 8);
    memcpy(key, cJSON_GetStringValue(cJSON_GetObjectItem(cJSON_GetObjectItem(header, "__metadata__"), "key")), 64);
    cJSON_Delete(header);
    free(text);
}

static void put_cache(const uint8_t* data, size_t n) {
    static const struct {
        const char *name, *type;
        size_t size;
    } parts[] = {{"rows", "I64", 8}, {"hashes", "I64", 8}, {"offsets", "I64", 8}, {"first", "I32", 4}};
    static uint8_t all[65536];
    static char signs[65536];
    Hex hex;
    if (n < 3) return;
    size_t length = data[0] | (size_t)data[1] << 8, at = 0, rows = data[2] % 8;
    data += 3, n -= 3;
    if (length > n) length = n;
    char* report = strndup((const char*)data, length);
    MUST(report);
    data += length, n -= length;
    if (n > 16384) n = 16384;
    // digests as the writer would make them
    size_t known = (size_t)snprintf(signs, sizeof signs, "%s%s", key, report);
    memcpy(signs + known, data, n);
    sha256_hex(signs, known + n, hex);
    cJSON *header = cJSON_CreateObject(), *metadata = cJSON_AddObjectToObject(header, "__metadata__");
    cJSON_AddStringToObject(metadata, "format", "seal tokens");
    cJSON_AddStringToObject(metadata, "key", key);
    cJSON_AddStringToObject(metadata, "content", hex);
    cJSON_AddStringToObject(metadata, "report", report);
    for (int p = 0; p < 5; p++) {
        size_t bytes = p < 4 ? (rows + (p == 2)) * parts[p].size : n > at ? (n - at) / 4 * 4 : 0;
        cJSON *tensor = cJSON_AddObjectToObject(header, p < 4 ? parts[p].name : "tokens"),
              *offsets = cJSON_AddArrayToObject(tensor, "data_offsets");
        cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)at));
        cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)(at += bytes)));
    }
    char* text = cJSON_PrintUnformatted(header);
    uint64_t size = (strlen(text) + 7) / 8 * 8;
    MUST(8 + size + n <= sizeof all);
    memset(all, ' ', 8 + size);
    memcpy(all, &size, 8);
    memcpy(all + 8, text, strlen(text));
    memcpy(all + 8 + size, data, n);
    fuzz_file("cache.safetensors", all, 8 + size + n);
    cJSON_free(text);
    cJSON_Delete(header);
    free(report);
}

// ---- reports ---------------------------------------------------------------------------------------

static EvalOptions options;
static const char* run;

static void make_page(void* path) {
    size_t n;
    report_command(&options, &(StringList){&run, 1});
    char* page = file_read(path, 1 << 26, &n);
    MUST(n > 100 && !strstr(page, "<script") && !strstr(page, "\"nan") && !strstr(page, "inf\""));
    free(page);
}

static void win(void* path) {
    int n;
    WinRate* rates = winrate_read(path, &n);
    for (const WinRate* w = rates; w < rates + n; w++)
        MUST(w->wins + w->losses + w->draws == w->n && w->flips <= w->both &&
             (!w->n || (w->win_rate >= 0 && w->win_rate <= 100)));
    free(rates);
}

static void report(int kind, const uint8_t* data, size_t n) {
    static const char* const names[N_KINDS] = {[LOG] = "run/log.jsonl",
                                               [SUMMARY] = "run/summary.json",
                                               [SELECTOR] = "run/selector.safetensors",
                                               [TABLE] = "table.json",
                                               [LABELS] = "labels.jsonl"};
    static const char log[] = "{\"lr\":1}\n{\"step\":1,\"loss\":2}\n";
    static char out[128], folder[128];
    snprintf(folder, sizeof folder, "%s/run", fuzz_directory());
    snprintf(out, sizeof out, "%s/page.html", fuzz_directory());
    mkdir(folder, 0700);
    run = folder;
    for (int k = LOG; k <= SELECTOR; k++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", fuzz_directory(), names[k]);
        remove(path);
    }
    fuzz_file(names[LOG], (const uint8_t*)log, sizeof log - 1);
    const char* path = fuzz_file(names[kind], data, n);
    options = (EvalOptions){.out = out,
                            .title = "t",
                            .quiet = true,
                            .table = kind == TABLE ? path : NULL,
                            .labels = kind == LABELS ? path : NULL};
    if (!survive(make_page, out)) fuzz_unmap();
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    if (n < 2) return -1;
    if (!*key) learn_key();
    int kind = data[0] % N_KINDS;
    data++, n--;
    if (kind == ANNOTATIONS) survive(win, (void*)fuzz_file("annotations.json", data, n));
    else if (kind >= LOG) report(kind, data, n);
    else {
        if (kind == CACHE) put_cache(data, n);
        else fuzz_file("cache.safetensors", data, n);
        if (!survive(load, NULL)) fuzz_unmap();
    }
    return 0;
}
