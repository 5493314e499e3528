/* Files. See file.h. A temporary file that is still open when the program ends by an error is removed: nothing half-written stays behind. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "error.h"
#include "file.h"

char* file_read(const char* path, size_t most, size_t* length) {
    FILE* f = fopen(path, "rb");
    struct stat info;
    if (!f || fstat(fileno(f), &info)) fatal("%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) fatal("%s: not a regular file", path);
    if ((size_t)info.st_size > most) fatal("%s: %lld bytes, more than the %zu expected of such a file", path, (long long)info.st_size, most);
    char* text = malloc((size_t)info.st_size + 1);
    if (!text) fatal("%s: out of memory for %lld bytes", path, (long long)info.st_size);
    *length = fread(text, 1, (size_t)info.st_size, f);
    if (ferror(f)) fatal("%s: %s", path, strerror(errno));
    fclose(f);
    text[*length] = 0;
    return text;
}

bool file_exists(const char* path) { return access(path, F_OK) == 0; }
const char* beside_program(const char* path) {
    static char text[8192];
    ssize_t n = readlink("/proc/self/exe", text, 4095);
    for (; n > 0; n--)  // build/cpu-fp32 and its parents
        if (text[n - 1] == '/') {
            snprintf(text + n, 4096, "%s", path);
            if (file_exists(text)) return text;
        }
    return path;
}

void directory_make(const char* path) {
    char part[4096];
    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part) fatal("%.80s…: the path is too long", path);
    for (char* p = part + 1;; p++) {
        if (*p && *p != '/') continue;
        char end = *p;
        *p = 0;
        if (mkdir(part, 0777) && errno != EEXIST) fatal("%s: cannot make the directory: %s", part, strerror(errno));
        *p = end;
        if (!end) break;
    }
    struct stat info;
    if (stat(path, &info) || !S_ISDIR(info.st_mode)) fatal("%s: not a directory", path);
}

void directory_probe(const char* path) {
    char probe[4200];
    directory_make(path);
    snprintf(probe, sizeof probe, "%s/.probe.%d", path, (int)getpid());
    int fd = open(probe, O_CREAT | O_WRONLY | O_TRUNC, 0666);
    char block[65536] = {0};
    bool good = fd >= 0 && write(fd, block, sizeof block) == (ssize_t)sizeof block && fsync(fd) == 0;
    int error = errno;
    if (fd >= 0) close(fd);
    unlink(probe);
    if (!good) fatal("%s: results cannot be written there: %s", path, strerror(error));
}

void output_is_not(const char* path, const char* input) {
    struct stat out, in;
    if (input && !stat(path, &out) && !stat(input, &in) && out.st_dev == in.st_dev && out.st_ino == in.st_ino)
        fatal("%s: is %s, which is read; it would be overwritten", path, input);
}

void file_map(MappedFile* map, const char* path) {
    memset(map, 0, sizeof *map);
    snprintf(map->path, sizeof map->path, "%s", path);
    int fd = open(path, O_RDONLY);
    struct stat info;
    if (fd < 0 || fstat(fd, &info)) fatal("%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) fatal("%s: not a regular file", path);
    map->length = (size_t)info.st_size;
    if (map->length) {
        void* data = mmap(NULL, map->length, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) fatal("%s: cannot be mapped: %s", path, strerror(errno));
        map->data = data;
    }
    close(fd);
}

void file_unmap(MappedFile* map) {
    if (map->data) munmap((void*)map->data, map->length);
    memset(map, 0, sizeof *map);
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// atomic files

#define OPEN_MAX_FILES 16
static char open_temporaries[OPEN_MAX_FILES][4200];

static void remove_temporaries(void) {
    for (int i = 0; i < OPEN_MAX_FILES; i++)
        if (*open_temporaries[i]) unlink(open_temporaries[i]);
}
static void remember(const char* path) {
    static bool registered;
    if (!registered) registered = atexit(remove_temporaries) == 0;
    for (int i = 0; i < OPEN_MAX_FILES; i++)
        if (!*open_temporaries[i]) { snprintf(open_temporaries[i], sizeof open_temporaries[i], "%s", path); return; }
}
static void forget(const char* path) {
    for (int i = 0; i < OPEN_MAX_FILES; i++)
        if (!strcmp(open_temporaries[i], path)) *open_temporaries[i] = 0;
}

void atomic_open(AtomicFile* f, const char* path) {
    memset(f, 0, sizeof *f);
    if (snprintf(f->path, sizeof f->path, "%s", path) >= (int)sizeof f->path) fatal("%.80s…: the path is too long", path);
    snprintf(f->temporary, sizeof f->temporary, "%s.tmp.%d", path, (int)getpid());
    f->stream = fopen(f->temporary, "wb");
    if (!f->stream) fatal("%s: cannot be written: %s", path, strerror(errno));
    remember(f->temporary);
}
void atomic_write(AtomicFile* f, const void* data, size_t bytes) {
    if (bytes && fwrite(data, 1, bytes, f->stream) != bytes) fatal("%s: cannot be written: %s", f->path, strerror(errno));
}
void atomic_printf(AtomicFile* f, const char* format, ...) {
    va_list args;
    va_start(args, format);
    int n = vfprintf(f->stream, format, args);
    va_end(args);
    if (n < 0) fatal("%s: cannot be written: %s", f->path, strerror(errno));
}
void atomic_commit(AtomicFile* f) {
    if (fflush(f->stream) || fsync(fileno(f->stream)) || fclose(f->stream)) fatal("%s: cannot be written: %s", f->path, strerror(errno));
    if (rename(f->temporary, f->path)) fatal("%s: cannot be put in place: %s", f->path, strerror(errno));
    forget(f->temporary);
    char copy[4096];
    snprintf(copy, sizeof copy, "%s", f->path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY);  // the rename itself must reach the disk
    if (fd >= 0) { fsync(fd); close(fd); }
    f->stream = NULL;
}
void atomic_abandon(AtomicFile* f) {
    if (!f->stream) return;
    fclose(f->stream);
    unlink(f->temporary);
    forget(f->temporary);
    f->stream = NULL;
}
void output_probe(const char* path) {
    AtomicFile f;
    struct stat info;
    char block[65536] = {0};
    if (!stat(path, &info) && S_ISDIR(info.st_mode)) fatal("%s: is a directory, want the name of a file", path);
    atomic_open(&f, path);
    atomic_write(&f, block, sizeof block);
    if (fflush(f.stream) || fsync(fileno(f.stream))) fatal("%s: cannot be written: %s", path, strerror(errno));
    atomic_abandon(&f);
}
void directory_clean(const char* path) {
    char name[4600];
    DIR* d = opendir(path);
    for (struct dirent* entry; d && (entry = readdir(d));) {
        const char* end = strstr(entry->d_name, ".tmp.");
        if (!end || !end[5] || end[5 + strspn(end + 5, "0123456789")]) continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        unlink(name);
    }
    if (d) closedir(d);
}
void file_write(const char* path, const void* data, size_t bytes) {
    AtomicFile f;
    atomic_open(&f, path);
    atomic_write(&f, data, bytes);
    atomic_commit(&f);
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// digests

void file_copy(const char* from, const char* to_directory, const char* name) {
    char path[8400];
    size_t length;
    char* text = file_read(from, 1u << 30, &length);
    snprintf(path, sizeof path, "%s/%s", to_directory, name);
    file_write(path, text, length);
    free(text);
}

void sha256_hex(const void* data, size_t bytes, char hex[65]) {
    unsigned char digest[32];
    unsigned length = sizeof digest;
    if (!EVP_Digest(data, bytes, digest, &length, EVP_sha256(), NULL)) program_error("SHA-256 failed");
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}
void file_sha256_hex(const char* path, char hex[65]) {
    MappedFile map;
    file_map(&map, path);
    sha256_hex(map.data ? (const void*)map.data : "", map.length, hex);
    file_unmap(&map);
}
