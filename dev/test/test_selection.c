/*
Selection without a device: PyTorch selectors (published ones where ../shared is there, small ones built here in every
variant and damaged at every byte), selector files and their refusals, the top share, rows written byte for byte, the
explanation.
*/
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include "check.h"
#include "rows/dataset.h"
#include "base/error.h"
#include "base/file.h"
#include "commands/pt_reader.h"
#include "base/safetensors.h"
#include "commands/selector_file.h"
#include "commands/scores.h"
#include "commands/selection.h"
#include "refuses.h"
#include "scratch.h"

// ---------------------------------------------------------------------------------------------------
// a zip archive as torch.save writes it

static void add_little(Text* t, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) text_add(t, &(unsigned char){(unsigned char)(i < 8 ? value >> 8 * i : 0)}, 1);
}

typedef struct {
    const char* name;
    const void* data;
    size_t n;
} Part;

static Text zip(const Part* parts, int n_parts, bool deflated) {
    Text out = {0}, directory_part = {0};
    for (int i = 0; i < n_parts; i++) {
        unsigned char packed[4096];
        size_t length = strlen(parts[i].name), n = parts[i].n;
        const void* bytes = parts[i].data;
        if (deflated) {
            z_stream z = {
                .next_in = (Bytef*)parts[i].data, .avail_in = (uInt)n, .next_out = packed, .avail_out = sizeof packed};
            deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
            deflate(&z, Z_FINISH);
            n = z.total_out;
            bytes = packed;
            deflateEnd(&z);
        }
        uint64_t crc = crc32(0, parts[i].data, (uInt)parts[i].n), local = out.n;
        for (int central = 0; central < 2;
             central++) {  // a local header without sizes, as after a stream; the directory has them
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
    ADD(&p,
        "q\3X\1\0\0\0"
        "0q\4X\3\0\0\0"
        "cpuq\5J");
    add_little(&p, (uint32_t)stored, 4);
    ADD(&p, "tq\6QK");
    add_little(&p, (uint64_t)offset, 1);
    ADD(&p, "J");
    add_little(&p, (uint32_t)n, 4);
    ADD(&p, "\x85q\7K");
    add_little(&p, (uint64_t)stride, 1);
    ADD(&p,
        "\x85q\10\x89"
        "ccollections\nOrderedDict\nq\11)Rq\12tq\13R");
    if (parameter) ADD(&p, "q\14\x88h\11)Rq\15\x87q\16Rq\17");
    ADD(&p, ".");
    return p;
}

static Text archive(Text data, const float* values, size_t n, bool deflated) {
    const Part parts[] = {{"top/data.pkl", data.s, data.n},
                          {"top/byteorder", "little", 6},
                          {"top/data/0", values, n * sizeof(float)},
                          {"top/version", "3\n", 2}};
    Text out = zip(parts, 4, deflated);
    text_free(&data);
    return out;
}

static int reads(Text file, const float* want, int64_t n_want, const char* why_want) {
    char why[256];
    int64_t n = -1;
    float* got = pt_parse((const uint8_t*)file.s, file.n, &n, why, sizeof why);
    int good = want ? got && n == n_want && !memcmp(got, want, (size_t)n * sizeof(float))
                    : !got && strstr(why, why_want);
    if (!good) printf("# n %lld, %s\n", (long long)n, why);
    free(got);
    text_free(&file);
    return good;
}

static void test_pt(void) {
    const float values[8] = {0.5f, -1, 3, 26.29f, 0, 1e-30f, 7, -2};
    check(reads(archive(pickle(true, "FloatStorage", 8, 0, 8, 1), values, 8, false), values, 8, NULL),
          ".pt: a Parameter, stored");
    check(reads(archive(pickle(true, "FloatStorage", 8, 0, 8, 1), values, 8, true), values, 8, NULL),
          ".pt: a Parameter, deflated");
    check(reads(archive(pickle(false, "FloatStorage", 8, 2, 5, 1), values, 8, false), values + 2, 5, NULL),
          ".pt: a tensor that is a view");
    check(reads(archive(pickle(true, "HalfStorage", 8, 0, 8, 1), values, 8, false), NULL, 0, "not one float32 tensor"),
          ".pt: another dtype is refused");
    check(reads(archive(pickle(true, "FloatStorage", 8, 2, 8, 1), values, 8, false), NULL, 0, "outside its storage"),
          ".pt: a view beyond its storage is refused");
    check(
        reads(archive(pickle(true, "FloatStorage", 9, 0, 9, 1), values, 8, false), NULL, 0, "smaller than its tensor"),
        ".pt: a short storage is refused");
    check(reads(archive(pickle(true, "FloatStorage", 8, 0, 4, 2), values, 8, false), NULL, 0, "strided"),
          ".pt: a strided tensor is refused");
    check(reads(archive(pickle(true, "FloatStorage", 8, 0, -1, 1), values, 8, false), NULL, 0, "outside its storage"),
          ".pt: a negative length is refused");
    Text evil = {0}, text = {0};
    ADD(&evil,
        "\x80\2"
        "cos\nsystem\nX\2\0\0\0ls\x85R.");
    check(reads(archive(evil, values, 8, false), NULL, 0, "not one float32 tensor"),
          ".pt: a call of something else is refused");
    ADD(&text, "hello, this is not an archive at all");
    check(reads(text, NULL, 0, "not a zip archive"), ".pt: a file that is not an archive is refused");
    // every byte flipped, every length: whatever comes of it, nothing outside the buffer is touched (the sanitizers
    // watch) and nothing crashes
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
    check(tried == answered && tried > 3000 && read < tried / 2,
          ".pt: damaged at every byte, cut at every length: %d times, %d still readable", tried, read);
}

static void test_published(void) {
    static const struct {
        const char* name;
        int64_t n;
    } files[] = {{"seal_selector_llama3.pt", 111900}, {"seal_selector_pyt.pt", 111887}};
    const char* shared = getenv("SHARED_DIR");
    for (int i = 0; i < 2; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/data/selectors/%s", shared ? shared : "../shared", files[i].name);
        if (!file_exists(path)) {
            check_skip(files[i].name, "not in ../shared/data/selectors (SHARED_DIR)");
            continue;
        }
        int64_t n;
        float* logits = pt_read(path, &n);
        double most = -INFINITY;
        for (int64_t k = 0; k < n; k++) most = larger(most, (double)logits[k]);
        check(n == files[i].n, "%s: %lld logits", files[i].name, (long long)n);
        check(most > 0.1 && most < 26.3 + 1e-3, "%s: max %.4f within the drift of Adam, 0.1 + lr * steps",
              files[i].name, most);
        free(logits);
    }
}

// ---------------------------------------------------------------------------------------------------

static float logits[5] = {0.5f, 2, -1, 2, 0.25f};
static int64_t rows[5] = {0, 1, 3, 4, 6};
static uint64_t hashes[5] = {1, 0xffffffffffffffffull, 3, 4, 5};
static SelectorFile sample(void) {
    SelectorFile s = {.n = 5,
                      .n_rows = 8,
                      .logits = logits,
                      .rows = rows,
                      .hashes = hashes,
                      .files = "tune.jsonl",
                      .algorithm = "1",
                      .activation = "softmax",
                      .schedule = "linear:0,0.03",
                      .seed = 42};
    sha256_hex("x", 1, s.digest);
    return s;
}

typedef struct {
    const char* path;
    const char* digest;
    int64_t n_rows, n_usable;
} Meeting;
static void meet(const void* context) {
    const Meeting* m = context;
    static int64_t usable[9] = {0, 1, 2, 3, 5, 6, 7, 8, 9};
    const char* name = "other.jsonl";
    SelectorFile s;
    selector_file_read(&s, m->path);
    if (m->digest) selector_file_check(&s, &(StringList){&name, 1}, m->digest, m->n_rows, usable, m->n_usable);
}

static void test_selector_file(void) {
    SelectorFile s = sample(), r;
    char path[256], pt[256];
    Hex other;
    snprintf(path, sizeof path, "%s", in_directory("selector.safetensors"));
    selector_file_write(&s, path);
    selector_file_read(&r, path);
    check(r.n == 5 && r.n_rows == 8 && !memcmp(r.logits, logits, sizeof logits) && !memcmp(r.rows, rows, sizeof rows) &&
              !memcmp(r.hashes, hashes, sizeof hashes) && !strcmp(r.digest, s.digest) &&
              !strcmp(r.schedule, s.schedule) && !strcmp(r.files, "tune.jsonl") && r.seed == 42,
          "a selector file comes back as it was written");
    StReader st;
    st_open(&st, path);
    check(st_need(&st, "logits")->dtype == ST_F32 && st_need(&st, "row")->dtype == ST_I64 &&
              st_need(&st, "text_hash")->count == 5 && !strcmp(st_metadata(&st, "algorithm"), "1"),
          "it is a safetensors file with logits, row, text_hash");
    st_close(&st);
    const char* name = "tune.jsonl";
    selector_file_check(&r, &(StringList){&name, 1}, s.digest, 8, NULL, 0);
    check(1, "it is taken on the file it was learned on");
    selector_file_free(&r);
    sha256_hex("y", 1, other);
    check(refuses(meet, &(Meeting){path, other, 8, 5}, "was learned on tune.jsonl (SHA-256"),
          "another digest is refused");
    check(refuses(meet, &(Meeting){path, s.digest, 9, 5}, "with 8 rows but other.jsonl has 9"),
          "another length is refused");
    Text file = archive(pickle(true, "FloatStorage", 5, 0, 5, 1), logits, 5, false);
    snprintf(pt, sizeof pt, "%s", in_directory("s.pt"));
    file_write(pt, file.s, file.n);
    text_free(&file);
    check(refuses(meet, &(Meeting){pt, other, 9, 8}, "has 5 logits but other.jsonl has 9 rows (8 usable)"),
          "a .pt of another length is refused");
    static int64_t usable[5] = {0, 2, 3, 4, 7};
    selector_file_read(&r, pt);
    selector_file_check(&r, &(StringList){&name, 1}, other, 8, usable, 5);
    check(r.rows[1] == 2 && r.rows[4] == 7 && r.n_rows == 8, "a .pt as long as the usable rows belongs to these");
    selector_file_free(&r);
    put("no.safetensors", "nothing");
    check(refuses(meet, &(Meeting){in_directory("no.safetensors"), NULL, 0, 0}, "no.safetensors"),
          "a file that is not a selector is refused");
    double sigma[5], sum = 0;
    selector_weights(logits, 5, false, sigma);
    for (int i = 0; i < 5; i++) sum += sigma[i];
    check(fabs(sum - 5) < 1e-12 && fabs(sigma[1] / sigma[0] - exp(1.5)) < 1e-12, "softmax weights have mean 1");
    selector_weights(&(float){0}, 1, true, sigma);
    check(sigma[0] == 1, "a sigmoid weight is 1 at 0");
}

static void test_methods(void) {
    SelectorFile s = sample();
    static const int64_t all[6] = {0, 1, 2, 3, 4, 6};
    double score[6];
    int64_t order[6];
    check(score_rows(score_method("seal"), &(ScoreInput){.selector = &s}, all, 6, score) == 1,
          "a row without a logit is counted");
    int64_t keep = score_order(score, all, 6, 0.5, order);
    check(keep == 3 && order[0] == 1 && order[1] == 4 && order[2] == 0 && order[5] == 2,
          "top by logit, ties by row, no logit last");
    int floors = 1;
    double* many = calloc(1000, sizeof *many);
    int64_t *ids = calloc(1000, sizeof *ids), *ranked = calloc(1000, sizeof *ranked);
    for (int i = 0; i < 1000; i++) ids[i] = i;
    for (int p = 1; p <= 100; p++)
        floors &= score_order(many, ids, 100, p / 100.0, ranked) == p &&
                  score_order(many, ids, 7, p / 100.0, ranked) == 7 * p / 100;
    check(floors && ranked[0] == 0 && ranked[99] == 99,
          "the share is the floor of p N as typed, equal scores stand in row order");
    const ScoreMethod* random = score_method("random");
    int overlap = 0, ranks = 0, same = 1;
    double again[1000];
    score_rows(random, &(ScoreInput){.seed = 1}, ids, 1000, many);
    score_rows(random, &(ScoreInput){.seed = 1}, ids, 1000, again);
    same = !memcmp(many, again, sizeof again);
    int64_t kept = score_order(many, ids, 1000, 0.7, ranked);
    uint8_t in[1000] = {0};
    for (int i = 0; i < kept; i++) {
        in[ranked[i]] = 1;
        ranks += ranked[i] < 500;
    }
    score_rows(random, &(ScoreInput){.seed = 2}, ids, 1000, many);
    score_order(many, ids, 1000, 0.7, ranked);
    for (int i = 0; i < kept; i++) overlap += in[ranked[i]];
    // hypergeometric: 490 ± 6.6 of 700 and 350 ± 7.2
    check(same && kept == 700 && abs(overlap - 490) < 40 && abs(ranks - 350) < 44,
          "random: seeded, uniform (%d shared by two seeds, %d of the first half)", overlap, ranks);
    double loss[3] = {-2, -1, -3};
    score_rows(score_method("safe-loss"), &(ScoreInput){.scores = loss}, ids, 3, score);
    score_order(score, ids, 3, 1, order);
    check(order[0] == 1 && order[1] == 0 && order[2] == 2, "safe-loss keeps the lowest loss first");
    free(many);
    free(ids);
    free(ranked);
}

static void expect_file(const char* name, const char* path, const char* want) {
    size_t n;
    char* got = file_read(path, 1 << 20, &n);
    if (!check(n == strlen(want) && !memcmp(got, want, n), "%s", name)) printf("# got %s\n", got);
    free(got);
}

typedef struct {
    const char *in, *in2, *out;
    int64_t n_rows;
    const char* digest;
} Write;
static void write_rows(const void* context) {
    const Write* w = context;
    const char* paths[2] = {w->in, w->in2};
    static const uint8_t keep[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    kept_write(&(StringList){paths, w->in2 ? 2 : 1}, keep, w->n_rows, w->digest, w->out, true);
}

static void test_write(void) {
    const uint8_t keep[6] = {0, 1, 0, 1, 1, 0};
    const char *a = put("a.jsonl", "{\"a\":0}\n\n{ \"a\" : 1.0 }  \r\nbad\n{\"a\":\"\\u00e9\xc3\xa9\"}"),
               *lines = in_directory("out.jsonl");
    const char* two[2] = {a, put("b.json", "[{\"b\":\n [0,\"x\ny\"]},\n\n {\"b\":1}]")};
    check(kept_write(&(StringList){&a, 1}, keep, 4, NULL, lines, true) == 2, "rows written are counted");
    expect_file("jsonl lines as they were, their line ends too", lines,
                "{ \"a\" : 1.0 }  \r\n{\"a\":\"\\u00e9\xc3\xa9\"}\n");
    kept_write(&(StringList){two, 2}, keep, 6, NULL, lines, true);
    expect_file("an array's record over several lines becomes one line", lines,
                "{ \"a\" : 1.0 }  \r\n{\"a\":\"\\u00e9\xc3\xa9\"}\n{\"b\": [0,\"x\\ny\"]}\n");
    const char* array = in_directory("out.json");
    const char* b = in_directory("b.json");
    kept_write(&(StringList){&b, 1}, (const uint8_t[]){1, 1}, 2, NULL, array, true);
    expect_file("an array stays an array of the records' bytes", array, "[\n{\"b\":\n [0,\"x\ny\"]},\n{\"b\":1}\n]\n");
    kept_write(&(StringList){&b, 1}, (const uint8_t[]){0, 0}, 2, NULL, array, true);
    expect_file("nothing kept is an empty array", array, "[\n]\n");
    const char* csv = put("c.csv", "p,\"r\"\r\n1,\"a\n\"\"b\"\r\n2,x\n3,y\r\n");
    kept_write(&(StringList){&csv, 1}, (const uint8_t[]){1, 0, 1}, 3, NULL, in_directory("out.csv"), true);
    expect_file("csv keeps its header and quoting", in_directory("out.csv"), "p,\"r\"\r\n1,\"a\n\"\"b\"\r\n3,y\r\n");
    gzFile gz = gzopen(in_directory("d.jsonl.gz"), "wb");
    gzputs(gz, "{\"a\":0}\n{\"a\":1}\n");
    gzclose(gz);
    const char* d = in_directory("d.jsonl.gz");
    kept_write(&(StringList){&d, 1}, keep, 2, NULL, in_directory("d.jsonl"), true);
    expect_file("a .gz comes out unpacked", in_directory("d.jsonl"), "{\"a\":1}\n");
    check(refuses(write_rows, &(Write){in_directory("c.csv"), NULL, in_directory("x.jsonl"), 3, NULL},
                  "a .csv becomes a .csv"),
          "a csv is not written as jsonl");
    check(
        refuses(write_rows, &(Write){in_directory("c.csv"), put("e.csv", "q,r\n1,2\n"), in_directory("x.csv"), 4, NULL},
                "its header differs"),
        "two csv headers are refused");
    check(refuses(write_rows, &(Write){in_directory("a.jsonl"), NULL, in_directory("x.jsonl"), 5, NULL},
                  "has 4 rows but had 5 when it was scored"),
          "a file that shrank is refused");
    check(refuses(write_rows, &(Write){in_directory("a.jsonl"), NULL, in_directory("x.jsonl"), 3, NULL},
                  "more rows than"),
          "a file that grew is refused");
    Hex digest;
    two[0] = strdup(in_directory("a.jsonl"));
    two[1] = strdup(in_directory("b.json"));
    dataset_digest(&(StringList){two, 2}, digest);
    check(kept_write(&(StringList){two, 2}, keep, 6, digest, in_directory("again.jsonl"), true) == 3,
          "files that are as they were are written");
    check(refuses(write_rows, &(Write){two[0], two[1], in_directory("x.jsonl"), 6, "0"}, "is another file than when"),
          "a file of as many rows that is another is refused");
    check(!file_exists(in_directory("x.jsonl")) && !file_exists(in_directory("x.csv")),
          "nothing is left of a refused output");
}

static char said[8192];
static void read_said(FILE* out) {
    rewind(out);
    said[fread(said, 1, sizeof said - 1, out)] = 0;
    fclose(out);
}
static int excerpt_is(const char* text, int most, const char* want, int columns) {
    FILE* out = tmpfile();
    int n = print_excerpt(text, strlen(text), most, out);
    read_said(out);
    if (strcmp(said, want) || n != columns) printf("# %d: %s\n", n, said);
    return !strcmp(said, want) && n == columns;
}

static void test_explain(void) {
    check(excerpt_is("abc", 3, "abc", 3) && excerpt_is("abcd", 3, "ab…", 3) && excerpt_is("", 3, "", 0),
          "an excerpt is cut with an ellipsis");
    check(excerpt_is("a\nb\tc\x1b[1m\x7f", 80, "a\\nb\\tc\\x1b[1m\\x7f", 18), "control characters are escaped");
    check(excerpt_is("\xc3\xa9\xe2\x80\xae\xc2\x85\xff\xe2\x82", 80, "\xc3\xa9\\u202e\\x85\\xff\\xe2\\x82", 23),
          "direction marks, C1 controls and broken UTF-8 are escaped");
    check(excerpt_is("\xc3\xa9\xc3\xa9\xc3\xa9", 2, "\xc3\xa9…", 2), "characters are counted, not bytes");
    Text t = {0};
    for (int i = 0; i < 10; i++) {
        char line[400];
        text_add(&t, line,
                 (size_t)snprintf(line, sizeof line, "{\"prompt\":\"p%d %0*d\",\"response\":\"r%d\\u001b\"}\n", i,
                                  i == 9 ? 200 : 1, 0, i));
    }
    const char* path = in_directory("explain.jsonl");
    file_write(path, t.s, t.n);
    text_free(&t);
    int64_t ids[10], order[10];
    double score[10], sigma[10];
    float loss[10];
    for (int i = 0; i < 10; i++) {
        ids[i] = i;
        score[i] = i;
        sigma[i] = i / 4.5;
        loss[i] = (float)(10 - i);
    }
    Explanation e = {.rows = ids,
                     .score = score,
                     .order = order,
                     .sigma = sigma,
                     .loss = loss,
                     .n = 10,
                     .kept = score_order(score, ids, 10, 0.8, order),
                     .show = 3};
    FILE* out = tmpfile();
    kept_explain(&e, &(StringList){&path, 1}, &(RowOptions){.prompt_template = "{prompt}"}, out);
    read_said(out);
    int longest = 0, widest = 0, line = 0;
    for (char* c = said; *c; c++) {
        if ((*c & 0xC0) != 0x80) line++;
        if (*c == '\n') {
            if (line > widest) widest = line;
            line = 0;
        }
        if (!strncmp(c, "00000", 5)) longest++;
    }
    check(strstr(said, "8 of 10 rows are kept") &&
              strstr(said, "\n       1        9             9           2           1  p9 000") &&
              strstr(said, "\n      10        0             0           0          10  p0 0 → r0\\x1b\n"),
          "the explanation names rank, row, score, weight, loss and text");
    check(strstr(said, "       …\n") && strstr(said, "rows from here on are left out\n       9        1 "),
          "it marks the gap and where the selection ends");
    check(longest > 0 && widest <= 56 + 80 + 1, "no more than 80 characters of a row are shown (widest line %d)",
          widest);
}

int main(void) {
    program_name = "test_selection";
    strcpy(directory, "/tmp/test_selection_XXXXXX");
    if (!mkdtemp(directory)) return 1;
    test_pt();
    test_published();
    test_selector_file();
    test_methods();
    test_write();
    test_explain();
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    if (system(command)) return 1;
    return check_report();
}
