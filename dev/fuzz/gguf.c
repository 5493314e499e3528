/* seal/base/gguf.c, seal/commands/gguf_model.c and gguf_tokenizer.c. Input: the file. Every value and every weight is
   read, then the model's config and its tokenizer are made of it. */
#include <string.h>
#include "fuzz.h"
#include "base/gguf.h"
#include "commands/gguf_model.h"
#include "commands/gguf_tokenizer.h"

#define WEIGHTS_MOST (1 << 20)

static GgufReader r;

static void body(void* path) {
    const char* file = path;
    gguf_open(&r, &file, 1);
    for (int i = 0; i < r.n_values; i++) {
        const GgufValue* v = &r.values[i];
        MUST(gguf_find(&r, v->key) == v);
        volatile size_t sum = 0;
        for (uint64_t k = 0; k < v->count; k++) {
            if (v->type != GGUF_STRING) sum += gguf_element(v, k) > 0;
            for (size_t b = 0; v->type == GGUF_STRING && b < v->strings[k].n; b++)
                sum += (size_t)v->strings[k].bytes[b];
        }
    }
    for (int i = 0; i < r.n_tensors; i++) {
        const GgufTensor* t = &r.tensors[i];
        MUST(gguf_tensor(&r, t->name) == t && t->bytes <= r.parts[0].length && t->count <= WEIGHTS_MOST);
        float* out = malloc((size_t)t->count * sizeof *out);
        gguf_to_float(t, 0, t->count, out);
        free(out);
    }
    const GgufFamily* family = gguf_family(&r);
    ModelConfig config;
    GgufTokenizer tokenizer;
    gguf_config(&r, family, &config);
    gguf_tokenizer(&tokenizer, &r, family->pre, config.V, config.max_positions);
    MUST(strlen(tokenizer.tokenizer) == tokenizer.length);
    gguf_tokenizer_free(&tokenizer);
    gguf_close(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    memset(&r, 0, sizeof r);
    if (!survive(body, (void*)fuzz_file("model.gguf", data, n))) fuzz_unmap();
    return 0;
}
