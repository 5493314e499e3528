// The interpreter of chat templates against transformers' renderings (dev/reference/record_chat_templates.py): small
// templates of our own, the real ones where ../shared has them, and what a hostile one runs into.
#include <stdlib.h>
#include "check.h"
#include "base/file.h"
#include "jinja.h"
#include "tokenizer_internal.h"

#define GOLDEN "dev/reference/golden/chat_templates/"
#define REAL "../shared/data/chat_templates/"

typedef struct {
    char* s;
    size_t n, at;
} Bytes;
typedef struct {
    const char* s;
    size_t n;
} String;

static Bytes read_golden(const char* name) {
    Bytes b = {0};
    char path[256], error[256];
    snprintf(path, sizeof path, GOLDEN "%s", name);
    if (!read_file(path, &b.s, &b.n, (ErrorBuffer){error, sizeof error})) check(false, "%s", error);
    return b;
}

static bool next(Bytes* b, String* out) {
    char* end;
    if (b->at >= b->n) return false;
    out->n = strtoull(b->s + b->at, &end, 10);
    out->s = end + 1;
    b->at = (size_t)(out->s - b->s) + out->n + 1;
    return true;
}

static const char defaults[] = "{\"tools\":null,\"documents\":null,\"add_generation_prompt\":false}";

static bool render(const JinjaTemplate* t, JinjaScratch* s, String row, JinjaResult* r, char* error) {
    return jinja_render(t, s, row.s, row.n, defaults, sizeof defaults - 1, r, error, 512);
}

static void spans(const JinjaResult* r, char* out, size_t size) {
    *out = 0;
    for (size_t i = 0; i < r->n_generation; i++) {
        size_t n = strlen(out);
        snprintf(out + n, size - n, "%s%zu:%zu", i ? " " : "", r->generation[i].start, r->generation[i].end);
    }
}

static void test_snippets(void) {
    Bytes b = read_golden("snippets.gz");
    String variables, template, outcome, text, marks;
    int counts[3] = {0}, bad = 0;
    JinjaScratch* s = jinja_begin(NULL);
    next(&b, &variables);
    while (next(&b, &template) && next(&b, &outcome) && next(&b, &text) && next(&b, &marks)) {
        char error[512] = "", got[4096] = "";
        JinjaResult r = {0};
        JinjaTemplate* t = jinja_compile("snippet", template.s, template.n, error, sizeof error);
        bool rendered = t && render(t, s, variables, &r, error);
        spans(&r, got, sizeof got);
        bool same = *outcome.s == 't' ? rendered && r.n == text.n && !memcmp(r.text, text.s, text.n) &&
                                            strlen(got) == marks.n && !memcmp(got, marks.s, marks.n)
                                      : !rendered && strstr(error, "(snippet, line ");
        counts[*outcome.s == 't' ? 0 : *outcome.s == 'e' ? 1 : 2]++;
        if (!same && bad++ < 10)
            check(false, "%.*s\n#   expected %.*s %.*s [%.*s]\n#   got      %.*s [%s] %s", (int)template.n, template.s,
                  (int)outcome.n, outcome.s, (int)text.n, text.s, (int)marks.n, marks.s, (int)r.n, r.text ? r.text : "",
                  got, error);
        jinja_free(t);
    }
    jinja_end(s);
    free(b.s);
    check(!bad && counts[0] > 200 && counts[1] > 150 && counts[2] > 5,
          "small templates: %d render as in transformers, %d fail as there, %d are refused by name", counts[0],
          counts[1], counts[2]);
}

static void test_real(void) {
    Bytes b = read_golden("real.gz");
    String rows, name, digest, lines;
    int templates = 0, texts = 0, refused = 0, bad = 0;
    JinjaScratch* s = jinja_begin(NULL);
    next(&b, &rows);
    while (next(&b, &name) && next(&b, &digest) && next(&b, &lines)) {
        char path[512], error[512], *source, marks[4096];
        Hex hex;
        size_t n;
        snprintf(path, sizeof path, REAL "%.*s.jinja", (int)name.n, name.s);
        if (!read_file(path, &source, &n, (ErrorBuffer){error, sizeof error})) continue;
        sha256_hex(source, n, hex);
        check(!memcmp(hex, digest.s, 64), "%.*s is the template that was recorded", (int)name.n, name.s);
        JinjaTemplate* t = jinja_compile("real", source, n, error, sizeof error);
        check(t != NULL, "%.*s compiles: %s", (int)name.n, name.s, t ? "yes" : error);
        const char *row = rows.s, *line = lines.s;
        for (int i = 1; t && row < rows.s + rows.n; i++) {
            const char *row_end = memchr(row, '\n', (size_t)(rows.s + rows.n - row)),
                       *line_end = memchr(line, '\n', (size_t)(lines.s + lines.n - line));
            if (!row_end) row_end = rows.s + rows.n;
            if (!line_end) line_end = lines.s + lines.n;
            JinjaResult r = {0};
            bool rendered = render(t, s, (String){row, (size_t)(row_end - row)}, &r, error);
            *hex = 0;
            if (rendered) {
                spans(&r, marks, sizeof marks);
                size_t all = r.n + 1 + strlen(marks);
                char* both = malloc(all + 1);
                memcpy(both, r.text, r.n + 1);
                strcpy(both + r.n + 1, marks);
                sha256_hex(both, all, hex);
                free(both);
            }
            bool same = *line == 'e' && line[1] == 'r' ? !rendered : rendered && !memcmp(hex, line, 16);
            if (!same && bad++ < 5)
                check(false, "%.*s, row %d: %.200s", (int)name.n, name.s, i, rendered ? "another text" : error);
            texts += rendered;
            refused += !rendered;
            row = row_end + 1;
            line = line_end + 1;
        }
        templates++;
        jinja_free(t);
        free(source);
    }
    jinja_end(s);
    free(b.s);
    if (templates)
        check(!bad && templates >= 28, "%d real templates: %d renderings as in transformers, %d refused as there",
              templates, texts, refused);
    else check(true, "real templates # SKIP " REAL " is not there");
}

// A template that does not end, or that asks for too much: one line, in bounded time and memory.
static void test_limits(void) {
    static const char* const hostile[][2] = {
        {"{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "recursion deeper"},
        {"{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}", "steps"},
        {"{{ 'x' * 99999999999 }}", "memory"},
        {"{{ [1] * 99999999999 }}", "memory"},
        {"{% set ns = namespace(x='aa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
         "memory"},
        {"{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
         "too deeply"},
        {"{% set x = 'x' * 9000 %}{% for a in range(9000) %}{{ x }}{% endfor %}", "memory"},
        {"{{ '%99999999999d' % 1 }}", "memory"},
        {"{{ 'a'.center(9999999999) }}", "memory"},
        {"{{ (10 ** 18) ** 2 }}", "beyond 64 bits"},
        {"{% for x in [1] recursive %}{{ loop([x]) }}{% endfor %}", "recursion deeper"},
        {"{{ '{:99999999}'.format(1) }}", "memory"},
    };
    const JinjaLimits limits = {.steps = 2000000, .memory = (size_t)64 << 20, .depth = 400};
    JinjaScratch* s = jinja_begin(&limits);
    const String row = {"{}", 2};
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        char error[512] = "";
        JinjaResult r;
        JinjaTemplate* t = jinja_compile("hostile", hostile[i][0], strlen(hostile[i][0]), error, sizeof error);
        bool rendered = t && render(t, s, row, &r, error);
        check(!rendered && strstr(error, hostile[i][1]) && !strchr(error, '\n'), "%s: %s", hostile[i][0],
              rendered ? "ends" : error);
        jinja_free(t);
    }
    jinja_end(s);
    char deep[4000], error[512];
    memset(deep, '(', sizeof deep);
    memcpy(deep, "{{", 2);
    check(!jinja_compile("deep", deep, sizeof deep, error, sizeof error) && strstr(error, "deep"), "%s", error);
}

// The bytes of a rendering that a row wrote, whatever the template did to them.
static void test_given(void) {
    static const char* const cases[][3] = {
        {"<a>{{ m }}</a>", "{\"m\":\"x\"}", "3:4"},
        {"{{ '<' + m + '>' }}{{ m | upper }}", "{\"m\":\"ab\"}", "1:3 4:6"},
        {"{{ m.split('|')[1] | trim }}!", "{\"m\":\"a| b \"}", "0:1"},
        {"{{ m | tojson }}", "{\"m\":\"x\"}", "0:3"},
        {"{{ 'p{}s'.format(m) }}", "{\"m\":\"x\"}", "1:2"},
        {"{{ 'a' ~ m ~ 'b' | replace('b', 'c') }}", "{\"m\":\"x\"}", "1:2"},
        {"{{ ('a' ~ m)[1:] ~ ('a' ~ m)[:1] }}", "{\"m\":\"xy\"}", "0:2"},
        {"{% set x %}{{ m }}-{% endset %}{{ x * 2 }}", "{\"m\":\"x\"}", "0:1 2:3"},
        {"<|{{ messages[0].role }}|>{{ messages[0].content }}",
         "{\"messages\":[{\"role\":\"user\",\"content\":\"user\"}]}", "8:12"},
        {"<|{{ messages[0].role }}|>", "{\"messages\":[{\"role\":\"endoftext\",\"content\":\"\"}]}", "2:11"},
        {"{{ bos_token }}{{ m }}", "{\"m\":\"\",\"bos_token\":\"<s>\"}", "0:3"},
    };
    JinjaScratch* s = jinja_begin(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char error[512] = "", got[256] = "";
        JinjaResult r = {0};
        JinjaTemplate* t = jinja_compile("given", cases[i][0], strlen(cases[i][0]), error, sizeof error);
        if (t && render(t, s, (String){cases[i][1], strlen(cases[i][1])}, &r, error))
            for (size_t k = 0; k < r.n_given; k++)
                snprintf(got + strlen(got), sizeof got - strlen(got), "%s%zu:%zu", k ? " " : "", r.given[k].start,
                         r.given[k].end);
        check(!strcmp(got, cases[i][2]), "%s of %s is the row's at %s (%s) %s", cases[i][0], cases[i][1], cases[i][2],
              got, error);
        jinja_free(t);
    }
    // ten megabytes in one message
    size_t n = 10 << 20;
    char *row = malloc(n + 64), error[512];
    int head = sprintf(row, "{\"m\":\"");
    memset(row + head, 'x', n);
    strcpy(row + head + n, "\"}");
    const char* template = "{{ m | trim | replace('y', 'z') ~ m.split('</x>')[0] }}";
    JinjaTemplate* t = jinja_compile("long", template, strlen(template), error, sizeof error);
    JinjaResult r = {0};
    check(t && render(t, s, (String){row, strlen(row)}, &r, error) && r.n == 2 * n && r.n_given == 1,
          "a message of 10 MB");
    jinja_free(t);
    free(row);
    jinja_end(s);
}

int main(void) {
    setenv("SOURCE_DATE_EPOCH", "1750000000", 1);  // the time of the recording
    setenv("TZ", "UTC", 1);
    test_snippets();
    test_real();
    test_limits();
    test_given();
    return check_report();
}
