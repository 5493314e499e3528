/* seal/base/safetensors.c. Input: the file. Every value of every tensor is read. */
#include <string.h>
#include "fuzz.h"
#include "base/safetensors.h"

static StReader r;

static void body(void* path) {
    st_open(&r, path);
    for (int i = 0; i < r.n_tensors; i++) {
        const StTensor* t = &r.tensors[i];
        MUST(st_find(&r, t->name) == t && t->bytes <= r.file.length);
        volatile uint8_t sum = 0;
        for (size_t b = 0; b < t->bytes; b++) sum ^= t->data[b];
        if (t->dtype == ST_F32 || t->dtype == ST_F16 || t->dtype == ST_BF16) {
            float* out = malloc((size_t)t->count * sizeof *out + 1);
            st_to_float(&r, t, 0, t->count, out);
            free(out);
        }
    }
    st_metadata(&r, "seed");
    st_close(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t n) {
    memset(&r, 0, sizeof r);
    if (!survive(body, (void*)fuzz_file("model.safetensors", data, n))) file_unmap(&r.file);
    return 0;
}
