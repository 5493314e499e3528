/* Files. See file.h. A temporary file that is still open when the program ends by an error is removed: nothing
 * half-written is left. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"

int file_open(const char* path, size_t* length) {
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);  // NONBLOCK: a pipe would be waited for
    struct stat info;
    if (fd < 0) return FILE_MISSING;
    bool known = !fstat(fd, &info), regular = known && S_ISREG(info.st_mode);
    if (regular) *length = (size_t)info.st_size;
    else close(fd);
    return regular ? fd : known ? FILE_IRREGULAR : FILE_MISSING;
}

static int open_regular(const char* path, size_t* length) {
    int fd = file_open(path, length);
    if (fd == FILE_IRREGULAR) fatal("%s: not a regular file", path);
    if (fd < 0) fatal("%s: %s", path, strerror(errno));
    return fd;
}

bool is_lfs_pointer(const void* data, size_t length) {
    static const char begin[] = "version https://git-lfs.github.com/spec/";
    return length >= sizeof begin - 1 && length < 1024 && !memcmp(data, begin, sizeof begin - 1);
}

static void refuse_pointer(const char* path, const void* data, size_t length) {
    if (is_lfs_pointer(data, length))
        fatal("%s: a Git LFS pointer, not the file itself: run git lfs pull in its repository", path);
}

void refuse_lfs_pointer(const char* path) {
    char text[1024];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text);
    if (fd >= 0) close(fd);
    refuse_pointer(path, text, length < 0 ? 0 : (size_t)length);
}

char* file_read(const char* path, size_t most, size_t* length) {
    size_t size;
    FILE* f = fdopen(open_regular(path, &size), "rb");
    if (!f) fatal("%s: %s", path, strerror(errno));
    if (size > most) fatal("%s: %zu bytes; at most %zu are expected of such a file", path, size, most);
    char* text = host_alloc(size + 1, "a file");
    *length = fread(text, 1, size, f);
    if (ferror(f)) fatal("%s: %s", path, strerror(errno));
    fclose(f);
    text[*length] = 0;
    refuse_pointer(path, text, *length);
    return text;
}

bool file_exists(const char* path) { return access(path, F_OK) == 0; }
const char* beside_program(const char* path) {
    static char text[2 * PATH_ROOM];
    ssize_t n = readlink("/proc/self/exe", text, PATH_ROOM - 1);
    for (; n > 0; n--)  // build/cpu-fp32 and its parents
        if (text[n - 1] == '/') {
            snprintf(text + n, PATH_ROOM, "%s", path);
            if (file_exists(text)) return text;
        }
    return path;
}

void directory_make(const char* path) {
    char part[PATH_ROOM];
    path_copy(part, path);
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
    directory_make(path);
    Path probe = path_of(path, ".probe.%d", (int)getpid());
    int fd = open(probe.s, O_CREAT | O_WRONLY | O_TRUNC, 0666);
    char block[65536] = {0};
    bool good = fd >= 0 && write(fd, block, sizeof block) == (ssize_t)sizeof block && fsync(fd) == 0;
    int error = errno;
    if (fd >= 0) close(fd);
    unlink(probe.s);
    if (!good) fatal("%s: cannot write results there: %s", path, strerror(error));
}

void output_is_not(const char* path, const char* input) {
    struct stat out, in;
    if (input && !stat(path, &out) && !stat(input, &in) && out.st_dev == in.st_dev && out.st_ino == in.st_ino)
        fatal("%s is %s, which this command reads; it would be overwritten", path, input);
}

bool same_place(const char* a, const char* b) {
    const char* const paths[2] = {a, b};
    char copy[2][PATH_ROOM], names[2][PATH_ROOM];
    struct stat info[2];
    for (int i = 0; i < 2; i++) {
        path_copy(copy[i], paths[i]);
        path_copy(names[i], basename(copy[i]));
        path_copy(copy[i], paths[i]);
        if (stat(dirname(copy[i]), &info[i])) return false;
    }
    return info[0].st_dev == info[1].st_dev && info[0].st_ino == info[1].st_ino && !strcmp(names[0], names[1]);
}

// What is mapped, for the signal that comes when a mapped file was made shorter and a page of it is gone.
#define MAPS_MOST 256
static struct {
    const uint8_t* volatile data;
    size_t length;
    char path[PATH_ROOM];
} maps[MAPS_MOST];
static pthread_mutex_t maps_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction other_bus_errors;
static void remove_temporaries(void);

static void on_bus_error(int number, siginfo_t* info, void* context) {
    (void)context;
    const uint8_t* at = info->si_addr;
    for (int i = 0; i < MAPS_MOST; i++) {
        if (!maps[i].data || at < maps[i].data || at >= maps[i].data + maps[i].length) continue;
        const char* const words[] = {program_name, ": ", maps[i].path,
                                     ": became shorter, or its disk failed, while it was read\n"};
        for (int w = 0; w < 4; w++)
            if (write(STDERR_FILENO, words[w], strlen(words[w])) < 0) {}
        remove_temporaries();
        _exit(2);
    }
    sigaction(number, &other_bus_errors, NULL);  // none of ours: comes again
}

static void remember_map(const MappedFile* map) {
    static bool handles;
    pthread_mutex_lock(&maps_lock);
    if (!handles) {
        struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
        handles = sigaction(SIGBUS, &action, &other_bus_errors) == 0;
    }
    for (int i = 0; i < MAPS_MOST; i++) {
        if (maps[i].data && maps[i].data != map->data) continue;
        maps[i].length = map->length;
        path_copy(maps[i].path, map->path);
        maps[i].data = map->data;
        break;
    }
    pthread_mutex_unlock(&maps_lock);
}
static void forget_map(const MappedFile* map) {
    pthread_mutex_lock(&maps_lock);
    for (int i = 0; i < MAPS_MOST; i++)
        if (maps[i].data == map->data) maps[i].data = NULL;
    pthread_mutex_unlock(&maps_lock);
}

void file_map(MappedFile* map, const char* path) {
    memset(map, 0, sizeof *map);
    path_copy(map->path, path);
    int fd = open_regular(path, &map->length);
    if (map->length) {
        void* data = mmap(NULL, map->length, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) fatal("%s cannot be mapped: %s", path, strerror(errno));
        map->data = data;
        remember_map(map);
    }
    close(fd);
    refuse_pointer(path, map->data, map->length);
}

void file_unmap(MappedFile* map) {
    if (map->data) {
        forget_map(map);
        munmap((void*)map->data, map->length);
    }
    memset(map, 0, sizeof *map);
}

// ---------------------------------------------------------------------------------------------------
// atomic files

#define TEMPORARY ".seal.tmp."  // and the process's number
#define OPEN_MAX_FILES 16
static char open_temporaries[OPEN_MAX_FILES][PATH_ROOM];

static void remove_temporaries(void) {
    for (int i = 0; i < OPEN_MAX_FILES; i++)
        if (*open_temporaries[i]) unlink(open_temporaries[i]);
}
static void remember(const char* path) {
    static bool registered;
    if (!registered) registered = atexit(remove_temporaries) == 0;
    for (int i = 0; i < OPEN_MAX_FILES; i++)
        if (!*open_temporaries[i]) {
            path_copy(open_temporaries[i], path);
            return;
        }
}
static void forget(const char* path) {
    for (int i = 0; i < OPEN_MAX_FILES; i++)
        if (!strcmp(open_temporaries[i], path)) *open_temporaries[i] = 0;
}

void atomic_open(AtomicFile* f, const char* path) {
    memset(f, 0, sizeof *f);
    path_copy(f->path, path);
    path_copy(f->temporary, path_text("%s" TEMPORARY "%d", path, (int)getpid()).s);
    f->stream = fopen(f->temporary, "wb");
    if (!f->stream) fatal("%s cannot be written: %s", path, strerror(errno));
    remember(f->temporary);
}
void atomic_write(AtomicFile* f, const void* data, size_t bytes) {
    if (bytes && fwrite(data, 1, bytes, f->stream) != bytes)
        fatal("%s cannot be written: %s", f->path, strerror(errno));
}
void atomic_printf(AtomicFile* f, const char* format, ...) {
    va_list args;
    va_start(args, format);
    int n = vfprintf(f->stream, format, args);
    va_end(args);
    if (n < 0) fatal("%s cannot be written: %s", f->path, strerror(errno));
}
void atomic_commit(AtomicFile* f) {
    if (fflush(f->stream) || fsync(fileno(f->stream)) || fclose(f->stream))
        fatal("%s cannot be written: %s", f->path, strerror(errno));
    if (rename(f->temporary, f->path)) fatal("%s cannot be renamed into place: %s", f->path, strerror(errno));
    forget(f->temporary);
    char copy[PATH_ROOM];
    path_copy(copy, f->path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY);  // the rename itself must reach the disk
    if (fd >= 0 && fsync(fd) && errno != EINVAL && errno != EROFS)
        fatal("%s cannot be written to the disk: %s", f->path,
              strerror(errno));  // EINVAL, EROFS: a file system that does not sync folders
    if (fd >= 0) close(fd);
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
    if (!stat(path, &info) && S_ISDIR(info.st_mode)) fatal("%s is a directory; expected the name of a file", path);
    atomic_open(&f, path);
    atomic_write(&f, block, sizeof block);
    if (fflush(f.stream) || fsync(fileno(f.stream))) fatal("%s cannot be written: %s", path, strerror(errno));
    atomic_abandon(&f);
}
void directory_clean(const char* path) {
    DIR* d = opendir(path);
    for (struct dirent* entry; d && (entry = readdir(d));) {
        const char* end = strstr(entry->d_name, TEMPORARY);
        char* rest;
        if (!end) continue;
        long process = strtol(end + strlen(TEMPORARY), &rest, 10);
        if (*rest || process < 1 || process > INT32_MAX ||
            (process != getpid() && (kill((pid_t)process, 0) == 0 || errno != ESRCH)))
            continue;  // its maker may be at work
        unlink(path_of(path, "%s", entry->d_name).s);
    }
    if (d) closedir(d);
}
void file_write(const char* path, const void* data, size_t bytes) {
    AtomicFile f;
    atomic_open(&f, path);
    atomic_write(&f, data, bytes);
    atomic_commit(&f);
}

// ---------------------------------------------------------------------------------------------------
// digests

void file_copy(const char* from, const char* to_directory, const char* name) {
    size_t length;
    char* text = file_read(from, 1u << 30, &length);
    file_write(path_of(to_directory, "%s", name).s, text, length);
    free(text);
}

void sha256_hex(const void* data, size_t bytes, Hex hex) {
    unsigned char digest[32];
    unsigned length = sizeof digest;
    if (!EVP_Digest(data, bytes, digest, &length, EVP_sha256(), NULL)) program_error("SHA-256 failed");
    hex_of(digest, hex);
}
void file_sha256_hex(const char* path, Hex hex) {
    MappedFile map;
    file_map(&map, path);
    sha256_hex(map.data ? (const void*)map.data : "", map.length, hex);
    file_unmap(&map);
}
