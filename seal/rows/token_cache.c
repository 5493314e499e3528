/* See token_cache.h. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cjson/cJSON.h>
#include <openssl/evp.h>
#include "base/error.h"
#include "base/safetensors.h"
#include "base/text.h"
#include "rows/token_cache.h"

enum { PART_ROWS, PART_HASHES, PART_OFFSETS, PART_FIRST, PART_TOKENS, PART_WEIGHTS, PART_LOSS, N_PARTS };
static const char* const part_names[N_PARTS] = {"rows", "hashes", "offsets", "first", "tokens", "weights", "loss"};
static const StDtype part_types[N_PARTS] = {ST_I64, ST_I64, ST_I64, ST_I32, ST_I32, ST_F32, ST_U8};

void token_cache_key(Hex key, const char* digest, const TextEncoder* e, const TokenOptions* o) {
    Text t = {0};
    char numbers[160];
    const char* const parts[] = {"seal tokens 2",
                                 digest,
                                 e->digest,
                                 e->eos_text,
                                 o->rows.prompt_template ? o->rows.prompt_template : TEMPLATE_DEFAULT,
                                 o->rows.prompt_field ? o->rows.prompt_field : "",
                                 o->rows.response_field ? o->rows.response_field : "",
                                 numbers};
    snprintf(numbers, sizeof numbers, "%d %d %d %d %d %d", o->max_length, o->compat, o->vocab, e->vocab, (int)e->eos,
             o->rows.prompts_only);
    if (o->chat) {
        const ChatFormat* f = o->chat;
        text_printf(&t, "chat 2 %s %d %d %d %d %s", f->digest, f->all, f->parse_special, f->every_row,
                    f->tokens.turn_end, chat_end_text(f->chat));
        for (int i = 0; i < f->tokens.n_guarded; i++) text_printf(&t, " %d", f->tokens.guarded[i]);
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) text_add(&t, parts[i], strlen(parts[i]) + 1);
    if (o->rows.answer) text_add(&t, o->rows.answer, strlen(o->rows.answer));
    sha256_hex(t.s, t.n, key);
    text_free(&t);
}

static void tallies_write(cJSON* json, const char* name, const RowTally* tallies, int n) {
    cJSON* object = cJSON_AddObjectToObject(json, name);
    for (int i = 0; i < n; i++) cJSON_AddNumberToObject(object, tallies[i].name, (double)tallies[i].rows);
}

static char* report_json(const TokenSet* set, const TokenSpool* b) {
    cJSON *json = cJSON_CreateObject(), *counts = cJSON_AddArrayToObject(json, "counts"),
          *named = cJSON_AddArrayToObject(json, "named");
    cJSON_AddNumberToObject(json, "rows", (double)b->n_rows);
    cJSON_AddNumberToObject(json, "cut", (double)b->n_cut);
    if (b->n_last_only) cJSON_AddNumberToObject(json, "last_only", (double)b->n_last_only);
    if (b->n_joined) cJSON_AddNumberToObject(json, "joined", (double)b->n_joined);
    for (int s = 0; s < ROW_STATES; s++) cJSON_AddItemToArray(counts, cJSON_CreateNumber((double)set->report.count[s]));
    for (int i = 0; i < set->report.n_named; i++) cJSON_AddItemToArray(named, cJSON_CreateString(set->report.named[i]));
    cJSON* notes = cJSON_AddArrayToObject(json, "notes");
    for (int i = 0; i < set->report.n_notes; i++) cJSON_AddItemToArray(notes, cJSON_CreateString(set->report.notes[i]));
    cJSON_AddNumberToObject(json, "special", (double)set->report.n_special);
    cJSON_AddNumberToObject(json, "ended", (double)set->report.n_ended);
    tallies_write(json, "unread", set->report.unread, set->report.n_unread);
    tallies_write(json, "layouts", set->report.layouts, set->report.n_layouts);
    char* text = json_text(json);
    cJSON_Delete(json);
    return text;
}

// A count, 0 for what is none.
static int64_t count_of(const cJSON* item) {
    double x = cJSON_GetNumberValue(item);
    return x >= 0.0 && x <= 9e15 ? (int64_t)x : 0;
}

static void tallies_read(const cJSON* json, const char* name, RowTally* tallies, int* n) {
    const cJSON *object = cJSON_GetObjectItem(json, name), *item;
    cJSON_ArrayForEach(item, object) if (item->string) row_report_tally(tallies, n, item->string, count_of(item));
}

static void report_read(TokenSet* set, const char* text) {
    cJSON *json = cJSON_Parse(text), *item;
    int s = 0;
    set->n_rows = count_of(cJSON_GetObjectItem(json, "rows"));
    set->n_cut = count_of(cJSON_GetObjectItem(json, "cut"));
    set->n_last_only = count_of(cJSON_GetObjectItem(json, "last_only"));
    set->n_joined = count_of(cJSON_GetObjectItem(json, "joined"));
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(json, "counts")) if (s < ROW_STATES)
        set->report.count[s++] = count_of(item);
    cJSON_ArrayForEach(
        item, cJSON_GetObjectItem(json, "named")) if (set->report.n_named < ROW_REPORT_NAMED && cJSON_IsString(item))
        snprintf(set->report.named[set->report.n_named++], sizeof set->report.named[0], "%s", item->valuestring);
    cJSON_ArrayForEach(
        item, cJSON_GetObjectItem(json, "notes")) if (set->report.n_notes < ROW_REPORT_NAMED && cJSON_IsString(item))
        snprintf(set->report.notes[set->report.n_notes++], sizeof set->report.notes[0], "%s", item->valuestring);
    set->report.n_special = count_of(cJSON_GetObjectItem(json, "special"));
    set->report.n_ended = count_of(cJSON_GetObjectItem(json, "ended"));
    tallies_read(json, "unread", set->report.unread, &set->report.n_unread);
    tallies_read(json, "layouts", set->report.layouts, &set->report.n_layouts);
    cJSON_Delete(json);
}

// Mapped bytes piece by piece; pages that were used are given back, so that a file of gigabytes does not fill the
// memory while it is read once.
static void each_piece(const void* mapped, size_t n, void (*use)(void* context, const void* bytes, size_t n),
                       void* context) {
    const size_t piece = (size_t)16 << 20, page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t at = 0; at < n; at += piece) {
        const uint8_t* from = (const uint8_t*)mapped + at;
        size_t length = n - at < piece ? n - at : piece, skew = (uintptr_t)from % page;
        use(context, from, length);
        madvise((void*)(from - skew), length + skew, MADV_DONTNEED);
    }
}

// The parts in order; `use` gets every piece of bytes.
static void each_part(const TokenSpool* b, const void* tokens, const void* masks,
                      void (*use)(void* context, const void* bytes, size_t n), void* context) {
    size_t n = (size_t)b->n;
    const void* const parts[] = {b->rows, b->hashes, b->offsets, b->first};
    const size_t bytes[] = {n * 8, n * 8, (n + 1) * 8, n * 4};
    for (int p = 0; p < PART_TOKENS; p++) use(context, parts[p], bytes[p]);
    each_piece(tokens, (size_t)b->offsets[n] * 4, use, context);
    if (b->weighted) use(context, b->weights, n * 4);
    if (b->masks) each_piece(masks, (size_t)b->offsets[n], use, context);
}
static void use_digest(void* sha, const void* bytes, size_t n) {
    if (!EVP_DigestUpdate(sha, bytes, n)) program_error("SHA-256 failed");
}
static void use_write(void* writer, const void* bytes, size_t n) { st_write(writer, bytes, n); }

// The digest of key, report and data: a cache with any byte of these changed is not a cache.
static void content_digest(Hex hex, const char* key, const char* report, const TokenSpool* b, const void* tokens,
                           const void* masks, const uint8_t* data, size_t n) {
    unsigned char digest[32];
    EVP_MD_CTX* sha = EVP_MD_CTX_new();
    if (!sha || !EVP_DigestInit_ex(sha, EVP_sha256(), NULL)) program_error("SHA-256 failed");
    use_digest(sha, key, strlen(key));
    use_digest(sha, report, strlen(report));
    if (b) each_part(b, tokens, masks, use_digest, sha);
    else each_piece(data, n, use_digest, sha);
    if (!EVP_DigestFinal_ex(sha, digest, NULL)) program_error("SHA-256 failed");
    EVP_MD_CTX_free(sha);
    hex_of(digest, hex);
}

void token_cache_write(const TokenSet* set, const TokenSpool* b, const void* tokens, const void* masks,
                       const char* path, const char* key) {
    Hex content;
    char* report = report_json(set, b);
    const int64_t counts[N_PARTS] = {
        b->n, b->n, b->n + 1, b->n, b->offsets[b->n], b->weighted ? b->n : 0, b->masks ? b->offsets[b->n] : 0};
    StWriter w;
    content_digest(content, key, report, b, tokens, masks, NULL, 0);
    st_create(&w, path);
    st_set_metadata(&w, "format", "seal tokens");
    st_set_metadata(&w, "key", key);
    st_set_metadata(&w, "content", content);
    st_set_metadata(&w, "digest", set->digest);
    st_set_metadata(&w, "report", report);
    for (int p = 0; p < N_PARTS; p++)
        if (counts[p]) st_declare(&w, part_names[p], part_types[p], 1, &counts[p]);
    each_part(b, tokens, masks, use_write, &w);
    st_commit(&w);
    cJSON_free(report);
}

static const char* member(const cJSON* object, const char* name) {
    const char* text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return text ? text : "";
}

// What the file says, against what it must say. NULL where it is good; st_open is not used because a damaged cache must
// not end the program.
static const char* cache_parse(TokenSet* set, const uint8_t* data, size_t length, const cJSON* header, const char* key,
                               int max_length, int vocab, const uint8_t* parts[N_PARTS], int64_t counts[N_PARTS]) {
    const cJSON* metadata = cJSON_GetObjectItemCaseSensitive(header, "__metadata__");
    Hex content;
    if (strcmp(member(metadata, "format"), "seal tokens")) return "is not a token cache";
    if (strcmp(member(metadata, "key"), key)) return "belongs to other data, another tokenizer or other options";
    content_digest(content, key, member(metadata, "report"), NULL, NULL, NULL, data, length);
    if (strcmp(member(metadata, "content"), content)) return "is damaged";
    double at = 0;
    for (int p = 0; p < N_PARTS; p++) {
        const cJSON* tensor = cJSON_GetObjectItemCaseSensitive(header, part_names[p]);
        const cJSON* offsets = cJSON_GetObjectItemCaseSensitive(tensor, "data_offsets");
        parts[p] = NULL;
        counts[p] = 0;
        if (!tensor && p > PART_TOKENS) continue;
        double from = cJSON_GetNumberValue(cJSON_GetArrayItem(offsets, 0)),
               to = cJSON_GetNumberValue(cJSON_GetArrayItem(offsets, 1));
        if (!(from == at && to >= from && to <= (double)length)) return "is damaged";
        parts[p] = data + (size_t)from;
        counts[p] = (int64_t)(to - from) / (int64_t)st_dtype_size(part_types[p]);
        at = to;
    }
    int64_t n = counts[0];
    if (n < 1 || n >= INT32_MAX || counts[1] != n || counts[2] != n + 1 || counts[3] != n || at != (double)length)
        return "is damaged";
    const int64_t *rows = (const void*)parts[0], *offsets = (const void*)parts[2];
    const int32_t *first = (const void*)parts[3], *tokens = (const void*)parts[4];
    if (offsets[0] || offsets[n] != counts[PART_TOKENS]) return "is damaged";
    if ((parts[PART_WEIGHTS] && counts[PART_WEIGHTS] != n) || (parts[PART_LOSS] && counts[PART_LOSS] != offsets[n]))
        return "is damaged";
    for (int64_t i = 0; i < n; i++) {
        if (offsets[i + 1] <= offsets[i] || offsets[i + 1] - offsets[i] > max_length) return "is damaged";
        if (first[i] < 1 || first[i] >= offsets[i + 1] - offsets[i]) return "is damaged";
    }
    for (int64_t i = 0; i < counts[4]; i++)
        if (tokens[i] < 0 || tokens[i] >= vocab) return "is damaged";
    report_read(set, member(metadata, "report"));
    for (int64_t i = 0; i < n; i++)
        if (rows[i] <= (i ? rows[i - 1] : -1) || rows[i] >= set->n_rows) return "is damaged";
    return NULL;
}

void token_set_fill(TokenSet* set, const TokenSetData* d, int max_length) {
    const int64_t n = d->n, *offsets = d->offsets;
    const int32_t *first = d->first, *tokens = d->tokens;
    set->n = (int)n;
    set->tokens = tokens;
    set->weights = d->weights;
    set->samples = host_alloc((size_t)n * sizeof *set->samples, "the tokens' index");
    set->rows = host_alloc((size_t)n * sizeof *set->rows, "the tokens' index");
    set->hashes = host_alloc((size_t)n * sizeof *set->hashes, "the tokens' index");
    set->flags = host_alloc(2 * (size_t)max_length, "the tokens' index");
    memset(set->flags + max_length, 1, (size_t)max_length);
    memcpy(set->rows, d->rows, (size_t)n * sizeof *set->rows);
    memcpy(set->hashes, d->hashes, (size_t)n * sizeof *set->hashes);
    set->n_tokens = offsets[n];
    for (int64_t i = 0; i < n; i++) {
        int length = (int)(offsets[i + 1] - offsets[i]), n_loss = d->loss ? 0 : length - first[i];
        const uint8_t* bears = d->loss ? d->loss + offsets[i] : set->flags + max_length - first[i];
        for (int t = 0; d->loss && t < length; t++) n_loss += bears[t];
        set->samples[i] = (PackSample){tokens + offsets[i], bears, length, n_loss, set->rows[i]};
        set->n_loss += n_loss;
        if (length > set->longest) set->longest = length;
        set->n_weighted += d->weights && d->weights[i] != 1.0f;
    }
}

bool token_cache_open(TokenSet* set, const char* path, const char* key, int max_length, int vocab, bool quiet) {
    if (!file_exists(path)) return false;
    MappedFile map;
    file_map(&map, path);
    uint64_t size = 0;
    const uint8_t* parts[N_PARTS];
    int64_t counts[N_PARTS];
    const char* wrong = "is not a token cache";
    if (map.length >= 8) memcpy(&size, map.data, 8);
    if (size && size % 8 == 0 && size <= map.length - 8) {
        cJSON* header = cJSON_ParseWithLength((const char*)map.data + 8, size);
        wrong = cache_parse(set, map.data + 8 + size, map.length - 8 - size, header, key, max_length, vocab, parts,
                            counts);
        cJSON_Delete(header);
    }
    if (wrong) {
        if (!quiet) warning("%s: %s; tokenising again", path, wrong);
        memset(&set->report, 0, sizeof set->report);  // of the damaged one
        file_unmap(&map);
        return false;
    }
    set->file = map;
    const TokenSetData d = {counts[PART_ROWS],
                            (const void*)parts[PART_ROWS],
                            (const void*)parts[PART_OFFSETS],
                            (const void*)parts[PART_HASHES],
                            (const void*)parts[PART_FIRST],
                            (const void*)parts[PART_TOKENS],
                            (const void*)parts[PART_WEIGHTS],
                            parts[PART_LOSS]};
    token_set_fill(set, &d, max_length);
    return true;
}
