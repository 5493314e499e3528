/* Checkpoint files. See checkpoint.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "run/checkpoint.h"
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"

#define RANKS_MOST 4096
#define SMALL_FILE ((size_t)16 << 20)  // run.json, sums

static Path step_directory(const char* run, int64_t step) {
    return path_of(run, "checkpoint/step-%lld", (long long)step);
}

// ---------------------------------------------------------------------------------------------------
// writing

__attribute__((format(printf, 2, 3))) static bool failed(CheckpointWriter* w, const char* format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(w->error, sizeof w->error, format, args);
    va_end(args);
    if (w->fd >= 0) close(w->fd);
    w->fd = -1;
    if (*w->path) unlink(w->path);
    EVP_MD_CTX_free(w->sha);
    w->sha = NULL;
    return false;
}

static bool write_all(int fd, const char* data, size_t bytes) {
    while (bytes) {
        ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        data += n;
        bytes -= (size_t)n;
    }
    return true;
}

static bool sync_directory(const char* path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    bool good = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0) close(fd);
    return good;
}

// A small file that appears under its name when it is whole.
static bool put_file(CheckpointWriter* w, const char* name, const char* text) {
    Path path = path_of(w->directory, "%s", name);
    snprintf(w->path, sizeof w->path, "%s/.%s", w->directory, name);
    w->fd = open(w->path, O_CREAT | O_WRONLY | O_TRUNC, 0666);
    if (w->fd < 0 || !write_all(w->fd, text, strlen(text)) || fsync(w->fd))
        return failed(w, "%s cannot be written: %s", path.s, strerror(errno));
    close(w->fd);
    w->fd = -1;
    if (rename(w->path, path.s)) return failed(w, "%s cannot be renamed into place: %s", path.s, strerror(errno));
    *w->path = 0;
    return true;
}

static bool make_directory(CheckpointWriter* w, const char* path) {
    return mkdir(path, 0777) == 0 || errno == EEXIST ||
           failed(w, "%s: cannot make the directory: %s", path, strerror(errno));
}

static char* header_of(const CheckpointPart* parts, int n, size_t* length) {
    StTensor* tensors = calloc((size_t)n + 1, sizeof *tensors);
    char(*places)[64] = calloc((size_t)n + 1, sizeof *places),
    ** metadata = calloc(2 * (size_t)n + 1, sizeof *metadata), *header = NULL;
    if (tensors && places && metadata) {
        for (int i = 0; i < n; i++) {
            tensors[i].name = (char*)parts[i].name;
            tensors[i].dtype = ST_F32;
            tensors[i].n_dims = 1;
            tensors[i].shape[0] = parts[i].n;
            tensors[i].bytes = (size_t)parts[i].n * sizeof(float);
            snprintf(places[i], sizeof places[i], "%lld of %lld", (long long)parts[i].from, (long long)parts[i].count);
            metadata[2 * i] = (char*)parts[i].name;
            metadata[2 * i + 1] = places[i];
        }
        header = st_header(tensors, n, metadata, n, length);
    }
    free(tensors);
    free(places);
    free(metadata);
    return header;
}

bool checkpoint_create(CheckpointWriter* w, const char* run, int64_t step, int rank, const CheckpointPart* parts,
                       int n) {
    memset(w, 0, sizeof *w);
    w->fd = -1;
    w->rank = rank;
    snprintf(w->directory, sizeof w->directory, "%s", step_directory(run, step).s);
    if (!make_directory(w, path_of(run, "checkpoint").s) || !make_directory(w, w->directory)) return false;
    Path sums = path_of(w->directory, "rank-%d.sha256", rank);
    if (unlink(sums.s) && errno != ENOENT)
        return failed(w, "%s cannot be replaced: %s", sums.s, strerror(errno));  // what was there no longer counts
    snprintf(w->path, sizeof w->path, "%s/.rank-%d.safetensors", w->directory, rank);
    w->fd = open(w->path, O_CREAT | O_WRONLY | O_TRUNC, 0666);
    if (w->fd < 0) return failed(w, "%s cannot be written: %s", w->path, strerror(errno));
    w->sha = EVP_MD_CTX_new();
    size_t length;
    char* header = header_of(parts, n, &length);
    if (!w->sha || !EVP_DigestInit_ex(w->sha, EVP_sha256(), NULL) || !header)
        return free(header), failed(w, "%s: out of host memory for its header", w->path);
    bool good = checkpoint_write(w, header, length);
    free(header);
    return good;
}

bool checkpoint_write(CheckpointWriter* w, const void* data, size_t bytes) {
    if (!write_all(w->fd, data, bytes)) return failed(w, "%s cannot be written: %s", w->path, strerror(errno));
    return EVP_DigestUpdate(w->sha, data, bytes) || failed(w, "%s: SHA-256 failed", w->path);
}

bool checkpoint_commit(CheckpointWriter* w, const char* run_json) {
    char name[64], sums[512];
    Hex hex;
    unsigned char digest[32];
    Path path = path_of(w->directory, "rank-%d.safetensors", w->rank);
    if (fsync(w->fd)) return failed(w, "%s cannot be written: %s", path.s, strerror(errno));
    close(w->fd);
    w->fd = -1;
    if (rename(w->path, path.s)) return failed(w, "%s cannot be renamed into place: %s", path.s, strerror(errno));
    *w->path = 0;
    if (!EVP_DigestFinal_ex(w->sha, digest, NULL)) return failed(w, "%s: SHA-256 failed", path.s);
    EVP_MD_CTX_free(w->sha);
    w->sha = NULL;
    hex_of(digest, hex);
    int at = snprintf(sums, sizeof sums, "%s  rank-%d.safetensors\n", hex, w->rank);
    if (run_json) {
        if (!put_file(w, "run.json", run_json)) return false;
        if (!EVP_Digest(run_json, strlen(run_json), digest, NULL, EVP_sha256(), NULL))
            return failed(w, "%s: SHA-256 failed", path.s);
        hex_of(digest, hex);
        snprintf(sums + at, sizeof sums - (size_t)at, "%s  run.json\n", hex);
    }
    if (!sync_directory(w->directory))
        return failed(w, "%s cannot be synchronised: %s", w->directory,
                      strerror(errno));  // the files before their sums
    snprintf(name, sizeof name, "rank-%d.sha256", w->rank);
    if (!put_file(w, name, sums)) return false;
    path = path_of(w->directory, "..");
    return (sync_directory(w->directory) && sync_directory(path.s)) ||
           failed(w, "%s cannot be synchronised: %s", w->directory, strerror(errno));
}

// ---------------------------------------------------------------------------------------------------
// what is there

static int newest_first(const void* a, const void* b) {
    int64_t x = *(const int64_t*)a, y = *(const int64_t*)b;
    return (x < y) - (x > y);
}

// Steps of all folders step-N, the newest first; to be freed.
static int64_t* list_steps(const char* run, int* n) {
    DIR* directory = opendir(path_of(run, "checkpoint").s);
    int64_t* steps = NULL;
    *n = 0;
    for (struct dirent* entry; directory && (entry = readdir(directory));) {
        char* end;
        if (strncmp(entry->d_name, "step-", 5) || entry->d_name[5] < '0' || entry->d_name[5] > '9') continue;
        long long step = strtoll(entry->d_name + 5, &end, 10);
        if (*end) continue;
        int64_t* more = host_resize(steps, ((size_t)*n + 1) * sizeof *steps, "more");
        steps = more;
        steps[(*n)++] = step;
    }
    if (directory) closedir(directory);
    if (steps) qsort(steps, (size_t)*n, sizeof *steps, newest_first);
    return steps;
}

static FILE* open_file(const char* path) {
    size_t length;
    int fd = file_open(path, &length);
    return fd < 0 ? NULL : fdopen(fd, "rb");
}

// A small file's text, NULL where it cannot be read.
static char* small_text(const char* directory, const char* name) {
    Path path = path_of(directory, "%s", name);
    FILE* f = open_file(path.s);
    if (!f) return NULL;
    size_t capacity = 4096, n = 0;
    char* text = malloc(capacity);
    while (text && (n += fread(text + n, 1, capacity - 1 - n, f)) == capacity - 1 && capacity < SMALL_FILE) {
        char* more = realloc(text, capacity *= 2);
        if (!more) free(text);
        text = more;
    }
    fclose(f);
    if (text) text[n] = 0;
    return text;
}

static cJSON* run_json_of(const char* directory) {
    char* text = small_text(directory, "run.json");
    cJSON* json = text ? cJSON_Parse(text) : NULL;
    free(text);
    return json;
}

static int ranks_of(const cJSON* json) {
    const cJSON* ranks = cJSON_GetObjectItemCaseSensitive(json, "ranks");
    return cJSON_IsNumber(ranks) && ranks->valuedouble >= 1 && ranks->valuedouble <= RANKS_MOST ? ranks->valueint : 0;
}

// Every rank's sums are there: its writers were done.
static bool finished(const char* directory) {
    cJSON* json = run_json_of(directory);
    int ranks = ranks_of(json);
    cJSON_Delete(json);
    for (int r = 0; r < (ranks ? ranks : 1); r++) {
        Path path = path_of(directory, "rank-%d.sha256", r);
        if (!file_exists(path.s)) return false;
    }
    return true;
}

bool checkpoint_any(const char* run) {
    int n;
    int64_t* steps = list_steps(run, &n);
    bool any = false;
    for (int i = 0; i < n && !any; i++) {
        Path directory = step_directory(run, steps[i]);
        any = finished(directory.s);
    }
    free(steps);
    return any;
}

void checkpoint_fact(const char* run, const char* name, char* value, size_t room) {
    int n;
    int64_t* steps = list_steps(run, &n);  // the newest first
    for (int i = 0; i < n; i++) {
        Path directory = step_directory(run, steps[i]);
        if (!finished(directory.s)) continue;
        cJSON* json = run_json_of(directory.s);
        const cJSON* facts = cJSON_GetObjectItemCaseSensitive(json, "facts");
        const cJSON* fact = cJSON_GetObjectItemCaseSensitive(facts, name);
        if (cJSON_IsString(fact)) snprintf(value, room, "%s", fact->valuestring);
        cJSON_Delete(json);
        break;
    }
    free(steps);
}

static uint64_t visit_files(const char* directory, bool remove_them) {
    uint64_t bytes = 0;
    struct stat info;
    DIR* d = opendir(directory);
    for (struct dirent* entry; d && (entry = readdir(d));) {
        Path path = path_of(directory, "%s", entry->d_name);
        if (lstat(path.s, &info) || !S_ISREG(info.st_mode)) continue;
        bytes += (uint64_t)info.st_size;
        if (remove_them) unlink(path.s);
    }
    if (d) closedir(d);
    return bytes;
}

void checkpoint_prune(const char* run, int keep) {
    int n, kept = 0;
    int64_t* steps = list_steps(run, &n);
    for (int i = 0; i < n; i++) {
        Path directory = step_directory(run, steps[i]);
        bool whole = finished(directory.s);
        if (whole ? kept++ < keep : kept == 0) continue;
        Path sums = path_of(directory.s, "rank-0.sha256");
        unlink(sums.s);  // first, so that a removal cut short leaves nothing that counts
        visit_files(directory.s, true);
        rmdir(directory.s);
    }
    free(steps);
}

void checkpoint_discard(const char* run, int64_t step) {
    int n;
    int64_t* steps = list_steps(run, &n);
    for (int i = 0; i < n; i++) {
        if (steps[i] <= step) continue;
        Path directory = step_directory(run, steps[i]);
        Path sums = path_of(directory.s, "rank-0.sha256");
        // the disk may have been at fault: who knows better gives the name back
        Path aside = path_of(directory.s, "passed-over.sha256");
        rename(sums.s, aside.s);
    }
    free(steps);
}

uint64_t checkpoint_bytes_held(const char* run) {
    uint64_t bytes = 0;
    int n;
    int64_t* steps = list_steps(run, &n);
    for (int i = 0; i < n; i++) {
        Path directory = step_directory(run, steps[i]);
        bytes += visit_files(directory.s, false);
    }
    free(steps);
    return bytes;
}

uint64_t directory_free(const char* path) {
    struct statvfs info;
    if (statvfs(path, &info)) fatal("%s: %s", path, strerror(errno));
    return (uint64_t)info.f_bavail * info.f_frsize;
}

// ---------------------------------------------------------------------------------------------------
// reading

static bool file_digest(const char* path, Hex hex) {
    unsigned char digest[32];
    size_t size = (size_t)1 << 20, n;
    FILE* f = open_file(path);
    EVP_MD_CTX* sha = EVP_MD_CTX_new();
    char* block = malloc(size);
    bool good = f && sha && block && EVP_DigestInit_ex(sha, EVP_sha256(), NULL);
    while (good && (n = fread(block, 1, size, f)) > 0) good = EVP_DigestUpdate(sha, block, n);
    good = good && !ferror(f) && EVP_DigestFinal_ex(sha, digest, NULL);
    if (good) hex_of(digest, hex);
    if (f) fclose(f);
    EVP_MD_CTX_free(sha);
    free(block);
    return good;
}

// The sums of one rank against its files.
static bool rank_whole(const char* directory, int rank, char* why, size_t size) {
    char name[64], file[64];
    Hex hex, said;
    snprintf(name, sizeof name, "rank-%d.sha256", rank);
    char* sums = small_text(directory, name);
    int lines = 0;
    bool good = sums != NULL;
    if (!good) snprintf(why, size, "%s is missing", name);
    for (char* line = sums; good && *line;
         line = strchr(line, '\n') ? strchr(line, '\n') + 1 : line + strlen(line), lines++) {
        int end = 0;
        good = sscanf(line, "%64[0-9a-f]  %63[a-z0-9.-]%n", said, file, &end) == 2 && line[end] == '\n';
        if (!good) {
            snprintf(why, size, "%s is damaged", name);
            break;
        }
        Path path = path_of(directory, "%s", file);
        if (!file_digest(path.s, hex)) {
            snprintf(why, size, "%s cannot be read", file);
            good = false;
        } else if (strcmp(hex, said)) {
            snprintf(why, size, "%s is damaged: its SHA-256 is not that of %s", file, name);
            good = false;
        }
    }
    if (good && lines != (rank ? 1 : 2)) {
        snprintf(why, size, "%s is damaged", name);
        good = false;
    }
    free(sums);
    return good;
}

static bool whole(const char* directory, char* why, size_t size) {
    if (!finished(directory)) {
        snprintf(why, size, "it was never finished");
        return false;
    }
    if (!rank_whole(directory, 0, why, size)) return false;
    cJSON* json = run_json_of(directory);
    int ranks = ranks_of(json);
    cJSON_Delete(json);
    if (!ranks) {
        snprintf(why, size, "run.json does not say how many ranks wrote it");
        return false;
    }
    for (int r = 1; r < ranks; r++)
        if (!rank_whole(directory, r, why, size)) return false;
    return true;
}

bool checkpoint_open(Checkpoint* c, const char* run, int64_t step) {
    char why[512];
    int n;
    int64_t* steps = list_steps(run, &n);
    memset(c, 0, sizeof *c);
    for (int i = 0; i < n && !c->files; i++) {
        snprintf(c->path, sizeof c->path, "%s", step_directory(run, steps[i]).s);
        if (step >= 0 && steps[i] != step) continue;
        if (step < 0 && !whole(c->path, why, sizeof why)) {
            warning("%s is skipped: %s", c->path, why);
            continue;
        }
        c->step = steps[i];
        c->json = run_json_of(c->path);
        c->ranks = ranks_of(c->json);
        c->files = host_alloc((size_t)c->ranks * sizeof *c->files, "the list of files");
        for (int r = 0; r < c->ranks; r++) {
            Path path = path_of(c->path, "rank-%d.safetensors", r);
            st_open(&c->files[r], path.s);
        }
    }
    free(steps);
    return c->files != NULL;
}

void checkpoint_close(Checkpoint* c) {
    for (int r = 0; r < c->ranks; r++) st_close(&c->files[r]);
    free(c->files);
    cJSON_Delete(c->json);
    memset(c, 0, sizeof *c);
}

void checkpoint_read(const Checkpoint* c, const char* name, int64_t count, int64_t from, int64_t n, float* out) {
    int64_t found = 0;
    for (int r = 0; r < c->ranks; r++) {
        const StTensor* t = st_find(&c->files[r], name);
        if (!t) continue;
        const char* place = st_metadata(&c->files[r], name);
        long long at = -1, of = -1;
        if (!place || sscanf(place, "%lld of %lld", &at, &of) != 2 || at < 0 || t->dtype != ST_F32 || of < t->count ||
            at > of - t->count)
            fatal("%s/rank-%d.safetensors: %s does not say which elements it holds", c->path, r, name);
        if (of != count) fatal("%s: %s has %lld elements but this run needs %lld", c->path, name, of, (long long)count);
        int64_t low = at > from ? at : from, high = at + t->count < from + n ? at + t->count : from + n;
        if (low >= high) continue;
        memcpy(out + (low - from), t->data + (size_t)(low - at) * sizeof(float), (size_t)(high - low) * sizeof(float));
        found += high - low;
    }
    if (found != n) fatal("%s holds only %lld of %lld elements of %s", c->path, (long long)found, (long long)n, name);
}

double checkpoint_number(const Checkpoint* c, const char* key) {
    const cJSON* item = cJSON_GetObjectItemCaseSensitive(c->json, key);
    if (cJSON_IsNull(item)) return NAN;
    if (!cJSON_IsNumber(item)) fatal("%s/run.json: %s is missing", c->path, key);
    return item->valuedouble;
}
int64_t checkpoint_integer(const Checkpoint* c, const char* key) {
    double x = checkpoint_number(c, key);
    if (!(x >= 0 && x <= 9007199254740992.0) || x != floor(x))
        fatal("%s/run.json: %s is not a whole number", c->path, key);
    return (int64_t)x;
}

// ---------------------------------------------------------------------------------------------------

static int by_name(const void* a, const void* b) { return strcmp(*(char* const*)a, *(char* const*)b); }

void model_directory_digest(const char* directory, Hex hex) {
    char** names = NULL;
    unsigned char digest[32];
    int n = 0;
    DIR* d = opendir(directory);
    if (!d) fatal("%s: %s", directory, strerror(errno));
    for (struct dirent* entry; (entry = readdir(d));) {
        size_t length = strlen(entry->d_name);
        if (strcmp(entry->d_name, "config.json") &&
            (length < 12 || strcmp(entry->d_name + length - 12, ".safetensors")))
            continue;
        names = host_resize(names, ((size_t)n + 1) * sizeof *names, "names of files");
        names[n++] = host_copy(entry->d_name, length);
    }
    closedir(d);
    if (n) qsort(names, (size_t)n, sizeof *names, by_name);
    EVP_MD_CTX* sha = EVP_MD_CTX_new();
    bool good = sha && EVP_DigestInit_ex(sha, EVP_sha256(), NULL);
    for (int i = 0; i < n && good; i++) {
        MappedFile file;
        Path path = path_of(directory, "%s", names[i]);
        file_map(&file, path.s);
        size_t end = file.length < (size_t)1 << 20 ? file.length : (size_t)1 << 20;
        good = EVP_DigestUpdate(sha, names[i], strlen(names[i]) + 1) &&
               EVP_DigestUpdate(sha, &file.length, sizeof file.length) &&
               (!end ||
                (EVP_DigestUpdate(sha, file.data, end) && EVP_DigestUpdate(sha, file.data + file.length - end, end)));
        file_unmap(&file);
        free(names[i]);
    }
    if (!good || !EVP_DigestFinal_ex(sha, digest, NULL)) program_error("SHA-256 failed");
    EVP_MD_CTX_free(sha);
    free(names);
    hex_of(digest, hex);
}
