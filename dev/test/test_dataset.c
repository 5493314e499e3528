/*
Readers, layouts and tokens: files of every format against rows written by hand, with the damage real files have; the
joint tokenisation under a tokenizer that merges over the end of the prompt; the cache. What must end the program runs
in a child process.
*/
#include <cjson/cJSON.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include "check.h"
#include "rows/dataset.h"
#include "base/error.h"
#include "base/file.h"
#include "rows/tokens.h"
#include "refuses.h"
#include "scratch.h"

static const char* put_gz(const char* name, const char* text) {
    const char* path = in_directory(name);
    gzFile f = gzopen(path, "wb");
    gzwrite(f, text, (unsigned)strlen(text));
    gzclose(f);
    return path;
}

// Every row of a file as "row state prompt|response\n" (line ends in texts as ~), so that a whole file is compared in
// one check.
static char* rows_text(const char* path, const RowOptions* options) {
    static Text out;
    StringList files = {&path, 1};
    RowReader* r = rows_open(&files, options);
    DataRow row;
    out.n = 0;
    text_add(&out, "", 0);
    while (rows_next(r, &row)) {
        char head[64];
        text_add(&out, head, (size_t)snprintf(head, sizeof head, "%lld %c ", (long long)row.row, "+mpra"[row.state]));
        if (row.state != ROW_MALFORMED) {
            text_add(&out, row.prompt, row.prompt_length);
            text_add(&out, "|", 1);
            text_add(&out, row.response, row.response_length);
        }
        for (size_t i = 0; i < out.n; i++)
            if (out.s[i] == '\n') out.s[i] = '~';
        text_add(&out, ";", 1);
    }
    rows_close(r);
    return out.s;
}
static void expect_rows(const char* name, const char* path, const RowOptions* options, const char* expected) {
    char* got = rows_text(path, options);
    if (!check(!strcmp(got, expected), "%s", name)) printf("# got  %s\n# expected %s\n", got, expected);
}

// ---------------------------------------------------------------------------------------------------

static void test_formats(void) {
    RowOptions o = {.prompt_template = "{prompt}>"};
    const char* lines =
        "{\"prompt\":\"a\",\"response\":\"b\"}\r\n\n  "
        "\n{\"prompt\":\"c\\u00e9\",\"completion\":\"d\\n\"}\n{\"prompt\":\"\",\"response\":\"x\"}\n"
        "{\"prompt\":\"x\",\"response\":\"\"}\n{\"prompt\":\"x\"\n[1]\n{\"prompt\":\"z\",\"response\":null}\n{\"q\":1}"
        "\n{\"prompt\":\"e\",\"response\":\"f\"}";
    const char* want = "0 + a>|b;1 + c\xc3\xa9>|d~;2 p >|x;3 r x>|;4 m ;5 m ;6 r z>|;7 m ;8 + e>|f;";
    expect_rows("jsonl: CRLF, blank lines, damage, no last line end", put("a.jsonl", lines), &o, want);
    expect_rows("jsonl.gz", put_gz("a.jsonl.gz", lines), &o, want);
    expect_rows("objects one a line under the name .json", put("lines.json", lines), &o, want);
    const char* array =
        "\xef\xbb\xbf [ {\"prompt\":\"[a,\\\"]\",\"response\":\"}b\"} ,\n "
        "{\"prompt\":\"c\",\n\"response\":{\"x\":[1,2]}}, 7, {\"prompt\":\"d\" \"response\"}"
        ",{\"prompt\":\"e\\\\\",\"response\":3}]\n ";
    want = "0 + [a,\"]>|}b;1 m ;2 m ;3 m ;4 m ;";
    expect_rows("json array: brackets in strings, damage inside a record", put("a.json", array), &o, want);
    expect_rows("json.gz", put_gz("a.json.gz", array), &o, want);
    RowOptions number = {.prompt_template = "{prompt}>", .prompt_field = "{prompt}", .response_field = "{response}"};
    expect_rows("numbers as texts where the field is named",
                put("n.jsonl", "{\"prompt\":1,\"response\":2.5}\n{\"prompt\":true,\"response\":\"x\"}"), &number,
                "0 + 1>|2.5;1 + true>|x;");
    expect_rows("an empty array has no rows", put("empty.json", "[ ]"), &o, "");
    expect_rows("an empty file has no rows", put("empty.jsonl", ""), &o, "");
    const char* csv =
        "prompt,note,\"response\"\r\n\"a,\"\"q\"\"\",1,\"two\nlines\"\r\n\r\nb,2,c\nd,3\n\"x\"y,1,2\n,1,2\ne,,"
        "\"\"\nlast,1,l";
    want = "0 + a,\"q\">|two~lines;1 + b>|c;2 m ;3 m ;4 p >|2;5 r e>|;6 + last>|l;";
    expect_rows("csv: quotes, line ends in fields, wrong number of fields", put("a.csv", csv), &o, want);
    expect_rows("csv.gz", put_gz("a.csv.gz", csv), &o, want);
    expect_rows("a zero character and bad UTF-8 are malformed",
                put("z.jsonl",
                    "{\"prompt\":\"a\\u0000b\",\"response\":\"b\"}\n{\"prompt\":\"a\\\\u0000b\",\"response\":\"b\"}\n{"
                    "\"prompt\":\"\xff\",\"response\":\"b\"}\n"),
                &o, "0 m ;1 + a\\u0000b>|b;2 m ;");
}

static void test_layouts(void) {
    RowOptions o = {0};
    static const struct {
        const char *record, *want;
    } cases[] = {
        {"{'prompt':'P','chosen':'C','rejected':'R'}", "P|C"},
        {"{'prompt':'P','response':'R'}", "Human: P~Assistant: |R"},
        {"{'prompt':'P','completion':'R'}", "Human: P~Assistant: |R"},
        {"{'instruction':'I','input':'','output':'O'}", "Human: I~Assistant: |O"},
        {"{'instruction':'I','input':'N','output':'O'}", "Human: I~N~Assistant: |O"},
        {"{'output':'O','instruction':'I'}", "Human: I~Assistant: |O"},
        {"{'instruction':'I','input':'N','response':'O'}", "Human: I~N~Assistant: |O"},
        {"{'instruction':'I','context':'N','response':'O','category':'c'}", "Human: I~N~Assistant: |O"},
        {"{'question':'Q','response':'R'}", "Human: Q~Assistant: |R"},
        {"{'question':'Q','answer':'R'}", "Human: Q~Assistant: |R"},
        {"{'system_prompt':'S','question':'Q','response':'R'}", "Human: Q~Assistant: |R"},
        {"{'input':'I','output':'O'}", "I|O"},
        {"{'conversations':[{'from':'system','value':'S'},{'from':'human','value':'H'},{'from':'gpt','value':'G'}]}",
         "S~Human: H~Assistant: |G"},
        {"{'messages':[{'role':'user','content':'A'},{'role':'assistant','content':'B'},{'role':'user','content':'C'},{"
         "'role':'assistant','content':'D'}]}",
         "Human: A~Assistant: B~Human: C~Assistant: |D"},
        {"{'chat':[{'role':'user','content':'A'},{'role':'assistant','content':'B'}]}", "Human: A~Assistant: |B"},
        {"{'chosen':'\\n\\nHuman: A\\n\\nAssistant: B\\n\\nHuman: C\\n\\nAssistant: D','rejected':'\\n\\nHuman: "
         "A\\n\\nAssistant: E'}",
         "Human: A~Assistant: B~Human: C~Assistant: |D"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char record[512], want[512];
        snprintf(record, sizeof record, "%s", cases[i].record);
        for (char* c = record; *c; c++)
            if (*c == '\'') *c = '"';
        snprintf(want, sizeof want, "0 + %s;", cases[i].want);
        char name[600];
        snprintf(name, sizeof name, "layout %.70s", cases[i].record);
        expect_rows(name, put("layout.jsonl", record), &o, want);
    }
    const char* hh = put("hh.jsonl",
                         "{\"chosen\":\"\\n\\nHuman: A\\n\\nAssistant: B\",\"rejected\":\"\\n\\nHuman: "
                         "A\\n\\nAssistant: E\"}\n{\"chosen\":\"x\",\"rejected\":\"\\n\\nHuman: A\"}\n"
                         "{\"rejected\":\"\\n\\nHuman:\\n\\nAssistant: E\"}");
    expect_rows("HH, the rejected side", hh, &(RowOptions){.response_field = "rejected"},
                "0 + Human: A~Assistant: |E;1 m ;2 p Human: ~Assistant: |E;");
    expect_rows(
        "--response-field of a row with prompt",
        put("r.jsonl", "{\"prompt\":\"P\",\"chosen\":\"C\",\"rejected\":\"R\"}\n{\"prompt\":\"P\",\"worse\":\"R\"}"),
        &(RowOptions){.response_field = "{rejected}"}, "0 + P|R;1 m ;");
    expect_rows("--prompt-field alone", put("r.jsonl", "{\"a\":\"A\",\"b\":{\"c\":[\"x\",\"C\"]},\"response\":\"R\"}"),
                &(RowOptions){.prompt_field = "{{{a}}}\\n{b.c.1}", .prompt_template = "<{prompt}>\\n"},
                "0 + <{A}~C>~|R;");
    expect_rows("prompts only",
                put("p.jsonl",
                    "{\"prompt\":\"A\"}\n{\"instruction\":\"I\"}\n{\"messages\":[{\"role\":\"user\",\"content\":\"M\"}]"
                    "}\n{\"question\":\"Q\",\"answer\":\"R\"}\n{\"prompt\":\"\"}"),
                &(RowOptions){.prompts_only = true, .prompt_template = "{prompt}>"},
                "0 + A>|;1 + I>|;2 + M>|;3 + Q>|R;4 p >|;");
    expect_rows(
        "bad turns",
        put("t.jsonl",
            "{\"messages\":[]}\n{\"messages\":[{\"role\":\"user\",\"content\":\"M\"}]}\n{\"messages\":[{\"role\":"
            "\"cat\",\"content\":\"M\"}]}\n"
            "{\"messages\":[{\"role\":\"assistant\",\"content\":\"M\"}]}\n{\"messages\":[{\"role\":\"user\"}]}"),
        &o, "0 m ;1 m ;2 m ;3 p |M;4 m ;");
}

// Offsets must lead back to the original bytes, ids run on over files, a .gz has its content's digest.
static void test_offsets(void) {
    const char* text = "\n{\"prompt\":\"a\",\"response\":\"b\"}\r\nnonsense\n{\"prompt\":\"c\",\"response\":\"d\"}";
    const char* array = "[\n {\"prompt\":\"a\",\"response\":\"b\"} ,{}]";
    const char *texts[3] = {text, array, text},
               *paths[3] = {put("o.jsonl", text), put("o.json", array), put_gz("o2.jsonl.gz", text)};
    StringList files = {paths, 3};
    RowReader* r = rows_open(&files, &(RowOptions){0});
    DataRow row;
    RowReport report = {0};
    int64_t id = 0;
    int good = 1, braces = 1;
    static const int lines[] = {2, 3, 4, 2, 2, 2, 3, 4};
    int lines_good = 1;
    while (rows_next(r, &row)) {
        const char* bytes = texts[row.file] + row.offset;
        good &= row.id == id && row.offset + row.length <= strlen(texts[row.file]);
        braces &= row.state == ROW_MALFORMED || (bytes[0] == '{' && bytes[row.length - 1] == '}');
        lines_good &= id < 8 && row.line == lines[id];
        row_report_add(&report, &row, paths[row.file], NULL);
        id++;
    }
    check(good && id == 8, "ids run on over files");
    check(braces, "offset and length are the record's bytes");
    check(lines_good, "lines are counted from 1");
    check(row_report_bad(&report) == 3 && report.n_named == 3 && strstr(report.named[0], "o.jsonl:3, row 1"),
          "bad rows are named by file, line and row");
    Hex all, again, one, plain;
    rows_digest(r, all);
    rows_close(r);
    dataset_digest(&files, again);
    dataset_digest(&(StringList){paths + 2, 1}, one);
    sha256_hex(text, strlen(text), plain);
    check(!strcmp(all, again), "digest while reading equals dataset_digest");
    check(!strcmp(one, plain), "a .gz has the digest of its content");
    RowReport many = {0};
    for (int i = 0; i < 25; i++)
        row_report_add(&many, &(DataRow){.row = i, .state = i < 5 ? ROW_OK : ROW_EMPTY_RESPONSE}, "f", NULL);
    FILE* out = tmpfile();
    row_report_print(&many, false, out);
    char said[4096] = "";
    rewind(out);
    if (fread(said, 1, sizeof said - 1, out) == 0) *said = 0;
    fclose(out);
    check(strstr(said, "20 of 25 rows are left out: 20 with an empty response") && strstr(said, "row 14:") &&
              !strstr(said, "row 15:") && strstr(said, "and 10 more"),
          "the first ten bad rows are named, the rest counted");
}

// Records larger than the buffer and cut at every place of it: the same rows from any buffer position.
static void test_long(void) {
    Text big = {0};
    text_add(&big, "[", 1);
    for (int i = 0; i < 400; i++) {
        char head[64];
        text_add(&big, head,
                 (size_t)snprintf(head, sizeof head, "%s{\"prompt\":\"%d\",\"response\":\"", i ? "," : "", i));
        for (int k = 0; k < i * 7 + 1; k++) text_add(&big, "\\\"}]", 4);
        text_add(&big, "\"}", 2);
    }
    text_add(&big, "]", 1);
    const char* path = in_directory("big.json");
    file_write(path, big.s, big.n);
    RowReader* r = rows_open(&(StringList){&path, 1}, &(RowOptions){.prompt_template = "{prompt}"});
    DataRow row;
    int good = 1, n = 0;
    while (rows_next(r, &row)) {
        good &= row.state == ROW_OK && atoi(row.prompt) == n && row.response_length == ((size_t)n * 7 + 1) * 3;
        n++;
    }
    rows_close(r);
    check(good && n == 400, "records across the buffer's ends (%zu bytes)", big.n);
    text_free(&big);
}

static void read_all(const void* path) {
    const char* p = path;
    rows_text(p, &(RowOptions){0});
}
static void check_options(const void* options) { row_options_check(options); }

static void test_refusals(void) {
    check(refuses(read_all, in_directory("none.jsonl"), "none.jsonl cannot be read"), "a missing file is refused");
    check(refuses(read_all, in_directory("x.parquet"), "ends in .jsonl, .json or .csv"),
          "an unknown format is refused");
    check(refuses(read_all, put("cut.json", "[{\"prompt\":\"a\""), "cut.json:1: the file ends inside row 0"),
          "an array cut off is refused");
    check(refuses(read_all, put("brace.json", "[{\"a\":1}}]"), "unmatched closing brace"),
          "a closing brace too many is refused");
    check(refuses(read_all, put("trailing.json", "[{\"a\":1}] x"), "after the end of the array"),
          "text after the array is refused");
    check(refuses(read_all, put("text.json", "hello"), "is an array of records"),
          "a .json that is not an array is refused");
    check(refuses(read_all, put("quote.csv", "a,b\n1,\"2\n3,4\n"), "quote.csv:2: the file ends inside a quoted field"),
          "a quote never closed is refused");
    check(refuses(read_all, put("empty.csv", ""), "expected a header"), "a csv without header is refused");
    size_t length;
    char* gz = file_read(
        put_gz(
            "whole.jsonl.gz",
            "{\"prompt\":\"aaaa bbbb cccc\",\"response\":\"some more text that does not compress well 0123456789\"}\n"),
        1 << 20, &length);
    file_write(in_directory("cut.jsonl.gz"), gz, length - 12);
    check(refuses(read_all, in_directory("cut.jsonl.gz"), "cut off"), "a .gz cut off is refused");
    gz[length / 2] ^= 0x55;
    file_write(in_directory("bad.jsonl.gz"), gz, length);
    check(refuses(read_all, in_directory("bad.jsonl.gz"), "bad.jsonl.gz cannot be read after byte"),
          "a damaged .gz is refused");
    free(gz);
    check(refuses(check_options, &(RowOptions){.prompt_template = "Human: "}, "{prompt}"),
          "a template without {prompt} is refused");
    check(refuses(check_options, &(RowOptions){.prompt_field = "{a"}, "unmatched '{' at character 1; write {field}"),
          "an open brace in a field template is refused");
}

// ---------------------------------------------------------------------------------------------------
// A tokenizer small enough to know the answer: BOS 256; a space and the byte after it are one token (byte + 1000), as
// in byte-level BPE; any other byte is one; "$" ends a sequence (257).

typedef struct {
    int32_t *ids, *start, *end;
    size_t capacity;
} ToyScratch;
enum { TOY_BOS = 256, TOY_EOS = 257, TOY_PAIR = 1000, TOY_VOCAB = 1256 };
static int toy_calls;  // counted without care for threads: tests of it run with one

static void* toy_begin(void* self) {
    (void)self;
    return calloc(1, sizeof(ToyScratch));
}
static void toy_finish(void* self, void* scratch) {
    (void)self;
    ToyScratch* s = scratch;
    free(s->ids);
    free(s->start);
    free(s->end);
    free(s);
}
static int64_t toy_encode(void* self, void* scratch, const char* text, size_t n, const int32_t** ids,
                          const int32_t** start, const int32_t** end, const char** error) {
    ToyScratch* s = scratch;
    if (!self) toy_calls++;
    if (memchr(text, '#', n)) {
        *error = "a hash";
        return -1;
    }
    if (s->capacity < n + 1) {
        s->capacity = n + 1;
        s->ids = realloc(s->ids, (n + 1) * 4);
        s->start = realloc(s->start, (n + 1) * 4);
        s->end = realloc(s->end, (n + 1) * 4);
    }
    int64_t k = 0;
    s->ids[k] = TOY_BOS;
    s->start[k] = s->end[k] = 0;
    k++;
    for (size_t i = 0; i < n;) {
        bool pair = text[i] == ' ' && i + 1 < n && text[i + 1] != '$';
        s->ids[k] = pair ? TOY_PAIR + (unsigned char)text[i + 1] : text[i] == '$' ? TOY_EOS : (unsigned char)text[i];
        s->start[k] = (int32_t)i;
        i += pair ? 2 : 1;
        s->end[k++] = (int32_t)i;
    }
    *ids = s->ids;
    *start = s->start;
    *end = s->end;
    return k;
}
static const TextEncoder toy = {NULL, toy_begin, toy_finish, toy_encode, TOY_VOCAB, TOY_BOS, TOY_EOS, "$", "toy", NULL};
static const TextEncoder toy_threads = {(void*)&toy, toy_begin, toy_finish, toy_encode, TOY_VOCAB,
                                        TOY_BOS,     TOY_EOS,   "$",        "toy",      NULL};

static int sample_is(const TokenSet* s, int i, const int32_t* tokens, int n, int first) {
    if (i >= s->n || s->samples[i].length != n || memcmp(s->samples[i].tokens, tokens, (size_t)n * 4) ||
        s->samples[i].n_loss != n - first)
        return 0;
    for (int t = 0; t < n; t++)
        if (s->samples[i].bears_loss[t] != (t >= first)) return 0;
    return 1;
}

static void test_tokens(void) {
    const char* path = put("tokens.jsonl",
                           "{\"prompt\":\"ab\",\"response\":\"cde\"}\nbad\n{\"prompt\":\"abcdefgh\",\"response\":\"c\"}"
                           "\n{\"prompt\":\"a\",\"response\":\"cdefghijk\"}\n{\"prompt\":\"#\",\"response\":\"c\"}\n");
    StringList files = {&path, 1};
    TokenOptions o = {.rows = {.prompt_template = "{prompt}: "}, .max_length = 10, .quiet = true, .threads = 1};
    TokenSet s;
    tokens_load(&s, &files, &toy, &o);
    enum { C = TOY_PAIR + 'c' };
    check(s.n == 2 && s.rows[0] == 0 && s.rows[1] == 3 && s.n_rows == 5, "usable rows keep their numbers");
    check(sample_is(&s, 0, (int32_t[]){TOY_BOS, 'a', 'b', ':', C, 'd', 'e', ' ', TOY_EOS}, 9, 4),
          "the token that merges the prompt's space with the response carries loss");
    check(sample_is(&s, 1, (int32_t[]){TOY_BOS, 'a', ':', C, 'd', 'e', 'f', 'g', 'h', TOY_EOS}, 10, 3) && s.n_cut == 1,
          "a cut row ends in eos");
    check(s.report.count[ROW_TOO_LONG] == 1 && s.report.count[ROW_MALFORMED] == 2 &&
              strstr(s.report.named[1], "its prompt has 10 tokens"),
          "too long a prompt and a text that cannot be tokenised are left out and named");
    check(s.n_tokens == 19 && s.n_loss == 5 + 7 && s.longest == 10, "totals");
    char hash[17];
    Hex hex;
    sha256_hex("ab: \0cde", 8, hex);
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)s.hashes[0]);
    check(!strncmp(hash, hex, 16), "a row's hash is the beginning of its SHA-256");
    tokens_free(&s);
    o.compat = true;
    tokens_load(&s, &files, &toy, &o);
    check(sample_is(&s, 0, (int32_t[]){TOY_BOS, 'a', 'b', ':', C, 'd', 'e', ' ', TOY_EOS}, 9, 5),
          "--compat masks the tokens of the prompt tokenised alone");
    tokens_free(&s);
}

static void test_cache(void) {
    Text lines = {0};
    for (int i = 0; i < 9000; i++) {  // more than two chunks
        char line[128];
        text_add(&lines, line,
                 (size_t)snprintf(line, sizeof line, "{\"prompt\":\"%d\",\"response\":\"%.*s\"}\n", i, i % 40,
                                  "a response of up to forty characters, or"));
    }
    const char* path = in_directory("many.jsonl");
    file_write(path, lines.s, lines.n);
    text_free(&lines);
    StringList files = {&path, 1};
    char cache[256];
    snprintf(cache, sizeof cache, "%s", in_directory("cache.safetensors"));
    TokenOptions o = {.max_length = 64, .quiet = true, .threads = 1};
    TokenSet plain, made, again;
    tokens_load(&plain, &files, &toy_threads, &(TokenOptions){.max_length = 64, .quiet = true, .threads = 7});
    o.cache = cache;
    tokens_load(&made, &files, &toy, &o);
    int calls = toy_calls;
    tokens_load(&again, &files, &toy, &o);
    int same = plain.n == made.n && made.n == again.n && made.n_tokens == plain.n_tokens &&
               again.n_loss == plain.n_loss && again.n_cut == plain.n_cut && again.n_rows == 9000;
    for (int i = 0; same && i < plain.n; i++)
        same &= sample_is(&made, i, plain.samples[i].tokens, plain.samples[i].length,
                          plain.samples[i].length - plain.samples[i].n_loss) &&
                sample_is(&again, i, plain.samples[i].tokens, plain.samples[i].length,
                          plain.samples[i].length - plain.samples[i].n_loss) &&
                plain.rows[i] == again.rows[i] && plain.hashes[i] == again.hashes[i];
    check(same, "seven threads, one thread and the cache give the same samples");
    check(plain.n == 8775 && row_report_bad(&again.report) == 225 &&
              !memcmp(plain.report.named, again.report.named, sizeof plain.report.named),
          "the cache keeps the report of bad rows");
    check(!made.cached && again.cached && toy_calls == calls, "the second load comes from the cache");
    tokens_free(&made);
    tokens_free(&again);
    o.max_length = 63;
    tokens_load(&again, &files, &toy, &o);
    check(!again.cached, "other options make another cache");
    tokens_free(&again);
    size_t length;
    char* whole = file_read(cache, 1 << 24, &length);
    int rebuilt = 0, tries = 0;
    for (size_t at = 0; at < length + 2; at += length / 23) {
        char* copy = malloc(length);
        memcpy(copy, whole, length);
        if (at < length) copy[at] ^= 0x10;
        file_write(cache, copy, at > length - 40 ? length - 4 : length);
        free(copy);
        tokens_load(&again, &files, &toy, &o);
        rebuilt += !again.cached;
        tries++;
        tokens_free(&again);
    }
    free(whole);
    check(rebuilt == tries, "a damaged cache is made anew (%d of %d)", rebuilt, tries);
    tokens_free(&plain);
}

// A cache whose numbers are wrong and whose digests are right: every part's first element set to `value`.
static char* forged(const char* whole, size_t length, const char* part, const void* value, size_t bytes) {
    uint64_t size;
    memcpy(&size, whole, 8);
    cJSON* header = cJSON_ParseWithLength(whole + 8, size);
    const cJSON* metadata = cJSON_GetObjectItem(header, "__metadata__");
    const char *key = cJSON_GetObjectItem(metadata, "key")->valuestring,
               *report = cJSON_GetObjectItem(metadata, "report")->valuestring;
    size_t from = (size_t)cJSON_GetArrayItem(cJSON_GetObjectItem(cJSON_GetObjectItem(header, part), "data_offsets"), 0)
                      ->valuedouble,
           data = 8 + size;
    char* copy = malloc(length);
    Hex digest;
    memcpy(copy, whole, length);
    memcpy(copy + data + from, value, bytes);
    Text all = {0};
    text_add(&all, key, strlen(key));
    text_add(&all, report, strlen(report));
    text_add(&all, copy + data, length - data);
    sha256_hex(all.s, all.n, digest);
    memcpy(strstr(copy + 8, "\"content\":\"") + 11, digest, 64);
    text_free(&all);
    cJSON_Delete(header);
    return copy;
}

static void test_forged_cache(void) {
    const char* path = put("three.jsonl",
                           "{\"prompt\":\"a\",\"response\":\"bc\"}\n{\"prompt\":\"a\",\"response\":\"bcd\"}\n{"
                           "\"prompt\":\"b\",\"response\":\"b\"}\n");
    StringList files = {&path, 1};
    char cache[256];
    snprintf(cache, sizeof cache, "%s", in_directory("forged.safetensors"));
    TokenOptions o = {.max_length = 64, .quiet = true, .threads = 1, .cache = cache};
    TokenSet set;
    tokens_load(&set, &files, &toy, &o);
    tokens_free(&set);
    size_t length;
    char* whole = file_read(cache, 1 << 24, &length);
    const int64_t far = -1, two = 2, long_one = 1 << 20;
    const int32_t zero = 0, none = -(1 << 30), beyond = 1 << 30, first = 64;
    const struct {
        const char *part, *what;
        const void* value;
        size_t bytes;
        bool good;
    } cases[] = {
        {"first", "its own first value", NULL, 0, true},
        {"first", "a response that begins with its sample", &zero, 4, false},
        {"first", "a response before its sample", &none, 4, false},
        {"first", "one after it", &first, 4, false},
        {"offsets", "samples that begin elsewhere", &far, 8, false},
        {"offsets", "far away", &long_one, 8, false},
        {"tokens", "a token beyond the vocabulary", &beyond, 4, false},
        {"tokens", "a negative one", &none, 4, false},
        {"rows", "a negative row", &far, 8, false},
        {"rows", "rows that do not ascend", &two, 8, false},
        {"rows", "a row beyond the file", &long_one, 8, false},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        char* copy = forged(whole, length, cases[c].part, cases[c].value ? cases[c].value : "", cases[c].bytes);
        file_write(cache, copy, length);
        free(copy);
        tokens_load(&set, &files, &toy, &o);
        check(set.cached == cases[c].good && set.n == 3, "a cache with right digests and %s is %s", cases[c].what,
              cases[c].good ? "taken" : "made anew");
        tokens_free(&set);
    }
    free(whole);
}

// The tokenizer library under the same rule: byte-level BPE with the merges "Ġ S" and "u r", so that the prompt's last
// space joins the response's first word.
static void test_library(void) {
    Text json = {0};
    char entry[64];
    int id = 0, space, newline;
    const char* head =
        "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[{\"id\":98,\"content\":\"<|end|>"
        "\",\"special\":true,\"single_word\":false,"
        "\"lstrip\":false,\"rstrip\":false,\"normalized\":false}],\"normalizer\":null,\"pre_tokenizer\":{\"type\":"
        "\"ByteLevel\",\"add_prefix_space\":false,"
        "\"trim_offsets\":true,\"use_regex\":true},\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\"},"
        "\"model\":{\"type\":\"BPE\",\"dropout\":null,"
        "\"unk_token\":null,\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,"
        "\"merges\":[\"\xc4\xa0 S\",\"u r\"],\"vocab\":{";
    text_add(&json, head, strlen(head));
    for (int c = 33; c < 127; c++, id++)
        text_add(&json, entry,
                 (size_t)snprintf(entry, sizeof entry, "\"%s%c\":%d,", c == '"' || c == '\\' ? "\\" : "", c, id));
    space = id, newline = id + 1;
    text_add(&json, entry,
             (size_t)snprintf(entry, sizeof entry, "\"\xc4\xa0\":%d,\"\xc4\x8a\":%d,\"\xc4\xa0S\":%d,\"ur\":%d}}}", id,
                              id + 1, id + 2, id + 3));
    char tokenizer[256];
    snprintf(tokenizer, sizeof tokenizer, "%s", in_directory("tokenizer.json"));
    file_write(tokenizer, json.s, json.n);
    text_free(&json);
    TextEncoder e;
    text_encoder_open(&e, tokenizer, 98);
    const char* path = put("library.jsonl", "{\"prompt\":\"q\",\"response\":\"Sure\"}");
    enum { PAIR = 96, UR = 97, END = 98 };
#define A(c) ((c)-33)
    const int32_t want[] = {A('H'),  A('u'), A('m'), A('a'), A('n'), A(':'), space,  A('q'),
                            newline, A('A'), A('s'), A('s'), A('i'), A('s'), A('t'), A('a'),
                            A('n'),  A('t'), A(':'), PAIR,   UR,     A('e'), space,  END};
    enum { N = sizeof want / sizeof *want };
    TokenOptions o = {.max_length = 64, .quiet = true};
    TokenSet s;
    tokens_load(&s, &(StringList){&path, 1}, &e, &o);
    check(sample_is(&s, 0, want, N, N - 5),
          "byte-level BPE: the response's first word carries loss with the prompt's last space");
    tokens_free(&s);
    o.compat = true;
    tokens_load(&s, &(StringList){&path, 1}, &e, &o);
    check(sample_is(&s, 0, want, N, N - 4), "byte-level BPE, --compat: the reference masks that word");
    tokens_free(&s);
    text_encoder_close(&e);
}

static void load_tokens(const void* path) {
    const char* p = path;
    TokenSet s;
    tokens_load(&s, &(StringList){&p, 1}, &toy, &(TokenOptions){.max_length = 64, .quiet = true, .vocab = 300});
}

static void test_token_refusals(void) {
    check(refuses(load_tokens, put("bad.jsonl", "x\ny\n"), "none of 2 rows is usable"),
          "all rows unusable is an error");
    check(refuses(load_tokens, put("void.jsonl", ""), "none of 0 rows is usable"), "an empty file is an error");
    check(refuses(load_tokens, put("vocab.jsonl", "{\"prompt\":\"a\",\"response\":\"b c\"}"),
                  "the model's vocabulary has 300"),
          "a token outside the model's vocabulary is an error");
}

// What Python's bytes.decode("utf-8", "replace") makes of them.
static void test_utf8(void) {
    const struct {
        const char *bytes, *want, *what;
        size_t n;
    } cases[] = {
        {"a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z", "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z",
         "characters of one to four bytes stay", 11},
        {"a\xF0\x9F\x98z", "a\xEF\xBF\xBDz", "a character without its end is one mark", 5},
        {"\xE2\x82", "\xEF\xBF\xBD", "so is one at the text's end", 2},
        {"\xD0x\xFF\x80", "\xEF\xBF\xBDx\xEF\xBF\xBD\xEF\xBF\xBD", "bytes that begin nothing are one mark each", 4},
        {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD", "a surrogate is three", 3},
        {"\xC0\xAF\xE0\x80\xF4\x90", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD",
         "overlong and too large ones are a mark a byte", 6},
        {"a\0b",
         "a\xEF\xBF\xBD"
         "b",
         "a zero does not end the text", 3},
        {"", "", "nothing is an empty text", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Text t = {0};
        text_add_utf8(&t, cases[i].bytes, cases[i].n);
        check(t.n == strlen(cases[i].want) && !strcmp(t.s, cases[i].want), "UTF-8: %s", cases[i].what);
        text_free(&t);
    }
}

int main(void) {
    program_name = "test_dataset";
    strcpy(directory, "/tmp/test_dataset_XXXXXX");
    if (!mkdtemp(directory)) return 1;
    test_utf8();
    test_formats();
    test_layouts();
    test_offsets();
    test_long();
    test_refusals();
    test_tokens();
    test_cache();
    test_forged_cache();
    test_library();
    test_token_refusals();
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", directory);
    if (system(command)) return 1;
    return check_report();
}
