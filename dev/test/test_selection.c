/*
Selection without a device: PyTorch selectors (published ones where ../shared is there, small ones built here in every variant and damaged at every byte),
selector files and their refusals, the top share, rows written byte for byte, the explanation.
*/
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>
#include "check.h"
#include "dataset.h"
#include "error.h"
#include "file.h"
#include "pt_reader.h"

static char directory[64];
CHECK_UNUSED static const char* in_directory(const char* name) {
    static char path[4][256];
    static int at;
    char* p = path[at++ % 4];
    snprintf(p, 256, "%s/%s", directory, name);
    return p;
}

// Runs body(context) in a child; true where it ended with status 2 and wrote one line that holds `expected`.
CHECK_UNUSED static int refuses(void (*body)(const void*), const void* context, const char* expected) {
    int pipes[2], status;
    char text[2048] = "";
    if (pipe(pipes)) return 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(pipes[1], 2);
        close(pipes[0]);
        body(context);
        _exit(0);
    }
    close(pipes[1]);
    size_t n = 0;
    ssize_t got;
    while (n + 1 < sizeof text && (got = read(pipes[0], text + n, sizeof text - 1 - n)) > 0) n += (size_t)got;
    text[n] = 0;
    close(pipes[0]);
    waitpid(child, &status, 0);
    char* newline = strchr(text, '\n');
    int good = WIFEXITED(status) && WEXITSTATUS(status) == 2 && strstr(text, expected) && newline && !newline[1];
    if (!good) printf("# status %x, said: %s\n", status, text);
    return good;
}

// ---------------------------------------------------------------------------------------------------------------------------------------
// a zip archive as torch.save writes it

static void add_little(Text* t, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) text_add(t, &(unsigned char){(unsigned char)(i < 8 ? value >> 8 * i : 0)}, 1);
}

typedef struct { const char* name; const void* data; size_t n; } Part;

static Text zip(const Part* parts, int n_parts, bool deflated) {
    Text out = {0}, directory_part = {0};
    for (int i = 0; i < n_parts; i++) {
        unsigned char packed[4096];
        size_t length = strlen(parts[i].name), n = parts[i].n;
        const void* bytes = parts[i].data;
        if (deflated) {
            z_stream z = {.next_in = (Bytef*)parts[i].data, .avail_in = (uInt)n, .next_out = packed, .avail_out = sizeof packed};
            deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
            deflate(&z, Z_FINISH);
            n = z.total_out;
            bytes = packed;
            deflateEnd(&z);
        }
        uint64_t crc = crc32(0, parts[i].data, (uInt)parts[i].n), local = out.n;
        for (int central = 0; central < 2; central++) {  // a local header without sizes, as behind a stream; the directory has them
            Text* t = central ? &directory_part : &out;
            add_little(t, central ? 0x02014b50 : 0x04034b50, 4);
            if (central) add_little(t, 0, 2);
            add_little(t, 0, 2);
            add_little(t, 0x0808, 2);
            add_little(t, deflated ? 8 : 0, 2);
            add_little(t, 0, 4);
            add_little(t, central ? crc : 0, 4);
            add_little(t, central ? n : 0, 4);
            add_little(t, central ? parts[i].n : 0, 4);
            add_little(t, length, 2);
            add_little(t, 0, central ? 12 : 2);
            if (central) add_little(t, local, 4);
            text_add(t, parts[i].name, length);
            if (!central) text_add(t, bytes, n);
        }
    }
    uint64_t at = out.n;
    text_add(&out, directory_part.s, directory_part.n);
    add_little(&out, 0x06054b50, 4);
    add_little(&out, 0, 4);
    add_little(&out, (uint64_t)n_parts, 2);
    add_little(&out, (uint64_t)n_parts, 2);
    add_little(&out, directory_part.n, 4);
    add_little(&out, at, 4);
    add_little(&out, 0, 2);
    text_free(&directory_part);
    return out;
}

// A literal with zeros in it.
#define ADD(text, literal) text_add(text, literal, sizeof literal - 1)

// data.pkl of a vector (parameter or bare tensor) of `n` elements from element `offset` of storage "0" of `stored`.
static Text pickle(bool parameter, const char* storage, int stored, int offset, int n, int stride) {
    Text p = {0};
    ADD(&p, "\x80\x02");
    if (parameter) ADD(&p, "ctorch._utils\n_rebuild_parameter\nq\0");
    ADD(&p, "ctorch._utils\n_rebuild_tensor_v2\nq\1((X\7\0\0\0storageq\2");
    char name[64];
    text_add(&p, name, (size_t)snprintf(name, sizeof name, "ctorch\n%s\n", storage));
    ADD(&p, "q\3X\1\0\0\0" "0q\4X\3\0\0\0" "cpuq\5J");
    add_little(&p, (uint32_t)stored, 4);
    ADD(&p, "tq\6QK");
    add_little(&p, (uint64_t)offset, 1);
    ADD(&p, "J");
    add_little(&p, (uint32_t)n, 4);
    ADD(&p, "\x85q\7K");
    add_little(&p, (uint64_t)stride, 1);
    ADD(&p, "\x85q\10\x89" "ccollections\nOrderedDict\nq\11)Rq\12tq\13R");
    if (parameter) ADD(&p, "q\14\x88h\11)Rq\15\x87q\16Rq\17");
    ADD(&p, ".");
    return p;
}

static Text archive(Text data, const float* values, size_t n, bool deflated) {
    const Part parts[] = {{"top/data.pkl", data.s, data.n}, {"top/byteorder", "little", 6}, {"top/data/0", values, n * sizeof(float)}, {"top/version", "3\n", 2}};
    Text out = zip(parts, 4, deflated);
    text_free(&data);
    return out;
}

static int reads(Text file, const float* want, int64_t n_want, const char* why_want) {
    char why[256];
    int64_t n = -1;
    float* got = pt_parse((const uint8_t*)file.s, file.n, &n, why, sizeof why);
    int good = want ? got && n == n_want && !memcmp(got, want, (size_t)n * sizeof(float)) : !got && strstr(why, why_want);
    if (!good) printf("# n %lld, %s\n", (long long)n, why);
    free(got);
    text_free(&file);
    return good;
}

static void test_pt(void) {
    const float values[8] = {0.5f, -1, 3, 26.29f, 0, 1e-30f, 7, -2};
    check(reads(archive(pickle(true, "FloatStorage", 8, 0, 8, 1), values, 8, false), values, 8, NULL), ".pt: a Parameter, stored");
    check(reads(archive(pickle(true, "FloatStorage", 8, 0, 8, 1), values, 8, true), values, 8, NULL), ".pt: a Parameter, deflated");
    check(reads(archive(pickle(false, "FloatStorage", 8, 2, 5, 1), values, 8, false), values + 2, 5, NULL), ".pt: a tensor that is a view");
    check(reads(archive(pickle(true, "HalfStorage", 8, 0, 8, 1), values, 8, false), NULL, 0, "not one float32 tensor"), ".pt: another dtype is refused");
    check(reads(archive(pickle(true, "FloatStorage", 8, 2, 8, 1), values, 8, false), NULL, 0, "outside its storage"), ".pt: a view beyond its storage is refused");
    check(reads(archive(pickle(true, "FloatStorage", 9, 0, 9, 1), values, 8, false), NULL, 0, "smaller than its tensor"), ".pt: a short storage is refused");
    check(reads(archive(pickle(true, "FloatStorage", 8, 0, 4, 2), values, 8, false), NULL, 0, "strided"), ".pt: a strided tensor is refused");
    check(reads(archive(pickle(true, "FloatStorage", 8, 0, -1, 1), values, 8, false), NULL, 0, "outside its storage"), ".pt: a negative length is refused");
    Text evil = {0}, text = {0};
    ADD(&evil, "\x80\2" "cos\nsystem\nX\2\0\0\0ls\x85R.");
    check(reads(archive(evil, values, 8, false), NULL, 0, "not one float32 tensor"), ".pt: a call of something else is refused");
    ADD(&text, "hello, this is no archive at all");
    check(reads(text, NULL, 0, "no zip archive"), ".pt: a file that is no archive is refused");
    // every byte flipped, every length: whatever comes of it, nothing outside the buffer is touched (the sanitizers watch) and nothing crashes
    int answered = 0, tried = 0, read = 0;
    for (int deflated = 0; deflated < 2; deflated++) {
        Text whole = archive(pickle(true, "FloatStorage", 8, 0, 8, 1), values, 8, deflated);
        for (size_t i = 0; i < whole.n; i++)
            for (int kind = 0; kind < 4; kind++) {
                static const unsigned char flips[] = {0xff, 0x01, 0x80};
                size_t n = kind == 3 ? i : whole.n;  // the fourth: cut here
                unsigned char* copy = malloc(n ? n : 1);
                memcpy(copy, whole.s, n);
                if (kind < 3) copy[i] ^= flips[kind];
                char why[256];
                int64_t count;
                float* got = pt_parse(copy, n, &count, why, sizeof why);
                tried++;
                answered += got || *why;
                read += got != NULL;
                free(got);
                free(copy);
            }
        text_free(&whole);
    }
    check(tried == answered && tried > 3000 && read < tried / 2, ".pt: damaged at every byte, cut at every length: %d times, %d still readable", tried, read);
}

static void test_published(void) {
    static const struct { const char* name; int64_t n; } files[] = {{"seal_selector_llama3.pt", 111900}, {"seal_selector_pyt.pt", 111887}};
    const char* shared = getenv("SHARED_DIR");
    for (int i = 0; i < 2; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/data/selectors/%s", shared ? shared : "../shared", files[i].name);
        if (!file_exists(path)) { check_skip(files[i].name, "not in ../shared/data/selectors (SHARED_DIR)"); continue; }
        int64_t n;
        float* logits = pt_read(path, &n);
        double most = -INFINITY;
        for (int64_t k = 0; k < n; k++) most = fmax(most, (double)logits[k]);
        check(n == files[i].n, "%s: %lld logits", files[i].name, (long long)n);
        check(most > 0.1 && most < 26.3 + 1e-3, "%s: max %.4f within the drift of Adam, 0.1 + lr * steps", files[i].name, most);
        free(logits);
    }
}

int main(void) {
    program_name = "test_selection";
    strcpy(directory, "/tmp/test_selection_XXXXXX");
    if (!mkdtemp(directory)) return 1;
    test_pt();
    test_published();
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    if (system(command)) return 1;
    return check_report();
}
