/* See algorithms.h. The file is text: two lines that say what it is for, then a line per product. */
#include <string.h>
#include "base/error.h"
#include "base/file.h"
#include "base/ranks.h"
#include "base/text.h"
#include "device.h"
#include "kernels.h"
#include "run/algorithms.h"

#define FILE_MOST ((size_t)64 << 20)
#define HEADER_LINES 2
#define LINE_NUMBERS 17  // of a line: the key, the workspace, cuBLASLt's eight words

static struct {
    char path[PATH_ROOM];
    MatmulAlgorithm* list;
    int n;
} algorithms;

static void header(char* to, size_t room) {
    snprintf(to, room, "cuBLASLt algorithms, format 1\n%s, cuBLASLt %zu, %s\n", device_name(), matmul_library_version(),
             FLOATX_NAME);
}

static void add(const MatmulAlgorithm* a) {
    algorithms.list = (MatmulAlgorithm*)host_resize(
        algorithms.list, (size_t)(algorithms.n + 1) * sizeof *algorithms.list, "cuBLASLt's algorithms");
    algorithms.list[algorithms.n++] = *a;
}

static void write_file(void) {
    AtomicFile f;
    char first[512];
    header(first, sizeof first);
    atomic_open(&f, algorithms.path);
    atomic_printf(&f, "%s", first);
    for (int i = 0; i < algorithms.n; i++) {
        const MatmulAlgorithm* a = &algorithms.list[i];
        for (int k = 0; k < 8; k++) atomic_printf(&f, "%d ", a->key[k]);
        atomic_printf(&f, "%llu", (unsigned long long)a->workspace);
        for (int k = 0; k < 8; k++) atomic_printf(&f, " %016llx", (unsigned long long)a->data[k]);
        atomic_printf(&f, "\n");
    }
    atomic_commit(&f);
}

static void chosen(const MatmulAlgorithm* a) {
    add(a);
    write_file();
}

// A line of the file; false where it is not one.
static bool parse(const char* line, MatmulAlgorithm* a) {
    for (int i = 0; i < LINE_NUMBERS; i++) {
        char* end;
        if (!strchr("0123456789abcdef", *line) || !*line) return false;
        unsigned long long x = strtoull(line, &end, i > 8 ? 16 : 10);
        if (*end != (i + 1 < LINE_NUMBERS ? ' ' : '\n')) return false;
        if (i < 8) {
            if (x > INT32_MAX) return false;
            a->key[i] = (int)x;
        } else if (i == 8) a->workspace = x;
        else a->data[i - 9] = x;
        line = end + 1;
    }
    return true;
}

static void read_file(void) {
    const char* path = algorithms.path;
    char expected[512];
    size_t length;
    header(expected, sizeof expected);
    char *text = file_read(path, FILE_MOST, &length), *line = text;
    const char* second = strchr(expected, '\n') + 1;
    if (strncmp(text, expected, (size_t)(second - expected)))
        fatal("%s is not a file of cuBLASLt's algorithms; name another file for --algorithms", path);
    line = text + (second - expected);
    if (strncmp(line, second, strlen(second)))
        fatal("%s is of %.*s but this is %.*s; name another file for --algorithms", path, (int)strcspn(line, "\n"),
              line, (int)strcspn(second, "\n"), second);
    line += strlen(second);
    for (int number = HEADER_LINES + 1; *line; number++) {
        MatmulAlgorithm a;
        if (!parse(line, &a)) fatal("%s:%d: not an algorithm; delete the file to time them again", path, number);
        add(&a);
        line = strchr(line, '\n') + 1;
    }
    free(text);
}

void algorithms_open(const char* path) {
    int refused = 0;
    path_copy(algorithms.path, ranks_rank() ? path_text("%s.rank%d", path, ranks_rank()).s : path);
    if (file_exists(algorithms.path)) read_file();
    else output_probe(algorithms.path);
    if (!matmul_algorithms(algorithms.list, algorithms.n, chosen, &refused))
        fatal("%s:%d: cuBLASLt refuses this algorithm; delete the file to time them again", algorithms.path,
              refused + HEADER_LINES + 1);
}
