/*
The host room without a device: random numbers, schedules, packing, files, safetensors, config.json, options. What must
end the program is run in a child process, and its status and its one line are checked.
*/
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "check.h"
#include "refuses.h"
#include "base/error.h"
#include "base/file.h"
#include "model_config.h"
#include "base/options.h"
#include "rows/packing.h"
#include "base/random.h"
#include "base/safetensors.h"
#include "schedule.h"
#include "scratch.h"

// ---------------------------------------------------------------------------------------------------

static void test_random(void) {
    // the known answers published with Random123 for philox4x32, 10 rounds
    static const uint32_t known[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d, 0x41c83b0e, 0xa20bc7c6,
         0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
         0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        philox(known[i], known[i] + 4, out);
        check(!memcmp(out, known[i] + 6, sizeof out), "philox known answer %d", i);
    }
    double sum = 0, squares = 0, gumbel = 0;
    int n = 100000, inside = 1;
    for (int i = 0; i < n; i++) {
        double x = random_normal(7, 1, (uint64_t)i), u = random_uniform(7, 2, (uint64_t)i);
        sum += x;
        squares += x * x;
        gumbel += random_gumbel(7, 3, (uint64_t)i);
        inside &= u > 0 && u < 1;
    }
    check(fabs(sum / n) < 5 / sqrt(n) && fabs(squares / n - 1) < 5 * sqrt(2.0 / n),
          "normal numbers have mean 0 and variance 1");
    check(fabs(gumbel / n - 0.5772156649) < 5 * 1.2825 / sqrt(n), "Gumbel numbers have Euler's mean");
    check(inside, "uniform numbers lie inside (0, 1)");
    int order[1000], again[1000], other[1000], seen[1000] = {0}, all = 1;
    random_permutation(42, 0, order, 1000);
    random_permutation(42, 0, again, 1000);
    random_permutation(42, 1, other, 1000);
    for (int i = 0; i < 1000; i++) seen[order[i]]++;
    for (int i = 0; i < 1000; i++) all &= seen[i] == 1;
    check(all && !memcmp(order, again, sizeof order) && memcmp(order, other, sizeof order),
          "a permutation belongs to its seed and epoch");
}

static void parse_gamma(const void* text) {
    GammaSchedule g;
    gamma_parse(&g, text);
}
static void test_schedules(void) {
    GammaSchedule g;
    gamma_parse(&g, "linear:0,0.03");
    check(gamma_at(&g, 0, 0, 9) == 0 && fabs(gamma_at(&g, 2, 8, 9) - 0.06) < 1e-15, "gamma linear");
    gamma_parse(&g, "fixed:0.5");
    check(gamma_at(&g, 7, 0, 1) == 0.5, "gamma fixed");
    gamma_parse(&g, "geometric:0.1,2");
    check(fabs(gamma_at(&g, 2, 0, 1) - 0.4) < 1e-15 && gamma_at(&g, 9, 0, 1) == 1.0, "gamma geometric, clamped to 1");
    gamma_parse(&g, "list:0.1,0.2,0.3");
    check(gamma_at(&g, 1, 0, 1) == 0.2 && gamma_at(&g, 5, 0, 1) == 0.3, "gamma list, the last value stays");
    gamma_parse(&g, "ramp:0.1,-0.3");
    check(gamma_at(&g, 0, 0, 5) == 0.1 && fabs(gamma_at(&g, 0, 1, 5) - 0.0) < 1e-12 && gamma_at(&g, 0, 4, 5) == 0.0,
          "gamma ramp, clamped to 0");
    gamma_parse(&g, "geometric:0,1e308");
    check(gamma_at(&g, 2, 0, 1) == 0.0, "gamma is never NaN");
    check(refuses(parse_gamma, "linear:0", "expected linear:START,STEP"), "gamma with too few values is refused");
    check(refuses(parse_gamma, "linear:0,x", "does not begin with a number"), "gamma that is not a number is refused");
    check(refuses(parse_gamma, "sudden:1", "--gamma is"), "an unknown gamma schedule is refused");
    LrSchedule s = {"linear", 1.0, 2};
    check(lr_at(&s, 0, 10) == 0 && lr_at(&s, 1, 10) == 0.5 && lr_at(&s, 2, 10) == 1.0 &&
              fabs(lr_at(&s, 6, 10) - 0.5) < 1e-15,
          "linear schedule with warm-up");
    LrSchedule c = {"cosine", 2.0, 0.0};
    check(lr_at(&c, 0, 8) == 2.0 && fabs(lr_at(&c, 4, 8) - 1.0) < 1e-15, "cosine schedule");
}

typedef struct {
    HostPack* p;
    const PackSample* sample;
} BadPack;
static void pack_bad_token(const void* context) {
    const BadPack* x = (const BadPack*)context;
    host_pack_build(x->p, x->sample, 1, 10, 6);
}

static void test_packing(void) {
    int lengths[] = {5, 9, 3, 10, 2, 1}, pack[6];
    check(pack_first_fit(lengths, 6, 10, pack) == 3 && pack[0] == 0 && pack[1] == 1 && pack[2] == 0 && pack[3] == 2 &&
              pack[4] == 0 && pack[5] == 1,
          "first fit: each sample in the first pack that has room");
    check(pack_first_fit(lengths, 6, 9, pack) == -1, "a sample longer than a pack is reported");
    int owner[200], cost[200], balanced = 1;
    deal_samples(lengths, 6, 2, owner);  // 10 to rank 0, 9 and 5 to 1, 3 to 0, 2 to 0, 1 to 1
    check(owner[3] == 0 && owner[1] == 1 && owner[0] == 1 && owner[2] == 0 && owner[4] == 0 && owner[5] == 1,
          "samples are dealt costliest first, to whoever has least");
    for (int ranks = 1; ranks <= 7; ranks++) {
        int64_t load[7] = {0}, least = INT64_MAX, most = 0;
        for (int i = 0; i < 200; i++) cost[i] = 1 + (int)random_below(3, (uint64_t)ranks, (uint64_t)i, 500);
        deal_samples(cost, 200, ranks, owner);
        for (int i = 0; i < 200; i++) load[owner[i]] += cost[i];
        for (int r = 0; r < ranks; r++) {
            if (load[r] < least) least = load[r];
            if (load[r] > most) most = load[r];
        }
        balanced &= most - least <= most / 100;  // the small ones at the end even it out
    }
    check(balanced, "so that 1 to 7 ranks have the same to do, to a hundredth");
    int32_t a[] = {4, 5, 4}, b[] = {9}, c[] = {1, 2, 3, 4};
    uint8_t bears[] = {0, 0, 1, 1};
    PackSample samples[] = {{a, NULL, 3, 2, 0}, {b, NULL, 1, 0, 1}, {c, bears, 4, 2, 2}};
    HostPack p;
    host_pack_allocate(&p, 16, 4, 8);
    host_pack_build(&p, samples, 3, 10, 6);
    int32_t tokens[] = {4, 5, 4, 9, 1, 2, 3, 4}, positions[] = {0, 1, 2, 0, 0, 1, 2, 3}, rows[] = {0, 1, 5, 6},
            targets[] = {5, 4, 3, 4}, start[] = {0, 2, 2, 4};
    check(p.T == 8 && p.n_seq == 3 && !memcmp(p.tokens, tokens, sizeof tokens) &&
              !memcmp(p.positions, positions, sizeof positions),
          "positions restart at each sample");
    check(p.n_loss == 4 && !memcmp(p.loss_rows, rows, sizeof rows) && !memcmp(p.targets, targets, sizeof targets) &&
              !memcmp(p.loss_start, start, sizeof start),
          "a row carries the loss of the token after it; never across samples");
    int sorted = p.n_token_segments == 6;  // tokens 1 2 3 4 5 9
    for (int s = 0; s < p.n_token_segments; s++)
        for (int i = p.token_segment_start[s]; i < p.token_segment_start[s + 1]; i++)
            sorted &= p.tokens[p.token_order[i]] == p.token_segment_row[s] &&
                      (i == p.token_segment_start[s] || p.token_order[i] > p.token_order[i - 1]);
    check(sorted && p.token_segment_start[p.n_token_segments] == p.T, "token segments are sorted and stable");
    host_pack_build(&p, samples, 1, 10, 3);
    check(p.T == 8 && p.n_seq == 3 && p.cu_seqlens[1] == 3 && p.cu_seqlens[2] == 6 && p.cu_seqlens[3] == 8 &&
              p.loss_index[3] == -1 && p.n_samples == 1,
          "padding is samples of their own, no longer than the model reads, without a loss");
    int32_t bad_tokens[] = {10, -1, INT32_MAX, INT32_MIN};
    const char* names[] = {"10", "-1", "2147483647", "-2147483648"};
    for (int i = 0; i < 4; i++) {
        int32_t d[] = {4, 9, bad_tokens[i]};
        char expected[128];
        snprintf(expected, sizeof expected, "row 7: token 3 of 3 is %s, outside the model's vocabulary of 10",
                 names[i]);
        PackSample bad = {d, NULL, 3, 2, 7};
        BadPack context = {&p, &bad};
        check(refuses(pack_bad_token, &context, expected), "a token %s is refused by its row", names[i]);
    }
    host_pack_free(&p);
}

// ---------------------------------------------------------------------------------------------------

static void open_safetensors(const void* path) {
    StReader r;
    st_open(&r, path);
}
static void write_header_and(const char* path, const char* header, size_t data) {
    FILE* f = fopen(path, "wb");
    uint64_t n = strlen(header);
    fwrite(&n, 8, 1, f);
    fwrite(header, 1, n, f);
    for (size_t i = 0; i < data; i++) fputc((int)i, f);
    fclose(f);
}
static void test_safetensors(void) {
    const char* path = in_directory("x.safetensors");
    StWriter w;
    st_create(&w, path);
    st_set_metadata(&w, "note", "a \"quoted\" note");
    int64_t shape[2] = {2, 3}, empty[1] = {0}, one[1] = {1};
    float x[6] = {1, -2, 3.5f, 0, 1e-30f, 7};
    int64_t row = 1234567890123;
    st_declare(&w, "x", ST_F32, 2, shape);
    st_declare(&w, "nothing", ST_F32, 1, empty);
    st_declare(&w, "row", ST_I64, 1, one);
    st_write(&w, x, 12);
    st_write(&w, x + 3, 12);
    st_write(&w, &row, 8);
    st_commit(&w);
    StReader r;
    st_open(&r, path);
    float back[6];
    int64_t row_back;
    st_to_float(&r, st_need(&r, "x"), 0, 6, back);
    st_copy(&r, "row", ST_I64, 1, &row_back);
    check(!memcmp(x, back, sizeof x) && row_back == row && st_find(&r, "nothing") &&
              !strcmp(st_metadata(&r, "note"), "a \"quoted\" note") && !st_find(&r, "y"),
          "what is written is read");
    st_close(&r);
    check(!truncate(path, 150) && refuses(open_safetensors, path, "truncated"), "a truncated file is refused");
    check(!truncate(path, 5) && refuses(open_safetensors, path, "safetensors file"), "five bytes are refused");
    static const struct {
        const char *name, *header;
        size_t data;
        const char* expected;
    } bad[] = {
        {"an offset past the end", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", 12, "a"},
        {"a shape that disagrees", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,12]}}", 12,
         "12 bytes but its shape needs 8"},
        {"overlapping tensors",
         "{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"U8\",\"shape\":[8],\"data_"
         "offsets\":[4,12]}}",
         12, "overlap"},
        {"an unknown dtype", "{\"a\":{\"dtype\":\"F7\",\"shape\":[1],\"data_offsets\":[0,1]}}", 12, "unknown dtype"},
        {"a negative shape", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 12,
         "not a whole number"},
        {"a huge shape",
         "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4294967296],\"data_offsets\":[0,4]}}", 12,
         "larger than the file"},
        {"a doubled name",
         "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_"
         "offsets\":[1,2]}}",
         12, "duplicate"},
        {"a header that is not an object", "[1,2,3]", 12, "not a JSON object"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_header_and(path, bad[i].header, bad[i].data);
        check(refuses(open_safetensors, path, bad[i].expected), "safetensors: %s is refused", bad[i].name);
    }
    write_header_and(path,
                     "{\"h\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"BF16\","
                     "\"shape\":[1],\"data_offsets\":[8,10]}}",
                     0);
    FILE* f = fopen(path, "ab");
    uint16_t bits[5] = {0x3c00, 0xc000, 0x0001, 0x7bff, 0x3fc0};
    fwrite(bits, 2, 5, f);
    fclose(f);
    st_open(&r, path);
    st_to_float(&r, st_need(&r, "h"), 0, 4, back);
    check(back[0] == 1.0f && back[1] == -2.0f && back[2] == 0x1p-24f && back[3] == 65504.0f, "fp16 values");
    st_to_float(&r, st_need(&r, "b"), 0, 1, back);
    check(back[0] == 1.5f, "bf16 values");
    st_close(&r);
}

static void write_unwritable(const void* path) { file_write(path, "x", 1); }
static void probe(const void* path) { directory_probe(path); }
static void half_written(const void* path) {
    AtomicFile f;
    atomic_open(&f, path);
    atomic_write(&f, "half", 4);
    fatal("stop");
}
static void read_what_was_cut(const void* path) {
    MappedFile map;
    AtomicFile f;
    char zeros[8192] = {0};
    file_write(path, zeros, sizeof zeros);
    atomic_open(&f, in_directory("begun"));
    file_map(&map, path);
    if (truncate(path, 4096)) return;
    _exit(map.data[0] ? 3 : map.data[5000] ? 4 : 5);  // the first page is still there
}
static void test_files(void) {
    const char* path = in_directory("file");
    file_write(path, "hello", 5);
    file_write(path, "hello again", 11);
    size_t n;
    char* text = file_read(path, 100, &n);
    check(n == 11 && !strcmp(text, "hello again"), "a file is replaced whole");
    free(text);
    Hex hex;
    sha256_hex("abc", 3, hex);
    check(!strcmp(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), "SHA-256 of abc");
    file_sha256_hex(path, hex);
    check(strlen(hex) == 64, "SHA-256 of a file");
    check(refuses(half_written, in_directory("half"), "stop") && !file_exists(in_directory("half")),
          "nothing half-written under the name");
    char command[256];
    snprintf(command, sizeof command, "ls %s | grep -c tmp > /dev/null", directory);
    check(system(command) != 0, "no temporary file is left behind");
    check(refuses(read_what_was_cut, in_directory("cut"), "cut: became shorter, or its disk failed, while it was read"),
          "a file that is made shorter while it is mapped ends the program with a line");
    check(system(command) != 0, "and what it had begun to write goes with it");
    check(refuses(write_unwritable, in_directory("absent/file"), "cannot be written"), "an unwritable path is refused");
    check(refuses(probe, "/proc/nowhere", "/proc/nowhere"), "a directory that cannot be made is found before training");
    directory_make(in_directory("a/b/c"));
    check(file_exists(in_directory("a/b/c")), "directories are made with their parents");
}

static void read_config(const void* path) {
    ModelConfig c;
    model_config_read(&c, path);
}
static void test_config(void) {
    static const struct {
        const char *name, *json, *expected;
    } bad[] = {
        {"an unknown family", "{\"model_type\":\"bert\"}",
         "\"bert\" is not supported; supported are: gpt2, llama, mistral, gpt_neox, phi3"},
        {"a missing key", "{\"model_type\":\"gpt2\",\"n_layer\":2}", "\"n_embd\" is missing"},
        {"a negative size", "{\"model_type\":\"gpt2\",\"n_layer\":-2}", "\"n_layer\" is -2"},
        {"an activation that is not supported", "{\"model_type\":\"gpt2\",\"activation_function\":\"relu\"}",
         "only \"gelu_new\" is supported"},
        {"a scaling that is not supported", "{\"model_type\":\"gpt2\",\"scale_attn_by_inverse_layer_idx\":true}",
         "must be false"},
        {"heads that do not divide",
         "{\"model_type\":\"gpt2\",\"n_layer\":1,\"n_embd\":64,\"n_head\":3,\"vocab_size\":9,\"n_positions\":8}",
         "is not a multiple of the number of heads"},
        {"no JSON", "{", "not a JSON object"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        file_write(in_directory("config.json"), bad[i].json, strlen(bad[i].json));
        check(refuses(read_config, directory, bad[i].expected), "config.json: %s is refused", bad[i].name);
    }
    for (const char** family = (const char*[]){"gpt2", "llama", "mistral", "gpt_neox", "phi3", "qwen2", "qwen3",
                                               "smollm3", "olmo2", "olmo3", "gemma2", "gemma3_text", "granite", NULL};
         *family; family++) {
        ModelConfig c, d;
        check(model_config_defaults(&c, *family), "%s is supported", *family);
        c.L = 3;
        c.C = 64;
        c.NH = 2;
        c.FF = 200;
        c.V = 331;
        c.max_positions = 77;
        c.bos_id = 5;
        c.eos_id = 0;
        model_config_complete(&c, "here");
        char* text = model_config_json(&c, NULL, "float32");
        file_write(in_directory("config.json"), text, strlen(text));
        free(text);
        model_config_read(&d, directory);
        check(!memcmp(&c, &d, sizeof c), "config.json of %s: what is written is read", *family);
    }
}

// ---------------------------------------------------------------------------------------------------

typedef struct {
    bool flag, toggle;
    int64_t n;
    double x;
    const char *word, *kind;
    StringList files;
} Values;
static const CommandRow some_commands[] = {{"run", "runs", NULL}, {"show", "shows", "FILE"}};
static const OptionRow some_options[] = {
    {"flag", OPTION_FLAG, offsetof(Values, flag), NULL, NULL, 0, 0, 3, 0, "a flag"},
    {"toggle", OPTION_SWITCH, offsetof(Values, toggle), "on", NULL, 0, 0, 3, 0, "a switch"},
    {"number", OPTION_INT, offsetof(Values, n), "7", NULL, 1, 100, 1, 0, "a number"},
    {"rate", OPTION_FLOAT, offsetof(Values, x), "0.5", NULL, 0, 1, 3, 0, "a rate"},
    {"word", OPTION_STRING, offsetof(Values, word), NULL, "WORD", 0, 0, 3, 1, "a word"},
    {"kind", OPTION_CHOICE, offsetof(Values, kind), "big", "big|small", 0, 0, 3, 0, "a kind"},
    {"file", OPTION_LIST, offsetof(Values, files), NULL, "FILE", 0, 0, 3, 0, "files"},
};
static const OptionTable some = {
    "program", "does", some_commands, 2, some_options, sizeof some_options / sizeof *some_options, NULL, 0};
static int parse_words(const char* words, Values* v, StringList* rest) {
    static char copy[512];
    char* argv[32];
    int argc = 0;
    snprintf(copy, sizeof copy, "program %s", words);
    for (char* p = strtok(copy, " "); p; p = strtok(NULL, " ")) argv[argc++] = p;
    return options_parse(&some, argc, argv, v, rest);
}
static void parse_and_drop(const void* words) {
    Values v;
    StringList rest;
    parse_words(words, &v, &rest);
}
static void test_options(void) {
    Values v;
    StringList rest;
    int c = parse_words("run --word w --flag --number=12 --rate 1e-1 --file a --file b --toggle off", &v, &rest);
    check(c == 0 && v.flag && !v.toggle && v.n == 12 && v.x == 0.1 && !strcmp(v.word, "w") && !strcmp(v.kind, "big") &&
              v.files.n == 2 && !strcmp(v.files.items[1], "b"),
          "options are read");
    c = parse_words("show one two --kind small", &v, &rest);
    check(c == 1 && rest.n == 2 && !strcmp(rest.items[1], "two") && v.n == 7 && !strcmp(v.kind, "small"),
          "defaults and positional words");
    static const struct {
        const char *words, *expected;
    } bad[] = {
        {"run --word w --number 12x", "expected a whole number"},
        {"run --word w --number 101", "expected 1 to 100"},
        {"run --word w --rate nan", "expected a number"},
        {"run --word w --rate 2", "expected 0 to 1"},
        {"run --word w --kind huge", "expected one of big|small"},
        {"run --word w --numbr 3", "did you mean --number?"},
        {"run --word", "needs a value"},
        {"run --word --flag", "needs a value"},
        {"run", "--word is required"},
        {"run --word w --word v", "given twice"},
        {"show --number 3", "not an option of this command"},
        {"run --word w stray", "unexpected \"stray\""},
        {"rum --word w", "did you mean run?"},
        {"run --word w --flag=on", "takes no value"},
        {"run --word w --toggle maybe", "expected on or off"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check(refuses(parse_and_drop, bad[i].words, bad[i].expected), "options: \"%s\" is refused", bad[i].words);
    char* json = options_json(&some, 0, &(Values){true, false, 3, 0.25, "a\"b", "big", {NULL, 0}});
    check(!strcmp(json,
                  "{\"flag\":true,\"toggle\":false,\"number\":3,\"rate\":0.25,\"word\":\"a\\\"b\",\"kind\":\"big\","
                  "\"file\":[]}"),
          "options as JSON: %s", json);
    free(json);
}

int main(void) {
    program_name = "test_host";
    snprintf(directory, sizeof directory, "/tmp/test_host.XXXXXX");
    if (!mkdtemp(directory)) return 1;
    test_random();
    test_schedules();
    test_packing();
    test_safetensors();
    test_files();
    test_config();
    test_options();
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    if (system(command)) return 1;
    return check_report();
}
