/* See result_key.h. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cjson/cJSON.h>
#include "base/error.h"
#include "base/file.h"
#include "run/journal.h"
#include "run/result_key.h"

static Path key_of(const char* out) { return path_text("%s.key", out); }

static bool listed(const char* list, const char* name) {
    size_t n = strlen(name);
    for (const char* p = list; *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == n && !memcmp(p, name, n)) return true;
    return false;
}

// What an option that names files says; a text that names none, as "auto" for --chat, is the text.
static void add_path(Text* decides, const char* path) {
    struct stat info;
    if (stat(path, &info)) text_printf(decides, "%s\n", path);
    else if (S_ISDIR(info.st_mode)) journal_add_model(decides, path);
    else if (S_ISREG(info.st_mode)) {
        Hex digest;
        file_sha256_hex(path, digest);
        text_printf(decides, "%s\n", digest);
    } else text_printf(decides, "%s\n", path);
}

void result_key(const OptionTable* table, int command, const void* values, const char* idle, Hex key) {
    static const char always_idle[] = "out,resume,quiet,dry-run,ranks";
    static const char written[] = "scores,token-mask";  // beside --out: by their names
    Text decides = {0};
    char* text = options_json(table, command, values);
    cJSON* options = cJSON_Parse(text);
    text_printf(&decides, "%s\n", table->commands[command].name);
    for (int i = 0; i < table->n_options; i++) {
        const OptionRow* row = &table->options[i];
        const cJSON* value = cJSON_GetObjectItemCaseSensitive(options, row->name);
        if (!value || listed(always_idle, row->name) || listed(idle, row->name)) continue;
        bool names = row->choices && (strstr(row->choices, "FILE") || strstr(row->choices, "DIR")) &&
                     !listed(written, row->name);
        text_printf(&decides, "--%s ", row->name);
        if (names && cJSON_IsString(value)) add_path(&decides, value->valuestring);
        else if (names && cJSON_IsArray(value)) {
            const cJSON* item;
            text_printf(&decides, "%d\n", cJSON_GetArraySize(value));
            cJSON_ArrayForEach(item, value) add_path(&decides, item->valuestring);
        } else {
            char* plain = json_text(value);
            text_printf(&decides, "%s\n", plain);
            free(plain);
        }
    }
    sha256_hex(decides.s, decides.n, key);
    text_free(&decides);
    cJSON_Delete(options);
    free(text);
}

bool result_is_there(const char* out, const Hex key, const char* const* beside, bool resume, bool quiet) {
    Path path = key_of(out);
    size_t length;
    if (!resume || !file_exists(out) || journal_is_there(out)) return false;
    if (!file_exists(path.s))
        fatal("%s exists, but %s, which would say how it was made, does not; remove it to make it again", out, path.s);
    char* then = file_read(path.s, 4096, &length);
    if (strcmp(then, key))
        fatal("%s was made with other options, data or weights; remove it to make it again, or give another --out",
              out);
    free(then);
    for (; beside && *beside; beside++)
        if (!file_exists(*beside)) return false;
    if (!quiet) printf("%s exists already; nothing to do\n", out);
    return true;
}

void result_record(const char* out, const Hex key) { file_write(key_of(out).s, key, strlen(key)); }
