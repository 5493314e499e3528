/* What a command has worked out before its result is whole. See journal.h. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/text.h"
#include "base/file.h"
#include "run/journal.h"

static Path journal_of(const char* out) { return path_text("%s.partial", out); }

bool journal_is_there(const char* out) { return file_exists(journal_of(out).s); }

// Returns the bytes that are whole lines.
static size_t take_items(const Journal* j, JournalTake take, void* context) {
    size_t length, at = 0;
    char* text = file_read(j->path, (size_t)1 << 32, &length);
    for (bool first = true; at < length; first = false) {
        const char* end = memchr(text + at, '\n', length - at);
        if (!end) break;  // the run was stopped while it wrote this line
        cJSON* line = cJSON_ParseWithLength(text + at, (size_t)(end - text) - at);
        if (first) {
            const char* its = cJSON_GetStringValue(cJSON_GetObjectItem(line, "key"));
            if (!its || strcmp(its, j->key))
                fatal("%s: belongs to a run with other options, data or weights; remove it to start again", j->path);
        } else if (!take(context, line))
            fatal("%s has a line that does not belong to this run; remove it to start again", j->path);
        cJSON_Delete(line);
        at = (size_t)(end - text) + 1;
    }
    free(text);
    return at;
}

void journal_open(Journal* j, const char* out, const Text* decides, bool resume, JournalTake take, void* context) {
    path_copy(j->path, journal_of(out).s);
    sha256_hex(decides->s, decides->n, j->key);
    if (!file_exists(j->path)) return;
    if (!resume)
        fatal("%s holds a run that can be resumed; give --resume, or remove that file to start again", j->path);
    j->whole = take_items(j, take, context);
}

static void failed(const Journal* j) { fatal("%s cannot be written: %s", j->path, strerror(errno)); }

void journal_add(Journal* j, cJSON* item) {
    if (!j->file) {
        j->file = fopen(j->path, "a");
        if (!j->file || ftruncate(fileno(j->file), (off_t)j->whole)) failed(j);
        if (!j->whole && fprintf(j->file, "{\"key\":\"%s\"}\n", j->key) < 0) failed(j);
    }
    char* text = json_text(item);
    if (fprintf(j->file, "%s\n", text) < 0) failed(j);
    cJSON_free(text);
    cJSON_Delete(item);
}

void journal_flush(Journal* j) {
    if (j->file && fflush(j->file)) failed(j);
}

void journal_close(Journal* j) {
    if (j->file) fclose(j->file);
    if (*j->path) unlink(j->path);
    memset(j, 0, sizeof *j);
}

static void add_file(Text* decides, const char* directory, const char* name) {
    Path path = path_of(directory, "%s", name);
    struct stat info;
    if (stat(path.s, &info)) return;
    text_printf(decides, "%s %lld %lld.%ld\n", path.s, (long long)info.st_size, (long long)info.st_mtim.tv_sec,
                info.st_mtim.tv_nsec);
}

static int has_weights(const struct dirent* entry) {
    const char* end = strrchr(entry->d_name, '.');
    return end && !strcmp(end, ".safetensors");
}

void journal_add_model(Text* decides, const char* directory) {
    static const char* const names[] = {"config.json",    "generation_config.json", "model.safetensors.index.json",
                                        "tokenizer.json", "tokenizer.model",        "adapter_config.json"};
    struct dirent** weights = NULL;
    if (!directory) return;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) add_file(decides, directory, names[i]);
    int n = scandir(directory, &weights, has_weights, alphasort);  // one file, or shards
    for (int i = 0; i < n; i++) {
        add_file(decides, directory, weights[i]->d_name);
        free(weights[i]);
    }
    free(weights);
}
