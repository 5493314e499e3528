/* tokenizer/jinja.c and the files beside it. Input: a template, a zero byte, a row as JSON; without the zero the row is
   a small conversation. */
#include <string.h>
#include "jinja.h"
#include "fuzz.h"

static const char conversation[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\" a\\u00e9 \"},"
    "{\"role\":\"assistant\",\"content\":\"b</think>c\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":"
    "{\"x\":[1,2.5,null,true]}}}]}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"n\":3}";
static const char variables[] = "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\",\"add_generation_prompt\":true}";

static void in_order(const TextRange* r, size_t n, size_t length) {
    for (size_t i = 0; i < n; i++) MUST(r[i].start <= r[i].end && r[i].end <= length);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    const JinjaLimits limits = {.steps = 200000, .memory = (size_t)8 << 20, .depth = 100};
    const uint8_t* zero = n ? memchr(data, 0, n) : NULL;
    size_t length = zero ? (size_t)(zero - data) : n;
    const char* row = zero ? (const char*)zero + 1 : conversation;
    size_t n_row = zero ? n - length - 1 : sizeof conversation - 1;
    char error[256] = "";
    JinjaTemplate* t = jinja_compile("fuzz", (const char*)data, length, error, sizeof error);
    MUST(t || (*error && !strchr(error, '\n')));
    if (!t) return 0;
    JinjaScratch* s = jinja_begin(&limits);
    MUST(s);
    for (int twice = 0; twice < 2; twice++) {  // the second time in memory that was used
        JinjaResult r;
        *error = 0;
        if (!jinja_render(t, s, row, n_row, variables, sizeof variables - 1, &r, error, sizeof error)) {
            MUST(*error && !strchr(error, '\n'));
            continue;
        }
        MUST(r.text && r.text[r.n] == 0);
        in_order(r.generation, r.n_generation, r.n);
        in_order(r.given, r.n_given, r.n);
        for (size_t i = 1; i < r.n_given; i++) MUST(r.given[i - 1].end < r.given[i].start);
    }
    jinja_end(s);
    jinja_free(t);
    return 0;
}
